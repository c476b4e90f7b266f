#include "services/node_log.h"

#include <algorithm>
#include <string>

#include "services/logging.h"

namespace quorate::services {
namespace {

const char* Name(raft::Role role) {
  switch (role) {
    case raft::Role::kFollower:
      return "follower";
    case raft::Role::kPreCandidate:
      return "pre-candidate";
    case raft::Role::kCandidate:
      return "candidate";
    case raft::Role::kLeader:
      return "leader";
  }
  return "unknown";
}

}  // namespace

void NodeLog::Observe(const raft::NodeStatus& status) {
  const LogField term("term", status.term);
  if (seen_ && status.term != term_) metrics_->RecordTermChange();
  if (!seen_ || status.term != term_) LogInfo("term changed", {term, {"previous", term_}});
  if (!seen_ || status.role != role_) {
    LogInfo(std::string("became ") + Name(status.role),
            {term, {"commit", status.commit}, {"applied", status.applied}});
  }
  if (status.leader != leader_) {
    metrics_->RecordLeaderChange();
    if (!status.leader) {
      LogWarning("lost the leader", {term});
    } else if (status.leader != status.self) {
      const raft::Member* member =
          status.membership != nullptr ? status.membership->Find(status.leader) : nullptr;
      LogInfo("follows a leader", {term,
                                   {"leader", member != nullptr ? member->name : std::string()},
                                   {"leader_store", status.leader}});
    }
  }
  if (status.leader_ready && !leader_ready_) LogInfo("takes writes", {term});
  if (status.birth_complete && !birth_complete_) LogInfo("birth is complete", {term});
  if (status.removed && !removed_) {
    LogWarning("removed: the cluster's members no longer include this store", {term});
  }
  ObserveMembers(status);
  ObservePeers(status);
  removed_ = status.removed;
  seen_ = true;
  role_ = status.role;
  term_ = status.term;
  leader_ = status.leader;
  leader_ready_ = status.leader_ready;
  birth_complete_ = status.birth_complete;
}

void NodeLog::ObserveMembers(const raft::NodeStatus& status) {
  if (status.membership == nullptr || status.membership_index == membership_index_) return;
  membership_index_ = status.membership_index;
  const raft::Member* self = status.membership->Find(status.self);
  LogInfo("members in force", {{"index", status.membership_index},
                               {"members", status.membership->members.size()},
                               {"voters", status.membership->Voters().size()},
                               {"joint", status.membership->joint ? "yes" : "no"},
                               {"this_node", self == nullptr   ? "out"
                                             : self->learner() ? "learns"
                                                               : "votes"}});
}

void NodeLog::ObservePeers(const raft::NodeStatus& status) {
  for (const raft::PeerView& peer : status.peers) {
    const auto before = std::find_if(peers_.begin(), peers_.end(), [&](const raft::PeerView& view) {
      return view.store == peer.store;
    });
    const bool lost_data = before != peers_.end() && before->lost_data;
    const bool needs_snapshot = before != peers_.end() && before->needs_snapshot;
    const raft::Member* member =
        status.membership != nullptr ? status.membership->Find(peer.store) : nullptr;
    const LogField name("peer", member != nullptr ? member->name : std::string());
    const LogField store("peer_store", peer.store);
    if (peer.lost_data && !lost_data) {
      LogError(
          "a peer has lost entries that it had acknowledged: it does not count towards commits in "
          "this term. Check its disk, and whether an old copy was put back",
          {name, store, {"last", peer.last_index}, {"term", status.term}});
    }
    if (peer.needs_snapshot && !needs_snapshot) {
      LogInfo("a peer lacks entries that this log no longer holds: it is sent the whole state",
              {name, store, {"match", peer.match}, {"log_first", status.first_index}});
    }
  }
  peers_ = status.peers;
}

}  // namespace quorate::services
