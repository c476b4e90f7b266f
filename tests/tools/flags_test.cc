// The flags that several commands take: each reaches the field that it is for.
#include "tools/flags.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/temp_directory.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(ParseTime, ReadsNumbersAndUnits) {
  EXPECT_EQ(ParseTime("500ms"), milliseconds(500));
  EXPECT_EQ(ParseTime("0s"), milliseconds(0));
  EXPECT_EQ(ParseTime("90m"), milliseconds(90 * 60'000));
  EXPECT_EQ(ParseTime("24h"), hours(24));
  EXPECT_EQ(ParseTime("366d"), hours(366 * 24));
  for (const char* bad : {"", "5", "s", "-1s", "1.5s", "10 s", "1w", "367d", "8785h",
                          "99999999999999999999s", "9223372036854775807d"}) {
    EXPECT_EQ(ParseTime(bad), std::nullopt) << bad;
  }
}

class CliFlags : public testing::Test {
 protected:
  struct Ran {
    int exit;
    std::string out;
    std::string err;
  };
  Ran Quorate(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), {"quorate", "--endpoints", node_.address()});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }
  void PutKeys(int count) {
    for (int i = 0; i < count; ++i) Quorate({"put", "k" + std::to_string(i), "v"});
  }

  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();
  FakeNode node_{"n1", store_};
};

TEST_F(CliFlags, EveryReadTakesItsBounds) {
  PutKeys(1);
  {
    const std::lock_guard lock(store_->mutex);
    store_->past[7] = store_->items["k0"];
    store_->history.emplace_back();
  }
  const storage::TempDirectory directory;
  const std::vector<std::vector<std::string>> commands = {{"get", "k0"},
                                                          {"list", "k"},
                                                          {"list", "--count"},
                                                          {"history", "k0"},
                                                          {"export", directory.path() + "/out"}};
  for (std::vector<std::string> command : commands) {
    command.insert(command.end(), {"--min-revision", "5", "--max-staleness", "1500ms",
                                   "--at-revision", "7", "--consistency", "linearizable"});
    EXPECT_EQ(Quorate(command).exit, 0) << command[0];
    const v1::ReadOptions read = node_.last_read();
    EXPECT_EQ(read.min_revision(), 5u) << command[0];
    EXPECT_EQ(read.max_staleness().seconds(), 1) << command[0];
    EXPECT_EQ(read.max_staleness().nanos(), 500'000'000) << command[0];
    EXPECT_EQ(read.at_revision(), 7u) << command[0];
    EXPECT_EQ(read.consistency(), v1::CONSISTENCY_LINEARIZABLE) << command[0];
  }
  EXPECT_EQ(Quorate({"get", "k0"}).exit, 0);
  EXPECT_FALSE(node_.last_read().has_max_staleness()) << "none was given";
  // What is compared is the past already.
  EXPECT_EQ(Quorate({"diff", "k0", "7..", "--min-revision", "5"}).exit, 0);
  EXPECT_EQ(node_.last_read().min_revision(), 5u);
}

// The later pages are at the first one's revision, which their token has.
TEST_F(CliFlags, OnlyTheFirstPageIsAskedForAtARevision) {
  PutKeys(3);
  node_.set_page_items(2);
  EXPECT_EQ(Quorate({"list", "--at-revision", "4", "--min-revision", "4", "--max-staleness", "1s",
                     "-o", "raw"})
                .out,
            "k0\nk1\nk2\n");
  const std::vector<v1::ListRequest> lists = node_.lists();
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(lists[0].read().at_revision(), 4u);
  EXPECT_EQ(lists[1].page_token(), "k1");
  EXPECT_EQ(lists[1].read().at_revision(), 0u);
  EXPECT_EQ(lists[1].read().min_revision(), 0u);
  EXPECT_TRUE(lists[1].read().has_max_staleness()) << "it holds for every page";
}

TEST_F(CliFlags, AListingEndsAtItsLimitAndGoesOnFromThere) {
  PutKeys(5);
  node_.set_page_items(2);
  const Ran first = Quorate({"list", "--limit", "3", "--keys-only"});
  EXPECT_EQ(first.exit, 0);
  EXPECT_THAT(first.out, HasSubstr("k2"));
  EXPECT_THAT(first.out, testing::Not(HasSubstr("k3")));
  EXPECT_THAT(first.err, HasSubstr("--page-token k2"));
  EXPECT_EQ(node_.lists().back().page_size(), 1u) << "no more than is wanted";
  const Ran second = Quorate({"list", "--page-token", "k2", "--keys-only", "-o", "json"});
  const auto json = nlohmann::json::parse(second.out);
  EXPECT_EQ(json["items"].size(), 2u);
  EXPECT_EQ(json["items"][0]["key"], "k3");
  EXPECT_EQ(json["nextPageToken"], "");
  EXPECT_EQ(second.err, "");
  const auto cut = nlohmann::json::parse(Quorate({"list", "--limit", "1", "-o", "json"}).out);
  EXPECT_EQ(cut["nextPageToken"], "k0");
}

