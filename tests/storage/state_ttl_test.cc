// Time-to-lives in the state machine: what is bound to one, when it ends and when it does not.
#include "storage/state_ttl.h"

#include "storage/state_apply.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

class StateTtl : public StateFixture {
 protected:
  uint64_t Grant(uint64_t ttl_ms) {
    v1::Command command;
    command.mutable_grant_ttl()->set_ttl_ms(ttl_ms);
    const v1::Answer answer = Run(command);
    EXPECT_EQ(answer.code(), 0) << answer.message();
    return answer.results_size() == 1 ? answer.results(0).ttl_id() : 0;
  }
  // "left/left": how long each lives; 0 for one that is not there.
  std::string KeepAlive(const std::vector<uint64_t>& ttls) {
    v1::Command command;
    for (uint64_t ttl : ttls) command.mutable_keep_alive_ttl()->add_ttl_id(ttl);
    std::string text;
    const v1::Answer answer = Run(command);
    for (const v1::OperationResult& result : answer.results()) {
      text += (text.empty() ? "" : "/") + std::to_string(result.ttl_ms());
    }
    return text;
  }
  v1::Answer Revoke(uint64_t ttl) {
    v1::Command command;
    command.mutable_revoke_ttl()->set_ttl_id(ttl);
    return Run(command);
  }
  // "ended/deleted"
  std::string Expire(const std::vector<uint64_t>& ttls) {
    v1::Command command;
    command.mutable_expire_ttl();
    for (uint64_t ttl : ttls) command.mutable_expire_ttl()->add_ttl_id(ttl);
    const v1::Answer answer = Run(command);
    return std::to_string(answer.results(0).count()) + "/" +
           std::to_string(answer.results(0).deleted());
  }
  v1::Answer PutBound(std::string_view key, std::string_view value, uint64_t ttl) {
    v1::Command command;
    AddPut(command, key, value)->set_ttl_id(ttl);
    return Run(command);
  }
  uint64_t TtlOf(std::string_view key, std::optional<uint64_t> at = std::nullopt) {
    std::optional<Revision> revision;
    if (at) revision = Revision(*at);
    absl::StatusOr<Item> item = state->Get(key, revision).first;
    return item.ok() ? item->ttl : ~uint64_t{0};
  }
  uint64_t now() { return state->Summary().log_time_ms; }
  v1::Answer RollBack(std::string_view key, uint64_t to) {
    v1::Command command;
    command.mutable_rollback()->set_key(std::string(key));
    command.mutable_rollback()->set_to_revision(to);
    return Run(command);
  }
  std::vector<uint64_t> Due(uint64_t at) {
    absl::StatusOr<std::vector<uint64_t>> due = state->DueTtls(at, 100);
    EXPECT_TRUE(due.ok()) << due.status();
    return due.ok() ? *due : std::vector<uint64_t>();
  }
};

TEST_F(StateTtl, ItemsGoWithTheirTimeToLive) {
  Begin();
  const uint64_t ttl = Grant(1000);
  const uint64_t granted = now();
  EXPECT_EQ(state->Summary().revision, Revision(1)) << "a grant changes no item";
  EXPECT_EQ(state->Summary().next_ttl_deadline_ms, granted + 1000);
  PutBound("a", "1", ttl);
  PutBound("b", "2", ttl);
  Put("c", "3");
  EXPECT_EQ(TtlOf("a"), ttl);
  EXPECT_EQ(TtlOf("c"), 0u);
  EXPECT_EQ(state->Summary().ttl_keys, 2u);

  state->CollectChanges(Collect::kPrevious);
  script.Pass(2000);
  v1::Command command;
  command.mutable_expire_ttl()->add_ttl_id(ttl);
  script.Do(command);
  const std::vector<Applied> outcomes = ApplyAll();
  EXPECT_THAT(ShowAll(), ::testing::ElementsAre("c=3@4 v1"));
  // One revision, told like any deletion.
  ASSERT_NE(outcomes[0].changes, nullptr);
  ASSERT_EQ(outcomes[0].changes->changes.size(), 2u);
  EXPECT_EQ(outcomes[0].changes->revision, Revision(5));
  EXPECT_TRUE(outcomes[0].changes->changes[1].deleted);
  EXPECT_EQ(outcomes[0].changes->changes[1].previous->ttl, ttl);
  HistoryQuery query;
  query.key = "a";
  const auto history = state->History(query);
  ASSERT_TRUE(history.ok());
  EXPECT_TRUE(history->items[0].deleted);
  EXPECT_EQ(history->items[0].note, "time-to-live expired");
  EXPECT_EQ(history->items[1].item.ttl, ttl);
  EXPECT_EQ(state->Summary().ttls, 0u);
  EXPECT_EQ(state->Summary().ttl_keys, 0u);
  EXPECT_EQ(state->Summary().next_ttl_deadline_ms, 0u);
  EXPECT_EQ(state->Summary().expired_ttls, 1u);
  EXPECT_EQ(TtlOf("a", 4), ttl) << "the past says what it was bound to";
  ExpectHashAddsUp();
}

