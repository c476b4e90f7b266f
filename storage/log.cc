// The log's writer and reader, and recovery's second half: the new segment that every start makes.
// The first half, what counts and what is damage, is log_scan.cc.
#include "storage/log.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "storage/log_index.h"
#include "storage/log_scan.h"
#include "storage/log_state.h"
#include "storage/record.h"
#include "storage/record_bytes.h"
#include "storage/segment.h"

namespace quorate::storage {
namespace {

// Written zeroes stay this far ahead of the log's end, so that most flushes have no freshly
// allocated extents to convert (measured: a flush of 4 KiB takes 147 us instead of 194).
constexpr uint64_t kZeroAheadBytes = 1u << 20;

constexpr size_t kReadPieceMin = 64u << 10;
constexpr size_t kReadPieceMax = 1u << 20;

class LogImpl final : public Log {
 public:
  LogImpl(Disk* disk, const LogOptions& options) : disk_(disk), options_(options) {}

  // A first segment, or after ScanLog the next one.
  absl::Status Begin();
  absl::Status Continue(LogScan* scan);

  absl::Status Append(const raft::Persist& persist) override;
  absl::Status Sync() override;
  bool WantsMark() const override { return failed_.ok() && content_synced_ > vouched_; }
  absl::Status WriteMark() override;
  absl::StatusOr<std::vector<raft::EntryPtr>> Read(raft::Index from, raft::Index last,
                                                   size_t bytes) override;
  absl::StatusOr<raft::Index> CutPrefix(raft::Index through, uint64_t keep_bytes) override;
  raft::Index first_index() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return first_index_;
  }
  raft::Index TailStart(uint64_t bytes) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::max(first_index_, segments_.TailBegin(bytes, written_seen_) + 1);
  }

 private:
  // What readers must learn once the bytes are written.
  struct Change {
    enum { kEntry, kCut, kDrop } kind = kEntry;
    raft::Index index;  // stands at `offset`; gone with all after it; gone with all before it
    uint64_t offset = 0;
  };
  struct SegmentStart {
    uint64_t sequence = 1;
    uint32_t previous_crc = 0;
    uint64_t previous_end = 0;
  };

  SegmentKey key() const { return {options_.store, sequence_}; }
  std::string PathOf(uint64_t sequence) const {
    return JoinPath(options_.directory, SegmentName(sequence));
  }
  // Keeps the first error for all later calls.
  absl::Status Fail(const absl::Status& status) {
    if (failed_.ok()) failed_ = status;
    return failed_;
  }

  // Makes the segment `start`, its header saying what state_ says, with `records` behind it, which
  // are applied to state_; from then on it is the one that is appended to. It has room for
  // `reserve` more bytes.
  absl::Status StartSegment(const SegmentStart& start, const std::vector<Record>& records,
                            uint64_t reserve);
  // A file that has its name only once `bytes` are durable in it.
  absl::StatusOr<std::unique_ptr<DiskFile>> BirthFile(const std::string& path,
                                                      std::string_view bytes, uint64_t file_bytes);
  // Makes room for a record of `bytes`: in this segment or, synced, the next.
  absl::Status MakeRoom(uint64_t bytes);
  // Writes what is encoded; then readers see it.
  absl::Status Flush();
  absl::Status ZeroAhead(DiskFile* file, uint64_t end, uint64_t file_bytes);
  void Publish(const std::vector<Change>& changes, uint64_t sequence);
  absl::Status AppendAll(const raft::Persist& persist);
  absl::Status AppendInstall(const raft::InstallRecord& install);
  template <typename Change>
  void ChangeSegments(Change change) {
    std::lock_guard<std::mutex> lock(mutex_);
    change(segments_);
  }
  // How readers learn of the generation record that state_ has just been told of.
  Change ChangeOfGeneration() const;
  absl::Status ReadExtent(const LogIndex::Extent& extent, raft::Index next, raft::Index last,
                          size_t bytes_max, std::vector<raft::EntryPtr>* out, size_t* bytes);

  Disk* const disk_;
  const LogOptions options_;

