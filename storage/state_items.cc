// Transactions: compares, puts and deletions, one revision for all changes of a command.
#include <google/protobuf/repeated_field.h>

#include <utility>

#include "base/check.h"
#include "storage/answer.h"
#include "storage/state_apply.h"

namespace quorate::storage {
namespace {

using Operations = google::protobuf::RepeatedPtrField<v1::Operation>;

// A range is read in portions, so that memory stays bounded.
constexpr uint64_t kRangePortion = 256;

bool IsUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<uint8_t>(text[i]);
    size_t length = lead < 0x80       ? 1
                    : lead >> 5 == 6  ? 2
                    : lead >> 4 == 14 ? 3
                    : lead >> 3 == 30 ? 4
                                      : 0;
    if (length == 0 || i + length > text.size()) return false;
    uint32_t point = length == 1 ? lead : lead & (0x7fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<uint8_t>(text[i + k]);
      if (next >> 6 != 2) return false;
      point = point << 6 | (next & 0x3f);
    }
    constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kLeast[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      return false;
    }
    i += length;
  }
  return true;
}

// The answer's metadata are protobuf strings, and keys are bytes.
void AddKey(v1::Answer& answer, std::string_view key) {
  if (IsUtf8(key)) (*answer.mutable_metadata())["key"] = std::string(key);
}

bool KeyIsValid(std::string_view key) { return !key.empty() && key.size() <= kKeyBytesHardMax; }

// Why a transaction makes no sense; empty: it does. Both branches, whichever would run.
std::string WhatIsWrong(const v1::Transaction& transaction) {
  for (const v1::Compare& compare : transaction.compare()) {
    if (!KeyIsValid(compare.key())) return "a compare's key is empty or too long";
    if (compare.result() < v1::Compare::RESULT_EQUAL ||
        compare.result() > v1::Compare::RESULT_LESS) {
      return "a compare does not say with which result";
    }
    if (compare.target_case() == v1::Compare::TARGET_NOT_SET) {
      return "a compare does not say what is compared";
    }
  }
  for (const Operations* operations : {&transaction.then(), &transaction.otherwise()}) {
    for (const v1::Operation& operation : *operations) {
      if (operation.has_put()) {
        const v1::PutOperation& put = operation.put();
        if (!KeyIsValid(put.key())) return "a put's key is empty or too long";
        if (put.value().size() > kValueBytesHardMax) return "a put's value is too long";
        if (put.value_kind() != v1::VALUE_KIND_TEXT && put.value_kind() != v1::VALUE_KIND_DATA) {
          return "a put does not say whether its value is text or data";
        }
      } else if (operation.has_delete_()) {
        const v1::DeleteOperation& remove = operation.delete_();
        if (remove.key().size() > kKeyBytesHardMax ||
            remove.range_end().size() > kKeyBytesHardMax ||
            (remove.key().empty() && remove.range_end().empty())) {
          return "a deletion's key is empty or too long";
        }
      } else if (operation.has_read()) {
        const v1::ReadOperation& read = operation.read();
        if (read.key().size() > kKeyBytesHardMax || read.range_end().size() > kKeyBytesHardMax ||
            (read.key().empty() && read.range_end().empty())) {
          return "a read's key is empty or too long";
        }
      } else {
        return "an operation is neither a put, a deletion nor a read";
      }
    }
  }
  return {};
}

template <typename T>
bool Compared(const T& current, v1::Compare::Result result, const T& wanted) {
  switch (result) {
    case v1::Compare::RESULT_EQUAL:
      return current == wanted;
    case v1::Compare::RESULT_NOT_EQUAL:
      return current != wanted;
    case v1::Compare::RESULT_GREATER:
      return current > wanted;
    case v1::Compare::RESULT_LESS:
      return current < wanted;
    default:
      return false;
  }
}

}  // namespace

