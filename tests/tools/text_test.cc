#include "tools/text.h"

#include "gtest/gtest.h"
#include "tools/output.h"
#include "tools/progress.h"

#include <sstream>

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;

TEST(Text, NothingThatIsPrintedDrivesTheTerminal) {
  EXPECT_EQ(Printable("plain ünï"), "plain ünï");
  EXPECT_EQ(Printable("a\nb\tc\rd\\e"), "a\\nb\\tc\\rd\\\\e");
  EXPECT_EQ(Printable("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(Printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // CSI as one character
  EXPECT_EQ(Printable(std::string("\0\x7f", 2)), "\\x00\\x7f");
}

TEST(Text, LongLinesAreCutAtACharacter) {
  EXPECT_EQ(Printable("abcdefgh", 8), "abcdefgh");
  EXPECT_EQ(Printable("abcdefghi", 8), "abcde...");
  EXPECT_EQ(Printable("ääääääääää", 8), "äääää...");
  EXPECT_EQ(Printable("\n\n\n\n\n", 8), "\\n\\n...");
}

TEST(Text, SizesAndDurationsReadWell) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(20u << 20), "20.0 MiB");
  EXPECT_EQ(FormatDuration(milliseconds(0)), "0ms");
  EXPECT_EQ(FormatDuration(milliseconds(999)), "999ms");
  EXPECT_EQ(FormatDuration(milliseconds(1500)), "1.5s");
  EXPECT_EQ(FormatDuration(milliseconds(125'000)), "2m05s");
  EXPECT_EQ(FormatDuration(milliseconds(11'400'000)), "3h10m");
}

TEST(Output, TablesAreAligned) {
  Table table({"KEY", "N"});
  table.Add({"ä", "1"});
  table.Add({"long", ""});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(), "KEY   N\nä     1\nlong  -\n");
}

TEST(Output, JsonAndYamlHaveOneStructure) {
  const nlohmann::ordered_json value = {
      {"text", "1"}, {"list", {"a", nlohmann::ordered_json::object()}}, {"yes", true}, {"n", 7}};
  std::ostringstream json, yaml;
  PrintStructured(json, OutputFormat::kJson, value);
  PrintStructured(yaml, OutputFormat::kYaml, value);
  EXPECT_EQ(nlohmann::ordered_json::parse(json.str()), value);
  EXPECT_EQ(yaml.str(), "text: \"1\"\nlist:\n  - \"a\"\n  - {}\nyes: true\nn: 7\n");
}

TEST(Progress, TheBarShowsHowFarAndHowLong) {
  EXPECT_EQ(ProgressLine("import", 512, 1024, milliseconds(2000)),
            "import  [============>           ]  512/1024  50%  256/s  2.0s left");
  EXPECT_EQ(ProgressLine("import", 4, 4, milliseconds(1000)),
            "import  [========================]  4/4  100%  4/s");
  EXPECT_EQ(ProgressLine("import", 0, 4, milliseconds(0)),
            "import  [>                       ]  0/4  0%  0/s");
  EXPECT_EQ(ProgressLine("export", 30, 0, milliseconds(1000)), "export  30  30/s");
}

TEST(Progress, WithoutATerminalThereIsNoBar) {
  std::ostringstream hidden, shown;
  {
    Progress progress(hidden, false, "import", 2);
    progress.Add();
    progress.Line("one");
  }
  EXPECT_EQ(hidden.str(), "one\n");
  {
    Progress progress(shown, true, "import", 2);
    progress.Add();
    progress.Line("one");
  }
  EXPECT_NE(shown.str().find("1/2"), std::string::npos);
  EXPECT_TRUE(shown.str().ends_with("\r\x1b[Kone\n"));
}

}  // namespace
}  // namespace quorate::tools
