// The driver's port over the log: the same answers, and the end of the process where there is none.
#include "storage/log_store.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

class LogStoreTest : public testing::Test {
 protected:
  LogStoreTest() : store_(*Log::Create(&disk_, SmallLogOptions())) {}
  static raft::Persist One(uint64_t index) {
    raft::Persist persist;
    persist.entries = {MakeEntry(index, 1, std::string(1000, 'x'))};
    return persist;
  }

  SimDisk disk_{{kLogDirectory}};
  LogStore store_;
};

TEST_F(LogStoreTest, ServesTheDriver) {
  raft::LogStore& port = store_;
  port.Append(One(1));
  port.Append(One(2));
  EXPECT_FALSE(port.WantsMark());
  port.Sync();
  EXPECT_TRUE(port.WantsMark());
  port.WriteMark();
  EXPECT_FALSE(port.WantsMark());
  EXPECT_EQ(port.Read(raft::Index(1), raft::Index(2), 1u << 20).size(), 2u);
  EXPECT_EQ(port.Read(raft::Index(2), raft::Index(2), 1)[0]->index, raft::Index(2));
  EXPECT_TRUE(port.Read(raft::Index(3), raft::Index(9), 1).empty());
}

TEST_F(LogStoreTest, CutsInFrontAndSaysWhereTheTailBegins) {
  raft::LogStore& port = store_;
  for (uint64_t index = 1; index <= 100; ++index) {
    port.Append(One(index));
    port.Sync();
  }
  const raft::Index tail = port.TailStart(40'000);
  EXPECT_GT(tail, raft::Index(1));
  EXPECT_LE(tail, raft::Index(61));
  port.Cut(raft::Index(50));
  EXPECT_TRUE(port.Read(raft::Index(1), raft::Index(1), 1).empty());
  EXPECT_EQ(port.Read(raft::Index(51), raft::Index(51), 1)[0]->index, raft::Index(51));
  EXPECT_GT(port.TailStart(UINT64_MAX), raft::Index(1)) << "as long as the log is";
}

using LogStoreDeathTest = LogStoreTest;

TEST_F(LogStoreDeathTest, AFailedFlushEndsTheProcess) {
  store_.Append(One(1));
  disk_.FailAfter(0, absl::UnknownError("input/output error"));
  EXPECT_EXIT(store_.Sync(), testing::ExitedWithCode(1),
              "^FATAL: flushing the log failed: .*sync /log/0000000001.log.*input/output error");
}

TEST_F(LogStoreDeathTest, AFailedWriteEndsTheProcess) {
  disk_.FailAfter(0, absl::ResourceExhaustedError("no space left"));
  EXPECT_EXIT(store_.Append(One(1)), testing::ExitedWithCode(1), "^FATAL: writing the log failed");
}

TEST_F(LogStoreDeathTest, AFailedMarkEndsTheProcess) {
  store_.Append(One(1));
  store_.Sync();
  disk_.FailAfter(1, absl::UnknownError("input/output error"));
  EXPECT_EXIT(store_.WriteMark(), testing::ExitedWithCode(1), "^FATAL: marking the log failed");
}

TEST_F(LogStoreDeathTest, ASegmentThatCannotBeRemovedEndsTheProcess) {
  for (uint64_t index = 1; index <= 100; ++index) {
    store_.Append(One(index));
    store_.Sync();
  }
  disk_.FailAfter(0, absl::UnknownError("input/output error"));
  EXPECT_EXIT(store_.Cut(raft::Index(50)), testing::ExitedWithCode(1),
              "^FATAL: cutting the log failed");
}

TEST_F(LogStoreDeathTest, AnEntryThatCannotBeReadBackEndsTheProcess) {
  store_.Append(One(1));
  disk_.FlipBit("/log/0000000001.log", 4096 + 500, 1);
  EXPECT_EXIT(store_.Read(raft::Index(1), raft::Index(1), 100), testing::ExitedWithCode(1),
              "^FATAL: reading the log failed: DATA_LOSS: /log/0000000001.log: offset 4096");
}

}  // namespace
}  // namespace quorate::storage
