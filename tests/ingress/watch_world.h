// A store and clients around one watch hub, for scripts and random runs.
//
// The store is the brute-force twin of storage: it keeps every change for ever, and finds what a
// read asks for by looking at all of them. Golden scripts: tests/ingress/testdata/*.txt, written as
// those of tests/raft/testdata: commands, a line `----`, what happened, an empty line. How a line
// reads:
//
//   a <- rev=3 resume=4: put x=1 (created), delete y (was 2@2)   a client gets a message
//   a reads history from 3 | from 3+1 | state | state at 5 after "k"   (+1: second change of 3)
//   a ended BEHIND resume=9: why
//
// Commands:
//   hub [KEY=N...]                 watches queue_bytes queue_messages total_bytes message_bytes
//                                  in_flight_bytes reads read_bytes read_rows age (in ms)
//   apply CHANGE; CHANGE...        one revision; CHANGE: put K V | del K; V *N is N times x
//   uncollected CHANGE; ...        the hub hears of the revision, not of its changes
//   bare CHANGE; ...               it hears of the changes without what was there before
//   unheard CHANGE; ...            it hears nothing until the next of these commands
//   watch NAME key=K|prefix=P [from=N] [initial] [previous] [progress=MS]
//   cancel NAME | slow NAME... | fast NAME... | take NAME    a slow client takes only by `take`
//   hold reads | serve | release reads      a held read waits for `serve` (the oldest)
//   busy | broken                           how the next read ends
//   compact N | reset head=N compacted=N | leader lost | leader found
//   fresh                                   all that is acknowledged is here, as of now
//   wait MS | close | status
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "ingress/watch_hub.h"
#include "quorate/v1/config.pb.h"

namespace quorate::ingress::testing {

// The twin of the state machine.
class TwinStore {
 public:
  struct Write {
    std::string key;
    std::optional<std::string> value;  // nullopt: delete
  };

  // One revision; nullptr when nothing changes (deletions of what is not there).
  ChangeSetPtr Apply(const std::vector<Write>& writes);
  static ChangeSetPtr WithoutPrevious(const ChangeSetPtr& set);

  Revision head() const { return Revision(1 + history_.size()); }
  Revision compacted() const { return compacted_; }
  void Compact(Revision revision) { compacted_ = std::max(compacted_, revision); }
  const std::vector<ChangeSetPtr>& history() const { return history_; }
  // The items at a revision, as changes, by key.
  std::map<std::string, Change> StateAt(Revision revision, const KeyFilter& filter) const;

  // What storage answers; false: compacted.
  bool ReadChanges(const WatchRead& read, std::vector<Change>* changes, ChangePosition* end) const;
  bool ReadState(const WatchRead& read, WatchStatePortion* portion) const;

 private:
  std::vector<ChangeSetPtr> history_;
  Revision compacted_;
};

class WatchWorld {
 public:
  struct Client {
    std::string name;
    WatchSpec spec;
    bool slow = false;
    bool in_flight = false;
    bool ended = false;
    WatchEnd end;
    std::vector<v1::WatchResponse> got;  // header.revision is filled in
  };

  explicit WatchWorld(const WatchHubOptions& options = {}) { Make(options); }
  // --- Verbs; each ends with everything that follows having happened ---
  void Make(const WatchHubOptions& options);
  enum class Heard { kAll, kWithoutPrevious, kHeadOnly, kNothing };
  void Apply(const std::vector<TwinStore::Write>& writes, Heard heard = Heard::kAll);
  Client& Watch(const std::string& name, const WatchSpec& spec);
  void Take(Client& client);
  void SetSlow(Client& client, bool slow);
  void Cancel(Client& client);
  void HoldReads(bool hold);
  void Serve();  // one held read
  void Pass(Duration time);
  void Pump();

  Client& client(const std::string& name);
  WatchHub& hub() { return *hub_; }
  TwinStore& store() { return store_; }
  Instant now() const { return now_; }
  const std::deque<WatchRead>& reads() const { return reads_; }
  std::string TakeLog() {
    std::string text = log_.str();
    log_.str("");
    return text;
  }
  // How the next read ends instead of being answered.
  std::optional<WatchHub::ReadFailure> next_failure;

 private:
  void ServeOldest();
  void Print(const Client& client, const v1::WatchResponse& message);

  TwinStore store_;
  std::unique_ptr<WatchHub> hub_;
  Instant now_{std::chrono::seconds(1000)};
  std::vector<ChangeSetPtr> unheard_;
  std::map<uint64_t, std::unique_ptr<Client>> clients_;
  std::deque<WatchRead> reads_;
  bool hold_reads_ = false;
  std::ostringstream log_;
};

std::string KindName(WatchEndKind kind);

// Runs a script; returns it with the conversation as it is now.
class WatchScript {
 public:
  std::string Run(const std::string& text);

 private:
  void Execute(const std::string& line);
  std::unique_ptr<WatchWorld> world_;
  std::ostringstream out_;
};

}  // namespace quorate::ingress::testing
