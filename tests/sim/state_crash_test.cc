// The SQLite state on a disk that loses power: after each of its disk operations, with each fate of
// what was not synced, the next start finds a prefix of what was applied, whole, and no less than a
// checkpoint had made durable.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "storage/state.h"
#include "tests/sanitizer_share.h"
#include "tests/sim/sqlite_vfs.h"

namespace quorate::sim {
namespace {

using storage::State;

constexpr char kDirectory[] = "/crash/data";
const StoreId kStore(7);

class StateCrash : public ::testing::Test {
 protected:
  StateCrash() {
    for (uint64_t i = 1; i <= kEntries; ++i) entries_.push_back(EntryAt(i));
  }

  static constexpr uint64_t kEntries = 40;
  static constexpr uint64_t kBatch = 4;

  static storage::StateOptions Options(SimulatedDisk* disk) {
    storage::StateOptions options;
    options.directory = kDirectory;
    options.cluster = ClusterId(5);
    options.readers = 1;
    options.disk = disk;
    return options;
  }

  static raft::EntryPtr EntryAt(uint64_t index) {
    auto entry = std::make_shared<raft::Entry>();
    entry->index = raft::Index(index);
    entry->term = raft::Term(1);
    entry->log_time_ms = index;
    v1::Command command;
    command.set_format(2);
    command.mutable_session()->set_store(kStore.value());
    command.mutable_session()->set_boot(1);
    command.mutable_session()->set_nonce(1);
    if (index == 1) {
      raft::Membership membership;
      membership.cluster = ClusterId(5);
      membership.members.push_back({.store = kStore, .name = "a", .address = "", .voter = true});
      entry->type = raft::EntryType::kMembership;
      entry->payload = raft::EncodeMembership(membership);
      return entry;
    }
    entry->type = raft::EntryType::kCommand;
    if (index == 2) {
      command.mutable_open_session()->set_store(kStore.value());
      command.mutable_open_session()->set_boot(1);
      command.mutable_open_session()->set_nonce(1);
    } else {
      command.mutable_session()->set_sequence(index - 2);
      command.mutable_session()->set_answered_through(index > 8 ? index - 8 : 0);
      v1::PutOperation* put = command.mutable_transaction()->add_then()->mutable_put();
      put->set_key("key " + std::to_string(index % 7));
      put->set_value(std::string(index * 100, 'v'));
      put->set_value_kind(v1::VALUE_KIND_TEXT);
    }
    entry->payload = command.SerializeAsString();
    return entry;
  }

  // Makes the state, applies everything, with two checkpoints. Ends early when the disk does.
  // Tells how far it came, and what is durable by its own word.
  struct Progress {
    bool made = false;
    raft::Index durable;
  };
  // The process ends here: nothing of what it would still do on its way out happens.
  static Progress End(SimulatedDisk* disk, const Progress& progress) {
    disk->StopAfter(0);
    return progress;
  }
  Progress Work(SimulatedDisk* disk) {
    Progress progress;
    auto state = State::Create(Options(disk));
    if (!state.ok()) return progress;
    progress.made = true;
    for (uint64_t i = 0; i < kEntries; i += kBatch) {
      const std::vector<raft::EntryPtr> batch(
          entries_.begin() + static_cast<ptrdiff_t>(i),
          entries_.begin() + static_cast<ptrdiff_t>(i + kBatch));
      if (!(*state)->Apply(batch).ok()) return End(disk, progress);
      hashes_.emplace((*state)->Summary().applied, (*state)->Summary().hash);
      if (i % 16 == 12 && !(*state)->Checkpoint().ok()) return End(disk, progress);
      progress.durable = (*state)->durable_applied();
    }
    return progress;
  }

  // The operations of work that nothing disturbs.
  uint64_t Undisturbed(Random* random) {
    SimulatedDisk disk(random);
    disk.MakeDirectory(kDirectory).IgnoreError();
    SqliteMount mount("/crash", &disk, random);
    EXPECT_EQ(Work(&disk).durable, raft::Index(32));
    return disk.operations();
  }

  // What comes back is the state behind a whole batch, and no earlier one than was durable. Tells
  // which; nullopt: there is no database yet, or what came back is wrong.
  std::optional<raft::Index> Recover(SimulatedDisk* disk, const Progress& progress) {
    disk->Revive();
    auto state = State::Open(Options(disk));
    if (!progress.made && absl::IsNotFound(state.status())) return std::nullopt;
    EXPECT_TRUE(state.ok()) << state.status();
    if (!state.ok()) return std::nullopt;
    const storage::StateSummary summary = (*state)->Summary();
    EXPECT_GE(summary.applied, progress.durable);
    if (summary.applied) {
      const auto known = hashes_.find(summary.applied);
      EXPECT_NE(known, hashes_.end()) << "half a batch: " << summary.applied.value();
      if (known != hashes_.end()) {
        EXPECT_EQ(summary.hash, known->second);
      }
    }
    const auto check = (*state)->CheckHash();
    EXPECT_TRUE(check.ok()) << check.status();
    if (check.ok()) {
      EXPECT_EQ(check->kept, check->recomputed);
    }
    return summary.applied;
  }

  std::vector<raft::EntryPtr> entries_;
  std::map<raft::Index, storage::StateHash> hashes_;  // behind each batch, undisturbed
};

TEST_F(StateCrash, APowerFailureAfterAnyOperationLeavesAPrefix) {
  Random random(1);
  const uint64_t operations = Undisturbed(&random);
  EXPECT_GT(operations, 60u);
  uint64_t torn = 0;
  for (uint64_t after = 0; after < operations; after += kCaseStride) {
    for (int fate = 0; fate < SimulatedDisk::kFates; ++fate) {
      SCOPED_TRACE("after " + std::to_string(after) + " operations, fate " + std::to_string(fate));
      SimulatedDisk disk(&random);
      disk.MakeDirectory(kDirectory).IgnoreError();
      SqliteMount mount("/crash", &disk, &random);
      disk.StopAfter(after);
      const Progress progress = Work(&disk);
      disk.PowerFailure(static_cast<SimulatedDisk::Fate>(fate));
      const std::optional<raft::Index> applied = Recover(&disk, progress);
      torn += applied && *applied > progress.durable;
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(torn, 0u) << "nothing unsynced ever survived";
}

// One operation fails; the process ends, as it must, and another one starts: on the same machine,
// with all that the page cache shows, or after the power has failed as well.
TEST_F(StateCrash, AnErrorOfAnyOperationLeavesAPrefix) {
  Random random(2);
  const uint64_t operations = Undisturbed(&random);
  for (uint64_t after = 0; after < operations; after += kCaseStride) {
    for (int fate = -1; fate < SimulatedDisk::kFates; ++fate) {
      SCOPED_TRACE("operation " + std::to_string(after) + ", fate " + std::to_string(fate));
      SimulatedDisk disk(&random);
      disk.MakeDirectory(kDirectory).IgnoreError();
      SqliteMount mount("/crash", &disk, &random);
      disk.FailAfter(after, absl::InternalError("input/output error"));
      const Progress progress = Work(&disk);
      if (fate >= 0) disk.PowerFailure(static_cast<SimulatedDisk::Fate>(fate));
      Recover(&disk, progress);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace quorate::sim
