// Exactly once: every rule of a session, as commands arrive once, twice, early, late and from
// processes that are no more.
#include "storage/state_sessions.h"

#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StateSessions : public StateFixture {
 protected:
  Applied Open(uint64_t store, uint64_t boot, uint64_t nonce) {
    script.Open(store, boot, nonce);
    return ApplyAll().at(0);
  }
  Applied Send(v1::SessionPosition position, v1::Command command) {
    *command.mutable_session() = position;
    script.Raw(command);
    return ApplyAll().at(0);
  }
  // Put(counter) at a sequence: executed twice it would be version 2.
  Applied Send(uint64_t sequence, uint64_t answered_through = 0) {
    return Send(Script::Position(sequence, answered_through),
                PutCommand("k" + std::to_string(sequence), "x"));
  }
  // "7/dd 3 1": boot/nonce, last sequence, answered through.
  std::string Session(uint64_t store = kIngress) {
    std::optional<SessionView> view = state->FindSession(StoreId(store));
    if (!view) return "none";
    return std::to_string(view->boot) + " " + std::to_string(view->last_sequence) + " " +
           std::to_string(view->answered_through);
  }
  bool Kept(uint64_t sequence) { return state->KeptAnswer(StoreId(kIngress), sequence) != nullptr; }
  // What the table of answers holds: "store first_sequence bytes".
  uint64_t AnswerRows() {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadOnly);
    EXPECT_TRUE(database.ok());
    absl::StatusOr<int64_t> rows = database->QueryInt("SELECT count(*) FROM session_answers");
    EXPECT_TRUE(rows.ok()) << rows.status();
    return static_cast<uint64_t>(*rows);
  }
};

TEST_F(StateSessions, OpeningFollowsBootNonceAndMembership) {
  Create();
  script.Members(MembersOf({1, 2}));
  ApplyAll();
  struct Step {
    const char* story;
    uint64_t store, boot, nonce;
    Refusal refusal;
    bool again;
    const char* session;
  };
  const Step steps[] = {
      {"a stranger", 9, 1, 1, Refusal::kNotMember, false, "none"},
      {"store 0", 0, 1, 1, Refusal::kNotMember, false, "none"},
      {"the first", 1, 5, 50, Refusal::kNone, false, "5 0 0"},
      {"the same triple again", 1, 5, 50, Refusal::kNone, true, "5 0 0"},
      {"a lower boot", 1, 4, 50, Refusal::kOlderBoot, false, "5 0 0"},
      {"an equal boot with another nonce", 1, 5, 51, Refusal::kOtherNonce, false, "5 0 0"},
      {"another store's is its own", 2, 1, 50, Refusal::kNone, false, "1 0 0"},
      {"a higher boot, with the same nonce", 1, 6, 50, Refusal::kNone, false, "6 0 0"},
      {"the old one comes late", 1, 5, 50, Refusal::kOlderBoot, false, "6 0 0"},
  };
  for (const Step& step : steps) {
    Applied outcome = Open(step.store, step.boot, step.nonce);
    EXPECT_EQ(RefusalName(outcome.refusal), RefusalName(step.refusal)) << step.story;
    EXPECT_EQ(outcome.refused, step.refusal != Refusal::kNone) << step.story;
    EXPECT_EQ(outcome.duplicate, step.again) << step.story;
    EXPECT_EQ(outcome.answer == nullptr, outcome.refused) << step.story;
    EXPECT_EQ(outcome.session_store, StoreId(step.store));
    EXPECT_EQ(outcome.session_boot, step.boot);
    EXPECT_EQ(outcome.session_nonce, step.nonce);
    EXPECT_EQ(outcome.session_sequence, 0u);
    EXPECT_EQ(Session(step.store), step.session) << step.story;
  }
  EXPECT_EQ(state->Summary().revision, Revision(1));
  ExpectHashAddsUp();
}

TEST_F(StateSessions, OpeningTheSameTripleAgainKeepsItsAnswers) {
  Begin();
  Send(1);
  Send(2);
  EXPECT_TRUE(Open(kIngress, kBoot, kNonce).duplicate);
  EXPECT_EQ(Session(), "7 2 0");
  EXPECT_TRUE(Kept(1));
  Applied outcome = Send(2);
  EXPECT_TRUE(outcome.duplicate);
  EXPECT_EQ(Parse(outcome.answer).revision(), 3u);
}

