// Linearizable reads, rule by rule (dissertation 6.4), and leases (6.4.1). The conversations are in
// testdata/30 to 35; here the test plays everybody else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/core_bench.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ReadBench : public Bench {
 public:
  using Bench::Bench;

  void Ask(uint64_t id, ReadMode mode = ReadMode::kRound) {
    core().RequestRead(id, mode, now);
    Collect();
  }
  void Hear(StoreId from, MessageBody body) {
    core().Step(Message{from, kSelf, std::move(body)}, now);
    Collect();
  }
  void TickAndCollect() {
    core().Tick(now);
    Collect();
  }
  // A follower's answer to what carried `round`, sent at `sent_at` (absent: now).
  void Echo(StoreId from, uint64_t round, bool success = true, std::optional<Instant> sent_at = {},
            Duration timeout = milliseconds(150)) {
    AppendEntriesReply reply;
    reply.term = core().term();
    reply.success = success;
    reply.match = core().last_index();
    reply.last_index = core().last_index();
    reply.election_timeout_min = timeout;
    reply.echoed_sent_at = sent_at.value_or(now);
    reply.receiver_clock = now;
    reply.read_round = round;
    Hear(from, reply);
  }
  // Leads, and its no-op is committed.
  void Lead() {
    Elect();
    Echo(kTwo, 0);
  }
  // Follows kTwo in `term`.
  void Follow(uint64_t term) { Hear(kTwo, Append(term, 1, 1, {})); }
  // Takes Ready until there is none, keeping the answers to reads.
  void Collect() {
    while (core().HasReady()) {
      Ready ready = core().TakeReady();
      for (Message& message : ready.send_now) sent.push_back(std::move(message));
      for (Message& message : ready.send_after_persist) sent.push_back(std::move(message));
      for (const ReadResult& result : ready.reads) results.push_back(result);
      if (ready.persist.ticket) core().OnPersisted(ready.persist.ticket);
      if (!ready.committed.empty()) core().OnApplied(ready.committed.back()->index);
    }
  }
  std::vector<ReadResult> TakeResults() {
    std::vector<ReadResult> taken;
    taken.swap(results);
    return taken;
  }
  ReadResult TakeOne() {
    const std::vector<ReadResult> taken = TakeResults();
    if (taken.size() != 1) {
      ADD_FAILURE() << taken.size() << " answers";
      return {};
    }
    return taken.front();
  }

  std::vector<ReadResult> results;
};

// --- The leader ---

TEST(ReadRound, CoversWhatIsCommittedWhenItIsAskedFor) {
  ReadBench bench;
  bench.Lead();
  bench.Listen();
  bench.Ask(1);
  EXPECT_THAT(bench.results, IsEmpty()) << "nobody has confirmed it";
  ASSERT_THAT(bench.All<AppendEntries>(), SizeIs(2)) << "one heartbeat to each voter, at once";
  EXPECT_EQ(bench.Last<AppendEntries>(kThree).read_round, 1u);
  bench.Echo(kThree, 1);
  const ReadResult result = bench.TakeOne();
  EXPECT_EQ(result.id, 1u);
  EXPECT_EQ(result.outcome, ReadOutcome::kConfirmed);
  EXPECT_EQ(result.index, bench->commit());
  EXPECT_FALSE(result.lease_until);
}

TEST(ReadRound, AnAnswerToWhatWasSentBeforeItConfirmsNothing) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Echo(kTwo, 0);
  bench.Echo(kThree, 0);
  EXPECT_THAT(bench.results, IsEmpty());
  bench.Echo(kTwo, 1);
  EXPECT_THAT(bench.TakeResults(), SizeIs(1));
  bench.Ask(2);
  bench.Echo(kTwo, 1);
  bench.Echo(kThree, 1);
  EXPECT_THAT(bench.results, IsEmpty()) << "those answered round 1";
}

TEST(ReadRound, ALaterRoundConfirmsTheEarlierOnes) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Propose({1});
  bench.Ask(2);
  bench.Echo(kTwo, 2);
  const std::vector<ReadResult> results = bench.TakeResults();
  ASSERT_THAT(results, SizeIs(2));
  EXPECT_EQ(results[0].index, Index(2)) << "what was committed when it was asked for";
  EXPECT_EQ(results[1].id, 2u);
}

