#include "tests/sim/process.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"
#include "storage/directory.h"

namespace quorate::sim {
namespace {

raft::RecoveredState Recovered(const storage::RecoveredLog& log,
                               const storage::StateSummary& state) {
  raft::RecoveredState recovered;
  recovered.hard_state = log.hard_state;
  recovered.prev_index = log.window_prev_index;
  recovered.prev_term = log.window_prev_term;
  recovered.entries = log.window;
  recovered.first_index = log.first_index;
  recovered.applied = state.applied;
  recovered.prev_log_time_ms = state.log_time_ms;
  if (state.membership_index) {
    recovered.memberships.emplace_back(state.membership_index, state.membership);
  }
  for (const auto& [index, membership] : log.memberships) {
    if (index > state.applied) recovered.memberships.emplace_back(index, membership);
  }
  return recovered;
}

uint64_t Pack(size_t machine, uint64_t life, Process::Job job) {
  return life << 16 | machine << 8 | static_cast<uint64_t>(job);
}

}  // namespace

Machine::Machine(size_t number_, Random* random, const EventQueue* events)
    : number(number_),
      data("/m" + std::to_string(number_) + "/data"),
      disk(random),
      clock(events) {}
Machine::~Machine() = default;

// --- Ports ---

class Process::LogPort final : public raft::LogStore {
 public:
  explicit LogPort(Process* process) : p_(process) {}
  void Append(const raft::Persist& persist) override {
    if (p_->dead_) return;
    p_->context_->raft_checker.OnAppend(p_->store_, persist);
    p_->Check(p_->log_->Append(persist), "its log could not be written");
  }
  void Sync() override {
    if (p_->dead_) return;
    if (!p_->Check(p_->log_->Sync(), "its log could not be flushed")) return;
    p_->context_->raft_checker.OnSynced(p_->store_);
    p_->context_->trace.Note(kTraceSync, p_->machine_->number, p_->machine_->disk.operations());
  }
  std::vector<raft::EntryPtr> Read(raft::Index from, raft::Index last, size_t bytes) override {
    if (p_->dead_) return {};
    p_->context_->report.Count(Reached::kLogRead);
    auto entries = p_->log_->Read(from, last, bytes);
    if (!p_->Check(entries.status(), "its log could not be read")) return {};
    return *std::move(entries);
  }
  void Cut(raft::Index through) override {
    if (p_->dead_) return;
    const raft::Index before = p_->log_->first_index();
    const auto first = p_->log_->CutPrefix(through, 0);
    if (!p_->Check(first.status(), "its log could not be cut")) return;
    if (*first > before) p_->context_->report.Count(Reached::kLogCutInFront);
  }
  raft::Index TailStart(uint64_t bytes) override { return p_->log_->TailStart(bytes); }
  bool WantsMark() override { return !p_->dead_ && p_->log_->WantsMark(); }
  void WriteMark() override {
    if (p_->dead_) return;
    p_->Check(p_->log_->WriteMark(), "its log could not be marked");
  }

 private:
  Process* const p_;
};

class Process::StatePort final : public raft::StateMachine {
 public:
  explicit StatePort(Process* process) : p_(process) {}
  void Apply(const std::vector<raft::EntryPtr>& entries) override {
    if (p_->dead_) return;
    const auto outcomes = p_->state_->state()->Apply(entries);
    if (!p_->Check(outcomes.status(), "its state could not be written")) return;
    p_->OnApplied(entries, *outcomes);
  }
  bool Install(const raft::InstallRecord& record) override {
    if (p_->dead_) return false;
    if (!p_->Check(p_->state_->state()->Install(record.generation),
                   "a state could not be installed")) {
      return false;
    }
    p_->context_->raft_checker.OnInstalled(p_->store_, record.snapshot.index, p_->state_->Hash());
    p_->context_->report.Count(Reached::kSnapshotInstalled);
    if (!p_->Check(p_->state_->RemoveOthers(), "an older state could not be removed")) return false;
    if (p_->watches_ != nullptr) p_->watches_->OnInstalled();
    p_->ServeReads();
    return p_->state_->Summary().birth_complete;
  }
  void MakeDurable() override {
    if (!p_->dead_)
      p_->Check(p_->state_->state()->Checkpoint().status(), "its state could not be flushed");
  }
  raft::Index durable_applied() override { return p_->state_->state()->durable_applied(); }

