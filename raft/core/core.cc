// Construction, dispatch, Ready, and what is durable and applied here.
#include "raft/core/core.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {
namespace {

constexpr size_t kFreshSamplesMax = 16;

// Two nodes with one seed in their options must not draw the same timeouts for ever.
uint64_t MixSeed(const CoreOptions& options) {
  return options.seed ^ Random(options.self.value()).Next();
}

// The record of birth (index 1, term 1) is written before anybody has led: the term it carries is
// the node's term. In any other log the hard state is there first, and is checked.
Term TermAfterStart(const RecoveredState& recovered, Term last_term) {
  const bool just_born = recovered.hard_state == HardState{} && last_term == Term(1);
  return just_born ? Term(1) : recovered.hard_state.term;
}

}  // namespace

Core::Impl::Impl(const CoreOptions& options, RecoveredState recovered, Instant now)
    : options_(options),
      started_(now),
      now_(now),
      random_(MixSeed(options)),
      vote_(recovered.hard_state.vote),
      window_(recovered.prev_index, recovered.prev_term, recovered.prev_log_time_ms,
              recovered.entries),
      first_index_(recovered.first_index),
      commit_(recovered.applied),
      applied_(recovered.applied),
      handed_out_(recovered.applied),
      read_request_(options.read_ids_from) {
  term_ = TermAfterStart(recovered, window_.last_term());
  CheckRecovered(recovered);
  persisted_ = window_.last_index();
  handed_over_ = window_.last_index();
  memberships_ = std::move(recovered.memberships);
  MembershipChanged();
  TrimMemberships();
  ResetElectionDeadline();
  EvictWindow();
  CheckInvariants();
}

void Core::Impl::CheckRecovered(const RecoveredState& recovered) const {
  CHECK(options_.self);
  CHECK(options_.election_timeout_min > options_.heartbeat_interval &&
        options_.election_timeout_max >= options_.election_timeout_min &&
        options_.heartbeat_interval > Duration(0));
  CHECK(options_.inflight_messages_max > 0 && options_.inflight_bytes_max > 0);
  CHECK(recovered.first_index > Index(0) && recovered.first_index <= recovered.prev_index + 1);
  CHECK(window_.last_term() <= term_, "the log is of a later term than the hard state");
  CHECK(recovered.applied <= window_.last_index(), "the log ends below what is applied");
  CHECK(recovered.applied + 1 >= recovered.first_index, "the log was cut beyond what is applied");
  Index previous;
  for (const auto& [index, membership] : recovered.memberships) {
    CHECK(previous == Index(0) || index > previous);
    CHECK(index <= window_.last_index());
    previous = index;
  }
  CHECK(recovered.memberships.empty() || recovered.memberships.front().first <= recovered.applied ||
            recovered.applied == Index(0),
        "the membership in force at the applied index is missing");
}

// --- Inputs ---

void Core::Impl::Tick(Instant now) {
  Advance(now);
  if (role_ == Role::kLeader) {
    LeaderTick();
    UpdateLeaderFreshness();
  } else if (now_ >= election_deadline_) {
    if (may_campaign_) {
      StartPreVote();
    } else {
      BecomeFollower(term_, StoreId());  // the leader that it had is lost
      ResetElectionDeadline();
    }
  }
  AdvanceReads();
  CheckInvariants();
}

Instant Core::Impl::NextDeadline() const {
  const Instant reads = ReadDeadline().value_or(Instant::max());
  if (role_ != Role::kLeader) return std::min(election_deadline_, reads);
  return std::min({heartbeat_deadline_, reads, QuorumUntil(),
                   transfer_ ? transfer_->deadline : Instant::max()});
}

