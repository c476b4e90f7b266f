#include "ingress/ingress.h"

#include <functional>

#include "gtest/gtest.h"

namespace quorate::ingress {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AssertionFailure;
using testing::AssertionSuccess;

// Drives one ingress and prints what it does, so that a story can be read as lines:
// "open@1", "1:a 2:b" for writes (sequence:key), "1:skip".
class IngressTest : public testing::Test {
 protected:
  static IngressOptions Options() {
    IngressOptions options;
    options.store = StoreId(7);
    options.boot = 3;
    options.nonce = 99;
    return options;
  }

  void Remake(const IngressOptions& options) { ingress_ = std::make_unique<Ingress>(options); }

  void Submit(uint64_t id, const std::string& key, Duration within = seconds(10)) {
    v1::Command command;
    command.mutable_transaction()->add_then()->mutable_put()->set_key(key);
    ingress_->Submit(now_, WriteId(id), std::move(command), now_ + within, {});
  }
  void Pass(Duration time) {
    now_ += time;
    ingress_->Tick(now_);
  }
  void LinkUpAndOpen(uint64_t link, uint64_t last_sequence, uint64_t opened_at = 17) {
    ingress_->LinkUp(now_, link);
    ASSERT_EQ(Sent(), "open@" + std::to_string(link));
    Opened(link, last_sequence, opened_at);
  }
  void Opened(uint64_t link, uint64_t last_sequence, uint64_t opened_at = 17) {
    ingress_->OnOpened(now_, link, {ingress_->session(), last_sequence, opened_at});
  }
  void Answer(uint64_t sequence, const std::string& text = "ok") {
    ingress_->OnAnswer(now_, ingress_->session(), sequence, std::make_shared<std::string>(text));
  }