TEST_F(StateTtl, NotBeforeItsTimeIsOver) {
  Begin();
  const uint64_t ttl = Grant(1000);
  PutBound("a", "1", ttl);
  const uint64_t deadline = state->Summary().next_ttl_deadline_ms;
  script.Pass(deadline - now() - 10);  // entries are 10 ms apart
  EXPECT_THAT(Due(deadline), ::testing::IsEmpty());
  EXPECT_EQ(Expire({ttl}), "0/0");
  EXPECT_EQ(now(), deadline);
  EXPECT_EQ(Show("a"), "a=1@2 v1") << "at the deadline it may be a part of a millisecond too early";
  EXPECT_THAT(Due(deadline + 1), ::testing::ElementsAre(ttl));
  EXPECT_EQ(Expire({ttl}), "1/1");
  EXPECT_EQ(Show("a"), "NOT_FOUND");
}

// (1) The leader finds it due and proposes its end. (2) A renewal is in the log before that. (3)
// The end has no effect, on every node.
TEST_F(StateTtl, ARenewalBeforeTheEndWins) {
  Begin();
  const uint64_t ttl = Grant(1000);
  PutBound("a", "1", ttl);
  script.Pass(5000);
  EXPECT_EQ(KeepAlive({ttl}), "1000") << "nobody has ended it: it lives";
  EXPECT_EQ(Expire({ttl}), "0/0");
  EXPECT_EQ(Show("a"), "a=1@2 v1");
  // The other order.
  script.Pass(5000);
  EXPECT_EQ(Expire({ttl}), "1/1");
  EXPECT_EQ(KeepAlive({ttl}), "0");
  EXPECT_EQ(Expire({ttl}), "0/0") << "again, as a leader proposes that has not heard of the first";
  ExpectHashAddsUp();
}

TEST_F(StateTtl, ManyAreRenewedAtOnce) {
  Begin();
  const uint64_t first = Grant(1000);
  const uint64_t second = Grant(2000);
  script.Pass(500);
  EXPECT_EQ(KeepAlive({second, 77, first, first}), "2000/0/1000/1000");
  EXPECT_EQ(state->Summary().next_ttl_deadline_ms, now() + 1000);
  EXPECT_EQ(state->Summary().revision, Revision(1));
  ExpectHashAddsUp();
}

TEST_F(StateTtl, APutSaysWhatItsKeyIsBoundTo) {
  Begin();
  const uint64_t first = Grant(1000);
  const uint64_t second = Grant(1000);
  PutBound("a", "1", first);
  PutBound("b", "1", first);
  PutBound("c", "1", first);
  PutBound("a", "2", first);   // stays
  PutBound("b", "2", second);  // moves
  Put("c", "2");               // is let go
  Delete("a");
  EXPECT_EQ(state->Summary().ttl_keys, 1u);
  ExpectHashAddsUp();
  EXPECT_EQ(Revoke(first).results(0).deleted(), 0u);
  EXPECT_EQ(state->Summary().revision, Revision(8)) << "nothing was bound to it any more";
  EXPECT_EQ(Revoke(second).results(0).deleted(), 1u);
  EXPECT_THAT(ShowAll(), ::testing::ElementsAre("c=2@7 v2"));
  ExpectHashAddsUp();
}

