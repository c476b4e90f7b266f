// The disk seam over Linux system calls.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/disk.h"

namespace quorate::storage {
namespace {

absl::Status ErrnoStatus(const char* operation, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(operation, " ", path));
}

// A descriptor that is closed exactly once. close() of a file that was only read or synced has
// nothing to report that the sync did not.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

class PosixFile final : public DiskFile {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  absl::Status Write(uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus("write", path_);
      }
      offset += static_cast<uint64_t>(n);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Read(uint64_t offset, size_t size) override {
    absl::StatusOr<uint64_t> end = Size();
    if (!end.ok()) return end.status();
    std::string bytes;
    bytes.resize(offset >= *end ? 0 : static_cast<size_t>(std::min<uint64_t>(size, *end - offset)));
    size_t done = 0;
    while (done < bytes.size()) {
      ssize_t n = ::pread(fd_.get(), bytes.data() + done, bytes.size() - done,
                          static_cast<off_t>(offset + done));
      if (n < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus("read", path_);
      }
      if (n == 0) break;  // somebody made it shorter meanwhile
      done += static_cast<size_t>(n);
    }
    bytes.resize(done);
    return bytes;
  }

  absl::StatusOr<uint64_t> Size() override {
    struct stat info;
    if (::fstat(fd_.get(), &info) != 0) return ErrnoStatus("stat", path_);
    return static_cast<uint64_t>(info.st_size);
  }

  absl::Status Allocate(uint64_t size) override {
    absl::StatusOr<uint64_t> end = Size();
    if (!end.ok()) return end.status();
    if (*end >= size) return absl::OkStatus();
    const off_t from = static_cast<off_t>(*end);
    const off_t length = static_cast<off_t>(size - *end);
    int result;
    do {
      result = ::fallocate(fd_.get(), 0, from, length);
    } while (result != 0 && errno == EINTR);
    if (result == 0) return absl::OkStatus();
    if (errno != EOPNOTSUPP && errno != ENOSYS) return ErrnoStatus("allocate", path_);
    // A file system without fallocate: the zeroes are written.
    const std::string zeroes(1u << 20, '\0');
    for (uint64_t at = *end; at < size; at += zeroes.size()) {
      size_t n = static_cast<size_t>(std::min<uint64_t>(zeroes.size(), size - at));
      if (absl::Status s = Write(at, std::string_view(zeroes).substr(0, n)); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  absl::Status Truncate(uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return ErrnoStatus("truncate", path_);
    }
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    // Never retried, not even for EINTR: whatever a failed flush leaves behind is unknown.
    if (::fdatasync(fd_.get()) != 0) return ErrnoStatus("fdatasync", path_);
    return absl::OkStatus();
  }

 private:
  const Descriptor fd_;
  const std::string path_;
};

class PosixDiskImpl final : public Disk {
 public:
  absl::StatusOr<std::unique_ptr<DiskFile>> Create(const std::string& path) override {
    return OpenWith(path, O_RDWR | O_CREAT | O_EXCL, "create");
  }
  absl::StatusOr<std::unique_ptr<DiskFile>> Open(const std::string& path, Mode mode) override {
    return OpenWith(path, mode == Mode::kRead ? O_RDONLY : O_RDWR, "open");
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      return ErrnoStatus("rename", absl::StrCat(from, " to ", to));
    }
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return ErrnoStatus("remove", path);
    return absl::OkStatus();
  }

  absl::Status MakeDirectory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
    const int error = errno;
    struct stat info;
    if (error == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
      return absl::OkStatus();
    }
    return absl::ErrnoToStatus(error == EEXIST ? ENOTDIR : error,
                               absl::StrCat("create directory ", path));
  }

  absl::Status SyncDirectory(const std::string& path) override {
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoStatus("open directory", path);
    if (::fsync(fd.get()) != 0) return ErrnoStatus("sync directory", path);
    return absl::OkStatus();
  }

  absl::Status RemoveTree(const std::string& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (!error) return absl::OkStatus();
    return absl::ErrnoToStatus(error.value(), "cannot remove " + path);
  }

  absl::StatusOr<uint64_t> SizeOf(const std::string& path) override {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) return ErrnoStatus("look at", path);
    return static_cast<uint64_t>(info.st_size);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
    if (directory == nullptr) return ErrnoStatus("open directory", path);
    std::vector<std::string> names;
    while (true) {
      errno = 0;
      const dirent* entry = ::readdir(directory.get());
      if (entry == nullptr) break;
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
    if (errno != 0) return ErrnoStatus("read directory", path);
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  absl::StatusOr<std::unique_ptr<DiskFile>> OpenWith(const std::string& path, int flags,
                                                     const char* operation) {
    int fd;
    do {
      fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return ErrnoStatus(operation, path);
    return std::unique_ptr<DiskFile>(new PosixFile(fd, path));
  }
};

}  // namespace

std::unique_ptr<Disk> MakePosixDisk() { return std::make_unique<PosixDiskImpl>(); }

Disk* PosixDisk() {
  static PosixDiskImpl disk;
  return &disk;
}

}  // namespace quorate::storage
