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
  options.address = ports.machine->address;
  options.nonce = ports.context->random.Next() | 1;
  options.boot = identity.boot;
  options.seed = ports.context->random.Next();
  options.founders = ports.machine->founders;
  options.birth_complete = birth_complete;
  options.caught_up_once = identity.caught_up_once;
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

raft::IdentifyRequest Myself(const raft::BirthOptions& options) {
  return {options.store, options.nonce, options.boot, options.name, options.address};
}

// Calls of this file's own, not Birth's.
constexpr uint64_t kOwnCall = uint64_t{1} << 63;
constexpr Micros kCallTimeout = 2 * kSecond;
constexpr Micros kAskAroundInterval = kSecond;
constexpr Duration kOwnPlaceAsked = std::chrono::minutes(1);

// What arrives at a process that stands still waits for it.
bool Postponed(Context* context, size_t machine, const std::function<void()>& again) {
  Machine& there = *context->machines[machine];
  if (there.process == nullptr || there.paused_until <= context->events.now()) return false;
  context->CountFelt(&there, Fault::kPause);
  context->events.At(there.paused_until, again);
  return true;
}

}  // namespace

BirthHost::BirthHost(const Ports& ports, raft::BirthRecord record, bool birth_complete)
    : BirthHost(ports, BirthOptionsOf(ports, birth_complete), std::move(record)) {}

BirthHost::BirthHost(const Ports& ports, const raft::BirthOptions& options,
                     raft::BirthRecord record)
    : ports_(ports),
      myself_(Myself(options)),
      birth_(options, std::move(record), Now()),
      completion_passed_on_(options.birth_complete),
      started_(Now()),
      found_({}, Now()) {}

