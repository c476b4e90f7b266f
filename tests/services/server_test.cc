// Whole nodes in this process, on loopback: the wiring, by its effects.
#include "services/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "quorate/v1/cluster.grpc.pb.h"
#include "quorate/v1/config.grpc.pb.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Sanitizers make everything slower: so are the timeouts of Raft.
constexpr int kMultiplier = 4;

// Tests run side by side: each process takes a block of ports for itself, until it ends.
constexpr int kPortsMin = 20000;  // up to 32000: below the range that the kernel gives out
constexpr int kPortBlocks = 200;
constexpr int kPortsOfABlock = 60;

int ReservePorts() {
  for (int tried = 0; tried < kPortBlocks; ++tried) {
    const int block = (static_cast<int>(getpid()) + tried) % kPortBlocks;
    const std::string name = testing::TempDir() + "/quorate-ports-" + std::to_string(block);
    const int fd = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    // Held, and so kept open, until the process ends.
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) return kPortsMin + block * kPortsOfABlock;
    if (fd >= 0) close(fd);
  }
  CHECK(false, "every block of ports is taken");
  return 0;
}

// A port of this process's blocks that nobody listens on.
int FreePort() {
  static int next = 0;
  static int end = 0;
  while (true) {
    if (next == end) {
      next = ReservePorts();
      end = next + kPortsOfABlock;
    }
    const int port = next++;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (free) return port;
  }
}

std::string LoopbackText(int port) { return "127.0.0.1:" + std::to_string(port); }

// Asks until it is so; the test fails when it is not within half a minute.
void Await(const std::string& what, const std::function<bool()>& is_so) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  while (!is_so()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << what;
    std::this_thread::sleep_for(milliseconds(10));
  }
}

// One node: its configuration, its server while it runs, and its clients' stubs.
struct TestNode {
  Configuration configuration;
  std::unique_ptr<Server> server;
  std::unique_ptr<v1::Config::Stub> config;
  std::unique_ptr<v1::Cluster::Stub> cluster;
  int ops_port = 0;

  absl::Status Start() {
    auto started = Server::Start({.configuration = configuration, .version = "test"});
    if (!started.ok()) return started.status();
    server = *std::move(started);
    const auto channel =
        grpc::CreateChannel(configuration.address, grpc::InsecureChannelCredentials());
    config = v1::Config::NewStub(channel);
    cluster = v1::Cluster::NewStub(channel);
    return absl::OkStatus();
  }
  void Stop() { server.reset(); }

  grpc::Status Put(const std::string& key, const std::string& text, v1::PutResponse* response,
                   seconds timeout = seconds(10)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    v1::PutRequest request;
    request.set_key(key);
    request.set_text(text);
    return config->Put(&context, request, response);
  }
  grpc::Status Get(const std::string& key, v1::GetResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    v1::GetRequest request;
    request.set_key(key);
    return config->Get(&context, request, response);
  }
  v1::StatusResponse Status() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(10));
    v1::StatusResponse response;
    const grpc::Status status = cluster->Status(&context, v1::StatusRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  std::string Http(const std::string& path) {
    httplib::Client client("127.0.0.1", ops_port);
    const auto result = client.Get(path);
    return result ? std::to_string(result->status) + " " + result->body : "no answer";
  }
  bool Ready() { return Http("/readyz") == "200 ok\n"; }
};

// Stands where a peer should be and answers "who are you" when it is told to.
class SlowPeer final : public v1::Raft::Service {
 public:
  explicit SlowPeer(const std::string& address) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~SlowPeer() override {
    Release();
    server_->Shutdown();
  }

  grpc::Status Identify(grpc::ServerContext*, const v1::IdentifyRequest*,
                        v1::IdentifyResponse*) override {
    std::unique_lock lock(mutex_);
    asked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
    return {grpc::StatusCode::UNAVAILABLE, "not now"};
  }
  void WaitUntilAsked() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(30), [this] { return asked_; }));
  }
  void Release() {
    std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool asked_ = false;
  bool released_ = false;
  std::unique_ptr<grpc::Server> server_;
};

