// The operations port: plain HTTP for Prometheus and for probes.
//
//   GET /metrics  200, the text exposition format
//   GET /livez    200 `ok` while this process does its work; 503 with the reason otherwise
//   GET /readyz   200 `ok` when clients are answered (caught up, leader known); 503 with the reason
//
// Anything else is 404. Each connection is closed after its answer: a handful of threads is
// enough, and nobody can hold one idle.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/configuration.h"

namespace quorate::services {

class OpsServer {
 public:
  // Called on the server's threads, until Stop. `live` and `ready` return what is wrong, one
  // reason a line; empty: nothing.
  struct Handlers {
    std::function<std::string()> metrics;
    std::function<std::string()> live;
    std::function<std::string()> ready;
  };

  // Listens on `address` (no host: every address; port 0: any free one) and serves. kUnavailable,
  // saying what to do, when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<OpsServer>> Start(const HostPort& address,
                                                          Handlers handlers);
  ~OpsServer();  // Stop()s

  // Ends the threads; open calls are finished first.
  void Stop();
  int port() const;

 private:
  class Impl;
  explicit OpsServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::services
