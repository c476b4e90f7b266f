// Makes raft::Birth's calls: Identify and Found over gRPC.
//
// Each call is answered once: with the reply, or with why there is none. A reply belongs to the
// call that it answers by construction (unary RPCs), as birth demands.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "raft/birth.h"
#include "services/links.h"
#include "services/peer_channels.h"
#include "services/peer_directory.h"

namespace quorate::services {

class BirthClient {
 public:
  // All of them outlive this. Answers to Identify teach `directory` where their stores are, and
  // `links` how long they took.
  BirthClient(StoreId self, PeerChannels* channels, PeerDirectory* directory, Links* links);
  ~BirthClient();  // Stop()s

  using Done = std::function<void(absl::StatusOr<raft::BirthReply>)>;
  // Any thread; `done` runs once, on a gRPC thread; after Stop at once on this one.
  void Call(const raft::BirthCall& call, Duration timeout, Done done);
  // Cancels what is open and waits for it: no `done` runs afterwards. Later calls fail at once.
  void Stop();

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace quorate::services
