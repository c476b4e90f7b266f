// What we promise beyond Figure 2: leases of attention (PreVote, check-quorum), what waits for the
// disk, what is never believed, what stays bounded. Many a test is named after the system that had
// the bug.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// --- PreVote and check-quorum ---

TEST(PreVote, ChangesNothingAtTheReceiver) {
  Bench bench;
  bench.OutlastLeases();
  const Instant deadline = bench->NextDeadline();
  const auto reply = bench.AskVote(kTwo, 2, 1, 1, true);
  EXPECT_TRUE(reply.granted);
  EXPECT_EQ(reply.term, Term(2)) << "the term that was asked for";
  EXPECT_EQ(reply.call_id, 77u);
  EXPECT_EQ(bench->term(), Term(1));
  EXPECT_EQ(bench->NextDeadline(), deadline);
  EXPECT_THAT(bench.persists, IsEmpty());
  EXPECT_TRUE(bench.AskVote(kThree, 2, 1, 1, true).granted) << "to everybody who might win";
}

TEST(PreVote, IsRefusedToAWorseLog) {
  Bench bench({.terms = {1, 2}});
  bench.OutlastLeases();
  EXPECT_FALSE(bench.AskVote(kTwo, 9, 1, 1, true).granted);
}

TEST(PreVote, ARefusalWithAHigherTermIsTaken) {
  // canonical/raft #280: otherwise the node with the better log and the lower term asks for ever.
  Bench bench;
  bench.Campaign();
  bench.Hear(kTwo, RequestVoteReply{Term(9), true, false, 0});
  EXPECT_EQ(bench->term(), Term(9));
  EXPECT_EQ(bench->role(), Role::kFollower);
  bench.Campaign();
  EXPECT_EQ(bench.Last<RequestVote>(kTwo).term, Term(10));
}

TEST(PreVote, AGrantOfAnotherRoundCountsForNothing) {
  Bench bench;
  bench.Campaign();
  bench.Hear(kTwo, RequestVoteReply{Term(9), true, true, 0});
  EXPECT_EQ(bench->role(), Role::kPreCandidate);
  EXPECT_EQ(bench->term(), Term(1)) << "the term of a grant is nobody's yet";
}

TEST(PreVote, APreVoteIsNotAVote) {
  Bench bench;
  bench.Campaign();
  bench.GrantAll(true);
  ASSERT_EQ(bench->role(), Role::kCandidate);
  bench.Hear(kTwo, RequestVoteReply{Term(2), true, true, 0});
  EXPECT_EQ(bench->role(), Role::kCandidate);
}

// --- What was promised before the start ---

BenchSetup Promised(int milliseconds_before) {
  BenchSetup setup;
  setup.options.promised_before_start = milliseconds(milliseconds_before);
  return setup;
}

TEST(PromiseOfAnEarlierProcess, IsKeptFromTheStart) {
  for (bool pre_vote : {false, true}) {
    Bench bench(Promised(1000));
    bench.Pass(999);
    const auto refused = bench.AskVote(kTwo, 9, 9, 8, pre_vote);
    EXPECT_FALSE(refused.granted);
    EXPECT_EQ(bench->term(), Term(1)) << "the term is not taken either";
    bench.Pass(1);
    EXPECT_TRUE(bench.AskVote(kTwo, 9, 9, 8, pre_vote).granted);
  }
}

TEST(PromiseOfAnEarlierProcess, KeepsItFromCampaigning) {
  Bench bench(Promised(1000));
  const Instant deadline = bench->NextDeadline();
  EXPECT_GE(deadline, bench.now + milliseconds(1000));
  EXPECT_LE(deadline, bench.now + milliseconds(1150)) << "150 to 300 ms, drawn, end 850 ms later";
  bench.HearAppend(kTwo, bench.Append(1, 1, 1, {}));
  EXPECT_GE(bench->NextDeadline(), bench.now + milliseconds(1000)) << "nor does a leader end it";
  bench.Pass(900);
  bench.HearAppend(kTwo, bench.Append(1, 1, 1, {}));
  EXPECT_LE(bench->NextDeadline(), bench.now + milliseconds(300)) << "from now on its own";
}

