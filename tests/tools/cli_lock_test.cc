// `quorate lock` and `quorate elect` against a node that keeps time-to-lives as it is told.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "base/ids.h"
#include "gmock/gmock.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tools/child.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::IsEmpty;

// Items and time-to-lives of one store; nothing expires by itself.
class LockNode final : public v1::Config::Service, public v1::Cluster::Service {
 public:
  LockNode() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<v1::Config::Service*>(this));
    builder.RegisterService(static_cast<v1::Cluster::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~LockNode() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void PutItem(const std::string& key, const std::string& text) {
    const std::lock_guard lock(mutex_);
    v1::Item& item = items_[key];
    item.set_key(key);
    item.set_text(text);
    item.set_mod_revision(++revision_);
    if (item.create_revision() == 0) item.set_create_revision(revision_);
  }
  void Erase(const std::string& key) {
    const std::lock_guard lock(mutex_);
    if (items_.erase(key) > 0) ++revision_;
  }
  // Renewals are answered with this from now on.
  void RefuseRenewals(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    renewal_ = status;
  }
  std::vector<std::string> keys() {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> keys;
    for (const auto& [key, item] : items_) keys.push_back(key);
    return keys;
  }
  size_t ttls() {
    const std::lock_guard lock(mutex_);
    return ttls_.size();
  }
  int renewals() {
    const std::lock_guard lock(mutex_);
    return renewals_;
  }

 private:
  void Fill(v1::ResponseHeader* header) {
    header->set_cluster_id("00000000000000aa");
    header->set_node_id("n1");
    header->set_revision(revision_);
  }

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusResponse* response) override {
    const std::lock_guard lock(mutex_);
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status GrantTtl(grpc::ServerContext*, const v1::GrantTtlRequest* request,
                        v1::GrantTtlResponse* response) override {
    const std::lock_guard lock(mutex_);
    response->set_ttl_id(ToHex(0xa0 + ++granted_));
    ttls_.insert(response->ttl_id());
    *response->mutable_ttl() = request->ttl();
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status KeepAliveTtl(grpc::ServerContext*,
                            grpc::ServerReaderWriter<v1::KeepAliveTtlResponse,
                                                     v1::KeepAliveTtlRequest>* stream) override {
    v1::KeepAliveTtlRequest request;
    while (stream->Read(&request)) {
      v1::KeepAliveTtlResponse response;
      {
        const std::lock_guard lock(mutex_);
        ++renewals_;
        response.set_ttl_id(request.ttl_id());
        response.set_code(renewal_.error_code());
        if (!renewal_.ok()) response.set_status(services::ToProto(renewal_).SerializeAsString());
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status RevokeTtl(grpc::ServerContext*, const v1::RevokeTtlRequest* request,
                         v1::RevokeTtlResponse* response) override {
    const std::lock_guard lock(mutex_);
    if (ttls_.erase(request->ttl_id()) == 0) {
      return services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "gone");
    }
    response->set_deleted(std::erase_if(
        items_, [&](const auto& each) { return each.second.ttl_id() == request->ttl_id(); }));
    ++revision_;
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status Put(grpc::ServerContext*, const v1::PutRequest* request,
                   v1::PutResponse* response) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(ttls_.contains(request->ttl_id()));
    EXPECT_EQ(request->expected_revision(), 0u);
    v1::Item& item = items_[request->key()];
    item.set_key(request->key());
    item.set_text(request->text());
    item.set_ttl_id(request->ttl_id());
    item.set_create_revision(++revision_);
    item.set_mod_revision(revision_);
    response->set_create_revision(revision_);
    Fill(response->mutable_header());
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request, v1::GetResponse*) override {
    const std::lock_guard lock(mutex_);
    if (items_.contains(request->key())) return grpc::Status::OK;
    return services::MakeError(grpc::StatusCode::NOT_FOUND, "KEY_NOT_FOUND", "no such key");
  }
  // Two items a page.
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request,
                    v1::ListResponse* response) override {
    const std::lock_guard lock(mutex_);
    Fill(response->mutable_header());
    for (const auto& [key, item] : items_) {
      if (!key.starts_with(request->prefix()) || key <= request->page_token()) continue;
      if (response->items_size() == 2) {
        response->set_next_page_token(response->items(1).key());
        break;
      }
      *response->add_items() = item;
    }
    return grpc::Status::OK;
  }
  // Of a key: its deletion. Of a prefix: the state, again and again, as a new one each time.
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    uint64_t shown = 0;
    while (!context->IsCancelled()) {
      v1::WatchResponse message;
      {
        const std::lock_guard lock(mutex_);
        Fill(message.mutable_header());
        message.set_resume_revision(revision_ + 1);
        if (request->has_key() && !items_.contains(request->key())) {
          v1::WatchEvent* event = message.add_events();
          event->set_type(v1::WatchEvent::TYPE_DELETE);
          event->mutable_item()->set_key(request->key());
        }
        if (!request->has_key() && shown != revision_) {
          for (const auto& [key, item] : items_) {
            v1::WatchEvent* event = message.add_events();
            event->set_type(v1::WatchEvent::TYPE_PUT);
            *event->mutable_item() = item;
          }
          message.set_reset(true);
          message.set_synced(true);
        }
        shown = revision_;
      }
      if (message.reset() || message.events_size() > 0) writer->Write(message);
      std::this_thread::sleep_for(milliseconds(5));
    }
    return grpc::Status::CANCELLED;
  }

  std::mutex mutex_;  // protects what follows
  uint64_t revision_ = 1;
  uint64_t granted_ = 0;
  int renewals_ = 0;
  std::map<std::string, v1::Item> items_;
  std::set<std::string> ttls_;
  grpc::Status renewal_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

struct RanLock {
  int exit;
  std::string out;
  std::string err;
};

class CliLock : public testing::Test {
 protected:
  CliLock() { std::filesystem::remove(file_); }
  ~CliLock() override { std::filesystem::remove(file_); }

  RanLock Quorate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"quorate", "--endpoints", node_.address(), "--timeout", "5s"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }
  // Runs `script` by a shell while holding "job"; $F is the file.
  RanLock Lock(const std::string& script, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments = {"lock", "job"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    arguments.insert(arguments.end(), {"--", "/bin/sh", "-c", "F=" + file_ + "; " + script});
    return Quorate(arguments);
  }
  std::string Written() const {
    std::ifstream file(file_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Await(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::sleep_for(milliseconds(5));
    }
  }

  LockNode node_;
  const std::string file_ = testing::TempDir() + "/quorate-lock-test-" + std::to_string(getpid());
};

TEST_F(CliLock, RunsTheCommandAndReleases) {
  const RanLock ran = Lock("echo $QUORATE_LOCK_KEY $QUORATE_LOCK_TOKEN > $F; exit 7");
  EXPECT_EQ(ran.exit, 7) << ran.err;
  EXPECT_EQ(Written(), "job/00000000000000a1 2\n");
  EXPECT_THAT(node_.keys(), IsEmpty());
  EXPECT_EQ(node_.ttls(), 0u);
}

TEST_F(CliLock, WaitsForTheOneBeforeItOnly) {
  // Two before it, on two pages with one behind it; and another name's.
  node_.PutItem("job/z", "first");
  node_.PutItem("job/y", "second");
  node_.PutItem("jobs/x", "another");
  std::thread others([this] {
    Await([this] { return node_.keys().size() == 4; });
    node_.PutItem("job/a", "behind");
    node_.Erase("job/z");  // not the one before it
    std::this_thread::sleep_for(milliseconds(100));
    EXPECT_EQ(Written(), "");
    node_.Erase("job/y");
  });
  const RanLock ran = Lock("echo held > $F");
  others.join();
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
  EXPECT_THAT(ran.err, HasSubstr("waiting for job/y"));
}

TEST_F(CliLock, GivesUpWaiting) {
  node_.PutItem("job/z", "first");
  const RanLock ran = Lock("echo held > $F", {"--wait", "200ms"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("not obtained within 200ms"));
  EXPECT_EQ(Written(), "");
  EXPECT_EQ(node_.ttls(), 0u) << "its place is given up";
}

TEST_F(CliLock, IsKeptAliveWhileTheCommandRuns) {
  const RanLock ran = Lock("sleep 1.5", {"--ttl", "1s"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_GE(node_.renewals(), 2);
}

TEST_F(CliLock, ACommandWhoseLockHasEndedIsEnded) {
  node_.RefuseRenewals(
      services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "it has expired"));
  const RanLock ran = Lock("trap '' TERM; while :; do sleep 0.1; done", {"--ttl", "1s"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("lost: it has ended"));
}

// First it is asked to end, while it certainly holds it, then it is made to.
TEST_F(CliLock, ACommandWhoseLockCannotBeKeptIsToldFirst) {
  node_.RefuseRenewals(
      services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
  const RanLock ran =
      Lock("trap 'echo told > $F; exit 0' TERM; while :; do sleep 0.05; done", {"--ttl", "2s"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_EQ(Written(), "told\n");
  EXPECT_THAT(ran.err, HasSubstr("NO_LEADER"));
  EXPECT_GT(node_.renewals(), 3) << "it has tried";
}

TEST_F(CliLock, AKeyThatSomebodyDeletesIsALostLock) {
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 1; });
    node_.Erase("job/00000000000000a1");
  });
  const RanLock ran = Lock("sleep 60", {"--ttl", "1s"});
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("KEY_NOT_FOUND"));
}

// Whoever comes next has the lock alone: this one has no key any more that would hold him off.
TEST_F(CliLock, OneWhoseKeyIsDeletedWhileItWaitsTakesNoTurn) {
  node_.PutItem("job/z", "first");
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 2; });
    node_.Erase("job/00000000000000a1");
    node_.Erase("job/z");
  });
  const RanLock ran = Lock("echo held > $F");
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("its key is not there any more"));
  EXPECT_EQ(Written(), "");
  EXPECT_EQ(node_.ttls(), 0u);
}

