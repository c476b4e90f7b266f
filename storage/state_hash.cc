#include "storage/state_hash.h"

#include <xxhash.h>

namespace quorate::storage {
namespace {

uint64_t LittleEndian(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

StateHash HashSum::bytes() const {
  StateHash bytes;
  Wide rest = value_;
  for (uint8_t& byte : bytes) {
    byte = static_cast<uint8_t>(rest);
    rest >>= 8;
  }
  return bytes;
}

HashSum HashSum::Of(const StateHash& bytes) {
  return HashSum(LittleEndian(bytes.data()), LittleEndian(bytes.data() + 8));
}

RowHasher& RowHasher::Begin(HashedTable table) {
  bytes_.assign(1, static_cast<char>(table));
  return *this;
}

RowHasher& RowHasher::Number(uint64_t value) {
  char little[8];
  for (char& byte : little) {
    byte = static_cast<char>(value);
    value >>= 8;
  }
  bytes_.append(little, sizeof(little));
  return *this;
}

RowHasher& RowHasher::Bytes(std::string_view value) {
  Number(value.size());
  bytes_.append(value);
  return *this;
}

HashSum RowHasher::Finish() {
  XXH128_hash_t hash = XXH3_128bits(bytes_.data(), bytes_.size());
  // One large value must not hold its memory for ever.
  if (bytes_.capacity() > (256u << 10)) std::string().swap(bytes_);
  return HashSum(hash.low64, hash.high64);
}

}  // namespace quorate::storage
