// What the clients asked for and heard, and what was executed: exactly once, and linearizable.
//
//   * A write is executed at most once; one that was answered exactly once; one that was not
//     accepted never.
//   * The operations on each key could have happened one at a time (linearizability.h). A local
//     read with a measured age counts as if it had begun at the moment up to which it is said to be
//     complete.
//   * The store's revision that one process shows never goes back.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/state.h"
#include "tests/sim/linearizability.h"
#include "tests/sim/report.h"
#include "tests/sim/watch_truth.h"

namespace quorate::sim {

class History {
 public:
  History(Failure* failure, Report* report) : failure_(failure), report_(report) {}

  // Numbers from 1. The number of a write is what it writes.
  uint64_t Begin(RegisterOperation::Kind kind, size_t key, Micros now, uint64_t expected);
  // A read was served: `value` is the number of the write that it saw, 0 if there was nothing.
  void EndRead(uint64_t operation, Micros now, Micros not_before, uint64_t value);
  // A write was answered: it was executed and `succeeded`, or its condition was false.
  void EndWrite(uint64_t operation, Micros now, bool succeeded);
  void EndNotAccepted(uint64_t operation);
  // Nothing has become of it: a read that was refused.
  void Forget(uint64_t operation);
  // What is not ended by Finish has an unknown outcome.

  // Of every process; each entry counts once. The operation's number is in the command's note.
  void OnApplied(const std::vector<raft::EntryPtr>& entries,
                 const std::vector<storage::Applied>& outcomes);

  // Birth begins again with empty disks: the log, in which no client has written, begins anew.
  void OnBegunAgain() { counted_ = raft::Index(); }

  // Entries up to here were looked at.
  raft::Index counted() const { return counted_; }

  void Finish();

  uint64_t ended() const { return ended_; }
  const WatchTruth& truth() const { return truth_; }

  static std::string NoteOf(uint64_t operation) { return std::to_string(operation); }

 private:
  enum class End : uint8_t { kOpen, kServed, kAnswered, kNotAccepted, kForgotten };
  struct Operation {
    RegisterOperation facts;
    size_t key = 0;
    End end = End::kOpen;
    uint32_t executed = 0;
    uint64_t answer = 0;  // a hash of what the first execution answered
  };
  void Fail(uint64_t operation, const std::string& what);
  void LearnChange(const v1::Command& command, const std::string& answer);
  void CheckKey(size_t key, const std::vector<RegisterOperation>& history);

  Failure* const failure_;
  Report* const report_;
  std::vector<Operation> operations_;  // by number - 1
  raft::Index counted_;                // entries up to here were looked at
  uint64_t ended_ = 0;
  WatchTruth truth_;
};

}  // namespace quorate::sim
