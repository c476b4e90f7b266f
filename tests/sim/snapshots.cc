#include "tests/sim/snapshots.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

constexpr Micros kTransferMax = 2 * kSecond;
constexpr size_t kPiecesMin = 3, kPiecesMax = 10;
// When an end of a stream looks whether the other one is still there.
constexpr Micros kLookMin = 20 * kMillisecond, kLookMax = 500 * kMillisecond;

Process* Living(Context* context, size_t machine, uint64_t life) {
  Process* const process = context->machines[machine]->process.get();
  return process != nullptr && process->life() == life && !process->dead() ? process : nullptr;
}

}  // namespace

bool Snapshots::Carry(size_t machine, uint64_t life, Micros later, Action action) {
  const Micros at = context_->network.StreamArrival(process_->machine(), machine);
  if (at == kNever) return false;
  context_->events.At(at + later, [context = context_, machine, life, action = std::move(action)] {
    Process::Run(context, machine, life, [context, machine, action] {
      action(context->machines[machine]->process->snapshots());
    });
  });
  return true;
}

void Snapshots::BreakAt(Context* context, size_t machine, uint64_t life, uint64_t call) {
  Process* const process = Living(context, machine, life);
  if (process == nullptr) return;
  auto& sending = process->snapshots()->sending_;
  const auto found = sending.find(call);
  if (found != sending.end()) found->second.broken = true;
}

bool Snapshots::Sends(uint64_t call) const {
  const auto found = sending_.find(call);
  return found != sending_.end() && !found->second.broken;
}

// --- The sender ---

void Snapshots::Send(const raft::SnapshotRequest& request) {
  if (process_->dead()) return;
  context_->report.Count(Reached::kSnapshotOffered);
  // Unique among all processes, as a call is.
  const uint64_t call = context_->random.Next() | 1;
  sending_[call].request = request;
  // The copy takes its time, and shows what is applied when it is made.
  const Micros copying = context_->random.Between(kMillisecond, 300 * kMillisecond);
  process_->After(copying, [this, call] { Begin(call); });
  process_->After(kTransferPatience, [this, call] { Fail(call); });
}

void Snapshots::Fail(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end()) return;
  context_->report.Count(Reached::kSnapshotGivenUp);
  const raft::SnapshotRequest request = found->second.request;
  sending_.erase(found);
  process_->node()->SnapshotFailed(request);
  process_->Wake(Process::Job::kNode, 1);
}

void Snapshots::Begin(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end()) return;
  Sending& sending = found->second;
  const raft::SnapshotRequest& request = sending.request;
  const auto status = process_->status();
  Machine* const to = context_->Reach(process_->machine(), request.peer);
  if (status->role != raft::Role::kLeader || status->term != request.term || to == nullptr ||
      to->process == nullptr) {
    return Fail(call);
  }
  auto copy = process_->state()->Copy();
  if (!process_->Check(copy.status(), "its state could not be copied")) return;
  Offer offer;
  offer.call = call;
  offer.from_machine = process_->machine();
  offer.from_life = process_->life();
  offer.from = process_->store();
  offer.payload = *std::move(copy);
  offer.message.term = request.term;
  offer.message.snapshot = offer.payload->meta;
  offer.message.call_id = call;
  offer.pieces = static_cast<size_t>(context_->random.Between(kPiecesMin, kPiecesMax));
  sending.pieces = offer.pieces;
  sending.pace =
      2 * context_->random.Skewed(kMillisecond, kTransferMax) / static_cast<Micros>(offer.pieces);
  sending.to_machine = to->number;
  sending.to_life = to->process->life();
  sending.broken = !Carry(sending.to_machine, sending.to_life, 0, [offer](Snapshots* receiver) {
    if (receiver->process_->node() != nullptr) receiver->OnOffer(offer);
  });
  WatchSending(call);
}

void Snapshots::WatchSending(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end()) return;
  const Sending& sending = found->second;
  const auto status = process_->status();
  const bool leads = status->role == raft::Role::kLeader && status->term == sending.request.term;
  if (!leads || sending.broken ||
      Living(context_, sending.to_machine, sending.to_life) == nullptr) {
    return Fail(call);
  }
  process_->After(context_->random.Between(kLookMin, kLookMax),
                  [this, call] { WatchSending(call); });
}

// The receiver reads on.
void Snapshots::OnPull(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end() || found->second.broken) return;
  Sending& sending = found->second;
  CHECK(sending.next < sending.pieces);
  const size_t piece = sending.next++;
  const Micros pace = context_->random.Between(0, sending.pace);
  sending.broken = !Carry(sending.to_machine, sending.to_life, pace,
                          [call, piece](Snapshots* receiver) { receiver->OnPiece(call, piece); });
}

void Snapshots::OnFinalReply(uint64_t call, const raft::Message& reply) {
  if (sending_.erase(call) == 0) return;  // it was given up
  process_->Deliver(reply, process_->cluster());
}

// --- The receiver ---

void Snapshots::OnOffer(const Offer& offer) {
  if (receiving_) {
    // One leader after the other: the newer one comes again in a moment.
    if (offer.message.term > receiving_->offer.message.term) {
      EndEarly(receiving_->offer.call);
    }
    return AnswerBusy(offer);
  }
  Receiving receiving;  // clang 14 has no emplace for a nested class with initial values
  receiving.offer = offer;
  receiving_ = std::move(receiving);
  WatchReceiving(offer.call);
  if (IsReceiving(offer.call)) Ask();  // its sender may be gone already
}

void Snapshots::Ask() {
  const Offer& offer = receiving_->offer;
  receiving_->asking = true;
  process_->Deliver({offer.from, process_->store(), offer.message}, process_->cluster());
}

