// The identity file: what survives, what is refused, and that nothing is used before it is durable.
#include "storage/identity.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/storage/sim_disk.h"

namespace quorate::storage {
namespace {

constexpr char kPath[] = "/data/identity";
const StoreId kStore(0x0123456789abcdef);
const ClusterId kIdentityCluster(0xfeedfacecafebeef);

std::unique_ptr<IdentityFile> MustCreate(Disk* disk) {
  auto file = IdentityFile::Create(disk, kPath, "quorate-0", kStore);
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

std::unique_ptr<IdentityFile> MustOpen(Disk* disk) {
  auto file = IdentityFile::Open(disk, kPath, "quorate-0");
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

TEST(Identity, KeepsEverythingOverARestart) {
  SimDisk disk({"/data"});
  const std::string record("born\0\n\xff by three", 15);
  {
    auto file = MustCreate(&disk);
    EXPECT_EQ(file->current().store, kStore);
    EXPECT_EQ(file->current().cluster, ClusterId());
    EXPECT_EQ(*file->NextBoot(), 1u);
    EXPECT_TRUE(file->SetBirth("pledge").ok());
    EXPECT_TRUE(file->SetBorn(kIdentityCluster, record).ok());
    EXPECT_TRUE(file->SetLogMade().ok());
    EXPECT_TRUE(file->SetCaughtUpOnce().ok());
    EXPECT_TRUE(file->SetPromised(1500).ok());
  }
  auto after = disk.AfterCrash(SimDisk::Fate::kLost, 0);
  auto file = MustOpen(after.get());
  Identity identity = file->current();
  EXPECT_EQ(identity.node, "quorate-0");
  EXPECT_EQ(identity.store, kStore);
  EXPECT_EQ(identity.cluster, kIdentityCluster);
  EXPECT_EQ(identity.birth, record);
  EXPECT_TRUE(identity.log_made);
  EXPECT_TRUE(identity.caught_up_once);
  EXPECT_EQ(identity.promised_ms, 1500u);
  EXPECT_EQ(*file->NextBoot(), 2u);
}

TEST(Identity, IsReadableText) {
  Identity identity;
  identity.node = "a \"b\"";
  identity.store = StoreId(1);
  identity.boot = 3;
  identity.promised_ms = 150;
  identity.birth = "\x01z";
  const std::string text = EncodeIdentity(identity);
  EXPECT_EQ(text.substr(0, text.rfind("crc32c ")),
            "quorate identity 2\n"
            "node \"a \\\"b\\\"\"\n"
            "store 0000000000000001\n"
            "cluster 0000000000000000\n"
            "boot 3\n"
            "log_made 0\n"
            "caught_up_once 0\n"
            "promised_ms 150\n"
            "birth x017a\n");
  auto decoded = DecodeIdentity(text);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, identity);
}

TEST(Identity, OneOfFormat1IsOpenedAndBecomesOneOfThis) {
  SimDisk disk({"/data"});
  disk.Put(kPath,
           "quorate identity 1\n"
           "node \"quorate-0\"\n"
           "store 0123456789abcdef\n"
           "cluster feedfacecafebeef\n"
           "boot 7\n"
           "log_made 1\n"
           "caught_up_once 1\n"
           "birth x7265636f7264\n"
           "crc32c dc0555b3\n");
  {
    auto file = MustOpen(&disk);
    const Identity identity = file->current();
    EXPECT_EQ(identity.store, kStore);
    EXPECT_EQ(identity.cluster, kIdentityCluster);
    EXPECT_TRUE(identity.log_made && identity.caught_up_once);
    EXPECT_EQ(identity.birth, "record");
    EXPECT_EQ(identity.promised_ms, 0u) << "its builds promised nothing beyond their process";
    EXPECT_EQ(*file->NextBoot(), 8u);
  }
  EXPECT_TRUE(disk.Content(kPath).starts_with("quorate identity 2\n"));
  EXPECT_EQ(MustOpen(&disk)->current().boot, 8u);
}

// At whatever operation the machine stops, the file is the one before or the one after the change,
// and a change that was reported as done is there.
TEST(Identity, IsOldOrNewAfterACrashAnywhere) {
  for (auto fate : {SimDisk::Fate::kLost, SimDisk::Fate::kKept, SimDisk::Fate::kAnySome,
                    SimDisk::Fate::kLastOnly}) {
    for (int stop = 0; stop < 40; ++stop) {
      SCOPED_TRACE(testing::Message() << "fate " << static_cast<int>(fate) << " stop " << stop);
      SimDisk disk({"/data"});
      auto file = MustCreate(&disk);
      ASSERT_TRUE(file->NextBoot().ok());
      disk.StopAfter(stop);
      uint64_t acknowledged = 1;
      uint64_t tried = 1;
      for (int i = 0; i < 4; ++i) {
        ++tried;
        auto boot = file->NextBoot();
        if (!boot.ok()) break;
        acknowledged = *boot;
      }
      auto after = disk.AfterCrash(fate, static_cast<uint64_t>(stop));
      auto reopened = MustOpen(after.get());
      EXPECT_GE(reopened->current().boot, acknowledged);
      EXPECT_LE(reopened->current().boot, tried);
      // What a half-done change left behind does not stand in the next one's way.
      EXPECT_TRUE(reopened->NextBoot().ok());
    }
  }
}

// --- Refused ---

TEST(Identity, RefusesAFlippedBitAnywhere) {
  SimDisk disk({"/data"});
  auto file = MustCreate(&disk);
  ASSERT_TRUE(file->SetBorn(kIdentityCluster, "record").ok());
  const size_t size = disk.Content(kPath).size();
  for (size_t at = 0; at < size; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      disk.FlipBit(kPath, at, bit);
      auto opened = IdentityFile::Open(&disk, kPath, "quorate-0");
      ASSERT_EQ(opened.status().code(), absl::StatusCode::kDataLoss)
          << "byte " << at << " bit " << bit << ": " << opened.status();
      EXPECT_NE(std::string(opened.status().message()).find(kPath), std::string::npos);
      disk.FlipBit(kPath, at, bit);
    }
  }
  EXPECT_TRUE(IdentityFile::Open(&disk, kPath, "quorate-0").ok());
}

TEST(Identity, RefusesATruncatedOrLongerFile) {
  SimDisk disk({"/data"});
  MustCreate(&disk);
  const std::string text = disk.Content(kPath);
  for (size_t size = 0; size < text.size(); ++size) {
    disk.Put(kPath, text.substr(0, size));
    EXPECT_TRUE(absl::IsDataLoss(IdentityFile::Open(&disk, kPath, "").status())) << size;
  }
  disk.Put(kPath, text + "x");
  EXPECT_TRUE(absl::IsDataLoss(IdentityFile::Open(&disk, kPath, "").status()));
  disk.Put(kPath, std::string(1u << 20, 'x'));
  EXPECT_FALSE(IdentityFile::Open(&disk, kPath, "").ok());
}

TEST(Identity, RefusesAnotherNodesDirectory) {
  SimDisk disk({"/data"});
  MustCreate(&disk);
  auto opened = IdentityFile::Open(&disk, kPath, "quorate-1");
  ASSERT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
  EXPECT_EQ(std::string(opened.status().message()),
            "/data belongs to node quorate-0, this configuration says quorate-1; use its own "
            "directory or fix controlPlane.raft.nodeId");
  EXPECT_TRUE(IdentityFile::Open(&disk, kPath, "").ok()) << "offline tools take any node";
}

TEST(Identity, RefusesANewerFormatButTellsItFromDamage) {
  SimDisk disk({"/data"});
  // As a later version would write it: same first line and checksum, other lines.
  const std::string body = "quorate identity 3\nsomething else\n";
  disk.Put(kPath, body + "crc32c 00000000\n");
  EXPECT_TRUE(absl::IsDataLoss(IdentityFile::Open(&disk, kPath, "").status()));
  disk.Put(kPath, body + "crc32c f37e5e29\n");
  auto opened = IdentityFile::Open(&disk, kPath, "");
  ASSERT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
  EXPECT_NE(std::string(opened.status().message()).find("format version 3"), std::string::npos);
}

TEST(Identity, IsNotMadeTwice) {
  SimDisk disk({"/data"});
  MustCreate(&disk);
  auto again = IdentityFile::Create(&disk, kPath, "quorate-0", StoreId(2));
  EXPECT_TRUE(absl::IsAlreadyExists(again.status()));
  EXPECT_EQ(MustOpen(&disk)->current().store, kStore);
}

// --- Errors of the disk ---

TEST(Identity, AFailedChangeIsNotVisibleAndNothingIsTriedAfterIt) {
  for (int fail = 0; fail < 5; ++fail) {
    SCOPED_TRACE(fail);
    SimDisk disk({"/data"});
    auto file = MustCreate(&disk);
    ASSERT_EQ(*file->NextBoot(), 1u);
    disk.FailAfter(fail, absl::UnknownError("input/output error"));
    auto boot = file->NextBoot();
    ASSERT_FALSE(boot.ok());
    EXPECT_NE(std::string(boot.status().message()).find("identity"), std::string::npos);
    EXPECT_EQ(file->current().boot, 1u);
    const uint64_t operations = disk.operations();
    EXPECT_EQ(file->SetLogMade(), boot.status());
    EXPECT_EQ(disk.operations(), operations);
  }
}

TEST(Identity, SaysThatTheDiskIsFull) {
  SimDisk disk({"/data"});
  auto file = MustCreate(&disk);
  disk.SetCapacity(0);
  EXPECT_TRUE(absl::IsResourceExhausted(file->SetBirth(std::string(2000, 'x'))));
}

TEST(Identity, ReportsAReadErrorAsItIs) {
  SimDisk disk({"/data"});
  MustCreate(&disk);
  disk.FailReadAfter(0, absl::UnknownError("input/output error"));
  EXPECT_EQ(IdentityFile::Open(&disk, kPath, "").status(),
            absl::UnknownError(std::string("read ") + kPath + ": input/output error"));
}

TEST(IdentityDeathTest, AClusterNeverChanges) {
  SimDisk disk({"/data"});
  auto file = MustCreate(&disk);
  ASSERT_TRUE(file->SetCluster(kIdentityCluster).ok());
  EXPECT_TRUE(file->SetCluster(kIdentityCluster).ok());
  EXPECT_DEATH((void)file->SetCluster(ClusterId(5)), "CHECK failed");
}

}  // namespace
}  // namespace quorate::storage
