#include "services/cluster_change_plan.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "services/configuration.h"
#include "services/errors.h"
#include "services/request_parser.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;
using raft::Member;
using raft::Membership;
using raft::MemberStep;

constexpr size_t kNodeIdBytesMax = 255;
constexpr Duration kPlanRetryDelay = std::chrono::milliseconds(200);

std::string MemberText(const std::string& name, StoreId store) {
  return name + " (store " + ToHex(store) + ")";
}
std::string MemberText(const Member& member) { return MemberText(member.name, member.store); }

ChangePlan Answer(grpc::Status status, StoreId store = StoreId()) {
  ChangePlan plan;
  plan.answer = std::move(status);
  plan.store = store;
  return plan;
}

ChangePlan RefusePlan(std::string_view reason, const std::string& message,
                      const ErrorMetadata& metadata = {}) {
  return Answer(MakeError(StatusCode::FAILED_PRECONDITION, reason, message, metadata));
}

std::vector<Member> ByName(const Membership& members, const std::string& name) {
  std::vector<Member> found;
  std::copy_if(members.members.begin(), members.members.end(), std::back_inserter(found),
               [&](const Member& member) { return member.name == name; });
  return found;
}

ChangePlan NotFound(const std::string& name) {
  return Answer(MakeError(StatusCode::NOT_FOUND, "MEMBER_NOT_FOUND",
                          "no member is called " + name + ": see `quorate member list`",
                          {{"node_id", name}}));
}

// Another store may have come under its name.
ChangePlan NotFound(const std::string& name, StoreId meant) {
  return Answer(MakeError(StatusCode::NOT_FOUND, "MEMBER_NOT_FOUND",
                          MemberText(name, meant) +
                              ", which this was about, is no member any more: see `quorate member "
                              "list`",
                          {{"node_id", name}, {"store_id", ToHex(meant)}}));
}

// Those of the store that is meant; 0: all.
std::vector<Member> OfThem(std::vector<Member> found, StoreId meant) {
  if (meant) std::erase_if(found, [meant](const Member& member) { return member.store != meant; });
  return found;
}

ChangePlan OneStep(MemberStep::Kind kind, const Member& member, bool force) {
  ChangePlan plan;
  plan.store = member.store;
  plan.change.force = force;
  plan.change.steps = {{.kind = kind, .store = member.store, .name = {}, .address = {}}};
  return plan;
}

grpc::Status CheckName(const std::string& name, bool required) {
  if (name.empty() && required) return MakeFieldError("REQUIRED", "node_id", "must be set");
  if (name.size() > kNodeIdBytesMax) {
    return MakeFieldError("NODE_ID_TOO_LARGE", "node_id",
                          "has " + std::to_string(name.size()) + " bytes; at most 255 are allowed");
  }
  return grpc::Status::OK;
}

grpc::Status CheckChange(const v1::AddMemberRequest& request) {
  if (request.address().empty()) return MakeFieldError("REQUIRED", "address", "must be set");
  const absl::StatusOr<HostPort> address = ParseHostPort(request.address());
  if (address.ok() && NamesAHost(*address) && request.address().size() <= kNodeIdBytesMax) {
    return grpc::Status::OK;
  }
  return MakeFieldError("ADDRESS_INVALID", "address",
                        "must be the node's peer address, host:port, such as 10.0.0.4:7000");
}
grpc::Status CheckChange(const v1::RemoveMemberRequest& request) {
  if (!request.store_id().empty() && !ParseHex(request.store_id())) {
    return MakeFieldError("STORE_ID_INVALID", "store_id",
                          "must be 16 lower-case hexadecimal digits");
  }
  return CheckName(request.node_id(), true);
}
grpc::Status CheckChange(const v1::PromoteMemberRequest& request) {
  return CheckName(request.node_id(), true);
}
grpc::Status CheckChange(const v1::DemoteMemberRequest& request) {
  return CheckName(request.node_id(), true);
}
grpc::Status CheckChange(const v1::TransferLeadershipRequest& request) {
  return CheckName(request.node_id(), false);
}
grpc::Status CheckChange(const v1::CompactRequest& request) {
  if (request.revision() != 0) return grpc::Status::OK;
  return MakeFieldError("REQUIRED", "revision", "must be set");
}
grpc::Status CheckChange(const v1::SetSettingsRequest& request) {
  if (request.has_leases()) return grpc::Status::OK;
  return MakeFieldError("REQUIRED", "leases", "must be set: there is no other setting");
}

