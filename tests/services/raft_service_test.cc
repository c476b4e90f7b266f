#include "services/raft_service.h"

#include <future>
#include <memory>

#include "services/birth_client.h"
#include "tests/services/forward_cluster.h"

namespace quorate::services {
namespace {

using std::chrono::seconds;

class RaftServiceTest : public testing::Test {
 protected:
  RaftServiceTest() : channels_(&cluster_.node(0).directory) {
    stub_ = channels_.At(cluster_.node(0).address, PeerChannels::Kind::kControl);
  }

  v1::PeerHeader Header() { return MakeHeader(kTestCluster, StoreId(555), cluster_.node(0).store); }

  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Raft::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    return (stub_.get()->*method)(&context, request, response);
  }

  grpc::Status Vote(const v1::PeerHeader& header, v1::RequestVoteResponse* response) {
    v1::RequestVoteRequest request;
    *request.mutable_header() = header;
    request.set_term(1);
    return Call(&v1::Raft::Stub::RequestVote, request, response);
  }

  grpc::Status Append(const v1::AppendEntriesRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    auto stream = stub_->AppendEntries(&context);
    stream->Write(request);
    stream->WritesDone();
    v1::AppendEntriesResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  ForwardCluster cluster_;
  PeerChannels channels_;
  PeerChannels::Stub stub_;
};

TEST_F(RaftServiceTest, BeforeBirthOnlyIdentifyAndFoundAnswer) {
  v1::RequestVoteResponse vote;
  EXPECT_EQ(DetailsOf(Vote(Header(), &vote)).reason, "NOT_RUNNING");
  v1::AppendEntriesRequest append;
  *append.mutable_header() = Header();
  const grpc::Status status = Append(append);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "NOT_RUNNING");

  v1::IdentifyRequest identify;
  identify.mutable_header()->set_from_store(555);
  identify.set_address("host:7000");
  v1::IdentifyResponse who;
  ASSERT_TRUE(Call(&v1::Raft::Stub::Identify, identify, &who).ok());
  EXPECT_EQ(StoreId(who.header().from_store()), cluster_.node(0).store);
  EXPECT_EQ(who.name(), "node-0");
  EXPECT_EQ(who.command_format(), 3u) << "what it can apply";
  EXPECT_EQ(cluster_.node(0).directory.Find(StoreId(555)), "host:7000")
      << "one call introduces both";

