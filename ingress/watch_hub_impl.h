// Inside of WatchHub: one class, divided over two files. watch_hub.cc has the clients' side (who is
// there, what is told, when it ends); watch_feed.cc has the state machine's (where changes come
// from and who gets them).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ingress/watch_hub.h"
#include "ingress/watch_messages.h"
#include "ingress/watch_queue.h"

namespace quorate::ingress {

class WatchHub::Impl {
 public:
  Impl(const WatchHubOptions& options, Revision head) : options_(options), head_(head) {}

  void Subscribe(Instant now, WatchId id, const WatchSpec& spec, Revision shown);
  void Cancel(WatchId id);
  void OnSent(Instant now, WatchId id);
  void OnApplied(Revision head, const std::vector<ChangeSetPtr>& sets);
  void OnChanges(uint64_t ticket, const std::vector<Change>& changes, ChangePosition end);
  void OnState(uint64_t ticket, const WatchStatePortion& portion);
  void OnReadFailed(Instant now, uint64_t ticket, ReadFailure failure, const std::string& message);
  void OnReset(Revision head, Revision compacted);
  void OnLeader(bool known);
  void OnFresh(Instant fresh_as_of, Revision revision);
  void EndAll(WatchEndKind kind, const std::string& why);
  void Close();
  void Tick(Instant now);
  Instant NextDeadline() const;
  Output TakeOutput(Instant now);

  Wants wants() const;
  bool wants_fresh() const { return !future_.empty(); }
  const Counters& counters() const { return counters_; }
  size_t watches() const { return watches_.size(); }
  size_t catching_up() const { return watches_.size() - live_; }
  size_t queued_bytes() const { return total_bytes_; }
  Revision head() const { return head_; }

 private:
  enum class Phase : uint8_t { kFuture, kState, kHistory, kLive };

  struct Watch;
  // Watches with one filter that want the same: they share their live messages.
  using ShapeKey = std::pair<KeyFilter, bool>;
  struct Shape {
    KeyFilter filter;
    bool with_previous = false;
    size_t watches = 0;
    std::set<WatchId> live;
  };

  struct Watch {
    Watch(WatchId id, size_t* total) : id(id), queue(total) {}

    const WatchId id;
    WatchSpec spec;
    Shape* shape = nullptr;
    Phase phase = Phase::kHistory;
    Instant arrived;
    Instant expires;

    // The first change that is not in the queue, nor before it. While live everything up to the
    // head counts as told, too: see Sync.
    ChangePosition next;
    bool next_partial = false;  // the last message before it was partial
    // The same for what was given out. Means nothing unless `resumable`.
    ChangePosition told;
    bool told_partial = false;
    bool resumable = true;  // false: a state is being told

    WatchQueue queue;
    bool in_flight = false;      // a message is given out and not taken yet
    size_t in_flight_bytes = 0;  // of it; 0: a mark, or somebody else's to count
    Instant in_flight_since;
    Instant said_at;  // the last message
    bool say_started = true;
    bool said_lost = false;

    // kState.
    bool reset = false;        // begins with `reset`
    bool state_begun = false;  // its first portion has come
    Revision state_revision;
    std::string state_after;

    uint64_t ticket = 0;  // of the read under way; 0: none
    bool waits_to_read = false;
    Instant read_not_before;
    std::optional<Instant> timer;  // as it is in timers_
  };

  // --- watch_hub.cc ---
  Watch* Find(WatchId id);
  void Touch(const Watch& watch) { dirty_.insert(watch.id); }
  void End(Watch& watch, WatchEndKind kind, std::string message);
  void Remove(Watch& watch);
  // Lets a watch whose start is there now begin.
  void Begin(Watch& watch);
  // For a live watch with nothing queued: everything up to the head is told.
  void Sync(Watch& watch);
  Revision ResumeOf(Watch& watch);
  bool NextMessage(Instant now, Watch& watch, WatchMessage* message);
  WatchMessage Mark(Watch& watch, const v1::WatchResponse& mark);
  WatchMessage PopQueue(Watch& watch);
  void CountInFlight(Watch& watch, size_t bytes);
  bool NeedsRead(Instant now, const Watch& watch) const;
  WatchRead MakeRead(Watch& watch);
  void Arm(Instant now, Watch& watch);

  // --- watch_feed.cc ---
  void Distribute(const ChangeSet& set);
  // Live watches have missed the changes of [first, last].
  void Gap(Revision first, Revision last);
  void FallBehind(Watch& watch, Revision from);
  // Goes live when it has met the head.
  void Settle(Watch& watch);
  void LeaveLive(Watch& watch);
  void Enqueue(Watch& watch, Revision revision, const std::vector<QueueEntry>& entries);
  void DropQueue(Watch& watch);
  void ShrinkTotal();
  void BeginReset(Watch& watch);
  // The watch that waits for this answer; nullptr: nobody does any more.
  Watch* TakeTicket(uint64_t ticket);

  const WatchHubOptions options_;
  Revision head_;
  bool leader_lost_ = false;
  bool closed_ = false;
  size_t total_bytes_ = 0;  // before watches_, whose queues refer to it
  size_t in_flight_bytes_ = 0;
  std::map<ShapeKey, Shape> shapes_;
  std::map<WatchId, Watch> watches_;
  size_t live_ = 0;
  size_t with_previous_ = 0;  // watches that want it
  std::set<WatchId> future_;
  std::set<WatchId> dirty_;  // to be looked at by TakeOutput
  std::set<std::pair<Instant, WatchId>> timers_;
  std::deque<WatchId> readers_;  // wait for their turn to read
  std::map<uint64_t, WatchId> tickets_;
  uint64_t next_ticket_ = 1;
  std::vector<std::pair<WatchId, WatchEnd>> ends_;
  Counters counters_;
};

}  // namespace quorate::ingress