  // Of the appending thread.
  absl::Status failed_;
  LogState state_;          // of everything encoded
  bool mark_next_ = false;  // a generation record is to be vouched for at once
  uint64_t sequence_ = 0;
  std::unique_ptr<DiskFile> file_;
  uint64_t file_bytes_ = 0;
  std::optional<RecordEncoder> encoder_;
  std::vector<Change> changes_;  // encoded, not yet written
  uint64_t written_ = 0;         // where what is written to the segment ends
  uint64_t zeroed_ = 0;          // where written zeroes end
  // Offsets in this segment; everything in earlier ones is synced and vouched for.
  uint64_t synced_ = 0;          // durable up to here
  uint64_t vouched_ = 0;         // a durable record says that it was durable up to here
  uint64_t content_ = 0;         // end of the last record that is no mark
  uint64_t content_synced_ = 0;  // the same, of those that are durable

  mutable std::mutex mutex_;  // protects what follows; held for lookups only, never for I/O
  LogIndex index_;            // of everything written
  raft::Index first_index_{1};
  raft::Index last_index_;
  uint64_t cuts_ = 0;  // how often entries were taken back or dropped in front
  SegmentList segments_;
  uint64_t written_seen_ = 0;  // where what is written to the newest segment ends
};

absl::Status LogImpl::Begin() { return StartSegment({}, {}, 0); }

absl::Status LogImpl::Continue(LogScan* scan) {
  state_ = scan->rewrite_state;
  index_ = std::move(scan->index);
  segments_ = std::move(scan->segments);
  SegmentStart start;
  start.sequence = scan->newest.header.sequence + 1;
  start.previous_crc = scan->rewrite_crc;
  start.previous_end = scan->rewrite_from;
  if (absl::Status s = StartSegment(start, scan->rewrite, 0); !s.ok()) return s;

  // The new segment is durable: what the old one had reserved is free again. Written bytes stay,
  // for whoever must find out what happened.
  const uint64_t keep = RoundUp(scan->written_end, kBlockBytes);
  if (keep >= scan->newest.file_bytes) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<DiskFile>> old =
      disk_->Open(scan->newest.path, Disk::Mode::kReadWrite);
  if (!old.ok()) return old.status();
  return (*old)->Truncate(keep);
}

