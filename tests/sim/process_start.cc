// How a process starts: from what its disk holds to a node that takes part; as services/server,
// engine and birth_runner do it.
#include <algorithm>
#include <memory>
#include <utility>

#include "base/check.h"
#include "storage/directory.h"
#include "storage/recovered.h"
#include "tests/sim/process.h"
#include "tests/sim/process_ports.h"

namespace quorate::sim {

bool Process::OpenIdentity() {
  storage::Disk* const disk = &machine_->disk;
  disk->MakeDirectory(machine_->data).IgnoreError();
  const std::string path = storage::IdentityPath(machine_->data);
  auto identity = storage::IdentityFile::Open(disk, path, machine_->name);
  if (absl::IsNotFound(identity.status())) {
    identity = storage::IdentityFile::Create(disk, path, machine_->name, machine_->store);
  }
  if (!Check(identity.status(), "its identity could not be opened")) return false;
  if (!MakeDirectories()) return false;
  identity_ = *std::move(identity);
  context_->identity_checker.OnFound(machine_->store, identity_->current());
  context_->history.OnStoreSeen(machine_->store);
  caught_up_ = identity_->current().caught_up_once;
  uint64_t boot = 0;
  return CountBoot("its start could not be counted", &boot);
}

// As storage/directory.cc does: what an earlier process was sending goes.
bool Process::MakeDirectories() {
  storage::Disk* const disk = &machine_->disk;
  const std::string snapshots = storage::SnapshotDirectory(machine_->data);
  return Check(disk->MakeDirectory(storage::LogDirectory(machine_->data)), "there is no log's") &&
         Check(disk->RemoveTree(snapshots), "old snapshots stay") &&
         Check(disk->MakeDirectory(snapshots), "there is no snapshots'") &&
         Check(disk->SyncDirectory(machine_->data), "its data directory was not flushed");
}

bool Process::CountBoot(const char* what, uint64_t* boot) {
  const auto counted = identity_->NextBoot();
  if (!Recorded(counted.status(), what)) return false;
  *boot = *counted;
  context_->identity_checker.OnBoot(machine_->store, *boot);
  return true;
}

bool Process::Recorded(const absl::Status& status, const char* what) {
  if (!Check(status, what)) return false;
  context_->identity_checker.OnChanged(machine_->store, identity_->current());
  return true;
}

// As services/engine.cc makes the log and the state of a store that has just been born, or let in
// (no first entry).
bool Process::MakeLog(ClusterId cluster, const raft::EntryPtr& first_entry) {
  if (identity_->current().log_made) return true;
  storage::Disk* const disk = &machine_->disk;
  const std::string directory = storage::LogDirectory(machine_->data);
  const auto left = disk->List(directory);
  if (!Check(left.status(), "its log's directory could not be read")) return false;
  for (const std::string& name : *left) {
    if (!Check(disk->Remove(storage::JoinPath(directory, name)), "a leftover stays")) return false;
  }
  if (!Check(disk->SyncDirectory(directory), "its log's directory was not flushed")) return false;
  context_->raft_checker.OnLogRemoved(store_);
  if (!Check(StateBox::Create(machine_, cluster, context_->plan.sqlite),
             "its state could not be made")) {
    return false;
  }
  storage::LogOptions options;
  options.directory = directory;
  options.cluster = cluster;
  options.store = store_;
  options.segment_bytes = context_->plan.segment_bytes;
  auto log = storage::Log::Create(disk, options);
  if (!Check(log.status(), "its log could not be made")) return false;
  if (first_entry != nullptr) {
    raft::Persist persist;
    persist.ticket = raft::Ticket(1);
    persist.hard_state = raft::HardState{first_entry->term, StoreId()};
    persist.entries = {first_entry};
    context_->raft_checker.OnAppend(store_, persist);
    if (!Check((*log)->Append(persist), "its first entry was not written")) return false;
    if (!Check((*log)->Sync(), "its first entry was not flushed")) return false;
    context_->raft_checker.OnSynced(store_);
  }
  return Recorded(identity_->SetLogMade(), "its identity could not be written");
}

bool Process::OpenLog(raft::RecoveredState* recovered) {
  storage::LogOptions options;
  options.directory = storage::LogDirectory(machine_->data);
  cluster_ = identity_->current().cluster;
  options.cluster = cluster_;
  options.store = store_;
  options.segment_bytes = context_->plan.segment_bytes;
  options.window_bytes = context_->plan.window_bytes;
  const auto open_state = [this](uint64_t named) -> absl::StatusOr<raft::Index> {
    auto state =
        StateBox::Open(machine_, cluster_, context_->plan.sqlite, named, context_->plan.keep_every);
    if (!state.ok()) return state.status();
    state_ = *std::move(state);
    return state_->applied();
  };
  auto log = storage::Log::Open(&machine_->disk, options, open_state);
  if (!Check(log.status(), "its log could not be opened")) return false;
  log_ = std::move(log->first);
  if (!Check(state_->RemoveOthers(), "other states could not be removed")) return false;
  const storage::RecoveredLog& found = log->second;
  auto entries = log_->Read(found.first_index, found.last_index, SIZE_MAX);
  if (!Check(entries.status(), "its log could not be read")) return false;
  context_->raft_checker.OnRecovered(store_, found, *entries, state_->applied());
  LearnApplied(*entries);
  *recovered = storage::PutTogether(found, state_->Summary());
  return true;
}

// A batch may be applied and nobody have heard of it: the disk failed in the checkpoint behind it.
// What its commands answered is kept in their sessions.
void Process::LearnApplied(const std::vector<raft::EntryPtr>& entries) {
  std::vector<raft::EntryPtr> unheard;
  std::vector<std::shared_ptr<const std::string>> answers;
  v1::Command command;
  for (const raft::EntryPtr& entry : entries) {
    if (entry->index <= context_->history.counted() || entry->index > state_->applied()) continue;
    unheard.push_back(entry);
    answers.emplace_back();
    if (entry->type != raft::EntryType::kCommand) continue;
    CHECK(command.ParseFromString(entry->payload));
    const v1::SessionPosition& position = command.session();
    answers.back() = state_->state()->KeptAnswer(StoreId(position.store()), position.sequence());
  }
  if (unheard.empty()) return;
  context_->report.Count(Reached::kAppliedUnheard);
  if (context_->plan.birth) context_->birth_checker.OnApplied(store_, unheard);
  context_->history.OnRecovered(unheard, answers);
}

raft::NodeOptions Process::MakeNodeOptions() {
  const Plan& plan = context_->plan;
  raft::NodeOptions options;
  options.core.self = store_;
  options.core.seed = context_->random.Next();
  options.core.heartbeat_interval = Duration(plan.heartbeat);
  options.core.election_timeout_min = Duration(machine_->election_min);
  options.core.election_timeout_max = Duration(machine_->election_max);
  options.core.window_bytes_max = plan.window_bytes;
  options.core.append_bytes_max = plan.append_bytes;
  options.core.inflight_bytes_max = plan.inflight_bytes;
  options.core.inflight_messages_max = plan.inflight_messages;
  options.core.uncommitted_bytes_max = plan.uncommitted_bytes;
  options.core.apply_bytes_max = plan.apply_bytes;
  options.core.read_ids_from = context_->random.Next() >> 2;
  options.core.clock_mark = Duration(static_cast<int64_t>(context_->random.Next() >> 2));
  options.leases = plan.leases;
  options.birth_complete = state_->Summary().birth_complete;
  options.log_tail_bytes = plan.log_tail_bytes;
  options.log_pinned_bytes_max = plan.log_pinned_bytes;
  options.cut_interval = Duration(plan.cut_interval);
  return options;
}

bool Process::MakeNode(raft::RecoveredState recovered) {
  const Plan& plan = context_->plan;
  log_port_ = std::make_unique<LogPort>(this);
  state_port_ = std::make_unique<StatePort>(this);
  transport_port_ = std::make_unique<TransportPort>(this);
  Forwarding::Ports ports;
  ports.context = context_;
  ports.machine = machine_;
  ports.process = this;
  ports.state = state_->state();
  ports.next_boot = [this]() -> std::optional<uint64_t> {
    uint64_t boot = 0;
    if (!CountBoot("its session could not be counted", &boot)) return std::nullopt;
    return boot;
  };
  ports.wake = [this](Micros delay) { Wake(Job::kForward, delay); };
  forwarding_ = std::make_unique<Forwarding>(std::move(ports), store_, identity_->current().boot);

  if (plan.sqlite) {
    watches_ = std::make_unique<WatchHost>(context_, this, state_->state(),
                                           [this](Micros delay) { Wake(Job::kWatch, delay); });
  }

  raft::NodeOptions options = MakeNodeOptions();
  // As services/engine.cc: what an earlier process has promised holds; what this one promises is
  // durable before it can.
  const std::chrono::milliseconds promised(identity_->current().promised_ms);
  options.core.promised_before_start = promised;
  if (options.core.election_timeout_min > promised) {
    const auto longer =
        std::chrono::ceil<std::chrono::milliseconds>(options.core.election_timeout_min);
    if (!Recorded(identity_->SetPromised(static_cast<uint64_t>(longer.count())),
                  "its promise could not be written")) {
      return false;
    }
  }
  node_ = std::make_unique<raft::Node>(options, std::move(recovered),
                                       raft::Node::Ports{.log = log_port_.get(),
                                                         .transport = transport_port_.get(),
                                                         .state_machine = state_port_.get(),
                                                         .clock = &machine_->clock,
                                                         .snapshots = &snapshots_});
  node_->OnStatusChange([this](const raft::NodeStatus& status) { OnStatus(status); });
  return true;
}

bool Process::Start() {
  if (!OpenIdentity()) return false;
  store_ = identity_->current().store;
  CHECK(store_ == machine_->store, "another disk than is in the machine");
  return context_->plan.birth ? StartBirth() : StartBorn();
}

// Log and state of a store that is in a cluster.
bool Process::OpenEngine() {
  raft::RecoveredState recovered;
  return OpenLog(&recovered) && ProveState() && MakeNode(std::move(recovered));
}

// Recovery has read all of the log that it holds. Of a flipped bit in the database only a check of
// the whole tells for sure, which an operator who has a doubt about the disk makes before the node
// takes part; the product makes none of its own yet.
bool Process::ProveState() {
  if (machine_->disk.flipped().empty()) return true;
  if (!Check(state_->Verify(), "its state is damaged")) return false;
  context_->report.Count(Reached::kDamageHarmless);
  // Of a damaged write-ahead log SQLite takes what is in front: the state may be an older one,
  // which the log makes up for.
  if (machine_->disk.flipped().ends_with("-wal")) context_->history.OnStateLost(store_);
  machine_->disk.ForgetFlip();
  return true;
}

bool Process::StartBorn() {
  if (!identity_->current().cluster) {
    if (!machine_->founder) return true;  // waits to be let in
    if (!Recorded(identity_->SetCluster(context_->cluster), "its cluster could not be written")) {
      return false;
    }
  }
  const bool made = MakeLog(context_->cluster, machine_->founder ? context_->first_entry : nullptr);
  if (!made || !OpenEngine()) return false;
  BeginRun();
  return true;
}

bool Process::Invited() {
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: is let into the cluster", machine_->name.c_str());
  }
  const bool ok =
      Recorded(identity_->SetCluster(context_->cluster), "its cluster was not written") &&
      MakeLog(context_->cluster, nullptr) && OpenEngine();
  if (ok) {
    BeginRun();
  } else {
    AfterStep();
  }
  return ok;
}

