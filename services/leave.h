// Giving leadership up on purpose: before this node ends, and while it is drained.
//
// Nobody is taken leadership from before another one can have it: the core hands over only to a
// voter that answers and has the whole log, and leads on when that fails. So a node that nobody can
// replace leads as long as it runs, also while it is drained.
//
// Others may be drained, too, and give it back, which nobody is told. So whoever had it from here
// gets it last the next time; and each attempt, also one that succeeds, is followed by a pause,
// twice as long each time, until this node has not led for as long as the last one.
//
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "base/ids.h"
#include "base/time.h"
#include "raft/node.h"

namespace quorate::services {

class Leave {
 public:
  // As raft::Node::TransferLeadership.
  using Transfer = std::function<void(StoreId target, raft::Node::TransferDone)>;

  static constexpr Duration kPauseMin = std::chrono::milliseconds(100);
  static constexpr Duration kPauseMax = std::chrono::seconds(30);

  // Somebody waits for it: what has failed before says nothing, and there is no pause.
  void Hasten();
  // To be called again and again while this node shall not lead.
  void Run(Instant now, const raft::NodeStatus& status, const Transfer& transfer);

  // There is no other voter; or for longer than two election timeouts none has answered. (A new
  // leader has heard nobody yet.)
  bool nobody_else() const;
  // Since Hasten an attempt has succeeded.
  bool handed_over() const;

 private:
  // Of an attempt that may end after this object.
  struct Attempt {
    mutable std::mutex mutex;  // protects what follows
    bool open = false;
    bool silent = false;  // the latest one said that nobody answers
    bool done = false;
  };
  // Who is asked to take over; 0: whom the core chooses. REQUIRES: mutex_ is held.
  StoreId Pick(const raft::NodeStatus& status);

  const std::shared_ptr<Attempt> attempt_ = std::make_shared<Attempt>();

  mutable std::mutex mutex_;  // protects what follows; before an attempt's
  Duration pause_ = kPauseMin;
  Instant next_;  // no attempt before
  std::set<StoreId> tried_;
  std::optional<Instant> silent_since_;
  bool nobody_else_ = false;
};

}  // namespace quorate::services
