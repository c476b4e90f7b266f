// Transactions that read: nested reads see the operations before them, and their results are part
// of the answer, the same on every node.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "storage/answer.h"
#include "storage/state_apply.h"

namespace quorate::storage {
namespace {

constexpr uint64_t kItemOverheadBytes = 64;

v1::Answer TooMuchRead() {
  v1::Answer refusal;
  Refuse(refusal, kResourceExhausted, "TXN_RESULT_TOO_LARGE",
         "a transaction's read returns at most " + std::to_string(kReadItemsMax) +
             " items, and all of its reads at most " + std::to_string(kReadBytesMax) +
             " bytes: nothing was changed");
  return refusal;
}

}  // namespace

// A story for the savepoint: (1) a put, (2) a read of more than may be answered, or a put that is
// to be bound to a time-to-live that the put before has filled. The command is refused then, and
// nothing of a refused command may stay; whether it must be refused is known only after the put.
absl::Status ItemTable::Undoably(Changes& changes, const std::function<absl::Status()>& run) {
  if (absl::Status s = savepoint_.Run(); !s.ok()) return s;
  const TtlTable::Counts counts = ttls_->counts();
  if (absl::Status s = run(); !s.ok()) return s;
  if (changes.refusal) {
    if (absl::Status s = roll_back_.Run(); !s.ok()) return s;
    ttls_->Restore(counts);
    // Nobody may hear of what is undone.
    if (collector_ != nullptr) collector_->Take();
  }
  return release_.Run();
}

absl::Status ItemTable::RunBranch(
    const google::protobuf::RepeatedPtrField<v1::Operation>& operations, Changes& changes,
    v1::Answer& answer) {
  bool may_fail = false;
  for (const v1::Operation& operation : operations) {
    may_fail = may_fail || operation.has_read() || operation.put().ttl_id() != 0;
  }
  uint64_t bytes = 0;
  const auto run = [&]() -> absl::Status {
    for (const v1::Operation& operation : operations) {
      v1::OperationResult& result = *answer.add_results();
      absl::Status status;
      if (operation.has_put()) {
        status = Put(operation.put(), changes, result);
      } else if (operation.has_delete_()) {
        status = Delete(operation.delete_(), changes, result);
      } else {
        absl::StatusOr<bool> read = Read(operation.read(), bytes, result);
        status = read.status();
        if (status.ok() && !*read) changes.refusal = TooMuchRead();
      }
      if (!status.ok() || changes.refusal) return status;
    }
    return absl::OkStatus();
  };
  return may_fail ? Undoably(changes, run) : run();
}

absl::StatusOr<bool> ItemTable::Read(const v1::ReadOperation& read, uint64_t& bytes,
                                     v1::OperationResult& result) {
  if (read.range_end().empty()) {
    absl::StatusOr<ItemRow> item = Find(read.key());
    if (!item.ok()) return item.status();
    if (!item->exists()) return true;
    result.set_count(1);
    if (read.count_only()) return true;
    return ReadItem(read.key(), *item, read.keys_only(), bytes, result);
  }
  const std::optional<std::string> end = RangeEnd(read.range_end());
  if (read.count_only()) {
    absl::StatusOr<uint64_t> count = CountLive(read.key(), end, INT64_MAX);
    if (!count.ok()) return count.status();
    result.set_count(*count);
    return true;
  }
  Statement& select = end ? live_until_ : live_;
  ResetAtExit reset(select);
  select.BindBytes(1, read.key());
  select.BindUint(2, kReadItemsMax + 1);
  if (end) select.BindBytes(3, *end);
  while (true) {
    absl::StatusOr<bool> row = select.Step();
    if (!row.ok()) return row.status();
    if (!*row) return true;
    result.set_count(result.count() + 1);
    if (result.count() > kReadItemsMax) return false;
    const ItemRow item{RowId(select.Uint(1)), Revision(select.Uint(2)), select.Uint(3)};
    absl::StatusOr<bool> fits = ReadItem(select.Bytes(0), item, read.keys_only(), bytes, result);
    if (!fits.ok() || !*fits) return fits;
  }
}

absl::StatusOr<bool> ItemTable::ReadItem(std::string_view key, const ItemRow& row, bool keys_only,
                                         uint64_t& bytes, v1::OperationResult& result) {
  v1::ReadItem& item = *result.add_items();
  item.set_key(std::string(key));
  item.set_create_revision(row.create_revision.value());
  item.set_mod_revision(row.row.revision().value());
  item.set_version(row.version);
  if (!keys_only) {
    ResetAtExit reset(kind_and_value_);
    kind_and_value_.BindUint(1, row.row.value());
    absl::StatusOr<bool> found = kind_and_value_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return absl::DataLossError("the history row of an item is gone");
    item.set_value_kind(static_cast<RowKind>(kind_and_value_.Int(0)) == RowKind::kText
                            ? v1::VALUE_KIND_TEXT
                            : v1::VALUE_KIND_DATA);
    item.set_value(std::string(kind_and_value_.Bytes(1)));
    item.set_ttl_id(kind_and_value_.Uint(2));
  }
  bytes += key.size() + item.value().size() + kItemOverheadBytes;
  return bytes <= kReadBytesMax;
}

}  // namespace quorate::storage
