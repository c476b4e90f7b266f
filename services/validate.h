// The rules of quorate.v1.Config's requests (proto/quorate/v1/config.proto, DESIGN.md section 3),
// after they have been parsed: the same at every node, so that a follower's refusal is the
// leader's.
//
// What is wrong is INVALID_ARGUMENT with the metadata `field`:
//   KEY_EMPTY, KEY_CONTROL_CHARACTER, PREFIX_EMPTY, VALUE_MISSING (neither text nor data),
//   TARGET_MISSING (neither key nor prefix), INVALID_VALUE (everything else; the message says
//   what).
// What is over a size limit is RESOURCE_EXHAUSTED with `field`, `limit` and `size`, in bytes:
//   KEY_TOO_LARGE, VALUE_TOO_LARGE, NOTE_TOO_LARGE, PAGE_TOKEN_TOO_LARGE, REQUEST_ID_TOO_LARGE.
// What is declared and not built yet is UNIMPLEMENTED (NOT_IN_THIS_BUILD) naming it.
//
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "grpcpp/support/status.h"
#include "quorate/v1/command.pb.h"
#include "quorate/v1/config.pb.h"

namespace quorate::services {

inline constexpr size_t kKeyBytesMax = 1024;
inline constexpr size_t kValueBytesMax = 1u << 20;
inline constexpr size_t kNoteBytesMax = 1024;
inline constexpr size_t kRequestIdBytesMax = 128;
inline constexpr size_t kPageItemsMax = 1000;
inline constexpr size_t kPageBytesMax = 2u << 20;
inline constexpr size_t kPageTokenBytesMax = 2048;
inline constexpr int64_t kTtlSecondsMin = 1;
inline constexpr int64_t kTtlSecondsMax = int64_t{366} * 24 * 3600;

grpc::Status Validate(const v1::GetRequest& request);
grpc::Status Validate(const v1::ListRequest& request);
grpc::Status Validate(const v1::PutRequest& request);
grpc::Status Validate(const v1::DeleteRequest& request);
grpc::Status Validate(const v1::WatchRequest& request);
grpc::Status Validate(const v1::HistoryRequest& request);
grpc::Status Validate(const v1::RollbackRequest& request);
grpc::Status Validate(const v1::GrantTtlRequest& request);
grpc::Status Validate(const v1::KeepAliveTtlRequest& request);
grpc::Status Validate(const v1::RevokeTtlRequest& request);

// The log's form of a valid write, without format and session position, which the ingress gives it.
// With a request id, client_request is filled; its revision is the caller's, 0 when it named none.
v1::Command ToCommand(const v1::PutRequest& request);
v1::Command ToCommand(const v1::DeleteRequest& request);
v1::Command ToCommand(const v1::RollbackRequest& request);
v1::Command ToCommand(const v1::GrantTtlRequest& request);
v1::Command ToCommand(const v1::RevokeTtlRequest& request);

// What a valid ttl_id names.
uint64_t TtlOf(const std::string& ttl_id);
google::protobuf::Duration DurationOfMs(uint64_t ms);

// What every write has: its note and its request id.
grpc::Status ValidateWrite(const std::string& note, const std::string& request_id,
                           uint64_t request_revision);
// Adds the client's request id, if it has one, to a command that is complete but for that.
void NameCommand(const std::string& request_id, uint64_t request_revision, v1::Command* command);

// The smallest key that is greater than every key with this prefix. `prefix` is UTF-8 and not
// empty, so its last byte is below 0xFF and there always is one.
std::string PrefixEnd(std::string_view prefix);

}  // namespace quorate::services
