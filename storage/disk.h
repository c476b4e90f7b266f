// The disk as the log, the identity file and the state use it (the state's database itself is
// reached by SQLite): small enough that a simulated one can lose, reorder and tear what was not
// synced (tests/storage/sim_disk.h; the deterministic simulation).
//
// What survives a crash, and what an implementation must promise:
//   * a file's bytes and size: what was there at the last Sync that returned OK; of later writes
//     any subset of 512-byte sectors, in any order;
//   * a file's name (created, renamed, removed): what was there at the last SyncDirectory of its
//     directory that returned OK; later changes may or may not have happened, each on its own.
//
// Errors: kNotFound, kAlreadyExists, kPermissionDenied, kResourceExhausted (disk full, quota), and
// others as absl::ErrnoToStatus maps them, each with the operation and the path. After a Write or
// a Sync that failed nothing is known about the file's unsynced bytes: the caller must not go on
// with it, and never retries (the kernel may have dropped the pages and call the next one OK).
//
// Threads: one file's Write, Allocate, Truncate and Sync by one thread at a time; Read from any
// thread at the same time. A Disk from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quorate::storage {

class DiskFile {
 public:
  // Closes. Says nothing about durability.
  virtual ~DiskFile() = default;
  // All of `bytes` at `offset`. Not durable before Sync.
  virtual absl::Status Write(uint64_t offset, std::string_view bytes) = 0;
  // Up to `size` bytes; fewer only at the end of the file.
  virtual absl::StatusOr<std::string> Read(uint64_t offset, size_t size) = 0;
  virtual absl::StatusOr<uint64_t> Size() = 0;
  // Makes the file at least `size` long. The new bytes read as zeroes and their space is reserved:
  // a later write to them does not fail for lack of it.
  virtual absl::Status Allocate(uint64_t size) = 0;
  virtual absl::Status Truncate(uint64_t size) = 0;
  // fdatasync: bytes and size are durable on return.
  virtual absl::Status Sync() = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;
  // A new empty file, to read and write. kAlreadyExists when the name is taken.
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& path) = 0;
  enum class Mode { kRead, kReadWrite };
  virtual absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& path, Mode mode) = 0;
  // Replaces `to` when it is there.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  // OK when it is there already. Its parent must exist.
  virtual absl::Status MakeDirectory(const std::string& path) = 0;
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // Removes a directory with everything in it; OK when it is not there.
  virtual absl::Status RemoveTree(const std::string& path) = 0;
  // Of a file, without opening it (a close of a live database file drops SQLite's locks).
  // kNotFound: there is nothing of that name. A directory is there, and its size means nothing.
  virtual absl::StatusOr<uint64_t> SizeOf(const std::string& path) = 0;
  // The names in a directory, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
};

// The real one. Files are made with mode 0600, directories with 0700.
std::unique_ptr<Disk> MakePosixDisk();
// One of them for everybody who was not given another one; it has no state.
Disk* PosixDisk();

// The directory part of a path: "." when there is none, "/" for the root.
std::string ParentDirectory(std::string_view path);
std::string JoinPath(std::string_view directory, std::string_view name);

// Replaces a small file as a whole: after a crash it has either the old content or the new one.
// Writes `path`.new, syncs, renames, syncs the directory. After an error either may be there.
absl::Status ReplaceFile(Disk* disk, const std::string& path, std::string_view content);

// kOutOfRange when the file is longer than `bytes_max`.
absl::StatusOr<std::string> ReadWholeFile(Disk* disk, const std::string& path, size_t bytes_max);

}  // namespace quorate::storage
