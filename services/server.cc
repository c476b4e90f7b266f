#include "services/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>

#include <csignal>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "services/grpc_dispatch.h"
#include "services/listen.h"
#include "services/logging.h"
#include "services/server_impl.h"

namespace quorate::services {
namespace {

constexpr size_t kReadThreads = 4;
constexpr size_t kReadQueueMax = 4096;
// Housekeeping: while somebody waits for it, otherwise, and for what walks directories.
constexpr Duration kBusyInterval = std::chrono::milliseconds(10);
constexpr Duration kIdleInterval = std::chrono::milliseconds(100);
constexpr Duration kSizeInterval = std::chrono::seconds(5);
constexpr Duration kAskAroundInterval = std::chrono::seconds(1);
constexpr Duration kLinksInterval = std::chrono::seconds(1);

uint64_t BytesBelow(const std::string& directory) {
  uint64_t bytes = 0;
  std::error_code error;
  // Only looks at names and sizes: opening a live database's file would drop SQLite's locks.
  for (std::filesystem::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) bytes += it->file_size(ignored);
  }
  return bytes;
}

raft::AutopilotOptions AutopilotOf(const Configuration& configuration) {
  raft::AutopilotOptions options;
  if (!configuration.raft) return options;
  options = configuration.raft->autopilot;
  // Who lists its peers has said who they are: others come by `quorate member add`.
  options.lets_in = !configuration.raft->discovery_dns.empty();
  return options;
}

}  // namespace

// --- Start ---

Server::Impl::Impl(const ServerOptions& options)
    : configuration_(options.configuration),
      version_(options.version),
      node_id_(options.configuration.node_id()),
      metrics_(node_id_, options.version),
      disk_(storage::MakePosixDisk()),
      channels_(&addresses_),
      asker_(&channels_, &addresses_),
      node_log_(&metrics_),
      read_pool_(kReadThreads, kReadQueueMax),
      config_(node_id_, &read_pool_, BootNow),
      watch_(node_id_, &read_pool_, BootNow),
      changes_(MakeChangePorts()),
      cluster_([this] { return View(); }, &changes_,
               [this](bool undo, Instant deadline, std::function<void(bool)> done) {
                 Drain(undo, deadline, std::move(done));
               }),
      call_queues_({.queues = options.call_queues}),
      autopilot_(AutopilotOf(options.configuration)) {}

absl::Status Server::Impl::Start() {
  if (absl::Status status = OpenDirectory(); !status.ok()) return status;
  MakeBirth();
  MakeDiscovery();
  if (absl::Status status = StartServers(); !status.ok()) return status;
  started_ = true;
  metrics_.SetSampler([this] { return Sample(); });
  housekept_at_ = serving_since_ = BootNow();
  housekeeping_ = std::thread([this] { Housekeep(); });
  if (engine_ != nullptr) ServeClients();
  AskAround();
  birth_->Start();
  discovery_->Start();
  LogInfo("serving", {{"clients", configuration_.address},
                      {"peers", has_peer_port() ? configuration_.raft->bind_address : "none"},
                      {"operations", configuration_.metrics_address},
                      {"store", identity_.store},
                      {"cluster", identity_.cluster},
                      {"boot", identity_.boot},
                      {"version", version_}});
  return absl::OkStatus();
}

absl::Status Server::Impl::OpenDirectory() {
  auto directory = storage::DataDirectory::Open(disk_.get(), configuration_.store_path, node_id_);
  if (!directory.ok()) return directory.status();
  directory_ = *std::move(directory);
  // Durable before it is used anywhere.
  if (auto boot = directory_->identity()->NextBoot(); !boot.ok()) return boot.status();
  identity_ = directory_->identity()->current();
  caught_up_ = identity_.caught_up_once;
  links_ = std::make_unique<Links>(identity_.store);
  nonce_ = storage::RandomId();
  const auto record = raft::DecodeBirthRecord(identity_.birth);
  if (!identity_.birth.empty() && !record) {
    return absl::DataLossError(configuration_.store_path +
                               ": the identity file's birth record cannot be read; it was written "
                               "by another version, or the file was edited: put it back");
  }
  if (record && record->log_created) return OpenEngine();
  return absl::OkStatus();
}

