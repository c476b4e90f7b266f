// quorate.v1.Cluster: what this node is and knows, for operators, and the changes that they ask for
// (services/cluster_changes.h). Status, ListMembers and Drain answer without a leader and before
// birth.
//
// Every method may be called from any thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "services/call_context.h"
#include "services/cluster_changes.h"
#include "services/cluster_view.h"

namespace quorate::services {

class ClusterService {
 public:
  // Takes this node out of service, or back; `done` runs once, on any thread, with whether it
  // leads.
  using Drain = std::function<void(bool undo, Instant deadline, std::function<void(bool)> done)>;

  // `view` must not block: it runs on gRPC's threads. `changes` outlives the service; without it
  // nothing can be changed, and without `drain` nothing drained.
  explicit ClusterService(std::function<ClusterView()> view, ClusterChanges* changes = nullptr,
                          Drain drain = nullptr)
      : view_(std::move(view)), changes_(changes), drain_(std::move(drain)) {}

  // As ConfigService::Handle.
  void Handle(std::string_view method, const std::string& request, const CallPtr& call,
              const CallDone& done);

 private:
  const std::function<ClusterView()> view_;
  ClusterChanges* const changes_;
  const Drain drain_;
};

}  // namespace quorate::services
