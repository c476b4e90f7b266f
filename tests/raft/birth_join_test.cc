// How a store that is in no cluster is let into one that exists (raft/birth.h): stories, then what
// is refused, then its record on disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "raft/birth.h"
#include "tests/raft/birth_world.h"

namespace quorate::raft {
namespace {

using std::chrono::seconds;
using testing::BirthWorld;
using ::testing::HasSubstr;

// Three founders in service, and a fourth node that is configured to find them.
class BirthJoinTest : public ::testing::Test {
 protected:
  BirthJoinTest() {
    std::vector<PeerAddress> peers = world_.node(0).peers;
    peers.push_back({BirthWorld::Address(3), BirthWorld::Name(3)});
    fourth_ =
        world_.Add(BirthWorld::Name(3), BirthWorld::Address(3), world_.node(0).founders, peers);
  }
  void BeBorn() {
    for (size_t i = 0; i < 3; ++i) world_.Start(i);
    world_.Run(seconds(2));
    for (size_t i = 0; i < 3; ++i) {
      ASSERT_TRUE(world_.Born(i));
      world_.node(i).birth->OnBirthComplete(world_.now());
      world_.node(i).birth->OnCaughtUp();
      world_.node(i).complete = true;
    }
  }
  // As the leader, cp-0, would with its first message.
  Refusal Invite(size_t i, BirthWorld::Crash crash = BirthWorld::Crash::kNever) {
    const Refusal refusal =
        world_.node(i).birth->OnInvited({world_.ClusterOf(0), world_.node(0).store}, world_.now());
    world_.Act(i, crash);
    return refusal;
  }
  Membership WithFourth() {
    Membership members = *DecodeMembership(world_.node(0).birth->record().payload);
    members.members.push_back({.store = world_.node(fourth_).store,
                               .name = BirthWorld::Name(3),
                               .address = BirthWorld::Address(3)});
    return members;
  }

  BirthWorld world_{3};
  size_t fourth_ = 0;
};

TEST_F(BirthJoinTest, ANodeThatIsNoFounderWaitsAndSaysWhatToDo) {
  world_.Start(fourth_);
  world_.Run(seconds(1));
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("not among the founders"));
  BeBorn();
  world_.Run(seconds(1));
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("`quorate member add 10.0.0.4:7000`"));
  EXPECT_FALSE(world_.node(fourth_).birth->may_run());
  const IdentifyReply reply = world_.node(fourth_).birth->OnIdentify({}, world_.now());
  EXPECT_FALSE(reply.cluster);
  EXPECT_EQ(reply.waits_for, world_.ClusterOf(0));

  // Added, and not yet reached.
  for (size_t i = 0; i < 3; ++i) world_.node(i).birth->OnMembership(WithFourth());
  world_.Run(seconds(3));
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("waiting for its leader to reach this node"));
}

TEST_F(BirthJoinTest, InvitedItMakesAnEmptyLogAndRuns) {
  BeBorn();
  world_.Start(fourth_);
  world_.Run(seconds(1));
  world_.node(fourth_).birth->OnInvited({world_.ClusterOf(0), world_.node(0).store}, world_.now());
  BirthOutput output = world_.node(fourth_).birth->TakeOutput();
  ASSERT_TRUE(output.persist.has_value()) << "durable before anything else";
  EXPECT_EQ(output.persist->cluster(), world_.ClusterOf(0));
  EXPECT_FALSE(output.persist->log_created);
  ASSERT_TRUE(output.create_log.has_value());
  EXPECT_EQ(output.create_log->cluster, world_.ClusterOf(0));
  EXPECT_EQ(output.create_log->first_entry, nullptr);
  EXPECT_FALSE(world_.node(fourth_).birth->may_run());
  world_.node(fourth_).birth->OnLogCreated(world_.now());
  EXPECT_TRUE(world_.node(fourth_).birth->may_run());
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kBorn);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("bring this node up to date"));

  // It knows no member yet; whoever asks it is told its cluster all the same.
  const IdentifyReply reply = world_.node(fourth_).birth->OnIdentify({}, world_.now());
  EXPECT_EQ(reply.cluster, world_.ClusterOf(0));
  EXPECT_FALSE(reply.waits_for);
  const std::optional<Membership> members = DecodeMembership(reply.membership);
  ASSERT_TRUE(members.has_value());
  EXPECT_TRUE(members->members.empty());

  world_.node(fourth_).birth->OnMembership(WithFourth());
  world_.node(fourth_).birth->OnBirthComplete(world_.now());
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kComplete);
  EXPECT_EQ(Invite(fourth_), Refusal::kNone) << "again: it is in";
}

