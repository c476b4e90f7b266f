// What the clients asked for and heard, and what was executed: exactly once, and linearizable.
//
//   * A write is executed at most once; one that was answered exactly once, after it was asked for,
//     and its client hears what the model says; one that was not accepted never.
//   * The operations on each key could have happened one at a time (linearizability.h). A local
//     read with a measured age counts as if it had begun at the moment up to which it is said to be
//     complete. A write has taken effect when the first node applies it, which also ends one whose
//     client never heard of it. What changes many keys (transactions, ranges, rollbacks, ends of
//     time-to-lives) is a write of each of them.
//   * What reads show is StoreChecker's to judge.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/state.h"
#include "tests/sim/linearizability.h"
#include "tests/sim/report.h"
#include "tests/sim/store_checker.h"

namespace quorate::sim {

class History {
 public:
  History(const Plan& plan, const EventQueue* events, Failure* failure, Report* report)
      : events_(events),
        failure_(failure),
        report_(report),
        store_(plan, events, failure, report) {}

  // Operations have numbers from 1. A write puts its own under the keys that it changes.
  uint64_t BeginRead() { return Begin(Form::kRead, {}, 0); }
  // A put, a deletion or a swap of one key, that is not bound to a time-to-live.
  uint64_t BeginSimple(RegisterOperation::Kind kind, size_t key, uint64_t expected) {
    RegisterOperation facts;
    facts.kind = kind;
    facts.expected = expected;
    return Begin(Form::kSimple, facts, key);
  }
  // Any other write: the log tells what it has done.
  uint64_t BeginOther() { return Begin(Form::kOther, {}, 0); }

  void EndRead(uint64_t operation, const ReadQuestion& question, const ReadAnswer& answer);
  // `succeeded`: it was executed, and its condition was not false.
  void EndWrite(uint64_t operation, const v1::Answer& answer, bool succeeded);
  void EndNotAccepted(uint64_t operation);
  // Nobody will ever know. What is not ended at all has an unknown outcome, too.
  void EndUnknown(uint64_t operation);
  // A read that was not served: nothing has become of it.
  void Forget(uint64_t operation);

  // Of every process; each entry counts once. The operation's number is in the command's note.
  void OnApplied(const std::vector<raft::EntryPtr>& entries,
                 const std::vector<storage::Applied>& outcomes);
  // A process starts with a state that has applied these, and nobody has told of them. `answers`:
  // what the state keeps of each; null: nothing.
  void OnRecovered(const std::vector<raft::EntryPtr>& entries,
                   const std::vector<std::shared_ptr<const std::string>>& answers);
  // Entries up to here were looked at.
  raft::Index counted() const { return store_.applied(); }

  // Birth begins again with empty disks: no client was answered before.
  void OnBegunAgain() {
    store_.OnBegunAgain();
    for (Operation& operation : operations_) operation.begun_with = raft::Index();
  }

  // StoreChecker's.
  void OnStoreSeen(StoreId store) { store_.OnStoreSeen(store); }
  void OnCaughtUp(StoreId store, Micros as_of) { store_.OnCaughtUp(store, as_of); }
  void OnStateLost(StoreId store) { store_.OnStateLost(store); }
  void OnCaughtUpRecorded(StoreId store, Micros as_of) { store_.OnCaughtUpRecorded(store, as_of); }

  void Finish();

  uint64_t ended() const { return ended_; }
  const StoreChecker& store() const { return store_; }

  static std::string NoteOf(uint64_t operation) { return std::to_string(operation); }
  static std::string KeyName(size_t key) { return "k" + std::to_string(key); }
  // The number of the write that a value is of.
  static uint64_t NumberOf(const std::string& value);

 private:
  enum class Form : uint8_t { kRead, kSimple, kOther };
  enum class End : uint8_t { kOpen, kServed, kAnswered, kNotAccepted, kForgotten };
  struct Operation {
    RegisterOperation facts;
    size_t key = 0;
    Form form = Form::kRead;
    End end = End::kOpen;
    bool unknown = false;  // the client has given up on it
    uint32_t executed = 0;
    uint64_t answer = 0;     // of the first execution: StoreChecker::facts
    uint64_t floor = 1;      // the revision that was acknowledged when it began
    raft::Index begun_with;  // what was applied then
    Micros applied = kNever;
    bool changed = false;  // anything, when it was executed
  };
  uint64_t Begin(Form form, RegisterOperation facts, size_t key);
  void Fail(uint64_t operation, const std::string& what);
  void Learn(const raft::Entry& entry);
  void LearnEffects(const raft::Entry& entry, const Operation* operation);
  void CheckKey(size_t key, const std::vector<RegisterOperation>& history);

  const EventQueue* const events_;
  Failure* const failure_;
  Report* const report_;
  StoreChecker store_;
  std::vector<Operation> operations_;  // by number - 1
  std::map<size_t, std::vector<RegisterOperation>> effects_;
  uint64_t ended_ = 0;
};

}  // namespace quorate::sim
