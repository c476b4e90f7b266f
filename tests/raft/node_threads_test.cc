// The driver on its own threads, with a real clock: for the thread sanitizer, and for what only
// threads can show.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <set>
#include <thread>

#include "raft/node.h"
#include "tests/raft/node_world.h"

namespace quorate::raft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::CheckingTransport;
using testing::FirstEntryOf;
using testing::Machine;
using testing::MemoryLog;
using testing::NodeStore;

class RealClock : public Clock {
 public:
  Instant Now() override {
    timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return Instant(std::chrono::duration_cast<Duration>(std::chrono::seconds(now.tv_sec) +
                                                        std::chrono::nanoseconds(now.tv_nsec)));
  }
  WallMilliseconds WallNow() override { return 1; }
};

// A log whose syncs can be held up.
class GatedLog : public MemoryLog {
 public:
  using MemoryLog::MemoryLog;
  void Sync() override {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --waiting_;
    lock.unlock();
    MemoryLog::Sync();
  }
  void Open(bool open) {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  void WaitForSync() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int waiting_ = 0;
};

// Waits for something that must come; gives up after half a minute.
bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

class NodeThreadsTest : public ::testing::Test {
 protected:
  void Build(size_t nodes) {
    machines_ = std::vector<Machine>(nodes);
    for (size_t i = 0; i < nodes; ++i) {
      Machine& m = machines_[i];
      auto log = std::make_unique<GatedLog>(FirstEntryOf(nodes));
      log->set_marks_wanted(true);
      gates_.push_back(log.get());
      m.log = std::move(log);
      m.transport = std::make_unique<CheckingTransport>(m.log.get(), [this](Message message) {
        const size_t to = message.to.value() - NodeStore(0).value();
        machines_[to].node->Receive(std::move(message));
      });
      NodeOptions options;
      options.core.self = NodeStore(i);
      options.core.seed = i + 1;
      // Slow enough for a sanitizer on a busy machine.
      options.core.election_timeout_min = milliseconds(500);
      options.core.election_timeout_max = milliseconds(1000);
      m.node = std::make_unique<Node>(
          options, m.Recover(),
          Node::Ports{m.log.get(), m.transport.get(), m.state.get(), &clock_, nullptr});
      m.node->OnStatusChange([this](const NodeStatus&) { ++changes_; });
    }
    for (Machine& m : machines_) m.node->Start();
  }
  void TearDown() override {
    for (GatedLog* gate : gates_) gate->Open(true);
    for (Machine& m : machines_) {
      if (m.node != nullptr) m.node->Stop();
    }
  }

  // The ready leader of the highest term among those that run.
  Node* Leader() {
    Node* leader = nullptr;
    Term term;
    for (Machine& m : machines_) {
      auto status = m.node->status();
      if (stopped_.contains(m.node.get()) || !status->leader_ready || status->term < term) continue;
      leader = m.node.get();
      term = status->term;
    }
    return leader;
  }

  RealClock clock_;
  std::atomic<int> changes_ = 0;
  std::vector<GatedLog*> gates_;
  std::vector<Machine> machines_;
  std::set<Node*> stopped_;  // by the test's thread
};

// Proposes from a thread of its own, with a bounded number of answers outstanding.
class Writer {
 public:
  Writer(std::vector<Node*> nodes, std::string name)
      : nodes_(std::move(nodes)), name_(std::move(name)), thread_([this] { Run(); }) {}
  void Stop() {
    stop_ = true;
    thread_.join();
  }
  uint64_t sent() const { return sent_; }
  uint64_t answered() const { return answered_; }
  uint64_t accepted() const { return accepted_; }

 private:
  void Run() {
    while (!stop_) {
      Node* node = nodes_[sent_ % nodes_.size()];
      auto status = node->status();
      if ((status->role != Role::kLeader && sent_ % 50 != 0) || sent_ - answered_ > 64) {
        std::this_thread::yield();
        if (status->role != Role::kLeader)
          nodes_.push_back(nodes_.front()), nodes_.erase(nodes_.begin());
        continue;
      }
      ++sent_;
      node->Propose(status->term, {{EntryType::kCommand, name_ + std::to_string(sent_), 0}},
                    [this](size_t accepted, ProposeStatus) {
                      accepted_ += accepted;
                      ++answered_;
                    });
    }
  }

