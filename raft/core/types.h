// The core's vocabulary: positions in the log, terms, entries, and what must survive a crash.
// Raft paper ("In Search of an Understandable Consensus Algorithm", extended version), Figure 2.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/strong.h"
#include "base/time.h"

namespace quorate::raft {

// A position in the log. The first entry is 1; 0 means "before the log".
using Index = Strong<struct IndexTag>;

// A term of office. 0 means "none yet"; the entry of birth has term 1.
using Term = Strong<struct TermTag>;

// Names one hand-over of things to persist; increases by one with each (see Ready).
using Ticket = Strong<struct TicketTag>;

// What an entry carries. Numbers are on disk and on the wire: never reuse one.
enum class EntryType : uint8_t {
  kNoop = 1,           // the first entry of every term; empty payload
  kCommand = 2,        // a serialized quorate.v1.Command; opaque here
  kMembership = 3,     // an encoded Membership (raft/core/membership.h); effective when appended
  kBirthComplete = 4,  // every founder has entry 1; empty payload (DESIGN.md, "Birth")
};

struct Entry {
  Index index;
  Term term;
  EntryType type = EntryType::kNoop;
  // The cluster's own clock in milliseconds: within a term it advances by the leader's boot-time
  // clock, a new leader continues from the last value in its log. Set by the core at append.
  uint64_t log_time_ms = 0;
  // The leader's wall clock at append, for display only.
  WallMilliseconds wall_time_ms = 0;
  std::string payload;

  // What an entry counts for in every byte bound: payload plus a fixed overhead.
  size_t bytes() const { return payload.size() + 64; }
  friend bool operator==(const Entry&, const Entry&) = default;
};

// Entries are made once and then shared between window, log writer, transport and apply: never
// changed after they were made, so any thread may read one.
using EntryPtr = std::shared_ptr<const Entry>;

// What must be durable before anything that depends on it is said (Figure 2, "Persistent state").
struct HardState {
  Term term;
  StoreId vote;  // who got our vote in `term`; 0: nobody yet
  friend bool operator==(const HardState&, const HardState&) = default;
};

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

}  // namespace quorate::raft
