// Who is asked next, and when nobody is: the rule of tools/client.h.
#include "tools/client.h"

#include <poll.h>

#include <atomic>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/fake_node.h"
#include "tools/failure.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Stands before a node and lets the first connection through only after `delay`, as a node does
// whose machine is busy.
class SlowDoor {
 public:
  SlowDoor(int node_port, milliseconds delay) : node_port_(node_port), delay_(delay) {
    sockaddr_in address = Loopback(0);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(listener_, 8);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~SlowDoor() {
    stop_ = true;
    thread_.join();
    close(listener_);
  }
  const std::string& address() const { return address_; }

 private:
  static sockaddr_in Loopback(int port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }
  bool Readable(int fd) {
    pollfd entry = {fd, POLLIN, 0};
    return poll(&entry, 1, 10) == 1;
  }
  void Serve() {
    while (!stop_ && !Readable(listener_)) {
    }
    if (stop_) return;
    const int client = accept(listener_, nullptr, nullptr);
    std::this_thread::sleep_for(delay_);
    const int node = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = Loopback(node_port_);
    connect(node, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    while (!stop_ && Pump(client, node) && Pump(node, client)) {
    }
    close(client);
    close(node);
  }
  bool Pump(int from, int to) {
    if (!Readable(from)) return true;
    char buffer[4096];
    const ssize_t got = read(from, buffer, sizeof buffer);
    return got > 0 && write(to, buffer, static_cast<size_t>(got)) == got;
  }

  const int node_port_;
  const milliseconds delay_;
  const int listener_ = socket(AF_INET, SOCK_STREAM, 0);
  std::string address_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class ClientTest : public testing::Test {
 protected:
  Client Make(std::vector<std::string> endpoints, milliseconds timeout = std::chrono::seconds(10)) {
    ClientOptions options;
    options.endpoints = std::move(endpoints);
    options.timeout = timeout;
    options.retry_delay = milliseconds(10);
    return Client(options);
  }
  CallResult Put(Client& client) {
    return client.Run(CallKind::kWrite, [&](Endpoint& endpoint, grpc::ClientContext* context) {
      v1::PutRequest request;
      request.set_key("k");
      request.set_text("v");
      return endpoint.config->Put(context, request, &put_);
    });
  }
  CallResult List(Client& client) {
    return client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      v1::ListResponse response;
      return endpoint.config->List(context, v1::ListRequest(), &response);
    });
  }

  // As gRPC makes it when a connection breaks, and as a node says it.
  const grpc::Status broken_{grpc::StatusCode::UNAVAILABLE, "Socket closed"};
  const grpc::Status refused_ = services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER",
                                                    "no leader", {}, milliseconds(20));

  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();
  FakeNode a_{"a", store_};
  FakeNode b_{"b", store_};
  v1::PutResponse put_;
};

TEST_F(ClientTest, TheFirstEndpointAnswers) {
  Client client = Make({a_.address(), b_.address()});
  EXPECT_TRUE(Put(client).ok());
  EXPECT_EQ(put_.version(), 1u);
  EXPECT_EQ(a_.calls(), 1);
  EXPECT_EQ(b_.calls(), 0);
}

TEST_F(ClientTest, WhatWasRefusedForSureGoesToTheNextEndpoint) {
  Client client = Make({a_.address(), b_.address()});
  a_.FailNext(refused_);
  const CallResult result = Put(client);
  EXPECT_TRUE(result.ok());
  EXPECT_EQ(result.address, b_.address());
  EXPECT_EQ(put_.version(), 1u);
  // Who answered is asked first from then on.
  EXPECT_TRUE(Put(client).ok());
  EXPECT_EQ(a_.calls(), 1);
  EXPECT_EQ(b_.calls(), 2);
}

TEST_F(ClientTest, AWriteThatMayHaveBeenDoneIsNotTriedAgain) {
  Client client = Make({a_.address(), b_.address()});
  a_.FailNext(broken_, /*applied=*/true);
  const CallResult result = Put(client);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(result.outcome_known);
  EXPECT_EQ(b_.calls(), 0);
  EXPECT_EQ(store_->Item("k").version(), 1u);
}

