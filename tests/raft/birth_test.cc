// Birth, told as stories (raft/birth.h); those of disks that are wiped or copied are in
// birth_disk_test.cc. The model test next door looks for what must never be.
#include "raft/birth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/raft/birth_world.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using testing::BirthWorld;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// --- The good day ---

TEST(BirthTest, ThreeFoundersAreBornOnceWithOneFirstEntry) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(2));
  ASSERT_TRUE(world.AllBornTogether());
  std::optional<Membership> membership = DecodeMembership(world.node(0).birth->record().payload);
  ASSERT_TRUE(membership.has_value());
  EXPECT_EQ(membership->cluster, world.ClusterOf(0));
  EXPECT_THAT(membership->Voters(), SizeIs(3));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(world.node(i).birth->record().payload, world.node(0).birth->record().payload);
    const Member* self = membership->Find(world.node(i).store);
    ASSERT_NE(self, nullptr);
    EXPECT_EQ(self->name, world.node(i).name);
    EXPECT_EQ(self->address, world.node(i).address);
    EXPECT_EQ(world.Status(i).state, BirthState::kBorn);
    EXPECT_THAT(world.Lacks(i), HasSubstr("BirthComplete"));
  }
  EntryPtr first = FirstEntry(world.node(0).birth->record().payload);
  EXPECT_EQ(first->index, Index(1));
  EXPECT_EQ(first->term, Term(1));
  EXPECT_EQ(first->type, EntryType::kMembership);

  for (size_t i = 0; i < 3; ++i) world.node(i).birth->OnBirthComplete(world.now());
  EXPECT_EQ(world.Status(1).state, BirthState::kComplete);
  EXPECT_THAT(world.Status(1).lacks, IsEmpty());
}

TEST(BirthTest, OnlyTheFirstNameProposesAndTheOthersSayWhomTheyWaitFor) {
  BirthWorld world(3);
  world.Start(1);
  world.Start(2);
  world.Run(seconds(3));
  EXPECT_EQ(world.node(1).birth->record(), BirthRecord());
  EXPECT_EQ(world.Status(1).state, BirthState::kSearching);
  EXPECT_THAT(world.Status(1).lacks,
              ElementsAre(AllOf(HasSubstr("cp-0 (10.0.0.1:7000) does not answer"),
                                HasSubstr("connection refused"))));
  world.Start(0);
  world.Run(seconds(1));
  EXPECT_TRUE(world.AllBornTogether());
}

BirthOptions LoneFounder() {
  BirthOptions options;
  options.store = StoreId(7);
  options.name = "only";
  options.nonce = 1;
  options.founders = {"only"};
  return options;
}

TEST(BirthTest, ALoneFounderIsBornAsSoonAsDiscoveryHasSpoken) {
  BirthWorld world(1);
  world.node(0).peers.clear();
  BirthOptions options = LoneFounder();
  Birth birth(options, BirthRecord(), world.now());
  birth.Begin(world.now());
  EXPECT_FALSE(birth.TakeOutput().persist.has_value());
  EXPECT_THAT(birth.Status(world.now()).lacks, ElementsAre(HasSubstr("no peer addresses yet")));
  birth.SetAddresses({}, world.now());
  BirthOutput output = birth.TakeOutput();
  ASSERT_TRUE(output.persist.has_value());
  EXPECT_TRUE(output.persist->born);
  ASSERT_TRUE(output.create_log.has_value());
  EXPECT_EQ(output.create_log->cluster, output.persist->cluster());
  EXPECT_FALSE(birth.may_run());
  birth.OnLogCreated(world.now());
  EXPECT_TRUE(birth.TakeOutput().persist->log_created);
  EXPECT_TRUE(birth.may_run());
}

TEST(BirthTest, ALoneFounderIsNotBornWhileAnotherAddressIsListed) {
  BirthWorld world(1);
  world.node(0).peers.push_back({"10.0.0.9:7000", ""});
  world.StartAll();
  world.Run(seconds(3));
  EXPECT_FALSE(world.Born(0));
  EXPECT_THAT(world.Lacks(0), HasSubstr("10.0.0.9:7000 is listed as well"));
  // Its own other address is nobody else.
  world.node(0).birth->SetAddresses({{world.node(0).address, ""}}, world.now());
  world.Run(seconds(1));
  EXPECT_TRUE(world.Born(0));
}

