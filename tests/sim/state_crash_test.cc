// A store's directory on a disk that stops after each single operation: identity, log and the
// SQLite state, as a node uses them. It is made, entries of every kind are appended and applied,
// the log is cut behind checkpoints, a state is received and installed, the old one removed. Then
// the process alone ends, or the power fails too, with each fate of what was not synced; and
// recovery itself is stopped after each of its operations.
//
// What the next start finds is what was acknowledged or more, the state behind a whole batch with
// its hash, and one generation. And it goes on: the log's entries behind the applied index are
// applied again, the rest is, and the state is in the end what it is without any crash.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "storage/directory.h"
#include "storage/identity.h"
#include "storage/log.h"
#include "storage/state.h"
#include "storage/state_install.h"
#include "tests/sanitizer_share.h"
#include "tests/sim/crash_entries.h"
#include "tests/sim/sqlite_vfs.h"

namespace quorate::sim {
namespace {

using storage::State;
using storage::testing::kCluster;
using storage::testing::kIngress;

constexpr char kMounted[] = "/crash";
constexpr char kCrashData[] = "/crash/data";
constexpr char kCrashNode[] = "a";
const std::atomic<bool> kGoOn{false};

// --- The disk ---

class CrashDisk final : public SimulatedDisk {
 public:
  explicit CrashDisk(uint64_t seed) : SimulatedDisk(&random_), random_(seed) {}
  // As it is, for a next process; `fate` -1: only the process has ended.
  std::unique_ptr<CrashDisk> After(int fate, uint64_t seed) const {
    auto copy = std::make_unique<CrashDisk>(seed);
    copy->CopyFrom(*this);
    if (fate >= 0) copy->PowerFailure(static_cast<Fate>(fate));
    return copy;
  }

  Random random_;
};

// --- A node's storage ---

// What the node's lives so far have said.
struct Told {
  bool log_made = false;
  raft::Index synced;                             // of the log
  raft::Index durable;                            // of the state
  uint64_t generation = 0;                        // that the log names
  std::set<raft::Index> batches{raft::Index(0)};  // ends of those that were begun
};

struct Received {
  raft::SnapshotMeta meta;
  storage::StateHash hash{};
  std::string file;
};

// What happens when nothing does.
struct Undisturbed {
  CrashEntries entries;
  std::map<raft::Index, storage::StateHash> hashes;  // behind each entry
  Received received;
};

storage::StateOptions CrashStateOptions(SimulatedDisk* disk) {
  storage::StateOptions options;
  options.directory = kCrashData;
  options.cluster = ClusterId(kCluster);
  options.readers = 1;
  options.disk = disk;
  options.wal_bytes_max = 160u << 10;  // so that batches end with checkpoints, too
  return options;
}

// One life: from a start on, by the steps of services/engine.cc and raft/driver. Each step tells
// whether it went well; after the first that did not the process is at its end.
class Life {
 public:
  Life(SimulatedDisk* disk, const Undisturbed* all, Told* told)
      : disk_(disk), all_(all), told_(told) {}
  // Nothing of what a process still does on its way out happens.
  ~Life() { disk_->StopAfter(0); }

  // Up to where a node takes part.
  bool Start() {
    return OpenDirectory() && (identity_->current().log_made || MakeData()) && OpenData();
  }
  // The rest of the entries.
  bool GoOn() {
    const CrashEntries& entries = all_->entries;
    while (Last() < entries.received_from()) {
      if (!Batch(entries.received_from())) return false;
    }
    if (Last() < entries.received_through() && !Install()) return false;
    while (Last() < entries.last()) {
      if (!Batch(entries.last())) return false;
    }
    return Checkpoint();
  }

  const absl::Status& status() const { return status_; }
  State* state() { return state_.get(); }
  bool opened() const { return recovered_.has_value(); }
  const storage::RecoveredLog& recovered() const { return *recovered_; }
  raft::Index applied_at_start() const { return applied_at_start_; }

