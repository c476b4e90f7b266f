#include "services/configuration.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "services/configuration_values.h"
#include "services/yaml_reader.h"

namespace quorate::services {
namespace {

using Key = YamlReader::Key;
using Section = YamlReader::Section;

constexpr size_t kFileBytesMax = 1 << 20;
constexpr size_t kPeersMax = 7;  // as far as the quorum table goes
constexpr size_t kPeersSensible = 5;
constexpr Duration kHeartbeatMin = std::chrono::milliseconds(5);
constexpr Duration kElectionMax = std::chrono::seconds(60);

constexpr Key kRootKeys[] = {{"mode"}, {"controlPlane"}};
constexpr Key kControlPlaneKeys[] = {
    {"address"},
    {"storePath"},
    {"metricsAddress"},
    {"raft"},
    {"limits", "the default limits hold"},
    {"history", "all history is kept"},
    {"tls", "clients would be served without encryption"},
};
constexpr Key kRaftKeys[] = {
    {"nodeId"},
    {"bindAddress"},
    {"advertiseAddress"},
    {"discovery"},
    {"peers"},
    {"founders"},
    {"bootstrapExpect"},
    {"heartbeatInterval"},
    {"electionTimeout"},
    {"performanceMultiplier"},
    {"logTail"},
    {"autopilot"},
    {"zone", "voters are not spread over zones"},
    {"nonVoter", "every node votes"},
    {"tls", "peers would talk without encryption"},
};
constexpr Key kDiscoveryKeys[] = {{"dns"}};
constexpr Key kAutopilotKeys[] = {{"stabilisation"}, {"contact"}, {"lag"}, {"maxVoters"}};

constexpr std::string_view kPaths[] = {
    "mode",
    "controlPlane",
    "controlPlane.address",
    "controlPlane.storePath",
    "controlPlane.metricsAddress",
    "controlPlane.raft",
    "controlPlane.raft.nodeId",
    "controlPlane.raft.bindAddress",
    "controlPlane.raft.advertiseAddress",
    "controlPlane.raft.discovery",
    "controlPlane.raft.discovery.dns",
    "controlPlane.raft.peers",
    "controlPlane.raft.founders",
    "controlPlane.raft.bootstrapExpect",
    "controlPlane.raft.heartbeatInterval",
    "controlPlane.raft.electionTimeout",
    "controlPlane.raft.performanceMultiplier",
    "controlPlane.raft.logTail",
    "controlPlane.raft.autopilot",
    "controlPlane.raft.autopilot.stabilisation",
    "controlPlane.raft.autopilot.contact",
    "controlPlane.raft.autopilot.lag",
    "controlPlane.raft.autopilot.maxVoters",
};

constexpr char kControlPlane[] = "controlPlane";
constexpr char kRaft[] = "controlPlane.raft";

// What one file says, read section by section. Each Read* function reports its own mistakes and
// leaves the default where there was one.
class Parser {
 public:
  Parser(std::string_view file, const Environment& environment)
      : reader_(file, environment, kPaths) {}

  absl::StatusOr<Configuration> Run(std::string_view text) {
    if (const auto document = reader_.Parse(text)) ReadRoot(*document);
    if (absl::Status status = reader_.status(); !status.ok()) return status;
    configuration_.warnings = reader_.warnings();
    return std::move(configuration_);
  }

 private:
  void ReadRoot(const YAML::Node& node);
  void ReadControlPlane(const YAML::Node& node);
  void ReadRaft(const YAML::Node& node);
  void ReadTiming(const Section& section);
  void ReadMembers(const Section& section, const YAML::Node& node);
  void ReadPeers(const YAML::Node& node);
  void ReadDiscovery(const YAML::Node& node);
  void ReadAutopilot(const YAML::Node& node, Duration contact_min);
  void ReadFoundersOfDns(const Section& section, const YAML::Node& node);
  void ReadAdvertiseAddress(const Section& section, const YAML::Node& node);
  void CheckPorts(const Section& section, const YAML::Node& node);
  // Reads an address; false when absent or wrong.
  bool ReadAddress(const Section& section, std::string_view name, const std::string& path,
                   bool reachable, std::string* address);

