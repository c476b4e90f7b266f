// The log loses its front: which segments go, what a crash in between leaves, and snapshots, which
// make the log begin elsewhere (storage/LOG_FORMAT.md, "Removing segments in front").
#include "storage/log_cut.h"

#include <atomic>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/segment.h"
#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr size_t kCutSegmentBytes = 32u << 10;
constexpr size_t kBytes = 2600;  // of an entry: ten fit into a segment

class LogCut : public testing::Test {
 protected:
  LogCut() { EXPECT_TRUE(writer_.Create()); }

  std::vector<uint64_t> Segments(const SimDisk& disk) {
    std::vector<uint64_t> found;
    for (uint64_t sequence = 1; sequence < 40; ++sequence) {
      if (disk.Exists(JoinPath(kLogDirectory, SegmentName(sequence)))) found.push_back(sequence);
    }
    return found;
  }
  // The entry before a segment's first, as its header says.
  uint64_t PrevOf(uint64_t sequence) {
    const std::string bytes = disk_.Content(JoinPath(kLogDirectory, SegmentName(sequence)));
    auto decoded = DecodeSegmentHeader(bytes);
    EXPECT_TRUE(decoded.ok()) << decoded.status();
    return decoded.ok() ? decoded->header.prev_index.value() : 0;
  }
  // What another start finds must be what this one has.
  void ExpectTheSameAfterRestart() {
    auto image = disk_.AfterCrash(SimDisk::Fate::kLost, 0);
    auto found = OpenAndReadAll(image.get(), options_, writer_.open_state());
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->prev_index, writer_.log()->first_index().value() - 1);
    writer_.ExpectPossible(*found);
  }
  std::string Verify(SimDisk* disk, absl::StatusCode expected = absl::StatusCode::kOk) {
    std::ostringstream out;
    absl::Status status = VerifyLog(disk, kLogDirectory, out);
    EXPECT_EQ(status.code(), expected) << status;
    return out.str();
  }

  SimDisk disk_{{kLogDirectory}};
  LogOptions options_ = SmallLogOptions(kCutSegmentBytes);
  LogWriter writer_{&disk_, options_};
};

TEST_F(LogCut, RemovesWholeSegmentsOnly) {
  ASSERT_TRUE(writer_.Membership(3) && writer_.Vote(4, 2) && writer_.Entries(35, kBytes));
  ASSERT_TRUE(writer_.Sync());
  ASSERT_THAT(Segments(disk_), ElementsAre(1, 2, 3, 4));
  const uint64_t prev = PrevOf(3);
  const uint64_t before = disk_.operations();
  ASSERT_TRUE(writer_.CutPrefix(PrevOf(2) - 1)) << "not all of the first segment";
  EXPECT_EQ(disk_.operations(), before) << "nothing to do costs nothing";
  EXPECT_EQ(writer_.log()->first_index(), raft::Index(1));

  ASSERT_TRUE(writer_.CutPrefix(prev + 3));
  EXPECT_THAT(Segments(disk_), ElementsAre(3, 4));
  EXPECT_EQ(writer_.log()->first_index(), raft::Index(prev + 1));
  EXPECT_TRUE(writer_.log()->Read(raft::Index(prev), raft::Index(40), 1u << 20)->empty());
  auto rest = writer_.log()->Read(raft::Index(prev + 1), raft::Index(36), 1u << 20);
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_EQ(rest->size(), 36 - prev);
  // Membership, term and vote lay in the first segment.
  ExpectTheSameAfterRestart();

  ASSERT_TRUE(writer_.CutPrefix(36)) << "all that is durable: the newest segment stays";
  EXPECT_THAT(Segments(disk_), ElementsAre(4));
  ASSERT_TRUE(writer_.Reopen() && writer_.Entries(12, kBytes) && writer_.Vote(5, 1));
  ASSERT_TRUE(writer_.Sync() && writer_.CutPrefix(48));
  ExpectTheSameAfterRestart();
}

