// A machine: what outlives the processes on it. Its disk, its clock, and who it is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/ports.h"
#include "tests/disk/simulated_disk.h"
#include "tests/sim/events.h"
#include "tests/sim/memory_state.h"

namespace quorate::sim {

// What everybody's wall clock shows when the world begins; they all show the right time.
inline constexpr int64_t kWallTimeAtStart = 1'700'000'000'000;

// A boot-time clock that runs a little too fast or too slow.
class MachineClock final : public raft::Clock {
 public:
  explicit MachineClock(const EventQueue* events) : events_(events) {}

  Instant Now() override { return Instant(Duration(At(events_->now()))); }
  WallMilliseconds WallNow() override { return kWallTimeAtStart + events_->now() / 1000; }

  // What it shows now, and how fast it goes on from here.
  void Set(Micros reading, int64_t ppm) {
    reading_ = reading;
    since_ = events_->now();
    ppm_ = ppm;
  }
  Micros reading() const { return At(events_->now()); }
  int64_t ppm() const { return ppm_; }
  // When, in the world's time, it will show this or later; kNever for what is beyond all time.
  Micros WhenShows(Instant instant) const {
    const Micros wanted = instant.time_since_epoch().count();
    if (wanted >= kNever / 4) return kNever;
    if (wanted <= reading()) return events_->now();
    Micros when = since_ + (wanted - reading_) * 1'000'000 / (1'000'000 + ppm_);
    while (At(when) < wanted) ++when;
    return when < events_->now() ? events_->now() : when;
  }
  // The last moment of the world's time at which it showed no more than this.
  Micros WhenShowed(Instant instant) const {
    const Micros wanted = instant.time_since_epoch().count();
    return since_ + (wanted - reading_) * 1'000'000 / (1'000'000 + ppm_) - 1;
  }

 private:
  Micros At(Micros when) const {
    const Micros passed = when - since_;
    return reading_ + passed + passed * ppm_ / 1'000'000;
  }

  const EventQueue* const events_;
  Micros reading_ = 0;
  Micros since_ = 0;
  int64_t ppm_ = 0;
};

class Process;

struct Machine {
  Machine(size_t number_, Random* random, const EventQueue* events);
  ~Machine();  // both where Process is known (process.cc)

  const size_t number;
  const std::string data;  // the data directory
  std::string name;
  // Where its processes listen for their peers; empty while it has none (names.h).
  std::string address, last_address;
  // Where the cluster begins born: its first store is so.
  bool founder = false;
  // The election timeouts that its next process, or the one that runs, is configured with.
  Micros election_min = 0;
  Micros election_max = 0;
  // Where it does not: the founders' names, as this machine is configured.
  std::vector<std::string> founders;
  bool wrong_founders = false;  // not as the others are
  StoreId store;                // of the disk that is in it now
  SimulatedDisk disk;
  StateVault vault;
  StoreLimits store_limits;  // of either state machine
  MachineClock clock;
  std::unique_ptr<Process> process;  // null while it is down
  uint64_t life = 0;                 // counts processes, crashed starts included
  bool powered_off_for_good = false;
  // Its log, state or identity was found damaged: it waits for somebody to empty its disk.
  bool corrupt = false;
  Micros slow_until = 0;
  Micros paused_until = 0;
  Micros stalled_until = 0;  // no flush ends before
  // Those of its faults that have not made a difference to anything yet: bits by Fault.
  uint64_t idle_faults = 0;
};

}  // namespace quorate::sim
