// A disk that damages what it held: refused with file and offset, or cured from a second copy, or
// in bytes that nothing durable depends on. Never served, never silently shorter.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "storage/crc32c.h"
#include "storage/log_scan.h"
#include "storage/record_bytes.h"
#include "tests/sanitizer_share.h"
#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

using testing::HasSubstr;

constexpr size_t kDamagedSegmentBytes = 24u << 10;

class LogDamage : public testing::Test {
 protected:
  LogDamage() : options_(SmallLogOptions(kDamagedSegmentBytes)), writer_(&disk_, options_) {
    EXPECT_TRUE(writer_.Create());
  }

  // An idle node: every kind of record, several segments, votes last, everything marked.
  void FillAndIdle() {
    ASSERT_TRUE(writer_.Membership(1) && writer_.Vote(1, 1) && writer_.Sync());
    ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync() && writer_.Vote(2, 2) && writer_.Sync());
    ASSERT_TRUE(writer_.Overrule(3, 3, 2, 700) && writer_.Entries(1, 5000) && writer_.Sync());
    ASSERT_TRUE(writer_.Entries(6, 2000) && writer_.Sync() && writer_.Reopen());
    ASSERT_TRUE(writer_.Entries(2, 50) && writer_.Sync() && writer_.Vote(4, 3) && writer_.Sync());
    ASSERT_TRUE(writer_.Entries(3, 900) && writer_.Sync() && writer_.Mark());
    ASSERT_TRUE(writer_.Vote(5, 2) && writer_.Sync() && writer_.Mark());
  }
  std::vector<std::string> Segments() {
    std::vector<std::string> paths;
    const std::vector<std::string> names = *disk_.List(kLogDirectory);
    for (const std::string& name : names) paths.push_back(JoinPath(kLogDirectory, name));
    return paths;
  }
  std::string Newest() { return Segments().back(); }

  // The valid records of a segment as it is now.
  std::vector<Record> RecordsOf(const std::string& path) {
    bytes_ = disk_.Content(path);
    auto header = DecodeSegmentHeader(bytes_);
    EXPECT_TRUE(header.ok());
    const SegmentKey key{header->header.store, header->header.sequence};
    std::vector<Record> records;
    uint64_t at = header->length;
    Record record;
    while (ParseRecord(bytes_, 0, key, at, &record) == Parse::kRecord) {
      records.push_back(record);
      at = record.end;
    }
    return records;
  }
  Record LastOf(const std::string& path, RecordType type) {
    Record last;
    for (const Record& record : RecordsOf(path)) {
      if (record.type == type) last = record;
    }
    EXPECT_EQ(last.type, type);
    return last;
  }

  absl::Status Open(LogContent* content = nullptr) {
    auto copy = disk_.Clone();
    auto found = OpenAndReadAll(copy.get(), options_);
    if (found.ok() && content != nullptr) *content = *found;
    return found.status();
  }
  void ExpectRefused(const std::string& path, uint64_t offset) {
    absl::Status status = Open();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat(path, ": offset ", offset, ":")));
  }
  void ExpectAllThere() {
    LogContent content;
    absl::Status status = Open(&content);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(content, writer_.content());
  }

  SimDisk disk_{{kLogDirectory}};
  const LogOptions options_;
  LogWriter writer_;
  std::string bytes_;
};

// --- Every byte ---

