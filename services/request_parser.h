// Turns the bytes of a request into its message, and says what is wrong when they are not one.
//
// Protobuf only says "cannot parse", and gRPC would answer that with INTERNAL before any handler
// runs. So requests come as raw bytes, are parsed here, and on failure the wire is walked to name
// the field. Unknown fields are refused, nested ones too: a client that sends a field which this
// build does not know would otherwise believe that it was obeyed.
//
// Every refusal is INVALID_ARGUMENT with the metadata `field` (a path such as `read.max_staleness`)
// and one of these reasons:
//   INVALID_REQUEST  the bytes are no message: cut off, a bad tag, nested too deeply
//   INVALID_UTF8     a string field holds something else
//   WRONG_TYPE       a known field with the wire type of another kind of field
//   UNKNOWN_FIELD    a field that this build does not know, named by its number; the metadata
//                    `number` holds it too
//
// Wire format: https://protobuf.dev/programming-guides/encoding/. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"

namespace quorate::services {

// Parses `bytes` into `message`, which must be empty. OK, or a refusal as above.
grpc::Status ParseRequest(std::string_view bytes, google::protobuf::Message* message);

}  // namespace quorate::services
