// Linearizable reads (dissertation 6.4; the argument is in read_index.h).
//
// Reads wait in one queue until the next batch begins, and then in that batch until it is answered.
// A batch begins when the driver takes a Ready, so that whatever was in its inbox shares one. A
// round of the leader is not repeated when heartbeats are lost: every later append and heartbeat
// carries its number or a higher one.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {

// --- Coming in ---

void Core::Impl::RequestRead(uint64_t id, ReadMode mode, Instant now) {
  Advance(now);
  AdvanceReads();
  TakeRead({options_.self, id, 0, mode, now_ + options_.election_timeout_max});
  CheckInvariants();
}

void Core::Impl::TakeRead(const ReadAsker& asker) {
  if (!leader_) return AnswerRead(asker, ReadOutcome::kNoLeader, Index());
  if (asker.mode == ReadMode::kLease && role_ == Role::kLeader) {
    const std::optional<Instant> until = LeaseUntil();
    if (until && now_ < *until) {
      ++lease_answers_;
      return AnswerRead(asker, ReadOutcome::kConfirmed, commit_, until);
    }
  }
  if (reads_pending_ >= options_.reads_max) {
    return AnswerRead(asker, ReadOutcome::kTooMany, Index());
  }
  // Nothing is left of an earlier office: AdvanceReads has ended it.
  CHECK(reads_pending_ == 0 || (reads_term_ == term_ && reads_leader_ == leader_));
  reads_term_ = term_;
  reads_leader_ = leader_;
  reads_waiting_.push_back(asker);
  ++reads_pending_;
}

void Core::Impl::HandleReadIndex(StoreId from, const ReadIndex& request) {
  const ReadMode mode = request.lease ? ReadMode::kLease : ReadMode::kRound;
  const ReadAsker asker{from, request.id, request.call_id, mode,
                        now_ + options_.election_timeout_max};
  // It means the leader of its own term. Another term is not taken from here: an append or a vote
  // will tell.
  if (role_ != Role::kLeader || request.term != term_) {
    return AnswerRead(asker, ReadOutcome::kLeaderLost, Index());
  }
  TakeRead(asker);
}

void Core::Impl::HandleReadIndexReply(StoreId from, const ReadIndexReply& reply) {
  if (reply.term.value() >= kPositionMax || reply.index.value() >= kPositionMax) {
    ++ignored_messages_;
    return;
  }
  if (role_ == Role::kLeader || from != leader_) return;
  const auto batch = std::find_if(read_batches_.begin(), read_batches_.end(),
                                  [&](const ReadBatch& asked) { return asked.number == reply.id; });
  if (batch == read_batches_.end() || reads_term_ != term_ || reads_leader_ != from) return;
  const bool confirmed = reply.outcome == ReadOutcome::kConfirmed;
  if (confirmed && reply.term != term_) return;
  const std::vector<ReadAsker> askers = std::move(batch->askers);
  read_batches_.erase(batch);
  reads_pending_ -= askers.size();
  for (const ReadAsker& asker : askers) {
    AnswerRead(asker, reply.outcome, confirmed ? reply.index : Index());
  }
}

// --- Going out ---

bool Core::Impl::WantsReadBatch() const {
  if (reads_waiting_.empty() || read_batches_.size() >= options_.read_rounds_max) return false;
  // Before the no-op is committed an earlier leader may have acknowledged more than is known here.
  return role_ != Role::kLeader || commit_ >= term_start_;
}

void Core::Impl::PumpReads() {
  AdvanceReads();
  if (!WantsReadBatch()) return;
  if (role_ == Role::kLeader) return BeginReadRound();
  AskLeaderToRead(ReadMode::kRound);
  AskLeaderToRead(ReadMode::kLease);
}

void Core::Impl::BeginReadRound() {
  ReadBatch round{++read_round_, commit_, {}};
  round.askers.assign(reads_waiting_.begin(), reads_waiting_.end());
  reads_waiting_.clear();
  read_batches_.push_back(std::move(round));
  for (StoreId voter : quorum_.all_voters()) {
    const auto it = progress_.find(voter);
    if (it != progress_.end()) it->second.heartbeat_due = true;
  }
  ConfirmReads();  // a sole voter needs nobody else
}

void Core::Impl::AskLeaderToRead(ReadMode mode) {
  CHECK(leader_ && leader_ != options_.self);
  ReadBatch batch{read_request_ + 1, Index(), {}};
  std::deque<ReadAsker> others;
  for (const ReadAsker& asker : reads_waiting_) {
    if (asker.mode == mode) {
      batch.askers.push_back(asker);
    } else {
      others.push_back(asker);
    }
  }
  if (batch.askers.empty()) return;
  ++read_request_;
  reads_waiting_ = std::move(others);
  ReadIndex request;
  request.term = term_;
  request.id = batch.number;
  request.lease = mode == ReadMode::kLease;
  read_batches_.push_back(std::move(batch));
  Send(leader_, request);
}

