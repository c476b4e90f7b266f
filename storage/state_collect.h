// Hands over what a batch changes while it is applied, so that watches need not read it again.
//
// The apply thread's. Internal to storage/state*.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/change.h"
#include "storage/sqlite.h"
#include "storage/state.h"
#include "storage/state_schema.h"

namespace quorate::storage {

class ChangeCollector {
 public:
  static absl::StatusOr<ChangeCollector> Prepare(Database& database);

  // A new batch: what is wanted of it.
  void Begin(Collect what);
  // A change that has just been written; `before` is the item's row before it. A key may change
  // several times in one revision.
  absl::Status Add(const HistoryRow& row, const ItemRow& before);
  // The changes of the command that has just been applied; null: see Applied::changes.
  ChangeSetPtr Take();

 private:
  Statement previous_;
  Collect what_ = Collect::kNothing;
  size_t bytes_left_ = 0;
  bool too_much_ = false;  // of the current command
  std::shared_ptr<ChangeSet> set_;
};

}  // namespace quorate::storage
