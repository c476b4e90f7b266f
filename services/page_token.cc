#include "services/page_token.h"

#include <xxhash.h>

#include <optional>

#include "base/check.h"
#include "services/errors.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

constexpr char kFormat = 1;
constexpr size_t kFixedBytes = 1 + 4 * 8;
constexpr size_t kChecksumBytes = 4;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void AppendNumber(uint64_t value, size_t bytes, std::string* out) {
  for (size_t i = 0; i < bytes; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t ReadNumber(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

uint64_t Checksum(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size()) & UINT32_MAX;
}

std::string EncodeBase64Url(std::string_view bytes) {
  std::string text;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : bytes) {
    bits = bits << 8 | static_cast<unsigned char>(c);
    for (held += 8; held >= 6; held -= 6) text.push_back(kAlphabet[bits >> (held - 6) & 63]);
  }
  if (held > 0) text.push_back(kAlphabet[bits << (6 - held) & 63]);
  return text;
}

// nullopt for anything that EncodeBase64Url cannot have made.
std::optional<std::string> DecodeBase64Url(std::string_view text) {
  std::string bytes;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    const size_t digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<char>(bits >> held));
    }
  }
  // What is left over must be less than a digit, and zero.
  if (held >= 6 || (bits & ((1u << held) - 1)) != 0) return std::nullopt;
  return bytes;
}

grpc::Status Invalid(std::string_view why) {
  return MakeFieldError("PAGE_TOKEN_INVALID", "page_token",
                        std::string(why) + "; begin the listing again without it");
}

}  // namespace

uint64_t ListingShape(std::string_view prefix, bool keys_only) {
  return XXH3_64bits_withSeed(prefix.data(), prefix.size(), keys_only ? 1 : 0);
}

uint64_t HistoryShape(std::string_view key) {
  return XXH3_64bits_withSeed(key.data(), key.size(), 2);
}

std::string EncodePageToken(const PageToken& token) {
  CHECK(!token.after.empty() && token.after.size() <= kKeyBytesMax);
  std::string bytes(1, kFormat);
  AppendNumber(token.cluster.value(), 8, &bytes);
  AppendNumber(token.restores, 8, &bytes);
  AppendNumber(token.revision.value(), 8, &bytes);
  AppendNumber(token.shape, 8, &bytes);
  bytes.append(token.after);
  AppendNumber(Checksum(bytes), kChecksumBytes, &bytes);
  return EncodeBase64Url(bytes);
}

grpc::Status DecodePageToken(std::string_view text, ClusterId cluster, uint64_t restores,
                             uint64_t shape, PageToken* token) {
  const std::optional<std::string> decoded = DecodeBase64Url(text);
  if (!decoded || decoded->size() < kFixedBytes + 1 + kChecksumBytes ||
      decoded->size() > kFixedBytes + kKeyBytesMax + kChecksumBytes) {
    return Invalid("is no page token");
  }
  const std::string_view bytes(*decoded);
  const size_t body = bytes.size() - kChecksumBytes;
  if (ReadNumber(bytes.substr(body)) != Checksum(bytes.substr(0, body))) {
    return Invalid("is damaged");
  }
  if (bytes[0] != kFormat) return Invalid("is of another version of Quorate");
  PageToken read;
  read.cluster = ClusterId(ReadNumber(bytes.substr(1, 8)));
  read.restores = ReadNumber(bytes.substr(9, 8));
  read.revision = Revision(ReadNumber(bytes.substr(17, 8)));
  read.shape = ReadNumber(bytes.substr(25, 8));
  read.after = std::string(bytes.substr(kFixedBytes, body - kFixedBytes));
  if (read.cluster != cluster) return Invalid("is of another cluster");
  if (read.restores != restores) return Invalid("is from before a restore");
  if (read.shape != shape) return Invalid("is of a listing with another prefix or keys_only");
  *token = std::move(read);
  return grpc::Status::OK;
}

}  // namespace quorate::services