  // Everything that it wants to send now, as text; outcomes go to ends_.
  std::string Sent(bool may_send = true) {
    std::string text;
    for (;;) {
      Ingress::Output out = ingress_->TakeOutput(now_, may_send);
      if (out.empty()) return text;
      session_lost_ |= out.session_lost;
      const auto add = [&](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
      if (out.open) add("open@" + std::to_string(out.link));
      for (const OutgoingWrite& write : out.writes) {
        v1::Command command;
        EXPECT_TRUE(command.ParseFromString(*write.command));
        EXPECT_EQ(command.session().store(), 7u);
        EXPECT_EQ(command.session().sequence(), write.sequence);
        EXPECT_LT(command.session().answered_through(), write.sequence);
        last_command_ = command;
        add(std::to_string(write.sequence) + ":" +
            (command.has_skip() ? "skip" : command.transaction().then(0).put().key()));
      }
      for (auto& [id, outcome] : out.finished) {
        EXPECT_FALSE(ends_.contains(id.value())) << "ended twice";
        ends_[id.value()] = outcome;
      }
    }
  }

  std::string End(uint64_t id) {
    Sent(false);
    if (!ends_.contains(id)) return "none";
    const Outcome& outcome = ends_[id];
    switch (outcome.kind) {
      case Outcome::Kind::kAnswered:
        return "answered " + *outcome.answer;
      case Outcome::Kind::kNotAccepted:
        return "not accepted " + outcome.reason;
      case Outcome::Kind::kUnknown:
        return "unknown";
    }
    return "?";
  }

  Instant now_ = Instant(seconds(1000));
  std::unique_ptr<Ingress> ingress_ = std::make_unique<Ingress>(Options());
  std::map<uint64_t, Outcome> ends_;
  v1::Command last_command_;
  bool session_lost_ = false;
};

TEST_F(IngressTest, AWriteGetsItsSequenceWhenItIsSentAndEndsWithItsAnswer) {
  Submit(1, "a");
  Submit(2, "b");
  EXPECT_EQ(Sent(), "") << "no link";
  LinkUpAndOpen(1, 0);
  EXPECT_EQ(Sent(), "1:a 2:b");
  EXPECT_EQ(last_command_.format(), 1u) << "a put needs no more";
  EXPECT_EQ(last_command_.session().boot(), 3u);
  EXPECT_EQ(last_command_.session().nonce(), 99u);
  EXPECT_EQ(Sent(), "") << "once per link";
  Answer(2, "two");
  Answer(1, "one");
  EXPECT_EQ(End(1), "answered one");
  EXPECT_EQ(End(2), "answered two");
  EXPECT_EQ(ingress_->unanswered(), 0u);
}

TEST_F(IngressTest, NothingIsSentBeforeTheSessionIsOpenNorWhileTheLinkIsBusy) {
  ingress_->LinkUp(now_, 1);
  Submit(1, "a");
  EXPECT_EQ(Sent(false), "");
  EXPECT_EQ(Sent(), "open@1");
  EXPECT_EQ(Sent(), "");
  Opened(1, 0);
  EXPECT_EQ(Sent(false), "");
  EXPECT_EQ(ingress_->waiting(), 1u) << "what cannot leave yet is certainly unsent";
  EXPECT_EQ(Sent(), "1:a");
}

TEST_F(IngressTest, AfterANewLeaderEverythingUnansweredIsSentAgainInOrderThenWhatWaits) {
  LinkUpAndOpen(1, 0);
  for (uint64_t id = 1; id <= 4; ++id) Submit(id, std::string(1, static_cast<char>('a' + id - 1)));
  EXPECT_EQ(Sent(), "1:a 2:b 3:c 4:d");
  Answer(2);
  ingress_->LinkDown(now_, 1);
  Submit(5, "e");
  EXPECT_EQ(Sent(), "");
  LinkUpAndOpen(2, 3);
  EXPECT_EQ(Sent(), "1:a 3:c 4:d 5:e");
  EXPECT_EQ(ingress_->counters().resent, 3u);
  EXPECT_EQ(ingress_->counters().found_applied, 2u) << "1 and 3";
  Answer(1);
  Answer(3);
  Answer(4);
  Answer(5);
  EXPECT_EQ(End(5), "answered ok");
  EXPECT_EQ(ingress_->answered_through(), 5u);
}

TEST_F(IngressTest, AnsweredThroughIsTheHighestPrefixThatIsAnswered) {
  LinkUpAndOpen(1, 0);
  for (uint64_t id = 1; id <= 3; ++id) Submit(id, "k");
  Sent();
  Answer(1);
  Answer(3);
  Submit(4, "k");
  Sent();
  EXPECT_EQ(last_command_.session().answered_through(), 1u);
  Answer(2);
  Submit(5, "k");
  Sent();
  EXPECT_EQ(last_command_.session().answered_through(), 3u);
}

TEST_F(IngressTest, AnAnswerOfThisNodesOwnStateCountsWithoutAnyLink) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  ingress_->LinkDown(now_, 1);
  Answer(1, "mine");
  EXPECT_EQ(End(1), "answered mine");
  EXPECT_EQ(ingress_->counters().found_applied, 1u);
  LinkUpAndOpen(2, 1);
  EXPECT_EQ(Sent(), "") << "its answer is known: not sent again";
}

TEST_F(IngressTest, ARefusalIsRepeatedFromThereAfterAPauseThatGrows) {
  LinkUpAndOpen(1, 0);
  for (uint64_t id = 1; id <= 3; ++id) Submit(id, std::string(1, static_cast<char>('a' + id - 1)));
  Sent();
  ingress_->OnRefused(now_, 1, 2);
  EXPECT_EQ(Sent(), "");
  EXPECT_EQ(ingress_->NextDeadline(), now_ + milliseconds(5));
  Submit(4, "d");
  EXPECT_EQ(Sent(), "") << "later ones wait behind the refused";
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "2:b 3:c 4:d");
  ingress_->OnRefused(now_, 1, 2);
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "");
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "2:b 3:c 4:d");
  Answer(2);
  ingress_->OnRefused(now_, 1, 3);
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "3:c 4:d") << "an answer ends the growth";
}

TEST_F(IngressTest, AGivenUpWriteIsSentAsSkipSoThatNoHoleStaysAndLaterOnesFollow) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a", milliseconds(500));
  Submit(2, "b");
  EXPECT_EQ(Sent(), "1:a 2:b");
  ingress_->LinkDown(now_, 1);
  Pass(milliseconds(399));
  EXPECT_EQ(End(1), "none") << "a sent write is given all of its time but the margin";
  Pass(milliseconds(1));
  EXPECT_EQ(End(1), "unknown");
  LinkUpAndOpen(2, 0);
  EXPECT_EQ(Sent(), "1:skip 2:b");
  ingress_->LinkDown(now_, 2);
  LinkUpAndOpen(3, 0);
  EXPECT_EQ(Sent(), "1:skip 2:b") << "until one of the two is answered";
  Answer(1);
  Answer(2);
  EXPECT_EQ(ingress_->unanswered(), 0u);
  EXPECT_EQ(End(1), "unknown") << "an outcome is said once";
  EXPECT_EQ(ingress_->counters().skips, 2u);
}

