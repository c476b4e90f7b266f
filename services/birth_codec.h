// Between the wire (Identify, Found) and birth's own structs (raft/birth_messages.h). Nothing is
// checked here but what could not be represented: raft::Birth checks what it is given.
//
// Pure functions; any thread.
#pragma once

#include <optional>

#include "quorate/v1/raft.pb.h"
#include "raft/birth_messages.h"
#include "services/links.h"

namespace quorate::services {

void ToProto(const raft::IdentifyRequest& request, v1::IdentifyRequest* proto);
raft::IdentifyRequest FromProto(const v1::IdentifyRequest& proto);
void ToProto(const raft::IdentifyReply& reply, v1::IdentifyResponse* proto);
// nullopt: a state that this build does not know.
std::optional<raft::IdentifyReply> FromProto(const v1::IdentifyResponse& proto);

void ToProto(const std::vector<Link>& links,
             google::protobuf::RepeatedPtrField<v1::PeerLink>* proto);
std::vector<Link> FromProto(const google::protobuf::RepeatedPtrField<v1::PeerLink>& proto);

void ToProto(const raft::Propose& request, StoreId from, v1::FoundRequest* proto);
void ToProto(const raft::Born& request, StoreId from, v1::FoundRequest* proto);
// REQUIRES: the step is set.
raft::Propose ProposeFromProto(const v1::FoundRequest& proto);
raft::Born BornFromProto(const v1::FoundRequest& proto);

void ToProto(const raft::PledgeReply& reply, v1::FoundResponse* proto);
void ToProto(const raft::BornReply& reply, v1::FoundResponse* proto);
// nullopt: a refusal that this build does not know.
std::optional<raft::PledgeReply> PledgeReplyFromProto(const v1::FoundResponse& proto);
std::optional<raft::BornReply> BornReplyFromProto(const v1::FoundResponse& proto);

}  // namespace quorate::services
