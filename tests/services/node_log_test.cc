#include "services/node_log.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace quorate::services {
namespace {

class NodeLogTest : public ::testing::Test {
 protected:
  NodeLogTest() {
    auto membership = std::make_shared<raft::Membership>();
    membership->members = {{.store = StoreId(1), .name = "node-1", .address = "", .voter = true},
                           {.store = StoreId(2), .name = "node-2", .address = "", .voter = true}};
    status_.self = StoreId(1);
    status_.membership = membership;
  }

  // What one change makes it say, without the times.
  std::string Observe() {
    ::testing::internal::CaptureStderr();
    log_.Observe(status_);
    std::string text = ::testing::internal::GetCapturedStderr();
    for (size_t at = 0; (at = text.find("time=", at)) != std::string::npos;) {
      text.erase(at, text.find(" level", at) + 1 - at);
    }
    return text;
  }

  Metrics metrics_{"node-1", "test"};
  NodeLog log_{&metrics_};
  raft::NodeStatus status_;
};

TEST_F(NodeLogTest, TellsTheStoryOfALeader) {
  status_.term = raft::Term(6);
  status_.leader = StoreId(2);
  EXPECT_EQ(Observe(),
            "level=info msg=\"term changed\" term=6 previous=0\n"
            "level=info msg=\"became follower\" term=6 commit=0 applied=0\n"
            "level=info msg=\"follows a leader\" term=6 leader=node-2 "
            "leader_store=0000000000000002\n");
  status_.leader = StoreId();
  EXPECT_EQ(Observe(), "level=warning msg=\"lost the leader\" term=6\n");
  status_.term = raft::Term(7);
  status_.role = raft::Role::kCandidate;
  EXPECT_EQ(Observe(),
            "level=info msg=\"term changed\" term=7 previous=6\n"
            "level=info msg=\"became candidate\" term=7 commit=0 applied=0\n");
  status_.role = raft::Role::kLeader;
  status_.leader = StoreId(1);
  EXPECT_EQ(Observe(), "level=info msg=\"became leader\" term=7 commit=0 applied=0\n");
  status_.leader_ready = true;
  status_.birth_complete = true;
  EXPECT_EQ(Observe(),
            "level=info msg=\"takes writes\" term=7\n"
            "level=info msg=\"birth is complete\" term=7\n");
}

TEST_F(NodeLogTest, SaysNothingWhenNothingChanged) {
  Observe();
  status_.commit = raft::Index(5);
  EXPECT_EQ(Observe(), "");
}

TEST_F(NodeLogTest, CountsChangesButNotTheFirstSight) {
  status_.term = raft::Term(6);
  Observe();
  EXPECT_NE(metrics_.Text().find("quorate_term_changes_total 0"), std::string::npos);
  status_.term = raft::Term(7);
  status_.leader = StoreId(2);
  Observe();
  EXPECT_NE(metrics_.Text().find("quorate_term_changes_total 1"), std::string::npos);
  EXPECT_NE(metrics_.Text().find("quorate_leader_changes_total 1"), std::string::npos);
}

TEST_F(NodeLogTest, ALeaderNamesThePeersThatNeedHelpOnce) {
  status_.role = raft::Role::kLeader;
  status_.leader = StoreId(1);
  raft::PeerView peer;
  peer.store = StoreId(2);
  status_.peers = {peer};
  EXPECT_EQ(Observe().find("peer"), std::string::npos);
  status_.peers[0].lost_data = true;
  const std::string lost = Observe();
  EXPECT_NE(lost.find("level=error msg=\"a peer has lost entries"), std::string::npos) << lost;
  EXPECT_NE(lost.find("peer=node-2 peer_store=0000000000000002"), std::string::npos) << lost;
  EXPECT_EQ(Observe(), "");
  status_.peers[0].needs_snapshot = true;
  const std::string lacks = Observe();
  EXPECT_NE(lacks.find("level=info msg=\"a peer lacks entries"), std::string::npos) << lacks;
  EXPECT_EQ(lacks.find("has lost"), std::string::npos) << lacks;
  // Cured and then again: said again.
  status_.peers[0].lost_data = false;
  EXPECT_EQ(Observe(), "");
  status_.peers[0].lost_data = true;
  EXPECT_NE(Observe().find("has lost"), std::string::npos);
}

// --- Errors ---

TEST_F(NodeLogTest, ALeaderThatIsNoMemberIsNamedByItsStore) {
  status_.leader = StoreId(9);
  EXPECT_NE(Observe().find("leader=\"\" leader_store=0000000000000009"), std::string::npos);
}

}  // namespace
}  // namespace quorate::services
