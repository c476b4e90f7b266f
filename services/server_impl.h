// Inside of Server: one class, divided over six files. server.cc starts and keeps house;
// server_leave.cc drains and stops; server_views.cc says what there is to see (status, metrics,
// probes); server_changes.cc connects the changes of the cluster with node and peers;
// server_discovery.cc connects discovery with birth; server_autopilot.cc does as the leader what
// raft::Autopilot decides.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "discovery/discovery.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server.h"
#include "raft/autopilot.h"
#include "services/birth_client.h"
#include "services/birth_runner.h"
#include "services/call_queues.h"
#include "services/caught_up.h"
#include "services/cluster_changes.h"
#include "services/cluster_service.h"
#include "services/config_service.h"
#include "services/engine.h"
#include "services/health.h"
#include "services/leave.h"
#include "services/links.h"
#include "services/metrics.h"
#include "services/node_log.h"
#include "services/ops_server.h"
#include "services/peer_asker.h"
#include "services/peer_directory.h"
#include "services/raft_service.h"
#include "services/read_pool.h"
#include "services/server.h"
#include "services/ttl_expirer.h"
#include "services/watch_service.h"
#include "services/write_stream.h"
#include "storage/directory.h"

namespace quorate::services {

class Server::Impl {
 public:
  explicit Impl(const ServerOptions& options);
  ~Impl() { Stop(); }

  absl::Status Start();
  void Stop();

 private:
  absl::Status OpenDirectory();
  absl::Status OpenEngine();
  absl::Status CheckAlone(Engine* engine) const;
  void MakeBirth();
  void MakeDiscovery();
  absl::Status StartServers();
  // Clients may ask: reads and writes wait for a leader. Nothing goes to peers yet.
  void ServeClients();

  // BirthRunner's ports, on its thread.
  void OnBorn();
  void RunEngine();
  void OnHalt(const std::string& reason);

  // The node's thread.
  void OnStatusChange(const raft::NodeStatus& status);

  // Housekeeping's thread.
  void Housekeep();
  void HousekeepOnce(const std::shared_ptr<const raft::NodeStatus>& status);
  void RecordCaughtUp(const raft::NodeStatus& status, Instant now);
  void PassOn(const raft::NodeStatus& status);
  void ExpireTtls(Instant now, const raft::NodeStatus& status);
  void LowerPromise(Instant now);
  void MeasureSizes();  // also when the engine opens, before housekeeping sees it
  void GiveUpLeadership(Instant now, const raft::NodeStatus* status);  // also Stop's, before that

  // server_discovery.cc
  void NameOneWayLinks(Instant now, const raft::Membership& membership);

  // server_autopilot.cc
  void RunAutopilot(Instant now, const raft::NodeStatus& status);
  void SayWhatIsNotDone();
  void SayWhatIsIgnored(Instant now, const raft::NodeStatus& status);

  // server_leave.cc: what clients and peers hear of this node's end, in this order.
  void HandOver();
  void EndClients();
  void EndPeers();

  // Tells birth where to ask: what discovery has found, and with DNS where the members of the
  // cluster were last known to be: a copied directory is found while DNS is away.
  void AskAround();
  std::vector<raft::PeerAddress> MemberAddresses() const;

  // Any thread.
  Engine* engine() const { return engine_open_.load(); }  // null until this store is born
  std::string CannotServe() const;                        // clients; empty: it can
  std::string NotReady() const;                           // for a rollout to go on; empty: ready
  raft::BirthStatus BirthView() const;                    // with what discovery lacks
  std::string NotLive() const;
  ClusterView View() const;
  bool Halted() const;
  bool Leads() const;
  void Drain(bool undo, Instant deadline, std::function<void(bool leads)> done);
  // server_changes.cc: what the changes of the cluster work with.
  ClusterChanges::Ports MakeChangePorts();
  std::function<void()> AskWho(const std::string& address, bool sure, PeerAsker::Done done);
  grpc::Status PassOnCall(StoreId leader, grpc::ClientContext* context,
                          v1::ForwardCallRequest request,
                          v1::ForwardCallResponse* response);  // blocks
  MetricsSample Sample() const;

