// status, member list, drain.
#include <chrono>
#include <thread>

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

int MemberList(Invocation& invocation, bool links) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::ListMembersRequest request;
  request.set_links(links);
  v1::ListMembersResponse response;
  const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.cluster->ListMembers(context, request, &response);
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
  if (links) {
    LinkTable(response).Print(out);
    out << LinkSummary(response);
    return kExitOk;
  }
  Table table({"NODE", "STORE", "ADDRESS", "VOTER", "LEADER"});
  for (const v1::MemberStatus& member : response.members()) {
    table.Add({Printable(member.node_id()), Printable(member.store_id()),
               Printable(member.address()),
               member.voter() ? "yes" : (member.demoted() ? "demoted" : "no"),
               member.is_leader() ? "yes" : "no"});
  }
  table.Print(out);
  out << "tolerates " << response.failures_tolerated()
      << (response.failures_tolerated() == 1 ? " failure" : " failures") << " of "
      << response.members_size() << (response.members_size() == 1 ? " member\n" : " members\n");
  return kExitOk;
}

// --- drain ---

struct DrainFlags {
  bool undo = false;
  std::string linger;
};

int Drain(Invocation& invocation, const DrainFlags& flags) {
  const bool undo = flags.undo;
  std::chrono::milliseconds linger(0);
  if (!flags.linger.empty()) {
    const auto parsed = services::ParseDuration(flags.linger);
    if (!parsed) {
      return invocation.Fail(kExitUsage,
                             "drain: --linger " + flags.linger + ": write a time, such as 5s");
    }
    linger = std::chrono::duration_cast<std::chrono::milliseconds>(*parsed);
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  if (client->endpoints().size() > 1 && invocation.globals.node.empty()) {
    return invocation.Fail(kExitUsage,
                           "drain: one node is drained at a time: name it with --node, or give its "
                           "endpoint alone");
  }
  v1::DrainRequest request;
  request.set_undo(undo);
  v1::DrainResponse response;
  const CallResult result = client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.cluster->Drain(context, request, &response);
  });
  if (!result.ok()) return Report(invocation.io.err, "drain", result);
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else if (!invocation.globals.quiet) {
    const std::string node = Printable(response.header().node_id());
    invocation.io.out << node << (undo ? " is in service" : " is drained") << '\n';
  }
  invocation.io.out.flush();
  const auto until = std::chrono::steady_clock::now() + linger;
  const GracefulInterrupts graceful;
  while (!Interrupted() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (Interrupted()) return kExitInterrupted;
  // Who lingers ends the node next, whoever leads then.
  if (undo || !response.leads() || linger.count() > 0) return kExitOk;
  return invocation.Fail(kExitUnhealthy,
                         "drain: it leads on, for no other voter takes over: look at `quorate "
                         "status`. It hands leadership over as soon as one can");
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
  CLI::App* list = member->add_subcommand("list", "names, stores and addresses");
  auto links = std::make_shared<bool>(false);
  list->add_flag("--links", *links, "who reaches whom, and how fast");
  list->callback([&invocation, links] {
    invocation.action = [&invocation, links] { return MemberList(invocation, *links); };
  });

  CLI::App* drain = app.add_subcommand(
      "drain", "take a node out of service without ending it: not ready, does not lead");
  auto drain_flags = std::make_shared<DrainFlags>();
  CLI::Option* undo = drain->add_flag("--undo", drain_flags->undo, "put it back into service");
  drain
      ->add_option("--linger", drain_flags->linger,
                   "then wait so long, as 5s: until balancers have noticed, before it is ended")
      ->excludes(undo);
  drain->callback([&invocation, drain_flags] {
    invocation.action = [&invocation, drain_flags] { return Drain(invocation, *drain_flags); };
  });
}

}  // namespace quorate::tools
