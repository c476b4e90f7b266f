// The leader's side of the session rule: what may be appended, so that the log holds each session's
// sequences in order and without holes, and nothing twice within a term.
//
// The state machine decides what is executed in a session (DESIGN.md, "Exactly once"); this check
// keeps what it would refuse or skip out of the log. (That nothing goes to another session of the
// same process than it was sent to first is the ingress's to see to: AppliedSession::opened_at.) It
// relies on one fact: a ready leader has applied everything that earlier terms left in its log, so
// that "applied" plus "what I accepted in this term" is all there is of a session.
//
// Pure and not thread-safe. The caller appends what was accepted in the order of the calls, and
// reports what was not appended after all with RollBack before it asks anything else of that
// session.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "ingress/session.h"
#include "raft/core/types.h"

namespace quorate::ingress {

class LeaderSessions {
 public:
  enum class Verdict : uint8_t {
    kAppend,   // the next one: counted as accepted from now on
    kPending,  // accepted in this term and not applied yet: it will be answered when it is
    kApplied,  // applied: answer with what the state machine kept, if anything
    kRefuse,  // out of order, or after one that was refused: tell the sender to begin at `expected`
    kIgnore,  // the same, and the sender has been told already
    kUnknown,  // the state machine does not have this session
  };
  struct Result {
    Verdict verdict = Verdict::kUnknown;
    uint64_t expected = 0;  // kRefuse: the sequence that must come next
  };

  // This node leads `term` and has applied its no-op. Forgets everything of other terms.
  void BeginTerm(raft::Term term);

  // May `sequence` (not 0) of `session` be appended? `applied` is that store's session in the state
  // machine now, or nullopt.
  Result Check(const SessionId& session, uint64_t sequence,
               const std::optional<AppliedSession>& applied);

  // `sequence` and everything accepted after it was not appended: refused until it comes again. The
  // caller tells the sender.
  void RollBack(const SessionId& session, uint64_t sequence);

  // The state machine refused an entry of this session: what was counted as accepted and not
  // applied is void, because no later one can follow.
  void OnRefusedByState(const SessionId& session);

  // The sender was connected anew: it will send everything unanswered again, so a refusal that
  // it may not have seen must be said again.
  void OnNewStream(const SessionId& session);

 private:
  struct Tracked {
    uint64_t opened_at = 0;  // AppliedSession's
    uint64_t accepted = 0;   // highest; at least what was applied when last seen
    bool told = false;       // a refusal was said and `accepted` + 1 has not come since
  };
  raft::Term term_;
  std::map<SessionId, Tracked> sessions_;  // one per store at most
};

}  // namespace quorate::ingress
