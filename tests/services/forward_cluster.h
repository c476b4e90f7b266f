// Three nodes in one process, with everything between a client's write and the disk but the client
// port: real nodes, real SQLite states, real gRPC over loopback. Only the log is in memory: it
// outlives its node, so that a node can be stopped and started again.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "raft/birth_record.h"
#include "raft/node.h"
#include "services/applier.h"
#include "services/forwarder.h"
#include "services/peer_channels.h"
#include "services/peer_codec.h"
#include "services/peer_directory.h"
#include "services/peer_transport.h"
#include "services/raft_service.h"
#include "services/system_clock.h"
#include "storage/state.h"

namespace quorate::services {

// Polls until it holds; false after 30 seconds.
template <typename Predicate>
bool Eventually(Predicate holds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class MemoryLog final : public raft::LogStore {
 public:
  void Append(const raft::Persist& persist) override {
    std::lock_guard lock(mutex_);
    if (persist.cut_from) entries_.resize(persist.cut_from->value() - 1 - before_);
    if (persist.hard_state) hard_state_ = *persist.hard_state;
    if (persist.install) {
      entries_.clear();
      before_ = persist.install->snapshot.index.value();
    }
    for (const raft::EntryPtr& entry : persist.entries) {
      CHECK(entry->index.value() == before_ + entries_.size() + 1);
      entries_.push_back(entry);
    }
  }
  void Sync() override {}
  std::vector<raft::EntryPtr> Read(raft::Index from, raft::Index last, size_t bytes) override {
    std::lock_guard lock(mutex_);
    std::vector<raft::EntryPtr> read;
    size_t size = 0;
    if (from.value() <= before_) return read;
    for (uint64_t i = from.value(); i <= last.value() && i <= before_ + entries_.size(); ++i) {
      const raft::EntryPtr& entry = entries_[i - before_ - 1];
      size += entry->bytes();
      if (!read.empty() && size > bytes) break;
      read.push_back(entry);
    }
    return read;
  }
  void Cut(raft::Index) override { CHECK(false, "these tests keep the whole log"); }
  raft::Index TailStart(uint64_t) override { return raft::Index(1); }
  bool WantsMark() override { return false; }
  void WriteMark() override {}

  raft::RecoveredState Recovered(const raft::Membership& membership, raft::Index applied) {
    std::lock_guard lock(mutex_);
    CHECK(before_ == 0, "these tests do not restart behind a snapshot");
    raft::RecoveredState state;
    state.hard_state = hard_state_;
    state.entries = entries_;
    state.first_index = raft::Index(1);
    state.memberships = {{raft::Index(1), membership}};
    state.applied = applied;
    return state;
  }

 private:
  std::mutex mutex_;
  raft::HardState hard_state_{raft::Term(1), StoreId()};
  uint64_t before_ = 0;  // the entry before the first
  std::vector<raft::EntryPtr> entries_;
};

inline constexpr ClusterId kTestCluster{0xc1};

class ForwardCluster {
 public:
  struct Node {
    StoreId store;
    uint64_t boot = 0;
    std::string name;
    std::string address;
    MemoryLog log;
    PeerDirectory directory;
    SystemClock clock;
    std::unique_ptr<PeerChannels> channels;
    std::unique_ptr<storage::State> state;
    std::unique_ptr<Applier> applier;
    std::unique_ptr<PeerTransport> transport;
    std::unique_ptr<SnapshotReceiver> snapshots;
    std::unique_ptr<Forwarder> forwarder;
    std::unique_ptr<raft::Node> raft;
    std::unique_ptr<RaftService> service;
    std::unique_ptr<grpc::Server> server;

    bool Leads() const {
      const auto status = raft->status();
      return status->leader_ready && status->birth_complete;
    }
  };

  explicit ForwardCluster(size_t size = 3) {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 ("forward-" + std::to_string(::getpid()) + "-" + std::to_string(++clusters_));
    std::filesystem::create_directories(directory_);
    raft::Proposal proposal;
    for (size_t i = 0; i < size; ++i) {
      auto node = std::make_unique<Node>();
      node->store = StoreId(101 + i);
      node->name = "node-" + std::to_string(i);
      nodes_.push_back(std::move(node));
    }
    for (size_t i = 0; i < size; ++i) Listen(i);
    for (const auto& node : nodes_) {
      proposal.founders.push_back({node->name, node->store, node->address});
    }
    proposal.proposer = nodes_[0]->store;
    proposal.round = 1;
    proposal.cluster = kTestCluster;
    membership_ = raft::FoundingMembership(proposal);
    for (size_t i = 0; i < size; ++i) {
      raft::Persist persist;
      persist.entries = {raft::FirstEntry(raft::EncodeMembership(membership_))};
      nodes_[i]->log.Append(persist);
    }
  }

  ~ForwardCluster() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      Stop(i);
      CloseServer(i);
    }
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  // The peer port, with nothing behind it yet: the node is not born.
  void Listen(size_t i) {
    Node& node = *nodes_[i];
    RaftService::BirthHandlers birth;
    birth.identify = [&node](const raft::IdentifyRequest&) {
      raft::IdentifyReply reply;
      reply.store = node.store;
      reply.name = node.name;
      reply.address = node.address;
      return reply;
    };
    birth.propose = [&node](const raft::Propose&) {
      raft::PledgeReply reply;
      reply.store = node.store;
      reply.refusal = raft::Refusal::kPledgeMoved;
      return reply;
    };
    birth.born = [&node](const raft::Born&) {
      raft::BornReply reply;
      reply.store = node.store;
      reply.refusal = raft::Refusal::kBornElsewhere;
      return reply;
    };
    node.service = std::make_unique<RaftService>(node.store, birth, &node.directory);
    grpc::ServerBuilder builder;
    SetPeerServerOptions(&builder);
    int port = 0;
    const std::string at = node.address.empty() ? "127.0.0.1:0" : node.address;
    builder.AddListeningPort(at, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(node.service.get());
    node.server = builder.BuildAndStart();
    ASSERT_TRUE(node.server != nullptr && port != 0) << "cannot listen at " << at;
    node.address = "127.0.0.1:" + std::to_string(port);
  }

  void CloseServer(size_t i) {
    Node& node = *nodes_[i];
    if (node.server == nullptr) return;
    node.service->StopServing();
    node.server->Shutdown(std::chrono::system_clock::now());
    node.server->Wait();
    node.server = nullptr;
    node.service = nullptr;
  }

  void Start(size_t i) {
    Node& node = *nodes_[i];
    if (node.server == nullptr) Listen(i);
    node.directory.LearnMembership(membership_);
    for (const auto& other : nodes_) {
      node.directory.Learn(other->store, other->address, PeerDirectory::Source::kDirect);
    }
    ++node.boot;
    storage::StateOptions state;
    state.directory = (directory_ / node.name).string();
    state.cluster = kTestCluster;
    const bool fresh = std::filesystem::create_directories(state.directory);
    auto opened = fresh ? storage::State::Create(state) : storage::State::Open(state);
    ASSERT_TRUE(opened.ok()) << opened.status();
    node.state = std::move(*opened);
    node.applier = std::make_unique<Applier>(node.state.get());
    node.channels = std::make_unique<PeerChannels>(&node.directory);
    PeerTransportOptions transport;
    transport.cluster = kTestCluster;
    transport.self = node.store;
    transport.vote_timeout = std::chrono::milliseconds(500);
    node.transport = std::make_unique<PeerTransport>(transport, node.channels.get());

    ForwarderOptions forwarder;
    forwarder.cluster = kTestCluster;
    forwarder.ingress.store = node.store;
    forwarder.ingress.boot = node.boot;
    forwarder.ingress.nonce = 1000 * (i + 1) + node.boot;
    forwarder.ingress.leader_wait = leader_wait;
    node.forwarder = std::make_unique<Forwarder>(
        forwarder,
        Forwarder::Ports{.state = node.state.get(),
                         .clock = &node.clock,
                         .channels = node.channels.get(),
                         .next_boot = [&node]() -> absl::StatusOr<uint64_t> { return ++node.boot; },
                         .random = [&node] { return node.boot * 7919; }});
    raft::NodeOptions options;
    options.core.self = node.store;
    options.core.seed = 77 + 10 * i + node.boot;
    options.core.heartbeat_interval = std::chrono::milliseconds(50);
    options.core.election_timeout_min = std::chrono::milliseconds(400);
    options.core.election_timeout_max = std::chrono::milliseconds(800);
    const storage::StateSummary summary = node.state->Summary();
    options.birth_complete = summary.birth_complete;
    node.raft =
        std::make_unique<raft::Node>(options, node.log.Recovered(membership_, summary.applied),
                                     raft::Node::Ports{.log = &node.log,
                                                       .transport = node.transport.get(),
                                                       .state_machine = node.applier.get(),
                                                       .clock = &node.clock});
    node.applier->OnApplied(
        [forwarder = node.forwarder.get()](const auto& applied) { forwarder->OnApplied(applied); });
    node.raft->OnStatusChange([forwarder = node.forwarder.get()](const auto& status) {
      forwarder->OnStatusChange(status);
    });
    node.snapshots = std::make_unique<SnapshotReceiver>(
        SnapshotReceiverOptions{kTestCluster, node.store, state.directory}, disk_.get(),
        node.state.get());
    node.transport->OnSnapshotReply(
        [receiver = node.snapshots.get()](const auto& reply) { receiver->OnReply(reply); });
    node.snapshots->Start(node.raft.get());
    node.transport->Start(node.raft.get());
    node.forwarder->Start(node.raft.get());
    Serve(i);
    node.raft->Start();
  }

  void Serve(size_t i) {
    Node& node = *nodes_[i];
    node.service->Serve({.cluster = kTestCluster,
                         .node = node.raft.get(),
                         .transport = node.transport.get(),
                         .forwarder = node.forwarder.get(),
                         .snapshots = node.snapshots.get()});
  }

  void StartAll() {
    for (size_t i = 0; i < nodes_.size(); ++i) Start(i);
  }

  // As if its process had been killed, but for what the streams say at their end.
  void Stop(size_t i) {
    Node& node = *nodes_[i];
    if (node.raft == nullptr) return;
    if (node.service != nullptr) node.service->StopServing();
    node.forwarder->Stop();
    node.snapshots->Stop();
    node.raft->Stop();
    node.transport->Stop();
    CloseServer(i);
    node.raft = nullptr;
    node.snapshots = nullptr;
    node.forwarder = nullptr;
    node.transport = nullptr;
    node.applier = nullptr;
    node.channels = nullptr;
    node.state = nullptr;
  }

  Node& node(size_t i) { return *nodes_[i]; }
  std::filesystem::path DirectoryOf(size_t i) const { return directory_ / nodes_[i]->name; }
  size_t size() const { return nodes_.size(); }
  const raft::Membership& membership() const { return membership_; }

  // The index of the node that takes writes.
  size_t WaitForLeader() {
    size_t leader = nodes_.size();
    EXPECT_TRUE(Eventually([&] {
      for (size_t i = 0; i < nodes_.size(); ++i) {
        if (nodes_[i]->raft != nullptr && nodes_[i]->Leads()) leader = i;
      }
      return leader < nodes_.size();
    })) << "no leader";
    return leader;
  }

  // Set before StartAll.
  Duration leader_wait = std::chrono::seconds(10);

 private:
  static inline std::atomic<int> clusters_{0};
  std::filesystem::path directory_;
  const std::unique_ptr<storage::Disk> disk_ = storage::MakePosixDisk();
  std::vector<std::unique_ptr<Node>> nodes_;
  raft::Membership membership_;
};

// Collects the outcomes of writes.
class Writes {
 public:
  static v1::Command Put(const std::string& key, const std::string& value) {
    v1::Command command;
    v1::PutOperation* put = command.mutable_transaction()->add_then()->mutable_put();
    put->set_key(key);
    put->set_value(value);
    put->set_value_kind(v1::VALUE_KIND_TEXT);
    return command;
  }

  ingress::WriteId Send(ForwardCluster::Node* node, const std::string& key,
                        Duration within = std::chrono::seconds(30)) {
    {
      std::lock_guard lock(mutex_);
      ++open_;
    }
    return node->forwarder->Write(Put(key, "value of " + key), node->clock.Now() + within, {},
                                  [this, key](const ingress::Outcome& outcome) {
                                    std::lock_guard lock(mutex_);
                                    EXPECT_FALSE(outcomes_.contains(key)) << key << " ended twice";
                                    outcomes_[key] = outcome;
                                    --open_;
                                    ended_.notify_all();
                                  });
  }

  void Forget() {
    std::lock_guard lock(mutex_);
    --open_;
    ended_.notify_all();
  }

  bool WaitForAll() {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, std::chrono::seconds(60), [this] { return open_ == 0; });
  }

  std::map<std::string, ingress::Outcome> outcomes() {
    std::lock_guard lock(mutex_);
    return outcomes_;
  }

  // How many ended OK.
  size_t Count() {
    size_t count = 0;
    for (const auto& [key, outcome] : outcomes()) {
      v1::Answer answer;
      if (StatusOf(outcome, &answer).ok()) ++count;
    }
    return count;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t open_ = 0;
  std::map<std::string, ingress::Outcome> outcomes_;
};

}  // namespace quorate::services
