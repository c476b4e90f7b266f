// Client-given request ids: the rules on a table by itself, with small limits; then the state
// machine that uses one.
#include "storage/state_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage {
namespace {

using testing::PutCommand;
using testing::Script;
using testing::StateFixture;
using Verdict = RequestTable::Verdict;

v1::ClientRequest Request(const std::string& id, uint64_t revision, char hash = 'h') {
  v1::ClientRequest request;
  request.set_id(id);
  request.set_revision(revision);
  request.set_command_hash(std::string(kCommandHashBytes, hash));
  return request;
}

// A table and the store's revision and log time beside it.
class Table {
 public:
  explicit Table(const RequestLimits& limits) : table_(limits) {}

  Verdict Find(const v1::ClientRequest& request, const std::string& scope = "") {
    return table_.Find(scope, request, Revision(head)).verdict;
  }
  // One write that is new, as the state machine does it. False: no room.
  bool Write(const v1::ClientRequest& request, bool changes = true) {
    EXPECT_EQ(Find(request), Verdict::kNew) << request.id();
    const uint64_t after = head + (changes ? 1 : 0);
    const bool kept = table_.Keep("", request, Revision(head), Revision(after), now_ms,
                                  std::make_shared<const std::string>(answer), v1::Answer());
    head = after;
    return kept;
  }
  RequestTable& operator*() { return table_; }
  RequestTable* operator->() { return &table_; }

  uint64_t head = 1;
  uint64_t now_ms = 0;
  std::string answer;

