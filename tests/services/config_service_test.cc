#include "services/config_service.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <thread>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tests/services/fake_backend.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Instant kStart{seconds(1000)};

// One call's answer, which may come on another thread.
class Answer {
 public:
  CallDone Done() {
    return [this](grpc::Status status, std::string response) {
      std::lock_guard lock(mutex_);
      EXPECT_FALSE(ended_) << "answered twice";
      ended_ = true;
      status_ = std::move(status);
      response_ = std::move(response);
      changed_.notify_all();
    };
  }
  bool ended() const {
    std::lock_guard lock(mutex_);
    return ended_;
  }
  const grpc::Status& Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_; });
    return status_;
  }
  template <typename Response>
  Response Ok() {
    EXPECT_TRUE(Wait().ok()) << status_.error_message();
    Response response;
    EXPECT_TRUE(response.ParseFromString(response_));
    return response;
  }
  std::string Reason() { return DetailsOf(Wait()).reason; }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  grpc::Status status_;
  std::string response_;
};

class ConfigServiceTest : public ::testing::Test {
 protected:
  ConfigServiceTest() {
    auto membership = std::make_shared<raft::Membership>();
    membership->cluster = ClusterId(0xC1);
    membership->members = {{.store = StoreId(1), .name = "n1", .address = "a:1", .voter = true},
                           {.store = StoreId(2), .name = "n2", .address = "a:2", .voter = true}};
    node_.status.self = StoreId(1);
    node_.status.leader = StoreId(2);
    node_.status.term = raft::Term(7);
    node_.status.membership = membership;
    node_.status.fresh_as_of = kStart - milliseconds(20);
    node_.status.birth_complete = true;
    service_.SetBackend(node_.Backend());
  }

  void Call(std::string_view method, const google::protobuf::Message& request, Answer* answer,
            Duration timeout = seconds(10)) {
    CallBytes(method, request.SerializeAsString(), answer, timeout);
  }
  void CallBytes(std::string_view method, std::string bytes, Answer* answer,
                 Duration timeout = seconds(10)) {
    call_ = std::make_shared<CallContext>(
        now_.load() + timeout, std::map<std::string, std::string>{{"x-request-id", "r1"}});
    service_.Handle(method, std::move(bytes), call_, answer->Done());
  }
  void Set(std::optional<Instant> fresh_as_of) {
    std::lock_guard lock(node_.mutex);
    node_.status.fresh_as_of = fresh_as_of;
  }
  static ingress::Outcome Applied(const v1::Answer& answer) {
    ingress::Outcome outcome;
    outcome.kind = ingress::Outcome::Kind::kAnswered;
    outcome.answer = std::make_shared<const std::string>(answer.SerializeAsString());
    return outcome;
  }
  v1::PutRequest PutOf(const std::string& key, const std::string& text) {
    v1::PutRequest request;
    request.set_key(key);
    request.set_text(text);
    return request;
  }

  std::atomic<Instant> now_ = kStart;
  FakeNode node_;
  ReadPool pool_{2, 100};
  ConfigService service_{"n1", &pool_, [this] { return now_.load(); }};
  CallPtr call_;
};

TEST_F(ConfigServiceTest, GetAnswersWithItemAndHeader) {
  node_.state.Put("a", "text");
  node_.state.Put("b", "\xFF", false);
  v1::GetRequest request;
  request.set_key("a");
  Answer first;
  Call("Get", request, &first);
  EXPECT_EQ(first.Ok<v1::GetResponse>().ShortDebugString(),
            "header { cluster_id: \"00000000000000c1\" node_id: \"n1\" leader_id: \"n2\" term: 7 "
            "revision: 3 staleness { age { nanos: 20000000 } } } item { key: \"a\" text: \"text\" "
            "create_revision: 2 mod_revision: 2 version: 1 }");
  request.set_key("b");
  Answer second;
  Call("Get", request, &second);
  EXPECT_EQ(second.Ok<v1::GetResponse>().item().data(), "\xFF");
}

TEST_F(ConfigServiceTest, AnEmptyTextIsAValue) {
  node_.state.Put("a", "");
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Ok<v1::GetResponse>().item().value_case(), v1::Item::kText);
}

