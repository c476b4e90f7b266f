// The applied state machine: one SQLite database per generation, `state-<generation>/state.db`.
//
// Apply runs on one thread (the apply thread); it writes one transaction per batch, with applied
// index and term, membership, sessions and state hash in that same transaction, so that a crash
// leaves a prefix of the log applied, exactly. Reads use StateReader from any thread.
//
// Schema, costs and the choice behind them: storage/STATE.md.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/change.h"
#include "base/ids.h"
#include "base/time.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/disk.h"
#include "storage/request_limits.h"

namespace quorate::storage {

// The sum modulo 2^128 over all logical rows (DESIGN.md, "State hash"); little-endian.
using StateHash = std::array<uint8_t, 16>;

struct StateOptions {
  std::string directory;  // the data directory; the database is in its `state-<generation>/`
  uint64_t generation = 1;
  ClusterId cluster;
  // Where the directory is; null: this machine's. SQLite's files go through SQLite's default VFS,
  // so both must mean the same.
  Disk* disk = nullptr;
  size_t readers = 4;  // read-only connections
  // Above this much write-ahead log a checkpoint holds the readers off and empties it.
  uint64_t wal_bytes_max = 16u << 20;
  // What commands do depends on them: the same on all nodes and for ever.
  RequestLimits request_limits;
};

// Why a session command was refused: nothing was executed, and nothing of the session changed.
enum class Refusal : uint8_t {
  kNone = 0,
  kUnknownSession,     // its store has no session, or one of another boot or nonce
  kGap,                // its sequence is beyond the next one (or 0)
  kTooManyUnanswered,  // 4,096 answers are kept already: send it again with answered_through moved
                       // on
  kNotMember,          // OpenSession: the store is not in the membership in force
  kOlderBoot,          // OpenSession: a session with a higher boot is open
  kOtherNonce,         // OpenSession: a session with this boot and another nonce is open
};
std::string_view RefusalName(Refusal refusal);  // "SESSION_UNKNOWN" and the like

// One command's outcome, for whoever waits for it.
struct Applied {
  raft::Index index;
  StoreId session_store;  // 0: not a session's command
  uint64_t session_boot = 0;
  uint64_t session_nonce = 0;
  uint64_t session_sequence = 0;  // 0: OpenSession
  // True: this sequence was executed before (a retry); `answer` is the kept answer.
  bool duplicate = false;
  // Refused by the session rule (unknown session, a gap, an older boot): nothing was executed.
  bool refused = false;
  Refusal refusal = Refusal::kNone;           // which rule; not kNone exactly when `refused`
  std::shared_ptr<const std::string> answer;  // a serialized v1::Answer; null: nothing is kept
  // What it changed. Null: nothing; or nobody collects (State::CollectChanges); or the batch
  // changed more than is kept, and who needs it reads it (State::Changes).
  ChangeSetPtr changes;
};

struct SessionView {
  StoreId store;
  uint64_t boot = 0;
  uint64_t nonce = 0;
  uint64_t last_sequence = 0;
  uint64_t answered_through = 0;
  raft::Index opened_at{};  // the entry that opened it: tells it from an earlier one of that store
};

// The setting's name: on disk, and in the metadata of SetSettings' answer, where it is "on" or
// "off".
inline constexpr char kLeasesSetting[] = "leases";
// What the state machine knows of itself, as of its last committed batch.
struct StateSummary {
  raft::Index applied;
  raft::Term applied_term;
  Revision revision;   // 1 when empty
  Revision compacted;  // history at or below is gone
  uint64_t log_time_ms = 0;
  raft::Membership membership;
  raft::Index membership_index;
  bool birth_complete = false;
  bool leases = false;  // leaders may answer reads by their lease (SetSettings)
  StateHash hash{};
  // Client-given request ids: how many are known, and the age of the oldest (log time).
  uint64_t request_ids = 0;
  uint64_t request_ids_reach_ms = 0;
  // A write with an unknown id that was first sent at this revision or before is refused.
  Revision request_ids_expired_through;
  // Time-to-lives, and the items bound to them.
  uint64_t ttls = 0;
  uint64_t ttl_keys = 0;
  uint64_t next_ttl_deadline_ms = 0;  // log time; the earliest is over above it; 0: there is none
  uint64_t expired_ttls = 0;          // since the process started
  uint64_t duplicates = 0;            // retried commands found applied, since the process started
  // A power failure now loses nothing up to here: the log may be cut behind it. It moves when a
  // checkpoint of this process has emptied the write-ahead log, and to the applied index when a
  // generation is installed. 0 after a start: what the log no longer holds is durable all the same.
  raft::Index durable_applied;
};

// What a scrub found, at one applied index.
struct HashCheck {
  raft::Index applied;
  StateHash kept{};        // as kept with each change
  StateHash recomputed{};  // from the rows; another one: the database is damaged
};

// A whole state in one plain file (DESIGN.md, "The database is the snapshot").
struct StateCopy {
  std::string path;
  uint64_t bytes = 0;  // of the file
  ClusterId cluster;
  raft::Index index;  // everything up to it is applied, nothing after it
  raft::Term term;    // of that entry
  uint64_t log_time_ms = 0;
  raft::Index membership_index;
  raft::Membership membership;  // in force at `index`
  Revision revision;
  bool birth_complete = false;
  StateHash hash{};
};

// What a file must be to be taken for that state.
struct ExpectedState {
  ClusterId cluster;
  raft::Index index;
  raft::Term term;
  StateHash hash{};
};

struct Item {
  std::string key;
  bool is_text = false;
  std::string value;  // empty when only keys were asked for
  Revision create_revision;
  Revision mod_revision;
  uint64_t version = 0;
  uint64_t ttl = 0;  // the time-to-live that it is bound to; 0: none (or only keys were asked for)
};

struct ListQuery {
  std::string prefix;          // empty: everything
  std::string after;           // keys strictly greater than this (paging); empty: from the start
  std::optional<Revision> at;  // as of this revision; nullopt: now
  size_t items_max = 1000;
  size_t bytes_max = 2u << 20;  // keys and values; at least one item is returned
  bool keys_only = false;
};

struct ListPage {
  std::vector<Item> items;
  bool more = false;
  Revision revision;  // the store's revision in the transaction that read this
};

// For how long a read may go on.
struct ReadLimits {
  // For a connection: while all are busy, or a checkpoint holds the readers off.
  std::chrono::milliseconds wait{10'000};
  // Asked about every 20 microseconds while SQLite works, on the read's thread: true ends the read
  // with kAborted. Empty: it goes on to its end.
  std::function<bool()> abandon;
};

// What Apply hands over in Applied::changes.
enum class Collect : uint8_t { kNothing, kChanges, kPrevious };
// Of one batch: what is above is not handed over, so that a deletion of everything needs no memory.
inline constexpr size_t kCollectBytesMax = 16u << 20;

// A portion of history, in the order of the changes.
struct ChangesQuery {
  KeyFilter filter;
  ChangePosition from;
  bool with_previous = false;
  size_t rows_max = 4096;       // looked at, wanted or not
  size_t bytes_max = 1u << 20;  // of the wanted ones; one may exceed it
};
struct ChangesPage {
  std::vector<Change> changes;
  // Every change that matches in [from, end) is there; {revision + 1, 0} when history was read to
  // its end (or `from`, when that is further).
  ChangePosition end;
  Revision revision;  // the store's in the transaction that read this
};

// One change of a key. Of a deletion `item` has key and mod_revision only.
struct HistoryItem {
  Item item;
  bool deleted = false;
  std::string author;
  std::string note;
  int64_t wall_time_ms = 0;
  uint64_t place = 0;  // for HistoryQuery::before
};

struct HistoryQuery {
  std::string key;
  uint64_t before = 0;         // continue after this place (older changes); 0: from the newest
  std::optional<Revision> at;  // only what had happened at this revision
  size_t items_max = 1000;
  size_t bytes_max = 2u << 20;  // keys, values and notes; at least one change is returned
};

struct HistoryPage {
  std::vector<HistoryItem> items;  // newest first
  bool more = false;
  Revision revision;  // the store's revision in the transaction that read this
};

class State {
 public:
  // Makes a new database (the directory must not hold one). Durable on return.
  static absl::StatusOr<std::unique_ptr<State>> Create(const StateOptions& options);
  // Errors: kFailedPrecondition for another cluster or a newer format, kDataLoss for a damaged
  // database; each says what to do.
  static absl::StatusOr<std::unique_ptr<State>> Open(const StateOptions& options);
  virtual ~State() = default;

