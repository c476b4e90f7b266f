// Runs raft::Autopilot in a process, in place of services/server_autopilot and the changes of the
// cluster: what it decides is done as there. Whoever is concerned is asked first who it is, over
// the simulated network; what is proposed then is the core's to judge.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "raft/autopilot.h"
#include "raft/birth_messages.h"
#include "raft/core/membership_change.h"
#include "tests/sim/context.h"

namespace quorate::sim {

class Process;

class AutopilotHost {
 public:
  AutopilotHost(Context* context, Process* process);

  // Once the process takes part: looks now and then, until it ends.
  void Start();

 private:
  using Asked = std::function<void(const std::optional<raft::IdentifyReply>&)>;

  void Look();
  // As services' CheckAlive: those who are to vote are asked first. No disk is lost meanwhile: with
  // one that was lost before there would be two at once.
  void Promote(const raft::AutopilotStep& step);
  void LetIn(const raft::AutopilotStep& step);
  bool MayLetIn(const raft::IdentifyReply& reply) const;
  // A member of the newcomer's name that answers keeps it.
  void AskHolders(const raft::AutopilotStep& step, const raft::IdentifyReply& newcomer,
                  std::vector<raft::Member> holders);
  void AskAdvertised(const raft::AutopilotStep& step, const raft::IdentifyReply& newcomer);
  void Add(const raft::AutopilotStep& step, const raft::IdentifyReply& newcomer);
  void Propose(const raft::AutopilotStep& step, raft::MembershipChange change);
  void End(const raft::AutopilotStep& step, bool done);

  Context* const context_;
  Process* const process_;
  raft::Autopilot autopilot_;
  raft::Term term_;  // in which the step under way was decided
};

}  // namespace quorate::sim
