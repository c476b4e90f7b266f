// The simulated disk (tests/disk/simulated_disk.h) as the tests of storage use it: with directories
// from the start and a seed of its own, copied before and after each crash, and with hands on the
// platter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/disk/simulated_disk.h"

namespace quorate::storage {

class SimDisk final : public sim::SimulatedDisk {
 public:
  // Directories given here are there, durably.
  explicit SimDisk(const std::vector<std::string>& directories);

  // The disk as the next process finds it after a power failure; without faults that were ordered.
  std::unique_ptr<SimDisk> AfterCrash(Fate fate, uint64_t seed) const;
  // The same after the end of the process only: page cache included.
  std::unique_ptr<SimDisk> Clone() const;

  // --- Hands on the platter: change what is durable and what is seen ---
  // REQUIRES: what is named is there; for Put, its directory.
  void FlipBit(const std::string& path, uint64_t offset, int bit);
  void Overwrite(const std::string& path, uint64_t offset, const std::string& bytes);
  void Resize(const std::string& path, uint64_t size);
  void Erase(const std::string& path);
  void Put(const std::string& path, const std::string& content);
  std::string Content(const std::string& path) const;  // as seen
  bool Exists(const std::string& path) const;

 private:
  FilePtr Existing(const std::string& path) const;

  sim::Random random_{1};
};

}  // namespace quorate::storage
