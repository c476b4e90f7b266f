#include "tools/client.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "services/configuration.h"
#include "services/errors.h"

namespace quorate::tools {
namespace {

// A page (2 MiB) or one item (1 MiB) and its frame, with room.
constexpr int kReceiveBytesMax = 16 << 20;
// For an endpoint that could not be connected to a moment ago.
constexpr std::chrono::milliseconds kReconnectPatience(1000);
// For gRPC to say why it has no connection, which it knows.
constexpr std::chrono::milliseconds kWhyPatience(200);
constexpr char kNothingAnswers[] = "nothing answers in time";

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           std::chrono::milliseconds connect_timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kReceiveBytesMax);
  // Retries are ours to decide, and a node is dialled directly: proxy variables mean the web.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Despite its name this is how long one attempt may take, the server's first frame included.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(connect_timeout.count()));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // One connection an endpoint, not one shared with other clients of this process.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const bool literal_v6 = address.front() == '[';
  return grpc::CreateCustomChannel((literal_v6 ? "ipv6:" : "dns:///") + address,
                                   grpc::InsecureChannelCredentials(), arguments);
}

// Whether gRPC has made this end itself, because a connection broke under the call, or because its
// server stops: calls that come between the beginning of that and the client's GOAWAY are reset
// (CANCELLED). This client cancels nothing itself.
bool IsBroken(const grpc::Status& status, bool ours) {
  return !ours && (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                   status.error_code() == grpc::StatusCode::CANCELLED);
}

// Of a bounded attempt.
constexpr std::chrono::milliseconds kBoundedAttemptMin(500);

grpc::Status CannotConnect(const std::string& why) {
  return {grpc::StatusCode::UNAVAILABLE, "cannot connect: " + why};
}

// Why the channel failed. gRPC tells only a call: this one does not wait for a connection and
// changes nothing. Where it gets through after all, there is one: OK.
grpc::Status WhyNotConnected(Endpoint& endpoint, std::chrono::system_clock::time_point deadline) {
  constexpr absl::string_view kPreface = "failed to connect to all addresses; last error: ";
  const auto until = std::min(deadline, std::chrono::system_clock::now() + kWhyPatience);
  grpc::ClientContext context;
  context.set_deadline(until);
  v1::StatusResponse response;
  const grpc::Status status = endpoint.cluster->Status(&context, v1::StatusRequest(), &response);
  if (std::chrono::system_clock::now() >= deadline) return CannotConnect(kNothingAnswers);
  // gRPC's own, without our reason: there is no connection. Anything else came over one.
  const bool none = status.error_code() == grpc::StatusCode::UNAVAILABLE &&
                    services::DetailsOf(status).reason.empty();
  if (!none) return grpc::Status::OK;
  return CannotConnect(std::string(absl::StripPrefix(status.error_message(), kPreface)));
}

}  // namespace

bool OutcomeIsKnown(grpc::StatusCode code, bool ours) {
  switch (code) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      return true;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return false;
    default:
      return ours;
  }
}

bool HoldsForEveryAttempt(grpc::StatusCode code, const std::string& reason) {
  return code == grpc::StatusCode::OK || code == grpc::StatusCode::ABORTED ||
         reason == "TOO_MANY_CHANGES" || reason == "TXN_RESULT_TOO_LARGE" ||
         reason == "REVISION_COMPACTED";
}

Client::Client(ClientOptions options) : options_(std::move(options)) {
  for (const std::string& address : options_.endpoints) {
    auto endpoint = std::make_unique<Endpoint>();
    endpoint->address = address;
    endpoint->channel = MakeChannel(address, options_.connect_timeout);
    endpoint->config = v1::Config::NewStub(endpoint->channel);
    endpoint->cluster = v1::Cluster::NewStub(endpoint->channel);
    endpoints_.push_back(std::move(endpoint));
  }
}

// Waits for a connection; UNAVAILABLE when it was refused or takes too long. The call has not been
// sent then.
grpc::Status Client::Connect(Endpoint& endpoint, Clock::time_point deadline) {
  grpc_connectivity_state state = endpoint.channel->GetState(true);
  auto patience = options_.connect_timeout;
  if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
    // gRPC tells of no second failure: the channel stays in this state until there is a connection.
    // So it tries at once, and is not waited for as long as a node that may only be busy.
    grpc::experimental::ChannelResetConnectionBackoff(endpoint.channel.get());
    patience = std::min(patience, kReconnectPatience);
  }
  const auto until = std::min(deadline, Clock::now() + patience);
  bool tried = false;
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_CONNECTING) tried = true;
    // A failure of before this call says nothing: the channel tries again.
    if (state == GRPC_CHANNEL_SHUTDOWN) return CannotConnect("the channel is shut down");
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE && tried)
      return WhyNotConnected(endpoint, deadline);
    if (!endpoint.channel->WaitForStateChange(state, until)) {
      if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) return WhyNotConnected(endpoint, deadline);
      return CannotConnect(kNothingAnswers);
    }
    if (state == GRPC_CHANNEL_IDLE) tried = true;
    state = endpoint.channel->GetState(true);
  }
  return grpc::Status::OK;
}

CallResult Client::RunAt(Endpoint& endpoint, const Call& call) {
  return RunAt(endpoint, call, options_.timeout);
}

