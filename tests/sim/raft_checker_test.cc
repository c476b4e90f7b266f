// The checkers of logs and identities, told of what no node may do.
#include "tests/sim/raft_checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/sim/identity_checker.h"

namespace quorate::sim {
namespace {

using raft::Index;
using raft::Term;
using ::testing::HasSubstr;

constexpr StoreId kLeader{1}, kFollower{2}, kThird{3};

class RaftCheckerTest : public ::testing::Test {
 protected:
  static raft::Membership Members(const std::vector<StoreId>& voters) {
    raft::Membership membership;
    membership.cluster = ClusterId(9);
    for (const StoreId voter : voters) {
      const std::string name = "n" + ToHex(voter);
      membership.members.push_back({.store = voter,
                                    .name = name,
                                    .address = name + ":7000",
                                    .voter = true,
                                    .outgoing_voter = false});
    }
    return membership;
  }
  static raft::EntryPtr EntryAt(uint64_t index, uint64_t term) {
    auto entry = std::make_shared<raft::Entry>();
    entry->index = Index(index);
    entry->term = Term(term);
    return entry;
  }
  static raft::EntryPtr ChangeAt(uint64_t index, uint64_t term,
                                 const std::vector<StoreId>& voters) {
    auto entry = std::make_shared<raft::Entry>(*EntryAt(index, term));
    entry->type = raft::EntryType::kMembership;
    entry->payload = raft::EncodeMembership(Members(voters));
    return entry;
  }
  void Write(StoreId store, uint64_t term, std::vector<raft::EntryPtr> entries,
             uint64_t cut_from = 0) {
    raft::Persist persist;
    persist.hard_state = raft::HardState{Term(term), StoreId()};
    persist.entries = std::move(entries);
    if (cut_from != 0) persist.cut_from = Index(cut_from);
    checker_.OnAppend(store, persist);
  }
  void WriteAndSync(StoreId store, uint64_t term, std::vector<raft::EntryPtr> entries) {
    Write(store, term, std::move(entries));
    checker_.OnSynced(store);
  }
  void Hear(StoreId store, uint64_t term, uint64_t prev, std::vector<raft::EntryPtr> entries) {
    raft::AppendEntries append;
    append.term = Term(term);
    append.prev_index = Index(prev);
    append.entries = std::move(entries);
    checker_.OnHeard(store, {kLeader, store, append}, Instant());
  }
  void Acknowledge(StoreId store, uint64_t term, uint64_t match) {
    raft::AppendEntriesReply reply;
    reply.term = Term(term);
    reply.success = true;
    reply.match = Index(match);
    checker_.OnSend({store, kLeader, reply});
  }
  raft::NodeStatus StatusOf(StoreId store, uint64_t last, uint64_t commit, uint64_t change,
                            const std::vector<StoreId>& voters) {
    raft::NodeStatus status;
    status.self = store;
    status.term = Term(1);
    status.last_index = status.persisted = Index(last);
    status.commit = Index(commit);
    status.membership_index = Index(change);
    status.membership = std::make_shared<raft::Membership>(Members(voters));
    return status;
  }
  void Publish(const raft::NodeStatus& status) { checker_.OnStatus(status, 0, std::nullopt); }
  // One voter, who leads term 1 and has committed five entries.
  void CommitFive() {
    WriteAndSync(
        kLeader, 1,
        {ChangeAt(1, 1, {kLeader}), EntryAt(2, 1), EntryAt(3, 1), EntryAt(4, 1), EntryAt(5, 1)});
    raft::NodeStatus status = StatusOf(kLeader, 5, 5, 1, {kLeader});
    status.role = raft::Role::kLeader;
    Publish(status);
    ASSERT_EQ(failure_.text(), "");
  }
  static raft::Persist Install(uint64_t index, const std::vector<StoreId>& voters) {
    raft::Persist persist;
    persist.install = raft::InstallRecord{{Index(index), Term(1), 0, Index(1), Members(voters)}, 2};
    return persist;
  }
  void CallInstalled(uint64_t index) {
    checker_.OnSend({kFollower, kLeader,
                     raft::InstallSnapshotReply{Term(0), Index(index), Term(1),
                                                raft::SnapshotAnswer::kInstalled, 7}});
  }

