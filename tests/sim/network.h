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
#include <vector>

#include "tests/sim/events.h"
#include "tests/sim/plan.h"
#include "tests/sim/random.h"
#include "tests/sim/report.h"

namespace quorate::sim {

class Network {
 public:
  Network(const Plan& plan, Random* random, EventQueue* events, Report* report);

  // When a message that leaves now arrives; kNever: it is lost.
  Micros Arrival(size_t from, size_t to);
  // A second copy of a message that was sent now; kNever: there is none.
  Micros SecondArrival(size_t from, size_t to);
  // Whether what left at `sent` has come through (an ordered link may have broken meanwhile).
  bool StillOnItsWay(size_t from, size_t to, Micros sent);
  // For streams: in order, never lost one by one. kNever: the way is cut, so the stream is to
  // break.
  Micros StreamArrival(size_t from, size_t to);
  // For who would send something if it is not.
  bool IsCut(size_t from, size_t to);

  // --- Faults ---
  // What is cut or clogged because of one fault. That is counted once, when something meets it.
  using Trouble = size_t;
  Trouble Begin(Fault fault);
  void Cut(size_t from, size_t to, Micros until, Trouble trouble);
  void Clog(size_t from, size_t to, Micros until, Trouble trouble);
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
    Trouble cut_by = 0, clogged_by = 0, broken_by = 0;
  };
  struct Cause {
    Fault fault;
    bool met;  // is counted, or is no fault of the report
  };
  Micros Latency(const Link& link);
  // Not before what has clogged the link is over.
  Micros Unclogged(const Link& link, Micros at);
  void Met(Trouble trouble);

  const Plan& plan_;
  Random* const random_;
  EventQueue* const events_;
  Report* const report_;
  bool healed_ = false;
  std::vector<Cause> causes_{{Fault::kLoss, true}};  // by Trouble; 0: a loss, or no fault
  std::array<std::array<Link, kMachinesMax>, kMachinesMax> links_;
};

}  // namespace quorate::sim
