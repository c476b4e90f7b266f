#include "tools/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

extern char** environ;

namespace quorate::tools {
namespace {

std::vector<char*> PointersTo(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& each : texts) pointers.push_back(each.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Holds signals back while it lives, from this thread. Between fork and exec the child still has
// our handlers: a Ctrl-C that reached it there would be taken by them, and the command never hear
// of it.
class SignalsHeldBack {
 public:
  SignalsHeldBack() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsHeldBack() { Release(); }
  SignalsHeldBack(const SignalsHeldBack&) = delete;
  SignalsHeldBack& operator=(const SignalsHeldBack&) = delete;
  void Release() const { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// Only what may be called between fork and exec of a process with threads.
[[noreturn]] void BecomeCommand(char* const* arguments, char* const* environment, pid_t parent,
                                bool own_group, int error_pipe, const SignalsHeldBack& signals) {
  if (own_group) setpgid(0, 0);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  // What may have handlers of ours that end or tell something (tools/interrupt.h); exec resets them
  // too, but late. Not that of Ctrl-Z: who is stopped here is never heard of.
  for (const int each : {SIGPIPE, SIGINT, SIGTERM, SIGCHLD}) sigaction(each, &action, nullptr);
  for (const int each : {SIGHUP, SIGQUIT}) {
    struct sigaction now;
    if (sigaction(each, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) {
      sigaction(each, &action, nullptr);
    }
  }
  signals.Release();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before that was set.
  if (getppid() != parent) _exit(127);
  execvpe(arguments[0], arguments, environment);
  const int error = errno;
  if (write(error_pipe, &error, sizeof error) < 0) _exit(126);
  _exit(127);
}

enum class Members { kNone, kEnded, kLive };

// What /proc says of a process group. proc(5): "pid (name) state parent group ...", where the name
// may hold anything, and the number of threads is the 18th field behind it.
Members LookForMembers(pid_t group) {
  Members members = Members::kNone;
  std::error_code error;
  for (std::filesystem::directory_iterator each("/proc", error), end; !error && each != end;
       each.increment(error)) {
    const std::string name = each->path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(each->path() / "stat");
    const std::string stat{std::istreambuf_iterator<char>(file), {}};
    const size_t behind = stat.rfind(')');
    if (behind == std::string::npos) continue;  // it has ended meanwhile
    std::istringstream fields(stat.substr(behind + 1));
    char state = 0;
    pid_t parent = 0, its_group = 0;
    fields >> state >> parent >> its_group;
    if (its_group != group) continue;
    std::string skipped;
    for (int i = 0; i < 14; ++i) fields >> skipped;
    int threads = 0;
    fields >> threads;
    // One whose first thread has ended looks so too, while the others go on.
    if ((state != 'Z' && state != 'X') || threads > 1) return Members::kLive;
    members = Members::kEnded;
  }
  return members;
}

}  // namespace

absl::StatusOr<Child> Child::Start(const std::vector<std::string>& arguments,
                                   const Variables& variables, bool own_group) {
  std::vector<std::string> texts = arguments;
  std::vector<std::string> settings;
  for (char** each = environ; *each != nullptr; ++each) {
    bool replaced = false;
    for (const auto& [name, value] : variables) {
      replaced = replaced || std::strncmp(*each, (name + "=").c_str(), name.size() + 1) == 0;
    }
    if (!replaced) settings.emplace_back(*each);
  }
  for (const auto& [name, value] : variables) settings.push_back(name + "=" + value);
  const std::vector<char*> argument_pointers = PointersTo(texts);
  const std::vector<char*> setting_pointers = PointersTo(settings);

  // Closed by exec: who reads its end knows that the command runs.
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "cannot make a pipe");
  // Whoever has started us may ignore it; then nobody would be told how the child ended.
  signal(SIGCHLD, SIG_DFL);
  const pid_t parent = getpid();
  pid_t pid = 0;
  int fork_error = 0;
  {
    const SignalsHeldBack signals;
    pid = fork();
    if (pid == 0) {
      BecomeCommand(argument_pointers.data(), setting_pointers.data(), parent, own_group,
                    pipe_ends[1], signals);
    }
    fork_error = errno;
  }
  close(pipe_ends[1]);
  if (pid < 0) {
    close(pipe_ends[0]);
    return absl::ErrnoToStatus(fork_error, "cannot start a process");
  }
  int error = 0;
  ssize_t got = 0;
  while ((got = read(pipe_ends[0], &error, sizeof error)) < 0 && errno == EINTR) {
  }
  close(pipe_ends[0]);
  if (got != sizeof error) return Child(pid, own_group);
  waitpid(pid, nullptr, 0);
  return absl::ErrnoToStatus(error, "cannot run " + arguments[0]);
}

std::optional<int> Child::Ended() {
  ReapOrphans();
  int status = 0;
  const pid_t ended = waitpid(pid_, &status, WNOHANG | WUNTRACED | WCONTINUED);
  if (ended < 0 && errno == ECHILD) return kStatusUnknown;
  if (ended != pid_) return std::nullopt;
  stopped_ = WIFSTOPPED(status);
  if (stopped_ || WIFCONTINUED(status)) return std::nullopt;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What it has started becomes ours when its parent ends, if this is the process that takes orphans
// (the first one of a container): nobody else would ever wait for it.
void Child::ReapOrphans() const {
  if (!own_group_) return;
  while (true) {
    siginfo_t found = {};
    if (waitid(P_PGID, static_cast<id_t>(pid_), &found, WEXITED | WNOHANG | WNOWAIT) != 0) return;
    if (found.si_pid == 0 || found.si_pid == pid_) return;  // how that one ended is asked for
    waitpid(found.si_pid, nullptr, WNOHANG);
  }
}

bool Child::GroupRuns() const {
  if (!own_group_) return false;
  ReapOrphans();
  if (kill(-pid_, 0) != 0 && errno == ESRCH) return false;
  // There is somebody, but one that has ended stays there until its parent waits for it. Who is not
  // shown may be hidden from us.
  return LookForMembers(pid_) != Members::kEnded;
}

bool Child::Signal(int signal) const {
  const pid_t to = own_group_ ? -pid_ : pid_;
  const bool allowed = kill(to, signal) == 0 || errno != EPERM;
  if (signal != 0 && signal != SIGKILL) kill(to, SIGCONT);
  return allowed;
}

}  // namespace quorate::tools