TEST_F(IngressTest, ADeadlineOnALinkThatStaysSendsNothingMore) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a", milliseconds(500));
  Sent();
  Pass(milliseconds(500));
  EXPECT_EQ(End(1), "unknown");
  EXPECT_EQ(Sent(), "") << "the leader has it";
  EXPECT_EQ(ingress_->unanswered(), 1u);
  Answer(1);
  EXPECT_EQ(ingress_->unanswered(), 0u);
}

TEST_F(IngressTest, ACancelledWriteIsDroppedOrSkippedAndNeverReported) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  Submit(2, "b");
  Submit(3, "c");
  ingress_->Cancel(now_, WriteId(1));
  ingress_->Cancel(now_, WriteId(2));
  EXPECT_EQ(Sent(), "2:c") << "b never took a sequence";
  ingress_->LinkDown(now_, 1);
  LinkUpAndOpen(2, 0);
  EXPECT_EQ(Sent(), "1:skip 2:c");
  Answer(1);
  Answer(2);
  EXPECT_EQ(End(1), "none");
  EXPECT_EQ(End(2), "none");
  EXPECT_EQ(End(3), "answered ok");
}

TEST_F(IngressTest, AtMostSoManyAreUnanswered) {
  IngressOptions options = Options();
  options.unanswered_max = 2;
  Remake(options);
  LinkUpAndOpen(1, 0);
  for (uint64_t id = 1; id <= 4; ++id) Submit(id, "k");
  EXPECT_EQ(Sent(), "1:k 2:k");
  Answer(2);
  EXPECT_EQ(Sent(), "") << "the leader keeps answers from the first unanswered one on";
  Answer(1);
  EXPECT_EQ(Sent(), "3:k 4:k");
}

TEST_F(IngressTest, BatchesAndUnansweredBytesAreBoundedButOneLargeWriteAlwaysPasses) {
  IngressOptions options = Options();
  options.batch_bytes_max = 1;
  options.unanswered_bytes_max = 1;
  Remake(options);
  LinkUpAndOpen(1, 0);
  Submit(1, std::string(1000, 'k'));
  Submit(2, "k");
  Ingress::Output out = ingress_->TakeOutput(now_, true);
  EXPECT_EQ(out.writes.size(), 1u);
  EXPECT_EQ(Sent(), "");
  Answer(1);
  EXPECT_EQ(Sent(), "2:k");
}

// Every node keeps an answer until this ingress has it, and what a transaction reads is in it.
TEST_F(IngressTest, ATransactionThatReadsHoldsTheRoomOfItsAnswer) {
  IngressOptions options = Options();
  options.unanswered_bytes_max = 5u << 20;
  Remake(options);
  LinkUpAndOpen(1, 0);
  for (uint64_t id = 1; id <= 3; ++id) {
    v1::Command command;
    command.mutable_transaction()->add_then()->mutable_put()->set_key("t");
    command.mutable_transaction()->add_otherwise()->mutable_read()->set_key("k");
    ingress_->Submit(now_, WriteId(id), std::move(command), now_ + seconds(10), {});
  }
  Submit(4, "small");
  EXPECT_EQ(Sent(), "1:t 2:t") << "of 2 MiB each";
  Answer(1);
  EXPECT_EQ(Sent(), "3:t 4:small");
  Answer(2);
  Answer(3);
  Answer(4);
  EXPECT_EQ(ingress_->unanswered(), 0u);
  for (uint64_t id = 5; id <= 200; ++id) Submit(id, "p");
  Sent();
  EXPECT_EQ(ingress_->waiting(), 0u) << "the room was given back";
}

