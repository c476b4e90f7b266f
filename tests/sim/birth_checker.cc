#include "tests/sim/birth_checker.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace quorate::sim {

void BirthChecker::Fail(const std::string& name, const std::string& what) {
  failure_->Fail("birth: " + name + ": " + what);
}

void BirthChecker::SetFounders(std::vector<std::string> names) {
  founders_ = std::move(names);
  std::sort(founders_.begin(), founders_.end());
}

void BirthChecker::OnRecorded(const Machine& machine, StoreId id,
                              const storage::Identity& identity) {
  Store& store = stores_[id];
  store.name = machine.name;
  const auto decoded =
      identity.birth.empty() ? raft::BirthRecord() : raft::DecodeBirthRecord(identity.birth);
  if (!decoded) return Fail(machine.name, "its record cannot be read");
  const raft::BirthRecord& record = *decoded;
  JudgeRecord(store, record);
  store.pledge = record.reported();
  if (record.pledge) {
    const auto [known, first] = proposals_.emplace(record.pledge->pledge(), *record.pledge);
    if (!first && known->second != *record.pledge) {
      Fail(machine.name, "one round of one proposer means two things");
    }
  }
  const bool newly = !store.cluster && identity.cluster;
  store.cluster = identity.cluster;
  store.joined = static_cast<bool>(record.joined);
  store.payload = record.payload;
  if (newly) JudgeBorn(store);
}

void BirthChecker::JudgeRecord(const Store& store, const raft::BirthRecord& record) {
  if (record.reported() < store.pledge && !record.joined) Fail(store.name, "its pledge goes back");
  if (record.joined && record.pledge) Fail(store.name, "is let in, and pledged");
  if (!store.cluster) return;
  if (!record.born) return Fail(store.name, "forgets that it was born");
  if (record.cluster() != store.cluster) return Fail(store.name, "changes its cluster");
  if (record.payload != store.payload || static_cast<bool>(record.joined) != store.joined) {
    Fail(store.name, "is born twice");
  }
}

void BirthChecker::JudgeBorn(const Store& store) {
  if (complete_ && store.cluster != complete_) {
    return Fail(store.name, "is in cluster " + ToHex(store.cluster) + ", and the birth of " +
                                ToHex(complete_) + " is complete");
  }
  for (const auto& [id, other] : stores_) {
    if (other.gone || !other.cluster || other.cluster == store.cluster) continue;
    return Fail(store.name, "is in cluster " + ToHex(store.cluster) + ", and " + other.name +
                                " is in " + ToHex(other.cluster));
  }
  if (!store.joined) return JudgeFounders(store);
  if (!complete_) Fail(store.name, "is let in before birth is complete");
}

void BirthChecker::JudgeFounders(const Store& store) {
  const auto membership = raft::DecodeMembership(store.payload);
  if (!membership || membership->cluster != store.cluster) {
    return Fail(store.name, "its first entry is of no cluster, or of another one");
  }
  std::vector<std::string> names;
  for (const raft::Member& member : membership->members) {
    names.push_back(member.name);
    const auto known = stores_.find(member.store);
    if (known == stores_.end() || known->second.name != member.name) {
      Fail(store.name, "is born with a store that " + member.name + " never had");
    }
    if (!member.voter) Fail(store.name, "is born with a founder that has no vote");
  }
  std::sort(names.begin(), names.end());
  if (names != founders_) Fail(store.name, "is born with others than the founders");
  for (const auto& [id, other] : stores_) {
    if (other.cluster == store.cluster && !other.joined && other.payload != store.payload) {
      Fail(store.name, "has another first entry than " + other.name);
    }
  }
}

void BirthChecker::OnStatus(const Machine& machine, const raft::BirthStatus& status) {
  if (!written_) return;
  for (const std::string& line : status.lacks) {
    if (line.find("begin again") == std::string::npos ||
        line.find("in a minute") != std::string::npos) {
      continue;
    }
    Fail(machine.name, "says, after a client's write was applied: " + line);
  }
}

void BirthChecker::OnAppend(const raft::Persist& persist) {
  if (completing_) return;
  completing_ = std::any_of(persist.entries.begin(), persist.entries.end(), [](const auto& entry) {
    return entry->type == raft::EntryType::kBirthComplete;
  });
}

void BirthChecker::OnApplied(StoreId id, const std::vector<raft::EntryPtr>& entries) {
  if (written_) return;
  const Store& store = stores_[id];
  for (const raft::EntryPtr& entry : entries) {
    if (entry->type == raft::EntryType::kBirthComplete && !complete_) complete_ = store.cluster;
    if (entry->type != raft::EntryType::kCommand) continue;
    if (!complete_) Fail(store.name, "applies a client's write before birth is complete");
    written_ = true;
  }
}

bool BirthChecker::AnybodyBorn() const {
  return std::any_of(stores_.begin(), stores_.end(),
                     [](const auto& item) { return !item.second.gone && item.second.cluster; });
}

void BirthChecker::OnWiped(StoreId id) {
  const auto found = stores_.find(id);
  if (found == stores_.end()) return;  // nothing was ever durable on it
  found->second.gone = true;
  const bool founder = std::binary_search(founders_.begin(), founders_.end(), found->second.name);
  // With the only one that was born birth goes, too, as if it had never been.
  if (founder) lost_since_birth_ = AnybodyBorn();
}

void BirthChecker::OnBegunAgain() {
  CHECK(!complete_ && !written_);
  completing_ = lost_since_birth_ = false;
}

bool BirthChecker::MayLose(const Machine& machine) const {
  if (!std::binary_search(founders_.begin(), founders_.end(), machine.name)) return true;
  if (!AnybodyBorn()) return true;
  // BirthComplete may be committed, and nobody knows.
  return !completing_ && !lost_since_birth_;
}

}  // namespace quorate::sim
