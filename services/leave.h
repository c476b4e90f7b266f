// Giving leadership up on purpose: before this node ends, and while it is drained.
//
// Nobody is taken leadership from before another one can have it: the core hands over only to a
// voter that answers and has the whole log, and leads on when that fails. So a node that nobody can
// replace leads as long as it runs, also while it is drained.
//
// Two drained nodes must not hand it to and fro: each attempt, also one that succeeds, is followed
// by a pause, twice as long each time, until this node has not led for as long as the last one.
//
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "base/time.h"
#include "raft/node.h"

namespace quorate::services {

class Leave {
 public:
  // As raft::Node::TransferLeadership, to whoever is furthest.
  using Transfer = std::function<void(raft::Node::TransferDone)>;

  static constexpr Duration kPauseMin = std::chrono::milliseconds(100);
  static constexpr Duration kPauseMax = std::chrono::seconds(30);

  // Somebody waits for it: what has failed before says nothing, and there is no pause.
  void Hasten();
  // To be called again and again while this node shall not lead.
  void Run(Instant now, bool leads, const Transfer& transfer);

  // The latest attempt has said that no other voter answers.
  bool nobody_else() const;

 private:
  // Of an attempt that may end after this object.
  struct Attempt {
    mutable std::mutex mutex;  // protects what follows
    bool open = false;
    bool nobody_else = false;
  };
  const std::shared_ptr<Attempt> attempt_ = std::make_shared<Attempt>();

  std::mutex mutex_;  // protects what follows
  Duration pause_ = kPauseMin;
  Instant next_;  // no attempt before
};

}  // namespace quorate::services