TEST_F(ConfigServiceTest, ListGoesPageByPageAtOneRevision) {
  for (const char* key : {"p/a", "p/b", "p/c", "q"}) node_.state.Put(key, "v");
  v1::ListRequest request;
  request.set_prefix("p/");
  request.set_page_size(2);
  Answer first;
  Call("List", request, &first);
  const auto page = first.Ok<v1::ListResponse>();
  ASSERT_EQ(page.items_size(), 2);
  EXPECT_EQ(page.items(1).key(), "p/b");
  EXPECT_EQ(page.header().revision(), 5u);
  EXPECT_TRUE(page.header().has_staleness());
  ASSERT_NE(page.next_page_token(), "");

  request.set_page_token(page.next_page_token());
  request.set_page_size(1000);
  Answer second;
  Call("List", request, &second);
  const auto last = second.Ok<v1::ListResponse>();
  ASSERT_EQ(last.items_size(), 1);
  EXPECT_EQ(last.items(0).key(), "p/c");
  EXPECT_EQ(last.header().revision(), 5u);
  EXPECT_FALSE(last.header().has_staleness());
  EXPECT_EQ(last.next_page_token(), "");
}

TEST_F(ConfigServiceTest, ListCanLeaveValuesOutOrOnlyCount) {
  node_.state.Put("p/a", "v");
  node_.state.Put("p/b", "v");
  v1::ListRequest request;
  request.set_keys_only(true);
  Answer keys;
  Call("List", request, &keys);
  const auto page = keys.Ok<v1::ListResponse>();
  ASSERT_EQ(page.items_size(), 2);
  EXPECT_EQ(page.items(0).value_case(), v1::Item::VALUE_NOT_SET);
  EXPECT_EQ(page.items(0).version(), 1u);
  request.Clear();
  request.set_prefix("p/a");
  request.set_count_only(true);
  Answer count;
  Call("List", request, &count);
  EXPECT_EQ(count.Ok<v1::ListResponse>().count(), 1u);
}

TEST_F(ConfigServiceTest, AfterARestartAReadWaitsForTheFirstLeader) {
  Set(std::nullopt);
  node_.state.Put("a", "v");
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_FALSE(answer.ended());
  EXPECT_TRUE(service_.has_waiting());
  now_ = kStart + milliseconds(500);
  service_.Tick();
  EXPECT_FALSE(answer.ended());
  Set(kStart + milliseconds(550));
  now_ = kStart + milliseconds(600);
  service_.Tick();
  const auto response = answer.Ok<v1::GetResponse>();
  EXPECT_EQ(response.header().staleness().age().nanos(), 50'000'000);
  EXPECT_FALSE(service_.has_waiting());
}

TEST_F(ConfigServiceTest, WithoutALeaderItThenAnswersThatItDoesNotKnow) {
  Set(std::nullopt);
  node_.state.Put("a", "v");
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  now_ = kStart + seconds(1);
  service_.Tick();
  EXPECT_TRUE(answer.Ok<v1::GetResponse>().header().staleness().unknown());
}

TEST_F(ConfigServiceTest, ALaterPageWaitsUntilThisNodeIsThatFar) {
  for (const char* key : {"a", "b", "c"}) node_.state.Put(key, "v");
  v1::ListRequest request;
  request.set_page_size(1);
  Answer first;
  Call("List", request, &first);
  request.set_page_token(first.Ok<v1::ListResponse>().next_page_token());
  // The next page is asked of a node that lags behind.
  node_.state.revision = Revision(2);
  Answer second;
  Call("List", request, &second);
  service_.Tick();
  EXPECT_FALSE(second.ended());
  node_.state.revision = Revision(4);
  service_.Tick();
  EXPECT_EQ(second.Ok<v1::ListResponse>().items(0).key(), "b");
}

v1::GetRequest GetWith(v1::Consistency consistency) {
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->set_consistency(consistency);
  return request;
}

TEST_F(ConfigServiceTest, ALinearizableReadWaitsUntilItsIndexIsApplied) {
  node_.state.Put("a", "old");
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer);
  ASSERT_EQ(node_.questions.size(), 1u);
  EXPECT_EQ(node_.questions[0].first, raft::ReadMode::kRound);
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(6), std::nullopt});
  while (!service_.has_waiting()) std::this_thread::yield();
  service_.Tick();
  EXPECT_FALSE(answer.ended()) << "entry 6 is not applied";
  node_.state.Put("a", "new");
  node_.state.applied = raft::Index(6);
  now_ = kStart + milliseconds(30);
  service_.Tick();
  const auto response = answer.Ok<v1::GetResponse>();
  EXPECT_EQ(response.item().text(), "new");
  EXPECT_EQ(response.header().staleness().age().nanos(), 30'000'000) << "as old as its question";
}

