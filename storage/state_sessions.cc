#include "storage/state_sessions.h"

#include <sqlite3.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

void AppendLength(std::string& out, size_t length) {
  for (int i = 0; i < 4; ++i, length >>= 8) out.push_back(static_cast<char>(length));
}

// Takes one answer off the front; false when the bytes are not a list of answers.
bool TakeAnswer(std::string_view& bytes, std::string_view& answer) {
  if (bytes.size() < 4) return false;
  size_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[i]);
  bytes.remove_prefix(4);
  if (bytes.size() < length) return false;
  answer = bytes.substr(0, length);
  bytes.remove_prefix(length);
  return true;
}

bool SameProcess(const SessionView& a, const SessionView& b) {
  return a.boot == b.boot && a.nonce == b.nonce;
}

}  // namespace

HashSum HashOfSession(RowHasher& hasher, const Session& session) {
  return hasher.Begin(HashedTable::kSession)
      .Number(session.view.store.value())
      .Number(session.view.boot)
      .Number(session.view.nonce)
      .Number(session.view.opened_at.value())
      .Number(session.view.last_sequence)
      .Number(session.view.answered_through)
      .Finish();
}

RowHasher& AddAnswer(RowHasher& hasher, const v1::Answer& answer) {
  hasher.Number(static_cast<uint64_t>(static_cast<int64_t>(answer.code())))
      .Bytes(answer.reason())
      .Number(answer.revision())
      .Number(answer.succeeded() ? 1 : 0);
  const std::map<std::string, std::string> metadata(answer.metadata().begin(),
                                                    answer.metadata().end());
  hasher.Number(metadata.size());
  for (const auto& [name, value] : metadata) hasher.Bytes(name).Bytes(value);
  hasher.Number(static_cast<uint64_t>(answer.results_size()));
  for (const v1::OperationResult& result : answer.results()) {
    hasher.Number(result.create_revision()).Number(result.version()).Number(result.deleted());
  }
  // Behind everything else, so that an answer without reads is hashed as before there were any.
  for (int i = 0; i < answer.results_size(); ++i) {
    const v1::OperationResult& result = answer.results(i);
    if (result.count() == 0) continue;
    hasher.Number(static_cast<uint64_t>(i)).Number(result.count());
    hasher.Number(static_cast<uint64_t>(result.items_size()));
    for (const v1::ReadItem& item : result.items()) {
      hasher.Bytes(item.key())
          .Bytes(item.value())
          .Number(static_cast<uint64_t>(item.value_kind()))
          .Number(item.create_revision())
          .Number(item.mod_revision())
          .Number(item.version())
          .Number(item.ttl_id());
    }
  }
  for (int i = 0; i < answer.results_size(); ++i) {
    const v1::OperationResult& result = answer.results(i);
    if (result.ttl_id() == 0) continue;
    hasher.Bytes("ttl").Number(static_cast<uint64_t>(i));
    hasher.Number(result.ttl_id()).Number(result.ttl_ms());
  }
  return hasher;
}

HashSum HashOfAnswer(RowHasher& hasher, const SessionView& session, uint64_t sequence,
                     const v1::Answer& answer) {
  hasher.Begin(HashedTable::kAnswer).Number(session.store.value()).Number(sequence);
  return AddAnswer(hasher, answer).Finish();
}

std::shared_ptr<const std::string> AnswerOf(const Session& session, uint64_t sequence) {
  if (sequence <= session.view.answered_through || sequence > session.view.last_sequence) {
    return nullptr;
  }
  return session.answers[sequence - session.view.answered_through - 1].bytes;
}

Refusal SessionTable::Open(const SessionView& wanted, raft::Index at,
                           const raft::Membership& membership, bool* again) {
  *again = false;
  if (membership.Find(wanted.store) == nullptr) return Refusal::kNotMember;
  auto found = sessions_.find(wanted.store);
  if (found != sessions_.end()) {
    const SessionView& open = found->second.view;
    if (SameProcess(open, wanted)) {
      *again = true;
      return Refusal::kNone;
    }
    if (wanted.boot < open.boot) return Refusal::kOlderBoot;
    if (wanted.boot == open.boot) return Refusal::kOtherNonce;
    Delete(wanted.store);
  }
  Session session;
  session.view = {wanted.store, wanted.boot, wanted.nonce, 0, 0, at};
  sessions_.emplace(wanted.store, std::move(session));
  dirty_.insert(wanted.store);
  return Refusal::kNone;
}

