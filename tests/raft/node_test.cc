// The driver, stepped on one thread by a test that rules clock, network and order.
#include "raft/node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/node_world.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::NodeStore;
using testing::NodeWorld;
using ::testing::SizeIs;

// --- The good day ---

TEST(NodeTest, ThreeNodesElectCommitAndApplyTheSame) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  auto first = world.Propose(leader, {"a", "b"});
  auto second = world.Propose(leader, {"c"});
  world.Run(milliseconds(100));
  EXPECT_EQ(first->calls, 1u);
  EXPECT_EQ(first->accepted, 2u);
  EXPECT_EQ(second->accepted, 1u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_THAT(world.machine(i).state->Commands(), ElementsAre("a", "b", "c"));
    auto status = world.node(i).status();
    EXPECT_EQ(status->self, NodeStore(i));
    EXPECT_EQ(status->leader, NodeStore(leader));
    EXPECT_EQ(status->applied, status->commit);
    EXPECT_EQ(status->peers.size(), i == leader ? 2u : 0u);
    EXPECT_EQ(status->membership->members.size(), 3u);
  }
  // The leader's wall clock was put in, for display.
  EXPECT_EQ(world.machine(0).state->applied().back()->wall_time_ms, 1'700'000'000'000);
}

TEST(NodeTest, AnyOrderOfStepsAndMessagesGivesOneOrderOfEntries) {
  size_t applied = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    NodeWorld world(3, seed);
    world.options().core.append_bytes_max = 200;
    world.options().core.apply_bytes_max = 300;
    world.StartAll();
    size_t sent = 0;
    std::vector<std::shared_ptr<NodeWorld::Answer>> answers;
    for (int round = 0; round < 60; ++round) {
      world.RunRandomly(100);
      if (std::optional<size_t> leader = world.Leader()) {
        answers.push_back(world.Propose(*leader, {std::to_string(sent), std::to_string(sent + 1)}));
        sent += 2;
      }
      if (world.Pick(15) == 0) {
        const size_t victim = world.Pick(3);
        if (world.machine(victim).node != nullptr) world.Kill(victim);
      }
      if (world.Pick(3) == 0) world.StartAll();
      world.ExpectOneOrder();
    }
    world.StartAll();
    const size_t leader = world.RunUntilLeader();
    auto last = world.Propose(leader, {"last"});
    world.Run(seconds(2));
    EXPECT_EQ(last->accepted, 1u);
    world.ExpectOneOrder();
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(world.machine(i).state->applied().size(), world.machine(0).state->applied().size());
      EXPECT_THAT(world.machine(i).state->Commands(), Contains("last"));
      EXPECT_EQ(world.machine(i).state->Count(EntryType::kBirthComplete), 1u);
    }
    for (const auto& answer : answers) EXPECT_EQ(answer->calls, 1u);
    applied += world.machine(0).state->Commands().size();
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(applied, 400u) << "the worlds did next to nothing";
}

TEST(NodeTest, ALoneNodeNeedsNobody) {
  NodeWorld world(1);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Propose(leader, {"a"});
  world.Run(milliseconds(50));
  EXPECT_THAT(world.machine(0).state->Commands(), ElementsAre("a"));
  EXPECT_TRUE(world.node(0).status()->birth_complete);
}

TEST(NodeTest, SubscribersHearOfEveryChangeAndOfNothingElse) {
  NodeWorld world(3);
  world.StartAll();
  std::vector<NodeStatus> heard;
  world.node(0).OnStatusChange([&](const NodeStatus& status) { heard.push_back(status); });
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  ASSERT_FALSE(heard.empty());
  EXPECT_EQ(heard.back().leader, NodeStore(leader));
  EXPECT_TRUE(heard.back().birth_complete);
  for (size_t i = 1; i < heard.size(); ++i) {
    EXPECT_TRUE(heard[i].role != heard[i - 1].role || heard[i].term != heard[i - 1].term ||
                heard[i].leader != heard[i - 1].leader ||
                heard[i].leader_ready != heard[i - 1].leader_ready ||
                heard[i].birth_complete != heard[i - 1].birth_complete);
  }
  const size_t before = heard.size();
  world.Propose(leader, {"a"});
  world.Run(seconds(1));
  EXPECT_EQ(heard.size(), before);
}

