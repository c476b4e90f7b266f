// The leader's side beyond Figure 2: what it sends, what stays bounded, log time, freshness, and
// peers that lose what they promised.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// --- What a leader sends ---

TEST(Pipeline, BatchesEndBeforeTheirBoundAndNothingIsSkipped) {
  // LogCabin #160: batching went on past an entry that did not fit.
  BenchSetup setup;
  setup.options.append_bytes_max = 300;
  Bench bench(setup);
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Listen();
  bench.Propose({36, 36, 36, 900, 36});
  std::vector<size_t> sizes;
  Index next(3);
  for (const auto& append : bench.All<AppendEntries>(kTwo)) {
    if (append.entries.empty()) continue;
    sizes.push_back(append.entries.size());
    EXPECT_EQ(append.entries.front()->index, next);
    next = append.entries.back()->index + 1;
  }
  EXPECT_EQ(sizes, (std::vector<size_t>{3, 1, 1}));
}

TEST(Pipeline, WhatIsInFlightIsBoundedByMessagesAndByBytes) {
  for (bool by_bytes : {false, true}) {
    BenchSetup setup;
    setup.options.append_bytes_max = 100;
    if (by_bytes) setup.options.inflight_bytes_max = 250;
    if (!by_bytes) setup.options.inflight_messages_max = 3;
    Bench bench(setup);
    bench.Elect();
    bench.Ack(kTwo, 2);
    bench.Listen();
    bench.Propose(std::vector<size_t>(10, 36));
    EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(3));
    bench.Listen();
    bench.Ack(kTwo, 3);
    EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1)) << "one came back, one may go";
  }
}

TEST(Pipeline, TheWindowIsEmptyAgainAfterEveryChangeOfState) {
  // etcd-raft e419ba5: bytes in flight outlived the state, and replication stalled for ever.
  BenchSetup setup;
  setup.options.append_bytes_max = 100;
  setup.options.inflight_messages_max = 2;
  Bench bench(setup);
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Propose(std::vector<size_t>(6, 36));
  for (uint64_t match = 2; match < 8; ++match) {
    // Two appends are out, and the first was lost: the peer refuses the second, and later the
    // probe's answer opens the window again.
    bench.Listen();
    bench.Refuse(kTwo, match + 1, match, 2, match);
    ASSERT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1)) << match;
    bench.Ack(kTwo, match + 1);
  }
  EXPECT_EQ(bench->commit(), Index(8));
}

TEST(Pipeline, FollowersAreToldOfACommitAtOnce) {
  Bench bench;
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Propose({1});
  bench.Listen();
  bench.Ack(kTwo, 3);
  const auto told = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(told.commit, Index(3));
  EXPECT_EQ(told.prev_index, Index(3));
  EXPECT_THAT(told.entries, IsEmpty());
  bench.Listen();
  bench.Ack(kTwo, 3);
  EXPECT_THAT(bench.sent, IsEmpty()) << "once";
}

TEST(Pipeline, AnswersOfStrangersAndOfEarlierTermsAreIgnored) {
  Bench bench;
  bench.Elect();
  bench.Ack(StoreId(99), 2);
  EXPECT_EQ(bench->commit(), Index(1));
  AppendEntriesReply old;
  old.term = Term(1);
  old.success = true;
  old.match = Index(2);
  bench.Hear(kTwo, old);
  EXPECT_EQ(bench->commit(), Index(1));
}

TEST(Pipeline, ALearnerIsServedAndNotCounted) {
  Bench bench({.voters = 3, .learners = 1});
  bench.Elect();
  EXPECT_EQ(bench.Last<AppendEntries>(kFour).term, Term(2));
  bench.Ack(kFour, 2);
  EXPECT_EQ(bench->commit(), Index(1));
  EXPECT_THAT(bench.All<RequestVote>(kFour), IsEmpty());
}

