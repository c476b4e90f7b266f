// Single-threaded enumerations and random histories cost five to twenty times as much under a
// sanitizer. What they prove about the code they prove without one, in full; a sanitizer has to see
// each line of it work, and for that every fifth case is enough.
#pragma once

#include <cstdint>

namespace quorate {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitizer = true;
#else
inline constexpr bool kSanitizer = false;
#endif
#else
inline constexpr bool kSanitizer = false;
#endif

// The distance between the cases of an enumeration that are run; prime, so that a stride meets
// every residue of the small powers of two that the cases choose their own variants by.
inline constexpr int kCaseStride = kSanitizer ? 5 : 1;

// How many of `histories` (a multiple of 5) are run.
constexpr uint64_t SanitizerShare(uint64_t histories) {
  return histories / static_cast<uint64_t>(kCaseStride);
}

}  // namespace quorate
