// Inside of ClusterChanges: one class, divided over two files. cluster_changes.cc takes calls,
// finds who does them and passes them on; cluster_lead.cc does them, as the leader, and compacts.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "services/cluster_changes.h"
#include "services/system_clock.h"

namespace quorate::services {

// Between two looks at a node or two tries.
inline constexpr Duration kChangePause = std::chrono::milliseconds(20);
inline constexpr Duration kChangeRetryDelay = std::chrono::milliseconds(200);

// One call. Its thread waits on `changed`; whoever interrupts it, or brings what it waits for,
// notifies.
struct ClusterChanges::Op {
  std::string method;
  std::string bytes;
  ChangeRequest request;
  CallPtr call;
  bool forwarded = false;
  std::function<void(Try)> done;

  // Its thread's.
  bool maybe_done = false;  // a try may be done, now or later
  StoreId first_leader;     // that was asked for a transfer

  std::mutex mutex;  // protects what follows
  std::condition_variable changed;
  bool cancelled = false;
  bool stopping = false;
  grpc::ClientContext* context = nullptr;  // of the open call to the leader

  void Interrupt(bool stop) {
    {
      std::lock_guard lock(mutex);
      (stop ? stopping : cancelled) = true;
      if (context != nullptr) context->TryCancel();
    }
    changed.notify_all();
  }
  bool Expired() const { return BootNow() >= call->deadline(); }
  bool Wanted() {
    std::lock_guard lock(mutex);
    return !cancelled && !stopping && !Expired();
  }
  // Until `ready`, `until`, or nobody wants it any more. Whether it is ready. REQUIRES: mutex held.
  template <typename Ready>
  bool WaitUntil(std::unique_lock<std::mutex>* lock, Instant until, Ready ready) {
    until = std::min(until, call->deadline());
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
};

}  // namespace quorate::services
