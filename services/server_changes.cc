// What the changes of the cluster (services/cluster_changes.h) work with.
#include <chrono>

#include "services/birth_codec.h"
#include "services/errors.h"
#include "services/peer_codec.h"
#include "services/server_impl.h"

namespace quorate::services {
namespace {

constexpr std::chrono::seconds kAskTimeout(2);

}  // namespace

absl::StatusOr<v1::IdentifyResponse> Server::Impl::AskWho(const std::string& address, bool sure) {
  raft::IdentifyRequest question;
  question.store = identity_.store;
  question.nonce = nonce_;
  question.boot = identity_.boot;
  question.name = node_id_;
  if (configuration_.raft) question.address = configuration_.raft->advertise_address;
  v1::IdentifyRequest request;
  ToProto(question, &request);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAskTimeout);
  context.set_wait_for_ready(sure);
  v1::IdentifyResponse response;
  const grpc::Status status =
      channels_.At(address, PeerChannels::Kind::kControl)->Identify(&context, request, &response);
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  const StoreId store(response.header().from_store());
  if (store != identity_.store) {
    addresses_.Learn(store, response.address().empty() ? address : response.address(),
                     PeerDirectory::Source::kDirect);
  }
  return response;
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
  return stub->ForwardCall(context, request, response);
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
  ports.identify = [this](const std::string& address, bool sure) { return AskWho(address, sure); };
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
  if (configuration_.raft) {
    ports.leader_wait = LeaderWaitOf(configuration_.raft->election_timeout_max);
  }
  return ports;
}

}  // namespace quorate::services
