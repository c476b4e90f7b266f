#include "tests/raft/core_cluster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace quorate::raft::testing {

EntryPtr MakeEntry(Index index, Term term, EntryType type, std::string payload) {
  auto entry = std::make_shared<Entry>();
  entry->index = index;
  entry->term = term;
  entry->type = type;
  entry->payload = std::move(payload);
  return entry;
}

EntryPtr MakeMembershipEntry(Index index, Term term, const Membership& membership) {
  return MakeEntry(index, term, EntryType::kMembership, EncodeMembership(membership));
}

// --- TestNode ---

TestNode::TestNode(Cluster* cluster, std::string name, CoreOptions options, Disk disk)
    : cluster_(cluster), name_(std::move(name)), options_(options), disk_(std::move(disk)) {}

RecoveredState TestNode::Recover() const {
  RecoveredState state;
  state.hard_state = disk_.hard_state;
  state.first_index = disk_.first;
  state.applied = disk_.applied;
  size_t start = disk_.log.size();
  for (size_t bytes = 0; Index(start) >= disk_.first; --start) {
    bytes += disk_.log[start - 1]->bytes();
    if (bytes > recovered_window_bytes_) break;
  }
  state.prev_index = Index(start);
  state.prev_term = start == 0 ? Term(0) : disk_.log[start - 1]->term;
  state.prev_log_time_ms = start == 0 ? 0 : disk_.log[start - 1]->log_time_ms;
  state.entries.assign(disk_.log.begin() + static_cast<std::ptrdiff_t>(start), disk_.log.end());
  for (const EntryPtr& entry : disk_.log) {
    if (entry->type != EntryType::kMembership) continue;
    if (entry->index <= disk_.applied) state.memberships.clear();
    state.memberships.emplace_back(entry->index, *DecodeMembership(entry->payload));
  }
  return state;
}

void TestNode::Start() {
  log_ = disk_.log;
  state_.entries.assign(disk_.log.begin(),
                        disk_.log.begin() + static_cast<std::ptrdiff_t>(disk_.applied.value()));
  // No two starts number their requests alike, as in production.
  CoreOptions options = options_;
  options.read_ids_from = 1000 * starts_++;
  started_ = Now();
  promised_before_ = options.promised_before_start = disk_.promised;
  promises_ = options.election_timeout_min;
  disk_.promised = std::max(disk_.promised, promises_);
  core_ = std::make_unique<Core>(options, Recover(), Now());
  core_->SetLeases(leases_);
  seen_ = Seen{
      core_->role(), core_->term(), core_->leader(), core_->commit(), core_->membership_index(),
      false,         StoreId()};
}

Instant TestNode::Now() const { return cluster_->now() + clock_offset_; }

void TestNode::ReportTicket(Ticket ticket) {
  core_->OnPersisted(ticket);
  React();
}

void TestNode::Stop() {
  core_.reset();
  pending_.clear();
  applying_.clear();
  reads_.clear();
  snapshot_requests_.clear();
  transfers_.clear();
  asked_reads_.clear();
  durable_ticket_ = Ticket();
}

// As the driver does: what was promised before the start is over, and only this process's counts.
void TestNode::LowerPromise() {
  if (Now() - started_ >= promised_before_) disk_.promised = promises_;
}

void TestNode::Tick() {
  FailOverdueSnapshots();
  LowerPromise();
  core_->Tick(Now());
  React();
}

void TestNode::Receive(const Message& message) {
  if (std::holds_alternative<InstallSnapshotReply>(message.body)) return OnSnapshotReply(message);
  core_->Step(message, Now());
  React();
}

std::pair<size_t, ProposeStatus> TestNode::Propose(std::vector<std::string> payloads) {
  std::vector<Core::Proposal> proposals;
  for (std::string& payload : payloads) {
    Core::Proposal proposal;
    proposal.payload = std::move(payload);
    proposals.push_back(std::move(proposal));
  }
  const auto result = core_->Propose(core_->term(), std::move(proposals), Now());
  React();
  return result;
}

void TestNode::RequestRead(ReadMode mode) {
  const uint64_t id = cluster_->NextReadId();
  asked_reads_[id] = cluster_->oracle().highest_committed();
  cluster_->Say(name_ + ": read " + std::to_string(id) + " is asked for" +
                (mode == ReadMode::kLease ? ", a lease will do" : ""));
  core_->RequestRead(id, mode, Now());
  React();
}

