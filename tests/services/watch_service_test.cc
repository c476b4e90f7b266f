// The watch service over a real state machine: what is applied reaches the clients, from the apply
// thread's hand-over, from history and from states, and everything ends with a resume revision.
#include "services/watch_service.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tests/services/fake_backend.h"
#include "tests/storage/state_fixture.h"

namespace quorate::services {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A client: keeps what it is told. Takes each message at once, or only when asked.
class Client final : public WatchSink {
 public:
  Client(WatchService* service, bool takes) : service_(service), takes_(takes) {}

  void Open(const v1::WatchRequest& request) {
    id_ = service_->NewId();
    service_->Open(id_, request.SerializeAsString(), shared_());
  }
  void Send(std::string header, std::shared_ptr<const std::string> body) override {
    v1::WatchResponse message;
    EXPECT_TRUE(message.ParseFromString(header + *body));
    {
      std::lock_guard lock(mutex_);
      EXPECT_FALSE(under_way_) << "two messages at a time";
      EXPECT_FALSE(ended_) << "a message after the end";
      got_.push_back(std::move(message));
      under_way_ = !takes_;
      if (!takes_) {
        changed_.notify_all();
        return;
      }
    }
    service_->OnSent(id_);
    changed_.notify_all();
  }
  void End(grpc::Status status) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_) << "ended twice";
    ended_ = true;
    end_ = std::move(status);
    changed_.notify_all();
  }
  void Take(bool always = true) {
    {
      std::lock_guard lock(mutex_);
      takes_ = always;
      if (!std::exchange(under_way_, false)) return;
    }
    service_->OnSent(id_);
  }
  void Go() { service_->OnGone(id_); }

  // Waits until `enough` of all messages; gives up after a time that only a bug needs.
  std::vector<v1::WatchResponse> Wait(
      const std::function<bool(const std::vector<v1::WatchResponse>&)>& enough) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(30), [&] { return enough(got_); }))
        << got_.size()
        << " messages, the last: " << (got_.empty() ? "" : got_.back().ShortDebugString());
    return got_;
  }
  // Everything up to this revision.
  std::vector<v1::WatchResponse> WaitThrough(uint64_t revision) {
    return Wait(
        [&](const auto& got) { return !got.empty() && got.back().resume_revision() > revision; });
  }
  grpc::Status WaitEnd() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(30), [&] { return ended_; }));
    return end_;
  }
  size_t count() {
    std::lock_guard lock(mutex_);
    return got_.size();
  }
  std::function<std::shared_ptr<WatchSink>()> shared_;

 private:
  WatchService* const service_;
  ingress::WatchId id_;
  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  bool takes_;
  bool under_way_ = false;
  bool ended_ = false;
  grpc::Status end_;
  std::vector<v1::WatchResponse> got_;
};

// "5 a=1" for a put, "5 -a" for a deletion, "[a=1" for an item of a state.
std::vector<std::string> Lines(const std::vector<v1::WatchResponse>& messages) {
  std::vector<std::string> lines;
  for (const v1::WatchResponse& message : messages) {
    const std::string revision = std::to_string(message.header().revision());
    if (message.reset()) lines.push_back("reset " + revision);
    if (message.synced()) lines.push_back("synced " + revision);
    for (const v1::WatchEvent& event : message.events()) {
      const bool put = event.type() == v1::WatchEvent::TYPE_PUT;
      std::string line = message.resume_revision() == 0 ? "[" : revision + " ";
      line += put ? event.item().key() + "=" + event.item().text() : "-" + event.item().key();
      if (event.created()) line += " new";
      if (event.has_previous()) line += " was " + event.previous().text();
      lines.push_back(line);
    }
  }
  return lines;
}

