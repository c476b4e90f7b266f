// Items as clients see them: puts, deletions, reads now and at a revision, transactions.
#include <sqlite3.h>

#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StateItems : public StateFixture {
 protected:
  // The rows of a key's history, newest first: "kind value@revision.sub v2".
  std::vector<std::string> History(std::string_view key) {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadOnly);
    EXPECT_TRUE(database.ok()) << database.status();
    absl::StatusOr<Statement> select = database->Prepare(
        "SELECT kind, value, row, version, author, note FROM history WHERE key = ?1"
        " ORDER BY row DESC");
    EXPECT_TRUE(select.ok()) << select.status();
    select->BindBytes(1, key);
    std::vector<std::string> rows;
    while (*select->Step()) {
      const char* kinds[] = {"?", "text", "data", "delete"};
      uint64_t row = select->Uint(2);
      rows.push_back(std::string(kinds[select->Int(0)]) + " " + std::string(select->Bytes(1)) +
                     "@" + std::to_string(row >> 20) + "." + std::to_string(row & 0xfffff) + " v" +
                     std::to_string(select->Int(3)) + " " + std::string(select->Bytes(4)) + "/" +
                     std::string(select->Bytes(5)));
    }
    return rows;
  }
};

TEST_F(StateItems, AnEmptyStoreIsAtRevisionOne) {
  Create();
  StateSummary summary = state->Summary();
  EXPECT_EQ(summary.applied, raft::Index(0));
  EXPECT_EQ(summary.revision, Revision(1));
  EXPECT_FALSE(summary.birth_complete);
  EXPECT_EQ(Show("a"), "NOT_FOUND");
  EXPECT_EQ(state->Get("a", std::nullopt).second, Revision(1));
  EXPECT_THAT(ShowAll(), IsEmpty());
  EXPECT_EQ(Count(""), 0u);
  ExpectHashAddsUp();
}

TEST_F(StateItems, EntriesThatAreNoCommandsChangeNoRevision) {
  Create();
  script.Members(MembersOf({1, 2, 3}));
  script.Noop();
  script.BirthComplete();
  EXPECT_THAT(ApplyAll(), IsEmpty());
  StateSummary summary = state->Summary();
  EXPECT_EQ(summary.applied, raft::Index(3));
  EXPECT_EQ(summary.applied_term, raft::Term(1));
  EXPECT_EQ(summary.revision, Revision(1));
  EXPECT_EQ(summary.membership, MembersOf({1, 2, 3}));
  EXPECT_EQ(summary.membership_index, raft::Index(1));
  EXPECT_EQ(summary.log_time_ms, 30u);
  EXPECT_TRUE(summary.birth_complete);
  ExpectHashAddsUp();
}

TEST_F(StateItems, PutsCountVersionsAndDeletionsEndThem) {
  Begin();
  v1::Answer answer = Put("a", "one");
  EXPECT_EQ(answer.code(), 0);
  EXPECT_TRUE(answer.succeeded());
  EXPECT_EQ(answer.revision(), 2u);
  ASSERT_EQ(answer.results_size(), 1);
  EXPECT_EQ(answer.results(0).create_revision(), 2u);
  EXPECT_EQ(answer.results(0).version(), 1u);
  EXPECT_EQ(Show("a"), "a=one@2 v1");

  // The same value again is a change too.
  answer = Put("a", "one");
  EXPECT_EQ(answer.revision(), 3u);
  EXPECT_EQ(answer.results(0).create_revision(), 2u);
  EXPECT_EQ(answer.results(0).version(), 2u);

  answer = Delete("a");
  EXPECT_EQ(answer.revision(), 4u);
  EXPECT_EQ(answer.results(0).deleted(), 1u);
  EXPECT_EQ(Show("a"), "NOT_FOUND");

  // Deleting nothing is no change.
  answer = Delete("a");
  EXPECT_EQ(answer.code(), 0);
  EXPECT_EQ(answer.revision(), 4u);
  EXPECT_EQ(answer.results(0).deleted(), 0u);

  // A new life: version 1 again, a new create revision; the old one is still in history.
  answer = Put("a", "two");
  EXPECT_EQ(answer.revision(), 5u);
  EXPECT_EQ(answer.results(0).create_revision(), 5u);
  EXPECT_EQ(answer.results(0).version(), 1u);
  EXPECT_EQ(Show("a"), "a=two@5 v1");
  EXPECT_THAT(History("a"), ElementsAre("text two@5.0 v1 /", "delete @4.0 v0 /",
                                        "text one@3.0 v2 /", "text one@2.0 v1 /"));
  ExpectHashAddsUp();
}

