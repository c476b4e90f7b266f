// Says what happens to the node: changes of term, role and leader, and a leader's peers
// that need help, as log lines and counters.
//
// Observe runs on the node's thread only, and does not block.
#pragma once

#include <vector>

#include "raft/node.h"
#include "services/metrics.h"

namespace quorate::services {

class NodeLog {
 public:
  explicit NodeLog(Metrics* metrics) : metrics_(metrics) {}

  void Observe(const raft::NodeStatus& status);

 private:
  void ObserveMembers(const raft::NodeStatus& status);
  void ObservePeers(const raft::NodeStatus& status);

  Metrics* const metrics_;
  bool seen_ = false;
  raft::Role role_ = raft::Role::kFollower;
  raft::Term term_;
  StoreId leader_;
  bool leader_ready_ = false;
  bool birth_complete_ = false;
  bool removed_ = false;
  raft::Index membership_index_;
  std::vector<raft::PeerView> peers_;  // as a leader's status said last
};

}  // namespace quorate::services