// What a peer hears that asks for a vote and sends an append: the reason of each refusal.
std::pair<std::string, std::string> AskToTakePart(const TestNode& node) {
  const auto stub = v1::Raft::NewStub(grpc::CreateChannel(node.configuration.raft->bind_address,
                                                          grpc::InsecureChannelCredentials()));
  const auto deadline = std::chrono::system_clock::now() + seconds(10);
  grpc::ClientContext vote;
  vote.set_deadline(deadline);
  v1::RequestVoteResponse voted;
  const grpc::Status refused = stub->RequestVote(&vote, v1::RequestVoteRequest(), &voted);
  grpc::ClientContext append;
  append.set_deadline(deadline);
  const auto stream = stub->AppendEntries(&append);
  stream->Write(v1::AppendEntriesRequest());
  stream->WritesDone();
  v1::AppendEntriesResponse response;
  while (stream->Read(&response)) {
  }
  return {DetailsOf(refused).reason, DetailsOf(stream->Finish()).reason};
}

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/quorate-server-test-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    root_ = name;
  }
  void TearDown() override {
    nodes_.clear();
    std::filesystem::remove_all(root_);
  }

  // One without a raft section, or several that are each other's peers.
  void Configure(size_t count) {
    std::vector<Peer> peers;
    std::vector<std::string> founders;
    for (size_t i = 1; count > 1 && i <= count; ++i) {
      peers.push_back({"n" + std::to_string(i), LoopbackText(FreePort())});
      founders.push_back(peers.back().node_id);
    }
    nodes_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      Configuration& configuration = nodes_[i].configuration;
      configuration.address = LoopbackText(FreePort());
      nodes_[i].ops_port = FreePort();
      configuration.metrics_address = LoopbackText(nodes_[i].ops_port);
      configuration.store_path = root_ + "/data" + std::to_string(i + 1);
      if (peers.empty()) continue;
      RaftConfiguration raft;
      raft.node_id = peers[i].node_id;
      raft.bind_address = raft.advertise_address = peers[i].address;
      raft.peers = peers;
      raft.founders = founders;
      raft.heartbeat_interval *= kMultiplier;
      raft.election_timeout_min *= kMultiplier;
      raft.election_timeout_max *= kMultiplier;
      configuration.raft = raft;
    }
  }
  void StartAll() {
    for (TestNode& node : nodes_) ASSERT_TRUE(node.Start().ok());
    for (TestNode& node : nodes_) Await("ready", [&] { return node.Ready(); });
  }
  TestNode& Leader() {
    TestNode* leader = nullptr;
    Await("a leader", [&] {
      for (TestNode& node : nodes_) {
        if (node.server != nullptr && node.Status().role() == v1::NODE_ROLE_LEADER) leader = &node;
      }
      return leader != nullptr;
    });
    return *leader;
  }

  std::string root_;
  std::vector<TestNode> nodes_;
};

TEST_F(ServerTest, OneNodeIsBornAloneAndKeepsWhatItAcknowledged) {
  Configure(1);
  StartAll();
  v1::PutResponse put;
  ASSERT_TRUE(nodes_[0].Put("a", "one", &put).ok());
  EXPECT_EQ(put.header().node_id(), "quorate-0");
  EXPECT_EQ(put.header().leader_id(), "quorate-0");
  EXPECT_EQ(put.header().revision(), 2u);
  v1::GetResponse got;
  ASSERT_TRUE(nodes_[0].Get("a", &got).ok());
  EXPECT_EQ(got.item().text(), "one");
  EXPECT_FALSE(got.header().staleness().unknown());
  const v1::StatusResponse before = nodes_[0].Status();
  EXPECT_EQ(before.birth(), v1::BIRTH_STATE_COMPLETE);
  EXPECT_EQ(before.boot(), 1u);
  EXPECT_GT(before.database_bytes(), 0u);

  nodes_[0].Stop();
  ASSERT_TRUE(nodes_[0].Start().ok());
  EXPECT_GT(nodes_[0].Status().database_bytes(), 0u) << "the sizes are there from the start";
  Await("ready", [&] { return nodes_[0].Ready(); });
  ASSERT_TRUE(nodes_[0].Get("a", &got).ok());
  EXPECT_EQ(got.item().text(), "one");
  const v1::StatusResponse after = nodes_[0].Status();
  EXPECT_EQ(after.header().cluster_id(), before.header().cluster_id());
  EXPECT_EQ(after.store_id(), before.store_id());
  EXPECT_EQ(after.boot(), 2u);
  ASSERT_TRUE(nodes_[0].Put("a", "two", &put).ok());
  EXPECT_EQ(put.version(), 2u);
}

