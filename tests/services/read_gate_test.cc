#include "services/read_gate.h"

#include <gmock/gmock.h>

#include "services/errors.h"
#include "services/read_errors.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Kind = ReadVerdict::Kind;

constexpr Instant kGateStart{seconds(1000)};

// A node that has been in service, and a read that arrives at kGateStart with ten seconds to go.
const ReadState kInService = {.caught_up_once = true,
                              .fresh_as_of = kGateStart - milliseconds(30),
                              .revision = Revision(50),
                              .applied = raft::Index(7)};
const ReadState kRestarted = {.caught_up_once = true,
                              .fresh_as_of = std::nullopt,
                              .revision = Revision(50),
                              .applied = raft::Index(7)};
const ReadState kNew = {.caught_up_once = false,
                        .fresh_as_of = std::nullopt,
                        .revision = Revision(1),
                        .applied = raft::Index(1)};

ReadWish Wish(std::optional<Duration> max_staleness = std::nullopt) {
  ReadWish wish;
  wish.max_staleness = max_staleness;
  wish.arrived = kGateStart;
  wish.deadline = kGateStart + seconds(10);
  return wish;
}

std::string Reason(const ReadVerdict& verdict) {
  EXPECT_EQ(verdict.kind, Kind::kRefuse);
  return DetailsOf(MakeReadError(verdict.refusal)).reason;
}

TEST(ReadGate, InServiceItAnswersAtOnceWithItsAge) {
  const ReadVerdict verdict = JudgeRead(kInService, Wish(), kGateStart);
  ASSERT_EQ(verdict.kind, Kind::kServe);
  // The age counts until the answer leaves, not until the read began.
  const v1::Staleness staleness =
      MeasuredStaleness(verdict.fresh_as_of, kGateStart + milliseconds(5));
  EXPECT_FALSE(staleness.unknown());
  EXPECT_EQ(staleness.age().seconds(), 0);
  EXPECT_EQ(staleness.age().nanos(), 35'000'000);
}

TEST(ReadGate, ALostLeaderMakesItOlderNotUnavailable) {
  const ReadVerdict verdict = JudgeRead(kInService, Wish(), kGateStart + seconds(3600));
  ASSERT_EQ(verdict.kind, Kind::kServe);
  EXPECT_EQ(MeasuredStaleness(verdict.fresh_as_of, kGateStart + seconds(3600)).age().seconds(),
            3600);
}

TEST(ReadGate, AfterARestartItWaitsASecondForTheFirstLeader) {
  const ReadVerdict first = JudgeRead(kRestarted, Wish(), kGateStart);
  ASSERT_EQ(first.kind, Kind::kWait);
  EXPECT_EQ(first.wait_until, kGateStart + seconds(1));
  EXPECT_EQ(JudgeRead(kRestarted, Wish(), kGateStart + milliseconds(999)).kind, Kind::kWait);
  // A leader comes: answered at once, with its age.
  ReadState heard = kRestarted;
  heard.fresh_as_of = kGateStart + milliseconds(400);
  EXPECT_EQ(JudgeRead(heard, Wish(), kGateStart + milliseconds(420)).fresh_as_of,
            heard.fresh_as_of);
  // None comes: answered from what is durable, and said so.
  const ReadVerdict last = JudgeRead(kRestarted, Wish(), kGateStart + seconds(1));
  ASSERT_EQ(last.kind, Kind::kServe);
  const v1::Staleness staleness = MeasuredStaleness(last.fresh_as_of, kGateStart + seconds(1));
  EXPECT_TRUE(staleness.unknown());
  EXPECT_FALSE(staleness.has_age());
}

