// The state database as a file: its tables, its numbers, and how it is made and opened.
//
// What each table and column means, and why it is so, is in storage/STATE.md. Internal to
// storage/state*.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/command_format.h"
#include "storage/sqlite.h"
#include "storage/state.h"
#include "storage/state_hash.h"

namespace quorate::storage {

// "Quor", in the header of every state database.
inline constexpr int64_t kStateApplicationId = 0x51756f72;
// user_version. A database with a higher number was written by a newer build: refused.
// 1 had no request ids and no time-to-lives, 2 no settings; such a database gets its new, empty
// tables when it is opened.
inline constexpr int64_t kStateFormat = 3;
// Of a new database.
inline constexpr uint64_t kStatePageBytes = 4096;

// How often the state hash is recorded, and how many records are kept.
inline constexpr uint64_t kHashInterval = 4096;
inline constexpr uint64_t kRecordedHashes = 16;

// history.row: the revision in the upper 43 bits (of 63: SQLite's integers are signed), the number
// of the change within its revision in the lower 20. So one revision holds at most 2^20 changes,
// and there are 8.8 * 10^12 revisions: 13 years at 20,000 writes a second without a pause.
class RowId {
 public:
  static constexpr int kSubBits = 20;
  static constexpr uint64_t kSubMax = (uint64_t{1} << kSubBits) - 1;
  static constexpr uint64_t kRevisionMax = (uint64_t{1} << (63 - kSubBits)) - 1;

  constexpr RowId() = default;  // none
  constexpr explicit RowId(uint64_t value) : value_(value) {}
  constexpr RowId(Revision revision, uint64_t sub) : value_(revision.value() << kSubBits | sub) {}

  constexpr uint64_t value() const { return value_; }
  constexpr Revision revision() const { return Revision(value_ >> kSubBits); }
  constexpr explicit operator bool() const { return value_ != 0; }

 private:
  uint64_t value_ = 0;
};

// What a history row records. On disk: never reuse a number.
enum class RowKind : uint8_t { kText = 1, kData = 2, kDelete = 3 };

// One row of `item`: where a key's latest history row is. A deleted key stays, with version and
// create_revision 0, so that reads at an older revision find its chain.
struct ItemRow {
  RowId row;  // none: the key was never there
  Revision create_revision;
  uint64_t version = 0;
  bool exists() const { return version != 0; }
};

// One row of `history`. The views belong to whoever filled them in.
struct HistoryRow {
  RowId row;
  RowId previous;  // of the same key; none: this is its first
  RowKind kind = RowKind::kText;
  Revision create_revision;
  uint64_t version = 0;
  uint64_t ttl = 0;
  int64_t wall_time_ms = 0;
  uint64_t log_time_ms = 0;
  std::string_view author;
  std::string_view note;
  std::string_view key;
  std::string_view value;
};

// How the whole cluster behaves, by SetSettings. nullopt: was never set.
struct Settings {
  std::optional<bool> leases;  // off
  friend bool operator==(const Settings&, const Settings&) = default;
};

// The one row of `store`, and that of `membership`; and `setting`.
struct StateMeta {
  ClusterId cluster;
  raft::Index applied;
  raft::Term applied_term;
  Revision revision{1};
  Revision compacted;
  uint64_t log_time_ms = 0;
  bool birth_complete = false;
  HashSum hash;                  // of everything
  raft::Index membership_index;  // 0: none yet, and the next two are empty
  std::string membership_bytes;
  raft::Membership membership;
  Settings settings;
};

// The hashes of logical rows (storage/STATE.md, "State hash").
HashSum HashOfStore(RowHasher& hasher, const StateMeta& meta);
HashSum HashOfMembership(RowHasher& hasher, const StateMeta& meta);
HashSum HashOfSettings(RowHasher& hasher, const StateMeta& meta);
HashSum HashOfItem(RowHasher& hasher, std::string_view key, const ItemRow& item);
HashSum HashOfHistory(RowHasher& hasher, const HistoryRow& row);

// The end of the range of keys that begin with `prefix`; nullopt: no key is beyond it.
std::optional<std::string> PrefixEnd(std::string_view prefix);

// The database file of a generation.
std::string StatePath(const std::string& directory, uint64_t generation);

// Makes the database of an empty store: durable, under its final name only when complete.
absl::Status CreateStateDatabase(const StateOptions& options);
// Removes a database that nobody has open, and what SQLite may have left beside it; OK when there
// is nothing.
absl::Status RemoveDatabaseFiles(Disk* disk, const std::string& path);
// Opens the writer's connection and checks that the file is a state database of this cluster and
// format. kNotFound: there is no such generation.
absl::StatusOr<Database> OpenStateWriter(const StateOptions& options);
// The same for a file by its path, of whatever cluster.
absl::StatusOr<Database> OpenStateWriterAt(const std::string& path);
// kReadOnly for the live database, kImmutable for a copy.
absl::StatusOr<Database> OpenStateReader(const std::string& path,
                                         Database::Mode mode = Database::Mode::kReadOnly);
// kDataLoss: no state database; kFailedPrecondition: a newer format. Else its format, which may be
// older than this build's.
absl::StatusOr<int64_t> CheckStateFormat(Database& database, const std::string& path);
// kDataLoss when its tables and indexes are not, word for word, those that this build makes. For a
// database of this build's format. The state's hash is of rows only, and integrity_check takes the
// words as they are: with one of them changed the file may be read, and never be written again.
absl::Status CheckSchema(Database& database, const std::string& path);

// The store's own row, the membership and the settings; kDataLoss when they cannot be what this
// code wrote.
absl::StatusOr<StateMeta> LoadStateMeta(Database& database);

// kDataLoss for `path`, with the reason and what to do.
absl::Status DamagedState(const std::string& path, std::string_view reason);
// Adds to an error of SQLite what an operator can do about it.
absl::Status ExplainStateError(const std::string& path, const absl::Status& error);

}  // namespace quorate::storage
