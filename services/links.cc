#include "services/links.h"

#include <algorithm>

namespace quorate::services {
namespace {

// nullptr: nobody has said.
const Link* FindLink(const LinksByStore& links, StoreId from, StoreId to) {
  const auto reporter = links.find(from);
  if (reporter == links.end()) return nullptr;
  const auto found = std::find_if(reporter->second.begin(), reporter->second.end(),
                                  [to](const Link& link) { return link.to == to; });
  return found != reporter->second.end() ? &*found : nullptr;
}

}  // namespace

void Links::SetMembers(const raft::Membership& membership, Instant now) {
  std::lock_guard lock(mutex_);
  std::erase_if(members_, [&](const auto& item) { return membership.Find(item.first) == nullptr; });
  for (const raft::Member& member : membership.members) {
    if (member.store == self_) continue;
    const auto [known, added] = members_.try_emplace(member.store);
    if (added) known->second.since = now;
  }
}

void Links::OnAnswer(StoreId from, Duration round_trip, std::vector<Link> theirs, Instant now) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(from);
  if (found == members_.end()) return;
  found->second.answered = now;
  found->second.round_trip = round_trip;
  Report(&found->second, std::move(theirs), now);
}

void Links::OnQuestion(StoreId from, std::vector<Link> theirs, Instant now) {
  std::lock_guard lock(mutex_);
  const auto found = members_.find(from);
  if (found != members_.end()) Report(&found->second, std::move(theirs), now);
}

void Links::Report(Member* member, std::vector<Link> theirs, Instant now) {
  // As far as it is about members: whatever a stranger sends has a bound.
  std::erase_if(
      theirs, [this](const Link& link) { return link.to != self_ && !members_.contains(link.to); });
  std::sort(theirs.begin(), theirs.end(),
            [](const Link& one, const Link& other) { return one.to < other.to; });
  theirs.erase(std::unique(theirs.begin(), theirs.end(),
                           [](const Link& one, const Link& other) { return one.to == other.to; }),
               theirs.end());
  member->reported = now;
  member->theirs = std::move(theirs);
}

std::vector<Link> Links::OwnLocked(Instant now) const {
  std::vector<Link> own;
  for (const auto& [store, member] : members_) {
    const bool reached = member.answered != Instant() && now - member.answered <= kFresh;
    if (!reached && now - member.since <= kFresh) continue;
    own.push_back({store, reached, reached ? member.round_trip : Duration()});
  }
  return own;
}

std::vector<Link> Links::Own(Instant now) const {
  std::lock_guard lock(mutex_);
  return OwnLocked(now);
}

LinksByStore Links::All(Instant now) const {
  std::lock_guard lock(mutex_);
  LinksByStore all;
  all.emplace(self_, OwnLocked(now));
  for (const auto& [store, member] : members_) {
    if (member.reported == Instant() || now - member.reported > kFresh) continue;
    all.emplace(store, member.theirs);
  }
  return all;
}

std::vector<std::string> OneWayLinks(const LinksByStore& links,
                                     const raft::Membership& membership) {
  std::vector<std::string> sentences;
  for (const raft::Member& from : membership.members) {
    for (const raft::Member& to : membership.members) {
      const Link* const there = FindLink(links, from.store, to.store);
      const Link* const back = FindLink(links, to.store, from.store);
      if (there == nullptr || back == nullptr || !there->reached || back->reached) continue;
      sentences.push_back("one-way link: " + from.name + " reaches " + to.name + ", " + to.name +
                          " does not reach " + from.name +
                          ": see that nothing between them refuses connections to the peer port "
                          "of " +
                          from.name);
    }
  }
  return sentences;
}

}  // namespace quorate::services
