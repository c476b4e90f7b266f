#include "services/grpc_dispatch.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/errors.h"
#include "services/health.h"
#include "services/listen.h"
#include "services/system_clock.h"
#include "services/write_stream.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A real server on loopback whose handler is the test's.
class GrpcDispatchTest : public ::testing::Test {
 protected:
  struct Seen {
    std::string method;
    std::string request;
    CallPtr call;
    CallDone done;
  };

  void SetUp() override {
    Health::Enable();
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    const Handler handler = [this](std::string_view method, std::string request, CallPtr call,
                                   CallDone done) {
      if (answer_at_once_) {
        done(grpc::Status::OK, request);
        return;
      }
      std::lock_guard lock(mutex_);
      seen_.push_back({std::string(method), std::move(request), std::move(call), std::move(done)});
      changed_.notify_all();
    };
    const CallObserver observer = [this](std::string_view method, grpc::StatusCode code, Duration) {
      std::lock_guard lock(mutex_);
      observed_.push_back(std::string(method) + " " + std::to_string(code));
      changed_.notify_all();
    };
    config_ = MakeConfigGrpc(handler, observer, nullptr, nullptr, &writes_);
    cluster_ = MakeClusterGrpc(handler, observer);
    grpc::ServerBuilder builder;
    SetClientServerOptions(&builder);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(config_.get());
    builder.RegisterService(cluster_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = "127.0.0.1:" + std::to_string(port);
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    channel_ = grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::Config::NewStub(channel_);
  }

  void TearDown() override {
    server_->Shutdown(std::chrono::system_clock::now() + seconds(1));
    server_.reset();
  }

  Seen WaitSeen() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !seen_.empty(); });
    Seen seen = std::move(seen_.front());
    seen_.erase(seen_.begin());
    return seen;
  }
  std::string WaitObserved() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !observed_.empty(); });
    return observed_.front();
  }

  // A call of its own thread.
  template <typename Call>
  std::thread Run(Call call) {
    return std::thread(std::move(call));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Seen> seen_;             // protected by mutex_
  std::vector<std::string> observed_;  // protected by mutex_
  std::atomic<bool> answer_at_once_ = false;
  WriteStreams writes_{seconds(1000)};
  std::unique_ptr<grpc::Service> config_;
  std::unique_ptr<grpc::Service> cluster_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Config::Stub> stub_;
};

TEST_F(GrpcDispatchTest, BytesComeInAndGoOut) {
  v1::GetResponse response;
  grpc::Status status;
  std::thread caller = Run([&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    context.AddMetadata("authorization", "Bearer x");
    context.AddMetadata("x-request-id", "r1");
    context.AddMetadata("x-other", "not passed");
    v1::GetRequest request;
    request.set_key("a");
    status = stub_->Get(&context, request, &response);
  });
  const Seen seen = WaitSeen();
  EXPECT_EQ(seen.method, "Get");
  EXPECT_EQ(seen.request, std::string("\x0A\x01") + "a");
  EXPECT_EQ(seen.call->metadata(), (std::map<std::string, std::string>{
                                       {"authorization", "Bearer x"}, {"x-request-id", "r1"}}));
  EXPECT_LE(seen.call->deadline() - BootNow(), seconds(20));
  EXPECT_GT(seen.call->deadline() - BootNow(), seconds(11));
  EXPECT_FALSE(seen.call->cancelled());
  v1::GetResponse sent;
  sent.mutable_item()->set_text("b");
  seen.done(grpc::Status::OK, sent.SerializeAsString());
  caller.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.item().text(), "b");
  EXPECT_EQ(WaitObserved(), "quorate.v1.Config/Get 0");
}

