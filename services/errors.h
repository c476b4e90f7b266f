// Every error that Quorate answers is made here: a code, a sentence for people, and the stable
// reason for programs (google.rpc.ErrorInfo, domain "quorate") in the status details, as AIP-193
// says.
//
// The rule that clients retry by: UNAVAILABLE *with* our ErrorInfo means that a write was certainly
// not accepted. So nothing here may be used with UNAVAILABLE once a write may be in any log.
//
// Pure functions; any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace quorate::services {

// ErrorInfo.domain of every error of ours.
inline constexpr char kErrorDomain[] = "quorate";

using ErrorMetadata = std::map<std::string, std::string>;

// A status with its details: ErrorInfo {reason, "quorate", metadata}, and RetryInfo when
// `retry_delay` is given. `reason` is UPPER_SNAKE_CASE and part of the contract. Control characters
// of `message` and of the metadata's values are replaced, so that they can be logged as one line.
// The serialized details stay below 4 KiB (gRPC's trailers are bounded at 8 KiB): longer
// messages and values are cut.
grpc::Status MakeError(grpc::StatusCode code, std::string_view reason, std::string_view message,
                       const ErrorMetadata& metadata = {},
                       std::optional<Duration> retry_delay = std::nullopt);

// INVALID_ARGUMENT naming the field: ErrorInfo with `reason` and metadata {"field": field}, and a
// BadRequest with one violation.
grpc::Status MakeFieldError(std::string_view reason, std::string_view field,
                            std::string_view description);

// The same error of a message within another one: `path` comes before the field (or what is not
// built) in the message and in the details. OK stays OK.
grpc::Status Within(std::string_view path, const grpc::Status& status);

// UNIMPLEMENTED (NOT_IN_THIS_BUILD) naming the call or the field.
grpc::Status MakeUnimplemented(std::string_view what);

// The same error of ours with this beside its metadata.
grpc::Status AddMetadata(const grpc::Status& status, const ErrorMetadata& metadata);

// What a status carries, for clients of ours, peers and tests.
struct ErrorDetails {
  std::string reason;  // empty: no ErrorInfo of ours
  ErrorMetadata metadata;
  std::optional<Duration> retry_delay;
};
ErrorDetails DetailsOf(const grpc::Status& status);

// The whole status as google.rpc.Status (details included), and back.
google::rpc::Status ToProto(const grpc::Status& status);
grpc::Status FromProto(const google::rpc::Status& status);

}  // namespace quorate::services