TEST_F(ConfigServiceTest, ALinearizableReadIsRepeatedOverALeaderChange) {
  node_.state.Put("a", "v");
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer);
  for (raft::ReadOutcome outcome : {raft::ReadOutcome::kLeaderLost, raft::ReadOutcome::kNoLeader,
                                    raft::ReadOutcome::kTimedOut, raft::ReadOutcome::kTooMany}) {
    ASSERT_EQ(node_.questions.size(), 1u);
    node_.AnswerRead({0, outcome, raft::Index(), std::nullopt});
    while (!service_.has_waiting()) std::this_thread::yield();
    service_.Tick();
    EXPECT_TRUE(node_.questions.empty()) << "not again at once";
    now_ = now_.load() + milliseconds(25);
    service_.Tick();
  }
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt});
  EXPECT_EQ(answer.Ok<v1::GetResponse>().item().text(), "v");
}

TEST_F(ConfigServiceTest, WhatBeginsToWaitWakesWhoeverTicksAndATickDoesNot) {
  ConfigService service("n1", &pool_, [this] { return now_.load(); });
  std::atomic<int> woken = 0;
  service.OnWaiting([&woken] { ++woken; });
  service.SetBackend(node_.Backend());
  node_.read_index = raft::ReadResult();
  Answer answer;
  service.Handle(
      "Get", GetWith(v1::CONSISTENCY_LINEARIZABLE).SerializeAsString(),
      std::make_shared<CallContext>(kStart + seconds(10), std::map<std::string, std::string>()),
      answer.Done());
  while (woken == 0) std::this_thread::yield();
  for (int i = 0; i < 3; ++i) service.Tick();
  EXPECT_TRUE(service.has_waiting());
  EXPECT_EQ(woken, 1) << "or housekeeping would spin";
  service.Stop();
  EXPECT_EQ(answer.Reason(), "SHUTTING_DOWN");
}

TEST_F(ConfigServiceTest, AReadThatOutlastsTheLeaseGetsARound) {
  node_.state.Put("a", "v");
  node_.state.leases_on = true;
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LEASE), &answer);
  EXPECT_EQ(node_.questions.at(0).first, raft::ReadMode::kLease);
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), now_.load()});
  const auto asked = [this] {
    std::lock_guard lock(node_.mutex);
    return node_.questions.size();
  };
  for (const Instant until = BootNow() + std::chrono::seconds(30); asked() == 0;) {
    ASSERT_LT(BootNow(), until);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_FALSE(answer.ended());
  EXPECT_EQ(node_.questions.at(0).first, raft::ReadMode::kRound) << "or it might do so for ever";
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt});
  EXPECT_EQ(answer.Ok<v1::GetResponse>().item().text(), "v");
}

TEST_F(ConfigServiceTest, AReadWithinTheLeaseIsDoneAtOnce) {
  node_.state.Put("a", "v");
  node_.state.leases_on = true;
  node_.read_index->lease_until = now_.load() + milliseconds(1);
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LEASE), &answer);
  EXPECT_EQ(answer.Ok<v1::GetResponse>().item().text(), "v");
}

TEST_F(ConfigServiceTest, ALinearizableListShowsEachItemOnce) {
  node_.state.Put("a", "v");
  v1::ListRequest request;
  request.mutable_read()->set_consistency(v1::CONSISTENCY_LINEARIZABLE);
  Answer answer;
  Call("List", request, &answer);
  EXPECT_EQ(answer.Ok<v1::ListResponse>().items_size(), 1);
}

TEST_F(ConfigServiceTest, AMinimumRevisionIsWaitedFor) {
  node_.state.Put("a", "v");
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->set_min_revision(3);
  Answer answer;
  Call("Get", request, &answer);
  service_.Tick();
  EXPECT_FALSE(answer.ended());
  node_.state.Put("b", "v");
  service_.Tick();
  EXPECT_EQ(answer.Ok<v1::GetResponse>().header().revision(), 3u);
}

