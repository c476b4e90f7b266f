// Strong integer types: an index is not a term, and neither is a revision.
//
// Strong<Tag> holds one uint64_t, is explicit to make and to read, orders and hashes like the
// number, and does the little arithmetic that positions need (position + count, difference of
// positions). Standard library only: the Raft core includes this.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace quorate {

template <typename Tag>
class Strong {
 public:
  constexpr Strong() = default;
  constexpr explicit Strong(uint64_t value) : value_(value) {}

  constexpr uint64_t value() const { return value_; }
  // True when not zero; zero means "none" for every type made from this template.
  constexpr explicit operator bool() const { return value_ != 0; }

  friend constexpr auto operator<=>(Strong, Strong) = default;
  friend constexpr Strong operator+(Strong a, uint64_t count) { return Strong(a.value_ + count); }
  friend constexpr Strong operator-(Strong a, uint64_t count) { return Strong(a.value_ - count); }
  // The distance between two positions; a must not be below b.
  friend constexpr uint64_t operator-(Strong a, Strong b) { return a.value_ - b.value_; }
  constexpr Strong& operator++() {
    ++value_;
    return *this;
  }

  friend std::string ToString(Strong s) { return std::to_string(s.value_); }

 private:
  uint64_t value_ = 0;
};

}  // namespace quorate

template <typename Tag>
struct std::hash<quorate::Strong<Tag>> {
  size_t operator()(quorate::Strong<Tag> s) const noexcept {
    return std::hash<uint64_t>{}(s.value());
  }
};
