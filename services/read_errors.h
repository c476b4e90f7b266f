// What a read that services/read_gate.h refuses is answered with.
//
// Pure; any thread.
#pragma once

#include "grpcpp/support/status.h"
#include "services/read_gate.h"

namespace quorate::services {

// UNAVAILABLE (NOT_CAUGHT_UP, BEHIND or TOO_STALE) with the numbers and a delay for the next try;
// OK when nothing is refused.
grpc::Status MakeReadError(const ReadRefusal& refusal);

}  // namespace quorate::services