TEST_F(CliFlags, AHistoryGoesOnFromItsToken) {
  {
    const std::lock_guard lock(store_->mutex);
    for (uint64_t revision : {9, 8, 7}) {
      store_->history.emplace_back().mutable_item()->set_mod_revision(revision);
    }
  }
  const Ran first = Quorate({"history", "k", "--limit", "2"});
  EXPECT_THAT(first.err, HasSubstr("--page-token 2"));
  EXPECT_EQ(Quorate({"history", "k", "--page-token", "2", "-o", "raw"}).out, "7\n");
}

TEST_F(CliFlags, AWriteIsNamedAsTold) {
  EXPECT_EQ(Quorate({"put", "k", "v", "--request-id", "mine", "--request-revision", "1"}).exit, 0);
  EXPECT_EQ(node_.last_put().request_id(), "mine");
  EXPECT_EQ(node_.last_put().request_revision(), 1u);
  const uint64_t version = store_->Item("k").version();
  EXPECT_EQ(Quorate({"put", "k", "v", "--request-id", "mine", "--request-revision", "1"}).exit, 0);
  EXPECT_EQ(store_->Item("k").version(), version) << "not done again";
  EXPECT_EQ(Quorate({"put", "k", "v", "--request-id", "other"}).exit, 0);
  EXPECT_GT(node_.last_put().request_revision(), 0u) << "asked for";
  EXPECT_EQ(Quorate({"put", "k", "v"}).exit, 0);
  EXPECT_EQ(node_.last_put().request_id().size(), 32u) << "one of its own";

  EXPECT_EQ(Quorate({"delete", "k", "--request-id", "a", "--request-revision", "2"}).exit, 0);
  EXPECT_EQ(node_.last_delete().request_id(), "a");
  EXPECT_EQ(Quorate({"rollback", "k", "--to", "1", "--request-id", "b"}).exit, 0);
  EXPECT_EQ(node_.last_rollback().request_id(), "b");
  const std::string txn = R"({"then":[{"put":{"key":"k","text":"v"}}],"requestId":"of the file"})";
  EXPECT_EQ(Quorate({"txn", "-f", "-"}, txn).exit, 0);
  EXPECT_EQ(node_.last_txn().request_id(), "of the file");
  EXPECT_EQ(Quorate({"txn", "-f", "-", "--request-id", "c", "--request-revision", "2"}, txn).exit,
            0);
  EXPECT_EQ(node_.last_txn().request_id(), "c");
  EXPECT_EQ(node_.last_txn().request_revision(), 2u);
  EXPECT_EQ(Quorate({"apply", "-f", "-", "--request-id", "d"}, R"({"key":"k","text":"v"})").exit,
            0);
  EXPECT_EQ(node_.last_txn().request_id(), "d");
}

TEST_F(CliFlags, APutMayBindAndMayBeBytes) {
  EXPECT_EQ(Quorate({"put", "k", "v", "--ttl-id", "00000000000000a1", "--data"}).exit, 0);
  EXPECT_EQ(node_.last_put().ttl_id(), "00000000000000a1");
  EXPECT_TRUE(node_.last_put().has_data());
  EXPECT_EQ(Quorate({"put", "k", "v"}).exit, 0);
  EXPECT_EQ(node_.last_put().ttl_id(), "");
  EXPECT_TRUE(node_.last_put().has_text());
}

// What a listing shows as bound is written as bound.
TEST_F(CliFlags, ApplyKeepsWhatIsBound) {
  EXPECT_EQ(Quorate({"put", "k", "v", "--ttl-id", "00000000000000a1"}).exit, 0);
  const std::string listed = Quorate({"list", "-o", "yaml"}).out;
  EXPECT_EQ(Quorate({"apply", "-f", "-"}, listed).exit, 0);
  EXPECT_EQ(node_.last_txn().then(0).put().ttl_id(), "00000000000000a1");
}

// --- Errors ---

TEST_F(CliFlags, WhatCannotBeIsAUsageError) {
  const std::vector<std::vector<std::string>> wrong = {
      {"get", "k", "--min-revision", "0"},
      {"get", "k", "--max-staleness", "soon"},
      {"get", "k", "--max-staleness", "-1s"},
      {"get", "k", "--at-revision", "now"},
      {"list", "--limit", "0"},
      {"list", "--count", "--limit", "1"},
      {"list", "--count", "--page-token", "t"},
      {"list", "--count", "--keys-only"},
      {"diff", "k", "1..2", "--at-revision", "1"},
      {"put", "k", "v", "--request-revision", "1"},
      {"put", "k", "v", "--request-id", "a", "--request-revision", "0"},
      {"watch", "--progress", "99ms"},
      {"watch", "--progress", "11s"}};
  for (const std::vector<std::string>& arguments : wrong) {
    const Ran ran = Quorate(arguments);
    EXPECT_EQ(ran.exit, kExitUsage) << arguments[0] << ' ' << arguments[2] << ran.err;
  }
  EXPECT_EQ(node_.calls(), 0);
}

}  // namespace
}  // namespace quorate::tools
