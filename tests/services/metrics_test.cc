#include "services/metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace quorate::services {
namespace {

bool HasLine(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, ShowsTheSeedsFive) {
  Metrics metrics("node-3", "0.1.0");
  metrics.SetSampler([] {
    MetricsSample sample;
    sample.running = true;
    sample.role = raft::Role::kLeader;
    sample.term = raft::Term(7);
    sample.election_timeout = std::chrono::milliseconds(187);
    sample.commit = raft::Index(41);
    sample.applied = raft::Index(40);
    sample.peers_lost_data = 1;
    sample.peers_need_snapshot = 2;
    sample.leases = true;
    sample.lease_answers = 3;
    return sample;
  });
  const std::string text = metrics.Text();
  EXPECT_TRUE(HasLine(text, "raft_current_term 7")) << text;
  EXPECT_TRUE(HasLine(text, "raft_state{node=\"node-3\",state=\"leader\"} 1")) << text;
  EXPECT_TRUE(HasLine(text, "raft_state{node=\"node-3\",state=\"follower\"} 0")) << text;
  EXPECT_TRUE(HasLine(text, "raft_state{node=\"node-3\",state=\"candidate\"} 0")) << text;
  EXPECT_TRUE(HasLine(text, "raft_election_timeout_seconds 0.187")) << text;
  EXPECT_TRUE(HasLine(text, "raft_commit_index 41")) << text;
  EXPECT_TRUE(HasLine(text, "raft_applied_index 40")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_peers_lost_data 1")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_peers_need_snapshot 2")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_leases 1")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_lease_answers_total 3")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_build_info{version=\"0.1.0\"} 1")) << text;
}

TEST(Metrics, ShowsHowFarRequestIdsReach) {
  Metrics metrics("n", "v");
  metrics.SetSampler([] {
    MetricsSample sample;
    sample.running = true;
    sample.ttls = 4;
    sample.ttl_keys = 5;
    sample.expired_ttls = 6;
    sample.request_ids = 3;
    sample.request_ids_reach_ms = 1500;
    sample.request_ids_expired_through = Revision(17);
    return sample;
  });
  const std::string text = metrics.Text();
  EXPECT_TRUE(HasLine(text, "quorate_ttl_grants 4")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_ttl_keys 5")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_ttl_expired_total 6")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_request_ids 3")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_request_ids_reach_seconds 1.5")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_request_ids_expired_revision 17")) << text;
}

TEST(Metrics, EachRoleIsExactlyOneState) {
  Metrics metrics("n", "v");
  const std::pair<raft::Role, std::string> kCases[] = {{raft::Role::kFollower, "follower"},
                                                       {raft::Role::kPreCandidate, "candidate"},
                                                       {raft::Role::kCandidate, "candidate"},
                                                       {raft::Role::kLeader, "leader"}};
  for (const auto& [role, state] : kCases) {
    metrics.SetSampler([role = role] {
      MetricsSample sample;
      sample.running = true;
      sample.role = role;
      return sample;
    });
    const std::string text = metrics.Text();
    for (const std::string each : {"leader", "follower", "candidate"}) {
      EXPECT_TRUE(HasLine(
          text, "raft_state{node=\"n\",state=\"" + each + "\"} " + (each == state ? "1" : "0")))
          << state;
    }
  }
}

TEST(Metrics, CountsCallsByMethodAndCode) {
  Metrics metrics("n", "v");
  metrics.RecordRequest("quorate.v1.Config/Get", grpc::StatusCode::OK, Duration(700));
  metrics.RecordRequest("quorate.v1.Config/Get", grpc::StatusCode::OK, Duration(3));
  metrics.RecordRequest("quorate.v1.Config/Get", grpc::StatusCode::NOT_FOUND, Duration(3));
  const std::string text = metrics.Text();
  EXPECT_TRUE(
      HasLine(text, "quorate_requests_total{code=\"OK\",method=\"quorate.v1.Config/Get\"} 2"))
      << text;
  EXPECT_TRUE(HasLine(
      text, "quorate_requests_total{code=\"NOT_FOUND\",method=\"quorate.v1.Config/Get\"} 1"));
  EXPECT_TRUE(HasLine(
      text,
      "quorate_request_duration_seconds_bucket{method=\"quorate.v1.Config/Get\",le=\"0.001\"} 3"))
      << text;
}