TEST_F(CliLock, AFreeOneIsTakenWithoutWaiting) {
  const RanLock ran = Lock("echo held > $F", {"--wait", "0s"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
}

// The shell ends at once, what it has started does not.
TEST_F(CliLock, WhatTheCommandHasStartedEndsBeforeTheLockIsReleased) {
  node_.RefuseRenewals(
      services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "it has expired"));
  const RanLock ran = Lock("(trap '' TERM; exec sleep 600) & echo $! > $F; wait", {"--ttl", "1s"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  std::ifstream stat("/proc/" + Written().substr(0, Written().size() - 1) + "/stat");
  std::string pid, name, state = "gone";
  stat >> pid >> name >> state;
  EXPECT_THAT(state, testing::AnyOf("gone", "Z", "X"));
}

TEST_F(CliLock, AnElectedOneRunsItsCommandToo) {
  const RanLock ran = Quorate({"elect", "boss", "--value", "me", "--", "/bin/sh", "-c",
                               "echo $QUORATE_LOCK_KEY > " + file_});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "boss/00000000000000a1\n");
}

TEST_F(CliLock, AnElectedOneWithoutACommandEndsWhenItIsLost) {
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 1; });
    node_.RefuseRenewals(
        services::MakeError(grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND", "it has expired"));
  });
  const RanLock ran = Quorate({"-o", "json", "elect", "boss", "--value", "me", "--ttl", "1s"});
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.out, HasSubstr("\"value\": \"me\""));
  EXPECT_THAT(ran.out, HasSubstr("\"createRevision\": \"2\""));
}

