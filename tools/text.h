// Text for people: sizes, durations, and values that must not drive the terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace quorate::tools {

// One line that is safe on a terminal: control characters and what is not UTF-8 as \n, \t or \xNN,
// a backslash as \\; cut to `width_max` characters with "..." at the end (0: not cut).
std::string Printable(std::string_view text, size_t width_max = 0);

// How many columns a UTF-8 text takes (its number of characters).
size_t Width(std::string_view text);

// `512 B`, `1.5 KiB`, `20.0 MiB`.
std::string FormatBytes(uint64_t bytes);

// `0ms`, `120ms`, `1.5s`, `2m05s`, `3h10m`.
std::string FormatDuration(std::chrono::milliseconds duration);

}  // namespace quorate::tools
