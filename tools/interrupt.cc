#include "tools/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "tools/failure.h"

namespace quorate::tools {
namespace {

std::atomic<int> graceful = 0;
std::atomic<bool> interrupted = false;
std::atomic<int> interrupt_signal = 0;
// Or no signal handler could use it.
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void OnSignal(int signal) {
  interrupt_signal = signal;
  const bool again = interrupted.exchange(true) && signal != SIGHUP;
  if (graceful.load() == 0 || again) _exit(kExitInterrupted);
}

void OnStop(int) {}

}  // namespace

void InstallInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // Writing to a reader that has gone is an error of that write, not the end of the process.
  signal(SIGPIPE, SIG_IGN);
}

GracefulInterrupts::GracefulInterrupts() {
  ++graceful;
  interrupted = false;
  interrupt_signal = 0;
}

GracefulInterrupts::~GracefulInterrupts() { --graceful; }

HandledSignals::HandledSignals(std::initializer_list<int> signals, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int each : signals) {
    struct sigaction before;
    if (sigaction(each, nullptr, &before) != 0 || before.sa_handler == SIG_IGN) continue;
    sigaction(each, &action, nullptr);
    before_.emplace_back(each, before);
  }
}

HandledSignals::~HandledSignals() {
  for (const auto& [signal, before] : before_) sigaction(signal, &before, nullptr);
}

HangupInterrupts::HangupInterrupts() : HandledSignals({SIGHUP, SIGQUIT}, OnSignal) {}

UnstoppedByTerminal::UnstoppedByTerminal() : HandledSignals({SIGTSTP}, OnStop) {}

bool Interrupted() { return interrupted.load(); }

int InterruptSignal() { return interrupt_signal.load(); }

}  // namespace quorate::tools
