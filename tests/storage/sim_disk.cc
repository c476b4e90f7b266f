#include "tests/storage/sim_disk.h"

#include <algorithm>

#include "base/check.h"

namespace quorate::storage {

SimDisk::SimDisk(const std::vector<std::string>& directories)
    : SimulatedDisk(&random_, Grain::kSector) {
  for (const std::string& path : directories) CHECK(MakeDirectory(path).ok());
}

std::unique_ptr<SimDisk> SimDisk::Clone() const {
  auto copy = std::make_unique<SimDisk>(std::vector<std::string>());
  copy->CopyFrom(*this);
  return copy;
}

std::unique_ptr<SimDisk> SimDisk::AfterCrash(Fate fate, uint64_t seed) const {
  auto image = Clone();
  image->random_ = sim::Random(seed);
  image->PowerFailure(fate);
  return image;
}

SimDisk::FilePtr SimDisk::Existing(const std::string& path) const {
  FilePtr file = Find(path);
  CHECK(file != nullptr, path);
  return file;
}

void SimDisk::FlipBit(const std::string& path, uint64_t offset, int bit) {
  Flip(Existing(path).get(), offset, static_cast<char>(1 << bit));
}

void SimDisk::Overwrite(const std::string& path, uint64_t offset, const std::string& bytes) {
  const FilePtr file = Existing(path);
  for (std::string* face : {&file->seen, &file->durable}) {
    face->resize(std::max<size_t>(face->size(), offset + bytes.size()));
    face->replace(offset, bytes.size(), bytes);
  }
  CountUsed();
}

void SimDisk::Resize(const std::string& path, uint64_t size) {
  const FilePtr file = Existing(path);
  file->seen.resize(size);
  file->durable.resize(size);
  CountUsed();
}

void SimDisk::Erase(const std::string& path) { SetName(path, nullptr); }

void SimDisk::Put(const std::string& path, const std::string& content) {
  auto file = std::make_shared<File>();
  file->seen = file->durable = content;
  SetName(path, file);
}

std::string SimDisk::Content(const std::string& path) const { return Existing(path)->seen; }

bool SimDisk::Exists(const std::string& path) const { return Find(path) != nullptr; }

}  // namespace quorate::storage
