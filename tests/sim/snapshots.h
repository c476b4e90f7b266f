// How a whole state gets from a leader to a follower: both ends of a transfer, in place of
// services/snapshot_sender and snapshot_receiver. What the core is asked, in which order, and what
// is durable when is as there; so is how a transfer goes:
//
//   The offer begins a stream. Once the core wants the state it is received piece by piece, each
//   read when the one before is written (storage::IncomingState), checked as a whole and put in
//   its place. The answer ends the stream. A transfer that ends early, wherever, leaves nothing and
//   begins again from the start; one that the core has been told of waits for its answer. One is
//   received at a time: another leader hears that this node is busy.
//
// Each piece, and each permission to send the next one, is a message of the network. A stream
// breaks when one of them is lost, when either end is gone, when its sender no longer leads, or
// takes too long; the other end finds out a while later.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "raft/ports.h"
#include "tests/sim/context.h"
#include "tests/sim/state_box.h"

namespace quorate::sim {

class Process;

// Of a sender for one transfer.
inline constexpr Micros kTransferPatience = 8 * kSecond;

class Snapshots final : public raft::SnapshotSender {
 public:
  Snapshots(Context* context, Process* process) : context_(context), process_(process) {}

  // --- The sender ---
  void Send(const raft::SnapshotRequest& request) override;

  // --- The receiver ---
  struct Offer {
    uint64_t call = 0;
    size_t from_machine = 0;
    uint64_t from_life = 0;
    StoreId from;
    raft::InstallSnapshot message;
    StatePayloadPtr payload;
    size_t pieces = 0;
  };
  void OnOffer(const Offer& offer);
  // What the core says to an offer, or to the state that is in its place.
  void OnCoreReply(const raft::InstallSnapshotReply& reply);

 private:
  struct Sending {
    raft::SnapshotRequest request;
    size_t to_machine = 0;
    uint64_t to_life = 0;
    size_t pieces = 0;
    size_t next = 0;
    Micros pace = 0;  // of a piece, at most
    bool broken = false;
  };
  struct Receiving {
    Offer offer;
    std::unique_ptr<StateBox::Incoming> incoming;
    size_t next = 0;
    bool flipped = false;
    bool asking = false;  // the core, which has not answered yet
    bool ended = false;   // the stream
    bool placed = false;  // and the core has been told
  };
  using Action = std::function<void(Snapshots*)>;

  // On the stream to another process; false: it is lost.
  bool Carry(size_t machine, uint64_t life, Micros later, Action action);
  // A message of the other end is lost.
  static void BreakAt(Context* context, size_t machine, uint64_t life, uint64_t call);
  bool Sends(uint64_t call) const;
  bool IsReceiving(uint64_t call) const { return receiving_ && receiving_->offer.call == call; }

  void Begin(uint64_t call);
  void WatchSending(uint64_t call);
  void OnPull(uint64_t call);
  void OnFinalReply(uint64_t call, const raft::Message& reply);
  void Fail(uint64_t call);

  void Ask();
  void AnswerBusy(const Offer& offer);
  void Reply(const Offer& offer, const raft::InstallSnapshotReply& reply);
  void WatchReceiving(uint64_t call);
  void BeginReceiving(uint64_t call);
  void Pull();
  void OnPiece(uint64_t call, size_t piece);
  std::string BytesOf(size_t piece);
  void Place();
  void EndEarly(uint64_t call);
  void Drop();

  Context* const context_;
  Process* const process_;
  std::map<uint64_t, Sending> sending_;  // by call; until it is answered or failed
  std::optional<Receiving> receiving_;
};

}  // namespace quorate::sim
