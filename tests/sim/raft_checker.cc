#include "tests/sim/raft_checker.h"

#include <xxhash.h>

#include <algorithm>

namespace quorate::sim {

using raft::EntryPtr;
using raft::Index;
using raft::Term;

void RaftChecker::Fail(StoreId store, const std::string& what) {
  failure_->Fail("store " + ToHex(store) + ": " + what);
}

RaftChecker::EntryId RaftChecker::IdOf(const raft::Entry& entry) {
  const uint64_t facts[] = {entry.index.value(), entry.term.value(),
                            static_cast<uint64_t>(entry.type), entry.log_time_ms,
                            static_cast<uint64_t>(entry.wall_time_ms)};
  const uint64_t seed = XXH3_64bits(facts, sizeof facts);
  return {entry.term, XXH3_64bits_withSeed(entry.payload.data(), entry.payload.size(), seed)};
}

// Everything up to here must be there after any crash.
Index RaftChecker::StoreLog::SafeThrough() const {
  return unsynced_cut ? std::min(synced_through, unsynced_cut - 1) : synced_through;
}

// --- Logs ---

const RaftChecker::Known* RaftChecker::Find(Index index, Term term) const {
  if (!index || index.value() > known_.size()) return nullptr;
  for (const Known& known : known_[index.value() - 1]) {
    if (known.id.term == term) return &known;
  }
  return nullptr;
}

// Log matching: two logs that hold an entry with this index and term hold the same entry, and the
// one before it has the same term in both.
void RaftChecker::Learn(StoreId store, Index index, const EntryId& id, Term prev_term) {
  if (known_.size() < index.value()) known_.resize(index.value());
  if (const Known* known = Find(index, id.term)) {
    if (known->id.hash != id.hash || known->prev_term != prev_term) {
      Fail(store, "log matching: entry " + ToString(index) + " of term " + ToString(id.term) +
                      " is another one than elsewhere");
    }
    return;
  }
  known_[index.value() - 1].push_back({id, prev_term});
}

void RaftChecker::CutLog(StoreLog* log, Index from) {
  if (from > log->last()) return;
  log->entries.resize(from > log->prev ? from - log->prev - 1 : 0);
  while (!log->configurations.empty() && log->configurations.back().index >= from) {
    log->configurations.pop_back();
  }
  log->unsynced_cut = log->unsynced_cut ? std::min(log->unsynced_cut, from) : from;
}

void RaftChecker::OnAppend(StoreId store, const raft::Persist& persist) {
  StoreLog& log = logs_[store];
  if (persist.cut_from) {
    const Term now = persist.hard_state ? persist.hard_state->term : log.written.term;
    const auto leader = leaders_.find(now);
    if (leader != leaders_.end() && leader->second == store) {
      Fail(store, "leader append-only: cuts its log from " + ToString(*persist.cut_from) +
                      " in term " + ToString(now) + ", which it leads");
    }
    if (*persist.cut_from <= committed()) {
      const EntryId* cut = log.At(*persist.cut_from);
      if (cut != nullptr && *cut == committed_[persist.cut_from->value() - 1]) {
        Fail(store, "a committed entry is cut: " + ToString(*persist.cut_from));
      }
    }
    if (*persist.cut_from <= log.last()) report_->Count(Reached::kEntryCut);
    CutLog(&log, *persist.cut_from);
  }
  if (persist.hard_state) {
    if (persist.hard_state->term < log.written.term) Fail(store, "the term goes back");
    if (persist.hard_state->term == log.written.term && log.written.vote &&
        persist.hard_state->vote != log.written.vote) {
      Fail(store, "a vote is changed in term " + ToString(log.written.term));
    }
    log.written = *persist.hard_state;
  }
  if (persist.install) {
    const raft::SnapshotMeta& snapshot = persist.install->snapshot;
    const EntryId* held = log.At(snapshot.index);
    const bool keeps = held != nullptr && held->term == snapshot.term;
    if (!keeps) {
      CutLog(&log, std::min(log.prev + 1, snapshot.index));
      log.entries.clear();
      log.prev = snapshot.index;
      log.prev_term = snapshot.term;
      log.unsynced_cut = Index();
      log.synced_through = Index();
    }
    // Those before it stay known: the power may fail before this is durable.
    const auto place = std::find_if(
        log.configurations.begin(), log.configurations.end(),
        [&](const Configuration& each) { return each.index >= snapshot.membership_index; });
    if (place == log.configurations.end() || place->index != snapshot.membership_index) {
      log.configurations.insert(place, {snapshot.membership_index, snapshot.membership});
    }
  }
  for (const EntryPtr& entry : persist.entries) {
    if (entry->index != log.last() + 1) {
      return Fail(store,
                  "a gap in the log: " + ToString(entry->index) + " after " + ToString(log.last()));
    }
    if (entry->type == raft::EntryType::kBirthComplete) CheckBirthComplete(store, log, entry->term);
    const EntryId id = IdOf(*entry);
    Learn(store, entry->index, id, log.LastTerm());
    if (entry->type == raft::EntryType::kMembership) CheckChange(store, log, *entry);
    log.entries.push_back(id);
    if (entry->type == raft::EntryType::kMembership) {
      log.configurations.push_back({entry->index, *raft::DecodeMembership(entry->payload)});
    }
  }
}

// By the leader that proposes it: all who are members then are born, durably.
void RaftChecker::CheckBirthComplete(StoreId store, const StoreLog& log, Term term) {
  const auto leader = leaders_.find(term);
  if (leader == leaders_.end() || leader->second != store || log.configurations.empty()) return;
  for (const raft::Member& member : log.configurations.back().membership.members) {
    if (member.store == store || IsDurable(member.store, Index(1), Term(1))) continue;
    Fail(store, "calls birth complete, and " + member.name + " does not hold entry 1");
  }
}

void RaftChecker::OnBegunAgain() {
  logs_.clear();
  lives_.clear();
  leaders_.clear();
  votes_.clear();
  known_.clear();
  committed_.clear();
  hashes_.clear();
}

void RaftChecker::OnSynced(StoreId store) {
  StoreLog& log = logs_[store];
  log.synced_through = log.last();
  log.unsynced_cut = Index();
  log.durable = log.written;
}

void RaftChecker::OnRecovered(StoreId store, const storage::RecoveredLog& recovered,
                              const std::vector<EntryPtr>& entries, Index applied) {
  StoreLog& log = logs_[store];
  if (recovered.last_index < log.SafeThrough()) {
    Fail(store, "recovery lost entries that were durable: the log ends at " +
                    ToString(recovered.last_index) + ", and " + ToString(log.SafeThrough()) +
                    " was synced");
  }
  if (recovered.hard_state.term < log.durable.term ||
      (recovered.hard_state.term == log.durable.term && log.durable.vote &&
       recovered.hard_state.vote != log.durable.vote)) {
    Fail(store, "recovery lost a term or a vote that was durable: it has term " +
                    ToString(recovered.hard_state.term) + ", and " + ToString(log.durable.term) +
                    " was synced");
  }
  if (!entries.empty() && entries.back()->index != recovered.last_index) {
    Fail(store, "the log cannot be read to its end");
  }
  for (const EntryPtr& entry : entries) {
    const EntryId id = IdOf(*entry);
    const Known* known = Find(entry->index, entry->term);
    if (known == nullptr || known->id.hash != id.hash) {
      Fail(store, "recovery found an entry that nobody made: " + ToString(entry->index));
    }
    const EntryId* held = log.At(entry->index);
    if (entry->index <= log.SafeThrough() && held != nullptr && *held != id) {
      Fail(store, "recovery changed a durable entry: " + ToString(entry->index));
    }
  }
  if (recovered.torn_bytes > 0) report_->Count(Reached::kTornTail);
  if (!recovered.cured.empty()) report_->Count(Reached::kTermCured);
  // From here on it is what was found, all of it durable.
  StoreLog fresh;
  fresh.prev = recovered.first_index - 1;
  if (const EntryId* before = log.At(fresh.prev)) {
    fresh.prev_term = before->term;
  } else if (fresh.prev == log.prev) {
    fresh.prev_term = log.prev_term;
  } else if (!entries.empty()) {
    const Known* first = Find(entries.front()->index, entries.front()->term);
    if (first != nullptr) fresh.prev_term = first->prev_term;
  }
  for (const EntryPtr& entry : entries) fresh.entries.push_back(IdOf(*entry));
  fresh.synced_through = recovered.last_index;
  fresh.written = fresh.durable = recovered.hard_state;
  for (const Configuration& each : log.configurations) {
    if (each.index < recovered.first_index) fresh.configurations.push_back(each);
  }
  for (const EntryPtr& entry : entries) {
    if (entry->type != raft::EntryType::kMembership) continue;
    fresh.configurations.push_back({entry->index, *raft::DecodeMembership(entry->payload)});
  }
  log = std::move(fresh);
  Life& life = lives_[store];
  life = Life();
  life.applied = applied;
  life.term = recovered.hard_state.term;
}

void RaftChecker::OnProcessGone(StoreId store) { lives_.erase(store); }

bool RaftChecker::HasCommitted(Term term) const {
  Index last = committed();
  while (last && committed_[last.value() - 1].term > term) last = last - 1;
  return last && committed_[last.value() - 1].term == term;
}

// Raft's rules for changes of the members, for the leader that begins one (dissertation 4.1, 4.3,
// and the bug of 2015 in single-server changes).
void RaftChecker::CheckChange(StoreId store, const StoreLog& log, const raft::Entry& entry) {
  const auto leader = leaders_.find(entry.term);
  if (leader == leaders_.end() || leader->second != store || log.written.term != entry.term) return;
  if (!HasCommitted(entry.term)) {
    Fail(store, "changes the members at " + ToString(entry.index) +
                    " before an entry of its own term " + ToString(entry.term) + " is committed");
  }
  if (!log.configurations.empty() && log.configurations.back().index > committed()) {
    Fail(store, "changes the members at " + ToString(entry.index) + " before the change at " +
                    ToString(log.configurations.back().index) + " is committed");
  }
}

void RaftChecker::OnChangeDone(const raft::ChangeResult& result) {
  const Index index = result.index;
  if (index > committed() || committed_[index.value() - 1].term != result.term) {
    failure_->Fail("a change of the members was called done, and entry " + ToString(index) +
                   " of term " + ToString(result.term) + " is not committed");
  }
}

// --- What is said ---

void RaftChecker::CheckVote(StoreId voter, Term term, StoreId candidate) {
  const StoreLog& log = logs_[voter];
  // A later term that is durable is as good: it will not vote in this one again.
  if (log.durable.term < term || (log.durable.term == term && log.durable.vote != candidate)) {
    Fail(voter, "says a vote of term " + ToString(term) + " that is not durable");
  }
  const auto [vote, first] = votes_.emplace(std::make_pair(voter, term), candidate);
  if (!first && vote->second != candidate) {
    Fail(voter, "two votes in term " + ToString(term));
  }
}

void RaftChecker::OnSend(const raft::Message& message) {
  if (const auto* append = std::get_if<raft::AppendEntries>(&message.body)) {
    if (logs_[message.from].durable.term < append->term) {
      Fail(message.from, "leads in a term that is not durable");
    }
    const auto leader = leaders_.emplace(append->term, message.from).first;
    if (leader->second != message.from) {
      Fail(message.from, "two leaders in term " + ToString(append->term));
    }
  } else if (const auto* reply = std::get_if<raft::AppendEntriesReply>(&message.body)) {
    const StoreLog& log = logs_[message.from];
    // One that waited for the disk may leave when its log has gone on in a later term, whose leader
    // has cut what it says. It is true of its own term: who leads that and counts it has, with all
    // the others it needs, kept later leaders without the entry from being elected.
    const bool old_news = reply->term < log.written.term;
    if (reply->success && !old_news && reply->match > std::max(log.SafeThrough(), log.prev)) {
      Fail(message.from, "acknowledges " + ToString(reply->match) + ", and only " +
                             ToString(log.SafeThrough()) + " is durable");
    }
    if (reply->success && log.durable.term < reply->term) {
      Fail(message.from, "acknowledges in a term that is not durable");
    }
    if (reply->success) CheckMatch(message.from, message.to, *reply);
  } else if (const auto* vote = std::get_if<raft::RequestVoteReply>(&message.body)) {
    if (vote->granted && !vote->pre_vote) CheckVote(message.from, vote->term, message.to);
  } else if (const auto* request = std::get_if<raft::RequestVote>(&message.body)) {
    if (!request->pre_vote) CheckVote(message.from, request->term, message.from);
  }
}

// By log matching the last entry is enough. One of the leader's own term nobody else has made; an
// older one the leader has had since before it was elected, and it never cuts its log.
void RaftChecker::CheckMatch(StoreId from, StoreId leader, const raft::AppendEntriesReply& reply) {
  const StoreLog& log = logs_[from];
  const StoreLog& theirs = logs_[leader];
  const auto known = leaders_.find(reply.term);
  if (known == leaders_.end() || known->second != leader) return;
  // What waited for the disk may leave after its log has gone on in a later term: that answer is
  // old.
  if (theirs.written.term != reply.term || log.written.term != reply.term) return;
  if (reply.match <= log.prev || reply.match <= theirs.prev) return;
  const EntryId* here = log.At(reply.match);
  if (here == nullptr || here->term == reply.term) return;
  const EntryId* there = theirs.At(reply.match);
  if (there == nullptr || *there != *here) {
    Fail(from, "acknowledges " + ToString(reply.match) + " to the leader of term " +
                   ToString(reply.term) + ", whose log holds another entry there, or none");
  }
}

void RaftChecker::OnHeard(StoreId store, const raft::Message& message, Instant now) {
  const auto* append = std::get_if<raft::AppendEntries>(&message.body);
  if (append == nullptr) return;
  Life& life = lives_[store];
  if (append->term < life.heard_term) return;
  life.heard_term = append->term;
  life.heard_at = now;
}

void RaftChecker::OnCampaign(StoreId store, const raft::RequestVote& question, Instant now,
                             Duration election_timeout_min) {
  const Life& life = lives_[store];
  // It asks for the term after its own.
  if (!life.heard_term || life.heard_term + 1 < question.term) return;
  if (now - life.heard_at >= election_timeout_min) return;
  Fail(store, "asks for votes in term " + ToString(question.term) +
                  " although the leader of term " + ToString(life.heard_term) +
                  " has just been heard");
}

// --- What is published ---

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
  life.commit = status.commit;
  life.members = status.membership;
  CheckConfiguration(status, &life);
}

