#include "services/configuration.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::map<std::string, std::string, std::less<>> kEnvironment = {
    {"POD_NAME", "quorate-1"}, {"POD_IP", "10.1.2.3"}, {"POD_IP6", "fd00::2"},
    {"PORT", "7000"},          {"NOTHING", ""},        {"ODD", "a: [b"}};

absl::StatusOr<Configuration> Parse(std::string_view text) {
  return ParseConfiguration(text, "q.yaml",
                            [](std::string_view name) -> std::optional<std::string> {
                              const auto found = kEnvironment.find(name);
                              if (found == kEnvironment.end()) return std::nullopt;
                              return found->second;
                            });
}

Configuration MustParse(std::string_view text) {
  auto parsed = Parse(text);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : Configuration();
}

std::string Refusal(std::string_view text) {
  const auto parsed = Parse(text);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

// The seed's first example, with its indentation back.
constexpr char kSeed[] = R"(mode: "controlplane"
controlPlane:
  address: ":8080"
  storePath: "/data"
  raft:
    nodeId: "${POD_NAME}"
    bindAddress: ":7000"
    advertiseAddress: "${POD_IP}:7000"
    discovery:
      dns: "vrata-headless.vrata.svc.cluster.local"
)";

// The seed's static peers, for the node cp-1; tests add keys of raft behind it.
constexpr char kPeers[] = R"(mode: controlplane
controlPlane:
  storePath: /data
  raft:
    nodeId: cp-1
    bindAddress: ":7000"
    peers:
      - "cp-0=10.0.0.1:7000"
      - "cp-1=10.0.0.2:7000"
      - "cp-2=10.0.0.3:7000"
)";

TEST(Configuration, TheSeedsExampleReadsAsItIs) {
  const Configuration configuration = MustParse(kSeed);
  EXPECT_EQ(configuration.address, ":8080");
  EXPECT_EQ(configuration.metrics_address, ":8081");
  EXPECT_EQ(configuration.store_path, "/data");
  ASSERT_TRUE(configuration.raft);
  EXPECT_EQ(configuration.raft->node_id, "quorate-1");
  EXPECT_EQ(configuration.raft->bind_address, ":7000");
  EXPECT_EQ(configuration.raft->advertise_address, "10.1.2.3:7000");
  EXPECT_EQ(configuration.raft->discovery_dns, "vrata-headless.vrata.svc.cluster.local");
  EXPECT_THAT(configuration.raft->peers, IsEmpty());
  // Three founders by default, told from the node's own stem.
  EXPECT_THAT(configuration.raft->founders, ElementsAre("quorate-0", "quorate-1", "quorate-2"));
  EXPECT_EQ(configuration.node_id(), "quorate-1");
  EXPECT_THAT(configuration.warnings, IsEmpty());
}

TEST(Configuration, TheSeedsStaticPeersAreTheFounders) {
  const Configuration configuration = MustParse(kPeers);
  ASSERT_TRUE(configuration.raft);
  EXPECT_THAT(configuration.raft->peers,
              ElementsAre(Peer{"cp-0", "10.0.0.1:7000"}, Peer{"cp-1", "10.0.0.2:7000"},
                          Peer{"cp-2", "10.0.0.3:7000"}));
  EXPECT_THAT(configuration.raft->founders, ElementsAre("cp-0", "cp-1", "cp-2"));
  EXPECT_EQ(configuration.raft->discovery_dns, "");
  // Without advertiseAddress the node's own entry says how others reach it.
  EXPECT_EQ(configuration.raft->advertise_address, "10.0.0.2:7000");
}

TEST(Configuration, WithoutRaftOneNodeNeedsAStorePathOnly) {
  const Configuration configuration =
      MustParse("mode: controlplane\ncontrolPlane:\n  storePath: data\n");
  EXPECT_FALSE(configuration.raft);
  EXPECT_EQ(configuration.address, ":8080");
  EXPECT_EQ(configuration.node_id(), "quorate-0");
}

TEST(Configuration, TimingHasTheSeedsDefaults) {
  const RaftConfiguration raft = *MustParse(kPeers).raft;
  EXPECT_EQ(raft.heartbeat_interval, milliseconds(50));
  EXPECT_EQ(raft.election_timeout_min, milliseconds(150));
  EXPECT_EQ(raft.election_timeout_max, milliseconds(300));
  EXPECT_EQ(raft.performance_multiplier, 1);
}

