// The changes of one key, newest first: its chain of history rows.
#include <utility>

#include "storage/state_read.h"

namespace quorate::storage {

absl::StatusOr<HistoryPage> StateReader::History(const HistoryQuery& query,
                                                 const Abandon& abandon) {
  Transaction transaction(*this, abandon);
  if (!transaction.status().ok()) return transaction.status();
  absl::StatusOr<Bounds> bounds = ReadBounds();
  if (!bounds.ok()) return bounds.status();
  absl::StatusOr<bool> walk = NeedsWalk(query.at, *bounds);
  if (!walk.ok()) return walk.status();
  HistoryPage page;
  page.revision = bounds->revision;
  RowId row;
  if (query.before != 0) {
    // The row itself has been shown; what is before it is still whole as long as it is there.
    row = RowId(query.before);
    if (row.revision() <= bounds->compacted) {
      return absl::OutOfRangeError("the rest of this history is compacted: it begins after " +
                                   ToString(bounds->compacted));
    }
    ResetAtExit reset(previous_);
    previous_.BindUint(1, row.value());
    absl::StatusOr<bool> found = previous_.Step();
    if (!found.ok()) return found.status();
    if (!*found) return absl::OutOfRangeError("there is no such place in the history");
    row = RowId(previous_.Uint(0));
  } else {
    ResetAtExit reset(item_);
    item_.BindBytes(1, query.key);
    absl::StatusOr<bool> found = item_.Step();
    if (!found.ok()) return found.status();
    if (*found) row = RowId(item_.Uint(0));
  }
  if (query.at) {
    absl::StatusOr<RowId> then = LastChangeAt(row, *query.at);
    if (!then.ok()) return then.status();
    row = *then;
  }
  absl::Status status = ReadHistory(row, query, bounds->compacted, page);
  if (!status.ok()) return status;
  return page;
}

// Compaction leaves of each key its latest row at or below its bound, at most: whatever is there
// below the bound is shown once, and the chain ends with it.
absl::Status StateReader::ReadHistory(RowId row, const HistoryQuery& query, Revision compacted,
                                      HistoryPage& page) {
  size_t bytes = 0;
  while (row) {
    if (page.items.size() >= query.items_max) {
      ResetAtExit reset(previous_);
      previous_.BindUint(1, row.value());
      absl::StatusOr<bool> found = previous_.Step();
      if (!found.ok()) return found.status();
      page.more = *found;
      return absl::OkStatus();
    }
    ResetAtExit reset(change_);
    change_.BindUint(1, row.value());
    absl::StatusOr<bool> found = change_.Step();
    if (!found.ok()) return found.status();
    if (!*found) {
      if (row.revision() <= compacted) return absl::OkStatus();
      return absl::DataLossError("history row " + std::to_string(row.value()) + " is gone");
    }
    HistoryItem change;
    const auto kind = static_cast<RowKind>(change_.Int(1));
    change.deleted = kind == RowKind::kDelete;
    change.item.key = query.key;
    change.item.is_text = kind == RowKind::kText;
    change.item.create_revision = Revision(change_.Uint(2));
    change.item.mod_revision = row.revision();
    change.item.version = change_.Uint(3);
    change.item.ttl = change_.Uint(8);
    change.wall_time_ms = change_.Int(4);
    change.author = std::string(change_.Bytes(5));
    change.note = std::string(change_.Bytes(6));
    change.place = row.value();
    bytes += query.key.size() + change_.Bytes(7).size() + change.note.size();
    if (bytes > query.bytes_max && !page.items.empty()) {
      page.more = true;
      return absl::OkStatus();
    }
    change.item.value = std::string(change_.Bytes(7));
    const RowId before(change_.Uint(0));
    if (before.value() >= row.value()) {
      return absl::DataLossError("history row " + std::to_string(row.value()) + " points ahead");
    }
    page.items.push_back(std::move(change));
    if (row.revision() <= compacted) return absl::OkStatus();
    row = before;
  }
  return absl::OkStatus();
}

}  // namespace quorate::storage
