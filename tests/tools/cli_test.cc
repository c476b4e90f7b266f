// The command from its arguments to its exit code, against nodes of fake_node.h.
#include "tools/cli.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/errors.h"
#include "tests/tools/fake_node.h"
#include "tools/tree.h"

namespace quorate::tools {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

struct Ran {
  int exit;
  std::string out;
  std::string err;
};

class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/cli_test.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { fs::remove_all(directory_); }

  // Runs `quorate ARGS...` with the nodes as endpoints.
  Ran Quorate(std::vector<std::string> arguments, const std::string& input = "",
              bool terminal = false) {
    arguments.insert(arguments.begin(),
                     {"quorate", "--endpoints", a_.address() + "," + b_.address()});
    return Bare(arguments, input, terminal);
  }
  Ran Bare(const std::vector<std::string>& arguments, const std::string& input = "",
           bool terminal = false) {
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    Io io{in, out, err, terminal, terminal, terminal};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    return {exit, out.str(), err.str()};
  }
  void Make(const std::string& name, const std::string& bytes) {
    fs::create_directories(fs::path(directory_ + "/" + name).parent_path());
    std::ofstream(directory_ + "/" + name, std::ios::binary) << bytes;
  }
  std::string Content(const std::string& name) {
    return ReadFile(directory_ + "/" + name, 1 << 24).value();
  }

  std::string directory_;
  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();
  FakeNode a_{"a", store_};
  FakeNode b_{"b", store_};
};

