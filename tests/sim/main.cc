// quorate-sim: runs seeds of the deterministic simulation.
//
//   quorate-sim --seed N [--trace]      one run; its trace hash is the last line
//   quorate-sim --seeds A..B            many, until one fails; the last line is a hash
//                                       of all their trace hashes
//   quorate-sim --random N              N seeds from a random one on
//   quorate-sim --hours H               random seeds for that long
//   quorate-sim --sqlite ...            all of them with the production's state machine on the same
//                                       disk, or with --memory none; else one in eight
// A failing seed is shrunk to fewer faults before the program ends (--no-shrink: it is not).
// --seconds, --clients, --nodes, --without and --fault-free change what the seed would have drawn;
// without them each run is of 60 virtual seconds and 1,000 operations at least.
// Once a minute it says on standard error how far it has come.
// Exit: 0 all was well, 1 a seed failed, 2 usage, 3 a history was too hard to judge or a run was
// too short, 4 something that the report lists was not reached, though 500 runs could have.
#include <malloc.h>
#include <sys/time.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "tests/sanitizer_share.h"
#include "tests/sim/shrink.h"
#include "tests/sim/world.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace quorate::sim {
namespace {

struct Arguments {
  uint64_t first = 1, last = 0;  // none when first > last
  double hours = 0;
  uint64_t random = 0;  // so many from a random one on
  bool trace = false;
  bool verbose = false;
  bool shrink = true;
  bool sqlite = false, memory = false;  // instead of what is drawn
  bool fault_free = false;
  // 0: the plan's.
  Micros chaos = 0;
  size_t clients = 0;
  size_t nodes = 0;
  uint64_t without = 0;  // faults, by bit

  bool default_plan() const {
    return chaos == 0 && clients == 0 && nodes == 0 && without == 0 && !fault_free;
  }
};

[[noreturn]] void Usage() {
  std::fputs(
      "usage: quorate-sim (--seed N | --seeds A..B | --random N | --hours H) [--trace]\n"
      "                   [--sqlite | --memory] [--verbose] [--seconds S] [--clients N]\n"
      "                   [--nodes N] [--without FAULT]... [--no-shrink] [--fault-free]\n",
      stderr);
  std::exit(2);
}

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--trace") {
      arguments.trace = true;
      continue;
    }
    if (name == "--verbose") {
      arguments.verbose = true;
      continue;
    }
    if (name == "--sqlite") {
      arguments.sqlite = true;
      continue;
    }
    if (name == "--memory") {
      arguments.memory = true;
      continue;
    }
    if (name == "--fault-free") {
      arguments.fault_free = true;
      continue;
    }
    if (name == "--no-shrink") {
      arguments.shrink = false;
      continue;
    }
    if (++i == argc) Usage();
    const char* value = argv[i];
    if (name == "--seed") {
      arguments.first = arguments.last = std::strtoull(value, nullptr, 10);
    } else if (name == "--seeds") {
      const char* dots = std::strstr(value, "..");
      if (dots == nullptr) Usage();
      arguments.first = std::strtoull(value, nullptr, 10);
      arguments.last = std::strtoull(dots + 2, nullptr, 10);
    } else if (name == "--random") {
      arguments.random = std::strtoull(value, nullptr, 10);
    } else if (name == "--hours") {
      arguments.hours = std::strtod(value, nullptr);
    } else if (name == "--seconds") {
      arguments.chaos = std::strtoll(value, nullptr, 10) * kSecond;
    } else if (name == "--clients") {
      arguments.clients = std::strtoull(value, nullptr, 10);
    } else if (name == "--nodes") {
      arguments.nodes = std::strtoull(value, nullptr, 10);
    } else if (name == "--without") {
      size_t fault = 0;
      while (fault < kFaults && std::strcmp(value, FaultName(static_cast<Fault>(fault))) != 0) {
        ++fault;
      }
      if (fault == kFaults) Usage();
      arguments.without |= uint64_t{1} << fault;
    } else {
      Usage();
    }
  }
  if (arguments.first > arguments.last && arguments.hours <= 0 && arguments.random == 0) Usage();
  if (arguments.sqlite && arguments.memory) Usage();
  return arguments;
}

