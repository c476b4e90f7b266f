// Config's time-to-lives: what goes to the ingress, what comes back, and that many renewals are one
// write.
#include <gtest/gtest.h>

#include <chrono>

#include "google/protobuf/text_format.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/config_service.h"
#include "services/errors.h"
#include "services/system_clock.h"
#include "services/validate.h"
#include "services/write_stream.h"
#include "tests/services/fake_backend.h"

namespace quorate::services {
namespace {

using std::chrono::seconds;

constexpr Instant kTtlStart{seconds(1000)};

// How a call ended, if it has.
struct TtlEnd {
  int times = 0;
  grpc::Status status;
  std::string response;
  CallDone Done() {
    return [this](grpc::Status ended, std::string bytes) {
      ++times;
      status = std::move(ended);
      response = std::move(bytes);
    };
  }
};

class ConfigTtl : public ::testing::Test {
 protected:
  ConfigTtl() {
    node_.status.leader = StoreId(2);
    node_.status.term = raft::Term(7);
    node_.status.birth_complete = true;
    service_.SetBackend(node_.Backend());
  }
  CallPtr Call(std::string_view method, const google::protobuf::Message& request, TtlEnd* end,
               Duration timeout = seconds(10)) {
    auto call =
        std::make_shared<CallContext>(kTtlStart + timeout, std::map<std::string, std::string>());
    service_.Handle(method, request.SerializeAsString(), call, end->Done());
    return call;
  }
  CallPtr KeepAlive(uint64_t ttl, TtlEnd* end) {
    v1::KeepAliveTtlRequest request;
    request.set_ttl_id(ToHex(ttl));
    return Call("KeepAliveTtl", request, end);
  }
  void AnswerWrite(size_t write, const std::string& text) {
    v1::Answer answer;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &answer));
    ingress::Outcome outcome;
    outcome.kind = ingress::Outcome::Kind::kAnswered;
    outcome.answer = std::make_shared<const std::string>(answer.SerializeAsString());
    node_.writes.at(write).done(outcome);
  }
  std::string Written(size_t write) { return node_.writes.at(write).command.ShortDebugString(); }

  FakeNode node_;
  ReadPool pool_{1, 10};
  ConfigService service_{"n1", &pool_, [] { return kTtlStart; }};
};

TEST_F(ConfigTtl, AGrantIsAskedFor) {
  v1::GrantTtlRequest request;
  request.mutable_ttl()->set_seconds(2);
  request.mutable_ttl()->set_nanos(1);
  TtlEnd end;
  Call("GrantTtl", request, &end);
  EXPECT_EQ(Written(0), "grant_ttl { ttl_ms: 2001 }");
  AnswerWrite(0, "revision: 9 succeeded: true results { ttl_id: 161 ttl_ms: 2001 }");
  ASSERT_TRUE(end.status.ok());
  v1::GrantTtlResponse response;
  ASSERT_TRUE(response.ParseFromString(end.response));
  EXPECT_EQ(response.ttl_id(), "00000000000000a1");
  EXPECT_EQ(response.ttl().seconds(), 2);
  EXPECT_EQ(response.ttl().nanos(), 1'000'000);
  EXPECT_EQ(response.header().revision(), 9u);
}

// The cluster chooses the id, so that a repeat is the same write.
TEST_F(ConfigTtl, ARepeatedGrantIsTheSameCommand) {
  v1::GrantTtlRequest request;
  request.mutable_ttl()->set_seconds(2);
  request.set_request_id("r");
  request.set_request_revision(3);
  TtlEnd first, second;
  Call("GrantTtl", request, &first);
  Call("GrantTtl", request, &second);
  EXPECT_EQ(Written(0), Written(1));
  EXPECT_EQ(node_.writes[0].command.client_request().command_hash().size(), 16u);
}

