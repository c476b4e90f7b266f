// Items that are bound to a time-to-live, and what happens to them at its end.
#include <string>
#include <utility>
#include <vector>

#include "storage/answer.h"
#include "storage/state_apply.h"

namespace quorate::storage {
namespace {

// A deletion takes its keys in portions, so that memory stays bounded.
constexpr uint64_t kTtlPortion = 256;

constexpr std::string_view kRevokedNote = "time-to-live revoked";
constexpr std::string_view kExpiredNote = "time-to-live expired";

}  // namespace

absl::StatusOr<uint64_t> ItemTable::BoundTo(const ItemRow& item) {
  if (!item.exists() || ttls_->counts().keys == 0) return 0;
  ResetAtExit reset(ttl_);
  ttl_.BindUint(1, item.row.value());
  absl::StatusOr<bool> found = ttl_.Step();
  if (!found.ok()) return found.status();
  if (!*found) return absl::DataLossError("the history row of an item is gone");
  return ttl_.Uint(0);
}

absl::Status ItemTable::CheckBinding(uint64_t ttl, Changes& changes) {
  absl::StatusOr<std::optional<TtlRow>> row = ttls_->Find(ttl);
  if (!row.ok()) return row.status();
  if (!*row) {
    RefuseUnknownTtl(ttl, changes.refusal.emplace());
  } else if ((*row)->keys >= kTtlKeysMax) {
    v1::Answer& refusal = changes.refusal.emplace();
    Refuse(refusal, kResourceExhausted, "TTL_TOO_MANY_KEYS",
           "ttl_id: " + std::to_string(kTtlKeysMax) +
               " keys are bound to it, which is the most: grant another one");
    (*refusal.mutable_metadata())["ttl_id"] = ToHex(ttl);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ItemTable::EndTtl(uint64_t ttl, Changes& changes) {
  uint64_t deleted = 0;
  while (true) {
    // Each is unbound as it is deleted: the next portion is what is left.
    absl::StatusOr<std::vector<std::string>> keys = ttls_->Keys(ttl, kTtlPortion);
    if (!keys.ok()) return keys.status();
    for (const std::string& key : *keys) {
      absl::StatusOr<ItemRow> before = Find(key);
      if (!before.ok()) return before.status();
      if (!before->exists()) return absl::DataLossError("a key that is not there is bound");
      absl::Status status = Write(key, {}, RowKind::kDelete, *before, ItemRow{}, changes);
      if (!status.ok()) return status;
    }
    deleted += keys->size();
    if (keys->size() < kTtlPortion) break;
  }
  if (absl::Status s = ttls_->Remove(ttl, changes.hash); !s.ok()) return s;
  return deleted;
}

absl::Status ItemTable::Revoke(const v1::RevokeTtl& revoke, Context context, StateMeta& meta,
                               v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  absl::StatusOr<std::optional<TtlRow>> row = ttls_->Find(revoke.ttl_id());
  if (!row.ok()) return row.status();
  if (!*row) {
    RefuseUnknownTtl(revoke.ttl_id(), answer);
    return absl::OkStatus();
  }
  if (context.note.empty()) context.note = kRevokedNote;
  Changes changes{context, meta.revision + 1, 0, meta.hash};
  absl::StatusOr<uint64_t> deleted = EndTtl(revoke.ttl_id(), changes);
  if (!deleted.ok()) return deleted.status();
  answer.set_succeeded(true);
  answer.add_results()->set_deleted(*deleted);
  Finish(changes, meta, answer);
  return absl::OkStatus();
}

absl::Status ItemTable::Expire(const v1::ExpireTtl& expire, Context context, StateMeta& meta,
                               v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  if (expire.ttl_id_size() > kTtlIdsPerCommandMax) {
    Refuse(answer, kInvalidArgument, "MALFORMED_COMMAND", "too many time-to-lives at once");
    return absl::OkStatus();
  }
  if (context.note.empty()) context.note = kExpiredNote;
  Changes changes{context, meta.revision + 1, 0, meta.hash};
  uint64_t ended = 0;
  for (const uint64_t ttl : expire.ttl_id()) {
    absl::StatusOr<std::optional<TtlRow>> row = ttls_->Find(ttl);
    if (!row.ok()) return row.status();
    if (!*row || meta.log_time_ms <= (*row)->deadline_ms) continue;
    absl::StatusOr<uint64_t> deleted = EndTtl(ttl, changes);
    if (!deleted.ok()) return deleted.status();
    ++ended;
    if (changes.count >= kExpiredKeysPerCommand) break;
  }
  answer.set_succeeded(true);
  v1::OperationResult& result = *answer.add_results();
  result.set_deleted(changes.count);
  result.set_count(ended);
  Finish(changes, meta, answer);
  return absl::OkStatus();
}

}  // namespace quorate::storage
