// The ingress: takes this node's clients' writes and sees each through to its one outcome.
//
// Pure: no clock, no gRPC, no thread; time comes in, one Output comes out. What carries it (the
// forwarding stream, or this node itself when it leads) is services/forwarder. The simulator runs
// this same class. DESIGN.md, "Exactly once"; the protocol as prose is in docs/architecture.md.
//
// The life of a write:
//   1. Submit: it waits. It has no sequence and is certainly in no log.
//   2. It is put into an Output: it has the session's next sequence for ever and may be in any log
//      from now on, whatever becomes of the link.
//   3. It is sent again, in order, on every new link and from wherever a leader refused.
//   4. Its answer comes (from any link, or from this node's own state machine), or its deadline.
//   After
//      the deadline its sequence is sent as Skip until one of the two is answered: a hole would
//      stop every later write of the session.
//
// Not thread-safe: the caller holds one lock around inputs and TakeOutput. `now` never goes back.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "ingress/session.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"

namespace quorate::ingress {

// The caller's name for one submitted write: not zero, never used twice.
using WriteId = Strong<struct WriteIdTag>;

// The Command.format that says all of the command, and no more: nodes of an older build go on while
// nobody asks for what they do not know.
uint32_t FormatOf(const v1::Command& command);

struct IngressOptions {
  StoreId store;
  uint64_t boot = 0;
  uint64_t nonce = 0;
  size_t unanswered_max = 4096;  // from the first unanswered sequence to the last (DESIGN.md)
  // The same in bytes, a transaction that reads counted with what it may be answered; one write may
  // exceed it.
  size_t unanswered_bytes_max = 64u << 20;
  size_t waiting_max = 65536;  // submitted and not yet sent; beyond: QUEUE_FULL
  size_t waiting_bytes_max = 64u << 20;
  size_t batch_bytes_max = 4u << 20;  // of one Output's writes; one write may exceed it
  // How long a write may wait while there is no leader before UNAVAILABLE (NO_LEADER), if its own
  // deadline does not end the wait sooner. Counted from the later of Submit and the loss of the
  // link.
  Duration leader_wait = std::chrono::seconds(3);
  // A write is given up this long before its caller's deadline (at most a quarter of the time that
  // it had), so that its outcome still arrives: NO_LEADER or QUEUE_FULL while it waits, unknown
  // once it is sent. A busy machine's threads may well take half of it.
  Duration deadline_margin = std::chrono::milliseconds(100);
  // A refused write is sent again after this; doubled while the refusals go on, up to the maximum.
  Duration refused_backoff_min = std::chrono::milliseconds(5);
  Duration refused_backoff_max = std::chrono::milliseconds(100);
  // A leader's last sequence below what has been answered may only be late: its apply thread is
  // behind this node's own. The session is opened again, at refused_backoff, and given up when one
  // link stays behind for this long.
  Duration behind_max = std::chrono::seconds(10);
  // At most one session_lost within this time: a store that the cluster refuses must not burn a
  // durable boot number for every try.
  Duration session_backoff = std::chrono::seconds(1);
};

// Reasons of Outcome::kNotAccepted: the ErrorInfo reasons that clients see.
inline constexpr char kReasonNoLeader[] = "NO_LEADER";
inline constexpr char kReasonQueueFull[] = "QUEUE_FULL";
inline constexpr char kReasonDeadline[] = "DEADLINE_TOO_SHORT";
inline constexpr char kReasonStopping[] = "SHUTTING_DOWN";
// The leader cannot apply the command: sending it again is no use.
inline constexpr char kReasonNotUnderstood[] = "WRITE_NOT_UNDERSTOOD";
inline constexpr char kReasonMalformed[] = "WRITE_MALFORMED";

// How a write ended.
struct Outcome {
  enum class Kind : uint8_t {
    kAnswered,     // applied, executed or refused by the state machine: `answer`
    kNotAccepted,  // certainly in no log: an error with `reason`, retry is safe
    kUnknown,      // may or may not be applied: DEADLINE_EXCEEDED
  };
  Kind kind = Kind::kUnknown;
  std::shared_ptr<const std::string> answer;  // serialized v1::Answer; not null when kAnswered
  std::string reason;                         // kNotAccepted: one of the reasons above
  std::string message;                        // for people; empty when kAnswered
};

struct OutgoingWrite {
  uint64_t sequence = 0;
  std::shared_ptr<const std::string> command;  // serialized v1::Command with its session position
  Instant deadline;                            // of its caller; a Skip: when it was given up
  std::shared_ptr<const std::map<std::string, std::string>> metadata;  // null: none
};

class Ingress {
 public:
  explicit Ingress(const IngressOptions& options);
  ~Ingress();
  Ingress(const Ingress&) = delete;
  Ingress& operator=(const Ingress&) = delete;