 private:
  Process* const p_;
};

class Process::TransportPort final : public raft::Transport {
 public:
  explicit TransportPort(Process* process) : p_(process) {}
  void Send(std::vector<raft::Message> messages) override {
    for (raft::Message& message : messages) {
      if (p_->dead_) return;
      if (const auto* reply = std::get_if<raft::InstallSnapshotReply>(&message.body)) {
        p_->snapshots_.OnCoreReply(*reply);
        continue;
      }
      p_->context_->raft_checker.OnSend(message);
      const auto* question = std::get_if<raft::RequestVote>(&message.body);
      // What a flush has held back may be old news by the time that it leaves.
      if (question != nullptr && question->pre_vote && p_->in_node_step_) {
        p_->context_->raft_checker.OnCampaign(p_->store_, *question, p_->machine_->clock.Now(),
                                              Duration(p_->context_->plan.election_min));
      }
      p_->context_->send(p_->machine_->number, std::move(message));
    }
  }

 private:
  Process* const p_;
};

// --- Birth and death ---

Process::Process(Context* context, Machine* machine)
    : context_(context), machine_(machine), life_(machine->life), snapshots_(context, this) {
  due_.fill(kNever);
}

Process::~Process() {
  dead_ = true;
  if (forwarding_ != nullptr) forwarding_->AddTo(&context_->report);
  node_.reset();  // it answers what it was asked: nobody listens any more
  forwarding_.reset();
  watches_.reset();
}

void Process::Die(const char* why) {
  if (dead_) return;
  dead_ = true;
  why_dead_ = why;
}

bool Process::Check(const absl::Status& status, const char* what) {
  if (status.ok()) return true;
  if (!machine_->disk.stopped() && !machine_->disk.failed() && !machine_->disk.flipped()) {
    context_->failure.Fail(machine_->name + ": " + what +
                           ", and nothing is wrong with its disk: " + status.ToString());
  }
  if (absl::IsDataLoss(status) && !machine_->disk.stopped()) machine_->corrupt = true;
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: %s: %s", machine_->name.c_str(), what, status.ToString().c_str());
  }
  Die(what);
  return false;
}

bool Process::OpenIdentity() {
  storage::Disk* const disk = &machine_->disk;
  disk->MakeDirectory(machine_->data).IgnoreError();
  const std::string path = storage::IdentityPath(machine_->data);
  auto identity = storage::IdentityFile::Open(disk, path, machine_->name);
  if (absl::IsNotFound(identity.status())) {
    identity = storage::IdentityFile::Create(disk, path, machine_->name, machine_->store);
  }
  if (!Check(identity.status(), "its identity could not be opened")) return false;
  identity_ = *std::move(identity);
  return Check(identity_->NextBoot().status(), "its start could not be counted");
}

// As services/engine.cc makes the log and the state of a store that has just been born.
bool Process::MakeLog() {
  storage::Disk* const disk = &machine_->disk;
  const std::string directory = storage::LogDirectory(machine_->data);
  disk->MakeDirectory(directory).IgnoreError();
  const auto left = disk->List(directory);
  if (!Check(left.status(), "its log's directory could not be read")) return false;
  for (const std::string& name : *left) {
    if (!Check(disk->Remove(storage::JoinPath(directory, name)), "a leftover stays")) return false;
  }
  if (!Check(disk->SyncDirectory(directory), "its log's directory was not flushed")) return false;
  context_->raft_checker.OnLogRemoved(store_);
  if (!Check(StateBox::Create(machine_, context_->cluster, context_->plan.sqlite),
             "its state could not be made")) {
    return false;
  }
  storage::LogOptions options;
  options.directory = directory;
  options.cluster = context_->cluster;
  options.store = store_;
  options.segment_bytes = context_->plan.segment_bytes;
  auto log = storage::Log::Create(disk, options);
  if (!Check(log.status(), "its log could not be made")) return false;
  if (machine_->founder) {
    raft::Persist persist;
    persist.ticket = raft::Ticket(1);
    persist.hard_state = raft::HardState{context_->first_entry->term, StoreId()};
    persist.entries = {context_->first_entry};
    context_->raft_checker.OnAppend(store_, persist);
    if (!Check((*log)->Append(persist), "its first entry was not written")) return false;
    if (!Check((*log)->Sync(), "its first entry was not flushed")) return false;
    context_->raft_checker.OnSynced(store_);
  }
  return Check(identity_->SetLogMade(), "its identity could not be written");
}

