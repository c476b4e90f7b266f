// txn and apply: what their files may look like, what is sent, what is said.
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class CliTxnTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/cli_txn_test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string File(const std::string& name, const std::string& text) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << text;
    return directory_ + "/" + name;
  }
  int Quorate(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), {"quorate", "--endpoints", node_.address()});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    Io io{in, out, err, false, false, false};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    out_ = out.str();
    err_ = err.str();
    return exit;
  }
  // What was sent, without what differs from call to call.
  std::string Sent() {
    v1::TxnRequest request = node_.last_txn();
    EXPECT_EQ(request.request_id().size(), 32u);
    EXPECT_EQ(request.request_revision(), 7u);
    request.clear_request_id();
    request.clear_request_revision();
    return request.ShortDebugString();
  }

  std::string directory_, out_, err_;
  std::shared_ptr<FakeStore> store_ = [] {
    auto store = std::make_shared<FakeStore>();
    store->revision = 7;
    return store;
  }();
  FakeNode node_{"a", store_};
};

TEST_F(CliTxnTest, YamlAndJsonSayTheSame) {
  const std::string yaml = File("t.yaml",
                                "# take the lock\n"
                                "conditions:\n"
                                "  - {key: lock, exists: false}\n"
                                "  - {key: n, version: 3, comparison: greater}\n"
                                "then:\n"
                                "  - put: {key: lock, text: 123}\n"
                                "  - list: {prefix: jobs/, keysOnly: true}\n"
                                "else:\n"
                                "  - get: {key: lock}\n"
                                "note: mine now\n");
  ASSERT_EQ(Quorate({"txn", "-f", yaml}), 0) << err_;
  const std::string expected =
      "conditions { key: \"lock\" comparison: COMPARISON_EQUAL version: 0 } "
      "conditions { key: \"n\" comparison: COMPARISON_GREATER version: 3 } "
      "then { put { key: \"lock\" text: \"123\" } } "
      "then { list { prefix: \"jobs/\" keys_only: true } } "
      "else { get { key: \"lock\" } } note: \"mine now\"";
  EXPECT_EQ(Sent(), expected);
  const std::string json =
      R"({"conditions": [{"key": "lock", "exists": false},
                         {"key": "n", "version": 3, "comparison": "COMPARISON_GREATER"}],
          "then": [{"put": {"key": "lock", "text": "123"}},
                   {"list": {"prefix": "jobs\/", "keysOnly": true}}],
          "else": [{"get": {"key": "lock"}}], "note": "mine now"})";
  ASSERT_EQ(Quorate({"txn", "-f", "-"}, json), 0) << err_;
  EXPECT_EQ(Sent(), expected);
}

TEST_F(CliTxnTest, ResultsAreShown) {
  v1::TxnResponse response;
  v1::Item* item = response.add_results()->mutable_get()->mutable_item();
  item->set_key("lock");
  item->set_text("you\n");
  item->set_mod_revision(5);
  item->set_version(2);
  response.add_results()->mutable_get();
  node_.set_txn_response(response);
  EXPECT_EQ(Quorate({"txn", "-f", "-", "--note", "n"}, "else: [{get: {key: lock}}]"), 0);
  EXPECT_EQ(out_,
            "succeeded: false, revision 7\n0: get\n  lock @5 v2  you\\n\n1: get, no such key\n");
  EXPECT_THAT(Sent(), HasSubstr("note: \"n\""));
  EXPECT_EQ(Quorate({"txn", "-f", "-", "--require"}, "{}"), kExitConflict);
  EXPECT_EQ(Quorate({"txn", "-f", "-", "-o", "json"}, "{}"), 0);
  EXPECT_THAT(out_, HasSubstr("\"succeeded\": false"));
}

