#include "tests/sim/faults.h"

#include <algorithm>
#include <numeric>

#include "storage/directory.h"
#include "tests/sim/operators.h"

namespace quorate::sim {
namespace {

// Those that have a moment; the others are in force all the time.
constexpr Fault kMoments[] = {
    Fault::kPartition,    Fault::kOneWay,    Fault::kLinkCut,     Fault::kClog,
    Fault::kPowerFailure, Fault::kKill,      Fault::kCrashInDisk, Fault::kPause,
    Fault::kSlowNode,     Fault::kSlowFlush, Fault::kDiskError,   Fault::kDiskFull,
    Fault::kTransfer,     Fault::kWipe,      Fault::kBitFlip,     Fault::kBlackout};

constexpr Micros kAloneLonger = 20 * kSecond;

}  // namespace

void Faults::Start() {
  Again();
  if (!context_->plan.birth) return;
  // Birth takes a second or two: some of the faults come into it.
  for (uint64_t n = context_->random.Below(8); n > 0; --n) {
    const Micros end = context_->plan.start_spread + 2 * kSecond;
    context_->events.After(context_->random.Between(0, end), [this] {
      if (!stopped_) HappenDuringBirth();
    });
  }
}

void Faults::HappenDuringBirth() {
  std::vector<Fault> possible;
  for (Fault fault : {Fault::kPartition, Fault::kLinkCut, Fault::kClog, Fault::kPowerFailure,
                      Fault::kKill, Fault::kCrashInDisk, Fault::kPause, Fault::kDiskError,
                      Fault::kWipe, Fault::kWipe, Fault::kBlackout}) {
    if (context_->plan.Has(fault)) possible.push_back(fault);
  }
  if (possible.empty()) return;
  const size_t machine = AnyMachine();  // drawn first: arguments have no order
  Do(context_->random.Pick(possible), machine);
}

void Faults::Again() {
  const Micros mean = context_->plan.fault_interval;
  context_->events.After(context_->random.Between(1, 2 * mean), [this] {
    if (stopped_) return;
    Trouble(AnyMachine());
    Again();
  });
}

void Faults::Stop() {
  stopped_ = true;
  context_->network.Heal();
  context_->names.Heal();
  for (const auto& machine : context_->machines) {
    machine->paused_until = machine->slow_until = machine->stalled_until = 0;
    machine->disk.SetCapacity(UINT64_MAX);
  }
}

// No more of these than of the others, and sometimes the moment passes before it comes.
void Faults::OnMoment(size_t machine) {
  const Plan& plan = context_->plan;
  const Micros now = context_->events.now();
  if (stopped_ || now < next_strike_ || !context_->random.Chance(plan.strike_permille)) return;
  next_strike_ = now + context_->random.Between(0, 2 * plan.fault_interval);
  context_->events.After(context_->random.Skewed(1, 300 * kMillisecond), [this, machine] {
    if (!stopped_) Trouble(context_->random.OneIn(4) ? AnyMachine() : machine);
  });
}

void Faults::Trouble(size_t machine) {
  std::vector<Fault> possible;
  for (Fault fault : kMoments) {
    if (context_->plan.Has(fault)) possible.push_back(fault);
  }
  if (possible.empty()) return;
  Do(context_->random.Pick(possible), machine);
  hands_.alarm(machine);
  if (!context_->random.Chance(context_->plan.company_permille)) return;
  context_->events.After(context_->random.Skewed(1, 200 * kMillisecond), [this, machine] {
    if (!stopped_) Trouble(machine);
  });
}

void Faults::Do(Fault fault, size_t at) {
  context_->trace.Note(kTraceFault, static_cast<uint64_t>(fault));
  Machine& machine = *context_->machines[at];
  switch (fault) {
    case Fault::kPartition:
      return Partition(at);
    case Fault::kOneWay:
      return OneWay(at);
    case Fault::kLinkCut:
      return CutLink(at);
    case Fault::kClog:
      return Clog(at);
    case Fault::kPowerFailure:
    case Fault::kKill:
      if (hands_.crash(at, fault == Fault::kPowerFailure)) context_->report.Count(fault);
      return;
    case Fault::kBlackout:
      return Blackout();
    case Fault::kCrashInDisk:
      return CrashInDisk(&machine);
    case Fault::kPause:
    case Fault::kSlowNode:
    case Fault::kSlowFlush:
      return Lame(&machine, fault);
    case Fault::kDiskError:
      return DiskError(&machine);
    case Fault::kDiskFull:
      return DiskFull(&machine);
    case Fault::kTransfer:
      return Transfer(at);
    case Fault::kWipe:
      return hands_.wipe(machine.number);
    case Fault::kBitFlip:
      return BitFlip(&machine);
    default:
      return;
  }
}

Micros Faults::Length() { return context_->random.Between(1, context_->plan.fault_length); }

// The leader's more often than anybody else's: what it has not committed yet is where most is at
// stake, and it takes another leader to show.
size_t Faults::AnyMachine() {
  if (context_->random.OneIn(3)) {
    const Process* const leader = Operators::Leader(context_);
    if (leader != nullptr) return leader->machine();
  }
  return context_->random.Below(context_->machines.size());
}

// All of it, all of it but not quite, or its flushes: for a while.
void Faults::Lame(Machine* machine, Fault fault) {
  Micros& until = fault == Fault::kPause      ? machine->paused_until
                  : fault == Fault::kSlowNode ? machine->slow_until
                                              : machine->stalled_until;
  until = context_->events.now() + Length();
  Context::BeginFault(machine, fault);
  if (!context_->trace.telling()) return;
  context_->trace.Tell("%s: %s", machine->name.c_str(),
                       fault == Fault::kPause      ? "pauses"
                       : fault == Fault::kSlowNode ? "is slow"
                                                   : "no flush ends");
}

// --- Network ---

void Faults::Partition(size_t at) {
  const size_t count = context_->machines.size();
  if (count < 2) return;
  Micros until = context_->events.now() + Length();
  const uint64_t groups = context_->random.OneIn(4) ? 3 : 2;
  std::vector<uint64_t> group(count);
  for (uint64_t& each : group) each = context_->random.Below(groups);
  const bool alone = context_->random.OneIn(3);
  if (alone || std::count(group.begin(), group.end(), group[at]) == static_cast<ptrdiff_t>(count)) {
    std::fill(group.begin(), group.end(), 0);
    group[at] = 1;
    // So long that the others have cut their logs when it comes back.
    if (context_->random.OneIn(4)) until += context_->random.Between(0, kAloneLonger);
  }
  const Network::Trouble trouble = context_->network.Begin(Fault::kPartition);
  for (size_t a = 0; a < count; ++a) {
    for (size_t b = 0; b < count; ++b) {
      if (group[a] != group[b]) context_->network.Cut(a, b, until, trouble);
    }
  }
  if (!context_->trace.telling()) return;
  std::string text;
  for (uint64_t each : group) text += std::to_string(each);
  context_->trace.Tell("network: falls into groups %s", text.c_str());
}

void Faults::OneWay(size_t one) {
  const bool deaf = context_->random.OneIn(2);
  const Micros until = context_->events.now() + Length();
  const Network::Trouble trouble = context_->network.Begin(Fault::kOneWay);
  for (size_t other = 0; other < context_->machines.size(); ++other) {
    if (other == one) continue;
    context_->network.Cut(deaf ? other : one, deaf ? one : other, until, trouble);
  }
  if (context_->trace.telling()) {
    context_->trace.Tell("network: %s %s", context_->machines[one]->name.c_str(),
                         deaf ? "hears nobody" : "is not heard");
  }
}

std::pair<size_t, size_t> Faults::AnyLink(size_t at) {
  const size_t count = context_->machines.size();
  const size_t other = (at + 1 + context_->random.Below(count - 1)) % count;
  if (context_->random.OneIn(2)) return {at, other};
  return {other, at};
}

void Faults::CutLink(size_t at) {
  if (context_->machines.size() < 2) return;
  const auto [a, b] = AnyLink(at);
  const Micros until = context_->events.now() + Length();
  const Network::Trouble trouble = context_->network.Begin(Fault::kLinkCut);
  context_->network.Cut(a, b, until, trouble);
  if (context_->random.OneIn(2)) context_->network.Cut(b, a, until, trouble);
  if (context_->trace.telling()) {
    context_->trace.Tell("network: %s does not reach %s", context_->machines[a]->name.c_str(),
                         context_->machines[b]->name.c_str());
  }
}

void Faults::Clog(size_t at) {
  if (context_->machines.size() < 2) return;
  const auto [a, b] = AnyLink(at);
  const Network::Trouble trouble = context_->network.Begin(Fault::kClog);
  context_->network.Clog(a, b, context_->events.now() + Length(), trouble);
  if (context_->trace.telling()) {
    context_->trace.Tell("network: from %s to %s all is late", context_->machines[a]->name.c_str(),
                         context_->machines[b]->name.c_str());
  }
}

// --- Disks ---

// Everybody's power, or a majority's.
void Faults::Blackout() {
  std::vector<size_t> which(context_->machines.size());
  std::iota(which.begin(), which.end(), size_t{0});
  const bool all = context_->random.OneIn(2);
  while (!all && which.size() > context_->machines.size() / 2 + 1) {
    which.erase(which.begin() + static_cast<ptrdiff_t>(context_->random.Below(which.size())));
  }
  if (context_->trace.telling()) {
    context_->trace.Tell("%zu machines lose power at once", which.size());
  }
  // Of one machine alone it is a power failure like others.
  if (hands_.blackout(which, context_->random.OneIn(2)) > 1) {
    context_->report.Count(Fault::kBlackout);
  }
}

void Faults::CrashInDisk(Machine* machine) {
  // Soon; also in the middle of the next start, if it is down now.
  machine->disk.StopAfter(static_cast<uint64_t>(context_->random.Skewed(1, 64)) - 1);
}

void Faults::DiskError(Machine* machine) {
  const auto after = static_cast<uint64_t>(context_->random.Skewed(1, 64)) - 1;
  if (context_->random.OneIn(4)) {
    machine->disk.FailReadAfter(after, absl::InternalError("input/output error"));
  } else {
    machine->disk.FailAfter(after, absl::InternalError("input/output error"));
  }
}

void Faults::DiskFull(Machine* machine) {
  machine->disk.SetCapacity(machine->disk.UsedBytes() +
                            static_cast<uint64_t>(context_->random.Skewed(1, 200'000)));
  context_->events.After(Length(), [this, machine, before = machine->disk.errors().full] {
    if (machine->disk.errors().full > before) context_->report.Count(Fault::kDiskFull);
    machine->disk.SetCapacity(UINT64_MAX);
  });
}

// One disk at a time, and one that the others can do without. The node finds out when it reads the
// place: at its next start at the latest, which comes soon. The identity is read at a start only,
// and the pages of a database may be in SQLite's cache: they are flipped while nobody runs.
void Faults::BitFlip(Machine* of) {
  Machine& machine = *of;
  for (const auto& each : context_->machines) {
    if (each->corrupt || !each->disk.flipped().empty()) return;
  }
  if (!Operators::CanLose(*context_, machine.number)) return;
  Random& random = context_->random;
  std::string path = storage::IdentityPath(machine.data);
  Reached what = Reached::kFlippedIdentity;
  bool in_front = false;
  const uint64_t dice = random.Below(10);
  if (dice >= 1) {
    const bool state = context_->plan.sqlite && dice >= 5;
    std::string directory = storage::LogDirectory(machine.data);
    if (state) directory = storage::StateDirectory(machine.data, Generation(machine));
    const auto names = machine.disk.List(directory);
    if (!names.ok() || names->empty() || names->back().ends_with(".new")) return;
    path = storage::JoinPath(directory, random.Pick(*names));
    // Behind what was vouched for the newest segment may be damaged unseen (LOG_FORMAT.md).
    in_front = !state && path == storage::JoinPath(directory, names->back());
    what = state ? Reached::kFlippedState : Reached::kFlippedLog;
  }
  const bool at_rest = what != Reached::kFlippedLog || random.OneIn(2);
  if (at_rest) hands_.crash(machine.number, random.OneIn(2));
  std::optional<uint64_t> at;
  for (int tries = 0; tries < 8 && !at; ++tries) at = machine.disk.FlipBit(path, in_front);
  if (!at) return;
  context_->report.Count(Fault::kBitFlip);
  context_->report.Count(what);
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: a bit flips in %s at %llu", machine.name.c_str(), path.c_str(),
                         static_cast<unsigned long long>(*at));
  }
  if (at_rest) return;
  context_->events.After(random.Between(kMillisecond, 5 * kSecond), [this, &machine] {
    if (!stopped_ && !machine.disk.flipped().empty()) hands_.crash(machine.number, false);
  });
}

uint64_t Faults::Generation(const Machine& machine) const {
  Process* const process = machine.process.get();
  return process == nullptr || process->state() == nullptr
             ? 1
             : process->state()->state()->generation();
}

// --- Operators ---

void Faults::Transfer(size_t at) {
  Process* const leader = Operators::Leader(context_);
  if (leader == nullptr) return;
  StoreId target;
  if (context_->random.OneIn(2)) target = context_->machines[at]->store;
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: is asked to hand leadership over",
                         context_->machines[leader->machine()]->name.c_str());
  }
  leader->node()->TransferLeadership(
      target, [context = context_, machine = leader->machine(), life = leader->life(),
               term = leader->status()->term](raft::TransferStatus status) {
        // A process that ends answers everybody: that is no news.
        const Process* const process = context->machines[machine]->process.get();
        if (process == nullptr || process->life() != life || process->dead()) return;
        const bool done = status == raft::TransferStatus::kDone;
        if (done || status == raft::TransferStatus::kFailed)
          context->report.Count(Fault::kTransfer);
        // It may have stepped down for another reason.
        if (done && context->handed_over == term) context->report.Count(Reached::kTransferDone);
      });
  leader->Wake(Process::Job::kNode, 1);
}

}  // namespace quorate::sim
