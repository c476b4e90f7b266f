#include "raft/autopilot.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "raft/node.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Step = AutopilotStep::Kind;

constexpr StoreId kLeaderStore{1};

// A leader, cp-0, with two followers that vote: cp-1 and cp-2.
class AutopilotTest : public testing::Test {
 protected:
  AutopilotTest() {
    status_.self = kLeaderStore;
    status_.role = Role::kLeader;
    status_.leader = kLeaderStore;
    status_.leader_ready = true;
    status_.birth_complete = true;
    status_.term = Term(2);
    status_.commit = Index(5000);
    status_.membership_index = Index(10);
    for (uint64_t id = 1; id <= 3; ++id) Add(id, "cp-" + std::to_string(id - 1), true);
  }

  void Add(uint64_t id, const std::string& name, bool voter) {
    membership_.members.push_back(
        {.store = StoreId(id), .name = name, .address = {}, .voter = voter});
    if (StoreId(id) == kLeaderStore) return;
    PeerView peer;
    peer.store = StoreId(id);
    peer.match = Index(5000);
    peer.active = peer.caught_up = true;
    status_.peers.push_back(peer);
  }
  PeerView& Peer(uint64_t id) {
    for (PeerView& peer : status_.peers) {
      if (peer.store == StoreId(id)) return peer;
    }
    ADD_FAILURE() << "no peer " << id;
    return status_.peers.front();
  }
  Member& MemberOf(uint64_t id) {
    for (Member& member : membership_.members) {
      if (member.store == StoreId(id)) return member;
    }
    ADD_FAILURE() << "no member " << id;
    return membership_.members.front();
  }
  // Nobody hears from it any more.
  void Silence(uint64_t id) {
    Peer(id).active = Peer(id).caught_up = false;
    silent_.push_back(StoreId(id));
  }
  void Wait(Duration time) { now_ += time; }
  std::optional<AutopilotStep> Next() {
    for (PeerView& peer : status_.peers) {
      const bool silent = std::count(silent_.begin(), silent_.end(), peer.store) > 0;
      if (!silent) peer.last_contact = now_;
    }
    status_.membership = std::make_shared<Membership>(membership_);
    return autopilot_->Next(now_, status_, newcomers_);
  }
  // What it does within this time, asked twice a second; each step is done at once.
  std::vector<AutopilotStep> Within(Duration time) {
    std::vector<AutopilotStep> steps;
    for (const Instant end = now_ + time; now_ < end; Wait(milliseconds(500))) {
      if (auto step = Next()) {
        steps.push_back(*step);
        autopilot_->OnEnded(*step, "no", now_);
      }
    }
    return steps;
  }
  void Make(const AutopilotOptions& options) { autopilot_ = std::make_unique<Autopilot>(options); }
  static AutopilotStep Promote(uint64_t id, const std::string& name) {
    return {Step::kPromote, StoreId(id), name, ""};
  }

  Instant now_{seconds(1000)};
  Membership membership_;
  NodeStatus status_;
  std::vector<Newcomer> newcomers_;
  std::vector<StoreId> silent_;
  std::unique_ptr<Autopilot> autopilot_ = std::make_unique<Autopilot>(AutopilotOptions());
};

TEST_F(AutopilotTest, ALearnerThatStaysHealthyGetsAVote) {
  Add(4, "cp-3", false);
  EXPECT_EQ(Within(seconds(10)), std::vector<AutopilotStep>());
  EXPECT_EQ(Next(), Promote(4, "cp-3"));
  // One thing at a time.
  Wait(seconds(60));
  EXPECT_EQ(Next(), std::nullopt);
  autopilot_->OnEnded(Promote(4, "cp-3"), "", now_);
  MemberOf(4).voter = true;
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
}

TEST_F(AutopilotTest, EveryBreakBeginsTheTimeAnew) {
  Add(4, "cp-3", false);
  const std::vector<std::function<void(bool)>> breaks = {
      [&](bool broken) { Peer(4).match = Index(broken ? 3999 : 5000); },
      [&](bool broken) { Peer(4).lost_data = broken; },
      [&](bool broken) { Peer(4).needs_snapshot = broken; },
      [&](bool broken) { Peer(4).snapshot_sent = broken; },
  };
  for (const auto& set : breaks) {
    EXPECT_EQ(Within(seconds(9)), std::vector<AutopilotStep>());
    set(true);
    EXPECT_EQ(Next(), std::nullopt);
    set(false);
  }
  EXPECT_EQ(Within(seconds(10)), std::vector<AutopilotStep>());
  EXPECT_EQ(Next(), Promote(4, "cp-3"));
}

