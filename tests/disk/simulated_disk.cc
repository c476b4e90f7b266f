#include "tests/disk/simulated_disk.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace quorate::sim {
namespace {

using storage::ParentDirectory;

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void Put(std::string* content, uint64_t offset, std::string_view bytes) {
  if (content->size() < offset + bytes.size()) content->resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content->begin() + static_cast<ptrdiff_t>(offset));
}

// Calls with each piece of a write, none across a sector's border.
template <typename Use>
void ForEachSector(uint64_t offset, std::string_view bytes, Use use) {
  constexpr size_t kSector = SimulatedDisk::kSectorBytes;
  while (!bytes.empty()) {
    const size_t n = std::min<size_t>(bytes.size(), kSector - offset % kSector);
    use(offset, bytes.substr(0, n));
    offset += n;
    bytes.remove_prefix(n);
  }
}

}  // namespace

// An open file. It keeps its File though the name may go.
class SimulatedDisk::Handle final : public storage::DiskFile {
 public:
  Handle(SimulatedDisk* disk, std::string path, FilePtr file, bool writable)
      : disk_(disk), path_(std::move(path)), file_(std::move(file)), writable_(writable) {}

  absl::Status Write(uint64_t offset, std::string_view bytes) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->Write(path_, file_.get(), offset, bytes);
  }
  absl::StatusOr<std::string> Read(uint64_t offset, size_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    return disk_->Read(path_, *file_, offset, size);
  }
  absl::StatusOr<uint64_t> Size() override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    return file_->seen.size();
  }
  absl::Status Allocate(uint64_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->Resize(path_, file_.get(), size, /*only_grow=*/true);
  }
  absl::Status Truncate(uint64_t size) override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    CHECK(writable_, path_);
    return disk_->Resize(path_, file_.get(), size, /*only_grow=*/false);
  }
  absl::Status Sync() override {
    std::lock_guard<std::mutex> lock(disk_->mutex_);
    return disk_->Sync(path_, file_.get());
  }

 private:
  SimulatedDisk* const disk_;
  const std::string path_;
  const FilePtr file_;
  const bool writable_;
};

void SimulatedDisk::NoteFailedChange(const char* operation, const std::string& path) {
  failed_ = true;
  if (failed_change_.empty()) failed_change_ = absl::StrCat(operation, " ", path);
}

absl::Status SimulatedDisk::Step(const char* operation, const std::string& path, bool* half) {
  if (stopped_ || operations_ >= stop_at_) {
    stopped_ = true;
    return absl::AbortedError("the process is gone");
  }
  if (operations_++ != fail_at_) return absl::OkStatus();
  NoteFailedChange(operation, path);
  if (half != nullptr) *half = true;
  const std::string_view what = operation;
  ++(what == "write" ? errors_.writes : what == "sync" ? errors_.syncs : errors_.others);
  return absl::Status(failure_->code(),
                      absl::StrCat(operation, " ", path, ": ", failure_->message()));
}

SimulatedDisk::Directory* SimulatedDisk::FindDirectory(const std::string& path) {
  const auto found = directories_.find(ParentDirectory(path));
  return found == directories_.end() ? nullptr : &found->second;
}

SimulatedDisk::FilePtr SimulatedDisk::Find(const std::string& path) const {
  const auto directory = directories_.find(ParentDirectory(path));
  if (directory == directories_.end()) return nullptr;
  const auto found = directory->second.seen.find(NameOf(path));
  return found == directory->second.seen.end() ? nullptr : found->second;
}

// --- Names ---

absl::StatusOr<std::unique_ptr<storage::DiskFile>> SimulatedDisk::Create(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  Directory* const directory = FindDirectory(path);
  if (directory == nullptr) return absl::NotFoundError(path);
  if (directory->seen.contains(NameOf(path))) return absl::AlreadyExistsError(path);
  if (absl::Status s = Step("create", path); !s.ok()) return s;
  auto file = std::make_shared<File>();
  directory->seen[NameOf(path)] = file;
  directory->changes.push_back({NameOf(path), file, ""});
  return std::unique_ptr<storage::DiskFile>(new Handle(this, path, file, true));
}

absl::StatusOr<std::unique_ptr<storage::DiskFile>> SimulatedDisk::Open(const std::string& path,
                                                                       Mode mode) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return absl::AbortedError("the process is gone");
  FilePtr file = Find(path);
  if (file == nullptr) return absl::NotFoundError(absl::StrCat("open ", path));
  return std::unique_ptr<storage::DiskFile>(
      new Handle(this, path, std::move(file), mode == Mode::kReadWrite));
}

