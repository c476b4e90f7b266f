// What a run did and reached, so that an idle simulator shows; and the first thing that was wrong.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/plan.h"

namespace quorate::sim {

// What a run went through. A state that no run of many reaches is a hole in the simulator: see
// Missing.
enum class Reached : uint8_t {
  kElection,             // a leader was elected
  kBirthComplete,        // a leader saw it applied
  kEntryCut,             // a log lost a suffix
  kLongSuffixCut,        // of more than 3 entries
  kConfigurationCut,     // with a change of the members in it
  kCommittedByFollower,  // a leader committed what was not yet durable on its own disk
  kTornTail,             // recovery cut a torn tail
  kTermCured,            // one copy of term and vote was damaged, the other good
  kCrashWhileStarting,
  kStoppedAtWork,    // between two disk operations
  kStoppedStarting,  // the same, before the node took part
  kPowerLostInFlush,
  kAllDown,         // no process anywhere, at one instant
  kClockOverEdge,   // over 2^31 or 2^32 ms, with a node at work
  kShorterTimeout,  // a process started with a shorter election timeout than the one before it had
  kLogCutInFront,
  kLogRead,  // entries were read from the disk for a follower
  kSnapshotOffered,
  kSnapshotInstalled,
  kSnapshotOverConflict,  // in place of a log that others have not committed so
  kInstallOverMembers,    // over a configuration later than its own
  kSnapshotBroken,        // its stream broke between two pieces
  kSnapshotGivenUp,       // by its sender, who tells the core
  kTransferDone,
  kMembershipChanged,
  kLearnerPromoted,  // committed
  kVoterDemoted,
  kVoterRemoved,
  kLeaderLeft,       // one has committed that it votes no more
  kElectionInJoint,  // between the two halves of a change
  kMinorityDown,     // a machine stays away for good when the faults stop
  // Sessions, and writes on their way.
  kSessionOpened,
  kSessionLost,
  kSessionReplaced,  // by one of the same store's next process
  kSessionRemoved,   // with its store, that is no member any more
  kSessionRefused,   // a committed command is of no session, or out of its order
  kStreamBroken,     // of forwarded writes, with something on it
  kWriteResent,
  kRetried,         // a client sent a write again, by its request id
  kRepeated,        // and it had been executed already
  kRequestExpired,  // and its id may have been forgotten
  kRequestsFull,    // no room for one more request id
  kSkip,
  kFoundApplied,
  kDuplicateApplied,  // a write was found applied at the leader
  kRefusedByOrder,    // a leader refused a write that came out of order, or its queue was full
  kAnswered,
  kUnknownOutcome,
  kNotAccepted,
  kMismatch,  // a conditional write found its condition false
  // What writes did.
  kTransactionThen,  // of more than one operation
  kTransactionElse,
  kTransactionAborted,
  kRangeDeleted,
  kRolledBack,
  kRollbackOfNothing,
  kRollbackRefused,
  kHistoryCompacted,
  kTtlGranted,
  kTtlRenewed,
  kTtlRevoked,
  kTtlExpired,
  kTtlItemExpired,   // a key that was bound to it
  kTtlOverElection,  // expired in a later term than it was last kept alive in
  kTtlNotFound,      // a write or a renewal names one that is over
  // Reads.
  kLinearizableRead,
  kLeaseRead,  // by the leader's lease, without a round
  kLeaseOver,  // when the state was read: a round was asked for next
  kLocalRead,
  kLocalReadFresh,  // with a measured age
  kAgeUnknown,      // served without one: after a restart, no leader
  kTooStale,        // refused: older than its client takes
  kWaitedForRevision,
  kReadRefused,
  kList,
  kListPage,  // the second and later ones, at the first one's revision
  kCountRead,
  kHistoryRead,
  kPastRead,
  kPastCompacted,
  kFutureRefused,
  // Watches.
  kWatchEvent,
  kWatchPartial,  // a revision came in more than one message
  kWatchState,    // an initial state, or the one after a reset, was shown
  kWatchProgress,
  kWatchLeaderLost,
  kWatchLeaderFound,
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
  // Discovery.
  kDnsFailed,
  kDnsPartial,     // and says so
  kDnsIncomplete,  // and does not
  kDnsStale,
  kAddressTakenOver,  // a machine got one that another one had before
  kNobodyThere,       // a call to a store: nobody is at its address
  kAnotherThere,      // another store is
  kPeerLost,          // one that had answered does not
  kAutopilotLetIn,
  kAutopilotPromoted,
  kAutopilotReplaced,  // a voter by the new store of its name
  kAutopilotRefused,
  kCount,
};
inline constexpr size_t kReached = static_cast<size_t>(Reached::kCount);
const char* ReachedName(Reached state);

// Every run of a default plan is at least as long, and so busy.
inline constexpr Micros kVirtualTimeMin = 60 * kSecond;
inline constexpr uint64_t kOperationsMin = 1000;
inline constexpr uint64_t kOperationsUnderFaultsFew = 500;

struct Report {
  std::array<uint64_t, kFaults> faults{};
  std::array<uint64_t, kReached> reached{};
  std::array<uint64_t, kNodesMax + 1> sizes{};  // runs by founders
  uint64_t runs = 0;
  uint64_t sqlite_runs = 0;  // of them, with the production's state machine
  uint64_t operations = 0;   // of clients, ended; what was refused at once does not count
  uint64_t events = 0;
  Micros virtual_time = 0;
  uint64_t disk_operations = 0;
  uint64_t messages = 0;
  uint64_t undecided = 0;                // histories that the linearizability checker gave up on
  uint64_t too_short = 0;                // runs of less than kVirtualTimeMin or kOperationsMin
  uint64_t operations_min = UINT64_MAX;  // of a run
  // Of these, those that ended while faults could happen; and runs that had few of them, because
  // there was no majority for long.
  uint64_t operations_under_faults = 0;
  uint64_t mostly_calm = 0;
  // How long it took at most to become well again: until a leader was ready, from then on until a
  // write was answered, and altogether.
  std::array<Micros, 3> slowest{};

  void Count(Fault fault, uint64_t by = 1) { faults[static_cast<size_t>(fault)] += by; }
  void Count(Reached state, uint64_t by = 1) { reached[static_cast<size_t>(state)] += by; }
  void CountStages(Micros leader, Micros answer, Micros well);
  // Of a run that has ended.
  void EndRun(bool sqlite, Micros virtual_time, uint64_t operations, uint64_t under_faults,
              uint64_t events);
  void Add(const Report& other);
  std::string Text() const;
  // The faults and states, by name, that were never reached, though so many runs or more could
  // have reached them: some are of one of the two state machines only.
  std::vector<std::string> Missing(uint64_t runs_min) const;
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
