// `quorate watch` and what it follows streams with, against nodes whose streams are scripts.
#include <stdlib.h>

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>

#include "gmock/gmock.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"
#include "tools/watcher.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kCluster[] = "00000000000000aa";

// What one stream says, and how it ends.
struct Stream {
  std::vector<v1::WatchResponse> messages;
  std::optional<grpc::Status> end;  // nullopt: it goes silent until the client goes
};

// Each Watch plays the next stream; after the last one it refuses.
class WatchNode final : public v1::Config::Service {
 public:
  WatchNode() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~WatchNode() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Play(Stream stream) {
    const std::lock_guard lock(mutex_);
    streams_.push_back(std::move(stream));
  }
  // What was asked for, as "from 5", "initial", "now".
  std::vector<std::string> asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  // Of the last one.
  int64_t progress_ms() {
    const std::lock_guard lock(mutex_);
    return progress_ms_;
  }

 private:
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    Stream stream;
    {
      const std::lock_guard lock(mutex_);
      if (streams_.empty()) {
        return services::MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP", "not yet");
      }
      asked_.push_back(request->with_initial_state() ? "initial"
                       : request->start_revision() != 0
                           ? "from " + std::to_string(request->start_revision())
                           : "now");
      const auto& interval = request->progress_interval();
      progress_ms_ = interval.seconds() * 1000 + interval.nanos() / 1'000'000;
      stream = std::move(streams_.front());
      streams_.pop_front();
    }
    for (const v1::WatchResponse& message : stream.messages) writer->Write(message);
    if (stream.end) return *stream.end;
    while (!context->IsCancelled()) std::this_thread::sleep_for(milliseconds(5));
    return grpc::Status::CANCELLED;
  }

  std::mutex mutex_;  // protects what follows
  std::deque<Stream> streams_;
  std::vector<std::string> asked_;
  int64_t progress_ms_ = 0;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

