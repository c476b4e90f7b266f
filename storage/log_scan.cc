#include "storage/log_scan.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace quorate::storage {
namespace {

// Reads records from the header on until `limit` or the first offset without a valid one.
// Breaks of the chain are errors wherever they are: no crash makes them.
absl::StatusOr<SegmentRecords> ReadRecords(const LoadedSegment& segment, uint64_t limit) {
  SegmentRecords found;
  found.end = segment.length;
  found.crc = segment.crc;
  found.synced_through = segment.header.born_end;
  uint64_t stated = 0;
  while (found.end < limit) {
    Record record;
    if (ParseRecord(*segment.bytes, 0, segment.key(), found.end, &record) != Parse::kRecord) break;
    if (record.previous != found.crc) {
      return CorruptionError(segment.path, record.offset,
                             "a valid record that does not follow the one before it");
    }
    if (record.synced_through > record.offset || record.synced_through < stated) {
      return CorruptionError(segment.path, record.offset, "a record that contradicts itself");
    }
    stated = record.synced_through;
    found.synced_through = std::max(found.synced_through, stated);
    found.end = record.end;
    found.crc = record.crc;
    found.records.push_back(record);
  }
  return found;
}

// The offset of a record header behind `damage` that says that `damage` had been durable.
std::optional<uint64_t> FindWitness(const LoadedSegment& segment, uint64_t damage) {
  const std::string& bytes = *segment.bytes;
  for (uint64_t at = damage + 8; at + kRecordHeaderBytes <= bytes.size(); at += 8) {
    std::optional<uint64_t> statement = StatementAt(bytes, 0, segment.key(), at);
    if (statement && *statement > damage) return at;
  }
  return std::nullopt;
}

uint64_t WrittenEnd(const std::string& bytes) {
  // By blocks: a young segment is megabytes of zeroes, and byte by byte they were most of what a
  // start under a sanitizer costs.
  static constexpr std::array<char, 4096> kZeroes{};
  std::string_view rest = bytes;
  while (rest.ends_with(std::string_view(kZeroes.data(), kZeroes.size()))) {
    rest.remove_suffix(kZeroes.size());
  }
  const size_t last = rest.find_last_not_of('\0');
  return last == std::string_view::npos ? 0 : last + 1;
}

absl::Status CheckIds(const LoadedSegment& segment, const ScanOptions& options) {
  const SegmentHeader& header = segment.header;
  if (options.store && header.store != *options.store) {
    return absl::FailedPreconditionError(absl::StrCat(segment.path, " belongs to store ",
                                                      ToHex(header.store), ", this is store ",
                                                      ToHex(*options.store)));
  }
  if (options.cluster && header.cluster != *options.cluster) {
    return absl::FailedPreconditionError(
        absl::StrCat(segment.path, " belongs to cluster ", ToHex(header.cluster),
                     ", this store is of cluster ", ToHex(*options.cluster)));
  }
  return absl::OkStatus();
}

// Replays one segment's records into the scan. From `rewrite_from` on they are not indexed: they
// will lie elsewhere.
class Replay {
 public:
  Replay(LogScan* scan, const LoadedSegment& segment) : scan_(scan), segment_(segment) {}

  absl::Status Apply(const Record& record, bool indexed) {
    if (scan_->state.ReachesBeforeBeginning(record)) reaches_before_ = true;
    if (absl::Status s = scan_->state.ApplyRecord(record); !s.ok()) {
      return CorruptionError(segment_.path, record.offset, std::string(s.message()));
    }
    if (record.cured_at) {
      scan_->cured.push_back(
          absl::StrCat(segment_.path, ": offset ", *record.cured_at,
                       ": one copy of term and vote is damaged, the other good"));
    }
    switch (record.type) {
      case RecordType::kEntry: {
        const EntryHead entry = *DecodeEntryHead(record.body);
        if (indexed) scan_->index.Append(entry.index, segment_.header.sequence, record.offset);
        scan_->tail.Append(entry.index, entry.payload.size() + raft::Entry().bytes());
        break;
      }
      case RecordType::kCut:
        if (indexed) {
          scan_->index.Cut(*DecodeCut(record.body));
          scan_->segments.Cut(*DecodeCut(record.body));
        }
        scan_->tail.Cut(*DecodeCut(record.body));
        break;
      case RecordType::kGeneration:
        if (indexed) scan_->segments.Generation(scan_->state.generation().index);
        // What the record's meaning left of the log: nothing, or what is behind the generation.
        if (scan_->state.last_index() < scan_->state.first_index()) {
          scan_->tail.Cut(raft::Index(0));
          if (indexed) scan_->index.Cut(raft::Index(0));
        } else if (indexed) {
          scan_->index.DropThrough(scan_->state.generation().index);
        }
        break;
      default:
        break;
    }
    return absl::OkStatus();
  }

