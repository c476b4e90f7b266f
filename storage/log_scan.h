// Reads a log as recovery does, changing nothing: which records count, where the log ends, and what
// is damage (storage/LOG_FORMAT.md, "Reading a segment"). Shared by Log::Open and the offline
// tools. Errors about content are kDataLoss and name file and offset.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/disk.h"
#include "storage/log_cut.h"
#include "storage/log_index.h"
#include "storage/log_state.h"
#include "storage/record.h"
#include "storage/segment.h"

namespace quorate::storage {

absl::Status CorruptionError(const std::string& path, uint64_t offset, const std::string& what);

struct LogFiles {
  std::vector<uint64_t> sequences;     // ascending, without gaps
  std::vector<std::string> leftovers;  // paths of segments that were never born
};
// kNotFound: no segment at all. kDataLoss: one in the middle is missing.
absl::StatusOr<LogFiles> ListLog(Disk* disk, const std::string& directory);

// A segment in memory, with a header that was found good.
struct LoadedSegment {
  std::string path;
  std::shared_ptr<const std::string> bytes;  // all of the file, or only its header
  uint64_t file_bytes = 0;
  SegmentHeader header;
  uint64_t length = 0;  // of the header
  uint32_t crc = 0;     // of the header
  SegmentKey key() const { return {header.store, header.sequence}; }
};
absl::StatusOr<LoadedSegment> LoadSegment(Disk* disk, const std::string& directory,
                                          uint64_t sequence, bool header_only);

// The records of one segment that are part of the log; they point into its bytes.
struct SegmentRecords {
  std::vector<Record> records;
  uint64_t end = 0;             // where the log leaves the segment, or ends
  uint32_t crc = 0;             // of the last record there, or of the header
  uint64_t synced_through = 0;  // the highest stated; at least the header's born_end
  uint64_t written_end = 0;     // behind the last byte that is not zero
  uint64_t torn_bytes() const { return written_end > end ? written_end - end : 0; }
};
absl::StatusOr<SegmentRecords> ReadNewestSegment(const LoadedSegment& segment);
// `successor` is the next segment's header: it says where this one ends, and with which CRC.
absl::StatusOr<SegmentRecords> ReadSealedSegment(const LoadedSegment& segment,
                                                 const SegmentHeader& successor);

// The last entries that fit in so many bytes, by index and size only.
class EntryTail {
 public:
  explicit EntryTail(size_t bytes_max) : bytes_max_(bytes_max) {}
  void Append(raft::Index index, size_t bytes);
  void Cut(raft::Index from);
  std::optional<raft::Index> first() const;

 private:
  size_t bytes_max_;
  size_t bytes_ = 0;
  std::deque<std::pair<raft::Index, size_t>> entries_;
};

struct LogScan {
  LogFiles files;
  LogState state;  // of the whole log

  // What recovery rewrites: the newest segment from `rewrite_from` on.
  LoadedSegment newest;
  uint64_t rewrite_from = 0;
  uint32_t rewrite_crc = 0;     // of the record before
  LogState rewrite_state;       // of the log before
  std::vector<Record> rewrite;  // into newest.bytes
  uint64_t written_end = 0;
  uint64_t torn_bytes = 0;

  LogIndex index;        // of the entries before rewrite_from
  SegmentList segments;  // of what was not passed over, as of rewrite_from
  // Segments in front that an interrupted removal left and that cannot be first: to be removed.
  std::vector<uint64_t> passed_over;
  EntryTail tail{0};
  std::vector<std::string> cured;  // what second copies had to help out with, to print
};

struct ScanOptions {
  std::optional<StoreId> store;  // refuse any other (kFailedPrecondition)
  std::optional<ClusterId> cluster;
  size_t window_bytes = 0;  // for LogScan::tail
  // Told of each segment once its records were found good and their meaning applied.
  std::function<void(const LoadedSegment&, const SegmentRecords&, const LogState&)> observer;
};

absl::StatusOr<std::unique_ptr<LogScan>> ScanLog(Disk* disk, const std::string& directory,
                                                 const ScanOptions& options);

// Whether a log fits a state machine that holds everything up to `state_applied`.
absl::Status CheckApplied(const LogState& log, const std::string& directory,
                          raft::Index state_applied);

}  // namespace quorate::storage