TEST(Pipeline, ASilentPeerIsAskedWithoutData) {
  Bench bench;
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Ack(kThree, 2);
  bench.Propose({1000});
  for (int i = 0; i < 6; ++i) {
    bench.Pass(50);
    bench.Ack(kThree, 3);
    bench.Tick();
  }
  ASSERT_FALSE(bench->peers()[0].active);
  bench.Listen();
  for (int i = 0; i < 6; ++i) {
    bench.Pass(50);
    bench.Ack(kThree, 3);
    bench.Tick();
  }
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(6));
  for (const auto& append : bench.All<AppendEntries>(kTwo)) EXPECT_THAT(append.entries, IsEmpty());
  bench.Listen();
  bench.Ack(kTwo, 2);
  EXPECT_THAT(bench.Last<AppendEntries>(kTwo).entries, SizeIs(1)) << "back, and served at once";
}

// It has acknowledged half of an append whose entries have left the window, so what term it ends
// with is not known: that is to be read before it can be asked anything.
TEST(Pipeline, ASilentPeerBelowTheWindowIsServedWhenItIsBack) {
  BenchSetup setup{
      .terms = std::vector<uint64_t>(30, 1), .applied = 30, .window_entries = 5, .options = {}};
  setup.options.append_bytes_max = 4 * Entry().bytes();
  setup.options.inflight_messages_max = 1;
  Bench bench(setup);
  bench.Elect();
  bench.Ack(kThree, 31);
  bench.Refuse(kTwo, 30, 3, 1, 3);
  bench.AnswerRead();
  bench.Ack(kTwo, 6);
  bench.AnswerRead();
  ASSERT_EQ(bench.Last<AppendEntries>(kTwo).entries.back()->index, Index(10));
  bench.Ack(kTwo, 8);
  for (int i = 0; i < 4; ++i) {
    bench.Pass(50);
    bench.Ack(kThree, 31);
    bench.Tick();
  }
  ASSERT_FALSE(bench->peers()[0].active);
  EXPECT_THAT(bench.reads, IsEmpty()) << "the disk is not read for who is silent";
  bench.Ack(kTwo, 0, 8);
  ASSERT_THAT(bench.reads, SizeIs(1));
  EXPECT_EQ(bench.reads[0].from, Index(8));
  bench.AnswerRead();
  const auto append = bench.Last<AppendEntries>(kTwo);
  EXPECT_EQ(append.prev_index, Index(8));
  EXPECT_EQ(append.prev_term, Term(1));
  EXPECT_THAT(append.entries, SizeIs(3));
}

TEST(Pipeline, WhatIsNoLongerOnDiskNeedsASnapshot) {
  BenchSetup setup{.terms = {1, 1, 1, 1, 1, 1}, .applied = 6, .window_entries = 1};
  Bench bench(setup);
  bench.Elect();
  bench.Refuse(kTwo, 6, 2, 1, 2);
  ASSERT_THAT(bench.reads, SizeIs(1));
  EXPECT_EQ(bench.reads[0].from, Index(2)) << "one early, for the term";
  bench->OnLogRead(kTwo, Index(2), {});
  bench.Drain();
  EXPECT_TRUE(bench->peers()[0].needs_snapshot);
  bench.Listen();
  bench.Pass(50);
  bench.Tick();
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1)) << "heartbeats go on";
}

TEST(Pipeline, AReadOfAnEarlierTermIsOfNoUse) {
  BenchSetup setup{.terms = {1, 1, 1, 1, 1, 1}, .applied = 6, .window_entries = 1};
  Bench bench(setup);
  bench.Elect();
  bench.Refuse(kTwo, 6, 2, 1, 2);
  ASSERT_THAT(bench.reads, SizeIs(1));
  bench.HearAppend(kThree, bench.Append(3, 6, 1, {3}, 6));
  bench.OutlastLeases();
  bench.Elect();
  ASSERT_EQ(bench->role(), Role::kLeader);
  bench.Refuse(kTwo, 7, 2, 1, 2);
  EXPECT_THAT(bench.reads, SizeIs(1)) << "at most one is out";
  bench.Listen();
  bench.AnswerRead();
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), IsEmpty());
  ASSERT_THAT(bench.reads, SizeIs(1)) << "asked again, for this term";
  bench.AnswerRead();
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).prev_index, Index(2));
}

