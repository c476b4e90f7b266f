// The leader's side of replication: what it sends to each peer, and what the answers mean (Raft
// paper 5.3; pipelining: dissertation 10.2.1).
//
// Nothing is sent while an input is handled. Inputs change what the leader knows; Pump, called when
// the driver takes a Ready, sends what then is to be sent. So everything that the driver had in its
// inbox goes into one append.
//
// A heartbeat names the last entry that the peer is known to have on disk, not the last one sent:
// it is right also when it overtakes data, and it is answered at once. If nothing has moved for a
// minimum election timeout while appends are in flight, the next heartbeat names the last entry
// sent instead: if appends were lost the peer refuses it, and the leader goes back to probing.
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {

// --- Answers ---

void Core::Impl::HandleAppendReply(StoreId from, const AppendEntriesReply& reply) {
  if (reply.term.value() >= kPositionMax) {
    ++ignored_messages_;
    return;
  }
  if (reply.term > term_) {
    BecomeFollower(reply.term, StoreId());
    return;
  }
  const auto it = progress_.find(from);
  if (role_ != Role::kLeader || reply.term < term_ || it == progress_.end()) return;
  if (reply.success && reply.match > window_.last_index()) {
    ++ignored_messages_;
    return;
  }
  Progress* const peer = &it->second;
  NoteContact(peer, reply);
  if (reply.success) {
    HandleMatch(peer, reply.match);
  } else {
    HandleMismatch(peer, reply);
  }
  MaybeCommit();
}

void Core::Impl::NoteContact(Progress* peer, const AppendEntriesReply& reply) {
  peer->last_contact = now_;
  // A round that was never begun is no echo.
  if (reply.read_round <= read_round_) {
    peer->read_round = std::max(peer->read_round, reply.read_round);
  }
  const Instant sent_at = reply.echoed_sent_at;
  if (sent_at < leader_since_ || sent_at > now_) return;  // not an echo of this term
  if (!peer->acked_sent_at || sent_at >= *peer->acked_sent_at) {
    peer->acked_sent_at = sent_at;
    peer->receiver_clock = reply.receiver_clock;
    peer->last_index = reply.last_index;
    peer->election_timeout_min = reply.election_timeout_min;
  }
  // The peer answered something that was sent after its acknowledgement of `match` had come in, and
  // its log ends below it: it has lost what it promised to keep. An older answer that was overtaken
  // does not count as such.
  if (reply.last_index < peer->match && sent_at > peer->match_acked_at) {
    peer->lost_data = true;
    peer->match = Index();
    peer->match_term = Term();
    peer->BecomeProbe(reply.last_index + 1, window_.TermAt(reply.last_index));
  }
}

void Core::Impl::HandleMatch(Progress* peer, Index match) {
  if (match > peer->match) {
    peer->match = match;
    peer->match_term = peer->inflight.FreeTo(match);
    peer->match_acked_at = now_;
    peer->progress_at = now_;
  }
  if (!peer->match_term && peer->match == peer->next - 1) peer->match_term = peer->prev_term;
  if (!peer->match_term) peer->match_term = window_.TermAt(peer->match);
  NoteRound(peer);
  const bool ahead = match >= peer->next;  // than what is to be sent next
  switch (peer->state) {
    case PeerState::kProbe:
      // Below next - 1 it answers an earlier request, or the disk there is behind: wait.
      if (match + 1 < peer->next) break;
      if (peer->match_term) {
        peer->BecomeReplicate(match + 1, peer->match_term);
      } else {
        peer->BecomeProbe(match + 1, std::nullopt);
      }
      break;
    case PeerState::kReplicate:
      if (!ahead) break;
      if (peer->match_term) {
        peer->next = match + 1;
        peer->prev_term = peer->match_term;
      } else {
        peer->BecomeProbe(match + 1, std::nullopt);
      }
      break;
    case PeerState::kSnapshot:
      if (match + 1 >= first_index_ && ahead) peer->BecomeProbe(match + 1, peer->match_term);
      break;
  }
}

void Core::Impl::HandleMismatch(Progress* peer, const AppendEntriesReply& reply) {
  const Index refused = reply.match;   // the previous entry of the refused request
  if (refused <= peer->match) return;  // an old answer: it has acknowledged more since
  switch (peer->state) {
    case PeerState::kProbe:
      if (refused != peer->next - 1) return;
      break;
    case PeerState::kReplicate:
      if (refused >= peer->next) return;
      break;
    case PeerState::kSnapshot:
      return;
  }
  const Index prev = std::max(peer->match, BackOff(reply));
  if (prev == peer->match && peer->match_term) {
    peer->BecomeProbe(prev + 1, peer->match_term);
  } else {
    peer->BecomeProbe(prev + 1, window_.TermAt(prev));
  }
}

// The last entry at which the logs may agree, given why the peer refused `reply.match`.
Index Core::Impl::BackOff(const AppendEntriesReply& reply) const {
  const Index refused = reply.match;
  // Either its log ends before: the hint is its last entry; or it holds another term there: the
  // hint is that term, and the first index of it.
  const bool shorter = reply.last_index < refused;
  const Index upper = shorter ? std::min(reply.hint_index, refused - 1) : refused - 1;
  const Index before_hint = reply.hint_index > Index(0) ? reply.hint_index - 1 : Index(0);
  if (upper < window_.prev_index()) return shorter ? upper : std::min(upper, before_hint);

  // Up to the hint the peer's terms are at most hint_term, so higher ones here cannot agree.
  const auto candidate = window_.LastWithTermAtMost(upper, reply.hint_term);
  if (!candidate) return window_.prev_index() - 1;
  const bool sure = window_.TermAt(*candidate) == reply.hint_term;
  return shorter || sure ? *candidate : std::min(*candidate, before_hint);
}

void Core::Impl::MaybeCommit() {
  if (role_ != Role::kLeader) return;
  const auto reached = quorum_.Value<Index>([this](StoreId voter) {
    if (voter == options_.self) return persisted_;  // only what its own disk holds (etcd #14370)
    const auto it = progress_.find(voter);
    return it == progress_.end() || it->second.lost_data ? Index(0) : it->second.match;
  });
  // Never by counting copies of an earlier term (5.4.2, Figure 8; LogCabin #44).
  if (!reached || *reached <= commit_ || window_.TermAt(*reached) != term_) return;
  SetCommit(*reached);
  ContinueMembershipChange();
}

// --- What is to be sent ---

bool Core::Impl::PeerActive(const Progress& peer) const {
  return peer.last_contact && *peer.last_contact + options_.election_timeout_min > now_;
}

// A probe needs the log on disk only for a term that has left the window; entries come after it.
bool Core::Impl::NeedsRead(const Progress& peer) const {
  return peer.state == PeerState::kProbe ? !peer.prev_term : peer.next <= window_.prev_index();
}

bool Core::Impl::WantsEntries(StoreId store, const Progress& peer) const {
  switch (peer.state) {
    case PeerState::kProbe:
      if (peer.probe_sent) return false;
      // The disk is read only for a peer that answers.
      return !NeedsRead(peer) || (PeerActive(peer) && !reads_.contains(store));
    case PeerState::kReplicate:
      return peer.next <= window_.last_index() &&
             !peer.inflight.Full(options_.inflight_messages_max, options_.inflight_bytes_max) &&
             !(NeedsRead(peer) && reads_.contains(store));
    case PeerState::kSnapshot:
      return false;
  }
  return false;
}

// The peer has everything and was not told that it is committed: it is told now, so that followers
// do not lag behind by a heartbeat.
bool Core::Impl::WantsCommit(const Progress& peer) const {
  return peer.state == PeerState::kReplicate && peer.inflight.empty() &&
         peer.told_commit < std::min(commit_, peer.match);
}

bool Core::Impl::WantsToSend(StoreId store, const Progress& peer) const {
  return peer.heartbeat_due || WantsEntries(store, peer) || WantsCommit(peer) ||
         WantsSnapshot(peer);
}

void Core::Impl::Pump() {
  if (role_ != Role::kLeader) return;
  for (auto& [store, peer] : progress_) {
    const bool probes =
        peer.state == PeerState::kProbe && WantsEntries(store, peer) && !NeedsRead(peer);
    if (peer.heartbeat_due && !probes) SendHeartbeat(store, &peer);
    peer.heartbeat_due = false;
    while (WantsEntries(store, peer)) {
      if (NeedsRead(peer)) {
        AskForRead(store, &peer);
      } else {
        SendEntries(store, &peer);
      }
    }
    if (WantsCommit(peer)) SendAppend(store, &peer, peer.next - 1, *peer.prev_term, {});
    if (WantsSnapshot(peer)) {
      peer.snapshot_asked = true;
      snapshot_requests_.push_back({store, term_});
    }
  }
}

void Core::Impl::SendHeartbeat(StoreId store, Progress* peer) {
  const bool stalled =
      !peer->inflight.empty() && peer->progress_at + options_.election_timeout_min <= now_;
  const bool tail =
      peer->state == PeerState::kProbe || (peer->state == PeerState::kReplicate && stalled);
  if (tail && peer->prev_term) {
    if (stalled) peer->progress_at = now_;
    SendAppend(store, peer, peer->next - 1, *peer->prev_term, {});
  } else if (peer->match_term && peer->state != PeerState::kSnapshot) {
    SendAppend(store, peer, peer->match, *peer->match_term, {});
  } else {
    SendAppend(store, peer, Index(0), Term(0), {});
  }
}

void Core::Impl::SendEntries(StoreId store, Progress* peer) {
  std::vector<EntryPtr> entries;
  if (peer->next > window_.prev_index()) {
    entries = window_.Slice(peer->next, window_.last_index(), options_.append_bytes_max);
  }
  SendAppend(store, peer, peer->next - 1, *peer->prev_term, std::move(entries));
}

void Core::Impl::SendAppend(StoreId store, Progress* peer, Index prev, Term prev_term,
                            std::vector<EntryPtr> entries) {
  CHECK(role_ == Role::kLeader && HardStateDurable());
  AppendEntries append;
  append.term = term_;
  append.prev_index = prev;
  append.prev_term = prev_term;
  append.commit = commit_;
  append.sent_at = now_;
  append.read_round = read_round_;
  // Before an entry of this term is committed an earlier leader may have acknowledged more.
  const Instant contact = MajorityContact(Instant::min(), false);
  if (commit_ >= term_start_ && contact != Instant::min()) {
    append.echoed_receiver_clock = peer->receiver_clock;
    append.majority_age = now_ - contact;
  }
  peer->told_commit = std::max(peer->told_commit, std::min(commit_, prev + entries.size()));
  if (peer->leaving && !peer->leaving->told_at && peer->told_commit >= peer->leaving->index) {
    peer->leaving->told_at = now_;
  }
  if (prev + 1 == peer->next && peer->state == PeerState::kProbe) peer->probe_sent = true;
  if (!entries.empty()) {
    uint64_t bytes = 0;
    for (const EntryPtr& entry : entries) bytes += entry->bytes();
    if (peer->inflight.empty()) peer->progress_at = now_;
    peer->inflight.Add({entries.back()->index, entries.back()->term, bytes});
    if (peer->state == PeerState::kReplicate) {
      peer->next = entries.back()->index + 1;
      peer->prev_term = entries.back()->term;
    }
  }
  append.entries = std::move(entries);
  send_now_.push_back({options_.self, store, std::move(append)});
}

// --- Below the window ---

void Core::Impl::AskForRead(StoreId store, Progress* peer) {
  // When the term before `next` is unknown the read starts there, to learn it.
  const Index from = peer->prev_term ? peer->next : peer->next - 1;
  if (from < first_index_) {
    peer->BecomeSnapshot();
    return;
  }
  reads_[store] = PendingRead{from, term_, false, false};
  log_reads_.push_back({store, from, window_.prev_index(), options_.append_bytes_max});
}

void Core::Impl::OnPeerRead(StoreId store, const PendingRead& read, std::vector<EntryPtr> entries) {
  const auto it = progress_.find(store);
  if (role_ != Role::kLeader || read.term != term_ || it == progress_.end()) return;
  Progress* const peer = &it->second;
  const Index wanted = peer->prev_term ? peer->next : peer->next - 1;
  if (read.from != wanted || peer->state == PeerState::kSnapshot) return;
  if (entries.empty()) {
    peer->BecomeSnapshot();
    return;
  }
  CheckRead(read, entries);
  if (!peer->prev_term) {
    peer->prev_term = entries.front()->term;
    entries.erase(entries.begin());
    if (entries.empty()) return;
  }
  size_t bytes = 0;
  size_t count = 0;
  for (; count < entries.size(); ++count) {
    bytes += entries[count]->bytes();
    if (count > 0 && bytes > options_.append_bytes_max) break;
  }
  entries.resize(count);
  SendAppend(store, peer, peer->next - 1, *peer->prev_term, std::move(entries));
}

}  // namespace quorate::raft
