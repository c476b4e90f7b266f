// `quorate ttl` against a node that keeps time-to-lives as it is told.
#include <functional>
#include <sstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/fake_node.h"
#include "tests/tools/ttl_node.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

constexpr char kFirst[] = "00000000000000a1";

class CliTtl : public testing::Test {
 protected:
  struct Ran {
    int exit;
    std::string out;
    std::string err;
  };
  Ran Quorate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"quorate", "--endpoints", endpoints_, "--timeout", timeout_});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }
  void Await(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  TtlNode node_;
  TtlNode other_;
  std::string endpoints_ = node_.address();
  std::string timeout_ = "5s";
};

TEST_F(CliTtl, GrantPrintsTheId) {
  EXPECT_EQ(Quorate({"ttl", "grant", "1500ms"}).out, std::string(kFirst) + "\n");
  EXPECT_EQ(node_.last_grant().ttl().seconds(), 1);
  EXPECT_EQ(node_.last_grant().ttl().nanos(), 500'000'000);
  EXPECT_EQ(node_.last_grant().request_id().size(), 32u);
  EXPECT_EQ(Quorate({"ttl", "grant", "24h", "-o", "table", "--request-id", "mine"}).out,
            "TTL-ID            TTL\n00000000000000a2  24h00m\n");
  EXPECT_EQ(node_.last_grant().request_id(), "mine");
  const auto json = nlohmann::json::parse(Quorate({"ttl", "grant", "366d", "-o", "json"}).out);
  EXPECT_EQ(json["ttlId"], "00000000000000a3");
  EXPECT_EQ(json["ttl"], "31622400s");
}

TEST_F(CliTtl, RevokeSaysHowManyWentWithIt) {
  Quorate({"ttl", "grant", "10s"});
  EXPECT_EQ(Quorate({"ttl", "revoke", kFirst}).out,
            "00000000000000a1: revoked, deleted 0, revision 2\n");
  const Ran again = Quorate({"ttl", "revoke", kFirst});
  EXPECT_EQ(again.exit, kExitNotFound);
  EXPECT_THAT(again.err, HasSubstr("ttl revoke 00000000000000a1: NOT_FOUND (TTL_NOT_FOUND)"));
}

TEST_F(CliTtl, KeepAliveOnceRenewsEach) {
  Quorate({"ttl", "grant", "10s"});
  Quorate({"ttl", "grant", "20s"});
  EXPECT_EQ(Quorate({"ttl", "keep-alive", "--once", kFirst, "00000000000000a2"}).out,
            "00000000000000a1: kept alive for 10.0s\n00000000000000a2: kept alive for 20.0s\n");
  EXPECT_EQ(Quorate({"ttl", "keep-alive", "--once", kFirst, "-o", "raw"}).out, "10000\n");
  const Ran json = Quorate({"ttl", "keep-alive", "--once", kFirst, "-o", "json"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["remaining"], "10s");
  EXPECT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 1) << "a line each";
}

