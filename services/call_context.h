// What a handler knows of one call besides its request, however gRPC dispatches it.
//
// A handler is `Handle(request bytes, call, done)`: it may run on gRPC's threads, must not block
// there, and calls `done` exactly once, at any time and from any thread, also when the call was
// cancelled (the answer then goes nowhere).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/time.h"
#include "grpcpp/support/status.h"

namespace quorate::services {

// A call without a deadline gets this one.
inline constexpr Duration kDefaultDeadline = std::chrono::seconds(10);

// How long a caller waits at least, who is said to wait for so long: gRPC sends what is left of a
// deadline rounded up to three digits or fewer (of 20 s it may say 20.1 s), and at the caller the
// exact one counts. A hundredth covers that.
inline Duration CallersTime(Duration told) { return told - told / 100; }

class CallContext {
 public:
  // `metadata` holds what passes through the proxy hop: authorization, x-request-id, traceparent.
  CallContext(Instant deadline, std::map<std::string, std::string> metadata)
      : deadline_(deadline), metadata_(std::move(metadata)) {}

  Instant deadline() const { return deadline_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  bool cancelled() const {
    std::lock_guard lock(mutex_);
    return cancelled_;
  }

  // `callback` runs once when the caller goes away, on whatever thread notices; at once when it
  // already has. One per call. It lives as long as the call: what holds the call must not be held
  // by it for longer than until Forget.
  void OnCancel(std::function<void()> callback) {
    {
      std::lock_guard lock(mutex_);
      if (forgotten_) return;
      if (!cancelled_) {
        callback_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  // The call has its answer, and who goes away now is nobody's business: lets go of the callback,
  // and of one that comes later.
  void Forget() {
    std::function<void()> callback;  // ends without the lock
    {
      std::lock_guard lock(mutex_);
      forgotten_ = true;
      callback.swap(callback_);
    }
  }

  // The dispatcher's: the caller went away. May be called more than once.
  void Cancel() {
    std::function<void()> callback;
    {
      std::lock_guard lock(mutex_);
      cancelled_ = true;
      callback.swap(callback_);
    }
    if (callback) callback();
  }

 private:
  const Instant deadline_;
  const std::map<std::string, std::string> metadata_;

  mutable std::mutex mutex_;  // protects what follows
  bool cancelled_ = false;
  bool forgotten_ = false;
  std::function<void()> callback_;
};

using CallPtr = std::shared_ptr<CallContext>;

// The end of a call: OK with the serialized response, or an error and nothing.
using CallDone = std::function<void(grpc::Status status, std::string response)>;

}  // namespace quorate::services