absl::Status Server::Impl::OpenEngine() {
  const RaftConfiguration raft = configuration_.raft.value_or(RaftConfiguration());
  EngineOptions options;
  options.heartbeat_interval = raft.heartbeat_interval;
  options.election_timeout_min = raft.election_timeout_min;
  options.election_timeout_max = raft.election_timeout_max;
  options.seed = storage::RandomId();
  options.session_nonce = nonce_;
  options.log_tail_bytes = raft.log_tail_bytes;
  auto engine = Engine::Open(
      options,
      {.disk = disk_.get(),
       .directory = directory_.get(),
       .channels = &channels_,
       .metrics = &metrics_,
       .status_changed = [this](const raft::NodeStatus& status) { OnStatusChange(status); },
       .applied =
           [this](const std::vector<storage::Applied>& applied) { watch_.OnApplied(applied); },
       .installed =
           [this](const storage::StateSummary& state) {
             watch_.OnReset(state.revision, state.compacted);
           }});
  if (!engine.ok()) return engine.status();
  if (absl::Status status = CheckAlone(engine->get()); !status.ok()) return status;
  engine_ = *std::move(engine);
  return absl::OkStatus();
}

absl::Status Server::Impl::CheckAlone(Engine* engine) const {
  const auto status = engine->node()->status();
  const size_t members = status->membership != nullptr ? status->membership->members.size() : 0;
  if (has_peer_port() || members <= 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      configuration_.store_path + " belongs to a cluster of " + std::to_string(members) +
      " members, but the configuration has no controlPlane.raft: without a peer port this node "
      "can reach nobody. Put the section back, or use another storePath");
}

void Server::Impl::MakeBirth() {
  raft::BirthOptions options;
  options.store = identity_.store;
  options.name = node_id_;
  options.nonce = nonce_;
  options.boot = identity_.boot;
  options.seed = storage::RandomId();
  if (configuration_.raft) {
    options.address = configuration_.raft->advertise_address;
    options.ask_first_max = configuration_.raft->election_timeout_min;
    options.founders = configuration_.raft->founders;
    birth_client_ =
        std::make_unique<BirthClient>(identity_.store, &channels_, &addresses_, links_.get());
  } else {
    options.founders = {node_id_};
  }
  options.caught_up_once = identity_.caught_up_once;
  options.birth_complete = engine_ != nullptr && engine_->state()->Summary().birth_complete;
  BirthRunner::Ports ports;
  ports.identity = directory_->identity();
  ports.client = birth_client_.get();
  ports.create_log = [this](const raft::BirthOutput::CreateLog& birth) {
    return Engine::Create(disk_.get(), directory_.get(), birth);
  };
  ports.born = [this] { OnBorn(); };
  ports.run = [this] { RunEngine(); };
  ports.peer_lost = [this] { discovery_->OnPeerLost(); };
  ports.halt = [this](const std::string& reason) { OnHalt(reason); };
  ports.exit = [](const std::string& reason) {
    Fatal("another live process has this store's identity: both stop", {{"reason", reason}});
  };
  birth_ = std::make_unique<BirthRunner>(
      options, raft::DecodeBirthRecord(identity_.birth).value_or(raft::BirthRecord()),
      std::move(ports));
}