TEST_F(ConfigTtl, ARevocationSaysHowMuchWent) {
  v1::RevokeTtlRequest request;
  request.set_ttl_id("00000000000000a1");
  TtlEnd end;
  Call("RevokeTtl", request, &end);
  EXPECT_EQ(Written(0), "revoke_ttl { ttl_id: 161 }");
  AnswerWrite(0, "revision: 10 succeeded: true results { deleted: 3 }");
  v1::RevokeTtlResponse response;
  ASSERT_TRUE(response.ParseFromString(end.response));
  EXPECT_EQ(response.deleted(), 3u);
  TtlEnd gone;
  Call("RevokeTtl", request, &gone);
  AnswerWrite(1, "code: 5 reason: 'TTL_NOT_FOUND'");
  EXPECT_EQ(gone.status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ConfigTtl, APutIsBound) {
  v1::PutRequest request;
  request.set_key("a");
  request.set_text("v");
  request.set_ttl_id("00000000000000a1");
  TtlEnd end;
  Call("Put", request, &end);
  EXPECT_EQ(node_.writes[0].command.transaction().then(0).put().ttl_id(), 0xa1u);
}

TEST_F(ConfigTtl, ABoundItemSaysToWhat) {
  node_.state.Put("a", "v");
  node_.state.items["a"].ttl = 0xa1;
  node_.status.fresh_as_of = kTtlStart;
  v1::GetRequest request;
  request.set_key("a");
  TtlEnd end;
  Call("Get", request, &end);
  pool_.Stop();  // it has answered
  v1::GetResponse response;
  ASSERT_TRUE(response.ParseFromString(end.response));
  EXPECT_EQ(response.item().ttl_id(), "00000000000000a1");
}

TEST_F(ConfigTtl, RenewalsThatComeMeanwhileGoTogether) {
  TtlEnd first, second, third, again;
  KeepAlive(1, &first);
  KeepAlive(2, &second);
  KeepAlive(3, &third);
  KeepAlive(2, &again);
  ASSERT_EQ(node_.writes.size(), 1u) << "one at a time";
  EXPECT_EQ(Written(0), "keep_alive_ttl { ttl_id: 1 }");
  AnswerWrite(0, "revision: 4 results { ttl_id: 1 ttl_ms: 1500 }");
  v1::KeepAliveTtlResponse response;
  ASSERT_TRUE(response.ParseFromString(first.response));
  EXPECT_EQ(response.ttl_id(), "0000000000000001");
  EXPECT_EQ(response.remaining().seconds(), 1);
  EXPECT_EQ(response.header().node_id(), "n1");
  ASSERT_EQ(node_.writes.size(), 2u);
  EXPECT_EQ(Written(1), "keep_alive_ttl { ttl_id: 2 ttl_id: 3 }");
  AnswerWrite(1, "revision: 4 results { ttl_id: 2 ttl_ms: 5 } results { ttl_id: 3 }");
  EXPECT_TRUE(second.status.ok());
  EXPECT_TRUE(again.status.ok());
  EXPECT_EQ(third.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailsOf(third.status).reason, "TTL_NOT_FOUND");
  EXPECT_EQ(DetailsOf(third.status).metadata.at("ttl_id"), "0000000000000003");
  EXPECT_EQ(node_.writes.size(), 2u) << "nothing waits any more";
}

TEST_F(ConfigTtl, AFailedWriteIsEachRenewalsOwnFailure) {
  TtlEnd first, second;
  KeepAlive(1, &first);
  KeepAlive(2, &second);
  ingress::Outcome outcome;
  outcome.kind = ingress::Outcome::Kind::kNotAccepted;
  outcome.reason = "NO_LEADER";
  node_.writes[0].done(outcome);
  EXPECT_EQ(first.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(first.status).metadata.at("ttl_id"), "0000000000000001");
  EXPECT_TRUE(DetailsOf(first.status).retry_delay.has_value());
  // The next goes on.
  AnswerWrite(1, "revision: 4 results { ttl_id: 2 ttl_ms: 5 }");
  EXPECT_TRUE(second.status.ok());
  EXPECT_EQ(first.times + second.times, 2);
}

TEST_F(ConfigTtl, WhoGoesAwayHoldsUpNobody) {
  TtlEnd first, second, third;
  const CallPtr call = KeepAlive(1, &first);
  const CallPtr waiting = KeepAlive(2, &second);
  KeepAlive(3, &third);
  waiting->Cancel();
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::CANCELLED);
  call->Cancel();
  EXPECT_EQ(first.status.error_code(), grpc::StatusCode::CANCELLED);
  // The write that nobody waits for was given up, and the next one is of who is still there.
  EXPECT_EQ(node_.cancelled.size(), 1u);
  ASSERT_EQ(node_.writes.size(), 2u);
  EXPECT_EQ(Written(1), "keep_alive_ttl { ttl_id: 3 }");
  AnswerWrite(1, "revision: 4 results { ttl_id: 3 ttl_ms: 5 }");
  EXPECT_TRUE(third.status.ok());
  EXPECT_EQ(first.times, 1);
  EXPECT_EQ(second.times, 1);
}

// --- Errors ---

