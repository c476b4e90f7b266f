#include "services/raft_service.h"

#include <deque>
#include <optional>
#include <shared_mutex>
#include <utility>

#include "base/check.h"
#include "services/birth_codec.h"
#include "services/errors.h"
#include "services/grpc_dispatch.h"
#include "services/peer_codec.h"
#include "services/system_clock.h"
#include "storage/command_format.h"

namespace quorate::services {
namespace {

// Replies that may wait for one inbound stream; the oldest goes (the leader asks again).
constexpr size_t kRepliesMax = 1024;

grpc::ServerUnaryReactor* Finished(grpc::CallbackServerContext* context,
                                   const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

// A stream that ends before it begins.
template <typename Base>
class RefusedReactor final : public Base {
 public:
  explicit RefusedReactor(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

// --- What handlers share ---

class RaftService::Shared {
 public:
  Shared(StoreId self, BirthHandlers birth, PeerDirectory* directory)
      : self_(self), birth_(std::move(birth)), directory_(directory) {}

  // Lets a handler use what runs for as long as the returned value lives: StopServing waits for it.
  // Empty: it does not run, `status` says why.
  class Use {
   public:
    explicit operator bool() const { return running_ != nullptr; }
    const Running* operator->() const { return running_; }

   private:
    friend class Shared;
    std::shared_lock<std::shared_mutex> lock_;
    const Running* running_ = nullptr;
  };
  Use Enter(grpc::Status* status) {
    Use use;
    use.lock_ = std::shared_lock(mutex_);
    if (running_) {
      use.running_ = &*running_;
    } else if (stopped_) {
      *status =
          MakeError(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN", "this node is shutting down");
    } else {
      *status =
          MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_RUNNING",
                    "this node takes no part yet: it is in no cluster, or it has just started and "
                    "asks its peers first whether another process has its store id");
    }
    return use;
  }

  void Serve(const Running& running) {
    std::unique_lock lock(mutex_);
    CHECK(!running_ && !stopped_, "a node begins to serve once");
    running_ = running;
  }
  void Stop() {
    std::unique_lock lock(mutex_);
    running_.reset();
    stopped_ = true;
  }

  // Nothing runs yet, and may still.
  bool waits() const {
    std::shared_lock lock(mutex_);
    return !running_ && !stopped_;
  }

  StoreId self() const { return self_; }
  const BirthHandlers& birth() const { return birth_; }
  PeerDirectory* directory() const { return directory_; }

 private:
  const StoreId self_;
  const BirthHandlers birth_;
  PeerDirectory* const directory_;
  mutable std::shared_mutex mutex_;
  std::optional<Running> running_;  // protected by mutex_
  bool stopped_ = false;            // protected by mutex_
};

namespace {

using SharedPtr = std::shared_ptr<RaftService::Shared>;

// --- RequestVote and ReadIndex ---

struct VoteCall {
  using Request = v1::RequestVoteRequest;
  using Response = v1::RequestVoteResponse;
  using Reply = raft::RequestVoteReply;
  static uint64_t Add(PeerTransport* transport, PeerTransport::AnswerVote answer) {
    return transport->AddVote(std::move(answer));
  }
  static bool Remove(PeerTransport* transport, uint64_t id) { return transport->RemoveVote(id); }
};

struct ReadCall {
  using Request = v1::ReadIndexRequest;
  using Response = v1::ReadIndexResponse;
  using Reply = raft::ReadIndexReply;
  static uint64_t Add(PeerTransport* transport, PeerTransport::AnswerRead answer) {
    return transport->AddRead(std::move(answer));
  }
  static bool Remove(PeerTransport* transport, uint64_t id) { return transport->RemoveRead(id); }
};

// Waits for the node's reply, which the transport brings, or for the caller to give up.
template <typename Call>
class AskReactor final : public grpc::ServerUnaryReactor {
 public:
  AskReactor(SharedPtr shared, typename Call::Response* response)
      : shared_(std::move(shared)), response_(response) {}

  void Begin(const typename Call::Request& request) {
    grpc::Status status;
    {
      const RaftService::Shared::Use use = shared_->Enter(&status);
      if (use) status = CheckHeader(request.header(), {use->cluster, shared_->self()});
      if (status.ok()) status = Ask(request, *use.operator->());
    }
    if (!status.ok()) End(status);
  }

  void OnCancel() override {
    {
      grpc::Status status;
      const RaftService::Shared::Use use = shared_->Enter(&status);
      std::lock_guard lock(mutex_);
      if (use && call_id_ != 0) Call::Remove(use->transport, call_id_);
    }
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override { const std::shared_ptr<AskReactor> last = std::move(me_); }

 private:
  friend class quorate::services::RaftService;

  grpc::Status Ask(const typename Call::Request& request, const RaftService::Running& running) {
    const StoreId from(request.header().from_store());
    const v1::PeerHeader header = MakeHeader(running.cluster, shared_->self(), from);
    const uint64_t id = Call::Add(
        running.transport,
        [me = me_, header](const typename Call::Reply& reply) { me->Answer(header, reply); });
    if (id == 0) {
      return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                       "too many questions are being answered");
    }
    bool ended = false;
    {
      std::lock_guard lock(mutex_);
      call_id_ = id;
      ended = ended_;
    }
    if (ended) {  // cancelled before there was anything to remove
      Call::Remove(running.transport, id);
      return grpc::Status::OK;
    }
    auto message = FromProto(request);
    message.call_id = id;
    running.node->Receive({from, shared_->self(), message});
    return grpc::Status::OK;
  }

  void Answer(const v1::PeerHeader& header, const typename Call::Reply& reply) {
    {
      std::lock_guard lock(mutex_);
      if (ended_) return;
      ended_ = true;
    }
    ToProto(reply, response_);
    *response_->mutable_header() = header;
    Finish(grpc::Status::OK);
  }

  void End(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(ended_, true)) return;
    }
    Finish(status);
  }

  const SharedPtr shared_;
  typename Call::Response* const response_;  // valid until Finish
  // Keeps this alive for gRPC; the transport's closure holds another reference.
  std::shared_ptr<AskReactor> me_;
  std::mutex mutex_;
  uint64_t call_id_ = 0;  // protected by mutex_
  bool ended_ = false;    // protected by mutex_
};

// --- AppendEntries ---

// A leader's stream to this node. Messages go to the node as they come; replies come from the
// transport's thread.
class AppendReactor final
    : public grpc::ServerBidiReactor<v1::AppendEntriesRequest, v1::AppendEntriesResponse> {
 public:
  explicit AppendReactor(SharedPtr shared) : shared_(std::move(shared)) {}

  void Begin(std::shared_ptr<AppendReactor> me) {
    me_ = std::move(me);
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    const grpc::Status status = Take();
    request_.Clear();
    if (!status.ok()) return End(status);
    StartRead(&request_);
  }

  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!ok) replies_.clear();
    }
    if (ok) {
      WriteNext();
    } else {
      End(grpc::Status::CANCELLED);
    }
    MaybeFinish();
  }

