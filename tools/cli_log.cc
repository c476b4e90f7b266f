// log dump, log verify: a stopped node's write-ahead log.
#include "storage/directory.h"
#include "storage/disk.h"
#include "storage/log.h"
#include "tools/cli.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

using LogTool = absl::Status (*)(storage::Disk*, const std::string&, std::ostream&);

// Holds the directory's lock for as long as it reads: a running node is never read behind its back.
int RunLogTool(Invocation& invocation, const std::string& what, const std::string& directory,
               LogTool tool) {
  const auto lock = storage::DirectoryLock::Take(directory);
  if (!lock.ok()) {
    return invocation.Fail(kExitError, what + ": " + std::string(lock.status().message()));
  }
  const std::unique_ptr<storage::Disk> disk = storage::MakePosixDisk();
  const absl::Status status = tool(disk.get(), storage::LogDirectory(directory), invocation.io.out);
  invocation.io.out.flush();
  if (status.ok()) return kExitOk;
  std::string message = what + ": " + std::string(status.message());
  if (status.code() == absl::StatusCode::kNotFound) {
    message += "; name a node's data directory (controlPlane.storePath)";
  }
  return invocation.Fail(kExitError, message);
}

}  // namespace

void AddLogCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* log = app.add_subcommand("log", "a stopped node's write-ahead log");
  log->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, LogTool tool) {
    CLI::App* command = log->add_subcommand(name, help);
    auto directory = std::make_shared<std::string>();
    command->add_option("DIR", *directory, "the node's data directory (controlPlane.storePath)")
        ->required();
    command->callback([&invocation, directory, tool, what = "log " + std::string(name)] {
      invocation.action = [&invocation, directory, tool, what] {
        return RunLogTool(invocation, what, *directory, tool);
      };
    });
  };
  add("dump", "print every record, one a line, also behind damage", storage::DumpLog);
  add("verify", "check what a start would check, and change nothing", storage::VerifyLog);
}

}  // namespace quorate::tools
