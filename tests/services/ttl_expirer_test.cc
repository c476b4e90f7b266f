// When a leader ends time-to-lives, told on a clock of our own.
#include "services/ttl_expirer.h"

#include <gtest/gtest.h>

#include "tests/services/fake_backend.h"

namespace quorate::services {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Action = TtlSchedule::Action;

constexpr Instant kExpirerStart{seconds(1000)};
constexpr Duration kLookInterval = milliseconds(500);

class TtlScheduleTest : public ::testing::Test {
 protected:
  // It looks at it all the time, as it should.
  Action After(Duration passed) {
    for (; passed > kLookInterval; passed -= kLookInterval) {
      schedule_.Decide(now_ += kLookInterval, view_);
    }
    return AfterAPause(passed);
  }
  Action AfterAPause(Duration passed) {
    now_ += passed;
    const TtlSchedule::Decision decision = schedule_.Decide(now_, view_);
    at_ = decision.log_time_ms;
    return decision.action;
  }

  Instant now_ = kExpirerStart;
  TtlSchedule schedule_{{}};
  TtlSchedule::View view_{.leads = true,
                          .term = raft::Term(3),
                          .log_time_ms = 50'000,
                          .ttls = 1,
                          .next_deadline_ms = 53'000};
  uint64_t at_ = 0;
};

TEST_F(TtlScheduleTest, EndsWhatIsOverByItsOwnClock) {
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(milliseconds(3000)), Action::kMark) << "at the deadline it may be too early";
  EXPECT_EQ(After(milliseconds(1)), Action::kExpire);
  EXPECT_EQ(at_, 53'001u);
}

// An entry shows the leader's log time as it was; what the clock says in between counts on from the
// furthest.
TEST_F(TtlScheduleTest, EntriesBringItForward) {
  EXPECT_EQ(After({}), Action::kNothing);
  view_.log_time_ms = 52'500;
  EXPECT_EQ(AfterAPause(seconds(1)), Action::kNothing);
  view_.log_time_ms = 52'600;  // late: the clock is further
  EXPECT_EQ(After(milliseconds(400)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(101)), Action::kExpire);
  EXPECT_EQ(at_, 53'001u);
}

TEST_F(TtlScheduleTest, AFollowerEndsNothing) {
  view_.leads = false;
  view_.log_time_ms = 99'000;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(hours(1)), Action::kNothing);
}

// (1) The leader dies when two of three seconds have passed, and nothing was written since the
// grant. (2) Nobody leads for a minute. (3) The new leader counts from the last entry.
TEST_F(TtlScheduleTest, TheTimeWithoutALeaderDoesNotCount) {
  EXPECT_EQ(After({}), Action::kNothing);
  view_.leads = false;
  EXPECT_EQ(After(seconds(60)), Action::kNothing);
  view_.leads = true;
  view_.term = raft::Term(4);
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_NE(After(milliseconds(3000)), Action::kExpire);
  EXPECT_EQ(After(milliseconds(1)), Action::kExpire);
}

// What was over already when it began to lead: whoever was cut off comes first.
TEST_F(TtlScheduleTest, ANewLeaderWaitsForThoseWhoLookForIt) {
  view_.log_time_ms = 60'000;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(milliseconds(999)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(1)), Action::kExpire);
  view_.term = raft::Term(5);  // deposed and elected between two looks
  EXPECT_EQ(After({}), Action::kNothing);
}

TEST_F(TtlScheduleTest, MarksRecordTheTimeOfAnIdleStore) {
  view_.next_deadline_ms = 50'000 + 80'000;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(milliseconds(9'999)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(1)), Action::kMark) << "an eighth of what is left";
  view_.log_time_ms = 60'000;  // it was applied
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(milliseconds(8'750)), Action::kMark);
  // Short and long ones.
  view_.log_time_ms = 70'000;
  view_.next_deadline_ms = 71'500;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(seconds(1)), Action::kMark);
  view_.log_time_ms = 80'000;
  view_.next_deadline_ms = 80'000 + 24 * 3'600'000;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(milliseconds(59'999)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(1)), Action::kMark);
}

TEST_F(TtlScheduleTest, WithoutAnyNothingIsWritten) {
  view_.ttls = 0;
  view_.next_deadline_ms = 0;
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(After(hours(100)), Action::kNothing);
}

// A single node, or all of them, was suspended: its clock went on, and nobody could renew.
TEST_F(TtlScheduleTest, OneThatHasNotRunLetsItsClientsComeFirst) {
  EXPECT_EQ(After({}), Action::kNothing);
  EXPECT_EQ(AfterAPause(seconds(1)), Action::kMark) << "no pause yet";
  EXPECT_EQ(AfterAPause(seconds(3600)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(999)), Action::kNothing);
  EXPECT_EQ(After(milliseconds(1)), Action::kExpire);
}

// --- What it proposes ---

class TtlExpirerTest : public ::testing::Test {
 protected:
  void After(Duration passed) {
    now_ += passed;
    expirer_.Run(
        now_, true, raft::Term(3), &state_,
        [this](v1::Command command, Instant, std::function<void(const ingress::Outcome&)> done) {
          commands_.push_back(std::move(command));
          done_ = std::move(done);
        });
  }
  std::string Proposed() {
    std::string text;
    for (const v1::Command& command : std::exchange(commands_, {})) {
      text += "expire";
      for (uint64_t ttl : command.expire_ttl().ttl_id()) text += " " + std::to_string(ttl);
    }
    return text;
  }

  Instant now_ = kExpirerStart;
  FakeState state_;
  TtlExpirer expirer_{TtlExpirerOptions{.grace = {}}};
  std::vector<v1::Command> commands_;
  std::function<void(const ingress::Outcome&)> done_;
};

TEST_F(TtlExpirerTest, OneProposalAtATime) {
  state_.log_time_ms = 1000;
  state_.ttl_deadlines = {{7, 2000}, {8, 2500}, {9, 9000}};
  After({});
  EXPECT_EQ(Proposed(), "");
  After(milliseconds(2000));
  EXPECT_EQ(Proposed(), "expire 7 8");
  After(milliseconds(2000));
  EXPECT_EQ(Proposed(), "") << "the first is on its way";
  // It did not get through: what is over is proposed again.
  done_(ingress::Outcome());
  After(milliseconds(100));
  EXPECT_EQ(Proposed(), "expire 7 8");
  state_.ttl_deadlines = {{9, 9000}};
  state_.log_time_ms = 5100;
  done_(ingress::Outcome());
  After(milliseconds(100));
  EXPECT_EQ(Proposed(), "");
  After(milliseconds(1000));
  EXPECT_EQ(Proposed(), "expire") << "a mark";
}

TEST_F(TtlExpirerTest, AReaderThatIsNotFreeIsWaitedForLater) {
  state_.log_time_ms = 1000;
  state_.ttl_deadlines = {{7, 1500}};
  After({});
  state_.failure = absl::DeadlineExceededError("busy");
  After(milliseconds(2000));
  EXPECT_EQ(Proposed(), "");
  state_.failure = absl::OkStatus();
  After(milliseconds(10));
  EXPECT_EQ(Proposed(), "expire 7");
}

}  // namespace
}  // namespace quorate::services
