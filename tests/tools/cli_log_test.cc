// `log dump` and `log verify` on a real directory.
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/directory.h"
#include "storage/log.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct RanLog {
  int exit;
  std::string out;
  std::string err;
};

class CliLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/cli_log_test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    disk_ = storage::MakePosixDisk();
    data_ = storage::DataDirectory::Open(disk_.get(), directory_ + "/data", "node-1").value();
    storage::LogOptions options;
    options.directory = data_->log_directory();
    options.cluster = ClusterId(1);
    options.store = StoreId(2);
    auto log = storage::Log::Create(disk_.get(), options).value();
    raft::Persist persist;
    persist.hard_state = raft::HardState{raft::Term(3), StoreId(2)};
    for (uint64_t i = 1; i <= 3; ++i) {
      raft::Entry entry;
      entry.index = raft::Index(i);
      entry.term = raft::Term(3);
      entry.type = raft::EntryType::kCommand;
      entry.payload = std::string(1000, 'x');
      persist.entries.push_back(std::make_shared<const raft::Entry>(entry));
    }
    ASSERT_TRUE(log->Append(persist).ok());
    ASSERT_TRUE(log->Sync().ok());
    ASSERT_TRUE(log->WriteMark().ok());
  }
  void TearDown() override { fs::remove_all(directory_); }

  // Lets the directory go, as a stopped node does.
  void StopNode() { data_.reset(); }

  RanLog Quorate(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "quorate");
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(arguments.size()), arguments.data(), io);
    return {exit, out.str(), err.str()};
  }

  std::string directory_;
  std::unique_ptr<storage::Disk> disk_;
  std::unique_ptr<storage::DataDirectory> data_;
};

TEST_F(CliLogTest, DumpPrintsEveryRecord) {
  StopNode();
  const RanLog ran = Quorate({"log", "dump", (directory_ + "/data").c_str()});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("hard-state term=3 vote=0000000000000002"));
  EXPECT_THAT(ran.out, HasSubstr("entry index=3 term=3 command payload=1000"));
}

TEST_F(CliLogTest, VerifyFindsNothingWrong) {
  StopNode();
  EXPECT_EQ(Quorate({"log", "verify", (directory_ + "/data").c_str()}).exit, 0);
}

// --- Trouble ---

TEST_F(CliLogTest, DamageIsNamedWithFileAndOffset) {
  StopNode();
  std::string file;
  for (const auto& entry : fs::directory_iterator(directory_ + "/data/log")) {
    if (entry.path().extension() == ".log") file = entry.path();
  }
  ASSERT_FALSE(file.empty());
  std::fstream log(file, std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes(64 << 10, '\0');
  log.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  log.clear();
  const size_t at = bytes.find("xxxx");
  ASSERT_NE(at, std::string::npos);
  log.seekp(static_cast<std::streamoff>(at));
  log.put('y');
  log.close();
  const RanLog verify = Quorate({"log", "verify", (directory_ + "/data").c_str()});
  EXPECT_EQ(verify.exit, kExitError);
  EXPECT_THAT(verify.err, HasSubstr(file));
  EXPECT_NE(Quorate({"log", "dump", (directory_ + "/data").c_str()}).exit, 0);
}

TEST_F(CliLogTest, ARunningNodesDirectoryIsNotRead) {
  const RanLog ran = Quorate({"log", "verify", (directory_ + "/data").c_str()});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("log verify: "));
  EXPECT_TRUE(ran.out.empty());
}

TEST_F(CliLogTest, AnotherDirectoryIsNamed) {
  EXPECT_EQ(Quorate({"log", "dump", (directory_ + "/none").c_str()}).exit, kExitError);
  fs::create_directories(directory_ + "/other");
  const RanLog ran = Quorate({"log", "dump", (directory_ + "/other").c_str()});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("/other"));
  EXPECT_EQ(Quorate({"log", "trim", directory_.c_str()}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"log"}).exit, kExitUsage);
}

}  // namespace
}  // namespace quorate::tools