TEST(ReadGate, ALinearizableReadWaitsForItsIndexAndIsAsFreshAsItsQuestion) {
  ReadWish wish = Wish();
  wish.index = raft::Index(8);
  wish.index_asked = kGateStart;
  EXPECT_EQ(JudgeRead(kInService, wish, kGateStart).kind, Kind::kWait);
  ReadState there = kRestarted;  // it has heard of no leader: the index is better than that
  there.applied = raft::Index(8);
  const ReadVerdict verdict = JudgeRead(there, wish, kGateStart + milliseconds(9));
  ASSERT_EQ(verdict.kind, Kind::kServe);
  EXPECT_EQ(verdict.fresh_as_of, kGateStart);
}

TEST(ReadGate, AMinimumRevisionIsWaitedFor) {
  ReadWish wish = Wish();
  wish.min_revision = Revision(51);
  EXPECT_EQ(JudgeRead(kInService, wish, kGateStart).kind, Kind::kWait);
  wish.min_revision = Revision(50);
  EXPECT_EQ(JudgeRead(kInService, wish, kGateStart).kind, Kind::kServe);
}

TEST(ReadGate, TheWaitEndsBeforeAShortDeadline) {
  ReadWish wish = Wish();
  wish.deadline = kGateStart + milliseconds(300);
  const ReadVerdict first = JudgeRead(kRestarted, wish, kGateStart);
  ASSERT_EQ(first.kind, Kind::kWait);
  EXPECT_LT(first.wait_until, wish.deadline);
  EXPECT_EQ(JudgeRead(kRestarted, wish, first.wait_until).kind, Kind::kServe);
}

TEST(ReadGate, AReadWithLittleTimeStillWaits) {
  ReadWish wish = Wish();
  wish.deadline = kGateStart + milliseconds(40);
  wish.index = raft::Index(8);
  const ReadVerdict verdict = JudgeRead(kInService, wish, kGateStart);
  ASSERT_EQ(verdict.kind, Kind::kWait);
  EXPECT_EQ(verdict.wait_until, kGateStart + milliseconds(30));
  EXPECT_EQ(JudgeRead(kInService, wish, verdict.wait_until).kind, Kind::kRefuse);
}

TEST(ReadGate, MaxStalenessIsTakenWhenItIsMet) {
  EXPECT_EQ(JudgeRead(kInService, Wish(milliseconds(30)), kGateStart).kind, Kind::kServe);
}

TEST(ReadGate, ALaterPageWaitsForItsRevision) {
  ReadWish wish = Wish();
  wish.revision = Revision(51);
  const ReadVerdict first = JudgeRead(kInService, wish, kGateStart);
  ASSERT_EQ(first.kind, Kind::kWait);
  EXPECT_LT(first.wait_until, wish.deadline);
  ReadState later = kInService;
  later.revision = Revision(51);
  EXPECT_EQ(JudgeRead(later, wish, kGateStart).kind, Kind::kServe);
}

TEST(ReadGate, AClockSampleOfTheFutureIsAgeZero) {
  EXPECT_EQ(MeasuredStaleness(kGateStart + seconds(1), kGateStart).age().nanos(), 0);
}

// --- Errors ---

TEST(ReadGate, AStoreThatNeverCaughtUpRefusesEveryRead) {
  EXPECT_EQ(Reason(JudgeRead(kNew, Wish(), kGateStart)), "NOT_CAUGHT_UP");
  EXPECT_EQ(Reason(JudgeRead(kNew, Wish(seconds(100)), kGateStart)), "NOT_CAUGHT_UP");
  // Also with a leader in sight, until that fact is durable.
  ReadState seen = kNew;
  seen.fresh_as_of = kGateStart;
  const ReadVerdict verdict = JudgeRead(seen, Wish(), kGateStart);
  EXPECT_EQ(Reason(verdict), "NOT_CAUGHT_UP");
  EXPECT_EQ(MakeReadError(verdict.refusal).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailsOf(MakeReadError(verdict.refusal)).retry_delay.has_value());
}

