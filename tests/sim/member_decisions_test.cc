#include "tests/sim/member_decisions.h"

#include "gtest/gtest.h"

namespace quorate::sim {
namespace {

using Kind = raft::MemberStep::Kind;
using raft::ChangeStatus;

constexpr StoreId kStore(2);

class MemberDecisionsTest : public testing::Test {
 protected:
  MemberDecisions::Asked Ask(Kind kind) {
    raft::MembershipChange change;
    change.steps.emplace_back().kind = kind;
    change.steps.back().store = kStore;
    return decisions_.Ask(change, [this](StoreId) { return caught_up_; });
  }
  void Do(Kind kind) { decisions_.End(Ask(kind), ChangeStatus::kAccepted); }

  bool caught_up_ = true;
  MemberDecisions decisions_;
};

TEST_F(MemberDecisionsTest, ADemotionHoldsUntilSomethingElseIsAskedFor) {
  Do(Kind::kDemote);
  EXPECT_TRUE(decisions_.demoted(kStore));
  const MemberDecisions::Asked asked = Ask(Kind::kPromote);
  EXPECT_FALSE(decisions_.demoted(kStore)) << "it may be done before the answer comes";
  decisions_.End(asked, ChangeStatus::kNotCaughtUp);
  EXPECT_TRUE(decisions_.demoted(kStore));
  Do(Kind::kPromote);
  EXPECT_FALSE(decisions_.demoted(kStore));
  decisions_.End(Ask(Kind::kDemote), ChangeStatus::kUnknown);
  EXPECT_FALSE(decisions_.demoted(kStore)) << "nobody knows";
}

TEST_F(MemberDecisionsTest, ARemovalHoldsUntilItIsAddedAgain) {
  Do(Kind::kRemove);
  EXPECT_TRUE(decisions_.taken_out(kStore));
  Do(Kind::kAddLearner);
  EXPECT_FALSE(decisions_.taken_out(kStore));
  caught_up_ = false;
  Do(Kind::kRemove);
  EXPECT_FALSE(decisions_.taken_out(kStore)) << "a leader that knows nothing of it lets it in";
}

TEST_F(MemberDecisionsTest, ARemovalHoldsAlsoWhenAddingItAgainIsRefused) {
  Do(Kind::kRemove);
  const MemberDecisions::Asked asked = Ask(Kind::kAddLearner);
  EXPECT_FALSE(decisions_.taken_out(kStore)) << "it may be done before the answer comes";
  decisions_.End(asked, ChangeStatus::kInProgress);
  EXPECT_TRUE(decisions_.taken_out(kStore));
}

TEST_F(MemberDecisionsTest, BothRefusedItComesBack) {
  Do(Kind::kRemove);
  const MemberDecisions::Asked first = Ask(Kind::kAddLearner);
  const MemberDecisions::Asked second = Ask(Kind::kAddLearner);
  decisions_.End(first, ChangeStatus::kNotLeader);
  decisions_.End(second, ChangeStatus::kInProgress);
  EXPECT_TRUE(decisions_.taken_out(kStore));
}

// Two ask for the same, and the first is refused: the second may have it done at any time.
TEST_F(MemberDecisionsTest, NothingComesBackWhileAnotherStillAsks) {
  Do(Kind::kRemove);
  const MemberDecisions::Asked first = Ask(Kind::kAddLearner);
  const MemberDecisions::Asked second = Ask(Kind::kAddLearner);
  decisions_.End(first, ChangeStatus::kNotLeader);
  EXPECT_FALSE(decisions_.taken_out(kStore));
  decisions_.End(second, ChangeStatus::kAccepted);
  EXPECT_FALSE(decisions_.taken_out(kStore));
}

// Seed 256240305515999: a leader stood still for fifteen seconds with a removal that it then
// refused; the store had been removed by another one and added again, and autopilot rightly gave it
// a vote.
TEST_F(MemberDecisionsTest, ALateRefusalBringsNothingBack) {
  Do(Kind::kDemote);
  const MemberDecisions::Asked late = Ask(Kind::kRemove);
  Do(Kind::kRemove);
  Do(Kind::kAddLearner);
  decisions_.End(late, ChangeStatus::kNotLeader);
  EXPECT_FALSE(decisions_.demoted(kStore));
}

TEST_F(MemberDecisionsTest, NorDoesALateSuccess) {
  const MemberDecisions::Asked removed = Ask(Kind::kRemove);
  Do(Kind::kAddLearner);
  decisions_.End(removed, ChangeStatus::kAccepted);
  EXPECT_FALSE(decisions_.taken_out(kStore));
  const MemberDecisions::Asked demoted = Ask(Kind::kDemote);
  Do(Kind::kPromote);
  decisions_.End(demoted, ChangeStatus::kAccepted);
  EXPECT_FALSE(decisions_.demoted(kStore));
}

}  // namespace
}  // namespace quorate::sim