absl::Status LogImpl::StartSegment(const SegmentStart& start, const std::vector<Record>& records,
                                   uint64_t reserve) {
  SegmentHeader header;
  header.store = options_.store;
  header.cluster = options_.cluster;
  header.sequence = start.sequence;
  header.previous_crc = start.previous_crc;
  header.previous_end = start.previous_end;
  state_.ToHeader(&header);
  ChangeSegments([&](SegmentList& segments) {
    segments.Begin(start.sequence, header.prev_index, start.previous_end);
  });
  const uint64_t length = SegmentHeaderLength(header);
  header.born_end = length;
  for (const Record& record : records) {
    header.born_end += record.type == RecordType::kHardState
                           ? HardStateRecordBytes(header.born_end)
                           : kRecordHeaderBytes + RoundUp(record.body.size(), 8);
  }
  header.file_bytes = std::max<uint64_t>(
      options_.segment_bytes, RoundUp(header.born_end + reserve + 4 * kBlockBytes, kBlockBytes));

  std::string bytes = EncodeSegmentHeader(header);
  RecordEncoder encoder({options_.store, start.sequence}, length, SegmentHeaderCrc(bytes));
  std::vector<Change> changes;
  for (const Record& record : records) {
    absl::Status applied = state_.ApplyRecord(record);
    CHECK(applied.ok(), std::string(applied.message()));
    if (record.type == RecordType::kHardState) {
      encoder.AddHardState(*DecodeHardState(record.body), length);
      continue;
    }
    if (record.type == RecordType::kEntry) {
      changes.push_back({Change::kEntry, DecodeEntryHead(record.body)->index, encoder.offset()});
    } else if (record.type == RecordType::kCut) {
      changes.push_back({Change::kCut, *DecodeCut(record.body), 0});
      ChangeSegments([&](SegmentList& segments) { segments.Cut(*DecodeCut(record.body)); });
    } else if (record.type == RecordType::kGeneration) {
      changes.push_back(ChangeOfGeneration());
      ChangeSegments(
          [&](SegmentList& segments) { segments.Generation(state_.generation().index); });
    }
    encoder.AddRaw(record.type, record.body, length);
  }
  CHECK(encoder.offset() == header.born_end);
  bytes += encoder.Take();

  absl::StatusOr<std::unique_ptr<DiskFile>> file =
      BirthFile(PathOf(start.sequence), bytes, header.file_bytes);
  if (!file.ok()) return file.status();

  sequence_ = start.sequence;
  file_ = *std::move(file);
  file_bytes_ = header.file_bytes;
  encoder_.emplace(key(), encoder.offset(), encoder.crc());
  written_ = synced_ = vouched_ = content_ = content_synced_ = header.born_end;
  Publish(changes, sequence_);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DiskFile>> LogImpl::BirthFile(const std::string& path,
                                                             std::string_view bytes,
                                                             uint64_t file_bytes) {
  const std::string unborn = path + ".new";
  absl::Status removed = disk_->Remove(unborn);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk_->Create(unborn);
  if (!file.ok()) return file.status();
  zeroed_ = 0;
  if (absl::Status s = (*file)->Allocate(file_bytes); !s.ok()) return s;
  if (absl::Status s = (*file)->Write(0, bytes); !s.ok()) return s;
  if (absl::Status s = ZeroAhead(file->get(), bytes.size(), file_bytes); !s.ok()) return s;
  if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
  if (absl::Status s = disk_->Rename(unborn, path); !s.ok()) return s;
  if (absl::Status s = disk_->SyncDirectory(options_.directory); !s.ok()) return s;
  return file;
}

absl::Status LogImpl::ZeroAhead(DiskFile* file, uint64_t end, uint64_t file_bytes) {
  if (end <= zeroed_) return absl::OkStatus();
  static const std::string kZeroes(kZeroAheadBytes, '\0');
  const uint64_t from = std::max(end, zeroed_);
  const uint64_t to = std::min(file_bytes, RoundUp(end, kBlockBytes) + kZeroAheadBytes);
  for (uint64_t at = from; at < to; at += kZeroes.size()) {
    const size_t n = std::min<uint64_t>(kZeroes.size(), to - at);
    if (absl::Status s = file->Write(at, std::string_view(kZeroes).substr(0, n)); !s.ok()) return s;
  }
  zeroed_ = std::max(end, to);
  return absl::OkStatus();
}

void LogImpl::Publish(const std::vector<Change>& changes, uint64_t sequence) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Change& change : changes) {
    if (change.kind == Change::kEntry) {
      index_.Append(change.index, sequence, change.offset);
    } else if (change.kind == Change::kCut) {
      index_.Cut(change.index);
      ++cuts_;
    } else {
      index_.DropThrough(change.index);
      ++cuts_;
    }
  }
  first_index_ = state_.first_index();
  last_index_ = state_.last_index();
  written_seen_ = written_;
}

absl::Status LogImpl::Flush() {
  const std::string bytes = encoder_->Take();
  if (bytes.empty()) return absl::OkStatus();
  CHECK(written_ + bytes.size() == encoder_->offset() && encoder_->offset() <= file_bytes_);
  if (absl::Status s = file_->Write(written_, bytes); !s.ok()) return s;
  written_ = encoder_->offset();
  if (absl::Status s = ZeroAhead(file_.get(), written_, file_bytes_); !s.ok()) return s;
  Publish(changes_, sequence_);
  changes_.clear();
  return absl::OkStatus();
}

absl::Status LogImpl::MakeRoom(uint64_t bytes) {
  if (encoder_->offset() + bytes <= file_bytes_) return absl::OkStatus();
  // The old segment is durable before the new one has a name: only the newest can be torn.
  if (absl::Status s = Sync(); !s.ok()) return s;
  SegmentStart start;
  start.sequence = sequence_ + 1;
  start.previous_crc = encoder_->crc();
  start.previous_end = encoder_->offset();
  return StartSegment(start, {}, bytes);
}

