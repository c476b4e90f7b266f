#include "tools/status_table.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "tools/text.h"

namespace quorate::tools {
namespace {

// The answer whose view of the members counts: the leader's of the highest term, else the one that
// knows the highest term. nullptr: nobody answered.
const v1::StatusResponse* BestView(const std::vector<NodeReport>& reports) {
  const v1::StatusResponse* best = nullptr;
  const auto rank = [](const v1::StatusResponse& response) {
    return std::pair(response.header().term(), response.role() == v1::NODE_ROLE_LEADER);
  };
  for (const NodeReport& report : reports) {
    if (!report.result.ok()) continue;
    if (best == nullptr || rank(report.response) > rank(*best)) best = &report.response;
  }
  return best;
}

uint64_t HighestCommit(const std::vector<NodeReport>& reports) {
  uint64_t commit = 0;
  for (const NodeReport& report : reports) {
    if (report.result.ok()) commit = std::max(commit, report.response.commit_index());
  }
  return commit;
}

const v1::StatusResponse* ReportOf(const std::vector<NodeReport>& reports,
                                   const std::string& node_id) {
  for (const NodeReport& report : reports) {
    if (report.result.ok() && report.response.header().node_id() == node_id) {
      return &report.response;
    }
  }
  return nullptr;
}

std::string Color(bool color, bool good, const std::string& text) {
  if (!color) return text;
  return (good ? "\x1b[32m" : "\x1b[31m") + text + "\x1b[0m";
}

std::string BirthName(v1::BirthState birth) {
  switch (birth) {
    case v1::BIRTH_STATE_SEARCHING:
      return "searching";
    case v1::BIRTH_STATE_PLEDGED:
      return "pledged";
    case v1::BIRTH_STATE_BORN:
      return "born";
    case v1::BIRTH_STATE_WAITING_TO_JOIN:
      return "waiting";
    case v1::BIRTH_STATE_STOPPED:
      return "stopped";
    default:
      return "not ready";
  }
}

std::string Contact(const v1::MemberStatus& member) {
  if (!member.has_last_contact()) return "";
  return FormatDuration(std::chrono::milliseconds(member.last_contact().seconds() * 1000 +
                                                  member.last_contact().nanos() / 1'000'000));
}

std::string LagOf(uint64_t commit, uint64_t index) {
  return std::to_string(commit > index ? commit - index : 0);
}

// A node measures its files every few seconds: what it has not measured yet is not "0 B".
std::string SizeOf(uint64_t bytes) { return bytes == 0 ? "" : FormatBytes(bytes); }

// `leader_view`: whether `member` is what the leader itself says of its members.
std::vector<std::string> Row(const v1::MemberStatus& member, bool leader_view,
                             const v1::StatusResponse* own, uint64_t commit, bool color) {
  std::vector<std::string> row = {Printable(member.node_id()), Printable(member.address())};
  const std::string voter = member.voter() ? "yes" : member.demoted() ? "demoted" : "no";
  if (own == nullptr) {
    const bool knows = leader_view && !member.is_leader();
    row.insert(row.end(),
               {member.is_leader() ? "leader" : "", voter, "", "", "", "",
                knows && member.match_index() > 0 ? LagOf(commit, member.match_index()) : "",
                leader_view ? Contact(member) : "", "", "",
                leader_view ? Color(color, member.active(), member.active() ? "up" : "silent")
                            : "unknown"});
    return row;
  }
  const std::string health = own->draining()  ? "drained"
                             : own->healthy() ? "healthy"
                                              : BirthName(own->birth());
  row.insert(row.end(), {RoleName(own->role()), voter, "", std::to_string(own->header().term()),
                         std::to_string(own->commit_index()), std::to_string(own->applied_index()),
                         LagOf(commit, own->applied_index()),
                         own->role() == v1::NODE_ROLE_LEADER || !leader_view ? "" : Contact(member),
                         SizeOf(own->database_bytes()), Printable(own->version()),
                         Color(color, own->healthy(), health)});
  return row;
}

}  // namespace

std::string RoleName(v1::NodeRole role) {
  switch (role) {
    case v1::NODE_ROLE_FOLLOWER:
      return "follower";
    case v1::NODE_ROLE_CANDIDATE:
      return "candidate";
    case v1::NODE_ROLE_LEADER:
      return "leader";
    case v1::NODE_ROLE_WAITING:
      return "waiting";
    default:
      return "";
  }
}

Table StatusTable(const std::vector<NodeReport>& reports, bool color) {
  Table table({"NODE", "ADDRESS", "ROLE", "VOTER", "ZONE", "TERM", "COMMIT", "APPLIED", "LAG",
               "LAST-CONTACT", "DB-SIZE", "VERSION", "HEALTH"});
  const v1::StatusResponse* view = BestView(reports);
  if (view == nullptr) return table;
  const uint64_t commit = HighestCommit(reports);
  std::map<std::string, v1::MemberStatus> members;
  for (const v1::MemberStatus& member : view->members()) members[member.node_id()] = member;
  // A node that is no member (not born, or waiting to join) still has something to say of itself.
  for (const NodeReport& report : reports) {
    const std::string& name = report.response.header().node_id();
    if (!report.result.ok() || members.contains(name)) continue;
    v1::MemberStatus& member = members[name];
    member.set_node_id(name);
    member.set_address(report.endpoint);
  }
  for (const auto& [name, member] : members) {
    table.Add(
        Row(member, view->role() == v1::NODE_ROLE_LEADER, ReportOf(reports, name), commit, color));
  }
  return table;
}

std::string StatusSummary(const std::vector<NodeReport>& reports) {
  const v1::StatusResponse* view = BestView(reports);
  if (view == nullptr) return "";
  std::string text;
  size_t voters = 0, up = 0;
  const bool leader_view = view->role() == v1::NODE_ROLE_LEADER;
  for (const v1::MemberStatus& member : view->members()) {
    if (!member.voter()) continue;
    ++voters;
    const v1::StatusResponse* own = ReportOf(reports, member.node_id());
    if (own != nullptr || (leader_view && member.active())) ++up;
  }
  const auto count = [](size_t number, const std::string& what) {
    return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
  };
  const std::string leader = Printable(view->header().leader_id());
  const size_t majority = voters / 2 + 1;
  if (up < majority && reports.size() < majority && !leader_view && !leader.empty()) {
    text += count(voters, "voter") + ", " + leader +
            " leads: who of them is up it knows. Ask it, or all of them (--endpoints)\n";
  } else if (voters > 0) {
    text += count(voters, "voter") + ", " + std::to_string(up) + " of them up: ";
    text += up >= majority
                ? "tolerates " + count(up - majority, "failure")
                : "no majority is known to be up: a write needs " + std::to_string(majority);
    text += '\n';
  }
  if (view->header().leader_id().empty()) {
    text += "no leader is known: writes are refused\n";
  }
  for (const NodeReport& report : reports) {
    if (!report.result.ok()) continue;
    for (const std::string& lack : report.response.lacks()) {
      text += Printable(report.response.header().node_id()) + ": " + Printable(lack) + '\n';
    }
  }
  for (const std::string& warning : view->warnings()) text += Printable(warning) + '\n';
  std::set<std::string> clusters;
  for (const NodeReport& report : reports) {
    if (report.result.ok() && !report.response.header().cluster_id().empty()) {
      clusters.insert(report.response.header().cluster_id());
    }
  }
  if (clusters.size() > 1) {
    text += "the endpoints belong to " + std::to_string(clusters.size()) +
            " different clusters: name those of one\n";
  }
  return text;
}

namespace {

std::string RoundTrip(const google::protobuf::Duration& time) {
  const int64_t us = time.seconds() * 1'000'000 + time.nanos() / 1000;
  if (us < 1000) return std::to_string(us) + "us";
  if (us < 10'000) return std::to_string(us / 1000) + "." + std::to_string(us % 1000 / 100) + "ms";
  return FormatDuration(std::chrono::milliseconds(us / 1000));
}

// Null: nothing is known.
const v1::LinkStatus* LinkTo(const v1::MemberStatus& from, const v1::MemberStatus& to) {
  for (const v1::LinkStatus& link : from.links()) {
    if (link.store_id() == to.store_id()) return &link;
  }
  return nullptr;
}

}  // namespace

Table LinkTable(const v1::ListMembersResponse& response) {
  std::vector<const v1::MemberStatus*> members;
  for (const v1::MemberStatus& member : response.members()) members.push_back(&member);
  std::sort(members.begin(), members.end(), [](const auto* one, const auto* other) {
    return std::pair(one->node_id(), one->store_id()) <
           std::pair(other->node_id(), other->store_id());
  });
  std::vector<std::string> headings = {"FROM"};
  for (const v1::MemberStatus* to : members) headings.push_back(Printable(to->node_id()));
  Table table(std::move(headings));
  for (const v1::MemberStatus* from : members) {
    std::vector<std::string> row = {Printable(from->node_id())};
    for (const v1::MemberStatus* to : members) {
      const v1::LinkStatus* const link = LinkTo(*from, *to);
      row.push_back(from == to        ? ""
                    : link == nullptr ? "?"
                    : link->reached() ? RoundTrip(link->round_trip())
                                      : "no");
    }
    table.Add(std::move(row));
  }
  return table;
}

std::string LinkSummary(const v1::ListMembersResponse& response) {
  const size_t members = static_cast<size_t>(response.members_size());
  size_t reached = 0, unknown = 0;
  for (const v1::MemberStatus& from : response.members()) {
    for (const v1::MemberStatus& to : response.members()) {
      if (from.store_id() == to.store_id()) continue;
      const v1::LinkStatus* const link = LinkTo(from, to);
      unknown += link == nullptr ? 1 : 0;
      reached += link != nullptr && link->reached() ? 1 : 0;
    }
  }
  std::string text = std::to_string(reached) + " of " +
                     std::to_string(members == 0 ? 0 : members * (members - 1)) + " ways work";
  if (unknown > 0) text += ", of " + std::to_string(unknown) + " nothing is known here";
  text += '\n';
  for (const std::string& warning : response.warnings()) text += Printable(warning) + '\n';
  return text;
}

}  // namespace quorate::tools
