#include "base/check.h"

#include <string>

#include <gtest/gtest.h>

namespace quorate {
namespace {

TEST(Check, PassesAndEvaluatesTheConditionOnce) {
  int evaluated = 0;
  CHECK(++evaluated == 1);
  EXPECT_EQ(evaluated, 1);
}

TEST(Check, BuildsTheMessageOnlyOnFailure) {
  int built = 0;
  const auto message = [&built] {
    ++built;
    return std::string("never");
  };
  CHECK(built == 0, message());
  EXPECT_EQ(built, 0);
}

TEST(Check, CountsAsOneStatement) {
  // An `else` must bind to the `if` that the reader sees.
  bool otherwise = false;
  if (otherwise)
    CHECK(false);
  else
    otherwise = true;
  EXPECT_TRUE(otherwise);
}

TEST(CheckDeathTest, AbortsNamingFileLineAndCondition) {
  const int term = 3;
  EXPECT_DEATH(CHECK(term == 4), "CHECK failed: .*check_test\\.cc:[0-9]+: term == 4");
}

TEST(CheckDeathTest, PrintsTheMessage) {
  EXPECT_DEATH(CHECK(1 == 2, "commit went back from " + std::to_string(9)),
               "1 == 2: commit went back from 9");
}

}  // namespace
}  // namespace quorate