TEST(Configuration, TheMultiplierScalesAllThreeTimeouts) {
  const RaftConfiguration raft =
      *MustParse(std::string(kPeers) + "    performanceMultiplier: 10\n").raft;
  EXPECT_EQ(raft.heartbeat_interval, milliseconds(500));
  EXPECT_EQ(raft.election_timeout_min, milliseconds(1500));
  EXPECT_EQ(raft.election_timeout_max, milliseconds(3000));
}

TEST(Configuration, TheLogsTailIsASizeWithAUnit) {
  EXPECT_EQ(MustParse(std::string(kPeers)).raft->log_tail_bytes, 64u << 20);
  const auto tail = [](const std::string& text) {
    return MustParse(std::string(kPeers) + "    logTail: " + text + "\n").raft->log_tail_bytes;
  };
  EXPECT_EQ(tail("64KiB"), 64u << 10);
  EXPECT_EQ(tail("3MiB"), 3u << 20);
  EXPECT_EQ(tail("64GiB"), uint64_t{64} << 30);
}

TEST(Configuration, AnElectionTimeoutIsARangeOrItsMinimum) {
  RaftConfiguration raft =
      *MustParse(std::string(kPeers) + "    electionTimeout: 1s-2500ms\n").raft;
  EXPECT_EQ(raft.election_timeout_min, milliseconds(1000));
  EXPECT_EQ(raft.election_timeout_max, milliseconds(2500));
  raft =
      *MustParse(std::string(kPeers) + "    electionTimeout: 200ms\n    heartbeatInterval: 20ms\n")
           .raft;
  EXPECT_EQ(raft.election_timeout_min, milliseconds(200));
  EXPECT_EQ(raft.election_timeout_max, milliseconds(400));
  EXPECT_EQ(raft.heartbeat_interval, milliseconds(20));
}

TEST(Configuration, WithDnsTheFoundersFollowFromTheStemOrAreNamed) {
  EXPECT_THAT(MustParse(std::string(kSeed) + "    bootstrapExpect: 1\n").raft->founders,
              ElementsAre("quorate-0"));
  EXPECT_THAT(MustParse(std::string(kSeed) + "    founders: [b, a]\n").raft->founders,
              ElementsAre("a", "b"));
}

TEST(Configuration, WithoutAdvertiseAddressAReachableBindAddressIsTaken) {
  const Configuration configuration = MustParse(R"(mode: controlplane
controlPlane:
  storePath: /data
  raft:
    nodeId: quorate-0
    bindAddress: "[fd00::1]:7000"
    discovery: {dns: quorate.local}
)");
  EXPECT_EQ(configuration.raft->advertise_address, "[fd00::1]:7000");
}

TEST(Configuration, VariablesAreTextAndNeverYaml) {
  const auto path = [](const std::string& text) {
    return MustParse("mode: controlplane\ncontrolPlane:\n  storePath: \"" + text + "\"\n")
        .store_path;
  };
  EXPECT_EQ(path("/data/${POD_NAME}/${POD_IP}x"), "/data/quorate-1/10.1.2.3x");
  // In front of a port an IPv6 address has brackets, whoever writes them; nowhere else.
  EXPECT_EQ(path("${POD_IP6}:7000"), "[fd00::2]:7000");
  EXPECT_EQ(path("[${POD_IP6}]:7000"), "[fd00::2]:7000");
  EXPECT_EQ(path("${POD_IP6}:${PORT}"), "[fd00::2]:7000");
  EXPECT_EQ(path("a=${POD_IP6}:7000"), "a=[fd00::2]:7000");
  EXPECT_EQ(path("/data/${POD_IP6}"), "/data/fd00::2");
  EXPECT_EQ(path("${POD_IP6}:x"), "fd00::2:x");
  EXPECT_EQ(path("${POD_IP}:7000"), "10.1.2.3:7000");
  EXPECT_EQ(path("${ODD}"), "a: [b");
  EXPECT_EQ(path("$${POD_NAME}/$HOME/$"), "${POD_NAME}/$HOME/$");
}