absl::Status LogImpl::Append(const raft::Persist& persist) {
  if (!failed_.ok()) return failed_;
  absl::Status appended = AppendAll(persist);
  if (appended.ok()) appended = Flush();
  return appended.ok() ? appended : Fail(appended);
}

absl::Status LogImpl::AppendAll(const raft::Persist& persist) {
  if (persist.cut_from && *persist.cut_from <= state_.last_index()) {
    if (absl::Status s = MakeRoom(kCutRecordBytes); !s.ok()) return s;
    absl::Status applied = state_.ApplyCut(*persist.cut_from);
    CHECK(applied.ok(), std::string(applied.message()));
    changes_.push_back({Change::kCut, *persist.cut_from, 0});
    ChangeSegments([&](SegmentList& segments) { segments.Cut(*persist.cut_from); });
    encoder_->AddCut(*persist.cut_from, synced_);
    content_ = encoder_->offset();
  }
  if (persist.hard_state && *persist.hard_state != state_.hard_state()) {
    // At most: where the record will begin may change when a segment ends.
    if (absl::Status s = MakeRoom(3 * kBlockBytes); !s.ok()) return s;
    absl::Status applied = state_.ApplyHardState(*persist.hard_state);
    CHECK(applied.ok(), std::string(applied.message()));
    encoder_->AddHardState(*persist.hard_state, synced_);
    content_ = encoder_->offset();
  }
  if (persist.install) {
    if (absl::Status s = AppendInstall(*persist.install); !s.ok()) return s;
  }
  for (const raft::EntryPtr& entry : persist.entries) {
    if (absl::Status s = MakeRoom(EntryRecordBytes(*entry)); !s.ok()) return s;
    absl::Status applied =
        state_.ApplyEntry(entry->index, entry->term, entry->type, entry->payload);
    CHECK(applied.ok(), std::string(applied.message()));
    changes_.push_back({Change::kEntry, entry->index, encoder_->offset()});
    encoder_->AddEntry(*entry, synced_);
    content_ = encoder_->offset();
  }
  return absl::OkStatus();
}

LogImpl::Change LogImpl::ChangeOfGeneration() const {
  const bool kept = state_.last_index() >= state_.first_index();
  return kept ? Change{Change::kDrop, state_.generation().index, 0}
              : Change{Change::kCut, raft::Index(0), 0};
}

absl::Status LogImpl::AppendInstall(const raft::InstallRecord& install) {
  CHECK(install.generation > 1, "the first generation is not installed");
  const Generation generation{install.generation, install.snapshot.index, install.snapshot.term,
                              raft::EncodeMembership(install.snapshot.membership)};
  if (absl::Status s = MakeRoom(GenerationRecordBytes(generation)); !s.ok()) return s;
  absl::Status applied = state_.ApplyGeneration(generation);
  CHECK(applied.ok(), std::string(applied.message()));
  changes_.push_back(ChangeOfGeneration());
  ChangeSegments([&](SegmentList& segments) { segments.Generation(generation.index); });
  encoder_->AddGeneration(generation, synced_);
  content_ = encoder_->offset();
  mark_next_ = true;
  return absl::OkStatus();
}

absl::StatusOr<raft::Index> LogImpl::CutPrefix(raft::Index through, uint64_t keep_bytes) {
  if (!failed_.ok()) return failed_;
  // Nobody else writes segments_: no lock to read it here.
  const SegmentList::Front front =
      segments_.Removable(through, keep_bytes, written_, state_.first_index());
  if (front.sequences.empty()) return state_.first_index();
  // Readers first: whoever looks from here on does not find these files, and who is reading one
  // that goes away looks again.
  state_.DropThrough(front.prev_index);
  Publish({{Change::kDrop, state_.first_index() - 1}}, sequence_);
  ChangeSegments([&](SegmentList& segments) { segments.Drop(front.sequences.size()); });
  if (absl::Status s = RemoveSegments(disk_, options_.directory, front.sequences); !s.ok()) {
    return Fail(s);
  }
  return state_.first_index();
}