v1::WatchResponse Message(uint64_t revision, uint64_t resume) {
  v1::WatchResponse message;
  message.mutable_header()->set_cluster_id(kCluster);
  message.mutable_header()->set_node_id("n1");
  message.mutable_header()->set_revision(revision);
  message.set_resume_revision(resume);
  return message;
}
v1::WatchResponse Started(uint64_t resume) {
  v1::WatchResponse message = Message(resume == 0 ? 9 : resume - 1, resume);
  message.set_started(true);
  return message;
}
v1::WatchEvent Event(const std::string& key, const std::string& text, uint64_t revision,
                     uint64_t version = 2) {
  v1::WatchEvent event;
  event.set_type(v1::WatchEvent::TYPE_PUT);
  event.set_created(version == 1);
  event.mutable_item()->set_key(key);
  event.mutable_item()->set_text(text);
  event.mutable_item()->set_mod_revision(revision);
  event.mutable_item()->set_version(version);
  return event;
}
v1::WatchResponse Put(const std::string& key, const std::string& text, uint64_t revision,
                      uint64_t version = 2) {
  v1::WatchResponse message = Message(revision, revision + 1);
  *message.add_events() = Event(key, text, revision, version);
  return message;
}
grpc::Status Gone() { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed"); }

struct RanWatch {
  int exit;
  std::string out;
  std::string err;
};

class CliWatchTest : public testing::Test {
 protected:
  RanWatch Quorate(std::vector<std::string> arguments, const std::string& timeout = "2s") {
    arguments.insert(arguments.begin(), {"quorate", "--endpoints",
                                         a_.address() + "," + b_.address(), "--timeout", timeout});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }

  WatchNode a_, b_;
};

TEST_F(CliWatchTest, GoesOnAtTheNextNodeWhereTheStreamEnded) {
  v1::WatchResponse erased = Message(6, 7);
  erased.add_events()->set_type(v1::WatchEvent::TYPE_DELETE);
  erased.mutable_events(0)->mutable_item()->set_key("a");
  erased.mutable_events(0)->mutable_item()->set_mod_revision(6);
  a_.Play({{Started(5), Put("a", "1", 5, 1)}, Gone()});
  b_.Play({{Started(6), erased, Put("b", "", 7)}, std::nullopt});
  const RanWatch ran = Quorate({"watch", "--count", "3"});
  EXPECT_EQ(ran.exit, kExitOk) << ran.err;
  EXPECT_EQ(ran.out, "5 create a 1\n6 delete a\n7 put b \"\"\n");
  EXPECT_THAT(ran.err, HasSubstr("going on at revision 6"));
  EXPECT_THAT(a_.asked(), ElementsAre("now"));
  EXPECT_THAT(b_.asked(), ElementsAre("from 6"));
}

// A stream that breaks within a revision: the revision comes again as a whole, and nothing of its
// first half was acted on.
TEST_F(CliWatchTest, ActsOnWholeRevisionsOnly) {
  v1::WatchResponse first = Message(7, 7);
  *first.add_events() = Event("a", "1", 7);
  first.set_partial(true);
  v1::WatchResponse last = Message(7, 8);
  *last.add_events() = Event("b", "1", 7);
  a_.Play({{Started(7), first}, Gone()});
  b_.Play({{Started(7), first, last}, std::nullopt});
  const RanWatch ran = Quorate({"watch", "--from-revision", "7", "--count", "2"});
  EXPECT_EQ(ran.exit, kExitOk) << ran.err;
  EXPECT_EQ(ran.out, "7 put a 1\n7 put b 1\n");
  EXPECT_THAT(b_.asked(), ElementsAre("from 7"));
}

TEST_F(CliWatchTest, BeginsTheStateAgainWhenItBreaks) {
  v1::WatchResponse reset = Message(20, 0);
  reset.set_reset(true);
  v1::WatchResponse item = Message(20, 0);
  *item.add_events() = Event("a", "1", 12);
  v1::WatchResponse synced = Message(20, 21);
  synced.set_synced(true);
  a_.Play({{Started(3), reset, item}, Gone()});
  b_.Play({{Started(0), item, synced, Put("a", "2", 21)}, std::nullopt});
  const RanWatch ran = Quorate({"watch", "--from-revision", "3", "--count", "3"});
  EXPECT_EQ(ran.exit, kExitOk) << ran.err;
  EXPECT_EQ(ran.out, "12 item a 1\n12 item a 1\n21 put a 2\n");
  EXPECT_THAT(ran.err, HasSubstr("the items as of revision 20"));
  EXPECT_THAT(ran.err, HasSubstr("going on from the beginning"));
  EXPECT_THAT(a_.asked(), ElementsAre("from 3"));
  EXPECT_THAT(b_.asked(), ElementsAre("initial"));
}

TEST_F(CliWatchTest, SaysThatTheLeaderIsLost) {
  v1::WatchResponse lost = Message(4, 5);
  lost.set_leader_lost(true);
  v1::WatchResponse found = Message(4, 5);
  found.set_leader_found(true);
  a_.Play({{Started(5), lost, found, Put("a", "1", 5)}, std::nullopt});
  const RanWatch ran = Quorate({"watch", "--count", "1"});
  EXPECT_THAT(ran.err, HasSubstr("n1 has lost its leader"));
  EXPECT_THAT(ran.err, HasSubstr("n1 has a leader again"));
  EXPECT_EQ(ran.out, "5 put a 1\n");
}

// Whoever is asked to says how far it has come, so that the next run can go on from there.
TEST_F(CliWatchTest, SaysItsProgressWhenAsked) {
  v1::WatchResponse progress = Message(9, 10);
  progress.set_progress(true);
  for (int i = 0; i < 3; ++i) {
    a_.Play({{Started(5), progress, Put("a", "1", 10)}, std::nullopt});
  }
  EXPECT_THAT(Quorate({"watch", "--count", "1"}).err, IsEmpty());
  EXPECT_EQ(a_.progress_ms(), 5000);
  const RanWatch said = Quorate({"watch", "--count", "1", "--progress", "1500ms"});
  EXPECT_THAT(said.err, HasSubstr("nothing up to revision 9 is missing"));
  EXPECT_EQ(said.out, "10 put a 1\n");
  EXPECT_EQ(a_.progress_ms(), 1500);
  const RanWatch json = Quorate({"watch", "--count", "1", "--progress", "1s", "-o", "json"});
  ASSERT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 2) << json.out;
  const auto first = nlohmann::json::parse(json.out.substr(0, json.out.find('\n')));
  EXPECT_EQ(first["progress"], true);
  EXPECT_EQ(first["resumeRevision"], "10");
}

TEST_F(CliWatchTest, PrintsOneLineOfJsonForAMessage) {
  v1::WatchResponse message = Put("a", "1", 5);
  *message.add_events() = Event("b", "2", 5);
  message.mutable_events(0)->mutable_previous()->set_text("0");
  a_.Play({{Started(5), message}, std::nullopt});
  const RanWatch ran = Quorate({"watch", "-o", "json", "--previous", "--count", "2"});
  ASSERT_EQ(std::count(ran.out.begin(), ran.out.end(), '\n'), 1) << ran.out;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["resumeRevision"], "6");
  EXPECT_EQ(json["events"][0]["previous"]["text"], "0");
  EXPECT_EQ(json["events"][1]["item"]["key"], "b");
}

