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

// --- Logs ---

Index RaftChecker::StoreLog::SafeThrough() const {
  return unsynced_cut ? std::min(synced_through, unsynced_cut - 1) : synced_through;
}

// What lies behind an unsynced snapshot in the log that it replaces goes with it.
Index RaftChecker::StoreLog::DurableThrough() const {
  return before != nullptr ? std::min(before->DurableThrough(), prev)
                           : std::max(SafeThrough(), prev);
}

bool RaftChecker::StoreLog::HoldsDurably(Index index, Term term) const {
  if (index <= prev) return before == nullptr || before->HoldsDurably(index, term);
  const EntryId* held = At(index);
  return held != nullptr && held->term == term && index <= SafeThrough();
}

const RaftChecker::Configuration* RaftChecker::StoreLog::ConfigurationAt(Index index) const {
  const auto after = std::find_if(configurations.begin(), configurations.end(),
                                  [&](const Configuration& each) { return each.index > index; });
  return after == configurations.begin() ? nullptr : &*std::prev(after);
}

const RaftChecker::Known* RaftChecker::Find(Index index, Term term) const {
  if (!index || index.value() > known_.size()) return nullptr;
  for (const Known& known : known_[index.value() - 1]) {
    if (known.id.term == term) return &known;
  }
  return nullptr;
}

// Log matching: two logs that hold an entry with this index and term hold the same entry, and the
// one before it has the same term in both.
RaftChecker::MembershipPtr RaftChecker::Learn(StoreId store, const raft::Entry& entry,
                                              const EntryId& id, Term prev_term) {
  const Index index = entry.index;
  if (known_.size() < index.value()) known_.resize(index.value());
  if (const Known* known = Find(index, id.term)) {
    if (known->id.hash != id.hash || known->prev_term != prev_term) {
      Fail(store, "log matching: entry " + ToString(index) + " of term " + ToString(id.term) +
                      " is another one than elsewhere");
    }
    return known->membership;
  }
  const Known* const before = Find(index - 1, prev_term);
  if (before != nullptr && before->log_time_ms > entry.log_time_ms) {
    Fail(store, "log time goes back at entry " + ToString(index));
  }
  MembershipPtr membership;
  if (entry.type == raft::EntryType::kMembership) {
    membership = std::make_shared<raft::Membership>(*raft::DecodeMembership(entry.payload));
  }
  known_[index.value() - 1].push_back({id, prev_term, entry.log_time_ms, membership});
  return membership;
}

const RaftChecker::Configuration* RaftChecker::CommittedConfiguration(Index index) const {
  const auto after = std::find_if(configurations_.begin(), configurations_.end(),
                                  [&](const Configuration& each) { return each.index > index; });
  return after == configurations_.begin() ? nullptr : &*std::prev(after);
}

void RaftChecker::CutLog(StoreLog* log, Index from) {
  if (from > log->last()) return;
  log->entries.resize(from > log->prev ? from - log->prev - 1 : 0);
  while (!log->configurations.empty() && log->configurations.back().index >= from) {
    log->configurations.pop_back();
  }
  log->unsynced_cut = log->unsynced_cut ? std::min(log->unsynced_cut, from) : from;
}

void RaftChecker::TakeCut(StoreId store, StoreLog* log, const raft::Persist& persist) {
  const Index from = *persist.cut_from;
  const Term now = persist.hard_state ? persist.hard_state->term : log->written.term;
  const auto leader = leaders_.find(now);
  if (leader != leaders_.end() && leader->second == store) {
    Fail(store, "leader append-only: cuts its log from " + ToString(from) + " in term " +
                    ToString(now) + ", which it leads");
  }
  if (from <= committed()) {
    const EntryId* cut = log->At(from);
    if (cut != nullptr && *cut == committed_[from.value() - 1]) {
      Fail(store, "a committed entry is cut: " + ToString(from));
    }
  }
  if (from <= log->last()) report_->Count(Reached::kEntryCut);
  if (from + 3 <= log->last()) report_->Count(Reached::kLongSuffixCut);
  if (!log->configurations.empty() && log->configurations.back().index >= from) {
    report_->Count(Reached::kConfigurationCut);
  }
  CutLog(log, from);
}