TEST(Configuration, AnEvenOrLargeNumberOfPeersIsAWarning) {
  EXPECT_THAT(MustParse(std::string(kPeers) + "      - cp-3=10.0.0.4:7000\n").warnings,
              ElementsAre("q.yaml:8:7: controlPlane.raft.peers: 4 nodes tolerate no more failures "
                          "than 3; an odd number is better"));
  std::string seven(kPeers);
  for (int i = 3; i < 7; ++i) {
    seven += "      - cp-" + std::to_string(i) + "=10.0.0.9:700" + std::to_string(i) + "\n";
  }
  EXPECT_THAT(MustParse(seven).warnings,
              ElementsAre("q.yaml:8:7: controlPlane.raft.peers: more than 5 nodes make every write "
                          "slower and tolerate little more"));
}

TEST(Configuration, DevIsOneNodeOnLoopback) {
  const Configuration configuration = DevConfiguration();
  EXPECT_EQ(configuration.address, "127.0.0.1:8080");
  EXPECT_EQ(configuration.metrics_address, "127.0.0.1:8081");
  EXPECT_FALSE(configuration.raft);
}

TEST(Configuration, AddressesSplitIntoHostAndPort) {
  EXPECT_EQ(ParseHostPort(":7000")->host, "");
  EXPECT_EQ(ParseHostPort("[::1]:65535")->host, "::1");
  EXPECT_EQ(ParseHostPort("[::1]:65535")->port, 65535);
  EXPECT_EQ(ParseHostPort("a.example:1")->host, "a.example");
  EXPECT_TRUE(NamesAHost(*ParseHostPort("127.0.0.1:1")));
  EXPECT_FALSE(NamesAHost(*ParseHostPort(":1")));
  EXPECT_FALSE(NamesAHost(*ParseHostPort("0.0.0.0:1")));
  EXPECT_FALSE(NamesAHost(*ParseHostPort("[::]:1")));
  EXPECT_FALSE(NamesAHost(*ParseHostPort("[0:0::0]:1")));
}

// --- What is refused, with the whole message ---

struct BadFile {
  const char* what;
  const char* text;
  const char* message;
};

class Refused : public testing::TestWithParam<BadFile> {};

TEST_P(Refused, WithPlaceAndAdvice) { EXPECT_EQ(Refusal(GetParam().text), GetParam().message); }

