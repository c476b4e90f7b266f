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
#include <pthread.h>
#include <sanitizer/tsan_interface.h>

#include <atomic>
#include <csignal>
#include <string>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "grpc/grpc.h"
#include "grpc/slice.h"
#include "grpc/support/alloc.h"
#include "grpc/support/string_util.h"
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

// Signals are for the first thread. The sanitizer runs a signal's handler only when the thread that
// was chosen for the signal next calls something that the sanitizer knows; one of gRPC's waits, as
// likely as not, for a day in what it does not know (abseil's futex, or an epoll that
// tests/tsan.supp hides). Such a thread is chosen while the first one holds signals back, to start
// a process.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*function)(void*), void* argument) noexcept {
  static const auto real = Real<decltype(&pthread_create)>("pthread_create");
  sigset_t signals, before;
  sigfillset(&signals);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) {
    sigdelset(&signals, fault);
  }
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  const int error = real(thread, attributes, function, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return error;
}

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

// gRPC shuts down on a thread of its own, and a program that ends meanwhile leaves threads that
// have ended and were not waited for: a leak, says the sanitizer. Here it is never shut down, so
// that what leaks is ours.
extern "C" void grpc_init() {
  static const auto real = Real<void (*)()>("grpc_init");
  static std::atomic<bool> held = false;
  if (!held.exchange(true)) real();  // once more than anybody gives up
  real();
}

// The words of a failed call. The C core makes them on whatever thread meets the error (partly with
// the standard library's strings, so the writes don't count as the C core's) and hands them over
// through lock-free queues; gRPC's header code, compiled by us, reads them on another thread. So a
// callback that brings a call's status first gets copies that its own thread has made, unseen.
using Functor = grpc_completion_queue_functor;
extern "C" void
_ZN4grpc8internal21CallbackWithStatusTag9StaticRunEP29grpc_completion_queue_functori(Functor*, int)
    __attribute__((weak));
extern "C" void
_ZN4grpc8internal22CallbackWithSuccessTag9StaticRunEP29grpc_completion_queue_functori(Functor*, int)
    __attribute__((weak));
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

bool IsCallback(const void* tag) {
  if (tag == nullptr) return false;
  // Of another kind of tag this is the first word too: its table of virtual functions.
  const auto run = static_cast<const Functor*>(tag)->functor_run;
  return run ==
             &_ZN4grpc8internal21CallbackWithStatusTag9StaticRunEP29grpc_completion_queue_functori ||
         run ==
             &_ZN4grpc8internal22CallbackWithSuccessTag9StaticRunEP29grpc_completion_queue_functori;
}

// Stands for the callback in one batch.
class StatusFunctor final : public Functor {
 public:
  StatusFunctor(Functor* real, grpc_slice* message, const char** error)
      : Functor{&Run, real->inlineable, 0, nullptr},
        real_(real),
        message_(message),
        error_(error) {}

 private:
  static void Run(Functor* self, int ok) {
    auto* const functor = static_cast<StatusFunctor*>(self);
    __tsan_acquire(functor);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    functor->CopyWords();
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    Functor* const real = functor->real_;
    delete functor;
    real->functor_run(real, ok);
  }

  void CopyWords() {
    const grpc_slice message = grpc_slice_from_copied_buffer(
        reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(*message_)),
        GRPC_SLICE_LENGTH(*message_));
    grpc_slice_unref(*message_);
    *message_ = message;
    if (error_ == nullptr || *error_ == nullptr) return;
    const char* const error = gpr_strdup(*error_);
    gpr_free(const_cast<char*>(*error_));
    *error_ = error;
  }

  Functor* const real_;
  grpc_slice* const message_;
  const char** const error_;
};

StatusFunctor* MakeStatusFunctor(const grpc_op* ops, size_t nops, void* tag) {
  if (!IsCallback(tag)) return nullptr;
  for (const grpc_op* op = ops; op != ops + nops; ++op) {
    if (op->op != GRPC_OP_RECV_STATUS_ON_CLIENT) continue;
    const auto& status = op->data.recv_status_on_client;
    return new StatusFunctor(static_cast<Functor*>(tag), status.status_details,
                             status.error_string);
  }
  return nullptr;
}

}  // namespace

// An operation's tag: what was done before it was given to gRPC comes before what is done by
// whoever receives it back. (The loop that runs callbacks receives them in the same way.)
extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t nops,
                                                 void* tag, void* reserved) {
  static const auto real = Real<decltype(&grpc_call_start_batch)>("grpc_call_start_batch");
  __tsan_release(tag);
  StatusFunctor* const functor = MakeStatusFunctor(ops, nops, tag);
  if (functor == nullptr) return real(call, ops, nops, tag, reserved);
  __tsan_release(functor);
  const grpc_call_error error = real(call, ops, nops, functor, reserved);
  if (error != GRPC_CALL_OK) delete functor;  // it will not be called
  return error;
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
