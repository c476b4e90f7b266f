// `quorate lock` and `quorate elect` against a node that keeps time-to-lives as it is told.
#include <csignal>
#include <fstream>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/cli_lock_fixture.h"

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSubsetOf;

// Time-to-lives: sorted before and behind the one that the node grants first.
const std::string kA = "0000000000000001", kX = "00000000000000f0", kY = "00000000000000f1",
                  kZ = "00000000000000f2";

TEST_F(CliLock, RunsTheCommandAndReleases) {
  const RanLock ran = Lock("echo $QUORATE_LOCK_KEY $QUORATE_LOCK_TOKEN > $F; exit 7");
  EXPECT_EQ(ran.exit, 7) << ran.err;
  EXPECT_EQ(Written(), "job/00000000000000a1 2\n");
  EXPECT_THAT(node_.keys(), IsEmpty());
  EXPECT_EQ(node_.ttls(), 0u);
}

TEST_F(CliLock, WaitsForTheOneBeforeItOnly) {
  // Two before it, on two pages with one behind it; and another name's.
  node_.Contend("job", kZ);
  node_.Contend("job", kY);
  node_.Contend("jobs", kX);
  std::thread others([this] {
    Await([this] { return !node_.watched().empty(); });
    node_.Contend("job", kA);
    node_.Erase("job/" + kZ);  // not the one before it
    const int looks = node_.looks();
    Await([&] { return node_.looks() > looks + 1; });
    EXPECT_EQ(Written(), "");
    node_.Erase("job/" + kY);
  });
  const RanLock ran = Lock("echo held > $F");
  others.join();
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
  EXPECT_THAT(ran.err, HasSubstr("waiting for job/" + kY));
  EXPECT_THAT(node_.watched(), ElementsAre("job/" + kY));
}

// Configuration, say, and more of it than can be read in time.
TEST_F(CliLock, ValuesBelowItsNameAreNotRead) {
  node_.Contend("job", kZ);
  node_.PutItem("job/config", "x");
  node_.PutItem("job/config/00000000000000f1", "x");
  node_.PutItem("job/00000000000000F1", "x");
  std::thread other([this] {
    Await([this] { return !node_.watched().empty(); });
    node_.Erase("job/" + kZ);
  });
  const RanLock ran = Lock("echo held > $F");
  other.join();
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(node_.values_listed(), 0);
  // Its own is looked for while it is held.
  EXPECT_THAT(node_.keys_got(), IsSubsetOf({"job/" + kZ, std::string("job/00000000000000a1")}));
}

TEST_F(CliLock, OneOfItsFormThatStandsForNobodyDoesNotHideOneBefore) {
  node_.Contend("job", kZ);
  node_.PutItem("job/" + kY, "plain");
  const RanLock ran = Lock("echo held > $F", {"--wait", "0s"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_EQ(Written(), "");
}

// Those of a name below, keys that are bound to something else, and those that a rollback has
// brought back plain, after their holders have gone.
TEST_F(CliLock, NobodyElseBelowItsNameCounts) {
  node_.Contend("job/nightly", kZ);
  node_.PutItem("job/config", "x");
  node_.PutItem("job/up", "x", "00000000000000ff");
  node_.PutItem("job/0000000000000001", "x");
  const RanLock ran = Lock("echo held > $F", {"--wait", "0s"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
}

// He does not stand for anybody any more.
TEST_F(CliLock, OneBeforeItThatBecomesPlainIsNotWaitedFor) {
  node_.Contend("job", kZ);
  std::thread other([this] {
    Await([this] { return !node_.watched().empty(); });
    node_.PutItem("job/" + kZ, "plain");
  });
  const RanLock ran = Lock("echo held > $F");
  other.join();
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(Written(), "held\n");
}

TEST_F(CliLock, GivesUpWaiting) {
  node_.Contend("job", kZ);
  const RanLock ran = Lock("echo held > $F", {"--wait", "200ms"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("not obtained within 200ms"));
  EXPECT_EQ(Written(), "");
  EXPECT_EQ(node_.ttls(), 0u) << "its place is given up";
}

TEST_F(CliLock, IsKeptAliveWhileTheCommandRuns) {
  const RanLock ran = Lock("sleep 2.5", {"--ttl", "2s"});
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
    Await([this] { return !Written().empty(); });
    node_.Erase("job/00000000000000a1");
  });
  const RanLock ran = Lock("echo held > $F; exec sleep 60", {"--ttl", "24h"});
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
  node_.Contend("job", kZ);
  std::thread other([this] {
    Await([this] { return node_.keys().size() == 2; });
    node_.Erase("job/00000000000000a1");
    node_.Erase("job/" + kZ);
  });
  const RanLock ran = Lock("echo held > $F");
  other.join();
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("its key is not there any more"));
  EXPECT_EQ(Written(), "");
  EXPECT_EQ(node_.ttls(), 0u);
}

// It was there when the keys were listed; and when those before it are found to be gone it is not.
TEST_F(CliLock, OneWhoseKeyIsDeletedBehindItsListingTakesNoTurn) {
  node_.Contend("job", kZ);
  node_.EraseBeforeGet({"job/00000000000000a1", "job/" + kZ});
  const RanLock ran = Lock("echo held > $F");
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
  for (const std::vector<std::string>& no_listener : {std::vector<std::string>{"--", "true"},
                                                      {"--wait", "5s"},
                                                      {"--ttl", "5s"},
                                                      {"--value", "x"}}) {
    std::vector<std::string> arguments = {"elect", "boss", "--listen"};
    arguments.insert(arguments.end(), no_listener.begin(), no_listener.end());
    // One that listens all the same does so until it is refused.
    node_.RefuseWatches();
    EXPECT_EQ(Quorate(arguments).exit, kExitUsage) << no_listener.front();
  }
  EXPECT_EQ(node_.ttls(), 0u);
}

TEST_F(CliLock, ACommandThatCannotBeStarted) {
  const RanLock ran = Quorate({"lock", "job", "--", "/no/such/command"});
  EXPECT_EQ(ran.exit, kExitNotFound);
  EXPECT_THAT(ran.err, HasSubstr("/no/such/command"));
  EXPECT_EQ(node_.ttls(), 0u);
  EXPECT_EQ(Quorate({"lock", "job", "--", "/"}).exit, kExitError);
}

}  // namespace
}  // namespace quorate::tools