bool Process::OpenLog(raft::RecoveredState* recovered) {
  storage::LogOptions options;
  options.directory = storage::LogDirectory(machine_->data);
  options.cluster = context_->cluster;
  options.store = store_;
  options.segment_bytes = context_->plan.segment_bytes;
  options.window_bytes = context_->plan.window_bytes;
  const auto open_state = [this](uint64_t named) -> absl::StatusOr<raft::Index> {
    auto state = StateBox::Open(machine_, context_->cluster, context_->plan.sqlite, named,
                                context_->plan.keep_every);
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
  *recovered = Recovered(found, state_->Summary());
  return true;
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
    const auto boot = identity_->NextBoot();
    if (!Check(boot.status(), "its session could not be counted")) return std::nullopt;
    return *boot;
  };
  ports.wake = [this](Micros delay) { Wake(Job::kForward, delay); };
  forwarding_ = std::make_unique<Forwarding>(std::move(ports), store_, identity_->current().boot);

  if (plan.sqlite) {
    watches_ = std::make_unique<WatchHost>(context_, this, state_->state(),
                                           [this](Micros delay) { Wake(Job::kWatch, delay); });
  }

  raft::NodeOptions options;
  options.core.self = store_;
  options.core.seed = context_->random.Next();
  options.core.heartbeat_interval = Duration(plan.heartbeat);
  options.core.election_timeout_min = Duration(plan.election_min);
  options.core.election_timeout_max = Duration(plan.election_max);
  options.core.window_bytes_max = plan.window_bytes;
  options.core.append_bytes_max = plan.append_bytes;
  options.core.inflight_bytes_max = plan.inflight_bytes;
  options.core.inflight_messages_max = plan.inflight_messages;
  options.core.uncommitted_bytes_max = plan.uncommitted_bytes;
  options.core.apply_bytes_max = plan.apply_bytes;
  options.core.read_ids_from = context_->random.Next() >> 2;
  options.leases = plan.leases;
  // As services/engine.cc: what an earlier process has promised holds; what this one promises is
  // durable before it can.
  const std::chrono::milliseconds promised(identity_->current().promised_ms);
  options.core.promised_before_start = promised;
  if (options.core.election_timeout_min > promised) {
    const auto longer =
        std::chrono::ceil<std::chrono::milliseconds>(options.core.election_timeout_min);
    if (!Check(identity_->SetPromised(static_cast<uint64_t>(longer.count())),
               "its promise could not be written")) {
      return false;
    }
  }
  options.birth_complete = state_->Summary().birth_complete;
  options.log_tail_bytes = plan.log_tail_bytes;
  options.log_pinned_bytes_max = plan.log_pinned_bytes;
  options.cut_interval = Duration(plan.cut_interval);
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
  if (!identity_->current().cluster) {
    if (!machine_->founder) return true;  // waits to be let in
    if (!Check(identity_->SetCluster(context_->cluster), "its cluster could not be written")) {
      return false;
    }
  }
  return OpenAll();
}

bool Process::Invited() {
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: is let into the cluster", machine_->name.c_str());
  }
  const bool ok =
      Check(identity_->SetCluster(context_->cluster), "its cluster was not written") && OpenAll();
  if (!ok) AfterStep();
  return ok;
}

bool Process::OpenAll() {
  if (!identity_->current().log_made && !MakeLog()) return false;
  raft::RecoveredState recovered;
  if (!OpenLog(&recovered)) return false;
  if (!MakeNode(std::move(recovered))) return false;
  seen_ = node_->status();
  context_->raft_checker.OnStatus(*seen_);
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
  return true;
}

// --- Jobs ---

Micros Process::Slowed(Micros time) const {
  return context_->events.now() < machine_->slow_until ? 20 * time : time;
}