TEST(ReadRound, ARefusedAppendConfirmsTheLeaderToo) {
  // The follower's log differs, but it follows: no later leader had been elected with its vote.
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Echo(kThree, 1, false);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

TEST(ReadRound, EveryLaterMessageCarriesIt) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Listen();
  bench.Pass(50);
  bench.TickAndCollect();
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).read_round, 1u) << "the heartbeats of it may be lost";
  bench.Listen();
  bench.core().Propose(bench->term(), {Core::Proposal{}}, bench.now);
  bench.Collect();
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).read_round, 1u);
}

TEST(ReadRound, WaitsForTheNoopOfTheTerm) {
  // tikv #9239.
  ReadBench bench({.terms = {1, 1, 1}, .applied = 1});
  bench.Elect();
  ASSERT_LT(bench->commit(), bench->last_index());
  bench.Listen();
  bench.Ask(1);
  EXPECT_THAT(bench.sent, IsEmpty()) << "no round begins";
  bench.Hear(kThree, ReadIndex{bench->term(), 77, false, 5});
  bench.Echo(kTwo, 0);
  EXPECT_EQ(bench->commit(), Index(4));
  bench.Echo(kTwo, 1);
  EXPECT_EQ(bench.TakeOne().index, Index(4));
  const auto reply = bench.Last<ReadIndexReply>(kThree);
  EXPECT_EQ(reply.outcome, ReadOutcome::kConfirmed);
  EXPECT_EQ(reply.index, Index(4));
  EXPECT_EQ(reply.id, 77u);
  EXPECT_EQ(reply.call_id, 5u);
}

TEST(ReadRound, NeedsAMajorityOfVotersOnly) {
  ReadBench bench({.voters = 4, .learners = 1});
  bench.Elect();
  bench.Echo(kTwo, 0);
  bench.Echo(kThree, 0);
  bench.Ask(1);
  bench.Echo(kFive, 1);
  bench.Echo(kTwo, 1);
  EXPECT_THAT(bench.results, IsEmpty()) << "two of four, and a learner";
  bench.Echo(kFour, 1);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

TEST(ReadRound, AVoterThatHasLostDataConfirmsNothing) {
  ReadBench bench;
  bench.Lead();
  bench.Pass(10);
  AppendEntriesReply reply;
  reply.term = bench->term();
  reply.match = Index(2);
  reply.last_index = Index(1);
  reply.echoed_sent_at = bench.now;
  bench.Hear(kTwo, reply);
  ASSERT_TRUE(bench->peers()[0].lost_data);
  bench.Ask(1);
  bench.Echo(kTwo, 1);
  EXPECT_THAT(bench.results, IsEmpty()) << "it may have forgotten its vote for another";
  bench.Echo(kThree, 1);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

TEST(ReadRound, ASoleVoterNeedsNobody) {
  ReadBench bench({.voters = 1});
  bench.Campaign();
  bench.Ask(1);
  EXPECT_EQ(bench.TakeOne().index, Index(2));
}

TEST(ReadRound, ManyReadsShareOne) {
  BenchSetup setup;
  setup.options.read_rounds_max = 1;
  ReadBench bench(setup);
  bench.Lead();
  bench.Listen();
  for (uint64_t id = 1; id <= 100; ++id) bench.Ask(id);
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(1));
  bench.Echo(kTwo, 1);
  EXPECT_THAT(bench.TakeResults(), SizeIs(1)) << "99 came while round 1 was under way";
  EXPECT_THAT(bench.All<AppendEntries>(kTwo), SizeIs(2));
  bench.Echo(kTwo, 2);
  EXPECT_THAT(bench.TakeResults(), SizeIs(99));
}

TEST(ReadRound, EndsWithTheOffice) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Hear(kThree, ReadIndex{bench->term(), 9, false, 0});
  const Term led = bench->term();
  bench.Listen();
  bench.Hear(kTwo, bench.Append(led.value() + 1, 1, 1, {}));
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kLeaderLost);
  EXPECT_EQ(bench.Last<ReadIndexReply>(kThree).outcome, ReadOutcome::kLeaderLost);
  // Late answers of the old office count for nothing, in a new one neither.
  bench.Listen();
  AppendEntriesReply late;
  late.term = led;
  late.success = true;
  late.read_round = 1;
  bench.Hear(kThree, late);
  EXPECT_THAT(bench.results, IsEmpty());
  EXPECT_THAT(bench.All<ReadIndexReply>(), IsEmpty());
}

