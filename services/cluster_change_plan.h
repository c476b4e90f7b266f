// What an operator's call means for the members: what is asked of the leader's node, or why not.
// The rules that only the running cluster can judge (who answers, who is caught up, what a majority
// would be) are the core's (raft/core/membership_change.h); its refusals become errors here.
//
// Errors, beside the field errors of requests:
//   FAILED_PRECONDITION  OTHER_CLUSTER (the node is in another cluster, or waits for one),
//                        NODE_NOT_WAITING (it founds a cluster, or is about to exit),
//                        ADVERTISED_ADDRESS_WRONG (where it says that it is, it is not), NAME_TAKEN
//                        (its name is that of a store that answers), MEMBER_AMBIGUOUS (two stores
//                        of one name: name the store), LEARNER_NOT_CAUGHT_UP, NOT_A_VOTER,
//                        WOULD_LOSE_QUORUM, NO_VOTERS, TARGET_SILENT, CHANGE_INVALID
//   NOT_FOUND            MEMBER_NOT_FOUND
//   UNAVAILABLE          NODE_SILENT, CHANGE_IN_PROGRESS: nothing was changed; TRANSFER_FAILED:
//                        nothing so far, but the target may have been asked and still campaign
//
// Pure functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "grpcpp/support/status.h"
#include "quorate/v1/cluster.pb.h"
#include "raft/birth_messages.h"
#include "raft/let_in.h"
#include "raft/node.h"

namespace quorate::services {

using ChangeRequest =
    std::variant<v1::AddMemberRequest, v1::RemoveMemberRequest, v1::PromoteMemberRequest,
                 v1::DemoteMemberRequest, v1::TransferLeadershipRequest, v1::CompactRequest,
                 v1::SetSettingsRequest>;

// The request of the method of that name, parsed and checked; nullopt: no such method.
std::optional<ChangeRequest> EmptyChangeRequest(std::string_view method);
grpc::Status ParseChangeRequest(const std::string& bytes, ChangeRequest* request);

struct ChangePlan {
  // Set: nothing is to be done, and this is the answer; OK: it is as asked already.
  std::optional<grpc::Status> answer;
  raft::MembershipChange change;
  StoreId store;  // whom it is about
};

// A node that is to be added, as it says itself.
struct Newcomer {
  std::string asked_at;  // the address that the operator gave
  raft::IdentifyReply reply;
};

// `answers`: the member of its name (raft::NameHolders) that is known to be alive; null: none is.
// REQUIRES: not joint.
ChangePlan PlanAdd(const raft::Membership& members, const Newcomer& newcomer,
                   const raft::Member* answers);
// `repeat`: an earlier try may have been done. `meant`: the store that it was about, 0: whichever
// has that name. REQUIRES: not joint.
ChangePlan PlanRemove(const raft::Membership& members, const v1::RemoveMemberRequest& request,
                      bool repeat, StoreId meant);
// `meant` as above. That store gone is MEMBER_NOT_FOUND, also of a repeated try: nobody knows
// whether the earlier one was done, and it is not as asked now.
ChangePlan PlanPromote(const raft::Membership& members, const std::string& name, StoreId meant);
ChangePlan PlanDemote(const raft::Membership& members, const v1::DemoteMemberRequest& request,
                      StoreId meant);
// `store` is the target; 0: the leader chooses.
ChangePlan PlanTransfer(const raft::Membership& members, const std::string& name);

// What the core refused for good, as clients are told. REQUIRES: a status that RetryLater denies,
// and none of kAccepted, kUnchanged, kNotLeader and kUnknown.
grpc::Status RefusalOf(const raft::ChangeResult& result, const raft::Membership& members);
// The same change may be accepted in a moment.
bool RetryLater(raft::ChangeStatus status);
grpc::Status TransferRefusal(raft::TransferStatus status, const std::string& target);

}  // namespace quorate::services
