#include "services/peer_codec.h"

#include "gtest/gtest.h"
#include "services/birth_codec.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

using raft::Index;
using raft::Term;
using std::chrono::microseconds;

// Through the wire and back.
template <typename Proto>
Proto Wire(const Proto& proto) {
  Proto copy;
  EXPECT_TRUE(copy.ParseFromString(proto.SerializeAsString()));
  return copy;
}

raft::EntryPtr MakeEntry(uint64_t index, uint64_t term, raft::EntryType type,
                         const std::string& payload) {
  auto entry = std::make_shared<raft::Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->type = type;
  entry->log_time_ms = 1000 + index;
  entry->wall_time_ms = -5;
  entry->payload = payload;
  return entry;
}

raft::AppendEntries MakeAppend() {
  raft::AppendEntries append;
  append.term = Term(7);
  append.prev_index = Index(10);
  append.prev_term = Term(3);
  append.entries = {MakeEntry(11, 3, raft::EntryType::kCommand, std::string("a\0b", 3)),
                    MakeEntry(12, 7, raft::EntryType::kNoop, ""),
                    MakeEntry(13, 7, raft::EntryType::kMembership, "m"),
                    MakeEntry(14, 7, raft::EntryType::kBirthComplete, "")};
  append.commit = Index(9);
  append.sent_at = Instant(microseconds(123456789));
  append.echoed_receiver_clock = Instant(microseconds(42));
  append.majority_age = microseconds(77);
  append.read_round = 6;
  return append;
}

v1::AppendEntriesRequest Encoded(const raft::AppendEntries& append) {
  v1::AppendEntriesRequest proto;
  ToProto(append, &proto);
  return proto;
}

TEST(PeerCodecTest, AppendEntriesRoundTrip) {
  const raft::AppendEntries append = MakeAppend();
  const auto back = FromProto(Wire(Encoded(append)));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->term, append.term);
  EXPECT_EQ(back->prev_index, append.prev_index);
  EXPECT_EQ(back->prev_term, append.prev_term);
  EXPECT_EQ(back->commit, append.commit);
  EXPECT_EQ(back->sent_at, append.sent_at);
  EXPECT_EQ(back->echoed_receiver_clock, append.echoed_receiver_clock);
  EXPECT_EQ(back->majority_age, append.majority_age);
  EXPECT_EQ(back->read_round, append.read_round);
  ASSERT_EQ(back->entries.size(), append.entries.size());
  for (size_t i = 0; i < append.entries.size(); ++i) {
    EXPECT_EQ(*back->entries[i], *append.entries[i]);
  }
}

TEST(PeerCodecTest, AppendEntriesReplyRoundTrip) {
  raft::AppendEntriesReply reply;
  reply.term = Term(7);
  reply.success = true;
  reply.match = Index(13);
  reply.hint_index = Index(5);
  reply.hint_term = Term(2);
  reply.last_index = Index(20);
  reply.election_timeout_min = std::chrono::milliseconds(150);
  reply.echoed_sent_at = Instant(microseconds(1));
  reply.receiver_clock = Instant(microseconds(2));
  reply.read_round = 6;
  v1::AppendEntriesResponse proto;
  ToProto(reply, &proto);
  const raft::AppendEntriesReply back = FromProto(Wire(proto));
  EXPECT_EQ(back.term, reply.term);
  EXPECT_EQ(back.success, reply.success);
  EXPECT_EQ(back.match, reply.match);
  EXPECT_EQ(back.hint_index, reply.hint_index);
  EXPECT_EQ(back.hint_term, reply.hint_term);
  EXPECT_EQ(back.last_index, reply.last_index);
  EXPECT_EQ(back.election_timeout_min, reply.election_timeout_min);
  EXPECT_EQ(back.echoed_sent_at, reply.echoed_sent_at);
  EXPECT_EQ(back.receiver_clock, reply.receiver_clock);
  EXPECT_EQ(back.read_round, reply.read_round);
}

TEST(PeerCodecTest, ReadIndexesRoundTrip) {
  raft::ReadIndex ask;
  ask.term = Term(4);
  ask.id = 99;
  ask.lease = true;
  v1::ReadIndexRequest request;
  ToProto(ask, &request);
  const raft::ReadIndex asked = FromProto(Wire(request));
  EXPECT_EQ(asked.term, ask.term);
  EXPECT_EQ(asked.id, ask.id);
  EXPECT_EQ(asked.lease, ask.lease);
  for (raft::ReadOutcome outcome :
       {raft::ReadOutcome::kConfirmed, raft::ReadOutcome::kNoLeader, raft::ReadOutcome::kLeaderLost,
        raft::ReadOutcome::kTimedOut, raft::ReadOutcome::kTooMany}) {
    v1::ReadIndexResponse response;
    ToProto(raft::ReadIndexReply{Term(4), 99, outcome, Index(7), 0}, &response);
    const raft::ReadIndexReply answer = FromProto(Wire(response));
    EXPECT_EQ(answer.term, Term(4));
    EXPECT_EQ(answer.id, 99u);
    EXPECT_EQ(answer.outcome, outcome);
    EXPECT_EQ(answer.index, Index(7));
  }
}

