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
  if (healed_) {
    return std::min(link.latency_min, Plan::kHealedBaseMax) +
           random_->Between(0, Plan::kHealedExtraMax);
  }
  // Most are near the lower end, a few much above.
  const Micros spread = plan_.latency_max - plan_.latency_min + 1;
  Micros extra = random_->Between(0, spread);
  if (random_->OneIn(4)) extra = random_->Between(0, 4 * spread);
  // One goes a long way round.
  if (random_->Chance(plan_.late_permille)) extra += random_->Between(0, 2 * kSecond);
  return link.latency_min + (plan_.ordered_links ? extra / 4 : extra);
}

Network::Trouble Network::Begin(Fault fault) {
  causes_.push_back({fault, false});
  return causes_.size() - 1;
}

void Network::Met(Trouble trouble) {
  Cause& cause = causes_[trouble];
  if (!cause.met) report_->Count(cause.fault);
  cause.met = true;
}

bool Network::IsCut(size_t from, size_t to) {
  const Link& link = links_[from][to];
  if (link.cut_until <= events_->now()) return false;
  Met(link.cut_by);
  return true;
}

bool Network::StillOnItsWay(size_t from, size_t to, Micros sent) {
  const Link& link = links_[from][to];
  if (sent >= link.broken_at) return true;
  Met(link.broken_by);
  return false;
}

Micros Network::Unclogged(const Link& link, Micros at) {
  if (link.clogged_until <= at) return at;
  Met(link.clogged_by);
  return link.clogged_until;
}

Micros Network::Arrival(size_t from, size_t to) {
  Link& link = links_[from][to];
  const Micros now = events_->now();
  if (IsCut(from, to)) return kNever;
  if (!healed_ && random_->Chance(plan_.loss_permille)) {
    report_->Count(Fault::kLoss);
    if (plan_.ordered_links) {
      link.broken_at = now;
      link.cut_until = now + random_->Between(kMillisecond, 50 * kMillisecond);
      link.broken_by = link.cut_by = 0;
    }
    return kNever;
  }
  Micros at = Unclogged(link, now + Latency(link));
  if (plan_.ordered_links) at = std::max(at, link.last_arrival);
  if (link.clogged_until > now) at += random_->Between(0, link.clog_gap);
  if (at < link.last_arrival) report_->Count(Fault::kReorder);
  link.last_arrival = std::max(at, link.last_arrival);
  return at;
}

Micros Network::SecondArrival(size_t from, size_t to) {
  // Nor does a copy get through where nothing does.
  if (healed_ || links_[from][to].cut_until > events_->now()) return kNever;
  if (!random_->Chance(plan_.duplicate_permille)) return kNever;
  report_->Count(Fault::kDuplicate);
  // Soon, or so late that the world has changed.
  const Micros late = random_->OneIn(4) ? random_->Between(0, 2 * kSecond) : 0;
  return events_->now() + Latency(links_[from][to]) + late;
}

Micros Network::StreamArrival(size_t from, size_t to) {
  Link& link = links_[from][to];
  if (IsCut(from, to)) return kNever;
  if (!healed_ && plan_.loss_permille > 0 && random_->Chance(1 + plan_.loss_permille / 20)) {
    return kNever;
  }
  const Micros at = Unclogged(link, events_->now() + Latency(link));
  link.last_stream = std::max(at, link.last_stream);
  return link.last_stream;
}

void Network::Cut(size_t from, size_t to, Micros until, Trouble trouble) {
  Link& link = links_[from][to];
  if (link.cut_until < until) link.cut_by = trouble;
  link.cut_until = std::max(link.cut_until, until);
  link.broken_at = events_->now();
  link.broken_by = trouble;
}

void Network::Clog(size_t from, size_t to, Micros until, Trouble trouble) {
  Link& link = links_[from][to];
  if (link.clogged_until < until) link.clogged_by = trouble;
  link.clogged_until = std::max(link.clogged_until, until);
  link.clog_gap = random_->Skewed(1, 4000) - 1;
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
    Cut(machine, other, kNever, 0);
    Cut(other, machine, kNever, 0);
  }
}

}  // namespace quorate::sim
