// How the two gRPC ports listen: exclusively (without SO_REUSEPORT, so that a port in use is
// found), on one address or all, and with the habits of the contract.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/impl/codegen/service_type.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"

namespace quorate::services {

// Calls and streams of one connection. What comes beyond waits at the client, whose library does
// not say so: hence above the number of watches that a node has at most, which have no deadline.
inline constexpr int kConnectionStreamsMax = 16'384;

// Keepalive pings of clients every 5 s are tolerated, connections are closed after 30 minutes, and
// a client that vanished without a word is noticed within a minute.
void SetClientServerOptions(grpc::ServerBuilder* builder);

// `address` is host:port, [ipv6]:port or :port (every address). kUnavailable when it cannot be
// bound, with the reason and what to do; `setting` is the configuration's name for the address.
absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(grpc::ServerBuilder* builder,
                                                     const std::vector<grpc::Service*>& services,
                                                     const std::string& address,
                                                     const std::string& setting);

}  // namespace quorate::services
