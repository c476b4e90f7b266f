// quorate.v1.Config/Watch: carries the watch hub (ingress/watch_hub.h).
//
// One thread has the hub: clients' comings and goings, what was applied, read portions and time
// come to it through an inbox. So the apply thread only leaves what it changed, and waits for
// nobody: above a bound of what lies in the inbox it leaves only how far it has come, and watches
// read the rest from history. SQLite is read on the read pool. Messages leave one at a time for
// each watch; the next one when gRPC has taken the one before.
//
// Watches are served from this node's own state, whoever leads. Errors: services/validate.h and
// services/request_parser.h say theirs; NOT_CAUGHT_UP as for reads; and what proto says of the ends
// of a stream. Every error that ends a watch has `resume_revision` in its metadata.
//
// Every method may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/time.h"
#include "grpcpp/support/status.h"
#include "ingress/watch_hub.h"
#include "quorate/v1/config.pb.h"
#include "raft/node.h"
#include "services/config_service.h"
#include "services/read_pool.h"
#include "storage/state.h"

namespace quorate::services {

// Where the messages of one watch go: a gRPC stream, or a test. Called on the hub's thread, End
// also on the one that calls Open.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  // The serialized v1::WatchResponse is `header` and then `body`. The next one comes after
  // WatchService::OnSent.
  virtual void Send(std::string header, std::shared_ptr<const std::string> body) = 0;
  // The stream ends; nothing comes after it. May come while a message is under way.
  virtual void End(grpc::Status status) = 0;
};

// For the metrics.
struct WatchStats {
  uint64_t watches = 0;
  uint64_t catching_up = 0;
  uint64_t queued_bytes = 0;
  ingress::WatchHub::Counters counters;
};

class WatchService {
 public:
  // `node_id` is the configured name; `now` the boot-time clock. The pool outlives the service.
  WatchService(std::string node_id, ReadPool* pool, std::function<Instant()> now,
               const ingress::WatchHubOptions& options = {});
  ~WatchService();  // Stop()s

  // As ConfigService::SetBackend: until then watches are refused (NOT_CAUGHT_UP). Once.
  void SetBackend(std::shared_ptr<const ConfigBackend> backend);

  // --- Streams ---
  ingress::WatchId NewId() { return ingress::WatchId(next_id_.fetch_add(1)); }
  // `request` is a serialized v1::WatchRequest. The sink is held until the watch has ended.
  void Open(ingress::WatchId id, const std::string& request, std::shared_ptr<WatchSink> sink);
  // The message was taken. Unknown ids are ignored, here and below.
  void OnSent(ingress::WatchId id);
  // The client is gone; its sink hears nothing more.
  void OnGone(ingress::WatchId id);

  // --- The node ---
  // Apply thread, after each batch, in order.
  void OnApplied(const std::vector<storage::Applied>& applied);
  // As ingress::WatchHub::OnReset: the state was replaced. The apply thread.
  void OnReset(Revision head, Revision compacted);
  void OnStatusChange(const raft::NodeStatus& status);

  // Ends every watch at its resume revision (DRAINING), soon, and takes later ones.
  void EndAll();
  // Ends every watch at its resume revision (SHUTTING_DOWN) and refuses later ones.
  void Stop();

  WatchStats stats() const;

 private:
  using Task = std::function<void(Instant now)>;
  // What waits for the hub's thread. Shared with reads that are under way.
  struct Inbox;

  void Run();
  void Work(std::vector<Task> tasks, Instant now);
  void Deliver(Instant now);
  void Read(ingress::WatchRead read);
  // The watch has ended: what is being read for it is not read to its end.
  void GiveUpRead(ingress::WatchId id);
  std::string Header(const v1::ResponseHeader& base, Revision revision) const;
  grpc::Status StatusOf(const ingress::WatchEnd& end) const;

  const std::string node_id_;
  ReadPool* const pool_;
  const std::function<Instant()> now_;
  const ingress::WatchHubOptions options_;
  const std::shared_ptr<Inbox> inbox_;
  std::atomic<uint64_t> next_id_ = 1;
  std::atomic<bool> leader_known_ = false;

  mutable std::mutex mutex_;                      // protects what follows
  std::shared_ptr<const ConfigBackend> backend_;  // never changes once the hub's thread runs
  std::thread thread_;
  bool stopped_ = false;
  WatchStats stats_;

  // The hub thread's own; made before it.
  std::unique_ptr<ingress::WatchHub> hub_;
  std::map<ingress::WatchId, std::shared_ptr<WatchSink>> sinks_;
  // The latest read of each watch: set when it is given up.
  std::map<ingress::WatchId, std::shared_ptr<std::atomic<bool>>> reads_;
  ingress::WatchHub::Wants collected_ = ingress::WatchHub::Wants::kNothing;
};

}  // namespace quorate::services
