// The driver's part in snapshots: when it cuts the log, in what order a received state is taken
// over, and that nodes come back by it.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "raft/cutting.h"
#include "tests/raft/node_world.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;

// --- How far the log may be cut ---

CutFacts Facts() {
  CutFacts facts;
  facts.applied = Index(100);
  facts.durable_applied = Index(90);
  facts.tail_start = Index(81);
  facts.pinned_start = Index(11);
  return facts;
}

PeerView Peer(uint64_t store, uint64_t match) {
  PeerView peer;
  peer.store = StoreId(store);
  peer.match = Index(match);
  peer.active = true;
  return peer;
}

TEST(CutThrough, ATailStays) { EXPECT_EQ(CutThrough(Facts()), Index(80)); }

TEST(CutThrough, NothingThatAPowerFailureWouldNeed) {
  CutFacts facts = Facts();
  facts.durable_applied = Index(40);
  EXPECT_EQ(CutThrough(facts), Index(40));
  facts.durable_applied = Index(0);
  EXPECT_EQ(CutThrough(facts), Index(0));
}

TEST(CutThrough, NothingThatAFollowerStillReads) {
  CutFacts facts = Facts();
  facts.peers = {Peer(2, 100), Peer(3, 60)};
  EXPECT_EQ(CutThrough(facts), Index(60));
  facts.peers[1].active = false;
  EXPECT_EQ(CutThrough(facts), Index(80)) << "nobody waits for the dead";
  facts.peers[1].active = true;
  facts.peers[1].needs_snapshot = true;
  EXPECT_EQ(CutThrough(facts), Index(80));
}

TEST(CutThrough, NothingThatAFollowerWillReadBehindItsSnapshot) {
  CutFacts facts = Facts();
  facts.peers = {Peer(2, 3)};
  facts.peers[0].needs_snapshot = facts.peers[0].snapshot_sent = true;
  facts.snapshots[StoreId(2)] = Index(70);
  EXPECT_EQ(CutThrough(facts), Index(70));
}

TEST(CutThrough, ButNotForEver) {
  CutFacts facts = Facts();
  facts.peers = {Peer(2, 3)};
  EXPECT_EQ(CutThrough(facts), Index(10));
}

TEST(CutThrough, AnEmptyLogHasNothingToLose) {
  CutFacts facts;
  EXPECT_EQ(CutThrough(facts), Index(0));
}

// --- Nodes ---

class NodeSnapshot : public ::testing::Test {
 protected:
  NodeSnapshot() : world(3) {
    world.options().log_tail_bytes = 1000;  // about ten entries
    world.options().log_pinned_bytes_max = 100'000;
    world.options().cut_interval = milliseconds(100);
    world.options().core.window_bytes_max = 500;
    world.set_born_complete();
    world.StartAll();
    leader = world.RunUntilLeader();
    follower = (leader + 1) % 3;
  }
  void Write(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      world.Propose(leader, {std::string(40, 'x')});
      world.Settle();
    }
  }
  void ExpectAllEqual() {
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(world.machine(i).state->applied_index(),
                world.machine(leader).state->applied_index());
    }
    world.ExpectOneOrder();
  }
  NodeWorld world;
  size_t leader = 0, follower = 0;
};

TEST_F(NodeSnapshot, TheLogIsCutBehindWhatIsDurable) {
  Write(100);
  world.Run(milliseconds(500));
  for (size_t i = 0; i < 3; ++i) {
    const MemoryLog::Contents log = world.machine(i).log->durable();
    EXPECT_GT(log.before, Index(80));
    EXPECT_GE(log.entries.size(), 9u) << "the tail stays";
    EXPECT_EQ(world.node(i).status()->first_index, log.before + 1);
    EXPECT_GT(world.machine(i).state->made_durable(), 0u);
    EXPECT_LE(world.machine(i).state->made_durable(), 5u) << "not at every look";
  }
}

TEST_F(NodeSnapshot, AShortOutageNeedsNone) {
  Write(100);
  world.Run(milliseconds(500));
  world.Isolate(follower);
  Write(5);
  world.Rejoin(follower);
  world.Run(milliseconds(500));
  ExpectAllEqual();
  EXPECT_EQ(world.machine(follower).state->installs(), 0u);
}