 private:
  bool Done(const absl::Status& status) {
    if (status_.ok()) status_ = status;
    return status_.ok();
  }
  raft::Index Last() const { return last_; }
  storage::LogOptions LogOptionsOf() const {
    storage::LogOptions options;
    options.directory = storage::LogDirectory(kCrashData);
    options.cluster = ClusterId(kCluster);
    options.store = StoreId(kIngress);
    options.segment_bytes = 24u << 10;
    return options;
  }

  // storage/directory.cc
  bool OpenDirectory() {
    const std::string path = storage::IdentityPath(kCrashData);
    auto identity = storage::IdentityFile::Open(disk_, path, kCrashNode);
    if (absl::IsNotFound(identity.status()) && !told_->log_made) {
      identity = storage::IdentityFile::Create(disk_, path, kCrashNode, StoreId(kIngress));
    }
    if (!Done(identity.status())) return false;
    identity_ = *std::move(identity);
    const std::string snapshots = storage::SnapshotDirectory(kCrashData);
    return Done(disk_->MakeDirectory(storage::LogDirectory(kCrashData))) &&
           Done(disk_->RemoveTree(snapshots)) && Done(disk_->MakeDirectory(snapshots)) &&
           Done(disk_->SyncDirectory(kCrashData)) && Done(identity_->NextBoot().status());
  }

  // Engine::Create
  bool MakeData() {
    EXPECT_FALSE(told_->log_made);
    if (!Done(disk_->RemoveTree(storage::StateDirectory(kCrashData, 1)))) return false;
    const std::string directory = storage::LogDirectory(kCrashData);
    const auto left = disk_->List(directory);
    if (!Done(left.status())) return false;
    for (const std::string& name : *left) {
      if (!Done(disk_->Remove(storage::JoinPath(directory, name)))) return false;
    }
    if (!Done(disk_->SyncDirectory(directory)) ||
        !Done(State::Create(CrashStateOptions(disk_)).status())) {
      return false;
    }
    const auto log = storage::Log::Create(disk_, LogOptionsOf());
    if (!Done(log.status())) return false;
    raft::Persist persist;
    persist.entries = {all_->entries.at(raft::Index(1))};
    persist.hard_state = raft::HardState{raft::Term(1), StoreId()};
    if (!Done((*log)->Append(persist)) || !Done((*log)->Sync())) return false;
    told_->synced = raft::Index(1);
    told_->log_made = Done(identity_->SetLogMade());
    return told_->log_made;
  }

  // Engine::OpenData; then the log's entries are applied that the state does not have.
  bool OpenData() {
    auto log = storage::Log::Open(disk_, LogOptionsOf(), [this](uint64_t named) {
      auto state = storage::OpenNamedState(CrashStateOptions(disk_), named);
      if (!state.ok()) return absl::StatusOr<raft::Index>(state.status());
      state_ = *std::move(state);
      return absl::StatusOr<raft::Index>(state_->Summary().applied);
    });
    if (!Done(log.status())) return false;
    log_ = std::move(log->first);
    recovered_ = std::move(log->second);
    applied_at_start_ = state_->Summary().applied;
    last_ = recovered_->last_index;
    if (!RemoveOthers()) return false;
    return applied_at_start_ >= last_ || Apply(last_);
  }

  bool RemoveOthers() {
    return Done(storage::RemoveOtherGenerations(disk_, kCrashData,
                                                std::max<uint64_t>(1, state_->generation())));
  }

  bool Apply(raft::Index through) {
    const raft::Index applied = state_->Summary().applied;
    const auto entries = log_->Read(applied + 1, through, SIZE_MAX);
    if (!Done(entries.status())) return false;
    EXPECT_EQ(entries->size(), through.value() - applied.value());
    told_->batches.insert(through);
    if (!Done(state_->Apply(*entries).status())) return false;
    told_->durable = std::max(told_->durable, state_->durable_applied());
    return true;
  }

