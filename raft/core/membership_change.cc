#include "raft/core/membership_change.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {
namespace {

std::vector<Member>::iterator Find(std::vector<Member>* members, StoreId store) {
  return std::find_if(members->begin(), members->end(),
                      [store](const Member& member) { return member.store == store; });
}

void Insert(std::vector<Member>* members, Member member) {
  const auto at = std::find_if(members->begin(), members->end(),
                               [&](const Member& other) { return other.store > member.store; });
  members->insert(at, std::move(member));
}

ChangeResult Refuse(ChangeStatus status, StoreId store, std::string reason = {}) {
  ChangeResult result;
  result.status = status;
  result.store = store;
  result.reason = std::move(reason);
  return result;
}

std::optional<ChangeResult> AddLearner(std::vector<Member>* members, const MemberStep& step) {
  if (!step.store) return Refuse(ChangeStatus::kInvalid, step.store, "a member needs a store id");
  if (step.name.empty()) return Refuse(ChangeStatus::kInvalid, step.store, "a member needs a name");
  const auto known = Find(members, step.store);
  if (known != members->end()) {
    if (known->name == step.name) return std::nullopt;  // repeated: as asked already
    return Refuse(ChangeStatus::kInvalid, step.store, "the store is a member of another name");
  }
  for (const Member& member : *members) {
    if (member.name == step.name && !member.voter) {
      return Refuse(ChangeStatus::kNameTaken, member.store);
    }
  }
  Insert(members, Member{step.store, step.name, step.address, false, false});
  return std::nullopt;
}

std::optional<ChangeResult> Apply(std::vector<Member>* members, const MemberStep& step) {
  if (step.kind == MemberStep::Kind::kAddLearner) return AddLearner(members, step);
  const auto member = Find(members, step.store);
  if (member == members->end()) return Refuse(ChangeStatus::kUnknownStore, step.store);
  switch (step.kind) {
    case MemberStep::Kind::kPromote: {
      if (member->voter) break;
      if (step.by_itself && member->demoted) {
        return Refuse(ChangeStatus::kInvalid, step.store, "it was demoted");
      }
      member->voter = true;
      member->demoted = false;
      const std::string name = member->name;
      std::erase_if(*members, [&](const Member& other) {
        return other.store != step.store && other.voter && other.name == name;
      });
      break;
    }
    case MemberStep::Kind::kDemote:
      member->voter = false;
      member->demoted = true;
      break;
    default:
      members->erase(member);
      break;
  }
  return std::nullopt;
}

}  // namespace

std::variant<Membership, ChangeResult> PlanChange(const Membership& from,
                                                  const MembershipChange& change) {
  CHECK(!from.joint);
  Membership to = from;
  for (const MemberStep& step : change.steps) {
    if (auto refused = Apply(&to.members, step)) return *std::move(refused);
  }
  if (const char* broken = BrokenRule(to)) {
    return Refuse(ChangeStatus::kInvalid, StoreId(), broken);
  }
  if (to.Voters().empty()) return Refuse(ChangeStatus::kNoVoters, StoreId());
  return to;
}

Membership EnterChange(const Membership& from, const Membership& to) {
  if (from.Voters() == to.Voters()) return to;
  Membership joint = to;
  joint.joint = true;
  for (const Member& old : from.members) {
    if (!old.voter) continue;
    const auto kept = Find(&joint.members, old.store);
    if (kept == joint.members.end()) {
      Member leaving = old;
      leaving.voter = false;
      leaving.outgoing_voter = true;
      Insert(&joint.members, std::move(leaving));
    } else {
      kept->outgoing_voter = true;
      kept->demoted = !kept->voter;
    }
  }
  return joint;
}

Membership LeaveJoint(const Membership& joint) {
  CHECK(joint.joint);
  Membership after = joint;
  after.joint = false;
  std::erase_if(after.members, [](const Member& member) {
    return member.outgoing_voter && !member.voter && !member.demoted;
  });
  for (Member& member : after.members) member.outgoing_voter = false;
  return after;
}

// --- The leader ---

