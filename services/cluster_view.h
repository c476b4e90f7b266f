// What this node knows of itself and of the cluster at one instant, and how that is shown.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/ids.h"
#include "base/time.h"
#include "grpcpp/support/status.h"
#include "quorate/v1/cluster.pb.h"
#include "raft/birth.h"
#include "raft/node.h"
#include "services/links.h"
#include "storage/state.h"

namespace quorate::services {

struct ClusterView {
  Instant now;
  std::string node_id;
  std::string version;
  StoreId store;
  ClusterId cluster;  // 0 before birth
  uint64_t boot = 0;
  raft::BirthStatus birth;
  // Absent until the node runs.
  std::shared_ptr<const raft::NodeStatus> node;
  std::optional<storage::StateSummary> state;
  uint64_t generation = 0;
  raft::Index snapshot_index;
  bool healthy = false;
  bool draining = false;
  bool caught_up = false;  // with a leader, since this store was made
  uint64_t log_bytes = 0;
  uint64_t database_bytes = 0;
  std::string own_address;                   // as advertised; empty without a peer port
  std::map<StoreId, std::string> addresses;  // where peers were last heard of
  LinksByStore links;
  std::vector<std::string> warnings;
};

v1::StatusResponse MakeStatus(const ClusterView& view);
// Whether this node knows what is set: NOT_BORN, NOT_CAUGHT_UP (UNAVAILABLE) otherwise.
grpc::Status CheckSettingsKnown(const ClusterView& view);
// REQUIRES: CheckSettingsKnown.
v1::GetSettingsResponse MakeSettings(const ClusterView& view);
// `links`: who reaches whom, too.
v1::ListMembersResponse MakeMembers(const ClusterView& view, bool links = false);
v1::MemberStatus MakeMember(const ClusterView& view, const raft::Member& member);
// The header of this node's answers; `revision` is the applied one.
v1::ResponseHeader HeaderOf(const ClusterView& view);

}  // namespace quorate::services
