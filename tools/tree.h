// Files and keys: what `import` reads from a directory and what `export` writes into one.
//
// A key becomes a path below the export's directory and nowhere else: each part is opened relative
// to its parent without following symbolic links, and keys that no file below it can have are
// refused.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quorate::tools {

// --- Reading ---

struct FileEntry {
  std::string path;  // to open: the root and the name
  std::string name;  // below the root, with "/" between
  uint64_t size = 0;
};

// Something in the tree that is no file, and why it is left out.
struct LeftOut {
  std::string name;
  std::string reason;
};

struct Tree {
  std::vector<FileEntry> files;     // sorted by name, bytewise
  std::vector<LeftOut> links;       // symbolic links and special files: skipped on purpose
  std::vector<LeftOut> unreadable;  // directories that could not be read: an error
};

// Walks `root` without following symbolic links below it. Errors: kNotFound, kFailedPrecondition
// (not a directory), kPermissionDenied, naming it.
absl::StatusOr<Tree> WalkTree(const std::string& root);

// The whole file, opened without following a link or waiting for a pipe. kOutOfRange when it is
// larger than `bytes_max`.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max);

// PREFIX and a name below it: `app` and `a/b` make `app/a/b`; a `/` at the prefix's end is not
// doubled.
std::string JoinKey(std::string_view prefix, std::string_view name);

// --- Writing ---

// Why no file below a directory can have this name; empty: one can. A name is refused when it is
// empty, begins or ends with "/", has an empty, "." or ".." part, a NUL, a part of more than 255
// bytes or more than 4,000 bytes in all.
std::string WhyNotAPath(std::string_view name);

class TreeWriter {
 public:
  // Creates `root` (not its parents) when it is not there. Unless `overwrite`, it must be empty.
  static absl::StatusOr<TreeWriter> Open(const std::string& root, bool overwrite);
  ~TreeWriter();
  TreeWriter(TreeWriter&& other) noexcept;
  TreeWriter& operator=(TreeWriter&&) = delete;

  // Writes one file with all of `bytes`. kInvalidArgument for a name that is no path or that needs
  // a file to be a directory, too; kFailedPrecondition for a symbolic link in the way; others as
  // the system has them.
  absl::Status Write(std::string_view name, std::string_view bytes);

 private:
  TreeWriter(int root, bool overwrite) : root_(root), overwrite_(overwrite) {}
  absl::StatusOr<int> OpenParent(std::string_view name);

  int root_;  // -1: moved from
  const bool overwrite_;
};

}  // namespace quorate::tools
