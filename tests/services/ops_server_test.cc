#include "services/ops_server.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <mutex>
#include <string>

namespace quorate::services {
namespace {

HostPort Loopback(int port) { return {.host = "127.0.0.1", .port = static_cast<uint16_t>(port)}; }

class OpsServerTest : public testing::Test {
 protected:
  OpsServer::Handlers Handlers() {
    return {.metrics = [] { return std::string("a_metric 1\n"); },
            .live = [] { return std::string(); },
            .ready =
                [this] {
                  std::lock_guard lock(mutex_);
                  return wrong_;
                }};
  }

  void Start() {
    auto server = OpsServer::Start(Loopback(0), Handlers());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
  }

  httplib::Result Get(const std::string& path) {
    httplib::Client client("127.0.0.1", server_->port());
    return client.Get(path);
  }

  std::mutex mutex_;
  std::string wrong_;  // protected by mutex_
  std::unique_ptr<OpsServer> server_;
};

TEST_F(OpsServerTest, AnswersPrometheus) {
  Start();
  const auto result = Get("/metrics");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 200);
  EXPECT_EQ(result->body, "a_metric 1\n");
  EXPECT_EQ(result->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST_F(OpsServerTest, AnswersProbes) {
  Start();
  EXPECT_EQ(Get("/livez")->status, 200);
  EXPECT_EQ(Get("/livez")->body, "ok\n");
  EXPECT_EQ(Get("/readyz")->status, 200);
  {
    std::lock_guard lock(mutex_);
    wrong_ = "no leader is known";
  }
  EXPECT_EQ(Get("/readyz")->status, 503);
  EXPECT_EQ(Get("/readyz")->body, "no leader is known\n");
  EXPECT_EQ(Get("/livez")->status, 200);
}

TEST_F(OpsServerTest, ListensOnEveryAddressWithoutAHost) {
  auto server = OpsServer::Start(HostPort{.host = "", .port = 18981}, Handlers());
  if (!server.ok()) GTEST_SKIP() << "somebody else has this port: " << server.status();
  server_ = std::move(*server);
  EXPECT_EQ(server_->port(), 18981);
  EXPECT_EQ(Get("/livez")->status, 200);
}

// --- Errors ---

TEST_F(OpsServerTest, SaysWhatThereIs) {
  Start();
  EXPECT_EQ(Get("/")->status, 404);
  EXPECT_NE(Get("/metric")->body.find("/metrics"), std::string::npos);
}

TEST_F(OpsServerTest, APortInUseIsRefused) {
  Start();
  const auto second = OpsServer::Start(Loopback(server_->port()), Handlers());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(second.status().message().find("Address already in use"), absl::string_view::npos)
      << second.status();
  EXPECT_NE(second.status().message().find("controlPlane.metricsAddress"), absl::string_view::npos);
}

TEST_F(OpsServerTest, AnAddressOfAnotherMachineIsRefused) {
  // TEST-NET-1 (RFC 5737): nobody's own address. Nothing is sent, only bound.
  const auto server = OpsServer::Start(HostPort{.host = "192.0.2.1", .port = 18981}, Handlers());
  ASSERT_FALSE(server.ok());
  EXPECT_NE(server.status().message().find("192.0.2.1:18981"), absl::string_view::npos)
      << server.status();
}

TEST_F(OpsServerTest, ItsPortIsFreeAfterStop) {
  Start();
  const int port = server_->port();
  server_->Stop();
  server_->Stop();  // twice is fine
  auto again = OpsServer::Start(Loopback(port), Handlers());
  EXPECT_TRUE(again.ok()) << again.status();
}

}  // namespace
}  // namespace quorate::services