CallResult Client::RunAt(Endpoint& endpoint, const Call& call, std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  const grpc::Status connected = Connect(endpoint, deadline);
  if (!connected.ok()) return {connected, endpoint.address, true, false};
  grpc::ClientContext context;
  context.set_deadline(deadline);
  return {call(endpoint, &context), endpoint.address};
}

CallResult Client::Run(CallKind kind, const Call& call, Attempts attempts) {
  const auto deadline = Clock::now() + options_.timeout;
  const size_t count = endpoints_.size();
  const bool bounded = attempts == Attempts::kBounded && kind != CallKind::kWrite && count > 1;
  CallResult last{CannotConnect("not tried"), "", true, false};
  bool maybe_done = false;  // a named write was under way when a connection broke or time was over
  for (;;) {
    bool anyone_answered = false;
    auto delay = options_.retry_delay;
    const size_t first = preferred_;
    for (size_t i = 0; i < count; ++i) {
      const size_t at = (first + i) % count;
      Endpoint& endpoint = *endpoints_[at];
      const grpc::Status connected = Connect(endpoint, deadline);
      if (!connected.ok()) {
        // What an endpoint has answered says more than that another does not.
        if (!last.reached) last = {connected, endpoint.address, true, false};
        continue;
      }
      grpc::ClientContext context;
      const auto left = deadline - Clock::now();
      const bool whole = !bounded || left < 2 * kBoundedAttemptMin;
      context.set_deadline(whole ? deadline : deadline - left / 2);
      const CallResult answer{call(endpoint, &context), endpoint.address};
      const services::ErrorDetails details = services::DetailsOf(answer.status);
      const bool ours = !details.reason.empty();
      const grpc::StatusCode code = answer.status.error_code();
      const bool late = code == grpc::StatusCode::DEADLINE_EXCEEDED;
      if (late) preferred_ = (at + 1) % count;
      if (late && !whole) {
        // A reason that another one gave says more than that this one hangs.
        if (ours || services::DetailsOf(last.status).reason.empty()) last = answer;
        if (kind == CallKind::kNamedWrite) maybe_done = true;
        last.outcome_known = !maybe_done;
        anyone_answered = true;
        continue;
      }
      last = answer;
      const bool broken = IsBroken(answer.status, ours);
      if (code != grpc::StatusCode::UNAVAILABLE && !broken) {
        if (!late) preferred_ = at;
        last.outcome_known = kind == CallKind::kRead || OutcomeIsKnown(code, ours);
        if (maybe_done && !HoldsForEveryAttempt(code, details.reason)) last.outcome_known = false;
        return last;
      }
      if (kind == CallKind::kWrite && broken) {
        last.outcome_known = false;
        return last;
      }
      if (kind == CallKind::kNamedWrite && broken) maybe_done = true;
      last.outcome_known = !maybe_done;
      anyone_answered = anyone_answered || ours;
      if (details.retry_delay) {
        delay = std::chrono::duration_cast<std::chrono::milliseconds>(*details.retry_delay);
      }
    }
    delay = std::max(delay, std::chrono::milliseconds(10));
    if (!anyone_answered || Clock::now() + delay >= deadline) return last;
    std::this_thread::sleep_for(delay);
  }
}

void Client::Saw(uint64_t revision) {
  uint64_t seen = seen_revision_;
  while (seen < revision && !seen_revision_.compare_exchange_weak(seen, revision)) {
  }
}

std::string NewRequestId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", random());
    id.append(digits);
  }
  return id;
}

CallResult Client::SeenRevision(uint64_t* revision) {
  CallResult result;
  if (seen_revision_ == 0) {
    v1::StatusResponse response;
    result = Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.cluster->Status(context, v1::StatusRequest(), &response);
    });
    if (result.ok()) Saw(response.header().revision());
  }
  *revision = seen_revision_;
  return result;
}

CallResult Client::UseNode(const std::string& node_id) {
  std::string seen;
  CallResult last;
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    v1::StatusResponse response;
    last = RunAt(*endpoints_[i], [&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.cluster->Status(context, v1::StatusRequest(), &response);
    });
    if (!last.ok()) {
      seen += (seen.empty() ? "" : ", ") + endpoints_[i]->address + " does not answer (" +
              last.status.error_message() + ")";
      continue;
    }
    if (response.header().node_id() == node_id) {
      std::unique_ptr<Endpoint> found = std::move(endpoints_[i]);
      endpoints_.clear();
      endpoints_.push_back(std::move(found));
      preferred_ = 0;
      return last;
    }
    seen +=
        (seen.empty() ? "" : ", ") + endpoints_[i]->address + " is " + response.header().node_id();
  }
  return {services::MakeError(grpc::StatusCode::NOT_FOUND, "NODE_NOT_FOUND",
                              "no endpoint is node " + node_id + ": " + seen),
          last.address};
}

absl::StatusOr<std::vector<std::string>> ParseEndpoints(const std::string& list) {
  std::vector<std::string> endpoints;
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    const std::string endpoint(part);
    const auto parsed = services::ParseHostPort(endpoint);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(std::string(parsed.status().message()) +
                                        "; write host:port, such as 127.0.0.1:8080");
    }
    if (!services::NamesAHost(*parsed)) {
      return absl::InvalidArgumentError("`" + endpoint +
                                        "` has no host; write host:port, such as 127.0.0.1:8080");
    }
    endpoints.push_back(endpoint);
  }
  return endpoints;
}

}  // namespace quorate::tools
