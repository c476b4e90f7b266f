#include "discovery/discovery.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

#include "base/check.h"

namespace quorate::discovery {
namespace {

// The clock port need not be the one that a condition variable waits by.
constexpr Duration kLookAgain = std::chrono::milliseconds(500);

}  // namespace

Discovery::Discovery(Options options, Ports ports)
    : options_(std::move(options)),
      ports_(std::move(ports)),
      addresses_(options_.refresh, ports_.now()) {}

Discovery::~Discovery() {
  Stop();
  if (wake_ >= 0) close(wake_);
}

void Discovery::Start() {
  if (options_.dns.empty()) {
    ports_.changed(options_.peers, true);
    return;
  }
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(wake_ >= 0);
  thread_ = std::thread([this] { Run(); });
}

void Discovery::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  CHECK(write(wake_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void Discovery::SetEager(bool eager) {
  if (options_.dns.empty()) return;
  {
    std::lock_guard lock(mutex_);
    if (!addresses_.SetEager(eager, ports_.now())) return;
  }
  changed_.notify_all();
}

void Discovery::OnPeerLost() {
  if (options_.dns.empty()) return;
  {
    std::lock_guard lock(mutex_);
    addresses_.OnPeerLost(ports_.now());
  }
  changed_.notify_all();
}

void Discovery::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    const Instant now = ports_.now();
    if (addresses_.TakeQuestion(now)) {
      Ask(&lock);
      continue;
    }
    changed_.wait_for(lock, std::clamp(addresses_.NextDeadline() - now, Duration{}, kLookAgain));
  }
}

void Discovery::Ask(std::unique_lock<std::mutex>* lock) {
  lock->unlock();
  ResolveOptions resolve = options_.resolve;
  resolve.cancel = wake_;
  const absl::StatusOr<Resolution> answer = Resolve(options_.dns, resolve);
  lock->lock();
  if (stopped_) return;
  const bool changed = addresses_.OnAnswer(answer, ports_.now());
  const std::vector<std::string> addresses = addresses_.addresses();
  const bool whole = addresses_.whole();
  const absl::Status error = addresses_.error();
  lock->unlock();
  if (error != told_) {
    told_ = error;
    ports_.failed(error);
  }
  if (changed) {
    std::vector<PeerAddress> peers;
    peers.reserve(addresses.size());
    for (const std::string& address : addresses) peers.push_back({address, ""});
    ports_.changed(std::move(peers), whole);
  }
  lock->lock();
}

}  // namespace quorate::discovery
