// The hot calls behave alike, whether completion queues take them or the callback API.
#include "services/call_queues.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/errors.h"
#include "services/listen.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::chrono::system_clock::time_point In(milliseconds time) {
  return std::chrono::system_clock::now() + time;
}

// A real server on loopback; its handler keeps the calls until the test answers them.
class HotServer {
 public:
  struct Held {
    std::string method;
    std::string request;
    CallPtr call;
    CallDone done;
  };

  // `options.queues` 0: the callback API.
  explicit HotServer(const CallQueuesOptions& options) : queues_(options) {
    config_ = MakeConfigGrpc(
        [this](std::string_view method, std::string request, CallPtr call, CallDone done) {
          if (at_once_) return done(grpc::Status::OK, "");
          std::lock_guard lock(mutex_);
          held_.push_back(
              {std::string(method), std::move(request), std::move(call), std::move(done)});
          changed_.notify_all();
        },
        [this](std::string_view method, grpc::StatusCode code, Duration) {
          std::lock_guard lock(mutex_);
          ++observed_[std::string(method) + " " + std::to_string(code)];
          changed_.notify_all();
        },
        nullptr, options.queues > 0 ? &queues_ : nullptr);
    grpc::ServerBuilder builder;
    SetClientServerOptions(&builder);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(config_.get());
    queues_.AddTo(&builder);
    server_ = builder.BuildAndStart();
    CHECK(server_ != nullptr);
    queues_.Start();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::Config::NewStub(channel_);
  }
  ~HotServer() { Stop(milliseconds(0)); }

  void Stop(milliseconds grace) {
    if (std::exchange(stopped_, true)) return;
    server_->Shutdown(In(grace));
    queues_.Stop();
  }

  Held WaitHeld() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_.empty(); });
    Held held = std::move(held_.front());
    held_.pop_front();
    return held;
  }
  void WaitObserved(const std::string& what, int count = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return observed_[what] >= count; });
    EXPECT_EQ(observed_[what], count) << what;
  }
  void AnswerAtOnce() { at_once_ = true; }

  v1::Config::Stub& stub() { return *stub_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Held> held_;                // protected by mutex_
  std::map<std::string, int> observed_;  // protected by mutex_
  std::atomic<bool> at_once_ = false;
  bool stopped_ = false;
  CallQueues queues_;
  std::unique_ptr<grpc::Service> config_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Config::Stub> stub_;
};

// One Put on a thread of its own.
class Caller {
 public:
  Caller(HotServer* server, const std::string& key, milliseconds deadline = seconds(60))
      : server_(server), key_(key), deadline_(deadline), thread_([this] { Run(); }) {}
  ~Caller() { Join(); }

  void Cancel() { context_.TryCancel(); }
  const grpc::Status& Join() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  uint64_t version() const { return response_.version(); }

 private:
  void Run() {
    context_.set_deadline(In(deadline_));
    v1::PutRequest request;
    request.set_key(key_);
    status_ = server_->stub().Put(&context_, request, &response_);
  }

  HotServer* const server_;
  const std::string key_;
  const milliseconds deadline_;
  grpc::ClientContext context_;
  v1::PutResponse response_;
  grpc::Status status_;
  std::thread thread_;  // last: it uses what is above
};

std::string PutAnswer(uint64_t version) {
  v1::PutResponse response;
  response.set_version(version);
  return response.SerializeAsString();
}

// The parameter: how many queues; 0 for the callback API.
class HotCallsTest : public ::testing::TestWithParam<size_t> {
 protected:
  HotServer server_{CallQueuesOptions{.queues = GetParam(), .asked_for = 2}};
};
INSTANTIATE_TEST_SUITE_P(Queues, HotCallsTest, ::testing::Values(0, 1, 2));

TEST_P(HotCallsTest, BytesMetadataAndDeadlineReachTheHandler) {
  grpc::ClientContext context;
  context.set_deadline(In(seconds(30)));
  context.AddMetadata("authorization", "Bearer x");
  context.AddMetadata("x-other", "not passed");
  v1::GetRequest request;
  request.set_key("a");
  v1::GetResponse response;
  grpc::Status status;
  std::thread caller([&] { status = server_.stub().Get(&context, request, &response); });
  const HotServer::Held held = server_.WaitHeld();
  EXPECT_EQ(held.method, "Get");
  EXPECT_EQ(held.request, request.SerializeAsString());
  EXPECT_EQ(held.call->metadata().size(), 1u);
  EXPECT_EQ(held.call->metadata().at("authorization"), "Bearer x");
  const Duration left = held.call->deadline() - BootNow();
  EXPECT_GT(left, seconds(10));
  EXPECT_LE(left, seconds(31));
  v1::GetResponse answer;
  answer.mutable_item()->set_text("b");
  held.done(grpc::Status::OK, answer.SerializeAsString());
  caller.join();
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(response.item().text(), "b");
  server_.WaitObserved("quorate.v1.Config/Get 0");
}

TEST_P(HotCallsTest, MoreCallsAreHeldThanWereAskedForAndAnsweredInAnyOrder) {
  constexpr uint64_t kCalls = 20;
  std::vector<std::unique_ptr<Caller>> callers;
  std::vector<HotServer::Held> held;
  for (uint64_t i = 0; i < kCalls; ++i) {
    callers.push_back(std::make_unique<Caller>(&server_, std::to_string(i)));
  }
  for (uint64_t i = 0; i < kCalls; ++i) held.push_back(server_.WaitHeld());
  while (!held.empty()) {
    v1::PutRequest request;
    ASSERT_TRUE(request.ParseFromString(held.back().request));
    held.back().done(grpc::Status::OK, PutAnswer(std::stoull(request.key()) + 1));
    held.pop_back();
  }
  for (uint64_t i = 0; i < kCalls; ++i) {
    EXPECT_TRUE(callers[i]->Join().ok());
    EXPECT_EQ(callers[i]->version(), i + 1);
  }
  server_.WaitObserved("quorate.v1.Config/Put 0", kCalls);
}

