// Ctrl-C. A command that has something to say before it ends (how far an import came) asks here
// between its steps; every other one ends at once. Exit code 130 either way.
#pragma once

namespace quorate::tools {

// Takes SIGINT and SIGTERM over, for the whole process; main calls it, before any thread starts.
void InstallInterrupts();

// While one lives the first signal only sets a flag; the second one ends the process.
class GracefulInterrupts {
 public:
  GracefulInterrupts();
  ~GracefulInterrupts();
};

bool Interrupted();
// The signal that it was; 0: none.
int InterruptSignal();

}  // namespace quorate::tools