TEST_F(LogDamage, AFlippedBitAnywhereIsRefusedOrCuredOrHarmless) {
  // An idle node with two segments.
  ASSERT_TRUE(writer_.Membership(1) && writer_.Vote(1, 1) && writer_.Entries(2, 200));
  ASSERT_TRUE(writer_.Sync() && writer_.Overrule(3, 2, 1, 90) && writer_.Sync());
  ASSERT_TRUE(writer_.Reopen() && writer_.Entries(2, 300) && writer_.Sync());
  ASSERT_TRUE(writer_.Vote(4, 3) && writer_.Sync() && writer_.Entries(1, 77));
  ASSERT_TRUE(writer_.Sync() && writer_.Mark());
  const std::vector<std::string> paths = Segments();
  ASSERT_EQ(paths.size(), 2u);
  std::map<std::string, int> outcomes;
  for (const std::string& path : paths) {
    const std::vector<Record> records = RecordsOf(path);
    const std::string content = disk_.Content(path);
    // Of the newest segment: what is behind the last record that a mark vouches for.
    const bool newest = path == paths.back();
    const uint64_t vouched = newest ? records.back().synced_through : content.size();
    const uint64_t stride = kCaseStride;
    uint64_t last_written = content.find_last_not_of('\0');
    for (uint64_t at = 0; at < content.size(); at += at <= last_written ? stride : 13 * stride) {
      SCOPED_TRACE(testing::Message() << path << " byte " << at);
      disk_.FlipBit(path, at, static_cast<int>(at % 8));
      auto scanned = ScanLog(&disk_, kLogDirectory, {});
      const Record* hit = nullptr;
      for (const Record& record : records) {
        if (record.offset <= at && at < record.end) hit = &record;
      }
      std::string outcome;
      if (!scanned.ok()) {
        ASSERT_TRUE(absl::IsDataLoss(scanned.status())) << scanned.status();
        const uint64_t offset = hit == nullptr ? 0 : hit->offset;
        ASSERT_THAT(std::string(scanned.status().message()),
                    HasSubstr(absl::StrCat(path, ": offset ", offset, ":")));
        outcome = "refused";
      } else {
        if (!(*scanned)->cured.empty()) {
          ASSERT_TRUE(hit != nullptr && hit->type == RecordType::kHardState);
          outcome = "cured";
        } else {
          // Behind the end of the log here; or what no mark vouches for, which is only a mark.
          const bool behind = hit == nullptr && at >= records.back().end;
          const bool sealed_tail = hit != nullptr && !newest;  // rewritten in the next segment
          ASSERT_TRUE(behind || sealed_tail || at >= vouched);
          outcome = "harmless";
        }
        const LogState& state = (*scanned)->state;
        ASSERT_EQ(state.last_index().value(), writer_.content().entries.size());
        ASSERT_EQ(state.hard_state(), writer_.content().hard_state);
        if (at % 7 == 0) ExpectAllThere();  // and read back in full
        if (HasFailure()) return;
      }
      ++outcomes[outcome];
      disk_.FlipBit(path, at, static_cast<int>(at % 8));
    }
  }
  EXPECT_GT(outcomes["refused"], 8000 / kCaseStride);
  EXPECT_GT(outcomes["cured"], 4 * 64 / kCaseStride);
  EXPECT_GT(outcomes["harmless"], 1000 / kCaseStride);
  ExpectAllThere();
}

// One lost block never takes a record and its witness, or both copies of a vote.
TEST_F(LogDamage, ALostBlockOfAnIdleNodeIsRefusedOrHarmless) {
  FillAndIdle();
  for (size_t unit : {size_t{512}, size_t{4096}}) {
    for (const std::string& path : Segments()) {
      const std::string content = disk_.Content(path);
      for (size_t at = 0; at < content.size(); at += unit) {
        for (char filler : {'\0', '\xff'}) {
          SCOPED_TRACE(testing::Message() << path << " at " << at << " of " << unit);
          disk_.Overwrite(path, at, std::string(std::min(unit, content.size() - at), filler));
          absl::Status status = Open();
          if (status.ok()) {
            ExpectAllThere();
          } else {
            EXPECT_TRUE(absl::IsDataLoss(status)) << status;
          }
          disk_.Overwrite(path, at, content.substr(at, unit));
        }
      }
    }
  }
}

// --- The stories of DESIGN.md ---

TEST_F(LogDamage, TheLastAcknowledgedEntryOfAnIdleNodeIsRefused) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync() && writer_.Mark());
  const Record last = LastOf(Newest(), RecordType::kEntry);
  disk_.FlipBit(Newest(), last.end - 20, 4);
  ExpectRefused(Newest(), last.offset);
}

TEST_F(LogDamage, TheLastVoteOfAnIdleNodeIsCuredFromEitherCopy) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Vote(6, 2) && writer_.Sync() && writer_.Mark());
  const Record vote = LastOf(Newest(), RecordType::kHardState);
  for (uint64_t at : {vote.offset + 33, vote.end - 25, vote.offset + 300}) {
    disk_.FlipBit(Newest(), at, 4);
    auto copy = disk_.Clone();
    auto opened = Log::Open(copy.get(), options_, raft::Index(3));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->second.hard_state, writer_.content().hard_state);
    ASSERT_EQ(opened->second.cured.size(), 1u);
    EXPECT_THAT(opened->second.cured[0], HasSubstr(Newest() + ": offset"));
    // The new segment has two good copies again: the next start has nothing to cure.
    opened = Log::Open(copy.get(), options_, raft::Index(3));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->second.cured.empty());
    EXPECT_EQ(ReadAll(opened->first.get(), opened->second), writer_.content());
    disk_.FlipBit(Newest(), at, 4);
  }
}

