// The rules of Figure 2 of the Raft paper (extended version) and of 5.4.2, one test for each, named
// after it. What we added to the rules, and the bugs of others: core_safety_test.cc,
// core_leader_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

// --- AppendEntries RPC, receiver implementation ---

TEST(AppendEntriesRule1, ReplyFalseIfTermIsBelowCurrentTerm) {
  Bench bench({.terms = {1, 1}, .term = 5});
  const auto reply = bench.HearAppend(kTwo, bench.Append(4, 2, 1, {4}));
  EXPECT_FALSE(reply.success);
  EXPECT_EQ(reply.term, Term(5)) << "so that the old leader learns of it";
  EXPECT_EQ(bench->last_index(), Index(2));
  EXPECT_EQ(bench->leader(), StoreId());
}

TEST(AppendEntriesRule2, ReplyFalseIfTheLogHasNoEntryAtPrevIndex) {
  Bench bench({.terms = {1, 1}});
  const auto reply = bench.HearAppend(kTwo, bench.Append(2, 4, 1, {2}));
  EXPECT_FALSE(reply.success);
  EXPECT_EQ(reply.match, Index(4)) << "names the request that it refuses";
  EXPECT_EQ(reply.hint_index, Index(2));
  EXPECT_EQ(reply.hint_term, Term(1));
  EXPECT_EQ(bench->last_index(), Index(2));
}

TEST(AppendEntriesRule2, ReplyFalseIfTheEntryAtPrevIndexHasAnotherTerm) {
  Bench bench({.terms = {1, 2, 3, 3, 3}});
  const auto reply = bench.HearAppend(kTwo, bench.Append(4, 5, 2, {4}));
  EXPECT_FALSE(reply.success);
  EXPECT_EQ(reply.hint_index, Index(3)) << "the first entry of the conflicting term";
  EXPECT_EQ(reply.hint_term, Term(3));
  EXPECT_EQ(bench->last_index(), Index(5)) << "a refusal cuts nothing";
}

TEST(AppendEntriesRule3, AConflictingEntryIsDeletedWithAllThatFollow) {
  Bench bench({.terms = {1, 2, 2, 2, 2}});
  const auto reply = bench.HearAppend(kTwo, bench.Append(3, 2, 2, {3}));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(bench->last_index(), Index(3));
  ASSERT_THAT(bench.persists, SizeIs(1));
  EXPECT_EQ(bench.persists[0].cut_from, Index(3));
  EXPECT_EQ(bench.persists[0].entries.front()->term, Term(3));
}

TEST(AppendEntriesRule3, EntriesThatDoNotConflictAreKept) {
  Bench bench({.terms = {1, 2, 2, 2, 2}});
  const auto reply = bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2, 2}));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(reply.match, Index(3));
  EXPECT_EQ(bench->last_index(), Index(5)) << "a late request is no reason to cut";
}

TEST(AppendEntriesRule4, EntriesNotYetInTheLogAreAppended) {
  Bench bench({.terms = {1, 2}});
  const auto reply = bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2, 2, 2}));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(reply.match, Index(4));
  ASSERT_THAT(bench.persists, SizeIs(1));
  EXPECT_FALSE(bench.persists[0].cut_from);
  EXPECT_THAT(bench.persists[0].entries, SizeIs(2));
}

TEST(AppendEntriesRule5, CommitBecomesTheLowerOfLeaderCommitAndTheLastNewEntry) {
  Bench bench({.terms = {1, 2, 2, 2, 2}});
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 4));
  EXPECT_EQ(bench->commit(), Index(2)) << "what lies after the request is not verified";
  bench.HearAppend(kTwo, bench.Append(2, 2, 2, {2, 2}, 3));
  EXPECT_EQ(bench->commit(), Index(3));
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {2}, 1));
  EXPECT_EQ(bench->commit(), Index(3)) << "never back";
}

// --- RequestVote RPC, receiver implementation ---

TEST(RequestVoteRule1, ReplyFalseIfTermIsBelowCurrentTerm) {
  Bench bench({.term = 5});
  bench.OutlastLeases();
  const auto reply = bench.AskVote(kTwo, 4, 9, 3);
  EXPECT_FALSE(reply.granted);
  EXPECT_EQ(reply.term, Term(5));
}

TEST(RequestVoteRule2, GrantsToOneCandidateOfATermOnly) {
  Bench bench;
  bench.OutlastLeases();
  EXPECT_TRUE(bench.AskVote(kTwo, 2, 1, 1).granted);
  EXPECT_FALSE(bench.AskVote(kThree, 2, 9, 1).granted);
  EXPECT_TRUE(bench.AskVote(kTwo, 2, 1, 1).granted) << "a repeated request is answered alike";
  EXPECT_TRUE(bench.AskVote(kThree, 3, 1, 1).granted) << "in another term it is free again";
}

TEST(RequestVoteRule2, AVoteIsRememberedOverARestart) {
  Bench bench({.term = 2, .vote = 2});
  bench.OutlastLeases();
  EXPECT_FALSE(bench.AskVote(kThree, 2, 9, 1).granted);
  EXPECT_TRUE(bench.AskVote(kTwo, 2, 1, 1).granted);
}