  Failure failure_;
  Report report_;
  RaftChecker checker_{&failure_, &report_};
};

TEST_F(RaftCheckerTest, AnEchoIsOfWhatTheLeaderOfItsTermHasSaid) {
  const auto hear = [&](uint64_t term, int clock, uint64_t round) {
    raft::AppendEntries append;
    append.term = Term(term);
    append.sent_at = Instant(std::chrono::seconds(clock));
    append.read_round = round;
    checker_.OnHeard(kFollower, {kLeader, kFollower, append}, Instant());
  };
  // What is said of that answer; later ones have a clean slate.
  const auto echo = [&](uint64_t term, int clock, uint64_t round) {
    raft::AppendEntriesReply reply;
    reply.term = Term(term);
    reply.echoed_sent_at = Instant(std::chrono::seconds(clock));
    reply.read_round = round;
    checker_.OnSend({kFollower, kLeader, reply});
    return std::exchange(failure_, Failure()).text();
  };
  const auto wrong = testing::HasSubstr("echoes what the leader of term 2 has not said to it");
  hear(1, 10, 3);
  EXPECT_EQ(echo(1, 10, 3), "");
  EXPECT_THAT(echo(2, 10, 0), wrong) << "of an earlier term";
  EXPECT_THAT(echo(2, 0, 3), wrong);
  EXPECT_EQ(echo(2, 0, 0), "") << "a refusal echoes nothing";
  hear(2, 20, 1);
  hear(2, 21, 2);
  hear(1, 11, 9);  // late
  EXPECT_EQ(echo(2, 20, 1), "");
  EXPECT_EQ(echo(2, 21, 2), "");
  EXPECT_THAT(echo(2, 11, 0), wrong);
  EXPECT_THAT(echo(2, 21, 3), wrong);
  EXPECT_EQ(echo(1, 10, 3), "") << "it has waited for the disk";
}

TEST_F(RaftCheckerTest, ALateAcknowledgementIsOfWhatIsDurable) {
  Hear(kFollower, 1, 0, {EntryAt(1, 1), EntryAt(2, 1)});
  Write(kFollower, 1, {EntryAt(1, 1), EntryAt(2, 1)});
  Write(kFollower, 2, {});
  checker_.OnSynced(kFollower);
  Acknowledge(kFollower, 1, 2);
  EXPECT_EQ(failure_.text(), "");
  // A later leader has cut one of them: what was said in the first one's term is still true.
  Hear(kFollower, 2, 1, {EntryAt(2, 2)});
  Write(kFollower, 2, {}, 2);
  checker_.OnSynced(kFollower);
  Acknowledge(kFollower, 1, 2);
  EXPECT_EQ(failure_.text(), "");
}

TEST_F(RaftCheckerTest, ALateAcknowledgementThatIsNot) {
  Hear(kFollower, 1, 0, {EntryAt(1, 1), EntryAt(2, 1)});
  WriteAndSync(kFollower, 2, {EntryAt(1, 1)});
  Write(kFollower, 2, {EntryAt(2, 1)});
  Acknowledge(kFollower, 1, 2);
  EXPECT_THAT(failure_.text(), HasSubstr("acknowledges 2, and only 1 is durable"));
}

TEST_F(RaftCheckerTest, AnAcknowledgementThatNobodyHasCutIsInTheLog) {
  Hear(kFollower, 1, 0, {EntryAt(1, 1), EntryAt(2, 1)});
  WriteAndSync(kFollower, 2, {EntryAt(1, 1)});
  Acknowledge(kFollower, 1, 2);
  EXPECT_THAT(failure_.text(), HasSubstr("acknowledges 2, and only 1 is durable"));
}

TEST_F(RaftCheckerTest, AnAcknowledgementOfWhatWasNeverSent) {
  Hear(kFollower, 1, 0, {EntryAt(1, 1)});
  WriteAndSync(kFollower, 1, {EntryAt(1, 1), EntryAt(2, 1)});
  Acknowledge(kFollower, 1, 2);
  EXPECT_THAT(failure_.text(), HasSubstr("who has not sent so much"));
}

TEST_F(RaftCheckerTest, ALeaderIgnoresAChangeInItsLog) {
  CommitFive();
  WriteAndSync(kLeader, 1, {ChangeAt(6, 1, {kLeader, kFollower, kThird})});
  raft::NodeStatus status = StatusOf(kLeader, 6, 5, 1, {kLeader});
  status.role = raft::Role::kLeader;
  Publish(status);
  EXPECT_THAT(failure_.text(), HasSubstr("its configuration is that of entry 1, and the last one"));
}

TEST_F(RaftCheckerTest, ALeaderCountsByMembersThatItsLogHasReplaced) {
  CommitFive();
  WriteAndSync(kLeader, 1, {ChangeAt(6, 1, {kLeader, kFollower, kThird})});
  raft::NodeStatus status = StatusOf(kLeader, 6, 6, 1, {kLeader});
  status.role = raft::Role::kLeader;
  Publish(status);
  EXPECT_THAT(failure_.text(), HasSubstr("commits 6, which is durable on 1 of 3 voters"));
}

TEST_F(RaftCheckerTest, ASnapshotIsInstalledWhenItsRecordIsDurable) {
  CommitFive();
  checker_.OnAppend(kFollower, Install(5, {kLeader}));
  checker_.OnSynced(kFollower);
  CallInstalled(5);
  EXPECT_EQ(failure_.text(), "");
}

TEST_F(RaftCheckerTest, ASnapshotIsCalledInstalledTooEarly) {
  CommitFive();
  checker_.OnAppend(kFollower, Install(5, {kLeader}));
  CallInstalled(5);
  EXPECT_THAT(failure_.text(), HasSubstr("calls a snapshot up to 5 installed"));
}

TEST_F(RaftCheckerTest, ALogIsLostWithASnapshotThatThePowerTakesBack) {
  CommitFive();
  WriteAndSync(kFollower, 1, {ChangeAt(1, 1, {kLeader}), EntryAt(2, 1), EntryAt(3, 1)});
  checker_.OnAppend(kFollower, Install(5, {kLeader}));
  storage::RecoveredLog recovered;
  recovered.hard_state.term = Term(1);
  recovered.first_index = Index(1);
  recovered.last_index = Index(1);
  checker_.OnRecovered(kFollower, recovered, {ChangeAt(1, 1, {kLeader})}, Index());
  EXPECT_THAT(failure_.text(), HasSubstr("the log ends at 1, and 3 was synced"));
}

TEST_F(RaftCheckerTest, ASnapshotHasOtherMembers) {
  CommitFive();
  checker_.OnAppend(kFollower, Install(5, {kLeader, kFollower}));
  EXPECT_THAT(failure_.text(), HasSubstr("with other members than are in force there"));
}

TEST_F(RaftCheckerTest, ASnapshotIsOlderThanTheLogThatItReplaces) {
  CommitFive();
  checker_.OnAppend(kFollower, Install(5, {kLeader}));
  checker_.OnSynced(kFollower);
  checker_.OnAppend(kFollower, Install(3, {kLeader}));
  EXPECT_THAT(failure_.text(), HasSubstr("and its log begins behind that"));
}

TEST_F(RaftCheckerTest, ALogBeginsBehindItsState) {
  CommitFive();
  storage::RecoveredLog recovered;
  recovered.first_index = Index(5);
  recovered.last_index = Index(4);
  checker_.OnRecovered(kFollower, recovered, {}, Index(2));
  EXPECT_THAT(failure_.text(), HasSubstr("recovery lost entries in front"));
}

TEST_F(RaftCheckerTest, ALogIsThrownAway) {
  checker_.OnLogRemoved(kFollower);
  EXPECT_EQ(failure_.text(), "");
  storage::RecoveredLog recovered;
  recovered.first_index = Index(1);
  checker_.OnRecovered(kFollower, recovered, {}, Index());
  checker_.OnLogRemoved(kFollower);
  EXPECT_THAT(failure_.text(), HasSubstr("throws away a log"));
}

storage::Identity SomeIdentity() {
  storage::Identity identity;
  identity.node = "a";
  identity.store = kLeader;
  identity.boot = 7;
  identity.promised_ms = 300;
  identity.log_made = true;
  return identity;
}

std::string WhatIsSaidOf(const storage::Identity& found) {
  Failure failure;
  IdentityChecker checker(&failure);
  checker.OnChanged(kLeader, SomeIdentity());
  checker.OnFound(kLeader, found);
  return failure.text();
}

TEST(IdentityCheckerTest, NothingGoesBack) {
  EXPECT_EQ(WhatIsSaidOf(SomeIdentity()), "");
  storage::Identity found = SomeIdentity();
  found.boot = 6;
  EXPECT_THAT(WhatIsSaidOf(found), HasSubstr("its number of starts goes back"));
  found = SomeIdentity();
  found.promised_ms = 299;
  EXPECT_THAT(WhatIsSaidOf(found), HasSubstr("its promise shrinks"));
  found = SomeIdentity();
  found.log_made = false;
  EXPECT_THAT(WhatIsSaidOf(found), HasSubstr("it forgets that there is a log"));
}

TEST(IdentityCheckerTest, NoNumberIsGivenTwice) {
  Failure failure;
  IdentityChecker checker(&failure);
  checker.OnBoot(kLeader, 1);
  checker.OnBoot(kLeader, 2);
  EXPECT_EQ(failure.text(), "");
  checker.OnBoot(kLeader, 2);
  EXPECT_THAT(failure.text(), HasSubstr("start 2 comes after start 2"));
}

}  // namespace
}  // namespace quorate::sim
