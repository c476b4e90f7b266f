// Ports in memory for Node, and three nodes over them: stepped by the test on one thread, or run on
// their own threads.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "raft/birth_record.h"
#include "raft/node.h"

namespace quorate::raft::testing {

// A log that a crash cuts back to its last sync.
class MemoryLog : public LogStore {
 public:
  struct Contents {
    HardState hard_state;
    Index before;  // the entry before the first, and its term
    Term before_term;
    std::vector<EntryPtr> entries;  // the first has index before + 1
    std::optional<InstallRecord> installed;
    Index last() const { return before + entries.size(); }
    void CutFrom(Index index) { entries.resize(index - before - 1); }
    void CutThrough(Index index) {
      if (index <= before) return;
      before_term = entries[index - before - 1]->term;
      entries.erase(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(index - before));
      before = index;
    }
  };
  explicit MemoryLog(EntryPtr first) {
    durable_.entries.push_back(std::move(first));
    written_ = durable_;
  }

  void Append(const Persist& persist) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(persist.empty()) << "nothing to write";
    EXPECT_GT(persist.ticket, last_ticket_) << "hand-overs out of order";
    last_ticket_ = persist.ticket;
    if (persist.cut_from) written_.CutFrom(*persist.cut_from);
    if (persist.hard_state) written_.hard_state = *persist.hard_state;
    if (persist.install) {
      const SnapshotMeta& snapshot = persist.install->snapshot;
      written_ = {written_.hard_state, snapshot.index, snapshot.term, {}, persist.install};
    }
    for (const EntryPtr& entry : persist.entries) {
      EXPECT_EQ(entry->index, written_.last() + 1) << "a gap";
      written_.entries.push_back(entry);
    }
    ++appends_;
  }
  void Sync() override {
    if (during_sync_) during_sync_();
    std::lock_guard<std::mutex> lock(mutex_);
    durable_ = written_;
    ++syncs_;
    wants_mark_ = marks_wanted_;
  }
  std::vector<EntryPtr> Read(Index from, Index last, size_t bytes) override {
    std::lock_guard<std::mutex> lock(mutex_);
    ++reads_;
    std::vector<EntryPtr> found;
    size_t total = 0;
    for (Index i = from; from > written_.before && i <= std::min(last, written_.last()); ++i) {
      const EntryPtr& entry = written_.entries[i - written_.before - 1];
      total += entry->bytes();
      if (!found.empty() && total > bytes) break;
      found.push_back(entry);
    }
    return found;
  }
  void Cut(Index through) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_LE(through, durable_.last()) << "cuts what is not durable";
    written_.CutThrough(through);
    durable_.CutThrough(through);
  }
  Index TailStart(uint64_t bytes) override {
    std::lock_guard<std::mutex> lock(mutex_);
    Index start = written_.last() + 1;
    for (uint64_t total = 0; start > written_.before + 1 && total < bytes; start = start - 1) {
      total += written_.entries[start - written_.before - 2]->bytes();
    }
    return start;
  }
  bool WantsMark() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return wants_mark_;
  }
  void WriteMark() override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_TRUE(wants_mark_);
    wants_mark_ = false;
    ++marks_;
  }

  // What a crash leaves.
  void Crash() {
    std::lock_guard<std::mutex> lock(mutex_);
    written_ = durable_;
    last_ticket_ = Ticket();
  }
  Contents durable() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return durable_;
  }
  Index durable_last() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return durable_.last();
  }
  HardState durable_hard_state() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return durable_.hard_state;
  }
  // What happens while the disk works, before anything is durable. One thread only.
  void set_during_sync(std::function<void()> during) { during_sync_ = std::move(during); }
  void set_marks_wanted(bool wanted) { marks_wanted_ = wanted; }
  size_t syncs() const { return syncs_; }
  size_t appends() const { return appends_; }
  size_t marks() const { return marks_; }
  size_t reads() const { return reads_; }

 private:
  mutable std::mutex mutex_;
  Contents written_, durable_;
  Ticket last_ticket_;
  std::function<void()> during_sync_;
  bool wants_mark_ = false;
  bool marks_wanted_ = false;
  std::atomic<size_t> syncs_ = 0, appends_ = 0, marks_ = 0, reads_ = 0;
};