void Core::Impl::Step(const Message& message, Instant now) {
  Advance(now);
  if (message.to != options_.self || !message.from || message.from == options_.self) {
    ++ignored_messages_;
    return;
  }
  const StoreId from = message.from;
  if (const auto* vote = std::get_if<RequestVote>(&message.body)) {
    HandleVote(from, *vote);
  } else if (const auto* vote_reply = std::get_if<RequestVoteReply>(&message.body)) {
    HandleVoteReply(from, *vote_reply);
  } else if (const auto* append = std::get_if<AppendEntries>(&message.body)) {
    HandleAppend(from, *append);
  } else if (const auto* reply = std::get_if<AppendEntriesReply>(&message.body)) {
    HandleAppendReply(from, *reply);
  } else if (const auto* install = std::get_if<InstallSnapshot>(&message.body)) {
    HandleInstall(from, *install);
  } else if (const auto* read = std::get_if<ReadIndex>(&message.body)) {
    HandleReadIndex(from, *read);
  } else if (const auto* index = std::get_if<ReadIndexReply>(&message.body)) {
    HandleReadIndexReply(from, *index);
  } else if (const auto* timeout_now = std::get_if<TimeoutNow>(&message.body)) {
    HandleTimeoutNow(from, *timeout_now);
  } else {
    HandleInstallReply(from, std::get<InstallSnapshotReply>(message.body));
  }
  AdvanceTransfer();
  UpdateLeaderFreshness();
  AdvanceReads();
  EvictWindow();
  CheckInvariants();
}

void Core::Impl::OnPersisted(Ticket ticket) {
  CHECK(ticket <= last_ticket_, "a ticket that was never given");
  while (!outstanding_.empty() && outstanding_.front().ticket <= ticket) {
    persisted_ = outstanding_.front().last_index;
    persisted_ticket_ = outstanding_.front().ticket;
    outstanding_.pop_front();
  }
  OnInstallDurable();
  AnswerInstalled();
  if (role_ == Role::kCandidate && HardStateDurable()) {
    votes_[options_.self] = true;
    CountVotes();
  }
  MaybeCommit();
  UpdateLeaderFreshness();
  AdvanceReads();
  EvictWindow();
  CheckInvariants();
}

void Core::Impl::OnApplied(Index index) {
  CHECK(index <= handed_out_, "applied what was not handed out");
  applied_ = std::max(applied_, index);
  while (!applying_.empty() && applying_.front().last <= applied_) applying_.pop_front();
  while (!samples_.empty() && samples_.front().commit <= applied_) {
    fresh_as_of_ = std::max(fresh_as_of_.value_or(Instant::min()), samples_.front().as_of);
    samples_.pop_front();
  }
  OnInstallApplied();
  AnswerInstalled();
  CheckInvariants();
}

void Core::Impl::OnLogRead(StoreId peer, Index from, std::vector<EntryPtr> entries) {
  const auto it = reads_.find(peer);
  if (it == reads_.end() || it->second.from != from) return;  // not asked
  const PendingRead read = it->second;
  reads_.erase(it);
  if (peer == options_.self) {
    OnOwnRead(read, std::move(entries));
  } else {
    OnPeerRead(peer, read, std::move(entries));
  }
  CheckInvariants();
}

void Core::Impl::OnOwnRead(const PendingRead& read, std::vector<EntryPtr> entries) {
  if (read.stale) return;
  CHECK(!entries.empty(), "the log on disk has lost what is not yet applied");
  CheckRead(read, entries);
  if (read.apply) {
    CHECK(apply_stash_.empty() && read.from == handed_out_ + 1);
    apply_stash_ = std::move(entries);
  } else {
    while (!terms_read_.empty() && terms_read_.begin()->first <= commit_) {
      terms_read_.erase(terms_read_.begin());  // committed entries need no comparison
    }
    for (const EntryPtr& entry : entries) terms_read_[entry->index] = entry->term;
    terms_wanted_.reset();
  }
}

void Core::Impl::CheckRead(const PendingRead& read, const std::vector<EntryPtr>& entries) const {
  for (size_t i = 0; i < entries.size(); ++i) {
    CHECK(entries[i] && entries[i]->index == read.from + i, "the log on disk has a gap");
  }
  CHECK(entries.back()->index <= persisted_);
}

// --- Ready ---

