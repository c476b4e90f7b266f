#include "storage/state_readers.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace quorate::storage {

absl::StatusOr<std::unique_ptr<ReaderPool>> ReaderPool::Open(const std::string& path,
                                                             size_t readers) {
  std::unique_ptr<ReaderPool> pool(new ReaderPool);
  for (size_t i = 0; i < std::max<size_t>(readers, 1) + 1; ++i) {
    absl::StatusOr<std::unique_ptr<StateReader>> reader = StateReader::Open(path);
    if (!reader.ok()) return reader.status();
    if (pool->scrubber_ == nullptr) {
      pool->scrubber_ = *std::move(reader);
      continue;
    }
    pool->free_.push_back(reader->get());
    pool->readers_.push_back(*std::move(reader));
  }
  return pool;
}

ReaderPool::~ReaderPool() {
  std::lock_guard lock(mutex_);
  CHECK(free_.size() == readers_.size() && !scrubbing_, "a read is under way at the end");
}

ReaderPool::Lease::~Lease() {
  if (pool_ != nullptr) pool_->Release(reader_);
}

absl::StatusOr<ReaderPool::Lease> ReaderPool::Acquire(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (!free_changed_.wait_for(lock, wait, [&] { return !gate_closed_ && !free_.empty(); })) {
    return absl::DeadlineExceededError(gate_closed_ ? "the state database is being checkpointed"
                                                    : "all " + std::to_string(readers_.size()) +
                                                          " database readers are busy");
  }
  StateReader* reader = free_.back();
  free_.pop_back();
  return Lease(this, reader);
}

void ReaderPool::Release(StateReader* reader) {
  {
    std::lock_guard lock(mutex_);
    free_.push_back(reader);
  }
  free_changed_.notify_all();
}

ReaderPool::Scrub ReaderPool::AcquireScrub() {
  std::unique_lock lock(mutex_);
  free_changed_.wait(lock, [&] { return !gate_closed_ && !scrubbing_; });
  scrubbing_ = true;
  abandon_scrub_ = false;
  return Scrub(this);
}

absl::StatusOr<ReaderPool::Scrub> ReaderPool::AcquireScrub(const std::atomic<bool>& cancel) {
  constexpr std::chrono::milliseconds kLook{20};
  std::unique_lock lock(mutex_);
  while (gate_closed_ || scrubbing_) {
    if (cancel.load()) return absl::CancelledError("the copy was cancelled");
    free_changed_.wait_for(lock, kLook);
  }
  scrubbing_ = true;
  abandon_scrub_ = false;
  return Scrub(this);
}

absl::StatusOr<HashCheck> ReaderPool::Scrub::CheckHash() {
  return pool_->scrubber_->CheckHash(pool_->abandon_scrub_);
}

ReaderPool::Scrub::~Scrub() {
  if (pool_ != nullptr) pool_->ReleaseScrub();
}

void ReaderPool::ReleaseScrub() {
  {
    std::lock_guard lock(mutex_);
    scrubbing_ = false;
  }
  free_changed_.notify_all();
}

bool ReaderPool::CloseGate(std::chrono::milliseconds wait, bool abandon_scrub) {
  std::unique_lock lock(mutex_);
  CHECK(!gate_closed_, "the gate is closed twice");
  if (scrubbing_) {
    if (!abandon_scrub) return false;
    abandon_scrub_ = true;
  }
  gate_closed_ = true;
  if (free_changed_.wait_for(lock, wait,
                             [&] { return free_.size() == readers_.size() && !scrubbing_; })) {
    return true;
  }
  gate_closed_ = false;
  lock.unlock();
  free_changed_.notify_all();
  return false;
}

void ReaderPool::Replace(std::unique_ptr<ReaderPool> other) {
  // The old connections close behind this block, without the lock.
  std::lock_guard lock(mutex_);
  CHECK(gate_closed_ && !scrubbing_ && free_.size() == readers_.size());
  std::lock_guard others(other->mutex_);
  std::swap(readers_, other->readers_);
  std::swap(scrubber_, other->scrubber_);
  std::swap(free_, other->free_);
}

void ReaderPool::OpenGate() {
  {
    std::lock_guard lock(mutex_);
    CHECK(gate_closed_);
    gate_closed_ = false;
  }
  free_changed_.notify_all();
}

}  // namespace quorate::storage
