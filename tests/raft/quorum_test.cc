// Majorities, against the definition: a brute-force twin that counts.
#include "raft/core/quorum.h"

#include <gtest/gtest.h>

#include <set>

namespace quorate::raft {
namespace {

// --- The twin ---

size_t CountAtLeast(const std::vector<uint64_t>& values, uint64_t bound) {
  size_t count = 0;
  for (uint64_t value : values) count += value >= bound ? 1 : 0;
  return count;
}

// The largest value that more than half of the voters have reached, by trying all.
uint64_t BruteForce(const std::vector<uint64_t>& values, uint64_t limit) {
  uint64_t best = 0;
  for (uint64_t bound = 0; bound <= limit; ++bound) {
    if (2 * CountAtLeast(values, bound) > values.size()) best = bound;
  }
  return best;
}

// Calls `use` with every way to give `count` voters values from 0 to `limit`.
template <typename Use>
void ForEachAssignment(size_t count, uint64_t limit, const Use& use) {
  std::vector<uint64_t> values(count, 0);
  while (true) {
    use(values);
    size_t i = 0;
    while (i < count && values[i] == limit) values[i++] = 0;
    if (i == count) return;
    ++values[i];
  }
}

Membership MakeMembership(uint64_t voters_mask, uint64_t outgoing_mask) {
  Membership membership;
  membership.joint = outgoing_mask != 0;
  for (uint64_t id = 1; id <= 7; ++id) {
    const bool voter = (voters_mask >> (id - 1) & 1) != 0;
    const bool outgoing = (outgoing_mask >> (id - 1) & 1) != 0;
    membership.members.push_back(
        Member{StoreId(id), "n" + std::to_string(id), "", voter, outgoing});
  }
  return membership;
}

// --- The tests ---

TEST(QuorumSize, IsTheTableOfTheSeeds) {
  const std::vector<std::pair<size_t, size_t>> table = {{1, 0}, {2, 0}, {2, 1}, {3, 1},
                                                        {3, 2}, {4, 2}, {4, 3}};
  for (size_t servers = 1; servers <= table.size(); ++servers) {
    EXPECT_EQ(QuorumSize(servers), table[servers - 1].first) << servers;
    EXPECT_EQ(FaultTolerance(servers), table[servers - 1].second) << servers;
  }
}

TEST(QuorumSize, AnyTwoQuorumsShareAServer) {
  for (size_t servers = 1; servers <= 100; ++servers) {
    EXPECT_GT(2 * QuorumSize(servers), servers);
    EXPECT_LE(2 * (QuorumSize(servers) - 1), servers) << "and no larger than needed";
  }
}

TEST(QuorumValue, IsWhatCountingSays) {
  for (size_t voters = 1; voters <= 6; ++voters) {
    ForEachAssignment(voters, 4, [&](const std::vector<uint64_t>& values) {
      ASSERT_EQ(QuorumValue(values), BruteForce(values, 4));
    });
  }
}

TEST(QuorumValue, AnEvenClusterNeedsMoreThanHalf) {
  // hashicorp/raft 163a55f: matched[n/2] of four would say 9.
  EXPECT_EQ(QuorumValue<uint64_t>({9, 9, 1, 1}), 1u);
}

TEST(Quorum, OfEverySmallMembershipIsWhatCountingSays) {
  // Every pair of halves over five stores, the old half possibly empty (not joint).
  for (uint64_t voters = 1; voters < 32; ++voters) {
    for (uint64_t outgoing = 0; outgoing < 32; ++outgoing) {
      const Quorum quorum(MakeMembership(voters, outgoing));
      ForEachAssignment(5, 1, [&](const std::vector<uint64_t>& yes) {
        const auto majority = [&](uint64_t mask) {
          int count = 0, all = 0;
          for (int i = 0; i < 5; ++i) {
            if ((mask >> i & 1) == 0) continue;
            ++all;
            count += static_cast<int>(yes[static_cast<size_t>(i)]);
          }
          return 2 * count > all;
        };
        const bool expected = majority(voters) && (outgoing == 0 || majority(outgoing));
        const bool actual = quorum.Satisfied(
            [&](StoreId id) { return id.value() <= 5 && yes[id.value() - 1] == 1; });
        ASSERT_EQ(actual, expected) << voters << " " << outgoing;
      });
    }
  }
}

TEST(Quorum, ValueOfAJointMembershipIsTheLowerOfBothHalves) {
  for (uint64_t voters : {0b00111u, 0b01111u, 0b00001u, 0b10101u}) {
    for (uint64_t outgoing : {0b00000u, 0b11100u, 0b00011u, 0b11111u, 0b10000u}) {
      const Quorum quorum(MakeMembership(voters, outgoing));
      ForEachAssignment(5, 2, [&](const std::vector<uint64_t>& values) {
        const auto half = [&](uint64_t mask) {
          std::vector<uint64_t> own;
          for (size_t i = 0; i < 5; ++i) {
            if ((mask >> i & 1) != 0) own.push_back(values[i]);
          }
          return BruteForce(own, 2);
        };
        uint64_t expected = half(voters);
        if (outgoing != 0) expected = std::min(expected, half(outgoing));
        ASSERT_EQ(quorum.Value<uint64_t>([&](StoreId id) { return values.at(id.value() - 1); }),
                  expected);
      });
    }
  }
}

TEST(Quorum, AnyTwoQuorumsOfAJointMembershipAndOfEitherHalfMeet) {
  // What makes the change safe: no decision of the old or the new voters alone beside a joint one.
  const uint64_t old_half = 0b00111, new_half = 0b11100;
  const Quorum joint(MakeMembership(new_half, old_half));
  for (const Quorum& other :
       {Quorum(MakeMembership(old_half, 0)), Quorum(MakeMembership(new_half, 0)), joint}) {
    for (uint64_t a = 0; a < 32; ++a) {
      for (uint64_t b = 0; b < 32; ++b) {
        if ((a & b) != 0) continue;
        const auto in = [](uint64_t set) {
          return [set](StoreId id) { return (set >> (id.value() - 1) & 1) != 0; };
        };
        EXPECT_FALSE(joint.Satisfied(in(a)) && other.Satisfied(in(b))) << a << " " << b;
      }
    }
  }
}

TEST(Quorum, LearnersDoNotCount) {
  const Quorum quorum(MakeMembership(0b00111, 0));
  EXPECT_FALSE(quorum.IsVoter(StoreId(4)));
  EXPECT_FALSE(quorum.Satisfied([](StoreId id) { return id != StoreId(1) && id != StoreId(2); }));
  EXPECT_EQ(quorum.all_voters().size(), 3u);
}

TEST(Quorum, ADemotedVoterStaysAVoterOfTheOldHalf) {
  const Quorum quorum(MakeMembership(0b00110, 0b00111));
  EXPECT_TRUE(quorum.IsVoter(StoreId(1)));
}

TEST(Quorum, ASoleVoterIsAQuorumByItself) {
  EXPECT_TRUE(Quorum(MakeMembership(1, 0)).IsSole(StoreId(1)));
  EXPECT_TRUE(Quorum(MakeMembership(1, 1)).IsSole(StoreId(1)));
  EXPECT_FALSE(Quorum(MakeMembership(1, 2)).IsSole(StoreId(1)));
  EXPECT_FALSE(Quorum(MakeMembership(3, 0)).IsSole(StoreId(1)));
}

// --- Nobody there ---

TEST(Quorum, WithoutVotersNothingIsDecided) {
  const auto yes = [](StoreId) { return true; };
  EXPECT_FALSE(Quorum().Satisfied(yes));
  EXPECT_FALSE(Quorum(MakeMembership(0, 0)).Satisfied(yes));
  EXPECT_FALSE(Quorum(MakeMembership(0, 3)).Satisfied(yes));
  EXPECT_FALSE(Quorum().Value<uint64_t>([](StoreId) { return uint64_t{7}; }));
  EXPECT_EQ(QuorumValue<uint64_t>({}), std::nullopt);
  EXPECT_EQ(FaultTolerance(0), 0u);
}

}  // namespace
}  // namespace quorate::raft
