// Applies log entries to the state database: what each entry means.
//
// Everything here belongs to the apply thread. What an entry does depends on nothing but the
// entries before it, so all nodes come to the same rows: no clock, no setting of this node, no
// limit that could differ between two nodes. Internal to storage/state*.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/sqlite.h"
#include "storage/state.h"
#include "storage/state_collect.h"
#include "storage/state_compact.h"
#include "storage/state_hash.h"
#include "storage/state_requests.h"
#include "storage/state_schema.h"
#include "storage/state_sessions.h"
#include "storage/state_ttl.h"

namespace quorate::storage {

// What a transaction is refused for, whatever the services let through: the same on every node, so
// constants and not settings. (The settings, which are lower, are checked before a command is
// made.)
inline constexpr size_t kKeyBytesHardMax = 65535;
inline constexpr size_t kValueBytesHardMax = 256u << 20;
inline constexpr uint64_t kChangesHardMax = RowId::kSubMax;  // rows of history in one revision

// A range's end: nullopt is "no end"; see v1::DeleteOperation.
std::optional<std::string> RangeEnd(const std::string& range_end);

// What a transaction may read: items for each read, and bytes for all of them (keys, values and 64
// for each item). The answer is kept by every node, and fits into any client's message.
inline constexpr uint64_t kReadItemsMax = 1000;
inline constexpr uint64_t kReadBytesMax = 2u << 20;

// How many rows one command looks at in ranges that it reads or deletes and ranges and chains that
// it rolls back, so that none keeps the apply thread for long. Rows of deleted keys count, until
// they are compacted. Part of what commands of format 3 mean, and so the same on every node for
// ever; commands of earlier formats have no such bound.
inline constexpr uint64_t kRowsHardMax = 1u << 20;
inline constexpr uint32_t kRowsBoundedFormat = 3;

v1::Answer TooManyRows();  // the refusal

// The tables `item` and `history` and how commands change them. Within the caller's transaction.
class ItemTable {
 public:
  static absl::StatusOr<ItemTable> Prepare(Database& database);

  // Tells every change of an item from now on; the collector outlives this.
  void TellTo(ChangeCollector* collector) { collector_ = collector; }
  // What items are bound to; outlives this. Before the first change.
  void BindTo(TtlTable* ttls) { ttls_ = ttls; }

  // When, by whom and why: the same for all changes of one command.
  struct Context {
    uint64_t log_time_ms = 0;
    int64_t wall_time_ms = 0;
    std::string_view author;
    std::string_view note;
    bool rows_bounded = false;  // kRowsHardMax
  };
  // Runs a transaction. `meta` gives the revision and gets the new one and the hash. A command that
  // cannot be run is an answer, not an error; errors are the database's.
  absl::Status Execute(const v1::Transaction& transaction, const Context& context, StateMeta& meta,
                       v1::Answer& answer);
  // The same for a rollback, and for the end of a time-to-live (storage/state_ttl_items.cc).
  absl::Status Rollback(const v1::Rollback& rollback, const Context& context, StateMeta& meta,
                        v1::Answer& answer);
  absl::Status Revoke(const v1::RevokeTtl& revoke, Context context, StateMeta& meta,
                      v1::Answer& answer);
  absl::Status Expire(const v1::ExpireTtl& expire, Context context, StateMeta& meta,
                      v1::Answer& answer);

 private:
  // One command's changes while they are made.
  struct Changes {
    const Context& context;
    Revision revision;  // the one that they will have
    uint64_t count = 0;
    HashSum hash;       // meta's, with the changes
    uint64_t rows = 0;  // looked at, as kRowsHardMax counts them
    // Why the command is refused after all, found in the middle of it: all of it is undone.
    std::optional<v1::Answer> refusal = std::nullopt;
  };
  absl::StatusOr<ItemRow> Find(std::string_view key);
  // nullopt: every compare holds. Otherwise the first that does not, with the key's mod revision.
  struct Mismatch {
    const v1::Compare* compare;
    Revision current;
  };
  absl::StatusOr<std::optional<Mismatch>> FindMismatch(const v1::Transaction& transaction);
  absl::StatusOr<bool> Holds(const v1::Compare& compare, const ItemRow& item);
  absl::StatusOr<bool> ValueHolds(const v1::Compare& compare, const ItemRow& item);
  // How many keys all range deletions match, at most `limit`.
  absl::StatusOr<uint64_t> CountDeletions(
      const google::protobuf::RepeatedPtrField<v1::Operation>& operations, uint64_t limit);

