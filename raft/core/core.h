// The Raft core: one deterministic state machine. Inputs are the methods below, the one output is
// Ready. No clock, thread, disk, callback or global random: the same options, recovered state,
// seed and inputs give the same outputs, byte for byte (tests/sim relies on it).
//
// Sources: Raft paper (extended version) Figure 2, 5.1 to 5.4; Ongaro's dissertation 3.10
// (transfer), 4.1 to 4.3 (membership), 6.2 to 6.4 (reads), 9.6 (PreVote) with check-quorum; the
// paper's section 7 (snapshots).
//
// Not thread-safe: owned by the driver (raft/node.h), which calls it from one thread.
//
// How the files divide the work: core.cc (construction, dispatch, Ready), election.cc (timers,
// votes), replication.cc (the log of this node), pipeline.cc (the leader's side: sending, answers,
// commit), snapshot.cc (cutting the log, snapshots), read_index.cc (linearizable reads, leases),
// membership_change.cc (who takes part), transfer.cc (handing leadership over), log_window.h (the
// entries in memory), quorum.h (majorities), progress.h (what the leader knows of a peer),
// invariants.h (checked always).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "raft/core/membership.h"
#include "raft/core/membership_change.h"
#include "raft/core/message.h"
#include "raft/core/ready.h"
#include "raft/core/types.h"

namespace quorate::raft {

struct CoreOptions {
  StoreId self;
  uint64_t seed = 0;  // for the randomised election timeouts only
  Duration heartbeat_interval = std::chrono::milliseconds(50);
  Duration election_timeout_min = std::chrono::milliseconds(150);
  Duration election_timeout_max = std::chrono::milliseconds(300);
  size_t window_bytes_max = 16u << 20;       // log kept in memory; applied entries go first
  size_t append_bytes_max = 1u << 20;        // per AppendEntries; one entry may exceed it
  size_t inflight_bytes_max = 8u << 20;      // unacknowledged per follower (pipelining)
  size_t inflight_messages_max = 256;        // the same, as messages
  size_t uncommitted_bytes_max = 32u << 20;  // proposals beyond are refused (queue full)
  size_t apply_bytes_max = 4u << 20;         // handed out by one Ready
  // A snapshot that failed is sent again after this, doubled up to the maximum while it fails.
  Duration snapshot_retry_min = std::chrono::milliseconds(200);
  Duration snapshot_retry_max = std::chrono::seconds(10);
  // Reads (raft/core/read_index.h).
  size_t reads_max = 4096;  // waiting for an answer, those of followers included; beyond: kTooMany
  size_t read_rounds_max = 4;  // under way at once; what comes meanwhile goes into the next
  // What this node's requests to leaders are numbered from. Another for each start of a process:
  // random, below 2^62.
  uint64_t read_ids_from = 0;
  // By how much its clock is ahead in what it says of it (AppendEntriesReply::receiver_clock), so
  // that what comes back of an earlier boot is not taken for a time of this one, whose clock has
  // begun anew. As above: random, below 2^62 us.
  Duration clock_mark{};
  // What this store may have promised to a leader before its start: the longest minimum election
  // timeout that it has stated (AppendEntriesReply). It neither votes nor campaigns before so much
  // has passed since the start (nor before election_timeout_min has), but for a transfer. The
  // driver makes election_timeout_min durable as what the next start gets here before it starts a
  // core, and may make it less only when the longer promise has passed.
  Duration promised_before_start{};
  // How much faster than another's a clock may run, in thousandths: a lease is this much shorter.
  uint32_t lease_drift_permille = 100;
  // A leader that has waited this long for OnPersisted hands over to a follower that has
  // everything, if a majority answers without it; at most once in the interval.
  Duration flush_stall_max = std::chrono::milliseconds(500);
  Duration stall_transfer_interval = std::chrono::seconds(30);
};

// What the log says after a restart.
struct RecoveredState {
  HardState hard_state;
  // The entry before `entries`: (0, 0) for a log that starts at 1.
  Index prev_index;
  Term prev_term;
  // The tail of the log, consecutive, ending at its last entry; at most about window_bytes_max.
  // Everything in it is durable.
  std::vector<EntryPtr> entries;
  Index first_index;  // the first entry that the disk can still give (ReadLog); 1 until cut
  // The membership in force at `applied`, then every membership entry of the log after it, in
  // ascending order. The last one is in force now. Empty only for a store that is not born.
  std::vector<std::pair<Index, Membership>> memberships;
  Index applied;  // what the state machine holds; never above the log's end
  // The log time of the entry at prev_index, or a later one that is committed. A leader's log time
  // goes on from here when `entries` is empty, or has been cut to nothing.
  uint64_t prev_log_time_ms = 0;
};

enum class ProposeStatus : uint8_t {
  kAccepted,
  kNotLeader,  // or not of the term that the caller named
  // uncommitted_bytes_max are waiting, for a majority or for this node's own disk: retry later. One
  // proposal alone is accepted whatever its size.
  kQueueFull,
  // Leadership is being handed over: retry later, here if that fails, else at the new leader.
  kTransferring,
};

enum class TransferStatus : uint8_t {
  kStarted,
  kAlreadyLeads,  // the target is this node, which leads
  kNotLeader,
  kInProgress,  // a transfer is under way, perhaps to another target
  kNotVoter,    // the target is no voter of the (new) membership
  kSilent,      // the target, or without one every voter, does not answer or has lost data
  // Only from the driver (raft/node.h), in place of kStarted:
  kDone,    // this node leads no more
  kFailed,  // nobody took over within one election timeout: this node leads on
};

// What a leader knows of one peer; for status and the birth rule.
struct PeerView {
  StoreId store;
  Index match;          // durable there
  Index last_index;     // the end of its log as it last said
  bool active = false;  // heard from within the minimum election timeout
  std::optional<Instant> last_contact;
  // Its log ended below what it had acknowledged in this term: its disk has gone back. It is not
  // counted for commits while this node leads.
  bool lost_data = false;
  bool needs_snapshot = false;  // what it lacks is no longer in the log on disk
  bool snapshot_sent = false;   // a snapshot is under way to it
  bool caught_up = false;       // as a learner it may be promoted now (dissertation 4.2.1)
};

class Core {
 public:
  // CHECKs that the recovered state is consistent. Starts as follower; no vote, no campaign
  // for one election timeout after the start (`now`).
  Core(const CoreOptions& options, RecoveredState recovered, Instant now);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // --- Inputs. `now` never goes back. ---

