// Birth over disks that are not what they were: wiped, old, or copied (raft/birth.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "raft/birth.h"
#include "tests/raft/birth_world.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using testing::BirthWorld;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// --- Wiped disks ---

TEST(BirthDiskTest, AFollowerWipedBeforeAnybodyIsBornIsReplacedInANewRound) {
  BirthWorld world(3);
  world.StartAll();
  // cp-1's pledge is made but its answer is lost, then its disk.
  world.Run(seconds(1), [](const auto& f) { return f.IsPropose() && f.to != "10.0.0.2:7000"; });
  ASSERT_TRUE(world.node(1).birth->record().pledge.has_value());
  world.Kill(1);
  world.Wipe(1);
  world.Start(1);
  world.Run(seconds(5));
  ASSERT_TRUE(world.AllBornTogether());
  EXPECT_EQ(world.node(0).birth->record().pledge->round, 2u);
}

TEST(BirthDiskTest, AProposerWipedBeforeItDecidesIsReplacedByItsNewStore) {
  BirthWorld world(3);
  world.StartAll();
  // Once a follower has pledged itself, the proposer hears nothing any more.
  world.Run(seconds(1), [&](const auto& f) {
    return f.reply && f.from == world.node(0).address && world.node(1).identity;
  });
  ASSERT_TRUE(world.node(1).birth->record().pledge.has_value());
  world.Kill(0);
  world.Wipe(0);
  world.Start(0);
  world.Run(seconds(5));
  EXPECT_TRUE(world.AllBornTogether());
}

TEST(BirthDiskTest, ABornFounderThatIsDownBeforeBirthIsCompleteIsNamed) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  ASSERT_TRUE(world.AllBornTogether());
  world.Kill(1);
  world.Run(seconds(30));
  for (size_t i : {0u, 2u}) {
    EXPECT_EQ(world.Status(i).state, BirthState::kBorn);
    EXPECT_THAT(world.Status(i).lacks,
                ElementsAre(HasSubstr("cp-1 (10.0.0.2:7000) does not answer")));
  }
  world.Start(1);
  world.Run(seconds(4));
  EXPECT_THAT(world.Status(0).lacks, ElementsAre(HasSubstr("every founder is born")));
}

TEST(BirthDiskTest, AFounderWipedBeforeBirthIsCompleteIsNamedByEverybody) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  ASSERT_TRUE(world.AllBornTogether());
  const StoreId old_store = world.node(1).store;
  const std::optional<std::string> old_identity = world.node(1).identity;
  world.Kill(1);
  world.Wipe(1);
  world.Start(1);
  world.Run(seconds(1));
  for (size_t i : {0u, 2u}) {
    EXPECT_EQ(world.Status(i).state, BirthState::kFounderLost);
    EXPECT_THAT(world.Lacks(i), AllOf(HasSubstr("founder cp-1"), HasSubstr(ToHex(old_store)),
                                      HasSubstr("wiped or replaced before birth was complete"),
                                      HasSubstr("empty every founder's data directory")));
  }
  EXPECT_EQ(world.Status(1).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world.Lacks(1), HasSubstr("disk of member cp-1 was wiped or replaced"));
  EXPECT_FALSE(world.Born(1));

  // The old disk is found again.
  world.Kill(1);
  world.node(1).store = old_store;
  world.node(1).identity = old_identity;
  world.Start(1);
  world.Run(seconds(4));
  EXPECT_EQ(world.Status(0).state, BirthState::kBorn);
}

// It may have accepted writes: to begin again would lose them.
TEST(BirthDiskTest, AFounderWipedAfterBirthIsCompleteIsNoReasonToBeginAgainForOneThatIsBehind) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  ASSERT_TRUE(world.AllBornTogether());
  for (size_t i : {0u, 1u}) {
    world.node(i).complete = true;
    world.node(i).birth->OnBirthComplete(world.now());
  }
  world.Kill(1);
  world.Wipe(1);
  world.Start(1);
  world.Run(seconds(3));
  EXPECT_EQ(world.Status(2).state, BirthState::kBorn);
  EXPECT_THAT(world.Status(2).lacks, ElementsAre(HasSubstr("birth is complete, as cp-0 says")));

  // Who could tell it does not answer, and has the only writes: nothing may be emptied.
  world.Kill(0);
  world.Run(seconds(4));
  EXPECT_EQ(world.Status(2).state, BirthState::kFounderLost);
  EXPECT_THAT(world.Lacks(2), AllOf(HasSubstr("Empty no data directory yet: cp-0 does not answer"),
                                    Not(HasSubstr("begin again"))));
}

