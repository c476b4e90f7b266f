// A world for birth: disks, processes and a network that the test rules, on one thread with a clock
// of its own. Used by the stories (birth_test.cc and its neighbours) and by the model
// (birth_model_test.cc).
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "raft/birth.h"

namespace quorate::raft::testing {

class BirthWorld {
 public:
  // When a process dies within one input's output.
  enum class Crash { kNever, kBeforePersist, kAfterPersist, kBeforeLog };

  struct Node {
    std::string name;
    std::string address;
    std::vector<std::string> founders;
    std::vector<PeerAddress> peers;
    // The disk. A wipe makes another store.
    StoreId store;
    uint64_t boot = 0;
    std::optional<std::string> identity;  // the encoded record
    bool complete = false;
    // The process; null while it is down.
    std::unique_ptr<Birth> birth;
    uint64_t nonce = 0;
    std::optional<std::string> halted;
    bool exited = false;
  };

  // A request or a reply under way.
  struct Flight {
    uint64_t caller_nonce = 0;
    uint64_t call = 0;
    std::string from;  // the caller's address
    std::string to;    // the callee's address
    BirthRequest request;
    std::optional<BirthReply> reply;

    bool IsBorn() const { return std::holds_alternative<raft::Born>(request); }
    bool IsPropose() const { return std::holds_alternative<raft::Propose>(request); }
  };

  static std::string Name(size_t i) { return "cp-" + std::to_string(i); }
  static std::string Address(size_t i) { return "10.0.0." + std::to_string(i + 1) + ":7000"; }

  // `count` founders that all know of each other.
  explicit BirthWorld(size_t count, uint64_t seed = 1) : seed_(seed * 1000003) {
    std::vector<std::string> founders;
    std::vector<PeerAddress> peers;
    for (size_t i = 0; i < count; ++i) {
      founders.push_back(Name(i));
      peers.push_back({Address(i), Name(i)});
    }
    for (size_t i = 0; i < count; ++i) Add(Name(i), Address(i), founders, peers);
  }

  size_t Add(const std::string& name, const std::string& address, std::vector<std::string> founders,
             std::vector<PeerAddress> peers) {
    auto node = std::make_unique<Node>();
    node->name = name;
    node->address = address;
    node->founders = std::move(founders);
    node->peers = std::move(peers);
    node->store = StoreId(0x1000 + next_store_++);
    nodes_.push_back(std::move(node));
    return nodes_.size() - 1;
  }

  Node& node(size_t i) { return *nodes_[i]; }
  size_t size() const { return nodes_.size(); }
  Instant now() const { return now_; }
  std::vector<Flight>& flights() { return flights_; }

