// What a watch hub (ingress/watch_hub.h) gets from the node's state: the portions that it asks for,
// and what it is told live. No gRPC and no thread: the simulator runs this same code.
#pragma once

#include <functional>

#include "base/time.h"
#include "ingress/watch_hub.h"
#include "storage/state.h"

namespace quorate::services {

// Tells the hub what became of a read: one of OnState, OnChanges and OnReadFailed. Once, wherever
// the hub is used.
using WatchAnswer = std::function<void(ingress::WatchHub* hub, Instant now)>;

// Reads what `read` asks for. Blocks on SQLite; any thread. `limits` holds for states: few items
// may be among many that have been changed since, so that a portion can take its time. A portion of
// history has its bound in itself (WatchRead::rows_max).
WatchAnswer ReadForWatch(storage::State* state, const ingress::WatchRead& read,
                         const storage::ReadLimits& limits = {});

// What the state has to collect for a hub that wants `wants`.
storage::Collect CollectFor(ingress::WatchHub::Wants wants);

}  // namespace quorate::services