constexpr BadFile kBadFiles[] = {
    {"Empty", "", "q.yaml: the file is empty; write mode and controlPlane"},
    {"OnlyAComment", "# nothing\n", "q.yaml: the file is empty; write mode and controlPlane"},
    {"NotYaml", "mode: [a\ncontrolPlane: b: c\n",
     "q.yaml:2:13: not YAML: end of sequence flow not found"},
    {"TwoDocuments", "mode: controlplane\n---\nmode: controlplane\n",
     "q.yaml:3:1: a second YAML document; write one document"},
    {"AList", "- mode\n", "q.yaml:1:1: is a list; write its keys below it, indented further"},
    {"NothingSet", "{}\n",
     "q.yaml:1:1: mode: missing; write mode: \"controlplane\"\n"
     "q.yaml:1:1: controlPlane: missing; write controlPlane with at least storePath"},
    {"AnotherMode", "mode: proxy\ncontrolPlane:\n  storePath: /data\n",
     "q.yaml:1:7: mode: `proxy` is not a mode of this program; write \"controlplane\""},
    {"NoStorePath", "mode: controlplane\ncontrolPlane:\n  address: :8080\n",
     "q.yaml:3:3: controlPlane.storePath: missing; write the data directory, such as \"/data\""},
    {"EmptyStorePath", "mode: controlplane\ncontrolPlane:\n  storePath: \"\"\n",
     "q.yaml:3:14: controlPlane.storePath: is empty; write the data directory, such as \"/data\""},
    {"NearMiss", "mode: controlplane\ncontrolPlane:\n  storepath: /data\n  adress: :8080\n",
     "q.yaml:3:3: controlPlane.storepath: unknown key; did you mean storePath?\n"
     "q.yaml:3:3: controlPlane.storePath: missing; write the data directory, such as \"/data\"\n"
     "q.yaml:4:3: controlPlane.adress: unknown key; did you mean address?"},
    {"UnknownKey", "mode: controlplane\ncontrolPlane:\n  storePath: /data\n  colour: red\n",
     "q.yaml:4:3: controlPlane.colour: unknown key; known here: address, storePath, "
     "metricsAddress, raft"},
    {"LostIndentation",
     "mode: controlplane\ncontrolPlane:\n  storePath: /data\n  nodeId: a\ndns: b\n",
     "q.yaml:4:3: controlPlane.nodeId: unknown key here; it belongs at controlPlane.raft.nodeId\n"
     "q.yaml:5:1: dns: unknown key here; it belongs at controlPlane.raft.discovery.dns"},
    {"RepeatedKey",
     "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  storePath: /b\nmode: controlplane\n",
     "q.yaml:4:3: controlPlane.storePath: repeated: it is already at line 3; keep one\n"
     "q.yaml:5:1: mode: repeated: it is already at line 1; keep one"},
    {"ListAsKey", "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  ? [a]\n  : b\n",
     "q.yaml:4:5: controlPlane: a key that is a list; write a plain name"},
    {"MappingAsValue", "mode: controlplane\ncontrolPlane:\n  storePath: {a: b}\n",
     "q.yaml:3:14: controlPlane.storePath: is a mapping; write the data directory, such as "
     "\"/data\""},
    {"RaftWithoutContents", "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  raft:\n",
     "q.yaml:4:3: controlPlane.raft: is empty; write its keys below it, indented further"},
    {"UnsetVariable", "mode: controlplane\ncontrolPlane:\n  storePath: /a/${POD_NAM}\n",
     "q.yaml:3:14: controlPlane.storePath: the environment variable POD_NAM is not set; set it, "
     "or write the value itself"},
    {"EmptyVariable", "mode: controlplane\ncontrolPlane:\n  storePath: ${NOTHING}\n",
     "q.yaml:3:14: controlPlane.storePath: is empty: the environment variable NOTHING is set to "
     "nothing; write the data directory, such as \"/data\""},
    {"OpenVariable", "mode: controlplane\ncontrolPlane:\n  storePath: a${POD_NAME\n",
     "q.yaml:3:14: controlPlane.storePath: `a${POD_NAME` has a ${ that names no variable; write "
     "${NAME}, or $${ for the characters themselves"},
    {"OddVariable", "mode: controlplane\ncontrolPlane:\n  storePath: ${1-2}\n",
     "q.yaml:3:14: controlPlane.storePath: `${1-2}` has a ${ that names no variable; write "
     "${NAME}, or $${ for the characters themselves"},
    {"NotBuiltYet",
     "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  tls: {cert: a}\n  limits: {}\n"
     "  history: {}\n",
     "q.yaml:4:3: controlPlane.tls: not in this build yet (clients would be served without "
     "encryption); remove it\n"
     "q.yaml:5:3: controlPlane.limits: not in this build yet (the default limits hold); remove "
     "it\n"
     "q.yaml:6:3: controlPlane.history: not in this build yet (all history is kept); remove it"},
    {"BadAddresses",
     "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  address: localhost\n"
     "  metricsAddress: 1.2.3:8081\n",
     "q.yaml:4:12: controlPlane.address: `localhost` has no port; write host:port or :port, such "
     "as \":8080\"\n"
     "q.yaml:5:19: controlPlane.metricsAddress: `1.2.3:8081` has a host that is neither a name "
     "nor an address; write host:port or :port, such as \":8080\""},
    {"PortOutOfRange", "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  address: :65536\n",
     "q.yaml:4:12: controlPlane.address: `:65536` has no port from 1 to 65535; write host:port or "
     ":port, such as \":8080\""},
    {"BareIpv6", "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  address: ::1:8080\n",
     "q.yaml:4:12: controlPlane.address: `::1:8080` has an IPv6 address without brackets; write "
     "host:port or :port, such as \":8080\""},
    {"OnePortTwice",
     "mode: controlplane\ncontrolPlane:\n  storePath: /a\n  metricsAddress: 10.0.0.1:8080\n",
     "q.yaml:4:19: controlPlane.metricsAddress: port 8080 is also that of controlPlane.address; "
     "give each a port of its own"},
};
INSTANTIATE_TEST_SUITE_P(Configuration, Refused, testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return std::string(info.param.what); });

// The same for the raft section: `raft` is what stands below it.
struct BadRaft {
  const char* what;
  const char* raft;
  const char* message;
};

class RefusedRaft : public testing::TestWithParam<BadRaft> {};

TEST_P(RefusedRaft, WithPlaceAndAdvice) {
  const std::string text = std::string(
                               "mode: controlplane\ncontrolPlane:\n  storePath: /data\n"
                               "  raft:\n") +
                           GetParam().raft;
  EXPECT_EQ(Refusal(text), GetParam().message);
}

