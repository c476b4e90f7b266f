#include "services/forwarder.h"

#include <condition_variable>
#include <mutex>
#include <optional>

#include "services/forward_streams.h"
#include "storage/command_check.h"
#include "storage/state_schema.h"
#include "tests/services/forward_cluster.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ForwarderTest : public testing::Test {
 protected:
  // Every running node has applied the same, and holds each key once.
  void ExpectEverywhere(Writes* writes, std::vector<size_t> running) {
    const auto applied = [&](size_t i) { return cluster_.node(i).state->Summary().applied; };
    ASSERT_TRUE(Eventually([&] {
      return std::all_of(running.begin(), running.end(),
                         [&](size_t i) { return applied(i) == applied(running[0]); });
    }));
    for (size_t i : running) {
      EXPECT_EQ(cluster_.node(i).state->Summary().hash,
                cluster_.node(running[0]).state->Summary().hash);
      for (const auto& [key, outcome] : writes->outcomes()) {
        v1::Answer answer;
        if (!StatusOf(outcome, &answer).ok()) continue;
        const auto [item, revision] = cluster_.node(i).state->Get(key, std::nullopt);
        ASSERT_TRUE(item.ok()) << key << " was acknowledged and is not there";
        EXPECT_EQ(item->version, 1u) << key << " was applied more than once";
        EXPECT_EQ(item->mod_revision.value(), answer.revision());
      }
    }
  }

  ForwardCluster cluster_;
};

TEST_F(ForwarderTest, EachNodeTakesWritesAndAllApplyThem) {
  cluster_.StartAll();
  cluster_.WaitForLeader();
  Writes writes;
  for (int k = 0; k < 100; ++k) {
    for (size_t i = 0; i < 3; ++i) {
      writes.Send(&cluster_.node(i), "n" + std::to_string(i) + "/" + std::to_string(k));
    }
  }
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_EQ(writes.Count(), 300u);
  ExpectEverywhere(&writes, {0, 1, 2});
}

TEST_F(ForwarderTest, TheLeaderStopsAndNoWriteThroughASurvivorIsLostOrDoubled) {
  cluster_.StartAll();
  Writes writes;
  for (int round = 0; round < 3; ++round) {
    const size_t leader = cluster_.WaitForLeader();
    std::vector<size_t> survivors;
    for (size_t i = 0; i < 3; ++i) {
      if (i != leader) survivors.push_back(i);
    }
    const size_t before = writes.outcomes().size();
    const std::string prefix = "r" + std::to_string(round) + "/";
    for (int k = 0; k < 400; ++k) {
      writes.Send(&cluster_.node(survivors[k % 2]), prefix + std::to_string(k));
      // In mid-stream: some answered, some under way.
      if (k == 200) {
        ASSERT_TRUE(Eventually([&] { return writes.outcomes().size() > before + 20; }));
        cluster_.Stop(leader);
      }
    }
    ASSERT_TRUE(writes.WaitForAll());
    EXPECT_EQ(writes.Count(), writes.outcomes().size());
    cluster_.Start(leader);
  }
  EXPECT_EQ(writes.Count(), 1200u);
  ExpectEverywhere(&writes, {0, 1, 2});
}

TEST_F(ForwarderTest, StreamsThatBreakHalfWayAreMadeAgainAndNothingIsDoubled) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  ForwardCluster::Node& follower = cluster_.node((leader + 1) % 3);
  Writes writes;
  for (int k = 0; k < 600; ++k) {
    writes.Send(&follower, std::to_string(k));
    if (k % 200 == 100) {
      // Every connection to the leader breaks; its process goes on.
      ASSERT_TRUE(Eventually([&] { return writes.outcomes().size() > size_t(k) / 2; }));
      cluster_.CloseServer(leader);
      cluster_.Listen(leader);
      cluster_.Serve(leader);
    }
  }
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_EQ(writes.Count(), 600u);
  EXPECT_GE(follower.forwarder->counters().links, 2u);
  ExpectEverywhere(&writes, {0, 1, 2});
}

