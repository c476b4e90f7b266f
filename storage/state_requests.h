// Client-given request ids: how a write that its client sends again, to any node and at any time,
// is executed once (DESIGN.md, "Exactly once").
//
// RequestTable is the rules, pure and in memory; RequestStore keeps a table's changes in the
// database, one row for each batch. Both belong to the apply thread. Internal to storage/state*.
//
// Why a late repeat is never executed. Each kept id has a head: the store's revision that its write
// found. E is the highest head of all that were forgotten. A repeat carries the revision r that its
// client had seen before it sent the write first; the write was applied later, so its head was at
// least r. If the id was forgotten then E >= head >= r, and a write with an unknown id and r <= E
// is refused. A new write is above E as soon as its client has seen a revision above E; to keep
// that possible, what was applied at the store's latest revision is never forgotten: E stays below
// it.
//
// Bounds: request_limits.h. Ten minutes after a write was applied (log time) its id may go. When
// the table is full the oldest go earlier. When it is full of ids at the latest revision (a million
// writes of which none changed anything), a write that changes something makes room by that; one
// that changes nothing is answered "full" and may be sent again.
//
// In memory an id costs about 100 bytes beside itself and its answer.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "quorate/v1/command.pb.h"
#include "storage/request_limits.h"
#include "storage/sqlite.h"
#include "storage/state_hash.h"

namespace quorate::storage {

inline constexpr size_t kRequestIdBytesMax = 128;
inline constexpr size_t kCommandHashBytes = 16;

class RequestTable {
 public:
  explicit RequestTable(const RequestLimits& limits = {}) : limits_(limits) {}
  RequestTable(const RequestTable&) = delete;
  RequestTable& operator=(const RequestTable&) = delete;

  enum class Verdict : uint8_t {
    kNew,        // execute it, then Keep its answer
    kRepeat,     // applied before: give `answer`
    kOther,      // applied before as another write
    kExpired,    // may have been applied and forgotten
    kInFuture,   // names a revision that the store has not had
    kMalformed,  // nobody's ingress made that
  };
  struct Found {
    Verdict verdict = Verdict::kNew;
    std::shared_ptr<const std::string> answer;  // kRepeat: a serialized v1::Answer
  };
  // What to do with a write of `scope` that finds the store at `head`. Changes nothing.
  Found Find(std::string_view scope, const v1::ClientRequest& request, Revision head) const;

  // Lets old ids go. Once for each entry, before it is applied.
  void Forget(uint64_t log_time_ms, Revision head);

  // Remembers a write that found the store at `before` and left it at `after`. REQUIRES: Find said
  // kNew, with `before`. False: no room, nothing was changed in the table and (`after` is `before`)
  // the write has changed nothing either.
  bool Keep(std::string_view scope, const v1::ClientRequest& request, Revision before,
            Revision after, uint64_t log_time_ms, std::shared_ptr<const std::string> answer,
            const v1::Answer& parsed);

  uint64_t size() const { return kept_.size(); }
  uint64_t bytes() const { return bytes_; }
  Revision expired_through() const { return expired_through_; }  // E; none: nothing was forgotten
  // How far back the table reaches: the log time of its oldest id.
  uint64_t oldest_log_time_ms() const { return kept_.empty() ? 0 : kept_.front().log_time_ms; }

 private:
  friend class RequestStore;
  struct Kept {
    std::string name;  // see NameOf
    std::string command_hash;
    Revision head;
    uint64_t log_time_ms = 0;
    std::shared_ptr<const std::string> answer;
    uint64_t bytes = 0;  // towards RequestLimits::bytes_max; see WeightOf
    HashSum hash;        // of its logical row
  };
  struct NameHash {
    size_t operator()(std::string_view name) const;
  };

  // Scope and id as one text; the scope's length comes first, so that no two pairs are alike.
  static std::string NameOf(std::string_view scope, std::string_view id);
  static std::pair<std::string_view, std::string_view> PartsOf(std::string_view name);
  void Add(Kept kept);
  void PopFront();
  HashSum HashOf(uint64_t ordinal, const Kept& kept, const v1::Answer& answer);

  const RequestLimits limits_;
  // In the order in which they were applied: heads and log times never go down. The first one's
  // ordinal is forgotten_ + 1. Elements do not move, so the index may look into them.
  std::deque<Kept> kept_;
  std::unordered_map<std::string_view, uint64_t, NameHash> index_;  // name to ordinal; not iterated
  uint64_t bytes_ = 0;
  uint64_t forgotten_ = 0;  // how many were forgotten, ever
  Revision expired_through_;
  HashSum hash_;  // of all kept

  // What the database holds, since the last flush.
  struct Chunk {
    uint64_t first = 0;
    uint64_t last = 0;
  };
  std::deque<Chunk> chunks_;
  uint64_t stored_through_ = 0;  // ordinals up to this are there (or were forgotten)
  uint64_t stored_forgotten_ = 0;
  HashSum stored_hash_;  // of all logical rows, the bounds' included
  RowHasher hasher_;
};

// The tables `request_ids` and `request_id_bounds` (storage/STATE.md).
class RequestStore {
 public:
  static absl::StatusOr<RequestStore> Prepare(Database& database);

  // Fills an empty table from the database. kDataLoss when ids are missing, twice or unreadable.
  static absl::Status Load(Database& database, RequestTable& table);
  // What the logical rows add to the state hash, as loaded.
  static HashSum HashOf(const RequestTable& table) { return table.stored_hash_; }
  // Writes what changed, within the caller's transaction, and adds to `hash` by how much the
  // logical rows changed it.
  absl::Status Flush(RequestTable& table, HashSum& hash);

 private:
  Statement put_chunk_, delete_chunk_, put_bounds_;
};

}  // namespace quorate::storage
