// Identities that every layer shares (DESIGN.md, "Identity, birth, membership").
//
// Printed form: store and cluster ids are 16 lower-case hexadecimal digits everywhere (API,
// logs, command line); revisions are decimal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/strong.h"

namespace quorate {

// A random 64-bit number made together with a data directory and never used again: what the
// Raft core votes with. A wiped or replaced disk is another store, whatever its name. Never 0.
using StoreId = Strong<struct StoreIdTag>;

// A random 64-bit number made at birth; 0 before it.
using ClusterId = Strong<struct ClusterIdTag>;

// The position of a change in the whole store: an empty store is at 1, every change advances it
// by one, it never goes back.
using Revision = Strong<struct RevisionTag>;

// 16 lower-case hexadecimal digits.
inline std::string ToHex(uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4) text[static_cast<size_t>(i)] = kDigits[value & 15];
  return text;
}
inline std::string ToHex(StoreId id) { return ToHex(id.value()); }
inline std::string ToHex(ClusterId id) { return ToHex(id.value()); }

// The number of exactly 16 lower-case hexadecimal digits; nullopt for anything else.
inline std::optional<uint64_t> ParseHex(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  uint64_t value = 0;
  for (char c : text) {
    if (c >= '0' && c <= '9') {
      value = value << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = value << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return value;
}

}  // namespace quorate
