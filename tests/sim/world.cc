#include "tests/sim/world.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "raft/birth_record.h"
#include "tests/sim/calm.h"
#include "tests/sim/clients.h"
#include "tests/sim/context.h"
#include "tests/sim/faults.h"
#include "tests/sim/mail.h"
#include "tests/sim/operators.h"
#include "tests/sim/process.h"
#include "tests/sim/sqlite_vfs.h"
#include "tests/sim/watches.h"

namespace quorate::sim {
namespace {

// By how much a run may become longer so that kOperationsMin is reached: with faults, and without.
constexpr Micros kFaultsLongerMax = 60 * kSecond;
constexpr Micros kCalmLongerMax = 1800 * kSecond;
// How many processes may still end by themselves when the faults are over: what was damaged before
// is found.
constexpr uint64_t kEndsInCalmMax = 20;
// How long it is waited for an election to end the faults in.
constexpr Micros kFaultsForCampaign = 10 * kSecond;

class World {
 public:
  World(const Plan& plan, std::FILE* story);
  ~World();
  Result Run();

 private:
  void MakeMachines();
  void MakeFounders();
  // Notes it when this machine's clock passes the last number of milliseconds of 32 bits, signed
  // and not, with a node at work.
  void WatchClock(size_t machine);
  // What the next process of this machine is configured with.
  void Configure(Machine* machine);
  void StartProcess(size_t machine);
  void StartLater(size_t machine);
  void Bury(size_t machine, bool power);
  SimulatedDisk::Fate AnyFate();
  void PowerFailure(Machine* machine, SimulatedDisk::Fate fate);
  // All of these lose power at one instant, whether they run or not.
  // Returns how many processes have ended by it.
  size_t Blackout(const std::vector<size_t>& machines, bool all_unsynced_is_lost);
  std::vector<size_t> Everybody() const;
  // False: no process was there.
  bool Crash(size_t machine, bool power);
  void Wipe(size_t machine);
  void Empty(size_t machine);
  // Somebody does what a node says that refuses to start: empties its disk.
  void ReplaceDamaged(size_t machine, int tries);
  void CorrectFounders(size_t machine);
  // Somebody looks at what the processes say of birth, now and then.
  void LookAfterBirth();
  void BeginBirthAgain();
  // Of a cluster that is gone before its birth was complete nothing counts any more.
  void Forget();
  void RunUntilBusy(Micros longer_max);
  void RunUntilCampaign();