class WatchServiceTest : public storage::testing::StateFixture {
 protected:
  void SetUp() override {
    Begin();
    status_.leader = StoreId(storage::testing::kIngress);
    status_.membership = std::make_shared<raft::Membership>(
        storage::testing::MembersOf({storage::testing::kIngress}));
    status_.term = raft::Term(3);
    status_.fresh_as_of = BootNow();
    Make({});
  }
  void TearDown() override {
    service_->Stop();
    pool_->Stop();
  }

  void Make(const ingress::WatchHubOptions& options, bool born = true) {
    if (service_ != nullptr) TearDown();
    pool_ = std::make_unique<ReadPool>(2, 100);
    service_ = std::make_unique<WatchService>("n1", pool_.get(), BootNow, options);
    if (!born) return;
    auto backend = std::make_shared<ConfigBackend>();
    backend->cluster = ClusterId(storage::testing::kCluster);
    backend->state = state.get();
    backend->status = [this] {
      std::lock_guard lock(mutex_);
      return std::make_shared<const raft::NodeStatus>(status_);
    };
    backend->caught_up_once = [this] {
      std::lock_guard lock(mutex_);
      return caught_up_;
    };
    service_->SetBackend(backend);
  }
  void SetStatus(const std::function<void(raft::NodeStatus*)>& change) {
    std::lock_guard lock(mutex_);
    change(&status_);
    service_->OnStatusChange(status_);
  }

  std::shared_ptr<Client> Watch(const v1::WatchRequest& request, bool takes = true) {
    auto client = std::make_shared<Client>(service_.get(), takes);
    client->shared_ = [weak = std::weak_ptr<Client>(client)] { return weak.lock(); };
    client->Open(request);
    return client;
  }
  static v1::WatchRequest Prefix(const std::string& prefix, uint64_t from = 0) {
    v1::WatchRequest request;
    request.set_prefix(prefix);
    request.set_start_revision(from);
    return request;
  }
  std::shared_ptr<Client> WatchAndWait(const v1::WatchRequest& request) {
    auto client = Watch(request);
    client->Wait([](const auto& got) { return !got.empty(); });
    return client;
  }
  // Applies what the script has, as the apply thread does.
  void Commit() { service_->OnApplied(ApplyAll()); }
  void CommitPut(const std::string& key, const std::string& value) {
    script.Put(key, value);
    Commit();
  }

  std::mutex mutex_;
  raft::NodeStatus status_;  // protected by mutex_
  bool caught_up_ = true;    // protected by mutex_
  std::unique_ptr<ReadPool> pool_;
  std::unique_ptr<WatchService> service_;
};

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

TEST_F(WatchServiceTest, TellsWhatIsApplied) {
  const auto client = WatchAndWait(Prefix("a/"));
  CommitPut("a/x", "1");
  CommitPut("b", "1");
  v1::Command both;
  storage::testing::AddPut(both, "a/x", "2");
  storage::testing::AddPut(both, "a/y", "1");
  script.Do(std::move(both));
  script.Delete("a/x");
  Commit();
  const auto got = client->WaitThrough(5);
  EXPECT_THAT(Lines(got), ElementsAre("2 a/x=1 new", "4 a/x=2", "4 a/y=1 new", "5 -a/x"));
  // Who says so, and how old it may be.
  EXPECT_TRUE(got[0].started());
  EXPECT_EQ(got[0].header().revision(), 1u);
  EXPECT_EQ(got[1].header().node_id(), "n1");
  EXPECT_EQ(got[1].header().cluster_id(), ToHex(storage::testing::kCluster));
  EXPECT_EQ(got[1].header().leader_id(), "node-161");
  EXPECT_EQ(got[1].header().term(), 3u);
  EXPECT_TRUE(got[1].header().staleness().has_age());
}

TEST_F(WatchServiceTest, ReadsThePastAndGoesOn) {
  for (int i = 0; i < 20; ++i) CommitPut("a/" + std::to_string(i % 3), std::to_string(i));
  ingress::WatchHubOptions options;
  options.read_rows_max = 7;
  Make(options);
  v1::WatchRequest request = Prefix("a/1", 10);
  request.set_with_previous(true);
  const auto client = Watch(request);
  CommitPut("a/1", "last");
  EXPECT_THAT(Lines(client->WaitThrough(22)),
              ElementsAre("12 a/1=10 was 7", "15 a/1=13 was 10", "18 a/1=16 was 13",
                          "21 a/1=19 was 16", "22 a/1=last was 19"));
}