  YamlReader reader_;
  Configuration configuration_;
  RaftConfiguration raft_;
};

void Parser::ReadRoot(const YAML::Node& node) {
  const auto section = reader_.ReadSection(node, "", kRootKeys);
  if (!section) return;
  if (!section->contains("mode")) {
    reader_.Problem(node, "mode", "missing; write mode: \"controlplane\"");
  } else if (const auto mode = reader_.ReadScalar(section->at("mode"), "mode", "\"controlplane\"");
             mode && *mode != "controlplane") {
    reader_.Problem(section->at("mode"), "mode",
                    "`" + *mode + "` is not a mode of this program; write \"controlplane\"");
  }
  if (!section->contains(kControlPlane)) {
    reader_.Problem(node, kControlPlane, "missing; write controlPlane with at least storePath");
    return;
  }
  ReadControlPlane(section->at(kControlPlane));
}

void Parser::ReadControlPlane(const YAML::Node& node) {
  const auto section = reader_.ReadSection(node, kControlPlane, kControlPlaneKeys);
  if (!section) return;
  ReadAddress(*section, "address", kControlPlane, false, &configuration_.address);
  ReadAddress(*section, "metricsAddress", kControlPlane, false, &configuration_.metrics_address);
  if (const auto path = reader_.ReadRequired(*section, "storePath", node, kControlPlane,
                                             "the data directory, such as \"/data\"")) {
    configuration_.store_path = *path;
  }
  if (section->contains("raft")) ReadRaft(section->at("raft"));
  CheckPorts(*section, node);
}

bool Parser::ReadAddress(const Section& section, std::string_view name, const std::string& path,
                         bool reachable, std::string* address) {
  const std::string write =
      reachable ? "host:port, such as \"10.0.0.1:7000\"" : "host:port or :port, such as \":8080\"";
  const auto text = reader_.ReadOptional(section, name, path, write);
  if (!text) return false;
  const std::string full = path + "." + std::string(name);
  const auto parsed = ParseHostPort(*text);
  if (!parsed.ok()) {
    reader_.Problem(section.find(name)->second, full,
                    std::string(parsed.status().message()) + "; write " + write);
    return false;
  }
  if (reachable && !NamesAHost(*parsed)) {
    reader_.Problem(section.find(name)->second, full,
                    "`" + *text + "` names no host that others can reach; write " + write);
    return false;
  }
  *address = *text;
  return true;
}

void Parser::ReadRaft(const YAML::Node& node) {
  const auto section = reader_.ReadSection(node, kRaft, kRaftKeys);
  if (!section) return;
  if (const auto name =
          reader_.ReadRequired(*section, "nodeId", node, kRaft,
                               "this node's own name, such as \"${POD_NAME}\" or \"cp-0\"")) {
    if (IsNodeName(*name)) {
      raft_.node_id = *name;
    } else {
      reader_.Problem(section->at("nodeId"), std::string(kRaft) + ".nodeId",
                      "`" + *name + "` is not a name; write 1 to 253 of A-Z a-z 0-9 . _ -");
    }
  }
  if (!section->contains("bindAddress")) {
    reader_.Problem(node, std::string(kRaft) + ".bindAddress",
                    "missing; write where peers are listened for, such as \":7000\"");
  } else {
    ReadAddress(*section, "bindAddress", kRaft, false, &raft_.bind_address);
  }
  ReadTiming(*section);
  ReadMembers(*section, node);
  // A member that is there is heard within two of these.
  const Duration contact_min = 2 * raft_.election_timeout_max;
  raft_.autopilot.contact = std::max(raft_.autopilot.contact, contact_min);
  if (section->contains("autopilot")) ReadAutopilot(section->at("autopilot"), contact_min);
  ReadAdvertiseAddress(*section, node);
  configuration_.raft = raft_;
}

void Parser::ReadTiming(const Section& section) {
  const std::string path = std::string(kRaft) + ".";
  bool valid = true;
  if (const auto text =
          reader_.ReadOptional(section, "heartbeatInterval", kRaft, "a duration, such as 50ms")) {
    const auto interval = ParseDuration(*text);
    if (interval && *interval >= kHeartbeatMin) {
      raft_.heartbeat_interval = *interval;
    } else {
      valid = false;
      reader_.Problem(section.at("heartbeatInterval"), path + "heartbeatInterval",
                      "`" + *text + "` is not a duration of at least " + Show(kHeartbeatMin) +
                          "; write a whole number and us, ms, s or m, such as 50ms");
    }
  }
  constexpr std::string_view kElectionForm =
      "a range, such as 150ms-300ms, or its minimum alone (the maximum is then twice that)";
  if (const auto text = reader_.ReadOptional(section, "electionTimeout", kRaft, kElectionForm)) {
    const size_t dash = text->find('-');
    const auto min = ParseDuration(text->substr(0, dash));
    const auto max = dash == std::string::npos ? (min ? std::optional(*min * 2) : std::nullopt)
                                               : ParseDuration(text->substr(dash + 1));
    if (min && max && *min < *max && *max <= kElectionMax) {
      raft_.election_timeout_min = *min;
      raft_.election_timeout_max = *max;
    } else {
      valid = false;
      reader_.Problem(section.at("electionTimeout"), path + "electionTimeout",
                      "`" + *text + "` is not a range of durations up to " + Show(kElectionMax) +
                          "; write " + std::string(kElectionForm));
    }
  }
  if (valid && raft_.election_timeout_min < 2 * raft_.heartbeat_interval) {
    const char* key = section.contains("electionTimeout") ? "electionTimeout" : "heartbeatInterval";
    reader_.Problem(section.at(key), path + key,
                    "an electionTimeout from " + Show(raft_.election_timeout_min) +
                        " is less than two heartbeatIntervals of " +
                        Show(raft_.heartbeat_interval) +
                        ": one lost heartbeat would be an election; write one of at least " +
                        Show(2 * raft_.heartbeat_interval));
  }
  if (const auto text =
          reader_.ReadOptional(section, "performanceMultiplier", kRaft, "a number from 1 to 10")) {
    if (const auto multiplier = ParseInt(*text, 1, 10)) {
      raft_.performance_multiplier = *multiplier;
    } else {
      reader_.Problem(section.at("performanceMultiplier"), path + "performanceMultiplier",
                      "`" + *text + "` is out of range; write a number from 1 to 10");
    }
  }
  if (const auto text =
          reader_.ReadOptional(section, "logTail", kRaft, "a size from 64KiB to 64GiB")) {
    const auto bytes = ParseBytes(*text);
    if (bytes && *bytes >= (64u << 10) && *bytes <= (uint64_t{64} << 30)) {
      raft_.log_tail_bytes = *bytes;
    } else {
      reader_.Problem(section.at("logTail"), path + "logTail",
                      "`" + *text +
                          "` is not a size from 64KiB to 64GiB; write a whole number and KiB, MiB "
                          "or GiB, such as 64MiB");
    }
  }
  raft_.heartbeat_interval *= raft_.performance_multiplier;
  raft_.election_timeout_min *= raft_.performance_multiplier;
  raft_.election_timeout_max *= raft_.performance_multiplier;
}

void Parser::ReadMembers(const Section& section, const YAML::Node& node) {
  const std::string path = std::string(kRaft) + ".";
  const bool has_peers = section.contains("peers");
  const bool has_discovery = section.contains("discovery");
  if (has_peers && has_discovery) {
    reader_.Problem(section.at("discovery"), path + "discovery",
                    "set together with peers; keep one of the two");
    return;
  }
  if (!has_peers && !has_discovery) {
    reader_.Problem(node, kRaft, "neither peers nor discovery.dns is set; write one of the two");
    return;
  }
  if (has_discovery) {
    ReadDiscovery(section.at("discovery"));
    ReadFoundersOfDns(section, node);
    return;
  }
  for (const char* name : {"founders", "bootstrapExpect"}) {
    if (section.contains(name)) {
      reader_.Problem(section.at(name), path + name,
                      "set together with peers, whose names are the founders; remove it");
    }
  }
  ReadPeers(section.at("peers"));
}

void Parser::ReadPeers(const YAML::Node& node) {
  const std::string path = std::string(kRaft) + ".peers";
  const std::string write = "name=host:port, such as \"cp-0=10.0.0.1:7000\"";
  if (!node.IsSequence() || node.size() == 0) {
    reader_.Problem(node, path, "is not a list of nodes; write one entry a node: - " + write);
    return;
  }
  std::set<std::string> names, addresses;
  bool complete = true;
  for (size_t i = 0; i < node.size(); ++i) {
    const std::string entry_path = path + "[" + std::to_string(i) + "]";
    const size_t before = raft_.peers.size();
    if (const auto entry = reader_.ReadScalar(node[i], entry_path, write)) {
      const size_t equals = entry->find('=');
      const std::string name = entry->substr(0, equals);
      if (equals == std::string::npos || !IsNodeName(name)) {
        reader_.Problem(node[i], entry_path, "`" + *entry + "` has no name; write " + write);
      } else if (const auto address = ParseHostPort(entry->substr(equals + 1)); !address.ok()) {
        reader_.Problem(node[i], entry_path,
                        std::string(address.status().message()) + "; write " + write);
      } else if (!NamesAHost(*address)) {
        reader_.Problem(node[i], entry_path,
                        "`" + *entry + "` names no host that others can reach; write " + write);
      } else if (!names.insert(name).second) {
        reader_.Problem(node[i], entry_path,
                        "`" + name + "` is named twice; give each node a name of its own");
      } else if (!addresses.insert(entry->substr(equals + 1)).second) {
        reader_.Problem(node[i], entry_path,
                        "`" + entry->substr(equals + 1) +
                            "` is given to two nodes; give each an address of its own");
      } else {
        raft_.peers.push_back({name, entry->substr(equals + 1)});
      }
    }
    complete = complete && raft_.peers.size() > before;
  }
  if (!complete) return;
  if (node.size() > kPeersMax) {
    reader_.Problem(node, path, std::to_string(node.size()) + " nodes; write at most 7");
  } else if (node.size() > kPeersSensible) {
    reader_.Warning(node, path,
                    "more than 5 nodes make every write slower and tolerate little more");
  }
  if (node.size() % 2 == 0) {
    reader_.Warning(node, path,
                    std::to_string(node.size()) + " nodes tolerate no more failures than " +
                        std::to_string(node.size() - 1) + "; an odd number is better");
  }
  if (!raft_.node_id.empty() && !names.contains(raft_.node_id)) {
    reader_.Problem(node, path,
                    "nodeId `" + raft_.node_id + "` is not among them; add the entry \"" +
                        raft_.node_id + "=host:port\"");
  }
  raft_.founders.assign(names.begin(), names.end());
}

void Parser::ReadDiscovery(const YAML::Node& node) {
  const std::string path = std::string(kRaft) + ".discovery";
  const std::string write =
      "a headless service's name, such as "
      "\"quorate-headless.quorate.svc.cluster.local\"";
  const auto section = reader_.ReadSection(node, path, kDiscoveryKeys);
  if (!section) return;
  const auto name = reader_.ReadRequired(*section, "dns", node, path, write);
  if (!name) return;
  if (IsHostName(*name)) {
    raft_.discovery_dns = *name;
  } else {
    reader_.Problem(section->at("dns"), path + ".dns",
                    "`" + *name + "` is not a DNS name; write " + write);
  }
}

void Parser::ReadAutopilot(const YAML::Node& node, Duration contact_min) {
  const std::string path = std::string(kRaft) + ".autopilot";
  const auto section = reader_.ReadSection(node, path, kAutopilotKeys);
  if (!section) return;
  const auto read_time = [&](const char* name, Duration* value) {
    const auto text = reader_.ReadOptional(*section, name, path, "a time, such as 10s");
    if (!text) return;
    const auto parsed = ParseDuration(*text);
    if (parsed && *parsed >= std::chrono::milliseconds(100) && *parsed <= std::chrono::hours(24)) {
      *value = *parsed;
    } else {
      reader_.Problem(section->at(name), path + "." + name,
                      "`" + *text + "` is out of range; write a time from 100ms to 24h");
    }
  };
  const auto read_number = [&](const char* name, int max, auto* value) {
    const std::string range = "a number from 1 to " + std::to_string(max);
    const auto text = reader_.ReadOptional(*section, name, path, range);
    if (!text) return;
    if (const auto number = ParseInt(*text, 1, max)) {
      *value = static_cast<std::remove_pointer_t<decltype(value)>>(*number);
    } else {
      reader_.Problem(section->at(name), path + "." + name,
                      "`" + *text + "` is out of range; write " + range);
    }
  };
  read_time("stabilisation", &raft_.autopilot.stabilisation);
  read_time("contact", &raft_.autopilot.contact);
  if (raft_.autopilot.contact < contact_min) {
    reader_.Problem(section->at("contact"), path + ".contact",
                    "shorter than two of the longest election timeouts, within which a member that "
                    "is there may be silent: write at least " +
                        Show(contact_min));
  }
  read_number("lag", 1'000'000, &raft_.autopilot.lag_max);
  read_number("maxVoters", static_cast<int>(kPeersMax), &raft_.autopilot.voters_max);
}

void Parser::ReadFoundersOfDns(const Section& section, const YAML::Node& node) {
  const std::string path = std::string(kRaft) + ".";
  int expect = 3;
  if (const auto text =
          reader_.ReadOptional(section, "bootstrapExpect", kRaft, "a number from 1 to 7")) {
    if (const auto number = ParseInt(*text, 1, static_cast<int>(kPeersMax))) {
      expect = *number;
    } else {
      reader_.Problem(section.at("bootstrapExpect"), path + "bootstrapExpect",
                      "`" + *text + "` is out of range; write a number from 1 to 7");
    }
  }
  if (!section.contains("founders")) {
    const std::string_view stem = StemOf(raft_.node_id);
    if (stem.empty() && !raft_.node_id.empty()) {
      reader_.Problem(
          node, path + "founders",
          "missing, and nodeId `" + raft_.node_id +
              "` has no ordinal (as in quorate-0) to tell them from; write the founders' "
              "names as a list");
    }
    for (int i = 0; i < expect; ++i) {
      raft_.founders.push_back(std::string(stem) + std::to_string(i));
    }
    return;
  }
  const YAML::Node& founders = section.at("founders");
  if (section.contains("bootstrapExpect")) {
    reader_.Problem(section.at("bootstrapExpect"), path + "bootstrapExpect",
                    "set together with founders, which says how many; remove it");
  }
  if (!founders.IsSequence() || founders.size() == 0 || founders.size() > kPeersMax) {
    reader_.Problem(founders, path + "founders",
                    "is not a list of 1 to 7 names; write one entry a "
                    "founder: - quorate-0");
    return;
  }
  std::set<std::string> names;
  for (size_t i = 0; i < founders.size(); ++i) {
    const std::string entry_path = path + "founders[" + std::to_string(i) + "]";
    const auto name = reader_.ReadScalar(founders[i], entry_path, "a node's name");
    if (!name) continue;
    if (!IsNodeName(*name)) {
      reader_.Problem(founders[i], entry_path,
                      "`" + *name + "` is not a name; write 1 to 253 of A-Z a-z 0-9 . _ -");
    } else if (!names.insert(*name).second) {
      reader_.Problem(founders[i], entry_path, "`" + *name + "` is named twice; keep one");
    }
  }
  raft_.founders.assign(names.begin(), names.end());
}

void Parser::ReadAdvertiseAddress(const Section& section, const YAML::Node& node) {
  if (section.contains("advertiseAddress")) {
    ReadAddress(section, "advertiseAddress", kRaft, true, &raft_.advertise_address);
    return;
  }
  for (const Peer& peer : raft_.peers) {
    if (peer.node_id == raft_.node_id) {
      raft_.advertise_address = peer.address;
      return;
    }
  }
  // Where something else is missing that was said, and may well bring the address with it.
  if (raft_.bind_address.empty() || raft_.node_id.empty()) return;
  if (section.contains("peers") || !section.contains("discovery")) return;
  if (NamesAHost(*ParseHostPort(raft_.bind_address))) {
    raft_.advertise_address = raft_.bind_address;
    return;
  }
  reader_.Problem(
      node, std::string(kRaft) + ".advertiseAddress",
      "missing, and bindAddress `" + raft_.bind_address +
          "` names no host that others can reach; write the address that they use, such "
          "as \"${POD_IP}:7000\"");
}

// Two listeners on one port would fail at the start, with a message that says less.
void Parser::CheckPorts(const Section& section, const YAML::Node& node) {
  struct Listener {
    std::string path;
    YAML::Node at;
    HostPort address;
  };
  std::vector<Listener> listeners;
  const auto add = [&](const std::string& path, const YAML::Node& at, const std::string& address) {
    if (const auto parsed = ParseHostPort(address); parsed.ok()) {
      listeners.push_back({path, at, *parsed});
    }
  };
  const auto at = [&](const char* name) {
    return section.contains(name) ? section.at(name) : node;
  };
  add("controlPlane.address", at("address"), configuration_.address);
  add("controlPlane.metricsAddress", at("metricsAddress"), configuration_.metrics_address);
  if (configuration_.raft && !raft_.bind_address.empty()) {
    add("controlPlane.raft.bindAddress", section.at("raft")["bindAddress"], raft_.bind_address);
  }
  for (size_t i = 0; i < listeners.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const HostPort &a = listeners[i].address, &b = listeners[j].address;
      const bool same_host = !NamesAHost(a) || !NamesAHost(b) || a.host == b.host;
      if (a.port == b.port && same_host) {
        reader_.Problem(listeners[i].at, listeners[i].path,
                        "port " + std::to_string(a.port) + " is also that of " + listeners[j].path +
                            "; give each a port of its own");
      }
    }
  }
}

}  // namespace

absl::StatusOr<Configuration> ParseConfiguration(std::string_view text, std::string_view file,
                                                 const Environment& environment) {
  return Parser(file, environment).Run(text);
}

absl::StatusOr<Configuration> LoadConfiguration(const std::string& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::string text(kFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.is_open() || in.bad()) {
    const int error = errno;
    const std::string message = "cannot read the configuration file " + file + ": " +
                                std::strerror(error) + "; name a file that can be read";
    if (error == ENOENT) return absl::NotFoundError(message);
    if (error == EACCES) return absl::PermissionDeniedError(message);
    return absl::InvalidArgumentError(message);
  }
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kFileBytesMax) {
    return absl::InvalidArgumentError(file + ": larger than 1 MiB: not a configuration file");
  }
  return ParseConfiguration(text, file, [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  });
}

Configuration DevConfiguration() {
  Configuration configuration;
  configuration.address = "127.0.0.1:8080";
  configuration.metrics_address = "127.0.0.1:8081";
  configuration.store_path = "quorate-data";
  return configuration;
}

}  // namespace quorate::services