TEST(Metrics, RecordsTheLog) {
  Metrics metrics("n", "v");
  metrics.RecordLogSync(std::chrono::microseconds(60), 1000);
  metrics.RecordLogSync(std::chrono::milliseconds(60), 24);
  metrics.RecordApply(std::chrono::milliseconds(1), 64);
  metrics.RecordTermChange();
  const std::string text = metrics.Text();
  EXPECT_TRUE(HasLine(text, "quorate_log_sync_duration_seconds_count 2")) << text;
  EXPECT_TRUE(HasLine(text, "quorate_log_sync_duration_seconds_bucket{le=\"0.0001\"} 1"));
  EXPECT_TRUE(HasLine(text, "quorate_log_entry_bytes_written_total 1024"));
  EXPECT_TRUE(HasLine(text, "quorate_applied_entries_total 64"));
  EXPECT_TRUE(HasLine(text, "quorate_term_changes_total 1"));
  EXPECT_TRUE(HasLine(text, "quorate_leader_changes_total 0"));
}

TEST(Metrics, CountsChangesOfTheMembersAndTransfers) {
  Metrics metrics("n", "v");
  metrics.RecordMemberChange("add", "done");
  metrics.RecordMemberChange("add", "done");
  metrics.RecordMemberChange("remove", "refused");
  metrics.RecordMemberChange("transfer", "unknown");
  metrics.RecordMemberChange("something", "done");
  metrics.RecordMemberChange("add", "somehow");
  const std::string text = metrics.Text();
  EXPECT_TRUE(HasLine(text, "quorate_member_changes_total{kind=\"add\",result=\"done\"} 2"))
      << text;
  EXPECT_TRUE(HasLine(text, "quorate_member_changes_total{kind=\"remove\",result=\"refused\"} 1"));
  EXPECT_TRUE(HasLine(text, "quorate_member_changes_total{kind=\"demote\",result=\"done\"} 0"))
      << "there before the first one";
  EXPECT_TRUE(HasLine(text, "quorate_leadership_transfers_total{result=\"unknown\"} 1"));
  EXPECT_TRUE(HasLine(text, "quorate_leadership_transfers_total{result=\"done\"} 0"));
  EXPECT_EQ(text.find("somehow"), std::string::npos);
}

// The naming rules that promtool checks, and ours: the seed's five, everything else quorate_*.
TEST(Metrics, EveryNameFollowsTheRules) {
  Metrics metrics("n", "v");
  metrics.RecordRequest("m", grpc::StatusCode::OK, Duration(1));
  metrics.SetSampler([] { return MetricsSample(); });
  const std::set<std::string> seed = {"raft_current_term", "raft_state",
                                      "raft_election_timeout_seconds", "raft_commit_index",
                                      "raft_applied_index"};
  std::istringstream lines(metrics.Text());
  std::set<std::string> helped;
  size_t families = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name, type;
    words >> hash >> kind >> name >> type;
    if (hash != "#") continue;
    if (kind == "HELP") helped.insert(name);
    if (kind != "TYPE") continue;
    ++families;
    EXPECT_TRUE(helped.contains(name)) << name;
    EXPECT_TRUE(seed.contains(name) || name.rfind("quorate_", 0) == 0) << name;
    EXPECT_EQ(name.size() > 6 && name.substr(name.size() - 6) == "_total", type == "counter")
        << name;
    if (type == "histogram") {
      EXPECT_EQ(name.substr(name.size() - 8), "_seconds") << name;
    }
    for (const char* unit : {"_ms", "_us", "milli", "micro", "_kb", "_mb"}) {
      EXPECT_EQ(name.find(unit), std::string::npos) << name;
    }
  }
  EXPECT_GT(families, 30u);
}

// --- Errors ---

TEST(Metrics, BeforeBirthTheStatesAreAllZero) {
  Metrics metrics("n", "v");
  metrics.SetSampler([] { return MetricsSample(); });
  const std::string text = metrics.Text();
  for (const std::string each : {"leader", "follower", "candidate"}) {
    EXPECT_TRUE(HasLine(text, "raft_state{node=\"n\",state=\"" + each + "\"} 0"));
  }
}

TEST(Metrics, AfterTheSamplerIsTakenAwayOnlyEventsAreLeft) {
  Metrics metrics("n", "v");
  metrics.SetSampler([] { return MetricsSample(); });
  metrics.SetSampler(nullptr);
  EXPECT_EQ(metrics.Text().find("raft_"), std::string::npos);
  EXPECT_NE(metrics.Text().find("quorate_build_info"), std::string::npos);
}

}  // namespace
}  // namespace quorate::services
