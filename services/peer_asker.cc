#include "services/peer_asker.h"

#include <chrono>
#include <utility>

#include "services/open_calls.h"

namespace quorate::services {
namespace {

constexpr std::chrono::seconds kAskTimeout(2);

}  // namespace

class PeerAsker::Impl : public std::enable_shared_from_this<PeerAsker::Impl> {
 public:
  Impl(PeerChannels* channels, PeerDirectory* directory)
      : channels_(channels), directory_(directory) {}

  std::function<void()> Ask(const std::string& address, const v1::IdentifyRequest& request,
                            bool sure, Done done);
  void Stop() { open_.Stop(); }

 private:
  struct Open {
    std::string address;
    grpc::ClientContext context;
    PeerChannels::Stub stub;
    v1::IdentifyRequest request;
    v1::IdentifyResponse response;
    Done done;
  };
  using OpenPtr = std::shared_ptr<Open>;

  void OnAnswer(const Open& open, const grpc::Status& status);

  PeerChannels* const channels_;
  PeerDirectory* const directory_;
  OpenCalls<Open> open_;
};

std::function<void()> PeerAsker::Impl::Ask(const std::string& address,
                                           const v1::IdentifyRequest& request, bool sure,
                                           Done done) {
  auto open = std::make_shared<Open>();
  open->address = address;
  open->request = request;
  open->done = std::move(done);
  open->stub = channels_->At(address, PeerChannels::Kind::kControl);
  open->context.set_deadline(std::chrono::system_clock::now() + kAskTimeout);
  open->context.set_wait_for_ready(sure);
  if (!open_.Add(open)) {
    open->done(absl::CancelledError("this node is shutting down"));
    return [] {};
  }
  std::weak_ptr<Open> weak = open;
  Open& call = *open;
  call.stub->async()->Identify(
      &call.context, &call.request, &call.response,
      [self = shared_from_this(), open = std::move(open)](const grpc::Status& status) mutable {
        self->OnAnswer(*open, status);
        self->open_.End(std::move(open));
      });
  return [weak = std::move(weak)] {
    if (const OpenPtr asked = weak.lock()) asked->context.TryCancel();
  };
}

void PeerAsker::Impl::OnAnswer(const Open& open, const grpc::Status& status) {
  if (!status.ok()) return open.done(absl::UnavailableError(status.error_message()));
  const v1::IdentifyResponse& answer = open.response;
  const StoreId store(answer.header().from_store());
  if (store != StoreId(open.request.header().from_store())) {
    directory_->Learn(store, answer.address().empty() ? open.address : answer.address(),
                      PeerDirectory::Source::kDirect);
  }
  open.done(answer);
}

PeerAsker::PeerAsker(PeerChannels* channels, PeerDirectory* directory)
    : impl_(std::make_shared<Impl>(channels, directory)) {}
PeerAsker::~PeerAsker() { Stop(); }

std::function<void()> PeerAsker::Ask(const std::string& address, const v1::IdentifyRequest& request,
                                     bool sure, Done done) {
  return impl_->Ask(address, request, sure, std::move(done));
}
void PeerAsker::Stop() { impl_->Stop(); }

}  // namespace quorate::services