TEST_F(ForwarderTest, ANodeThatStartsAgainBeginsANewSession) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  const size_t follower = (leader + 1) % 3;
  Writes writes;
  writes.Send(&cluster_.node(follower), "before");
  ASSERT_TRUE(writes.WaitForAll());
  cluster_.Stop(follower);
  cluster_.Start(follower);
  writes.Send(&cluster_.node(follower), "after");
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_EQ(writes.Count(), 2u);
  // The answer may have come from the follower's own state machine, ahead of the leader's.
  std::optional<storage::SessionView> session;
  ASSERT_TRUE(Eventually([&] {
    session = cluster_.node(leader).state->FindSession(cluster_.node(follower).store);
    return session.has_value() && session->boot == 2 && session->last_sequence == 1;
  }));
}

TEST_F(ForwarderTest, AnErrorOfTheStateMachineComesBackWhole) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  std::vector<grpc::Status> statuses;
  for (size_t i = 0; i < 3; ++i) {
    v1::Command command = Writes::Put("k", "v");
    command.mutable_transaction()->set_abort_on_false(true);
    v1::Compare* compare = command.mutable_transaction()->add_compare();
    compare->set_key("k");
    compare->set_result(v1::Compare::RESULT_EQUAL);
    compare->set_mod_revision(99);
    std::mutex mutex;
    std::condition_variable ended;
    std::optional<grpc::Status> status;
    ForwardCluster::Node& node = cluster_.node(i);
    node.forwarder->Write(std::move(command), node.clock.Now() + seconds(20), {},
                          [&](const ingress::Outcome& outcome) {
                            v1::Answer answer;
                            std::lock_guard lock(mutex);
                            status = StatusOf(outcome, &answer);
                            ended.notify_all();
                          });
    std::unique_lock lock(mutex);
    ASSERT_TRUE(ended.wait_for(lock, seconds(30), [&] { return status.has_value(); }));
    EXPECT_EQ(status->error_code(), grpc::StatusCode::ABORTED);
    EXPECT_EQ(DetailsOf(*status).reason, "REVISION_MISMATCH");
    statuses.push_back(*status);
  }
  for (const grpc::Status& status : statuses) {
    EXPECT_EQ(status.error_details(), statuses[leader].error_details());
    EXPECT_EQ(status.error_message(), statuses[leader].error_message());
  }
}

TEST_F(ForwarderTest, ADeposedSessionIsReplacedAndWhatWaitsIsCarriedOn) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  ForwardCluster::Node& follower = cluster_.node((leader + 1) % 3);
  Writes writes;
  writes.Send(&follower, "first");
  ASSERT_TRUE(writes.WaitForAll());

  // Somebody opens a newer session of the same store, as a later process of it would.
  PeerChannels channels(&follower.directory);
  auto stub = channels.At(cluster_.node(leader).address, PeerChannels::Kind::kForward);
  grpc::ClientContext context;
  auto stream = stub->Forward(&context);
  v1::ForwardRequest open;
  *open.mutable_header() = MakeHeader(kTestCluster, follower.store, cluster_.node(leader).store);
  open.mutable_open()->set_store(follower.store.value());
  open.mutable_open()->set_boot(2);
  open.mutable_open()->set_nonce(5);
  ASSERT_TRUE(stream->Write(open));
  v1::ForwardResponse opened;
  ASSERT_TRUE(stream->Read(&opened));
  EXPECT_TRUE(opened.has_opened());
  EXPECT_EQ(opened.boot(), 2u);
  context.TryCancel();
  stream->Finish();

  follower.boot = 2;  // the durable counter is ahead, as after a real start
  for (int k = 0; k < 10; ++k) writes.Send(&follower, "later/" + std::to_string(k));
  ASSERT_TRUE(writes.WaitForAll());
  // What was sent under the dead session is unknown, and has not been applied; the rest went on.
  ASSERT_TRUE(Eventually([&] { return follower.forwarder->counters().ingress.sessions_lost > 0; }));
  writes.Send(&follower, "last");
  ASSERT_TRUE(writes.WaitForAll());
  v1::Answer answer;
  EXPECT_TRUE(StatusOf(writes.outcomes()["last"], &answer).ok());
  ExpectEverywhere(&writes, {0, 1, 2});
}

