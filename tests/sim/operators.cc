#include "tests/sim/operators.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "raft/let_in.h"

namespace quorate::sim {
namespace {

using StepKind = raft::MemberStep::Kind;

// A store that a machine has in it, and that it would serve if it ran.
bool IsThere(const Context& context, StoreId store) {
  return std::any_of(context.machines.begin(), context.machines.end(), [&](const auto& machine) {
    return machine->store == store && !machine->corrupt && machine->disk.flipped().empty() &&
           !machine->powered_off_for_good;
  });
}

// Whoever asks that store who it is hears that it has caught up once.
bool SaysItCaughtUp(const Context& context, StoreId store) {
  return std::any_of(context.machines.begin(), context.machines.end(), [&](const auto& machine) {
    const Process* const process = machine->process.get();
    return machine->store == store && process != nullptr && !process->dead() &&
           process->caught_up_once();
  });
}

}  // namespace

Process* Operators::Leader(Context* context) {
  Process* leader = nullptr;
  for (const auto& machine : context->machines) {
    Process* const process = machine->process.get();
    if (process == nullptr || process->dead() || process->node() == nullptr) continue;
    if (process->status()->role != raft::Role::kLeader) continue;
    if (leader == nullptr || leader->status()->term < process->status()->term) leader = process;
  }
  return leader;
}

bool Operators::CanLose(const Context& context, size_t number) {
  // A change that waits in a leader's inbox may need any of the members.
  if (context.changes_open > 0) return false;
  const auto settles = [&](const auto& machine) {
    const Process* const process = machine->process.get();
    return process != nullptr && !process->dead() && process->status() != nullptr &&
           process->status()->leader_ready && process->status()->term > context.change_in_doubt;
  };
  if (context.change_in_doubt != raft::Term() &&
      std::none_of(context.machines.begin(), context.machines.end(), settles)) {
    return false;
  }
  // Founders that are all empty found another cluster: they know of nobody else.
  const auto knows = [&](const auto& machine) {
    const Process* const process = machine->process.get();
    return machine->number < context.plan.nodes && machine->number != number &&
           process != nullptr && !process->dead() && process->cluster();
  };
  if (context.plan.birth && number < context.plan.nodes &&
      std::none_of(context.machines.begin(), context.machines.end(), knows)) {
    return false;
  }
  const StoreId lost = context.machines[number]->store;
  bool any = false;
  for (const auto& machine : context.machines) {
    const Process* const process = machine->process.get();
    if (process == nullptr || process->dead() || process->status() == nullptr) {
      // Who is in no cluster believes in no membership. What a machine that is down believes in
      // nobody knows; its log may come back with it.
      if (process != nullptr && !process->dead() && !process->cluster()) continue;
      if (!machine->powered_off_for_good && machine->store != lost) return false;
      continue;
    }
    const auto status = process->status();
    if (!status->birth_complete) return false;
    any = true;
    for (const auto& voters :
         {status->membership->Voters(), status->membership->OutgoingVoters()}) {
      const auto left = std::count_if(voters.begin(), voters.end(), [&](StoreId voter) {
        return voter != lost && IsThere(context, voter);
      });
      if (!voters.empty() && static_cast<size_t>(left) * 2 <= voters.size()) return false;
    }
  }
  return any;
}

void Operators::Again() {
  const Micros wait = context_->random.Skewed(2, 3000) * kMillisecond;
  context_->events.After(wait, [this] {
    Act(Here());
    Again();
  });
}

bool Operators::Here() {
  const Plan& plan = context_->plan;
  if (plan.operators_away == 0) return true;
  const Micros now = context_->events.now();
  if (now >= spell_end_) {
    here_ = !here_;
    spell_end_ =
        now + context_->random.Between(1, here_ ? plan.operators_here : plan.operators_away);
  }
  return here_;
}

void Operators::OnTrouble(size_t machine) {
  if (!context_->plan.Has(Fault::kMembership) ||
      !context_->random.Chance(context_->plan.alarm_permille)) {
    return;
  }
  context_->events.After(context_->random.Skewed(1, 1000) * kMillisecond,
                         [this, machine] { Act(true, machine); });
}

// Mostly the latest leader; but also one that does not know yet that there is a later one, perhaps
// because it has just been cut off, or that has only just been elected.
Process* Operators::Asked(std::optional<size_t> machine) {
  if (!context_->calm) {
    const bool anybody = context_->random.OneIn(4);
    if (anybody) machine = context_->random.Below(context_->machines.size());
    Process* const other = machine ? context_->machines[*machine]->process.get() : nullptr;
    if (other != nullptr && other->node() != nullptr && !other->dead() &&
        other->status()->role == raft::Role::kLeader) {
      return other;
    }
  }
  return Leader(context_);
}

void Operators::Act(bool change, std::optional<size_t> machine) {
  Process* const leader = Asked(machine);
  // Nothing is changed before birth is complete (services/cluster_changes).
  if (leader == nullptr || !leader->status()->birth_complete) return;
  const raft::Membership members = *leader->status()->membership;
  if (members.joint) return;
  if (context_->random.OneIn(10)) CompactHistory(leader);
  if (!context_->plan.dns && Repair(leader, members)) return;
  if (context_->plan.Has(Fault::kMembership)) {
    if (!context_->calm && change) ChangeSomething(leader, members);
  } else if (!context_->plan.dns) {
    LetIn(leader, members);
  }
}

bool Operators::MayAdd(Machine* machine, const raft::Membership& members) {
  if (!context_->plan.birth) return true;
  Process* const process = machine->process.get();
  if (process == nullptr || process->dead() || process->birth() == nullptr) return false;
  return raft::JudgeLetIn(members.cluster, process->birth()->Describe()) ==
         raft::LetInRefusal::kNone;
}

// Nodes beyond the founders join when they are there.
void Operators::LetIn(Process* leader, const raft::Membership& members) {
  for (const auto& machine : context_->machines) {
    const raft::Member* const member = members.Find(machine->store);
    if (machine->corrupt || machine->powered_off_for_good || (member != nullptr && member->voter)) {
      continue;
    }
    raft::MemberStep step;
    step.store = machine->store;
    step.name = machine->name;
    step.address = machine->address;
    step.kind = member == nullptr ? StepKind::kAddLearner : StepKind::kPromote;
    if (member == nullptr && !MayAdd(machine.get(), members)) continue;
    return Propose(context_, leader, {{step}, false});
  }
}

// A member whose disk is no more is replaced by what its machine has now, in two steps.
bool Operators::Repair(Process* leader, const raft::Membership& members) {
  for (const auto& machine : context_->machines) {
    if (machine->corrupt || machine->powered_off_for_good) continue;
    const raft::Member* const itself = members.Find(machine->store);
    // One that only learned goes first: nobody else may learn under its name.
    auto former = members.members.end();
    for (auto each = members.members.begin(); each != members.members.end(); ++each) {
      if (each->name != machine->name || each->store == machine->store) continue;
      if (former == members.members.end() || each->learner()) former = each;
    }
    if (former == members.members.end()) continue;
    raft::MemberStep step;
    step.store = machine->store;
    step.name = machine->name;
    step.address = machine->address;
    if (itself != nullptr && former->voter) {
      step.kind = StepKind::kPromote;  // the former voter of this name leaves
    } else if (itself == nullptr && former->voter) {
      // Until that is done nobody takes away another voter.
      if (!MayAdd(machine.get(), members)) return true;
      step.kind = StepKind::kAddLearner;
    } else {
      step.kind = StepKind::kRemove;
      step.store = former->store;
    }
    Propose(context_, leader, {{step}, false});
    return true;
  }
  return false;
}

void Operators::ChangeSomething(Process* leader, const raft::Membership& members) {
  // Who has a damaged disk is counted on by nobody any more who knows of it.
  for (const auto& machine : context_->machines) {
    if (machine->corrupt || !machine->disk.flipped().empty()) return;
  }
  // Nobody shrinks a cluster of which a disk has just been lost: that member may be needed then.
  for (const raft::Member& member : members.members) {
    if (!IsThere(*context_, member.store)) return;
  }
  Random& random = context_->random;
  raft::MembershipChange change;
  const uint64_t steps = random.OneIn(4) ? 2 : 1;
  for (uint64_t i = 0; i < steps; ++i) {
    Machine& machine = SomeMachine();
    const raft::Member* const member = members.Find(machine.store);
    raft::MemberStep step;
    step.store = machine.store;
    step.name = machine.name;
    step.address = machine.address;
    if (member == nullptr) {
      if (!MayAdd(&machine, members)) continue;
      step.kind = StepKind::kAddLearner;
    } else if (member->learner()) {
      static constexpr StepKind kKinds[] = {StepKind::kRemove, StepKind::kDemote,
                                            StepKind::kPromote, StepKind::kPromote};
      step.kind = kKinds[random.Below(4)];
    } else {
      // Mostly so that many voters stay.
      if (members.Voters().size() <= 2 && !random.OneIn(10)) continue;
      step.kind = random.OneIn(2) ? StepKind::kDemote : StepKind::kRemove;
    }
    change.steps.push_back(std::move(step));
  }
  if (change.steps.size() == 2 && change.steps[0].store == change.steps[1].store) {
    change.steps.pop_back();
  }
  if (change.steps.empty()) return;
  Propose(context_, leader, std::move(change), true);
}

// Any; or the one of which a leader thinks now that it should have a vote: whoever decides
// something else of it then has decided later.
Machine& Operators::SomeMachine() {
  Random& random = context_->random;
  for (const auto& machine : context_->machines) {
    if (machine->store == context_->promoted_next && random.OneIn(2)) return *machine;
  }
  return *context_->machines[random.Below(context_->machines.size())];
}

// Old history goes: watches that need it are reset.
void Operators::CompactHistory(Process* leader) {
  const uint64_t revision = leader->state()->Summary().revision.value();
  if (revision < 3) return;
  v1::Command command;
  v1::CompactHistory* compact = command.mutable_compact_history();
  compact->set_revision(revision - context_->random.Below(std::min<uint64_t>(revision - 1, 100)));
  compact->set_rows_max(static_cast<uint64_t>(context_->random.Skewed(10, 100'000)));
  compact->set_bytes_max(1u << 20);
  const Instant deadline =
      context_->machines[leader->machine()]->clock.Now() + std::chrono::seconds(2);
  leader->forwarding()->Write(std::move(command), deadline, [](const ingress::Outcome&) {});
}

void Operators::Propose(Context* context, Process* leader, raft::MembershipChange change,
                        bool for_no_reason, std::function<void(bool)> done) {
  if (context->trace.telling()) {
    static constexpr const char* kWhat[] = {"add", "promote", "demote", "remove"};
    std::string text;
    for (const raft::MemberStep& step : change.steps) {
      text += std::string(" ") + kWhat[static_cast<size_t>(step.kind)] + " " + step.name;
    }
    context->trace.Tell("operators:%s", text.c_str());
  }
  MemberDecisions::Asked asked;
  if (for_no_reason) {
    asked = context->decisions.Ask(
        change, [context](StoreId store) { return SaysItCaughtUp(*context, store); });
  }
  // Ends with the answer, or with the process: then nobody knows.
  ++context->changes_open;
  const std::shared_ptr<bool> answered(new bool(false), [context, for_no_reason, asked](bool* was) {
    --context->changes_open;
    if (for_no_reason && !*was) context->decisions.End(asked, raft::ChangeStatus::kUnknown);
    delete was;
  });
  const raft::Term term = leader->status()->term;
  leader->node()->ProposeMembership(std::move(change), [context, answered, for_no_reason, term,
                                                        asked, done = std::move(done)](
                                                           const raft::ChangeResult& result) {
    if (result.status == raft::ChangeStatus::kUnknown) {
      context->change_in_doubt = std::max(context->change_in_doubt, term);
    }
    if (context->trace.telling()) {
      context->trace.Tell("operators: the change ends with status %d %s",
                          static_cast<int>(result.status), result.reason.c_str());
    }
    if (result.status == raft::ChangeStatus::kAccepted) {
      context->report.Count(Reached::kMembershipChanged);
      if (for_no_reason) context->report.Count(Fault::kMembership);
      // Once the step that tells of it has ended, and its commit index is known.
      context->events.After(1, [context, result] { context->raft_checker.OnChangeDone(result); });
    }
    if (for_no_reason) context->decisions.End(asked, result.status);
    *answered = true;
    if (done != nullptr) {
      done(result.status == raft::ChangeStatus::kAccepted ||
           result.status == raft::ChangeStatus::kUnchanged);
    }
  });
  leader->Wake(Process::Job::kNode, 1);
}

}  // namespace quorate::sim
