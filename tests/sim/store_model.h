// What the commands mean, without SQLite: items with all their history, time-to-lives and request
// ids (storage/STATE.md in a few hundred lines that share no rule with storage/state*).
//
// Two users. StoreChecker replays the committed log with one and compares what the nodes answered;
// MemoryState, the light state machine, keeps one for each node. A copy costs as much as there are
// keys: what the past held is shared.
//
// Sessions are the caller's. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"

namespace quorate::sim {

// The production's, or narrower ones, so that a short run gets there.
struct StoreLimits {
  uint64_t request_ids_max = 1'000'000;
  uint64_t request_age_ms = uint64_t{10} * 60 * 1000;
};

class StoreModel {
 public:
  // What a key was from one change to the next.
  struct Version {
    Version() = default;
    Version(const Version&) = delete;
    ~Version();
    uint64_t revision = 0;
    uint32_t sub = 0;  // numbers the changes of one revision from 0
    bool deleted = false;
    bool is_text = false;
    std::string value;
    uint64_t create_revision = 0;  // 0 when deleted, as the next one
    uint64_t version = 0;
    uint64_t ttl = 0;
    std::string author, note;
    mutable std::shared_ptr<const Version> previous;  // null: none, ever
  };
  using VersionPtr = std::shared_ptr<const Version>;
  using Items = std::map<std::string, VersionPtr>;  // deleted ones too

  struct Change {
    std::string key;
    VersionPtr now;
    // What was there before; null: nothing.
    const Version* before() const {
      const Version* previous = now->previous.get();
      return previous == nullptr || previous->deleted ? nullptr : previous;
    }
  };

  // What a command's entry says beside the command.
  struct Where {
    ClusterId cluster;
    raft::Index index;
  };

  explicit StoreModel(const StoreLimits& limits = {});

  // Log time goes on; once for each entry, before what it carries.
  void Advance(uint64_t log_time_ms);

  enum class Verdict : uint8_t {
    kExecuted,  // also when what it asks for was refused
    kRepeat,    // its request id was executed before: the first answer again
    kNotKept,   // not executed, and nothing remembers it: a Skip; or because of its request id
  };
  // Runs a command (any but OpenSession). `told`: an answer of somebody else's, where the rules
  // leave a choice (how far a compaction went); null: as far as it was asked for.
  Verdict Execute(const v1::Command& command, const Where& where, const v1::Answer* told,
                  v1::Answer* answer);

  // Of the last Execute.
  const std::vector<Change>& changes() const { return changes_; }
  const std::vector<uint64_t>& ended_ttls() const { return ended_ttls_; }

  // --- Views ---
  uint64_t revision() const { return revision_; }
  uint64_t compacted() const { return compacted_; }
  uint64_t log_time_ms() const { return log_time_ms_; }
  const Items& items() const { return items_; }
  // The key at a revision; null: it was not there.
  const Version* At(const std::string& key, uint64_t revision) const;
  // The same, or the deletion by which it went.
  static const Version* VersionAt(const VersionPtr& newest, uint64_t revision);
  struct Ttl {
    uint64_t ttl_ms = 0;
    uint64_t deadline_ms = 0;  // of log time; it is over above this
    std::set<std::string> keys;
  };
  const std::map<uint64_t, Ttl>& ttls() const { return ttls_; }
  uint64_t ttl_keys() const;
  uint64_t request_ids() const { return requests_->kept.size(); }
  uint64_t expired_through() const { return requests_->expired_through; }

 private:
  struct Request {
    std::string name;  // scope and id
    std::string command_hash;
    uint64_t head = 0;  // the revision that it found
    uint64_t log_time_ms = 0;
    std::string answer;
  };
  using RequestPtr = std::shared_ptr<const Request>;
  struct Requests {
    std::deque<RequestPtr> kept;                     // the oldest first
    std::map<std::string_view, RequestPtr> by_name;  // looks into what they own
    uint64_t expired_through = 0;                    // the highest head of those that went
  };
  struct Draft {
    bool deleted = false;
    bool is_text = false;
    std::string value;
    uint64_t ttl = 0;
  };

  Requests* OwnRequests();  // not shared with a copy any more
  void ForgetOldest();
  bool Keep(const v1::Command& command, uint64_t before, const v1::Answer& answer);
  Verdict ExecuteRequest(const v1::Command& command, const Where& where, v1::Answer* answer);
  void Run(const v1::Command& command, const Where& where, const v1::Answer* told,
           v1::Answer* answer);

  bool Holds(const v1::Compare& compare, uint64_t* current) const;
  void Transact(const v1::Transaction& transaction, v1::Answer* answer);
  // False: `answer` is the refusal.
  bool Operate(const v1::Operation& operation, v1::Answer* answer);
  // False: more than a transaction may read.
  bool Read(const v1::ReadOperation& read, v1::OperationResult* result);
  void Rollback(const v1::Rollback& rollback, v1::Answer* answer);
  void RollBackKey(const std::string& key, uint64_t to, v1::OperationResult* result);
  void Compact(const v1::CompactHistory& compact, const v1::Answer* told, v1::Answer* answer);
  void Grant(const v1::GrantTtl& grant, const Where& where, v1::Answer* answer);
  void Revoke(const v1::RevokeTtl& revoke, v1::Answer* answer);
  void Expire(const v1::ExpireTtl& expire, v1::Answer* answer);
  uint64_t EndTtl(uint64_t id);

  const Version* Now(const std::string& key) const;  // null: not there
  // The keys of a range that have a row, as the commands name ranges.
  std::pair<Items::const_iterator, Items::const_iterator> Range(const std::string& first,
                                                                const std::string& end) const;
  void Write(const std::string& key, Draft draft);
  void Finish(v1::Answer* answer);

  StoreLimits limits_;
  uint64_t revision_ = 1;
  uint64_t compacted_ = 0;
  uint64_t log_time_ms_ = 0;
  Items items_;
  std::map<uint64_t, Ttl> ttls_;
  std::shared_ptr<Requests> requests_;

  // Of the command under way.
  std::string author_, note_;
  uint64_t read_bytes_ = 0;
  std::vector<Change> changes_;
  std::vector<uint64_t> ended_ttls_;
};

}  // namespace quorate::sim