TEST_F(CliTest, PutThenGetGivesTheBytesBack) {
  Ran ran = Quorate({"put", "app/a", "value", "--note", "why"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(ran.out, "app/a: revision 2, version 1\n");
  EXPECT_EQ(store_->Note("app/a"), "why");
  EXPECT_EQ(Quorate({"get", "app/a"}).out, "value");
  EXPECT_EQ(Quorate({"get", "app/a"}, "", /*terminal=*/true).out, "value\n");
  EXPECT_EQ(Quorate({"get", "app/a", "-o", "raw"}, "", true).out, "value");
  EXPECT_EQ(Quorate({"get", "app/a", "-o", "table"}).out,
            "KEY    REVISION  VERSION  SIZE  VALUE\napp/a  2         1        5 B   value\n");
}

TEST_F(CliTest, AValueComesFromTheArgumentAFileOrStdin) {
  Make("file", "from\nfile");
  EXPECT_EQ(Quorate({"put", "k", "@" + directory_ + "/file"}).exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "from\nfile");
  EXPECT_EQ(Quorate({"put", "k", "-"}, "from stdin").exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "from stdin");
  EXPECT_EQ(Quorate({"put", "k"}, "piped").exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "piped");
  EXPECT_EQ(Quorate({"put", "k", "@@at"}).exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "@at");
  EXPECT_EQ(Quorate({"put", "k", ""}).exit, 0);
  EXPECT_TRUE(store_->Item("k").has_text());
  EXPECT_EQ(store_->Item("k").text(), "");
  EXPECT_EQ(Quorate({"put", "k", "--", "-5"}).exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "-5");
}

TEST_F(CliTest, TextIsUtf8AndEverythingElseIsData) {
  EXPECT_EQ(Quorate({"put", "t", "-"}, "grüße").exit, 0);
  EXPECT_TRUE(store_->Item("t").has_text());
  EXPECT_EQ(Quorate({"put", "d", "-"}, "\xff\xfe").exit, 0);
  EXPECT_TRUE(store_->Item("d").has_data());
  EXPECT_EQ(Quorate({"get", "d"}).out, "\xff\xfe");
  EXPECT_THAT(Quorate({"list"}).out, HasSubstr("<2 B>"));
}

TEST_F(CliTest, ConditionsAreConflictsWhenNotMet) {
  EXPECT_EQ(Quorate({"put", "k", "1", "--if-absent"}).exit, 0);
  const Ran again = Quorate({"put", "k", "2", "--if-absent"});
  EXPECT_EQ(again.exit, kExitConflict);
  EXPECT_THAT(again.err, HasSubstr("put k: ABORTED (REVISION_MISMATCH): the item is at another "
                                   "revision (current revision 2), from "));
  EXPECT_THAT(again.err, HasSubstr("read it again"));
  EXPECT_EQ(Quorate({"put", "k", "2", "--if-revision", "2"}).exit, 0);
  EXPECT_EQ(store_->Item("k").text(), "2");
}

TEST_F(CliTest, DeleteSaysHowMany) {
  for (const char* key : {"a/1", "a/2", "b"}) Quorate({"put", key, "x"});
  EXPECT_EQ(Quorate({"delete", "--prefix", "a/"}).out, "a/: deleted 2, revision 5\n");
  EXPECT_EQ(Quorate({"delete", "b", "-o", "raw"}).out, "1\n");
  EXPECT_EQ(Quorate({"delete", "b"}).out, "b: deleted 0, revision 6\n");
}

TEST_F(CliTest, ListReadsAllPages) {
  for (int i = 0; i < 5; ++i) Quorate({"put", "k" + std::to_string(i), "line\nbreak"});
  a_.set_page_items(2);
  EXPECT_EQ(Quorate({"list", "-o", "raw"}).out, "k0\nk1\nk2\nk3\nk4\n");
  EXPECT_EQ(Quorate({"list", "k3", "--keys-only"}).out,
            "KEY  REVISION  VERSION\nk3   5         1\n");
  EXPECT_THAT(Quorate({"list"}).out, HasSubstr("k4   6         1        10 B  line\\nbreak\n"));
  EXPECT_EQ(Quorate({"list", "--count"}).out, "5\n");
  const auto json = nlohmann::json::parse(Quorate({"list", "-o", "json"}).out);
  EXPECT_EQ(json["items"].size(), 5u);
  EXPECT_EQ(json["items"][4]["key"], "k4");
  EXPECT_EQ(json["items"][4]["modRevision"], "6");
  EXPECT_EQ(json["header"]["nodeId"], "a");
}

TEST_F(CliTest, ConsistencyAndNodeArePassedOn) {
  Quorate({"put", "k", "v"});
  EXPECT_EQ(Quorate({"get", "k", "--consistency", "local", "--node", "b"}).out, "v");
  EXPECT_EQ(b_.last_read().consistency(), v1::CONSISTENCY_LOCAL);
  Quorate({"get", "k", "--consistency", "linearizable"});
  EXPECT_EQ(a_.last_read().consistency(), v1::CONSISTENCY_LINEARIZABLE);
}

TEST_F(CliTest, TheEnvironmentIsReadAndAFlagComesFirst) {
  Quorate({"put", "k", "v"});
  setenv("QUORATE_ENDPOINTS", b_.address().c_str(), 1);
  setenv("QUORATE_OUTPUT", "json", 1);
  const int before = b_.calls();
  EXPECT_THAT(Bare({"quorate", "get", "k"}).out, HasSubstr("\"text\": \"v\""));
  EXPECT_EQ(b_.calls(), before + 1);
  EXPECT_EQ(Bare({"quorate", "get", "k", "-o", "raw"}).out, "v");
  unsetenv("QUORATE_ENDPOINTS");
  unsetenv("QUORATE_OUTPUT");
}

// --- import and export ---

TEST_F(CliTest, ATreeComesBackAsItWentIn) {
  Make("in/a/hosts", "127.0.0.1 localhost\n");
  Make("in/a/empty", "");
  Make("in/binary", std::string("\0\xff", 2));
  Make("in/ünï/große", "größe");
  const Ran in = Quorate({"import", directory_ + "/in", "--prefix", "etc", "--concurrency", "3"});
  EXPECT_EQ(in.exit, 0) << in.err;
  EXPECT_EQ(in.out, "imported 4 of 4 files (29 B), 0 unchanged, 0 failed, 0 unknown, 0 skipped\n");
  EXPECT_TRUE(store_->Item("etc/binary").has_data());
  EXPECT_TRUE(store_->Item("etc/a/hosts").has_text());
  Quorate({"put", "elsewhere", "x"});
  Quorate({"put", "etcetera", "x"});  // begins with `etc` and is not below it
  a_.set_page_items(2);
  const Ran out = Quorate({"export", directory_ + "/out", "--prefix", "etc"});
  EXPECT_EQ(out.exit, 0) << out.err;
  EXPECT_EQ(out.out, "exported 4 files (29 B) of revision 7 from a, 0 cannot be files, 0 failed\n");
  EXPECT_EQ(WalkTree(directory_ + "/out")->files.size(), 4u);
  for (const char* name : {"a/hosts", "a/empty", "binary", "ünï/große"}) {
    EXPECT_EQ(Content("in/" + std::string(name)), Content("out/" + std::string(name)));
  }
}

TEST_F(CliTest, ARerunGoesOnWhereTheFirstRunEnded) {
  Make("in/a", "1");
  Make("in/b", "2");
  Make("in/c", "3");
  b_.FailKey("b", services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "no leader"));
  a_.FailKey("b", services::MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "DISK_FULL", "full"));
  const Ran first = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(first.exit, kExitError);
  EXPECT_THAT(first.err, HasSubstr("not imported: b: RESOURCE_EXHAUSTED (DISK_FULL): full"));
  EXPECT_THAT(first.err, HasSubstr("run it again to go on"));
  EXPECT_THAT(first.out, StartsWith("imported 2 of 3 files"));
  a_.FailKey("b", grpc::Status::OK);
  FakeNode healthy("c", store_);
  const Ran second =
      Bare({"quorate", "--endpoints", healthy.address(), "import", "-v", directory_ + "/in"});
  EXPECT_EQ(second.exit, 0);
  EXPECT_THAT(second.out, StartsWith("imported 1 of 3 files (1 B), 2 unchanged"));
  EXPECT_EQ(second.err, "put b revision 4\n");
  EXPECT_EQ(store_->Item("a").version(), 1u);
  EXPECT_EQ(Bare({"quorate", "--endpoints", healthy.address(), "import", "--all", "-o", "json",
                  directory_ + "/in"})
                .exit,
            0);
  EXPECT_EQ(store_->Item("a").version(), 2u);
}

