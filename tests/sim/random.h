// The simulator's only source of chance: one generator, one seed.
//
// The draws are written out here, because the distributions of the standard library differ between
// libraries: the same seed must give the same run with every compiler. The generator is the core's
// (raft/core/random.h), in an object of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "raft/core/random.h"

namespace quorate::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : generator_(seed) {}

  uint64_t Next() { return generator_.Next(); }
  // Uniform in [0, count). REQUIRES: count > 0.
  uint64_t Below(uint64_t count) {
    CHECK(count > 0);
    return Next() % count;
  }
  // Uniform in [low, high], both included.
  int64_t Between(int64_t low, int64_t high) {
    CHECK(low <= high);
    return low + static_cast<int64_t>(Below(static_cast<uint64_t>(high - low) + 1));
  }
  bool OneIn(uint64_t count) { return Below(count) == 0; }
  // True in `permille` of 1,000 cases.
  bool Chance(uint32_t permille) { return permille != 0 && Below(1000) < permille; }
  // In [low, high], small numbers far more often: each power of two is as likely as the next one.
  int64_t Skewed(int64_t low, int64_t high) {
    CHECK(0 < low && low <= high);
    int64_t bound = low;
    int doublings = 0;
    while (bound < high) bound *= 2, ++doublings;
    for (uint64_t n = Below(static_cast<uint64_t>(doublings) + 1); n > 0; --n) bound /= 2;
    if (bound > high) bound = high;
    return Between(low, bound < low ? low : bound);
  }
  template <typename T>
  const T& Pick(const std::vector<T>& of) {
    return of[Below(of.size())];
  }

 private:
  raft::Random generator_;
};

}  // namespace quorate::sim
