// A naive cluster around the real Ingress and the real LeaderSessions, driven by a seed: leaders
// come and go and take unsent log tails with them, links lose what is on them, leaders refuse,
// clients give up, processes restart. Whatever happens, each write is applied at most once, what
// was answered is applied exactly once and with that answer, what was "not accepted" never is,
// every write ends in time, and no sequence stays open for ever.
#include <deque>
#include <optional>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "ingress/ingress.h"
#include "ingress/leader_sessions.h"
#include "tests/sanitizer_share.h"

namespace quorate::ingress {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kStores = 3;

// One entry of a log. `write` is the payload; 0: Skip; `open`: OpenSession.
struct LogEntry {
  uint64_t term = 0;
  SessionId session;
  uint64_t sequence = 0;
  uint64_t answered_through = 0;
  bool open = false;
  uint64_t write = 0;
};

// The session rule of DESIGN.md, "Exactly once", word by word.
struct Machine {
  struct Session {
    SessionId id;
    uint64_t last = 0;
    std::map<uint64_t, std::string> kept;
    uint64_t opened_at = 0;

    AppliedSession View() const { return {id, last, opened_at}; }
  };
  struct Result {
    bool refused = false;
    std::optional<std::string> answer;
  };
  std::map<StoreId, Session> sessions;
  std::map<uint64_t, int> executed;  // write -> how often
  uint64_t revision = 1;
  uint64_t index = 0;