  bool Batch(raft::Index end) {
    const raft::Index through = std::min(end, raft::Index((Last().value() / 5 + 1) * 5));
    raft::Persist persist;
    for (raft::Index index = Last() + 1; index <= through; ++index) {
      persist.entries.push_back(all_->entries.at(index));
    }
    if (!Done(log_->Append(persist)) || !Done(log_->Sync())) return false;
    told_->synced = last_ = through;
    if (!Apply(through)) return false;
    return through.value() % 15 != 0 || Checkpoint();
  }

  // The driver cuts the log behind what is durable.
  bool Checkpoint() {
    const auto done = state_->Checkpoint();
    if (!Done(done.status())) return false;
    EXPECT_TRUE(*done) << "nobody reads";
    told_->durable = std::max(told_->durable, state_->durable_applied());
    return Done(log_->CutPrefix(state_->durable_applied(), 0).status());
  }

  // storage/state_install.h, 1 to 5.
  bool Install() {
    const Received& received = all_->received;
    const storage::ExpectedState expected{ClusterId(kCluster), received.meta.index,
                                          received.meta.term, received.hash};
    auto incoming = storage::IncomingState::Begin(disk_, kCrashData, state_->generation(),
                                                  received.file.size());
    if (!Done(incoming.status())) return false;
    constexpr size_t kPiece = 64u << 10;
    for (size_t at = 0; at < received.file.size(); at += kPiece) {
      const auto piece = std::string_view(received.file).substr(at, kPiece);
      if (!Done((*incoming)->Write(at, piece))) return false;
    }
    if (!Done((*incoming)->Finish(expected, kGoOn).status())) return false;
    raft::Persist persist;
    persist.install.emplace();
    persist.install->generation = (*incoming)->generation();
    persist.install->snapshot = received.meta;
    if (!Done(log_->Append(persist)) || !Done(log_->Sync())) return false;
    last_ = told_->synced = told_->durable = received.meta.index;
    told_->generation = persist.install->generation;
    return Done(state_->Install(persist.install->generation)) && RemoveOthers();
  }

  SimulatedDisk* const disk_;
  const Undisturbed* const all_;
  Told* const told_;
  absl::Status status_;
  std::unique_ptr<storage::IdentityFile> identity_;
  std::unique_ptr<storage::Log> log_;
  std::unique_ptr<State> state_;
  std::optional<storage::RecoveredLog> recovered_;
  raft::Index applied_at_start_, last_;
};

// --- The tests ---

// The leader that sends its state: one entry after the other, on a disk of its own.
Undisturbed MakeUndisturbed() {
  Undisturbed all;
  CrashDisk disk(1);
  SqliteMount mount(kMounted, &disk, &disk.random_);
  EXPECT_TRUE(disk.MakeDirectory(kCrashData).ok());
  auto state = State::Create(CrashStateOptions(&disk));
  EXPECT_TRUE(state.ok()) << state.status();
  for (raft::Index index(1); index <= all.entries.last(); ++index) {
    const auto applied = (*state)->Apply({all.entries.at(index)});
    EXPECT_TRUE(applied.ok()) << applied.status();
    for (const storage::Applied& each : *applied) EXPECT_FALSE(each.refused) << index.value();
    const storage::StateSummary summary = (*state)->Summary();
    all.hashes[index] = summary.hash;
    if (index == all.entries.received_from()) {
      // It has what it says that it has.
      EXPECT_EQ(summary.ttls, 1u);
      EXPECT_EQ(summary.ttl_keys, 0u) << "the range deletion has taken them";
      EXPECT_EQ(summary.expired_ttls, 1u);
      EXPECT_EQ(summary.request_ids, 1u);
      EXPECT_EQ(summary.compacted, Revision(8));
      EXPECT_EQ(summary.membership.members.size(), 2u);
    }
    if (index != all.entries.received_through()) continue;
    const std::string path = storage::JoinPath(kCrashData, "copy.db");
    const auto copy = (*state)->Copy(path, kGoOn);
    EXPECT_TRUE(copy.ok()) << copy.status();
    all.received.meta = {copy->index, copy->term, copy->log_time_ms, copy->membership_index,
                         copy->membership};
    all.received.hash = copy->hash;
    all.received.file = *storage::ReadWholeFile(&disk, path, copy->bytes);
  }
  const storage::StateSummary summary = (*state)->Summary();
  EXPECT_EQ(summary.ttls, 0u);
  EXPECT_EQ(summary.expired_ttls, 2u);
  EXPECT_EQ(summary.compacted, Revision(12));
  EXPECT_EQ(summary.request_ids, 2u);
  EXPECT_TRUE(summary.leases);
  return all;
}

// Of the stops in the work, those whose recovery is stopped too; prime to the outcomes.
constexpr uint64_t kRecoveryStride = 17;
constexpr int kOutcomes = 1 + SimulatedDisk::kFates;  // -1, and each fate

class StateCrash : public ::testing::Test {
 protected:
  // From nothing, to the end or to where the disk is.
  std::unique_ptr<CrashDisk> Work(uint64_t seed, const std::function<void(CrashDisk*)>& order,
                                  Told* told) {
    auto disk = std::make_unique<CrashDisk>(seed);
    EXPECT_TRUE(disk->MakeDirectory(kCrashData).ok());
    order(disk.get());
    SqliteMount mount(kMounted, disk.get(), &disk->random_);
    Life life(disk.get(), &all_, told);
    worked_ = life.Start() && life.GoOn();
    return disk;
  }

