// What RaftChecker says of messages.
#include "tests/sim/raft_checker.h"

#include <algorithm>

namespace quorate::sim {

using raft::Index;
using raft::Term;

void RaftChecker::CheckVote(StoreId voter, Term term, StoreId candidate) {
  const StoreLog& log = logs_[voter];
  // A later term that is durable is as good: it will not vote in this one again.
  if (log.durable.term < term || (log.durable.term == term && log.durable.vote != candidate)) {
    Fail(voter, "says a vote of term " + ToString(term) + " that is not durable");
  }
  const auto [vote, first] = votes_.emplace(std::make_pair(voter, term), candidate);
  if (!first && vote->second != candidate) {
    Fail(voter, "two votes in term " + ToString(term));
  }
}

void RaftChecker::OnSend(const raft::Message& message) {
  if (const auto* append = std::get_if<raft::AppendEntries>(&message.body)) {
    if (logs_[message.from].durable.term < append->term) {
      Fail(message.from, "leads in a term that is not durable");
    }
    const auto leader = leaders_.emplace(append->term, message.from).first;
    if (leader->second != message.from) {
      Fail(message.from, "two leaders in term " + ToString(append->term));
    }
  } else if (const auto* reply = std::get_if<raft::AppendEntriesReply>(&message.body)) {
    CheckEcho(message.from, *reply);
    if (reply->success) CheckAcknowledgement(message.from, message.to, *reply);
  } else if (const auto* installed = std::get_if<raft::InstallSnapshotReply>(&message.body)) {
    if (installed->answer == raft::SnapshotAnswer::kInstalled) {
      CheckInstalled(message.from, *installed);
    }
  } else if (const auto* vote = std::get_if<raft::RequestVoteReply>(&message.body)) {
    if (vote->granted && !vote->pre_vote) CheckVote(message.from, vote->term, message.to);
  } else if (const auto* request = std::get_if<raft::RequestVote>(&message.body)) {
    if (!request->pre_vote) CheckVote(message.from, request->term, message.from);
  }
}

// From an echo the leader takes that somebody has heard it in this term, at that time.
void RaftChecker::CheckEcho(StoreId from, const raft::AppendEntriesReply& reply) {
  const Life& life = lives_[from];
  if (reply.term < life.said_term) return;  // it has waited for the disk
  const bool heard = reply.term == life.said_term;
  const bool clock = reply.echoed_sent_at == Instant() ||
                     (heard && life.said_clocks.contains(reply.echoed_sent_at));
  const bool round = reply.read_round == 0 || (heard && reply.read_round <= life.said_round);
  if (!clock || !round) {
    Fail(from, "echoes what the leader of term " + ToString(reply.term) + " has not said to it");
  }
}

void RaftChecker::CheckAcknowledgement(StoreId from, StoreId leader,
                                       const raft::AppendEntriesReply& reply) {
  const StoreLog& log = logs_[from];
  const Life& life = lives_[from];
  if (log.durable.term < reply.term) Fail(from, "acknowledges in a term that is not durable");
  const auto offered = life.offered.find(reply.term);
  if (offered == life.offered.end() || reply.match > offered->second) {
    Fail(from, "acknowledges " + ToString(reply.match) + " to the leader of term " +
                   ToString(reply.term) + ", who has not sent so much");
  }
  // One that waited for the disk may leave when its log has gone on in a later term, whose leader
  // has cut what it says, even before it was written. It is true of its own term: this node took
  // the entry before it voted in a later one, so whoever was elected then has the entry where a
  // majority took it; and where a later leader does not have it, it will never be one. But as long
  // as the entry's place is in the log, it is durable, as all that was written before.
  const bool overtaken = reply.term < log.written.term && life.led_by > reply.term;
  if (reply.match > log.DurableThrough() && (!overtaken || reply.match <= log.last())) {
    Fail(from, "acknowledges " + ToString(reply.match) + ", and only " +
                   ToString(log.DurableThrough()) + " is durable");
  }
  CheckMatch(from, leader, reply);
}

// By log matching the last entry is enough. One of the leader's own term nobody else has made; an
// older one the leader has had since before it was elected, and it never cuts its log.
void RaftChecker::CheckMatch(StoreId from, StoreId leader, const raft::AppendEntriesReply& reply) {
  const StoreLog& log = logs_[from];
  const StoreLog& theirs = logs_[leader];
  const auto known = leaders_.find(reply.term);
  if (known == leaders_.end() || known->second != leader) return;
  // Of a later leader either may have taken another entry there.
  if (theirs.written.term != reply.term) return;
  if (log.written.term != reply.term && lives_[from].led_by > reply.term) return;
  if (reply.match <= log.prev || reply.match <= theirs.prev) return;
  const EntryId* here = log.At(reply.match);
  if (here == nullptr || here->term == reply.term) return;
  const EntryId* there = theirs.At(reply.match);
  if (there == nullptr || *there != *here) {
    Fail(from, "acknowledges " + ToString(reply.match) + " to the leader of term " +
                   ToString(reply.term) + ", whose log holds another entry there, or none");
  }
}

// The leader counts it like any acknowledgement.
void RaftChecker::CheckInstalled(StoreId from, const raft::InstallSnapshotReply& reply) {
  const StoreLog& log = logs_[from];
  if (log.durable.term < reply.term) Fail(from, "answers a snapshot in a term that is not durable");
  if (reply.index > committed() || committed_[reply.index.value() - 1].term != reply.index_term) {
    return Fail(from, "calls a snapshot installed that is not committed: " + ToString(reply.index));
  }
  if (!log.HoldsDurably(reply.index, reply.index_term)) {
    Fail(from, "calls a snapshot up to " + ToString(reply.index) + " installed, and only " +
                   ToString(log.DurableThrough()) + " is durable");
  }
}

void RaftChecker::OnHeard(StoreId store, const raft::Message& message, Instant now) {
  Life& life = lives_[store];
  if (const auto* install = std::get_if<raft::InstallSnapshot>(&message.body)) {
    life.led_by = std::max(life.led_by, install->term);
  }
  const auto* append = std::get_if<raft::AppendEntries>(&message.body);
  if (append == nullptr) return;
  life.led_by = std::max(life.led_by, append->term);
  Index& offered = life.offered[append->term];
  offered = std::max(offered, append->prev_index + append->entries.size());
  if (append->term > life.said_term) {
    life.said_term = append->term;
    life.said_clocks.clear();
    life.said_round = 0;
  }
  if (append->term == life.said_term) {
    life.said_clocks.insert(append->sent_at);
    life.said_round = std::max(life.said_round, append->read_round);
  }
  if (append->term < life.heard_term) return;
  life.heard_term = append->term;
  life.heard_at = now;
}

void RaftChecker::OnCampaign(StoreId store, const raft::RequestVote& question, Instant now,
                             Duration election_timeout_min) {
  const Life& life = lives_[store];
  // It asks for the term after its own.
  if (!life.heard_term || life.heard_term + 1 < question.term) return;
  if (now - life.heard_at >= election_timeout_min) return;
  Fail(store, "asks for votes in term " + ToString(question.term) +
                  " although the leader of term " + ToString(life.heard_term) +
                  " has just been heard");
}

}  // namespace quorate::sim