TEST_F(GrpcDispatchTest, MoreCallsThanMayBeUnderWayAreRefused) {
  server_->Shutdown();
  WriteStreams writes(seconds(1000), /*streams_max=*/1);
  std::unique_ptr<grpc::Service> config = MakeConfigGrpc(
      [this](std::string_view method, std::string request, CallPtr call, CallDone done) {
        std::lock_guard lock(mutex_);
        seen_.push_back(
            {std::string(method), std::move(request), std::move(call), std::move(done)});
        changed_.notify_all();
      },
      [](std::string_view, grpc::StatusCode, Duration) {}, nullptr, nullptr, &writes,
      /*calls_max=*/2);
  grpc::ServerBuilder builder;
  SetClientServerOptions(&builder);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(config.get());
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto stub = v1::Config::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  const auto list = [&stub] {
    grpc::ClientContext context;
    v1::ListResponse response;
    return stub->List(&context, v1::ListRequest(), &response);
  };
  std::vector<std::thread> callers;
  std::vector<Seen> held;
  for (int i = 0; i < 2; ++i) {
    callers.push_back(Run([&] { EXPECT_TRUE(list().ok()); }));
    held.push_back(WaitSeen());
  }
  const grpc::Status refused = list();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(refused).reason, "TOO_MANY_CALLS");
  EXPECT_TRUE(DetailsOf(refused).retry_delay.has_value());
  for (const Seen& each : held) each.done(grpc::Status::OK, "");
  for (std::thread& caller : callers) caller.join();
  // The server counts a call until it has heard of its end, a little later than the caller.
  std::thread again = Run([&] {
    grpc::Status status = list();
    while (DetailsOf(status).reason == "TOO_MANY_CALLS") status = list();
    EXPECT_TRUE(status.ok()) << "they have ended";
  });
  WaitSeen().done(grpc::Status::OK, "");
  again.join();

  grpc::ClientContext first_context, second_context;
  const auto first = stub->Write(&first_context);
  v1::WriteRequest write;
  write.mutable_delete_()->set_key("a");
  first->Write(write);
  const Seen seen = WaitSeen();
  const auto second = stub->Write(&second_context);
  v1::WriteResponse response;
  EXPECT_FALSE(second->Read(&response));
  EXPECT_EQ(DetailsOf(second->Finish()).reason, "TOO_MANY_CALLS");
  seen.done(grpc::Status::OK, "");
  first->WritesDone();
  EXPECT_TRUE(first->Read(&response));
  EXPECT_TRUE(first->Finish().ok());
  server->Shutdown();
}

// gRPC sends what is left of a deadline rounded up: 19.999 s as 20.1 s, 199.999 s as 201 s. Whoever
// answers a moment before such a deadline answers a caller that has gone.
TEST_F(GrpcDispatchTest, ADeadlineIsNotLaterThanTheCallersOwn) {
  for (const Duration time : {seconds(20), seconds(200)}) {
    Duration late = seconds(1000);
    // The first one connects, and any may be held up by other work.
    for (int tries = 0; tries < 10 && late > Duration::zero(); ++tries) {
      Instant gone;
      std::thread caller = Run([&] {
        grpc::ClientContext context;
        gone = BootNow() + time;
        context.set_deadline(std::chrono::system_clock::now() + time);
        v1::GetResponse response;
        stub_->Get(&context, v1::GetRequest(), &response);
      });
      const Seen seen = WaitSeen();
      seen.done(grpc::Status::OK, "");
      caller.join();
      late = std::min(late, seen.call->deadline() - gone);
      EXPECT_GT(seen.call->deadline() - gone, -time / 20) << "nor much sooner";
    }
    EXPECT_LE(late, Duration::zero());
  }
}

TEST_F(GrpcDispatchTest, ACallWithoutADeadlineGetsTenSeconds) {
  std::thread caller = Run([&] {
    grpc::ClientContext context;
    v1::PutResponse response;
    stub_->Put(&context, v1::PutRequest(), &response);
  });
  const Seen seen = WaitSeen();
  EXPECT_LE(seen.call->deadline() - BootNow(), seconds(10));
  EXPECT_GT(seen.call->deadline() - BootNow(), seconds(8));
  seen.done(grpc::Status::OK, "");
  caller.join();
}

