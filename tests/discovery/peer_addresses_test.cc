// What is kept of DNS, and when it is looked into again.
#include "discovery/peer_addresses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace quorate::discovery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

Resolution Shows(std::vector<std::string> addresses, Duration ttl = seconds(30)) {
  return Resolution{std::move(addresses), ttl, false};
}

class PeerAddressesTest : public testing::Test {
 protected:
  // Asks when it is time, at the earliest; how long that took.
  Duration NextQuestion() {
    const Instant before = now_;
    now_ = std::max(now_, peers_.NextDeadline());
    EXPECT_TRUE(peers_.TakeQuestion(now_));
    return now_ - before;
  }
  bool Answer(const absl::StatusOr<Resolution>& answer) {
    NextQuestion();
    return peers_.OnAnswer(answer, now_);
  }

  Instant now_{hours(100)};
  PeerAddresses peers_{PeerAddresses::Options(), now_};
};

TEST_F(PeerAddressesTest, NothingIsKnownUntilDnsHasAnsweredWithAnAddress) {
  EXPECT_FALSE(peers_.known());
  EXPECT_FALSE(Answer(absl::NotFoundError("no such name")));
  EXPECT_FALSE(Answer(Shows({})));
  EXPECT_FALSE(peers_.known());
  EXPECT_FALSE(peers_.error().ok());
  EXPECT_TRUE(Answer(Shows({"10.0.0.1:7000"})));
  EXPECT_TRUE(peers_.known());
  EXPECT_TRUE(peers_.error().ok());
  EXPECT_THAT(peers_.addresses(), ElementsAre("10.0.0.1:7000"));
}

TEST_F(PeerAddressesTest, IsWholeOnceAnAnswerLackedNothing) {
  Resolution partial = Shows({"a"});
  partial.partial = true;
  EXPECT_TRUE(Answer(partial));
  EXPECT_FALSE(Answer(partial));
  EXPECT_TRUE(peers_.known());
  EXPECT_FALSE(peers_.whole());
  EXPECT_TRUE(Answer(Shows({"a"})));
  EXPECT_TRUE(peers_.whole());
  EXPECT_FALSE(Answer(partial));
  EXPECT_TRUE(peers_.whole());
}

TEST_F(PeerAddressesTest, PartialAnswersAddUp) {
  EXPECT_TRUE(Answer(Shows({"b"})));
  EXPECT_TRUE(Answer(Shows({"a"})));
  EXPECT_FALSE(Answer(Shows({"b"})));
  EXPECT_THAT(peers_.addresses(), ElementsAre("a", "b"));
}

TEST_F(PeerAddressesTest, ErrorsAndEmptyAnswersTakeNothingAway) {
  Answer(Shows({"a", "b"}));
  peers_.SetEager(false, now_);
  for (int day = 0; day < 3; ++day) {
    for (int i = 0; i < 1000; ++i) {
      EXPECT_FALSE(Answer(absl::DeadlineExceededError("slow")));
      EXPECT_FALSE(Answer(Shows({})));
    }
    now_ += hours(24);
  }
  EXPECT_THAT(peers_.addresses(), ElementsAre("a", "b"));
  // Nor does the first answer after that: it may be the first of many pods.
  EXPECT_FALSE(Answer(Shows({"a"})));
  EXPECT_THAT(peers_.addresses(), ElementsAre("a", "b"));
}

