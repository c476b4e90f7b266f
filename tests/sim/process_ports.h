// The node's ports in the simulator: the production's log and state on simulated disks, with the
// checkers told of all that passes. Part of process.cc and process_start.cc.
#pragma once

#include <set>
#include <utility>
#include <vector>

#include "tests/sim/process.h"

namespace quorate::sim {

class Process::LogPort final : public raft::LogStore {
 public:
  explicit LogPort(Process* process) : p_(process) {}
  void Append(const raft::Persist& persist) override {
    if (p_->dead_) return;
    p_->context_->raft_checker.OnAppend(p_->store_, persist);
    p_->context_->birth_checker.OnAppend(persist);
    for (const raft::EntryPtr& entry : persist.entries) {
      if (entry->payload.size() > p_->context_->plan.segment_bytes) {
        p_->context_->report.Count(Reached::kHugeEntry);
      }
    }
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
    p_->reads_.Serve();
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
      p_->context_->raft_checker.OnSend(message);
      if (const auto* reply = std::get_if<raft::InstallSnapshotReply>(&message.body)) {
        p_->snapshots_.OnCoreReply(*reply);
        continue;
      }
      const auto* question = std::get_if<raft::RequestVote>(&message.body);
      // What a flush has held back may be old news by the time that it leaves.
      if (question != nullptr && question->pre_vote && p_->in_node_step_) {
        p_->context_->raft_checker.OnCampaign(p_->store_, *question, p_->machine_->clock.Now(),
                                              Duration(p_->machine_->election_min));
      }
      p_->context_->send(p_->machine_->number, std::move(message));
    }
  }

 private:
  Process* const p_;
};

}  // namespace quorate::sim