// --- Bad input and trouble ---

TEST_F(ForwarderTest, WithoutALeaderAWriteIsRefusedInTimeAndNeverApplied) {
  cluster_.leader_wait = milliseconds(300);
  cluster_.Start(0);
  Writes writes;
  writes.Send(&cluster_.node(0), "early");
  ASSERT_TRUE(writes.WaitForAll());
  v1::Answer answer;
  const grpc::Status status = StatusOf(writes.outcomes()["early"], &answer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "NO_LEADER");
  EXPECT_TRUE(DetailsOf(status).retry_delay.has_value());
  cluster_.Start(1);
  cluster_.Start(2);  // birth needs every founder
  cluster_.WaitForLeader();
  writes.Send(&cluster_.node(0), "late");
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_FALSE(cluster_.node(0).state->Get("early", std::nullopt).first.ok());
}

TEST_F(ForwarderTest, ALeaderWithoutItsMajorityLeavesTheOutcomeUnknownAtTheDeadline) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  Writes writes;
  writes.Send(&cluster_.node(leader), "first");
  ASSERT_TRUE(writes.WaitForAll());
  for (size_t i = 0; i < 3; ++i) {
    if (i != leader) cluster_.Stop(i);
  }
  writes.Send(&cluster_.node(leader), "second", milliseconds(700));
  ASSERT_TRUE(writes.WaitForAll());
  v1::Answer answer;
  const grpc::Status status = StatusOf(writes.outcomes()["second"], &answer);
  // Sent before the leader stepped down: unknown. After it: certainly not accepted.
  EXPECT_TRUE((status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED &&
               DetailsOf(status).reason == "OUTCOME_UNKNOWN") ||
              (status.error_code() == grpc::StatusCode::UNAVAILABLE &&
               DetailsOf(status).reason == "NO_LEADER"))
      << status.error_message();
}

TEST_F(ForwarderTest, ACancelledWriteReportsNothing) {
  cluster_.leader_wait = seconds(20);
  cluster_.Start(0);  // no leader: it waits
  Writes writes;
  const ingress::WriteId id = writes.Send(&cluster_.node(0), "never");
  EXPECT_TRUE(cluster_.node(0).forwarder->Cancel(id));
  EXPECT_FALSE(cluster_.node(0).forwarder->Cancel(id));
  writes.Forget();
  ASSERT_TRUE(Eventually([&] {
    return cluster_.node(0).forwarder->counters().ingress.cancelled == 1 ||
           cluster_.node(0).forwarder->counters().ingress.submitted == 0;
  }));
  cluster_.Stop(0);
  EXPECT_TRUE(writes.outcomes().empty());
}

TEST_F(ForwarderTest, StoppingEndsEveryWrite) {
  cluster_.leader_wait = seconds(20);
  cluster_.Start(0);
  Writes writes;
  for (int k = 0; k < 50; ++k) writes.Send(&cluster_.node(0), std::to_string(k));
  cluster_.node(0).forwarder->Stop();
  ASSERT_TRUE(writes.WaitForAll());
  for (const auto& [key, outcome] : writes.outcomes()) {
    EXPECT_EQ(outcome.kind, ingress::Outcome::Kind::kNotAccepted);
    EXPECT_EQ(outcome.reason, "SHUTTING_DOWN");
  }
  writes.Send(&cluster_.node(0), "after");
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_EQ(writes.outcomes()["after"].reason, "SHUTTING_DOWN");
}

// Speaks Forward by hand to the leader.
class RawForwardTest : public ForwarderTest {
 protected:
  void SetUp() override {
    cluster_.StartAll();
    leader_ = cluster_.WaitForLeader();
    channels_ = std::make_unique<PeerChannels>(&cluster_.node(leader_).directory);
    stub_ = channels_->At(cluster_.node(leader_).address, PeerChannels::Kind::kForward);
  }

  v1::ForwardRequest Request(uint64_t cluster, uint64_t from, uint64_t to) {
    v1::ForwardRequest request;
    *request.mutable_header() = MakeHeader(ClusterId(cluster), StoreId(from), StoreId(to));
    return request;
  }
  v1::ForwardRequest GoodRequest() {
    return Request(kTestCluster.value(), 555, cluster_.node(leader_).store.value());
  }

