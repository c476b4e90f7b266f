#include "tests/sim/report.h"

#include <algorithm>
#include <cstdio>

namespace quorate::sim {
namespace {

// Which runs can get there.
enum class By : uint8_t { kAll, kSqlite };
struct State {
  const char* name;
  By by = By::kAll;
};

constexpr State kStates[] = {
    {"election"},
    {"birth complete"},
    {"suffix of a log cut"},
    {"suffix of more than 3 entries cut"},
    {"change of the members cut"},
    {"committed before the leader's own flush"},
    {"torn tail cut by recovery"},
    {"damaged copy of term and vote"},
    {"crash while starting"},
    {"stopped between disk operations, at work"},
    {"stopped between disk operations, starting"},
    {"power lost in a flush"},
    {"everybody down at one instant"},
    {"clock over its edge"},
    {"restart with a shorter election timeout"},
    {"log cut in front"},
    {"log read for a follower"},
    {"snapshot offered"},
    {"snapshot installed"},
    {"snapshot in place of a conflicting log"},
    {"snapshot over a later change of the members"},
    {"snapshot stream broken half way"},
    {"snapshot given up"},
    {"leadership handed over"},
    {"membership changed"},
    {"learner promoted"},
    {"voter demoted"},
    {"voter removed"},
    {"leader that left the voters"},
    {"election in a joint phase"},
    {"minority that stays down"},
    {"session opened"},
    {"session lost"},
    {"session replaced by the next process"},
    {"session gone with its store"},
    {"command without a session"},
    {"stream of forwarding broken"},
    {"write sent again"},
    {"write retried by its client"},
    {"repeat found by its request id"},
    {"request id expired"},
    {"no room for a request id"},
    {"skip"},
    {"found applied after a resend"},
    {"duplicate found applied"},
    {"refused by the leader"},
    {"write answered"},
    {"write unknown"},
    {"write not accepted"},
    {"condition false"},
    {"transaction, then"},
    {"transaction, else"},
    {"transaction aborted"},
    {"range deleted"},
    {"rolled back"},
    {"rollback of nothing"},
    {"rollback refused"},
    {"history compacted"},
    {"time-to-live granted"},
    {"time-to-live kept alive"},
    {"time-to-live revoked"},
    {"time-to-live expired"},
    {"key gone with its time-to-live"},
    {"time-to-live over an election"},
    {"time-to-live not there any more"},
    {"linearizable read"},
    {"read by lease"},
    {"lease over when the read was done"},
    {"local read"},
    {"local read with a measured age"},
    {"local read of unknown age"},
    {"read refused as too stale"},
    {"read that waited for a revision"},
    {"read refused"},
    {"list"},
    {"later page of a list"},
    {"count"},
    {"history read"},
    {"read of the past"},
    {"past compacted"},
    {"future refused"},
    {"watch event", By::kSqlite},
    {"revision in more than one watch message", By::kSqlite},
    {"state shown to a watch", By::kSqlite},
    {"watch progress mark", By::kSqlite},
    {"watch told that there is no leader", By::kSqlite},
    {"watch told of a leader again", By::kSqlite},
    {"watch reset", By::kSqlite},
    {"watch ended by the hub", By::kSqlite},
    {"operation without an outcome"},
    {"birth: searching"},
    {"birth: founders differ"},
    {"birth: proposing"},
    {"birth: pledged"},
    {"birth: waiting to join"},
    {"birth: born"},
    {"birth: founder lost"},
    {"birth: complete"},
    {"pledge moved on"},
    {"Born refused"},
    {"store let in"},
    {"invitation refused"},
    {"message before taking part"},
    {"founder wiped before birth was complete"},
    {"birth begun again"},
    {"founders corrected"},
    {"read failed"},
    {"write failed"},
    {"flush failed"},
    {"change of a name or size failed"},
    {"no space left"},
    {"applied and not heard of", By::kSqlite},
    {"entry longer than a segment"},
    {"bit flipped in the log"},
    {"bit flipped in the identity"},
    {"bit flipped in the state", By::kSqlite},
    {"bit flipped in a state on its way", By::kSqlite},
    {"damage noticed"},
    {"damage did no harm"},
    {"damaged disk emptied"},
    {"damaged disk put back"},
    {"DNS: no answer"},
    {"DNS: partial answer"},
    {"DNS: incomplete answer that looks whole"},
    {"DNS: old answer"},
    {"address that another machine had"},
    {"nobody at a store's address"},
    {"another store at a store's address"},
    {"peer lost"},
    {"let in by itself"},
    {"promoted by itself"},
    {"replaced by itself"},
    {"autopilot refused"},
};
static_assert(std::size(kStates) == kReached);

}  // namespace

const char* ReachedName(Reached state) { return kStates[static_cast<size_t>(state)].name; }

void Report::CountStages(Micros leader, Micros answer, Micros well) {
  slowest[0] = std::max(slowest[0], leader);
  slowest[1] = std::max(slowest[1], answer);
  slowest[2] = std::max(slowest[2], well);
}

void Report::EndRun(bool sqlite, Micros time, uint64_t ended, uint64_t under_faults,
                    uint64_t steps) {
  runs = 1;
  sqlite_runs = sqlite ? 1 : 0;
  virtual_time = time;
  operations = operations_min = ended;
  operations_under_faults = under_faults;
  mostly_calm = under_faults < kOperationsUnderFaultsFew ? 1 : 0;
  events = steps;
  too_short = time < kVirtualTimeMin || ended < kOperationsMin ? 1 : 0;
}

void Report::Add(const Report& other) {
  for (size_t i = 0; i < kFaults; ++i) faults[i] += other.faults[i];
  for (size_t i = 0; i < kReached; ++i) reached[i] += other.reached[i];
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] += other.sizes[i];
  CountStages(other.slowest[0], other.slowest[1], other.slowest[2]);
  runs += other.runs;
  sqlite_runs += other.sqlite_runs;
  operations += other.operations;
  events += other.events;
  virtual_time += other.virtual_time;
  disk_operations += other.disk_operations;
  messages += other.messages;
  undecided += other.undecided;
  too_short += other.too_short;
  operations_under_faults += other.operations_under_faults;
  mostly_calm += other.mostly_calm;
  operations_min = std::min(operations_min, other.operations_min);
}

