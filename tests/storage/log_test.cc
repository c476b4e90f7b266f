// The log in daily life: what is appended comes back, from memory's point of view and after a
// restart; and what it refuses.
#include "storage/log.h"

#include <atomic>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/storage/log_harness.h"
#include "tests/storage/temp_directory.h"

namespace quorate::storage {
namespace {

using testing::HasSubstr;

class LogTest : public testing::Test {
 protected:
  LogContent Reread() {
    auto content = OpenAndReadAll(&disk_, options_);
    EXPECT_TRUE(content.ok()) << content.status();
    return content.ok() ? *content : LogContent();
  }
  int Segments() {
    int count = 0;
    const std::vector<std::string> names = *disk_.List(kLogDirectory);
    for (const std::string& name : names) count += name.ends_with(".log");
    return count;
  }
  static std::string Message(const absl::Status& status) { return std::string(status.message()); }

  SimDisk disk_{{kLogDirectory}};
  LogOptions options_ = SmallLogOptions();
  LogWriter writer_{&disk_};
};

TEST_F(LogTest, IsEmptyWhenNew) {
  ASSERT_TRUE(writer_.Create());
  auto opened = Log::Open(&disk_, options_, raft::Index());
  ASSERT_TRUE(opened.ok()) << opened.status();
  const RecoveredLog& recovered = opened->second;
  EXPECT_EQ(recovered.hard_state, raft::HardState());
  EXPECT_EQ(recovered.first_index, raft::Index(1));
  EXPECT_EQ(recovered.last_index, raft::Index(0));
  EXPECT_EQ(recovered.window_prev_index, raft::Index(0));
  EXPECT_EQ(recovered.window_prev_term, raft::Term(0));
  EXPECT_TRUE(recovered.window.empty());
  EXPECT_TRUE(recovered.memberships.empty());
  EXPECT_EQ(recovered.torn_bytes, 0u);
}

TEST_F(LogTest, GivesBackWhatWasAppended) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Membership(1));
  ASSERT_TRUE(writer_.Vote(2, 0) && writer_.Vote(2, 7)) << "a vote within the term";
  for (size_t bytes : {0u, 1u, 7u, 8u, 500u, 5000u}) ASSERT_TRUE(writer_.Entries(2, bytes));
  ASSERT_TRUE(writer_.Membership(2));
  ASSERT_TRUE(writer_.Sync());
  EXPECT_EQ(Reread(), writer_.content());
}

TEST_F(LogTest, RollsOverToNewSegments) {
  ASSERT_TRUE(writer_.Create());
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(writer_.Entries(3, 1000));
    ASSERT_TRUE(writer_.Vote(static_cast<uint64_t>(i + 2), 1));
    ASSERT_TRUE(writer_.Sync());
  }
  EXPECT_GT(Segments(), 8);
  EXPECT_EQ(Reread(), writer_.content());
}

TEST_F(LogTest, MakesRoomForAnEntryLongerThanASegment) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(1, 200));
  ASSERT_TRUE(writer_.Entries(1, 3 * options_.segment_bytes));
  ASSERT_TRUE(writer_.Entries(1, 200));
  ASSERT_TRUE(writer_.Sync());
  EXPECT_EQ(Reread(), writer_.content());
}

TEST_F(LogTest, NeverServesWhatWasCut) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(30, 900));
  ASSERT_TRUE(writer_.Overrule(11, 5, 3, 50));
  ASSERT_TRUE(writer_.Overrule(13, 6, 4, 60));
  ASSERT_TRUE(writer_.Cut(16));
  ASSERT_TRUE(writer_.Sync());
  auto read = writer_.log()->Read(raft::Index(9), raft::Index(30), 1u << 20);
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->size(), 7u);
  std::vector<uint64_t> terms;
  for (const auto& entry : *read) terms.push_back(entry->term.value());
  EXPECT_EQ(terms, (std::vector<uint64_t>{1, 1, 5, 5, 6, 6, 6}));
  EXPECT_TRUE(writer_.log()->Read(raft::Index(16), raft::Index(30), 1000)->empty());
  EXPECT_EQ(Reread(), writer_.content());
}

TEST_F(LogTest, ForgetsMembershipsThatWereCut) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Membership(1));
  ASSERT_TRUE(writer_.Entries(5, 100));
  ASSERT_TRUE(writer_.Membership(2));
  ASSERT_TRUE(writer_.Overrule(4, 3, 2, 100));
  ASSERT_TRUE(writer_.Sync());
  auto opened = Log::Open(&disk_, options_, raft::Index());
  ASSERT_TRUE(opened.ok());
  ASSERT_EQ(opened->second.memberships.size(), 1u);
  EXPECT_EQ(opened->second.memberships[0].second, MakeMembership(1));
}

