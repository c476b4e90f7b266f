#include "services/birth_client.h"

#include <chrono>
#include <utility>
#include <variant>

#include "services/birth_codec.h"
#include "services/open_calls.h"
#include "services/system_clock.h"

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
  Impl(StoreId self, PeerChannels* channels, PeerDirectory* directory, Links* links)
      : self_(self), channels_(channels), directory_(directory), links_(links) {}

  void Call(const raft::BirthCall& call, Duration timeout, Done done);
  void Stop() { open_.Stop(); }

 private:
  struct Open {
    grpc::ClientContext context;
    PeerChannels::Stub stub;
    v1::IdentifyRequest identify_request;
    v1::IdentifyResponse identify_response;
    v1::FoundRequest found_request;
    v1::FoundResponse found_response;
    Instant began;
    bool is_propose = false;
    Done done;
  };

  void OnIdentified(const Open& open, const grpc::Status& status);
  static void OnFound(const Open& open, const grpc::Status& status);

  const StoreId self_;
  PeerChannels* const channels_;
  PeerDirectory* const directory_;
  Links* const links_;
  OpenCalls<Open> open_;
};

void BirthClient::Impl::Call(const raft::BirthCall& call, Duration timeout, Done done) {
  auto open = std::make_shared<Open>();
  open->done = std::move(done);
  open->stub = channels_->At(call.address, PeerChannels::Kind::kControl);
  open->context.set_deadline(std::chrono::system_clock::now() + timeout);
  if (!open_.Add(open)) return open->done(absl::CancelledError("this node is shutting down"));
  if (const auto* identify = std::get_if<raft::IdentifyRequest>(&call.request)) {
    ToProto(*identify, &open->identify_request);
    open->began = BootNow();
    ToProto(links_->Own(open->began), open->identify_request.mutable_links());
    open->stub->async()->Identify(&open->context, &open->identify_request, &open->identify_response,
                                  [self = shared_from_this(), open](grpc::Status status) mutable {
                                    self->OnIdentified(*open, status);
                                    self->open_.End(std::move(open));
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
                             [self = shared_from_this(), open](grpc::Status status) mutable {
                               OnFound(*open, status);
                               self->open_.End(std::move(open));
                             });
}

void BirthClient::Impl::OnIdentified(const Open& open, const grpc::Status& status) {
  if (!status.ok()) return open.done(FromGrpc(status));
  std::optional<raft::IdentifyReply> reply = FromProto(open.identify_response);
  if (!reply) return open.done(UnknownAnswer());
  if (reply->store && reply->store != self_) {
    directory_->Learn(reply->store, reply->address, PeerDirectory::Source::kDirect);
    const Instant now = BootNow();
    links_->OnAnswer(reply->store, now - open.began, FromProto(open.identify_response.links()),
                     now);
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

BirthClient::BirthClient(StoreId self, PeerChannels* channels, PeerDirectory* directory,
                         Links* links)
    : impl_(std::make_shared<Impl>(self, channels, directory, links)) {}
BirthClient::~BirthClient() { Stop(); }

void BirthClient::Call(const raft::BirthCall& call, Duration timeout, Done done) {
  impl_->Call(call, timeout, std::move(done));
}
void BirthClient::Stop() { impl_->Stop(); }

}  // namespace quorate::services