// --- Errors ---

TEST_F(CliLock, UsageIsChecked) {
  EXPECT_EQ(Quorate({"lock", "job"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"lock"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"lock", "", "--", "true"}).exit, kExitUsage);
  EXPECT_EQ(Lock("true", {"--ttl", "999ms"}).exit, kExitUsage);
  EXPECT_EQ(Lock("true", {"--ttl", "soon"}).exit, kExitUsage);
  EXPECT_EQ(Lock("true", {"--wait", "long"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"elect", "boss", "--listen", "--", "true"}).exit, kExitUsage);
  EXPECT_EQ(node_.ttls(), 0u);
}

TEST_F(CliLock, ACommandThatCannotBeStarted) {
  const RanLock ran = Quorate({"lock", "job", "--", "/no/such/command"});
  EXPECT_EQ(ran.exit, kExitNotFound);
  EXPECT_THAT(ran.err, HasSubstr("/no/such/command"));
  EXPECT_EQ(node_.ttls(), 0u);
  EXPECT_EQ(Quorate({"lock", "job", "--", "/"}).exit, kExitError);
}

TEST(Child, SaysHowItEnded) {
  const auto end = [](Child child) {
    std::optional<int> status;
    while (!(status = child.Ended())) std::this_thread::sleep_for(milliseconds(2));
    return *status;
  };
  auto exits = Child::Start({"sh", "-c", "exit $CODE"}, {{"CODE", "5"}});
  ASSERT_TRUE(exits.ok()) << exits.status();
  EXPECT_EQ(end(*exits), 5);
  auto sleeps = Child::Start({"sleep", "600"}, {});
  ASSERT_TRUE(sleeps.ok());
  EXPECT_FALSE(sleeps->Ended().has_value());
  sleeps->Signal(SIGTERM);
  EXPECT_EQ(end(*sleeps), 128 + SIGTERM);
  EXPECT_TRUE(absl::IsNotFound(Child::Start({"no-such-command"}, {}).status()));
}

}  // namespace
}  // namespace quorate::tools
