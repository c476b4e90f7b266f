// What discovery finds, and who is told of it.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "services/logging.h"
#include "services/server_impl.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

constexpr Duration kOwnPlaceAsked = std::chrono::minutes(1);

}  // namespace

void Server::Impl::MakeDiscovery() {
  discovery::Discovery::Options options;
  if (configuration_.raft) {
    const RaftConfiguration& raft = *configuration_.raft;
    for (const Peer& peer : raft.peers) options.peers.push_back({peer.address, peer.node_id});
    options.dns = raft.discovery_dns;
    // Everybody listens for peers on the same port, but where SRV records say another one.
    if (auto own = ParseHostPort(raft.bind_address); own.ok()) options.resolve.port = own->port;
  }
  discovery_ = std::make_unique<discovery::Discovery>(
      std::move(options), discovery::Discovery::Ports{
                              .now = BootNow,
                              .changed =
                                  [this](std::vector<discovery::PeerAddress> found, bool whole) {
                                    if (by_dns()) {
                                      std::string text;
                                      for (const discovery::PeerAddress& peer : found) {
                                        text += (text.empty() ? "" : " ") + peer.address;
                                      }
                                      LogInfo("discovery shows", {{"count", found.size()},
                                                                  {"addresses", text},
                                                                  {"whole", whole ? "yes" : "no"}});
                                    }
                                    {
                                      std::lock_guard lock(mutex_);
                                      discovered_ = std::move(found);
                                      discovered_whole_ = whole;
                                    }
                                    AskAround();
                                  },
                              .failed =
                                  [this](const absl::Status& status) {
                                    if (status.ok()) {
                                      LogInfo("discovery works again", {});
                                    } else {
                                      LogWarning("discovery fails; known peers are kept",
                                                 {{"error", std::string(status.message())}});
                                    }
                                    std::lock_guard lock(mutex_);
                                    discovery_failure_ = std::string(status.message());
                                  }});
}

std::vector<raft::PeerAddress> Server::Impl::MemberAddresses() const {
  std::vector<raft::PeerAddress> addresses;
  Engine* const engine = this->engine();
  const auto status = engine != nullptr ? engine->node()->status() : nullptr;
  if (status == nullptr || status->membership == nullptr) return addresses;
  // Static peers are all that there is until the cluster is born; then others may come by hand.
  if (!by_dns() && !status->birth_complete) return addresses;
  const bool just_started = BootNow() - serving_since_ < kOwnPlaceAsked;
  for (const raft::Member& member : status->membership->members) {
    // Where this store was last: the original of a copied directory may be there. Later that place
    // is somebody else's.
    if (member.store == identity_.store && !just_started) continue;
    if (const auto address = addresses_.Find(member.store)) addresses.push_back({*address, ""});
  }
  return addresses;
}

void Server::Impl::AskAround() {
  // From here to the end, so that of two threads the later one has the last word.
  std::lock_guard ask_lock(ask_mutex_);
  // First of all the members: birth takes so many addresses and no more.
  Asked ask;
  ask.addresses = MemberAddresses();
  bool known = !ask.addresses.empty();
  {
    std::lock_guard lock(mutex_);
    if (discovered_) {
      known = true;
      ask.whole = discovered_whole_;
      for (const discovery::PeerAddress& peer : *discovered_) {
        const bool there = std::any_of(ask.addresses.begin(), ask.addresses.end(),
                                       [&](const auto& a) { return a.address == peer.address; });
        if (!there) ask.addresses.push_back({peer.address, peer.name});
      }
    }
  }
  if (!known || ask == asked_) return;
  asked_ = ask;
  birth_->SetAddresses(std::move(ask.addresses), ask.whole);
}

// The two directions are heard of at different times: what shows for a moment when a node stops,
// starts or wakes up is nothing. One that stays so is named.
void Server::Impl::NameOneWayLinks(Instant now, const raft::Membership& membership) {
  const bool stood_still = now - links_looked_at_ > Links::kFresh / 2;
  links_looked_at_ = now;
  std::map<std::string, Instant> seen;
  std::vector<std::string> named;
  for (const std::string& sentence : OneWayLinks(links_->All(now), membership)) {
    const auto before = one_way_since_.find(sentence);
    const bool known = before != one_way_since_.end() && !stood_still;
    const Instant since = known ? before->second : now;
    seen.emplace(sentence, since);
    if (now - since > Links::kFresh) named.push_back(sentence);
  }
  one_way_since_ = std::move(seen);
  {
    std::lock_guard lock(mutex_);
    if (named == one_way_links_) return;
    one_way_links_ = named;
  }
  for (const std::string& sentence : named) LogWarning(sentence, {});
  if (named.empty()) LogInfo("no link is known to work one way only", {});
}

raft::BirthStatus Server::Impl::BirthView() const {
  raft::BirthStatus birth = birth_->Status();
  if (birth.state == raft::BirthState::kComplete) return birth;
  std::lock_guard lock(mutex_);
  if (!discovery_failure_.empty()) {
    birth.lacks.insert(birth.lacks.begin(),
                       "discovery fails (controlPlane.raft.discovery.dns): " + discovery_failure_);
  }
  return birth;
}

}  // namespace quorate::services
