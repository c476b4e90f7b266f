#include "tests/sim/birth_host.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/check.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

raft::BirthOptions BirthOptionsOf(const BirthHost::Ports& ports, bool birth_complete) {
  const storage::Identity identity = ports.identity->current();
  raft::BirthOptions options;
  options.store = identity.store;
  options.name = ports.machine->name;
  options.address = AddressOf(*ports.machine);
  options.nonce = ports.context->random.Next() | 1;
  options.boot = identity.boot;
  options.seed = ports.context->random.Next();
  options.founders = ports.machine->founders;
  options.birth_complete = birth_complete;
  options.ask_first_max = Duration(ports.machine->election_min);
  return options;
}

Reached ReachedBy(raft::BirthState state) {
  switch (state) {
    case raft::BirthState::kSearching:
      return Reached::kBirthSearching;
    case raft::BirthState::kFoundersDiffer:
      return Reached::kBirthFoundersDiffer;
    case raft::BirthState::kProposing:
      return Reached::kBirthProposing;
    case raft::BirthState::kPledged:
      return Reached::kBirthPledged;
    case raft::BirthState::kWaitingToJoin:
      return Reached::kBirthWaitingToJoin;
    case raft::BirthState::kBorn:
      return Reached::kBirthBorn;
    case raft::BirthState::kFounderLost:
      return Reached::kBirthFounderLost;
    case raft::BirthState::kComplete:
      return Reached::kBirthStateComplete;
    case raft::BirthState::kHalted:
      break;
  }
  CHECK(false, "a state that no process without a double has");
}

// What arrives at a process that stands still waits for it.
bool Postponed(Context* context, size_t machine, const std::function<void()>& again) {
  Machine& there = *context->machines[machine];
  if (there.process == nullptr || there.paused_until <= context->events.now()) return false;
  context->CountFelt(&there, Fault::kPause);
  context->events.At(there.paused_until, again);
  return true;
}

}  // namespace

std::string AddressOf(const Machine& machine) { return machine.name + ":7000"; }

BirthHost::BirthHost(const Ports& ports, raft::BirthRecord record, bool birth_complete)
    : BirthHost(ports, BirthOptionsOf(ports, birth_complete), std::move(record)) {}

BirthHost::BirthHost(const Ports& ports, const raft::BirthOptions& options,
                     raft::BirthRecord record)
    : ports_(ports),
      nonce_(options.nonce),
      birth_(options, std::move(record), Now()),
      completion_passed_on_(options.birth_complete) {}

void BirthHost::Start() {
  if (!Take()) return;
  std::vector<raft::PeerAddress> peers;
  for (const auto& machine : ports_.context->machines) {
    // One founder alone is born only where nobody else is listed. Once there are others, they are.
    const bool alone =
        !ports_.context->birth_checker.complete() && ports_.machine->founders.size() == 1 &&
        ports_.machine->founders.front() == ports_.machine->name && !ports_.machine->wrong_founders;
    if (alone && machine.get() != ports_.machine) continue;
    peers.push_back({AddressOf(*machine), machine->name});
  }
  birth_.SetAddresses(std::move(peers), Now());
  Take();
}

bool BirthHost::Take() {
  raft::BirthOutput output = birth_.TakeOutput();
  if (output.persist) {
    const raft::BirthRecord& record = *output.persist;
    const std::string bytes = raft::EncodeBirthRecord(record);
    const bool newly_born = record.born && !ports_.identity->current().cluster;
    const absl::Status saved = newly_born ? ports_.identity->SetBorn(record.cluster(), bytes)
                                          : ports_.identity->SetBirth(bytes);
    if (!ports_.process->Check(saved, "its birth could not be recorded")) return false;
    ports_.context->birth_checker.OnRecorded(*ports_.machine, ports_.process->store(),
                                             ports_.identity->current());
  }
  std::move(output.calls.begin(), output.calls.end(), std::back_inserter(calls_));
  if (output.create_log) create_log_ = std::move(output.create_log);
  if (output.halt) {
    ports_.context->failure.Fail(ports_.machine->name +
                                 " halts, and has no double: " + *output.halt);
  }
  Note();
  if (!calls_.empty() || create_log_ || (!ran_ && birth_.may_run())) {
    ports_.wake(ports_.context->random.Between(1, 2 * kMillisecond));
  }
  // A deadline may have come with any input.
  const Micros deadline = ports_.machine->clock.WhenShows(birth_.NextDeadline());
  if (deadline != kNever) {
    ports_.wake(std::max<Micros>(deadline - ports_.context->events.now(), 1));
  }
  return true;
}