TEST_F(PeerAddressesTest, WhatIsNotShownForLongIsForgotten) {
  Answer(Shows({"a", "b"}));
  peers_.SetEager(false, now_);
  const Instant last_shown = now_;
  // One that misses something itself does not count.
  Resolution partial = Shows({"a"});
  partial.partial = true;
  for (int i = 0; i < 10'000; ++i) EXPECT_FALSE(Answer(partial));
  Duration counted{};
  while (!Answer(Shows({"a"}))) {
    counted += seconds(30);
    ASSERT_LT(counted, minutes(11));
  }
  EXPECT_GE(counted, minutes(9));
  EXPECT_GT(now_ - last_shown, minutes(10));
  EXPECT_THAT(peers_.addresses(), ElementsAre("a"));
}

TEST_F(PeerAddressesTest, ShownAgainInTimeIsKept) {
  Answer(Shows({"a", "b"}));
  peers_.SetEager(false, now_);
  for (int i = 0; i < 100; ++i) {
    for (int j = 0; j < 15; ++j) Answer(Shows({"a"}));
    Answer(Shows({"a", "b"}));
  }
  EXPECT_THAT(peers_.addresses(), ElementsAre("a", "b"));
}

TEST_F(PeerAddressesTest, IsBoundedAndKeepsTheLatest) {
  std::vector<std::string> old, newer;
  for (char c = 'A'; c < 'A' + 26; ++c) {
    for (char d = '0'; d <= '9'; ++d) old.push_back({c, d});
  }
  Answer(Shows(old));
  EXPECT_EQ(peers_.addresses().size(), PeerAddresses::kAddressesMax);
  EXPECT_EQ(peers_.addresses().front(), "A0");
  for (int i = 0; i < 40; ++i) newer.push_back("new" + std::to_string(i));
  now_ += seconds(1);
  Answer(Shows(newer));
  const std::vector<std::string> all = peers_.addresses();
  EXPECT_EQ(all.size(), PeerAddresses::kAddressesMax);
  for (const std::string& address : newer) EXPECT_THAT(all, testing::Contains(address));
}

TEST_F(PeerAddressesTest, IsAskedAgainByTtlWithinBounds) {
  EXPECT_EQ(NextQuestion(), Duration{});
  peers_.OnAnswer(Shows({"a"}), now_);
  peers_.SetEager(false, now_);
  EXPECT_EQ(NextQuestion(), seconds(1));  // was still eager when the answer came
  for (const auto& [ttl, wait] : std::vector<std::pair<Duration, Duration>>{
           {seconds(5), seconds(5)}, {seconds(0), seconds(1)}, {hours(24), seconds(30)}}) {
    peers_.OnAnswer(Shows({"a"}, ttl), now_);
    EXPECT_EQ(NextQuestion(), wait);
  }
  // What was missing may never come: more and more rarely.
  Resolution partial = Shows({"a"});
  partial.partial = true;
  for (const int wait_s : {1, 2, 4, 8, 16, 30, 30}) {
    peers_.OnAnswer(partial, now_);
    EXPECT_EQ(NextQuestion(), seconds(wait_s));
  }
}

TEST_F(PeerAddressesTest, ErrorsAreRetriedMoreAndMoreRarely) {
  NextQuestion();
  peers_.SetEager(false, now_);
  for (const int wait_s : {1, 2, 4, 8, 16, 30, 30}) {
    peers_.OnAnswer(absl::UnavailableError("down"), now_);
    EXPECT_EQ(NextQuestion(), seconds(wait_s));
  }
  peers_.OnAnswer(Shows({"a"}), now_);
  NextQuestion();
  peers_.OnAnswer(absl::UnavailableError("down"), now_);
  EXPECT_EQ(NextQuestion(), seconds(1));
  // Whoever waits for somebody waits no longer than that.
  peers_.SetEager(true, now_);
  for (int i = 0; i < 10; ++i) {
    peers_.OnAnswer(absl::UnavailableError("down"), now_);
    EXPECT_EQ(NextQuestion(), seconds(1));
  }
}

TEST_F(PeerAddressesTest, ALostPeerIsLookedForAtOnceButNotTwiceInASecond) {
  Answer(Shows({"a", "b"}));
  peers_.SetEager(false, now_);
  Answer(Shows({"a", "b"}));
  now_ += seconds(10);
  peers_.OnPeerLost(now_);
  EXPECT_EQ(NextQuestion(), Duration{});
  // Lost again while the answer is on its way: once more after it.
  now_ += milliseconds(100);
  peers_.OnPeerLost(now_);
  EXPECT_EQ(peers_.NextDeadline(), Instant::max());
  EXPECT_FALSE(peers_.TakeQuestion(now_ + hours(1)));
  peers_.OnAnswer(Shows({"a", "b"}), now_);
  EXPECT_EQ(NextQuestion(), milliseconds(900));
  peers_.OnAnswer(Shows({"a", "b"}), now_);
  EXPECT_EQ(NextQuestion(), seconds(30));
}

}  // namespace
}  // namespace quorate::discovery
