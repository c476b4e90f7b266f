#include "services/birth_client.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>
#include <variant>

#include "services/birth_codec.h"

namespace quorate::services {
namespace {

absl::Status UnknownAnswer() {
  return absl::UnimplementedError("it answers in a way that this build does not know");
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

class BirthClient::Impl : public std::enable_shared_from_this<BirthClient::Impl> {
 public:
  Impl(StoreId self, PeerChannels* channels, PeerDirectory* directory)
      : self_(self), channels_(channels), directory_(directory) {}

  void Call(const raft::BirthCall& call, Duration timeout, Done done);
  void Stop();

 private:
  struct Open {
    grpc::ClientContext context;
    PeerChannels::Stub stub;
    v1::IdentifyRequest identify_request;
    v1::IdentifyResponse identify_response;
    v1::FoundRequest found_request;
    v1::FoundResponse found_response;
    bool is_propose = false;
    Done done;
  };
  using OpenPtr = std::shared_ptr<Open>;

  void OnIdentified(const Open& open, const grpc::Status& status);
  static void OnFound(const Open& open, const grpc::Status& status);
  void Forget(const OpenPtr& open);

  const StoreId self_;
  PeerChannels* const channels_;
  PeerDirectory* const directory_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::set<OpenPtr> open_;  // protected by mutex_
  bool stopping_ = false;   // protected by mutex_
};

void BirthClient::Impl::Call(const raft::BirthCall& call, Duration timeout, Done done) {
  auto open = std::make_shared<Open>();
  open->done = std::move(done);
  open->stub = channels_->At(call.address, PeerChannels::Kind::kControl);
  open->context.set_deadline(std::chrono::system_clock::now() + timeout);
  bool stopping = false;
  {
    std::lock_guard lock(mutex_);
    stopping = stopping_;
    if (!stopping) open_.insert(open);
  }
  if (stopping) return open->done(absl::CancelledError("this node is shutting down"));
  if (const auto* identify = std::get_if<raft::IdentifyRequest>(&call.request)) {
    ToProto(*identify, &open->identify_request);
    open->stub->async()->Identify(&open->context, &open->identify_request, &open->identify_response,
                                  [self = shared_from_this(), open](grpc::Status status) {
                                    self->OnIdentified(*open, status);
                                    self->Forget(open);
                                  });
    return;
  }
  if (const auto* propose = std::get_if<raft::Propose>(&call.request)) {
    open->is_propose = true;
    ToProto(*propose, self_, &open->found_request);
  } else {
    ToProto(std::get<raft::Born>(call.request), self_, &open->found_request);
  }
  open->stub->async()->Found(&open->context, &open->found_request, &open->found_response,
                             [self = shared_from_this(), open](grpc::Status status) {
                               OnFound(*open, status);
                               self->Forget(open);
                             });
}

void BirthClient::Impl::OnIdentified(const Open& open, const grpc::Status& status) {
  if (!status.ok()) return open.done(FromGrpc(status));
  std::optional<raft::IdentifyReply> reply = FromProto(open.identify_response);
  if (!reply) return open.done(UnknownAnswer());
  if (reply->store && reply->store != self_) {
    directory_->Learn(reply->store, reply->address, PeerDirectory::Source::kDirect);
  }
  open.done(raft::BirthReply(std::move(*reply)));
}

void BirthClient::Impl::OnFound(const Open& open, const grpc::Status& status) {
  if (!status.ok()) return open.done(FromGrpc(status));
  if (open.is_propose) {
    std::optional<raft::PledgeReply> reply = PledgeReplyFromProto(open.found_response);
    if (!reply) return open.done(UnknownAnswer());
    return open.done(raft::BirthReply(std::move(*reply)));
  }
  std::optional<raft::BornReply> reply = BornReplyFromProto(open.found_response);
  if (!reply) return open.done(UnknownAnswer());
  open.done(raft::BirthReply(std::move(*reply)));
}

void BirthClient::Impl::Forget(const OpenPtr& open) {
  std::lock_guard lock(mutex_);
  open_.erase(open);
  if (open_.empty()) ended_.notify_all();
}

void BirthClient::Impl::Stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  const std::set<OpenPtr> open = open_;
  lock.unlock();
  for (const OpenPtr& each : open) each->context.TryCancel();
  lock.lock();
  ended_.wait(lock, [this] { return open_.empty(); });
}

BirthClient::BirthClient(StoreId self, PeerChannels* channels, PeerDirectory* directory)
    : impl_(std::make_shared<Impl>(self, channels, directory)) {}
BirthClient::~BirthClient() { Stop(); }

void BirthClient::Call(const raft::BirthCall& call, Duration timeout, Done done) {
  impl_->Call(call, timeout, std::move(done));
}
void BirthClient::Stop() { impl_->Stop(); }

}  // namespace quorate::services
