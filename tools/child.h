// A command that runs below this process and never longer than it.
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
  // child (SIGKILL): call it on a thread that lives as long as the child. kNotFound,
  // kPermissionDenied or another error when it could not be started.
  static absl::StatusOr<Child> Start(const std::vector<std::string>& arguments,
                                     const Variables& variables);

  // What a shell calls its exit status (128 + the signal that ended it); nullopt: it runs. After it
  // has ended it is not asked again.
  std::optional<int> Ended();
  void Signal(int signal) const;

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_ = 0;
};

}  // namespace quorate::tools
