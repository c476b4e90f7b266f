// Could these operations on one register have happened one at a time, each between its call and its
// return? (Herlihy and Wing, "Linearizability", 1990.)
//
// The method: go through calls and returns in their order and keep every state that the register
// may be in, together with which of the open operations have taken effect (Lowe, "Testing for
// linearizability", 2017). An operation takes effect only when some return asks for it, so few are
// kept. One whose outcome nobody knows stays open for ever: it may take effect at any later time,
// or never. Of two possibilities that differ only in how many such operations were used up the one
// that used fewer can do all that the other can, so only that one is kept; this is what makes
// histories with many unknown outcomes cheap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/sim/events.h"

namespace quorate::sim {

struct RegisterOperation {
  enum class Kind : uint8_t {
    kRead,    // `value` was read
    kWrite,   // `value` was written, whatever was there
    kDelete,  // the value became 0; `succeeded`: it was not 0 before
    kSwap,    // `value` was written if `expected` was there; `succeeded`: it was
  };
  Kind kind = Kind::kRead;
  Micros called = 0;
  Micros returned = kNever;  // kNever: nobody knows its outcome, nor whether it had any effect
  uint64_t value = 0;        // 0: the key is not there
  uint64_t expected = 0;
  bool succeeded = false;
  // Somebody's word for where it stands among the others; 0: nobody's. Those with the same word
  // changed nothing, but for one, the first.
  uint64_t hint = 0;
};

enum class Verdict : uint8_t { kLinearizable, kNotLinearizable, kUndecided };

// If the order of the hints is one in which it can have happened, that proves it, whoever gave
// them; else they count for nothing.
//
// The register is 0 at first. kUndecided: there were more than `possibilities_max` at some time,
// more than 64 operations open at a time (those without an outcome not counted), or more than 256
// without an outcome.
Verdict CheckRegister(const std::vector<RegisterOperation>& history,
                      size_t possibilities_max = 20'000);

}  // namespace quorate::sim