TEST_F(LogCut, KeepsATail) {
  ASSERT_TRUE(writer_.Entries(60, kBytes) && writer_.Sync());
  ASSERT_THAT(Segments(disk_), ElementsAre(1, 2, 3, 4, 5, 6));
  ASSERT_TRUE(writer_.CutPrefix(60, 1u << 20));
  EXPECT_THAT(Segments(disk_), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(writer_.log()->TailStart(1u << 20), raft::Index(1));
  const raft::Index start = writer_.log()->TailStart(65'000);
  EXPECT_EQ(start.value(), PrevOf(4) + 1) << "the fifth and the newest alone are shorter";
  ASSERT_TRUE(writer_.CutPrefix(60, 65'000));
  EXPECT_THAT(Segments(disk_), ElementsAre(4, 5, 6));
  EXPECT_EQ(writer_.log()->first_index(), start);
  EXPECT_EQ(writer_.log()->TailStart(1u << 20), start) << "never before the first";
  ExpectTheSameAfterRestart();
}

// 1. A segment ends among entries that are not committed: its successor's header names one of them.
// 2. A new leader takes them back.
// 3. Everything is committed and durable; the front may go. The successor alone could not be read:
//    its records reach back before it.
TEST_F(LogCut, ASegmentThatCannotBeFirstGoesOnlyTogetherWithThoseInFront) {
  ASSERT_TRUE(writer_.Entries(24, kBytes) && writer_.Sync());
  ASSERT_THAT(Segments(disk_), ElementsAre(1, 2, 3));
  const uint64_t taken_back = PrevOf(3) - 1;
  ASSERT_GT(taken_back, PrevOf(2));
  ASSERT_TRUE(writer_.Overrule(taken_back, 3, 3, kBytes) && writer_.Sync());
  ASSERT_TRUE(writer_.CutPrefix(taken_back + 2));
  EXPECT_THAT(Segments(disk_), ElementsAre(2, 3)) << "the third stands on the second";
  ExpectTheSameAfterRestart();
  EXPECT_EQ(writer_.log()->TailStart(1), raft::Index(PrevOf(2) + 1));

  ASSERT_TRUE(writer_.Entries(12, kBytes) && writer_.Sync());
  ASSERT_THAT(Segments(disk_), ElementsAre(2, 3, 4));
  ASSERT_TRUE(writer_.CutPrefix(PrevOf(4) - 1)) << "not all of the third";
  EXPECT_THAT(Segments(disk_), ElementsAre(2, 3, 4));

  // The power fails when only the second has gone.
  auto torn = disk_.Clone();
  torn->Erase("/log/0000000002.log");
  const std::string said = Verify(torn.get());
  EXPECT_THAT(said, HasSubstr("/log/0000000003.log: would be removed"));
  const uint64_t prev = PrevOf(4);
  auto opener = [&](uint64_t) { return raft::Index(prev); };
  EXPECT_TRUE(
      absl::IsDataLoss(OpenAndReadAll(torn.get(), options_, raft::Index(prev - 1)).status()))
      << "what is passed over must be in the state";
  ASSERT_TRUE(torn->Exists("/log/0000000003.log")) << "a refusal changes nothing";
  auto found = OpenAndReadAll(torn.get(), options_, opener);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->prev_index, prev);
  EXPECT_EQ(found->prev_term, 3u);
  EXPECT_THAT(Segments(*torn), ElementsAre(4, 5));

  ASSERT_TRUE(writer_.CutPrefix(PrevOf(4)));
  EXPECT_THAT(Segments(disk_), ElementsAre(4));
  ExpectTheSameAfterRestart();
}

TEST_F(LogCut, ReadersGoOnWhileSegmentsGo) {
  ASSERT_TRUE(writer_.Entries(200, kBytes) && writer_.Sync());
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0};
  std::thread reader([&] {
    while (!stop) {
      for (raft::Index from = writer_.log()->first_index(); from <= raft::Index(200);) {
        auto entries = writer_.log()->Read(from, raft::Index(200), 5000);
        ASSERT_TRUE(entries.ok()) << entries.status();
        if (entries->empty()) break;  // gone meanwhile
        ASSERT_EQ(entries->front()->index, from);
        from = from + entries->size();
        ++reads;
      }
    }
  });
  for (uint64_t through = 10; through <= 190; through += 5) {
    while (reads.load() < static_cast<int>(through)) std::this_thread::yield();
    ASSERT_TRUE(writer_.CutPrefix(through));
  }
  stop = true;
  reader.join();
  EXPECT_GT(writer_.log()->first_index(), raft::Index(170));
}

TEST_F(LogCut, ALogThatWasCutIsDumpedAndVerified) {
  ASSERT_TRUE(writer_.Membership(3) && writer_.Entries(25, kBytes) && writer_.Sync());
  ASSERT_TRUE(writer_.CutPrefix(25));
  const uint64_t prev = writer_.log()->first_index().value() - 1;
  EXPECT_THAT(Verify(&disk_), HasSubstr("first_index=" + std::to_string(prev + 1) + " "));
  std::ostringstream dump;
  ASSERT_TRUE(DumpLog(&disk_, kLogDirectory, dump).ok());
  EXPECT_THAT(dump.str(), HasSubstr("previous_index=" + std::to_string(prev)));
}

// --- Snapshots ---

TEST_F(LogCut, AnInstalledSnapshotKeepsWhatFollowsItInTheSameHistory) {
  ASSERT_TRUE(writer_.Membership(1) && writer_.Entries(30, kBytes) && writer_.Sync());
  ASSERT_TRUE(writer_.Install(2, 20, 1, 5));
  EXPECT_FALSE(writer_.log()->WantsMark()) << "the record is vouched for";
  EXPECT_EQ(writer_.log()->first_index(), raft::Index(21));
  EXPECT_EQ(writer_.log()->Read(raft::Index(21), raft::Index(31), 1u << 20)->size(), 11u);
  EXPECT_TRUE(writer_.log()->Read(raft::Index(20), raft::Index(31), 1u << 20)->empty());
  ExpectTheSameAfterRestart();
  ASSERT_TRUE(writer_.CutPrefix(20, 1u << 20)) << "unreadable segments need not stay as a tail";
  EXPECT_GT(Segments(disk_).front(), 1u);
  ASSERT_TRUE(writer_.Entries(1, 10) && writer_.Sync());
  ExpectTheSameAfterRestart();
}

TEST_F(LogCut, AnInstalledSnapshotOfAnotherHistoryTakesAll) {
  ASSERT_TRUE(writer_.Membership(1) && writer_.Entries(30, kBytes) && writer_.Sync());
  ASSERT_TRUE(writer_.Install(2, 20, 3, 5)) << "entry 20 is of term 1 here";
  EXPECT_EQ(writer_.log()->first_index(), raft::Index(21));
  EXPECT_TRUE(writer_.log()->Read(raft::Index(21), raft::Index(31), 1u << 20)->empty());
  ExpectTheSameAfterRestart();
  ASSERT_TRUE(writer_.Vote(4, 1) && writer_.Entries(2, 100) && writer_.Sync());
  ASSERT_TRUE(writer_.Install(3, 5000, 7, 6)) << "far ahead";
  ASSERT_TRUE(writer_.Vote(7, 1) && writer_.Entries(30, kBytes) && writer_.Sync());
  ASSERT_TRUE(writer_.CutPrefix(5000, 1u << 20));
  ASSERT_TRUE(writer_.Reopen() && writer_.Entries(1, 10) && writer_.Sync());
  ExpectTheSameAfterRestart();
}

// The opener is told what the log names, before anything is changed.
TEST_F(LogCut, TheLogSaysWhichStateIsTheOne) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync());
  std::vector<uint64_t> asked;
  auto opener = [&](uint64_t generation) -> absl::StatusOr<raft::Index> {
    asked.push_back(generation);
    return raft::Index(generation == 0 ? 0 : 100);
  };
  ASSERT_TRUE(OpenAndReadAll(disk_.Clone().get(), options_, opener).ok());
  ASSERT_TRUE(writer_.Install(2, 100, 1, 5) && writer_.Install(9, 100, 1, 5));
  ASSERT_TRUE(OpenAndReadAll(disk_.Clone().get(), options_, opener).ok());
  EXPECT_THAT(asked, ElementsAre(0, 9));

  const uint64_t before = disk_.operations();
  auto refused = OpenAndReadAll(&disk_, options_, [](uint64_t) -> absl::StatusOr<raft::Index> {
    return absl::NotFoundError("there is no state-9");
  });
  EXPECT_TRUE(absl::IsNotFound(refused.status())) << refused.status();
  EXPECT_EQ(disk_.operations(), before) << "a refusal changes nothing";
}

