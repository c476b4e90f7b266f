#include "tests/sim/mail.h"

#include <algorithm>
#include <utility>

#include "tests/sim/process.h"

namespace quorate::sim {

Machine* Context::Reach(size_t from, StoreId store) {
  if (!plan.dns) return MachineOf(store);
  const auto address = machines[from]->process->directory()->Find(store);
  Machine* const there = address ? names.At(*address) : nullptr;
  if (there != nullptr && there->store == store) return there;
  report.Count(there == nullptr ? Reached::kNobodyThere : Reached::kAnotherThere);
  return nullptr;
}

void Mail::Send(size_t from, raft::Message message) {
  const Machine* const to = context_->Reach(from, message.to);
  ++context_->report.messages;
  if (const auto* handed_over = std::get_if<raft::TimeoutNow>(&message.body)) {
    context_->handed_over = std::max(context_->handed_over, handed_over->term);
  }
  if (to == nullptr) return;
  const Micros at = context_->network.Arrival(from, to->number);
  const Micros again = context_->network.SecondArrival(from, to->number);
  const ClusterId cluster = context_->machines[from]->process->cluster();
  const Micros now = context_->events.now();
  if (again != kNever) Fly({message, cluster, from, to->number, now}, again);
  if (at != kNever) Fly({std::move(message), cluster, from, to->number, now}, at);
}

void Mail::Fly(Flight flight, Micros at) {
  uint32_t place;
  if (free_flights_.empty()) {
    place = static_cast<uint32_t>(flights_.size());
    flights_.emplace_back();
  } else {
    place = free_flights_.back();
    free_flights_.pop_back();
  }
  flights_[place] = std::move(flight);
  context_->events.At(at, [this, place] { Land(place); });
}

void Mail::Land(uint32_t place) {
  const Flight flight = std::move(flights_[place]);
  free_flights_.push_back(place);
  Machine& machine = *context_->machines[flight.to];
  if (!context_->network.StillOnItsWay(flight.from, flight.to, flight.sent)) return;
  if (machine.process == nullptr || machine.store != flight.message.to) return;
  context_->trace.Note(kTraceDeliver, flight.from << 8 | flight.to, flight.message.body.index());
  machine.process->Deliver(flight.message, flight.cluster);
}

}  // namespace quorate::sim