// An older copy of its disk: pledged to a proposal that came to nothing.
TEST(BirthDiskTest, AFounderWithAnOldDiskEmptiesItsOwnOnlyOnceBirthIsComplete) {
  BirthWorld earlier(3, 2);
  earlier.StartAll();
  earlier.Run(seconds(1), [&](const auto& f) {
    return f.reply && f.from == earlier.node(0).address && earlier.node(2).identity;
  });
  ASSERT_EQ(earlier.Status(2).state, BirthState::kPledged);

  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  ASSERT_TRUE(world.AllBornTogether());
  world.Kill(2);
  world.node(2).identity = earlier.node(2).identity;
  world.Start(2);
  world.Run(seconds(3));
  EXPECT_THAT(world.Lacks(2), AllOf(HasSubstr("has since pledged itself to another proposal"),
                                    HasSubstr("If every founder still answers in a minute")));
  for (size_t i : {0u, 1u}) {
    world.node(i).complete = true;
    world.node(i).birth->OnBirthComplete(world.now());
  }
  world.Run(seconds(3));
  EXPECT_THAT(world.Lacks(2), AllOf(HasSubstr("Birth is complete, as cp-0 says: empty no data "
                                              "directory but this node's"),
                                    Not(HasSubstr("begin again"))));
}

TEST(BirthDiskTest, AStoreThatARunningClusterDoesNotKnowWaitsAndSaysWhy) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  for (size_t i = 0; i < 3; ++i) {
    world.node(i).complete = true;
    world.node(i).birth->OnBirthComplete(world.now());
  }
  const size_t stranger =
      world.Add("cp-9", "10.0.0.10:7000", world.node(0).founders, world.node(0).peers);
  world.Start(stranger);
  world.Kill(0);  // the first name: it would propose
  world.Wipe(0);
  world.Start(0);
  world.Run(seconds(2));
  EXPECT_EQ(world.Status(0).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world.Lacks(0), AllOf(HasSubstr("knows member cp-0"), HasSubstr("wiped or replaced"),
                                    HasSubstr("neither votes nor serves")));
  EXPECT_FALSE(world.node(0).birth->record().pledge.has_value());
  EXPECT_EQ(world.Status(stranger).state, BirthState::kWaitingToJoin);
  EXPECT_THAT(world.Lacks(stranger), HasSubstr("has no member cp-9"));
}

// --- Copied directories ---

size_t AddCopy(BirthWorld* world, size_t of, const std::string& address) {
  const size_t copy =
      world->Add(world->node(of).name, address, world->node(of).founders, world->node(of).peers);
  world->node(copy).store = world->node(of).store;
  world->node(copy).boot = world->node(of).boot;
  world->node(copy).identity = world->node(of).identity;
  world->node(copy).complete = world->node(of).complete;
  return copy;
}

TEST(BirthDiskTest, ACopiedDirectoryStopsBothProcesses) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  for (size_t i = 0; i < 3; ++i) {
    world.node(i).complete = true;
    world.node(i).birth->OnBirthComplete(world.now());
  }
  // The copy's own list does not show the original: it hears of it from the others.
  const size_t copy = AddCopy(&world, 1, "10.0.0.9:7000");
  world.node(copy).peers[1].address = "10.0.0.9:7000";
  world.Start(copy);
  world.Run(seconds(7));
  ASSERT_TRUE(world.node(1).halted.has_value());
  ASSERT_TRUE(world.node(copy).halted.has_value());
  EXPECT_THAT(*world.node(1).halted, AllOf(HasSubstr("10.0.0.9:7000"), HasSubstr("copied")));
  EXPECT_THAT(*world.node(copy).halted, HasSubstr("10.0.0.2:7000"));
  EXPECT_EQ(world.Status(1).state, BirthState::kHalted);
  EXPECT_FALSE(world.node(1).birth->may_run());
  // Neither is left to run; the others go on.
  world.Run(seconds(4));
  EXPECT_TRUE(world.node(1).exited && world.node(copy).exited);
  EXPECT_FALSE(world.node(0).halted || world.node(2).halted);
}

TEST(BirthDiskTest, ACopyFindsItsOriginalBeforeItTakesPart) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  ASSERT_TRUE(world.node(1).birth->may_run());
  const size_t copy = AddCopy(&world, 1, "10.0.0.9:7000");
  world.node(copy).peers[1].address = "10.0.0.9:7000";
  world.Start(copy);
  size_t seen = 0;
  // Everybody it asked has answered before the place that they name: it has to wait for that one.
  world.Run(milliseconds(100), [&](const auto&) {
    EXPECT_FALSE(world.node(copy).birth->may_run());
    return ++seen > 1000;
  });
  EXPECT_GT(seen, 6u);
  EXPECT_TRUE(world.node(copy).halted.has_value());
  EXPECT_FALSE(world.node(copy).birth->may_run());
}

