// What the state machine hands over as it applies, and that history says the same later.
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

class StateChangesTest : public StateFixture {
 protected:
  static std::string Text(const Change& change) {
    std::string text = std::to_string(change.revision.value());
    if (change.sub > 0) text += "+" + std::to_string(change.sub);
    text += change.deleted ? " del " : change.created() ? " new " : " put ";
    text += change.key;
    if (!change.deleted) {
      text += "=" + change.value + " v" + std::to_string(change.version) + " c" +
              std::to_string(change.create_revision.value());
    }
    if (change.previous) {
      text += " was " + change.previous->value + "@" +
              std::to_string(change.previous->mod_revision.value()) + " v" +
              std::to_string(change.previous->version);
    }
    return text;
  }
  // What the last entries handed over, one text for each revision.
  std::vector<std::string> Collected() {
    std::vector<std::string> texts;
    for (const Applied& applied : ApplyAll()) {
      if (applied.changes == nullptr) continue;
      EXPECT_FALSE(applied.changes->changes.empty());
      for (const Change& change : applied.changes->changes) {
        EXPECT_EQ(change.revision, applied.changes->revision);
        texts.push_back(Text(change));
      }
    }
    return texts;
  }
  static ChangesQuery Query(uint64_t revision, std::string prefix = "") {
    ChangesQuery query;
    query.from = {Revision(revision), 0};
    query.filter.text = std::move(prefix);
    query.with_previous = true;
    return query;
  }
  std::vector<std::string> Read(ChangesQuery query) {
    std::vector<std::string> texts;
    for (int portions = 0;; ++portions) {
      EXPECT_LT(portions, 100);
      absl::StatusOr<ChangesPage> page = state->Changes(query);
      if (!page.ok()) return {absl::StatusCodeToString(page.status().code())};
      for (const Change& change : page->changes) texts.push_back(Text(change));
      EXPECT_GT(page->end, query.from);
      if (page->end == ChangePosition{page->revision + 1, 0}) return texts;
      query.from = page->end;
    }
  }
  // Some of everything.
  void Write() {
    script.Put("a", "1");
    script.Put("b", "1");
    script.Put("a", "2");
    script.Delete("a");
    script.Delete("nothing");
    v1::Command several;
    AddPut(several, "a", "3", v1::VALUE_KIND_DATA);
    AddPut(several, "b", "2");
    AddPut(several, "a", "4");
    AddDelete(several, "b");
    script.Do(std::move(several));
    script.Delete("a", "c");
  }
};

const std::vector<std::string> kAll = {"2 new a=1 v1 c2",
                                       "3 new b=1 v1 c3",
                                       "4 put a=2 v2 c2 was 1@2 v1",
                                       "5 del a was 2@4 v2",
                                       "6 new a=3 v1 c6",
                                       "6+1 put b=2 v2 c3 was 1@3 v1",
                                       "6+2 put a=4 v2 c6 was 3@6 v1",
                                       "6+3 del b was 2@6 v2",
                                       "7 del a was 4@6 v2"};

TEST_F(StateChangesTest, HandsOverEachChangeOfABatch) {
  Begin();
  state->CollectChanges(Collect::kPrevious);
  Write();
  EXPECT_EQ(Collected(), kAll);
}

TEST_F(StateChangesTest, HistorySaysTheSame) {
  Begin();
  Write();
  ApplyAll();
  EXPECT_EQ(Read(Query(2)), kAll);
}

TEST_F(StateChangesTest, WithoutWhatWasThereBefore) {
  Begin();
  state->CollectChanges(Collect::kChanges);
  script.Put("a", "1");
  script.Put("a", "2");
  const std::vector<std::string> bare = {"2 new a=1 v1 c2", "3 put a=2 v2 c2"};
  EXPECT_EQ(Collected(), bare);
  ChangesQuery query = Query(2);
  query.with_previous = false;
  EXPECT_EQ(Read(query), bare);
}

TEST_F(StateChangesTest, NothingIsHandedOverUnasked) {
  Begin();
  Write();
  EXPECT_THAT(Collected(), ::testing::IsEmpty());
  state->CollectChanges(Collect::kChanges);
  script.Put("z", "1");
  EXPECT_EQ(Collected().size(), 1u);
  state->CollectChanges(Collect::kNothing);
  script.Put("z", "2");
  EXPECT_THAT(Collected(), ::testing::IsEmpty());
}