 private:
  RequestTable table_;
};

RequestLimits Small(uint64_t ids, uint64_t age_ms = 1000) {
  RequestLimits limits;
  limits.ids_max = ids;
  limits.age_max_ms = age_ms;
  return limits;
}

TEST(RequestTable, ARepeatIsKnownAndAnotherWriteUnderItsIdIsTold) {
  Table table(Small(10));
  EXPECT_TRUE(table.Write(Request("r", 1)));
  EXPECT_EQ(table.Find(Request("r", 1)), Verdict::kRepeat);
  EXPECT_EQ(table.Find(Request("r", 2)), Verdict::kRepeat);
  EXPECT_EQ(table.Find(Request("r", 1, 'x')), Verdict::kOther);
  EXPECT_EQ(table.Find(Request("r", 1), "somebody else"), Verdict::kNew);
}

TEST(RequestTable, ScopeAndIdDoNotRunTogether) {
  Table table(Small(10));
  ASSERT_TRUE(table->Keep("ab", Request("c", 1), Revision(1), Revision(2), 0,
                          std::make_shared<const std::string>(), v1::Answer()));
  table.head = 2;
  EXPECT_EQ(table.Find(Request("c", 1), "ab"), Verdict::kRepeat);
  EXPECT_EQ(table.Find(Request("bc", 1), "a"), Verdict::kNew);
  EXPECT_EQ(table.Find(Request("abc", 1), ""), Verdict::kNew);
}

TEST(RequestTable, WhatWasForgottenIsRefusedToThoseWhoSawNothingSince) {
  Table table(Small(2));
  table.Write(Request("a", 1));  // finds the store at 1
  table.Write(Request("b", 2));
  table.Write(Request("c", 3));  // `a` goes
  EXPECT_EQ(table->expired_through(), Revision(1));
  EXPECT_EQ(table.Find(Request("a", 1)), Verdict::kExpired);
  EXPECT_EQ(table.Find(Request("new", 1)), Verdict::kExpired) << "it may have been forgotten";
  EXPECT_EQ(table.Find(Request("new", 2)), Verdict::kNew);
  EXPECT_EQ(table.Find(Request("b", 1)), Verdict::kRepeat) << "a known id is never expired";
}

TEST(RequestTable, OldIdsGoByLogTimeAFewWithEachEntry) {
  RequestLimits limits = Small(100, 1000);
  limits.forgotten_per_entry_max = 2;
  Table table(limits);
  for (int i = 0; i < 5; ++i) table.Write(Request("r" + std::to_string(i), 1));
  table.now_ms = 1000;
  table->Forget(table.now_ms, Revision(table.head));
  EXPECT_EQ(table->size(), 5u) << "not before their time is over";
  table.now_ms = 1001;
  table->Forget(table.now_ms, Revision(table.head));
  EXPECT_EQ(table->size(), 3u);
  table->Forget(table.now_ms, Revision(table.head));
  table->Forget(table.now_ms, Revision(table.head));
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(table->expired_through(), Revision(5));
  EXPECT_EQ(table.Find(Request("new", table.head)), Verdict::kNew);
}

// A store that nobody changes: whoever has seen its latest revision must always be able to write.
TEST(RequestTable, WhatIsAtTheLatestRevisionStays) {
  Table table(Small(3, 1000));
  table.Write(Request("a", 1));
  table.Write(Request("nothing", 2), /*changes=*/false);
  table.now_ms = 1'000'000;
  table->Forget(table.now_ms, Revision(table.head));
  EXPECT_EQ(table->size(), 1u);
  EXPECT_EQ(table.Find(Request("nothing", 2)), Verdict::kRepeat);
  EXPECT_EQ(table.Find(Request("new", 2)), Verdict::kNew);
}

TEST(RequestTable, FullOfWhatChangedNothingOnlyAChangeMakesRoom) {
  Table table(Small(2));
  EXPECT_TRUE(table.Write(Request("a", 1), false));
  EXPECT_TRUE(table.Write(Request("b", 1), false));
  EXPECT_FALSE(table.Write(Request("c", 1), false));
  EXPECT_EQ(table.Find(Request("c", 1)), Verdict::kNew) << "it may be sent again";
  EXPECT_EQ(table.Find(Request("a", 1)), Verdict::kRepeat);
  EXPECT_TRUE(table.Write(Request("d", 1), true));
  EXPECT_EQ(table.Find(Request("a", 1)), Verdict::kExpired);
  EXPECT_EQ(table.Find(Request("c", 1)), Verdict::kExpired);
  EXPECT_EQ(table.Find(Request("c", 2)), Verdict::kNew);
}

TEST(RequestTable, LargeAnswersPushOthersOut) {
  RequestLimits limits = Small(100);
  limits.bytes_max = 1000;
  Table table(limits);
  table.answer = std::string(400, 'x');
  table.Write(Request("a", 1));
  table.Write(Request("b", 2));
  table.Write(Request("c", 3));
  EXPECT_EQ(table->size(), 2u);
  EXPECT_LE(table->bytes(), 1000u);
  table.answer = std::string(5000, 'x');
  EXPECT_TRUE(table.Write(Request("huge", 4)));
  EXPECT_EQ(table->size(), 1u);
  EXPECT_EQ(table.Find(Request("huge", 4)), Verdict::kRepeat);
}

// Two builds may word an answer differently, and must still forget the same ids.
TEST(RequestTable, HowAnAnswerIsWordedChangesNothing) {
  RequestLimits limits = Small(100);
  limits.bytes_max = 1000;
  RequestTable terse(limits);
  RequestTable wordy(limits);
  for (uint64_t i = 1; i <= 50; ++i) {
    v1::Answer answer;
    answer.set_code(10);
    answer.set_reason("REVISION_MISMATCH");
    const auto keep = [&](RequestTable& table, const std::string& message) {
      answer.set_message(message);
      EXPECT_TRUE(table.Keep("", Request(std::to_string(i), i), Revision(i), Revision(i + 1), i,
                             std::make_shared<const std::string>(answer.SerializeAsString()),
                             answer));
    };
    keep(terse, i % 2 == 0 ? "" : "no");
    keep(wordy, std::string(300, 'w'));
  }
  EXPECT_LT(terse.size(), 50u);
  EXPECT_EQ(terse.size(), wordy.size());
  EXPECT_EQ(terse.bytes(), wordy.bytes());
  EXPECT_EQ(terse.expired_through(), wordy.expired_through());
}

TEST(RequestTable, NonsenseIsTold) {
  Table table(Small(2));
  EXPECT_EQ(table.Find(Request("r", 2)), Verdict::kInFuture);
  EXPECT_EQ(table.Find(Request("", 1)), Verdict::kMalformed);
  EXPECT_EQ(table.Find(Request("r", 0)), Verdict::kMalformed);
  EXPECT_EQ(table.Find(Request(std::string(129, 'r'), 1)), Verdict::kMalformed);
  v1::ClientRequest request = Request("r", 1);
  request.set_command_hash("short");
  EXPECT_EQ(table.Find(request), Verdict::kMalformed);
}

// Whatever the order of clients' sends and repeats, nothing is executed twice, and who has seen the
// latest revision is never told that its id has expired.
TEST(RequestTable, RandomHistoriesExecuteNothingTwice) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    RequestLimits limits = Small(1 + random() % 6, random() % 50);
    limits.forgotten_per_entry_max = 1 + random() % 3;
    Table table(limits);
    std::map<std::string, uint64_t> sent;  // id to request revision
    std::set<std::string> executed;
    for (int step = 0; step < 300; ++step) {
      table.now_ms += random() % 5;
      table->Forget(table.now_ms, Revision(table.head));
      const bool again = !sent.empty() && random() % 2 == 0;
      std::string id = "r" + std::to_string(step);
      if (again) id = std::next(sent.begin(), static_cast<long>(random() % sent.size()))->first;
      // A new client has seen some revision, the latest at best.
      const uint64_t seen = table.head - std::min(table.head - 1, random() % 4);
      if (!again) sent[id] = seen;
      const v1::ClientRequest request = Request(id, sent[id]);
      const Verdict verdict = table.Find(request);
      if (!again && seen == table.head) {
        ASSERT_EQ(verdict, Verdict::kNew) << "seed " << seed;
      }
      if (verdict != Verdict::kNew) continue;
      ASSERT_FALSE(executed.contains(id)) << "seed " << seed << ": executed twice";
      const bool changes = random() % 3 != 0;
      if (table.Write(request, changes)) executed.insert(id);
      if (changes) {
        ASSERT_TRUE(executed.contains(id)) << "seed " << seed << ": changed and not kept";
      }
      ASSERT_LE(table->size(), limits.ids_max);
    }
  }
}

