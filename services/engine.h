// Everything that runs once this store is born: the state machine, the log, the node and the
// writes. Made from what is on the disk; ends in the opposite order.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "raft/birth.h"
#include "raft/node.h"
#include "services/applier.h"
#include "services/forwarder.h"
#include "services/metrics.h"
#include "services/peer_channels.h"
#include "services/peer_transport.h"
#include "services/snapshot_receiver.h"
#include "services/snapshot_sender.h"
#include "services/system_clock.h"
#include "storage/directory.h"
#include "storage/log.h"
#include "storage/state.h"

namespace quorate::services {

struct EngineOptions {
  Duration heartbeat_interval{};
  Duration election_timeout_min{};
  Duration election_timeout_max{};
  uint64_t seed = 0;           // for election timeouts
  uint64_t session_nonce = 0;  // random per process
  // What of the log stays for followers that come back (raft::NodeOptions::log_tail_bytes).
  uint64_t log_tail_bytes = 64u << 20;
};

// The log is cut in whole segments, so they are no longer than its tail.
inline size_t SegmentBytesOf(uint64_t log_tail_bytes) {
  return std::clamp<uint64_t>(log_tail_bytes, 64u << 10, 64u << 20);
}

// How long a write waits for a leader: three seconds, or four times the longest election timeout,
// so that a failed election and the next one fit in whatever timeouts are configured.
inline Duration LeaderWaitOf(Duration election_timeout_max) {
  return std::max<Duration>(std::chrono::seconds(3), 4 * election_timeout_max);
}

// The next boot number, durable. An identity file that cannot be written ends the process: without
// a new session this node could take no writes, and its disk needs somebody.
uint64_t NextBootOrEnd(storage::IdentityFile* file);
// Sets what this store may have promised (storage::Identity), in the same way.
void SetPromisedOrEnd(storage::IdentityFile* file, Duration promised);

class Engine {
 public:
  struct Ports {
    storage::Disk* disk = nullptr;
    storage::DataDirectory* directory = nullptr;
    PeerChannels* channels = nullptr;
    Metrics* metrics = nullptr;
    // The node's thread; must not block.
    std::function<void(const raft::NodeStatus&)> status_changed;
    // The apply thread, after each batch, before whoever waits for it; must not block.
    Applier::AppliedHook applied = nullptr;
    // The same when a snapshot has replaced the state.
    Applier::InstalledHook installed = nullptr;
  };

  // Makes the state and the log of a store that has just been born, or let into a cluster. What an
  // attempt that was killed has left is removed first: nothing was said on its behalf. Durable on
  // return.
  static absl::Status Create(storage::Disk* disk, storage::DataDirectory* directory,
                             const raft::BirthOutput::CreateLog& birth);

  // Opens and recovers; nothing runs yet, but writes may be given to the forwarder, which keeps
  // them until Start. Errors say what to do.
  static absl::StatusOr<std::unique_ptr<Engine>> Open(const EngineOptions& options, Ports ports);
  ~Engine();  // Stop()s

  void Start();
  // Answers every write with what is known of it, then ends the node; also one that was never
  // started. The services and the peer port must not give it anything any more.
  void Stop();

  ClusterId cluster() const { return cluster_; }
  Instant opened_at() const { return opened_at_; }
  Duration election_timeout_min() const { return election_timeout_min_; }
  uint64_t generation() const { return state_->generation(); }
  // The state was installed as a snapshot of this index; 0: never.
  raft::Index snapshot_index() const { return raft::Index(snapshot_index_.load()); }
  storage::State* state() { return state_.get(); }
  raft::Node* node() { return node_.get(); }
  PeerTransport* transport() { return transport_.get(); }
  Forwarder* forwarder() { return forwarder_.get(); }
  SnapshotReceiver* snapshot_receiver() { return snapshot_receiver_.get(); }
  SnapshotSender* snapshot_sender() { return snapshot_sender_.get(); }

 private:
  // The one that birth makes. Each snapshot that is installed is the next.
  static constexpr uint64_t kFirstGeneration = 1;

  Engine() = default;
  absl::StatusOr<storage::RecoveredLog> OpenData(const storage::Identity& identity,
                                                 const EngineOptions& options, const Ports& ports);
  void MakeTransport(const storage::Identity& identity, const EngineOptions& options,
                     const Ports& ports);
  std::unique_ptr<Forwarder> MakeForwarder(const storage::Identity& identity,
                                           const EngineOptions& engine, const Ports& ports);

  ClusterId cluster_;
  Instant opened_at_;
  Duration election_timeout_min_{};
  SystemClock clock_;
  std::unique_ptr<storage::State> state_;
  std::unique_ptr<raft::LogStore> log_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<raft::StateMachine> state_machine_;
  std::unique_ptr<PeerTransport> transport_;
  std::unique_ptr<SnapshotReceiver> snapshot_receiver_;
  std::unique_ptr<SnapshotSender> snapshot_sender_;
  std::unique_ptr<Forwarder> forwarder_;
  std::unique_ptr<raft::Node> node_;
  std::atomic<uint64_t> snapshot_index_{0};
  bool started_ = false;
};

}  // namespace quorate::services
