// What Resolve says of DNS servers that are right, wrong, slow, and gone.
#include "discovery/resolve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "tests/discovery/dns_server.h"

namespace quorate::discovery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

class ResolveTest : public testing::Test {
 protected:
  ResolveTest() {
    options_.port = 7000;
    options_.servers = server_.address();
    options_.timeout = milliseconds(200);
    options_.tries = 3;
  }
  absl::StatusOr<Resolution> Ask(const std::string& name) { return Resolve(name, options_); }
  void Set(DnsType type, DnsReply reply) { server_.Set(kName, type, std::move(reply)); }

  static constexpr char kName[] = "quorate-headless.prod.svc.cluster.local";
  DnsServer server_;
  ResolveOptions options_;
};

TEST_F(ResolveTest, BothFamiliesInOrderWithTheShortestTtl) {
  Set(DnsType::kA, {.records = {"10.0.0.3", "10.0.0.1", "10.0.0.3"}, .ttl_s = 30});
  Set(DnsType::kAaaa, {.records = {"fd00::2"}, .ttl_s = 5});
  const auto answer = Ask(kName);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->addresses, ElementsAre("10.0.0.1:7000", "10.0.0.3:7000", "[fd00::2]:7000"));
  EXPECT_EQ(answer->ttl, seconds(5));
  EXPECT_FALSE(answer->partial);
}

TEST_F(ResolveTest, OneFamilyAloneIsAWholeAnswer) {
  Set(DnsType::kA, {.records = {"10.0.0.1"}});
  const auto v4 = Ask(kName);
  ASSERT_TRUE(v4.ok()) << v4.status();
  EXPECT_THAT(v4->addresses, ElementsAre("10.0.0.1:7000"));
  EXPECT_FALSE(v4->partial);

  server_.Set("six.example", DnsType::kAaaa, {.records = {"fd00::1"}});
  const auto v6 = Ask("six.example");
  ASSERT_TRUE(v6.ok()) << v6.status();
  EXPECT_THAT(v6->addresses, ElementsAre("[fd00::1]:7000"));
}

TEST_F(ResolveTest, AFamilyThatFailsMakesTheAnswerPartial) {
  Set(DnsType::kA, {.records = {"10.0.0.1"}});
  for (const auto kind : {DnsReply::Kind::kServerFailure, DnsReply::Kind::kSilence}) {
    Set(DnsType::kAaaa, {.kind = kind});
    const auto answer = Ask(kName);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_THAT(answer->addresses, ElementsAre("10.0.0.1:7000"));
    EXPECT_TRUE(answer->partial);
  }
}

TEST_F(ResolveTest, ServicesNameTheirPorts) {
  const std::string service = "_raft._tcp.quorate.example";
  server_.Set(service, DnsType::kSrv, {.records = {"q-0.example:7001", "q-1.example:7002"}});
  server_.Set("q-0.example", DnsType::kA, {.records = {"10.0.0.1"}, .ttl_s = 7});
  server_.Set("q-1.example", DnsType::kAaaa, {.records = {"fd00::2"}});
  const auto answer = Ask(service);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->addresses, ElementsAre("10.0.0.1:7001", "[fd00::2]:7002"));
  EXPECT_EQ(answer->ttl, seconds(7));
  EXPECT_FALSE(answer->partial);
}

TEST_F(ResolveTest, ATargetThatDoesNotAnswerTakesNothingFromTheOthers) {
  const std::string service = "_raft._tcp.quorate.example";
  server_.Set(service, DnsType::kSrv,
              {.records = {"q-0.example:7001", "q-1.example:7002", "gone.example:7003"}});
  server_.Set("q-0.example", DnsType::kA, {.records = {"10.0.0.1"}});
  server_.Set("q-1.example", DnsType::kA, {.kind = DnsReply::Kind::kSilence});
  server_.Set("q-1.example", DnsType::kAaaa, {.kind = DnsReply::Kind::kSilence});
  const auto answer = Ask(service);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->addresses, ElementsAre("10.0.0.1:7001"));
  EXPECT_TRUE(answer->partial);
}

TEST_F(ResolveTest, ATruncatedAnswerIsAskedForByTcp) {
  DnsReply many{.kind = DnsReply::Kind::kTruncatedOverUdp};
  for (int i = 1; i <= 100; ++i) many.records.push_back("10.0.1." + std::to_string(i));
  Set(DnsType::kA, many);
  const auto answer = Ask(kName);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->addresses.size(), 100u);
  EXPECT_GT(server_.asked_by_tcp(), 0);

  Set(DnsType::kA, {.kind = DnsReply::Kind::kTruncatedAndSilent});
  EXPECT_FALSE(Ask(kName).ok());
}

TEST_F(ResolveTest, MoreThanItTakesIsCutAndSaid) {
  DnsReply many{.kind = DnsReply::Kind::kTruncatedOverUdp};
  for (int i = 0; i < 300; ++i) {
    many.records.push_back("10.0." + std::to_string(i / 100) + "." + std::to_string(i % 100));
  }
  Set(DnsType::kA, many);
  const auto answer = Ask(kName);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->addresses.size(), Resolution::kAddressesMax);
  EXPECT_TRUE(answer->partial);
}

TEST_F(ResolveTest, ErrorsSayWhatDnsSaid) {
  const auto unknown = Ask("nobody.example");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("nobody.example: no such name"));

  Set(DnsType::kA, {});
  Set(DnsType::kAaaa, {});
  const auto empty = Ask(kName);
  EXPECT_EQ(empty.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(empty.status().message()), HasSubstr("without A or AAAA records"));

  for (const auto kind : {DnsReply::Kind::kServerFailure, DnsReply::Kind::kNonsense}) {
    Set(DnsType::kA, {.kind = kind});
    Set(DnsType::kAaaa, {.kind = kind});
    const auto failed = Ask(kName);
    EXPECT_FALSE(failed.ok());
    EXPECT_FALSE(absl::IsNotFound(failed.status())) << failed.status();
  }

  Set(DnsType::kA, {.kind = DnsReply::Kind::kSilence});
  Set(DnsType::kAaaa, {.kind = DnsReply::Kind::kSilence});
  EXPECT_EQ(Ask(kName).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ResolveTest, NoNamesAndNoServersAreRefused) {
  EXPECT_EQ(Ask("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Ask(std::string(256, 'a')).status().code(), absl::StatusCode::kInvalidArgument);
  options_.servers = "not a server";
  EXPECT_EQ(Ask(kName).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ResolveTest, EndsInTimeAndWhenNobodyWaits) {
  Set(DnsType::kA, {.kind = DnsReply::Kind::kSilence});
  Set(DnsType::kAaaa, {.kind = DnsReply::Kind::kSilence});
  options_.timeout = seconds(3600);
  options_.total_timeout = milliseconds(50);
  EXPECT_EQ(Ask(kName).status().code(), absl::StatusCode::kDeadlineExceeded);

  // What is there counts, and little more is waited for than that.
  Set(DnsType::kA, {.records = {"10.0.0.1"}});
  options_.total_timeout = seconds(3600);
  const auto some = Ask(kName);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_TRUE(some->partial);

  options_.total_timeout = seconds(3600);
  options_.cancel = eventfd(1, EFD_CLOEXEC);
  EXPECT_EQ(Ask(kName).status().code(), absl::StatusCode::kCancelled);
  close(options_.cancel);
}

}  // namespace
}  // namespace quorate::discovery