// What is written and not flushed may cut what was flushed before; the node that has handed it over
// knows, whatever notice of an earlier flush it hears afterwards. What it has taken in and not
// handed over is not compared: only the notice of it may make that durable.
void RaftChecker::CheckPersisted(const raft::NodeStatus& status) {
  const StoreLog& log = logs_[status.self];
  if (status.persisted <= std::max(log.SafeThrough(), log.prev)) return;
  Fail(status.self, "takes " + ToString(status.persisted) + " for durable, and only " +
                        ToString(log.SafeThrough()) + " is");
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
    // One step may commit by the members that were, and then begin a change of them.
    const std::string lacking = LacksMajority(*status.membership, status.commit, led);
    if (!lacking.empty() &&
        (life.members == nullptr || !LacksMajority(*life.members, status.commit, led).empty())) {
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
  committed_.resize(index.value());
  for (Index at = index; at.value() > old; at = at - 1) {
    const Known* known = Find(at, term);
    if (known == nullptr) return Fail(leader, "commits an entry that nobody has: " + ToString(at));
    committed_[at.value() - 1] = known->id;
    term = known->prev_term;
  }
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

bool RaftChecker::IsDurable(StoreId store, Index index, Term term) const {
  const auto found = logs_.find(store);
  if (found == logs_.end()) return false;
  const StoreLog& log = found->second;
  if (index <= log.prev) return true;
  const EntryId* held = log.At(index);
  return held != nullptr && held->term == term && index <= log.SafeThrough();
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

void RaftChecker::CheckConfiguration(const raft::NodeStatus& status, Life* life) {
  if (life->configuration_checked == status.membership_index &&
      life->membership_checked == status.membership) {
    return;
  }
  const StoreLog& log = logs_[status.self];
  // What is handed over and not yet written may hold another one: later.
  if (status.persisted != status.last_index || status.last_index != log.last()) return;
  life->configuration_checked = status.membership_index;
  life->membership_checked = status.membership;
  const Index wanted = log.configurations.empty() ? Index() : log.configurations.back().index;
  if (status.membership_index != wanted) {
    return Fail(status.self, "its configuration is that of entry " +
                                 ToString(status.membership_index) + ", and the last one is at " +
                                 ToString(wanted));
  }
  if (wanted && *status.membership != log.configurations.back().membership) {
    Fail(status.self, "its configuration is not the one of entry " + ToString(wanted));
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
