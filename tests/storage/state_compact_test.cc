// Compaction of history: what goes, what stays, and that all nodes agree on it.
#include "storage/state_compact.h"

#include <map>
#include <random>

#include "storage/command_check.h"
#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::Command CompactCommand(uint64_t revision, uint64_t rows = 1000, uint64_t bytes = 1u << 20) {
  v1::Command command;
  command.set_format(2);
  command.mutable_compact_history()->set_revision(revision);
  command.mutable_compact_history()->set_rows_max(rows);
  command.mutable_compact_history()->set_bytes_max(bytes);
  return command;
}

class StateCompact : public StateFixture {
 protected:
  void SetUp() override { Begin(); }

  v1::Answer Compact(uint64_t revision, uint64_t rows = 1000, uint64_t bytes = 1u << 20) {
    v1::Answer answer = Run(CompactCommand(revision, rows, bytes));
    ExpectHashAddsUp();
    return answer;
  }
  uint64_t Compacted() { return state->Summary().compacted.value(); }
  int64_t Rows(const std::string& table) {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadOnly);
    EXPECT_TRUE(database.ok()) << database.status();
    return *database->QueryInt("SELECT count(*) FROM " + table);
  }
};

TEST_F(StateCompact, DropsWhatLaterReadsDoNotNeed) {
  Put("a", "1");      // revision 2
  Put("b", "1");      // 3
  Put("a", "2");      // 4
  Delete("b");        // 5
  Put("a", "3");      // 6
  Put("c", "1");      // 7
  Put("b", "again");  // 8
  ASSERT_EQ(Rows("history"), 7);

  v1::Answer answer = Compact(5);
  EXPECT_EQ(answer.code(), 0);
  EXPECT_TRUE(answer.succeeded());
  EXPECT_EQ(answer.revision(), 8u) << "no change of the store";
  EXPECT_EQ(answer.metadata().at("compacted_revision"), "5");
  EXPECT_EQ(Compacted(), 5u);
  // a@4 is what a read at 6 - 1 would need: the latest of a living key stays. b's two are gone.
  EXPECT_EQ(Rows("history"), 4);
  EXPECT_THAT(ShowAll("", 6), ElementsAre("a=3@6 v3"));
  EXPECT_THAT(ShowAll("", 7), ElementsAre("a=3@6 v3", "c=1@7 v1"));
  EXPECT_THAT(ShowAll(), ElementsAre("a=3@6 v3", "b=again@8 v1", "c=1@7 v1"));
  EXPECT_EQ(Show("b", 7), "NOT_FOUND");
  EXPECT_EQ(Count("", 6), 1u);
  for (uint64_t at : {1, 4, 5}) EXPECT_EQ(Show("a", at), "OUT_OF_RANGE") << at;
  EXPECT_THAT(ShowAll("", 5), ElementsAre("OUT_OF_RANGE"));

  Compact(6);
  EXPECT_EQ(Rows("history"), 3) << "a@4 is not needed any more";
  Reopen();
  EXPECT_EQ(Compacted(), 6u);
  EXPECT_THAT(ShowAll("", 7), ElementsAre("a=3@6 v3", "c=1@7 v1"));
  ExpectHashAddsUp();
}

TEST_F(StateCompact, ADeletedKeyIsForgotten) {
  Put("a", "1");  // 2
  Put("b", "1");  // 3
  Delete("a");    // 4
  ASSERT_EQ(Rows("item"), 2);
  Compact(3);
  EXPECT_EQ(Rows("item"), 2) << "reads at 4 must find that it is deleted";
  EXPECT_EQ(Show("a", 4), "NOT_FOUND");
  Compact(4);
  EXPECT_EQ(Rows("item"), 1);
  EXPECT_EQ(Rows("history"), 1);
  Put("a", "new");  // 5
  EXPECT_EQ(Show("a"), "a=new@5 v1");
  ExpectHashAddsUp();
  Compact(5);
  EXPECT_EQ(Rows("history"), 2);
}