TEST(ReadRound, ANewOfficeCountsNoAnswerOfTheOldOne) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Echo(kTwo, 1);
  EXPECT_THAT(bench.TakeResults(), SizeIs(1));
  bench.Hear(kTwo, bench.Append(bench->term().value() + 1, 2, 2, {}));
  bench.OutlastLeases();
  bench.Lead();
  ASSERT_EQ(bench->role(), Role::kLeader);
  bench.Ask(2);
  EXPECT_THAT(bench.results, IsEmpty()) << "round 1 was answered, in another term";
  bench.Echo(kTwo, bench.Last<AppendEntries>(kTwo).read_round);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

// Its sender may lead again in this term, after a restart that made its rounds, and after a reboot
// that made its clock, begin anew.
TEST(ReadRound, AnAppendOfAnEarlierTermIsRefusedWithoutItsClockAndRound) {
  ReadBench bench;
  bench.Follow(5);
  auto late = bench.Append(4, 1, 1, {});
  late.sent_at = bench.now;
  late.read_round = 7;
  bench.Listen();
  bench.Hear(kTwo, late);
  const auto refusal = bench.Last<AppendEntriesReply>(kTwo);
  EXPECT_FALSE(refusal.success);
  EXPECT_EQ(refusal.term, Term(5));
  EXPECT_EQ(refusal.echoed_sent_at, Instant{});
  EXPECT_EQ(refusal.read_round, 0u);
}

// --- A follower ---

TEST(FollowerRead, IsAnsweredByTheLeaderOfItsTerm) {
  ReadBench bench;
  bench.Follow(3);
  bench.Listen();
  bench.Ask(1);
  const auto request = bench.Last<ReadIndex>(kTwo);
  EXPECT_EQ(request.term, Term(3));
  bench.Hear(kTwo, ReadIndexReply{Term(3), request.id, ReadOutcome::kConfirmed, Index(7), 0});
  const ReadResult result = bench.TakeOne();
  EXPECT_EQ(result.index, Index(7));
  bench.Hear(kTwo, ReadIndexReply{Term(3), request.id, ReadOutcome::kConfirmed, Index(7), 0});
  EXPECT_THAT(bench.results, IsEmpty()) << "once";
}

TEST(FollowerRead, TakesNoAnswerOfAnotherTermNodeOrRequest) {
  ReadBench bench;
  bench.Follow(3);
  bench.Ask(1);
  const uint64_t id = bench.Last<ReadIndex>(kTwo).id;
  const auto confirmed = [](uint64_t term, uint64_t request) {
    return ReadIndexReply{Term(term), request, ReadOutcome::kConfirmed, Index(1), 0};
  };
  bench.Hear(kTwo, confirmed(2, id));
  bench.Hear(kTwo, confirmed(4, id));
  bench.Hear(kThree, confirmed(3, id));
  bench.Hear(kTwo, confirmed(3, id + 1));
  bench.Hear(kTwo, confirmed(3, id - 1));
  EXPECT_THAT(bench.results, IsEmpty());
  bench.Hear(kTwo, confirmed(3, id));
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

TEST(FollowerRead, NumbersAreNeverUsedAgainNotByTheNextProcessEither) {
  // etcd #20418.
  BenchSetup setup;
  setup.options.read_ids_from = 5000;
  ReadBench bench(setup);
  bench.Follow(3);
  bench.Ask(1);
  EXPECT_EQ(bench.Last<ReadIndex>(kTwo).id, 5001u);
  bench.Ask(2);
  EXPECT_EQ(bench.Last<ReadIndex>(kTwo).id, 5002u);
  bench.Follow(4);
  EXPECT_THAT(bench.TakeResults(), SizeIs(2));
  bench.Ask(1);
  EXPECT_EQ(bench.Last<ReadIndex>(kTwo).id, 5003u) << "the caller's id comes back, ours does not";
}

TEST(FollowerRead, FailsWhenTheTermOrTheLeaderChanges) {
  for (bool by_term : {true, false}) {
    ReadBench bench;
    bench.Follow(3);
    bench.Ask(1);
    if (by_term) {
      bench.Follow(4);
    } else {
      bench.now = bench->NextDeadline();  // nothing heard for an election timeout
      bench.TickAndCollect();
    }
    EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kLeaderLost);
  }
}

