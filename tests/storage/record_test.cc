// Records and segment headers: what is written is read, and nothing else is.
#include "storage/record.h"

#include <string>

#include <gtest/gtest.h>

#include "storage/crc32c.h"
#include "storage/record_bytes.h"
#include "storage/segment.h"
#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

constexpr SegmentKey kKey{StoreId(77), 5};

TEST(Record, ComesBackAsItWasWritten) {
  RecordEncoder encoder(kKey, 4096, 0xabcd);
  const raft::Entry entry = *MakeEntry(9, 3, "some payload");
  Generation generation{4, raft::Index(8), raft::Term(3), "members"};
  encoder.AddEntry(entry, 4000);
  encoder.AddCut(raft::Index(7), 4000);
  encoder.AddGeneration(generation, 4096);
  encoder.AddMark(4096);
  const std::string bytes = encoder.Take();

  uint64_t at = 4096;
  uint32_t crc = 0xabcd;
  std::vector<Record> records;
  while (at < encoder.offset()) {
    Record record;
    ASSERT_EQ(ParseRecord(bytes, 4096, kKey, at, &record), Parse::kRecord) << at;
    EXPECT_EQ(record.offset, at);
    EXPECT_EQ(record.previous, crc);
    EXPECT_FALSE(record.cured_at);
    crc = record.crc;
    at = record.end;
    records.push_back(record);
  }
  EXPECT_EQ(crc, encoder.crc());
  ASSERT_EQ(records.size(), 5u);
  EXPECT_EQ(records[0].end - records[0].offset, EntryRecordBytes(entry));
  EXPECT_EQ(*DecodeEntry(records[0].body), entry);
  EXPECT_EQ(records[0].synced_through, 4000u);
  EXPECT_EQ(*DecodeCut(records[1].body), raft::Index(7));
  EXPECT_EQ(*DecodeGeneration(records[2].body), generation);
  EXPECT_EQ(records[3].type, RecordType::kFiller);
  EXPECT_EQ(records[4].type, RecordType::kMark);
  EXPECT_EQ(records[4].offset % kBlockBytes, 0u);
}

TEST(Record, IsValidOnlyInItsPlace) {
  RecordEncoder encoder(kKey, 800, 1);
  encoder.AddEntry(*MakeEntry(1, 1, "x"), 0);
  const std::string bytes = encoder.Take();
  Record record;
  EXPECT_EQ(ParseRecord(bytes, 800, kKey, 800, &record), Parse::kRecord);
  EXPECT_EQ(ParseRecord(bytes, 808, kKey, 808, &record), Parse::kInvalid);
  EXPECT_EQ(ParseRecord(bytes, 800, {kKey.store, 6}, 800, &record), Parse::kInvalid);
  EXPECT_EQ(ParseRecord(bytes, 800, {StoreId(78), 5}, 800, &record), Parse::kInvalid);
  EXPECT_TRUE(StatementAt(bytes, 800, kKey, 800).has_value());
  EXPECT_FALSE(StatementAt(bytes, 808, kKey, 808).has_value());
}

TEST(Record, EveryByteCounts) {
  RecordEncoder encoder(kKey, 800, 1);
  encoder.AddEntry(*MakeEntry(1, 1, "odd length"), 0);
  std::string bytes = encoder.Take();
  Record record;
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      EXPECT_NE(ParseRecord(bytes, 800, kKey, 800, &record), Parse::kRecord) << at;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
    }
  }
  EXPECT_EQ(ParseRecord(bytes, 800, kKey, 800, &record), Parse::kRecord);
}

TEST(Record, SaysHowMuchMoreItNeeds) {
  RecordEncoder encoder(kKey, 800, 1);
  encoder.AddEntry(*MakeEntry(1, 1, std::string(1000, 'x')), 0);
  const std::string bytes = encoder.Take();
  Record record;
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Parse parsed = ParseRecord(bytes.substr(0, size), 800, kKey, 800, &record);
    EXPECT_EQ(parsed, size < kRecordHeaderBytes ? Parse::kInvalid : Parse::kNeedMore);
    if (parsed == Parse::kNeedMore) {
      EXPECT_EQ(record.end, encoder.offset());
    }
  }
}

// Wherever a pair begins, its copies share no 4 KiB block, and each of them alone is enough.
TEST(HardStatePair, SurvivesTheLossOfAnyBlock) {
  const raft::HardState state{raft::Term(6), StoreId(2)};
  for (uint64_t offset = 4096; offset < 3 * 4096; offset += 8) {
    RecordEncoder encoder(kKey, offset, 99);
    encoder.AddHardState(state, 4096);
    EXPECT_EQ(encoder.offset() - offset, HardStateRecordBytes(offset));
    EXPECT_LE(HardStateRecordBytes(offset), 3 * kBlockBytes);
    const std::string good = encoder.Take();
    Record whole;
    ASSERT_EQ(ParseRecord(good, offset, kKey, offset, &whole), Parse::kRecord);
    EXPECT_FALSE(whole.cured_at);
    EXPECT_EQ(whole.end, encoder.offset());
    EXPECT_EQ(whole.crc, encoder.crc());
    EXPECT_EQ(whole.previous, 99u);

    int blocks = 0;
    for (uint64_t block = offset / kBlockBytes; block <= (encoder.offset() - 1) / kBlockBytes;
         ++block, ++blocks) {
      std::string bad = good;
      for (uint64_t at = std::max(offset, block * kBlockBytes);
           at < std::min(encoder.offset(), (block + 1) * kBlockBytes); ++at) {
        bad[at - offset] = '\xee';
      }
      Record cured;
      ASSERT_EQ(ParseRecord(bad, offset, kKey, offset, &cured), Parse::kRecord)
          << "offset " << offset << " block " << block;
      EXPECT_TRUE(cured.cured_at.has_value());
      EXPECT_EQ(*DecodeHardState(cured.body), state);
      EXPECT_EQ(cured.end, whole.end);
      EXPECT_EQ(cured.crc, whole.crc);
      EXPECT_EQ(cured.previous, whole.previous);
      EXPECT_EQ(cured.synced_through, whole.synced_through);
    }
    EXPECT_GE(blocks, 2);
  }
}

