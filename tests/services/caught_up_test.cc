#include "services/caught_up.h"

#include <gtest/gtest.h>

namespace quorate::services {
namespace {

using Step = CaughtUp::Step;

raft::NodeStatus Applied(uint64_t index, bool fresh) {
  raft::NodeStatus status;
  status.applied = raft::Index(index);
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

}  // namespace
}  // namespace quorate::services
