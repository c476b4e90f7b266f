#include "ingress/leader_sessions.h"

#include <algorithm>

#include "base/check.h"

namespace quorate::ingress {

void LeaderSessions::BeginTerm(raft::Term term) {
  if (term == term_) return;
  term_ = term;
  sessions_.clear();
}

LeaderSessions::Result LeaderSessions::Check(const SessionId& session, uint64_t sequence,
                                             const std::optional<AppliedSession>& applied) {
  CHECK(sequence != 0, "OpenSession has no sequence and is not checked here");
  if (!applied || applied->id != session) {
    sessions_.erase(session);
    return {Verdict::kUnknown, 0};
  }
  auto found = sessions_.find(session);
  if (found == sessions_.end()) {
    // One session per store: a newer one ends the older.
    std::erase_if(sessions_, [&](const auto& each) { return each.first.store == session.store; });
    found = sessions_.emplace(session, Tracked{}).first;
  }
  Tracked& tracked = found->second;
  // What an earlier session of the same process has accepted says nothing of this one.
  if (tracked.opened_at != applied->opened_at) tracked = {applied->opened_at, 0, false};
  tracked.accepted = std::max(tracked.accepted, applied->last_sequence);
  if (sequence <= applied->last_sequence) return {Verdict::kApplied, 0};
  if (sequence <= tracked.accepted) return {Verdict::kPending, 0};
  const uint64_t expected = tracked.accepted + 1;
  if (sequence == expected) {
    tracked.accepted = sequence;
    tracked.told = false;
    return {Verdict::kAppend, 0};
  }
  if (tracked.told) return {Verdict::kIgnore, 0};
  tracked.told = true;
  return {Verdict::kRefuse, expected};
}

void LeaderSessions::RollBack(const SessionId& session, uint64_t sequence) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  CHECK(sequence != 0 && sequence <= found->second.accepted,
        "only what was accepted is rolled back");
  found->second.accepted = sequence - 1;
  found->second.told = true;
}

void LeaderSessions::OnRefusedByState(const SessionId& session) { sessions_.erase(session); }

void LeaderSessions::OnNewStream(const SessionId& session) {
  const auto found = sessions_.find(session);
  if (found != sessions_.end()) found->second.told = false;
}

}  // namespace quorate::ingress