void TestNode::NoteReads(const std::vector<ReadResult>& results) {
  for (const ReadResult& result : results) {
    const auto asked = asked_reads_.find(result.id);
    if (asked == asked_reads_.end()) {
      return cluster_->Fail(name_ + " answers a read that nobody waits for");
    }
    cluster_->Say(name_ + ": " + Print(result));
    if (result.outcome == ReadOutcome::kConfirmed) {
      ++read_totals_.confirmed;
      if (result.lease_until) ++read_totals_.by_lease;
      cluster_->oracle().OnReadConfirmed(*this, result, asked->second);
    } else {
      ++read_totals_.failed;
    }
    asked_reads_.erase(asked);
  }
}

ChangeResult TestNode::Change(const MembershipChange& change) {
  const ChangeResult result = core_->ProposeMembership(change, Now());
  React();
  return result;
}

TransferStatus TestNode::HandOver(StoreId target) {
  const TransferStatus status = core_->TransferLeadership(target, Now());
  React();
  return status;
}

void TestNode::React() {
  changes_under_way_ = core_->HasReady();
  NoteChanges();
  changes_under_way_ = false;
  for (int rounds = 0; core_->HasReady(); ++rounds) {
    if (rounds > 1000) return cluster_->Fail(name_ + " is never done");
    Ready ready = core_->TakeReady();
    if (ready.persist.cut_from) {
      log_.resize(ready.persist.cut_from->value() - 1);
      ++cuts_;
    }
    if (const auto& install = ready.persist.install) {
      log_ = cluster_->snapshots()[install->generation].entries;
    }
    log_.insert(log_.end(), ready.persist.entries.begin(), ready.persist.entries.end());
    if (cluster_->traced() && !ready.persist.empty()) {
      std::string line = name_ + ": disk #" + ToString(ready.persist.ticket);
      if (ready.persist.cut_from) line += " cut " + ToString(*ready.persist.cut_from) + "..";
      if (const auto& hs = ready.persist.hard_state) {
        line += " term=" + ToString(hs->term) + " vote=" + cluster_->NameOf(hs->vote);
      }
      if (const auto& install = ready.persist.install) {
        line += " installs " + ToString(install->snapshot.index) + "@" +
                ToString(install->snapshot.term);
      }
      if (!ready.persist.entries.empty()) line += " entries " + PrintEntries(ready.persist.entries);
      cluster_->Say(line + (slow_disk_ ? " (under way)" : ""));
    }
    for (Message& message : ready.send_now) {
      cluster_->oracle().OnSend(*this, message);
      cluster_->Say(Print(*cluster_, message));
      cluster_->network().push_back(std::move(message));
    }
    if (!ready.persist.empty() || !ready.send_after_persist.empty()) {
      pending_.push_back({std::move(ready.persist), std::move(ready.send_after_persist)});
    }
    if (ready.install || !ready.committed.empty()) {
      applying_.push_back({std::move(ready.install), std::move(ready.committed)});
    }
    for (const SnapshotRequest& request : ready.snapshot_requests) {
      cluster_->Say(name_ + ": is to send a snapshot to " + cluster_->NameOf(request.peer));
      snapshot_requests_.push_back(request);
    }
    NoteReads(ready.reads);
    for (const LogRead& read : ready.log_reads) {
      cluster_->Say(name_ + ": reads the log from " + ToString(read.from) + " for " +
                    cluster_->NameOf(read.peer));
      reads_.push_back(read);
    }
    NoteChanges();
    if (!slow_disk_) {
      while (!pending_.empty()) PersistNext();
    }
    if (!slow_reads_) {
      while (!reads_.empty()) AnswerRead();
    }
    if (!slow_apply_) {
      while (!applying_.empty()) ApplyNext();
    }
    if (!slow_snapshots_) {
      while (!snapshot_requests_.empty()) SendSnapshot();
    }
    if (cluster_->failed()) return;
  }
}

