// What the leader's node does of the changes of the cluster; and compaction, which any node does.
#include <algorithm>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "services/birth_codec.h"
#include "services/cluster_changes.h"
#include "services/cluster_changes_op.h"
#include "services/errors.h"
#include "services/forwarder.h"
#include "services/logging.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;

// How long an earlier change may stand in the way.
constexpr Duration kBusyWait = std::chrono::seconds(5);
// How long this node's own view may take to show what it has just committed.
constexpr Duration kShowWait = std::chrono::seconds(1);
// A piece of a compaction: some ten milliseconds of the apply thread.
constexpr uint64_t kCompactRows = 2000;
constexpr uint64_t kCompactBytes = 1 << 20;

}  // namespace

// --- This node leads ---

ClusterChanges::Try ClusterChanges::LeadHere(const OpPtr& op) {
  const Instant busy_until = BootNow() + kBusyWait;
  while (op->Wanted()) {
    const ClusterView view = ports_.view();
    if (view.node->role != raft::Role::kLeader) return {Try::Kind::kNotLeader, {}, ""};
    if (!view.node->leader_ready || view.node->membership->joint) {
      // Of an earlier change, or what the term begins with: a matter of milliseconds, or of
      // nobody's answering.
    } else {
      const ChangePlan plan = Plan(op, view);
      if (plan.answer && !plan.answer->ok()) return {Try::Kind::kAnswer, *plan.answer, ""};
      if (plan.answer) return Done(op, plan.store, raft::Index());
      const bool transfer = std::holds_alternative<v1::TransferLeadershipRequest>(op->request);
      std::optional<Try> ended = transfer ? TryTransfer(op, plan) : TryChange(op, plan, view);
      if (ended) return *std::move(ended);
    }
    if (BootNow() >= busy_until) {
      return {Try::Kind::kAnswer,
              MakeError(StatusCode::UNAVAILABLE, "CHANGE_IN_PROGRESS",
                        "an earlier change of the members or of the leader is not done yet", {},
                        kChangeRetryDelay),
              ""};
    }
    op->Pause(kChangePause);
  }
  return {op->maybe_done ? Try::Kind::kUnknown : Try::Kind::kNotLeader, {}, ""};
}

ChangePlan ClusterChanges::Plan(const OpPtr& op, const ClusterView& view) {
  const raft::Membership& members = *view.node->membership;
  if (const auto* add = std::get_if<v1::AddMemberRequest>(&op->request)) {
    return PlanNewcomer(add->address(), view);
  }
  if (const auto* remove = std::get_if<v1::RemoveMemberRequest>(&op->request)) {
    return PlanRemove(members, *remove, op->maybe_done);
  }
  if (const auto* promote = std::get_if<v1::PromoteMemberRequest>(&op->request)) {
    return PlanPromote(members, promote->node_id());
  }
  if (const auto* demote = std::get_if<v1::DemoteMemberRequest>(&op->request)) {
    return PlanDemote(members, *demote);
  }
  return PlanTransfer(members, std::get<v1::TransferLeadershipRequest>(op->request).node_id());
}

