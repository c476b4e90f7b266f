// The encoding of memberships: what was written is read, and nothing else is.
#include "raft/core/membership.h"

#include <gtest/gtest.h>

#include "raft/core/random.h"

namespace quorate::raft {
namespace {

Membership Example() {
  Membership membership;
  membership.cluster = ClusterId(0x0123456789abcdef);
  membership.joint = true;
  membership.members = {
      Member{StoreId(7), "node-1", "10.0.0.1:7000", true, true},
      Member{StoreId(8), "node-2", "", false, true},
      Member{StoreId(0xffffffffffffffff),
             "n\xc3\xb6"
             "de 3",
             "[::1]:7000", true, false},
  };
  return membership;
}

Membership WithMembers(size_t count) {
  Membership membership;
  for (size_t i = 1; i <= count; ++i) {
    membership.members.push_back(Member{StoreId(i), "n" + std::to_string(i), "", true, false});
  }
  return membership;
}

TEST(MembershipCodec, WhatWasWrittenIsRead) {
  for (const Membership& membership : {Membership(), Example(), WithMembers(kMembersMax)}) {
    EXPECT_EQ(DecodeMembership(EncodeMembership(membership)), membership);
  }
}

TEST(MembershipCodec, TheBytesStayAsTheyAre) {
  // On disk and on the wire: a change of this text is a change of the format, and needs a version.
  Membership membership;
  membership.cluster = ClusterId(0x0102);
  membership.members = {Member{StoreId(3), "ab", "c", true, false}};
  const std::string expected(
      "\x01"
      "\x02\x01\0\0\0\0\0\0"
      "\x00"
      "\x01\x00"
      "\x03\0\0\0\0\0\0\0"
      "\x01"
      "\x02\x00"
      "ab"
      "\x01\x00"
      "c",
      28);
  EXPECT_EQ(EncodeMembership(membership), expected);
}

TEST(MembershipCodec, ADemotedMemberAndASharedNameNeedVersionTwo) {
  Membership membership;
  membership.cluster = ClusterId(0x0102);
  membership.joint = true;
  membership.members = {Member{StoreId(3), "ab", "", false, true, true}};
  const std::string demoted(
      "\x02"
      "\x02\x01\0\0\0\0\0\0"
      "\x01"
      "\x01\x00"
      "\x03\0\0\0\0\0\0\0"
      "\x06"
      "\x02\x00"
      "ab"
      "\x00\x00",
      27);
  EXPECT_EQ(EncodeMembership(membership), demoted);
  EXPECT_EQ(DecodeMembership(demoted), membership);

  // The learner is to replace the voter.
  membership = WithMembers(2);
  membership.members[1].name = "n1";
  membership.members[1].voter = false;
  EXPECT_EQ(EncodeMembership(membership)[0], 2);
  EXPECT_EQ(DecodeMembership(EncodeMembership(membership)), membership);
  // While it does.
  membership.joint = true;
  membership.members[0] = Member{StoreId(1), "n1", "", false, true};
  membership.members[1] = Member{StoreId(2), "n1", "", true, false};
  EXPECT_EQ(DecodeMembership(EncodeMembership(membership)), membership);
}

TEST(MembershipCodec, ADemotedLearnerNeedsVersionThree) {
  Membership membership;
  membership.cluster = ClusterId(0x0102);
  membership.members = {Member{StoreId(3), "ab", "", false, false, true}};
  const std::string demoted(
      "\x03"
      "\x02\x01\0\0\0\0\0\0"
      "\x00"
      "\x01\x00"
      "\x03\0\0\0\0\0\0\0"
      "\x04"
      "\x02\x00"
      "ab"
      "\x00\x00",
      27);
  EXPECT_EQ(EncodeMembership(membership), demoted);
  EXPECT_EQ(DecodeMembership(demoted), membership);
  for (const char version : {1, 2, 4}) {
    std::string other = demoted;
    other[0] = version;
    EXPECT_FALSE(DecodeMembership(other)) << static_cast<int>(version);
    EXPECT_EQ(IsOfNewerVersion(other), version == 4);
  }
  EXPECT_EQ(VersionOf(membership), kMembershipVersion);
  // The first one that can say all of it.
  membership.joint = true;
  membership.members.push_back(Member{StoreId(4), "cd", "", false, true, true});
  EXPECT_EQ(EncodeMembership(membership)[0], 3);
  EXPECT_EQ(DecodeMembership(EncodeMembership(membership)), membership);
}

TEST(MembershipCodec, LongestNameAndAddress) {
  Membership membership = WithMembers(1);
  membership.members[0].name = std::string(255, 'n');
  membership.members[0].address = std::string(512, 'a');
  EXPECT_EQ(DecodeMembership(EncodeMembership(membership)), membership);
}

TEST(Membership, FindsMembersAndListsBothHalves) {
  const Membership membership = Example();
  ASSERT_NE(membership.Find(StoreId(8)), nullptr);
  EXPECT_EQ(membership.Find(StoreId(8))->name, "node-2");
  EXPECT_EQ(membership.Find(StoreId(9)), nullptr);
  EXPECT_EQ(membership.Voters(), (std::vector<StoreId>{StoreId(7), StoreId(0xffffffffffffffff)}));
  EXPECT_EQ(membership.OutgoingVoters(), (std::vector<StoreId>{StoreId(7), StoreId(8)}));
}

// --- Hostile bytes ---

TEST(MembershipCodecErrors, EveryTruncationIsRefused) {
  const std::string bytes = EncodeMembership(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeMembership(std::string_view(bytes).substr(0, size)), std::nullopt) << size;
  }
}

TEST(MembershipCodecErrors, TrailingBytesAreRefused) {
  EXPECT_EQ(DecodeMembership(EncodeMembership(Example()) + '\0'), std::nullopt);
}

TEST(MembershipCodecErrors, WhateverIsReadWouldBeWrittenAlike) {
  // Every byte changed to every value: either refused, or another membership that encodes to
  // exactly these bytes. So there is one encoding of each, and nothing is read that could not be
  // written.
  Membership demoted = Example();
  demoted.members[1].demoted = true;
  for (const std::string& original : {EncodeMembership(Example()), EncodeMembership(demoted)}) {
    size_t refused = 0;
    for (size_t i = 0; i < original.size(); ++i) {
      for (int value = 0; value < 256; ++value) {
        std::string bytes = original;
        bytes[i] = static_cast<char>(value);
        const auto membership = DecodeMembership(bytes);
        if (!membership) {
          ++refused;
          continue;
        }
        EXPECT_EQ(EncodeMembership(*membership), bytes);
      }
    }
    EXPECT_GT(refused, 0u);
  }
}

TEST(MembershipCodecErrors, RandomBytesNeverDoHarm) {
  Random random(5);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random.Between(0, 80), '\0');
    for (char& c : bytes) c = static_cast<char>(random.Next());
    if (!bytes.empty() && random.Between(0, 3) > 0) bytes[0] = 1;
    if (const auto membership = DecodeMembership(bytes)) {
      EXPECT_EQ(EncodeMembership(*membership), bytes);
    }
  }
}