// Everything up to the latest revision: what is there now can still be read, also by its revision.
TEST_F(StateCompact, ToTheLatestRevision) {
  for (int i = 0; i < 5; ++i) Put("a", std::to_string(i));
  Delete("a");
  Put("b", "1");  // 8
  Compact(8);
  EXPECT_EQ(Rows("history"), 1);
  EXPECT_THAT(ShowAll(), ElementsAre("b=1@8 v1"));
  EXPECT_THAT(ShowAll("", 8), ElementsAre("b=1@8 v1")) << "a page token of now";
  EXPECT_EQ(Show("b", 8), "b=1@8 v1");
  EXPECT_EQ(Show("b", 7), "OUT_OF_RANGE");
  Put("b", "2");
  EXPECT_EQ(Show("b", 8), "OUT_OF_RANGE");
}

TEST_F(StateCompact, OneCommandDoesAPieceOfWholeRevisions) {
  for (int i = 0; i < 50; ++i) Put("a", std::to_string(i));  // revisions 2 to 51
  v1::Command many;
  for (int i = 0; i < 400; ++i) AddPut(many, "m" + std::to_string(i), "x");
  Run(many);  // 52
  Run(many);  // 53
  v1::Answer answer = Compact(53, 10);
  EXPECT_FALSE(answer.succeeded());
  EXPECT_EQ(answer.metadata().at("compacted_revision"), "11");
  EXPECT_EQ(Rows("history"), 850 - 9);
  EXPECT_THAT(ShowAll("a", 12), ElementsAre("a=10@12 v11"));
  answer = Compact(53, 41);
  EXPECT_EQ(answer.metadata().at("compacted_revision"), "52") << "a revision is not torn";
  answer = Compact(53, 1);
  EXPECT_TRUE(answer.succeeded()) << "one revision at least";
  EXPECT_EQ(Rows("history"), 401);
  EXPECT_EQ(Count(""), 401u);
}

TEST_F(StateCompact, ByBytesAsWell) {
  for (int i = 0; i < 20; ++i) Put("a", std::string(1000, 'x'));  // 2 to 21
  v1::Answer answer = Compact(20, 1000, 3000);
  EXPECT_EQ(answer.metadata().at("compacted_revision"), "5") << "three predecessors";
  EXPECT_EQ(Rows("history"), 17);
}

TEST_F(StateCompact, CanBeAskedForTwice) {
  for (int i = 0; i < 9; ++i) Put("a", "x");
  Compact(7);
  const v1::Answer answer = Compact(4);
  EXPECT_EQ(answer.code(), 0);
  EXPECT_TRUE(answer.succeeded());
  EXPECT_EQ(answer.metadata().at("compacted_revision"), "7");
  EXPECT_EQ(Compacted(), 7u);
}

// A model keeps every state; after any compaction every read that is still allowed shows it.
TEST_F(StateCompact, ShowsWhatAModelShows) {
  std::mt19937 random(11);
  std::map<uint64_t, std::map<std::string, std::string>> at;
  std::map<std::string, std::string> now;
  for (int step = 0; step < 400; ++step) {
    const std::string key(1, static_cast<char>('a' + random() % 8));
    v1::Command command;
    for (int n = 0; n < 3; ++n) {
      const std::string other(1, static_cast<char>('a' + random() % 8));
      if (random() % 3 == 0) {
        AddDelete(command, other);
        now.erase(other);
      } else {
        AddPut(command, other, std::to_string(step));
        now[other] = std::to_string(step);
      }
    }
    if (random() % 20 == 0) {
      AddDelete(command, "c", "f");
      now.erase(now.lower_bound("c"), now.lower_bound("f"));
    }
    Run(command);
    at[state->Summary().revision.value()] = now;
    if (random() % 10 != 0) continue;
    const uint64_t head = state->Summary().revision.value();
    Compact(1 + random() % head, 1 + random() % 60);
    for (uint64_t revision = Compacted() + 1; revision <= head; ++revision) {
      ListQuery query;
      query.at = Revision(revision);
      absl::StatusOr<ListPage> page = state->List(query);
      ASSERT_TRUE(page.ok()) << page.status() << " at " << revision;
      std::map<std::string, std::string> shown;
      for (const Item& item : page->items) shown[item.key] = item.value;
      ASSERT_EQ(shown, at.contains(revision) ? at[revision] : decltype(shown)()) << revision;
      ASSERT_EQ(Count("", revision), shown.size());
    }
  }
  EXPECT_GT(Compacted(), 100u);
  EXPECT_LT(Rows("history"), 3 * 400);
}