void Snapshots::AnswerBusy(const Offer& offer) {
  const raft::SnapshotMeta& snapshot = offer.message.snapshot;
  const raft::Term term = std::max(process_->node()->status()->term, offer.message.term);
  Reply(offer, {term, snapshot.index, snapshot.term, raft::SnapshotAnswer::kBusy, 0});
}

void Snapshots::Reply(const Offer& offer, const raft::InstallSnapshotReply& reply) {
  const raft::Message message{process_->store(), offer.from, reply};
  const bool sent = Carry(
      offer.from_machine, offer.from_life, 0,
      [call = offer.call, message](Snapshots* sender) { sender->OnFinalReply(call, message); });
  if (!sent) BreakAt(context_, offer.from_machine, offer.from_life, offer.call);
}

void Snapshots::WatchReceiving(uint64_t call) {
  if (!IsReceiving(call) || receiving_->ended) return;
  const Offer& offer = receiving_->offer;
  Process* const sender = Living(context_, offer.from_machine, offer.from_life);
  if (sender == nullptr || !sender->snapshots()->Sends(call)) return EndEarly(call);
  process_->After(context_->random.Between(kLookMin, kLookMax),
                  [this, call] { WatchReceiving(call); });
}

void Snapshots::OnCoreReply(const raft::InstallSnapshotReply& reply) {
  if (!IsReceiving(reply.call_id)) return;
  receiving_->asking = false;
  const uint64_t call = reply.call_id;
  if (reply.answer == raft::SnapshotAnswer::kSend) {
    process_->After(context_->random.Between(0, kMillisecond),
                    [this, call] { BeginReceiving(call); });
    return;
  }
  if (!receiving_->ended) Reply(receiving_->offer, reply);
  Drop();
}

void Snapshots::BeginReceiving(uint64_t call) {
  if (!IsReceiving(call)) return;
  if (receiving_->ended) return Drop();
  auto incoming = process_->state()->Receive(*receiving_->offer.payload);
  if (!process_->Check(incoming.status(), "there is no place for a state")) return;
  receiving_->incoming = *std::move(incoming);
  Pull();
}

void Snapshots::Pull() {
  const Offer& offer = receiving_->offer;
  const bool sent = Carry(offer.from_machine, offer.from_life, 0,
                          [call = offer.call](Snapshots* sender) { sender->OnPull(call); });
  if (!sent) BreakAt(context_, offer.from_machine, offer.from_life, offer.call);
}

// What has come is not what was sent, now and then, though its own checksum was right.
std::string Snapshots::BytesOf(size_t piece) {
  const std::string& file = receiving_->offer.payload->file;
  const size_t pieces = receiving_->offer.pieces;
  const size_t from = file.size() * piece / pieces;
  std::string bytes = file.substr(from, file.size() * (piece + 1) / pieces - from);
  if (bytes.empty() || receiving_->flipped || context_->calm ||
      !context_->plan.Has(Fault::kBitFlip) || !context_->random.OneIn(3 * pieces)) {
    return bytes;
  }
  const size_t at = context_->random.Below(bytes.size());
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << context_->random.Below(8)));
  receiving_->flipped = true;
  context_->report.Count(Fault::kBitFlip);
  context_->report.Count(Reached::kFlippedSnapshot);
  return bytes;
}

void Snapshots::OnPiece(uint64_t call, size_t piece) {
  if (!IsReceiving(call) || receiving_->ended) return;
  CHECK(piece == receiving_->next, "the pieces come in order");
  const absl::Status written = receiving_->incoming->Write(BytesOf(piece));
  if (!process_->Check(written, "a piece of a state could not be written")) return;
  if (++receiving_->next == receiving_->offer.pieces) return Place();
  Pull();
}

void Snapshots::Place() {
  const auto generation = receiving_->incoming->Finish();
  const SimulatedDisk& disk = context_->machines[process_->machine()]->disk;
  if (receiving_->flipped && !generation.ok() && !disk.stopped() && !disk.failed()) {
    context_->report.Count(Reached::kDamageNoticed);
    const Offer& offer = receiving_->offer;
    BreakAt(context_, offer.from_machine, offer.from_life, offer.call);
    return Drop();
  }
  if (!process_->Check(generation.status(), "a received state could not be put in its place")) {
    return;
  }
  receiving_->placed = true;
  receiving_->offer.message.generation = *generation;
  Ask();
}

// The stream is broken. What the core has still to answer for stays until then.
void Snapshots::EndEarly(uint64_t call) {
  if (!IsReceiving(call) || std::exchange(receiving_->ended, true)) return;
  BreakAt(context_, receiving_->offer.from_machine, receiving_->offer.from_life, call);
  if (receiving_->next > 0 && !receiving_->placed) {
    context_->report.Count(Reached::kSnapshotBroken);
  }
  if (!receiving_->asking) Drop();
}

// Nothing of it stays but what the log names.
void Snapshots::Drop() {
  const bool unnamed = receiving_->placed && process_->state()->state()->generation() !=
                                                 receiving_->offer.message.generation;
  receiving_.reset();
  if (process_->dead()) return;
  // The next process removes what this one could not; the production goes on meanwhile.
  const std::string& failed = context_->machines[process_->machine()]->disk.failed_change();
  if (!failed.empty()) process_->Check(absl::InternalError(failed), "a part of a state stays");
  if (unnamed && !process_->dead()) {
    process_->Check(process_->state()->RemoveOthers(), "a state that nobody wants stays");
  }
}

}  // namespace quorate::sim
