// The machine stops after each single disk operation of a workload, with every kind of luck for
// what was not synced; then after each operation of the recovery. What comes back must be the log
// as it was after one of its records, never older than what was synced
// (tests/storage/log_harness.h); and it must be fit to go on: it is written to, cut in front, and
// recovered once more.
#include <memory>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "tests/sanitizer_share.h"
#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

constexpr size_t kSegmentBytes = 16u << 10;

struct Luck {
  SimDisk::Fate fate;
  uint64_t seed;
};
constexpr Luck kLuck[] = {
    {SimDisk::Fate::kLost, 0},      {SimDisk::Fate::kKept, 0},      {SimDisk::Fate::kLastOnly, 0},
    {SimDisk::Fate::kAllButOne, 1}, {SimDisk::Fate::kAllButOne, 2}, {SimDisk::Fate::kAllButOne, 3},
    {SimDisk::Fate::kAnySome, 1},   {SimDisk::Fate::kAnySome, 2},   {SimDisk::Fate::kAnySome, 3},
    {SimDisk::Fate::kAnySome, 4},
};
constexpr int kLucks = sizeof(kLuck) / sizeof(kLuck[0]);

// The disk that the next process finds; -1: only the process has ended, and the page cache is
// there.
std::unique_ptr<SimDisk> AfterEnd(const SimDisk& disk, int luck, int salt) {
  if (luck < 0) return disk.Clone();
  return disk.AfterCrash(kLuck[luck].fate, kLuck[luck].seed + 100 * static_cast<uint64_t>(salt));
}

// Votes, conflicts, cuts of a membership, entries of less than a sector and more than a block,
// several segments, marks, and an end that is not synced.
void Writes(LogWriter& w) {
  bool done = w.Create() && w.Membership(1) && w.Vote(1, 1) && w.Sync() &&        //
              w.Entries(3, 100) && w.Entries(2, 1500) && w.Sync() && w.Mark() &&  //
              w.Vote(2, 2) && w.Sync() &&                                         //
              w.Overrule(4, 3, 2, 700) && w.Entries(1, 5000) && w.Sync() &&       //
              w.Mark() && w.Membership(2) && w.Entries(4, 3000) && w.Sync() &&    //
              w.Overrule(6, 5, 3, 40) && w.Membership(3) && w.Sync() &&           //
              w.Vote(6, 3) && w.Entries(2, 600) && w.Sync() && w.Mark() &&        //
              w.Reopen() && w.Entries(20, 700) && w.Sync() &&                     //
              w.Vote(9, 1) && w.Sync() && w.Entries(3, 600) && w.Overrule(12, 11, 1, 900);
  (void)done;
}

// Segments go in front: one, several, with a tail that stays, with one that cannot be first. Then
// snapshots: one that the log reaches behind, one of another history, one far ahead of it.
void CutsAndInstalls(LogWriter& w) {
  bool done = w.Create() && w.Membership(1) && w.Vote(2, 1) && w.Entries(20, 900) && w.Sync() &&
              w.CutPrefix(12) && w.Entries(20, 1500) && w.Sync() &&  //
              w.CutPrefix(30, 20u << 10) && w.CutPrefix(30) &&       //
              w.Membership(2) && w.Entries(8, 1500) && w.Overrule(44, 3, 3, 1000) && w.Sync() &&
              w.Entries(14, 1500) && w.Sync() && w.CutPrefix(55) &&  //
              w.Reopen() && w.Entries(10, 1500) && w.Sync() &&       //
              w.Install(2, 60, 3, 7) && w.CutPrefix(60) && w.Entries(2, 700) && w.Sync() &&
              w.Install(3, 62, 4, 8) && w.Vote(5, 2) && w.Entries(12, 1400) && w.Sync() &&
              w.Reopen() && w.Install(5, 200, 5, 9) && w.Entries(15, 1400) && w.Sync() &&
              w.CutPrefix(210) && w.Entries(3, 300);
  (void)done;
}

using LogWorkload = void (*)(LogWriter&);

int OperationsOf(LogWorkload workload) {
  SimDisk disk({kLogDirectory});
  LogWriter writer(&disk, SmallLogOptions(kSegmentBytes));
  workload(writer);
  EXPECT_TRUE(writer.status().ok()) << writer.status();
  return static_cast<int>(disk.operations());
}