// Found by the simulator: the start after the one that had cured such a vote refused the log.
TEST_F(LogDamage, AVoteThatRecoveryHasRewrittenIsCuredForGood) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Vote(6, 2) && writer_.Sync() && writer_.Reopen());
  const Record vote = LastOf(Newest(), RecordType::kHardState);
  for (uint64_t at : {vote.offset + 33, vote.end - 25, vote.offset + 300}) {
    SCOPED_TRACE(at);
    disk_.FlipBit(Newest(), at, 4);
    auto copy = disk_.Clone();
    for (size_t cured : {1u, 0u, 0u}) {
      auto opened = Log::Open(copy.get(), options_, raft::Index(3));
      ASSERT_TRUE(opened.ok()) << opened.status();
      EXPECT_EQ(opened->second.cured.size(), cured);
      EXPECT_EQ(ReadAll(opened->first.get(), opened->second), writer_.content());
    }
    disk_.FlipBit(Newest(), at, 4);
  }
}

TEST_F(LogDamage, BothCopiesOfAVouchedVoteAreRefused) {
  ASSERT_TRUE(writer_.Vote(6, 2) && writer_.Sync() && writer_.Mark());
  const Record vote = LastOf(Newest(), RecordType::kHardState);
  disk_.FlipBit(Newest(), vote.offset + 33, 4);
  disk_.FlipBit(Newest(), vote.end - 25, 4);
  ExpectRefused(Newest(), vote.offset);
}

TEST_F(LogDamage, InTheMiddleOfTheLogIsRefused) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync());
  const Record middle = RecordsOf(Newest())[1];
  ASSERT_TRUE(writer_.Entries(1, 10) && writer_.Sync());
  disk_.FlipBit(Newest(), middle.offset + 50, 0);
  ExpectRefused(Newest(), middle.offset);
}

TEST_F(LogDamage, AZeroedSectorThatALaterRecordVouchesForIsRefused) {
  ASSERT_TRUE(writer_.Entries(3, 400) && writer_.Sync());
  ASSERT_TRUE(writer_.Entries(1, 10) && writer_.Sync());
  const Record first = RecordsOf(Newest())[0];
  disk_.Overwrite(Newest(), first.offset, std::string(512, '\0'));
  ExpectRefused(Newest(), first.offset);
}

// The witness counts although its own body is torn: its header was right when it was written.
TEST_F(LogDamage, AWitnessWithATornBodyStillCounts) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync() && writer_.Entries(1, 3000));
  const std::vector<Record> records = RecordsOf(Newest());
  disk_.FlipBit(Newest(), records[2].end - 100, 0);  // unsynced: torn
  EXPECT_TRUE(Open().ok());
  disk_.FlipBit(Newest(), records[1].offset + 40, 0);  // synced: damaged
  ExpectRefused(Newest(), records[1].offset);
}

// What recovery rewrote was durable before its segment had a name, and needs no later witness.
TEST_F(LogDamage, WhatRecoveryRewroteIsRefusedThoughNothingFollowsIt) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync() && writer_.Reopen());
  const std::vector<Record> records = RecordsOf(Newest());
  ASSERT_EQ(records.size(), 2u);
  disk_.FlipBit(Newest(), records[1].offset + 50, 1);
  ExpectRefused(Newest(), records[1].offset);
  disk_.Overwrite(Newest(), records[0].offset, std::string(2 * 176, '\0'));
  ExpectRefused(Newest(), records[0].offset);
}

