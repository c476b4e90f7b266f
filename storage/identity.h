// Who this store is: the identity file, outside the database and the log (DESIGN.md, "Identity,
// birth, membership").
//
// A readable text file, replaced as a whole with every change (temporary file, sync, rename,
// directory sync), so that after a crash it is the old one or the new one:
//
//   quorate identity 2              the format's version; 1 had no promised_ms
//   node "quorate-0"                the configured name; C escapes
//   store 0f3a...                   16 hexadecimal digits, never 0
//   cluster 91c2...                 0000000000000000 before birth
//   boot 7                          how often this store was started
//   log_made 1                      the log exists: from now on a missing log is a lost one
//   caught_up_once 1                it has a whole state, durably: it may serve reads
//   promised_ms 150                 see Identity::promised_ms
//   birth x0a1b...                  raft/birth's record, in hexadecimal behind an x; may be empty
//   crc32c 5d2e77aa                 of every byte above
//
// Threads: IdentityFile may be used from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "storage/disk.h"

namespace quorate::storage {

inline constexpr uint32_t kIdentityFormatVersion = 2;
inline constexpr size_t kBirthRecordBytesMax = 64u << 10;

struct Identity {
  std::string node;
  StoreId store;
  ClusterId cluster;  // 0 before birth
  uint64_t boot = 0;  // of the running process, once NextBoot has returned
  bool log_made = false;
  bool caught_up_once = false;
  // For so long after it heard a leader this store may have promised not to vote for another: the
  // longest minimum election timeout that it can have stated (raft::CoreOptions,
  // promised_before_start). 0 in a file of format 1: its builds stated none that outlives a
  // process.
  uint64_t promised_ms = 0;
  std::string birth;  // opaque here: pledge, decision or Born (raft/birth)
  friend bool operator==(const Identity&, const Identity&) = default;
};

// Every change is durable when its method returns OK, and only then visible in current(). After an
// error the file may hold the old or the new state: every later change is refused with the same
// error, and the caller ends the process.
class IdentityFile {
 public:
  // Makes the file of a new store, which must not be there yet (kAlreadyExists).
  static absl::StatusOr<std::unique_ptr<IdentityFile>> Create(Disk* disk, const std::string& path,
                                                              const std::string& node,
                                                              StoreId store);
  // kNotFound: no such file. kDataLoss: damaged. kFailedPrecondition: written by a newer format,
  // or of another node than `node` (empty: any, for offline tools).
  static absl::StatusOr<std::unique_ptr<IdentityFile>> Open(Disk* disk, const std::string& path,
                                                            const std::string& node);

  Identity current() const;

  // Counts this start; to be called once, before the number or anything else in here is used:
  // what Open read may be a rename that a killed predecessor never synced, and this syncs it.
  absl::StatusOr<uint64_t> NextBoot();
  absl::Status SetBirth(std::string record);
  // The cluster and the record that says so, in one step. A cluster once set never changes.
  absl::Status SetBorn(ClusterId cluster, std::string record);
  // A joining store learns its cluster. Setting the same one again is OK.
  absl::Status SetCluster(ClusterId cluster);
  absl::Status SetLogMade();
  absl::Status SetCaughtUpOnce();
  absl::Status SetPromised(uint64_t milliseconds);

 private:
  IdentityFile(Disk* disk, std::string path, Identity identity);
  // Writes `next`, then makes it current. REQUIRES: mutex_ held.
  absl::Status Save(Identity next);

  Disk* const disk_;
  const std::string path_;

  mutable std::mutex mutex_;  // protects what follows
  Identity identity_;
  absl::Status failed_;  // not OK once a change has failed
};

// The file's text, and back. Exposed for tests and for `quorate storage verify`.
std::string EncodeIdentity(const Identity& identity);
absl::StatusOr<Identity> DecodeIdentity(const std::string& text);

// A random number for a new store or cluster, from the kernel; never 0.
uint64_t RandomId();

}  // namespace quorate::storage
