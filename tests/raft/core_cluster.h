// A cluster of cores in one process and one thread: simulated disks, a simulated network, no clock
// but the one that the test moves. Used by the golden scripts and by the random tests.
//
// Every step of every node is judged by an Oracle that sees all nodes at once (Raft paper, Figure
// 3). A violation is a test failure with the story so far, never a crash of the harness.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "raft/core/core.h"

namespace quorate::raft::testing {

// What survives a crash of one node.
struct Disk {
  HardState hard_state;
  // Entry i at [i - 1]. What is before `first` is not in the log any more: it stands here only for
  // the oracle, and nothing that the core asks of its log may show it.
  std::vector<EntryPtr> log;
  Index applied;  // what the state machine has made durable
  Index first{1};
  Duration promised{};  // CoreOptions::promised_before_start of the next start
};

// What a leader sends instead of entries: its whole state.
struct Snapshot {
  SnapshotMeta meta;
  std::vector<EntryPtr> entries;  // all that the state machine had applied
};

struct Applied {
  std::vector<EntryPtr> entries;  // the whole history of the state machine
};

class Cluster;

class TestNode {
 public:
  TestNode(Cluster* cluster, std::string name, CoreOptions options, Disk disk);

  // Builds the core from the disk; what was not durable is gone.
  void Start();
  void Stop();
  bool up() const { return core_ != nullptr; }
  Core& core() { return *core_; }
  const Core& core() const { return *core_; }
  const std::string& name() const { return name_; }
  StoreId id() const { return options_.self; }
  CoreOptions& options() { return options_; }
  Disk& disk() { return disk_; }
  const std::vector<EntryPtr>& log() const { return log_; }
  // The disk is slow: hand-overs wait for PersistNext. The applier is slow: they wait for
  // ApplyNext.
  void set_slow_disk(bool slow) { slow_disk_ = slow; }
  void set_slow_apply(bool slow) { slow_apply_ = slow; }
  void set_slow_reads(bool slow) { slow_reads_ = slow; }
  // How much of the log a restart gives back as the window.
  void set_leases(bool on) {
    leases_ = on;
    if (up()) core_->SetLeases(on);
  }
  void set_recovered_window_bytes(size_t bytes) { recovered_window_bytes_ = bytes; }

  // Each is followed by taking the Ready and acting on it.
  void Tick();
  void Receive(const Message& message);
  std::pair<size_t, ProposeStatus> Propose(std::vector<std::string> payloads);
  // Reads are numbered by the cluster; the oracle judges their answers.
  void RequestRead(ReadMode mode);
  size_t unanswered_reads() const { return asked_reads_.size(); }
  struct ReadTotals {
    uint64_t confirmed = 0;
    uint64_t by_lease = 0;
    uint64_t failed = 0;
  };
  const ReadTotals& read_totals() const { return read_totals_; }
  ChangeResult Change(const MembershipChange& change);
  TransferStatus HandOver(StoreId target);
  // The oldest `count` hand-overs become durable; with `report` the core is told.
  bool PersistNext(size_t count = 1, bool report = true);
  bool ApplyNext();
  bool AnswerRead();
  // Cuts the log up to what the state machine has made durable, or less.
  void Compact(Index through);
  // What it is asked to send waits for SendSnapshot.
  void set_slow_snapshots(bool slow) { slow_snapshots_ = slow; }
  bool SendSnapshot();
  // What is under way to anybody has failed, as the sender will notice sooner or later.
  void FailSnapshots();
  // Tells the core of an earlier ticket again, or of what was made durable without a report.
  void ReportTicket(Ticket ticket);
  Ticket durable_ticket() const { return durable_ticket_; }
  // A crash in the middle of a write: `hand_overs` more are on disk, and of the next one its first
  // `entries` entries (with its cut and hard state, when `entries` is given at all).
  void CrashAfterWriting(size_t hand_overs, std::optional<size_t> entries);

  size_t pending_persists() const { return pending_.size(); }
  size_t pending_applies() const { return applying_.size(); }
  uint64_t cuts() const { return cuts_; }          // how often its log was cut
  uint64_t installs() const { return installs_; }  // how often its state was replaced
  size_t pending_reads() const { return reads_.size(); }
  Index state_index() const { return Index(state_.entries.size()); }
  const std::vector<EntryPtr>& state() const { return state_.entries; }

  // Its own clock, which nobody else's compares to.
  void set_clock_offset(Duration offset) { clock_offset_ = offset; }
  Instant Now() const;
  // By the cluster's clock.
  Instant NextDeadline() const { return core_->NextDeadline() - clock_offset_; }
  void set_paused(bool paused) { paused_ = paused; }
  bool paused() const { return paused_; }
  // As of the last look, to see what changed.
  struct Seen {
    Role role = Role::kFollower;
    Term term;
    StoreId leader;
    Index commit;
    Index membership_index;
    bool ready = false;
    StoreId transfer_target;
  };

 private:
  friend class Cluster;
  struct Pending {
    Persist persist;
    std::vector<Message> messages;
  };
  void React();
  void WriteToDisk(const Persist& persist, size_t entries_max);
  void Report(const Pending& pending);
  void NoteChanges();
  void NoteReads(const std::vector<ReadResult>& results);
  RecoveredState Recover() const;
  void Offer(const SnapshotRequest& request);
  void OnSnapshotReply(const Message& message);
  void FailOverdueSnapshots();
  void LowerPromise();
  void Switch(const InstallRecord& record);

