// member add, remove, promote, demote; leader transfer; compact.
#include <atomic>
#include <thread>

#include "services/errors.h"
#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

struct MemberFlags {
  std::string address;
  std::string node;
  std::string store;
  bool force = false;
  bool wait = false;
};

struct CompactFlags {
  uint64_t to = 0;
  bool force = false;
};

constexpr char kLate[] = "CHANGE_DEADLINE";

std::string ReasonOf(const CallResult& result) { return services::DetailsOf(result.status).reason; }

// What to do next, where it is not what every command says.
std::string ChangeAdvice(const CallResult& result) {
  const std::string reason = ReasonOf(result);
  if (!result.outcome_known || reason == "OUTCOME_UNKNOWN") {
    return "it may or may not have been done: see `quorate member list`; asking for it again does "
           "no harm";
  }
  if (reason == "LEARNER_NOT_CAUGHT_UP") {
    return "nothing was changed: `quorate member promote --wait` tries until it is caught up";
  }
  if (reason == "NODE_SILENT") {
    return "nothing was changed: see the node's own log, then try again";
  }
  if (reason == "WOULD_LOSE_QUORUM") {
    return "nothing was changed: see `quorate status`; --force does it all the same";
  }
  if (reason == "PAGE_TOKEN_PINS") {
    const bool begun = services::DetailsOf(result.status).metadata.contains("compacted_revision");
    return std::string(begun ? "" : "nothing was changed: ") + "--force compacts all the same";
  }
  if (reason == "ADVERTISED_ADDRESS_WRONG") return "nothing was changed";
  return "";
}

int ReportChange(Invocation& invocation, const std::string& what, CallResult result) {
  const std::string advice = ChangeAdvice(result);
  if (advice.empty()) return Report(invocation.io.err, what, result);
  invocation.io.err << "quorate: " << what << ": " << Describe(result) << "\n  " << advice << '\n';
  return ExitCodeOf(result);
}

void Confirm(Invocation& invocation, const std::string& text) {
  const bool wanted = !invocation.structured() && invocation.format != OutputFormat::kRaw;
  if (wanted && !invocation.globals.quiet) invocation.io.out << text << '\n';
}

// One call, which may be repeated without harm or, as a write, may not; prints the response when
// JSON or YAML was asked for.
template <typename Request, typename Response>
CallResult Call(Invocation& invocation, Client& client, CallKind kind,
                grpc::Status (v1::Cluster::Stub::*method)(grpc::ClientContext*, const Request&,
                                                          Response*),
                const Request& request, Response* response) {
  grpc::Status refused;
  CallResult result = client.Run(kind, [&](Endpoint& endpoint, grpc::ClientContext* context) {
    grpc::Status status = (endpoint.cluster.get()->*method)(context, request, response);
    const std::string reason = services::DetailsOf(status).reason;
    if (!reason.empty() && reason != kLate) refused = status;
    return status;
  });
  // Refused again and again until the time was over: why says more than that it is over. (That the
  // node says, if it is quicker than gRPC.)
  const std::string reason = ReasonOf(result);
  if (result.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED &&
      (reason.empty() || reason == kLate) && !refused.ok()) {
    result.status = refused;
    if (reason.empty()) result.outcome_known = false;
  }
  if (result.ok() && invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(*response));
  }
  return result;
}

// --- member ---

int MemberAdd(Invocation& invocation, const MemberFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::AddMemberRequest request;
  request.set_address(flags.address);
  v1::AddMemberResponse response;
  const CallResult result =
      Call(invocation, *client, CallKind::kRead, &v1::Cluster::Stub::AddMember, request, &response);
  if (!result.ok()) return ReportChange(invocation, "member add", result);
  const v1::MemberStatus& member = response.member();
  const std::string name = Printable(member.node_id());
  Confirm(invocation,
          member.voter() ? name + " is a member already, and votes"
          : member.demoted()
              ? name + " (store " + Printable(member.store_id()) +
                    ") is a member already and was demoted; `quorate member promote " + name +
                    "` gives it a vote"
              : name + " (store " + Printable(member.store_id()) +
                    ") is a member and learns; it gets a vote once it has kept up for a while, "
                    "unless raft.autopilot.maxVoters vote, or at once by `quorate member promote " +
                    name + "`");
  return kExitOk;
}