// However the entries come in batches, and over starts: the same rows.
TEST_F(StateCompact, AllNodesDropTheSame) {
  for (int i = 0; i < 300; ++i) {
    script.Put("k" + std::to_string(i % 7), std::to_string(i));
    if (i % 11 == 0) script.Delete("k" + std::to_string(i % 5));
    if (i % 50 == 49) script.Do(CompactCommand(static_cast<uint64_t>(i) - 10, 25));
  }
  const std::vector<raft::EntryPtr> entries = script.Take();
  Directory elsewhere;
  StateOptions other = options;
  other.directory = elsewhere.path();
  absl::StatusOr<std::unique_ptr<State>> twin = State::Create(other);
  ASSERT_TRUE(twin.ok()) << twin.status();
  Script begin;
  begin.Begin();
  ASSERT_TRUE((*twin)->Apply(begin.Take()).ok());
  ASSERT_TRUE(state->Apply(entries).ok());
  for (const raft::EntryPtr& entry : entries) ASSERT_TRUE((*twin)->Apply({entry}).ok());
  EXPECT_GT(Compacted(), 100u);
  EXPECT_EQ((*twin)->Summary().hash, state->Summary().hash);
  ExpectHashAddsUp();
}

TEST_F(StateCompact, SpaceGoesBackALittleAtATime) {
  for (int i = 0; i < 600; ++i) script.Put("a", std::string(8000, 'x'));
  ApplyAll();
  ASSERT_EQ(*state->Checkpoint(), true);
  const uint64_t before = std::filesystem::file_size(StatePath(directory.path(), 1));
  for (int i = 0; i < 20; ++i) Compact(600, 40, 1u << 30);
  ASSERT_EQ(*state->Checkpoint(), true);
  EXPECT_LT(std::filesystem::file_size(StatePath(directory.path(), 1)), before / 2);
  EXPECT_EQ(Count(""), 1u);
}

// --- Errors ---

TEST_F(StateCompact, WhatCannotBeDoneIsAnsweredAndChangesNothing) {
  Put("a", "1");
  const StateSummary before = state->Summary();
  v1::Answer answer = Compact(3);
  EXPECT_EQ(answer.code(), 11);
  EXPECT_EQ(answer.reason(), "REVISION_IN_FUTURE");
  EXPECT_EQ(answer.metadata().at("current_revision"), "2");
  for (const v1::Command& wrong :
       {CompactCommand(0), CompactCommand(2, 0), CompactCommand(2, 5, 0)}) {
    answer = Run(wrong);
    EXPECT_EQ(answer.code(), 3);
    EXPECT_EQ(answer.reason(), "MALFORMED_COMMAND");
  }
  EXPECT_EQ(state->Summary().compacted, before.compacted);
  EXPECT_EQ(Rows("history"), 1);
}

TEST_F(StateCompact, ACommandWithFieldsOfANewerBuildIsNotTaken) {
  v1::Command command = CompactCommand(1);
  EXPECT_TRUE(CheckCommand(command.SerializeAsString()).ok());
  command.mutable_compact_history()
      ->GetReflection()
      ->MutableUnknownFields(command.mutable_compact_history())
      ->AddVarint(99, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckCommand(command.SerializeAsString())));
}

// A row that must be there and is not: damage is not compacted away.
TEST_F(StateCompact, AMissingRowEndsTheNode) {
  for (int i = 0; i < 5; ++i) Put("a", "x");
  {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database->Execute("DELETE FROM history WHERE version = 2").ok());
  }
  script.Do(CompactCommand(5));
  const absl::Status status = state->Apply(script.Take()).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("is gone"));
}

}  // namespace
}  // namespace quorate::storage::testing
