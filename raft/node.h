// The driver: runs a Core against its ports.
//
// Threads. The node has four jobs, each a threadless step that returns whether it did anything:
//   RunOnce         steps the core: inbox, timers, Ready out          (never touches a disk)
//   RunLogOnce      appends and flushes what Ready wants durable, then sends what waited for it;
//                   takes everything that queued up during the last flush as one batch; cuts the
//                   log where it is long enough (raft/cutting.h)
//   RunApplyOnce    applies committed entries, switches to an installed snapshot
//   RunLogReadOnce  reads old entries for followers that lag behind the window
// Start() gives each a thread of its own, so that heartbeats wait neither for a disk nor for data.
// The simulator calls the steps itself, in any order, on one thread. A step of the log also writes
// the mark of an idle log (LogStore::WantsMark), when it is time.
//
// Every method below may be called from any thread, except the Run*Once ones: each of those from
// one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "raft/core/core.h"
#include "raft/ports.h"

namespace quorate::raft {

struct NodeOptions {
  CoreOptions core;
  size_t inbox_messages_max = 4096;    // beyond: messages from peers are dropped (and counted)
  size_t inbox_proposals_max = 65536;  // beyond: Propose answers kQueueFull at once
  size_t inbox_changes_max = 64;       // of members and leader; beyond: kInProgress at once
  size_t reads_max = 65536;            // asked and not answered; beyond: kTooMany at once
  bool leases = false;                 // as SetLeases, at the start
  // What the state machine says about birth at the start. While false, a leader that is ready
  // proposes BirthComplete once every member has acknowledged entry 1 (DESIGN.md, "Birth").
  bool birth_complete = false;
  // The log is cut behind a tail of this many bytes, looked at in this interval; for followers that
  // still read from it, it may grow longer.
  uint64_t log_tail_bytes = 64u << 20;
  uint64_t log_pinned_bytes_max = uint64_t{1} << 30;
  Duration cut_interval = std::chrono::seconds(1);
};

// A consistent view of the core, published after every RunOnce.
struct NodeStatus {
  StoreId self;
  Role role = Role::kFollower;
  Term term;
  StoreId leader;
  bool leader_ready = false;  // leader, and its no-op is applied
  Index first_index, last_index, persisted, commit, applied;
  Index membership_index;
  std::shared_ptr<const Membership> membership;
  std::vector<PeerView> peers;  // leader only
  StoreId transfer_target;      // leader only; 0: leadership is not being handed over
  bool removed = false;         // see Core::removed
  Duration election_timeout{};
  std::optional<Instant> fresh_as_of;
  bool birth_complete = false;  // applied here
  bool installing = false;      // a received snapshot is being made the state
  uint64_t dropped_messages = 0;
  uint64_t ignored_messages = 0;  // see Core::ignored_messages
  bool leases = false;
  uint64_t lease_answers = 0;          // see Core::lease_answers
  std::optional<Instant> lease_until;  // see Core::lease_until
};

class Node {
 public:
  struct Ports {
    LogStore* log;
    Transport* transport;
    StateMachine* state_machine;
    Clock* clock;
    SnapshotSender* snapshots = nullptr;  // null: nobody can be sent one, each request fails
  };
  Node(const NodeOptions& options, RecoveredState recovered, Ports ports);
  ~Node();  // Stop()s

  void Start();
  // Ends the threads: what was handed to the log is flushed, what was handed to the state machine
  // is applied, nothing more is sent. Proposals not yet taken are answered kNotLeader, on this
  // thread; so are those that come later, on theirs. Not from a callback. Without Start nothing is
  // flushed or applied: to the simulator this is a crash.
  void Stop();

  // A message from a peer; dropped when the inbox is full, or the node has stopped: false.
  bool Receive(Message message);

  // See SnapshotSender.
  void SnapshotFailed(const SnapshotRequest& request);

  // Proposes in order; `done(accepted, status)` runs once: the first `accepted` proposals are in
  // this leader's log, the others are certainly in no log. It runs on the node's thread, except
  // where the inbox is full (kQueueFull) or the node has stopped (kNotLeader): then at once on the
  // caller's thread, so do not hold a lock that `done` takes. `wall_time_ms` 0: the node's clock.
  using ProposeDone = std::function<void(size_t accepted, ProposeStatus status)>;
  void Propose(Term term, std::vector<Core::Proposal> proposals, ProposeDone done);

  // Changes the members (raft/core/membership_change.h). `done` runs once, on the node's thread or
  // as with Propose: with the refusal; or, when the change is committed and no joint phase is left,
  // with kAccepted; or with kUnknown when this node lost leadership before that.
  using ChangeDone = std::function<void(const ChangeResult&)>;
  void ProposeMembership(MembershipChange change, ChangeDone done);

  // Hands leadership over (raft/core/transfer.cc); target 0: to the best voter. `done` runs once,
  // as above: with the refusal, kDone or kFailed.
  using TransferDone = std::function<void(TransferStatus)>;
  void TransferLeadership(StoreId target, TransferDone done);
  // Asks for a read index (raft/core/read_index.h; `id` of the result means nothing here). What is
  // asked for while the node's thread is busy shares one question, and one round. `done` runs once
  // and must not block: on the node's thread; where reads_max is exceeded (kTooMany) or the node
  // has stopped (kNoLeader) at once on the caller's; and in Stop on that thread.
  using ReadDone = std::function<void(const ReadResult& result)>;
  void RequestRead(ReadMode mode, ReadDone done);

  // Whether this node, when it leads, answers reads by its lease (Core::SetLeases).
  void SetLeases(bool on);

  // Has the state machine make what it has applied durable, soon; StateMachine::durable_applied
  // tells. It may not get there (a reader is in the way): ask again. Any thread.
  void MakeDurable();

  std::shared_ptr<const NodeStatus> status() const;

  // Called on the node's thread whenever role, term, leader, leader_ready, birth_complete or
  // membership changed, or a peer's lost_data, needs_snapshot or snapshot_sent. Set before Start
  // or the first RunOnce; must not block.
  void OnStatusChange(std::function<void(const NodeStatus&)> callback);

  bool RunOnce();
  // What was handed to the log by now is written; then flushed, and told. Apart for who wants
  // things to happen while a flush is under way: Begin, and End once the flush has taken its time.
  bool RunLogOnce() {
    BeginLog();
    return EndLog();
  }
  bool BeginLog();  // false: there is nothing
  bool EndLog();
  bool RunApplyOnce();
  bool RunLogReadOnce();
  // When RunOnce next has something to do without new input.
  Instant NextDeadline() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::raft
