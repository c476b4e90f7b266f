// Segments of the log: their names and their header (storage/LOG_FORMAT.md, "Segment header").
// Values only; nothing here does I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "raft/core/types.h"

namespace quorate::storage {

inline constexpr uint32_t kLogFormatVersion = 1;
inline constexpr size_t kBlockBytes = 4096;
inline constexpr size_t kSegmentHeaderBytesMax = 256u << 10;

// The log starts after `index`: its entries up to there are in state-<generation>.
struct Generation {
  uint64_t generation = 0;  // 0: none
  raft::Index index;
  raft::Term term;
  std::string membership;  // encoded; in force at `index`
  friend bool operator==(const Generation&, const Generation&) = default;
};

struct SegmentHeader {
  StoreId store;
  ClusterId cluster;
  uint64_t sequence = 0;
  uint32_t previous_crc = 0;
  uint64_t previous_end = 0;  // where the log leaves the previous segment
  uint64_t born_end = 0;      // durable up to here before the file had its name
  uint64_t file_bytes = 0;    // at birth
  raft::HardState hard_state;
  raft::Index prev_index;  // the entry before its first
  raft::Term prev_term;
  raft::Index membership_index;
  std::string membership;  // encoded; empty: none
  Generation generation;
  friend bool operator==(const SegmentHeader&, const SegmentHeader&) = default;
};

struct DecodedSegmentHeader {
  SegmentHeader header;
  uint64_t length = 0;  // the first record's offset
  uint32_t crc = 0;     // what the first record's chain names
};

uint64_t SegmentHeaderLength(const SegmentHeader& header);
std::string EncodeSegmentHeader(const SegmentHeader& header);
// The checksum that EncodeSegmentHeader put in.
uint32_t SegmentHeaderCrc(std::string_view encoded);

// From a segment's first kSegmentHeaderBytesMax bytes (or all of a shorter file). kDataLoss when
// damaged, kFailedPrecondition for another format version; the caller adds the file's name.
absl::StatusOr<DecodedSegmentHeader> DecodeSegmentHeader(std::string_view bytes);

// 0000000012.log, and back; nullopt for any other name.
std::string SegmentName(uint64_t sequence);
std::optional<uint64_t> ParseSegmentName(std::string_view name);

}  // namespace quorate::storage
