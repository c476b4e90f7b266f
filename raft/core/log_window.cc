#include "raft/core/log_window.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace quorate::raft {

LogWindow::LogWindow(Index prev_index, Term prev_term, uint64_t prev_log_time_ms,
                     const std::vector<EntryPtr>& entries)
    : prev_index_(prev_index), prev_term_(prev_term), prev_log_time_ms_(prev_log_time_ms) {
  CHECK((prev_index_ == Index(0)) == (prev_term_ == Term(0)));
  for (const EntryPtr& entry : entries) Append(entry);
}

uint64_t LogWindow::last_log_time_ms() const {
  return slots_.empty() ? prev_log_time_ms_ : slots_.back().entry->log_time_ms;
}

const LogWindow::Slot& LogWindow::SlotAt(Index index) const {
  CHECK(index > prev_index_ && index <= last_index());
  return slots_[index - prev_index_ - 1];
}

std::optional<Term> LogWindow::TermAt(Index index) const {
  if (index < prev_index_ || index > last_index()) return std::nullopt;
  return index == prev_index_ ? prev_term_ : SlotAt(index).entry->term;
}

const EntryPtr& LogWindow::At(Index index) const { return SlotAt(index).entry; }

std::vector<EntryPtr> LogWindow::Slice(Index from, Index last, size_t bytes_max) const {
  std::vector<EntryPtr> entries;
  size_t bytes = 0;
  for (Index i = from; i <= std::min(last, last_index()); ++i) {
    const EntryPtr& entry = At(i);
    if (!entries.empty() && bytes + entry->bytes() > bytes_max) break;
    bytes += entry->bytes();
    entries.push_back(entry);
  }
  return entries;
}

uint64_t LogWindow::BytesAfter(Index index) const {
  if (slots_.empty() || index >= last_index()) return 0;
  const uint64_t start = index <= prev_index_ ? start_bytes_ : SlotAt(index).end_bytes;
  return slots_.back().end_bytes - start;
}

Index LogWindow::FirstOfSameTerm(Index index) const {
  const Term term = At(index)->term;
  const auto first = std::partition_point(
      slots_.begin(), slots_.end(), [term](const Slot& slot) { return slot.entry->term < term; });
  return prev_index_ + static_cast<uint64_t>(first - slots_.begin()) + 1;
}

std::optional<Index> LogWindow::LastWithTermAtMost(Index index, Term term) const {
  CHECK(index >= prev_index_ && index <= last_index());
  if (prev_term_ > term) return std::nullopt;
  const auto end = slots_.begin() + static_cast<std::ptrdiff_t>(index - prev_index_);
  const auto past = std::partition_point(
      slots_.begin(), end, [term](const Slot& slot) { return slot.entry->term <= term; });
  return prev_index_ + static_cast<uint64_t>(past - slots_.begin());
}

void LogWindow::Append(EntryPtr entry) {
  CHECK(entry->index == last_index() + 1);
  CHECK(entry->term >= last_term() && entry->term > Term(0));
  const uint64_t start = slots_.empty() ? start_bytes_ : slots_.back().end_bytes;
  const uint64_t end = start + entry->bytes();
  slots_.push_back({std::move(entry), end});
}

void LogWindow::CutFrom(Index index) {
  CHECK(index > prev_index_);
  while (last_index() >= index) slots_.pop_back();
}

void LogWindow::Reset(Index prev_index, Term prev_term, uint64_t prev_log_time_ms) {
  slots_.clear();
  prev_index_ = prev_index;
  prev_term_ = prev_term;
  prev_log_time_ms_ = prev_log_time_ms;
}

void LogWindow::Evict(size_t bytes_max, Index limit) {
  while (slots_.size() > 1 && bytes() > bytes_max && prev_index_ < limit) {
    prev_index_ = slots_.front().entry->index;
    prev_term_ = slots_.front().entry->term;
    prev_log_time_ms_ = slots_.front().entry->log_time_ms;
    start_bytes_ = slots_.front().end_bytes;
    slots_.pop_front();
  }
}

}  // namespace quorate::raft