// --- Disks ---

TEST(NodeTest, HeartbeatsDoNotWaitForTheLeadersDisk) {
  NodeWorld world(3);
  world.options().core.flush_stall_max = seconds(60);  // it is not to hand over
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  const Term term = world.node(leader).status()->term;
  world.Starve(leader, NodeWorld::kLog);
  auto answer = world.Propose(leader, {"a"});
  world.Run(seconds(5));
  // No election in five seconds; the followers have the entry and have even committed it, the
  // leader applies it only once its own disk holds it.
  EXPECT_EQ(world.Leader(), leader);
  EXPECT_EQ(world.node(leader).status()->term, term);
  EXPECT_EQ(answer->accepted, 1u);
  EXPECT_THAT(world.machine((leader + 1) % 3).state->Commands(), ElementsAre("a"));
  EXPECT_THAT(world.machine(leader).state->Commands(), ElementsAre());
  world.Feed(leader, NodeWorld::kLog);
  world.Run(milliseconds(100));
  EXPECT_THAT(world.machine(leader).state->Commands(), ElementsAre("a"));
}

TEST(NodeTest, ALeaderWhoseDiskStallsHandsOver) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  world.Starve(leader, NodeWorld::kLog);
  world.Propose(leader, {"a"});
  world.Run(milliseconds(700));
  const size_t next = world.RunUntilLeader();
  ASSERT_NE(next, leader);
  auto answer = world.Propose(next, {"b"});
  world.Run(milliseconds(100));
  EXPECT_EQ(answer->accepted, 1u);
  EXPECT_THAT(world.machine(next).state->Commands(), ElementsAre("a", "b"));
  world.Feed(leader, NodeWorld::kLog);
  world.Run(milliseconds(300));
  EXPECT_THAT(world.machine(leader).state->Commands(), ElementsAre("a", "b"));
}

TEST(NodeTest, MembersAndLeaderChangeAndTheCallerHearsHowItEnded) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  const size_t next = (leader + 1) % 3, third = (leader + 2) % 3;

  std::vector<TransferStatus> transfers;
  const auto transferred = [&](TransferStatus status) { transfers.push_back(status); };
  world.node(leader).TransferLeadership(NodeStore(next), transferred);
  world.Run(milliseconds(50));
  EXPECT_THAT(transfers, ElementsAre(TransferStatus::kDone));
  EXPECT_EQ(world.Leader(), next);
  world.node(leader).TransferLeadership(NodeStore(third), transferred);
  world.Settle();
  EXPECT_EQ(transfers.back(), TransferStatus::kNotLeader);

  // The target is gone before it hears of it.
  world.Run(milliseconds(100));
  world.Isolate(third);
  world.node(next).TransferLeadership(NodeStore(third), transferred);
  world.Run(milliseconds(10));
  EXPECT_EQ(world.node(next).status()->transfer_target, NodeStore(third));
  world.Run(milliseconds(400));
  EXPECT_EQ(transfers.back(), TransferStatus::kFailed);
  EXPECT_EQ(world.node(next).status()->transfer_target, StoreId());

  // The silent one is removed, and then the leader itself.
  std::vector<ChangeResult> changes;
  const auto changed = [&](const ChangeResult& result) { changes.push_back(result); };
  using Kind = MemberStep::Kind;
  world.node(next).ProposeMembership({{{Kind::kRemove, NodeStore(leader), "", ""}}}, changed);
  world.Settle();
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(changes[0].status, ChangeStatus::kWouldLoseQuorum);
  world.node(next).ProposeMembership({{{Kind::kRemove, NodeStore(third), "", ""}}}, changed);
  world.node(next).ProposeMembership({{{Kind::kRemove, NodeStore(next), "", ""}}}, changed);
  world.Run(milliseconds(100));
  ASSERT_THAT(changes, SizeIs(3));
  EXPECT_EQ(changes[1].status, ChangeStatus::kInProgress) << "one at a time";
  EXPECT_EQ(changes[2].status, ChangeStatus::kAccepted);
  world.node(next).ProposeMembership({{{Kind::kRemove, NodeStore(next), "", ""}}}, changed);
  world.Run(milliseconds(600));
  ASSERT_THAT(changes, SizeIs(4));
  EXPECT_EQ(changes[3].status, ChangeStatus::kAccepted);
  EXPECT_EQ(world.Leader(), leader);
  EXPECT_THAT(world.node(leader).status()->membership->members, SizeIs(1));
  EXPECT_TRUE(world.node(next).status()->removed);
}