Refusal SessionTable::Check(const v1::SessionPosition& position) const {
  auto found = sessions_.find(StoreId(position.store()));
  if (found == sessions_.end()) return Refusal::kUnknownSession;
  const SessionView& open = found->second.view;
  if (open.boot != position.boot() || open.nonce != position.nonce()) {
    return Refusal::kUnknownSession;
  }
  if (position.sequence() == 0 || position.sequence() > open.last_sequence + 1) {
    return Refusal::kGap;
  }
  if (position.sequence() == open.last_sequence + 1) {
    // What would be kept once this one is executed.
    uint64_t through =
        std::max(open.answered_through, std::min(position.answered_through(), open.last_sequence));
    if (position.sequence() - through > kUnansweredMax) return Refusal::kTooManyUnanswered;
  }
  return Refusal::kNone;
}

bool SessionTable::IsDuplicate(const v1::SessionPosition& position) const {
  return position.sequence() <= sessions_.at(StoreId(position.store())).view.last_sequence;
}

void SessionTable::Forget(const v1::SessionPosition& position) {
  Session& session = sessions_.at(StoreId(position.store()));
  // A command cannot say that its own answer has arrived.
  uint64_t through = std::min(position.answered_through(), position.sequence() - 1);
  if (through <= session.view.answered_through) return;
  dirty_.insert(session.view.store);
  while (session.view.answered_through < through) {
    session.answers_hash -= session.answers.front().hash;
    session.answers.pop_front();
    ++session.view.answered_through;
  }
}

void SessionTable::Keep(StoreId store, KeptAnswer answer) {
  Session& session = sessions_.at(store);
  dirty_.insert(store);
  ++session.view.last_sequence;
  session.answers_hash += answer.hash;
  session.answers.push_back(std::move(answer));
  CHECK(session.answers.size() == session.view.last_sequence - session.view.answered_through);
  CHECK(session.answers.size() <= kUnansweredMax);
}

void SessionTable::Delete(StoreId store) {
  auto found = sessions_.find(store);
  if (found->second.stored) gone_.push_back({store, found->second.stored_hash});
  sessions_.erase(found);
  dirty_.insert(store);
}

void SessionTable::RetainMembers(const raft::Membership& membership) {
  std::vector<StoreId> removed;
  for (const auto& [store, session] : sessions_) {
    if (membership.Find(store) == nullptr) removed.push_back(store);
  }
  for (StoreId store : removed) Delete(store);
}

void SessionTable::BringUpToDate(std::map<StoreId, Session>& copy) const {
  for (StoreId store : dirty_) {
    auto now = sessions_.find(store);
    if (now == sessions_.end()) {
      copy.erase(store);
      continue;
    }
    const Session& from = now->second;
    Session& to = copy[store];
    if (to.view.opened_at != from.view.opened_at) to = Session();
    const uint64_t have = std::max(to.view.last_sequence, from.view.answered_through);
    while (to.view.answered_through < from.view.answered_through && !to.answers.empty()) {
      to.answers.pop_front();
      ++to.view.answered_through;
    }
    for (uint64_t next = have + 1; next <= from.view.last_sequence; ++next) {
      to.answers.push_back(from.answers[next - from.view.answered_through - 1]);
    }
    to.view = from.view;
    CHECK(to.answers.size() == from.answers.size());
  }
}

absl::StatusOr<SessionStore> SessionStore::Prepare(Database& database) {
  SessionStore store;
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&store.put_session_, "INSERT OR REPLACE INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6)"},
      {&store.delete_session_, "DELETE FROM session WHERE store = ?1"},
      {&store.put_answers_, "INSERT INTO session_answers VALUES (?1, ?2, ?3)"},
      {&store.delete_answers_,
       "DELETE FROM session_answers WHERE store = ?1 AND first_sequence = ?2"},
      {&store.delete_all_answers_, "DELETE FROM session_answers WHERE store = ?1"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return store;
}

