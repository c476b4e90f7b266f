// The past: a key's history page by page, and rolling back to a revision.
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StatePast : public StateFixture {
 protected:
  // "value@revision v2 (note)", newest first.
  std::vector<std::string> History(const HistoryQuery& query) {
    absl::StatusOr<HistoryPage> page = state->History(query);
    if (!page.ok()) return {absl::StatusCodeToString(page.status().code())};
    more_ = page->more;
    std::vector<std::string> texts;
    for (const HistoryItem& change : page->items) {
      EXPECT_EQ(change.item.key, query.key);
      texts.push_back((change.deleted ? "deleted" : change.item.value) + "@" +
                      ToString(change.item.mod_revision) + " v" +
                      std::to_string(change.item.version) +
                      (change.note.empty() ? "" : " (" + change.note + ")"));
      place_ = change.place;
    }
    return texts;
  }
  static HistoryQuery Of(const std::string& key) {
    HistoryQuery query;
    query.key = key;
    return query;
  }
  std::vector<std::string> History(const std::string& key) { return History(Of(key)); }
  static v1::Command To(uint64_t revision, std::string_view key, std::string_view end = {}) {
    v1::Command command;
    command.mutable_rollback()->set_key(std::string(key));
    command.mutable_rollback()->set_range_end(std::string(end));
    command.mutable_rollback()->set_to_revision(revision);
    return command;
  }

  bool more_ = false;
  uint64_t place_ = 0;
};

TEST_F(StatePast, HistoryIsEveryChangeNewestFirst) {
  Begin();
  Put("a", "1");
  v1::Command noted = PutCommand("a", "2");
  noted.set_note("why");
  Run(noted);
  Put("other", "x");
  Delete("a");
  Put("a", "3");
  EXPECT_THAT(History("a"), ElementsAre("3@6 v1", "deleted@5 v0", "2@3 v2 (why)", "1@2 v1"));
  EXPECT_FALSE(more_);
  HistoryQuery then = Of("a");
  then.at = Revision(4);
  EXPECT_THAT(History(then), ElementsAre("2@3 v2 (why)", "1@2 v1"));
  EXPECT_THAT(History("none"), IsEmpty());
}

// It was empty as soon as the key had come again (quorate-sim --sqlite --seed 1).
TEST_F(StatePast, WhatHadHappenedWhenAKeyWasDeletedStaysTheSame) {
  Begin();
  Put("a", "1");
  Delete("a");
  HistoryQuery then = Of("a");
  then.at = Revision(3);
  EXPECT_THAT(History(then), ElementsAre("deleted@3 v0", "1@2 v1"));
  Put("a", "2");
  EXPECT_THAT(History(then), ElementsAre("deleted@3 v0", "1@2 v1"));
  Delete("a");
  Put("a", "3");
  EXPECT_THAT(History(then), ElementsAre("deleted@3 v0", "1@2 v1"));
  then.at = Revision(5);
  EXPECT_THAT(History(then), ElementsAre("deleted@5 v0", "2@4 v1", "deleted@3 v0", "1@2 v1"));
}

TEST_F(StatePast, PagesDoNotMoveWhenChangesCome) {
  Begin();
  for (int i = 1; i <= 5; ++i) Put("a", std::to_string(i));
  HistoryQuery query = Of("a");
  query.items_max = 2;
  EXPECT_THAT(History(query), ElementsAre("5@6 v5", "4@5 v4"));
  EXPECT_TRUE(more_);
  Put("a", "6");
  query.before = place_;
  EXPECT_THAT(History(query), ElementsAre("3@4 v3", "2@3 v2"));
  EXPECT_TRUE(more_);
  query.before = place_;
  EXPECT_THAT(History(query), ElementsAre("1@2 v1"));
  EXPECT_FALSE(more_);
  query.before = 0;
  query.items_max = 1000;
  query.bytes_max = 1;
  EXPECT_THAT(History(query), ElementsAre("6@7 v6")) << "one at least";
  EXPECT_TRUE(more_);
}

TEST_F(StatePast, AKeyIsRolledBackAsANewVersion) {
  Begin();
  Put("a", "old");
  Put("a", "new");
  v1::Command command = To(2, "a");
  command.set_note("undo");
  const v1::Answer answer = Run(command);
  EXPECT_EQ(answer.revision(), 4u);
  EXPECT_EQ(answer.results(0).count(), 1u);
  EXPECT_THAT(History("a"), ElementsAre("old@4 v3 (undo)", "new@3 v2", "old@2 v1"));
  EXPECT_EQ(Run(To(2, "a")).revision(), 4u) << "it is like that already: no new revision";
  ExpectHashAddsUp();
}

