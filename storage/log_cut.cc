#include "storage/log_cut.h"

#include "base/check.h"
#include "storage/segment.h"

namespace quorate::storage {

void SegmentList::Begin(uint64_t sequence, raft::Index prev_index, uint64_t sealed_bytes) {
  if (!segments_.empty()) {
    CHECK(sequence == segments_.back().sequence + 1);
    segments_.back().bytes = sealed_bytes;
  }
  segments_.push_back({sequence, prev_index});
}

void SegmentList::Cut(raft::Index from) { Invalidate(from); }

// What follows `index` may have been cut; what is at or before it is not read any more, but a
// generation record cannot stand in a log that begins behind it.
void SegmentList::Generation(raft::Index index) { Invalidate(index + 1); }

void SegmentList::Invalidate(raft::Index from) {
  for (Segment& segment : segments_) {
    if (segment.prev_index >= from) segment.can_be_first = false;
  }
}

SegmentList::Front SegmentList::Removable(raft::Index through, uint64_t keep_bytes,
                                          uint64_t newest_bytes, raft::Index first_index) const {
  uint64_t behind = newest_bytes;
  for (const Segment& segment : segments_) behind += segment.bytes;
  size_t count = 0;
  for (size_t next = 1; next < segments_.size(); ++next) {
    behind -= segments_[next - 1].bytes;
    const Segment& segment = segments_[next];
    if (segment.prev_index > through) {
      // Entries grow from header to header, but for those that cannot be first.
      if (segment.can_be_first) break;
      continue;
    }
    if (behind < keep_bytes && segment.prev_index >= first_index) break;
    if (segment.can_be_first) count = next;
  }
  Front front;
  for (size_t i = 0; i < count; ++i) front.sequences.push_back(segments_[i].sequence);
  if (!segments_.empty()) front.prev_index = segments_[count].prev_index;
  return front;
}

raft::Index SegmentList::TailBegin(uint64_t bytes, uint64_t newest_bytes) const {
  uint64_t behind = newest_bytes;
  for (size_t i = segments_.size(); i-- > 0;) {
    behind += segments_[i].bytes;
    if (behind >= bytes && segments_[i].can_be_first) return segments_[i].prev_index;
  }
  return segments_.empty() ? raft::Index() : segments_.front().prev_index;
}

void SegmentList::Drop(size_t count) {
  CHECK(count < segments_.size());
  segments_.erase(segments_.begin(), segments_.begin() + static_cast<ptrdiff_t>(count));
}

absl::Status RemoveSegments(Disk* disk, const std::string& directory,
                            const std::vector<uint64_t>& sequences) {
  for (uint64_t sequence : sequences) {
    if (absl::Status s = disk->Remove(JoinPath(directory, SegmentName(sequence))); !s.ok()) {
      return s;
    }
    // Before the next one: a crash must not leave a gap.
    if (absl::Status s = disk->SyncDirectory(directory); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace quorate::storage
