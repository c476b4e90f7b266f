#include "services/peer_codec.h"

#include <memory>
#include <utility>

#include "services/errors.h"

namespace quorate::services {
namespace {

int64_t ToMicroseconds(Instant instant) { return instant.time_since_epoch().count(); }
Instant ToInstant(int64_t us) { return Instant(Duration(us)); }

bool IsKnownType(uint32_t type) {
  switch (static_cast<raft::EntryType>(type)) {
    case raft::EntryType::kNoop:
    case raft::EntryType::kCommand:
    case raft::EntryType::kMembership:
    case raft::EntryType::kBirthComplete:
      return type <= 0xff;
  }
  return false;
}

}  // namespace

v1::PeerHeader MakeHeader(ClusterId cluster, StoreId from, StoreId to) {
  v1::PeerHeader header;
  header.set_cluster_id(cluster.value());
  header.set_from_store(from.value());
  header.set_to_store(to.value());
  return header;
}

grpc::Status CheckHeader(const v1::PeerHeader& header, const PeerSelf& self) {
  if (ClusterId(header.cluster_id()) != self.cluster) {
    const std::string actual = ToHex(header.cluster_id());
    const std::string expected = ToHex(self.cluster);
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "WRONG_CLUSTER",
                     "this node belongs to cluster " + expected + ", the message to " + actual,
                     {{"expected", expected}, {"actual", actual}});
  }
  if (StoreId(header.to_store()) != self.store) {
    const std::string actual = ToHex(header.to_store());
    const std::string expected = ToHex(self.store);
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "WRONG_STORE",
                     "this is store " + expected + ", the message is for " + actual,
                     {{"expected", expected}, {"actual", actual}});
  }
  if (header.from_store() == 0 || StoreId(header.from_store()) == self.store) {
    return MakeError(grpc::StatusCode::FAILED_PRECONDITION, "WRONG_SENDER",
                     "the message names store " + ToHex(header.from_store()) + " as its sender");
  }
  return grpc::Status::OK;
}

void ToProto(const raft::RequestVote& message, v1::RequestVoteRequest* proto) {
  proto->set_term(message.term.value());
  proto->set_pre_vote(message.pre_vote);
  proto->set_last_index(message.last_index.value());
  proto->set_last_term(message.last_term.value());
  proto->set_transfer(message.transfer);
}

void ToProto(const raft::RequestVoteReply& message, v1::RequestVoteResponse* proto) {
  proto->set_term(message.term.value());
  proto->set_pre_vote(message.pre_vote);
  proto->set_granted(message.granted);
  proto->set_removed(message.removed);
}

void ToProto(const raft::AppendEntries& message, v1::AppendEntriesRequest* proto) {
  proto->set_term(message.term.value());
  proto->set_prev_index(message.prev_index.value());
  proto->set_prev_term(message.prev_term.value());
  proto->mutable_entries()->Reserve(static_cast<int>(message.entries.size()));
  for (const raft::EntryPtr& entry : message.entries) {
    v1::LogEntry* out = proto->add_entries();
    out->set_index(entry->index.value());
    out->set_term(entry->term.value());
    out->set_type(static_cast<uint32_t>(entry->type));
    out->set_log_time_ms(entry->log_time_ms);
    out->set_wall_time_ms(entry->wall_time_ms);
    out->set_payload(entry->payload);
  }
  proto->set_commit(message.commit.value());
  proto->set_sent_at_us(ToMicroseconds(message.sent_at));
  proto->set_echoed_receiver_clock_us(ToMicroseconds(message.echoed_receiver_clock));
  proto->set_majority_age_us(message.majority_age.count());
  proto->set_read_round(message.read_round);
}

void ToProto(const raft::AppendEntriesReply& message, v1::AppendEntriesResponse* proto) {
  proto->set_term(message.term.value());
  proto->set_success(message.success);
  proto->set_match(message.match.value());
  proto->set_hint_index(message.hint_index.value());
  proto->set_hint_term(message.hint_term.value());
  proto->set_last_index(message.last_index.value());
  proto->set_promise_us(message.election_timeout_min.count());
  proto->set_echoed_sent_at_us(ToMicroseconds(message.echoed_sent_at));
  proto->set_receiver_clock_us(ToMicroseconds(message.receiver_clock));
  proto->set_read_round(message.read_round);
}

void ToProto(const raft::ReadIndex& message, v1::ReadIndexRequest* proto) {
  proto->set_term(message.term.value());
  proto->set_id(message.id);
  proto->set_lease(message.lease);
}

void ToProto(const raft::ReadIndexReply& message, v1::ReadIndexResponse* proto) {
  proto->set_term(message.term.value());
  proto->set_id(message.id);
  proto->set_outcome(static_cast<uint32_t>(message.outcome));
  proto->set_index(message.index.value());
}

raft::ReadIndex FromProto(const v1::ReadIndexRequest& proto) {
  raft::ReadIndex message;
  message.term = raft::Term(proto.term());
  message.id = proto.id();
  message.lease = proto.lease();
  return message;
}

raft::ReadIndexReply FromProto(const v1::ReadIndexResponse& proto) {
  raft::ReadIndexReply message;
  message.term = raft::Term(proto.term());
  message.id = proto.id();
  const auto known = static_cast<uint32_t>(raft::ReadOutcome::kTooMany);
  if (proto.outcome() >= 1 && proto.outcome() <= known) {
    message.outcome = static_cast<raft::ReadOutcome>(proto.outcome());
  }
  message.index = raft::Index(proto.index());
  return message;
}

