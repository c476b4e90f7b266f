// The state behind Core, shared by core.cc, election.cc, replication.cc, pipeline.cc, snapshot.cc,
// read_index.cc, membership_change.cc and transfer.cc. Not for users.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "raft/core/core.h"
#include "raft/core/invariants.h"
#include "raft/core/log_window.h"
#include "raft/core/progress.h"
#include "raft/core/quorum.h"
#include "raft/core/random.h"

namespace quorate::raft {

// Terms and indexes at or above this are not of this world: they come from a damaged or hostile
// message, and the arithmetic below stays far from the end of 64 bits.
inline constexpr uint64_t kPositionMax = uint64_t{1} << 62;

class Core::Impl {
 public:
  Impl(const CoreOptions& options, RecoveredState recovered, Instant now);

  // --- core.cc: inputs, Ready, what is durable and what is applied ---
  void Tick(Instant now);
  Instant NextDeadline() const;
  void Step(const Message& message, Instant now);
  void OnPersisted(Ticket ticket);
  void OnApplied(Index index);
  void OnLogRead(StoreId peer, Index from, std::vector<EntryPtr> entries);
  bool HasReady() const;
  Ready TakeReady();
  std::vector<PeerView> Peers() const;
  std::optional<Instant> FreshAsOf(Instant now) const;

  // --- replication.cc ---
  std::pair<size_t, ProposeStatus> Propose(Term term, std::vector<Proposal> proposals, Instant now);

  // --- snapshot.cc ---
  void Compact(Index index);
  void OnSnapshotFailed(StoreId peer, Term term, Instant now);

  // --- read_index.cc ---
  void RequestRead(uint64_t id, ReadMode mode, Instant now);
  std::optional<Instant> LeaseUntil() const;

  // --- membership_change.cc ---
  ChangeResult ProposeMembership(const MembershipChange& change, Instant now);
  bool Removed() const;

  // --- transfer.cc ---
  TransferStatus TransferLeadership(StoreId target, Instant now);
  StoreId transfer_target() const { return transfer_ ? transfer_->target : StoreId(); }

  bool leader_ready() const { return role_ == Role::kLeader && applied_ >= term_start_; }
  const Membership& membership() const {
    static const Membership kNone;
    return memberships_.empty() ? kNone : memberships_.back().second;
  }
  Index membership_index() const {
    return memberships_.empty() ? Index(0) : memberships_.back().first;
  }

  // --- Constant after construction ---
  const CoreOptions options_;
  const Instant started_;

  // --- Time ---
  Instant now_;  // the newest `now` of any input
  Random random_;
  Duration election_timeout_;              // drawn last
  Instant election_deadline_;              // not for a leader
  Instant heartbeat_deadline_;             // leader only
  std::optional<Instant> leader_contact_;  // when a leader's append last arrived

  // --- Figure 2, persistent: term, vote and log. Ahead of the disk by what tickets are out ---
  Term term_;
  StoreId vote_;
  bool hard_state_dirty_ = false;  // not yet handed over
  Ticket hard_state_ticket_;       // what made the last change durable, once reported
  LogWindow window_;
  std::vector<std::pair<Index, Membership>> memberships_;  // the last one is in force
  Quorum quorum_;                                          // of that one

  // --- What of it is durable ---
  struct Outstanding {
    Ticket ticket;
    Index last_index;  // the log's end with this hand-over; lowered when a later cut goes below it
    Instant since;     // when it was handed over
  };
  std::deque<Outstanding> outstanding_;
  Ticket last_ticket_;
  Ticket persisted_ticket_;
  Index persisted_;
  Index handed_over_;                 // entries up to here were given to the log
  std::optional<Index> pending_cut_;  // to be given to the log with the next hand-over
  Index first_index_;                 // the first entry that the log on disk still has

  // --- Figure 2, volatile ---
  Role role_ = Role::kFollower;
  StoreId leader_;
  Index commit_;
  Index applied_;
  Index handed_out_;  // given out for applying
  struct Batch {
    Index last;
    uint64_t bytes;
  };
  std::deque<Batch> applying_;  // handed out and not applied

  // --- Candidate ---
  std::map<StoreId, bool> votes_;  // in this (pre-)vote

  // --- Leader ---
  std::map<StoreId, Progress> progress_;  // every member but this node
  Index term_start_;                      // the no-op of the term
  Instant leader_since_;
  Instant quorum_since_;  // since then it needs just these voters
  uint64_t log_time_base_ms_ = 0;
  struct Transfer {
    StoreId target;
    Instant deadline;
    bool told = false;       // TimeoutNow was sent, since the last heartbeat
    bool resigning = false;  // this node is no voter any more: in the end it follows
  };
  std::optional<Transfer> transfer_;
  std::optional<Instant> stall_transfer_at_;  // the last one for a stalled disk, in any term

