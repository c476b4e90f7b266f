// An invariant that cannot fail is none: each is broken once.
#include "raft/core/invariants.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace quorate::raft {
namespace {

CoreFacts Leader() {
  CoreFacts facts;
  facts.self = StoreId(1);
  facts.role = Role::kLeader;
  facts.term = Term(5);
  facts.vote = StoreId(1);
  facts.leader = StoreId(1);
  facts.window_prev = Index(2);
  facts.last_index = Index(10);
  facts.last_term = Term(5);
  facts.persisted = Index(9);
  facts.commit = Index(8);
  facts.handed_out = Index(7);
  facts.applied = Index(6);
  facts.membership_index = Index(1);
  facts.term_start = Index(8);
  facts.last_ticket = Ticket(4);
  facts.persisted_ticket = Ticket(3);
  return facts;
}

CoreFacts Follower() {
  CoreFacts facts = Leader();
  facts.role = Role::kFollower;
  facts.leader = StoreId(2);
  facts.vote = StoreId(2);
  facts.term_start = Index();
  return facts;
}

using Change = std::function<void(CoreFacts*)>;

void Check(const CoreFacts& before, const Change& change) {
  Invariants invariants;
  invariants.Check(before);
  CoreFacts after = before;
  change(&after);
  invariants.Check(after);
}

TEST(Invariants, OrdinaryStepsPass) {
  Check(Leader(), [](CoreFacts* f) {
    f->last_index = Index(12);
    f->commit = f->persisted = Index(10);
    f->handed_out = Index(10);
  });
  Check(Leader(), [](CoreFacts* f) {  // deposed, and its last two entries go
    *f = Follower();
    f->term = Term(6);
    f->vote = StoreId();
    f->cut_lowest = Index(9);
    f->last_index = Index(9);
    f->last_term = Term(6);
    f->persisted = Index(8);
  });
}

TEST(InvariantsDeathTest, StatesThatCannotBe) {
  const std::vector<Change> changes = {
      [](CoreFacts* f) { f->applied = f->handed_out + 1; },
      [](CoreFacts* f) { f->handed_out = f->commit + 1; },
      [](CoreFacts* f) { f->persisted = f->handed_out - 1; },
      [](CoreFacts* f) { f->commit = f->last_index + 1; },
      [](CoreFacts* f) { f->persisted = f->last_index + 1; },
      [](CoreFacts* f) { f->window_prev = f->persisted + 1; },
      [](CoreFacts* f) { f->last_term = f->term + 1; },
      [](CoreFacts* f) { f->membership_index = f->last_index + 1; },
      [](CoreFacts* f) { f->persisted_ticket = f->last_ticket + 1; },
      [](CoreFacts* f) { f->vote = StoreId(2); },
      [](CoreFacts* f) { f->leader = StoreId(2); },
      [](CoreFacts* f) { f->term_start = Index(); },
      [](CoreFacts* f) { f->last_term = Term(4); },
      [](CoreFacts* f) { f->role = Role::kCandidate; },
      [](CoreFacts* f) { f->role = Role::kPreCandidate; },
      [](CoreFacts* f) { f->role = Role::kFollower; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    CoreFacts facts = Leader();
    changes[i](&facts);
    EXPECT_DEATH(Invariants().Check(facts), "CHECK failed") << i;
  }
}

TEST(InvariantsDeathTest, StepsThatCannotBe) {
  const std::vector<Change> changes = {
      [](CoreFacts* f) { f->term = Term(4), f->last_term = Term(4); },
      [](CoreFacts* f) { f->commit = Index(7); },
      [](CoreFacts* f) { f->applied = Index(5); },
      [](CoreFacts* f) { f->handed_out = Index(6); },
      [](CoreFacts* f) { f->vote = StoreId(3); },
      [](CoreFacts* f) { f->vote = StoreId(); },
      [](CoreFacts* f) { f->leader = StoreId(3); },
      [](CoreFacts* f) { f->last_index = Index(9); },
      [](CoreFacts* f) { f->persisted = Index(8); },
      [](CoreFacts* f) { f->window_prev = Index(1); },
      [](CoreFacts* f) { f->membership_index = Index(0); },
      [](CoreFacts* f) { f->last_ticket = Ticket(3); },
      [](CoreFacts* f) { f->persisted_ticket = Ticket(2); },
      [](CoreFacts* f) { f->cut_lowest = f->commit; },
      [](CoreFacts* f) { f->cut_lowest = Index(10), f->persisted = Index(8); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    EXPECT_DEATH(Check(Follower(), changes[i]), "CHECK failed") << i;
  }
}

TEST(InvariantsDeathTest, ALeaderOnlyAppends) {
  EXPECT_DEATH(Check(Leader(), [](CoreFacts* f) { f->cut_lowest = Index(10); }),
               "a leader cut its log");
  EXPECT_DEATH(Check(Leader(), [](CoreFacts* f) { f->term_start = Index(9); }), "CHECK failed");
  EXPECT_DEATH(Check(Leader(), [](CoreFacts* f) { f->term = f->last_term = Term(6); }),
               "CHECK failed");
}

TEST(InvariantsDeathTest, ALeaderIsRememberedForItsTerm) {
  Invariants invariants;
  CoreFacts facts = Follower();
  invariants.Check(facts);
  facts.leader = StoreId();
  invariants.Check(facts);
  facts.leader = StoreId(3);
  EXPECT_DEATH(invariants.Check(facts), "two leaders in one term");
  facts.term = Term(6);
  facts.vote = StoreId();
  invariants.Check(facts);
}

}  // namespace
}  // namespace quorate::raft
