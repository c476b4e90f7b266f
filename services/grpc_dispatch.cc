#include "services/grpc_dispatch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/call_queues.h"
#include "services/errors.h"
#include "services/system_clock.h"
#include "services/write_stream.h"

namespace quorate::services {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;

// Metadata that passes through the proxy hop.
constexpr const char* kPassed[] = {"authorization", "x-request-id", "traceparent"};
constexpr Duration kCallRetryDelay = std::chrono::milliseconds(200);
constexpr size_t kPassedBytesMax = 4096;  // of one value: what is longer is left out

// What a service's calls have in common. Outlives them all.
struct Shared {
  std::string service;  // quorate.v1.Config
  Handler handler;
  CallObserver observer;
  size_t calls_max = kUnaryCallsMax;
  std::shared_ptr<std::atomic<size_t>> calls = std::make_shared<std::atomic<size_t>>(0);
};

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const Shared& shared, const char* method, CallbackServerContext* context,
            const ByteBuffer* request, ByteBuffer* response)
      : shared_(shared),
        method_(method),
        response_(response),
        started_(BootNow()),
        call_(MakeCallContext(*context, kDefaultDeadline)) {
    std::string bytes;
    if (shared_.calls->fetch_add(1) >= shared_.calls_max) {
      End(TooManyCalls(), "");
      return;
    }
    if (!ToBytes(*request, &bytes)) {
      End(MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", "the request cannot be read"), "");
      return;
    }
    // The last thing that this does: `done` may run, and this may be gone, at any time from here
    // on.
    shared_.handler(method_, std::move(bytes), call_,
                    [this](grpc::Status status, std::string response) {
                      End(std::move(status), std::move(response));
                    });
  }

 private:
  void End(grpc::Status status, const std::string& response) {
    shared_.observer(shared_.service + "/" + method_, status.error_code(), BootNow() - started_);
    if (status.ok()) {
      const grpc::Slice slice(response);
      *response_ = ByteBuffer(&slice, 1);
    }
    Finish(std::move(status));
  }

  void OnCancel() override { call_->Cancel(); }
  // Its answer is sent: until then it is held.
  void OnDone() override {
    shared_.calls->fetch_sub(1);
    delete this;
  }

  const Shared& shared_;
  const char* const method_;
  ByteBuffer* const response_;
  const Instant started_;
  const CallPtr call_;
};

// One watch. It lives until gRPC is done with it and the watch service has let go of it, whichever
// is later.
class WatchCall final : public grpc::ServerWriteReactor<ByteBuffer>,
                        public WatchSink,
                        public std::enable_shared_from_this<WatchCall> {
 public:
  WatchCall(const Shared& shared, WatchService* watch)
      : shared_(shared), watch_(watch), id_(watch->NewId()), started_(BootNow()) {}

  // The reactor for gRPC, which owns itself from now on.
  static grpc::ServerWriteReactor<ByteBuffer>* Start(const Shared& shared, WatchService* watch,
                                                     const ByteBuffer* request) {
    auto call = std::make_shared<WatchCall>(shared, watch);
    call->self_ = call;
    std::string bytes;
    if (ToBytes(*request, &bytes)) {
      watch->Open(call->id_, bytes, call);
    } else {
      call->End(MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", "the request cannot be read"));
    }
    // Not before gRPC has it can it be done.
    return call.get();
  }

  void Send(std::string header, std::shared_ptr<const std::string> body) override {
    // One message of many watches is one string: gRPC refers to it as long as it needs it.
    auto* held = new std::shared_ptr<const std::string>(std::move(body));
    const auto release = [](void* each) {
      delete static_cast<std::shared_ptr<const std::string>*>(each);
    };
    const grpc::Slice slices[] = {
        grpc::Slice(header),
        grpc::Slice(const_cast<char*>((*held)->data()), (*held)->size(), release, held)};
    std::lock_guard lock(mutex_);
    if (ended_) return;
    message_ = ByteBuffer(slices, 2);
    StartWrite(&message_);
  }

  void End(grpc::Status status) override {
    std::lock_guard lock(mutex_);
    if (std::exchange(ended_, true)) return;
    shared_.observer(shared_.service + "/Watch", status.error_code(), BootNow() - started_);
    Finish(std::move(status));
  }

 private:
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      message_.Clear();
    }
    if (ok) watch_->OnSent(id_);
  }
  void OnCancel() override {
    watch_->OnGone(id_);
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the caller went away"));
  }
  void OnDone() override { self_.reset(); }

  const Shared& shared_;
  WatchService* const watch_;
  const ingress::WatchId id_;
  const Instant started_;
  std::shared_ptr<WatchCall> self_;  // until gRPC is done

  std::mutex mutex_;  // protects what follows: nothing is written after the end
  bool ended_ = false;
  ByteBuffer message_;
};

