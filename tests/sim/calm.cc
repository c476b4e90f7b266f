#include "tests/sim/calm.h"

#include <algorithm>
#include <utility>

#include "tests/sim/operators.h"
#include "tests/sim/process.h"
#include "tests/sim/snapshots.h"

namespace quorate::sim {
namespace {

constexpr Micros kLookInterval = 100 * kMillisecond;
constexpr Micros kAskInterval = 500 * kMillisecond;
// A leader is ready within so many of the longest election timeouts, and so long after that, and
// what AnswerBound adds, it has answered somebody.
constexpr Micros kElections = 20;
constexpr Micros kFirstAnswer = 3 * kSecond;
// But a store that was sent away and let in again meanwhile has lost its session with the cluster,
// perhaps more than once, and its ingress begins another one only so often
// (IngressOptions::session_backoff).
constexpr Micros kSessionGone = 2 * kSecond;
// Where nodes find each other by DNS: a question that is open when the faults stop ends by itself
// after 8 s, the next one comes a second later, and the addresses that it brings are asked.
constexpr Micros kFound = 12 * kSecond;
// How old the state that a local read shows may be, in those timeouts.
constexpr Micros kLocalAges = 2;

std::string Seconds(Micros time) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", static_cast<double>(time) / 1e6);
  return text;
}

}  // namespace

void Calm::Run() {
  PowerOffMinority();
  Begin();
  BecomeWell("the faults", true);
  if (!context_->failure.failed()) StaysWell();
}

void Calm::LoseAllPowerAtWork() {
  clients_->Start();
  context_->RunUntil(context_->events.now() +
                     context_->random.Between(50 * kMillisecond, 500 * kMillisecond));
  clients_->Stop();
  if (context_->failure.failed()) return;
  if (context_->trace.telling()) context_->trace.Tell("everybody loses power");
  hands_.power_off_all();
  Begin();
  BecomeWell("the power failure", false);
}

void Calm::PowerOffMinority() {
  const size_t count = context_->machines.size();
  for (size_t tries = context_->plan.minority_stays_down ? count : 0; tries > 0; --tries) {
    const size_t number = context_->random.Below(count);
    Machine& machine = *context_->machines[number];
    if (machine.powered_off_for_good || !Operators::CanLose(*context_, number)) continue;
    machine.powered_off_for_good = true;
    context_->report.Count(Reached::kMinorityDown);
    // Dead, or alive and never heard again.
    if (context_->random.OneIn(2)) {
      context_->network.CutForGood(number);
    } else {
      hands_.power_off(number);
    }
  }
}

void Calm::Begin() {
  for (const auto& machine : context_->machines) {
    machine->disk.Revive();
    // What nobody has noticed is no fault any more.
    if (!machine->corrupt && !machine->disk.flipped().empty()) machine->disk.UndoFlip();
    if (machine->powered_off_for_good) continue;
    hands_.start(machine->number);
    Process* const process = machine->process.get();
    if (process == nullptr) continue;
    // What was to come after a pause comes now.
    if (process->birth() != nullptr) process->Wake(Process::Job::kBirth, 1);
    if (process->node() == nullptr) continue;
    for (const Process::Job job :
         {Process::Job::kNode, Process::Job::kLog, Process::Job::kFlush, Process::Job::kApply,
          Process::Job::kLogRead, Process::Job::kForward}) {
      process->Wake(job, 1);
    }
    if (process->watches() != nullptr) process->Wake(Process::Job::kWatch, 1);
  }
  watchers_->OnCalm();
  proofs_.assign(context_->machines.size(), Proof());
}

// --- The stages ---

void Calm::BecomeWell(const char* after, bool ttls) {
  const Micros begin = context_->events.now();
  const Micros leader_bound =
      std::min(kElections * context_->plan.LongestElection() + (context_->plan.dns ? kFound : 0),
               context_->plan.calm_max);
  Micros unhindered = begin;
  Micros leader = kNever, answered = kNever, answer_bound = 0;
  std::string lacks;
  const auto fail = [&](const std::string& what, Micros time) {
    context_->failure.Fail("liveness: " + what + " " + Seconds(time) + " after " + after + ":" +
                           WhereEverybodyIs());
  };
  while (!context_->failure.failed()) {
    context_->RunUntil(context_->events.now() + kLookInterval);
    const Micros now = context_->events.now();
    if (leader == kNever && IsLeaderReady()) {
      leader = now;
      answer_bound = AnswerBound();
    }
    if (leader == kNever) {
      if (IsHindered()) unhindered = now;
      if (now - unhindered >= leader_bound) fail("there is no leader", now - unhindered);
    } else if (answered == kNever) {
      const auto any = std::find_if(proofs_.begin(), proofs_.end(),
                                    [](const Proof& proof) { return proof.write; });
      if (any != proofs_.end()) answered = now;
      if (now - leader >= answer_bound) fail("nobody answers a write", now - leader);
    }
    if (leader != kNever) Ask();
    lacks = Lacks(ttls);
    if (answered != kNever && lacks.empty()) break;
    if (now - begin >= context_->plan.calm_max) fail("it is not well (" + lacks + ")", now - begin);
  }
  if (context_->failure.failed()) return;
  context_->report.CountStages(leader - unhindered, answered - leader,
                               context_->events.now() - begin);
  CheckStates();
}