TEST_F(CliTtl, KeepAliveGoesOnUntilTheLastHasEnded) {
  Quorate({"ttl", "grant", "1s"});
  Quorate({"ttl", "grant", "1s"});
  std::thread other([this] {
    Await([this] { return node_.renewals() >= 2; });
    node_.EndTtl(kFirst);
    const int before = node_.renewals();
    Await([this, before] { return node_.renewals() >= before + 3; });
    // Nobody leads for a while: it is tried again, sooner.
    node_.RefuseRenewals(
        services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
    const int refused = node_.renewals();
    Await([this, refused] { return node_.renewals() >= refused + 3; });
    node_.RefuseRenewals(grpc::Status::OK);
    const int good = node_.renewals();
    Await([this, good] { return node_.renewals() >= good + 2; });
    node_.EndTtl("00000000000000a2");
  });
  const Ran ran = Quorate({"ttl", "keep-alive", kFirst, "00000000000000a2"});
  other.join();
  EXPECT_EQ(ran.exit, kExitNotFound);
  EXPECT_THAT(ran.err, HasSubstr("keep-alive 00000000000000a1: NOT_FOUND (TTL_NOT_FOUND)"));
  EXPECT_THAT(ran.err, HasSubstr("keep-alive 00000000000000a2: NOT_FOUND (TTL_NOT_FOUND)"));
  EXPECT_THAT(ran.err, HasSubstr("NO_LEADER"));
  EXPECT_THAT(ran.err, HasSubstr("trying again"));
}

TEST_F(CliTtl, RawSaysWhichOfSeveralInTheirOrder) {
  Quorate({"ttl", "grant", "10s"});
  Quorate({"ttl", "grant", "20s"});
  const Ran ran = Quorate({"ttl", "keep-alive", "--once", "-o", "raw", "00000000000000a2",
                           "00000000000000ff", kFirst, "00000000000000a2"});
  EXPECT_EQ(ran.exit, kExitNotFound);
  EXPECT_EQ(ran.out, "00000000000000a2 20000\n00000000000000ff -\n00000000000000a1 10000\n");
}

// (1) Both nodes are of one cluster. (2) The first is cut off from the others, or hangs. (3) What
// is bound lives on: the second one renews, and goes on to be asked.
TEST_F(CliTtl, ANodeThatDoesNotRenewIsLeftForAnother) {
  endpoints_ = other_.address();
  Quorate({"ttl", "grant", "2s"});
  endpoints_ = node_.address() + "," + other_.address();
  for (const bool hangs : {false, true}) {
    node_.HoldRenewals(hangs);
    node_.RefuseRenewals(
        hangs ? grpc::Status::OK
              : services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
    const Ran once = Quorate({"ttl", "keep-alive", "--once", kFirst});
    EXPECT_EQ(once.exit, 0) << once.err;
    EXPECT_EQ(once.out, "00000000000000a1: kept alive for 2.0s\n") << "hangs: " << hangs;
  }
  const int before = node_.renewals();
  std::thread other([this, before = other_.renewals()] {
    Await([&] { return other_.renewals() >= before + 3; });
    other_.EndTtl(kFirst);
  });
  const Ran ran = Quorate({"ttl", "keep-alive", kFirst});
  other.join();
  EXPECT_EQ(ran.exit, kExitNotFound) << ran.err;
  EXPECT_LE(node_.renewals(), before + 1) << "who hangs is not asked again and again";
  EXPECT_THAT(ran.err, Not(HasSubstr("trying again"))) << "somebody renewed it";
}

// --- Errors ---

TEST_F(CliTtl, WhatIsNotThereOrNotAnIdEnds) {
  EXPECT_EQ(Quorate({"ttl", "keep-alive", kFirst}).exit, kExitNotFound);
  node_.RefuseRenewals(
      services::MakeError(grpc::StatusCode::INVALID_ARGUMENT, "INVALID_VALUE", "no id"));
  const Ran ran = Quorate({"ttl", "keep-alive", "x"});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("INVALID_VALUE"));
  EXPECT_EQ(node_.renewals(), 2) << "asked again";
  // Until the timeout, with or without --once: nobody has renewed it.
  timeout_ = "700ms";
  node_.RefuseRenewals(services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "nobody"));
  EXPECT_EQ(Quorate({"ttl", "keep-alive", "--once", kFirst}).exit, kExitUnavailable);
  const int before = node_.renewals();
  EXPECT_THAT(Quorate({"ttl", "keep-alive", kFirst}).err,
              HasSubstr("keep-alive 00000000000000a1: UNAVAILABLE (NO_LEADER)"));
  EXPECT_GE(node_.renewals(), before + 2);
}

TEST_F(CliTtl, KeepAliveWithoutANodeEnds) {
  const DeadPort dead;
  endpoints_ = dead.address();
  timeout_ = "5m";
  const Ran ran = Quorate({"ttl", "keep-alive", kFirst});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("no node answered"));
}

TEST_F(CliTtl, UsageIsChecked) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"ttl"},
                                             {"ttl", "grant"},
                                             {"ttl", "grant", "999ms"},
                                             {"ttl", "grant", "367d"},
                                             {"ttl", "grant", "soon"},
                                             {"ttl", "keep-alive"},
                                             {"ttl", "revoke"}}) {
    EXPECT_EQ(Quorate(arguments).exit, kExitUsage);
  }
  std::vector<std::string> many = {"ttl", "keep-alive"};
  for (int i = 0; i < 1001; ++i) many.push_back(kFirst);
  EXPECT_EQ(Quorate(many).exit, kExitUsage);
  EXPECT_EQ(node_.renewals(), 0);
}

}  // namespace
}  // namespace quorate::tools