TEST_F(StateItems, KeysAndValuesAreBytes) {
  Begin();
  const std::string key("\xff\x00\xfe", 3);
  const std::string value("\x00\x01\x00", 3);
  v1::Command command;
  AddPut(command, key, value, v1::VALUE_KIND_DATA);
  AddPut(command, "empty", "", v1::VALUE_KIND_TEXT);
  Run(command);
  absl::StatusOr<Item> item = state->Get(key, std::nullopt).first;
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_EQ(item->key, key);
  EXPECT_EQ(item->value, value);
  EXPECT_FALSE(item->is_text);
  item = state->Get("empty", std::nullopt).first;
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_EQ(item->value, "");
  EXPECT_TRUE(item->is_text);
  EXPECT_EQ(Count("\xff"), 1u);  // the prefix that has no end
  ExpectHashAddsUp();
}

TEST_F(StateItems, ALargeValueGoesInAndComesOut) {
  Begin();
  std::string value;
  for (size_t i = 0; i < (1u << 20); ++i) value.push_back(static_cast<char>(i * 31 + (i >> 8)));
  Put("large", value);
  absl::StatusOr<Item> item = state->Get("large", std::nullopt).first;
  ASSERT_TRUE(item.ok()) << item.status();
  EXPECT_TRUE(item->value == value);
  ExpectHashAddsUp();
}

TEST_F(StateItems, AuthorAndNoteAreKeptInHistory) {
  Begin();
  v1::Command command = PutCommand("a", "1");
  command.set_author("alice");
  command.set_note("because");
  Run(command);
  EXPECT_THAT(History("a"), ElementsAre("text 1@2.0 v1 alice/because"));
}

TEST_F(StateItems, ReadsAtARevisionSeeWhatWasThen) {
  Begin();
  Put("a", "1");        // 2
  Put("b", "1");        // 3
  Put("a", "2");        // 4
  Delete("a");          // 5
  Put("a", "3");        // 6
  Delete("b", "\x7f");  // 7
  EXPECT_EQ(Show("a", 1), "NOT_FOUND");
  EXPECT_EQ(Show("a", 2), "a=1@2 v1");
  EXPECT_EQ(Show("a", 3), "a=1@2 v1");
  EXPECT_EQ(Show("a", 4), "a=2@4 v2");
  EXPECT_EQ(Show("a", 5), "NOT_FOUND");
  EXPECT_EQ(Show("a", 6), "a=3@6 v1");
  EXPECT_EQ(Show("a", 7), "a=3@6 v1");
  EXPECT_THAT(ShowAll("", 1), IsEmpty());
  EXPECT_THAT(ShowAll("", 3), ElementsAre("a=1@2 v1", "b=1@3 v1"));
  EXPECT_THAT(ShowAll("", 5), ElementsAre("b=1@3 v1"));
  EXPECT_THAT(ShowAll("", 6), ElementsAre("a=3@6 v1", "b=1@3 v1"));
  EXPECT_THAT(ShowAll("", 7), ElementsAre("a=3@6 v1"));
  EXPECT_THAT(ShowAll(), ElementsAre("a=3@6 v1"));
  EXPECT_EQ(Count("", 1), 0u);
  EXPECT_EQ(Count("", 3), 2u);
  EXPECT_EQ(Count("", 5), 1u);
  EXPECT_EQ(Count("b", 6), 1u);
  EXPECT_EQ(Count("b", 7), 0u);
  EXPECT_EQ(Show("a", 8), "OUT_OF_RANGE");
  EXPECT_EQ(Show("a", 0), "OUT_OF_RANGE");
  EXPECT_THAT(ShowAll("", 8), ElementsAre("OUT_OF_RANGE"));
  auto [item, revision] = state->Get("a", Revision(99));
  EXPECT_THAT(std::string(item.status().message()), HasSubstr("99"));
  EXPECT_EQ(revision, Revision(7));
}

TEST_F(StateItems, PagesOfOneListingShowOneRevisionWhileWritesGoOn) {
  Begin();
  for (int i = 0; i < 10; ++i) script.Put("k" + std::to_string(i), "old");
  script.Put("other", "x");
  ApplyAll();
  const Revision pinned = state->Summary().revision;
  ListQuery query;
  query.prefix = "k";
  query.items_max = 3;
  query.at = pinned;
  std::vector<std::string> seen;
  int pages = 0;
  while (true) {
    absl::StatusOr<ListPage> page = state->List(query);
    ASSERT_TRUE(page.ok()) << page.status();
    ++pages;
    for (const Item& item : page->items) {
      EXPECT_EQ(item.value, "old");
      EXPECT_LE(item.mod_revision, pinned);
      seen.push_back(item.key);
    }
    if (!page->more) break;
    query.after = page->items.back().key;
    // Between the pages every key changes, one goes, and new ones come.
    for (int i = 0; i < 10; ++i) script.Put("k" + std::to_string(i), "new");
    script.Delete("k9");
    script.Put("k5" + std::to_string(pages), "new");
    ApplyAll();
  }
  EXPECT_EQ(pages, 4);
  EXPECT_THAT(seen, ElementsAre("k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"));
}