  // --- Inputs ---

  // A write of a client; `command` without format and session position. Its end comes as
  // Output::finished, once, unless it is cancelled first.
  void Submit(Instant now, WriteId id, v1::Command command, Instant deadline,
              std::map<std::string, std::string> metadata);
  // The client went away: nobody waits for the outcome any more, and none is reported. A write
  // that was not sent is dropped; a sent one runs, or is replaced by Skip when it has to be sent
  // again. Unknown ids (already finished) are ignored.
  void Cancel(Instant now, WriteId id);

  // A link to a leader is up (a new stream, a new leader, or this node now leads); `link` is a
  // number of the caller's that increases with each. The session is opened on it first; then
  // everything unanswered is sent again, in order; then what waits.
  void LinkUp(Instant now, uint64_t link);
  // It broke, or the other side does not lead. Ignored for any link but the current one, as the
  // other replies below are.
  void LinkDown(Instant now, uint64_t link);
  // The session is open and `last_sequence` is the highest that the leader has applied, which holds
  // all of earlier terms. One that was never sent means that the cluster's state is not the one
  // that this ingress spoke to: session lost. So does one below what has been answered, but only
  // after IngressOptions::behind_max: until then the session is opened again. And another
  // `opened_at` than before: this store left the cluster and was let in again, and what the former
  // session has executed nobody knows any more.
  void OnOpened(Instant now, uint64_t link, const AppliedSession& session);
  // The outcome of an applied write, true whoever brings it: any link, or this node's own state
  // machine. Ignored when it is of another session or already known. A null answer ends the write
  // as unknown.
  void OnAnswer(Instant now, const SessionId& session, uint64_t sequence,
                std::shared_ptr<const std::string> answer);
  // Not taken for now: everything from this sequence on is sent again after a short while; 0: the
  // session must be opened again.
  void OnRefused(Instant now, uint64_t link, uint64_t from_sequence);
  // The leader cannot apply this write's command, and has not appended it. Sent on no other link,
  // it ends as not accepted: WRITE_NOT_UNDERSTOOD when the leader may be an older build (`newer`),
  // else WRITE_MALFORMED; otherwise as unknown. Skip takes its place.
  void OnRejected(Instant now, uint64_t link, uint64_t sequence, bool newer,
                  const std::string& reason);
  // The cluster does not know the session (any more). Nothing unanswered may be sent under a new
  // session, or it could run twice: it all ends as unknown. Output::session_lost asks for a new
  // one. This and OnOpened are ignored when they speak of another session than the current one.
  void OnSessionUnknown(Instant now, uint64_t link, const SessionId& session,
                        const std::string& reason);
  // The answer to session_lost: a boot above all earlier ones of this store, durable, and a new
  // nonce. What waits is carried on; sequences start again at 1.
  void NewSession(Instant now, uint64_t boot, uint64_t nonce);

  // This process stops: ends everything now, what was never sent as not accepted
  // (SHUTTING_DOWN), the rest as unknown. Every later Submit ends the same way.
  void Close(Instant now);

  void Tick(Instant now);
  // When Tick next has something to do; Instant::max() when never.
  Instant NextDeadline() const;

  // --- Output ---
  struct Output {
    uint64_t link = 0;                  // of `open` and `writes`
    bool open = false;                  // send OpenSession of session() first
    std::vector<OutgoingWrite> writes;  // then these, in order
    std::vector<std::pair<WriteId, Outcome>> finished;
    bool session_lost = false;  // call NewSession
    bool empty() const { return !open && writes.empty() && finished.empty() && !session_lost; }
  };
  // Takes what there is to do, at most batch_bytes_max of writes: call until empty, after each
  // round of inputs and after Tick. With `may_send`
  // false no open and no writes are given (the link cannot take any now), so that what cannot
  // leave yet stays certainly unsent.
  Output TakeOutput(Instant now, bool may_send);

  // --- Views ---
  struct Counters {
    uint64_t submitted = 0;
    uint64_t sent = 0;           // first sends
    uint64_t resent = 0;         // sends of a sequence that was sent before, Skips included
    uint64_t skips = 0;          // the Skips among them
    uint64_t found_applied = 0;  // sent on an earlier link and applied all the same
    uint64_t answered = 0;       // outcomes by kind
    uint64_t unknown = 0;
    uint64_t not_accepted = 0;
    uint64_t cancelled = 0;
    uint64_t sessions_lost = 0;
  };
  const Counters& counters() const;
  const SessionId& session() const;
  bool link_open() const;     // a leader takes writes now
  size_t unanswered() const;  // sent, Skips included
  size_t waiting() const;
  uint64_t answered_through() const;  // every sequence up to this has been answered

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::ingress
