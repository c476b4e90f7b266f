// Brings committed entries into the state machine and tells who waits for it.
//
// The order for each batch (DESIGN.md, section 4): the transaction commits in SQLite, then the
// applied hook (the forwarder answers writes), then whoever waits for this index or revision.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "raft/ports.h"
#include "storage/state.h"

namespace quorate::services {

class Applier final : public raft::StateMachine {
 public:
  using AppliedHook = std::function<void(const std::vector<storage::Applied>&)>;
  // Must not return. Called when the state cannot be written: the process has to end, because
  // what the database holds now is unknown and what it acknowledged must not be contradicted.
  using Fatal = std::function<void(const absl::Status&)>;

  // `state` outlives this. Without `fatal`: the reason on stderr and exit code 1, at once and
  // without destructors.
  explicit Applier(storage::State* state, Fatal fatal = nullptr);

  // Set before the node starts. Run on the apply thread: must not block.
  void OnApplied(AppliedHook hook) { hook_ = std::move(hook); }

  // The same for a snapshot that has just replaced the state: what it holds was never applied here
  // entry by entry. Before whoever waits for it.
  using InstalledHook = std::function<void(const storage::StateSummary&)>;
  void OnInstalled(InstalledHook hook) { installed_hook_ = std::move(hook); }

  // Apply thread (raft::Node).
  void Apply(const std::vector<raft::EntryPtr>& entries) override;
  bool Install(const raft::InstallRecord& record) override;
  void MakeDurable() override;
  // Any thread.
  raft::Index durable_applied() override { return state_->durable_applied(); }

  // --- Any thread ---

  // Runs `done` once, as soon as the state holds this index (or shows this revision): at once on
  // the calling thread when it does already, else on the apply thread, where it must not block.
  // There is no time limit here: the caller has its own alarm and cancels. Returns what Cancel
  // takes; 0: done has run.
  using WaitId = uint64_t;
  WaitId WhenApplied(raft::Index index, std::function<void()> done);
  WaitId WhenRevision(Revision revision, std::function<void()> done);
  // True: `done` will not run. False: it has run or is about to.
  bool Cancel(WaitId id);

  raft::Index applied() const;

 private:
  struct Wait {
    WaitId id = 0;
    std::function<void()> done;
  };
  using Waits = std::multimap<uint64_t, Wait>;  // by what they wait for

  WaitId Add(Waits* waits, uint64_t target, uint64_t reached, std::function<void()> done);
  void Reached(const storage::StateSummary& summary);
  void EndUnless(const absl::Status& status);
  static void TakeReached(Waits* waits, uint64_t reached, std::vector<std::function<void()>>* out);

  storage::State* const state_;
  const Fatal fatal_;
  // Constant once the node runs.
  AppliedHook hook_;
  InstalledHook installed_hook_;

  mutable std::mutex mutex_;
  // Protected by mutex_.
  uint64_t applied_ = 0;
  uint64_t revision_ = 0;
  WaitId next_id_ = 1;
  Waits by_index_;
  Waits by_revision_;
};

}  // namespace quorate::services
