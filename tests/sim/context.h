// What the parts of one run share. Owned by World; everything here lives as long as the run.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "raft/core/message.h"
#include "tests/sim/birth_checker.h"
#include "tests/sim/events.h"
#include "tests/sim/history.h"
#include "tests/sim/identity_checker.h"
#include "tests/sim/machine.h"
#include "tests/sim/member_decisions.h"
#include "tests/sim/names.h"
#include "tests/sim/network.h"
#include "tests/sim/plan.h"
#include "tests/sim/raft_checker.h"
#include "tests/sim/random.h"
#include "tests/sim/report.h"
#include "tests/sim/trace.h"

namespace quorate::sim {

// A stream of forwarded writes: the link of one process's ingress. Its other end is a leader's.
struct StreamKey {
  size_t machine = 0;
  uint64_t life = 0;
  uint64_t number = 0;
  friend auto operator<=>(const StreamKey&, const StreamKey&) = default;
};

struct Context {
  Context(const Plan& plan_, std::FILE* story)
      : plan(plan_),
        random(plan.seed * 0x9e3779b97f4a7c15ULL + 1),
        trace(&events, story),
        network(plan, &random, &events, &report),
        names(plan, &random, &events, &report, &machines),
        raft_checker(&failure, &report),
        birth_checker(&failure),
        identity_checker(&failure),
        history(plan, &events, &failure, &report) {}

  const Plan plan;
  Random random;
  MemberDecisions decisions;  // before machines, whose processes tell it what they leave unanswered
  EventQueue events;
  Report report;
  Failure failure;
  Trace trace;
  Network network;
  Names names;
  RaftChecker raft_checker;
  BirthChecker birth_checker;
  IdentityChecker identity_checker;
  History history;
  std::vector<std::unique_ptr<Machine>> machines;
  bool calm = false;       // the faults have stopped
  raft::Term handed_over;  // the latest term in which a leader has asked another node to lead
  // Changes of the members that operators have asked for and not heard of yet.
  int changes_open = 0;
  // The latest term in which one ended that may come true or not: its entry may be on its way. A
  // leader of a later term that is ready has settled it.
  raft::Term change_in_doubt;

  // Of a cluster that begins born: its members.
  ClusterId cluster;
  raft::EntryPtr first_entry;

  std::set<StreamKey> broken_streams;
  // Nothing more arrives on it; both ends are told, each in its own time (forwarding.cc).
  void BreakStream(const StreamKey& stream, size_t server, uint64_t server_life);

  // Of whom a leader asks just now whether it can have a vote, unasked by any operator.
  StoreId promoted_next;

  // Of candidates, so far.
  uint64_t campaigns = 0;

  // Something begins or ends at a machine: a good moment for a fault.
  std::function<void(size_t machine)> moment;
  // What a process's transport sends; `from` is its machine.
  std::function<void(size_t from, raft::Message message)> send;
  // An operator stops a machine's process, empties its disk and starts it again.
  std::function<void(size_t machine)> empty_disk;
  // A process has ended by itself or by its disk: World buries it and starts the next one.
  std::function<void(size_t machine, const char* why)> process_ended;

  // A fault of this machine begins; it is counted once, when it makes a difference.
  static void BeginFault(Machine* machine, Fault fault) {
    machine->idle_faults |= uint64_t{1} << static_cast<unsigned>(fault);
  }
  void CountFelt(Machine* machine, Fault fault) {
    const uint64_t bit = uint64_t{1} << static_cast<unsigned>(fault);
    if ((machine->idle_faults & bit) != 0) report.Count(fault);
    machine->idle_faults &= ~bit;
  }

  void RunUntil(Micros until) {
    while (!failure.failed() && events.RunOne(until)) {
    }
  }

  Machine* MachineOf(StoreId store) {
    for (const auto& machine : machines) {
      if (machine->store == store) return machine.get();
    }
    return nullptr;
  }
  // Where that machine's process reaches this store, as far as it knows; null: nowhere, it dials
  // an address where nobody is, or somebody else.
  Machine* Reach(size_t from, StoreId store);
};

}  // namespace quorate::sim
