#include "services/cluster_view.h"

#include <algorithm>

#include "services/config_service.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

v1::NodeRole RoleOf(const ClusterView& view) {
  if (view.node == nullptr) return v1::NODE_ROLE_WAITING;
  switch (view.node->role) {
    case raft::Role::kFollower:
      return v1::NODE_ROLE_FOLLOWER;
    case raft::Role::kPreCandidate:
    case raft::Role::kCandidate:
      return v1::NODE_ROLE_CANDIDATE;
    case raft::Role::kLeader:
      return v1::NODE_ROLE_LEADER;
  }
  return v1::NODE_ROLE_UNSPECIFIED;
}

v1::BirthState BirthOf(raft::BirthState state) {
  switch (state) {
    case raft::BirthState::kSearching:
      return v1::BIRTH_STATE_SEARCHING;
    case raft::BirthState::kProposing:
    case raft::BirthState::kPledged:
      return v1::BIRTH_STATE_PLEDGED;
    case raft::BirthState::kWaitingToJoin:
      return v1::BIRTH_STATE_WAITING_TO_JOIN;
    case raft::BirthState::kBorn:
      return v1::BIRTH_STATE_BORN;
    case raft::BirthState::kComplete:
      return v1::BIRTH_STATE_COMPLETE;
    case raft::BirthState::kFoundersDiffer:
    case raft::BirthState::kFounderLost:
    case raft::BirthState::kHalted:
      return v1::BIRTH_STATE_STOPPED;
  }
  return v1::BIRTH_STATE_UNSPECIFIED;
}

void SetDuration(Duration duration, google::protobuf::Duration* out) {
  const int64_t us = std::max<int64_t>(duration.count(), 0);
  out->set_seconds(us / 1'000'000);
  out->set_nanos(static_cast<int32_t>(us % 1'000'000 * 1000));
}

std::string HashText(const storage::StateHash& hash) {
  uint64_t halves[2] = {0, 0};  // the number that the bytes are, its upper half first
  for (size_t i = hash.size(); i-- > 0;) {
    uint64_t& half = halves[i >= 8 ? 0 : 1];
    half = half << 8 | hash[i];
  }
  return ToHex(halves[0]) + ToHex(halves[1]);
}

void AddLinks(const ClusterView& view, StoreId from, v1::MemberStatus* out) {
  const auto known = view.links.find(from);
  if (known == view.links.end()) return;
  for (const Link& link : known->second) {
    const raft::Member* const to = view.node->membership->Find(link.to);
    if (to == nullptr) continue;
    v1::LinkStatus* const status = out->add_links();
    status->set_node_id(to->name);
    status->set_store_id(ToHex(to->store));
    status->set_reached(link.reached);
    if (link.reached) SetDuration(link.round_trip, status->mutable_round_trip());
  }
}

}  // namespace

v1::ResponseHeader HeaderOf(const ClusterView& view) {
  v1::ResponseHeader header = MakeResponseHeader(
      view.node_id, view.cluster, view.node != nullptr ? *view.node : raft::NodeStatus());
  if (view.state) header.set_revision(view.state->revision.value());
  return header;
}

v1::MemberStatus MakeMember(const ClusterView& view, const raft::Member& member) {
  const raft::NodeStatus& node = *view.node;
  v1::MemberStatus status;
  status.set_node_id(member.name);
  status.set_store_id(ToHex(member.store));
  status.set_voter(member.voter);
  status.set_demoted(member.demoted && member.learner());
  status.set_is_leader(member.store == node.leader);
  const auto heard = view.addresses.find(member.store);
  const bool self = member.store == view.store;
  status.set_address(self                            ? view.own_address
                     : heard != view.addresses.end() ? heard->second
                                                     : member.address);
  if (self) {
    status.set_active(true);
    status.set_match_index(node.persisted.value());
    SetDuration(Duration::zero(), status.mutable_last_contact());
    return status;
  }
  for (const raft::PeerView& peer : node.peers) {
    if (peer.store != member.store) continue;
    status.set_active(peer.active);
    status.set_match_index(peer.match.value());
    if (peer.last_contact) {
      SetDuration(view.now - *peer.last_contact, status.mutable_last_contact());
    }
  }
  return status;
}

v1::StatusResponse MakeStatus(const ClusterView& view) {
  v1::StatusResponse status;
  *status.mutable_header() = HeaderOf(view);
  status.set_store_id(ToHex(view.store));
  status.set_role(RoleOf(view));
  status.set_boot(view.boot);
  status.set_birth(BirthOf(view.birth.state));
  for (const std::string& lack : view.birth.lacks) status.add_lacks(lack);
  status.set_version(view.version);
  status.set_healthy(view.healthy);
  status.set_draining(view.draining);
  for (const std::string& warning : view.warnings) status.add_warnings(warning);
  status.set_log_bytes(view.log_bytes);
  status.set_database_bytes(view.database_bytes);
  if (view.node != nullptr) {
    const raft::NodeStatus& node = *view.node;
    status.set_commit_index(node.commit.value());
    status.set_log_first_index(node.first_index.value());
    status.set_log_last_index(node.last_index.value());
    status.set_snapshot_index(view.snapshot_index.value());
    status.set_snapshot_generation(view.generation);
    if (node.membership != nullptr) {
      for (const raft::Member& member : node.membership->members) {
        *status.add_members() = MakeMember(view, member);
      }
    }
  }
  if (view.state) {
    // Index and hash are of one instant: equal index means equal hash.
    status.set_applied_index(view.state->applied.value());
    status.set_state_hash(HashText(view.state->hash));
    status.set_compacted_revision(view.state->compacted.value());
  }
  return status;
}

v1::ListMembersResponse MakeMembers(const ClusterView& view, bool links) {
  v1::ListMembersResponse response;
  *response.mutable_header() = HeaderOf(view);
  if (view.node == nullptr || view.node->membership == nullptr) return response;
  uint32_t voters = 0;
  for (const raft::Member& member : view.node->membership->members) {
    v1::MemberStatus* const status = response.add_members();
    *status = MakeMember(view, member);
    if (links) AddLinks(view, member.store, status);
    voters += member.voter ? 1 : 0;
  }
  for (const std::string& warning : view.warnings) response.add_warnings(warning);
  response.set_failures_tolerated(voters == 0 ? 0 : (voters - 1) / 2);
  return response;
}

grpc::Status CheckSettingsKnown(const ClusterView& view) {
  constexpr Duration kRetryDelay = std::chrono::milliseconds(250);
  if (!view.state) {
    return MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_BORN",
                     "this node is not part of a cluster yet; its status says what it lacks", {},
                     kRetryDelay);
  }
  if (!view.caught_up) {
    return MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP",
                     "this node has not caught up with the cluster since its data directory was "
                     "made, so it does not know what is set; ask another node or try again",
                     {}, kRetryDelay);
  }
  return grpc::Status::OK;
}

v1::GetSettingsResponse MakeSettings(const ClusterView& view) {
  v1::GetSettingsResponse response;
  *response.mutable_header() = HeaderOf(view);
  response.mutable_settings()->set_leases(view.state->leases);
  return response;
}

}  // namespace quorate::services
