// A disk in memory: what survives a crash, and what a crash, a failing drive or a full one do. A
// machine of the simulator has one; the tests of storage have it with hands on the platter
// (tests/storage/sim_disk.h).
//
// storage/disk.h says what an implementation must promise; this one promises nothing more. Each
// file has three faces: what a process sees (the page cache), what is durable, and what was changed
// since. A killed process leaves the page cache; a power failure leaves what is durable and, of the
// changes since, any (Fate), at the grain of a sector. A failed flush leaves pages that are seen
// and will never be written.
//
// Every operation that changes something is a point at which the process may die: StopAfter.
//
// Disk's own methods and those of files: any thread. All others: only while no other thread uses
// it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/disk.h"
#include "tests/sim/random.h"

namespace quorate::sim {

class SimulatedDisk : public storage::Disk {
 public:
  static constexpr size_t kSectorBytes = 512;

  // What becomes of unsynced changes when the power fails.
  enum class Fate : uint8_t {
    kLost,       // all of them
    kKept,       // none of them
    kAnySome,    // each sector, size and name on its own
    kLastOnly,   // only the newest change of each file and directory is there: the worst order
    kAllButOne,  // one change is missing, whatever came after it
  };
  static constexpr int kFates = 5;

  // What one change is, where a failed flush or a crash takes changes whole.
  enum class Grain : uint8_t {
    kWrite,   // a write as it came: cheap
    kSector,  // each sector of it
  };

  // `random` draws what becomes of half-done operations, and of changes at a crash; it outlives
  // every use of the disk.
  explicit SimulatedDisk(Random* random, Grain grain = Grain::kWrite)
      : random_(random), grain_(grain) {}

  absl::StatusOr<std::unique_ptr<storage::DiskFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<storage::DiskFile>> Open(const std::string& path,
                                                          Mode mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  // With no directory above it on this disk it is where the disk is mounted: there at once,
  // durably.
  absl::Status MakeDirectory(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;

  // --- What goes wrong ---

  // After `count` more changing operations the process is no more: every call fails with kAborted
  // and changes nothing, until Revive.
  void StopAfter(uint64_t count) { stop_at_ = operations_ + count; }
  bool stopped() const { return stopped_; }
  // The changing operation after `count` more fails once with `error`: a write has written some of
  // its sectors, a flush has made some changes durable and dropped the others.
  void FailAfter(uint64_t count, absl::Status error) {
    fail_at_ = operations_ + count;
    failure_ = std::move(error);
  }
  // The same of the read after `count` more ones; nothing else comes of it.
  void FailReadAfter(uint64_t count, absl::Status error) {
    fail_read_at_ = reads_ + count;
    read_failure_ = std::move(error);
  }
  // Bytes in all files together; above: kResourceExhausted.
  void SetCapacity(uint64_t bytes) { capacity_ = bytes; }
  // Flips a bit of old data of the file at `path`: of what is durable, not all zeroes from there
  // on, and not what the file's latest flush, or a crash since, has written. `in_front`: nor
  // anything behind the beginning of that. Where; nullopt: there is no such bit.
  std::optional<uint64_t> FlipBit(const std::string& path, bool in_front);

  // The next process may use the disk: faults that were ordered are forgotten. Open files of the
  // old one must be gone.
  void Revive();
  void PowerFailure(Fate fate);
  // Everything is gone, as on a new drive.
  void Wipe();

  // --- Views ---
  uint64_t operations() const { return operations_; }
  bool failed() const { return failed_; }  // an error was given since Revive, or ForgetErrors
  // The errors until now were survived: none of them explains what comes later.
  void ForgetErrors() { failed_ = false; }
  // The first change that failed since Revive, as its error names it; empty: none.
  const std::string& failed_change() const { return failed_change_; }
  // The file in which a bit was flipped, as long as nobody has said that it does no harm; empty:
  // none.
  const std::string& flipped() const { return flipped_; }
  void ForgetFlip() { flipped_.clear(); }
  // What was there before is there again. REQUIRES: a flip that nobody has said to do no harm.
  void UndoFlip();
  struct Errors {
    uint64_t reads = 0, writes = 0, syncs = 0, others = 0;  // that failed
    uint64_t full = 0;                                      // for which there was no space
  };
  const Errors& errors() const { return errors_; }
  uint64_t UsedBytes() const { return used_; }

 protected:
  struct Change {                  // to a file, not yet synced
    std::optional<uint64_t> size;  // a new size; else a write
    uint64_t offset = 0;
    std::string bytes;
  };
  struct File {
    std::string seen;
    std::string durable;
    std::vector<Change> changes;
    // Where its latest flush has written, and crashes since.
    std::vector<uint64_t> fresh;
    // A flush has failed half way: what is seen is not durable, though nothing waits any more.
    bool half_flushed = false;
  };
  using FilePtr = std::shared_ptr<File>;

  // What is on `other` is on this disk, too: as it is seen there, and not more durable.
  void CopyFrom(const SimulatedDisk& other);
  FilePtr Find(const std::string& path) const;  // as seen; null: none
  // Durably: `path` is `file` (null: gone). REQUIRES: its directory is there.
  void SetName(const std::string& path, const FilePtr& file);
  void CountUsed();
  static void Flip(File* file, uint64_t at, char mask);

 private:
  struct NameChange {  // `name` is then `file` (null: gone)
    std::string name;
    FilePtr file;
    std::string gone;  // with a rename: the name that it had
  };
  struct Directory {
    std::map<std::string, FilePtr> seen;
    std::map<std::string, FilePtr> durable;
    std::vector<NameChange> changes;
  };
  // A directory that was made, renamed or removed, until its parent is synced.
  struct DirectoryChange {
    std::string parent;
    std::string from;                  // empty: `to` was made
    std::string to;                    // empty: `from` was removed
    std::optional<Directory> removed;  // what it held
  };
  class Handle;

  // REQUIRES for those below that Disk's methods and files call: mutex_ held.
  absl::Status Step(const char* operation, const std::string& path, bool* half = nullptr);
  void NoteFailedChange(const char* operation, const std::string& path);
  Directory* FindDirectory(const std::string& path);  // of the file at `path`; null: none
  void Undo(const DirectoryChange& change);
  absl::Status Write(const std::string& path, File* file, uint64_t offset, std::string_view bytes);
  absl::Status Resize(const std::string& path, File* file, uint64_t size, bool only_grow);
  absl::Status Sync(const std::string& path, File* file);
  bool Survives(Fate fate, size_t position, size_t count, size_t missing);
  void CrashFile(File* file, Fate fate);
  absl::StatusOr<std::string> Read(const std::string& path, const File& file, uint64_t offset,
                                   size_t size);

  Random* const random_;
  const Grain grain_;
  std::mutex mutex_;  // protects what follows
  std::map<std::string, Directory> directories_;
  std::vector<DirectoryChange> directory_changes_;
  std::optional<absl::Status> failure_;
  uint64_t operations_ = 0;
  uint64_t fail_at_ = UINT64_MAX;
  uint64_t reads_ = 0;
  uint64_t fail_read_at_ = UINT64_MAX;
  absl::Status read_failure_;
  uint64_t stop_at_ = UINT64_MAX;
  bool stopped_ = false;
  bool failed_ = false;
  std::string failed_change_;
  std::string flipped_;
  struct {
    FilePtr file;
    uint64_t at = 0;
    char mask = 0;
  } flip_;
  Errors errors_;
  uint64_t capacity_ = UINT64_MAX;
  uint64_t used_ = 0;  // about: files without a name are counted until the next crash
};

}  // namespace quorate::sim
