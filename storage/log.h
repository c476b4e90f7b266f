// The write-ahead log on disk: segments of records, never overwritten, one flush per batch.
//
// The format, with every crash case, is prose in storage/LOG_FORMAT.md; this is its interface.
// Recovery tells a torn tail (cut, and rewritten into a new synced segment before this function
// returns) from corruption (refused, naming file and offset). After Open nothing that Read or the
// recovered state shows can be lost by a later crash.
//
// Threads: Append, Sync, WantsMark, WriteMark and CutPrefix from one thread; Read, first_index and
// TailStart from any thread at the same time.
#pragma once

#include <cstdint>
#include <functional>
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
  // Its log time, where the log still holds it.
  std::optional<uint64_t> window_prev_log_time_ms;
  std::vector<raft::EntryPtr> window;  // the tail; empty where the last entry is larger than it
  // Every one in the log, ascending, and before them the one in force at first_index - 1.
  std::vector<std::pair<raft::Index, raft::Membership>> memberships;
  uint64_t generation = 0;       // of the last generation record; 0: none
  raft::Index generation_index;  // and up to where it says that the state goes
  uint64_t torn_bytes = 0;       // cut from the tail by this recovery
  // Where one copy of term and vote was damaged and the other good: file and offset, to be logged.
  std::vector<std::string> cured;
};

class Log {
 public:
  // Opens the state of a generation (0: no record names one, so it is the first), and says up to
  // where it is applied.
  using StateOpener = std::function<absl::StatusOr<raft::Index>(uint64_t generation)>;

  // Creates an empty log: the directory must hold no segment (kAlreadyExists). Durable on return.
  static absl::StatusOr<std::unique_ptr<Log>> Create(Disk* disk, const LogOptions& options);

  // Opens and recovers. The log says which generation of the state is the one; its applied index
  // must be within the log: one that ends below it or begins behind it has lost data. Until that is
  // found good nothing is changed. Errors: `open_state`'s; kDataLoss with file, offset and reason
  // (corruption); kFailedPrecondition for a log of another store, cluster or format version;
  // kNotFound when there is no segment.
  static absl::StatusOr<std::pair<std::unique_ptr<Log>, RecoveredLog>> Open(
      Disk* disk, const LogOptions& options, const StateOpener& open_state);
  // The same for a state that is open already.
  static absl::StatusOr<std::pair<std::unique_ptr<Log>, RecoveredLog>> Open(
      Disk* disk, const LogOptions& options, raft::Index state_applied);

  virtual ~Log() = default;

  // Writes cut, hard state, install and entries. What does not continue the log (an index that is
  // skipped, a term that goes back) is a bug and a CHECK.
  //
  // An install is a generation record, the commit point of a snapshot: the log begins after its
  // index then; what follows there is kept if the log held that entry with that term, else all of
  // it is gone. The caller has made state-<generation>/ durable before, and removes older states
  // only after the Sync. REQUIRES (CHECKed): a higher generation than the last one (1 before the
  // first), an index not before first_index() - 1.
  //
  // An error leaves the log unusable: every later call
  // returns it, and the caller ends the process (a failed write or flush is never retried).
  virtual absl::Status Append(const raft::Persist& persist) = 0;
  virtual absl::Status Sync() = 0;
  // True when records were synced that no later synced record vouches for: the caller (an idle
  // timer of 50 ms on the log thread) then calls WriteMark.
  virtual bool WantsMark() const = 0;
  virtual absl::Status WriteMark() = 0;  // appends and syncs a mark with synced_through

  // Removes whole segments in front: those whose entries are all at or below `through`, as long as
  // `keep_bytes` of log stay behind them. Returns the first index that is left. Durable on return;
  // a crash at any point leaves a log that begins somewhere between. Costs next to nothing when
  // there is nothing to remove. REQUIRES: the state holds everything up to `through` durably.
  virtual absl::StatusOr<raft::Index> CutPrefix(raft::Index through, uint64_t keep_bytes) = 0;
  // Any thread. last_index + 1 when the log holds no entry.
  virtual raft::Index first_index() const = 0;
  // Any thread. An entry so that the log from it on is at least `bytes` long, in whole segments;
  // the first one when all of it is shorter. To cut before it leaves that much.
  virtual raft::Index TailStart(uint64_t bytes) const = 0;

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