  bool has_peer_port() const { return configuration_.raft.has_value(); }
  bool by_dns() const { return has_peer_port() && !configuration_.raft->discovery_dns.empty(); }

  // Constant after Start.
  const Configuration configuration_;
  const std::string version_;
  const std::string node_id_;
  uint64_t nonce_ = 0;
  Instant serving_since_;
  storage::Identity identity_;  // as of the start

  Metrics metrics_;
  const std::unique_ptr<storage::Disk> disk_;
  std::unique_ptr<storage::DataDirectory> directory_;
  PeerDirectory addresses_;
  std::unique_ptr<Links> links_;  // from OpenDirectory on
  PeerChannels channels_;
  PeerAsker asker_;
  std::unique_ptr<BirthClient> birth_client_;
  NodeLog node_log_;  // node's thread
  std::unique_ptr<Engine> engine_;
  std::atomic<Engine*> engine_open_ = nullptr;
  std::unique_ptr<BirthRunner> birth_;
  std::unique_ptr<discovery::Discovery> discovery_;

  ReadPool read_pool_;
  ConfigService config_;
  WatchService watch_;
  ClusterChanges changes_;
  ClusterService cluster_;
  std::unique_ptr<RaftService> raft_service_;
  CallQueues call_queues_;  // none when there are no queues
  WriteStreams write_streams_;
  std::unique_ptr<grpc::Service> config_grpc_;
  std::unique_ptr<grpc::Service> cluster_grpc_;
  std::unique_ptr<grpc::Server> peer_server_;
  std::unique_ptr<grpc::Server> client_server_;
  std::unique_ptr<OpsServer> ops_server_;
  std::unique_ptr<Health> health_;  // housekeeping's thread once it runs

  std::atomic<bool> caught_up_ = false;  // ever, as recorded
  // Housekeeping's thread.
  CaughtUp first_caught_up_;
  Instant make_durable_at_;  // not before
  Instant make_durable_since_;
  bool durability_missed_ = false;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> draining_ = false;
  Leave leave_;
  std::atomic<uint64_t> log_bytes_ = 0;
  std::atomic<uint64_t> database_bytes_ = 0;
  std::atomic<Instant> housekept_at_ = Instant();  // the zero instant: not begun

  // What birth was told last of where to ask.
  struct Asked {
    std::vector<raft::PeerAddress> addresses;
    bool whole = false;
    friend bool operator==(const Asked&, const Asked&) = default;
  };
  std::optional<Asked> asked_;  // under ask_mutex_
  std::mutex ask_mutex_;        // before mutex_
  mutable std::mutex mutex_;    // protects what follows
  std::condition_variable changed_;
  bool status_changed_ = false;
  bool housekeeping_ends_ = false;
  std::optional<std::string> halted_;
  // Calls that wait until this node does not lead.
  struct DrainCall {
    Instant until;
    std::function<void(bool leads)> done;
  };
  std::vector<DrainCall> drain_calls_;
  // A step of the autopilot's that has ended, and housekeeping has not told it yet.
  std::optional<std::pair<raft::AutopilotStep, grpc::Status>> autopilot_ended_;
  std::vector<std::string> one_way_links_;                         // a sentence each
  std::vector<std::string> not_done_;                              // the same
  std::optional<std::vector<discovery::PeerAddress>> discovered_;  // nullopt: nothing known yet
  bool discovered_whole_ = false;
  std::string discovery_failure_;  // empty: it works

  // Housekeeping's own.
  Instant sized_at_;
  Instant asked_around_at_;
  Instant links_looked_at_;
  std::map<std::string, Instant> one_way_since_;
  raft::Autopilot autopilot_;
  Instant autopilot_at_;           // not before
  uint64_t ignored_messages_ = 0;  // as many were told of
  Instant ignored_told_at_;
  TtlExpirer ttl_expirer_;
  std::shared_ptr<const raft::Membership> membership_passed_on_;  // one object while it is the same
  bool completion_passed_on_ = false;
  bool promise_lowered_ = false;
  std::thread housekeeping_;
  bool started_ = false;
  bool stopped_ = false;
};

}  // namespace quorate::services
