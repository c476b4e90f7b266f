// Who is let in and who gets a vote without an operator (DESIGN.md, "Join"): what the leader
// decides about its members, from what it sees of them. Pure: no clock, no I/O; who asks it carries
// the step out and tells how that ended.
//
//   * Let in: a store that waits to join this cluster, found by discovery, becomes a learner. Not
//     while another one calls itself the same (a name belongs to one), nor before a member of that
//     name has been silent for `contact`. Nor one that was a member and was taken out, as far as
//     this node has seen that: whoever did so meant it.
//   * Promote: a learner that has been healthy (heard from, close behind, its disk as it was) for
//     the stabilisation time without a break, and may be promoted now, gets a vote, one at a time,
//     while there are fewer voters than wanted; or in the place of a voter of its own name, which
//     is silent: then the number stays. A replacement comes first, because the voter that it
//     replaces is down.
//
// A learner that an operator made one (Member::demoted) stays one. Nobody is ever removed for being
// silent; one of the name of a newcomer is, in the newcomer's favour. Whether a step may be taken
// at all is the core's to judge (raft/core/membership_change.h): quorum, joint phases, who is
// caught up.
//
// What it knows is this leader's: a new one begins to count the stabilisation time anew, which
// delays and does no harm. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/core/types.h"

namespace quorate::raft {

struct NodeStatus;
struct PeerView;

struct AutopilotOptions {
  Duration stabilisation = std::chrono::seconds(10);
  // Who was heard from within this is there; whoever was not is silent.
  Duration contact = std::chrono::seconds(10);
  uint64_t lag_max = 1000;  // entries behind the leader's commit
  size_t voters_max = 5;
  bool lets_in = true;
};

// Somebody who answers and waits to be let into this cluster; or is of it already, and perhaps no
// member any more.
struct Newcomer {
  std::string asked_at;  // the address where it answered
  StoreId store;
  std::string name;
  bool was_member = false;  // has caught up with this cluster once: is never let in by itself
  friend bool operator==(const Newcomer&, const Newcomer&) = default;
};

struct AutopilotStep {
  enum class Kind : uint8_t { kLetIn, kPromote };
  Kind kind = Kind::kLetIn;
  StoreId store;
  std::string name;
  std::string address;  // kLetIn: where it answered
  friend bool operator==(const AutopilotStep&, const AutopilotStep&) = default;
};

// What would be done for somebody and is not, until something else changes: it must not be, or the
// latest try has failed.
struct NotDone {
  AutopilotStep::Kind kind = AutopilotStep::Kind::kLetIn;
  StoreId store;
  std::string name;
  std::string why;  // for people; says what to do
  friend bool operator==(const NotDone&, const NotDone&) = default;
};

class Autopilot {
 public:
  explicit Autopilot(const AutopilotOptions& options) : options_(options) {}

  // What to do now, if anything: one thing at a time, until OnEnded. To be asked every second or
  // more often, by who leads and by who does not. `newcomers` as of now.
  std::optional<AutopilotStep> Next(Instant now, const NodeStatus& status,
                                    const std::vector<Newcomer>& newcomers);
  // A step that failed is not tried again at once: after a second, and twice as long each time.
  // `why` (for people) is told until then; empty: it is done.
  void OnEnded(const AutopilotStep& step, const std::string& why, Instant now);
  // As of the latest Next; empty where this node does not lead. At most as many as newcomers and
  // members.
  const std::vector<NotDone>& not_done() const { return not_done_; }

  static constexpr Duration kPauseMin = std::chrono::seconds(1);
  static constexpr Duration kPauseMax = std::chrono::minutes(1);
  static constexpr size_t kRemovedMax = 256;

 private:
  struct Failed {
    Duration pause{};
    Instant until;
    AutopilotStep::Kind kind = AutopilotStep::Kind::kLetIn;
    std::string why;
  };
  void NoteRemovals(const NodeStatus& status);
  void Observe(Instant now, const NodeStatus& status);
  bool Silent(Instant now, const NodeStatus& status, StoreId store) const;
  bool Healthy(Instant now, const NodeStatus& status, const PeerView& peer) const;
  bool Stable(StoreId store, Instant now) const;
  bool Pauses(StoreId store, Instant now) const;
  void ExplainFailed(AutopilotStep::Kind kind, StoreId store, const std::string& name);
  void Explain(Instant now, const NodeStatus& status, const std::vector<Newcomer>& newcomers);
  std::optional<AutopilotStep> Promote(Instant now, const NodeStatus& status) const;
  std::optional<AutopilotStep> LetIn(Instant now, const NodeStatus& status,
                                     const std::vector<Newcomer>& newcomers) const;
  // Why that one may not be let in now, whatever else there is to do; empty: it may.
  std::string WhyNot(Instant now, const NodeStatus& status, const Newcomer& newcomer,
                     const std::vector<Newcomer>& newcomers) const;

  const AutopilotOptions options_;
  Term term_;  // that this node leads in; 0: it does not
  Instant leads_since_;
  std::map<StoreId, Instant> healthy_since_;  // of members other than this node
  std::set<StoreId> members_;                 // by the latest committed membership
  std::deque<StoreId> removed_;               // were members, and are not; the latest kRemovedMax
  std::map<StoreId, Failed> failed_;
  std::vector<NotDone> not_done_;
  bool under_way_ = false;
};

}  // namespace quorate::raft
