// History by revision: what watches that are not live read.
#include <algorithm>

#include "storage/state_read.h"

namespace quorate::storage {
namespace {

RowId RowOf(ChangePosition position) { return RowId(position.revision, position.sub); }

ChangePosition PositionOf(RowId row) { return {row.revision(), row.value() & RowId::kSubMax}; }

}  // namespace

absl::StatusOr<ChangesPage> StateReader::Changes(const ChangesQuery& query) {
  Transaction transaction(*this);
  if (!transaction.status().ok()) return transaction.status();
  absl::StatusOr<Bounds> bounds = ReadBounds();
  if (!bounds.ok()) return bounds.status();
  if (query.from.revision <= bounds->compacted) {
    return absl::OutOfRangeError("the changes of revision " + ToString(query.from.revision) +
                                 " are compacted: history begins after " +
                                 ToString(bounds->compacted));
  }
  ChangesPage page;
  page.revision = bounds->revision;
  page.end = std::max(query.from, ChangePosition{bounds->revision + 1, 0});
  // Beyond what a row's number can hold there is no row (and no overflow of it).
  if (query.from.revision.value() > RowId::kRevisionMax) return page;
  ResetAtExit reset(changes_);
  changes_.BindUint(1, RowOf(query.from).value());
  size_t rows = 0;
  size_t bytes = 0;
  while (true) {
    absl::StatusOr<bool> more = changes_.Step();
    if (!more.ok()) return more.status();
    if (!*more) return page;
    const RowId row(changes_.Uint(0));
    if (rows >= query.rows_max || bytes >= query.bytes_max) {
      page.end = PositionOf(row);
      return page;
    }
    ++rows;
    if (!query.filter.Matches(changes_.Bytes(5))) continue;
    const auto kind = static_cast<RowKind>(changes_.Int(2));
    Change change;
    change.revision = row.revision();
    change.sub = PositionOf(row).sub;
    change.key = std::string(changes_.Bytes(5));
    change.deleted = kind == RowKind::kDelete;
    change.is_text = kind == RowKind::kText;
    if (absl::Status status = ReadValue(row, change); !status.ok()) return status;
    change.create_revision = Revision(changes_.Uint(3));
    change.version = changes_.Uint(4);
    // Before a first version the key was not there; what says so may be compacted.
    if (const RowId previous(changes_.Uint(1));
        query.with_previous && previous && !change.created()) {
      auto before = ReadPrevious(previous, *bounds);
      if (!before.ok()) return before.status();
      change.previous = *std::move(before);
    }
    bytes += change.bytes();
    page.changes.push_back(std::move(change));
  }
}

// Apart from the row: SQLite would read every value that is looked at, and most are not wanted.
absl::Status StateReader::ReadValue(RowId row, Change& change) {
  ResetAtExit reset(history_);
  history_.BindUint(1, row.value());
  absl::StatusOr<bool> found = history_.Step();
  if (!found.ok()) return found.status();
  if (!*found) {
    return absl::DataLossError("history row " + std::to_string(row.value()) + " is gone");
  }
  change.value = std::string(history_.Bytes(3));
  change.ttl = history_.Uint(4);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Change::Previous>> StateReader::ReadPrevious(RowId previous,
                                                                          const Bounds& bounds) {
  ResetAtExit reset(history_);
  history_.BindUint(1, previous.value());
  absl::StatusOr<bool> found = history_.Step();
  if (!found.ok()) return found.status();
  if (!*found) {
    if (previous.revision() <= bounds.compacted) {
      // Compaction keeps what a later change replaces; should it ever not, half an answer would be
      // a wrong one.
      return absl::OutOfRangeError("what was there at revision " + ToString(previous.revision()) +
                                   " is compacted");
    }
    return absl::DataLossError("history row " + std::to_string(previous.value()) + " is gone");
  }
  const auto kind = static_cast<RowKind>(history_.Int(0));
  if (kind == RowKind::kDelete) return std::nullopt;
  return Change::Previous{.is_text = kind == RowKind::kText,
                          .value = std::string(history_.Bytes(3)),
                          .create_revision = Revision(history_.Uint(1)),
                          .mod_revision = previous.revision(),
                          .version = history_.Uint(2),
                          .ttl = history_.Uint(4)};
}

}  // namespace quorate::storage