TEST_F(WatchServiceTest, ShowsTheStateFirst) {
  for (const char* key : {"a/1", "a/2", "b", "a/3"}) CommitPut(key, "x");
  script.Delete("a/2");
  Commit();
  ingress::WatchHubOptions options;
  options.read_bytes_max = 1;  // an item a portion
  Make(options);
  v1::WatchRequest request = Prefix("a/");
  request.set_with_initial_state(true);
  const auto client = Watch(request, /*takes=*/false);
  client->Wait([](const auto& got) { return got.size() == 1; });
  client->Take();
  client->Wait([](const auto& got) { return got.size() >= 2; });
  CommitPut("a/4", "x");
  EXPECT_THAT(Lines(client->WaitThrough(7)),
              ElementsAre("[a/1=x", "[a/3=x", "synced 6", "7 a/4=x new"));
  // One key that is there, and one that is not.
  request.set_key("b");
  EXPECT_THAT(Lines(Watch(request)->WaitThrough(7)), ElementsAre("[b=x", "synced 7"));
  request.set_key("none");
  EXPECT_THAT(Lines(Watch(request)->WaitThrough(7)), ElementsAre("synced 7"));
}

TEST_F(WatchServiceTest, TakesUpWhereAnotherNodeEnded) {
  for (int i = 0; i < 5; ++i) CommitPut("a", std::to_string(i));
  const auto first = Watch(Prefix("", 2), /*takes=*/false);
  first->Wait([](const auto& got) { return got.size() == 1; });
  first->Take(/*always=*/false);
  const uint64_t resume =
      first->Wait([](const auto& got) { return got.size() == 2; }).back().resume_revision();
  EXPECT_EQ(resume, 3u);
  Make({});  // another one
  EXPECT_THAT(Lines(Watch(Prefix("", resume))->WaitThrough(6)),
              ElementsAre("3 a=1", "4 a=2", "5 a=3", "6 a=4"));
}

// The state may have shown a revision to somebody before the hub hears of it: a watch that begins
// now does not begin before it.
TEST_F(WatchServiceTest, BeginsAfterWhatTheNodeHasShown) {
  script.Put("a", "1");
  const std::vector<storage::Applied> applied = ApplyAll();  // not told yet
  const auto client = WatchAndWait(Prefix(""));
  service_->OnApplied(applied);
  CommitPut("a", "2");
  EXPECT_THAT(Lines(client->WaitThrough(3)), ElementsAre("3 a=2"));
}

// A client that never reads: one message is on its way, and what it costs is bounded; the others
// and the apply thread do not notice. Then it reads everything.
TEST_F(WatchServiceTest, AClientThatDoesNotReadCostsLittle) {
  ingress::WatchHubOptions options;
  options.queue_bytes_max = 64 << 10;
  options.read_bytes_max = 64 << 10;
  Make(options);
  const auto lazy = Watch(Prefix(""), /*takes=*/false);
  lazy->Wait([](const auto& got) { return got.size() == 1; });
  const auto quick = WatchAndWait(Prefix("a/7"));
  const std::string value(10 << 10, 'x');
  for (int i = 0; i < 200; ++i) {
    CommitPut("a/" + std::to_string(i % 10), value);
    EXPECT_LE(service_->stats().queued_bytes, options.queue_bytes_max + (64u << 10));
  }
  EXPECT_EQ(Lines(quick->WaitThrough(199)).size(), 20u);
  EXPECT_EQ(lazy->count(), 1u);
  lazy->Take();
  const auto got = lazy->WaitThrough(201);
  ASSERT_EQ(got.size(), 201u);
  for (size_t i = 1; i < got.size(); ++i) {
    ASSERT_EQ(got[i].header().revision(), i + 1);
    ASSERT_EQ(got[i].events_size(), 1);
    EXPECT_EQ(got[i].events(0).item().key(), "a/" + std::to_string((i - 1) % 10));
  }
  EXPECT_GE(service_->stats().counters.fell_behind, 1u);
}

