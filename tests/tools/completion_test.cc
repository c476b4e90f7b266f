#include "tools/completion.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/temp_directory.h"
#include "tools/cli.h"

namespace quorate::tools {
namespace {

using testing::HasSubstr;

std::string ScriptFor(const std::string& shell) {
  const std::vector<const char*> argv = {"quorate", "completion", shell.c_str()};
  std::istringstream in;
  std::ostringstream out, err;
  Io io{in, out, err};
  EXPECT_EQ(tools::Run(static_cast<int>(argv.size()), argv.data(), io), 0) << err.str();
  return out.str();
}

// What bash offers for the last of these words.
std::vector<std::string> Offered(const std::vector<std::string>& words) {
  const storage::TempDirectory directory;
  const std::string path = directory.path() + "/completion.sh";
  {
    std::ofstream file(path);
    file << ScriptFor("bash") << "COMP_WORDS=(";
    for (const std::string& word : words) file << " '" << word << "'";
    file << ")\nCOMP_CWORD=" << words.size() - 1
         << "\n_quorate\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
  }
  std::vector<std::string> offered;
  FILE* bash = popen(("bash --norc -u " + path).c_str(), "r");
  if (bash == nullptr) return {"bash does not run"};
  char line[512];
  while (fgets(line, sizeof line, bash) != nullptr) {
    std::string text = line;
    text.pop_back();
    if (!text.empty()) offered.push_back(text);
  }
  EXPECT_EQ(pclose(bash), 0);
  return offered;
}

TEST(Completion, BashOffersSubcommandsFlagsAndTheirValues) {
  EXPECT_THAT(Offered({"quorate", "mem"}), testing::ElementsAre("member"));
  EXPECT_THAT(Offered({"quorate", "member", ""}),
              testing::ElementsAre("list", "add", "remove", "promote", "demote"));
  EXPECT_THAT(Offered({"quorate", "ttl", ""}),
              testing::ElementsAre("grant", "keep-alive", "revoke"));
  EXPECT_THAT(Offered({"quorate", "put", "k", "--ttl"}), testing::ElementsAre("--ttl-id"));
  EXPECT_THAT(Offered({"quorate", "get", "--m"}),
              testing::ElementsAre("--min-revision", "--max-staleness"));
  EXPECT_THAT(Offered({"quorate", "--endpoints", "get", "member", "pro"}),
              testing::ElementsAre("promote"))
      << "what follows a flag is its value";
  EXPECT_THAT(Offered({"quorate", "-q", "member", "promote", "--w"}),
              testing::ElementsAre("--wait"));
  EXPECT_THAT(Offered({"quorate", "put", "k", "--end"}), testing::ElementsAre("--endpoints"))
      << "the flags of all commands";
  EXPECT_THAT(Offered({"quorate", "get", "-o", ""}),
              testing::ElementsAre("json", "raw", "table", "yaml"));
  EXPECT_THAT(Offered({"quorate", "get", "--consistency", "li"}),
              testing::ElementsAre("linearizable"));
  EXPECT_THAT(Offered({"quorate", "get", "--timeout", ""}), testing::IsEmpty());
  EXPECT_THAT(Offered({"quorate", "get", ""}), testing::IsEmpty()) << "a key is the user's";
}

TEST(Completion, EachShellKnowsEverySubcommandAndFlag) {
  CLI::App app("d", "tool");
  bool flag = false;
  app.add_flag("-g,--global", flag, "it's for all: really");
  CLI::App* one = app.add_subcommand("one", "the \\ first");
  std::string value;
  one->add_option("--with", value, "a value");
  one->add_option("POSITION", value, "not a flag");
  one->add_subcommand("deep", "below")->add_flag("--deepest", flag, "of all");
  for (const Shell shell : {Shell::kBash, Shell::kZsh, Shell::kFish}) {
    const std::string script = CompletionScript(shell, app, {{"--with", {"a", "b"}}});
    for (const char* name : {"one", "deep", "global", "with", "deepest", "help", "tool"}) {
      EXPECT_THAT(script, HasSubstr(name));
    }
    EXPECT_THAT(script, HasSubstr(" one deep"));
    EXPECT_THAT(script, testing::Not(HasSubstr("POSITION")));
  }
  EXPECT_THAT(CompletionScript(Shell::kZsh, app, {}),
              HasSubstr("'--global:it'\\''s for all: really'"));
  EXPECT_THAT(CompletionScript(Shell::kFish, app, {}),
              HasSubstr("-l global -d 'it\\'s for all: really'"));
  EXPECT_THAT(CompletionScript(Shell::kFish, app, {}), HasSubstr("-d 'the \\\\ first'"));
}

TEST(Completion, AnUnknownShellIsAUsageError) {
  const std::vector<const char*> argv = {"quorate", "completion", "tcsh"};
  std::istringstream in;
  std::ostringstream out, err;
  Io io{in, out, err};
  EXPECT_EQ(tools::Run(static_cast<int>(argv.size()), argv.data(), io), kExitUsage);
  EXPECT_FALSE(ParseShell("tcsh").has_value());
}

}  // namespace
}  // namespace quorate::tools
