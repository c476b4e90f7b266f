#include "tests/storage/sim_disk.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace quorate::storage {
namespace {

std::string Name(const std::string& path) {
  return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
}

void Put(std::string* content, uint64_t offset, std::string_view bytes) {
  if (content->size() < offset + bytes.size()) content->resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content->begin() + static_cast<ptrdiff_t>(offset));
}

// The pieces of a write, none across a sector's border.
std::vector<std::pair<uint64_t, std::string_view>> Sectors(uint64_t offset,
                                                           std::string_view bytes) {
  std::vector<std::pair<uint64_t, std::string_view>> pieces;
  while (!bytes.empty()) {
    size_t n =
        std::min<size_t>(bytes.size(), SimDisk::kSectorBytes - offset % SimDisk::kSectorBytes);
    pieces.emplace_back(offset, bytes.substr(0, n));
    offset += n;
    bytes.remove_prefix(n);
  }
  return pieces;
}

}  // namespace

// An open file. It keeps its File though the name may go.
class SimDisk::Handle final : public DiskFile {
 public:
  Handle(SimDisk* disk, std::string path, std::shared_ptr<File> file, bool writable)
      : disk_(disk), path_(std::move(path)), file_(std::move(file)), writable_(writable) {}

  absl::Status Write(uint64_t offset, std::string_view bytes) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->WriteTo(path_, file_.get(), offset, bytes);
  }
  absl::StatusOr<std::string> Read(uint64_t offset, size_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    auto failing = disk_->failing_reads_.find(path_);
    if (failing != disk_->failing_reads_.end()) return failing->second;
    if (offset >= file_->seen.size()) return std::string();
    return file_->seen.substr(offset, size);
  }
  absl::StatusOr<uint64_t> Size() override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    return file_->seen.size();
  }
  absl::Status Allocate(uint64_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->ResizeTo(path_, file_.get(), size, /*only_grow=*/true);
  }
  absl::Status Truncate(uint64_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->ResizeTo(path_, file_.get(), size, /*only_grow=*/false);
  }
  absl::Status Sync() override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    return disk_->SyncFile(path_, file_.get());
  }

 private:
  SimDisk* const disk_;
  const std::string path_;
  const std::shared_ptr<File> file_;
  const bool writable_;
};

SimDisk::SimDisk(std::vector<std::string> directories) {
  for (const std::string& path : directories) directories_[path];
}

SimDisk::~SimDisk() = default;

absl::Status SimDisk::Step(const char* operation, const std::string& path, bool* fails_half) {
  if (stop_at_ >= 0 && operations_ >= stop_at_) return absl::AbortedError("the process is gone");
  if (fail_at_ >= 0 && operations_ == fail_at_) {
    ++operations_;
    if (fails_half != nullptr) *fails_half = true;
    return absl::Status(failure_->code(),
                        absl::StrCat(operation, " ", path, ": ", failure_->message()));
  }
  ++operations_;
  return absl::OkStatus();
}

absl::StatusOr<SimDisk::Directory*> SimDisk::DirectoryOf(const std::string& path) {
  auto found = directories_.find(ParentDirectory(path));
  if (found == directories_.end()) return absl::NotFoundError(path);
  return &found->second;
}

absl::StatusOr<std::shared_ptr<SimDisk::File>> SimDisk::Find(const std::string& path) {
  absl::StatusOr<Directory*> directory = DirectoryOf(path);
  if (!directory.ok()) return directory.status();
  auto found = (*directory)->seen.find(Name(path));
  if (found == (*directory)->seen.end()) return absl::NotFoundError(absl::StrCat("open ", path));
  return found->second;
}

absl::StatusOr<std::unique_ptr<DiskFile>> SimDisk::Create(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<Directory*> directory = DirectoryOf(path);
  if (!directory.ok()) return directory.status();
  if ((*directory)->seen.contains(Name(path))) return absl::AlreadyExistsError(path);
  if (absl::Status s = Step("create", path); !s.ok()) return s;
  auto file = std::make_shared<File>();
  (*directory)->seen[Name(path)] = file;
  (*directory)->changes.push_back({Name(path), file, ""});
  return std::unique_ptr<DiskFile>(new Handle(this, path, file, true));
}

absl::StatusOr<std::unique_ptr<DiskFile>> SimDisk::Open(const std::string& path, Mode mode) {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::StatusOr<std::shared_ptr<File>> file = Find(path);
  if (!file.ok()) return file.status();
  return std::unique_ptr<DiskFile>(new Handle(this, path, *file, mode == Mode::kReadWrite));
}

