// How the command of `quorate lock` ends, or is kept from it: signals, terminals, what it leaves
// behind, and readers that do not read.
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <sstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/cli_lock_fixture.h"
#include "tools/child.h"
#include "tools/cli_lock_speaker.h"
#include "tools/interrupt.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

bool HasDefault(int signal) {
  struct sigaction now;
  sigaction(signal, nullptr, &now);
  return now.sa_handler == SIG_DFL;
}

class CliLockEnd : public CliLock {
 protected:
  CliLockEnd() { InstallInterrupts(); }
  ~CliLockEnd() override {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
  }
  void RefuseRenewals() {
    node_.RefuseRenewals(
        services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
  }
  // To this process, if it survives that.
  void Send(int signal) {
    ASSERT_FALSE(HasDefault(signal)) << "it would stop or end";
    kill(getpid(), signal);
  }
  pid_t WrittenProcess() {
    Await([this] { return !Written().empty(); });
    pid_t pid = 0;
    std::istringstream(Written()) >> pid;
    return pid;
  }
};

// `quorate lock ... 2>&1 | less`: the first line of trouble is the last that fits.
TEST_F(CliLockEnd, AReaderThatDoesNotReadKeepsNoCommandAlive) {
  RefuseRenewals();
  err_.Block(true);
  std::thread reader([this] {
    const pid_t pid = WrittenProcess();
    Await([pid] { return pid > 0 && kill(pid, 0) != 0; });
    err_.Block(false);
  });
  const RanLock ran =
      Lock("trap '' TERM; echo $$ > $F; while :; do sleep 0.05; done", {"--ttl", "3s"});
  reader.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("NO_LEADER"));
  EXPECT_THAT(ran.err, HasSubstr("the command is told to end"));
}

TEST_F(CliLockEnd, AReaderThatDoesNotReadDoesNotKeepTheLock) {
  RefuseRenewals();
  err_.Block(true);
  std::thread reader([this] {
    WrittenProcess();
    Await([this] { return node_.renewals() > 3; });  // there is something to say
    node_.RefuseRenewals(grpc::Status::OK);
    Go();
    Await([this] { return node_.keys().empty(); });
    err_.Block(false);
  });
  const RanLock ran =
      Lock("echo $$ > $F; while [ ! -e $F.go ]; do sleep 0.01; done; exit 7", {"--ttl", "3s"});
  reader.join();
  EXPECT_EQ(ran.exit, 7);
}

// The terminal goes away, or Ctrl-\ is pressed. A shell and the kernel may both say SIGHUP.
TEST_F(CliLockEnd, AHangupIsPassedOnAndTheEndAwaited) {
  for (const int signal : {SIGHUP, SIGQUIT}) {
    std::filesystem::remove(file_);
    std::filesystem::remove(file_ + ".go");
    done_ = false;
    std::thread terminal([this, signal] {
      Await([this] { return Written() == "up\n"; });
      Send(signal);
      Await([] { return Interrupted(); });
      if (signal == SIGHUP) Send(signal);
      Go();
      AwaitDone();
    });
    const RanLock ran = Lock(
        "trap 'while [ ! -e $F.go ]; do sleep 0.01; done; echo told > $F; exit 0' TERM; "
        "echo up > $F; while :; do sleep 0.02; done",
        {"--ttl", "3s"});
    terminal.join();
    EXPECT_EQ(ran.exit, kExitInterrupted) << ran.err;
    EXPECT_EQ(Written(), "told\n");
    EXPECT_THAT(node_.keys(), IsEmpty());
    EXPECT_TRUE(HasDefault(signal)) << "only meanwhile";
  }
}

// `quorate lock job -- worker < /dev/null` in a terminal: the command would go on alone.
TEST_F(CliLockEnd, CtrlZDoesNotStopWhoKeepsTheLock) {
  std::thread terminal([this] {
    Await([this] { return !Written().empty(); });
    Send(SIGTSTP);
    const int renewals = node_.renewals();
    Await([&] { return node_.renewals() > renewals; });
    Go();
    AwaitDone();
  });
  const RanLock ran =
      Lock("echo up > $F; while [ ! -e $F.go ]; do sleep 0.01; done; exit 7", {"--ttl", "3s"});
  terminal.join();
  EXPECT_EQ(ran.exit, 7) << ran.err;
  EXPECT_TRUE(HasDefault(SIGTSTP)) << "only meanwhile";
}

