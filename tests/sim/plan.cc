#include "tests/sim/plan.h"

#include <algorithm>

#include "tests/sim/random.h"

namespace quorate::sim {

const char* FaultName(Fault fault) {
  static constexpr const char* kNames[kFaults] = {
      "loss",     "duplicate",   "reorder",    "partition",     "one-way",   "link-cut",
      "clog",     "power",       "kill",       "crash-in-disk", "pause",     "slow-node",
      "drift",    "long-uptime", "slow-flush", "disk-error",    "disk-full", "wipe",
      "transfer", "membership",  "bit-flip",   "blackout",      "dns",       "move"};
  return kNames[static_cast<size_t>(fault)];
}

namespace {

void DrawNetwork(Random* random, Plan* plan) {
  plan->latency_min = random->Skewed(20, 2000);
  plan->latency_max = plan->latency_min + random->Skewed(20, 5000);
  if (plan->Has(Fault::kLoss)) {
    plan->loss_permille = static_cast<uint32_t>(random->Skewed(1, 200));
  }
  if (plan->Has(Fault::kDuplicate)) {
    plan->duplicate_permille = static_cast<uint32_t>(random->Skewed(1, 300));
  }
  plan->ordered_links = !plan->Has(Fault::kReorder);
  if (plan->Has(Fault::kReorder) && random->OneIn(3)) {
    plan->latency_max = plan->latency_min + random->Skewed(5000, 100'000);
  }
  plan->fault_interval = random->Skewed(200, 10'000) * kMillisecond;
  plan->fault_length = random->Skewed(100, 20'000) * kMillisecond;
  plan->restart_delay = random->Skewed(20, 5000) * kMillisecond;
}

void DrawMachines(Random* random, Plan* plan) {
  plan->step = random->Skewed(1, 100);
  plan->flush_min = random->Skewed(20, 500);
  plan->flush_max = plan->flush_min + random->Skewed(20, 5000);
  plan->apply = random->Skewed(10, 2000);
  if (plan->Has(Fault::kSlowFlush)) {
    plan->slow_flush_permille = static_cast<uint32_t>(random->Skewed(1, 20));
    plan->slow_flush = random->Skewed(50, 5000) * kMillisecond;
  }
  // Beyond 100 permille a lease is not safe, and the product says so.
  if (plan->Has(Fault::kDrift)) plan->drift_ppm = random->Skewed(10, 45'000);
}

void DrawLimits(Random* random, Plan* plan) {
  if (random->OneIn(3)) plan->heartbeat = random->Skewed(20, 50) * kMillisecond;
  if (random->OneIn(4)) {
    // performanceMultiplier: a leader that is cut off leads on for longer.
    const int64_t by = random->Between(2, 10);
    plan->heartbeat *= by;
    plan->election_min *= by;
    plan->election_max *= by;
    plan->calm_max += 10 * plan->election_max;
  }
  const bool tiny = random->OneIn(2);
  plan->window_bytes = tiny ? static_cast<size_t>(random->Skewed(200, 20'000)) : 16u << 20;
  plan->append_bytes =
      random->OneIn(2) ? static_cast<size_t>(random->Skewed(100, 10'000)) : 1u << 20;
  plan->inflight_bytes =
      random->OneIn(3) ? static_cast<size_t>(random->Skewed(200, 20'000)) : 8u << 20;
  plan->inflight_messages = random->OneIn(3) ? static_cast<size_t>(random->Skewed(1, 16)) : 256;
  plan->uncommitted_bytes =
      random->OneIn(4) ? static_cast<size_t>(random->Skewed(2000, 50'000)) : 32u << 20;
  plan->apply_bytes = random->OneIn(3) ? static_cast<size_t>(random->Skewed(100, 5000)) : 4u << 20;
  plan->segment_bytes = static_cast<size_t>(random->Skewed(8, 256)) << 10;
  plan->log_tail_bytes =
      random->OneIn(2) ? static_cast<uint64_t>(random->Skewed(1, 200)) << 10 : 64u << 20;
  if (random->OneIn(4)) {
    // Who is away for seconds needs a snapshot.
    plan->segment_bytes = static_cast<size_t>(random->Between(8, 16)) << 10;
    plan->log_tail_bytes = static_cast<uint64_t>(random->Skewed(1, 8)) << 10;
  }
  plan->log_pinned_bytes = random->OneIn(2) ? plan->log_tail_bytes * 2 : uint64_t{1} << 30;
  plan->cut_interval = random->Skewed(100, 2000) * kMillisecond;
  plan->keep_every = static_cast<uint64_t>(random->Skewed(1, 200));
  plan->leases = random->OneIn(2);
}

// Clocks and timeouts that agree with each other less than they should.
void DrawDisagreement(Random* random, Plan* plan) {
  if (random->OneIn(4)) {
    plan->election_percent_max = random->Between(110, 250);
    plan->calm_max += 10 * plan->election_max;
  }
  const bool wild = random->OneIn(3);
  const int64_t ppm = random->Between(45'000, 300'000);
  if (wild && plan->Has(Fault::kDrift) && !plan->leases) plan->drift_ppm = ppm;
  plan->calm_max = plan->BySlowestClock(plan->calm_max);
}

// More nodes than founders, too: they are let in when the cluster is born.
void DrawBirth(Random* random, Plan* plan) {
  plan->birth = random->OneIn(2);
  if (!plan->birth) return;
  if (plan->spares == 0 && random->OneIn(2)) {
    plan->spares = 1 + random->Below(plan->nodes < 6 ? 2 : 1);
  }
  if (plan->faults == 0) return;
  plan->wrong_founders = random->OneIn(8);
  if (random->OneIn(3)) plan->start_spread = random->Skewed(1, 12) * kSecond;
}

void DrawClients(Random* random, Plan* plan) {
  plan->clients = static_cast<size_t>(random->Between(4, 16));
  plan->keys = static_cast<size_t>(random->Skewed(1, 40));
  plan->value_bytes = static_cast<size_t>(random->Skewed(8, random->OneIn(8) ? 4000 : 200));
  // An entry may be longer than a segment of the log, a window or a message is meant to be.
  const bool huge = random->OneIn(16);
  if (huge) plan->value_bytes = static_cast<size_t>(random->Skewed(5000, 80'000));
  // So that all of them together ask 50 to 200 times a second.
  plan->think = static_cast<Micros>(plan->clients) * kSecond / random->Between(50, 200);
  if (huge) plan->think *= 5;
  plan->deadline = random->Skewed(300, 5000) * kMillisecond;
  plan->read_permille = static_cast<uint32_t>(random->Between(100, 600));
  plan->local_permille = static_cast<uint32_t>(random->Between(0, 200));
}

// Each kind of operation is missing from some runs, and most of others.
void DrawMix(Random* random, Plan* plan) {
  const auto draw = [random](int64_t most) {
    return random->OneIn(4) ? 0u : static_cast<uint32_t>(random->Between(most / 20, most));
  };
  plan->wide_permille = draw(500);
  plan->txn_permille = draw(400);
  plan->ttl_permille = draw(300);
  plan->range_permille = draw(100);
  if (random->OneIn(6)) plan->request_ids = static_cast<uint64_t>(random->Skewed(1, 128));
}

// Faults that choose their moment, and come together.
void DrawTrouble(Random* random, Plan* plan) {
  plan->strike_permille = random->OneIn(3) ? 0 : static_cast<uint32_t>(random->Skewed(20, 600));
  plan->company_permille = random->OneIn(3) ? 0 : static_cast<uint32_t>(random->Between(50, 500));
  plan->calm_in_election = random->OneIn(2);
  if (random->OneIn(2)) {
    plan->operators_here = random->Skewed(1, 2000) * kMillisecond;
    plan->operators_away = random->Skewed(1000, 60'000) * kMillisecond;
  }
  plan->alarm_permille = random->OneIn(3) ? 0 : static_cast<uint32_t>(random->Between(50, 900));
  if (plan->Has(Fault::kReorder) && random->OneIn(2)) {
    plan->late_permille = static_cast<uint32_t>(random->Skewed(1, 50));
  }
}

// (One founder alone is born only where nobody else is shown: then DNS is no matter of chance.)
void DrawDns(Random* random, Plan* plan) {
  if (!plan->birth || plan->nodes < 2 || random->OneIn(4)) return;
  plan->dns = true;
  if (random->OneIn(2)) plan->spares = 1 + random->Below(3);
  plan->spares = std::min(plan->spares, kMachinesMax - plan->nodes);
  plan->stabilisation = random->Skewed(200, 10'000) * kMillisecond;
  plan->autopilot_contact =
      std::max(4 * plan->heartbeat, random->Skewed(500, 10'000) * kMillisecond);
  plan->autopilot_lag = static_cast<uint64_t>(random->Skewed(1, 1000));
  plan->voters_max = static_cast<size_t>(random->Between(1, 7));
  if (plan->faults != 0) {
    plan->Set(Fault::kDns, !random->OneIn(4));
    plan->Set(Fault::kMove, random->OneIn(2));
  }
  if (plan->Has(Fault::kDns)) {
    plan->dns_wrong_permille = static_cast<uint32_t>(random->Skewed(20, 800));
    plan->dns_stale = random->Skewed(100, 60'000) * kMillisecond;
  }
  // Everybody finds everybody; then one after the other is let in, and gets a vote.
  plan->calm_max += 60 * kSecond + 3 * plan->stabilisation + plan->autopilot_contact;
}

}  // namespace

void Plan::Remove(Fault fault) {
  Set(fault, false);
  switch (fault) {
    case Fault::kLoss:
      loss_permille = 0;
      break;
    case Fault::kDuplicate:
      duplicate_permille = 0;
      break;
    case Fault::kReorder:
      ordered_links = true;
      late_permille = 0;
      break;
    case Fault::kSlowFlush:
      slow_flush_permille = 0;
      break;
    case Fault::kDrift:
      drift_ppm = 0;
      break;
    case Fault::kDns:
      dns_wrong_permille = 0;
      break;
    case Fault::kMembership:
      spares = 0;
      break;
    default:
      break;
  }
}

Micros Plan::SendingTime(uint64_t entries) const {
  const size_t entry_bytes = value_bytes + 100;
  const size_t message_bytes = std::max(append_bytes, entry_bytes);
  const uint64_t messages = entries / (message_bytes / entry_bytes) + 1;
  size_t at_once = std::clamp<size_t>(inflight_bytes / message_bytes, 1, inflight_messages);
  if (!ordered_links) at_once = 1;  // one that overtakes is refused
  const Micros round = 2 * HealedLatencyMax() + flush_max + apply;
  return static_cast<Micros>(messages) * round / static_cast<Micros>(at_once);
}

Plan DrawPlan(uint64_t seed) {
  Random random(seed ^ 0x706c616e00000000ULL);
  Plan plan;
  plan.seed = seed;
  // One run in sixteen has no fault at all: what is wrong there is wrong everywhere.
  if (!random.OneIn(16)) {
    const uint64_t how_many = random.Between(1, 3);
    // Those of discovery: DrawDns.
    for (size_t i = 0; i < static_cast<size_t>(Fault::kDns); ++i) {
      plan.Set(static_cast<Fault>(i), random.Below(4) < how_many);
    }
  }
  static constexpr size_t kSizes[] = {1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 6, 7};
  plan.nodes = kSizes[random.Below(std::size(kSizes))];
  if (plan.Has(Fault::kMembership)) plan.spares = random.Below(3);
  plan.minority_stays_down = random.OneIn(2);
  DrawNetwork(&random, &plan);
  DrawMachines(&random, &plan);
  DrawLimits(&random, &plan);
  DrawClients(&random, &plan);
  DrawBirth(&random, &plan);
  DrawMix(&random, &plan);
  DrawTrouble(&random, &plan);
  plan.sqlite = random.OneIn(8);
  Random of_dns(seed ^ 0x646e7300000000ULL);
  DrawDns(&of_dns, &plan);
  DrawDisagreement(&random, &plan);
  // Somebody may have to get everything anew.
  plan.calm_max += plan.SendingTime(
      static_cast<uint64_t>(static_cast<Micros>(plan.clients) * plan.chaos / plan.think));
  return plan;
}

std::string Describe(const Plan& plan) {
  std::string text =
      "seed " + std::to_string(plan.seed) + ": " + std::to_string(plan.nodes) + " nodes, faults:";
  bool any = false;
  for (size_t i = 0; i < kFaults; ++i) {
    if (!plan.Has(static_cast<Fault>(i))) continue;
    text += std::string(" ") + FaultName(static_cast<Fault>(i));
    any = true;
  }
  if (!any) text += " none";
  if (plan.birth) text += plan.wrong_founders ? "; to be born, founders differ" : "; to be born";
  if (plan.dns) text += ", by DNS, " + std::to_string(plan.voters_max) + " votes";
  if (plan.spares > 0) text += ", " + std::to_string(plan.spares) + " spare";
  text += "; latency " + std::to_string(plan.latency_min) + "-" + std::to_string(plan.latency_max) +
          "us, window " + std::to_string(plan.window_bytes) + ", append " +
          std::to_string(plan.append_bytes) + ", tail " + std::to_string(plan.log_tail_bytes) +
          ", clients " + std::to_string(plan.clients) + ", keys " + std::to_string(plan.keys) +
          ", values " + std::to_string(plan.value_bytes);
  if (plan.drift_ppm > 0) text += ", drift " + std::to_string(plan.drift_ppm) + "ppm";
  if (plan.election_percent_max > 100) text += ", own election timeouts";
  return text;
}

}  // namespace quorate::sim