// --- What stays bounded ---

TEST(Bounds, ProposalsBeyondTheUncommittedBytesAreRefusedAndNothingLeaks) {
  // etcd-raft a370b6f: a counter leaked, and in the end every proposal was dropped.
  BenchSetup setup;
  setup.options.uncommitted_bytes_max = 1000;
  Bench bench(setup);
  for (int round = 0; round < 5; ++round) {
    bench.OutlastLeases();
    bench.Elect();
    ASSERT_EQ(bench->role(), Role::kLeader);
    bench.Ack(kTwo, bench->last_index().value());
    EXPECT_EQ(bench.Propose({136, 136, 136, 136, 136, 136}),
              std::make_pair(size_t{5}, ProposeStatus::kQueueFull));
    bench.Ack(kTwo, bench->last_index().value());
    EXPECT_EQ(bench.Propose({136, 136}), std::make_pair(size_t{2}, ProposeStatus::kAccepted));
    // Deposed with two entries that go.
    const uint64_t term = bench->term().value() + 1;
    bench.HearAppend(kThree, bench.Append(term, bench->commit().value(), term - 1, {term}));
  }
}

TEST(Bounds, OneProposalAloneIsTakenWhateverItsSize) {
  BenchSetup setup;
  setup.options.uncommitted_bytes_max = 1000;
  Bench bench(setup);
  bench.Elect();
  bench.Ack(kTwo, 2);
  EXPECT_EQ(bench.Propose({5000}), std::make_pair(size_t{1}, ProposeStatus::kAccepted));
  EXPECT_EQ(bench.Propose({1}), std::make_pair(size_t{0}, ProposeStatus::kQueueFull));
}

TEST(Bounds, AStalledDiskOfTheLeaderBoundsItsQueueToo) {
  BenchSetup setup;
  setup.options.uncommitted_bytes_max = 1000;
  Bench bench(setup);
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.auto_persist = false;
  bench.Propose({600});
  bench.Ack(kTwo, 3);
  bench.Ack(kThree, 3);
  ASSERT_EQ(bench->commit(), Index(3)) << "the others commit it without the leader's disk";
  EXPECT_EQ(bench.Propose({600}).second, ProposeStatus::kQueueFull);
  bench.Persist();
  EXPECT_EQ(bench.Propose({600}).second, ProposeStatus::kAccepted);
}

TEST(Bounds, ProposalsNameTheTerm) {
  Bench bench;
  bench.Elect();
  EXPECT_EQ(bench->Propose(Term(1), {Core::Proposal{}}, bench.now).second,
            ProposeStatus::kNotLeader);
}

TEST(Bounds, WhatIsHandedOutForApplyingIsBounded) {
  BenchSetup setup;
  setup.options.apply_bytes_max = 200;
  Bench bench(setup);
  bench.auto_apply = false;
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1, 1, 1, 1, 1, 1}, 7));
  EXPECT_THAT(bench.committed, SizeIs(3)) << "64 bytes each";
  bench->OnApplied(Index(4));
  bench.Drain();
  EXPECT_THAT(bench.committed, SizeIs(6));
}

TEST(Bounds, WhatLeftTheWindowIsAppliedFromDisk) {
  BenchSetup setup{.terms = {1, 1, 1, 1, 1, 1}, .window_entries = 2};
  Bench bench(setup);
  bench.HearAppend(kTwo, bench.Append(1, 6, 1, {}, 6));
  ASSERT_THAT(bench.reads, SizeIs(1));
  EXPECT_EQ(bench.reads[0].peer, kSelf);
  EXPECT_EQ(bench.reads[0].from, Index(2));
  EXPECT_EQ(bench.reads[0].last, Index(4));
  bench.AnswerRead();
  EXPECT_EQ(bench->applied(), Index(6));
  EXPECT_THAT(bench.committed, SizeIs(5));
}

