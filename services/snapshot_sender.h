// Sends this node's whole state to peers that its log cannot serve (raft::SnapshotSender): copies
// the database into a file, then streams it, checksummed, over a connection of its own.
//
// One thread does one after the other; nothing here makes the node wait. A request ends with the
// peer's answer to the node, or with SnapshotFailed, whatever happens: the copy fails, the peer
// hangs (a deadline by size), this node no longer leads (the call is cancelled).
//
// Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "base/ids.h"
#include "grpcpp/client_context.h"
#include "raft/node.h"
#include "raft/ports.h"
#include "raft/work_queue.h"
#include "services/peer_channels.h"
#include "storage/state.h"

namespace quorate::services {

struct SnapshotSenderOptions {
  ClusterId cluster;
  StoreId self;
  std::string directory;  // for the copies; exists
  // What a transfer may take: this, and its size at this rate at the least.
  Duration time_min = std::chrono::seconds(60);
  uint64_t bytes_per_second_min = 256u << 10;
};

// At most this in one message.
inline constexpr size_t kSnapshotChunkBytes = 1u << 20;

class SnapshotSender final : public raft::SnapshotSender {
 public:
  // `state` and `channels` outlive this.
  SnapshotSender(const SnapshotSenderOptions& options, storage::State* state,
                 PeerChannels* channels);
  ~SnapshotSender() override;  // Stop()s

  void Start(raft::Node* node);
  // Cancels what is under way and waits for it; the node hears nothing afterwards.
  void Stop();

  void Send(const raft::SnapshotRequest& request) override;
  // The node's role has changed: what is sent for a term that it no longer leads is cancelled.
  void OnStatusChange(const raft::NodeStatus& status);

  struct Counters {
    uint64_t sent = 0;  // answered as installed
    uint64_t failed = 0;
    uint64_t bytes = 0;  // of files, given to gRPC
  };
  Counters counters() const { return {sent_.load(), failed_.load(), bytes_.load()}; }

 private:
  void Run();
  absl::Status SendOne(const raft::SnapshotRequest& request);
  absl::Status Stream(const raft::SnapshotRequest& request, const storage::StateCopy& copy);
  absl::Status WriteFile(const storage::StateCopy& copy, const v1::PeerHeader& header,
                         grpc::ClientWriter<v1::InstallSnapshotRequest>* writer);
  bool Leads(raft::Term term) const;

  const SnapshotSenderOptions options_;
  storage::State* const state_;
  PeerChannels* const channels_;
  raft::Node* node_ = nullptr;  // constant once started
  raft::WorkQueue<raft::SnapshotRequest> requests_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> cancel_{false};  // of the request under way
  std::atomic<uint64_t> sent_{0}, failed_{0}, bytes_{0};

  std::mutex mutex_;
  // Protected by mutex_.
  grpc::ClientContext* call_ = nullptr;  // under way
  raft::Term term_;                      // of the request under way; 0: none
};

}  // namespace quorate::services