TEST_F(LogTest, ACutBehindTheEndChangesNothing) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(3, 10));
  const uint64_t operations = disk_.operations();
  ASSERT_TRUE(writer_.Cut(4));
  EXPECT_EQ(disk_.operations(), operations);
  ASSERT_TRUE(writer_.Sync());
  EXPECT_EQ(Reread(), writer_.content());
}

TEST_F(LogTest, ReadsWithinBounds) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(20, 1000));
  Log* log = writer_.log();
  EXPECT_EQ(log->Read(raft::Index(1), raft::Index(20), 1)->size(), 1u) << "at least one";
  EXPECT_EQ(log->Read(raft::Index(1), raft::Index(20), 3 * 1064)->size(), 3u);
  EXPECT_EQ(log->Read(raft::Index(1), raft::Index(20), 3 * 1064 - 1)->size(), 2u);
  EXPECT_EQ(log->Read(raft::Index(18), raft::Index(100), 1u << 20)->size(), 3u);
  EXPECT_TRUE(log->Read(raft::Index(21), raft::Index(30), 1u << 20)->empty());
  EXPECT_TRUE(log->Read(raft::Index(0), raft::Index(30), 1u << 20)->empty());
}

TEST_F(LogTest, ReturnsAWindowOfTheTail) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(50, 1000));
  ASSERT_TRUE(writer_.Sync());
  options_.window_bytes = 5 * 1064 + 10;
  auto opened = Log::Open(&disk_, options_, raft::Index(50));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->second.window.size(), 5u);
  EXPECT_EQ(opened->second.window_prev_index, raft::Index(45));
  EXPECT_EQ(ReadAll(opened->first.get(), opened->second), writer_.content());
}

// A leader's log time goes on from the last entry, also where the window has no room for it and the
// state is far behind.
TEST_F(LogTest, TellsTheLogTimeBeforeAnEmptyWindow) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(50, 1000));
  ASSERT_TRUE(writer_.Sync());
  options_.window_bytes = 500;
  auto opened = Log::Open(&disk_, options_, raft::Index(3));
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->second.window.empty());
  EXPECT_EQ(opened->second.window_prev_index, raft::Index(50));
  const uint64_t last = writer_.content().entries.back().log_time_ms;
  EXPECT_GT(last, 0u);
  EXPECT_EQ(opened->second.window_prev_log_time_ms, last);
}

TEST_F(LogTest, KeepsTermAndVoteOverManyRestarts) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Vote(9, 3));
  ASSERT_TRUE(writer_.Membership(4));
  ASSERT_TRUE(writer_.Sync());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(writer_.Reopen());
  EXPECT_EQ(Reread(), writer_.content());
  EXPECT_EQ(Segments(), 7);
}

TEST_F(LogTest, GivesBackTheSpaceThatOldSegmentsReserved) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(1, 100));
  ASSERT_TRUE(writer_.Sync());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(writer_.Reopen());
  EXPECT_EQ(disk_.Content("/log/0000000001.log").size(), 8192u);
  EXPECT_EQ(disk_.Content("/log/0000000002.log").size(), 8192u) << "what nothing vouched for";
  EXPECT_EQ(disk_.Content("/log/0000000003.log").size(), 4096u) << "only its header";
  EXPECT_EQ(disk_.Content("/log/0000000004.log").size(), options_.segment_bytes);
}

// --- The mark ---

TEST_F(LogTest, WantsAMarkWhenTheNewestBatchHasNoWitness) {
  ASSERT_TRUE(writer_.Create());
  Log* log = writer_.log();
  EXPECT_FALSE(log->WantsMark());
  ASSERT_TRUE(writer_.Entries(1, 10));
  EXPECT_FALSE(log->WantsMark()) << "nothing is synced yet";
  ASSERT_TRUE(writer_.Sync());
  EXPECT_TRUE(log->WantsMark());
  ASSERT_TRUE(writer_.Mark());
  EXPECT_FALSE(log->WantsMark());
  const uint64_t operations = disk_.operations();
  ASSERT_TRUE(writer_.Mark());
  ASSERT_TRUE(writer_.Sync());
  EXPECT_EQ(disk_.operations(), operations) << "a second mark would say nothing new";

  ASSERT_TRUE(writer_.Vote(2, 2));
  ASSERT_TRUE(writer_.Sync());
  EXPECT_TRUE(log->WantsMark()) << "both copies of a vote may be lost, too";
  ASSERT_TRUE(writer_.Reopen());
  EXPECT_FALSE(writer_.log()->WantsMark()) << "the new segment vouches for all before it";
}