absl::Status SimDisk::Rename(const std::string& from, const std::string& to) {
  std::lock_guard<std::mutex> lock(mutex_);
  CHECK(ParentDirectory(from) == ParentDirectory(to), "renames stay within a directory");
  absl::StatusOr<std::shared_ptr<File>> file = Find(from);
  if (!file.ok()) return file.status();
  if (absl::Status s = Step("rename", from); !s.ok()) return s;
  Directory* directory = *DirectoryOf(from);
  directory->seen.erase(Name(from));
  directory->seen[Name(to)] = *file;
  directory->changes.push_back({Name(to), *file, Name(from)});
  return absl::OkStatus();
}

absl::Status SimDisk::Remove(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status s = Find(path).status(); !s.ok()) return s;
  if (absl::Status s = Step("remove", path); !s.ok()) return s;
  Directory* directory = *DirectoryOf(path);
  directory->seen.erase(Name(path));
  directory->changes.push_back({Name(path), nullptr, ""});
  return absl::OkStatus();
}

absl::Status SimDisk::MakeDirectory(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  directories_[path];
  return absl::OkStatus();
}

absl::Status SimDisk::SyncDirectory(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = directories_.find(path);
  if (found == directories_.end()) return absl::NotFoundError(path);
  if (absl::Status s = Step("sync directory", path); !s.ok()) return s;
  found->second.durable = found->second.seen;
  found->second.changes.clear();
  return absl::OkStatus();
}

// Nothing in this world has subdirectories that are removed.
absl::Status SimDisk::RemoveTree(const std::string& path) {
  return absl::UnimplementedError("remove " + path);
}

absl::StatusOr<uint64_t> SimDisk::SizeOf(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (directories_.contains(path)) return 0;
  const absl::StatusOr<std::shared_ptr<File>> file = Find(path);
  if (!file.ok()) return file.status();
  return (*file)->seen.size();
}

absl::StatusOr<std::vector<std::string>> SimDisk::List(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = directories_.find(path);
  if (found == directories_.end()) return absl::NotFoundError(path);
  std::vector<std::string> names;
  for (const auto& [name, file] : found->second.seen) names.push_back(name);
  return names;
}

uint64_t SimDisk::UsedBytes() const {
  uint64_t used = 0;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, file] : directory.seen) used += file->seen.size();
  }
  return used;
}

absl::Status SimDisk::WriteTo(const std::string& path, File* file, uint64_t offset,
                              std::string_view bytes) {
  bool half = false;
  absl::Status step = Step("write", path, &half);
  if (!step.ok() && !half) return step;
  const uint64_t end = offset + bytes.size();
  if (end > file->seen.size() && UsedBytes() + end - file->seen.size() > capacity_) {
    return absl::ResourceExhaustedError(absl::StrCat("write ", path, ": no space left"));
  }
  for (const auto& [at, piece] : Sectors(offset, bytes)) {
    if (half && random_() % 2 == 0) continue;
    storage::Put(&file->seen, at, piece);
    file->changes.push_back({std::nullopt, at, std::string(piece)});
  }
  return step;
}

absl::Status SimDisk::ResizeTo(const std::string& path, File* file, uint64_t size, bool only_grow) {
  if (absl::Status s = Step(only_grow ? "allocate" : "truncate", path); !s.ok()) return s;
  if (only_grow && size <= file->seen.size()) return absl::OkStatus();
  if (size > file->seen.size() && UsedBytes() + size - file->seen.size() > capacity_) {
    return absl::ResourceExhaustedError(absl::StrCat("allocate ", path, ": no space left"));
  }
  file->seen.resize(size);
  file->changes.push_back({size, 0, ""});
  return absl::OkStatus();
}

absl::Status SimDisk::SyncFile(const std::string& path, File* file) {
  bool half = false;
  absl::Status step = Step("sync", path, &half);
  if (!step.ok() && !half) return step;
  for (const Change& change : file->changes) {
    if (half && random_() % 2 == 0) continue;
    if (change.size) {
      file->durable.resize(*change.size);
    } else {
      storage::Put(&file->durable, change.offset, change.bytes);
    }
  }
  // Also after a failure: the pages count as clean now, and nothing writes them again.
  file->changes.clear();
  return step;
}

int SimDisk::operations() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return operations_;
}

void SimDisk::StopAfter(int count) {
  std::lock_guard<std::mutex> lock(mutex_);
  stop_at_ = operations_ + count;
}

