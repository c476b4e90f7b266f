#include "raft/duplicate.h"

#include <algorithm>

namespace quorate::raft {

void ClaimTable::Note(StoreId store, uint64_t nonce, const std::string& address, Instant now) {
  if (!store || address.empty()) return;
  if (claims_.size() >= kStoresMax && !claims_.contains(store)) {
    std::erase_if(claims_,
                  [now](const auto& item) { return now - item.second.front().heard > kLifetime; });
    if (claims_.size() >= kStoresMax) return;
  }
  std::vector<Claim>& claims = claims_[store];
  std::erase_if(claims, [&](const Claim& c) { return c.nonce == nonce && c.address == address; });
  claims.insert(claims.begin(), Claim{nonce, address, now});
  if (claims.size() > kClaimsMax) claims.pop_back();
}

std::vector<std::string> ClaimTable::Others(StoreId store, uint64_t nonce, Instant now) const {
  std::vector<std::string> addresses;
  auto found = claims_.find(store);
  if (found == claims_.end()) return addresses;
  for (const Claim& claim : found->second) {
    if (claim.nonce == nonce || now - claim.heard > kLifetime) continue;
    if (std::find(addresses.begin(), addresses.end(), claim.address) == addresses.end()) {
      addresses.push_back(claim.address);
    }
  }
  return addresses;
}

}  // namespace quorate::raft
