#include "services/cluster_change_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/errors.h"

namespace quorate::services {
namespace {

using raft::Member;
using raft::MemberStep;
using ::testing::HasSubstr;

constexpr ClusterId kPlanCluster(0xC1);

Member MakeMemberOf(uint64_t store, const std::string& name, bool voter) {
  Member member;
  member.store = StoreId(store);
  member.name = name;
  member.address = name + ":7000";
  member.voter = voter;
  return member;
}

// n1, n2, n3 vote; n4 learns.
raft::Membership PlanMembers() {
  raft::Membership members;
  members.cluster = kPlanCluster;
  members.members = {MakeMemberOf(0xA1, "n1", true), MakeMemberOf(0xA2, "n2", true),
                     MakeMemberOf(0xA3, "n3", true), MakeMemberOf(0xA4, "n4", false)};
  return members;
}

Newcomer Waiting(const std::string& name, uint64_t store) {
  Newcomer newcomer;
  newcomer.asked_at = "10.0.0.9:7000";
  newcomer.reply.name = name;
  newcomer.reply.store = StoreId(store);
  newcomer.reply.address = "10.0.0.9:7001";
  newcomer.reply.state = raft::BirthState::kWaitingToJoin;
  return newcomer;
}

std::string PlanReason(const ChangePlan& plan) {
  return plan.answer ? DetailsOf(*plan.answer).reason : "";
}

// --- Adding ---

TEST(ClusterChangePlan, WhoWaitsIsAddedAsLearnerAtItsOwnAddress) {
  const ChangePlan plan = PlanAdd(PlanMembers(), Waiting("n5", 0xB5), nullptr);
  ASSERT_FALSE(plan.answer.has_value());
  EXPECT_EQ(plan.store, StoreId(0xB5));
  ASSERT_EQ(plan.change.steps.size(), 1u);
  EXPECT_EQ(plan.change.steps[0].kind, MemberStep::Kind::kAddLearner);
  EXPECT_EQ(plan.change.steps[0].name, "n5");
  EXPECT_EQ(plan.change.steps[0].address, "10.0.0.9:7001");
  EXPECT_FALSE(plan.change.force);
}

TEST(ClusterChangePlan, WithoutAnAdvertisedAddressTheOneThatWasAskedIsKept) {
  Newcomer newcomer = Waiting("n5", 0xB5);
  newcomer.reply.address.clear();
  EXPECT_EQ(PlanAdd(PlanMembers(), newcomer, nullptr).change.steps.at(0).address, "10.0.0.9:7000");
}

TEST(ClusterChangePlan, TheSameStoreAgainIsDone) {
  Newcomer newcomer = Waiting("n4", 0xA4);
  newcomer.reply.cluster = kPlanCluster;
  const ChangePlan plan = PlanAdd(PlanMembers(), newcomer, nullptr);
  ASSERT_TRUE(plan.answer.has_value());
  EXPECT_TRUE(plan.answer->ok());
  EXPECT_EQ(plan.store, StoreId(0xA4));
}

TEST(ClusterChangePlan, ARemovedStoreOfThisClusterMayComeBack) {
  Newcomer newcomer = Waiting("n9", 0xB9);
  newcomer.reply.cluster = kPlanCluster;
  newcomer.reply.state = raft::BirthState::kComplete;
  EXPECT_FALSE(PlanAdd(PlanMembers(), newcomer, nullptr).answer.has_value());
}

TEST(ClusterChangePlan, ANewStoreOfASilentVotersNameLearnsBesideIt) {
  const Newcomer newcomer = Waiting("n2", 0xB2);
  ASSERT_EQ(raft::NameHolders(PlanMembers(), newcomer.reply).size(), 1u);
  const ChangePlan plan = PlanAdd(PlanMembers(), newcomer, nullptr);
  ASSERT_EQ(plan.change.steps.size(), 1u) << "the old one leaves when the new one is promoted";
}

TEST(ClusterChangePlan, ANewStoreOfASilentLearnersNameTakesItsPlaceAtOnce) {
  const ChangePlan plan = PlanAdd(PlanMembers(), Waiting("n4", 0xB4), nullptr);
  ASSERT_EQ(plan.change.steps.size(), 2u);
  EXPECT_EQ(plan.change.steps[0].kind, MemberStep::Kind::kRemove);
  EXPECT_EQ(plan.change.steps[0].store, StoreId(0xA4));
  EXPECT_EQ(plan.change.steps[1].kind, MemberStep::Kind::kAddLearner);
  const auto after = raft::PlanChange(PlanMembers(), plan.change);
  ASSERT_TRUE(std::holds_alternative<raft::Membership>(after));
}

TEST(ClusterChangePlan, WhoBelongsElsewhereIsRefused) {
  Newcomer other = Waiting("n5", 0xB5);
  other.reply.cluster = ClusterId(0xC2);
  ChangePlan plan = PlanAdd(PlanMembers(), other, nullptr);
  EXPECT_EQ(PlanReason(plan), "OTHER_CLUSTER");
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000c2"));
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000c1"));

  other = Waiting("n5", 0xB5);
  other.reply.waits_for = ClusterId(0xC2);
  plan = PlanAdd(PlanMembers(), other, nullptr);
  EXPECT_EQ(PlanReason(plan), "OTHER_CLUSTER");
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("waits for cluster"));