void Process::Wake(Job job, Micros delay) {
  if (delay == kNever || dead_) return;
  const Micros at = context_->events.now() + delay;
  Micros& due = due_[static_cast<size_t>(job)];
  if (due <= at) return;
  due = at;
  context_->events.At(at, [context = context_, packed = Pack(machine_->number, life_, job)] {
    Fire(context, packed);
  });
}

void Process::Fire(Context* context, uint64_t packed) {
  Machine& machine = *context->machines[packed >> 8 & 0xff];
  Process* const process = machine.process.get();
  if (process == nullptr || process->life_ != packed >> 16 || process->dead_) return;
  const Job job = static_cast<Job>(packed & 0xff);
  Micros& due = process->due_[packed & 0xff];
  const Micros now = context->events.now();
  if (due != now) return;  // it was woken for an earlier time, and has run
  due = kNever;
  if (machine.paused_until > now) return process->Wake(job, machine.paused_until - now);
  process->RunJob(job);
  process->AfterStep();
}

void Process::AfterStep() {
  if (machine_->disk.stopped()) Die("the machine stops between two disk operations");
  if (dead_) context_->process_ended(machine_->number, why_dead_);
}

Micros Process::FlushTime() {
  const Plan& plan = context_->plan;
  Micros time = context_->random.Between(plan.flush_min, plan.flush_max);
  if (!context_->calm && context_->random.Chance(plan.slow_flush_permille)) {
    context_->report.Count(Fault::kSlowFlush);
    time += context_->random.Between(0, plan.slow_flush);
  }
  return Slowed(time);
}

void Process::RunJob(Job job) {
  switch (job) {
    case Job::kNode:
      return RunNode();
    case Job::kLog:
      if (flushing_) return;  // it comes back for more by itself
      flushing_ = node_->BeginLog();
      return flushing_ ? Wake(Job::kFlush, FlushTime()) : EndLog();
    case Job::kFlush:
      flushing_ = false;
      return EndLog();
    case Job::kApply:
      if (node_->RunApplyOnce()) {
        Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
        Wake(Job::kApply, Slowed(context_->random.Between(1, context_->plan.apply)));
      }
      return;
    case Job::kLogRead:
      if (node_->RunLogReadOnce()) {
        Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
        Wake(Job::kLogRead, FlushTime());
      }
      return;
    case Job::kWatch: {
      const Micros next = watches_->Run();
      if (next != kNever) Wake(Job::kWatch, std::max<Micros>(next - context_->events.now(), 1));
      return;
    }
    case Job::kForward: {
      const Micros next = forwarding_->Run();
      if (next != kNever) Wake(Job::kForward, std::max<Micros>(next - context_->events.now(), 1));
      return;
    }
  }
}

void Process::EndLog() {
  if (node_->EndLog()) {
    Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
    Wake(Job::kLog, Slowed(context_->random.Between(0, context_->plan.step)));
  }
  if (log_port_->WantsMark()) {
    Wake(Job::kLog, Duration(raft::LogStore::kMarkDelay).count() * 11 / 10);
  }
}

void Process::RunNode() {
  in_node_step_ = true;
  const bool worked = node_->RunOnce();
  in_node_step_ = false;
  if (worked) {
    Wake(Job::kLog, Slowed(context_->random.Between(0, context_->plan.step)));
    Wake(Job::kApply, Slowed(context_->random.Between(1, context_->plan.apply)));
    Wake(Job::kLogRead, FlushTime());
    seen_ = node_->status();
    context_->raft_checker.OnStatus(*seen_);
    context_->trace.Note(kTraceStatus, machine_->number, seen_->term.value(), seen_->commit.value(),
                         seen_->last_index.value());
  }
  const Micros next = machine_->clock.WhenShows(node_->NextDeadline());
  if (next != kNever) Wake(Job::kNode, std::max<Micros>(next - context_->events.now(), 1));
}

void Process::Deliver(raft::Message message) {
  if (dead_) return;
  if (node_ == nullptr) {
    if (!std::holds_alternative<raft::AppendEntries>(message.body) || !Invited()) return;
  }
  context_->raft_checker.OnHeard(store_, message, machine_->clock.Now());
  node_->Receive(std::move(message));
  Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
}