// What the format says stays open: the newest batch before its mark.
TEST_F(LogDamage, TheNewestBatchBeforeItsMarkLooksTornAndNothingOlderDoes) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync());
  LogContent before = writer_.content();
  ASSERT_TRUE(writer_.Entries(1, 100) && writer_.Sync());
  const std::vector<Record> records = RecordsOf(Newest());
  disk_.FlipBit(Newest(), records[3].offset + 50, 1);
  LogContent found;
  ASSERT_TRUE(Open(&found).ok());
  EXPECT_EQ(found, before);
  // Unless the database shows that it was there.
  auto copy = disk_.Clone();
  absl::Status status = Log::Open(copy.get(), options_, raft::Index(4)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST_F(LogDamage, ARefusalChangesNothingOnTheDisk) {
  FillAndIdle();
  disk_.FlipBit(Segments()[0], LastOf(Segments()[0], RecordType::kEntry).offset + 45, 0);
  disk_.Put("/log/0000000099.log.new", "left by a crash");
  const uint64_t operations = disk_.operations();
  ASSERT_FALSE(Log::Open(&disk_, options_, raft::Index()).ok());
  EXPECT_EQ(disk_.operations(), operations);
}

// --- Whole files ---

TEST_F(LogDamage, ASegmentHeaderIsRefused) {
  FillAndIdle();
  for (const std::string& path : Segments()) {
    disk_.FlipBit(path, 100, 2);
    ExpectRefused(path, 0);
    disk_.FlipBit(path, 100, 2);
  }
}

TEST_F(LogDamage, AMissingSegmentInTheMiddleIsRefused) {
  FillAndIdle();
  const std::string missing = Segments()[1];
  disk_.Erase(missing);
  ExpectRefused(missing, 0);
}

TEST_F(LogDamage, MissingNewestSegmentsAreSeenByTheDatabase) {
  FillAndIdle();
  ASSERT_TRUE(writer_.Reopen() && writer_.Entries(2, 10) && writer_.Sync());
  const uint64_t applied = writer_.content().entries.size();
  disk_.Erase(Newest());
  auto copy = disk_.Clone();
  EXPECT_TRUE(absl::IsDataLoss(Log::Open(copy.get(), options_, raft::Index(applied)).status()));
}

TEST_F(LogDamage, AMissingFirstSegmentIsSeenByTheDatabase) {
  FillAndIdle();
  disk_.Erase(Segments()[0]);
  auto copy = disk_.Clone();
  absl::Status status = Log::Open(copy.get(), options_, raft::Index(1)).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the entries between are lost"));
}

TEST_F(LogDamage, AShortenedFileIsRefused) {
  FillAndIdle();
  const std::vector<std::string> paths = Segments();
  for (const std::string& path : paths) {
    const std::string content = disk_.Content(path);
    const std::vector<Record> records = RecordsOf(path);
    for (size_t size : {size_t{0}, size_t{100}, size_t{4096}, size_t{records[0].offset + 40}}) {
      SCOPED_TRACE(testing::Message() << path << " " << size);
      disk_.Resize(path, size);
      EXPECT_TRUE(absl::IsDataLoss(Open())) << Open();
    }
    disk_.Put(path, content);
  }
  disk_.Resize(paths.back(), kDamagedSegmentBytes - 1);
  ExpectRefused(paths.back(), kDamagedSegmentBytes - 1);
}

TEST_F(LogDamage, SegmentsThatWereSwappedOrCopiedAreRefused) {
  FillAndIdle();
  const std::vector<std::string> paths = Segments();
  const std::string first = disk_.Content(paths[0]);
  const std::string second = disk_.Content(paths[1]);
  disk_.Put(paths[0], second);
  ExpectRefused(paths[0], 0);
  disk_.Put(paths[0], first);
  disk_.Put(JoinPath(kLogDirectory, SegmentName(paths.size() + 1)), first);
  ExpectRefused(JoinPath(kLogDirectory, SegmentName(paths.size() + 1)), 0);
}

TEST_F(LogDamage, ASegmentOfAnotherHistoryIsRefused) {
  FillAndIdle();
  // The same store, restored from an older copy that then went its own way.
  SimDisk other({kLogDirectory});
  LogWriter branch(&other, options_);
  ASSERT_TRUE(branch.Create() && branch.Entries(30, 1000) && branch.Sync());
  disk_.Put(Segments()[1], other.Content("/log/0000000002.log"));
  absl::Status status = Open();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("offset"));
}

