// The peer port's service: what other nodes ask of this one (proto/quorate/v1/raft.proto).
//
// Before this node runs (not born yet, waiting to join, or asking its peers at the start) only
// Identify and Found answer; the rest says UNAVAILABLE (NOT_RUNNING). The first message of a
// leader's AppendEntries is looked at all the same: it invites a store that is in no cluster
// (raft/birth.h). Every message's header is
// checked, those of streams too: a wrong cluster or a wrong receiver is rejected, a sender that is
// no member never is.
//
// Handlers run on gRPC's threads and never block there, but Found's and that of an invitation,
// which may write a file.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#include "base/ids.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "raft/birth_messages.h"
#include "raft/node.h"
#include "services/cluster_changes.h"
#include "services/forwarder.h"
#include "services/peer_directory.h"
#include "services/peer_transport.h"
#include "services/snapshot_receiver.h"

namespace quorate::services {

class RaftService final : public v1::Raft::CallbackService {
 public:
  // Birth's side (services runs raft::Birth under its own lock). What a handler must make
  // durable is durable when it returns.
  struct BirthHandlers {
    std::function<raft::IdentifyReply(const raft::IdentifyRequest&)> identify;
    std::function<raft::PledgeReply(const raft::Propose&)> propose;
    std::function<raft::BornReply(const raft::Born&)> born;
    // May be null: nobody is let in.
    std::function<raft::Refusal(const raft::Invitation&)> invited = nullptr;
    // IdentifyResponse.pinned_revision; may be null.
    std::function<uint64_t()> pinned_revision = nullptr;
    Links* links = nullptr;  // outlives the service; may be null
  };
  // `directory` outlives this: inbound Identify calls teach it addresses.
  RaftService(StoreId self, BirthHandlers birth, PeerDirectory* directory);
  ~RaftService() override;

  // From now on the Raft calls answer too. Once.
  struct Running {
    ClusterId cluster;
    raft::Node* node = nullptr;
    PeerTransport* transport = nullptr;
    Forwarder* forwarder = nullptr;
    SnapshotReceiver* snapshots = nullptr;
    ClusterChanges* changes = nullptr;
  };
  void Serve(const Running& running);
  // The Raft calls are refused again (NOT_RUNNING's place is taken by SHUTTING_DOWN) and nothing
  // is given to node, transport or forwarder any more once this has returned. Before the node is
  // destroyed. Identify and Found go on until the server ends.
  void StopServing();

  grpc::ServerUnaryReactor* RequestVote(grpc::CallbackServerContext* context,
                                        const v1::RequestVoteRequest* request,
                                        v1::RequestVoteResponse* response) override;
  grpc::ServerBidiReactor<v1::AppendEntriesRequest, v1::AppendEntriesResponse>* AppendEntries(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* TimeoutNow(grpc::CallbackServerContext* context,
                                       const v1::TimeoutNowRequest* request,
                                       v1::TimeoutNowResponse* response) override;
  grpc::ServerUnaryReactor* Identify(grpc::CallbackServerContext* context,
                                     const v1::IdentifyRequest* request,
                                     v1::IdentifyResponse* response) override;
  grpc::ServerUnaryReactor* Found(grpc::CallbackServerContext* context,
                                  const v1::FoundRequest* request,
                                  v1::FoundResponse* response) override;
  grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* Forward(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* ReadIndex(grpc::CallbackServerContext* context,
                                      const v1::ReadIndexRequest* request,
                                      v1::ReadIndexResponse* response) override;

  grpc::ServerUnaryReactor* ForwardCall(grpc::CallbackServerContext* context,
                                        const v1::ForwardCallRequest* request,
                                        v1::ForwardCallResponse* response) override;
  grpc::ServerReadReactor<v1::InstallSnapshotRequest>* InstallSnapshot(
      grpc::CallbackServerContext* context, v1::InstallSnapshotResponse* response) override;

  // What the handlers share: outlives the service in the hands of open streams.
  class Shared;

 private:
  const std::shared_ptr<Shared> shared_;
};

}  // namespace quorate::services
