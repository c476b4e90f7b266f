// How calls of clients get from gRPC to the handlers and back: the raw callback API, and for the
// hot calls completion queues (services/call_queues.h); both raw, so that requests arrive as bytes
// and are parsed by our own code. Handlers know nothing of it.
//
// Each call: its deadline is the client's (10 s without one), its cancellation is passed on, its
// end is counted. The reactor of a call lives until gRPC is done with it; a handler that answers a
// cancelled call answers into the void, safely.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/time.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/status.h"
#include "services/call_context.h"
#include "services/watch_service.h"

namespace quorate::services {

// As ConfigService::Handle.
using Handler =
    std::function<void(std::string_view method, std::string request, CallPtr call, CallDone done)>;
// A call has ended: `quorate.v1.Config/Get`, its status, how long it took. Any thread.
using CallObserver =
    std::function<void(std::string_view method, grpc::StatusCode code, Duration elapsed)>;

// A call's deadline as its caller sees it (CallersTime; when it has none, `default_deadline` from
// now) and the metadata that are passed on.
CallPtr MakeCallContext(const grpc::ServerContextBase& context, Duration default_deadline);

// Calls of one service under way, not counting what queues take (CallQueuesOptions::calls_max) and
// streams. Beyond, and what queues and streams say beyond theirs: TooManyCalls.
inline constexpr size_t kUnaryCallsMax = 16'384;
grpc::Status TooManyCalls();

// A message as one string. False when gRPC cannot give it.
bool ToBytes(const grpc::ByteBuffer& buffer, std::string* bytes);

class CallQueues;
class WriteStreams;

// The gRPC services, to be registered with a server that ends before the handlers do.
// Without `watch`, which outlives the service, Watch is refused as not in this build. With `hot`,
// which ends before the service does, Get and Put are taken by these queues. `writes`, which
// outlives the service, has the streams of writes; without it they end with their clients only. At
// most `calls_max` calls are under way, without those of `hot` and streams.
std::unique_ptr<grpc::Service> MakeConfigGrpc(Handler handler, CallObserver observer,
                                              WatchService* watch = nullptr,
                                              CallQueues* hot = nullptr,
                                              WriteStreams* writes = nullptr,
                                              size_t calls_max = kUnaryCallsMax);
std::unique_ptr<grpc::Service> MakeClusterGrpc(Handler handler, CallObserver observer);

}  // namespace quorate::services
