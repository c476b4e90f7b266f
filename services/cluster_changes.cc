#include "services/cluster_changes.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "services/cluster_changes_op.h"
#include "services/errors.h"
#include "services/read_gate.h"

namespace quorate::services {
namespace {

using grpc::StatusCode;

constexpr size_t kChangeThreads = 4;
constexpr size_t kCompactThreads = 2;
constexpr size_t kChangeQueueMax = 64;  // waiting for one of either kind

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

// Which store it is about is for the leader to say.
bool GoesByName(const ChangeRequest& request) {
  if (const auto* remove = std::get_if<v1::RemoveMemberRequest>(&request)) {
    return remove->store_id().empty();
  }
  return std::holds_alternative<v1::PromoteMemberRequest>(request) ||
         std::holds_alternative<v1::DemoteMemberRequest>(request);
}

grpc::Status ChangeUnavailable(std::string_view reason, const std::string& message) {
  return MakeError(StatusCode::UNAVAILABLE, reason, message, {}, kChangeRetryDelay);
}

grpc::Status NoMoreChanges() { return ChangeUnavailable("SHUTTING_DOWN", "this node is stopping"); }

}  // namespace

ClusterChanges::ClusterChanges(Ports ports)
    : ports_(std::move(ports)), changes_(kChangeThreads), compactions_(kCompactThreads) {}

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
  op->ends = EndOf(op->request, call->deadline());
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
    response.set_store(ended.store.value());
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
  if (!status.ok()) return done(answer(Answered(std::move(status))));
  op->request = *std::move(parsed);
  op->ends = EndOf(op->request, call->deadline());
  op->meant = StoreId(request.store());
  op->name_first = request.has_store() && request.store() == 0;
  op->done = [done = std::move(done), answer](const Try& ended) { done(answer(ended)); };
  Start(std::move(op));
}

void ClusterChanges::HandleOwn(std::string_view method, const std::string& request, StoreId store,
                               raft::Term term, const CallPtr& call,
                               std::function<void(grpc::Status)> done) {
  auto op = std::make_shared<Op>();
  op->method = method;
  op->bytes = request;
  op->request = *EmptyChangeRequest(method);
  op->call = call;
  op->forwarded = true;
  op->own_term = term;
  op->meant = store;
  op->ends = EndOf(op->request, call->deadline());
  if (grpc::Status status = ParseChangeRequest(request, &op->request); !status.ok()) {
    return done(std::move(status));
  }
  op->done = [done = std::move(done)](Try ended) {
    if (ended.kind == Try::Kind::kAnswer) return done(std::move(ended.status));
    const bool unknown = ended.kind == Try::Kind::kUnknown;
    done(grpc::Status(StatusCode::ABORTED,
                      unknown ? "it is not known whether it was done" : "this node leads no more"));
  };
  Start(std::move(op));
}

Instant ClusterChanges::EndOf(const ChangeRequest& request, Instant deadline) const {
  const Instant now = BootNow();
  const Duration left = std::max(deadline - now, Duration::zero());
  deadline -= std::min(kReadDeadlineMargin, left / 4);
  if (std::holds_alternative<v1::CompactRequest>(request)) return deadline;
  return std::min(deadline, now + ports_.change_time_max);
}

ClusterChanges::Lane* ClusterChanges::LaneOf(const Op& op) {
  return std::holds_alternative<v1::CompactRequest>(op.request) ? &compactions_ : &changes_;
}