TEST_F(LogTest, MarksWhereASegmentEnds) {
  ASSERT_TRUE(writer_.Create());
  int marks = 0;
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(writer_.Entries(1, 700));
    ASSERT_TRUE(writer_.Sync());
    ASSERT_TRUE(writer_.Mark());
    EXPECT_FALSE(writer_.log()->WantsMark());
    ++marks;
  }
  EXPECT_GT(Segments(), 3);
  EXPECT_EQ(Reread(), writer_.content());
}

// --- Two threads ---

TEST_F(LogTest, IsReadWhileItIsWrittenAndCut) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(20, 300));
  std::atomic<bool> done{false};
  std::atomic<int> reads{0};
  Log* log = writer_.log();
  std::thread reader([&] {
    while (!done || reads == 0) {
      auto entries = log->Read(raft::Index(5), raft::Index(400), 100000);
      ASSERT_TRUE(entries.ok()) << entries.status();
      uint64_t index = 5;
      raft::Term term;
      for (const auto& entry : *entries) {
        EXPECT_EQ(entry->index.value(), index++);
        EXPECT_GE(entry->term, term);
        term = entry->term;
      }
      ++reads;
    }
  });
  for (uint64_t round = 0; round < 60; ++round) {
    EXPECT_TRUE(writer_.Entries(5, 300));
    EXPECT_TRUE(writer_.Overrule(10 + round * 4, round + 2, 3, 200));
    EXPECT_TRUE(writer_.Sync());
  }
  done = true;
  reader.join();
  EXPECT_EQ(Reread(), writer_.content());
}

TEST(PosixLog, LivesOnARealDisk) {
  TempDirectory temp;
  auto disk = MakePosixDisk();
  LogOptions options = SmallLogOptions(1u << 20);
  options.directory = temp.path();
  LogWriter writer(disk.get(), options);
  ASSERT_TRUE(writer.Create()) << writer.status();
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(writer.Entries(20, 10000)) << writer.status();
      ASSERT_TRUE(writer.Vote(static_cast<uint64_t>(round * 10 + i + 2), 3));
      ASSERT_TRUE(writer.Sync()) << writer.status();
      ASSERT_TRUE(writer.Mark()) << writer.status();
    }
    ASSERT_TRUE(writer.Reopen()) << writer.status();
  }
  auto content = OpenAndReadAll(disk.get(), options, raft::Index(160));
  ASSERT_TRUE(content.ok()) << content.status();
  EXPECT_EQ(*content, writer.content());
}

// --- Refused ---

TEST_F(LogTest, IsNotCreatedOverAnother) {
  ASSERT_TRUE(writer_.Create());
  EXPECT_TRUE(absl::IsAlreadyExists(Log::Create(&disk_, options_).status()));
}

TEST_F(LogTest, IsNotFoundWhereThereIsNone) {
  EXPECT_TRUE(absl::IsNotFound(Log::Open(&disk_, options_, raft::Index()).status()));
  options_.directory = "/elsewhere";
  EXPECT_TRUE(absl::IsNotFound(Log::Open(&disk_, options_, raft::Index()).status()));
}

TEST_F(LogTest, OfAnotherStoreOrClusterIsRefused) {
  ASSERT_TRUE(writer_.Create());
  LogOptions other = options_;
  other.store = StoreId(5);
  auto refused = Log::Open(&disk_, other, raft::Index()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(Message(refused), HasSubstr("belongs to store 5707e1d0c0ffee01"));
  other = options_;
  other.cluster = ClusterId(5);
  refused = Log::Open(&disk_, other, raft::Index()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(Message(refused), HasSubstr("belongs to cluster c105e7e7c105e7e7"));
}

TEST_F(LogTest, ShorterThanTheDatabaseIsRefused) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(5, 10));
  ASSERT_TRUE(writer_.Sync());
  auto refused = Log::Open(&disk_, options_, raft::Index(6)).status();
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_THAT(Message(refused), HasSubstr("ends at entry 5"));
  EXPECT_THAT(Message(refused), HasSubstr("has applied entry 6"));
  EXPECT_TRUE(Log::Open(&disk_, options_, raft::Index(5)).ok());
}

