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

// It comes as a whole, with the last piece.
class MemoryIncoming final : public StateBox::Incoming {
 public:
  MemoryIncoming(Machine* machine, uint64_t generation, const StatePayload& payload)
      : machine_(machine), generation_(generation), payload_(payload) {}
  absl::Status Write(std::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<uint64_t> Finish() override {
    machine_->vault.PutDurable(generation_, payload_.memory);
    return generation_;
  }

 private:
  Machine* const machine_;
  const uint64_t generation_;
  const StatePayload& payload_;
};

class SqliteIncoming final : public StateBox::Incoming {
 public:
  SqliteIncoming(std::unique_ptr<storage::IncomingState> incoming, const StatePayload& payload)
      : incoming_(std::move(incoming)), payload_(payload) {}
  absl::Status Write(std::string_view bytes) override {
    return incoming_->Write(incoming_->written(), bytes);
  }
  absl::StatusOr<uint64_t> Finish() override {
    const std::atomic<bool> never{false};
    const raft::SnapshotMeta& meta = payload_.meta;
    const auto finished =
        incoming_->Finish({meta.membership.cluster, meta.index, meta.term, payload_.hash}, never);
    if (!finished.ok()) return finished.status();
    return incoming_->generation();
  }

 private:
  const std::unique_ptr<storage::IncomingState> incoming_;
  const StatePayload& payload_;
};

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
  absl::StatusOr<std::unique_ptr<Incoming>> Receive(const StatePayload& payload) override {
    return std::unique_ptr<Incoming>(
        new MemoryIncoming(machine_, state_.generation() + 1, payload));
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
  options.request_limits.ids_max = machine->store_limits.request_ids_max;
  options.request_limits.age_max_ms = machine->store_limits.request_age_ms;
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
    const std::string path =
        storage::JoinPath(storage::SnapshotDirectory(machine_->data), "outgoing.db");
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

  absl::StatusOr<std::unique_ptr<Incoming>> Receive(const StatePayload& payload) override {
    auto incoming = storage::IncomingState::Begin(&machine_->disk, machine_->data,
                                                  state_->generation(), payload.file.size());
    if (!incoming.ok()) return incoming.status();
    return std::unique_ptr<Incoming>(new SqliteIncoming(*std::move(incoming), payload));
  }

  absl::Status Verify() override {
    // Damage that the write-ahead log hides would be there again when a power failure takes that.
    if (const auto emptied = state_->Checkpoint(); !emptied.ok()) return emptied.status();
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
                              std::make_shared<MemoryData>(machine->store_limits));
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