TEST(PromiseOfAnEarlierProcess, IsNoLongerThanItsOwnOrIsReplacedByIt) {
  Bench bench(Promised(20));
  bench.Pass(149);
  EXPECT_FALSE(bench.AskVote(kTwo, 2, 1, 1).granted) << "its own minimum is 150 ms";
  bench.Pass(1);
  EXPECT_TRUE(bench.AskVote(kTwo, 2, 1, 1).granted);
}

TEST(PromiseOfAnEarlierProcess, DoesNotStandInTheWayOfATransfer) {
  // The leader that it was made to has given its lease up before it asked for this.
  Bench bench(Promised(1000));
  bench.Hear(kTwo, RequestVote{Term(2), false, Index(1), Term(1), 77, true});
  EXPECT_TRUE(bench.Last<RequestVoteReply>(kTwo).granted);
  Bench target(Promised(1000));
  target.HearAppend(kTwo, target.Append(1, 1, 1, {}));
  target.Hear(kTwo, TimeoutNow{Term(1)});
  EXPECT_EQ(target->role(), Role::kCandidate);
}

TEST(PromiseOfAnEarlierProcess, StatesItsOwnFromTheStart) {
  Bench bench(Promised(1000));
  const auto reply = bench.HearAppend(kTwo, bench.Append(1, 1, 1, {}));
  EXPECT_EQ(reply.election_timeout_min, milliseconds(150));
}

TEST(CheckQuorum, WhoHearsALeaderRefusesAndDoesNotTakeTheTerm) {
  // hashicorp/raft #524: a removed node came back with a higher term, and elections had no end.
  for (bool pre_vote : {false, true}) {
    Bench bench;
    bench.OutlastLeases();
    bench.HearAppend(kTwo, bench.Append(1, 1, 1, {}));
    bench.Pass(149);
    const auto refused = bench.AskVote(kThree, 9, 9, 8, pre_vote);
    EXPECT_FALSE(refused.granted);
    EXPECT_EQ(refused.term, Term(1));
    EXPECT_EQ(bench->term(), Term(1));
    bench.Pass(1);
    EXPECT_TRUE(bench.AskVote(kThree, 9, 9, 8, pre_vote).granted);
  }
}

TEST(CheckQuorum, ALeaderThatHearsAMajorityRefusesToo) {
  Bench bench;
  bench.Elect();
  bench.Pass(100);
  bench.Ack(kTwo, 2);
  bench.Pass(149);
  EXPECT_FALSE(bench.AskVote(kThree, 9, 9, 8).granted);
  EXPECT_EQ(bench->role(), Role::kLeader);
  bench.Pass(1);
  EXPECT_TRUE(bench.AskVote(kThree, 9, 9, 8).granted);
}

TEST(CheckQuorum, ALeaderWithoutAMajorityStepsDownAfterOneMinimumTimeout) {
  Bench bench({.voters = 5});
  bench.Elect();
  bench.Pass(100);
  bench.Ack(kTwo, 2);
  bench.Pass(49);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kLeader);
  bench.Pass(1);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower) << "two of five are no majority";
  EXPECT_EQ(bench->term(), Term(2));
  EXPECT_EQ(bench->leader(), StoreId());
}

TEST(CheckQuorum, CountsFromWhenTheAnsweredMessageWasSent) {
  Bench bench;
  bench.Elect();
  AppendEntriesReply late;
  late.term = bench->term();
  late.success = true;
  late.match = Index(2);
  late.last_index = Index(2);
  late.echoed_sent_at = bench.now;
  bench.Pass(140);
  bench.Hear(kTwo, late);
  EXPECT_TRUE(bench->peers()[0].active);
  bench.Pass(10);
  bench.Tick();
  EXPECT_EQ(bench->role(), Role::kFollower) << "who answers late may have another leader by now";
}

