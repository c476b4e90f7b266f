#include "services/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quorate::services {
namespace {

constexpr size_t kNone = std::string_view::npos;

TEST(Utf8, TakesEveryLengthOfCharacter) {
  EXPECT_EQ(FindInvalidUtf8(""), kNone);
  EXPECT_EQ(FindInvalidUtf8("plain"), kNone);
  EXPECT_EQ(FindInvalidUtf8(std::string("zero\0byte", 9)), kNone);
  EXPECT_EQ(FindInvalidUtf8("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80"), kNone);
  EXPECT_EQ(FindInvalidUtf8("\xEF\xBF\xBF \xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"), kNone);
}

// Every sequence of up to three bytes against a decoder that works the other way round: decode
// leniently, encode again, compare.
TEST(Utf8, AgreesWithAnEncoder) {
  const auto encode = [](uint32_t code) {
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
    } else {
      text = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
              static_cast<char>(0x80 | (code & 63))};
    }
    return text;
  };
  std::vector<bool> valid(1u << 24);
  for (uint32_t code = 0x800; code < 0x10000; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    const std::string text = encode(code);
    valid[static_cast<size_t>(static_cast<unsigned char>(text[0]) << 16 |
                              static_cast<unsigned char>(text[1]) << 8 |
                              static_cast<unsigned char>(text[2]))] = true;
  }
  for (uint32_t bytes = 0xE00000; bytes < 0xF00000; ++bytes) {
    const char text[3] = {static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8),
                          static_cast<char>(bytes)};
    ASSERT_EQ(Utf8SequenceLength(std::string_view(text, 3)) == 3, valid[bytes]) << bytes;
  }
  for (uint32_t code = 0; code < 0x800; ++code) {
    const std::string text = encode(code);
    ASSERT_EQ(Utf8SequenceLength(text), text.size()) << code;
  }
}

// --- Errors ---

TEST(Utf8, NamesTheFirstBadByte) {
  const struct {
    const char* text;
    size_t at;
    const char* why;
  } kCases[] = {
      {"a\x80", 1, "a continuation alone"},     {"\xC0\xAF", 0, "a longer form than needed"},
      {"\xC1\xBF", 0, "a longer form"},         {"ab\xC3", 2, "cut off"},
      {"\xE0\x9F\xBF", 0, "a longer form"},     {"\xED\xA0\x80", 0, "a surrogate"},
      {"\xF0\x8F\xBF\xBF", 0, "a longer form"}, {"\xF4\x90\x80\x80", 0, "above U+10FFFF"},
      {"\xF5\x80\x80\x80", 0, "no such lead"},  {"x\xFF", 1, "no such byte"},
      {"\xE2\x82 ", 0, "cut off by a blank"},
  };
  for (const auto& c : kCases) EXPECT_EQ(FindInvalidUtf8(c.text), c.at) << c.why;
}

}  // namespace
}  // namespace quorate::services
