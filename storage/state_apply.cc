#include "storage/state_apply.h"

#include <sqlite3.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "storage/answer.h"
#include "storage/command_check.h"

namespace quorate::storage {
namespace {

std::string EntryName(const raft::Entry& entry) {
  return "log entry " + ToString(entry.index) + " (term " + ToString(entry.term) + ")";
}

std::shared_ptr<const std::string> Serialize(const v1::Answer& answer) {
  auto bytes = std::make_shared<std::string>();
  CHECK(answer.SerializeToString(bytes.get()));
  return bytes;
}

std::string_view View(const StateHash& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

}  // namespace

std::string_view RefusalName(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "NONE";
    case Refusal::kUnknownSession:
      return "SESSION_UNKNOWN";
    case Refusal::kGap:
      return "SEQUENCE_GAP";
    case Refusal::kTooManyUnanswered:
      return "TOO_MANY_UNANSWERED";
    case Refusal::kNotMember:
      return "STORE_NOT_MEMBER";
    case Refusal::kOlderBoot:
      return "SESSION_BOOT_OLDER";
    case Refusal::kOtherNonce:
      return "SESSION_NONCE_DIFFERS";
  }
  CHECK(false);
}

absl::StatusOr<std::unique_ptr<Applier>> Applier::Open(Database database,
                                                       const RequestLimits& request_limits) {
  std::unique_ptr<Applier> applier(new Applier(request_limits));
  applier->database_ = std::move(database);
  absl::StatusOr<StateMeta> meta = LoadStateMeta(applier->database_);
  if (!meta.ok()) return meta.status();
  applier->meta_ = *std::move(meta);
  applier->stored_rows_ = HashOfStore(applier->hasher_, applier->meta_) +
                          HashOfMembership(applier->hasher_, applier->meta_) +
                          HashOfSettings(applier->hasher_, applier->meta_);
  applier->stored_settings_ = applier->meta_.settings;
  applier->stored_membership_ = applier->meta_.membership_index;
  absl::Status status = applier->PrepareStatements();
  if (!status.ok()) return status;
  status = SessionStore::Load(applier->database_, applier->sessions_);
  if (!status.ok()) return status;
  status = RequestStore::Load(applier->database_, applier->requests_);
  if (!status.ok()) return status;
  status = applier->ttls_->Load(applier->database_);
  if (!status.ok()) return status;
  absl::StatusOr<uint64_t> deadline = applier->ttls_->NextDeadline();
  if (!deadline.ok()) return deadline.status();
  applier->next_ttl_deadline_ms_ = *deadline;
  // Also in the place of SQLite's own checkpointing after commits, which uses the same hook.
  sqlite3_wal_hook(
      applier->database_.handle(),
      [](void* bytes, sqlite3*, const char*, int pages) {
        constexpr uint64_t kFrameBytes = kStatePageBytes + 24;
        *static_cast<uint64_t*>(bytes) = static_cast<uint64_t>(pages) * kFrameBytes;
        return SQLITE_OK;
      },
      applier->wal_bytes_.get());
  return applier;
}

absl::Status Applier::PrepareStatements() {
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&rollback_, "ROLLBACK"},
      {&put_store_,
       "UPDATE store SET applied = ?1, applied_term = ?2, revision = ?3, compacted = ?4,"
       " log_time_ms = ?5, birth_complete = ?6, hash = ?7"},
      {&put_setting_, "INSERT OR REPLACE INTO setting VALUES (?1, ?2)"},
      {&put_membership_, "INSERT OR REPLACE INTO membership VALUES (1, ?1, ?2)"},
      {&record_hash_, "INSERT OR REPLACE INTO recorded_hash VALUES (?1, ?2)"},
      {&forget_hashes_, "DELETE FROM recorded_hash WHERE at <= ?1"},
      {&savepoint_, "SAVEPOINT command"},
      {&roll_back_, "ROLLBACK TO command"},
      {&release_, "RELEASE command"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database_.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  absl::StatusOr<TtlTable> ttls = TtlTable::Prepare(database_);
  if (!ttls.ok()) return ttls.status();
  ttls_ = std::make_unique<TtlTable>(*std::move(ttls));
  absl::StatusOr<ItemTable> items = ItemTable::Prepare(database_);
  if (!items.ok()) return items.status();
  items_ = *std::move(items);
  absl::StatusOr<Compactor> compactor = Compactor::Prepare(database_);
  if (!compactor.ok()) return compactor.status();
  compactor_ = *std::move(compactor);
  absl::StatusOr<ChangeCollector> collector = ChangeCollector::Prepare(database_);
  if (!collector.ok()) return collector.status();
  collector_ = std::make_unique<ChangeCollector>(*std::move(collector));
  items_->TellTo(collector_.get());
  items_->BindTo(ttls_.get());
  absl::StatusOr<SessionStore> sessions = SessionStore::Prepare(database_);
  if (!sessions.ok()) return sessions.status();
  session_store_ = *std::move(sessions);
  absl::StatusOr<RequestStore> requests = RequestStore::Prepare(database_);
  if (!requests.ok()) return requests.status();
  request_store_ = *std::move(requests);
  return absl::OkStatus();
}

absl::Status Applier::ApplyBatch(std::span<const raft::EntryPtr> entries,
                                 std::vector<Applied>& outcomes) {
  if (!broken_.ok() || entries.empty()) return broken_;
  const size_t before = outcomes.size();
  absl::Status status = begin_.Run();
  if (status.ok()) status = ApplyAll(entries, outcomes);
  if (status.ok()) status = commit_.Run();
  if (status.ok()) return status;
  // What is in memory has run ahead of the database, and nobody may see it.
  outcomes.resize(before);
  broken_ = status;
  if (sqlite3_get_autocommit(database_.handle()) == 0) rollback_.Run().IgnoreError();
  return status;
}

absl::Status Applier::ApplyAll(std::span<const raft::EntryPtr> entries,
                               std::vector<Applied>& outcomes) {
  for (const raft::EntryPtr& entry : entries) {
    CHECK(entry->index == meta_.applied + 1, "entries are applied in order, without a gap");
    CHECK(entry->term >= meta_.applied_term, "terms do not go back");
    meta_.log_time_ms = std::max(meta_.log_time_ms, entry->log_time_ms);
    requests_.Forget(meta_.log_time_ms, meta_.revision);
    absl::Status status = ApplyEntry(*entry, outcomes);
    if (!status.ok()) return status;
    meta_.applied = entry->index;
    meta_.applied_term = entry->term;
  }
  absl::Status status = session_store_->Flush(sessions_, meta_.hash);
  if (!status.ok()) return status;
  status = request_store_->Flush(requests_, meta_.hash);
  if (!status.ok()) return status;
  absl::StatusOr<uint64_t> deadline = ttls_->NextDeadline();
  if (!deadline.ok()) return deadline.status();
  next_ttl_deadline_ms_ = *deadline;
  return WriteMeta();
}

absl::Status Applier::ApplyEntry(const raft::Entry& entry, std::vector<Applied>& outcomes) {
  switch (entry.type) {
    case raft::EntryType::kNoop:
      return absl::OkStatus();
    case raft::EntryType::kBirthComplete:
      meta_.birth_complete = true;
      return absl::OkStatus();
    case raft::EntryType::kMembership:
      return ApplyMembership(entry);
    case raft::EntryType::kCommand: {
      outcomes.emplace_back();
      outcomes.back().index = entry.index;
      absl::Status status = ApplyCommand(entry, outcomes.back());
      outcomes.back().changes = collector_->Take();
      return status;
    }
  }
  return absl::FailedPreconditionError(
      EntryName(entry) + " has type " + std::to_string(static_cast<int>(entry.type)) +
      ", which this build does not know: it was written by a newer version; start that version");
}

absl::Status Applier::ApplyMembership(const raft::Entry& entry) {
  std::optional<raft::Membership> membership = raft::DecodeMembership(entry.payload);
  if (!membership) {
    return absl::FailedPreconditionError(
        EntryName(entry) +
        " carries a membership that this build cannot read: it was written by a"
        " newer version, or the log is damaged");
  }
  if (membership->cluster != meta_.cluster) {
    return absl::FailedPreconditionError(
        EntryName(entry) + " is of cluster " + ToHex(membership->cluster) +
        ", and this database is of cluster " + ToHex(meta_.cluster) +
        ": log and database do not belong together");
  }
  meta_.membership = *std::move(membership);
  meta_.membership_bytes = entry.payload;
  meta_.membership_index = entry.index;
  sessions_.RetainMembers(meta_.membership);
  return absl::OkStatus();
}

absl::Status Applier::ParseCommand(const raft::Entry& entry) {
  absl::Status status = DecodeCommand(entry.payload, command_);
  if (status.ok()) return status;
  const std::string why(status.message());
  if (absl::IsInvalidArgument(status)) {
    return absl::FailedPreconditionError(EntryName(entry) + " carries a command that " + why +
                                         ": the log is damaged, or something else wrote it");
  }
  return absl::FailedPreconditionError("the command in " + EntryName(entry) + " " + why +
                                       ". It is not skipped: it was written by a newer version; "
                                       "start that version on this node, its data is kept");
}

absl::Status Applier::ApplyCommand(const raft::Entry& entry, Applied& outcome) {
  absl::Status status = ParseCommand(entry);
  if (!status.ok()) return status;
  if (command_.body_case() == v1::Command::kOpenSession) return OpenSession(entry, outcome);

  const v1::SessionPosition& position = command_.session();
  outcome.session_store = StoreId(position.store());
  outcome.session_boot = position.boot();
  outcome.session_nonce = position.nonce();
  outcome.session_sequence = position.sequence();
  outcome.refusal = sessions_.Check(position);
  outcome.refused = outcome.refusal != Refusal::kNone;
  if (outcome.refused) return absl::OkStatus();

  outcome.duplicate = sessions_.IsDuplicate(position);
  if (outcome.duplicate) {
    outcome.answer = AnswerOf(sessions_.sessions().at(outcome.session_store), position.sequence());
    ++duplicates_;
    sessions_.Forget(position);
    return absl::OkStatus();
  }
  status = Execute(entry);
  if (!status.ok()) return status;
  outcome.answer = Serialize(answer_);
  sessions_.Forget(position);
  const SessionView& session = sessions_.sessions().at(outcome.session_store).view;
  sessions_.Keep(outcome.session_store,
                 {outcome.answer, HashOfAnswer(hasher_, session, position.sequence(), answer_)});
  return absl::OkStatus();
}

absl::Status Applier::OpenSession(const raft::Entry& entry, Applied& outcome) {
  const v1::OpenSession& open = command_.open_session();
  SessionView wanted;
  wanted.store = StoreId(open.store());
  wanted.boot = open.boot();
  wanted.nonce = open.nonce();
  outcome.session_store = wanted.store;
  outcome.session_boot = wanted.boot;
  outcome.session_nonce = wanted.nonce;
  outcome.refusal = sessions_.Open(wanted, entry.index, meta_.membership, &outcome.duplicate);
  outcome.refused = outcome.refusal != Refusal::kNone;
  if (outcome.refused) return absl::OkStatus();
  answer_.Clear();
  answer_.set_revision(meta_.revision.value());
  outcome.answer = Serialize(answer_);
  return absl::OkStatus();
}

absl::Status Applier::Execute(const raft::Entry& entry) {
  answer_.Clear();
  if (command_.body_case() == v1::Command::kSkip) {
    // Not OK: whoever finds this answer for a write that was given up must not take it for done.
    answer_.set_code(kCancelled);
    answer_.set_reason("SKIPPED");
    answer_.set_message("the write was given up before it was applied");
    answer_.set_revision(meta_.revision.value());
    return absl::OkStatus();
  }
  return command_.has_client_request() ? ExecuteRequest(entry) : ExecuteBody(entry);
}

absl::Status Applier::ExecuteRequest(const raft::Entry& entry) {
  const v1::ClientRequest& request = command_.client_request();
  const Revision before = meta_.revision;
  answer_.set_revision(before.value());
  auto refuse = [this](int32_t code, std::string_view reason, std::string message) {
    answer_.set_code(code);
    answer_.set_reason(std::string(reason));
    answer_.set_message(std::move(message));
    return absl::OkStatus();
  };
  const RequestTable::Found found = requests_.Find(command_.author(), request, before);
  switch (found.verdict) {
    case RequestTable::Verdict::kNew:
      break;
    case RequestTable::Verdict::kRepeat:
      CHECK(answer_.ParseFromString(*found.answer), "a kept answer of ours can be parsed");
      return absl::OkStatus();
    case RequestTable::Verdict::kOther:
      (*answer_.mutable_metadata())["field"] = "request_id";
      return refuse(kInvalidArgument, "REQUEST_ID_REUSED",
                    "request_id: was used for another write before; a repeat is the same in all"
                    " fields");
    case RequestTable::Verdict::kExpired:
      (*answer_.mutable_metadata())["field"] = "request_revision";
      (*answer_.mutable_metadata())["expired_through"] = ToString(requests_.expired_through());
      return refuse(kFailedPrecondition, "REQUEST_ID_EXPIRED",
                    "request_revision: ids of writes that were first sent at revision " +
                        ToString(requests_.expired_through()) +
                        " or before may have been forgotten: this write may have been applied, and"
                        " is not applied again");
    case RequestTable::Verdict::kInFuture:
      (*answer_.mutable_metadata())["field"] = "request_revision";
      (*answer_.mutable_metadata())["current_revision"] = ToString(before);
      return refuse(kOutOfRange, "REVISION_IN_FUTURE",
                    "request_revision: is " + std::to_string(request.revision()) +
                        ", and the store is at revision " + ToString(before));
    case RequestTable::Verdict::kMalformed:
      return refuse(kInvalidArgument, "MALFORMED_COMMAND",
                    "the request id, its revision or the command's hash is missing or too long");
  }
  // What cannot be kept is refused, and nothing of a refused command may stay. A transaction that
  // cannot be kept has changed nothing; a grant changes something and makes no revision.
  const bool undoable = !command_.has_transaction() && !command_.has_rollback();
  if (undoable) {
    if (absl::Status s = savepoint_.Run(); !s.ok()) return s;
  }
  const HashSum hash_before = meta_.hash;
  const TtlTable::Counts ttls_before = ttls_->counts();
  const Settings settings_before = meta_.settings;
  absl::Status status = ExecuteBody(entry);
  if (!status.ok()) return status;
  if (requests_.Keep(command_.author(), request, before, meta_.revision, meta_.log_time_ms,
                     Serialize(answer_), answer_)) {
    return undoable ? release_.Run() : absl::OkStatus();
  }
  if (undoable) {
    status = roll_back_.Run();
    if (status.ok()) status = release_.Run();
    if (!status.ok()) return status;
    meta_.hash = hash_before;
    ttls_->Restore(ttls_before);
    meta_.settings = settings_before;
  }
  // Nothing was changed, so it may be said; and it is not kept, so it must be.
  answer_.Clear();
  answer_.set_revision(before.value());
  return refuse(kResourceExhausted, "REQUEST_IDS_FULL",
                "too many writes with a request id since the store last changed: nothing was"
                " changed; try again later");
}

absl::Status Applier::ExecuteBody(const raft::Entry& entry) {
  if (command_.body_case() == v1::Command::kCompactHistory) {
    return compactor_->Execute(command_.compact_history(), meta_, answer_);
  }
  ItemTable::Context context{meta_.log_time_ms, entry.wall_time_ms, command_.author(),
                             command_.note(), command_.format() >= kRowsBoundedFormat};
  if (command_.body_case() == v1::Command::kRollback) {
    return items_->Rollback(command_.rollback(), context, meta_, answer_);
  }
  switch (command_.body_case()) {
    case v1::Command::kSetSettings:
      SetSettings();
      return absl::OkStatus();
    case v1::Command::kGrantTtl:
      return ttls_->Grant(command_.grant_ttl(), command_.author(), entry.index, meta_, answer_);
    case v1::Command::kKeepAliveTtl:
      return ttls_->KeepAlive(command_.keep_alive_ttl(), meta_, answer_);
    case v1::Command::kRevokeTtl:
      return items_->Revoke(command_.revoke_ttl(), context, meta_, answer_);
    case v1::Command::kExpireTtl: {
      absl::Status status = items_->Expire(command_.expire_ttl(), context, meta_, answer_);
      if (status.ok() && answer_.results_size() == 1) expired_ttls_ += answer_.results(0).count();
      return status;
    }
    default:
      break;
  }
  CHECK(command_.body_case() == v1::Command::kTransaction);
  return items_->Execute(command_.transaction(), context, meta_, answer_);
}

// Answers with all of them.
void Applier::SetSettings() {
  if (command_.set_settings().has_leases()) {
    meta_.settings.leases = command_.set_settings().leases();
  }
  answer_.set_revision(meta_.revision.value());
  (*answer_.mutable_metadata())[kLeasesSetting] =
      meta_.settings.leases.value_or(false) ? "on" : "off";
}

absl::Status Applier::WriteMeta() {
  meta_.hash -= stored_rows_;
  stored_rows_ = HashOfStore(hasher_, meta_) + HashOfMembership(hasher_, meta_) +
                 HashOfSettings(hasher_, meta_);
  meta_.hash += stored_rows_;
  if (stored_membership_ != meta_.membership_index) {
    put_membership_.BindUint(1, meta_.membership_index.value());
    put_membership_.BindBytes(2, meta_.membership_bytes);
    absl::Status status = put_membership_.Run();
    if (!status.ok()) return status;
    stored_membership_ = meta_.membership_index;
  }
  if (stored_settings_ != meta_.settings) {
    put_setting_.BindText(1, kLeasesSetting);
    put_setting_.BindInt(2, *meta_.settings.leases ? 1 : 0);
    if (absl::Status status = put_setting_.Run(); !status.ok()) return status;
    stored_settings_ = meta_.settings;
  }
  const StateHash hash = meta_.hash.bytes();
  if (meta_.applied.value() % kHashInterval == 0) {
    record_hash_.BindUint(1, meta_.applied.value());
    record_hash_.BindBytes(2, View(hash));
    absl::Status status = record_hash_.Run();
    if (!status.ok()) return status;
    constexpr uint64_t kReach = kRecordedHashes * kHashInterval;
    forget_hashes_.BindInt(
        1, static_cast<int64_t>(meta_.applied.value()) - static_cast<int64_t>(kReach));
    status = forget_hashes_.Run();
    if (!status.ok()) return status;
  }
  put_store_.BindUint(1, meta_.applied.value());
  put_store_.BindUint(2, meta_.applied_term.value());
  put_store_.BindUint(3, meta_.revision.value());
  put_store_.BindUint(4, meta_.compacted.value());
  put_store_.BindUint(5, meta_.log_time_ms);
  put_store_.BindInt(6, meta_.birth_complete ? 1 : 0);
  put_store_.BindBytes(7, View(hash));
  return put_store_.Run();
}

absl::StatusOr<bool> Applier::Truncate() {
  if (!broken_.ok()) return broken_;
  int result = sqlite3_wal_checkpoint_v2(database_.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE,
                                         nullptr, nullptr);
  if (result == SQLITE_OK) {
    *wal_bytes_ = 0;
    return true;
  }
  if ((result & 0xff) == SQLITE_BUSY) return false;
  broken_ = SqliteError(database_.handle(), "checkpoint");
  return broken_;
}

}  // namespace quorate::storage
