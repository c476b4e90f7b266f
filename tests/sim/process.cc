#include "tests/sim/process.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "tests/sim/process_ports.h"

namespace quorate::sim {
namespace {

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

// --- Birth and death ---

Process::Process(Context* context, Machine* machine)
    : context_(context),
      machine_(machine),
      life_(machine->life),
      snapshots_(context, this),
      reads_(context, this) {
  due_.fill(kNever);
}

Process::~Process() {
  dead_ = true;
  if (forwarding_ != nullptr) forwarding_->AddTo(&context_->report);
  autopilot_.reset();
  birth_.reset();
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
  const SimulatedDisk& disk = machine_->disk;
  if (context_->trace.telling()) {
    context_->trace.Tell("%s: %s: %s", machine_->name.c_str(), what, status.ToString().c_str());
  }
  if (!disk.stopped() && !disk.failed()) NoticeDamage(status, what);
  Die(what);
  return false;
}

// Nothing but a flipped bit can be the cause of an error; and then the file is named.
void Process::NoticeDamage(const absl::Status& status, const char* what) {
  std::string flipped = machine_->disk.flipped();
  const bool wal = flipped.ends_with("-wal");
  if (wal) flipped.resize(flipped.size() - 4);  // part of that database
  // SQLite takes the first frame that does not check for the end of what was written: the database
  // is whole, and older than the log can make up for. Which of the two has lost something nobody
  // can know; so both are spoken of, and the log is named.
  const bool too_old =
      wal && status.message().find("the database has applied only up to") != std::string::npos;
  if (flipped.empty()) {
    return context_->failure.Fail(machine_->name + ": " + what +
                                  ", and nothing is wrong with its disk: " + status.ToString());
  }
  if (!too_old && status.message().find(flipped) == std::string::npos) {
    context_->failure.Fail(machine_->name + ": a bit was flipped in " + flipped + ", and " + what +
                           " without naming it: " + status.ToString());
  }
  context_->report.Count(Reached::kDamageNoticed);
  machine_->corrupt = true;
}

// --- Jobs ---

Micros Process::Slowed(Micros time) const {
  if (time == 0 || context_->events.now() >= machine_->slow_until) return time;
  context_->CountFelt(machine_, Fault::kSlowNode);
  return 20 * time;
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
  if (machine.paused_until > now) {
    context->CountFelt(&machine, Fault::kPause);
    return process->Wake(job, machine.paused_until - now);
  }
  machine.disk.ForgetErrors();  // but for a read, they would have ended it
  process->RunJob(job);
  process->AfterStep();
}

void Process::After(Micros delay, std::function<void()> action) {
  context_->events.After(delay, [context = context_, machine = machine_->number, life = life_,
                                 action = std::move(action)]() mutable {
    Run(context, machine, life, std::move(action));
  });
}

void Process::Run(Context* context, size_t number, uint64_t life, std::function<void()> action) {
  Machine& machine = *context->machines[number];
  const auto find = [&machine, life] {
    Process* const process = machine.process.get();
    return process != nullptr && process->life_ == life ? process : nullptr;
  };
  Process* const process = find();
  if (process == nullptr || process->dead_) return;
  const Micros now = context->events.now();
  if (machine.paused_until > now) {
    context->CountFelt(&machine, Fault::kPause);
    return process->After(machine.paused_until - now, std::move(action));
  }
  machine.disk.ForgetErrors();
  action();
  // It may have been buried over it; or have died of it, and is to be buried.
  if (Process* const still = find(); still != nullptr) still->AfterStep();
}

void Process::AfterStep() {
  const SimulatedDisk& disk = machine_->disk;
  if (disk.stopped()) Die("the machine stops between two disk operations");
  // What the disk holds now nobody knows: the next process will look (canonical/raft #314).
  if (!dead_ && !disk.failed_change().empty()) {
    context_->failure.Fail(machine_->name + ": it goes on after a change of its disk has failed: " +
                           disk.failed_change());
  }
  if (dead_) context_->process_ended(machine_->number, why_dead_);
}

Micros Process::DiskTime(bool writes) {
  const Plan& plan = context_->plan;
  Micros time = context_->random.Between(plan.flush_min, plan.flush_max);
  if (!context_->calm && context_->random.Chance(plan.slow_flush_permille)) {
    if (writes) context_->report.Count(Fault::kSlowFlush);
    time += context_->random.Between(0, plan.slow_flush);
  }
  const Micros now = context_->events.now();
  if (machine_->stalled_until > now) {
    if (writes) context_->CountFelt(machine_, Fault::kSlowFlush);
    time += machine_->stalled_until - now;
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
      return flushing_ ? Wake(Job::kFlush, DiskTime(true)) : EndLog();
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
        Wake(Job::kLogRead, DiskTime(false));
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
    case Job::kBirth: {
      const Micros next = birth_->Run();
      if (next != kNever) Wake(Job::kBirth, std::max<Micros>(next - context_->events.now(), 1));
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

// Where most is at stake: something has begun, or has just ended.
bool Process::IsMoment(const raft::NodeStatus& before, const raft::NodeStatus& after) {
  return before.role != after.role || before.membership_index != after.membership_index ||
         before.transfer_target != after.transfer_target || before.installing != after.installing ||
         before.last_index > after.last_index;
}

void Process::TakeStatus() {
  const auto before = std::exchange(seen_, node_->status());
  std::optional<Micros> lease_until;
  if (seen_->lease_until) lease_until = machine_->clock.WhenShows(*seen_->lease_until);
  context_->raft_checker.OnStatus(*seen_, context_->events.now(), lease_until);
  if (before == nullptr) return;
  if (before->role != raft::Role::kCandidate && seen_->role == raft::Role::kCandidate) {
    ++context_->campaigns;
  }
  if (IsMoment(*before, *seen_)) context_->moment(machine_->number);
}

void Process::RecordCaughtUp() {
  if (caught_up_ || dead_ || !seen_->fresh_as_of) return;
  const Micros as_of = machine_->clock.WhenShowed(*seen_->fresh_as_of);
  context_->history.OnCaughtUp(store_, as_of);
  if (!whole_as_of_) whole_as_of_ = as_of;
  using Step = services::CaughtUp::Step;
  const Step step = first_caught_up_.Look(*seen_, state_->state()->durable_applied());
  if (step == Step::kMakeDurable) {
    node_->MakeDurable();
    Wake(Job::kApply, Slowed(context_->random.Between(1, context_->plan.apply)));
  }
  if (step != Step::kRecord) return;
  // Durable first.
  caught_up_ = Recorded(identity_->SetCaughtUpOnce(), "that it has caught up was not recorded");
  if (!caught_up_) return;
  context_->history.OnCaughtUpRecorded(store_, *whole_as_of_);
  if (birth_ != nullptr) birth_->OnCaughtUp();
}

void Process::RunNode() {
  in_node_step_ = true;
  const bool worked = node_->RunOnce();
  in_node_step_ = false;
  if (worked) {
    Wake(Job::kLog, Slowed(context_->random.Between(0, context_->plan.step)));
    Wake(Job::kApply, Slowed(context_->random.Between(1, context_->plan.apply)));
    Wake(Job::kLogRead, DiskTime(false));
    TakeStatus();
    RecordCaughtUp();
    if (birth_ != nullptr) birth_->OnStatus(*seen_);
    context_->trace.Note(kTraceStatus, machine_->number, seen_->term.value(), seen_->commit.value(),
                         seen_->last_index.value());
  }
  const Micros next = machine_->clock.WhenShows(node_->NextDeadline());
  if (next != kNever) Wake(Job::kNode, std::max<Micros>(next - context_->events.now(), 1));
}

void Process::Deliver(raft::Message message, ClusterId cluster) {
  if (dead_) return;
  if (!running_) {
    context_->report.Count(Reached::kNotRunning);
    if (!std::holds_alternative<raft::AppendEntries>(message.body)) return;
    if (birth_ != nullptr) {
      birth_->OnInvited({cluster, message.from});
      return AfterStep();
    }
    if (!Invited()) return;
  } else if (cluster != this->cluster()) {
    return;  // the peers' port refuses it
  }
  context_->raft_checker.OnHeard(store_, message, machine_->clock.Now());
  node_->Receive(std::move(message));
  Wake(Job::kNode, Slowed(context_->random.Between(0, context_->plan.step)));
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
  if (context_->plan.birth) context_->birth_checker.OnApplied(store_, entries);
  context_->history.OnApplied(entries, outcomes);
  context_->trace.Note(kTraceApply, machine_->number, entries.back()->index.value(),
                       state_->Hash());
  // In the order of the services: the transaction, then watches, then whoever waits.
  if (watches_ != nullptr) watches_->OnApplied(outcomes);
  forwarding_->OnApplied(outcomes);
  reads_.Serve();
}

}  // namespace quorate::sim