TEST_F(IngressTest, ALostSessionEndsWhatWasSentAsUnknownAndCarriesOnWhatWaits) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  Submit(2, "b");
  ingress_->OnSessionUnknown(now_, 1, ingress_->session(), "a newer boot");
  EXPECT_EQ(Sent(), "");
  EXPECT_TRUE(session_lost_);
  EXPECT_EQ(End(1), "unknown");
  EXPECT_NE(ends_[1].message.find("a newer boot"), std::string::npos);
  const SessionId old = ingress_->session();
  ingress_->NewSession(now_, 4, 100);
  EXPECT_EQ(Sent(), "open@1");
  Opened(1, 0);
  EXPECT_EQ(Sent(), "1:b");
  EXPECT_EQ(last_command_.session().boot(), 4u);
  ingress_->OnAnswer(now_, old, 1, std::make_shared<std::string>("of the old 1"));
  EXPECT_EQ(End(2), "none") << "an answer of the old session is not one of the new";
  ingress_->OnSessionUnknown(now_, 1, old, "late news of the old session");
  EXPECT_EQ(End(2), "none");
  Answer(1);
  EXPECT_EQ(End(2), "answered ok");
}

TEST_F(IngressTest, NewSessionsAreAskedForAtALimitedRate) {
  LinkUpAndOpen(1, 0);
  ingress_->OnSessionUnknown(now_, 1, ingress_->session(), "no member");
  Sent();
  ASSERT_TRUE(session_lost_);
  ingress_->NewSession(now_, 4, 1);
  EXPECT_EQ(Sent(), "open@1");
  session_lost_ = false;
  ingress_->OnSessionUnknown(now_, 1, ingress_->session(), "no member");
  Sent();
  EXPECT_FALSE(session_lost_);
  EXPECT_EQ(ingress_->NextDeadline(), now_ + seconds(1));
  Pass(seconds(1));
  Sent();
  EXPECT_TRUE(session_lost_);
}

TEST_F(IngressTest, ARefusedOpenIsSentAgain) {
  ingress_->LinkUp(now_, 1);
  EXPECT_EQ(Sent(), "open@1");
  ingress_->OnRefused(now_, 1, 0);
  EXPECT_EQ(Sent(), "");
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "open@1");
}

// --- What a leader cannot apply ---

TEST_F(IngressTest, ARejectedWriteEndsAtOnceAndSkipTakesItsPlace) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Submit(2, "b");
  EXPECT_EQ(Sent(), "1:a 2:b");
  ingress_->OnRejected(now_, 1, 1, true, "has format 2");
  EXPECT_EQ(Sent(), "1:skip 2:b") << "no hole, and what came behind it follows";
  EXPECT_EQ(End(1), "not accepted WRITE_NOT_UNDERSTOOD");
  Answer(1);
  Answer(2);
  EXPECT_EQ(End(2), "answered ok");
  EXPECT_EQ(ingress_->unanswered(), 0u);
  Submit(3, "c");
  EXPECT_EQ(Sent(), "3:c");
  ingress_->OnRejected(now_, 1, 3, false, "cannot be parsed");
  EXPECT_EQ(Sent(), "3:skip");
  EXPECT_EQ(End(3), "not accepted WRITE_MALFORMED");
}

TEST_F(IngressTest, ARejectedWriteThatAnEarlierLeaderMayHaveTakenEndsAsUnknown) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  EXPECT_EQ(Sent(), "1:a");
  ingress_->LinkDown(now_, 1);
  LinkUpAndOpen(2, 0);
  EXPECT_EQ(Sent(), "1:a");
  ingress_->OnRejected(now_, 1, 1, true, "has format 2");  // of the old link, late
  EXPECT_EQ(Sent(), "");
  EXPECT_EQ(End(1), "none");
  ingress_->OnRejected(now_, 2, 1, true, "has format 2");
  EXPECT_EQ(Sent(), "1:skip");
  EXPECT_EQ(End(1), "unknown");
}

TEST_F(IngressTest, ARejectedSkipIsSentAgainNowAndThen) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  EXPECT_EQ(Sent(), "1:a");
  ingress_->OnRejected(now_, 1, 1, true, "has format 2");
  EXPECT_EQ(Sent(), "1:skip");
  ingress_->OnRejected(now_, 1, 1, true, "has format 2");
  EXPECT_EQ(Sent(), "");
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "1:skip");
  ingress_->OnRejected(now_, 1, 1, true, "has format 2");
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "") << "ever more slowly";
  ingress_->OnRejected(now_, 1, 77, true, "has format 2");  // nobody's
}

// --- Without a leader ---