TEST_F(CliTest, AWriteThatMayHaveBeenDoneIsCountedAsUnknown) {
  Make("in/a", "1");
  a_.FailKey("a", grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed"));
  b_.FailKey("a", grpc::Status(grpc::StatusCode::UNAVAILABLE, "Socket closed"));
  const Ran ran = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.out, HasSubstr("0 failed, 1 unknown"));
  EXPECT_THAT(ran.err, HasSubstr("outcome unknown: a: UNAVAILABLE: Socket closed"));
}

// What somebody has registered for as long as he lives does not become permanent unnoticed.
TEST_F(CliTest, ImportDoesNotWriteOverWhatIsBound) {
  Make("in/up", "file");
  Make("in/same", "registered");
  for (const char* key : {"up", "same"}) {
    Quorate({"put", key, "registered", "--ttl-id", "00000000000000a1"});
  }
  const Ran ran = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, kExitConflict);
  EXPECT_THAT(ran.err, HasSubstr("not imported: up: is there with another value and bound to the "
                                 "time-to-live 00000000000000a1"));
  EXPECT_THAT(ran.out, StartsWith("imported 0 of 2 files (0 B), 1 unchanged, 1 failed"));
  EXPECT_EQ(store_->Item("up").text(), "registered");
  EXPECT_EQ(store_->Item("same").ttl_id(), "00000000000000a1");
  EXPECT_EQ(Quorate({"import", "--all", directory_ + "/in"}).exit, 0);
  EXPECT_EQ(store_->Item("up").text(), "file");
  EXPECT_EQ(store_->Item("up").ttl_id(), "");
}