TEST_F(StateTtl, RangeDeletionsLetGo) {
  Begin();
  const uint64_t ttl = Grant(1000);
  for (const char* key : {"p/a", "p/b", "q"}) PutBound(key, "1", ttl);
  Delete("p/", "p0");
  EXPECT_EQ(state->Summary().ttl_keys, 1u);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, ARepeatedGrantIsOne) {
  Begin();
  v1::Command command;
  command.mutable_grant_ttl()->set_ttl_ms(1000);
  command.mutable_client_request()->set_id("r");
  command.mutable_client_request()->set_revision(1);
  command.mutable_client_request()->set_command_hash(std::string(16, 'h'));
  const uint64_t first = Run(command).results(0).ttl_id();
  EXPECT_EQ(Run(command).results(0).ttl_id(), first);
  Reopen();
  EXPECT_EQ(Run(command).results(0).ttl_id(), first);
  EXPECT_EQ(state->Summary().ttls, 1u);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, ReadsWithinATransactionSayIt) {
  Begin();
  const uint64_t ttl = Grant(1000);
  v1::Command command;
  AddPut(command, "a", "1")->set_ttl_id(ttl);
  command.mutable_transaction()->add_then()->mutable_read()->set_key("a");
  EXPECT_EQ(Run(command).results(1).items(0).ttl_id(), ttl);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, ComesBackAfterARestartAndInACopy) {
  Begin();
  const uint64_t ttl = Grant(1000);
  Grant(5000);
  PutBound("a", "1", ttl);
  const uint64_t deadline = state->Summary().next_ttl_deadline_ms;
  Reopen();
  EXPECT_EQ(state->Summary().ttls, 2u);
  EXPECT_EQ(state->Summary().ttl_keys, 1u);
  EXPECT_EQ(state->Summary().next_ttl_deadline_ms, deadline);
  ExpectHashAddsUp();

  Directory other;
  const std::atomic<bool> never{false};
  const absl::StatusOr<StateCopy> copy = state->Copy(other.path() + "/copy", never);
  ASSERT_TRUE(copy.ok()) << copy.status();
  std::filesystem::create_directory(other.path() + "/state-1");
  std::filesystem::rename(copy->path, other.path() + "/state-1/state.db");
  options.directory = other.path();
  Reopen();
  EXPECT_EQ(state->Summary().ttls, 2u);
  script.Pass(2000);
  EXPECT_EQ(Expire({ttl}), "1/1");
  EXPECT_EQ(state->Summary().ttls, 1u);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, CompactionKeepsWhatIsBound) {
  Begin();
  const uint64_t ttl = Grant(1000);
  PutBound("a", "1", ttl);
  PutBound("a", "2", ttl);
  PutBound("b", "1", ttl);
  Delete("b");
  v1::Command compact;
  compact.mutable_compact_history()->set_revision(5);
  compact.mutable_compact_history()->set_rows_max(100);
  compact.mutable_compact_history()->set_bytes_max(1000);
  EXPECT_TRUE(Run(compact).succeeded());
  ExpectHashAddsUp();
  EXPECT_EQ(TtlOf("a"), ttl);
  EXPECT_EQ(Revoke(ttl).results(0).deleted(), 1u);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, ARollbackBringsTheBindingBackWhileItsTimeToLiveLives) {
  Begin();
  const uint64_t gone = Grant(1000);
  const uint64_t lives = Grant(9000);
  PutBound("a", "was bound to gone", gone);    // 2
  PutBound("b", "was bound to lives", lives);  // 3
  Put("c", "was plain");                       // 4
  PutBound("d", "was bound to gone", gone);    // 5
  const uint64_t then = 5;
  PutBound("d", "is bound to lives", lives);         // 6
  PutBound("c", "is bound to lives", lives);         // 7
  Put("b", "is plain");                              // 8
  EXPECT_EQ(Revoke(gone).results(0).deleted(), 1u);  // 9: a

  RollBack("a", then);
  EXPECT_EQ(Show("a"), "a=was bound to gone@10 v1");
  EXPECT_EQ(TtlOf("a"), 0u) << "its time-to-live is gone, so it is plain";
  RollBack("b", then);
  EXPECT_EQ(TtlOf("b"), lives);
  RollBack("c", then);
  EXPECT_EQ(TtlOf("c"), 0u);
  RollBack("d", then);
  EXPECT_EQ(Show("d"), "d=was bound to gone@13 v3");
  EXPECT_EQ(TtlOf("d"), lives) << "who keeps it alive now goes on with that";
  ExpectHashAddsUp();
  const v1::Answer again = RollBack("b", then);
  EXPECT_EQ(again.results(0).count(), 0u) << "is like that already";
  Reopen();
  ExpectHashAddsUp();
}