TEST_F(StateItems, APageIsBoundedByItemsAndBytes) {
  Begin();
  for (const char* key : {"a", "b", "c", "d"}) script.Put(key, std::string(100, 'x'));
  ApplyAll();
  ListQuery query;
  query.items_max = 4;
  absl::StatusOr<ListPage> page = state->List(query);
  EXPECT_EQ(page->items.size(), 4u);
  EXPECT_FALSE(page->more);  // exactly full is not "more"
  query.items_max = 3;
  page = state->List(query);
  EXPECT_EQ(page->items.size(), 3u);
  EXPECT_TRUE(page->more);
  query.items_max = 1000;
  query.bytes_max = 202;  // two items of 101 bytes
  page = state->List(query);
  EXPECT_EQ(page->items.size(), 2u);
  EXPECT_TRUE(page->more);
  query.bytes_max = 10;  // less than one: one is returned all the same
  page = state->List(query);
  EXPECT_EQ(page->items.size(), 1u);
  EXPECT_TRUE(page->more);
  query.after = "c";
  page = state->List(query);
  EXPECT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->items[0].key, "d");
  EXPECT_FALSE(page->more);
  query = {};
  query.keys_only = true;
  page = state->List(query);
  ASSERT_EQ(page->items.size(), 4u);
  EXPECT_EQ(page->items[0].value, "");
  EXPECT_EQ(page->items[0].version, 1u);
  EXPECT_EQ(page->revision, state->Summary().revision);
}

TEST_F(StateItems, OrderIsBytewiseAndPrefixesAreExact) {
  Begin();
  for (const char* key : {"a/b", "a", "a/", "a0", "b", "\xc3\xa4", "a/b/c"}) script.Put(key, "");
  ApplyAll();
  auto keys = [&](const std::string& prefix) {
    ListQuery query;
    query.prefix = prefix;
    std::vector<std::string> names;
    absl::StatusOr<ListPage> page = state->List(query);
    for (const Item& item : page->items) names.push_back(item.key);
    return names;
  };
  EXPECT_THAT(keys(""), ElementsAre("a", "a/", "a/b", "a/b/c", "a0", "b", "\xc3\xa4"));
  EXPECT_THAT(keys("a/"), ElementsAre("a/", "a/b", "a/b/c"));
  EXPECT_THAT(keys("a/b/c/"), IsEmpty());
  EXPECT_EQ(Count("a"), 5u);
}

TEST_F(StateItems, ATransactionIsOneRevision) {
  Begin();
  Put("gone", "x");
  v1::Command command;
  AddPut(command, "a", "1");
  AddPut(command, "b", "1");
  AddDelete(command, "gone");
  AddPut(command, "a", "2");  // the same key again: another version of the same revision
  v1::Answer answer = Run(command);
  EXPECT_EQ(answer.revision(), 3u);
  ASSERT_EQ(answer.results_size(), 4);
  EXPECT_EQ(answer.results(2).deleted(), 1u);
  EXPECT_EQ(answer.results(3).version(), 2u);
  EXPECT_THAT(ShowAll(), ElementsAre("a=2@3 v2", "b=1@3 v1"));
  EXPECT_THAT(ShowAll("", 2), ElementsAre("gone=x@2 v1"));
  EXPECT_THAT(History("a"), ElementsAre("text 2@3.3 v2 /", "text 1@3.0 v1 /"));
  ExpectHashAddsUp();
}