TEST(CheckQuorum, NoVoteWithinOneTimeoutAfterAStart) {
  Bench bench;
  bench.Pass(149);
  EXPECT_FALSE(bench.AskVote(kTwo, 2, 1, 1).granted);
  EXPECT_EQ(bench->term(), Term(1));
  bench.Pass(1);
  EXPECT_TRUE(bench.AskVote(kTwo, 2, 1, 1).granted);
}

// --- What waits for the disk ---

TEST(Durability, AVoteLeavesWithItsTicket) {
  Bench bench;
  bench.auto_persist = false;
  bench.OutlastLeases();
  bench.Hear(kTwo, RequestVote{Term(2), false, Index(1), Term(1), 0});
  EXPECT_THAT(bench.sent, IsEmpty());
  ASSERT_THAT(bench.persists, SizeIs(1));
  EXPECT_EQ(bench.persists[0].hard_state, (HardState{Term(2), kTwo}));
  bench.Persist();
  EXPECT_TRUE(bench.Last<RequestVoteReply>(kTwo).granted);
}

TEST(Durability, ACandidateAsksWhenItsOwnVoteIsDurableAndCountsItThen) {
  Bench bench({.voters = 2});
  bench.auto_persist = false;
  bench.Campaign();
  bench.Listen();
  bench.GrantAll(true);
  EXPECT_THAT(bench.All<RequestVote>(), IsEmpty());
  bench.Hear(kTwo, RequestVoteReply{Term(2), false, true, 0});
  EXPECT_EQ(bench->role(), Role::kCandidate) << "its own vote may still be forgotten";
  bench.Persist();
  EXPECT_EQ(bench->role(), Role::kLeader);
}

TEST(Durability, ARefusalInATermThatIsNotDurableWaitsToo) {
  Bench bench({.terms = {1, 2}});
  bench.auto_persist = false;
  bench.OutlastLeases();
  bench.Hear(kTwo, RequestVote{Term(5), false, Index(1), Term(1), 0});
  EXPECT_THAT(bench.sent, IsEmpty());
  bench.Persist();
  EXPECT_EQ(bench.Last<RequestVoteReply>(kTwo).term, Term(5));
}

TEST(Durability, AnAcknowledgementLeavesWithItsTicket) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1, 1}));
  EXPECT_THAT(bench.sent, IsEmpty());
  bench.Persist();
  EXPECT_EQ(bench.Last<AppendEntriesReply>(kTwo).match, Index(3));
  // What is durable already is acknowledged at once.
  EXPECT_EQ(bench.HearAppend(kTwo, bench.Append(1, 1, 1, {1})).match, Index(2));
}

TEST(Durability, AHeartbeatIsAnsweredAtOnceWithWhatIsDurable) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1, 1}));
  EXPECT_EQ(bench.HearAppend(kTwo, bench.Append(1, 3, 1, {})).match, Index(1));
  bench.Persist();
  EXPECT_EQ(bench.HearAppend(kTwo, bench.Append(1, 3, 1, {})).match, Index(3));
}

TEST(Durability, ALeaderCountsItselfForWhatItsDiskHolds) {
  // etcd #14370: one node, and the reply went out before the flush.
  for (size_t voters : {1u, 3u}) {
    Bench bench({.voters = voters});
    bench.Elect();
    if (voters > 1) bench.Ack(kTwo, 2);
    ASSERT_EQ(bench->commit(), Index(2));
    bench.auto_persist = false;
    bench.Propose({1});
    if (voters > 1) bench.Ack(kTwo, 3);
    EXPECT_EQ(bench->commit(), Index(2));
    bench.Persist();
    EXPECT_EQ(bench->commit(), Index(3));
  }
}

TEST(Durability, NothingIsAppliedThatIsNotDurableHere) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1, 1}, 3));
  EXPECT_EQ(bench->commit(), Index(3));
  EXPECT_THAT(bench.committed, IsEmpty());
  bench.Persist();
  bench.Drain();
  EXPECT_THAT(bench.committed, SizeIs(2));
}