// Behind a transfer to who has just gone away, which holds writes up for the longest election
// timeout, and behind all that the leader has taken before. Where somebody is sent a whole state
// that may be needed for a majority, and its pieces may be on their way since before the faults
// stopped.
Micros Calm::AnswerBound() const {
  const Plan& plan = context_->plan;
  const Micros session = plan.Has(Fault::kMembership) || plan.dns ? kSessionGone : 0;
  const Status status = Operators::Leader(context_)->status();
  const uint64_t waiting = status->last_index.value() - status->commit.value();
  const bool sends_state = std::any_of(
      status->peers.begin(), status->peers.end(),
      [](const raft::PeerView& peer) { return peer.needs_snapshot || peer.snapshot_sent; });
  const Micros state = sends_state ? kTransferPatience : 0;
  return plan.BySlowestClock(kFirstAnswer + session + state) + plan.LongestElection() +
         2 * plan.SendingTime(waiting);
}

// A leader that everybody hears leads on: a member that was removed or was away has no way to make
// the others vote (hashicorp/raft #524), and nobody's timer runs out (LogCabin #200).
void Calm::StaysWell() {
  const raft::Term term = Operators::Leader(context_)->status()->term;
  context_->RunUntil(context_->events.now() +
                     std::max(3 * kSecond, 4 * context_->plan.LongestElection()));
  if (context_->failure.failed()) return;
  const Process* const leader = Operators::Leader(context_);
  if (leader != nullptr && leader->status()->term == term) return;
  context_->failure.Fail("without faults the leader of term " + ToString(term) + " is deposed");
}

// Whoever waits to be born, or for somebody who replaces a damaged disk, elects nobody.
bool Calm::IsHindered() const {
  if (context_->plan.birth && !context_->birth_checker.complete()) return true;
  return std::any_of(context_->machines.begin(), context_->machines.end(), [](const auto& machine) {
    return !machine->powered_off_for_good && (machine->corrupt || machine->process == nullptr);
  });
}

bool Calm::IsLeaderReady() const {
  return std::any_of(context_->machines.begin(), context_->machines.end(), [](const auto& each) {
    const Process* const process = each->process.get();
    if (process == nullptr || process->dead() || each->powered_off_for_good) return false;
    const Status status = process->status();
    return status != nullptr && status->leader_ready && status->birth_complete;
  });
}

// --- What everybody must answer ---

void Calm::Ask() {
  const Micros now = context_->events.now();
  for (const auto& machine : context_->machines) {
    Proof& proof = proofs_[machine->number];
    Process* const process = machine->process.get();
    if (machine->powered_off_for_good || proof.all() || now < proof.asked + kAskInterval ||
        process == nullptr || process->dead() || process->node() == nullptr) {
      continue;
    }
    proof.asked = now;
    AskReads(machine->number);
    if (proof.write) continue;
    clients_->WriteOnce(machine->number, [this, number = machine->number](bool answered) {
      if (answered) proofs_[number].write = true;
    });
  }
}

// Of the whole store, so that all of it is compared with what was acknowledged.
void Calm::AskReads(size_t number) {
  if (!proofs_[number].linearizable) {
    clients_->ReadAllOnce(number, ReadQuestion::Freshness::kLinearizable,
                          [this, number](const auto& answer) {
                            if (answer.status == ReadAnswer::Status::kServed)
                              proofs_[number].linearizable = true;
                          });
  }
  if (!context_->plan.leases) proofs_[number].lease = true;
  if (!proofs_[number].lease) {
    clients_->ReadAllOnce(number, ReadQuestion::Freshness::kLease,
                          [this, number](const auto& answer) {
                            if (answer.status != ReadAnswer::Status::kServed) return;
                            // At the leader it is its own lease that must do, unless it has been
                            // given up in this term.
                            const Status status = context_->machines[number]->process->status();
                            if (status->role == raft::Role::kLeader &&
                                status->term != context_->handed_over && !answer.by_lease) {
                              return;
                            }
                            proofs_[number].lease = true;
                          });
  }
  if (!proofs_[number].local) {
    clients_->ReadAllOnce(number, ReadQuestion::Freshness::kLocal,
                          [this, number](const auto& answer) {
                            if (answer.status != ReadAnswer::Status::kServed || !answer.age) return;
                            const Micros age = context_->events.now() - *answer.age;
                            if (age <= kLocalAges * context_->plan.LongestElection())
                              proofs_[number].local = true;
                          });
  }
}

