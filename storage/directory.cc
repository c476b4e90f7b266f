#include "storage/directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quorate::storage {
namespace {

constexpr char kLockName[] = "lock";
constexpr char kIdentityName[] = "identity";
constexpr char kLogName[] = "log";
constexpr char kStatePrefix[] = "state-";
constexpr char kSnapshotName[] = "snapshot";

absl::Status NotADirectory(const std::string& path) {
  return absl::FailedPreconditionError(absl::StrCat(
      path, " is not a directory; point controlPlane.storePath at a directory of its own"));
}

// An errno as a user can act on it.
absl::Status Explain(int error, const std::string& operation, const std::string& path) {
  absl::Status status = absl::ErrnoToStatus(error, absl::StrCat("cannot ", operation, " ", path));
  std::string advice;
  if (error == ENOTDIR || error == EEXIST) return NotADirectory(path);
  if (error == EACCES || error == EPERM) {
    advice = absl::StrCat("; give user id ", ::geteuid(),
                          " the right to write there, or set controlPlane.storePath to a "
                          "directory where it has it");
  } else if (error == EROFS) {
    advice = "; the file system is mounted read-only";
  } else if (error == ENOSPC || error == EDQUOT) {
    advice = "; make room on the file system, or set controlPlane.storePath to another one";
  }
  return absl::Status(status.code(), absl::StrCat(status.message(), advice));
}

// Makes `path` and its missing parents; each is synced into its parent, so that a crash later
// cannot take the whole store away with an unsynced name.
absl::Status MakeDirectories(Disk* disk, const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) == 0) {
    if (!S_ISDIR(info.st_mode)) return NotADirectory(path);
    // Perhaps made by an earlier process that was killed before it could. Where the parent may not
    // be opened or synced it is somebody else's work, and was done or cannot be.
    disk->SyncDirectory(ParentDirectory(path)).IgnoreError();
    return absl::OkStatus();
  }
  if (errno != ENOENT) return Explain(errno, "use", path);
  const std::string parent = ParentDirectory(path);
  if (parent != path) {
    if (absl::Status s = MakeDirectories(disk, parent); !s.ok()) return s;
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Explain(errno, "create", path);
  }
  return disk->SyncDirectory(parent);
}

// Who holds the lock, as far as its file says.
std::string Holder(int fd) {
  char text[32];
  ssize_t n = ::pread(fd, text, sizeof(text), 0);
  std::string_view digits(text, n > 0 ? static_cast<size_t>(n) : 0);
  size_t end = digits.find('\n');
  if (end == 0 || end == std::string_view::npos) return "another process";
  return absl::StrCat("process ", std::string(digits.substr(0, end)));
}

bool IsOurs(std::string_view name) {
  return name == kLockName || name == kIdentityName ||
         name == std::string(kIdentityName) + ".new" || name == kLogName || name == kSnapshotName ||
         name == "lost+found" || name.starts_with('.') || name.starts_with(kStatePrefix);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryLock>> DirectoryLock::Take(const std::string& directory) {
  struct stat info;
  if (::stat(directory.c_str(), &info) != 0) return Explain(errno, "use", directory);
  if (!S_ISDIR(info.st_mode)) return NotADirectory(directory);

  const std::string path = JoinPath(directory, kLockName);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return Explain(errno, "write", path);
  std::unique_ptr<DirectoryLock> lock(new DirectoryLock(fd));
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return Explain(errno, "lock", path);
    return absl::UnavailableError(
        absl::StrCat(directory, " is in use by ", Holder(fd),
                     "; stop it first, or give each process a directory of its own"));
  }
  // For whoever is refused later; nothing depends on it, so nothing is synced.
  const std::string id = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    return Explain(errno, "write", path);
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  // The file stays: removing it would let two processes each lock a file of the same name.
  ::close(fd_);
}

DataDirectory::DataDirectory(std::string path, std::unique_ptr<DirectoryLock> lock,
                             std::unique_ptr<IdentityFile> identity)
    : path_(std::move(path)), lock_(std::move(lock)), identity_(std::move(identity)) {}

absl::StatusOr<std::unique_ptr<DataDirectory>> DataDirectory::Open(Disk* disk,
                                                                   const std::string& path,
                                                                   const std::string& node) {
  if (absl::Status s = MakeDirectories(disk, path); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<DirectoryLock>> lock = DirectoryLock::Take(path);
  if (!lock.ok()) return lock.status();

  const std::string identity_path = IdentityPath(path);
  absl::StatusOr<std::unique_ptr<IdentityFile>> identity =
      IdentityFile::Open(disk, identity_path, node);
  if (absl::IsNotFound(identity.status())) {
    absl::StatusOr<std::vector<std::string>> names = disk->List(path);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      if (!IsOurs(name)) {
        return absl::FailedPreconditionError(absl::StrCat(
            path, " holds ", name, ", which is no file of ours; use an empty directory"));
      }
      if (name == kLogName || name.starts_with(kStatePrefix)) {
        return absl::DataLossError(absl::StrCat(
            identity_path, " is missing although ", name,
            " is there: put the whole directory back, or empty it to join as a new store"));
      }
    }
    identity = IdentityFile::Create(disk, identity_path, node, StoreId(RandomId()));
  }
  if (!identity.ok()) return identity.status();

  std::unique_ptr<DataDirectory> directory(
      new DataDirectory(path, *std::move(lock), *std::move(identity)));
  if (absl::Status s = disk->MakeDirectory(directory->log_directory()); !s.ok()) return s;
  std::error_code error;
  std::filesystem::remove_all(directory->snapshot_directory(), error);
  if (error) return Explain(error.value(), "empty", directory->snapshot_directory());
  if (absl::Status s = disk->MakeDirectory(directory->snapshot_directory()); !s.ok()) return s;
  if (absl::Status s = disk->SyncDirectory(path); !s.ok()) return s;
  return directory;
}

std::string DataDirectory::log_directory() const { return LogDirectory(path_); }

std::string DataDirectory::state_directory(uint64_t generation) const {
  return StateDirectory(path_, generation);
}

std::string DataDirectory::snapshot_directory() const { return SnapshotDirectory(path_); }

std::string IdentityPath(const std::string& data_directory) {
  return JoinPath(data_directory, kIdentityName);
}
std::string LogDirectory(const std::string& data_directory) {
  return JoinPath(data_directory, kLogName);
}
std::string StateDirectory(const std::string& data_directory, uint64_t generation) {
  return JoinPath(data_directory, absl::StrCat(kStatePrefix, generation));
}
std::string SnapshotDirectory(const std::string& data_directory) {
  return JoinPath(data_directory, kSnapshotName);
}

}  // namespace quorate::storage
