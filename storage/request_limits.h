// How many client-given request ids the state machine remembers, and for how long.
#pragma once

#include <cstdint>

namespace quorate::storage {

// The same on every node, so constants and not settings; who tests may lower them for all nodes.
struct RequestLimits {
  uint64_t ids_max = 1'000'000;
  // Of scopes, ids and answers together: answers with what a transaction has read may be large. An
  // answer's wording is not counted: two builds may differ in it, and must forget the same ids.
  uint64_t bytes_max = 256u << 20;
  uint64_t age_max_ms = uint64_t{10} * 60 * 1000;
  // How many one entry of the log lets go because of their age: applying stays short after a pause.
  uint64_t forgotten_per_entry_max = 64;
};

}  // namespace quorate::storage
