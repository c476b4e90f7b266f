#include "storage/recovered.h"

#include <utility>

namespace quorate::storage {

raft::RecoveredState PutTogether(RecoveredLog log, const StateSummary& state) {
  raft::RecoveredState recovered;
  recovered.hard_state = log.hard_state;
  recovered.prev_index = log.window_prev_index;
  recovered.prev_term = log.window_prev_term;
  recovered.entries = std::move(log.window);
  recovered.first_index = log.first_index;
  recovered.applied = state.applied;
  // An entry that the log does not hold any more has been applied. (Nor is the state's time right
  // for one that it holds: the state may be far behind, and log time would go back.)
  recovered.prev_log_time_ms = log.window_prev_log_time_ms.value_or(state.log_time_ms);
  if (state.membership_index) {
    recovered.memberships.emplace_back(state.membership_index, state.membership);
  }
  for (auto& [index, membership] : log.memberships) {
    if (index > state.applied) recovered.memberships.emplace_back(index, std::move(membership));
  }
  return recovered;
}

}  // namespace quorate::storage