TEST_F(StateChangesTest, ARepeatedCommandChangesNothingAgain) {
  Begin();
  state->CollectChanges(Collect::kChanges);
  v1::Command command = PutCommand("a", "1");
  *command.mutable_session() = Script::Position(1, 0);
  script.Raw(command);
  script.Raw(command);
  const std::vector<Applied> applied = ApplyAll();
  ASSERT_EQ(applied.size(), 2u);
  EXPECT_NE(applied[0].changes, nullptr);
  EXPECT_TRUE(applied[1].duplicate);
  EXPECT_EQ(applied[1].changes, nullptr);
}

// A batch that changes more than is kept hands over what comes before, and goes on after it.
TEST_F(StateChangesTest, TooMuchOfABatchIsLeftToHistory) {
  Begin();
  state->CollectChanges(Collect::kPrevious);
  const std::string large(5u << 20, 'x');
  script.Put("a/1", large);
  script.Put("a/2", large);
  script.Put("a/3", large);
  script.Delete("a/", "a0");  // 15 MiB of what was there
  script.Put("b", "1");
  std::vector<uint64_t> revisions;
  for (const Applied& applied : ApplyAll()) {
    if (applied.changes != nullptr) revisions.push_back(applied.changes->revision.value());
  }
  EXPECT_THAT(revisions, ::testing::ElementsAre(2, 3, 4, 6));
  ChangesQuery query = Query(5);
  query.bytes_max = 1;
  EXPECT_EQ(Read(query).size(), 4u);
}

TEST_F(StateChangesTest, PortionsMayEndInTheMiddleOfARevision) {
  Begin();
  Write();
  ApplyAll();
  for (size_t rows : {1, 2, 3, 4, 5}) {
    ChangesQuery query = Query(2);
    query.rows_max = rows;
    EXPECT_EQ(Read(query), kAll) << rows;
  }
  ChangesQuery query = Query(2);
  query.bytes_max = 1;
  EXPECT_EQ(Read(query), kAll);
  query.rows_max = 6;
  query.bytes_max = 1u << 20;
  const absl::StatusOr<ChangesPage> page = state->Changes(query);
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->end, (ChangePosition{Revision(6), 2}));
}

TEST_F(StateChangesTest, FiltersByKeyAndPrefix) {
  Begin();
  script.Put("a", "1");
  script.Put("a/1", "1");
  script.Put("ab", "1");
  script.Put("b", "1");
  ApplyAll();
  EXPECT_EQ(Read(Query(2, "a/")), std::vector<std::string>{"3 new a/1=1 v1 c3"});
  EXPECT_EQ(Read(Query(2, "a")).size(), 3u);
  ChangesQuery query = Query(2, "a");
  query.filter.is_prefix = false;
  EXPECT_EQ(Read(query), std::vector<std::string>{"2 new a=1 v1 c2"});
}

// What is left begins whole: also what was there before the first change of it, and keys that had
// been deleted in what is gone.
TEST_F(StateChangesTest, AfterACompactionTheRestIsWhole) {
  Begin();
  script.Put("a", "1");
  script.Put("b", "1");
  script.Put("b", "2");
  script.Delete("a");
  script.Put("a", "3");
  script.Put("b", "3");
  script.Delete("b");
  v1::Command compact;
  compact.set_format(2);
  compact.mutable_compact_history()->set_revision(5);
  compact.mutable_compact_history()->set_rows_max(1000);
  compact.mutable_compact_history()->set_bytes_max(1u << 20);
  script.Do(std::move(compact));
  ApplyAll();
  ASSERT_EQ(state->Summary().compacted.value(), 5u);
  EXPECT_THAT(Read(Query(6)),
              ::testing::ElementsAre("6 new a=3 v1 c6", "7 put b=3 v3 c3 was 2@4 v2",
                                     "8 del b was 3@7 v3"));
  EXPECT_EQ(Read(Query(5)), std::vector<std::string>{"OUT_OF_RANGE"});
}

// --- Errors ---

TEST_F(StateChangesTest, BeyondTheEndThereIsNothing) {
  Begin();
  Put("a", "1");
  for (const uint64_t from : {uint64_t{3}, uint64_t{1000}, ~uint64_t{0} - 1}) {
    const absl::StatusOr<ChangesPage> page = state->Changes(Query(from));
    ASSERT_TRUE(page.ok()) << from;
    EXPECT_TRUE(page->changes.empty());
    EXPECT_EQ(page->end, (ChangePosition{Revision(from), 0}));
  }
}

TEST_F(StateChangesTest, RevisionZeroIsCompacted) {
  Begin();
  EXPECT_EQ(Read(Query(0)), std::vector<std::string>{"OUT_OF_RANGE"});
}

}  // namespace
}  // namespace quorate::storage::testing