ChangePlan ClusterChanges::PlanNewcomer(const std::string& address, const ClusterView& view) {
  const auto refuse = [](grpc::Status status) {
    ChangePlan plan;
    plan.answer = std::move(status);
    return plan;
  };
  const absl::StatusOr<v1::IdentifyResponse> answer = ports_.identify(address, false);
  if (!answer.ok()) {
    // gRPC's words for it differ from call to call: they are for the log.
    LogWarning("a node that is to be added does not answer",
               {{"address", address}, {"error", std::string(answer.status().message())}});
    return refuse(MakeError(StatusCode::UNAVAILABLE, "NODE_SILENT",
                            "nobody answers at " + address +
                                ": check that the node runs, that this is its peer address "
                                "(raft.bindAddress) and that the leader can reach it",
                            {{"address", address}}, kChangeRetryDelay));
  }
  const std::optional<raft::IdentifyReply> reply = FromProto(*answer);
  if (!reply || !reply->store || reply->name.empty() || reply->name.size() > 255 ||
      reply->address.size() > 255) {
    return refuse(MakeError(
        StatusCode::FAILED_PRECONDITION, "NODE_NOT_WAITING",
        "what answers at " + address + " is no node of this build, or not a peer address"));
  }
  const raft::Membership& members = *view.node->membership;
  const std::vector<raft::Member> holders = NameHolders(members, *reply);
  const auto alive = std::find_if(holders.begin(), holders.end(), [&](const raft::Member& holder) {
    return StillAnswers(holder, view);
  });
  return PlanAdd(members, {address, *reply}, alive == holders.end() ? nullptr : &*alive);
}

// More than the core knows: a leader of a moment has heard nobody yet.
bool ClusterChanges::StillAnswers(const raft::Member& holder, const ClusterView& view) {
  if (holder.store == view.store) return true;
  for (const raft::PeerView& peer : view.node->peers) {
    if (peer.store == holder.store && peer.active) return true;
  }
  const auto heard = view.addresses.find(holder.store);
  const std::string& address = heard != view.addresses.end() ? heard->second : holder.address;
  if (address.empty()) return false;
  const absl::StatusOr<v1::IdentifyResponse> answer = ports_.identify(address, true);
  return answer.ok() && StoreId(answer->header().from_store()) == holder.store;
}

std::map<StoreId, v1::IdentifyResponse> ClusterChanges::AskAll(
    const std::vector<raft::Member>& members, const ClusterView& view, bool sure) {
  std::mutex mutex;
  std::map<StoreId, v1::IdentifyResponse> answers;
  std::vector<std::thread> askers;
  for (const raft::Member& member : members) {
    if (member.store == view.store) continue;
    const auto heard = view.addresses.find(member.store);
    const std::string address = heard != view.addresses.end() ? heard->second : member.address;
    if (address.empty()) continue;
    askers.emplace_back([&, address, store = member.store] {
      absl::StatusOr<v1::IdentifyResponse> answer = ports_.identify(address, sure);
      if (!answer.ok() || StoreId(answer->header().from_store()) != store) return;
      std::lock_guard lock(mutex);
      answers.emplace(store, *std::move(answer));
    });
  }
  for (std::thread& asker : askers) asker.join();
  return answers;
}

// The core judges by whom it has heard within an election timeout. A voter that has died since
// would make a change that can neither be committed nor taken back: so those who are to vote are
// asked now.
std::optional<grpc::Status> ClusterChanges::CheckAlive(const ChangePlan& plan,
                                                       const ClusterView& view) {
  const auto planned = raft::PlanChange(*view.node->membership, plan.change);
  const auto* after = std::get_if<raft::Membership>(&planned);
  if (plan.change.force || after == nullptr || after->Voters() == view.node->membership->Voters()) {
    return std::nullopt;
  }
  std::vector<raft::Member> voters;
  raft::ChangeResult result;
  for (const raft::Member& member : after->members) {
    if (member.voter) voters.push_back(member);
    if (member.voter && member.store == view.store) result.reachable = 1;
  }
  result.status = raft::ChangeStatus::kWouldLoseQuorum;
  result.voters = voters.size();
  result.needed = voters.size() / 2 + 1;
  result.reachable += AskAll(voters, view, false).size();
  if (voters.empty() || result.reachable >= result.needed) return std::nullopt;
  return RefusalOf(result, *view.node->membership);
}

