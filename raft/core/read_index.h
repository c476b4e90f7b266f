// Linearizable reads without the log (dissertation 6.4): what is asked of the core, and what it
// says.
//
// The argument, as a numbered story:
//   1. The leader's commit index holds everything that anybody has acknowledged, once an entry of
//   its
//      own term is committed; before that an earlier leader may have acknowledged more, so reads
//      wait for the no-op (tikv #9239).
//   2. The leader notes its commit index for all reads that have come in since the last time: one
//      round. It numbers the round and sends that number with every append and heartbeat from then
//      on.
//   3. Answers of this term that carry this number or a later one, from a majority (of both halves
//   of
//      a joint membership), show that at some time after 2 no later leader had been elected: so the
//      index of 2 covers everything acknowledged before the reads were asked for. An answer to
//      anything that was sent before the round shows nothing.
//   4. Whoever asked waits until the index is applied where it reads, and then reads there.
// A follower does the same with the leader's index: it asks in its own term, under a number that no
// earlier request of its store has had (etcd #20418), and takes no answer of another term or
// leader.
//
// A lease (6.4.1) leaves step 3 out. What it rests on:
//   1. A voter that answers a leader's message has promised: for a minimum election timeout from
//      when it heard it, by its clock, it neither campaigns nor votes for anybody else, whatever
//      term or log is shown to it. It does so whether leases are on or not.
//   2. The leader counts from when it *sent* what a majority (of both halves of a joint membership)
//      has answered, which is earlier, with the shortest promise that any voter has stated, less
//      the drift that is allowed between clocks. Whoever wants to lead next needs one of that
//      majority, which does not vote yet.
//   3. The promise outlives the voter's process (CoreOptions::promised_before_start), and a shorter
//      timeout in its configuration: a voter that cannot say so states 0, and there is no lease.
//   4. A vote for the target of a transfer does not wait, so the leader gives its lease up before
//      it sends TimeoutNow, for the rest of the term: the message may arrive late. Nothing else
//      asks for such a vote.
//   5. A leader whose own term has committed nothing yet has no lease, for the reason of step 1.
// While it holds, the leader's commit index at an instant after the question covers everything that
// was acknowledged before it; whoever asked waits as in step 4.
#pragma once

#include <cstdint>
#include <optional>

#include "raft/core/types.h"

namespace quorate::raft {

enum class ReadMode : uint8_t {
  kRound,  // one round of heartbeats
  kLease,  // by the leader's lease while there is one, else by a round
};

// Numbers are on the wire (ReadIndexReply): never reuse one.
enum class ReadOutcome : uint8_t {
  kConfirmed = 1,   // `index` covers everything acknowledged before the request
  kNoLeader = 2,    // this node knows of none: ask again when it does
  kLeaderLost = 3,  // the leader or the term has changed since: ask again
  kTimedOut = 4,    // no majority, or no leader, answered within a maximum election timeout
  kTooMany = 5,     // reads_max are waiting
};

// The answer to one RequestRead. A read that is not confirmed says nothing about the state: it may
// be asked for again, under another id or the same one.
struct ReadResult {
  uint64_t id = 0;
  ReadOutcome outcome = ReadOutcome::kNoLeader;
  Index index;  // kConfirmed: once this is applied here the state may be read
  // Confirmed by this leader's own lease: it ends here, by this node's clock. Whoever reads later
  // than that asks again.
  std::optional<Instant> lease_until;
};

}  // namespace quorate::raft