// More is applied in one batch than is handed over: read from history.
TEST_F(WatchServiceTest, AHugeBatchIsReadFromHistory) {
  const auto client = WatchAndWait(Prefix(""));
  const std::string value(1 << 20, 'x');
  for (int i = 0; i < 20; ++i) script.Put("a/" + std::to_string(i), value);
  Commit();
  const auto got = client->WaitThrough(21);
  size_t events = 0;
  for (const auto& message : got) events += static_cast<size_t>(message.events_size());
  EXPECT_EQ(events, 20u);
  EXPECT_GE(service_->stats().counters.reads, 1u);
}

TEST_F(WatchServiceTest, SaysWhenTheLeaderIsLostAndFound) {
  const auto client = WatchAndWait(Prefix(""));
  SetStatus([](raft::NodeStatus* status) { status->leader = StoreId(); });
  client->Wait([](const auto& got) { return got.back().leader_lost(); });
  SetStatus([](raft::NodeStatus* status) { status->leader = StoreId(0xa1); });
  client->Wait([](const auto& got) { return got.back().leader_found(); });
}

TEST_F(WatchServiceTest, AnIdleStreamBringsProgress) {
  v1::WatchRequest request = Prefix("a");
  request.mutable_progress_interval()->set_nanos(100'000'000);
  const auto client = WatchAndWait(request);
  CommitPut("b", "1");
  const auto got = client->WaitThrough(2);
  EXPECT_TRUE(got.back().progress());
  EXPECT_EQ(got.back().header().revision(), 2u);
}

TEST_F(WatchServiceTest, NothingIsCollectedForNobody) {
  script.Put("a", "1");
  EXPECT_EQ(ApplyAll().back().changes, nullptr);
  const auto client = WatchAndWait(Prefix(""));
  client->Go();
  // Its leaving is noticed by what the next batches hand over.
  for (int i = 0;; ++i) {
    ASSERT_LT(i, 10000);
    script.Put("a", "2");
    if (ApplyAll().back().changes == nullptr) break;
    std::this_thread::yield();
  }
}

TEST_F(WatchServiceTest, AReplacedStateResetsWhoIsBelowItsHistory) {
  CommitPut("a", "1");
  const auto client = WatchAndWait(Prefix(""));
  CommitPut("a", "2");
  client->WaitThrough(3);
  script.Put("a", "3");
  ApplyAll();  // as if it came by a snapshot
  service_->OnReset(Revision(4), Revision(4));
  EXPECT_THAT(Lines(client->Wait([](const auto& got) { return got.back().synced(); })),
              ElementsAre("3 a=2", "reset 4", "[a=3", "synced 4"));
  CommitPut("a", "4");
  EXPECT_EQ(Lines(client->WaitThrough(5)).back(), "5 a=4");
}

// --- Errors and ends ---

TEST_F(WatchServiceTest, AStartThatNobodyHasIsRefused) {
  CommitPut("a", "1");
  const auto future = Watch(Prefix("", 99));
  SetStatus([](raft::NodeStatus* status) { status->fresh_as_of = BootNow() + seconds(1); });
  const grpc::Status status = future->WaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, "REVISION_IN_FUTURE");
  EXPECT_EQ(details.metadata.at("revision"), "2");
}

TEST_F(WatchServiceTest, AStartThatTheLeaderHasIsWaitedFor) {
  const auto future = Watch(Prefix("", 4));
  CommitPut("a", "1");
  CommitPut("a", "2");
  CommitPut("a", "3");
  EXPECT_THAT(Lines(future->WaitThrough(4)), ElementsAre("4 a=3"));
}