absl::Status Server::Impl::StartServers() {
  std::signal(SIGPIPE, SIG_IGN);
  Health::Enable();
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  const absl::StatusOr<HostPort> operations = ParseHostPort(configuration_.metrics_address);
  if (!operations.ok()) return operations.status();
  auto ops = OpsServer::Start(*operations, {.metrics = [this] { return metrics_.Text(); },
                                            .live = [this] { return NotLive(); },
                                            .ready = [this] { return NotReady(); }});
  if (!ops.ok()) return ops.status();
  ops_server_ = *std::move(ops);

  if (has_peer_port()) {
    raft_service_ = std::make_unique<RaftService>(
        identity_.store,
        RaftService::BirthHandlers{
            .identify = [this](const auto& request) { return birth_->Identify(request); },
            .propose = [this](const auto& request) { return birth_->Propose(request); },
            .born = [this](const auto& request) { return birth_->Born(request); },
            .invited = [this](const auto& invitation) { return birth_->Invited(invitation); },
            .pinned_revision = [this] { return config_.pinned_revision().value(); },
            .links = links_.get()},
        &addresses_);
    grpc::ServerBuilder builder;
    SetPeerServerOptions(&builder);
    auto server = Listen(&builder, {raft_service_.get()}, configuration_.raft->bind_address,
                         "controlPlane.raft.bindAddress");
    if (!server.ok()) return server.status();
    peer_server_ = *std::move(server);
  }

  const CallObserver observer = [this](std::string_view method, grpc::StatusCode code,
                                       Duration elapsed) {
    metrics_.RecordRequest(method, code, elapsed);
  };
  config_grpc_ = MakeConfigGrpc(
      [this](std::string_view method, std::string request, CallPtr call, CallDone done) {
        config_.Handle(method, std::move(request), std::move(call), std::move(done));
      },
      observer, &watch_, call_queues_.size() > 0 ? &call_queues_ : nullptr, &write_streams_);
  cluster_grpc_ = MakeClusterGrpc(
      [this](std::string_view method, const std::string& request, const CallPtr& call,
             const CallDone& done) { cluster_.Handle(method, request, call, done); },
      observer);
  grpc::ServerBuilder builder;
  SetClientServerOptions(&builder);
  call_queues_.AddTo(&builder);
  auto server = Listen(&builder, {config_grpc_.get(), cluster_grpc_.get()}, configuration_.address,
                       "controlPlane.address");
  if (!server.ok()) return server.status();
  client_server_ = *std::move(server);
  call_queues_.Start();
  health_ = std::make_unique<Health>(client_server_->GetHealthCheckService());
  return absl::OkStatus();
}

void Server::Impl::ServeClients() {
  Engine* engine = engine_.get();
  const auto status = engine->node()->status();
  if (status->membership != nullptr) addresses_.LearnMembership(*status->membership);

  auto backend = std::make_shared<ConfigBackend>();
  backend->cluster = engine->cluster();
  backend->state = engine->state();
  backend->status = [engine] { return engine->node()->status(); };
  backend->read_index = [engine](raft::ReadMode mode, raft::Node::ReadDone done) {
    engine->node()->RequestRead(mode, std::move(done));
  };
  backend->caught_up_once = [this] { return caught_up_.load(); };
  backend->joined = birth_->Status().joined;
  backend->write = [engine](v1::Command command, Instant deadline,
                            std::map<std::string, std::string> metadata,
                            std::function<void(const ingress::Outcome&)> done) {
    return engine->forwarder()->Write(std::move(command), deadline, std::move(metadata),
                                      std::move(done));
  };
  backend->cancel = [engine](ingress::WriteId id) { return engine->forwarder()->Cancel(id); };
  watch_.SetBackend(backend);
  config_.OnWaiting([this] {
    {
      std::lock_guard lock(mutex_);
      status_changed_ = true;
    }
    changed_.notify_all();
  });
  config_.SetBackend(std::move(backend));
  MeasureSizes();  // who sees the node sees its sizes
  engine_open_ = engine;
}

// --- Birth's thread ---

void Server::Impl::OnBorn() {
  if (absl::Status status = OpenEngine(); !status.ok()) {
    Fatal("this store is born but its data cannot be opened",
          {{"error", std::string(status.message())}});
  }
  ServeClients();
}

