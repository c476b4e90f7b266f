// The calls that change the cluster when something happens under way: nodes that stop, leaders that
// change, answers that are lost, callers that go away, questions that nobody answers.
#include "services/cluster_changes.h"
#include "tests/services/cluster_changes_fixture.h"

namespace quorate::services {
namespace {

using raft::ChangeStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class ClusterRetryTest : public ClusterChangesFixture {
 protected:
  static grpc::Status Broken() {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset");
  }
  static grpc::Status Refuse(v1::ForwardCallResponse* response, grpc::StatusCode code,
                             const std::string& reason) {
    response->set_status(ToProto(MakeError(code, reason, "why")).SerializeAsString());
    return grpc::Status::OK;
  }
  v1::ForwardCallRequest Passed(const std::string& method,
                                const google::protobuf::Message& request) {
    v1::ForwardCallRequest forward;
    forward.set_method(method);
    forward.set_request(request.SerializeAsString());
    return forward;
  }
  static v1::CompactRequest CompactTo(uint64_t revision) {
    v1::CompactRequest request;
    request.set_revision(revision);
    return request;
  }
};

// --- A node that stops ---

TEST_F(ClusterRetryTest, AQuestionUnderWayHoldsUpNobodyWhoStops) {
  silent_ = {"n5:7000"};
  std::future<AnsweredCall> add = Begin("AddMember", Add("n5:7000"));
  WaitForQuestion();
  changes_->BeginStop();
  EXPECT_EQ(Get(std::move(add)).reason(), "SHUTTING_DOWN");
  changes_->Stop();
  EXPECT_EQ(OpenQuestions(), 0u) << "given up";
  EXPECT_TRUE(proposed_.empty());
}

TEST_F(ClusterRetryTest, WhatWasPassedOnToAStoppingLeaderIsGivenBack) {
  silent_ = {"n5:7000"};
  const v1::ForwardCallRequest add = Passed("AddMember", Add("n5:7000"));
  std::future<v1::ForwardCallResponse> under_way = BeginForwarded(add);
  WaitForQuestion();
  changes_->BeginStop();
  EXPECT_TRUE(Get(std::move(under_way)).not_leader()) << "nothing was done: the next leader may";
  EXPECT_TRUE(Get(BeginForwarded(add)).not_leader());
  v1::ForwardCallRequest again = add;
  again.set_repeat(true);
  EXPECT_TRUE(Get(BeginForwarded(again)).outcome_unknown());
}

// --- "Not now" after a try that may be done ---

TEST_F(ClusterRetryTest, AnEarlierChangeIsWaitedForAndThenSaid) {
  busy_wait_ = milliseconds(50);
  Remake();
  auto joint = std::make_shared<raft::Membership>(*node_.membership);
  joint->joint = true;
  node_.membership = joint;
  const AnsweredCall answer = Call("RemoveMember", Remove("n4"));
  EXPECT_EQ(answer.reason(), "CHANGE_IN_PROGRESS");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(DetailsOf(answer.status).retry_delay.has_value());
  EXPECT_EQ(ended_["remove refused"], 1);
  // It may be the very change that is asked for again.
  EXPECT_TRUE(CallForwarded("RemoveMember", Remove("n4"), true).outcome_unknown());
  EXPECT_EQ(Call("RemoveMember", Remove("n4"), seconds(5)).reason(), "CHANGE_IN_PROGRESS");
  // So is one without a joint phase, until it is committed: it may be lost with this leader.
  auto single = std::make_shared<raft::Membership>(*node_.membership);
  single->joint = false;
  std::erase_if(single->members, [](const auto& member) { return member.name == "n4"; });
  {
    std::lock_guard lock(mutex_);
    node_.membership = single;
    node_.membership_index = raft::Index(9);
    node_.commit = raft::Index(8);
  }
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "CHANGE_IN_PROGRESS") << "it is not gone";
  EXPECT_TRUE(CallForwarded("RemoveMember", Remove("n4"), true).outcome_unknown());
  nodes_["n2:7000"].mutable_header()->set_cluster_id(0xC1);
  EXPECT_EQ(Call("AddMember", Add("n2:7000")).reason(), "CHANGE_IN_PROGRESS");
  EXPECT_TRUE(proposed_.empty());
  {
    std::lock_guard lock(mutex_);
    node_.commit = raft::Index(9);
  }
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "MEMBER_NOT_FOUND");
  EXPECT_FALSE(CallForwarded("RemoveMember", Remove("n4"), true).outcome_unknown());
  EXPECT_TRUE(Call("AddMember", Add("n2:7000")).status.ok());
  EXPECT_TRUE(proposed_.empty());
  node_.commit = raft::Index(8);
  // Leadership may be handed over all the same: to one that can end it.
  v1::TransferLeadershipRequest transfer;
  transfer.set_node_id("n2");
  EXPECT_TRUE(Call("TransferLeadership", transfer).status.ok());
}

