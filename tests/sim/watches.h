// Watches: the production's hub and its reads in each process (what is in place of
// services/watch_service carries them), and watchers that follow keys through any node, over every
// break, and judge what they are told.
//
// What a watcher checks, against the changes that the state machines made (StoreChecker):
//   1. every event is a change that was committed and applied;
//   2. it has that change's revision, key and value, and what was there before, if asked for;
//   3. events come in the order of their revisions, and those of one revision, in however many
//      messages, in theirs;
//   4. each once;
//   5. none is missing: not between two events, not before a progress mark, not over a reconnect;
//   6. only what its filter names;
//   7. a shown state (initial, or after `reset`) is the whole state of that revision, and what
//      comes after `synced` goes on behind it; a reset comes only where the history that the watch
//      needs is compacted (and must come there, or 5 is broken), and never goes back;
//   8. a resume revision misses nothing and repeats nothing;
//   9. silence is not for ever: when all is well, everybody has been told everything.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ingress/watch_hub.h"
#include "quorate/v1/config.pb.h"
#include "storage/state.h"
#include "tests/sim/context.h"

namespace quorate::sim {

class Process;

// The hub of one process, with its reads.
class WatchHost {
 public:
  WatchHost(Context* context, Process* process, storage::State* state,
            std::function<void(Micros delay)> wake);

  void OnApplied(const std::vector<storage::Applied>& applied);
  void OnInstalled();
  void OnStatus(const raft::NodeStatus& status);
  // A round of the hub's thread; returns when, by the world's time, it wants the next.
  Micros Run();

  using Deliver = std::function<void(Revision, std::shared_ptr<const std::string>)>;
  using Ended = std::function<void(const ingress::WatchEnd&)>;
  ingress::WatchId Subscribe(const ingress::WatchSpec& spec, Deliver deliver, Ended ended);
  void OnSent(ingress::WatchId id);
  void Cancel(ingress::WatchId id);
  uint64_t resets() const { return hub_.counters().resets; }

 private:
  void Post(std::function<void()> task);
  void Read(const ingress::WatchRead& read);
  void Answer(const ingress::WatchRead& read);

  struct Sink {
    Deliver deliver;
    Ended ended;
  };
  Context* const context_;
  Process* const process_;
  storage::State* const state_;
  const std::function<void(Micros)> wake_;
  Instant now_;
  ingress::WatchHub hub_;
  std::vector<std::function<void()>> tasks_;
  std::vector<ChangeSetPtr> sets_;
  Revision head_, told_;
  // When the hub hears of the former: a read may be answered before. kNever: it knows it.
  Micros tell_at_ = kNever;
  bool leader_known_ = false;
  std::map<ingress::WatchId, Sink> sinks_;
  uint64_t next_id_ = 1;
};

class Watchers {
 public:
  explicit Watchers(Context* context);
  void Start();
  void OnProcessGone(size_t machine);
  // The faults have stopped: from now on they follow members only, for others may be behind for
  // ever.
  void OnCalm();
  // Everybody has been told everything up to here.
  bool AllKnow(Revision head) const;
  std::string Text() const;  // where each is

 private:
  struct Watcher {
    KeyFilter filter;
    bool with_previous = false;
    // The next revision that it has not been told of; 0: it begins with a state.
    uint64_t next = 0;
    bool in_state = false;    // between `started` or `reset` and `synced`
    uint64_t state_from = 0;  // what it shows must be of this revision or later
    std::map<std::string, v1::Item> state;
    // The events of a revision of which more is to come.
    uint64_t partial_revision = 0;  // 0: none
    bool leaderless = false;        // it was told so, and not of a leader since
    std::vector<v1::WatchEvent> partial;
    size_t machine = 0;
    uint64_t life = 0;     // of the process that it watches; 0: none
    uint64_t attempt = 0;  // counts connections
    ingress::WatchId id;
  };

  bool Follows(size_t machine) const;
  void Connect(size_t watcher);
  void Again(size_t watcher);
  void Leave(size_t watcher);
  void Arrive(size_t watcher, uint64_t attempt, Revision revision, const std::string& body);
  void Take(Watcher* watcher, Revision revision, const v1::WatchResponse& message);
  void TakeLeaderMark(Watcher* watcher, const v1::WatchResponse& message);
  void TakeEvents(Watcher* watcher, uint64_t revision, const v1::WatchResponse& message);
  void BeginReset(Watcher* watcher);
  void EndState(Watcher* watcher, uint64_t revision);
  // Empty: all is well.
  static std::string WrongEvent(const Watcher& watcher, const v1::WatchEvent& event,
                                const StoreModel::Change& change);
  void MissesNothing(const Watcher& watcher, uint64_t before);
  void Fail(const Watcher& watcher, const std::string& what);

  Context* const context_;
  std::vector<Watcher> watchers_;
};

}  // namespace quorate::sim
