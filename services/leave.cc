#include "services/leave.h"

#include <algorithm>

namespace quorate::services {

void Leave::Hasten() {
  std::lock_guard lock(mutex_);
  next_ = Instant();
  pause_ = kPauseMin;
  std::lock_guard attempt_lock(attempt_->mutex);
  attempt_->nobody_else = false;
}

void Leave::Run(Instant now, bool leads, const Transfer& transfer) {
  {
    std::lock_guard lock(mutex_);
    if (!leads) {
      if (now >= next_ + pause_) pause_ = kPauseMin;
      return;
    }
    std::lock_guard attempt_lock(attempt_->mutex);
    if (attempt_->open || now < next_) return;
    attempt_->open = true;
    next_ = now + pause_;
    pause_ = std::min(2 * pause_, kPauseMax);
  }
  transfer([attempt = attempt_](raft::TransferStatus status) {
    std::lock_guard lock(attempt->mutex);
    attempt->open = false;
    attempt->nobody_else =
        status == raft::TransferStatus::kSilent || status == raft::TransferStatus::kNotVoter;
  });
}

bool Leave::nobody_else() const {
  std::lock_guard lock(attempt_->mutex);
  return attempt_->nobody_else;
}

}  // namespace quorate::services
