// member add|remove|promote|demote, leader transfer, compact, settings.
#include <sstream>

#include "gmock/gmock.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;

// A node's Cluster service that keeps what it was asked, and fails as it is told.
class FakeChanges final : public v1::Cluster::Service {
 public:
  FakeChanges() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeChanges() override { server_->Shutdown(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void FailNext(std::vector<grpc::Status> failures) {
    const std::lock_guard lock(mutex_);
    failures_.assign(failures.begin(), failures.end());
  }
  // The calls that arrived, as `Method{fields}`.
  std::vector<std::string> calls() {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  void set_voter(bool voter) { voter_ = voter; }
  void set_demoted(bool demoted) { demoted_ = demoted; }
  void set_compacted(std::vector<uint64_t> compacted) {
    const std::lock_guard lock(mutex_);
    compacted_.assign(compacted.begin(), compacted.end());
  }

 private:
  template <typename Request, typename Response>
  grpc::Status Take(const char* method, const Request& request, Response* response) {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::string(method) + "{" + request.ShortDebugString() + "}");
    if (!failures_.empty()) {
      const grpc::Status failure = failures_.front();
      failures_.pop_front();
      if (!failure.ok()) return failure;
    }
    response->mutable_header()->set_leader_id("n2");
    response->mutable_header()->set_term(7);
    return grpc::Status::OK;
  }
  grpc::Status AddMember(grpc::ServerContext*, const v1::AddMemberRequest* request,
                         v1::AddMemberResponse* response) override {
    response->mutable_member()->set_node_id("n4");
    response->mutable_member()->set_store_id("00000000000000a4");
    response->mutable_member()->set_voter(voter_);
    response->mutable_member()->set_demoted(demoted_);
    return Take("Add", *request, response);
  }
  grpc::Status RemoveMember(grpc::ServerContext*, const v1::RemoveMemberRequest* request,
                            v1::RemoveMemberResponse* response) override {
    return Take("Remove", *request, response);
  }
  grpc::Status PromoteMember(grpc::ServerContext*, const v1::PromoteMemberRequest* request,
                             v1::PromoteMemberResponse* response) override {
    return Take("Promote", *request, response);
  }
  grpc::Status DemoteMember(grpc::ServerContext*, const v1::DemoteMemberRequest* request,
                            v1::DemoteMemberResponse* response) override {
    return Take("Demote", *request, response);
  }
  grpc::Status TransferLeadership(grpc::ServerContext*,
                                  const v1::TransferLeadershipRequest* request,
                                  v1::TransferLeadershipResponse* response) override {
    return Take("Transfer", *request, response);
  }
  grpc::Status Compact(grpc::ServerContext*, const v1::CompactRequest* request,
                       v1::CompactResponse* response) override {
    response->set_compacted_revision(request->revision());
    return Take("Compact", *request, response);
  }
  grpc::Status GetSettings(grpc::ServerContext*, const v1::GetSettingsRequest* request,
                           v1::GetSettingsResponse* response) override {
    response->mutable_settings()->set_leases(leases_);
    return Take("GetSettings", *request, response);
  }
  grpc::Status SetSettings(grpc::ServerContext*, const v1::SetSettingsRequest* request,
                           v1::SetSettingsResponse* response) override {
    leases_ = request->leases();
    response->mutable_settings()->set_leases(leases_);
    return Take("SetSettings", *request, response);
  }
  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusResponse* response) override {
    const std::lock_guard lock(mutex_);
    if (!compacted_.empty()) {
      response->set_compacted_revision(compacted_.front());
      if (compacted_.size() > 1) compacted_.pop_front();
    }
    return grpc::Status::OK;
  }

  std::mutex mutex_;
  std::deque<grpc::Status> failures_;
  std::vector<std::string> calls_;
  std::deque<uint64_t> compacted_;
  std::atomic<bool> voter_ = false;
  std::atomic<bool> demoted_ = false;
  std::atomic<bool> leases_ = false;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

grpc::Status Refusal(grpc::StatusCode code, const std::string& reason) {
  return services::MakeError(code, reason, "because");
}

class CliMemberTest : public testing::Test {
 protected:
  int Quorate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"quorate", "--endpoints", node_.address(), "--timeout", "20s"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    out_ = out.str();
    err_ = err.str();
    return exit;
  }
  std::string out_, err_;
  FakeChanges node_;
};

TEST_F(CliMemberTest, EachSaysWhatItHasDoneAndWhatComesNext) {
  ASSERT_EQ(Quorate({"member", "add", "10.0.0.4:7000"}), 0) << err_;
  EXPECT_EQ(
      out_,
      "n4 (store 00000000000000a4) is a member and learns; it gets a vote once it has kept up "
      "for a while, unless raft.autopilot.maxVoters vote, or at once by `quorate member "
      "promote n4`\n");
  node_.set_demoted(true);
  ASSERT_EQ(Quorate({"member", "add", "10.0.0.4:7000"}), 0);
  EXPECT_EQ(out_,
            "n4 (store 00000000000000a4) is a member already and was demoted; `quorate member "
            "promote n4` gives it a vote\n");
  node_.set_voter(true);
  ASSERT_EQ(Quorate({"member", "add", "10.0.0.4:7000"}), 0);
  EXPECT_EQ(out_, "n4 is a member already, and votes\n");
  ASSERT_EQ(Quorate({"member", "promote", "n4"}), 0);
  EXPECT_EQ(out_, "n4 votes\n");
  ASSERT_EQ(Quorate({"member", "demote", "n4", "--force"}), 0);
  EXPECT_EQ(out_, "n4 learns and does not vote until it is promoted\n");
  ASSERT_EQ(Quorate({"member", "remove", "n4", "--store", "00000000000000a4"}), 0);
  EXPECT_THAT(out_, HasSubstr("n4 is no member any more"));
  ASSERT_EQ(Quorate({"leader", "transfer", "n2"}), 0);
  EXPECT_EQ(out_, "n2 leads, term 7\n");
  ASSERT_EQ(Quorate({"-o", "raw", "leader", "transfer"}), 0);
  EXPECT_EQ(out_, "n2\n");
  ASSERT_EQ(Quorate({"compact", "--to", "41", "--force"}), 0);
  EXPECT_EQ(out_, "history up to revision 41 is gone\n");
  EXPECT_THAT(node_.calls(),
              testing::ElementsAre(
                  "Add{address: \"10.0.0.4:7000\"}", "Add{address: \"10.0.0.4:7000\"}",
                  "Add{address: \"10.0.0.4:7000\"}", "Promote{node_id: \"n4\"}",
                  "Demote{node_id: \"n4\" force: true}",
                  "Remove{node_id: \"n4\" store_id: \"00000000000000a4\"}",
                  "Transfer{node_id: \"n2\"}", "Transfer{}", "Compact{revision: 41 force: true}"));
  ASSERT_EQ(Quorate({"-q", "member", "remove", "n4"}), 0);
  EXPECT_EQ(out_, "");
  ASSERT_EQ(Quorate({"-o", "json", "leader", "transfer"}), 0);
  EXPECT_THAT(out_, HasSubstr("\"leaderId\": \"n2\""));
}

TEST_F(CliMemberTest, SettingsAreShownAndSet) {
  ASSERT_EQ(Quorate({"settings"}), 0) << err_;
  EXPECT_EQ(out_, "leases off\n");
  // What fails for a moment is asked for again: to set it twice does no harm.
  node_.FailNext({Refusal(grpc::StatusCode::UNAVAILABLE, "NO_LEADER"), grpc::Status::OK});
  ASSERT_EQ(Quorate({"settings", "--leases", "on"}), 0) << err_;
  EXPECT_EQ(out_, "leases on\n");
  ASSERT_EQ(Quorate({"-o", "json", "settings"}), 0);
  EXPECT_THAT(out_, HasSubstr("\"leases\": true"));
  ASSERT_EQ(Quorate({"settings", "--leases", "off"}), 0);
  EXPECT_EQ(out_, "leases off\n");
  EXPECT_THAT(node_.calls(), testing::ElementsAre("GetSettings{}", "SetSettings{leases: true}",
                                                  "SetSettings{leases: true}", "GetSettings{}",
                                                  "SetSettings{leases: false}"));
  node_.FailNext({Refusal(grpc::StatusCode::FAILED_PRECONDITION, "WRITE_NOT_UNDERSTOOD")});
  EXPECT_NE(Quorate({"settings", "--leases", "on"}), 0);
  EXPECT_THAT(err_, HasSubstr("WRITE_NOT_UNDERSTOOD"));
  EXPECT_EQ(Quorate({"settings", "--leases", "perhaps"}), kExitUsage);
}

TEST_F(CliMemberTest, PromoteWaitsForACaughtUpLearnerWhenAsked) {
  const grpc::Status behind =
      Refusal(grpc::StatusCode::FAILED_PRECONDITION, "LEARNER_NOT_CAUGHT_UP");
  node_.FailNext({behind, behind});
  ASSERT_EQ(Quorate({"member", "promote", "n4", "--wait"}), 0) << err_;
  EXPECT_EQ(node_.calls().size(), 3u);
  node_.FailNext({behind});
  EXPECT_EQ(Quorate({"member", "promote", "n4"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("LEARNER_NOT_CAUGHT_UP"));
  EXPECT_THAT(err_, HasSubstr("`quorate member promote --wait`"));
}

TEST_F(CliMemberTest, ALongCompactionGoesOnAsLongAsItGetsOn) {
  const grpc::Status late = Refusal(grpc::StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN");
  node_.set_compacted({1, 10, 20});
  node_.FailNext({late, late});
  ASSERT_EQ(Quorate({"compact", "--to", "30"}), 0) << err_;
  EXPECT_EQ(node_.calls().size(), 3u);
  node_.set_compacted({20});
  node_.FailNext({late});
  EXPECT_EQ(Quorate({"compact", "--to", "30"}), kExitUnavailable);
  EXPECT_THAT(err_, HasSubstr("asking for it again does no harm"));
}

// --- Failures ---

TEST_F(CliMemberTest, RefusalsSayWhatToDo) {
  struct Row {
    std::vector<std::string> arguments;
    grpc::StatusCode code;
    std::string reason;
    int exit;
    std::string advice;
  };
  const std::vector<Row> rows = {
      {{"member", "remove", "n9"},
       grpc::StatusCode::NOT_FOUND,
       "MEMBER_NOT_FOUND",
       kExitNotFound,
       "because"},
      {{"member", "remove", "n2"},
       grpc::StatusCode::FAILED_PRECONDITION,
       "WOULD_LOSE_QUORUM",
       kExitError,
       "--force does it all the same"},
      {{"member", "demote", "n2"},
       grpc::StatusCode::DEADLINE_EXCEEDED,
       "OUTCOME_UNKNOWN",
       kExitUnavailable,
       "see `quorate member list`"},
      {{"compact", "--to", "3"},
       grpc::StatusCode::FAILED_PRECONDITION,
       "PAGE_TOKEN_PINS",
       kExitError,
       "--force compacts all the same"},
      {{"compact", "--to", "3"},
       grpc::StatusCode::OUT_OF_RANGE,
       "REVISION_IN_FUTURE",
       kExitError,
       "because"},
      {{"leader", "transfer", "n2"},
       grpc::StatusCode::FAILED_PRECONDITION,
       "TARGET_SILENT",
       kExitError,
       "because"},
  };
  for (const Row& row : rows) {
    node_.FailNext({Refusal(row.code, row.reason)});
    EXPECT_EQ(Quorate(row.arguments), row.exit) << row.reason;
    EXPECT_THAT(err_, HasSubstr(row.reason));
    EXPECT_THAT(err_, HasSubstr(row.advice));
  }
}

TEST_F(CliMemberTest, ABrokenRemovalIsNotRepeatedByTheCommand) {
  node_.FailNext({grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection reset")});
  EXPECT_EQ(Quorate({"member", "remove", "n4"}), kExitUnavailable);
  EXPECT_THAT(err_, HasSubstr("may or may not have been done"));
  EXPECT_EQ(node_.calls().size(), 1u);
}

TEST_F(CliMemberTest, UsageIsChecked) {
  EXPECT_EQ(Quorate({"member", "add"}), kExitUsage);
  EXPECT_EQ(Quorate({"member", "remove"}), kExitUsage);
  EXPECT_EQ(Quorate({"leader"}), kExitUsage);
  EXPECT_EQ(Quorate({"compact"}), kExitUsage);
  EXPECT_EQ(Quorate({"compact", "--to", "0"}), kExitUsage);
  EXPECT_EQ(Quorate({"compact", "--to", "-3"}), kExitUsage);
  EXPECT_TRUE(node_.calls().empty());
}

}  // namespace
}  // namespace quorate::tools
