#include "raft/autopilot.h"

#include <algorithm>

#include "raft/node.h"

namespace quorate::raft {
namespace {

const PeerView* FindPeer(const NodeStatus& status, StoreId store) {
  const auto found = std::find_if(status.peers.begin(), status.peers.end(),
                                  [store](const PeerView& peer) { return peer.store == store; });
  return found != status.peers.end() ? &*found : nullptr;
}

// By the core's judgement.
bool MayBePromoted(const NodeStatus& status, StoreId store) {
  const PeerView* const peer = FindPeer(status, store);
  return peer != nullptr && peer->caught_up;
}

}  // namespace

std::optional<AutopilotStep> Autopilot::Next(Instant now, const NodeStatus& status,
                                             const std::vector<Newcomer>& newcomers) {
  NoteRemovals(status);
  const bool leads = status.role == Role::kLeader && status.leader_ready && status.birth_complete &&
                     status.membership != nullptr;
  const Term term = leads ? status.term : Term();
  if (term != term_) {
    term_ = term;
    leads_since_ = now;
    healthy_since_.clear();
    failed_.clear();
  }
  not_done_.clear();
  if (!leads) return std::nullopt;
  Observe(now, status);
  Explain(now, status, newcomers);
  const bool settled = !status.membership->joint && status.membership_index <= status.commit;
  if (under_way_ || !settled || status.transfer_target) return std::nullopt;
  std::optional<AutopilotStep> step = Promote(now, status);
  if (!step) step = LetIn(now, status, newcomers);
  under_way_ = step.has_value();
  return step;
}

void Autopilot::OnEnded(const AutopilotStep& step, const std::string& why, Instant now) {
  under_way_ = false;
  if (why.empty()) {
    failed_.erase(step.store);
    return;
  }
  Failed& failed = failed_[step.store];
  failed.pause = failed.pause == Duration() ? kPauseMin : std::min(2 * failed.pause, kPauseMax);
  failed.until = now + failed.pause;
  failed.kind = step.kind;
  failed.why = why;
}

void Autopilot::NoteRemovals(const NodeStatus& status) {
  if (status.membership == nullptr || status.membership->joint ||
      status.membership_index > status.commit) {
    return;
  }
  std::set<StoreId> members;
  for (const Member& member : status.membership->members) members.insert(member.store);
  if (members == members_) return;
  for (const StoreId store : members_) {
    if (!members.contains(store)) removed_.push_back(store);
  }
  std::erase_if(removed_, [&](StoreId store) { return members.contains(store); });
  while (removed_.size() > kRemovedMax) removed_.pop_front();
  members_ = std::move(members);
}

bool Autopilot::Silent(Instant now, const NodeStatus& status, StoreId store) const {
  if (store == status.self) return false;
  const PeerView* const peer = FindPeer(status, store);
  // Before this node led nobody had a reason to answer it.
  Instant heard = leads_since_;
  if (peer != nullptr && peer->last_contact) heard = std::max(heard, *peer->last_contact);
  return now - heard >= options_.contact;
}

bool Autopilot::Healthy(Instant now, const NodeStatus& status, const PeerView& peer) const {
  const uint64_t commit = status.commit.value(), match = peer.match.value();
  return peer.last_contact && now - *peer.last_contact <= options_.contact && !peer.lost_data &&
         !peer.needs_snapshot && !peer.snapshot_sent &&
         (commit <= match || commit - match <= options_.lag_max);
}

void Autopilot::Observe(Instant now, const NodeStatus& status) {
  std::map<StoreId, Instant> since;
  for (const PeerView& peer : status.peers) {
    if (!Healthy(now, status, peer)) continue;
    const auto known = healthy_since_.find(peer.store);
    since.emplace(peer.store, known != healthy_since_.end() ? known->second : now);
  }
  healthy_since_ = std::move(since);
  // Who is gone for longer than any pause is forgotten, so that the table has a bound.
  std::erase_if(failed_, [now](const auto& item) { return item.second.until + kPauseMax < now; });
}

bool Autopilot::Stable(StoreId store, Instant now) const {
  const auto since = healthy_since_.find(store);
  return since != healthy_since_.end() && now - since->second >= options_.stabilisation;
}

bool Autopilot::Pauses(StoreId store, Instant now) const {
  const auto failed = failed_.find(store);
  return failed != failed_.end() && now < failed->second.until;
}

std::optional<AutopilotStep> Autopilot::Promote(Instant now, const NodeStatus& status) const {
  const std::vector<Member>& members = status.membership->members;
  const size_t voters = status.membership->Voters().size();
  const Member* best = nullptr;
  bool replaces = false;
  for (const Member& member : members) {
    if (member.voter || member.demoted || !Stable(member.store, now) ||
        !MayBePromoted(status, member.store) || Pauses(member.store, now)) {
      continue;
    }
    const auto holder = std::find_if(members.begin(), members.end(), [&](const Member& other) {
      return other.voter && other.name == member.name;
    });
    if (holder != members.end()) {
      if (!Silent(now, status, holder->store)) continue;
      if (!replaces) best = &member;
      replaces = true;
    } else if (best == nullptr && voters < options_.voters_max) {
      best = &member;
    }
  }
  if (best == nullptr) return std::nullopt;
  return AutopilotStep{AutopilotStep::Kind::kPromote, best->store, best->name, ""};
}

std::string Autopilot::WhyNot(Instant now, const NodeStatus& status, const Newcomer& newcomer,
                              const std::vector<Newcomer>& newcomers) const {
  const auto store = [](StoreId id) { return "store " + ToHex(id); };
  if (newcomer.was_member ||
      std::find(removed_.begin(), removed_.end(), newcomer.store) != removed_.end()) {
    return "it was removed: to bring it back run `quorate member add " + newcomer.asked_at + "`";
  }
  for (const Newcomer& other : newcomers) {
    if (other.name != newcomer.name || other.store == newcomer.store || other.was_member) continue;
    return store(other.store) + " at " + other.asked_at + " calls itself " + other.name +
           ", too: stop one of the two, or give it another nodeId and an empty data directory";
  }
  bool replaces = false;
  for (const Member& member : status.membership->members) {
    if (member.name != newcomer.name) continue;
    replaces = true;
    if (Silent(now, status, member.store)) continue;
    return "member " + member.name + ", " + store(member.store) +
           ", has that name and was heard of lately: it takes its place when that one is silent; "
           "if both are to be there, give one another nodeId";
  }
  // Room for both halves of a change in which all of them take part.
  const size_t room = kMembersMax / 2;
  if (!replaces && status.membership->members.size() >= room) {
    return "there are " + std::to_string(room) +
           " members already, the most there can be: remove one (`quorate member remove`)";
  }
  return "";
}

std::optional<AutopilotStep> Autopilot::LetIn(Instant now, const NodeStatus& status,
                                              const std::vector<Newcomer>& newcomers) const {
  if (!options_.lets_in) return std::nullopt;
  for (const Newcomer& newcomer : newcomers) {
    if (status.membership->Find(newcomer.store) != nullptr || Pauses(newcomer.store, now) ||
        !WhyNot(now, status, newcomer, newcomers).empty()) {
      continue;
    }
    return AutopilotStep{AutopilotStep::Kind::kLetIn, newcomer.store, newcomer.name,
                         newcomer.asked_at};
  }
  return std::nullopt;
}

// What failed is told until it is tried again and for a while after: the try may take its time.
void Autopilot::ExplainFailed(AutopilotStep::Kind kind, StoreId store, const std::string& name) {
  const auto failed = failed_.find(store);
  if (failed != failed_.end() && failed->second.kind == kind) {
    not_done_.push_back({kind, store, name, failed->second.why});
  }
}

void Autopilot::Explain(Instant now, const NodeStatus& status,
                        const std::vector<Newcomer>& newcomers) {
  for (const Member& member : status.membership->members) {
    if (!member.voter) ExplainFailed(AutopilotStep::Kind::kPromote, member.store, member.name);
  }
  if (!options_.lets_in) return;
  constexpr auto kLetIn = AutopilotStep::Kind::kLetIn;
  for (const Newcomer& newcomer : newcomers) {
    if (status.membership->Find(newcomer.store) != nullptr) continue;
    std::string why = WhyNot(now, status, newcomer, newcomers);
    if (why.empty()) {
      ExplainFailed(kLetIn, newcomer.store, newcomer.name);
    } else {
      not_done_.push_back({kLetIn, newcomer.store, newcomer.name, std::move(why)});
    }
  }
}

}  // namespace quorate::raft
