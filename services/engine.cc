#include "services/engine.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "services/logging.h"
#include "storage/log.h"
#include "storage/log_store.h"
#include "storage/recovered.h"
#include "storage/state_install.h"

namespace quorate::services {
namespace {

storage::StateOptions StateOptionsOf(const storage::DataDirectory& directory, ClusterId cluster,
                                     uint64_t generation) {
  storage::StateOptions options;
  options.directory = directory.path();
  options.generation = generation;
  options.cluster = cluster;
  return options;
}

storage::LogOptions LogOptionsOf(const storage::DataDirectory& directory, ClusterId cluster,
                                 StoreId store) {
  storage::LogOptions options;
  options.directory = directory.log_directory();
  options.cluster = cluster;
  options.store = store;
  return options;
}

// The log's port with a watch in its hand.
class MeteredLog final : public raft::LogStore {
 public:
  MeteredLog(std::unique_ptr<storage::Log> log, Metrics* metrics)
      : log_(std::move(log)), metrics_(metrics) {}

  void Append(const raft::Persist& persist) override {
    log_.Append(persist);
    for (const raft::EntryPtr& entry : persist.entries) unsynced_bytes_ += entry->payload.size();
  }
  void Sync() override {
    const Instant before = BootNow();
    log_.Sync();
    metrics_->RecordLogSync(BootNow() - before, std::exchange(unsynced_bytes_, 0));
  }
  std::vector<raft::EntryPtr> Read(raft::Index from, raft::Index last, size_t bytes) override {
    return log_.Read(from, last, bytes);
  }
  void Cut(raft::Index through) override { log_.Cut(through); }
  raft::Index TailStart(uint64_t bytes) override { return log_.TailStart(bytes); }
  bool WantsMark() override { return log_.WantsMark(); }
  void WriteMark() override { log_.WriteMark(); }

 private:
  storage::LogStore log_;
  Metrics* const metrics_;
  uint64_t unsynced_bytes_ = 0;  // log thread
};

// The same for the state machine.
class MeteredStateMachine final : public raft::StateMachine {
 public:
  MeteredStateMachine(Applier* applier, Metrics* metrics) : applier_(applier), metrics_(metrics) {}
  void Apply(const std::vector<raft::EntryPtr>& entries) override {
    const Instant before = BootNow();
    applier_->Apply(entries);
    metrics_->RecordApply(BootNow() - before, entries.size());
  }
  bool Install(const raft::InstallRecord& record) override { return applier_->Install(record); }
  void MakeDurable() override { applier_->MakeDurable(); }
  raft::Index durable_applied() override { return applier_->durable_applied(); }

 private:
  Applier* const applier_;
  Metrics* const metrics_;
};

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? absl::UnavailableError("cannot remove " + path + ": " + error.message())
               : absl::OkStatus();
}

void EndUnlessWritten(const absl::Status& status) {
  if (status.ok()) return;
  Fatal(
      "the identity file cannot be written: this process ends. Check the disk, then start it "
      "again",
      {{"error", std::string(status.message())}});
}

}  // namespace

uint64_t NextBootOrEnd(storage::IdentityFile* file) {
  const absl::StatusOr<uint64_t> boot = file->NextBoot();
  EndUnlessWritten(boot.status());
  return *boot;
}

void SetPromisedOrEnd(storage::IdentityFile* file, Duration promised) {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(promised);
  EndUnlessWritten(file->SetPromised(static_cast<uint64_t>(milliseconds.count())));
}

