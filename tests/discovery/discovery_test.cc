// Static peers and a DNS name behind one door.
#include "discovery/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "tests/discovery/dns_server.h"

namespace quorate::discovery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;

Instant SteadyNow() {
  return Instant(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

// What a Discovery has said, in order.
class Heard {
 public:
  Discovery::Ports Ports() {
    return {.now = SteadyNow,
            .changed =
                [this](std::vector<PeerAddress> peers, bool whole) {
                  std::string text = whole ? "" : "(in part)";
                  for (const PeerAddress& peer : peers) {
                    text += (text.empty() ? "" : " ") + peer.name + "@" + peer.address;
                  }
                  Add(text);
                },
            .failed =
                [this](const absl::Status& status) {
                  Add(status.ok() ? "works" : "fails: " + std::string(status.message()));
                }};
  }
  // Waits for so many sentences, and returns them all.
  std::vector<std::string> Wait(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(60), [&] { return said_.size() >= count; }));
    return said_;
  }

 private:
  void Add(std::string text) {
    std::lock_guard lock(mutex_);
    said_.push_back(std::move(text));
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> said_;
};

TEST(DiscoveryTest, StaticPeersAreToldOnce) {
  Heard heard;
  Discovery discovery({.peers = {{"h1:7000", "cp-1"}, {"h2:7000", "cp-2"}}}, heard.Ports());
  discovery.Start();
  discovery.OnPeerLost();
  discovery.SetEager(true);
  discovery.Stop();
  EXPECT_THAT(heard.Wait(1), ElementsAre("cp-1@h1:7000 cp-2@h2:7000"));
}

TEST(DiscoveryTest, TellsWhatDnsShowsAndWhenItFails) {
  Heard heard;
  DnsServer server;
  Discovery discovery({.dns = "quorate.example",
                       .resolve = {.port = 7000, .servers = server.address()},
                       .refresh = {.refresh_min = milliseconds(20)}},
                      heard.Ports());
  discovery.Start();
  EXPECT_THAT(heard.Wait(1), ElementsAre("fails: quorate.example: no such name in DNS"));
  server.Set("quorate.example", DnsType::kA, {.records = {"10.0.0.1"}});
  EXPECT_EQ(heard.Wait(3)[1], "works");
  EXPECT_EQ(heard.Wait(3)[2], "@10.0.0.1:7000");
  server.Set("quorate.example", DnsType::kA, {.records = {"10.0.0.2"}});
  EXPECT_EQ(heard.Wait(4)[3], "@10.0.0.1:7000 @10.0.0.2:7000");
}

TEST(DiscoveryTest, SaysWhetherAnAnswerWasWhole) {
  Heard heard;
  DnsServer server;
  server.Set("quorate.example", DnsType::kA, {.records = {"10.0.0.1"}});
  server.Set("quorate.example", DnsType::kAaaa, {.kind = DnsReply::Kind::kServerFailure});
  Discovery discovery({.dns = "quorate.example",
                       .resolve = {.port = 7000, .servers = server.address()},
                       .refresh = {.refresh_min = milliseconds(20)}},
                      heard.Ports());
  discovery.Start();
  EXPECT_THAT(heard.Wait(1), ElementsAre("(in part) @10.0.0.1:7000"));
  server.Set("quorate.example", DnsType::kAaaa, {});
  EXPECT_EQ(heard.Wait(2)[1], "@10.0.0.1:7000");
}

TEST(DiscoveryTest, ALostPeerIsLookedForLongBeforeTheRecordsEnd) {
  Heard heard;
  DnsServer server;
  server.Set("quorate.example", DnsType::kA, {.records = {"10.0.0.1"}, .ttl_s = 3600});
  Discovery discovery({.dns = "quorate.example",
                       .resolve = {.port = 7000, .servers = server.address()},
                       .refresh = {.refresh_min = milliseconds(20), .refresh_max = hours(1)}},
                      heard.Ports());
  discovery.SetEager(false);
  discovery.Start();
  heard.Wait(1);
  server.Set("quorate.example", DnsType::kA, {.records = {"10.0.0.2"}});
  discovery.OnPeerLost();
  EXPECT_EQ(heard.Wait(2)[1], "@10.0.0.1:7000 @10.0.0.2:7000");
}

TEST(DiscoveryTest, StopsWhileDnsIsSilent) {
  Heard heard;
  DnsServer server;
  server.Set("quorate.example", DnsType::kA, {.kind = DnsReply::Kind::kSilence});
  server.Set("quorate.example", DnsType::kAaaa, {.kind = DnsReply::Kind::kSilence});
  const auto begun = std::chrono::steady_clock::now();
  {
    Discovery discovery({.dns = "quorate.example",
                         .resolve = {.servers = server.address(),
                                     .timeout = seconds(600),
                                     .total_timeout = hours(1)}},
                        heard.Ports());
    discovery.Start();
    while (server.asked(DnsType::kAaaa) == 0) std::this_thread::yield();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(300));
}

}  // namespace
}  // namespace quorate::discovery