TEST(PeerCodecTest, AnOutcomeOfAnotherBuildConfirmsNothing) {
  for (uint32_t outcome : {0u, 6u, 257u}) {
    v1::ReadIndexResponse response;
    response.set_outcome(outcome);
    EXPECT_EQ(FromProto(response).outcome, raft::ReadOutcome::kLeaderLost) << outcome;
  }
}

TEST(PeerCodecTest, VotesRoundTrip) {
  raft::RequestVote vote{Term(9), true, Index(4), Term(3), 77};
  v1::RequestVoteRequest request;
  ToProto(vote, &request);
  const raft::RequestVote vote_back = FromProto(Wire(request));
  EXPECT_EQ(vote_back.term, vote.term);
  EXPECT_EQ(vote_back.pre_vote, vote.pre_vote);
  EXPECT_EQ(vote_back.last_index, vote.last_index);
  EXPECT_EQ(vote_back.last_term, vote.last_term);
  EXPECT_EQ(vote_back.call_id, 0u) << "a call's number is its transport's";
  EXPECT_FALSE(vote_back.transfer);
  vote.pre_vote = false;
  vote.transfer = true;
  ToProto(vote, &request);
  EXPECT_TRUE(FromProto(Wire(request)).transfer);

  raft::RequestVoteReply reply{Term(9), true, true, 77};
  v1::RequestVoteResponse response;
  ToProto(reply, &response);
  const raft::RequestVoteReply reply_back = FromProto(Wire(response));
  EXPECT_EQ(reply_back.term, reply.term);
  EXPECT_TRUE(reply_back.pre_vote);
  EXPECT_TRUE(reply_back.granted);
  EXPECT_FALSE(reply_back.removed);
  reply.granted = false;
  reply.removed = true;
  ToProto(reply, &response);
  EXPECT_TRUE(FromProto(Wire(response)).removed);
}

TEST(PeerCodecTest, IdentifyRoundTrip) {
  const raft::IdentifyRequest request{StoreId(5), 6, 7, "node-1", "host:7000"};
  v1::IdentifyRequest proto;
  ToProto(request, &proto);
  const raft::IdentifyRequest back = FromProto(Wire(proto));
  EXPECT_EQ(back.store, request.store);
  EXPECT_EQ(back.nonce, request.nonce);
  EXPECT_EQ(back.boot, request.boot);
  EXPECT_EQ(back.name, request.name);
  EXPECT_EQ(back.address, request.address);

  raft::IdentifyReply reply;
  reply.cluster = ClusterId(1);
  reply.store = StoreId(2);
  reply.nonce = 3;
  reply.boot = 4;
  reply.name = "n";
  reply.address = "a:1";
  reply.state = raft::BirthState::kPledged;
  reply.pledge = {8, StoreId(9)};
  reply.founders = {"a", "b"};
  reply.membership = std::string("\0\x01", 2);
  reply.asker_also_at = {"x:1", "y:2"};
  v1::IdentifyResponse response;
  ToProto(reply, &response);
  const auto reply_back = FromProto(Wire(response));
  ASSERT_TRUE(reply_back.has_value());
  EXPECT_EQ(reply_back->cluster, reply.cluster);
  EXPECT_EQ(reply_back->store, reply.store);
  EXPECT_EQ(reply_back->nonce, reply.nonce);
  EXPECT_EQ(reply_back->boot, reply.boot);
  EXPECT_EQ(reply_back->name, reply.name);
  EXPECT_EQ(reply_back->address, reply.address);
  EXPECT_EQ(reply_back->state, reply.state);
  EXPECT_EQ(reply_back->pledge, reply.pledge);
  EXPECT_EQ(reply_back->founders, reply.founders);
  EXPECT_EQ(reply_back->membership, reply.membership);
  EXPECT_EQ(reply_back->asker_also_at, reply.asker_also_at);
}

