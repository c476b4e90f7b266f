// Judges the logs, votes, leaders and states of all nodes, apart from the code that it judges: it
// is fed by observation points (what is handed to a log, what is synced, sent, published, applied)
// and keeps its own picture of every store. Quorums and configurations, too, are those of the logs
// that it has seen, not what a node says of itself.
//
//   one leader per term       OnStatus, OnSend (who sends appends)
//   one vote per term         OnSend, across restarts; only what is durable is said
//   leader append-only        OnAppend
//   log matching              OnAppend, OnRecovered: an entry has one content and one predecessor's
//                             term wherever it is (so, by induction, one prefix)
//   log time never goes back  OnAppend, OnRecovered
//   leader completeness       OnStatus: each leader holds what was committed before its term
//   durable on a majority     OnStatus: when a leader's commit index moves
//   true of its own disk      OnStatus: what a node takes for durable is
//   leases end in time        OnStatus: when a later leader commits, no earlier one has a lease
//   reads are up to date      OnReadConfirmed: what was committed when one was asked for lies below
//                             the index that it is confirmed at
//   monotonic                 OnStatus: term, commit and applied within a process; the term across
//                             restarts
//   configuration             OnStatus: the last one of the log or its snapshot, from the moment
//                             that it is written
//   one change at a time      OnAppend: a change begins when the one before it and an entry of the
//                             leader's own term are committed; OnChangeDone: what is called done is
//                             committed
//   true acknowledgements     OnSend: who acknowledges an entry was sent it by that leader, holds
//                             the one that the leader holds there, and its disk does
//   true echoes               OnSend: the clock and the round of reads that an answer echoes are
//                             the ones that the leader of its term has said
//   snapshots                 OnAppend: what is installed is committed, with the members that were
//                             in force there, and replaces nothing that is committed behind it;
//                             OnSend: it is called installed when its record is durable
//   no needless election      OnHeard, OnCampaign: who has just been told something by its leader
//                             has no reason to ask for votes
//   one order                 OnApplied: what is applied is what was committed, and the state has
//                             one hash at one index
//   nothing durable is lost   OnRecovered, OnLogRemoved
//   birth is complete         OnAppend: only when every member holds entry 1 durably
//
// Logs are in raft_checker.cc, messages in raft_checker_messages.cc, what is published and applied
// in raft_checker_status.cc.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "raft/core/message.h"
#include "raft/core/ready.h"
#include "raft/node.h"
#include "storage/log.h"
#include "tests/sim/report.h"

namespace quorate::sim {

class RaftChecker {
 public:
  RaftChecker(Failure* failure, Report* report) : failure_(failure), report_(report) {}

  // A process has opened its log; `entries` is all of it.
  void OnRecovered(StoreId store, const storage::RecoveredLog& recovered,
                   const std::vector<raft::EntryPtr>& entries, raft::Index applied);
  // Before the log is asked to write it, and after it has said that all is durable.
  void OnAppend(StoreId store, const raft::Persist& persist);
  void OnSynced(StoreId store);
  // What leaves a process.
  void OnSend(const raft::Message& message);
  // What a process is told, when it is there to be read; and that it asks for votes now because its
  // timer has run out. `now`: by the clock of its machine.
  void OnHeard(StoreId store, const raft::Message& message, Instant now);
  void OnCampaign(StoreId store, const raft::RequestVote& question, Instant now,
                  Duration election_timeout_min);
  // An operator was told that its change is done.
  void OnChangeDone(const raft::ChangeResult& result);
  // What the node publishes, now. `lease_until`: when its lease ends, if it has one; both in the
  // world's time.
  void OnStatus(const raft::NodeStatus& status, Micros now, std::optional<Micros> lease_until);
  // A node may answer a linearizable read (also one by lease) once it has applied `index`;
  // `committed`: what committed() was when the read was asked for.
  void OnReadConfirmed(StoreId store, raft::Index index, raft::Index committed);
  // After they are applied. `hash_after`: of the state behind each; or one, behind the last.
  void OnApplied(StoreId store, const std::vector<raft::EntryPtr>& entries,
                 const std::vector<uint64_t>& hash_after);
  void OnInstalled(StoreId store, raft::Index index, uint64_t hash);
  void OnProcessGone(StoreId store);
  // A start that died before its log was made begins it anew: nothing was said on its behalf. So no
  // process may have opened it.
  void OnLogRemoved(StoreId store);
  // Birth begins again with empty disks: nothing of the old cluster counts any more.
  void OnBegunAgain();

  raft::Index committed() const { return raft::Index(committed_.size()); }
  // The hash that the state has had behind this entry, if anybody has told.
  std::optional<uint64_t> HashAt(raft::Index index) const;

 private:
  struct EntryId {
    raft::Term term;
    uint64_t hash = 0;
    friend bool operator==(const EntryId&, const EntryId&) = default;
  };
  using MembershipPtr = std::shared_ptr<const raft::Membership>;
  // An entry as it was made, wherever it is.
  struct Known {
    EntryId id;
    raft::Term prev_term;
    uint64_t log_time_ms;
    MembershipPtr membership;  // null: it is no change of the members
  };
  struct Configuration {
    raft::Index index;
    MembershipPtr membership;
  };
  // A store's log as this checker believes it to be.
  struct StoreLog {
    // The entry before the first one known here. It and all before it are durable, unless `before`
    // is set.
    raft::Index prev;
    raft::Term prev_term;
    std::deque<EntryId> entries;  // as written
    raft::Index synced_through;   // durable as they stand up to here
    // The lowest index that an unsynced change may have taken away; 0: none.
    raft::Index unsynced_cut;
    raft::HardState written, durable;
    std::vector<Configuration> configurations;  // ascending; the last is in force
    // A snapshot has taken the place of this log, and that is not synced: after a crash it may be
    // there again.
    std::shared_ptr<const StoreLog> before;