// Why a node cannot be let in.
std::optional<ChangePlan> RefuseNewcomer(const Membership& members, const Newcomer& newcomer) {
  const raft::IdentifyReply& reply = newcomer.reply;
  const std::string who = MemberText(reply.name, reply.store) + " at " + newcomer.asked_at;
  switch (raft::JudgeLetIn(members.cluster, reply)) {
    case raft::LetInRefusal::kNone:
      return std::nullopt;
    case raft::LetInRefusal::kHalted:
      return RefusePlan(
          "NODE_NOT_WAITING",
          who + " is about to exit: another process has a copy of its data directory");
    case raft::LetInRefusal::kOtherCluster: {
      const ClusterId other = reply.cluster ? reply.cluster : reply.waits_for;
      return RefusePlan("OTHER_CLUSTER",
                        who + (reply.cluster ? " belongs to cluster " : " waits for cluster ") +
                            ToHex(other) + ", this is cluster " + ToHex(members.cluster) +
                            (reply.cluster ? ": a node changes its cluster only with an empty data "
                                             "directory"
                                           : ": its configuration names that one's nodes"),
                        {{"cluster_id", ToHex(other)}});
    }
    case raft::LetInRefusal::kFindsTwo:
      return RefusePlan("OTHER_CLUSTER",
                        who +
                            " finds two clusters and joins neither: let its discovery or its peers "
                            "show this one's nodes only");
    case raft::LetInRefusal::kPledged:
      return RefusePlan(
          "NODE_NOT_WAITING",
          who +
              " has pledged itself to founding a cluster: empty its data directory, then "
              "start it again");
    case raft::LetInRefusal::kWouldBeFounder:
      return RefusePlan("NODE_NOT_WAITING",
                        who +
                            " is a founder by its configuration and has not heard of this cluster: "
                            "check its raft.peers and raft.founders");
  }
  return std::nullopt;
}

}  // namespace

std::optional<ChangeRequest> EmptyChangeRequest(std::string_view method) {
  if (method == "AddMember") return v1::AddMemberRequest();
  if (method == "RemoveMember") return v1::RemoveMemberRequest();
  if (method == "PromoteMember") return v1::PromoteMemberRequest();
  if (method == "DemoteMember") return v1::DemoteMemberRequest();
  if (method == "TransferLeadership") return v1::TransferLeadershipRequest();
  if (method == "Compact") return v1::CompactRequest();
  if (method == "SetSettings") return v1::SetSettingsRequest();
  return std::nullopt;
}

grpc::Status ParseChangeRequest(const std::string& bytes, ChangeRequest* request) {
  return std::visit(
      [&](auto& parsed) {
        grpc::Status status = ParseRequest(bytes, &parsed);
        return status.ok() ? CheckChange(parsed) : status;
      },
      *request);
}

ChangePlan PlanAdd(const Membership& members, const Newcomer& newcomer, const Member* answers) {
  const raft::IdentifyReply& reply = newcomer.reply;
  if (auto refused = RefuseNewcomer(members, newcomer)) return *std::move(refused);
  if (const Member* known = members.Find(reply.store)) {
    if (known->name == reply.name) return Answer(grpc::Status::OK, reply.store);
    return RefusePlan("NAME_TAKEN", "store " + ToHex(reply.store) + " at " + newcomer.asked_at +
                                        " calls itself " + reply.name + " and is a member as " +
                                        known->name + ": give it its old nodeId back");
  }
  if (answers != nullptr) {
    return RefusePlan(
        "NAME_TAKEN",
        "the node at " + newcomer.asked_at + " is " + MemberText(reply.name, reply.store) +
            ", and member " + MemberText(*answers) +
            " still answers: a new store takes a member's place only when the old one is "
            "gone. Stop the old one, or give the new one another nodeId",
        {{"node_id", reply.name},
         {"store_id", ToHex(answers->store)},
         {"new_store_id", ToHex(reply.store)}});
  }
  ChangePlan plan;
  plan.store = reply.store;
  plan.change.steps = raft::LetInSteps(members, reply, newcomer.asked_at);
  return plan;
}

ChangePlan PlanRemove(const Membership& members, const v1::RemoveMemberRequest& request,
                      bool repeat, StoreId meant) {
  // Another store may have come under that name since.
  std::vector<Member> found = OfThem(ByName(members, request.node_id()), meant);
  if (!request.store_id().empty()) {
    const StoreId store(*ParseHex(request.store_id()));
    std::erase_if(found, [store](const Member& member) { return member.store != store; });
  }
  if (found.empty()) return repeat ? Answer(grpc::Status::OK) : NotFound(request.node_id());
  if (found.size() > 1) {
    return RefusePlan("MEMBER_AMBIGUOUS",
                      "two stores are members as " + request.node_id() + ": " +
                          ToHex(found[0].store) + (found[0].voter ? " votes, " : " learns, ") +
                          ToHex(found[1].store) + (found[1].voter ? " votes" : " learns") +
                          ". Say which one with store_id (--store)",
                      {{"node_id", request.node_id()}});
  }
  return OneStep(MemberStep::Kind::kRemove, found[0], request.force());
}

ChangePlan PlanPromote(const Membership& members, const std::string& name, StoreId meant) {
  const std::vector<Member> found = OfThem(ByName(members, name), meant);
  for (const Member& member : found) {
    if (!member.voter) return OneStep(MemberStep::Kind::kPromote, member, false);
  }
  if (found.empty()) return meant ? NotFound(name, meant) : NotFound(name);
  return Answer(grpc::Status::OK, found[0].store);
}

