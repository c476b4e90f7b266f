#include "tests/sim/state_box.h"

#include <atomic>
#include <utility>

#include "storage/directory.h"
#include "storage/state_install.h"

namespace quorate::sim {
namespace {

constexpr uint64_t kFirstGeneration = 1;

uint64_t Short(const storage::StateHash& hash) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= uint64_t{hash[i]} << (8 * i);
  return value;
}

raft::SnapshotMeta MetaOf(const storage::StateSummary& summary) {
  return {summary.applied, summary.applied_term, summary.log_time_ms, summary.membership_index,
          summary.membership};
}

class MemoryBox final : public StateBox {
 public:
  MemoryBox(Machine* machine, uint64_t generation, uint64_t keep_every)
      : machine_(machine), state_(&machine->vault, generation, keep_every) {}
  storage::State* state() override { return &state_; }
  raft::Index applied() const override { return state_.data().applied; }
  uint64_t Hash() const override { return state_.hash(); }
  std::vector<uint64_t> Hashes() override { return state_.hashes(); }
  absl::StatusOr<StatePayloadPtr> Copy() override {
    auto payload = std::make_shared<StatePayload>();
    payload->memory = state_.Snapshot();
    payload->meta = MetaOf(state_.Summary());
    return StatePayloadPtr(std::move(payload));
  }
  absl::StatusOr<uint64_t> Place(const StatePayload& payload) override {
    const uint64_t generation = state_.generation() + 1;
    machine_->vault.PutDurable(generation, payload.memory);
    return generation;
  }
  absl::Status Verify() override { return absl::OkStatus(); }
  absl::Status RemoveOthers() override {
    machine_->vault.RemoveOthers(state_.generation());
    return absl::OkStatus();
  }

 private:
  Machine* const machine_;
  MemoryState state_;
};

storage::StateOptions StateOptionsOf(Machine* machine, ClusterId cluster) {
  storage::StateOptions options;
  options.directory = machine->data;
  options.cluster = cluster;
  options.readers = 1;
  options.disk = &machine->disk;
  // Small, so that checkpoints happen.
  options.wal_bytes_max = 256u << 10;
  return options;
}

class SqliteBox final : public StateBox {
 public:
  SqliteBox(Machine* machine, std::unique_ptr<storage::State> state)
      : machine_(machine), state_(std::move(state)) {}
  storage::State* state() override { return state_.get(); }
  std::vector<uint64_t> Hashes() override { return {Short(state_->Summary().hash)}; }

  absl::StatusOr<StatePayloadPtr> Copy() override {
    storage::Disk* const disk = &machine_->disk;
    const std::string directory = storage::SnapshotDirectory(machine_->data);
    if (absl::Status s = disk->MakeDirectory(directory); !s.ok()) return s;
    const std::string path = storage::JoinPath(directory, "outgoing.db");
    const std::atomic<bool> never{false};
    const auto copy = state_->Copy(path, never);
    if (!copy.ok()) return copy.status();
    auto file = storage::ReadWholeFile(disk, path, copy->bytes);
    if (!file.ok()) return file.status();
    if (absl::Status s = disk->Remove(path); !s.ok()) return s;
    auto payload = std::make_shared<StatePayload>();
    payload->file = *std::move(file);
    payload->meta = {copy->index, copy->term, copy->log_time_ms, copy->membership_index,
                     copy->membership};
    payload->hash = copy->hash;
    return StatePayloadPtr(std::move(payload));
  }

  absl::StatusOr<uint64_t> Place(const StatePayload& payload) override {
    auto incoming = storage::IncomingState::Begin(&machine_->disk, machine_->data,
                                                  state_->generation(), payload.file.size());
    if (!incoming.ok()) return incoming.status();
    if (absl::Status s = (*incoming)->Write(0, payload.file); !s.ok()) return s;
    const std::atomic<bool> never{false};
    const auto finished = (*incoming)->Finish(
        {payload.meta.membership.cluster, payload.meta.index, payload.meta.term, payload.hash},
        never);
    if (!finished.ok()) return finished.status();
    return (*incoming)->generation();
  }

  absl::Status Verify() override {
    const auto check = state_->CheckHash();
    if (!check.ok()) return check.status();
    if (check->kept != check->recomputed) {
      const std::string directory = storage::StateDirectory(machine_->data, state_->generation());
      return absl::DataLossError(storage::JoinPath(directory, "state.db") +
                                 ": its rows have another hash than was kept");
    }
    // Nobody is sent a state that knows no members.
    return Summary().membership_index ? Copy().status() : absl::OkStatus();
  }
  absl::Status RemoveOthers() override {
    return storage::RemoveOtherGenerations(&machine_->disk, machine_->data, state_->generation());
  }

 private:
  Machine* const machine_;
  const std::unique_ptr<storage::State> state_;
};

}  // namespace

uint64_t StateBox::Hash() const { return Short(Summary().hash); }

absl::Status StateBox::Create(Machine* machine, ClusterId cluster, bool sqlite) {
  if (!sqlite) {
    machine->vault.Wipe();
    machine->vault.PutDurable(kFirstGeneration,
                              std::make_shared<MemoryData>(machine->light_limits));
    return absl::OkStatus();
  }
  absl::Status removed =
      machine->disk.RemoveTree(storage::StateDirectory(machine->data, kFirstGeneration));
  if (!removed.ok()) return removed;
  return storage::State::Create(StateOptionsOf(machine, cluster)).status();
}

absl::StatusOr<std::unique_ptr<StateBox>> StateBox::Open(Machine* machine, ClusterId cluster,
                                                         bool sqlite, uint64_t named,
                                                         uint64_t keep_every) {
  if (sqlite) {
    auto state = storage::OpenNamedState(StateOptionsOf(machine, cluster), named);
    if (!state.ok()) return state.status();
    return std::unique_ptr<StateBox>(new SqliteBox(machine, *std::move(state)));
  }
  const uint64_t generation = named == 0 ? kFirstGeneration : named;
  if (!machine->vault.Holds(generation)) return absl::DataLossError("the state is not there");
  return std::unique_ptr<StateBox>(new MemoryBox(machine, generation, keep_every));
}

}  // namespace quorate::sim
