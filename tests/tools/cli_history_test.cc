// history, diff and rollback; and the lines of a diff.
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/fake_node.h"
#include "tools/cli.h"
#include "tools/text_diff.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;

class CliHistoryTest : public testing::Test {
 protected:
  CliHistoryTest() { store_->revision = 7; }
  int Quorate(std::vector<std::string> arguments, bool terminal = false) {
    arguments.insert(arguments.begin(), {"quorate", "--endpoints", node_.address()});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in;
    std::ostringstream out, err;
    Io io{in, out, err, terminal, terminal, terminal};
    const int exit = tools::Run(static_cast<int>(argv.size()), argv.data(), io);
    out_ = out.str();
    err_ = err.str();
    return exit;
  }
  void AddChange(uint64_t revision, const std::string& text, const std::string& note) {
    v1::HistoryEntry entry;
    entry.mutable_item()->set_mod_revision(revision);
    entry.mutable_item()->set_version(revision - 1);
    entry.mutable_item()->set_text(text);
    entry.set_note(note);
    entry.set_time_ms(1'700'000'000'123);
    store_->history.push_back(entry);
  }
  void SetPast(uint64_t revision, const std::string& text) {
    store_->past[revision].set_key("k");
    store_->past[revision].set_text(text);
  }

  std::string out_, err_;
  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();
  FakeNode node_{"a", store_};
};

TEST_F(CliHistoryTest, HistoryIsATableOverAllPages) {
  AddChange(5, "new\n", "why");
  AddChange(3, "old", "");
  v1::HistoryEntry deleted;
  deleted.set_deleted(true);
  deleted.mutable_item()->set_mod_revision(2);
  store_->history.push_back(deleted);
  node_.set_page_items(2);
  ASSERT_EQ(Quorate({"history", "k"}), 0) << err_;
  EXPECT_EQ(out_,
            "REVISION  VERSION  TIME                  AUTHOR  NOTE  VALUE\n"
            "5         4        2023-11-14T22:13:20Z  -       why   new\\n\n"
            "3         2        2023-11-14T22:13:20Z  -       -     old\n"
            "2         0        1970-01-01T00:00:00Z  -       -     (deleted)\n");
  ASSERT_EQ(Quorate({"history", "k", "-o", "raw", "--limit", "2"}), 0);
  EXPECT_EQ(out_, "5\n3\n");
  ASSERT_EQ(Quorate({"history", "k", "--limit", "1"}), 0);
  EXPECT_THAT(err_, HasSubstr("there are older changes"));
  ASSERT_EQ(Quorate({"history", "k", "-o", "json"}), 0);
  EXPECT_THAT(out_, HasSubstr("\"note\": \"why\""));
}

TEST_F(CliHistoryTest, DiffShowsLines) {
  SetPast(3, "a\nb\nc\n");
  SetPast(5, "a\nB\nc\n");
  ASSERT_EQ(Quorate({"diff", "k", "3..5"}), 0) << err_;
  EXPECT_EQ(out_, "--- k @3\n+++ k @5\n a\n-b\n+B\n c\n");
  store_->items["k"] = store_->past[5];
  ASSERT_EQ(Quorate({"diff", "k", "3.."}), 0);
  EXPECT_EQ(out_, "--- k @3\n+++ k @now\n a\n-b\n+B\n c\n");
  ASSERT_EQ(Quorate({"diff", "k", "2..3"}), 0) << "absent before";
  EXPECT_EQ(out_, "--- k @2 (absent)\n+++ k @3\n+a\n+b\n+c\n");
  store_->past[5].set_data("\xff");
  ASSERT_EQ(Quorate({"diff", "k", "3..5"}), 0);
  EXPECT_THAT(out_, HasSubstr("binary values differ"));
  SetPast(6, "\x1b[31m");
  ASSERT_EQ(Quorate({"diff", "k", "2..6"}, true), 0);
  EXPECT_THAT(out_, HasSubstr("+\\x1b[31m"));
}

TEST_F(CliHistoryTest, RollbackOfAKeyOrAPrefix) {
  ASSERT_EQ(Quorate({"rollback", "app/a", "--to", "3", "--note", "undo"}), 0) << err_;
  EXPECT_EQ(node_.last_rollback().key(), "app/a");
  EXPECT_EQ(node_.last_rollback().to_revision(), 3u);
  EXPECT_EQ(node_.last_rollback().note(), "undo");
  EXPECT_EQ(node_.last_rollback().request_revision(), 7u);
  EXPECT_EQ(out_, "app/a: changed 2, deleted 1, revision 7\n");
  ASSERT_EQ(Quorate({"rollback", "app/", "--to", "3", "-o", "raw"}), 0);
  EXPECT_EQ(node_.last_rollback().prefix(), "app/");
  EXPECT_EQ(out_, "7\n");
  ASSERT_EQ(Quorate({"rollback", "app", "--prefix", "--to", "3"}), 0);
  EXPECT_EQ(node_.last_rollback().prefix(), "app");
}

TEST(DiffLines, FindsWhatIsCommon) {
  EXPECT_EQ(DiffLines("", ""), "");
  EXPECT_EQ(DiffLines("a\n", "a\n"), "");
  EXPECT_EQ(DiffLines("", "a\n"), "+a\n");
  EXPECT_EQ(DiffLines("a", "a\n"), "-a\n\\ no newline at the end\n+a\n");
  EXPECT_EQ(DiffLines("a\nb\nc\nd\n", "a\nc\nx\nd\n"), " a\n-b\n c\n+x\n d\n");
  EXPECT_EQ(DiffLines("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\n5\n7\n", 1), "...\n 5\n-6\n+7\n");
  EXPECT_EQ(DiffLines("0\n1\n2\n3\n", "x\n1\n2\n3\n", 1), "-0\n+x\n 1\n...\n");
  std::string large;
  for (int i = 0; i < 3000; ++i) large += std::to_string(i) + "\n";
  EXPECT_EQ(DiffLines(large, "x\n" + large, 0), "+x\n...\n") << "only what differs is compared";
}

// --- Errors ---

TEST_F(CliHistoryTest, Errors) {
  for (const char* range : {"", "..", "x", "3..x", "0..3", "-1..2", "3...5"}) {
    EXPECT_EQ(Quorate({"diff", "k", range}), kExitUsage) << range;
  }
  EXPECT_EQ(Quorate({"diff", "k", "2..3"}), kExitNotFound);
  EXPECT_THAT(err_, HasSubstr("was there at neither revision"));
  EXPECT_EQ(Quorate({"rollback", "k"}), kExitUsage);
  EXPECT_EQ(Quorate({"rollback", "k", "--to", "0"}), kExitUsage);
  EXPECT_EQ(Quorate({"history"}), kExitUsage);
  node_.FailNext(services::MakeError(grpc::StatusCode::OUT_OF_RANGE, "REVISION_COMPACTED", "gone"));
  EXPECT_EQ(Quorate({"history", "k"}), kExitError);
  EXPECT_THAT(err_, HasSubstr("REVISION_COMPACTED"));
}

}  // namespace
}  // namespace quorate::tools