  // --- Taking part ---
  bool may_campaign_ = false;  // a voter of a membership that is in force or may be again
  bool was_member_ = false;    // since the start
  bool told_removed_ = false;  // since a leader was last heard

  // --- Reads below the window ---
  struct PendingRead {
    Index from;
    Term term;           // a follower's read is of use only to the leader that asked
    bool apply = false;  // this node's own: for applying (else to learn terms)
    bool stale = false;
  };
  std::map<StoreId, PendingRead> reads_;  // asked and not answered
  std::vector<EntryPtr> apply_stash_;     // read for applying, not yet handed out
  std::optional<Index> terms_wanted_;     // a term before the window is needed to judge an append
  // Terms of entries before the window, as they were read. They add up, because a read may give one
  // entry only: a newer read in the place of an older one would have the two asked for for ever.
  std::map<Index, Term> terms_read_;

  // --- A snapshot that is being installed ---
  // Its record goes to the log with the next hand-over; durable, the state machine is told to
  // switch; switched, it is acknowledged. Until then nothing is handed out for applying. The window
  // begins behind it from the start.
  struct Installing {
    InstallRecord record;
    Ticket ticket;          // 0: not yet handed over
    bool switched = false;  // the state machine has been told
  };
  std::optional<Installing> installing_;
  std::optional<InstallRecord> install_ready_;  // for the state machine
  // Who is to be told once everything up to `index` is durable here.
  struct InstalledAnswer {
    StoreId to;
    Index index;
    Term index_term;
    uint64_t call_id;
  };
  std::deque<InstalledAnswer> installed_answers_;  // bounded

  // --- Freshness of local reads ---
  struct FreshSample {
    Index commit;   // once this is applied,
    Instant as_of;  // the state contains everything acknowledged before this
  };
  std::deque<FreshSample> samples_;  // both ascending; bounded
  std::optional<Instant> fresh_as_of_;

  // --- Linearizable reads ---
  struct ReadAsker {
    StoreId from;  // this node, or the follower that asks
    uint64_t id = 0;
    uint64_t call_id = 0;
    ReadMode mode = ReadMode::kRound;
    Instant deadline;
  };
  // A leader's is a round, any other node's one request to its leader.
  struct ReadBatch {
    uint64_t number = 0;
    Index index;  // leader: what was committed when the round began
    std::vector<ReadAsker> askers;
  };
  // In both, earlier deadlines come first. All are of one office: the term and leader below.
  std::deque<ReadAsker> reads_waiting_;
  std::deque<ReadBatch> read_batches_;  // begun, not answered
  size_t reads_pending_ = 0;            // in both
  Term reads_term_;
  StoreId reads_leader_;
  uint64_t read_round_ = 0;    // the last one that this node began as leader, in any term
  uint64_t read_request_ = 0;  // the last one that it sent to a leader
  std::vector<ReadResult> read_results_;
  bool leases_ = false;
  uint64_t lease_answers_ = 0;
  bool lease_given_up_ = false;  // in this term, for good

  // --- Output under construction ---
  std::vector<Message> send_now_;
  std::vector<Message> send_after_persist_;
  std::vector<LogRead> log_reads_;
  std::vector<SnapshotRequest> snapshot_requests_;

  uint64_t ignored_messages_ = 0;
  Index cut_lowest_;  // in this step, for the invariants
  Invariants invariants_;

 private:
  // --- core.cc ---
  void CheckRecovered(const RecoveredState& recovered) const;
  void Advance(Instant now) { now_ = std::max(now_, now); }
  void CheckInvariants();
  bool HardStateDurable() const {
    return !hard_state_dirty_ && hard_state_ticket_ <= persisted_ticket_;
  }
  // Says something that depends on the current term (and vote) only.
  void Send(StoreId to, MessageBody body);
  // The same, and on this node's log up to `match`.
  void SendDurable(StoreId to, MessageBody body, Index match);
  bool HasPersist() const;
  bool CanHandOut() const;
  std::vector<EntryPtr> TakeCommitted();
  bool WantsApplyRead() const;
  bool WantsTermRead() const;
  void PumpOwnReads();
  void OnOwnRead(const PendingRead& read, std::vector<EntryPtr> entries);
  void CheckRead(const PendingRead& read, const std::vector<EntryPtr>& entries) const;
  uint64_t ApplyingBytes() const;
  void AddFreshSample(Index commit, Instant as_of);
  void UpdateLeaderFreshness();
  void EvictWindow();

  // --- membership_change.cc ---
  bool AnswersLately(StoreId store) const;
  void NoteRound(Progress* peer);
  bool CaughtUp(const Progress& peer) const;
  std::optional<ChangeResult> RefuseChangeNow(Term in_term) const;
  std::optional<ChangeResult> RefuseName(const Membership& from, const Member& member,
                                         const MembershipChange& change) const;
  std::optional<ChangeResult> RefuseChange(const Membership& from, const Membership& to,
                                           const MembershipChange& change) const;
  void ContinueMembershipChange();
  void MembershipChanged();
  void DropLeft();
  void TrimMemberships();
  void NoteStanding();
  bool IsRemoved(StoreId store, Index its_last_index) const;

