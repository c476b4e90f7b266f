// An export stays in its directory; an import reads files and nothing else.
#include "tools/tree.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quorate::tools {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

class TreeTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/tree_test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    around_ = pattern;  // who leaves the root shows here, and nobody else writes here
    root_ = around_ + "/root";
    fs::create_directory(root_);
  }
  void TearDown() override { fs::remove_all(around_); }

  void Make(const std::string& name, const std::string& bytes) {
    fs::create_directories(fs::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name, std::ios::binary) << bytes;
  }
  std::string Content(const std::string& name) {
    return ReadFile(root_ + "/" + name, 1 << 20).value();
  }
  TreeWriter Writer(bool overwrite = false) { return TreeWriter::Open(root_, overwrite).value(); }

  std::string around_, root_;
};

TEST_F(TreeTest, FilesAreFoundInTheOrderOfTheirNames) {
  Make("b", "1");
  Make("a/c", "22");
  Make("a.txt", "");
  const Tree tree = WalkTree(root_).value();
  ASSERT_EQ(tree.files.size(), 3u);
  EXPECT_EQ(tree.files[0].name, "a.txt");
  EXPECT_EQ(tree.files[1].name, "a/c");
  EXPECT_EQ(tree.files[1].size, 2u);
  EXPECT_EQ(tree.files[2].name, "b");
}

TEST_F(TreeTest, LinksAndSpecialFilesAreLeftOutByName) {
  Make("file", "x");
  fs::create_symlink("file", root_ + "/link");
  fs::create_directory_symlink("/", root_ + "/outside");
  ASSERT_EQ(mkfifo((root_ + "/pipe").c_str(), 0600), 0);
  const Tree tree = WalkTree(root_).value();
  EXPECT_EQ(tree.files.size(), 1u);
  ASSERT_EQ(tree.links.size(), 3u);
  EXPECT_EQ(tree.links[0].name, "link");
  EXPECT_EQ(tree.links[0].reason, "a symbolic link");
  EXPECT_EQ(tree.links[1].name, "outside");
  EXPECT_EQ(tree.links[2].reason, "a pipe");
}

TEST_F(TreeTest, WhatIsWrittenIsReadBackByteForByte) {
  const std::string bytes("\0\xff\r\n text", 9);
  TreeWriter writer = Writer();
  EXPECT_TRUE(writer.Write("a/b/c", bytes).ok());
  EXPECT_TRUE(writer.Write("a/b/empty", "").ok());
  EXPECT_TRUE(writer.Write("ünï cødé/-", "x").ok());
  EXPECT_EQ(Content("a/b/c"), bytes);
  EXPECT_EQ(Content("a/b/empty"), "");
  EXPECT_EQ(Content("ünï cødé/-"), "x");
}

TEST_F(TreeTest, KeysAreThePrefixAndTheName) {
  EXPECT_EQ(JoinKey("", "a/b"), "a/b");
  EXPECT_EQ(JoinKey("app", "a/b"), "app/a/b");
  EXPECT_EQ(JoinKey("app/", "a/b"), "app/a/b");
}

TEST_F(TreeTest, OverwritingReplacesFilesAndKeepsTheRest) {
  Make("a", "old");
  Make("other", "kept");
  EXPECT_TRUE(Writer(true).Write("a", "new").ok());
  EXPECT_EQ(Content("a"), "new");
  EXPECT_EQ(Content("other"), "kept");
}

// --- Errors ---

TEST_F(TreeTest, NoNameLeavesTheDirectory) {
  TreeWriter writer = Writer();
  const std::vector<std::pair<std::string, std::string>> names = {
      {"", "the prefix itself"},
      {"/etc/passwd", "begins with"},
      {"a/", "ends with"},
      {"a//b", "empty part"},
      {"..", "the part \"..\""},
      {"../x", "the part \"..\""},
      {"a/../../x", "the part \"..\""},
      {"a/..", "the part \"..\""},
      {".", "the part \".\""},
      {"a/./b", "the part \".\""},
      {std::string("a\0b", 3), "NUL"},
      {std::string(256, 'a'), "255 bytes"},
      {std::string(4001, 'a'), "too long"},
  };
  for (const auto& [name, why] : names) {
    const absl::Status status = writer.Write(name, "x");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << name;
  }
  EXPECT_THAT(WalkTree(root_)->files, IsEmpty());
  EXPECT_FALSE(fs::exists(around_ + "/x"));
  // These look like it and are plain names.
  EXPECT_TRUE(writer.Write("...", "x").ok());
  EXPECT_TRUE(writer.Write("a/..b", "x").ok());
}

TEST_F(TreeTest, AKeyThatIsAFileCannotBeADirectoryToo) {
  TreeWriter writer = Writer();
  EXPECT_TRUE(writer.Write("a", "x").ok());
  const absl::Status below = writer.Write("a/b", "y");
  EXPECT_EQ(below.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(below.message(), "`a` is a file and cannot be a directory, too");
  EXPECT_TRUE(writer.Write("d/e", "x").ok());
  EXPECT_EQ(writer.Write("d", "y").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Writer(true).Write("d", "y").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Content("a"), "x");
  EXPECT_EQ(Content("d/e"), "x");
}

TEST_F(TreeTest, LinksInTheWayAreNotFollowed) {
  fs::create_directories(root_ + "/out");
  fs::create_directories(root_ + "/in");
  fs::create_directory_symlink("../out", root_ + "/in/d");
  Make("victim", "safe");
  fs::create_symlink("../victim", root_ + "/in/f");
  TreeWriter writer = TreeWriter::Open(root_ + "/in", true).value();
  EXPECT_EQ(writer.Write("d/x", "y").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(WalkTree(root_ + "/out")->files, IsEmpty());
  // A link that is the file itself is replaced, not written through.
  EXPECT_TRUE(writer.Write("f", "y").ok());
  EXPECT_EQ(Content("victim"), "safe");
  EXPECT_EQ(Content("in/f"), "y");
}

TEST_F(TreeTest, OnlyAnEmptyDirectoryIsExportedTo) {
  Make("a", "old");
  const auto refused = TreeWriter::Open(root_, false);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("is not empty; name an empty"));
  EXPECT_FALSE(TreeWriter::Open(root_ + "/no/such", false).ok());
  EXPECT_FALSE(TreeWriter::Open(root_ + "/a", true).ok());
  EXPECT_TRUE(TreeWriter::Open(root_ + "/new", false).ok());
}

TEST_F(TreeTest, AnImportNeedsADirectory) {
  Make("a", "x");
  EXPECT_EQ(WalkTree(root_ + "/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(WalkTree(root_ + "/a").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TreeTest, LargeAndOddFilesAreNotRead) {
  Make("large", std::string(1025, 'x'));
  EXPECT_EQ(ReadFile(root_ + "/large", 1024).status().message(), "larger than 1.0 KiB");
  EXPECT_TRUE(ReadFile(root_ + "/large", 1025).ok());
  fs::create_symlink("large", root_ + "/link");
  EXPECT_FALSE(ReadFile(root_ + "/link", 4096).ok());
  ASSERT_EQ(mkfifo((root_ + "/pipe").c_str(), 0600), 0);  // and nobody writes to it
  EXPECT_EQ(ReadFile(root_ + "/pipe", 4096).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(ReadFile(root_, 4096).ok());
}

}  // namespace
}  // namespace quorate::tools