TEST_F(GrpcDispatchTest, AHandlerMayAnswerAtOnce) {
  answer_at_once_ = true;
  grpc::ClientContext context;
  v1::ListResponse response;
  EXPECT_TRUE(stub_->List(&context, v1::ListRequest(), &response).ok());
}

TEST_F(GrpcDispatchTest, ErrorsKeepTheirDetails) {
  grpc::Status status;
  std::thread caller = Run([&] {
    grpc::ClientContext context;
    v1::PutResponse response;
    status = stub_->Put(&context, v1::PutRequest(), &response);
  });
  const grpc::Status sent = MakeFieldError("KEY_EMPTY", "key", "is empty");
  WaitSeen().done(sent, "");
  caller.join();
  EXPECT_EQ(status.error_code(), sent.error_code());
  EXPECT_EQ(status.error_details(), sent.error_details());
}

TEST_F(GrpcDispatchTest, SevenMebibytesReachOurOwnLimit) {
  std::thread caller = Run([&] {
    grpc::ClientContext context;
    v1::PutRequest request;
    request.set_text(std::string(7 << 20, 'x'));
    v1::PutResponse response;
    stub_->Put(&context, request, &response);
  });
  const Seen seen = WaitSeen();
  EXPECT_GT(seen.request.size(), size_t{7} << 20);
  seen.done(grpc::Status::OK, "");
  caller.join();
}

