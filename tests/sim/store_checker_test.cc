// The checker of the store, against nodes that lie: each lie is one that a bug would tell.
#include "tests/sim/store_checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/machine.h"

namespace quorate::sim {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kOnlyStore = 7, kOnlyNonce = 99;

Plan PlanOfSqlite() {
  Plan plan;
  plan.sqlite = true;
  return plan;
}

class StoreCheckerTest : public ::testing::Test {
 protected:
  StoreCheckerTest() {
    raft::Membership membership;
    membership.cluster = ClusterId(5);
    membership.members.push_back({.store = StoreId(kOnlyStore),
                                  .name = "a",
                                  .address = "a:7000",
                                  .voter = true,
                                  .outgoing_voter = false});
    raft::Entry entry = NextEntry(raft::EntryType::kMembership);
    entry.payload = raft::EncodeMembership(membership);
    Both(entry, nullptr);
    v1::Command open;
    open.mutable_open_session()->set_store(kOnlyStore);
    open.mutable_open_session()->set_boot(1);
    open.mutable_open_session()->set_nonce(kOnlyNonce);
    raft::Entry opening = NextEntry(raft::EntryType::kCommand);
    opening.payload = open.SerializeAsString();
    Both(opening, nullptr);
  }

  raft::Entry NextEntry(raft::EntryType type) {
    raft::Entry entry;
    entry.index = raft::Index(++index_);
    entry.term = raft::Term(1);
    entry.type = type;
    entry.log_time_ms = log_time_ms_;
    entry.wall_time_ms = kWallTimeAtStart + log_time_ms_;
    return entry;
  }
  void Both(const raft::Entry& entry, const storage::Applied* outcome) {
    oracle_.Replay(entry, nullptr);
    checker_.Replay(entry, outcome);
  }

  // A command's turn; `lie` changes what its node says of it.
  v1::Answer Run(v1::Command command,
                 const std::function<void(v1::Answer*, storage::Applied*)>& lie = nullptr,
                 uint64_t sequence = 0) {
    command.set_format(1);
    v1::SessionPosition* const position = command.mutable_session();
    position->set_store(kOnlyStore);
    position->set_boot(1);
    position->set_nonce(kOnlyNonce);
    position->set_sequence(sequence != 0 ? sequence : ++sequence_);
    raft::Entry entry = NextEntry(raft::EntryType::kCommand);
    entry.payload = command.SerializeAsString();
    oracle_.Replay(entry, nullptr);
    v1::Answer answer = oracle_.answer();
    storage::Applied outcome;
    outcome.index = entry.index;
    v1::Answer told = answer;
    if (lie) lie(&told, &outcome);
    outcome.answer = std::make_shared<const std::string>(told.SerializeAsString());
    checker_.Replay(entry, &outcome);
    return answer;
  }

  static v1::Command Put(const std::vector<std::string>& keys, const std::string& value,
                         uint64_t ttl = 0) {
    v1::Command command;
    for (const std::string& key : keys) {
      v1::PutOperation* const put = command.mutable_transaction()->add_then()->mutable_put();
      put->set_key(key);
      put->set_value(value);
      put->set_value_kind(v1::VALUE_KIND_TEXT);
      put->set_ttl_id(ttl);
    }
    return command;
  }
  static v1::Command Rollback(const std::string& key, uint64_t to) {
    v1::Command command;
    command.mutable_rollback()->set_key(key);
    command.mutable_rollback()->set_to_revision(to);
    return command;
  }

  // What an honest node shows of all keys at a revision.
  ReadAnswer Shown(uint64_t at, uint64_t revision) const {
    ReadAnswer answer;
    answer.status = ReadAnswer::Status::kServed;
    answer.revision = Revision(revision);
    answer.life = 1;
    for (const auto& [key, version] : checker_.StateAt("", at)) {
      storage::Item item;
      item.key = key;
      item.is_text = version->is_text;
      item.value = version->value;
      item.create_revision = Revision(version->create_revision);
      item.mod_revision = Revision(version->revision);
      item.version = version->version;
      item.ttl = version->ttl;
      answer.items.push_back(item);
    }
    return answer;
  }
  static ReadQuestion ListAll() {
    ReadQuestion question;
    question.kind = ReadQuestion::Kind::kList;
    question.freshness = ReadQuestion::Freshness::kLinearizable;
    return question;
  }
  std::string JudgeList(const ReadAnswer& answer, uint64_t floor = 1) {
    checker_.JudgeRead(1, ListAll(), answer, floor);
    return failure_.text();
  }

