#include "tools/ttl_holder.h"

#include <algorithm>
#include <utility>

#include "google/rpc/status.pb.h"
#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/failure.h"

namespace quorate::tools {
namespace {

using services::BootNow;

// Of one attempt at one endpoint: several fit into what is left when a third of the time is over.
constexpr Duration kAttemptMin = std::chrono::milliseconds(200);
constexpr Duration kAttemptMax = std::chrono::seconds(2);
constexpr Duration kRoundPause = std::chrono::milliseconds(50);

void SetDeadline(grpc::ClientContext* context, Duration timeout) {
  context->set_deadline(std::chrono::system_clock::now() + timeout);
}

bool HasReason(const grpc::Status& status, std::string_view reason) {
  return services::DetailsOf(status).reason == reason;
}

}  // namespace

CallResult TtlHolder::Grant() {
  v1::GrantTtlRequest request;
  request.mutable_ttl()->set_seconds(ttl_.count() / 1000);
  request.mutable_ttl()->set_nanos(static_cast<int32_t>(ttl_.count() % 1000) * 1'000'000);
  v1::GrantTtlResponse response;
  const Instant asked = BootNow();
  CallResult result = client_.Write(&v1::Config::Stub::GrantTtl, request, &response);
  if (!result.ok()) return result;
  id_ = response.ttl_id();
  std::lock_guard lock(mutex_);
  lives_until_ = asked + ttl_;
  thread_ = std::thread([this] { Renew(); });
  return result;
}

void TtlHolder::Guard(const std::string& key, uint64_t revision) {
  std::lock_guard lock(mutex_);
  key_ = key;
  key_revision_ = revision;
}

Duration TtlHolder::time_left() const {
  std::lock_guard lock(mutex_);
  return lives_until_ - BootNow();
}

std::string TtlHolder::trouble() const {
  std::lock_guard lock(mutex_);
  return trouble_;
}

void TtlHolder::StopRenewing() {
  std::thread thread;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    thread.swap(thread_);
  }
  changed_.notify_all();
  if (thread.joinable()) thread.join();
}

CallResult TtlHolder::Revoke() {
  StopRenewing();
  v1::RevokeTtlRequest request;
  request.set_ttl_id(id_);
  v1::RevokeTtlResponse response;
  return client_.Write(&v1::Config::Stub::RevokeTtl, request, &response);
}

// Every third of the time; after a failure at once, at the next endpoint, so that a node that has
// stopped answering costs one attempt.
void TtlHolder::Renew() {
  const Duration attempt = std::clamp<Duration>(ttl_ / 6, kAttemptMin, kAttemptMax);
  size_t at = 0;
  size_t failures = 0;
  std::unique_lock lock(mutex_);
  Duration pause = ttl_ / 3;
  while (true) {
    changed_.wait_for(lock, pause, [this] { return stopped_; });
    if (stopped_) return;
    lock.unlock();
    const Instant sent = BootNow();
    Endpoint& endpoint = *client_.endpoints()[at];
    const grpc::Status status = RenewAt(endpoint, attempt);
    const bool gone = HasReason(status, "TTL_NOT_FOUND") || HasReason(status, "KEY_NOT_FOUND");
    lock.lock();
    trouble_.clear();
    if (status.ok()) {
      lives_until_ = sent + ttl_;
      failures = 0;
      pause = std::max<Duration>(ttl_ / 3 - (BootNow() - sent), Duration::zero());
      continue;
    }
    trouble_ = Describe({status, endpoint.address});
    if (gone) {
      ended_ = true;
      return;
    }
    at = (at + 1) % client_.endpoints().size();
    pause = ++failures % client_.endpoints().size() == 0 ? kRoundPause : Duration::zero();
  }
}

grpc::Status TtlHolder::RenewAt(Endpoint& endpoint, Duration timeout) {
  grpc::ClientContext context;
  SetDeadline(&context, timeout);
  const auto stream = endpoint.config->KeepAliveTtl(&context);
  v1::KeepAliveTtlRequest request;
  request.set_ttl_id(id_);
  stream->Write(request);
  stream->WritesDone();
  v1::KeepAliveTtlResponse response;
  const bool answered = stream->Read(&response);
  grpc::Status status = stream->Finish();
  if (!answered) {
    return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer") : status;
  }
  if (response.code() != 0) {
    google::rpc::Status proto;
    if (proto.ParseFromString(response.status())) return services::FromProto(proto);
    return grpc::Status(static_cast<grpc::StatusCode>(response.code()), response.message());
  }
  return CheckKey(endpoint, timeout);
}

// A node that is behind does not know the key yet, and is not asked to wait for long.
grpc::Status TtlHolder::CheckKey(Endpoint& endpoint, Duration timeout) {
  v1::GetRequest request;
  {
    std::lock_guard lock(mutex_);
    if (key_.empty()) return grpc::Status::OK;
    request.set_key(key_);
    request.mutable_read()->set_min_revision(key_revision_);
  }
  grpc::ClientContext context;
  SetDeadline(&context, timeout);
  v1::GetResponse response;
  const grpc::Status status = endpoint.config->Get(&context, request, &response);
  // It was renewed; only that the key is gone counts.
  return HasReason(status, "KEY_NOT_FOUND") ? status : grpc::Status::OK;
}

}  // namespace quorate::tools
