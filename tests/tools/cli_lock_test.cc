// `quorate lock` and `quorate elect` against a node that keeps time-to-lives as it is told.
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/ttl_node.h"
#include "tools/child.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::IsEmpty;

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

  TtlNode node_;
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
  node_.Contend("job", "z");
  node_.Contend("job", "y");
  node_.Contend("jobs", "x");
  std::thread others([this] {
    Await([this] { return node_.keys().size() == 4; });
    node_.Contend("job", "a");
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

// Those of a name below, keys that are bound to something else, and those that a rollback has
// brought back plain, after their holders have gone.
TEST_F(CliLock, NobodyElseBelowItsNameCounts) {
  node_.Contend("job/nightly", "z");
  node_.PutItem("job/config", "x");
  node_.PutItem("job/up", "x", "00000000000000ff");
  node_.PutItem("job/0000000000000001", "x");
  const RanLock ran = Lock("echo held > $F", {"--wait", "0s"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
}

// He does not stand for anybody any more.
TEST_F(CliLock, OneBeforeItThatBecomesPlainIsNotWaitedFor) {
  node_.Contend("job", "z");
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 2; });
    std::this_thread::sleep_for(milliseconds(50));
    node_.PutItem("job/z", "plain");
  });
  const RanLock ran = Lock("echo held > $F");
  other.join();
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
}

TEST_F(CliLock, GivesUpWaiting) {
  node_.Contend("job", "z");
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

// However long its time is.
TEST_F(CliLock, AKeyThatSomebodyDeletesIsALostLock) {
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 1; });
    node_.Erase("job/00000000000000a1");
  });
  const RanLock ran = Lock("sleep 60", {"--ttl", "24h"});
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("lost: its key is not there any more"));
  EXPECT_EQ(node_.renewals(), 0);
}

TEST_F(CliLock, AKeyThatSomebodyPutsIsALostLock) {
  std::thread other([this] {
    Await([this] { return !Written().empty(); });
    node_.PutItem("job/00000000000000a1", "plain");
  });
  const RanLock ran = Lock("echo held > $F; sleep 60", {"--ttl", "24h"});
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("lost: its key was put by somebody else"));
}

// The listing takes longer than it can be kept.
TEST_F(CliLock, WhatIsLostBeforeTheCommandStartsIsNotRun) {
  node_.RefuseRenewals(
      services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
  node_.DelayLists(milliseconds(950));
  const RanLock ran = Lock("echo held > $F", {"--ttl", "1s"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("could not be kept alive, and may have ended"));
  EXPECT_EQ(Written(), "");
}

// Some supervisors ignore it, and what ends is then waited for by nobody.
TEST_F(CliLock, AnIgnoredSigchldDoesNotHideTheEnd) {
  signal(SIGCHLD, SIG_IGN);
  EXPECT_EQ(Lock("exit 7").exit, 7);
  signal(SIGCHLD, SIG_DFL);
}

// Whoever comes next has the lock alone: this one has no key any more that would hold him off.
TEST_F(CliLock, OneWhoseKeyIsDeletedWhileItWaitsTakesNoTurn) {
  node_.Contend("job", "z");
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
  EXPECT_EQ(Lock("true", {"--ttl", "25h"}).exit, kExitUsage);
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
  auto taken = Child::Start({"true"}, {});
  ASSERT_TRUE(taken.ok());
  EXPECT_GT(waitpid(-1, nullptr, 0), 0);
  EXPECT_EQ(end(*taken), Child::kStatusUnknown) << "somebody else was told";
}

}  // namespace
}  // namespace quorate::tools
