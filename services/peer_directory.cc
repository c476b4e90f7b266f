#include "services/peer_directory.h"

#include <algorithm>
#include <utility>

namespace quorate::services {

void PeerDirectory::Learn(StoreId store, const std::string& address, Source source) {
  std::lock_guard lock(mutex_);
  LearnLocked(store, address, source);
}

void PeerDirectory::LearnLocked(StoreId store, const std::string& address, Source source) {
  if (!store || address.empty() || address.size() > kAddressBytesMax) return;
  auto found = known_.find(store);
  if (found == known_.end()) {
    if (known_.size() >= kStoresMax) {
      const auto oldest =
          std::min_element(known_.begin(), known_.end(), [](const auto& a, const auto& b) {
            return std::pair(a.second.member, a.second.heard) <
                   std::pair(b.second.member, b.second.heard);
          });
      known_.erase(oldest);
    }
    known_[store] = {address, source, ++heard_, false};
    return;
  }
  found->second.heard = ++heard_;
  if (source == Source::kHint && found->second.source == Source::kDirect) return;
  found->second.address = address;
  found->second.source = source;
}

void PeerDirectory::LearnMembership(const raft::Membership& membership) {
  std::lock_guard lock(mutex_);
  for (auto& [store, known] : known_) known.member = membership.Find(store) != nullptr;
  for (const raft::Member& member : membership.members) {
    LearnLocked(member.store, member.address, Source::kHint);
    const auto found = known_.find(member.store);
    if (found != known_.end()) found->second.member = true;
  }
}

std::optional<std::string> PeerDirectory::Find(StoreId store) const {
  std::lock_guard lock(mutex_);
  const auto found = known_.find(store);
  if (found == known_.end()) return std::nullopt;
  return found->second.address;
}

std::vector<std::pair<StoreId, std::string>> PeerDirectory::All() const {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<StoreId, std::string>> all;
  all.reserve(known_.size());
  for (const auto& [store, known] : known_) all.emplace_back(store, known.address);
  return all;
}

}  // namespace quorate::services
