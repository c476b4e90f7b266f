// The rules of snapshots and of cutting the log, one by one (Raft paper, section 7, Figure 13).
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;

Membership ThreeOf(uint64_t a, uint64_t b, uint64_t c) {
  Membership membership;
  membership.cluster = ClusterId(0xc1);
  for (uint64_t id : {a, b, c}) {
    membership.members.push_back(Member{StoreId(id), "n" + std::to_string(id), "", true, false});
  }
  return membership;
}

InstallSnapshot Install(uint64_t term, uint64_t index, uint64_t index_term, uint64_t generation) {
  InstallSnapshot install;
  install.term = Term(term);
  install.snapshot = {Index(index), Term(index_term), 1000, Index(1), ThreeOf(1, 2, 3)};
  install.generation = generation;
  install.call_id = 55;
  return install;
}

SnapshotAnswer Answer(Bench* bench, StoreId from, const InstallSnapshot& install) {
  bench->Listen();
  bench->Hear(from, install);
  const auto reply = bench->Last<InstallSnapshotReply>(from);
  EXPECT_EQ(reply.call_id, install.call_id);
  EXPECT_EQ(reply.index, install.snapshot.index);
  EXPECT_EQ(reply.index_term, install.snapshot.term);
  return reply.answer;
}

InstallSnapshotReply Reply(uint64_t term, uint64_t index, uint64_t index_term,
                           SnapshotAnswer answer) {
  return {Term(term), Index(index), Term(index_term), answer, 0};
}

// --- The receiver ---

TEST(ReceivesSnapshot, AnOfferOfWhatItLacksIsWanted) {
  Bench bench;
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 10, 2, 0)), SnapshotAnswer::kSend);
  EXPECT_EQ(bench->term(), Term(2));
  EXPECT_EQ(bench->leader(), kTwo);
  EXPECT_EQ(bench->last_index(), Index(1)) << "an offer changes nothing";
}

TEST(ReceivesSnapshot, TheLogStartsBehindIt) {
  Bench bench({.terms = {1, 1, 1}});
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 10, 2, 7)), SnapshotAnswer::kInstalled);
  EXPECT_EQ(bench->first_index(), Index(11));
  EXPECT_EQ(bench->last_index(), Index(10));
  EXPECT_EQ(bench->commit(), Index(10));
  EXPECT_EQ(bench->persisted(), Index(10));
  EXPECT_EQ(bench->applied(), Index(10));
  EXPECT_FALSE(bench->installing());
  const AppendEntriesReply reply = bench.HearAppend(kTwo, bench.Append(2, 10, 2, {2, 2}, 12));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(bench->applied(), Index(12));
}

TEST(ReceivesSnapshot, ItIsAnsweredOnceItsRecordIsDurableAndTheStateHasSwitched) {
  Bench bench({.terms = {1, 1, 1}});
  bench.auto_persist = false;
  bench.auto_apply = false;
  bench.Hear(kTwo, Install(2, 10, 2, 7));
  EXPECT_TRUE(bench.All<InstallSnapshotReply>().empty());
  EXPECT_TRUE(bench.installs.empty()) << "the state switches before its record is durable";
  ASSERT_EQ(bench.persists.size(), 1u);
  EXPECT_EQ(bench.persists[0].install->generation, 7u);
  EXPECT_EQ(bench.persists[0].hard_state->term, Term(2)) << "the term comes with it";
  bench.Persist();
  bench.Drain();
  ASSERT_EQ(bench.installs.size(), 1u);
  EXPECT_EQ(bench.installs[0].snapshot.index, Index(10));
  EXPECT_TRUE(bench.All<InstallSnapshotReply>().empty());
  bench->OnApplied(Index(10));
  bench.Drain();
  EXPECT_EQ(bench.Last<InstallSnapshotReply>(kTwo).answer, SnapshotAnswer::kInstalled);
}

TEST(ReceivesSnapshot, WhatWasOnItsWayToTheStateMachineComesFirst) {
  Bench bench({.terms = {1, 1, 1}});
  bench.auto_apply = false;
  bench.HearAppend(kTwo, bench.Append(2, 3, 1, {}, 3));
  ASSERT_EQ(bench.committed.size(), 2u);
  bench.Hear(kTwo, Install(2, 10, 2, 7));
  ASSERT_EQ(bench.installs.size(), 1u);
  bench->OnApplied(Index(3));
  EXPECT_TRUE(bench->installing());
  EXPECT_TRUE(bench.All<InstallSnapshotReply>().empty());
  bench->OnApplied(Index(10));
  EXPECT_FALSE(bench->installing());
}