void Core::Impl::Send(StoreId to, MessageBody body) {
  auto& list = HardStateDurable() ? send_now_ : send_after_persist_;
  list.push_back({options_.self, to, std::move(body)});
}

void Core::Impl::SendDurable(StoreId to, MessageBody body, Index match) {
  auto& list = HardStateDurable() && match <= persisted_ ? send_now_ : send_after_persist_;
  list.push_back({options_.self, to, std::move(body)});
}

bool Core::Impl::HasPersist() const {
  return hard_state_dirty_ || pending_cut_ || handed_over_ < window_.last_index() ||
         (installing_ && !installing_->ticket) || !send_after_persist_.empty();
}

bool Core::Impl::HasReady() const {
  if (!send_now_.empty() || !log_reads_.empty() || install_ready_ || HasPersist() || CanHandOut() ||
      WantsApplyRead() || WantsTermRead() || !read_results_.empty() || WantsReadBatch()) {
    return true;
  }
  return std::any_of(progress_.begin(), progress_.end(),
                     [this](const auto& item) { return WantsToSend(item.first, item.second); });
}

Ready Core::Impl::TakeReady() {
  PumpReads();
  Pump();
  PumpOwnReads();
  Ready ready;
  ready.send_now = std::exchange(send_now_, {});
  ready.log_reads = std::exchange(log_reads_, {});
  ready.snapshot_requests = std::exchange(snapshot_requests_, {});
  ready.install = std::exchange(install_ready_, std::nullopt);
  ready.reads = std::exchange(read_results_, {});
  ready.committed = TakeCommitted();
  if (HasPersist()) {
    ++last_ticket_;
    ready.persist.ticket = last_ticket_;
    ready.persist.cut_from = std::exchange(pending_cut_, std::nullopt);
    if (hard_state_dirty_) {
      ready.persist.hard_state = HardState{term_, vote_};
      hard_state_dirty_ = false;
      hard_state_ticket_ = last_ticket_;
    }
    if (installing_ && !installing_->ticket) {
      ready.persist.install = installing_->record;
      installing_->ticket = last_ticket_;
    }
    if (handed_over_ < window_.last_index()) {
      ready.persist.entries =
          window_.Slice(handed_over_ + 1, window_.last_index(), static_cast<size_t>(-1));
      handed_over_ = window_.last_index();
    }
    outstanding_.push_back({last_ticket_, handed_over_, now_});
    ready.send_after_persist = std::exchange(send_after_persist_, {});
  }
  CheckInvariants();
  return ready;
}

// --- Applying ---

uint64_t Core::Impl::ApplyingBytes() const {
  uint64_t bytes = 0;
  for (const Batch& batch : applying_) bytes += batch.bytes;
  return bytes;
}

bool Core::Impl::CanHandOut() const {
  if (installing_ && !installing_->switched) return false;
  const Index next = handed_out_ + 1;
  if (next > std::min(commit_, persisted_)) return false;
  if (apply_stash_.empty() && next <= window_.prev_index()) return false;
  const EntryPtr& entry = apply_stash_.empty() ? window_.At(next) : apply_stash_.front();
  return applying_.empty() || ApplyingBytes() + entry->bytes() <= options_.apply_bytes_max;
}

std::vector<EntryPtr> Core::Impl::TakeCommitted() {
  if (!CanHandOut()) return {};
  const uint64_t out = ApplyingBytes();
  const uint64_t room = options_.apply_bytes_max > out ? options_.apply_bytes_max - out : 0;
  std::vector<EntryPtr> entries;
  if (apply_stash_.empty()) {
    entries = window_.Slice(handed_out_ + 1, std::min(commit_, persisted_), room);
  } else {
    uint64_t bytes = 0;
    size_t count = 0;
    for (; count < apply_stash_.size(); ++count) {
      bytes += apply_stash_[count]->bytes();
      if (count > 0 && bytes > room) break;
    }
    const auto end = apply_stash_.begin() + static_cast<std::ptrdiff_t>(count);
    entries.assign(apply_stash_.begin(), end);
    apply_stash_.erase(apply_stash_.begin(), end);
  }
  uint64_t bytes = 0;
  for (const EntryPtr& entry : entries) bytes += entry->bytes();
  CHECK(entries.front()->index == handed_out_ + 1);
  handed_out_ = entries.back()->index;
  applying_.push_back({handed_out_, bytes});
  return entries;
}