  // --- Apply thread ---

  // Applies entries that follow the applied index, in one transaction (batches end at each index
  // divisible by 4,096). Every outcome, in order. An error means that the database cannot be
  // written: the caller ends the process.
  virtual absl::StatusOr<std::vector<Applied>> Apply(
      const std::vector<raft::EntryPtr>& entries) = 0;

  // Makes everything applied durable and empties the write-ahead log; Apply does so by itself when
  // that is over `wal_bytes_max`. True: done. False: not now, a reader would not get out of the way
  // (it is tried again). An error is as for Apply.
  virtual absl::StatusOr<bool> Checkpoint() = 0;

  // Goes over to the database of a higher generation, which is durable (storage/state_install.h)
  // and which the log names, durably. Reads that are under way end first (a scrub or a copy is told
  // to); others wait. On return everything here shows the new state, of which all is durable. Its
  // outcomes of writes are told by FindSession and KeptAnswer only. The old database is closed and
  // its directory still there. After an error the old one is still shown, and the caller ends the
  // process: the next one opens what the log names.
  virtual absl::Status Install(uint64_t generation) = 0;

  // --- Any thread ---
  // Of the database: it grows with each Install.
  virtual uint64_t generation() const = 0;

  // Copies what is committed now into a new file at `path` (what was there goes; its directory must
  // be there), synced, and proves the copy: SQLite's integrity_check, and the hash of its rows
  // against the one kept. Applying goes on meanwhile. As a scrub does, the copy holds off
  // checkpoints until all pages are read: beyond max(1 GiB, the database's size) of write-ahead log
  // it is given up. One at a time, scrubs included: others wait. Takes as long as reading the
  // database three times.
  //
  // Errors, after which no file is left: kCancelled (`cancel` was set), kAborted (given up: try
  // again later), kResourceExhausted (disk full), kDataLoss (the copy is not good: the database is
  // damaged, or the disk that the copy lies on).
  virtual absl::StatusOr<StateCopy> Copy(const std::string& path,
                                         const std::atomic<bool>& cancel) = 0;