// --- The state machine ---

class RequestIds : public StateFixture {
 protected:
  v1::Command Named(v1::Command command, const std::string& id, uint64_t revision,
                    char hash = 'h') {
    *command.mutable_client_request() = Request(id, revision, hash);
    return command;
  }
  v1::Answer Named(const std::string& id, uint64_t revision, const std::string& key = "k") {
    return Run(Named(PutCommand(key, "value of " + id), id, revision));
  }
  // The next entry's log time is 10 ms later; this moves it far ahead.
  void PassMinutes(uint64_t minutes) {
    auto entry = std::make_shared<raft::Entry>(*script.Noop());
    script.Take();
    entry->log_time_ms += minutes * 60 * 1000;
    ASSERT_TRUE(state->Apply({entry}).ok());
  }
};

TEST_F(RequestIds, ARepeatGetsTheFirstAnswerAndChangesNothing) {
  Begin();
  const v1::Answer first = Named("r", 1);
  EXPECT_EQ(first.revision(), 2u);
  Put("k", "another");
  const v1::Answer again = Named("r", 1);
  EXPECT_EQ(again.SerializeAsString(), first.SerializeAsString());
  EXPECT_EQ(Show("k"), "k=another@3 v2");
  EXPECT_EQ(state->Summary().revision, Revision(3));
  EXPECT_EQ(state->Summary().request_ids, 1u);
  ExpectHashAddsUp();
}

TEST_F(RequestIds, AnotherIngressKnowsItToo) {
  Begin();
  Named("r", 1);
  script.Open(0xa2);
  v1::Command command = Named(PutCommand("k", "value of r"), "r", 1);
  *command.mutable_session() = Script::Position(1, 0, 0xa2);
  script.Raw(command);
  const std::vector<Applied> outcomes = ApplyAll();
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(testing::Parse(outcomes[1].answer).revision(), 2u);
  EXPECT_EQ(Show("k"), "k=value of r@2 v1");
}