  // --- transfer.cc ---
  StoreId PickTarget() const;
  bool MayLead(StoreId store) const;
  void StartTransfer(StoreId target);
  void AdvanceTransfer();
  void TransferTick();
  void LeaveOffice();
  void MaybeHandOverStalled();
  void HandleTimeoutNow(StoreId from, const TimeoutNow& message);

  // --- election.cc ---
  void ResetElectionDeadline();
  Instant PromisedUntil() const;  // by what it said before its start
  bool HeardFromLeader() const;   // within the minimum election timeout, or just started
  bool LogUpToDate(Index last_index, Term last_term) const;
  void BecomeFollower(Term term, StoreId leader);
  void StartPreVote();
  void StartCampaign(bool transfer);
  void AskForVotes(const RequestVote& question);
  void CountVotes();
  void BecomeLeader();
  void LeaderTick();
  // When the newest round of messages was sent that a majority has answered; a peer that has not
  // answered yet counts as `none`. This node answers at once.
  Instant MajorityContact(Instant none, bool trust_lost) const;
  // Until when this leader leads without hearing more from a majority (6.2, check quorum).
  Instant QuorumUntil() const;
  void HandleVote(StoreId from, const RequestVote& request);
  void HandleVoteReply(StoreId from, const RequestVoteReply& reply);

  // --- replication.cc ---
  void AppendOwn(EntryType type, std::string payload, WallMilliseconds wall_time_ms);
  void AddToLog(EntryPtr entry);
  void CutLog(Index from, Term term_before);  // the term of the entry before it
  std::optional<Term> TermAt(Index index) const;
  bool WellFormed(const AppendEntries& request) const;
  void HandleAppend(StoreId from, const AppendEntries& request);
  void RefuseAppend(StoreId from, const AppendEntries& request, Index hint_index, Term hint_term);
  // Appends what is new; returns up to where the log now matches the request.
  Index MergeEntries(const AppendEntries& request);
  AppendEntriesReply ReplyTo(const AppendEntries& request) const;
  void SetCommit(Index commit);

  // --- read_index.cc ---
  void TakeRead(const ReadAsker& asker);
  void AnswerRead(const ReadAsker& asker, ReadOutcome outcome, Index index,
                  std::optional<Instant> lease_until = std::nullopt);
  // What the input that is being handled means for the reads that wait. At the end of each.
  void AdvanceReads();
  void FailReads(ReadOutcome outcome);
  void ExpireReads();
  void ConfirmReads();
  bool WantsReadBatch() const;
  void PumpReads();
  void BeginReadRound();
  void AskLeaderToRead(ReadMode mode);
  std::optional<Instant> ReadDeadline() const;
  void HandleReadIndex(StoreId from, const ReadIndex& request);
  void HandleReadIndexReply(StoreId from, const ReadIndexReply& reply);
  // TimeoutNow is about to be sent: it may arrive late, so there is no lease in this term any more.
  void GiveUpLease() { lease_given_up_ = true; }

  // --- pipeline.cc: the leader's side ---
  void HandleAppendReply(StoreId from, const AppendEntriesReply& reply);
  void NoteContact(Progress* peer, const AppendEntriesReply& reply);
  void HandleMatch(Progress* peer, Index match);
  void HandleMismatch(Progress* peer, const AppendEntriesReply& reply);
  Index BackOff(const AppendEntriesReply& reply) const;
  void MaybeCommit();
  bool PeerActive(const Progress& peer) const;
  bool WantsEntries(StoreId store, const Progress& peer) const;
  bool NeedsRead(const Progress& peer) const;
  bool WantsCommit(const Progress& peer) const;
  bool WantsToSend(StoreId store, const Progress& peer) const;
  void Pump();
  void SendEntries(StoreId store, Progress* peer);
  void SendHeartbeat(StoreId store, Progress* peer);
  void AskForRead(StoreId store, Progress* peer);
  void OnPeerRead(StoreId store, const PendingRead& read, std::vector<EntryPtr> entries);
  void SendAppend(StoreId store, Progress* peer, Index prev, Term prev_term,
                  std::vector<EntryPtr> entries);

  // --- snapshot.cc ---
  bool WellFormed(const InstallSnapshot& request) const;
  void HandleInstall(StoreId from, const InstallSnapshot& request);
  void AnswerInstall(StoreId to, const InstallSnapshot& request, SnapshotAnswer answer);
  void StartInstall(const InstallSnapshot& request);
  void OnInstallDurable();
  void OnInstallApplied();
  void AnswerInstalled();
  void HandleInstallReply(StoreId from, const InstallSnapshotReply& reply);
  void RetrySnapshot(Progress* peer);
  bool WantsSnapshot(const Progress& peer) const;
};

}  // namespace quorate::raft
