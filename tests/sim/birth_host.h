// Runs raft::Birth in a process, in place of services/birth_runner, birth_client and
// server_discovery: whom to ask DNS says, where the plan has it, by way of the production's
// discovery::PeerAddresses, and the members do; its record goes into the identity file before
// anything is said, its calls over the simulated network as unary calls (lost, repeated and late;
// an answer finds only the process that asked), and what the birth thread does is a job of the
// process.
//
// Every event that comes in here may end the process: its disk may stop at each write of the
// identity file. The caller then calls Process::AfterStep, as behind every step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "discovery/peer_addresses.h"
#include "raft/birth.h"
#include "raft/node.h"
#include "storage/identity.h"
#include "tests/sim/context.h"

namespace quorate::sim {

class Process;

class BirthHost {
 public:
  struct Ports {
    Context* context = nullptr;
    Machine* machine = nullptr;
    Process* process = nullptr;
    storage::IdentityFile* identity = nullptr;
    // As services/birth_runner's: make log and state, durably; open them; take part in Raft.
    std::function<bool(const raft::BirthOutput::CreateLog&)> create_log;
    std::function<void()> born;
    std::function<void()> run;
    std::function<void(Micros delay)> wake;  // Run is to be called
  };
  BirthHost(const Ports& ports, raft::BirthRecord record, bool birth_complete);

  // What a crash left undone, and the first questions.
  void Start();
  // One round of the birth thread; when, by the world's time, it wants the next.
  Micros Run();

  // A leader's first message to a store that does not take part.
  void OnInvited(const raft::Invitation& invitation);
  // What the node publishes, as the housekeeping passes it on: a while later.
  void OnStatus(const raft::NodeStatus& status);

  // Asks who is there; `done` is told within two seconds, unless this process ends before.
  using Asked = std::function<void(const std::optional<raft::IdentifyReply>&)>;
  void Identify(const std::string& address, Asked done);

  raft::BirthStatus Status() const;
  void OnCaughtUp() { birth_.OnCaughtUp(); }
  std::vector<raft::Newcomer> Newcomers() const { return birth_.Newcomers(Now()); }
  // What this process would say to whoever asks who it is.
  raft::IdentifyReply Describe();
  const raft::BirthRecord& record() const { return birth_.record(); }

 private:
  BirthHost(const Ports& ports, const raft::BirthOptions& options, raft::BirthRecord record);

  // To whom an answer goes.
  struct Caller {
    size_t machine = 0;
    uint64_t life = 0;
    uint64_t call = 0;
    std::string address;  // that it has called
  };
  static BirthHost* Living(Context* context, const Caller& caller);
  static void Carry(Context* context, size_t from, size_t to, bool twice,
                    const std::function<void(bool arrived)>& land);
  static void LandRequest(Context* context, size_t to, std::optional<uint64_t> life,
                          const Caller& caller, const raft::BirthRequest& request);
  static void LandReply(Context* context, const Caller& caller, const raft::BirthReply& reply);
  static void LandFailure(Context* context, const Caller& caller, const char* reason);

  Instant Now() const { return ports_.machine->clock.Now(); }
  // Makes the record durable and keeps the rest for the thread; false: the process has died.
  bool Take();
  void Call(const raft::BirthCall& call);
  void OnRequest(const Caller& caller, const raft::BirthRequest& request);
  void EndAsked(uint64_t call, const std::optional<raft::IdentifyReply>& reply);
  void Note();

  // --- Discovery ---
  void NoteReachable(const std::string& address, bool reachable);
  // Now and then: members come and go, and are heard of elsewhere.
  void KeepAsking();
  void AskAround();
  void Look();
  void LookLater();

  const Ports ports_;
  const raft::IdentifyRequest myself_;
  raft::Birth birth_;
  // Work for the thread.
  std::vector<raft::BirthCall> calls_;
  std::optional<raft::BirthOutput::CreateLog> create_log_;
  std::optional<raft::Membership> membership_;
  bool complete_ = false;
  bool ran_ = false;
  // What was passed on of the node's status.
  std::shared_ptr<const raft::Membership> membership_passed_on_;
  bool completion_passed_on_ = false;
  std::optional<raft::BirthState> noted_;

  const Instant started_;
  discovery::PeerAddresses found_;
  std::vector<raft::PeerAddress> asked_around_;
  bool asked_whole_ = false;
  std::set<std::string> reachable_;
  std::map<uint64_t, Asked> asked_;
  uint64_t asked_count_ = 0;
};

}  // namespace quorate::sim
