#include "base/ids.h"

#include <gtest/gtest.h>

namespace quorate {
namespace {

TEST(Ids, PrintAsSixteenLowerCaseHexadecimalDigits) {
  EXPECT_EQ(ToHex(StoreId(0)), "0000000000000000");
  EXPECT_EQ(ToHex(StoreId(0xabc)), "0000000000000abc");
  EXPECT_EQ(ToHex(ClusterId(UINT64_MAX)), "ffffffffffffffff");
}

TEST(Ids, ParseWhatTheyPrint) {
  for (const uint64_t value :
       {uint64_t{0}, uint64_t{1}, uint64_t{0x0123456789abcdef}, UINT64_MAX}) {
    EXPECT_EQ(ParseHex(ToHex(value)), value);
  }
}

TEST(Ids, RefuseAnythingElse) {
  EXPECT_EQ(ParseHex(""), std::nullopt);
  EXPECT_EQ(ParseHex("123"), std::nullopt);
  EXPECT_EQ(ParseHex("0123456789ABCDEF"), std::nullopt);
  EXPECT_EQ(ParseHex("0123456789abcdeg"), std::nullopt);
  EXPECT_EQ(ParseHex("0x23456789abcdef"), std::nullopt);
  EXPECT_EQ(ParseHex("0123456789abcdef0"), std::nullopt);
}

}  // namespace
}  // namespace quorate