// Keeps what was applied, over crashes too.
class MemoryState : public StateMachine {
 public:
  void Apply(const std::vector<EntryPtr>& entries) override {
    std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_FALSE(entries.empty());
    for (const EntryPtr& entry : entries) {
      EXPECT_EQ(entry->index.value(), applied_.size() + 1) << "applied out of order";
      applied_.push_back(entry);
    }
  }
  // Snapshots of these tests carry everything that was applied, under their generation.
  bool Install(const InstallRecord& record) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<EntryPtr>& received = (*snapshots_)[record.generation];
    EXPECT_GT(received.size(), applied_.size()) << "falls back";
    EXPECT_EQ(received.back()->index, record.snapshot.index);
    applied_ = received;
    durable_ = record.snapshot.index;
    ++installs_;
    return Has(EntryType::kBirthComplete);
  }
  void MakeDurable() override {
    std::lock_guard<std::mutex> lock(mutex_);
    durable_ = Index(applied_.size());
    ++made_durable_;
  }
  Index durable_applied() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return durable_;
  }
  using Snapshots = std::map<uint64_t, std::vector<EntryPtr>>;
  void set_snapshots(Snapshots* snapshots) { snapshots_ = snapshots; }
  size_t installs() const { return installs_; }
  size_t made_durable() const { return made_durable_; }
  // A start opens what the log names.
  void Recover(const std::optional<InstallRecord>& installed) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!installed || installed->snapshot.index.value() <= applied_.size()) return;
    applied_ = (*snapshots_)[installed->generation];
    durable_ = installed->snapshot.index;
  }

  std::vector<EntryPtr> applied() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return applied_;
  }
  Index applied_index() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return Index(applied_.size());
  }
  // The payloads of the commands, in order.
  std::vector<std::string> Commands() const {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> commands;
    for (const EntryPtr& entry : applied_) {
      if (entry->type == EntryType::kCommand) commands.push_back(entry->payload);
    }
    return commands;
  }
  size_t Count(EntryType type) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return Counted(type);
  }

 private:
  size_t Counted(EntryType type) const {
    size_t count = 0;
    for (const EntryPtr& entry : applied_) count += entry->type == type;
    return count;
  }
  bool Has(EntryType type) const { return Counted(type) > 0; }

  mutable std::mutex mutex_;
  std::vector<EntryPtr> applied_;
  Index durable_;
  Snapshots* snapshots_ = nullptr;
  std::atomic<size_t> installs_ = 0, made_durable_ = 0;
};

class FakeClock : public Clock {
 public:
  Instant Now() override { return now_; }
  WallMilliseconds WallNow() override { return 1'700'000'000'000; }
  void Advance(Duration by) { now_ += by; }

 private:
  Instant now_ = Instant(std::chrono::hours(1));
};

// Hands everything to `deliver`, after a look at whether it may be said at all: an acknowledgement
// or a vote that is not durable is a bug, whatever happens afterwards.
class CheckingTransport : public Transport {
 public:
  CheckingTransport(const MemoryLog* log, std::function<void(Message)> deliver)
      : log_(log), deliver_(std::move(deliver)) {}

  void Send(std::vector<Message> messages) override {
    EXPECT_FALSE(messages.empty());
    for (Message& message : messages) {
      if (const auto* reply = std::get_if<AppendEntriesReply>(&message.body)) {
        if (reply->success) {
          EXPECT_LE(reply->match, log_->durable_last());
        }
      }
      if (const auto* vote = std::get_if<RequestVoteReply>(&message.body)) {
        if (vote->granted && !vote->pre_vote) {
          EXPECT_EQ(log_->durable_hard_state(), (HardState{vote->term, message.to}));
        }
      }
      deliver_(std::move(message));
    }
  }

 private:
  const MemoryLog* log_;
  std::function<void(Message)> deliver_;
};

// Sends all that the machine has applied, in one message.
class MemorySnapshots : public SnapshotSender {
 public:
  MemorySnapshots(StoreId self, const MemoryState* state, MemoryState::Snapshots* all,
                  std::function<void(Message)> deliver)
      : self_(self), state_(state), all_(all), deliver_(std::move(deliver)) {}

  void Send(const SnapshotRequest& request) override {
    const std::vector<EntryPtr> entries = state_->applied();
    InstallSnapshot install;
    install.term = request.term;
    install.snapshot.index = entries.back()->index;
    install.snapshot.term = entries.back()->term;
    for (const EntryPtr& entry : entries) {
      if (entry->type != EntryType::kMembership) continue;
      install.snapshot.membership_index = entry->index;
      install.snapshot.membership = *DecodeMembership(entry->payload);
    }
    install.generation = all_->size() + 1;
    (*all_)[install.generation] = entries;
    deliver_({self_, request.peer, std::move(install)});
  }

 private:
  const StoreId self_;
  const MemoryState* const state_;
  MemoryState::Snapshots* const all_;
  const std::function<void(Message)> deliver_;
};