TEST_F(StateTtl, AnExpiryTakesAboutTenThousandKeysAtOnce) {
  Begin();
  std::vector<uint64_t> ttls;
  for (int t = 0; t < 3; ++t) {
    ttls.push_back(Grant(1));
    v1::Command command;
    for (int k = 0; k < 6000; ++k) {
      AddPut(command, std::to_string(t) + "/" + std::to_string(k), "v")->set_ttl_id(ttls.back());
    }
    Run(command);
  }
  script.Pass(1000);
  EXPECT_EQ(Expire(ttls), "2/12000");
  EXPECT_EQ(Expire(ttls), "1/6000");
  EXPECT_EQ(Count(""), 0u);
  ExpectHashAddsUp();
}

// --- Errors ---

TEST_F(StateTtl, OneThatIsNotThere) {
  Begin();
  const v1::Answer put = PutBound("a", "1", 0x77);
  EXPECT_EQ(put.code(), 5);
  EXPECT_EQ(put.reason(), "TTL_NOT_FOUND");
  EXPECT_EQ(put.metadata().at("ttl_id"), "0000000000000077");
  EXPECT_EQ(put.revision(), 1u);
  EXPECT_EQ(Revoke(0x77).reason(), "TTL_NOT_FOUND");
  EXPECT_EQ(Revoke(0).reason(), "TTL_NOT_FOUND");
  EXPECT_EQ(KeepAlive({0x77}), "0");
  EXPECT_EQ(Expire({0x77}), "0/0");
  EXPECT_EQ(Expire({}), "0/0");
}

// The first put of the transaction, and what was told of it, is undone with the second.
TEST_F(StateTtl, NothingOfARefusedTransactionStays) {
  Begin();
  const uint64_t ttl = Grant(1000);
  state->CollectChanges(Collect::kChanges);
  v1::Command command;
  AddPut(command, "a", "1")->set_ttl_id(ttl);
  AddPut(command, "b", "1")->set_ttl_id(0x77);
  script.Do(command);
  const std::vector<Applied> outcomes = ApplyAll();
  EXPECT_EQ(Parse(outcomes[0].answer).reason(), "TTL_NOT_FOUND");
  EXPECT_EQ(Parse(outcomes[0].answer).results_size(), 0);
  EXPECT_FALSE(Parse(outcomes[0].answer).succeeded());
  EXPECT_EQ(outcomes[0].changes, nullptr);
  EXPECT_EQ(Show("a"), "NOT_FOUND");
  EXPECT_EQ(state->Summary().ttl_keys, 0u);
  EXPECT_EQ(state->Summary().revision, Revision(1));
  ExpectHashAddsUp();
  EXPECT_EQ(PutBound("a", "2", ttl).code(), 0);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, TooManyKeys) {
  Begin();
  const uint64_t ttl = Grant(1000);
  v1::Command command;
  for (uint64_t k = 0; k < kTtlKeysMax; ++k) {
    AddPut(command, "k" + std::to_string(k), "v")->set_ttl_id(ttl);
  }
  EXPECT_EQ(Run(command).code(), 0);
  EXPECT_EQ(PutBound("k7", "again", ttl).code(), 0) << "is bound to it already";
  const v1::Answer answer = PutBound("one more", "v", ttl);
  EXPECT_EQ(answer.code(), 8);
  EXPECT_EQ(answer.reason(), "TTL_TOO_MANY_KEYS");
  Put("k7", "plain");
  EXPECT_EQ(PutBound("one more", "v", ttl).code(), 0) << "there is room again";
  const v1::Answer back = RollBack("k7", 3);
  EXPECT_EQ(back.reason(), "TTL_TOO_MANY_KEYS");
  EXPECT_EQ(TtlOf("k7"), 0u);
  ExpectHashAddsUp();
}

