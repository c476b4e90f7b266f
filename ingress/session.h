// Which session a write belongs to. Plain values, shared by the ingress and the leader's check.
#pragma once

#include <compare>
#include <cstdint>

#include "base/ids.h"

namespace quorate::ingress {

// One process of one ingress: `boot` was made durable before use and increases with each session of
// that store, `nonce` is random. A sequence number means nothing without all three.
struct SessionId {
  StoreId store;
  uint64_t boot = 0;
  uint64_t nonce = 0;
  friend auto operator<=>(const SessionId&, const SessionId&) = default;
};

// A session as the state machine holds it now.
struct AppliedSession {
  SessionId id;
  uint64_t last_sequence = 0;  // the highest sequence applied
  // The log index of the entry that opened it: tells it from an earlier one of the same process,
  // which ended when its store left the cluster and was let in again. 0: not known (a leader of an
  // older build has not said it).
  uint64_t opened_at = 0;
};

}  // namespace quorate::ingress
