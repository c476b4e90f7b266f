#include "tools/ttl_holder.h"

#include <algorithm>
#include <utility>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/failure.h"
#include "tools/ttl_renewal.h"

namespace quorate::tools {
namespace {

using services::BootNow;

// Of one attempt at one endpoint: several fit into what is left when a third of the time is over.
constexpr Duration kAttemptMin = std::chrono::milliseconds(200);
constexpr Duration kAttemptMax = std::chrono::seconds(2);
constexpr Duration kRoundPause = std::chrono::milliseconds(50);
constexpr Duration kCheckInterval = std::chrono::seconds(1);
constexpr int64_t kKeyStalenessSeconds = 2;

void SetDeadline(grpc::ClientContext* context, Duration timeout) {
  context->set_deadline(std::chrono::system_clock::now() + timeout);
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
  renew_at_ = asked + ttl_ / 3;
  check_at_ = BootNow() + CheckInterval();
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

// Renews every third of the time, and looks for the key in between; what fails is tried again at
// once, at the next endpoint, so that a node that has stopped answering costs one attempt.
void TtlHolder::Renew() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    const Instant next = std::min(renew_at_, check_at_);
    const Duration pause = std::max<Duration>(next - BootNow(), Duration::zero());
    if (changed_.wait_for(lock, pause, [this] { return stopped_; })) return;
    lock.unlock();
    const bool goes_on = renew_at_ <= check_at_ ? RenewOnce() : CheckKeyOnce();
    lock.lock();
    if (!goes_on) return;
  }
}

bool TtlHolder::RenewOnce() {
  const Instant sent = BootNow();
  const size_t count = client_.endpoints().size();
  Endpoint& endpoint = *client_.endpoints()[renew_endpoint_];
  const grpc::Status status = RenewAt(endpoint);
  std::lock_guard lock(mutex_);
  trouble_.clear();
  if (status.ok()) {
    lives_until_ = sent + ttl_;
    failures_ = 0;
    renew_at_ = sent + ttl_ / 3;
    return true;
  }
  trouble_ = Describe({status, endpoint.address});
  if (services::DetailsOf(status).reason == "TTL_NOT_FOUND") {
    lost_ = "it has ended";
    return false;
  }
  renew_endpoint_ = (renew_endpoint_ + 1) % count;
  renew_at_ = BootNow() + (++failures_ % count == 0 ? kRoundPause : Duration::zero());
  return true;
}

bool TtlHolder::CheckKeyOnce() {
  check_at_ = BootNow() + CheckInterval();
  v1::GetRequest request;
  uint64_t revision = 0;
  {
    std::lock_guard lock(mutex_);
    if (key_.empty()) return true;
    request.set_key(key_);
    revision = key_revision_;
  }
  // A node that is behind does not know the key yet, and is not asked to wait for long.
  request.mutable_read()->set_min_revision(revision);
  request.mutable_read()->mutable_max_staleness()->set_seconds(kKeyStalenessSeconds);
  grpc::ClientContext context;
  SetDeadline(&context, Attempt());
  v1::GetResponse response;
  const grpc::Status status =
      client_.endpoints()[check_endpoint_]->config->Get(&context, request, &response);
  const bool gone = services::DetailsOf(status).reason == "KEY_NOT_FOUND";
  if (!status.ok() && !gone) {
    // That a node does not answer, or is behind, is told by the renewals. Another one is asked.
    check_endpoint_ = (check_endpoint_ + 1) % client_.endpoints().size();
    return true;
  }
  const v1::Item& item = response.item();
  if (!gone && item.create_revision() == revision && item.ttl_id() == id_) return true;
  lost_ = gone ? "its key is not there any more" : "its key was put by somebody else";
  return false;
}

Duration TtlHolder::CheckInterval() const { return std::min<Duration>(ttl_ / 3, kCheckInterval); }

Duration TtlHolder::Attempt() const {
  return std::clamp<Duration>(ttl_ / 6, kAttemptMin, kAttemptMax);
}

grpc::Status TtlHolder::RenewAt(Endpoint& endpoint) const {
  grpc::ClientContext context;
  SetDeadline(&context, Attempt());
  std::vector<v1::KeepAliveTtlResponse> answers;
  const grpc::Status status = RenewTtlsAt(endpoint, &context, {id_}, &answers);
  return status.ok() ? StatusOf(answers.front()) : status;
}

}  // namespace quorate::tools