void Process::OnSnapshotOffer(const Snapshots::Offer& offer) {
  if (!dead_ && node_ != nullptr) snapshots_.OnOffer(offer);
}

void Process::OnStatus(const raft::NodeStatus& status) {
  if (dead_) return;
  forwarding_->OnStatus(status);
  if (watches_ != nullptr) watches_->OnStatus(status);
  if (status.birth_complete) context_->report.Count(Reached::kBirthComplete);
  if (context_->trace.telling()) {
    static constexpr const char* kRoles[] = {"follower", "pre-candidate", "candidate", "leader"};
    Machine* const leader = context_->MachineOf(status.leader);
    context_->trace.Tell("%s: %s%s in term %s, leader %s, log %s to %s, commit %s, applied %s",
                         machine_->name.c_str(), kRoles[static_cast<size_t>(status.role)],
                         status.leader_ready ? " (ready)" : "", ToString(status.term).c_str(),
                         leader == nullptr ? "none" : leader->name.c_str(),
                         ToString(status.first_index).c_str(), ToString(status.last_index).c_str(),
                         ToString(status.commit).c_str(), ToString(status.applied).c_str());
  }
}

void Process::OnApplied(const std::vector<raft::EntryPtr>& entries,
                        const std::vector<storage::Applied>& outcomes) {
  context_->raft_checker.OnApplied(store_, entries, state_->Hashes());
  context_->history.OnApplied(entries, outcomes);
  context_->trace.Note(kTraceApply, machine_->number, entries.back()->index.value(),
                       state_->Hash());
  // In the order of the services: the transaction, then watches, then whoever waits.
  if (watches_ != nullptr) watches_->OnApplied(outcomes);
  forwarding_->OnApplied(outcomes);
  ServeReads();
}

// --- Reads ---

void Process::ReadLinearizable(const std::string& key, bool by_lease, ReadDone done) {
  WaitingRead read{key, std::move(done), context_->events.now(), by_lease, {}};
  auto shared = std::make_shared<WaitingRead>(std::move(read));
  node_->RequestRead(by_lease ? raft::ReadMode::kLease : raft::ReadMode::kRound,
                     [this, shared](const raft::ReadResult& result) {
                       if (dead_) return;
                       if (result.outcome != raft::ReadOutcome::kConfirmed) {
                         return shared->done({});
                       }
                       if (result.lease_until) shared->lease_until = *result.lease_until;
                       shared->by_lease = result.lease_until.has_value();
                       waiting_reads_.emplace(result.index, std::move(*shared));
                       ServeReads();
                     });
  Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
}

void Process::ServeReads() {
  const raft::Index applied = state_->applied();
  while (!waiting_reads_.empty() && waiting_reads_.begin()->first <= applied) {
    const WaitingRead read = std::move(waiting_reads_.begin()->second);
    waiting_reads_.erase(waiting_reads_.begin());
    ReadOutcome outcome;
    const auto [item, revision] = state_->state()->Get(read.key, std::nullopt, {});
    // Judged after the read, as services/config_service does.
    if (read.by_lease && machine_->clock.Now() >= read.lease_until) {
      read.done({});
      continue;
    }
    outcome.served = true;
    outcome.by_lease = read.by_lease;
    outcome.revision = revision;
    outcome.found = item.ok();
    if (item.ok()) outcome.value = item->value;
    outcome.not_before = read.asked;
    read.done(outcome);
  }
}

Process::ReadOutcome Process::ReadLocal(const std::string& key) {
  ReadOutcome outcome;
  const auto fresh = node_->status()->fresh_as_of;
  // A store that has never caught up answers nothing; here that is known by its membership.
  if (!fresh || !state_->Summary().membership_index) return outcome;
  const auto [item, revision] = state_->state()->Get(key, std::nullopt, {});
  outcome.served = true;
  outcome.revision = revision;
  outcome.found = item.ok();
  if (item.ok()) outcome.value = item->value;
  outcome.not_before = std::max<Micros>(0, machine_->clock.WhenShowed(*fresh));
  return outcome;
}

}  // namespace quorate::sim
