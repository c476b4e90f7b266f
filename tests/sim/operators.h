// The people who run the cluster: they replace stores whose disks were wiped, and, where the plan
// says so, change the members for no reason at all.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {

class Operators {
 public:
  explicit Operators(Context* context) : context_(context) {}

  void Start() { Again(); }
  // Something has just gone wrong there: the worst moment to change the members, and a common one.
  void OnTrouble(size_t machine);

  // Whether the cluster can do without this machine's disk, by every membership that any process
  // believes in.
  static bool CanLose(const Context& context, size_t machine);
  // Whoever leads in the highest term; null: nobody known.
  static Process* Leader(Context* context);
  // `for_no_reason`: it is a fault, and counts as one when it is done. `done`: perhaps while that
  // process ends.
  static void Propose(Context* context, Process* leader, raft::MembershipChange change,
                      bool for_no_reason = false, std::function<void(bool)> done = nullptr);

 private:
  void Again();
  // Whether they are at work on the members.
  bool Here();
  // The one they ask: mostly the latest leader.
  Process* Asked(std::optional<size_t> machine);
  // `change`: they also want to change the members. `machine`: whom they ask if it leads.
  void Act(bool change, std::optional<size_t> machine = {});
  bool Repair(Process* leader, const raft::Membership& members);
  bool MayAdd(Machine* machine, const raft::Membership& members);
  void LetIn(Process* leader, const raft::Membership& members);
  void ChangeSomething(Process* leader, const raft::Membership& members);
  Machine& SomeMachine();
  void CompactHistory(Process* leader);

  Context* const context_;
  bool here_ = false;
  Micros spell_end_ = 0;
};

}  // namespace quorate::sim
