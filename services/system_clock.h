// The clock of the machine, for production: CLOCK_BOOTTIME for everything that is decided, wall
// time for display. Any thread.
#pragma once

#include <time.h>

#include <chrono>

#include "base/check.h"
#include "base/time.h"
#include "raft/ports.h"

namespace quorate::services {

// CLOCK_BOOTTIME: counts through suspend, never goes back.
inline Instant BootNow() {
  timespec now{};
  CHECK(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
  return Instant(std::chrono::duration_cast<Duration>(std::chrono::seconds(now.tv_sec) +
                                                      std::chrono::nanoseconds(now.tv_nsec)));
}

inline WallMilliseconds SystemWallNow() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

class SystemClock final : public raft::Clock {
 public:
  Instant Now() override { return BootNow(); }
  WallMilliseconds WallNow() override { return SystemWallNow(); }
};

}  // namespace quorate::services
