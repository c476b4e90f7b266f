// Time-to-lives: grants with a deadline in log time, and which items are bound to them.
//
// TtlTable is the tables `ttl` and `ttl_key` (storage/STATE.md), changed by commands within the
// caller's transaction; the items themselves are ItemTable's, which tells it what is bound to what.
// Both belong to the apply thread. Internal to storage/state*.
//
// Deadlines are log time: it goes on with the leader's clock and stands still while there is no
// leader, so an election only lengthens a life. Nothing here ends one by itself: the leader
// proposes ExpireTtl, and the entry's own log time decides whether a time is over. So every node
// ends it at the same entry, and a proposal that comes late (behind a renewal, from a leader that
// was deposed) ends nothing.
//
// A life of `ttl_ms` that began at log time t is over when log time is above t + ttl_ms. Above, not
// at: log time is in whole milliseconds, rounded down, so two that differ by ttl_ms may be almost a
// millisecond less apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/sqlite.h"
#include "storage/state_hash.h"
#include "storage/state_schema.h"

namespace quorate::storage {

// The same on every node, so constants and not settings. (What clients may ask for is narrower:
// services/validate.h.)
inline constexpr uint64_t kTtlsMax = 100'000;
// So that revoking or expiring one, which is one revision, holds up applying for about a tenth of a
// second at most.
inline constexpr uint64_t kTtlKeysMax = 10'000;
inline constexpr uint64_t kTtlMsHardMax = uint64_t{10} * 366 * 24 * 3600 * 1000;
inline constexpr int kTtlIdsPerCommandMax = 4096;
// Above so many deletions an ExpireTtl leaves the rest to the next one.
inline constexpr uint64_t kExpiredKeysPerCommand = 10'000;

struct TtlRow {
  uint64_t ttl = 0;  // its id, not 0
  uint64_t ttl_ms = 0;
  uint64_t deadline_ms = 0;  // log time; it is over above this
  uint64_t keys = 0;         // how many items are bound to it
  std::string author;        // who asked for it
};

// A hash that is linked into the state hash: as all others.
HashSum HashOfTtl(RowHasher& hasher, const TtlRow& row);
HashSum HashOfTtlKey(RowHasher& hasher, uint64_t ttl, std::string_view key);

// The id of the grant in entry `at`: the first attempt (from 0) that is not 0 and not taken.
// Another entry gives another id, and so does another cluster.
uint64_t TtlIdOf(ClusterId cluster, raft::Index at, uint64_t attempt = 0);

class TtlTable {
 public:
  static absl::StatusOr<TtlTable> Prepare(Database& database);
  // Counts what is there. kDataLoss when the two tables do not belong together.
  absl::Status Load(Database& database);

  // Fills the answer; adds to `meta.hash`. Errors are the database's.
  absl::Status Grant(const v1::GrantTtl& grant, std::string_view author, raft::Index at,
                     StateMeta& meta, v1::Answer& answer);
  absl::Status KeepAlive(const v1::KeepAliveTtl& keep, StateMeta& meta, v1::Answer& answer);

  absl::StatusOr<std::optional<TtlRow>> Find(uint64_t ttl);
  // REQUIRES: `ttl` is there, with less than kTtlKeysMax keys, and the key is bound to none.
  absl::Status Bind(uint64_t ttl, std::string_view key, HashSum& hash);
  // REQUIRES: the key is bound to `ttl`.
  absl::Status Unbind(uint64_t ttl, std::string_view key, HashSum& hash);
  // REQUIRES: nothing is bound to it any more.
  absl::Status Remove(uint64_t ttl, HashSum& hash);
  // Keys that are bound to it, bytewise, at most `limit`.
  absl::StatusOr<std::vector<std::string>> Keys(uint64_t ttl, uint64_t limit);

  // What is there: as in memory, so that a write without any costs nothing more.
  struct Counts {
    uint64_t ttls = 0;
    uint64_t keys = 0;
  };
  const Counts& counts() const { return counts_; }
  // After the database was rolled back to where they were that.
  void Restore(const Counts& counts) {
    counts_ = counts;
    next_known_ = false;
  }
  // The earliest deadline; 0: there is none.
  absl::StatusOr<uint64_t> NextDeadline();

 private:
  absl::Status Update(const TtlRow& before, const TtlRow& after, HashSum& hash);
  Statement find_, insert_, update_, delete_, insert_key_, delete_key_, keys_, next_;
  RowHasher hasher_;
  Counts counts_;
  bool next_known_ = false;
  uint64_t next_deadline_ms_ = 0;
};

// What all rows of both tables add to the state hash, read from the database.
absl::Status SumTtls(Database& database, RowHasher& hasher, HashSum& sum);

// Answers NOT_FOUND (TTL_NOT_FOUND).
void RefuseUnknownTtl(uint64_t ttl, v1::Answer& answer);

}  // namespace quorate::storage
