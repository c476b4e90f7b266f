// A machine's applied state, of one of two kinds behind one face:
//   memory  MemoryState and its vault: quick
//   SQLite  storage::State on the machine's simulated disk, by sqlite_vfs.h: the production's
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "raft/core/snapshot.h"
#include "storage/state.h"
#include "tests/sim/machine.h"
#include "tests/sim/memory_state.h"

namespace quorate::sim {

// A whole state on its way to another node.
struct StatePayload {
  raft::SnapshotMeta meta;
  storage::StateHash hash{};
  std::shared_ptr<const MemoryData> memory;  // one of the two
  std::string file;
};
using StatePayloadPtr = std::shared_ptr<const StatePayload>;

class StateBox {
 public:
  virtual ~StateBox() = default;
  // Makes the empty state of generation 1; what a start that died has left goes first.
  static absl::Status Create(Machine* machine, ClusterId cluster, bool sqlite);
  // The generation that the log names; 0: the first.
  static absl::StatusOr<std::unique_ptr<StateBox>> Open(Machine* machine, ClusterId cluster,
                                                        bool sqlite, uint64_t named,
                                                        uint64_t keep_every);

  virtual storage::State* state() = 0;
  virtual raft::Index applied() const { return Summary().applied; }
  storage::StateSummary Summary() const { return const_cast<StateBox*>(this)->state()->Summary(); }
  // Behind each entry of the last batch, or behind all of it.
  virtual std::vector<uint64_t> Hashes() = 0;
  virtual uint64_t Hash() const;
  virtual absl::StatusOr<StatePayloadPtr> Copy() = 0;
  // A state that comes in piece by piece (storage::IncomingState). What is not finished goes with
  // it.
  class Incoming {
   public:
    virtual ~Incoming() = default;
    virtual absl::Status Write(std::string_view bytes) = 0;
    // All is here: puts it in its place, durably; returns its generation.
    virtual absl::StatusOr<uint64_t> Finish() = 0;
  };
  // `payload` outlives it.
  virtual absl::StatusOr<std::unique_ptr<Incoming>> Receive(const StatePayload& payload) = 0;
  // Reads all of it and proves it, as an operator's check and a copy for another node do.
  // kDataLoss: it is damaged.
  virtual absl::Status Verify() = 0;
  // Removes every generation but the one that is open.
  virtual absl::Status RemoveOthers() = 0;
};

}  // namespace quorate::sim
