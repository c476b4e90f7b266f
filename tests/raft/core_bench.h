// One core on a bench: the test plays everybody else. Store 1 is the core under test, 2, 3, ... the
// others.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "raft/core/core.h"
#include "tests/raft/core_cluster.h"

namespace quorate::raft::testing {

inline constexpr StoreId kSelf{1}, kTwo{2}, kThree{3}, kFour{4}, kFive{5};

struct BenchSetup {
  // The terms of the log, from entry 1 (the membership, whatever its term); all durable.
  std::vector<uint64_t> terms = {1};
  // The state came as a snapshot: `terms` are those of the entries behind it.
  std::optional<SnapshotMeta> snapshot = std::nullopt;
  uint64_t term = 0;  // 0: that of the last entry
  uint64_t vote = 0;
  uint64_t applied = 1;
  size_t voters = 3;
  size_t learners = 0;
  // How many entries the window starts with; the others are on disk only.
  size_t window_entries = 1000000;
  CoreOptions options = {};
};

class Bench {
 public:
  explicit Bench(BenchSetup setup = {}) : setup_(std::move(setup)) {
    Membership membership;
    membership.cluster = ClusterId(0xc1);
    for (uint64_t id = 1; id <= setup_.voters + setup_.learners; ++id) {
      membership.members.push_back(
          Member{StoreId(id), "n" + std::to_string(id), "", id <= setup_.voters, false});
    }
    RecoveredState state;
    for (size_t i = 0; i < setup_.terms.size(); ++i) {
      const Index index(Before() + i + 1);
      const Term term(setup_.terms[i]);
      disk.push_back(index == Index(1) ? MakeMembershipEntry(index, term, membership)
                                       : MakeEntry(index, term));
    }
    const size_t start = disk.size() - std::min(disk.size(), setup_.window_entries);
    state.prev_index = Index(Before() + start);
    state.prev_term = start > 0         ? disk[start - 1]->term
                      : setup_.snapshot ? setup_.snapshot->term
                                        : Term(0);
    state.entries.assign(disk.begin() + static_cast<std::ptrdiff_t>(start), disk.end());
    state.first_index = Index(Before() + 1);
    state.applied = Index(std::max(setup_.applied, Before()));
    if (setup_.snapshot) {
      state.memberships = {{setup_.snapshot->membership_index, setup_.snapshot->membership}};
      state.prev_log_time_ms = setup_.snapshot->log_time_ms;
    } else if (!disk.empty()) {
      state.memberships = {{Index(1), membership}};
    }
    const Term last_term = disk.empty() ? state.prev_term : disk.back()->term;
    state.hard_state = {setup_.term == 0 ? last_term : Term(setup_.term), StoreId(setup_.vote)};
    setup_.options.self = kSelf;
    core_ = std::make_unique<Core>(setup_.options, std::move(state), now);
  }

  Core& core() { return *core_; }
  Core* operator->() { return core_.get(); }

  // --- Time and messages ---
  void Pass(int milliseconds) { now += std::chrono::milliseconds(milliseconds); }
  void Tick() {
    core_->Tick(now);
    Drain();
  }
  void Hear(StoreId from, MessageBody body) {
    core_->Step(Message{from, kSelf, std::move(body)}, now);
    Drain();
  }
  std::pair<size_t, ProposeStatus> Propose(std::vector<size_t> payload_bytes) {
    std::vector<Core::Proposal> proposals;
    for (size_t bytes : payload_bytes) {
      Core::Proposal proposal;
      proposal.payload = std::string(bytes, 'x');
      proposals.push_back(std::move(proposal));
    }
    const auto result = core_->Propose(core_->term(), std::move(proposals), now);
    Drain();
    return result;
  }

  ChangeResult Change(std::vector<MemberStep> steps, bool force = false) {
    const ChangeResult result = core_->ProposeMembership({std::move(steps), force}, now);
    Drain();
    return result;
  }
  TransferStatus Transfer(StoreId target) {
    const TransferStatus status = core_->TransferLeadership(target, now);
    Drain();
    return status;
  }

  // Takes what the core has. What waits for the disk stays in `waiting` unless `auto_persist`.
  void Drain() {
    while (core_->HasReady()) {
      Ready ready = core_->TakeReady();
      for (Message& message : ready.send_now) sent.push_back(std::move(message));
      for (LogRead& read : ready.log_reads) reads.push_back(read);
      for (const SnapshotRequest& request : ready.snapshot_requests) {
        snapshot_requests.push_back(request);
      }
      if (ready.install) {
        installs.push_back(*ready.install);
        if (auto_apply) core_->OnApplied(ready.install->snapshot.index);
      }
      for (EntryPtr& entry : ready.committed) committed.push_back(std::move(entry));
      if (ready.persist.ticket) {
        tickets.push_back(ready.persist.ticket);
        persists.push_back(ready.persist);
        waiting.push_back(std::move(ready.send_after_persist));
      }
      if (auto_persist) Persist();
      if (auto_apply && !committed.empty() && committed.back()->index > core_->applied()) {
        core_->OnApplied(committed.back()->index);
      }
    }
  }
  // The oldest `count` hand-overs are durable, and the core is told; 0: all of them.
  void Persist(size_t count = 0) {
    if (count == 0) count = tickets.size();
    for (; count > 0 && !tickets.empty(); --count) {
      for (Message& message : waiting.front()) sent.push_back(std::move(message));
      waiting.erase(waiting.begin());
      const Ticket ticket = tickets.front();
      tickets.erase(tickets.begin());
      core_->OnPersisted(ticket);
    }
  }