TEST_F(ConfigServiceTest, PutGoesToTheIngressAndComesBack) {
  Answer answer;
  Call("Put", PutOf("a", "v"), &answer);
  ASSERT_EQ(node_.writes.size(), 1u);
  EXPECT_EQ(node_.writes[0].command.transaction().then(0).put().key(), "a");
  EXPECT_EQ(node_.writes[0].deadline, kStart + seconds(10));
  EXPECT_EQ(node_.writes[0].metadata.at("x-request-id"), "r1");
  EXPECT_FALSE(answer.ended());
  v1::Answer applied;
  applied.set_revision(9);
  applied.set_succeeded(true);
  auto* result = applied.add_results();
  result->set_create_revision(4);
  result->set_version(3);
  node_.writes[0].done(Applied(applied));
  EXPECT_EQ(answer.Ok<v1::PutResponse>().ShortDebugString(),
            "header { cluster_id: \"00000000000000c1\" node_id: \"n1\" leader_id: \"n2\" term: 7 "
            "revision: 9 } create_revision: 4 version: 3");
}

TEST_F(ConfigServiceTest, DeleteAnswersHowMany) {
  v1::DeleteRequest request;
  request.set_prefix("p/");
  Answer answer;
  Call("Delete", request, &answer);
  v1::Answer applied;
  applied.set_revision(9);
  applied.add_results()->set_deleted(12);
  ASSERT_EQ(node_.writes.size(), 1u);
  node_.writes[0].done(Applied(applied));
  EXPECT_EQ(answer.Ok<v1::DeleteResponse>().deleted(), 12u);
}

// --- Errors ---

TEST_F(ConfigServiceTest, NoSuchKeyIsNotFound) {
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(answer.Reason(), "KEY_NOT_FOUND");
}

TEST_F(ConfigServiceTest, NoSuchKeySaysOfWhenItKnows) {
  node_.state.Put("b", "v");
  Set(kStart - milliseconds(20) - std::chrono::microseconds(1));
  v1::GetRequest request;
  request.set_key("a");
  Answer known;
  Call("Get", request, &known);
  EXPECT_EQ(DetailsOf(known.Wait()).metadata,
            (ErrorMetadata{{"key", "a"}, {"revision", "2"}, {"staleness_ms", "21"}}));
  EXPECT_EQ(known.Reason(), "KEY_NOT_FOUND");
  Set(std::nullopt);
  Answer unknown;
  Call("Get", request, &unknown);
  now_ = kStart + seconds(1);
  service_.Tick();
  EXPECT_EQ(DetailsOf(unknown.Wait()).metadata.at("staleness_ms"), "unknown");
}

// Reading takes time: what was fresh enough before may not be after.
TEST_F(ConfigServiceTest, NoSuchKeyIsNotSaidWhenItMayBeTooOld) {
  node_.state.on_read = [&](const storage::ReadLimits&) { now_ = kStart + milliseconds(20); };
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->mutable_max_staleness()->set_nanos(30'000'000);
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Reason(), "TOO_STALE");
}

TEST_F(ConfigServiceTest, BadBytesAreRefusedByName) {
  for (const char* method : {"Get", "List", "Put", "Delete"}) {
    Answer answer;
    CallBytes(method, "\x0A\x01\xFF", &answer);
    EXPECT_EQ(answer.Reason(), "INVALID_UTF8") << method;
  }
  EXPECT_TRUE(node_.writes.empty());
}

TEST_F(ConfigServiceTest, TheStateMachinesRefusalIsTheClients) {
  Answer answer;
  Call("Put", PutOf("a", "v"), &answer);
  v1::Answer applied;
  applied.set_code(grpc::StatusCode::ABORTED);
  applied.set_reason("REVISION_MISMATCH");
  applied.set_message("the item is at revision 5");
  (*applied.mutable_metadata())["current_revision"] = "5";
  node_.writes[0].done(Applied(applied));
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(answer.Reason(), "REVISION_MISMATCH");
  EXPECT_EQ(DetailsOf(answer.Wait()).metadata.at("current_revision"), "5");
}