TEST(HardStatePair, IsLostWithBothCopies) {
  RecordEncoder encoder(kKey, 4096, 99);
  encoder.AddHardState({raft::Term(6), StoreId(2)}, 4096);
  std::string bytes = encoder.Take();
  bytes[40] = static_cast<char>(bytes[40] ^ 1);
  bytes[bytes.size() - 10] = static_cast<char>(bytes[bytes.size() - 10] ^ 1);
  Record record;
  EXPECT_EQ(ParseRecord(bytes, 4096, kKey, 4096, &record), Parse::kInvalid);
}

TEST(HardStatePair, IsNotFoundByItsSecondCopyAlone) {
  RecordEncoder encoder(kKey, 4096, 99);
  encoder.AddHardState({raft::Term(6), StoreId(2)}, 4096);
  const std::string bytes = encoder.Take();
  Record record;
  EXPECT_EQ(ParseRecord(bytes, 4096, kKey, encoder.offset() - 64, &record), Parse::kInvalid);
}

TEST(Mark, SharesNoBlockWithWhatItVouchesFor) {
  for (uint64_t offset = 4096; offset < 3 * 4096; offset += 8) {
    RecordEncoder encoder(kKey, offset, 99);
    encoder.AddMark(offset);
    EXPECT_EQ(encoder.offset() - offset, MarkRecordBytes(offset));
    const uint64_t mark = encoder.offset() - kRecordHeaderBytes;
    EXPECT_GT(mark / kBlockBytes, (offset - 1) / kBlockBytes);
  }
}

TEST(Body, ThatNoEncoderWritesIsNotDecoded) {
  EXPECT_FALSE(DecodeEntry(""));
  EXPECT_FALSE(DecodeEntry(std::string(39, '\0')));
  EXPECT_FALSE(DecodeEntry(std::string(40, '\0'))) << "type 0";
  std::string type(40, '\0');
  type[16] = 5;
  EXPECT_FALSE(DecodeEntry(type)) << "a type that does not exist yet";
  EXPECT_FALSE(DecodeCut("1234567"));
  EXPECT_FALSE(DecodeCut("123456789"));
  EXPECT_FALSE(DecodeHardState("short"));
  EXPECT_FALSE(DecodeGeneration(std::string(23, 'x')));
}

// --- Segment headers ---

SegmentHeader SampleHeader() {
  SegmentHeader header;
  header.store = StoreId(1);
  header.cluster = ClusterId(2);
  header.sequence = 3;
  header.previous_crc = 4;
  header.previous_end = 5;
  header.born_end = 8192;
  header.file_bytes = 1u << 20;
  header.hard_state = {raft::Term(6), StoreId(7)};
  header.prev_index = raft::Index(8);
  header.prev_term = raft::Term(9);
  header.membership_index = raft::Index(4);
  header.membership = std::string(3000, 'm');
  header.generation = {10, raft::Index(3), raft::Term(2), std::string(2000, 'g')};
  return header;
}

TEST(SegmentHeaderTest, ComesBackAsItWasWritten) {
  const SegmentHeader header = SampleHeader();
  const std::string bytes = EncodeSegmentHeader(header);
  EXPECT_EQ(bytes.size(), 8192u) << "whole blocks";
  auto decoded = DecodeSegmentHeader(bytes + "records");
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->header, header);
  EXPECT_EQ(decoded->length, bytes.size());
  EXPECT_EQ(decoded->crc, SegmentHeaderCrc(bytes));
}

TEST(SegmentHeaderTest, EveryByteCounts) {
  std::string bytes = EncodeSegmentHeader(SampleHeader());
  for (size_t at = 0; at < bytes.size(); ++at) {
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    auto decoded = DecodeSegmentHeader(bytes);
    EXPECT_TRUE(absl::IsDataLoss(decoded.status())) << at << ": " << decoded.status();
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  }
  for (size_t size : {0u, 1u, 4095u, 4096u, 8191u}) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeSegmentHeader(bytes.substr(0, size)).status())) << size;
  }
}

TEST(SegmentHeaderTest, ANewerFormatIsNotDamage) {
  std::string bytes = EncodeSegmentHeader(SampleHeader());
  PutNumber(&bytes, 8, uint32_t{2});
  PutNumber(&bytes, 16, uint32_t{0});
  PutNumber(&bytes, 16, Crc32c(bytes));
  auto decoded = DecodeSegmentHeader(bytes);
  EXPECT_TRUE(absl::IsFailedPrecondition(decoded.status())) << decoded.status();
  EXPECT_NE(std::string(decoded.status().message()).find("format version 2"), std::string::npos);
}

TEST(SegmentNameTest, IsTenDigits) {
  EXPECT_EQ(SegmentName(12), "0000000012.log");
  EXPECT_EQ(ParseSegmentName("0000000012.log"), 12u);
  for (const char* name : {"", "12.log", "0000000000.log", "0000000012.log.new", "00000000x2.log",
                           "00000000012.log"}) {
    EXPECT_FALSE(ParseSegmentName(name)) << name;
  }
}

}  // namespace
}  // namespace quorate::storage