TEST(Durability, ALateTicketMarksNothingElseAsDurable) {
  // A bug of etcd-raft's asynchronous storage: entries 2 and 3 of term 1 are on their way to the
  // disk when entries 2 and 3 of term 2 take their place.
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1, 1}));
  bench.Hear(kThree, bench.Append(2, 1, 1, {2, 2}, 3));
  ASSERT_THAT(bench.tickets, SizeIs(2));
  bench.Persist(1);
  bench.Drain();
  EXPECT_EQ(bench->persisted(), Index(1));
  EXPECT_THAT(bench.committed, IsEmpty());
  bench.Persist(1);
  bench.Drain();
  EXPECT_EQ(bench->persisted(), Index(3));
  EXPECT_THAT(bench.committed, SizeIs(2));
}

TEST(Durability, ATicketStandsForAllBeforeItAndMayBeRepeated) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1}));
  bench.Hear(kTwo, bench.Append(1, 2, 1, {1}));
  ASSERT_THAT(bench.tickets, SizeIs(2));
  bench->OnPersisted(bench.tickets[1]);
  EXPECT_EQ(bench->persisted(), Index(3));
  bench->OnPersisted(bench.tickets[0]);
  EXPECT_EQ(bench->persisted(), Index(3));
}

// --- What a follower believes ---

TEST(Follower, TakesOfTheLeadersCommitOnlyWhatTheRequestCovers) {
  // copycat #265, NuRaft #57: entries 2 and 3 here are not the leader's.
  Bench bench({.terms = {1, 2, 2}});
  bench.HearAppend(kTwo, bench.Append(3, 1, 1, {}, 3));
  EXPECT_EQ(bench->commit(), Index(1));
}

TEST(Follower, AcknowledgesWhatTheRequestCoversNotItsLogsEnd) {
  // Redpanda d0e45c0.
  Bench bench({.terms = {1, 2, 2, 2}});
  EXPECT_EQ(bench.HearAppend(kTwo, bench.Append(3, 1, 1, {2})).match, Index(2));
  EXPECT_EQ(bench.HearAppend(kTwo, bench.Append(3, 1, 1, {})).match, Index(1));
}

TEST(Follower, AcceptsAPreviousEntryThatHasLeftItsWindow) {
  // openraft #511, etcd-raft 76f1249, willemt/raft PR 118: it is committed, so it is the leader's
  // too.
  Bench bench({.terms = {1, 1, 1, 1, 1}, .applied = 4, .window_entries = 2});
  const auto reply = bench.HearAppend(kTwo, bench.Append(2, 1, 1, {1, 1, 1, 1, 2}, 4));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(reply.match, Index(6));
  EXPECT_EQ(bench->last_index(), Index(6));
  ASSERT_THAT(bench.persists, SizeIs(1));
  EXPECT_FALSE(bench.persists[0].cut_from);
  EXPECT_THAT(bench.persists[0].entries, SizeIs(1));
}

TEST(Follower, NamesNoHintAtOrBelowItsCommit) {
  Bench bench({.terms = {1, 2, 2, 2, 2}, .applied = 3});
  const auto reply = bench.HearAppend(kTwo, bench.Append(4, 5, 3, {}));
  EXPECT_FALSE(reply.success);
  EXPECT_EQ(reply.hint_index, Index(4)) << "entries up to 3 are the leader's as well";
}

TEST(Follower, LooksUpATermThatItsDiskAloneKnows) {
  // After a crash the state machine may lag far behind the log: entries 2 to 7 are neither
  // committed as far as it knows nor in the window. A leader with a shorter log names entry 4.
  Bench bench({.terms = {1, 2, 2, 2, 3, 3, 3, 3}, .window_entries = 1});
  bench.Listen();
  bench.Hear(kTwo, bench.Append(4, 4, 2, {4}, 4));
  EXPECT_THAT(bench.All<AppendEntriesReply>(), IsEmpty());
  ASSERT_THAT(bench.reads, SizeIs(1));
  EXPECT_EQ(bench.reads[0].peer, kSelf);
  EXPECT_EQ(bench.reads[0].from, Index(4));
  bench.AnswerRead();
  const auto reply = bench.HearAppend(kTwo, bench.Append(4, 4, 2, {4}, 4));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(reply.match, Index(5));
  EXPECT_EQ(bench.persists.back().cut_from, Index(5)) << "a cut before the window";
  EXPECT_EQ(bench->last_index(), Index(5));
  EXPECT_EQ(bench->commit(), Index(4));
  while (!bench.reads.empty()) bench.AnswerRead();
  EXPECT_EQ(bench->applied(), Index(4));
}