absl::Status SimulatedDisk::Rename(const std::string& from, const std::string& to) {
  std::lock_guard<std::mutex> lock(mutex_);
  CHECK(ParentDirectory(from) == ParentDirectory(to), "renames stay within a directory");
  if (directories_.contains(from)) {
    CHECK(!directories_.contains(to), "a directory in the way");
    if (absl::Status s = Step("rename", from); !s.ok()) return s;
    auto moved = directories_.extract(from);
    moved.key() = to;
    directories_.insert(std::move(moved));
    directory_changes_.push_back({ParentDirectory(from), from, to, std::nullopt});
    return absl::OkStatus();
  }
  const FilePtr file = Find(from);
  if (file == nullptr) return absl::NotFoundError(from);
  if (absl::Status s = Step("rename", from); !s.ok()) return s;
  Directory* const directory = FindDirectory(from);
  directory->seen.erase(NameOf(from));
  directory->seen[NameOf(to)] = file;
  directory->changes.push_back({NameOf(to), file, NameOf(from)});
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Remove(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  const FilePtr file = Find(path);
  if (file == nullptr) return absl::NotFoundError(path);
  if (absl::Status s = Step("remove", path); !s.ok()) return s;
  Directory* const directory = FindDirectory(path);
  used_ -= std::min<uint64_t>(used_, file->seen.size());
  directory->seen.erase(NameOf(path));
  directory->changes.push_back({NameOf(path), nullptr, ""});
  return absl::OkStatus();
}

absl::Status SimulatedDisk::MakeDirectory(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return absl::AbortedError("the process is gone");
  if (directories_.contains(path)) return absl::OkStatus();
  if (Find(path) != nullptr) return absl::FailedPreconditionError(path + " is no directory");
  const std::string parent = ParentDirectory(path);
  if (!directories_.contains(parent)) {
    for (const auto& [above, directory] : directories_) {
      if (path.starts_with(above + "/")) return absl::NotFoundError(parent);
    }
    directories_[path];
    return absl::OkStatus();
  }
  if (absl::Status s = Step("make directory", path); !s.ok()) return s;
  directories_[path];
  directory_changes_.push_back({parent, "", path, std::nullopt});
  return absl::OkStatus();
}

absl::Status SimulatedDisk::SyncDirectory(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = directories_.find(path);
  if (found == directories_.end()) return absl::NotFoundError(path);
  if (absl::Status s = Step("sync directory", path); !s.ok()) return s;
  found->second.durable = found->second.seen;
  found->second.changes.clear();
  std::erase_if(directory_changes_, [&](const auto& change) { return change.parent == path; });
  return absl::OkStatus();
}

absl::Status SimulatedDisk::RemoveTree(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = directories_.find(path);
  if (found == directories_.end()) return absl::OkStatus();
  if (absl::Status s = Step("remove directory", path); !s.ok()) return s;
  for (const auto& [name, file] : found->second.seen) {
    used_ -= std::min<uint64_t>(used_, file->seen.size());
  }
  directory_changes_.push_back({ParentDirectory(path), path, "", std::move(found->second)});
  directories_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> SimulatedDisk::SizeOf(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return absl::AbortedError("the process is gone");
  if (directories_.contains(path)) return 0;
  const FilePtr file = Find(path);
  if (file == nullptr) return absl::NotFoundError(path);
  return file->seen.size();
}

absl::StatusOr<std::vector<std::string>> SimulatedDisk::List(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopped_) return absl::AbortedError("the process is gone");
  const auto found = directories_.find(path);
  if (found == directories_.end()) return absl::NotFoundError(path);
  std::vector<std::string> names;
  for (const auto& [name, file] : found->second.seen) names.push_back(name);
  for (const auto& [directory, content] : directories_) {
    if (ParentDirectory(directory) == path) names.push_back(NameOf(directory));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// --- Bytes ---

absl::StatusOr<std::string> SimulatedDisk::Read(const std::string& path, const File& file,
                                                uint64_t offset, size_t size) {
  if (stopped_) return absl::AbortedError("the process is gone");
  if (reads_++ == fail_read_at_) {
    failed_ = true;
    ++errors_.reads;
    return absl::Status(read_failure_.code(),
                        absl::StrCat("read ", path, ": ", read_failure_.message()));
  }
  if (offset >= file.seen.size()) return std::string();
  return file.seen.substr(offset, size);
}

absl::Status SimulatedDisk::Write(const std::string& path, File* file, uint64_t offset,
                                  std::string_view bytes) {
  bool half = false;
  absl::Status step = Step("write", path, &half);
  if (!step.ok() && !half) return step;
  const uint64_t end = offset + bytes.size();
  if (end > file->seen.size()) {
    const uint64_t more = end - file->seen.size();
    if (used_ + more > capacity_) {
      NoteFailedChange("write", path);
      ++errors_.full;
      return absl::ResourceExhaustedError(absl::StrCat("write ", path, ": no space left"));
    }
    used_ += more;
  }
  if (!half && grain_ == Grain::kWrite) {
    Put(&file->seen, offset, bytes);
    file->changes.push_back({std::nullopt, offset, std::string(bytes)});
    return step;
  }
  ForEachSector(offset, bytes, [&](uint64_t at, std::string_view piece) {
    if (half && random_->OneIn(2)) return;
    Put(&file->seen, at, piece);
    file->changes.push_back({std::nullopt, at, std::string(piece)});
  });
  return step;
}

absl::Status SimulatedDisk::Resize(const std::string& path, File* file, uint64_t size,
                                   bool only_grow) {
  if (absl::Status s = Step(only_grow ? "allocate" : "truncate", path); !s.ok()) return s;
  if (only_grow && size <= file->seen.size()) return absl::OkStatus();
  if (size > file->seen.size() && used_ + size - file->seen.size() > capacity_) {
    NoteFailedChange("allocate", path);
    ++errors_.full;
    return absl::ResourceExhaustedError(absl::StrCat("allocate ", path, ": no space left"));
  }
  used_ = used_ + size - std::min<uint64_t>(used_ + size, file->seen.size());
  file->seen.resize(size);
  file->changes.push_back({size, 0, ""});
  return absl::OkStatus();
}

absl::Status SimulatedDisk::Sync(const std::string& path, File* file) {
  bool half = false;
  absl::Status step = Step("sync", path, &half);
  if (!step.ok() && !half) return step;
  if (!file->changes.empty()) file->fresh.clear();
  for (const Change& change : file->changes) {
    if (!change.size) file->fresh.push_back(change.offset);
    if (half && random_->OneIn(2)) continue;
    if (change.size) {
      file->durable.resize(*change.size);
    } else {
      Put(&file->durable, change.offset, change.bytes);
    }
  }
  if (half) file->half_flushed = true;
  // Also after a failure: the pages count as clean now, and nothing writes them again.
  file->changes.clear();
  return step;
}

// --- Crashes ---

void SimulatedDisk::Revive() {
  stopped_ = failed_ = false;
  stop_at_ = fail_at_ = fail_read_at_ = UINT64_MAX;
  failure_.reset();
  failed_change_.clear();
}

bool SimulatedDisk::Survives(Fate fate, size_t position, size_t count, size_t missing) {
  switch (fate) {
    case Fate::kLost:
      return false;
    case Fate::kKept:
      return true;
    case Fate::kAnySome:
      return random_->OneIn(2);
    case Fate::kLastOnly:
      return position + 1 == count;
    case Fate::kAllButOne:
      return position != missing;
  }
  return false;
}

void SimulatedDisk::CrashFile(File* file, Fate fate) {
  const size_t count = file->changes.size();
  if (count == 0 && !file->half_flushed) return;  // what is seen is durable
  const size_t missing = count == 0 ? 0 : random_->Below(count);
  for (size_t i = 0; i < count; ++i) {
    const Change& change = file->changes[i];
    if (!change.size) file->fresh.push_back(change.offset);
    if (fate == Fate::kAnySome && !change.size) {
      ForEachSector(change.offset, change.bytes, [&](uint64_t at, std::string_view piece) {
        if (random_->OneIn(2)) Put(&file->durable, at, piece);
      });
    } else if (Survives(fate, i, count, missing)) {
      if (change.size) {
        file->durable.resize(*change.size);
      } else {
        Put(&file->durable, change.offset, change.bytes);
      }
    }
  }
  file->changes.clear();
  file->half_flushed = false;
  file->seen = file->durable;
}

void SimulatedDisk::Undo(const DirectoryChange& change) {
  if (change.removed) {
    directories_.emplace(change.from, *change.removed);
  } else if (change.from.empty()) {
    // With all that is in it.
    std::erase_if(directories_, [&](const auto& each) {
      return each.first == change.to || each.first.starts_with(change.to + "/");
    });
  } else if (directories_.contains(change.to) && !directories_.contains(change.from)) {
    auto moved = directories_.extract(change.to);
    moved.key() = change.from;
    directories_.insert(std::move(moved));
  }
}

void SimulatedDisk::PowerFailure(Fate fate) {
  const size_t changed = directory_changes_.size();
  const size_t lost = changed == 0 ? 0 : random_->Below(changed);
  // The latest first: each is undone in the state that it made.
  for (size_t i = changed; i > 0; --i) {
    if (!Survives(fate, i - 1, changed, lost)) Undo(directory_changes_[i - 1]);
  }
  directory_changes_.clear();
  std::set<File*> crashed;
  for (auto& [path, directory] : directories_) {
    const size_t count = directory.changes.size();
    const size_t missing = count == 0 ? 0 : random_->Below(count);
    for (size_t i = 0; i < count; ++i) {
      const NameChange& change = directory.changes[i];
      if (!Survives(fate, i, count, missing)) continue;
      if (!change.gone.empty()) directory.durable.erase(change.gone);
      if (change.file == nullptr) {
        directory.durable.erase(change.name);
      } else {
        directory.durable[change.name] = change.file;
      }
    }
    directory.changes.clear();
    directory.seen = directory.durable;
    for (auto& [name, file] : directory.durable) {
      // A file may be there by its old and by its new name.
      if (crashed.insert(file.get()).second) CrashFile(file.get(), fate);
    }
  }
  CountUsed();
}

void SimulatedDisk::SetName(const std::string& path, const FilePtr& file) {
  Directory* const directory = FindDirectory(path);
  CHECK(directory != nullptr, path);
  for (auto* names : {&directory->seen, &directory->durable}) {
    if (file == nullptr) {
      names->erase(NameOf(path));
    } else {
      (*names)[NameOf(path)] = file;
    }
  }
  CountUsed();
}

void SimulatedDisk::CopyFrom(const SimulatedDisk& other) {
  std::map<const File*, FilePtr> copies;
  const auto copy = [&](const FilePtr& file) {
    if (file == nullptr) return file;
    FilePtr& made = copies[file.get()];
    if (made == nullptr) made = std::make_shared<File>(*file);
    return made;
  };
  const auto copy_directory = [&](Directory directory) {
    for (auto* names : {&directory.seen, &directory.durable}) {
      for (auto& [name, file] : *names) file = copy(file);
    }
    for (NameChange& change : directory.changes) change.file = copy(change.file);
    return directory;
  };
  for (const auto& [path, directory] : other.directories_) {
    directories_[path] = copy_directory(directory);
  }
  for (DirectoryChange change : other.directory_changes_) {
    if (change.removed) change.removed = copy_directory(*change.removed);
    directory_changes_.push_back(std::move(change));
  }
  CountUsed();
}

void SimulatedDisk::CountUsed() {
  used_ = 0;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, file] : directory.seen) used_ += file->seen.size();
  }
}