TEST_F(WatchServiceTest, AStartThatIsTooFarEndsAfterAWhile) {
  ingress::WatchHubOptions options;
  options.future_wait = milliseconds(50);
  SetStatus([](raft::NodeStatus* status) { status->fresh_as_of = std::nullopt; });
  Make(options);
  const grpc::Status status = Watch(Prefix("", 99))->WaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "BEHIND");
  EXPECT_EQ(DetailsOf(status).metadata.at("resume_revision"), "99");
}

TEST_F(WatchServiceTest, StopEndsEveryWatchAtItsResumeRevision) {
  const auto client = WatchAndWait(Prefix(""));
  CommitPut("a", "1");
  client->WaitThrough(2);
  service_->Stop();
  const grpc::Status status = client->WaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "SHUTTING_DOWN");
  EXPECT_EQ(DetailsOf(status).metadata.at("resume_revision"), "3");
  EXPECT_EQ(DetailsOf(Watch(Prefix("", 7))->WaitEnd()).metadata.at("resume_revision"), "7");
}

TEST_F(WatchServiceTest, ADrainedNodeEndsEveryWatchAndTakesLaterOnes) {
  const auto client = WatchAndWait(Prefix(""));
  CommitPut("a", "1");
  client->WaitThrough(2);
  service_->EndAll();
  const grpc::Status status = client->WaitEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(status).reason, "DRAINING");
  EXPECT_EQ(DetailsOf(status).metadata.at("resume_revision"), "3");
  const auto later = WatchAndWait(Prefix("", 3));
  CommitPut("a", "2");
  EXPECT_THAT(Lines(later->WaitThrough(3)), ElementsAre("3 a=2"));
}

TEST_F(WatchServiceTest, TooManyTooSlowAndTooOldAreEnded) {
  ingress::WatchHubOptions options;
  options.watches_max = 1;
  options.stall_max = milliseconds(50);
  Make(options);
  const auto slow = Watch(Prefix(""), /*takes=*/false);
  EXPECT_EQ(DetailsOf(Watch(Prefix(""))->WaitEnd()).reason, "TOO_MANY_WATCHES");
  EXPECT_EQ(DetailsOf(slow->WaitEnd()).reason, "WATCH_TOO_SLOW");
  options = {};
  options.age_max = milliseconds(50);
  Make(options);
  const grpc::Status status = Watch(Prefix(""))->WaitEnd();
  EXPECT_EQ(DetailsOf(status).reason, "CONNECTION_AGE");
  EXPECT_EQ(DetailsOf(status).metadata.at("resume_revision"), "2");
}

// (1) The hub's thread is busy. (2) A watch too many comes, (3) and its client goes again. (4) The
// thread hears of both at once: the watch has ended, and there is nobody to tell.
TEST_F(WatchServiceTest, AWatchThatIsRefusedAndGoneAtOnceIsNobodysEnd) {
  class Busy final : public WatchSink {
   public:
    void Send(std::string, std::shared_ptr<const std::string>) override {
      std::unique_lock lock(mutex);
      entered = true;
      changed.notify_all();
      changed.wait(lock, [this] { return released; });
    }
    void End(grpc::Status) override {}
    std::mutex mutex;
    std::condition_variable changed;
    bool entered = false;
    bool released = false;
  };
  ingress::WatchHubOptions options;
  options.watches_max = 1;
  Make(options);
  const auto busy = std::make_shared<Busy>();
  const ingress::WatchId first = service_->NewId();
  service_->Open(first, Prefix("").SerializeAsString(), busy);
  {
    std::unique_lock lock(busy->mutex);
    busy->changed.wait(lock, [&] { return busy->entered; });
  }
  const auto gone = Watch(Prefix(""));
  gone->Go();
  {
    std::lock_guard lock(busy->mutex);
    busy->released = true;
  }
  busy->changed.notify_all();
  EXPECT_EQ(DetailsOf(Watch(Prefix(""))->WaitEnd()).reason, "TOO_MANY_WATCHES") << "still at work";
  EXPECT_EQ(gone->count(), 0u);
  service_->OnGone(first);
  WatchAndWait(Prefix(""));
}

