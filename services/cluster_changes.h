// quorate.v1.Cluster's calls that change something: members, leadership, kept history.
//
// Any node takes them. Changes of members and leader are done by the leader: another node passes
// the call on (Raft.ForwardCall), once, with what is left of the deadline, and gives the client the
// leader's answer, the error's details byte for byte. A compaction and a setting are writes like
// any other, which the asked node sees through.
//
// Retry. Each change is repeated until its outcome is known or the deadline passes, also over a
// change of leaders, because each can be done twice without harm: what is already as asked is a
// success, once an earlier try may have been done. (A removal that finds its store gone is one,
// too, then; a repeated change never takes another store of that name.) A later leader's refusal is
// final: it judges by a committed membership, in which the earlier try either is or never will be;
// until its own is committed it says "not now", and never that it is so already. But one that only
// says "not now" (UNAVAILABLE, RESOURCE_EXHAUSTED) is not, for it means, as everywhere, that
// nothing was done: after a try that may be done it is asked again. When the deadline passes while
// the outcome of a try is not known, that is the answer (DEADLINE_EXCEEDED, OUTCOME_UNKNOWN).
//
// The calls are rare and may block while their callers wait, a minute at most: they run on threads
// of their own. Compactions may take as long as their callers say, and have others. A bounded
// number waits for a thread (RESOURCE_EXHAUSTED, TOO_MANY_CALLS); what waits is answered when its
// deadline passes (by Tick), its caller goes away or this node stops.
//
// Every method may be called from any thread.
#pragma once

#include <deque>
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
#include "services/peer_asker.h"
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
    // Asks who answers at the address. `done` runs once, on any thread, within two seconds or once
    // the returned function was called; perhaps before this returns. An error: nobody. `sure`: that
    // is not said because an attempt of a moment ago has failed.
    std::function<std::function<void()>(const std::string& address, bool sure,
                                        PeerAsker::Done done)>
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
    // As leader this node has ended a change or transfer; the words of Metrics::RecordMemberChange.
    // May be null.
    std::function<void(std::string_view kind, std::string_view result)> ended = nullptr;
    // How long a call waits for a leader, and at the leader for an earlier change.
    Duration leader_wait = std::chrono::seconds(3);
    Duration busy_wait = std::chrono::seconds(5);
    // No change of members or leader takes longer: what is not done by then may never be, and the
    // thread is for others.
    Duration change_time_max = std::chrono::minutes(1);
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

  // What this node as the leader of that term wants itself (raft::Autopilot): of that store and no
  // other, in that term or not at all (once it is proposed the log decides), and no vote for a
  // member that was demoted meanwhile.
  void HandleOwn(std::string_view method, const std::string& request, StoreId store,
                 raft::Term term, const CallPtr& call, std::function<void(grpc::Status)> done);

  // Ends calls that wait for a thread and whose time is over. Now and then.
  void Tick();
  // Every call is to end with what is known of it, and later ones are refused. A call that another
  // node passed on is given back to it. Does not block.
  void BeginStop();
  // The same, and waits until all have ended: soon, also when node and forwarder have stopped.
  void Stop();

 private:
  struct Op;
  using OpPtr = std::shared_ptr<Op>;
  // How one try ended.
  struct Try {
    enum class Kind { kAnswer, kNotLeader, kUnknown } kind = Kind::kNotLeader;
    grpc::Status status;
    std::string response;
    StoreId store;  // kNotLeader: whom it is about, for the node that passed it on
  };
  // Threads, and what waits for one.
  struct Lane {
    explicit Lane(size_t count) : threads(count), pool(count, count) {}
    const size_t threads;
    ReadPool pool;
    std::deque<OpPtr> waiting;  // protected by mutex_
    size_t busy = 0;            // protected by mutex_: threads that look for work
  };
  struct Question {
    std::string address;
    bool sure = false;
  };

  static Try Answered(grpc::Status status, std::string response = "") {
    return {Try::Kind::kAnswer, std::move(status), std::move(response), {}};
  }
  static Try NotLeader(StoreId store = {}) { return {Try::Kind::kNotLeader, {}, "", store}; }
  static Try Unknown() { return {Try::Kind::kUnknown, {}, "", {}}; }
  // A call that ends without an answer: what its caller is told.
  static Try Unfinished(Op& op);
  // The status is an answer, and no reason to try again.
  static bool Final(const Op& op, const grpc::Status& status);

  // When a call of that deadline ends at the latest: a little earlier, so that its caller hears
  // why.
  Instant EndOf(const ChangeRequest& request, Instant deadline) const;
  Lane* LaneOf(const Op& op);
  void Start(OpPtr op);
  // Runs what waits until nothing does.
  void Work(Lane* lane);
  Try Decide(const OpPtr& op);
  // Until it is answered here, or this node does not lead.
  Try LeadHere(const OpPtr& op);
  Try Lead(const OpPtr& op);
  Try Forward(const OpPtr& op, StoreId leader);
  Try Pass(const OpPtr& op, StoreId leader, v1::ForwardCallRequest request);
  Try Compact(const OpPtr& op);
  Try SetSettings(const OpPtr& op);
  // Refuses if a member that answers is of a build that does not understand what comes of it.
  std::optional<grpc::Status> CheckBuilds(
      const OpPtr& op, const std::function<bool(const v1::IdentifyResponse&)>& understands);
  std::optional<grpc::Status> CheckReadable(const OpPtr& op, const ChangePlan& plan,
                                            const ClusterView& view);
  // Writes, and waits for the outcome; nullopt: none came in time.
  std::optional<ingress::Outcome> Write(const OpPtr& op, const v1::Command& command);
  // This node is part of a cluster that is born; otherwise why it takes no changes.
  grpc::Status NotBorn(const ClusterView& view) const;
  // As the leader.
  ChangePlan Plan(const OpPtr& op, const ClusterView& view);
  ChangePlan PlanNewcomer(const OpPtr& op, const std::string& address, const ClusterView& view);
  std::optional<grpc::Status> CheckAdvertised(const OpPtr& op, const Newcomer& newcomer);
  bool StillAnswers(const OpPtr& op, const raft::Member& holder, const ClusterView& view);
  // All at the same time; who was given up, because nobody wants the call any more, has not
  // answered.
  std::vector<absl::StatusOr<v1::IdentifyResponse>> Ask(const OpPtr& op,
                                                        const std::vector<Question>& questions);
  // Who of the others answers as the store that it is. `sure`: of whom it is to be.
  std::map<StoreId, v1::IdentifyResponse> AskAll(const OpPtr& op,
                                                 const std::vector<raft::Member>& members,
                                                 const ClusterView& view,
                                                 const std::function<bool(StoreId)>& sure);
  std::optional<grpc::Status> CheckAlive(const OpPtr& op, const ChangePlan& plan,
                                         const ClusterView& view);
  std::optional<Try> TryChange(const OpPtr& op, const ChangePlan& plan, const ClusterView& view);
  std::optional<Try> TryTransfer(const OpPtr& op, const ChangePlan& plan);
  Try Done(const OpPtr& op, StoreId store, raft::Index shown_from);
  // `reached`: what is compacted already; 0: nothing by this call. `silent`: who did not answer the
  // last time, and does not now.
  grpc::Status CheckPins(const OpPtr& op, uint64_t revision, uint64_t reached,
                         std::set<StoreId>* silent);

  const Ports ports_;
  Lane changes_;
  Lane compactions_;
  std::mutex mutex_;  // protects what follows
  bool stopped_ = false;
  std::set<OpPtr> ops_;  // that run, or wait for a thread
};

}  // namespace quorate::services