TEST(NodeTest, AChangeWhoseLeaderFallsOrStopsEndsAsUnknown) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  std::vector<ChangeStatus> ends;
  const auto changed = [&](const ChangeResult& result) { ends.push_back(result.status); };
  const MembershipChange demote{{{MemberStep::Kind::kDemote, NodeStore((leader + 1) % 3), "", ""}}};
  world.Isolate(leader);
  world.node(leader).ProposeMembership(demote, changed);
  world.Run(milliseconds(50));
  EXPECT_THAT(ends, ElementsAre()) << "it may still be committed";
  world.Run(milliseconds(400));
  EXPECT_THAT(ends, ElementsAre(ChangeStatus::kUnknown));

  world.Rejoin(leader);
  const size_t next = world.RunUntilLeader();
  world.Run(milliseconds(300));
  world.Isolate(next);
  const MembershipChange remove{{{MemberStep::Kind::kRemove, NodeStore((next + 1) % 3), "", ""}}};
  world.node(next).ProposeMembership(remove, changed);
  world.Settle();
  world.node(next).ProposeMembership(remove, changed);  // not taken any more
  world.node(next).Stop();
  world.node(next).ProposeMembership(remove, changed);
  ASSERT_THAT(ends, SizeIs(4));
  EXPECT_EQ(ends[1], ChangeStatus::kNotLeader);
  EXPECT_EQ(ends[2], ChangeStatus::kUnknown);
  EXPECT_EQ(ends[3], ChangeStatus::kNotLeader);
}

TEST(NodeTest, AFollowersAcknowledgementWaitsForItsDiskAndItsHeartbeatAnswersDoNot) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  const size_t slow = (leader + 1) % 3;
  const Index before = world.machine(slow).log->durable_last();
  world.Starve(slow, NodeWorld::kLog);
  world.Propose(leader, {"a"});
  world.Run(seconds(2));
  auto status = world.node(leader).status();
  for (const PeerView& peer : status->peers) {
    if (peer.store != NodeStore(slow)) continue;
    EXPECT_EQ(peer.match, before);
    EXPECT_TRUE(peer.active);
  }
  EXPECT_EQ(world.machine(slow).state->applied_index(), before);
  world.Feed(slow, NodeWorld::kLog);
  world.Run(milliseconds(200));
  EXPECT_THAT(world.machine(slow).state->Commands(), ElementsAre("a"));
}

TEST(NodeTest, AVoteWaitsForTheVotersDisk) {
  NodeWorld world(3);
  world.Start(0);
  world.Start(1);
  world.Starve(0, NodeWorld::kLog);
  world.Starve(1, NodeWorld::kLog);
  world.Run(seconds(5));
  // Both campaign or vote, and none of it is said: the transport would have failed the test.
  EXPECT_FALSE(world.Leader().has_value());
  EXPECT_EQ(world.machine(0).log->durable_hard_state(), HardState());
  world.Feed(0, NodeWorld::kLog);
  world.Feed(1, NodeWorld::kLog);
  world.RunUntilLeader();
}

TEST(NodeTest, WhatQueuedUpDuringAFlushIsOneFlush) {
  NodeWorld world(1);
  world.StartAll();
  world.RunUntilLeader();
  world.Run(milliseconds(100));
  const size_t syncs = world.machine(0).log->syncs();
  const size_t appends = world.machine(0).log->appends();
  for (int i = 0; i < 10; ++i) {
    world.Propose(0, {"a"});
    world.Step(0, NodeWorld::kNode);
  }
  EXPECT_TRUE(world.Step(0, NodeWorld::kLog));
  EXPECT_FALSE(world.Step(0, NodeWorld::kLog));
  EXPECT_EQ(world.machine(0).log->appends(), appends + 10);
  EXPECT_EQ(world.machine(0).log->syncs(), syncs + 1);
  // And all of it is reported.
  world.Step(0, NodeWorld::kNode);
  EXPECT_EQ(world.node(0).status()->persisted, world.node(0).status()->last_index);
}

