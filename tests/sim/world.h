// One run: machines, network, clients, faults and checkers, from a plan to a verdict.
//
//   1. Everything starts; the faults of the plan happen for its `chaos`.
//   2. They stop. Whoever is down is started, but perhaps a minority. Within `calm_max` a leader
//      must be there, writes through every node be answered, and all be applied everywhere.
//   3. The history is judged.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/sim/plan.h"
#include "tests/sim/report.h"

namespace quorate::sim {

struct Result {
  std::string failure;  // empty: all was well
  Micros failed_at = 0;
  uint64_t trace_hash = 0;
  Report report;
};

// `story` may be null; else what happens is told there.
Result RunPlan(const Plan& plan, std::FILE* story);

}  // namespace quorate::sim