TEST_F(ServerTest, ThreeNodesAreBornAndEachTakesAWrite) {
  Configure(3);
  StartAll();
  uint64_t revision = 0;
  for (TestNode& node : nodes_) {
    v1::PutResponse put;
    const grpc::Status status = node.Put("by/" + node.configuration.node_id(), "x", &put);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_GT(put.header().revision(), revision);
    revision = put.header().revision();
  }
  for (TestNode& node : nodes_) {
    Await("the last write", [&] {
      v1::GetResponse got;
      return node.Get("by/n3", &got).ok() && got.header().revision() == revision;
    });
    EXPECT_EQ(node.Status().members_size(), 3);
    // What is applied reaches birth's own thread a little later.
    Await("birth is complete", [&] { return node.Status().lacks().empty(); });
  }
  std::string id = nodes_[0].Status().header().cluster_id();
  for (TestNode& node : nodes_) EXPECT_EQ(node.Status().header().cluster_id(), id);
}

TEST_F(ServerTest, WritesGoOnWithoutTheLeader) {
  Configure(3);
  StartAll();
  v1::PutResponse put;
  ASSERT_TRUE(nodes_[0].Put("a", "1", &put).ok());
  TestNode& leader = Leader();
  leader.Stop();
  for (TestNode& node : nodes_) {
    if (&node == &leader) continue;
    const grpc::Status status = node.Put("a", "2", &put);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_EQ(put.version(), 3u);
  ASSERT_TRUE(leader.Start().ok());
  Await("the stopped one has caught up", [&] {
    v1::GetResponse got;
    return leader.Get("a", &got).ok() && got.item().version() == 3;
  });
}

TEST_F(ServerTest, ANodeThatStartsAgainAsksItsPeersBeforeItVotesOrAcknowledges) {
  Configure(2);
  StartAll();
  for (TestNode& node : nodes_) node.Stop();
  // So long that only the answer can be what ends the wait.
  nodes_[0].configuration.raft->election_timeout_min = seconds(40);
  nodes_[0].configuration.raft->election_timeout_max = seconds(60);
  SlowPeer peer(nodes_[1].configuration.raft->bind_address);
  ASSERT_TRUE(nodes_[0].Start().ok());
  peer.WaitUntilAsked();
  const std::pair<std::string, std::string> not_yet("NOT_RUNNING", "NOT_RUNNING");
  EXPECT_EQ(AskToTakePart(nodes_[0]), not_yet);
  // Clients are not turned away meanwhile: their reads wait for the first leader, for a second.
  v1::GetResponse got;
  const grpc::Status read = nodes_[0].Get("a", &got);
  EXPECT_EQ(read.error_code(), grpc::StatusCode::NOT_FOUND) << read.error_message();
  EXPECT_EQ(nodes_[0].Http("/readyz"), "503 no leader is known\n");
  peer.Release();
  // Now it looks at what it is sent: a header without a cluster.
  Await("it takes part", [&] { return AskToTakePart(nodes_[0]) != not_yet; });
}

TEST_F(ServerTest, MetricsAndProbesAnswer) {
  Configure(1);
  StartAll();
  v1::PutResponse put;
  ASSERT_TRUE(nodes_[0].Put("a", "1", &put).ok());
  for (const char* line : {"raft_state{node=\"quorate-0\",state=\"leader\"} 1", "quorate_ready 1",
                           "quorate_requests_total{code=\"OK\",method=\"quorate.v1.Config/Put\"} 1",
                           "quorate_writes_answered_total 1", "quorate_members 1"}) {
    // The ingress counts an answer when it has given it.
    Await(line, [&] {
      return nodes_[0].Http("/metrics").find(std::string("\n") + line + "\n") != std::string::npos;
    });
  }
  EXPECT_EQ(nodes_[0].Http("/livez"), "200 ok\n");
}

// --- Errors ---

TEST_F(ServerTest, OneOfThreeAloneAnswersStatusAndNothingElse) {
  Configure(3);
  ASSERT_TRUE(nodes_[0].Start().ok());
  const v1::StatusResponse status = nodes_[0].Status();
  EXPECT_EQ(status.role(), v1::NODE_ROLE_WAITING);
  EXPECT_EQ(status.header().cluster_id(), "");
  EXPECT_FALSE(status.lacks().empty());
  v1::PutResponse put;
  const grpc::Status write = nodes_[0].Put("a", "1", &put);
  EXPECT_EQ(write.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(write).reason, "NOT_BORN");
  v1::GetResponse got;
  EXPECT_EQ(DetailsOf(nodes_[0].Get("a", &got)).reason, "NOT_CAUGHT_UP");
  EXPECT_EQ(nodes_[0].Http("/readyz").substr(0, 12), "503 not born");
}

TEST_F(ServerTest, WithoutAMajorityWritesAreRefusedAndReadsGoOn) {
  Configure(3);
  StartAll();
  v1::PutResponse put;
  ASSERT_TRUE(nodes_[0].Put("a", "1", &put).ok());
  Await("node 1 shows it", [&] {
    v1::GetResponse got;
    return nodes_[0].Get("a", &got).ok();
  });
  nodes_[1].Stop();
  nodes_[2].Stop();
  Await("node 1 has noticed", [&] { return !nodes_[0].Ready(); });
  const grpc::Status write = nodes_[0].Put("a", "2", &put);
  EXPECT_EQ(write.error_code(), grpc::StatusCode::UNAVAILABLE) << write.error_message();
  EXPECT_EQ(DetailsOf(write).reason, "NO_LEADER");
  EXPECT_TRUE(DetailsOf(write).retry_delay.has_value());
  v1::GetResponse got;
  ASSERT_TRUE(nodes_[0].Get("a", &got).ok());
  EXPECT_EQ(got.item().text(), "1");
  EXPECT_TRUE(got.header().staleness().has_age());
  EXPECT_EQ(got.header().leader_id(), "");
}

TEST_F(ServerTest, WhatIsWrongAtTheStartIsRefusedWithWhatToDo) {
  Configure(2);
  const auto message = [](const absl::Status& status) { return std::string(status.message()); };
  ASSERT_TRUE(nodes_[0].Start().ok());

  // A directory in use.
  TestNode copy;
  copy.configuration = nodes_[0].configuration;
  EXPECT_NE(message(copy.Start()).find("in use"), std::string::npos);
  // Each port in use.
  copy.configuration = nodes_[1].configuration;
  copy.configuration.address = nodes_[0].configuration.address;
  EXPECT_NE(message(copy.Start()).find("controlPlane.address"), std::string::npos);
  copy.configuration = nodes_[1].configuration;
  copy.configuration.metrics_address = nodes_[0].configuration.metrics_address;
  EXPECT_NE(message(copy.Start()).find("controlPlane.metricsAddress"), std::string::npos);
  copy.configuration = nodes_[1].configuration;
  copy.configuration.raft->bind_address = nodes_[0].configuration.raft->bind_address;
  EXPECT_NE(message(copy.Start()).find("controlPlane.raft.bindAddress"), std::string::npos);
  // A directory of another node.
  nodes_[0].Stop();
  copy.configuration = nodes_[1].configuration;
  copy.configuration.store_path = nodes_[0].configuration.store_path;
  EXPECT_NE(message(copy.Start()).find("belongs to node"), std::string::npos);
}

TEST_F(ServerTest, ADirectoryOfAClusterIsNotServedAlone) {
  Configure(2);
  StartAll();
  const Configuration clustered = nodes_[0].configuration;
  for (TestNode& node : nodes_) node.Stop();
  // The section is lost: the node's name would be another one, too.
  TestNode alone;
  alone.configuration = clustered;
  alone.configuration.raft.reset();
  EXPECT_FALSE(alone.Start().ok());
}

}  // namespace
}  // namespace quorate::services
