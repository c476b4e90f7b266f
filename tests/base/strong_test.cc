#include "base/strong.h"

#include <type_traits>
#include <unordered_set>

#include <gtest/gtest.h>

namespace quorate {
namespace {

using Apple = Strong<struct AppleTag>;
using Pear = Strong<struct PearTag>;

// What must not compile, said in a form that does.
static_assert(!std::is_convertible_v<uint64_t, Apple>);
static_assert(!std::is_convertible_v<Apple, uint64_t>);
static_assert(!std::is_constructible_v<Apple, Pear>);
static_assert(sizeof(Apple) == sizeof(uint64_t));
static_assert(std::is_trivially_copyable_v<Apple>);

TEST(Strong, IsZeroAndFalseUntilSet) {
  EXPECT_EQ(Apple().value(), 0u);
  EXPECT_FALSE(Apple());
  EXPECT_TRUE(Apple(1));
}

TEST(Strong, OrdersLikeTheNumber) {
  EXPECT_LT(Apple(1), Apple(2));
  EXPECT_GE(Apple(2), Apple(2));
  EXPECT_EQ(Apple(7), Apple(7));
  EXPECT_NE(Apple(7), Apple(8));
  EXPECT_GT(Apple(UINT64_MAX), Apple(UINT64_MAX - 1));
}

TEST(Strong, CountsPositionsAndDistances) {
  Apple at(10);
  EXPECT_EQ(at + 5, Apple(15));
  EXPECT_EQ(at - 5, Apple(5));
  EXPECT_EQ(Apple(15) - at, 5u);
  EXPECT_EQ(++at, Apple(11));
  EXPECT_EQ(at, Apple(11));
}

TEST(Strong, PrintsAndHashes) {
  EXPECT_EQ(ToString(Apple(UINT64_MAX)), "18446744073709551615");
  std::unordered_set<Apple> apples{Apple(1), Apple(2), Apple(1)};
  EXPECT_EQ(apples.size(), 2u);
}

}  // namespace
}  // namespace quorate
