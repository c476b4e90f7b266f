// Whole trees in and out: the work behind `import` and `export`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "quorate/v1/config.pb.h"
#include "tools/client.h"
#include "tools/progress.h"
#include "tools/tree.h"

namespace quorate::tools {

struct ImportOptions {
  std::string prefix;
  std::string note;
  int concurrency = 16;  // writers at a time
  bool all = false;      // write also what the node shows to be the same already
  bool verbose = false;  // a line for each item
  v1::ReadOptions read;
};

struct ImportSummary {
  uint64_t written = 0;    // acknowledged
  uint64_t unchanged = 0;  // the same value was there already
  uint64_t failed = 0;     // certainly not written
  uint64_t unknown = 0;    // may or may not be written
  uint64_t bytes = 0;      // of the written ones
  bool interrupted = false;
  int exit = 0;  // of the first failure
};

// Writes every file of the tree as one item. A file fails alone; so many failures in a row that the
// cluster must be away (`kFailuresInRowMax`) end the import early.
//
// A rerun goes on where an earlier run ended: each file is compared with what the asked node shows
// and left alone when it is the same. Otherwise it is written only if that is still what is there:
// somebody else's change that the node does not show yet is looked at first. An item that is bound
// to a time-to-live is not written over: a file has none, and what somebody registered for as long
// as he lives would stay for ever. `all` writes everything, without a look.
ImportSummary Import(Client& client, const Tree& tree, const ImportOptions& options,
                     Progress& progress);

inline constexpr uint64_t kFailuresInRowMax = 32;

// What a value may have at most (DESIGN.md, "Limits"): larger files are not even read.
inline constexpr size_t kValueBytesMax = 1u << 20;

struct ExportOptions {
  std::string prefix;
  bool bound = false;  // also what is bound to a time-to-live
  bool verbose = false;
  v1::ReadOptions read;
};

struct ExportSummary {
  uint64_t written = 0;
  uint64_t bound = 0;    // left out: bound to a time-to-live
  uint64_t refused = 0;  // keys that no file can have
  uint64_t failed = 0;   // files that could not be written
  uint64_t bytes = 0;
  uint64_t revision = 0;
  std::string node;
  bool interrupted = false;
  CallResult result;  // of the listing
};

// Writes every item of the prefix as one file, all at one revision. What is bound to a time-to-live
// is somebody's for as long as he lives, and no file says so: it is left out unless asked for.
ExportSummary Export(Client& client, TreeWriter& writer, const ExportOptions& options,
                     Progress& progress);

}  // namespace quorate::tools
