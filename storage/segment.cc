#include "storage/segment.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "storage/crc32c.h"
#include "storage/record_bytes.h"

namespace quorate::storage {
namespace {

constexpr std::string_view kSegmentMagic = "QUORALOG";
constexpr size_t kVersionAt = 8;
constexpr size_t kHeaderLengthAt = 12;
constexpr size_t kCrcAt = 16;
constexpr size_t kFixedBytes = 144;
constexpr std::string_view kSuffix = ".log";
constexpr size_t kNameDigits = 10;

// The checksum with its own field taken as zero.
uint32_t ComputeCrc(std::string_view bytes) {
  uint32_t crc = Crc32c(bytes.substr(0, kCrcAt));
  crc = Crc32c(std::string_view("\0\0\0\0", 4), crc);
  return Crc32c(bytes.substr(kCrcAt + 4), crc);
}

}  // namespace

uint64_t SegmentHeaderLength(const SegmentHeader& header) {
  return RoundUp(kFixedBytes + header.membership.size() + header.generation.membership.size(),
                 kBlockBytes);
}

std::string EncodeSegmentHeader(const SegmentHeader& header) {
  const uint64_t length = SegmentHeaderLength(header);
  CHECK(length <= kSegmentHeaderBytesMax);
  std::string out(kSegmentMagic);
  AppendNumber(&out, kLogFormatVersion);
  AppendNumber(&out, static_cast<uint32_t>(length));
  AppendNumber(&out, uint32_t{0});  // the checksum, below
  AppendNumber(&out, header.previous_crc);
  AppendNumber(&out, header.store.value());
  AppendNumber(&out, header.cluster.value());
  AppendNumber(&out, header.sequence);
  AppendNumber(&out, header.previous_end);
  AppendNumber(&out, header.born_end);
  AppendNumber(&out, header.file_bytes);
  AppendNumber(&out, header.hard_state.term.value());
  AppendNumber(&out, header.hard_state.vote.value());
  AppendNumber(&out, header.prev_index.value());
  AppendNumber(&out, header.prev_term.value());
  AppendNumber(&out, header.membership_index.value());
  AppendNumber(&out, header.generation.generation);
  AppendNumber(&out, header.generation.index.value());
  AppendNumber(&out, header.generation.term.value());
  AppendNumber(&out, static_cast<uint32_t>(header.membership.size()));
  AppendNumber(&out, static_cast<uint32_t>(header.generation.membership.size()));
  CHECK(out.size() == kFixedBytes);
  out += header.membership;
  out += header.generation.membership;
  out.resize(length, '\0');
  PutNumber(&out, kCrcAt, ComputeCrc(out));
  return out;
}

uint32_t SegmentHeaderCrc(std::string_view encoded) { return GetNumber<uint32_t>(encoded, kCrcAt); }

absl::StatusOr<DecodedSegmentHeader> DecodeSegmentHeader(std::string_view bytes) {
  if (bytes.size() < kBlockBytes) {
    return absl::DataLossError("the segment's header is cut short");
  }
  if (bytes.substr(0, kSegmentMagic.size()) != kSegmentMagic) {
    return absl::DataLossError("no segment header where one must be");
  }
  const uint32_t length = GetNumber<uint32_t>(bytes, kHeaderLengthAt);
  if (length == 0 || length % kBlockBytes != 0 || length > kSegmentHeaderBytesMax ||
      length > bytes.size() ||
      ComputeCrc(bytes.substr(0, length)) != GetNumber<uint32_t>(bytes, kCrcAt)) {
    return absl::DataLossError("the segment's header has a wrong checksum");
  }
  const uint32_t version = GetNumber<uint32_t>(bytes, kVersionAt);
  if (version != kLogFormatVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the log has format version ", version, ", this build knows ",
                     kLogFormatVersion, "; use the build that wrote it, or a newer one"));
  }
  DecodedSegmentHeader decoded;
  decoded.length = length;
  decoded.crc = GetNumber<uint32_t>(bytes, kCrcAt);
  SegmentHeader& header = decoded.header;
  header.previous_crc = GetNumber<uint32_t>(bytes, 20);
  header.store = StoreId(GetNumber<uint64_t>(bytes, 24));
  header.cluster = ClusterId(GetNumber<uint64_t>(bytes, 32));
  header.sequence = GetNumber<uint64_t>(bytes, 40);
  header.previous_end = GetNumber<uint64_t>(bytes, 48);
  header.born_end = GetNumber<uint64_t>(bytes, 56);
  header.file_bytes = GetNumber<uint64_t>(bytes, 64);
  header.hard_state.term = raft::Term(GetNumber<uint64_t>(bytes, 72));
  header.hard_state.vote = StoreId(GetNumber<uint64_t>(bytes, 80));
  header.prev_index = raft::Index(GetNumber<uint64_t>(bytes, 88));
  header.prev_term = raft::Term(GetNumber<uint64_t>(bytes, 96));
  header.membership_index = raft::Index(GetNumber<uint64_t>(bytes, 104));
  header.generation.generation = GetNumber<uint64_t>(bytes, 112);
  header.generation.index = raft::Index(GetNumber<uint64_t>(bytes, 120));
  header.generation.term = raft::Term(GetNumber<uint64_t>(bytes, 128));
  const uint64_t membership = GetNumber<uint32_t>(bytes, 136);
  const uint64_t generation_membership = GetNumber<uint32_t>(bytes, 140);
  if (kFixedBytes + membership + generation_membership > length || header.born_end < length ||
      header.file_bytes < header.born_end) {
    return absl::DataLossError("the segment's header contradicts itself");
  }
  header.membership = std::string(bytes.substr(kFixedBytes, membership));
  header.generation.membership =
      std::string(bytes.substr(kFixedBytes + membership, generation_membership));
  return decoded;
}

std::string SegmentName(uint64_t sequence) {
  return absl::StrFormat("%0*d%s", static_cast<int>(kNameDigits), sequence, std::string(kSuffix));
}

std::optional<uint64_t> ParseSegmentName(std::string_view name) {
  if (name.size() != kNameDigits + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
  uint64_t sequence = 0;
  for (char c : name.substr(0, kNameDigits)) {
    if (c < '0' || c > '9') return std::nullopt;
    sequence = sequence * 10 + static_cast<uint64_t>(c - '0');
  }
  return sequence == 0 ? std::nullopt : std::optional<uint64_t>(sequence);
}

}  // namespace quorate::storage
