// The unary calls that somebody has under way through gRPC's callbacks, so that they can be ended
// and waited for.
//
// A callback lets go of its call before that counts as ended, for this reason: a call's context
// holds the channel, and whoever lets go of the last channel of the process ends gRPC's callback
// threads and waits for them (gRPC, completion_queue_cc.cc, CallbackAlternativeCQ::Unref). A
// callback that does so waits for itself. So no callback owns a call when Stop has returned and the
// channels go. (Who starts calls owns them for a moment, too: no thread of gRPC's may do that, and
// it has ended before the channels go.)
//
// Any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

namespace quorate::services {

// `Call` has a grpc::ClientContext `context`.
template <typename Call>
class OpenCalls {
 public:
  using Ptr = std::shared_ptr<Call>;

  // Before the call starts. False: stopped, and it must not start.
  bool Add(Ptr call) {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    calls_.insert(std::move(call));
    ++open_;
    return true;
  }

  // The last thing of the call's callback, which hands over what it owns of it.
  void End(Ptr call) {
    {
      std::lock_guard lock(mutex_);
      calls_.erase(call);
    }
    call.reset();
    std::lock_guard lock(mutex_);
    if (--open_ == 0) ended_.notify_all();
  }

  // Cancels what is open and waits until all of it has ended; not from a callback.
  void Stop() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    std::set<Ptr> calls = calls_;
    lock.unlock();
    for (const Ptr& call : calls) call->context.TryCancel();
    calls.clear();
    lock.lock();
    ended_.wait(lock, [this] { return open_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  // Protected by mutex_.
  std::set<Ptr> calls_;
  size_t open_ = 0;  // those that End has not done with
  bool stopping_ = false;
};

}  // namespace quorate::services