// The leader that let it in was lost before the entry was committed, or it was removed at once.
TEST_F(BirthJoinTest, LetInAndNoMemberItSaysSoAndWhatToDo) {
  BeBorn();
  world_.Start(fourth_);
  world_.Run(seconds(1));
  EXPECT_FALSE(world_.Status(fourth_).joined);
  ASSERT_EQ(Invite(fourth_), Refusal::kNone);
  world_.Run(std::chrono::milliseconds(500));
  EXPECT_TRUE(world_.Status(fourth_).joined);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("bring this node up to date"))
      << "followers may have it a moment later";
  world_.Run(seconds(2));
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kBorn);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("no longer include this store, or never did"));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("`quorate member add 10.0.0.4:7000`"));
  // One that says otherwise is ahead of the others.
  world_.node(1).birth->OnMembership(WithFourth());
  world_.Run(seconds(1));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("bring this node up to date"));
  // After a restart it knows as much, and nobody's answer is too old for it.
  world_.node(1).birth->OnMembership(*DecodeMembership(world_.node(0).birth->record().payload));
  world_.Kill(fourth_);
  world_.Start(fourth_);
  world_.Run(seconds(3));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("no longer include this store, or never did"));
  // Its own log proves nothing: what let it in may be there alone. Nor is it enough that birth is
  // known to be complete.
  world_.node(fourth_).birth->OnMembership(WithFourth());
  world_.Run(seconds(3));  // it has asked itself, too
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("no longer include this store, or never did"));
  world_.node(fourth_).birth->OnBirthComplete(world_.now());
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kComplete);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("no longer include this store, or never did"));
  // Added again, somebody says so.
  world_.node(1).birth->OnMembership(WithFourth());
  world_.Run(seconds(1));
  EXPECT_EQ(world_.Lacks(fourth_), "");
}

// A machine that was away when this one came knows nothing of it, and may be the only one that is
// back yet.
TEST_F(BirthJoinTest, OneAloneDoesNotSayThatAStoreWasRemoved) {
  BeBorn();
  world_.Start(fourth_);
  world_.Run(seconds(1));
  ASSERT_EQ(Invite(fourth_), Refusal::kNone);
  world_.node(fourth_).birth->OnMembership(WithFourth());
  world_.node(fourth_).birth->OnBirthComplete(world_.now());
  world_.Kill(0);
  world_.Kill(2);
  world_.Run(seconds(15));
  EXPECT_EQ(world_.Lacks(fourth_), "");
  world_.Start(2);
  world_.Run(seconds(3));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("cp-1, cp-2 say"));
}

// Two were removed, one after the other, and both are started again: the one that went first still
// takes the other for a member.
TEST_F(BirthJoinTest, WhatAnotherBelievesWhoWasRemovedDoesNotCount) {
  BeBorn();
  world_.Start(fourth_);
  const size_t fifth = world_.Add("cp-4", BirthWorld::Address(4), {}, world_.node(0).peers);
  world_.node(fifth).peers.push_back({BirthWorld::Address(3), "cp-3"});
  world_.node(fourth_).peers.push_back({BirthWorld::Address(4), "cp-4"});
  world_.Start(fifth);
  world_.Run(seconds(1));
  ASSERT_EQ(Invite(fourth_), Refusal::kNone);
  ASSERT_EQ(Invite(fifth), Refusal::kNone);
  for (const size_t i : {fourth_, fifth}) {
    world_.node(i).birth->OnMembership(WithFourth());
    world_.node(i).birth->OnBirthComplete(world_.now());
    world_.node(i).birth->SetAddresses(world_.node(i).peers, world_.now());
  }
  world_.Run(seconds(3));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("cp-0, cp-1, cp-2 say"));
}

