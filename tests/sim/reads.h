// Reads at one node, in the order of services/config_service and judged by the production's
// services/read_gate: local with a measured age, by lease or by a read index; at least a revision,
// not older than, or of the past.
//
// Between the verdict and the read of the state time passes, and perhaps a pause: a lease that has
// ended meanwhile makes it ask for a round, and an answer that has become too old is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/core/types.h"
#include "services/read_gate.h"
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
  StoreId store;
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
  struct Read {
    ReadQuestion question;
    Done done;
    services::ReadWish wish;
    bool asks_index = false;  // linearizable or by lease, and not confirmed yet
    bool by_lease = false;    // wanted
    std::optional<Instant> lease_until;
    Micros index_asked = 0;
    Instant looked_at;  // when it is judged again
    bool waited = false;
  };
  using ReadPtr = std::shared_ptr<Read>;

  void AskIndex(const ReadPtr& read);
  void Judge(const ReadPtr& read);
  void Park(const ReadPtr& read, Instant until);
  void Run(const ReadPtr& read, std::optional<Instant> fresh_as_of);
  void Answer(const ReadPtr& read, ReadAnswer answer);
  Instant Now() const;
  // False: the state's disk has failed.
  bool Execute(const ReadQuestion& question, ReadAnswer* answer);

  Context* const context_;
  Process* const process_;
  std::vector<ReadPtr> waiting_;
};

}  // namespace quorate::sim