constexpr BadRaft kBadRafts[] = {
    {"NoNodeId", "    bindAddress: a:7000\n    peers: [a=a:7000]\n",
     "q.yaml:5:5: controlPlane.raft.nodeId: missing; write this node's own name, such as "
     "\"${POD_NAME}\" or \"cp-0\""},
    {"NoBindAddress", "    nodeId: a\n    peers: [a=a:7000]\n",
     "q.yaml:5:5: controlPlane.raft.bindAddress: missing; write where peers are listened for, "
     "such as \":7000\""},
    {"BadNodeId", "    nodeId: a b\n    bindAddress: :7000\n    peers: [a=a:7000]\n",
     "q.yaml:5:13: controlPlane.raft.nodeId: `a b` is not a name; write 1 to 253 of A-Z a-z 0-9 . "
     "_ -"},
    {"NeitherPeersNorDns", "    nodeId: a\n    bindAddress: :7000\n",
     "q.yaml:5:5: controlPlane.raft: neither peers nor discovery.dns is set; write one of the "
     "two"},
    {"BothPeersAndDns",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n    discovery: {dns: d}\n",
     "q.yaml:8:16: controlPlane.raft.discovery: set together with peers; keep one of the two"},
    {"DiscoveryWithoutDns", "    nodeId: a-0\n    bindAddress: a:7000\n    discovery: {}\n",
     "q.yaml:7:16: controlPlane.raft.discovery.dns: missing; write a headless service's name, "
     "such as \"quorate-headless.quorate.svc.cluster.local\""},
    {"BadDns", "    nodeId: a-0\n    bindAddress: a:7000\n    discovery: {dns: 'http://x'}\n",
     "q.yaml:7:22: controlPlane.raft.discovery.dns: `http://x` is not a DNS name; write a headless "
     "service's name, such as \"quorate-headless.quorate.svc.cluster.local\""},
    {"NoAdvertiseAddress", "    nodeId: a-0\n    bindAddress: :7000\n    discovery: {dns: d}\n",
     "q.yaml:5:5: controlPlane.raft.advertiseAddress: missing, and bindAddress `:7000` names no "
     "host that others can reach; write the address that they use, such as \"${POD_IP}:7000\""},
    {"UnreachableAdvertiseAddress",
     "    nodeId: a\n    bindAddress: :7000\n    advertiseAddress: 0.0.0.0:7000\n"
     "    peers: [a=a:7000]\n",
     "q.yaml:7:23: controlPlane.raft.advertiseAddress: `0.0.0.0:7000` names no host that others "
     "can reach; write host:port, such as \"10.0.0.1:7000\""},
    {"NotAmongThePeers", "    nodeId: d\n    bindAddress: :7000\n    peers: [a=a:7000]\n",
     "q.yaml:7:12: controlPlane.raft.peers: nodeId `d` is not among them; add the entry "
     "\"d=host:port\""},
    {"PeersNotAList", "    nodeId: a\n    bindAddress: :7000\n    peers: a=a:7000\n",
     "q.yaml:7:12: controlPlane.raft.peers: is not a list of nodes; write one entry a node: - "
     "name=host:port, such as \"cp-0=10.0.0.1:7000\""},
    {"BadPeers",
     "    nodeId: a\n    bindAddress: :7000\n    peers:\n"
     "      - 10.0.0.1:7000\n"
     "      - a=10.0.0.1\n"
     "      - b=:7000\n"
     "      - c=c:7000\n"
     "      - c=d:7000\n"
     "      - e=c:7000\n"
     "      - {f: g}\n",
     "q.yaml:8:9: controlPlane.raft.peers[0]: `10.0.0.1:7000` has no name; write name=host:port, "
     "such as \"cp-0=10.0.0.1:7000\"\n"
     "q.yaml:9:9: controlPlane.raft.peers[1]: `10.0.0.1` has no port; write name=host:port, such "
     "as \"cp-0=10.0.0.1:7000\"\n"
     "q.yaml:10:9: controlPlane.raft.peers[2]: `b=:7000` names no host that others can reach; "
     "write name=host:port, such as \"cp-0=10.0.0.1:7000\"\n"
     "q.yaml:12:9: controlPlane.raft.peers[4]: `c` is named twice; give each node a name of its "
     "own\n"
     "q.yaml:13:9: controlPlane.raft.peers[5]: `c:7000` is given to two nodes; give each an "
     "address of its own\n"
     "q.yaml:14:9: controlPlane.raft.peers[6]: is a mapping; write name=host:port, such as "
     "\"cp-0=10.0.0.1:7000\""},
    {"TooManyPeers",
     "    nodeId: a\n    bindAddress: :7000\n"
     "    peers: [a=a:1, b=a:2, c=a:3, d=a:4, e=a:5, f=a:6, g=a:7, h=a:8]\n",
     "q.yaml:7:12: controlPlane.raft.peers: 8 nodes; write at most 7"},
    {"FoundersWithPeers",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n    founders: [a]\n"
     "    bootstrapExpect: 1\n",
     "q.yaml:8:15: controlPlane.raft.founders: set together with peers, whose names are the "
     "founders; remove it\n"
     "q.yaml:9:22: controlPlane.raft.bootstrapExpect: set together with peers, whose names are the "
     "founders; remove it"},
    {"NoOrdinal", "    nodeId: box\n    bindAddress: a:7000\n    discovery: {dns: d}\n",
     "q.yaml:5:5: controlPlane.raft.founders: missing, and nodeId `box` has no ordinal (as in "
     "quorate-0) to tell them from; write the founders' names as a list"},
    {"BadFounders",
     "    nodeId: a-0\n    bindAddress: a:7000\n    discovery: {dns: d}\n"
     "    founders: [a, a, 'b c']\n    bootstrapExpect: 9\n",
     "q.yaml:8:19: controlPlane.raft.founders[1]: `a` is named twice; keep one\n"
     "q.yaml:8:22: controlPlane.raft.founders[2]: `b c` is not a name; write 1 to 253 of A-Z a-z "
     "0-9 . _ -\n"
     "q.yaml:9:22: controlPlane.raft.bootstrapExpect: `9` is out of range; write a number from 1 "
     "to 7\n"
     "q.yaml:9:22: controlPlane.raft.bootstrapExpect: set together with founders, which says how "
     "many; remove it"},
    {"BadTiming",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    heartbeatInterval: 50\n    electionTimeout: 300ms-150ms\n"
     "    performanceMultiplier: 11\n",
     "q.yaml:8:24: controlPlane.raft.heartbeatInterval: `50` is not a duration of at least 5ms; "
     "write a whole number and us, ms, s or m, such as 50ms\n"
     "q.yaml:9:22: controlPlane.raft.electionTimeout: `300ms-150ms` is not a range of durations "
     "up to 60s; write a range, such as 150ms-300ms, or its minimum alone (the maximum is then "
     "twice that)\n"
     "q.yaml:10:28: controlPlane.raft.performanceMultiplier: `11` is out of range; write a number "
     "from 1 to 10"},
    {"HeartbeatsTooSlow",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    heartbeatInterval: 100ms\n",
     "q.yaml:8:24: controlPlane.raft.heartbeatInterval: an electionTimeout from 150ms is less "
     "than two heartbeatIntervals of 100ms: one lost heartbeat would be an election; write one of "
     "at least 200ms"},
    {"LogTailTooShort",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n    logTail: 63KiB\n",
     "q.yaml:8:14: controlPlane.raft.logTail: `63KiB` is not a size from 64KiB to 64GiB; write a "
     "whole number and KiB, MiB or GiB, such as 64MiB"},
    {"LogTailWithoutAUnit",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n    logTail: 1000000\n",
     "q.yaml:8:14: controlPlane.raft.logTail: `1000000` is not a size from 64KiB to 64GiB; write "
     "a whole number and KiB, MiB or GiB, such as 64MiB"},
    {"LogTailThatOverflows",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    logTail: 18446744073709551615GiB\n",
     "q.yaml:8:14: controlPlane.raft.logTail: `18446744073709551615GiB` is not a size from 64KiB "
     "to 64GiB; write a whole number and KiB, MiB or GiB, such as 64MiB"},
    {"RaftNotBuiltYet",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    tls: {}\n    zone: b\n    nonVoter: true\n",
     "q.yaml:8:5: controlPlane.raft.tls: not in this build yet (peers would talk without "
     "encryption); remove it\n"
     "q.yaml:9:5: controlPlane.raft.zone: not in this build yet (voters are not spread over "
     "zones); remove it\n"
     "q.yaml:10:5: controlPlane.raft.nonVoter: not in this build yet (every node votes); remove "
     "it"},
    {"AutopilotOutOfRange",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    autopilot:\n      stabilisation: 50ms\n      contact: 25h\n      lag: 0\n"
     "      maxVoters: 8\n      cleanup: true\n",
     "q.yaml:9:22: controlPlane.raft.autopilot.stabilisation: `50ms` is out of range; write a time "
     "from 100ms to 24h\n"
     "q.yaml:10:16: controlPlane.raft.autopilot.contact: `25h` is out of range; write a time from "
     "100ms to 24h\n"
     "q.yaml:11:12: controlPlane.raft.autopilot.lag: `0` is out of range; write a number from 1 to "
     "1000000\n"
     "q.yaml:12:18: controlPlane.raft.autopilot.maxVoters: `8` is out of range; write a number "
     "from "
     "1 to 7\n"
     "q.yaml:13:7: controlPlane.raft.autopilot.cleanup: unknown key; known here: stabilisation, "
     "contact, lag, maxVoters"},
    {"AutopilotContactShorterThanElections",
     "    nodeId: a\n    bindAddress: :7000\n    peers: [a=a:7000]\n"
     "    autopilot:\n      contact: 500ms\n",
     "q.yaml:9:16: controlPlane.raft.autopilot.contact: shorter than two of the longest election "
     "timeouts, within which a member that is there may be silent: write at least 600ms"},
    {"BindOnTheClientPort", "    nodeId: a\n    bindAddress: :8080\n    peers: [a=a:7000]\n",
     "q.yaml:6:18: controlPlane.raft.bindAddress: port 8080 is also that of controlPlane.address; "
     "give each a port of its own"},
};
INSTANTIATE_TEST_SUITE_P(Configuration, RefusedRaft, testing::ValuesIn(kBadRafts),
                         [](const auto& info) { return std::string(info.param.what); });