int MemberRemove(Invocation& invocation, const MemberFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::RemoveMemberRequest request;
  request.set_node_id(flags.node);
  request.set_force(flags.force);
  request.set_store_id(flags.store);
  v1::RemoveMemberResponse response;
  const CallResult result = Call(invocation, *client, CallKind::kWrite,
                                 &v1::Cluster::Stub::RemoveMember, request, &response);
  if (!result.ok()) return ReportChange(invocation, "member remove", result);
  Confirm(invocation, Printable(flags.node) +
                          " is no member any more: stop its process; its data directory is of no "
                          "more use");
  return kExitOk;
}

int MemberPromote(Invocation& invocation, const MemberFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::PromoteMemberRequest request;
  request.set_node_id(flags.node);
  v1::PromoteMemberResponse response;
  const auto until = std::chrono::steady_clock::now() + invocation.timeout;
  CallResult result;
  while (true) {
    result = Call(invocation, *client, CallKind::kRead, &v1::Cluster::Stub::PromoteMember, request,
                  &response);
    const bool behind = !result.ok() && ReasonOf(result) == "LEARNER_NOT_CAUGHT_UP";
    if (!flags.wait || !behind || std::chrono::steady_clock::now() >= until) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!result.ok()) return ReportChange(invocation, "member promote", result);
  Confirm(invocation, Printable(flags.node) + " votes");
  return kExitOk;
}

int MemberDemote(Invocation& invocation, const MemberFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::DemoteMemberRequest request;
  request.set_node_id(flags.node);
  request.set_force(flags.force);
  v1::DemoteMemberResponse response;
  const CallResult result = Call(invocation, *client, CallKind::kRead,
                                 &v1::Cluster::Stub::DemoteMember, request, &response);
  if (!result.ok()) return ReportChange(invocation, "member demote", result);
  Confirm(invocation, Printable(flags.node) + " learns and does not vote until it is promoted");
  return kExitOk;
}

// --- leader ---

int LeaderTransfer(Invocation& invocation, const MemberFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::TransferLeadershipRequest request;
  request.set_node_id(flags.node);
  v1::TransferLeadershipResponse response;
  const CallResult result =
      Call(invocation, *client, flags.node.empty() ? CallKind::kWrite : CallKind::kRead,
           &v1::Cluster::Stub::TransferLeadership, request, &response);
  if (!result.ok()) return ReportChange(invocation, "leader transfer", result);
  const std::string leader = Printable(response.header().leader_id());
  if (invocation.format == OutputFormat::kRaw) {
    invocation.io.out << leader << '\n';
  } else {
    Confirm(invocation, (leader.empty() ? "another node" : leader) + " leads, term " +
                            std::to_string(response.header().term()));
  }
  return kExitOk;
}

// --- compact ---

// How far the history is compacted, as any node says; nullopt: none does.
std::optional<uint64_t> CompactedAt(Client& client) {
  v1::StatusResponse status;
  const CallResult result = client.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
    return endpoint.cluster->Status(context, v1::StatusRequest(), &status);
  });
  if (!result.ok()) return std::nullopt;
  return status.compacted_revision();
}

