// What a run did and reached, so that an idle simulator shows; and the first thing that was wrong.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "tests/sim/plan.h"

namespace quorate::sim {

// What a run went through. A state that no run of many reaches is a hole in the simulator.
enum class Reached : uint8_t {
  kElection,             // a leader was elected
  kBirthComplete,        // a leader saw it applied
  kEntryCut,             // a log lost a suffix
  kCommittedByFollower,  // a leader committed what was not yet durable on its own disk
  kTornTail,             // recovery cut a torn tail
  kTermCured,            // one copy of term and vote was damaged, the other good
  kCrashWhileStarting,
  kLogCutInFront,
  kLogRead,  // entries were read from the disk for a follower
  kSnapshotOffered,
  kSnapshotInstalled,
  kTransferDone,
  kMembershipChanged,
  kSessionOpened,
  kSessionLost,
  kWriteResent,
  kRetried,   // a client sent a write again, by its request id
  kRepeated,  // and it had been executed already
  kSkip,
  kFoundApplied,
  kDuplicateApplied,  // a write was found applied at the leader
  kRefusedByOrder,    // a leader refused a write that came out of order, or its queue was full
  kAnswered,
  kUnknownOutcome,
  kNotAccepted,
  kMismatch,  // a conditional write found its condition false
  kLinearizableRead,
  kLeaseRead,  // by the leader's lease, without a round
  kLocalRead,
  kLocalReadFresh,  // with a measured age
  kReadRefused,
  kWatchEvent,
  kWatchState,  // an initial state, or the one after a reset, was shown
  kWatchProgress,
  kWatchReset,
  kWatchEnded,        // by the hub: too old, too slow, in the future
  kUnknownOperation,  // a client never learned what became of its operation
  // Birth: each state of a process (raft::BirthState), and what happened on the way.
  kBirthSearching,
  kBirthFoundersDiffer,
  kBirthProposing,
  kBirthPledged,
  kBirthWaitingToJoin,
  kBirthBorn,
  kBirthFounderLost,
  kBirthStateComplete,
  kPledgeMoved,  // from one proposal to a later one
  kBornRefused,  // Born came for another pledge than the store has by then
  kLetIn,        // a store that waited was let into the cluster
  kInvitationRefused,
  kNotRunning,       // a peer's message came to a process that does not take part yet
  kWipedUnborn,      // a founder lost its disk before birth was complete
  kBirthBegunAgain,  // all founders were emptied, because one was lost
  kFoundersCorrected,
  // Disks.
  kFailedRead,
  kFailedWrite,
  kFailedFlush,
  kFailedOther,  // of names and sizes
  kDiskWasFull,
  kAppliedUnheard,   // a batch was applied, and the process ended before it could say so
  kHugeEntry,        // longer than a segment of the log is meant to be
  kFlippedLog,       // bits flipped: in a segment of the log
  kFlippedIdentity,  // in the identity file
  kFlippedState,     // in the state's database
  kFlippedSnapshot,  // in a state on its way to another node
  kDamageNoticed,    // the node refused to start or stopped, and named the file
  kDamageHarmless,   // it started, and what was flipped is no part of what it holds
  kDamageEmptied,    // its disk was emptied, as it says
  kDamageUndone,     // the others could not do without it by then: it was put back as it was
  kCount,
};
inline constexpr size_t kReached = static_cast<size_t>(Reached::kCount);
const char* ReachedName(Reached state);

struct Report {
  std::array<uint64_t, kFaults> faults{};
  std::array<uint64_t, kReached> reached{};
  std::array<uint64_t, kNodesMax + 1> sizes{};  // runs by founders
  uint64_t runs = 0;
  uint64_t operations = 0;  // of clients, ended
  uint64_t events = 0;
  Micros virtual_time = 0;
  uint64_t disk_operations = 0;
  uint64_t messages = 0;
  uint64_t undecided = 0;  // histories that the linearizability checker gave up on

  void Count(Fault fault, uint64_t by = 1) { faults[static_cast<size_t>(fault)] += by; }
  void Count(Reached state, uint64_t by = 1) { reached[static_cast<size_t>(state)] += by; }
  void Add(const Report& other);
  std::string Text() const;
};

// The first failure counts; the run ends with it.
class Failure {
 public:
  bool failed() const { return !text_.empty(); }
  const std::string& text() const { return text_; }
  void Fail(std::string text) {
    if (text_.empty()) text_ = std::move(text);
  }

 private:
  std::string text_;
};

}  // namespace quorate::sim
