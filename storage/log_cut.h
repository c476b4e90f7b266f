// Which segments in front of the log can be removed (storage/LOG_FORMAT.md, "Removing segments in
// front"). Values only, but for RemoveSegments; kept by recovery and then by the writer.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "raft/core/types.h"
#include "storage/disk.h"

namespace quorate::storage {

// The log's segments as its records made them. Not thread-safe: of the appending thread.
class SegmentList {
 public:
  // A new newest segment, whose header says that `prev_index` is the entry before its first; of the
  // one before it `sealed_bytes` are part of the log (0 for the first of the list).
  void Begin(uint64_t sequence, raft::Index prev_index, uint64_t sealed_bytes);
  // Records of the newest segment: a cut of `from` and all after it; a generation at `index`.
  void Cut(raft::Index from);
  void Generation(raft::Index index);

  // The segments that go when everything up to `through` is durable elsewhere and at least
  // `keep_bytes` of log shall stay, `newest_bytes` of them in the newest segment. Nobody reads
  // entries before `first_index` any more: segments with nothing else go whatever `keep_bytes` is.
  struct Front {
    std::vector<uint64_t> sequences;  // to be removed, oldest first
    raft::Index prev_index;           // then the entry before the log's first, by its header
  };
  Front Removable(raft::Index through, uint64_t keep_bytes, uint64_t newest_bytes,
                  raft::Index first_index) const;
  // The entry before the first one of the youngest segment that can be first and from which on the
  // log has at least `bytes`; that before the log's first when all of it has less.
  raft::Index TailBegin(uint64_t bytes, uint64_t newest_bytes) const;
  // Forgets the `count` oldest. REQUIRES: one stays.
  void Drop(size_t count);

 private:
  struct Segment {
    uint64_t sequence = 0;
    raft::Index prev_index;
    bool can_be_first = true;  // its header still names an entry of the log
    uint64_t bytes = 0;        // 0 for the newest
  };
  // What is removed reaches back to `from`.
  void Invalidate(raft::Index from);

  std::deque<Segment> segments_;
};

// Removes segment files in the order given, with a sync of the directory after each. An error: some
// may be gone, durably or not, but none out of order.
absl::Status RemoveSegments(Disk* disk, const std::string& directory,
                            const std::vector<uint64_t>& sequences);

}  // namespace quorate::storage