TEST(RequestVoteRule2, GrantsOnlyToALogThatIsAtLeastAsUpToDate) {
  // 5.4.1: the later last term wins, then the longer log.
  const auto asked = [](uint64_t index, uint64_t term) {
    Bench bench({.terms = {1, 2, 3}});
    bench.OutlastLeases();
    return bench.AskVote(kTwo, 9, index, term).granted;
  };
  EXPECT_TRUE(asked(3, 3));
  EXPECT_TRUE(asked(4, 3));
  EXPECT_TRUE(asked(1, 4)) << "shorter, of a later term";
  EXPECT_FALSE(asked(2, 3));
  EXPECT_FALSE(asked(9, 2)) << "longer, of an earlier term";
}

// --- Rules for all servers ---

TEST(AllServers, WhatIsCommittedIsAppliedInOrder) {
  Bench bench({.terms = {1, 2, 2, 2}});
  bench.HearAppend(kTwo, bench.Append(2, 4, 2, {}, 3));
  ASSERT_THAT(bench.committed, SizeIs(2));
  EXPECT_EQ(bench.committed[0]->index, Index(2));
  EXPECT_EQ(bench.committed[1]->index, Index(3));
  EXPECT_EQ(bench->applied(), Index(3));
}

TEST(AllServers, AHigherTermInARequestMakesAFollowerOfIt) {
  Bench bench;
  bench.Elect();
  ASSERT_EQ(bench->role(), Role::kLeader);
  bench.HearAppend(kTwo, bench.Append(9, 1, 1, {}));
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->term(), Term(9));
}

TEST(AllServers, AHigherTermInAnAnswerMakesAFollowerOfIt) {
  Bench bench;
  bench.Elect();
  AppendEntriesReply reply;
  reply.term = Term(9);
  bench.Hear(kTwo, reply);
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->term(), Term(9));

  Bench candidate;
  candidate.Campaign();
  candidate.GrantAll(true);
  ASSERT_EQ(candidate->role(), Role::kCandidate);
  candidate.Hear(kTwo, RequestVoteReply{Term(9), false, false, 0});
  EXPECT_EQ(candidate->role(), Role::kFollower);
  EXPECT_EQ(candidate->term(), Term(9));
}

// --- Followers (5.2) ---

TEST(Followers, CampaignWhenNoLeaderIsHeardForAnElectionTimeout) {
  Bench bench;
  const Instant deadline = bench->NextDeadline();
  EXPECT_GE(deadline, bench.now + std::chrono::milliseconds(150));
  EXPECT_LE(deadline, bench.now + std::chrono::milliseconds(300));
  bench.now = deadline - std::chrono::microseconds(1);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower);
  bench.now = deadline;
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kPreCandidate);
}

TEST(Followers, AnAppendOfTheLeaderResetsTheElectionTimer) {
  Bench bench;
  bench.Pass(149);
  bench.HearAppend(kTwo, bench.Append(1, 1, 1, {}));
  EXPECT_GE(bench->NextDeadline(), bench.now + std::chrono::milliseconds(150));
}

TEST(Followers, AGrantedVoteResetsTheElectionTimerAndARefusedOneDoesNot) {
  Bench bench({.terms = {1, 2}});
  bench.OutlastLeases();
  const Instant before = bench->NextDeadline();
  EXPECT_FALSE(bench.AskVote(kTwo, 3, 1, 1).granted);
  EXPECT_EQ(bench->NextDeadline(), before);
  EXPECT_TRUE(bench.AskVote(kThree, 4, 2, 2).granted);
  EXPECT_GE(bench->NextDeadline(), bench.now + std::chrono::milliseconds(150));
}

// --- Candidates (5.2) ---

TEST(Candidates, StartAnElectionWithANewTermAndAVoteForThemselves) {
  Bench bench({.voters = 5});
  bench.Campaign();
  bench.Listen();
  bench.GrantAll(true);
  EXPECT_EQ(bench->role(), Role::kCandidate);
  EXPECT_EQ(bench->term(), Term(2));
  ASSERT_FALSE(bench.persists.empty());
  EXPECT_EQ(bench.persists.back().hard_state, (HardState{Term(2), kSelf}));
  const auto asked = bench.All<RequestVote>();
  ASSERT_THAT(asked, SizeIs(4)) << "every other voter";
  EXPECT_EQ(asked[0].term, Term(2));
  EXPECT_EQ(asked[0].last_index, Index(1));
  EXPECT_EQ(asked[0].last_term, Term(1));
}

TEST(Candidates, BecomeLeaderWithTheVotesOfAMajority) {
  Bench bench({.voters = 5});
  bench.Campaign();
  bench.GrantAll(true);
  bench.Hear(kTwo, RequestVoteReply{Term(2), false, true, 0});
  bench.Hear(kTwo, RequestVoteReply{Term(2), false, true, 0});
  EXPECT_EQ(bench->role(), Role::kCandidate) << "one voter, however often it says so";
  bench.Hear(kThree, RequestVoteReply{Term(2), false, false, 0});
  EXPECT_EQ(bench->role(), Role::kCandidate);
  bench.Hear(kFour, RequestVoteReply{Term(2), false, true, 0});
  EXPECT_EQ(bench->role(), Role::kLeader);
}

