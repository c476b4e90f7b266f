// `quorate log dump|verify`: readable, honest about damage, and changing nothing.
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

using testing::HasSubstr;
using testing::Not;

class LogToolsTest : public testing::Test {
 protected:
  LogToolsTest() { EXPECT_TRUE(writer_.Create()); }
  std::string Dump(absl::StatusCode expected = absl::StatusCode::kOk) {
    std::ostringstream out;
    absl::Status status = DumpLog(&disk_, kLogDirectory, out);
    EXPECT_EQ(status.code(), expected) << status;
    return out.str();
  }
  std::string Verify(absl::StatusCode expected = absl::StatusCode::kOk) {
    std::ostringstream out;
    const uint64_t operations = disk_.operations();
    absl::Status status = VerifyLog(&disk_, kLogDirectory, out);
    EXPECT_EQ(status.code(), expected) << status;
    EXPECT_EQ(disk_.operations(), operations) << "changes nothing";
    // It says what opening would do, so opening must do it.
    auto copy = disk_.Clone();
    EXPECT_EQ(OpenAndReadAll(copy.get(), SmallLogOptions()).status(), status);
    return out.str();
  }

  SimDisk disk_{{kLogDirectory}};
  LogWriter writer_{&disk_};
};

TEST_F(LogToolsTest, PrintOneLineARecord) {
  ASSERT_TRUE(writer_.Membership(2) && writer_.Vote(3, 7) && writer_.Entries(1, 20));
  ASSERT_TRUE(writer_.Cut(2) && writer_.Sync() && writer_.Mark());
  EXPECT_EQ(Dump(),
            "/log/0000000001.log: segment=1 store=5707e1d0c0ffee01 cluster=c105e7e7c105e7e7 term=0 "
            "vote=none previous_index=0 previous_term=0 previous_end=0 born_end=4096 bytes=32768\n"
            "4096 entry index=1 term=1 membership payload=117 log_time_ms=1001 wall_time_ms=-1 "
            "cluster=c105e7e7c105e7e7 node-2-1=0000000000000015 node-2-2=0000000000000016 "
            "node-2-3=0000000000000017 synced_through=4096\n"
            "4288 hard-state term=3 vote=0000000000000007 synced_through=4096\n"
            "8256 entry index=2 term=3 command payload=20 log_time_ms=3002 wall_time_ms=-2 "
            "synced_through=4096\n"
            "8352 cut from=2 synced_through=4096\n"
            "8392 filler bytes=3864 synced_through=8392\n"
            "12288 mark synced_through=8392\n");
}

TEST_F(LogToolsTest, SayWhatOpeningWouldDo) {
  ASSERT_TRUE(writer_.Vote(3, 7) && writer_.Entries(4, 100) && writer_.Sync() && writer_.Mark());
  ASSERT_TRUE(writer_.Entries(2, 100));
  disk_.Put("/log/0000000002.log.new", "left by a crash");
  std::string text = Verify();
  EXPECT_THAT(text, HasSubstr("/log/0000000002.log.new: would be removed\n"));
  EXPECT_THAT(
      text, HasSubstr("ok: store=5707e1d0c0ffee01 cluster=c105e7e7c105e7e7 first_index=1 "
                      "last_index=6 last_term=3 generation=1 term=3 vote=0000000000000007; opening "
                      "would begin segment 2 and rewrite 2 records from offset"));
  EXPECT_THAT(Dump(), HasSubstr("was never born"));
}

TEST_F(LogToolsTest, TellATornWriteFromCorruption) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync() && writer_.Entries(2, 100));
  disk_.FlipBit("/log/0000000001.log", 4096 + 2 * 176 + 60, 0);  // the third entry, unsynced
  EXPECT_THAT(Verify(), HasSubstr("a torn write of"));
  EXPECT_THAT(Dump(absl::StatusCode::kDataLoss),
              HasSubstr("4448 damaged: no valid record in 176 bytes\n4624 entry index=4"));
  disk_.FlipBit("/log/0000000001.log", 4096 + 60, 0);  // the first, synced
  EXPECT_THAT(Verify(absl::StatusCode::kDataLoss),
              HasSubstr("refused: /log/0000000001.log: offset 4096: no valid record; the one at "
                        "offset 4448 says that this was durable"));
}

TEST_F(LogToolsTest, NameADamagedCopy) {
  ASSERT_TRUE(writer_.Vote(3, 7) && writer_.Sync() && writer_.Mark());
  disk_.FlipBit("/log/0000000001.log", 4096 + 40, 0);
  EXPECT_THAT(Verify(), HasSubstr("offset 4136: one copy of term and vote is damaged"));
  EXPECT_THAT(Dump(), HasSubstr("damaged_copy_at=4136"));
}

TEST_F(LogToolsTest, GoOnBehindADamagedSegment) {
  ASSERT_TRUE(writer_.Entries(2, 100) && writer_.Sync() && writer_.Reopen());
  ASSERT_TRUE(writer_.Entries(1, 100) && writer_.Sync());
  disk_.FlipBit("/log/0000000001.log", 30, 0);
  std::string text = Dump(absl::StatusCode::kDataLoss);
  EXPECT_THAT(text, HasSubstr("/log/0000000001.log: offset 0:"));
  EXPECT_THAT(text, HasSubstr("entry index=3"));
  EXPECT_THAT(Verify(absl::StatusCode::kDataLoss), Not(HasSubstr("ok:")));
}

TEST_F(LogToolsTest, PrintEntriesOfEveryTypeAndGenerations) {
  raft::Persist persist;
  auto make = [](uint64_t index, raft::EntryType type) {
    raft::Entry entry;
    entry.index = raft::Index(index);
    entry.term = raft::Term(1);
    entry.type = type;
    return std::make_shared<const raft::Entry>(std::move(entry));
  };
  persist.entries = {make(1, raft::EntryType::kNoop), make(2, raft::EntryType::kBirthComplete)};
  ASSERT_TRUE(writer_.log()->Append(persist).ok() && writer_.log()->Sync().ok());
  EXPECT_THAT(Dump(), HasSubstr(" entry index=1 term=1 noop payload=0 "));
  EXPECT_THAT(Dump(), HasSubstr(" entry index=2 term=1 birth-complete payload=0 "));
}

TEST_F(LogToolsTest, PrintWhereAGenerationBegins) {
  ASSERT_TRUE(writer_.Vote(3, 7) && writer_.Entries(2, 100) && writer_.Sync());
  ASSERT_TRUE(writer_.Install(2, 40, 3, 2));
  EXPECT_THAT(Dump(), HasSubstr(" generation number=2 index=40 term=3 "));
  ASSERT_TRUE(writer_.Reopen());
  EXPECT_THAT(Dump(), HasSubstr(" generation=2 at=40")) << "the next segment's header";
}

TEST_F(LogToolsTest, SayWhenThereIsNoLog) {
  std::ostringstream out;
  EXPECT_TRUE(absl::IsNotFound(DumpLog(&disk_, "/none", out)));
  SimDisk empty({kLogDirectory});
  EXPECT_TRUE(absl::IsNotFound(VerifyLog(&empty, kLogDirectory, out)));
}

}  // namespace
}  // namespace quorate::storage