TEST(ReceivesSnapshot, AtOrBelowTheCommitIndexItIsInstalledAlreadyAndDropped) {
  Bench bench({.terms = {1, 1, 1, 1}});
  bench.HearAppend(kTwo, bench.Append(2, 4, 1, {2}, 4));
  for (const uint64_t generation : {0, 7}) {
    for (const uint64_t index : {2, 4}) {
      EXPECT_EQ(Answer(&bench, kTwo, Install(2, index, 1, generation)), SnapshotAnswer::kInstalled);
    }
  }
  EXPECT_EQ(bench->last_index(), Index(5)) << "what follows stays";
  EXPECT_TRUE(bench.installs.empty());
}

// Figure 13, rule 6: the log holds its last entry, so all before it agrees, and is committed.
TEST(ReceivesSnapshot, WhatTheLogHoldsIsCommittedInsteadOfReplaced) {
  Bench bench({.terms = {1, 1, 1}});
  bench.HearAppend(kTwo, bench.Append(2, 3, 1, {2, 2, 2}, 1));
  EXPECT_EQ(bench->commit(), Index(1));
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 5, 2, 7)), SnapshotAnswer::kInstalled);
  EXPECT_EQ(bench->commit(), Index(5));
  EXPECT_EQ(bench->last_index(), Index(6)) << "what follows was acknowledged, and must stay";
  EXPECT_TRUE(bench.installs.empty());
  EXPECT_EQ(bench->applied(), Index(5));
}

TEST(ReceivesSnapshot, WhatTheLogHoldsIsAnsweredOnlyWhenDurable) {
  Bench bench({.terms = {1}});
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(2, 1, 1, {2, 2}));
  bench.Hear(kTwo, Install(2, 3, 2, 0));
  EXPECT_TRUE(bench.All<InstallSnapshotReply>().empty());
  bench.Persist();
  bench.Drain();
  bench.Persist();
  EXPECT_EQ(bench.Last<InstallSnapshotReply>(kTwo).answer, SnapshotAnswer::kInstalled);
}

TEST(ReceivesSnapshot, AConflictingLogGoesWithItsMemberships) {
  Bench bench({.terms = {1, 1}});
  AppendEntries append = bench.Append(2, 2, 1, {2, 2});
  append.entries.push_back(MakeMembershipEntry(Index(5), Term(2), ThreeOf(1, 2, 9)));
  bench.HearAppend(kTwo, append);
  ASSERT_NE(bench->membership().Find(StoreId(9)), nullptr);
  // In term 3 another leader was elected without them; entry 4 there is of term 3.
  EXPECT_EQ(Answer(&bench, kThree, Install(3, 4, 3, 7)), SnapshotAnswer::kInstalled);
  EXPECT_EQ(bench->last_index(), Index(4));
  EXPECT_EQ(bench->membership().Find(StoreId(9)), nullptr);
  EXPECT_EQ(bench->membership(), ThreeOf(1, 2, 3));
  EXPECT_EQ(bench->membership_index(), Index(1));
}

TEST(ReceivesSnapshot, ItsMembershipIsInForce) {
  Bench bench;
  InstallSnapshot install = Install(2, 10, 2, 7);
  install.snapshot.membership = ThreeOf(1, 4, 5);
  install.snapshot.membership_index = Index(8);
  bench.Hear(kTwo, install);
  EXPECT_EQ(bench->membership(), ThreeOf(1, 4, 5));
  EXPECT_EQ(bench->membership_index(), Index(8));
  bench.Listen();
  bench.Campaign();
  EXPECT_EQ(bench.All<RequestVote>(kFour).size(), 1u);
  EXPECT_TRUE(bench.All<RequestVote>(kTwo).empty());
  EXPECT_EQ(bench.Last<RequestVote>(kFour).last_index, Index(10));
  EXPECT_EQ(bench.Last<RequestVote>(kFour).last_term, Term(2));
}