// All founders were replaced, one after the other, and still run; the newest member is in nobody's
// list of theirs.
TEST_F(BirthJoinTest, TheMajorityOfAListWithItOutweighsAllWhoWereRemoved) {
  BeBorn();
  std::vector<size_t> later = {fourth_};
  for (size_t i = 4; i < 6; ++i) {
    later.push_back(world_.Add(BirthWorld::Name(i), BirthWorld::Address(i), {}, {}));
  }
  std::vector<PeerAddress> peers;
  for (size_t i = 0; i < 6; ++i) peers.push_back({BirthWorld::Address(i), BirthWorld::Name(i)});
  Membership members;
  members.cluster = world_.ClusterOf(0);
  for (const size_t i : later) {
    members.members.push_back({.store = world_.node(i).store,
                               .name = world_.node(i).name,
                               .address = world_.node(i).address,
                               .voter = true});
  }
  for (const size_t i : later) {
    world_.node(i).peers = peers;
    world_.Start(i);
    world_.Run(seconds(1));
    ASSERT_EQ(Invite(i), Refusal::kNone);
  }
  for (const size_t i : later) {
    world_.node(i).birth->OnMembership(members);
    world_.node(i).birth->OnBirthComplete(world_.now());
  }
  world_.Run(seconds(3));
  EXPECT_EQ(world_.Lacks(fourth_), "");
  // Without the others' word there is only that of the removed.
  world_.Kill(later[1]);
  world_.Kill(later[2]);
  world_.Run(seconds(15));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("cp-0, cp-1, cp-2 say"));
}

TEST_F(BirthJoinTest, KilledAtEachStepItIsInOrWaitsAgain) {
  BeBorn();
  for (const auto crash : {BirthWorld::Crash::kBeforePersist, BirthWorld::Crash::kAfterPersist,
                           BirthWorld::Crash::kBeforeLog}) {
    const size_t i = world_.Add("late-" + std::to_string(static_cast<int>(crash)),
                                BirthWorld::Address(4 + static_cast<size_t>(crash)),
                                world_.node(0).founders, world_.node(0).peers);
    world_.Start(i);
    world_.Run(seconds(1));
    EXPECT_EQ(Invite(i, crash), Refusal::kNone);
    ASSERT_EQ(world_.node(i).birth, nullptr);
    world_.Start(i);
    world_.Run(seconds(1));
    if (crash == BirthWorld::Crash::kBeforePersist) {
      EXPECT_FALSE(world_.Born(i));
      EXPECT_EQ(Invite(i), Refusal::kNone) << "the leader comes again";
    }
    EXPECT_TRUE(world_.Born(i));
    EXPECT_EQ(world_.ClusterOf(i), world_.ClusterOf(0));
  }
}

TEST_F(BirthJoinTest, AWipedFounderIsInvitedUnderItsOldName) {
  BeBorn();
  world_.Kill(2);
  world_.Wipe(2);
  world_.Start(2);
  world_.Run(seconds(1));
  EXPECT_EQ(world_.Status(2).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world_.Lacks(2), HasSubstr("`quorate member add 10.0.0.3:7000`"));
  EXPECT_THAT(world_.Lacks(2), HasSubstr("the leader does so by itself where discovery.dns"));
  EXPECT_EQ(Invite(2), Refusal::kNone);
  EXPECT_TRUE(world_.Born(2));
}

// The first founder's disk is lost: it must not found anything while it hears of the cluster, and
// what it has once joined it never leaves.
TEST_F(BirthJoinTest, AWipedFirstFounderJoinsAndNeverProposesAgain) {
  BeBorn();
  world_.Kill(0);
  const ClusterId cluster = world_.ClusterOf(1);
  world_.Wipe(0);
  world_.Start(0);
  world_.Run(seconds(1));
  EXPECT_EQ(world_.node(0).birth->OnInvited({cluster, world_.node(1).store}, world_.now()),
            Refusal::kNone);
  world_.Act(0);
  ASSERT_TRUE(world_.Born(0));
  world_.Kill(1);
  world_.Kill(2);
  world_.Wipe(1);
  world_.Wipe(2);
  world_.StartAll();
  world_.Run(seconds(10));
  EXPECT_EQ(world_.ClusterOf(0), cluster);
  EXPECT_FALSE(world_.Born(1)) << "a second cluster";
  EXPECT_FALSE(world_.Born(2));
}

