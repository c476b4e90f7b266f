// Tells the thread sanitizer about abseil's mutex and gRPC's last reference; part of every program
// of the `tsan` preset.
//
// Debian's gRPC and abseil are not instrumented, and absl::Mutex waits on futexes that the
// sanitizer does not know. So whatever one thread hands to another through gRPC (a message, a
// status, a call's state) looks unordered, and the reports name our own frames, where a
// suppression would hide our own races too. Here the orders that exist are shown instead: the
// functions below stand before the libraries' of the same name when the program is loaded, call
// them, and say "this lock was taken" or "given up". The same for the one count that ends a
// callback call: gRPC's headers, compiled by us, and libgrpc++ count it down in turns. What
// else gRPC orders by atomics alone stays unseen; who hands data to a thread of gRPC's holds a
// std::mutex of ours on both sides.
//
// Compiled without the sanitizer: what it says of itself is only what it says here.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <string>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "grpc/grpc.h"
#include "grpcpp/support/server_callback.h"

namespace {

// abseil's own function behind the one of ours that has this (mangled) name.
template <typename Function>
Function Real(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  CHECK(found != nullptr, std::string("another abseil than Debian 12's: it has no ") + name);
  return reinterpret_cast<Function>(found);
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static const auto real = Real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  real(this);
}

bool Mutex::TryLock() {
  static const auto real = Real<bool (*)(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  if (!real(this)) return false;
  __tsan_acquire(this);
  return true;
}

void CondVar::Wait(Mutex* mutex) {
  static const auto real =
      Real<void (*)(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  real(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto real = Real<bool (*)(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool timed_out = real(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto real = Real<bool (*)(CondVar*, Mutex*, Time)>(
      "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool timed_out = real(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

ABSL_NAMESPACE_END
}  // namespace absl

// grpc::internal::ServerCallbackCall has two counters behind its vtable: one that holds back
// OnCancel, one that holds back OnDone. Whoever counts one down to nothing comes after all who
// counted before.
static_assert(sizeof(grpc::internal::ServerCallbackCall) == 16);

extern "C" void _ZN4grpc8internal18ServerCallbackCall14ScheduleOnDoneEb(char* call, bool inlined) {
  static const auto real =
      Real<void (*)(char*, bool)>("_ZN4grpc8internal18ServerCallbackCall14ScheduleOnDoneEb");
  __tsan_acquire(call + 8);
  __tsan_acquire(call + 12);
  real(call, inlined);
}

namespace {

// Stands for a reactor of ours in the one call of OnCancel: libgrpc++ counts down when that has
// returned, which only the stand-in's own end can say.
class CancelledReactor final : public grpc::internal::ServerReactor {
 public:
  CancelledReactor(char* call, grpc::internal::ServerReactor* reactor)
      : call_(call), reactor_(reactor) {}

  void OnCancel() override {
    reactor_->OnCancel();
    __tsan_release(call_ + 12);
    delete this;
  }
  void OnDone() override {}

 private:
  char* const call_;
  grpc::internal::ServerReactor* const reactor_;
};

}  // namespace

extern "C" void _ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_13ServerReactorE(
    char* call, grpc::internal::ServerReactor* reactor) {
  static const auto real = Real<void (*)(char*, grpc::internal::ServerReactor*)>(
      "_ZN4grpc8internal18ServerCallbackCall12CallOnCancelEPNS0_13ServerReactorE");
  __tsan_acquire(call + 8);
  real(call, new CancelledReactor(call, reactor));
}

// A server's calls: each counts the server down when it has ended, and who shuts it down waits for
// the last.
extern "C" void _ZN4grpc6Server23UnrefWithPossibleNotifyEv(void* server) {
  static const auto real = Real<void (*)(void*)>("_ZN4grpc6Server23UnrefWithPossibleNotifyEv");
  __tsan_release(server);
  real(server);
}

extern "C" void _ZN4grpc6Server18UnrefAndWaitLockedEv(void* server) {
  static const auto real = Real<void (*)(void*)>("_ZN4grpc6Server18UnrefAndWaitLockedEv");
  real(server);
  __tsan_acquire(server);
}

// An operation's tag: what was done before it was given to gRPC comes before what is done by
// whoever receives it back. (The loop that runs callbacks receives them in the same way.)
extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t nops,
                                                 void* tag, void* reserved) {
  static const auto real = Real<decltype(&grpc_call_start_batch)>("grpc_call_start_batch");
  __tsan_release(tag);
  return real(call, ops, nops, tag, reserved);
}

extern "C" grpc_event grpc_completion_queue_next(grpc_completion_queue* queue,
                                                 gpr_timespec deadline, void* reserved) {
  static const auto real =
      Real<decltype(&grpc_completion_queue_next)>("grpc_completion_queue_next");
  const grpc_event event = real(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

extern "C" grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag,
                                                  gpr_timespec deadline, void* reserved) {
  static const auto real =
      Real<decltype(&grpc_completion_queue_pluck)>("grpc_completion_queue_pluck");
  const grpc_event event = real(queue, tag, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}