  Cluster* cluster_;
  std::string name_;
  CoreOptions options_;
  Disk disk_;
  std::vector<EntryPtr> log_;  // as the core has it, durable or not
  std::unique_ptr<Core> core_;
  Instant started_{};  // its own clock
  // What earlier starts may have promised, and what this one does.
  Duration promised_before_{}, promises_{};
  bool slow_disk_ = false;
  bool slow_apply_ = false;
  bool slow_reads_ = false;
  size_t recovered_window_bytes_ = 16u << 20;
  uint64_t starts_ = 0;
  bool leases_ = false;
  std::deque<Pending> pending_;
  struct Applying {
    std::optional<InstallRecord> install;
    std::vector<EntryPtr> entries;
  };
  std::deque<Applying> applying_;
  struct Transfer {
    Term term;
    uint64_t handle = 0;
    Instant overdue;
  };
  std::deque<SnapshotRequest> snapshot_requests_;
  std::map<StoreId, Transfer> transfers_;  // by receiver
  bool slow_snapshots_ = false;
  uint64_t installs_ = 0;
  std::deque<LogRead> reads_;
  std::map<uint64_t, Index> asked_reads_;  // what was committed anywhere when each was asked
  ReadTotals read_totals_;
  Applied state_;
  Seen seen_;
  Duration clock_offset_{};
  bool paused_ = false;
  uint64_t cuts_ = 0;
  Ticket durable_ticket_;
  bool changes_under_way_ = false;  // a Ready is still to be taken
};

// Judges all nodes together. The names are those of the Raft paper's Figure 3.
class Oracle {
 public:
  explicit Oracle(Cluster* cluster) : cluster_(cluster) {}
  void OnLeader(const TestNode& node);  // Election Safety, Leader Completeness
  void OnCommit(const TestNode& node, Index from, Index to);  // durable on a majority of disks
  void OnApply(const TestNode& node, const std::vector<EntryPtr>& entries);  // State Machine Safety
  void OnInstall(const TestNode& node, const Snapshot& snapshot);
  void OnSend(const TestNode& node,
              const Message& message);  // one vote a term, true acknowledgements
  void CheckLogMatching();
  // Nobody says that its state is fresher than it is.
  void CheckFreshness(const TestNode& node);
  // Whatever was committed anywhere when a read was asked for, the read shows: `least`.
  Index highest_committed() const;
  void OnReadConfirmed(const TestNode& node, const ReadResult& result, Index least);
  const std::map<Index, EntryPtr>& committed() const { return committed_; }
  // In a test that makes a disk go back on purpose.
  void ForgetDurability() { check_durability_ = false; }

 private:
  Cluster* cluster_;
  bool check_durability_ = true;
  std::map<Term, StoreId> leaders_;
  std::map<Index, EntryPtr> committed_;
  std::map<Index, Instant> committed_at_;  // no write can have been acknowledged before
  std::map<std::pair<StoreId, Term>, StoreId> votes_;
};

class Cluster {
 public:
  // Voters, then learners; store ids 1, 2, ... in that order. Each starts with entry 1, the
  // membership, durable and applied (term 1), unless the caller gives it another disk before Start.
  // Spares come last: stores that are no members, with nothing on their disks.
  Cluster(const std::vector<std::string>& voters, const std::vector<std::string>& learners,
          const CoreOptions& options, const std::vector<std::string>& spares = {});

  void StartAll();
  TestNode& node(const std::string& name);
  TestNode* Find(StoreId id);
  std::vector<TestNode*> nodes();
  std::string NameOf(StoreId id) const;
  const Membership& birth_membership() const { return membership_; }
  Oracle& oracle() { return oracle_; }
  // Everything that was ever sent, by its handle.
  std::map<uint64_t, Snapshot>& snapshots() { return snapshots_; }
  // Exactly one live leader of the highest term among the live nodes, or nullptr.
  TestNode* Leader();

  uint64_t NextReadId() { return ++last_read_id_; }
  Instant now() const { return now_; }
  void SetNow(Instant now) { now_ = now; }
  std::deque<Message>& network() { return network_; }
  bool Connected(StoreId from, StoreId to) const;
  // Nodes in different groups do not hear each other; an empty list heals.
  void Partition(std::vector<std::vector<std::string>> groups);
  void Deliver(const Message& message);
  // Everything that can happen without time passing, until nothing is left.
  void Settle();
  // Time passes in full: timers fire when due, messages take no time.
  void Run(Duration duration);
  void FireTimersUntil(Instant until, bool settle);

  // Where the conversation is written; nullptr: nowhere.
  void set_trace(std::ostream* trace) { trace_ = trace; }
  void Say(const std::string& line);
  bool traced() const { return trace_ != nullptr; }
  void Fail(const std::string& what);
  bool failed() const { return failed_; }

 private:
  std::vector<std::unique_ptr<TestNode>> nodes_;
  Membership membership_;
  std::map<uint64_t, Snapshot> snapshots_;
  Oracle oracle_{this};
  Instant now_{std::chrono::seconds(1000)};
  std::deque<Message> network_;
  std::vector<std::set<StoreId>> groups_;
  uint64_t last_read_id_ = 0;
  std::ostream* trace_ = nullptr;
  bool failed_ = false;
};

EntryPtr MakeEntry(Index index, Term term, EntryType type = EntryType::kCommand,
                   std::string payload = {});
EntryPtr MakeMembershipEntry(Index index, Term term, const Membership& membership);

// How things read in a conversation: entry 7 of term 3 is 7@3.
std::string RoleName(Role role);
std::string Print(const Cluster& cluster, const Message& message);
std::string PrintOutcome(ReadOutcome outcome);
std::string Print(const ReadResult& result);
std::string PrintEntries(const std::vector<EntryPtr>& entries);
std::string PrintMembership(const Membership& membership);
// Why a change is refused; empty when it is not.
std::string PrintChange(const Cluster& cluster, const ChangeResult& result);

}  // namespace quorate::raft::testing
