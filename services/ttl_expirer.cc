#include "services/ttl_expirer.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "storage/state_ttl.h"

namespace quorate::services {
namespace {

constexpr std::chrono::milliseconds kDueWait(20);
// A proposal that does not get through is made again by whoever leads then.
constexpr Duration kProposalTime = std::chrono::seconds(5);

uint64_t LogMilliseconds(Duration duration) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

}  // namespace

uint64_t TtlSchedule::LogTimeAt(Instant now) const {
  return anchor_log_time_ms_ + LogMilliseconds(std::max(now - anchor_, Duration::zero()));
}

TtlSchedule::Decision TtlSchedule::Decide(Instant now, const View& view) {
  if (!view.leads) {
    leads_ = false;
    return {};
  }
  if (!leads_ || term_ != view.term) {
    leads_ = true;
    term_ = view.term;
    leads_since_ = now;
    anchor_ = now;
    anchor_log_time_ms_ = view.log_time_ms;
  } else if (view.log_time_ms > LogTimeAt(now)) {
    anchor_ = now;
    anchor_log_time_ms_ = view.log_time_ms;
  }
  // It has not run for so long (suspended, say): its clients could not renew either.
  if (now - looked_at_ > options_.grace) leads_since_ = now;
  looked_at_ = now;
  if (view.ttls == 0 || now - leads_since_ < options_.grace) return {};
  const uint64_t log_time_ms = LogTimeAt(now);
  if (view.next_deadline_ms < log_time_ms) return {Action::kExpire, log_time_ms};
  const uint64_t left_ms = view.next_deadline_ms - view.log_time_ms;
  const uint64_t interval_ms = std::clamp(left_ms / 8, LogMilliseconds(options_.mark_min),
                                          LogMilliseconds(options_.mark_max));
  if (log_time_ms - view.log_time_ms >= interval_ms) return {Action::kMark, log_time_ms};
  return {};
}

void TtlExpirer::Run(Instant now, bool leads, raft::Term term, storage::State* state,
                     const Write& write) {
  const storage::StateSummary summary = state->Summary();
  const TtlSchedule::Decision decision = schedule_.Decide(
      now, {leads, term, summary.log_time_ms, summary.ttls, summary.next_ttl_deadline_ms});
  if (decision.action == TtlSchedule::Action::kNothing || proposing_->load()) return;
  v1::Command command;
  command.mutable_expire_ttl();
  if (decision.action == TtlSchedule::Action::kExpire) {
    storage::ReadLimits limits;
    limits.wait = kDueWait;
    const absl::StatusOr<std::vector<uint64_t>> due =
        state->DueTtls(decision.log_time_ms, storage::kTtlIdsPerCommandMax, limits);
    // No reader is free, or another has just been renewed: the next run looks again.
    if (!due.ok() || due->empty()) return;
    for (const uint64_t ttl : *due) command.mutable_expire_ttl()->add_ttl_id(ttl);
  }
  proposing_->store(true);
  write(std::move(command), now + kProposalTime,
        [proposing = proposing_](const ingress::Outcome&) { proposing->store(false); });
}

}  // namespace quorate::services