TEST(FollowerRead, FailsAtOnceWithoutALeader) {
  ReadBench bench;
  bench.Ask(1);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kNoLeader);
}

TEST(FollowerRead, FailsAfterAnElectionTimeoutWithoutAnAnswer) {
  ReadBench bench;
  bench.Follow(3);
  bench.Ask(1);
  for (int passed = 50; passed < 300; passed += 50) {
    bench.Pass(50);
    bench.Follow(3);  // heartbeats arrive, the answer does not
    bench.TickAndCollect();
    ASSERT_THAT(bench.results, IsEmpty()) << passed;
  }
  EXPECT_EQ(bench->NextDeadline(), bench.now + milliseconds(50)) << "the driver is woken for it";
  bench.Pass(50);
  bench.TickAndCollect();
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kTimedOut);
}

TEST(FollowerRead, ReadsOfBothModesAreAskedForSeparately) {
  // A lease must never answer who asked for a round.
  BenchSetup setup;
  setup.options.read_rounds_max = 1;
  ReadBench bench(setup);
  bench.Follow(3);
  bench.Ask(1);
  bench.Ask(2, ReadMode::kLease);
  bench.Ask(3);
  const uint64_t first = bench.Last<ReadIndex>(kTwo).id;
  bench.Listen();
  bench.Hear(kTwo, ReadIndexReply{Term(3), first, ReadOutcome::kConfirmed, Index(1), 0});
  const auto requests = bench.All<ReadIndex>(kTwo);
  ASSERT_THAT(requests, SizeIs(2));
  EXPECT_NE(requests[0].lease, requests[1].lease);
  EXPECT_NE(requests[0].id, requests[1].id);
}

// --- Leases ---

class LeaseBench : public ReadBench {
 public:
  explicit LeaseBench(BenchSetup setup = {}) : ReadBench(std::move(setup)) {
    core().SetLeases(true);
  }
};

TEST(Lease, IsOffUnlessAskedFor) {
  ReadBench bench;
  bench.Lead();
  EXPECT_FALSE(bench->lease_until());
  bench.Ask(1, ReadMode::kLease);
  EXPECT_THAT(bench.results, IsEmpty()) << "a round, then";
  EXPECT_EQ(bench.Last<AppendEntries>(kTwo).read_round, 1u);
  bench->SetLeases(true);
  EXPECT_TRUE(bench->lease_until());
}

TEST(Lease, LastsFromWhenTheAnsweredMessageWasSent) {
  LeaseBench bench;
  bench.Lead();
  const Instant sent = bench.now;
  bench.Pass(40);
  bench.Echo(kTwo, 0, true, sent);
  EXPECT_EQ(bench->lease_until(), sent + milliseconds(135)) << "not from when it was answered";
}

TEST(Lease, AnswersWithoutAMessage) {
  LeaseBench bench;
  bench.Lead();
  bench.Listen();
  bench.Ask(1, ReadMode::kLease);
  const ReadResult result = bench.TakeOne();
  EXPECT_EQ(result.index, bench->commit());
  EXPECT_EQ(result.lease_until, bench->lease_until());
  EXPECT_THAT(bench.sent, IsEmpty());
  bench.Hear(kThree, ReadIndex{bench->term(), 4, true, 0});
  EXPECT_EQ(bench.Last<ReadIndexReply>(kThree).outcome, ReadOutcome::kConfirmed);
  bench.Listen();
  bench.Hear(kThree, ReadIndex{bench->term(), 5, false, 0});
  EXPECT_THAT(bench.All<ReadIndexReply>(), IsEmpty()) << "it did not ask for a lease";
}

TEST(Lease, EndsByItselfAndThenARoundIsNeeded) {
  LeaseBench bench;
  bench.Lead();
  bench.Pass(134);
  bench.Ask(1, ReadMode::kLease);
  EXPECT_THAT(bench.TakeResults(), SizeIs(1));
  bench.Pass(1);
  bench.Ask(2, ReadMode::kLease);
  EXPECT_THAT(bench.results, IsEmpty());
  bench.Echo(kTwo, 1);
  EXPECT_EQ(bench.TakeOne().lease_until, std::nullopt);
}

