// The strict decode of commands: what the state machine runs, and what it ends the node for.
//
// The leader asks before it proposes what another node sent: once such a command is committed,
// every node ends at it, and again at each start.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "quorate/v1/command.pb.h"

namespace quorate::storage {

// Parses a serialized command. INVALID_ARGUMENT when it is none; FAILED_PRECONDITION when it holds
// something that this build does not know. The message goes on after "the command" or "a command
// that". Reads nothing but the bytes; any thread.
absl::Status DecodeCommand(std::string_view bytes, v1::Command& command);

// Whether DecodeCommand takes it.
absl::Status CheckCommand(std::string_view bytes);

}  // namespace quorate::storage