  Result Apply(const LogEntry& entry) {
    ++index;
    auto found = sessions.find(entry.session.store);
    if (entry.open) {
      if (found != sessions.end() && found->second.id == entry.session) return {};
      if (found != sessions.end() && found->second.id.boot >= entry.session.boot) return {true, {}};
      sessions[entry.session.store] = {entry.session, 0, {}, index};
      return {};
    }
    if (found == sessions.end() || found->second.id != entry.session) return {true, {}};
    Session& session = found->second;
    while (!session.kept.empty() && session.kept.begin()->first <= entry.answered_through) {
      session.kept.erase(session.kept.begin());
    }
    if (entry.sequence > session.last + 1) return {true, {}};
    if (entry.sequence <= session.last) {
      const auto kept = session.kept.find(entry.sequence);
      return {false, kept == session.kept.end() ? std::nullopt : std::optional(kept->second)};
    }
    session.last = entry.sequence;
    if (entry.write != 0) {
      ++executed[entry.write];
      ++revision;
    }
    const std::string answer = std::to_string(entry.write) + "@" + std::to_string(revision);
    session.kept[entry.sequence] = answer;
    return {false, answer};
  }
};

struct Write {
  Instant deadline;
  std::optional<Outcome> outcome;
  bool abandoned = false;  // cancelled, or its process died: no outcome comes
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kStores; ++i) Restart(i);
  }

  void Run(size_t steps) {
    for (size_t step = 0; step < steps && !failed_; ++step) Step();
    Quiesce();
    if (!failed_) CheckEnd();
  }

  // What the runs together must have seen, or the test tests nothing.
  struct Seen {
    uint64_t answered = 0, unknown = 0, not_accepted = 0, resent = 0, skips = 0, found_applied = 0,
             refusals = 0, sessions_lost = 0, cut = 0, behind = 0;
    void operator+=(const Seen& o) {
      answered += o.answered, unknown += o.unknown, not_accepted += o.not_accepted;
      resent += o.resent, skips += o.skips, found_applied += o.found_applied;
      refusals += o.refusals, sessions_lost += o.sessions_lost, cut += o.cut;
      behind += o.behind;
    }
  };
  Seen seen_;
  bool failed_ = false;

 private:
  struct Reply {
    enum class Kind { kOpened, kAnswer, kRefused, kUnknown, kNotLeader } kind;
    uint64_t sequence = 0;
    SessionId session;
    std::string answer;
    uint64_t opened_at = 0;
  };
  // A node's ingress, its link to a leader, and what is under way on it.
  struct Node {
    std::unique_ptr<Ingress> ingress;
    uint64_t boot = 0;
    uint64_t next_link = 1;
    uint64_t link = 0;         // 0: none
    uint64_t link_term = 0;    // the leadership at its other end
    uint64_t told = 0;         // AppliedSession::opened_at, told by the leader on this link
    Instant late_until;        // the leader's view of the session may be an older one
    std::deque<LogEntry> out;  // to the leader
    std::deque<Reply> in;
  };

  uint64_t Roll(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  bool OneIn(uint64_t n) { return Roll(n) == 0; }

  void Fail(const std::string& why) {
    ADD_FAILURE() << why;
    failed_ = true;
  }

  static StoreId StoreOf(size_t i) { return StoreId(100 + i); }

  void Restart(size_t i) {
    Node& node = nodes_[i];
    if (node.ingress) {
      AddCounters(*node.ingress);
      for (auto& [id, owner] : owners_) {
        if (owner == i && !writes_[id].outcome) writes_[id].abandoned = true;
      }
    }
    IngressOptions options;
    options.store = StoreOf(i);
    options.boot = ++node.boot;
    options.nonce = random_();
    options.unanswered_max = 1 + Roll(12);
    options.batch_bytes_max = 1 + Roll(2000);
    options.waiting_max = 20;
    options.behind_max = seconds(10);
    node.ingress = std::make_unique<Ingress>(options);
    node.link = 0;
    node.next_link = 1;
    node.out.clear();
    node.in.clear();
  }

  void AddCounters(const Ingress& ingress) {
    seen_.resent += ingress.counters().resent;
    seen_.skips += ingress.counters().skips;
    seen_.found_applied += ingress.counters().found_applied;
    seen_.sessions_lost += ingress.counters().sessions_lost;
  }

  void Step() {
    now_ += milliseconds(Roll(30));
    const size_t i = Roll(kStores);
    switch (Roll(40)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
        Submit(i);
        break;
      case 7:
        Commit(1 + Roll(10));
        break;
      case 8:
      case 9:
      case 10:
      case 11:
        Commit(1 + Roll(3));
        break;
      case 12:
        if (OneIn(6)) NewLeader();
        break;
      case 13:
        if (OneIn(4)) LoseLeader();
        break;
      case 14:
        if (OneIn(3)) BreakLink(i);
        break;
      case 15:
        if (OneIn(15)) Restart(i);
        break;
      case 16:
        if (OneIn(2)) Cancel();
        break;
      case 17:
        if (OneIn(20)) RemoveSession(i);
        break;
      case 18:
        if (OneIn(4)) now_ += milliseconds(Roll(1500));
        break;
      case 19:
      case 20:
      case 21:
        LearnLocally(i);
        break;
      case 22:
      case 23:
      case 24:
      case 25:
      case 26:
      case 27:
      case 28:
      case 29:
        LeaderReads(i);
        break;
      default:
        NodeReads(i);
        break;
    }
    for (size_t n = 0; n < kStores; ++n) Drive(n, !OneIn(4));
  }

  void Submit(size_t i) {
    const uint64_t id = next_write_++;
    writes_[id].deadline = now_ + milliseconds(1 + Roll(OneIn(3) ? 300 : 8000));
    owners_[id] = i;
    v1::Command command;
    command.mutable_transaction()->add_then()->mutable_put()->set_key(std::to_string(id));
    nodes_[i].ingress->Submit(now_, WriteId(id), command, writes_[id].deadline, {});
  }

  void Cancel() {
    if (writes_.empty()) return;
    const uint64_t id = 1 + Roll(next_write_ - 1);
    if (writes_[id].outcome || writes_[id].abandoned) return;
    writes_[id].abandoned = true;
    nodes_[owners_[id]].ingress->Cancel(now_, WriteId(id));
  }

  // Ticks, takes outputs, connects.
  void Drive(size_t i, bool may_send) {
    Node& node = nodes_[i];
    node.ingress->Tick(now_);
    if (node.link == 0 && leading_ && !OneIn(3)) {
      node.link = node.next_link++;
      node.link_term = term_;
      node.told = 0;
      node.late_until = now_ + milliseconds(OneIn(3) ? Roll(1000) : 0);
      node.out.clear();
      node.in.clear();
      leader_sessions_.OnNewStream(node.ingress->session());
      node.ingress->LinkUp(now_, node.link);
    }
    for (;;) {
      Ingress::Output out = node.ingress->TakeOutput(now_, may_send);
      if (out.empty()) break;
      for (auto& [id, outcome] : out.finished) End(id.value(), std::move(outcome));
      if (out.session_lost && !removed_.contains(node.ingress->session())) {
        return Fail("a session ended that the cluster has");
      }
      if (out.session_lost) node.ingress->NewSession(now_, ++node.boot, random_());
      if (!out.open && out.writes.empty()) continue;
      if (out.link != node.link) return Fail("output for another link");
      if (out.open) node.out.push_back({0, node.ingress->session(), 0, 0, true, 0});
      for (const OutgoingWrite& write : out.writes) {
        v1::Command command;
        command.ParseFromString(*write.command);
        LogEntry entry;
        entry.session = {StoreId(command.session().store()), command.session().boot(),
                         command.session().nonce()};
        entry.sequence = write.sequence;
        entry.answered_through = command.session().answered_through();
        if (!command.has_skip()) {
          entry.write = std::stoull(command.transaction().then(0).put().key());
        }
        node.out.push_back(entry);
      }
    }
    if (node.ingress->NextDeadline() <= now_ && may_send) Fail("a timer in the past: a busy loop");
  }

  void End(uint64_t id, Outcome outcome) {
    Write& write = writes_[id];
    if (write.outcome || write.abandoned) return Fail("a second outcome");
    switch (outcome.kind) {
      case Outcome::Kind::kAnswered:
        ++seen_.answered;
        break;
      case Outcome::Kind::kUnknown:
        ++seen_.unknown;
        break;
      case Outcome::Kind::kNotAccepted:
        ++seen_.not_accepted;
        break;
    }
    write.outcome = std::move(outcome);
  }

  // --- The leader. Everything committed is applied at once by everybody; the tail of log_ is
  // what only the leader has, or had.

  void LeaderReads(size_t i) {
    Node& node = nodes_[i];
    if (node.link == 0 || node.out.empty()) return;
    const LogEntry entry = node.out.front();
    node.out.pop_front();
    if (!leading_ || node.link_term != term_) {
      // A deposed leader: what it still takes goes nowhere, and sooner or later it says so.
      node.in.push_back({Reply::Kind::kNotLeader, 0, {}, ""});
      return;
    }
    const auto found = machine_.sessions.find(entry.session.store);
    std::optional<AppliedSession> applied;
    if (found != machine_.sessions.end()) applied = found->second.View();
    if (entry.open) {
      if (applied && applied->id == entry.session) {
        // Its apply thread may be behind the node's own.
        const uint64_t last = applied->last_sequence;
        const uint64_t behind = now_ < node.late_until ? Roll(std::min<uint64_t>(last, 5) + 1) : 0;
        if (last - behind < node.ingress->answered_through()) ++seen_.behind;
        TellOpened(&node, {entry.session, last - behind, applied->opened_at});
      } else if (OneIn(8)) {
        node.in.push_back({Reply::Kind::kRefused, 0, {}, ""});
      } else {
        Append(entry);
      }
      return;
    }
    // As services/write_intake.
    if (applied && applied->opened_at != node.told) applied.reset();
    const auto check = leader_sessions_.Check(entry.session, entry.sequence, applied);
    switch (check.verdict) {
      case LeaderSessions::Verdict::kAppend:
        if (OneIn(12)) {  // the queue is full
          leader_sessions_.RollBack(entry.session, entry.sequence);
          node.in.push_back({Reply::Kind::kRefused, entry.sequence, {}, ""});
          ++seen_.refusals;
        } else {
          Append(entry);
        }
        break;
      case LeaderSessions::Verdict::kApplied: {
        const auto kept = found->second.kept.find(entry.sequence);
        if (kept != found->second.kept.end()) {
          node.in.push_back({Reply::Kind::kAnswer, entry.sequence, entry.session, kept->second});
        }
        break;
      }
      case LeaderSessions::Verdict::kRefuse:
        node.in.push_back({Reply::Kind::kRefused, check.expected, {}, ""});
        break;
      case LeaderSessions::Verdict::kUnknown:
        node.in.push_back({Reply::Kind::kUnknown, 0, entry.session, ""});
        break;
      case LeaderSessions::Verdict::kPending:
      case LeaderSessions::Verdict::kIgnore:
        break;
    }
  }

  static void TellOpened(Node* node, const AppliedSession& session) {
    node->told = session.opened_at;
    node->in.push_back(
        {Reply::Kind::kOpened, session.last_sequence, session.id, "", session.opened_at});
  }

  void Append(LogEntry entry) {
    entry.term = term_;
    log_.push_back(entry);
  }

  void Commit(size_t count) {
    if (!leading_) return;
    for (; count > 0 && !log_.empty(); --count) {
      const LogEntry entry = log_.front();
      log_.pop_front();
      Apply(entry);
      // While nothing of the session has been answered: it looks like a new one.
      if (entry.sequence == 1 && OneIn(20)) RemoveSession(entry.session.store.value() - 100);
    }
  }

  void Apply(const LogEntry& entry) {
    const Machine::Result result = machine_.Apply(entry);
    const size_t i = entry.session.store.value() - 100;
    Node& node = nodes_[i];
    if (!result.refused && result.answer) {
      local_[i].push_back({Reply::Kind::kAnswer, entry.sequence, entry.session, *result.answer});
    }
    if (node.link == 0 || !leading_ || node.link_term != term_) return;
    if (node.ingress->session() != entry.session) return;
    const auto found = machine_.sessions.find(entry.session.store);
    if (result.refused) {
      leader_sessions_.OnRefusedByState(entry.session);
      if (!entry.open && found != machine_.sessions.end() && found->second.id == entry.session) {
        Fail("a gap in the log");
      }
      node.in.push_back({Reply::Kind::kUnknown, 0, entry.session, ""});
    } else if (entry.open) {
      TellOpened(&node, found->second.View());
    } else if (result.answer) {
      node.in.push_back({Reply::Kind::kAnswer, entry.sequence, entry.session, *result.answer});
    }
  }

  // A new leader has some prefix of the tail, commits it with its no-op, and the rest is gone.
  void NewLeader() {
    ++term_;
    const size_t kept = Roll(log_.size() + 1);
    seen_.cut += log_.size() - kept;
    log_.resize(kept);
    leading_ = false;  // nobody is told by a link
    while (!log_.empty()) {
      const LogEntry entry = log_.front();
      log_.pop_front();
      Apply(entry);
    }
    leading_ = true;
    leader_sessions_.BeginTerm(raft::Term(term_));
  }

  // The old log stays until a new leader decides about it.
  void LoseLeader() {
    leading_ = false;
    ++term_;
  }

  // The operator's side of "session unknown": as if the store had been removed and let in again.
  void RemoveSession(size_t i) {
    removed_.insert(nodes_[i].ingress->session());
    machine_.sessions.erase(StoreOf(i));
    // It opens the session again before it hears of that; and a snapshot keeps from it what the
    // session had executed.
    if (OneIn(2)) BreakLink(i);
    if (OneIn(2)) local_[i].clear();
  }

  // --- Links ---

  void BreakLink(size_t i) {
    Node& node = nodes_[i];
    if (node.link == 0) return;
    // What the leader had sent may still arrive, or not.
    if (OneIn(2)) {
      while (!node.in.empty()) NodeReads(i);
    }
    if (node.link == 0) return;
    node.ingress->LinkDown(now_, node.link);
    node.link = 0;
    // What was on its way may still reach a leader that is alive.
    node.out.clear();
    node.in.clear();
  }

  void NodeReads(size_t i) {
    Node& node = nodes_[i];
    if (node.link == 0 || node.in.empty()) return;
    const Reply reply = node.in.front();
    node.in.pop_front();
    Deliver(i, reply);
    if (OneIn(20) && reply.kind == Reply::Kind::kAnswer) Deliver(i, reply);
    // By the intake, and by its apply thread.
    if (OneIn(20) && reply.kind == Reply::Kind::kOpened) node.in.push_back(reply);
    if (reply.kind == Reply::Kind::kNotLeader) BreakLink(i);
  }

  void Deliver(size_t i, const Reply& reply) {
    Node& node = nodes_[i];
    Ingress& ingress = *node.ingress;
    switch (reply.kind) {
      case Reply::Kind::kOpened:
        return ingress.OnOpened(now_, node.link, {reply.session, reply.sequence, reply.opened_at});
      case Reply::Kind::kAnswer:
        return ingress.OnAnswer(now_, reply.session, reply.sequence,
                                std::make_shared<std::string>(reply.answer));
      case Reply::Kind::kRefused:
        return ingress.OnRefused(now_, node.link, reply.sequence);
      case Reply::Kind::kUnknown:
        return ingress.OnSessionUnknown(now_, node.link, reply.session, "unknown");
      case Reply::Kind::kNotLeader:
        return;
    }
  }

  // The node's own state machine, some time later.
  void LearnLocally(size_t i) {
    auto& queue = local_[i];
    for (size_t count = Roll(6); count > 0 && !queue.empty(); --count) {
      Deliver(i, queue.front());
      queue.pop_front();
    }
    if (queue.size() > 200) queue.pop_front();
  }

  // --- The end ---

  void Quiesce() {
    for (size_t round = 0; round < 4000 && !failed_; ++round) {
      now_ += milliseconds(20);
      if (!leading_) NewLeader();
      for (size_t i = 0; i < kStores; ++i) {
        // A deposed leader ends its links, whether anything is sent on them or not.
        if (nodes_[i].link != 0 && nodes_[i].link_term != term_) BreakLink(i);
        Drive(i, true);
        for (int k = 0; k < 20; ++k) LeaderReads(i);
        Commit(100);
        for (int k = 0; k < 40; ++k) NodeReads(i);
      }
    }
  }

  void CheckEnd() {
    for (size_t i = 0; i < kStores; ++i) {
      if (nodes_[i].ingress->unanswered() != 0) Fail("a sequence stayed open");
      if (nodes_[i].ingress->waiting() != 0) Fail("a write still waits");
      AddCounters(*nodes_[i].ingress);
    }
    for (const auto& [id, write] : writes_) {
      const int executed = machine_.executed[id];
      const std::string name = "write " + std::to_string(id);
      if (executed > 1) Fail(name + " was executed twice");
      if (write.abandoned) continue;
      if (!write.outcome) {
        Fail(name + " never ended");
        continue;
      }
      switch (write.outcome->kind) {
        case Outcome::Kind::kAnswered:
          if (executed != 1) Fail(name + " was answered and not executed");
          if (!write.outcome->answer->starts_with(std::to_string(id) + "@")) {
            Fail(name + " got the answer " + *write.outcome->answer);
          }
          break;
        case Outcome::Kind::kNotAccepted:
          if (executed != 0) Fail(name + " was not accepted and executed all the same");
          break;
        case Outcome::Kind::kUnknown:
          break;
      }
    }
  }

  std::mt19937_64 random_;
  Instant now_ = Instant(seconds(1000));
  Node nodes_[kStores];
  std::deque<Reply> local_[kStores];
  std::map<uint64_t, Write> writes_;
  std::map<uint64_t, size_t> owners_;
  uint64_t next_write_ = 1;

  uint64_t term_ = 1;
  bool leading_ = false;
  std::deque<LogEntry> log_;  // not committed
  Machine machine_;
  std::set<SessionId> removed_;
  LeaderSessions leader_sessions_;
};

TEST(ExactlyOnceModelTest, WhateverHappensAWriteIsAppliedAtMostOnceAndEnds) {
  Simulation::Seen seen;
  for (uint64_t seed = 1; seed <= SanitizerShare(200); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation simulation(seed);
    simulation.Run(4000);
    ASSERT_FALSE(simulation.failed_);
    seen += simulation.seen_;
  }
  // The runs must have been through all of it.
  EXPECT_GT(seen.answered, SanitizerShare(5000));
  EXPECT_GT(seen.unknown, SanitizerShare(1000));
  EXPECT_GT(seen.not_accepted, SanitizerShare(1000));
  EXPECT_GT(seen.resent, SanitizerShare(1000));
  EXPECT_GT(seen.skips, SanitizerShare(100));
  EXPECT_GT(seen.found_applied, SanitizerShare(100));
  EXPECT_GT(seen.refusals, SanitizerShare(100));
  EXPECT_GT(seen.sessions_lost, SanitizerShare(100));
  EXPECT_GT(seen.cut, SanitizerShare(1000));
  EXPECT_GT(seen.behind, SanitizerShare(100));
}

}  // namespace
}  // namespace quorate::ingress