TEST(ConfigurationErrors, NoMoreThanTwentyAreListed) {
  std::string text = "mode: controlplane\ncontrolPlane:\n  storePath: /a\n";
  for (int i = 0; i < 25; ++i) text += "  mistaken" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(Refusal(text), testing::EndsWith("q.yaml: and 5 more"));
}

TEST(ConfigurationErrors, BadDurationsOfEveryKind) {
  for (const char* bad : {"50", "ms", "-50ms", "50 ms", "5.5s", "2h", "1ms", "61m",
                          "99999999999999999999ms", "50msx"}) {
    EXPECT_THAT(Refusal(std::string(kPeers) + "    heartbeatInterval: \"" + bad + "\"\n"),
                HasSubstr("is not a duration of at least 5ms"))
        << bad;
  }
  for (const char* bad : {"150ms-", "-300ms", "150-300ms", "200ms-200ms", "1s-61s", "31s"}) {
    EXPECT_THAT(Refusal(std::string(kPeers) + "    electionTimeout: \"" + bad + "\"\n"),
                HasSubstr("is not a range of durations up to 60s"))
        << bad;
  }
}

TEST(ConfigurationErrors, AFileThatCannotBeReadIsNamed) {
  auto missing = LoadConfiguration("no/such.yaml");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.status().message(),
            "cannot read the configuration file no/such.yaml: No such file or directory; name a "
            "file that can be read");
  const std::string directory = testing::TempDir();
  EXPECT_THAT(std::string(LoadConfiguration(directory).status().message()),
              HasSubstr("Is a directory"));
}

TEST(ConfigurationErrors, AFileIsReadWithTheProcesssEnvironment) {
  const std::string file = testing::TempDir() + "/configuration_test.yaml";
  setenv("QUORATE_TEST_PATH", "/from/environment", 1);
  std::ofstream(file) << "mode: controlplane\ncontrolPlane:\n  storePath: ${QUORATE_TEST_PATH}\n";
  EXPECT_EQ(LoadConfiguration(file)->store_path, "/from/environment");
  unsetenv("QUORATE_TEST_PATH");
  EXPECT_THAT(std::string(LoadConfiguration(file).status().message()),
              HasSubstr(file + ":3:14: controlPlane.storePath: the environment variable "
                               "QUORATE_TEST_PATH is not set"));
  std::ofstream(file) << std::string((1 << 20) + 1, '#');
  EXPECT_THAT(std::string(LoadConfiguration(file).status().message()),
              HasSubstr("larger than 1 MiB"));
  std::remove(file.c_str());
}

}  // namespace
}  // namespace quorate::services
