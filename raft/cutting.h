// How far the log on disk may be cut (DESIGN.md, "Storage").
//
// Never beyond what a power failure would leave applied, and a byte-bounded tail stays, so that a
// short outage of a follower needs no snapshot. A leader also keeps what its followers still have
// to read from it: those that answer and are behind, and those that are being sent a snapshot,
// which will go on behind it. That is bounded as well: a follower that is slower than the log grows
// gets (another) snapshot in the end.
//
// Pure; any thread.
#pragma once

#include <algorithm>
#include <map>
#include <vector>

#include "raft/core/core.h"

namespace quorate::raft {

struct CutFacts {
  Index applied;
  Index durable_applied;
  Index tail_start;    // from here on the log is as long as the tail that stays
  Index pinned_start;  // the same for the longest log that is kept for followers
  std::vector<PeerView> peers;
  // Where a follower will go on once the snapshot that is being sent to it is installed, at the
  // least.
  std::map<StoreId, Index> snapshots;
};

// Everything up to here may go; 0: nothing.
inline Index CutThrough(const CutFacts& facts) {
  const auto before = [](Index index) { return index > Index(0) ? index - 1 : Index(0); };
  const Index allowed = std::min({facts.applied, facts.durable_applied, before(facts.tail_start)});
  Index wanted = allowed;
  for (const PeerView& peer : facts.peers) {
    if (peer.snapshot_sent) {
      const auto snapshot = facts.snapshots.find(peer.store);
      if (snapshot != facts.snapshots.end()) wanted = std::min(wanted, snapshot->second);
    } else if (peer.active && !peer.needs_snapshot) {
      wanted = std::min(wanted, peer.match);
    }
  }
  return std::max(wanted, std::min(allowed, before(facts.pinned_start)));
}

}  // namespace quorate::raft
