// When a store may say for ever that it has caught up (storage/identity.h, caught_up_once), and so
// answer reads after a restart without a leader.
//
// Not as soon as its state is whole: that may be in memory only, and a power failure takes it away
// again, down to nothing. A reader would then be given an old or an empty state by a store that has
// promised never to show one from before it had caught up. So first the state as of that moment is
// made durable.
//
// Nor before it is a member by a committed entry: "has caught up once" then also means that it was
// one, and is let in again by people only when it is one no more (raft::Birth::Newcomers; of those
// that had not caught up raft::Autopilot remembers who was taken out).
//
// Not thread-safe. No gRPC: the simulator runs this same code.
#pragma once

#include <cstdint>
#include <optional>

#include "raft/node.h"

namespace quorate::services {

class CaughtUp {
 public:
  enum class Step : uint8_t {
    kWait,         // it has not caught up yet
    kMakeDurable,  // Node::MakeDurable, and look again
    kRecord,       // it may be recorded
  };
  // By a committed entry.
  static bool IsMember(const raft::NodeStatus& status) {
    return status.membership != nullptr && status.membership->Find(status.self) != nullptr &&
           status.membership_index <= status.commit;
  }
  // `durable_applied`: the state's. Of one process: the next one begins with a new object.
  Step Look(const raft::NodeStatus& status, raft::Index durable_applied) {
    if (!status.fresh_as_of || !IsMember(status)) return Step::kWait;
    if (!whole_at_) whole_at_ = status.applied;
    return durable_applied >= *whole_at_ ? Step::kRecord : Step::kMakeDurable;
  }

 private:
  std::optional<raft::Index> whole_at_;  // the state that was whole first
};

}  // namespace quorate::services