  // How many rows `item` has in a range, those of deleted keys too, at most `limit`.
  absl::StatusOr<uint64_t> CountRows(std::string_view first, const std::optional<std::string>& end,
                                     uint64_t limit);
  // The same for all ranges of a branch, each as often as it is named.
  absl::StatusOr<uint64_t> CountRowsOf(
      const google::protobuf::RepeatedPtrField<v1::Operation>& operations, uint64_t limit);

  // Runs one branch. With changes.refusal what it has changed until then is undone.
  absl::Status RunBranch(const google::protobuf::RepeatedPtrField<v1::Operation>& operations,
                         Changes& changes, v1::Answer& answer);
  // Runs changes that may have to be undone: when they set changes.refusal.
  absl::Status Undoably(Changes& changes, const std::function<absl::Status()>& run);
  absl::StatusOr<bool> Read(const v1::ReadOperation& read, uint64_t& bytes,
                            v1::OperationResult& result);
  // False: over a limit.
  absl::StatusOr<bool> ReadItem(std::string_view key, const ItemRow& row, bool keys_only,
                                uint64_t& bytes, v1::OperationResult& result);
  absl::StatusOr<uint64_t> CountLive(std::string_view first, const std::optional<std::string>& end,
                                     uint64_t limit);
  // A key's row now and what it was at a revision.
  struct Then {
    RowId row;  // none: the key was not there
    RowKind kind = RowKind::kDelete;
    std::string value;
    uint64_t ttl = 0;
  };
  // Sets changes.refusal when the chain is too long.
  absl::StatusOr<Then> FindThen(RowId row, Revision at, Changes& changes);
  absl::Status RollBackRange(const std::string& first, const std::optional<std::string>& end,
                             Revision to, Changes& changes, v1::OperationResult& result);
  absl::Status RollBackKey(std::string_view key, const ItemRow& now, Revision to, Changes& changes,
                           v1::OperationResult& result);
  absl::StatusOr<uint64_t> CountChangedSince(std::string_view first,
                                             const std::optional<std::string>& end, Revision to);
  absl::Status Put(const v1::PutOperation& put, Changes& changes, v1::OperationResult& result);
  absl::Status Delete(const v1::DeleteOperation& remove, Changes& changes,
                      v1::OperationResult& result);
  absl::Status DeleteRange(const std::string& first, const std::optional<std::string>& end,
                           Changes& changes, v1::OperationResult& result);
  // Calls `act` with each item that `select` (live_, all_ and theirs) finds in the range, in order,
  // until it returns false or an error. It may change the items: they are read a portion at a time.
  // `changed_from`: for a `select` that asks for it.
  using Act = std::function<absl::StatusOr<bool>(const std::string& key, const ItemRow& item)>;
  static absl::Status ForEach(Statement& select, std::string first,
                              const std::optional<std::string>& end, RowId changed_from,
                              const Act& act);
  // `ttl`: what the key is bound to from now on; 0: nothing.
  absl::Status Write(std::string_view key, std::string_view value, RowKind kind,
                     const ItemRow& before, const ItemRow& after, Changes& changes,
                     uint64_t ttl = 0);
  // What an item is bound to; 0: nothing.
  absl::StatusOr<uint64_t> BoundTo(const ItemRow& item);
  // Sets changes.refusal when `ttl` is not there or cannot take one more key.
  absl::Status CheckBinding(uint64_t ttl, Changes& changes);
  // Deletes what is bound to it, and then itself.
  absl::StatusOr<uint64_t> EndTtl(uint64_t ttl, Changes& changes);
  static void Finish(const Changes& changes, StateMeta& meta, v1::Answer& answer);

