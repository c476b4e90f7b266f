#include "tools/serve.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "services/configuration.h"
#include "services/server.h"
#include "tools/failure.h"
#include "tools/version.h"

namespace quorate::tools {
namespace {

void Complain(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::fflush(stderr);
}

// How long an end that nobody has asked for may take.
constexpr std::chrono::seconds kStopMax(30);

// Both signals are taken in the main thread: blocked here, before threads are made that
// inherit the mask.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Each connection takes one, and gRPC's listener does not come back from having none
// (services/logging.h): many systems begin with 1,024 and allow far more.
void RaiseOpenFilesLimit() {
  constexpr rlim_t kEnough = 8192;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    const rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
      limit = raised;
    } else {
      services::LogWarning("the limit of open files cannot be raised",
                           {{"limit", limit.rlim_cur}, {"error", std::strerror(errno)}});
    }
  }
  if (limit.rlim_cur >= kEnough) return;
  services::LogWarning(
      "few open files are allowed: each client's connection takes one, and a node that has none "
      "left ends, to be started again",
      {{"limit", limit.rlim_cur}, {"raise_it_with", "LimitNOFILE= (systemd), ulimit -Hn (shell)"}});
}

// The signal; 0 when nobody new can connect any more.
int Wait(const sigset_t& signals) {
  const timespec step = {.tv_sec = 0, .tv_nsec = 200'000'000};
  for (;;) {
    const int signal = sigtimedwait(&signals, nullptr, &step);
    if (signal > 0) return signal;
    if (services::GrpcIsDeaf()) return 0;
  }
}

// Stops the server. A second signal meanwhile ends the process at once, which is as safe as a
// crash; so does the time, where nobody has asked for the end and might do that.
void StopOrLeave(services::Server* server, const sigset_t& signals, bool by_itself) {
  bool asked = !by_itself;
  if (by_itself) {
    // No alarm(): the first process of a container is spared by signals that nobody handles.
    std::thread([] {
      std::this_thread::sleep_for(kStopMax);
      _exit(kExitError);
    }).detach();
  }
  std::atomic<bool> stopped = false;
  std::thread stopper([&] {
    server->Stop();
    stopped = true;
  });
  const timespec step = {.tv_sec = 0, .tv_nsec = 20'000'000};
  while (!stopped) {
    if (sigtimedwait(&signals, nullptr, &step) <= 0) continue;
    if (std::exchange(asked, true)) _exit(kExitInterrupted);
  }
  stopper.join();
}

}  // namespace

int Serve(const ServeOptions& options) {
  const sigset_t signals = BlockSignals();
  absl::StatusOr<services::Configuration> configuration =
      options.dev ? services::DevConfiguration() : services::LoadConfiguration(options.config);
  if (!configuration.ok()) {
    Complain(std::string(configuration.status().message()));
    return kExitError;
  }
  services::InitLogging(
      {.level = options.log_level, .format = options.log_format, .node = configuration->node_id()});
  for (const std::string& warning : configuration->warnings)
    services::LogWarning("configuration", {{"warning", warning}});
  RaiseOpenFilesLimit();

  auto server = services::Server::Start({.configuration = *configuration, .version = kVersion});
  if (absl::IsUnimplemented(server.status())) {
    // A matter of the file, said like every other one.
    services::ShutdownLogging();
    Complain(options.config + ": " + std::string(server.status().message()));
    return kExitError;
  }
  if (!server.ok()) {
    services::LogError("cannot start", {{"error", std::string(server.status().message())}});
    services::ShutdownLogging();
    return kExitError;
  }
  const int signal = Wait(signals);
  const bool by_itself = signal == 0;
  if (by_itself) {
    // Members that nobody can connect to are counted and cannot be used: a leader that answers
    // nobody, voters whom no new leader reaches.
    services::LogError(
        "ends, to be started again: as long as this process runs nobody else can connect to it",
        {{"most_likely", "file descriptors ran out: raise LimitNOFILE= (systemd)"}});
  } else {
    services::LogInfo("signal", {{"name", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  }
  StopOrLeave(server->get(), signals, by_itself);
  server->reset();
  services::ShutdownLogging();
  return by_itself ? kExitError : kExitOk;
}

}  // namespace quorate::tools