v1::Answer TooManyRows() {
  v1::Answer refusal;
  Refuse(refusal, kResourceExhausted, "TOO_MANY_ROWS",
         "one write can look at most at " + std::to_string(kRowsHardMax) +
             " rows, of deleted keys and of the history that it rolls back too: take smaller "
             "prefixes one after the other, or compact the history first");
  return refusal;
}

std::optional<std::string> RangeEnd(const std::string& range_end) {
  if (range_end == std::string_view("\0", 1)) return std::nullopt;
  return range_end;
}

absl::StatusOr<ItemTable> ItemTable::Prepare(Database& database) {
  ItemTable table;
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&table.find_item_, "SELECT row, create_revision, version FROM item WHERE key = ?1"},
      {&table.insert_item_, "INSERT INTO item VALUES (?1, ?2, ?3, ?4)"},
      {&table.update_item_,
       "UPDATE item SET row = ?2, create_revision = ?3, version = ?4 WHERE key = ?1"},
      {&table.insert_history_,
       "INSERT INTO history VALUES (?1, ?2, ?3, ?4, ?5, ?12, ?6, ?7, ?8, ?9, ?10, ?11)"},
      {&table.value_, "SELECT value FROM history WHERE row = ?1"},
      {&table.live_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 AND version > 0"
       " ORDER BY key LIMIT ?2"},
      {&table.live_until_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 AND key < ?3"
       " AND version > 0 ORDER BY key LIMIT ?2"},
      {&table.count_,
       "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 AND version > 0 LIMIT ?2)"},
      {&table.count_until_,
       "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 AND key < ?3 AND version > 0"
       " LIMIT ?2)"},
      {&table.rows_, "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 LIMIT ?2)"},
      {&table.rows_until_,
       "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 AND key < ?3 LIMIT ?2)"},
      {&table.kind_and_value_, "SELECT kind, value, ttl FROM history WHERE row = ?1"},
      {&table.ttl_, "SELECT ttl FROM history WHERE row = ?1"},
      {&table.savepoint_, "SAVEPOINT branch"},
      {&table.roll_back_, "ROLLBACK TO branch"},
      {&table.release_, "RELEASE branch"},
      {&table.previous_, "SELECT previous, version FROM history WHERE row = ?1"},
      {&table.all_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 AND row >= ?4"
       " ORDER BY key LIMIT ?2"},
      {&table.all_until_,
       "SELECT key, row, create_revision, version FROM item WHERE key >= ?1 AND key < ?3"
       " AND row >= ?4 ORDER BY key LIMIT ?2"},
      {&table.changed_,
       "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 AND row >= ?4 LIMIT ?2)"},
      {&table.changed_until_,
       "SELECT count(*) FROM (SELECT 1 FROM item WHERE key >= ?1 AND key < ?3 AND row >= ?4"
       " LIMIT ?2)"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return table;
}

absl::StatusOr<ItemRow> ItemTable::Find(std::string_view key) {
  ResetAtExit reset(find_item_);
  find_item_.BindBytes(1, key);
  absl::StatusOr<bool> found = find_item_.Step();
  if (!found.ok()) return found.status();
  if (!*found) return ItemRow{};
  return ItemRow{RowId(find_item_.Uint(0)), Revision(find_item_.Uint(1)), find_item_.Uint(2)};
}

absl::StatusOr<bool> ItemTable::ValueHolds(const v1::Compare& compare, const ItemRow& item) {
  if (!item.exists()) return false;  // no value: neither equal nor unequal to any (as in etcd)
  ResetAtExit reset(value_);
  value_.BindUint(1, item.row.value());
  absl::StatusOr<bool> found = value_.Step();
  if (!found.ok()) return found.status();
  if (!*found) return absl::DataLossError("the history row of an item is gone");
  return Compared(value_.Bytes(0), compare.result(), std::string_view(compare.value()));
}

