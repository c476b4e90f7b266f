// What a node knows when it starts, put together from its log and its state.
#include "storage/recovered.h"

#include "gtest/gtest.h"

namespace quorate::storage {
namespace {

// A leader's log time goes on from the last entry: it is the log's word where that holds the entry
// before the window, however far behind the state is. What it does not hold has been applied.
TEST(Recovered, LogTimeIsTheLogsWhereItHoldsTheEntry) {
  StateSummary state;
  state.log_time_ms = 100;
  RecoveredLog log;
  log.window_prev_index = raft::Index(7);
  log.window_prev_term = raft::Term(2);
  EXPECT_EQ(PutTogether(log, state).prev_log_time_ms, 100u);
  log.window_prev_log_time_ms = 900;
  EXPECT_EQ(PutTogether(log, state).prev_log_time_ms, 900u);
}

TEST(Recovered, MembershipsAreTheStatesAndThenTheLogs) {
  StateSummary state;
  state.applied = raft::Index(5);
  state.membership_index = raft::Index(3);
  RecoveredLog log;
  for (const uint64_t index : {3, 5, 6}) log.memberships.emplace_back(index, raft::Membership());
  const auto recovered = PutTogether(log, state);
  ASSERT_EQ(recovered.memberships.size(), 2u);
  EXPECT_EQ(recovered.memberships[0].first, raft::Index(3));
  EXPECT_EQ(recovered.memberships[1].first, raft::Index(6));
  EXPECT_EQ(recovered.applied, raft::Index(5));
}

}  // namespace
}  // namespace quorate::storage