ChangePlan PlanDemote(const Membership& members, const v1::DemoteMemberRequest& request,
                      StoreId meant) {
  const std::vector<Member> named = ByName(members, request.node_id());
  const std::vector<Member> found = OfThem(named, meant);
  if (meant && found.empty()) return NotFound(request.node_id(), meant);
  if (meant && found[0].demoted) return Answer(grpc::Status::OK, meant);
  if (named.size() > 1) {
    return RefusePlan("CHANGE_INVALID",
                      request.node_id() +
                          " cannot be demoted while another store learns under its name, to take "
                          "its place: promote that one (`quorate member promote`), or remove one "
                          "of the two by its store_id (--store)",
                      {{"node_id", request.node_id()}});
  }
  for (const Member& member : found) {
    if (!member.demoted) return OneStep(MemberStep::Kind::kDemote, member, request.force());
  }
  return found.empty() ? NotFound(request.node_id()) : Answer(grpc::Status::OK, found[0].store);
}

ChangePlan PlanTransfer(const Membership& members, const std::string& name) {
  ChangePlan plan;
  if (name.empty()) return plan;
  const std::vector<Member> found = ByName(members, name);
  if (found.empty()) return NotFound(name);
  for (const Member& member : found) {
    if (member.voter) {
      plan.store = member.store;
      return plan;
    }
  }
  return Answer(TransferRefusal(raft::TransferStatus::kNotVoter, name));
}

bool RetryLater(raft::ChangeStatus status) {
  switch (status) {
    case raft::ChangeStatus::kNotReady:
    case raft::ChangeStatus::kInProgress:
    case raft::ChangeStatus::kTransferring:
    case raft::ChangeStatus::kUnknownStore:  // the members have changed since the plan was made
      return true;
    default:
      return false;
  }
}

grpc::Status RefusalOf(const raft::ChangeResult& result, const Membership& members) {
  const auto name = [&](StoreId store) {
    const Member* member = members.Find(store);
    return member != nullptr ? MemberText(*member) : "store " + ToHex(store);
  };
  const auto refuse = [](std::string_view reason, const std::string& message,
                         const ErrorMetadata& metadata = {}) {
    return MakeError(StatusCode::FAILED_PRECONDITION, reason, message, metadata);
  };
  switch (result.status) {
    case raft::ChangeStatus::kNotCaughtUp: {
      const uint64_t last = result.last_index.value();
      const uint64_t match = result.match.value();
      const uint64_t lag = last > match ? last - match : 0;
      return refuse("LEARNER_NOT_CAUGHT_UP",
                    name(result.store) + " is not caught up: it lacks " + std::to_string(lag) +
                        (lag == 1 ? " entry" : " entries") + " of the log's " +
                        std::to_string(last) +
                        (lag == 0 ? ", and has not kept up for long enough" : "") +
                        ". As a voter it would hold up commits: wait until it is",
                    {{"store_id", ToHex(result.store)},
                     {"lag", std::to_string(lag)},
                     {"match_index", std::to_string(match)},
                     {"last_index", std::to_string(last)}});
    }
    case raft::ChangeStatus::kWouldLoseQuorum:
      return refuse("WOULD_LOSE_QUORUM",
                    "of the " + std::to_string(result.voters) + " voters that there would be, " +
                        std::to_string(result.needed) + " must answer and " +
                        std::to_string(result.reachable) +
                        (result.reachable == 1 ? " does" : " do") +
                        ": the cluster would take no more writes. Bring the silent ones back "
                        "first; `force` changes the members all the same",
                    {{"voters", std::to_string(result.voters)},
                     {"needed", std::to_string(result.needed)},
                     {"reachable", std::to_string(result.reachable)}});
    case raft::ChangeStatus::kNoVoters:
      return refuse("NO_VOTERS", "nobody would be left to vote: a cluster needs one voter");
    case raft::ChangeStatus::kNameTaken:
      return refuse("NAME_TAKEN",
                    "member " + name(result.store) +
                        " still answers: another store takes its place only when it is gone",
                    {{"store_id", ToHex(result.store)}});
    default:
      return refuse("CHANGE_INVALID", "the members cannot be changed so: " + result.reason);
  }
}

grpc::Status TransferRefusal(raft::TransferStatus status, const std::string& target) {
  switch (status) {
    case raft::TransferStatus::kNotVoter:
      return MakeError(StatusCode::FAILED_PRECONDITION, "NOT_A_VOTER",
                       target + " is a learner and cannot lead: promote it first",
                       {{"node_id", target}});
    case raft::TransferStatus::kSilent:
      return MakeError(StatusCode::FAILED_PRECONDITION, "TARGET_SILENT",
                       target.empty() ? std::string("no other voter answers and could lead")
                                      : target + " does not answer, so it cannot lead");
    default:
      return MakeError(StatusCode::UNAVAILABLE, "TRANSFER_FAILED",
                       "nobody took over within an election timeout: so far the leader leads on",
                       {}, kPlanRetryDelay);
  }
}

}  // namespace quorate::services
