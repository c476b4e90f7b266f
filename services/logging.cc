#include "services/logging.h"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "grpc/support/log.h"
#include "services/utf8.h"

namespace quorate::services {
namespace {

// RFC 3339 in UTC with milliseconds.
std::string FormatTime(WallMilliseconds time) {
  WallMilliseconds seconds = time / 1000;
  WallMilliseconds milliseconds = time % 1000;
  if (milliseconds < 0) {
    milliseconds += 1000;
    --seconds;
  }
  const std::time_t clock = static_cast<std::time_t>(seconds);
  std::tm utc{};
  gmtime_r(&clock, &utc);
  char text[80];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>(milliseconds));
  return text;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

bool NeedsQuotes(std::string_view value) {
  if (value.empty()) return true;
  for (const char c : value) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._/@^+").find(c) != std::string_view::npos;
    if (!plain) return true;
  }
  return false;
}

// In quotes, for logfmt and JSON alike: \" \\ \n \r \t, other control characters as \u00XX, bytes
// that are no UTF-8 as U+FFFD.
void AppendQuoted(std::string_view value, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < value.size();) {
    const unsigned char c = static_cast<unsigned char>(value[i]);
    if (c >= 0x80) {
      const size_t length = Utf8SequenceLength(value.substr(i));
      out->append(length == 0 ? "\xEF\xBF\xBD" : value.substr(i, length));
      i += length == 0 ? 1 : length;
      continue;
    }
    ++i;
    switch (c) {
      case '"':
        out->append("\\\"");
        break;
      case '\\':
        out->append("\\\\");
        break;
      case '\n':
        out->append("\\n");
        break;
      case '\r':
        out->append("\\r");
        break;
      case '\t':
        out->append("\\t");
        break;
      default:
        if (c < 0x20 || c == 0x7F) {
          char escape[8];
          std::snprintf(escape, sizeof(escape), "\\u%04x", c);
          out->append(escape);
        } else {
          out->push_back(static_cast<char>(c));
        }
    }
  }
  out->push_back('"');
}

void AppendPair(std::string_view key, std::string_view value, std::string* out) {
  if (!out->empty()) out->push_back(' ');
  out->append(key);
  out->push_back('=');
  if (NeedsQuotes(value)) {
    AppendQuoted(value, out);
  } else {
    out->append(value);
  }
}

WallMilliseconds WallNow() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Counts the lines that have left.
class CountingSink final : public spdlog::sinks::stderr_sink_mt {
 public:
  void log(const spdlog::details::log_msg& line) override {
    spdlog::sinks::stderr_sink_mt::log(line);
    ++written_;
  }
  uint64_t written() const { return written_; }

 private:
  std::atomic<uint64_t> written_ = 0;
};

// What InitLogging set up.
struct Running {
  // Every line that was handed over has left, or was dropped. An empty queue does not say so: the
  // thread that writes may hold the last one.
  bool quiet() const { return sink->written() + pool->overrun_counter() >= handed_over; }

  LoggingOptions options;
  std::atomic<uint64_t> handed_over = 0;
  std::shared_ptr<CountingSink> sink = std::make_shared<CountingSink>();
  // Destroyed after the pool, whose end joins the thread that writes: nobody holds the logger then.
  std::shared_ptr<spdlog::async_logger> logger;
  std::shared_ptr<spdlog::details::thread_pool> pool;
};

std::mutex running_mutex;
// Never destroyed: a thread may log while static objects go away.
std::shared_ptr<Running>& RunningSlot() {
  static auto* slot = new std::shared_ptr<Running>;
  return *slot;
}

std::shared_ptr<Running> CurrentRunning() {
  std::lock_guard lock(running_mutex);
  return RunningSlot();
}

std::string FormatLine(const LoggingOptions& options, LogLevel level, std::string_view message,
                       std::initializer_list<LogField> fields) {
  std::vector<LogField> all(fields);
  if (!options.node.empty()) all.emplace_back("node", options.node);
  return options.format == LogFormat::kJson ? FormatJson(WallNow(), level, message, all)
                                            : FormatLogfmt(WallNow(), level, message, all);
}

std::atomic<bool> grpc_is_deaf = false;

