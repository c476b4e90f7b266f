// The leader's half of forwarding: takes writes of every node's ingress (its own included), keeps
// each session's order, proposes, and says what became of them.
//
// One hand-over to the node is open at a time. So whether something was appended is known before
// the next is checked, and a session's later writes never get into the log past an earlier one that
// the node refused; meanwhile whatever comes in makes the next batch.
//
// Takes writes and sessions only while this node leads, has applied its term's no-op and birth is
// complete; before that what comes is kept (bounded), because a new leader gets there in
// milliseconds. When leadership ends every sink is told and forgotten.
//
// Not thread-safe: the forward thread's (services/forwarder.h).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ingress/leader_sessions.h"
#include "ingress/session.h"
#include "raft/node.h"
#include "storage/state.h"

namespace quorate::services {

// One ingress at the other end: a stream, or this node's own. Called on the forward thread; must
// not call back into the intake.
class IntakeSink {
 public:
  virtual ~IntakeSink() = default;
  virtual void Opened(const ingress::AppliedSession& session) = 0;
  virtual void Answer(const ingress::SessionId& session, uint64_t sequence,
                      std::shared_ptr<const std::string> answer) = 0;
  virtual void Refused(const ingress::SessionId& session, uint64_t from_sequence) = 0;
  virtual void SessionUnknown(const ingress::SessionId& session, const std::string& reason) = 0;
  // The last call: this node does not lead (any more), or another link took this one's place.
  virtual void NotLeader(StoreId leader) = 0;
};

class WriteIntake {
 public:
  struct Options {
    size_t queue_bytes_max = 64u << 20;   // beyond: refused
    size_t propose_bytes_max = 1u << 20;  // one hand-over; one write may exceed it
  };
  // Runs a function on the forward thread, later; any thread.
  using Post = std::function<void(std::function<void()>)>;

  WriteIntake(const Options& options, storage::State* state);

  void Start(raft::Node* node, Post post);
  // Tells every sink NotLeader and forgets everything. Nothing is proposed afterwards.
  void Stop();

  // What of the node's status decides whether this node takes writes.
  struct Leadership {
    raft::Term term;
    bool leads = false;
    bool ready = false;  // leader_ready and birth_complete
    StoreId leader;
    friend bool operator==(const Leadership&, const Leadership&) = default;
  };
  static Leadership LeadershipOf(const raft::NodeStatus& status);
  void OnLeadership(const Leadership& leadership);

  // The sink begins (or resumes) a session; it takes the place of an earlier sink of that store.
  void Open(const std::shared_ptr<IntakeSink>& sink, const ingress::SessionId& session);
  // `command` carries exactly this session and sequence (not 0): the caller checked it.
  void Write(const std::shared_ptr<IntakeSink>& sink, const ingress::SessionId& session,
             uint64_t sequence, std::string command);
  // The sink's link has ended: it is not called any more. What it sent goes its way.
  void Closed(const IntakeSink* sink);

  void OnApplied(const std::vector<storage::Applied>& applied);

  // Proposes what waits. After any of the above.
  void Pump();

  struct Counters {
    uint64_t taken = 0;
    uint64_t proposed = 0;
    uint64_t duplicates_applied = 0;
    uint64_t duplicates_pending = 0;
    uint64_t refused = 0;
    uint64_t sessions_opened = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  using SinkPtr = std::shared_ptr<IntakeSink>;
  struct Route {
    SinkPtr sink;
    ingress::SessionId session;
    // Of the session that the sink was told of last: its writes are for that one. 0: of none yet.
    uint64_t opened_at = 0;
  };
  struct Item {
    SinkPtr sink;
    ingress::SessionId session;
    uint64_t sequence = 0;  // 0: open the session
    std::string command;    // empty when sequence is 0
  };
  // What a hand-over to the node carried, to be settled when it is done.
  struct Proposed {
    SinkPtr sink;
    ingress::SessionId session;
    uint64_t sequence = 0;
  };
  // The state machine's view of the sessions, read once for each batch.
  using View = std::map<StoreId, std::optional<ingress::AppliedSession>>;

  bool taking() const { return leadership_.leads && leadership_.ready && node_ != nullptr; }
  bool IsCurrent(const SinkPtr& sink, StoreId store) const;
  std::optional<ingress::AppliedSession> FindSession(StoreId store) const;
  const std::optional<ingress::AppliedSession>& Look(View* view, StoreId store) const;
  void DropEverything(StoreId leader);
  // True: the item is to be proposed.
  bool Admit(Item* item, View* view);
  bool AdmitOpen(Route* route, View* view);
  static void TellOpened(Route* route, const ingress::AppliedSession& session);
  void OnProposed(uint64_t epoch, const std::vector<Proposed>& proposed, size_t accepted,
                  raft::ProposeStatus status);
  void OnOpenApplied(Route* route, const storage::Applied& applied);
  void OnRefusedByState(const Route& route, const storage::Applied& applied);

  const Options options_;
  storage::State* const state_;
  Post post_;
  raft::Node* node_ = nullptr;

  Leadership leadership_;
  uint64_t epoch_ = 1;  // counts leaderships: what an earlier one proposed is settled already
  bool proposing_ = false;
  std::deque<Item> queue_;
  size_t queue_bytes_ = 0;
  std::map<StoreId, Route> routes_;
  ingress::LeaderSessions sessions_;
  std::set<ingress::SessionId> opening_;  // proposed by this leadership and not applied yet
  Counters counters_;
};

}  // namespace quorate::services
