#include "tests/sim/autopilot_host.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "raft/let_in.h"
#include "tests/sim/operators.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

using ChangeKind = raft::MemberStep::Kind;

constexpr Micros kAutopilotInterval = 500 * kMillisecond;

raft::AutopilotOptions OptionsOf(const Plan& plan) {
  raft::AutopilotOptions options;
  options.stabilisation = Duration(plan.stabilisation);
  options.contact = Duration(plan.autopilot_contact);
  options.lag_max = plan.autopilot_lag;
  options.voters_max = plan.voters_max;
  return options;
}

}  // namespace

AutopilotHost::AutopilotHost(Context* context, Process* process)
    : context_(context), process_(process), autopilot_(OptionsOf(context->plan)) {}

void AutopilotHost::Start() {
  process_->After(kAutopilotInterval, [this] { Look(); });
}

void AutopilotHost::Look() {
  Start();
  const Instant now = context_->machines[process_->machine()]->clock.Now();
  const auto step = autopilot_.Next(now, *process_->status(), process_->birth()->Newcomers());
  if (!step) return;
  const bool lets_in = step->kind == raft::AutopilotStep::Kind::kLetIn;
  term_ = process_->status()->term;
  if (context_->trace.telling()) {
    context_->trace.Tell("autopilot: %s %s", lets_in ? "let in" : "promote", step->name.c_str());
  }
  if (lets_in) {
    LetIn(*step);
  } else {
    Promote(*step);
  }
}

void AutopilotHost::Promote(const raft::AutopilotStep& step) {
  context_->promoted_next = step.store;
  raft::MemberStep promote;
  promote.kind = ChangeKind::kPromote;
  promote.store = step.store;
  promote.by_itself = true;
  const raft::MembershipChange change{{promote}, false};
  const auto planned = raft::PlanChange(*process_->status()->membership, change);
  const auto* const after = std::get_if<raft::Membership>(&planned);
  if (after == nullptr) return End(step, false);
  struct Count {
    size_t open = 0, there = 0, voters = 0;
  };
  const auto count = std::make_shared<Count>();
  ++context_->changes_open;
  const std::shared_ptr<Context> open(context_, [](Context* of) { --of->changes_open; });
  const auto ended = [this, step, change, count, open] {
    if (count->there * 2 <= count->voters) return End(step, false);
    Propose(step, change);
  };
  std::vector<std::pair<StoreId, std::string>> asked;
  for (const raft::Member& member : after->members) {
    if (!member.voter) continue;
    ++count->voters;
    if (member.store == process_->store()) {
      ++count->there;
    } else {
      asked.emplace_back(member.store,
                         process_->directory()->Find(member.store).value_or(member.address));
    }
  }
  count->open = asked.size();
  if (asked.empty()) return ended();
  for (const auto& [store, address] : asked) {
    process_->birth()->Identify(
        address, [store = store, count, ended](const std::optional<raft::IdentifyReply>& reply) {
          if (reply && reply->store == store) ++count->there;
          if (--count->open == 0) ended();
        });
  }
}

void AutopilotHost::LetIn(const raft::AutopilotStep& step) {
  process_->birth()->Identify(
      step.address, [this, step](const std::optional<raft::IdentifyReply>& reply) {
        const bool is_it = reply && reply->store == step.store;
        if (!is_it || !MayLetIn(*reply)) return End(step, false);
        AskHolders(step, *reply, raft::NameHolders(*process_->status()->membership, *reply));
      });
}

bool AutopilotHost::MayLetIn(const raft::IdentifyReply& reply) const {
  const auto status = process_->status();
  const raft::Membership& members = *status->membership;
  return raft::JudgeLetIn(members.cluster, reply) == raft::LetInRefusal::kNone &&
         !raft::WasTakenOut(members, reply);
}

void AutopilotHost::AskHolders(const raft::AutopilotStep& step, const raft::IdentifyReply& newcomer,
                               std::vector<raft::Member> holders) {
  if (holders.empty()) return AskAdvertised(step, newcomer);
  const raft::Member holder = std::move(holders.front());
  holders.erase(holders.begin());
  const auto status = process_->status();
  const bool active =
      holder.store == process_->store() ||
      std::any_of(status->peers.begin(), status->peers.end(), [&](const raft::PeerView& peer) {
        return peer.store == holder.store && peer.active;
      });
  if (active) return End(step, false);
  const std::string address = process_->directory()->Find(holder.store).value_or(holder.address);
  process_->birth()->Identify(
      address, [this, step, newcomer, holders = std::move(holders),
                store = holder.store](const std::optional<raft::IdentifyReply>& reply) {
        if (reply && reply->store == store) return End(step, false);
        AskHolders(step, newcomer, holders);
      });
}

void AutopilotHost::AskAdvertised(const raft::AutopilotStep& step,
                                  const raft::IdentifyReply& newcomer) {
  if (newcomer.address == step.address) return Add(step, newcomer);
  process_->birth()->Identify(
      newcomer.address, [this, step, newcomer](const std::optional<raft::IdentifyReply>& reply) {
        if (!reply || reply->store != newcomer.store) return End(step, false);
        Add(step, newcomer);
      });
}

void AutopilotHost::Add(const raft::AutopilotStep& step, const raft::IdentifyReply& newcomer) {
  const raft::Membership members = *process_->status()->membership;
  if (members.Find(newcomer.store) != nullptr) return End(step, true);
  raft::MembershipChange change;
  change.steps = raft::LetInSteps(members, newcomer, step.address);
  Propose(step, std::move(change));
}

void AutopilotHost::Propose(const raft::AutopilotStep& step, raft::MembershipChange change) {
  change.in_term = term_;
  const auto status = process_->status();
  const raft::Member* const member = status->membership->Find(step.store);
  const bool replaces =
      member != nullptr &&
      std::any_of(
          status->membership->members.begin(), status->membership->members.end(),
          [&](const raft::Member& other) { return other.voter && other.name == member->name; });
  Operators::Propose(
      context_, process_, std::move(change), false,
      [this, context = context_, machine = process_->machine(), life = process_->life(), step,
       replaces](bool done) {
        if (done) {
          const bool lets_in = step.kind == raft::AutopilotStep::Kind::kLetIn;
          if (!lets_in && context->decisions.demoted(step.store)) {
            context->failure.Fail(step.name + " was demoted, and gets a vote by itself");
          }
          if (lets_in && context->decisions.taken_out(step.store)) {
            context->failure.Fail(step.name + " was removed, and is let in by itself");
          }
          context->report.Count(lets_in    ? Reached::kAutopilotLetIn
                                : replaces ? Reached::kAutopilotReplaced
                                           : Reached::kAutopilotPromoted);
        }
        // The process that asked may be gone, and this with it.
        context->events.After(1, [this, context, machine, life, step, done] {
          Process::Run(context, machine, life, [this, step, done] { End(step, done); });
        });
      });
}

void AutopilotHost::End(const raft::AutopilotStep& step, bool done) {
  if (!done) context_->report.Count(Reached::kAutopilotRefused);
  const Instant now = context_->machines[process_->machine()]->clock.Now();
  autopilot_.OnEnded(step, done ? "" : "refused", now);
}

}  // namespace quorate::sim