raft::RequestVote FromProto(const v1::RequestVoteRequest& proto) {
  raft::RequestVote message;
  message.term = raft::Term(proto.term());
  message.pre_vote = proto.pre_vote();
  message.last_index = raft::Index(proto.last_index());
  message.last_term = raft::Term(proto.last_term());
  message.transfer = proto.transfer();
  return message;
}

raft::RequestVoteReply FromProto(const v1::RequestVoteResponse& proto) {
  raft::RequestVoteReply message;
  message.term = raft::Term(proto.term());
  message.pre_vote = proto.pre_vote();
  message.granted = proto.granted();
  message.removed = proto.removed();
  return message;
}

std::optional<raft::AppendEntries> FromProto(v1::AppendEntriesRequest&& proto) {
  raft::AppendEntries message;
  message.term = raft::Term(proto.term());
  message.prev_index = raft::Index(proto.prev_index());
  message.prev_term = raft::Term(proto.prev_term());
  message.commit = raft::Index(proto.commit());
  message.sent_at = ToInstant(proto.sent_at_us());
  message.echoed_receiver_clock = ToInstant(proto.echoed_receiver_clock_us());
  message.majority_age = Duration(proto.majority_age_us());
  message.read_round = proto.read_round();
  message.entries.reserve(static_cast<size_t>(proto.entries_size()));
  raft::Index last = message.prev_index;
  raft::Term term = message.prev_term;
  for (v1::LogEntry& from : *proto.mutable_entries()) {
    const raft::Index index(from.index());
    const raft::Term entry_term(from.term());
    if (last.value() == UINT64_MAX || index != last + 1 || entry_term < term ||
        entry_term > message.term || !entry_term || !IsKnownType(from.type())) {
      return std::nullopt;
    }
    last = index;
    term = entry_term;
    auto entry = std::make_shared<raft::Entry>();
    entry->index = index;
    entry->term = entry_term;
    entry->type = static_cast<raft::EntryType>(from.type());
    entry->log_time_ms = from.log_time_ms();
    entry->wall_time_ms = from.wall_time_ms();
    entry->payload = std::move(*from.mutable_payload());
    message.entries.push_back(std::move(entry));
  }
  return message;
}

raft::AppendEntriesReply FromProto(const v1::AppendEntriesResponse& proto) {
  raft::AppendEntriesReply message;
  message.term = raft::Term(proto.term());
  message.success = proto.success();
  message.match = raft::Index(proto.match());
  message.hint_index = raft::Index(proto.hint_index());
  message.hint_term = raft::Term(proto.hint_term());
  message.last_index = raft::Index(proto.last_index());
  message.election_timeout_min = Duration(proto.promise_us());
  message.echoed_sent_at = ToInstant(proto.echoed_sent_at_us());
  message.receiver_clock = ToInstant(proto.receiver_clock_us());
  message.read_round = proto.read_round();
  return message;
}

void ToProto(const raft::InstallSnapshot& message, v1::SnapshotBegin* proto) {
  const raft::SnapshotMeta& snapshot = message.snapshot;
  proto->set_term(message.term.value());
  proto->set_index(snapshot.index.value());
  proto->set_index_term(snapshot.term.value());
  proto->set_log_time_ms(snapshot.log_time_ms);
  proto->set_membership_index(snapshot.membership_index.value());
  proto->set_membership(raft::EncodeMembership(snapshot.membership));
}

void ToProto(const raft::InstallSnapshotReply& message, v1::InstallSnapshotResponse* proto) {
  proto->set_term(message.term.value());
  proto->set_index(message.index.value());
  proto->set_index_term(message.index_term.value());
  proto->set_answer(static_cast<uint32_t>(message.answer));
}

std::optional<raft::InstallSnapshot> FromProto(const v1::SnapshotBegin& proto) {
  constexpr uint64_t kMax = uint64_t{1} << 62;  // beyond is not of this world
  auto membership = raft::DecodeMembership(proto.membership());
  if (proto.term() == 0 || proto.term() >= kMax || proto.index() == 0 || proto.index() >= kMax ||
      proto.index_term() == 0 || proto.index_term() > proto.term() ||
      proto.membership_index() == 0 || proto.membership_index() > proto.index() || !membership ||
      membership->members.empty()) {
    return std::nullopt;
  }
  raft::InstallSnapshot message;
  message.term = raft::Term(proto.term());
  message.snapshot.index = raft::Index(proto.index());
  message.snapshot.term = raft::Term(proto.index_term());
  message.snapshot.log_time_ms = proto.log_time_ms();
  message.snapshot.membership_index = raft::Index(proto.membership_index());
  message.snapshot.membership = *std::move(membership);
  return message;
}

std::optional<raft::InstallSnapshotReply> FromProto(const v1::InstallSnapshotResponse& proto) {
  const auto answer = static_cast<raft::SnapshotAnswer>(proto.answer());
  switch (answer) {
    case raft::SnapshotAnswer::kInstalled:
    case raft::SnapshotAnswer::kBusy:
    case raft::SnapshotAnswer::kRefused:
      break;
    default:
      return std::nullopt;
  }
  if (proto.answer() > 0xff) return std::nullopt;
  return raft::InstallSnapshotReply{raft::Term(proto.term()), raft::Index(proto.index()),
                                    raft::Term(proto.index_term()), answer, 0};
}

}  // namespace quorate::services
