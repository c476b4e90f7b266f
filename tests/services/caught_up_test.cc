#include "services/caught_up.h"

#include <gtest/gtest.h>

namespace quorate::services {
namespace {

using Step = CaughtUp::Step;

raft::NodeStatus Applied(uint64_t index, bool fresh) {
  raft::NodeStatus status;
  status.applied = status.commit = raft::Index(index);
  status.self = StoreId(1);
  raft::Membership members;
  members.members = {{.store = StoreId(1), .name = "n1", .address = {}}};
  status.membership = std::make_shared<raft::Membership>(members);
  status.membership_index = raft::Index(5);
  if (fresh) status.fresh_as_of = Instant(std::chrono::seconds(9));
  return status;
}

TEST(CaughtUp, IsRecordedOnceTheStateThatWasWholeFirstIsDurable) {
  CaughtUp caught_up;
  EXPECT_EQ(caught_up.Look(Applied(7, true), raft::Index(3)), Step::kMakeDurable);
  // Entries go on coming: they are not waited for.
  EXPECT_EQ(caught_up.Look(Applied(20, true), raft::Index(6)), Step::kMakeDurable);
  EXPECT_EQ(caught_up.Look(Applied(30, true), raft::Index(7)), Step::kRecord);
}

TEST(CaughtUp, AnInstalledStateIsDurableAlready) {
  CaughtUp caught_up;
  EXPECT_EQ(caught_up.Look(Applied(7, true), raft::Index(7)), Step::kRecord);
}

// --- Errors ---

TEST(CaughtUp, WithoutALeaderNothingIsKnown) {
  CaughtUp caught_up;
  EXPECT_EQ(caught_up.Look(Applied(7, false), raft::Index(7)), Step::kWait);
}

TEST(CaughtUp, APowerFailureMayTakeWhatIsNotDurable) {
  CaughtUp caught_up;
  EXPECT_EQ(caught_up.Look(Applied(7, true), raft::Index(0)), Step::kMakeDurable);
}

// Let in by a leader that falls before the others hear of it, it is none, and may come again.
TEST(CaughtUp, OnlyAMemberByACommittedEntryHas) {
  CaughtUp caught_up;
  raft::NodeStatus status = Applied(7, true);
  status.membership_index = raft::Index(8);
  EXPECT_EQ(caught_up.Look(status, raft::Index(7)), Step::kWait);
  status.membership_index = raft::Index(7);
  status.self = StoreId(2);
  EXPECT_EQ(caught_up.Look(status, raft::Index(7)), Step::kWait) << "the entries before its own";
  status.membership = nullptr;
  EXPECT_EQ(caught_up.Look(status, raft::Index(7)), Step::kWait);
  EXPECT_EQ(caught_up.Look(Applied(9, true), raft::Index(9)), Step::kRecord);
}

}  // namespace
}  // namespace quorate::services