TEST(NodeTest, NothingCountsAsDurableWhileTheDiskStillWorks) {
  NodeWorld world(1);
  world.StartAll();
  world.RunUntilLeader();
  world.Run(milliseconds(100));
  const Index before = world.node(0).status()->persisted;
  size_t looked = 0;
  world.machine(0).log->set_during_sync([&] {
    world.Step(0, NodeWorld::kNode);
    EXPECT_EQ(world.node(0).status()->persisted, before);
    EXPECT_EQ(world.node(0).status()->commit, before);
    ++looked;
  });
  world.Propose(0, {"a"});
  world.Step(0, NodeWorld::kNode);
  world.Step(0, NodeWorld::kLog);
  world.machine(0).log->set_during_sync(nullptr);
  EXPECT_EQ(looked, 1u);
  world.Settle();
  EXPECT_THAT(world.machine(0).state->Commands(), ElementsAre("a"));
}

TEST(NodeTest, NothingToWriteIsNotFlushed) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  std::vector<size_t> syncs;
  for (size_t i = 0; i < 3; ++i) syncs.push_back(world.machine(i).log->syncs());
  world.Run(seconds(3));  // heartbeats and their answers only
  EXPECT_EQ(world.Leader(), leader);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(world.machine(i).log->syncs(), syncs[i]);
}

TEST(NodeTest, AnIdleLogGetsOneMark) {
  NodeWorld world(1);
  testing::MemoryLog& log = *world.machine(0).log;
  log.set_marks_wanted(true);
  world.StartAll();
  world.RunUntilLeader();
  world.Run(milliseconds(200));
  const size_t marks = log.marks();
  EXPECT_GE(marks, 1u);
  world.Run(seconds(2));
  EXPECT_EQ(log.marks(), marks);

  world.Propose(0, {"a"});
  world.Settle();
  world.clock().Advance(milliseconds(49));
  world.Settle();
  EXPECT_EQ(log.marks(), marks);
  world.Propose(0, {"b"});  // new work: the witness of the last batch, and a new start
  world.Settle();
  world.clock().Advance(milliseconds(49));
  world.Settle();
  EXPECT_EQ(log.marks(), marks);
  world.clock().Advance(milliseconds(1));
  world.Settle();
  EXPECT_EQ(log.marks(), marks + 1);
}

TEST(NodeTest, ALogThatWantsNoMarkGetsNone) {
  NodeWorld world(1);
  world.StartAll();
  world.RunUntilLeader();
  world.Run(seconds(1));
  EXPECT_EQ(world.machine(0).log->marks(), 0u);
}

// --- Catching up ---

TEST(NodeTest, AFollowerBelowTheWindowCatchesUpFromTheDisk) {
  NodeWorld world(3);
  world.options().core.window_bytes_max = 2000;
  world.options().core.append_bytes_max = 1000;
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(200));
  const size_t away = (leader + 1) % 3;
  world.Isolate(away);
  for (int i = 0; i < 200; ++i) {
    world.Propose(leader, {std::to_string(i) + std::string(100, 'x')});
    world.Run(milliseconds(5));
  }
  ASSERT_EQ(world.machine(leader).state->Commands().size(), 200u);
  const size_t reads = world.machine(leader).log->reads();
  world.Rejoin(away);
  world.Run(seconds(3));
  EXPECT_GT(world.machine(leader).log->reads(), reads + 5);
  EXPECT_EQ(world.machine(away).state->Commands(), world.machine(leader).state->Commands());
  world.ExpectOneOrder();
}

TEST(NodeTest, ARestartedNodeAppliesWhatItsWindowDoesNotHold) {
  NodeWorld world(1);
  world.options().core.window_bytes_max = 2000;
  world.StartAll();
  world.RunUntilLeader();
  world.Starve(0, NodeWorld::kApply);
  for (int i = 0; i < 100; ++i) {
    world.Propose(0, {std::string(100, 'x')});
    world.Run(milliseconds(5));
  }
  world.Kill(0);
  world.Feed(0, NodeWorld::kApply);
  world.Start(0);
  world.RunUntilLeader();
  world.Run(seconds(1));
  EXPECT_EQ(world.machine(0).state->Commands().size(), 100u);
}

