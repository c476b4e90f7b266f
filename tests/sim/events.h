// Virtual time, and what happens in it.
//
// Events run one after the other, by time and then by the order in which they were made, so a run
// has exactly one order. Time is the world's, in microseconds from 0; nodes have clocks of their
// own that are derived from it (machine.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/check.h"

namespace quorate::sim {

using Micros = int64_t;
inline constexpr Micros kMillisecond = 1000;
inline constexpr Micros kSecond = 1000 * kMillisecond;
inline constexpr Micros kNever = INT64_MAX;

class EventQueue {
 public:
  // At most 16 bytes of captures cost no allocation.
  using Action = std::function<void()>;

  Micros now() const { return now_; }
  uint64_t executed() const { return executed_; }

  void At(Micros when, Action action) {
    CHECK(when >= now_, "an event in the past");
    uint32_t slot;
    if (free_.empty()) {
      slot = static_cast<uint32_t>(actions_.size());
      actions_.push_back(std::move(action));
    } else {
      slot = free_.back();
      free_.pop_back();
      actions_[slot] = std::move(action);
    }
    heap_.push_back({when, next_++, slot});
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }
  void After(Micros delay, Action action) { At(now_ + delay, std::move(action)); }

  // Runs the next event that is due by `until`; false: there is none, and it is now `until`.
  bool RunOne(Micros until) {
    if (heap_.empty() || heap_.front().at > until) {
      now_ = std::max(now_, until);
      return false;
    }
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    const Event event = heap_.back();
    heap_.pop_back();
    now_ = event.at;
    ++executed_;
    const Action action = std::exchange(actions_[event.slot], nullptr);
    free_.push_back(event.slot);
    action();
    return true;
  }

 private:
  struct Event {
    Micros at;
    uint64_t order;
    uint32_t slot;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.at != b.at ? a.at > b.at : a.order > b.order;
  }

  Micros now_ = 0;
  uint64_t next_ = 0;
  uint64_t executed_ = 0;
  std::vector<Event> heap_;
  std::vector<Action> actions_;
  std::vector<uint32_t> free_;
};

}  // namespace quorate::sim