TEST(BirthTest, ALoneFounderWaitsForAWholeAnswerOfDiscovery) {
  BirthWorld world(1);
  BirthOptions options = LoneFounder();
  Birth birth(options, BirthRecord(), world.now());
  birth.Begin(world.now());
  birth.SetAddresses({}, world.now(), false);
  EXPECT_FALSE(birth.TakeOutput().persist.has_value());
  EXPECT_THAT(birth.Status(world.now()).lacks, ElementsAre(HasSubstr("only in part")));
  birth.SetAddresses({}, world.now(), true);
  EXPECT_TRUE(birth.TakeOutput().persist.has_value());
}

// A born store that starts again, is told of another place with its name, and meanwhile where to
// ask.
TEST(BirthTest, AddressesThatAreSaidAgainEndNoQuestionForADouble) {
  BirthWorld world(1);
  BirthOptions options = LoneFounder();
  options.address = "10.0.0.1:7000";
  Birth first(options, BirthRecord(), world.now());
  first.Begin(world.now());
  first.SetAddresses({}, world.now());
  const ClusterId cluster = first.TakeOutput().create_log->cluster;
  first.OnLogCreated(world.now());

  options.nonce = 2;
  Birth birth(options, first.record(), world.now());
  birth.Begin(world.now());
  const std::vector<PeerAddress> addresses = {{"10.0.0.2:7000", ""}};
  birth.SetAddresses(addresses, world.now());
  const std::vector<BirthCall> asked = birth.TakeOutput().calls;
  ASSERT_EQ(asked.size(), 1u);
  IdentifyReply reply;
  reply.store = StoreId(8);
  reply.nonce = 3;
  reply.boot = 1;
  reply.name = "other";
  reply.address = "10.0.0.2:7000";
  reply.cluster = cluster;
  reply.membership = first.record().payload;
  reply.state = BirthState::kComplete;
  reply.asker_also_at = {"10.0.0.9:7000"};
  birth.OnReply(asked[0].id, reply, world.now());
  const std::vector<BirthCall> double_asked = birth.TakeOutput().calls;
  ASSERT_EQ(double_asked.size(), 1u);
  EXPECT_EQ(double_asked[0].address, "10.0.0.9:7000");
  EXPECT_FALSE(birth.may_run());

  birth.SetAddresses(addresses, world.now());
  EXPECT_FALSE(birth.may_run());
  EXPECT_THAT(birth.TakeOutput().calls, IsEmpty());  // who has just been asked is not asked again
  birth.OnCallFailed(double_asked[0].id, "connection refused", world.now());
  EXPECT_TRUE(birth.may_run());
}

TEST(BirthTest, WhoHasOnlyHeardAPartOfDiscoveryWaitsForTheRestButNotForLong) {
  BirthWorld world(1);
  BirthOptions options = LoneFounder();
  Birth first(options, BirthRecord(), world.now());
  first.Begin(world.now());
  first.SetAddresses({}, world.now());
  first.OnLogCreated(world.now());
  options.nonce = 2;
  for (const bool whole : {true, false}) {
    Birth birth(options, first.record(), world.now());
    birth.Begin(world.now());
    birth.SetAddresses({}, world.now(), whole);
    EXPECT_EQ(birth.may_run(), whole);
    birth.Tick(world.now() + options.ask_first_max);
    EXPECT_TRUE(birth.may_run());
  }
}

// --- Crashes ---

TEST(BirthTest, AProposerThatRestartsGoesOnWithItsProposal) {
  BirthWorld world(3);
  world.StartAll();
  // Once a follower has pledged itself, the proposer hears nothing any more.
  world.Run(seconds(1), [&](const auto& f) {
    return f.reply && f.from == world.node(0).address && world.node(1).identity;
  });
  ASSERT_TRUE(world.node(0).birth->record().pledge.has_value());
  const Proposal before = *world.node(0).birth->record().pledge;
  EXPECT_EQ(world.Status(0).state, BirthState::kProposing);
  EXPECT_EQ(world.Status(1).state, BirthState::kPledged);
  world.Kill(0);
  world.Start(0);
  world.Run(seconds(1));
  ASSERT_TRUE(world.AllBornTogether());
  EXPECT_EQ(world.ClusterOf(2), before.cluster);
}

TEST(BirthTest, ABornFounderPassesBirthOnWhenTheProposerIsGone) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1), [&](const auto& f) { return f.IsBorn() && f.to == world.node(2).address; });
  ASSERT_TRUE(world.Born(0) && world.Born(1));
  ASSERT_FALSE(world.Born(2));
  world.Kill(0);
  world.Run(seconds(4));
  EXPECT_TRUE(world.Born(2));
  EXPECT_EQ(world.ClusterOf(2), world.ClusterOf(1));
}