// gRPC's own line, and no other that has such words in it: many errors quote what a client has
// sent.
bool SaysThatAListenerIsGone(const gpr_log_func_args& said) {
  return said.severity == GPR_LOG_SEVERITY_ERROR &&
         std::string_view(said.message).starts_with("Failed accept4: ") &&
         std::string_view(said.file).ends_with("/tcp_server_posix.cc");
}

// What libraries say is for who looks for it: what matters of it comes to us as a status, and some
// of it (a string that is no UTF-8) is a client's doing.
void LogGrpc(gpr_log_func_args* args) {
  if (SaysThatAListenerIsGone(*args)) {
    if (!grpc_is_deaf.exchange(true)) {
      LogError("gRPC takes no more connections", {{"text", args->message}});
    }
    return;
  }
  LogDebug("grpc", {{"text", args->message}, {"file", args->file}, {"line", args->line}});
}

void LogProtobuf(google::protobuf::LogLevel /*level*/, const char* file, int line,
                 const std::string& message) {
  LogDebug("protobuf", {{"text", message}, {"file", file}, {"line", line}});
}

}  // namespace

std::string FormatLogfmt(WallMilliseconds time, LogLevel level, std::string_view message,
                         std::span<const LogField> fields) {
  std::string line;
  AppendPair("time", FormatTime(time), &line);
  AppendPair("level", LevelName(level), &line);
  AppendPair("msg", message, &line);
  for (const LogField& field : fields) AppendPair(field.key(), field.value(), &line);
  return line;
}

std::string FormatJson(WallMilliseconds time, LogLevel level, std::string_view message,
                       std::span<const LogField> fields) {
  std::string line = "{\"time\":";
  AppendQuoted(FormatTime(time), &line);
  line.append(",\"level\":");
  AppendQuoted(LevelName(level), &line);
  line.append(",\"msg\":");
  AppendQuoted(message, &line);
  for (const LogField& field : fields) {
    line.push_back(',');
    AppendQuoted(field.key(), &line);
    line.push_back(':');
    if (field.bare()) {
      line.append(field.value());
    } else {
      AppendQuoted(field.value(), &line);
    }
  }
  line.push_back('}');
  return line;
}

void InitLogging(const LoggingOptions& options) {
  auto running = std::make_shared<Running>();
  running->options = options;
  running->pool = std::make_shared<spdlog::details::thread_pool>(options.queue_max, 1u);
  running->logger = std::make_shared<spdlog::async_logger>(
      "quorate", running->sink, running->pool, spdlog::async_overflow_policy::overrun_oldest);
  running->logger->set_pattern("%v");
  running->logger->set_level(spdlog::level::trace);
  grpc_is_deaf = false;
  gpr_set_log_function(LogGrpc);
  google::protobuf::SetLogHandler(LogProtobuf);
  std::lock_guard lock(running_mutex);
  RunningSlot() = std::move(running);
}

void ShutdownLogging() {
  std::shared_ptr<Running> last;
  {
    std::lock_guard lock(running_mutex);
    last.swap(RunningSlot());
  }
  // The pool's destructor writes what is queued and joins its thread.
}

uint64_t LoggingDropped() {
  const std::shared_ptr<Running> running = CurrentRunning();
  return running ? running->pool->overrun_counter() : 0;
}

bool GrpcIsDeaf() { return grpc_is_deaf; }

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  const std::shared_ptr<Running> running = CurrentRunning();
  if (running == nullptr) {
    if (level < LogLevel::kInfo) return;
    const std::string line = FormatLine(LoggingOptions{}, level, message, fields) + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
    return;
  }
  if (level < running->options.level) return;
  ++running->handed_over;
  running->logger->log(spdlog::level::info, FormatLine(running->options, level, message, fields));
}

void Fatal(std::string_view message, std::initializer_list<LogField> fields) {
  const std::shared_ptr<Running> running = CurrentRunning();
  const std::string line =
      FormatLine(running ? running->options : LoggingOptions{}, LogLevel::kError, message, fields) +
      "\n";
  // What came before is worth having, but nothing may keep a broken process alive: whoever calls
  // this may be the logging thread's own blocker, so the queue gets half a second.
  if (running) {
    for (int i = 0; i < 50 && !running->quiet(); ++i) usleep(10'000);
  }
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  _exit(1);
}

}  // namespace quorate::services
