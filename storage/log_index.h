// Where the entries are: a sparse index over the segments, in memory.
//
// Entries lie in runs: consecutive indexes, one segment, no cut between them. A run knows its first
// and last index and, every 64 KiB, where one of its records begins; a reader goes on from there,
// record after record. So a segment of 64 MiB costs about 16 KiB here, whatever its entries' size.
// A cut shortens runs: what is cut is never found again. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "raft/core/types.h"

namespace quorate::storage {

class LogIndex {
 public:
  static constexpr uint64_t kPointBytes = 64u << 10;

  // The next entry: its record stands at `offset` of segment `sequence`.
  void Append(raft::Index index, uint64_t sequence, uint64_t offset);
  void Cut(raft::Index from);           // forgets `from` and all after it
  void DropThrough(raft::Index index);  // forgets `index` and all before it

  struct Extent {
    uint64_t sequence = 0;
    uint64_t offset = 0;  // a record of the run, at or before the entry asked for
    raft::Index last;     // of the run
  };
  std::optional<Extent> Find(raft::Index index) const;

  size_t runs() const { return runs_.size(); }

 private:
  struct Point {
    raft::Index index;
    uint64_t offset;
  };
  struct Run {
    raft::Index first;
    raft::Index last;
    uint64_t sequence;
    std::vector<Point> points;  // the first is `first`'s, unless entries were dropped in front
  };
  std::vector<Run> runs_;
  bool closed_ = true;  // the next entry begins a run
};

}  // namespace quorate::storage
