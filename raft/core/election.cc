// Timers, votes and roles: Raft paper 5.2 and 5.4.1, PreVote (dissertation 9.6) with check-quorum.
//
// PreVote and check-quorum need each other. A node that hears a leader refuses to vote, so that a
// node that was cut off cannot depose a leader that works (hashicorp/raft #524). A leader that
// hears no majority steps down, so that those who do not hear it are not held back by those who do.
//
// The trap (canonical/raft #280): of the two nodes that are up, the one with the better log has the
// lower term. Its pre-votes are refused for the term, the other's for the log. So a refusal carries
// the term, and the asker takes it: then the log alone decides.
#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {

void Core::Impl::ResetElectionDeadline() {
  election_timeout_ =
      Duration(random_.Between(static_cast<uint64_t>(options_.election_timeout_min.count()),
                               static_cast<uint64_t>(options_.election_timeout_max.count())));
  // Behind a longer promise the timeouts stay as far apart as they were drawn: nodes that were
  // started together do not all campaign at its end.
  const Instant from = PromisedUntil() - options_.election_timeout_min;
  election_deadline_ = std::max(now_, from) + election_timeout_;
}

// A node that has just started may have promised a leader not to vote, and does not know when it
// last did. So it keeps, from its start, the longest promise that it can have made: whatever lease
// counts on it has ended by then. That a store can only state a promise once a later process of it
// would know of it is its driver's part (CoreOptions::promised_before_start). What a leader has
// heard of this process alone (a shorter timeout) covers no earlier process's answer: the answers
// of both count from when they were sent, and this process was started after the other's last one.
Instant Core::Impl::PromisedUntil() const {
  return started_ + std::max(options_.election_timeout_min, options_.promised_before_start);
}

bool Core::Impl::HeardFromLeader() const {
  const Duration timeout = options_.election_timeout_min;
  if (role_ == Role::kLeader) return QuorumUntil() > now_;
  return PromisedUntil() > now_ || (leader_contact_ && *leader_contact_ + timeout > now_);
}

bool Core::Impl::LogUpToDate(Index last_index, Term last_term) const {
  return last_term > window_.last_term() ||
         (last_term == window_.last_term() && last_index >= window_.last_index());
}

void Core::Impl::BecomeFollower(Term term, StoreId leader) {
  CHECK(term >= term_);
  if (term > term_) {
    term_ = term;
    vote_ = StoreId();
    hard_state_dirty_ = true;
  }
  const bool led = role_ == Role::kLeader;
  role_ = Role::kFollower;
  leader_ = leader;
  if (leader) told_removed_ = false;
  votes_.clear();
  if (led) {
    progress_.clear();
    transfer_.reset();
    term_start_ = Index();
    // What it heard as a follower is long past, and nobody holds it to a leader now.
    leader_contact_.reset();
    ResetElectionDeadline();
  }
}

void Core::Impl::StartPreVote() {
  role_ = Role::kPreCandidate;
  leader_ = StoreId();
  votes_ = {{options_.self, true}};
  ResetElectionDeadline();
  RequestVote question;
  question.term = term_ + 1;
  question.pre_vote = true;
  AskForVotes(question);
  CountVotes();  // a sole voter needs nobody else
}

void Core::Impl::StartCampaign(bool transfer) {
  ++term_;
  vote_ = options_.self;
  hard_state_dirty_ = true;
  role_ = Role::kCandidate;
  leader_ = StoreId();
  votes_.clear();  // its own vote counts once it is durable: OnPersisted
  ResetElectionDeadline();
  RequestVote question;
  question.term = term_;
  question.transfer = transfer;
  AskForVotes(question);
}

void Core::Impl::AskForVotes(const RequestVote& question) {
  for (StoreId voter : quorum_.all_voters()) {
    if (voter == options_.self) continue;
    RequestVote request = question;
    request.last_index = window_.last_index();
    request.last_term = window_.last_term();
    Send(voter, request);
  }
}

void Core::Impl::CountVotes() {
  const bool won = quorum_.Satisfied([this](StoreId voter) {
    const auto it = votes_.find(voter);
    return it != votes_.end() && it->second;
  });
  if (!won) return;
  if (role_ == Role::kPreCandidate) {
    StartCampaign(false);
  } else if (role_ == Role::kCandidate && HardStateDurable()) {
    // The requests went out once the term was durable; the answers of a majority may overtake the
    // notice of it. OnPersisted counts again.
    BecomeLeader();
  }
}

