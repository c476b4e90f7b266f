#include "services/leave.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace quorate::services {
namespace {

using raft::TransferStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;

class LeaveTest : public testing::Test {
 protected:
  LeaveTest() {
    status_.self = StoreId(1);
    status_.role = raft::Role::kLeader;
    status_.election_timeout = milliseconds(200);
    auto membership = std::make_shared<raft::Membership>();
    for (uint64_t id = 1; id <= 3; ++id) {
      membership->members.push_back(
          {.store = StoreId(id), .name = {}, .address = {}, .voter = true});
    }
    membership->members.push_back({.store = StoreId(4), .name = {}, .address = {}});  // learns
    membership_ = membership;
    status_.membership = membership;
    for (uint64_t id = 2; id <= 4; ++id) {
      raft::PeerView peer;
      peer.store = StoreId(id);
      peer.match = raft::Index(id == 3 ? 9 : 10);
      peer.active = true;
      status_.peers.push_back(peer);
    }
  }
  void Run(Duration at, bool leads = true) {
    status_.role = leads ? raft::Role::kLeader : raft::Role::kFollower;
    leave_.Run(Instant(seconds(100)) + at, status_,
               [this](StoreId target, raft::Node::TransferDone done) {
                 targets_.push_back(target);
                 done_ = std::move(done);
               });
  }
  void Answer(TransferStatus status) { done_(status); }

  Leave leave_;
  std::shared_ptr<raft::Membership> membership_;
  raft::NodeStatus status_;
  std::vector<StoreId> targets_;
  raft::Node::TransferDone done_;
};

TEST_F(LeaveTest, OnlyALeaderHandsOverAndOnceAtATime) {
  Run(seconds(0), false);
  EXPECT_EQ(targets_.size(), 0u);
  Run(seconds(1));
  Run(seconds(60));
  EXPECT_EQ(targets_.size(), 1u);
  EXPECT_FALSE(leave_.handed_over());
  Answer(TransferStatus::kDone);
  EXPECT_TRUE(leave_.handed_over());
  Run(seconds(61), false);
  EXPECT_EQ(targets_.size(), 1u);
}

TEST_F(LeaveTest, EachAttemptWaitsTwiceAsLongAsTheOneBefore) {
  Run(milliseconds(0));
  Answer(TransferStatus::kFailed);
  Run(milliseconds(99));
  EXPECT_EQ(targets_.size(), 1u);
  Run(milliseconds(100));
  EXPECT_EQ(targets_.size(), 2u);
  Answer(TransferStatus::kDone);  // and it is elected again
  Run(milliseconds(299));
  EXPECT_EQ(targets_.size(), 2u);
  Run(milliseconds(300));
  EXPECT_EQ(targets_.size(), 3u);
}

TEST_F(LeaveTest, ThePauseIsNeverLongAndEndsWithTheLastOne) {
  Duration at = seconds(0);
  for (int i = 0; i < 20; ++i, at += Leave::kPauseMax) {
    Run(at);
    Answer(TransferStatus::kFailed);
  }
  EXPECT_EQ(targets_.size(), 20u);
  // Longer ago than a whole pause: begin with the short one.
  Run(at + 2 * Leave::kPauseMax, false);
  Run(at + 2 * Leave::kPauseMax);
  Answer(TransferStatus::kFailed);
  Run(at + 2 * Leave::kPauseMax + Leave::kPauseMin);
  EXPECT_EQ(targets_.size(), 22u);
}

// Whoever gives it back (it is drained, too) is asked last the next time: the third one gets it.
TEST_F(LeaveTest, WhoHadItFromHereIsAskedLast) {
  Run(milliseconds(0));
  Answer(TransferStatus::kDone);
  Run(milliseconds(50), false);
  Run(milliseconds(100));
  Answer(TransferStatus::kDone);
  Run(milliseconds(300));
  EXPECT_EQ(targets_, (std::vector<StoreId>{StoreId(2), StoreId(3), StoreId(2)}));
}

TEST_F(LeaveTest, OnlyAVoterThatAnswersIsAsked) {
  status_.peers[0].active = false;
  Run(milliseconds(0));
  Answer(TransferStatus::kFailed);
  status_.peers[1].lost_data = true;
  Run(milliseconds(100));
  EXPECT_EQ(targets_, (std::vector<StoreId>{StoreId(3), StoreId()}));
}

// A leader of a moment has heard nobody.
TEST_F(LeaveTest, ThatNobodyAnswersIsBelievedAfterTwoElectionTimeouts) {
  Run(milliseconds(0));
  Answer(TransferStatus::kSilent);
  Run(milliseconds(10));
  EXPECT_FALSE(leave_.nobody_else());
  Run(milliseconds(410));
  EXPECT_FALSE(leave_.nobody_else());
  Answer(TransferStatus::kSilent);
  Run(milliseconds(411));
  EXPECT_TRUE(leave_.nobody_else());
  leave_.Hasten();
  EXPECT_FALSE(leave_.nobody_else());
  Run(milliseconds(412));
  Answer(TransferStatus::kInProgress);
  Run(seconds(10));
  EXPECT_FALSE(leave_.nobody_else());
}

TEST_F(LeaveTest, TheOnlyVoterHasNobody) {
  membership_->members = {membership_->members[0], membership_->members[3]};
  Run(milliseconds(0));
  EXPECT_TRUE(leave_.nobody_else());
  EXPECT_EQ(targets_.size(), 0u);
}

TEST_F(LeaveTest, AnAnswerMayComeWhenItIsGone) {
  raft::Node::TransferDone late;
  {
    Leave leave;
    leave.Run(Instant(seconds(1)), status_,
              [&late](StoreId, raft::Node::TransferDone done) { late = std::move(done); });
  }
  late(TransferStatus::kFailed);
}

}  // namespace
}  // namespace quorate::services
