// What the status table makes of what nodes say of themselves and of each other.
#include "tools/status_table.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;

class StatusTableTest : public testing::Test {
 protected:
  // The answer of node-N, of three.
  NodeReport Says(int n, v1::NodeRole role, uint64_t term, const std::string& leader) {
    NodeReport report;
    report.endpoint = "127.0.0.1:808" + std::to_string(n);
    v1::StatusResponse& response = report.response;
    response.mutable_header()->set_node_id("node-" + std::to_string(n));
    response.mutable_header()->set_cluster_id("00000000000000aa");
    response.mutable_header()->set_leader_id(leader);
    response.mutable_header()->set_term(term);
    response.set_role(role);
    response.set_commit_index(100);
    response.set_applied_index(100);
    response.set_database_bytes(4096);
    response.set_version("0.1.0");
    response.set_healthy(true);
    for (int i = 1; i <= 3; ++i) {
      v1::MemberStatus* member = response.add_members();
      member->set_node_id("node-" + std::to_string(i));
      member->set_address("127.0.0.1:700" + std::to_string(i));
      member->set_voter(true);
      member->set_is_leader(member->node_id() == leader);
      if (role == v1::NODE_ROLE_LEADER && i != n) {
        member->set_active(true);
        member->set_match_index(90);
        member->mutable_last_contact()->set_nanos(12'000'000);
      }
    }
    return report;
  }
  NodeReport Silent(int n) {
    NodeReport report;
    report.endpoint = "127.0.0.1:808" + std::to_string(n);
    report.result.status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "cannot connect");
    report.result.reached = false;
    return report;
  }
  std::string Show(const std::vector<NodeReport>& reports, bool color = false) {
    std::ostringstream out;
    StatusTable(reports, color).Print(out);
    return out.str() + StatusSummary(reports);
  }
};

TEST_F(StatusTableTest, AHealthyCluster) {
  NodeReport follower = Says(2, v1::NODE_ROLE_FOLLOWER, 7, "node-1");
  follower.response.set_applied_index(97);
  EXPECT_EQ(
      Show({Says(1, v1::NODE_ROLE_LEADER, 7, "node-1"), follower,
            Says(3, v1::NODE_ROLE_FOLLOWER, 7, "node-1")}),
      "NODE    ADDRESS         ROLE      VOTER  ZONE  TERM  COMMIT  APPLIED  LAG  LAST-CONTACT  "
      "DB-SIZE  VERSION  HEALTH\n"
      "node-1  127.0.0.1:7001  leader    yes    -     7     100     100      0    -             "
      "4.0 KiB  0.1.0    healthy\n"
      "node-2  127.0.0.1:7002  follower  yes    -     7     100     97       3    12ms          "
      "4.0 KiB  0.1.0    healthy\n"
      "node-3  127.0.0.1:7003  follower  yes    -     7     100     100      0    12ms          "
      "4.0 KiB  0.1.0    healthy\n"
      "3 voters, 3 of them up: tolerates 1 failure\n");
}

TEST_F(StatusTableTest, TheLeaderSpeaksForWhoWasNotAsked) {
  EXPECT_EQ(
      Show({Says(1, v1::NODE_ROLE_LEADER, 7, "node-1")}),
      "NODE    ADDRESS         ROLE    VOTER  ZONE  TERM  COMMIT  APPLIED  LAG  LAST-CONTACT  "
      "DB-SIZE  VERSION  HEALTH\n"
      "node-1  127.0.0.1:7001  leader  yes    -     7     100     100      0    -             "
      "4.0 KiB  0.1.0    healthy\n"
      "node-2  127.0.0.1:7002  -       yes    -     -     -       -        10   12ms          "
      "-        -        up\n"
      "node-3  127.0.0.1:7003  -       yes    -     -     -       -        10   12ms          "
      "-        -        up\n"
      "3 voters, 3 of them up: tolerates 1 failure\n");
}

TEST_F(StatusTableTest, ADeadNodeCostsItsFailure) {
  NodeReport leader = Says(1, v1::NODE_ROLE_LEADER, 7, "node-1");
  leader.response.mutable_members(2)->set_active(false);
  const std::string text = Show({leader, Says(2, v1::NODE_ROLE_FOLLOWER, 7, "node-1"), Silent(3)});
  EXPECT_THAT(text, HasSubstr("silent\n3 voters, 2 of them up: tolerates 0 failures\n"));
}

TEST_F(StatusTableTest, TheHighestTermIsBelieved) {
  const std::string text = Show(
      {Says(1, v1::NODE_ROLE_LEADER, 7, "node-1"), Says(2, v1::NODE_ROLE_LEADER, 8, "node-2")});
  EXPECT_THAT(text, HasSubstr("node-3  127.0.0.1:7003  -       yes"));
  // node-1 calls itself leader; it is shown as it says, with its old term.
  EXPECT_THAT(text, HasSubstr("node-1  127.0.0.1:7001  leader  yes    -     7 "));
  EXPECT_THAT(text, HasSubstr("node-2  127.0.0.1:7002  leader  yes    -     8 "));
}