  v1::FoundRequest found;
  found.mutable_propose();
  v1::FoundResponse pledged;
  ASSERT_TRUE(Call(&v1::Raft::Stub::Found, found, &pledged).ok());
  EXPECT_EQ(pledged.refusal(), static_cast<uint32_t>(raft::Refusal::kPledgeMoved));
  found.mutable_born();
  ASSERT_TRUE(Call(&v1::Raft::Stub::Found, found, &pledged).ok());
  EXPECT_EQ(pledged.refusal(), static_cast<uint32_t>(raft::Refusal::kBornElsewhere));
}

TEST_F(RaftServiceTest, BirthsCallsArriveAndTeachAddresses) {
  Links links(StoreId(555));
  BirthClient client(StoreId(555), &channels_, &cluster_.node(1).directory, &links);
  std::mutex mutex;
  std::condition_variable ended;
  std::vector<absl::StatusOr<raft::BirthReply>> replies;
  const auto call = [&](const std::string& address, raft::BirthRequest request) {
    const size_t before = replies.size();
    client.Call({1, address, std::move(request)}, seconds(5), [&](auto reply) {
      std::lock_guard inner(mutex);
      replies.push_back(std::move(reply));
      ended.notify_all();
    });
    std::unique_lock lock(mutex);
    EXPECT_TRUE(ended.wait_for(lock, seconds(20), [&] { return replies.size() > before; }));
    return replies.back();
  };
  const std::string address = cluster_.node(0).address;
  auto reply = call(address, raft::IdentifyRequest{StoreId(555), 1, 1, "n", "h:1"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(std::get<raft::IdentifyReply>(*reply).name, "node-0");
  EXPECT_EQ(cluster_.node(1).directory.Find(cluster_.node(0).store), address);
  reply = call(address, raft::Propose{});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(std::get<raft::PledgeReply>(*reply).refusal, raft::Refusal::kPledgeMoved);
  reply = call(address, raft::Born{});
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(std::get<raft::BornReply>(*reply).refusal, raft::Refusal::kBornElsewhere);

  cluster_.CloseServer(0);
  reply = call(address, raft::IdentifyRequest{});
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  client.Stop();
  reply = call(address, raft::IdentifyRequest{});
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kCancelled);
}

// Only what a leader sends to this very store is an invitation.
TEST_F(RaftServiceTest, ALeadersFirstAppendInvitesAStoreThatDoesNotRun) {
  std::mutex mutex;
  std::vector<raft::Invitation> invitations;
  PeerDirectory directory;
  RaftService::BirthHandlers birth;
  birth.invited = [&](const raft::Invitation& invitation) {
    std::lock_guard lock(mutex);
    invitations.push_back(invitation);
    return raft::Refusal::kNone;
  };
  RaftService service(StoreId(77), birth, &directory);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  stub_ = channels_.At("127.0.0.1:" + std::to_string(port), PeerChannels::Kind::kReplication);
  const auto reason = [&](uint64_t to, uint64_t term) {
    v1::AppendEntriesRequest append;
    *append.mutable_header() = MakeHeader(kTestCluster, StoreId(555), StoreId(to));
    append.set_term(term);
    return DetailsOf(Append(append)).reason;
  };
  const auto invited = [&] {
    std::lock_guard lock(mutex);
    return invitations;
  };
  EXPECT_EQ(reason(78, 3), "NOT_RUNNING") << "another store is meant";
  EXPECT_EQ(reason(77, 0), "NOT_RUNNING") << "no leader";
  EXPECT_TRUE(invited().empty());
  EXPECT_EQ(reason(77, 3), "NOT_RUNNING") << "the leader comes again";
  ASSERT_EQ(invited().size(), 1u);
  EXPECT_EQ(invited()[0].cluster, kTestCluster);
  EXPECT_EQ(invited()[0].from, StoreId(555));
  service.StopServing();
  EXPECT_EQ(reason(77, 3), "SHUTTING_DOWN");
  EXPECT_EQ(invited().size(), 1u);
  server->Shutdown();
}

TEST_F(RaftServiceTest, AForwardedCallIsForTheStoreThatItNames) {
  v1::ForwardCallRequest request;
  *request.mutable_header() = Header();
  request.set_method("RemoveMember");
  v1::ForwardCallResponse response;
  EXPECT_EQ(DetailsOf(Call(&v1::Raft::Stub::ForwardCall, request, &response)).reason,
            "NOT_RUNNING");
  cluster_.Start(0);
  request.mutable_header()->set_to_store(1);
  EXPECT_EQ(DetailsOf(Call(&v1::Raft::Stub::ForwardCall, request, &response)).reason,
            "WRONG_STORE");
  *request.mutable_header() = Header();
  EXPECT_EQ(Call(&v1::Raft::Stub::ForwardCall, request, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED)
      << "this one has nobody for it";
}

TEST_F(RaftServiceTest, AStrangersVoteIsAnsweredAndAppendsReachTheNode) {
  cluster_.Start(0);
  v1::RequestVoteResponse response;
  const grpc::Status status = Vote(Header(), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.header().to_store(), 555u);
  EXPECT_EQ(StoreId(response.header().from_store()), cluster_.node(0).store);
  EXPECT_FALSE(response.granted());

  // An append of a leader of a far term: answered on the same stream, and believed.
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(20));
  auto stream = stub_->AppendEntries(&context);
  v1::AppendEntriesRequest append;
  *append.mutable_header() = Header();
  append.set_term(50);
  append.set_prev_index(1);
  append.set_prev_term(1);
  append.set_sent_at_us(1234);
  ASSERT_TRUE(stream->Write(append));
  v1::AppendEntriesResponse reply;
  ASSERT_TRUE(stream->Read(&reply));
  EXPECT_TRUE(reply.success());
  EXPECT_EQ(reply.match(), 1u);
  EXPECT_EQ(reply.echoed_sent_at_us(), 1234);
  EXPECT_EQ(reply.term(), 50u);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(RaftServiceTest, ThePeersFindEachOtherAgainWhenAnAddressChanges) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  const size_t moved = (leader + 1) % 3;
  cluster_.Stop(moved);
  cluster_.node(moved).address.clear();  // another port
  cluster_.Start(moved);
  for (size_t i = 0; i < 3; ++i) {
    cluster_.node(i).directory.Learn(cluster_.node(moved).store, cluster_.node(moved).address,
                                     PeerDirectory::Source::kDirect);
  }
  Writes writes;
  writes.Send(&cluster_.node(leader), "k");
  ASSERT_TRUE(writes.WaitForAll());
  EXPECT_TRUE(
      Eventually([&] { return cluster_.node(moved).state->Get("k", std::nullopt).first.ok(); }));
}

TEST_F(RaftServiceTest, LeadershipIsHandedOverAtOnce) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  const size_t target = (leader + 1) % 3;
  ASSERT_TRUE(Eventually([&] { return cluster_.node(leader).raft->status()->leader_ready; }));
  std::mutex mutex;
  std::condition_variable ended;
  std::optional<raft::TransferStatus> end;
  cluster_.node(leader).raft->TransferLeadership(cluster_.node(target).store,
                                                 [&](raft::TransferStatus status) {
                                                   std::lock_guard inner(mutex);
                                                   end = status;
                                                   ended.notify_all();
                                                 });
  std::unique_lock lock(mutex);
  ASSERT_TRUE(ended.wait_for(lock, seconds(20), [&] { return end.has_value(); }));
  EXPECT_EQ(end, raft::TransferStatus::kDone);
  EXPECT_TRUE(Eventually(
      [&] { return cluster_.node(target).raft->status()->role == raft::Role::kLeader; }));
}

TEST_F(RaftServiceTest, EveryNodeGetsAReadIndexThatCoversAnAcknowledgedWrite) {
  cluster_.StartAll();
  const size_t leader = cluster_.WaitForLeader();
  Writes writes;
  writes.Send(&cluster_.node(leader), "k");
  ASSERT_TRUE(writes.WaitForAll());
  const raft::Index applied = cluster_.node(leader).state->Summary().applied;
  for (size_t i = 0; i < 3; ++i) {
    // A follower may just have lost its leader on a slow machine: then it asks again.
    EXPECT_TRUE(Eventually([&] {
      auto answer = std::make_shared<std::promise<raft::ReadResult>>();
      cluster_.node(i).raft->RequestRead(
          raft::ReadMode::kRound,
          [answer](const raft::ReadResult& result) { answer->set_value(result); });
      const raft::ReadResult result = answer->get_future().get();
      return result.outcome == raft::ReadOutcome::kConfirmed && result.index >= applied;
    })) << i;
  }
}

TEST_F(RaftServiceTest, WhoDoesNotLeadSaysSoToAReadIndex) {
  cluster_.Start(0);
  v1::ReadIndexRequest question;
  *question.mutable_header() = Header();
  question.set_term(1);
  question.set_id(7);
  v1::ReadIndexResponse answer;
  ASSERT_TRUE(Call(&v1::Raft::Stub::ReadIndex, question, &answer).ok());
  EXPECT_EQ(answer.id(), 7u);
  EXPECT_EQ(answer.outcome(), static_cast<uint32_t>(raft::ReadOutcome::kLeaderLost));
}

// --- Errors ---

TEST_F(RaftServiceTest, WrongClusterWrongStoreAndWrongSenderAreRejectedEverywhere) {
  cluster_.Start(0);
  const StoreId store = cluster_.node(0).store;
  const std::vector<std::pair<v1::PeerHeader, std::string>> wrong = {
      {MakeHeader(ClusterId(9), StoreId(555), store), "WRONG_CLUSTER"},
      {MakeHeader(kTestCluster, StoreId(555), StoreId(556)), "WRONG_STORE"},
      {MakeHeader(kTestCluster, store, store), "WRONG_SENDER"}};
  for (const auto& [header, reason] : wrong) {
    v1::RequestVoteResponse vote;
    EXPECT_EQ(DetailsOf(Vote(header, &vote)).reason, reason);
    v1::ReadIndexRequest question;
    *question.mutable_header() = header;
    v1::ReadIndexResponse read;
    EXPECT_EQ(DetailsOf(Call(&v1::Raft::Stub::ReadIndex, question, &read)).reason, reason);
    v1::AppendEntriesRequest append;
    *append.mutable_header() = header;
    append.set_term(99);
    const grpc::Status status = Append(append);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(DetailsOf(status).reason, reason);
    v1::TimeoutNowRequest timeout_now;
    *timeout_now.mutable_header() = header;
    v1::TimeoutNowResponse heard;
    EXPECT_EQ(DetailsOf(Call(&v1::Raft::Stub::TimeoutNow, timeout_now, &heard)).reason, reason);
  }
  EXPECT_LT(cluster_.node(0).raft->status()->term, raft::Term(99));
}

TEST_F(RaftServiceTest, MalformedAppendsEndTheStreamAndNeverReachTheCore) {
  cluster_.Start(0);
  v1::AppendEntriesRequest append;
  *append.mutable_header() = Header();
  append.set_term(99);
  append.add_entries()->set_index(7);  // does not follow prev_index 0
  const grpc::Status status = Append(append);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "MALFORMED");
  EXPECT_LT(cluster_.node(0).raft->status()->term, raft::Term(99));
}