TEST_F(GrpcDispatchTest, ReflectionStillDescribesRawMethods) {
  grpc::GenericStub generic(channel_);
  // ServerReflectionRequest {list_services: "*"} by hand: Debian ships no header for v1alpha.
  const grpc::Slice slice(std::string("\x3A\x01*"));
  grpc::ByteBuffer request(&slice, 1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(5));
  grpc::CompletionQueue queue;
  auto stream = generic.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  stream->StartCall(nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  stream->Write(request, nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  grpc::ByteBuffer answer;
  stream->Read(&answer, nullptr);
  ASSERT_TRUE(queue.Next(&tag, &ok) && ok);
  grpc::Slice whole;
  ASSERT_TRUE(answer.DumpToSingleSlice(&whole).ok());
  const std::string text(reinterpret_cast<const char*>(whole.begin()), whole.size());
  for (const char* name : {"quorate.v1.Config", "quorate.v1.Cluster", "grpc.health.v1.Health"}) {
    EXPECT_NE(text.find(name), std::string::npos) << name;
  }
  context.TryCancel();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
}

TEST_F(GrpcDispatchTest, HealthSaysWhatItIsTold) {
  Health health(server_->GetHealthCheckService());
  // HealthCheckRequest {service} and HealthCheckResponse {status} by hand.
  const auto check = [this](const std::string& service) {
    grpc::GenericStub generic(channel_);
    const grpc::Slice slice(service.empty() ? std::string()
                                            : std::string("\x0A") +
                                                  static_cast<char>(service.size()) + service);
    grpc::ByteBuffer request(&slice, 1);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    auto call = generic.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
    grpc::ByteBuffer response;
    grpc::Status status;
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    grpc::Slice whole;
    if (!status.ok() || !response.DumpToSingleSlice(&whole).ok()) return status.error_message();
    return std::string(whole.size() == 2 && whole.begin()[1] == 1 ? "SERVING" : "NOT_SERVING");
  };
  for (const char* name : {"", "quorate.v1.Config", "quorate.leader"}) {
    EXPECT_EQ(check(name), "NOT_SERVING") << name;
  }
  health.Set(true, false);
  EXPECT_EQ(check(""), "SERVING");
  EXPECT_EQ(check("quorate.v1.Config"), "SERVING");
  EXPECT_EQ(check("quorate.leader"), "NOT_SERVING");
  health.Set(true, true);
  EXPECT_EQ(check("quorate.leader"), "SERVING");
  health.Set(false, false);
  EXPECT_EQ(check(""), "NOT_SERVING");
  EXPECT_EQ(check("quorate.leader"), "NOT_SERVING");
}

// --- The stream of writes ---

v1::WriteRequest StreamedPut(const std::string& key) {
  v1::WriteRequest request;
  request.mutable_put()->set_key(key);
  return request;
}

std::string StreamedAnswer(uint64_t version) {
  v1::WriteResponse response;
  response.mutable_put()->set_version(version);
  return response.SerializeAsString();
}

TEST_F(GrpcDispatchTest, StreamedWritesAreAnsweredInTheirOrder) {
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "r1");
  const auto stream = stub_->Write(&context);
  std::vector<Seen> seen;
  for (const char* key : {"a", "b", "c"}) {
    ASSERT_TRUE(stream->Write(StreamedPut(key)));
    seen.push_back(WaitSeen());
    EXPECT_EQ(seen.back().method, "Write");
    EXPECT_EQ(seen.back().request, StreamedPut(key).SerializeAsString());
    EXPECT_EQ(seen.back().call->metadata().at("x-request-id"), "r1");
    EXPECT_LE(seen.back().call->deadline() - BootNow(), kDefaultDeadline);
  }
  // The last is done first, and the one in the middle is refused.
  seen[2].done(grpc::Status::OK, StreamedAnswer(3));
  const grpc::Status refused = MakeFieldError("KEY_EMPTY", "key", "is empty");
  seen[1].done(refused, "");
  seen[0].done(grpc::Status::OK, StreamedAnswer(1));
  v1::WriteResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.code(), 0);
  EXPECT_EQ(response.put().version(), 1u);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(response.message(), "key: is empty");
  EXPECT_FALSE(response.has_put());
  google::rpc::Status whole;
  ASSERT_TRUE(whole.ParseFromString(response.status()));
  EXPECT_EQ(DetailsOf(FromProto(whole)).reason, "KEY_EMPTY");
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.put().version(), 3u);
  EXPECT_EQ(WaitObserved(), "quorate.v1.Config/Write 0");

  ASSERT_TRUE(stream->Write(StreamedPut("last")));
  ASSERT_TRUE(stream->WritesDone());
  WaitSeen().done(grpc::Status::OK, StreamedAnswer(4));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.put().version(), 4u);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GrpcDispatchTest, AStreamWithoutWritesEndsWell) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  stream->WritesDone();
  v1::WriteResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GrpcDispatchTest, AStreamThatIsAnsweredAtOnceTakesThousands) {
  answer_at_once_ = true;
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  std::thread writer = Run([&] {
    for (int i = 0; i < 3000; ++i) stream->Write(v1::WriteRequest());
    stream->WritesDone();
  });
  int answers = 0;
  v1::WriteResponse response;
  while (stream->Read(&response)) ++answers;
  writer.join();
  EXPECT_EQ(answers, 3000);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(GrpcDispatchTest, AStreamReadsAheadOfItsAnswersOnlySoFar) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  std::thread writer = Run([&] {
    for (size_t i = 0; i < kStreamedWritesMax + 10; ++i) stream->Write(v1::WriteRequest());
    stream->WritesDone();
  });
  std::vector<Seen> seen;
  for (size_t i = 0; i < kStreamedWritesMax; ++i) seen.push_back(WaitSeen());
  {
    std::unique_lock lock(mutex_);
    EXPECT_FALSE(changed_.wait_for(lock, milliseconds(200), [this] { return !seen_.empty(); }))
        << "read beyond its bound";
  }
  std::thread reader = Run([&] {
    v1::WriteResponse response;
    while (stream->Read(&response)) {
    }
  });
  for (Seen& each : seen) each.done(grpc::Status::OK, StreamedAnswer(1));
  for (int i = 0; i < 10; ++i) WaitSeen().done(grpc::Status::OK, StreamedAnswer(1));
  writer.join();
  reader.join();
  EXPECT_TRUE(stream->Finish().ok());
}