TEST(MembershipCodecErrors, BrokenRulesAreRefused) {
  const std::string good = EncodeMembership(WithMembers(2));
  const size_t first_member = 1 + 8 + 1 + 2;
  const size_t member_size = 8 + 1 + 2 + 2 + 2;
  const auto with = [&](size_t at, char value) {
    std::string bytes = good;
    bytes[at] = value;
    return DecodeMembership(bytes);
  };
  ASSERT_TRUE(DecodeMembership(good));
  EXPECT_FALSE(with(0, 2)) << "another version";
  EXPECT_FALSE(with(9, 1)) << "joint without an old half";
  EXPECT_FALSE(with(9, 2)) << "joint is 0 or 1";
  EXPECT_FALSE(with(first_member, 2)) << "one store twice";
  EXPECT_FALSE(with(first_member, 3)) << "out of order";
  EXPECT_FALSE(with(first_member, 0)) << "no store";
  EXPECT_FALSE(with(first_member + 8, 3)) << "an old voter, and not joint";
  EXPECT_FALSE(with(first_member + 8, 4)) << "an unknown flag";
  EXPECT_FALSE(with(first_member + member_size + 8 + 1 + 2 + 1, '1')) << "one name twice";
}

TEST(MembershipCodecErrors, VersionTwoOnlyWhereItIsNeeded) {
  std::string bytes = EncodeMembership(WithMembers(2));
  bytes[0] = 2;
  EXPECT_FALSE(DecodeMembership(bytes));
  Membership membership = WithMembers(2);
  membership.members[1].name = "n1";
  membership.members[1].voter = false;
  bytes = EncodeMembership(membership);
  bytes[0] = 1;
  EXPECT_FALSE(DecodeMembership(bytes));
  bytes[0] = 3;
  EXPECT_FALSE(DecodeMembership(bytes));
}

TEST(MembershipCodecErrors, MoreMembersThanAllowedAreRefused) {
  std::string bytes = EncodeMembership(WithMembers(kMembersMax));
  bytes[10] = static_cast<char>(kMembersMax + 1);
  std::string extra(8, '\0');
  extra[0] = 100;
  extra += std::string("\x01\x01\x00z\x00\x00", 6);
  EXPECT_EQ(DecodeMembership(bytes + extra), std::nullopt);
}

TEST(MembershipCodecDeathTest, WhatBreaksTheRulesIsNotWritten) {
  EXPECT_DEATH(EncodeMembership(WithMembers(kMembersMax + 1)), "too many members");
  Membership membership = WithMembers(2);
  std::swap(membership.members[0], membership.members[1]);
  EXPECT_DEATH(EncodeMembership(membership), "ascending");
  membership = WithMembers(2);
  membership.members[1].name = "n1";
  EXPECT_DEATH(EncodeMembership(membership), "one name");
  membership = WithMembers(1);
  membership.joint = true;
  EXPECT_DEATH(EncodeMembership(membership), "joint");
  membership.joint = false;
  membership.members[0].demoted = true;
  EXPECT_DEATH(EncodeMembership(membership), "demoted");
  membership = WithMembers(1);
  membership.members[0].name = std::string(256, 'n');
  EXPECT_DEATH(EncodeMembership(membership), "255");
}

}  // namespace
}  // namespace quorate::raft
