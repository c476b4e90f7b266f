// What every caller of Quorate needs: a channel that fails over and retries, names for writes,
// reads that never go back, and the reasons of errors. The programs here share it; it is meant to
// be read, and copied.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/validate_service_config.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"

namespace example {

namespace v1 = quorate::v1;

// A channel to every node that `target` names: `ipv4:10.0.0.1:8080,10.0.0.2:8080`, or a DNS name
// with an address for each, `dns:///quorate.example:8080`.
//
// The service config spreads calls over the nodes, gives them ten seconds and sends them again
// after UNAVAILABLE, writes too: so every write here has a request id.
inline std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  const char* path = std::getenv("QUORATE_SERVICE_CONFIG");
  if (path == nullptr) path = "examples/service_config/writes_with_request_id.json";
  std::ifstream file(path);
  const std::string config{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw std::runtime_error(std::string("cannot read ") + path);
  const std::string wrong = grpc::experimental::ValidateServiceConfigJSON(config);
  if (!wrong.empty()) throw std::runtime_error(std::string(path) + ": " + wrong);
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(config);
  // A node that vanished without a word is noticed after 15 s, also under a watch.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // A node is dialled directly: proxy variables mean the web.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// Our ErrorInfo in an error; an empty reason: the error is not ours but gRPC's.
struct Reason {
  std::string reason;
  std::map<std::string, std::string> metadata;
};

// Of a serialized google.rpc.Status: a call's error details, or WriteResponse.status.
inline Reason ReasonIn(const std::string& details) {
  google::rpc::Status status;
  if (!status.ParseFromString(details)) return {};
  for (const auto& detail : status.details()) {
    google::rpc::ErrorInfo info;
    if (detail.UnpackTo(&info) && info.domain() == "quorate") {
      return {info.reason(), {info.metadata().begin(), info.metadata().end()}};
    }
  }
  return {};
}
inline Reason ReasonOf(const grpc::Status& status) { return ReasonIn(status.error_details()); }

// What a call that fails for good is thrown as.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const grpc::Status& status)
      : std::runtime_error(std::to_string(status.error_code()) + " " + ReasonOf(status).reason +
                           ": " + status.error_message()),
        status(status) {}
  const grpc::Status status;
};

// One caller's view of the store: what it has seen or written it sees from then on, whichever node
// answers. Any thread.
class Session {
 public:
  explicit Session(const std::shared_ptr<grpc::Channel>& channel)
      : config(v1::Config::NewStub(channel)), cluster(v1::Cluster::NewStub(channel)) {}

  const std::unique_ptr<v1::Config::Stub> config;
  const std::unique_ptr<v1::Cluster::Stub> cluster;

  // Names a write, once for all times that it is sent: it is done once.
  template <typename Request>
  void Name(Request* request) {
    thread_local std::mt19937_64 random{std::random_device{}()};
    char id[33];
    std::snprintf(id, sizeof id, "%016llx%016llx", static_cast<unsigned long long>(random()),
                  static_cast<unsigned long long>(random()));
    request->set_request_id(id);
    request->set_request_revision(Seen());
  }

  // How to read: the node that answers waits until it shows what this session has seen.
  v1::ReadOptions Read() const {
    v1::ReadOptions read;
    read.set_min_revision(seen_);
    return read;
  }

  // One call, with what its answer shows remembered. `Call(&Config::Stub::Get, request, &response)`
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::Config::Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    grpc::Status status = (config.get()->*method)(&context, request, response);
    if (status.ok()) Saw(response->header().revision());
    return status;
  }

  // Sends a named write until its outcome is known: an answer, or an error that is one (thrown).
  // The channel has retried already. What is left is an outage longer than that, and a deadline
  // that passed: neither says whether the write was done, and its name makes asking again safe.
  template <typename Request, typename Response>
  void Certainly(grpc::Status (v1::Config::Stub::*method)(grpc::ClientContext*, const Request&,
                                                          Response*),
                 const Request& request, Response* response) {
    constexpr int kAttempts = 10;
    for (int attempt = 1;; ++attempt) {
      const grpc::Status status = Call(method, request, response);
      if (status.ok()) return;
      if (!SendAgain(status.error_code()) || attempt == kAttempts) throw Failure(status);
    }
  }

  void Saw(uint64_t revision) {
    uint64_t seen = seen_;
    while (seen < revision && !seen_.compare_exchange_weak(seen, revision)) {
    }
  }

 private:
  static bool SendAgain(grpc::StatusCode code) {
    return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED ||
           code == grpc::StatusCode::CANCELLED || code == grpc::StatusCode::UNKNOWN ||
           code == grpc::StatusCode::INTERNAL;
  }

  uint64_t Seen() {
    if (seen_ == 0) {
      grpc::ClientContext context;
      v1::StatusResponse response;
      const grpc::Status status = cluster->Status(&context, v1::StatusRequest(), &response);
      if (!status.ok()) throw Failure(status);
      Saw(response.header().revision());
    }
    return seen_;
  }

  std::atomic<uint64_t> seen_ = 0;  // the highest revision that an answer has shown
};

// Runs a program: what it throws is said, and ends it.
template <typename Program>
int Run(int argc, char** argv, int arguments, const char* usage, Program program) {
  if (argc != arguments + 1) {
    std::cerr << "usage: " << usage << '\n';
    return 2;
  }
  try {
    return program(argv + 1);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}

}  // namespace example