bool Core::Impl::WantsApplyRead() const {
  return !installing_ && apply_stash_.empty() && !reads_.contains(options_.self) &&
         handed_out_ < std::min({commit_, persisted_, window_.prev_index()}) &&
         ApplyingBytes() < options_.apply_bytes_max;
}

bool Core::Impl::WantsTermRead() const { return terms_wanted_ && !reads_.contains(options_.self); }

void Core::Impl::PumpOwnReads() {
  if (WantsTermRead()) {
    const Index from = *terms_wanted_;
    if (from > commit_ && from < window_.prev_index()) {
      reads_[options_.self] = PendingRead{from, term_, false, false};
      log_reads_.push_back({options_.self, from, window_.prev_index(), options_.apply_bytes_max});
      return;
    }
    terms_wanted_.reset();  // no longer before the window, or known to agree by now
  }
  if (!WantsApplyRead()) return;
  const Index last = std::min({commit_, persisted_, window_.prev_index()});
  reads_[options_.self] = PendingRead{handed_out_ + 1, term_, true, false};
  log_reads_.push_back({options_.self, handed_out_ + 1, last, options_.apply_bytes_max});
}

void Core::Impl::EvictWindow() {
  window_.Evict(options_.window_bytes_max, std::min(commit_, persisted_));
}

// --- Freshness of local reads ---

// A sample says: everything that anybody had acknowledged before `as_of` lies at or below `commit`.
// So once `commit` is applied here, the state contains it. That the log matches up to `commit`
// needs no check of its own: what is applied is committed, and committed entries are the same
// everywhere.
void Core::Impl::AddFreshSample(Index commit, Instant as_of) {
  if (commit <= applied_) {
    fresh_as_of_ = std::max(fresh_as_of_.value_or(Instant::min()), as_of);
    return;
  }
  while (!samples_.empty() && samples_.back().commit >= commit && samples_.back().as_of <= as_of) {
    samples_.pop_back();
  }
  if (!samples_.empty() && samples_.back().as_of >= as_of) return;
  // Full: the newest gives way, so that the older ones still come true, one after the other.
  if (samples_.size() == kFreshSamplesMax) samples_.pop_back();
  samples_.push_back({commit, as_of});
}

void Core::Impl::UpdateLeaderFreshness() {
  if (role_ != Role::kLeader || commit_ < term_start_) return;
  const Instant contact = MajorityContact(Instant::min(), false);
  if (contact != Instant::min()) AddFreshSample(commit_, contact);
}

std::optional<Instant> Core::Impl::FreshAsOf(Instant now) const {
  if (leader_ready() && quorum_.IsSole(options_.self) && applied_ == commit_) return now;
  return fresh_as_of_;
}

// --- Views ---

std::vector<PeerView> Core::Impl::Peers() const {
  std::vector<PeerView> views;
  for (const auto& [store, peer] : progress_) {
    if (peer.leaving) continue;
    PeerView view;
    view.store = store;
    view.match = peer.match;
    view.last_index = peer.last_index;
    view.active = PeerActive(peer);
    view.last_contact = peer.last_contact;
    view.lost_data = peer.lost_data;
    view.needs_snapshot = peer.state == PeerState::kSnapshot;
    view.snapshot_sent = peer.snapshot_asked;
    view.caught_up = CaughtUp(peer);
    views.push_back(view);
  }
  return views;
}

