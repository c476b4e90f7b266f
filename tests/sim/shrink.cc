#include "tests/sim/shrink.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/check.h"
#include "tests/sim/world.h"

namespace quorate::sim {
namespace {

// A run that takes this long of wall time is no shorter one.
constexpr unsigned kSecondsMax = 120;

// In the child: what went wrong goes into the pipe, also what a CHECK prints.
[[noreturn]] void RunChild(const Plan& plan, int out) {
  std::signal(SIGABRT, SIG_DFL);
  dup2(out, STDERR_FILENO);
  alarm(kSecondsMax);
  const Result result = RunPlan(plan, nullptr);
  if (result.failure.empty()) std::_Exit(0);
  const std::string text = "at " + std::to_string(result.failed_at) + " us: " + result.failure;
  if (write(out, text.data(), text.size()) < 0) std::_Exit(2);
  std::_Exit(1);
}

// What two runs that fail for the same reason say alike: the first words without a digit. (Moments,
// stores, machines, indexes have one.)
std::string KindOf(const std::string& failure) {
  constexpr int kWordsMax = 6;
  std::istringstream words(failure);
  std::string kind, word;
  for (int found = 0; found < kWordsMax && words >> word;) {
    if (word.find_first_of("0123456789") != std::string::npos) continue;
    kind += word + " ";
    ++found;
  }
  return kind;
}

}  // namespace

std::string FailureOf(const Plan& plan) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(ends[0]);
    RunChild(plan, ends[1]);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return "";
  return text.empty() ? "the process ended" : text;
}

Plan Shrink(Plan plan) {
  const std::string kind = KindOf(FailureOf(plan));
  const auto attempt = [&](const Plan& smaller) {
    const std::string failure = FailureOf(smaller);
    if (failure.empty() || KindOf(failure) != kind) return false;
    plan = smaller;
    return true;
  };
  // To the moment of the failure, if it is one of the time with faults.
  for (Micros chaos : {plan.chaos / 8, plan.chaos / 4, plan.chaos / 2, plan.chaos * 3 / 4}) {
    Plan smaller = plan;
    smaller.chaos = chaos / kSecond * kSecond;
    if (smaller.chaos > 0 && attempt(smaller)) break;
  }
  for (bool again = true; again;) {
    again = false;
    for (size_t i = 0; i < kFaults; ++i) {
      if (!plan.Has(static_cast<Fault>(i))) continue;
      Plan smaller = plan;
      smaller.Remove(static_cast<Fault>(i));
      again = attempt(smaller) || again;
    }
  }
  for (size_t clients = 1; clients < plan.clients; clients *= 2) {
    Plan smaller = plan;
    smaller.clients = clients;
    if (attempt(smaller)) break;
  }
  for (size_t nodes = 1; nodes < plan.nodes; ++nodes) {
    Plan smaller = plan;
    smaller.SetNodes(nodes);
    if (attempt(smaller)) break;
  }
  return plan;
}

std::string ArgumentsOf(const Plan& plan) {
  const Plan whole = DrawPlan(plan.seed);
  std::string text = "--seed " + std::to_string(plan.seed);
  if (plan.sqlite != whole.sqlite) text += plan.sqlite ? " --sqlite" : " --memory";
  for (size_t i = 0; i < kFaults; ++i) {
    const Fault fault = static_cast<Fault>(i);
    if (whole.Has(fault) && !plan.Has(fault)) text += std::string(" --without ") + FaultName(fault);
  }
  if (plan.chaos != whole.chaos) text += " --seconds " + std::to_string(plan.chaos / kSecond);
  if (plan.clients != whole.clients) text += " --clients " + std::to_string(plan.clients);
  if (plan.nodes != whole.nodes) text += " --nodes " + std::to_string(plan.nodes);
  return text;
}

}  // namespace quorate::sim
