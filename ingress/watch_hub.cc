#include "ingress/watch_hub.h"

#include <algorithm>

#include "base/check.h"
#include "ingress/watch_hub_impl.h"

namespace quorate::ingress {
namespace {

constexpr Instant kNever = Instant::max();

std::string Number(uint64_t value) { return std::to_string(value); }

}  // namespace

// --- Who is there ---

void WatchHub::Impl::Subscribe(Instant now, WatchId id, const WatchSpec& spec, Revision shown) {
  CHECK(id && !watches_.contains(id), "a watch id is used twice");
  CHECK(!spec.with_initial_state || spec.start_revision == 0);
  if (closed_ || watches_.size() >= options_.watches_max) {
    WatchEnd end;
    end.kind = closed_ ? WatchEndKind::kStopping : WatchEndKind::kTooMany;
    end.message =
        closed_ ? "this node is stopping"
                : "this node has " + Number(watches_.size()) + " watches already; ask another node";
    end.resume = Revision(spec.start_revision);
    end.head = head_;
    ends_.emplace_back(id, std::move(end));
    return;
  }
  ++counters_.opened;
  Watch& watch = watches_.try_emplace(id, id, &total_bytes_).first->second;
  watch.spec = spec;
  Shape& shape = shapes_[{spec.filter, spec.with_previous}];
  shape.filter = spec.filter;
  shape.with_previous = spec.with_previous;
  ++shape.watches;
  watch.shape = &shape;
  if (spec.with_previous) ++with_previous_;
  watch.arrived = now;
  watch.said_at = now;
  // The spread comes from the id: nothing random in here.
  watch.expires = now + options_.age_max - options_.age_max / 640 * (id.value() % 64);
  const Revision known = std::max(head_, shown);
  if (spec.with_initial_state) {
    watch.phase = Phase::kState;
    watch.resumable = false;
  } else if (spec.start_revision == 0) {
    watch.next = watch.told = {known + 1, 0};
    Settle(watch);
  } else {
    watch.next = watch.told = {Revision(spec.start_revision), 0};
    if (spec.start_revision <= known.value() + 1) {
      Settle(watch);
    } else {
      watch.phase = Phase::kFuture;
      future_.insert(id);
    }
  }
  Touch(watch);
}

WatchHub::Impl::Watch* WatchHub::Impl::Find(WatchId id) {
  const auto found = watches_.find(id);
  return found == watches_.end() ? nullptr : &found->second;
}

void WatchHub::Impl::Cancel(WatchId id) {
  if (Watch* watch = Find(id)) return Remove(*watch);
  // It may have ended in this same round: its client has gone first all the same.
  std::erase_if(ends_, [id](const auto& end) { return end.first == id; });
}

void WatchHub::Impl::Remove(Watch& watch) {
  CountInFlight(watch, 0);
  if (watch.phase == Phase::kLive) LeaveLive(watch);
  if (watch.timer) timers_.erase({*watch.timer, watch.id});
  if (watch.spec.with_previous) --with_previous_;
  future_.erase(watch.id);
  dirty_.erase(watch.id);
  if (--watch.shape->watches == 0) {
    shapes_.erase(ShapeKey(watch.spec.filter, watch.spec.with_previous));
  }
  watches_.erase(watch.id);
}

void WatchHub::Impl::End(Watch& watch, WatchEndKind kind, std::string message) {
  WatchEnd end;
  end.kind = kind;
  end.message = std::move(message);
  end.resume = ResumeOf(watch);
  end.head = head_;
  ends_.emplace_back(watch.id, std::move(end));
  Remove(watch);
}

void WatchHub::Impl::EndAll(WatchEndKind kind, const std::string& why) {
  while (!watches_.empty()) End(watches_.begin()->second, kind, why);
}

void WatchHub::Impl::Close() {
  closed_ = true;
  EndAll(WatchEndKind::kStopping, "this node is stopping");
}

void WatchHub::Impl::Begin(Watch& watch) {
  CHECK(watch.phase == Phase::kFuture);
  future_.erase(watch.id);
  watch.phase = Phase::kHistory;
  Settle(watch);
  Touch(watch);
}

void WatchHub::Impl::OnFresh(Instant fresh_as_of, Revision revision) {
  const std::vector<WatchId> waiting(future_.begin(), future_.end());
  for (const WatchId id : waiting) {
    Watch& watch = *Find(id);
    const uint64_t start = watch.spec.start_revision;
    if (start <= revision.value() + 1) {
      Begin(watch);
    } else if (fresh_as_of >= watch.arrived) {
      // Whatever was acknowledged before the client came is here, and it is not that far.
      End(watch, WatchEndKind::kRevisionInFuture,
          "start_revision: is " + Number(start) + ", the store is at revision " +
              Number(revision.value()));
    }
  }
}

void WatchHub::Impl::OnLeader(bool known) {
  if (leader_lost_ == !known) return;
  leader_lost_ = !known;
  for (const auto& [id, watch] : watches_) Touch(watch);
}

// --- What is told ---

void WatchHub::Impl::OnSent(Instant now, WatchId id) {
  Watch* watch = Find(id);
  if (watch == nullptr) return;
  CHECK(watch->in_flight, "a message was taken that was not given out");
  watch->in_flight = false;
  CountInFlight(*watch, 0);
  watch->said_at = now;
  Touch(*watch);
}

void WatchHub::Impl::Sync(Watch& watch) {
  if (watch.phase != Phase::kLive || !watch.queue.empty()) return;
  watch.next = {std::max(watch.next.revision, head_ + 1), 0};
  watch.told = watch.next;
}

Revision WatchHub::Impl::ResumeOf(Watch& watch) {
  Sync(watch);
  return watch.resumable ? watch.told.revision : Revision();
}

WatchMessage WatchHub::Impl::Mark(Watch& watch, const v1::WatchResponse& mark) {
  const Revision resume = ResumeOf(watch);
  const Revision revision = watch.resumable     ? resume - 1
                            : watch.state_begun ? watch.state_revision
                                                : head_;
  return {watch.id, revision, EncodeMark(mark, resume)};
}

WatchMessage WatchHub::Impl::PopQueue(Watch& watch) {
  QueueEntry entry = watch.queue.PopFront();
  watch.resumable = !entry.state || entry.after.has_value();
  if (entry.after) watch.told = *entry.after;
  watch.told_partial = entry.partial;
  // Nothing that it wants is between the last message and the end of what was looked at.
  if (watch.queue.empty() && watch.resumable && watch.phase != Phase::kState) {
    watch.told = watch.next;
  }
  counters_.events += entry.events;
  // Of those that share a body the last one counts it.
  if (entry.body.use_count() == 1) CountInFlight(watch, entry.body->bytes->size());
  return {watch.id, entry.revision, entry.body->bytes};
}

void WatchHub::Impl::CountInFlight(Watch& watch, size_t bytes) {
  in_flight_bytes_ += bytes - watch.in_flight_bytes;  // may wrap, and back
  watch.in_flight_bytes = bytes;
}

bool WatchHub::Impl::NextMessage(Instant now, Watch& watch, WatchMessage* message) {
  if (watch.in_flight || watch.phase == Phase::kFuture) return false;
  v1::WatchResponse mark;
  if (watch.say_started) {
    watch.say_started = false;
    mark.set_started(true);
    *message = Mark(watch, mark);
  } else if (watch.said_lost != leader_lost_) {
    watch.said_lost = leader_lost_;
    mark.set_leader_lost(leader_lost_);
    mark.set_leader_found(!leader_lost_);
    *message = Mark(watch, mark);
  } else if (!watch.queue.empty()) {
    *message = PopQueue(watch);
  } else if (watch.resumable && now - watch.said_at >= watch.spec.progress_interval) {
    mark.set_progress(true);
    mark.set_leader_lost(leader_lost_);
    *message = Mark(watch, mark);
  } else {
    return false;
  }
  watch.in_flight = true;
  watch.in_flight_since = now;
  watch.said_at = now;
  ++counters_.messages;
  return true;
}

bool WatchHub::Impl::NeedsRead(Instant now, const Watch& watch) const {
  // Only when everything before has been taken: a client that never reads gets one portion.
  return (watch.phase == Phase::kState || watch.phase == Phase::kHistory) && !watch.in_flight &&
         watch.queue.empty() && watch.ticket == 0 && watch.read_not_before <= now;
}

WatchRead WatchHub::Impl::MakeRead(Watch& watch) {
  WatchRead read;
  read.ticket = watch.ticket = next_ticket_++;
  read.watch = watch.id;
  tickets_[read.ticket] = watch.id;
  read.filter = watch.spec.filter;
  read.bytes_max = options_.read_bytes_max;
  read.state = watch.phase == Phase::kState;
  if (read.state) {
    if (watch.state_begun) read.at = watch.state_revision;
    read.after = watch.state_after;
  } else {
    read.from = watch.next;
    read.with_previous = watch.spec.with_previous;
    read.rows_max = options_.read_rows_max;
  }
  ++counters_.reads;
  return read;
}

WatchHub::Output WatchHub::Impl::TakeOutput(Instant now) {
  Output out;
  const std::set<WatchId> dirty = std::exchange(dirty_, {});
  for (const WatchId id : dirty) {
    Watch* watch = Find(id);
    if (watch == nullptr) continue;
    WatchMessage message;
    if (NextMessage(now, *watch, &message)) out.messages.push_back(std::move(message));
    if (NeedsRead(now, *watch) && !watch->waits_to_read) {
      watch->waits_to_read = true;
      readers_.push_back(id);
    }
    Arm(now, *watch);
  }
  while (!readers_.empty() && tickets_.size() < options_.reads_max &&
         total_bytes_ < options_.total_bytes_max &&
         in_flight_bytes_ < options_.in_flight_bytes_max) {
    Watch* watch = Find(readers_.front());
    readers_.pop_front();
    if (watch == nullptr) continue;
    watch->waits_to_read = false;
    if (NeedsRead(now, *watch)) out.reads.push_back(MakeRead(*watch));
  }
  out.ends.swap(ends_);
  return out;
}

// --- Time ---

void WatchHub::Impl::Arm(Instant now, Watch& watch) {
  Instant due = watch.expires;
  if (watch.phase == Phase::kFuture) {
    due = std::min(due, watch.arrived + options_.future_wait);
  } else if (watch.in_flight) {
    due = std::min(due, watch.in_flight_since + options_.stall_max);
  } else {
    if (watch.resumable) due = std::min(due, watch.said_at + watch.spec.progress_interval);
    if (watch.read_not_before > now) due = std::min(due, watch.read_not_before);
  }
  if (watch.timer == due) return;
  if (watch.timer) timers_.erase({*watch.timer, watch.id});
  watch.timer = due;
  timers_.emplace(due, watch.id);
}

void WatchHub::Impl::Tick(Instant now) {
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Watch& watch = *Find(timers_.begin()->second);
    timers_.erase(timers_.begin());
    watch.timer.reset();
    if (watch.phase == Phase::kFuture && watch.arrived + options_.future_wait <= now) {
      End(watch, WatchEndKind::kBehind,
          "start_revision: is " + Number(watch.spec.start_revision) +
              ", this node shows revision " + Number(head_.value()) +
              "; ask another node or try again");
    } else if (watch.expires <= now) {
      End(watch, WatchEndKind::kAge,
          "this stream has been open for long: open another one at the resume revision");
    } else if (watch.in_flight && watch.in_flight_since + options_.stall_max <= now) {
      ++counters_.ended_slow;
      End(watch, WatchEndKind::kTooSlow,
          "nothing of this stream was read for long: open another one at the resume revision");
    } else {
      Touch(watch);
    }
  }
}

