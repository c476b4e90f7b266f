// What one run is to be, drawn from its seed before it begins ("swarm testing": Groce et al., ISSTA
// 2012): which faults there are at all, how strong, how large the cluster and how tight its limits.
// A run that has every fault at its mean finds less than many runs that each have a few.
//
// A plan is plain data: what a failing seed is shrunk to is the same plan with fewer faults.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "tests/sim/events.h"

namespace quorate::sim {

enum class Fault : uint8_t {
  // Network.
  kLoss,       // single messages (of an ordered link: it breaks)
  kDuplicate,  // single messages
  kReorder,    // links do not keep order
  kPartition,  // two or more groups that do not hear each other
  kOneWay,     // some node is not heard, or does not hear
  kLinkCut,    // one link between two nodes, one way or both
  kClog,       // what is on a link arrives much later, all at once
  // Process and machine.
  kPowerFailure,  // unsynced changes are lost, kept or mixed
  kKill,          // the process alone; the page cache stays
  kCrashInDisk,   // between any two disk operations, also while it starts
  kPause,         // what a process has to do waits, for up to seconds
  kSlowNode,      // one node takes many times as long for everything
  kDrift,         // clocks run at different rates
  kLongUptime,    // clocks begin beyond 2^31 milliseconds
  // Disk.
  kSlowFlush,  // flushes take up to seconds: single ones, or all for a while
  kDiskError,  // one operation fails: the process ends
  kDiskFull,   // for a while: the process ends
  kWipe,       // a disk is replaced by an empty one
  // Operators.
  kTransfer,    // leadership is handed over
  kMembership,  // members come and go
  // Disk again.
  kBitFlip,  // in old data of one disk that the others can do without
  // Machines again.
  kBlackout,  // the power of all, or of a majority, at one instant
  // Discovery.
  kDns,   // answers that are late, old, partial or wrong, other ones at each machine
  kMove,  // a machine has another address after a restart
  kCount,
};
inline constexpr size_t kFaults = static_cast<size_t>(Fault::kCount);
const char* FaultName(Fault fault);

inline constexpr size_t kNodesMax = 7;
inline constexpr size_t kMachinesMax = 10;

struct Plan {
  uint64_t seed = 0;
  uint64_t faults = 0;  // bits by Fault
  bool Has(Fault fault) const { return (faults >> static_cast<unsigned>(fault) & 1) != 0; }
  void Set(Fault fault, bool on) {
    const uint64_t bit = uint64_t{1} << static_cast<unsigned>(fault);
    faults = on ? faults | bit : faults & ~bit;
  }

  // Without this fault, and without what only it uses.
  void Remove(Fault fault);

  size_t spares = 0;  // machines that are no founders, and may be let in
  size_t nodes = 3;   // founders
  void SetNodes(size_t count) {
    nodes = count;
    if (count < 2) dns = false;
  }
  // The founders begin with empty disks and found the cluster; else it begins born.
  bool birth = false;
  bool wrong_founders = false;     // one of them is configured with others, until somebody sees it
  Micros start_spread = kSecond;   // within which the machines are started
  Micros chaos = 60 * kSecond;     // then the faults stop
  Micros calm_max = 30 * kSecond;  // and within this everything must be well
  bool minority_stays_down = false;  // also then
  bool power_fails_at_end = true;    // everybody's, when all are well again; not without faults

  // Nodes find each other by DNS, and join and get their votes by themselves; not without a birth.
  bool dns = false;
  uint32_t dns_wrong_permille = 0;  // of answers
  Micros dns_stale = kMillisecond;  // a resolver looks again after this, at most
  Micros stabilisation = 10 * kSecond;
  Micros autopilot_contact = 10 * kSecond;
  uint64_t autopilot_lag = 1000;
  size_t voters_max = 5;

  // Network.
  Micros latency_min = 100, latency_max = 500;
  uint32_t loss_permille = 0, duplicate_permille = 0;
  uint32_t late_permille = 0;  // by up to seconds, where links keep no order
  bool ordered_links = true;
  // Faults that have a moment: on average one in this time, all kinds together.
  Micros fault_interval = 2 * kSecond;
  Micros fault_length = 2 * kSecond;  // of partitions, pauses and the like, at most
  Micros restart_delay = kSecond;     // at most
  // How many of the moments at which something begins or ends bring a fault; how many faults bring
  // another one with them. Besides those above.
  uint32_t strike_permille = 0, company_permille = 0;
  bool calm_in_election = false;  // they stop when there is one
  // Operators change members for spells of up to the first time, and are away between them for up
  // to the second (0: never); and so much trouble brings a change, also while they are away.
  Micros operators_here = kSecond, operators_away = 0;
  uint32_t alarm_permille = 0;

  // Machines.
  Micros step = 5;  // what a step of a thread takes, at most
  Micros flush_min = 50, flush_max = 500;
  Micros apply = 50;
  uint32_t slow_flush_permille = 0;
  Micros slow_flush = kSecond;
  // At most, either way: no more than leases allow for, or where there are none, up to 300,000.
  int64_t drift_ppm = 0;
  // What passes at most while the slowest clock measures this.
  Micros BySlowestClock(Micros time) const {
    return time + time * drift_ppm / (1'000'000 - drift_ppm);
  }

  // Limits of the product: tiny ones too.
  Micros heartbeat = 50 * kMillisecond;
  Micros election_min = 150 * kMillisecond, election_max = 300 * kMillisecond;
  // Each machine is configured with up to so many percent of both, and with others again for some
  // of its starts. 100: all with the same.
  int64_t election_percent_max = 100;
  // In the world's time.
  Micros LongestElection() const {
    return BySlowestClock(election_max * election_percent_max / 100);
  }
  // Of a message without faults. Nobody can lead over a network whose round takes longer than an
  // election.
  static constexpr Micros kHealedBaseMax = 5 * kMillisecond, kHealedExtraMax = kMillisecond;
  Micros HealedLatencyMax() const {
    return std::min(latency_max, kHealedBaseMax) + kHealedExtraMax;
  }
  // What a follower takes at most without faults to get so many entries when little may be on its
  // way at a time: a message waits for the answer to an earlier one.
  Micros SendingTime(uint64_t entries) const;
  size_t window_bytes = 16u << 20;
  size_t append_bytes = 1u << 20;
  size_t inflight_bytes = 8u << 20;
  size_t inflight_messages = 256;
  size_t uncommitted_bytes = 32u << 20;
  size_t apply_bytes = 4u << 20;
  size_t segment_bytes = 1u << 20;
  uint64_t log_tail_bytes = 64u << 20;
  uint64_t log_pinned_bytes = uint64_t{1} << 30;
  Micros cut_interval = kSecond;
  uint64_t keep_every = 64;  // entries between two moments of the state that a crash may find
  bool leases = false;
  bool sqlite = false;  // the production's state machine; else the light one

  // Clients.
  size_t clients = 10;
  size_t keys = 10;
  size_t value_bytes = 64;
  Micros think = 50 * kMillisecond;  // between two operations of a client, on average
  Micros deadline = 2 * kSecond;
  uint32_t read_permille = 400, local_permille = 100;  // of all; the rest writes
  // Of reads: of many keys, of the past.
  uint32_t wide_permille = 100;
  // Of writes: transactions, time-to-lives, ranges and rollbacks; the rest are of one key.
  uint32_t txn_permille = 150, ttl_permille = 100, range_permille = 30;
  uint64_t request_ids = 128;  // that the state machine remembers
};

Plan DrawPlan(uint64_t seed);
std::string Describe(const Plan& plan);

}  // namespace quorate::sim
