#include "services/cluster_changes.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "services/cluster_changes_op.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;

constexpr size_t kChangeThreads = 4;
constexpr size_t kChangeQueueMax = 64;

template <typename Response>
std::string FromHere(const std::string& bytes, const std::string& node_id) {
  Response response;
  if (!response.ParseFromString(bytes)) return bytes;
  response.mutable_header()->set_node_id(node_id);
  return response.SerializeAsString();
}

// A leader's response as this node's own answer.
std::string FromHere(const ChangeRequest& request, const std::string& bytes,
                     const std::string& node_id) {
  switch (request.index()) {
    case 0:
      return FromHere<v1::AddMemberResponse>(bytes, node_id);
    case 1:
      return FromHere<v1::RemoveMemberResponse>(bytes, node_id);
    case 2:
      return FromHere<v1::PromoteMemberResponse>(bytes, node_id);
    case 3:
      return FromHere<v1::DemoteMemberResponse>(bytes, node_id);
    default:
      return FromHere<v1::TransferLeadershipResponse>(bytes, node_id);
  }
}

grpc::Status ChangeUnavailable(std::string_view reason, const std::string& message) {
  return MakeError(StatusCode::UNAVAILABLE, reason, message, {}, kChangeRetryDelay);
}

grpc::Status NoMoreChanges() { return ChangeUnavailable("SHUTTING_DOWN", "this node is stopping"); }

// Not passed on: it goes the way of a client's write.
bool IsWrite(const ChangeRequest& request) {
  return std::holds_alternative<v1::CompactRequest>(request) ||
         std::holds_alternative<v1::SetSettingsRequest>(request);
}

}  // namespace

ClusterChanges::ClusterChanges(Ports ports)
    : ports_(std::move(ports)), pool_(kChangeThreads, kChangeQueueMax) {}

ClusterChanges::~ClusterChanges() { Stop(); }

bool ClusterChanges::Knows(std::string_view method) {
  return EmptyChangeRequest(method).has_value();
}

void ClusterChanges::Handle(std::string_view method, const std::string& request,
                            const CallPtr& call, CallDone done) {
  auto op = std::make_shared<Op>();
  op->method = method;
  op->bytes = request;
  op->request = *EmptyChangeRequest(method);
  op->call = call;
  if (grpc::Status status = ParseChangeRequest(request, &op->request); !status.ok()) {
    return done(std::move(status), "");
  }
  op->done = [done = std::move(done)](Try ended) {
    done(std::move(ended.status), std::move(ended.response));
  };
  Start(std::move(op));
}

void ClusterChanges::HandleForwarded(const v1::ForwardCallRequest& request, const CallPtr& call,
                                     ForwardedDone done) {
  const auto answer = [](const Try& ended) {
    v1::ForwardCallResponse response;
    response.set_not_leader(ended.kind == Try::Kind::kNotLeader);
    response.set_outcome_unknown(ended.kind == Try::Kind::kUnknown);
    if (ended.kind == Try::Kind::kAnswer) {
      response.set_status(ToProto(ended.status).SerializeAsString());
      response.set_response(ended.response);
    }
    return response;
  };
  auto op = std::make_shared<Op>();
  op->method = request.method();
  op->bytes = request.request();
  op->call = call;
  op->forwarded = true;
  op->maybe_done = request.repeat();
  std::optional<ChangeRequest> parsed = EmptyChangeRequest(request.method());
  grpc::Status status = parsed && !IsWrite(*parsed)
                            ? ParseChangeRequest(op->bytes, &*parsed)
                            : MakeUnimplemented("quorate.v1.Cluster/" + op->method);
  if (!status.ok()) return done(answer({Try::Kind::kAnswer, std::move(status), ""}));
  op->request = *std::move(parsed);
  op->done = [done = std::move(done), answer](const Try& ended) { done(answer(ended)); };
  Start(std::move(op));
}

void ClusterChanges::Start(OpPtr op) {
  bool refused = false;
  {
    std::lock_guard lock(mutex_);
    refused = stopped_;
    if (!refused) ops_.insert(op);
  }
  if (refused) return op->done({Try::Kind::kAnswer, NoMoreChanges(), ""});
  // Not from `op` itself: the call outlives it in gRPC's hands.
  op->call->OnCancel([weak = std::weak_ptr<Op>(op)] {
    if (const OpPtr cancelled = weak.lock()) cancelled->Interrupt(false);
  });
  if (pool_.Submit([this, op] { Run(op); })) return;
  {
    std::lock_guard lock(mutex_);
    ops_.erase(op);
    refused = stopped_;
  }
  op->done({Try::Kind::kAnswer,
            refused ? NoMoreChanges()
                    : MakeError(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                                "too many changes of the cluster are waiting already", {},
                                kChangeRetryDelay),
            ""});
}

void ClusterChanges::Stop() {
  std::set<OpPtr> ops;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    ops = ops_;
  }
  for (const OpPtr& op : ops) op->Interrupt(true);
  pool_.Stop();
}

void ClusterChanges::Run(const OpPtr& op) {
  Try ended = Decide(op);
  {
    std::lock_guard lock(mutex_);
    ops_.erase(op);
  }
  const auto done = std::exchange(op->done, nullptr);
  done(std::move(ended));
}

