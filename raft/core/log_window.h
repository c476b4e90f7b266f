// The end of the log in memory: the entries after `prev_index`, without a gap, to the last one.
//
// What leaves the window is on disk (the core asks for it with a LogRead). Entries leave from the
// front, and only as far as the core allows: never one that is not durable here, and never one that
// is not committed, because its term is still needed to compare it with what a leader sends. So the
// window may exceed its bound by what is not yet committed, which CoreOptions bounds on its own.
//
// Bytes are positions in one running sum, not counters that are added to and subtracted from: the
// size of any suffix is a difference, so that no path can forget to give bytes back (etcd-raft
// a370b6f).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "raft/core/types.h"

namespace quorate::raft {

class LogWindow {
 public:
  // `entries` follow `prev_index` without a gap, terms not descending (CHECKed).
  LogWindow(Index prev_index, Term prev_term, uint64_t prev_log_time_ms,
            const std::vector<EntryPtr>& entries);

  Index prev_index() const { return prev_index_; }
  Index last_index() const { return prev_index_ + slots_.size(); }
  Term last_term() const { return slots_.empty() ? prev_term_ : slots_.back().entry->term; }
  uint64_t last_log_time_ms() const;

  // Known from prev_index to last_index; a compacted term is never 0 (etcd-raft 76f1249), it is
  // absent.
  std::optional<Term> TermAt(Index index) const;
  // REQUIRES: prev_index < index <= last_index.
  const EntryPtr& At(Index index) const;

  // Entries [from, last], at most `bytes_max` together, but at least one. Stops before the first
  // entry that does not fit: never skips one (LogCabin #160). REQUIRES: prev_index < from.
  std::vector<EntryPtr> Slice(Index from, Index last, size_t bytes_max) const;

  // The bytes of what is in memory after `index`.
  uint64_t BytesAfter(Index index) const;
  uint64_t bytes() const { return BytesAfter(prev_index_); }

  // The first index in memory from which the term is the same up to `index`.
  // REQUIRES: prev_index < index <= last_index.
  Index FirstOfSameTerm(Index index) const;
  // The last index at or below `index` whose term is at most `term`; nullopt when it lies before
  // prev_index. REQUIRES: prev_index <= index <= last_index.
  std::optional<Index> LastWithTermAtMost(Index index, Term term) const;

  // The next entry. REQUIRES: index and term follow the last one.
  void Append(EntryPtr entry);
  // Removes `index` and everything after it. REQUIRES: prev_index < index.
  void CutFrom(Index index);
  // Forgets everything; the log now ends at this entry, which is on disk.
  void Reset(Index prev_index, Term prev_term, uint64_t prev_log_time_ms);
  // Drops entries from the front while over `bytes_max`, none above `limit` and never the last one.
  void Evict(size_t bytes_max, Index limit);

 private:
  struct Slot {
    EntryPtr entry;
    uint64_t end_bytes;  // the running sum at the end of this entry
  };
  const Slot& SlotAt(Index index) const;

  Index prev_index_;
  Term prev_term_;
  uint64_t prev_log_time_ms_;
  uint64_t start_bytes_ = 0;  // the running sum at prev_index
  std::deque<Slot> slots_;
};

}  // namespace quorate::raft