void BirthHost::Note() {
  const raft::BirthStatus status = Status();
  ports_.context->birth_checker.OnStatus(*ports_.machine, status);
  if (noted_ == status.state || status.state == raft::BirthState::kHalted) return;
  noted_ = status.state;
  ports_.context->report.Count(ReachedBy(status.state));
  ports_.context->trace.Note(kTraceBirth, ports_.machine->number,
                             static_cast<uint64_t>(status.state), status.cluster.value());
  if (!ports_.context->trace.telling()) return;
  ports_.context->trace.Tell("%s: birth: %s%s%s", ports_.machine->name.c_str(),
                             raft::ToString(status.state), status.lacks.empty() ? "" : ": ",
                             status.lacks.empty() ? "" : status.lacks.front().c_str());
}

raft::BirthStatus BirthHost::Status() const { return birth_.Status(Now()); }

raft::IdentifyReply BirthHost::Describe() {
  raft::IdentifyRequest myself;
  myself.nonce = nonce_;  // a question of its own leaves no trace
  return birth_.OnIdentify(myself, Now());
}

// --- The birth thread ---

Micros BirthHost::Run() {
  if (membership_ && birth_.record().born) {
    birth_.OnMembership(*std::exchange(membership_, std::nullopt));
    if (!Take()) return kNever;
  }
  if (std::exchange(complete_, false)) {
    birth_.OnBirthComplete(Now());
    if (!Take()) return kNever;
  }
  const std::vector<raft::BirthCall> calls = std::exchange(calls_, {});
  const auto create_log = std::exchange(create_log_, std::nullopt);
  const bool run = !ran_ && birth_.may_run();
  ran_ = ran_ || run;
  if (run) ports_.run();
  for (const raft::BirthCall& call : calls) Call(call);
  if (create_log) {
    if (!ports_.create_log(*create_log)) return kNever;
    birth_.OnLogCreated(Now());
    if (!Take()) return kNever;
    ports_.born();
    if (ports_.process->dead()) return kNever;
  }
  if (birth_.NextDeadline() <= Now()) {
    birth_.Tick(Now());
    if (!Take()) return kNever;
  }
  return ports_.machine->clock.WhenShows(birth_.NextDeadline());
}

void BirthHost::OnInvited(const raft::Invitation& invitation) {
  const bool before = birth_.record().born;
  const raft::Refusal refusal = birth_.OnInvited(invitation, Now());
  if (!Take()) return;
  if (refusal != raft::Refusal::kNone) {
    ports_.context->report.Count(Reached::kInvitationRefused);
  } else if (!before) {
    ports_.context->report.Count(Reached::kLetIn);
    if (ports_.context->trace.telling()) {
      ports_.context->trace.Tell("%s: is let into the cluster", ports_.machine->name.c_str());
    }
  }
}

void BirthHost::OnStatus(const raft::NodeStatus& status) {
  bool any = false;
  if (status.membership != nullptr && status.membership_index != membership_passed_on_) {
    membership_passed_on_ = status.membership_index;
    membership_ = *status.membership;
    any = true;
  }
  if (status.birth_complete && !completion_passed_on_) {
    completion_passed_on_ = complete_ = any = true;
  }
  if (any) ports_.wake(ports_.context->random.Between(1, 100 * kMillisecond));
}

// --- Calls ---

BirthHost* BirthHost::Living(Context* context, const Caller& caller) {
  Process* const process = context->machines[caller.machine]->process.get();
  if (process == nullptr || process->life() != caller.life || process->dead()) return nullptr;
  return process->birth();
}

// Calls `land` when what leaves now arrives, once for each copy that does; or, perhaps, with false
// when it was lost and the sender hears of it.
void BirthHost::Carry(Context* context, size_t from, size_t to, bool twice,
                      const std::function<void(bool arrived)>& land) {
  const Micros now = context->events.now();
  if (from == to) {
    return context->events.After(context->random.Between(1, 500), [land] { land(true); });
  }
  const Micros at = context->network.Arrival(from, to);
  const Micros again = twice ? context->network.SecondArrival(from, to) : kNever;
  const auto arrive = [context, from, to, sent = now, land] {
    land(context->network.StillOnItsWay(from, to, sent));
  };
  if (again != kNever) context->events.At(again, arrive);
  if (at != kNever) return context->events.At(at, arrive);
  if (again == kNever && context->random.OneIn(2)) {
    context->events.After(context->random.Between(kMillisecond, kSecond), [land] { land(false); });
  }
}

