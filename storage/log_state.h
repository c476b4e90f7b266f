// What the log says, as of some record: the meaning of records, shared by recovery, which replays
// them, and by the writer, which must put the same into the next segment's header.
//
// A value: copied to remember a point in the log. Its size is bounded by the number of terms and of
// membership entries that the log holds, not by its entries. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/record.h"
#include "storage/segment.h"

namespace quorate::storage {

class LogState {
 public:
  // The empty log, before entry 1.
  LogState() = default;
  // As a segment's header has it; no entries of the log are known.
  static absl::StatusOr<LogState> FromHeader(const SegmentHeader& header);
  // Fills the fields of a header that says what this says.
  void ToHeader(SegmentHeader* header) const;
  // Whether a header says what this says; else an error that names the difference.
  absl::Status CheckHeader(const SegmentHeader& header) const;

  // The records' meaning. An error: no writer of ours can have made that record here.
  absl::Status ApplyEntry(raft::Index index, raft::Term term, raft::EntryType type,
                          std::string_view payload);
  absl::Status ApplyHardState(const raft::HardState& state);
  absl::Status ApplyCut(raft::Index from);
  absl::Status ApplyGeneration(const Generation& generation);
  // Forgets entries up to `index`, as a log that begins behind it does. No effect when it begins
  // there or later already. REQUIRES: index <= last_index().
  void DropThrough(raft::Index index);
  // Whether a record reaches back before the log's beginning: before what the first segment's
  // header, and no generation record, says that the log begins with.
  bool ReachesBeforeBeginning(const Record& record) const;
  // Marks and filler mean nothing and are OK.
  absl::Status ApplyRecord(const Record& record);

  const raft::HardState& hard_state() const { return hard_state_; }
  raft::Index first_index() const { return prev_index_ + 1; }
  raft::Index last_index() const { return last_index_; }
  raft::Term last_term() const { return TermAt(last_index_).value_or(raft::Term()); }
  // Of an entry of the log or of the one before its first.
  std::optional<raft::Term> TermAt(raft::Index index) const;
  // Every membership known, ascending; the last is in force. The first may be one from before
  // first_index.
  std::vector<std::pair<raft::Index, raft::Membership>> memberships() const;
  const Generation& generation() const { return generation_; }

 private:
  struct EncodedMembership {
    raft::Index index;
    std::string bytes;
  };
  struct TermRun {  // entries from `first` on have `term`
    raft::Index first;
    raft::Term term;
  };

  void DropTermsThrough(raft::Index index);

  raft::HardState hard_state_;
  raft::Index prev_index_;  // the entry before the first
  raft::Term prev_term_;
  raft::Index last_index_;
  std::vector<TermRun> terms_;  // ascending; of entries in (prev_index_, last_index_]
  std::vector<EncodedMembership> memberships_;
  Generation generation_;
  bool begins_with_generation_ = false;  // prev_index_ is a generation record's, not a header's
};

}  // namespace quorate::storage