TEST(ReceivesSnapshot, AStaleTermIsRefusedAndTold) {
  Bench bench({.term = 5});
  bench.Hear(kTwo, Install(4, 10, 2, 7));
  const auto reply = bench.Last<InstallSnapshotReply>(kTwo);
  EXPECT_EQ(reply.answer, SnapshotAnswer::kRefused);
  EXPECT_EQ(reply.term, Term(5));
  EXPECT_EQ(bench->last_index(), Index(1));
  EXPECT_FALSE(bench->leader());
}

TEST(ReceivesSnapshot, AHigherTermDeposes) {
  Bench bench;
  bench.Elect();
  ASSERT_EQ(bench->role(), Role::kLeader);
  EXPECT_EQ(Answer(&bench, kTwo, Install(9, 10, 8, 0)), SnapshotAnswer::kSend);
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->leader(), kTwo);
}

TEST(ReceivesSnapshot, ItIsALeadersWord) {
  Bench bench;
  bench.Pass(140);
  bench.Hear(kTwo, Install(2, 10, 2, 0));
  bench.Pass(100);
  EXPECT_FALSE(bench.AskVote(kThree, 3, 20, 2).granted) << "it has just heard its leader";
}

TEST(ReceivesSnapshot, ASecondOneWaitsForTheFirst) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, Install(1, 10, 1, 7));
  EXPECT_EQ(Answer(&bench, kTwo, Install(1, 12, 1, 0)), SnapshotAnswer::kBusy);
  bench.Persist();
  bench.Drain();
  EXPECT_EQ(bench->applied(), Index(10));
  EXPECT_EQ(Answer(&bench, kTwo, Install(1, 12, 1, 0)), SnapshotAnswer::kSend);
}

TEST(ReceivesSnapshot, TheSameOneTwiceIsInstalledOnceAndAnsweredTwice) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, Install(1, 10, 1, 7));
  bench.Hear(kTwo, Install(1, 10, 1, 8));
  EXPECT_TRUE(bench.All<InstallSnapshotReply>().empty());
  bench.Persist();
  bench.Drain();
  EXPECT_EQ(bench.installs.size(), 1u);
  EXPECT_EQ(bench.All<InstallSnapshotReply>(kTwo).size(), 2u);
}

// A late notice of what was written before must not make the snapshot, or what follows it, durable.
TEST(ReceivesSnapshot, OlderTicketsSayNothingOfIt) {
  Bench bench({.terms = {1}});
  bench.auto_persist = false;
  bench.Hear(kTwo, bench.Append(2, 1, 1, {2, 2, 2, 2, 2, 2, 2, 2, 2}));  // to 10
  bench.Hear(kThree, Install(3, 8, 3, 7));
  bench.Hear(kThree, bench.Append(3, 8, 3, {3, 3}));  // to 10 again
  ASSERT_EQ(bench.tickets.size(), 3u);
  bench.Listen();
  bench.Persist(1);
  EXPECT_EQ(bench->persisted(), Index(1));
  EXPECT_TRUE(bench.installs.empty());
  bench.Persist(1);
  EXPECT_EQ(bench->persisted(), Index(8));
  bench.Drain();
  EXPECT_EQ(bench.installs.size(), 1u);
  bench.Persist(1);
  EXPECT_EQ(bench->persisted(), Index(10));
  EXPECT_EQ(bench.Last<AppendEntriesReply>(kThree).match, Index(10));
}

// Entries 2 to 40 are on disk only, and none is known to be committed: whether entry 20 is the
// leader's must be read there first. It must not be cut unseen: it may have been acknowledged.
TEST(ReceivesSnapshot, AnUnknownTermIsReadFirst) {
  Bench bench({.terms = std::vector<uint64_t>(40, 1), .window_entries = 5});
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 20, 1, 0)), SnapshotAnswer::kBusy);
  ASSERT_FALSE(bench.reads.empty());
  while (!bench.reads.empty()) bench.AnswerRead();
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 20, 1, 0)), SnapshotAnswer::kInstalled);
  EXPECT_EQ(bench->last_index(), Index(40));
  while (!bench.reads.empty()) bench.AnswerRead();
  EXPECT_EQ(bench->applied(), Index(20));
}