TEST(Follower, LooksUpTheTermsOfWhatItIsSentAgain) {
  // The previous entry is known, and what lies behind it here is on the disk alone: it is neither
  // kept nor cut before its terms are read (openraft #511).
  Bench bench({.terms = {1, 2, 2, 2, 3, 3, 3, 3}, .window_entries = 1});
  bench.Hear(kTwo, bench.Append(4, 1, 1, {2, 2, 4}));
  EXPECT_THAT(bench.All<AppendEntriesReply>(), IsEmpty());
  ASSERT_THAT(bench.reads, SizeIs(1));
  EXPECT_EQ(bench.reads[0].from, Index(2));
  EXPECT_EQ(bench->last_index(), Index(8)) << "nothing is cut";
  while (!bench.reads.empty()) bench.AnswerRead();
  const auto reply = bench.HearAppend(kTwo, bench.Append(4, 1, 1, {2, 2, 4}));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(reply.match, Index(4));
  EXPECT_EQ(bench.persists.back().cut_from, Index(4)) << "the first that differs";
}

TEST(Follower, LooksUpNoTermThatACommitHasMadeKnown) {
  Bench bench({.terms = {1, 2, 2, 2, 3, 3, 3, 3}, .window_entries = 1});
  bench->Step(Message{kTwo, kSelf, bench.Append(4, 4, 2, {})}, bench.now);  // wants that of entry 4
  bench.Hear(kTwo, bench.Append(4, 8, 3, {}, 8));  // in the same step: all of it is the leader's
  EXPECT_EQ(bench->commit(), Index(8));
  while (!bench.reads.empty()) bench.AnswerRead();  // to apply, from the first one on
  EXPECT_EQ(bench->applied(), Index(8));
}

TEST(Follower, ATermReadBeforeACutIsNotBelievedAfterIt) {
  Bench bench({.terms = {1, 2, 2, 2, 3, 3, 3, 3}, .window_entries = 1});
  bench.Hear(kTwo, bench.Append(4, 4, 2, {4}));  // asks for the terms from 4 on
  ASSERT_THAT(bench.reads, SizeIs(1));
  bench.Hear(kTwo, bench.Append(4, 1, 1, {}));
  bench.Hear(kTwo, bench.Append(4, 8, 4, {}));  // a conflict in the window: nothing is cut yet
  EXPECT_EQ(bench->last_index(), Index(8));
  bench.AnswerRead();
  EXPECT_TRUE(bench.HearAppend(kTwo, bench.Append(4, 5, 3, {})).success);
  EXPECT_FALSE(bench.HearAppend(kTwo, bench.Append(4, 5, 4, {})).success);
}

TEST(Follower, AnswersEveryVoteRequestAndAcceptsSendersItDoesNotKnow) {
  Bench bench;
  bench.OutlastLeases();
  const StoreId stranger(99);
  EXPECT_TRUE(bench.AskVote(stranger, 2, 5, 1).granted) << "its own membership may be the old one";
  EXPECT_TRUE(bench.HearAppend(stranger, bench.Append(2, 1, 1, {2}, 1)).success);
  EXPECT_EQ(bench->leader(), stranger);
}