TEST_F(StatePast, APrefixBecomesWhatItWasInOneRevision) {
  Begin();
  Put("p/changed", "1");     // 2
  Put("p/deleted", "1");     // 3
  Put("p/same", "1");        // 4
  Put("p/same again", "1");  // 5
  Put("q", "1");             // 6
  const uint64_t then = 6;
  Put("p/changed", "2");
  Delete("p/deleted");
  Put("p/new", "1");
  Put("p/new and gone", "1");
  Delete("p/new and gone");
  Put("p/same again", "2");
  Put("p/same again", "1");
  Put("q", "2");
  const std::vector<std::string> before = ShowAll("p/", then);
  const v1::Answer answer = Run(To(then, "p/", "p0"));
  EXPECT_EQ(answer.results(0).count(), 2u);
  EXPECT_EQ(answer.results(0).deleted(), 1u);
  EXPECT_EQ(answer.revision(), 15u);
  EXPECT_THAT(ShowAll("p/"), ElementsAre("p/changed=1@15 v3", "p/deleted=1@15 v1", "p/same=1@4 v1",
                                         "p/same again=1@13 v3"));
  EXPECT_EQ(Show("q"), "q=2@14 v2") << "not in the prefix";
  EXPECT_EQ(ShowAll("p/", then), before) << "the past itself stays";
  ExpectHashAddsUp();
}

TEST_F(StatePast, KindsComeBackToo) {
  Begin();
  v1::Command data;
  AddPut(data, "a", "x", v1::VALUE_KIND_DATA);
  Run(data);
  Put("a", "x");
  EXPECT_EQ(Run(To(2, "a")).results(0).count(), 1u);
  EXPECT_FALSE(state->Get("a", std::nullopt).first->is_text);
}

TEST_F(StatePast, ManyKeysInPortions) {
  Begin();
  v1::Command many;
  for (int i = 0; i < 700; ++i) AddPut(many, "n/" + std::to_string(1000 + i), "v");
  Run(many);
  const v1::Answer answer = Run(To(1, "", std::string(1, '\0')));
  EXPECT_EQ(answer.results(0).deleted(), 700u);
  EXPECT_EQ(Count(""), 0u);
  EXPECT_EQ(Run(To(2, "n/", "n0")).results(0).count(), 700u);
  EXPECT_EQ(Count("n/"), 700u);
  ExpectHashAddsUp();
}

TEST_F(StatePast, AfterACompactionTheRestIsThere) {
  Begin();
  Put("a", "1");  // 2
  Put("gone", "1");
  Delete("gone");  // 4
  Put("a", "2");   // 5
  Put("a", "3");   // 6
  Put("gone", "2");
  Put("a", "4");  // 8
  v1::Command compact;
  compact.mutable_compact_history()->set_revision(5);
  compact.mutable_compact_history()->set_rows_max(1000);
  compact.mutable_compact_history()->set_bytes_max(1 << 20);
  ASSERT_EQ(Run(compact).code(), 0);
  EXPECT_THAT(History("a"), ElementsAre("4@8 v4", "3@6 v3", "2@5 v2"));
  EXPECT_FALSE(more_);
  EXPECT_THAT(History("gone"), ElementsAre("2@7 v1"));
  HistoryQuery query = Of("a");
  query.items_max = 3;
  History(query);
  EXPECT_FALSE(more_) << "nothing is behind the last";
  query.before = place_;
  EXPECT_THAT(History(query), ElementsAre("OUT_OF_RANGE"));

  const v1::Answer refused = Run(To(5, "a"));
  EXPECT_EQ(refused.reason(), "REVISION_COMPACTED");
  EXPECT_EQ(refused.metadata().at("compacted_revision"), "5");
  const v1::Answer answer = Run(To(6, "", std::string(1, '\0')));
  EXPECT_EQ(answer.results(0).count(), 1u);
  EXPECT_EQ(answer.results(0).deleted(), 1u) << "its deletion before is compacted";
  EXPECT_THAT(ShowAll(), ElementsAre("a=3@9 v5"));
  ExpectHashAddsUp();
}

// --- Errors ---

TEST_F(StatePast, OnlyToWhereTheStoreHasBeen) {
  Begin();
  Put("a", "1");
  const v1::Answer answer = Run(To(3, "a"));
  EXPECT_EQ(answer.code(), 11);
  EXPECT_EQ(answer.reason(), "REVISION_IN_FUTURE");
  EXPECT_EQ(answer.metadata().at("current_revision"), "2");
  EXPECT_EQ(Run(To(0, "a")).reason(), "REVISION_COMPACTED");
  EXPECT_EQ(Run(To(1, "")).reason(), "MALFORMED_COMMAND");
  EXPECT_EQ(Show("a"), "a=1@2 v1");
  ExpectHashAddsUp();
}

TEST_F(StatePast, HistoryOfTheFutureIsOutOfRange) {
  Begin();
  Put("a", "1");
  HistoryQuery query = Of("a");
  query.at = Revision(3);
  EXPECT_THAT(History(query), ElementsAre("OUT_OF_RANGE"));
  query.at = std::nullopt;
  query.before = uint64_t{99} << 20;
  EXPECT_THAT(History(query), ElementsAre("OUT_OF_RANGE")) << "a place that is none";
}

}  // namespace
}  // namespace quorate::storage::testing