void Server::Impl::RunEngine() {
  Engine* engine = engine_.get();
  engine->Start();
  if (raft_service_ == nullptr) return;
  raft_service_->Serve({.cluster = engine->cluster(),
                        .node = engine->node(),
                        .transport = engine->transport(),
                        .forwarder = engine->forwarder(),
                        .snapshots = engine->snapshot_receiver(),
                        .changes = &changes_});
}

void Server::Impl::OnHalt(const std::string& reason) {
  LogError("another live process has this store's identity: this node stops voting and serving",
           {{"reason", reason}});
  {
    std::lock_guard lock(mutex_);
    halted_ = reason;
  }
  changed_.notify_all();
  // First what another process may do in this store's name, too: votes, proposals,
  // acknowledgements. Nothing before that may wait for anybody else.
  changes_.BeginStop();
  if (raft_service_ != nullptr) raft_service_->StopServing();
  if (Engine* engine = this->engine()) engine->Stop();
  write_streams_.Stop();  // before the service, which would refuse their next lines one by one
  config_.Stop();
  watch_.Stop();
  changes_.Stop();
}

// --- The node's thread ---

void Server::Impl::OnStatusChange(const raft::NodeStatus& status) {
  node_log_.Observe(status);
  watch_.OnStatusChange(status);
  {
    std::lock_guard lock(mutex_);
    status_changed_ = true;
  }
  changed_.notify_all();
}

// --- Housekeeping ---

void Server::Impl::Housekeep() {
  std::unique_lock lock(mutex_);
  while (!housekeeping_ends_) {
    lock.unlock();
    Engine* engine = this->engine();
    HousekeepOnce(engine != nullptr ? engine->node()->status() : nullptr);
    const bool waited_for = config_.has_waiting() || config_.has_asked();
    const bool busy = engine != nullptr && (!caught_up_ || waited_for);
    lock.lock();
    changed_.wait_for(lock, busy ? kBusyInterval : kIdleInterval,
                      [this] { return housekeeping_ends_ || status_changed_; });
    status_changed_ = false;
  }
}

// A checkpoint that a reader outside of this process holds off waits a second for it, and keeps the
// apply thread from its work.
constexpr Duration kMakeDurableInterval = std::chrono::seconds(1);
constexpr Duration kDurabilityMissed = std::chrono::seconds(10);

void Server::Impl::RecordCaughtUp(const raft::NodeStatus& status, Instant now) {
  Engine* const engine = this->engine();
  switch (first_caught_up_.Look(status, engine->state()->durable_applied())) {
    case CaughtUp::Step::kWait:
      return;
    case CaughtUp::Step::kMakeDurable:
      if (now < make_durable_at_) return;
      if (make_durable_at_ == Instant{}) make_durable_since_ = now;
      // A busy apply thread takes its time.
      if (now - make_durable_since_ >= kDurabilityMissed && !durability_missed_) {
        durability_missed_ = true;
        LogWarning(
            "the state cannot be made durable yet, and this node serves no reads before: is "
            "another program reading its database? End that",
            {{"applied", status.applied}});
      }
      make_durable_at_ = now + kMakeDurableInterval;
      return engine->node()->MakeDurable();
    case CaughtUp::Step::kRecord:
      break;
  }
  // Durable first: after a restart without a leader this answers reads.
  if (absl::Status saved = directory_->identity()->SetCaughtUpOnce(); !saved.ok()) {
    Fatal(
        "the identity file cannot be written: this process ends. Check the disk, then start "
        "it again",
        {{"error", std::string(saved.message())}});
  }
  caught_up_ = true;
  birth_->OnCaughtUp();
  LogInfo("caught up", {{"applied", status.applied}});
}

