// health.
#include <algorithm>
#include <chrono>
#include <thread>

#include "grpcpp/generic/generic_stub.h"
#include "httplib.h"
#include "services/configuration.h"
#include "services/errors.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct HealthFlags {
  std::string probe;
  std::string ops = "127.0.0.1:8081";
  bool cluster = false;
  std::string wait;
};

// grpc.health.v1.Health/Check for the whole server. Both messages have one field and Debian ships
// no generated code for them: the request is empty, the answer is `status` (field 1, 1 = SERVING).
grpc::Status CheckHealth(Endpoint& endpoint, grpc::ClientContext* context, bool* serving) {
  grpc::GenericStub stub(endpoint.channel);
  grpc::CompletionQueue queue;
  const grpc::ByteBuffer request;
  const grpc::Slice nothing;
  const grpc::ByteBuffer empty(&nothing, 1);
  const auto call = stub.PrepareUnaryCall(context, "/grpc.health.v1.Health/Check", empty, &queue);
  call->StartCall();
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->Finish(&reply, &status, &queue);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  grpc::Slice slice;
  if (status.ok() && reply.DumpToSingleSlice(&slice).ok()) {
    *serving = slice.size() == 2 && slice.begin()[0] == 0x08 && slice.begin()[1] == 1;
  }
  return status;
}

// The worst of all endpoints.
int HealthOfAll(Invocation& invocation) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  for (const auto& endpoint : client->endpoints()) {
    bool serving = false;
    const CallResult result =
        client->RunAt(*endpoint, [&](Endpoint& at, grpc::ClientContext* context) {
          return CheckHealth(at, context, &serving);
        });
    if (!result.ok()) {
      exit = Report(invocation.io.err, "health", result);
      continue;
    }
    if (!serving && exit == kExitOk) exit = kExitUnhealthy;
    if (!invocation.globals.quiet) {
      invocation.io.out << endpoint->address << (serving ? "  healthy\n" : "  not healthy\n");
    }
  }
  return exit;
}

int Probe(Invocation& invocation, const HealthFlags& flags) {
  const auto address = services::ParseHostPort(flags.ops);
  if (!address.ok() || !services::NamesAHost(*address)) {
    return invocation.Fail(
        kExitUsage, "health: --ops " + flags.ops + ": write host:port, such as 127.0.0.1:8081");
  }
  httplib::Client http(address->host, address->port);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(invocation.timeout);
  http.set_connection_timeout(whole.count() / 1'000'000, whole.count() % 1'000'000);
  http.set_read_timeout(whole.count() / 1'000'000, whole.count() % 1'000'000);
  const httplib::Result answer = http.Get("/" + flags.probe);
  if (!answer) {
    return invocation.Fail(kExitUnavailable, "health " + flags.probe + ": no answer from " +
                                                 flags.ops + " (" +
                                                 httplib::to_string(answer.error()) +
                                                 "): check that a node runs there, or name its "
                                                 "operations port with --ops");
  }
  if (!invocation.globals.quiet) {
    std::string body = answer->body.substr(0, 64 << 10);
    while (!body.empty() && body.back() == '\n') body.pop_back();
    invocation.io.out << Printable(body) << '\n';
  }
  return answer->status == 200 ? kExitOk : kExitUnhealthy;
}

// --- The cluster ---

constexpr milliseconds kLookPause(250);

// A round of the leader with a majority, and what the asked node has applied behind it: what a
// cluster can do as long as it has a healthy majority, and otherwise cannot.
CallResult AskMajority(Client& client) {
  v1::GetRequest request;
  request.set_key("quorate");
  request.mutable_read()->set_consistency(v1::CONSISTENCY_LINEARIZABLE);
  v1::GetResponse response;
  CallResult result = client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.config->Get(context, request, &response);
  });
  // That there is no such key is as good an answer.
  if (services::DetailsOf(result.status).reason == "KEY_NOT_FOUND") {
    result.status = grpc::Status::OK;
  }
  return result;
}