// What ended a stream, with its reason.
std::string EndOf(const grpc::Status& status) {
  return std::to_string(status.error_code()) + " " + DetailsOf(status).reason;
}

TEST_F(GrpcDispatchTest, AStreamOfACertainAgeAnswersWhatItTookAndEnds) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  const Seen a = WaitSeen();
  ASSERT_TRUE(stream->Write(StreamedPut("b")));
  const Seen b = WaitSeen();
  writes_.Tick(BootNow() + seconds(800));  // too early, whatever its part of the last tenth
  ASSERT_TRUE(stream->Write(StreamedPut("c")));
  const Seen c = WaitSeen();
  writes_.Tick(BootNow() + seconds(1001));
  writes_.Tick(BootNow() + seconds(1001));
  stream->Write(StreamedPut("late"));
  c.done(grpc::Status::OK, StreamedAnswer(3));
  a.done(grpc::Status::OK, StreamedAnswer(1));
  b.done(grpc::Status::OK, StreamedAnswer(2));
  v1::WriteResponse response;
  for (uint64_t version = 1; version <= 3; ++version) {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.put().version(), version);
  }
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(EndOf(stream->Finish()), "14 CONNECTION_AGE");
  std::lock_guard lock(mutex_);
  EXPECT_TRUE(seen_.empty()) << "a message was taken after the stream had been given up";
}

TEST_F(GrpcDispatchTest, AnIdleStreamEndsByAgeToo) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  WaitSeen().done(grpc::Status::OK, StreamedAnswer(1));
  v1::WriteResponse response;
  ASSERT_TRUE(stream->Read(&response));
  writes_.Tick(BootNow() + seconds(1001));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(EndOf(stream->Finish()), "14 CONNECTION_AGE");
}

TEST_F(GrpcDispatchTest, AStopEndsStreamsAndLaterOnesAtOnce) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  const Seen seen = WaitSeen();
  writes_.Stop();
  seen.done(grpc::Status::OK, StreamedAnswer(1));
  v1::WriteResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(EndOf(stream->Finish()), "14 SHUTTING_DOWN");

  grpc::ClientContext later_context;
  const auto later = stub_->Write(&later_context);
  later->Write(StreamedPut("b"));
  EXPECT_FALSE(later->Read(&response));
  EXPECT_EQ(EndOf(later->Finish()), "14 SHUTTING_DOWN");
}

TEST_F(GrpcDispatchTest, ADrainedNodeEndsStreamsAndTakesLaterOnes) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  const Seen seen = WaitSeen();
  writes_.EndAll();
  seen.done(grpc::Status::OK, StreamedAnswer(1));
  v1::WriteResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(EndOf(stream->Finish()), "14 DRAINING");

  grpc::ClientContext later_context;
  const auto later = stub_->Write(&later_context);
  ASSERT_TRUE(later->Write(StreamedPut("b")));
  WaitSeen().done(grpc::Status::OK, StreamedAnswer(2));
  ASSERT_TRUE(later->Read(&response));
  later->WritesDone();
  EXPECT_FALSE(later->Read(&response));
  EXPECT_EQ(EndOf(later->Finish()), "0 ");
}