// (1) The file is compared. (2) Somebody writes the item. (3) It is compared again, with what is
// there then.
TEST_F(CliTest, ImportLooksAgainAtWhatSomebodyHasWrittenMeanwhile) {
  Make("in/a", "file");
  a_.FailNextPut(services::MakeError(grpc::StatusCode::ABORTED, "REVISION_MISMATCH", "changed",
                                     {{"current_revision", "7"}}));
  const Ran ran = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_EQ(store_->Item("a").text(), "file");
  EXPECT_EQ(a_.last_read().consistency(), v1::CONSISTENCY_LINEARIZABLE);
  EXPECT_TRUE(a_.last_put().has_expected_revision());
  // For ever is too long.
  Make("in/a", "another");
  for (int i = 0; i < 3; ++i) {
    a_.FailNextPut(services::MakeError(grpc::StatusCode::ABORTED, "REVISION_MISMATCH", "changed"));
  }
  const Ran busy = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(busy.exit, kExitConflict);
  EXPECT_EQ(store_->Item("a").text(), "file");
}

TEST_F(CliTest, ExportLeavesOutWhatIsBound) {
  Quorate({"put", "plain", "x"});
  Quorate({"put", "up", "registered", "--ttl-id", "00000000000000a1"});
  const Ran ran = Quorate({"export", directory_ + "/out"});
  EXPECT_EQ(ran.exit, 0);
  EXPECT_THAT(ran.out, StartsWith("exported 1 files"));
  EXPECT_THAT(ran.err, HasSubstr("left out 1 that are bound to a time-to-live"));
  EXPECT_FALSE(fs::exists(directory_ + "/out/up"));
  EXPECT_THAT(Quorate({"export", "-o", "json", directory_ + "/out2"}).out,
              HasSubstr("\"bound\": 1"));
  EXPECT_EQ(Quorate({"export", "--bound", directory_ + "/all"}).exit, 0);
  EXPECT_EQ(Content("all/up"), "registered");
}

TEST_F(CliTest, ImportSkipsLinksAndNamesThem) {
  Make("in/a", "1");
  fs::create_symlink("a", directory_ + "/in/link");
  const Ran ran = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, 0);
  EXPECT_EQ(ran.err, "quorate: skipped link: a symbolic link\n");
  EXPECT_THAT(ran.out, HasSubstr("1 skipped"));
}

TEST_F(CliTest, ImportRefusesWhatNoItemCanBe) {
  Make("in/\xff", "1");
  Make("in/large", std::string((1 << 20) + 1, 'x'));
  Make("in/fits", std::string(1 << 20, 'x'));
  const Ran ran = Quorate({"import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("not imported: \\xff: the name is not UTF-8"));
  EXPECT_THAT(ran.err, HasSubstr("not imported: large: larger than 1.0 MiB"));
  EXPECT_THAT(ran.out, StartsWith("imported 1 of 3 files (1.0 MiB)"));
}

TEST_F(CliTest, ImportGivesUpWhenTheClusterIsAway) {
  for (int i = 0; i < 300; ++i) Make("in/" + std::to_string(i), "x");
  const DeadPort dead;
  const Ran ran = Bare({"quorate", "--endpoints", dead.address(), "import", directory_ + "/in"});
  EXPECT_EQ(ran.exit, kExitUnavailable);
  EXPECT_THAT(ran.err, HasSubstr("the cluster does not take writes: giving up"));
}

TEST_F(CliTest, ExportNamesKeysThatCannotBeFiles) {
  for (const char* key : {"a", "a/b", "../evil", "/abs", "x//y", "good"}) {
    Quorate({"put", key, "v"});
  }
  const Ran ran = Quorate({"export", directory_ + "/out"});
  EXPECT_EQ(ran.exit, kExitError);
  EXPECT_THAT(ran.err, HasSubstr("cannot be a file: a/b: `a` is a file and cannot be a directory"));
  EXPECT_THAT(ran.err, HasSubstr("cannot be a file: ../evil: it has the part \"..\""));
  EXPECT_THAT(ran.err, HasSubstr("cannot be a file: /abs: it begins with \"/\""));
  EXPECT_THAT(ran.err, HasSubstr("cannot be a file: x//y: it has an empty part"));
  EXPECT_THAT(ran.out, StartsWith("exported 2 files (2 B)"));
  EXPECT_THAT(ran.out, HasSubstr("4 cannot be files"));
  EXPECT_FALSE(fs::exists(directory_ + "/evil"));
}

TEST_F(CliTest, ExportWantsAnEmptyDirectory) {
  Quorate({"put", "a", "new"});
  Make("out/a", "old");
  EXPECT_EQ(Quorate({"export", directory_ + "/out"}).exit, kExitError);
  EXPECT_EQ(Content("out/a"), "old");
  EXPECT_EQ(Quorate({"export", directory_ + "/out", "--force"}).exit, 0);
  EXPECT_EQ(Content("out/a"), "new");
}

// --- status, member, health ---

TEST_F(CliTest, StatusAsksEveryEndpoint) {
  for (FakeNode* node : {&a_, &b_}) {
    auto* member = node->status().add_members();
    member->set_node_id("a");
    member->set_voter(true);
    node->status().set_healthy(true);
  }
  a_.status().set_role(v1::NODE_ROLE_LEADER);
  a_.status().mutable_header()->set_leader_id("a");
  const Ran ran = Quorate({"status"});
  EXPECT_EQ(ran.exit, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("NODE  ADDRESS"));
  EXPECT_THAT(ran.out, HasSubstr("1 voter, 1 of them up: tolerates 0 failures\n"));
  const auto json = nlohmann::json::parse(Quorate({"status", "-o", "json"}).out);
  EXPECT_EQ(json["nodes"][1]["status"]["header"]["nodeId"], "b");
  EXPECT_THAT(Quorate({"member", "list"}).out, HasSubstr("tolerates 1 failure of 1 member\n"));
}

TEST_F(CliTest, StatusShowsWhoDoesNotAnswer) {
  const DeadPort dead;
  const Ran ran = Bare({"quorate", "--endpoints", dead.address() + "," + a_.address(), "status"});
  EXPECT_EQ(ran.exit, 0);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("cannot connect: "), HasSubstr("Connection refused"),
                             HasSubstr(", from " + dead.address())));
  EXPECT_EQ(Bare({"quorate", "--endpoints", dead.address(), "status"}).exit, kExitUnavailable);
}