TEST_F(AutopilotTest, OneThatIsNotHeardForLongIsNotHealthy) {
  Add(4, "cp-3", false);
  EXPECT_EQ(Within(seconds(5)), std::vector<AutopilotStep>());
  Silence(4);
  EXPECT_EQ(Within(seconds(40)).size(), 0u);
  silent_.clear();
  Peer(4).active = Peer(4).caught_up = true;
  EXPECT_EQ(Within(seconds(10)), std::vector<AutopilotStep>());
  EXPECT_EQ(Next(), Promote(4, "cp-3"));
}

TEST_F(AutopilotTest, ANewTermCountsAnew) {
  Add(4, "cp-3", false);
  EXPECT_EQ(Within(seconds(9)), std::vector<AutopilotStep>());
  status_.term = Term(3);
  EXPECT_EQ(Within(seconds(10)), std::vector<AutopilotStep>());
  EXPECT_EQ(Next(), Promote(4, "cp-3"));
}

TEST_F(AutopilotTest, NothingIsDoneByWhoDoesNotLeadOrMayNot) {
  Add(4, "cp-3", false);
  newcomers_ = {{"h:5", StoreId(5), "cp-4"}};
  const std::vector<std::function<void()>> reasons = {
      [&] { status_.role = Role::kFollower; },
      [&] { status_.leader_ready = false; },
      [&] { status_.birth_complete = false; },
  };
  const NodeStatus leads = status_;
  for (const auto& set : reasons) {
    set();
    EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
    status_ = leads;
  }
  // It leads, and a change or a transfer is under way.
  status_.transfer_target = StoreId(2);
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
  status_.transfer_target = StoreId();
  status_.membership_index = Index(6000);
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
  status_.membership_index = Index(10);
  membership_.joint = true;
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
  membership_.joint = false;
  EXPECT_EQ(Next(), Promote(4, "cp-3"));
}

TEST_F(AutopilotTest, NoMoreVoteThanAreWanted) {
  for (uint64_t id = 4; id <= 8; ++id) Add(id, "cp-" + std::to_string(id - 1), false);
  for (int i = 0; i < 10; ++i) {
    Wait(seconds(11));
    const auto step = Next();
    if (!step) continue;
    MemberOf(step->store.value()).voter = true;
    autopilot_->OnEnded(*step, "", now_);
  }
  EXPECT_EQ(membership_.Voters().size(), 5u);
}

TEST_F(AutopilotTest, ADemotedMemberStaysALearner) {
  Add(4, "cp-3", false);
  MemberOf(4).demoted = true;
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
}

// cp-1 has a new disk: its new store takes the place of the old one, also where as many vote as are
// wanted; and before anybody else, because a voter is down.
TEST_F(AutopilotTest, ANewStoreTakesThePlaceOfTheSilentOneOfItsName) {
  Make({.voters_max = 3});
  Add(4, "cp-3", false);
  Add(5, "cp-1", false);
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>()) << "the old one answers";
  Silence(2);
  EXPECT_EQ(Within(seconds(9)), std::vector<AutopilotStep>()) << "a pause is not the end";
  Wait(seconds(1));
  EXPECT_EQ(Next(), Promote(5, "cp-1"));
}

TEST_F(AutopilotTest, ANewLeaderGivesTheSilentOneTimeToAnswerIt) {
  Make({.stabilisation = seconds(1)});
  Add(5, "cp-1", false);
  Silence(2);
  Peer(2).last_contact.reset();
  EXPECT_EQ(Within(seconds(10)), std::vector<AutopilotStep>());
  EXPECT_EQ(Next(), Promote(5, "cp-1"));
}

TEST_F(AutopilotTest, AReplacementComesFirst) {
  Add(4, "cp-3", false);
  Add(5, "cp-1", false);
  Silence(2);
  (void)Within(seconds(10));
  EXPECT_EQ(Next(), Promote(5, "cp-1"));
}

