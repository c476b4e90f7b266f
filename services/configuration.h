// The node's configuration file (DESIGN.md, "Configuration file"): strict YAML.
//
// The file is read once, at the start. A mistake is refused before anything listens, and every
// mistake that can be told apart is reported at once, one line each:
//
//   FILE:LINE:COLUMN: FULL.PATH.OF.KEY: what is wrong; what to write instead
//
// Nothing is skipped in silence: an unknown or repeated key is a mistake, and so is a key that a
// later build will know ("not in this build yet"), because a file that promises encryption must not
// start a node without it.
//
// ${NAME} in a value is replaced by the environment variable NAME (its text is never read as YAML;
// `$${` stands for a literal `${`). An unset variable is a mistake.
//
// Durations are a whole number and a unit: `500us`, `50ms`, `2s`, `1m`. Addresses are `host:port`,
// `[ipv6]:port`, or `:port` where only listening is meant. Pure functions but for
// LoadConfiguration, which reads the file and the process's environment; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "raft/autopilot.h"

namespace quorate::services {

// The node's name when there is no `raft` section: what it would be called as the first replica of
// the chart, so that a single node can grow into a cluster under its own name.
inline constexpr std::string_view kSingleNodeId = "quorate-0";

// One entry of controlPlane.raft.peers: `name=host:port`.
struct Peer {
  std::string node_id;
  std::string address;  // with a host that others can reach

  friend bool operator==(const Peer&, const Peer&) = default;
};

// controlPlane.raft.
struct RaftConfiguration {
  std::string node_id;            // nodeId: 1 to 253 of A-Z a-z 0-9 . _ -
  std::string bind_address;       // bindAddress: where peers are listened for; may lack a host
  std::string advertise_address;  // advertiseAddress, else the own entry in peers, else bindAddress
  // Exactly one of the two is set. discovery.dns: see discovery/resolve.h.
  std::string discovery_dns;
  std::vector<Peer> peers;  // in the file's order, the own entry included; 1 to 7
  // The names that found the cluster, sorted bytewise. With peers: their names. With discovery.dns:
  // `founders`, else the ordinals 0 to bootstrapExpect - 1 of the own name's stem.
  std::vector<std::string> founders;
  // Already multiplied by performanceMultiplier. electionTimeout is a range `150ms-300ms` that
  // timeouts are drawn from, or its minimum alone (`150ms`; the maximum is then twice that). A
  // leader without a majority steps down after one minimum, so that follows too.
  Duration heartbeat_interval = std::chrono::milliseconds(50);
  Duration election_timeout_min = std::chrono::milliseconds(150);
  Duration election_timeout_max = std::chrono::milliseconds(300);
  int performance_multiplier = 1;  // 1 to 10
  // logTail: how much of the log stays on disk for followers that come back; one that has been away
  // for longer gets the whole state. A whole number and KiB, MiB or GiB, from 64KiB to 64GiB.
  uint64_t log_tail_bytes = 64u << 20;
  // autopilot: when the leader gives a learner a vote (raft/autopilot.h). stabilisation and contact
  // from 100ms to 24h, contact no less than two of the longest election timeouts (unless set it is
  // 10 s, or those), lag from 1 to 1,000,000 entries, maxVoters from 1 to 7. Give every node the
  // same: whoever leads goes by its own.
  raft::AutopilotOptions autopilot;
};

struct Configuration {
  std::string address = ":8080";          // controlPlane.address: clients
  std::string metrics_address = ":8081";  // controlPlane.metricsAddress: operations
  std::string store_path;                 // controlPlane.storePath: the data directory
  // Absent without a `raft` section: one node, no peer port.
  std::optional<RaftConfiguration> raft;
  // What is allowed but probably not meant, in the format above (an even number of peers, say).
  std::vector<std::string> warnings;

  // raft->node_id, or kSingleNodeId.
  std::string node_id() const { return raft ? raft->node_id : std::string(kSingleNodeId); }
};

// Looks a variable up; nullopt: unset.
using Environment = std::function<std::optional<std::string>(std::string_view name)>;

// Parses `text`; `file` only names it in messages. The error is kInvalidArgument with all
// mistakes (at most 20), one a line, in the file's order.
absl::StatusOr<Configuration> ParseConfiguration(std::string_view text, std::string_view file,
                                                 const Environment& environment);

// Reads and parses a file of at most 1 MiB. kNotFound, kPermissionDenied or kInvalidArgument when
// it cannot be read, naming the file.
absl::StatusOr<Configuration> LoadConfiguration(const std::string& file);

// `serve --dev`: one node on loopback (:8080, :8081), data in `quorate-data` of the working
// directory.
Configuration DevConfiguration();

// The parts of an address as above; `host` without brackets, empty for `:port`. The error text
// names the mistake without a full stop, to be put behind the place where it was found.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(std::string_view address);

// A duration as above, from 0 to an hour; nullopt for anything else.
std::optional<Duration> ParseDuration(std::string_view text);

// Whether others can connect to it: not empty and not 0.0.0.0 or [::].
bool NamesAHost(const HostPort& address);

}  // namespace quorate::services
