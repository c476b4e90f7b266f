// What a snapshot is to Raft: a whole state, as of one applied index (Raft paper, section 7). The
// bytes are the business of storage and transport; the core sees only this.
#pragma once

#include <cstdint>

#include "raft/core/membership.h"
#include "raft/core/types.h"

namespace quorate::raft {

// The state after the entry `index` of `term` was applied.
struct SnapshotMeta {
  Index index;
  Term term;
  uint64_t log_time_ms = 0;  // of that entry
  // The membership in force at `index`, and the entry that it came with (at or below `index`).
  Index membership_index;
  Membership membership;
  friend bool operator==(const SnapshotMeta&, const SnapshotMeta&) = default;
};

// A received snapshot becomes this node's state: the log starts after `snapshot.index`. What
// follows there is kept only if the log held that index with that term, else cut.
struct InstallRecord {
  SnapshotMeta snapshot;
  // Names the received copy, which is complete and durable: storage's `state-<generation>/`.
  uint64_t generation = 0;
  friend bool operator==(const InstallRecord&, const InstallRecord&) = default;
};

}  // namespace quorate::raft
