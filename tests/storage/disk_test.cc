// The disk seam's promises, kept by both of its implementations; then what only the simulated one
// does: forget.
#include "storage/disk.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "storage/crc32c.h"
#include "tests/storage/sim_disk.h"
#include "tests/storage/temp_directory.h"

namespace quorate::storage {
namespace {

TEST(Crc32c, MatchesThePublishedVectorsAndChains) {
  // RFC 3720, appendix B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("56789", Crc32c("1234")), Crc32c("123456789"));
}

TEST(Path, IsTakenApartAndPutTogether) {
  EXPECT_EQ(ParentDirectory("/a/b"), "/a");
  EXPECT_EQ(ParentDirectory("/a"), "/");
  EXPECT_EQ(ParentDirectory("a"), ".");
  EXPECT_EQ(ParentDirectory("a/b/"), "a");
  EXPECT_EQ(JoinPath("/a", "b"), "/a/b");
  EXPECT_EQ(JoinPath("/a/", "b"), "/a/b");
}

class DiskTest : public testing::TestWithParam<bool> {
 protected:
  DiskTest() {
    if (GetParam()) {
      disk_ = MakePosixDisk();
      directory_ = temp_.path();
    } else {
      directory_ = "/d";
      disk_ = std::make_unique<SimDisk>(std::vector<std::string>{directory_});
    }
  }
  std::string Path(const std::string& name) { return JoinPath(directory_, name); }