absl::Status LogImpl::Sync() {
  if (!failed_.ok()) return failed_;
  if (absl::Status s = Flush(); !s.ok()) return Fail(s);
  if (written_ == synced_) return absl::OkStatus();
  if (absl::Status s = file_->Sync(); !s.ok()) return Fail(s);
  // The records that are durable now were written when `synced_` was what it still is here.
  vouched_ = synced_;
  synced_ = written_;
  content_synced_ = content_;
  // A generation is vouched for at once: the older state is about to go, so later damage to this
  // record must not pass for a torn write.
  return std::exchange(mark_next_, false) ? WriteMark() : absl::OkStatus();
}

absl::Status LogImpl::WriteMark() {
  if (!failed_.ok()) return failed_;
  if (absl::Status s = MakeRoom(2 * kBlockBytes); !s.ok()) return Fail(s);
  if (!WantsMark()) return absl::OkStatus();  // a new segment vouches for all before it
  encoder_->AddMark(synced_);
  return Sync();
}

absl::StatusOr<std::vector<raft::EntryPtr>> LogImpl::Read(raft::Index from, raft::Index last,
                                                          size_t bytes) {
  while (true) {
    std::vector<raft::EntryPtr> entries;
    size_t taken = 0;
    uint64_t cuts = 0;
    raft::Index next = from;
    raft::Index end = last;
    bool full = false;
    while (!full) {
      LogIndex::Extent extent;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (next == from) {
          if (from < first_index_ || from > last_index_) return entries;
          end = std::min(last, last_index_);
          cuts = cuts_;
        } else if (cuts != cuts_) {
          break;
        }
        if (next > end) return entries;
        std::optional<LogIndex::Extent> found = index_.Find(next);
        CHECK(found.has_value());
        extent = *found;
      }
      const size_t before = entries.size();
      absl::Status read =
          ReadExtent(extent, next, std::min(end, extent.last), bytes, &entries, &taken);
      if (!read.ok()) {
        // Of a segment that was removed meanwhile, or of what was taken back: look again.
        std::lock_guard<std::mutex> lock(mutex_);
        if (cuts == cuts_) return read;
        break;
      }
      next = next + (entries.size() - before);
      full = next <= std::min(end, extent.last);
    }
    // Entries that were cut meanwhile must not be served: look again.
    std::lock_guard<std::mutex> lock(mutex_);
    if (cuts == cuts_) return entries;
  }
}

