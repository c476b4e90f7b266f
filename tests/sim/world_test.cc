// The simulator itself: a seed is one run, whatever ran before it. (What seeds have found is kept
// as tests of the part that was wrong: a seed is another run after each change of what is drawn.)
#include "tests/sim/world.h"

#include <gtest/gtest.h>

#include "tests/sanitizer_share.h"

namespace quorate::sim {
namespace {

Result RunSeed(uint64_t seed, Micros chaos) {
  Plan plan = DrawPlan(seed);
  plan.chaos = chaos;
  return RunPlan(plan, nullptr);
}

TEST(WorldTest, ASeedIsOneRun) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const Result first = RunSeed(seed, 5 * kSecond);
    RunSeed(seed + 100, kSecond);
    const Result second = RunSeed(seed, 5 * kSecond);
    EXPECT_EQ(first.trace_hash, second.trace_hash) << "seed " << seed;
    EXPECT_EQ(first.report.events, second.report.events) << "seed " << seed;
    EXPECT_NE(first.trace_hash, RunSeed(seed + 1, 5 * kSecond).trace_hash);
  }
}

TEST(WorldTest, WithoutFaultsEverythingIsAnswered) {
  Plan plan;
  plan.seed = 1;
  plan.nodes = 3;
  plan.chaos = 20 * kSecond;
  const Result result = RunPlan(plan, nullptr);
  EXPECT_EQ(result.failure, "");
  EXPECT_GT(result.report.operations, 500u);
}

TEST(WorldTest, ManySeedsRunClean) {
  Report sum;
  for (uint64_t seed = 1; seed <= SanitizerShare(40); ++seed) {
    const Result result = RunSeed(seed, 20 * kSecond);
    ASSERT_EQ(result.failure, "") << Describe(DrawPlan(seed));
    sum.Add(result.report);
  }
  EXPECT_EQ(sum.undecided, 0U);
  EXPECT_GT(sum.reached[static_cast<size_t>(Reached::kElection)], SanitizerShare(40));
  EXPECT_GT(sum.reached[static_cast<size_t>(Reached::kAnswered)], SanitizerShare(4000));
}

}  // namespace
}  // namespace quorate::sim
