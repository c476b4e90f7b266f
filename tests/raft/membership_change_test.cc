// Changing the members: a test for each rule of the dissertation's 4.1 to 4.3, and for what we
// added. Whole conversations: testdata/51 to 58.
#include "raft/core/membership_change.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "raft/core/random.h"
#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using Kind = MemberStep::Kind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

MemberStep Add(uint64_t store, std::string name) {
  return {Kind::kAddLearner, StoreId(store), std::move(name), "host:7000"};
}
MemberStep Promote(uint64_t store) { return {Kind::kPromote, StoreId(store), "", ""}; }
MemberStep Demote(uint64_t store) { return {Kind::kDemote, StoreId(store), "", ""}; }
MemberStep Remove(uint64_t store) { return {Kind::kRemove, StoreId(store), "", ""}; }

Membership Members(std::vector<uint64_t> voters, std::vector<uint64_t> learners) {
  Membership membership;
  for (uint64_t store = 1; store < 20; ++store) {
    const bool voter = std::count(voters.begin(), voters.end(), store) > 0;
    if (!voter && std::count(learners.begin(), learners.end(), store) == 0) continue;
    membership.members.push_back(
        Member{StoreId(store), "n" + std::to_string(store), "", voter, false});
  }
  return membership;
}

Membership Planned(const Membership& from, std::vector<MemberStep> steps) {
  auto planned = PlanChange(from, {std::move(steps)});
  if (auto* refused = std::get_if<ChangeResult>(&planned)) {
    ADD_FAILURE() << "refused: " << static_cast<int>(refused->status) << " " << refused->reason;
    return {};
  }
  return std::get<Membership>(planned);
}

ChangeResult Refused(const Membership& from, std::vector<MemberStep> steps) {
  auto planned = PlanChange(from, {std::move(steps)});
  if (auto* refused = std::get_if<ChangeResult>(&planned)) return *refused;
  ADD_FAILURE() << "not refused";
  return {};
}

// A leader with `voters` voters and `learners` learners, its no-op committed, everybody heard and
// caught up.
Bench MakeLeader(size_t voters, size_t learners = 0) {
  BenchSetup setup;
  setup.voters = voters;
  setup.learners = learners;
  Bench bench(setup);
  bench.Elect();
  for (int round = 0; round < 2; ++round) {
    for (uint64_t id = 2; id <= voters + learners; ++id) bench.Ack(StoreId(id), 2);
  }
  EXPECT_EQ(bench->commit(), Index(2));
  return bench;
}

// --- What a change comes to (4.1) ---

TEST(PlanChange, AddsPromotesDemotesAndRemovesInOneStep) {
  const Membership from = Members({1, 2, 3}, {4});
  Membership changed = Members({1, 4}, {2});
  changed.members[1].demoted = true;
  EXPECT_EQ(Planned(from, {Remove(3), Promote(4), Demote(2)}), changed);
  Membership added = Members({1, 2, 3}, {4, 5});
  added.members[4].address = "host:7000";
  EXPECT_EQ(Planned(from, {Add(5, "n5")}), added);
  EXPECT_EQ(Planned(from, {}), from);
  EXPECT_EQ(Planned(from, {Add(4, "n4"), Promote(1)}), from) << "already so";
}

// What an operator wanted is told from what nobody has said yet.
TEST(PlanChange, WhoIsDemotedIsSoUntilItIsPromoted) {
  const Membership from = Members({1, 2, 3}, {4});
  Membership demoted = from;
  demoted.members[3].demoted = true;
  EXPECT_EQ(Planned(from, {Demote(4)}), demoted);
  EXPECT_EQ(Planned(demoted, {Demote(4)}), demoted);
  EXPECT_EQ(Planned(demoted, {Add(4, "n4")}), demoted);
  EXPECT_EQ(Planned(demoted, {Promote(4)}), Members({1, 2, 3, 4}, {}));
  EXPECT_FALSE(EnterChange(from, demoted).joint);
  // Not by itself: whoever judged it a moment ago may not have heard of that.
  MemberStep by_itself = Promote(4);
  by_itself.by_itself = true;
  EXPECT_EQ(Refused(demoted, {by_itself}).status, ChangeStatus::kInvalid);
  EXPECT_EQ(Planned(from, {by_itself}), Members({1, 2, 3, 4}, {}));
  // Through joint phases, too: its own and others'.
  const Membership after = Planned(demoted, {Demote(3)});
  EXPECT_TRUE(LeaveJoint(EnterChange(demoted, after)).Find(StoreId(3))->demoted);
  EXPECT_TRUE(LeaveJoint(EnterChange(demoted, after)).Find(StoreId(4))->demoted);
}