  Statement find_item_, insert_item_, update_item_, insert_history_, value_, live_, live_until_,
      count_, count_until_, rows_, rows_until_, kind_and_value_, savepoint_, roll_back_, release_,
      previous_, all_, all_until_, changed_, changed_until_, ttl_;
  RowHasher hasher_;
  ChangeCollector* collector_ = nullptr;
  TtlTable* ttls_ = nullptr;
};

// One node's state machine: entries in, rows and outcomes out.
class Applier {
 public:
  static absl::StatusOr<std::unique_ptr<Applier>> Open(Database database,
                                                       const RequestLimits& request_limits);

  // Applies entries in one transaction and appends their outcomes. All of them are applied, or,
  // with an error, none; after an error the Applier answers it for ever.
  absl::Status ApplyBatch(std::span<const raft::EntryPtr> entries, std::vector<Applied>& outcomes);

  // What the following batches put into Applied::changes.
  void Collect(storage::Collect what) { collector_->Begin(what); }

  // As of the last batch.
  const StateMeta& meta() const { return meta_; }
  SessionTable& sessions() { return sessions_; }
  const RequestTable& requests() const { return requests_; }
  const TtlTable::Counts& ttls() const { return ttls_->counts(); }
  uint64_t next_ttl_deadline_ms() const { return next_ttl_deadline_ms_; }  // 0: none
  uint64_t expired_ttls() const { return expired_ttls_; }
  uint64_t duplicates() const { return duplicates_; }
  Database& database() { return database_; }
  // Bytes of write-ahead log that the commits since the last reset have made.
  uint64_t wal_bytes() const { return *wal_bytes_; }
  // Empties the write-ahead log. REQUIRES: nobody reads. False: another process is in the way.
  absl::StatusOr<bool> Truncate();

 private:
  explicit Applier(const RequestLimits& request_limits) : requests_(request_limits) {}
  absl::Status PrepareStatements();
  absl::Status ApplyAll(std::span<const raft::EntryPtr> entries, std::vector<Applied>& outcomes);
  absl::Status ApplyEntry(const raft::Entry& entry, std::vector<Applied>& outcomes);
  absl::Status ApplyMembership(const raft::Entry& entry);
  absl::Status ApplyCommand(const raft::Entry& entry, Applied& outcome);
  absl::Status ParseCommand(const raft::Entry& entry);
  absl::Status OpenSession(const raft::Entry& entry, Applied& outcome);
  // Fills answer_ for a command that its session lets through: what its request id says, or what
  // running it says.
  absl::Status Execute(const raft::Entry& entry);
  absl::Status ExecuteRequest(const raft::Entry& entry);
  absl::Status ExecuteBody(const raft::Entry& entry);
  void SetSettings();
  absl::Status WriteMeta();

  Database database_;  // first: statements must go before it
  Statement begin_, commit_, rollback_, put_store_, put_membership_, put_setting_, record_hash_,
      forget_hashes_, savepoint_, roll_back_, release_;
  std::unique_ptr<ChangeCollector> collector_;
  std::unique_ptr<TtlTable> ttls_;
  std::optional<ItemTable> items_;
  std::optional<Compactor> compactor_;
  std::optional<SessionStore> session_store_;
  std::optional<RequestStore> request_store_;

  StateMeta meta_;
  HashSum stored_rows_;  // of the store's row, the membership's and the settings', as stored
  raft::Index stored_membership_;
  Settings stored_settings_;
  SessionTable sessions_;
  RequestTable requests_;
  uint64_t duplicates_ = 0;
  uint64_t next_ttl_deadline_ms_ = 0;
  uint64_t expired_ttls_ = 0;  // since the process started
  absl::Status broken_;        // the first error
  std::unique_ptr<uint64_t> wal_bytes_ = std::make_unique<uint64_t>(0);  // SQLite's hook has it

  // Used again for each command, for their memory.
  v1::Command command_;
  v1::Answer answer_;
  RowHasher hasher_;
};

}  // namespace quorate::storage
