// Transactions that read: what they see, what they may return, and that a refused one leaves
// nothing.
#include "storage/state_apply.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

class StateTxn : public StateFixture {
 protected:
  static v1::ReadOperation* AddRead(v1::Command& command, std::string_view key,
                                    std::string_view end = {}) {
    v1::ReadOperation* read = command.mutable_transaction()->add_then()->mutable_read();
    read->set_key(std::string(key));
    read->set_range_end(std::string(end));
    return read;
  }
  static std::string Text(const v1::OperationResult& result) {
    std::string text = std::to_string(result.count()) + ":";
    for (const v1::ReadItem& item : result.items()) {
      text += " " + item.key() + "=" + item.value() + "@" + std::to_string(item.mod_revision()) +
              " v" + std::to_string(item.version());
    }
    return text;
  }
};

TEST_F(StateTxn, ReadsSeeWhatTheOperationsBeforeThemDid) {
  Begin();
  Put("a", "old");
  Put("b", "kept");
  v1::Command command;
  AddRead(command, "a");
  AddPut(command, "a", "new");
  AddRead(command, "a");
  AddDelete(command, "b");
  AddRead(command, "a", "z");
  const v1::Answer answer = Run(command);
  EXPECT_EQ(answer.revision(), 4u);
  EXPECT_EQ(Text(answer.results(0)), "1: a=old@2 v1");
  EXPECT_EQ(Text(answer.results(2)), "1: a=new@4 v2");
  EXPECT_EQ(Text(answer.results(4)), "1: a=new@4 v2");
  ExpectHashAddsUp();
  Reopen();
  ExpectHashAddsUp();
}

TEST_F(StateTxn, KeysCountsAndWhatIsNotThere) {
  Begin();
  Put("p/a", "1");
  Run(PutCommand("p/b", std::string("\xff\0", 2)));
  Put("q", "3");
  v1::Command command;
  AddRead(command, "p/", "p0")->set_keys_only(true);
  AddRead(command, "", std::string(1, '\0'))->set_count_only(true);
  AddRead(command, "none");
  AddRead(command, "p/", "p0");
  const v1::Answer answer = Run(command);
  EXPECT_EQ(Text(answer.results(0)), "2: p/a=@2 v1 p/b=@3 v1");
  EXPECT_EQ(answer.results(0).items(0).value_kind(), v1::VALUE_KIND_UNSPECIFIED);
  EXPECT_EQ(Text(answer.results(1)), "3:");
  EXPECT_EQ(Text(answer.results(2)), "0:");
  EXPECT_EQ(answer.results(3).items(1).value(), std::string("\xff\0", 2));
  EXPECT_EQ(answer.revision(), 4u) << "reading makes no revision";
}

TEST_F(StateTxn, TheOtherBranchReadsToo) {
  Begin();
  Put("holder", "me");
  v1::Command command = PutCommand("holder", "you");
  AddCompare(command, "holder")->set_version(0);
  command.mutable_transaction()->add_otherwise()->mutable_read()->set_key("holder");
  const v1::Answer answer = Run(command);
  EXPECT_FALSE(answer.succeeded());
  EXPECT_EQ(answer.code(), 0);
  EXPECT_EQ(Text(answer.results(0)), "1: holder=me@2 v1");
}

TEST_F(StateTxn, ARepeatGetsWhatWasReadTheFirstTime) {
  Begin();
  Put("a", "first");
  v1::Command command;
  AddRead(command, "a");
  command.mutable_client_request()->set_id("r");
  command.mutable_client_request()->set_revision(1);
  command.mutable_client_request()->set_command_hash(std::string(16, 'h'));
  EXPECT_EQ(Text(Run(command).results(0)), "1: a=first@2 v1");
  Put("a", "second");
  EXPECT_EQ(Text(Run(command).results(0)), "1: a=first@2 v1");
  Reopen();
  EXPECT_EQ(Text(Run(command).results(0)), "1: a=first@2 v1");
  ExpectHashAddsUp();
}

// --- Errors ---

TEST_F(StateTxn, TooManyItemsRefuseAllOfIt) {
  Begin();
  v1::Command many;
  for (uint64_t i = 0; i <= kReadItemsMax; ++i) {
    AddPut(many, "n/" + std::to_string(10000 + i), "");
  }
  Run(many);
  const StateSummary before = state->Summary();
  v1::Command command = PutCommand("a", "1");
  AddRead(command, "n/", "n0");
  state->CollectChanges(Collect::kChanges);
  script.Do(command);
  const std::vector<Applied> outcomes = ApplyAll();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].changes, nullptr) << "a watch would be told what is undone";
  const v1::Answer answer = Parse(outcomes[0].answer);
  EXPECT_EQ(answer.code(), 8);
  EXPECT_EQ(answer.reason(), "TXN_RESULT_TOO_LARGE");
  EXPECT_EQ(answer.results_size(), 0);
  EXPECT_EQ(answer.revision(), before.revision.value());
  EXPECT_EQ(state->Summary().revision, before.revision);
  EXPECT_EQ(Show("a"), "NOT_FOUND") << "the put before the read stayed";
  ExpectHashAddsUp();
  // The revision that it would have had is the next one's.
  EXPECT_EQ(Put("a", "2").revision(), before.revision.value() + 1);
  ExpectHashAddsUp();
  Delete("n/10000");
  EXPECT_EQ(Run(command).code(), 0) << "exactly the limit";
}

TEST_F(StateTxn, TooManyBytesRefuseAllOfIt) {
  Begin();
  for (const char* key : {"a", "b"}) Put(key, std::string(kReadBytesMax / 2 - 65, 'x'));
  v1::Command command;
  AddRead(command, "a");
  AddRead(command, "b");
  EXPECT_EQ(Run(command).code(), 0) << "exactly the limit";
  AddRead(command, "a")->set_keys_only(true);
  EXPECT_EQ(Run(command).reason(), "TXN_RESULT_TOO_LARGE");
  ExpectHashAddsUp();
}

TEST_F(StateTxn, ReadsWithoutAKeyAreMalformed) {
  Begin();
  v1::Command command;
  AddRead(command, "");
  EXPECT_EQ(Run(command).reason(), "MALFORMED_COMMAND");
  v1::Command longer;
  AddRead(longer, std::string(kKeyBytesHardMax + 1, 'k'));
  EXPECT_EQ(Run(longer).reason(), "MALFORMED_COMMAND");
}

}  // namespace
}  // namespace quorate::storage::testing