std::optional<ClusterChanges::Try> ClusterChanges::TryChange(const OpPtr& op,
                                                             const ChangePlan& plan,
                                                             const ClusterView& view) {
  if (auto refused = CheckAlive(plan, view)) {
    return Try{Try::Kind::kAnswer, *std::move(refused), ""};
  }
  const auto result = Op::Await<raft::ChangeResult>(
      op, [&](raft::Node::ChangeDone done) { ports_.change(plan.change, std::move(done)); });
  if (!result) {  // nobody waits for it any more
    op->maybe_done = true;
    return Try{Try::Kind::kUnknown, {}, ""};
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
      return Try{Try::Kind::kNotLeader, {}, ""};
    case raft::ChangeStatus::kUnknown:
      op->maybe_done = true;
      return Try{Try::Kind::kUnknown, {}, ""};
    default:
      if (RetryLater(result->status)) return std::nullopt;
      return Try{Try::Kind::kAnswer, RefusalOf(*result, *view.node->membership), ""};
  }
}

std::optional<ClusterChanges::Try> ClusterChanges::TryTransfer(const OpPtr& op,
                                                               const ChangePlan& plan) {
  const auto& request = std::get<v1::TransferLeadershipRequest>(op->request);
  const ClusterView before = ports_.view();
  // Who was asked first no longer led, and this node does: an earlier try has made it so.
  const bool others_try = op->first_leader && op->first_leader != before.store;
  if (request.node_id().empty() && op->maybe_done && others_try) {
    return Done(op, before.store, raft::Index());
  }
  if (!op->first_leader) op->first_leader = before.store;
  const auto status = Op::Await<raft::TransferStatus>(
      op, [&](raft::Node::TransferDone done) { ports_.transfer(plan.store, std::move(done)); });
  if (!status) {
    op->maybe_done = true;
    return Try{Try::Kind::kUnknown, {}, ""};
  }
  switch (*status) {
    case raft::TransferStatus::kAlreadyLeads:
      return Done(op, plan.store, raft::Index());
    case raft::TransferStatus::kNotLeader:
      return Try{Try::Kind::kNotLeader, {}, ""};
    case raft::TransferStatus::kInProgress:
      return std::nullopt;
    case raft::TransferStatus::kDone:
      break;
    default:
      return Try{Try::Kind::kAnswer, TransferRefusal(*status, request.node_id()), ""};
  }
  // This node leads no more. Who leads is known in a moment; that it is who was meant, too.
  op->maybe_done = true;
  while (op->Wanted()) {
    const StoreId leader = ports_.view().node->leader;
    if (leader && (!plan.store || leader == plan.store)) {
      LogInfo("handed leadership over", {{"to", leader}});
      return Done(op, leader, raft::Index());
    }
    if (leader) break;
    op->Pause(kChangePause);
  }
  return Try{Try::Kind::kUnknown, {}, ""};
}

