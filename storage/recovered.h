// What a node knows when it starts: its log and its state, put together for the core.
#pragma once

#include "raft/core/core.h"
#include "storage/log.h"
#include "storage/state.h"

namespace quorate::storage {

// `state` is the one that the log's generation record names, applied within the log.
raft::RecoveredState PutTogether(RecoveredLog log, const StateSummary& state);

}  // namespace quorate::storage
