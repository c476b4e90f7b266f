// One node: opens the data directory, listens, takes part in birth, runs, stops.
//
// Start order: directory and lock, boot counter (durable), state and log when this store is born
// already, then the ports, then the node, then birth's questions. A store that is born while the
// process runs gets its state, log and node at that moment. Stop order is the opposite: first
// nobody is ready any more, then clients' calls end, then peers', then the node.
//
// What the world may have done wrong at the start is refused with what to do: a configuration for
// another build, a directory of another node or in use, an unwritable path, a port in use, a
// damaged log. What goes wrong later and cannot be survived (a failed flush, a copied directory)
// ends the process with one line on stderr and status 1.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/configuration.h"

namespace quorate::services {

// The most that a client's request may have on the wire. Our own limits are lower and answer by
// name up to here.
inline constexpr int kClientMessageBytesMax = 8 << 20;

struct ServerOptions {
  Configuration configuration;
  std::string version;
  // Threads that take Put and Get from completion queues; 0: the callback API takes them, as it
  // does all other calls.
  size_t call_queues = 2;
};

class Server {
 public:
  // Serves on return. An error is one sentence or more for people.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);
  ~Server();  // Stop()s

  // Ends calls and the node; takes about a second when clients hold on. One thread.
  void Stop();

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::services
