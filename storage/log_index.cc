#include "storage/log_index.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace quorate::storage {

void LogIndex::Append(raft::Index index, uint64_t sequence, uint64_t offset) {
  if (!runs_.empty()) CHECK(index == runs_.back().last + 1);
  if (closed_ || runs_.back().sequence != sequence) {
    runs_.push_back({index, index, sequence, {{index, offset}}});
    closed_ = false;
    return;
  }
  Run& run = runs_.back();
  run.last = index;
  if (offset >= run.points.back().offset + kPointBytes) run.points.push_back({index, offset});
}

void LogIndex::Cut(raft::Index from) {
  while (!runs_.empty() && runs_.back().first >= from) runs_.pop_back();
  closed_ = true;
  if (runs_.empty() || runs_.back().last < from) return;
  Run& run = runs_.back();
  run.last = from - 1;
  while (run.points.back().index >= from) run.points.pop_back();
}

void LogIndex::DropThrough(raft::Index index) {
  auto keep =
      std::find_if(runs_.begin(), runs_.end(), [&](const Run& run) { return run.last > index; });
  runs_.erase(runs_.begin(), keep);
  if (runs_.empty()) {
    closed_ = true;
  } else {
    runs_.front().first = std::max(runs_.front().first, index + 1);
  }
}

std::optional<LogIndex::Extent> LogIndex::Find(raft::Index index) const {
  auto run = std::upper_bound(runs_.begin(), runs_.end(), index,
                              [](raft::Index i, const Run& r) { return i < r.first; });
  if (run == runs_.begin()) return std::nullopt;
  --run;
  if (index > run->last) return std::nullopt;
  auto point = std::upper_bound(run->points.begin(), run->points.end(), index,
                                [](raft::Index i, const Point& p) { return i < p.index; });
  return Extent{run->sequence, std::prev(point)->offset, run->last};
}

}  // namespace quorate::storage