// As one is that reads from the terminal in the background.
TEST_F(CliLockEnd, AStoppedCommandIsToldAndCanBeEnded) {
  std::thread user([this] {
    Await([this] { return err_.Has("has stopped"); });
    Send(SIGTERM);
    AwaitDone();
  });
  const RanLock ran = Lock("kill -STOP $$; sleep 600", {"--ttl", "10s"});
  user.join();
  EXPECT_EQ(ran.exit, kExitInterrupted) << ran.err;
  EXPECT_THAT(node_.keys(), IsEmpty());
}

// This process takes orphans, as the first one of a container does.
TEST_F(CliLockEnd, OrphansThatHaveEndedDoNotKeepTheLock) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  std::thread supervisor([this] {
    WrittenProcess();
    Send(SIGTERM);
    AwaitDone();
  });
  const RanLock ran = Lock("sleep 600 & echo $! > $F; wait", {"--ttl", "3s"});
  supervisor.join();
  prctl(PR_SET_CHILD_SUBREAPER, 0);
  EXPECT_EQ(ran.exit, kExitInterrupted) << ran.err;
  EXPECT_THAT(node_.keys(), IsEmpty());
}

// Whoever is root may end everybody; without this he may not.
class WithoutKillCapability {
 public:
  WithoutKillCapability() {
    if (syscall(SYS_capget, &header_, before_) != 0) return;
    if ((before_[0].effective & kKill) == 0) return;
    __user_cap_data_struct now[2] = {before_[0], before_[1]};
    now[0].effective &= ~kKill;
    dropped_ = syscall(SYS_capset, &header_, now) == 0;
  }
  ~WithoutKillCapability() {
    if (dropped_) syscall(SYS_capset, &header_, before_);
  }

 private:
  static constexpr uint32_t kKill = 1u << CAP_KILL;
  __user_cap_header_struct header_ = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2] = {};
  bool dropped_ = false;
};

// `sh -c 'sudo worker'`: the shell can be ended, the worker cannot.
TEST_F(CliLockEnd, WhatMayNotBeEndedKeepsTheLockAndIsTold) {
  constexpr uid_t kNobody = 65534;
  if (geteuid() != 0 || access("/usr/bin/setpriv", X_OK) != 0) {
    GTEST_SKIP() << "only root can start somebody else's process";
  }
  std::thread supervisor([this] {
    const pid_t pid = WrittenProcess();
    Await([pid] {
      struct stat owner = {};
      return stat(("/proc/" + std::to_string(pid)).c_str(), &owner) == 0 && owner.st_uid == kNobody;
    });
    Send(SIGTERM);
    Await([this] { return err_.Has("end it by hand"); });
    const int renewals = node_.renewals();
    Await([&] { return node_.renewals() > renewals + 1; });
    EXPECT_THAT(node_.keys(), SizeIs(1)) << "released too early";
    kill(pid, SIGKILL);
    AwaitDone();
  });
  const WithoutKillCapability without;
  const RanLock ran =
      Lock("/usr/bin/setpriv --reuid=65534 --clear-groups sleep 600 & echo $! > $F; wait",
           {"--ttl", "3s"});
  supervisor.join();
  EXPECT_EQ(ran.exit, kExitInterrupted) << ran.err;
  EXPECT_THAT(node_.keys(), IsEmpty());
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

// Its parent has left the group, goes on and never waits for it.
TEST_F(CliLockEnd, OneThatHasEndedDoesNotCountIfNobodyWaitsForIt) {
  auto child = Child::Start({"sh", "-c", "(true & exec setsid sleep 600) & echo $! $$ > " + file_},
                            {}, true);
  ASSERT_TRUE(child.ok()) << child.status();
  Await([&] { return child->Ended().has_value(); });
  Await([&] { return !child->GroupRuns(); });
  pid_t parent = 0, group = 0;
  std::istringstream(Written()) >> parent >> group;
  ASSERT_GT(parent, 0);
  EXPECT_EQ(kill(-group, 0), 0) << "there is none: this shows nothing";
  kill(parent, SIGKILL);
}

TEST(Speaker, ForgetsTheOldestOfWhatNobodyReads) {
  PipeBuffer pipe;
  std::ostream out(&pipe);
  pipe.Block(true);
  {
    Speaker speaker(out);
    for (size_t i = 0; i < 10 * Speaker::kTextsMax; ++i) speaker.Say("x");
    speaker.Say("last");
    pipe.Block(false);
  }
  const std::string said = pipe.text();
  EXPECT_THAT(said, testing::EndsWith("xlast"));
  // One more is on its way.
  EXPECT_LE(said.size(), Speaker::kTextsMax + 4);
}

}  // namespace
}  // namespace quorate::tools