Plan PlanOf(uint64_t seed, const Arguments& arguments) {
  Plan plan = DrawPlan(seed);
  for (size_t i = 0; i < kFaults; ++i) {
    if (arguments.fault_free || (arguments.without >> i & 1) != 0) {
      plan.Remove(static_cast<Fault>(i));
    }
  }
  if (arguments.fault_free) {
    plan.minority_stays_down = plan.wrong_founders = plan.power_fails_at_end = false;
    plan.start_spread = std::min(plan.start_spread, kSecond);
  }
  if (arguments.chaos != 0) plan.chaos = arguments.chaos;
  if (arguments.sqlite || arguments.memory) plan.sqlite = arguments.sqlite;
  if (arguments.clients != 0) plan.clients = arguments.clients;
  if (arguments.nodes != 0) plan.SetNodes(arguments.nodes);
  return plan;
}

void ShrinkAndTell(const Plan& plan) {
  std::printf("shrinking\n");
  itimerval no_limit = {};
  setitimer(ITIMER_VIRTUAL, &no_limit, nullptr);
  const Plan small = Shrink(plan);
  std::printf("fails too: quorate-sim %s\n  %s\n  %s\n", ArgumentsOf(small).c_str(),
              FailureOf(small).c_str(), Describe(small).c_str());
}

// A CHECK of the product ends the process, as a signal or a sanitizer does: say which seed it was.
// Nothing of this process is of use any more but what these name; not even its heap.
Plan running_plan;
bool shrink_running_plan = false;
char running_plan_text[1024];
// Of the processor's time: no run takes a hundredth of it, so one that does goes round in a circle.
constexpr time_t kRunSecondsMax = 300;

void TellRunningSeed(const char* why) {
  std::fprintf(stderr, "FAILED seed %llu: %s\n%s\n",
               static_cast<unsigned long long>(running_plan.seed), why, running_plan_text);
}

void OnAbort(int) {
  TellRunningSeed("a CHECK, see above");
  if (shrink_running_plan) ShrinkAndTell(running_plan);
  std::fflush(stdout);
  std::_Exit(1);
}

void OnFatalSignal(int signal) {
  TellRunningSeed(signal == SIGVTALRM ? "the run does not end"
                  : signal == SIGFPE  ? "a signal: division by zero"
                  : signal == SIGILL  ? "a signal: no such instruction"
                                      : "a signal: there is no such memory");
  std::_Exit(1);
}

