// `quorate write`: each answered, in order, done once, over broken streams.
#include <algorithm>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;
using testing::Not;

class CliWrite : public testing::Test {
 protected:
  struct Ran {
    int exit;
    std::string out;
    std::string err;
  };
  Ran Quorate(const std::string& input, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {"quorate", "--endpoints",
                                          a_.address() + "," + b_.address(), "write"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }

  // A put of each key, a line each.
  static std::string Puts(const std::vector<std::string>& keys) {
    std::string input;
    for (const std::string& key : keys) {
      input += "{\"put\": {\"key\": \"" + key + "\", \"text\": \"v\"}}\n";
    }
    return input;
  }

  const grpc::Status no_leader_ =
      services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader");
  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();
  FakeNode a_{"a", store_};
  FakeNode b_{"b", store_};
};

TEST_F(CliWrite, EachIsAnsweredInOrder) {
  const Ran ran = Quorate(R"({"put": {"key": "a", "text": "1"}}

{"put": {"key": "a", "data": "AAE=", "expectedRevision": "9"}}
{"txn": {"then": [{"put": {"key": "b", "text": "2"}}]}}
{"rollback": {"prefix": "c/", "toRevision": "1"}}
{"delete": {"key": "a"}}
)");
  EXPECT_EQ(ran.exit, kExitConflict);
  EXPECT_EQ(ran.out,
            "1: put, version 1, revision 2\n4: succeeded: true, revision 2\n"
            "5: changed 2, deleted 1, revision 2\n6: deleted 1, revision 3\n");
  EXPECT_THAT(ran.err, HasSubstr("write: line 3: ABORTED (REVISION_MISMATCH)"));
  EXPECT_EQ(a_.last_delete().request_id().size(), 32u) << "named";
  EXPECT_GT(a_.last_delete().request_revision(), 0u);
}

TEST_F(CliWrite, AsJsonEachAnswerIsALine) {
  const Ran ran = Quorate(
      "{\"put\": {\"key\": \"a\", \"text\": \"1\", \"requestId\": \"mine\"}}\n"
      "{\"put\": {\"key\": \"a\", \"text\": \"2\", \"expectedRevision\": \"0\"}}",
      {"-o", "json"});
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 2);
  const size_t end = ran.out.find('\n');
  EXPECT_EQ(nlohmann::json::parse(ran.out.substr(0, end))["put"]["version"], "1");
  EXPECT_EQ(nlohmann::json::parse(ran.out.substr(end + 1))["code"], 10);
  EXPECT_EQ(Quorate("{\"delete\": {\"key\": \"a\"}}", {"-o", "raw"}).out, "3\n");
}

// (1) Four are sent, three are done, two answers come. (2) The connection breaks. (3) The rest goes
// to another node, under the same names.
TEST_F(CliWrite, WhatABrokenStreamLeavesOpenIsSentAgainAndDoneOnce) {
  a_.BreakNextStream(/*done=*/3, /*answered=*/2);
  std::string input;
  for (int i = 0; i < 4; ++i) {
    input += "{\"put\": {\"key\": \"k" + std::to_string(i) + "\", \"text\": \"v\"}}\n";
  }
  const Ran ran = Quorate(input);
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(ran.out,
            "1: put, version 1, revision 2\n2: put, version 1, revision 3\n"
            "3: put, version 1, revision 4\n4: put, version 1, revision 5\n");
  for (int i = 0; i < 4; ++i) EXPECT_EQ(store_->Item("k" + std::to_string(i)).version(), 1u);
}

