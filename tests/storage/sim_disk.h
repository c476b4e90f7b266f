// A disk in memory that forgets: what was not synced is lost, kept, reordered or torn at a crash,
// by a seed, at the grain of a 512-byte sector (storage/disk.h says what must survive).
//
// Each file has three faces: what a process sees (the page cache), what is durable, and what has
// been written since. They differ: a failed flush leaves pages that are seen but will never be
// written (the kernel calls them clean), and so does this disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "storage/disk.h"

namespace quorate::storage {

class SimDisk final : public Disk {
 public:
  static constexpr size_t kSectorBytes = 512;

  // What becomes of unsynced changes at a crash.
  enum class Fate {
    kLost,      // all of them
    kKept,      // none of them
    kAnySome,   // each sector, size and name on its own, by the seed
    kLastOnly,  // only the newest write of each file reached the disk: the worst reordering
  };

  // Directories given here are there, durably.
  explicit SimDisk(std::vector<std::string> directories);
  ~SimDisk() override;

  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& path, Mode mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status MakeDirectory(const std::string& path) override;  // durable at once
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;

  // --- Faults ---

  // Changing operations so far (every one but Open, Read, Size, List and MakeDirectory).
  int operations() const;
  // After `count` more changing operations nothing happens any more: each call fails with kAborted,
  // as for a process that is no more.
  void StopAfter(int count);
  // The changing operation after `count` more fails once with `error`. A Write that fails has
  // written some of its sectors; a Sync that fails has made some durable and lost the others.
  void FailAfter(int count, absl::Status error);
  // Every read of `path` fails with `error`.
  void FailReads(const std::string& path, absl::Status error);
  // More bytes than this in all files together: Allocate and Write fail with kResourceExhausted.
  void SetCapacity(uint64_t bytes);

  // The disk as the next process finds it after a power failure.
  std::unique_ptr<SimDisk> AfterCrash(Fate fate, uint64_t seed) const;
  // A copy as it is, page cache included.
  std::unique_ptr<SimDisk> Clone() const;

  // --- Hands on the platter: changes what is durable and what is seen ---
  void FlipBit(const std::string& path, uint64_t offset, int bit);
  void Overwrite(const std::string& path, uint64_t offset, const std::string& bytes);
  void Resize(const std::string& path, uint64_t size);
  void Erase(const std::string& path);
  void Put(const std::string& path, const std::string& content);
  std::string Content(const std::string& path) const;  // as seen
  bool Exists(const std::string& path) const;

 private:
  struct Change {                  // to a file, not yet synced
    std::optional<uint64_t> size;  // a new size; else a write of whole pieces of sectors
    uint64_t offset = 0;
    std::string bytes;
  };
  struct File {
    std::string seen;
    std::string durable;
    std::vector<Change> changes;
  };
  struct NameChange {  // to a directory: `name` is then `file` (null: gone)
    std::string name;
    std::shared_ptr<File> file;
    std::string gone;  // with a rename: the name that it had
  };
  struct Directory {
    std::map<std::string, std::shared_ptr<File>> seen;
    std::map<std::string, std::shared_ptr<File>> durable;
    std::vector<NameChange> changes;
  };
  class Handle;

  // REQUIRES for all below: mutex_ held.
  absl::Status Step(const char* operation, const std::string& path, bool* fails_half = nullptr);
  absl::StatusOr<Directory*> DirectoryOf(const std::string& path);
  absl::StatusOr<std::shared_ptr<File>> Find(const std::string& path);
  uint64_t UsedBytes() const;
  absl::Status WriteTo(const std::string& path, File* file, uint64_t offset,
                       std::string_view bytes);
  absl::Status ResizeTo(const std::string& path, File* file, uint64_t size, bool only_grow);
  absl::Status SyncFile(const std::string& path, File* file);

  mutable std::mutex mutex_;  // protects what follows
  std::map<std::string, Directory> directories_;
  std::map<std::string, absl::Status> failing_reads_;
  std::optional<absl::Status> failure_;
  int operations_ = 0;
  int fail_at_ = -1;
  int stop_at_ = -1;
  uint64_t capacity_ = UINT64_MAX;
  std::mt19937_64 random_{1};  // for half-failed operations
};

}  // namespace quorate::storage