// --- The list of segments, by itself ---

TEST(SegmentListTest, DecidesBySegmentsAndBytes) {
  SegmentList list;
  EXPECT_THAT(list.Removable(raft::Index(9), 0, 0, raft::Index(1)).sequences, IsEmpty());
  list.Begin(5, raft::Index(40), 0);
  list.Begin(6, raft::Index(50), 1000);
  list.Begin(7, raft::Index(60), 1000);
  list.Begin(8, raft::Index(70), 1000);
  const auto removable = [&](uint64_t through, uint64_t keep, uint64_t first) {
    return list.Removable(raft::Index(through), keep, 300, raft::Index(first)).sequences;
  };
  EXPECT_THAT(removable(49, 0, 41), IsEmpty());
  EXPECT_THAT(removable(50, 0, 41), ElementsAre(5));
  EXPECT_THAT(removable(69, 0, 41), ElementsAre(5, 6));
  EXPECT_THAT(removable(99, 0, 41), ElementsAre(5, 6, 7)) << "never the newest";
  EXPECT_THAT(removable(99, 300, 41), ElementsAre(5, 6, 7));
  EXPECT_THAT(removable(99, 301, 41), ElementsAre(5, 6));
  EXPECT_THAT(removable(99, 9999, 41), IsEmpty());
  EXPECT_THAT(removable(99, 9999, 61), ElementsAre(5, 6)) << "unreadable";
  EXPECT_EQ(list.TailBegin(1301, 300), raft::Index(50));
  EXPECT_EQ(list.TailBegin(1300, 300), raft::Index(60));
  list.Cut(raft::Index(60));  // of entries that 7 and 8 begin behind
  EXPECT_THAT(removable(99, 0, 41), ElementsAre(5));
  list.Begin(9, raft::Index(65), 1000);
  EXPECT_THAT(removable(64, 0, 41), ElementsAre(5));
  EXPECT_THAT(removable(65, 0, 41), ElementsAre(5, 6, 7, 8));
  list.Generation(raft::Index(64));
  EXPECT_THAT(removable(65, 0, 65), ElementsAre(5));
  list.Drop(1);
  EXPECT_THAT(removable(65, 0, 65), IsEmpty());
}

