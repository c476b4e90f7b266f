// Ctrl-C. A command that has something to say before it ends (how far an import came) asks here
// between its steps; every other one ends at once. Exit code 130 either way.
#pragma once

#include <csignal>
#include <initializer_list>
#include <utility>
#include <vector>

namespace quorate::tools {

// Takes SIGINT and SIGTERM over, for the whole process; main calls it, before any thread starts.
void InstallInterrupts();

// While one lives the first signal only sets a flag; the second one ends the process.
class GracefulInterrupts {
 public:
  GracefulInterrupts();
  ~GracefulInterrupts();
};

// Handles signals while it lives, but for those that whoever has started this process had ignored
// (nohup). A program that is started meanwhile has them as they were by default.
class HandledSignals {
 public:
  HandledSignals(std::initializer_list<int> signals, void (*handler)(int));
  ~HandledSignals();
  HandledSignals(const HandledSignals&) = delete;
  HandledSignals& operator=(const HandledSignals&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

// While one lives SIGHUP (the terminal has gone) and SIGQUIT are such signals too. SIGHUP is never
// the second one that ends the process: a shell and the kernel may both send it.
class HangupInterrupts : HandledSignals {
 public:
  HangupInterrupts();
};

// While one lives Ctrl-Z does not stop this process.
class UnstoppedByTerminal : HandledSignals {
 public:
  UnstoppedByTerminal();
};

bool Interrupted();
// The signal that it was; 0: none.
int InterruptSignal();

}  // namespace quorate::tools