// --- Who is found by the cluster ---

// Those of the cluster itself are found, too; who needs to be let in is judged by the membership.
TEST_F(BirthJoinTest, WhoWaitsForThisClusterIsFoundByItsMembers) {
  const auto found_by = [this](size_t i) {
    std::vector<Newcomer> found = world_.node(i).birth->Newcomers(world_.now());
    std::erase_if(
        found, [this](const Newcomer& each) { return each.store != world_.node(fourth_).store; });
    return found;
  };
  BeBorn();
  world_.Run(seconds(3));
  EXPECT_TRUE(found_by(0).empty());
  std::vector<PeerAddress> shown;
  for (size_t i = 0; i <= 3; ++i) shown.push_back({BirthWorld::Address(i), ""});
  world_.node(0).birth->SetAddresses(shown, world_.now());
  world_.Start(fourth_);
  EXPECT_TRUE(world_.node(fourth_).birth->Newcomers(world_.now()).empty());
  world_.Run(seconds(3));
  const Newcomer waits{BirthWorld::Address(3), world_.node(fourth_).store, BirthWorld::Name(3)};
  EXPECT_EQ(found_by(0), std::vector<Newcomer>{waits});
  EXPECT_TRUE(found_by(1).empty()) << "nobody shows it to that";

  // Its answer grows old.
  world_.Kill(fourth_);
  world_.Run(seconds(6));
  EXPECT_TRUE(found_by(0).empty());
  // Let in, it waits on: the leader that did may have fallen before anybody else heard of it.
  world_.Start(fourth_);
  world_.Run(seconds(3));
  EXPECT_EQ(found_by(0), std::vector<Newcomer>{waits});
  EXPECT_EQ(Invite(fourth_), Refusal::kNone);
  world_.Run(seconds(3));
  EXPECT_EQ(found_by(0), std::vector<Newcomer>{waits});
  // Once it has been a member whoever took it out meant that.
  world_.node(fourth_).birth->OnCaughtUp();
  world_.Run(seconds(3));
  Newcomer was_member = waits;
  was_member.was_member = true;
  EXPECT_EQ(found_by(0), std::vector<Newcomer>{was_member});
}

// Behind one name there are two clusters: an empty node joins neither, and names both.
TEST_F(BirthJoinTest, WhoFindsTwoClustersJoinsNeither) {
  BeBorn();
  std::vector<std::string> others;
  std::vector<PeerAddress> peers;
  for (size_t i = 4; i < 7; ++i) {
    others.push_back(BirthWorld::Name(i));
    peers.push_back({BirthWorld::Address(i), BirthWorld::Name(i)});
  }
  std::vector<size_t> second;
  for (size_t i = 4; i < 7; ++i) {
    second.push_back(world_.Add(BirthWorld::Name(i), BirthWorld::Address(i), others, peers));
  }
  for (const size_t i : second) world_.Start(i);
  world_.Run(seconds(3));
  ASSERT_TRUE(world_.Born(second[0]));
  world_.Start(fourth_);
  std::vector<PeerAddress> all = world_.node(fourth_).peers;
  all.insert(all.end(), peers.begin(), peers.end());
  world_.node(fourth_).birth->SetAddresses(all, world_.now());
  world_.Run(seconds(3));
  EXPECT_EQ(world_.Status(fourth_).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr("two clusters are found"));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr(ToHex(world_.ClusterOf(0))));
  EXPECT_THAT(world_.Lacks(fourth_), HasSubstr(ToHex(world_.ClusterOf(second[0]))));
  EXPECT_FALSE(world_.node(fourth_).birth->OnIdentify({}, world_.now()).waits_for);
  EXPECT_TRUE(world_.node(fourth_).birth->OnIdentify({}, world_.now()).finds_two_clusters);
  EXPECT_EQ(Invite(fourth_), Refusal::kClusterExists);
  // With one of them gone it waits for the other one.
  for (const size_t i : second) world_.Kill(i);
  world_.Run(seconds(6));
  EXPECT_EQ(world_.node(fourth_).birth->OnIdentify({}, world_.now()).waits_for,
            world_.ClusterOf(0));
  EXPECT_EQ(Invite(fourth_), Refusal::kNone);
}

