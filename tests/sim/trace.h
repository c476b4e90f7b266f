// What happened, twice: as a hash, always, and as a story, if somebody reads it.
//
// Every observation is mixed into the hash as plain numbers (no addresses, no iteration order of
// unordered containers), so two runs of a seed that differ anywhere differ in the hash.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "tests/sim/events.h"

namespace quorate::sim {

class Trace {
 public:
  // `story` may be null.
  Trace(const EventQueue* events, std::FILE* story) : events_(events), story_(story) {}

  void Mix(uint64_t value) {
    hash_ = (hash_ ^ value) * 0x9e3779b97f4a7c15ULL;
    hash_ ^= hash_ >> 29;
  }
  // An observation: what, where, and up to three numbers.
  void Note(uint32_t what, uint64_t where, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0) {
    Mix(static_cast<uint64_t>(events_->now()));
    Mix(static_cast<uint64_t>(what) << 32 | where);
    Mix(a);
    Mix(b);
    Mix(c);
  }
  uint64_t hash() const { return hash_; }

  bool telling() const { return story_ != nullptr; }
  // A line of the story; not part of the hash. Call it as `if (trace.telling()) trace.Tell(...)`.
  __attribute__((format(printf, 2, 3))) void Tell(const char* format, ...) {
    if (story_ == nullptr) return;
    std::fprintf(story_, "%10.6f  ", static_cast<double>(events_->now()) / 1e6);
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(story_, format, arguments);
    va_end(arguments);
    std::fputc('\n', story_);
  }

 private:
  const EventQueue* const events_;
  std::FILE* const story_;
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

// What Note's first number says.
enum TraceKind : uint32_t {
  kTraceStatus = 1,
  kTraceDeliver,
  kTraceBoot,
  kTraceCrash,
  kTraceFault,
  kTraceSync,
  kTraceApply,
  kTraceOperation,
  kTraceOutcome,
  kTraceBirth,
};

}  // namespace quorate::sim
