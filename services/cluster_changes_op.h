// Inside of ClusterChanges: one class, divided over four files. cluster_changes.cc takes calls,
// finds who does them and passes them on; cluster_lead.cc does them, as the leader, after it has
// asked others (cluster_ask.cc); cluster_writes.cc compacts and sets.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "services/cluster_changes.h"
#include "services/system_clock.h"

namespace quorate::services {

// Between two looks at a node or two tries, and when one was told "not now".
inline constexpr Duration kChangePause = std::chrono::milliseconds(20);
inline constexpr Duration kChangeRetryDelay = std::chrono::milliseconds(200);
// How long this node's own view may take to show what it has just committed.
inline constexpr Duration kChangeShowWait = std::chrono::seconds(1);

// Not passed on: it goes the way of a client's write.
inline bool IsWrite(const ChangeRequest& request) {
  return std::holds_alternative<v1::CompactRequest>(request) ||
         std::holds_alternative<v1::SetSettingsRequest>(request);
}

// One call. Its thread waits on `changed`; whoever interrupts it, or brings what it waits for,
// notifies. It waits for a thread, runs, and has ended: whoever ends the first of these, the thread
// or an interruption, answers.
struct ClusterChanges::Op {
  std::string method;
  std::string bytes;
  ChangeRequest request;
  CallPtr call;
  Instant ends;            // the caller's deadline, or earlier
  bool forwarded = false;  // not to be passed on
  // Not 0: nobody has asked for it but the leader of this term, in which it is done or not at all;
  // forwarded, too.
  raft::Term own_term;
  bool name_first = false;  // forwarded: the store is to be named, and nothing done
  std::function<void(Try)> done;

  // Its thread's; before, whose it was that made it.
  bool maybe_done = false;  // a try may be done, now or later
  StoreId meant;            // the store that it is about, once that is known
  StoreId asked_leader;     // of a transfer that may be done

  std::mutex mutex;  // protects what follows
  std::condition_variable changed;
  bool waiting = true;  // for a thread; nobody has ended it
  bool cancelled = false;
  bool stopping = false;
  grpc::ClientContext* context = nullptr;  // of the open call to the leader

  bool own() const { return own_term != raft::Term(); }
  void Cancel() { Interrupt(&Op::cancelled); }
  void StopIt() { Interrupt(&Op::stopping); }
  // Ends it if it still waits for a thread.
  void GiveUp() { Interrupt(nullptr); }
  // Its thread has come; false: too late.
  bool Begin() {
    std::lock_guard lock(mutex);
    return std::exchange(waiting, false);
  }
  bool Waiting() {
    std::lock_guard lock(mutex);
    return waiting;
  }
  bool Expired() const { return BootNow() >= ends; }
  bool Wanted() {
    std::lock_guard lock(mutex);
    return !cancelled && !stopping && !Expired();
  }
  // Until `ready`, `until`, or nobody wants it any more. Whether it is ready. REQUIRES: mutex held.
  template <typename Ready>
  bool WaitUntil(std::unique_lock<std::mutex>* lock, Instant until, Ready ready) {
    until = std::min(until, ends);
    while (!ready() && !cancelled && !stopping) {
      const Instant now = BootNow();
      if (now >= until) break;
      changed.wait_for(*lock, std::min<Duration>(until - now, std::chrono::milliseconds(100)));
    }
    return ready();
  }
  void Pause(Duration time) {
    std::unique_lock lock(mutex);
    (void)WaitUntil(&lock, BootNow() + time, [] { return false; });
  }
  // Begins something whose end comes as a call, on any thread, and waits for it.
  template <typename T, typename Begin>
  static std::optional<T> Await(const OpPtr& op, Begin begin) {
    const auto slot = std::make_shared<std::optional<T>>();  // protected by op->mutex
    begin([op, slot](const T& value) {
      {
        std::lock_guard lock(op->mutex);
        *slot = value;
      }
      op->changed.notify_all();
    });
    std::unique_lock lock(op->mutex);
    (void)op->WaitUntil(&lock, Instant::max(), [&] { return slot->has_value(); });
    return *slot;
  }

 private:
  void Interrupt(bool Op::*why) {
    bool was_waiting = false;
    {
      std::lock_guard lock(mutex);
      if (why != nullptr) this->*why = true;
      if (context != nullptr && why != nullptr) context->TryCancel();
      was_waiting = std::exchange(waiting, false);
    }
    changed.notify_all();
    if (was_waiting) std::exchange(done, nullptr)(Unfinished(*this));
  }
};

}  // namespace quorate::services
