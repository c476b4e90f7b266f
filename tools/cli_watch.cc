// watch.
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>
#include <vector>

#include "services/errors.h"
#include "tools/cli.h"
#include "tools/text.h"
#include "tools/watcher.h"

extern char** environ;

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;

constexpr size_t kEventValueColumn = 60;
constexpr milliseconds kProgressInterval(5000);

struct WatchOptions {
  std::string prefix;
  std::string key;
  uint64_t from_revision = 0;
  bool initial = false;
  bool previous = false;
  std::string exec;
  uint64_t count = 0;
  std::string progress;
};

const std::string& EventValue(const v1::Item& item) {
  return item.value_case() == v1::Item::kData ? item.data() : item.text();
}

std::string ValueText(const v1::Item& item) {
  if (item.value_case() == v1::Item::kData) return "<" + FormatBytes(item.data().size()) + ">";
  return item.text().empty() ? "\"\"" : Printable(item.text(), kEventValueColumn);
}

// What `--exec` and the table call an event.
const char* EventName(const v1::WatchEvent& event, bool of_state) {
  if (event.type() == v1::WatchEvent::TYPE_DELETE) return "delete";
  if (of_state) return "item";
  return event.created() ? "create" : "put";
}

// A file without a name that holds the value: no pipe that somebody has to feed.
int ValueFile(const std::string& value) {
  const int fd = memfd_create("quorate-value", MFD_CLOEXEC);
  if (fd < 0) return -1;
  size_t written = 0;
  while (written < value.size()) {
    const ssize_t n = write(fd, value.data() + written, value.size() - written);
    if (n <= 0) {
      close(fd);
      return -1;
    }
    written += static_cast<size_t>(n);
  }
  lseek(fd, 0, SEEK_SET);
  return fd;
}

// Runs `command` by /bin/sh with the event in its environment and the value on its stdin; its exit
// status, or nullopt when it could not be started.
std::optional<int> Execute(const std::string& command, const v1::WatchEvent& event, bool of_state) {
  std::vector<std::string> variables;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, "QUORATE_WATCH_", 14) != 0) variables.emplace_back(*each);
  }
  variables.push_back(std::string("QUORATE_WATCH_EVENT=") + EventName(event, of_state));
  variables.push_back("QUORATE_WATCH_KEY=" + event.item().key());
  variables.push_back("QUORATE_WATCH_REVISION=" + std::to_string(event.item().mod_revision()));
  std::vector<char*> environment;
  for (std::string& each : variables) environment.push_back(each.data());
  environment.push_back(nullptr);

  const int value = ValueFile(EventValue(event.item()));
  if (value < 0) return std::nullopt;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, value, STDIN_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // We ignore it; what we run should not.
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  std::string shell = "sh";
  std::string flag = "-c";
  std::string text = command;
  char* const arguments[] = {shell.data(), flag.data(), text.data(), nullptr};
  pid_t child = 0;
  const int error =
      posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(value);
  if (error != 0) return std::nullopt;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return std::nullopt;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Prints what a watch says, and runs the command. A revision is acted on as a whole: its parts wait
// for the last one, and are forgotten when the stream breaks before it.
class Printer {
 public:
  Printer(Invocation& invocation, const WatchOptions& options)
      : invocation_(invocation), options_(options) {}

  bool Hear(const v1::WatchResponse& message) {
    if (message.started() || message.reset()) {
      in_state_ = message.resume_revision() == 0;
      parts_.clear();
    }
    if (message.synced()) in_state_ = false;
    if (message.leader_lost() && !message.progress()) {
      Note(message.header().node_id() + " has lost its leader: changes may be late");
    } else if (message.leader_found()) {
      Note(message.header().node_id() + " has a leader again");
    }
    if (message.progress() && !options_.progress.empty() && parts_.empty()) {
      return ShowProgress(message);
    }
    if (message.events().empty() && !message.reset() && !message.synced() && parts_.empty()) {
      return true;
    }
    parts_.push_back(message);
    if (message.partial()) return true;
    bool more = true;
    for (const v1::WatchResponse& part : parts_) more = more && Show(part);
    parts_.clear();
    invocation_.io.out.flush();
    return more && static_cast<bool>(invocation_.io.out);
  }

  void Broken(const CallResult& end, uint64_t resume) {
    parts_.clear();
    const std::string reason = services::DetailsOf(end.status).reason;
    // Expected, and nothing is lost.
    if (reason == "CONNECTION_AGE" && !invocation_.globals.verbose) return;
    Note(Describe(end) + "; going on " +
         (resume == 0 ? "from the beginning" : "at revision " + std::to_string(resume)));
  }

 private:
  void Note(const std::string& text) {
    if (!invocation_.globals.quiet) invocation_.io.err << "quorate: watch: " << text << '\n';
  }

  bool ShowProgress(const v1::WatchResponse& message) {
    if (!invocation_.structured()) {
      Note("nothing up to revision " + std::to_string(message.header().revision()) + " is missing" +
           (message.leader_lost() ? "; there is no leader" : ""));
      return true;
    }
    Structured(message);
    invocation_.io.out.flush();
    return static_cast<bool>(invocation_.io.out);
  }