TEST_F(IngressTest, WithoutALeaderAWriteEndsNotAcceptedAfterTheWait) {
  Submit(1, "a");
  Pass(milliseconds(2999));
  EXPECT_EQ(End(1), "none");
  EXPECT_EQ(ingress_->NextDeadline(), now_ + milliseconds(1));
  Pass(milliseconds(1));
  EXPECT_EQ(End(1), "not accepted NO_LEADER");
  LinkUpAndOpen(1, 0);
  EXPECT_EQ(Sent(), "") << "what was answered as not accepted is never sent";
}

TEST_F(IngressTest, TheWaitCountsFromTheLossOfTheLeader) {
  IngressOptions options = Options();
  options.unanswered_max = 1;
  Remake(options);
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Submit(2, "b");
  Sent();
  Pass(seconds(5));
  ingress_->LinkDown(now_, 1);
  Pass(milliseconds(2999));
  EXPECT_EQ(End(2), "none");
  Pass(milliseconds(1));
  EXPECT_EQ(End(2), "not accepted NO_LEADER");
  EXPECT_EQ(End(1), "none");
}

TEST_F(IngressTest, AWaitingWriteEndsShortlyBeforeItsDeadline) {
  Submit(1, "a", milliseconds(1000));
  Pass(milliseconds(899));
  EXPECT_EQ(End(1), "none");
  Pass(milliseconds(1));
  EXPECT_EQ(End(1), "not accepted NO_LEADER");
  Submit(2, "b", milliseconds(8));
  Pass(milliseconds(5));
  EXPECT_EQ(End(2), "none") << "a short deadline keeps three quarters of its time";
  Pass(milliseconds(1));
  EXPECT_EQ(End(2), "not accepted NO_LEADER");
}

TEST_F(IngressTest, ASentWriteToo) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a", milliseconds(1000));
  Submit(2, "b", milliseconds(8));
  EXPECT_EQ(Sent(), "1:a 2:b");
  Pass(milliseconds(5));
  EXPECT_EQ(End(2), "none");
  Pass(milliseconds(1));
  EXPECT_EQ(End(2), "unknown") << "before its caller's library says something of its own";
  Pass(milliseconds(893));
  EXPECT_EQ(End(1), "none");
  Pass(milliseconds(1));
  EXPECT_EQ(End(1), "unknown");
}

// --- Bad input and trouble ---

TEST_F(IngressTest, TooManyWaitingAreRefusedAtOnce) {
  IngressOptions options = Options();
  options.waiting_max = 1;
  Remake(options);
  Submit(1, "a");
  Submit(2, "b");
  EXPECT_EQ(End(2), "not accepted QUEUE_FULL");
  EXPECT_EQ(End(1), "none");

  options.waiting_max = 10;
  options.waiting_bytes_max = 2000;
  Remake(options);
  Submit(3, std::string(4000, 'k'));
  EXPECT_EQ(End(3), "none") << "one may exceed the bytes";
  Submit(4, "k");
  EXPECT_EQ(End(4), "not accepted QUEUE_FULL");
}

TEST_F(IngressTest, ADeadlineThatHasPassedIsNotAccepted) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a", Duration::zero());
  EXPECT_EQ(Sent(), "");
  EXPECT_EQ(End(1), "not accepted DEADLINE_TOO_SHORT");
}

TEST_F(IngressTest, AWriteStuckBehindAFullWindowIsNotAccepted) {
  IngressOptions options = Options();
  options.unanswered_max = 1;
  Remake(options);
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Submit(2, "b", milliseconds(100));
  Sent();
  Pass(milliseconds(100));
  EXPECT_EQ(End(2), "not accepted QUEUE_FULL");
}

TEST_F(IngressTest, RepliesOfAnOlderLinkAreIgnored) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  ingress_->LinkDown(now_, 1);
  ingress_->LinkUp(now_, 2);
  Sent();
  Opened(1, 0);
  ingress_->OnRefused(now_, 1, 1);
  ingress_->OnSessionUnknown(now_, 1, ingress_->session(), "late");
  ingress_->LinkDown(now_, 1);
  EXPECT_EQ(Sent(), "");
  Opened(2, 0);
  EXPECT_EQ(Sent(), "1:a");
  EXPECT_FALSE(session_lost_);
}

