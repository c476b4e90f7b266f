#include "storage/state_collect.h"

#include <utility>

namespace quorate::storage {

absl::StatusOr<ChangeCollector> ChangeCollector::Prepare(Database& database) {
  ChangeCollector collector;
  absl::StatusOr<Statement> previous =
      database.Prepare("SELECT kind, value, ttl FROM history WHERE row = ?1");
  if (!previous.ok()) return previous.status();
  collector.previous_ = *std::move(previous);
  return collector;
}

void ChangeCollector::Begin(Collect what) {
  what_ = what;
  bytes_left_ = kCollectBytesMax;
  too_much_ = false;
  set_.reset();
}

absl::Status ChangeCollector::Add(const HistoryRow& row, const ItemRow& before) {
  if (what_ == Collect::kNothing || too_much_) return absl::OkStatus();
  Change change;
  change.revision = row.row.revision();
  change.sub = row.row.value() & RowId::kSubMax;
  change.key = row.key;
  change.deleted = row.kind == RowKind::kDelete;
  change.is_text = row.kind == RowKind::kText;
  change.value = row.value;
  change.create_revision = row.create_revision;
  change.version = row.version;
  change.ttl = row.ttl;
  if (what_ == Collect::kPrevious && before.exists()) {
    ResetAtExit reset(previous_);
    previous_.BindUint(1, before.row.value());
    absl::StatusOr<bool> found = previous_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return absl::DataLossError("the history row of an item is gone");
    change.previous =
        Change::Previous{.is_text = static_cast<RowKind>(previous_.Int(0)) == RowKind::kText,
                         .value = std::string(previous_.Bytes(1)),
                         .create_revision = before.create_revision,
                         .mod_revision = before.row.revision(),
                         .version = before.version,
                         .ttl = previous_.Uint(2)};
  }
  const size_t bytes = change.bytes();
  if (bytes > bytes_left_) {
    // What the batch has handed over already stays; this command's changes are read by who wants
    // them.
    too_much_ = true;
    set_.reset();
    return absl::OkStatus();
  }
  bytes_left_ -= bytes;
  if (set_ == nullptr) {
    set_ = std::make_shared<ChangeSet>();
    set_->revision = change.revision;
    set_->with_previous = what_ == Collect::kPrevious;
  }
  set_->bytes += bytes;
  set_->changes.push_back(std::move(change));
  return absl::OkStatus();
}

ChangeSetPtr ChangeCollector::Take() {
  too_much_ = false;
  return std::exchange(set_, nullptr);
}

}  // namespace quorate::storage
