#include "tests/sim/snapshots.h"

#include <utility>

#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

constexpr Micros kPatience = 8 * kSecond;  // of a sender for one transfer

Process* Living(Context* context, size_t machine, uint64_t life) {
  Process* const process = context->machines[machine]->process.get();
  return process != nullptr && process->life() == life && !process->dead() ? process : nullptr;
}

}  // namespace

// --- The sender ---

void Snapshots::Send(const raft::SnapshotRequest& request) {
  if (process_->dead()) return;
  context_->report.Count(Reached::kSnapshotOffered);
  // Unique among all processes, as a call is.
  const uint64_t call = context_->random.Next() | 1;
  sending_[call] = request;
  const size_t machine = process_->machine();
  const uint64_t life = process_->life();
  // The copy takes its time, and shows what is applied when it is made.
  const Micros copying = context_->random.Between(kMillisecond, 300 * kMillisecond);
  context_->events.After(copying, [context = context_, machine, life, call] {
    if (Process* const process = Living(context, machine, life)) process->snapshots()->Begin(call);
  });
  context_->events.After(kPatience, [context = context_, machine, life, call] {
    if (Process* const process = Living(context, machine, life)) process->snapshots()->Fail(call);
  });
}

void Snapshots::Fail(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end()) return;
  const raft::SnapshotRequest request = found->second;
  sending_.erase(found);
  process_->node()->SnapshotFailed(request);
  process_->Wake(Process::Job::kNode, 1);
}

void Snapshots::Begin(uint64_t call) {
  const auto found = sending_.find(call);
  if (found == sending_.end()) return;
  const raft::SnapshotRequest& request = found->second;
  const auto status = process_->status();
  Machine* const to = context_->MachineOf(request.peer);
  if (status->role != raft::Role::kLeader || status->term != request.term || to == nullptr ||
      to->process == nullptr) {
    return Fail(call);
  }
  Offer offer;
  offer.call = call;
  offer.from_machine = process_->machine();
  offer.from_life = process_->life();
  offer.from = process_->store();
  auto copy = process_->state()->Copy();
  if (!process_->Check(copy.status(), "its state could not be copied")) {
    return process_->AfterStep();
  }
  offer.payload = *std::move(copy);
  offer.message.term = request.term;
  offer.message.snapshot = offer.payload->meta;
  offer.message.call_id = call;
  const Micros at = context_->network.StreamArrival(offer.from_machine, to->number);
  if (at == kNever) return Fail(call);
  const uint64_t life = to->process->life();
  context_->events.At(at,
                      [context = context_, machine = to->number, life, offer = std::move(offer)] {
                        if (Process* const process = Living(context, machine, life))
                          process->OnSnapshotOffer(offer);
                      });
}

void Snapshots::OnFinalReply(uint64_t call, const raft::Message& reply) {
  if (sending_.erase(call) == 0) return;  // it was given up
  process_->Deliver(reply, process_->cluster());
}

// --- The receiver ---

void Snapshots::OnOffer(const Offer& offer) {
  // One at a time. What the core has been told of comes to its end first.
  if (receiving_ && (receiving_->placed || receiving_->offer.message.term > offer.message.term)) {
    return;
  }
  receiving_ = Receiving{offer, false};
  process_->Deliver({offer.from, process_->store(), offer.message}, process_->cluster());
}

void Snapshots::OnCoreReply(const raft::InstallSnapshotReply& reply) {
  if (!receiving_ || receiving_->offer.call != reply.call_id) return;
  const Offer& offer = receiving_->offer;
  const size_t machine = process_->machine();
  const uint64_t life = process_->life();
  if (reply.answer == raft::SnapshotAnswer::kSend) {
    const Micros sending = context_->random.Skewed(kMillisecond, 2 * kSecond);
    const Micros at = context_->network.StreamArrival(offer.from_machine, machine);
    if (at == kNever) return receiving_.reset();
    context_->events.At(at + sending, [context = context_, machine, life, call = offer.call] {
      Process* const process = Living(context, machine, life);
      if (process != nullptr) process->snapshots()->BytesAreHere(call);
    });
    return;
  }
  const Micros at = context_->network.StreamArrival(machine, offer.from_machine);
  if (at != kNever) {
    const raft::Message message{process_->store(), offer.from, reply};
    context_->events.At(at, [context = context_, machine = offer.from_machine,
                             from_life = offer.from_life, call = offer.call, message] {
      Process* const process = Living(context, machine, from_life);
      if (process != nullptr) process->snapshots()->OnFinalReply(call, message);
    });
  }
  receiving_.reset();
}

// What has come is not what was sent, now and then.
bool Snapshots::FlipSomeBit(StatePayload* payload) {
  if (payload->file.empty() || context_->calm || !context_->plan.Has(Fault::kBitFlip) ||
      !context_->random.OneIn(3)) {
    return false;
  }
  const size_t at = context_->random.Below(payload->file.size());
  payload->file[at] = static_cast<char>(payload->file[at] ^ (1 << context_->random.Below(8)));
  context_->report.Count(Fault::kBitFlip);
  context_->report.Count(Reached::kFlippedSnapshot);
  return true;
}

void Snapshots::BytesAreHere(uint64_t call) {
  if (!receiving_ || receiving_->offer.call != call || receiving_->placed) return;
  // The sender lives? Else the stream ended before its end.
  const Offer& offer = receiving_->offer;
  if (Living(context_, offer.from_machine, offer.from_life) == nullptr) return receiving_.reset();
  receiving_->placed = true;
  raft::InstallSnapshot install = offer.message;
  StatePayload payload = *offer.payload;
  const bool flipped = FlipSomeBit(&payload);
  const auto generation = process_->state()->Place(payload);
  const SimulatedDisk& disk = context_->machines[process_->machine()]->disk;
  if (flipped && !generation.ok() && !disk.stopped() && !disk.failed()) {
    context_->report.Count(Reached::kDamageNoticed);
    return receiving_.reset();  // its sender is told, or gives up
  }
  if (!process_->Check(generation.status(), "a received state could not be put in its place")) {
    return process_->AfterStep();
  }
  install.generation = *generation;
  process_->Deliver({offer.from, process_->store(), std::move(install)}, process_->cluster());
}

}  // namespace quorate::sim
