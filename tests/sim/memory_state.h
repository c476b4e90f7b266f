// A light state machine: what the commands mean, without SQLite.
//
// It stands in for storage::State where the simulator wants speed. It knows sessions (the
// production's own SessionTable) and, by StoreModel, what the simulated clients send. Watches are
// asked of SQLite only. Everything else is a CHECK.
//
// The hash is one over everything that was applied, in order, and what was answered.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "storage/state.h"
#include "storage/state_sessions.h"
#include "tests/sim/random.h"
#include "tests/sim/store_model.h"

namespace quorate::sim {

// A whole state; what the past held is shared between copies.
struct MemoryData {
  explicit MemoryData(const StoreLimits& limits) : store(limits) {}
  raft::Index applied;
  raft::Term applied_term;
  raft::Membership membership;
  raft::Index membership_index;
  bool birth_complete = false;
  StoreModel store;
  storage::SessionTable sessions;
  uint64_t hash = 0;
};

// What a machine's disk holds of such states: survives processes; of a power failure only what is
// durable is sure to.
class StateVault {
 public:
  // The state of a generation becomes durable, from wherever it came.
  void PutDurable(uint64_t generation, std::shared_ptr<const MemoryData> data);
  // What a crash may find, beside what is durable; the oldest of such go.
  void MaySurvive(uint64_t generation, std::shared_ptr<const MemoryData> data);
  void RemoveOthers(uint64_t generation);
  bool Holds(uint64_t generation) const { return generations_.contains(generation); }

  // The power fails: each generation falls back to one of its moments.
  void PowerFailure(Random* random);
  void Wipe() { generations_.clear(); }

  struct Generation {
    std::shared_ptr<MemoryData> live;  // as processes see it
    // The first is durable; those after it may or may not be.
    std::vector<std::shared_ptr<const MemoryData>> moments;
  };
  Generation* Find(uint64_t generation);

 private:
  static constexpr size_t kMomentsMax = 4;
  std::map<uint64_t, Generation> generations_;
};

class MemoryState final : public storage::State {
 public:
  // The generation must be in the vault. `keep_every`: a moment that a crash may find is kept each
  // time so many entries have been applied.
  MemoryState(StateVault* vault, uint64_t generation, uint64_t keep_every);

  absl::StatusOr<std::vector<storage::Applied>> Apply(
      const std::vector<raft::EntryPtr>& entries) override;
  absl::StatusOr<bool> Checkpoint() override;
  absl::Status Install(uint64_t generation) override;
  uint64_t generation() const override { return generation_; }
  absl::StatusOr<storage::StateCopy> Copy(const std::string&, const std::atomic<bool>&) override;
  raft::Index durable_applied() const override { return durable_applied_; }
  storage::StateSummary Summary() const override;
  bool leases() const override { return false; }
  std::optional<storage::SessionView> FindSession(StoreId store) const override;
  std::shared_ptr<const std::string> KeptAnswer(StoreId store, uint64_t sequence) const override;
  std::pair<absl::StatusOr<storage::Item>, Revision> Get(
      std::string_view key, std::optional<Revision> at, const storage::ReadLimits& limits) override;
  absl::StatusOr<storage::ListPage> List(const storage::ListQuery& query,
                                         const storage::ReadLimits&) override;
  absl::StatusOr<std::pair<uint64_t, Revision>> Count(std::string_view prefix,
                                                      std::optional<Revision> at,
                                                      const storage::ReadLimits&) override;
  absl::StatusOr<std::vector<uint64_t>> DueTtls(uint64_t log_time_ms, size_t limit,
                                                const storage::ReadLimits&) override;
  absl::StatusOr<storage::HistoryPage> History(const storage::HistoryQuery& query,
                                               const storage::ReadLimits&) override;

  // What the simulation does not ask of it.
  absl::StatusOr<storage::ChangesPage> Changes(const storage::ChangesQuery&) override;
  void CollectChanges(storage::Collect) override {}
  absl::StatusOr<std::pair<raft::Index, storage::StateHash>> RecomputeHash() override;
  absl::StatusOr<storage::HashCheck> CheckHash() override;
  absl::StatusOr<std::vector<std::pair<raft::Index, storage::StateHash>>> RecordedHashes() override;

  // A copy of everything, to be sent.
  std::shared_ptr<const MemoryData> Snapshot() const;
  const MemoryData& data() const { return *data_; }
  uint64_t hash() const { return data_->hash; }
  // Behind each entry of the last batch.
  const std::vector<uint64_t>& hashes() const { return hashes_; }

 private:
  void ApplyOne(const raft::Entry& entry, std::vector<storage::Applied>* outcomes);
  void ApplyCommand(const raft::Entry& entry, storage::Applied* outcome);
  // Whether a read of `at` can be answered.
  absl::Status CheckPast(std::optional<Revision> at) const;
  void Use(uint64_t generation);

  StateVault* const vault_;
  const uint64_t keep_every_;
  uint64_t generation_;
  std::shared_ptr<MemoryData> data_;
  raft::Index durable_applied_;
  raft::Index kept_at_;
  std::vector<uint64_t> hashes_;
  v1::Command command_;
  v1::Answer answer_;
};

}  // namespace quorate::sim
