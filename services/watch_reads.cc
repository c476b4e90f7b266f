#include "services/watch_reads.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/change.h"

namespace quorate::services {
namespace {

using ingress::WatchHub;
using ingress::WatchRead;

Change FromItem(storage::Item item) {
  Change change;
  change.revision = item.mod_revision;
  change.key = std::move(item.key);
  change.is_text = item.is_text;
  change.value = std::move(item.value);
  change.create_revision = item.create_revision;
  change.version = item.version;
  change.ttl = item.ttl;
  return change;
}

absl::StatusOr<ingress::WatchStatePortion> ReadPortion(storage::State* state, const WatchRead& read,
                                                       const storage::ReadLimits& limits) {
  ingress::WatchStatePortion portion;
  if (!read.filter.is_prefix) {
    auto [item, revision] = state->Get(read.filter.text, read.at, limits);
    if (!item.ok() && !absl::IsNotFound(item.status())) return item.status();
    portion.revision = revision;
    if (item.ok()) portion.items.push_back(FromItem(*std::move(item)));
    return portion;
  }
  storage::ListQuery query;
  query.prefix = read.filter.text;
  query.after = read.after;
  query.at = read.at;
  query.bytes_max = read.bytes_max;
  absl::StatusOr<storage::ListPage> page = state->List(query, limits);
  if (!page.ok()) return page.status();
  portion.revision = page->revision;
  portion.more = page->more;
  for (storage::Item& item : page->items) portion.items.push_back(FromItem(std::move(item)));
  return portion;
}

absl::StatusOr<storage::ChangesPage> ReadHistory(storage::State* state, const WatchRead& read) {
  storage::ChangesQuery query;
  query.filter = read.filter;
  query.from = read.from;
  query.with_previous = read.with_previous;
  query.rows_max = read.rows_max;
  query.bytes_max = read.bytes_max;
  return state->Changes(query);
}

WatchHub::ReadFailure FailureOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOutOfRange:
      return WatchHub::ReadFailure::kCompacted;
    case absl::StatusCode::kDeadlineExceeded:
      return WatchHub::ReadFailure::kBusy;
    default:
      return WatchHub::ReadFailure::kFailed;
  }
}

WatchAnswer Failed(uint64_t ticket, const absl::Status& status) {
  return [ticket, failure = FailureOf(status), message = std::string(status.message())](
             WatchHub* hub, Instant now) { hub->OnReadFailed(now, ticket, failure, message); };
}

}  // namespace

WatchAnswer ReadForWatch(storage::State* state, const WatchRead& read,
                         const storage::ReadLimits& limits) {
  const uint64_t ticket = read.ticket;
  if (read.state) {
    auto portion = ReadPortion(state, read, limits);
    if (!portion.ok()) return Failed(ticket, portion.status());
    return [ticket, portion = *std::move(portion)](WatchHub* hub, Instant now) {
      hub->OnState(now, ticket, portion);
    };
  }
  auto page = ReadHistory(state, read);
  if (!page.ok()) return Failed(ticket, page.status());
  return [ticket, page = *std::move(page)](WatchHub* hub, Instant now) {
    hub->OnChanges(now, ticket, page.changes, page.end);
  };
}

storage::Collect CollectFor(WatchHub::Wants wants) {
  switch (wants) {
    case WatchHub::Wants::kNothing:
      return storage::Collect::kNothing;
    case WatchHub::Wants::kChanges:
      return storage::Collect::kChanges;
    case WatchHub::Wants::kPrevious:
      return storage::Collect::kPrevious;
  }
  return storage::Collect::kPrevious;
}

}  // namespace quorate::services
