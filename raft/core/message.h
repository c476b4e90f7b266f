// What nodes say to each other. One small struct per message and a variant, not one fat struct.
// Cluster id and store ids are checked by the transport before a message gets here.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "raft/core/read_index.h"
#include "raft/core/snapshot.h"
#include "raft/core/types.h"

namespace quorate::raft {

// Raft paper, Figure 2; with `pre_vote` the question of dissertation 9.6: "would you vote for me
// in `term`?", which changes nothing at the receiver.
struct RequestVote {
  Term term;  // the term the sender campaigns for (pre-vote: its current term + 1)
  bool pre_vote = false;
  Index last_index;
  Term last_term;
  uint64_t call_id = 0;  // echoed in the reply, so that a transport can pair the two
  // The leader of `term` - 1 has asked for this campaign (TimeoutNow): that it is still heard is no
  // reason to refuse. Never with `pre_vote`.
  bool transfer = false;
};

// Every RequestVote is answered, a refused one too.
struct RequestVoteReply {
  Term term;  // granted pre-vote: the asked term; otherwise the sender's current term
  bool pre_vote = false;
  bool granted = false;
  uint64_t call_id = 0;
  // A refusal only: a membership that is committed, and that the asker's log does not reach, has
  // removed the asker. For its status; it changes nothing that the asker does.
  bool removed = false;
};

// Raft paper, Figure 2. Also the heartbeat (no entries).
struct AppendEntries {
  Term term;
  Index prev_index;
  Term prev_term;
  std::vector<EntryPtr> entries;  // consecutive, the first is prev_index + 1
  Index commit;
  // The leader's clock when it sent this, echoed in the reply: measures majority rounds.
  Instant sent_at{};
  // Freshness of local reads (DESIGN.md, "Reads"): the receiver's own clock sample from its last
  // reply that the leader saw (epoch: none yet), and how old the leader's last majority round
  // was when it sent this.
  Instant echoed_receiver_clock{};
  Duration majority_age{};
  // The newest round of reads that the leader has begun in this term (read_index.h), echoed in the
  // reply; 0: none yet.
  uint64_t read_round = 0;
};

struct AppendEntriesReply {
  Term term;
  bool success = false;
  // success: the last index at which the follower's *durable* log is known to match this
  // request (prev_index + entries), never the end of its log. Failure: echoes prev_index.
  Index match;
  // Failure: where the leader should look next: the follower's last index, or the first
  // index of the conflicting term, and the term there (term-hint back-off, Raft paper 5.3).
  Index hint_index;
  Term hint_term;
  Index last_index;  // the end of the follower's log, for status only
  // For leases: its smallest election timeout. So long after it heard a leader it votes for no
  // other (but for a transfer), over a restart too. 0: it does not promise that.
  Duration election_timeout_min{};
  Instant echoed_sent_at{};  // from the request
  // The follower's clock now, to be echoed back; ahead by what it alone knows
  // (CoreOptions::clock_mark).
  Instant receiver_clock{};
  uint64_t read_round = 0;  // from the request
};

// Raft paper, Figure 13, as far as it is the core's business. First an offer, before any of the
// bytes; then the same again once they are here, verified and durable beside the state in use. The
// bytes travel between the drivers.
struct InstallSnapshot {
  Term term;
  SnapshotMeta snapshot;
  uint64_t generation = 0;  // names the received copy at the receiver; 0: an offer
  uint64_t call_id = 0;     // echoed in the reply, so that a transport can pair the two
};

enum class SnapshotAnswer : uint8_t {
  kSend = 1,       // to an offer: the bytes are wanted
  kInstalled = 2,  // what the snapshot holds is durable here, by the snapshot or by the log
  kBusy = 3,       // not now: to be tried again later
  kRefused = 4,    // the sender does not lead: see the term
};

struct InstallSnapshotReply {
  Term term;
  Index index;  // of the snapshot, and its term
  Term index_term;
  SnapshotAnswer answer = SnapshotAnswer::kBusy;
  uint64_t call_id = 0;
};

// A node that does not lead asks the leader of `term` for a read index (read_index.h). Lost ones
// are not repeated: the asker gives up after a maximum election timeout.
struct ReadIndex {
  Term term;
  // Names the request; no two of one store, before or after a restart, have the same.
  uint64_t id = 0;
  bool lease = false;    // the leader's lease will do
  uint64_t call_id = 0;  // echoed in the reply, so that a transport can pair the two
};

struct ReadIndexReply {
  Term term;
  uint64_t id = 0;
  ReadOutcome outcome = ReadOutcome::kLeaderLost;
  Index index;  // kConfirmed
  uint64_t call_id = 0;
};

// Dissertation 3.10: the leader of `term` asks the receiver, whose log is as long as its own, to
// campaign at once. It may arrive late: it counts in that term only.
struct TimeoutNow {
  Term term;
};

using MessageBody =
    std::variant<RequestVote, RequestVoteReply, AppendEntries, AppendEntriesReply, InstallSnapshot,
                 InstallSnapshotReply, ReadIndex, ReadIndexReply, TimeoutNow>;

struct Message {
  StoreId from;
  StoreId to;
  MessageBody body;
};

}  // namespace quorate::raft
