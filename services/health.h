// grpc.health.v1 on the client port: "" and quorate.v1.Config serve when this node can answer (as
// /readyz), quorate.leader serves only on the leader.
//
// gRPC's own service answers Check and Watch; this keeps it up to date. One thread.
#pragma once

#include <optional>

#include "grpcpp/health_check_service_interface.h"

namespace quorate::services {

class Health {
 public:
  // Before any server is built.
  static void Enable();

  // `service` is the server's; may be null (then nothing happens). Everything is NOT_SERVING until
  // the first Set.
  explicit Health(grpc::HealthCheckServiceInterface* service);

  void Set(bool ready, bool leader);
  // For good: NOT_SERVING, and watchers are told.
  void Shutdown();

 private:
  grpc::HealthCheckServiceInterface* const service_;
  std::optional<bool> ready_;  // what was set last
  std::optional<bool> leader_;
};

}  // namespace quorate::services