TEST(PlanChange, AVoterIsReplacedByTheStoreThatLearnedUnderItsName) {
  Membership from = Members({1, 2, 3}, {4});
  from.members[3].name = "n3";
  Membership to = Members({1, 2, 4}, {});
  to.members[2].name = "n3";
  EXPECT_EQ(Planned(from, {Promote(4)}), to);
  EXPECT_EQ(Planned(from, {Remove(3), Promote(4)}).Voters(), to.Voters())
      << "also when it is said twice";
}

TEST(PlanChange, RefusesWhatCannotBe) {
  const Membership from = Members({1, 2}, {3});
  EXPECT_EQ(Refused(from, {Remove(9)}).status, ChangeStatus::kUnknownStore);
  EXPECT_EQ(Refused(from, {Promote(9)}).store, StoreId(9));
  EXPECT_EQ(Refused(from, {Remove(3), Demote(3)}).status, ChangeStatus::kUnknownStore)
      << "the steps follow one another";
  EXPECT_EQ(Refused(from, {Remove(1), Remove(2)}).status, ChangeStatus::kNoVoters);
  EXPECT_EQ(Refused(from, {Demote(1), Demote(2)}).status, ChangeStatus::kNoVoters);
  const ChangeResult taken = Refused(from, {Add(7, "n3")});
  EXPECT_EQ(taken.status, ChangeStatus::kNameTaken);
  EXPECT_EQ(taken.store, StoreId(3));
  EXPECT_EQ(Refused(from, {Add(3, "other")}).status, ChangeStatus::kInvalid);
  EXPECT_EQ(Refused(from, {Add(0, "x")}).status, ChangeStatus::kInvalid);
  EXPECT_EQ(Refused(from, {Add(7, "")}).status, ChangeStatus::kInvalid);
  EXPECT_EQ(Refused(from, {Add(7, std::string(256, 'x'))}).status, ChangeStatus::kInvalid);
  EXPECT_EQ(Refused(from, {Add(7, "n1"), Demote(1)}).status, ChangeStatus::kInvalid)
      << "two learners of one name";
  std::vector<MemberStep> many;
  for (uint64_t i = 0; i <= kMembersMax; ++i) many.push_back(Add(100 + i, std::to_string(i)));
  EXPECT_EQ(Refused(from, many).status, ChangeStatus::kInvalid);
}

TEST(JointMembership, IsEnteredOnlyWhenTheVotersChange) {
  const Membership from = Members({1, 2, 3}, {4});
  EXPECT_FALSE(EnterChange(from, Members({1, 2, 3}, {})).joint);
  EXPECT_FALSE(EnterChange(from, Members({1, 2, 3}, {4, 5})).joint);
  const Membership joint = EnterChange(from, Members({1, 2, 4}, {3}));
  EXPECT_TRUE(joint.joint);
  EXPECT_EQ(joint.Voters(), Members({1, 2, 4}, {}).Voters());
  EXPECT_EQ(joint.OutgoingVoters(), from.Voters()) << "the demoted one votes in the old half";
  EXPECT_FALSE(joint.Find(StoreId(3))->voter);
}

TEST(JointMembership, LeadsToWhatWasPlannedWhateverItIs) {
  Random random(7);
  for (int round = 0; round < 3000; ++round) {
    Membership from, to;
    for (uint64_t store = 1; store <= 7; ++store) {
      const std::string name = "n" + std::to_string(store);
      const uint64_t before = random.Between(0, 2);
      const uint64_t after = random.Between(0, 2);
      if (before) from.members.push_back(Member{StoreId(store), name, "", before == 2, false});
      // A voter that is to learn was demoted; who learned before may have been.
      const bool demoted = after == 1 && (before == 2 || random.Between(0, 1) == 0);
      if (after) {
        to.members.push_back(Member{StoreId(store), name, "", after == 2, false, demoted});
      }
    }
    if (from.Voters().empty() || to.Voters().empty()) continue;
    const Membership entry = EnterChange(from, to);
    ASSERT_EQ(BrokenRule(entry), nullptr) << BrokenRule(entry);
    EXPECT_EQ(DecodeMembership(EncodeMembership(entry)), entry);
    EXPECT_EQ(entry.Voters(), to.Voters());
    EXPECT_EQ(entry.joint ? LeaveJoint(entry) : entry, to);
    if (entry.joint) {
      EXPECT_EQ(entry.OutgoingVoters(), from.Voters());
    }
  }
}