void SimDisk::FailAfter(int count, absl::Status error) {
  std::lock_guard<std::mutex> lock(mutex_);
  fail_at_ = operations_ + count;
  failure_ = std::move(error);
}

void SimDisk::FailReads(const std::string& path, absl::Status error) {
  std::lock_guard<std::mutex> lock(mutex_);
  failing_reads_[path] = std::move(error);
}

void SimDisk::SetCapacity(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  capacity_ = bytes;
}

std::unique_ptr<SimDisk> SimDisk::AfterCrash(Fate fate, uint64_t seed) const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::mt19937_64 random(seed);
  const auto keeps = [&](size_t position, size_t count) {
    switch (fate) {
      case Fate::kLost:
        return false;
      case Fate::kKept:
        return true;
      case Fate::kAnySome:
        return random() % 2 == 0;
      case Fate::kLastOnly:
        return position + 1 == count;
    }
    return false;
  };
  auto image = std::make_unique<SimDisk>(std::vector<std::string>{});
  for (const auto& [path, directory] : directories_) {
    std::map<std::string, std::shared_ptr<File>> names = directory.durable;
    for (size_t i = 0; i < directory.changes.size(); ++i) {
      const NameChange& change = directory.changes[i];
      if (!keeps(i, directory.changes.size())) continue;
      if (!change.gone.empty()) names.erase(change.gone);
      if (change.file == nullptr) {
        names.erase(change.name);
      } else {
        names[change.name] = change.file;
      }
    }
    Directory& fresh = image->directories_[path];
    for (const auto& [name, file] : names) {
      auto copy = std::make_shared<File>();
      copy->durable = file->durable;
      for (size_t i = 0; i < file->changes.size(); ++i) {
        const Change& change = file->changes[i];
        if (!keeps(i, file->changes.size())) continue;
        if (change.size) {
          copy->durable.resize(*change.size);
        } else {
          storage::Put(&copy->durable, change.offset, change.bytes);
        }
      }
      copy->seen = copy->durable;
      fresh.durable[name] = copy;
    }
    fresh.seen = fresh.durable;
  }
  return image;
}

std::unique_ptr<SimDisk> SimDisk::Clone() const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto image = std::make_unique<SimDisk>(std::vector<std::string>{});
  std::map<const File*, std::shared_ptr<File>> copies;
  const auto copy = [&](const std::shared_ptr<File>& file) {
    if (file == nullptr) return file;
    std::shared_ptr<File>& made = copies[file.get()];
    if (made == nullptr) made = std::make_shared<File>(*file);
    return made;
  };
  for (const auto& [path, directory] : directories_) {
    Directory& fresh = image->directories_[path];
    for (const auto& [name, file] : directory.seen) fresh.seen[name] = copy(file);
    for (const auto& [name, file] : directory.durable) fresh.durable[name] = copy(file);
    for (const NameChange& change : directory.changes) {
      fresh.changes.push_back({change.name, copy(change.file), change.gone});
    }
  }
  return image;
}

void SimDisk::FlipBit(const std::string& path, uint64_t offset, int bit) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<File> file = *Find(path);
  for (std::string* content : {&file->seen, &file->durable}) {
    if (offset < content->size()) {
      (*content)[offset] = static_cast<char>((*content)[offset] ^ (1 << bit));
    }
  }
}

void SimDisk::Overwrite(const std::string& path, uint64_t offset, const std::string& bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<File> file = *Find(path);
  storage::Put(&file->seen, offset, bytes);
  storage::Put(&file->durable, offset, bytes);
}

void SimDisk::Resize(const std::string& path, uint64_t size) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::shared_ptr<File> file = *Find(path);
  file->seen.resize(size);
  file->durable.resize(size);
}

void SimDisk::Erase(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  Directory* directory = *DirectoryOf(path);
  directory->seen.erase(Name(path));
  directory->durable.erase(Name(path));
}

void SimDisk::Put(const std::string& path, const std::string& content) {
  std::lock_guard<std::mutex> lock(mutex_);
  auto file = std::make_shared<File>();
  file->seen = file->durable = content;
  Directory* directory = *DirectoryOf(path);
  directory->seen[Name(path)] = file;
  directory->durable[Name(path)] = file;
}

std::string SimDisk::Content(const std::string& path) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return (*const_cast<SimDisk*>(this)->Find(path))->seen;
}

bool SimDisk::Exists(const std::string& path) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return const_cast<SimDisk*>(this)->Find(path).ok();
}

}  // namespace quorate::storage