TEST(BirthTest, AStoreThatDiedBetweenBornAndItsLogIsToldAgain) {
  BirthWorld world(1);
  BirthRecord record;
  record.pledge = Proposal{StoreId(0x1001), 1, ClusterId(9), {{"cp-0", StoreId(0x1001), "a:1"}}};
  record.last_round = 1;
  record.born = true;
  record.payload = EncodeMembership(FoundingMembership(*record.pledge));
  BirthOptions options;
  options.store = StoreId(0x1001);
  options.name = "cp-0";
  options.nonce = 1;
  options.founders = {"cp-0"};
  Birth birth(options, record, world.now());
  birth.Begin(world.now());
  BirthOutput output = birth.TakeOutput();
  ASSERT_TRUE(output.create_log.has_value());
  EXPECT_EQ(output.create_log->first_entry->payload, record.payload);
  EXPECT_EQ(birth.Status(world.now()).state, BirthState::kBorn);
}

// --- Configurations that do not fit ---

TEST(BirthTest, DifferentFoundersAreNamedAtBothEnds) {
  BirthWorld world(3);
  world.node(2).founders = {"cp-0", "cp-2", "cp-7"};
  world.StartAll();
  world.Run(seconds(2));
  EXPECT_FALSE(world.Born(0));
  EXPECT_EQ(world.node(0).birth->record(), BirthRecord());
  EXPECT_EQ(world.Status(0).state, BirthState::kFoundersDiffer);
  EXPECT_THAT(world.Lacks(0), AllOf(HasSubstr("cp-2 (10.0.0.3:7000)"),
                                    HasSubstr("only there: cp-7; only here: cp-1")));
  EXPECT_EQ(world.Status(2).state, BirthState::kFoundersDiffer);
  EXPECT_THAT(world.Lacks(2), HasSubstr("only there: cp-1; only here: cp-7"));
}

TEST(BirthTest, AFounderThatLeavesAnotherOutOfItsSetIsNotFollowed) {
  BirthWorld world(3);
  world.node(0).founders = {"cp-0", "cp-1"};
  world.StartAll();
  world.Run(seconds(2));
  EXPECT_FALSE(world.Born(0) || world.Born(1) || world.Born(2));
  EXPECT_THAT(world.Lacks(2), HasSubstr("only here: cp-2"));
  EXPECT_THAT(world.Lacks(0), HasSubstr("only there: cp-2"));
}

TEST(BirthTest, TwoLiveNodesWithOneNameAreNamed) {
  BirthWorld world(3);
  const size_t twin =
      world.Add("cp-1", "10.0.0.9:7000", world.node(0).founders, world.node(0).peers);
  for (size_t i = 0; i < 3; ++i) world.node(i).peers.push_back({"10.0.0.9:7000", ""});
  world.StartAll();
  world.Run(seconds(2));
  EXPECT_FALSE(world.Born(0));
  EXPECT_THAT(world.Lacks(0), AllOf(HasSubstr("several live nodes call themselves cp-1"),
                                    HasSubstr("10.0.0.9:7000")));
  world.Kill(twin);
  world.Run(seconds(5));
  EXPECT_TRUE(world.Born(0) && world.Born(1) && world.Born(2));
}

TEST(BirthTest, AnAddressWithAnotherNodeBehindItIsNamed) {
  BirthWorld world(3);
  for (size_t i = 0; i < 3; ++i) world.node(i).peers[1].address = world.node(2).address;
  world.StartAll();
  world.Run(seconds(2));
  EXPECT_FALSE(world.Born(0));
  EXPECT_THAT(world.Lacks(0), HasSubstr("cp-1"));
}

TEST(BirthTest, ANodeOutsideTheFoundersNeverFounds) {
  BirthWorld world(1);
  world.node(0).founders = {"a", "b"};
  world.StartAll();
  world.Run(seconds(1));
  EXPECT_EQ(world.Status(0).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world.Lacks(0), HasSubstr("cp-0, is not among the founders (a, b)"));
}

// --- Errors ---

