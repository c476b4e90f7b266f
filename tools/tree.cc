#include "tools/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_split.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

constexpr size_t kPartBytesMax = 255;   // NAME_MAX
constexpr size_t kPathBytesMax = 4000;  // below PATH_MAX
constexpr size_t kDepthMax = 100;

absl::Status Errno(int error, const std::string& what) { return absl::ErrnoToStatus(error, what); }

std::string KindOf(mode_t mode) {
  if (S_ISLNK(mode)) return "a symbolic link";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISBLK(mode) || S_ISCHR(mode)) return "a device";
  return "not a regular file";
}

struct CloseDirectory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

// Takes `fd` over. `name` is the directory's below the root, empty for the root itself.
void Walk(int fd, const std::string& root, const std::string& name, size_t depth, Tree* tree) {
  const Directory directory(fdopendir(fd));
  if (!directory) {
    tree->unreadable.push_back({name, std::strerror(errno)});
    close(fd);
    return;
  }
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) {
      if (errno != 0) tree->unreadable.push_back({name, std::strerror(errno)});
      return;
    }
    const std::string part = entry->d_name;
    if (part == "." || part == "..") continue;
    const std::string child = name.empty() ? part : name + "/" + part;
    struct stat info;
    if (fstatat(fd, part.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      tree->unreadable.push_back({child, std::strerror(errno)});
    } else if (S_ISREG(info.st_mode)) {
      tree->files.push_back({root + "/" + child, child, static_cast<uint64_t>(info.st_size)});
    } else if (!S_ISDIR(info.st_mode)) {
      tree->links.push_back({child, KindOf(info.st_mode)});
    } else if (depth >= kDepthMax) {
      tree->unreadable.push_back({child, "more than 100 directories deep"});
    } else if (const int below =
                   openat(fd, part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
               below < 0) {
      tree->unreadable.push_back({child, std::strerror(errno)});
    } else {
      Walk(below, root, child, depth + 1, tree);
    }
  }
}

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Errno(errno, "write " + name);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Tree> WalkTree(const std::string& root) {
  const int fd = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOTDIR) {
    return absl::FailedPreconditionError(root + " is not a directory");
  }
  if (fd < 0) return Errno(errno, root);
  Tree tree;
  Walk(fd, root, "", 1, &tree);
  const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
  std::sort(tree.files.begin(), tree.files.end(), by_name);
  std::sort(tree.links.begin(), tree.links.end(), by_name);
  std::sort(tree.unreadable.begin(), tree.unreadable.end(), by_name);
  return tree;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return Errno(errno, "open");
  std::string bytes;
  struct stat info;
  absl::Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::FailedPreconditionError("no longer a regular file");
  }
  char buffer[64 << 10];
  while (status.ok()) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = Errno(errno, "read");
    if (got <= 0) break;
    bytes.append(buffer, static_cast<size_t>(got));
    if (bytes.size() > bytes_max) {
      status = absl::OutOfRangeError("larger than " + FormatBytes(bytes_max));
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return bytes;
}

std::string JoinKey(std::string_view prefix, std::string_view name) {
  std::string key(prefix);
  if (!key.empty() && key.back() != '/') key += '/';
  return key.append(name);
}

std::string WhyNotAPath(std::string_view name) {
  if (name.empty()) return "it is the prefix itself, which is the directory";
  if (name.size() > kPathBytesMax) return "it is too long for a path";
  if (name.find('\0') != std::string_view::npos) return "it has a NUL character";
  if (name.front() == '/') return "it begins with \"/\"";
  if (name.back() == '/') return "it ends with \"/\"";
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(name.data(), name.size()), '/')) {
    if (part.empty()) return "it has an empty part";
    if (part == "." || part == "..") return "it has the part \"" + std::string(part) + "\"";
    if (part.size() > kPartBytesMax) return "it has a part of more than 255 bytes";
  }
  return "";
}

absl::StatusOr<TreeWriter> TreeWriter::Open(const std::string& root, bool overwrite) {
  if (mkdir(root.c_str(), 0777) != 0 && errno != EEXIST) return Errno(errno, root);
  const int fd = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOTDIR) {
    return absl::FailedPreconditionError(root + " is not a directory");
  }
  if (fd < 0) return Errno(errno, root);
  TreeWriter writer(fd, overwrite);
  if (overwrite) return writer;
  const int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const Directory directory(copy < 0 ? nullptr : fdopendir(copy));
  if (!directory) return Errno(errno, root);
  while (const dirent* entry = readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      return absl::FailedPreconditionError(
          root + " is not empty; name an empty or new directory, or write over it with --force");
    }
  }
  return writer;
}

TreeWriter::TreeWriter(TreeWriter&& other) noexcept
    : root_(other.root_), overwrite_(other.overwrite_) {
  other.root_ = -1;
}

TreeWriter::~TreeWriter() {
  if (root_ >= 0) close(root_);
}

// The directory that holds the last part, made as needed; the caller closes it.
absl::StatusOr<int> TreeWriter::OpenParent(std::string_view name) {
  int parent = openat(root_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return Errno(errno, "open the directory");
  size_t begin = 0;
  for (size_t slash = name.find('/'); slash != std::string_view::npos;
       slash = name.find('/', begin)) {
    const std::string part(name.substr(begin, slash - begin));
    begin = slash + 1;
    const std::string so_far(name.substr(0, slash));
    int error = 0;
    if (mkdirat(parent, part.c_str(), 0777) != 0 && errno != EEXIST) error = errno;
    const int child =
        error != 0 ? -1
                   : openat(parent, part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0 && error == 0) error = errno;
    struct stat info;
    const bool is_link = error != 0 &&
                         fstatat(parent, part.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                         S_ISLNK(info.st_mode);
    close(parent);
    if (is_link) {
      return absl::FailedPreconditionError("`" + Printable(so_far) +
                                           "` is a symbolic link: not followed");
    }
    if (error == ENOTDIR) {
      return absl::InvalidArgumentError("`" + Printable(so_far) +
                                        "` is a file and cannot be a directory, too");
    }
    if (error != 0) return Errno(error, "make the directory " + Printable(so_far));
    parent = child;
  }
  return parent;
}

absl::Status TreeWriter::Write(std::string_view name, std::string_view bytes) {
  if (const std::string why = WhyNotAPath(name); !why.empty()) {
    return absl::InvalidArgumentError(why);
  }
  const absl::StatusOr<int> parent = OpenParent(name);
  if (!parent.ok()) return parent.status();
  const std::string part(name.substr(name.rfind('/') + 1));  // npos + 1 is 0
  // A new file in any case: never written through a link or into a file that has other names.
  if (overwrite_ && unlinkat(*parent, part.c_str(), 0) != 0 && errno != ENOENT) {
    const int error = errno;
    close(*parent);
    if (error == EISDIR || error == EPERM) {
      return absl::InvalidArgumentError("a directory of this name is there");
    }
    return Errno(error, "replace");
  }
  const int fd =
      openat(*parent, part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  const int error = errno;
  close(*parent);
  if (fd < 0 && (error == EEXIST || error == EISDIR)) {
    return absl::InvalidArgumentError("a file or directory of this name is there");
  }
  if (fd < 0) return Errno(error, "create");
  absl::Status status = WriteAll(fd, bytes, Printable(name));
  if (close(fd) != 0 && status.ok()) status = Errno(errno, "close");
  return status;
}

}  // namespace quorate::tools
