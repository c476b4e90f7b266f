#include "raft/core/quorum.h"

namespace quorate::raft {

Quorum::Quorum(const Membership& membership)
    : joint_(membership.joint),
      voters_(membership.Voters()),
      outgoing_(membership.OutgoingVoters()) {
  for (const Member& member : membership.members) {
    if (!member.learner()) all_.push_back(member.store);
  }
}

bool Quorum::IsVoter(StoreId store) const {
  return std::find(all_.begin(), all_.end(), store) != all_.end();
}

bool Quorum::IsSole(StoreId store) const {
  return Satisfied([store](StoreId voter) { return voter == store; });
}

bool Quorum::Satisfied(const std::function<bool(StoreId)>& yes) const {
  const auto majority = [&yes](const std::vector<StoreId>& voters) {
    const auto count = std::count_if(voters.begin(), voters.end(), yes);
    return !voters.empty() && static_cast<size_t>(count) >= QuorumSize(voters.size());
  };
  return majority(voters_) && (!joint_ || majority(outgoing_));
}

}  // namespace quorate::raft