inline StoreId NodeStore(size_t i) { return StoreId(0xa0 + i); }

// Founders of one cluster.
inline EntryPtr FirstEntryOf(size_t nodes) {
  Membership membership;
  membership.cluster = ClusterId(0xc1);
  for (size_t i = 0; i < nodes; ++i) {
    membership.members.push_back({.store = NodeStore(i),
                                  .name = "cp-" + std::to_string(i),
                                  .address = "10.0.0." + std::to_string(i + 1) + ":7000",
                                  .voter = true,
                                  .outgoing_voter = false});
  }
  return FirstEntry(EncodeMembership(membership));
}

// One node's disk, state and, while it is up, Node.
struct Machine {
  std::unique_ptr<MemoryLog> log;
  std::unique_ptr<MemoryState> state = std::make_unique<MemoryState>();
  std::unique_ptr<CheckingTransport> transport;
  std::unique_ptr<SnapshotSender> snapshots;
  std::unique_ptr<Node> node;

  RecoveredState Recover() const {
    const MemoryLog::Contents contents = log->durable();
    state->Recover(contents.installed);
    RecoveredState recovered;
    recovered.hard_state = contents.hard_state;
    recovered.prev_index = contents.before;
    recovered.prev_term = contents.before_term;
    recovered.entries = contents.entries;
    recovered.first_index = contents.before + 1;
    recovered.applied = state->applied_index();
    for (const EntryPtr& entry : state->applied()) {
      if (entry->type != EntryType::kMembership) continue;
      recovered.memberships = {{entry->index, *DecodeMembership(entry->payload)}};
    }
    for (const EntryPtr& entry : contents.entries) {
      if (entry->type != EntryType::kMembership || entry->index <= recovered.applied) continue;
      recovered.memberships.emplace_back(entry->index, *DecodeMembership(entry->payload));
    }
    return recovered;
  }
};

// Nodes on one thread: nothing moves but by a call of the test.
class NodeWorld {
 public:
  enum Job { kNode, kLog, kApply, kLogRead };

  explicit NodeWorld(size_t nodes, uint64_t seed = 1) : random_(seed), machines_(nodes) {
    for (size_t i = 0; i < nodes; ++i) {
      Machine& m = machines_[i];
      m.log = std::make_unique<MemoryLog>(FirstEntryOf(nodes));
      m.transport = std::make_unique<CheckingTransport>(
          m.log.get(), [this](Message message) { flights_.push_back(std::move(message)); });
      m.state->set_snapshots(&snapshots_);
      m.snapshots = std::make_unique<MemorySnapshots>(
          NodeStore(i), m.state.get(), &snapshots_,
          [this](Message message) { flights_.push_back(std::move(message)); });
    }
  }
  ~NodeWorld() {
    for (Machine& m : machines_) m.node.reset();
  }

  NodeOptions& options() { return options_; }
  Machine& machine(size_t i) { return machines_[i]; }
  Node& node(size_t i) { return *machines_[i].node; }
  FakeClock& clock() { return clock_; }
  size_t size() const { return machines_.size(); }
  std::vector<Message>& flights() { return flights_; }
  std::mt19937_64& random() { return random_; }

  void Start(size_t i) {
    Machine& m = machines_[i];
    ASSERT_EQ(m.node, nullptr);
    NodeOptions options = options_;
    options.core.self = NodeStore(i);
    options.core.seed = random_();
    options.core.read_ids_from = ++starts_ << 20;
    options.birth_complete = m.state->Count(EntryType::kBirthComplete) > 0 || born_complete_;
    m.node = std::make_unique<Node>(
        options, m.Recover(),
        Node::Ports{m.log.get(), m.transport.get(), m.state.get(), &clock_, m.snapshots.get()});
  }
  void StartAll() {
    for (size_t i = 0; i < size(); ++i) {
      if (machines_[i].node == nullptr) Start(i);
    }
  }
  void Kill(size_t i) {
    machines_[i].node.reset();
    machines_[i].log->Crash();
  }
  // As if BirthComplete had been applied before the log begins.
  void set_born_complete() { born_complete_ = true; }

  void Starve(size_t i, Job job) { starved_.insert({i, job}); }
  void Feed(size_t i, Job job) { starved_.erase({i, job}); }
  // Nothing to or from this node arrives.
  void Isolate(size_t i) { isolated_.insert(NodeStore(i)); }
  void Rejoin(size_t i) { isolated_.erase(NodeStore(i)); }