// A streaming call that is not in this build yet.
template <typename Reactor>
class Refused final : public Reactor {
 public:
  Refused(const Shared& shared, const char* method) {
    const std::string name = shared.service + "/" + method;
    shared.observer(name, grpc::StatusCode::UNIMPLEMENTED, Duration::zero());
    this->Finish(MakeUnimplemented(name));
  }
  void OnDone() override { delete this; }
};

// Each generated layer takes one method as raw bytes.
#define QUORATE_RAW(service, method) v1::service::WithRawCallbackMethod_##method
template <class Base>
using RawConfigReads = QUORATE_RAW(Config, List) < QUORATE_RAW(Config, History) < Base >>
    ;
template <class Base>
using RawConfigWrites = QUORATE_RAW(Config, Delete) < QUORATE_RAW(Config, Txn) <
                        QUORATE_RAW(Config, Rollback) < QUORATE_RAW(Config, GrantTtl) <
                        QUORATE_RAW(Config, RevokeTtl) < Base >>>>>
    ;
template <class Base>
using RawConfigStreams = QUORATE_RAW(Config, Watch) < QUORATE_RAW(Config, Write) <
                         QUORATE_RAW(Config, KeepAliveTtl) < Base >>>
    ;
template <class Base>
using RawConfig = RawConfigReads<RawConfigWrites<RawConfigStreams<Base>>>;
using CallbackHot = QUORATE_RAW(Config, Get) < QUORATE_RAW(Config, Put) < v1::Config::Service >> ;
using QueuedHot = v1::Config::WithRawMethod_Get<v1::Config::WithRawMethod_Put<v1::Config::Service>>;

template <class Base>
using RawClusterReads = QUORATE_RAW(Cluster, Status) < QUORATE_RAW(Cluster, ListMembers) <
                        QUORATE_RAW(Cluster, GetSettings) < QUORATE_RAW(Cluster, Drain) < Base >>>>
    ;
template <class Base>
using RawClusterChanges = QUORATE_RAW(Cluster, AddMember) < QUORATE_RAW(Cluster, RemoveMember) <
                          QUORATE_RAW(Cluster, PromoteMember) < QUORATE_RAW(Cluster, DemoteMember) <
                          QUORATE_RAW(Cluster, TransferLeadership) <
                          QUORATE_RAW(Cluster, SetSettings) < QUORATE_RAW(Cluster, Compact) < Base
                          >>>>>>>
    ;
using RawCluster = RawClusterReads<RawClusterChanges<v1::Cluster::Service>>;
#undef QUORATE_RAW

