// One look into DNS, with c-ares: the addresses behind a name.
//
// A name that starts with `_` (`_raft._tcp.quorate.example`) is asked for SRV records: each names a
// host and its port. Any other is asked for A and AAAA records, and `port` is everybody's. Search
// domains, `ndots`, servers and the order of /etc/hosts and DNS are the system's (resolv.conf,
// nsswitch.conf); they are read at each call, so that a changed resolv.conf needs no restart. An
// answer that UDP truncates is asked for again by TCP.
//
// IPv4 and IPv6 are two questions: one of them may fail, or be silent, and the other's answer
// counts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"

namespace quorate::discovery {

struct ResolveOptions {
  uint16_t port = 0;  // of the addresses behind a name without SRV records
  // `host:port,host:port`: DNS servers in place of the system's. Empty: the system's.
  std::string servers = {};
  // The first try of a question waits so long for its answer, later ones longer.
  Duration timeout = std::chrono::milliseconds(1500);
  int tries = 2;
  // Once there is an address, questions that are still open have so long to bring more.
  Duration rest = std::chrono::milliseconds(500);
  // Everything together ends after this.
  Duration total_timeout = std::chrono::seconds(8);
  // A file descriptor that becomes readable when nobody wants the answer any more; -1: none.
  int cancel = -1;
};

struct Resolution {
  // `10.0.0.2:7000` or `[fd00::2]:7000`, sorted bytewise, none twice, 1 to kAddressesMax.
  std::vector<std::string> addresses;
  // How long the records may be kept: the shortest of them; 0: the source does not say.
  Duration ttl{};
  // Not all that was asked was answered (one family, some targets of SRV records, or more
  // addresses than kAddressesMax): what is not in `addresses` may still be there.
  bool partial = false;

  static constexpr size_t kAddressesMax = 256;
};

// Blocks. Any thread; calls do not know of each other. The errors name `name`:
//   kNotFound          the name does not exist, or has no such records
//   kDeadlineExceeded  no server answered in time
//   kCancelled         options.cancel became readable
//   kUnavailable       a server refused or failed, or what it said makes no sense
//   kInvalidArgument   no DNS name, or no list of servers
absl::StatusOr<Resolution> Resolve(const std::string& name, const ResolveOptions& options);

}  // namespace quorate::discovery
