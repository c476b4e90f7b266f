#include "tools/watcher.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "services/errors.h"

namespace quorate::tools {
namespace {

using Clock = std::chrono::steady_clock;

// How often somebody is asked whether to stop.
constexpr std::chrono::milliseconds kStopInterval(50);

// Cancels a call that says nothing for too long, or that is to stop.
class Watchdog {
 public:
  Watchdog(grpc::ClientContext* context, std::chrono::milliseconds patience,
           const std::function<bool()>& stop)
      : context_(context), patience_(patience), stop_(stop), thread_([this] { Run(); }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void Heard() {
    const std::lock_guard lock(mutex_);
    heard_at_ = Clock::now();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!ends_) {
      const auto left = heard_at_ + patience_ - Clock::now();
      const bool stop = stop_ && stop_();
      if (stop || left <= Clock::duration::zero()) {
        context_->TryCancel();
        return;
      }
      changed_.wait_for(lock, stop_ ? std::min<Clock::duration>(left, kStopInterval) : left,
                        [this] { return ends_; });
    }
  }

  grpc::ClientContext* const context_;
  const std::chrono::milliseconds patience_;
  const std::function<bool()>& stop_;
  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  Clock::time_point heard_at_ = Clock::now();
  bool ends_ = false;
  std::thread thread_;  // last: it uses the above
};

// Whether another stream, perhaps at another node, may go better.
bool MayGoOn(const CallResult& end) {
  switch (end.status.error_code()) {
    case grpc::StatusCode::OK:  // a proxy's: ours always end with an error
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DATA_LOSS:
      return true;
    default:
      return false;
  }
}

}  // namespace

Watcher::Watcher(Client& client, WatcherOptions options, Hear hear, Broken broken)
    : client_(client),
      options_(std::move(options)),
      hear_(std::move(hear)),
      broken_(std::move(broken)),
      request_(options_.request) {}

void Watcher::Remember(const v1::WatchResponse& message) {
  begun_ = true;
  request_.set_start_revision(message.resume_revision());
  request_.set_with_initial_state(message.resume_revision() == 0);
}

Watcher::Stream Watcher::RunStream(Endpoint& endpoint) {
  grpc::ClientContext context;
  Watchdog watchdog(&context, options_.silence, options_.stop);
  const std::unique_ptr<grpc::ClientReader<v1::WatchResponse>> reader =
      endpoint.config->Watch(&context, request_);
  Stream stream;
  stream.end.address = endpoint.address;
  v1::WatchResponse message;
  while (reader->Read(&message)) {
    watchdog.Heard();
    const std::string& cluster = message.header().cluster_id();
    if (cluster_.empty()) cluster_ = cluster;
    if (cluster != cluster_) {
      context.TryCancel();
      (void)reader->Finish();
      stream.end.status = services::MakeError(
          grpc::StatusCode::FAILED_PRECONDITION, "OTHER_CLUSTER",
          "this node is of cluster " + cluster + ", the watch began in cluster " + cluster_);
      return stream;
    }
    stream.began = true;
    Remember(message);
    if (hear_(message)) continue;
    stream.enough = true;
    context.TryCancel();
    break;
  }
  stream.end.status = reader->Finish();
  return stream;
}

CallResult Watcher::Run() {
  const auto& endpoints = client_.endpoints();
  const auto deadline = Clock::now() + options_.timeout;
  const auto stops = [this] { return options_.stop && options_.stop(); };
  for (size_t at = 0;; ++at) {
    if (stops()) return {grpc::Status(grpc::StatusCode::CANCELLED, "stopped"), ""};
    const auto tried = Clock::now();
    Stream stream = RunStream(*endpoints[at % endpoints.size()]);
    if (stream.enough) {
      stream.end.status = grpc::Status::OK;
      return stream.end;
    }
    if (stops()) continue;
    if (!MayGoOn(stream.end)) return stream.end;
    if (!begun_ && Clock::now() >= deadline) return stream.end;
    if (stream.began) broken_(stream.end, request_.start_revision());
    // A node that begins every stream and ends it at once must not be asked without a pause either.
    const bool brief = !stream.began || Clock::now() - tried < options_.retry_delay;
    if (brief && (at + 1) % endpoints.size() == 0) {
      const auto until = Clock::now() + options_.retry_delay;
      while (!stops() && Clock::now() < until) {
        std::this_thread::sleep_for(std::min(options_.retry_delay, kStopInterval));
      }
    }
  }
}

}  // namespace quorate::tools