// A few bytes may ask for megabytes: what may come back counts, too.
TEST_F(GrpcDispatchTest, AStreamHoldsRoomForWhatTransactionsRead) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  v1::WriteRequest request;
  request.mutable_txn()->add_then()->mutable_list()->set_prefix("a");
  constexpr size_t kAhead = kStreamedBytesMax / kStreamedAnswerRoom;
  std::thread writer = Run([&] {
    for (size_t i = 0; i < kAhead + 3; ++i) stream->Write(request);
    stream->WritesDone();
  });
  std::vector<Seen> seen;
  for (size_t i = 0; i < kAhead; ++i) seen.push_back(WaitSeen());
  const auto nothing_more = [&] {
    std::unique_lock lock(mutex_);
    return !changed_.wait_for(lock, milliseconds(200), [this] { return !seen_.empty(); });
  };
  EXPECT_TRUE(nothing_more()) << "read beyond its bound";
  // The last one's answer is large and waits for those before it.
  v1::WriteResponse large;
  large.mutable_txn()->add_results()->mutable_get()->mutable_item()->set_data(
      std::string(kStreamedAnswerRoom, 'x'));
  seen.back().done(grpc::Status::OK, large.SerializeAsString());
  EXPECT_TRUE(nothing_more()) << "an answer that is not sent is still there";
  seen.pop_back();
  int answers = 0;
  std::thread reader = Run([&] {
    v1::WriteResponse response;
    while (stream->Read(&response)) ++answers;
  });
  for (Seen& each : seen) each.done(grpc::Status::OK, StreamedAnswer(1));
  for (int i = 0; i < 3; ++i) WaitSeen().done(grpc::Status::OK, StreamedAnswer(1));
  writer.join();
  reader.join();
  EXPECT_EQ(answers, static_cast<int>(kAhead) + 3);
  EXPECT_TRUE(stream->Finish().ok());
}

// --- Errors ---

TEST_F(GrpcDispatchTest, AStreamThatBreaksAfterItWasGivenUpEnds) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  const Seen seen = WaitSeen();
  writes_.Stop();
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  seen.done(grpc::Status::OK, StreamedAnswer(1));
}

TEST_F(GrpcDispatchTest, AStreamWhoseClientVanishesCancelsItsWrites) {
  grpc::ClientContext context;
  const auto stream = stub_->Write(&context);
  ASSERT_TRUE(stream->Write(StreamedPut("a")));
  const Seen seen = WaitSeen();
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;
  seen.call->OnCancel([&] {
    std::lock_guard lock(mutex);
    cancelled = true;
    changed.notify_all();
  });
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return cancelled; });
  }
  // The answer that comes too late goes nowhere, safely.
  seen.done(grpc::Status::OK, StreamedAnswer(1));
}

TEST_F(GrpcDispatchTest, AClientThatVanishesCancelsItsCall) {
  grpc::ClientContext context;
  grpc::Status status;
  std::thread caller = Run([&] {
    v1::PutResponse response;
    status = stub_->Put(&context, v1::PutRequest(), &response);
  });
  const Seen seen = WaitSeen();
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;
  seen.call->OnCancel([&] {
    std::lock_guard lock(mutex);
    cancelled = true;
    changed.notify_all();
  });
  context.TryCancel();
  caller.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return cancelled; });
  }
  EXPECT_TRUE(seen.call->cancelled());
  // The answer that comes too late goes nowhere, safely.
  seen.done(grpc::Status::OK, "late");
}

TEST_F(GrpcDispatchTest, StreamsThatAreNotBuiltRefuseByName) {
  grpc::ClientContext watch_context;
  const auto watch = stub_->Watch(&watch_context, v1::WatchRequest());
  v1::WatchResponse event;
  EXPECT_FALSE(watch->Read(&event));
  const grpc::Status watched = watch->Finish();
  EXPECT_EQ(watched.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(DetailsOf(watched).reason, "NOT_IN_THIS_BUILD");
  EXPECT_NE(watched.error_message().find("quorate.v1.Config/Watch"), std::string::npos);
}

TEST_F(GrpcDispatchTest, MoreThanEightMebibytesAreRefusedByGrpc) {
  grpc::ClientContext context;
  v1::PutRequest request;
  request.set_data(std::string(9 << 20, 'x'));
  v1::PutResponse response;
  EXPECT_EQ(stub_->Put(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(GrpcDispatchTest, APortInUseIsRefusedWithWhatToDo) {
  grpc::ServerBuilder builder;
  const auto second = Listen(&builder, {}, address_, "controlPlane.address");
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("Address already in use"), absl::string_view::npos)
      << second.status();
  EXPECT_NE(second.status().message().find("controlPlane.address"), absl::string_view::npos);
}

}  // namespace
}  // namespace quorate::services