// --- Safety (4.1, 4.3) ---

TEST(MembershipEntry, IsInForceWhenAppended) {
  Bench bench = MakeLeader(3, 1);
  bench.auto_persist = false;
  const ChangeResult result = bench.Change({Promote(4)});
  EXPECT_EQ(result.status, ChangeStatus::kAccepted);
  EXPECT_EQ(result.index, Index(3));
  EXPECT_TRUE(bench->membership().joint);
  EXPECT_LT(bench->persisted(), Index(3));
}

TEST(MembershipEntry, NeedsBothMajorities) {
  Bench bench = MakeLeader(3, 2);
  ASSERT_EQ(bench.Change({Promote(4), Promote(5), Remove(2), Remove(3)}).status,
            ChangeStatus::kAccepted);
  // New: 1 4 5, old: 1 2 3.
  bench.AckAll({kFour, kFive});
  EXPECT_EQ(bench->commit(), Index(2)) << "all of the new half, one of the old";
  bench.AckAll({kTwo});
  EXPECT_EQ(bench->commit(), Index(3));
  EXPECT_FALSE(bench->membership().joint) << "and the leader has ended the joint phase";
  EXPECT_EQ(bench->membership_index(), Index(4));
}

TEST(MembershipEntry, TheOldMajorityAloneIsNotEnoughEither) {
  Bench bench = MakeLeader(3, 2);
  bench.Change({Promote(4), Promote(5), Remove(2), Remove(3)});
  bench.AckAll({kTwo, kThree});
  EXPECT_EQ(bench->commit(), Index(2));
}

TEST(MembershipEntry, AfterTheJointPhaseTheOldHalfCountsNoMore) {
  Bench bench = MakeLeader(3, 2);
  bench.Change({Promote(4), Promote(5), Remove(2), Remove(3)});
  bench.AckAll({kTwo, kFour});
  ASSERT_EQ(bench->membership_index(), Index(4));
  bench.Ack(kTwo, 4);
  bench.Ack(kThree, 4);
  EXPECT_EQ(bench->commit(), Index(3));
  bench.Ack(kFive, 4);
  EXPECT_EQ(bench->commit(), Index(4));
}

TEST(MembershipEntry, AChangeOfLearnersIsOneEntry) {
  Bench bench = MakeLeader(3);
  ASSERT_EQ(bench.Change({Add(4, "n4")}).status, ChangeStatus::kAccepted);
  bench.AckAll({kTwo});
  EXPECT_EQ(bench->commit(), Index(3));
  EXPECT_EQ(bench->membership_index(), Index(3));
  EXPECT_FALSE(bench->membership().joint);
  EXPECT_THAT(bench.All<AppendEntries>(kFour), ::testing::Not(IsEmpty()));
}

TEST(NoChange, BeforeTheTermsNoopIsCommitted) {
  Bench bench({.voters = 3, .learners = 1});
  bench.Elect();
  bench.Ack(kFour, 2);
  bench.Ack(kFour, 2);
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kNotReady);
  EXPECT_EQ(bench.Change({Remove(4)}).status, ChangeStatus::kNotReady) << "of learners neither";
  bench.Ack(kTwo, 2);
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kAccepted);
}

