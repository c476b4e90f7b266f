// Handing leadership over: the rules of the dissertation's 3.10, and what we added. Whole
// conversations: testdata/61 to 63.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

Bench LeaderOfThree(BenchSetup setup = {}) {
  Bench bench(setup);
  bench.Elect();
  for (uint64_t id = 2; id <= setup.voters + setup.learners; ++id) bench.Ack(StoreId(id), 2);
  return bench;
}

// --- 3.10, the leader ---

TEST(Transfer, Step1TheLeaderTakesNoMoreProposals) {
  Bench bench = LeaderOfThree();
  EXPECT_EQ(bench.Transfer(kTwo), TransferStatus::kStarted);
  EXPECT_EQ(bench->transfer_target(), kTwo);
  const auto [accepted, status] = bench.Propose({1, 2});
  EXPECT_EQ(accepted, 0u);
  EXPECT_EQ(status, ProposeStatus::kTransferring);
  EXPECT_EQ(bench.Change({{MemberStep::Kind::kRemove, kThree, "", ""}}).status,
            ChangeStatus::kTransferring);
}

TEST(Transfer, Step2TheTargetIsBroughtUpToDateFirst) {
  Bench bench = LeaderOfThree();
  bench.Propose({1});
  bench.Ack(kThree, 3);
  ASSERT_EQ(bench->commit(), Index(3)) << "that it is committed is not enough";
  bench.Listen();
  bench.Transfer(kTwo);
  EXPECT_THAT(bench.All<TimeoutNow>(), IsEmpty());
  bench.Ack(kThree, 3);
  EXPECT_THAT(bench.All<TimeoutNow>(), IsEmpty());
  bench.Ack(kTwo, 3);
  EXPECT_THAT(bench.All<TimeoutNow>(kTwo), SizeIs(1));
  EXPECT_EQ(bench.Last<TimeoutNow>(kTwo).term, bench->term());
  bench.Ack(kTwo, 3);
  EXPECT_THAT(bench.All<TimeoutNow>(kTwo), SizeIs(1)) << "once a heartbeat, it may have been lost";
  bench.Pass(50);
  bench.Tick();
  EXPECT_THAT(bench.All<TimeoutNow>(kTwo), SizeIs(2));
  EXPECT_THAT(bench.All<TimeoutNow>(), SizeIs(2)) << "nobody else is asked";
}

TEST(Transfer, Step3TheTermOfTheTargetEndsIt) {
  Bench bench = LeaderOfThree();
  bench.Transfer(kTwo);
  EXPECT_FALSE(bench.AskVote(kThree, 3, 2, 2).granted)
      << "one who was not asked to is refused while a majority is heard";
  Bench other = LeaderOfThree();
  other.Transfer(kTwo);
  other.Listen();
  other.Hear(kTwo, RequestVote{Term(3), false, Index(2), Term(2), 7, true});
  EXPECT_TRUE(other.Last<RequestVoteReply>(kTwo).granted);
  EXPECT_EQ(other->role(), Role::kFollower);
  EXPECT_EQ(other->transfer_target(), StoreId());
}

TEST(Transfer, IsGivenUpAfterOneElectionTimeout) {
  Bench bench = LeaderOfThree();
  bench.Transfer(kTwo);
  for (int passed = 0; passed < 300; passed += 50) {
    EXPECT_EQ(bench.Propose({1}).second, ProposeStatus::kTransferring) << passed;
    bench.Pass(50);
    bench.Ack(kThree, 2);
    bench.Tick();
  }
  EXPECT_EQ(bench->role(), Role::kLeader);
  EXPECT_EQ(bench->transfer_target(), StoreId());
  EXPECT_EQ(bench.Propose({1}).second, ProposeStatus::kAccepted);
}

TEST(Transfer, TheDriverIsWokenWhenItIsToBeGivenUp) {
  BenchSetup setup;
  setup.options.heartbeat_interval = std::chrono::milliseconds(149);
  Bench bench = LeaderOfThree(setup);
  bench.Transfer(kTwo);
  const Instant deadline = bench.now + std::chrono::milliseconds(300);
  for (int i = 0; i < 20 && bench->NextDeadline() < deadline; ++i) {
    bench.now = bench->NextDeadline();
    bench.Ack(kThree, 2);
    bench.Tick();
  }
  EXPECT_EQ(bench->NextDeadline(), deadline);
}