// A node that takes calls and does not answer: nobody can have what its store's mutex protects.
TEST_F(CliTest, EachReadLeavesTimeForANodeThatAnswers) {
  ASSERT_EQ(Quorate({"put", "k", "v"}).exit, 0);
  const auto own = std::make_shared<FakeStore>();
  FakeNode hung("h", own);
  const std::lock_guard hold(own->mutex);
  const std::vector<std::vector<std::string>> reads = {
      {"get", "k"}, {"list"}, {"list", "--count"}, {"history", "k"}, {"member", "list"}};
  for (const std::vector<std::string>& read : reads) {
    std::vector<std::string> arguments = {"quorate", "--endpoints",
                                          hung.address() + "," + a_.address(), "--timeout", "2s"};
    arguments.insert(arguments.end(), read.begin(), read.end());
    const Ran ran = Bare(arguments);
    EXPECT_EQ(ran.exit, 0) << read.front() << ": " << ran.err;
  }
}

TEST_F(CliTest, HealthIsTheHealthServices) {
  const Ran good = Quorate({"health"});
  EXPECT_EQ(good.exit, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr(a_.address() + "  healthy\n"));
  b_.server()->GetHealthCheckService()->SetServingStatus(false);
  const Ran bad = Quorate({"health"});
  EXPECT_EQ(bad.exit, kExitUnhealthy);
  EXPECT_THAT(bad.out, HasSubstr(b_.address() + "  not healthy\n"));
  b_.Stop();
  EXPECT_EQ(Quorate({"health"}).exit, kExitUnavailable);
  const DeadPort dead;
  EXPECT_EQ(Bare({"quorate", "health", "readyz", "--ops", dead.address()}).exit, kExitUnavailable);
}