TEST(NoChange, WhileAnotherIsNotDone) {
  Bench bench = MakeLeader(3, 1);
  ASSERT_EQ(bench.Change({Add(9, "n9")}).status, ChangeStatus::kAccepted);
  const ChangeResult second = bench.Change({Promote(4)});
  EXPECT_EQ(second.status, ChangeStatus::kInProgress);
  EXPECT_EQ(second.index, Index(3));
  bench.AckAll({kTwo, kFour});
  ASSERT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kAccepted);
  EXPECT_EQ(bench.Change({Remove(9)}).status, ChangeStatus::kInProgress) << "joint";
  bench.AckAll({kTwo, kThree, kFour});
  EXPECT_EQ(bench.Change({Remove(9)}).status, ChangeStatus::kInProgress) << "left, not committed";
  bench.AckAll({kTwo, kThree, kFour});
  EXPECT_EQ(bench.Change({Remove(9)}).status, ChangeStatus::kAccepted);
}

TEST(NoChange, AtAFollower) {
  Bench bench;
  EXPECT_EQ(bench.Change({Remove(2)}).status, ChangeStatus::kNotLeader);
}

TEST(NoChange, InAnotherTermThanItWasDecidedIn) {
  Bench bench = MakeLeader(3, 1);
  MembershipChange change{{Remove(4)}, false, Term(bench.core().term().value() - 1)};
  EXPECT_EQ(bench.core().ProposeMembership(change, bench.now).status, ChangeStatus::kNotLeader);
  change.in_term = bench.core().term();
  EXPECT_EQ(bench.core().ProposeMembership(change, bench.now).status, ChangeStatus::kAccepted);
}

TEST(NoChange, WhenTheMembersAreAsAsked) {
  Bench bench = MakeLeader(3);
  EXPECT_EQ(bench.Change({Promote(2)}).status, ChangeStatus::kUnchanged);
  EXPECT_EQ(bench->last_index(), Index(2));
}

TEST(JointPhase, IsEndedByWhoeverLeads) {
  // The joint entry is in a follower's log, and its leader is gone.
  Bench bench({.voters = 3, .learners = 1});
  const Membership from = Members({1, 2, 3}, {4});
  AppendEntries append = bench.Append(1, 1, 1, {1});
  append.entries[0] =
      MakeMembershipEntry(Index(2), Term(1), EnterChange(from, Members({1, 2, 4}, {})));
  bench.HearAppend(kThree, append);
  bench.Pass(400);
  bench.Elect();
  for (StoreId peer : {kFour}) {
    bench.Hear(peer, RequestVoteReply{bench->term() + 1, true, true, 0});
    bench.Hear(peer, RequestVoteReply{bench->term(), false, true, 0});
  }
  ASSERT_EQ(bench->role(), Role::kLeader);
  EXPECT_TRUE(bench->membership().joint) << "not before it knows that the entry is committed";
  bench.AckAll({kTwo});
  EXPECT_EQ(bench->commit(), Index(3)) << "1 and 2 are a majority of both";
  EXPECT_FALSE(bench->membership().joint);
  EXPECT_EQ(bench->membership().Voters(), Members({1, 2, 4}, {}).Voters());
}

// --- Catching up (4.2.1) ---

TEST(CatchingUp, APromotionIsRefusedWithTheLag) {
  Bench bench = MakeLeader(3);
  bench.Change({Add(4, "n4")});
  bench.AckAll({kTwo});
  const ChangeResult result = bench.Change({Promote(4)});
  EXPECT_EQ(result.status, ChangeStatus::kNotCaughtUp);
  EXPECT_EQ(result.store, kFour);
  EXPECT_EQ(result.match, Index(0));
  EXPECT_EQ(result.last_index, Index(3));
}

TEST(CatchingUp, ARoundEndsWhereTheLogEndedWhenItBegan) {
  Bench bench = MakeLeader(3);
  bench.Change({Add(4, "n4")});
  bench.AckAll({kTwo});
  // The first round, up to 3, takes too long; what was proposed meanwhile belongs to the second.
  for (int i = 0; i < 5; ++i) {
    bench.Propose({1});
    bench.Pass(40);
    bench.AckAll({kTwo});
    bench.Tick();
  }
  bench.Ack(kFour, 3);
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kNotCaughtUp);
  bench.Pass(40);
  bench.Ack(kFour, 7);
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kNotCaughtUp) << "8 was its end";
  bench.Pass(40);
  bench.Ack(kFour, 8);
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kAccepted);
}

