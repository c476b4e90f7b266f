// What may be changed about the members, in one step, and why a change is refused (dissertation
// 4.1 to 4.3).
//
// A change that leaves the voters as they are is one entry. Any other goes through a joint
// membership: one entry that needs both majorities, and, appended by whoever leads once the first
// is committed, a second one without the old half. So several voters may come and go in one
// change: a dead one is replaced without passing through a membership that counts it and its
// replacement both.
//
// Pure; used by Core::ProposeMembership.
#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "raft/core/membership.h"
#include "raft/core/types.h"

namespace quorate::raft {

// Exactly one member changes with each; a change is a list of them, all or nothing.
struct MemberStep {
  enum class Kind : uint8_t {
    // A store that is no member becomes a learner. Its name may be that of a voter that it is to
    // replace.
    kAddLearner,
    // A learner becomes a voter. A voter of the same name leaves in the same change.
    kPromote,
    // A voter becomes a learner; until the joint phase ends it votes in the old half. A learner
    // stays one (Member::demoted).
    kDemote,
    kRemove,
  };
  Kind kind = Kind::kAddLearner;
  StoreId store;
  std::string name;     // kAddLearner: 1 to 255 bytes
  std::string address;  // kAddLearner: a hint, at most 512 bytes
  // kPromote: nobody has asked for it, so it is refused (kInvalid) of a member that was demoted.
  bool by_itself = false;
};

struct MembershipChange {
  std::vector<MemberStep> steps;
  // Goes ahead although the voters that answer lately are too few for the new membership. No other
  // rule is waived.
  bool force = false;
  // Not 0: of a leader of this term, or of nobody (kNotLeader): what it was decided by may be
  // otherwise in a later one.
  Term in_term{};
};

enum class ChangeStatus : uint8_t {
  kAccepted,   // in this leader's log, and in force
  kUnchanged,  // the members are already as asked; nothing was appended
  kNotLeader,
  // --- Not now: to be asked again ---
  kNotReady,      // nothing of this term is committed yet
  kInProgress,    // an earlier change is not done: the entry at `index`
  kTransferring,  // leadership is being handed over
  kNotCaughtUp,   // the learner `store` lacks the entries after `match`, up to `last_index`
  // --- Not possible ---
  kUnknownStore,  // `store` is no member
  kNameTaken,     // by `store`, which answers, or which learns under it
  kInvalid,       // `reason`
  kNoVoters,      // nobody would vote
  // Of the `voters` that the new membership would have, `needed` must answer, and `reachable` do.
  kWouldLoseQuorum,
  // --- Only from the driver (raft/node.h) ---
  kUnknown,  // in the log, then leadership was lost: it may come true or not
};

struct ChangeResult {
  ChangeStatus status = ChangeStatus::kAccepted;
  Index index;  // the entry that made the change, or (kInProgress) the one that stands in its way
  Term term;
  StoreId store;  // the one that the refusal is about
  Index match, last_index;
  size_t voters = 0, needed = 0, reachable = 0;
  std::string reason;
};

// The members after `change` (not joint); or why not, as far as the members alone can tell: one of
// kUnknownStore, kNameTaken (by a learner), kInvalid, kNoVoters. REQUIRES: `from` is not joint.
std::variant<Membership, ChangeResult> PlanChange(const Membership& from,
                                                  const MembershipChange& change);

// The entry that begins the change: `to` itself when it has the same voters, else joint.
Membership EnterChange(const Membership& from, const Membership& to);
// The entry that ends it. LeaveJoint(EnterChange(from, to)) == to. REQUIRES: `joint` is joint.
Membership LeaveJoint(const Membership& joint);

}  // namespace quorate::raft
