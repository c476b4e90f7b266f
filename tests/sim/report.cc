#include "tests/sim/report.h"

#include <cstdio>

namespace quorate::sim {

const char* ReachedName(Reached state) {
  static constexpr const char* kNames[] = {"election",
                                           "birth complete",
                                           "suffix of a log cut",
                                           "committed before the leader's own flush",
                                           "torn tail cut by recovery",
                                           "damaged copy of term and vote",
                                           "crash while starting",
                                           "log cut in front",
                                           "log read for a follower",
                                           "snapshot offered",
                                           "snapshot installed",
                                           "leadership handed over",
                                           "membership changed",
                                           "session opened",
                                           "session lost",
                                           "write sent again",
                                           "write retried by its client",
                                           "repeat found by its request id",
                                           "skip",
                                           "found applied after a resend",
                                           "duplicate found applied",
                                           "refused by the leader",
                                           "write answered",
                                           "write unknown",
                                           "write not accepted",
                                           "condition false",
                                           "linearizable read",
                                           "read by lease",
                                           "local read",
                                           "local read with a measured age",
                                           "read refused",
                                           "watch event",
                                           "state shown to a watch",
                                           "watch progress mark",
                                           "watch reset",
                                           "watch ended by the hub",
                                           "operation without an outcome"};
  static_assert(std::size(kNames) == kReached);
  return kNames[static_cast<size_t>(state)];
}

void Report::Add(const Report& other) {
  for (size_t i = 0; i < kFaults; ++i) faults[i] += other.faults[i];
  for (size_t i = 0; i < kReached; ++i) reached[i] += other.reached[i];
  runs += other.runs;
  operations += other.operations;
  events += other.events;
  virtual_time += other.virtual_time;
  disk_operations += other.disk_operations;
  messages += other.messages;
  undecided += other.undecided;
}

std::string Report::Text() const {
  std::string text;
  char line[160];
  const auto add = [&](const char* name, uint64_t count) {
    std::snprintf(line, sizeof line, "  %-42s %12llu\n", name,
                  static_cast<unsigned long long>(count));
    text += line;
  };
  text += "faults\n";
  for (size_t i = 0; i < kFaults; ++i) add(FaultName(static_cast<Fault>(i)), faults[i]);
  text += "reached\n";
  for (size_t i = 0; i < kReached; ++i) add(ReachedName(static_cast<Reached>(i)), reached[i]);
  text += "sums\n";
  add("runs", runs);
  add("virtual seconds", static_cast<uint64_t>(virtual_time / kSecond));
  add("client operations", operations);
  add("messages", messages);
  add("disk operations", disk_operations);
  add("events", events);
  add("histories not decided", undecided);
  return text;
}

}  // namespace quorate::sim