void NameTheSeedOfCrashes() {
  std::signal(SIGABRT, OnAbort);
  struct sigaction action = {};
  action.sa_handler = OnFatalSignal;
  action.sa_flags = SA_ONSTACK;  // a stack that is used up is one of the reasons
  sigaction(SIGVTALRM, &action, nullptr);
#if defined(__SANITIZE_ADDRESS__)
  // The other signals are the sanitizer's to catch.
  __sanitizer_set_death_callback([] { TellRunningSeed("a sanitizer's complaint, see above"); });
#else
  static char stack[64 << 10];
  stack_t other = {};
  other.ss_sp = stack;
  other.ss_size = sizeof stack;
  sigaltstack(&other, nullptr);
  for (const int each : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(each, &action, nullptr);
#endif
}

void BeginRun(const Plan& plan, bool shrink) {
  running_plan = plan;
  shrink_running_plan = shrink;
  std::snprintf(running_plan_text, sizeof running_plan_text, "%s", Describe(plan).c_str());
  itimerval limit = {};
  limit.it_value.tv_sec = kRunSecondsMax * (kSanitizer ? 10 : 1);
  setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}

// Says how far many runs have come, each time that so much has passed.
class Progress {
 public:
  void Tell(const Report& sum, uint64_t seed, double elapsed_seconds) {
    if (elapsed_seconds < next_seconds_) return;
    next_seconds_ = elapsed_seconds + kIntervalSeconds;
    std::fprintf(stderr, "%.0f s: %llu seeds clean, %.0f virtual seconds; seed %llu begins\n",
                 elapsed_seconds, static_cast<unsigned long long>(sum.runs),
                 static_cast<double>(sum.virtual_time) / 1e6,
                 static_cast<unsigned long long>(seed));
  }

 private:
  static constexpr double kIntervalSeconds = 60;
  double next_seconds_ = kIntervalSeconds;
};

// What many runs must have reached, and each must have been.
constexpr uint64_t kRunsForEverything = 500;
constexpr int kExitNotEnough = 3;
constexpr int kExitNotReached = 4;

int JudgeReport(const Report& sum, const Arguments& arguments) {
  int status = 0;
  if (sum.undecided > 0) {
    std::printf("%llu histories were too hard to judge\n",
                static_cast<unsigned long long>(sum.undecided));
    status = kExitNotEnough;
  }
  if (!arguments.default_plan() || sum.runs < 2) return status;
  const std::vector<std::string> missing = sum.Missing(1);
  if (!missing.empty()) {
    std::printf("never reached:\n");
    for (const std::string& name : missing) std::printf("  %s\n", name.c_str());
  }
  if (status == 0 && !sum.Missing(kRunsForEverything).empty()) status = kExitNotReached;
  if (sum.too_short > 0) {
    std::printf("%llu runs are of less than %lld virtual seconds or %llu operations\n",
                static_cast<unsigned long long>(sum.too_short),
                static_cast<long long>(kVirtualTimeMin / kSecond),
                static_cast<unsigned long long>(kOperationsMin));
    status = kExitNotEnough;
  }
  return status;
}

int Main(int argc, char** argv) {
  Arguments arguments = Parse(argc, argv);
  NameTheSeedOfCrashes();
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  // What one run gives back the next one takes: not worth a call of the kernel each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  Report sum;
  Progress progress;
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::random_device device;
  uint64_t seed = arguments.first;
  if (arguments.hours > 0 || arguments.random > 0) {
    seed = (uint64_t{device()} << 20 ^ device()) >> 4;
  }
  if (arguments.random > 0) arguments.last = seed + arguments.random - 1;
  const uint64_t first = seed;
  std::printf("first seed %llu\n", static_cast<unsigned long long>(seed));
  uint64_t hash = 0;
  int status = 0;
  for (;; ++seed) {
    if (arguments.hours > 0 ? elapsed() > arguments.hours * 3600 : seed > arguments.last) break;
    progress.Tell(sum, seed, elapsed());
    const Plan plan = PlanOf(seed, arguments);
    BeginRun(plan, arguments.shrink);
    const Result result = RunPlan(plan, arguments.trace ? stdout : nullptr);
    sum.Add(result.report);
    hash = sum.runs == 1 ? result.trace_hash : hash * 0x9e3779b97f4a7c15ULL ^ result.trace_hash;
    if (arguments.verbose) {
      std::printf("seed %llu: %llu operations, hash %016llx\n",
                  static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(result.report.operations),
                  static_cast<unsigned long long>(result.trace_hash));
    }
    if (arguments.default_plan() && result.report.too_short > 0 && result.failure.empty()) {
      std::printf("seed %llu: too short: %llu operations\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(result.report.operations));
    }
    if (!result.failure.empty()) {
      std::printf("FAILED seed %llu at %.6f s: %s\n%s\n", static_cast<unsigned long long>(seed),
                  static_cast<double>(result.failed_at) / 1e6, result.failure.c_str(),
                  Describe(plan).c_str());
      if (arguments.shrink) ShrinkAndTell(plan);
      status = 1;
      break;
    }
  }
  std::fputs(sum.Text().c_str(), stdout);
  if (status == 0) status = JudgeReport(sum, arguments);
  const double seconds = elapsed();
  std::printf("%llu seeds from %llu on: %.0f virtual seconds, %llu steps, %llu client operations\n",
              static_cast<unsigned long long>(sum.runs), static_cast<unsigned long long>(first),
              static_cast<double>(sum.virtual_time) / 1e6,
              static_cast<unsigned long long>(sum.events),
              static_cast<unsigned long long>(sum.operations));
  std::printf("%.1f s of wall time, %.0f virtual seconds in each, %.0f operations in each\n",
              seconds, static_cast<double>(sum.virtual_time) / 1e6 / seconds,
              static_cast<double>(sum.operations) / seconds);
  std::printf("trace hash %016llx\n", static_cast<unsigned long long>(hash));
  return status;
}

}  // namespace
}  // namespace quorate::sim

int main(int argc, char** argv) { return quorate::sim::Main(argc, argv); }
