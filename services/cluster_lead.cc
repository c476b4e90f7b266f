// What the leader's node does of the changes of the cluster.
#include <utility>

#include "services/cluster_changes.h"
#include "services/cluster_changes_op.h"
#include "services/errors.h"
#include "services/logging.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;

}  // namespace

ClusterChanges::Try ClusterChanges::LeadHere(const OpPtr& op) {
  Try ended = Lead(op);
  if (ports_.ended && ended.kind != Try::Kind::kNotLeader) {
    static constexpr const char* kKinds[] = {"add", "remove", "promote", "demote", "transfer"};
    const bool answered = ended.kind == Try::Kind::kAnswer;
    ports_.ended(kKinds[op->request.index()], !answered           ? "unknown"
                                              : ended.status.ok() ? "done"
                                                                  : "refused");
  }
  return ended;
}

ClusterChanges::Try ClusterChanges::Lead(const OpPtr& op) {
  const Instant busy_until = BootNow() + ports_.busy_wait;
  const bool transfer = std::holds_alternative<v1::TransferLeadershipRequest>(op->request);
  while (op->Wanted()) {
    const ClusterView view = ports_.view();
    if (view.node->role != raft::Role::kLeader) return NotLeader();
    // Of an earlier change, or what the term begins with: a matter of milliseconds, or of nobody's
    // answering. A leader that cannot end its joint phase may be replaced by one that can. Members
    // are in force from when they are appended: before they are committed nothing is judged by
    // them, for a later leader may never have heard of them.
    const bool settled =
        !view.node->membership->joint && view.node->membership_index <= view.node->commit;
    if (view.node->leader_ready && (transfer || settled)) {
      ChangePlan plan = Plan(op, view);
      plan.change.in_term = op->own_term;
      if (!op->Wanted()) break;
      if (plan.answer && !plan.answer->ok()) return Answered(*plan.answer);
      if (plan.answer) return Done(op, plan.store, raft::Index());
      if (op->name_first) return NotLeader(plan.store);
      // From now on it is about this one, whoever has its name when it is tried again.
      if (!transfer) op->meant = plan.store;
      std::optional<Try> ended = transfer ? TryTransfer(op, plan) : TryChange(op, plan, view);
      if (ended) return *std::move(ended);
    }
    if (BootNow() >= busy_until) {
      return Answered(MakeError(StatusCode::UNAVAILABLE, "CHANGE_IN_PROGRESS",
                                "an earlier change of the members or of the leader is not done yet",
                                {}, kChangeRetryDelay));
    }
    op->Pause(kChangePause);
  }
  return op->maybe_done ? Unknown() : NotLeader();
}

ChangePlan ClusterChanges::Plan(const OpPtr& op, const ClusterView& view) {
  const raft::Membership& members = *view.node->membership;
  if (const auto* add = std::get_if<v1::AddMemberRequest>(&op->request)) {
    return PlanNewcomer(op, add->address(), view);
  }
  if (const auto* remove = std::get_if<v1::RemoveMemberRequest>(&op->request)) {
    return PlanRemove(members, *remove, op->maybe_done, op->meant);
  }
  if (const auto* promote = std::get_if<v1::PromoteMemberRequest>(&op->request)) {
    ChangePlan plan = PlanPromote(members, promote->node_id(), op->meant);
    for (raft::MemberStep& step : plan.change.steps) step.by_itself = op->own();
    return plan;
  }
  if (const auto* demote = std::get_if<v1::DemoteMemberRequest>(&op->request)) {
    return PlanDemote(members, *demote, op->meant);
  }
  return PlanTransfer(members, std::get<v1::TransferLeadershipRequest>(op->request).node_id());
}

