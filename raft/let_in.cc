#include "raft/let_in.h"

#include <algorithm>
#include <iterator>

namespace quorate::raft {

LetInRefusal JudgeLetIn(ClusterId cluster, const IdentifyReply& reply) {
  if (reply.state == BirthState::kHalted) return LetInRefusal::kHalted;
  const ClusterId other = reply.cluster ? reply.cluster : reply.waits_for;
  if (other && other != cluster) return LetInRefusal::kOtherCluster;
  if (reply.cluster) return LetInRefusal::kNone;
  if (reply.finds_two_clusters) return LetInRefusal::kFindsTwo;
  if (reply.pledge.round != 0) return LetInRefusal::kPledged;
  const bool waits = other || reply.state == BirthState::kWaitingToJoin;
  return waits ? LetInRefusal::kNone : LetInRefusal::kWouldBeFounder;
}

bool WasTakenOut(const Membership& members, const IdentifyReply& reply) {
  return reply.cluster && reply.cluster == members.cluster && !reply.never_caught_up &&
         members.Find(reply.store) == nullptr;
}

std::vector<Member> NameHolders(const Membership& members, const IdentifyReply& reply) {
  std::vector<Member> holders;
  std::copy_if(members.members.begin(), members.members.end(), std::back_inserter(holders),
               [&](const Member& member) {
                 return member.name == reply.name && member.store != reply.store;
               });
  return holders;
}

std::vector<MemberStep> LetInSteps(const Membership& members, const IdentifyReply& reply,
                                   const std::string& asked_at) {
  std::vector<MemberStep> steps;
  for (const Member& holder : NameHolders(members, reply)) {
    if (holder.voter) continue;
    MemberStep& remove = steps.emplace_back();
    remove.kind = MemberStep::Kind::kRemove;
    remove.store = holder.store;
  }
  MemberStep& add = steps.emplace_back();
  add.kind = MemberStep::Kind::kAddLearner;
  add.store = reply.store;
  add.name = reply.name;
  add.address = reply.address.empty() ? asked_at : reply.address;
  return steps;
}

}  // namespace quorate::raft
