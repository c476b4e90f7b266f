#include "tools/serve.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <thread>

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

// Both signals are taken by sigwait in the main thread: blocked here, before threads are made that
// inherit the mask.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

int Wait(const sigset_t& signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

// Stops the server; a second signal meanwhile ends the process at once, which is as safe as a
// crash.
void StopOrLeave(services::Server* server, const sigset_t& signals) {
  std::atomic<bool> stopped = false;
  std::thread stopper([&] {
    server->Stop();
    stopped = true;
  });
  const timespec step = {.tv_sec = 0, .tv_nsec = 20'000'000};
  while (!stopped) {
    if (sigtimedwait(&signals, nullptr, &step) > 0) _exit(kExitInterrupted);
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
  services::LogInfo("signal", {{"name", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
  StopOrLeave(server->get(), signals);
  server->reset();
  services::ShutdownLogging();
  return kExitOk;
}

}  // namespace quorate::tools