void BirthHost::LandReply(Context* context, const Caller& caller, const raft::BirthReply& reply) {
  const auto again = [context, caller, reply] { LandReply(context, caller, reply); };
  if (Postponed(context, caller.machine, again)) return;
  BirthHost* const host = Living(context, caller);
  if (host == nullptr) return;
  host->birth_.OnReply(caller.call, reply, host->Now());
  host->Take();
  host->ports_.process->AfterStep();
}

void BirthHost::LandFailure(Context* context, const Caller& caller, const char* reason) {
  const auto again = [context, caller, reason] { LandFailure(context, caller, reason); };
  if (Postponed(context, caller.machine, again)) return;
  BirthHost* const host = Living(context, caller);
  if (host == nullptr) return;
  host->birth_.OnCallFailed(caller.call, reason, host->Now());
  host->Take();
  host->ports_.process->AfterStep();
}

void BirthHost::Call(const raft::BirthCall& call) {
  Context* const context = ports_.context;
  const Caller caller{ports_.machine->number, ports_.process->life(), call.id};
  const auto to =
      std::find_if(context->machines.begin(), context->machines.end(),
                   [&](const auto& machine) { return AddressOf(*machine) == call.address; });
  CHECK(to != context->machines.end(), "an address that nobody has told of");
  Carry(context, caller.machine, (*to)->number, true,
        [context, caller, number = (*to)->number, request = call.request](bool arrived) {
          if (!arrived) return LandFailure(context, caller, "connection reset");
          LandRequest(context, number, caller, request);
        });
}

void BirthHost::LandRequest(Context* context, size_t to, const Caller& caller,
                            const raft::BirthRequest& request) {
  const auto again = [context, to, caller, request] { LandRequest(context, to, caller, request); };
  if (Postponed(context, to, again)) return;
  Process* const process = context->machines[to]->process.get();
  if (process == nullptr || process->dead() || process->birth() == nullptr) {
    return Carry(context, to, caller.machine, false, [context, caller](bool arrived) {
      if (arrived) LandFailure(context, caller, "connection refused");
    });
  }
  context->trace.Note(kTraceBirth, caller.machine << 8 | to, request.index());
  process->birth()->OnRequest(caller, request);
  process->AfterStep();
}

void BirthHost::OnRequest(const Caller& caller, const raft::BirthRequest& request) {
  const raft::Pledge before = birth_.record().reported();
  std::optional<raft::BirthReply> reply;
  if (const auto* identify = std::get_if<raft::IdentifyRequest>(&request)) {
    reply = birth_.OnIdentify(*identify, Now());
  } else if (const auto* propose = std::get_if<raft::Propose>(&request)) {
    reply = birth_.OnPropose(*propose, Now());
  } else {
    reply = birth_.OnBorn(std::get<raft::Born>(request), Now());
  }
  Context* const context = ports_.context;
  if (before.round != 0 && birth_.record().reported() != before) {
    context->report.Count(Reached::kPledgeMoved);
  }
  if (const auto* born = std::get_if<raft::BornReply>(&*reply)) {
    if (born->refusal != raft::Refusal::kNone) context->report.Count(Reached::kBornRefused);
  }
  const uint64_t written = ports_.machine->disk.operations();
  if (!Take()) return;
  // What had to be written first takes its time.
  const bool wrote = ports_.machine->disk.operations() != written;
  const Micros flush =
      wrote ? context->random.Between(context->plan.flush_min, 2 * context->plan.flush_max) : 1;
  const Caller me{ports_.machine->number, ports_.process->life(), 0};
  context->events.After(flush, [context, me, caller, reply = *std::move(reply)] {
    if (Living(context, me) == nullptr) return;
    Carry(context, me.machine, caller.machine, true, [context, caller, reply](bool arrived) {
      if (!arrived) return LandFailure(context, caller, "connection reset");
      LandReply(context, caller, reply);
    });
  });
}

}  // namespace quorate::sim