void Core::Impl::BecomeLeader() {
  CHECK(role_ == Role::kCandidate && HardStateDurable());
  role_ = Role::kLeader;
  leader_ = options_.self;
  leader_since_ = now_;
  quorum_since_ = now_;
  votes_.clear();
  heartbeat_deadline_ = now_ + options_.heartbeat_interval;
  log_time_base_ms_ = window_.last_log_time_ms();
  lease_given_up_ = false;
  progress_.clear();
  for (const Member& member : membership().members) {
    if (member.store == options_.self) continue;
    progress_[member.store].BecomeProbe(window_.last_index() + 1, window_.last_term());
  }
  // An entry of an earlier term is only committed by one of this term after it (5.4.2).
  term_start_ = window_.last_index() + 1;
  AppendOwn(EntryType::kNoop, {}, 0);
}

Instant Core::Impl::MajorityContact(Instant none, bool trust_lost) const {
  const auto contact = quorum_.Value<Instant>([&](StoreId voter) {
    if (voter == options_.self) return now_;
    const auto it = progress_.find(voter);
    if (it == progress_.end() || (it->second.lost_data && !trust_lost)) return none;
    return it->second.acked_sent_at.value_or(none);
  });
  return contact.value_or(none);
}

// A change of the members may need a voter that has long been silent (by force, or one that goes
// just now). The leader that has entered it gives it one timeout: else it would follow in the same
// instant and not send the entry, and the change, accepted, would be in one log only.
Instant Core::Impl::QuorumUntil() const {
  return std::max(MajorityContact(leader_since_, true), quorum_since_) +
         options_.election_timeout_min;
}

void Core::Impl::LeaderTick() {
  if (QuorumUntil() <= now_) {
    BecomeFollower(term_, StoreId());
    return;
  }
  TransferTick();
  if (role_ != Role::kLeader || now_ < heartbeat_deadline_) return;
  DropLeft();
  heartbeat_deadline_ = now_ + options_.heartbeat_interval;
  for (auto& [store, peer] : progress_) {
    peer.heartbeat_due = true;
    // What was on its way to a silent peer is lost. Heartbeats ask whether it is back.
    if (peer.state == PeerState::kReplicate && !PeerActive(peer)) {
      peer.BecomeProbe(peer.match + 1, peer.match_term);
      // Without the term before it there is nothing to ask with: that is read once it answers.
      peer.probe_sent = peer.prev_term.has_value();
    }
  }
}

void Core::Impl::HandleVote(StoreId from, const RequestVote& request) {
  const bool empty_log = request.last_index == Index(0);
  if (request.term == Term(0) || request.term.value() >= kPositionMax ||
      request.last_index.value() >= kPositionMax || request.last_term >= request.term ||
      empty_log != (request.last_term == Term(0)) || (request.transfer && request.pre_vote)) {
    ++ignored_messages_;
    return;
  }
  const auto answer = [&](bool granted) {
    const Term term = granted ? request.term : term_;
    const bool removed = !granted && IsRemoved(from, request.last_index);
    Send(from, RequestVoteReply{term, request.pre_vote, granted, request.call_id, removed});
  };
  // While a leader is heard neither a higher term nor a better log counts, and the term is not
  // taken; unless that leader itself has asked for it.
  if (request.term < term_ || (HeardFromLeader() && !request.transfer)) return answer(false);

  const bool up_to_date = LogUpToDate(request.last_index, request.last_term);
  const bool free_to_vote = request.term > term_ || vote_ == from || (!vote_ && !leader_);
  if (request.pre_vote) return answer(free_to_vote && up_to_date);

  if (request.term > term_) BecomeFollower(request.term, StoreId());
  if (!free_to_vote || !up_to_date) return answer(false);
  if (vote_ != from) {
    if (role_ != Role::kFollower) BecomeFollower(term_, StoreId());
    vote_ = from;
    hard_state_dirty_ = true;
  }
  ResetElectionDeadline();
  answer(true);
}

void Core::Impl::HandleVoteReply(StoreId from, const RequestVoteReply& reply) {
  if (reply.term.value() >= kPositionMax) {
    ++ignored_messages_;
    return;
  }
  told_removed_ = told_removed_ || (reply.removed && !reply.granted);
  if (reply.pre_vote && reply.granted) {
    // Carries the term that was asked for, which is not yet anybody's.
    if (role_ != Role::kPreCandidate || reply.term != term_ + 1) return;
    votes_[from] = true;
    CountVotes();
    return;
  }
  if (reply.term > term_) {
    BecomeFollower(reply.term, StoreId());
    return;
  }
  if (reply.pre_vote || role_ != Role::kCandidate || reply.term < term_ || !reply.granted) return;
  votes_[from] = true;
  CountVotes();
}

}  // namespace quorate::raft
