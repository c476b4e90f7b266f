#include "services/applier.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "gtest/gtest.h"
#include "quorate/v1/command.pb.h"
#include "raft/birth_record.h"

namespace quorate::services {
namespace {

using raft::Index;

class ApplierTest : public testing::Test {
 protected:
  static constexpr char kDirectoryVariable[] = "QUORATE_APPLIER_TEST_DIRECTORY";

  void SetUp() override {
    // A death test runs all of this again in a process that never gets to TearDown: it says here
    // where its directory is, so that this one removes both.
    const char* const parents = std::getenv(kDirectoryVariable);
    directory_ = parents != nullptr
                     ? std::filesystem::path(std::string(parents) + ".child")
                     : std::filesystem::path(testing::TempDir()) /
                           ("applier-" + std::to_string(::getpid()) + "-" +
                            testing::UnitTest::GetInstance()->current_test_info()->name());
    RemoveDirectories();  // of an earlier process with this number, which was killed
    std::filesystem::create_directories(directory_);
    ::setenv(kDirectoryVariable, directory_.c_str(), 1);
    storage::StateOptions options;
    options.directory = directory_.string();
    options.cluster = ClusterId(1);
    auto state = storage::State::Create(options);
    ASSERT_TRUE(state.ok()) << state.status();
    state_ = std::move(*state);
    applier_ = std::make_unique<Applier>(state_.get());
    raft::Proposal proposal;
    proposal.cluster = ClusterId(1);
    proposal.proposer = StoreId(5);
    proposal.round = 1;
    proposal.founders = {{"a", StoreId(5), ""}};
    applier_->Apply({raft::FirstEntry(raft::EncodeMembership(raft::FoundingMembership(proposal)))});
  }
  void TearDown() override {
    applier_ = nullptr;
    state_ = nullptr;
    ::unsetenv(kDirectoryVariable);
    RemoveDirectories();
  }
  void RemoveDirectories() const {
    std::filesystem::remove_all(directory_);
    std::filesystem::remove_all(directory_.string() + ".child");
  }

  raft::EntryPtr Command(uint64_t index, const v1::Command& command) {
    auto entry = std::make_shared<raft::Entry>();
    entry->index = Index(index);
    entry->term = raft::Term(1);
    entry->type = raft::EntryType::kCommand;
    entry->payload = command.SerializeAsString();
    return entry;
  }
  raft::EntryPtr Open(uint64_t index) {
    v1::Command command;
    command.set_format(1);
    command.mutable_session()->set_store(5);
    command.mutable_session()->set_boot(1);
    command.mutable_open_session()->set_store(5);
    command.mutable_open_session()->set_boot(1);
    return Command(index, command);
  }
  raft::EntryPtr Put(uint64_t index, uint64_t sequence) {
    v1::Command command;
    command.set_format(1);
    command.mutable_session()->set_store(5);
    command.mutable_session()->set_boot(1);
    command.mutable_session()->set_sequence(sequence);
    auto* put = command.mutable_transaction()->add_then()->mutable_put();
    put->set_key("k");
    put->set_value_kind(v1::VALUE_KIND_TEXT);
    return Command(index, command);
  }

  std::filesystem::path directory_;
  std::unique_ptr<storage::State> state_;
  std::unique_ptr<Applier> applier_;
};

TEST_F(ApplierTest, TheHookComesBeforeTheWaiters) {
  std::vector<std::string> order;
  applier_->OnApplied([&](const std::vector<storage::Applied>& applied) {
    order.push_back("hook " + std::to_string(applied.size()));
  });
  EXPECT_NE(applier_->WhenApplied(Index(3), [&] { order.push_back("index 3"); }), 0u);
  EXPECT_NE(applier_->WhenRevision(Revision(2), [&] { order.push_back("revision 2"); }), 0u);
  EXPECT_NE(applier_->WhenApplied(Index(4), [&] { order.push_back("index 4"); }), 0u);
  applier_->Apply({Open(2), Put(3, 1)});
  EXPECT_EQ(order, (std::vector<std::string>{"hook 2", "index 3", "revision 2"}));
  EXPECT_EQ(applier_->applied(), Index(3));
  applier_->Apply({Put(4, 2)});
  EXPECT_EQ(order.back(), "index 4");
}

TEST_F(ApplierTest, WhatIsReachedAlreadyIsToldAtOnce) {
  bool told = false;
  EXPECT_EQ(applier_->WhenApplied(Index(1), [&] { told = true; }), 0u);
  EXPECT_TRUE(told);
  told = false;
  EXPECT_EQ(applier_->WhenRevision(Revision(1), [&] { told = true; }), 0u);
  EXPECT_TRUE(told);
}

TEST_F(ApplierTest, ACancelledWaitIsNotTold) {
  const auto id = applier_->WhenApplied(Index(2), [] { FAIL() << "it was cancelled"; });
  EXPECT_TRUE(applier_->Cancel(id));
  EXPECT_FALSE(applier_->Cancel(id));
  applier_->Apply({Open(2)});
}

TEST_F(ApplierTest, AfterARestartItBeginsWhereTheStateIs) {
  applier_->Apply({Open(2)});
  Applier again(state_.get());
  EXPECT_EQ(again.applied(), Index(2));
}

// --- Errors ---

using ApplierDeathTest = ApplierTest;

TEST_F(ApplierDeathTest, AnEntryThatCannotBeAppliedEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  v1::Command newer;
  newer.set_format(99);
  EXPECT_EXIT(applier_->Apply({Command(2, newer)}), testing::ExitedWithCode(1),
              "the state cannot be written, this node stops");
}

}  // namespace
}  // namespace quorate::services