  other = Waiting("n5", 0xB5);
  other.reply.waits_for = ClusterId();
  other.reply.finds_two_clusters = true;
  plan = PlanAdd(PlanMembers(), other, nullptr);
  EXPECT_EQ(PlanReason(plan), "OTHER_CLUSTER");
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("finds two clusters and joins neither"));

  Newcomer founder = Waiting("n5", 0xB5);
  founder.reply.state = raft::BirthState::kSearching;
  EXPECT_EQ(PlanReason(PlanAdd(PlanMembers(), founder, nullptr)), "NODE_NOT_WAITING");
  founder.reply.waits_for = kPlanCluster;
  EXPECT_FALSE(PlanAdd(PlanMembers(), founder, nullptr).answer.has_value());
  founder.reply.pledge = {.round = 1, .proposer = StoreId(0xB1)};
  EXPECT_EQ(PlanReason(PlanAdd(PlanMembers(), founder, nullptr)), "NODE_NOT_WAITING");

  Newcomer halted = Waiting("n5", 0xB5);
  halted.reply.state = raft::BirthState::kHalted;
  EXPECT_EQ(PlanReason(PlanAdd(PlanMembers(), halted, nullptr)), "NODE_NOT_WAITING");

  Newcomer renamed = Waiting("n9", 0xA3);
  renamed.reply.cluster = kPlanCluster;
  EXPECT_EQ(PlanReason(PlanAdd(PlanMembers(), renamed, nullptr)), "NAME_TAKEN");
}