// What was being read for applying is no longer there, and no longer wanted.
TEST(ReceivesSnapshot, AReadForApplyingIsForgotten) {
  Bench bench({.terms = std::vector<uint64_t>(40, 1), .window_entries = 2});
  bench.HearAppend(kTwo, bench.Append(2, 40, 1, {}, 30));
  ASSERT_EQ(bench.reads.size(), 1u);
  EXPECT_EQ(Answer(&bench, kTwo, Install(2, 60, 2, 7)), SnapshotAnswer::kInstalled);
  const LogRead read = bench.reads.front();
  bench->OnLogRead(read.peer, read.from, {});
  bench.Drain();
  EXPECT_EQ(bench->applied(), Index(60));
}

TEST(ReceivesSnapshot, AnElectionMeanwhileIsNoHarm) {
  Bench bench;
  bench.auto_persist = false;
  bench.Hear(kTwo, Install(1, 10, 1, 7));
  bench.Campaign();
  bench.GrantAll(true);
  bench.Persist();
  bench.Drain();
  bench.GrantAll(false);
  EXPECT_EQ(bench->role(), Role::kLeader);
  bench.Persist();
  bench.Drain();
  bench.Ack(kTwo, 11);
  EXPECT_EQ(bench->commit(), Index(11));
  EXPECT_TRUE(bench->leader_ready());
}

// --- Recovery ---

TEST(RecoversBehindASnapshot, ALogWithoutEntries) {
  Bench bench({.terms = {}, .snapshot = Install(4, 10, 3, 0).snapshot, .term = 4});
  EXPECT_EQ(bench->first_index(), Index(11));
  EXPECT_EQ(bench->last_index(), Index(10));
  EXPECT_EQ(bench->applied(), Index(10));
  EXPECT_EQ(bench->membership(), ThreeOf(1, 2, 3));
  bench.OutlastLeases();
  EXPECT_FALSE(bench.AskVote(kTwo, 5, 9, 3).granted) << "a log that ends before it is older";
  EXPECT_FALSE(bench.AskVote(kTwo, 5, 100, 2).granted);
  EXPECT_TRUE(bench.AskVote(kTwo, 6, 10, 3).granted);
  const AppendEntriesReply reply = bench.HearAppend(kTwo, bench.Append(6, 10, 3, {6}, 11));
  EXPECT_TRUE(reply.success);
  EXPECT_EQ(bench->applied(), Index(11));
}

TEST(RecoversBehindASnapshot, WithEntriesBehindIt) {
  Bench bench({.terms = {3, 4}, .snapshot = Install(4, 10, 3, 0).snapshot});
  EXPECT_EQ(bench->first_index(), Index(11));
  EXPECT_EQ(bench->last_index(), Index(12));
  EXPECT_EQ(bench->commit(), Index(10));
  // An old append that begins before it: what the log no longer has is committed, and agrees.
  AppendEntries append = bench.Append(5, 8, 3, {3, 3, 3, 4}, 12);
  EXPECT_TRUE(bench.HearAppend(kTwo, append).success);
  EXPECT_EQ(bench->last_index(), Index(12));
  EXPECT_EQ(bench->applied(), Index(12));
}

TEST(RecoversBehindASnapshot, AsALeaderItSendsWhatItHas) {
  Bench bench({.terms = {3, 4}, .snapshot = Install(4, 10, 3, 0).snapshot});
  bench.Elect();
  bench.Refuse(kTwo, 12, 10, 3, 10);
  const AppendEntries append = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(append.prev_index, Index(10));
  EXPECT_EQ(append.prev_term, Term(3));
  EXPECT_EQ(append.entries.size(), 3u);
  EXPECT_TRUE(bench.snapshot_requests.empty());
}

// --- The leader ---

// Entries 1 to 30 on disk, a window of the last five; store 2 ends at entry 3.
class SendsSnapshot : public ::testing::Test {
 protected:
  SendsSnapshot()
      : bench({.terms = std::vector<uint64_t>(30, 1), .applied = 30, .window_entries = 5}) {
    bench.Elect();
    bench->Compact(Index(20));
    bench.Ack(kThree, 31);
    bench.Refuse(kTwo, 30, 3, 1, 3);
    bench.Drain();
  }
  // A heartbeat's time, in which store 2 and 3 answer.
  void Beat() {
    bench.Pass(50);
    bench.Tick();
    for (const StoreId store : {kTwo, kThree}) {
      AppendEntriesReply reply;
      reply.term = bench->term();
      reply.success = true;
      reply.last_index = Index(store == kTwo ? 3 : 31);
      reply.echoed_sent_at = bench.now;
      reply.receiver_clock = bench.now;
      bench.Hear(store, reply);
    }
  }
  Bench bench;
};