TEST_F(ClusterRetryTest, NotNowIsNoAnswerOnceATryMayBeDone) {
  Follow(0xA2);
  const auto leader_says = [this](grpc::StatusCode code, const std::string& reason) {
    forwarded_.clear();
    on_forward_ = [this, code, reason](StoreId, v1::ForwardCallResponse* response) {
      if (forwarded_.size() == 1) return Broken();
      if (forwarded_.size() == 2) return Refuse(response, code, reason);
      return grpc::Status::OK;
    };
    return Call("PromoteMember", Remove("n4"));
  };
  for (const char* reason : {"CHANGE_IN_PROGRESS", "NODE_SILENT", "NOT_BORN"}) {
    EXPECT_TRUE(leader_says(grpc::StatusCode::UNAVAILABLE, reason).status.ok()) << reason;
    EXPECT_EQ(forwarded_.size(), 3u);
  }
  EXPECT_TRUE(leader_says(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS").status.ok());
  EXPECT_TRUE(leader_says(grpc::StatusCode::UNIMPLEMENTED, "X").reason() == "X") << "an answer is";
  // Without an earlier try it is the answer.
  on_forward_ = [](StoreId, v1::ForwardCallResponse* response) {
    return Refuse(response, grpc::StatusCode::UNAVAILABLE, "CHANGE_IN_PROGRESS");
  };
  EXPECT_EQ(Call("PromoteMember", Remove("n4")).reason(), "CHANGE_IN_PROGRESS");
}

TEST_F(ClusterRetryTest, AnOlderLeaderDoesNotKnowWhatANewerOneMayHaveDone) {
  Follow(0xA2);
  on_forward_ = [this](StoreId, v1::ForwardCallResponse*) {
    if (forwarded_.size() == 1) return Broken();
    if (forwarded_.size() == 2)
      return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no such call");
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  forwarded_ = {{}};
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "NOT_IN_THIS_BUILD");
}

TEST_F(ClusterRetryTest, WhoWasAddedNeedNotAnswerForThat) {
  nodes_["n5:7000"] = Node(0xB5, "n5");
  NextResults({ChangeStatus::kUnknown});  // n2 leads from then on
  on_forward_ = [this](StoreId, v1::ForwardCallResponse*) {
    nodes_.erase("n5:7000");
    auto members = std::make_shared<raft::Membership>(*node_.membership);
    members->members.push_back({.store = StoreId(0xB5), .name = "n5", .address = "n5:7000"});
    node_.membership = members;
    node_.role = raft::Role::kLeader;
    node_.leader = StoreId(0xA1);
    node_.leader_ready = true;
    return Broken();
  };
  const AnsweredCall answer = Call("AddMember", Add("n5:7000"));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(forwarded_.at(0).request.store(), 0xB5u);
  EXPECT_EQ(proposed_.size(), 1u);
}

// --- Which store, and who was asked ---

TEST_F(ClusterRetryTest, ARemovalByNameAsksForTheStoreFirstAndKeepsToIt) {
  Follow(0xA2);
  shows_questions_ = true;
  on_forward_ = [this](StoreId, v1::ForwardCallResponse* response) {
    if (forwarded_.size() == 1) {
      response->set_not_leader(true);
      response->set_store(0xA4);
    }
    return forwarded_.size() == 2 ? Broken() : grpc::Status::OK;
  };
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  ASSERT_EQ(forwarded_.size(), 3u);
  EXPECT_TRUE(forwarded_[0].request.has_store());
  EXPECT_EQ(forwarded_[0].request.store(), 0u);
  EXPECT_EQ(forwarded_[1].request.store(), 0xA4u);
  EXPECT_FALSE(forwarded_[1].request.repeat());
  EXPECT_EQ(forwarded_[2].request.store(), 0xA4u);
  EXPECT_TRUE(forwarded_[2].request.repeat());
  // Who says which one has nothing to ask.
  forwarded_.clear();
  on_forward_ = nullptr;
  v1::RemoveMemberRequest exactly = Remove("n4");
  exactly.set_store_id("00000000000000a4");
  EXPECT_TRUE(Call("RemoveMember", exactly).status.ok());
  EXPECT_FALSE(forwarded_.at(0).request.has_store());
}

TEST_F(ClusterRetryTest, ALostQuestionForTheStoreIsNoTry) {
  Follow(0xA2);
  shows_questions_ = true;
  on_forward_ = [this](StoreId, v1::ForwardCallResponse* response) {
    if (forwarded_.size() == 1) return Broken();
    return Refuse(response, grpc::StatusCode::NOT_FOUND, "MEMBER_NOT_FOUND");
  };
  EXPECT_EQ(Call("RemoveMember", Remove("typo")).reason(), "MEMBER_NOT_FOUND");
  ASSERT_EQ(forwarded_.size(), 2u);
  for (const Forwarded& each : forwarded_) {
    EXPECT_FALSE(each.request.repeat()) << "a leader may say that it is done";
    EXPECT_EQ(each.request.store(), 0u);
  }
  on_forward_ = [](StoreId, v1::ForwardCallResponse*) { return Broken(); };
  for (const char* method : {"RemoveMember", "PromoteMember", "DemoteMember"}) {
    EXPECT_EQ(Call(method, Remove("n4"), milliseconds(100)).reason(), "CHANGE_DEADLINE")
        << method << ": nothing was changed";
  }
}

TEST_F(ClusterRetryTest, PromotionsAndDemotionsKeepToTheirStoreToo) {
  Follow(0xA2);
  for (const char* method : {"PromoteMember", "DemoteMember"}) {
    forwarded_.clear();
    on_forward_ = [this](StoreId, v1::ForwardCallResponse*) {
      return forwarded_.size() == 1 ? Broken() : grpc::Status::OK;
    };
    EXPECT_TRUE(Call(method, Remove("n4")).status.ok());
    ASSERT_EQ(forwarded_.size(), 2u);
    for (const Forwarded& each : forwarded_) EXPECT_EQ(each.request.store(), 0xA4u) << method;
    EXPECT_TRUE(forwarded_[1].request.repeat());
  }
  // A leader of later: the store has gone, and another one has come under its name.
  Lead();
  for (const char* method : {"PromoteMember", "DemoteMember"}) {
    v1::ForwardCallRequest request = Passed(method, Remove("n4"));
    request.set_store(0xB4);
    request.set_repeat(true);
    EXPECT_EQ(ReasonOf(Get(BeginForwarded(request))), "MEMBER_NOT_FOUND") << method;
  }
  EXPECT_TRUE(proposed_.empty());
}

TEST_F(ClusterRetryTest, TheLeaderNamesTheStoreAndTakesNoOther) {
  v1::ForwardCallRequest request = Passed("RemoveMember", Remove("n4"));
  request.set_store(0);
  v1::ForwardCallResponse response = Get(BeginForwarded(request));
  EXPECT_TRUE(response.not_leader());
  EXPECT_EQ(response.store(), 0xA4u);
  EXPECT_TRUE(proposed_.empty());
  request.set_store(0xA4);
  EXPECT_FALSE(Get(BeginForwarded(request)).not_leader());
  EXPECT_EQ(proposed_.size(), 1u);
  // The first try has taken store b4 out, and another one has come under its name.
  request.set_store(0xB4);
  request.set_repeat(true);
  response = Get(BeginForwarded(request));
  EXPECT_EQ(ReasonOf(response), "");
  EXPECT_FALSE(response.response().empty());
  request.set_repeat(false);
  EXPECT_EQ(ReasonOf(Get(BeginForwarded(request))), "MEMBER_NOT_FOUND");
  EXPECT_EQ(proposed_.size(), 1u);
}

TEST_F(ClusterRetryTest, WithinOneCallToo) {
  // While it waits for an earlier change its store leaves, and another one comes under its name.
  NextResults(std::vector<ChangeStatus>(1000, ChangeStatus::kInProgress));
  std::future<AnsweredCall> answer = Begin("RemoveMember", Remove("n4"));
  Eventually("it is tried", [this] { return !proposed_.empty(); });
  {
    std::lock_guard lock(mutex_);
    auto members = std::make_shared<raft::Membership>(*node_.membership);
    members->members.back().store = StoreId(0xB4);
    node_.membership = members;
  }
  EXPECT_EQ(Get(std::move(answer)).reason(), "MEMBER_NOT_FOUND");
  for (const raft::MembershipChange& change : proposed_) {
    EXPECT_EQ(change.steps.at(0).store, StoreId(0xA4));
  }
}

TEST_F(ClusterRetryTest, AnUnnamedTransferIsNotDoneByWhoeverLedAllTheTime) {
  Follow(0xA2);  // which has been deposed
  on_forward_ = [this](StoreId, v1::ForwardCallResponse* response) {
    if (forwarded_.size() == 1) {
      node_.leader = StoreId(0xA3);
      response->set_not_leader(true);
    }
    return forwarded_.size() == 2 ? Broken() : grpc::Status::OK;
  };
  EXPECT_TRUE(Call("TransferLeadership", v1::TransferLeadershipRequest()).status.ok());
  ASSERT_EQ(forwarded_.size(), 3u);
  EXPECT_EQ(forwarded_[2].leader, StoreId(0xA3));
}

// A leader's office may end during a transfer although nobody takes over: the others were cut off.
TEST_F(ClusterRetryTest, AnUnnamedTransferIsNotDoneByThisNodeItself) {
  nobody_takes_over_ = true;
  std::future<AnsweredCall> answer =
      Begin("TransferLeadership", v1::TransferLeadershipRequest(), NewCall(milliseconds(300)));
  EXPECT_EQ(Get(std::move(answer)).reason(), "OUTCOME_UNKNOWN") << "its view shows itself still";
  EXPECT_EQ(targets_.size(), 1u);
  EXPECT_EQ(ended_["transfer done"], 0);
  // Elected again: the transfer is tried again.
  on_transfer_ = [this] {
    std::lock_guard lock(mutex_);
    node_.term = raft::Term(node_.term.value() + 1);
    if (targets_.size() == 3) {
      node_.role = raft::Role::kFollower;
      node_.leader = StoreId(0xA2);
    }
  };
  const AnsweredCall second = Call("TransferLeadership", v1::TransferLeadershipRequest());
  EXPECT_TRUE(second.status.ok()) << second.status.error_message();
  EXPECT_EQ(targets_.size(), 3u);
}

// --- Nobody wants it any more ---

TEST_F(ClusterRetryTest, WhoHasGoneProposesNothing) {
  silent_ = {"n3:7000"};
  const CallPtr call = NewCall();
  std::future<AnsweredCall> answer = Begin("RemoveMember", Remove("n2"), call);
  WaitForQuestion();
  call->Cancel();
  EXPECT_EQ(Get(std::move(answer)).status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(Call("RemoveMember", Remove("n2"), milliseconds(50)).reason(), "CHANGE_DEADLINE");
  changes_->Stop();
  EXPECT_TRUE(proposed_.empty());
}

TEST_F(ClusterRetryTest, WhatWaitsForAThreadIsAnsweredInTime) {
  hang_ = true;
  std::vector<std::future<AnsweredCall>> running;
  for (int i = 0; i < 4; ++i) running.push_back(Begin("RemoveMember", Remove("n4")));
  Eventually("all threads are busy", [this] { return held_.size() == 4; });
  const CallPtr gone = NewCall();
  std::future<AnsweredCall> cancelled = Begin("RemoveMember", Remove("n4"), gone);
  gone->Cancel();
  EXPECT_EQ(Get(std::move(cancelled)).status.error_code(), grpc::StatusCode::CANCELLED);
  std::future<AnsweredCall> late = Begin("RemoveMember", Remove("n4"), NewCall(milliseconds(20)));
  Eventually("what is late is ended", [&] {
    changes_->Tick();
    return late.wait_for(Duration::zero()) == std::future_status::ready;
  });
  EXPECT_EQ(Get(std::move(late)).reason(), "CHANGE_DEADLINE");
  // And takes no place any more.
  for (int i = 0; i < 200; ++i) {
    const CallPtr call = NewCall();
    std::future<AnsweredCall> answer = Begin("RemoveMember", Remove("n4"), call);
    call->Cancel();
    EXPECT_EQ(Get(std::move(answer)).status.error_code(), grpc::StatusCode::CANCELLED);
  }
}

TEST_F(ClusterRetryTest, OneCallHasAMinuteWhateverItsDeadline) {
  change_time_max_ = milliseconds(50);
  Remake();
  Follow(0xA2);
  on_forward_ = [](StoreId, v1::ForwardCallResponse* response) {
    response->set_not_leader(true);
    return grpc::Status::OK;
  };
  AnsweredCall answer = Call("RemoveMember", Remove("n4"), std::chrono::hours(1));
  EXPECT_EQ(answer.reason(), "CHANGE_DEADLINE");
  EXPECT_THAT(answer.status.error_message(), HasSubstr("a minute passed"));
  EXPECT_LE(left_, seconds(1));
  on_forward_ = [](StoreId, v1::ForwardCallResponse*) { return Broken(); };
  EXPECT_EQ(Call("RemoveMember", Remove("n4"), std::chrono::hours(1)).reason(), "OUTCOME_UNKNOWN");
}

TEST_F(ClusterRetryTest, LongCompactionsHoldUpNoChange) {
  hang_ = true;
  std::vector<std::future<AnsweredCall>> compactions;
  for (int i = 0; i < 10; ++i) compactions.push_back(Begin("Compact", CompactTo(30)));
  Eventually("both threads are busy", [this] { return hung_writes_ == 2; });
  {
    std::lock_guard lock(mutex_);
    hang_ = false;
  }
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  changes_->Stop();
  for (auto& each : compactions) EXPECT_FALSE(Get(std::move(each)).status.ok());
}

// --- Questions ---

TEST_F(ClusterRetryTest, WhoWasHeardAMomentAgoIsAskedWithPatience) {
  raft::PeerView heard;
  heard.store = StoreId(0xA3);
  heard.active = true;
  node_.peers = {heard};
  EXPECT_TRUE(Call("RemoveMember", Remove("n2")).status.ok());
  EXPECT_THAT(asked_, testing::ElementsAre(testing::Pair("n3:7000", true)));
  asked_.clear();
  node_.peers.clear();
  EXPECT_TRUE(Call("RemoveMember", Remove("n2")).status.ok());
  EXPECT_THAT(asked_, testing::ElementsAre(testing::Pair("n3:7000", false)));
  // A double still says who it is, and will not vote.
  nodes_["n3:7000"].set_state(static_cast<uint32_t>(raft::BirthState::kHalted));
  EXPECT_EQ(Call("RemoveMember", Remove("n2")).reason(), "WOULD_LOSE_QUORUM");
}

TEST_F(ClusterRetryTest, ANewcomerIsAskedWhereItSaysThatItIsToo) {
  nodes_["n5:7000"] = Node(0xB5, "n5");
  nodes_["n5:7000"].set_address("127.0.0.1:7000");
  AnsweredCall answer = Call("AddMember", Add("n5:7000"));
  EXPECT_EQ(answer.reason(), "ADVERTISED_ADDRESS_WRONG");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("the leader reaches nobody"));
  EXPECT_EQ(DetailsOf(answer.status).metadata.at("advertised_address"), "127.0.0.1:7000");
  nodes_["127.0.0.1:7000"] = Node(0xA1, "n1");
  answer = Call("AddMember", Add("n5:7000"));
  EXPECT_EQ(answer.reason(), "ADVERTISED_ADDRESS_WRONG");
  EXPECT_THAT(answer.status.error_message(), HasSubstr("another store answers"));
  EXPECT_TRUE(proposed_.empty());
  nodes_["127.0.0.1:7000"] = nodes_["n5:7000"];
  EXPECT_TRUE(Call("AddMember", Add("n5:7000")).status.ok());
  EXPECT_EQ(proposed_.at(0).steps.at(0).address, "127.0.0.1:7000");
}

TEST_F(ClusterRetryTest, WhatTheCoreFindsInvalidIsSaidSo) {
  raft::ChangeResult invalid;
  invalid.status = ChangeStatus::kInvalid;
  invalid.reason = "two members have one name";
  results_ = {invalid};
  const AnsweredCall answer = Call("RemoveMember", Remove("n4"));
  EXPECT_EQ(answer.reason(), "CHANGE_INVALID");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("two members have one name"));
  EXPECT_EQ(ended_["remove refused"], 1);
}

TEST_F(ClusterRetryTest, WhoWasJustLetInSaysThatItHasNotCaughtUp) {
  Follow(0xA2);
  node_.birth_complete = false;
  joined_ = true;
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "NOT_CAUGHT_UP");
  joined_ = false;
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "NOT_BORN");
}