TEST(BirthDiskTest, AProcessAsksFirstAndTakesPartWhenEverybodyHasAnsweredOrFailedTo) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  world.Kill(1);
  world.Kill(2);  // refuses connections
  world.Start(1);
  EXPECT_FALSE(world.node(1).birth->may_run());
  while (!world.flights().empty()) {
    EXPECT_FALSE(world.node(1).birth->may_run()) << world.flights().size() << " not answered yet";
    BirthWorld::Flight flight = world.flights().front();
    world.flights().erase(world.flights().begin());
    world.Deliver(std::move(flight));
  }
  EXPECT_TRUE(world.node(1).birth->may_run());
}

TEST(BirthDiskTest, AnAddressThatSaysNothingHoldsNobodyUpForLong) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  world.Kill(1);
  world.Start(1);
  world.flights().clear();  // what it asked goes nowhere: no answer, no error
  const Duration bound = BirthOptions().ask_first_max;
  EXPECT_EQ(world.node(1).birth->NextDeadline(), world.now() + bound);
  world.Advance(bound - milliseconds(1));
  world.Tick(1);
  EXPECT_FALSE(world.node(1).birth->may_run());
  world.Advance(milliseconds(1));
  world.Tick(1);
  EXPECT_TRUE(world.node(1).birth->may_run());
  EXPECT_GT(world.node(1).birth->NextDeadline(), world.now());
  // An answer that is late is none the less looked at.
  const size_t copy = AddCopy(&world, 1, "10.0.0.9:7000");
  world.Start(copy);
  world.Run(seconds(7));
  EXPECT_TRUE(world.node(1).halted.has_value());
  EXPECT_FALSE(world.node(1).birth->may_run());
}

// Ports are opened between the two: on a busy machine that takes longer than anybody is waited for.
TEST(BirthDiskTest, WhoWasHeldUpBeforeItCouldAskAsksFirstAllTheSame) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  world.Kill(1);
  world.Start(1, false);
  world.flights().clear();
  const Duration bound = BirthOptions().ask_first_max;
  world.Advance(bound + milliseconds(1));
  // Its driver may have said something meanwhile.
  world.node(1).birth->SetAddresses(world.node(1).peers, world.now());
  EXPECT_FALSE(world.node(1).birth->may_run());
  world.node(1).birth->Begin(world.now());
  world.Tick(1);
  EXPECT_FALSE(world.node(1).birth->may_run());
  world.Advance(bound - milliseconds(1));
  world.Tick(1);
  EXPECT_FALSE(world.node(1).birth->may_run());
  world.Advance(milliseconds(1));
  world.Tick(1);
  EXPECT_TRUE(world.node(1).birth->may_run());
}

TEST(BirthDiskTest, AFormerSelfAtAnotherAddressIsNoDouble) {
  BirthWorld world(3);
  world.StartAll();
  world.Run(seconds(1));
  // The pod moves: the others still remember the claim of its former self.
  world.Kill(1);
  world.node(1).address = "10.0.0.77:7000";
  for (size_t i = 0; i < 3; ++i) world.node(i).peers[1].address = "10.0.0.77:7000";
  world.Start(1);
  for (size_t i : {0u, 2u}) world.node(i).birth->SetAddresses(world.node(i).peers, world.now());
  // And one of its old questions comes late.
  IdentifyRequest late{world.node(1).store, 12345, 1, "cp-1", "10.0.0.2:7000"};
  world.node(1).birth->OnIdentify(late, world.now());
  world.Act(1);
  world.Run(seconds(40));
  EXPECT_FALSE(world.node(1).halted.has_value());
  EXPECT_TRUE(world.AllBornTogether());
}

TEST(BirthDiskTest, AnAnswerToAQuestionOfAFormerProcessIsNoProof) {
  BirthWorld world(2);
  world.StartAll();
  world.Run(milliseconds(500));
  IdentifyReply former;
  former.store = world.node(0).store;
  former.nonce = 999;
  former.name = "cp-0";
  // No call of this process has that id.
  world.node(0).birth->OnReply(1u << 30, former, world.now());
  world.Act(0);
  EXPECT_FALSE(world.node(0).halted.has_value());
}

}  // namespace
}  // namespace quorate::raft
