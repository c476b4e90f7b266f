// The log of this node: what a leader adds to it, what a follower takes over (Raft paper 5.3).
//
// The follower's rules, each from a bug that somebody had:
//   - it acknowledges what the request covers, never the end of its log (Redpanda d0e45c0);
//   - it takes from the leader's commit index only what this request has verified (copycat #265);
//   - what is committed here is the leader's as well (Leader Completeness), so a previous entry at
//     or below the commit index needs no comparison, and may have left the window (openraft #511);
//   - entries that match are kept, whatever an old request ends with: only a conflict cuts.
#include <chrono>
#include <memory>
#include <utility>

#include "base/check.h"
#include "raft/core/core_impl.h"

namespace quorate::raft {

std::pair<size_t, ProposeStatus> Core::Impl::Propose(Term term, std::vector<Proposal> proposals,
                                                     Instant now) {
  Advance(now);
  if (role_ != Role::kLeader || term != term_) return {0, ProposeStatus::kNotLeader};
  if (transfer_) return {0, ProposeStatus::kTransferring};
  size_t accepted = 0;
  ProposeStatus status = ProposeStatus::kAccepted;
  for (Proposal& proposal : proposals) {
    CHECK(proposal.type == EntryType::kCommand || proposal.type == EntryType::kBirthComplete);
    // What cannot leave memory yet: not committed, or not durable here while others commit it.
    const uint64_t held = window_.BytesAfter(std::min(commit_, persisted_));
    const uint64_t bytes = proposal.payload.size() + Entry().bytes();
    if (held > 0 && held + bytes > options_.uncommitted_bytes_max) {
      status = ProposeStatus::kQueueFull;
      break;
    }
    AppendOwn(proposal.type, std::move(proposal.payload), proposal.wall_time_ms);
    ++accepted;
  }
  CheckInvariants();
  return {accepted, status};
}

void Core::Impl::AppendOwn(EntryType type, std::string payload, WallMilliseconds wall_time_ms) {
  CHECK(role_ == Role::kLeader);
  const auto led_for = std::chrono::duration_cast<std::chrono::milliseconds>(now_ - leader_since_);
  auto entry = std::make_shared<Entry>();
  entry->index = window_.last_index() + 1;
  entry->term = term_;
  entry->type = type;
  entry->log_time_ms = log_time_base_ms_ + static_cast<uint64_t>(led_for.count());
  entry->wall_time_ms = wall_time_ms;
  entry->payload = std::move(payload);
  AddToLog(std::move(entry));
}

void Core::Impl::AddToLog(EntryPtr entry) {
  if (entry->type == EntryType::kMembership) {
    // Effective from now on, not from its commit (dissertation 4.1; NuRaft #67).
    auto membership = DecodeMembership(entry->payload);
    CHECK(membership.has_value());
    memberships_.emplace_back(entry->index, *std::move(membership));
    window_.Append(std::move(entry));
    MembershipChanged();
    return;
  }
  window_.Append(std::move(entry));
}

void Core::Impl::CutLog(Index from, Term term_before) {
  CHECK(from > commit_, "a leader's log conflicts with what is committed here");
  CHECK(role_ != Role::kLeader);
  if (from > window_.prev_index()) {
    window_.CutFrom(from);
  } else {
    // Its log time is not needed: an entry of the leader follows at once.
    window_.Reset(from - 1, term_before, 0);
  }
  // Whatever is under way to the disk for `from` and after it will be durable as something else.
  persisted_ = std::min(persisted_, from - 1);
  for (Outstanding& hand_over : outstanding_) {
    hand_over.last_index = std::min(hand_over.last_index, from - 1);
  }
  if (handed_over_ >= from) {
    pending_cut_ = pending_cut_ ? std::min(*pending_cut_, from) : from;
    handed_over_ = from - 1;
  }
  terms_read_.erase(terms_read_.lower_bound(from), terms_read_.end());
  const auto own_read = reads_.find(options_.self);
  if (own_read != reads_.end() && !own_read->second.apply) own_read->second.stale = true;

  bool reverted = false;
  while (!memberships_.empty() && memberships_.back().first >= from) {
    memberships_.pop_back();
    reverted = true;
  }
  if (reverted) MembershipChanged();
  cut_lowest_ = from;
}

std::optional<Term> Core::Impl::TermAt(Index index) const {
  if (const auto term = window_.TermAt(index)) return term;
  const auto read = terms_read_.find(index);
  return read == terms_read_.end() ? std::nullopt : std::optional<Term>(read->second);
}

bool Core::Impl::WellFormed(const AppendEntries& request) const {
  if (request.term == Term(0) || request.term.value() >= kPositionMax ||
      request.prev_index.value() >= kPositionMax || request.prev_term > request.term ||
      (request.prev_index == Index(0)) != (request.prev_term == Term(0))) {
    return false;
  }
  Index index = request.prev_index;
  Term term = std::max(request.prev_term, Term(1));
  for (const EntryPtr& entry : request.entries) {
    if (!entry || entry->index != index + 1 || entry->term < term || entry->term > request.term) {
      return false;
    }
    switch (entry->type) {
      case EntryType::kNoop:
      case EntryType::kCommand:
      case EntryType::kBirthComplete:
        break;
      case EntryType::kMembership:
        if (!DecodeMembership(entry->payload)) return false;
        break;
      default:
        return false;
    }
    index = entry->index;
    term = entry->term;
  }
  return true;
}

AppendEntriesReply Core::Impl::ReplyTo(const AppendEntries& request) const {
  AppendEntriesReply reply;
  reply.term = term_;
  reply.last_index = window_.last_index();
  reply.election_timeout_min = options_.election_timeout_min;
  reply.echoed_sent_at = request.sent_at;
  reply.receiver_clock = now_ + options_.clock_mark;
  reply.read_round = request.read_round;
  return reply;
}

void Core::Impl::RefuseAppend(StoreId from, const AppendEntries& request, Index hint_index,
                              Term hint_term) {
  AppendEntriesReply reply = ReplyTo(request);
  reply.match = request.prev_index;
  reply.hint_index = hint_index;
  reply.hint_term = hint_term;
  Send(from, reply);
}

void Core::Impl::HandleAppend(StoreId from, const AppendEntries& request) {
  if (!WellFormed(request)) {
    ++ignored_messages_;
    return;
  }
  if (request.term < term_) {
    // So that a leader who was replaced, or who has to take a higher term, learns of it. Nothing is
    // echoed: the answer carries this term, and who leads in it must not take the clock or the
    // round of a message that it sent before it was started again for its own of now.
    AppendEntries late;
    late.prev_index = request.prev_index;
    return RefuseAppend(from, late, window_.last_index(), window_.last_term());
  }
  if (request.term == term_) {
    CHECK(role_ != Role::kLeader && (!leader_ || leader_ == from), "two leaders in one term");
  }
  BecomeFollower(request.term, from);
  leader_contact_ = now_;
  ResetElectionDeadline();
  // A sample of this node's clock from before its start may come from before a reboot. (It may also
  // be any number: so nothing is taken from it before it is known to be in bounds.)
  const Instant sample = request.echoed_receiver_clock;
  const Duration mark = options_.clock_mark;
  if (sample >= started_ + mark && sample <= now_ + mark && request.majority_age >= Duration(0) &&
      request.majority_age < std::chrono::hours(24 * 365)) {
    AddFreshSample(request.commit, sample - mark - request.majority_age);
  }

  const Index prev = request.prev_index;
  if (prev > window_.last_index()) {
    return RefuseAppend(from, request, window_.last_index(), window_.last_term());
  }
  const std::optional<Term> prev_term = TermAt(prev);
  if (prev <= commit_) {
    CHECK(!prev_term || *prev_term == request.prev_term, "a committed entry differs at the leader");
  } else if (!prev_term) {
    // The log on disk knows; the leader asks again with its next heartbeat.
    terms_wanted_ = prev;
    return;
  } else if (*prev_term != request.prev_term) {
    const Index first = prev > window_.prev_index() ? window_.FirstOfSameTerm(prev) : prev;
    return RefuseAppend(from, request, std::max(first, commit_ + 1), *prev_term);
  }

  const Index matched = MergeEntries(request);
  SetCommit(std::min(request.commit, matched));
  // It is to be asked again when the log on disk has said what lies here, with the next heartbeat.
  // An answer that took it no further would be followed by the same request at once.
  if (terms_wanted_ && matched == prev && !request.entries.empty()) return;
  AppendEntriesReply reply = ReplyTo(request);
  reply.success = true;
  // A heartbeat is answered at once, with what is durable already: it never waits for the disk.
  reply.match = request.entries.empty() ? std::min(matched, persisted_) : matched;
  SendDurable(from, reply, reply.match);
}

Index Core::Impl::MergeEntries(const AppendEntries& request) {
  Index matched = request.prev_index;
  Term matched_term = request.prev_term;
  for (const EntryPtr& entry : request.entries) {
    if (entry->index <= window_.last_index()) {
      const std::optional<Term> term = TermAt(entry->index);
      if (!term && entry->index > commit_) {
        terms_wanted_ = entry->index;
        break;
      }
      if (term && *term != entry->term) CutLog(entry->index, matched_term);
    }
    if (entry->index > window_.last_index()) AddToLog(entry);
    matched = entry->index;
    matched_term = entry->term;
  }
  return matched;
}

void Core::Impl::SetCommit(Index commit) {
  if (commit <= commit_) return;
  commit_ = commit;
  TrimMemberships();
}

}  // namespace quorate::raft