TEST_F(RequestIds, WhatWasRefusedStaysRefused) {
  Begin();
  v1::Command absent = PutCommand("k", "mine");
  testing::AddCompare(absent, "k")->set_mod_revision(0);
  absent.mutable_transaction()->set_abort_on_false(true);
  Put("k", "theirs");
  EXPECT_EQ(Run(Named(absent, "r", 1)).reason(), "REVISION_MISMATCH");
  Delete("k");
  const v1::Answer again = Run(Named(absent, "r", 1));
  EXPECT_EQ(again.reason(), "REVISION_MISMATCH");
  EXPECT_EQ(again.metadata().at("current_revision"), "2");
  EXPECT_EQ(Show("k"), "NOT_FOUND");
}

TEST_F(RequestIds, AuthorsHaveIdsOfTheirOwn) {
  Begin();
  v1::Command command = Named(PutCommand("k", "1"), "r", 1, 'a');
  command.set_author("ann");
  Run(command);
  command = Named(PutCommand("k", "2"), "r", 1, 'b');
  command.set_author("bob");
  EXPECT_EQ(Run(command).code(), 0);
  EXPECT_EQ(Show("k"), "k=2@3 v2");
}

TEST_F(RequestIds, OutliveARestart) {
  Begin();
  const v1::Answer first = Named("r", 1);
  Named("s", 1, "other");
  ExpectHashAddsUp();
  const StateSummary before = state->Summary();
  Reopen();
  EXPECT_EQ(state->Summary().hash, before.hash);
  EXPECT_EQ(state->Summary().request_ids, 2u);
  EXPECT_EQ(Named("r", 1).SerializeAsString(), first.SerializeAsString());
  ExpectHashAddsUp();
}

TEST_F(RequestIds, ExpireAfterTenMinutesOfLogTimeAndThenAreRefused) {
  Begin();
  Named("r", 1);
  Put("k", "later");
  PassMinutes(11);
  Put("k", "later still");
  EXPECT_EQ(state->Summary().request_ids, 0u);
  EXPECT_EQ(state->Summary().request_ids_expired_through, Revision(1));
  const v1::Answer late = Named("r", 1);
  EXPECT_EQ(late.code(), 9);
  EXPECT_EQ(late.reason(), "REQUEST_ID_EXPIRED");
  EXPECT_EQ(late.metadata().at("field"), "request_revision");
  EXPECT_EQ(Show("k"), "k=later still@4 v3");
  ExpectHashAddsUp();
  Reopen();
  EXPECT_EQ(Named("r", 1).reason(), "REQUEST_ID_EXPIRED") << "also after a restart";
  EXPECT_EQ(Named("new", 2).code(), 0);
  ExpectHashAddsUp();
}

TEST_F(RequestIds, ManyIdsComeAndGoInChunksThatMatchTheHash) {
  Begin();
  for (int i = 0; i < 300; ++i) {
    script.Do(Named(PutCommand("k", "v"), "r" + std::to_string(i), 1 + static_cast<uint64_t>(i)));
    if (i % 7 == 0) ApplyAll();
  }
  ApplyAll();
  EXPECT_EQ(state->Summary().request_ids, 300u);
  PassMinutes(10);
  script.Noop();  // goes over: the first of the ids are ten minutes old
  ApplyAll();
  Put("k", "x");
  const uint64_t left = state->Summary().request_ids;
  EXPECT_GT(left, 0u);
  EXPECT_LT(left, 300u);
  ExpectHashAddsUp();
  Reopen();
  EXPECT_EQ(state->Summary().request_ids, left);
  ExpectHashAddsUp();
}

// --- Errors ---