// Few items among many that have changed since: without an end it would hold a reader for long.
TEST(WatchReads, WhatNobodyWantsAnyMoreIsNotReadToItsEnd) {
  FakeNode node;
  node.status.fresh_as_of = BootNow();
  std::atomic<int> reading = 0, given_up = 0;
  const auto patience = std::chrono::steady_clock::now() + seconds(30);
  const auto await = [&](const std::function<bool()>& is_so) {
    while (!is_so() && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
    return is_so();
  };
  node.state.on_read = [&](const storage::ReadLimits& limits) {
    ++reading;
    if (await(limits.abandon)) ++given_up;
  };
  ReadPool pool(2, 10);
  WatchService service("n1", &pool, BootNow);
  service.SetBackend(node.Backend());
  std::vector<std::shared_ptr<Client>> clients;
  for (int i = 0; i < 2; ++i) {
    auto client = std::make_shared<Client>(&service, true);
    client->shared_ = [weak = std::weak_ptr<Client>(client)] { return weak.lock(); };
    v1::WatchRequest request;
    request.set_prefix("");
    request.set_with_initial_state(true);
    client->Open(request);
    clients.push_back(client);
  }
  EXPECT_TRUE(await([&] { return reading == 2; }));
  EXPECT_EQ(given_up, 0);
  clients[0]->Go();
  EXPECT_TRUE(await([&] { return given_up == 1; })) << "its client has gone";
  service.Stop();
  EXPECT_TRUE(await([&] { return given_up == 2; })) << "the node stops";
  pool.Stop();
}

TEST_F(WatchServiceTest, BadRequestsAreRefusedByName) {
  const auto refusal = [&](const v1::WatchRequest& request) {
    const ErrorDetails details = DetailsOf(Watch(request)->WaitEnd());
    return details.reason + " " + details.metadata.at("field");
  };
  v1::WatchRequest request;
  EXPECT_EQ(refusal(request), "TARGET_MISSING target");
  request.set_key("");
  EXPECT_EQ(refusal(request), "KEY_EMPTY key");
  request.set_key("a\n");
  EXPECT_EQ(refusal(request), "KEY_CONTROL_CHARACTER key");
  request.set_prefix(std::string(1025, 'x'));
  EXPECT_EQ(refusal(request), "KEY_TOO_LARGE prefix");
  request.set_prefix("");
  request.set_start_revision(1);
  request.set_with_initial_state(true);
  EXPECT_EQ(refusal(request), "INVALID_VALUE with_initial_state");
  request.set_with_initial_state(false);
  for (const auto& [interval_s, nanos] :
       std::vector<std::pair<int64_t, int>>{{0, 0},
                                            {0, 99'999'999},
                                            {10, 1},
                                            {-1, 0},
                                            {1, -1},
                                            {0, 1'000'000'000},
                                            {1'000'000'000'000, 0}}) {
    request.mutable_progress_interval()->set_seconds(interval_s);
    request.mutable_progress_interval()->set_nanos(nanos);
    EXPECT_EQ(refusal(request), "INVALID_VALUE progress_interval") << interval_s << " " << nanos;
  }
}

TEST_F(WatchServiceTest, AStoreThatHasNeverCaughtUpRefuses) {
  {
    std::lock_guard lock(mutex_);
    caught_up_ = false;
  }
  EXPECT_EQ(DetailsOf(Watch(Prefix(""))->WaitEnd()).reason, "NOT_CAUGHT_UP");
  Make({}, /*born=*/false);
  EXPECT_EQ(DetailsOf(Watch(Prefix(""))->WaitEnd()).reason, "NOT_CAUGHT_UP");
}

}  // namespace
}  // namespace quorate::services
