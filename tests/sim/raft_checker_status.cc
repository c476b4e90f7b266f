// What RaftChecker says of what nodes publish and apply.
#include <algorithm>

#include "tests/sim/raft_checker.h"

namespace quorate::sim {

using raft::EntryPtr;
using raft::Index;
using raft::Term;

void RaftChecker::OnStatus(const raft::NodeStatus& status, Micros now,
                           std::optional<Micros> lease_until) {
  now_ = now;
  Life& life = lives_[status.self];
  life.lease_until = lease_until;
  CheckPersisted(status);
  if (status.term < life.term) Fail(status.self, "its term goes back");
  if (status.commit < life.commit) Fail(status.self, "its commit index goes back");
  if (status.applied < life.applied) Fail(status.self, "its applied index goes back");
  if (status.applied > status.commit) Fail(status.self, "applied more than is committed");
  life.term = status.term;
  life.applied = status.applied;
  // A step that ends as a follower may have begun as the leader, and have committed before it heard
  // of a later term.
  Term led = life.led;
  life.led = Term();
  if (status.role == raft::Role::kLeader) {
    CheckLeader(status, &life);
    life.led = led = status.term;
  }
  if (status.commit > life.commit) CheckCommit(status, led, life);
  const raft::Member* const self = status.membership->Find(status.self);
  if (led && (self == nullptr || !self->voter) && !status.membership->joint &&
      life.commit < status.membership_index && status.membership_index <= status.commit) {
    report_->Count(Reached::kLeaderLeft);
  }
  life.commit = status.commit;
  life.members_index = status.membership_index;
  life.members = status.membership;
  CheckConfiguration(status, &life);
}

// What is written and not flushed may cut what was flushed before; the node that has handed it over
// knows, whatever notice of an earlier flush it hears afterwards. What it has taken in and not
// handed over is not compared: only the notice of it may make that durable.
void RaftChecker::CheckPersisted(const raft::NodeStatus& status) {
  const StoreLog& log = logs_[status.self];
  if (status.persisted <= log.DurableThrough()) return;
  Fail(status.self, "takes " + ToString(status.persisted) + " for durable, and only " +
                        ToString(log.DurableThrough()) + " is");
}

// A leader that has a lease answers by it what it knows: nobody else may have committed more. The
// voters that its lease counts on keep their promise longer than it lasts, by the slowest and the
// fastest clock, and without them nobody is elected.
void RaftChecker::CheckLeases(StoreId leader, Term term) {
  for (const auto& [store, life] : lives_) {
    if (store == leader || !life.led || life.led >= term) continue;
    if (!life.lease_until || *life.lease_until <= now_) continue;
    Fail(store, "has a lease in term " + ToString(life.led) + " while the leader of term " +
                    ToString(term) + " commits");
  }
}

// Whoever confirms it has committed an entry of its term, and so everything of the terms before.
// And nobody has been elected in a later one by then: a majority has answered it since the read was
// asked for, or has promised it before not to vote until its lease ends.
void RaftChecker::OnReadConfirmed(StoreId store, Index index, Index committed) {
  if (index >= committed) return;
  Fail(store, "a linearizable read is confirmed at " + ToString(index) + ", and " +
                  ToString(committed) + " was committed when it was asked for");
}

void RaftChecker::CheckLeader(const raft::NodeStatus& status, Life* life) {
  if (life->leads == status.term) return;
  life->leads = status.term;
  report_->Count(Reached::kElection);
  if (status.membership->joint) report_->Count(Reached::kElectionInJoint);
  const auto leader = leaders_.emplace(status.term, status.self).first;
  if (leader->second != status.self) {
    Fail(status.self, "two leaders in term " + ToString(status.term));
  }
  // Leader completeness. The last committed entry of an earlier term is enough: by log matching all
  // before it is there, too.
  Index last = committed();
  while (last && committed_[last.value() - 1].term >= status.term) last = last - 1;
  const StoreLog& log = logs_[status.self];
  if (!last || last <= log.prev) return;
  const EntryId* held = log.At(last);
  if (held == nullptr || *held != committed_[last.value() - 1]) {
    Fail(status.self, "leader completeness: it leads term " + ToString(status.term) +
                          " without the committed entry " + ToString(last));
  }
}

void RaftChecker::CheckCommit(const raft::NodeStatus& status, Term led, const Life& life) {
  if (status.commit > committed()) {
    if (!led) {
      return Fail(status.self,
                  "takes for committed what no leader has committed: " + ToString(status.commit));
    }
    if (Find(status.commit, led) == nullptr) {
      return Fail(status.self,
                  "commits " + ToString(status.commit) + ", which is no entry of its own term");
    }
    // One step may commit by the members that were, and then begin a change of them; or commit, and
    // then follow a leader who takes a change back.
    const StoreLog& log = logs_[status.self];
    const auto lacks = [&](Index told, const MembershipPtr& members) {
      return LacksMajority(InForce(log, told, members), status.commit, led);
    };
    const std::string lacking = lacks(status.membership_index, status.membership);
    if (!lacking.empty() &&
        (life.members == nullptr || !lacks(life.members_index, life.members).empty())) {
      Fail(status.self, "commits " + ToString(status.commit) + ", which is durable on " + lacking);
    }
    CheckLeases(status.self, led);
    Commit(status.self, status.commit, led);
    if (!IsDurable(status.self, status.commit, led)) {
      report_->Count(Reached::kCommittedByFollower);
    }
  }
  const EntryId* held = logs_[status.self].At(status.commit);
  // What it holds there may not have been written yet; what is applied is compared again.
  if (held != nullptr && status.persisted >= status.commit &&
      *held != committed_[status.commit.value() - 1]) {
    Fail(status.self, "takes another entry for committed: " + ToString(status.commit));
  }
}

// Everything up to `index`, by the chain of predecessors that each entry was made with.
void RaftChecker::Commit(StoreId leader, Index index, Term term) {
  const size_t old = committed_.size();
  const size_t changes = configurations_.size();
  committed_.resize(index.value());
  for (Index at = index; at.value() > old; at = at - 1) {
    const Known* known = Find(at, term);
    if (known == nullptr) return Fail(leader, "commits an entry that nobody has: " + ToString(at));
    committed_[at.value() - 1] = known->id;
    if (known->membership != nullptr) configurations_.push_back({at, known->membership});
    term = known->prev_term;
  }
  std::reverse(configurations_.begin() + static_cast<ptrdiff_t>(changes), configurations_.end());
  for (size_t at = changes; at < configurations_.size(); ++at) CountChange(at);
  if (old > 0 && committed_[old - 1].term != term) {
    Fail(leader, "commits over another committed entry: " + ToString(Index(old)));
  }
  // Whoever leads a later term must have it.
  for (const auto& [store, life] : lives_) {
    if (life.leads <= committed_.back().term || life.leads != life.term) continue;
    const StoreLog& log = logs_[store];
    const EntryId* held = log.At(index);
    if (index > log.prev && (held == nullptr || *held != committed_.back())) {
      Fail(store, "leader completeness: it leads term " + ToString(life.leads) +
                      " and lacks entry " + ToString(index) + ", which is committed now");
    }
  }
}

// Both ends of a joint phase are compared.
void RaftChecker::CountChange(size_t at) {
  const raft::Membership& now = *configurations_[at].membership;
  if (now.joint || at == 0) return;
  size_t former = at - 1;
  while (former > 0 && configurations_[former].membership->joint) --former;
  for (const raft::Member& was : configurations_[former].membership->members) {
    const raft::Member* const is = now.Find(was.store);
    if (was.voter && (is == nullptr || !is->voter)) {
      report_->Count(is == nullptr ? Reached::kVoterRemoved : Reached::kVoterDemoted);
    } else if (!was.voter && is != nullptr && is->voter) {
      report_->Count(Reached::kLearnerPromoted);
    }
  }
}

bool RaftChecker::IsDurable(StoreId store, Index index, Term term) const {
  const auto found = logs_.find(store);
  return found != logs_.end() && found->second.HoldsDurably(index, term);
}

// The members by which a node counts that says that they are those of entry `told`: its log's last
// ones. Only of an entry that is not written yet there is no other word than its own; that is
// judged when it is.
const raft::Membership& RaftChecker::InForce(const StoreLog& log, Index told,
                                             const MembershipPtr& members) {
  return told > log.last() || log.configurations.empty() ? *members
                                                         : *log.configurations.back().membership;
}

std::string RaftChecker::LacksMajority(const raft::Membership& members, Index index,
                                       Term term) const {
  const auto lacks = [&](const std::vector<StoreId>& voters, const char* half) -> std::string {
    const auto durable = std::count_if(
        voters.begin(), voters.end(), [&](StoreId voter) { return IsDurable(voter, index, term); });
    if (voters.empty() || static_cast<size_t>(durable) * 2 > voters.size()) return "";
    return std::to_string(durable) + " of " + std::to_string(voters.size()) + half;
  };
  const std::string lacking = lacks(members.Voters(), " voters");
  if (!lacking.empty() || !members.joint) return lacking;
  return lacks(members.OutgoingVoters(), " outgoing voters");
}

// A change is in force from the moment that it is in the log (dissertation 4.1). What a leader's
// log was given the leader had before, and it never takes it back: so no later one may be written
// than it says. What another node has written it may have cut since, all but what it calls
// persisted.
void RaftChecker::CheckConfiguration(const raft::NodeStatus& status, Life* life) {
  const StoreLog& log = logs_[status.self];
  const Index sure = status.role == raft::Role::kLeader ? log.last() : status.persisted;
  const Configuration* const wanted = log.ConfigurationAt(sure);
  const Index index = wanted == nullptr ? Index() : wanted->index;
  if (status.membership_index < index ||
      (status.membership_index > index && status.membership_index <= sure)) {
    return Fail(status.self, "its configuration is that of entry " +
                                 ToString(status.membership_index) + ", and the last one is at " +
                                 ToString(index));
  }
  if (wanted == nullptr || status.membership_index != index) return;
  if (life->checked_members == status.membership && life->checked_wanted == wanted->membership) {
    return;
  }
  life->checked_members = status.membership;
  life->checked_wanted = wanted->membership;
  if (*status.membership != *wanted->membership) {
    Fail(status.self, "its configuration is not the one of entry " + ToString(index));
  }
}

// --- What is applied ---

void RaftChecker::CheckHash(StoreId store, Index index, uint64_t hash) {
  if (hashes_.size() < index.value()) hashes_.resize(index.value());
  std::optional<uint64_t>& known = hashes_[index.value() - 1];
  if (known && *known != hash) {
    Fail(store, "another state than elsewhere behind entry " + ToString(index));
  }
  known = hash;
}

std::optional<uint64_t> RaftChecker::HashAt(Index index) const {
  return index.value() > hashes_.size() || !index ? std::nullopt : hashes_[index.value() - 1];
}

void RaftChecker::OnApplied(StoreId store, const std::vector<EntryPtr>& entries,
                            const std::vector<uint64_t>& hash_after) {
  for (const EntryPtr& entry : entries) {
    if (entry->index > committed()) {
      return Fail(store, "applies what no leader has committed: " + ToString(entry->index));
    }
    if (committed_[entry->index.value() - 1] != IdOf(*entry)) {
      return Fail(store, "applies another entry than was committed: " + ToString(entry->index));
    }
    if (!IsDurable(store, entry->index, entry->term)) {
      return Fail(store, "applies what its own disk may lose: " + ToString(entry->index));
    }
  }
  const size_t skipped = entries.size() - hash_after.size();
  for (size_t i = 0; i < hash_after.size(); ++i) {
    CheckHash(store, entries[skipped + i]->index, hash_after[i]);
  }
}

void RaftChecker::OnInstalled(StoreId store, Index index, uint64_t hash) {
  if (index > committed()) {
    return Fail(store, "installs a state that is not committed: " + ToString(index));
  }
  CheckHash(store, index, hash);
}

}  // namespace quorate::sim
