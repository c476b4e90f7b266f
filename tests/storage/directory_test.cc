// The data directory on a real file system: made, locked, and refused with what to do.
#include "storage/directory.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/storage/noting_disk.h"
#include "tests/storage/temp_directory.h"

namespace quorate::storage {
namespace {

using testing::HasSubstr;

class DirectoryTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<DataDirectory>> Open(const std::string& node = "quorate-0") {
    return DataDirectory::Open(disk_.get(), path_, node);
  }
  static std::string Message(const absl::Status& status) { return std::string(status.message()); }

  TempDirectory temp_;
  std::string path_ = temp_.path() + "/a/b/data";
  std::unique_ptr<Disk> disk_ = MakePosixDisk();
};

TEST_F(DirectoryTest, IsMadeWithItsParentsAndKeepsItsIdentity) {
  StoreId store;
  {
    auto directory = Open();
    ASSERT_TRUE(directory.ok()) << directory.status();
    store = (*directory)->identity()->current().store;
    EXPECT_TRUE(store);
    EXPECT_EQ(*(*directory)->identity()->NextBoot(), 1u);
    EXPECT_TRUE(std::filesystem::is_directory((*directory)->log_directory()));
    EXPECT_EQ((*directory)->state_directory(3), path_ + "/state-3");
  }
  auto again = Open();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->identity()->current().store, store);
  EXPECT_EQ((*again)->identity()->current().boot, 1u);
}

// A process may be killed between a directory and the sync of its name: the next one finds the
// directory there, and what it writes in it would go with the name in a power failure.
TEST_F(DirectoryTest, ItsNameIsDurableAlsoWhenAnotherProcessHasMadeIt) {
  auto noting = std::make_unique<NotingDisk>(temp_.path());
  const NotingDisk* const told = noting.get();
  disk_ = std::move(noting);
  ASSERT_TRUE(Open().ok());
  ASSERT_GE(told->notes.size(), 4u);
  EXPECT_EQ(std::vector<std::string>(told->notes.begin(), told->notes.begin() + 4),
            (std::vector<std::string>{"sync names in ..", "sync names in .", "sync names in a",
                                      "sync names in a/b"}));
  NotingDisk again(temp_.path());
  ASSERT_TRUE(DataDirectory::Open(&again, path_, "quorate-0").ok());
  ASSERT_FALSE(again.notes.empty());
  EXPECT_EQ(again.notes.front(), "sync names in a/b");
}

TEST_F(DirectoryTest, TwoStoresHaveTwoIds) {
  auto one = Open();
  path_ = temp_.path() + "/other";
  auto other = Open();
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE((*one)->identity()->current().store, (*other)->identity()->current().store);
}

TEST_F(DirectoryTest, LetsOneProcessIn) {
  int ready[2], done[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::filesystem::create_directories(path_);
    auto lock = DirectoryLock::Take(path_);
    char c = lock.ok() ? 'y' : 'n';
    if (::write(ready[1], &c, 1) != 1) ::_exit(1);
    (void)!::read(done[0], &c, 1);  // holds the lock until the parent lets go
    ::_exit(0);
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  ASSERT_EQ(c, 'y');

  auto refused = Open();
  ASSERT_TRUE(absl::IsUnavailable(refused.status())) << refused.status();
  EXPECT_THAT(Message(refused.status()), HasSubstr(absl::StrCat("process ", child)));
  // Offline tools obey it too.
  EXPECT_TRUE(absl::IsUnavailable(DirectoryLock::Take(path_).status()));

  ASSERT_EQ(::write(done[1], &c, 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  // The lock goes with the process, though its file stays.
  EXPECT_TRUE(std::filesystem::exists(path_ + "/lock"));
  EXPECT_TRUE(Open().ok());
  for (int fd : {ready[0], ready[1], done[0], done[1]}) ::close(fd);
}

// --- Refused, with what to do ---

TEST_F(DirectoryTest, OfAnotherNode) {
  ASSERT_TRUE(Open("quorate-0").ok());
  auto refused = Open("quorate-1");
  ASSERT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(Message(refused.status()), HasSubstr("belongs to node quorate-0"));
}

TEST_F(DirectoryTest, AFileInItsPlace) {
  std::ofstream(temp_.path() + "/a") << "not a directory";
  for (const std::string& path : {temp_.path() + "/a", temp_.path() + "/a/b"}) {
    path_ = path;
    auto refused = Open();
    ASSERT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
    EXPECT_THAT(Message(refused.status()), HasSubstr("is not a directory"));
    EXPECT_THAT(Message(refused.status()), HasSubstr("controlPlane.storePath"));
  }
}

TEST_F(DirectoryTest, WithFilesOfSomebodyElse) {
  std::filesystem::create_directories(path_);
  std::ofstream(path_ + "/holiday.jpg") << "x";
  auto refused = Open();
  ASSERT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(Message(refused.status()), HasSubstr("holiday.jpg"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/identity"));
}

TEST_F(DirectoryTest, WithALogOrAStateButNoIdentity) {
  for (const char* name : {"log", "state-1"}) {
    path_ = temp_.path() + "/with-" + name;
    std::filesystem::create_directories(path_ + "/" + name);
    auto refused = Open();
    ASSERT_TRUE(absl::IsDataLoss(refused.status())) << refused.status();
    EXPECT_THAT(Message(refused.status()), HasSubstr("identity is missing"));
  }
}

TEST_F(DirectoryTest, WithADamagedIdentity) {
  ASSERT_TRUE(Open().ok());
  std::ofstream(path_ + "/identity") << "quorate identity 1\n";
  auto refused = Open();
  EXPECT_TRUE(absl::IsDataLoss(refused.status())) << refused.status();
}

TEST_F(DirectoryTest, MissingWhenItMustNotBeMade) {
  EXPECT_TRUE(absl::IsNotFound(DirectoryLock::Take(path_).status()));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(DirectoryTest, Unwritable) {
  if (::geteuid() == 0) {
    // Root may write anywhere but where nobody may.
    path_ = "/proc/quorate-cannot-be-here";
    auto refused = Open();
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(Message(refused.status()), HasSubstr("/proc/quorate-cannot-be-here"));
    // And what the user sees without that right, in a child that gives it up.
    std::filesystem::create_directories(path_ = temp_.path() + "/closed");
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (::chmod(temp_.path().c_str(), 0755) != 0 || ::setgid(65534) != 0 ||
          ::setuid(65534) != 0) {
        ::_exit(2);
      }
      auto status = Open().status();
      bool right = absl::IsPermissionDenied(status) &&
                   Message(status).find("give user id 65534 the right") != std::string::npos;
      ::_exit(right ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    return;
  }
  std::filesystem::create_directories(path_);
  ASSERT_EQ(::chmod(path_.c_str(), 0500), 0);
  auto refused = Open();
  ASSERT_TRUE(absl::IsPermissionDenied(refused.status())) << refused.status();
  EXPECT_THAT(Message(refused.status()), HasSubstr("the right to write there"));
  ASSERT_EQ(::chmod(path_.c_str(), 0700), 0);
}

}  // namespace
}  // namespace quorate::storage