void Core::Impl::AnswerRead(const ReadAsker& asker, ReadOutcome outcome, Index index,
                            std::optional<Instant> lease_until) {
  if (asker.from == options_.self) {
    read_results_.push_back({asker.id, outcome, index, lease_until});
    return;
  }
  ReadIndexReply reply;
  reply.term = term_;
  reply.id = asker.id;
  reply.outcome = outcome;
  reply.index = index;
  reply.call_id = asker.call_id;
  Send(asker.from, reply);
}

// --- Waiting ---

void Core::Impl::AdvanceReads() {
  if (reads_pending_ == 0) return;
  if (reads_term_ != term_ || reads_leader_ != leader_) {
    FailReads(ReadOutcome::kLeaderLost);
    return;
  }
  ConfirmReads();
  ExpireReads();
}

void Core::Impl::FailReads(ReadOutcome outcome) {
  const std::deque<ReadBatch> batches = std::exchange(read_batches_, {});
  const std::deque<ReadAsker> waiting = std::exchange(reads_waiting_, {});
  reads_pending_ = 0;
  for (const ReadBatch& batch : batches) {
    for (const ReadAsker& asker : batch.askers) AnswerRead(asker, outcome, Index());
  }
  for (const ReadAsker& asker : waiting) AnswerRead(asker, outcome, Index());
}

void Core::Impl::ConfirmReads() {
  if (role_ != Role::kLeader || read_batches_.empty()) return;
  const auto reached = quorum_.Value<uint64_t>([this](StoreId voter) -> uint64_t {
    if (voter == options_.self) return read_round_;
    const auto it = progress_.find(voter);
    // A disk that has gone back may have forgotten a vote for somebody else.
    return it == progress_.end() || it->second.lost_data ? 0 : it->second.read_round;
  });
  while (reached && !read_batches_.empty() && read_batches_.front().number <= *reached) {
    const ReadBatch round = std::move(read_batches_.front());
    read_batches_.pop_front();
    reads_pending_ -= round.askers.size();
    for (const ReadAsker& asker : round.askers) {
      AnswerRead(asker, ReadOutcome::kConfirmed, round.index);
    }
  }
}

std::optional<Instant> Core::Impl::ReadDeadline() const {
  std::optional<Instant> earliest;
  const auto consider = [&earliest](Instant deadline) {
    earliest = std::min(earliest.value_or(deadline), deadline);
  };
  if (!reads_waiting_.empty()) consider(reads_waiting_.front().deadline);
  for (const ReadBatch& batch : read_batches_) consider(batch.askers.front().deadline);
  return earliest;
}

void Core::Impl::ExpireReads() {
  const auto expire = [this](auto* askers) {
    while (!askers->empty() && askers->front().deadline <= now_) {
      // A follower has given up by itself.
      const ReadAsker asker = askers->front();
      askers->erase(askers->begin());
      --reads_pending_;
      if (asker.from == options_.self) AnswerRead(asker, ReadOutcome::kTimedOut, Index());
    }
  };
  expire(&reads_waiting_);
  for (ReadBatch& batch : read_batches_) expire(&batch.askers);
  std::erase_if(read_batches_, [](const ReadBatch& batch) { return batch.askers.empty(); });
}

// --- Leases ---

std::optional<Instant> Core::Impl::LeaseUntil() const {
  if (!leases_ || lease_given_up_ || role_ != Role::kLeader || commit_ < term_start_) {
    return std::nullopt;
  }
  // When that was *sent* which a majority has answered: they received it later.
  const Instant contact = MajorityContact(Instant::min(), false);
  if (contact == Instant::min()) return std::nullopt;
  // Any voter that has answered may be the one that a later leader needs. One that was started
  // again with a shorter timeout keeps for so long what its last process promised, and answers
  // since then are counted with what it promises now.
  Duration shortest = options_.election_timeout_min;
  for (StoreId voter : quorum_.all_voters()) {
    const auto it = progress_.find(voter);
    if (it == progress_.end() || !it->second.election_timeout_min) continue;
    shortest = std::min(shortest, *it->second.election_timeout_min);
  }
  shortest = std::max(shortest, Duration(0));
  const auto drift = static_cast<Duration::rep>(std::min(options_.lease_drift_permille, 1000u));
  return contact + shortest * (1000 - drift) / 1000;
}

}  // namespace quorate::raft
