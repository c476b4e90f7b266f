// CHECK: the answer to what only a bug can do.
//
// Always on, in release builds too: a node that has found itself in an impossible state must
// stop before it acknowledges anything else. What the world does (bad input, a full disk, a
// broken connection) is never a CHECK: that is an absl::Status.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace quorate {

// Prints "CHECK failed: file:line: condition: message" to stderr and aborts the process.
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition,
                                     std::string_view message = "") {
  std::fprintf(stderr, "CHECK failed: %s:%d: %s%s%.*s\n", file, line, condition,
               message.empty() ? "" : ": ", static_cast<int>(message.size()), message.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace quorate

// CHECK(condition) or CHECK(condition, message); the message is built only on failure.
#define CHECK(condition, ...)                                                            \
  do {                                                                                   \
    if (!(condition)) [[unlikely]]                                                       \
      ::quorate::CheckFailed(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)