TEST_F(ClientTest, AWriteWithARequestIdIsTriedAgainAndDoneOnce) {
  store_->revision = 7;
  Client client = Make({a_.address(), b_.address()});
  a_.FailNextPut(broken_, /*applied=*/true);
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  const CallResult result = client.Write(&v1::Config::Stub::Put, request, &put_);
  EXPECT_TRUE(result.ok()) << result.status.error_message();
  EXPECT_EQ(result.address, b_.address());
  EXPECT_TRUE(result.outcome_known);
  EXPECT_EQ(store_->Item("k").version(), 1u) << "done twice";
  const v1::PutRequest sent = b_.last_put();
  EXPECT_EQ(sent.request_id().size(), 32u);
  EXPECT_EQ(sent.request_revision(), 7u) << "what the first node said before the write was sent";

  EXPECT_TRUE(client.Write(&v1::Config::Stub::Put, request, &put_).ok());
  EXPECT_EQ(store_->Item("k").version(), 2u) << "another write, another id";
  EXPECT_NE(b_.last_put().request_id(), sent.request_id());
  EXPECT_EQ(b_.last_put().request_revision(), 8u) << "nobody is asked again";
}

TEST_F(ClientTest, AnIdThatExpiredAfterALostAnswerLeavesTheOutcomeOpen) {
  store_->revision = 7;
  Client client = Make({a_.address(), b_.address()});
  a_.FailNextPut(broken_, /*applied=*/true);
  b_.FailNextPut(services::MakeError(grpc::StatusCode::FAILED_PRECONDITION, "REQUEST_ID_EXPIRED",
                                     "forgotten"));
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  EXPECT_FALSE(client.Write(&v1::Config::Stub::Put, request, &put_).outcome_known);
  b_.FailNextPut(services::MakeError(grpc::StatusCode::FAILED_PRECONDITION, "REQUEST_ID_EXPIRED",
                                     "forgotten"));
  EXPECT_TRUE(client.Write(&v1::Config::Stub::Put, request, &put_).outcome_known)
      << "the first attempt was refused: nothing was done";
}

// (1) The first node takes the write, and its connection breaks. (2) The second is full. What it
// says is true of its own attempt only.
TEST_F(ClientTest, ARefusalAfterALostAnswerLeavesTheOutcomeOpen) {
  store_->revision = 7;
  Client client = Make({a_.address(), b_.address()});
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  const grpc::Status full =
      services::MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many writes");
  a_.FailNextPut(broken_, /*applied=*/true);
  b_.FailNextPut(full);
  EXPECT_FALSE(client.Write(&v1::Config::Stub::Put, request, &put_).outcome_known);
  b_.FailNextPut(full);
  EXPECT_TRUE(client.Write(&v1::Config::Stub::Put, request, &put_).outcome_known)
      << "the only attempt was refused";
}

TEST_F(ClientTest, AnAnswerKeptUnderTheIdSaysHowTheWriteEnded) {
  store_->revision = 7;
  Client client = Make({a_.address(), b_.address()});
  a_.FailNextPut(broken_);
  b_.FailNextPut(services::MakeError(grpc::StatusCode::ABORTED, "REVISION_MISMATCH", "it is at 5"));
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  EXPECT_TRUE(client.Write(&v1::Config::Stub::Put, request, &put_).outcome_known);
}

TEST_F(ClientTest, AReadGoesToTheNextEndpointEitherWay) {
  Client client = Make({a_.address(), b_.address()});
  a_.FailNext(broken_);
  EXPECT_EQ(List(client).address, b_.address());
}