TEST(Lease, IsNoLongerThanTheSmallestTimeoutThatAVoterStates) {
  LeaseBench bench;
  bench.Lead();
  bench.Echo(kThree, 0, true, {}, milliseconds(100));
  EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(90));
  bench.Echo(kThree, 0, true, {}, milliseconds(1000));
  EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(135)) << "this node's own, and kTwo's";
  bench.Echo(kTwo, 0, true, {}, milliseconds(-5));
  EXPECT_LE(bench->lease_until(), bench.now) << "nonsense gives none";
}

TEST(Lease, TheDriftThatIsAllowedIsTakenOff) {
  for (const auto& [permille, expected] :
       {std::pair{0u, 150}, {500u, 75}, {1000u, 0}, {5000u, 0}}) {
    BenchSetup setup;
    setup.options.lease_drift_permille = permille;
    LeaseBench bench(setup);
    bench.Lead();
    EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(expected));
  }
}

TEST(Lease, NeedsTheNoopOfTheTerm) {
  LeaseBench bench;
  bench.Elect();
  EXPECT_FALSE(bench->lease_until());
  bench.Lead();
  EXPECT_TRUE(bench->lease_until());
}

TEST(Lease, NeedsBothMajoritiesOfAJointMembership) {
  // Voters 1, 2, 3; then 1, 4, 5 are to be the voters.
  LeaseBench bench({.voters = 3, .learners = 2});
  bench.Lead();
  for (StoreId learner : {kFour, kFive, kFour, kFive}) bench.Echo(learner, 0);
  const Instant before = bench.now;
  using Kind = MemberStep::Kind;
  const ChangeResult change = bench.Change({{Kind::kPromote, kFour, "", ""},
                                            {Kind::kPromote, kFive, "", ""},
                                            {Kind::kRemove, kTwo, "", ""},
                                            {Kind::kRemove, kThree, "", ""}});
  ASSERT_EQ(change.status, ChangeStatus::kAccepted);
  bench.Pass(60);
  bench.Tick();
  // They answer, and have not yet got the entry.
  bench.Echo(kTwo, 0, false);
  bench.Echo(kThree, 0, false);
  EXPECT_EQ(bench->lease_until(), before + milliseconds(135)) << "the old half only";
  bench.Echo(kFour, 0, false);
  EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(135));
  bench.Echo(kThree, 0, false, {}, milliseconds(50));
  EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(45))
      << "a voter of the old half states it";
  bench.Ask(1);
  bench.Echo(kFour, 1, false);
  bench.Echo(kFive, 1, false);
  EXPECT_THAT(bench.results, IsEmpty()) << "the new half only";
  bench.Echo(kTwo, 1, false);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
}

TEST(Lease, IsGivenUpForTheTermBeforeLeadershipIsHandedOver) {
  LeaseBench bench;
  bench.Lead();
  ASSERT_TRUE(bench->lease_until());
  ASSERT_EQ(bench.Transfer(kTwo), TransferStatus::kStarted);
  ASSERT_FALSE(bench.All<TimeoutNow>(kTwo).empty());
  EXPECT_FALSE(bench->lease_until());
  // The target is silent, and this node leads on. TimeoutNow may still arrive.
  for (int i = 0; i < 7; ++i) {
    bench.Pass(50);
    bench.Tick();
    bench.Echo(kThree, 0);
  }
  ASSERT_EQ(bench->role(), Role::kLeader);
  ASSERT_EQ(bench->transfer_target(), StoreId());
  EXPECT_FALSE(bench->lease_until());
}

TEST(Lease, NeedsThatEveryVoterWhichAnswersKeepsItsPromise) {
  // A store of an older build forgets what it has promised with its process, and states nothing.
  LeaseBench bench;
  bench.Lead();
  bench.Echo(kThree, 0);
  ASSERT_EQ(bench->lease_until(), bench.now + milliseconds(135));
  bench.Echo(kThree, 0, true, {}, Duration(0));
  EXPECT_LE(bench->lease_until(), bench.now) << "though kTwo alone would be a majority";
  bench.Ask(1, ReadMode::kLease);
  EXPECT_THAT(bench.results, IsEmpty());
  bench.Echo(kTwo, 1);
  EXPECT_EQ(bench.TakeOne().lease_until, std::nullopt) << "a round instead";
  bench.Echo(kThree, 1);
  EXPECT_EQ(bench->lease_until(), bench.now + milliseconds(135))
      << "it has been brought up to date";
}

