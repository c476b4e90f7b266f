// What needs no cluster: serve, validate-config, version.
#include <map>

#include "services/configuration.h"
#include "tools/cli.h"
#include "tools/serve.h"
#include "tools/text.h"
#include "tools/version.h"

namespace quorate::tools {
namespace {

std::string Describe(const services::Configuration& configuration) {
  std::string text = "node " + configuration.node_id();
  if (!configuration.raft) return text + ", alone: no raft section, so no peer port";
  const services::RaftConfiguration& raft = *configuration.raft;
  if (!raft.discovery_dns.empty()) {
    text += ", peers behind " + raft.discovery_dns + ", reached at " + raft.advertise_address;
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

void AddServe(CLI::App& app, Invocation& invocation) {
  using services::LogFormat;
  using services::LogLevel;
  CLI::App* serve = app.add_subcommand("serve", "run a node until SIGTERM or Ctrl-C");
  auto options = std::make_shared<ServeOptions>();
  CLI::Option* config =
      serve->add_option("--config", options->config, "the configuration file (YAML)");
  serve
      ->add_flag("--dev", options->dev,
                 "one node on loopback without a file, data in ./quorate-data")
      ->excludes(config);
  serve->add_option("--log-level", options->log_level, "debug, info, warning or error")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, LogLevel>{{"debug", LogLevel::kDebug},
                                                                  {"info", LogLevel::kInfo},
                                                                  {"warning", LogLevel::kWarning},
                                                                  {"error", LogLevel::kError}}))
      ->envname("QUORATE_LOG_LEVEL");
  serve->add_option("--log-format", options->log_format, "logfmt or json")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LogFormat>{
          {"logfmt", LogFormat::kLogfmt}, {"json", LogFormat::kJson}}))
      ->envname("QUORATE_LOG_FORMAT");
  serve->callback([&invocation, options] {
    if (options->config.empty() && !options->dev) {
      throw CLI::ValidationError("serve", "give --config FILE, or --dev for one node without one");
    }
    invocation.action = [options] { return Serve(*options); };
  });
}

}  // namespace

void AddLocalCommands(CLI::App& app, Invocation& invocation) {
  AddServe(app, invocation);
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
