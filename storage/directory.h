// The data directory (controlPlane.storePath): its layout, and the lock that lets one process in.
//
//   lock                  flock; holds the process id of who has it
//   identity              who this store is (storage/identity.h)
//   log/                  the write-ahead log's segments (storage/log.h)
//   state-<generation>/   the SQLite state machine; only the one that the log names counts
//   snapshot/             copies of it on their way to other nodes; emptied at each start
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/disk.h"
#include "storage/identity.h"

namespace quorate::storage {

// Holds the directory for as long as it lives; a crash of the process lets it go. Every process
// that opens anything in the directory takes it first, offline tools too.
class DirectoryLock {
 public:
  // Errors say what to do: kNotFound (no such directory), kFailedPrecondition (not a directory),
  // kPermissionDenied, kUnavailable (another live process has it; with its id).
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Take(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  const int fd_;
};

class DataDirectory {
 public:
  // Takes the lock and opens the identity; a directory with none of our files becomes a new store
  // of `node`, with a random store id. Does not count the start: see IdentityFile::NextBoot.
  //
  // Errors: the lock's; the identity's; kDataLoss for a directory that holds a log or a state but
  // no identity (it was removed, or only half of a backup was put back); kFailedPrecondition for
  // one with files that are not ours.
  static absl::StatusOr<std::unique_ptr<DataDirectory>> Open(Disk* disk, const std::string& path,
                                                             const std::string& node);

  const std::string& path() const { return path_; }
  IdentityFile* identity() { return identity_.get(); }
  // The log's directory, which is there.
  std::string log_directory() const;
  std::string state_directory(uint64_t generation) const;
  // Where copies of the state are made to be sent, which is there. Nothing in it outlives a
  // process.
  std::string snapshot_directory() const;

 private:
  DataDirectory(std::string path, std::unique_ptr<DirectoryLock> lock,
                std::unique_ptr<IdentityFile> identity);

  const std::string path_;
  const std::unique_ptr<DirectoryLock> lock_;
  const std::unique_ptr<IdentityFile> identity_;
};

// The same names for offline tools, which open no identity.
std::string IdentityPath(const std::string& data_directory);
std::string LogDirectory(const std::string& data_directory);
std::string StateDirectory(const std::string& data_directory, uint64_t generation);
std::string SnapshotDirectory(const std::string& data_directory);

}  // namespace quorate::storage
