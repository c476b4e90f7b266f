// Cutting the log, and snapshots for those who lack what was cut: Raft paper, section 7 and
// Figure 13.
//
// The leader notices that a peer's next entry is gone (pipeline.cc, AskForRead), asks the driver
// for a snapshot and sends nothing but heartbeats until the peer says that it has it. The driver
// copies the state, offers it, streams it. The receiver:
//
//   1. An offer from the leader of this term, of something that the log here does not hold: send.
//   2. The bytes arrive in a place of their own; verified and durable, they come back as the second
//      InstallSnapshot. What was true at the offer is checked again: a leader may have fallen, or
//      the log may have caught up meanwhile.
//   3. The log now begins behind the snapshot. That is one record with one ticket: the only point
//      where a crash finds either the old log with the old state or the new one with the new.
//   4. Durable: the state machine switches, behind what it still has in its queue.
//   5. Switched: the leader is told.
//
// When the log does hold the snapshot's last entry (same index, same term) nothing is installed:
// all before it is what the leader has, and committed, so it is enough to commit (Figure 13, rule
// 6, goes on to keep what follows). That is also the answer to a repeated or late snapshot, and it
// can undo nothing: what is committed here stays, whatever a snapshot says (openraft #511).
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {
namespace {

// Calls that wait to hear that what they offered is durable; a peer has one.
constexpr size_t kInstalledAnswersMax = 64;

}  // namespace

void Core::Impl::Compact(Index index) {
  CHECK(index <= applied_, "the log would be cut beyond what is applied");
  first_index_ = std::max(first_index_, index + 1);
  CheckInvariants();
}

// --- The receiver ---

bool Core::Impl::WellFormed(const InstallSnapshot& request) const {
  const SnapshotMeta& snapshot = request.snapshot;
  return request.term > Term(0) && request.term.value() < kPositionMax &&
         snapshot.index > Index(0) && snapshot.index.value() < kPositionMax &&
         snapshot.term > Term(0) && snapshot.term <= request.term &&
         snapshot.membership_index > Index(0) && snapshot.membership_index <= snapshot.index &&
         !snapshot.membership.members.empty();
}

void Core::Impl::AnswerInstall(StoreId to, const InstallSnapshot& request, SnapshotAnswer answer) {
  Send(to, InstallSnapshotReply{term_, request.snapshot.index, request.snapshot.term, answer,
                                request.call_id});
}

void Core::Impl::HandleInstall(StoreId from, const InstallSnapshot& request) {
  if (!WellFormed(request)) {
    ++ignored_messages_;
    return;
  }
  if (request.term < term_) return AnswerInstall(from, request, SnapshotAnswer::kRefused);
  if (request.term == term_) {
    CHECK(role_ != Role::kLeader && (!leader_ || leader_ == from), "two leaders in one term");
  }
  BecomeFollower(request.term, from);
  leader_contact_ = now_;
  ResetElectionDeadline();

  const Index index = request.snapshot.index;
  const std::optional<Term> term = TermAt(index);
  if (index <= commit_) {
    CHECK(!term || *term == request.snapshot.term, "a committed entry differs at the leader");
  } else if (index <= window_.last_index()) {
    if (!term) {
      // The log on disk knows; by the time that the leader asks again it has said so.
      terms_wanted_ = index;
      return AnswerInstall(from, request, SnapshotAnswer::kBusy);
    }
    if (*term == request.snapshot.term) SetCommit(index);
  }
  if (index <= commit_) {
    installed_answers_.push_back({from, index, request.snapshot.term, request.call_id});
    if (installed_answers_.size() > kInstalledAnswersMax) installed_answers_.pop_front();
    return AnswerInstalled();
  }
  if (installing_) return AnswerInstall(from, request, SnapshotAnswer::kBusy);
  if (request.generation == 0) return AnswerInstall(from, request, SnapshotAnswer::kSend);
  StartInstall(request);
  installed_answers_.push_back({from, index, request.snapshot.term, request.call_id});
}

void Core::Impl::StartInstall(const InstallSnapshot& request) {
  const SnapshotMeta& snapshot = request.snapshot;
  CHECK(snapshot.index > commit_ && role_ == Role::kFollower && !installing_);
  // What follows the commit index here is either before the snapshot's last entry or, with another
  // term there, in conflict with it: it goes. Whatever of it is under way to the disk will be
  // durable as something that no longer counts.
  cut_lowest_ = commit_ + 1;
  persisted_ = std::min(persisted_, commit_);
  for (Outstanding& hand_over : outstanding_) {
    hand_over.last_index = std::min(hand_over.last_index, commit_);
  }
  window_.Reset(snapshot.index, snapshot.term, snapshot.log_time_ms);
  handed_over_ = snapshot.index;
  first_index_ = snapshot.index + 1;
  commit_ = snapshot.index;
  apply_stash_.clear();
  terms_read_.clear();
  terms_wanted_.reset();
  const auto own_read = reads_.find(options_.self);
  if (own_read != reads_.end()) own_read->second.stale = true;

  // No configuration of the old log lives on, not even a later one: it is in conflict too
  // (openraft #1808, scylla #9551).
  memberships_ = {{snapshot.membership_index, snapshot.membership}};
  MembershipChanged();
  installing_ = Installing{{snapshot, request.generation}, Ticket(), false};
}

void Core::Impl::OnInstallDurable() {
  if (!installing_ || installing_->switched || !installing_->ticket ||
      installing_->ticket > persisted_ticket_) {
    return;
  }
  installing_->switched = true;
  install_ready_ = installing_->record;
  handed_out_ = installing_->record.snapshot.index;
  applying_.push_back({handed_out_, 0});
}

void Core::Impl::OnInstallApplied() {
  if (installing_ && installing_->switched && applied_ >= installing_->record.snapshot.index) {
    installing_.reset();
  }
}

void Core::Impl::AnswerInstalled() {
  if (installing_) return;
  while (!installed_answers_.empty() && installed_answers_.front().index <= persisted_) {
    const InstalledAnswer& to = installed_answers_.front();
    Send(to.to, InstallSnapshotReply{term_, to.index, to.index_term, SnapshotAnswer::kInstalled,
                                     to.call_id});
    installed_answers_.pop_front();
  }
}

// --- The leader ---

bool Core::Impl::WantsSnapshot(const Progress& peer) const {
  return peer.state == PeerState::kSnapshot && !peer.snapshot_asked && !peer.leaving &&
         PeerActive(peer) && peer.snapshot_retry_at <= now_;
}

void Core::Impl::HandleInstallReply(StoreId from, const InstallSnapshotReply& reply) {
  if (reply.term.value() >= kPositionMax || reply.index.value() >= kPositionMax) {
    ++ignored_messages_;
    return;
  }
  if (reply.term > term_) {
    BecomeFollower(reply.term, StoreId());
    return;
  }
  const auto it = progress_.find(from);
  if (role_ != Role::kLeader || reply.term < term_ || it == progress_.end()) return;
  Progress* const peer = &it->second;
  if (reply.answer != SnapshotAnswer::kInstalled) return RetrySnapshot(peer);
  if (reply.index > window_.last_index() || reply.index_term > term_) {
    ++ignored_messages_;
    return;
  }
  peer->last_contact = now_;
  peer->snapshot_asked = false;
  peer->snapshot_backoff = Duration(0);
  if (reply.index > peer->match) {
    peer->match = reply.index;
    peer->match_acked_at = now_;
  }
  // Also when it had acknowledged as much before: the term may be what was missing, and only the
  // snapshot may still tell it.
  if (reply.index == peer->match) peer->match_term = reply.index_term;
  if (peer->state == PeerState::kSnapshot || peer->next <= peer->match) {
    peer->BecomeProbe(peer->match + 1, peer->match_term);
  }
  MaybeCommit();
}

void Core::Impl::OnSnapshotFailed(StoreId peer, Term term, Instant now) {
  Advance(now);
  const auto it = progress_.find(peer);
  if (role_ == Role::kLeader && term == term_ && it != progress_.end()) RetrySnapshot(&it->second);
  CheckInvariants();
}

void Core::Impl::RetrySnapshot(Progress* peer) {
  if (!peer->snapshot_asked) return;
  peer->snapshot_asked = false;
  peer->snapshot_backoff = std::clamp(2 * peer->snapshot_backoff, options_.snapshot_retry_min,
                                      options_.snapshot_retry_max);
  peer->snapshot_retry_at = now_ + peer->snapshot_backoff;
}

}  // namespace quorate::raft
