#include "storage/state_compact.h"

#include <algorithm>
#include <utility>

#include "storage/answer.h"

namespace quorate::storage {
namespace {

// Rows are read in portions, so that memory stays bounded. No effect on what is dropped.
constexpr uint64_t kCompactPortion = 256;
// Space goes back to the file system once a quarter of the file is free.
constexpr int64_t kGiveBackShare = 4;
constexpr int64_t kGiveBackMin = 256;

absl::StatusOr<int64_t> Number(Statement& pragma) {
  ResetAtExit reset(pragma);
  absl::StatusOr<bool> row = pragma.Step();
  if (!row.ok()) return row.status();
  return *row ? pragma.Int(0) : 0;
}

// A statement whose rows, if it has any, say nothing.
absl::Status RunToEnd(Statement& statement) {
  ResetAtExit reset(statement);
  while (true) {
    absl::StatusOr<bool> row = statement.Step();
    if (!row.ok() || !*row) return row.status();
  }
}

absl::Status Gone(RowId row) {
  return absl::DataLossError("history row " + std::to_string(row.value()) + " is gone");
}

}  // namespace

absl::StatusOr<Compactor> Compactor::Prepare(Database& database) {
  Compactor compactor;
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&compactor.rows_,
       "SELECT row, previous, kind, version FROM history WHERE row >= ?1 AND row <= ?2"
       " ORDER BY row LIMIT ?3"},
      {&compactor.read_,
       "SELECT previous, kind, create_revision, version, ttl, wall_time_ms, log_time_ms, author,"
       " note, key, value FROM history WHERE row = ?1"},
      {&compactor.delete_, "DELETE FROM history WHERE row = ?1"},
      {&compactor.item_, "SELECT row, create_revision, version FROM item WHERE key = ?1"},
      {&compactor.delete_item_, "DELETE FROM item WHERE key = ?1"},
      {&compactor.free_pages_, "PRAGMA freelist_count"},
      {&compactor.pages_, "PRAGMA page_count"},
      {&compactor.vacuum_, "PRAGMA incremental_vacuum(256)"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return compactor;
}

absl::Status Compactor::Execute(const v1::CompactHistory& command, StateMeta& meta,
                                v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  const Revision wanted(command.revision());
  if (!wanted || command.rows_max() == 0 || command.bytes_max() == 0) {
    answer.set_code(kInvalidArgument);
    answer.set_reason("MALFORMED_COMMAND");
    answer.set_message("a compaction does not say to which revision, or not how much at once");
    return absl::OkStatus();
  }
  if (wanted > meta.revision) {
    answer.set_code(kOutOfRange);
    answer.set_reason("REVISION_IN_FUTURE");
    answer.set_message("revision " + ToString(wanted) + " cannot be compacted: the store is at " +
                       ToString(meta.revision));
    (*answer.mutable_metadata())["current_revision"] = ToString(meta.revision);
    return absl::OkStatus();
  }
  gone_ = HashSum();
  bytes_ = 0;
  if (meta.compacted < wanted) {
    absl::StatusOr<Revision> done = CompactFrom(meta.compacted, command);
    if (!done.ok()) return done.status();
    meta.compacted = *done;
    meta.hash -= gone_;
  }
  answer.set_succeeded(meta.compacted >= wanted);
  (*answer.mutable_metadata())["compacted_revision"] = ToString(meta.compacted);
  return GiveBackSpace();
}

// Every row at or below `compacted` is the latest there of a key that was alive: what later rows
// make superfluous are therefore their predecessors, and deletions themselves. So the work is in
// proportion to the rows since, not to those that are there.
absl::StatusOr<Revision> Compactor::CompactFrom(Revision compacted,
                                                const v1::CompactHistory& command) {
  const Revision wanted(command.revision());
  RowId next(compacted + 1, 0);
  Revision current = compacted;
  uint64_t rows = 0;
  while (true) {
    absl::StatusOr<std::vector<Row>> portion = Portion(next, wanted);
    if (!portion.ok()) return portion.status();
    for (const Row& row : *portion) {
      // Only whole revisions are compacted, one at least.
      const bool full = rows >= command.rows_max() || bytes_ >= command.bytes_max();
      if (row.row.revision() != current && full) return current;
      if (absl::Status s = Compact(row); !s.ok()) return s;
      current = row.row.revision();
      next = RowId(row.row.value() + 1);
      ++rows;
    }
    if (portion->size() < kCompactPortion) return wanted;
  }
}

absl::StatusOr<std::vector<Compactor::Row>> Compactor::Portion(RowId from, Revision last) {
  std::vector<Row> portion;
  ResetAtExit reset(rows_);
  rows_.BindUint(1, from.value());
  rows_.BindUint(2, RowId(last, RowId::kSubMax).value());
  rows_.BindUint(3, kCompactPortion);
  while (true) {
    absl::StatusOr<bool> more = rows_.Step();
    if (!more.ok()) return more.status();
    if (!*more) return portion;
    portion.push_back({RowId(rows_.Uint(0)), RowId(rows_.Uint(1)),
                       static_cast<RowKind>(rows_.Int(2)), rows_.Uint(3)});
  }
}

absl::Status Compactor::Compact(const Row& row) {
  if (row.previous) {
    absl::StatusOr<bool> removed = Remove(row.previous, nullptr);
    if (!removed.ok()) return removed.status();
    // Before the first version of a key stands nothing, or a deletion, which went by itself.
    const bool may_be_gone = row.kind != RowKind::kDelete && row.version == 1;
    if (!*removed && !may_be_gone) return Gone(row.previous);
  }
  if (row.kind != RowKind::kDelete) return absl::OkStatus();
  std::string key;
  absl::StatusOr<bool> removed = Remove(row.row, &key);
  if (!removed.ok()) return removed.status();
  if (!*removed) return Gone(row.row);
  return ForgetItem(key, row.row);
}

absl::StatusOr<bool> Compactor::Remove(RowId id, std::string* key) {
  {
    ResetAtExit reset(read_);
    read_.BindUint(1, id.value());
    absl::StatusOr<bool> found = read_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return false;
    HistoryRow row;
    row.row = id;
    row.previous = RowId(read_.Uint(0));
    row.kind = static_cast<RowKind>(read_.Int(1));
    row.create_revision = Revision(read_.Uint(2));
    row.version = read_.Uint(3);
    row.ttl = read_.Uint(4);
    row.wall_time_ms = read_.Int(5);
    row.log_time_ms = read_.Uint(6);
    row.author = read_.Bytes(7);
    row.note = read_.Bytes(8);
    row.key = read_.Bytes(9);
    row.value = read_.Bytes(10);
    gone_ += HashOfHistory(hasher_, row);
    bytes_ += row.key.size() + row.value.size() + row.author.size() + row.note.size();
    if (key != nullptr) *key = std::string(row.key);
  }
  delete_.BindUint(1, id.value());
  if (absl::Status s = delete_.Run(); !s.ok()) return s;
  return true;
}

absl::Status Compactor::ForgetItem(std::string_view key, RowId deletion) {
  ItemRow item;
  {
    ResetAtExit reset(item_);
    item_.BindBytes(1, key);
    absl::StatusOr<bool> found = item_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return absl::DataLossError("the item of a deleted key is gone");
    item = {RowId(item_.Uint(0)), Revision(item_.Uint(1)), item_.Uint(2)};
  }
  if (item.row.value() != deletion.value()) return absl::OkStatus();  // it has come again
  gone_ += HashOfItem(hasher_, key, item);
  delete_item_.BindBytes(1, key);
  return delete_item_.Run();
}

// Free pages are used again, so only a file that is for a good part empty is made shorter, and a
// little at a time: that moves pages. Of this node only; no row changes.
absl::Status Compactor::GiveBackSpace() {
  absl::StatusOr<int64_t> free = Number(free_pages_);
  if (!free.ok()) return free.status();
  absl::StatusOr<int64_t> all = Number(pages_);
  if (!all.ok()) return all.status();
  if (*free < kGiveBackMin || *free * kGiveBackShare < *all) return absl::OkStatus();
  return RunToEnd(vacuum_);
}

}  // namespace quorate::storage
