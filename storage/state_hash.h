// The state hash: what every node must agree on at one applied index (DESIGN.md, "State hash").
//
// The hash is the sum modulo 2^128 of XXH3-128 over each logical row's canonical bytes. A sum can
// be kept as rows come and go (add the new row, subtract the old one) and does not depend on the
// order of rows, on batches or on how SQLite stores them. (An exclusive-or would lose a row that
// is there twice; sums of CRCs would let changes cancel out.)
//
// Canonical bytes of a row: one byte for its table, then each column in a fixed order: a number as
// 8 bytes little-endian, bytes as their length (8 bytes little-endian) and then themselves. The
// tables and columns are listed in storage/STATE.md; changing them changes the hash of every
// node, so it needs a new database format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "storage/state.h"

namespace quorate::storage {

// The first of a row's canonical bytes. Never reuse a number.
enum class HashedTable : uint8_t {
  kStore = 1,
  kMembership = 2,
  kItem = 3,
  kHistory = 4,
  kSession = 5,
  kAnswer = 6,
  kRequest = 7,
  kRequestBounds = 8,
  kTtl = 9,
  kTtlKey = 10,
  kSetting = 11,
};

// A number modulo 2^128: the hash of one row, or the sum of many.
class HashSum {
 public:
  constexpr HashSum() = default;
  HashSum(uint64_t low, uint64_t high) : value_(static_cast<Wide>(high) << 64 | low) {}

  HashSum& operator+=(HashSum other) {
    value_ += other.value_;
    return *this;
  }
  HashSum& operator-=(HashSum other) {
    value_ -= other.value_;
    return *this;
  }
  friend HashSum operator+(HashSum a, HashSum b) { return a += b; }
  friend bool operator==(HashSum, HashSum) = default;

  // Little-endian, as it is stored and compared.
  StateHash bytes() const;
  static HashSum Of(const StateHash& bytes);

 private:
  using Wide = unsigned __int128;
  Wide value_ = 0;
};

// Builds one row's canonical bytes and hashes them. Kept and used again, so that its buffer is
// allocated once. One thread.
class RowHasher {
 public:
  RowHasher& Begin(HashedTable table);
  RowHasher& Number(uint64_t value);
  RowHasher& Bytes(std::string_view value);
  HashSum Finish();

 private:
  std::string bytes_;
};

}  // namespace quorate::storage
