// Store id to address, and nothing more: soft state, never trusted and never persisted as truth
// (DESIGN.md, "Addresses are soft state"). Looked up at each dial, so that a node which comes back
// with another address is found as soon as anybody has heard of it.
//
// Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "raft/core/membership.h"

namespace quorate::services {

class PeerDirectory {
 public:
  // How good a word is. A direct one replaces any other; a hint fills a gap only.
  enum class Source : uint8_t {
    kHint,    // a membership entry: may be years old
    kDirect,  // the store itself said so: its answer to Identify, or its own call to us
  };

  // Ignored: the zero store, an empty address, and one longer than 255 bytes. Beyond kStoresMax the
  // store that was heard of longest ago is forgotten, but no member: any process may call itself
  // anything, and each wiped disk is a new store.
  void Learn(StoreId store, const std::string& address, Source source);
  // The addresses of the membership in force, as hints. Its members are kept from now on, those of
  // an earlier one no longer.
  void LearnMembership(const raft::Membership& membership);

  std::optional<std::string> Find(StoreId store) const;
  std::vector<std::pair<StoreId, std::string>> All() const;  // by store id

  static constexpr size_t kStoresMax = 1024;
  static constexpr size_t kAddressBytesMax = 255;

 private:
  struct Known {
    std::string address;
    Source source = Source::kHint;
    uint64_t heard = 0;  // the larger, the later
    bool member = false;
  };
  // REQUIRES: mutex_ held.
  void LearnLocked(StoreId store, const std::string& address, Source source);

  mutable std::mutex mutex_;  // protects what follows
  std::map<StoreId, Known> known_;
  uint64_t heard_ = 0;
};

}  // namespace quorate::services