// --- Compaction ---

TEST_F(ClusterRetryTest, APieceThatIsNotDoneIsDoneAgain) {
  pieces_ = 5;
  outcomes_ = {Answered(), NotAccepted("NO_LEADER"), UnknownOutcome(), NotAccepted("QUEUE_FULL")};
  EXPECT_TRUE(Call("Compact", CompactTo(30)).status.ok());
  EXPECT_EQ(commands_.size(), 5u);
  commands_.clear();
  outcomes_ = {UnknownOutcome(), NotAccepted("NO_LEADER")};
  EXPECT_TRUE(Call("Compact", CompactTo(30)).status.ok());
  // Before the first one nothing was done.
  outcomes_ = {NotAccepted("NO_LEADER")};
  EXPECT_EQ(Call("Compact", CompactTo(30)).reason(), "NO_LEADER");
  // What lasts ends with the deadline.
  outcomes_.clear();
  commands_.clear();
  pieces_ = 1000;
  on_write_ = [this] {
    std::lock_guard lock(mutex_);
    outcomes_ = {NotAccepted("NO_LEADER")};
  };
  EXPECT_EQ(Call("Compact", CompactTo(30), milliseconds(300)).reason(), "OUTCOME_UNKNOWN");
}

TEST_F(ClusterRetryTest, AListingThatBeginsUnderWayEndsTheCompaction) {
  pieces_ = 1'000'000;
  on_write_ = [this] { pinned_ = 30; };
  const AnsweredCall answer = Call("Compact", CompactTo(2'000'000'000));
  EXPECT_EQ(answer.reason(), "PAGE_TOKEN_PINS");
  const std::string reached = std::to_string(commands_.size() * 10);
  EXPECT_EQ(DetailsOf(answer.status).metadata.at("compacted_revision"), reached);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("up to revision " + reached + " is gone"));
}

}  // namespace
}  // namespace quorate::services