absl::StatusOr<bool> ItemTable::Holds(const v1::Compare& compare, const ItemRow& item) {
  switch (compare.target_case()) {
    case v1::Compare::kModRevision: {
      const uint64_t current = item.exists() ? item.row.revision().value() : 0;
      return Compared<uint64_t>(current, compare.result(), compare.mod_revision());
    }
    case v1::Compare::kCreateRevision:
      return Compared<uint64_t>(item.create_revision.value(), compare.result(),
                                compare.create_revision());
    case v1::Compare::kVersion:
      return Compared<uint64_t>(item.version, compare.result(), compare.version());
    case v1::Compare::kValue:
      return ValueHolds(compare, item);
    case v1::Compare::TARGET_NOT_SET:
      break;
  }
  CHECK(false, "a compare without a target was not refused");
}

absl::StatusOr<std::optional<ItemTable::Mismatch>> ItemTable::FindMismatch(
    const v1::Transaction& transaction) {
  for (const v1::Compare& compare : transaction.compare()) {
    absl::StatusOr<ItemRow> item = Find(compare.key());
    if (!item.ok()) return item.status();
    absl::StatusOr<bool> holds = Holds(compare, *item);
    if (!holds.ok()) return holds.status();
    if (!*holds) {
      return Mismatch{&compare, item->exists() ? item->row.revision() : Revision()};
    }
  }
  return std::nullopt;
}

absl::StatusOr<uint64_t> ItemTable::CountDeletions(const Operations& operations, uint64_t limit) {
  uint64_t count = 0;
  for (const v1::Operation& operation : operations) {
    if (!operation.has_delete_() || operation.delete_().range_end().empty()) continue;
    absl::StatusOr<uint64_t> more =
        CountLive(operation.delete_().key(), RangeEnd(operation.delete_().range_end()), limit + 1);
    if (!more.ok()) return more.status();
    count += *more;
    if (count > limit) break;
  }
  return count;
}

absl::StatusOr<uint64_t> ItemTable::CountLive(std::string_view first,
                                              const std::optional<std::string>& end,
                                              uint64_t limit) {
  Statement& select = end ? count_until_ : count_;
  ResetAtExit reset(select);
  select.BindBytes(1, first);
  select.BindUint(2, limit);
  if (end) select.BindBytes(3, *end);
  absl::StatusOr<bool> row = select.Step();
  if (!row.ok()) return row.status();
  return select.Uint(0);
}

absl::StatusOr<uint64_t> ItemTable::CountRows(std::string_view first,
                                              const std::optional<std::string>& end,
                                              uint64_t limit) {
  Statement& select = end ? rows_until_ : rows_;
  ResetAtExit reset(select);
  select.BindBytes(1, first);
  select.BindUint(2, limit);
  if (end) select.BindBytes(3, *end);
  absl::StatusOr<bool> row = select.Step();
  if (!row.ok()) return row.status();
  return select.Uint(0);
}

absl::StatusOr<uint64_t> ItemTable::CountRowsOf(const Operations& operations, uint64_t limit) {
  uint64_t count = 0;
  for (const v1::Operation& operation : operations) {
    const bool reads = operation.has_read();
    if (!reads && !operation.has_delete_()) continue;
    const std::string& first = reads ? operation.read().key() : operation.delete_().key();
    const std::string& end = reads ? operation.read().range_end() : operation.delete_().range_end();
    if (end.empty()) continue;
    absl::StatusOr<uint64_t> more = CountRows(first, RangeEnd(end), limit - count);
    if (!more.ok()) return more.status();
    count += *more;
    if (count >= limit) break;
  }
  return count;
}

