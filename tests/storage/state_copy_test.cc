// A copy of the state, made while the writer goes on: whole, proven, and given up when it is in the
// way.
#include "storage/state_copy.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class StateCopying : public StateFixture {
 protected:
  void SetUp() override { Begin(); }

  std::string Target(std::string_view name = "copy.db") {
    return directory.path() + "/" + std::string(name);
  }
  // `count` keys of `bytes` each, in one entry a hundred.
  void Fill(int count, size_t bytes, std::string_view prefix = "key") {
    for (int i = 0; i < count;) {
      v1::Command command;
      for (int n = 0; n < 100 && i < count; ++n, ++i) {
        AddPut(command, std::string(prefix) + std::to_string(i), std::string(bytes, 'v'));
      }
      script.Do(command);
    }
    ApplyAll();
  }
  ExpectedState Expected(const StateSummary& summary) {
    return {options.cluster, summary.applied, summary.applied_term, summary.hash};
  }
  absl::Status VerifyAs(const std::string& path, const ExpectedState& expected) {
    return VerifyStateFile(path, expected, never).status();
  }
  // Changes a copy behind its hash's back.
  void Tamper(const std::string& path, const std::string& sql) {
    absl::StatusOr<Database> database = Database::Open(path, Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok()) << database.status();
    absl::Status status = database->Execute("PRAGMA journal_mode = DELETE;" + sql);
    ASSERT_TRUE(status.ok()) << status;
  }

  const std::atomic<bool> never{false};
};

TEST_F(StateCopying, IsTheWholeStateInOneFile) {
  Fill(300, 500);
  Delete("key7");
  const StateSummary summary = state->Summary();
  absl::StatusOr<StateCopy> copy = state->Copy(Target(), never);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->path, Target());
  EXPECT_EQ(copy->cluster, options.cluster);
  EXPECT_EQ(copy->index, summary.applied);
  EXPECT_EQ(copy->term, summary.applied_term);
  EXPECT_EQ(copy->log_time_ms, summary.log_time_ms);
  EXPECT_EQ(copy->membership_index, summary.membership_index);
  EXPECT_EQ(copy->membership, summary.membership);
  EXPECT_EQ(copy->revision, summary.revision);
  EXPECT_TRUE(copy->birth_complete);
  EXPECT_EQ(copy->hash, summary.hash);
  EXPECT_EQ(copy->bytes, fs::file_size(Target()));
  for (const char* suffix : {"-wal", "-shm", "-journal"}) {
    EXPECT_FALSE(fs::exists(Target() + suffix)) << suffix;
  }
  // Opened as a state it shows the same, and goes on from there.
  Directory elsewhere;
  fs::create_directory(elsewhere.path() + "/state-4");
  fs::copy_file(Target(), StatePath(elsewhere.path(), 4));
  const std::vector<std::string> shown = ShowAll();
  options.directory = elsewhere.path();
  options.generation = 4;
  Reopen();
  EXPECT_EQ(state->generation(), 4u);
  EXPECT_EQ(ShowAll(), shown);
  EXPECT_EQ(Count(""), 299u);
  Put("more", "1");
  ExpectHashAddsUp();
}