TEST(ReadGate, AnUnknownAgeNeverSatisfiesMaxStaleness) {
  const ReadVerdict verdict = JudgeRead(kRestarted, Wish(std::chrono::hours(100000)), kGateStart);
  EXPECT_EQ(Reason(verdict), "TOO_STALE");
  EXPECT_EQ(MakeReadError(verdict.refusal).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(ReadGate, TooOldIsRefusedWithBothNumbers) {
  const ReadVerdict verdict = JudgeRead(kInService, Wish(milliseconds(29)), kGateStart);
  EXPECT_EQ(Reason(verdict), "TOO_STALE");
  EXPECT_EQ(DetailsOf(MakeReadError(verdict.refusal)).metadata.at("age_ms"), "30");
  EXPECT_EQ(DetailsOf(MakeReadError(verdict.refusal)).metadata.at("max_staleness_ms"), "29");
  EXPECT_EQ(Reason(JudgeRead(kInService, Wish(Duration(0)), kGateStart)), "TOO_STALE");
}

TEST(ReadGate, AReadThatTookTooLongIsTooStale) {
  EXPECT_TRUE(CheckStaleness(kGateStart, milliseconds(50), kGateStart + milliseconds(50)).ok());
  EXPECT_FALSE(CheckStaleness(kGateStart, milliseconds(50), kGateStart + milliseconds(51)).ok());
}

TEST(ReadGate, APageThatThisNodeIsTooFarBehindForIsAnotherNodes) {
  ReadWish wish = Wish();
  wish.revision = Revision(51);
  const ReadVerdict verdict = JudgeRead(kInService, wish, wish.deadline - kReadDeadlineMargin);
  EXPECT_EQ(Reason(verdict), "BEHIND");
  EXPECT_EQ(MakeReadError(verdict.refusal).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailsOf(MakeReadError(verdict.refusal)).retry_delay.has_value());
  EXPECT_EQ(DetailsOf(MakeReadError(verdict.refusal)).metadata.at("field"), "page_token");
}

TEST(ReadGateErrors, SayWhatTheNodeHasAndWhatTheReadWants) {
  using Why = ReadRefusal::Reason;
  const auto text = [](Why reason) {
    return MakeReadError({.reason = reason, .has = 7, .wants = 9}).error_message();
  };
  EXPECT_THAT(text(Why::kNotApplied), HasSubstr("applied 7 entries and the read needs 9"));
  EXPECT_THAT(text(Why::kPageBehind),
              HasSubstr("page_token: this node shows revision 7, the read needs 9"));
  EXPECT_THAT(text(Why::kBehind),
              HasSubstr("read.min_revision: this node shows revision 7, the read needs 9"));
  EXPECT_THAT(text(Why::kTooOld), HasSubstr("may be 7 ms old; read.max_staleness is 9 ms"));
  EXPECT_TRUE(MakeReadError({}).ok());
}

TEST(ReadGateErrors, WhatDoesNotComeBeforeTheDeadlineIsBehind) {
  ReadWish index = Wish();
  index.index = raft::Index(8);
  EXPECT_EQ(Reason(JudgeRead(kInService, index, index.deadline)), "BEHIND");
  ReadWish revision = Wish();
  revision.min_revision = Revision(51);
  const ReadVerdict verdict = JudgeRead(kInService, revision, revision.deadline);
  EXPECT_EQ(Reason(verdict), "BEHIND");
  EXPECT_EQ(DetailsOf(MakeReadError(verdict.refusal)).metadata.at("field"), "read.min_revision");
  EXPECT_TRUE(DetailsOf(MakeReadError(verdict.refusal)).retry_delay);
}

TEST(ReadGateErrors, AStoreThatNeverCaughtUpServesNoLinearizableReadEither) {
  ReadWish wish = Wish();
  wish.index = raft::Index(1);
  EXPECT_EQ(Reason(JudgeRead(kNew, wish, kGateStart)), "NOT_CAUGHT_UP");
}

}  // namespace
}  // namespace quorate::services
