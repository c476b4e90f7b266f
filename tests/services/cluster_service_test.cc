#include "services/cluster_service.h"

#include <gtest/gtest.h>

#include "services/errors.h"

namespace quorate::services {
namespace {

constexpr Instant kNow{std::chrono::seconds(1000)};

ClusterView Unborn() {
  ClusterView view;
  view.now = kNow;
  view.node_id = "n1";
  view.version = "0.1.0";
  view.store = StoreId(0xA1);
  view.boot = 3;
  view.birth.state = raft::BirthState::kSearching;
  view.birth.lacks = {"n2 (a:2) does not answer"};
  return view;
}

// n1 of three: n1 and n2 vote, n3 learns; n2 leads.
ClusterView Running() {
  ClusterView view = Unborn();
  view.cluster = ClusterId(0xC1);
  view.birth.state = raft::BirthState::kComplete;
  view.birth.lacks.clear();
  view.healthy = true;
  view.generation = 1;
  view.log_bytes = 64;
  view.database_bytes = 4096;
  view.own_address = "own:1";
  view.addresses = {{StoreId(0xA2), "heard:2"}};
  auto membership = std::make_shared<raft::Membership>();
  membership->cluster = view.cluster;
  membership->members = {
      {.store = StoreId(0xA1), .name = "n1", .address = "old:1", .voter = true},
      {.store = StoreId(0xA2), .name = "n2", .address = "old:2", .voter = true},
      {.store = StoreId(0xA3), .name = "n3", .address = "old:3", .voter = false}};
  auto node = std::make_shared<raft::NodeStatus>();
  node->self = StoreId(0xA1);
  node->leader = StoreId(0xA2);
  node->term = raft::Term(7);
  node->first_index = raft::Index(1);
  node->last_index = raft::Index(42);
  node->persisted = raft::Index(41);
  node->commit = raft::Index(40);
  node->membership = membership;
  view.node = node;
  storage::StateSummary state;
  state.applied = raft::Index(39);
  state.revision = Revision(12);
  state.compacted = Revision(5);
  state.hash[0] = 0x01;
  state.hash[15] = 0xFE;
  view.state = state;
  return view;
}

TEST(ClusterService, BeforeBirthStatusSaysWhatItLacks) {
  const v1::StatusResponse status = MakeStatus(Unborn());
  EXPECT_EQ(status.ShortDebugString(),
            "header { node_id: \"n1\" } store_id: \"00000000000000a1\" role: NODE_ROLE_WAITING "
            "boot: 3 birth: BIRTH_STATE_SEARCHING lacks: \"n2 (a:2) does not answer\" version: "
            "\"0.1.0\"");
  EXPECT_EQ(MakeMembers(Unborn()).ShortDebugString(), "header { node_id: \"n1\" }");
}

TEST(ClusterService, ADrainIsPassedOnAndSaysWhetherTheNodeLeads) {
  std::vector<std::pair<bool, Instant>> asked;
  bool leads = true;
  ClusterService service(Running, nullptr,
                         [&](bool undo, Instant deadline, const std::function<void(bool)>& done) {
                           asked.emplace_back(undo, deadline);
                           done(leads);
                         });
  const auto drain = [&](const std::string& bytes) {
    std::string text;
    service.Handle("Drain", bytes,
                   std::make_shared<CallContext>(kNow, std::map<std::string, std::string>()),
                   [&](const grpc::Status& status, const std::string& response) {
                     v1::DrainResponse parsed;
                     EXPECT_TRUE(parsed.ParseFromString(response));
                     EXPECT_TRUE(!status.ok() || parsed.header().node_id() == "n1");
                     text = std::to_string(status.error_code()) + (parsed.leads() ? " leads" : "");
                   });
    return text;
  };
  EXPECT_EQ(drain(""), "0 leads");
  leads = false;
  v1::DrainRequest undo;
  undo.set_undo(true);
  EXPECT_EQ(drain(undo.SerializeAsString()), "0");
  EXPECT_EQ(drain("\x7a\x01x"), "3");  // an unknown field
  EXPECT_EQ(asked, (std::vector<std::pair<bool, Instant>>{{false, kNow}, {true, kNow}}));
}

TEST(ClusterService, ADrainedNodeSaysSo) {
  ClusterView view = Running();
  view.draining = true;
  EXPECT_TRUE(MakeStatus(view).draining());
  EXPECT_FALSE(MakeStatus(Running()).draining());
}

TEST(ClusterService, StatusShowsTheNode) {
  const v1::StatusResponse status = MakeStatus(Running());
  EXPECT_EQ(status.header().ShortDebugString(),
            "cluster_id: \"00000000000000c1\" node_id: \"n1\" leader_id: \"n2\" term: 7 revision: "
            "12");
  EXPECT_EQ(status.role(), v1::NODE_ROLE_FOLLOWER);
  EXPECT_EQ(status.birth(), v1::BIRTH_STATE_COMPLETE);
  EXPECT_EQ(status.commit_index(), 40u);
  EXPECT_EQ(status.applied_index(), 39u);
  EXPECT_EQ(status.state_hash(), "fe000000000000000000000000000001");
  EXPECT_EQ(status.log_first_index(), 1u);
  EXPECT_EQ(status.log_last_index(), 42u);
  EXPECT_EQ(status.snapshot_generation(), 1u);
  EXPECT_EQ(status.log_bytes(), 64u);
  EXPECT_EQ(status.database_bytes(), 4096u);
  EXPECT_EQ(status.compacted_revision(), 5u);
  EXPECT_TRUE(status.healthy());
  EXPECT_EQ(status.members_size(), 3);
}

TEST(ClusterService, AFollowerKnowsOnlyItselfAndWhoLeads) {
  const v1::ListMembersResponse members = MakeMembers(Running());
  ASSERT_EQ(members.members_size(), 3);
  EXPECT_EQ(members.members(0).ShortDebugString(),
            "node_id: \"n1\" store_id: \"00000000000000a1\" address: \"own:1\" voter: true active: "
            "true match_index: 41 last_contact { }");
  EXPECT_EQ(members.members(1).ShortDebugString(),
            "node_id: \"n2\" store_id: \"00000000000000a2\" address: \"heard:2\" voter: true "
            "is_leader: true");
  EXPECT_EQ(members.members(2).ShortDebugString(),
            "node_id: \"n3\" store_id: \"00000000000000a3\" address: \"old:3\"");
  EXPECT_EQ(members.failures_tolerated(), 0u);  // two voters
}

TEST(ClusterService, TheLeaderKnowsThemAll) {
  ClusterView view = Running();
  auto node = std::make_shared<raft::NodeStatus>(*view.node);
  node->role = raft::Role::kLeader;
  node->leader = StoreId(0xA1);
  raft::PeerView peer;
  peer.store = StoreId(0xA2);
  peer.match = raft::Index(30);
  peer.active = true;
  peer.last_contact = kNow - std::chrono::milliseconds(20);
  node->peers = {peer};
  view.node = node;
  const v1::StatusResponse status = MakeStatus(view);
  EXPECT_EQ(status.role(), v1::NODE_ROLE_LEADER);
  EXPECT_EQ(status.members(1).match_index(), 30u);
  EXPECT_TRUE(status.members(1).active());
  EXPECT_EQ(status.members(1).last_contact().nanos(), 20'000'000);
}

// The seeds' table: 1 tolerates 0, 3 tolerate 1, 5 tolerate 2; an even number adds nothing.
TEST(ClusterService, FailuresToleratedByMajorityArithmetic) {
  const uint32_t tolerated[] = {0, 0, 1, 1, 2, 2, 3};
  for (size_t voters = 1; voters <= 7; ++voters) {
    ClusterView view = Running();
    auto membership = std::make_shared<raft::Membership>();
    for (size_t i = 1; i <= voters; ++i) {
      membership->members.push_back(
          {.store = StoreId(i), .name = std::to_string(i), .address = "", .voter = true});
    }
    auto node = std::make_shared<raft::NodeStatus>(*view.node);
    node->membership = membership;
    view.node = node;
    EXPECT_EQ(MakeMembers(view).failures_tolerated(), tolerated[voters - 1]) << voters;
  }
}

TEST(ClusterService, EveryStateOfBirthHasAName) {
  for (int i = static_cast<int>(raft::BirthState::kSearching);
       i <= static_cast<int>(raft::BirthState::kHalted); ++i) {
    ClusterView view = Unborn();
    view.birth.state = static_cast<raft::BirthState>(i);
    EXPECT_NE(MakeStatus(view).birth(), v1::BIRTH_STATE_UNSPECIFIED) << i;
  }
}

TEST(ClusterService, ShowsTheSettingsThatItHasApplied) {
  const auto ask = [](const ClusterView& view) {
    ClusterService service([&view] { return view; });
    v1::GetSettingsResponse response;
    service.Handle("GetSettings", "", nullptr,
                   [&](const grpc::Status& end, const std::string& bytes) {
                     EXPECT_TRUE(end.ok()) << end.error_message();
                     EXPECT_TRUE(response.ParseFromString(bytes));
                   });
    return response;
  };
  ClusterView view = Running();
  view.caught_up = true;
  EXPECT_FALSE(ask(view).settings().leases());
  view.state->leases = true;
  EXPECT_TRUE(ask(view).settings().leases());
  EXPECT_EQ(ask(view).header().revision(), 12u);
}

// --- Errors ---

TEST(ClusterService, WhoDoesNotKnowWhatIsSetSaysSo) {
  const auto reason = [](const ClusterView& view) {
    ClusterService service([&view] { return view; });
    std::string said;
    service.Handle("GetSettings", "", nullptr,
                   [&](const grpc::Status& end, const std::string& bytes) {
                     EXPECT_EQ(end.error_code(), grpc::StatusCode::UNAVAILABLE);
                     EXPECT_EQ(bytes, "");
                     said = DetailsOf(end).reason;
                   });
    return said;
  };
  EXPECT_EQ(reason(Unborn()), "NOT_BORN");
  EXPECT_EQ(reason(Running()), "NOT_CAUGHT_UP") << "empty: let in a moment ago, or a new disk";
}

TEST(ClusterService, WhatIsNotBuiltSaysSo) {
  ClusterService service([] { return Unborn(); });
  grpc::Status status;
  service.Handle("Compact", "", nullptr,
                 [&](const grpc::Status& end, const std::string&) { status = end; });
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(DetailsOf(status).metadata.at("what"), "quorate.v1.Cluster/Compact");
}

}  // namespace
}  // namespace quorate::services