TEST_F(NodeSnapshot, AFollowerFarBehindComesBack) {
  world.Isolate(follower);
  Write(100);
  world.Run(milliseconds(500));
  world.Rejoin(follower);
  world.Run(milliseconds(2000));
  leader = world.RunUntilLeader();
  Write(3);
  world.Run(milliseconds(200));
  ExpectAllEqual();
  EXPECT_EQ(world.machine(follower).state->installs(), 1u);
  EXPECT_GT(world.node(follower).status()->first_index, Index(50));
  EXPECT_FALSE(world.node(follower).status()->installing);
}

TEST_F(NodeSnapshot, TheStateSwitchesBehindItsRecordAndTheAnswerBehindTheSwitch) {
  world.Isolate(follower);
  Write(100);
  world.Run(milliseconds(500));
  world.Rejoin(follower);
  world.Starve(follower, NodeWorld::kLog);
  world.Run(milliseconds(1500));
  EXPECT_TRUE(world.node(follower).status()->installing);
  EXPECT_EQ(world.machine(follower).state->installs(), 0u);
  world.Starve(follower, NodeWorld::kApply);
  world.Feed(follower, NodeWorld::kLog);
  world.Run(milliseconds(100));
  EXPECT_TRUE(world.machine(follower).log->durable().installed.has_value());
  EXPECT_EQ(world.machine(follower).state->installs(), 0u);
  const auto waits = [&] {
    const auto status = world.node(world.RunUntilLeader()).status();
    for (const PeerView& peer : status->peers) {
      if (peer.store == NodeStore(follower)) return peer.needs_snapshot;
    }
    return false;
  };
  EXPECT_TRUE(waits());
  world.Feed(follower, NodeWorld::kApply);
  world.Run(milliseconds(500));
  EXPECT_FALSE(waits());
  EXPECT_EQ(world.machine(follower).state->installs(), 1u);
}

TEST_F(NodeSnapshot, KilledBetweenRecordAndSwitchItStartsWithTheNewState) {
  world.Isolate(follower);
  Write(100);
  world.Run(milliseconds(500));
  world.Rejoin(follower);
  world.Starve(follower, NodeWorld::kApply);
  world.Run(milliseconds(1500));
  ASSERT_TRUE(world.machine(follower).log->durable().installed.has_value());
  world.Kill(follower);
  leader = world.RunUntilLeader();  // notices that the connection broke
  world.node(leader).SnapshotFailed({NodeStore(follower), world.node(leader).status()->term});
  world.Feed(follower, NodeWorld::kApply);
  world.Start(follower);
  EXPECT_GT(world.node(follower).status()->applied, Index(90));
  world.Run(milliseconds(3000));
  leader = world.RunUntilLeader();
  Write(3);
  world.Run(milliseconds(500));
  ExpectAllEqual();
}

TEST_F(NodeSnapshot, AFailureIsReportedAndRepeated) {
  world.Isolate(follower);
  Write(100);
  world.Run(milliseconds(500));
  world.Rejoin(follower);
  const auto lost = [&] {
    size_t count = 0;
    for (auto it = world.flights().begin(); it != world.flights().end();) {
      const auto* install = std::get_if<InstallSnapshot>(&it->body);
      if (install == nullptr) {
        ++it;
        continue;
      }
      for (size_t i = 0; i < 3; ++i) {
        if (NodeStore(i) == it->from) world.node(i).SnapshotFailed({it->to, install->term});
      }
      it = world.flights().erase(it);
      ++count;
    }
    return count;
  };
  size_t sent = 0;
  for (int i = 0; i < 3000 && sent < 3; ++i) {
    for (size_t k = 0; k < 3; ++k) {
      for (auto job : {NodeWorld::kNode, NodeWorld::kLog, NodeWorld::kApply, NodeWorld::kLogRead}) {
        world.Step(k, job);
      }
    }
    sent += lost();
    while (!world.flights().empty()) world.DeliverOne(0);
    world.clock().Advance(milliseconds(1));
  }
  EXPECT_EQ(sent, 3u);
  EXPECT_EQ(world.machine(follower).state->installs(), 0u);
  world.Run(milliseconds(3000));
  EXPECT_EQ(world.machine(follower).state->installs(), 1u);
}

TEST_F(NodeSnapshot, ACutLogIsRecovered) {
  Write(100);
  world.Run(milliseconds(500));
  for (size_t i = 0; i < 3; ++i) world.Kill(i);
  world.StartAll();
  leader = world.RunUntilLeader();
  Write(3);
  world.Run(milliseconds(500));
  ExpectAllEqual();
}

}  // namespace
}  // namespace quorate::raft::testing