// --- BirthComplete ---

TEST(NodeTest, BirthIsCompleteOnceEveryMemberHasEntryOne) {
  NodeWorld world(3);
  world.Start(0);
  world.Start(1);
  world.RunUntilLeader();
  world.Run(seconds(3));
  EXPECT_EQ(world.machine(0).state->Count(EntryType::kBirthComplete), 0u);
  EXPECT_FALSE(world.node(0).status()->birth_complete);
  world.Start(2);
  world.Run(seconds(2));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(world.machine(i).state->Count(EntryType::kBirthComplete), 1u);
    EXPECT_TRUE(world.node(i).status()->birth_complete);
  }
  // Neither a restart nor another leader does it again.
  const size_t leader = *world.Leader();
  world.Kill(leader);
  world.RunUntilLeader();
  world.Start(leader);
  world.Run(seconds(2));
  EXPECT_TRUE(world.node(leader).status()->birth_complete);
  EXPECT_EQ(world.machine(0).state->Count(EntryType::kBirthComplete), 1u);
}

TEST(NodeTest, ACompleteBirthIsNotCompletedAgain) {
  NodeWorld world(3);
  world.set_born_complete();
  world.StartAll();
  world.RunUntilLeader();
  world.Run(seconds(1));
  EXPECT_TRUE(world.node(0).status()->birth_complete);
  EXPECT_EQ(world.machine(0).state->Count(EntryType::kBirthComplete), 0u);
}

// --- Errors and bounds ---

TEST(NodeTest, AFollowerTakesNoProposal) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  auto answer = world.Propose((leader + 1) % 3, {"a", "b"});
  EXPECT_EQ(answer->calls, 0u);  // on the node's thread, not here
  world.Settle();
  EXPECT_EQ(answer->calls, 1u);
  EXPECT_EQ(answer->accepted, 0u);
  EXPECT_EQ(answer->status, ProposeStatus::kNotLeader);
}

TEST(NodeTest, AFullInboxDropsMessagesAndCountsThem) {
  NodeWorld world(3);
  world.options().inbox_messages_max = 10;
  world.StartAll();
  for (int i = 0; i < 25; ++i) {
    world.node(0).Receive(
        {NodeStore(1), NodeStore(0), RequestVote{Term(1), true, Index(1), Term(1), 0}});
  }
  world.Step(0, NodeWorld::kNode);
  EXPECT_EQ(world.node(0).status()->dropped_messages, 15u);
  // What was taken makes room.
  world.node(0).Receive(
      {NodeStore(1), NodeStore(0), RequestVote{Term(1), true, Index(1), Term(1), 0}});
  EXPECT_TRUE(world.Step(0, NodeWorld::kNode));
  EXPECT_EQ(world.node(0).status()->dropped_messages, 15u);
  world.flights().clear();
}

TEST(NodeTest, AFullInboxRefusesProposalsAtOnce) {
  NodeWorld world(1);
  world.options().inbox_proposals_max = 3;
  world.StartAll();
  world.RunUntilLeader();
  auto taken = world.Propose(0, {"a", "b"});
  auto refused = world.Propose(0, {"c", "d"});
  EXPECT_EQ(refused->calls, 1u);
  EXPECT_EQ(refused->accepted, 0u);
  EXPECT_EQ(refused->status, ProposeStatus::kQueueFull);
  auto fits = world.Propose(0, {"e"});
  world.Run(milliseconds(50));
  EXPECT_EQ(taken->accepted, 2u);
  EXPECT_EQ(fits->accepted, 1u);
  EXPECT_THAT(world.machine(0).state->Commands(), ElementsAre("a", "b", "e"));
  // A call above the bound is no reason to refuse for ever.
  auto large = world.Propose(0, {"1", "2", "3", "4", "5"});
  world.Run(milliseconds(50));
  EXPECT_EQ(large->accepted, 5u);
}

