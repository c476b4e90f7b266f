// quorate.v1.Cluster: what this node is and knows, for operators. Status and ListMembers answer
// without a leader and before birth; the other calls are not in this build yet and say so.
//
// Every method may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/time.h"
#include "quorate/v1/cluster.pb.h"
#include "raft/birth.h"
#include "raft/node.h"
#include "services/call_context.h"
#include "storage/state.h"

namespace quorate::services {

// What this node knows at one instant.
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
  uint64_t log_bytes = 0;
  uint64_t database_bytes = 0;
  std::string own_address;                   // as advertised; empty without a peer port
  std::map<StoreId, std::string> addresses;  // where peers were last heard of
};

v1::StatusResponse MakeStatus(const ClusterView& view);
v1::ListMembersResponse MakeMembers(const ClusterView& view);

class ClusterService {
 public:
  // `view` must not block: it runs on gRPC's threads.
  explicit ClusterService(std::function<ClusterView()> view) : view_(std::move(view)) {}

  // As ConfigService::Handle.
  void Handle(std::string_view method, const std::string& request, const CallPtr& call,
              const CallDone& done);

 private:
  const std::function<ClusterView()> view_;
};

}  // namespace quorate::services