  std::vector<Node*> nodes_;
  const std::string name_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> sent_ = 0, answered_ = 0, accepted_ = 0;
  std::thread thread_;
};

TEST_F(NodeThreadsTest, WritersGoOnWhileTheLeaderAndThenEverybodyStops) {
  Build(3);
  ASSERT_TRUE(Eventually([&] { return Leader() != nullptr; }));
  std::vector<Node*> nodes;
  for (Machine& m : machines_) nodes.push_back(m.node.get());
  std::vector<std::unique_ptr<Writer>> writers;
  for (int i = 0; i < 4; ++i) {
    writers.push_back(std::make_unique<Writer>(nodes, std::string(1, static_cast<char>('a' + i))));
  }
  auto applied = [&](uint64_t more) {
    size_t enough = 0;
    for (Machine& m : machines_) enough += m.state->applied_index().value() >= more;
    return enough >= 2;
  };
  EXPECT_TRUE(Eventually([&] { return applied(300); }));
  // The leader stops in the middle of it; the others elect a new one and go on.
  Node* const first = Leader();
  if (first != nullptr) {
    first->Stop();
    stopped_.insert(first);
  }
  uint64_t highest = 0;
  for (Machine& m : machines_) highest = std::max(highest, m.state->applied_index().value());
  EXPECT_TRUE(Eventually([&] { return applied(highest + 300); }));
  // Everybody stops, while the writers still write.
  for (Machine& m : machines_) m.node->Stop();
  uint64_t accepted = 0;
  for (auto& writer : writers) {
    writer->Stop();
    EXPECT_EQ(writer->answered(), writer->sent());  // each once, none is left
    accepted += writer->accepted();
  }
  EXPECT_GT(accepted, 500u);
  EXPECT_GT(changes_, 0);
  for (size_t i = 1; i < 3; ++i) {
    const std::vector<EntryPtr> a = machines_[0].state->applied();
    const std::vector<EntryPtr> b = machines_[i].state->applied();
    for (size_t k = 0; k < std::min(a.size(), b.size()); ++k) ASSERT_EQ(*a[k], *b[k]);
  }
}

TEST_F(NodeThreadsTest, StopFlushesWhatTheLogWasGivenAndSendsNothingMore) {
  Build(1);
  ASSERT_TRUE(Eventually([&] { return Leader() != nullptr; }));
  Node& node = *machines_[0].node;
  gates_[0]->Open(false);
  const Index before = node.status()->last_index;
  std::atomic<size_t> accepted = 0;
  auto propose = [&](const std::string& payload) {
    node.Propose(node.status()->term, {{EntryType::kCommand, payload, 0}},
                 [&](size_t count, ProposeStatus) { accepted += count; });
  };
  propose("a");
  gates_[0]->WaitForSync();
  propose("b");  // queues up behind the flush
  // The callers hear of it before the status says so.
  const Index last = before + 2;
  ASSERT_TRUE(Eventually([&] { return accepted == 2 && node.status()->last_index == last; }));
  const Index durable = machines_[0].log->durable_last();
  EXPECT_LT(durable, last);
  std::thread stopper([&] { node.Stop(); });
  gates_[0]->Open(true);
  stopper.join();
  EXPECT_EQ(machines_[0].log->durable_last(), last);
}

TEST_F(NodeThreadsTest, AStuckDiskStopsNeitherTheNodeNorItsAnswers) {
  Build(3);
  ASSERT_TRUE(Eventually([&] { return Leader() != nullptr; }));
  Node* const leader = Leader();
  size_t at = 0;
  while (machines_[at].node.get() != leader) ++at;
  gates_[at]->Open(false);
  std::atomic<bool> done = false;
  const Term term = leader->status()->term;
  leader->Propose(term, {{EntryType::kCommand, "x", 0}},
                  [&](size_t, ProposeStatus) { done = true; });
  gates_[at]->WaitForSync();
  // The others commit and apply it without the leader's disk.
  EXPECT_TRUE(Eventually([&] {
    const std::vector<std::string> commands = machines_[(at + 1) % 3].state->Commands();
    return commands.size() == 1;
  }));
  EXPECT_TRUE(done);
  EXPECT_TRUE(machines_[at].state->Commands().empty());
  gates_[at]->Open(true);
  EXPECT_TRUE(Eventually([&] { return machines_[at].state->Commands().size() == 1; }));
}

TEST_F(NodeThreadsTest, AnIdleLogGetsItsMark) {
  Build(1);
  EXPECT_TRUE(Eventually([&] { return machines_[0].log->marks() > 0; }));
}

TEST_F(NodeThreadsTest, EachThreadIsNamed) {
  Build(1);
  auto names = [] {
    std::multiset<std::string> names;
    DIR* tasks = opendir("/proc/self/task");
    for (dirent* entry; (entry = readdir(tasks)) != nullptr;) {
      std::ifstream comm(std::string("/proc/self/task/") + entry->d_name + "/comm");
      std::string name;
      if (std::getline(comm, name)) names.insert(name);
    }
    closedir(tasks);
    return names;
  };
  EXPECT_TRUE(Eventually([&] {
    const auto now = names();
    return now.count("raft") == 1 && now.count("log") == 1 && now.count("apply") == 1 &&
           now.count("logread") == 1;
  }));
}

TEST_F(NodeThreadsTest, ANodeThatIsDestroyedStopsFirst) {
  Build(1);
  ASSERT_TRUE(Eventually([&] { return Leader() != nullptr; }));
  std::atomic<int> calls = 0;
  Node* node = machines_[0].node.get();
  for (int i = 0; i < 100; ++i) {
    node->Propose(node->status()->term, {{EntryType::kCommand, "x", 0}},
                  [&](size_t, ProposeStatus) { ++calls; });
  }
  machines_[0].node.reset();
  EXPECT_EQ(calls, 100);
}

}  // namespace
}  // namespace quorate::raft