// A node that stops has gRPC reset what comes before its GOAWAY is heard; seen in process.leave.
TEST_F(ClientTest, WhatAServerThatStopsHasResetIsAskedElsewhere) {
  store_->revision = 7;
  Client client = Make({a_.address(), b_.address()});
  const grpc::Status reset(grpc::StatusCode::CANCELLED, "CANCELLED");
  a_.FailNext(reset);
  EXPECT_EQ(List(client).address, b_.address());

  Client writes = Make({a_.address(), b_.address()});
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  a_.FailNextPut(reset, /*applied=*/true);
  const CallResult named = writes.Write(&v1::Config::Stub::Put, request, &put_);
  EXPECT_TRUE(named.ok()) << named.status.error_message();
  EXPECT_EQ(named.address, b_.address());
  EXPECT_EQ(store_->Item("k").version(), 1u) << "done twice";

  Client unnamed = Make({a_.address(), b_.address()});
  a_.FailNext(reset, /*applied=*/true);
  const CallResult result = Put(unnamed);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(result.outcome_known);
  EXPECT_EQ(store_->Item("k").version(), 2u);
}

TEST_F(ClientTest, AnEndpointThatCannotBeConnectedToWasNotCalled) {
  const DeadPort dead;
  Client client = Make({dead.address(), b_.address()});
  const CallResult result = Put(client);
  EXPECT_TRUE(result.ok()) << result.status.error_message();
  EXPECT_EQ(result.address, b_.address());
}

TEST_F(ClientTest, WhenAllRefuseTheyAreAskedAgainAfterTheDelay) {
  Client client = Make({a_.address(), b_.address()});
  a_.FailNext(refused_);
  b_.FailNext(refused_);
  EXPECT_TRUE(Put(client).ok());
  EXPECT_EQ(a_.calls() + b_.calls(), 3);
}

TEST_F(ClientTest, ANodeIsChosenByName) {
  Client client = Make({a_.address(), b_.address()});
  EXPECT_TRUE(client.UseNode("b").ok());
  EXPECT_TRUE(Put(client).ok());
  EXPECT_EQ(a_.calls(), 1);  // asked who it is
  EXPECT_EQ(b_.calls(), 2);
}

TEST_F(ClientTest, ABusyNodeIsWaitedFor) {
  const SlowDoor door(a_.port(), milliseconds(300));
  Client client = Make({door.address()});
  const CallResult result = Put(client);
  EXPECT_TRUE(result.ok()) << result.status.error_message();
}

TEST_F(ClientTest, ARestartedNodeIsFoundAgain) {
  Client client = Make({a_.address()});
  EXPECT_TRUE(Put(client).ok());
  a_.Stop();
  EXPECT_FALSE(Put(client).reached);
  FakeNode again("a", store_);
  Client second = Make({a_.address(), again.address()});
  EXPECT_TRUE(Put(second).ok());
}