TEST_F(ConfigServiceTest, WhatIsInNoLogMayBeRetriedAndWhatMayBeSaysSo) {
  ingress::Outcome outcome;
  outcome.kind = ingress::Outcome::Kind::kNotAccepted;
  outcome.reason = ingress::kReasonNoLeader;
  Answer refused;
  Call("Put", PutOf("a", "v"), &refused);
  node_.writes[0].done(outcome);
  EXPECT_EQ(refused.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(refused.Reason(), "NO_LEADER");
  EXPECT_TRUE(DetailsOf(refused.Wait()).retry_delay.has_value());

  outcome.reason = ingress::kReasonQueueFull;
  Answer full;
  Call("Put", PutOf("a", "v"), &full);
  node_.writes[1].done(outcome);
  EXPECT_EQ(full.Wait().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);

  outcome = ingress::Outcome();
  outcome.kind = ingress::Outcome::Kind::kUnknown;
  Answer unknown;
  Call("Put", PutOf("a", "v"), &unknown);
  node_.writes[2].done(outcome);
  EXPECT_EQ(unknown.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_NE(unknown.Reason(), "");
}

// An answer comes from a peer: another build's, or a damaged one, must not end this process.
TEST_F(ConfigServiceTest, AnAnswerWithoutItsResultIsUnknown) {
  v1::DeleteRequest request;
  request.set_key("a");
  Answer put, deletion;
  Call("Put", PutOf("a", "v"), &put);
  Call("Delete", request, &deletion);
  ASSERT_EQ(node_.writes.size(), 2u);
  v1::Answer applied;
  applied.set_revision(9);
  node_.writes[0].done(Applied(applied));
  applied.add_results();
  applied.add_results();
  node_.writes[1].done(Applied(applied));
  for (Answer* answer : {&put, &deletion}) {
    EXPECT_EQ(answer->Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(answer->Reason(), "OUTCOME_UNKNOWN");
  }
}

TEST_F(ConfigServiceTest, AClientThatVanishesIsForgotten) {
  Answer answer;
  Call("Put", PutOf("a", "v"), &answer);
  call_->Cancel();
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_EQ(node_.cancelled.size(), 1u);
  EXPECT_EQ(node_.cancelled[0], ingress::WriteId(1));
  // The outcome that was on its way already goes nowhere.
  node_.writes[0].done(ingress::Outcome());
}

// gRPC cancels what has expired: to the metrics that is no client's whim.
TEST_F(ConfigServiceTest, AnExpiredCallIsNotCountedAsCancelled) {
  Answer write;
  Call("Put", PutOf("a", "v"), &write, seconds(1));
  now_ = kStart + seconds(1);
  call_->Cancel();
  EXPECT_EQ(write.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(node_.cancelled.size(), 1u);

  Set(std::nullopt);
  v1::GetRequest request;
  request.set_key("a");
  Answer read;
  Call("Get", request, &read, seconds(1));
  EXPECT_FALSE(read.ended());
  now_ = kStart + seconds(2);
  call_->Cancel();
  service_.Tick();
  EXPECT_EQ(read.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(ConfigServiceTest, AParkedReadOfAVanishedClientGoesAway) {
  Set(std::nullopt);
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  call_->Cancel();
  service_.Tick();
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(service_.has_waiting());
}

TEST_F(ConfigServiceTest, AStoreThatNeverCaughtUpRefusesEveryRead) {
  node_.caught_up_once = false;
  node_.state.Put("a", "v");
  v1::GetRequest get;
  get.set_key("a");
  Answer first;
  Call("Get", get, &first);
  EXPECT_EQ(first.Reason(), "NOT_CAUGHT_UP");
  v1::ListRequest list;
  list.set_count_only(true);
  Answer second;
  Call("List", list, &second);
  EXPECT_EQ(second.Reason(), "NOT_CAUGHT_UP");
}

TEST_F(ConfigServiceTest, TooStaleIsRefused) {
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->mutable_max_staleness()->set_nanos(19'000'000);
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Reason(), "TOO_STALE");
}

TEST_F(ConfigServiceTest, ATokenOfAnotherListingIsRefused) {
  for (const char* key : {"a", "b"}) node_.state.Put(key, "v");
  v1::ListRequest request;
  request.set_page_size(1);
  Answer first;
  Call("List", request, &first);
  request.set_page_token(first.Ok<v1::ListResponse>().next_page_token());
  request.set_prefix("a");
  Answer second;
  Call("List", request, &second);
  EXPECT_EQ(second.Reason(), "PAGE_TOKEN_INVALID");
}

TEST_F(ConfigServiceTest, WithoutALeaderALinearizableReadEndsAtItsDeadline) {
  node_.read_index = raft::ReadResult();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer);
  while (!service_.has_waiting()) std::this_thread::yield();
  now_ = kStart + seconds(10) - milliseconds(40);
  service_.Tick();
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.Reason(), "NO_LEADER");
  EXPECT_TRUE(DetailsOf(answer.Wait()).retry_delay);
}

// The leader has died, or its majority has, and the question has not come back yet.
TEST_F(ConfigServiceTest, ALinearizableReadWhoseQuestionIsUnderWayEndsAtItsDeadline) {
  node_.state.Put("a", "v");
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer);
  EXPECT_TRUE(service_.has_asked());
  EXPECT_FALSE(service_.has_waiting()) << "it is not to be judged again";
  now_ = kStart + seconds(10) - kReadDeadlineMargin - milliseconds(1);
  service_.Tick();
  EXPECT_FALSE(answer.ended());
  now_ = kStart + seconds(10) - kReadDeadlineMargin;
  service_.Tick();
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.Reason(), "NO_LEADER");
  EXPECT_FALSE(service_.has_asked());
  // What comes then is nobody's any more.
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt});
  pool_.Stop();
  EXPECT_EQ(answer.Reason(), "NO_LEADER");
}

