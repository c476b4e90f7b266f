// Carries this node's clients' writes to whoever leads, and the answers back: what the Config
// service calls to write.
//
// Two halves, which know nothing of each other but messages:
//   * the ingress half runs ingress::Ingress over one link at a time: a Forward stream to the
//     leader, or a function call when this node leads;
//   * the leader half (services/write_intake.h) takes writes of every node's ingress, its own
//     included, checks their order, proposes them and answers when they are applied.
//
// One thread of its own (the forward thread) runs both halves; every input is put into its mailbox.
// So nothing here ever blocks gRPC's threads, the raft thread or the apply thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/support/server_callback.h"
#include "ingress/ingress.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "raft/node.h"
#include "services/errors.h"
#include "services/peer_channels.h"
#include "storage/state.h"

namespace quorate::services {

struct ForwarderOptions {
  ClusterId cluster;
  // Store, boot and nonce of this process, and the ingress's bounds.
  ingress::IngressOptions ingress;
  // A leader's stream that broke is dialled again after this, doubled up to the maximum; a new
  // leader is dialled at once.
  Duration redial_min = std::chrono::milliseconds(20);
  Duration redial_max = std::chrono::milliseconds(500);
  // Leader half: writes taken from streams and not proposed yet, of all nodes together. Beyond:
  // refused, to be sent again.
  size_t intake_bytes_max = 64u << 20;
  size_t propose_bytes_max = 1u << 20;  // one hand-over to the node; one write may exceed it
};

class Forwarder {
 public:
  struct Ports {
    storage::State* state = nullptr;
    raft::Clock* clock = nullptr;
    PeerChannels* channels = nullptr;
    // A new boot number, durable before it is returned, above all earlier ones of this store; for
    // the rare case that the cluster no longer knows this process's session. Forward thread; may
    // write a file. An error is logged and retried after a second.
    std::function<absl::StatusOr<uint64_t>()> next_boot;
    // Random numbers for the nonces of such sessions. Forward thread.
    std::function<uint64_t()> random;
  };

  Forwarder(const ForwarderOptions& options, Ports ports);
  ~Forwarder();  // Stop()s

  // `node` outlives this or Stop is called first. Start before node->Start(), so that no status
  // change is missed.
  void Start(raft::Node* node);
  // Ends every write with what is known of it (ingress::Ingress::Close), ends the streams, joins
  // the thread. Every `done` has run on return. Stop the services that call Write first.
  void Stop();

  // --- Clients' writes; any thread ---

  using WriteDone = std::function<void(const ingress::Outcome&)>;
  // Sees one write through. `command` without format and session. `done` runs exactly once on the
  // forward thread, unless Cancel comes first; it must not block and may call Write. Before
  // Start the write waits like one without a leader.
  ingress::WriteId Write(v1::Command command, Instant deadline,
                         std::map<std::string, std::string> metadata, WriteDone done);
  // The client went away. After Cancel returns true `done` never runs; false: it has run or runs
  // now.
  bool Cancel(ingress::WriteId id);

  // --- What the server wiring passes on; any thread, never blocks ---

  // From Applier's hook, for every batch, on every node.
  void OnApplied(const std::vector<storage::Applied>& applied);
  // From Node::OnStatusChange.
  void OnStatusChange(const raft::NodeStatus& status);
  // The server side of Raft.Forward; checks the header of each message. The reactor lives until
  // the stream has ended. After Stop it refuses.
  grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* Serve(
      grpc::CallbackServerContext* context);

  // --- Views; any thread ---
  struct Counters {
    ingress::Ingress::Counters ingress;
    uint64_t unanswered = 0;  // gauges
    uint64_t waiting = 0;
    bool link_open = false;  // a leader takes this node's writes now
    uint64_t links = 0;      // links begun
    // Leader half.
    uint64_t taken = 0;               // writes that came in, of all nodes
    uint64_t proposed = 0;            // appended by this leader
    uint64_t duplicates_applied = 0;  // found applied already: answered from the kept answer
    uint64_t duplicates_pending = 0;  // found in this leader's log already
    uint64_t refused = 0;             // queue full, or out of order
    uint64_t sessions_opened = 0;
  };
  Counters counters() const;

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

// The client's answer for an outcome. kAnswered with code 0 is OK; `answer` is filled in then and
// for every other applied outcome. Identical wherever it is made.
grpc::Status StatusOf(const ingress::Outcome& outcome, v1::Answer* answer);

}  // namespace quorate::services