  uint64_t Operations() {
    Told told;
    const auto disk = Work(
        1, [](CrashDisk*) {}, &told);
    EXPECT_TRUE(worked_);
    EXPECT_EQ(told.generation, 2u);
    return disk->operations();
  }

  // What a start finds of what was told; `life` has started.
  void ExpectFound(Life* life, const Told& told, const raft::Index applied) {
    const storage::RecoveredLog& found = life->recovered();
    EXPECT_GE(found.last_index, told.synced) << "an acknowledged entry is gone";
    EXPECT_GE(found.generation, told.generation) << "an installed state is gone";
    EXPECT_GE(applied, told.durable) << "what was durable is gone";
    const raft::Index received = all_.entries.received_through();
    EXPECT_TRUE(told.batches.contains(applied) || applied == received)
        << "half a batch: " << applied.value();
    EXPECT_EQ(applied >= received, found.generation == 2);
  }

  // The state is what it must be at its applied index, and there is no other.
  void ExpectState(CrashDisk* disk, State* state) {
    const storage::StateSummary summary = state->Summary();
    EXPECT_EQ(summary.hash, all_.hashes.at(summary.applied)) << "at " << summary.applied.value();
    const auto check = state->CheckHash();
    ASSERT_TRUE(check.ok()) << check.status();
    EXPECT_EQ(check->kept, check->recomputed);
    EXPECT_EQ(check->applied, summary.applied);
    std::vector<std::string> states;
    const auto names = disk->List(kCrashData);
    ASSERT_TRUE(names.ok()) << names.status();
    for (const std::string& name : *names) {
      if (name.starts_with("state-")) states.push_back(name);
    }
    EXPECT_EQ(states, std::vector<std::string>{"state-" + std::to_string(state->generation())});
  }

  // The next life on that disk, to the end if `to_the_end`. Tells what had been applied.
  std::optional<raft::Index> Recover(CrashDisk* disk, Told told, bool to_the_end) {
    const Told before = told;
    SqliteMount mount(kMounted, disk, &disk->random_);
    Life life(disk, &all_, &told);
    const bool started = life.Start();
    EXPECT_TRUE(started) << life.status();
    if (!started) return std::nullopt;
    if (before.log_made) ExpectFound(&life, before, life.applied_at_start());
    ExpectState(disk, life.state());
    if (to_the_end) {
      EXPECT_TRUE(life.GoOn()) << life.status();
      EXPECT_EQ(life.state()->Summary().applied, all_.entries.last());
      ExpectState(disk, life.state());
    }
    return life.applied_at_start();
  }