// --- What is refused ---

TEST_F(BirthJoinTest, WhoIsPledgedOrElsewhereIsNotLetIn) {
  const ClusterId other(0x77);
  const StoreId leader(0x99);
  // Pledged: the proposer may count on it.
  world_.Start(0);
  world_.Start(1);
  world_.Start(2);
  world_.Run(seconds(2),
             [](const auto& flight) { return std::holds_alternative<Born>(flight.request); });
  ASSERT_TRUE(world_.node(1).birth->record().pledge.has_value());
  ASSERT_FALSE(world_.Born(1));
  EXPECT_EQ(world_.node(1).birth->OnInvited({other, leader}, world_.now()), Refusal::kPledgeMoved);
  const ClusterId own = world_.node(1).birth->record().pledge->cluster;
  EXPECT_EQ(world_.node(1).birth->OnInvited({own, leader}, world_.now()), Refusal::kPledgeMoved)
      << "in its own birth Born comes";
  world_.Run(seconds(2));
  ASSERT_TRUE(world_.Born(1));
  // Born: no other cluster gets it.
  EXPECT_EQ(world_.node(1).birth->OnInvited({other, leader}, world_.now()),
            Refusal::kBornElsewhere);
  // It hears of one cluster and is invited by another.
  world_.Start(fourth_);
  world_.Run(seconds(1));
  EXPECT_EQ(world_.node(fourth_).birth->OnInvited({other, leader}, world_.now()),
            Refusal::kClusterExists);
  EXPECT_EQ(world_.node(fourth_).birth->OnInvited({ClusterId(), leader}, world_.now()),
            Refusal::kMalformed);
  EXPECT_EQ(world_.node(fourth_).birth->OnInvited({other, StoreId()}, world_.now()),
            Refusal::kMalformed);
  EXPECT_FALSE(world_.Born(fourth_));
  // Once in, no proposal and no Born of another cluster is taken.
  EXPECT_EQ(Invite(fourth_), Refusal::kNone);
  Propose propose;
  propose.to = world_.node(fourth_).store;
  propose.proposal = *world_.node(0).birth->record().pledge;
  EXPECT_EQ(world_.node(fourth_).birth->OnPropose(propose, world_.now()).refusal,
            Refusal::kBornElsewhere);
}

// --- The record ---

TEST(BirthJoinRecordTest, ReadsBackWhatItWrites) {
  BirthRecord record;
  record.born = true;
  record.joined = ClusterId(0xabc);
  for (const bool made : {false, true}) {
    record.log_created = made;
    const std::string bytes = EncodeBirthRecord(record);
    EXPECT_EQ(DecodeBirthRecord(bytes), record);
    EXPECT_EQ(record.cluster(), ClusterId(0xabc));
    for (size_t i = 0; i < bytes.size(); ++i) {
      EXPECT_EQ(DecodeBirthRecord(bytes.substr(0, i)), std::nullopt) << i;
    }
    EXPECT_EQ(DecodeBirthRecord(bytes + "x"), std::nullopt);
    std::string pledged = bytes;
    pledged[10] = 1;
    EXPECT_EQ(DecodeBirthRecord(pledged), std::nullopt) << "nobody joins with a pledge";
    std::string nowhere = bytes;
    for (size_t i = nowhere.size() - 8; i < nowhere.size(); ++i) nowhere[i] = 0;
    EXPECT_EQ(DecodeBirthRecord(nowhere), std::nullopt);
  }
}

}  // namespace
}  // namespace quorate::raft
