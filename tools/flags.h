// Flags that several commands take, and texts that they read.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "CLI/CLI.hpp"
#include "quorate/v1/config.pb.h"

namespace quorate::tools {

// A whole number and ms, s, m, h or d, such as `500ms` or `24h`; nullopt: something else, or more
// than 366 days.
std::optional<std::chrono::milliseconds> ParseTime(std::string_view text);
// For CLI::Option::check: a text that ParseTime reads, within these bounds.
CLI::Validator TimeWithin(std::chrono::milliseconds min, std::chrono::milliseconds max);

// How fresh what a command reads must be, beside --consistency.
struct ReadFlags {
  uint64_t min_revision = 0;
  std::string max_staleness;
  uint64_t at_revision = 0;

  // What was given, added to `options`.
  v1::ReadOptions AddedTo(v1::ReadOptions options) const;
};
// `past`: with --at-revision.
void AddReadFlags(CLI::App* command, ReadFlags* flags, bool past = true);

// What every write can carry.
struct WriteFlags {
  std::string note;
  std::string request_id;
  uint64_t request_revision = 0;

  template <typename Request>
  void Name(Request* request) const {
    if (!request_id.empty()) request->set_request_id(request_id);
    if (request_revision != 0) request->set_request_revision(request_revision);
  }
};
// `noted`: with --note.
void AddWriteFlags(CLI::App* command, WriteFlags* flags, bool noted = true);

// Makes `request` that of the next page: it keeps the first one's revision, which the token has.
template <typename Request>
void TurnPage(const std::string& token, Request* request) {
  request->set_page_token(token);
  request->mutable_read()->clear_at_revision();
  request->mutable_read()->clear_min_revision();
  request->mutable_read()->clear_consistency();
}

}  // namespace quorate::tools
