// May this node answer a local read now, and how old is what it shows? (DESIGN.md, "Reads".)
//
// Staleness is measured, not assumed: the core says that this node's applied state contains
// everything acknowledged before some instant of this node's own clock (raft::NodeStatus,
// fresh_as_of); the age is now minus that. The rules:
//   1. A store that has never caught up since it was made refuses every read (NOT_CAUGHT_UP): an
//      empty answer would be a lie.
//   2. After a restart nothing is known until the first leader's commit is applied. A read with
//      max_staleness is refused (TOO_STALE); one without waits up to a second, and is then
//      answered from the durable state with `staleness.unknown`.
//   3. A later page of a listing waits until this node shows the revision that the first page
//      showed, and a read with min_revision until it shows that, until its deadline; it is then
//      refused (BEHIND).
//   4. A linearizable read, or one by lease, waits until this node has applied its read index,
//      which covers everything acknowledged before it was asked for: so it is as fresh as that.
//
// Pure functions; any thread. No gRPC: the simulator runs this same code (services/read_errors.h
// says a refusal to a caller).
#pragma once

#include <cstdint>
#include <optional>

#include "base/ids.h"
#include "base/time.h"
#include "quorate/v1/config.pb.h"
#include "raft/core/types.h"

namespace quorate::services {

// How long a read waits for the first leader after a restart.
inline constexpr Duration kFirstLeaderWait = std::chrono::seconds(1);
// A refusal leaves this long before the caller's deadline, so that it still arrives, as with writes
// (ingress); when the caller gave little time, a quarter of that.
inline constexpr Duration kReadDeadlineMargin = std::chrono::milliseconds(100);

// What this node knows of itself when it judges.
struct ReadState {
  bool caught_up_once = false;  // durable: this store has caught up with a leader before
  std::optional<Instant> fresh_as_of;
  Revision revision;    // applied
  raft::Index applied;  // asked for only with a read index
};

// What the caller asked for.
struct ReadWish {
  std::optional<Duration> max_staleness;
  Revision revision;      // of a page token; 0: none
  Revision min_revision;  // 0: none
  // Linearizable: what must be applied, and when that was asked for.
  std::optional<raft::Index> index;
  Instant index_asked;
  Instant arrived;
  Instant deadline;
};

// Why a read is not answered, and by which numbers.
struct ReadRefusal {
  enum class Reason : uint8_t {
    kNone,         // it is answered
    kNotCaughtUp,  // rule 1
    kNotApplied,   // rule 4; entries
    kPageBehind,   // rule 3; revisions
    kBehind,       // the same, of min_revision
    kAgeUnknown,   // rule 2
    kTooOld,       // milliseconds
  };
  Reason reason = Reason::kNone;
  uint64_t has = 0;    // this node
  uint64_t wants = 0;  // the read; of kTooOld: takes at most
  bool ok() const { return reason == Reason::kNone; }
};

struct ReadVerdict {
  enum class Kind : uint8_t { kServe, kWait, kRefuse };
  Kind kind = Kind::kRefuse;
  // kServe: the measure that goes with the answer; nullopt: unknown. kWait: judge again at
  // `wait_until` at the latest.
  std::optional<Instant> fresh_as_of;
  Instant wait_until;
  ReadRefusal refusal;
};

// When a read that waits is refused, so that its caller hears why.
Instant LastMoment(const ReadWish& wish);

ReadVerdict JudgeRead(const ReadState& state, const ReadWish& wish, Instant now);

// The staleness of an answer that is about to leave. The age is taken now, after the read, from
// what was known before it.
v1::Staleness MeasuredStaleness(std::optional<Instant> fresh_as_of, Instant now);

// OK, or the refusal when the answer could be older than the caller takes. Also asked again after
// the read: reading takes time too.
ReadRefusal CheckStaleness(std::optional<Instant> fresh_as_of,
                           std::optional<Duration> max_staleness, Instant now);

}  // namespace quorate::services
