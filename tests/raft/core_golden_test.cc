// Runs every script of tests/raft/testdata and compares the conversation byte for byte. With
// QUORATE_UPDATE_GOLDEN=1 in the environment the files are rewritten instead: read the diff.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/raft/core_script.h"

namespace quorate::raft::testing {
namespace {

std::filesystem::path Folder() {
  return std::filesystem::path(QUORATE_SOURCE_DIR) / "tests/raft/testdata";
}

std::vector<std::string> Scripts() {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(Folder())) {
    if (file.path().extension() == ".txt") names.push_back(file.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, ConversationIsTheSame) {
  const auto path = Folder() / (GetParam() + ".txt");
  const std::string expected = ReadAll(path);
  const std::string actual = Script().Run(expected);
  if (std::getenv("QUORATE_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << actual;
    return;
  }
  EXPECT_EQ(actual, expected);
}

INSTANTIATE_TEST_SUITE_P(Scripts, Golden, ::testing::ValuesIn(Scripts()),
                         [](const auto& info) { return info.param; });

TEST(GoldenScripts, CoverTheChapters) { EXPECT_GE(Scripts().size(), 15u); }

// --- The engine itself ---

TEST(GoldenScripts, AChangedConversationIsSeen) {
  const std::string text = "cluster a\nstart\ncampaign a\n----\nnothing happens\n\n";
  EXPECT_NE(Script().Run(text), text);
}

TEST(GoldenScripts, ProseAndCommandsAreKept) {
  const std::string text = "# Prose.\n\n# More.\ncluster a b c\n----\n\nstart\n----\n";
  EXPECT_EQ(Script().Run(text), text);
}

}  // namespace
}  // namespace quorate::raft::testing