TEST_F(CliWatchTest, RunsACommandForEachEvent) {
  std::string file = testing::TempDir() + "/cli_watch.XXXXXX";
  close(mkstemp(file.data()));
  const std::string large(300'000, 'x');
  a_.Play({{Started(5), Put("a", "1", 5, 1), Put("fails", large, 6)}, std::nullopt});
  const RanWatch ran =
      Quorate({"watch", "--count", "2", "--exec",
               "echo $QUORATE_WATCH_EVENT $QUORATE_WATCH_KEY $QUORATE_WATCH_REVISION "
               "$(wc -c) >> " +
                   file + "; test $QUORATE_WATCH_KEY = a"});
  EXPECT_EQ(ran.exit, kExitOk);
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  EXPECT_EQ(text.str(), "create a 5 1\nput fails 6 300000\n");
  EXPECT_THAT(ran.err, HasSubstr("--exec: exit status 1 for fails at revision 6"));
  std::filesystem::remove(file);
}

TEST(WatcherTest, AStreamThatGoesSilentIsGivenUp) {
  WatchNode a, b;
  a.Play({{Started(5), Put("a", "1", 5)}, std::nullopt});
  b.Play({{Started(6), Put("a", "2", 6)}, std::nullopt});
  Client client({.endpoints = {a.address(), b.address()}});
  WatcherOptions options;
  options.request.set_prefix("");
  options.silence = milliseconds(100);
  std::vector<uint64_t> told;
  std::vector<uint64_t> resumed;
  const CallResult end = Watcher(
                             client, options,
                             [&](const v1::WatchResponse& message) {
                               if (message.events_size() > 0) {
                                 told.push_back(message.header().revision());
                               }
                               return told.size() < 2;
                             },
                             [&](const CallResult&, uint64_t at) { resumed.push_back(at); })
                             .Run();
  EXPECT_TRUE(end.ok());
  EXPECT_THAT(told, ElementsAre(5, 6));
  EXPECT_THAT(resumed, ElementsAre(6));
}

TEST(WatcherTest, ANodeThatEndsEachStreamAtOnceIsNotAskedWithoutAPause) {
  WatchNode node;
  for (int i = 0; i < 3; ++i) node.Play({{Started(5)}, Gone()});
  node.Play({{Put("a", "1", 5)}, std::nullopt});
  Client client({.endpoints = {node.address()}});
  WatcherOptions options;
  options.request.set_prefix("");
  options.retry_delay = milliseconds(50);
  int broken = 0;
  const auto before = std::chrono::steady_clock::now();
  const CallResult end =
      Watcher(
          client, options,
          [&](const v1::WatchResponse& message) { return message.events_size() == 0; },
          [&](const CallResult&, uint64_t) { ++broken; })
          .Run();
  EXPECT_TRUE(end.ok());
  EXPECT_EQ(broken, 3);
  EXPECT_GE(std::chrono::steady_clock::now() - before, 3 * options.retry_delay);
}

// --- Errors ---

TEST_F(CliWatchTest, ARefusalThatEveryNodeWouldRepeatEndsIt) {
  a_.Play({{},
           services::MakeError(grpc::StatusCode::OUT_OF_RANGE, "REVISION_IN_FUTURE",
                               "start_revision: is 99, the store is at revision 3")});
  const RanWatch ran = Quorate({"watch", "--from-revision", "99"});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("REVISION_IN_FUTURE"));
  EXPECT_THAT(b_.asked(), IsEmpty());
}

TEST_F(CliWatchTest, NoStreamInTimeIsUnavailable) {
  const RanWatch ran = Quorate({"watch"}, "300ms");
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("NOT_CAUGHT_UP"));
}

TEST_F(CliWatchTest, AnotherClusterIsNotTheSameStory) {
  v1::WatchResponse other = Started(6);
  other.mutable_header()->set_cluster_id("00000000000000bb");
  a_.Play({{Started(5), Put("a", "1", 5)}, Gone()});
  b_.Play({{other}, std::nullopt});
  const RanWatch ran = Quorate({"watch"});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("OTHER_CLUSTER"));
}

TEST_F(CliWatchTest, SaysWhatIsWrongWithTheFlags) {
  EXPECT_EQ(Quorate({"watch", "a", "--key", "b"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"watch", "--initial", "--from-revision", "3"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"watch", "--count", "0"}).exit, kExitUsage);
  EXPECT_THAT(a_.asked(), IsEmpty());
}

}  // namespace
}  // namespace quorate::tools