  // Each way to go on from where a life has ended after so many operations.
  void ExpectAnyOutcome(const CrashDisk& disk, const Told& told, uint64_t after) {
    for (int outcome = 0; outcome < kOutcomes; ++outcome) {
      SCOPED_TRACE("after " + std::to_string(after) + " operations, outcome " +
                   std::to_string(outcome));
      const auto image =
          disk.After(outcome - 1, after * kOutcomes + static_cast<uint64_t>(outcome));
      const bool to_the_end = after % kOutcomes == static_cast<uint64_t>(outcome);
      const auto applied = Recover(image.get(), told, to_the_end);
      survived_ += outcome > 0 && applied && *applied > told.durable;
      if (HasFailure()) return;
    }
  }

  // A start and no more. Tells whether it came through; told_at_stop_ is what was told until then.
  bool Start(CrashDisk* disk, const Told& told) {
    SqliteMount mount(kMounted, disk, &disk->random_);
    told_at_stop_ = told;
    Life life(disk, &all_, &told_at_stop_);
    return life.Start();
  }

  const Undisturbed all_ = MakeUndisturbed();
  bool worked_ = false;    // the latest Work came to its end
  uint64_t survived_ = 0;  // power failures that left more than was durable
  Told told_at_stop_;
};

TEST_F(StateCrash, TheMachineStopsAfterAnyOperation) {
  const uint64_t operations = Operations();
  EXPECT_GT(operations, 300u);
  for (uint64_t after = 0; after < operations; after += kCaseStride) {
    Told told;
    const auto disk = Work(
        after, [&](CrashDisk* each) { each->StopAfter(after); }, &told);
    EXPECT_FALSE(worked_);
    ExpectAnyOutcome(*disk, told, after);
    if (HasFailure()) return;
  }
  EXPECT_GT(survived_, 0u) << "nothing unsynced ever survived a power failure";
}

// One operation fails; the process ends, as it must, and another one starts: on the same machine,
// with all that the page cache shows, or after the power has failed as well.
TEST_F(StateCrash, AnyOperationFails) {
  const uint64_t operations = Operations();
  uint64_t ended = 0;
  for (uint64_t after = 0; after < operations; after += kCaseStride) {
    Told told;
    const auto disk = Work(
        after,
        [&](CrashDisk* each) { each->FailAfter(after, absl::InternalError("input/output error")); },
        &told);
    ended += !worked_;
    ExpectAnyOutcome(*disk, told, after);
    if (HasFailure()) return;
  }
  EXPECT_GT(ended * static_cast<uint64_t>(kCaseStride), operations * 9 / 10)
      << "errors are passed over";
}

// The machine stops in its work, and again after each operation of the start that follows, which
// mends, and applies again. Each time in one way, the next one in turn.
TEST_F(StateCrash, RecoveryItselfStopsAfterAnyOperation) {
  const uint64_t operations = Operations();
  uint64_t turn = 0, longest = 0;
  for (uint64_t after = 1; after < operations; after += kRecoveryStride * kCaseStride) {
    Told told;
    const auto disk = Work(
        after, [&](CrashDisk* each) { each->StopAfter(after); }, &told);
    const auto image = disk->After(static_cast<int>(++turn % kOutcomes) - 1, after);
    const auto undisturbed = image->After(-1, after);
    ASSERT_TRUE(Start(undisturbed.get(), told));
    longest = std::max(longest, undisturbed->operations());
    for (uint64_t inner = 0; inner < undisturbed->operations(); ++inner, ++turn) {
      SCOPED_TRACE("after " + std::to_string(after) + ", then " + std::to_string(inner) +
                   " operations, turn " + std::to_string(turn));
      const auto second = image->After(-1, turn);
      second->StopAfter(inner);
      ASSERT_FALSE(Start(second.get(), told));
      const auto third = second->After(static_cast<int>(turn % kOutcomes) - 1, turn);
      Recover(third.get(), told_at_stop_, /*to_the_end=*/turn % 5 == 0);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(longest, 30u);
}

}  // namespace
}  // namespace quorate::sim