TEST(Transfer, WithoutATargetItIsTheVoterThatHasMost) {
  BenchSetup setup;
  setup.learners = 1;
  Bench bench = LeaderOfThree(setup);
  bench.Propose({1});
  bench.Ack(kFour, 3);
  bench.Ack(kThree, 3);
  EXPECT_EQ(bench.Transfer(StoreId()), TransferStatus::kStarted);
  EXPECT_EQ(bench->transfer_target(), kThree);
}

// --- 3.10, the target ---

TEST(TransferTarget, CampaignsAtOnceWithoutAPreVote) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.Listen();
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  EXPECT_EQ(bench->role(), Role::kCandidate);
  EXPECT_EQ(bench->term(), Term(3));
  for (StoreId voter : {kTwo, kThree}) {
    const RequestVote request = bench.Last<RequestVote>(voter);
    EXPECT_FALSE(request.pre_vote);
    EXPECT_TRUE(request.transfer);
    EXPECT_EQ(request.term, Term(3));
  }
}

TEST(TransferTarget, AsksOnlyWhenItsTermAndVoteAreDurable) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.auto_persist = false;
  bench.Listen();
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  EXPECT_THAT(bench.All<RequestVote>(), IsEmpty());
  bench.Persist();
  EXPECT_THAT(bench.All<RequestVote>(), SizeIs(2));
}

TEST(TransferTarget, ItsNextCampaignIsAnOrdinaryOne) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  bench.Listen();
  bench.Campaign();
  EXPECT_TRUE(bench.Last<RequestVote>(kTwo).pre_vote);
  EXPECT_FALSE(bench.Last<RequestVote>(kTwo).transfer);
  bench.GrantAll(true);
  EXPECT_FALSE(bench.Last<RequestVote>(kTwo).transfer);
}

TEST(TransferTarget, ALateOneCountsForNothing) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.HearAppend(kThree, bench.Append(3, 2, 2, {3}, 3));
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->term(), Term(3));
  EXPECT_EQ(bench->ignored_messages(), 0u) << "it is late, not wrong";
}

TEST(TransferTarget, ARepeatedOneStartsNoSecondCampaign) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  EXPECT_EQ(bench->term(), Term(3));
}

TEST(TransferTarget, AStoreThatDoesNotVoteDoesNotCampaign) {
  Bench bench({.voters = 3, .learners = 0});
  AppendEntries append = bench.Append(2, 1, 1, {2}, 2);
  Membership others;
  others.members = {Member{kTwo, "n2", "", true, false}, Member{kThree, "n3", "", true, false}};
  append.entries[0] = MakeMembershipEntry(Index(2), Term(2), others);
  bench.HearAppend(kTwo, append);
  bench.Hear(kTwo, TimeoutNow{Term(2)});
  EXPECT_EQ(bench->role(), Role::kFollower);
}

// --- 3.10 with check-quorum: the others ---

TEST(TransferVote, IsGivenAlthoughTheLeaderIsHeard) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  EXPECT_FALSE(bench.AskVote(kThree, 3, 2, 2).granted);
  bench.Listen();
  bench.Hear(kThree, RequestVote{Term(3), false, Index(2), Term(2), 7, true});
  EXPECT_TRUE(bench.Last<RequestVoteReply>(kThree).granted);
  EXPECT_EQ(bench->term(), Term(3));
}

TEST(TransferVote, NeedsAnUpToDateLogAndAFreeVoteLikeAnyOther) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.Listen();
  bench.Hear(kThree, RequestVote{Term(3), false, Index(1), Term(1), 7, true});
  EXPECT_FALSE(bench.Last<RequestVoteReply>(kThree).granted);
  EXPECT_EQ(bench->term(), Term(3)) << "but its term is taken";
  bench.Hear(kThree, RequestVote{Term(3), false, Index(2), Term(2), 8, true});
  EXPECT_TRUE(bench.Last<RequestVoteReply>(kThree).granted);
  bench.Hear(kTwo, RequestVote{Term(3), false, Index(2), Term(2), 9, true});
  EXPECT_FALSE(bench.Last<RequestVoteReply>(kTwo).granted) << "it was given away";
}

TEST(TransferVote, ALateRequestCannotDeposeALaterLeader) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(3, 1, 1, {3}, 2));
  bench.Listen();
  bench.Hear(kThree, RequestVote{Term(3), false, Index(5), Term(2), 7, true});
  EXPECT_FALSE(bench.Last<RequestVoteReply>(kThree).granted);
  EXPECT_EQ(bench->leader(), kTwo);
}

// --- The disk ---

