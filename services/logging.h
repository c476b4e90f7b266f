// Structured logs: one line per event on stderr, logfmt or JSON.
//
//   time="2026-05-12T19:05:00.123Z" level=info msg="became leader" term=7 node=node-3
//
// Lines are written by a thread of their own behind a bounded queue: logging never blocks the
// caller on a slow stderr. When the queue is full the oldest lines are dropped and counted
// (LoggingDropped, quorate_log_lines_dropped_total).
//
// Every function may be called from any thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/strong.h"
#include "base/time.h"

namespace quorate::services {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kLogfmt, kJson };

// One key and its value. Keys are ours: lower case, digits and underscores, never `time`, `level`
// or `msg`. Store and cluster ids are printed as 16 hexadecimal digits.
class LogField {
 public:
  LogField(std::string_view key, std::string_view value) : key_(key), value_(value) {}
  LogField(std::string_view key, const char* value) : key_(key), value_(value) {}
  LogField(std::string_view key, const std::string& value) : key_(key), value_(value) {}
  LogField(std::string_view key, bool value)
      : key_(key), value_(value ? "true" : "false"), bare_(true) {}
  template <std::integral T>
  requires(!std::same_as<T, bool>) LogField(std::string_view key, T value)
      : key_(key), value_(std::to_string(value)), bare_(true) {}
  LogField(std::string_view key, StoreId value) : key_(key), value_(ToHex(value)) {}
  LogField(std::string_view key, ClusterId value) : key_(key), value_(ToHex(value)) {}
  template <typename Tag>
  LogField(std::string_view key, Strong<Tag> value)
      : key_(key), value_(ToString(value)), bare_(true) {}

  std::string_view key() const { return key_; }
  std::string_view value() const { return value_; }
  // A number or a boolean: needs no quotes in JSON.
  bool bare() const { return bare_; }

 private:
  std::string key_;
  std::string value_;
  bool bare_ = false;
};

struct LoggingOptions {
  LogLevel level = LogLevel::kInfo;  // what is below is not written
  LogFormat format = LogFormat::kLogfmt;
  std::string node;         // added to every line as `node`, last; empty: left out
  size_t queue_max = 8192;  // lines
};

// Starts (or restarts) logging. What gRPC and protobuf say of themselves becomes debug lines.
// Before it everything from info on is written as logfmt, directly.
void InitLogging(const LoggingOptions& options);
// Writes what is queued, ends the thread and goes back to direct writing.
void ShutdownLogging();
// Lines that a full queue has dropped since InitLogging.
uint64_t LoggingDropped();

// A listener of gRPC's has been closed to newcomers for good, at some time since InitLogging. Its
// server (Debian's 1.51) gives a port up when accept() fails once, as it does when the process has
// no file descriptors left, and says so only in its log. Only a new process helps.
bool GrpcIsDeaf();

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});
inline void LogDebug(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kDebug, message, fields);
}
inline void LogInfo(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kInfo, message, fields);
}
inline void LogWarning(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kWarning, message, fields);
}
inline void LogError(std::string_view message, std::initializer_list<LogField> fields = {}) {
  Log(LogLevel::kError, message, fields);
}

// Writes the line as an error, everything queued before it too, and ends the process with status 1
// at once: no destructor runs, so it is safe on any thread. For what the world did (a failed flush,
// a copied directory); a bug is a CHECK.
[[noreturn]] void Fatal(std::string_view message, std::initializer_list<LogField> fields = {});

// The line without its newline. A value is quoted when it is empty or holds anything but letters,
// digits and "-._/@^+"; control characters are escaped, so that a line stays a line.
std::string FormatLogfmt(WallMilliseconds time, LogLevel level, std::string_view message,
                         std::span<const LogField> fields);
// The same as one JSON object; bytes that are no UTF-8 become U+FFFD.
std::string FormatJson(WallMilliseconds time, LogLevel level, std::string_view message,
                       std::span<const LogField> fields);

}  // namespace quorate::services