TEST(PeerCodecTest, FoundRoundTrip) {
  raft::Propose propose;
  propose.to = StoreId(1);
  propose.expected = {2, StoreId(3)};
  propose.proposal = {
      StoreId(4), 5, ClusterId(6), {{"a", StoreId(4), "h:1"}, {"b", StoreId(8), ""}}};
  v1::FoundRequest proto;
  ToProto(propose, StoreId(4), &proto);
  proto = Wire(proto);
  EXPECT_EQ(proto.header().from_store(), 4u);
  const raft::Propose propose_back = ProposeFromProto(proto);
  EXPECT_EQ(propose_back.to, propose.to);
  EXPECT_EQ(propose_back.expected, propose.expected);
  EXPECT_EQ(propose_back.proposal, propose.proposal);

  const raft::Born born{StoreId(1), {2, StoreId(3)}, ClusterId(4), "payload"};
  proto.Clear();
  ToProto(born, StoreId(9), &proto);
  const raft::Born born_back = BornFromProto(Wire(proto));
  EXPECT_EQ(born_back.to, born.to);
  EXPECT_EQ(born_back.pledge, born.pledge);
  EXPECT_EQ(born_back.cluster, born.cluster);
  EXPECT_EQ(born_back.payload, born.payload);

  const raft::PledgeReply pledged{
      StoreId(1), raft::Refusal::kFoundersDiffer, {2, StoreId(3)}, ClusterId(4), {"a"}};
  v1::FoundResponse response;
  ToProto(pledged, &response);
  const auto pledged_back = PledgeReplyFromProto(Wire(response));
  ASSERT_TRUE(pledged_back.has_value());
  EXPECT_EQ(pledged_back->store, pledged.store);
  EXPECT_EQ(pledged_back->refusal, pledged.refusal);
  EXPECT_EQ(pledged_back->pledge, pledged.pledge);
  EXPECT_EQ(pledged_back->cluster, pledged.cluster);
  EXPECT_EQ(pledged_back->founders, pledged.founders);

  const raft::BornReply was_born{StoreId(1), raft::Refusal::kNone, ClusterId(4), {2, StoreId(3)}};
  response.Clear();
  ToProto(was_born, &response);
  const auto was_born_back = BornReplyFromProto(Wire(response));
  ASSERT_TRUE(was_born_back.has_value());
  EXPECT_EQ(was_born_back->store, was_born.store);
  EXPECT_EQ(was_born_back->refusal, was_born.refusal);
  EXPECT_EQ(was_born_back->cluster, was_born.cluster);
  EXPECT_EQ(was_born_back->pledge, was_born.pledge);
}

// --- What must not reach the core ---

TEST(PeerCodecTest, EntriesThatDoNotFollowEachOtherAreRejected) {
  const auto rejected = [](auto change) {
    v1::AppendEntriesRequest proto = Encoded(MakeAppend());
    change(&proto);
    return !FromProto(std::move(proto)).has_value();
  };
  EXPECT_FALSE(rejected([](v1::AppendEntriesRequest*) {}));
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(1)->set_index(13); })) << "a gap";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(0)->set_index(10); })) << "the previous";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(0)->set_term(2); })) << "a term goes back";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(3)->set_term(8); })) << "of the future";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(0)->set_type(99); })) << "unknown type";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(0)->set_type(0); })) << "no type";
  EXPECT_TRUE(rejected([](auto* p) { p->mutable_entries(0)->set_type(256 + 2); })) << "wrapped";
  EXPECT_TRUE(rejected([](auto* p) {
    p->set_prev_index(UINT64_MAX);
    p->mutable_entries(0)->set_index(0);
  })) << "an index that wraps";
}

TEST(PeerCodecTest, UnknownStatesAndRefusalsAreRejected) {
  v1::IdentifyResponse identify;
  EXPECT_FALSE(FromProto(identify).has_value()) << "no state";
  identify.set_state(99);
  EXPECT_FALSE(FromProto(identify).has_value());
  v1::FoundResponse found;
  found.set_refusal(99);
  EXPECT_FALSE(PledgeReplyFromProto(found).has_value());
  EXPECT_FALSE(BornReplyFromProto(found).has_value());
}

TEST(PeerCodecTest, HeadersAreChecked) {
  const PeerSelf self{ClusterId(1), StoreId(2)};
  const auto reason = [&](uint64_t cluster, uint64_t from, uint64_t to) {
    const grpc::Status status =
        CheckHeader(MakeHeader(ClusterId(cluster), StoreId(from), StoreId(to)), self);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    return DetailsOf(status).reason;
  };
  EXPECT_EQ(reason(1, 3, 2), "");
  EXPECT_EQ(reason(9, 3, 2), "WRONG_CLUSTER");
  EXPECT_EQ(reason(0, 3, 2), "WRONG_CLUSTER");
  EXPECT_EQ(reason(1, 3, 4), "WRONG_STORE");
  EXPECT_EQ(reason(1, 3, 0), "WRONG_STORE");
  EXPECT_EQ(reason(1, 0, 2), "WRONG_SENDER");
  EXPECT_EQ(reason(1, 2, 2), "WRONG_SENDER");
}

}  // namespace
}  // namespace quorate::services