// --- Log time, readiness, freshness ---

TEST(LogTime, GoesOnFromTheLastEntryWhoeverLeads) {
  Bench bench({.voters = 1});
  bench.Elect();
  bench.Pass(70);
  bench.Propose({1});
  bench.Pass(30);
  bench.Propose({1});
  EXPECT_EQ(bench.committed[0]->log_time_ms, 0u);
  EXPECT_EQ(bench.committed[1]->log_time_ms, 70u);
  EXPECT_EQ(bench.committed[2]->log_time_ms, 100u);

  Bench next;
  auto append = next.Append(1, 1, 1, {});
  auto entry = std::make_shared<Entry>(*MakeEntry(Index(2), Term(1)));
  entry->log_time_ms = 5000;
  append.entries = {entry};
  next.Hear(kTwo, append);
  next.OutlastLeases();
  next.Elect();
  next.Pass(40);
  next.Propose({1});
  EXPECT_EQ(next.persists.back().entries.back()->log_time_ms, 5040u);
}

TEST(LeaderReady, WhenTheNoopIsApplied) {
  Bench bench;
  bench.auto_apply = false;
  bench.Elect();
  EXPECT_FALSE(bench->leader_ready());
  bench.Ack(kTwo, 2);
  EXPECT_FALSE(bench->leader_ready()) << "committed, not applied";
  bench->OnApplied(Index(2));
  EXPECT_TRUE(bench->leader_ready());
}

TEST(Freshness, OfAFollowerIsItsOwnClockLessTheAgeOfTheMajority) {
  Bench bench;
  auto append = bench.Append(1, 1, 1, {1}, 2);
  append.echoed_receiver_clock = bench.now;
  append.majority_age = milliseconds(30);
  const Instant sample = bench.now;
  bench.auto_apply = false;
  bench.Pass(20);
  bench.Hear(kTwo, append);
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt) << "not applied yet";
  bench->OnApplied(Index(2));
  EXPECT_EQ(bench->fresh_as_of(bench.now), sample - milliseconds(30));
}

TEST(Freshness, ASampleOfTheCommitCountsOnceItIsAppliedWhereverItComesFrom) {
  // The heartbeat names commit 3; entries 2 and 3 come later.
  Bench bench;
  auto heartbeat = bench.Append(1, 1, 1, {}, 3);
  heartbeat.echoed_receiver_clock = bench.now;
  const Instant sample = bench.now;
  bench.Hear(kTwo, heartbeat);
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  bench.Pass(10);
  bench.Hear(kTwo, bench.Append(1, 1, 1, {1}, 2));
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  bench.Hear(kTwo, bench.Append(1, 2, 1, {1}, 3));
  EXPECT_EQ(bench->fresh_as_of(bench.now), sample);
}

TEST(Freshness, AClockSampleFromBeforeTheStartOrFromTheFutureIsNoSample) {
  for (int offset_ms : {-1, 1}) {
    Bench bench;
    auto append = bench.Append(1, 1, 1, {}, 1);
    append.echoed_receiver_clock = bench.now + milliseconds(offset_ms);
    bench.Hear(kTwo, append);
    EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  }
}

