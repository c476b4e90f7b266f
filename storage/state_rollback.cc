// Rollback: a key or a range becomes what it was at a revision, as one new revision.
#include <string>
#include <utility>
#include <vector>

#include "storage/answer.h"
#include "storage/state_apply.h"

namespace quorate::storage {
namespace {

// The first row of what was changed after a revision.
RowId After(Revision revision) { return RowId(revision + 1, 0); }

}  // namespace

absl::Status ItemTable::Rollback(const v1::Rollback& rollback, const Context& context,
                                 StateMeta& meta, v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  const Revision to(rollback.to_revision());
  if (rollback.key().size() > kKeyBytesHardMax || rollback.range_end().size() > kKeyBytesHardMax ||
      (rollback.key().empty() && rollback.range_end().empty())) {
    Refuse(answer, kInvalidArgument, "MALFORMED_COMMAND", "a rollback's key is empty or too long");
    return absl::OkStatus();
  }
  auto& metadata = *answer.mutable_metadata();
  if (to > meta.revision) {
    metadata["current_revision"] = ToString(meta.revision);
    Refuse(answer, kOutOfRange, "REVISION_IN_FUTURE",
           "to_revision: is " + ToString(to) + ", and the store is at revision " +
               ToString(meta.revision));
    return absl::OkStatus();
  }
  if (to <= meta.compacted && to != meta.revision) {
    metadata["compacted_revision"] = ToString(meta.compacted);
    Refuse(answer, kOutOfRange, "REVISION_COMPACTED",
           "to_revision: is " + ToString(to) + ", and history begins after revision " +
               ToString(meta.compacted));
    return absl::OkStatus();
  }
  const bool is_range = !rollback.range_end().empty();
  const std::optional<std::string> end =
      is_range ? RangeEnd(rollback.range_end()) : rollback.key() + '\0';
  uint64_t rows = 0;
  if (context.rows_bounded) {
    // Before anything else looks at them.
    absl::StatusOr<uint64_t> count = CountRows(rollback.key(), end, kRowsHardMax + 1);
    if (!count.ok()) return count.status();
    rows = *count;
    if (rows > kRowsHardMax) {
      answer = TooManyRows();
      answer.set_revision(meta.revision.value());
      return absl::OkStatus();
    }
  }
  // Before the first change, because nothing of a refused command may stay.
  absl::StatusOr<uint64_t> most = CountChangedSince(rollback.key(), end, to);
  if (!most.ok()) return most.status();
  if (*most > kChangesHardMax || meta.revision.value() >= RowId::kRevisionMax) {
    Refuse(answer, kResourceExhausted, "TOO_MANY_CHANGES",
           "one write can change at most " + std::to_string(kChangesHardMax) +
               " keys: roll back smaller prefixes one after the other");
    return absl::OkStatus();
  }

  Changes changes{context, meta.revision + 1, 0, meta.hash, rows};
  answer.set_succeeded(true);
  v1::OperationResult& result = *answer.add_results();
  absl::Status status =
      Undoably(changes, [&] { return RollBackRange(rollback.key(), end, to, changes, result); });
  if (!status.ok()) return status;
  Finish(changes, meta, answer);
  return absl::OkStatus();
}

absl::Status ItemTable::RollBackRange(const std::string& first,
                                      const std::optional<std::string>& end, Revision to,
                                      Changes& changes, v1::OperationResult& result) {
  return ForEach(end ? all_until_ : all_, first, end, After(to),
                 [&](const std::string& key, const ItemRow& now) -> absl::StatusOr<bool> {
                   absl::Status status = RollBackKey(key, now, to, changes, result);
                   if (!status.ok()) return status;
                   return !changes.refusal.has_value();  // what was done is undone then
                 });
}

absl::StatusOr<uint64_t> ItemTable::CountChangedSince(std::string_view first,
                                                      const std::optional<std::string>& end,
                                                      Revision to) {
  Statement& select = end ? changed_until_ : changed_;
  ResetAtExit reset(select);
  select.BindBytes(1, first);
  select.BindUint(2, kChangesHardMax + 1);
  if (end) select.BindBytes(3, *end);
  select.BindUint(4, After(to).value());
  absl::StatusOr<bool> row = select.Step();
  if (!row.ok()) return row.status();
  return select.Uint(0);
}

absl::StatusOr<ItemTable::Then> ItemTable::FindThen(RowId row, Revision at, Changes& changes) {
  while (row && row.revision() > at) {
    if (changes.context.rows_bounded && ++changes.rows > kRowsHardMax) {
      changes.refusal = TooManyRows();
      return Then();
    }
    ResetAtExit reset(previous_);
    previous_.BindUint(1, row.value());
    absl::StatusOr<bool> found = previous_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return absl::DataLossError("a history row is gone");
    RowId before(previous_.Uint(0));
    if (before.value() >= row.value()) return absl::DataLossError("a history row points ahead");
    // Before a first version the key was not there, and what says so may be compacted.
    if (previous_.Uint(1) == 1 && before.revision() <= at) return Then();
    row = before;
  }
  Then then;
  then.row = row;
  if (!row) return then;
  ResetAtExit reset(kind_and_value_);
  kind_and_value_.BindUint(1, row.value());
  absl::StatusOr<bool> found = kind_and_value_.Step();
  if (!found.ok()) return found.status();
  if (!*found) return absl::DataLossError("a history row is gone");
  then.kind = static_cast<RowKind>(kind_and_value_.Int(0));
  then.value = std::string(kind_and_value_.Bytes(1));
  then.ttl = kind_and_value_.Uint(2);
  return then;
}

// What is brought back lives as long as it did then: bound to the time-to-live that it was bound
// to. When that is over, the key stays bound to what it is bound to now, if it is there, so that an
// item that somebody keeps alive does not become one that stays for ever; a key that is not there
// comes back plain.
absl::Status ItemTable::RollBackKey(std::string_view key, const ItemRow& now, Revision to,
                                    Changes& changes, v1::OperationResult& result) {
  absl::StatusOr<Then> then = FindThen(now.row, to, changes);
  if (!then.ok() || changes.refusal) return then.status();
  if (then->kind == RowKind::kDelete) {
    if (!now.exists()) return absl::OkStatus();
    result.set_deleted(result.deleted() + 1);
    return Write(key, {}, RowKind::kDelete, now, ItemRow{}, changes);
  }
  Then current;
  if (now.exists()) {
    absl::StatusOr<Then> found = FindThen(now.row, now.row.revision(), changes);
    if (!found.ok()) return found.status();
    current = *std::move(found);
  }
  uint64_t ttl = then->ttl;
  if (ttl != 0) {
    absl::StatusOr<std::optional<TtlRow>> lives = ttls_->Find(ttl);
    if (!lives.ok()) return lives.status();
    if (!*lives) ttl = current.ttl;
  }
  if (current.kind == then->kind && current.value == then->value && current.ttl == ttl) {
    return absl::OkStatus();
  }
  if (ttl != 0 && ttl != current.ttl) {
    absl::Status status = CheckBinding(ttl, changes);
    if (!status.ok() || changes.refusal) return status;
  }
  result.set_count(result.count() + 1);
  const ItemRow after{RowId(), now.exists() ? now.create_revision : changes.revision,
                      now.version + 1};
  return Write(key, then->value, then->kind, now, after, changes, ttl);
}

}  // namespace quorate::storage