// What a start finds is possible, and found again the same after another crash. Tells whether there
// is a log.
bool CheckRecovered(SimDisk* disk, const LogWriter& before) {
  const LogOptions options = SmallLogOptions(kSegmentBytes);
  auto found = OpenAndReadAll(disk, options, before.open_state());
  if (absl::IsNotFound(found.status())) {
    EXPECT_FALSE(before.created()) << "a log that was created is gone";
    EXPECT_TRUE(Log::Create(disk, options).ok()) << "what Create left behind stands in its way";
    return false;
  }
  EXPECT_TRUE(found.ok()) << "a crash is not corruption: " << found.status();
  if (!found.ok()) return false;
  before.ExpectPossible(*found);

  auto later = disk->AfterCrash(SimDisk::Fate::kLost, 0);
  auto again = OpenAndReadAll(later.get(), options, before.open_state());
  EXPECT_TRUE(again.ok()) << again.status();
  if (!again.ok()) return false;
  EXPECT_EQ(*again, *found) << "what recovery showed was not durable";
  return true;
}

// What was recovered is gone on with: a vote, entries over more than a segment, a cut in front, a
// conflict, an end that is not synced. Then the power fails again, in two ways.
void CheckGoesOn(SimDisk* disk, const LogWriter& before, int luck) {
  const LogOptions options = SmallLogOptions(kSegmentBytes);
  LogWriter next(disk, options);
  ASSERT_TRUE(next.Open(before.open_state())) << next.status();
  const raft::Index first = next.log()->first_index();
  const uint64_t last = next.content().last_index();
  ASSERT_TRUE(next.Vote(20, 1) && next.Entries(8, 2500) && next.Sync() &&
              next.CutPrefix(last + 6) && next.Overrule(last + 7, 21, 2, 300) && next.Sync() &&
              next.Vote(22, 2) && next.Entries(2, 700))
      << next.status();
  EXPECT_GT(next.log()->first_index(), first) << "nothing was cut in front";
  for (int way : {0, luck}) {
    auto image = AfterEnd(*disk, way, /*salt=*/luck);
    auto grown = OpenAndReadAll(image.get(), options, next.open_state());
    ASSERT_TRUE(grown.ok()) << grown.status();
    next.ExpectPossible(*grown);
  }
}

// The life after a crash. `luck` is that of the next one.
void CheckRecovery(SimDisk* disk, const LogWriter& before, int luck) {
  if (CheckRecovered(disk, before)) CheckGoesOn(disk, before, luck);
}

class LogCrash : public testing::TestWithParam<std::pair<const char*, LogWorkload>> {
 protected:
  const LogWorkload workload_ = GetParam().second;
};

INSTANTIATE_TEST_SUITE_P(, LogCrash,
                         testing::Values(std::pair("Writes", &Writes),
                                         std::pair("CutsAndInstalls", &CutsAndInstalls)),
                         [](const auto& info) { return std::string(info.param.first); });

TEST_P(LogCrash, PowerFailsAfterEachOperation) {
  const int operations = OperationsOf(workload_);
  ASSERT_GT(operations, 60);
  for (int stop = 0; stop <= operations; stop += kCaseStride) {
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, SmallLogOptions(kSegmentBytes));
    disk.StopAfter(stop);
    workload_(writer);
    for (int luck = 0; luck < kLucks; ++luck) {
      SCOPED_TRACE(testing::Message() << "stop " << stop << " luck " << luck);
      auto image = AfterEnd(disk, luck, stop);
      CheckRecovery(image.get(), writer, luck);
      if (testing::Test::HasFailure()) return;
    }
  }
}

// SIGKILL: the page cache lives on, and shows what may never reach the disk.
TEST_P(LogCrash, TheProcessIsKilledAfterEachOperation) {
  const int operations = OperationsOf(workload_);
  for (int stop = 0; stop <= operations; stop += kCaseStride) {
    SCOPED_TRACE(stop);
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, SmallLogOptions(kSegmentBytes));
    disk.StopAfter(stop);
    workload_(writer);
    auto image = AfterEnd(disk, -1, stop);
    CheckRecovery(image.get(), writer, stop % kLucks);
    if (testing::Test::HasFailure()) return;
  }
}