// Housekeeping may sleep for longer than this read has.
TEST_F(ConfigServiceTest, AQuestionWithLittleTimeWakesWhoeverTicks) {
  ConfigService service("n1", &pool_, [this] { return now_.load(); });
  int woken = 0;
  service.OnWaiting([&woken] { ++woken; });
  service.SetBackend(node_.Backend());
  node_.read_index.reset();
  const auto ask = [&](Duration timeout, Answer* answer) {
    service.Handle(
        "Get", GetWith(v1::CONSISTENCY_LINEARIZABLE).SerializeAsString(),
        std::make_shared<CallContext>(kStart + timeout, std::map<std::string, std::string>()),
        answer->Done());
  };
  Answer patient, hasty;
  ask(seconds(10), &patient);
  EXPECT_EQ(woken, 0);
  ask(milliseconds(150), &hasty);
  EXPECT_EQ(woken, 1);
  service.Stop();
  EXPECT_EQ(patient.Reason(), "SHUTTING_DOWN");
  EXPECT_EQ(hasty.Reason(), "SHUTTING_DOWN");
}

TEST_F(ConfigServiceTest, ALinearizableReadWithLittleTimeIsAskedAllTheSame) {
  node_.state.Put("a", "v");
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer, milliseconds(40));
  ASSERT_EQ(node_.questions.size(), 1u);
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt});
  EXPECT_EQ(answer.Ok<v1::GetResponse>().item().text(), "v");
}

TEST_F(ConfigServiceTest, MoreReadsThanMayWaitAreRefused) {
  v1::GetRequest request;
  request.set_key("a");
  request.mutable_read()->set_min_revision(1'000'000);
  std::vector<Answer> parked(kParkedReadsMax);
  for (Answer& each : parked) Call("Get", request, &each);
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Reason(), "TOO_MANY_READS");
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  now_ = kStart + seconds(10);
  service_.Tick();
  EXPECT_EQ(parked.front().Reason(), "BEHIND");
  EXPECT_FALSE(service_.has_waiting());
}

TEST_F(ConfigServiceTest, ALeaseReadIsRefusedWhereLeasesAreOff) {
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LEASE), &answer);
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(answer.Reason(), "LEASES_OFF");
  EXPECT_NE(answer.Wait().error_message().find("LINEARIZABLE"), std::string::npos);
  // A store that is still to be filled does not know whether they are.
  node_.caught_up_once = false;
  Answer empty;
  Call("Get", GetWith(v1::CONSISTENCY_LEASE), &empty);
  EXPECT_EQ(empty.Reason(), "NOT_CAUGHT_UP");
}

TEST_F(ConfigServiceTest, AnIndexThatComesAfterStopReadsNothing) {
  node_.read_index.reset();
  Answer answer;
  Call("Get", GetWith(v1::CONSISTENCY_LINEARIZABLE), &answer);
  service_.Stop();
  node_.AnswerRead({0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt});
  EXPECT_EQ(answer.Reason(), "SHUTTING_DOWN");
}

