// The offline tools: what is in a log, and what opening it would do.
#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "raft/core/membership.h"
#include "storage/log.h"
#include "storage/log_scan.h"
#include "storage/record.h"

namespace quorate::storage {
namespace {

const char* TypeName(raft::EntryType type) {
  switch (type) {
    case raft::EntryType::kNoop:
      return "noop";
    case raft::EntryType::kCommand:
      return "command";
    case raft::EntryType::kMembership:
      return "membership";
    case raft::EntryType::kBirthComplete:
      return "birth-complete";
  }
  return "unknown";
}

std::string DescribeMembership(std::string_view bytes) {
  std::optional<raft::Membership> membership = raft::DecodeMembership(bytes);
  if (!membership) return "unreadable";
  std::string text = absl::StrCat("cluster=", ToHex(membership->cluster));
  if (membership->joint) text += " joint";
  for (const raft::Member& member : membership->members) {
    absl::StrAppend(&text, " ", absl::CHexEscape(member.name), "=", ToHex(member.store),
                    member.voter ? "" : (member.outgoing_voter ? "(outgoing)" : "(learner)"));
  }
  return text;
}

std::string DescribeBody(const Record& record) {
  switch (record.type) {
    case RecordType::kEntry: {
      std::optional<raft::Entry> entry = DecodeEntry(record.body);
      if (!entry) return "entry unreadable";
      std::string text =
          absl::StrCat("entry index=", entry->index.value(), " term=", entry->term.value(), " ",
                       TypeName(entry->type), " payload=", entry->payload.size(),
                       " log_time_ms=", entry->log_time_ms, " wall_time_ms=", entry->wall_time_ms);
      if (entry->type == raft::EntryType::kMembership) {
        absl::StrAppend(&text, " ", DescribeMembership(entry->payload));
      }
      return text;
    }
    case RecordType::kHardState: {
      std::optional<raft::HardState> state = DecodeHardState(record.body);
      if (!state) return "hard-state unreadable";
      return absl::StrCat("hard-state term=", state->term.value(),
                          " vote=", state->vote ? ToHex(state->vote) : std::string("none"));
    }
    case RecordType::kCut: {
      std::optional<raft::Index> from = DecodeCut(record.body);
      return from ? absl::StrCat("cut from=", from->value()) : std::string("cut unreadable");
    }
    case RecordType::kMark:
      return "mark";
    case RecordType::kFiller:
      return absl::StrCat("filler bytes=", record.body.size());
    case RecordType::kGeneration: {
      std::optional<Generation> generation = DecodeGeneration(record.body);
      if (!generation) return "generation unreadable";
      return absl::StrCat("generation number=", generation->generation,
                          " index=", generation->index.value(), " term=", generation->term.value(),
                          " ", DescribeMembership(generation->membership));
    }
  }
  return absl::StrCat("unknown type ", static_cast<int>(record.type));
}

void PrintHeader(const LoadedSegment& segment, std::ostream& out) {
  const SegmentHeader& h = segment.header;
  out << segment.path << ": segment=" << h.sequence << " store=" << ToHex(h.store)
      << " cluster=" << ToHex(h.cluster) << " term=" << h.hard_state.term.value()
      << " vote=" << (h.hard_state.vote ? ToHex(h.hard_state.vote) : std::string("none"))
      << " previous_index=" << h.prev_index.value() << " previous_term=" << h.prev_term.value()
      << " previous_end=" << h.previous_end << " born_end=" << h.born_end
      << " bytes=" << segment.file_bytes;
  if (h.membership_index) {
    out << " membership_index=" << h.membership_index.value() << " "
        << DescribeMembership(h.membership);
  }
  if (h.generation.generation != 0) {
    out << " generation=" << h.generation.generation << " at=" << h.generation.index.value();
  }
  out << "\n";
}

// Where the next valid record stands behind `offset`, or the end of the segment.
uint64_t NextRecord(const LoadedSegment& segment, uint64_t offset, uint64_t end) {
  Record ignored;
  while (offset < end &&
         ParseRecord(*segment.bytes, 0, segment.key(), offset, &ignored) != Parse::kRecord) {
    offset += 8;
  }
  return std::min(offset, end);
}

// Prints one segment's records up to `end`, damage too; returns how many places were damaged.
int DumpSegment(const LoadedSegment& segment, uint64_t end, std::ostream& out) {
  int damaged = 0;
  uint64_t at = segment.length;
  uint32_t crc = segment.crc;
  while (at < end) {
    Record record;
    if (ParseRecord(*segment.bytes, 0, segment.key(), at, &record) != Parse::kRecord) {
      const uint64_t next = NextRecord(segment, at, end);
      out << at << " damaged: no valid record in " << next - at << " bytes\n";
      ++damaged;
      at = next;
      crc = 0;
      continue;
    }
    out << record.offset << " " << DescribeBody(record)
        << " synced_through=" << record.synced_through;
    if (record.cured_at) out << " damaged_copy_at=" << *record.cured_at;
    if (crc != 0 && record.previous != crc) {
      out << " does-not-follow-the-record-before";
      ++damaged;
    }
    out << "\n";
    at = record.end;
    crc = record.crc;
  }
  return damaged;
}

}  // namespace

absl::Status DumpLog(Disk* disk, const std::string& directory, std::ostream& out) {
  absl::StatusOr<LogFiles> files = ListLog(disk, directory);
  if (!files.ok()) return files.status();
  for (const std::string& path : files->leftovers) {
    out << path << ": was never born; opening removes it\n";
  }
  int damaged = 0;
  absl::Status first_error;
  for (size_t i = 0; i < files->sequences.size(); ++i) {
    absl::StatusOr<LoadedSegment> segment =
        LoadSegment(disk, directory, files->sequences[i], /*header_only=*/false);
    if (!segment.ok()) {
      out << segment.status().message() << "\n";
      if (first_error.ok()) first_error = segment.status();
      continue;
    }
    PrintHeader(*segment, out);
    // The log leaves this segment where the next one says, or where nothing more is written.
    uint64_t end = segment->bytes->find_last_not_of('\0') + 1;
    end = std::max<uint64_t>((end + 7) / 8 * 8, segment->header.born_end);
    if (i + 1 < files->sequences.size()) {
      absl::StatusOr<LoadedSegment> next =
          LoadSegment(disk, directory, files->sequences[i + 1], /*header_only=*/true);
      if (next.ok()) end = next->header.previous_end;
    }
    damaged += DumpSegment(*segment, std::min<uint64_t>(end, segment->bytes->size()), out);
  }
  if (!first_error.ok()) return first_error;
  if (damaged > 0) {
    return absl::DataLossError(absl::StrCat(directory, ": ", damaged, " damaged places"));
  }
  return absl::OkStatus();
}

absl::Status VerifyLog(Disk* disk, const std::string& directory, std::ostream& out) {
  ScanOptions options;
  options.observer = [&](const LoadedSegment& segment, const SegmentRecords& found,
                         const LogState& state) {
    out << segment.path << ": " << found.records.size() << " records up to offset " << found.end
        << ", entries up to " << state.last_index().value() << ", term "
        << state.hard_state().term.value() << "\n";
  };
  absl::StatusOr<std::unique_ptr<LogScan>> scanned = ScanLog(disk, directory, options);
  if (!scanned.ok()) {
    out << "refused: " << scanned.status().message() << "\n";
    return scanned.status();
  }
  const LogScan& scan = **scanned;
  for (const std::string& path : scan.files.leftovers) out << path << ": would be removed\n";
  for (uint64_t sequence : scan.passed_over) {
    out << JoinPath(directory, SegmentName(sequence))
        << ": would be removed: an interrupted removal in front has left it\n";
  }
  for (const std::string& cured : scan.cured) out << cured << "\n";
  if (scan.torn_bytes > 0) {
    out << scan.newest.path << ": a torn write of " << scan.torn_bytes << " bytes at offset "
        << scan.written_end - scan.torn_bytes << " would be cut\n";
  }
  out << "ok: store=" << ToHex(scan.newest.header.store)
      << " cluster=" << ToHex(scan.newest.header.cluster)
      << " first_index=" << scan.state.first_index().value()
      << " last_index=" << scan.state.last_index().value()
      << " last_term=" << scan.state.last_term().value()
      << " generation=" << std::max<uint64_t>(1, scan.state.generation().generation)
      << " term=" << scan.state.hard_state().term.value() << " vote="
      << (scan.state.hard_state().vote ? ToHex(scan.state.hard_state().vote) : std::string("none"))
      << "; opening would begin segment " << scan.newest.header.sequence + 1 << " and rewrite "
      << scan.rewrite.size() << " records from offset " << scan.rewrite_from << "\n";
  return absl::OkStatus();
}

}  // namespace quorate::storage
