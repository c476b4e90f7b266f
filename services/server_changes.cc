// What the changes of the cluster (services/cluster_changes.h) work with.
#include "services/birth_codec.h"
#include "services/errors.h"
#include "services/peer_codec.h"
#include "services/server_impl.h"

namespace quorate::services {

std::function<void()> Server::Impl::AskWho(const std::string& address, bool sure,
                                           PeerAsker::Done done) {
  raft::IdentifyRequest question;
  question.store = identity_.store;
  question.nonce = nonce_;
  question.boot = identity_.boot;
  question.name = node_id_;
  if (configuration_.raft) question.address = configuration_.raft->advertise_address;
  v1::IdentifyRequest request;
  ToProto(question, &request);
  return asker_.Ask(address, request, sure, std::move(done));
}

grpc::Status Server::Impl::PassOnCall(StoreId leader, grpc::ClientContext* context,
                                      v1::ForwardCallRequest request,
                                      v1::ForwardCallResponse* response) {
  const PeerChannels::Stub stub = channels_.For(leader, PeerChannels::Kind::kControl);
  if (stub == nullptr) {
    return MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER",
                     "the leader's address is not known yet");
  }
  *request.mutable_header() = MakeHeader(engine()->cluster(), identity_.store, leader);
  const grpc::Status status = stub->ForwardCall(context, request, response);
  if (!status.ok() || StoreId(response->header().from_store()) == leader) return status;
  // Whatever that is, its word on what was done is not the leader's.
  return grpc::Status(grpc::StatusCode::INTERNAL, "another store has answered for the leader");
}

ClusterChanges::Ports Server::Impl::MakeChangePorts() {
  ClusterChanges::Ports ports;
  ports.view = [this] { return View(); };
  ports.change = [this](raft::MembershipChange change, raft::Node::ChangeDone done) {
    engine()->node()->ProposeMembership(std::move(change), std::move(done));
  };
  ports.transfer = [this](StoreId target, raft::Node::TransferDone done) {
    engine()->node()->TransferLeadership(target, std::move(done));
  };
  ports.identify = [this](const std::string& address, bool sure, PeerAsker::Done done) {
    return AskWho(address, sure, std::move(done));
  };
  ports.forward = [this](StoreId leader, grpc::ClientContext* context,
                         v1::ForwardCallRequest request, v1::ForwardCallResponse* response) {
    return PassOnCall(leader, context, std::move(request), response);
  };
  ports.write = [this](v1::Command command, Instant deadline,
                       std::map<std::string, std::string> metadata,
                       std::function<void(const ingress::Outcome&)> done) {
    return engine()->forwarder()->Write(std::move(command), deadline, std::move(metadata),
                                        std::move(done));
  };
  ports.cancel = [this](ingress::WriteId id) { return engine()->forwarder()->Cancel(id); };
  ports.pinned_revision = [this] { return config_.pinned_revision().value(); };
  ports.ended = [this](std::string_view kind, std::string_view result) {
    metrics_.RecordMemberChange(kind, result);
  };
  if (configuration_.raft) {
    ports.leader_wait = LeaderWaitOf(configuration_.raft->election_timeout_max);
  }
  return ports;
}

}  // namespace quorate::services
