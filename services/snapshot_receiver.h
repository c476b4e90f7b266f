// Receives a leader's state and makes it this store's, one at a time (the receiving side of
// services/snapshot_sender.h; storage/state_install.h says what is on the disk meanwhile).
//
//   1. `begin` comes in: the core is asked (an offer). It does not want it: answered at once.
//   2. Chunk after chunk is checked and written; the next one is read when the last is written, so
//      gRPC's flow control holds the sender back.
//   3. `end`: the file is checked as a whole and put in its place, durably. The core is told.
//   4. The core answers once the log names it and the state machine has switched. Then the sender
//      is answered, and what the log does not name is removed.
//
// A transfer that ends early, for whatever reason, leaves nothing behind; when the core has been
// told (3) its answer is waited for even if the sender is gone. A newer leader's transfer ends an
// older one's.
//
// All the work is done on one thread of its own. Any thread may call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/ids.h"
#include "grpcpp/grpcpp.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "raft/node.h"
#include "storage/disk.h"
#include "storage/state.h"

namespace quorate::services {

struct SnapshotReceiverOptions {
  ClusterId cluster;
  StoreId self;
  std::string data_directory;
};

class SnapshotReceiver {
 public:
  // `disk` and `state` outlive this.
  SnapshotReceiver(const SnapshotReceiverOptions& options, storage::Disk* disk,
                   storage::State* state);
  ~SnapshotReceiver();  // Stop()s

  void Start(raft::Node* node);
  // Ends what is under way; nothing is given to the node afterwards. The node may have stopped
  // already: it refuses what it is given then, and that transfer fails. A state that the core was
  // told of and does not answer for stays where it is: the next start opens what the log names, and
  // removes the other.
  void Stop();

  // For RaftService: one inbound call.
  grpc::ServerReadReactor<v1::InstallSnapshotRequest>* Serve(grpc::CallbackServerContext* context,
                                                             v1::InstallSnapshotResponse* response);
  // From the transport: what the core says. Does not block.
  void OnReply(const raft::InstallSnapshotReply& reply);

  struct Counters {
    uint64_t installed = 0;
    uint64_t failed = 0;  // begun and not installed
    uint64_t bytes = 0;
  };
  Counters counters() const;

 private:
  class Impl;
  class Reactor;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace quorate::services