// Found by the simulator: a leader that knows nothing of the reboot, or a message that was long on
// its way, echoes the clock of before, and the new one may show that time by now.
TEST(Freshness, AClockSampleOfAnEarlierBootIsNoSample) {
  BenchSetup setup;
  setup.options.clock_mark = std::chrono::microseconds(int64_t{1} << 61);
  Bench bench(setup);
  auto append = bench.Append(1, 1, 1, {}, 1);
  append.echoed_receiver_clock = bench.now + milliseconds(1);
  bench.Pass(2);
  bench.Listen();
  bench.Hear(kTwo, append);
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  const Instant said = bench.Last<AppendEntriesReply>(kTwo).receiver_clock;
  EXPECT_EQ(said, bench.now + setup.options.clock_mark);
  const Instant sample = bench.now;
  bench.Pass(5);
  append.echoed_receiver_clock = said;
  bench.Hear(kTwo, append);
  EXPECT_EQ(bench->fresh_as_of(bench.now), sample);
  for (const Instant any : {Instant::min(), Instant::max()}) {
    append.echoed_receiver_clock = any;
    bench.Hear(kTwo, append);
    EXPECT_EQ(bench->fresh_as_of(bench.now), sample);
  }
}

TEST(Freshness, ALeaderEchoesNothingBeforeAnEntryOfItsTermIsCommitted) {
  Bench bench;
  bench.Elect();
  bench.Refuse(kTwo, 1, 0, 0, 0);
  bench.Pass(50);
  bench.Listen();
  bench.Tick();
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).echoed_receiver_clock, Instant{});
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  const Instant acked = bench.now;
  bench.Ack(kTwo, 2);
  bench.Pass(50);
  bench.Listen();
  bench.Tick();
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).echoed_receiver_clock, acked);
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).majority_age, milliseconds(50));
  EXPECT_EQ(bench->fresh_as_of(bench.now), acked);
}

TEST(Freshness, ASoleVoterIsAlwaysFresh) {
  Bench bench({.voters = 1});
  EXPECT_EQ(bench->fresh_as_of(bench.now), std::nullopt);
  bench.Elect();
  bench.Pass(500);
  EXPECT_EQ(bench->fresh_as_of(bench.now), bench.now);
}

// --- Peers that lose what they promised ---

TEST(LostData, AVoterBelowItsAcknowledgementIsNotCounted) {
  Bench bench;
  bench.Elect();
  bench.Ack(kTwo, 2);
  bench.Pass(10);
  bench.Refuse(kTwo, 2, 1, 1, 1);
  ASSERT_TRUE(bench->peers()[0].lost_data);
  bench.Propose({1});
  bench.Ack(kTwo, 3);
  EXPECT_EQ(bench->commit(), Index(2)) << "what it says it has it may lose again";
  bench.Ack(kThree, 3);
  EXPECT_EQ(bench->commit(), Index(3));
}

TEST(LostData, AnOvertakenAnswerIsNoAlarm) {
  Bench bench;
  bench.Elect();
  const Instant before = bench.now;
  bench.Pass(10);
  bench.Ack(kTwo, 2);
  AppendEntriesReply old;
  old.term = bench->term();
  old.success = true;
  old.match = Index(1);
  old.last_index = Index(1);
  old.echoed_sent_at = before;
  bench.Pass(10);
  bench.Hear(kTwo, old);
  EXPECT_FALSE(bench->peers()[0].lost_data);
  EXPECT_EQ(bench->peers()[0].match, Index(2));
}

// --- The same inputs, the same outputs ---

TEST(Determinism, OneSeedOneHistoryAndEveryNodeItsOwnTimeouts) {
  const auto timeouts = [](uint64_t seed) {
    BenchSetup setup;
    setup.options.seed = seed;
    Bench bench(setup);
    std::vector<Duration> drawn;
    for (int i = 0; i < 20; ++i) {
      bench.Campaign();
      drawn.push_back(bench->election_timeout());
    }
    return drawn;
  };
  EXPECT_EQ(timeouts(1), timeouts(1));
  EXPECT_NE(timeouts(1), timeouts(2));
  Cluster cluster({"a", "b"}, {}, CoreOptions{});
  cluster.StartAll();
  EXPECT_NE(cluster.node("a").core().election_timeout(),
            cluster.node("b").core().election_timeout());
}

}  // namespace
}  // namespace quorate::raft::testing