// This node's own state may be ahead of the leader's apply thread.
TEST_F(IngressTest, ALeaderThatHasNotAppliedYetWhatWasAnsweredIsAskedAgain) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Submit(2, "b");
  EXPECT_EQ(Sent(), "1:a 2:b");
  ingress_->LinkDown(now_, 1);
  Answer(1, "mine");  // by this node's own state
  EXPECT_EQ(End(1), "answered mine");
  Submit(3, "c");
  LinkUpAndOpen(2, 0);  // the same leader; it applies 1 in a moment
  EXPECT_EQ(Sent(), "") << "2 would leave a gap behind 0";
  EXPECT_FALSE(ingress_->link_open());
  EXPECT_EQ(ingress_->NextDeadline(), now_ + milliseconds(5));
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "open@2");
  Opened(2, 0);
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "") << "the pause grows";
  Pass(milliseconds(5));
  EXPECT_EQ(Sent(), "open@2");
  Opened(2, 1);
  EXPECT_EQ(Sent(), "2:b 3:c");
  Answer(2);
  Answer(3);
  EXPECT_EQ(End(2), "answered ok");
  EXPECT_EQ(End(3), "answered ok");
  EXPECT_FALSE(session_lost_);
  EXPECT_EQ(ingress_->counters().sessions_lost, 0u);
}

TEST_F(IngressTest, ALeaderThatForgotAnsweredWritesForGoodEndsTheSession) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Submit(2, "b", seconds(60));
  Sent();
  Answer(1);
  ingress_->LinkDown(now_, 1);
  LinkUpAndOpen(2, 0);
  Pass(milliseconds(9900));
  EXPECT_EQ(Sent(), "open@2");
  ingress_->LinkDown(now_, 2);
  LinkUpAndOpen(3, 0);  // the next leader has its own time
  const Instant since = now_;
  while (!session_lost_ && now_ < since + seconds(20)) {
    Pass(milliseconds(100));
    ASSERT_EQ(Sent(), "open@3");
    Opened(3, 0);
    Sent(false);
  }
  EXPECT_TRUE(session_lost_);
  EXPECT_EQ(now_ - since, seconds(10));
  EXPECT_EQ(End(2), "unknown");
  EXPECT_NE(ends_[2].message.find("lost writes"), std::string::npos);
}

// Its store left the cluster and was let in again while it was far behind: the write was executed
// in the session that went with it, and the one that was opened in its place knows nothing of that
// (simulator, seed 240296391880644 of 2026-11-22).
TEST_F(IngressTest, NothingIsSentToAnotherSessionThanItWasSentToFirst) {
  LinkUpAndOpen(1, 0, 17);
  Submit(1, "a", seconds(60));
  EXPECT_EQ(Sent(), "1:a");
  ingress_->LinkDown(now_, 1);
  Submit(2, "b", seconds(60));
  LinkUpAndOpen(2, 0, 23);
  EXPECT_EQ(Sent(), "");
  EXPECT_TRUE(session_lost_);
  EXPECT_EQ(End(1), "unknown");
  EXPECT_NE(ends_[1].message.find("let in again"), std::string::npos);
  ingress_->NewSession(now_, ingress_->session().boot + 1, 99);
  ASSERT_EQ(Sent(), "open@2");
  Opened(2, 0, 31);
  EXPECT_EQ(Sent(), "1:b") << "what was never sent is safe to send";
}

// An open is answered by the leader's intake and by its apply thread: the second answer may be of
// the next session, which an open that was sent since has begun.
TEST_F(IngressTest, AnotherSessionIsNoticedOnALinkThatIsOpen) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a", seconds(60));
  EXPECT_EQ(Sent(), "1:a");
  Opened(1, 0, 23);
  Sent();
  EXPECT_TRUE(session_lost_);
  EXPECT_EQ(End(1), "unknown");
}

// What an older build's leader executed may have been in a session that is gone.
TEST_F(IngressTest, WhatWasSentWithoutKnowingWhereItsSessionBeganIsNotSentToAnEmptyOne) {
  LinkUpAndOpen(1, 0, 0);
  Submit(1, "a", seconds(60));
  EXPECT_EQ(Sent(), "1:a");
  ingress_->LinkDown(now_, 1);
  LinkUpAndOpen(2, 0, 23);
  EXPECT_EQ(Sent(), "");
  EXPECT_TRUE(session_lost_);
  EXPECT_EQ(End(1), "unknown");
}