TEST_F(ConfigServiceTest, ACompactedPageIsOutOfRange) {
  for (const char* key : {"a", "b"}) node_.state.Put(key, "v");
  v1::ListRequest request;
  request.set_page_size(1);
  Answer first;
  Call("List", request, &first);
  request.set_page_token(first.Ok<v1::ListResponse>().next_page_token());
  node_.state.Put("c", "v");
  Answer second;
  Call("List", request, &second);
  EXPECT_EQ(second.Wait().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(second.Reason(), "REVISION_COMPACTED");
}

TEST_F(ConfigServiceTest, WhoWasLetInLaterOnlyLacksWhatTheOthersHave) {
  node_.status.birth_complete = false;
  node_.joined = true;
  ReadPool pool(1, 1);
  ConfigService service("n1", &pool, [] { return kStart; });
  service.SetBackend(node_.Backend());
  Answer behind;
  service.Handle(
      "Put", PutOf("a", "v").SerializeAsString(),
      std::make_shared<CallContext>(kStart + seconds(10), std::map<std::string, std::string>()),
      behind.Done());
  EXPECT_EQ(behind.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(behind.Reason(), "NOT_CAUGHT_UP");
  EXPECT_TRUE(node_.writes.empty());
}

TEST_F(ConfigServiceTest, BeforeBirthIsCompleteAWriteIsRefusedAtOnce) {
  node_.status.birth_complete = false;
  Answer refused;
  Call("Put", PutOf("a", "v"), &refused);
  ASSERT_TRUE(refused.ended());
  EXPECT_EQ(refused.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(refused.Reason(), "NOT_BORN");
  EXPECT_NE(refused.Wait().error_message().find("quorate status"), std::string::npos);
  EXPECT_TRUE(DetailsOf(refused.Wait()).retry_delay.has_value());
  EXPECT_TRUE(node_.writes.empty());
  // Without a leader it waits for one, as ever.
  node_.status.leader = StoreId();
  Answer waits;
  Call("Put", PutOf("a", "v"), &waits);
  EXPECT_FALSE(waits.ended());
  ASSERT_EQ(node_.writes.size(), 1u);
  ingress::Outcome none;
  none.kind = ingress::Outcome::Kind::kNotAccepted;
  node_.writes[0].done(none);
  EXPECT_TRUE(waits.ended());
}

// A new learner's state is at revision 1: that is no revision to name a write by.
TEST_F(ConfigServiceTest, AnEmptyNodeNamesNoWriteByItsOwnRevision) {
  node_.caught_up_once = false;
  v1::PutRequest request = PutOf("a", "v");
  request.set_request_id("id");
  Answer refused;
  Call("Put", request, &refused);
  EXPECT_EQ(refused.Reason(), "NOT_CAUGHT_UP");
  EXPECT_EQ(refused.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(node_.writes.empty());
  // It passes on what its callers have named, and what has no name.
  Answer named, nameless;
  request.set_request_revision(7);
  Call("Put", request, &named);
  Call("Put", PutOf("a", "v"), &nameless);
  ASSERT_EQ(node_.writes.size(), 2u);
  EXPECT_EQ(node_.writes[0].command.client_request().revision(), 7u);
  ingress::Outcome none;
  none.kind = ingress::Outcome::Kind::kNotAccepted;
  for (FakeNode::Write& write : node_.writes) write.done(none);
}

TEST_F(ConfigServiceTest, AFailingDatabaseIsAnError) {
  node_.state.failure = absl::InternalError("disk I/O error");
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer);
  EXPECT_EQ(answer.Reason(), "READ_FAILED");
}

TEST_F(ConfigServiceTest, ABusyDatabaseIsSaidInTimeAndMayBeAskedAgain) {
  std::vector<milliseconds> waits;
  node_.state.on_read = [&](const storage::ReadLimits& limits) { waits.push_back(limits.wait); };
  node_.state.failure = absl::DeadlineExceededError("all 4 database readers are busy");
  v1::GetRequest request;
  request.set_key("a");
  for (const Duration timeout :
       {Duration(seconds(60)), Duration(seconds(2)), Duration(milliseconds(20))}) {
    Answer answer;
    Call("Get", request, &answer, timeout);
    EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(answer.Reason(), "READERS_BUSY");
    EXPECT_TRUE(DetailsOf(answer.Wait()).retry_delay.has_value());
  }
  // Never longer than the caller waits, and then it still has to hear it.
  EXPECT_EQ(waits, (std::vector<milliseconds>{seconds(10), milliseconds(1900), milliseconds(15)}));
}

TEST_F(ConfigServiceTest, AReadEndsWhenItsDeadlinePasses) {
  node_.state.on_read = [&](const storage::ReadLimits& limits) {
    EXPECT_FALSE(limits.abandon());
    now_ = kStart + seconds(3);
  };
  v1::ListRequest request;
  request.set_count_only(true);
  Answer answer;
  Call("List", request, &answer, seconds(3));
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.Reason(), "READ_DEADLINE");
}

TEST_F(ConfigServiceTest, AReadEndsWhenItsCallerGoesAwayOrTheNodeStops) {
  for (const bool stops : {false, true}) {
    std::mutex mutex;
    std::condition_variable changed;
    bool reading = false;
    bool go_on = false;
    node_.state.on_read = [&](const storage::ReadLimits& limits) {
      EXPECT_FALSE(limits.abandon());
      std::unique_lock lock(mutex);
      reading = true;
      changed.notify_all();
      changed.wait(lock, [&] { return go_on; });
    };
    v1::ListRequest request;
    request.set_count_only(true);
    Answer answer;
    Call("List", request, &answer);
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return reading; });
    }
    if (stops) {
      service_.Stop();
    } else {
      call_->Cancel();
    }
    {
      std::lock_guard lock(mutex);
      go_on = true;
    }
    changed.notify_all();
    EXPECT_EQ(answer.Wait().error_code(),
              stops ? grpc::StatusCode::UNAVAILABLE : grpc::StatusCode::CANCELLED);
  }
}