TEST(Lease, SwitchedOffItEndsAtOnce) {
  LeaseBench bench;
  bench.Lead();
  ASSERT_TRUE(bench->lease_until());
  bench->SetLeases(false);
  EXPECT_FALSE(bench->lease_until());
  bench.Ask(1, ReadMode::kLease);
  bench.Hear(kThree, ReadIndex{bench->term(), 4, true, 0});
  EXPECT_THAT(bench.results, IsEmpty());
  EXPECT_THAT(bench.All<ReadIndexReply>(), IsEmpty());
  bench.Echo(kTwo, 2);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kConfirmed);
  EXPECT_EQ(bench.Last<ReadIndexReply>(kThree).outcome, ReadOutcome::kConfirmed);
}

TEST(Lease, EndsWithTheOffice) {
  LeaseBench bench;
  bench.Lead();
  ASSERT_TRUE(bench->lease_until());
  bench.Hear(kTwo, bench.Append(bench->term().value() + 1, 1, 1, {}));
  EXPECT_FALSE(bench->lease_until());
}

// --- Errors ---

TEST(ReadErrors, ThereIsABoundOnWhatWaits) {
  BenchSetup setup;
  setup.options.reads_max = 3;
  ReadBench bench(setup);
  bench.Lead();
  bench.Ask(1);
  bench.Hear(kThree, ReadIndex{bench->term(), 1, false, 0});
  bench.Ask(2);
  bench.Ask(3);
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kTooMany);
  bench.Hear(kThree, ReadIndex{bench->term(), 2, false, 0});
  EXPECT_EQ(bench.Last<ReadIndexReply>(kThree).outcome, ReadOutcome::kTooMany);
  bench.Echo(kTwo, 9);
  EXPECT_THAT(bench.results, IsEmpty()) << "no such round has begun";
  bench.Echo(kTwo, 3);
  EXPECT_THAT(bench.TakeResults(), SizeIs(2));
  bench.Ask(4);
  EXPECT_THAT(bench.results, IsEmpty()) << "there is room again";
}

TEST(ReadErrors, ALeaderThatIsNotAnsweredStepsDownAndSaysSo) {
  ReadBench bench;
  bench.Lead();
  bench.Ask(1);
  bench.Pass(150);
  bench.TickAndCollect();
  EXPECT_EQ(bench.TakeOne().outcome, ReadOutcome::kLeaderLost);
}

TEST(ReadErrors, WhoIsNoLeaderOfThatTermSaysSo) {
  ReadBench bench;
  const auto ask = [&](uint64_t term) {
    bench.Listen();
    bench.Hear(kThree, ReadIndex{Term(term), 8, true, 3});
    return bench.Last<ReadIndexReply>(kThree);
  };
  EXPECT_EQ(ask(1).outcome, ReadOutcome::kLeaderLost);
  bench.Lead();
  EXPECT_EQ(ask(1).outcome, ReadOutcome::kLeaderLost);
  EXPECT_EQ(ask(1).call_id, 3u);
  EXPECT_EQ(ask(99).outcome, ReadOutcome::kLeaderLost);
  EXPECT_EQ(bench->term(), Term(2)) << "a term is not taken from there";
}

TEST(ReadErrors, NumbersOutOfThisWorldAreIgnored) {
  ReadBench bench;
  bench.Follow(3);
  bench.Ask(1);
  const uint64_t id = bench.Last<ReadIndex>(kTwo).id;
  bench.Hear(kTwo, ReadIndexReply{Term(3), id, ReadOutcome::kConfirmed, Index(UINT64_MAX), 0});
  bench.Hear(kTwo, ReadIndexReply{Term(UINT64_MAX), id, ReadOutcome::kLeaderLost, Index(), 0});
  EXPECT_EQ(bench->ignored_messages(), 2u);
  EXPECT_THAT(bench.results, IsEmpty());
}

}  // namespace
}  // namespace quorate::raft::testing