// --- Errors ---

TEST_F(LogCut, ARemovalThatFailsIsTheLogsLast) {
  for (int fail : {0, 1, 2, 3}) {
    SCOPED_TRACE(fail);
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, options_);
    ASSERT_TRUE(writer.Create() && writer.Entries(30, kBytes) && writer.Sync());
    disk.FailAfter(fail, absl::UnknownError("input/output error"));
    ASSERT_FALSE(writer.CutPrefix(25));
    EXPECT_THAT(std::string(writer.status().message()), HasSubstr("input/output error"));
    EXPECT_EQ(writer.log()->Sync(), writer.status()) << "and it stays so";
    EXPECT_EQ(writer.log()->CutPrefix(raft::Index(25), 0).status(), writer.status());
    auto found = OpenAndReadAll(&disk, options_, writer.open_state());
    ASSERT_TRUE(found.ok()) << found.status();
    writer.ExpectPossible(*found);
  }
}

TEST_F(LogCut, ASegmentThatIsMissingInTheMiddleIsStillDamage) {
  ASSERT_TRUE(writer_.Entries(40, kBytes) && writer_.Sync() && writer_.CutPrefix(15));
  ASSERT_THAT(Segments(disk_), ElementsAre(2, 3, 4));
  disk_.Erase("/log/0000000003.log");
  auto status = OpenAndReadAll(&disk_, options_, raft::Index(40)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("0000000003.log"));
}

TEST_F(LogCut, MoreIsMissingInFrontThanTheStateHolds) {
  ASSERT_TRUE(writer_.Entries(40, kBytes) && writer_.Sync() && writer_.CutPrefix(15));
  disk_.Erase("/log/0000000002.log");
  auto status = OpenAndReadAll(&disk_, options_, raft::Index(15)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the entries between are lost"));
}

// The newest segment is never passed over: without the one in front it cannot be read.
TEST_F(LogCut, TheNewestSegmentAloneMustBeAbleToBeFirst) {
  ASSERT_TRUE(writer_.Entries(14, kBytes) && writer_.Sync());
  ASSERT_THAT(Segments(disk_), ElementsAre(1, 2));
  ASSERT_TRUE(writer_.Overrule(PrevOf(2) - 1, 3, 1, 10) && writer_.Sync());
  disk_.Erase("/log/0000000001.log");
  auto status = OpenAndReadAll(&disk_, options_, raft::Index(PrevOf(2))).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("a cut from entry"));
  Verify(&disk_, absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace quorate::storage
