// One process's life on a machine: it opens what the disk holds, runs the production node, log and
// forwarding over simulated ports, and ends at any moment.
//
// The node's four jobs and the forward thread are events: each runs a while after it was woken, and
// whatever came in meanwhile is taken along. A job that touches the disk runs at the end of the
// time that the disk needs.
//
// Death. A disk that has stopped (SimulatedDisk::StopAfter) or failed makes the process dead in the
// middle of a step: the step goes on to its end, but nothing leaves any more and nothing comes in.
// Then the world is told and destroys this.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "raft/node.h"
#include "services/caught_up.h"
#include "services/peer_directory.h"
#include "storage/identity.h"
#include "storage/log.h"
#include "tests/sim/autopilot_host.h"
#include "tests/sim/birth_host.h"
#include "tests/sim/context.h"
#include "tests/sim/forwarding.h"
#include "tests/sim/reads.h"
#include "tests/sim/snapshots.h"
#include "tests/sim/state_box.h"
#include "tests/sim/watches.h"

namespace quorate::sim {

class Process {
 public:
  // kLog writes to the log, kFlush ends what is written then: in between time passes.
  enum class Job : uint8_t { kNode, kLog, kFlush, kApply, kLogRead, kForward, kWatch, kBirth };
  static constexpr size_t kJobs = 8;

  Process(Context* context, Machine* machine);
  ~Process();
  Process(const Process&) = delete;

  // Opens identity, log and state. False: this process is dead already.
  //
  // A store that is neither born nor let in waits; and one that is asks first whether somebody has
  // its store id: until then there is no node for anybody, and of what peers say only a leader's
  // first message counts, as an invitation. Where the plan has no birth in it, founders are born by
  // their first start, and others are let in by that message.
  bool Start();

  void Wake(Job job, Micros delay);
  // Runs `action` so much later, and not in a pause; never when this process has ended before.
  void After(Micros delay, std::function<void()> action);
  // Runs `action` of that process now, or after the pause that it is in, if it is still there then.
  static void Run(Context* context, size_t machine, uint64_t life, std::function<void()> action);
  // `cluster`: the sender's.
  void Deliver(raft::Message message, ClusterId cluster);

  // --- For clients on this node ---
  NodeReads* reads() { return &reads_; }
  // Null as long as it does not take part.
  Forwarding* forwarding() { return running_ ? forwarding_.get() : nullptr; }
  // Also null with the light state machine, which keeps no history.
  WatchHost* watches() { return running_ ? watches_.get() : nullptr; }

  // --- For the world ---
  // Null as long as it does not take part.
  raft::Node* node() { return running_ ? node_.get() : nullptr; }
  // Null where the plan has no birth.
  BirthHost* birth() { return birth_.get(); }
  const BirthHost* birth() const { return birth_.get(); }
  services::PeerDirectory* directory() { return &directory_; }
  // Of its log, also while it does not take part; null: there is none.
  std::shared_ptr<const raft::Membership> membership() const {
    return node_ != nullptr ? node_->status()->membership : nullptr;
  }
  StateBox* state() { return state_.get(); }
  bool dead() const { return dead_; }
  // Its log has written what is not durable yet.
  bool flushing() const { return flushing_; }
  uint64_t life() const { return life_; }
  size_t machine() const { return machine_->number; }
  StoreId store() const { return store_; }
  // Durable: its store has caught up with a leader before.
  bool caught_up_once() const { return caught_up_; }
  // 0: in none, or its data is not open yet: it believes in no membership.
  ClusterId cluster() const { return cluster_; }
  // Null while there is no node.
  std::shared_ptr<const raft::NodeStatus> status() const {
    return running_ ? node_->status() : nullptr;
  }
  Snapshots* snapshots() { return &snapshots_; }
  // An error of its disk ends this process; false: it has.
  bool Check(const absl::Status& status, const char* what);
  // To be called when something was done outside of its jobs that the disk may have failed at.
  void AfterStep();

 private:
  class LogPort;
  class StatePort;
  class TransportPort;

  static void Fire(Context* context, uint64_t packed);
  void RunJob(Job job);
  void RunNode();
  static bool IsMoment(const raft::NodeStatus& before, const raft::NodeStatus& after);
  // What the node has published by now, for those who judge it.
  void TakeStatus();
  // As services/server's housekeeping.
  void RecordCaughtUp();
  void EndLog();
  void Die(const char* why);
  void NoticeDamage(const absl::Status& status, const char* what);

  // process_start.cc; false: it has died over it.
  bool OpenIdentity();
  bool MakeDirectories();
  bool StartBorn();
  bool StartBirth();
  // Lets a store that waits into the cluster, where the plan has no birth.
  bool Invited();
  bool CountBoot(const char* what, uint64_t* boot);
  // After a change of the identity.
  bool Recorded(const absl::Status& status, const char* what);
  bool MakeLog(ClusterId cluster, const raft::EntryPtr& first_entry);
  bool OpenEngine();
  bool ProveState();
  bool OpenLog(raft::RecoveredState* recovered);
  void LearnApplied(const std::vector<raft::EntryPtr>& entries);
  bool MakeNode(raft::RecoveredState recovered);
  raft::NodeOptions MakeNodeOptions();
  void BeginRun();

  void OnStatus(const raft::NodeStatus& status);
  void OnApplied(const std::vector<raft::EntryPtr>& entries,
                 const std::vector<storage::Applied>& outcomes);
  // Of the log. `writes`: else it only reads.
  Micros DiskTime(bool writes);
  Micros Slowed(Micros time) const;

  Context* const context_;
  Machine* const machine_;
  const uint64_t life_;
  bool dead_ = false;
  const char* why_dead_ = "";
  bool in_node_step_ = false;
  bool flushing_ = false;
  StoreId store_;
  ClusterId cluster_;

  std::unique_ptr<storage::IdentityFile> identity_;
  std::unique_ptr<storage::Log> log_;
  std::unique_ptr<StateBox> state_;
  std::unique_ptr<LogPort> log_port_;
  std::unique_ptr<StatePort> state_port_;
  std::unique_ptr<TransportPort> transport_port_;
  std::unique_ptr<Forwarding> forwarding_;
  std::unique_ptr<WatchHost> watches_;
  Snapshots snapshots_;
  NodeReads reads_;
  std::unique_ptr<raft::Node> node_;
  bool running_ = false;  // the node takes part
  bool caught_up_ = false;
  std::optional<Micros> whole_as_of_;  // when this process first saw its state whole
  services::CaughtUp first_caught_up_;
  services::PeerDirectory directory_;
  std::unique_ptr<BirthHost> birth_;
  std::unique_ptr<AutopilotHost> autopilot_;
  std::shared_ptr<const raft::NodeStatus> seen_;

  std::array<Micros, kJobs> due_;
};

}  // namespace quorate::sim
