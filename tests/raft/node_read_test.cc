// Linearizable reads through the driver, stepped on one thread.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "raft/node.h"
#include "tests/raft/node_world.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using testing::NodeWorld;
using ::testing::SizeIs;

size_t Count(NodeWorld* world, bool (*wanted)(const Message&)) {
  return static_cast<size_t>(
      std::count_if(world->flights().begin(), world->flights().end(), wanted));
}
bool IsHeartbeat(const Message& message) {
  return std::holds_alternative<AppendEntries>(message.body);
}
bool IsQuestion(const Message& message) { return std::holds_alternative<ReadIndex>(message.body); }

TEST(NodeRead, EveryNodeGetsAnIndexThatCoversWhatWasApplied) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Propose(leader, {"a"});
  world.Run(milliseconds(50));
  const Index applied = world.node(leader).status()->applied;
  for (size_t i = 0; i < 3; ++i) {
    const auto results = world.RequestRead(i);
    world.Settle();
    ASSERT_THAT(*results, SizeIs(1)) << i;
    EXPECT_EQ(results->front().outcome, ReadOutcome::kConfirmed);
    EXPECT_GE(results->front().index, applied);
  }
}

TEST(NodeRead, WhatComesBetweenTwoStepsSharesOneRound) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(20));
  std::vector<std::shared_ptr<std::vector<ReadResult>>> all;
  for (int i = 0; i < 50; ++i) all.push_back(world.RequestRead(leader));
  world.flights().clear();
  world.Step(leader, NodeWorld::kNode);
  EXPECT_EQ(Count(&world, IsHeartbeat), 2u) << "one heartbeat to each of the others";
  world.Settle();
  for (const auto& results : all) EXPECT_THAT(*results, SizeIs(1));

  const size_t follower = (leader + 1) % 3;
  all.clear();
  for (int i = 0; i < 50; ++i) all.push_back(world.RequestRead(follower));
  world.flights().clear();
  world.Step(follower, NodeWorld::kNode);
  EXPECT_EQ(Count(&world, IsQuestion), 1u);
  world.Settle();
  for (const auto& results : all) {
    ASSERT_THAT(*results, SizeIs(1));
    EXPECT_EQ(results->front().outcome, ReadOutcome::kConfirmed);
  }
}

TEST(NodeRead, ByLeaseNothingIsSent) {
  NodeWorld world(3);
  world.options().leases = true;
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(60));
  EXPECT_TRUE(world.node(leader).status()->leases);
  const auto results = world.RequestRead(leader, ReadMode::kLease);
  world.flights().clear();
  world.Step(leader, NodeWorld::kNode);
  ASSERT_THAT(*results, SizeIs(1));
  EXPECT_TRUE(results->front().lease_until);
  EXPECT_EQ(Count(&world, IsHeartbeat), 0u);
}

// As the server does when the setting is applied, or a snapshot that has it.
TEST(NodeRead, LeasesAreSwitchedWhileItRuns) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(60));
  const auto rounds_of_a_read = [&] {
    const auto results = world.RequestRead(leader, ReadMode::kLease);
    world.flights().clear();
    world.Step(leader, NodeWorld::kNode);
    const size_t heartbeats = Count(&world, IsHeartbeat);
    EXPECT_THAT(*results, SizeIs(heartbeats == 0 ? 1 : 0));
    world.Run(milliseconds(60));
    return heartbeats / 2;
  };
  const auto answers = [&] { return world.node(leader).status()->lease_answers; };
  EXPECT_EQ(rounds_of_a_read(), 1u) << "off, as it is at first";
  EXPECT_FALSE(world.node(leader).status()->leases);
  EXPECT_EQ(answers(), 0u);
  world.node(leader).SetLeases(true);
  EXPECT_EQ(rounds_of_a_read(), 0u);
  EXPECT_TRUE(world.node(leader).status()->leases);
  EXPECT_EQ(answers(), 1u);
  const auto of_a_follower = world.RequestRead((leader + 1) % 3, ReadMode::kLease);
  world.Settle();
  ASSERT_THAT(*of_a_follower, SizeIs(1));
  EXPECT_EQ(of_a_follower->front().outcome, ReadOutcome::kConfirmed);
  EXPECT_EQ(answers(), 2u) << "the question of another node";
  world.node(leader).SetLeases(false);
  EXPECT_EQ(rounds_of_a_read(), 1u);
  EXPECT_FALSE(world.node(leader).status()->leases);
  EXPECT_EQ(answers(), 2u);
}