grpc::Status ClusterChanges::Interrupted(const OpPtr& op) const {
  std::lock_guard lock(op->mutex);
  if (op->cancelled && !op->Expired()) {
    return grpc::Status(StatusCode::CANCELLED, "the caller went away");
  }
  if (op->maybe_done) {
    return MakeError(StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN",
                     op->stopping ? "this node stops before it knows whether the change was made"
                                  : "the deadline passed before it was known whether the change "
                                    "was made; asking for it again does no harm");
  }
  if (op->stopping) return NoMoreChanges();
  return MakeError(StatusCode::DEADLINE_EXCEEDED, "CHANGE_DEADLINE",
                   "the deadline passed before the change could begin: nothing was changed");
}

grpc::Status ClusterChanges::NotBorn(const ClusterView& view) const {
  if (view.node == nullptr) {
    return ChangeUnavailable(
        "NOT_BORN", "this node is not part of a cluster yet; its status says what it lacks");
  }
  if (view.node->leader && !view.node->birth_complete) {
    return ChangeUnavailable(
        "NOT_BORN",
        "birth is not complete: nothing is changed before every founder is born and "
        "the leader has recorded it; `quorate status` tells what is lacking");
  }
  return grpc::Status::OK;
}

// Who does it, until it is done.
ClusterChanges::Try ClusterChanges::Decide(const OpPtr& op) {
  Instant led_at = BootNow();  // a leader was known last
  while (op->Wanted()) {
    const ClusterView view = ports_.view();
    const grpc::Status not_born = NotBorn(view);
    if (!not_born.ok()) {
      if (op->maybe_done) {
        op->Pause(kChangePause);
        continue;
      }
      return {Try::Kind::kAnswer, not_born, ""};
    }
    if (std::holds_alternative<v1::CompactRequest>(op->request)) return Compact(op);
    if (std::holds_alternative<v1::SetSettingsRequest>(op->request)) return SetSettings(op);
    Try ended;
    const StoreId leader = view.node->leader;
    if (view.node->role == raft::Role::kLeader) {
      ended = LeadHere(op);
    } else if (op->forwarded) {
      return {Try::Kind::kNotLeader, {}, ""};
    } else if (leader) {
      ended = Forward(op, leader);
    }
    if (ended.kind == Try::Kind::kAnswer) return ended;
    op->maybe_done = op->maybe_done || ended.kind == Try::Kind::kUnknown;
    if (op->forwarded) return ended;
    if (leader) led_at = BootNow();
    if (!op->maybe_done && BootNow() - led_at >= ports_.leader_wait) {
      return {Try::Kind::kAnswer,
              ChangeUnavailable("NO_LEADER", "the cluster has no leader that this node knows of"),
              ""};
    }
    op->Pause(kChangePause);
  }
  if (op->forwarded && op->maybe_done) return {Try::Kind::kUnknown, {}, ""};
  return {Try::Kind::kAnswer, Interrupted(op), ""};
}

// --- Another node leads ---

ClusterChanges::Try ClusterChanges::Forward(const OpPtr& op, StoreId leader) {
  // A transfer to anybody is done when somebody else leads than who was asked.
  const auto* transfer = std::get_if<v1::TransferLeadershipRequest>(&op->request);
  if (transfer != nullptr && transfer->node_id().empty() && op->maybe_done && op->first_leader &&
      leader != op->first_leader) {
    return Done(op, leader, raft::Index());
  }
  if (!op->first_leader) op->first_leader = leader;
  v1::ForwardCallRequest request;
  request.set_method(op->method);
  request.set_request(op->bytes);
  request.set_repeat(op->maybe_done);
  v1::ForwardCallResponse response;
  grpc::ClientContext context;
  const Duration left = std::max(op->call->deadline() - BootNow(), Duration::zero());
  context.set_deadline(std::chrono::system_clock::now() +
                       std::min<Duration>(left, std::chrono::hours(24)));
  for (const auto& [key, value] : op->call->metadata()) context.AddMetadata(key, value);
  {
    std::lock_guard lock(op->mutex);
    if (op->cancelled || op->stopping) return {Try::Kind::kNotLeader, {}, ""};
    op->context = &context;
  }
  const grpc::Status status = ports_.forward(leader, &context, std::move(request), &response);
  {
    std::lock_guard lock(op->mutex);
    op->context = nullptr;
  }
  if (!status.ok()) {
    if (status.error_code() == StatusCode::UNIMPLEMENTED) {
      return {Try::Kind::kAnswer,
              MakeError(StatusCode::UNIMPLEMENTED, "NOT_IN_THIS_BUILD",
                        "the leader runs a build that does not take this call: upgrade it first"),
              ""};
    }
    // With a reason of ours the leader's node has not taken it.
    const bool refused = !DetailsOf(status).reason.empty();
    return {refused ? Try::Kind::kNotLeader : Try::Kind::kUnknown, {}, ""};
  }
  if (response.not_leader()) return {Try::Kind::kNotLeader, {}, ""};
  google::rpc::Status answer;
  if (response.outcome_unknown() || !answer.ParseFromString(response.status())) {
    return {Try::Kind::kUnknown, {}, ""};
  }
  return {Try::Kind::kAnswer, FromProto(answer),
          FromHere(op->request, response.response(), ports_.view().node_id)};
}

}  // namespace quorate::services
