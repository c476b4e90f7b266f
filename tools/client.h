// Calls a cluster through one of several endpoints, and fails over between them.
//
// The rule (DESIGN.md, "Retry"): UNAVAILABLE with our ErrorInfo means that the call was certainly
// not accepted, so anything may be tried again. UNAVAILABLE without it comes from gRPC when a
// connection breaks under a call, CANCELLED without it when a server that stops resets one: a read
// is tried elsewhere, a write is not, because it may have been done; a write with a request id of
// its own (Write) is, too, because it cannot be done twice. An endpoint that cannot be connected to
// was not called at all, so both go on to the next one. When every endpoint has refused, they are
// asked again after the delay that they named, until the timeout; when none can be connected to,
// the call fails at once. Who lets a deadline pass is not asked first the next time.
//
// Thread-safe: all methods from any thread; calls run at the same time.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"

namespace quorate::tools {

// One node's client port.
struct Endpoint {
  std::string address;  // host:port
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Config::Stub> config;
  std::unique_ptr<v1::Cluster::Stub> cluster;
};

// How a call ended, and who said so.
struct CallResult {
  grpc::Status status;
  std::string address;        // of the last endpoint asked
  bool outcome_known = true;  // false: a write that may or may not have been done
  bool reached = true;        // false: no endpoint could be connected to
  bool ok() const { return status.ok(); }
};

enum class CallKind {
  kRead,
  kWrite,
  kNamedWrite,  // has a request id and a request revision: a repeat of it is known
};

enum class Attempts {
  kWhole,    // each attempt may take all the time that is left
  kBounded,  // with several endpoints half of it, so that one that hangs leaves time for others
};

// Whether a write that ended so was certainly done or certainly not. `ours`: has our ErrorInfo. A
// deadline leaves it open, also when the server says so; what gRPC makes of a broken stream
// (CANCELLED, INTERNAL, UNKNOWN) too.
bool OutcomeIsKnown(grpc::StatusCode code, bool ours);
// Whether this answer holds for every attempt under one request id: only what the state machine
// keeps with the id does. Anything else is said of one attempt, and an earlier one may have been
// done, or be under way.
bool HoldsForEveryAttempt(grpc::StatusCode code, const std::string& reason);

struct ClientOptions {
  std::vector<std::string> endpoints;                            // host:port, at least one
  std::chrono::milliseconds timeout = std::chrono::seconds(10);  // of one call, fail-over included
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(3);     // of one endpoint
  std::chrono::milliseconds retry_delay = std::chrono::milliseconds(100);  // when none was named
};

// A new random one.
std::string NewRequestId();

class Client {
 public:
  explicit Client(ClientOptions options);

  // Runs `call` against one endpoint after the other until it ends (see above). The context has its
  // deadline; `call` may run several times and overwrites its response each time.
  using Call = std::function<grpc::Status(Endpoint&, grpc::ClientContext*)>;
  // Attempts of a kWrite, which is not repeated, are never bounded.
  CallResult Run(CallKind kind, const Call& call, Attempts attempts = Attempts::kWhole);

  // A read; an endpoint that hangs leaves time for the others.
  CallResult Read(const Call& call) { return Run(CallKind::kRead, call, Attempts::kBounded); }

  // Sends one write under a request id and a request revision, which are filled in here unless it
  // has them. The first one of a client asks the cluster for its revision before.
  template <typename Request, typename Response>
  CallResult Write(grpc::Status (v1::Config::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*),
                   Request request, Response* response) {
    if (request.request_id().empty()) request.set_request_id(NewRequestId());
    CallResult result;
    if (request.request_revision() == 0) {
      uint64_t revision = 0;
      if (result = SeenRevision(&revision); !result.ok()) return result;
      request.set_request_revision(revision);
    }
    result = Run(
        request.request_revision() == 0 ? CallKind::kWrite : CallKind::kNamedWrite,
        [&](Endpoint& endpoint, grpc::ClientContext* context) {
          return (endpoint.config.get()->*method)(context, request, response);
        },
        Attempts::kBounded);
    if (result.ok()) Saw(response->header().revision());
    return result;
  }
  // An answer has shown this revision of the store.
  void Saw(uint64_t revision);
  // A revision that an answer has shown; 0: the cluster does not say one. The result is that of
  // asking for it, if there was none yet.
  CallResult SeenRevision(uint64_t* revision);

  // Runs `call` against this endpoint only, once, for the options' timeout or this one.
  CallResult RunAt(Endpoint& endpoint, const Call& call);
  CallResult RunAt(Endpoint& endpoint, const Call& call, std::chrono::milliseconds timeout);

  // From now on asks only the endpoint whose node has this name. The result is that of the search:
  // NOT_FOUND when every endpoint answered with another name. Before any other call.
  CallResult UseNode(const std::string& node_id);

  const std::vector<std::unique_ptr<Endpoint>>& endpoints() const { return endpoints_; }
  const ClientOptions& options() const { return options_; }

 private:
  using Clock = std::chrono::system_clock;  // gRPC deadlines
  grpc::Status Connect(Endpoint& endpoint, Clock::time_point deadline);

  const ClientOptions options_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::atomic<size_t> preferred_ = 0;        // the endpoint that last answered
  std::atomic<uint64_t> seen_revision_ = 0;  // the highest that an answer has shown
};

// Splits `A,B,C` and checks each host:port (a host is required). kInvalidArgument names the wrong
// one.
absl::StatusOr<std::vector<std::string>> ParseEndpoints(const std::string& list);

}  // namespace quorate::tools
