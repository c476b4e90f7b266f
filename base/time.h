// Time as a value. Nothing here reads a clock: the driver's clock port does (raft/ports.h).
#pragma once

#include <chrono>
#include <cstdint>

namespace quorate {

// The boot-time clock of this machine: it never goes back and counts through suspend
// (CLOCK_BOOTTIME). Instants of two machines cannot be compared.
struct BootClock {
  using duration = std::chrono::microseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
};

using Duration = BootClock::duration;
using Instant = BootClock::time_point;

// Milliseconds since the Unix epoch, for display only: nothing is ever decided by it.
using WallMilliseconds = int64_t;

}  // namespace quorate