void TestNode::NoteChanges() {
  const Core& core = *core_;
  const bool role_changed = core.role() != seen_.role || core.term() != seen_.term;
  if (role_changed && core.role() == Role::kLeader) cluster_->oracle().OnLeader(*this);
  if (role_changed || core.leader() != seen_.leader) {
    std::string line = name_ + ": " + RoleName(core.role()) + " in term " + ToString(core.term());
    if (core.role() == Role::kFollower) {
      line += core.leader() ? " of " + cluster_->NameOf(core.leader()) : ", no leader";
    }
    cluster_->Say(line);
  }
  if (core.membership_index() != seen_.membership_index) {
    cluster_->Say(name_ + ": membership of entry " + ToString(core.membership_index()) + ": " +
                  PrintMembership(core.membership()));
  }
  // A follower may commit what it has just been sent; its entries come with the next Ready.
  const bool in_copy = !changes_under_way_ || core.role() == Role::kLeader;
  if (in_copy && core.commit() > seen_.commit) {
    cluster_->Say(name_ + ": commit " + ToString(core.commit()));
    cluster_->oracle().OnCommit(*this, seen_.commit + 1, core.commit());
  }
  if (core.leader_ready() && !seen_.ready) cluster_->Say(name_ + ": ready to take writes");
  const StoreId target = core.transfer_target();
  if (target != seen_.transfer_target && core.role() == Role::kLeader) {
    cluster_->Say(name_ + (target ? ": hands over to " + cluster_->NameOf(target)
                                  : ": leads on, the transfer has failed"));
  }
  seen_.transfer_target = target;
  seen_.role = core.role();
  seen_.term = core.term();
  seen_.leader = core.leader();
  seen_.membership_index = core.membership_index();
  seen_.ready = core.leader_ready();
  if (in_copy) seen_.commit = core.commit();
}

void TestNode::WriteToDisk(const Persist& persist, size_t entries_max) {
  if (persist.cut_from) disk_.log.resize(persist.cut_from->value() - 1);
  if (persist.hard_state) disk_.hard_state = *persist.hard_state;
  if (persist.install) {
    const Snapshot& snapshot = cluster_->snapshots()[persist.install->generation];
    const size_t index = snapshot.meta.index.value();
    if (disk_.log.size() >= index && disk_.log[index - 1]->term == snapshot.meta.term) {
      cluster_->Fail(name_ + " installs what its log holds");
    }
    disk_.log = snapshot.entries;
    disk_.first = snapshot.meta.index + 1;
    disk_.applied = snapshot.meta.index;
  }
  for (size_t i = 0; i < persist.entries.size() && i < entries_max; ++i) {
    if (persist.entries[i]->index.value() != disk_.log.size() + 1) {
      cluster_->Fail(name_ + " writes a gap into its log");
      return;
    }
    disk_.log.push_back(persist.entries[i]);
  }
}

bool TestNode::PersistNext(size_t count, bool report) {
  count = std::min(count, pending_.size());
  if (count == 0) return false;
  std::vector<Pending> done;
  for (size_t i = 0; i < count; ++i) {
    WriteToDisk(pending_.front().persist, static_cast<size_t>(-1));
    done.push_back(std::move(pending_.front()));
    pending_.pop_front();
  }
  const Ticket last = done.back().persist.ticket;
  durable_ticket_ = last;
  if (slow_disk_) cluster_->Say(name_ + ": #" + ToString(last) + " is durable");
  for (Pending& pending : done) {
    for (Message& message : pending.messages) {
      cluster_->oracle().OnSend(*this, message);
      cluster_->Say(Print(*cluster_, message));
      cluster_->network().push_back(std::move(message));
    }
  }
  if (report) {
    core_->OnPersisted(last);
    React();
  }
  return true;
}

bool TestNode::ApplyNext() {
  if (applying_.empty()) return false;
  const Applying next = std::move(applying_.front());
  applying_.pop_front();
  if (next.install) Switch(*next.install);
  const std::vector<EntryPtr>& entries = next.entries;
  if (entries.empty()) {
    React();
    return true;
  }
  cluster_->Say(name_ + ": applies " + PrintEntries(entries));
  cluster_->oracle().OnApply(*this, entries);
  for (const EntryPtr& entry : entries) {
    if (entry->index.value() != state_.entries.size() + 1) {
      cluster_->Fail(name_ + " skips or repeats an entry when applying");
    }
    state_.entries.push_back(entry);
  }
  core_->OnApplied(entries.back()->index);
  React();
  return true;
}

bool TestNode::AnswerRead() {
  if (reads_.empty()) return false;
  const LogRead read = reads_.front();
  reads_.pop_front();
  std::vector<EntryPtr> entries;
  size_t bytes = 0;
  const Index last = std::min(read.last, Index(disk_.log.size()));
  for (Index i = read.from; read.from >= disk_.first && i <= last; ++i) {
    const EntryPtr& entry = disk_.log[i.value() - 1];
    bytes += entry->bytes();
    if (!entries.empty() && bytes > read.bytes) break;
    entries.push_back(entry);
  }
  core_->OnLogRead(read.peer, read.from, std::move(entries));
  React();
  return true;
}