TEST_F(AutopilotTest, WhoWaitsIsLetIn) {
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}};
  EXPECT_EQ(Next(), (AutopilotStep{Step::kLetIn, StoreId(4), "cp-3", "h:4"}));
  Make({.lets_in = false});
  EXPECT_EQ(Next(), std::nullopt);
}

TEST_F(AutopilotTest, ANameIsOneStores) {
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}, {"h:5", StoreId(5), "cp-3"}};
  EXPECT_EQ(Next(), std::nullopt) << "two of one name wait";
  newcomers_ = {{"h:4", StoreId(4), "cp-1"}};
  EXPECT_EQ(Next(), std::nullopt) << "cp-1 answers";
  newcomers_ = {{"h:4", StoreId(4), "cp-0"}};
  EXPECT_EQ(Next(), std::nullopt) << "cp-0 leads";
  Silence(2);
  newcomers_ = {{"h:4", StoreId(4), "cp-1"}};
  EXPECT_EQ(Within(seconds(9)), std::vector<AutopilotStep>()) << "a pause is not the end";
  Wait(seconds(1));
  EXPECT_EQ(Next(), (AutopilotStep{Step::kLetIn, StoreId(4), "cp-1", "h:4"}));
}

// Whoever looks at the leader finds out what the newcomer waits for.
TEST_F(AutopilotTest, WhoIsNotLetInAndWhyIsSaid) {
  const auto why = [this](size_t i) {
    (void)Next();
    return i < autopilot_->not_done().size() ? autopilot_->not_done()[i].why : "";
  };
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}, {"h:5", StoreId(5), "cp-3"}};
  EXPECT_NE(why(0).find("store 0000000000000005 at h:5 calls itself cp-3, too"), std::string::npos)
      << why(0);
  EXPECT_NE(why(1).find("store 0000000000000004 at h:4 calls itself cp-3, too"), std::string::npos);
  newcomers_ = {{"h:4", StoreId(4), "cp-1"}};
  EXPECT_NE(why(0).find("member cp-1, store 0000000000000002, has that name"), std::string::npos)
      << why(0);
  EXPECT_EQ(autopilot_->not_done()[0].name, "cp-1");
  Silence(2);
  Wait(seconds(10));
  EXPECT_EQ(why(0), "");
  autopilot_->OnEnded({}, "no", now_);

  Add(6, "cp-5", false);
  (void)Next();
  membership_.members.pop_back();
  status_.peers.pop_back();
  newcomers_ = {{"h:6", StoreId(6), "cp-5"}};
  EXPECT_NE(why(0).find("`quorate member add h:6`"), std::string::npos) << why(0);
  status_.role = Role::kFollower;
  EXPECT_EQ(why(0), "") << "not of who does not lead";
  status_.role = Role::kLeader;
  Make({.lets_in = false});
  EXPECT_EQ(why(0), "");
}

TEST_F(AutopilotTest, WhoIsAMemberAlreadyIsNotLetInAgain) {
  Add(4, "cp-3", false);
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}};
  EXPECT_EQ(Next(), std::nullopt);
}

// Whoever took it out meant that, also for the next leader.
TEST_F(AutopilotTest, WhoWasAMemberAndWasTakenOutIsNotLetInAgain) {
  status_.role = Role::kFollower;
  Add(4, "cp-3", false);
  EXPECT_EQ(Next(), std::nullopt);
  membership_.members.pop_back();
  status_.peers.pop_back();
  EXPECT_EQ(Next(), std::nullopt);
  status_.role = Role::kLeader;
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}};
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
  // Added by hand it is one again, and a later removal counts anew.
  Add(4, "cp-3", false);
  (void)Next();
  EXPECT_EQ(Within(seconds(9)), std::vector<AutopilotStep>());
}

// Nor by a leader that was started after the removal: the store itself says that it was a member.
TEST_F(AutopilotTest, WhoHasCaughtUpOnceIsNeverLetInAndThatIsSaid) {
  newcomers_ = {{"h:4", StoreId(4), "cp-3", true}};
  EXPECT_EQ(Within(seconds(60)), std::vector<AutopilotStep>());
  ASSERT_EQ(autopilot_->not_done().size(), 1u);
  EXPECT_NE(autopilot_->not_done()[0].why.find("`quorate member add h:4`"), std::string::npos);
  // Its name is free for another store: who was removed keeps nobody out.
  newcomers_.push_back({"h:5", StoreId(5), "cp-3", false});
  EXPECT_EQ(Next(), (AutopilotStep{Step::kLetIn, StoreId(5), "cp-3", "h:5"}));
}