TEST_F(StateSessions, ASequenceIsExecutedOnceAndInOrder) {
  Begin();
  Applied outcome = Send(1);
  EXPECT_FALSE(outcome.refused);
  EXPECT_FALSE(outcome.duplicate);
  EXPECT_EQ(outcome.session_sequence, 1u);
  EXPECT_EQ(outcome.index, script.index());
  EXPECT_EQ(Session(), "7 1 0");

  // Sent again: the kept answer, bit for bit, and no second execution.
  Applied again = Send(1);
  EXPECT_TRUE(again.duplicate);
  EXPECT_FALSE(again.refused);
  ASSERT_NE(again.answer, nullptr);
  EXPECT_EQ(*again.answer, *outcome.answer);
  EXPECT_EQ(Show("k1"), "k1=x@2 v1");
  EXPECT_EQ(state->Summary().duplicates, 1u);

  // Too early: refused without effect, until the one before has come.
  Applied early = Send(3);
  EXPECT_TRUE(early.refused);
  EXPECT_EQ(RefusalName(early.refusal), "SEQUENCE_GAP");
  EXPECT_EQ(early.answer, nullptr);
  EXPECT_EQ(Show("k3"), "NOT_FOUND");
  EXPECT_EQ(Session(), "7 1 0");
  Send(2);
  EXPECT_FALSE(Send(3).refused);
  EXPECT_EQ(Session(), "7 3 0");
  EXPECT_EQ(Show("k3"), "k3=x@4 v1");

  EXPECT_EQ(Send(0).refusal, Refusal::kGap);
  EXPECT_EQ(Send(~uint64_t{0}).refusal, Refusal::kGap);
  EXPECT_EQ(state->Summary().revision, Revision(4));
  ExpectHashAddsUp();
}

TEST_F(StateSessions, WhatTheIngressHasIsForgotten) {
  Begin();
  for (uint64_t i = 1; i <= 5; ++i) Send(i);
  EXPECT_TRUE(Kept(1) && Kept(5));
  EXPECT_FALSE(Kept(0) || Kept(6));
  Send(6, 3);
  EXPECT_EQ(Session(), "7 6 3");
  EXPECT_FALSE(Kept(1) || Kept(3));
  EXPECT_TRUE(Kept(4) && Kept(6));

  // At or below answered_through: nothing, and still never executed again.
  Applied late = Send(2);
  EXPECT_TRUE(late.duplicate);
  EXPECT_FALSE(late.refused);
  EXPECT_EQ(late.answer, nullptr);
  EXPECT_EQ(Show("k2"), "k2=x@3 v1");

  // It does not go back, a duplicate moves it too, and nobody can forget what is to come.
  Send(7, 1);
  EXPECT_EQ(Session(), "7 7 3");
  Applied duplicate = Send(6, 5);
  EXPECT_NE(duplicate.answer, nullptr);
  EXPECT_EQ(Session(), "7 7 5");
  Send(8, ~uint64_t{0});
  EXPECT_EQ(Session(), "7 8 7");
  EXPECT_TRUE(Kept(8));
  Send(8, ~uint64_t{0});
  EXPECT_EQ(Session(), "7 8 7");

  // Refused ones forget nothing.
  Send(10, 8);
  EXPECT_EQ(Session(), "7 8 7");
  ExpectHashAddsUp();
}

TEST_F(StateSessions, ACommandOfNoSessionOrAnotherProcessIsRefused) {
  Begin();
  Send(1);
  struct Case {
    const char* story;
    v1::SessionPosition position;
  };
  const Case cases[] = {
      {"no position", v1::SessionPosition()},
      {"a member without a session", Script::Position(1, 0, 0xa2)},
      {"a stranger", Script::Position(1, 0, 0x99)},
      {"an older boot", Script::Position(2, 0, kIngress, kBoot - 1)},
      {"a boot that has not begun", Script::Position(2, 0, kIngress, kBoot + 1)},
      {"another nonce", Script::Position(2, 0, kIngress, kBoot, kNonce + 1)},
      {"a duplicate of another nonce", Script::Position(1, 0, kIngress, kBoot, kNonce + 1)},
  };
  for (const Case& c : cases) {
    Applied outcome = Send(c.position, PutCommand("never", "x"));
    EXPECT_TRUE(outcome.refused) << c.story;
    EXPECT_EQ(outcome.refusal, Refusal::kUnknownSession) << c.story;
    EXPECT_FALSE(outcome.duplicate) << c.story;
    EXPECT_EQ(outcome.answer, nullptr) << c.story;
  }
  EXPECT_EQ(Show("never"), "NOT_FOUND");
  EXPECT_EQ(Session(), "7 1 0");
  EXPECT_EQ(state->Summary().revision, Revision(2));
  EXPECT_EQ(state->Summary().duplicates, 0u);
}