  void Structured(const v1::WatchResponse& message) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kJson) {
      out << ToJson(message).dump() << '\n';  // one line a message
    } else {
      out << "---\n";
      PrintStructured(out, OutputFormat::kYaml, ToJson(message));
    }
  }

  bool Show(const v1::WatchResponse& message) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.structured()) {
      Structured(message);
    } else if (message.reset()) {
      Note("the history is compacted: what follows are the items as of revision " +
           std::to_string(message.header().revision()));
    }
    for (const v1::WatchEvent& event : message.events()) {
      if (!invocation_.structured()) Line(event);
      if (!options_.exec.empty()) {
        // What was printed comes before what the command prints.
        out.flush();
        RunCommand(event);
      }
      if (options_.count != 0 && ++events_ == options_.count) return false;
    }
    return true;
  }

  void Line(const v1::WatchEvent& event) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kRaw) {
      out << event.item().key() << '\n';
      return;
    }
    out << event.item().mod_revision() << ' ' << EventName(event, in_state_) << ' '
        << Printable(event.item().key());
    if (event.type() != v1::WatchEvent::TYPE_DELETE) out << ' ' << ValueText(event.item());
    if (event.has_previous()) out << " (was " << ValueText(event.previous()) << ")";
    out << '\n';
  }

  void RunCommand(const v1::WatchEvent& event) {
    const std::optional<int> status = Execute(options_.exec, event, in_state_);
    if (!status) {
      invocation_.io.err << "quorate: watch: --exec: the command cannot be started\n";
    } else if (*status != 0) {
      invocation_.io.err << "quorate: watch: --exec: exit status " << *status << " for "
                         << Printable(event.item().key()) << " at revision "
                         << event.item().mod_revision() << '\n';
    }
  }

  Invocation& invocation_;
  const WatchOptions& options_;
  bool in_state_ = false;
  std::vector<v1::WatchResponse> parts_;
  uint64_t events_ = 0;
};

int Watch(Invocation& invocation, const WatchOptions& options) {
  if (!options.key.empty() && !options.prefix.empty()) {
    return invocation.Fail(kExitUsage, "watch: write a PREFIX or --key K, not both");
  }
  if (options.initial && options.from_revision != 0) {
    return invocation.Fail(kExitUsage,
                           "watch: --initial shows what is there now: not together "
                           "with --from-revision");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  WatcherOptions watcher;
  if (options.key.empty()) {
    watcher.request.set_prefix(options.prefix);
  } else {
    watcher.request.set_key(options.key);
  }
  watcher.request.set_start_revision(options.from_revision);
  watcher.request.set_with_initial_state(options.initial);
  watcher.request.set_with_previous(options.previous);
  const milliseconds interval = ParseTime(options.progress).value_or(kProgressInterval);
  watcher.request.mutable_progress_interval()->set_seconds(interval.count() / 1000);
  watcher.request.mutable_progress_interval()->set_nanos(
      static_cast<int32_t>(interval.count() % 1000) * 1'000'000);
  watcher.timeout = invocation.timeout;
  Printer printer(invocation, options);
  const CallResult result =
      Watcher(
          *client, watcher, [&](const v1::WatchResponse& message) { return printer.Hear(message); },
          [&](const CallResult& end, uint64_t resume) { printer.Broken(end, resume); })
          .Run();
  if (result.ok()) return kExitOk;
  return Report(invocation.io.err,
                "watch " + Printable(options.key.empty() ? options.prefix : options.key), result);
}

}  // namespace

void AddWatchCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* watch = app.add_subcommand(
      "watch", "print changes as they happen, over every endpoint, without a gap");
  auto options = std::make_shared<WatchOptions>();
  watch->add_option("PREFIX", options->prefix, "of every key that begins so; all without it");
  watch->add_option("--key", options->key, "of this key only");
  watch
      ->add_option("--from-revision", options->from_revision,
                   "begin with the changes of this revision (default: what comes from now on)")
      ->check(CLI::NonNegativeNumber);
  watch->add_flag("--initial", options->initial, "first the items that are there");
  watch->add_flag("--previous", options->previous, "with what was there before each change");
  watch->add_option("--exec", options->exec,
                    "run this by /bin/sh for each event: QUORATE_WATCH_EVENT (create, put, delete, "
                    "item), QUORATE_WATCH_KEY, QUORATE_WATCH_REVISION; the value is its stdin");
  watch->add_option("--count", options->count, "end after this many events")
      ->check(CLI::PositiveNumber);
  watch
      ->add_option("--progress", options->progress,
                   "when nothing was said for so long (100ms to 10s), say up to which revision "
                   "nothing is missing: on stderr, or as a message with -o json and yaml")
      ->check(TimeWithin(milliseconds(100), milliseconds(10'000)));
  watch->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Watch(invocation, *options); };
  });
}

}  // namespace quorate::tools
