// One renewal of some time-to-lives, on a stream of its own.
#pragma once

#include <string>
#include <vector>

#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "quorate/v1/config.pb.h"
#include "tools/client.h"

namespace quorate::tools {

// Renews these (1,000 at most) at one endpoint; `context` has the deadline. OK: `answers` has one
// for each, in order, and each a status of its own. Otherwise it has those that came before.
grpc::Status RenewTtlsAt(Endpoint& endpoint, grpc::ClientContext* context,
                         const std::vector<std::string>& ids,
                         std::vector<v1::KeepAliveTtlResponse>* answers);

// An answer's own status, with its details.
grpc::Status StatusOf(const v1::KeepAliveTtlResponse& answer);

}  // namespace quorate::tools