// A header that is whole and has a right checksum, but says other things than the log before it.
TEST_F(LogDamage, AHeaderThatDoesNotFollowItsLogIsRefused) {
  ASSERT_TRUE(writer_.Membership(1) && writer_.Vote(2, 2) && writer_.Sync() && writer_.Mark());
  ASSERT_TRUE(writer_.Reopen());
  const std::string first = Segments()[0];
  const SegmentHeader good = DecodeSegmentHeader(disk_.Content(Newest()))->header;
  const auto forged = [&](auto change, const std::string& path, uint64_t offset) {
    SegmentHeader header = good;
    change(&header);
    disk_.Overwrite(Newest(), 0, EncodeSegmentHeader(header));
    ExpectRefused(path, offset);
  };
  forged([](SegmentHeader* h) { h->hard_state.vote = StoreId(3); }, Newest(), 0);
  forged([](SegmentHeader* h) { h->prev_index = raft::Index(2); }, Newest(), 0);
  forged([](SegmentHeader* h) { h->membership_index = raft::Index(); }, Newest(), 0);
  forged([](SegmentHeader* h) { h->previous_crc ^= 1; }, first, good.previous_end);
  disk_.Overwrite(Newest(), 0, EncodeSegmentHeader(good));
  ExpectAllThere();
}

TEST_F(LogDamage, ARecordInTheWrongPlaceIsNone) {
  ASSERT_TRUE(writer_.Entries(2, 456) && writer_.Sync());  // records of 528 bytes
  ASSERT_TRUE(writer_.Entries(1, 10) && writer_.Sync());
  const std::vector<Record> records = RecordsOf(Newest());
  ASSERT_EQ(records[0].end - records[0].offset, records[1].end - records[1].offset);
  disk_.Overwrite(Newest(), records[1].offset,
                  bytes_.substr(records[0].offset, records[0].end - records[0].offset));
  ExpectRefused(Newest(), records[1].offset);
}

// Valid on its own and in its place, but not behind what is in front of it.
TEST_F(LogDamage, ABrokenChainIsRefused) {
  ASSERT_TRUE(writer_.Entries(3, 100) && writer_.Sync());
  const Record second = RecordsOf(Newest())[1];
  RecordEncoder forger({kLogStore, 1}, second.offset, second.previous ^ 1);
  forger.AddEntry(*DecodeEntry(second.body), second.synced_through);
  disk_.Overwrite(Newest(), second.offset, forger.Take());
  ExpectRefused(Newest(), second.offset);
}

TEST_F(LogDamage, WhatNoWriterWouldWriteIsRefused) {
  ASSERT_TRUE(writer_.Vote(5, 1) && writer_.Entries(2, 100) && writer_.Sync());
  const std::vector<Record> records = RecordsOf(Newest());
  const uint64_t end = records.back().end;
  const auto forged = [&](auto add) {
    RecordEncoder forger({kLogStore, 1}, end, records.back().crc);
    add(&forger);
    disk_.Overwrite(Newest(), end, forger.Take());
    ExpectRefused(Newest(), end);
    disk_.Overwrite(Newest(), end, std::string(3 * 4096, '\0'));
  };
  forged([](RecordEncoder* e) { e->AddEntry(*MakeEntry(4, 5, "gap"), 4096); });
  forged([](RecordEncoder* e) { e->AddEntry(*MakeEntry(3, 4, "older term"), 4096); });
  forged([](RecordEncoder* e) { e->AddHardState({raft::Term(4), StoreId(1)}, 4096); });
  forged([](RecordEncoder* e) { e->AddHardState({raft::Term(5), StoreId(2)}, 4096); });
  forged([](RecordEncoder* e) { e->AddCut(raft::Index(0), 4096); });
  forged([](RecordEncoder* e) { e->AddCut(raft::Index(9), 4096); });
  forged([](RecordEncoder* e) { e->AddRaw(static_cast<RecordType>(77), "", 4096); });
  forged([](RecordEncoder* e) { e->AddRaw(RecordType::kCut, "short", 4096); });
  forged([](RecordEncoder* e) {
    raft::Entry entry = *MakeEntry(3, 5, "no membership");
    entry.type = raft::EntryType::kMembership;
    e->AddEntry(entry, 4096);
  });
  ExpectAllThere();
}

TEST_F(LogDamage, ANewerFormatIsRefusedAsSuch) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync());
  std::string header = disk_.Content(Newest()).substr(0, 4096);
  PutNumber(&header, 8, uint32_t{2});
  PutNumber(&header, 16, uint32_t{0});
  PutNumber(&header, 16, Crc32c(header));
  disk_.Overwrite(Newest(), 0, header);
  absl::Status status = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version 2"));
}

TEST_F(LogDamage, AStrangeFileIsNamed) {
  disk_.Put("/log/old.log", "x");
  absl::Status status = Open();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/log/old.log"));
}

}  // namespace
}  // namespace quorate::storage
