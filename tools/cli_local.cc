// What needs no cluster: validate-config, version.
#include "services/configuration.h"
#include "tools/cli.h"
#include "tools/text.h"
#include "tools/version.h"

namespace quorate::tools {
namespace {

std::string Describe(const services::Configuration& configuration) {
  std::string text = "node " + configuration.node_id();
  if (!configuration.raft) return text + ", alone: no raft section, so no peer port";
  const services::RaftConfiguration& raft = *configuration.raft;
  if (!raft.discovery_dns.empty()) {
    text += ", peers from DNS (not in this build yet: `quorate serve` wants peers)";
  } else {
    text += " of " + std::to_string(raft.peers.size()) + ", reached at " + raft.advertise_address;
  }
  return text;
}

int ValidateConfig(Invocation& invocation, const std::string& file) {
  const auto configuration = services::LoadConfiguration(file);
  if (!configuration.ok()) {
    invocation.io.err << std::string(configuration.status().message()) << '\n';
    return kExitError;
  }
  for (const std::string& warning : configuration->warnings) {
    invocation.io.err << "warning: " << warning << '\n';
  }
  if (!invocation.globals.quiet) {
    invocation.io.out << file << ": ok: " << Describe(*configuration) << '\n';
  }
  return kExitOk;
}

int Version(Invocation& invocation) {
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format,
                    {{"version", kVersion}, {"build", kBuild}, {"compiler", kCompiler}});
  } else if (invocation.format == OutputFormat::kRaw) {
    invocation.io.out << kVersion << '\n';
  } else {
    invocation.io.out << "quorate " << kVersion << " (" << kBuild << ", " << kCompiler << ")\n";
  }
  return kExitOk;
}

}  // namespace

void AddLocalCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* validate = app.add_subcommand("validate-config", "check a configuration file");
  auto file = std::make_shared<std::string>();
  validate->add_option("FILE", *file, "the file that `serve --config` would read")->required();
  validate->callback([&invocation, file] {
    invocation.action = [&invocation, file] { return ValidateConfig(invocation, *file); };
  });

  app.add_subcommand("version", "this program's version")->callback([&invocation] {
    invocation.action = [&invocation] { return Version(invocation); };
  });
}

}  // namespace quorate::tools