TEST(NodeTest, AFullInboxLosesNoNoticeOfItsOwnThreads) {
  NodeWorld world(3);
  world.options().inbox_messages_max = 1;
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(500));
  world.Propose(leader, {"a"});
  world.Step(leader, NodeWorld::kNode);
  // The inbox is full before the log's thread reports.
  const size_t other = (leader + 1) % 3;
  world.node(leader).Receive(
      {NodeStore(other), NodeStore(leader), RequestVote{Term(1), true, Index(1), Term(1), 0}});
  world.Step(leader, NodeWorld::kLog);
  world.Run(milliseconds(500));
  EXPECT_THAT(world.machine(leader).state->Commands(), ElementsAre("a"));
}

TEST(NodeTest, DurabilityIsAskedForOnceAtATime) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Propose(leader, {"a"});
  world.Run(milliseconds(500));
  const auto& state = *world.machine(leader).state;
  const size_t before = state.made_durable();
  // Any thread may ask, and as often as it likes.
  for (int i = 0; i < 3; ++i) world.node(leader).MakeDurable();
  world.Run(milliseconds(10));
  EXPECT_EQ(state.made_durable(), before + 1);
  EXPECT_EQ(world.machine(leader).state->durable_applied(), state.applied_index());
  world.node(leader).MakeDurable();
  world.Run(milliseconds(10));
  EXPECT_EQ(state.made_durable(), before + 2);
}

TEST(NodeTest, ProposalsBeyondTheUncommittedBoundAreRefusedAndLaterTakenAgain) {
  NodeWorld world(3);
  world.options().core.uncommitted_bytes_max = 1000;
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(500));
  world.Starve(leader, NodeWorld::kLog);
  const std::vector<std::string> many(20, std::string(100, 'x'));
  auto answer = world.Propose(leader, many);
  world.Step(leader, NodeWorld::kNode);
  EXPECT_EQ(answer->status, ProposeStatus::kQueueFull);
  EXPECT_LT(answer->accepted, 20u);
  EXPECT_GT(answer->accepted, 0u);
  world.Feed(leader, NodeWorld::kLog);
  world.Run(milliseconds(100));
  EXPECT_EQ(world.machine(leader).state->Commands().size(), answer->accepted);
  auto again = world.Propose(leader, {"y"});
  world.Run(milliseconds(100));
  EXPECT_EQ(again->accepted, 1u);
}

TEST(NodeTest, StopAnswersEveryProposalOnce) {
  NodeWorld world(1);
  world.StartAll();
  world.RunUntilLeader();
  auto waiting = world.Propose(0, {"a"});
  world.node(0).Stop();
  EXPECT_EQ(waiting->calls, 1u);
  EXPECT_EQ(waiting->accepted, 0u);
  EXPECT_EQ(waiting->status, ProposeStatus::kNotLeader);
  auto late = world.Propose(0, {"b"});
  EXPECT_EQ(late->calls, 1u);
  EXPECT_EQ(late->status, ProposeStatus::kNotLeader);
  world.node(0).Stop();
  world.Kill(0);
  EXPECT_EQ(waiting->calls, 1u);
}

TEST(NodeTest, APauseOfTheProcessIsNoElectionWhenTheLeaderWasHeard) {
  NodeWorld world(3);
  world.StartAll();
  const size_t leader = world.RunUntilLeader();
  world.Run(milliseconds(500));
  const Term term = world.node(leader).status()->term;
  const size_t paused = (leader + 1) % 3;
  world.Starve(paused, NodeWorld::kNode);
  world.Run(seconds(2));  // its inbox fills with heartbeats meanwhile
  world.Feed(paused, NodeWorld::kNode);
  world.flights().clear();
  world.Step(paused, NodeWorld::kNode);
  world.Step(paused, NodeWorld::kLog);
  EXPECT_FALSE(world.flights().empty());
  for (const Message& message : world.flights()) {
    EXPECT_TRUE(std::holds_alternative<AppendEntriesReply>(message.body)) << "not even a question";
  }
  world.Run(seconds(1));
  EXPECT_EQ(world.node(paused).status()->term, term);
  EXPECT_EQ(world.Leader(), leader);
}

}  // namespace
}  // namespace quorate::raft