TEST_F(SendsSnapshot, ToWhomLacksWhatWasCut) {
  ASSERT_EQ(bench.snapshot_requests.size(), 1u);
  EXPECT_EQ(bench.snapshot_requests[0].peer, kTwo);
  EXPECT_EQ(bench.snapshot_requests[0].term, bench->term());
  EXPECT_TRUE(bench->peers()[0].needs_snapshot);
  EXPECT_TRUE(bench->peers()[0].snapshot_sent);
}

TEST_F(SendsSnapshot, OnceAndNothingElseButHeartbeats) {
  bench.Listen();
  for (int i = 0; i < 100; ++i) Beat();
  bench.Propose({10, 10});
  EXPECT_EQ(bench.snapshot_requests.size(), 1u);
  EXPECT_EQ(bench.All<AppendEntries>(kTwo).size(), 100u);
  for (const AppendEntries& append : bench.All<AppendEntries>(kTwo)) {
    EXPECT_TRUE(append.entries.empty());
  }
}

TEST_F(SendsSnapshot, InstalledItGoesOnBehind) {
  bench.Propose({10, 10});
  bench.Ack(kThree, 33);
  bench.Listen();
  bench.Hear(kTwo, Reply(2, 31, 2, SnapshotAnswer::kInstalled));
  const AppendEntries append = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(append.prev_index, Index(31));
  EXPECT_EQ(append.prev_term, Term(2));
  EXPECT_EQ(append.entries.size(), 2u);
  EXPECT_FALSE(bench->peers()[0].needs_snapshot);
  EXPECT_FALSE(bench->peers()[0].snapshot_sent);
}

TEST_F(SendsSnapshot, ItCountsTowardsAMajority) {
  bench.Propose({10});
  EXPECT_EQ(bench->commit(), Index(31));
  bench.Hear(kTwo, Reply(2, 32, 2, SnapshotAnswer::kInstalled));
  EXPECT_EQ(bench->commit(), Index(32));
}

TEST_F(SendsSnapshot, BelowAnAnswerTheReadsGoOnFromTheLog) {
  bench.reads.clear();
  bench.Listen();
  bench.Hear(kTwo, Reply(2, 22, 1, SnapshotAnswer::kInstalled));
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).prev_index, Index(22));
  bench.Ack(kTwo, 22);
  ASSERT_EQ(bench.reads.size(), 1u);
  EXPECT_EQ(bench.reads[0].from, Index(23));
}

TEST_F(SendsSnapshot, AgainWhenTheLogWasCutBeyondIt) {
  bench->Compact(Index(25));
  bench.Hear(kTwo, Reply(2, 22, 1, SnapshotAnswer::kInstalled));
  bench.Ack(kTwo, 22);
  EXPECT_EQ(bench.snapshot_requests.size(), 2u);
}

TEST_F(SendsSnapshot, AFailureIsRepeatedLaterAndLater) {
  std::vector<int> beats;
  for (int round = 0; round < 9; ++round) {
    const size_t asked = bench.snapshot_requests.size();
    bench->OnSnapshotFailed(kTwo, bench->term(), bench.now);
    bench.Drain();
    int count = 0;
    while (bench.snapshot_requests.size() == asked && count < 1000) {
      Beat();
      ++count;
    }
    beats.push_back(count);
  }
  // 200 ms, 400, ... 10 s, in heartbeats of 50 ms.
  EXPECT_EQ(beats, (std::vector<int>{4, 8, 16, 32, 64, 128, 200, 200, 200}));
}

TEST_F(SendsSnapshot, BusyIsAFailureToo) {
  bench.Hear(kTwo, Reply(2, 31, 2, SnapshotAnswer::kBusy));
  EXPECT_FALSE(bench->peers()[0].snapshot_sent);
  for (int i = 0; i < 5; ++i) Beat();
  EXPECT_EQ(bench.snapshot_requests.size(), 2u);
}

TEST_F(SendsSnapshot, NotToThoseWhoAreSilent) {
  bench->OnSnapshotFailed(kTwo, bench->term(), bench.now);
  for (int i = 0; i < 20; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.Ack(kThree, 31);
  }
  EXPECT_EQ(bench.snapshot_requests.size(), 1u);
  Beat();
  EXPECT_EQ(bench.snapshot_requests.size(), 2u);
}