void ClusterChanges::Start(OpPtr op) {
  Lane* const lane = LaneOf(*op);
  bool refused = false;
  bool full = false;
  bool work = false;
  {
    std::lock_guard lock(mutex_);
    refused = stopped_;
    if (lane->waiting.size() >= kChangeQueueMax) {
      for (const OpPtr& other : lane->waiting) {
        if (!other->Waiting()) ops_.erase(other);
      }
      std::erase_if(lane->waiting, [](const OpPtr& other) { return !other->Waiting(); });
      full = lane->waiting.size() >= kChangeQueueMax;
    }
    if (!refused && !full) {
      ops_.insert(op);
      lane->waiting.push_back(op);
      work = lane->busy < lane->threads;
      if (work) ++lane->busy;
    }
  }
  if (refused) {
    op->StopIt();
    return;
  }
  if (full) {
    return op->done(Answered(MakeError(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                                       "too many changes of the cluster are waiting already", {},
                                       kChangeRetryDelay)));
  }
  // Not from `op` itself: the call outlives it in gRPC's hands.
  op->call->OnCancel([weak = std::weak_ptr<Op>(op)] {
    if (const OpPtr cancelled = weak.lock()) cancelled->Cancel();
  });
  // The pool has a place for each that is busy. Once it has stopped the call was ended, too.
  if (!work || lane->pool.Submit([this, lane] { Work(lane); })) return;
  std::lock_guard lock(mutex_);
  --lane->busy;
}

void ClusterChanges::Work(Lane* lane) {
  while (true) {
    OpPtr op;
    bool stopped = false;
    {
      std::lock_guard lock(mutex_);
      stopped = stopped_;
      if (lane->waiting.empty()) {
        --lane->busy;
        return;
      }
      op = std::move(lane->waiting.front());
      lane->waiting.pop_front();
    }
    if (stopped) op->StopIt();
    if (op->Begin()) {
      Try ended = Decide(op);
      std::exchange(op->done, nullptr)(std::move(ended));
    }
    std::lock_guard lock(mutex_);
    ops_.erase(op);
  }
}

void ClusterChanges::Tick() {
  std::vector<OpPtr> late;
  {
    std::lock_guard lock(mutex_);
    for (const Lane* lane : {&changes_, &compactions_}) {
      std::copy_if(lane->waiting.begin(), lane->waiting.end(), std::back_inserter(late),
                   [](const OpPtr& op) { return op->Expired(); });
    }
  }
  for (const OpPtr& op : late) op->GiveUp();
}

void ClusterChanges::BeginStop() {
  std::set<OpPtr> ops;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    ops = ops_;
  }
  for (const OpPtr& op : ops) op->StopIt();
}

void ClusterChanges::Stop() {
  BeginStop();
  changes_.pool.Stop();
  compactions_.pool.Stop();
}

ClusterChanges::Try ClusterChanges::Unfinished(Op& op) {
  // The node that has passed it on sees it through, at the next leader.
  if (op.forwarded) {
    return op.maybe_done ? Unknown() : NotLeader();
  }
  std::lock_guard lock(op.mutex);
  if (op.cancelled && !op.Expired()) {
    return Answered(grpc::Status(StatusCode::CANCELLED, "the caller went away"));
  }
  if (op.maybe_done && op.stopping) {
    return Answered(MakeError(StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN",
                              "this node stops before it knows whether the change was made"));
  }
  if (op.stopping) return Answered(NoMoreChanges());
  const bool by_caller = op.ends + kReadDeadlineMargin >= op.call->deadline();
  const std::string late = by_caller ? "the deadline" : "a minute";
  return Answered(
      op.maybe_done
          ? MakeError(StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN",
                      late + " passed before it was known whether the change was made; asking for "
                             "it again does no harm")
          : MakeError(StatusCode::DEADLINE_EXCEEDED, "CHANGE_DEADLINE",
                      late + " passed before the change could begin: nothing was changed"));
}

// "Not now" says that nothing was done; it does not say so of an earlier try.
bool ClusterChanges::Final(const Op& op, const grpc::Status& status) {
  const bool not_now = status.error_code() == StatusCode::UNAVAILABLE ||
                       status.error_code() == StatusCode::RESOURCE_EXHAUSTED;
  return !not_now || !op.maybe_done;
}

