// The calls that change the cluster: who does them, and how they end. (When things go wrong under
// way: cluster_retry_test.cc.)
#include "services/cluster_changes.h"

#include "tests/services/cluster_changes_fixture.h"

namespace quorate::services {
namespace {

using raft::ChangeStatus;
using raft::TransferStatus;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

class ClusterChangesTest : public ClusterChangesFixture {};

// --- At the leader ---

TEST_F(ClusterChangesTest, TheLeaderAsksWhoIsThereAndAddsIt) {
  nodes_["n5:7000"] = Node(0xB5, "n5");
  const AnsweredCall answer = Call("AddMember", Add("n5:7000"));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(proposed_.size(), 1u);
  EXPECT_EQ(proposed_[0].steps.at(0).store, StoreId(0xB5));
  v1::AddMemberResponse response;
  ASSERT_TRUE(response.ParseFromString(answer.response));
  EXPECT_EQ(response.header().node_id(), "n1");
  EXPECT_EQ(response.header().term(), 3u);
}

TEST_F(ClusterChangesTest, AMemberAddedAgainIsShownAndNothingIsProposed) {
  nodes_["n4:7000"] = Node(0xA4, "n4");
  nodes_["n4:7000"].mutable_header()->set_cluster_id(0xC1);
  const AnsweredCall answer = Call("AddMember", Add("n4:7000"));
  v1::AddMemberResponse response;
  ASSERT_TRUE(response.ParseFromString(answer.response));
  EXPECT_EQ(response.member().store_id(), "00000000000000a4");
  EXPECT_FALSE(response.member().voter());
  EXPECT_TRUE(proposed_.empty());
}

TEST_F(ClusterChangesTest, ANameIsTakenWhileItsStoreAnswersAnywhere) {
  nodes_["new:7000"] = Node(0xB2, "n2");
  nodes_["n2:7000"] = Node(0xA2, "n2");
  EXPECT_EQ(Call("AddMember", Add("new:7000")).reason(), "NAME_TAKEN");
  // Another store behind its address is not it.
  nodes_["n2:7000"] = Node(0xB2, "n2");
  EXPECT_TRUE(Call("AddMember", Add("n2:7000")).status.ok());
  // Whom the leader hears is there, whatever its address says; so is the leader itself.
  raft::PeerView peer;
  peer.store = StoreId(0xA2);
  peer.active = true;
  node_.peers = {peer};
  EXPECT_EQ(Call("AddMember", Add("n2:7000")).reason(), "NAME_TAKEN");
  nodes_["self:7000"] = Node(0xB1, "n1");
  EXPECT_EQ(Call("AddMember", Add("self:7000")).reason(), "NAME_TAKEN");
}

TEST_F(ClusterChangesTest, WhatIsInTheWayForAMomentIsWaitedFor) {
  NextResults({ChangeStatus::kNotReady, ChangeStatus::kInProgress, ChangeStatus::kTransferring,
               ChangeStatus::kUnknownStore, ChangeStatus::kAccepted});
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  EXPECT_EQ(proposed_.size(), 5u);
}

TEST_F(ClusterChangesTest, RefusalsOfTheCoreAreAnswered) {
  NextResults({ChangeStatus::kWouldLoseQuorum});
  EXPECT_EQ(Call("RemoveMember", Remove("n2")).reason(), "WOULD_LOSE_QUORUM");
  NextResults({ChangeStatus::kNotCaughtUp});
  v1::PromoteMemberRequest promote;
  promote.set_node_id("n4");
  EXPECT_EQ(Call("PromoteMember", promote).reason(), "LEARNER_NOT_CAUGHT_UP");
}

// The core heard n3 a moment ago, and now it is gone.
TEST_F(ClusterChangesTest, WhoIsToVoteIsAskedWhetherItIsThere) {
  nodes_.erase("n3:7000");
  const AnsweredCall answer = Call("RemoveMember", Remove("n2"));
  EXPECT_EQ(answer.reason(), "WOULD_LOSE_QUORUM");
  EXPECT_THAT(answer.status.error_message(),
              HasSubstr("of the 2 voters that there would be, 2 must answer and 1 does"));
  EXPECT_TRUE(proposed_.empty());
  // Without the leader itself 1 of n2 and n3 is too few, too.
  EXPECT_EQ(Call("RemoveMember", Remove("n1")).reason(), "WOULD_LOSE_QUORUM");
  // What answers there is another store.
  nodes_["n3:7000"] = Node(0xB3, "n3");
  EXPECT_EQ(Call("RemoveMember", Remove("n2")).reason(), "WOULD_LOSE_QUORUM");
  EXPECT_TRUE(Call("RemoveMember", Remove("n3")).status.ok()) << "who is gone may leave";
  v1::RemoveMemberRequest forced = Remove("n2");
  forced.set_force(true);
  EXPECT_TRUE(Call("RemoveMember", forced).status.ok());
  EXPECT_EQ(proposed_.size(), 2u);
}

TEST_F(ClusterChangesTest, ADeposedLeaderSeesItsChangeThrough) {
  NextResults({ChangeStatus::kUnknown});  // n2 leads from then on
  on_forward_ = [](StoreId, v1::ForwardCallResponse* response) {
    response->set_response(v1::RemoveMemberResponse().SerializeAsString());
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  ASSERT_EQ(forwarded_.size(), 1u);
  EXPECT_EQ(forwarded_[0].leader, StoreId(0xA2));
  EXPECT_TRUE(forwarded_[0].request.repeat()) << "it may be done already";
}

TEST_F(ClusterChangesTest, ATransferEndsWhenTheTargetLeads) {
  v1::TransferLeadershipRequest request;
  request.set_node_id("n2");
  EXPECT_TRUE(Call("TransferLeadership", request).status.ok());
  EXPECT_EQ(targets_.back(), StoreId(0xA2));
  Lead();
  request.clear_node_id();
  EXPECT_TRUE(Call("TransferLeadership", request).status.ok());
  EXPECT_EQ(targets_.back(), StoreId());
  Lead();
  transfer_ = TransferStatus::kFailed;
  const AnsweredCall failed = Call("TransferLeadership", request);
  EXPECT_EQ(failed.reason(), "TRANSFER_FAILED");
  EXPECT_EQ(failed.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  transfer_ = TransferStatus::kAlreadyLeads;
  EXPECT_TRUE(Call("TransferLeadership", request).status.ok());
}

// The node says that it is done before its status shows who leads now.
TEST_F(ClusterChangesTest, ATransferIsNotDoneWhileThisNodeIsStillShownAsTheLeader) {
  shown_after_ = 3;
  const AnsweredCall answer = Call("TransferLeadership", v1::TransferLeadershipRequest());
  v1::TransferLeadershipResponse response;
  ASSERT_TRUE(answer.status.ok() && response.ParseFromString(answer.response));
  EXPECT_EQ(response.header().leader_id(), "n3");
  EXPECT_EQ(targets_.size(), 1u);
}

// --- At a follower ---

TEST_F(ClusterChangesTest, AFollowerPassesTheCallOnAndGivesTheLeadersAnswer) {
  Follow(0xA2);
  const grpc::Status refusal =
      MakeError(grpc::StatusCode::FAILED_PRECONDITION, "SOME", "why", {{"a", "b"}});
  on_forward_ = [&](StoreId, v1::ForwardCallResponse* response) {
    response->set_status(ToProto(refusal).SerializeAsString());
    return grpc::Status::OK;
  };
  const v1::RemoveMemberRequest request = Remove("n4");
  const AnsweredCall answer = Call("RemoveMember", request, seconds(5));
  EXPECT_EQ(answer.status.error_code(), refusal.error_code());
  EXPECT_EQ(answer.status.error_message(), refusal.error_message());
  EXPECT_EQ(answer.status.error_details(), refusal.error_details()) << "byte for byte";
  ASSERT_EQ(forwarded_.size(), 1u);
  EXPECT_EQ(forwarded_[0].request.method(), "RemoveMember");
  EXPECT_EQ(forwarded_[0].request.request(), request.SerializeAsString());
  EXPECT_FALSE(forwarded_[0].request.repeat());
  EXPECT_LE(left_, seconds(5) - milliseconds(50)) << "the caller's deadline, and time to answer";
  EXPECT_GT(left_, seconds(1));
  EXPECT_TRUE(proposed_.empty());

  // In a success only the name of who answers is this node's.
  on_forward_ = [&](StoreId, v1::ForwardCallResponse* response) {
    v1::RemoveMemberResponse done;
    done.mutable_header()->set_node_id("n2");
    done.mutable_header()->set_term(9);
    response->set_response(done.SerializeAsString());
    return grpc::Status::OK;
  };
  v1::RemoveMemberResponse response;
  ASSERT_TRUE(response.ParseFromString(Call("RemoveMember", request).response));
  EXPECT_EQ(response.header().node_id(), "n1");
  EXPECT_EQ(response.header().term(), 9u);
}

TEST_F(ClusterChangesTest, ABrokenCallIsRepeatedAndSaysSo) {
  Follow(0xA2);
  int calls = 0;
  on_forward_ = [&](StoreId, v1::ForwardCallResponse* response) {
    ++calls;
    if (calls == 1) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset");
    if (calls == 2) return response->set_not_leader(true), grpc::Status::OK;
    if (calls == 3) {
      return MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_RUNNING", "not yet");
    }
    if (calls == 4) return response->set_outcome_unknown(true), grpc::Status::OK;
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  ASSERT_EQ(forwarded_.size(), 5u);
  EXPECT_FALSE(forwarded_[0].request.repeat());
  for (size_t i = 1; i < 5; ++i) EXPECT_TRUE(forwarded_[i].request.repeat()) << i;

  forwarded_.clear();
  calls = 1;  // what has surely not been done is no repeat
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok());
  EXPECT_FALSE(forwarded_[0].request.repeat());
  EXPECT_FALSE(forwarded_[1].request.repeat());
  EXPECT_FALSE(forwarded_[2].request.repeat());
  EXPECT_TRUE(forwarded_[3].request.repeat());
}

TEST_F(ClusterChangesTest, AnUnnamedTransferIsNotDoneTwice) {
  Follow(0xA2);
  on_forward_ = [&](StoreId, v1::ForwardCallResponse*) {
    node_.leader = StoreId(0xA3);  // it has happened, and the answer is lost
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset");
  };
  EXPECT_TRUE(Call("TransferLeadership", v1::TransferLeadershipRequest()).status.ok());
  EXPECT_EQ(forwarded_.size(), 1u);
}

// --- Passed on by another node ---

TEST_F(ClusterChangesTest, WhatWasPassedOnIsDoneHereOrNotAtAll) {
  const v1::ForwardCallResponse done = CallForwarded("RemoveMember", Remove("n4"));
  EXPECT_FALSE(done.not_leader() || done.outcome_unknown());
  v1::RemoveMemberResponse response;
  ASSERT_TRUE(response.ParseFromString(done.response()));
  EXPECT_EQ(response.header().node_id(), "n1");
  EXPECT_EQ(proposed_.size(), 1u);
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(CallForwarded("RemoveMember", Remove("gone")).status()));
  EXPECT_EQ(status.code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(status.ParseFromString(CallForwarded("RemoveMember", Remove("gone"), true).status()));
  EXPECT_EQ(status.code(), 0) << "an earlier try has done it";

  NextResults({ChangeStatus::kUnknown});
  EXPECT_TRUE(CallForwarded("RemoveMember", Remove("n4")).outcome_unknown());
  Follow(0xA2);
  EXPECT_TRUE(CallForwarded("RemoveMember", Remove("n4")).not_leader());
  EXPECT_TRUE(forwarded_.empty()) << "never passed on twice";
  ASSERT_TRUE(status.ParseFromString(CallForwarded("Compact", v1::CompactRequest()).status()));
  EXPECT_EQ(status.code(), grpc::StatusCode::UNIMPLEMENTED);
}

// --- The leader's own ---

TEST_F(ClusterChangesTest, WhatTheLeaderWantsItselfIsDoneInItsTermAndSaysThatNobodyAsked) {
  const auto own = [this](const std::string& name, uint64_t store, uint64_t term) {
    v1::PromoteMemberRequest request;
    request.set_node_id(name);
    auto ended = std::make_shared<std::promise<grpc::Status>>();
    changes_->HandleOwn("PromoteMember", request.SerializeAsString(), StoreId(store),
                        raft::Term(term), NewCall(),
                        [ended](grpc::Status done) { ended->set_value(std::move(done)); });
    return Get(ended->get_future());
  };
  nodes_["n4:7000"] = Node(0xA4, "n4");
  EXPECT_TRUE(own("n4", 0xA4, 3).ok());
  ASSERT_EQ(proposed_.size(), 1u);
  EXPECT_TRUE(proposed_[0].steps.at(0).by_itself);
  EXPECT_EQ(own("n4", 0xA5, 3).error_code(), grpc::StatusCode::NOT_FOUND) << "another store";
  EXPECT_EQ(proposed_[0].in_term, raft::Term(3)) << "the core refuses it in another term";

  // It had not caught up when it was heard of; now it has, and is no member.
  v1::AddMemberRequest add;
  add.set_address("n5:7000");
  const auto let_in = [&] {
    auto ended = std::make_shared<std::promise<grpc::Status>>();
    changes_->HandleOwn("AddMember", add.SerializeAsString(), StoreId(0xA5), raft::Term(3),
                        NewCall(),
                        [ended](grpc::Status done) { ended->set_value(std::move(done)); });
    return Get(ended->get_future());
  };
  nodes_["n5:7000"] = Node(0xA5, "n5");
  nodes_["n5:7000"].mutable_header()->set_cluster_id(0xC1);
  EXPECT_EQ(let_in().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(proposed_.size(), 1u);
  nodes_["n5:7000"].set_never_caught_up(true);
  EXPECT_TRUE(let_in().ok());
  EXPECT_EQ(proposed_.size(), 2u);
  proposed_.pop_back();
  Follow(0xA2);
  EXPECT_EQ(own("n4", 0xA4, 3).error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(proposed_.size(), 1u);
  EXPECT_TRUE(forwarded_.empty());
}

// --- Compaction ---

TEST_F(ClusterChangesTest, ACompactionIsDoneInPieces) {
  Follow(0);
  pieces_ = 3;
  v1::CompactRequest request;
  request.set_revision(30);
  const AnsweredCall answer = Call("Compact", request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(commands_.size(), 3u);
  EXPECT_EQ(commands_[0].compact_history().revision(), 30u);
  v1::CompactResponse response;
  ASSERT_TRUE(response.ParseFromString(answer.response));
  EXPECT_EQ(response.compacted_revision(), 30u);
  refuse_write_ = true;
  EXPECT_EQ(Call("Compact", request).reason(), "REVISION_IN_FUTURE");
}

TEST_F(ClusterChangesTest, WhatAPageTokenShowsIsKeptUnlessForced) {
  pinned_ = 40;
  nodes_["n3:7000"] = Node(0xA3, "n3");
  nodes_["n3:7000"].set_pinned_revision(20);
  v1::CompactRequest request;
  request.set_revision(20);
  const AnsweredCall answer = Call("Compact", request);
  EXPECT_EQ(answer.reason(), "PAGE_TOKEN_PINS");
  EXPECT_THAT(answer.status.error_message(), HasSubstr("n3"));
  EXPECT_TRUE(commands_.empty());
  request.set_revision(19);
  EXPECT_TRUE(Call("Compact", request).status.ok());
  request.set_revision(30);
  request.set_force(true);
  EXPECT_TRUE(Call("Compact", request).status.ok());
}

// --- Settings ---

TEST_F(ClusterChangesTest, ASettingIsWrittenByTheNodeThatIsAsked) {
  Follow(0xA2);
  for (bool on : {true, false}) {
    v1::SetSettingsRequest request;
    request.set_leases(on);
    lags_ = 4;
    const AnsweredCall answer = Call("SetSettings", request);
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(applied_leases_, on) << "who asks here next finds it so";
    ASSERT_TRUE(commands_.back().has_set_settings());
    EXPECT_TRUE(commands_.back().set_settings().has_leases());
    EXPECT_EQ(commands_.back().set_settings().leases(), on);
    v1::SetSettingsResponse response;
    ASSERT_TRUE(response.ParseFromString(answer.response));
    EXPECT_EQ(response.settings().leases(), on);
    EXPECT_EQ(response.header().revision(), 50u);
    EXPECT_EQ(response.header().node_id(), "n1");
  }
  EXPECT_TRUE(forwarded_.empty()) << "the ingress passes it on, as any write";
}

TEST_F(ClusterChangesTest, ASettingThatIsNotWrittenSaysWhy) {
  AnsweredCall answer = Call("SetSettings", v1::SetSettingsRequest());
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(answer.status).metadata.at("field"), "leases");
  EXPECT_TRUE(commands_.empty());
  v1::SetSettingsRequest request;
  request.set_leases(true);
  refuse_write_ = true;
  EXPECT_EQ(Call("SetSettings", request).reason(), "REVISION_IN_FUTURE");
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(CallForwarded("SetSettings", request).status()));
  EXPECT_EQ(status.code(), grpc::StatusCode::UNIMPLEMENTED) << "peers do not ask for it";
  hang_ = true;
  answer = Call("SetSettings", request, milliseconds(100));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.reason(), "OUTCOME_UNKNOWN");
  EXPECT_EQ(cancelled_, 1);
  unborn_ = true;
  EXPECT_EQ(Call("SetSettings", request).reason(), "NOT_BORN");
}

// Such a member would take nothing any more from a leader that says who was demoted.
TEST_F(ClusterChangesTest, ADemotionWaitsForTheLastOfTheOlderBuilds) {
  v1::DemoteMemberRequest request;
  request.set_node_id("n2");
  request.set_force(true);
  nodes_["n3:7000"].clear_membership_version();
  const AnsweredCall answer = Call("DemoteMember", request);
  EXPECT_EQ(answer.reason(), "WRITE_NOT_UNDERSTOOD");
  EXPECT_EQ(DetailsOf(answer.status).metadata.at("node_id"), "n3");
  EXPECT_TRUE(proposed_.empty());
  EXPECT_TRUE(Call("RemoveMember", Remove("n4")).status.ok()) << "that says nothing new";
  nodes_["n3:7000"].set_membership_version(raft::kMembershipVersion);
  EXPECT_TRUE(Call("DemoteMember", request).status.ok());
}

// Such a member ends when it has to apply what it does not know, and again at each start.
TEST_F(ClusterChangesTest, ASettingWaitsForTheLastOfTheOlderBuilds) {
  Follow(0xA2);
  v1::SetSettingsRequest request;
  request.set_leases(true);
  nodes_["n3:7000"].clear_command_format();
  const AnsweredCall answer = Call("SetSettings", request);
  EXPECT_EQ(answer.reason(), "WRITE_NOT_UNDERSTOOD");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(answer.status).metadata.at("node_id"), "n3");
  EXPECT_TRUE(commands_.empty());
  nodes_.erase("n3:7000");
  EXPECT_TRUE(Call("SetSettings", request).status.ok()) << "who is down holds up nothing";
  // Whoever gave up meanwhile has written nothing.
  commands_.clear();
  silent_ = {"n3:7000"};
  const CallPtr call = NewCall();
  std::future<AnsweredCall> gone = Begin("SetSettings", request, call);
  WaitForQuestion();
  call->Cancel();
  EXPECT_EQ(Get(std::move(gone)).status.error_code(), grpc::StatusCode::CANCELLED);
  changes_->Stop();
  EXPECT_TRUE(commands_.empty());
}

// --- Trouble ---

TEST_F(ClusterChangesTest, BeforeBirthNothingIsChanged) {
  unborn_ = true;
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "NOT_BORN");
  unborn_ = false;
  node_.birth_complete = false;
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "NOT_BORN");
}

TEST_F(ClusterChangesTest, NobodyAnswersAtTheAddress) {
  const AnsweredCall answer = Call("AddMember", Add("n5:7000"));
  EXPECT_EQ(answer.reason(), "NODE_SILENT");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  nodes_["n5:7000"] = Node(0xB5, "");
  EXPECT_EQ(Call("AddMember", Add("n5:7000")).reason(), "NODE_NOT_WAITING");
}

TEST_F(ClusterChangesTest, WithoutALeaderItWaitsAndThenSaysSo) {
  Follow(0);
  const AnsweredCall answer = Call("RemoveMember", Remove("n4"));
  EXPECT_EQ(answer.reason(), "NO_LEADER");
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ClusterChangesTest, ADeadlineSaysWhetherTheOutcomeIsKnown) {
  Follow(0xA2);
  on_forward_ = [](StoreId, v1::ForwardCallResponse* response) {
    response->set_not_leader(true);
    return grpc::Status::OK;
  };
  AnsweredCall answer = Call("RemoveMember", Remove("n4"), milliseconds(100));
  EXPECT_EQ(answer.reason(), "CHANGE_DEADLINE");
  on_forward_ = [](StoreId, v1::ForwardCallResponse*) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset");
  };
  answer = Call("RemoveMember", Remove("n4"), milliseconds(100));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.reason(), "OUTCOME_UNKNOWN");
  Lead();
  hang_ = true;  // in the log, and nobody else answers
  answer = Call("RemoveMember", Remove("n4"), milliseconds(100));
  EXPECT_EQ(answer.reason(), "OUTCOME_UNKNOWN");
  held_.at(0)(raft::ChangeResult());  // late: nobody minds
}