TEST(CatchingUp, WhoHasFallenSilentHasNotCaughtUp) {
  Bench bench = MakeLeader(3, 1);
  for (int i = 0; i < 4; ++i) {
    bench.Pass(40);
    bench.AckAll({kTwo});
    bench.Tick();
  }
  EXPECT_EQ(bench.Change({Promote(4)}).status, ChangeStatus::kNotCaughtUp);
  EXPECT_FALSE(bench->peers()[2].caught_up);
  bench.Ack(kFour, 2);
  bench.Ack(kFour, 2);
  EXPECT_TRUE(bench->peers()[2].caught_up);
}

TEST(CatchingUp, ForceWaivesTheArithmeticAndNothingElse) {
  Bench bench = MakeLeader(3);
  bench.Change({Add(4, "n4")});
  bench.AckAll({kTwo});
  EXPECT_EQ(bench.Change({Promote(4)}, true).status, ChangeStatus::kNotCaughtUp);
  EXPECT_EQ(bench.Change({Remove(1), Remove(2), Remove(3)}, true).status, ChangeStatus::kNoVoters);
}

// --- Removing the current leader (4.2.2) ---

TEST(RemovedLeader, IsNotCountedOnceTheNewMembershipIsInItsLog) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(1)});
  bench.AckAll({kTwo});
  EXPECT_EQ(bench->commit(), Index(2)) << "the new half is 2 and 3";
  bench.AckAll({kThree});
  ASSERT_EQ(bench->commit(), Index(3));
  EXPECT_EQ(bench->persisted(), Index(4));
  bench.AckAll({kTwo});
  EXPECT_EQ(bench->commit(), Index(3));
  EXPECT_EQ(bench->role(), Role::kLeader) << "and it leads until that is committed";
  EXPECT_EQ(bench.Propose({1}).second, ProposeStatus::kAccepted);
}

TEST(RemovedLeader, HandsOverWhenTheNewMembershipIsCommittedAndStepsDown) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(1)});
  bench.AckAll({kTwo, kThree});
  bench.Ack(kTwo, 4);
  bench.Listen();
  bench.Ack(kThree, 4);
  EXPECT_EQ(bench->commit(), Index(4));
  EXPECT_EQ(bench.All<TimeoutNow>(kTwo).size(), 1u);
  EXPECT_EQ(bench.Propose({1}).second, ProposeStatus::kTransferring);
  // Nobody takes over: it leaves all the same.
  for (int i = 0; i < 6; ++i) {
    bench.Pass(50);
    bench.AckAll({kTwo, kThree});
    bench.Tick();
  }
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_TRUE(bench->removed());
}

TEST(RemovedLeader, WithoutItsMajorityItStepsDownLikeAnyLeader) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(1)});
  bench.AckAll({kTwo, kThree});
  bench.Pass(100);
  bench.Ack(kTwo, 3);
  bench.Pass(100);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower) << "itself and 2 are no majority of 2 and 3";
}

TEST(RemovedLeader, ADemotedOneStepsDownToo) {
  Bench bench = MakeLeader(3);
  bench.Change({Demote(1)});
  bench.AckAll({kTwo, kThree});
  bench.AckAll({kTwo, kThree});
  EXPECT_NE(bench->transfer_target(), StoreId());
  bench.Hear(kTwo, RequestVote{Term(3), false, Index(4), Term(2), 1, true});
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_FALSE(bench->removed()) << "it is a member";
}

// --- Who may campaign, who votes (4.2.2, 4.2.3) ---

TEST(OutsideTheMembership, ItCampaignsWhileThatMayBeUncommitted) {
  Bench bench({.voters = 2});
  AppendEntries append = bench.Append(1, 1, 1, {1});
  append.entries[0] = MakeMembershipEntry(Index(2), Term(1), Members({2}, {}));
  bench.HearAppend(kTwo, append);
  bench.Pass(1000);
  bench.Listen();
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kPreCandidate);
  EXPECT_EQ(bench.All<RequestVote>(kTwo).size(), 1u);
  // Its own vote is worth nothing; 2 alone decides.
  bench.Hear(kTwo, RequestVoteReply{Term(2), true, true, 0});
  EXPECT_EQ(bench->role(), Role::kCandidate);
  bench.Hear(kTwo, RequestVoteReply{Term(2), false, true, 0});
  EXPECT_EQ(bench->role(), Role::kLeader);
}

