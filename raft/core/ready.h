// What the core wants done. Ordering is a type: what may be sent at once and what may be sent
// only after the ticket is durable are two lists, not one list and a comment.
#pragma once

#include <optional>
#include <vector>

#include "raft/core/message.h"
#include "raft/core/read_index.h"
#include "raft/core/snapshot.h"
#include "raft/core/types.h"

namespace quorate::raft {

// Everything that one hand-over to the log must make durable, in this order: cut, then hard
// state, then install, then entries. One flush covers all of it.
struct Persist {
  Ticket ticket;
  std::optional<Index> cut_from;         // remove this index and all after it, first
  std::optional<HardState> hard_state;   // absent: unchanged
  std::optional<InstallRecord> install;  // the log starts anew behind this snapshot
  std::vector<EntryPtr> entries;         // consecutive; the first follows what is then the end
  bool empty() const { return !cut_from && !hard_state && !install && entries.empty(); }
};

// Ask for entries that the in-memory window no longer holds: [from, ...] up to `bytes` in total
// (at least one entry, however large), never beyond `last`. All of them are durable. `peer` is the
// follower to catch up, or this node's own store when the entries are for applying (or, rarely, for
// comparing terms with a leader's). At most one is outstanding per peer; each is answered with
// Core::OnLogRead with the same peer and from.
struct LogRead {
  StoreId peer;
  Index from;
  Index last;
  size_t bytes = 0;
};

// A follower needs what the log no longer has: its state is to be copied and sent, as the leader of
// `term`. Answered by the peer's InstallSnapshotReply (kInstalled) or by Core::OnSnapshotFailed; at
// most one is outstanding per peer and term.
struct SnapshotRequest {
  StoreId peer;
  Term term;
};

struct Ready {
  // Messages of a term that is already durable here: a leader's appends and heartbeats,
  // pre-votes, refusals that depend on nothing unsynced. To be sent at once.
  std::vector<Message> send_now;

  // To be made durable. Hand-overs are persisted strictly in the order of their tickets; when
  // nothing is to be written but messages must wait for earlier tickets, `persist` is empty
  // but for its ticket.
  Persist persist;
  // Sent only after `persist` and every earlier ticket are durable (votes, acknowledgements,
  // vote requests of a term not yet durable). Before OnPersisted(persist.ticket) is reported
  // or after it, both are right.
  std::vector<Message> send_after_persist;

  // The log's record of it is durable: the state machine is to be replaced by this snapshot, after
  // everything that was handed out before, and before what is in `committed`. Reported with
  // OnApplied(its index).
  std::optional<InstallRecord> install;

  // Committed and durable here: to be applied, in order, once. At most apply_bytes_max in one
  // Ready; more come after OnApplied.
  std::vector<EntryPtr> committed;

  std::vector<LogRead> log_reads;
  std::vector<SnapshotRequest> snapshot_requests;

  // Answers to RequestRead: one for each.
  std::vector<ReadResult> reads;

  bool empty() const {
    return send_now.empty() && persist.empty() && send_after_persist.empty() && !install &&
           committed.empty() && log_reads.empty() && snapshot_requests.empty() && reads.empty();
  }
};

}  // namespace quorate::raft
