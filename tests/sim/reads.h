// Reads at one node, as services/config_service and services/read_gate have them: local with a
// measured age, by lease or by a read index; at least a revision, not older than, or of the past.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/core/types.h"
#include "storage/state.h"
#include "tests/sim/events.h"

namespace quorate::sim {

struct Context;
class Process;

struct ReadQuestion {
  enum class Kind : uint8_t { kGet, kList, kCount, kHistory };
  enum class Freshness : uint8_t { kLocal, kLease, kLinearizable };
  Kind kind = Kind::kGet;
  Freshness freshness = Freshness::kLocal;
  std::string key;         // of a list or a count: a prefix
  std::string after;       // list: greater keys only
  size_t items_max = 100;  // list, history
  std::optional<Revision> at;
  Revision min_revision;
  std::optional<Duration> max_staleness;
  Instant deadline;  // by the node's clock
};

struct ReadAnswer {
  enum class Status : uint8_t {
    kServed,
    kUnavailable,  // not here, or not now
    kCompacted,    // `at` is of before what history holds
    kInFuture,     // `at` is ahead of this node
  };
  Status status = Status::kUnavailable;
  bool by_lease = false;
  bool waited = false;        // for `min_revision`
  Revision revision;          // the node's at that moment
  Revision compacted;         // the same; where the question is about the past
  std::optional<Micros> age;  // known: the world's time whose state it is, at the earliest
  std::vector<storage::Item> items;
  bool more = false;
  uint64_t count = 0;
  std::vector<storage::HistoryItem> history;
  // Who answered.
  size_t machine = 0;
  uint64_t life = 0;
};

class NodeReads {
 public:
  NodeReads(Context* context, Process* process) : context_(context), process_(process) {}

  using Done = std::function<void(const ReadAnswer&)>;
  // `done` runs once, perhaps at once; never when the process ends before.
  void Ask(ReadQuestion question, Done done);
  // More is applied, or another state is in its place.
  void Serve();

 private:
  struct Waiting {
    ReadQuestion question;
    Done done;
    Micros asked = 0;
    Instant arrived;
    std::optional<raft::Index> index;  // what must be applied
    std::optional<Instant> lease_until;
    bool waited = false;
  };
  using WaitingPtr = std::shared_ptr<Waiting>;
  enum class Verdict : uint8_t { kServe, kWait, kRefuse };

  void Wait(const WaitingPtr& waiting);
  Verdict Judge(Waiting* waiting, ReadAnswer* answer);
  void Answer(Waiting* waiting, ReadAnswer answer);
  // False: the state's disk has failed.
  bool Read(const ReadQuestion& question, ReadAnswer* answer);

  Context* const context_;
  Process* const process_;
  bool caught_up_ = false;  // this store has ever been
  std::list<WaitingPtr> waiting_;
};

}  // namespace quorate::sim