void RaftChecker::TakeHardState(StoreId store, StoreLog* log, const raft::HardState& state) {
  if (state.term < log->written.term) Fail(store, "the term goes back");
  if (state.term == log->written.term && log->written.vote && state.vote != log->written.vote) {
    Fail(store, "a vote is changed in term " + ToString(log->written.term));
  }
  log->written = state;
}

void RaftChecker::TakeInstall(StoreId store, StoreLog* log, const raft::SnapshotMeta& snapshot) {
  const std::string name = "installs a snapshot up to " + ToString(snapshot.index);
  if (snapshot.index > committed() ||
      committed_[snapshot.index.value() - 1].term != snapshot.term) {
    return Fail(store, name + " of term " + ToString(snapshot.term) + ", which is not committed");
  }
  const Configuration* const members = CommittedConfiguration(snapshot.index);
  if (members == nullptr || members->index != snapshot.membership_index ||
      *members->membership != snapshot.membership) {
    return Fail(store, name + " with other members than are in force there");
  }
  const EntryId* held = log->At(snapshot.index);
  if (held != nullptr && held->term == snapshot.term) return;  // it goes on behind it
  if (snapshot.index < log->prev) {
    Fail(store, name + ", and its log begins behind that");
  }
  // By log matching the last one is enough: its predecessors are committed with it.
  const Index last = std::min(log->last(), committed());
  const Index common = std::min(log->last(), snapshot.index);
  const EntryId* replaced = log->At(common);
  if (replaced != nullptr && *replaced != committed_[common.value() - 1]) {
    report_->Count(Reached::kSnapshotOverConflict);
  }
  const EntryId* lost = last > snapshot.index ? log->At(last) : nullptr;
  if (lost != nullptr && *lost == committed_[last.value() - 1]) {
    Fail(store, name + ", and so loses the committed entry " + ToString(last));
  }
  if (!log->configurations.empty() &&
      log->configurations.back().index > snapshot.membership_index) {
    report_->Count(Reached::kInstallOverMembers);
  }
  StoreLog fresh;
  fresh.prev = snapshot.index;
  fresh.prev_term = snapshot.term;
  fresh.written = log->written;
  fresh.durable = log->durable;
  fresh.configurations = {*members};
  fresh.before = std::make_shared<StoreLog>(std::move(*log));
  *log = std::move(fresh);
}

void RaftChecker::OnAppend(StoreId store, const raft::Persist& persist) {
  StoreLog& log = logs_[store];
  if (persist.cut_from) TakeCut(store, &log, persist);
  if (persist.hard_state) TakeHardState(store, &log, *persist.hard_state);
  if (persist.install) TakeInstall(store, &log, persist.install->snapshot);
  for (const EntryPtr& entry : persist.entries) {
    if (entry->index != log.last() + 1) {
      return Fail(store,
                  "a gap in the log: " + ToString(entry->index) + " after " + ToString(log.last()));
    }
    if (entry->type == raft::EntryType::kBirthComplete) CheckBirthComplete(store, log, entry->term);
    const EntryId id = IdOf(*entry);
    const MembershipPtr members = Learn(store, *entry, id, log.LastTerm());
    if (members != nullptr) CheckChange(store, log, *entry);
    log.entries.push_back(id);
    if (members != nullptr) log.configurations.push_back({entry->index, members});
  }
}

// By the leader that proposes it: all who are members then are born, durably.
void RaftChecker::CheckBirthComplete(StoreId store, const StoreLog& log, Term term) {
  const auto leader = leaders_.find(term);
  if (leader == leaders_.end() || leader->second != store || log.configurations.empty()) return;
  for (const raft::Member& member : log.configurations.back().membership->members) {
    if (member.store == store || IsDurable(member.store, Index(1), Term(1))) continue;
    Fail(store, "calls birth complete, and " + member.name + " does not hold entry 1");
  }
}

void RaftChecker::OnBegunAgain() {
  logs_.clear();
  opened_.clear();
  lives_.clear();
  leaders_.clear();
  votes_.clear();
  known_.clear();
  committed_.clear();
  configurations_.clear();
  hashes_.clear();
}

void RaftChecker::OnSynced(StoreId store) {
  StoreLog& log = logs_[store];
  log.synced_through = log.last();
  log.unsynced_cut = Index();
  log.durable = log.written;
  log.before.reset();
}