void BirthHost::Start() {
  birth_.Begin(Now());
  if (!Take()) return;
  if (ports_.context->plan.dns) {
    LookLater();
    return KeepAsking();
  }
  std::vector<raft::PeerAddress> peers;
  for (const auto& machine : ports_.context->machines) {
    // One founder alone is born only where nobody else is listed. Once there are others, they are.
    const bool alone =
        !ports_.context->birth_checker.complete() && ports_.machine->founders.size() == 1 &&
        ports_.machine->founders.front() == ports_.machine->name && !ports_.machine->wrong_founders;
    if (alone && machine.get() != ports_.machine) continue;
    peers.push_back({machine->address, machine->name});
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
  myself.nonce = myself_.nonce;  // a question of its own leaves no trace
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
  const bool known = status.membership != nullptr && status.membership->cluster;
  if (known && status.membership != membership_passed_on_) {
    membership_passed_on_ = status.membership;
    membership_ = *status.membership;
    ports_.process->directory()->LearnMembership(*status.membership);
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
  const auto* const identity = std::get_if<raft::IdentifyReply>(&reply);
  if (identity != nullptr && identity->store != host->myself_.store) {
    host->ports_.process->directory()->Learn(identity->store, identity->address,
                                             services::PeerDirectory::Source::kDirect);
  }
  if ((caller.call & kOwnCall) != 0) {
    host->EndAsked(caller.call, *identity);
  } else {
    host->NoteReachable(caller.address, true);
    host->birth_.OnReply(caller.call, reply, host->Now());
    host->Take();
  }
  host->ports_.process->AfterStep();
}

void BirthHost::LandFailure(Context* context, const Caller& caller, const char* reason) {
  const auto again = [context, caller, reason] { LandFailure(context, caller, reason); };
  if (Postponed(context, caller.machine, again)) return;
  BirthHost* const host = Living(context, caller);
  if (host == nullptr) return;
  if ((caller.call & kOwnCall) != 0) {
    host->EndAsked(caller.call, std::nullopt);
  } else {
    host->NoteReachable(caller.address, false);
    host->birth_.OnCallFailed(caller.call, reason, host->Now());
    host->Take();
  }
  host->ports_.process->AfterStep();
}

void BirthHost::Call(const raft::BirthCall& call) {
  Context* const context = ports_.context;
  const Caller caller{ports_.machine->number, ports_.process->life(), call.id, call.address};
  const Machine* const to = context->names.At(call.address);
  if (to == nullptr) {
    // Refused by somebody on the way, or silence.
    if (context->random.OneIn(2)) return;
    return context->events.After(context->random.Between(1, kSecond), [context, caller] {
      LandFailure(context, caller, "no route to host");
    });
  }
  Carry(context, caller.machine, to->number, true,
        [context, caller, number = to->number, request = call.request](bool arrived) {
          if (!arrived) return LandFailure(context, caller, "connection reset");
          LandRequest(context, number, std::nullopt, caller, request);
        });
}

// `life`: the process's for which it has waited.
void BirthHost::LandRequest(Context* context, size_t to, std::optional<uint64_t> life,
                            const Caller& caller, const raft::BirthRequest& request) {
  Process* const process = context->machines[to]->process.get();
  const bool there = process != nullptr && !process->dead() && process->birth() != nullptr;
  // With a process goes what it has not taken yet.
  if (there && life.value_or(process->life()) == process->life()) {
    const auto again = [context, to, caller, request, now = process->life()] {
      LandRequest(context, to, now, caller, request);
    };
    if (Postponed(context, to, again)) return;
  } else {
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
    if (identify->store != myself_.store) {
      ports_.process->directory()->Learn(identify->store, identify->address,
                                         services::PeerDirectory::Source::kDirect);
    }
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
  const Caller me{ports_.machine->number, ports_.process->life(), 0, ""};
  context->events.After(flush, [context, me, caller, reply = *std::move(reply)] {
    if (Living(context, me) == nullptr) return;
    Carry(context, me.machine, caller.machine, true, [context, caller, reply](bool arrived) {
      if (!arrived) return LandFailure(context, caller, "connection reset");
      LandReply(context, caller, reply);
    });
  });
}

void BirthHost::Identify(const std::string& address, Asked done) {
  raft::BirthCall call;
  call.id = kOwnCall | ++asked_count_;
  call.address = address;
  call.request = myself_;
  asked_.emplace(call.id, std::move(done));
  ports_.process->After(kCallTimeout, [this, id = call.id] { EndAsked(id, std::nullopt); });
  Call(call);
}

void BirthHost::EndAsked(uint64_t call, const std::optional<raft::IdentifyReply>& reply) {
  const auto found = asked_.find(call);
  if (found == asked_.end()) return;
  const Asked done = std::move(found->second);
  asked_.erase(found);
  done(reply);
}

// --- Discovery ---

void BirthHost::NoteReachable(const std::string& address, bool reachable) {
  if (!ports_.context->plan.dns) return;
  if (reachable) {
    reachable_.insert(address);
  } else if (reachable_.erase(address) > 0) {
    ports_.context->report.Count(Reached::kPeerLost);
    found_.OnPeerLost(Now());
    LookLater();
  }
}

void BirthHost::KeepAsking() {
  ports_.process->After(kAskAroundInterval, [this] { KeepAsking(); });
  const auto status = ports_.process->status();
  if (found_.SetEager(status == nullptr || !status->leader || !status->birth_complete, Now())) {
    LookLater();
  }
  AskAround();
}

void BirthHost::AskAround() {
  std::vector<raft::PeerAddress> ask;
  const auto add = [&ask](const std::string& address) {
    const bool there = std::any_of(ask.begin(), ask.end(), [&](const raft::PeerAddress& each) {
      return each.address == address;
    });
    if (!there) ask.push_back({address, ""});
  };
  const auto members = ports_.process->membership();
  const bool just_started = Now() - started_ < kOwnPlaceAsked;
  if (members != nullptr) {
    for (const raft::Member& member : members->members) {
      if (member.store == myself_.store && !just_started) continue;
      const auto address = ports_.process->directory()->Find(member.store);
      if (address) add(*address);
    }
  }
  bool known = !ask.empty();
  if (found_.known()) {
    known = true;
    for (const std::string& address : found_.addresses()) add(address);
  }
  if (!known || (ask == asked_around_ && found_.whole() == asked_whole_)) return;
  asked_around_ = ask;
  asked_whole_ = found_.whole();
  birth_.SetAddresses(std::move(ask), Now(), asked_whole_);
  Take();
}

void BirthHost::Look() {
  if (!found_.TakeQuestion(Now())) return;  // asked meanwhile
  Names::Answer answer = ports_.context->names.Ask(ports_.machine->number);
  ports_.process->After(answer.after, [this, resolution = std::move(answer.resolution)] {
    if (found_.OnAnswer(resolution, Now())) AskAround();
    LookLater();
  });
}

void BirthHost::LookLater() {
  const Micros at = ports_.machine->clock.WhenShows(found_.NextDeadline());
  if (at == kNever) return;
  ports_.process->After(std::max<Micros>(at - ports_.context->events.now(), 1), [this] { Look(); });
}

}  // namespace quorate::sim
