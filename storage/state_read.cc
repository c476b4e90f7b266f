#include "storage/state_read.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "storage/state_requests.h"
#include "storage/state_sessions.h"
#include "storage/state_ttl.h"

namespace quorate::storage {

namespace {

// SQLite's virtual machine asks after so many of its steps, about 20 microseconds of a scan,
// whether to go on: rarely enough that it costs nothing to be seen (STATE.md).
constexpr int kStepsPerQuestion = 1000;

int AskWhetherToEnd(void* abandon) {
  return (*static_cast<const StateReader::Abandon*>(abandon))() ? 1 : 0;
}

}  // namespace

// BEGIN takes no snapshot by itself: the first SELECT does, and all that follow see the same.
// ROLLBACK ends it, because that cannot fail; after some errors SQLite has ended it already.
StateReader::Transaction::Transaction(StateReader& reader, const Abandon& abandon)
    : reader_(reader), status_(reader.begin_.Run()) {
  if (!abandon) return;
  sqlite3_progress_handler(reader_.database_.handle(), kStepsPerQuestion, AskWhetherToEnd,
                           const_cast<Abandon*>(&abandon));
}

StateReader::Transaction::~Transaction() {
  sqlite3* connection = reader_.database_.handle();
  sqlite3_progress_handler(connection, 0, nullptr, nullptr);
  if (sqlite3_get_autocommit(connection) == 0) reader_.rollback_.Run().IgnoreError();
  CHECK(sqlite3_get_autocommit(connection) != 0, "a read transaction did not end");
}

absl::StatusOr<std::unique_ptr<StateReader>> StateReader::Open(const std::string& path,
                                                               Database::Mode mode) {
  std::unique_ptr<StateReader> reader(new StateReader);
  absl::StatusOr<Database> database = OpenStateReader(path, mode);
  if (!database.ok()) return database.status();
  reader->database_ = *std::move(database);
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&reader->begin_, "BEGIN"},
      {&reader->rollback_, "ROLLBACK"},
      {&reader->bounds_, "SELECT revision, compacted FROM store"},
      {&reader->item_, "SELECT row FROM item WHERE key = ?1"},
      {&reader->items_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 ORDER BY key"},
      {&reader->items_until_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 AND key < ?2"
       " ORDER BY key"},
      {&reader->previous_, "SELECT previous, version FROM history WHERE row = ?1"},
      {&reader->history_,
       "SELECT kind, create_revision, version, value, ttl FROM history WHERE row = ?1"},
      {&reader->change_,
       "SELECT previous, kind, create_revision, version, wall_time_ms, author, note, value, ttl"
       " FROM history WHERE row = ?1"},
      {&reader->head_, "SELECT kind, create_revision, version FROM history WHERE row = ?1"},
      {&reader->changes_,
       "SELECT row, previous, kind, create_revision, version, key FROM history"
       " WHERE row >= ?1 ORDER BY row"},
      {&reader->due_ttls_,
       "SELECT ttl FROM ttl WHERE deadline_ms < ?1 ORDER BY deadline_ms, ttl LIMIT ?2"},
      {&reader->count_, "SELECT count(*) FROM item WHERE key >= ?1 AND version > 0"},
      {&reader->count_until_,
       "SELECT count(*) FROM item WHERE key >= ?1 AND key < ?2 AND version > 0"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = reader->database_.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return reader;
}

absl::StatusOr<StateReader::Bounds> StateReader::ReadBounds() {
  ResetAtExit reset(bounds_);
  absl::StatusOr<bool> row = bounds_.Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::DataLossError("the state database has lost its table `store`");
  return Bounds{Revision(bounds_.Uint(0)), Revision(bounds_.Uint(1))};
}

absl::StatusOr<bool> StateReader::NeedsWalk(std::optional<Revision> at,
                                            const Bounds& bounds) const {
  if (!at) return false;
  if (*at > bounds.revision) {
    return absl::OutOfRangeError("revision " + ToString(*at) +
                                 " is ahead of this node, which is at " +
                                 ToString(bounds.revision));
  }
  if (*at == bounds.revision) return false;  // now, whatever of the past is there
  if (*at <= bounds.compacted) {
    return absl::OutOfRangeError("revision " + ToString(*at) +
                                 " is compacted: history begins after " +
                                 ToString(bounds.compacted));
  }
  return true;
}

absl::StatusOr<RowId> StateReader::Previous(RowId row, bool* first_version) {
  ResetAtExit reset(previous_);
  previous_.BindUint(1, row.value());
  absl::StatusOr<bool> found = previous_.Step();
  if (!found.ok()) return found.status();
  if (!*found) {
    return absl::DataLossError("history row " + std::to_string(row.value()) + " is gone");
  }
  const RowId previous(previous_.Uint(0));
  if (previous.value() >= row.value()) {
    return absl::DataLossError("history row " + std::to_string(row.value()) + " points ahead");
  }
  *first_version = previous_.Uint(1) == 1;
  return previous;
}

absl::StatusOr<RowId> StateReader::RowAt(RowId row, Revision at) {
  while (row && row.revision() > at) {
    bool first_version = false;
    absl::StatusOr<RowId> previous = Previous(row, &first_version);
    if (!previous.ok()) return previous;
    // Before a first version the key was not there, and what says so may be compacted.
    if (first_version && previous->revision() <= at) return RowId();
    row = *previous;
  }
  return row;
}

absl::StatusOr<RowId> StateReader::LastChangeAt(RowId row, Revision at) {
  while (row && row.revision() > at) {
    bool first_version = false;
    absl::StatusOr<RowId> previous = Previous(row, &first_version);
    if (!previous.ok()) return previous;
    row = *previous;
  }
  return row;
}

absl::StatusOr<bool> StateReader::ReadItem(RowId row, bool keys_only, Item& item) {
  Statement& select = keys_only ? head_ : history_;
  ResetAtExit reset(select);
  select.BindUint(1, row.value());
  absl::StatusOr<bool> found = select.Step();
  if (!found.ok()) return found.status();
  if (!*found)
    return absl::DataLossError("history row " + std::to_string(row.value()) + " is gone");
  const auto kind = static_cast<RowKind>(select.Int(0));
  if (kind == RowKind::kDelete) return false;
  item.is_text = kind == RowKind::kText;
  item.create_revision = Revision(select.Uint(1));
  item.mod_revision = row.revision();
  item.version = select.Uint(2);
  item.value = keys_only ? std::string() : std::string(select.Bytes(3));
  item.ttl = keys_only ? 0 : select.Uint(4);
  return true;
}

std::pair<absl::StatusOr<Item>, Revision> StateReader::Get(std::string_view key,
                                                           std::optional<Revision> at,
                                                           const Abandon& abandon) {
  Transaction transaction(*this, abandon);
  if (!transaction.status().ok()) return {transaction.status(), Revision()};
  absl::StatusOr<Bounds> bounds = ReadBounds();
  if (!bounds.ok()) return {bounds.status(), Revision()};
  const Revision revision = bounds->revision;
  absl::StatusOr<bool> walk = NeedsWalk(at, *bounds);
  if (!walk.ok()) return {walk.status(), revision};
  RowId row;
  {
    ResetAtExit reset(item_);
    item_.BindBytes(1, key);
    absl::StatusOr<bool> found = item_.Step();
    if (!found.ok()) return {found.status(), revision};
    if (*found) row = RowId(item_.Uint(0));
  }
  if (*walk) {
    absl::StatusOr<RowId> then = RowAt(row, *at);
    if (!then.ok()) return {then.status(), revision};
    row = *then;
  }
  if (!row) return {absl::NotFoundError("no such key"), revision};
  Item item;
  absl::StatusOr<bool> exists = ReadItem(row, /*keys_only=*/false, item);
  if (!exists.ok()) return {exists.status(), revision};
  if (!*exists) return {absl::NotFoundError("no such key"), revision};
  item.key = std::string(key);
  return {std::move(item), revision};
}

Statement& StateReader::BindRange(std::string_view first, const std::optional<std::string>& end) {
  Statement& select = end ? items_until_ : items_;
  select.BindBytes(1, first);
  if (end) select.BindBytes(2, *end);
  return select;
}

absl::StatusOr<ListPage> StateReader::List(const ListQuery& query, const Abandon& abandon) {
  Transaction transaction(*this, abandon);
  if (!transaction.status().ok()) return transaction.status();
  absl::StatusOr<Bounds> bounds = ReadBounds();
  if (!bounds.ok()) return bounds.status();
  absl::StatusOr<bool> walk = NeedsWalk(query.at, *bounds);
  if (!walk.ok()) return walk.status();
  ListPage page;
  page.revision = bounds->revision;
  absl::Status status = ReadPage(query, *walk, page);
  if (!status.ok()) return status;
  return page;
}

absl::Status StateReader::ReadPage(const ListQuery& query, bool walk, ListPage& page) {
  std::string first = query.prefix;
  // The least key after `after` is itself with a zero byte behind it.
  if (!query.after.empty() && query.after >= query.prefix) first = query.after + '\0';
  const std::optional<std::string> end = PrefixEnd(query.prefix);
  Statement& select = BindRange(first, end);
  ResetAtExit reset(select);
  size_t bytes = 0;
  while (true) {
    absl::StatusOr<bool> more = select.Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    RowId row(select.Uint(1));
    if (walk) {
      absl::StatusOr<RowId> then = RowAt(row, *query.at);
      if (!then.ok()) return then.status();
      row = *then;
      if (!row) continue;
    } else if (select.Uint(3) == 0) {
      continue;  // deleted
    }
    // A full page looks only for whether there is one more.
    const bool full = page.items.size() >= query.items_max;
    Item item;
    absl::StatusOr<bool> exists = ReadItem(row, query.keys_only || full, item);
    if (!exists.ok()) return exists.status();
    if (!*exists) continue;
    item.key = std::string(select.Bytes(0));
    bytes += item.key.size() + item.value.size();
    if (full || (bytes > query.bytes_max && !page.items.empty())) {
      page.more = true;
      return absl::OkStatus();
    }
    page.items.push_back(std::move(item));
  }
}

absl::StatusOr<std::pair<uint64_t, Revision>> StateReader::Count(std::string_view prefix,
                                                                 std::optional<Revision> at,
                                                                 const Abandon& abandon) {
  Transaction transaction(*this, abandon);
  if (!transaction.status().ok()) return transaction.status();
  absl::StatusOr<Bounds> bounds = ReadBounds();
  if (!bounds.ok()) return bounds.status();
  absl::StatusOr<bool> walk = NeedsWalk(at, *bounds);
  if (!walk.ok()) return walk.status();
  const std::optional<std::string> end = PrefixEnd(prefix);
  if (!*walk) {
    Statement& count = end ? count_until_ : count_;
    ResetAtExit reset(count);
    count.BindBytes(1, prefix);
    if (end) count.BindBytes(2, *end);
    absl::StatusOr<bool> row = count.Step();
    if (!row.ok()) return row.status();
    return std::pair(count.Uint(0), bounds->revision);
  }
  Statement& select = BindRange(prefix, end);
  ResetAtExit reset(select);
  uint64_t count = 0;
  Item ignored;
  while (true) {
    absl::StatusOr<bool> more = select.Step();
    if (!more.ok()) return more.status();
    if (!*more) return std::pair(count, bounds->revision);
    RowId row(select.Uint(1));
    if (row.revision() <= *at) {
      count += select.Uint(3) != 0 ? 1 : 0;
      continue;
    }
    absl::StatusOr<RowId> then = RowAt(row, *at);
    if (!then.ok()) return then.status();
    if (!*then) continue;
    absl::StatusOr<bool> exists = ReadItem(*then, /*keys_only=*/true, ignored);
    if (!exists.ok()) return exists.status();
    if (*exists) ++count;
  }
}

absl::StatusOr<std::vector<std::pair<raft::Index, StateHash>>> StateReader::RecordedHashes() {
  absl::StatusOr<Statement> select =
      database_.Prepare("SELECT at, hash FROM recorded_hash ORDER BY at");
  if (!select.ok()) return select.status();
  std::vector<std::pair<raft::Index, StateHash>> hashes;
  while (true) {
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) return hashes;
    StateHash hash{};
    std::string_view bytes = select->Bytes(1);
    std::memcpy(hash.data(), bytes.data(), std::min(bytes.size(), hash.size()));
    hashes.emplace_back(raft::Index(select->Uint(0)), hash);
  }
}

absl::StatusOr<std::vector<uint64_t>> StateReader::DueTtls(uint64_t log_time_ms, size_t limit) {
  std::vector<uint64_t> ttls;
  ResetAtExit reset(due_ttls_);
  due_ttls_.BindUint(1, log_time_ms);
  due_ttls_.BindUint(2, limit);
  while (true) {
    absl::StatusOr<bool> row = due_ttls_.Step();
    if (!row.ok()) return row.status();
    if (!*row) return ttls;
    ttls.push_back(due_ttls_.Uint(0));
  }
}

absl::StatusOr<HashCheck> StateReader::CheckHash(const std::atomic<bool>& abandon) {
  Transaction transaction(*this);
  if (!transaction.status().ok()) return transaction.status();
  absl::StatusOr<StateMeta> meta = LoadStateMeta(database_);
  if (!meta.ok()) return meta.status();
  HashSum sum = HashOfStore(hasher_, *meta) + HashOfMembership(hasher_, *meta) +
                HashOfSettings(hasher_, *meta);
  SessionTable sessions;
  absl::Status status = SessionStore::Load(database_, sessions);
  if (!status.ok()) return status;
  for (const auto& [store, session] : sessions.sessions()) sum += session.stored_hash;
  RequestTable requests;
  status = RequestStore::Load(database_, requests);
  if (!status.ok()) return status;
  sum += RequestStore::HashOf(requests);
  status = SumTtls(database_, hasher_, sum);
  if (!status.ok()) return status;
  status = SumItems(abandon, sum);
  if (!status.ok()) return status;
  status = SumHistory(abandon, sum);
  if (!status.ok()) return status;
  return HashCheck{meta->applied, meta->hash.bytes(), sum.bytes()};
}

absl::Status StateReader::SumItems(const std::atomic<bool>& abandon, HashSum& sum) {
  absl::StatusOr<Statement> select =
      database_.Prepare("SELECT key, row, create_revision, version FROM item");
  if (!select.ok()) return select.status();
  while (true) {
    if (abandon.load()) return absl::AbortedError("a checkpoint could not wait any longer");
    absl::StatusOr<bool> more = select->Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    ItemRow item{RowId(select->Uint(1)), Revision(select->Uint(2)), select->Uint(3)};
    sum += HashOfItem(hasher_, select->Bytes(0), item);
  }
}

absl::Status StateReader::SumHistory(const std::atomic<bool>& abandon, HashSum& sum) {
  absl::StatusOr<Statement> select = database_.Prepare(
      "SELECT row, previous, kind, create_revision, version, ttl, wall_time_ms, log_time_ms,"
      " author, note, key, value FROM history");
  if (!select.ok()) return select.status();
  while (true) {
    if (abandon.load()) return absl::AbortedError("a checkpoint could not wait any longer");
    absl::StatusOr<bool> more = select->Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    HistoryRow row;
    row.row = RowId(select->Uint(0));
    row.previous = RowId(select->Uint(1));
    row.kind = static_cast<RowKind>(select->Int(2));
    row.create_revision = Revision(select->Uint(3));
    row.version = select->Uint(4);
    row.ttl = select->Uint(5);
    row.wall_time_ms = select->Int(6);
    row.log_time_ms = select->Uint(7);
    row.author = select->Bytes(8);
    row.note = select->Bytes(9);
    row.key = select->Bytes(10);
    row.value = select->Bytes(11);
    sum += HashOfHistory(hasher_, row);
  }
}

}  // namespace quorate::storage
