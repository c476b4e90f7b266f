// The format of replicated commands (v1::Command.format; ingress::FormatOf says which one a command
// needs).
#pragma once

#include <cstdint>

namespace quorate::storage {

// The highest that this build applies. A node that has to apply a higher one ends, for it would
// not have the same state as the others any more.
inline constexpr uint32_t kCommandFormat = 3;

}  // namespace quorate::storage