// The response of a change that is done, once this node's own view shows it.
ClusterChanges::Try ClusterChanges::Done(const OpPtr& op, StoreId store, raft::Index shown_from) {
  ClusterView view = ports_.view();
  for (const Instant until = BootNow() + kShowWait;
       view.node->membership_index < shown_from && BootNow() < until && op->Wanted();) {
    op->Pause(std::chrono::milliseconds(1));
    view = ports_.view();
  }
  Try done{Try::Kind::kAnswer, grpc::Status::OK, ""};
  const v1::ResponseHeader header = HeaderOf(view);
  const auto with_header = [&](auto response) {
    *response.mutable_header() = header;
    done.response = response.SerializeAsString();
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
  return done;
}

// --- Compaction ---

// A listing or history that somebody pages through must not lose its revision under way: every
// member that answers says what its page tokens show.
grpc::Status ClusterChanges::CheckPins(uint64_t revision, const ClusterView& view) {
  uint64_t oldest = ports_.pinned_revision();
  std::string who = view.node_id;
  for (const auto& [store, answer] : AskAll(view.node->membership->members, view, true)) {
    const uint64_t pinned = answer.pinned_revision();
    if (pinned == 0 || (oldest != 0 && oldest <= pinned)) continue;
    oldest = pinned;
    who = answer.name();
  }
  if (oldest == 0 || revision < oldest) return grpc::Status::OK;
  return MakeError(StatusCode::FAILED_PRECONDITION, "PAGE_TOKEN_PINS",
                   "a page token that " + who +
                       " gave out within the last ten minutes shows revision " +
                       std::to_string(oldest) +
                       ": compact to a lower one, wait, or `force` it, which ends that listing",
                   {{"revision", std::to_string(oldest)}, {"node_id", who}});
}

std::optional<ingress::Outcome> ClusterChanges::Write(const OpPtr& op, const v1::Command& command) {
  ingress::WriteId id;
  auto outcome = Op::Await<ingress::Outcome>(op, [&](auto done) {
    id = ports_.write(command, op->call->deadline(), op->call->metadata(), std::move(done));
  });
  if (!outcome) {
    (void)ports_.cancel(id);
    op->maybe_done = true;
  }
  return outcome;
}

ClusterChanges::Try ClusterChanges::Compact(const OpPtr& op) {
  const auto& request = std::get<v1::CompactRequest>(op->request);
  if (!request.force()) {
    grpc::Status pinned = CheckPins(request.revision(), ports_.view());
    if (!pinned.ok()) return {Try::Kind::kAnswer, std::move(pinned), ""};
  }
  v1::Command command;
  command.mutable_compact_history()->set_revision(request.revision());
  command.mutable_compact_history()->set_rows_max(kCompactRows);
  command.mutable_compact_history()->set_bytes_max(kCompactBytes);
  while (op->Wanted()) {
    const auto outcome = Write(op, command);
    if (!outcome) break;
    v1::Answer answer;
    grpc::Status status = StatusOf(*outcome, &answer);
    if (!status.ok()) return {Try::Kind::kAnswer, std::move(status), ""};
    op->maybe_done = true;  // a piece is
    if (!answer.succeeded()) continue;
    v1::CompactResponse response;
    *response.mutable_header() = HeaderOf(ports_.view());
    response.mutable_header()->set_revision(answer.revision());
    const auto reached = answer.metadata().find("compacted_revision");
    response.set_compacted_revision(reached != answer.metadata().end()
                                        ? std::strtoull(reached->second.c_str(), nullptr, 10)
                                        : request.revision());
    return {Try::Kind::kAnswer, grpc::Status::OK, response.SerializeAsString()};
  }
  return {Try::Kind::kAnswer, Interrupted(op), ""};
}

// --- Settings ---

ClusterChanges::Try ClusterChanges::SetSettings(const OpPtr& op) {
  const auto& request = std::get<v1::SetSettingsRequest>(op->request);
  v1::Command command;
  command.mutable_set_settings()->set_leases(request.leases());
  const auto outcome = Write(op, command);
  if (!outcome) return {Try::Kind::kAnswer, Interrupted(op), ""};
  v1::Answer answer;
  grpc::Status status = StatusOf(*outcome, &answer);
  if (!status.ok()) return {Try::Kind::kAnswer, std::move(status), ""};
  const auto leases = answer.metadata().find(storage::kLeasesSetting);
  const bool on = leases != answer.metadata().end() && leases->second == "on";
  // The leader may have answered before this node has applied it; whoever asks here next should
  // find it so. Not for long: somebody else may have set it back.
  ClusterView view = ports_.view();
  for (const Instant until = BootNow() + kShowWait;
       view.state && view.state->leases != on && BootNow() < until && op->Wanted();) {
    op->Pause(std::chrono::milliseconds(1));
    view = ports_.view();
  }
  v1::SetSettingsResponse response;
  *response.mutable_header() = HeaderOf(view);
  response.mutable_header()->set_revision(answer.revision());
  response.mutable_settings()->set_leases(on);
  return {Try::Kind::kAnswer, grpc::Status::OK, response.SerializeAsString()};
}

}  // namespace quorate::services
