// A stream of pipelined writes: Config.Write.
//
// Each message is one call of the handler, whose answers may come in any order and from any thread;
// the stream gives them back in the order of the messages. A refused one is an answer like any
// other. Messages are read ahead of their answers, within the bounds below: beyond them gRPC's flow
// control holds the client back.
#pragma once

#include <string>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "services/grpc_dispatch.h"

namespace quorate::services {

inline constexpr size_t kStreamedWritesMax = 1024;
inline constexpr size_t kStreamedBytesMax = 8u << 20;  // of requests; one may exceed it

// The reactor of one stream; it deletes itself. `method` is the full name: the handler is asked for
// what follows its last slash, and every single write is observed under it. Handler and observer
// outlive it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* NewWriteStream(
    std::string method, const Handler& handler, const CallObserver& observer,
    grpc::CallbackServerContext* context);

}  // namespace quorate::services
