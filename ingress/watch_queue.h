// What waits for one watch, and what all of it weighs.
//
// Internal to ingress/watch*.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/change.h"
#include "base/check.h"
#include "ingress/watch_messages.h"

namespace quorate::ingress {

// A message that waits in some queues: its bytes count once in all of them.
struct QueuedBody {
  SharedBytes bytes;
  size_t queues = 0;
};
using QueuedBodyPtr = std::shared_ptr<QueuedBody>;

inline QueuedBodyPtr MakeBody(SharedBytes bytes) {
  return std::make_shared<QueuedBody>(QueuedBody{std::move(bytes), 0});
}

struct QueueEntry {
  QueuedBodyPtr body;
  Revision revision;
  // Where the changes that have been told end once this is told; nullopt: a part of a state, after
  // which there is no such place yet.
  std::optional<ChangePosition> after;
  bool partial = false;
  bool state = false;   // belongs to a state (reset, items, synced): cannot be read again by itself
  uint64_t events = 0;  // of changes
};

class WatchQueue {
 public:
  // `total` is the sum over all queues, and outlives this.
  explicit WatchQueue(size_t* total) : total_(total) {}
  ~WatchQueue() {
    while (!empty()) PopBack();
  }
  WatchQueue(const WatchQueue&) = delete;
  WatchQueue& operator=(const WatchQueue&) = delete;

  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  size_t bytes() const { return bytes_; }
  const QueueEntry& back() const { return entries_.back(); }

  void Push(QueueEntry entry) {
    const size_t size = entry.body->bytes->size() + kOverhead;
    bytes_ += size;
    if (entry.body->queues++ == 0) *total_ += size;
    entries_.push_back(std::move(entry));
  }
  QueueEntry PopFront() {
    QueueEntry entry = std::move(entries_.front());
    entries_.pop_front();
    Forget(entry);
    return entry;
  }
  void PopBack() {
    Forget(entries_.back());
    entries_.pop_back();
  }

 private:
  static constexpr size_t kOverhead = 128;

  void Forget(const QueueEntry& entry) {
    const size_t size = entry.body->bytes->size() + kOverhead;
    CHECK(bytes_ >= size && entry.body->queues > 0);
    bytes_ -= size;
    if (--entry.body->queues == 0) *total_ -= size;
  }

  size_t* const total_;
  std::deque<QueueEntry> entries_;
  size_t bytes_ = 0;
};

}  // namespace quorate::ingress