// Within this a voter counts as answering. Longer than a heartbeat or two that a busy machine
// loses; nobody is hurt by a voter that was lost so lately.
bool Core::Impl::AnswersLately(StoreId store) const {
  if (store == options_.self) return true;
  const auto it = progress_.find(store);
  return it != progress_.end() && !it->second.lost_data && it->second.last_contact &&
         *it->second.last_contact + options_.election_timeout_max > now_;
}

// Dissertation 4.2.1: replication to a new server goes in rounds, each up to the log's end at its
// beginning. When a round takes no longer than an election timeout, adding the server makes the
// cluster wait for no longer than that.
void Core::Impl::NoteRound(Progress* peer) {
  if (peer->match < peer->round_end) return;
  peer->caught_up = now_ - peer->round_began <= options_.election_timeout_min;
  peer->round_began = now_;
  peer->round_end = window_.last_index();
}

bool Core::Impl::CaughtUp(const Progress& peer) const {
  return peer.caught_up && PeerActive(peer) && !peer.lost_data &&
         now_ - peer.round_began <= options_.election_timeout_min;
}

std::optional<ChangeResult> Core::Impl::RefuseChangeNow(Term in_term) const {
  ChangeResult result;
  result.term = term_;
  result.index = membership_index();
  if (role_ != Role::kLeader || (in_term != Term() && in_term != term_)) {
    result.status = ChangeStatus::kNotLeader;
  } else if (commit_ < term_start_) {
    // Until then an earlier leader's change may still come true: two of them, each on a majority of
    // the same old membership, could be disjoint (the bug of 2015 in single-server changes).
    result.status = ChangeStatus::kNotReady;
  } else if (membership().joint || membership_index() > commit_) {
    result.status = ChangeStatus::kInProgress;
  } else if (transfer_) {
    result.status = ChangeStatus::kTransferring;
  } else {
    return std::nullopt;
  }
  return result;
}

// A name belongs to the store that answers to it: a new one may take it only from a silent voter,
// or when the change itself removes that one by its id.
std::optional<ChangeResult> Core::Impl::RefuseName(const Membership& from, const Member& member,
                                                   const MembershipChange& change) const {
  for (const Member& other : from.members) {
    if (other.store == member.store || other.name != member.name || !other.voter) continue;
    const bool removed =
        std::any_of(change.steps.begin(), change.steps.end(), [&](const MemberStep& step) {
          return step.kind == MemberStep::Kind::kRemove && step.store == other.store;
        });
    if (!removed && AnswersLately(other.store)) {
      return Refuse(ChangeStatus::kNameTaken, other.store);
    }
  }
  return std::nullopt;
}

// What depends on how the members do, not only on who they are.
std::optional<ChangeResult> Core::Impl::RefuseChange(const Membership& from, const Membership& to,
                                                     const MembershipChange& change) const {
  for (const Member& member : to.members) {
    const Member* const before = from.Find(member.store);
    const bool promoted = member.voter && (before == nullptr || !before->voter);
    if (before != nullptr && !promoted) continue;
    if (auto refused = RefuseName(from, member, change)) return refused;
    const auto it = progress_.find(member.store);
    if (!promoted || (it != progress_.end() && CaughtUp(it->second))) continue;
    ChangeResult result = Refuse(ChangeStatus::kNotCaughtUp, member.store);
    if (it != progress_.end()) result.match = it->second.match;
    result.last_index = window_.last_index();
    return result;
  }
  const std::vector<StoreId> voters = to.Voters();
  if (change.force || voters == from.Voters()) return std::nullopt;
  ChangeResult result = Refuse(ChangeStatus::kWouldLoseQuorum, StoreId());
  result.voters = voters.size();
  result.needed = QuorumSize(voters.size());
  result.reachable = static_cast<size_t>(std::count_if(
      voters.begin(), voters.end(), [this](StoreId voter) { return AnswersLately(voter); }));
  if (result.reachable >= result.needed) return std::nullopt;
  return result;
}

