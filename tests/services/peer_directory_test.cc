#include "services/peer_directory.h"

#include <gtest/gtest.h>

namespace quorate::services {
namespace {

using Source = PeerDirectory::Source;

raft::Membership MembersAt(std::vector<uint64_t> stores) {
  raft::Membership membership;
  for (uint64_t store : stores) {
    raft::Member member;
    member.store = StoreId(store);
    member.address = "member-" + std::to_string(store) + ":7000";
    membership.members.push_back(member);
  }
  return membership;
}

void Crowd(PeerDirectory* directory, uint64_t from) {
  for (uint64_t i = 0; i < 2 * PeerDirectory::kStoresMax; ++i) {
    directory->Learn(StoreId(from + i), "stranger:7000", Source::kDirect);
  }
}

TEST(PeerDirectory, ADirectWordReplacesAnyOtherAndAHintFillsAGap) {
  PeerDirectory directory;
  directory.Learn(StoreId(1), "old:7000", Source::kHint);
  directory.Learn(StoreId(1), "newer:7000", Source::kHint);
  EXPECT_EQ(directory.Find(StoreId(1)), "newer:7000");
  directory.Learn(StoreId(1), "own:7000", Source::kDirect);
  directory.LearnMembership(MembersAt({1}));
  EXPECT_EQ(directory.Find(StoreId(1)), "own:7000");
}

// Each start with an empty directory is a new store, and anybody may call itself anything.
TEST(PeerDirectory, StrangersCrowdOutNoMember) {
  PeerDirectory directory;
  directory.LearnMembership(MembersAt({1, 2}));
  Crowd(&directory, 1000);
  EXPECT_EQ(directory.All().size(), PeerDirectory::kStoresMax);
  EXPECT_EQ(directory.Find(StoreId(1)), "member-1:7000");
  // Who becomes a member while it is full is known from then on.
  directory.LearnMembership(MembersAt({1, 2, 3}));
  EXPECT_EQ(directory.Find(StoreId(3)), "member-3:7000");
  Crowd(&directory, 100'000);
  EXPECT_EQ(directory.Find(StoreId(3)), "member-3:7000");
  // Who was heard of last is known still; who is no member any more goes like any other.
  directory.Learn(StoreId(5), "new:7000", Source::kDirect);
  EXPECT_EQ(directory.Find(StoreId(5)), "new:7000");
  directory.LearnMembership(MembersAt({1, 3}));
  Crowd(&directory, 200'000);
  EXPECT_EQ(directory.Find(StoreId(2)), std::nullopt);
  EXPECT_EQ(directory.Find(StoreId(1)), "member-1:7000");
}

TEST(PeerDirectory, WhatCannotBeAnAddressIsIgnored) {
  PeerDirectory directory;
  directory.Learn(StoreId(), "a:1", Source::kDirect);
  directory.Learn(StoreId(1), "", Source::kDirect);
  directory.Learn(StoreId(1), std::string(256, 'a'), Source::kDirect);
  EXPECT_TRUE(directory.All().empty());
}

}  // namespace
}  // namespace quorate::services