  const Plan plan_ = PlanOfSqlite();
  EventQueue events_;
  Failure failure_, oracle_failure_;
  Report report_;
  StoreChecker checker_{plan_, &events_, &failure_, &report_};
  StoreChecker oracle_{plan_, &events_, &oracle_failure_, &report_};
  uint64_t index_ = 0, sequence_ = 0;
  uint64_t log_time_ms_ = 0;
};

// --- Honest nodes ---

TEST_F(StoreCheckerTest, ANodeThatTellsTheTruthPasses) {
  Run(Put({"k1", "k2"}, "a"));
  Run(Put({"k2"}, "b"));
  v1::Command remove;
  remove.mutable_transaction()->add_then()->mutable_delete_()->set_key("k1");
  Run(remove);
  const v1::Answer back = Run(Rollback("k1", 2));
  EXPECT_EQ(back.results(0).count(), 1u);
  EXPECT_EQ(back.revision(), 5u);
  for (uint64_t revision = 2; revision <= 5; ++revision) {
    EXPECT_EQ(JudgeList(Shown(revision, revision), revision), "");
  }
  EXPECT_EQ(checker_.ChangesOf(2)->size(), 2u);
  EXPECT_EQ(checker_.ChangesOf(6), nullptr);
}

TEST_F(StoreCheckerTest, ARepeatedSequenceGetsItsAnswerAgain) {
  const v1::Answer first = Run(Put({"k1"}, "a"));
  Run(
      Put({"k1"}, "a"),
      [&](v1::Answer* answer, storage::Applied* outcome) {
        *answer = first;
        outcome->duplicate = true;
      },
      1);
  EXPECT_EQ(failure_.text(), "");
  EXPECT_EQ(checker_.model().revision(), 2u);
}

// --- What the log did ---

TEST_F(StoreCheckerTest, AWrongAnswerIsFound) {
  Run(Put({"k1"}, "a"),
      [](v1::Answer* answer, storage::Applied*) { answer->mutable_results(0)->set_version(2); });
  EXPECT_THAT(failure_.text(), HasSubstr("it is answered"));
}

TEST_F(StoreCheckerTest, ASecondExecutionIsFound) {
  Run(Put({"k1"}, "a"));
  Run(
      Put({"k1"}, "a"), [](v1::Answer* answer, storage::Applied*) { answer->set_revision(3); }, 1);
  EXPECT_THAT(failure_.text(), HasSubstr("executed a second time"));
}

TEST_F(StoreCheckerTest, AWriteOverAHoleIsFound) {
  Run(Put({"k1"}, "a"), nullptr, 2);
  EXPECT_THAT(failure_.text(), HasSubstr("its session's rule"));
}

TEST_F(StoreCheckerTest, AnEntryThatIsLeftOutIsFound) {
  ++index_;
  Run(Put({"k1"}, "a"));
  EXPECT_THAT(failure_.text(), HasSubstr("nobody has applied"));
}

TEST_F(StoreCheckerTest, ARollbackThatLeavesAKeyIsFound) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  Run(Rollback("k1", 2), [](v1::Answer* answer, storage::Applied*) {
    answer->mutable_results(0)->clear_count();
    answer->set_revision(3);
  });
  EXPECT_THAT(failure_.text(), HasSubstr("it is answered"));
}

// --- What readers see ---

TEST_F(StoreCheckerTest, HalfATransactionIsFound) {
  Run(Put({"k1", "k2"}, "a"));
  Run(Put({"k1", "k2"}, "b"));
  ReadAnswer answer = Shown(3, 3);
  answer.items[1] = Shown(2, 2).items[1];
  EXPECT_THAT(JudgeList(answer), HasSubstr("shows k2 of revision 2, not of 3"));
}

TEST_F(StoreCheckerTest, AStaleReadIsFound) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  EXPECT_THAT(JudgeList(Shown(2, 2), 3), HasSubstr("was acknowledged before it was asked"));
}

TEST_F(StoreCheckerTest, ALocalReadIsHeldAgainstWhatItMeasured) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  events_.RunOne(kSecond);
  checker_.Acknowledge(3);
  ReadQuestion question = ListAll();
  question.freshness = ReadQuestion::Freshness::kLocal;
  ReadAnswer answer = Shown(2, 2);
  answer.age = kSecond;  // up to the very moment: that may lie before
  checker_.JudgeRead(1, question, answer, 1);
  EXPECT_EQ(failure_.text(), "");
  answer.age = kSecond + 1;
  checker_.JudgeRead(2, question, answer, 1);
  EXPECT_THAT(failure_.text(), HasSubstr("the moment that it measured"));
}

TEST_F(StoreCheckerTest, AProcessThatGoesBackIsFound) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  EXPECT_EQ(JudgeList(Shown(3, 3)), "");
  ReadAnswer next_process = Shown(2, 2);
  next_process.life = 2;
  EXPECT_EQ(JudgeList(next_process), "");
  EXPECT_EQ(JudgeList(Shown(3, 3)), "");
  EXPECT_THAT(JudgeList(Shown(2, 2)), HasSubstr("has shown 3 before"));
}

TEST_F(StoreCheckerTest, AListThatEndsEarlyIsFound) {
  Run(Put({"k1", "k2"}, "a"));
  ReadAnswer answer = Shown(2, 2);
  answer.items.pop_back();
  EXPECT_THAT(JudgeList(answer), HasSubstr("lists only 1 items"));
}

TEST_F(StoreCheckerTest, WhatNobodyHasAppliedIsFound) {
  EXPECT_THAT(JudgeList(Shown(1, 2)), HasSubstr("which nobody has applied"));
}