TEST(NodeRead, AnIsolatedLeaderConfirmsNothing) {
  NodeWorld world(3);
  world.options().leases = true;
  world.StartAll();
  const size_t old_leader = world.RunUntilLeader();
  world.Run(milliseconds(60));
  world.Isolate(old_leader);
  const auto round = world.RequestRead(old_leader);
  world.Run(milliseconds(140));
  const auto lease = world.RequestRead(old_leader, ReadMode::kLease);
  world.Run(milliseconds(400));
  ASSERT_THAT(*round, SizeIs(1));
  EXPECT_EQ(round->front().outcome, ReadOutcome::kLeaderLost);
  ASSERT_THAT(*lease, SizeIs(1));
  EXPECT_NE(lease->front().outcome, ReadOutcome::kConfirmed) << "the lease has ended";
}

// The other end of a lease: a leader may have one whatever this node's own setting is, and counts
// from when it sent what this node answered. So this node must count from no earlier time: not from
// that of a look at the clock after which its thread was away.
TEST(NodeRead, AVoterCountsItsPromiseFromAfterTheHeartbeatCameIn) {
  struct AwayClock : Clock {
    Instant now{std::chrono::hours(1)};
    std::optional<Instant> once;  // what one look shows, and then the thread is away
    Instant Now() override { return once ? *std::exchange(once, std::nullopt) : now; }
    WallMilliseconds WallNow() override { return 0; }
  };
  AwayClock clock;
  std::vector<Message> sent;
  testing::MemoryLog log(testing::FirstEntryOf(3));
  testing::MemoryState state;
  testing::CheckingTransport transport(
      &log, [&](Message message) { sent.push_back(std::move(message)); });
  NodeOptions options;
  options.core.self = testing::NodeStore(0);
  RecoveredState recovered;
  recovered.entries = log.durable().entries;
  recovered.first_index = Index(1);
  recovered.memberships = {{Index(1), *DecodeMembership(recovered.entries[0]->payload)}};
  Node node(options, recovered, Node::Ports{&log, &transport, &state, &clock, nullptr});
  const auto work = [&] {
    while (node.RunOnce() || node.RunLogOnce()) {
    }
  };
  clock.now += milliseconds(200);  // what it may have promised before its start is past
  work();

  AppendEntries heartbeat;
  heartbeat.term = Term(2);
  heartbeat.prev_index = Index(1);
  heartbeat.prev_term = Term(1);
  clock.once = clock.now;
  clock.now += std::chrono::seconds(1);
  heartbeat.sent_at = clock.now;
  node.Receive({testing::NodeStore(1), testing::NodeStore(0), heartbeat});
  work();
  clock.now += options.core.election_timeout_min - milliseconds(1);
  sent.clear();
  RequestVote ask;
  ask.term = Term(3);
  ask.last_index = Index(1);
  ask.last_term = Term(1);
  node.Receive({testing::NodeStore(2), testing::NodeStore(0), ask});
  work();
  const auto answer = std::find_if(sent.begin(), sent.end(), [](const Message& message) {
    return std::holds_alternative<RequestVoteReply>(message.body) &&
           message.to == testing::NodeStore(2);
  });
  ASSERT_NE(answer, sent.end());
  EXPECT_FALSE(std::get<RequestVoteReply>(answer->body).granted) << "the leader may have a lease";
}

// --- Errors ---

TEST(NodeReadErrors, WithoutALeaderItSaysSoAtOnce) {
  NodeWorld world(3);
  world.Start(0);
  const auto results = world.RequestRead(0);
  world.Step(0, NodeWorld::kNode);
  ASSERT_THAT(*results, SizeIs(1));
  EXPECT_EQ(results->front().outcome, ReadOutcome::kNoLeader);
}

TEST(NodeReadErrors, BeyondTheBoundItIsRefusedAtOnce) {
  NodeWorld world(3);
  world.options().reads_max = 2;
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  const auto first = world.RequestRead(leader);
  const auto second = world.RequestRead(leader);
  const auto third = world.RequestRead(leader);
  ASSERT_THAT(*third, SizeIs(1));
  EXPECT_EQ(third->front().outcome, ReadOutcome::kTooMany);
  world.Settle();
  EXPECT_THAT(*first, SizeIs(1));
  EXPECT_THAT(*second, SizeIs(1));
  const auto again = world.RequestRead(leader);
  world.Settle();
  ASSERT_THAT(*again, SizeIs(1));
  EXPECT_EQ(again->front().outcome, ReadOutcome::kConfirmed);
}

TEST(NodeReadErrors, StopAnswersWhatWaitsAndWhatComesLater) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  const auto under_way = world.RequestRead(leader);
  world.Step(leader, NodeWorld::kNode);
  const auto in_inbox = world.RequestRead(leader);
  world.node(leader).Stop();
  const auto late = world.RequestRead(leader);
  for (const auto& results : {under_way, in_inbox, late}) {
    ASSERT_THAT(*results, SizeIs(1));
    EXPECT_EQ(results->front().outcome, ReadOutcome::kNoLeader);
  }
}

}  // namespace
}  // namespace quorate::raft
