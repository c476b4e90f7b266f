// status, member list, health.
#include <chrono>
#include <thread>

#include "grpcpp/generic/generic_stub.h"
#include "httplib.h"
#include "services/configuration.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/status_table.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

// --- status ---

struct StatusFlags {
  bool watch = false;
  std::string interval = "2s";
};

// Asks every endpoint at the same time: one that hangs does not hide the others.
std::vector<NodeReport> AskAll(Client& client) {
  std::vector<NodeReport> reports(client.endpoints().size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < reports.size(); ++i) {
    threads.emplace_back([&, i] {
      NodeReport& report = reports[i];
      report.endpoint = client.endpoints()[i]->address;
      report.result = client.RunAt(
          *client.endpoints()[i], [&](Endpoint& endpoint, grpc::ClientContext* context) {
            return endpoint.cluster->Status(context, v1::StatusRequest(), &report.response);
          });
    });
  }
  for (std::thread& thread : threads) thread.join();
  return reports;
}

int PrintStatus(Invocation& invocation, Client& client) {
  const std::vector<NodeReport> reports = AskAll(client);
  bool any = false;
  for (const NodeReport& report : reports) any = any || report.result.ok();
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    nlohmann::ordered_json json = {{"nodes", nlohmann::ordered_json::array()}};
    for (const NodeReport& report : reports) {
      nlohmann::ordered_json node = {{"endpoint", report.endpoint}};
      if (report.result.ok()) {
        node["status"] = ToJson(report.response);
      } else {
        node["error"] = Describe(report.result);
      }
      json["nodes"].push_back(std::move(node));
    }
    PrintStructured(out, invocation.format, json);
  } else if (any) {
    const bool color = invocation.io.out_is_terminal && std::getenv("NO_COLOR") == nullptr;
    StatusTable(reports, color).Print(out);
    if (invocation.format != OutputFormat::kRaw) out << StatusSummary(reports);
  }
  out.flush();
  int exit = kExitOk;
  for (const NodeReport& report : reports) {
    if (report.result.ok()) continue;
    exit = Report(invocation.io.err, "status", report.result);
  }
  return any ? kExitOk : exit;
}

int Status(Invocation& invocation, const StatusFlags& flags) {
  const auto interval = services::ParseDuration(flags.interval);
  if (!interval || *interval < std::chrono::milliseconds(100)) {
    return invocation.Fail(
        kExitUsage, "status: --interval " + flags.interval + ": write at least 100ms, such as 2s");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  if (!flags.watch) return PrintStatus(invocation, *client);
  const GracefulInterrupts graceful;
  while (!Interrupted()) {
    if (invocation.io.out_is_terminal) invocation.io.out << "\x1b[H\x1b[2J";
    PrintStatus(invocation, *client);
    if (!invocation.io.out) return kExitError;
    const auto until = std::chrono::steady_clock::now() + *interval;
    while (!Interrupted() && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  return kExitInterrupted;
}

// --- member list ---

int MemberList(Invocation& invocation) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::ListMembersResponse response;
  const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.cluster->ListMembers(context, v1::ListMembersRequest(), &response);
  });
  if (!result.ok()) return Report(invocation.io.err, "member list", result);
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
    return kExitOk;
  }
  if (invocation.format == OutputFormat::kRaw) {
    for (const v1::MemberStatus& member : response.members()) out << member.node_id() << '\n';
    return kExitOk;
  }
  Table table({"NODE", "STORE", "ADDRESS", "VOTER", "LEADER"});
  for (const v1::MemberStatus& member : response.members()) {
    table.Add({Printable(member.node_id()), Printable(member.store_id()),
               Printable(member.address()), member.voter() ? "yes" : "no",
               member.is_leader() ? "yes" : "no"});
  }
  table.Print(out);
  out << "tolerates " << response.failures_tolerated()
      << (response.failures_tolerated() == 1 ? " failure" : " failures") << " of "
      << response.members_size() << (response.members_size() == 1 ? " member\n" : " members\n");
  return kExitOk;
}

// --- health ---

struct HealthFlags {
  std::string probe;
  std::string ops = "127.0.0.1:8081";
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

}  // namespace

void AddClusterCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* status = app.add_subcommand("status", "the nodes, asked at every endpoint");
  auto status_flags = std::make_shared<StatusFlags>();
  status->add_flag("--watch", status_flags->watch, "again and again, until interrupted");
  status->add_option("--interval", status_flags->interval, "between two looks")
      ->capture_default_str();
  status->callback([&invocation, status_flags] {
    invocation.action = [&invocation, status_flags] { return Status(invocation, *status_flags); };
  });

  CLI::App* member = app.add_subcommand("member", "the cluster's members");
  member->require_subcommand(1);
  member->add_subcommand("list", "names, stores and addresses")->callback([&invocation] {
    invocation.action = [&invocation] { return MemberList(invocation); };
  });

  CLI::App* health = app.add_subcommand(
      "health", "whether every endpoint can answer; livez and readyz ask the operations port");
  auto health_flags = std::make_shared<HealthFlags>();
  health->add_option("PROBE", health_flags->probe, "livez or readyz")
      ->check(CLI::IsMember({"livez", "readyz"}));
  health->add_option("--ops", health_flags->ops, "the operations port, for livez and readyz")
      ->envname("QUORATE_OPS")
      ->capture_default_str();
  health->callback([&invocation, health_flags] {
    invocation.action = [&invocation, health_flags] {
      return health_flags->probe.empty() ? HealthOfAll(invocation)
                                         : Probe(invocation, *health_flags);
    };
  });
}

}  // namespace quorate::tools
