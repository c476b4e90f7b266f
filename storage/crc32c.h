// CRC32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L: hardware where there is any.
#pragma once

#include <cstdint>
#include <string_view>

namespace quorate::storage {

// The checksum of `bytes` behind bytes whose checksum is `before` (0: nothing before), so that
// Crc32c(b, Crc32c(a)) == Crc32c(a followed by b).
uint32_t Crc32c(std::string_view bytes, uint32_t before = 0);

}  // namespace quorate::storage