#define QUORATE_UNARY(method)                                                                 \
  grpc::ServerUnaryReactor* method(CallbackServerContext* context, const ByteBuffer* request, \
                                   ByteBuffer* response) override {                           \
    return new UnaryCall(shared_, #method, context, request, response);                       \
  }

// All but the hot calls, which `Hot` has taken raw.
template <class Hot>
class ConfigGrpc : public RawConfig<Hot> {
 public:
  ConfigGrpc(Shared shared, WatchService* watch, WriteStreams* writes)
      : shared_(std::move(shared)),
        watch_(watch),
        writes_(writes != nullptr ? writes : &own_writes_) {}
  QUORATE_UNARY(List)
  QUORATE_UNARY(Delete)
  QUORATE_UNARY(Txn)
  QUORATE_UNARY(History)
  QUORATE_UNARY(Rollback)
  QUORATE_UNARY(GrantTtl)
  QUORATE_UNARY(RevokeTtl)
  grpc::ServerWriteReactor<ByteBuffer>* Watch(CallbackServerContext*,
                                              const ByteBuffer* request) override {
    if (watch_ != nullptr) return WatchCall::Start(shared_, watch_, request);
    return new Refused<grpc::ServerWriteReactor<ByteBuffer>>(shared_, "Watch");
  }
  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* Write(CallbackServerContext* context) override {
    return writes_->New(shared_.service + "/Write", shared_.handler, shared_.observer, context);
  }
  grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* KeepAliveTtl(
      CallbackServerContext* context) override {
    return writes_->New(shared_.service + "/KeepAliveTtl", shared_.handler, shared_.observer,
                        context, KeepAliveErrorResponse);
  }

 protected:
  const Shared shared_;

 private:
  WatchService* const watch_;
  WriteStreams own_writes_;
  WriteStreams* const writes_;
};

class CallbackConfigGrpc final : public ConfigGrpc<CallbackHot> {
 public:
  using ConfigGrpc::ConfigGrpc;
  QUORATE_UNARY(Get)
  QUORATE_UNARY(Put)
};

class QueuedConfigGrpc final : public ConfigGrpc<QueuedHot> {
 public:
  QueuedConfigGrpc(Shared shared, WatchService* watch, WriteStreams* writes, CallQueues* hot)
      : ConfigGrpc(std::move(shared), watch, writes) {
    const auto add = [&](const char* name, CallQueues::Ask ask) {
      hot->AddMethod({shared_.service, name, std::move(ask), shared_.handler, shared_.observer});
    };
    add("Get", [this](auto* context, auto* request, auto* writer, auto* queue, void* tag) {
      RequestGet(context, request, writer, queue, queue, tag);
    });
    add("Put", [this](auto* context, auto* request, auto* writer, auto* queue, void* tag) {
      RequestPut(context, request, writer, queue, queue, tag);
    });
  }
};

class ClusterGrpc final : public RawCluster {
 public:
  explicit ClusterGrpc(Shared shared) : shared_(std::move(shared)) {}
  QUORATE_UNARY(Status)
  QUORATE_UNARY(ListMembers)
  QUORATE_UNARY(AddMember)
  QUORATE_UNARY(RemoveMember)
  QUORATE_UNARY(PromoteMember)
  QUORATE_UNARY(DemoteMember)
  QUORATE_UNARY(TransferLeadership)
  QUORATE_UNARY(Compact)
  QUORATE_UNARY(GetSettings)
  QUORATE_UNARY(SetSettings)
  QUORATE_UNARY(Drain)

 private:
  const Shared shared_;
};
#undef QUORATE_UNARY

}  // namespace

bool ToBytes(const ByteBuffer& buffer, std::string* bytes) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return false;
  bytes->reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes->append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return true;
}

CallPtr MakeCallContext(const grpc::ServerContextBase& context, Duration default_deadline) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  // gRPC's "no deadline" is an instant centuries away.
  const bool given = left < std::chrono::hours(24 * 365);
  const Duration time =
      given ? CallersTime(std::chrono::duration_cast<Duration>(left)) : default_deadline;
  std::map<std::string, std::string> metadata;
  for (const char* key : kPassed) {
    const auto it = context.client_metadata().find(key);
    if (it == context.client_metadata().end() || it->second.size() > kPassedBytesMax) continue;
    metadata.emplace(key, std::string(it->second.data(), it->second.size()));
  }
  return std::make_shared<CallContext>(BootNow() + std::max(time, Duration::zero()),
                                       std::move(metadata));
}

grpc::Status TooManyCalls() {
  return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                   "this node has too many calls under way; try again or ask another", {},
                   kCallRetryDelay);
}

std::unique_ptr<grpc::Service> MakeConfigGrpc(Handler handler, CallObserver observer,
                                              WatchService* watch, CallQueues* hot,
                                              WriteStreams* writes, size_t calls_max) {
  Shared shared{v1::Config::service_full_name(), std::move(handler), std::move(observer),
                calls_max};
  if (hot == nullptr) return std::make_unique<CallbackConfigGrpc>(std::move(shared), watch, writes);
  return std::make_unique<QueuedConfigGrpc>(std::move(shared), watch, writes, hot);
}

std::unique_ptr<grpc::Service> MakeClusterGrpc(Handler handler, CallObserver observer) {
  return std::make_unique<ClusterGrpc>(
      Shared{v1::Cluster::service_full_name(), std::move(handler), std::move(observer)});
}

}  // namespace quorate::services