// --- What well is ---

std::string Calm::Lacks(bool ttls) const {
  Process* const leader = Operators::Leader(context_);
  if (leader == nullptr || !leader->status()->leader_ready) return "no leader";
  const auto members = leader->status()->membership;
  if (members->joint) return "a change of the members is under way";
  const Plan& plan = context_->plan;
  if (plan.dns && !plan.Has(Fault::kMembership) &&
      members->Voters().size() > std::max(plan.nodes, plan.voters_max)) {
    return "more vote than are wanted";
  }
  for (const auto& machine : context_->machines) {
    const std::string lacks = LacksMember(*members, *machine);
    if (!lacks.empty()) return machine->name + " " + lacks;
  }
  // Nobody keeps a time-to-live alive any more: all must end.
  const size_t lives = context_->history.store().model().ttls().size();
  if (ttls && lives > 0) return std::to_string(lives) + " time-to-lives do not end";
  if (!watchers_->AllKnow(leader->state()->Summary().revision)) {
    return "not told of everything:" + watchers_->Text();
  }
  return "";
}

std::string Calm::LacksMember(const raft::Membership& members, const Machine& machine) const {
  if (machine.powered_off_for_good) return "";
  // A store that is no more is replaced by what its machine has now.
  for (const raft::Member& member : members.members) {
    if (member.name == machine.name && member.store != machine.store) return "has a ghost";
  }
  const raft::Member* const member = members.Find(machine.store);
  // Where members come and go for no reason anybody may have been sent away.
  if (!context_->plan.Has(Fault::kMembership)) {
    if (member == nullptr) return "is no member";
    // By themselves as many get a vote as are wanted.
    const bool enough = context_->plan.dns && members.Voters().size() >= context_->plan.voters_max;
    if (!member->voter && !enough) return "is no voter";
  }
  if (member == nullptr) return "";
  if (machine.process == nullptr) return "is down";
  const Status status = machine.process->status();
  if (status == nullptr || !status->leader) return "knows no leader";
  if (status->applied < context_->raft_checker.committed()) return "has not applied everything";
  const BirthHost* const birth = machine.process->birth();
  if (!status->birth_complete ||
      (birth != nullptr && birth->Status().state != raft::BirthState::kComplete)) {
    return "does not know that birth is complete";
  }
  const Proof& proof = proofs_[machine.number];
  return !proof.write          ? "answers no write"
         : !proof.linearizable ? "answers no linearizable read"
         : !proof.lease        ? "answers no read by lease"
         : !proof.local        ? "answers no local read of a young age"
                               : "";
}

std::string Calm::WhereEverybodyIs() const {
  std::string text;
  for (const auto& machine : context_->machines) {
    if (machine->powered_off_for_good) continue;
    text += " " + machine->name + ": ";
    if (machine->process == nullptr) {
      text += machine->corrupt ? "damaged;" : "down;";
      continue;
    }
    const Status status = machine->process->status();
    if (status == nullptr) {
      text += "takes no part";
      if (machine->process->birth() != nullptr) {
        const raft::BirthStatus birth = machine->process->birth()->Status();
        text += std::string(" ") + raft::ToString(birth.state);
        for (const std::string& line : birth.lacks) text += ", " + line;
      }
      text += ";";
      continue;
    }
    text += "term " + ToString(status->term) + ", commit " + ToString(status->commit) +
            ", applied " + ToString(status->applied) + ", last " + ToString(status->last_index) +
            ";";
  }
  return text;
}

// What the states hold is what they say that they hold: the hash that was kept up is that of all
// the rows. (The light one's is made of what was applied.)
void Calm::CheckStates() {
  for (const auto& machine : context_->machines) {
    Process* const process = machine->process.get();
    if (process == nullptr || process->dead() || process->state() == nullptr) continue;
    const absl::Status status = process->state()->Verify();
    if (!status.ok()) context_->failure.Fail(machine->name + ": " + status.ToString());
  }
}

}  // namespace quorate::sim