TEST(ClusterChangePlan, ANameWhoseStoreAnswersIsTakenAndBothAreNamed) {
  const raft::Membership members = PlanMembers();
  const ChangePlan plan = PlanAdd(members, Waiting("n2", 0xB2), &members.members[1]);
  EXPECT_EQ(PlanReason(plan), "NAME_TAKEN");
  EXPECT_EQ(plan.answer->error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000a2"));
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000b2"));
}

// --- By name ---

TEST(ClusterChangePlan, RemovingFindsTheOneOfThatName) {
  v1::RemoveMemberRequest request;
  request.set_node_id("n4");
  request.set_force(true);
  ChangePlan plan = PlanRemove(PlanMembers(), request, false, StoreId());
  ASSERT_EQ(plan.change.steps.size(), 1u);
  EXPECT_EQ(plan.change.steps[0].store, StoreId(0xA4));
  EXPECT_TRUE(plan.change.force);

  request.set_node_id("n9");
  EXPECT_EQ(PlanReason(PlanRemove(PlanMembers(), request, false, StoreId())), "MEMBER_NOT_FOUND");
  plan = PlanRemove(PlanMembers(), request, true, StoreId());
  ASSERT_TRUE(plan.answer.has_value());
  EXPECT_TRUE(plan.answer->ok()) << "an earlier try has done it";
}

TEST(ClusterChangePlan, OfTwoStoresOfOneNameRemovingWantsToKnowWhich) {
  raft::Membership members = PlanMembers();
  members.members.push_back(MakeMemberOf(0xB2, "n2", false));
  v1::RemoveMemberRequest request;
  request.set_node_id("n2");
  const ChangePlan plan = PlanRemove(members, request, false, StoreId());
  EXPECT_EQ(PlanReason(plan), "MEMBER_AMBIGUOUS");
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000a2 votes"));
  EXPECT_THAT(plan.answer->error_message(), HasSubstr("00000000000000b2 learns"));
  request.set_store_id("00000000000000b2");
  EXPECT_EQ(PlanRemove(members, request, false, StoreId()).change.steps.at(0).store, StoreId(0xB2));
  request.set_store_id("00000000000000bb");
  EXPECT_EQ(PlanReason(PlanRemove(members, request, false, StoreId())), "MEMBER_NOT_FOUND");

  // The one that learns is promoted, the one that votes led to. Demoted, there would be two
  // learners.
  EXPECT_EQ(PlanPromote(members, "n2", StoreId()).store, StoreId(0xB2));
  v1::DemoteMemberRequest demote;
  demote.set_node_id("n2");
  EXPECT_EQ(PlanReason(PlanDemote(members, demote, StoreId())), "CHANGE_INVALID");
  EXPECT_EQ(PlanTransfer(members, "n2").store, StoreId(0xA2));
}

// Between two tries of one removal its store may go, and another one come under its name.
TEST(ClusterChangePlan, ARemovalIsAboutTheStoreThatWasMeant) {
  raft::Membership members = PlanMembers();
  members.members.push_back(MakeMemberOf(0xB2, "n2", false));
  v1::RemoveMemberRequest request;
  request.set_node_id("n2");
  EXPECT_EQ(PlanRemove(members, request, false, StoreId(0xA2)).change.steps.at(0).store,
            StoreId(0xA2));
  std::erase_if(members.members,
                [](const Member& member) { return member.store == StoreId(0xA2); });
  const ChangePlan repeated = PlanRemove(members, request, true, StoreId(0xA2));
  ASSERT_TRUE(repeated.answer.has_value()) << "the other one stays";
  EXPECT_TRUE(repeated.answer->ok());
  EXPECT_EQ(PlanReason(PlanRemove(members, request, false, StoreId(0xA2))), "MEMBER_NOT_FOUND");
}

TEST(ClusterChangePlan, SoIsAPromotionAndADemotion) {
  raft::Membership members = PlanMembers();
  members.members.push_back(MakeMemberOf(0xB2, "n2", false));
  v1::DemoteMemberRequest demote;
  demote.set_node_id("n2");
  EXPECT_TRUE(PlanPromote(members, "n2", StoreId(0xA2)).answer.value().ok()) << "it votes";
  EXPECT_EQ(PlanPromote(members, "n2", StoreId(0xB2)).store, StoreId(0xB2));
  members.members.back().demoted = true;
  EXPECT_TRUE(PlanDemote(members, demote, StoreId(0xB2)).answer.value().ok()) << "it learns";
  EXPECT_EQ(PlanReason(PlanDemote(members, demote, StoreId(0xA2))), "CHANGE_INVALID")
      << "there would be two learners of one name";
  const ChangePlan gone = PlanDemote(members, demote, StoreId(0xC2));
  EXPECT_EQ(PlanReason(gone), "MEMBER_NOT_FOUND") << "nobody else is demoted";
  EXPECT_THAT(gone.answer->error_message(), HasSubstr("n2 (store 00000000000000c2)"));
  EXPECT_EQ(PlanReason(PlanPromote(members, "n2", StoreId(0xC2))), "MEMBER_NOT_FOUND");
}

TEST(ClusterChangePlan, WhatIsAsAskedAlreadyIsDone) {
  EXPECT_TRUE(PlanPromote(PlanMembers(), "n1", StoreId()).answer.value().ok());
  v1::DemoteMemberRequest demote;
  demote.set_node_id("n4");
  raft::Membership members = PlanMembers();
  const auto n4 = std::find_if(members.members.begin(), members.members.end(),
                               [](const raft::Member& member) { return member.name == "n4"; });
  // A learner like any other would get a vote by itself.
  EXPECT_FALSE(PlanDemote(members, demote, StoreId()).answer.has_value());
  EXPECT_EQ(PlanDemote(members, demote, StoreId()).store, n4->store);
  n4->demoted = true;
  EXPECT_TRUE(PlanDemote(members, demote, StoreId()).answer.value().ok());
  EXPECT_FALSE(PlanTransfer(PlanMembers(), "").answer.has_value());
  EXPECT_FALSE(PlanTransfer(PlanMembers(), "").store);
}

TEST(ClusterChangePlan, UnknownNamesAndLearnersAreNoTargets) {
  EXPECT_EQ(PlanReason(PlanPromote(PlanMembers(), "x", StoreId())), "MEMBER_NOT_FOUND");
  v1::DemoteMemberRequest demote;
  demote.set_node_id("x");
  EXPECT_EQ(PlanReason(PlanDemote(PlanMembers(), demote, StoreId())), "MEMBER_NOT_FOUND");
  EXPECT_EQ(PlanReason(PlanTransfer(PlanMembers(), "x")), "MEMBER_NOT_FOUND");
  EXPECT_EQ(PlanReason(PlanTransfer(PlanMembers(), "n4")), "NOT_A_VOTER");
}

// --- Refusals of the core ---

TEST(ClusterChangePlan, RefusalsSayTheArithmetic) {
  raft::ChangeResult result;
  result.status = raft::ChangeStatus::kWouldLoseQuorum;
  result.voters = 2;
  result.needed = 2;
  result.reachable = 1;
  grpc::Status status = RefusalOf(result, PlanMembers());
  EXPECT_EQ(DetailsOf(status).reason, "WOULD_LOSE_QUORUM");
  EXPECT_THAT(status.error_message(),
              HasSubstr("of the 2 voters that there would be, 2 must answer and 1 does"));
  EXPECT_EQ(DetailsOf(status).metadata.at("needed"), "2");

  result = {};
  result.status = raft::ChangeStatus::kNotCaughtUp;
  result.store = StoreId(0xA4);
  result.match = raft::Index(40);
  result.last_index = raft::Index(100);
  status = RefusalOf(result, PlanMembers());
  EXPECT_EQ(DetailsOf(status).reason, "LEARNER_NOT_CAUGHT_UP");
  EXPECT_THAT(status.error_message(), HasSubstr("n4 (store 00000000000000a4) is not caught up: it "
                                                "lacks 60 entries of the log's 100"));
  EXPECT_EQ(DetailsOf(status).metadata.at("lag"), "60");

  result.status = raft::ChangeStatus::kNoVoters;
  EXPECT_EQ(DetailsOf(RefusalOf(result, PlanMembers())).reason, "NO_VOTERS");
  result.status = raft::ChangeStatus::kNameTaken;
  EXPECT_EQ(DetailsOf(RefusalOf(result, PlanMembers())).reason, "NAME_TAKEN");
  result.status = raft::ChangeStatus::kInvalid;
  result.reason = "why";
  EXPECT_THAT(RefusalOf(result, PlanMembers()).error_message(), HasSubstr("why"));

  using raft::TransferStatus;
  EXPECT_EQ(DetailsOf(TransferRefusal(TransferStatus::kSilent, "n2")).reason, "TARGET_SILENT");
  EXPECT_THAT(TransferRefusal(TransferStatus::kSilent, "").error_message(),
              HasSubstr("no other voter"));
  status = TransferRefusal(TransferStatus::kFailed, "n2");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailsOf(status).retry_delay.has_value());
}