TEST_P(HotCallsTest, ThousandsGoThrough) {
  server_.AnswerAtOnce();
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 250; ++i) {
        grpc::ClientContext context;
        v1::GetResponse response;
        if (server_.stub().Get(&context, v1::GetRequest(), &response).ok()) ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 1000);
}

TEST_P(HotCallsTest, AnErrorKeepsItsDetails) {
  Caller caller(&server_, "");
  const grpc::Status sent = MakeFieldError("KEY_EMPTY", "key", "is empty");
  server_.WaitHeld().done(sent, "");
  EXPECT_EQ(caller.Join().error_code(), sent.error_code());
  EXPECT_EQ(caller.Join().error_message(), sent.error_message());
  EXPECT_EQ(caller.Join().error_details(), sent.error_details());
  server_.WaitObserved("quorate.v1.Config/Put 3");
}

TEST_P(HotCallsTest, AnUnknownMethodIsUnimplemented) {
  grpc::GenericStub generic(server_.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call =
      generic.PrepareUnaryCall(&context, "/quorate.v1.Config/Nothing", grpc::ByteBuffer(), &queue);
  grpc::ByteBuffer response;
  grpc::Status status;
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

// --- Errors ---

// Until the held call has been told that its caller is gone.
void WaitCancelled(const HotServer::Held& held) {
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;
  held.call->OnCancel([&] {
    std::lock_guard lock(mutex);
    cancelled = true;
    changed.notify_all();
  });
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return cancelled; });
}

TEST_P(HotCallsTest, ACallerThatVanishesCancelsItsCall) {
  Caller caller(&server_, "a");
  const HotServer::Held held = server_.WaitHeld();
  caller.Cancel();
  EXPECT_EQ(caller.Join().error_code(), grpc::StatusCode::CANCELLED);
  WaitCancelled(held);
  EXPECT_TRUE(held.call->cancelled());
  // The answer that comes too late goes nowhere, safely.
  held.done(grpc::Status::OK, PutAnswer(1));
  server_.WaitObserved("quorate.v1.Config/Put 0");
}

TEST_P(HotCallsTest, ADeadlineThatPassesCancelsItsCall) {
  Caller caller(&server_, "a", milliseconds(300));
  const HotServer::Held held = server_.WaitHeld();
  EXPECT_EQ(caller.Join().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  WaitCancelled(held);
  held.done(grpc::Status::OK, PutAnswer(1));
}

TEST_P(HotCallsTest, AShutdownLetsCallsEndWithinTheGrace) {
  Caller caller(&server_, "a");
  const HotServer::Held held = server_.WaitHeld();
  std::thread stopping([this] { server_.Stop(seconds(60)); });
  held.done(grpc::Status::OK, PutAnswer(7));
  stopping.join();
  EXPECT_TRUE(caller.Join().ok());
  EXPECT_EQ(caller.version(), 7u);
}

TEST_P(HotCallsTest, AShutdownCancelsWhatDoesNotEndAndWaitsForItsAnswer) {
  Caller caller(&server_, "a");
  const HotServer::Held held = server_.WaitHeld();
  std::atomic<bool> answered = false;
  std::thread answering([&] {
    WaitCancelled(held);
    answered = true;
    held.done(grpc::Status(grpc::StatusCode::CANCELLED, "gone"), "");
  });
  server_.Stop(milliseconds(50));
  EXPECT_TRUE(answered) << "ended before the handler had answered";
  answering.join();
  EXPECT_FALSE(caller.Join().ok());
}

TEST(CallQueuesTest, BeyondTheBoundCallsAreRefusedAtOnce) {
  HotServer server(CallQueuesOptions{.queues = 1, .asked_for = 2, .calls_max = 3});
  std::vector<std::unique_ptr<Caller>> callers;
  std::vector<HotServer::Held> held;
  for (int i = 0; i < 3; ++i) {
    callers.push_back(std::make_unique<Caller>(&server, "held"));
    held.push_back(server.WaitHeld());
  }
  Caller refused(&server, "refused");
  EXPECT_EQ(refused.Join().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(refused.Join()).reason, "TOO_MANY_CALLS");
  server.WaitObserved("quorate.v1.Config/Put 8");
  // Their places are free when gRPC is done with them, which is after their callers are.
  for (HotServer::Held& each : held) each.done(grpc::Status::OK, PutAnswer(1));
  for (const auto& caller : callers) EXPECT_TRUE(caller->Join().ok());
  server.AnswerAtOnce();
  while (true) {
    Caller again(&server, "again");
    if (again.Join().ok()) break;
    ASSERT_EQ(DetailsOf(again.Join()).reason, "TOO_MANY_CALLS");
  }
}

TEST(CallQueuesTest, WithoutAServerThereIsNothingToWaitFor) {
  CallQueues never_added;
  never_added.Stop();
  CallQueues queues;
  {
    grpc::ServerBuilder builder;
    queues.AddTo(&builder);
  }
  queues.Stop();
  queues.Stop();
}

}  // namespace
}  // namespace quorate::services
