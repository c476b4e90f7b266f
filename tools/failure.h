// How the command fails: exit codes, and messages that say what to do next.
#pragma once

#include <ostream>
#include <string>

#include "grpcpp/support/status.h"
#include "tools/client.h"

namespace quorate::tools {

// The contract of DESIGN.md, section 6.
enum ExitCode : int {
  kExitOk = 0,
  kExitError = 1,
  kExitUsage = 2,
  kExitNotFound = 3,
  kExitConflict = 4,
  kExitUnavailable = 5,  // or timed out
  kExitNotAllowed = 6,
  kExitUnhealthy = 7,
  kExitInterrupted = 130,
};

ExitCode ExitCodeOf(const CallResult& result);

// `WHAT: CODE (REASON): message, from host:port`, without a line end.
std::string Describe(const CallResult& result);

// Prints `quorate: ` and the above on one line, and the advice for this failure on a second line.
// Returns the exit code.
ExitCode Report(std::ostream& err, const std::string& what, const CallResult& result);

}  // namespace quorate::tools