// --- Requests ---

TEST(ClusterChangePlan, RequestsAreCheckedFieldByField) {
  const auto field = [](std::string_view method, const google::protobuf::Message& request) {
    ChangeRequest parsed = *EmptyChangeRequest(method);
    const grpc::Status status = ParseChangeRequest(request.SerializeAsString(), &parsed);
    return status.ok() ? std::string() : DetailsOf(status).metadata["field"];
  };
  v1::AddMemberRequest add;
  EXPECT_EQ(field("AddMember", add), "address");
  for (const char* address : {"h", "h:0", "h:99999", ":7000", "0.0.0.0:7000", "a b:1"}) {
    add.set_address(address);
    EXPECT_EQ(field("AddMember", add), "address") << address;
  }
  add.set_address("10.0.0.4:7000");
  EXPECT_EQ(field("AddMember", add), "");
  v1::RemoveMemberRequest remove;
  EXPECT_EQ(field("RemoveMember", remove), "node_id");
  remove.set_node_id("n");
  EXPECT_EQ(field("RemoveMember", remove), "");
  remove.set_store_id("12");
  EXPECT_EQ(field("RemoveMember", remove), "store_id");
  EXPECT_EQ(field("PromoteMember", v1::PromoteMemberRequest()), "node_id");
  v1::DemoteMemberRequest demote;
  demote.set_node_id(std::string(256, 'n'));
  EXPECT_EQ(field("DemoteMember", demote), "node_id");
  EXPECT_EQ(field("TransferLeadership", v1::TransferLeadershipRequest()), "");
  EXPECT_EQ(field("Compact", v1::CompactRequest()), "revision");
  EXPECT_FALSE(EmptyChangeRequest("Drain").has_value());
}

}  // namespace
}  // namespace quorate::services
