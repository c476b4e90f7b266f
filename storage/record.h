// Records of the log, written and read (storage/LOG_FORMAT.md, "Records"). Values only; nothing
// here does I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "raft/core/types.h"
#include "storage/segment.h"

namespace quorate::storage {

// Numbers are on disk: never reuse one.
enum class RecordType : uint8_t {
  kEntry = 1,
  kHardState = 2,  // both copies and the filler between them are one record to all but this file
  kCut = 3,
  kMark = 4,
  kFiller = 5,
  kGeneration = 6,
};

inline constexpr size_t kRecordHeaderBytes = 32;
inline constexpr size_t kRecordBodyBytesMax = 256u << 20;

// What a record's checksum binds it to, beside its offset.
struct SegmentKey {
  StoreId store;
  uint64_t sequence = 0;
};

// How long the next record would be, at an offset.
uint64_t EntryRecordBytes(const raft::Entry& entry);
uint64_t HardStateRecordBytes(uint64_t offset);
uint64_t MarkRecordBytes(uint64_t offset);
uint64_t GenerationRecordBytes(const Generation& generation);
inline constexpr uint64_t kCutRecordBytes = kRecordHeaderBytes + 8;

// Encodes records that follow each other in one segment.
class RecordEncoder {
 public:
  // The next record begins at `offset`; its chain names `crc`.
  RecordEncoder(SegmentKey key, uint64_t offset, uint32_t crc)
      : key_(key), offset_(offset), crc_(crc) {}

  // `synced_through` is where the segment was durable when this was called.
  void AddEntry(const raft::Entry& entry, uint64_t synced_through);
  void AddHardState(const raft::HardState& state, uint64_t synced_through);
  void AddCut(raft::Index from, uint64_t synced_through);
  // In a block of its own: with filler in front where needed.
  void AddMark(uint64_t synced_through);
  void AddGeneration(const Generation& generation, uint64_t synced_through);
  // A record whose body is encoded already (recovery copies them).
  void AddRaw(RecordType type, std::string_view body, uint64_t synced_through);

  uint64_t offset() const { return offset_; }  // where the next record begins
  uint32_t crc() const { return crc_; }        // what its chain will name
  // What was encoded since the last call; it ends at offset().
  std::string Take();

 private:
  // Filler up to the next block, so that what follows shares none with what is in front.
  void AddFillerToNextBlock(uint64_t synced_through);

  const SegmentKey key_;
  uint64_t offset_;
  uint32_t crc_;
  std::string bytes_;
};

struct Record {
  RecordType type = RecordType::kFiller;
  uint64_t offset = 0;
  uint64_t end = 0;
  uint64_t synced_through = 0;
  uint32_t previous = 0;  // what its chain names
  uint32_t crc = 0;       // what the next record's chain must name
  std::string_view body;  // into the bytes that it was read from
  // Hard state of which one copy (or the filler) is damaged: the first byte that is not as it
  // should be. Absent: all is well.
  std::optional<uint64_t> cured_at;
};

enum class Parse {
  kRecord,
  kInvalid,   // no valid record stands there
  kNeedMore,  // a valid header, but the record ends behind the bytes given: at Record::end
};

// Reads the record at `offset` of a segment, of which `bytes` are those from `base` on.
// REQUIRES: base <= offset.
Parse ParseRecord(std::string_view bytes, uint64_t base, const SegmentKey& key, uint64_t offset,
                  Record* record);

// The synced_through of a valid record *header* at `offset`, whatever became of its body.
std::optional<uint64_t> StatementAt(std::string_view bytes, uint64_t base, const SegmentKey& key,
                                    uint64_t offset);

// Bodies. nullopt: not as the encoder writes them.
std::optional<raft::Entry> DecodeEntry(std::string_view body);
// Index, term and type only, with the payload as a view.
struct EntryHead {
  raft::Index index;
  raft::Term term;
  raft::EntryType type;
  std::string_view payload;
};
std::optional<EntryHead> DecodeEntryHead(std::string_view body);
std::optional<raft::HardState> DecodeHardState(std::string_view body);
std::optional<raft::Index> DecodeCut(std::string_view body);
std::optional<Generation> DecodeGeneration(std::string_view body);

}  // namespace quorate::storage
