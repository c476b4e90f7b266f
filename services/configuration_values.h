// What single values of the configuration file may be: names, numbers, durations. configuration.h
// declares those that others use, too (addresses, durations).
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"

namespace quorate::services {

// 1 to 253 (a pod's name has at most 253) of A-Z a-z 0-9 . _ -
bool IsNodeName(std::string_view name);

// A DNS name, or an IPv4 address with all four numbers.
bool IsHostName(std::string_view host);

// A whole decimal number within [min, max] and nothing else.
std::optional<int> ParseInt(std::string_view text, int min, int max);

// A whole number and its unit, `KiB`, `MiB` or `GiB`; nothing that overflows.
std::optional<uint64_t> ParseBytes(std::string_view text);

// The part of a name before its ordinal, dash included (`quorate-` of `quorate-2`); empty: none.
std::string_view StemOf(std::string_view name);

// The way that ParseDuration reads: `50ms`.
std::string Show(Duration duration);

}  // namespace quorate::services