  // --- What was said ---
  // Forgets what was said so far.
  void Listen() { sent.clear(); }
  template <typename T>
  std::vector<T> All(std::optional<StoreId> to = std::nullopt) const {
    std::vector<T> found;
    for (const Message& message : sent) {
      if (to && message.to != *to) continue;
      if (const T* body = std::get_if<T>(&message.body)) found.push_back(*body);
    }
    return found;
  }
  // The last one; the test fails when there is none.
  template <typename T>
  T Last(std::optional<StoreId> to = std::nullopt) const {
    const std::vector<T> all = All<T>(to);
    if (all.empty()) {
      ADD_FAILURE() << "it said nothing of the kind";
      return T{};
    }
    return all.back();
  }

  // --- The usual conversations ---
  // Time passes until no start and no leader keeps anybody from voting; no timer fires.
  void OutlastLeases() { now += setup_.options.election_timeout_min; }
  RequestVoteReply AskVote(StoreId from, uint64_t term, uint64_t last_index, uint64_t last_term,
                           bool pre_vote = false) {
    Listen();
    Hear(from, RequestVote{Term(term), pre_vote, Index(last_index), Term(last_term), 77});
    return Last<RequestVoteReply>(from);
  }
  AppendEntries Append(uint64_t term, uint64_t prev_index, uint64_t prev_term,
                       const std::vector<uint64_t>& entry_terms, uint64_t commit = 0) const {
    AppendEntries append;
    append.term = Term(term);
    append.prev_index = Index(prev_index);
    append.prev_term = Term(prev_term);
    append.commit = Index(commit);
    append.sent_at = now;
    for (size_t i = 0; i < entry_terms.size(); ++i) {
      append.entries.push_back(MakeEntry(Index(prev_index + i + 1), Term(entry_terms[i])));
    }
    return append;
  }
  AppendEntriesReply HearAppend(StoreId from, const AppendEntries& append) {
    Listen();
    Hear(from, append);
    return Last<AppendEntriesReply>(from);
  }
  // The election timer fires and everybody else says yes, as often as it takes.
  void Campaign() {
    now = std::max(now, core_->NextDeadline());
    Tick();
  }
  void GrantAll(bool pre_vote) {
    const Term term = pre_vote ? core_->term() + 1 : core_->term();
    for (uint64_t id = 2; id <= setup_.voters; ++id) {
      Hear(StoreId(id), RequestVoteReply{term, pre_vote, true, 0});
    }
  }
  void Elect() {
    Campaign();
    GrantAll(true);
    GrantAll(false);
  }
  // A follower's answer to what the leader has just sent.
  void Ack(StoreId from, uint64_t match, std::optional<uint64_t> last = std::nullopt) {
    AppendEntriesReply reply;
    reply.term = core_->term();
    reply.success = true;
    reply.match = Index(match);
    reply.last_index = Index(last.value_or(match));
    reply.echoed_sent_at = now;
    reply.receiver_clock = now;
    Hear(from, reply);
  }
  void Refuse(StoreId from, uint64_t prev, uint64_t hint_index, uint64_t hint_term, uint64_t last) {
    AppendEntriesReply reply;
    reply.term = core_->term();
    reply.match = Index(prev);
    reply.hint_index = Index(hint_index);
    reply.hint_term = Term(hint_term);
    reply.last_index = Index(last);
    reply.echoed_sent_at = now;
    reply.receiver_clock = now;
    Hear(from, reply);
  }
  // Every peer says that it has what the leader has; one heartbeat passes. Afterwards everything is
  // committed and everybody has caught up, as far as one round tells.
  void AckAll(std::vector<StoreId> peers) {
    for (StoreId peer : peers) Ack(peer, core_->last_index().value());
  }
  // Answers the oldest read from `disk` extended by what was persisted.
  void AnswerRead() {
    const LogRead read = reads.front();
    reads.erase(reads.begin());
    std::vector<EntryPtr> all = disk;
    for (const auto& persist : persists) {
      if (persist.cut_from) all.resize(persist.cut_from->value() - 1);
      all.insert(all.end(), persist.entries.begin(), persist.entries.end());
    }
    std::vector<EntryPtr> entries;
    size_t bytes = 0;
    for (uint64_t i = read.from.value(); i <= read.last.value(); ++i) {
      bytes += all[i - 1]->bytes();
      if (!entries.empty() && bytes > read.bytes) break;
      entries.push_back(all[i - 1]);
    }
    core_->OnLogRead(read.peer, read.from, std::move(entries));
    Drain();
  }

  Instant now{std::chrono::seconds(1000)};
  bool auto_persist = true;
  bool auto_apply = true;
  std::vector<EntryPtr> disk;  // the log at the start
  std::vector<Message> sent;
  std::vector<struct Persist> persists;
  std::vector<Ticket> tickets;
  std::vector<std::vector<Message>> waiting;
  std::vector<EntryPtr> committed;
  std::vector<LogRead> reads;
  std::vector<SnapshotRequest> snapshot_requests;
  std::vector<InstallRecord> installs;

 private:
  uint64_t Before() const { return setup_.snapshot ? setup_.snapshot->index.value() : 0; }

  BenchSetup setup_;
  std::unique_ptr<Core> core_;
};

}  // namespace quorate::raft::testing