grpc::Status ClusterChanges::NotBorn(const ClusterView& view) const {
  if (view.node == nullptr) {
    return ChangeUnavailable(
        "NOT_BORN", "this node is not part of a cluster yet; its status says what it lacks");
  }
  if (view.node->leader && !view.node->birth_complete && view.birth.joined) {
    return ChangeUnavailable("NOT_CAUGHT_UP",
                             "this node has just been let in and has not caught up with the "
                             "cluster yet: ask another one, or try again");
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
    const StoreId leader = view.node != nullptr ? view.node->leader : StoreId();
    Try ended;
    if (grpc::Status not_born = NotBorn(view); !not_born.ok()) {
      ended = Answered(std::move(not_born));
    } else if (std::holds_alternative<v1::CompactRequest>(op->request)) {
      return Compact(op);
    } else if (std::holds_alternative<v1::SetSettingsRequest>(op->request)) {
      return SetSettings(op);
    } else if (view.node->role == raft::Role::kLeader) {
      ended = LeadHere(op);
    } else if (leader && !op->forwarded) {
      ended = Forward(op, leader);
    }
    const bool answered = ended.kind == Try::Kind::kAnswer;
    if (answered && Final(*op, ended.status)) return ended;
    if (ended.kind == Try::Kind::kUnknown) op->maybe_done = true;
    if (op->forwarded) {
      return answered ? Unknown() : ended;
    }
    if (leader) led_at = BootNow();
    if (!op->maybe_done && BootNow() - led_at >= ports_.leader_wait) {
      return Answered(
          ChangeUnavailable("NO_LEADER", "the cluster has no leader that this node knows of"));
    }
    op->Pause(answered ? kChangeRetryDelay : kChangePause);
  }
  return Unfinished(*op);
}

// --- Another node leads ---

ClusterChanges::Try ClusterChanges::Forward(const OpPtr& op, StoreId leader) {
  // A transfer to anybody is done when somebody else leads than who may have done it.
  const auto* transfer = std::get_if<v1::TransferLeadershipRequest>(&op->request);
  if (transfer != nullptr && transfer->node_id().empty() && op->asked_leader &&
      leader != op->asked_leader) {
    return Done(op, leader, raft::Index());
  }
  v1::ForwardCallRequest request;
  request.set_method(op->method);
  request.set_request(op->bytes);
  request.set_repeat(op->maybe_done);
  // A change of a member by its name alone goes twice: first for which store that is.
  const bool question = !op->meant && GoesByName(op->request);
  if (op->meant || question) request.set_store(op->meant.value());
  Try ended = Pass(op, leader, std::move(request));
  // That does nothing, also when its answer is lost.
  if (question && ended.kind == Try::Kind::kUnknown) return NotLeader();
  if (ended.kind == Try::Kind::kNotLeader && ended.store && !op->meant) op->meant = ended.store;
  if (ended.kind == Try::Kind::kUnknown) op->asked_leader = leader;
  return ended;
}

ClusterChanges::Try ClusterChanges::Pass(const OpPtr& op, StoreId leader,
                                         v1::ForwardCallRequest request) {
  v1::ForwardCallResponse response;
  grpc::ClientContext context;
  const Duration left = std::max(op->ends - BootNow(), Duration::zero());
  context.set_deadline(std::chrono::system_clock::now() +
                       std::min<Duration>(left, std::chrono::hours(24)));
  for (const auto& [key, value] : op->call->metadata()) context.AddMetadata(key, value);
  {
    std::lock_guard lock(op->mutex);
    if (op->cancelled || op->stopping) return {};
    op->context = &context;
  }
  const bool repeat = request.repeat();
  const grpc::Status status = ports_.forward(leader, &context, std::move(request), &response);
  {
    std::lock_guard lock(op->mutex);
    op->context = nullptr;
  }
  if (!status.ok()) {
    if (status.error_code() == StatusCode::UNIMPLEMENTED && !repeat) {
      return Answered(
          MakeError(StatusCode::UNIMPLEMENTED, "NOT_IN_THIS_BUILD",
                    "the leader runs a build that does not take this call: upgrade it first"));
    }
    // With a reason of ours the leader's node has not taken it.
    const bool refused = !DetailsOf(status).reason.empty();
    return refused ? NotLeader() : Unknown();
  }
  if (response.not_leader()) return NotLeader(StoreId(response.store()));
  google::rpc::Status answer;
  if (response.outcome_unknown() || !answer.ParseFromString(response.status())) return Unknown();
  return Answered(FromProto(answer),
                  FromHere(op->request, response.response(), ports_.view().node_id));
}

}  // namespace quorate::services