Instant WatchHub::Impl::NextDeadline() const {
  return timers_.empty() ? kNever : timers_.begin()->first;
}

WatchHub::Wants WatchHub::Impl::wants() const {
  if (watches_.empty()) return Wants::kNothing;
  return with_previous_ > 0 ? Wants::kPrevious : Wants::kChanges;
}

// --- The outside ---

WatchHub::WatchHub(const WatchHubOptions& options, Revision head)
    : impl_(std::make_unique<Impl>(options, head)) {}
WatchHub::~WatchHub() = default;

void WatchHub::Subscribe(Instant now, WatchId id, const WatchSpec& spec, Revision shown) {
  impl_->Subscribe(now, id, spec, shown);
}
void WatchHub::Cancel(WatchId id) { impl_->Cancel(id); }
void WatchHub::OnSent(Instant now, WatchId id) { impl_->OnSent(now, id); }
void WatchHub::OnApplied(Instant, Revision head, const std::vector<ChangeSetPtr>& sets) {
  impl_->OnApplied(head, sets);
}
void WatchHub::OnChanges(Instant, uint64_t ticket, const std::vector<Change>& changes,
                         ChangePosition end) {
  impl_->OnChanges(ticket, changes, end);
}
void WatchHub::OnState(Instant, uint64_t ticket, const WatchStatePortion& portion) {
  impl_->OnState(ticket, portion);
}
void WatchHub::OnReadFailed(Instant now, uint64_t ticket, ReadFailure failure,
                            const std::string& message) {
  impl_->OnReadFailed(now, ticket, failure, message);
}
void WatchHub::OnReset(Instant, Revision head, Revision compacted) {
  impl_->OnReset(head, compacted);
}
void WatchHub::OnLeader(Instant, bool known) { impl_->OnLeader(known); }
void WatchHub::OnFresh(Instant, Instant fresh_as_of, Revision revision) {
  impl_->OnFresh(fresh_as_of, revision);
}
void WatchHub::EndAll(Instant) {
  impl_->EndAll(WatchEndKind::kDraining,
                "this node is taken out of service: go on at another one, at the resume revision");
}
void WatchHub::Close(Instant) { impl_->Close(); }
void WatchHub::Tick(Instant now) { impl_->Tick(now); }
Instant WatchHub::NextDeadline() const { return impl_->NextDeadline(); }
WatchHub::Output WatchHub::TakeOutput(Instant now) { return impl_->TakeOutput(now); }
WatchHub::Wants WatchHub::wants() const { return impl_->wants(); }
bool WatchHub::wants_fresh() const { return impl_->wants_fresh(); }
const WatchHub::Counters& WatchHub::counters() const { return impl_->counters(); }
size_t WatchHub::watches() const { return impl_->watches(); }
size_t WatchHub::catching_up() const { return impl_->catching_up(); }
size_t WatchHub::queued_bytes() const { return impl_->queued_bytes(); }
Revision WatchHub::head() const { return impl_->head(); }

}  // namespace quorate::ingress
