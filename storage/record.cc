#include "storage/record.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "storage/crc32c.h"
#include "storage/record_bytes.h"

namespace quorate::storage {
namespace {

constexpr uint32_t kMagic = 0x43455251;  // "QREC"
constexpr size_t kHeaderCrcAt = 4;
constexpr size_t kLengthAt = 8;
constexpr size_t kTypeAt = 12;
constexpr size_t kBodyCrcAt = 16;
constexpr size_t kPreviousAt = 20;
constexpr size_t kSyncedThroughAt = 24;
constexpr size_t kEntryHeadBytes = 40;
constexpr size_t kHardStateBodyBytes = 32;
constexpr uint64_t kHardStateCopyBytes = kRecordHeaderBytes + kHardStateBodyBytes;
constexpr size_t kGenerationHeadBytes = 24;

uint64_t PaddedBytes(uint64_t body) { return RoundUp(body, 8); }

uint32_t HeaderCrc(const SegmentKey& key, uint64_t offset, std::string_view header) {
  std::string place;
  AppendNumber(&place, key.store.value());
  AppendNumber(&place, key.sequence);
  AppendNumber(&place, offset);
  return Crc32c(header.substr(kLengthAt, kRecordHeaderBytes - kLengthAt), Crc32c(place));
}

// How much filler stands behind what ends at `end`, so that the next record shares no block with
// it. A filler is at least its own header.
uint64_t FillerBytes(uint64_t end) {
  const uint64_t gap = RoundUp(end, kBlockBytes) - end;
  return gap == 0 ? 0 : std::max<uint64_t>(gap, kRecordHeaderBytes);
}

uint64_t SecondCopyAt(uint64_t pair) {
  const uint64_t end = pair + kHardStateCopyBytes;
  return end + FillerBytes(end);
}

struct HardStateBody {
  raft::HardState state;
  uint32_t copy = 0;
  uint32_t previous = 0;  // the chain before the pair
  uint64_t pair = 0;      // the pair's offset
};

std::string EncodeHardStateBody(const HardStateBody& body) {
  std::string out;
  AppendNumber(&out, body.state.term.value());
  AppendNumber(&out, body.state.vote.value());
  AppendNumber(&out, body.copy);
  AppendNumber(&out, body.previous);
  AppendNumber(&out, body.pair);
  return out;
}

std::optional<HardStateBody> DecodeHardStateBody(std::string_view body) {
  if (body.size() != kHardStateBodyBytes) return std::nullopt;
  HardStateBody decoded;
  decoded.state.term = raft::Term(GetNumber<uint64_t>(body, 0));
  decoded.state.vote = StoreId(GetNumber<uint64_t>(body, 8));
  decoded.copy = GetNumber<uint32_t>(body, 16);
  decoded.previous = GetNumber<uint32_t>(body, 20);
  decoded.pair = GetNumber<uint64_t>(body, 24);
  return decoded;
}

// The header at `offset`, if a valid one stands there whole.
std::optional<std::string_view> ValidHeader(std::string_view bytes, uint64_t base,
                                            const SegmentKey& key, uint64_t offset) {
  const uint64_t at = offset - base;
  if (at > bytes.size() || bytes.size() - at < kRecordHeaderBytes) return std::nullopt;
  std::string_view header = bytes.substr(at, kRecordHeaderBytes);
  if (GetNumber<uint32_t>(header, 0) != kMagic) return std::nullopt;
  if (GetNumber<uint32_t>(header, kHeaderCrcAt) != HeaderCrc(key, offset, header)) {
    return std::nullopt;
  }
  return header;
}

// One record as it stands on disk; of a hard state, one copy.
Parse ParseOne(std::string_view bytes, uint64_t base, const SegmentKey& key, uint64_t offset,
               Record* record) {
  std::optional<std::string_view> header = ValidHeader(bytes, base, key, offset);
  if (!header) return Parse::kInvalid;
  const uint32_t length = GetNumber<uint32_t>(*header, kLengthAt);
  if (length > kRecordBodyBytesMax) return Parse::kInvalid;
  record->offset = offset;
  record->end = offset + kRecordHeaderBytes + PaddedBytes(length);
  if (record->end > base + bytes.size()) return Parse::kNeedMore;
  std::string_view padded = bytes.substr(offset - base + kRecordHeaderBytes, PaddedBytes(length));
  if (GetNumber<uint32_t>(*header, kBodyCrcAt) != Crc32c(padded)) return Parse::kInvalid;
  record->type = static_cast<RecordType>((*header)[kTypeAt]);
  record->synced_through = GetNumber<uint64_t>(*header, kSyncedThroughAt);
  record->previous = GetNumber<uint32_t>(*header, kPreviousAt);
  record->crc = GetNumber<uint32_t>(*header, kHeaderCrcAt);
  record->body = padded.substr(0, length);
  record->cured_at.reset();
  return Parse::kRecord;
}

// Completes `record`, which is a good copy of the pair at `pair`: computes what all of the pair
// must be and compares.
Parse CompletePair(std::string_view bytes, uint64_t base, const SegmentKey& key,
                   const HardStateBody& body, Record* record) {
  RecordEncoder encoder(key, body.pair, body.previous);
  encoder.AddHardState(body.state, record->synced_through);
  record->offset = body.pair;
  record->end = encoder.offset();
  record->previous = body.previous;
  record->crc = encoder.crc();
  if (record->end > base + bytes.size()) return Parse::kNeedMore;
  const std::string expected = encoder.Take();
  std::string_view found = bytes.substr(body.pair - base, expected.size());
  auto [wrong, unused] = std::mismatch(found.begin(), found.end(), expected.begin());
  if (wrong != found.end()) {
    record->cured_at = body.pair + static_cast<uint64_t>(wrong - found.begin());
  }
  return Parse::kRecord;
}

}  // namespace

uint64_t EntryRecordBytes(const raft::Entry& entry) {
  return kRecordHeaderBytes + PaddedBytes(kEntryHeadBytes + entry.payload.size());
}

uint64_t HardStateRecordBytes(uint64_t offset) {
  return SecondCopyAt(offset) + kHardStateCopyBytes - offset;
}

uint64_t MarkRecordBytes(uint64_t offset) { return FillerBytes(offset) + kRecordHeaderBytes; }
uint64_t GenerationRecordBytes(const Generation& generation) {
  return kRecordHeaderBytes + PaddedBytes(kGenerationHeadBytes + generation.membership.size());
}

void RecordEncoder::AddRaw(RecordType type, std::string_view body, uint64_t synced_through) {
  CHECK(body.size() <= kRecordBodyBytesMax);
  CHECK(offset_ % 8 == 0 && synced_through <= offset_);
  const size_t start = bytes_.size();
  AppendNumber(&bytes_, kMagic);
  AppendNumber(&bytes_, uint32_t{0});  // the header's checksum, below
  AppendNumber(&bytes_, static_cast<uint32_t>(body.size()));
  AppendNumber(&bytes_, static_cast<uint32_t>(type));
  AppendNumber(&bytes_, uint32_t{0});  // the body's, below
  AppendNumber(&bytes_, crc_);
  AppendNumber(&bytes_, synced_through);
  bytes_.append(body);
  bytes_.resize(start + kRecordHeaderBytes + PaddedBytes(body.size()), '\0');
  std::string_view written = std::string_view(bytes_).substr(start);
  PutNumber(&bytes_, start + kBodyCrcAt, Crc32c(written.substr(kRecordHeaderBytes)));
  crc_ = HeaderCrc(key_, offset_, written.substr(0, kRecordHeaderBytes));
  PutNumber(&bytes_, start + kHeaderCrcAt, crc_);
  offset_ += written.size();
}

void RecordEncoder::AddEntry(const raft::Entry& entry, uint64_t synced_through) {
  std::string body;
  body.reserve(kEntryHeadBytes + entry.payload.size());
  AppendNumber(&body, entry.index.value());
  AppendNumber(&body, entry.term.value());
  AppendNumber(&body, static_cast<uint64_t>(entry.type));
  AppendNumber(&body, entry.log_time_ms);
  AppendNumber(&body, entry.wall_time_ms);
  body += entry.payload;
  AddRaw(RecordType::kEntry, body, synced_through);
}

void RecordEncoder::AddFillerToNextBlock(uint64_t synced_through) {
  const uint64_t bytes = FillerBytes(offset_);
  if (bytes == 0) return;
  AddRaw(RecordType::kFiller, std::string(bytes - kRecordHeaderBytes, '\0'), synced_through);
}

void RecordEncoder::AddHardState(const raft::HardState& state, uint64_t synced_through) {
  HardStateBody body{state, 1, crc_, offset_};
  AddRaw(RecordType::kHardState, EncodeHardStateBody(body), synced_through);
  AddFillerToNextBlock(synced_through);
  CHECK(offset_ == SecondCopyAt(body.pair));
  body.copy = 2;
  AddRaw(RecordType::kHardState, EncodeHardStateBody(body), synced_through);
}

void RecordEncoder::AddCut(raft::Index from, uint64_t synced_through) {
  std::string body;
  AppendNumber(&body, from.value());
  AddRaw(RecordType::kCut, body, synced_through);
}

void RecordEncoder::AddMark(uint64_t synced_through) {
  AddFillerToNextBlock(synced_through);
  AddRaw(RecordType::kMark, "", synced_through);
}

void RecordEncoder::AddGeneration(const Generation& generation, uint64_t synced_through) {
  std::string body;
  AppendNumber(&body, generation.generation);
  AppendNumber(&body, generation.index.value());
  AppendNumber(&body, generation.term.value());
  body += generation.membership;
  AddRaw(RecordType::kGeneration, body, synced_through);
}

std::string RecordEncoder::Take() { return std::exchange(bytes_, std::string()); }

Parse ParseRecord(std::string_view bytes, uint64_t base, const SegmentKey& key, uint64_t offset,
                  Record* record) {
  CHECK(base <= offset);
  const Parse first = ParseOne(bytes, base, key, offset, record);
  if (first == Parse::kNeedMore) return first;
  if (first == Parse::kRecord) {
    if (record->type != RecordType::kHardState) return first;
    std::optional<HardStateBody> body = DecodeHardStateBody(record->body);
    if (!body || body->copy != 1 || body->pair != offset || body->previous != record->previous) {
      return Parse::kInvalid;
    }
    return CompletePair(bytes, base, key, *body, record);
  }
  // Nothing valid here; but if this is the place of a pair, its second copy says what stood here.
  Record second;
  if (ParseOne(bytes, base, key, SecondCopyAt(offset), &second) != Parse::kRecord ||
      second.type != RecordType::kHardState) {
    return Parse::kInvalid;
  }
  std::optional<HardStateBody> body = DecodeHardStateBody(second.body);
  if (!body || body->copy != 2 || body->pair != offset) return Parse::kInvalid;
  *record = second;
  return CompletePair(bytes, base, key, *body, record);
}

std::optional<uint64_t> StatementAt(std::string_view bytes, uint64_t base, const SegmentKey& key,
                                    uint64_t offset) {
  std::optional<std::string_view> header = ValidHeader(bytes, base, key, offset);
  if (!header) return std::nullopt;
  return GetNumber<uint64_t>(*header, kSyncedThroughAt);
}

std::optional<EntryHead> DecodeEntryHead(std::string_view body) {
  if (body.size() < kEntryHeadBytes) return std::nullopt;
  const uint64_t type = GetNumber<uint64_t>(body, 16);
  if (type < static_cast<uint64_t>(raft::EntryType::kNoop) ||
      type > static_cast<uint64_t>(raft::EntryType::kBirthComplete)) {
    return std::nullopt;
  }
  EntryHead head;
  head.index = raft::Index(GetNumber<uint64_t>(body, 0));
  head.term = raft::Term(GetNumber<uint64_t>(body, 8));
  head.type = static_cast<raft::EntryType>(type);
  head.payload = body.substr(kEntryHeadBytes);
  return head;
}

std::optional<raft::Entry> DecodeEntry(std::string_view body) {
  std::optional<EntryHead> head = DecodeEntryHead(body);
  if (!head) return std::nullopt;
  raft::Entry entry;
  entry.index = head->index;
  entry.term = head->term;
  entry.type = head->type;
  entry.log_time_ms = GetNumber<uint64_t>(body, 24);
  entry.wall_time_ms = GetNumber<int64_t>(body, 32);
  entry.payload = std::string(head->payload);
  return entry;
}

std::optional<raft::HardState> DecodeHardState(std::string_view body) {
  std::optional<HardStateBody> decoded = DecodeHardStateBody(body);
  if (!decoded) return std::nullopt;
  return decoded->state;
}

std::optional<raft::Index> DecodeCut(std::string_view body) {
  if (body.size() != 8) return std::nullopt;
  return raft::Index(GetNumber<uint64_t>(body, 0));
}

std::optional<Generation> DecodeGeneration(std::string_view body) {
  if (body.size() < kGenerationHeadBytes) return std::nullopt;
  Generation generation;
  generation.generation = GetNumber<uint64_t>(body, 0);
  generation.index = raft::Index(GetNumber<uint64_t>(body, 8));
  generation.term = raft::Term(GetNumber<uint64_t>(body, 16));
  generation.membership = std::string(body.substr(kGenerationHeadBytes));
  return generation;
}

}  // namespace quorate::storage
