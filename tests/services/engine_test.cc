#include "services/engine.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "raft/birth_record.h"
#include "raft/core/membership.h"
#include "storage/log.h"

namespace quorate::services {
namespace {

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/quorate-engine-test-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
    auto directory = storage::DataDirectory::Open(disk_.get(), root_ + "/data", "n1");
    ASSERT_TRUE(directory.ok()) << directory.status();
    directory_ = *std::move(directory);
    ASSERT_TRUE(directory_->identity()->NextBoot().ok());
    raft::Membership membership;
    membership.cluster = ClusterId(0xC1);
    membership.members = {{.store = directory_->identity()->current().store,
                           .name = "n1",
                           .address = "",
                           .voter = true}};
    birth_.cluster = membership.cluster;
    birth_.first_entry = raft::FirstEntry(raft::EncodeMembership(membership));
    ASSERT_TRUE(directory_->identity()->SetBorn(birth_.cluster, "record").ok());
  }
  void TearDown() override {
    directory_.reset();
    std::filesystem::remove_all(root_);
  }

  absl::Status Create() { return Engine::Create(disk_.get(), directory_.get(), birth_); }
  absl::StatusOr<std::unique_ptr<Engine>> Open(
      Duration election_timeout_min = std::chrono::milliseconds(150)) {
    EngineOptions options;
    options.heartbeat_interval = std::chrono::milliseconds(50);
    options.election_timeout_min = election_timeout_min;
    options.election_timeout_max = 2 * election_timeout_min;
    options.seed = 1;
    options.session_nonce = 1;
    return Engine::Open(options, {.disk = disk_.get(),
                                  .directory = directory_.get(),
                                  .channels = &channels_,
                                  .metrics = &metrics_,
                                  .status_changed = [](const raft::NodeStatus&) {}});
  }

  const std::unique_ptr<storage::Disk> disk_ = storage::MakePosixDisk();
  std::string root_;
  std::unique_ptr<storage::DataDirectory> directory_;
  PeerDirectory addresses_;
  PeerChannels channels_{&addresses_};
  Metrics metrics_{"n1", "test"};
  raft::BirthOutput::CreateLog birth_;
};

TEST_F(EngineTest, ABornStoreOpensWithItsFirstEntry) {
  ASSERT_TRUE(Create().ok());
  EXPECT_TRUE(directory_->identity()->current().log_made);
  const auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto status = (*engine)->node()->status();
  EXPECT_EQ(status->last_index, raft::Index(1));
  EXPECT_EQ(status->term, raft::Term(1));
  ASSERT_NE(status->membership, nullptr);
  EXPECT_EQ(status->membership->cluster, ClusterId(0xC1));
  EXPECT_EQ((*engine)->state()->Summary().revision, Revision(1));
}

TEST_F(EngineTest, AStoreThatWasLetInOpensWithNothing) {
  birth_.first_entry = nullptr;
  ASSERT_TRUE(Create().ok());
  EXPECT_TRUE(directory_->identity()->current().log_made);
  for (int start = 0; start < 2; ++start) {
    const auto engine = Open();
    ASSERT_TRUE(engine.ok()) << engine.status();
    const auto status = (*engine)->node()->status();
    EXPECT_EQ(status->last_index, raft::Index(0));
    EXPECT_EQ(status->term, raft::Term(0));
    EXPECT_EQ(status->role, raft::Role::kFollower);
    EXPECT_TRUE(status->membership == nullptr || status->membership->members.empty());
    EXPECT_EQ((*engine)->state()->Summary().applied, raft::Index(0));
    EXPECT_FALSE((*engine)->state()->leases());
  }
}