  TempDirectory temp_;
  std::string directory_;
  std::unique_ptr<Disk> disk_;
};

INSTANTIATE_TEST_SUITE_P(Both, DiskTest, testing::Bool(), [](const auto& info) {
  return info.param ? std::string("Posix") : std::string("Simulated");
});

TEST_P(DiskTest, WritesAndReadsBack) {
  auto file = disk_->Create(Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE((*file)->Write(3, "abc").ok());
  EXPECT_EQ(*(*file)->Read(0, 100), std::string("\0\0\0abc", 6));
  EXPECT_EQ(*(*file)->Read(4, 1), "b");
  EXPECT_EQ(*(*file)->Read(6, 1), "");
  EXPECT_EQ(*(*file)->Read(100, 1), "");
  EXPECT_EQ(*(*file)->Size(), 6u);
  ASSERT_TRUE((*file)->Sync().ok());
  auto reader = disk_->Open(Path("f"), Disk::Mode::kRead);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(*(*reader)->Read(3, 3), "abc");
}

TEST_P(DiskTest, AllocatesZeroesAndNeverShrinks) {
  auto file = disk_->Create(Path("f"));
  ASSERT_TRUE((*file)->Write(0, "abc").ok());
  ASSERT_TRUE((*file)->Allocate(10000).ok());
  EXPECT_EQ(*(*file)->Read(0, 20000), "abc" + std::string(9997, '\0'));
  ASSERT_TRUE((*file)->Allocate(5).ok());
  EXPECT_EQ(*(*file)->Size(), 10000u);
  ASSERT_TRUE((*file)->Truncate(2).ok());
  EXPECT_EQ(*(*file)->Read(0, 10), "ab");
}

TEST_P(DiskTest, RenamesListsAndRemoves) {
  ASSERT_TRUE((*disk_->Create(Path("b")))->Write(0, "1").ok());
  ASSERT_TRUE((*disk_->Create(Path("a")))->Write(0, "2").ok());
  EXPECT_EQ(*disk_->List(directory_), (std::vector<std::string>{"a", "b"}));
  ASSERT_TRUE(disk_->Rename(Path("a"), Path("b")).ok());
  EXPECT_EQ(*disk_->List(directory_), (std::vector<std::string>{"b"}));
  EXPECT_EQ(*ReadWholeFile(disk_.get(), Path("b"), 10), "2");
  EXPECT_TRUE(disk_->SyncDirectory(directory_).ok());
  ASSERT_TRUE(disk_->Remove(Path("b")).ok());
  EXPECT_TRUE(disk_->List(directory_)->empty());
}

TEST_P(DiskTest, ReplacesAFileWhole) {
  ASSERT_TRUE(disk_->Create(Path("f.new")).ok()) << "left behind by a crash";
  ASSERT_TRUE(ReplaceFile(disk_.get(), Path("f"), "one").ok());
  ASSERT_TRUE(ReplaceFile(disk_.get(), Path("f"), "").ok());
  ASSERT_TRUE(ReplaceFile(disk_.get(), Path("f"), "three").ok());
  EXPECT_EQ(*ReadWholeFile(disk_.get(), Path("f"), 10), "three");
  EXPECT_EQ(*disk_->List(directory_), (std::vector<std::string>{"f"}));
}

TEST_P(DiskTest, RenamesAndRemovesADirectoryWithItsFiles) {
  ASSERT_TRUE(disk_->MakeDirectory(Path("made")).ok());
  ASSERT_TRUE(ReplaceFile(disk_.get(), Path("made/f"), "one").ok());
  ASSERT_TRUE(disk_->Rename(Path("made"), Path("moved")).ok());
  EXPECT_EQ(*disk_->List(directory_), (std::vector<std::string>{"moved"}));
  EXPECT_TRUE(absl::IsNotFound(disk_->SizeOf(Path("made/f")).status()));
  EXPECT_EQ(*disk_->SizeOf(Path("moved/f")), 3u);
  EXPECT_TRUE(disk_->SizeOf(Path("moved")).ok());
  ASSERT_TRUE(disk_->RemoveTree(Path("moved")).ok());
  EXPECT_TRUE(disk_->List(directory_)->empty());
  EXPECT_TRUE(disk_->RemoveTree(Path("moved")).ok()) << "it is not there";
}

TEST_P(DiskTest, NamesItsErrors) {
  EXPECT_TRUE(absl::IsNotFound(disk_->Open(Path("none"), Disk::Mode::kRead).status()));
  EXPECT_TRUE(absl::IsNotFound(disk_->Remove(Path("none"))));
  EXPECT_TRUE(absl::IsNotFound(disk_->Rename(Path("none"), Path("b"))));
  EXPECT_TRUE(absl::IsNotFound(disk_->List(Path("none")).status()));
  ASSERT_TRUE(disk_->Create(Path("f")).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(disk_->Create(Path("f")).status()));
  EXPECT_TRUE(disk_->MakeDirectory(Path("sub")).ok());
  EXPECT_TRUE(disk_->MakeDirectory(Path("sub")).ok());
  ASSERT_TRUE(ReplaceFile(disk_.get(), Path("f"), "too long").ok());
  EXPECT_TRUE(absl::IsOutOfRange(ReadWholeFile(disk_.get(), Path("f"), 7).status()));
}

TEST(PosixDisk, SaysWhenTheDiskIsFull) {
  auto disk = MakePosixDisk();
  auto full = disk->Open("/dev/full", Disk::Mode::kReadWrite);
  ASSERT_TRUE(full.ok()) << full.status();
  absl::Status written = (*full)->Write(0, "x");
  EXPECT_TRUE(absl::IsResourceExhausted(written)) << written;
  EXPECT_NE(std::string(written.message()).find("write /dev/full"), std::string::npos);
}

// --- What a crash does ---

TEST(SimDisk, KeepsWhatWasSyncedAndOnlyThat) {
  SimDisk disk({"/d"});
  auto file = *disk.Create("/d/f");
  ASSERT_TRUE(file->Write(0, "kept").ok());
  ASSERT_TRUE(file->Sync().ok());
  EXPECT_FALSE(disk.AfterCrash(SimDisk::Fate::kLost, 0)->Exists("/d/f")) << "name not synced";
  ASSERT_TRUE(disk.SyncDirectory("/d").ok());
  ASSERT_TRUE(file->Write(0, "LOST").ok());
  EXPECT_EQ(disk.AfterCrash(SimDisk::Fate::kLost, 0)->Content("/d/f"), "kept");
  EXPECT_EQ(disk.AfterCrash(SimDisk::Fate::kKept, 0)->Content("/d/f"), "LOST");
  EXPECT_EQ(disk.Content("/d/f"), "LOST");
}

TEST(SimDisk, LosesADirectoryWhoseParentWasNotSynced) {
  SimDisk disk({"/d"});
  const uint64_t before = disk.operations();
  ASSERT_TRUE(disk.MakeDirectory("/d/made").ok());
  ASSERT_TRUE(disk.MakeDirectory("/d/made").ok()) << "it is there";
  EXPECT_EQ(disk.operations(), before + 1);
  ASSERT_TRUE(ReplaceFile(&disk, "/d/made/f", "synced").ok());
  const auto lost = disk.AfterCrash(SimDisk::Fate::kLost, 0);
  EXPECT_TRUE(lost->List("/d")->empty());
  EXPECT_TRUE(absl::IsNotFound(lost->SizeOf("/d/made/f").status()));
  EXPECT_EQ(disk.AfterCrash(SimDisk::Fate::kKept, 0)->Content("/d/made/f"), "synced");
  // Renamed it may be there by the new name alone, the old one alone, or not at all.
  ASSERT_TRUE(disk.Rename("/d/made", "/d/moved").ok());
  EXPECT_TRUE(disk.AfterCrash(SimDisk::Fate::kLost, 0)->List("/d")->empty());
  EXPECT_EQ(disk.AfterCrash(SimDisk::Fate::kLastOnly, 0)->Content("/d/moved/f"), "synced");
  int with_old_name = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    with_old_name += disk.AfterCrash(SimDisk::Fate::kAllButOne, seed)->Exists("/d/made/f");
  }
  EXPECT_GT(with_old_name, 2) << "one of the two changes is missing, and it may be the rename";
  EXPECT_LT(with_old_name, 18);
  ASSERT_TRUE(disk.SyncDirectory("/d").ok());
  EXPECT_EQ(disk.AfterCrash(SimDisk::Fate::kLost, 0)->Content("/d/moved/f"), "synced");
  // Errors.
  EXPECT_TRUE(absl::IsNotFound(disk.MakeDirectory("/d/none/below")));
  EXPECT_TRUE(absl::IsFailedPrecondition(disk.MakeDirectory("/d/moved/f")));
  disk.StopAfter(0);
  EXPECT_TRUE(absl::IsAborted(disk.MakeDirectory("/d/late")));
}

TEST(SimDisk, TearsAWriteAtSectors) {
  SimDisk disk({"/d"});
  auto file = *disk.Create("/d/f");
  ASSERT_TRUE(file->Allocate(2048).ok() && file->Sync().ok() && disk.SyncDirectory("/d").ok());
  ASSERT_TRUE(file->Write(0, std::string(2048, 'x')).ok());
  int torn = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string after = disk.AfterCrash(SimDisk::Fate::kAnySome, seed)->Content("/d/f");
    for (size_t sector = 0; sector < 4; ++sector) {
      std::string piece = after.substr(sector * 512, 512);
      EXPECT_TRUE(piece == std::string(512, 'x') || piece == std::string(512, '\0'));
    }
    if (after.find('x') != std::string::npos && after.find('\0') != std::string::npos) ++torn;
  }
  EXPECT_GT(torn, 10);
  std::string last = disk.AfterCrash(SimDisk::Fate::kLastOnly, 0)->Content("/d/f");
  EXPECT_EQ(last, std::string(1536, '\0') + std::string(512, 'x'));
}

TEST(SimDisk, AFailedFlushLeavesPagesThatAreSeenAndNeverWritten) {
  SimDisk disk({"/d"});
  auto file = *disk.Create("/d/f");
  ASSERT_TRUE(file->Allocate(4096).ok() && file->Sync().ok() && disk.SyncDirectory("/d").ok());
  ASSERT_TRUE(file->Write(0, std::string(4096, 'x')).ok());
  disk.FailAfter(0, absl::UnknownError("input/output error"));
  ASSERT_FALSE(file->Sync().ok());
  ASSERT_TRUE(file->Sync().ok()) << "the second one lies, as the kernel's does";
  EXPECT_EQ(disk.Content("/d/f"), std::string(4096, 'x'));
  EXPECT_NE(disk.AfterCrash(SimDisk::Fate::kKept, 0)->Content("/d/f"), std::string(4096, 'x'));
}

TEST(SimDisk, StopsAtAnOperation) {
  SimDisk disk({"/d"});
  auto file = *disk.Create("/d/f");
  disk.StopAfter(1);
  EXPECT_TRUE(file->Write(0, "a").ok());
  EXPECT_TRUE(absl::IsAborted(file->Write(1, "b")));
  EXPECT_TRUE(absl::IsAborted(file->Sync()));
  EXPECT_EQ(disk.Content("/d/f"), "a");
}

}  // namespace
}  // namespace quorate::storage