TEST_F(SendsSnapshot, AHigherTermInTheAnswerDeposes) {
  bench.Hear(kTwo, Reply(9, 31, 2, SnapshotAnswer::kRefused));
  EXPECT_EQ(bench->role(), Role::kFollower);
  EXPECT_EQ(bench->term(), Term(9));
}

TEST_F(SendsSnapshot, AnAnswerOfAnEarlierTermSaysNothing) {
  bench.Hear(kTwo, Reply(1, 31, 2, SnapshotAnswer::kInstalled));
  EXPECT_TRUE(bench->peers()[0].needs_snapshot);
  EXPECT_EQ(bench->peers()[0].match, Index(0));
  bench->OnSnapshotFailed(kTwo, Term(1), bench.now);
  EXPECT_TRUE(bench->peers()[0].snapshot_sent);
}

TEST_F(SendsSnapshot, ALateAnswerTakesNothingBack) {
  bench.Hear(kTwo, Reply(2, 31, 2, SnapshotAnswer::kInstalled));
  bench.Ack(kTwo, 31);
  bench.Hear(kTwo, Reply(2, 25, 1, SnapshotAnswer::kInstalled));
  EXPECT_EQ(bench->peers()[0].match, Index(31));
  bench.Listen();
  bench.Propose({10});
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).prev_index, Index(31));
}

// --- Cutting ---

TEST(CutsItsLog, OnlyForward) {
  Bench bench({.terms = std::vector<uint64_t>(10, 1), .applied = 10});
  bench->Compact(Index(5));
  EXPECT_EQ(bench->first_index(), Index(6));
  bench->Compact(Index(3));
  EXPECT_EQ(bench->first_index(), Index(6));
}

TEST(CutsItsLog, AReadThatCameTooLateEndsInASnapshot) {
  Bench bench({.terms = std::vector<uint64_t>(30, 1), .applied = 30, .window_entries = 5});
  bench.Elect();
  bench.Refuse(kTwo, 30, 3, 1, 3);
  ASSERT_EQ(bench.reads.size(), 1u);
  bench->Compact(Index(20));
  bench->OnLogRead(kTwo, bench.reads[0].from, {});
  bench.Drain();
  EXPECT_EQ(bench.snapshot_requests.size(), 1u);
}

// --- Bad input ---

TEST(ReceivesSnapshot, NonsenseIsIgnored) {
  Bench bench;
  std::vector<InstallSnapshot> wrong(7, Install(2, 10, 2, 7));
  wrong[0].term = Term(0);
  wrong[1].term = Term(UINT64_MAX);
  wrong[2].snapshot.index = Index(0);
  wrong[3].snapshot.term = Term(3);
  wrong[4].snapshot.term = Term(0);
  wrong[5].snapshot.membership_index = Index(11);
  wrong[6].snapshot.membership.members.clear();
  for (const InstallSnapshot& each : wrong) bench.Hear(kTwo, each);
  EXPECT_EQ(bench->ignored_messages(), wrong.size());
  EXPECT_TRUE(bench.sent.empty());
  EXPECT_EQ(bench->term(), Term(1));
}

TEST_F(SendsSnapshot, AnAnswerFromBeyondTheLogIsIgnored) {
  bench.Hear(kTwo, Reply(2, 999, 2, SnapshotAnswer::kInstalled));
  bench.Hear(kTwo, Reply(UINT64_MAX, 31, 2, SnapshotAnswer::kInstalled));
  EXPECT_EQ(bench->ignored_messages(), 2u);
  EXPECT_EQ(bench->peers()[0].match, Index(0));
  EXPECT_EQ(bench->role(), Role::kLeader);
}

TEST(CutsItsLogDeathTest, NotBeyondWhatIsApplied) {
  Bench bench({.terms = {1, 1, 1}});
  EXPECT_DEATH(bench->Compact(Index(2)), "beyond what is applied");
}

TEST(ReceivesSnapshotDeathTest, ACommittedEntryCannotDiffer) {
  Bench bench({.terms = {1, 1, 1}, .applied = 3});
  EXPECT_DEATH(bench.Hear(kTwo, Install(3, 2, 3, 7)), "a committed entry differs");
}

}  // namespace
}  // namespace quorate::raft::testing
