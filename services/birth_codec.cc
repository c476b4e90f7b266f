#include "services/birth_codec.h"

#include <algorithm>
#include <limits>

namespace quorate::services {
namespace {

void PledgeToProto(const raft::Pledge& pledge, v1::BirthPledge* proto) {
  proto->set_proposer_store(pledge.proposer.value());
  proto->set_round(pledge.round);
}

raft::Pledge PledgeFromProto(const v1::BirthPledge& proto) {
  return {.round = proto.round(), .proposer = StoreId(proto.proposer_store())};
}

std::optional<raft::BirthState> StateFromProto(uint32_t state) {
  if (state < static_cast<uint32_t>(raft::BirthState::kSearching) ||
      state > static_cast<uint32_t>(raft::BirthState::kHalted)) {
    return std::nullopt;
  }
  return static_cast<raft::BirthState>(state);
}

std::optional<raft::Refusal> RefusalFromProto(uint32_t refusal) {
  if (refusal > static_cast<uint32_t>(raft::Refusal::kHalted)) return std::nullopt;
  return static_cast<raft::Refusal>(refusal);
}

}  // namespace

void ToProto(const raft::IdentifyRequest& request, v1::IdentifyRequest* proto) {
  proto->mutable_header()->set_from_store(request.store.value());
  proto->set_nonce(request.nonce);
  proto->set_boot(request.boot);
  proto->set_name(request.name);
  proto->set_address(request.address);
}

raft::IdentifyRequest FromProto(const v1::IdentifyRequest& proto) {
  raft::IdentifyRequest request;
  request.store = StoreId(proto.header().from_store());
  request.nonce = proto.nonce();
  request.boot = proto.boot();
  request.name = proto.name();
  request.address = proto.address();
  return request;
}

void ToProto(const raft::IdentifyReply& reply, v1::IdentifyResponse* proto) {
  proto->mutable_header()->set_cluster_id(reply.cluster.value());
  proto->mutable_header()->set_from_store(reply.store.value());
  proto->set_nonce(reply.nonce);
  proto->set_boot(reply.boot);
  proto->set_name(reply.name);
  proto->set_address(reply.address);
  proto->set_state(static_cast<uint32_t>(reply.state));
  PledgeToProto(reply.pledge, proto->mutable_pledge());
  proto->mutable_founders()->Add(reply.founders.begin(), reply.founders.end());
  proto->set_membership(reply.membership);
  proto->set_waits_for(reply.waits_for.value());
  proto->set_never_caught_up(reply.never_caught_up);
  proto->set_finds_two_clusters(reply.finds_two_clusters);
  proto->mutable_asker_also_at()->Add(reply.asker_also_at.begin(), reply.asker_also_at.end());
}

std::optional<raft::IdentifyReply> FromProto(const v1::IdentifyResponse& proto) {
  const auto state = StateFromProto(proto.state());
  if (!state) return std::nullopt;
  raft::IdentifyReply reply;
  reply.cluster = ClusterId(proto.header().cluster_id());
  reply.store = StoreId(proto.header().from_store());
  reply.nonce = proto.nonce();
  reply.boot = proto.boot();
  reply.name = proto.name();
  reply.address = proto.address();
  reply.state = *state;
  reply.pledge = PledgeFromProto(proto.pledge());
  reply.founders.assign(proto.founders().begin(), proto.founders().end());
  reply.membership = proto.membership();
  reply.waits_for = ClusterId(proto.waits_for());
  reply.never_caught_up = proto.never_caught_up();
  reply.finds_two_clusters = proto.finds_two_clusters();
  reply.asker_also_at.assign(proto.asker_also_at().begin(), proto.asker_also_at().end());
  return reply;
}

void ToProto(const std::vector<Link>& links,
             google::protobuf::RepeatedPtrField<v1::PeerLink>* proto) {
  for (const Link& link : links) {
    v1::PeerLink* const out = proto->Add();
    out->set_store_id(link.to.value());
    out->set_reached(link.reached);
    out->set_round_trip_us(static_cast<uint32_t>(
        std::clamp<int64_t>(link.round_trip.count(), 0, std::numeric_limits<uint32_t>::max())));
  }
}

std::vector<Link> FromProto(const google::protobuf::RepeatedPtrField<v1::PeerLink>& proto) {
  std::vector<Link> links;
  for (const v1::PeerLink& link : proto) {
    links.push_back({StoreId(link.store_id()), link.reached(), Duration(link.round_trip_us())});
  }
  return links;
}

void ToProto(const raft::Propose& request, StoreId from, v1::FoundRequest* proto) {
  proto->mutable_header()->set_from_store(from.value());
  proto->mutable_header()->set_to_store(request.to.value());
  v1::FoundRequest::Propose* propose = proto->mutable_propose();
  PledgeToProto(request.expected, propose->mutable_expected());
  v1::BirthProposal* proposal = propose->mutable_proposal();
  proposal->set_proposer_store(request.proposal.proposer.value());
  proposal->set_round(request.proposal.round);
  proposal->set_cluster_id(request.proposal.cluster.value());
  for (const raft::Founder& founder : request.proposal.founders) {
    v1::Founder* out = proposal->add_founders();
    out->set_name(founder.name);
    out->set_store_id(founder.store.value());
    out->set_address(founder.address);
  }
}

raft::Propose ProposeFromProto(const v1::FoundRequest& proto) {
  raft::Propose request;
  request.to = StoreId(proto.header().to_store());
  request.expected = PledgeFromProto(proto.propose().expected());
  const v1::BirthProposal& proposal = proto.propose().proposal();
  request.proposal.proposer = StoreId(proposal.proposer_store());
  request.proposal.round = proposal.round();
  request.proposal.cluster = ClusterId(proposal.cluster_id());
  for (const v1::Founder& founder : proposal.founders()) {
    request.proposal.founders.push_back(
        {founder.name(), StoreId(founder.store_id()), founder.address()});
  }
  return request;
}

void ToProto(const raft::Born& request, StoreId from, v1::FoundRequest* proto) {
  proto->mutable_header()->set_from_store(from.value());
  proto->mutable_header()->set_to_store(request.to.value());
  v1::FoundRequest::Born* born = proto->mutable_born();
  PledgeToProto(request.pledge, born->mutable_pledge());
  born->set_cluster_id(request.cluster.value());
  born->set_payload(request.payload);
}

raft::Born BornFromProto(const v1::FoundRequest& proto) {
  raft::Born request;
  request.to = StoreId(proto.header().to_store());
  request.pledge = PledgeFromProto(proto.born().pledge());
  request.cluster = ClusterId(proto.born().cluster_id());
  request.payload = proto.born().payload();
  return request;
}

void ToProto(const raft::PledgeReply& reply, v1::FoundResponse* proto) {
  proto->mutable_header()->set_from_store(reply.store.value());
  proto->mutable_header()->set_cluster_id(reply.cluster.value());
  proto->set_refusal(static_cast<uint32_t>(reply.refusal));
  PledgeToProto(reply.pledge, proto->mutable_pledge());
  proto->mutable_founders()->Add(reply.founders.begin(), reply.founders.end());
}

std::optional<raft::PledgeReply> PledgeReplyFromProto(const v1::FoundResponse& proto) {
  const auto refusal = RefusalFromProto(proto.refusal());
  if (!refusal) return std::nullopt;
  raft::PledgeReply reply;
  reply.store = StoreId(proto.header().from_store());
  reply.refusal = *refusal;
  reply.pledge = PledgeFromProto(proto.pledge());
  reply.cluster = ClusterId(proto.header().cluster_id());
  reply.founders.assign(proto.founders().begin(), proto.founders().end());
  return reply;
}

void ToProto(const raft::BornReply& reply, v1::FoundResponse* proto) {
  proto->mutable_header()->set_from_store(reply.store.value());
  proto->mutable_header()->set_cluster_id(reply.cluster.value());
  proto->set_refusal(static_cast<uint32_t>(reply.refusal));
  PledgeToProto(reply.pledge, proto->mutable_pledge());
}

std::optional<raft::BornReply> BornReplyFromProto(const v1::FoundResponse& proto) {
  const auto refusal = RefusalFromProto(proto.refusal());
  if (!refusal) return std::nullopt;
  raft::BornReply reply;
  reply.store = StoreId(proto.header().from_store());
  reply.refusal = *refusal;
  reply.cluster = ClusterId(proto.header().cluster_id());
  reply.pledge = PledgeFromProto(proto.pledge());
  return reply;
}

}  // namespace quorate::services
