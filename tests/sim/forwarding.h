// How a client's write gets to the leader and its answer back: the production's two halves
// (ingress::Ingress and services::WriteIntake) and, between them, streams of the simulated network
// in place of services/forwarder's gRPC.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ingress/ingress.h"
#include "services/ttl_expirer.h"
#include "services/write_intake.h"
#include "tests/sim/context.h"

namespace quorate::sim {

class Process;

class Forwarding {
 public:
  struct Ports {
    Context* context = nullptr;
    Machine* machine = nullptr;
    Process* process = nullptr;
    storage::State* state = nullptr;
    // A new boot number, durable; nullopt: the process has died over it.
    std::function<std::optional<uint64_t>()> next_boot;
    std::function<void(Micros delay)> wake;  // Run is to be called
  };
  Forwarding(Ports ports, StoreId store, uint64_t boot);
  ~Forwarding();

  void Start(raft::Node* node);

  using WriteDone = std::function<void(const ingress::Outcome&)>;
  ingress::WriteId Write(v1::Command command, Instant deadline, WriteDone done);
  void Cancel(ingress::WriteId id);
  void OnApplied(const std::vector<storage::Applied>& applied);
  void OnStatus(const raft::NodeStatus& status);

  // A stream that began or ended here has broken.
  void OnStreamEnded(const StreamKey& key);

  // One round of the forward thread; returns when, by the world's time, it wants the next.
  Micros Run();

  const ingress::Ingress& ingress() const { return ingress_; }
  const services::WriteIntake& intake() const { return intake_; }
  void AddTo(Report* report) const;

 private:
  class LocalSink;
  class RemoteSink;
  struct Link {
    uint64_t number = 0;  // 0: none
    StoreId leader;
    size_t machine = 0;  // of the leader
    uint64_t leader_life = 0;
    std::shared_ptr<LocalSink> local;  // when this node leads
    bool opened = false;
  };
  void Post(std::function<void()> event);
  bool Step();
  void KeepLink();
  void DropLink(bool failed);
  void Dial();
  bool TakeAndSend();
  void SendLocal(const ingress::Ingress::Output& out);
  void SendRemote(const ingress::Ingress::Output& out);
  void RenewSession();
  // Ends time-to-lives that are over, as services/server's housekeeping does. When next.
  Instant Expire();
  void OnLinkBroken(uint64_t link);
  void OnOpened(uint64_t link, const ingress::AppliedSession& session);
  // Carries an action to the forwarding of another process, in order; or breaks the stream.
  // `link_of_mine`: this end began it (else 0).
  void Carry(size_t machine, uint64_t life, uint64_t link_of_mine, StreamKey stream,
             std::function<void(Forwarding*)> action);
  void OnStreamMessage(const StreamKey& key, bool open, const ingress::SessionId& session,
                       const std::vector<ingress::OutgoingWrite>& writes);

  const Ports ports_;
  const StoreId store_;
  Instant now_;
  ingress::Ingress ingress_;
  services::WriteIntake intake_;
  services::WriteIntake::Leadership leadership_;
  std::vector<std::function<void()>> mailbox_;
  // Lets what outlives this (proposals in the node, messages on their way) find out.
  std::shared_ptr<Forwarding*> alive_;
  std::map<ingress::WriteId, WriteDone> waiting_;
  uint64_t next_id_ = 1;
  Link link_;
  uint64_t links_ = 0;
  Instant redial_at_ = Instant::min();
  Duration redial_backoff_{};
  bool session_wanted_ = false;
  std::map<StreamKey, std::shared_ptr<RemoteSink>> streams_;
  services::TtlExpirer expirer_;
  bool led_ = false;  // when the expirer was asked last
  Instant expire_at_ = Instant::min();
};

}  // namespace quorate::sim