void TestNode::CrashAfterWriting(size_t hand_overs, std::optional<size_t> entries) {
  for (; hand_overs > 0 && !pending_.empty(); --hand_overs) {
    WriteToDisk(pending_.front().persist, static_cast<size_t>(-1));
    pending_.pop_front();
  }
  if (entries && !pending_.empty()) WriteToDisk(pending_.front().persist, *entries);
  Stop();
}

// --- Snapshots ---

void TestNode::Compact(Index through) {
  through = std::min({through, disk_.applied, core_->applied()});
  core_->Compact(through);
  disk_.first = std::max(disk_.first, through + 1);
  React();
}

bool TestNode::SendSnapshot() {
  if (snapshot_requests_.empty()) return false;
  Offer(snapshot_requests_.front());
  snapshot_requests_.pop_front();
  return true;
}

// The state as it is now, offered.
void TestNode::Offer(const SnapshotRequest& request) {
  if (core_->term() != request.term || core_->role() != Role::kLeader) return;
  Snapshot snapshot;
  snapshot.entries = state_.entries;
  const Entry& last = *snapshot.entries.back();
  snapshot.meta.index = last.index;
  snapshot.meta.term = last.term;
  snapshot.meta.log_time_ms = last.log_time_ms;
  for (const EntryPtr& entry : snapshot.entries) {
    if (entry->type != EntryType::kMembership) continue;
    snapshot.meta.membership_index = entry->index;
    snapshot.meta.membership = *DecodeMembership(entry->payload);
  }
  const uint64_t handle = cluster_->snapshots().size() + 1;
  transfers_[request.peer] =
      Transfer{request.term, handle, Now() + 2 * options_.election_timeout_max};
  Message message{id(), request.peer, InstallSnapshot{request.term, snapshot.meta, 0, handle}};
  cluster_->snapshots()[handle] = std::move(snapshot);
  cluster_->Say(Print(*cluster_, message));
  cluster_->network().push_back(std::move(message));
}

// What a transport does with it: the bytes follow an offer that was taken; anything else is for the
// core.
void TestNode::OnSnapshotReply(const Message& message) {
  const auto& reply = std::get<InstallSnapshotReply>(message.body);
  const auto transfer = transfers_.find(message.from);
  const bool known = transfer != transfers_.end() && transfer->second.handle == reply.call_id;
  if (reply.answer == SnapshotAnswer::kSend) {
    if (!known || reply.term > core_->term()) return;
    Message bytes{id(), message.from,
                  InstallSnapshot{transfer->second.term, cluster_->snapshots()[reply.call_id].meta,
                                  reply.call_id, reply.call_id}};
    cluster_->Say(Print(*cluster_, bytes));
    cluster_->network().push_back(std::move(bytes));
    return;
  }
  if (known) transfers_.erase(transfer);
  core_->Step(message, Now());
  React();
}

void TestNode::FailOverdueSnapshots() {
  for (auto it = transfers_.begin(); it != transfers_.end();) {
    if (it->second.overdue > Now()) {
      ++it;
      continue;
    }
    cluster_->Say(name_ + ": gives up its snapshot for " + cluster_->NameOf(it->first));
    core_->OnSnapshotFailed(it->first, it->second.term, Now());
    it = transfers_.erase(it);
  }
}

void TestNode::FailSnapshots() {
  for (auto& [peer, transfer] : transfers_) transfer.overdue = Now();
  FailOverdueSnapshots();
  React();
}

void TestNode::Switch(const InstallRecord& record) {
  const Snapshot& snapshot = cluster_->snapshots()[record.generation];
  cluster_->Say(name_ + ": its state is now that of " + ToString(record.snapshot.index) + "@" +
                ToString(record.snapshot.term));
  cluster_->oracle().OnInstall(*this, snapshot);
  state_.entries = snapshot.entries;
  ++installs_;
  core_->OnApplied(record.snapshot.index);
}

// --- Cluster ---