void Server::Impl::HousekeepOnce(const std::shared_ptr<const raft::NodeStatus>& status) {
  const Instant now = BootNow();
  housekept_at_ = now;
  if (status != nullptr) {
    PassOn(*status);
    if (!caught_up_) RecordCaughtUp(*status, now);
  }
  GiveUpLeadership(now, status.get());
  if (status != nullptr && !stopping_ && !Halted()) RunAutopilot(now, *status);
  if (status != nullptr) SayWhatIsIgnored(now, *status);
  if (!promise_lowered_ && engine() != nullptr) LowerPromise(now);
  discovery_->SetEager(status == nullptr || !status->leader || !status->birth_complete);
  config_.Tick();
  changes_.Tick();
  write_streams_.Tick(now);
  if (status != nullptr && !stopping_) ExpireTtls(now, *status);
  if (!stopping_) {
    const bool serves = CannotServe().empty();
    health_->Set(serves, serves && status != nullptr && status->leader_ready);
  }
  // Members come, go, and are heard of elsewhere.
  if (now - asked_around_at_ >= kAskAroundInterval) {
    asked_around_at_ = now;
    AskAround();
  }
  if (status != nullptr && status->membership != nullptr &&
      now - links_looked_at_ >= kLinksInterval) {
    NameOneWayLinks(now, *status->membership);
  }
  // Before there is an engine nothing has a size.
  if (status != nullptr && now - sized_at_ >= kSizeInterval) {
    sized_at_ = now;
    MeasureSizes();
  }
}

// Once a minute at most, however many there are.
void Server::Impl::SayWhatIsIgnored(Instant now, const raft::NodeStatus& status) {
  const uint64_t more = status.ignored_messages - ignored_messages_;
  if (more == 0 || (ignored_messages_ != 0 && now - ignored_told_at_ < std::chrono::minutes(1))) {
    return;
  }
  ignored_messages_ = status.ignored_messages;
  ignored_told_at_ = now;
  LogWarning(
      "messages of a peer are ignored, because no peer of this build sends them: if it runs a "
      "newer version (`quorate status` shows that), upgrade this node",
      {{"messages", more}});
}

// The election timeout may be configured shorter than it was. What an earlier process has promised
// with the longer one has to pass first, and must be known to a process that is started before.
void Server::Impl::LowerPromise(Instant now) {
  const Duration before = std::chrono::milliseconds(identity_.promised_ms);
  const auto own = std::chrono::ceil<std::chrono::milliseconds>(engine()->election_timeout_min());
  if (before > own) {
    if (now - engine()->opened_at() < before) return;
    SetPromisedOrEnd(directory_->identity(), own);
    LogInfo(
        "the shorter electionTimeout is in force: what was promised with the longer one is over",
        {{"before_ms", identity_.promised_ms}, {"now_ms", own.count()}});
  }
  promise_lowered_ = true;
}

void Server::Impl::ExpireTtls(Instant now, const raft::NodeStatus& status) {
  const bool leads = status.leader_ready && status.birth_complete;
  ttl_expirer_.Run(now, leads, status.term, engine()->state(),
                   [this](v1::Command command, Instant deadline,
                          std::function<void(const ingress::Outcome&)> done) {
                     engine()->forwarder()->Write(std::move(command), deadline, {},
                                                  std::move(done));
                   });
}

void Server::Impl::MeasureSizes() {
  log_bytes_ = BytesBelow(directory_->log_directory());
  database_bytes_ = BytesBelow(directory_->state_directory(engine_->generation()));
}

void Server::Impl::PassOn(const raft::NodeStatus& status) {
  // Not by its index: another leader's may have come at the same one.
  const bool known = status.membership != nullptr && status.membership->cluster;
  if (known && status.membership != membership_passed_on_) {
    membership_passed_on_ = status.membership;
    addresses_.LearnMembership(*status.membership);
    links_->SetMembers(*status.membership, BootNow());
    birth_->OnMembership(*status.membership);
  }
  if (status.birth_complete && !completion_passed_on_) {
    completion_passed_on_ = true;
    birth_->OnBirthComplete();
  }
}

// --- Stop ---

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() { Stop(); }

void Server::Stop() { impl_->Stop(); }

}  // namespace quorate::services