TEST(OutsideTheMembership, ItDoesNotCampaignOnceThatIsCommitted) {
  Bench bench({.voters = 2});
  AppendEntries append = bench.Append(1, 1, 1, {1}, 2);
  append.entries[0] = MakeMembershipEntry(Index(2), Term(1), Members({2}, {}));
  bench.HearAppend(kTwo, append);
  bench.Pass(1000);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_TRUE(bench->removed());
}

TEST(OutsideTheMembership, ItStillVotesAndAppends) {
  Bench bench({.voters = 2});
  AppendEntries append = bench.Append(1, 1, 1, {1}, 2);
  append.entries[0] = MakeMembershipEntry(Index(2), Term(1), Members({2}, {}));
  bench.HearAppend(kTwo, append);
  bench.Pass(1000);
  bench.Tick();
  EXPECT_TRUE(bench.AskVote(kThree, 5, 9, 4).granted);
  EXPECT_TRUE(bench.HearAppend(kThree, bench.Append(5, 2, 1, {5})).success);
  EXPECT_FALSE(bench->removed()) << "a leader serves it";
}

TEST(Removed, IsSaidOnlyFromACommittedMembershipThatTheAskerLacks) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(3)});
  EXPECT_FALSE(bench.AskVote(kThree, 3, 2, 2).removed) << "not committed";
  bench.AckAll({kTwo});
  EXPECT_FALSE(bench.AskVote(kThree, 3, 2, 2).removed) << "joint: it is an old voter";
  bench.AckAll({kTwo});
  ASSERT_EQ(bench->commit(), Index(4));
  EXPECT_TRUE(bench.AskVote(kThree, 3, 2, 2).removed);
  EXPECT_FALSE(bench.AskVote(kThree, 3, 4, 2).removed) << "it may know more than this node";
  EXPECT_FALSE(bench.AskVote(kTwo, 3, 2, 2).removed);
}

TEST(Removed, IsForgottenWhenALeaderIsHeard) {
  Bench bench;
  bench.Campaign();
  bench.Hear(kTwo, RequestVoteReply{Term(1), true, false, 0, true});
  EXPECT_TRUE(bench->removed());
  EXPECT_EQ(bench->role(), Role::kPreCandidate) << "it is only what it says of itself";
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}));
  EXPECT_FALSE(bench->removed());
}

TEST(Removed, WhoLeavesIsServedUntilItKnows) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(3)});
  bench.AckAll({kTwo, kThree});
  bench.Listen();
  bench.AckAll({kTwo, kThree});
  const AppendEntries told = bench.Last<AppendEntries>(kThree);
  EXPECT_EQ(told.commit, Index(4));
  EXPECT_THAT(bench->peers(), SizeIs(1)) << "it is no member any more";
  // The answer to what was sent after that ends it.
  for (int i = 0; i < 3; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo, kThree});
  }
  bench.Listen();
  bench.Pass(50);
  bench.Tick();
  EXPECT_THAT(bench.All<AppendEntries>(kThree), IsEmpty());
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1));
}

TEST(Removed, ASilentOneIsNotServedForEver) {
  Bench bench = MakeLeader(3);
  bench.Change({Remove(3)});
  bench.AckAll({kTwo});
  bench.AckAll({kTwo});
  for (int i = 0; i < 61; ++i) {
    bench.Listen();
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo});
  }
  EXPECT_THAT(bench.All<AppendEntries>(kThree), IsEmpty());
  EXPECT_EQ(bench->role(), Role::kLeader);
}

// --- What is kept of it ---

TEST(RolledBack, AnUncommittedChangeGoesWithItsEntry) {
  Bench bench = MakeLeader(3, 1);
  bench.Change({Promote(4), Remove(2)});
  ASSERT_TRUE(bench->membership().joint);
  bench.HearAppend(kThree, bench.Append(5, 2, 2, {5}));
  EXPECT_FALSE(bench->membership().joint);
  EXPECT_EQ(bench->membership().Voters(), Members({1, 2, 3}, {}).Voters());
  EXPECT_EQ(bench->membership_index(), Index(1));
}

// --- Refusals of the quorum's arithmetic, and of names ---