Cluster::Cluster(const std::vector<std::string>& voters, const std::vector<std::string>& learners,
                 const CoreOptions& options, const std::vector<std::string>& spares) {
  membership_.cluster = ClusterId(0xc1);
  uint64_t next_id = 1;
  for (const std::string& name : voters) {
    membership_.members.push_back(Member{StoreId(next_id++), name, "", true, false});
  }
  for (const std::string& name : learners) {
    membership_.members.push_back(Member{StoreId(next_id++), name, "", false, false});
  }
  const EntryPtr birth = MakeMembershipEntry(Index(1), Term(1), membership_);
  for (const Member& member : membership_.members) {
    CoreOptions own = options;
    own.self = member.store;
    Disk disk{HardState{Term(1), StoreId()}, {birth}, Index(1)};
    nodes_.push_back(std::make_unique<TestNode>(this, member.name, own, std::move(disk)));
  }
  for (const std::string& name : spares) {
    CoreOptions own = options;
    own.self = StoreId(next_id++);
    nodes_.push_back(std::make_unique<TestNode>(this, name, own, Disk{}));
  }
}

void Cluster::StartAll() {
  for (auto& node : nodes_) node->Start();
}

TestNode& Cluster::node(const std::string& name) {
  for (auto& node : nodes_) {
    if (node->name() == name) return *node;
  }
  ADD_FAILURE() << "no node " << name;
  return *nodes_.front();
}

TestNode* Cluster::Find(StoreId id) {
  for (auto& node : nodes_) {
    if (node->id() == id) return node.get();
  }
  return nullptr;
}

std::vector<TestNode*> Cluster::nodes() {
  std::vector<TestNode*> all;
  for (auto& node : nodes_) all.push_back(node.get());
  return all;
}

std::string Cluster::NameOf(StoreId id) const {
  for (const auto& node : nodes_) {
    if (node->id() == id) return node->name();
  }
  return id ? "store-" + ToString(id) : "none";
}

TestNode* Cluster::Leader() {
  TestNode* leader = nullptr;
  Term highest;
  for (auto& node : nodes_) {
    if (!node->up()) continue;
    highest = std::max(highest, node->core().term());
    if (node->core().role() == Role::kLeader &&
        (leader == nullptr || node->core().term() > leader->core().term())) {
      leader = node.get();
    }
  }
  return leader != nullptr && leader->core().term() == highest ? leader : nullptr;
}

bool Cluster::Connected(StoreId from, StoreId to) const {
  if (groups_.empty()) return true;
  return std::any_of(groups_.begin(), groups_.end(), [&](const std::set<StoreId>& group) {
    return group.contains(from) && group.contains(to);
  });
}

void Cluster::Partition(std::vector<std::vector<std::string>> groups) {
  groups_.clear();
  for (const auto& names : groups) {
    std::set<StoreId> group;
    for (const std::string& name : names) group.insert(node(name).id());
    groups_.push_back(std::move(group));
  }
}

void Cluster::Deliver(const Message& message) {
  TestNode* to = Find(message.to);
  if (to == nullptr || !to->up() || !Connected(message.from, message.to)) {
    Say("lost: " + Print(*this, message));
    return;
  }
  to->Receive(message);
}

void Cluster::Settle() {
  // Two nodes may go on for as long as a slow disk has not answered, or again and again where a
  // disk gives one small piece at a time: in the world that takes time, in which timers fire.
  size_t left = 3000;
  bool any = true;
  while (any && !failed_) {
    any = false;
    while (!network_.empty() && !failed_) {
      if (left-- == 0) return;
      const Message message = std::move(network_.front());
      network_.pop_front();
      Deliver(message);
      any = true;
    }
  }
}

void Cluster::FireTimersUntil(Instant until, bool settle) {
  while (!failed_) {
    TestNode* next = nullptr;
    for (auto& node : nodes_) {
      if (!node->up() || node->paused() || node->NextDeadline() > until) continue;
      if (next == nullptr || node->NextDeadline() < next->NextDeadline()) {
        next = node.get();
      }
    }
    if (next == nullptr) break;
    now_ = std::max(now_, next->NextDeadline());
    next->Tick();
    if (settle) Settle();
  }
  now_ = std::max(now_, until);
}

void Cluster::Run(Duration duration) {
  Settle();
  FireTimersUntil(now_ + duration, true);
}

void Cluster::Say(const std::string& line) {
  if (trace_ != nullptr) *trace_ << line << "\n";
}

void Cluster::Fail(const std::string& what) {
  if (!failed_) ADD_FAILURE() << what;
  Say("VIOLATION: " + what);
  failed_ = true;
}

}  // namespace quorate::raft::testing
