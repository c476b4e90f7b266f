#include "storage/state_ttl.h"

#include <sqlite3.h>

#include <utility>

#include "base/check.h"
#include "storage/answer.h"

namespace quorate::storage {
HashSum HashOfTtl(RowHasher& hasher, const TtlRow& row) {
  return hasher.Begin(HashedTable::kTtl)
      .Number(row.ttl)
      .Number(row.ttl_ms)
      .Number(row.deadline_ms)
      .Number(row.keys)
      .Bytes(row.author)
      .Finish();
}

HashSum HashOfTtlKey(RowHasher& hasher, uint64_t ttl, std::string_view key) {
  return hasher.Begin(HashedTable::kTtlKey).Number(ttl).Bytes(key).Finish();
}

void RefuseUnknownTtl(uint64_t ttl, v1::Answer& answer) {
  const std::string id = ToHex(ttl);
  (*answer.mutable_metadata())["ttl_id"] = id;
  Refuse(answer, kNotFound, "TTL_NOT_FOUND",
         "ttl_id: there is no time-to-live " + id + ": it has expired, was revoked, or never was");
}

uint64_t TtlIdOf(ClusterId cluster, raft::Index at, uint64_t attempt) {
  RowHasher hasher;
  const StateHash bytes = hasher.Begin(HashedTable::kTtl)
                              .Number(cluster.value())
                              .Number(at.value())
                              .Number(attempt)
                              .Finish()
                              .bytes();
  uint64_t id = 0;
  for (int i = 7; i >= 0; --i) id = id << 8 | bytes[static_cast<size_t>(i)];
  return id;
}

absl::StatusOr<TtlTable> TtlTable::Prepare(Database& database) {
  TtlTable table;
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&table.find_, "SELECT ttl_ms, deadline_ms, keys, author FROM ttl WHERE ttl = ?1"},
      {&table.insert_, "INSERT INTO ttl VALUES (?1, ?2, ?3, ?4, ?5)"},
      {&table.update_, "UPDATE ttl SET deadline_ms = ?2, keys = ?3 WHERE ttl = ?1"},
      {&table.delete_, "DELETE FROM ttl WHERE ttl = ?1"},
      {&table.insert_key_, "INSERT INTO ttl_key VALUES (?1, ?2)"},
      {&table.delete_key_, "DELETE FROM ttl_key WHERE ttl = ?1 AND key = ?2"},
      {&table.keys_, "SELECT key FROM ttl_key WHERE ttl = ?1 ORDER BY key LIMIT ?2"},
      {&table.next_, "SELECT deadline_ms FROM ttl ORDER BY deadline_ms LIMIT 1"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return table;
}

absl::Status TtlTable::Load(Database& database) {
  absl::StatusOr<int64_t> ttls = database.QueryInt("SELECT count(*) FROM ttl");
  if (!ttls.ok()) return ttls.status();
  absl::StatusOr<int64_t> keys = database.QueryInt("SELECT count(*) FROM ttl_key");
  if (!keys.ok()) return keys.status();
  absl::StatusOr<int64_t> wrong = database.QueryInt(
      "SELECT (SELECT count(*) FROM ttl WHERE keys <>"
      " (SELECT count(*) FROM ttl_key WHERE ttl_key.ttl = ttl.ttl))"
      " + (SELECT count(*) FROM ttl_key WHERE ttl NOT IN (SELECT ttl FROM ttl))");
  if (!wrong.ok()) return wrong.status();
  if (*wrong != 0) {
    return DamagedState(sqlite3_db_filename(database.handle(), "main"),
                        "its time-to-lives and what is bound to them do not belong together");
  }
  counts_ = {static_cast<uint64_t>(*ttls), static_cast<uint64_t>(*keys)};
  next_known_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<TtlRow>> TtlTable::Find(uint64_t ttl) {
  if (counts_.ttls == 0) return std::nullopt;
  ResetAtExit reset(find_);
  find_.BindUint(1, ttl);
  absl::StatusOr<bool> found = find_.Step();
  if (!found.ok()) return found.status();
  if (!*found) return std::nullopt;
  return TtlRow{ttl, find_.Uint(0), find_.Uint(1), find_.Uint(2), std::string(find_.Bytes(3))};
}

absl::Status TtlTable::Grant(const v1::GrantTtl& grant, std::string_view author, raft::Index at,
                             StateMeta& meta, v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  if (grant.ttl_ms() == 0 || grant.ttl_ms() > kTtlMsHardMax) {
    Refuse(answer, kInvalidArgument, "MALFORMED_COMMAND",
           "a time-to-live of no time, or of more than ten years");
    return absl::OkStatus();
  }
  if (counts_.ttls >= kTtlsMax) {
    Refuse(answer, kResourceExhausted, "TOO_MANY_TTLS",
           "there are " + std::to_string(counts_.ttls) +
               " time-to-lives, which is the most: revoke what is not needed, or wait "
               "until some expire");
    return absl::OkStatus();
  }
  uint64_t id = 0;
  for (uint64_t attempt = 0; id == 0; ++attempt) {
    id = TtlIdOf(meta.cluster, at, attempt);
    absl::StatusOr<std::optional<TtlRow>> taken = Find(id);
    if (!taken.ok()) return taken.status();
    if (*taken) id = 0;
  }
  const TtlRow row{id, grant.ttl_ms(), meta.log_time_ms + grant.ttl_ms(), 0, std::string(author)};
  insert_.BindUint(1, row.ttl);
  insert_.BindUint(2, row.ttl_ms);
  insert_.BindUint(3, row.deadline_ms);
  insert_.BindUint(4, row.keys);
  insert_.BindText(5, row.author);
  if (absl::Status s = insert_.Run(); !s.ok()) return s;
  meta.hash += HashOfTtl(hasher_, row);
  ++counts_.ttls;
  next_known_ = false;
  v1::OperationResult& result = *answer.add_results();
  result.set_ttl_id(row.ttl);
  result.set_ttl_ms(row.ttl_ms);
  answer.set_succeeded(true);
  return absl::OkStatus();
}

absl::Status TtlTable::KeepAlive(const v1::KeepAliveTtl& keep, StateMeta& meta,
                                 v1::Answer& answer) {
  answer.set_revision(meta.revision.value());
  if (keep.ttl_id().empty() || keep.ttl_id_size() > kTtlIdsPerCommandMax) {
    Refuse(answer, kInvalidArgument, "MALFORMED_COMMAND",
           "a renewal of no time-to-live, or of too many");
    return absl::OkStatus();
  }
  for (const uint64_t id : keep.ttl_id()) {
    v1::OperationResult& result = *answer.add_results();
    result.set_ttl_id(id);
    absl::StatusOr<std::optional<TtlRow>> row = Find(id);
    if (!row.ok()) return row.status();
    // One whose time is over and that nobody has ended yet lives: its items are still there.
    if (!*row) continue;
    TtlRow renewed = **row;
    renewed.deadline_ms = meta.log_time_ms + renewed.ttl_ms;
    if (absl::Status s = Update(**row, renewed, meta.hash); !s.ok()) return s;
    result.set_ttl_ms(renewed.ttl_ms);
  }
  answer.set_succeeded(true);
  return absl::OkStatus();
}

absl::Status TtlTable::Update(const TtlRow& before, const TtlRow& after, HashSum& hash) {
  update_.BindUint(1, after.ttl);
  update_.BindUint(2, after.deadline_ms);
  update_.BindUint(3, after.keys);
  if (absl::Status s = update_.Run(); !s.ok()) return s;
  hash -= HashOfTtl(hasher_, before);
  hash += HashOfTtl(hasher_, after);
  if (before.deadline_ms != after.deadline_ms) next_known_ = false;
  return absl::OkStatus();
}

absl::Status TtlTable::Bind(uint64_t ttl, std::string_view key, HashSum& hash) {
  absl::StatusOr<std::optional<TtlRow>> row = Find(ttl);
  if (!row.ok()) return row.status();
  CHECK(row->has_value() && (*row)->keys < kTtlKeysMax, "bound to what cannot take it");
  insert_key_.BindUint(1, ttl);
  insert_key_.BindBytes(2, key);
  if (absl::Status s = insert_key_.Run(); !s.ok()) return s;
  hash += HashOfTtlKey(hasher_, ttl, key);
  ++counts_.keys;
  TtlRow after = **row;
  ++after.keys;
  return Update(**row, after, hash);
}

absl::Status TtlTable::Unbind(uint64_t ttl, std::string_view key, HashSum& hash) {
  absl::StatusOr<std::optional<TtlRow>> row = Find(ttl);
  if (!row.ok()) return row.status();
  if (!*row || (*row)->keys == 0 || counts_.keys == 0) {
    return absl::DataLossError("an item is bound to a time-to-live that does not know of it");
  }
  delete_key_.BindUint(1, ttl);
  delete_key_.BindBytes(2, key);
  if (absl::Status s = delete_key_.Run(); !s.ok()) return s;
  hash -= HashOfTtlKey(hasher_, ttl, key);
  --counts_.keys;
  TtlRow after = **row;
  --after.keys;
  return Update(**row, after, hash);
}

absl::Status TtlTable::Remove(uint64_t ttl, HashSum& hash) {
  absl::StatusOr<std::optional<TtlRow>> row = Find(ttl);
  if (!row.ok()) return row.status();
  CHECK(row->has_value() && (*row)->keys == 0, "removed while something is bound to it");
  delete_.BindUint(1, ttl);
  if (absl::Status s = delete_.Run(); !s.ok()) return s;
  hash -= HashOfTtl(hasher_, **row);
  --counts_.ttls;
  next_known_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TtlTable::Keys(uint64_t ttl, uint64_t limit) {
  std::vector<std::string> keys;
  ResetAtExit reset(keys_);
  keys_.BindUint(1, ttl);
  keys_.BindUint(2, limit);
  while (true) {
    absl::StatusOr<bool> row = keys_.Step();
    if (!row.ok()) return row.status();
    if (!*row) return keys;
    keys.emplace_back(keys_.Bytes(0));
  }
}

absl::StatusOr<uint64_t> TtlTable::NextDeadline() {
  if (next_known_) return next_deadline_ms_;
  ResetAtExit reset(next_);
  absl::StatusOr<bool> row = next_.Step();
  if (!row.ok()) return row.status();
  next_deadline_ms_ = *row ? next_.Uint(0) : 0;
  next_known_ = true;
  return next_deadline_ms_;
}

absl::Status SumTtls(Database& database, RowHasher& hasher, HashSum& sum) {
  absl::StatusOr<Statement> select =
      database.Prepare("SELECT ttl, ttl_ms, deadline_ms, keys, author FROM ttl");
  if (!select.ok()) return select.status();
  while (true) {
    absl::StatusOr<bool> more = select->Step();
    if (!more.ok()) return more.status();
    if (!*more) break;
    sum += HashOfTtl(hasher, {select->Uint(0), select->Uint(1), select->Uint(2), select->Uint(3),
                              std::string(select->Bytes(4))});
  }
  select = database.Prepare("SELECT ttl, key FROM ttl_key");
  if (!select.ok()) return select.status();
  while (true) {
    absl::StatusOr<bool> more = select->Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    sum += HashOfTtlKey(hasher, select->Uint(0), select->Bytes(1));
  }
}

}  // namespace quorate::storage
