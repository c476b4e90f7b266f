// The pool of read-only connections, and the gate that holds it off while a checkpoint empties the
// write-ahead log.
//
// Why a gate: before 3.51.3 SQLite can lose a commit that races with a checkpoint on another
// connection, so only the writer's connection checkpoints, between its own transactions; and a
// checkpoint that is to reset the log (TRUNCATE) gets there only while nobody reads from it.
//
// Any thread; Close and Open of the gate belong to the apply thread. Internal to storage/state*.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/state_read.h"

namespace quorate::storage {

class ReaderPool {
 public:
  static absl::StatusOr<std::unique_ptr<ReaderPool>> Open(const std::string& path, size_t readers);
  // REQUIRES: no lease is out.
  ~ReaderPool();

  // A connection of the pool, given back at the end of the block.
  class Lease {
   public:
    Lease(ReaderPool* pool, StateReader* reader) : pool_(pool), reader_(reader) {}
    Lease(Lease&& other) noexcept : pool_(other.pool_), reader_(other.reader_) {
      other.pool_ = nullptr;
    }
    Lease& operator=(Lease&&) = delete;
    ~Lease();
    StateReader* operator->() const { return reader_; }
    StateReader& operator*() const { return *reader_; }

   private:
    ReaderPool* pool_;
    StateReader* reader_;
  };
  // Waits for a free one, then kDeadlineExceeded; without waiting for a `wait` of 0 or less.
  absl::StatusOr<Lease> Acquire(std::chrono::milliseconds wait = ReadLimits().wait);

  // The connection for reads of the whole database: one of its own, so that the pool stays free for
  // short ones. The gate does not wait for it; see CloseGate. Waits for another scrub to end.
  class Scrub {
   public:
    explicit Scrub(ReaderPool* pool) : pool_(pool) {}
    Scrub(Scrub&& other) noexcept : pool_(other.pool_) { other.pool_ = nullptr; }
    Scrub& operator=(Scrub&&) = delete;
    ~Scrub();
    absl::StatusOr<HashCheck> CheckHash();
    // Set once the gate is to close: whoever reads by a connection of his own ends then.
    const std::atomic<bool>& abandon() const { return pool_->abandon_scrub_; }

   private:
    ReaderPool* pool_;
  };
  Scrub AcquireScrub();
  // Gives up waiting, with kCancelled, when `cancel` is set.
  absl::StatusOr<Scrub> AcquireScrub(const std::atomic<bool>& cancel);

  // Stops handing out connections and waits up to `wait` for those that are out. True: nobody
  // reads, and nobody will before OpenGate. False: somebody still does, and the gate is open again.
  // While a scrub runs: false at once, or, with `abandon_scrub`, the scrub is told to end.
  bool CloseGate(std::chrono::milliseconds wait, bool abandon_scrub);
  void OpenGate();

  // Takes over another pool's connections, which replace its own. REQUIRES: the gate is closed; no
  // lease of `other` is out.
  void Replace(std::unique_ptr<ReaderPool> other);

 private:
  ReaderPool() = default;
  void Release(StateReader* reader);
  void ReleaseScrub();

  // Changed by Open and, while the gate is closed, by Replace.
  std::vector<std::unique_ptr<StateReader>> readers_;
  std::unique_ptr<StateReader> scrubber_;

  std::mutex mutex_;
  std::condition_variable free_changed_;  // a connection came back, a scrub ended, the gate opened
  // Protected by mutex_.
  std::vector<StateReader*> free_;
  bool gate_closed_ = false;
  bool scrubbing_ = false;

  std::atomic<bool> abandon_scrub_{false};
};

}  // namespace quorate::storage