TEST_F(StateSessions, AHigherBootDeletesTheOlderSession) {
  Begin();
  for (uint64_t i = 1; i <= 3; ++i) Send(i);
  EXPECT_FALSE(Open(kIngress, kBoot + 1, 5).refused);
  EXPECT_EQ(Session(), "8 0 0");
  EXPECT_FALSE(Kept(1));
  EXPECT_EQ(AnswerRows(), 0u);
  EXPECT_EQ(Send(4).refusal, Refusal::kUnknownSession);
  // Sequences begin again, and mean other writes.
  Applied first = Send(Script::Position(1, 0, kIngress, kBoot + 1, 5), PutCommand("k1", "again"));
  EXPECT_FALSE(first.duplicate);
  EXPECT_EQ(Show("k1"), "k1=again@5 v2");
  ExpectHashAddsUp();
}

TEST_F(StateSessions, OnlyTheStoresRemovalDeletesItsSession) {
  Begin();
  Open(0xa2, 1, 1);
  Send(1);
  // Everything but removal: a learner now, a joint configuration, another name.
  raft::Membership membership = MembersOf({kIngress, 0xa2, 0xa3});
  membership.joint = true;
  membership.members[0].voter = false;
  membership.members[0].outgoing_voter = true;
  script.Members(membership);
  membership.joint = false;
  membership.members[0].outgoing_voter = false;  // a learner
  script.Members(membership);
  ApplyAll();
  EXPECT_EQ(Session(), "7 1 0");
  // Removed: its session goes, the other's stays, and a late write of it is refused.
  script.Members(MembersOf({0xa2, 0xa3}));
  ApplyAll();
  EXPECT_EQ(Session(), "none");
  EXPECT_EQ(Session(0xa2), "1 0 0");
  EXPECT_EQ(AnswerRows(), 0u);
  EXPECT_EQ(Send(2).refusal, Refusal::kUnknownSession);
  EXPECT_EQ(Open(kIngress, kBoot + 1, 1).refusal, Refusal::kNotMember);
  ExpectHashAddsUp();
}

TEST_F(StateSessions, ItIsTheMembershipAtThatPointOfTheLogThatCounts) {
  Create();
  // One batch: refused before, accepted between, gone after.
  script.Members(MembersOf({1, 2}));
  script.Open(3, 1, 1);
  script.Members(MembersOf({1, 2, 3}));
  script.Open(3, 1, 1);
  script.Members(MembersOf({1, 2}));
  script.Open(3, 2, 1);
  std::vector<Applied> outcomes = ApplyAll();
  ASSERT_EQ(outcomes.size(), 3u);
  EXPECT_EQ(outcomes[0].refusal, Refusal::kNotMember);
  EXPECT_EQ(outcomes[1].refusal, Refusal::kNone);
  EXPECT_EQ(outcomes[2].refusal, Refusal::kNotMember);
  EXPECT_EQ(Session(3), "none");
  ExpectHashAddsUp();
}

TEST_F(StateSessions, ASkipTakesItsSequenceAndIsNotMistakenForSuccess) {
  Begin();
  v1::Command skip;
  skip.mutable_skip();
  Applied outcome = Send(Script::Position(1, 0), skip);
  EXPECT_FALSE(outcome.refused);
  EXPECT_EQ(Parse(outcome.answer).code(), 1);
  EXPECT_EQ(Parse(outcome.answer).reason(), "SKIPPED");
  EXPECT_EQ(Session(), "7 1 0");
  // The write that was given up arrives after all: the skip's answer, no execution.
  Applied late = Send(1);
  EXPECT_TRUE(late.duplicate);
  EXPECT_EQ(Parse(late.answer).reason(), "SKIPPED");
  EXPECT_EQ(Show("k1"), "NOT_FOUND");
  // The other way round the write has happened, and its skip learns so.
  Send(2);
  Applied too_late = Send(Script::Position(2, 0), skip);
  EXPECT_TRUE(too_late.duplicate);
  EXPECT_EQ(Parse(too_late.answer).code(), 0);
  EXPECT_EQ(Parse(too_late.answer).revision(), 2u);
}

TEST_F(StateSessions, AFailedWriteKeepsItsAnswerToo) {
  Begin();
  v1::Command command = PutCommand("a", "1");
  AddCompare(command, "a")->set_mod_revision(5);
  command.mutable_transaction()->set_abort_on_false(true);
  Applied outcome = Send(Script::Position(1, 0), command);
  EXPECT_EQ(Parse(outcome.answer).code(), 10);
  EXPECT_EQ(Session(), "7 1 0");
  Applied again = Send(Script::Position(1, 0), command);
  EXPECT_TRUE(again.duplicate);
  EXPECT_EQ(*again.answer, *outcome.answer);
}