TEST_F(StateItems, ComparesChooseTheBranch) {
  Begin();
  Put("a", "m");
  Put("a", "m");  // mod 3, create 2, version 2
  struct Case {
    const char* key;
    v1::Compare::Result result;
    char target;  // m, c, v: a number; =: a value
    uint64_t number;
    const char* value;
    bool holds;
  };
  using C = v1::Compare;
  const Case cases[] = {
      {"a", C::RESULT_EQUAL, 'm', 3, "", true},
      {"a", C::RESULT_EQUAL, 'm', 2, "", false},
      {"a", C::RESULT_NOT_EQUAL, 'm', 2, "", true},
      {"a", C::RESULT_GREATER, 'm', 2, "", true},
      {"a", C::RESULT_GREATER, 'm', 3, "", false},
      {"a", C::RESULT_LESS, 'm', 4, "", true},
      {"a", C::RESULT_LESS, 'm', 3, "", false},
      {"a", C::RESULT_EQUAL, 'c', 2, "", true},
      {"a", C::RESULT_EQUAL, 'v', 2, "", true},
      {"a", C::RESULT_EQUAL, '=', 0, "m", true},
      {"a", C::RESULT_NOT_EQUAL, '=', 0, "m", false},
      {"a", C::RESULT_GREATER, '=', 0, "l", true},
      {"a", C::RESULT_LESS, '=', 0, "mm", true},
      {"-", C::RESULT_EQUAL, 'm', 0, "", true},
      {"-", C::RESULT_EQUAL, 'c', 0, "", true},
      {"-", C::RESULT_EQUAL, 'v', 0, "", true},
      {"-", C::RESULT_LESS, 'm', 1, "", true},
      // No value is neither equal nor unequal to one.
      {"-", C::RESULT_EQUAL, '=', 0, "", false},
      {"-", C::RESULT_NOT_EQUAL, '=', 0, "x", false},
  };
  for (const Case& c : cases) {
    v1::Command command;
    v1::Compare* compare = AddCompare(command, c.key, c.result);
    if (c.target == 'm') compare->set_mod_revision(c.number);
    if (c.target == 'c') compare->set_create_revision(c.number);
    if (c.target == 'v') compare->set_version(c.number);
    if (c.target == '=') compare->set_value(c.value);
    v1::Answer answer = Run(command);
    EXPECT_EQ(answer.code(), 0);
    EXPECT_EQ(answer.succeeded(), c.holds) << c.key << " " << c.result << " " << c.target;
    EXPECT_EQ(answer.revision(), 3u);
  }
  // A false compare runs `otherwise`; a deleted key is as one that never was.
  Delete("a");
  v1::Command command;
  AddCompare(command, "a")->set_mod_revision(3);
  AddPut(command, "then", "x");
  v1::PutOperation* put = command.mutable_transaction()->add_otherwise()->mutable_put();
  put->set_key("otherwise");
  put->set_value_kind(v1::VALUE_KIND_TEXT);
  v1::Answer answer = Run(command);
  EXPECT_FALSE(answer.succeeded());
  EXPECT_EQ(answer.revision(), 5u);
  EXPECT_THAT(ShowAll(), ElementsAre("otherwise=@5 v1"));
}

TEST_F(StateItems, AnExpectedRevisionThatIsNotMetEndsTheWrite) {
  Begin();
  Put("a", "1");
  v1::Command command = PutCommand("a", "2");
  AddCompare(command, "a")->set_mod_revision(99);
  command.mutable_transaction()->set_abort_on_false(true);
  v1::Answer answer = Run(command);
  EXPECT_EQ(answer.code(), 10);
  EXPECT_EQ(answer.reason(), "REVISION_MISMATCH");
  EXPECT_EQ(answer.metadata().at("current_revision"), "2");
  EXPECT_EQ(answer.metadata().at("key"), "a");
  EXPECT_EQ(answer.revision(), 2u);
  EXPECT_EQ(answer.results_size(), 0);
  EXPECT_EQ(Show("a"), "a=1@2 v1");

  // 0: the key must not exist.
  command.mutable_transaction()->mutable_compare(0)->set_mod_revision(0);
  EXPECT_EQ(Run(command).metadata().at("current_revision"), "2");
  Delete("a");
  EXPECT_EQ(Run(command).code(), 0);
  EXPECT_EQ(Show("a"), "a=2@4 v1");
  ExpectHashAddsUp();
}

TEST_F(StateItems, ARangeDeletionTakesManyKeysInOneRevision) {
  Begin();
  constexpr int kKeys = 3000;  // more than any portion, and than a small row id could number
  for (int i = 0; i < kKeys; i += 10) {
    v1::Command command;
    for (int k = 0; k < 10; ++k) AddPut(command, "p/" + std::to_string(i + k), "v");
    script.Do(command);
  }
  script.Put("p", "stays");
  script.Put("q", "stays");
  ApplyAll();
  EXPECT_EQ(Count("p/"), 3000u);
  const uint64_t before = state->Summary().revision.value();
  v1::Answer answer = Delete("p/", "p0");
  EXPECT_EQ(answer.code(), 0);
  EXPECT_EQ(answer.results(0).deleted(), 3000u);
  EXPECT_EQ(answer.revision(), before + 1);
  EXPECT_EQ(Count("p/"), 0u);
  EXPECT_EQ(Count("p/", before), 3000u);
  EXPECT_EQ(Count(""), 2u);
  ExpectHashAddsUp();

  // To the end of all keys, from the beginning; and ranges that hold nothing.
  EXPECT_EQ(Delete("q", "p").results(0).deleted(), 0u);
  EXPECT_EQ(Delete("x", "y").revision(), before + 1);
  EXPECT_EQ(Delete("", std::string_view("\0", 1)).results(0).deleted(), 2u);
  EXPECT_EQ(Count(""), 0u);
}