TEST_F(ConfigServiceTest, ADeadlineThatHasPassedIsNotRead) {
  v1::GetRequest request;
  request.set_key("a");
  Answer answer;
  Call("Get", request, &answer, Duration::zero());
  EXPECT_EQ(answer.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

// A halted node still has its ports open: what it knows may be another process's by now.
TEST_F(ConfigServiceTest, AfterStopNothingIsReadOrWritten) {
  node_.state.Put("a", "v");
  v1::GetRequest get;
  get.set_key("a");
  Answer before;
  Call("Get", get, &before);
  EXPECT_TRUE(before.Wait().ok());
  service_.Stop();
  Answer read, list, write;
  Call("Get", get, &read);
  Call("List", v1::ListRequest(), &list);
  Call("Put", PutOf("a", "w"), &write);
  for (Answer* answer : {&read, &list, &write}) {
    ASSERT_TRUE(answer->ended());  // at once
    EXPECT_EQ(answer->Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(answer->Reason(), "SHUTTING_DOWN");
    EXPECT_TRUE(DetailsOf(answer->Wait()).retry_delay.has_value());
  }
  EXPECT_TRUE(node_.writes.empty());
}

TEST_F(ConfigServiceTest, AfterStopNothingIsParked) {
  Set(std::nullopt);
  v1::GetRequest request;
  request.set_key("a");
  Answer parked;
  Call("Get", request, &parked);
  service_.Stop();
  EXPECT_EQ(parked.Reason(), "SHUTTING_DOWN");
  Answer later;
  Call("Get", request, &later);
  EXPECT_EQ(later.Reason(), "SHUTTING_DOWN");
}

TEST(ConfigServiceBeforeBirth, RefusesReadsAndWritesEachByName) {
  ReadPool pool(1, 1);
  ConfigService service("n1", &pool, [] { return kStart; });
  const auto call =
      std::make_shared<CallContext>(kStart + seconds(10), std::map<std::string, std::string>());
  v1::GetRequest get;
  get.set_key("a");
  Answer read;
  service.Handle("Get", get.SerializeAsString(), call, read.Done());
  EXPECT_EQ(read.Reason(), "NOT_CAUGHT_UP");
  v1::PutRequest put;
  put.set_key("a");
  put.set_text("v");
  Answer write;
  service.Handle("Put", put.SerializeAsString(), call, write.Done());
  EXPECT_EQ(write.Wait().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(write.Reason(), "NOT_BORN");
  // What is wrong anyway is said first.
  Answer bad;
  service.Handle("Put", "", call, bad.Done());
  EXPECT_EQ(bad.Reason(), "KEY_EMPTY");
}

}  // namespace
}  // namespace quorate::services