ChangeResult Core::Impl::ProposeMembership(const MembershipChange& change, Instant now) {
  Advance(now);
  if (auto refused = RefuseChangeNow(change.in_term)) return *std::move(refused);
  const Membership from = membership();
  auto planned = PlanChange(from, change);
  if (auto* refused = std::get_if<ChangeResult>(&planned)) {
    refused->term = term_;
    return std::move(*refused);
  }
  const Membership& to = std::get<Membership>(planned);
  ChangeResult result;
  result.term = term_;
  result.index = membership_index();
  if (to == from) {
    result.status = ChangeStatus::kUnchanged;
    return result;
  }
  if (auto refused = RefuseChange(from, to, change)) {
    refused->term = term_;
    return *std::move(refused);
  }
  const Membership entry = EnterChange(from, to);
  if (const char* broken = BrokenRule(entry)) {
    // For instance too many members while both halves are in it.
    return Refuse(ChangeStatus::kInvalid, StoreId(), broken);
  }
  AppendOwn(EntryType::kMembership, EncodeMembership(entry), 0);
  result.index = membership_index();
  CheckInvariants();
  return result;
}

// Called when the commit index has moved. Whoever leads then ends a joint phase, also one that an
// earlier leader began.
void Core::Impl::ContinueMembershipChange() {
  if (role_ != Role::kLeader || commit_ < term_start_ || membership_index() > commit_) return;
  if (membership().joint) {
    AppendOwn(EntryType::kMembership, EncodeMembership(LeaveJoint(membership())), 0);
  } else if (!quorum_.IsVoter(options_.self)) {
    LeaveOffice();
  }
}

// --- Who takes part ---

void Core::Impl::MembershipChanged() {
  quorum_ = Quorum(membership());
  NoteStanding();
  if (role_ != Role::kLeader) return;
  quorum_since_ = now_;
  std::map<StoreId, Progress> kept;
  for (const Member& member : membership().members) {
    if (member.store == options_.self) continue;
    const auto it = progress_.find(member.store);
    if (it != progress_.end()) {
      it->second.leaving.reset();
      kept.insert(std::move(*it));
      progress_.erase(it);
    } else {
      kept[member.store].BecomeProbe(window_.last_index() + 1, window_.last_term());
      kept[member.store].round_began = now_;
      kept[member.store].round_end = window_.last_index();
    }
  }
  // Who leaves is served until it knows: otherwise it would ask for votes for ever.
  for (auto& [store, peer] : progress_) {
    if (!peer.leaving) peer.leaving = {membership_index(), now_, std::nullopt};
    kept.emplace(store, std::move(peer));
  }
  progress_ = std::move(kept);
}

void Core::Impl::DropLeft() {
  std::erase_if(progress_, [this](const auto& item) {
    const auto& leaving = item.second.leaving;
    if (!leaving) return false;
    const auto& acked = item.second.acked_sent_at;
    const bool knows = leaving->told_at && acked && *acked > *leaving->told_at;
    return knows || leaving->since + 10 * options_.election_timeout_max <= now_;
  });
}

void Core::Impl::TrimMemberships() {
  // Only what is not committed can still be reverted.
  if (memberships_.size() < 2 || memberships_[1].first > commit_) return;
  while (memberships_.size() > 1 && memberships_[1].first <= commit_) {
    memberships_.erase(memberships_.begin());
  }
  NoteStanding();
}

// A server that is not part of its own latest membership still campaigns while that may be
// uncommitted: it may be the only one whose log can win (dissertation 4.2.2).
void Core::Impl::NoteStanding() {
  may_campaign_ = false;
  for (const auto& [index, membership] : memberships_) {
    const Member* member = membership.Find(options_.self);
    may_campaign_ = may_campaign_ || (member != nullptr && !member->learner());
    was_member_ = was_member_ || member != nullptr;
  }
}

// Whether the committed membership, as far as it is known here, says that `store` is out, and the
// store's log ends before it.
bool Core::Impl::IsRemoved(StoreId store, Index its_last_index) const {
  if (memberships_.empty()) return false;
  const auto& [index, committed] = memberships_.front();
  return index <= commit_ && its_last_index < index && committed.Find(store) == nullptr;
}

bool Core::Impl::Removed() const {
  if (leader_) return false;
  if (told_removed_) return true;
  return was_member_ && memberships_.size() == 1 && membership_index() <= commit_ &&
         membership().Find(options_.self) == nullptr;
}

}  // namespace quorate::raft