TEST_F(StateCopying, IsOfOneInstantWhileTheWriterGoesOn) {
  options.wal_bytes_max = 256u << 10;
  Reopen();
  Fill(3000, 1000);
  std::atomic<bool> stop{false};
  int applied = 0;
  std::atomic<size_t> copied{0};
  std::vector<StateCopy> copies;  // the copier's until it has ended
  std::thread copier([&] {
    while (!stop) {
      absl::StatusOr<StateCopy> copy = state->Copy(Target(), never);
      ASSERT_TRUE(copy.ok()) << copy.status();
      copies.push_back(*copy);
      ++copied;
    }
  });
  // Each copy is verified by its maker: a mixture would not have the hash that it keeps.
  for (int round = 0; round < 400 || copied < 3; ++round, ++applied) {
    Put("key" + std::to_string(round % 3000), std::string(3000, 'w'));
    if (round > 20'000) break;  // the thread has ended with an error
  }
  stop = true;
  copier.join();
  ASSERT_GE(copies.size(), 2u);
  EXPECT_LT(copies.front().index, state->Summary().applied);
  EXPECT_LT(copies.front().index, copies.back().index);
  ExpectHashAddsUp();
}

TEST_F(StateCopying, ReplacesWhatStoodThere) {
  std::ofstream(Target()) << std::string(100'000, 'x');
  std::ofstream(Target() + "-wal") << "an older life's";
  absl::StatusOr<StateCopy> copy = state->Copy(Target(), never);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_FALSE(fs::exists(Target() + "-wal"));
  EXPECT_TRUE(VerifyAs(Target(), Expected(state->Summary())).ok());
}

// A path that a URI would read otherwise.
TEST_F(StateCopying, TakesAnyPath) {
  fs::create_directory(Target("odd %41?#dir"));
  absl::StatusOr<StateCopy> copy = state->Copy(Target("odd %41?#dir/a b.db"), never);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_TRUE(fs::exists(Target("odd %41?#dir/a b.db")));
}

// --- Errors ---

TEST_F(StateCopying, CanBeCancelled) {
  Fill(2000, 2000);
  std::atomic<bool> cancel{true};
  EXPECT_TRUE(absl::IsCancelled(state->Copy(Target(), cancel).status()));
  EXPECT_FALSE(fs::exists(Target()));
  // In the middle, whichever part that is. (A copy that was quicker is made again.)
  absl::Status status;
  for (int attempt = 0; attempt < 100 && status.ok(); ++attempt) {
    fs::remove(Target());
    cancel = false;
    std::thread soon([&] {
      while (!fs::exists(Target())) std::this_thread::yield();
      cancel = true;
    });
    status = state->Copy(Target(), cancel).status();
    soon.join();
  }
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_FALSE(fs::exists(Target()));
  // Also while it waits for its turn.
  std::atomic<bool> hold{false};
  std::thread scrub([&] {
    while (!hold) EXPECT_TRUE(state->CheckHash().ok());
  });
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(absl::IsCancelled(state->Copy(Target(), cancel).status()));
  }
  hold = true;
  scrub.join();
}

TEST_F(StateCopying, IsGivenUpForACheckpointThatCannotWait) {
  Fill(500, 1000);
  std::atomic<bool> abandon{true};
  absl::StatusOr<StateCopy> copy =
      CopyStateFile(StatePath(directory.path(), 1), Target(), {never, abandon});
  EXPECT_TRUE(absl::IsAborted(copy.status())) << copy.status();
  EXPECT_THAT(std::string(copy.status().message()), HasSubstr("write-ahead log has grown"));
  EXPECT_FALSE(fs::exists(Target()));
}

TEST_F(StateCopying, AFullDiskIsSaidAndLeavesNothing) {
  Fill(500, 2000);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit{300u << 10, 300u << 10};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    std::atomic<bool> abandon{false};
    absl::Status status =
        CopyStateFile(StatePath(directory.path(), 1), Target(), {never, abandon}).status();
    _exit(status.ok() || fs::exists(Target()) ? 3 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(StateCopying, ADirectoryThatIsNotThere) {
  absl::Status status = state->Copy(Target("nowhere/copy.db"), never).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(state->Copy(Target(), never).ok()) << "and the next one works";
}

TEST_F(StateCopying, ADamagedDatabaseIsNotCopiedOn) {
  Fill(50, 1000);
  ASSERT_EQ(*state->Checkpoint(), true);
  state.reset();
  Tamper(StatePath(directory.path(), 1),
         "UPDATE history SET value = x'00' WHERE key = CAST('key7' AS BLOB);"
         "PRAGMA journal_mode = WAL;");
  Reopen();
  absl::Status status = state->Copy(Target(), never).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("its rows have the hash"));
  EXPECT_FALSE(fs::exists(Target()));
}

TEST_F(StateCopying, WhatIsNotTheStateThatWasAnnouncedIsTold) {
  Fill(300, 500);
  const ExpectedState good = Expected(state->Summary());
  ASSERT_TRUE(state->Copy(Target(), never).ok());
  ASSERT_TRUE(VerifyAs(Target(), good).ok());
  const auto says = [&](const ExpectedState& expected, absl::StatusCode code,
                        std::string_view text) {
    absl::Status status = VerifyAs(Target(), expected);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(text)));
  };
  ExpectedState wrong = good;
  wrong.cluster = ClusterId(5);
  says(wrong, absl::StatusCode::kFailedPrecondition, "is of cluster");
  wrong = good;
  wrong.index = good.index + 1;
  says(wrong, absl::StatusCode::kDataLoss, "it is the state at entry");
  wrong = good;
  wrong.term = good.term + 1;
  says(wrong, absl::StatusCode::kDataLoss, "it is the state at entry");
  wrong = good;
  wrong.hash[3] ^= 1;
  says(wrong, absl::StatusCode::kDataLoss, "its hash is");

  const uint64_t size = fs::file_size(Target());
  const auto flip = [&](uint64_t at) {
    std::fstream file(Target(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
  };
  // Any bit anywhere, for a sample of places: found, or without meaning (free space, versions).
  int found = 0;
  for (uint64_t at = 20; at < size; at += 2731) {  // not of the pages' size, nor near it
    flip(at);
    if (!VerifyAs(Target(), good).ok()) ++found;
    flip(at);
  }
  EXPECT_GT(found, 30);
  ASSERT_TRUE(VerifyAs(Target(), good).ok());

  fs::resize_file(Target(), size - 8192);
  EXPECT_TRUE(absl::IsDataLoss(VerifyAs(Target(), good)));
  std::ofstream(Target(), std::ios::trunc) << std::string(50'000, 'x');
  EXPECT_TRUE(absl::IsDataLoss(VerifyAs(Target(), good)));
  std::ofstream(Target(), std::ios::trunc) << "";
  EXPECT_FALSE(VerifyAs(Target(), good).ok());
}

// No row has changed, so the hash is right; and the write that needs the index would find it.
TEST_F(StateCopying, ADamagedIndexIsFound) {
  v1::Command grant;
  grant.mutable_grant_ttl()->set_ttl_ms(60'000);
  script.Do(grant);
  ApplyAll();
  const ExpectedState good = Expected(state->Summary());
  ASSERT_TRUE(state->Copy(Target(), never).ok());
  uint64_t page = 0, page_bytes = 0;
  {
    absl::StatusOr<Database> database = Database::Open(Target(), Database::Mode::kImmutable);
    ASSERT_TRUE(database.ok()) << database.status();
    auto root = database->Prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'ttl_deadline'");
    ASSERT_TRUE(root.ok() && *root->Step());
    page = static_cast<uint64_t>(root->Int(0));
    auto size = database->Prepare("PRAGMA page_size");
    ASSERT_TRUE(size.ok() && *size->Step());
    page_bytes = static_cast<uint64_t>(size->Int(0));
  }
  // The first entry lies at the page's end: its last byte is one of the time-to-live's number.
  std::fstream file(Target(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(page * page_bytes - 1));
  const auto byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(page * page_bytes - 1));
  file.put(byte);
  file.close();
  const absl::Status status = VerifyAs(Target(), good);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("integrity_check says"));
}

// SQLite reads such a file and finds nothing wrong with it, and refuses every write. Found by the
// simulator (seed 16859698816387 of its state).
TEST_F(StateCopying, AWriteVersionThatNobodyKnowsIsFound) {
  Fill(100, 100);
  const ExpectedState expected = Expected(state->Summary());
  ASSERT_TRUE(state->Copy(Target(), never).ok());
  std::stringstream content;
  content << std::ifstream(Target(), std::ios::binary).rdbuf();
  for (int bit = 0; bit < 8; ++bit) {
    std::string damaged = content.str();
    damaged[18] = static_cast<char>(damaged[18] ^ (1 << bit));
    std::ofstream(Target(), std::ios::binary) << damaged;
    const absl::Status status = VerifyAs(Target(), expected);
    EXPECT_TRUE(absl::IsDataLoss(status)) << bit << ": " << status;
  }
  std::ofstream(Target(), std::ios::binary) << content.str();
  EXPECT_TRUE(VerifyAs(Target(), expected).ok());
}

// A bit of the words that make a table. SQLite reads such a file, all its rows have the right hash,
// and nobody can write it: the name in the check is no column's any more.
TEST_F(StateCopying, DamagedWordsOfASchemaAreFound) {
  Fill(100, 100);
  const ExpectedState expected = Expected(state->Summary());
  ASSERT_TRUE(state->Copy(Target(), never).ok());
  ASSERT_TRUE(VerifyAs(Target(), expected).ok());
  std::stringstream content;
  content << std::ifstream(Target(), std::ios::binary).rdbuf();
  const std::string whole = content.str();
  const size_t table = whole.find("CREATE TABLE membership");
  ASSERT_NE(table, std::string::npos);
  // Renames a column that a check names, one that nothing names, and weakens a rule.
  for (const char* word : {"one    INTEGER", "bytes  BLOB", "= 1)"}) {
    std::string damaged = whole;
    damaged[damaged.find(word, table) + (word[0] == '=' ? 2 : 0)] ^= 1;
    std::ofstream(Target(), std::ios::binary) << damaged;
    const absl::Status status = VerifyAs(Target(), expected);
    EXPECT_TRUE(absl::IsDataLoss(status)) << word << ": " << status;
  }
  std::ofstream(Target(), std::ios::binary) << whole;
  EXPECT_TRUE(VerifyAs(Target(), expected).ok());
}

// Somebody was at the database with a program of his own: statistics do no harm; what might is
// named.
TEST_F(StateCopying, WhatQuorateDidNotMakeIsNamed) {
  Fill(100, 100);
  const ExpectedState expected = Expected(state->Summary());
  const auto copy_with = [&](const std::string& sql) {
    fs::remove(Target());
    EXPECT_TRUE(state->Copy(Target(), never).ok());
    Tamper(Target(), sql);
    return VerifyAs(Target(), expected);
  };
  EXPECT_TRUE(copy_with("ANALYZE;").ok());
  const absl::Status status = copy_with("CREATE INDEX mine ON history (author);");
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("has mine, which Quorate does not make"));
  EXPECT_THAT(std::string(copy_with("DROP INDEX ttl_deadline;").message()),
              HasSubstr("ttl_deadline is not as format 3 has it"));
}

TEST_F(StateCopying, OtherFormats) {
  Fill(10, 100);
  const ExpectedState good = Expected(state->Summary());
  ASSERT_TRUE(state->Copy(Target(), never).ok());
  Tamper(Target(), "PRAGMA journal_mode = WAL; PRAGMA user_version = 99;");
  absl::Status status = VerifyAs(Target(), good);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;

  // As an older build makes it: it gets what this build's format adds.
  for (int format : {2, 1}) {
    ASSERT_TRUE(state->Copy(Target(), never).ok());
    Tamper(Target(), ToOlderFormat(format) + "PRAGMA journal_mode = WAL;");
    for (const char* suffix : {"-wal", "-shm"}) fs::remove(Target() + suffix);
    status = VerifyAs(Target(), good);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_FALSE(fs::exists(Target() + "-wal"));
  }
  Tamper(Target(), "PRAGMA application_id = 7;");
  EXPECT_TRUE(absl::IsDataLoss(VerifyAs(Target(), good)));
}

}  // namespace
}  // namespace quorate::storage::testing