absl::Status SessionStore::Flush(SessionTable& table, HashSum& hash) {
  for (const SessionTable::Gone& gone : table.gone_) {
    delete_session_.BindUint(1, gone.store.value());
    absl::Status status = delete_session_.Run();
    if (!status.ok()) return status;
    delete_all_answers_.BindUint(1, gone.store.value());
    status = delete_all_answers_.Run();
    if (!status.ok()) return status;
    hash -= gone.stored_hash;
  }
  table.gone_.clear();
  for (StoreId store : table.dirty_) {
    auto found = table.sessions_.find(store);
    if (found == table.sessions_.end()) continue;
    absl::Status status = FlushSession(store, found->second, hash);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SessionStore::FlushSession(StoreId store, Session& session, HashSum& hash) {
  const SessionView& view = session.view;
  while (!session.chunks.empty() && session.chunks.front().second <= view.answered_through) {
    delete_answers_.BindUint(1, store.value());
    delete_answers_.BindUint(2, session.chunks.front().first);
    absl::Status status = delete_answers_.Run();
    if (!status.ok()) return status;
    session.chunks.pop_front();
  }
  // An answer that came and went within this batch is never written.
  const uint64_t first = std::max(session.stored_through, view.answered_through) + 1;
  if (first <= view.last_sequence) {
    std::string answers;
    for (uint64_t next = first; next <= view.last_sequence; ++next) {
      const std::string& bytes = *session.answers[next - view.answered_through - 1].bytes;
      AppendLength(answers, bytes.size());
      answers += bytes;
    }
    put_answers_.BindUint(1, store.value());
    put_answers_.BindUint(2, first);
    put_answers_.BindBytes(3, answers);
    absl::Status status = put_answers_.Run();
    if (!status.ok()) return status;
    session.chunks.emplace_back(first, view.last_sequence);
  }
  session.stored_through = view.last_sequence;
  put_session_.BindUint(1, store.value());
  put_session_.BindUint(2, view.boot);
  put_session_.BindUint(3, view.nonce);
  put_session_.BindUint(4, session.view.opened_at.value());
  put_session_.BindUint(5, view.last_sequence);
  put_session_.BindUint(6, view.answered_through);
  absl::Status status = put_session_.Run();
  if (!status.ok()) return status;
  HashSum now = HashOfSession(hasher_, session) + session.answers_hash;
  hash -= session.stored_hash;
  hash += now;
  session.stored_hash = now;
  session.stored = true;
  return absl::OkStatus();
}

absl::Status SessionStore::Load(Database& database, SessionTable& table) {
  CHECK(table.sessions_.empty(), "sessions are loaded into an empty table");
  const std::string path = sqlite3_db_filename(database.handle(), "main");
  RowHasher hasher;
  absl::StatusOr<Statement> select = database.Prepare(
      "SELECT store, boot, nonce, opened_at, last_sequence, answered_through FROM session");
  if (!select.ok()) return select.status();
  while (true) {
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) break;
    Session session;
    session.view = {StoreId(select->Uint(0)), select->Uint(1), select->Uint(2),
                    select->Uint(4),          select->Uint(5), raft::Index(select->Uint(3))};
    session.stored = true;
    session.stored_through = session.view.last_sequence;
    if (session.view.answered_through > session.view.last_sequence) {
      return DamagedState(path, "a session has more answered than executed");
    }
    table.sessions_.emplace(session.view.store, std::move(session));
  }
  select = database.Prepare(
      "SELECT store, first_sequence, answers FROM session_answers ORDER BY store, first_sequence");
  if (!select.ok()) return select.status();
  while (true) {
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) break;
    auto found = table.sessions_.find(StoreId(select->Uint(0)));
    if (found == table.sessions_.end()) return DamagedState(path, "answers without a session");
    Session& session = found->second;
    const uint64_t first = select->Uint(1);
    uint64_t sequence = first;
    std::string_view bytes = select->Bytes(2), answer;
    for (; !bytes.empty(); ++sequence) {
      if (!TakeAnswer(bytes, answer)) return DamagedState(path, "unreadable session answers");
      if (sequence <= session.view.answered_through) continue;
      v1::Answer parsed;
      if (sequence != session.view.answered_through + session.answers.size() + 1 ||
          sequence > session.view.last_sequence ||
          !parsed.ParseFromArray(answer.data(), static_cast<int>(answer.size()))) {
        return DamagedState(path, "session answers with a hole, twice or unreadable");
      }
      KeptAnswer kept{std::make_shared<const std::string>(answer),
                      HashOfAnswer(hasher, session.view, sequence, parsed)};
      session.answers_hash += kept.hash;
      session.answers.push_back(std::move(kept));
    }
    session.chunks.emplace_back(first, sequence - 1);
  }
  for (auto& [store, session] : table.sessions_) {
    if (session.answers.size() != session.view.last_sequence - session.view.answered_through) {
      return DamagedState(path, "answers of a session are missing");
    }
    session.stored_hash = HashOfSession(hasher, session) + session.answers_hash;
  }
  return absl::OkStatus();
}

}  // namespace quorate::storage