// The answers of transactions that only read fill the table to some bytes; none of them may go,
// since the store has not changed since the first.
TEST_F(RequestIds, WhatCannotBeKeptIsRefusedAndNotDone) {
  const auto read = [](const std::string& key) {
    v1::Command command;
    command.mutable_transaction()->add_then()->mutable_read()->set_key(key);
    return command;
  };
  constexpr size_t kLarge = 1 << 20, kIdBytes = 6, kLeft = 8;
  Begin();
  Put("large", std::string(kLarge, 'x'));
  const size_t answer_bytes = Run(read("large")).ByteSizeLong();
  const size_t count = RequestLimits().bytes_max / (answer_bytes + kIdBytes);
  const size_t rest = RequestLimits().bytes_max - count * (answer_bytes + kIdBytes);
  Put("other", std::string(rest - kIdBytes - (answer_bytes - kLarge) - kLeft, 'y'));
  for (size_t i = 0; i < count; ++i) {
    script.Do(Named(read("large"), "r" + std::to_string(100 + i), 3));
    if (i % 16 == 0) ApplyAll();
  }
  ApplyAll();
  EXPECT_EQ(Run(Named(read("other"), "r999", 3)).code(), 0);
  EXPECT_EQ(state->Summary().request_ids, count + 1);

  v1::Command grant;
  grant.mutable_grant_ttl()->set_ttl_ms(1000);
  for (const v1::Command& command : {read("other"), read("none"), grant}) {
    const v1::Answer answer = Run(Named(command, "full", 3));
    EXPECT_EQ(answer.code(), 8);
    EXPECT_EQ(answer.reason(), "REQUEST_IDS_FULL");
    EXPECT_EQ(answer.revision(), 3u);
    EXPECT_EQ(answer.results_size(), 0);
  }
  EXPECT_EQ(state->Summary().request_ids, count + 1);
  EXPECT_EQ(state->Summary().ttls, 0u) << "the grant was made all the same";
  ExpectHashAddsUp();
  EXPECT_EQ(Named("full", 3).code(), 0) << "what changes the store makes its own room";
  ExpectHashAddsUp();
}

TEST_F(RequestIds, TheSameIdForAnotherWriteIsRefused) {
  Begin();
  Named("r", 1);
  const v1::Answer other = Run(Named(PutCommand("k", "other"), "r", 1, 'x'));
  EXPECT_EQ(other.code(), 3);
  EXPECT_EQ(other.reason(), "REQUEST_ID_REUSED");
  EXPECT_EQ(other.metadata().at("field"), "request_id");
  EXPECT_EQ(Show("k"), "k=value of r@2 v1");
}

TEST_F(RequestIds, ARevisionThatTheStoreHasNotHadIsRefused) {
  Begin();
  const v1::Answer answer = Named("r", 2);
  EXPECT_EQ(answer.code(), 11);
  EXPECT_EQ(answer.reason(), "REVISION_IN_FUTURE");
  EXPECT_EQ(state->Summary().request_ids, 0u) << "a refusal that may change is not kept";
  EXPECT_EQ(Named("r", 1).code(), 0);
}

TEST_F(RequestIds, AMalformedOneIsRefusedByAllNodesAlike) {
  Begin();
  v1::Command command = PutCommand("k", "v");
  command.mutable_client_request()->set_id("r");
  EXPECT_EQ(Run(command).reason(), "MALFORMED_COMMAND");
  EXPECT_EQ(Show("k"), "NOT_FOUND");
}

class DamagedRequestIds : public RequestIds {
 protected:
  void ExpectDamage(const std::string& sql) {
    Begin();
    Named("r", 1);
    Named("s", 1);
    state.reset();
    {
      absl::StatusOr<Database> writer = OpenStateWriter(options);
      ASSERT_TRUE(writer.ok()) << writer.status();
      ASSERT_TRUE(writer->Execute(sql).ok());
    }
    const absl::Status opened = State::Open(options).status();
    EXPECT_EQ(opened.code(), absl::StatusCode::kDataLoss) << opened;
  }
};

TEST_F(DamagedRequestIds, Unreadable) { ExpectDamage("UPDATE request_ids SET requests = x'ff'"); }
TEST_F(DamagedRequestIds, Empty) { ExpectDamage("UPDATE request_ids SET requests = x''"); }
TEST_F(DamagedRequestIds, AHole) { ExpectDamage("DELETE FROM request_ids WHERE first = 1"); }
TEST_F(DamagedRequestIds, Twice) {
  ExpectDamage("INSERT INTO request_ids SELECT 3, requests FROM request_ids WHERE first = 1");
}

}  // namespace
}  // namespace quorate::storage
