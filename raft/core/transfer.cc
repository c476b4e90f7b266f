// Handing leadership over (dissertation 3.10).
//
//   1. The leader takes no more proposals and goes on replicating.
//   2. When the target's disk holds the whole log the leader sends it TimeoutNow.
//   3. The target campaigns at once, in the next term, without a pre-vote; its requests say why, so
//      that those who hear the leader vote all the same.
//   4. The leader hears of the next term and follows.
// If 4 has not happened one election timeout after 1, the leader takes proposals again: it has led
// all the time. TimeoutNow may still arrive; it names the term, so it can end this leadership and
// no other, and until this leadership ends no lease may be taken (lease_given_up_).
//
// The same is done by a leader that a committed change has made a non-voter, and by one whose disk
// stalls: without a flush it can still commit what the others hold, but nothing that needs its own
// vote, and its clients would wait.
#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {

bool Core::Impl::MayLead(StoreId store) const {
  const auto it = progress_.find(store);
  const Member* const member = membership().Find(store);
  return member != nullptr && member->voter && it != progress_.end() && PeerActive(it->second) &&
         !it->second.lost_data;
}

// The one that has most of the log; the lowest store id among equals.
StoreId Core::Impl::PickTarget() const {
  StoreId best;
  for (const auto& [store, peer] : progress_) {
    if (!MayLead(store) || peer.state != PeerState::kReplicate) continue;
    if (!best || peer.match > progress_.at(best).match) best = store;
  }
  return best;
}

TransferStatus Core::Impl::TransferLeadership(StoreId target, Instant now) {
  Advance(now);
  if (role_ != Role::kLeader) return TransferStatus::kNotLeader;
  if (target == options_.self) return TransferStatus::kAlreadyLeads;
  if (transfer_) return TransferStatus::kInProgress;
  if (target) {
    const Member* const member = membership().Find(target);
    if (member == nullptr || !member->voter) return TransferStatus::kNotVoter;
    if (!MayLead(target)) return TransferStatus::kSilent;
  } else {
    target = PickTarget();
    if (!target) return TransferStatus::kSilent;
  }
  StartTransfer(target);
  CheckInvariants();
  return TransferStatus::kStarted;
}

void Core::Impl::StartTransfer(StoreId target) {
  CHECK(role_ == Role::kLeader && !transfer_);
  transfer_ = Transfer{target, now_ + options_.election_timeout_max};
  AdvanceTransfer();
}

void Core::Impl::AdvanceTransfer() {
  if (!transfer_ || transfer_->told) return;
  const auto it = progress_.find(transfer_->target);
  if (it == progress_.end() || it->second.match < window_.last_index()) return;
  transfer_->told = true;
  GiveUpLease();
  send_now_.push_back({options_.self, transfer_->target, TimeoutNow{term_}});
}

void Core::Impl::TransferTick() {
  if (transfer_ && now_ >= transfer_->deadline) {
    const bool resigning = transfer_->resigning;
    transfer_.reset();
    if (resigning) return BecomeFollower(term_, StoreId());
  }
  if (now_ < heartbeat_deadline_) return;
  // With every heartbeat again: the message may have been lost, and who has acted on it has left
  // the term.
  if (transfer_) transfer_->told = false;
  AdvanceTransfer();
  MaybeHandOverStalled();
}

void Core::Impl::LeaveOffice() {
  if (!transfer_) {
    const StoreId target = PickTarget();
    if (!target) return BecomeFollower(term_, StoreId());
    StartTransfer(target);
  }
  transfer_->resigning = true;
}

void Core::Impl::MaybeHandOverStalled() {
  if (transfer_ || outstanding_.empty()) return;
  if (now_ - outstanding_.front().since < options_.flush_stall_max) return;
  if (stall_transfer_at_ && now_ - *stall_transfer_at_ < options_.stall_transfer_interval) return;
  const bool without_me = quorum_.Satisfied(
      [this](StoreId voter) { return voter != options_.self && AnswersLately(voter); });
  const StoreId target = PickTarget();
  if (!without_me || !target) return;
  stall_transfer_at_ = now_;
  StartTransfer(target);
}

void Core::Impl::HandleTimeoutNow(StoreId from, const TimeoutNow& message) {
  // Who has the leader's whole log knows its term, and there is one leader in it.
  const bool stranger = message.term == term_ && leader_ && leader_ != from;
  if (message.term == Term(0) || message.term > term_ || stranger) {
    ++ignored_messages_;
    return;
  }
  if (message.term < term_ || role_ == Role::kCandidate || !may_campaign_) return;
  StartCampaign(true);
}

}  // namespace quorate::raft
