// What `status` makes of the nodes' answers: one row a member, and what the cluster can bear.
//
// Pure. What a node says of itself comes first; what the leader says of it fills the gaps.
#pragma once

#include <string>
#include <vector>

#include "quorate/v1/cluster.pb.h"
#include "tools/client.h"
#include "tools/output.h"

namespace quorate::tools {

// One endpoint's answer; `response` means something only when `result` is OK.
struct NodeReport {
  std::string endpoint;
  CallResult result;
  v1::StatusResponse response;
};

// NODE ADDRESS ROLE VOTER ZONE TERM COMMIT APPLIED LAG LAST-CONTACT DB-SIZE VERSION HEALTH, by
// name. `color`: HEALTH in green or red.
Table StatusTable(const std::vector<NodeReport>& reports, bool color);

// `3 voters, 2 of them up: tolerates 0 failures`, and what else people must know (no leader, what
// birth lacks); one or more lines, each with a line end.
std::string StatusSummary(const std::vector<NodeReport>& reports);

// Of a response with links: a row for each member, by name, with the round trip to each other one;
// `no` where it does not reach that, `?` where nothing is known.
Table LinkTable(const v1::ListMembersResponse& response);
// How many of the ways work, and its warnings; one or more lines, each with a line end.
std::string LinkSummary(const v1::ListMembersResponse& response);

// `leader`, `follower`, ...
std::string RoleName(v1::NodeRole role);

}  // namespace quorate::tools