  // Moves time: fires election and heartbeat timers that are due. The driver steps the messages
  // that it already has before it ticks, so that a pause of the process is not an election.
  void Tick(Instant now);
  // When Tick next has something to do.
  Instant NextDeadline() const;

  void Step(const Message& message, Instant now);

  // Appends commands, all or a prefix: returns how many were accepted, and the status of the first
  // one that was not. `term` is the term that the caller believes this node leads.
  struct Proposal {
    EntryType type = EntryType::kCommand;  // kCommand or kBirthComplete
    std::string payload;
    WallMilliseconds wall_time_ms = 0;
  };
  std::pair<size_t, ProposeStatus> Propose(Term term, std::vector<Proposal> proposals, Instant now);

  // Asks for a read index (raft/core/read_index.h); on the leader and elsewhere. Ready::reads
  // answers each request once, with its id.
  void RequestRead(uint64_t id, ReadMode mode, Instant now);
  // Whether a leader may answer by its lease: off at the start. Each node may have its own: voters
  // keep their promise in either case, over a restart too (promised_before_start), so a lease that
  // this node switches on is as good as one that was on all the time.
  void SetLeases(bool on);

  // Changes who takes part; one change at a time, and only as leader (membership_change.h).
  // Accepted: the entry at `index` is in the log and in force. The change is done when membership()
  // is not joint and membership_index(), at or after `index`, is committed.
  ChangeResult ProposeMembership(const MembershipChange& change, Instant now);

  // Hands leadership to `target`; 0: to the voter whose log is longest (dissertation 3.10).
  // Proposals are refused (kTransferring) until this node no longer leads, or until one maximum
  // election timeout has passed without that: then it leads on. transfer_target() tells.
  TransferStatus TransferLeadership(StoreId target, Instant now);

  // The ticket and all before it are durable. A late notice is harmless: tickets name hand-overs,
  // not positions.
  void OnPersisted(Ticket ticket);
  // The state machine holds everything up to `index`.
  void OnApplied(Index index);
  // The log on disk is about to be cut: nothing up to `index` may be asked of it any more. Not
  // beyond what is applied (CHECKed) nor, which is the driver's business, beyond what a power
  // failure would leave applied. What it has already lost of its start is no news.
  void Compact(Index index);
  // The SnapshotRequest of that peer and term came to nothing: it is repeated after a while, if the
  // peer still needs it.
  void OnSnapshotFailed(StoreId peer, Term term, Instant now);
  // The answer to a LogRead; each is answered, late ones too. Empty: those entries are no longer on
  // disk (a bug, and CHECKed, when they were for applying).
  void OnLogRead(StoreId peer, Index from, std::vector<EntryPtr> entries);

  // --- Output ---
  bool HasReady() const;
  Ready TakeReady();

  // --- Views, valid until the next input ---
  StoreId self() const;
  Role role() const;
  Term term() const;
  StoreId leader() const;  // 0: unknown
  Index last_index() const;
  Index persisted() const;
  Index commit() const;
  Index applied() const;
  Index first_index() const;
  const Membership& membership() const;  // in force (appended, perhaps not committed)
  Index membership_index() const;
  // Leader: the term's no-op has been applied here, so the state machine shows all that earlier
  // terms left behind. Writes are taken only after it.
  bool leader_ready() const;
  std::vector<PeerView> peers() const;  // leader only, by store id
  StoreId transfer_target() const;      // 0: leadership is not being handed over
  // No leader is heard, and a committed membership, here or where this node asked for votes, no
  // longer names it. For status only: such a node still votes and appends.
  bool removed() const;
  Duration election_timeout() const;  // the one drawn last
  // Until when no later leader can be, by this node's clock and as far as it knows; nullopt: it
  // does not lead, leases are off, nothing of its term is committed, or leadership was handed over.
  std::optional<Instant> lease_until() const;
  bool leases() const;
  // Questions that it has answered as the leader by its lease, others' included; in any term.
  uint64_t lease_answers() const;
  // Local reads: this node's applied state contains everything acknowledged before this instant
  // of its own clock. nullopt: unknown (nothing heard yet since the start).
  std::optional<Instant> fresh_as_of(Instant now) const;
  // Messages that no correct peer of this build sends (entries with gaps, descending terms, an
  // unreadable membership, a wrong receiver), dropped without an answer since the start.
  uint64_t ignored_messages() const;
  // A received snapshot is being made this node's state.
  bool installing() const;

 private:
  class Impl;  // core_impl.h: shared by the .cc files of this folder, invisible to users
  std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::raft
