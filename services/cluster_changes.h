// quorate.v1.Cluster's calls that change something: members, leadership, kept history.
//
// Any node takes them. Changes of members and leader are done by the leader: another node passes
// the call on (Raft.ForwardCall), once, with what is left of the deadline, and gives the client the
// leader's answer, the error's details byte for byte. A compaction and a setting are writes like
// any other, which the asked node sees through.
//
// Retry. Each change is repeated until its outcome is known or the deadline passes, also over a
// change of leaders, because each can be done twice without harm: what is already as asked is a
// success, once an earlier try may have been done. (A removal that finds nobody by that name is
// one, too, then.) A later leader's refusal is final: it judges by a log in which the earlier try
// either is or never will be. When the deadline passes while a try is open the outcome is unknown
// (DEADLINE_EXCEEDED, OUTCOME_UNKNOWN). UNAVAILABLE means, as everywhere, that nothing was done.
//
// The calls are rare and may block for as long as their callers wait: they run on threads of their
// own, and a queue of calls beyond is bounded (RESOURCE_EXHAUSTED, TOO_MANY_CALLS).
//
// Every method may be called from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/client_context.h"
#include "ingress/ingress.h"
#include "quorate/v1/command.pb.h"
#include "quorate/v1/raft.pb.h"
#include "raft/node.h"
#include "services/call_context.h"
#include "services/cluster_change_plan.h"
#include "services/cluster_view.h"
#include "services/read_pool.h"

namespace quorate::services {

class ClusterChanges {
 public:
  // What it works with. All but `view` is called only when the view has a node.
  struct Ports {
    std::function<ClusterView()> view;
    // As raft::Node.
    std::function<void(raft::MembershipChange, raft::Node::ChangeDone)> change;
    std::function<void(StoreId, raft::Node::TransferDone)> transfer;
    // Asks who answers at the address; blocks, for two seconds at most. An error: nobody. `sure`:
    // that is not said because an attempt of a moment ago has failed.
    std::function<absl::StatusOr<v1::IdentifyResponse>(const std::string& address, bool sure)>
        identify;
    // Raft.ForwardCall at that store; blocks. The context has the deadline and metadata.
    std::function<grpc::Status(StoreId leader, grpc::ClientContext* context,
                               v1::ForwardCallRequest request, v1::ForwardCallResponse* response)>
        forward;
    // As Forwarder::Write and Forwarder::Cancel.
    std::function<ingress::WriteId(v1::Command command, Instant deadline,
                                   std::map<std::string, std::string> metadata,
                                   std::function<void(const ingress::Outcome&)> done)>
        write;
    std::function<bool(ingress::WriteId)> cancel;
    // The oldest revision that a page token of this process shows; 0: none.
    std::function<uint64_t()> pinned_revision;
    // How long a call waits for a leader.
    Duration leader_wait = std::chrono::seconds(3);
  };

  explicit ClusterChanges(Ports ports);
  ~ClusterChanges();  // Stop()s

  static bool Knows(std::string_view method);
  // A client's call. `done` runs once, on a thread of its own or, when it is refused, on this one.
  void Handle(std::string_view method, const std::string& request, const CallPtr& call,
              CallDone done);
  // A call that another node passed on. The response's header is the caller's business.
  using ForwardedDone = std::function<void(v1::ForwardCallResponse)>;
  void HandleForwarded(const v1::ForwardCallRequest& request, const CallPtr& call,
                       ForwardedDone done);

  // Ends every call with what is known of it, and refuses later ones. Before node and forwarder.
  void Stop();

 private:
  struct Op;
  using OpPtr = std::shared_ptr<Op>;
  // How one try ended.
  struct Try {
    enum class Kind { kAnswer, kNotLeader, kUnknown } kind = Kind::kNotLeader;
    grpc::Status status;
    std::string response;
  };

  void Start(OpPtr op);
  void Run(const OpPtr& op);
  Try Decide(const OpPtr& op);
  // Until it is answered here, or this node does not lead.
  Try LeadHere(const OpPtr& op);
  Try Forward(const OpPtr& op, StoreId leader);
  Try Compact(const OpPtr& op);
  Try SetSettings(const OpPtr& op);
  // Writes, and waits for the outcome; nullopt: none came in time.
  std::optional<ingress::Outcome> Write(const OpPtr& op, const v1::Command& command);
  // This node is part of a cluster that is born; otherwise why it takes no changes.
  grpc::Status NotBorn(const ClusterView& view) const;
  // As the leader.
  ChangePlan Plan(const OpPtr& op, const ClusterView& view);
  ChangePlan PlanNewcomer(const std::string& address, const ClusterView& view);
  bool StillAnswers(const raft::Member& holder, const ClusterView& view);
  // Who of the others answers as the store that it is.
  std::map<StoreId, v1::IdentifyResponse> AskAll(const std::vector<raft::Member>& members,
                                                 const ClusterView& view, bool sure);
  std::optional<grpc::Status> CheckAlive(const ChangePlan& plan, const ClusterView& view);
  std::optional<Try> TryChange(const OpPtr& op, const ChangePlan& plan, const ClusterView& view);
  std::optional<Try> TryTransfer(const OpPtr& op, const ChangePlan& plan);
  Try Done(const OpPtr& op, StoreId store, raft::Index shown_from);
  grpc::Status CheckPins(uint64_t revision, const ClusterView& view);
  // What a call that ends without an answer is told.
  grpc::Status Interrupted(const OpPtr& op) const;

  const Ports ports_;
  ReadPool pool_;
  std::mutex mutex_;  // protects what follows
  bool stopped_ = false;
  std::set<OpPtr> ops_;
};

}  // namespace quorate::services
