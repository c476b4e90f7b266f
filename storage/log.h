// The write-ahead log on disk: segments of records, never overwritten, one flush per batch.
//
// The format, with every crash case, is prose in storage/LOG_FORMAT.md; this is its interface.
// Recovery tells a torn tail (cut, and rewritten into a new synced segment before this function
// returns) from corruption (refused, naming file and offset). After Open nothing that Read or the
// recovered state shows can be lost by a later crash.
//
// Threads: Append, Sync, WantsMark and WriteMark from one thread; Read from any thread at the same
// time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "raft/core/membership.h"
#include "raft/core/ready.h"
#include "raft/core/types.h"
#include "storage/disk.h"

namespace quorate::storage {

struct LogOptions {
  std::string directory;  // exists, belongs to this log alone; segments are `<sequence>.log`
  ClusterId cluster;
  StoreId store;
  // A segment is longer only when one record, or what recovery has to rewrite, needs it.
  size_t segment_bytes = 64u << 20;
  size_t window_bytes = 16u << 20;  // how much of the tail Open returns in memory
};

// What the log held when it was opened (see raft::RecoveredState for how it is used).
struct RecoveredLog {
  raft::HardState hard_state;
  raft::Index first_index;  // 1 until the log is cut; last_index + 1 when it holds no entry
  raft::Index last_index;
  raft::Index window_prev_index;  // the entry before `window`
  raft::Term window_prev_term;
  std::vector<raft::EntryPtr> window;
  // Every one in the log, ascending, and before them the one in force at first_index - 1.
  std::vector<std::pair<raft::Index, raft::Membership>> memberships;
  uint64_t generation = 0;  // of the last generation record; 0: none
  uint64_t torn_bytes = 0;  // cut from the tail by this recovery
  // Where one copy of term and vote was damaged and the other good: file and offset, to be logged.
  std::vector<std::string> cured;
};

class Log {
 public:
  // Creates an empty log: the directory must hold no segment (kAlreadyExists). Durable on return.
  static absl::StatusOr<std::unique_ptr<Log>> Create(Disk* disk, const LogOptions& options);

  // Opens and recovers. `state_applied` is the state machine's applied index: a log that ends below
  // it has lost data. Errors: kDataLoss with file, offset and reason (corruption);
  // kFailedPrecondition for a log of another store, cluster or format version; kNotFound when there
  // is no segment.
  static absl::StatusOr<std::pair<std::unique_ptr<Log>, RecoveredLog>> Open(
      Disk* disk, const LogOptions& options, raft::Index state_applied);

  virtual ~Log() = default;

  // Writes cut, hard state and entries. What does not continue the log (an index that is skipped, a
  // term that goes back) is a bug and a CHECK. An error leaves the log unusable: every later call
  // returns it, and the caller ends the process (a failed write or flush is never retried).
  virtual absl::Status Append(const raft::Persist& persist) = 0;
  virtual absl::Status Sync() = 0;
  // True when records were synced that no later synced record vouches for: the caller (an idle
  // timer of 50 ms on the log thread) then calls WriteMark.
  virtual bool WantsMark() const = 0;
  virtual absl::Status WriteMark() = 0;  // appends and syncs a mark with synced_through

  // Entries [from, last], at most `bytes` by Entry::bytes() (at least one), synced or not. Empty
  // when the log does not hold `from`: cut, or not yet appended. kDataLoss with file and offset
  // when what is on disk is not what was written.
  virtual absl::StatusOr<std::vector<raft::EntryPtr>> Read(raft::Index from, raft::Index last,
                                                           size_t bytes) = 0;
};

// Offline tools (the directory lock is the caller's business). Dump prints one line per record,
// goes on behind damage, and is OK when everything could be read. Verify checks everything that
// recovery would, changes nothing, says what Open would do, and returns what Open would.
absl::Status DumpLog(Disk* disk, const std::string& directory, std::ostream& out);
absl::Status VerifyLog(Disk* disk, const std::string& directory, std::ostream& out);

}  // namespace quorate::storage
