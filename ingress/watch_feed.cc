// The state machine's side of the watch hub: live changes, history, states.
#include <algorithm>

#include "base/check.h"
#include "ingress/watch_hub_impl.h"

namespace quorate::ingress {

// --- Live ---

void WatchHub::Impl::OnApplied(Revision head, const std::vector<ChangeSetPtr>& sets) {
  for (const ChangeSetPtr& set : sets) {
    if (set->revision <= head_) continue;  // of before a reset
    if (set->revision > head_ + 1) Gap(head_ + 1, set->revision - 1);
    Distribute(*set);
    head_ = set->revision;
  }
  if (head > head_) {
    Gap(head_ + 1, head);
    head_ = head;
  }
  ShrinkTotal();
  const std::vector<WatchId> waiting(future_.begin(), future_.end());
  for (const WatchId id : waiting) {
    Watch& watch = *Find(id);
    if (watch.spec.start_revision <= head_.value() + 1) Begin(watch);
  }
}

void WatchHub::Impl::Distribute(const ChangeSet& set) {
  for (auto& [key, shape] : shapes_) {
    if (shape.live.empty()) continue;
    std::vector<const Change*> wanted;
    for (const Change& change : set.changes) {
      CHECK(change.revision == set.revision);
      if (shape.filter.Matches(change.key)) wanted.push_back(&change);
    }
    if (wanted.empty()) continue;
    const std::vector<WatchId> live(shape.live.begin(), shape.live.end());
    if (shape.with_previous && !set.with_previous) {
      for (const WatchId id : live) {
        Watch& watch = *Find(id);
        if (watch.next.revision <= set.revision) FallBehind(watch, set.revision);
      }
      continue;
    }
    const EncodeOptions options{.with_previous = shape.with_previous,
                                .message_bytes = options_.message_bytes};
    std::vector<QueueEntry> entries;
    for (EncodedEvents& each :
         EncodeChanges(options, {set.revision, 0}, wanted, {set.revision + 1, 0}, /*open=*/false)) {
      entries.push_back({.body = MakeBody(std::move(each.body)),
                         .revision = each.revision,
                         .after = each.after,
                         .partial = each.partial,
                         .events = each.events});
    }
    counters_.encoded += entries.size();
    for (const WatchId id : live) Enqueue(*Find(id), set.revision, entries);
  }
}

void WatchHub::Impl::Enqueue(Watch& watch, Revision revision,
                             const std::vector<QueueEntry>& entries) {
  if (revision < watch.next.revision) return;  // read from the database before it was told here
  size_t bytes = 0;
  for (const QueueEntry& entry : entries) bytes += entry.body->bytes->size();
  if (!watch.queue.empty() && (watch.queue.bytes() + bytes > options_.queue_bytes_max ||
                               watch.queue.size() + entries.size() > options_.queue_messages_max)) {
    FallBehind(watch, revision);
    return;
  }
  if (watch.queue.empty()) watch.told = {revision, 0};
  for (const QueueEntry& entry : entries) watch.queue.Push(entry);
  watch.next = {revision + 1, 0};
  watch.next_partial = false;
  Touch(watch);
}

void WatchHub::Impl::Gap(Revision first, Revision last) {
  for (auto& [key, shape] : shapes_) {
    const std::vector<WatchId> live(shape.live.begin(), shape.live.end());
    for (const WatchId id : live) {
      Watch& watch = *Find(id);
      if (watch.next.revision <= last) FallBehind(watch, first);
    }
  }
}

void WatchHub::Impl::FallBehind(Watch& watch, Revision from) {
  // What was read from the database before it was told here is not missing.
  watch.next = {std::max(watch.next.revision, from), 0};
  watch.next_partial = false;
  if (watch.queue.empty()) watch.told = watch.next;
  LeaveLive(watch);
  watch.phase = Phase::kHistory;
  ++counters_.fell_behind;
  Touch(watch);
}

void WatchHub::Impl::LeaveLive(Watch& watch) {
  CHECK(watch.phase == Phase::kLive && live_ > 0);
  watch.shape->live.erase(watch.id);
  --live_;
}

void WatchHub::Impl::Settle(Watch& watch) {
  if (watch.phase != Phase::kHistory) return;
  if (watch.next.revision <= head_ || watch.next.sub != 0) return;
  CHECK(!watch.next_partial);
  watch.phase = Phase::kLive;
  watch.shape->live.insert(watch.id);
  ++live_;
}

void WatchHub::Impl::ShrinkTotal() {
  while (total_bytes_ > options_.total_bytes_max) {
    Watch* longest = nullptr;
    for (auto& [id, watch] : watches_) {
      if (watch.queue.empty() || watch.queue.back().state) continue;
      if (longest == nullptr || watch.queue.bytes() > longest->queue.bytes()) longest = &watch;
    }
    if (longest == nullptr) return;  // states only: one portion each, and no reads begin
    DropQueue(*longest);
  }
}

void WatchHub::Impl::DropQueue(Watch& watch) {
  while (!watch.queue.empty() && !watch.queue.back().state) watch.queue.PopBack();
  if (watch.queue.empty()) {
    watch.next = watch.told;
    watch.next_partial = watch.told_partial;
  } else {
    watch.next = watch.queue.back().after.value();  // `synced`: nothing else is followed by changes
    watch.next_partial = false;
  }
  if (watch.phase == Phase::kLive) LeaveLive(watch);
  watch.phase = Phase::kHistory;
  ++counters_.fell_behind;
  Touch(watch);
}

// --- Reads ---

WatchHub::Impl::Watch* WatchHub::Impl::TakeTicket(uint64_t ticket) {
  const auto found = tickets_.find(ticket);
  if (found == tickets_.end()) return nullptr;
  Watch* watch = Find(found->second);
  tickets_.erase(found);
  if (watch == nullptr || watch->ticket != ticket) return nullptr;
  watch->ticket = 0;
  Touch(*watch);
  return watch;
}

void WatchHub::Impl::OnChanges(uint64_t ticket, const std::vector<Change>& changes,
                               ChangePosition end) {
  Watch* watch = TakeTicket(ticket);
  if (watch == nullptr) return;
  CHECK(watch->phase == Phase::kHistory && watch->queue.empty());
  CHECK(watch->next <= end);
  std::vector<const Change*> wanted;
  wanted.reserve(changes.size());
  for (const Change& change : changes) {
    CHECK(watch->spec.filter.Matches(change.key));
    wanted.push_back(&change);
  }
  const EncodeOptions options{.with_previous = watch->spec.with_previous,
                              .message_bytes = options_.message_bytes};
  const bool same_revision = watch->next.revision == end.revision;
  std::vector<EncodedEvents> encoded =
      EncodeChanges(options, watch->next, wanted, end, watch->next_partial);
  if (!encoded.empty()) {
    watch->next_partial = encoded.back().partial;
  } else if (!same_revision) {
    watch->next_partial = false;
  }
  for (EncodedEvents& each : encoded) {
    watch->queue.Push({.body = MakeBody(std::move(each.body)),
                       .revision = each.revision,
                       .after = each.after,
                       .partial = each.partial,
                       .events = each.events});
  }
  watch->next = end;
  if (watch->queue.empty()) watch->told = end;
  Settle(*watch);
}

void WatchHub::Impl::OnState(uint64_t ticket, const WatchStatePortion& portion) {
  Watch* watch = TakeTicket(ticket);
  if (watch == nullptr) return;
  CHECK(watch->phase == Phase::kState && watch->queue.empty());
  if (!watch->state_begun) {
    watch->state_begun = true;
    watch->state_revision = portion.revision;
    if (watch->reset) {
      v1::WatchResponse mark;
      mark.set_reset(true);
      watch->queue.Push({.body = MakeBody(EncodeMark(mark, Revision())),
                         .revision = watch->state_revision,
                         .after = std::nullopt,
                         .state = true});
    }
  }
  for (SharedBytes& body : EncodeState({.message_bytes = options_.message_bytes}, portion.items)) {
    watch->queue.Push({.body = MakeBody(std::move(body)),
                       .revision = watch->state_revision,
                       .after = std::nullopt,
                       .state = true});
  }
  if (portion.more) {
    CHECK(!portion.items.empty());
    watch->state_after = portion.items.back().key;
    return;
  }
  const Revision from = watch->state_revision + 1;
  v1::WatchResponse mark;
  mark.set_synced(true);
  watch->queue.Push({.body = MakeBody(EncodeMark(mark, from)),
                     .revision = watch->state_revision,
                     .after = ChangePosition{from, 0},
                     .state = true});
  watch->phase = Phase::kHistory;
  watch->next = {from, 0};
  watch->next_partial = false;
  Settle(*watch);
}

void WatchHub::Impl::OnReadFailed(Instant now, uint64_t ticket, ReadFailure failure,
                                  const std::string& message) {
  Watch* watch = TakeTicket(ticket);
  if (watch == nullptr) return;
  switch (failure) {
    case ReadFailure::kCompacted:
      return BeginReset(*watch);
    case ReadFailure::kBusy:
      watch->read_not_before = now + options_.busy_backoff;
      return;
    case ReadFailure::kFailed:
      return End(*watch, WatchEndKind::kReadFailed, message);
  }
}

// What has been told stays told: the reset is said when the first portion is there.
void WatchHub::Impl::BeginReset(Watch& watch) {
  watch.phase = Phase::kState;
  watch.reset = true;
  watch.state_begun = false;
  watch.state_after.clear();
  ++counters_.resets;
  Touch(watch);
}

void WatchHub::Impl::OnReset(Revision head, Revision compacted) {
  for (auto& [id, watch] : watches_) {
    if (watch.phase == Phase::kFuture) continue;
    watch.ticket = 0;  // what is being read is of the old state
    if (watch.phase == Phase::kLive) {
      watch.next = {std::max(watch.next.revision, head_ + 1), 0};
      if (watch.queue.empty()) watch.told = watch.next;
      LeaveLive(watch);
      watch.phase = Phase::kHistory;
    }
    if (watch.phase == Phase::kState || watch.next.revision <= compacted) {
      BeginReset(watch);
    }
    Touch(watch);
  }
  head_ = head;
  for (auto& [id, watch] : watches_) Settle(watch);
}

}  // namespace quorate::ingress