TEST_F(StatusTableTest, HealthIsColoredForATerminalOnly) {
  NodeReport sick = Says(2, v1::NODE_ROLE_FOLLOWER, 7, "node-1");
  sick.response.set_healthy(false);
  sick.response.set_birth(v1::BIRTH_STATE_COMPLETE);
  const std::vector<NodeReport> reports = {Says(1, v1::NODE_ROLE_LEADER, 7, "node-1"), sick};
  EXPECT_THAT(Show(reports, true), HasSubstr("\x1b[32mhealthy\x1b[0m\n"));
  EXPECT_THAT(Show(reports, true), HasSubstr("\x1b[31mnot ready\x1b[0m\n"));
  EXPECT_EQ(Show(reports).find('\x1b'), std::string::npos);
}

// --- Trouble ---

TEST_F(StatusTableTest, WithoutALeaderItSaysSo) {
  const std::string text = Show({Says(1, v1::NODE_ROLE_FOLLOWER, 7, ""), Silent(2), Silent(3)});
  EXPECT_THAT(text, HasSubstr("unknown\n3 voters, 1 of them up: no majority is known to be up: a "
                              "write needs 2\nno leader is known: writes are refused\n"));
}

// One follower alone knows that there is a leader, and not who else is up.
TEST_F(StatusTableTest, WhoAsksAFollowerAloneIsNotFrightened) {
  EXPECT_THAT(Show({Says(1, v1::NODE_ROLE_FOLLOWER, 7, "node-2")}),
              HasSubstr("\n3 voters, node-2 leads: who of them is up it knows. Ask it, or all of "
                        "them (--endpoints)\n"));
  EXPECT_THAT(Show({Says(1, v1::NODE_ROLE_FOLLOWER, 7, "node-2"), Silent(2), Silent(3)}),
              HasSubstr("no majority is known to be up"));
}

TEST_F(StatusTableTest, BeforeBirthItSaysWhatIsMissing) {
  NodeReport unborn;
  unborn.endpoint = "127.0.0.1:8081";
  unborn.response.mutable_header()->set_node_id("node-1");
  unborn.response.set_role(v1::NODE_ROLE_WAITING);
  unborn.response.set_birth(v1::BIRTH_STATE_SEARCHING);
  unborn.response.add_lacks("no answer from node-2");
  const std::string text = Show({unborn});
  EXPECT_THAT(text, HasSubstr("node-1  127.0.0.1:8081  waiting  no"));
  EXPECT_THAT(text, HasSubstr("searching\n"));
  EXPECT_THAT(text, HasSubstr("node-1: no answer from node-2\n"));
}

TEST_F(StatusTableTest, TwoClustersAreNotOne) {
  NodeReport other = Says(2, v1::NODE_ROLE_LEADER, 3, "node-2");
  other.response.mutable_header()->set_cluster_id("00000000000000bb");
  EXPECT_THAT(Show({Says(1, v1::NODE_ROLE_LEADER, 7, "node-1"), other}),
              HasSubstr("the endpoints belong to 2 different clusters"));
}

TEST_F(StatusTableTest, NobodyAnswers) { EXPECT_EQ(StatusSummary({Silent(1)}), ""); }

// --- Links ---

v1::ListMembersResponse LinkedMembers() {
  v1::ListMembersResponse response;
  for (const char* name : {"cp-1", "cp-0", "cp-2"}) {
    v1::MemberStatus* const member = response.add_members();
    member->set_node_id(name);
    member->set_store_id(name);
  }
  const auto link = [&](int from, int to, bool reached, int64_t us) {
    v1::LinkStatus* const link = response.mutable_members(from)->add_links();
    link->set_node_id(response.members(to).node_id());
    link->set_store_id(response.members(to).store_id());
    link->set_reached(reached);
    link->mutable_round_trip()->set_seconds(us / 1'000'000);
    link->mutable_round_trip()->set_nanos(static_cast<int32_t>(us % 1'000'000 * 1000));
  };
  link(1, 0, true, 412);
  link(1, 2, true, 1390);
  link(0, 1, false, 0);
  link(0, 2, true, 35'100);
  response.add_warnings("one-way link: cp-0 reaches cp-1, cp-1 does not reach cp-0");
  return response;
}

TEST(LinkTable, ShowsWhoReachesWhom) {
  std::ostringstream out;
  LinkTable(LinkedMembers()).Print(out);
  EXPECT_EQ(out.str(),
            "FROM  cp-0  cp-1   cp-2\n"
            "cp-0  -     412us  1.3ms\n"
            "cp-1  no    -      35ms\n"
            "cp-2  ?     ?      -\n");
  EXPECT_EQ(LinkSummary(LinkedMembers()),
            "3 of 6 ways work, of 2 nothing is known here\n"
            "one-way link: cp-0 reaches cp-1, cp-1 does not reach cp-0\n");
  EXPECT_EQ(LinkSummary(v1::ListMembersResponse()), "0 of 0 ways work\n");
}

}  // namespace
}  // namespace quorate::tools