void SimulatedDisk::Wipe() {
  directories_.clear();
  directory_changes_.clear();
  flipped_.clear();
  used_ = 0;
}

std::optional<uint64_t> SimulatedDisk::FlipBit(const std::string& path, bool in_front) {
  const auto directory = directories_.find(ParentDirectory(path));
  if (directory == directories_.end()) return std::nullopt;
  const auto found = directory->second.durable.find(NameOf(path));
  if (found == directory->second.durable.end()) return std::nullopt;
  File& file = *found->second;
  uint64_t end = file.durable.find_last_not_of('\0') + 1;  // 0: there is none
  for (const Change& change : file.changes) {
    if (change.size) return std::nullopt;  // its end is not where it seems to be
    if (in_front) end = std::min(end, change.offset);
  }
  for (uint64_t offset : file.fresh) {
    if (in_front) end = std::min(end, offset);
  }
  if (end == 0) return std::nullopt;
  const uint64_t at = random_->Below(end);
  for (const Change& change : file.changes) {
    if (at >= change.offset && at < change.offset + change.bytes.size()) return std::nullopt;
  }
  const char mask = static_cast<char>(1 << random_->Below(8));
  Flip(&file, at, mask);
  flipped_ = path;
  flip_ = {found->second, at, mask};
  return at;
}

void SimulatedDisk::Flip(File* file, uint64_t at, char mask) {
  for (std::string* face : {&file->durable, &file->seen}) {
    if (at < face->size()) (*face)[at] = static_cast<char>((*face)[at] ^ mask);
  }
}

void SimulatedDisk::UndoFlip() {
  CHECK(!flipped_.empty());
  Flip(flip_.file.get(), flip_.at, flip_.mask);
  flipped_.clear();
}

}  // namespace quorate::sim