TEST_F(CliTxnTest, ApplyTakesItemsListsAndListings) {
  const std::string documents = File("a.yaml",
                                     "key: app/color\ntext: blue\n---\n---\n"
                                     "- {key: app/size, data: AAE=}\n"
                                     "- {key: app/old, delete: true}\n");
  const std::string listing = File("b.json", R"({"header": {"revision": "9"},
                         "items": [{"key": "b", "text": "", "modRevision": "4", "version": "1"}]})");
  ASSERT_EQ(Quorate({"apply", "-f", documents, "-f", listing, "--note", "all"}), 0) << err_;
  EXPECT_EQ(Sent(),
            "then { put { key: \"app/color\" text: \"blue\" } } "
            "then { put { key: \"app/size\" data: \"\\000\\001\" } } "
            "then { delete { key: \"app/old\" } } "
            "then { put { key: \"b\" text: \"\" } } note: \"all\"");
  EXPECT_EQ(out_, "applied 4 items, revision 7\n");
  ASSERT_EQ(Quorate({"apply", "--if-unchanged", "-f", listing}), 0) << err_;
  EXPECT_THAT(Sent(), StartsWith("conditions { key: \"b\" comparison: COMPARISON_EQUAL "
                                 "mod_revision: 4 } then"));
}

// --- Errors ---

TEST_F(CliTxnTest, AFileThatIsNoTransactionIsNamed) {
  const std::pair<std::string, std::string> wrong[] = {
      {"then: [", "stdin:"},
      {"a: 1\na: 2\n", "stdin:2: is neither JSON nor YAML: `a` is there twice"},
      {"- 1", "is not one mapping"},
      {"", "is not one mapping"},
      {"{}\n---\n{}\n", "is not one mapping"},
      {"than: []", "than"},
      {"conditions: [{key: a, exists: maybe}]", "conditions[0]: exists: write true or false"},
      {"conditions: [{key: a, exists: true, version: 1}]", "goes alone"},
      {"conditions: [7]", "conditions[0]: a condition is a mapping"},
      {"then: [{put: {key: a, text: '\xff'}}]", "is not UTF-8"},
  };
  for (const auto& [text, message] : wrong) {
    EXPECT_EQ(Quorate({"txn", "-f", "-"}, text), kExitUsage) << text;
    EXPECT_THAT(err_, HasSubstr(message)) << text;
  }
  EXPECT_EQ(Quorate({"txn", "-f", directory_ + "/none"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("cannot be opened"));
  EXPECT_EQ(Quorate({"txn"}), kExitUsage);
  EXPECT_EQ(node_.calls(), 0);
}

TEST_F(CliTxnTest, AnItemThatCannotBeAppliedIsNamed) {
  const std::pair<std::string, std::string> wrong[] = {
      {"text: blue", "item 1: the key is missing"},
      {"[{key: a, text: ''}, {key: b}]", "item 2: write one of text, data and delete: true"},
      {"{key: a, text: x, delete: true}", "item 1: write one of"},
      {"{key: a, txt: x}", "item 1:"},
      {"{key: a, delete: perhaps}", "delete: write true or false"},
      {"[]", "holds no items"},
      {"7", "an item is a mapping"},
  };
  for (const auto& [text, message] : wrong) {
    EXPECT_EQ(Quorate({"apply", "-f", "-"}, text), kExitUsage) << text;
    EXPECT_THAT(err_, HasSubstr(message)) << text;
  }
  EXPECT_EQ(Quorate({"apply", "--if-unchanged", "-f", "-"}, "{key: a, text: x}"), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("the modRevision is missing"));
  EXPECT_EQ(node_.calls(), 0);
}

TEST_F(CliTxnTest, WhatTheServerRefusesIsReported) {
  node_.set_txn_response(v1::TxnResponse());
  EXPECT_EQ(Quorate({"apply", "-f", "-"}, "{key: a, text: x}"), kExitConflict);
  EXPECT_THAT(err_, HasSubstr("an item has changed since"));
  ASSERT_EQ(Quorate({"txn", "-f", "-"}, "{}"), 0);
  node_.FailNextTxn(services::MakeFieldError("DUPLICATE_KEY", "then[1]", "twice"));
  EXPECT_EQ(Quorate({"txn", "-f", "-"}, "{}"), kExitError);
  EXPECT_THAT(err_, HasSubstr("DUPLICATE_KEY"));
}

}  // namespace
}  // namespace quorate::tools
