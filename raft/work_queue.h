// Hands work from any thread to the one that does it, in order.
//
// Not bounded here: what may be under way is bounded by the core (bytes not committed, bytes in
// flight, bytes handed out for applying, one log read for a peer). Dropping anything would break
// it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/time.h"

namespace quorate::raft {

template <typename T>
class WorkQueue {
 public:
  void Push(T item) {
    bool wake;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      wake = items_.empty();  // otherwise the consumer is awake, or has been woken
      items_.push_back(std::move(item));
    }
    if (wake) changed_.notify_one();
  }

  std::deque<T> TakeAll() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(items_, {});
  }
  std::optional<T> TakeOne() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  // No more work comes: the consumer finishes what there is.
  void Close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Until there is work, or Close, or (if given) for `time`. False: closed and empty.
  bool Wait(std::optional<Duration> time) {
    std::unique_lock<std::mutex> lock(mutex_);
    auto ready = [this] { return closed_ || !items_.empty(); };
    if (time) {
      changed_.wait_for(lock, *time, ready);
    } else {
      changed_.wait(lock, ready);
    }
    return !closed_ || !items_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  // Protected by mutex_.
  std::deque<T> items_;
  bool closed_ = false;
};

}  // namespace quorate::raft