  Context context_;
  std::vector<std::unique_ptr<SqliteMount>> mounts_;
  Clients clients_;
  Faults faults_;
  Operators operators_;
  Watchers watchers_;
  Calm calm_;
  Mail mail_;
  Micros founder_lost_since_ = kNever;
  uint64_t ends_in_calm_ = 0;
};

World::World(const Plan& plan, std::FILE* story)
    : context_(plan, story),
      clients_(&context_),
      faults_(&context_, {[this](size_t machine, bool power) { return Crash(machine, power); },
                          [this](size_t machine) { Wipe(machine); },
                          [this](size_t machine) { operators_.OnTrouble(machine); },
                          [this](const std::vector<size_t>& which, bool lost) {
                            return Blackout(which, lost);
                          }}),
      operators_(&context_),
      watchers_(&context_),
      calm_(&context_, &clients_, &watchers_,
            {[this](size_t machine) { StartProcess(machine); },
             [this](size_t machine) {
               if (context_.machines[machine]->process != nullptr) Bury(machine, true);
             },
             [this] { Blackout(Everybody(), true); }}),
      mail_(&context_) {
  context_.send = [this](size_t from, raft::Message message) {
    mail_.Send(from, std::move(message));
  };
  context_.moment = [this](size_t machine) { faults_.OnMoment(machine); };
  context_.empty_disk = [this](size_t machine) { Empty(machine); };
  context_.process_ended = [this](size_t machine, const char* why) {
    if (context_.trace.telling()) {
      context_.trace.Tell("%s: ends: %s", context_.machines[machine]->name.c_str(), why);
    }
    // Between two disk operations it is the power that fails, or somebody who kills the process.
    const bool stopped = context_.machines[machine]->disk.stopped();
    if (stopped) {
      context_.report.Count(Fault::kCrashInDisk);
      const bool at_work = context_.machines[machine]->process->node() != nullptr;
      context_.report.Count(at_work ? Reached::kStoppedAtWork : Reached::kStoppedStarting);
    }
    Bury(machine, stopped && context_.random.Below(4) != 0);
    if (context_.calm && ++ends_in_calm_ > kEndsInCalmMax) {
      context_.failure.Fail(context_.machines[machine]->name +
                            " ends again and again, without faults: " + why);
    }
    if (context_.machines[machine]->corrupt) {
      ReplaceDamaged(machine, 10);
    } else {
      StartLater(machine);
    }
  };
  MakeMachines();
}

World::~World() {
  for (const auto& machine : context_.machines) {
    machine->disk.StopAfter(0);
    machine->process.reset();
  }
}

void World::MakeMachines() {
  Random& random = context_.random;
  const Plan& plan = context_.plan;
  context_.cluster = ClusterId(random.Next() | 1);
  for (size_t i = 0; i < plan.nodes + plan.spares; ++i) {
    auto machine = std::make_unique<Machine>(i, &random, &context_.events);
    machine->name = "cp-" + std::to_string(i);
    context_.names.Assign(machine.get());
    machine->founder = i < plan.nodes;
    machine->store_limits = StoreChecker::LimitsOf(plan);
    Micros reading = random.Between(kSecond, 3600 * kSecond);
    if (plan.Has(Fault::kLongUptime) && random.OneIn(2)) {
      // Just before, at or long after 2^31 and 2^32 milliseconds.
      const Micros edge = (int64_t{1} << (random.OneIn(2) ? 31 : 32)) * kMillisecond;
      reading = edge + random.Between(-60 * kSecond, 60 * kSecond);
      context_.report.Count(Fault::kLongUptime);
    }
    const int64_t ppm = plan.drift_ppm == 0 ? 0 : random.Between(-plan.drift_ppm, plan.drift_ppm);
    if (ppm != 0 && plan.nodes + plan.spares > 1) context_.report.Count(Fault::kDrift);
    machine->clock.Set(reading, ppm);
    if (plan.sqlite) {
      mounts_.push_back(
          std::make_unique<SqliteMount>("/m" + std::to_string(i), &machine->disk, &random));
    }
    context_.machines.push_back(std::move(machine));
    if (plan.Has(Fault::kLongUptime)) WatchClock(i);
  }
  for (const auto& machine : context_.machines) machine->store = StoreId(random.Next() | 1);
  MakeFounders();
  if (plan.birth) return;
  // The founders' stores are made by their first start, which needs no disk fault to be told of.
  raft::Membership membership;
  membership.cluster = context_.cluster;
  for (const auto& machine : context_.machines) {
    if (!machine->founder) continue;
    membership.members.push_back({.store = machine->store,
                                  .name = machine->name,
                                  .address = machine->address,
                                  .voter = true,
                                  .outgoing_voter = false});
  }
  std::sort(membership.members.begin(), membership.members.end(),
            [](const raft::Member& a, const raft::Member& b) { return a.store < b.store; });
  context_.first_entry = raft::FirstEntry(raft::EncodeMembership(membership));
}

void World::WatchClock(size_t number) {
  for (const int bits : {31, 32}) {
    const Instant edge{Duration((int64_t{1} << bits) * kMillisecond)};
    const MachineClock& clock = context_.machines[number]->clock;
    if (clock.reading() >= edge.time_since_epoch().count()) continue;
    context_.events.At(clock.WhenShows(edge), [this, number, edge] {
      const Machine& machine = *context_.machines[number];
      // Unless it was set back, by a power failure.
      if (machine.clock.reading() < edge.time_since_epoch().count()) return;
      if (machine.process == nullptr || machine.process->node() == nullptr) return;
      context_.report.Count(Reached::kClockOverEdge);
    });
  }
}

void World::MakeFounders() {
  Random& random = context_.random;
  std::vector<std::string> names;
  for (size_t i = 0; i < context_.plan.nodes; ++i) names.push_back(context_.machines[i]->name);
  context_.birth_checker.SetFounders(names);
  for (const auto& machine : context_.machines) machine->founders = names;
  if (!context_.plan.birth || !context_.plan.wrong_founders) return;
  Machine& wrong = *context_.machines[random.Below(context_.plan.nodes)];
  wrong.wrong_founders = true;
  // Who is told that it founds alone does so where DNS shows nobody else (DESIGN.md, "Birth"): a
  // wrong configuration and a wrong answer together.
  const bool would_be_alone = context_.plan.dns && wrong.founders.size() == 2;
  if (random.OneIn(2) || would_be_alone) {
    wrong.founders.push_back("cp-9");
  } else {
    wrong.founders.erase(wrong.founders.begin() +
                         static_cast<ptrdiff_t>(random.Below(wrong.founders.size())));
  }
  context_.events.After(random.Between(kSecond, std::min(15 * kSecond, context_.plan.chaos)),
                        [this, number = wrong.number] { CorrectFounders(number); });
}

// --- Processes ---

void World::Configure(Machine* machine) {
  const Plan& plan = context_.plan;
  const bool own = plan.election_percent_max > 100;
  if (machine->election_min != 0 && (!own || context_.random.OneIn(2))) return;
  const int64_t percent = own ? context_.random.Between(100, plan.election_percent_max) : 100;
  const Micros before = machine->election_min;
  machine->election_min = plan.election_min * percent / 100;
  machine->election_max = plan.election_max * percent / 100;
  if (machine->election_min < before) context_.report.Count(Reached::kShorterTimeout);
}

void World::StartProcess(size_t number) {
  Machine& machine = *context_.machines[number];
  if (machine.process != nullptr || machine.corrupt || machine.powered_off_for_good) return;
  ++machine.life;
  Configure(&machine);
  context_.names.Assign(&machine);
  machine.process = std::make_unique<Process>(&context_, &machine);
  if (machine.process->Start()) return;
  context_.report.Count(Reached::kCrashWhileStarting);
  context_.process_ended(number, "it does not get through its start");
}

void World::StartLater(size_t number) {
  const Micros delay =
      context_.calm ? kMillisecond : context_.random.Between(1, context_.plan.restart_delay);
  context_.events.After(delay, [this, number] { StartProcess(number); });
}

void World::Bury(size_t number, bool power) {
  Machine& machine = *context_.machines[number];
  context_.trace.Note(kTraceCrash, number, power, machine.disk.operations());
  if (power && machine.process->flushing()) context_.report.Count(Reached::kPowerLostInFlush);
  // What it still does on its way out changes nothing any more.
  machine.disk.StopAfter(0);
  machine.process.reset();
  clients_.OnProcessGone(number);
  watchers_.OnProcessGone(number);
  context_.raft_checker.OnProcessGone(machine.store);
  if (power) PowerFailure(&machine, AnyFate());
  machine.disk.Revive();
  machine.paused_until = 0;
  context_.names.Release(&machine);
  const bool nobody =
      std::all_of(context_.machines.begin(), context_.machines.end(),
                  [](const auto& each) { return each->process == nullptr && each->life > 0; });
  if (nobody && context_.machines.size() > 1 && !context_.calm) {
    context_.report.Count(Reached::kAllDown);
  }
}

SimulatedDisk::Fate World::AnyFate() {
  return static_cast<SimulatedDisk::Fate>(context_.random.Below(SimulatedDisk::kFates));
}

void World::PowerFailure(Machine* machine, SimulatedDisk::Fate fate) {
  machine->disk.PowerFailure(fate);
  machine->vault.PowerFailure(&context_.random);
  machine->clock.Set(context_.random.Between(kSecond, 100 * kSecond), machine->clock.ppm());
}

size_t World::Blackout(const std::vector<size_t>& numbers, bool all_unsynced_is_lost) {
  size_t ended = 0;
  for (const size_t number : numbers) {
    Machine& machine = *context_.machines[number];
    // Of one that is down it is the page cache that goes.
    if (machine.process != nullptr) {
      ++ended;
      if (machine.process->flushing()) context_.report.Count(Reached::kPowerLostInFlush);
      Bury(number, false);
      StartLater(number);
    }
    PowerFailure(&machine, all_unsynced_is_lost ? SimulatedDisk::Fate::kLost : AnyFate());
  }
  return ended;
}

std::vector<size_t> World::Everybody() const {
  std::vector<size_t> everybody(context_.machines.size());
  std::iota(everybody.begin(), everybody.end(), size_t{0});
  return everybody;
}

bool World::Crash(size_t number, bool power) {
  Machine& machine = *context_.machines[number];
  if (machine.process == nullptr) return false;
  if (context_.trace.telling()) {
    context_.trace.Tell("%s: %s", machine.name.c_str(), power ? "loses power" : "is killed");
  }
  Bury(number, power);
  StartLater(number);
  return true;
}

// The drive is replaced: another store, whatever the machine's name.
void World::Wipe(size_t number) {
  const Machine& machine = *context_.machines[number];
  const bool unborn = context_.plan.birth && !context_.birth_checker.complete();
  if (unborn ? !context_.birth_checker.MayLose(machine) : !Operators::CanLose(context_, number)) {
    return;
  }
  context_.report.Count(Fault::kWipe);
  Empty(number);
  if (!unborn || number >= context_.plan.nodes) return;
  context_.report.Count(Reached::kWipedUnborn);
  // With the only founder that was born its cluster is gone, and nobody has heard of it.
  if (!context_.birth_checker.AnybodyBorn()) Forget();
}

void World::Forget() {
  context_.raft_checker.OnBegunAgain();
  context_.birth_checker.OnBegunAgain();
  context_.history.OnBegunAgain();
}

void World::Empty(size_t number) {
  Machine& machine = *context_.machines[number];
  if (context_.trace.telling()) {
    context_.trace.Tell("%s: gets an empty disk", machine.name.c_str());
  }
  if (machine.process != nullptr) {
    Bury(number, true);
    StartLater(number);
  }
  context_.birth_checker.OnWiped(machine.store);
  machine.disk.Wipe();
  machine.vault.Wipe();
  machine.founder = machine.corrupt = false;
  machine.store = StoreId(context_.random.Next() | 1);
}

// Once the others can do without it. They could when the bit was flipped; if they cannot any more,
// by what became of the members since, the old data come back from wherever there is a copy.
void World::ReplaceDamaged(size_t number, int tries) {
  const Micros delay = context_.random.Between(50 * kMillisecond, kSecond);
  context_.events.After(delay, [this, number, tries] {
    Machine& machine = *context_.machines[number];
    if (!machine.corrupt) return;
    if (Operators::CanLose(context_, number)) {
      context_.report.Count(Reached::kDamageEmptied);
      Empty(number);
    } else if (tries > 0) {
      return ReplaceDamaged(number, tries - 1);
    } else {
      context_.report.Count(Reached::kDamageUndone);
      machine.disk.UndoFlip();
      machine.corrupt = false;
    }
    StartLater(number);
  });
}

// --- Birth ---

void World::CorrectFounders(size_t number) {
  Machine& machine = *context_.machines[number];
  machine.founders.clear();
  for (size_t i = 0; i < context_.plan.nodes; ++i) {
    machine.founders.push_back(context_.machines[i]->name);
  }
  machine.wrong_founders = false;
  context_.report.Count(Reached::kFoundersCorrected);
  if (context_.trace.telling()) {
    context_.trace.Tell("operators: %s is given the others' founders", machine.name.c_str());
  }
  Crash(number, false);
}

void World::LookAfterBirth() {
  if (context_.birth_checker.complete()) return;
  const bool lost =
      std::any_of(context_.machines.begin(), context_.machines.end(), [](const auto& machine) {
        const Process* const process = machine->process.get();
        return process != nullptr && !process->dead() && process->birth() != nullptr &&
               process->birth()->Status().state == raft::BirthState::kFounderLost;
      });
  const Micros now = context_.events.now();
  if (!lost) {
    founder_lost_since_ = kNever;
  } else if (founder_lost_since_ == kNever) {
    founder_lost_since_ = now;
  } else if (now - founder_lost_since_ >= 3 * kSecond) {
    founder_lost_since_ = kNever;
    BeginBirthAgain();
  }
  context_.events.After(500 * kMillisecond, [this] { LookAfterBirth(); });
}

// What such a process says is to be done: all founders are stopped, emptied and started again.
void World::BeginBirthAgain() {
  context_.report.Count(Reached::kBirthBegunAgain);
  if (context_.trace.telling()) context_.trace.Tell("operators: birth begins again");
  for (size_t i = 0; i < context_.plan.nodes; ++i) {
    if (context_.machines[i]->process != nullptr) Bury(i, false);
  }
  Forget();
  for (size_t i = 0; i < context_.plan.nodes; ++i) {
    Empty(i);
    StartLater(i);
  }
}

// --- The run ---

// A run of full length goes on until its clients have done enough to be worth judging.
void World::RunUntilBusy(Micros longer_max) {
  if (context_.plan.chaos < kVirtualTimeMin) return;
  const Micros end = context_.events.now() + longer_max;
  while (!context_.failure.failed() && context_.history.ended() < kOperationsMin &&
         context_.events.now() < end) {
    context_.RunUntil(context_.events.now() + kSecond);
  }
}

// The faults may stop at the worst moment: in the middle of an election.
void World::RunUntilCampaign() {
  if (!context_.plan.calm_in_election || context_.plan.faults == 0) return;
  const uint64_t before = context_.campaigns;
  const Micros end = context_.events.now() + kFaultsForCampaign;
  while (!context_.failure.failed() && context_.campaigns == before &&
         context_.events.now() < end) {
    context_.RunUntil(context_.events.now() + kMillisecond);
  }
  context_.RunUntil(context_.events.now() + context_.random.Skewed(1, context_.plan.election_max));
}

Result World::Run() {
  const Plan& plan = context_.plan;
  if (context_.trace.telling()) context_.trace.Tell("%s", Describe(plan).c_str());
  for (size_t i = 0; i < context_.machines.size(); ++i) {
    context_.events.At(context_.random.Between(0, plan.start_spread),
                       [this, i] { StartProcess(i); });
  }
  if (plan.birth) LookAfterBirth();
  clients_.Start();
  faults_.Start();
  operators_.Start();
  watchers_.Start();
  context_.RunUntil(plan.chaos);
  RunUntilBusy(kFaultsLongerMax);
  RunUntilCampaign();
  clients_.Stop();
  const uint64_t under_faults = context_.history.ended();
  if (!context_.failure.failed()) {
    context_.calm = true;
    faults_.Stop();
    if (context_.trace.telling()) context_.trace.Tell("the faults stop");
    calm_.Run();
  }
  if (!context_.failure.failed()) {
    if (context_.history.ended() < kOperationsMin) clients_.Start();
    RunUntilBusy(kCalmLongerMax);
    clients_.Stop();
  }
  if (!context_.failure.failed() && context_.plan.power_fails_at_end) calm_.LoseAllPowerAtWork();
  const Micros ended = context_.events.now();
  for (const auto& machine : context_.machines) {
    context_.report.disk_operations += machine->disk.operations();
    const SimulatedDisk::Errors& errors = machine->disk.errors();
    context_.report.Count(Reached::kFailedRead, errors.reads);
    context_.report.Count(Reached::kFailedWrite, errors.writes);
    context_.report.Count(Reached::kFailedFlush, errors.syncs);
    context_.report.Count(Reached::kFailedOther, errors.others);
    context_.report.Count(Reached::kDiskWasFull, errors.full);
    context_.report.Count(Fault::kDiskError,
                          errors.reads + errors.writes + errors.syncs + errors.others);
    machine->disk.StopAfter(0);
    machine->process.reset();
  }
  if (!context_.failure.failed()) context_.history.Finish();
  Result result;
  result.failure = context_.failure.text();
  result.failed_at = ended;
  result.trace_hash = context_.trace.hash();
  ++context_.report.sizes[std::min(plan.nodes, kNodesMax)];
  context_.report.EndRun(plan.sqlite, ended, context_.history.ended(), under_faults,
                         context_.events.executed());
  result.report = context_.report;
  return result;
}

}  // namespace

Result RunPlan(const Plan& plan, std::FILE* story) { return World(plan, story).Run(); }

}  // namespace quorate::sim