absl::Status Engine::Create(storage::Disk* disk, storage::DataDirectory* directory,
                            const raft::BirthOutput::CreateLog& birth) {
  storage::IdentityFile* identity = directory->identity();
  if (identity->current().log_made) return absl::OkStatus();
  // Born is durable, but no vote and no acknowledgement can have left: the node has never run.
  if (absl::Status status = RemoveAll(directory->state_directory(kFirstGeneration)); !status.ok()) {
    return status;
  }
  const std::string log_directory = directory->log_directory();
  const absl::StatusOr<std::vector<std::string>> left = disk->List(log_directory);
  if (!left.ok()) return left.status();
  for (const std::string& name : *left) {
    if (absl::Status status = disk->Remove(storage::JoinPath(log_directory, name)); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = disk->SyncDirectory(log_directory); !status.ok()) return status;

  const absl::StatusOr<std::unique_ptr<storage::State>> state =
      storage::State::Create(StateOptionsOf(*directory, birth.cluster, kFirstGeneration));
  if (!state.ok()) return state.status();
  const absl::StatusOr<std::unique_ptr<storage::Log>> log = storage::Log::Create(
      disk, LogOptionsOf(*directory, birth.cluster, identity->current().store));
  if (!log.ok()) return log.status();
  // A store that was let in begins with nothing; its leader sends it what there is.
  if (birth.first_entry == nullptr) return identity->SetLogMade();
  raft::Persist persist;
  persist.ticket = raft::Ticket(1);
  persist.hard_state = raft::HardState{.term = birth.first_entry->term, .vote = StoreId()};
  persist.entries = {birth.first_entry};
  if (absl::Status status = (*log)->Append(persist); !status.ok()) return status;
  if (absl::Status status = (*log)->Sync(); !status.ok()) return status;
  return identity->SetLogMade();
}

std::unique_ptr<Forwarder> Engine::MakeForwarder(const storage::Identity& identity,
                                                 const EngineOptions& engine, const Ports& ports) {
  ForwarderOptions options;
  options.cluster = identity.cluster;
  options.ingress.store = identity.store;
  options.ingress.boot = identity.boot;
  options.ingress.nonce = engine.session_nonce;
  options.ingress.leader_wait = LeaderWaitOf(engine.election_timeout_max);
  return std::make_unique<Forwarder>(
      options,
      Forwarder::Ports{
          .state = state_.get(),
          .clock = &clock_,
          .channels = ports.channels,
          .next_boot = [file = ports.directory->identity()] { return NextBootOrEnd(file); },
          .random = [] { return storage::RandomId(); }});
}

// State and log, as they belong together: the log names the state's generation. What it does not
// name was left by a transfer that was killed, or is what the last one replaced.
absl::StatusOr<storage::RecoveredLog> Engine::OpenData(const storage::Identity& identity,
                                                       const EngineOptions& options,
                                                       const Ports& ports) {
  const auto open_state = [&](uint64_t named) -> absl::StatusOr<raft::Index> {
    auto state = storage::OpenNamedState(
        StateOptionsOf(*ports.directory, identity.cluster, kFirstGeneration), named);
    if (!state.ok()) return state.status();
    state_ = *std::move(state);
    return state_->Summary().applied;
  };
  storage::LogOptions log_options =
      LogOptionsOf(*ports.directory, identity.cluster, identity.store);
  log_options.segment_bytes = SegmentBytesOf(options.log_tail_bytes);
  auto log = storage::Log::Open(ports.disk, log_options, open_state);
  if (!log.ok()) return log.status();
  log_ = std::make_unique<MeteredLog>(std::move(log->first), ports.metrics);
  storage::RecoveredLog& recovered = log->second;
  if (absl::Status status = storage::RemoveOtherGenerations(ports.disk, ports.directory->path(),
                                                            state_->generation());
      !status.ok()) {
    return status;
  }
  for (const std::string& damage : recovered.cured) {
    LogWarning("one copy of term and vote was damaged, the other one is good", {{"at", damage}});
  }
  const storage::StateSummary summary = state_->Summary();
  LogInfo("recovered", {{"applied", summary.applied},
                        {"log_first", recovered.first_index},
                        {"log_last", recovered.last_index},
                        {"term", recovered.hard_state.term},
                        {"revision", summary.revision},
                        {"generation", state_->generation()},
                        {"torn_bytes", recovered.torn_bytes}});
  snapshot_index_ = recovered.generation_index.value();
  return std::move(log->second);
}

void Engine::MakeTransport(const storage::Identity& identity, const EngineOptions& options,
                           const Ports& ports) {
  transport_ = std::make_unique<PeerTransport>(
      PeerTransportOptions{.cluster = identity.cluster,
                           .self = identity.store,
                           .vote_timeout = options.election_timeout_max},
      ports.channels);
  snapshot_receiver_ = std::make_unique<SnapshotReceiver>(
      SnapshotReceiverOptions{.cluster = identity.cluster,
                              .self = identity.store,
                              .data_directory = ports.directory->path()},
      ports.disk, state_.get());
  transport_->OnSnapshotReply(
      [receiver = snapshot_receiver_.get()](const raft::InstallSnapshotReply& reply) {
        receiver->OnReply(reply);
      });
  SnapshotSenderOptions sender;
  sender.cluster = identity.cluster;
  sender.self = identity.store;
  sender.directory = ports.directory->snapshot_directory();
  snapshot_sender_ = std::make_unique<SnapshotSender>(sender, state_.get(), ports.channels);
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Open(const EngineOptions& options, Ports ports) {
  const storage::Identity identity = ports.directory->identity()->current();
  std::unique_ptr<Engine> engine(new Engine);
  engine->cluster_ = identity.cluster;
  absl::StatusOr<storage::RecoveredLog> recovered = engine->OpenData(identity, options, ports);
  if (!recovered.ok()) return recovered.status();
  const storage::StateSummary summary = engine->state_->Summary();

  engine->applier_ =
      std::make_unique<Applier>(engine->state_.get(), [](const absl::Status& status) {
        Fatal(
            "the state cannot be written: this process ends. Check the disk, then start it "
            "again",
            {{"error", std::string(status.message())}});
      });
  engine->state_machine_ =
      std::make_unique<MeteredStateMachine>(engine->applier_.get(), ports.metrics);
  engine->MakeTransport(identity, options, ports);

  engine->forwarder_ = engine->MakeForwarder(identity, options, ports);

  raft::NodeOptions node;
  node.core.self = identity.store;
  node.core.seed = options.seed;
  node.core.heartbeat_interval = options.heartbeat_interval;
  node.core.election_timeout_min = options.election_timeout_min;
  node.core.election_timeout_max = options.election_timeout_max;
  node.core.read_ids_from = storage::RandomId() >> 2;
  node.core.clock_mark = Duration(static_cast<int64_t>(storage::RandomId() >> 2));
  node.leases = summary.leases;
  engine->election_timeout_min_ = options.election_timeout_min;
  engine->opened_at_ = engine->clock_.Now();
  // What an earlier process has promised holds; what this one promises is durable before it can.
  node.core.promised_before_start = std::chrono::milliseconds(identity.promised_ms);
  if (options.election_timeout_min > node.core.promised_before_start) {
    SetPromisedOrEnd(ports.directory->identity(), options.election_timeout_min);
  }
  node.birth_complete = summary.birth_complete;
  node.log_tail_bytes = options.log_tail_bytes;
  engine->node_ =
      std::make_unique<raft::Node>(node, storage::PutTogether(*std::move(recovered), summary),
                                   raft::Node::Ports{.log = engine->log_.get(),
                                                     .transport = engine->transport_.get(),
                                                     .state_machine = engine->state_machine_.get(),
                                                     .clock = &engine->clock_,
                                                     .snapshots = engine->snapshot_sender_.get()});
  engine->applier_->OnInstalled([engine = engine.get(), watches = std::move(ports.installed)](
                                    const storage::StateSummary& installed) {
    if (watches) watches(installed);
    engine->snapshot_index_ = installed.applied.value();
    engine->node_->SetLeases(installed.leases);
  });
  engine->applier_->OnApplied(
      [engine = engine.get(), forwarder = engine->forwarder_.get(),
       watches = std::move(ports.applied)](const std::vector<storage::Applied>& applied) {
        engine->node_->SetLeases(engine->state_->leases());
        if (watches) watches(applied);
        forwarder->OnApplied(applied);
      });
  engine->node_->OnStatusChange(
      [forwarder = engine->forwarder_.get(), sender = engine->snapshot_sender_.get(),
       changed = std::move(ports.status_changed)](const raft::NodeStatus& status) {
        forwarder->OnStatusChange(status);
        sender->OnStatusChange(status);
        changed(status);
      });
  return engine;
}

Engine::~Engine() { Stop(); }

void Engine::Start() {
  snapshot_receiver_->Start(node_.get());
  snapshot_sender_->Start(node_.get());
  transport_->Start(node_.get());
  forwarder_->Start(node_.get());
  node_->Start();
  started_ = true;
}

void Engine::Stop() {
  // The node first, for it waits for nobody but this store's own disk: a stream of the forwarder
  // may be open until its peer's connection is given up, snapshots may have a file to sync, and
  // meanwhile it would go on leading. What they ask it then is refused; writes that are in the log
  // end as unknown when the forwarder closes, unless they were applied before.
  const bool started = std::exchange(started_, false);
  if (started) node_->Stop();
  if (forwarder_ != nullptr) forwarder_->Stop();
  if (!started) return;
  snapshot_sender_->Stop();
  snapshot_receiver_->Stop();
  transport_->Stop();
}

}  // namespace quorate::services
