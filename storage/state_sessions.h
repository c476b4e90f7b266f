// Sessions: how a command that may arrive twice is executed once (DESIGN.md, "Exactly once").
//
// SessionTable is the rules, pure and in memory; SessionStore keeps a table's changes in the
// database, one difference per batch. Both belong to the apply thread. Internal to storage/state*.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/sqlite.h"
#include "storage/state.h"
#include "storage/state_hash.h"

namespace quorate::storage {

// Answers kept for one session, at most: its sequences not yet answered (DESIGN.md).
inline constexpr uint64_t kUnansweredMax = 4096;

struct KeptAnswer {
  std::shared_ptr<const std::string> bytes;  // a serialized v1::Answer
  HashSum hash;                              // of its logical row
};

// The process of one ingress, as the log knows it.
struct Session {
  SessionView view;
  // Of the sequences answered_through + 1 to last_sequence, in order.
  std::deque<KeptAnswer> answers;
  HashSum answers_hash;  // the sum of theirs

  // What the database holds of it, since the last flush.
  uint64_t stored_through = 0;  // answers up to this sequence are there (or were forgotten)
  std::deque<std::pair<uint64_t, uint64_t>> chunks;  // first and last sequence of each row
  HashSum stored_hash;                               // of its logical rows
  bool stored = false;
};

// The kept answer of one of its sequences; null when it was forgotten or not yet made.
std::shared_ptr<const std::string> AnswerOf(const Session& session, uint64_t sequence);

class SessionTable {
 public:
  // Begins, keeps or replaces the session of `store`. kNone: it is open (`again` when it was so
  // before, and nothing changed); otherwise it is refused and nothing changed.
  Refusal Open(const SessionView& wanted, raft::Index at, const raft::Membership& membership,
               bool* again);

  // What the rule says about a command at `position`. kNone with `last_sequence + 1`: execute it,
  // then Keep its answer. kNone below that: a duplicate.
  Refusal Check(const v1::SessionPosition& position) const;
  bool IsDuplicate(const v1::SessionPosition& position) const;

  // REQUIRES: Check said kNone. Forgets what the ingress has by now; then, if the command was
  // executed, keeps its answer.
  void Forget(const v1::SessionPosition& position);
  void Keep(StoreId store, KeptAnswer answer);

  // Deletes the sessions of stores that are no members any more.
  void RetainMembers(const raft::Membership& membership);

  const std::map<StoreId, Session>& sessions() const { return sessions_; }
  // Stores whose session changed since the last ClearDirty.
  const std::set<StoreId>& dirty() const { return dirty_; }
  void ClearDirty() { dirty_.clear(); }

  // Makes `copy` (of an earlier moment of `this`) equal to it where it is dirty. What the database
  // holds is not copied. Costs as much as has changed.
  void BringUpToDate(std::map<StoreId, Session>& copy) const;

 private:
  friend class SessionStore;
  struct Gone {
    StoreId store;
    HashSum stored_hash;
  };
  void Delete(StoreId store);

  std::map<StoreId, Session> sessions_;
  std::set<StoreId> dirty_;
  std::vector<Gone> gone_;  // stored sessions that were deleted or replaced since
};

// The tables `session` and `session_answers`. The answers of one batch and session are one row:
// each is a length (4 bytes little-endian) and that many bytes. A row goes when all its answers are
// forgotten, so it may hold some that are: `answered_through` says which.
class SessionStore {
 public:
  static absl::StatusOr<SessionStore> Prepare(Database& database);

  // Fills an empty table from the database. kDataLoss when answers are missing, twice or
  // unreadable.
  static absl::Status Load(Database& database, SessionTable& table);
  // Writes what changed, within the caller's transaction, and adds to `hash` by how much the
  // logical rows changed it.
  absl::Status Flush(SessionTable& table, HashSum& hash);

 private:
  absl::Status FlushSession(StoreId store, Session& session, HashSum& hash);

  Statement put_session_, delete_session_, put_answers_, delete_answers_, delete_all_answers_;
  RowHasher hasher_;
};

// Adds an answer's columns to a row: the fields that programs act on; neither the wording of
// `message` nor the way protobuf orders bytes is part of the state.
RowHasher& AddAnswer(RowHasher& hasher, const v1::Answer& answer);
HashSum HashOfSession(RowHasher& hasher, const Session& session);
HashSum HashOfAnswer(RowHasher& hasher, const SessionView& session, uint64_t sequence,
                     const v1::Answer& answer);

}  // namespace quorate::storage