  // The error that Apply returned means that the log cannot begin where it was taken to begin.
  bool reaches_before() const { return reaches_before_; }

 private:
  LogScan* const scan_;
  const LoadedSegment& segment_;
  bool reaches_before_ = false;
};

absl::Status ReplayNewest(LogScan* scan, const SegmentRecords& found, bool* too_early) {
  scan->rewrite_from = found.synced_through;
  for (const Record& record : found.records) {
    if (record.cured_at) scan->rewrite_from = std::min(scan->rewrite_from, record.offset);
  }
  Replay replay(scan, scan->newest);
  uint32_t crc = scan->newest.crc;
  uint64_t border = scan->newest.length;
  bool rewriting = false;
  for (const Record& record : found.records) {
    if (!rewriting && record.offset >= scan->rewrite_from) {
      scan->rewrite_state = scan->state;
      scan->rewrite_crc = crc;
      rewriting = true;
    }
    absl::Status s = replay.Apply(record, /*indexed=*/!rewriting);
    *too_early = replay.reaches_before();
    if (!s.ok()) return s;
    crc = record.crc;
    if (!rewriting) border = record.end;
    if (rewriting && record.type != RecordType::kMark && record.type != RecordType::kFiller) {
      scan->rewrite.push_back(record);
    }
  }
  if (!rewriting) {
    scan->rewrite_state = scan->state;
    scan->rewrite_crc = crc;
  }
  if (border != scan->rewrite_from) {
    return CorruptionError(scan->newest.path, scan->rewrite_from,
                           "stated as the end of a record, and is none");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CorruptionError(const std::string& path, uint64_t offset, const std::string& what) {
  return absl::DataLossError(absl::StrCat(path, ": offset ", offset, ": ", what));
}

absl::StatusOr<LogFiles> ListLog(Disk* disk, const std::string& directory) {
  absl::StatusOr<std::vector<std::string>> names = disk->List(directory);
  if (!names.ok()) return names.status();
  LogFiles files;
  for (const std::string& name : *names) {
    if (absl::EndsWith(name, ".log.new")) {
      files.leftovers.push_back(JoinPath(directory, name));
      continue;
    }
    if (!absl::EndsWith(name, ".log")) continue;
    std::optional<uint64_t> sequence = ParseSegmentName(name);
    if (!sequence) {
      return absl::FailedPreconditionError(
          absl::StrCat(JoinPath(directory, name), " is no segment of a log; move it away"));
    }
    files.sequences.push_back(*sequence);
  }
  for (size_t i = 1; i < files.sequences.size(); ++i) {
    if (files.sequences[i] != files.sequences[i - 1] + 1) {
      return CorruptionError(JoinPath(directory, SegmentName(files.sequences[i - 1] + 1)), 0,
                             "the segment is missing");
    }
  }
  if (files.sequences.empty()) {
    return absl::NotFoundError(absl::StrCat(directory, " holds no log"));
  }
  return files;
}

absl::StatusOr<LoadedSegment> LoadSegment(Disk* disk, const std::string& directory,
                                          uint64_t sequence, bool header_only) {
  LoadedSegment segment;
  segment.path = JoinPath(directory, SegmentName(sequence));
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Open(segment.path, Disk::Mode::kRead);
  if (!file.ok()) return file.status();
  absl::StatusOr<uint64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  segment.file_bytes = *size;
  absl::StatusOr<std::string> bytes =
      (*file)->Read(0, header_only ? std::min<uint64_t>(*size, kSegmentHeaderBytesMax) : *size);
  if (!bytes.ok()) return bytes.status();
  segment.bytes = std::make_shared<const std::string>(*std::move(bytes));
  absl::StatusOr<DecodedSegmentHeader> decoded = DecodeSegmentHeader(*segment.bytes);
  if (!decoded.ok()) {
    return absl::Status(decoded.status().code(),
                        absl::StrCat(segment.path, ": offset 0: ", decoded.status().message()));
  }
  if (decoded->header.sequence != sequence) {
    return CorruptionError(segment.path, 0,
                           absl::StrCat("the header is of segment ", decoded->header.sequence));
  }
  segment.header = std::move(decoded->header);
  segment.length = decoded->length;
  segment.crc = decoded->crc;
  return segment;
}

absl::StatusOr<SegmentRecords> ReadNewestSegment(const LoadedSegment& segment) {
  if (segment.file_bytes < segment.header.file_bytes) {
    return CorruptionError(segment.path, segment.file_bytes,
                           absl::StrCat("the file ends here, and had ", segment.header.file_bytes,
                                        " bytes before anything was appended to it"));
  }
  absl::StatusOr<SegmentRecords> found = ReadRecords(segment, segment.bytes->size());
  if (!found.ok()) return found.status();
  const uint64_t end = found->end;
  found->written_end = std::max(end, WrittenEnd(*segment.bytes));
  if (end < segment.header.born_end) {
    return CorruptionError(segment.path, end,
                           "no valid record, where the segment was durable before its birth");
  }
  if (found->written_end == end) return found;  // zeroes from here on: a clean end
  if (std::optional<uint64_t> witness = FindWitness(segment, end)) {
    return CorruptionError(segment.path, end,
                           absl::StrCat("no valid record; the one at offset ", *witness,
                                        " says that this was durable"));
  }
  return found;
}

absl::StatusOr<SegmentRecords> ReadSealedSegment(const LoadedSegment& segment,
                                                 const SegmentHeader& successor) {
  absl::StatusOr<SegmentRecords> found = ReadRecords(segment, successor.previous_end);
  if (!found.ok()) return found.status();
  // `previous_end` may lie in front of `born_end`: recovery leaves the segment where a pair of term
  // and vote has a bad copy, also one that an earlier recovery has rewritten into it.
  if (found->end != successor.previous_end) {
    return CorruptionError(segment.path, std::min(found->end, successor.previous_end),
                           absl::StrCat("no valid record; the next segment says that this one is "
                                        "good up to offset ",
                                        successor.previous_end));
  }
  if (found->crc != successor.previous_crc) {
    return CorruptionError(segment.path, found->end,
                           "the next segment does not follow the last record here");
  }
  found->written_end = found->end;
  return found;
}

void EntryTail::Append(raft::Index index, size_t bytes) {
  entries_.emplace_back(index, bytes);
  bytes_ += bytes;
  while (bytes_ > bytes_max_ && !entries_.empty()) {
    bytes_ -= entries_.front().second;
    entries_.pop_front();
  }
}

void EntryTail::Cut(raft::Index from) {
  while (!entries_.empty() && entries_.back().first >= from) {
    bytes_ -= entries_.back().second;
    entries_.pop_back();
  }
}

std::optional<raft::Index> EntryTail::first() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.front().first;
}

namespace {

absl::StatusOr<std::vector<SegmentHeader>> LoadHeaders(Disk* disk, const std::string& directory,
                                                       const std::vector<uint64_t>& sequences,
                                                       const ScanOptions& options) {
  std::vector<SegmentHeader> headers;
  for (uint64_t sequence : sequences) {
    absl::StatusOr<LoadedSegment> head = LoadSegment(disk, directory, sequence, true);
    if (!head.ok()) return head.status();
    if (absl::Status s = CheckIds(*head, options); !s.ok()) return s;
    if (!headers.empty() &&
        (head->header.store != headers[0].store || head->header.cluster != headers[0].cluster)) {
      return CorruptionError(head->path, 0, "of another store or cluster than the first segment");
    }
    headers.push_back(std::move(head->header));
  }
  return headers;
}

// Scans a log that begins with the segment number `front` of those that are there. *too_early: the
// error means that it cannot be first.
absl::StatusOr<std::unique_ptr<LogScan>> ScanFrom(Disk* disk, const std::string& directory,
                                                  const ScanOptions& options, const LogFiles& files,
                                                  const std::vector<SegmentHeader>& headers,
                                                  size_t front, bool* too_early) {
  auto scan = std::make_unique<LogScan>();
  scan->tail = EntryTail(options.window_bytes);
  scan->files = files;
  const std::vector<uint64_t>& sequences = scan->files.sequences;
  scan->passed_over.assign(sequences.begin(), sequences.begin() + static_cast<ptrdiff_t>(front));
  for (size_t i = front; i < sequences.size(); ++i) {
    absl::StatusOr<LoadedSegment> segment = LoadSegment(disk, directory, sequences[i], false);
    if (!segment.ok()) return segment.status();
    if (i == front) {
      absl::StatusOr<LogState> start = LogState::FromHeader(segment->header);
      if (!start.ok())
        return CorruptionError(segment->path, 0, std::string(start.status().message()));
      scan->state = *std::move(start);
    } else if (absl::Status s = scan->state.CheckHeader(segment->header); !s.ok()) {
      return CorruptionError(segment->path, 0, std::string(s.message()));
    }
    scan->segments.Begin(segment->header.sequence, segment->header.prev_index,
                         segment->header.previous_end);
    const bool newest = i + 1 == sequences.size();
    absl::StatusOr<SegmentRecords> found =
        newest ? ReadNewestSegment(*segment) : ReadSealedSegment(*segment, headers[i + 1]);
    if (!found.ok()) return found.status();
    if (newest) {
      scan->newest = *segment;
      scan->written_end = found->written_end;
      scan->torn_bytes = found->torn_bytes();
      if (absl::Status s = ReplayNewest(scan.get(), *found, too_early); !s.ok()) return s;
    } else {
      Replay replay(scan.get(), *segment);
      for (const Record& record : found->records) {
        absl::Status s = replay.Apply(record, /*indexed=*/true);
        *too_early = replay.reaches_before();
        if (!s.ok()) return s;
      }
    }
    if (options.observer) options.observer(*segment, *found, scan->state);
  }
  return scan;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogScan>> ScanLog(Disk* disk, const std::string& directory,
                                                 const ScanOptions& options) {
  absl::StatusOr<LogFiles> files = ListLog(disk, directory);
  if (!files.ok()) return files.status();
  absl::StatusOr<std::vector<SegmentHeader>> headers =
      LoadHeaders(disk, directory, files->sequences, options);
  if (!headers.ok()) return headers.status();
  // Nearly always the first one; only the newest must be able to stand alone.
  for (size_t front = 0;; ++front) {
    bool too_early = false;
    absl::StatusOr<std::unique_ptr<LogScan>> scan =
        ScanFrom(disk, directory, options, *files, *headers, front, &too_early);
    if (scan.ok() || !too_early || front + 1 == files->sequences.size()) return scan;
  }
}

absl::Status CheckApplied(const LogState& log, const std::string& directory,
                          raft::Index state_applied) {
  if (log.last_index() < state_applied) {
    return absl::DataLossError(absl::StrCat(
        directory, ": the log ends at entry ", log.last_index().value(),
        ", the database has applied entry ", state_applied.value(), ": the log has lost entries"));
  }
  if (log.first_index() > state_applied + 1) {
    return absl::DataLossError(
        absl::StrCat(directory, ": the log begins at entry ", log.first_index().value(),
                     ", the database has applied only up to entry ", state_applied.value(),
                     ": the entries between are lost"));
  }
  return absl::OkStatus();
}

}  // namespace quorate::storage