TEST_F(ConfigTtl, NamesWhatIsWrong) {
  const auto grant = [](int64_t whole, int32_t nanos) {
    v1::GrantTtlRequest request;
    request.mutable_ttl()->set_seconds(whole);
    request.mutable_ttl()->set_nanos(nanos);
    return Validate(request);
  };
  EXPECT_TRUE(grant(1, 0).ok());
  EXPECT_TRUE(grant(kTtlSecondsMax, 0).ok());
  for (const grpc::Status& status : {grant(0, 0), grant(0, 999'999'999), grant(-1, 0), grant(5, -1),
                                     grant(kTtlSecondsMax, 1), grant(5, 1'000'000'000)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(DetailsOf(status).metadata.at("field"), "ttl");
  }
  for (const char* id : {"", "a1", "00000000000000A1", "0000000000000000", "00000000000000a1 "}) {
    v1::RevokeTtlRequest request;
    request.set_ttl_id(id);
    EXPECT_EQ(DetailsOf(Validate(request)).metadata.at("field"), "ttl_id") << id;
  }
}

TEST_F(ConfigTtl, AnAnswerThatIsNone) {
  TtlEnd end;
  KeepAlive(1, &end);
  AnswerWrite(0, "revision: 4");
  EXPECT_EQ(end.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  v1::GrantTtlRequest request;
  request.mutable_ttl()->set_seconds(2);
  TtlEnd grant;
  Call("GrantTtl", request, &grant);
  AnswerWrite(1, "revision: 4");
  EXPECT_EQ(grant.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

// --- The stream ---

// A server whose one call is the stream, with a handler that answers or refuses at once.
class KeepAliveStream : public ::testing::Test {
 protected:
  class Service final : public v1::Config::WithRawCallbackMethod_KeepAliveTtl<v1::Config::Service> {
   public:
    grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KeepAliveTtl(
        grpc::CallbackServerContext* context) override {
      return streams.New("quorate.v1.Config/KeepAliveTtl", handler, observer, context,
                         KeepAliveErrorResponse);
    }
    WriteStreams streams;
    Handler handler = [](std::string_view, const std::string& bytes, const CallPtr&,
                         const CallDone& done) {
      v1::KeepAliveTtlRequest request;
      EXPECT_TRUE(request.ParseFromString(bytes));
      if (request.ttl_id() == "gone") {
        return done(MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "it has expired",
                              {{"ttl_id", "gone"}}),
                    "");
      }
      v1::KeepAliveTtlResponse response;
      response.set_ttl_id(request.ttl_id());
      done(grpc::Status::OK, response.SerializeAsString());
    };
    CallObserver observer = [](std::string_view, grpc::StatusCode, Duration) {};
  };

  void Start() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = v1::Config::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                                    grpc::InsecureChannelCredentials()));
    stream_ = stub_->KeepAliveTtl(&context_);
  }
  v1::KeepAliveTtlResponse Say(const std::string& id) {
    v1::KeepAliveTtlRequest request;
    request.set_ttl_id(id);
    EXPECT_TRUE(stream_->Write(request));
    v1::KeepAliveTtlResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }

  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Config::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::KeepAliveTtlRequest, v1::KeepAliveTtlResponse>>
      stream_;
};

TEST_F(KeepAliveStream, EachMessageHasItsOwnStatus) {
  Start();
  EXPECT_EQ(Say("a").ttl_id(), "a");
  const v1::KeepAliveTtlResponse gone = Say("gone");
  EXPECT_EQ(gone.code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(gone.ttl_id(), "gone");
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(gone.status()));
  EXPECT_EQ(DetailsOf(FromProto(status)).reason, "TTL_NOT_FOUND");
  EXPECT_EQ(Say("b").code(), 0);
  stream_->WritesDone();
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(KeepAliveStream, AnOldOneEndsAlsoWhenNothingIsSaid) {
  Start();
  EXPECT_EQ(Say("a").code(), 0);
  service_.streams.Tick(BootNow() + std::chrono::hours(1));
  v1::KeepAliveTtlResponse response;
  EXPECT_FALSE(stream_->Read(&response));
  const grpc::Status ended = stream_->Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(ended).reason, "CONNECTION_AGE");
}

TEST_F(KeepAliveStream, AClientThatGoesAwayEndsIt) {
  Start();
  EXPECT_EQ(Say("a").code(), 0);
  context_.TryCancel();
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Nothing is left of it: the server's end waits for all.
  server_->Shutdown();
}

}  // namespace
}  // namespace quorate::services