// Each write and each flush fails once, half done; the process ends and its successor reads what
// the page cache shows, of which parts will never be written.
TEST_P(LogCrash, EachOperationFailsAndTheProcessStartsAgain) {
  const int operations = OperationsOf(workload_);
  int failed = 0;
  int tried = 0;
  for (int fail = 0; fail < operations; fail += kCaseStride) {
    ++tried;
    SCOPED_TRACE(fail);
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, SmallLogOptions(kSegmentBytes));
    disk.FailAfter(fail, absl::UnknownError("input/output error"));
    workload_(writer);
    if (!writer.status().ok()) ++failed;
    for (int luck = -1; luck < kLucks; ++luck) {
      auto image = AfterEnd(disk, luck, fail);
      CheckRecovery(image.get(), writer, (luck + kLucks) % kLucks);
    }
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_EQ(failed, tried) << "no failure is passed over";
}

// The machine stops in the workload, and again after each operation of what mends that: recovery.
// Every way for what was not synced the first time is tried with every second stop; of the ways for
// the second time the next one in turn.
TEST_P(LogCrash, RecoveryItselfStopsAnywhere) {
  const int operations = OperationsOf(workload_);
  const LogOptions options = SmallLogOptions(kSegmentBytes);
  std::set<int> lengths;
  int turn = 0;
  for (int stop = 1; stop <= operations; stop += kSanitizer ? 3 * kCaseStride : 1) {
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, options);
    disk.StopAfter(static_cast<uint64_t>(stop));
    workload_(writer);
    if (!writer.created()) continue;
    for (int luck = -1; luck < kLucks; ++luck) {
      const auto image = AfterEnd(disk, luck, stop);
      auto measured = image->Clone();
      const uint64_t before = measured->operations();
      ASSERT_TRUE(OpenAndReadAll(measured.get(), options, writer.open_state()).ok());
      const int length = static_cast<int>(measured->operations() - before);
      lengths.insert(length);
      for (int inner = 0; inner < length; ++inner, ++turn) {
        SCOPED_TRACE(testing::Message() << "stop " << stop << " luck " << luck << " then " << inner
                                        << " turn " << turn);
        auto second = image->Clone();
        second->StopAfter(static_cast<uint64_t>(inner));
        ASSERT_TRUE(
            absl::IsAborted(OpenAndReadAll(second.get(), options, writer.open_state()).status()));
        auto third = AfterEnd(*second, turn % (kLucks + 1) - 1, inner);
        // Going on is as after a single crash: it is tried with some.
        if (CheckRecovered(third.get(), writer) && turn % 7 == 0) {
          CheckGoesOn(third.get(), writer, turn % kLucks);
        }
        if (testing::Test::HasFailure()) return;
      }
    }
  }
  EXPECT_GE(*lengths.rbegin(), 7) << "create, allocate, write, zeroes, sync, rename, directory";
}

// --- Single crashes, told one by one ---

class LogCrashStory : public testing::Test {
 protected:
  LogCrashStory() { EXPECT_TRUE(writer_.Create()); }
  LogContent Recover(SimDisk* disk) {
    auto found = OpenAndReadAll(disk, options_);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *found : LogContent();
  }

  SimDisk disk_{{kLogDirectory}};
  LogOptions options_ = SmallLogOptions(kSegmentBytes);
  LogWriter writer_{&disk_, options_};
};

TEST_F(LogCrashStory, ASegmentThatWasNeverBornIsRemoved) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync());
  disk_.Put("/log/0000000002.log.new", std::string(kSegmentBytes, '\x5a'));
  EXPECT_EQ(Recover(&disk_), writer_.content());
  EXPECT_FALSE(disk_.Exists("/log/0000000002.log.new"));
  EXPECT_TRUE(disk_.Exists("/log/0000000002.log"));
}

