// The `quorate` command: what its subcommands share.
//
// Run() parses, runs one subcommand and returns the exit code (tools/failure.h). It touches nothing
// of the process but what Io names, so that tests run it in-process against a server on loopback.
#pragma once

#include <chrono>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "quorate/v1/config.pb.h"
#include "tools/client.h"
#include "tools/failure.h"
#include "tools/flags.h"
#include "tools/output.h"

namespace quorate::tools {

// Where a command reads and writes. Data goes to `out`, everything else to `err`.
struct Io {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
};

// The flags that every command takes; each also as QUORATE_*.
struct Globals {
  std::string endpoints = "127.0.0.1:8080";
  std::string node;
  std::string timeout = "10s";
  std::string output;
  std::string consistency;
  bool quiet = false;
  bool verbose = false;
};

// One run of the command. Subcommands put what they do into `action` when they are chosen.
struct Invocation {
  explicit Invocation(Io& io) : io(io) {}

  Io& io;
  Globals globals;
  std::function<int()> action;

  // Valid once `action` runs: the flags were checked before.
  OutputFormat format = OutputFormat::kDefault;
  v1::Consistency consistency = v1::CONSISTENCY_UNSPECIFIED;
  std::chrono::milliseconds timeout{};

  // The client of --endpoints, restricted to --node. nullptr after an error that was reported;
  // `exit` then has the code.
  Client* client(int* exit);

  // Whether JSON or YAML was asked for.
  bool structured() const { return format == OutputFormat::kJson || format == OutputFormat::kYaml; }
  // ReadOptions of --consistency, and of a command's own flags.
  v1::ReadOptions read_options(const ReadFlags& flags = {}) const;
  // Prints `quorate: MESSAGE` and returns `code`.
  int Fail(ExitCode code, const std::string& message) const;

 private:
  std::unique_ptr<Client> client_;
};

// argv as main gets it.
int Run(int argc, const char* const* argv, Io& io);

// Each adds its subcommands (tools/cli_*.cc). `invocation` outlives `app`.
void AddItemCommands(CLI::App& app, Invocation& invocation);      // get put delete list
void AddWatchCommands(CLI::App& app, Invocation& invocation);     // watch
void AddLockCommands(CLI::App& app, Invocation& invocation);      // lock elect
void AddTtlCommands(CLI::App& app, Invocation& invocation);       // ttl grant keep-alive revoke
void AddTxnCommands(CLI::App& app, Invocation& invocation);       // txn apply
void AddWriteCommands(CLI::App& app, Invocation& invocation);     // write
void AddHistoryCommands(CLI::App& app, Invocation& invocation);   // history diff rollback
void AddTransferCommands(CLI::App& app, Invocation& invocation);  // import export
void AddClusterCommands(CLI::App& app, Invocation& invocation);   // status member drain
void AddHealthCommands(CLI::App& app, Invocation& invocation);    // health
void AddMemberCommands(CLI::App& app, Invocation& invocation);    // member ..., leader, compact
void AddSettingsCommands(CLI::App& app, Invocation& invocation);  // settings
void AddLogCommands(CLI::App& app, Invocation& invocation);       // log dump, log verify
void AddLocalCommands(CLI::App& app, Invocation& invocation);     // validate-config version

}  // namespace quorate::tools
