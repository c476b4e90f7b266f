// The end of a run: the faults have stopped, perhaps with a minority dead for good, and everything
// must be well again, in stages that have bounds of their own; then it must stay well. At the very
// end everybody loses power in the middle of work, with all that is not durable, and must be well
// again, with all that was acknowledged.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "raft/node.h"
#include "tests/sim/clients.h"
#include "tests/sim/context.h"
#include "tests/sim/watches.h"

namespace quorate::sim {

class Calm {
 public:
  struct Hands {
    std::function<void(size_t machine)> start;  // unless it runs
    // Ends its process, and nobody starts the next one.
    std::function<void(size_t machine)> power_off;
    // Everybody's, with all unsynced data.
    std::function<void()> power_off_all;
  };
  Calm(Context* context, Clients* clients, Watchers* watchers, Hands hands)
      : context_(context), clients_(clients), watchers_(watchers), hands_(std::move(hands)) {}

  // REQUIRES: no fault and no client begins anything any more.
  void Run();
  void LoseAllPowerAtWork();

 private:
  // What this machine has answered since it is calm.
  struct Proof {
    Micros asked = 0;
    bool write = false, linearizable = false, lease = false, local = false;
    bool all() const { return write && linearizable && lease && local; }
  };
  using Status = std::shared_ptr<const raft::NodeStatus>;

  void PowerOffMinority();
  void Begin();
  void BecomeWell(const char* after, bool ttls);
  Micros AnswerBound() const;
  void StaysWell();
  // Something that nobody has promised to end soon keeps them from electing a leader.
  bool IsHindered() const;
  void Ask();
  void AskReads(size_t machine);
  bool IsLeaderReady() const;
  // What is not well, or nothing.
  std::string Lacks(bool ttls) const;
  std::string LacksMember(const raft::Membership& members, const Machine& machine) const;
  std::string WhereEverybodyIs() const;
  void CheckStates();

  Context* const context_;
  Clients* const clients_;
  Watchers* const watchers_;
  const Hands hands_;
  std::vector<Proof> proofs_;  // by machine
};

}  // namespace quorate::sim