TEST_F(ClusterChangesTest, WhoGoesAwayIsNotWaitedFor) {
  hang_ = true;
  const CallPtr call = NewCall();
  std::future<AnsweredCall> answer = Begin("RemoveMember", Remove("n4"), call);
  call->Cancel();
  EXPECT_EQ(Get(std::move(answer)).status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ClusterChangesTest, StoppingEndsWhatIsOpenAndRefusesTheRest) {
  hang_ = true;
  std::future<AnsweredCall> open = Begin("RemoveMember", Remove("n4"));
  Eventually("it is in the log", [this] { return !held_.empty(); });
  changes_->Stop();
  EXPECT_EQ(Get(std::move(open)).reason(), "OUTCOME_UNKNOWN");
  EXPECT_EQ(Call("RemoveMember", Remove("n4")).reason(), "SHUTTING_DOWN");
}

TEST_F(ClusterChangesTest, TooManyAtOnceAreRefused) {
  hang_ = true;
  std::vector<std::future<AnsweredCall>> open;
  size_t refused = 0;
  for (int i = 0; i < 100; ++i) open.push_back(Begin("RemoveMember", Remove("n4")));
  changes_->Stop();
  for (auto& each : open) refused += Get(std::move(each)).reason() == "TOO_MANY_CALLS" ? 1 : 0;
  EXPECT_GE(refused, 30u);
  EXPECT_LE(refused, 36u);
}

}  // namespace
}  // namespace quorate::services