// The old half of a joint membership must not be forgotten (etcd-raft e515a67): its majority counts
// until the joint phase ends, whether the entry is only in the log or applied.
TEST_F(EngineTest, AJointMembershipOutlivesARestart) {
  ASSERT_TRUE(Create().ok());
  const StoreId self = directory_->identity()->current().store;
  raft::Membership joint;
  joint.cluster = birth_.cluster;
  joint.joint = true;
  joint.members = {
      {.store = self, .name = "n1", .address = "", .outgoing_voter = true},
      {.store = StoreId(self.value() / 2), .name = "n2", .address = "", .voter = true}};
  if (joint.members[1].store < self) std::swap(joint.members[0], joint.members[1]);
  ASSERT_EQ(raft::BrokenRule(joint), nullptr);
  auto entry = std::make_shared<raft::Entry>();
  entry->index = raft::Index(2);
  entry->term = raft::Term(1);
  entry->type = raft::EntryType::kMembership;
  entry->payload = raft::EncodeMembership(joint);
  {
    storage::LogOptions options;
    options.directory = directory_->log_directory();
    options.cluster = birth_.cluster;
    options.store = self;
    auto log = storage::Log::Open(disk_.get(), options,
                                  [](uint64_t) { return absl::StatusOr<raft::Index>(0); });
    ASSERT_TRUE(log.ok()) << log.status();
    raft::Persist persist;
    persist.entries = {entry};
    ASSERT_TRUE(log->first->Append(persist).ok() && log->first->Sync().ok());
  }
  for (const bool applied : {false, true}) {
    const auto engine = Open();
    ASSERT_TRUE(engine.ok()) << engine.status();
    const auto status = (*engine)->node()->status();
    ASSERT_NE(status->membership, nullptr);
    EXPECT_EQ(*status->membership, joint);
    EXPECT_EQ(status->membership_index, raft::Index(2));
    EXPECT_EQ((*engine)->state()->Summary().membership_index, raft::Index(applied ? 2 : 0));
    if (!applied) {
      ASSERT_TRUE((*engine)->state()->Apply({birth_.first_entry, entry}).ok());
    }
  }
}

TEST_F(EngineTest, ACreationThatWasKilledIsBegunAgain) {
  ASSERT_TRUE(Create().ok());
  // A process that was killed before it could say that the log is made leaves all of it, or some.
  directory_.reset();
  const std::string identity = storage::IdentityPath(root_ + "/data");
  std::ifstream in(identity);
  auto decoded = storage::DecodeIdentity(
      std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()));
  ASSERT_TRUE(decoded.ok());
  decoded->log_made = false;
  std::ofstream(identity) << storage::EncodeIdentity(*decoded);
  auto directory = storage::DataDirectory::Open(disk_.get(), root_ + "/data", "n1");
  ASSERT_TRUE(directory.ok()) << directory.status();
  directory_ = *std::move(directory);

  const absl::Status again = Create();
  ASSERT_TRUE(again.ok()) << again;
  EXPECT_TRUE(Open().ok());
}

TEST_F(EngineTest, ALogThatIsMadeIsNotMadeAgain) {
  ASSERT_TRUE(Create().ok());
  const auto size = [this] {
    return std::distance(std::filesystem::directory_iterator(directory_->log_directory()),
                         std::filesystem::directory_iterator());
  };
  const auto before = size();
  ASSERT_TRUE(Create().ok());
  EXPECT_EQ(size(), before);
}

TEST_F(EngineTest, AWriteThatCameBeforeTheStartIsAnsweredWhenThereIsNone) {
  ASSERT_TRUE(Create().ok());
  const auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::optional<ingress::Outcome> outcome;
  (*engine)->forwarder()->Write(v1::Command(), BootNow() + std::chrono::seconds(10), {},
                                [&](const ingress::Outcome& each) { outcome = each; });
  EXPECT_FALSE(outcome.has_value());
  (*engine)->Stop();
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->kind, ingress::Outcome::Kind::kNotAccepted);
  EXPECT_EQ(outcome->reason, ingress::kReasonStopping);
}

