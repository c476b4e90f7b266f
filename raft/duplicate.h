// Who claims to be which store, lately: so that a process can tell another one where else its store
// id was heard of (DESIGN.md: two live processes with one store id both stop).
//
// A claim proves nothing; it only makes the claimed store's process ask there itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"

namespace quorate::raft {

class ClaimTable {
 public:
  static constexpr size_t kStoresMax = 256;
  static constexpr size_t kClaimsMax = 4;  // per store; the oldest goes first
  static constexpr Duration kLifetime = std::chrono::seconds(30);

  // A process with this nonce said that it is `store` and lives at `address`.
  void Note(StoreId store, uint64_t nonce, const std::string& address, Instant now);
  // Where other processes than `nonce` claimed `store` within kLifetime, latest first, each address
  // once.
  std::vector<std::string> Others(StoreId store, uint64_t nonce, Instant now) const;

 private:
  struct Claim {
    uint64_t nonce = 0;
    std::string address;
    Instant heard{};
  };
  std::map<StoreId, std::vector<Claim>> claims_;  // latest first
};

}  // namespace quorate::raft
