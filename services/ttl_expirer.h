// Ends time-to-lives: the leader finds out which are over and proposes their end through the log.
//
// What an entry ends is decided when it is applied, by its own log time (storage/state_ttl.h): so a
// proposal here needs neither to be right nor to be made once. It goes through this node's ingress
// like a client's write, which sees it through a change of leaders; where it comes late, or two
// leaders propose the same, nothing happens twice.
//
// Log time stands still while there is no leader, and a new leader goes on from the last entry. So
// nobody's time runs out while he cannot renew it; and an idle store would forget, with each change
// of leaders, the time that has passed since its last entry. Hence the mark: while there are
// time-to-lives and nothing else is written the leader proposes an end of none now and then, which
// records log time. What an election can add to a life is the interval of marks and its own time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/time.h"
#include "ingress/ingress.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/state.h"

namespace quorate::services {

struct TtlExpirerOptions {
  // A new leader ends nothing before this: who was connected to the old one finds another node
  // first. Nor does one that has not run for so long: its clients come first. (etcd gives every
  // lease its whole time again, because it does not know what was left of it. Here each renewal is
  // in the log, so what was left is known.)
  Duration grace = std::chrono::seconds(1);
  // Marks come when log time is behind by an eighth of what is left of the shortest life, within
  // these bounds.
  Duration mark_min = std::chrono::seconds(1);
  Duration mark_max = std::chrono::seconds(60);
};

// The decision, pure: time and what is known come in, what to propose comes out.
class TtlSchedule {
 public:
  explicit TtlSchedule(const TtlExpirerOptions& options) : options_(options) {}

  struct View {
    bool leads = false;  // and may propose
    raft::Term term;
    uint64_t log_time_ms = 0;       // of the last entry applied
    uint64_t ttls = 0;              // how many there are
    uint64_t next_deadline_ms = 0;  // the earliest one's; 0: there is none
  };
  enum class Action : uint8_t { kNothing, kExpire, kMark };
  struct Decision {
    Action action = Action::kNothing;
    uint64_t log_time_ms = 0;  // kExpire: what is over at this time
  };
  // `now` never goes back.
  Decision Decide(Instant now, const View& view);

 private:
  uint64_t LogTimeAt(Instant now) const;

  const TtlExpirerOptions options_;
  bool leads_ = false;
  raft::Term term_;
  Instant leads_since_;
  Instant looked_at_;  // while it leads
  // While it leads: at `anchor_` log time was this, or more. Since then it has gone on with the
  // clock, so what is counted from here is never ahead of the leader's own.
  Instant anchor_;
  uint64_t anchor_log_time_ms_ = 0;
};

// Acts on it. One thread, but for what a write's outcome does.
class TtlExpirer {
 public:
  // As Forwarder::Write, which runs `done` once.
  using Write = std::function<void(v1::Command command, Instant deadline,
                                   std::function<void(const ingress::Outcome&)> done)>;
  explicit TtlExpirer(const TtlExpirerOptions& options = {}) : schedule_(options) {}

  // Several times a second. Reads from `state` when something is over; waits for a reader a few
  // milliseconds at most.
  void Run(Instant now, bool leads, raft::Term term, storage::State* state, const Write& write);

 private:
  TtlSchedule schedule_;
  // One proposal is on its way. Its outcome may outlive this.
  const std::shared_ptr<std::atomic<bool>> proposing_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace quorate::services