// A leader of an older build does not say where the session began.
TEST_F(IngressTest, ASessionWhosePlaceIsNotKnownGoesOn) {
  LinkUpAndOpen(1, 0, 17);
  Submit(1, "a");
  Sent();
  ingress_->LinkDown(now_, 1);
  LinkUpAndOpen(2, 0, 0);
  EXPECT_EQ(Sent(), "1:a");
  ingress_->LinkDown(now_, 2);
  LinkUpAndOpen(3, 0, 18);
  Sent();
  EXPECT_TRUE(session_lost_) << "the older build has not made it forget";
}

TEST_F(IngressTest, ALeaderThatKnowsUnsentWritesEndsTheSessionAtOnce) {
  ingress_->LinkUp(now_, 1);
  Sent();
  Opened(1, 5);
  Sent();
  EXPECT_TRUE(session_lost_);
}

TEST_F(IngressTest, AnAnswerWithoutContentEndsAsUnknown) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  ingress_->OnAnswer(now_, ingress_->session(), 1, nullptr);
  EXPECT_EQ(End(1), "unknown");
  EXPECT_EQ(ingress_->unanswered(), 0u);
}

TEST_F(IngressTest, ClosingEndsEverythingWithTheTruth) {
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  Submit(2, "b");
  ingress_->Close(now_);
  EXPECT_EQ(End(1), "unknown");
  EXPECT_EQ(End(2), "not accepted SHUTTING_DOWN");
  Submit(3, "c");
  EXPECT_EQ(End(3), "not accepted SHUTTING_DOWN");
  EXPECT_EQ(Sent(), "");
  EXPECT_EQ(ingress_->NextDeadline(), Instant::max());
}

TEST_F(IngressTest, AnIdleIngressAsksForNoTimer) {
  EXPECT_EQ(ingress_->NextDeadline(), Instant::max());
  LinkUpAndOpen(1, 0);
  Submit(1, "a");
  Sent();
  EXPECT_EQ(ingress_->NextDeadline(), now_ + seconds(10) - milliseconds(100));
  Answer(1);
  EXPECT_EQ(ingress_->NextDeadline(), Instant::max());
}

// Nodes of an older build apply what they know, and stop at the first command that they do not.
TEST(FormatOf, IsTheLowestThatHoldsTheCommand) {
  v1::Command command;
  command.mutable_open_session();
  EXPECT_EQ(FormatOf(command), 1u);
  command.mutable_skip();
  EXPECT_EQ(FormatOf(command), 1u);
  v1::Operation* const put = command.mutable_transaction()->add_then();
  put->mutable_put()->set_key("k");
  command.mutable_transaction()->add_otherwise()->mutable_delete_()->set_key("k");
  command.set_note("why");
  EXPECT_EQ(FormatOf(command), 1u);

  put->mutable_put()->set_ttl_id(5);
  EXPECT_EQ(FormatOf(command), 2u) << "bound to a time-to-live";
  put->mutable_put()->clear_ttl_id();
  command.mutable_client_request()->set_id("r");
  EXPECT_EQ(FormatOf(command), 2u) << "with a request id";
  command.clear_client_request();
  command.mutable_transaction()->mutable_otherwise(0)->mutable_read()->set_key("k");
  EXPECT_EQ(FormatOf(command), 2u) << "a branch reads, whichever runs";
  command.mutable_transaction()->mutable_otherwise(0)->mutable_read()->set_range_end("l");
  EXPECT_EQ(FormatOf(command), 3u) << "a range, of which only so many rows are looked at";
  command.mutable_transaction()->mutable_otherwise(0)->mutable_delete_()->set_range_end("l");
  EXPECT_EQ(FormatOf(command), 1u) << "one deletion is what it always was";
  command.mutable_transaction()->add_otherwise()->mutable_delete_()->set_range_end("m");
  EXPECT_EQ(FormatOf(command), 3u);

  for (const auto& set : std::vector<std::function<void()>>{
           [&] { command.mutable_compact_history(); }, [&] { command.mutable_grant_ttl(); },
           [&] { command.mutable_keep_alive_ttl(); }, [&] { command.mutable_revoke_ttl(); },
           [&] { command.mutable_expire_ttl(); }}) {
    set();
    EXPECT_EQ(FormatOf(command), 2u) << command.ShortDebugString();
  }
  command.mutable_rollback();
  EXPECT_EQ(FormatOf(command), 3u);
  command.mutable_set_settings();
  EXPECT_EQ(FormatOf(command), 3u);
}

}  // namespace
}  // namespace quorate::ingress
