#include "services/read_gate.h"

#include <algorithm>

namespace quorate::services {
namespace {

using Reason = ReadRefusal::Reason;

uint64_t WholeMilliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

Duration Age(Instant fresh_as_of, Instant now) {
  return std::max(now - fresh_as_of, Duration::zero());
}

ReadVerdict Refuse(ReadRefusal refusal) {
  return {
      .kind = ReadVerdict::Kind::kRefuse, .fresh_as_of = {}, .wait_until = {}, .refusal = refusal};
}

ReadVerdict WaitUntil(Instant instant) {
  return {
      .kind = ReadVerdict::Kind::kWait, .fresh_as_of = {}, .wait_until = instant, .refusal = {}};
}

}  // namespace

ReadRefusal CheckStaleness(std::optional<Instant> fresh_as_of,
                           std::optional<Duration> max_staleness, Instant now) {
  if (!max_staleness) return {};
  if (!fresh_as_of) return {.reason = Reason::kAgeUnknown};
  const Duration age = Age(*fresh_as_of, now);
  if (age <= *max_staleness) return {};
  return {.reason = Reason::kTooOld,
          .has = WholeMilliseconds(age),
          .wants = WholeMilliseconds(*max_staleness)};
}

Instant LastMoment(const ReadWish& wish) {
  return wish.deadline - std::min(kReadDeadlineMargin, (wish.deadline - wish.arrived) / 4);
}

ReadVerdict JudgeRead(const ReadState& state, const ReadWish& wish, Instant now) {
  if (!state.caught_up_once) return Refuse({.reason = Reason::kNotCaughtUp});
  const Instant last_moment = LastMoment(wish);
  if (wish.index && *wish.index > state.applied) {
    if (now < last_moment) return WaitUntil(last_moment);
    return Refuse({.reason = Reason::kNotApplied,
                   .has = state.applied.value(),
                   .wants = wish.index->value()});
  }
  if (std::max(wish.revision, wish.min_revision) > state.revision) {
    if (now < last_moment) return WaitUntil(last_moment);
    // A token is ours, so its revision exists: another node has it, and this one will. The caller's
    // own may be one that nobody has, yet.
    const bool page = wish.revision > state.revision;
    return Refuse({.reason = page ? Reason::kPageBehind : Reason::kBehind,
                   .has = state.revision.value(),
                   .wants = (page ? wish.revision : wish.min_revision).value()});
  }
  std::optional<Instant> fresh_as_of = state.fresh_as_of;
  if (wish.index) fresh_as_of = std::max(fresh_as_of.value_or(Instant::min()), wish.index_asked);
  if (!fresh_as_of && !wish.max_staleness) {
    const Instant until = std::min(wish.arrived + kFirstLeaderWait, last_moment);
    if (now < until) return WaitUntil(until);
  }
  const ReadRefusal stale = CheckStaleness(fresh_as_of, wish.max_staleness, now);
  if (!stale.ok()) return Refuse(stale);
  return {.kind = ReadVerdict::Kind::kServe,
          .fresh_as_of = fresh_as_of,
          .wait_until = {},
          .refusal = {}};
}

v1::Staleness MeasuredStaleness(std::optional<Instant> fresh_as_of, Instant now) {
  v1::Staleness staleness;
  if (!fresh_as_of) {
    staleness.set_unknown(true);
    return staleness;
  }
  const int64_t age_us = Age(*fresh_as_of, now).count();
  staleness.mutable_age()->set_seconds(age_us / 1'000'000);
  staleness.mutable_age()->set_nanos(static_cast<int32_t>(age_us % 1'000'000 * 1000));
  return staleness;
}

}  // namespace quorate::services
