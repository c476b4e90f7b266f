// Between the wire (quorate/v1/raft.proto) and the core's own structs. What comes from the wire is
// checked here, so that the core may CHECK what it is given.
//
// Pure functions; any thread.
#pragma once

#include <optional>
#include <string>

#include "base/ids.h"
#include "grpcpp/support/status.h"
#include "quorate/v1/raft.pb.h"
#include "raft/core/message.h"

namespace quorate::services {

v1::PeerHeader MakeHeader(ClusterId cluster, StoreId from, StoreId to);

// Who a receiver is.
struct PeerSelf {
  ClusterId cluster;
  StoreId store;
};
// OK, or FAILED_PRECONDITION: WRONG_CLUSTER (metadata expected, actual), WRONG_STORE when the
// header means another store, and WRONG_SENDER when it names none or the receiver itself.
grpc::Status CheckHeader(const v1::PeerHeader& header, const PeerSelf& self);

// Bodies without their headers. The payload bytes are copied once, each way.
void ToProto(const raft::RequestVote& message, v1::RequestVoteRequest* proto);
void ToProto(const raft::RequestVoteReply& message, v1::RequestVoteResponse* proto);
void ToProto(const raft::AppendEntries& message, v1::AppendEntriesRequest* proto);
void ToProto(const raft::AppendEntriesReply& message, v1::AppendEntriesResponse* proto);

void ToProto(const raft::ReadIndex& message, v1::ReadIndexRequest* proto);
void ToProto(const raft::ReadIndexReply& message, v1::ReadIndexResponse* proto);

raft::ReadIndex FromProto(const v1::ReadIndexRequest& proto);
// An outcome that this build does not know is kLeaderLost: whoever asked asks again.
raft::ReadIndexReply FromProto(const v1::ReadIndexResponse& proto);
raft::RequestVote FromProto(const v1::RequestVoteRequest& proto);
raft::RequestVoteReply FromProto(const v1::RequestVoteResponse& proto);
// nullopt: entries that are not consecutive from prev_index + 1, go back in term, are of a term
// above the message's, or have a type that this build does not know.
std::optional<raft::AppendEntries> FromProto(v1::AppendEntriesRequest&& proto);
raft::AppendEntriesReply FromProto(const v1::AppendEntriesResponse& proto);

// Snapshots. nullopt: an index, term or membership that no leader sends; an answer that is none.
void ToProto(const raft::InstallSnapshot& message, v1::SnapshotBegin* proto);
void ToProto(const raft::InstallSnapshotReply& message, v1::InstallSnapshotResponse* proto);
std::optional<raft::InstallSnapshot> FromProto(const v1::SnapshotBegin& proto);
std::optional<raft::InstallSnapshotReply> FromProto(const v1::InstallSnapshotResponse& proto);

}  // namespace quorate::services