// A majority is what answers a linearizable read; that there is no such key is an answer.
TEST_F(CliTest, HealthOfTheClusterIsWhatAMajorityAnswers) {
  a_.status().set_role(v1::NODE_ROLE_LEADER);
  a_.status().mutable_header()->set_leader_id("a");
  for (const bool up : {true, true, false}) {
    v1::MemberStatus* member = a_.status().add_members();
    member->set_voter(true);
    member->set_active(up);
  }
  a_.status().add_members()->set_active(true);  // learns
  const Ran good = Quorate({"health", "--cluster"});
  EXPECT_EQ(good.exit, 0) << good.err;
  EXPECT_EQ(good.out, "healthy: a majority follows a, 2 of 3 voters answer\n");
  EXPECT_EQ(a_.last_read().consistency(), v1::CONSISTENCY_LINEARIZABLE);

  const auto no_leader = services::MakeError(grpc::StatusCode::UNAVAILABLE, "NO_LEADER", "nobody");
  const int before = a_.calls();
  a_.FailNext(no_leader);
  const Ran waited = Quorate({"health", "--cluster", "--wait", "20s"});
  EXPECT_EQ(waited.exit, 0) << waited.err;
  EXPECT_GT(a_.calls() + b_.calls(), before + 1);

  a_.Stop();
  b_.Stop();
  const Ran bad = Quorate({"health", "--cluster", "--wait", "300ms"});
  EXPECT_EQ(bad.exit, kExitUnhealthy);
  EXPECT_THAT(bad.err, HasSubstr("waiting for a healthy majority"));
  EXPECT_THAT(bad.err, HasSubstr("no healthy majority within 300ms"));
  EXPECT_EQ(Quorate({"health", "--cluster"}).exit, kExitUnhealthy);
  EXPECT_EQ(Quorate({"health", "--wait", "1s"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"health", "--cluster", "--wait", "soon"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"health", "--cluster", "livez"}).exit, kExitUsage);
}

TEST_F(CliTest, ADrainIsOfOneNode) {
  const Ran both = Quorate({"drain"});
  EXPECT_EQ(both.exit, kExitUsage);
  EXPECT_THAT(both.err, HasSubstr("--node"));
  const Ran drained = Quorate({"--node", "b", "drain"});
  EXPECT_EQ(drained.exit, 0) << drained.err;
  EXPECT_EQ(drained.out, "b is drained\n");
  EXPECT_EQ(Quorate({"--node", "b", "drain", "--undo"}).out, "b is in service\n");
  EXPECT_THAT(b_.drains(), testing::ElementsAre("drain", "undo"));
  EXPECT_THAT(a_.drains(), IsEmpty());
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(Quorate({"--node", "b", "drain", "--linger", "300ms"}).exit, 0);
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(300));
  EXPECT_EQ(Quorate({"--node", "b", "drain", "--linger", "a while"}).exit, kExitUsage);
  EXPECT_EQ(Quorate({"--node", "b", "drain", "--undo", "--linger", "1s"}).exit, kExitUsage);
  a_.set_leads_on(true);
  const Ran leads = Bare({"quorate", "--endpoints", a_.address(), "drain"});
  EXPECT_EQ(leads.exit, kExitUnhealthy);
  EXPECT_THAT(leads.err, HasSubstr("leads on"));
}

// --- Local commands ---

TEST_F(CliTest, ValidateConfigSaysWhatItUnderstood) {
  Make("q.yaml", "mode: controlplane\ncontrolPlane:\n  storePath: /data\n");
  const std::string file = directory_ + "/q.yaml";
  EXPECT_EQ(Bare({"quorate", "validate-config", file}).out,
            file + ": ok: node quorate-0, alone: no raft section, so no peer port\n");
  Make("q.yaml",
       "mode: controlplane\ncontrolPlane:\n  storePath: /data\n  raft:\n    nodeId: a\n"
       "    bindAddress: :7000\n    peers: [a=h:1, b=h:2]\n");
  const Ran warned = Bare({"quorate", "validate-config", file});
  EXPECT_EQ(warned.exit, 0);
  EXPECT_EQ(warned.out, file + ": ok: node a of 2, reached at h:1\n");
  EXPECT_THAT(warned.err, StartsWith("warning: " + file + ":7:12: controlPlane.raft.peers: 2 "));
  Make("q.yaml", "mode: x\n");
  const Ran bad = Bare({"quorate", "validate-config", file});
  EXPECT_EQ(bad.exit, kExitError);
  EXPECT_THAT(bad.err, StartsWith(file + ":1:1: controlPlane: missing"));
}