std::optional<ClusterChanges::Try> ClusterChanges::TryChange(const OpPtr& op,
                                                             const ChangePlan& plan,
                                                             const ClusterView& view) {
  std::optional<grpc::Status> refused = CheckReadable(op, plan, view);
  if (!refused) refused = CheckAlive(op, plan, view);
  // Whoever asked may have been told something else meanwhile. (What goes away between here and the
  // node's queue may still be proposed.)
  if (!op->Wanted()) return std::nullopt;
  if (refused) return Answered(*std::move(refused));
  const auto result = Op::Await<raft::ChangeResult>(
      op, [&](raft::Node::ChangeDone done) { ports_.change(plan.change, std::move(done)); });
  if (!result) {  // nobody waits for it any more
    op->maybe_done = true;
    return Unknown();
  }
  switch (result->status) {
    case raft::ChangeStatus::kAccepted:
      LogInfo("changed the members", {{"call", op->method},
                                      {"store", plan.store},
                                      {"index", result->index},
                                      {"term", result->term}});
      return Done(op, plan.store, result->index);
    case raft::ChangeStatus::kUnchanged:
      return Done(op, plan.store, raft::Index());
    case raft::ChangeStatus::kNotLeader:
      return NotLeader();
    case raft::ChangeStatus::kUnknown:
      op->maybe_done = true;
      return Unknown();
    default:
      if (RetryLater(result->status)) return std::nullopt;
      return Answered(RefusalOf(*result, *view.node->membership));
  }
}

std::optional<ClusterChanges::Try> ClusterChanges::TryTransfer(const OpPtr& op,
                                                               const ChangePlan& plan) {
  const auto& request = std::get<v1::TransferLeadershipRequest>(op->request);
  const ClusterView before = ports_.view();
  // Who may have done it no longer leads, and this node does: an earlier try has made it so.
  if (request.node_id().empty() && op->asked_leader && op->asked_leader != before.store) {
    return Done(op, before.store, raft::Index());
  }
  if (!op->Wanted()) return std::nullopt;
  const auto status = Op::Await<raft::TransferStatus>(
      op, [&](raft::Node::TransferDone done) { ports_.transfer(plan.store, std::move(done)); });
  if (!status) {
    op->maybe_done = true;
    op->asked_leader = before.store;
    return Unknown();
  }
  switch (*status) {
    case raft::TransferStatus::kAlreadyLeads:
      return Done(op, plan.store, raft::Index());
    case raft::TransferStatus::kNotLeader:
      return NotLeader();
    case raft::TransferStatus::kInProgress:
      return std::nullopt;
    case raft::TransferStatus::kDone:
      break;
    default:
      return Answered(TransferRefusal(*status, request.node_id()));
  }
  // This node's term as the leader is over, and its view may not show that yet. Who leads is known
  // in a moment; that it is who was meant, too. Perhaps nobody has taken over, and this node has
  // been elected again, or gave up for another reason: that is no hand-over.
  op->maybe_done = true;
  op->asked_leader = before.store;
  while (op->Wanted()) {
    const ClusterView after = ports_.view();
    // For a moment after the hand-over the view may still be the one of before.
    const bool stale = after.node->leader == before.store && after.node->term <= before.node->term;
    const StoreId leader = stale ? StoreId() : after.node->leader;
    if (leader && (plan.store ? leader == plan.store : leader != before.store)) {
      LogInfo("handed leadership over", {{"to", leader}});
      return Done(op, leader, raft::Index());
    }
    if (leader) break;
    op->Pause(kChangePause);
  }
  return Unknown();
}

// The response of a change that is done, once this node's own view shows it.
ClusterChanges::Try ClusterChanges::Done(const OpPtr& op, StoreId store, raft::Index shown_from) {
  ClusterView view = ports_.view();
  for (const Instant until = BootNow() + kChangeShowWait;
       view.node->membership_index < shown_from && BootNow() < until && op->Wanted();) {
    op->Pause(std::chrono::milliseconds(1));
    view = ports_.view();
  }
  std::string bytes;
  const v1::ResponseHeader header = HeaderOf(view);
  const auto with_header = [&](auto response) {
    *response.mutable_header() = header;
    bytes = response.SerializeAsString();
  };
  switch (op->request.index()) {
    case 0: {
      v1::AddMemberResponse response;
      if (const raft::Member* member = view.node->membership->Find(store)) {
        *response.mutable_member() = MakeMember(view, *member);
      }
      with_header(std::move(response));
      break;
    }
    case 1:
      with_header(v1::RemoveMemberResponse());
      break;
    case 2:
      with_header(v1::PromoteMemberResponse());
      break;
    case 3:
      with_header(v1::DemoteMemberResponse());
      break;
    default:
      with_header(v1::TransferLeadershipResponse());
  }
  return Answered(grpc::Status::OK, std::move(bytes));
}

}  // namespace quorate::services
