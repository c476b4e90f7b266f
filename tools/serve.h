// `quorate serve`: one node in the foreground, until SIGTERM or SIGINT.
#pragma once

#include <string>

#include "services/logging.h"

namespace quorate::tools {

struct ServeOptions {
  std::string config;  // the configuration file; empty with `dev`
  // One node on loopback without a file, data in `quorate-data` of the working directory.
  bool dev = false;
  services::LogLevel log_level = services::LogLevel::kInfo;
  services::LogFormat log_format = services::LogFormat::kLogfmt;
};

// Runs until a signal and returns the exit code: 0 after a clean stop; 1 when it could not start
// (said on stderr, with what to do), or has left by itself because nobody new can connect to it
// (services/logging.h, GrpcIsDeaf): whoever supervises it starts it again; 130 when a second signal
// ended it at once. Once a process, from its main thread, before any other thread runs.
int Serve(const ServeOptions& options);

}  // namespace quorate::tools