TEST_F(CliTest, VersionIsANumber) {
  EXPECT_THAT(Bare({"quorate", "version"}).out, StartsWith("quorate "));
  EXPECT_THAT(Bare({"quorate", "version", "-o", "raw"}).out,
              testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

// --- Errors ---

TEST_F(CliTest, ExitCodesAreTheContracts) {
  const Ran missing = Quorate({"get", "none"});
  EXPECT_EQ(missing.exit, kExitNotFound);
  EXPECT_THAT(missing.out, IsEmpty());
  EXPECT_THAT(missing.err, StartsWith("quorate: get none: NOT_FOUND (KEY_NOT_FOUND): no item"));
  a_.FailNext(grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "no"));
  EXPECT_EQ(Quorate({"get", "k"}).exit, kExitNotAllowed);
  // A node that answers too late leaves the others their turn.
  a_.FailKey("k", grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late"));
  EXPECT_EQ(Quorate({"put", "k", "v"}).exit, kExitOk);
  b_.FailKey("k", grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late"));
  const Ran late = Quorate({"put", "k", "v", "--timeout", "300ms"});
  EXPECT_EQ(late.exit, kExitUnavailable);
  EXPECT_THAT(late.err, HasSubstr("the write may or may not have been done"));
  a_.FailNext(services::MakeUnimplemented("ReadOptions.min_revision"));
  EXPECT_EQ(Quorate({"get", "k"}).exit, kExitError);
}

TEST_F(CliTest, UsageErrorsAreTwo) {
  const std::vector<std::vector<std::string>> wrong = {
      {"quorate"},
      {"quorate", "nonsense"},
      {"quorate", "get"},
      {"quorate", "get", "k", "--nonsense"},
      {"quorate", "get", "k", "-o", "xml"},
      {"quorate", "get", "k", "--consistency", "strong"},
      {"quorate", "get", "k", "--timeout", "10"},
      {"quorate", "get", "k", "--timeout", "0ms"},
      {"quorate", "get", "k", "--endpoints", "localhost"},
      {"quorate", "put", "k", "v", "--if-absent", "--if-revision", "3"},
      {"quorate", "put", "k", "v", "--if-revision", "-3"},
      {"quorate", "delete"},
      {"quorate", "delete", "k", "--prefix", "p"},
      {"quorate", "delete", "--prefix", "p", "--if-revision", "3"},
      {"quorate", "import", ".", "--concurrency", "0"},
      {"quorate", "status", "--watch", "--interval", "1ms"},
      {"quorate", "health", "everything"},
      {"quorate", "health", "readyz", "--ops", "nowhere"},
  };
  for (const auto& arguments : wrong) {
    const Ran ran = Bare(arguments);
    EXPECT_EQ(ran.exit, kExitUsage) << testing::PrintToString(arguments);
    EXPECT_THAT(ran.out, IsEmpty()) << testing::PrintToString(arguments);
    EXPECT_FALSE(ran.err.empty()) << testing::PrintToString(arguments);
  }
  EXPECT_EQ(Bare({"quorate", "--help"}).exit, 0);
}

TEST_F(CliTest, APutOnATerminalWithoutAValueDoesNotWait) {
  const Ran ran = Quorate({"put", "k"}, "never read", /*terminal=*/true);
  EXPECT_EQ(ran.exit, kExitUsage);
  EXPECT_THAT(ran.err, HasSubstr("put k: no value; write it, @FILE, or - for stdin"));
}

TEST_F(CliTest, FilesThatAreNotThereAreNamed) {
  EXPECT_EQ(Quorate({"put", "k", "@/no/such"}).exit, kExitError);
  EXPECT_EQ(Quorate({"import", "/no/such"}).exit, kExitError);
  EXPECT_THAT(Quorate({"import", "/no/such"}).err, HasSubstr("/no/such"));
  const Ran ran = Quorate({"get", "k", "--node", "z"});
  EXPECT_EQ(ran.exit, kExitNotFound);
  EXPECT_THAT(ran.err, HasSubstr("no endpoint is node z"));
}

}  // namespace
}  // namespace quorate::tools