absl::Status ItemTable::Execute(const v1::Transaction& transaction, const Context& context,
                                StateMeta& meta, v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  std::string wrong = WhatIsWrong(transaction);
  if (!wrong.empty()) {
    Refuse(answer, kInvalidArgument, "MALFORMED_COMMAND", std::move(wrong));
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<Mismatch>> mismatch = FindMismatch(transaction);
  if (!mismatch.ok()) return mismatch.status();
  if (*mismatch && transaction.abort_on_false()) {
    Refuse(answer, kAborted, "REVISION_MISMATCH",
           "the key is at revision " + ToString((*mismatch)->current));
    (*answer.mutable_metadata())["current_revision"] = ToString((*mismatch)->current);
    AddKey(answer, (*mismatch)->compare->key());
    return absl::OkStatus();
  }
  const Operations& operations = *mismatch ? transaction.otherwise() : transaction.then();

  if (context.rows_bounded) {
    // Before anything else looks at them.
    absl::StatusOr<uint64_t> rows = CountRowsOf(operations, kRowsHardMax + 1);
    if (!rows.ok()) return rows.status();
    if (*rows > kRowsHardMax) {
      answer = TooManyRows();
      answer.set_revision(meta.revision.value());
      return absl::OkStatus();
    }
  }
  // Before the first change, because nothing of a refused command may stay. What one operation
  // puts, one later range deletion can delete again: hence twice.
  const auto own = 2 * static_cast<uint64_t>(operations.size());
  absl::StatusOr<uint64_t> deletions = CountDeletions(operations, kChangesHardMax);
  if (!deletions.ok()) return deletions.status();
  if (own + *deletions > kChangesHardMax || meta.revision.value() >= RowId::kRevisionMax) {
    Refuse(answer, kResourceExhausted, "TOO_MANY_CHANGES",
           "one write can change at most " + std::to_string(kChangesHardMax) +
               " keys: delete smaller prefixes one after the other");
    return absl::OkStatus();
  }

  answer.set_succeeded(!*mismatch);
  Changes changes{context, meta.revision + 1, 0, meta.hash};
  if (absl::Status s = RunBranch(operations, changes, answer); !s.ok()) return s;
  Finish(changes, meta, answer);
  return absl::OkStatus();
}

void ItemTable::Finish(const Changes& changes, StateMeta& meta, v1::Answer& answer) {
  if (changes.refusal) {
    answer = *changes.refusal;
  } else {
    meta.hash = changes.hash;
    if (changes.count > 0) meta.revision = changes.revision;
  }
  answer.set_revision(meta.revision.value());
}

absl::Status ItemTable::Put(const v1::PutOperation& put, Changes& changes,
                            v1::OperationResult& result) {
  absl::StatusOr<ItemRow> before = Find(put.key());
  if (!before.ok()) return before.status();
  if (put.ttl_id() != 0) {
    absl::StatusOr<uint64_t> bound = BoundTo(*before);
    if (!bound.ok()) return bound.status();
    if (*bound != put.ttl_id()) {
      if (absl::Status s = CheckBinding(put.ttl_id(), changes); !s.ok()) return s;
      if (changes.refusal) return absl::OkStatus();
    }
  }
  ItemRow after{RowId(), before->exists() ? before->create_revision : changes.revision,
                before->version + 1};
  result.set_create_revision(after.create_revision.value());
  result.set_version(after.version);
  return Write(put.key(), put.value(),
               put.value_kind() == v1::VALUE_KIND_TEXT ? RowKind::kText : RowKind::kData, *before,
               after, changes, put.ttl_id());
}

absl::Status ItemTable::Delete(const v1::DeleteOperation& remove, Changes& changes,
                               v1::OperationResult& result) {
  if (!remove.range_end().empty()) {
    return DeleteRange(remove.key(), RangeEnd(remove.range_end()), changes, result);
  }
  absl::StatusOr<ItemRow> before = Find(remove.key());
  if (!before.ok()) return before.status();
  if (!before->exists()) return absl::OkStatus();
  result.set_deleted(1);
  return Write(remove.key(), {}, RowKind::kDelete, *before, ItemRow{}, changes);
}

absl::Status ItemTable::DeleteRange(const std::string& first, const std::optional<std::string>& end,
                                    Changes& changes, v1::OperationResult& result) {
  return ForEach(end ? live_until_ : live_, first, end, RowId(),
                 [&](const std::string& key, const ItemRow& before) -> absl::StatusOr<bool> {
                   result.set_deleted(result.deleted() + 1);
                   absl::Status status =
                       Write(key, {}, RowKind::kDelete, before, ItemRow{}, changes);
                   if (!status.ok()) return status;
                   return true;
                 });
}

absl::Status ItemTable::ForEach(Statement& select, std::string first,
                                const std::optional<std::string>& end, RowId changed_from,
                                const Act& act) {
  std::vector<std::pair<std::string, ItemRow>> portion;
  do {
    portion.clear();
    {
      ResetAtExit reset(select);
      select.BindBytes(1, first);
      select.BindUint(2, kRangePortion);
      if (end) select.BindBytes(3, *end);
      if (changed_from) select.BindUint(4, changed_from.value());
      while (true) {
        absl::StatusOr<bool> row = select.Step();
        if (!row.ok()) return row.status();
        if (!*row) break;
        portion.emplace_back(
            std::string(select.Bytes(0)),
            ItemRow{RowId(select.Uint(1)), Revision(select.Uint(2)), select.Uint(3)});
      }
    }
    for (const auto& [key, item] : portion) {
      absl::StatusOr<bool> more = act(key, item);
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
    }
    if (!portion.empty()) first = portion.back().first + '\0';
  } while (portion.size() == kRangePortion);
  return absl::OkStatus();
}

absl::Status ItemTable::Write(std::string_view key, std::string_view value, RowKind kind,
                              const ItemRow& before, const ItemRow& after, Changes& changes,
                              uint64_t ttl) {
  absl::StatusOr<uint64_t> bound = BoundTo(before);
  if (!bound.ok()) return bound.status();
  if (*bound != ttl) {
    absl::Status status;
    if (*bound != 0) status = ttls_->Unbind(*bound, key, changes.hash);
    if (status.ok() && ttl != 0) status = ttls_->Bind(ttl, key, changes.hash);
    if (!status.ok()) return status;
  }
  CHECK(changes.count <= RowId::kSubMax, "a revision with more changes than a row id can number");
  ItemRow item = after;
  item.row = RowId(changes.revision, changes.count++);
  HistoryRow row;
  row.row = item.row;
  row.previous = before.row;
  row.kind = kind;
  row.create_revision = item.create_revision;
  row.version = item.version;
  row.ttl = ttl;
  row.wall_time_ms = changes.context.wall_time_ms;
  row.log_time_ms = changes.context.log_time_ms;
  row.author = changes.context.author;
  row.note = changes.context.note;
  row.key = key;
  row.value = value;

  insert_history_.BindUint(1, row.row.value());
  insert_history_.BindUint(2, row.previous.value());
  insert_history_.BindInt(3, static_cast<int64_t>(row.kind));
  insert_history_.BindUint(4, row.create_revision.value());
  insert_history_.BindUint(5, row.version);
  insert_history_.BindInt(6, row.wall_time_ms);
  insert_history_.BindUint(7, row.log_time_ms);
  insert_history_.BindText(8, row.author);
  insert_history_.BindText(9, row.note);
  insert_history_.BindBytes(10, row.key);
  insert_history_.BindBytes(11, row.value);
  insert_history_.BindUint(12, row.ttl);
  absl::Status status = insert_history_.Run();
  if (!status.ok()) return status;

  Statement& put_item = before.row ? update_item_ : insert_item_;
  put_item.BindBytes(1, key);
  put_item.BindUint(2, item.row.value());
  put_item.BindUint(3, item.create_revision.value());
  put_item.BindUint(4, item.version);
  status = put_item.Run();
  if (!status.ok()) return status;

  if (before.row) changes.hash -= HashOfItem(hasher_, key, before);
  changes.hash += HashOfItem(hasher_, key, item);
  changes.hash += HashOfHistory(hasher_, row);
  return collector_ == nullptr ? absl::OkStatus() : collector_->Add(row, before);
}

}  // namespace quorate::storage
