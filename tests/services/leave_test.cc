#include "services/leave.h"

#include <gtest/gtest.h>

#include <vector>

namespace quorate::services {
namespace {

using raft::TransferStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaveTest : public testing::Test {
 protected:
  void Run(Duration at, bool leads) {
    leave_.Run(Instant(seconds(100)) + at, leads,
               [this](raft::Node::TransferDone done) { asked_.push_back(std::move(done)); });
  }
  void Answer(TransferStatus status) { asked_.back()(status); }

  Leave leave_;
  std::vector<raft::Node::TransferDone> asked_;
};

TEST_F(LeaveTest, OnlyALeaderHandsOverAndOnceAtATime) {
  Run(seconds(0), false);
  EXPECT_EQ(asked_.size(), 0u);
  Run(seconds(1), true);
  Run(seconds(60), true);
  EXPECT_EQ(asked_.size(), 1u);
  Answer(TransferStatus::kDone);
  Run(seconds(61), false);
  EXPECT_EQ(asked_.size(), 1u);
}

TEST_F(LeaveTest, EachAttemptWaitsTwiceAsLongAsTheOneBefore) {
  Run(milliseconds(0), true);
  Answer(TransferStatus::kFailed);
  Run(milliseconds(99), true);
  EXPECT_EQ(asked_.size(), 1u);
  Run(milliseconds(100), true);
  EXPECT_EQ(asked_.size(), 2u);
  Answer(TransferStatus::kDone);  // and it is elected again: somebody else is drained, too
  Run(milliseconds(299), true);
  EXPECT_EQ(asked_.size(), 2u);
  Run(milliseconds(300), true);
  EXPECT_EQ(asked_.size(), 3u);
}

TEST_F(LeaveTest, ThePauseIsNeverLongAndEndsWithTheLastOne) {
  Duration at = seconds(0);
  for (int i = 0; i < 20; ++i, at += Leave::kPauseMax) {
    Run(at, true);
    Answer(TransferStatus::kFailed);
  }
  EXPECT_EQ(asked_.size(), 20u);
  // Longer ago than a whole pause: begin with the short one.
  Run(at + 2 * Leave::kPauseMax, false);
  Run(at + 2 * Leave::kPauseMax, true);
  Answer(TransferStatus::kFailed);
  Run(at + 2 * Leave::kPauseMax + Leave::kPauseMin, true);
  EXPECT_EQ(asked_.size(), 22u);
}

TEST_F(LeaveTest, ThatNobodyElseAnswersIsSaidUntilAskedAnew) {
  Run(seconds(0), true);
  EXPECT_FALSE(leave_.nobody_else());
  Answer(TransferStatus::kSilent);
  EXPECT_TRUE(leave_.nobody_else());
  leave_.Hasten();
  EXPECT_FALSE(leave_.nobody_else());
  Run(milliseconds(1), true);
  EXPECT_EQ(asked_.size(), 2u);
  Answer(TransferStatus::kInProgress);
  EXPECT_FALSE(leave_.nobody_else());
}

TEST_F(LeaveTest, AnAnswerMayComeWhenItIsGone) {
  raft::Node::TransferDone late;
  {
    Leave leave;
    leave.Run(Instant(seconds(1)), true,
              [&late](raft::Node::TransferDone done) { late = std::move(done); });
  }
  late(TransferStatus::kFailed);
}

}  // namespace
}  // namespace quorate::services
