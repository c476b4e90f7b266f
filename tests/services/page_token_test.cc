#include "services/page_token.h"

#include <gtest/gtest.h>

#include <set>

#include "services/errors.h"

namespace quorate::services {
namespace {

const PageToken kToken = {.cluster = ClusterId(0x1122334455667788),
                          .restores = 0,
                          .revision = Revision(42),
                          .shape = ListingShape("a/", false),
                          .after = "a/key \xC3\xA9"};

grpc::Status Decode(const std::string& text, PageToken* token) {
  return DecodePageToken(text, kToken.cluster, 0, kToken.shape, token);
}

void ExpectRefused(const grpc::Status& status, const std::string& why) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "PAGE_TOKEN_INVALID");
  EXPECT_EQ(DetailsOf(status).metadata["field"], "page_token");
  EXPECT_NE(status.error_message().find(why), std::string::npos) << status.error_message();
}

TEST(PageToken, ComesBackAsItWas) {
  PageToken token;
  ASSERT_TRUE(Decode(EncodePageToken(kToken), &token).ok());
  EXPECT_EQ(token, kToken);
}

TEST(PageToken, HoldsAKeyOfEveryLength) {
  for (size_t size = 1; size <= 1024; ++size) {
    PageToken sent = kToken;
    sent.after = std::string(size, 'k');
    PageToken read;
    const std::string text = EncodePageToken(sent);
    EXPECT_LE(text.size(), 2048u);
    ASSERT_TRUE(Decode(text, &read).ok()) << size;
    EXPECT_EQ(read.after, sent.after);
  }
}

TEST(PageToken, IsTextThatNeedsNoEscape) {
  for (const char c : EncodePageToken(kToken)) {
    EXPECT_TRUE(isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_') << c;
  }
}

TEST(PageToken, AShapeIsPrefixAndKeysOnly) {
  const std::set<uint64_t> shapes = {ListingShape("", false), ListingShape("", true),
                                     ListingShape("a", false), ListingShape("a", true),
                                     ListingShape("a/", false)};
  EXPECT_EQ(shapes.size(), 5u);
}

// --- Errors ---

TEST(PageToken, EveryChangedCharacterIsFound) {
  const std::string good = EncodePageToken(kToken);
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char c : {'A', 'b', '7', '-', '_', '!', '='}) {
      if (good[i] == c) continue;
      std::string bad = good;
      bad[i] = c;
      PageToken token;
      EXPECT_FALSE(Decode(bad, &token).ok()) << i << c;
    }
  }
}

TEST(PageToken, EveryCutIsFound) {
  const std::string good = EncodePageToken(kToken);
  PageToken token;
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(Decode(good.substr(0, size), &token).ok()) << size;
  }
  EXPECT_FALSE(Decode(good + "A", &token).ok());
  EXPECT_FALSE(Decode(good + good, &token).ok());
}

TEST(PageToken, SaysWhatItDoesNotBelongTo) {
  const std::string good = EncodePageToken(kToken);
  PageToken token;
  ExpectRefused(DecodePageToken(good, ClusterId(1), 0, kToken.shape, &token), "another cluster");
  ExpectRefused(DecodePageToken(good, kToken.cluster, 1, kToken.shape, &token), "a restore");
  ExpectRefused(DecodePageToken(good, kToken.cluster, 0, ListingShape("b/", false), &token),
                "another prefix");
  ExpectRefused(DecodePageToken(good, kToken.cluster, 0, ListingShape("a/", true), &token),
                "keys_only");
  ExpectRefused(Decode("hello", &token), "no page token");
  ExpectRefused(Decode("", &token), "no page token");
  std::string flipped = good;
  flipped[20] = flipped[20] == 'A' ? 'B' : 'A';
  ExpectRefused(Decode(flipped, &token), "damaged");
}

}  // namespace
}  // namespace quorate::services