void Core::Impl::CheckInvariants() {
  CoreFacts facts;
  facts.self = options_.self;
  facts.role = role_;
  facts.term = term_;
  facts.vote = vote_;
  facts.leader = leader_;
  facts.window_prev = window_.prev_index();
  facts.last_index = window_.last_index();
  facts.last_term = window_.last_term();
  facts.persisted = persisted_;
  facts.commit = commit_;
  facts.handed_out = handed_out_;
  facts.applied = applied_;
  facts.membership_index = membership_index();
  facts.term_start = term_start_;
  facts.cut_lowest = cut_lowest_;
  facts.installing = installing_ && !installing_->switched;
  facts.first_index = first_index_;
  facts.transferring = transfer_.has_value();
  facts.last_ticket = last_ticket_;
  facts.persisted_ticket = persisted_ticket_;
  invariants_.Check(facts);
  cut_lowest_ = Index();
}

// --- Core: everything goes to the implementation ---

Core::Core(const CoreOptions& options, RecoveredState recovered, Instant now)
    : impl_(std::make_unique<Impl>(options, std::move(recovered), now)) {}
Core::~Core() = default;

void Core::Tick(Instant now) { impl_->Tick(now); }
Instant Core::NextDeadline() const { return impl_->NextDeadline(); }
void Core::Step(const Message& message, Instant now) { impl_->Step(message, now); }
std::pair<size_t, ProposeStatus> Core::Propose(Term term, std::vector<Proposal> proposals,
                                               Instant now) {
  return impl_->Propose(term, std::move(proposals), now);
}
void Core::RequestRead(uint64_t id, ReadMode mode, Instant now) {
  impl_->RequestRead(id, mode, now);
}
void Core::SetLeases(bool on) { impl_->leases_ = on; }
ChangeResult Core::ProposeMembership(const MembershipChange& change, Instant now) {
  return impl_->ProposeMembership(change, now);
}
TransferStatus Core::TransferLeadership(StoreId target, Instant now) {
  return impl_->TransferLeadership(target, now);
}
void Core::OnPersisted(Ticket ticket) { impl_->OnPersisted(ticket); }
void Core::OnApplied(Index index) { impl_->OnApplied(index); }
void Core::OnLogRead(StoreId peer, Index from, std::vector<EntryPtr> entries) {
  impl_->OnLogRead(peer, from, std::move(entries));
}
void Core::Compact(Index index) { impl_->Compact(index); }
void Core::OnSnapshotFailed(StoreId peer, Term term, Instant now) {
  impl_->OnSnapshotFailed(peer, term, now);
}
bool Core::HasReady() const { return impl_->HasReady(); }
Ready Core::TakeReady() { return impl_->TakeReady(); }

StoreId Core::self() const { return impl_->options_.self; }
Role Core::role() const { return impl_->role_; }
Term Core::term() const { return impl_->term_; }
StoreId Core::leader() const { return impl_->leader_; }
Index Core::last_index() const { return impl_->window_.last_index(); }
Index Core::persisted() const { return impl_->persisted_; }
Index Core::commit() const { return impl_->commit_; }
Index Core::applied() const { return impl_->applied_; }
Index Core::first_index() const { return impl_->first_index_; }
const Membership& Core::membership() const { return impl_->membership(); }
Index Core::membership_index() const { return impl_->membership_index(); }
bool Core::leader_ready() const { return impl_->leader_ready(); }
std::vector<PeerView> Core::peers() const { return impl_->Peers(); }
StoreId Core::transfer_target() const { return impl_->transfer_target(); }
bool Core::removed() const { return impl_->Removed(); }
Duration Core::election_timeout() const { return impl_->election_timeout_; }
std::optional<Instant> Core::lease_until() const { return impl_->LeaseUntil(); }
bool Core::leases() const { return impl_->leases_; }
uint64_t Core::lease_answers() const { return impl_->lease_answers_; }
std::optional<Instant> Core::fresh_as_of(Instant now) const { return impl_->FreshAsOf(now); }
uint64_t Core::ignored_messages() const { return impl_->ignored_messages_; }
bool Core::installing() const { return impl_->installing_.has_value(); }

}  // namespace quorate::raft
