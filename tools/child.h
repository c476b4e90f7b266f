// A command that runs below this process.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace quorate::tools {

class Child {
 public:
  using Variables = std::vector<std::pair<std::string, std::string>>;

  // Runs `arguments` (the first is looked up in PATH) with these variables in the environment
  // beside our own. Stdin, stdout and stderr are ours. When this process ends, however, so does the
  // child (SIGKILL; not what it has started itself): call it on a thread that lives as long as the
  // child. kNotFound, kPermissionDenied or another error when it could not be started.
  // `own_group`: it leads a process group, with all that it starts, and so signals reach them too.
  // Not for a child that reads from our terminal: only one group may.
  static absl::StatusOr<Child> Start(const std::vector<std::string>& arguments,
                                     const Variables& variables, bool own_group = false);

  // It has ended, and the system does not say how.
  static constexpr int kStatusUnknown = -1;
  // What a shell calls its exit status (128 + the signal that ended it), or kStatusUnknown;
  // nullopt: it runs. After it has ended it is not asked again.
  std::optional<int> Ended();
  // When it was last asked whether it has ended, it was stopped (SIGSTOP, or SIGTTIN: one with a
  // group of its own may not read from our terminal).
  bool stopped() const { return stopped_; }
  // After it has ended: somebody of its group is still there, also such as may not be signalled.
  // One that has ended does not count, even if nobody has waited for it.
  bool GroupRuns() const;
  // To the whole group when it has its own, and so that stopped ones hear of it; 0: to nobody.
  // False: there are only such as may not be signalled, because they run as somebody else (`sudo`).
  bool Signal(int signal) const;

 private:
  Child(pid_t pid, bool own_group) : pid_(pid), own_group_(own_group) {}
  void ReapOrphans() const;

  pid_t pid_ = 0;
  bool own_group_ = false;
  bool stopped_ = false;
};

}  // namespace quorate::tools
