#include "discovery/peer_addresses.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace quorate::discovery {

PeerAddresses::PeerAddresses(const Options& options, Instant now)
    : options_(options),
      asked_at_(now - options.refresh_min),
      ask_at_(now),
      answered_at_(now),
      retry_(options.refresh_min) {
  CHECK(options.refresh_min > Duration{} && options.refresh_min <= options.refresh_max);
}

bool PeerAddresses::SetEager(bool eager, Instant now) {
  if (eager == eager_) return false;
  if (eager) OnPeerLost(now);
  eager_ = eager;
  return true;
}

void PeerAddresses::OnPeerLost(Instant now) {
  ask_at_ = std::min(ask_at_, std::max(now, asked_at_ + options_.refresh_min));
}

bool PeerAddresses::TakeQuestion(Instant now) {
  if (asking_ || now < ask_at_) return false;
  asking_ = true;
  asked_at_ = now;
  // Who is lost while the answer is on its way is asked for again after it.
  ask_at_ = now + options_.refresh_max;
  return true;
}

bool PeerAddresses::OnAnswer(const absl::StatusOr<Resolution>& answer, Instant now) {
  CHECK(asking_);
  asking_ = false;
  if (!answer.ok() || answer->addresses.empty()) {
    error_ = answer.ok() ? absl::NotFoundError("an empty answer") : answer.status();
    ask_at_ = std::min(ask_at_, now + (eager_ ? options_.refresh_min : retry_));
    retry_ = std::min(2 * retry_, options_.refresh_max);
    return false;
  }
  error_ = absl::OkStatus();
  Duration next = std::clamp(answer->ttl, options_.refresh_min, options_.refresh_max);
  if (answer->partial) {
    next = retry_;
    retry_ = std::min(2 * retry_, options_.refresh_max);
  } else {
    retry_ = options_.refresh_min;
  }
  ask_at_ = std::min(ask_at_, now + (eager_ ? options_.refresh_min : next));

  const std::vector<std::string> before = addresses();
  const bool first = !std::exchange(known_, true) || (!answer->partial && !whole_);
  for (const std::string& address : answer->addresses) addresses_[address] = {now};
  if (!answer->partial) {
    whole_ = true;
    const Duration passed = now - std::exchange(answered_at_, now);
    for (auto& [address, known] : addresses_) {
      if (known.shown_at != now) known.missed += std::min(passed, options_.refresh_max);
    }
  }
  Forget();
  return first || addresses() != before;
}

void PeerAddresses::Forget() {
  std::erase_if(addresses_,
                [this](const auto& item) { return item.second.missed >= options_.forget_after; });
  while (addresses_.size() > kAddressesMax) {
    auto oldest = addresses_.begin();
    for (auto it = addresses_.begin(); it != addresses_.end(); ++it) {
      if (it->second.shown_at <= oldest->second.shown_at) oldest = it;
    }
    addresses_.erase(oldest);
  }
}

Instant PeerAddresses::NextDeadline() const { return asking_ ? Instant::max() : ask_at_; }

std::vector<std::string> PeerAddresses::addresses() const {
  std::vector<std::string> all;
  all.reserve(addresses_.size());
  for (const auto& [address, known] : addresses_) all.push_back(address);
  return all;
}

}  // namespace quorate::discovery
