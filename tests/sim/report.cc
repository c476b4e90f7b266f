#include "tests/sim/report.h"

#include <cstdio>

namespace quorate::sim {

namespace {

constexpr const char* kReachedNames[] = {"election",
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
                                         "operation without an outcome",
                                         "birth: searching",
                                         "birth: founders differ",
                                         "birth: proposing",
                                         "birth: pledged",
                                         "birth: waiting to join",
                                         "birth: born",
                                         "birth: founder lost",
                                         "birth: complete",
                                         "pledge moved on",
                                         "Born refused",
                                         "store let in",
                                         "invitation refused",
                                         "message before taking part",
                                         "founder wiped before birth was complete",
                                         "birth begun again",
                                         "founders corrected",
                                         "read failed",
                                         "write failed",
                                         "flush failed",
                                         "change of a name or size failed",
                                         "no space left",
                                         "applied and not heard of",
                                         "entry longer than a segment",
                                         "bit flipped in the log",
                                         "bit flipped in the identity",
                                         "bit flipped in the state",
                                         "bit flipped in a state on its way",
                                         "damage noticed",
                                         "damage did no harm",
                                         "damaged disk emptied",
                                         "damaged disk put back"};
static_assert(std::size(kReachedNames) == kReached);

}  // namespace

const char* ReachedName(Reached state) { return kReachedNames[static_cast<size_t>(state)]; }

void Report::Add(const Report& other) {
  for (size_t i = 0; i < kFaults; ++i) faults[i] += other.faults[i];
  for (size_t i = 0; i < kReached; ++i) reached[i] += other.reached[i];
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] += other.sizes[i];
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
  text += "founders\n";
  for (size_t i = 1; i < sizes.size(); ++i) add(std::to_string(i).c_str(), sizes[i]);
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