// Who leads, and if that node is among those asked, how many voters it has heard lately.
std::string MajorityText(Client& client) {
  std::string text = "healthy: a leader has a majority behind it";
  for (const auto& endpoint : client.endpoints()) {
    v1::StatusResponse status;
    const CallResult result =
        client.RunAt(*endpoint, [&](Endpoint& at, grpc::ClientContext* context) {
          return at.cluster->Status(context, v1::StatusRequest(), &status);
        });
    if (!result.ok() || status.header().leader_id().empty()) continue;
    text = "healthy: a majority follows " + Printable(status.header().leader_id());
    if (status.role() != v1::NODE_ROLE_LEADER) continue;
    size_t voters = 0, active = 0;
    for (const v1::MemberStatus& member : status.members()) {
      if (!member.voter()) continue;
      ++voters;
      active += member.active() || member.is_leader() ? 1 : 0;
    }
    return text + ", " + std::to_string(active) + " of " + std::to_string(voters) +
           (voters == 1 ? " voter answers" : " voters answer");
  }
  return text;
}

int HealthOfCluster(Invocation& invocation, const HealthFlags& flags) {
  milliseconds wait(0);
  if (!flags.wait.empty()) {
    const auto parsed = services::ParseDuration(flags.wait);
    if (!parsed) {
      return invocation.Fail(kExitUsage,
                             "health: --wait " + flags.wait + ": write a time, such as 60s");
    }
    wait = std::chrono::duration_cast<milliseconds>(*parsed);
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  // Each look takes no longer than what is left, or a --timeout.
  const auto until = steady_clock::now() + wait;
  const GracefulInterrupts graceful;
  CallResult result;
  bool told = false;
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(until - steady_clock::now()) + milliseconds(1);
    ClientOptions options = client->options();
    if (wait.count() > 0) options.timeout = std::min(std::max(left, kLookPause), options.timeout);
    Client look(options);
    result = AskMajority(look);
    if (result.ok()) {
      if (!invocation.globals.quiet) invocation.io.out << MajorityText(look) << '\n';
      return kExitOk;
    }
    if (Interrupted()) return kExitInterrupted;
    if (steady_clock::now() + kLookPause >= until) break;
    if (!std::exchange(told, true) && !invocation.globals.quiet) {
      invocation.io.err << "quorate: health: waiting for a healthy majority: " << Describe(result)
                        << '\n';
    }
    std::this_thread::sleep_for(kLookPause);
  }
  return invocation.Fail(kExitUnhealthy, "health: no healthy majority" +
                                             (flags.wait.empty() ? "" : " within " + flags.wait) +
                                             ": " + Describe(result) +
                                             ". `quorate status` shows each node");
}

}  // namespace

void AddHealthCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* health = app.add_subcommand(
      "health", "whether every endpoint can answer; livez and readyz ask the operations port");
  auto health_flags = std::make_shared<HealthFlags>();
  health->add_option("PROBE", health_flags->probe, "livez or readyz")
      ->check(CLI::IsMember({"livez", "readyz"}));
  health->add_option("--ops", health_flags->ops, "the operations port, for livez and readyz")
      ->envname("QUORATE_OPS")
      ->capture_default_str();
  CLI::Option* cluster = health->add_flag("--cluster", health_flags->cluster,
                                          "whether a leader has a majority behind it");
  health->add_option("--wait", health_flags->wait, "until that is so, at most this long, as 60s")
      ->needs(cluster);
  health->callback([&invocation, health_flags] {
    invocation.action = [&invocation, health_flags] {
      if (health_flags->cluster) {
        if (health_flags->probe.empty()) return HealthOfCluster(invocation, *health_flags);
        return invocation.Fail(
            kExitUsage, "health: " + health_flags->probe + " is one node's, --cluster is not");
      }
      return health_flags->probe.empty() ? HealthOfAll(invocation)
                                         : Probe(invocation, *health_flags);
    };
  });
}

}  // namespace quorate::tools
