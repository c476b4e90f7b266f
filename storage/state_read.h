// Reads of the state database over one read-only connection, each in one short transaction.
//
// One thread at a time uses a StateReader; ReaderPool (state_readers.h) hands them out. Internal to
// storage/state*.
#pragma once

#include <atomic>
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
#include "storage/sqlite.h"
#include "storage/state.h"
#include "storage/state_schema.h"

namespace quorate::storage {

class StateReader {
 public:
  static absl::StatusOr<std::unique_ptr<StateReader>> Open(
      const std::string& path, Database::Mode mode = Database::Mode::kReadOnly);

  // As State's methods of these names; `abandon` as in ReadLimits.
  using Abandon = std::function<bool()>;
  std::pair<absl::StatusOr<Item>, Revision> Get(std::string_view key, std::optional<Revision> at,
                                                const Abandon& abandon = nullptr);
  absl::StatusOr<ListPage> List(const ListQuery& query, const Abandon& abandon = nullptr);
  absl::StatusOr<std::pair<uint64_t, Revision>> Count(std::string_view prefix,
                                                      std::optional<Revision> at,
                                                      const Abandon& abandon = nullptr);
  absl::StatusOr<ChangesPage> Changes(const ChangesQuery& query);  // state_history_read.cc
  absl::StatusOr<HistoryPage> History(const HistoryQuery& query, const Abandon& abandon = nullptr);
  absl::StatusOr<std::vector<std::pair<raft::Index, StateHash>>> RecordedHashes();
  absl::StatusOr<std::vector<uint64_t>> DueTtls(uint64_t log_time_ms, size_t limit);

  // What the database says of itself, as this code reads it.
  absl::StatusOr<StateMeta> Meta() { return LoadStateMeta(database_); }
  // Reads every row. Looks at `abandon` now and then: kAborted when it is set.
  absl::StatusOr<HashCheck> CheckHash(const std::atomic<bool>& abandon);

 private:
  // BEGIN takes no snapshot by itself: the first SELECT does, and all that follow see the same.
  // ROLLBACK ends it, because that cannot fail; after some errors SQLite has ended it already.
  class Transaction {
   public:
    // `abandon` outlives it. Neither BEGIN nor ROLLBACK is ever abandoned.
    explicit Transaction(StateReader& reader, const Abandon& abandon = nullptr);
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    const absl::Status& status() const { return status_; }

   private:
    StateReader& reader_;
    absl::Status status_;
  };
  // What a read sees of the store as a whole.
  struct Bounds {
    Revision revision;
    Revision compacted;
  };
  StateReader() = default;

  absl::StatusOr<Bounds> ReadBounds();
  // kOutOfRange when `at` cannot be read. True: `at` is before the latest revision, so chains have
  // to be walked.
  absl::StatusOr<bool> NeedsWalk(std::optional<Revision> at, const Bounds& bounds) const;
  // The history row of a key that was the latest at `at`, also a deletion's; none when there was
  // none, and in front of a first version (what says that the key was not there may be compacted).
  absl::StatusOr<RowId> RowAt(RowId row, Revision at);
  // The last change of a key until `at`, be it a deletion; none: there was none. The row may be
  // compacted, where `at` is the bound or just above it.
  absl::StatusOr<RowId> LastChangeAt(RowId row, Revision at);
  // The row before this one in its key's chain, and whether this one is a first version.
  absl::StatusOr<RowId> Previous(RowId row, bool* first_version);
  // Fills kind, value, revisions and version from a history row. False: it is a deletion.
  absl::StatusOr<bool> ReadItem(RowId row, bool keys_only, Item& item);
  absl::Status ReadValue(RowId row, Change& change);  // and its time-to-live
  // What a key held before the change that `previous` belongs to; nullopt: nothing.
  absl::StatusOr<std::optional<Change::Previous>> ReadPrevious(RowId previous,
                                                               const Bounds& bounds);
  absl::Status ReadHistory(RowId row, const HistoryQuery& query, Revision compacted,
                           HistoryPage& page);
  absl::Status ReadPage(const ListQuery& query, bool walk, ListPage& page);
  // Positions `items_` or `items_until_` on the keys from `first` to the end of `prefix`.
  Statement& BindRange(std::string_view first, const std::optional<std::string>& end);

  absl::Status SumItems(const std::atomic<bool>& abandon, HashSum& sum);
  absl::Status SumHistory(const std::atomic<bool>& abandon, HashSum& sum);

  Database database_;
  Statement begin_, rollback_, bounds_, item_, items_, items_until_, previous_, history_, head_,
      count_, count_until_, changes_, change_, due_ttls_;
  RowHasher hasher_;
};

}  // namespace quorate::storage