TEST(StalledDisk, IsLeftToSomebodyElseAfterHalfASecondAndNotBefore) {
  Bench bench = LeaderOfThree();
  bench.auto_persist = false;
  bench.Propose({1});
  for (int passed = 0; passed < 500; passed += 50) {
    EXPECT_EQ(bench->transfer_target(), StoreId()) << passed;
    bench.Pass(50);
    bench.Ack(kTwo, 3);
    bench.Ack(kThree, 3);
    bench.Tick();
  }
  EXPECT_EQ(bench->transfer_target(), kTwo);
}

TEST(StalledDisk, ASlowDiskThatGoesOnIsNotStalled) {
  Bench bench = LeaderOfThree();
  bench.auto_persist = false;
  for (int i = 0; i < 40; ++i) {
    bench.Propose({1});
    bench.Pass(50);
    const uint64_t last = bench->last_index().value();
    bench.Ack(kTwo, last);
    bench.Ack(kThree, last);
    bench.Tick();
    if (i > 5) bench.Persist(1);  // three tenths of a second behind, and never done
    ASSERT_EQ(bench->transfer_target(), StoreId()) << i;
  }
}

TEST(StalledDisk, AtMostOnceInHalfAMinute) {
  Bench bench = LeaderOfThree();
  bench.auto_persist = false;
  bench.Propose({1});
  int begun = 0;
  bool before = false;
  for (int passed = 0; passed < 31000; passed += 50) {
    bench.Pass(50);
    bench.Ack(kTwo, 3);
    bench.Ack(kThree, 3);
    bench.Tick();
    const bool now = static_cast<bool>(bench->transfer_target());
    if (now && !before) ++begun;
    if (begun == 1 && !now && passed < 30000) {
      ASSERT_EQ(bench->transfer_target(), StoreId()) << "once";
    }
    before = now;
  }
  EXPECT_EQ(bench->role(), Role::kLeader) << "nobody took over, and it has led on";
  EXPECT_EQ(begun, 2);
}

TEST(StalledDisk, ALeaderThatEveryMajorityNeedsKeepsOn) {
  Bench bench = LeaderOfThree();
  bench.auto_persist = false;
  bench.Propose({1});
  for (int passed = 0; passed < 2000; passed += 50) {
    bench.Pass(50);
    bench.Ack(kTwo, 3);  // 3 is gone
    bench.Tick();
    ASSERT_EQ(bench->transfer_target(), StoreId());
  }
}

// --- Refusals ---

TEST(TransferErrors, EachSaysWhy) {
  Bench follower;
  EXPECT_EQ(follower.Transfer(kTwo), TransferStatus::kNotLeader);
  BenchSetup setup;
  setup.learners = 1;
  Bench bench = LeaderOfThree(setup);
  EXPECT_EQ(bench.Transfer(kSelf), TransferStatus::kAlreadyLeads);
  EXPECT_EQ(bench.Transfer(kFour), TransferStatus::kNotVoter);
  EXPECT_EQ(bench.Transfer(StoreId(99)), TransferStatus::kNotVoter);
  bench.Pass(140);
  bench.Ack(kTwo, 2);
  bench.Pass(20);
  bench.Tick();
  EXPECT_EQ(bench.Transfer(kThree), TransferStatus::kSilent);
  EXPECT_EQ(bench.Transfer(kTwo), TransferStatus::kStarted);
  EXPECT_EQ(bench.Transfer(kTwo), TransferStatus::kInProgress);
  Bench alone = LeaderOfThree({.voters = 1});
  EXPECT_EQ(alone.Transfer(StoreId()), TransferStatus::kSilent) << "there is nobody";
}

TEST(TransferErrors, AVoterOfTheOldHalfAloneIsNoTarget) {
  Bench bench = LeaderOfThree();
  bench.Change({{MemberStep::Kind::kRemove, kThree, "", ""}});
  ASSERT_TRUE(bench->membership().joint);
  EXPECT_EQ(bench.Transfer(kThree), TransferStatus::kNotVoter);
  EXPECT_EQ(bench.Transfer(kTwo), TransferStatus::kStarted);
}

TEST(MalformedTransfers, AreDroppedAndCounted) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 2));
  bench.Hear(kThree, TimeoutNow{Term(2)});  // does not lead
  bench.Hear(kTwo, TimeoutNow{Term(9)});
  bench.Hear(kTwo, TimeoutNow{Term(0)});
  bench.Hear(kTwo, RequestVote{Term(3), true, Index(2), Term(2), 7, true});
  EXPECT_EQ(bench->ignored_messages(), 4u);
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->term(), Term(2));
}

}  // namespace
}  // namespace quorate::raft::testing
