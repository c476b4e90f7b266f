#include "services/leave.h"

#include <algorithm>

namespace quorate::services {

void Leave::Hasten() {
  std::lock_guard lock(mutex_);
  next_ = Instant();
  pause_ = kPauseMin;
  silent_since_.reset();
  nobody_else_ = false;
  std::lock_guard attempt_lock(attempt_->mutex);
  attempt_->silent = false;
  attempt_->done = false;
}

void Leave::Run(Instant now, const raft::NodeStatus& status, const Transfer& transfer) {
  StoreId target;
  {
    std::lock_guard lock(mutex_);
    if (status.role != raft::Role::kLeader) {
      silent_since_.reset();
      nobody_else_ = false;
      if (now < next_ + pause_) return;
      pause_ = kPauseMin;
      tried_.clear();
      return;
    }
    std::lock_guard attempt_lock(attempt_->mutex);
    if (!attempt_->silent) {
      silent_since_.reset();
    } else if (!silent_since_) {
      silent_since_ = now;
    }
    const bool others = status.membership != nullptr && status.membership->Voters().size() > 1;
    nobody_else_ = !others || (silent_since_ && now - *silent_since_ > 2 * status.election_timeout);
    if (!others || attempt_->open || now < next_) return;
    attempt_->open = true;
    next_ = now + pause_;
    pause_ = std::min(2 * pause_, kPauseMax);
    target = Pick(status);
  }
  transfer(target, [attempt = attempt_](raft::TransferStatus result) {
    std::lock_guard lock(attempt->mutex);
    attempt->open = false;
    attempt->silent = result == raft::TransferStatus::kSilent;
    attempt->done = attempt->done || result == raft::TransferStatus::kDone;
  });
}

StoreId Leave::Pick(const raft::NodeStatus& status) {
  const auto best_of = [&](bool tried_too) {
    const raft::PeerView* best = nullptr;
    for (const raft::PeerView& peer : status.peers) {
      const raft::Member* member = status.membership->Find(peer.store);
      const bool may = member != nullptr && member->voter && peer.active && !peer.lost_data &&
                       (tried_too || !tried_.contains(peer.store));
      if (may && (best == nullptr || peer.match > best->match)) best = &peer;
    }
    return best != nullptr ? best->store : StoreId();
  };
  StoreId target = best_of(false);
  if (!target && !tried_.empty()) {
    tried_.clear();
    target = best_of(true);
  }
  if (target) tried_.insert(target);
  return target;
}

bool Leave::nobody_else() const {
  std::lock_guard lock(mutex_);
  return nobody_else_;
}

bool Leave::handed_over() const {
  std::lock_guard lock(attempt_->mutex);
  return attempt_->done;
}

}  // namespace quorate::services