TEST_F(StateTtl, TooManyOfThem) {
  Begin();
  const uint64_t first = Grant(1000);
  state.reset();
  {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok());
    // All but one of the others, without a hundred thousand entries.
    const std::string fill =
        "INSERT INTO ttl WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i "
        "< " +
        std::to_string(kTtlsMax - 2) + ") SELECT i, 1000, 1000000000, 0, '' FROM n";
    ASSERT_TRUE(database->Execute(fill).ok());
  }
  Reopen();
  EXPECT_EQ(state->Summary().ttls, kTtlsMax - 1);
  EXPECT_NE(Grant(1000), 0u) << "the last one";
  const StateSummary before = state->Summary();
  v1::Command command;
  command.mutable_grant_ttl()->set_ttl_ms(1000);
  const v1::Answer answer = Run(command);
  EXPECT_EQ(answer.code(), 8);
  EXPECT_EQ(answer.reason(), "TOO_MANY_TTLS");
  EXPECT_NE(answer.message().find("100000 time-to-lives"), std::string::npos) << answer.message();
  EXPECT_EQ(answer.results_size(), 0);
  EXPECT_EQ(state->Summary().ttls, kTtlsMax);
  EXPECT_EQ(state->Summary().revision, before.revision);
  EXPECT_EQ(PutBound("k", "v", first).code(), 0) << "those that are there serve on";
  EXPECT_EQ(Revoke(first).code(), 0);
  EXPECT_NE(Grant(1000), 0u) << "there is room again";
}

TEST_F(StateTtl, MalformedCommands) {
  Begin();
  v1::Command none;
  none.mutable_grant_ttl();
  EXPECT_EQ(Run(none).reason(), "MALFORMED_COMMAND");
  v1::Command ages;
  ages.mutable_grant_ttl()->set_ttl_ms(kTtlMsHardMax + 1);
  EXPECT_EQ(Run(ages).reason(), "MALFORMED_COMMAND");
  v1::Command nobody;
  nobody.mutable_keep_alive_ttl();
  EXPECT_EQ(Run(nobody).reason(), "MALFORMED_COMMAND");
  v1::Command many, ends;
  for (int i = 0; i <= kTtlIdsPerCommandMax; ++i) {
    many.mutable_keep_alive_ttl()->add_ttl_id(1);
    ends.mutable_expire_ttl()->add_ttl_id(1);
  }
  EXPECT_EQ(Run(many).reason(), "MALFORMED_COMMAND");
  EXPECT_EQ(Run(ends).reason(), "MALFORMED_COMMAND");
  ExpectHashAddsUp();
}

TEST_F(StateTtl, DamageIsFound) {
  Begin();
  const uint64_t ttl = Grant(1000);
  PutBound("a", "1", ttl);
  state.reset();
  {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute("DELETE FROM ttl_key").ok());
  }
  const absl::Status opened = State::Open(options).status();
  EXPECT_TRUE(absl::IsDataLoss(opened)) << opened;
}

}  // namespace
}  // namespace quorate::storage::testing
