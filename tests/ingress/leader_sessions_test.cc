#include "ingress/leader_sessions.h"

#include "gtest/gtest.h"

namespace quorate::ingress {
namespace {

using Verdict = LeaderSessions::Verdict;

class LeaderSessionsTest : public testing::Test {
 protected:
  LeaderSessionsTest() { sessions_.BeginTerm(raft::Term(5)); }

  Verdict Check(uint64_t sequence, uint64_t applied) {
    const auto result = sessions_.Check(session_, sequence, AppliedSession{session_, applied});
    expected_ = result.expected;
    return result.verdict;
  }

  const SessionId session_{StoreId(7), 3, 99};
  LeaderSessions sessions_;
  uint64_t expected_ = 0;
};

TEST_F(LeaderSessionsTest, TheNextOneIsAppendedOnceThenPendingThenApplied) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  EXPECT_EQ(Check(11, 10), Verdict::kPending);
  EXPECT_EQ(Check(12, 10), Verdict::kAppend) << "pipelined";
  EXPECT_EQ(Check(11, 11), Verdict::kApplied);
  EXPECT_EQ(Check(12, 11), Verdict::kPending);
}

TEST_F(LeaderSessionsTest, AGapIsRefusedOnceAndThenIgnoredUntilTheExpectedOneComes) {
  EXPECT_EQ(Check(13, 10), Verdict::kRefuse);
  EXPECT_EQ(expected_, 11u);
  EXPECT_EQ(Check(14, 10), Verdict::kIgnore);
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  EXPECT_EQ(Check(13, 10), Verdict::kRefuse);
  EXPECT_EQ(expected_, 12u);
}

TEST_F(LeaderSessionsTest, EverythingAfterARefusedOneIsRefusedUntilItIsSentAgain) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  EXPECT_EQ(Check(12, 10), Verdict::kAppend);
  EXPECT_EQ(Check(13, 10), Verdict::kAppend);
  sessions_.RollBack(session_, 12);  // the queue was full: the caller told the sender
  EXPECT_EQ(Check(14, 10), Verdict::kIgnore);
  EXPECT_EQ(Check(11, 10), Verdict::kPending);
  EXPECT_EQ(Check(12, 10), Verdict::kAppend);
  EXPECT_EQ(Check(13, 10), Verdict::kAppend);
}

TEST_F(LeaderSessionsTest, ANewStreamIsToldOfTheRefusalAgain) {
  EXPECT_EQ(Check(13, 10), Verdict::kRefuse);
  sessions_.OnNewStream(session_);
  EXPECT_EQ(Check(13, 10), Verdict::kRefuse);
}

TEST_F(LeaderSessionsTest, ANewTermBeginsFromWhatIsApplied) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  EXPECT_EQ(Check(12, 10), Verdict::kAppend);
  sessions_.BeginTerm(raft::Term(5));
  EXPECT_EQ(Check(12, 10), Verdict::kPending) << "the same term: nothing is forgotten";
  sessions_.BeginTerm(raft::Term(7));  // another leader cut 12 off
  EXPECT_EQ(Check(12, 11), Verdict::kAppend);
}

TEST_F(LeaderSessionsTest, WhatTheStateRefusedIsNotPendingForEver) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  sessions_.OnRefusedByState(session_);
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
}

// --- Sessions that are not there ---

TEST_F(LeaderSessionsTest, AnUnknownSessionOrAnotherProcessOfTheStoreIsUnknown) {
  EXPECT_EQ(sessions_.Check(session_, 1, std::nullopt).verdict, Verdict::kUnknown);
  SessionId other = session_;
  other.boot = 4;
  EXPECT_EQ(sessions_.Check(session_, 1, AppliedSession{other, 0}).verdict, Verdict::kUnknown);
  other = session_;
  other.nonce = 1;
  EXPECT_EQ(sessions_.Check(session_, 1, AppliedSession{other, 0}).verdict, Verdict::kUnknown);
}

TEST_F(LeaderSessionsTest, ANewerSessionOfTheStoreStartsAtItsOwnBeginning) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  SessionId newer = session_;
  newer.boot = 4;
  EXPECT_EQ(sessions_.Check(newer, 1, AppliedSession{newer, 0}).verdict, Verdict::kAppend);
  EXPECT_EQ(sessions_.Check(session_, 12, AppliedSession{newer, 0}).verdict, Verdict::kUnknown);
}

TEST_F(LeaderSessionsTest, RollingBackWhatANewTermForgotIsHarmless) {
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
  sessions_.BeginTerm(raft::Term(6));
  sessions_.RollBack(session_, 11);
  EXPECT_EQ(Check(11, 10), Verdict::kAppend);
}

}  // namespace
}  // namespace quorate::ingress
