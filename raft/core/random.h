// The core's only source of randomness: the election timeouts. Seeded, so that a run can be
// repeated.
//
// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): a
// counter that advances by the golden ratio and a mixing function over it. Not for secrets.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace quorate::raft {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  // Uniform in [low, high], both included. The bias of the modulo is below 2^-40 for the ranges
  // that timeouts have.
  uint64_t Between(uint64_t low, uint64_t high) {
    CHECK(low <= high);
    return low + Next() % (high - low + 1);
  }

 private:
  uint64_t state_;
};

}  // namespace quorate::raft
