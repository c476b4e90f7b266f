// What must hold in every state and over every step of one node, checked always, in release builds
// too: a node that has left the protocol must stop before it says anything else.
//
// The driver never sees this; Core takes a snapshot of its facts after each input and hands it to
// Check, which compares it with the one before. Constant time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/check.h"
#include "raft/core/types.h"

namespace quorate::raft {

struct CoreFacts {
  StoreId self;
  Role role = Role::kFollower;
  Term term;
  StoreId vote;
  StoreId leader;
  Index window_prev;  // the entry before the first in memory
  Index last_index;
  Term last_term;
  Index persisted;
  Index commit;
  Index handed_out;  // given to the driver for applying
  Index applied;
  Index membership_index;
  Index term_start;         // leader: its no-op
  Index cut_lowest;         // the lowest index cut in this step; 0: nothing was cut
  bool installing = false;  // a snapshot whose record is not durable: the window begins behind it
  Index first_index;        // of the log on disk
  bool transferring = false;
  Ticket last_ticket;
  Ticket persisted_ticket;
};

class Invariants {
 public:
  void Check(const CoreFacts& now) {
    CheckState(now);
    if (before_) CheckStep(*before_, now);
    if (!before_ || now.term > before_->term) leader_of_term_ = StoreId();
    if (now.leader) {
      CHECK(!leader_of_term_ || leader_of_term_ == now.leader, "two leaders in one term");
      leader_of_term_ = now.leader;
    }
    before_ = now;
  }

 private:
  static void CheckState(const CoreFacts& f) {
    CHECK(f.applied <= f.handed_out);
    CHECK(f.handed_out <= std::min(f.commit, f.persisted), "applying what may still be lost");
    CHECK(f.commit <= f.last_index && f.persisted <= f.last_index);
    CHECK(f.window_prev <= f.last_index && (f.window_prev <= f.persisted || f.installing));
    CHECK(f.first_index <= f.last_index + 1);
    CHECK(f.first_index <= f.handed_out + 1 || f.installing, "cut beyond what is applied");
    CHECK(f.last_term <= f.term);
    CHECK(f.membership_index <= f.last_index);
    CHECK(f.persisted_ticket <= f.last_ticket);
    CHECK(f.role == Role::kLeader || !f.transferring, "hands over what it does not have");
    switch (f.role) {
      case Role::kLeader:
        CHECK(f.leader == f.self && f.vote == f.self, "leads without its own vote");
        CHECK(f.term_start > Index(0) && f.term_start <= f.last_index && f.last_term == f.term);
        break;
      case Role::kCandidate:
        CHECK(f.vote == f.self && !f.leader);
        break;
      case Role::kPreCandidate:
        CHECK(!f.leader);
        break;
      case Role::kFollower:
        CHECK(f.leader != f.self);
        break;
    }
  }

  static void CheckStep(const CoreFacts& was, const CoreFacts& now) {
    CHECK(now.term >= was.term && now.commit >= was.commit && now.applied >= was.applied);
    CHECK(now.handed_out >= was.handed_out && now.first_index >= was.first_index);
    CHECK(!now.installing || now.handed_out == was.handed_out, "applying in front of a snapshot");
    CHECK(now.last_ticket >= was.last_ticket && now.persisted_ticket >= was.persisted_ticket);
    if (now.term == was.term) CHECK(now.vote == was.vote || !was.vote, "a vote changed its mind");
    if (now.cut_lowest) {
      CHECK(now.cut_lowest > was.commit, "a committed entry was cut");
      CHECK(was.role != Role::kLeader || now.term > was.term, "a leader cut its log");
      CHECK(now.persisted >= std::min(was.persisted, now.cut_lowest - 1));
    } else {
      CHECK(now.window_prev >= was.window_prev);
      CHECK(now.last_index >= was.last_index && now.persisted >= was.persisted,
            "the log became shorter without a cut");
      CHECK(now.last_term >= was.last_term);
      CHECK(now.membership_index >= was.membership_index);
    }
    if (was.role == Role::kLeader && now.role == Role::kLeader) {
      CHECK(now.term == was.term && now.term_start == was.term_start);
    }
  }

  std::optional<CoreFacts> before_;
  StoreId leader_of_term_;
};

}  // namespace quorate::raft