  grpc::Status Say(const v1::ForwardRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    auto stream = stub_->Forward(&context);
    stream->Write(request);
    v1::ForwardResponse response;
    while (stream->Read(&response)) responses_.push_back(response);
    return stream->Finish();
  }

  size_t leader_ = 0;
  std::unique_ptr<PeerChannels> channels_;
  PeerChannels::Stub stub_;
  std::vector<v1::ForwardResponse> responses_;
};

TEST_F(RawForwardTest, WhatIsNotForThisNodeIsRejectedWithTheReason) {
  const uint64_t store = cluster_.node(leader_).store.value();
  grpc::Status status = Say(Request(1, 555, store));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).reason, "WRONG_CLUSTER");
  status = Say(Request(kTestCluster.value(), 555, store + 1));
  EXPECT_EQ(DetailsOf(status).reason, "WRONG_STORE");
  status = Say(Request(kTestCluster.value(), store, store));
  EXPECT_EQ(DetailsOf(status).reason, "WRONG_SENDER");
}

TEST_F(RawForwardTest, AStoreThatIsNoMemberGetsNoSession) {
  v1::ForwardRequest request = GoodRequest();
  request.mutable_open()->set_store(555);
  request.mutable_open()->set_boot(1);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  auto stream = stub_->Forward(&context);
  ASSERT_TRUE(stream->Write(request));
  v1::ForwardResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_TRUE(response.has_session_unknown()) << response.ShortDebugString();
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(RawForwardTest, WritesWithoutTheirPositionEndTheStream) {
  v1::ForwardRequest request = GoodRequest();
  request.add_writes()->set_sequence(1);
  EXPECT_EQ(DetailsOf(Say(request)).reason, "MALFORMED") << "no session";

  request = GoodRequest();
  request.mutable_open()->set_store(556);
  request.mutable_open()->set_boot(1);
  EXPECT_EQ(DetailsOf(Say(request)).reason, "MALFORMED") << "a session of another store";

  request = GoodRequest();
  request.mutable_open()->set_store(555);
  request.mutable_open()->set_boot(1);
  v1::Command command = Writes::Put("k", "v");
  command.set_format(1);
  command.mutable_session()->set_store(555);
  command.mutable_session()->set_boot(1);
  command.mutable_session()->set_sequence(2);
  request.add_writes()->set_sequence(1);
  request.mutable_writes(0)->set_command(command.SerializeAsString());
  EXPECT_EQ(DetailsOf(Say(request)).reason, "MALFORMED") << "another sequence";
  EXPECT_FALSE(cluster_.node(leader_).state->Get("k", std::nullopt).first.ok());
}

// What every node would end for, at its first apply and again at each start.
TEST_F(RawForwardTest, ACommandThatNoNodeCouldApplyIsRejectedByItsSequenceAndLoggedOnce) {
  v1::Command good = Writes::Put("k", "v");
  good.set_format(1);
  good.mutable_session()->set_store(555);
  good.mutable_session()->set_boot(1);
  good.mutable_session()->set_sequence(1);
  ASSERT_TRUE(storage::CheckCommand(good.SerializeAsString()).ok());
  v1::Command empty = good;
  empty.clear_transaction();
  v1::Command newer_transaction = good;
  newer_transaction.mutable_transaction()
      ->GetReflection()
      ->MutableUnknownFields(newer_transaction.mutable_transaction())
      ->AddVarint(99, 1);
  v1::Command newer_format = good;
  newer_format.set_format(storage::kCommandFormat + 1);
  struct Poison {
    std::string command;
    std::string why;
    bool newer;
  };
  const Poison poisons[] = {
      {empty.SerializeAsString(), "has a body", true},
      {good.SerializeAsString() + "\x32\x01x", "has fields", true},  // field 6, a string
      {newer_transaction.SerializeAsString(), "has fields", true},
      {newer_format.SerializeAsString(), "has format 4", true},
      {good.SerializeAsString() + "\x1a\x01\xff", "cannot be parsed", false},  // author, no UTF-8
  };
  testing::internal::CaptureStderr();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  auto stream = stub_->Forward(&context);
  v1::ForwardRequest request = GoodRequest();
  request.mutable_open()->set_store(555);
  request.mutable_open()->set_boot(1);
  ASSERT_TRUE(stream->Write(request));
  request.clear_open();
  for (const Poison& poison : poisons) {
    EXPECT_TRUE(HasPosition(poison.command, {StoreId(555), 1, 0}, 1)) << poison.why;
    request.clear_writes();
    request.add_writes()->set_sequence(1);
    request.mutable_writes(0)->set_command(poison.command);
    ASSERT_TRUE(stream->Write(request));
    v1::ForwardResponse response;
    do {
      ASSERT_TRUE(stream->Read(&response)) << "the stream goes on";
    } while (!response.has_rejected());
    EXPECT_EQ(response.boot(), 1u);
    EXPECT_EQ(response.rejected().sequence(), 1u);
    EXPECT_EQ(response.rejected().newer(), poison.newer);
    EXPECT_NE(response.rejected().reason().find(poison.why), std::string::npos)
        << response.ShortDebugString();
  }
  context.TryCancel();
  stream->Finish();
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t said = log.find("no node of this build could apply it");
  EXPECT_NE(said, std::string::npos) << log;
  EXPECT_EQ(log.find("no node of this build could apply it", said + 1), std::string::npos) << log;
  Writes writes;
  writes.Send(&cluster_.node(leader_), "after");
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_EQ(writes.Count(), 1u);
  EXPECT_FALSE(cluster_.node(leader_).state->Get("k", std::nullopt).first.ok());
}

// A write of a newer build's, through a follower: its caller hears so at once, and nothing behind
// it is held up.
TEST_F(RawForwardTest, AWriteThatTheLeaderDoesNotUnderstandEndsAtOnceAndLeavesNoHole) {
  ForwardCluster::Node& follower = cluster_.node((leader_ + 1) % 3);
  Writes writes;
  writes.Send(&follower, "before");
  ASSERT_TRUE(writes.WaitForAll());
  v1::Command newer = Writes::Put("newer", "v");
  newer.GetReflection()->MutableUnknownFields(&newer)->AddVarint(99, 1);
  std::mutex mutex;
  std::condition_variable ended;
  std::optional<ingress::Outcome> outcome;
  const Instant sent = follower.clock.Now();
  follower.forwarder->Write(std::move(newer), sent + seconds(30), {},
                            [&](const ingress::Outcome& end) {
                              std::lock_guard lock(mutex);
                              outcome = end;
                              ended.notify_all();
                            });
  writes.Send(&follower, "after");
  ASSERT_TRUE(writes.WaitForAll());
  std::unique_lock lock(mutex);
  ASSERT_TRUE(ended.wait_for(lock, seconds(60), [&] { return outcome.has_value(); }));
  v1::Answer answer;
  const grpc::Status status = StatusOf(*outcome, &answer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << status.error_message();
  EXPECT_EQ(DetailsOf(status).reason, "WRITE_NOT_UNDERSTOOD");
  EXPECT_NE(status.error_message().find("older build"), std::string::npos);
  EXPECT_FALSE(DetailsOf(status).retry_delay.has_value());
  EXPECT_EQ(writes.Count(), 2u);
  EXPECT_FALSE(cluster_.node(leader_).state->Get("newer", std::nullopt).first.ok());
}

TEST_F(RawForwardTest, AFollowerSaysWhoLeads) {
  const size_t follower = (leader_ + 1) % 3;
  stub_ = channels_->At(cluster_.node(follower).address, PeerChannels::Kind::kForward);
  v1::ForwardRequest request =
      Request(kTestCluster.value(), 555, cluster_.node(follower).store.value());
  request.mutable_open()->set_store(555);
  request.mutable_open()->set_boot(1);
  EXPECT_TRUE(Say(request).ok());
  ASSERT_EQ(responses_.size(), 1u);
  EXPECT_EQ(StoreId(responses_[0].not_leader().leader_store()), cluster_.node(leader_).store);
}

}  // namespace
}  // namespace quorate::services