// --- The disk fails ---

// At whichever operation: the error comes up, the log is unusable, and no later success is claimed.
TEST_F(LogTest, ADiskErrorIsFinal) {
  int failed = 0;
  for (int fail = 0; fail < 60; ++fail) {
    SCOPED_TRACE(fail);
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk);
    ASSERT_TRUE(writer.Create());
    disk.FailAfter(fail, absl::UnknownError("input/output error"));
    for (int i = 0; i < 20 && writer.status().ok(); ++i) {
      writer.Entries(2, 1000);
      writer.Sync();
      writer.Mark();
    }
    if (writer.status().ok()) break;
    ++failed;
    EXPECT_THAT(Message(writer.status()), HasSubstr("input/output error"));
    EXPECT_THAT(Message(writer.status()), HasSubstr(kLogDirectory)) << "names what failed";
    const uint64_t operations = disk.operations();
    EXPECT_EQ(writer.log()->Sync(), writer.status()) << "a failed flush is never retried";
    EXPECT_EQ(writer.log()->Append(raft::Persist()), writer.status());
    EXPECT_EQ(writer.log()->WriteMark(), writer.status());
    EXPECT_FALSE(writer.log()->WantsMark());
    EXPECT_EQ(disk.operations(), operations);
  }
  EXPECT_GT(failed, 40);
}

TEST_F(LogTest, AFullDiskIsSaidWhenASegmentIsMade) {
  ASSERT_TRUE(writer_.Create());
  disk_.SetCapacity(options_.segment_bytes + 1000);
  while (writer_.Entries(1, 1000) && writer_.Sync()) {
  }
  EXPECT_TRUE(absl::IsResourceExhausted(writer_.status())) << writer_.status();
  // All that was acknowledged is there once there is room again.
  disk_.SetCapacity(UINT64_MAX);
  LogContent found = Reread();
  writer_.ExpectPossible(found);
  EXPECT_GT(found.entries.size(), 20u);
}

TEST_F(LogTest, AReadErrorIsReportedAsItIs) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(3, 10));
  ASSERT_TRUE(writer_.Sync());
  const absl::Status error = absl::UnknownError("read /log/0000000001.log: input/output error");
  disk_.FailReadAfter(0, absl::UnknownError("input/output error"));
  EXPECT_EQ(writer_.log()->Read(raft::Index(1), raft::Index(3), 1000).status(), error);
  disk_.FailReadAfter(0, absl::UnknownError("input/output error"));
  EXPECT_EQ(Log::Open(&disk_, options_, raft::Index()).status(), error);
}

TEST_F(LogTest, DamageFoundWhileReadingIsReportedWithFileAndOffset) {
  ASSERT_TRUE(writer_.Create());
  ASSERT_TRUE(writer_.Entries(3, 100));
  disk_.FlipBit("/log/0000000001.log", 4096 + 180, 3);  // in the second entry
  auto read = writer_.log()->Read(raft::Index(1), raft::Index(3), 100000);
  ASSERT_TRUE(absl::IsDataLoss(read.status())) << read.status();
  EXPECT_THAT(Message(read.status()), HasSubstr("/log/0000000001.log: offset 4272"));
}

TEST(LogDeathTest, WhatDoesNotContinueTheLogIsABug) {
  SimDisk disk({kLogDirectory});
  LogWriter writer(&disk);
  ASSERT_TRUE(writer.Create());
  ASSERT_TRUE(writer.Vote(5, 1));
  ASSERT_TRUE(writer.Entries(2, 10));
  raft::Persist gap;
  gap.entries = {MakeEntry(4, 5, "x")};
  EXPECT_DEATH((void)writer.log()->Append(gap), "entry 4 follows entry 2");
  raft::Persist back;
  back.hard_state = raft::HardState{raft::Term(4), StoreId()};
  EXPECT_DEATH((void)writer.log()->Append(back), "term 4 .* follows term 5");
  raft::Persist other_vote;
  other_vote.hard_state = raft::HardState{raft::Term(5), StoreId(2)};
  EXPECT_DEATH((void)writer.log()->Append(other_vote), "follows term 5 with vote");
  raft::Persist old_term;
  old_term.entries = {MakeEntry(3, 4, "x")};
  EXPECT_DEATH((void)writer.log()->Append(old_term), "of term 4 follows one of term 5");
}

}  // namespace
}  // namespace quorate::storage