TEST_F(StoreCheckerTest, AnotherPastIsFound) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  ReadQuestion question;
  question.key = "k1";
  question.at = Revision(2);
  ReadAnswer answer = Shown(2, 3);
  checker_.JudgeRead(1, question, answer, 1);
  EXPECT_EQ(failure_.text(), "");
  answer.items[0].value = "b";
  checker_.JudgeRead(2, question, answer, 1);
  EXPECT_THAT(failure_.text(), HasSubstr("another one than was written"));
}

TEST_F(StoreCheckerTest, HistoryWithoutADeletionIsFound) {
  Run(Put({"k1"}, "a"));
  v1::Command remove;
  remove.mutable_transaction()->add_then()->mutable_delete_()->set_key("k1");
  Run(remove);
  ReadQuestion question;
  question.kind = ReadQuestion::Kind::kHistory;
  question.key = "k1";
  ReadAnswer answer = Shown(2, 3);
  storage::HistoryItem put;
  put.item = answer.items[0];
  answer.history = {put};
  checker_.JudgeRead(1, question, answer, 1);
  EXPECT_THAT(failure_.text(), HasSubstr("tells of 1 changes, not of 2"));
}

TEST_F(StoreCheckerTest, AnAnswerFromCompactedHistoryIsFound) {
  Run(Put({"k1"}, "a"));
  Run(Put({"k1"}, "b"));
  v1::Command compact;
  compact.mutable_compact_history()->set_revision(2);
  Run(compact);
  ReadQuestion question = ListAll();
  question.at = Revision(2);
  ReadAnswer answer = Shown(2, 3);
  answer.compacted = Revision(2);
  answer.status = ReadAnswer::Status::kCompacted;
  checker_.JudgeRead(1, question, answer, 1);
  EXPECT_EQ(failure_.text(), "");
  answer.status = ReadAnswer::Status::kServed;
  checker_.JudgeRead(2, question, answer, 1);
  EXPECT_THAT(failure_.text(), HasSubstr("which is compacted"));
}

// --- Time-to-lives ---

class TtlTest : public StoreCheckerTest {
 protected:
  // Granted at 0 s for 2 s, with a key; kept alive at 1 s.
  void SetUp() override {
    v1::Command grant;
    grant.mutable_grant_ttl()->set_ttl_ms(2000);
    ttl_ = Run(grant).results(0).ttl_id();
    checker_.OnRenewed(ttl_, 2000, 0, raft::Term(1));
    Run(Put({"k1"}, "a", ttl_));
    log_time_ms_ = 1000;
    v1::Command keep;
    keep.mutable_keep_alive_ttl()->add_ttl_id(ttl_);
    Run(keep);
    checker_.OnRenewed(ttl_, 2000, kSecond, raft::Term(1));
    EXPECT_EQ(failure_.text(), "");
  }
  v1::Answer Expire() {
    v1::Command expire;
    expire.mutable_expire_ttl()->add_ttl_id(ttl_);
    return Run(expire);
  }
  uint64_t ttl_ = 0;
};

TEST_F(TtlTest, OneThatIsNotOverIsLeftAlone) {
  log_time_ms_ = 3000;
  EXPECT_EQ(Expire().results(0).count(), 0u);
  log_time_ms_ = 3001;
  EXPECT_EQ(Expire().results(0).deleted(), 1u);
  EXPECT_EQ(failure_.text(), "");
  EXPECT_TRUE(checker_.model().ttls().empty());
  EXPECT_EQ(report_.reached[static_cast<size_t>(Reached::kTtlItemExpired)],
            2u);  // by both checkers
}

// Log time runs ahead of the leader's clock: nobody but the world's clock can tell.
TEST_F(TtlTest, OneThatEndsEarlyIsFound) {
  log_time_ms_ = 2900;
  v1::Command expire;
  expire.mutable_expire_ttl()->add_ttl_id(ttl_);
  expire.mutable_session()->set_store(kOnlyStore);
  expire.mutable_session()->set_boot(1);
  expire.mutable_session()->set_nonce(kOnlyNonce);
  expire.mutable_session()->set_sequence(++sequence_);
  raft::Entry entry = NextEntry(raft::EntryType::kCommand);
  entry.payload = expire.SerializeAsString();
  entry.log_time_ms = 3001;
  checker_.Replay(entry, nullptr);
  EXPECT_THAT(failure_.text(), HasSubstr("is over 1901000 us after it was last kept alive"));
}

TEST_F(TtlTest, ANodeThatForgetsARenewalIsFound) {
  log_time_ms_ = 2500;
  v1::Command expire;
  expire.mutable_expire_ttl()->add_ttl_id(ttl_);
  Run(expire, [](v1::Answer* answer, storage::Applied*) {
    answer->mutable_results(0)->set_count(1);
    answer->mutable_results(0)->set_deleted(1);
    answer->set_revision(3);
  });
  EXPECT_THAT(failure_.text(), HasSubstr("it is answered"));
}

}  // namespace
}  // namespace quorate::sim