bool Process::StartBirth() {
  const storage::Identity identity = identity_->current();
  context_->birth_checker.OnRecorded(*machine_, store_, identity);
  raft::BirthRecord record;
  if (!identity.birth.empty()) {
    const auto decoded = raft::DecodeBirthRecord(identity.birth);
    CHECK(decoded.has_value(), "the checker has read it");
    record = *decoded;
  }
  if (record.log_created && !OpenEngine()) return false;
  if (const auto members = membership()) directory_.LearnMembership(*members);
  BirthHost::Ports ports;
  ports.context = context_;
  ports.machine = machine_;
  ports.process = this;
  ports.identity = identity_.get();
  ports.create_log = [this](const raft::BirthOutput::CreateLog& log) {
    return MakeLog(log.cluster, log.first_entry);
  };
  ports.born = [this] { OpenEngine(); };
  ports.run = [this] { BeginRun(); };
  ports.wake = [this](Micros delay) { Wake(Job::kBirth, delay); };
  const bool complete = state_ != nullptr && state_->Summary().birth_complete;
  birth_ = std::make_unique<BirthHost>(ports, std::move(record), complete);
  birth_->Start();
  return !dead_;
}

// From here on the node takes part.
void Process::BeginRun() {
  running_ = true;
  TakeStatus();
  if (birth_ != nullptr) birth_->OnStatus(*seen_);
  if (context_->plan.dns) {
    autopilot_ = std::make_unique<AutopilotHost>(context_, this);
    autopilot_->Start();
  }
  forwarding_->Start(node_.get());
  context_->trace.Note(kTraceBoot, machine_->number, seen_->term.value(), seen_->last_index.value(),
                       seen_->applied.value());
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: starts with term %s, log %s to %s, applied %s",
                         machine_->name.c_str(), ToString(seen_->term).c_str(),
                         ToString(seen_->first_index).c_str(), ToString(seen_->last_index).c_str(),
                         ToString(seen_->applied).c_str());
  }
  Wake(Job::kNode, 0);
}

}  // namespace quorate::sim