// A node that takes calls and does not answer: nobody can have what its store's mutex protects.
TEST_F(ClientTest, ANodeThatHangsLeavesTimeForAnother) {
  const auto own = std::make_shared<FakeStore>();
  FakeNode hung("h", own);
  const std::lock_guard hold(own->mutex);
  v1::PutRequest request;
  request.set_key("k");
  request.set_text("v");
  {
    Client client = Make({hung.address(), b_.address()}, milliseconds(2000));
    const CallResult result = client.Write(&v1::Config::Stub::Put, request, &put_);
    EXPECT_TRUE(result.ok()) << Describe(result);
  }
  {
    Client client = Make({hung.address(), b_.address()}, milliseconds(2000));
    const CallResult result = List(client);
    EXPECT_TRUE(result.ok()) << Describe(result);
  }
  Client client = Make({hung.address(), b_.address()}, milliseconds(2000));
  client.Saw(1);
  b_.FailNextPut(
      services::MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many writes"));
  const CallResult refused = client.Write(&v1::Config::Stub::Put, request, &put_);
  EXPECT_EQ(refused.address, b_.address());
  EXPECT_FALSE(refused.outcome_known) << "who hangs may have it";
  EXPECT_TRUE(client.Write(&v1::Config::Stub::Put, request, &put_).ok());

  // An attempt that may take all the time ends with it; the next call is asked of another.
  Client whole = Make({hung.address(), b_.address()}, milliseconds(300));
  EXPECT_EQ(List(whole).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(List(whole).ok());
}

// --- Errors ---

TEST_F(ClientTest, NobodyThereEndsAtOnce) {
  const DeadPort dead, deader;
  Client client = Make({dead.address(), deader.address()}, std::chrono::minutes(5));
  const CallResult result = Put(client);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(result.reached);
  EXPECT_TRUE(result.outcome_known);
  EXPECT_EQ(ExitCodeOf(result), kExitUnavailable);
}

TEST_F(ClientTest, WhoWasNotThereBeforeIsNotWaitedForAsLongAgain) {
  const DeadPort dead, deader;
  ClientOptions options;
  options.endpoints = {dead.address(), deader.address(), a_.address()};
  options.timeout = std::chrono::minutes(5);
  options.connect_timeout = std::chrono::minutes(1);
  Client client(options);
  EXPECT_TRUE(Put(client).ok());
  a_.Stop();
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(Put(client).ok());  // the connection breaks, or is refused
  EXPECT_FALSE(Put(client).reached);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(30));
}

TEST_F(ClientTest, NoLeaderEndsWithTheTimeout) {
  // Asked at once and after the second that the node named; a third time would be too late.
  Client client = Make({a_.address()}, milliseconds(1900));
  for (int i = 0; i < 3; ++i) {
    a_.FailNext(services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader", {},
                                    std::chrono::seconds(1)));
  }
  const CallResult result = Put(client);
  EXPECT_EQ(Describe(result), "UNAVAILABLE (NO_LEADER): no leader, from " + a_.address());
  EXPECT_TRUE(result.outcome_known);
  EXPECT_EQ(a_.calls(), 2);
}

TEST_F(ClientTest, OtherErrorsAreTheAnswer) {
  Client client = Make({a_.address(), b_.address()});
  a_.FailNext(services::MakeFieldError("KEY_TOO_LONG", "key", "too long"));
  const CallResult result = Put(client);
  EXPECT_EQ(Describe(result),
            "INVALID_ARGUMENT (KEY_TOO_LONG): key: too long, from " + a_.address());
  EXPECT_EQ(b_.calls(), 0);
}

TEST_F(ClientTest, ADeadlineLeavesAWriteOpenAlsoWhenTheServerSaysSo) {
  Client client = Make({a_.address()});
  a_.FailNext(services::MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", "late"));
  EXPECT_FALSE(Put(client).outcome_known);
  a_.FailNext(grpc::Status(grpc::StatusCode::CANCELLED, "RST_STREAM"));
  EXPECT_FALSE(Put(client).outcome_known);
  a_.FailNext(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late"));
  EXPECT_TRUE(List(client).outcome_known);
}

TEST_F(ClientTest, ANodeThatIsNotThereIsNamedWithThoseThatAre) {
  const DeadPort dead;
  Client client = Make({a_.address(), dead.address()});
  const CallResult result = client.UseNode("z");
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(result.status.error_message(),
              AllOf(HasSubstr("no endpoint is node z: " + a_.address() + " is a, " +
                              dead.address() + " does not answer (cannot connect: "),
                    HasSubstr("Connection refused")));
}

TEST(Endpoints, AreHostAndPort) {
  EXPECT_THAT(*ParseEndpoints("a:1,[::1]:2"), ElementsAre("a:1", "[::1]:2"));
  EXPECT_THAT(std::string(ParseEndpoints("a:1,b").status().message()),
              HasSubstr("`b` has no port; write host:port"));
  EXPECT_THAT(std::string(ParseEndpoints(":8080").status().message()), HasSubstr("has no host"));
  EXPECT_FALSE(ParseEndpoints("").ok());
  EXPECT_FALSE(ParseEndpoints("a:1,").ok());
}

}  // namespace
}  // namespace quorate::tools
