#include "services/peer_asker.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <utility>

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
  void Stop();

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

  void OnAnswer(const OpenPtr& open, const grpc::Status& status);

  PeerChannels* const channels_;
  PeerDirectory* const directory_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::set<OpenPtr> open_;  // protected by mutex_
  bool stopping_ = false;   // protected by mutex_
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
  bool stopping = false;
  {
    std::lock_guard lock(mutex_);
    stopping = stopping_;
    if (!stopping) open_.insert(open);
  }
  if (stopping) {
    open->done(absl::CancelledError("this node is shutting down"));
    return [] {};
  }
  open->stub->async()->Identify(&open->context, &open->request, &open->response,
                                [self = shared_from_this(), open](const grpc::Status& status) {
                                  self->OnAnswer(open, status);
                                });
  return [weak = std::weak_ptr<Open>(open)] {
    if (const OpenPtr asked = weak.lock()) asked->context.TryCancel();
  };
}

void PeerAsker::Impl::OnAnswer(const OpenPtr& open, const grpc::Status& status) {
  if (status.ok()) {
    const v1::IdentifyResponse& answer = open->response;
    const StoreId store(answer.header().from_store());
    if (store != StoreId(open->request.header().from_store())) {
      directory_->Learn(store, answer.address().empty() ? open->address : answer.address(),
                        PeerDirectory::Source::kDirect);
    }
    open->done(open->response);
  } else {
    open->done(absl::UnavailableError(status.error_message()));
  }
  std::lock_guard lock(mutex_);
  open_.erase(open);
  if (open_.empty()) ended_.notify_all();
}

void PeerAsker::Impl::Stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  const std::set<OpenPtr> open = open_;
  lock.unlock();
  for (const OpenPtr& each : open) each->context.TryCancel();
  lock.lock();
  ended_.wait(lock, [this] { return open_.empty(); });
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