class BirthErrorTest : public ::testing::Test {
 protected:
  BirthErrorTest() : world_(3) {
    world_.StartAll();
    world_.Run(milliseconds(300), [](const auto& f) { return f.IsPropose(); });
    request_.to = world_.node(1).store;
    request_.proposal = {world_.node(0).store, 5, ClusterId(77), {}};
    for (size_t i = 0; i < 3; ++i) {
      request_.proposal.founders.push_back(
          {world_.node(i).name, world_.node(i).store, world_.node(i).address});
    }
  }
  Refusal Ask(const Propose& request) {
    const BirthRecord before = birth().record();
    PledgeReply reply = birth().OnPropose(request, world_.now());
    BirthOutput output = birth().TakeOutput();
    if (reply.refusal != Refusal::kNone) {
      EXPECT_EQ(birth().record(), before);
      EXPECT_FALSE(output.persist.has_value());
    }
    return reply.refusal;
  }
  Refusal Tell(const Born& request) {
    const BirthRecord before = birth().record();
    BornReply reply = birth().OnBorn(request, world_.now());
    if (reply.refusal != Refusal::kNone) {
      EXPECT_EQ(birth().record(), before);
    }
    return reply.refusal;
  }
  Born BornOf(const Proposal& proposal) {
    return {world_.node(1).store, proposal.pledge(), proposal.cluster,
            EncodeMembership(FoundingMembership(proposal))};
  }
  Birth& birth() { return *world_.node(1).birth; }

  BirthWorld world_;
  Propose request_;
};

TEST_F(BirthErrorTest, AProposalIsTakenOnceAndRepeatedWithoutHarm) {
  EXPECT_EQ(Ask(request_), Refusal::kNone);
  EXPECT_EQ(birth().record().pledge, request_.proposal);
  EXPECT_EQ(Ask(request_), Refusal::kNone);
  Propose changed = request_;
  changed.proposal.cluster = ClusterId(78);
  EXPECT_EQ(Ask(changed), Refusal::kMalformed);
}

TEST_F(BirthErrorTest, APledgeMovesOnlyForwardAndOnlyFromWhatWasReported) {
  ASSERT_EQ(Ask(request_), Refusal::kNone);
  Propose next = request_;
  next.proposal.round = 6;
  EXPECT_EQ(Ask(next), Refusal::kPledgeMoved);  // expects no pledge
  next.expected = request_.proposal.pledge();
  EXPECT_EQ(Ask(next), Refusal::kNone);
  Propose back = request_;
  back.expected = next.proposal.pledge();
  EXPECT_EQ(Ask(back), Refusal::kPledgeMoved);  // an earlier round
}

TEST_F(BirthErrorTest, MalformedProposalsAreRefused) {
  const Propose good = request_;
  auto refused = [&](const std::function<void(Proposal*)>& change) {
    Propose bad = good;
    change(&bad.proposal);
    return Ask(bad);
  };
  EXPECT_EQ(refused([](Proposal* p) { p->round = 0; }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->round = 1ull << 63; }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->cluster = ClusterId(); }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->proposer = StoreId(); }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders.clear(); }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[2].store = p->founders[1].store; }),
            Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { std::swap(p->founders[1], p->founders[2]); }),
            Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[2].name = ""; }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[2].name = std::string(256, 'x'); }),
            Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[2].address = std::string(256, 'x'); }),
            Refusal::kMalformed);
  // Not the first name's proposal.
  EXPECT_EQ(refused([](Proposal* p) { p->proposer = p->founders[2].store; }), Refusal::kMalformed);
  EXPECT_EQ(refused([](Proposal* p) { p->founders.pop_back(); }), Refusal::kFoundersDiffer);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[2].name = "cp-7"; }), Refusal::kFoundersDiffer);
  EXPECT_EQ(refused([](Proposal* p) { p->founders[1].store = StoreId(5); }), Refusal::kWrongStore);
  Propose elsewhere = good;
  elsewhere.to = StoreId(5);
  EXPECT_EQ(Ask(elsewhere), Refusal::kWrongStore);
}

TEST_F(BirthErrorTest, BornIsAcceptedForTheCurrentPledgeOnly) {
  EXPECT_EQ(Tell(BornOf(request_.proposal)), Refusal::kPledgeMoved);  // none yet
  ASSERT_EQ(Ask(request_), Refusal::kNone);
  Proposal other = request_.proposal;
  other.round = 4;
  EXPECT_EQ(Tell(BornOf(other)), Refusal::kPledgeMoved);

  Born bad = BornOf(request_.proposal);
  bad.to = StoreId(5);
  EXPECT_EQ(Tell(bad), Refusal::kWrongStore);
  bad = BornOf(request_.proposal);
  bad.payload.pop_back();
  EXPECT_EQ(Tell(bad), Refusal::kMalformed);
  bad = BornOf(request_.proposal);
  bad.cluster = ClusterId(78);
  EXPECT_EQ(Tell(bad), Refusal::kMalformed);
  other = request_.proposal;
  other.founders[2].address = "elsewhere:1";
  EXPECT_EQ(Tell(BornOf(other)), Refusal::kMalformed);  // the same pledge, another membership

  EXPECT_EQ(Tell(BornOf(request_.proposal)), Refusal::kNone);
  EXPECT_TRUE(birth().TakeOutput().create_log.has_value());
  EXPECT_EQ(Tell(BornOf(request_.proposal)), Refusal::kNone);  // again: no harm
  EXPECT_FALSE(birth().TakeOutput().create_log.has_value());

  other = request_.proposal;
  other.cluster = ClusterId(78);
  EXPECT_EQ(Tell(BornOf(other)), Refusal::kBornElsewhere);
  Propose next = request_;
  next.proposal.round = 6;
  next.expected = request_.proposal.pledge();
  EXPECT_EQ(Ask(next), Refusal::kBornElsewhere);
}