std::vector<std::string> Report::Missing(uint64_t runs_min) const {
  std::vector<std::string> missing;
  const auto look = [&](uint64_t reached_times, uint64_t runs_that_could, const std::string& name) {
    if (reached_times == 0 && runs_that_could >= runs_min) missing.push_back(name);
  };
  for (size_t i = 0; i < kFaults; ++i) look(faults[i], runs, FaultName(static_cast<Fault>(i)));
  for (size_t i = 0; i < kReached; ++i) {
    look(reached[i], kStates[i].by == By::kSqlite ? sqlite_runs : runs, kStates[i].name);
  }
  for (size_t i = 1; i < sizes.size(); ++i) {
    look(sizes[i], runs, std::to_string(i) + " founders");
  }
  return missing;
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
  add("of them with SQLite", sqlite_runs);
  add("virtual seconds", static_cast<uint64_t>(virtual_time / kSecond));
  add("client operations", operations);
  add("of them under faults", operations_under_faults);
  add("fewest in a run", runs == 0 ? 0 : operations_min);
  add("runs with less than 500 under faults", mostly_calm);
  add("runs shorter than they should be", too_short);
  add("messages", messages);
  add("disk operations", disk_operations);
  add("steps", events);
  add("histories not decided", undecided);
  text += "slowest, without faults, in ms\n";
  static constexpr const char* kStages[] = {"until a leader is ready", "then until it answers",
                                            "until all is well"};
  for (size_t i = 0; i < slowest.size(); ++i) {
    add(kStages[i], static_cast<uint64_t>(slowest[i] / kMillisecond));
  }
  return text;
}

}  // namespace quorate::sim