  // See StateSummary::durable_applied.
  virtual raft::Index durable_applied() const = 0;
  virtual StateSummary Summary() const = 0;
  virtual bool leases() const = 0;  // Summary().leases
  virtual std::optional<SessionView> FindSession(StoreId store) const = 0;
  // The answer kept for one sequence of a session; null when none is kept.
  virtual std::shared_ptr<const std::string> KeptAnswer(StoreId store, uint64_t sequence) const = 0;

  // kDeadlineExceeded: no connection came free (ReadLimits::wait). kAborted: abandoned. kNotFound:
  // no such key (Get). kOutOfRange: `at` is compacted or ahead. Get's Revision is the store's at
  // that read, also when the key is not there.
  virtual std::pair<absl::StatusOr<Item>, Revision> Get(std::string_view key,
                                                        std::optional<Revision> at,
                                                        const ReadLimits& limits = {}) = 0;
  virtual absl::StatusOr<ListPage> List(const ListQuery& query, const ReadLimits& limits = {}) = 0;
  // How many keys match, at `at` or now. Takes as long as looking at all of them.
  virtual absl::StatusOr<std::pair<uint64_t, Revision>> Count(std::string_view prefix,
                                                              std::optional<Revision> at,
                                                              const ReadLimits& limits = {}) = 0;

  // Changes again, from history. kOutOfRange: some of them are compacted. Otherwise as the above.
  virtual absl::StatusOr<ChangesPage> Changes(const ChangesQuery& query) = 0;
  // Time-to-lives that are over at this log time, the earliest first: what ExpireTtl may be
  // proposed for. Errors as of the above.
  virtual absl::StatusOr<std::vector<uint64_t>> DueTtls(uint64_t log_time_ms, size_t limit,
                                                        const ReadLimits& limits = {}) = 0;

  // What batches are to hand over from now on (a batch under way does not hear of it). It costs a
  // copy of each value, and with kPrevious a look-up for each change.
  virtual void CollectChanges(Collect what) = 0;

  // The changes of one key that compaction has left. None: the key was never there, or is long
  // deleted. kOutOfRange: `at` is compacted or ahead, or `before` is compacted.
  virtual absl::StatusOr<HistoryPage> History(const HistoryQuery& query,
                                              const ReadLimits& limits = {}) = 0;

  // The hash recomputed from the rows: must equal Summary().hash at the same applied index.
  // Takes as long as reading the whole database (one caller at a time; others wait); writes go on,
  // checkpoints wait for it up to max(1 GiB, the database's size) of write-ahead log, then it ends
  // with kAborted.
  virtual absl::StatusOr<std::pair<raft::Index, StateHash>> RecomputeHash() = 0;
  // The same, with the hash that was kept at that index.
  virtual absl::StatusOr<HashCheck> CheckHash() = 0;
  // The state hash at the latest indexes divisible by 4,096 (16 of them at most), oldest first.
  virtual absl::StatusOr<std::vector<std::pair<raft::Index, StateHash>>> RecordedHashes() = 0;
};

}  // namespace quorate::storage
