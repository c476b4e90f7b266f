// A leader's state comes in over gRPC: a real receiver, node and SQLite state; the leader is the
// test. It leads in term 50, far above what the node could reach alone.
#include "services/snapshot_receiver.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "services/errors.h"
#include "services/snapshot_sender.h"
#include "storage/crc32c.h"
#include "tests/services/forward_cluster.h"

namespace quorate::services {
namespace {

using std::chrono::seconds;
constexpr uint64_t kTerm = 50;

class SnapshotReceiverTest : public testing::Test {
 protected:
  SnapshotReceiverTest() : channels_(&cluster_.node(0).directory) {
    stub_ = channels_.At(cluster_.node(0).address, PeerChannels::Kind::kSnapshot);
    cluster_.Start(0);
    MakeCopy(40);
  }
  ~SnapshotReceiverTest() override { std::filesystem::remove_all(source_); }

  // What the leader's state is after entry `last`.
  void MakeCopy(uint64_t last) {
    source_ = cluster_.DirectoryOf(0).parent_path() / "source";
    std::filesystem::remove_all(source_);
    std::filesystem::create_directories(source_);
    storage::StateOptions options;
    options.directory = source_.string();
    options.cluster = kTestCluster;
    auto state = storage::State::Create(options);
    ASSERT_TRUE(state.ok()) << state.status();
    std::vector<raft::EntryPtr> entries = {
        raft::FirstEntry(raft::EncodeMembership(cluster_.membership()))};
    for (uint64_t i = 2; i <= last; ++i) {
      auto entry = std::make_shared<raft::Entry>();
      entry->index = raft::Index(i);
      entry->term = raft::Term(kTerm);
      entries.push_back(std::move(entry));
    }
    ASSERT_TRUE((*state)->Apply(entries).ok());
    const std::atomic<bool> never{false};
    auto copy = (*state)->Copy((source_ / "copy.db").string(), never);
    ASSERT_TRUE(copy.ok()) << copy.status();
    copy_ = *copy;
    std::ifstream file(copy_.path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
  }

  v1::PeerHeader Header() { return MakeHeader(kTestCluster, StoreId(102), cluster_.node(0).store); }
  v1::InstallSnapshotRequest Begin(uint64_t term = kTerm) {
    v1::InstallSnapshotRequest request;
    *request.mutable_header() = Header();
    raft::InstallSnapshot message;
    message.term = raft::Term(term);
    message.snapshot = {copy_.index, copy_.term, copy_.log_time_ms, copy_.membership_index,
                        copy_.membership};
    ToProto(message, request.mutable_begin());
    request.mutable_begin()->set_total_bytes(bytes_.size());
    request.mutable_begin()->set_state_hash(copy_.hash.data(), copy_.hash.size());
    return request;
  }
  // The file as a sender sends it, in chunks of 10,000 bytes.
  std::vector<v1::InstallSnapshotRequest> Whole(uint64_t term = kTerm) {
    std::vector<v1::InstallSnapshotRequest> all = {Begin(term)};
    for (size_t at = 0; at < bytes_.size(); at += 10'000) {
      v1::InstallSnapshotRequest request;
      *request.mutable_header() = Header();
      request.mutable_chunk()->set_offset(at);
      request.mutable_chunk()->set_data(bytes_.substr(at, 10'000));
      request.mutable_chunk()->set_crc32c(storage::Crc32c(request.chunk().data()));
      all.push_back(std::move(request));
    }
    v1::InstallSnapshotRequest end;
    *end.mutable_header() = Header();
    end.mutable_end()->set_crc32c(storage::Crc32c(bytes_));
    all.push_back(std::move(end));
    return all;
  }
  // The end of the call; `response` as far as there is one.
  grpc::Status Send(const std::vector<v1::InstallSnapshotRequest>& requests,
                    v1::InstallSnapshotResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(60));
    auto writer = stub_->InstallSnapshot(&context, response);
    for (const v1::InstallSnapshotRequest& request : requests) {
      if (!writer->Write(request)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }
  raft::SnapshotAnswer Answer(const std::vector<v1::InstallSnapshotRequest>& requests) {
    v1::InstallSnapshotResponse response;
    const grpc::Status status = Send(requests, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return static_cast<raft::SnapshotAnswer>(response.answer());
  }
  std::vector<std::string> States() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(cluster_.DirectoryOf(0))) {
      const std::string name = entry.path().filename();
      if (name.rfind("state-", 0) == 0) names.push_back(name);
    }
    return names;
  }
  storage::State* state() { return cluster_.node(0).state.get(); }

  ForwardCluster cluster_;
  PeerChannels channels_;
  PeerChannels::Stub stub_;
  std::filesystem::path source_;
  storage::StateCopy copy_;
  std::string bytes_;
};

TEST_F(SnapshotReceiverTest, AStateIsReceivedAndBecomesThisNodes) {
  EXPECT_EQ(Answer(Whole()), raft::SnapshotAnswer::kInstalled);
  const storage::StateSummary summary = state()->Summary();
  EXPECT_EQ(summary.applied, raft::Index(40));
  EXPECT_EQ(summary.hash, copy_.hash);
  EXPECT_EQ(state()->generation(), 2u);
  const auto status = cluster_.node(0).raft->status();
  EXPECT_EQ(status->term, raft::Term(kTerm));
  EXPECT_TRUE(Eventually([&] { return cluster_.node(0).raft->status()->applied.value() == 40; }));
  EXPECT_TRUE(Eventually([&] { return States() == std::vector<std::string>{"state-2"}; }));
  EXPECT_EQ(cluster_.node(0).snapshots->counters().installed, 1u);

  MakeCopy(60);
  EXPECT_EQ(Answer(Whole()), raft::SnapshotAnswer::kInstalled);
  EXPECT_EQ(state()->Summary().applied, raft::Index(60));
  EXPECT_EQ(state()->generation(), 3u);
}

TEST_F(SnapshotReceiverTest, WhatIsThereAlreadyNeedsNoBytes) {
  EXPECT_EQ(Answer(Whole()), raft::SnapshotAnswer::kInstalled);
  EXPECT_EQ(Answer({Begin()}), raft::SnapshotAnswer::kInstalled);
  EXPECT_EQ(state()->generation(), 2u);
}

TEST_F(SnapshotReceiverTest, AnEarlierLeaderIsRefusedWithTheTerm) {
  EXPECT_EQ(Answer(Whole()), raft::SnapshotAnswer::kInstalled);
  MakeCopy(60);
  copy_.term = raft::Term(49);
  v1::InstallSnapshotResponse response;
  ASSERT_TRUE(Send({Begin(49)}, &response).ok());
  EXPECT_EQ(static_cast<raft::SnapshotAnswer>(response.answer()), raft::SnapshotAnswer::kRefused);
  EXPECT_EQ(response.term(), kTerm);
  EXPECT_EQ(StoreId(response.header().from_store()), cluster_.node(0).store);
}

TEST_F(SnapshotReceiverTest, OneAtATimeAndANewerLeaderEndsAnOlderOnes) {
  grpc::ClientContext context;
  v1::InstallSnapshotResponse response;
  auto first = stub_->InstallSnapshot(&context, &response);
  const std::vector<v1::InstallSnapshotRequest> whole = Whole();
  ASSERT_TRUE(first->Write(whole[0]) && first->Write(whole[1]));
  ASSERT_TRUE(Eventually([&] { return cluster_.node(0).snapshots->counters().bytes > 0; }));
  EXPECT_EQ(Answer({Begin()}), raft::SnapshotAnswer::kBusy);
  EXPECT_EQ(States().size(), 2u) << "the first one goes on";

  v1::InstallSnapshotResponse busy;
  ASSERT_TRUE(Send({Begin(51)}, &busy).ok());
  EXPECT_EQ(static_cast<raft::SnapshotAnswer>(busy.answer()), raft::SnapshotAnswer::kBusy);
  EXPECT_EQ(busy.term(), 51u) << "the leader takes no answer of an earlier term";
  EXPECT_FALSE(first->Finish().ok());
  EXPECT_TRUE(Eventually([&] { return Answer(Whole(51)) == raft::SnapshotAnswer::kInstalled; }));
  EXPECT_EQ(state()->Summary().applied, raft::Index(40));
}

TEST_F(SnapshotReceiverTest, BrokenOffItLeavesNothing) {
  {
    grpc::ClientContext context;
    v1::InstallSnapshotResponse response;
    auto writer = stub_->InstallSnapshot(&context, &response);
    const std::vector<v1::InstallSnapshotRequest> whole = Whole();
    ASSERT_TRUE(writer->Write(whole[0]) && writer->Write(whole[1]));
    ASSERT_TRUE(Eventually([&] { return States().size() == 2; }));
    context.TryCancel();
    EXPECT_FALSE(writer->Finish().ok());
  }
  EXPECT_TRUE(Eventually([&] { return States() == std::vector<std::string>{"state-1"}; }));
  EXPECT_TRUE(Eventually([&] { return Answer(Whole()) == raft::SnapshotAnswer::kInstalled; }));
}

TEST_F(SnapshotReceiverTest, AStopInTheMiddleEndsTheCall) {
  grpc::ClientContext context;
  v1::InstallSnapshotResponse response;
  auto writer = stub_->InstallSnapshot(&context, &response);
  ASSERT_TRUE(writer->Write(Begin()));
  ASSERT_TRUE(Eventually([&] { return States().size() == 2; }));
  cluster_.Stop(0);
  EXPECT_FALSE(writer->Finish().ok());
  EXPECT_EQ(States(), std::vector<std::string>{"state-1"});
}

// --- Bad input: each ends the call with a reason, changes nothing, and leaves nothing behind ---

TEST_F(SnapshotReceiverTest, WhatMakesNoSenseIsRefused) {
  using Requests = std::vector<v1::InstallSnapshotRequest>;
  const std::vector<std::pair<std::string, std::function<void(Requests*)>>> cases = {
      {"no begin", [](Requests* r) { r->erase(r->begin()); }},
      {"two begins", [](Requests* r) { r->insert(r->begin(), r->front()); }},
      {"no step", [](Requests* r) { (*r)[1].clear_step(); }},
      {"a gap", [](Requests* r) { r->erase(r->begin() + 1); }},
      {"an end too early", [](Requests* r) { r->erase(r->end() - 2); }},
      {"an empty chunk", [](Requests* r) { (*r)[1].mutable_chunk()->clear_data(); }},
      {"a chunk too large",
       [](Requests* r) {
         (*r)[1].mutable_chunk()->set_data(std::string(kSnapshotChunkBytes + 1, 'x'));
       }},
      {"no size", [](Requests* r) { r->front().mutable_begin()->set_total_bytes(0); }},
      {"no hash", [](Requests* r) { r->front().mutable_begin()->set_state_hash("short"); }},
      {"no index", [](Requests* r) { r->front().mutable_begin()->set_index(0); }},
      {"no term", [](Requests* r) { r->front().mutable_begin()->set_term(0); }},
      {"a later entry's term",
       [](Requests* r) { r->front().mutable_begin()->set_index_term(kTerm + 1); }},
      {"no membership", [](Requests* r) { r->front().mutable_begin()->set_membership("nobody"); }},
      {"a later membership",
       [](Requests* r) { r->front().mutable_begin()->set_membership_index(41); }},
  };
  for (const auto& [name, spoil] : cases) {
    SCOPED_TRACE(name);
    Requests requests = Whole();
    spoil(&requests);
    v1::InstallSnapshotResponse response;
    const grpc::Status status = Send(requests, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_EQ(DetailsOf(status).reason, "MALFORMED");
    EXPECT_TRUE(Eventually([&] { return States() == std::vector<std::string>{"state-1"}; }));
  }
  EXPECT_EQ(state()->generation(), 1u);
  EXPECT_EQ(Answer(Whole()), raft::SnapshotAnswer::kInstalled);
}

TEST_F(SnapshotReceiverTest, WhatIsDamagedIsRefused) {
  const auto refused = [&](std::vector<v1::InstallSnapshotRequest> requests) {
    v1::InstallSnapshotResponse response;
    const grpc::Status status = Send(requests, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS) << status.error_message();
    EXPECT_EQ(DetailsOf(status).reason, "SNAPSHOT_DAMAGED");
    EXPECT_TRUE(Eventually([&] { return States() == std::vector<std::string>{"state-1"}; }));
    EXPECT_EQ(state()->generation(), 1u);
  };
  std::vector<v1::InstallSnapshotRequest> on_the_way = Whole();
  (*on_the_way[2].mutable_chunk()->mutable_data())[5000] ^= 1;
  refused(on_the_way);

  std::vector<v1::InstallSnapshotRequest> whole_file = Whole();
  whole_file.back().mutable_end()->set_crc32c(1);
  refused(whole_file);

  // Another state than was announced: each byte is as it was sent.
  copy_.hash[3] ^= 1;
  refused(Whole());
  copy_.hash[3] ^= 1;
  copy_.index = raft::Index(39);
  refused(Whole());
  copy_.index = raft::Index(40);
  copy_.membership.members[0].address = "elsewhere:1";
  refused(Whole());
}

TEST_F(SnapshotReceiverTest, OfAnotherClusterOrForAnotherStoreIsRejected) {
  std::vector<v1::InstallSnapshotRequest> requests = Whole();
  v1::InstallSnapshotResponse response;
  *requests[0].mutable_header() = MakeHeader(ClusterId(9), StoreId(102), cluster_.node(0).store);
  EXPECT_EQ(DetailsOf(Send(requests, &response)).reason, "WRONG_CLUSTER");
  *requests[0].mutable_header() = MakeHeader(kTestCluster, StoreId(102), StoreId(77));
  EXPECT_EQ(DetailsOf(Send(requests, &response)).reason, "WRONG_STORE");
  EXPECT_LT(cluster_.node(0).raft->status()->term, raft::Term(kTerm));
}

}  // namespace
}  // namespace quorate::services
