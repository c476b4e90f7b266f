// That the simulator reaches what it is for: a few seeds with one kind of trouble each, and the
// counters that must not stay at zero. A simulator that has become idle fails here.
#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>

#include "tests/sanitizer_share.h"
#include "tests/sim/world.h"

namespace quorate::sim {
namespace {

// Runs seeds, each of a plan that `change` has bent; their reports together.
Report RunBent(uint64_t seeds, const std::function<void(Plan*)>& change) {
  Report sum;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    Plan plan = DrawPlan(seed);
    plan.chaos = 12 * kSecond;
    change(&plan);
    const Result result = RunPlan(plan, nullptr);
    EXPECT_EQ(result.failure, "") << Describe(plan);
    if (!result.failure.empty()) break;
    sum.Add(result.report);
  }
  return sum;
}

void ExpectReached(const Report& report, std::initializer_list<Reached> states) {
  if (kSanitizer) return;  // fewer seeds are run there
  for (Reached state : states) {
    EXPECT_GT(report.reached[static_cast<size_t>(state)], 0u) << ReachedName(state);
  }
}

TEST(ReachTest, BirthInAllItsStates) {
  const Report report = RunBent(SanitizerShare(60), [](Plan* plan) {
    plan->birth = true;
    plan->wrong_founders = plan->seed % 4 == 0;
    plan->spares = 1;
    plan->nodes = 1 + plan->seed % 5;
    plan->dns = plan->dns && plan->nodes > 1;  // who founds alone there never founds with others
    for (Fault fault : {Fault::kWipe, Fault::kKill, Fault::kPowerFailure, Fault::kCrashInDisk,
                        Fault::kPartition}) {
      plan->Set(fault, true);
    }
  });
  ExpectReached(report,
                {Reached::kBirthSearching, Reached::kBirthFoundersDiffer, Reached::kBirthProposing,
                 Reached::kBirthPledged, Reached::kBirthWaitingToJoin, Reached::kBirthBorn,
                 Reached::kBirthFounderLost, Reached::kBirthStateComplete, Reached::kPledgeMoved,
                 Reached::kLetIn, Reached::kNotRunning, Reached::kWipedUnborn,
                 Reached::kBirthBegunAgain, Reached::kFoundersCorrected, Reached::kAnswered});
}

TEST(ReachTest, DnsInAllItsWays) {
  const Report report = RunBent(SanitizerShare(40), [](Plan* plan) {
    plan->birth = plan->dns = true;
    plan->nodes = 2 + plan->seed % 4;
    plan->spares = 1 + plan->seed % 3;
    plan->dns_wrong_permille = 300;
    plan->dns_stale = 5 * kSecond;
    plan->stabilisation = kSecond;
    plan->calm_max += 60 * kSecond;
    for (Fault fault : {Fault::kWipe, Fault::kKill, Fault::kPowerFailure, Fault::kPartition,
                        Fault::kDns, Fault::kMove}) {
      plan->Set(fault, true);
    }
  });
  ExpectReached(report, {Reached::kDnsFailed, Reached::kDnsPartial, Reached::kDnsIncomplete,
                         Reached::kDnsStale, Reached::kAddressTakenOver, Reached::kNobodyThere,
                         Reached::kAnotherThere, Reached::kPeerLost, Reached::kAutopilotLetIn,
                         Reached::kAutopilotPromoted, Reached::kAutopilotReplaced});
}

TEST(ReachTest, FlippedBitsInTheLogAndTheIdentity) {
  const Report report = RunBent(SanitizerShare(25), [](Plan* plan) {
    plan->nodes = 3 + plan->seed % 3;
    plan->fault_interval = kSecond;
    plan->Set(Fault::kBitFlip, true);
  });
  ExpectReached(report, {Reached::kFlippedLog, Reached::kFlippedIdentity, Reached::kDamageNoticed,
                         Reached::kDamageEmptied});
}

TEST(ReachTest, FlippedBitsInTheState) {
  const Report report = RunBent(SanitizerShare(10), [](Plan* plan) {
    plan->sqlite = true;
    plan->nodes = 3;
    plan->faults = 0;
    plan->fault_interval = kSecond;
    plan->Set(Fault::kBitFlip, true);
  });
  ExpectReached(report, {Reached::kFlippedState, Reached::kDamageNoticed, Reached::kDamageHarmless,
                         Reached::kDamageEmptied, Reached::kSnapshotInstalled});
}

// As drawn: each kind of fault, each size of a cluster.
TEST(ReachTest, EveryFaultAndEverySize) {
  const Report report = RunBent(SanitizerShare(80), [](Plan* plan) { plan->chaos = 5 * kSecond; });
  if (kSanitizer) return;
  for (size_t i = 0; i < kFaults; ++i) {
    EXPECT_GT(report.faults[i], 0u) << FaultName(static_cast<Fault>(i));
  }
  for (size_t size = 1; size <= kNodesMax; ++size) EXPECT_GT(report.sizes[size], 0u) << size;
}

TEST(ReachTest, DisksThatFail) {
  const Report report = RunBent(SanitizerShare(10), [](Plan* plan) {
    plan->nodes = 3;
    plan->fault_interval = kSecond / 2;
    plan->Set(Fault::kDiskError, true);
    plan->Set(Fault::kDiskFull, true);
    plan->value_bytes = plan->seed % 4 == 0 ? 50'000 : 300;
    if (plan->seed % 4 == 0) {
      plan->think *= 5;
      plan->segment_bytes = 32u << 10;
    }
  });
  ExpectReached(report, {Reached::kFailedRead, Reached::kFailedWrite, Reached::kFailedFlush,
                         Reached::kFailedOther, Reached::kDiskWasFull, Reached::kHugeEntry});
}

}  // namespace
}  // namespace quorate::sim
