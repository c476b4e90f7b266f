// The hot unary calls (Put, Get) on few threads: gRPC's completion queues in place of its callback
// API, for less processor time a call (docs/decisions.md has the figures).
//
// Each queue has one thread. A call arrives there, is handed to its handler there, and ends there;
// its answer is sent by whichever thread the handler answers on. A new call is asked for as soon as
// one has arrived, so that the number of calls in the handlers' hands is not limited by how many
// were asked for; beyond `calls_max` a queue answers RESOURCE_EXHAUSTED (TOO_MANY_CALLS) itself.
//
// Life: made before the server's builder, AddTo it, BuildAndStart, Start; then the server's
// Shutdown, which fails what was asked for and cancels what does not end; then Stop, which needs
// every handler to have answered or to answer yet. Destroyed after the server.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "grpcpp/completion_queue.h"
#include "grpcpp/server_builder.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_unary_call.h"
#include "grpcpp/support/byte_buffer.h"
#include "services/grpc_dispatch.h"

namespace quorate::services {

struct CallQueuesOptions {
  size_t queues = 2;
  // Calls that each queue asks gRPC for at a time, of each method.
  size_t asked_for = 32;
  // Calls of one queue whose answers are outstanding.
  size_t calls_max = 16'384;
};

class CallQueues {
 public:
  // Asks gRPC for one call of a method, as the generated RequestGet does.
  using Ask = std::function<void(grpc::ServerContext* context, grpc::ByteBuffer* request,
                                 grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* writer,
                                 grpc::ServerCompletionQueue* queue, void* tag)>;
  struct Method {
    std::string service;  // quorate.v1.Config
    std::string name;     // Get
    Ask ask;
    Handler handler;
    CallObserver observer;
  };

  explicit CallQueues(const CallQueuesOptions& options = {});
  ~CallQueues();  // Stop()s
  CallQueues(const CallQueues&) = delete;
  CallQueues& operator=(const CallQueues&) = delete;

  size_t size() const { return queues_.size(); }

  // Before the server is built.
  void AddMethod(Method method);
  void AddTo(grpc::ServerBuilder* builder);

  // The server runs: from now on calls are taken. Once.
  void Start();
  // Waits for what was asked for and what is outstanding to end, then for the threads. REQUIRES:
  // the server was shut down, or was never built.
  void Stop();

 private:
  class Call;
  struct Queue;

  void Run(Queue* queue) const;

  const CallQueuesOptions options_;
  std::vector<std::unique_ptr<Method>> methods_;  // constant after Start
  std::vector<std::unique_ptr<Queue>> queues_;
  bool started_ = false;
  bool stopped_ = false;
};

}  // namespace quorate::services