TEST_F(BirthErrorTest, MalformedAnswersAreLikeNone) {
  IdentifyReply good;
  good.store = StoreId(3);
  good.nonce = 4;
  good.name = "cp-1";
  good.founders = {"cp-0", "cp-1", "cp-2"};
  std::vector<IdentifyReply> bad(6, good);
  bad[0].store = StoreId();
  bad[1].name.clear();
  bad[2].name = std::string(256, 'x');
  bad[3].founders.push_back("");
  bad[4].cluster = ClusterId(5);  // born, and no membership
  bad[5].asker_also_at.assign(5, "a:1");
  for (const IdentifyReply& reply : bad) {
    BirthWorld world(3);
    world.Start(0);
    for (const auto& flight : world.flights()) {
      if (flight.to == "10.0.0.2:7000") {
        world.node(0).birth->OnReply(flight.call, reply, world.now());
      }
    }
    EXPECT_THAT(world.Lacks(0),
                HasSubstr("cp-1 (10.0.0.2:7000) does not answer: the answer is malformed"));
  }
}

TEST_F(BirthErrorTest, ACallWithoutAnswerEndsByItselfAndALateAnswerIsIgnored) {
  BirthWorld world(2);
  world.Start(0);
  const std::vector<BirthWorld::Flight> asked = world.flights();
  ASSERT_FALSE(asked.empty());
  world.Advance(seconds(2));
  world.Tick(0);
  EXPECT_THAT(world.Lacks(0), HasSubstr("no answer in time"));
  IdentifyReply late;
  late.store = StoreId(3);
  late.nonce = 4;
  late.name = "cp-1";
  late.founders = world.node(0).founders;
  for (const auto& flight : asked) {
    if (flight.to != "10.0.0.2:7000") continue;
    world.node(0).birth->OnReply(flight.call, late, world.now());
  }
  EXPECT_FALSE(world.node(0).birth->record().pledge.has_value());
}

TEST(BirthRecordTest, EveryPhaseIsReadBackAsWritten) {
  BirthRecord record;
  EXPECT_EQ(DecodeBirthRecord(EncodeBirthRecord(record)), record);
  record.last_round = 3;
  record.pledge = Proposal{StoreId(1),
                           3,
                           ClusterId(9),
                           {{"a", StoreId(1), "h:1"}, {std::string(255, 'b'), StoreId(2), ""}}};
  EXPECT_EQ(DecodeBirthRecord(EncodeBirthRecord(record)), record);
  record.born = true;
  record.payload = EncodeMembership(FoundingMembership(*record.pledge));
  EXPECT_EQ(DecodeBirthRecord(EncodeBirthRecord(record)), record);
  record.log_created = true;
  EXPECT_EQ(DecodeBirthRecord(EncodeBirthRecord(record)), record);
}

TEST(BirthRecordTest, HostileBytesAreRefused) {
  BirthRecord record;
  record.last_round = 3;
  record.pledge =
      Proposal{StoreId(1), 3, ClusterId(9), {{"a", StoreId(1), "h:1"}, {"b", StoreId(2), "h:2"}}};
  record.born = true;
  record.payload = EncodeMembership(FoundingMembership(*record.pledge));
  const std::string good = EncodeBirthRecord(record);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_EQ(DecodeBirthRecord(good.substr(0, length)), std::nullopt) << length;
  }
  EXPECT_EQ(DecodeBirthRecord(good + "x"), std::nullopt);
  // A changed byte is refused, or means just what its bytes say.
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      std::optional<BirthRecord> decoded = DecodeBirthRecord(bad);
      if (decoded) {
        EXPECT_EQ(EncodeBirthRecord(*decoded), bad) << at << ":" << bit;
      }
    }
  }
  std::string version = good;
  version[0] = 2;
  EXPECT_EQ(DecodeBirthRecord(version), std::nullopt);
}

}  // namespace
}  // namespace quorate::raft
