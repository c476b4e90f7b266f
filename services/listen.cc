#include "services/listen.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/status/status.h"
#include "grpcpp/security/server_credentials.h"
#include "services/configuration.h"
#include "services/server.h"

namespace quorate::services {
namespace {

int Milliseconds(std::chrono::milliseconds duration) { return static_cast<int>(duration.count()); }

// gRPC does not say why it could not bind; the same bind does.
std::string WhyNot(const HostPort& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                std::to_string(address.port).c_str(), &hints, &list);
  if (error != 0) return gai_strerror(error);
  std::string reason = "unknown reason";
  for (const addrinfo* each = list; each != nullptr; each = each->ai_next) {
    const int fd = socket(each->ai_family, each->ai_socktype | SOCK_CLOEXEC, each->ai_protocol);
    if (fd < 0) continue;
    const int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, each->ai_addr, each->ai_addrlen) != 0 || listen(fd, 1) != 0) {
      reason = std::strerror(errno);
    }
    close(fd);
  }
  freeaddrinfo(list);
  return reason;
}

}  // namespace

void SetClientServerOptions(grpc::ServerBuilder* builder) {
  using std::chrono::minutes;
  using std::chrono::seconds;
  builder->SetMaxReceiveMessageSize(kClientMessageBytesMax);
  builder->SetMaxSendMessageSize(-1);  // pages are bounded where they are made
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(seconds(1)));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(seconds(30)));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(seconds(10)));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kConnectionStreamsMax);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(minutes(30)));
  // Streams end first: a watch is ended at a resume revision before it is 25 minutes old
  // (ingress/watch_hub.h), and no new one begins on a connection that is being given up.
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(minutes(30)));
}

absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(grpc::ServerBuilder* builder,
                                                     const std::vector<grpc::Service*>& services,
                                                     const std::string& address,
                                                     const std::string& setting) {
  const absl::StatusOr<HostPort> parsed = ParseHostPort(address);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(setting + ": " + std::string(parsed.status().message()));
  }
  // gRPC's wildcard is every address of both families, or of the one there is.
  const std::string target = parsed->host.empty() ? "[::]" + address : address;
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddListeningPort(target, grpc::InsecureServerCredentials());
  for (grpc::Service* service : services) builder->RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  if (server == nullptr) {
    return absl::UnavailableError("cannot listen on " + address + " (" + setting +
                                  "): " + WhyNot(*parsed) +
                                  "; end the process that uses it, or set another " + setting);
  }
  return server;
}

}  // namespace quorate::services