// When another process has this store's identity nothing that waits for others comes before the
// node's end: meanwhile it would vote, lead and acknowledge beside the other one.
TEST_F(EngineTest, StoppingEndsTheNodeBeforeItWaitsForPeers) {
  ASSERT_TRUE(Create().ok());
  const auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  (*engine)->Start();
  const auto eventually = [](const std::function<bool()>& is_so) {
    for (const Instant until = BootNow() + std::chrono::seconds(30); !is_so();) {
      if (BootNow() >= until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  };
  raft::Node* const node = (*engine)->node();
  ASSERT_TRUE(eventually([node] { return node->status()->role == raft::Role::kLeader; }));
  // A stream of another node that gRPC is not done with: its peer is cut off.
  auto* const stream = (*engine)->forwarder()->Serve(nullptr);
  std::atomic<bool> stopped = false;
  std::thread stop([&] {
    (*engine)->Stop();
    stopped = true;
  });
  EXPECT_TRUE(eventually([node] {
    return !node->Receive({StoreId(0xBAD), StoreId(0xBAD), raft::RequestVoteReply()});
  })) << "the node takes messages while a stream is waited for";
  EXPECT_FALSE(stopped) << "the stream is still open";
  stream->OnDone();
  stop.join();
}

TEST_F(EngineTest, WhatItPromisesToLeadersIsDurableBeforeItCan) {
  ASSERT_TRUE(Create().ok());
  const auto promised = [this] { return directory_->identity()->current().promised_ms; };
  EXPECT_EQ(promised(), 0u);
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(promised(), 150u);
  ASSERT_TRUE(Open(std::chrono::microseconds(200'001)).ok());
  EXPECT_EQ(promised(), 201u) << "not less than what is stated";
  // A shorter one holds once the longer one is over: until then the next start has to know it.
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(promised(), 201u);
}

TEST_F(EngineTest, AStoreThatHasPromisedMoreCampaignsLater) {
  ASSERT_TRUE(Create().ok());
  ASSERT_TRUE(directory_->identity()->SetPromised(3'600'000).ok());
  auto engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_GE((*engine)->node()->NextDeadline(), BootNow() + std::chrono::minutes(59));
  engine->reset();
  ASSERT_TRUE(directory_->identity()->SetPromised(150).ok());
  engine = Open();
  EXPECT_LE((*engine)->node()->NextDeadline(), BootNow() + std::chrono::seconds(1));
}

TEST(EngineOptionsTest, AWriteWaitsForALeaderAsLongAsElectionsMayTake) {
  EXPECT_EQ(LeaderWaitOf(std::chrono::milliseconds(300)), std::chrono::seconds(3));
  EXPECT_EQ(LeaderWaitOf(std::chrono::milliseconds(750)), std::chrono::seconds(3));
  EXPECT_EQ(LeaderWaitOf(std::chrono::milliseconds(1500)), std::chrono::seconds(6));
}

// --- Errors ---

TEST_F(EngineTest, ALostLogIsRefused) {
  ASSERT_TRUE(Create().ok());
  for (const auto& file : std::filesystem::directory_iterator(directory_->log_directory())) {
    std::filesystem::remove(file);
  }
  EXPECT_FALSE(Open().ok());
}

TEST_F(EngineTest, ALostStateIsRefused) {
  ASSERT_TRUE(Create().ok());
  std::filesystem::remove_all(directory_->state_directory(1));
  EXPECT_FALSE(Open().ok());
}

TEST_F(EngineTest, AnUnwritableDirectoryIsAnError) {
  std::filesystem::remove_all(directory_->log_directory());
  std::ofstream(directory_->log_directory()) << "a file";
  EXPECT_FALSE(Create().ok());
}

using EngineDeathTest = EngineTest;

TEST_F(EngineDeathTest, AnIdentityFileThatCannotBeWrittenEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EQ(NextBootOrEnd(directory_->identity()), 2u);
  std::filesystem::remove_all(root_);
  EXPECT_EXIT(NextBootOrEnd(directory_->identity()), testing::ExitedWithCode(1),
              "the identity file cannot be written");
}

}  // namespace
}  // namespace quorate::services