  void OnDone() override {
    Leave();
    const std::shared_ptr<AppendReactor> last = std::move(me_);
  }

 private:
  // Gives the message to the node.
  grpc::Status Take() {
    grpc::Status status;
    const RaftService::Shared::Use use = shared_->Enter(&status);
    if (!use) return status;
    status = CheckHeader(request_.header(), {use->cluster, shared_->self()});
    if (!status.ok()) return status;
    const StoreId from(request_.header().from_store());
    if (!peer_) {
      peer_ = from;
      header_ = MakeHeader(use->cluster, shared_->self(), from);
      inbound_ = use->transport->AddInbound(
          peer_, [me = me_](const raft::AppendEntriesReply& reply) { me->Reply(reply); });
    }
    std::optional<raft::AppendEntries> message = FromProto(std::move(request_));
    if (from != peer_ || !message) {
      return MakeError(grpc::StatusCode::INVALID_ARGUMENT, "MALFORMED",
                       from != peer_ ? "the sender changed within the stream"
                                     : "the entries do not follow each other");
    }
    use->node->Receive({from, shared_->self(), std::move(*message)});
    return grpc::Status::OK;
  }

  void Reply(const raft::AppendEntriesReply& reply) {
    {
      std::lock_guard lock(mutex_);
      if (ending_) return;
      replies_.push_back(reply);
      if (replies_.size() > kRepliesMax) replies_.pop_front();
    }
    WriteNext();
  }

