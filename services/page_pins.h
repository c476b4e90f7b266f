// Which revisions the page tokens show that this process gave out lately: a compaction within ten
// minutes of a page token leaves its revision readable.
//
// Of each minute only the lowest revision is kept, so it costs nothing however many pages are read.
//
// Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "base/ids.h"
#include "base/time.h"

namespace quorate::services {

class PagePins {
 public:
  static constexpr int64_t kMinutes = 10;

  // A page token that shows `revision` was given out.
  void Note(Revision revision, Instant now) {
    const int64_t minute = MinuteOf(now);
    std::lock_guard lock(mutex_);
    Bucket& bucket = buckets_[static_cast<size_t>(minute) % buckets_.size()];
    if (bucket.minute != minute) bucket = {minute, revision};
    bucket.lowest = std::min(bucket.lowest, revision);
  }
  // The lowest of the last ten minutes (eleven at most); 0: none.
  Revision Oldest(Instant now) const {
    const int64_t minute = MinuteOf(now);
    std::lock_guard lock(mutex_);
    Revision oldest;
    for (const Bucket& bucket : buckets_) {
      if (!bucket.lowest || bucket.minute + kMinutes < minute) continue;
      oldest = oldest ? std::min(oldest, bucket.lowest) : bucket.lowest;
    }
    return oldest;
  }

 private:
  struct Bucket {
    int64_t minute = 0;
    Revision lowest;  // 0: unused
  };
  static int64_t MinuteOf(Instant now) {
    return std::chrono::duration_cast<std::chrono::minutes>(now.time_since_epoch()).count();
  }
  mutable std::mutex mutex_;
  std::array<Bucket, kMinutes + 1> buckets_;  // protected by mutex_
};

}  // namespace quorate::services
