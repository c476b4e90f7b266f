// import, export.
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/transfer.h"

namespace quorate::tools {
namespace {

struct ImportFlags {
  std::string directory;
  ImportOptions options;
};

int RunImport(Invocation& invocation, ImportFlags& flags) {
  std::ostream& err = invocation.io.err;
  const absl::StatusOr<Tree> tree = WalkTree(flags.directory);
  if (!tree.ok()) {
    return invocation.Fail(kExitError, "import: " + std::string(tree.status().message()) +
                                           ": name a directory that can be read");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  for (const LeftOut& link : tree->links) {
    if (!invocation.globals.quiet) {
      err << "quorate: skipped " << Printable(link.name) << ": " << link.reason << '\n';
    }
  }
  for (const LeftOut& entry : tree->unreadable) {
    err << "quorate: not imported: " << Printable(entry.name) << ": " << entry.reason << '\n';
  }
  flags.options.verbose = invocation.globals.verbose;
  flags.options.read = invocation.read_options();
  const GracefulInterrupts graceful;
  ImportSummary summary;
  {
    Progress progress(err, invocation.io.err_is_terminal && !invocation.globals.quiet, "import",
                      tree->files.size());
    summary = Import(*client, *tree, flags.options, progress);
  }
  const uint64_t done = summary.written + summary.unchanged + summary.failed + summary.unknown;
  const uint64_t left = tree->files.size() - done;
  nlohmann::ordered_json json = {
      {"files", tree->files.size()},    {"written", summary.written},
      {"unchanged", summary.unchanged}, {"failed", summary.failed},
      {"unknown", summary.unknown},     {"notTried", left},
      {"skipped", tree->links.size()},  {"unreadable", tree->unreadable.size()},
      {"bytes", summary.bytes}};
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, json);
  } else if (!invocation.globals.quiet) {
    invocation.io.out << "imported " << summary.written << " of " << tree->files.size()
                      << " files (" << FormatBytes(summary.bytes) << "), " << summary.unchanged
                      << " unchanged, " << summary.failed + tree->unreadable.size() << " failed, "
                      << summary.unknown << " unknown, " << tree->links.size() << " skipped\n";
  }
  const bool complete = summary.failed + summary.unknown + left + tree->unreadable.size() == 0;
  if (!complete) err << "quorate: not everything was imported: run it again to go on\n";
  if (summary.interrupted) return kExitInterrupted;
  if (summary.exit != 0) return summary.exit;
  return complete ? kExitOk : kExitError;
}

struct ExportFlags {
  std::string directory;
  bool force = false;
  ReadFlags read;
  ExportOptions options;
};

int RunExport(Invocation& invocation, ExportFlags& flags) {
  std::ostream& err = invocation.io.err;
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  absl::StatusOr<TreeWriter> writer = TreeWriter::Open(flags.directory, flags.force);
  if (!writer.ok()) {
    return invocation.Fail(kExitError, "export: " + std::string(writer.status().message()));
  }
  flags.options.verbose = invocation.globals.verbose;
  flags.options.read = invocation.read_options(flags.read);
  const bool bar = invocation.io.err_is_terminal && !invocation.globals.quiet;
  uint64_t total = 0;
  if (bar) {  // only a bar needs to know how much there is
    v1::ListRequest request;
    request.set_prefix(flags.options.prefix.empty() ? "" : JoinKey(flags.options.prefix, ""));
    request.set_count_only(true);
    *request.mutable_read() = flags.options.read;
    v1::ListResponse response;
    client->Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.config->List(context, request, &response);
    });
    total = response.count();
  }
  const GracefulInterrupts graceful;
  ExportSummary summary;
  {
    Progress progress(err, bar, "export", total);
    summary = Export(*client, *writer, flags.options, progress);
  }
  if (!summary.result.ok()) {
    return Report(err,
                  "export " + Printable(flags.options.prefix) + " after " +
                      std::to_string(summary.written) + " files",
                  summary.result);
  }
  nlohmann::ordered_json json = {{"node", summary.node},       {"revision", summary.revision},
                                 {"written", summary.written}, {"refused", summary.refused},
                                 {"failed", summary.failed},   {"bound", summary.bound},
                                 {"bytes", summary.bytes}};
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, json);
  } else if (!invocation.globals.quiet) {
    invocation.io.out << "exported " << summary.written << " files (" << FormatBytes(summary.bytes)
                      << ") of revision " << summary.revision << " from " << summary.node << ", "
                      << summary.refused << " cannot be files, " << summary.failed << " failed\n";
  }
  if (summary.bound > 0 && !invocation.globals.quiet) {
    err << "quorate: left out " << summary.bound
        << " that are bound to a time-to-live: --bound exports them, too\n";
  }
  if (summary.interrupted) return kExitInterrupted;
  return summary.refused + summary.failed == 0 ? kExitOk : kExitError;
}

}  // namespace

void AddTransferCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* importing = app.add_subcommand(
      "import", "write every file of a directory as an item; run it again to go on");
  auto import_flags = std::make_shared<ImportFlags>();
  importing->add_option("DIR", import_flags->directory, "the directory; links are not followed")
      ->required();
  importing->add_option("--prefix", import_flags->options.prefix, "put before each file's path");
  importing->add_option("--note", import_flags->options.note, "why; kept in the items' history");
  importing->add_option("--concurrency", import_flags->options.concurrency, "writers at a time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  importing->add_flag("--all", import_flags->options.all,
                      "write every file without a look at what is there: also over items that are "
                      "bound to a time-to-live, which makes them plain");
  importing->callback([&invocation, import_flags] {
    invocation.action = [&invocation, import_flags] {
      return RunImport(invocation, *import_flags);
    };
  });

  CLI::App* exporting = app.add_subcommand(
      "export", "write every item of a prefix as a file, byte for byte, at one revision");
  auto export_flags = std::make_shared<ExportFlags>();
  exporting->add_option("DIR", export_flags->directory, "an empty or new directory")->required();
  exporting->add_option("--prefix", export_flags->options.prefix,
                        "only what is below it; it is taken off the paths");
  exporting->add_flag("--force", export_flags->force, "write over what is in DIR");
  exporting->add_flag("--bound", export_flags->options.bound,
                      "also what is bound to a time-to-live; imported again it would be plain");
  AddReadFlags(exporting, &export_flags->read);
  exporting->callback([&invocation, export_flags] {
    invocation.action = [&invocation, export_flags] {
      return RunExport(invocation, *export_flags);
    };
  });
}

}  // namespace quorate::tools
