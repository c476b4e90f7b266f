// The network between machines, numbered from 0: when something sent arrives, if at all.
//
// It carries actions, not bytes: what arrives is a call. Two kinds of traffic, as in production:
//   Datagram  Raft's messages: lost, repeated and reordered one by one where the plan says so; on
//             ordered links a loss breaks the link, and all that is on its way is gone
//   Stream    everything else (forwarded writes, birth, snapshots): in order, and what is lost
//             breaks the stream, which both ends hear of
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "tests/sim/events.h"
#include "tests/sim/plan.h"
#include "tests/sim/random.h"
#include "tests/sim/report.h"

namespace quorate::sim {

inline constexpr size_t kMachinesMax = 10;

class Network {
 public:
  Network(const Plan& plan, Random* random, EventQueue* events, Report* report);

  // When a message that leaves now arrives; kNever: it is lost.
  Micros Arrival(size_t from, size_t to);
  // A second copy of a message that was sent now; kNever: there is none.
  Micros SecondArrival(size_t from, size_t to);
  // Whether what left at `sent` is still on its way (an ordered link may have broken meanwhile).
  bool StillOnItsWay(size_t from, size_t to, Micros sent) const {
    return sent >= links_[from][to].broken_at;
  }
  // For streams: in order, never lost one by one. kNever: the way is cut, so the stream is to
  // break.
  Micros StreamArrival(size_t from, size_t to);
  bool IsCut(size_t from, size_t to) const { return links_[from][to].cut_until > events_->now(); }

  // --- Faults ---
  void Cut(size_t from, size_t to, Micros until);
  void Clog(size_t from, size_t to, Micros until);
  // Nothing is lost, repeated, cut or slow any more, but for what is cut by CutForGood.
  void Heal();
  void CutForGood(size_t machine);

 private:
  struct Link {
    Micros latency_min = 0;  // of this link: some are longer than others
    Micros cut_until = 0;
    Micros clogged_until = 0;
    Micros clog_gap = 0;  // between two that were held back, at most, once they come
    Micros last_arrival = 0;
    Micros last_stream = 0;
    Micros broken_at = 0;  // what was sent before is gone
  };
  Micros Latency(const Link& link);

  const Plan& plan_;
  Random* const random_;
  EventQueue* const events_;
  Report* const report_;
  bool healed_ = false;
  std::array<std::array<Link, kMachinesMax>, kMachinesMax> links_;
};

}  // namespace quorate::sim
