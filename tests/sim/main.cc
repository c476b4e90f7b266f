// quorate-sim: runs seeds of the deterministic simulation.
//
//   quorate-sim --seed N [--trace]      one run; its trace hash is the last line
//   quorate-sim --seeds A..B            many; stops at the first that fails
//   quorate-sim --hours H               random seeds for that long
// Exit: 0 all was well, 1 a seed failed, 2 usage.
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "tests/sim/world.h"

namespace quorate::sim {
namespace {

struct Arguments {
  uint64_t first = 1, last = 0;  // none when first > last
  double hours = 0;
  bool trace = false;
  bool verbose = false;
  Micros chaos = 0;      // 0: the plan's
  uint64_t without = 0;  // faults, by bit
};

[[noreturn]] void Usage() {
  std::fputs(
      "usage: quorate-sim (--seed N | --seeds A..B | --hours H) [--trace] [--verbose]\n"
      "                   [--seconds S] [--without FAULT]...\n",
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
    if (++i == argc) Usage();
    const char* value = argv[i];
    if (name == "--seed") {
      arguments.first = arguments.last = std::strtoull(value, nullptr, 10);
    } else if (name == "--seeds") {
      const char* dots = std::strstr(value, "..");
      if (dots == nullptr) Usage();
      arguments.first = std::strtoull(value, nullptr, 10);
      arguments.last = std::strtoull(dots + 2, nullptr, 10);
    } else if (name == "--hours") {
      arguments.hours = std::strtod(value, nullptr);
    } else if (name == "--seconds") {
      arguments.chaos = std::strtoll(value, nullptr, 10) * kSecond;
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
  if (arguments.first > arguments.last && arguments.hours <= 0) Usage();
  return arguments;
}

// A CHECK of the product ends the process: say which seed it was.
volatile uint64_t running_seed = 0;
void OnAbort(int) {
  char text[64];
  const int length = std::snprintf(text, sizeof text, "FAILED seed %llu: a CHECK, see above\n",
                                   static_cast<unsigned long long>(running_seed));
  std::fwrite(text, 1, static_cast<size_t>(length), stderr);
  std::_Exit(1);
}

Plan PlanOf(uint64_t seed, const Arguments& arguments) {
  Plan plan = DrawPlan(seed);
  plan.faults &= ~arguments.without;
  if (arguments.chaos != 0) plan.chaos = arguments.chaos;
  return plan;
}

int Main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  std::signal(SIGABRT, OnAbort);
  // What one run gives back the next one takes: not worth a call of the kernel each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  Report sum;
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [begin] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::random_device device;
  uint64_t seed = arguments.first;
  if (arguments.hours > 0) seed = (uint64_t{device()} << 20 ^ device()) >> 4;
  std::printf("first seed %llu\n", static_cast<unsigned long long>(seed));
  uint64_t hash = 0;
  int status = 0;
  for (;; ++seed) {
    if (arguments.hours > 0 ? elapsed() > arguments.hours * 3600 : seed > arguments.last) break;
    running_seed = seed;
    const Plan plan = PlanOf(seed, arguments);
    const Result result = RunPlan(plan, arguments.trace ? stdout : nullptr);
    sum.Add(result.report);
    hash = result.trace_hash;
    if (arguments.verbose) {
      std::printf("seed %llu: %llu operations, hash %016llx\n",
                  static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(result.report.operations),
                  static_cast<unsigned long long>(hash));
    }
    if (!result.failure.empty()) {
      std::printf("FAILED seed %llu at %.6f s: %s\n%s\n", static_cast<unsigned long long>(seed),
                  static_cast<double>(result.failed_at) / 1e6, result.failure.c_str(),
                  Describe(plan).c_str());
      status = 1;
      break;
    }
  }
  std::fputs(sum.Text().c_str(), stdout);
  const double seconds = elapsed();
  std::printf("%.1f s of wall time, %.0f virtual seconds in each, %.0f operations in each\n",
              seconds, static_cast<double>(sum.virtual_time) / 1e6 / seconds,
              static_cast<double>(sum.operations) / seconds);
  std::printf("trace hash %016llx\n", static_cast<unsigned long long>(hash));
  return status;
}

}  // namespace
}  // namespace quorate::sim

int main(int argc, char** argv) { return quorate::sim::Main(argc, argv); }
