// Runs every script of tests/ingress/testdata and compares the conversation byte for byte. With
// QUORATE_UPDATE_GOLDEN=1 in the environment the files are rewritten instead: read the diff.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/ingress/watch_world.h"

namespace quorate::ingress::testing {
namespace {

std::filesystem::path Folder() {
  return std::filesystem::path(QUORATE_SOURCE_DIR) / "tests/ingress/testdata";
}

std::vector<std::string> Scripts() {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(Folder())) {
    if (file.path().extension() == ".txt") names.push_back(file.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class WatchGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(WatchGolden, ConversationIsTheSame) {
  const auto path = Folder() / (GetParam() + ".txt");
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  const std::string actual = WatchScript().Run(text.str());
  if (std::getenv("QUORATE_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(path) << actual;
    return;
  }
  EXPECT_EQ(actual, text.str());
}

INSTANTIATE_TEST_SUITE_P(Scripts, WatchGolden, ::testing::ValuesIn(Scripts()),
                         [](const auto& info) { return info.param; });

TEST(WatchGoldenScripts, AreThere) { EXPECT_GE(Scripts().size(), 8u); }

TEST(WatchGoldenScripts, AChangedConversationIsSeen) {
  const std::string text = "watch a prefix=\n----\nnothing happens\n\n";
  EXPECT_NE(WatchScript().Run(text), text);
}

}  // namespace
}  // namespace quorate::ingress::testing
