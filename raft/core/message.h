// What nodes say to each other. One small struct per message and a variant, not one fat struct.
// Cluster id and store ids are checked by the transport before a message gets here.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

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
};

// Every RequestVote is answered, a refused one too.
struct RequestVoteReply {
  Term term;  // granted pre-vote: the asked term; otherwise the sender's current term
  bool pre_vote = false;
  bool granted = false;
  uint64_t call_id = 0;
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
  Index last_index;                 // the end of the follower's log, for status only
  Duration election_timeout_min{};  // the sender's smallest election timeout (leases, issue 3)
  Instant echoed_sent_at{};         // from the request
  Instant receiver_clock{};         // the follower's clock now, to be echoed back
};

using MessageBody = std::variant<RequestVote, RequestVoteReply, AppendEntries, AppendEntriesReply>;

struct Message {
  StoreId from;
  StoreId to;
  MessageBody body;
};

}  // namespace quorate::raft