TEST_F(CliWrite, MoreThanOneBatchGoes) {
  std::string input;
  for (int i = 0; i < 1500; ++i) input += "{\"put\": {\"key\": \"k\", \"text\": \"v\"}}\n";
  const Ran ran = Quorate(input, {"-o", "raw"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1500);
  EXPECT_EQ(store_->Item("k").version(), 1500u);
}

// (1) The first node stops, and says of each line that it does not take it. (2) All of them go to
// the second one, in their order.
TEST_F(CliWrite, WhatANodeDoesNotAcceptGoesToAnother) {
  for (const char* key : {"k0", "k1", "k2"}) a_.FailKey(key, no_leader_);
  const Ran ran = Quorate(Puts({"k0", "k1", "k2", "k0"}));
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(ran.out,
            "1: put, version 1, revision 2\n2: put, version 1, revision 3\n"
            "3: put, version 1, revision 4\n4: put, version 2, revision 5\n");
}

TEST_F(CliWrite, LinesOfEveryLengthAreRead) {
  std::string input;
  std::vector<size_t> lengths;
  for (size_t length = 4000; length < 4110; ++length) lengths.push_back(length);
  lengths.insert(lengths.end(), {1, 8189, 8190, 8191, 100'000});
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (i > 0) input += '\n';
    input += "{\"put\": {\"key\": \"k" + std::to_string(lengths[i]) + "\", \"text\": \"" +
             std::string(lengths[i], 'x') + "\"}}";
  }
  const Ran ran = Quorate(input);
  EXPECT_EQ(ran.exit, 0) << ran.err;
  for (const size_t length : lengths) {
    EXPECT_EQ(store_->Item("k" + std::to_string(length)).text().size(), length);
  }
}

// --- Errors ---

// (1) The first node takes four lines, and breaks when two are answered. (2) The second one refuses
// the third. That says nothing of the first attempt.
TEST_F(CliWrite, ARefusalAfterABrokenStreamLeavesTheOutcomeOpen) {
  b_.FailKey("k2", services::MakeError(grpc::StatusCode::INVALID_ARGUMENT, "VALUE_TOO_LARGE", "x"));
  a_.BreakNextStream(/*done=*/4, /*answered=*/2);
  const Ran ran = Quorate(Puts({"k0", "k1", "k2", "k3"}));
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("write: line 3: INVALID_ARGUMENT (VALUE_TOO_LARGE)"));
  EXPECT_THAT(ran.err, HasSubstr("may or may not have been done"));
  EXPECT_THAT(ran.out, HasSubstr("4: put, version 1")) << "known by its name, or not sent before";
  EXPECT_EQ(store_->Item("k2").version(), 1u) << "it was done";
}

// What is refused cannot be done behind what was sent after it: the last one would not win.
TEST_F(CliWrite, WhatWasOvertakenIsNotSentAgain) {
  a_.FailKey("k1", no_leader_);
  const Ran ran = Quorate(Puts({"k0", "k1", "k2"}));
  // Read in time they go together; a line that comes alone goes on alone.
  if (ran.exit == 0) {
    EXPECT_THAT(ran.out, HasSubstr("2: put, version 1, revision 3\n3: put, version 1, revision 4"));
    return;
  }
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_EQ(ran.out, "1: put, version 1, revision 2\n3: put, version 1, revision 3\n");
  EXPECT_THAT(ran.err, HasSubstr("write: line 2: UNAVAILABLE (NO_LEADER)"));
  EXPECT_THAT(ran.err, Not(HasSubstr("may or may not")));
}

TEST_F(CliWrite, WhenNobodyAcceptsItNothingBehindIsSent) {
  for (FakeNode* node : {&a_, &b_}) node->FailKey("k0", no_leader_);
  const Ran ran = Quorate(Puts({"k0"}) + "nonsense\n", {"--timeout", "500ms"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("write: line 1: UNAVAILABLE (NO_LEADER)"));
  EXPECT_THAT(ran.err, HasSubstr("nothing behind line 1 was sent"));
  EXPECT_THAT(ran.err, Not(HasSubstr("what is before it was sent")));
}

TEST_F(CliWrite, ALineOrARequestHasABound) {
  const Ran large = Quorate("{\"put\": {\"key\": \"a\", \"text\": \"" + std::string(8 << 20, 'x') +
                            "\"}}\n" + Puts({"b"}));
  EXPECT_EQ(large.exit, kExitError);
  EXPECT_THAT(large.err, HasSubstr("write: line 1: INVALID_ARGUMENT: the request is larger than"));
  EXPECT_EQ(large.out, "2: put, version 1, revision 2\n") << "the others go on";
  const Ran longer = Quorate(Puts({"b"}) + std::string((48 << 20) + 1, 'x'));
  EXPECT_EQ(longer.exit, kExitUsage);
  EXPECT_THAT(longer.err, HasSubstr("write: line 2: is longer than 48 MiB; what is before it"));
}

TEST_F(CliWrite, ALineThatIsNoWriteEndsIt) {
  for (const char* bad : {"nonsense", "[]", "{}", "{\"put\": {\"keys\": \"a\"}}",
                          "{\"put\": {}, \"delete\": {}}", "{\"put\": {\"key\": \"\xff\"}}"}) {
    const Ran ran = Quorate("{\"put\": {\"key\": \"a\", \"text\": \"1\"}}\n" + std::string(bad) +
                            "\n{\"delete\": {\"key\": \"a\"}}\n");
    EXPECT_EQ(ran.exit, kExitUsage) << bad;
    EXPECT_THAT(ran.err, HasSubstr("write: line 2: ")) << bad;
    EXPECT_THAT(ran.out, HasSubstr("1: put")) << "what is before it";
    EXPECT_TRUE(store_->Item("a").has_text()) << "and not what is behind it";
  }
}

TEST_F(CliWrite, WithoutAFileOrANodeItSaysSo) {
  EXPECT_EQ(Quorate("", {"-f", "/no/such"}).exit, kExitError);
  EXPECT_EQ(Quorate("").exit, 0) << "nothing to do";
  a_.Stop();
  b_.Stop();
  EXPECT_EQ(Quorate("{\"delete\": {\"key\": \"a\"}}").exit, kExitUnavailable);
}

TEST_F(CliWrite, AStreamThatIsRefusedSaysWhatIsOpen) {
  for (FakeNode* node : {&a_, &b_}) node->BreakNextStream(/*done=*/1, /*answered=*/0);
  const Ran ran = Quorate(
      "{\"put\": {\"key\": \"a\", \"text\": \"1\"}}\n"
      "{\"put\": {\"key\": \"b\", \"text\": \"1\"}}\n");
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr(": UNAVAILABLE: Socket closed"));
  EXPECT_THAT(ran.err, HasSubstr("may or may not have been done"));
}

}  // namespace
}  // namespace quorate::tools
