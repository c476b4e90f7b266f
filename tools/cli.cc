#include "tools/cli.h"

#include <iostream>
#include <map>

#include "services/configuration.h"
#include "tools/completion.h"

namespace quorate::tools {
namespace {

const std::map<std::string, OutputFormat> kFormats = {{"table", OutputFormat::kTable},
                                                      {"json", OutputFormat::kJson},
                                                      {"yaml", OutputFormat::kYaml},
                                                      {"raw", OutputFormat::kRaw}};
const std::map<std::string, v1::Consistency> kConsistencies = {
    {"local", v1::CONSISTENCY_LOCAL},
    {"lease", v1::CONSISTENCY_LEASE},
    {"linearizable", v1::CONSISTENCY_LINEARIZABLE}};

template <typename Value>
std::string NamesOf(const std::map<std::string, Value>& choices) {
  std::string names;
  for (const auto& choice : choices) names += (names.empty() ? "" : ", ") + choice.first;
  return names;
}

template <typename Value>
bool Choose(const std::map<std::string, Value>& choices, const std::string& name, Value* value) {
  if (name.empty()) return true;
  const auto found = choices.find(name);
  if (found == choices.end()) return false;
  *value = found->second;
  return true;
}

void AddGlobals(CLI::App& app, Globals& globals) {
  app.add_option("--endpoints", globals.endpoints,
                 "nodes to call, host:port with commas between; the first that answers is used")
      ->envname("QUORATE_ENDPOINTS")
      ->capture_default_str();
  app.add_option("--node", globals.node, "call only the endpoint whose node has this name")
      ->envname("QUORATE_NODE");
  app.add_option("--timeout", globals.timeout,
                 "for each call, fail-over included (of several endpoints one gets half of it at "
                 "most): 500ms, 10s, 1m")
      ->envname("QUORATE_TIMEOUT")
      ->capture_default_str();
  app.add_option("-o,--output", globals.output, "table, json, yaml or raw")
      ->envname("QUORATE_OUTPUT");
  app.add_option("--consistency", globals.consistency,
                 "of reads: local (the node's own state, the default), lease or linearizable")
      ->envname("QUORATE_CONSISTENCY");
  app.add_flag("-q,--quiet", globals.quiet, "no progress and no confirmations")
      ->envname("QUORATE_QUIET");
  app.add_flag("-v,--verbose", globals.verbose, "say more on stderr")->envname("QUORATE_VERBOSE");
}

// Turns the flags' texts into values; prints what is wrong and returns false otherwise.
bool CheckGlobals(Invocation& invocation) {
  const Globals& globals = invocation.globals;
  std::ostream& err = invocation.io.err;
  if (!Choose(kFormats, globals.output, &invocation.format)) {
    err << "quorate: --output " << globals.output << ": write one of " << NamesOf(kFormats) << '\n';
    return false;
  }
  if (!Choose(kConsistencies, globals.consistency, &invocation.consistency)) {
    err << "quorate: --consistency " << globals.consistency << ": write one of "
        << NamesOf(kConsistencies) << '\n';
    return false;
  }
  const auto timeout = services::ParseDuration(globals.timeout);
  if (!timeout || *timeout < std::chrono::milliseconds(1)) {
    err << "quorate: --timeout " << globals.timeout
        << ": write a whole number and ms, s or m, such as 10s\n";
    return false;
  }
  invocation.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(*timeout);
  const auto endpoints = ParseEndpoints(globals.endpoints);
  if (!endpoints.ok()) {
    err << "quorate: --endpoints: " << std::string(endpoints.status().message()) << '\n';
    return false;
  }
  return true;
}

template <typename Value>
std::vector<std::string> ChoicesOf(const std::map<std::string, Value>& choices) {
  std::vector<std::string> names;
  for (const auto& choice : choices) names.push_back(choice.first);
  return names;
}

// After every other command: it speaks of them all.
void AddCompletion(CLI::App& app, Invocation& invocation) {
  CLI::App* completion =
      app.add_subcommand("completion", "prints what completes this command in a shell");
  auto shell = std::make_shared<std::string>();
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, &invocation, shell] {
    invocation.action = [&app, &invocation, shell] {
      const std::vector<std::string> formats = ChoicesOf(kFormats);
      invocation.io.out << CompletionScript(
          *ParseShell(*shell), app,
          {{"--consistency", ChoicesOf(kConsistencies)}, {"--output", formats}, {"-o", formats}});
      return static_cast<int>(kExitOk);
    };
  });
}

}  // namespace

Client* Invocation::client(int* exit) {
  if (client_) return client_.get();
  ClientOptions options;
  options.endpoints = *ParseEndpoints(globals.endpoints);
  options.timeout = timeout;
  client_ = std::make_unique<Client>(std::move(options));
  if (!globals.node.empty()) {
    if (const CallResult found = client_->UseNode(globals.node); !found.ok()) {
      *exit = Report(io.err, "--node " + globals.node, found);
      client_.reset();
    }
  }
  return client_.get();
}

v1::ReadOptions Invocation::read_options(const ReadFlags& flags) const {
  v1::ReadOptions options;
  options.set_consistency(consistency);
  return flags.AddedTo(std::move(options));
}

int Invocation::Fail(ExitCode code, const std::string& message) const {
  io.err << "quorate: " << message << '\n';
  return code;
}

int Run(int argc, const char* const* argv, Io& io) {
  CLI::App app("Quorate: a highly available configuration store", "quorate");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Every flag above is also read from the environment (--endpoints: QUORATE_ENDPOINTS); "
      "a flag comes first.\nExit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 "
      "unavailable or timed out,\n6 not allowed, 7 unhealthy, 130 interrupted.");
  Invocation invocation(io);
  AddGlobals(app, invocation.globals);
  AddItemCommands(app, invocation);
  AddWatchCommands(app, invocation);
  AddLockCommands(app, invocation);
  AddTtlCommands(app, invocation);
  AddTxnCommands(app, invocation);
  AddWriteCommands(app, invocation);
  AddHistoryCommands(app, invocation);
  AddTransferCommands(app, invocation);
  AddClusterCommands(app, invocation);
  AddHealthCommands(app, invocation);
  AddMemberCommands(app, invocation);
  AddSettingsCommands(app, invocation);
  AddLogCommands(app, invocation);
  AddLocalCommands(app, invocation);
  AddCompletion(app, invocation);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and friends are "errors" of CLI11, too, with exit code 0.
    return app.exit(error, io.out, io.err) == 0 ? kExitOk : kExitUsage;
  }
  if (!CheckGlobals(invocation)) return kExitUsage;
  const int exit = invocation.action();
  io.out.flush();
  if (!io.out) {
    io.err << "quorate: cannot write to stdout: is the disk full or the reader gone?\n";
    return exit == kExitOk ? kExitError : exit;
  }
  return exit;
}

}  // namespace quorate::tools
