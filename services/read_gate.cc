#include "services/read_gate.h"

#include <algorithm>
#include <string>

#include "services/errors.h"

namespace quorate::services {
namespace {

constexpr Duration kReadRetryDelay = std::chrono::milliseconds(200);

int64_t WholeMilliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

Duration Age(Instant fresh_as_of, Instant now) {
  return std::max(now - fresh_as_of, Duration::zero());
}

ReadVerdict Refuse(grpc::Status status) {
  return {.kind = ReadVerdict::Kind::kRefuse,
          .fresh_as_of = {},
          .wait_until = {},
          .refusal = std::move(status)};
}

grpc::Status Behind(const char* field, Revision shown, Revision wanted) {
  return MakeError(grpc::StatusCode::UNAVAILABLE, "BEHIND",
                   std::string(field) + ": this node shows revision " + ToString(shown) +
                       ", the read needs " + ToString(wanted) + "; ask another node or try again",
                   {{"field", field}, {"revision", ToString(shown)}}, kReadRetryDelay);
}

ReadVerdict WaitUntil(Instant instant) {
  return {
      .kind = ReadVerdict::Kind::kWait, .fresh_as_of = {}, .wait_until = instant, .refusal = {}};
}

}  // namespace

grpc::Status CheckStaleness(std::optional<Instant> fresh_as_of,
                            std::optional<Duration> max_staleness, Instant now) {
  if (!max_staleness) return grpc::Status::OK;
  if (!fresh_as_of) {
    return MakeError(grpc::StatusCode::UNAVAILABLE, "TOO_STALE",
                     "this node has not heard from a leader since it started: the age of its "
                     "state is unknown",
                     {}, kReadRetryDelay);
  }
  const Duration age = Age(*fresh_as_of, now);
  if (age <= *max_staleness) return grpc::Status::OK;
  return MakeError(grpc::StatusCode::UNAVAILABLE, "TOO_STALE",
                   "this node's state may be " + std::to_string(WholeMilliseconds(age)) +
                       " ms old; read.max_staleness is " +
                       std::to_string(WholeMilliseconds(*max_staleness)) + " ms",
                   {{"age_ms", std::to_string(WholeMilliseconds(age))},
                    {"max_staleness_ms", std::to_string(WholeMilliseconds(*max_staleness))}},
                   kReadRetryDelay);
}

Instant LastMoment(const ReadWish& wish) {
  return wish.deadline - std::min(kReadDeadlineMargin, (wish.deadline - wish.arrived) / 4);
}

ReadVerdict JudgeRead(const ReadState& state, const ReadWish& wish, Instant now) {
  if (!state.caught_up_once) {
    return Refuse(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP",
                            "this node has not caught up with the cluster since its data "
                            "directory was made; ask another node or try again",
                            {}, kReadRetryDelay));
  }
  const Instant last_moment = LastMoment(wish);
  if (wish.index && *wish.index > state.applied) {
    if (now < last_moment) return WaitUntil(last_moment);
    return Refuse(MakeError(grpc::StatusCode::UNAVAILABLE, "BEHIND",
                            "this node has applied " + ToString(state.applied) +
                                " entries and the read needs " + ToString(*wish.index) +
                                "; ask another node or try again",
                            {}, kReadRetryDelay));
  }
  if (std::max(wish.revision, wish.min_revision) > state.revision) {
    if (now < last_moment) return WaitUntil(last_moment);
    // A token is ours, so its revision exists: another node has it, and this one will. The caller's
    // own may be one that nobody has, yet.
    const bool page = wish.revision > state.revision;
    return Refuse(Behind(page ? "page_token" : "read.min_revision", state.revision,
                         page ? wish.revision : wish.min_revision));
  }
  std::optional<Instant> fresh_as_of = state.fresh_as_of;
  if (wish.index) fresh_as_of = std::max(fresh_as_of.value_or(Instant::min()), wish.index_asked);
  if (!fresh_as_of && !wish.max_staleness) {
    const Instant until = std::min(wish.arrived + kFirstLeaderWait, last_moment);
    if (now < until) return WaitUntil(until);
  }
  if (grpc::Status status = CheckStaleness(fresh_as_of, wish.max_staleness, now); !status.ok()) {
    return Refuse(std::move(status));
  }
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
