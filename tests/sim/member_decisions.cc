#include "tests/sim/member_decisions.h"

namespace quorate::sim {

using Kind = raft::MemberStep::Kind;
using raft::ChangeStatus;

MemberDecisions::Asked MemberDecisions::Ask(const raft::MembershipChange& change,
                                            const std::function<bool(StoreId)>& caught_up) {
  Asked asked;
  asked.number = answers_;
  for (const raft::MemberStep& step : change.steps) {
    asked.all.push_back(step.store);
    ++asked_[step.store];
    if (step.kind == Kind::kDemote) {
      asked.demotes.push_back(step.store);
      continue;
    }
    if (step.kind == Kind::kRemove && caught_up(step.store)) asked.removes.push_back(step.store);
    if (step.kind == Kind::kAddLearner) {
      asked.adds.push_back(step.store);
      if (taken_out_.erase(step.store) > 0) asked.returns.push_back(step.store);
    }
    // Removed and added again it is a learner like any other.
    if (demoted_.erase(step.store) > 0) asked.pardons.push_back(step.store);
  }
  return asked;
}

void MemberDecisions::End(const Asked& asked, ChangeStatus status) {
  const auto insert = [&](const std::vector<StoreId>& stores, std::set<StoreId>* into) {
    for (const StoreId store : stores) {
      const auto latest = decided_.find(store);
      if (latest == decided_.end() || latest->second <= asked.number) into->insert(store);
    }
  };
  const bool maybe_done = status == ChangeStatus::kAccepted || status == ChangeStatus::kUnchanged ||
                          status == ChangeStatus::kUnknown;
  if (!maybe_done) {
    for (const StoreId store : asked.pardons) held_demoted_[store] = asked.number;
    for (const StoreId store : asked.returns) held_out_[store] = asked.number;
    return Settle(asked);
  }
  if (status == ChangeStatus::kAccepted) {
    insert(asked.demotes, &demoted_);
    insert(asked.removes, &taken_out_);
    for (const StoreId store : asked.adds) taken_out_.erase(store);
  }
  ++answers_;
  for (const StoreId store : asked.all) decided_[store] = answers_;
  Settle(asked);
}

void MemberDecisions::Settle(const Asked& asked) {
  const auto bring_back = [this](StoreId store, std::map<StoreId, uint64_t>* held,
                                 std::set<StoreId>* into) {
    const auto found = held->find(store);
    if (found == held->end()) return;
    if (decided_[store] <= found->second) into->insert(store);
    held->erase(found);
  };
  for (const StoreId store : asked.all) {
    if (--asked_[store] > 0) continue;  // another wish for it may be fulfilled at any time
    bring_back(store, &held_demoted_, &demoted_);
    bring_back(store, &held_out_, &taken_out_);
  }
}

}  // namespace quorate::sim
