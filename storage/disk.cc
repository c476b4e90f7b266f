#include "storage/disk.h"

#include "absl/strings/str_cat.h"

namespace quorate::storage {

std::string ParentDirectory(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  if (slash == 0) return "/";
  return std::string(path.substr(0, slash));
}

std::string JoinPath(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (path.empty() || path.back() != '/') path += '/';
  path += name;
  return path;
}

absl::Status ReplaceFile(Disk* disk, const std::string& path, std::string_view content) {
  const std::string fresh = path + ".new";
  // Left behind by a crash between create and rename.
  absl::Status removed = disk->Remove(fresh);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Create(fresh);
  if (!file.ok()) return file.status();
  if (absl::Status s = (*file)->Write(0, content); !s.ok()) return s;
  // Before the rename: a name must never show a file whose bytes are not durable.
  if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
  file->reset();
  if (absl::Status s = disk->Rename(fresh, path); !s.ok()) return s;
  return disk->SyncDirectory(ParentDirectory(path));
}

absl::StatusOr<std::string> ReadWholeFile(Disk* disk, const std::string& path, size_t bytes_max) {
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Open(path, Disk::Mode::kRead);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::string> bytes = (*file)->Read(0, bytes_max + 1);
  if (bytes.ok() && bytes->size() > bytes_max) {
    return absl::OutOfRangeError(absl::StrCat(path, ": longer than ", bytes_max, " bytes"));
  }
  return bytes;
}

}  // namespace quorate::storage
