#include "services/applier.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/check.h"

namespace quorate::services {
namespace {

// Every handler of a request may be waiting for this state: there is nobody left to tell.
void EndProcess(const absl::Status& status) {
  std::fprintf(stderr, "the state cannot be written, this node stops: %s\n",
               std::string(status.message()).c_str());
  std::fflush(stderr);
  std::_Exit(1);
}

}  // namespace

Applier::Applier(storage::State* state, Fatal fatal)
    : state_(state), fatal_(fatal ? std::move(fatal) : EndProcess) {
  const storage::StateSummary summary = state_->Summary();
  applied_ = summary.applied.value();
  revision_ = summary.revision.value();
}

void Applier::Apply(const std::vector<raft::EntryPtr>& entries) {
  if (entries.empty()) return;
  absl::StatusOr<std::vector<storage::Applied>> applied = state_->Apply(entries);
  EndUnless(applied.status());
  if (hook_) hook_(*applied);
  Reached(state_->Summary());
}

bool Applier::Install(const raft::InstallRecord& record) {
  EndUnless(state_->Install(record.generation));
  const storage::StateSummary summary = state_->Summary();
  CHECK(summary.applied == record.snapshot.index, "another state than the log names");
  if (installed_hook_) installed_hook_(summary);
  Reached(summary);
  return summary.birth_complete;
}

void Applier::MakeDurable() { EndUnless(state_->Checkpoint().status()); }

void Applier::EndUnless(const absl::Status& status) {
  if (status.ok()) return;
  fatal_(status);
  CHECK(false, "the process must have ended");
}

void Applier::Reached(const storage::StateSummary& summary) {
  std::vector<std::function<void()>> reached;
  {
    std::lock_guard lock(mutex_);
    applied_ = summary.applied.value();
    revision_ = summary.revision.value();
    TakeReached(&by_index_, applied_, &reached);
    TakeReached(&by_revision_, revision_, &reached);
  }
  for (const auto& done : reached) done();
}

void Applier::TakeReached(Waits* waits, uint64_t reached, std::vector<std::function<void()>>* out) {
  while (!waits->empty() && waits->begin()->first <= reached) {
    out->push_back(std::move(waits->begin()->second.done));
    waits->erase(waits->begin());
  }
}

// Called with mutex_ held by the two below.
Applier::WaitId Applier::Add(Waits* waits, uint64_t target, uint64_t reached,
                             std::function<void()> done) {
  CHECK(target > reached);
  const WaitId id = next_id_++;
  waits->emplace(target, Wait{id, std::move(done)});
  return id;
}

Applier::WaitId Applier::WhenApplied(raft::Index index, std::function<void()> done) {
  {
    std::lock_guard lock(mutex_);
    if (index.value() > applied_) return Add(&by_index_, index.value(), applied_, std::move(done));
  }
  done();
  return 0;
}

Applier::WaitId Applier::WhenRevision(Revision revision, std::function<void()> done) {
  {
    std::lock_guard lock(mutex_);
    if (revision.value() > revision_) {
      return Add(&by_revision_, revision.value(), revision_, std::move(done));
    }
  }
  done();
  return 0;
}

bool Applier::Cancel(WaitId id) {
  const auto is_it = [id](const auto& each) { return each.second.id == id; };
  std::lock_guard lock(mutex_);
  return std::erase_if(by_index_, is_it) + std::erase_if(by_revision_, is_it) > 0;
}

raft::Index Applier::applied() const {
  std::lock_guard lock(mutex_);
  return raft::Index(applied_);
}

}  // namespace quorate::services
