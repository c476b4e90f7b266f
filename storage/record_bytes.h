// Fixed-width little-endian numbers, as the log's format has them (storage/LOG_FORMAT.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quorate::storage {

template <typename Number>
void AppendNumber(std::string* out, Number number) {
  uint64_t value = static_cast<uint64_t>(number);
  for (size_t i = 0; i < sizeof(Number); ++i, value >>= 8) {
    out->push_back(static_cast<char>(value & 0xff));
  }
}

template <typename Number>
void PutNumber(std::string* out, size_t at, Number number) {
  uint64_t value = static_cast<uint64_t>(number);
  for (size_t i = 0; i < sizeof(Number); ++i, value >>= 8) {
    (*out)[at + i] = static_cast<char>(value & 0xff);
  }
}

// REQUIRES: at + sizeof(Number) <= bytes.size().
template <typename Number>
Number GetNumber(std::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = sizeof(Number); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  }
  return static_cast<Number>(value);
}

constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace quorate::storage
