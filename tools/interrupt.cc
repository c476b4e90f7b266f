#include "tools/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "tools/failure.h"

namespace quorate::tools {
namespace {

std::atomic<int> graceful = 0;
std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // or no signal handler could use it

void OnSignal(int) {
  if (graceful.load() == 0 || interrupted.exchange(true)) _exit(kExitInterrupted);
}

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
}

GracefulInterrupts::~GracefulInterrupts() { --graceful; }

bool Interrupted() { return interrupted.load(); }

}  // namespace quorate::tools