TEST(Candidates, FollowALeaderOfTheirTerm) {
  Bench bench;
  bench.Campaign();
  bench.GrantAll(true);
  ASSERT_EQ(bench->role(), Role::kCandidate);
  bench.HearAppend(kTwo, bench.Append(2, 1, 1, {}));
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->leader(), kTwo);
  EXPECT_EQ(bench->term(), Term(2));
}

TEST(Candidates, StartANewElectionWhenTheTimeoutPasses) {
  Bench bench;
  bench.Campaign();
  bench.GrantAll(true);
  ASSERT_EQ(bench->term(), Term(2));
  bench.Listen();
  bench.Campaign();
  EXPECT_EQ(bench.Last<RequestVote>().term, Term(3));
  EXPECT_TRUE(bench.Last<RequestVote>().pre_vote);
}

// --- Leaders (5.3, 5.4) ---

TEST(Leaders, SayTheyLeadAtOnceAndThenAtEachHeartbeatInterval) {
  Bench bench;
  bench.Campaign();
  bench.GrantAll(true);
  bench.Listen();
  bench.GrantAll(false);
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1));
  EXPECT_THAT(bench.All<AppendEntries>(kThree), SizeIs(1));
  bench.Listen();
  bench.Pass(49);
  bench.Tick();
  EXPECT_THAT(bench.All<AppendEntries>(), IsEmpty());
  bench.Pass(1);
  bench.Tick();
  EXPECT_THAT(bench.All<AppendEntries>(), SizeIs(2));
}

TEST(Leaders, AppendProposalsToTheirLogAndReplicateThem) {
  Bench bench;
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Listen();
  EXPECT_EQ(bench.Propose({10, 20}), std::make_pair(size_t{2}, ProposeStatus::kAccepted));
  EXPECT_EQ(bench->last_index(), Index(4));
  const auto append = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(append.prev_index, Index(2));
  EXPECT_EQ(append.prev_term, Term(2));
  ASSERT_THAT(append.entries, SizeIs(2));
  EXPECT_EQ(append.entries[1]->payload.size(), 20u);
  EXPECT_EQ(bench->commit(), Index(2)) << "nobody but the leader has them";
}

TEST(Leaders, SendWhatFollowsNextIndexAndRaiseItOnSuccess) {
  Bench bench;
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Propose({1});
  bench.Propose({1});
  const auto appends = bench.All<AppendEntries>(kTwo);
  ASSERT_GE(appends.size(), 2u);
  EXPECT_EQ(appends[appends.size() - 2].prev_index + 1, appends.back().prev_index);
  bench.Ack(kTwo, 4);
  EXPECT_EQ(bench->peers()[0].match, Index(4));
}

TEST(Leaders, LowerNextIndexWhenRefusedAndTryAgain) {
  Bench bench({.terms = {1, 2, 2, 2, 2}});
  bench.Elect();
  bench.Listen();
  bench.Refuse(kTwo, 5, 3, 2, 3);
  const auto append = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(append.prev_index, Index(3));
  EXPECT_THAT(append.entries, SizeIs(3));
}

TEST(Leaders, CommitWhatAMajorityHasOfTheirOwnTerm) {
  Bench bench({.voters = 5});
  bench.Elect();
  bench.Propose({1, 1});
  bench.Ack(kTwo, 4);
  EXPECT_EQ(bench->commit(), Index(1));
  bench.Ack(kThree, 3);
  EXPECT_EQ(bench->commit(), Index(3)) << "itself, one with 4 and one with 3";
  bench.Ack(kFour, 4);
  EXPECT_EQ(bench->commit(), Index(4));
}

// --- 5.4.2: committing entries from previous terms ---

TEST(CommittingEntriesFromPreviousTerms, NeverByCountingCopies) {
  Bench bench({.terms = {1, 2, 2}, .term = 3, .voters = 5});
  bench.Elect();
  ASSERT_EQ(bench->term(), Term(4));
  bench.Ack(kTwo, 3);
  bench.Ack(kThree, 3);
  bench.Ack(kFour, 3);
  EXPECT_EQ(bench->commit(), Index(1)) << "entries 2 and 3 are on four of five, and of term 2";
}

TEST(CommittingEntriesFromPreviousTerms, IndirectlyWithAnEntryOfTheCurrentTerm) {
  Bench bench({.terms = {1, 2, 2}, .term = 3, .voters = 5});
  bench.Elect();
  bench.Ack(kTwo, 4);
  EXPECT_EQ(bench->commit(), Index(1));
  bench.Ack(kThree, 4);
  EXPECT_EQ(bench->commit(), Index(4));
  EXPECT_THAT(bench.committed, SizeIs(3)) << "entries 2, 3 and the no-op";
}

}  // namespace
}  // namespace quorate::raft::testing
