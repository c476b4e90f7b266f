#include "tests/sim/network.h"

#include <algorithm>

namespace quorate::sim {

Network::Network(const Plan& plan, Random* random, EventQueue* events, Report* report)
    : plan_(plan), random_(random), events_(events), report_(report) {
  for (auto& row : links_) {
    for (Link& link : row) link.latency_min = random_->Between(plan.latency_min, plan.latency_max);
  }
}

Micros Network::Latency(const Link& link) {
  // Nobody can lead over a network whose round takes longer than an election.
  if (healed_) {
    return std::min(link.latency_min, 5 * kMillisecond) + random_->Between(0, kMillisecond);
  }
  // Most are near the lower end, a few much above.
  const Micros spread = plan_.latency_max - plan_.latency_min + 1;
  Micros extra = random_->Between(0, spread);
  if (random_->OneIn(4)) extra = random_->Between(0, 4 * spread);
  // One goes a long way round.
  if (random_->Chance(plan_.late_permille)) extra += random_->Between(0, 2 * kSecond);
  return link.latency_min + (plan_.ordered_links ? extra / 4 : extra);
}

Micros Network::Arrival(size_t from, size_t to) {
  Link& link = links_[from][to];
  const Micros now = events_->now();
  if (link.cut_until > now) return kNever;
  if (!healed_ && random_->Chance(plan_.loss_permille)) {
    report_->Count(Fault::kLoss);
    if (plan_.ordered_links) {
      link.broken_at = now;
      link.cut_until = now + random_->Between(kMillisecond, 50 * kMillisecond);
    }
    return kNever;
  }
  Micros at = std::max(now + Latency(link), link.clogged_until);
  if (plan_.ordered_links) at = std::max(at, link.last_arrival);
  if (link.clogged_until > now) at += random_->Between(0, link.clog_gap);
  if (at < link.last_arrival) report_->Count(Fault::kReorder);
  link.last_arrival = std::max(at, link.last_arrival);
  return at;
}

Micros Network::SecondArrival(size_t from, size_t to) {
  if (healed_ || !random_->Chance(plan_.duplicate_permille)) return kNever;
  report_->Count(Fault::kDuplicate);
  // Soon, or so late that the world has changed.
  const Micros late = random_->OneIn(4) ? random_->Between(0, 2 * kSecond) : 0;
  return events_->now() + Latency(links_[from][to]) + late;
}

Micros Network::StreamArrival(size_t from, size_t to) {
  Link& link = links_[from][to];
  const Micros now = events_->now();
  if (link.cut_until > now) return kNever;
  if (!healed_ && plan_.loss_permille > 0 && random_->Chance(1 + plan_.loss_permille / 20)) {
    return kNever;
  }
  link.last_stream = std::max({now + Latency(link), link.clogged_until, link.last_stream});
  return link.last_stream;
}

void Network::Cut(size_t from, size_t to, Micros until) {
  Link& link = links_[from][to];
  link.cut_until = std::max(link.cut_until, until);
  link.broken_at = events_->now();
}

void Network::Clog(size_t from, size_t to, Micros until) {
  links_[from][to].clogged_until = std::max(links_[from][to].clogged_until, until);
  links_[from][to].clog_gap = random_->Skewed(1, 4000) - 1;
}

void Network::Heal() {
  healed_ = true;
  for (auto& row : links_) {
    for (Link& link : row) {
      link.cut_until = link.clogged_until = link.last_arrival = link.last_stream = 0;
    }
  }
}

void Network::CutForGood(size_t machine) {
  for (size_t other = 0; other < kMachinesMax; ++other) {
    Cut(machine, other, kNever);
    Cut(other, machine, kNever);
  }
}

}  // namespace quorate::sim