void RaftChecker::OnLogRemoved(StoreId store) {
  if (opened_.contains(store)) Fail(store, "throws away a log that a process has run on");
  logs_.erase(store);
}

void RaftChecker::OnRecovered(StoreId store, const storage::RecoveredLog& recovered,
                              const std::vector<EntryPtr>& entries, Index applied) {
  opened_.insert(store);
  StoreLog& log = logs_[store];
  // An unsynced snapshot that did not survive: the log that it had replaced is there again.
  const bool undone = log.before != nullptr && recovered.first_index <= log.prev;
  const StoreLog was = undone ? *log.before : log;
  CheckRecovered(store, was, recovered, applied);
  // Before a log begins everything is committed.
  const Index prev = recovered.first_index - 1;
  if (prev > committed()) {
    return Fail(store, "the log begins behind what is committed: " + ToString(prev));
  }
  if (!entries.empty() && entries.back()->index != recovered.last_index) {
    Fail(store, "the log cannot be read to its end");
  }
  if (recovered.torn_bytes > 0) report_->Count(Reached::kTornTail);
  if (!recovered.cured.empty()) report_->Count(Reached::kTermCured);
  // From here on it is what was found, all of it durable.
  StoreLog fresh;
  fresh.prev = prev;
  if (prev) fresh.prev_term = committed_[prev.value() - 1].term;
  CheckFound(store, was, fresh.prev_term, entries);
  fresh.synced_through = recovered.last_index;
  fresh.written = fresh.durable = recovered.hard_state;
  const Configuration* const first = CommittedConfiguration(prev);
  if (first != nullptr) fresh.configurations.push_back(*first);
  for (const EntryPtr& entry : entries) {
    fresh.entries.push_back(IdOf(*entry));
    if (entry->type != raft::EntryType::kMembership) continue;
    const Known* known = Find(entry->index, entry->term);
    if (known != nullptr) fresh.configurations.push_back({entry->index, known->membership});
  }
  log = std::move(fresh);
  Life& life = lives_[store];
  life = Life();
  life.applied = applied;
  life.term = recovered.hard_state.term;
}

void RaftChecker::CheckRecovered(StoreId store, const StoreLog& was,
                                 const storage::RecoveredLog& recovered, Index applied) {
  if (recovered.last_index < was.SafeThrough()) {
    Fail(store, "recovery lost entries that were durable: the log ends at " +
                    ToString(recovered.last_index) + ", and " + ToString(was.SafeThrough()) +
                    " was synced");
  }
  if (recovered.first_index <= was.prev) {
    Fail(store, "recovery went back: the log begins at " + ToString(recovered.first_index) +
                    ", and had begun behind " + ToString(was.prev));
  }
  if (recovered.first_index > applied + 1) {
    Fail(store, "recovery lost entries in front: the log begins at " +
                    ToString(recovered.first_index) + ", and the state has applied " +
                    ToString(applied));
  }
  if (recovered.hard_state.term < was.durable.term ||
      (recovered.hard_state.term == was.durable.term && was.durable.vote &&
       recovered.hard_state.vote != was.durable.vote)) {
    Fail(store, "recovery lost a term or a vote that was durable: it has term " +
                    ToString(recovered.hard_state.term) + ", and " + ToString(was.durable.term) +
                    " was synced");
  }
}

void RaftChecker::CheckFound(StoreId store, const StoreLog& was, Term prev_term,
                             const std::vector<EntryPtr>& entries) {
  for (const EntryPtr& entry : entries) {
    const EntryId id = IdOf(*entry);
    const Known* known = Find(entry->index, entry->term);
    if (known == nullptr || known->id.hash != id.hash || known->prev_term != prev_term) {
      Fail(store, "recovery found an entry that nobody made: " + ToString(entry->index));
    }
    prev_term = entry->term;
    const EntryId* held = was.At(entry->index);
    if (entry->index <= was.SafeThrough() && held != nullptr && *held != id) {
      Fail(store, "recovery changed a durable entry: " + ToString(entry->index));
    }
  }
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
    return;
  }
  const bool over = std::any_of(
      configurations_.begin(), configurations_.end(),
      [&](const Configuration& each) { return each.index >= index && !each.membership->joint; });
  if (!over) {
    failure_->Fail("a change of the members was called done, and the joint phase that began at " +
                   ToString(index) + " is not over");
  }
}

}  // namespace quorate::sim