TEST(Arithmetic, AChangeThatWouldLoseTheQuorumIsRefusedUnlessForced) {
  Bench bench = MakeLeader(3);
  for (int i = 0; i < 7; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo});
  }
  const ChangeResult result = bench.Change({Remove(2)});
  EXPECT_EQ(result.status, ChangeStatus::kWouldLoseQuorum);
  EXPECT_EQ(result.voters, 2u);
  EXPECT_EQ(result.needed, 2u);
  EXPECT_EQ(result.reachable, 1u);
  EXPECT_EQ(bench.Change({Remove(3)}).status, ChangeStatus::kAccepted) << "the dead one may go";
  Bench forced = MakeLeader(3);
  for (int i = 0; i < 7; ++i) {
    forced.Pass(50);
    forced.Tick();
    forced.AckAll({kTwo});
  }
  EXPECT_EQ(forced.Change({Remove(2)}, true).status, ChangeStatus::kAccepted);
}

TEST(Arithmetic, WhatWasForcedIsSentBeforeTheSilentVoterIsMissed) {
  Bench bench = MakeLeader(3);
  for (int i = 0; i < 7; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo});
  }
  bench.Listen();
  EXPECT_EQ(bench.Change({Remove(2)}, true).status, ChangeStatus::kAccepted);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kLeader)
      << "needed from now on, and silent for long: not yet missed";
  EXPECT_THAT(bench.Last<AppendEntries>(kTwo).entries, SizeIs(1));
  bench.Pass(149);
  bench.AckAll({kTwo});
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kLeader);
  bench.Pass(1);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower) << "the third one had a whole timeout";
}

TEST(Arithmetic, AVoterThatLostDataDoesNotCount) {
  Bench bench = MakeLeader(3);
  bench.Pass(10);
  bench.Tick();
  bench.Ack(kThree, 0, 0);
  ASSERT_TRUE(bench->peers()[1].lost_data);
  EXPECT_EQ(bench.Change({Remove(2)}).reachable, 1u);
}

TEST(Names, ANewStoreTakesTheNameOfASilentVoterOnly) {
  Bench bench = MakeLeader(3);
  const ChangeResult taken = bench.Change({Add(4, "n3")});
  EXPECT_EQ(taken.status, ChangeStatus::kNameTaken);
  EXPECT_EQ(taken.store, kThree);
  EXPECT_EQ(bench.Change({Add(4, "n1")}).store, kSelf) << "this node itself answers too";
  for (int i = 0; i < 7; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo});
  }
  EXPECT_EQ(bench.Change({Add(4, "n3")}).status, ChangeStatus::kAccepted);
}

TEST(Names, TheReplacementIsRefusedWhileTheOldStoreAnswersAgain) {
  Bench bench = MakeLeader(3);
  for (int i = 0; i < 7; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.AckAll({kTwo});
  }
  bench.Change({Add(4, "n3")});
  bench.AckAll({kTwo, kFour});
  bench.AckAll({kTwo, kFour});
  bench.Ack(kThree, 3);
  const ChangeResult result = bench.Change({Promote(4)});
  EXPECT_EQ(result.status, ChangeStatus::kNameTaken);
  EXPECT_EQ(result.store, kThree);
  EXPECT_EQ(bench.Change({Remove(3), Promote(4)}).status, ChangeStatus::kAccepted)
      << "whoever names the old store means it";
}

// --- Over a restart and a replay ---

TEST(Replay, MembershipsThatDoNotNameThisStoreChangeNothingForIt) {
  // Vault #32099: a node that had joined again replayed old entries and removed itself.
  Bench bench({.terms = {}, .applied = 0, .voters = 0});
  AppendEntries append = bench.Append(3, 0, 0, {1, 2, 3}, 3);
  append.entries[0] = MakeMembershipEntry(Index(1), Term(1), Members({1, 2, 3}, {}));
  append.entries[1] = MakeMembershipEntry(Index(2), Term(2), Members({2, 3}, {}));
  append.entries[2] = MakeMembershipEntry(Index(3), Term(3), Members({2, 3}, {1}));
  EXPECT_TRUE(bench.HearAppend(kTwo, append).success);
  EXPECT_FALSE(bench->removed());
  EXPECT_EQ(bench->membership_index(), Index(3));
}

}  // namespace
}  // namespace quorate::raft::testing