  void Start(size_t i, bool begins = true) {
    Node& n = *nodes_[i];
    ASSERT_EQ(n.birth, nullptr);
    BirthRecord record;
    if (n.identity) {
      std::optional<BirthRecord> decoded = DecodeBirthRecord(*n.identity);
      ASSERT_TRUE(decoded.has_value()) << "an identity that was written is not read back";
      record = *decoded;
    }
    n.nonce = ++seed_;
    n.halted.reset();
    n.exited = false;
    BirthOptions options;
    options.store = n.store;
    options.name = n.name;
    options.address = n.address;
    options.nonce = n.nonce;
    options.boot = ++n.boot;
    options.seed = seed_ * 0x9e3779b97f4a7c15;
    options.founders = n.founders;
    options.birth_complete = n.complete;
    n.birth = std::make_unique<Birth>(options, record, now_);
    if (begins) n.birth->Begin(now_);
    if (Act(i)) {
      n.birth->SetAddresses(n.peers, now_);
      Act(i);
    }
  }
  void StartAll() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i]->birth == nullptr) Start(i);
    }
  }
  // SIGKILL: the disk stays.
  void Kill(size_t i) {
    nodes_[i]->birth.reset();
    nodes_[i]->nonce = 0;
  }
  void Wipe(size_t i) {
    ASSERT_EQ(nodes_[i]->birth, nullptr);
    nodes_[i]->store = StoreId(0x1000 + next_store_++);
    nodes_[i]->boot = 0;
    nodes_[i]->identity.reset();
    nodes_[i]->complete = false;
  }

  // Does what the output wants, as far as the process lives; false when it died.
  bool Act(size_t i, Crash crash = Crash::kNever) {
    Node& n = *nodes_[i];
    BirthOutput output = n.birth->TakeOutput();
    if (crash == Crash::kBeforePersist) return Kill(i), false;
    if (output.persist) n.identity = EncodeBirthRecord(*output.persist);
    if (crash == Crash::kAfterPersist) return Kill(i), false;
    for (BirthCall& call : output.calls) {
      flights_.push_back({n.nonce, call.id, n.address, call.address, std::move(call.request), {}});
    }
    if (output.halt) n.halted = output.halt;
    n.exited = n.exited || output.exit;
    if (output.create_log) {
      if (crash == Crash::kBeforeLog) return Kill(i), false;
      n.birth->OnLogCreated(now_);
      return Act(i);
    }
    return true;
  }

  Node* At(const std::string& address) {
    for (auto& n : nodes_) {
      if (n->address == address && n->birth != nullptr && !n->exited) return n.get();
    }
    return nullptr;
  }
  size_t IndexOf(const Node* node) const {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].get() == node) return i;
    }
    return nodes_.size();
  }

  // Delivers one message; a request leaves its reply under way. `crash` hits the receiver.
  void Deliver(Flight flight, Crash crash = Crash::kNever) {
    if (flight.reply) {
      Node* caller = At(flight.from);
      // A reply to a former process finds nobody: the connection is gone.
      if (caller == nullptr || caller->nonce != flight.caller_nonce) return;
      caller->birth->OnReply(flight.call, *flight.reply, now_);
      Act(IndexOf(caller), crash);
      return;
    }
    Node* callee = At(flight.to);
    if (callee == nullptr) {
      Fail(flight, "connection refused");
      return;
    }
    Birth& birth = *callee->birth;
    if (auto* identify = std::get_if<IdentifyRequest>(&flight.request)) {
      flight.reply = birth.OnIdentify(*identify, now_);
    } else if (auto* propose = std::get_if<Propose>(&flight.request)) {
      flight.reply = birth.OnPropose(*propose, now_);
    } else {
      flight.reply = birth.OnBorn(std::get<raft::Born>(flight.request), now_);
    }
    if (Act(IndexOf(callee), crash)) flights_.push_back(std::move(flight));
  }
  void Fail(const Flight& flight, const std::string& reason) {
    Node* caller = At(flight.from);
    if (caller == nullptr || caller->nonce != flight.caller_nonce) return;
    caller->birth->OnCallFailed(flight.call, reason, now_);
    Act(IndexOf(caller));
  }

  void Advance(Duration by) { now_ += by; }
  void Tick(size_t i, Crash crash = Crash::kNever) {
    nodes_[i]->birth->Tick(now_);
    Act(i, crash);
  }

  // Lets time pass on a network without faults; `cut` drops what it returns true for.
  void Run(Duration time, const std::function<bool(const Flight&)>& cut = nullptr) {
    const Instant end = now_ + time;
    while (now_ < end) {
      for (size_t i = 0; i < nodes_.size(); ++i) {
        if (nodes_[i]->birth != nullptr && !nodes_[i]->exited) Tick(i);
      }
      while (!flights_.empty()) {
        Flight flight = std::move(flights_.front());
        flights_.erase(flights_.begin());
        if (cut && cut(flight)) {
          Fail(flight, "unreachable");
        } else {
          Deliver(std::move(flight));
        }
      }
      Advance(std::chrono::milliseconds(25));
    }
  }

  BirthStatus Status(size_t i) { return nodes_[i]->birth->Status(now_); }
  // All sentences of a node's status, one per line.
  std::string Lacks(size_t i) {
    std::string text;
    for (const std::string& line : Status(i).lacks) text += line + "\n";
    return text;
  }
  bool Born(size_t i) {
    return nodes_[i]->birth != nullptr && nodes_[i]->birth->record().log_created;
  }
  ClusterId ClusterOf(size_t i) { return nodes_[i]->birth->record().cluster(); }
  bool AllBornTogether() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!Born(i) || ClusterOf(i) != ClusterOf(0)) return false;
    }
    return true;
  }

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Flight> flights_;
  Instant now_ = Instant(std::chrono::hours(1));
  uint64_t seed_;
  uint64_t next_store_ = 1;
};

}  // namespace quorate::raft::testing
