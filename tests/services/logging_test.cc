#include "services/logging.h"

#include <grpc/support/log.h>
#include <gtest/gtest.h>

#include <vector>

namespace quorate::services {
namespace {

// 2026-05-12T19:05:00.123Z
constexpr WallMilliseconds kTime = 1'778'612'700'123;

std::string Logfmt(std::string_view message, std::vector<LogField> fields) {
  return FormatLogfmt(kTime, LogLevel::kInfo, message, fields);
}

TEST(Logging, LooksLikeTheSeedsLine) {
  EXPECT_EQ(Logfmt("became leader", {{"term", 7}, {"node", "node-3"}}),
            "time=\"2026-05-12T19:05:00.123Z\" level=info msg=\"became leader\" term=7 "
            "node=node-3");
}

TEST(Logging, QuotesOnlyWhatNeedsIt) {
  EXPECT_EQ(Logfmt("x", {{"a", "plain-1.2/3@4"}, {"b", "two words"}, {"c", ""}, {"d", "k=v"}}),
            "time=\"2026-05-12T19:05:00.123Z\" level=info msg=x a=plain-1.2/3@4 b=\"two words\" "
            "c=\"\" d=\"k=v\"");
}

TEST(Logging, PrintsEachTypeOneWay) {
  EXPECT_EQ(Logfmt("x", {{"store", StoreId(0xABC)},
                         {"cluster", ClusterId(1)},
                         {"revision", Revision(9)},
                         {"yes", true},
                         {"less", -5}}),
            "time=\"2026-05-12T19:05:00.123Z\" level=info msg=x store=0000000000000abc "
            "cluster=0000000000000001 revision=9 yes=true less=-5");
}

TEST(Logging, JsonHasTheSameFields) {
  const std::vector<LogField> fields = {{"term", 7}, {"node", "a \"b\""}, {"ok", false}};
  EXPECT_EQ(FormatJson(kTime, LogLevel::kWarning, "became leader", fields),
            R"({"time":"2026-05-12T19:05:00.123Z","level":"warning","msg":"became leader",)"
            R"("term":7,"node":"a \"b\"","ok":false})");
}

TEST(Logging, WritesWhatIsQueuedBeforeItEnds) {
  testing::internal::CaptureStderr();
  InitLogging({.level = LogLevel::kInfo, .node = "node-3"});
  LogDebug("too small a matter");
  LogInfo("first", {{"term", 1}});
  LogError("second");
  ShutdownLogging();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("too small"), std::string::npos);
  const size_t first = text.find("level=info msg=first term=1 node=node-3\n");
  const size_t second = text.find("level=error msg=second node=node-3\n");
  EXPECT_NE(first, std::string::npos) << text;
  EXPECT_NE(second, std::string::npos) << text;
  EXPECT_LT(first, second);
  EXPECT_EQ(LoggingDropped(), 0u);
}

// --- Errors ---

// gRPC quotes what clients send in errors of its own: they must not have a node ended.
TEST(Logging, OnlyGrpcsOwnLineSaysThatAListenerIsGone) {
  testing::internal::CaptureStderr();
  InitLogging({.level = LogLevel::kInfo, .node = "node-3"});
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);  // as grpc_init does
  const auto say = [](const char* file, gpr_log_severity severity, const char* text) {
    gpr_log(file, 1, severity, "%s", text);
    return GrpcIsDeaf();
  };
  constexpr const char* kListener = "src/core/lib/iomgr/tcp_server_posix.cc";
  EXPECT_FALSE(say("src/core/ext/transport/chttp2/transport/hpack_parser.cc",
                   GPR_LOG_SEVERITY_ERROR,
                   "Error parsing metadata: error=invalid value key=grpc-timeout value=accept4"));
  EXPECT_FALSE(say("src/core/ext/transport/chttp2/transport/hpack_parser.cc",
                   GPR_LOG_SEVERITY_ERROR, "Failed accept4: Too many open files"));
  EXPECT_FALSE(say(kListener, GPR_LOG_SEVERITY_ERROR, "Failed getpeername: accept4"));
  EXPECT_TRUE(say(kListener, GPR_LOG_SEVERITY_ERROR, "Failed accept4: Too many open files"));
  EXPECT_TRUE(GrpcIsDeaf()) << "for good";
  ShutdownLogging();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("gRPC takes no more connections"), std::string::npos) << text;
  InitLogging({.level = LogLevel::kInfo, .node = "node-3"});
  EXPECT_FALSE(GrpcIsDeaf()) << "a new process";
  ShutdownLogging();
}

TEST(Logging, AValueCannotForgeALine) {
  EXPECT_EQ(Logfmt("x", {{"key", "a\nlevel=error\t\"\\\x01\x7F"}}),
            "time=\"2026-05-12T19:05:00.123Z\" level=info msg=x "
            "key=\"a\\nlevel=error\\t\\\"\\\\\\u0001\\u007f\"");
}

TEST(Logging, BytesThatAreNoTextAreReplaced) {
  EXPECT_EQ(Logfmt("x", {{"key", "a\xFFz\xC3\xA9"}}),
            "time=\"2026-05-12T19:05:00.123Z\" level=info msg=x key=\"a\xEF\xBF\xBDz\xC3\xA9\"");
}

TEST(LoggingDeathTest, FatalPrintsWhatCameBeforeAndEndsWithOne) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(
      {
        InitLogging({});
        LogInfo("the last good news");
        Fatal("a flush failed", {{"file", "1.log"}});
      },
      testing::ExitedWithCode(1),
      "the last good news.*\n.*level=error msg=\"a flush failed\" file=1.log");
}

}  // namespace
}  // namespace quorate::services