// Killed behind the rename of segment 2, the first start finds its name in the page cache only. It
// makes segment 3, and the power fails behind that rename: of the two names only the newer one has
// reached the disk, and without 2 the log would have a hole.
TEST_F(LogCrashStory, ANameThatOnlyThePageCacheHoldsIsDurableBeforeTheNextOne) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync());
  const auto killed_behind_rename_to = [&](const SimDisk& disk, const std::string& path) {
    for (uint64_t operations = 0;; ++operations) {
      auto image = disk.Clone();
      image->StopAfter(operations);
      EXPECT_TRUE(absl::IsAborted(OpenAndReadAll(image.get(), options_).status())) << path;
      if (image->Exists(path) || HasFailure()) return image->Clone();
    }
  };
  const auto first = killed_behind_rename_to(disk_, "/log/0000000002.log");
  const auto second = killed_behind_rename_to(*first, "/log/0000000003.log");
  const auto power_failed = second->AfterCrash(SimDisk::Fate::kLastOnly, 0);
  EXPECT_EQ(Recover(power_failed.get()), writer_.content());
}

TEST_F(LogCrashStory, TheFirstSectorOfABatchIsLostAndTheOthersKept) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync());
  const LogContent synced = writer_.content();
  ASSERT_TRUE(writer_.Entries(6, 400));
  auto image = disk_.AfterCrash(SimDisk::Fate::kLastOnly, 0);
  auto opened = Log::Open(image.get(), options_, raft::Index(2));
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(ReadAll(opened->first.get(), opened->second), synced);
  EXPECT_GT(opened->second.torn_bytes, 0u);
}

TEST_F(LogCrashStory, OneCopyOfAVoteThatReachedTheDiskCounts) {
  ASSERT_TRUE(writer_.Vote(7, 3));
  auto first_only = disk_.AfterCrash(SimDisk::Fate::kLost, 0);
  const std::string seen = disk_.Content("/log/0000000001.log");
  first_only->Overwrite("/log/0000000001.log", 4096, seen.substr(4096, 512));
  auto second_only = disk_.AfterCrash(SimDisk::Fate::kLost, 0);
  second_only->Overwrite("/log/0000000001.log", 8192, seen.substr(8192, 512));
  auto none = disk_.AfterCrash(SimDisk::Fate::kLost, 0);
  EXPECT_EQ(Recover(first_only.get()), writer_.content());
  EXPECT_EQ(Recover(second_only.get()), writer_.content());
  EXPECT_EQ(Recover(none.get()), LogContent());
}

TEST_F(LogCrashStory, WhatAFailedFlushLeftInThePageCacheIsRewrittenBeforeItIsUsed) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync());
  ASSERT_TRUE(writer_.Entries(4, 2000));
  disk_.FailAfter(0, absl::UnknownError("input/output error"));
  ASSERT_FALSE(writer_.Sync());
  // The next process sees all six entries, though some of their pages will never be written.
  EXPECT_EQ(Recover(&disk_), writer_.content());
  auto power_failed = disk_.AfterCrash(SimDisk::Fate::kLost, 0);
  EXPECT_EQ(Recover(power_failed.get()), writer_.content());
}

// A client stores a copy of the log itself as a value. Its records are records elsewhere only: a
// torn write in front of them is still a torn write.
TEST(LogCrashValue, RecordsInsideAValueAreNoRecords) {
  SimDisk disk({kLogDirectory});
  const LogOptions options = SmallLogOptions(64u << 10);
  LogWriter writer(&disk, options);
  ASSERT_TRUE(writer.Create());
  ASSERT_TRUE(writer.Entries(3, 300) && writer.Sync() && writer.Mark());
  ASSERT_TRUE(writer.Entries(1, 10) && writer.Sync() && writer.Mark());
  const LogContent synced = writer.content();
  std::string copy = disk.Content("/log/0000000001.log").substr(4096);
  copy.resize(copy.find_last_not_of('\0') + 1);
  raft::Persist persist;
  persist.entries = {MakeEntry(5, 1, "first"), MakeEntry(6, 1, copy)};
  ASSERT_TRUE(writer.log()->Append(persist).ok());
  // The sector where the batch begins is lost.
  const std::string before =
      disk.AfterCrash(SimDisk::Fate::kLost, 0)->Content("/log/0000000001.log");
  auto image = disk.AfterCrash(SimDisk::Fate::kKept, 0);
  const std::string kept = image->Content("/log/0000000001.log");
  size_t changed = 0;
  while (before[changed] == kept[changed]) ++changed;
  const size_t sector = changed / 512 * 512;
  image->Overwrite("/log/0000000001.log", sector, before.substr(sector, 512));
  auto found = OpenAndReadAll(image.get(), options);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, synced);
}

}  // namespace
}  // namespace quorate::storage
