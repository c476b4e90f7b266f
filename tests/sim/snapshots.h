// How a whole state gets from a leader to a follower: both ends of a transfer, in place of
// services/snapshot_sender and snapshot_receiver. The bytes are one action of the network; what the
// core is asked, in which order, and what is durable when is as there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "raft/ports.h"
#include "tests/sim/context.h"
#include "tests/sim/state_box.h"

namespace quorate::sim {

class Process;

class Snapshots final : public raft::SnapshotSender {
 public:
  Snapshots(Context* context, Process* process) : context_(context), process_(process) {}

  // --- The sender ---
  void Send(const raft::SnapshotRequest& request) override;
  void OnFinalReply(uint64_t call, const raft::Message& reply);

  // --- The receiver ---
  struct Offer {
    uint64_t call = 0;
    size_t from_machine = 0;
    uint64_t from_life = 0;
    StoreId from;
    raft::InstallSnapshot message;
    StatePayloadPtr payload;
  };
  void OnOffer(const Offer& offer);
  // What the core says to an offer, or to the state that is in its place.
  void OnCoreReply(const raft::InstallSnapshotReply& reply);

 private:
  void Begin(uint64_t call);
  void Fail(uint64_t call);
  bool FlipSomeBit(StatePayload* payload);
  void BytesAreHere(uint64_t call);

  Context* const context_;
  Process* const process_;

  std::map<uint64_t, raft::SnapshotRequest> sending_;  // by call; until it is answered or failed
  struct Receiving {
    Offer offer;
    bool placed = false;  // the core has been told that the state is in its place
  };
  std::optional<Receiving> receiving_;
};

}  // namespace quorate::sim
