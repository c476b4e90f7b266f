// Who may be let into a cluster, and by which steps: what its leader judges by a node's answer to
// "who are you" (raft/birth_messages.h), whether an operator asks for it or autopilot. Who answers
// at all, and who is caught up, only the running cluster can judge.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "raft/birth_messages.h"
#include "raft/core/membership.h"
#include "raft/core/membership_change.h"

namespace quorate::raft {

enum class LetInRefusal : uint8_t {
  kNone = 0,
  kHalted,         // it is about to exit: another process has its store id
  kOtherCluster,   // it belongs to another cluster, or waits for one
  kFindsTwo,       // it hears of two clusters and joins neither
  kPledged,        // it has pledged itself to founding a cluster
  kWouldBeFounder  // it is a founder by its configuration, and has not heard of this cluster
};

LetInRefusal JudgeLetIn(ClusterId cluster, const IdentifyReply& reply);

// It has caught up with this cluster as a member once, and is none: whoever took it out meant that,
// so nothing but an operator lets it in again.
bool WasTakenOut(const Membership& members, const IdentifyReply& reply);

// The other stores of its name that are members. As long as one of them answers the name is taken.
std::vector<Member> NameHolders(const Membership& members, const IdentifyReply& reply);

// It becomes a learner where it says that it is reached; if it does not say that, at `asked_at`. A
// learner of its name goes now; a voter of its name when it is promoted, in one change. REQUIRES:
// it is no member.
std::vector<MemberStep> LetInSteps(const Membership& members, const IdentifyReply& reply,
                                   const std::string& asked_at);

}  // namespace quorate::raft
