// Golden scripts: tests/raft/testdata/*.txt, conversations that a newcomer can read as a textbook.
//
// A script is a list of steps. A step is commands, one a line, then a line `----`, then what the
// cluster did, then an empty line. Lines that begin with # are prose. How a line reads:
//
//   a->b Append term=2 prev=3@1 entries=4..6@2 commit=3    a sends this to b; 3@1 is entry 3 of
//   term 1 a: disk #4 term=2 vote=a entries 4..6@2                hand-over (ticket) 4 to a's disk
//   a: disk #4 ... (under way)                             the same on a slow disk; `persist a`
//   ends it a: commit 6 / a: applies 4..6@2 / a: leader in term 2  what changed at a lost: a->b ...
//   dropped, or nobody there to take it
//
// Commands:
//   cluster a b c [learners=d,e] [spares=f] [KEY=N...]
//                         keys: append_bytes window_bytes inflight_bytes inflight_messages
//                         uncommitted_bytes apply_bytes seed; a spare is a store with an empty disk
//   log NODE TERM,TERM,... [term=N] [vote=X]
//                         before `start`: its disk; entry 1 is the membership
//   joint NODE abc->ade   before `start`: its log ends with this joint membership
//   truncate NODE N       while it is down: its disk loses what is after N
//   applied NODE N        before `start`: what its state machine holds
//   start [NODE...]       all, or these
//   stop NODE... | restart NODE...
//                         what is not durable is lost; restart is stop and start
//   timeouts NODE MS-MS   while it is down: its election timeouts are configured like that from now
//   on campaign NODE         time passes until its election timer fires, and only its advance MS
//   time passes, timers fire, nothing is delivered run MS                time passes, timers fire,
//   everything is delivered deliver [FROM->TO | ->TO | FROM->]
//                         what is in flight now, or that part of it, in order
//   settle                deliver until nothing is in flight
//   drop [FROM->TO | ->TO | FROM->]
//                         lose what is in flight, or that part of it
//   repeat FROM->TO       the network doubles what is in flight between them
//   propose NODE PAYLOAD... [count=N] [bytes=N]
//   change NODE [force] [add=x,y] [promote=x] [demote=x] [remove=x]
//                         proposes one change of the members
//   transfer NODE [TARGET]
//                         asks it to hand leadership over
//   compact NODE N        its log loses everything up to N, which is durable
//   send NODE             it sends the next snapshot that it was asked for
//   break NODE            the snapshots that it is sending fail
//   slow NODE disk|apply|reads|snapshots...  fast NODE
//                         a slow disk waits for `persist`, and so on
//   persist NODE [N]  apply NODE [N]  read NODE [N]
//   partition a b | c     who hears whom; `heal` ends it
//   forge FROM->TO append term=N prev=I@T [entries=T,T,...] [commit=N]
//                         a message made by hand; an entry T:a+b-c is a membership with voters a
//                         and b and learner c
//   forge FROM->TO timeout-now term=N
//   status | memberships | peers NODE | fresh NODE... | clock | removed NODE...
//   ask NODE [lease]      asks for a read index (`cluster` has the keys reads and read_rounds)
//   leases on|off         for all nodes
//   lease NODE...         how long each leader's lease lasts
//   quietly COMMAND       does it and prints nothing
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/raft/core_cluster.h"

namespace quorate::raft::testing {

class Script {
 public:
  // Runs the whole text; returns it with the output that the cluster has now. Adds a test failure
  // for what cannot be understood and for what the oracle does not allow.
  std::string Run(const std::string& text);

 private:
  void Execute(const std::string& line);
  // --- by subject ---
  bool Setup(const std::string& command, const std::vector<std::string>& words);
  bool Time(const std::string& command, const std::vector<std::string>& words);
  bool Network(const std::string& command, const std::vector<std::string>& words);
  bool Local(const std::string& command, const std::vector<std::string>& words);
  bool Show(const std::string& command, const std::vector<std::string>& words);
  void MakeCluster(const std::vector<std::string>& words);
  void SetLog(const std::vector<std::string>& words);
  void SetJoint(const std::vector<std::string>& words);
  void Forge(const std::vector<std::string>& words);
  void Propose(const std::vector<std::string>& words);
  void Change(const std::vector<std::string>& words);
  void Transfer(const std::vector<std::string>& words);
  void ShowNode(TestNode& node);

  std::unique_ptr<Cluster> cluster_;
  std::ostringstream out_;
  Instant began_{};
};

}  // namespace quorate::raft::testing