  bool Step(size_t i, Job job) {
    if (machines_[i].node == nullptr || starved_.contains({i, job})) return false;
    switch (job) {
      case kNode:
        return node(i).RunOnce();
      case kLog:
        return node(i).RunLogOnce();
      case kApply:
        return node(i).RunApplyOnce();
      case kLogRead:
        return node(i).RunLogReadOnce();
    }
    return false;
  }
  bool DeliverOne(size_t at) {
    Message message = std::move(flights_[at]);
    flights_.erase(flights_.begin() + static_cast<ptrdiff_t>(at));
    if (isolated_.contains(message.from) || isolated_.contains(message.to)) return false;
    for (size_t i = 0; i < size(); ++i) {
      if (NodeStore(i) == message.to && machines_[i].node != nullptr) {
        node(i).Receive(std::move(message));
        return true;
      }
    }
    return false;
  }

  // Everybody does all there is to do, until nobody has anything; no time passes.
  void Settle() {
    for (bool worked = true; worked;) {
      worked = false;
      while (!flights_.empty()) worked = DeliverOne(0) || worked;
      for (size_t i = 0; i < size(); ++i) {
        for (Job job : {kNode, kLog, kApply, kLogRead}) worked = Step(i, job) || worked;
      }
    }
  }
  void Run(Duration time) {
    for (Duration done{}; done < time; done += std::chrono::milliseconds(5)) {
      Settle();
      clock_.Advance(std::chrono::milliseconds(5));
    }
    Settle();
  }
  // Anything at random, `steps` times: any job of any node, any message.
  void RunRandomly(size_t steps) {
    for (size_t i = 0; i < steps; ++i) {
      const size_t dice = Pick(10);
      if (dice == 0) clock_.Advance(std::chrono::microseconds(Pick(4000)));
      if (dice < 5 && !flights_.empty()) {
        DeliverOne(Pick(flights_.size()));
      } else {
        Step(Pick(size()), static_cast<Job>(Pick(4)));
      }
    }
  }
  size_t Pick(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }

  std::optional<size_t> Leader() {
    std::optional<size_t> leader;
    for (size_t i = 0; i < size(); ++i) {
      if (machines_[i].node == nullptr || isolated_.contains(NodeStore(i))) continue;
      auto status = node(i).status();
      if (status->role != Role::kLeader || !status->leader_ready) continue;
      if (!leader || node(*leader).status()->term < status->term) leader = i;
    }
    return leader;
  }
  size_t RunUntilLeader() {
    for (int i = 0; i < 2000 && !Leader(); ++i) Run(std::chrono::milliseconds(5));
    EXPECT_TRUE(Leader().has_value()) << "nobody was elected within 10 s";
    return Leader().value_or(0);
  }

  struct Answer {
    size_t calls = 0;
    size_t accepted = 0;
    ProposeStatus status = ProposeStatus::kAccepted;
  };
  std::shared_ptr<Answer> Propose(size_t i, std::vector<std::string> payloads) {
    auto answer = std::make_shared<Answer>();
    std::vector<Core::Proposal> proposals;
    for (std::string& payload : payloads) {
      proposals.push_back({EntryType::kCommand, std::move(payload), 0});
    }
    node(i).Propose(node(i).status()->term, std::move(proposals),
                    [answer](size_t accepted, ProposeStatus status) {
                      ++answer->calls;
                      answer->accepted = accepted;
                      answer->status = status;
                    });
    return answer;
  }

  std::shared_ptr<std::vector<ReadResult>> RequestRead(size_t i, ReadMode mode = ReadMode::kRound) {
    auto results = std::make_shared<std::vector<ReadResult>>();
    node(i).RequestRead(mode, [results](const ReadResult& result) { results->push_back(result); });
    return results;
  }

  // What any two have applied is the same, as far as the shorter one goes.
  void ExpectOneOrder() {
    for (size_t i = 1; i < size(); ++i) {
      const std::vector<EntryPtr> a = machines_[0].state->applied();
      const std::vector<EntryPtr> b = machines_[i].state->applied();
      for (size_t k = 0; k < std::min(a.size(), b.size()); ++k) {
        ASSERT_EQ(*a[k], *b[k]) << "node 0 and node " << i << " at " << k + 1;
      }
    }
  }

 private:
  std::mt19937_64 random_;
  NodeOptions options_;
  FakeClock clock_;
  std::vector<Message> flights_;
  MemoryState::Snapshots snapshots_;
  std::set<std::pair<size_t, Job>> starved_;
  std::set<StoreId> isolated_;
  bool born_complete_ = false;
  uint64_t starts_ = 0;
  std::vector<Machine> machines_;
};

}  // namespace quorate::raft::testing
