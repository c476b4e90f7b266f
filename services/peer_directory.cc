#include "services/peer_directory.h"

namespace quorate::services {

void PeerDirectory::Learn(StoreId store, const std::string& address, Source source) {
  if (!store || address.empty() || address.size() > kAddressBytesMax) return;
  std::lock_guard lock(mutex_);
  const auto found = known_.find(store);
  if (found == known_.end()) {
    if (known_.size() < kStoresMax) known_[store] = {address, source};
    return;
  }
  if (source == Source::kHint && found->second.source == Source::kDirect) return;
  found->second = {address, source};
}

void PeerDirectory::LearnMembership(const raft::Membership& membership) {
  for (const raft::Member& member : membership.members) {
    Learn(member.store, member.address, Source::kHint);
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