// Nothing repeats the node's answer to its own snapshot receiver, which would wait for ever.
TEST_F(RaftServiceTest, AFullMailboxLosesNoAnswerToTheSnapshotReceiver) {
  cluster_.Start(0);
  const StoreId self = cluster_.node(0).store;
  std::promise<uint64_t> heard;
  PeerTransport transport({.cluster = kTestCluster, .self = self}, &channels_);
  transport.OnSnapshotReply(
      [&](const raft::InstallSnapshotReply& reply) { heard.set_value(reply.call_id); });
  transport.Start(cluster_.node(0).raft.get());
  constexpr size_t kMany = 1u << 16;
  std::vector<raft::Message> messages(kMany, {self, StoreId(102), raft::RequestVoteReply{}});
  raft::InstallSnapshotReply reply;
  reply.call_id = 7;
  messages.push_back({self, StoreId(102), reply});
  transport.Send(std::move(messages));
  std::future<uint64_t> answer = heard.get_future();
  ASSERT_EQ(answer.wait_for(seconds(20)), std::future_status::ready);
  EXPECT_EQ(answer.get(), 7u);
  EXPECT_EQ(transport.counters().dropped, kMany);
}

TEST_F(RaftServiceTest, FoundWithoutAStepIsRefused) {
  v1::FoundResponse response;
  const grpc::Status status = Call(&v1::Raft::Stub::Found, v1::FoundRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).metadata.at("field"), "step");
}

TEST_F(RaftServiceTest, AfterServingEndedItSaysSo) {
  cluster_.Start(0);
  cluster_.node(0).service->StopServing();
  v1::RequestVoteResponse vote;
  EXPECT_EQ(DetailsOf(Vote(Header(), &vote)).reason, "SHUTTING_DOWN");
}

}  // namespace
}  // namespace quorate::services
