#include "raft/let_in.h"

#include "gtest/gtest.h"

namespace quorate::raft {
namespace {

constexpr ClusterId kHere(0xC1), kElsewhere(0xC2);

Membership Three() {
  Membership members;
  members.cluster = kHere;
  for (uint64_t i = 1; i <= 3; ++i) {
    members.members.push_back({.store = StoreId(i),
                               .name = "cp-" + std::to_string(i),
                               .address = "h:" + std::to_string(i),
                               .voter = i != 3});
  }
  return members;
}

IdentifyReply Waits(uint64_t store, const std::string& name) {
  IdentifyReply reply;
  reply.store = StoreId(store);
  reply.name = name;
  reply.address = "h:9";
  reply.state = BirthState::kWaitingToJoin;
  reply.waits_for = kHere;
  return reply;
}

TEST(LetIn, WhoWaitsForThisClusterOrForNoneMayComeIn) {
  IdentifyReply reply = Waits(9, "cp-9");
  EXPECT_EQ(JudgeLetIn(kHere, reply), LetInRefusal::kNone);
  EXPECT_EQ(JudgeLetIn(kElsewhere, reply), LetInRefusal::kOtherCluster);
  reply.waits_for = ClusterId();
  EXPECT_EQ(JudgeLetIn(kHere, reply), LetInRefusal::kNone);
  reply.finds_two_clusters = true;
  EXPECT_EQ(JudgeLetIn(kHere, reply), LetInRefusal::kFindsTwo);
}

TEST(LetIn, WhoFoundsAClusterStaysOut) {
  IdentifyReply founder = Waits(9, "cp-9");
  founder.state = BirthState::kSearching;
  EXPECT_EQ(JudgeLetIn(kHere, founder), LetInRefusal::kNone) << "it has heard of this one";
  founder.waits_for = ClusterId();
  EXPECT_EQ(JudgeLetIn(kHere, founder), LetInRefusal::kWouldBeFounder);
  // A pledge may have become another cluster's first entry.
  founder.waits_for = kHere;
  founder.pledge = {1, StoreId(9)};
  EXPECT_EQ(JudgeLetIn(kHere, founder), LetInRefusal::kPledged);
}

TEST(LetIn, WhoIsOfThisClusterMayComeBackAndWhoIsAboutToExitMayNot) {
  IdentifyReply reply = Waits(9, "cp-9");
  reply.state = BirthState::kComplete;
  reply.waits_for = ClusterId();
  reply.cluster = kHere;
  EXPECT_EQ(JudgeLetIn(kHere, reply), LetInRefusal::kNone);
  EXPECT_EQ(JudgeLetIn(kElsewhere, reply), LetInRefusal::kOtherCluster);
  reply.state = BirthState::kHalted;
  EXPECT_EQ(JudgeLetIn(kHere, reply), LetInRefusal::kHalted);
}

TEST(LetIn, OnlyWhoCaughtUpHereAndIsNoMemberWasTakenOut) {
  IdentifyReply reply = Waits(9, "cp-9");
  EXPECT_FALSE(WasTakenOut(Three(), reply)) << "it waits";
  reply.cluster = kHere;
  EXPECT_TRUE(WasTakenOut(Three(), reply));
  reply.never_caught_up = true;
  EXPECT_FALSE(WasTakenOut(Three(), reply)) << "the leader that let it in has fallen";
  reply.never_caught_up = false;
  reply.cluster = kElsewhere;
  EXPECT_FALSE(WasTakenOut(Three(), reply)) << "of another cluster";
  reply.cluster = kHere;
  reply.store = StoreId(3);
  EXPECT_FALSE(WasTakenOut(Three(), reply)) << "it is a member";
}

TEST(LetIn, ALearnerOfItsNameGoesAtOnceAndAVoterStays) {
  std::vector<MemberStep> steps = LetInSteps(Three(), Waits(9, "cp-2"), "h:8");
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].kind, MemberStep::Kind::kAddLearner);
  EXPECT_EQ(steps[0].store, StoreId(9));
  EXPECT_EQ(steps[0].name, "cp-2");
  EXPECT_EQ(steps[0].address, "h:9");

  IdentifyReply nameless = Waits(9, "cp-3");
  nameless.address.clear();
  steps = LetInSteps(Three(), nameless, "h:8");
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].kind, MemberStep::Kind::kRemove);
  EXPECT_EQ(steps[0].store, StoreId(3));
  EXPECT_EQ(steps[1].address, "h:8");
}

}  // namespace
}  // namespace quorate::raft
