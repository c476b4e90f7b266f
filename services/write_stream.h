// A stream of pipelined writes: Config.Write, and Config.KeepAliveTtl, whose renewals are writes.
//
// Each message is one call of the handler, whose answers may come in any order and from any thread;
// the stream gives them back in the order of the messages. A refused one is an answer like any
// other. Messages are read ahead of their answers, within the bounds below: beyond them gRPC's flow
// control holds the client back.
//
// A stream ends when its client has ended it and everything is answered; or by us, at an age or
// because the node stops: then no more messages are taken, what was taken is answered, and the
// status is UNAVAILABLE (CONNECTION_AGE, DRAINING, SHUTTING_DOWN). So what has no answer then was
// certainly not accepted, as ever with our ErrorInfo.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/time.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "services/grpc_dispatch.h"

namespace quorate::services {

inline constexpr size_t kStreamedWritesMax = 1024;
// Of a node; one more is ended at once (TOO_MANY_CALLS).
inline constexpr size_t kWriteStreamsMax = 16'384;
// Of requests, and of answers that wait to be sent; one may exceed it.
inline constexpr size_t kStreamedBytesMax = 8u << 20;
// What a transaction that reads counts for until its answer is there (storage/state_apply.h,
// kReadBytesMax): a client that sends a thousand of them and takes nothing must not cost gigabytes.
inline constexpr size_t kStreamedAnswerRoom = 2u << 20;

// The message that says what became of a write that was refused: of each of the two.
using ErrorResponseMaker = std::string (*)(const grpc::Status& status);
std::string WriteErrorResponse(const grpc::Status& status);
std::string KeepAliveErrorResponse(const grpc::Status& status);

// All streams of a node. Outlives the server whose calls they are. Any thread.
class WriteStreams {
 public:
  // A stream is ended at this age, or up to a tenth earlier, so that not all end at once: as
  // watches are (ingress/watch_hub.h), so no connection has to be kept for longer.
  explicit WriteStreams(Duration age_max = std::chrono::minutes(25),
                        size_t streams_max = kWriteStreamsMax)
      : age_max_(age_max), streams_max_(streams_max) {}

  // The reactor of one stream; it deletes itself. `method` is the full name: the handler is asked
  // for what follows its last slash, and every single write is observed under it. Handler and
  // observer outlive it.
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* New(
      std::string method, const Handler& handler, const CallObserver& observer,
      grpc::CallbackServerContext* context, ErrorResponseMaker error_response = WriteErrorResponse);

  // Ends who is too old. To be called every second or so.
  void Tick(Instant now);
  // Ends all streams; later ones are taken.
  void EndAll();
  // Ends all streams, and every later one at once.
  void Stop();

 private:
  class Stream;

  void EndAll(const grpc::Status& why, bool for_good);

  const Duration age_max_;
  const size_t streams_max_;
  std::atomic<uint32_t> made_ = 0;
  std::atomic<size_t> alive_ = 0;

  std::mutex mutex_;  // protects what follows
  std::vector<std::weak_ptr<Stream>> streams_;
  bool stopped_ = false;
};

}  // namespace quorate::services
