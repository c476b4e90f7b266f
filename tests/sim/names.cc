#include "tests/sim/names.h"

#include <algorithm>
#include <utility>

namespace quorate::sim {
namespace {

constexpr Micros kAnswerMax = 20 * kMillisecond;
constexpr Micros kTimeoutMax = 8 * kSecond;  // discovery::ResolveOptions::total_timeout
constexpr Micros kTtlMax = 40 * kSecond;

}  // namespace

void Names::Assign(Machine* machine) {
  if (!machine->address.empty()) return;
  if (!plan_.dns) {
    machine->address = machine->name + ":7000";
    return;
  }
  if (!given_back_.empty() && random_->OneIn(2)) {
    const size_t which = random_->Below(given_back_.size());
    machine->address = given_back_[which];
    given_back_.erase(given_back_.begin() + static_cast<ptrdiff_t>(which));
  } else {
    machine->address = "10.0.0." + std::to_string(++made_) + ":7000";
  }
  if (machine->last_address.empty()) machine->last_address = machine->address;
  if (machine->last_address != machine->address) report_->Count(Fault::kMove);
  machine->last_address = machine->address;
  const auto [holder, first] = last_holder_.emplace(machine->address, machine->number);
  if (holder->second != machine->number) report_->Count(Reached::kAddressTakenOver);
  holder->second = machine->number;
}

void Names::Release(Machine* machine) {
  if (!plan_.Has(Fault::kMove) || machine->address.empty() || !random_->OneIn(2)) return;
  given_back_.push_back(std::exchange(machine->address, ""));
}

Machine* Names::At(const std::string& address) const {
  for (const auto& machine : machines_) {
    if (machine->address == address) return machine.get();
  }
  return nullptr;
}

std::vector<std::string> Names::All() const {
  std::vector<std::string> all;
  for (const auto& machine : machines_) {
    if (!machine->address.empty()) all.push_back(machine->address);
  }
  std::sort(all.begin(), all.end());
  return all;
}

Names::Answer Names::Ask(size_t machine) {
  std::vector<std::string> all = All();
  if (healed_ || !plan_.Has(Fault::kDns)) {
    discovery::Resolution resolution;
    resolution.addresses = std::move(all);
    resolution.ttl = Duration(random_->Between(0, kTtlMax));
    return {std::move(resolution), random_->Between(1, kAnswerMax)};
  }
  Resolver& resolver = resolvers_[machine];
  const Micros now = events_->now();
  if (now >= resolver.until) {
    resolver.shown = all;
    resolver.until = now + random_->Skewed(kMillisecond, plan_.dns_stale);
  }
  Answer answer{Distort(resolver.shown), random_->Between(1, kAnswerMax)};
  if (random_->Chance(plan_.dns_wrong_permille)) {
    answer.after = random_->Skewed(kMillisecond, kTimeoutMax);
  }
  if (!answer.resolution.ok() || answer.resolution->addresses != all) report_->Count(Fault::kDns);
  if (answer.resolution.ok() && resolver.shown != all) report_->Count(Reached::kDnsStale);
  return answer;
}

absl::StatusOr<discovery::Resolution> Names::Distort(std::vector<std::string> shown) {
  discovery::Resolution resolution;
  resolution.ttl = Duration(random_->Between(0, kTtlMax));
  if (random_->Chance(plan_.dns_wrong_permille)) {
    switch (random_->Below(4)) {
      case 0:
        report_->Count(Reached::kDnsFailed);
        if (random_->OneIn(2)) return absl::NotFoundError("no such name");
        return absl::DeadlineExceededError("no server answers");
      case 1:  // what was there once, or never
        shown.push_back("10.0.0." + std::to_string(random_->Between(1, made_ + 2)) + ":7000");
        break;
      default:  // some are missing: they are not there yet, or one of two questions has failed
        std::erase_if(shown, [this](const std::string&) { return random_->OneIn(2); });
        resolution.partial = random_->OneIn(2);
        report_->Count(resolution.partial ? Reached::kDnsPartial : Reached::kDnsIncomplete);
        break;
    }
  }
  std::sort(shown.begin(), shown.end());
  shown.erase(std::unique(shown.begin(), shown.end()), shown.end());
  resolution.addresses = std::move(shown);
  return resolution;
}

}  // namespace quorate::sim