// Members say of themselves that they have caught up: nothing is to be said of them.
TEST_F(AutopilotTest, NothingIsSaidOfMembers) {
  newcomers_ = {{"h:2", StoreId(2), "cp-1", true}, {"h:3", StoreId(3), "cp-2", true}};
  EXPECT_EQ(Next(), std::nullopt);
  EXPECT_TRUE(autopilot_->not_done().empty());
}

TEST_F(AutopilotTest, WhatFailedIsSaidUntilItIsDone) {
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}};
  auto step = Next();
  ASSERT_TRUE(step.has_value());
  autopilot_->OnEnded(*step, "nobody answers at h:40", now_);
  EXPECT_EQ(Next(), std::nullopt);
  const NotDone let_in{Step::kLetIn, StoreId(4), "cp-3", "nobody answers at h:40"};
  EXPECT_EQ(autopilot_->not_done(), std::vector<NotDone>{let_in});
  Wait(seconds(1));
  step = Next();
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(autopilot_->not_done(), std::vector<NotDone>{let_in}) << "it is being tried";
  autopilot_->OnEnded(*step, "", now_);

  newcomers_.clear();
  Add(4, "cp-3", false);
  (void)Next();
  EXPECT_TRUE(autopilot_->not_done().empty());
  Wait(seconds(10));
  step = Next();
  ASSERT_EQ(step, Promote(4, "cp-3"));
  autopilot_->OnEnded(*step, "2 of 3 must answer", now_);
  (void)Next();
  const NotDone promote{Step::kPromote, StoreId(4), "cp-3", "2 of 3 must answer"};
  EXPECT_EQ(autopilot_->not_done(), std::vector<NotDone>{promote});
}

// A leader has fallen before the others heard of it.
TEST_F(AutopilotTest, WhoWasAMemberByAnUncommittedEntryOnlyIsLetIn) {
  status_.role = Role::kFollower;
  Add(4, "cp-3", false);
  status_.membership_index = Index(6000);
  EXPECT_EQ(Next(), std::nullopt);
  membership_.members.pop_back();
  status_.peers.pop_back();
  status_.membership_index = Index(10);
  status_.role = Role::kLeader;
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}};
  EXPECT_EQ(Next(), (AutopilotStep{Step::kLetIn, StoreId(4), "cp-3", "h:4"}));
}

// Many learners that are no more do not keep a voter's new store out.
TEST_F(AutopilotTest, AFullClusterTakesReplacementsOnly) {
  for (uint64_t id = 4; id <= kMembersMax / 2; ++id) Add(id, "old-" + std::to_string(id), false);
  for (uint64_t id = 4; id <= kMembersMax / 2; ++id) Silence(id);
  newcomers_ = {{"h:90", StoreId(90), "cp-9"}};
  EXPECT_EQ(Within(seconds(20)), std::vector<AutopilotStep>());
  Silence(2);
  newcomers_.push_back({"h:91", StoreId(91), "cp-1"});
  Wait(seconds(10));
  EXPECT_EQ(Next(), (AutopilotStep{Step::kLetIn, StoreId(91), "cp-1", "h:91"}));
}

TEST_F(AutopilotTest, WhatFailsIsTriedAgainLaterAndLater) {
  newcomers_ = {{"h:4", StoreId(4), "cp-3"}, {"h:5", StoreId(5), "cp-4"}};
  std::vector<Instant> tries;
  for (const Instant end = now_ + std::chrono::minutes(10); now_ < end; Wait(milliseconds(500))) {
    const auto step = Next();
    if (!step) continue;
    if (step->store == StoreId(4)) tries.push_back(now_);
    autopilot_->OnEnded(*step, step->store == StoreId(4) ? "no" : "", now_);
    if (step->store == StoreId(5)) newcomers_.pop_back();  // the other one is not held up
  }
  EXPECT_EQ(newcomers_.size(), 1u);
  ASSERT_GT(tries.size(), 8u);
  EXPECT_EQ(tries[1] - tries[0], seconds(1));
  EXPECT_EQ(tries[2] - tries[1], seconds(2));
  EXPECT_EQ(tries[8] - tries[7], Autopilot::kPauseMax);
}

}  // namespace
}  // namespace quorate::raft