TEST_F(StateItems, OperationsOfOneTransactionSeeEachOther) {
  Begin();
  v1::Command command;
  AddPut(command, "a", "1");
  AddDelete(command, "a", "b");
  AddPut(command, "a", "2");
  v1::Answer answer = Run(command);
  EXPECT_EQ(answer.results(1).deleted(), 1u);
  EXPECT_EQ(answer.results(2).version(), 1u);
  EXPECT_EQ(Show("a"), "a=2@2 v1");
  ExpectHashAddsUp();
}

// --- Errors: whatever parses gets an answer, the same on every node ---

TEST_F(StateItems, MalformedTransactionsAreAnsweredAndChangeNothing) {
  Begin();
  std::vector<std::pair<std::string, v1::Command>> cases;
  auto add = [&](std::string name) -> v1::Command& {
    cases.emplace_back(std::move(name), PutCommand("never", "x"));
    return cases.back().second;
  };
  AddPut(add("a put's key"), "", "x");
  AddPut(add("a put's key"), std::string(65536, 'k'), "x");
  AddPut(add("text or data"), "k", "x", v1::VALUE_KIND_UNSPECIFIED);
  AddPut(add("text or data"), "k", "x", static_cast<v1::ValueKind>(9));
  AddDelete(add("a deletion's key"), "");
  AddDelete(add("a deletion's key"), "a", std::string(65536, 'k'));
  add("neither a put, a deletion nor a read").mutable_transaction()->add_then();
  add("neither a put, a deletion nor a read").mutable_transaction()->add_otherwise();
  AddCompare(add("a compare's key"), "")->set_version(1);
  AddCompare(add("what is compared"), "a");
  AddCompare(add("with which result"), "a", v1::Compare::RESULT_UNSPECIFIED)->set_version(0);
  AddCompare(add("with which result"), "a", static_cast<v1::Compare::Result>(77))->set_version(0);
  for (const auto& [what, command] : cases) {
    v1::Answer answer = Run(command);
    EXPECT_EQ(answer.code(), 3) << what;
    EXPECT_EQ(answer.reason(), "MALFORMED_COMMAND");
    EXPECT_THAT(answer.message(), HasSubstr(what));
    EXPECT_EQ(answer.revision(), 1u);
  }
  EXPECT_EQ(Count(""), 0u);
  ExpectHashAddsUp();
}

TEST_F(StateItems, TooManyChangesAreRefusedBeforeTheFirst) {
  Begin();
  v1::Command command;
  v1::DeleteOperation remove;
  remove.set_key("x");
  for (int i = 0; i < (1 << 19); ++i) {
    *command.mutable_transaction()->add_then()->mutable_delete_() = remove;
  }
  AddPut(command, "a", "1");
  v1::Answer answer = Run(command);
  EXPECT_EQ(answer.code(), 8);
  EXPECT_EQ(answer.reason(), "TOO_MANY_CHANGES");
  EXPECT_EQ(answer.revision(), 1u);
  EXPECT_EQ(answer.results_size(), 0);
  EXPECT_EQ(Count(""), 0u);
}

TEST_F(StateItems, AnAnswerAboutAKeyThatIsNoTextCanBeParsed) {
  Begin();
  for (const char* key : {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    v1::Command command = PutCommand(key, "1");
    AddCompare(command, key)->set_version(5);
    command.mutable_transaction()->set_abort_on_false(true);
    v1::Answer answer = Run(command);
    EXPECT_EQ(answer.code(), 10);
    EXPECT_EQ(answer.metadata().count("key"), 0u);
  }
  v1::Command command = PutCommand("\xe2\x82\xac\xf0\x9f\x98\x80", "1");
  AddCompare(command, "\xe2\x82\xac\xf0\x9f\x98\x80")->set_version(5);
  command.mutable_transaction()->set_abort_on_false(true);
  EXPECT_EQ(Run(command).metadata().count("key"), 1u);
}

}  // namespace
}  // namespace quorate::storage::testing
