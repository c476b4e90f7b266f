#include "storage/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace quorate::storage {

uint32_t Crc32c(std::string_view bytes, uint32_t before) {
  constexpr size_t kPieceMax = 1u << 30;  // ISA-L takes the length as int
  unsigned int state = ~before;
  while (!bytes.empty()) {
    std::string_view piece = bytes.substr(0, std::min(bytes.size(), kPieceMax));
    // ISA-L does not write through its pointer; its prototype lacks the const.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(piece.data()));
    state = crc32_iscsi(data, static_cast<int>(piece.size()), state);
    bytes.remove_prefix(piece.size());
  }
  return ~state;
}

}  // namespace quorate::storage