absl::Status LogImpl::ReadExtent(const LogIndex::Extent& extent, raft::Index next, raft::Index last,
                                 size_t bytes_max, std::vector<raft::EntryPtr>* out,
                                 size_t* bytes) {
  const std::string path = PathOf(extent.sequence);
  const SegmentKey key{options_.store, extent.sequence};
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk_->Open(path, Disk::Mode::kRead);
  if (!file.ok()) return file.status();
  const size_t piece = std::clamp(bytes_max, kReadPieceMin, kReadPieceMax);
  std::string buffer;
  uint64_t base = extent.offset;
  uint64_t at = extent.offset;
  while (next <= last) {
    Record record;
    const Parse parsed = ParseRecord(buffer, base, key, at, &record);
    if (parsed != Parse::kRecord) {
      // Perhaps only the buffer ends here. An invalid record is looked at again with enough behind
      // it for the second copy of a hard state.
      const uint64_t need = parsed == Parse::kNeedMore ? record.end - at : 4 * kBlockBytes;
      const bool had_enough = base == at && buffer.size() >= need;
      const size_t had = base == at ? buffer.size() : 0;
      absl::StatusOr<std::string> more = file->get()->Read(at, std::max<uint64_t>(piece, need));
      if (!more.ok()) return more.status();
      if (had_enough || more->size() <= had) {
        return CorruptionError(path, at,
                               absl::StrCat("no valid record, and entry ", next.value(),
                                            " was written here or behind"));
      }
      buffer = *std::move(more);
      base = at;
      continue;
    }
    at = record.end;
    if (record.type != RecordType::kEntry) continue;
    std::optional<raft::Entry> entry = DecodeEntry(record.body);
    if (!entry || entry->index > next) {
      return CorruptionError(path, record.offset,
                             absl::StrCat("another entry than ", next.value()));
    }
    if (entry->index < next) continue;
    if (!out->empty() && *bytes + entry->bytes() > bytes_max) return absl::OkStatus();
    *bytes += entry->bytes();
    out->push_back(std::make_shared<const raft::Entry>(*std::move(entry)));
    ++next;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Log>> Log::Create(Disk* disk, const LogOptions& options) {
  CHECK(options.store && options.cluster);
  absl::StatusOr<LogFiles> files = ListLog(disk, options.directory);
  if (files.ok()) {
    return absl::AlreadyExistsError(absl::StrCat(options.directory, " holds a log already"));
  }
  if (!absl::IsNotFound(files.status())) return files.status();
  auto log = std::make_unique<LogImpl>(disk, options);
  if (absl::Status s = log->Begin(); !s.ok()) return s;
  return log;
}

absl::StatusOr<std::pair<std::unique_ptr<Log>, RecoveredLog>> Log::Open(Disk* disk,
                                                                        const LogOptions& options,
                                                                        raft::Index state_applied) {
  return Open(disk, options, [&](uint64_t) { return state_applied; });
}

absl::StatusOr<std::pair<std::unique_ptr<Log>, RecoveredLog>> Log::Open(
    Disk* disk, const LogOptions& options, const StateOpener& open_state) {
  CHECK(options.store && options.cluster);
  ScanOptions scan_options;
  scan_options.store = options.store;
  scan_options.cluster = options.cluster;
  scan_options.window_bytes = options.window_bytes;
  absl::StatusOr<std::unique_ptr<LogScan>> scanned = ScanLog(disk, options.directory, scan_options);
  if (!scanned.ok()) return scanned.status();
  LogScan* scan = scanned->get();
  absl::StatusOr<raft::Index> applied = open_state(scan->state.generation().generation);
  if (!applied.ok()) return applied.status();
  if (absl::Status s = CheckApplied(scan->state, options.directory, *applied); !s.ok()) return s;
  // Nothing of the log is changed before this line. Names that a killed process has left in the
  // page cache only must be durable before the next ones are made or removed: those might outlive
  // them.
  if (absl::Status s = disk->SyncDirectory(options.directory); !s.ok()) return s;
  for (const std::string& path : scan->files.leftovers) {
    if (absl::Status s = disk->Remove(path); !s.ok()) return s;
  }
  if (absl::Status s = RemoveSegments(disk, options.directory, scan->passed_over); !s.ok()) {
    return s;
  }
  auto log = std::make_unique<LogImpl>(disk, options);
  if (absl::Status s = log->Continue(scan); !s.ok()) return s;

  const LogState& state = scan->state;
  RecoveredLog recovered;
  recovered.hard_state = state.hard_state();
  recovered.first_index = state.first_index();
  recovered.last_index = state.last_index();
  recovered.memberships = state.memberships();
  recovered.generation = state.generation().generation;
  recovered.generation_index = state.generation().index;
  recovered.torn_bytes = scan->torn_bytes;
  recovered.cured = scan->cured;
  const raft::Index window_first =
      std::max(scan->tail.first().value_or(state.last_index() + 1), state.first_index());
  recovered.window_prev_index = window_first - 1;
  recovered.window_prev_term = *state.TermAt(recovered.window_prev_index);
  // Read back from where it lies now, by the code that serves it later.
  if (recovered.window_prev_index >= state.first_index()) {
    absl::StatusOr<std::vector<raft::EntryPtr>> prev =
        log->Read(recovered.window_prev_index, recovered.window_prev_index, SIZE_MAX);
    if (!prev.ok()) return prev.status();
    recovered.window_prev_log_time_ms = prev->front()->log_time_ms;
  }
  absl::StatusOr<std::vector<raft::EntryPtr>> window =
      log->Read(window_first, state.last_index(), SIZE_MAX);
  if (!window.ok()) return window.status();
  recovered.window = *std::move(window);
  return std::make_pair(std::unique_ptr<Log>(std::move(log)), std::move(recovered));
}

}  // namespace quorate::storage
