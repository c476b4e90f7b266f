// Compaction of history: old rows go, what they led to stays (storage/STATE.md, "Compaction").
//
// A command of the log, so every node drops the same rows at the same entry; what one command does
// is bounded by what it says itself, so that applying stays short and nodes of different builds
// agree. Belongs to the apply thread, within its transaction. Internal to storage/state*.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quorate/v1/command.pb.h"
#include "storage/sqlite.h"
#include "storage/state_hash.h"
#include "storage/state_schema.h"

namespace quorate::storage {

class Compactor {
 public:
  static absl::StatusOr<Compactor> Prepare(Database& database);

  // Runs a command: moves meta.compacted and takes the rows that go out of meta.hash. What cannot
  // be done is an answer, not an error; errors are the database's.
  absl::Status Execute(const v1::CompactHistory& command, StateMeta& meta, v1::Answer& answer);

 private:
  struct Row {
    RowId row;
    RowId previous;
    RowKind kind;
    uint64_t version;
  };
  // Compacts what lies behind `compacted`, as much as the command says; up to where it came.
  absl::StatusOr<Revision> CompactFrom(Revision compacted, const v1::CompactHistory& command);
  // The next rows from `from` to the end of revision `last`, a portion of them.
  absl::StatusOr<std::vector<Row>> Portion(RowId from, Revision last);
  // What one row makes superfluous.
  absl::Status Compact(const Row& row);
  // Deletes a row of history. False: there is none.
  absl::StatusOr<bool> Remove(RowId row, std::string* key);
  // Forgets a key whose latest row is this deletion.
  absl::Status ForgetItem(std::string_view key, RowId deletion);
  absl::Status GiveBackSpace();

  Statement rows_, read_, delete_, item_, delete_item_, free_pages_, pages_, vacuum_;
  RowHasher hasher_;
  // Of one command.
  HashSum gone_;
  uint64_t bytes_ = 0;
};

}  // namespace quorate::storage
