// Asks processes who they are (Raft.Identify), for the changes of the cluster.
//
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "quorate/v1/raft.pb.h"
#include "services/peer_channels.h"
#include "services/peer_directory.h"

namespace quorate::services {

class PeerAsker {
 public:
  // Both outlive this. Answers teach `directory` where their stores are.
  PeerAsker(PeerChannels* channels, PeerDirectory* directory);
  ~PeerAsker();  // Stop()s

  // Whoever answers; an error: nobody does.
  using Done = std::function<void(absl::StatusOr<v1::IdentifyResponse>)>;
  // `request` names this process. `sure`: a connection that has just failed is tried again while
  // there is time. `done` runs once, on a gRPC thread, within two seconds; after Stop at once, on
  // this one. The returned function makes it run soon; it may be called at any time, also later.
  std::function<void()> Ask(const std::string& address, const v1::IdentifyRequest& request,
                            bool sure, Done done);
  // Cancels what is open and waits for it: no `done` runs afterwards. Later questions fail at once.
  void Stop();

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace quorate::services
