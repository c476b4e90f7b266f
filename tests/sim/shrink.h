// Makes a failing plan smaller: fewer faults, a shorter run, fewer clients, as long as it fails
// in the same way.
//
// Each try runs in a process of its own, because a CHECK of the product ends it. It is the plan
// that shrinks, not the run: what is left is drawn anew by the same seed, and counts only if it
// says that the same thing is wrong.
#pragma once

#include <string>

#include "tests/sim/plan.h"

namespace quorate::sim {

// What a plan does when it is run in a process of its own; empty: all was well.
std::string FailureOf(const Plan& plan);

// `plan` fails. Returns the smallest plan found that fails in the same way.
Plan Shrink(Plan plan);

// The arguments of quorate-sim that make this plan of its seed's.
std::string ArgumentsOf(const Plan& plan);

}  // namespace quorate::sim