TEST(Follower, CampaignsOnlyAsAVoterButAlwaysVotes) {
  Bench learner({.voters = 0, .learners = 3});
  learner.Campaign();
  EXPECT_EQ(learner->role(), Role::kFollower);
  EXPECT_THAT(learner.sent, IsEmpty());
  EXPECT_TRUE(learner.AskVote(kTwo, 2, 1, 1).granted);

  Bench unborn({.terms = {}, .applied = 0});
  unborn.Campaign();
  EXPECT_EQ(unborn->role(), Role::kFollower);
  EXPECT_TRUE(unborn.AskVote(kTwo, 2, 1, 1).granted);
}

TEST(Follower, AnUncommittedMembershipIsInForceAndIsLeftWithItsEntry) {
  // NuRaft #67: a new leader ignored it.
  Bench bench;
  Membership alone = bench->membership();
  alone.members.resize(1);
  auto append = bench.Append(2, 1, 1, {}, 1);
  append.entries = {MakeMembershipEntry(Index(2), Term(2), alone)};
  bench.Hear(kTwo, append);
  EXPECT_EQ(bench->membership(), alone);
  EXPECT_EQ(bench->membership_index(), Index(2));
  bench.HearAppend(kThree, bench.Append(3, 1, 1, {3}, 1));
  EXPECT_EQ(bench->membership().members.size(), 3u);
  EXPECT_EQ(bench->membership_index(), Index(1));

  append.term = Term(4);
  append.prev_index = Index(2);
  append.prev_term = Term(3);
  append.entries = {MakeMembershipEntry(Index(3), Term(4), alone)};
  bench.Hear(kTwo, append);
  bench.Campaign();
  EXPECT_EQ(bench->role(), Role::kLeader) << "the only voter needs nobody";
  EXPECT_EQ(bench->commit(), Index(4));
}

// --- Errors: what no correct peer says ---

void ExpectIgnored(Bench* bench, StoreId from, MessageBody body) {
  const uint64_t before = bench->core().ignored_messages();
  const Term term = bench->core().term();
  bench->Listen();
  bench->Hear(from, std::move(body));
  EXPECT_EQ(bench->core().ignored_messages(), before + 1);
  EXPECT_EQ(bench->core().term(), term) << "not even its term is believed";
  EXPECT_THAT(bench->sent, IsEmpty());
}

TEST(MalformedMessages, AppendsAreDroppedAndCounted) {
  Bench bench({.terms = {1, 2}});
  const auto good = [&] { return bench.Append(5, 2, 2, {3, 4}); };
  auto bad = good();
  bad.entries[1] = MakeEntry(Index(5), Term(4));
  ExpectIgnored(&bench, kTwo, bad);  // a gap
  bad = good();
  bad.entries[0] = MakeEntry(Index(2), Term(3));
  ExpectIgnored(&bench, kTwo, bad);  // does not follow the previous entry
  bad = good();
  bad.entries[1] = MakeEntry(Index(4), Term(2));
  ExpectIgnored(&bench, kTwo, bad);  // terms descend
  bad = good();
  bad.entries[0] = MakeEntry(Index(3), Term(1));
  ExpectIgnored(&bench, kTwo, bad);  // below the term of the previous entry
  bad = good();
  bad.entries[1] = MakeEntry(Index(4), Term(6));
  ExpectIgnored(&bench, kTwo, bad);  // above the leader's own term
  bad = good();
  bad.entries[1] = nullptr;
  ExpectIgnored(&bench, kTwo, bad);
  bad = good();
  bad.entries[1] = MakeEntry(Index(4), Term(4), EntryType::kMembership, "no membership");
  ExpectIgnored(&bench, kTwo, bad);
  bad = good();
  bad.entries[1] = MakeEntry(Index(4), Term(4), static_cast<EntryType>(9));
  ExpectIgnored(&bench, kTwo, bad);
  ExpectIgnored(&bench, kTwo, bench.Append(5, 0, 2, {}));
  ExpectIgnored(&bench, kTwo, bench.Append(5, 2, 0, {}));
  ExpectIgnored(&bench, kTwo, bench.Append(5, 2, 6, {}));
  ExpectIgnored(&bench, kTwo, bench.Append(0, 0, 0, {}));
  ExpectIgnored(&bench, kTwo, bench.Append(~uint64_t{0}, 2, 2, {}));
  ExpectIgnored(&bench, kTwo, bench.Append(5, ~uint64_t{0}, 2, {}));
  EXPECT_TRUE(bench.HearAppend(kTwo, good()).success);
}