    raft::Index last() const { return prev + entries.size(); }
    const EntryId* At(raft::Index index) const {
      return index <= prev || index > last() ? nullptr : &entries[index - prev - 1];
    }
    raft::Term LastTerm() const { return entries.empty() ? prev_term : entries.back().term; }
    // Everything up to here must be there after any crash; of what lies behind `prev`.
    raft::Index SafeThrough() const;
    // The same of all, whether the log or the state holds it.
    raft::Index DurableThrough() const;
    bool HoldsDurably(raft::Index index, raft::Term term) const;
    // The last configuration that is not behind `index`; null: none.
    const Configuration* ConfigurationAt(raft::Index index) const;
  };
  // A running process.
  struct Life {
    raft::Term term;
    raft::Index commit;
    raft::Index applied;
    raft::Term leads;       // the term in which it was last seen as a leader
    raft::Term led;         // that it led when it last published; 0: it did not lead
    raft::Term heard_term;  // of the last append that came in, and when
    Instant heard_at{};
    raft::Term led_by;  // the latest term of which a leader has said anything
    // Of the latest term of which an append came in: the clocks that it said, and the last round.
    raft::Term said_term;
    std::set<Instant> said_clocks;
    uint64_t said_round = 0;
    // By term: how far the appends reach that came in.
    std::map<raft::Term, raft::Index> offered;
    std::optional<Micros> lease_until;  // in the world's time; it led `led` then
    // As last published.
    raft::Index members_index;
    MembershipPtr members;
    // What was last found to be the same.
    MembershipPtr checked_members, checked_wanted;
  };

  void Fail(StoreId store, const std::string& what);
  static EntryId IdOf(const raft::Entry& entry);
  // Returns the members, if that is what the entry changes.
  MembershipPtr Learn(StoreId store, const raft::Entry& entry, const EntryId& id,
                      raft::Term prev_term);
  const Known* Find(raft::Index index, raft::Term term) const;
  void CheckLeader(const raft::NodeStatus& status, Life* life);
  void CheckCommit(const raft::NodeStatus& status, raft::Term led, const Life& life);
  void CheckPersisted(const raft::NodeStatus& status);
  void CheckLeases(StoreId leader, raft::Term term);
  void Commit(StoreId leader, raft::Index index, raft::Term term);
  static const raft::Membership& InForce(const StoreLog& log, raft::Index told,
                                         const MembershipPtr& members);
  // Of both halves; what is missing, or nothing.
  std::string LacksMajority(const raft::Membership& members, raft::Index index,
                            raft::Term term) const;
  bool IsDurable(StoreId store, raft::Index index, raft::Term term) const;
  // For the report, of the configuration that is committed at this place.
  void CountChange(size_t at);
  void CheckConfiguration(const raft::NodeStatus& status, Life* life);
  void CheckVote(StoreId voter, raft::Term term, StoreId candidate);
  void CheckEcho(StoreId from, const raft::AppendEntriesReply& reply);
  void CheckAcknowledgement(StoreId from, StoreId leader, const raft::AppendEntriesReply& reply);
  void CheckMatch(StoreId from, StoreId leader, const raft::AppendEntriesReply& reply);
  void CheckInstalled(StoreId from, const raft::InstallSnapshotReply& reply);
  void CheckChange(StoreId store, const StoreLog& log, const raft::Entry& entry);
  // Whether an entry of this term is committed.
  bool HasCommitted(raft::Term term) const;
  void CheckHash(StoreId store, raft::Index index, uint64_t hash);
  void CutLog(StoreLog* log, raft::Index from);
  void TakeCut(StoreId store, StoreLog* log, const raft::Persist& persist);
  void TakeHardState(StoreId store, StoreLog* log, const raft::HardState& state);
  void TakeInstall(StoreId store, StoreLog* log, const raft::SnapshotMeta& snapshot);
  void CheckRecovered(StoreId store, const StoreLog& was, const storage::RecoveredLog& recovered,
                      raft::Index applied);
  void CheckFound(StoreId store, const StoreLog& was, raft::Term prev_term,
                  const std::vector<raft::EntryPtr>& entries);
  // Among what is committed; null: none.
  const Configuration* CommittedConfiguration(raft::Index index) const;
  void CheckBirthComplete(StoreId store, const StoreLog& log, raft::Term term);

  Failure* const failure_;
  Report* const report_;
  Micros now_ = 0;  // of the latest status
  std::map<StoreId, StoreLog> logs_;
  std::set<StoreId> opened_;  // whose log a process has opened
  std::map<StoreId, Life> lives_;
  std::map<raft::Term, StoreId> leaders_;
  std::map<std::pair<StoreId, raft::Term>, StoreId> votes_;
  std::deque<std::vector<Known>> known_;         // by index - 1; few of each
  std::vector<EntryId> committed_;               // by index - 1
  std::vector<Configuration> configurations_;    // that are committed, ascending
  std::vector<std::optional<uint64_t>> hashes_;  // by index - 1
};

}  // namespace quorate::sim