TEST_F(StateSessions, AtMost4096AreUnanswered) {
  Begin();
  for (uint64_t i = 1; i <= kUnansweredMax; ++i) {
    script.Raw([&] {
      v1::Command command = PutCommand("k", "x");
      *command.mutable_session() = Script::Position(i, 0);
      return command;
    }());
  }
  for (const Applied& outcome : ApplyAll()) ASSERT_FALSE(outcome.refused);
  Applied one_more = Send(kUnansweredMax + 1);
  EXPECT_EQ(one_more.refusal, Refusal::kTooManyUnanswered);
  EXPECT_EQ(Session(), "7 4096 0");
  EXPECT_TRUE(Kept(1));  // nothing was pushed out for it
  // Duplicates are answered as ever; and once one answer has arrived there is room for one write.
  EXPECT_TRUE(Send(1).duplicate);
  EXPECT_EQ(Send(kUnansweredMax + 1, 1).refusal, Refusal::kNone);
  EXPECT_EQ(Session(), "7 4097 1");
  EXPECT_EQ(Send(kUnansweredMax + 2, 1).refusal, Refusal::kTooManyUnanswered);
  EXPECT_EQ(Send(kUnansweredMax + 2, kUnansweredMax + 1).refusal, Refusal::kNone);
  EXPECT_EQ(AnswerRows(), 1u);
  ExpectHashAddsUp();
}

TEST_F(StateSessions, SessionsAndAnswersSurviveARestart) {
  Begin();
  Open(0xa2, 3, 4);
  std::vector<std::string> answers;
  for (uint64_t i = 1; i <= 20; ++i) answers.push_back(*Send(i, i > 6 ? i - 6 : 0).answer);
  EXPECT_EQ(Session(), "7 20 14");
  const StateSummary before = state->Summary();
  Reopen();
  EXPECT_EQ(Session(), "7 20 14");
  EXPECT_EQ(Session(0xa2), "3 0 0");
  EXPECT_EQ(state->Summary().hash, before.hash);
  EXPECT_EQ(state->Summary().membership, before.membership);
  for (uint64_t i = 1; i <= 20; ++i) {
    Applied again = Send(i);
    EXPECT_TRUE(again.duplicate);
    if (i <= 14) {
      EXPECT_EQ(again.answer, nullptr) << i;
    } else {
      ASSERT_NE(again.answer, nullptr) << i;
      EXPECT_EQ(*again.answer, answers[i - 1]) << i;
    }
  }
  EXPECT_EQ(Send(21, 20).refusal, Refusal::kNone);
  EXPECT_EQ(AnswerRows(), 1u);
  ExpectHashAddsUp();
}

TEST_F(StateSessions, AnAnswerThatCameAndWentWithinABatchIsNeverWritten) {
  Begin();
  for (uint64_t i = 1; i <= 64; ++i) {
    v1::Command command = PutCommand("k", std::to_string(i));
    *command.mutable_session() = Script::Position(i, i - 1);
    script.Raw(command);
  }
  ApplyAll();
  EXPECT_EQ(Session(), "7 64 63");
  EXPECT_EQ(AnswerRows(), 1u);
  absl::StatusOr<Database> database =
      Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadOnly);
  ASSERT_TRUE(database.ok());
  EXPECT_EQ(*database->QueryInt("SELECT first_sequence FROM session_answers"), 64);
  EXPECT_LT(*database->QueryInt("SELECT length(answers) FROM session_answers"), 40);
}

// --- Errors: rows that no batch can have written ---

class DamagedSessions : public StateSessions,
                        public ::testing::WithParamInterface<std::pair<const char*, const char*>> {
};

TEST_P(DamagedSessions, AreRefusedAtTheStart) {
  Begin();
  for (uint64_t i = 1; i <= 5; ++i) Send(i);
  state.reset();
  {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute(GetParam().first).ok());
  }
  absl::StatusOr<std::unique_ptr<State>> opened = State::Open(options);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kDataLoss) << opened.status();
  EXPECT_THAT(std::string(opened.status().message()), ::testing::HasSubstr(GetParam().second));
  EXPECT_THAT(std::string(opened.status().message()), ::testing::HasSubstr("start it again"));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, DamagedSessions,
    ::testing::Values(
        std::pair("DELETE FROM session_answers WHERE first_sequence = 3", "with a hole"),
        std::pair("DELETE FROM session_answers WHERE first_sequence = 5", "missing"),
        std::pair("DELETE FROM session", "without a session"),
        std::pair("UPDATE session SET answered_through = 6", "more answered than executed"),
        std::pair("UPDATE session SET last_sequence = 4", "with a hole"),
        std::pair("UPDATE session_answers SET answers = x'05000000' WHERE first_sequence = 5",
                  "unreadable"),
        std::pair("UPDATE session_answers SET answers = x'01000000ff' WHERE first_sequence = 5",
                  "unreadable")));

}  // namespace
}  // namespace quorate::storage::testing