  void WriteNext() {
    bool more = false;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || ending_ || replies_.empty()) return;
      response_.Clear();
      ToProto(replies_.front(), &response_);
      replies_.pop_front();
      more = !replies_.empty();
      writing_ = true;
    }
    *response_.mutable_header() = header_;
    grpc::WriteOptions options;
    if (more) options.set_buffer_hint();  // another one follows at once
    StartWrite(&response_, options);
  }

  // The transport must not hold this any longer.
  void Leave() {
    if (!peer_) return;
    grpc::Status status;
    const RaftService::Shared::Use use = shared_->Enter(&status);
    if (use) use->transport->RemoveInbound(peer_, inbound_);
  }

  void End(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (ending_) return;
      ending_ = status;
      replies_.clear();
    }
    Leave();
    MaybeFinish();
  }

  void MaybeFinish() {
    grpc::Status status;
    {
      std::lock_guard lock(mutex_);
      if (!ending_ || writing_ || finished_) return;
      finished_ = true;
      status = *ending_;
    }
    Finish(status);
  }

  const SharedPtr shared_;
  std::shared_ptr<AppendReactor> me_;  // for gRPC; the transport's closure holds another
  // The reading reaction's; constant once the first reply can come.
  StoreId peer_;
  v1::PeerHeader header_;
  uint64_t inbound_ = 0;
  v1::AppendEntriesRequest request_;    // the pending read's
  v1::AppendEntriesResponse response_;  // while writing_: gRPC's

  std::mutex mutex_;
  // Protected by mutex_.
  std::deque<raft::AppendEntriesReply> replies_;
  bool writing_ = false;
  std::optional<grpc::Status> ending_;
  bool finished_ = false;
};

// A leader's stream to this node while it does not run: read once, for the invitation in it.
class InvitationReactor final
    : public grpc::ServerBidiReactor<v1::AppendEntriesRequest, v1::AppendEntriesResponse> {
 public:
  InvitationReactor(SharedPtr shared, grpc::Status refusal)
      : shared_(std::move(shared)), refusal_(std::move(refusal)) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (ok) Consider(request_.header());
    Finish(refusal_);
  }
  void OnDone() override { delete this; }

 private:
  void Consider(const v1::PeerHeader& header) {
    if (StoreId(header.to_store()) != shared_->self() || request_.term() == 0) return;
    // Whatever becomes of it, the leader comes again, and finds this node running or not.
    if (shared_->waits() && shared_->birth().invited) {
      (void)shared_->birth().invited(
          {ClusterId(header.cluster_id()), StoreId(header.from_store())});
    }
  }

  const SharedPtr shared_;
  const grpc::Status refusal_;
  v1::AppendEntriesRequest request_;
};

// A call of quorate.v1.Cluster that another node passed on.
class ChangeReactor final : public grpc::ServerUnaryReactor {
 public:
  ChangeReactor(v1::PeerHeader header, const grpc::CallbackServerContext& context,
                v1::ForwardCallResponse* response)
      : header_(std::move(header)),
        response_(response),
        call_(MakeCallContext(context, kDefaultDeadline)) {}

  // The last thing that is done with it: it may be gone afterwards.
  void Begin(ClusterChanges* changes, const v1::ForwardCallRequest& request) {
    changes->HandleForwarded(request, call_, [this](v1::ForwardCallResponse response) {
      *response_ = std::move(response);
      *response_->mutable_header() = header_;
      Finish(grpc::Status::OK);
    });
  }
  void OnCancel() override { call_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  const v1::PeerHeader header_;
  v1::ForwardCallResponse* const response_;  // valid until Finish
  const CallPtr call_;
};

}  // namespace

// --- The service ---

RaftService::RaftService(StoreId self, BirthHandlers birth, PeerDirectory* directory)
    : shared_(std::make_shared<Shared>(self, std::move(birth), directory)) {}
RaftService::~RaftService() { StopServing(); }

void RaftService::Serve(const Running& running) { shared_->Serve(running); }
void RaftService::StopServing() { shared_->Stop(); }

grpc::ServerUnaryReactor* RaftService::RequestVote(grpc::CallbackServerContext*,
                                                   const v1::RequestVoteRequest* request,
                                                   v1::RequestVoteResponse* response) {
  const auto reactor = std::make_shared<AskReactor<VoteCall>>(shared_, response);
  reactor->me_ = reactor;
  reactor->Begin(*request);
  return reactor.get();
}

grpc::ServerBidiReactor<v1::AppendEntriesRequest, v1::AppendEntriesResponse>*
RaftService::AppendEntries(grpc::CallbackServerContext*) {
  grpc::Status status;
  if (!shared_->Enter(&status)) return new InvitationReactor(shared_, std::move(status));
  const auto reactor = std::make_shared<AppendReactor>(shared_);
  reactor->Begin(reactor);
  return reactor.get();
}

grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* RaftService::Forward(
    grpc::CallbackServerContext* context) {
  grpc::Status status;
  const Shared::Use use = shared_->Enter(&status);
  if (use) return use->forwarder->Serve(context);
  return new RefusedReactor<grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>>(
      status);
}

grpc::ServerUnaryReactor* RaftService::Identify(grpc::CallbackServerContext* context,
                                                const v1::IdentifyRequest* request,
                                                v1::IdentifyResponse* response) {
  const raft::IdentifyRequest question = FromProto(*request);
  if (question.store && question.store != shared_->self()) {
    shared_->directory()->Learn(question.store, question.address, PeerDirectory::Source::kDirect);
  }
  ToProto(shared_->birth().identify(question), response);
  if (Links* const links = shared_->birth().links) {
    const Instant now = BootNow();
    // Not every question carries them.
    if (request->links_size() > 0) {
      links->OnQuestion(question.store, FromProto(request->links()), now);
    }
    ToProto(links->Own(now), response->mutable_links());
  }
  response->mutable_header()->set_to_store(question.store.value());
  response->set_command_format(storage::kCommandFormat);
  response->set_membership_version(raft::kMembershipVersion);
  if (const auto& pinned = shared_->birth().pinned_revision) {
    response->set_pinned_revision(pinned());
  }
  return Finished(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* RaftService::Found(grpc::CallbackServerContext* context,
                                             const v1::FoundRequest* request,
                                             v1::FoundResponse* response) {
  switch (request->step_case()) {
    case v1::FoundRequest::kPropose:
      ToProto(shared_->birth().propose(ProposeFromProto(*request)), response);
      break;
    case v1::FoundRequest::kBorn:
      ToProto(shared_->birth().born(BornFromProto(*request)), response);
      break;
    case v1::FoundRequest::STEP_NOT_SET:
      return Finished(context, MakeFieldError("REQUIRED", "step", "must be set"));
  }
  response->mutable_header()->set_to_store(request->header().from_store());
  return Finished(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* RaftService::ReadIndex(grpc::CallbackServerContext*,
                                                 const v1::ReadIndexRequest* request,
                                                 v1::ReadIndexResponse* response) {
  const auto reactor = std::make_shared<AskReactor<ReadCall>>(shared_, response);
  reactor->me_ = reactor;
  reactor->Begin(*request);
  return reactor.get();
}

grpc::ServerReadReactor<v1::InstallSnapshotRequest>* RaftService::InstallSnapshot(
    grpc::CallbackServerContext* context, v1::InstallSnapshotResponse* response) {
  grpc::Status status;
  const Shared::Use use = shared_->Enter(&status);
  if (use && use->snapshots != nullptr) return use->snapshots->Serve(context, response);
  if (status.ok()) status = MakeUnimplemented("quorate.v1.Raft/InstallSnapshot");
  return new RefusedReactor<grpc::ServerReadReactor<v1::InstallSnapshotRequest>>(status);
}

grpc::ServerUnaryReactor* RaftService::ForwardCall(grpc::CallbackServerContext* context,
                                                   const v1::ForwardCallRequest* request,
                                                   v1::ForwardCallResponse* response) {
  grpc::Status status;
  const Shared::Use use = shared_->Enter(&status);
  if (use) status = CheckHeader(request->header(), {use->cluster, shared_->self()});
  if (use && status.ok() && use->changes == nullptr) {
    status = MakeUnimplemented("quorate.v1.Raft/ForwardCall");
  }
  if (!status.ok()) return Finished(context, status);
  const StoreId from(request->header().from_store());
  auto* reactor =
      new ChangeReactor(MakeHeader(use->cluster, shared_->self(), from), *context, response);
  reactor->Begin(use->changes, *request);
  return reactor;
}

// Answered at once: that it was heard, not that the node campaigns.
grpc::ServerUnaryReactor* RaftService::TimeoutNow(grpc::CallbackServerContext* context,
                                                  const v1::TimeoutNowRequest* request,
                                                  v1::TimeoutNowResponse* response) {
  grpc::Status status;
  const Shared::Use use = shared_->Enter(&status);
  if (use) status = CheckHeader(request->header(), {use->cluster, shared_->self()});
  if (status.ok()) {
    const StoreId from(request->header().from_store());
    *response->mutable_header() = MakeHeader(use->cluster, shared_->self(), from);
    use->node->Receive({from, shared_->self(), raft::TimeoutNow{raft::Term(request->term())}});
  }
  return Finished(context, status);
}

}  // namespace quorate::services
