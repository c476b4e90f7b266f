// What the oracle of core_cluster.h holds against a node, and how a conversation is printed.
#include <algorithm>
#include <utility>

#include "raft/core/quorum.h"
#include "tests/raft/core_cluster.h"

namespace quorate::raft::testing {

// --- Oracle ---

void Oracle::OnLeader(const TestNode& node) {
  const auto [it, first] = leaders_.emplace(node.core().term(), node.id());
  if (!first && it->second != node.id()) {
    cluster_->Fail("two leaders in term " + ToString(node.core().term()));
  }
  for (const auto& [index, entry] : committed_) {
    // The term's no-op is in its log already, but not yet in the copy that the harness keeps.
    if (index.value() > node.log().size() || *node.log()[index.value() - 1] != *entry) {
      cluster_->Fail(node.name() + " leads without the committed entry " + ToString(index));
    }
  }
}

void Oracle::OnCommit(const TestNode& node, Index from, Index to) {
  for (Index i = from; i <= to; ++i) {
    if (i.value() > node.log().size()) {
      cluster_->Fail(node.name() + " commits what it does not have: " + ToString(i));
      return;
    }
    const EntryPtr& entry = node.log()[i.value() - 1];
    const auto [it, first] = committed_.emplace(i, entry);
    if (*it->second != *entry) {
      cluster_->Fail(node.name() + " commits another entry " + ToString(i));
    }
    if (first) committed_at_.emplace(i, cluster_->now());
    if (!first || !check_durability_) continue;
    const Quorum quorum(node.core().membership());
    const bool durable = quorum.Satisfied([&](StoreId voter) {
      const TestNode* other = cluster_->Find(voter);
      if (other == nullptr) return false;
      const auto& log = const_cast<TestNode*>(other)->disk().log;
      return log.size() >= i.value() && *log[i.value() - 1] == *entry;
    });
    if (!durable) {
      cluster_->Fail(node.name() + " commits entry " + ToString(i) +
                     ", which is not on the disks of a majority");
    }
  }
}

void Oracle::OnApply(const TestNode& node, const std::vector<EntryPtr>& entries) {
  for (const EntryPtr& entry : entries) {
    const auto it = committed_.find(entry->index);
    if (it == committed_.end() || *it->second != *entry) {
      cluster_->Fail(node.name() + " applies what is not committed: " + ToString(entry->index));
    }
    const auto& log = const_cast<TestNode&>(node).disk().log;
    if (log.size() < entry->index.value() || *log[entry->index.value() - 1] != *entry) {
      cluster_->Fail(node.name() + " applies what is not durable: " + ToString(entry->index));
    }
  }
}

void Oracle::OnInstall(const TestNode& node, const Snapshot& snapshot) {
  if (snapshot.meta.index <= node.state_index()) {
    cluster_->Fail(node.name() + " falls back to an older state");
  }
  for (const EntryPtr& entry : snapshot.entries) {
    const auto it = committed_.find(entry->index);
    // Entry 1 is everybody's from the start.
    if (entry->index > Index(1) && (it == committed_.end() || *it->second != *entry)) {
      cluster_->Fail(node.name() + " installs what is not committed: " + ToString(entry->index));
    }
  }
  const Disk& disk = const_cast<TestNode&>(node).disk();
  if (disk.applied < snapshot.meta.index) {
    cluster_->Fail(node.name() + " installs a snapshot whose record is not durable");
  }
}

void Oracle::OnSend(const TestNode& node, const Message& message) {
  const Disk& disk = const_cast<TestNode&>(node).disk();
  if (const auto* vote = std::get_if<RequestVoteReply>(&message.body)) {
    if (vote->pre_vote || !vote->granted) return;
    const auto [it, first] = votes_.emplace(std::make_pair(node.id(), vote->term), message.to);
    if (!first && it->second != message.to) {
      cluster_->Fail(node.name() + " votes twice in term " + ToString(vote->term));
    }
    const bool durable = disk.hard_state.term > vote->term ||
                         (disk.hard_state.term == vote->term && disk.hard_state.vote == message.to);
    if (!durable) cluster_->Fail(node.name() + " sends a vote that is not durable");
  } else if (const auto* ask = std::get_if<RequestVote>(&message.body)) {
    if (!ask->pre_vote && disk.hard_state.term < ask->term) {
      cluster_->Fail(node.name() + " campaigns in a term that is not durable");
    }
  } else if (const auto* reply = std::get_if<AppendEntriesReply>(&message.body)) {
    if (!reply->success) return;
    const size_t match = reply->match.value();
    TestNode* leader = cluster_->Find(message.to);
    const bool judge = leader != nullptr && leader->up() &&
                       leader->core().role() == Role::kLeader &&
                       leader->core().term() == reply->term && node.core().term() == reply->term;
    if (!judge || match == 0) return;
    if (disk.log.size() < match || leader->log().size() < match ||
        *disk.log[match - 1] != *leader->log()[match - 1]) {
      cluster_->Fail(node.name() + " acknowledges " + ToString(reply->match) +
                     " without having the leader's entry on disk (" +
                     std::to_string(disk.log.size()) + ", leader " +
                     std::to_string(leader->log().size()) + ")");
    }
  } else if (const auto* append = std::get_if<AppendEntries>(&message.body)) {
    if (disk.hard_state.term < append->term) {
      cluster_->Fail(node.name() + " leads in a term that is not durable");
    }
  } else if (const auto* installed = std::get_if<InstallSnapshotReply>(&message.body)) {
    if (disk.hard_state.term < installed->term) {
      cluster_->Fail(node.name() + " answers in a term that is not durable");
    }
    if (installed->answer != SnapshotAnswer::kInstalled) return;
    const size_t index = installed->index.value();
    if (disk.log.size() < index || disk.log[index - 1]->term != installed->index_term) {
      cluster_->Fail(node.name() + " calls installed what is not durable");
    }
  }
}

void Oracle::CheckFreshness(const TestNode& node) {
  const auto fresh = node.core().fresh_as_of(node.Now());
  if (!fresh) return;
  const Duration age = node.Now() - *fresh;
  if (age < Duration(0)) cluster_->Fail(node.name() + " is fresher than now");
  for (const auto& [index, at] : committed_at_) {
    if (index > node.core().applied() && at < cluster_->now() - age) {
      cluster_->Fail(node.name() + " calls itself fresh without entry " + ToString(index));
    }
  }
}

Index Oracle::highest_committed() const {
  return committed_.empty() ? Index() : committed_.rbegin()->first;
}

void Oracle::OnReadConfirmed(const TestNode& node, const ReadResult& result, Index least) {
  if (result.index < least) {
    cluster_->Fail(node.name() + " reads at " + ToString(result.index) + ", and entry " +
                   ToString(least) + " was committed before it asked");
  }
  if (result.index > highest_committed()) {
    cluster_->Fail(node.name() + " reads at " + ToString(result.index) +
                   ", which nobody has committed");
  }
}

void Oracle::CheckLogMatching() {
  const auto nodes = cluster_->nodes();
  for (size_t a = 0; a < nodes.size(); ++a) {
    for (size_t b = a + 1; b < nodes.size(); ++b) {
      const auto& one = nodes[a]->log();
      const auto& two = nodes[b]->log();
      bool below_agreed = false;
      for (size_t i = std::min(one.size(), two.size()); i > 0; --i) {
        if (one[i - 1]->term == two[i - 1]->term) {
          if (*one[i - 1] != *two[i - 1]) cluster_->Fail("one index and term, two entries");
          below_agreed = true;
        } else if (below_agreed) {
          cluster_->Fail("logs agree at an entry, and not before it");
          return;
        }
      }
    }
  }
}

// --- Printing ---

std::string RoleName(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "?";
}

std::string PrintOutcome(ReadOutcome outcome) {
  switch (outcome) {
    case ReadOutcome::kConfirmed:
      return "confirmed";
    case ReadOutcome::kNoLeader:
      return "no leader is known";
    case ReadOutcome::kLeaderLost:
      return "the leader was lost";
    case ReadOutcome::kTimedOut:
      return "nobody answered in time";
    case ReadOutcome::kTooMany:
      return "too many are waiting";
  }
  return "?";
}

std::string Print(const ReadResult& result) {
  std::string out = "read " + std::to_string(result.id);
  if (result.outcome != ReadOutcome::kConfirmed)
    return out + " fails: " + PrintOutcome(result.outcome);
  return out + " may be served once " + ToString(result.index) + " is applied" +
         (result.lease_until ? ", by the lease" : "");
}

std::string PrintEntries(const std::vector<EntryPtr>& entries) {
  std::string out;
  for (size_t i = 0; i < entries.size();) {
    size_t end = i;
    while (end + 1 < entries.size() && entries[end + 1]->term == entries[i]->term) ++end;
    if (!out.empty()) out += ",";
    out += ToString(entries[i]->index);
    if (end > i) out += ".." + ToString(entries[end]->index);
    out += "@" + ToString(entries[i]->term);
    i = end + 1;
  }
  return out;
}

std::string PrintMembership(const Membership& membership) {
  std::string voters, outgoing, learners;
  for (const Member& member : membership.members) {
    if (member.voter) voters += " " + member.name;
    if (member.outgoing_voter) outgoing += " " + member.name;
    if (member.demoted) outgoing += " (then learner)";
    if (member.learner()) learners += " " + member.name;
  }
  std::string out = "voters" + voters;
  if (membership.joint) out += ", old voters" + outgoing;
  if (!learners.empty()) out += ", learners" + learners;
  return out;
}

std::string PrintChange(const Cluster& cluster, const ChangeResult& result) {
  switch (result.status) {
    case ChangeStatus::kAccepted:
      return "";
    case ChangeStatus::kUnchanged:
      return "nothing would change";
    case ChangeStatus::kNotLeader:
      return "not leader";
    case ChangeStatus::kNotReady:
      return "nothing of this term is committed yet";
    case ChangeStatus::kInProgress:
      return "the change of entry " + ToString(result.index) + " is not done";
    case ChangeStatus::kTransferring:
      return "leadership is being handed over";
    case ChangeStatus::kNotCaughtUp:
      return cluster.NameOf(result.store) + " has " + ToString(result.match) + " of " +
             ToString(result.last_index) + " entries";
    case ChangeStatus::kUnknownStore:
      return cluster.NameOf(result.store) + " is no member";
    case ChangeStatus::kNameTaken:
      return "the name is that of " + cluster.NameOf(result.store);
    case ChangeStatus::kInvalid:
      return result.reason;
    case ChangeStatus::kNoVoters:
      return "nobody would vote";
    case ChangeStatus::kWouldLoseQuorum:
      return "of " + std::to_string(result.voters) + " voters " + std::to_string(result.needed) +
             " must answer, and " + std::to_string(result.reachable) + " do";
    case ChangeStatus::kUnknown:
      break;  // not from a core
  }
  return "?";
}

std::string Print(const Cluster& cluster, const Message& message) {
  std::string out = cluster.NameOf(message.from) + "->" + cluster.NameOf(message.to) + " ";
  const auto at = [](Index index, Term term) { return ToString(index) + "@" + ToString(term); };
  if (const auto* vote = std::get_if<RequestVote>(&message.body)) {
    out += vote->pre_vote ? "PreVote" : "Vote";
    out += " term=" + ToString(vote->term) + " log=" + at(vote->last_index, vote->last_term);
    if (vote->transfer) out += " (transfer)";
  } else if (const auto* answer = std::get_if<RequestVoteReply>(&message.body)) {
    out += answer->pre_vote ? "PreVoteReply" : "VoteReply";
    out += " term=" + ToString(answer->term) + (answer->granted ? " yes" : " no");
    if (answer->removed) out += ", you were removed";
  } else if (const auto* append = std::get_if<AppendEntries>(&message.body)) {
    out += "Append term=" + ToString(append->term) +
           " prev=" + at(append->prev_index, append->prev_term);
    if (!append->entries.empty()) out += " entries=" + PrintEntries(append->entries);
    out += " commit=" + ToString(append->commit);
    if (append->read_round > 0) out += " reads=#" + std::to_string(append->read_round);
  } else if (const auto* timeout_now = std::get_if<TimeoutNow>(&message.body)) {
    out += "TimeoutNow term=" + ToString(timeout_now->term);
  } else if (const auto* reply = std::get_if<AppendEntriesReply>(&message.body)) {
    out += "AppendReply term=" + ToString(reply->term);
    if (reply->success) {
      out += " match=" + ToString(reply->match);
    } else {
      out += " no: prev=" + ToString(reply->match) +
             " hint=" + at(reply->hint_index, reply->hint_term);
    }
    if (reply->read_round > 0) out += " reads=#" + std::to_string(reply->read_round);
  } else if (const auto* read = std::get_if<ReadIndex>(&message.body)) {
    out += "ReadIndex term=" + ToString(read->term) + " id=" + std::to_string(read->id) +
           (read->lease ? " lease" : "");
  } else if (const auto* index = std::get_if<ReadIndexReply>(&message.body)) {
    out += "ReadIndexReply term=" + ToString(index->term) + " id=" + std::to_string(index->id);
    out += index->outcome == ReadOutcome::kConfirmed ? " index=" + ToString(index->index)
                                                     : " no: " + PrintOutcome(index->outcome);
  } else if (const auto* snapshot = std::get_if<InstallSnapshot>(&message.body)) {
    out += snapshot->generation == 0 ? "SnapshotOffer" : "Snapshot";
    out += " term=" + ToString(snapshot->term) +
           " state=" + at(snapshot->snapshot.index, snapshot->snapshot.term);
  } else {
    const auto& answer = std::get<InstallSnapshotReply>(message.body);
    static const char* const kAnswers[] = {"?", "send it", "installed", "busy", "refused"};
    out += "SnapshotReply term=" + ToString(answer.term) +
           " state=" + at(answer.index, answer.index_term) + " " +
           kAnswers[static_cast<size_t>(answer.answer)];
  }
  return out;
}

}  // namespace quorate::raft::testing