TEST(MalformedMessages, VotesAreDroppedAndCounted) {
  Bench bench;
  bench.OutlastLeases();
  ExpectIgnored(&bench, kTwo, RequestVote{Term(0), false, Index(0), Term(0), 0});
  ExpectIgnored(&bench, kTwo, RequestVote{Term(5), false, Index(9), Term(5), 0});
  ExpectIgnored(&bench, kTwo, RequestVote{Term(5), false, Index(0), Term(4), 0});
  ExpectIgnored(&bench, kTwo, RequestVote{Term(5), false, Index(4), Term(0), 0});
  ExpectIgnored(&bench, kTwo, RequestVote{Term(~uint64_t{0}), false, Index(4), Term(4), 0});
  ExpectIgnored(&bench, kTwo, RequestVoteReply{Term(~uint64_t{0}), false, false, 0});
}

TEST(MalformedMessages, AnAcknowledgementOfWhatTheLeaderDoesNotHaveIsDropped) {
  Bench bench;
  bench.Elect();
  AppendEntriesReply reply;
  reply.term = bench->term();
  reply.success = true;
  reply.match = Index(3);
  ExpectIgnored(&bench, kTwo, reply);
  reply.term = Term(~uint64_t{0});
  ExpectIgnored(&bench, kTwo, reply);
}

TEST(MalformedMessages, ForAnotherStoreOrFromNobodyOrFromItself) {
  Bench bench;
  const auto step = [&](StoreId from, StoreId to) {
    bench->Step(Message{from, to, bench.Append(5, 1, 1, {})}, bench.now);
  };
  step(kTwo, kThree);
  step(StoreId(), kSelf);
  step(kSelf, kSelf);
  EXPECT_EQ(bench->ignored_messages(), 3u);
  EXPECT_EQ(bench->term(), Term(1));
}

TEST(MalformedMessages, ACommitIndexBeyondEverythingIsTakenForWhatIsVerified) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(1, 1, 1, {1}, ~uint64_t{0}));
  EXPECT_EQ(bench->commit(), Index(2));
}

// --- Errors: what only a bug can do ends the process ---

TEST(SafetyDeathTest, TwoLeadersInOneTerm) {
  Bench bench;
  bench.HearAppend(kTwo, bench.Append(5, 1, 1, {}));
  EXPECT_DEATH(bench.HearAppend(kThree, bench.Append(5, 1, 1, {})), "two leaders in one term");
  Bench leader;
  leader.Elect();
  EXPECT_DEATH(leader.HearAppend(kTwo, leader.Append(2, 1, 1, {})), "two leaders in one term");
}

TEST(SafetyDeathTest, ALeaderThatWouldCutWhatIsCommitted) {
  Bench bench({.terms = {1, 2, 2}, .applied = 3});
  EXPECT_DEATH(bench.HearAppend(kTwo, bench.Append(3, 1, 1, {3})), "committed");
  EXPECT_DEATH(bench.HearAppend(kTwo, bench.Append(3, 2, 3, {})), "committed");
}

TEST(SafetyDeathTest, ADriverThatInventsThings) {
  Bench bench;
  EXPECT_DEATH(bench->OnPersisted(Ticket(1)), "never given");
  EXPECT_DEATH(bench->OnApplied(Index(2)), "not handed out");
}

TEST(SafetyDeathTest, RecoveredStatesThatCannotBe) {
  EXPECT_DEATH(Bench({.terms = {1, 2}, .term = 1}), "later term than the hard state");
  EXPECT_DEATH(Bench({.terms = {1, 2}, .applied = 3}), "below what is applied");
  EXPECT_DEATH(Bench({.terms = {1, 3, 2}, .term = 3}), "CHECK failed");
}

}  // namespace
}  // namespace quorate::raft::testing
