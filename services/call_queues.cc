#include "services/call_queues.h"

#include <utility>

#include "base/check.h"
#include "services/errors.h"
#include "services/system_clock.h"

namespace quorate::services {

// One completion queue, and how many calls may still need it.
struct CallQueues::Queue {
  std::unique_ptr<grpc::ServerCompletionQueue> queue;  // null until a server is built
  std::thread thread;

  std::mutex mutex;  // protects what follows
  std::condition_variable changed;
  size_t calls = 0;        // asked for or taken, and not at their end
  size_t outstanding = 0;  // taken
};

// One call, from being asked for to its end. It deletes itself on its queue's thread, when gRPC has
// said all it has to say: that the answer was sent, and that the call is done (or cancelled).
class CallQueues::Call {
 public:
  Call(const Method* method, const CallQueuesOptions* options, Queue* queue)
      : method_(method), options_(options), queue_(queue), writer_(&context_) {
    {
      std::lock_guard lock(queue_->mutex);
      ++queue_->calls;
    }
    context_.AsyncNotifyWhenDone(&done_);
    method_->ask(&context_, &request_, &writer_, queue_->queue.get(), &arrived_);
  }

  // What gRPC gives back for each of the three things that are asked of it.
  class Event {
   public:
    using Member = void (Call::*)(bool ok);
    Event(Call* call, Member member) : call_(call), member_(member) {}
    void Happen(bool ok) { (call_->*member_)(ok); }

   private:
    Call* const call_;
    const Member member_;
  };

 private:
  ~Call() {
    std::lock_guard lock(queue_->mutex);
    --queue_->calls;
    if (taken_) --queue_->outstanding;
    // Under the lock: who waits for the last call then destroys the queue.
    if (queue_->calls == 0) queue_->changed.notify_all();
  }

  void OnArrived(bool ok) {
    if (!ok) {
      delete this;  // the server is being shut down: of such a call nothing else is heard
      return;
    }
    new Call(method_, options_, queue_);
    taken_ = true;
    bool too_many = false;
    {
      std::lock_guard lock(queue_->mutex);
      too_many = ++queue_->outstanding > options_->calls_max;
    }
    started_ = BootNow();
    call_ = MakeCallContext(context_, kDefaultDeadline);
    std::string bytes;
    if (too_many) {
      return End(TooManyCalls(), "");
    }
    if (!ToBytes(request_, &bytes)) {
      return End(MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", "the request cannot be read"),
                 "");
    }
    request_.Clear();  // not kept twice
    method_->handler(method_->name, std::move(bytes), call_,
                     [this](grpc::Status status, std::string response) {
                       End(std::move(status), std::move(response));
                     });
  }

  // Any thread. gRPC gives `sent_` back on the queue's, where this may be gone before this returns.
  void End(const grpc::Status& status, const std::string& response) {
    method_->observer(method_->service + "/" + method_->name, status.error_code(),
                      BootNow() - started_);
    if (!status.ok()) return writer_.FinishWithError(status, &sent_);
    const grpc::Slice slice(response);
    writer_.Finish(grpc::ByteBuffer(&slice, 1), status, &sent_);
  }

  void OnSent(bool) { EndOne(); }

  void OnDone(bool) {
    if (context_.IsCancelled()) call_->Cancel();
    EndOne();
  }

  void EndOne() {
    if (--awaited_ == 0) delete this;
  }

  const Method* const method_;
  const CallQueuesOptions* const options_;
  Queue* const queue_;
  Event arrived_{this, &Call::OnArrived};
  Event done_{this, &Call::OnDone};
  Event sent_{this, &Call::OnSent};
  int awaited_ = 2;  // done_ and sent_
  bool taken_ = false;
  Instant started_;
  CallPtr call_;
  grpc::ServerContext context_;
  grpc::ByteBuffer request_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer_;
};

CallQueues::CallQueues(const CallQueuesOptions& options) : options_(options) {
  for (size_t i = 0; i < options_.queues; ++i) queues_.push_back(std::make_unique<Queue>());
}

CallQueues::~CallQueues() { Stop(); }

void CallQueues::AddMethod(Method method) {
  CHECK(!started_);
  methods_.push_back(std::make_unique<Method>(std::move(method)));
}

void CallQueues::AddTo(grpc::ServerBuilder* builder) {
  for (const auto& queue : queues_) queue->queue = builder->AddCompletionQueue();
}

void CallQueues::Start() {
  CHECK(!std::exchange(started_, true));
  for (const auto& queue : queues_) {
    for (const auto& method : methods_) {
      for (size_t i = 0; i < options_.asked_for; ++i) {
        new Call(method.get(), &options_, queue.get());
      }
    }
    queue->thread = std::thread([this, queue = queue.get()] { Run(queue); });
  }
}

void CallQueues::Run(Queue* queue) const {
  void* tag = nullptr;
  bool ok = false;
  while (queue->queue->Next(&tag, &ok)) static_cast<Call::Event*>(tag)->Happen(ok);
}

void CallQueues::Stop() {
  if (std::exchange(stopped_, true)) return;
  if (!started_) return;  // no server was built: nothing was asked of the queues
  for (const auto& queue : queues_) {
    {
      std::unique_lock lock(queue->mutex);
      queue->changed.wait(lock, [&] { return queue->calls == 0; });
    }
    // Nothing can be asked of it any more.
    queue->queue->Shutdown();
    queue->thread.join();
  }
}

}  // namespace quorate::services