// Shows how far it is, until it is told to end.
class CompactProgress {
 public:
  CompactProgress(Invocation& invocation, Client& client, uint64_t from, uint64_t to)
      : client_(client),
        done_(from),
        progress_(invocation.io.err, invocation.io.err_is_terminal && !invocation.globals.quiet,
                  "compact", to > from ? to - from : 0) {
    if (invocation.io.err_is_terminal) thread_ = std::thread([this] { Run(); });
  }
  ~CompactProgress() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    while (!ended_) {
      const std::optional<uint64_t> now = CompactedAt(client_);
      if (now && *now > done_) {
        progress_.Add(*now - done_);
        done_ = *now;
      }
      for (int i = 0; i < 10 && !ended_; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
  }
  Client& client_;
  uint64_t done_;  // the thread's
  Progress progress_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

int Compact(Invocation& invocation, const CompactFlags& flags) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::CompactRequest request;
  request.set_revision(flags.to);
  request.set_force(flags.force);
  v1::CompactResponse response;
  CallResult result;
  {
    uint64_t done = CompactedAt(*client).value_or(0);
    const CompactProgress progress(invocation, *client, done, flags.to);
    while (true) {
      result = Call(invocation, *client, CallKind::kRead, &v1::Cluster::Stub::Compact, request,
                    &response);
      // What a long history needs is more than one call's time: as long as it gets on it goes on.
      if (result.ok() || result.status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) break;
      const uint64_t now = CompactedAt(*client).value_or(0);
      if (now <= done) break;
      done = now;
    }
  }
  if (!result.ok()) return ReportChange(invocation, "compact", result);
  if (invocation.format == OutputFormat::kRaw) {
    invocation.io.out << response.compacted_revision() << '\n';
  } else {
    Confirm(invocation,
            "history up to revision " + std::to_string(response.compacted_revision()) + " is gone");
  }
  return kExitOk;
}

using MemberAction = int (*)(Invocation&, const MemberFlags&);

// A subcommand of `parent` that runs `action` with its own flags.
std::pair<CLI::App*, std::shared_ptr<MemberFlags>> AddAction(CLI::App* parent,
                                                             Invocation& invocation,
                                                             const std::string& name,
                                                             const std::string& description,
                                                             MemberAction action) {
  CLI::App* command = parent->add_subcommand(name, description);
  auto flags = std::make_shared<MemberFlags>();
  command->callback([&invocation, flags, action] {
    invocation.action = [&invocation, flags, action] { return action(invocation, *flags); };
  });
  return {command, flags};
}

}  // namespace

void AddMemberCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* member = app.get_subcommand("member");
  {
    auto [add, flags] =
        AddAction(member, invocation, "add",
                  "let a node in, as a learner: it gets everything, no vote yet", MemberAdd);
    add->add_option("ADDRESS", flags->address, "its peer address, host:port")->required();
  }
  {
    auto [remove, flags] = AddAction(member, invocation, "remove", "take a node out", MemberRemove);
    remove->add_option("NODE", flags->node, "its name")->required();
    remove->add_option("--store", flags->store, "which one, when two stores have that name");
    remove->add_flag("--force", flags->force, "although too few voters would answer");
  }
  {
    auto [promote, flags] =
        AddAction(member, invocation, "promote", "make a learner vote", MemberPromote);
    promote->add_option("NODE", flags->node, "its name")->required();
    promote->add_flag("--wait", flags->wait, "until it is caught up, for --timeout at most");
  }
  {
    auto [demote, flags] =
        AddAction(member, invocation, "demote", "make a voter a learner", MemberDemote);
    demote->add_option("NODE", flags->node, "its name")->required();
    demote->add_flag("--force", flags->force, "although too few voters would answer");
  }
  CLI::App* leader = app.add_subcommand("leader", "who leads");
  leader->require_subcommand(1);
  {
    auto [transfer, flags] =
        AddAction(leader, invocation, "transfer", "hand leadership over; clients notice nothing",
                  LeaderTransfer);
    transfer->add_option("NODE", flags->node, "to whom; without it the follower that is furthest");
  }
  CLI::App* compact =
      app.add_subcommand("compact", "drop the history up to a revision; what is there now stays");
  auto compact_flags = std::make_shared<CompactFlags>();
  compact->add_option("--to", compact_flags->to, "the last revision that is not readable any more")
      ->required()
      ->check(CLI::PositiveNumber);
  compact->add_flag("--force", compact_flags->force,
                    "although a listing of the last ten minutes still reads it");
  compact->callback([&invocation, compact_flags] {
    invocation.action = [&invocation, compact_flags] {
      return Compact(invocation, *compact_flags);
    };
  });
}

}  // namespace quorate::tools
