#include "services/write_stream.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "google/rpc/status.pb.h"
#include "quorate/v1/config.pb.h"
#include "services/errors.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

using grpc::ByteBuffer;

std::string ErrorResponse(const grpc::Status& status) {
  v1::WriteResponse response;
  const google::rpc::Status proto = ToProto(status);
  response.set_code(status.error_code());
  response.set_message(proto.message());
  response.set_status(proto.SerializeAsString());
  return response.SerializeAsString();
}

class WriteStream final : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  WriteStream(std::string method, const Handler& handler, const CallObserver& observer,
              grpc::CallbackServerContext* context)
      : method_(std::move(method)),
        handler_(handler),
        observer_(observer),
        context_(MakeCallContext(*context, kUnlimited)) {
    reading_ = true;
    StartRead(&request_);
  }

 private:
  // One write, from its message to its answer.
  struct Write {
    CallPtr call;
    Instant started;
    size_t bytes = 0;
    bool ended = false;
    std::string response;
  };
  // A stream without a deadline has none; its writes have.
  static constexpr Duration kUnlimited = std::chrono::hours(24 * 365);

  void OnReadDone(bool ok) override {
    if (ok) Begin();
    std::unique_lock lock(mutex_);
    if (!ok) reads_done_ = true;
    reading_ = false;
    Settle(std::move(lock));
  }

  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    if (!ok) broken_ = true;
    writing_ = false;
    Settle(std::move(lock));
  }

  void OnCancel() override {
    std::vector<CallPtr> calls;
    {
      std::lock_guard lock(mutex_);
      broken_ = true;
      for (const auto& write : writes_) {
        if (!write->ended) calls.push_back(write->call);
      }
    }
    // Each ends its write, so that the stream can end: nobody waits for the outcomes any more.
    for (const CallPtr& call : calls) call->Cancel();
  }

  void OnDone() override { delete this; }

  // Hands the message that was read to the handler. Runs within OnReadDone, so this lives.
  void Begin() {
    auto write = std::make_shared<Write>();
    write->started = BootNow();
    write->bytes = request_.Length();
    write->call = std::make_shared<CallContext>(
        std::min(context_->deadline(), write->started + kDefaultDeadline), context_->metadata());
    {
      std::lock_guard lock(mutex_);
      bytes_ += write->bytes;
      writes_.push_back(write);
      if (broken_) write->call->Cancel();
    }
    std::vector<grpc::Slice> slices;
    std::string bytes;
    if (!request_.Dump(&slices).ok()) {
      return End(write,
                 MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", "the request cannot be read"),
                 "");
    }
    bytes.reserve(write->bytes);
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    handler_(method_.substr(method_.rfind('/') + 1), std::move(bytes), write->call,
             [this, write](grpc::Status status, std::string response) {
               End(write, status, std::move(response));
             });
  }

  // Any thread. The stream cannot have ended before: this write has not.
  void End(const std::shared_ptr<Write>& write, const grpc::Status& status, std::string response) {
    observer_(method_, status.error_code(), BootNow() - write->started);
    if (!status.ok()) response = ErrorResponse(status);
    std::unique_lock lock(mutex_);
    write->response = std::move(response);
    write->ended = true;
    Settle(std::move(lock));
  }

  // Does what there is to do next. After Finish this may be gone: it comes last, without the lock.
  void Settle(std::unique_lock<std::mutex> lock) {
    bool write = false;
    while (!writing_ && !write && !writes_.empty() && writes_.front()->ended) {
      if (!broken_) {
        const grpc::Slice slice(writes_.front()->response);
        response_ = ByteBuffer(&slice, 1);
        write = true;
      }
      bytes_ -= writes_.front()->bytes;
      writes_.pop_front();
    }
    if (write) writing_ = true;
    const bool read = !reading_ && !reads_done_ && writes_.size() < kStreamedWritesMax &&
                      bytes_ < kStreamedBytesMax;
    if (read) reading_ = true;
    const bool finish = reads_done_ && !reading_ && !writing_ && writes_.empty() && !finished_;
    if (finish) finished_ = true;
    const bool broken = broken_;
    lock.unlock();
    // What is started keeps this alive until it is done.
    if (write && read) {
      StartRead(&request_);
      StartWrite(&response_);
    } else if (write) {
      StartWrite(&response_);
    } else if (read) {
      StartRead(&request_);
    } else if (finish) {
      Finish(broken ? grpc::Status(grpc::StatusCode::CANCELLED, "the stream broke")
                    : grpc::Status::OK);
    }
  }

  const std::string method_;
  const Handler& handler_;
  const CallObserver& observer_;
  const CallPtr context_;  // the stream's deadline and metadata
  ByteBuffer request_;     // the pending read's
  ByteBuffer response_;    // the pending write's

  std::mutex mutex_;                           // protects what follows
  std::deque<std::shared_ptr<Write>> writes_;  // in the order of their messages
  size_t bytes_ = 0;
  bool reading_ = false;  // a read is pending or its message is being handed over
  bool writing_ = false;
  bool reads_done_ = false;
  bool broken_ = false;  // nothing can be sent any more
  bool finished_ = false;
};

}  // namespace

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* NewWriteStream(
    std::string method, const Handler& handler, const CallObserver& observer,
    grpc::CallbackServerContext* context) {
  return new WriteStream(std::move(method), handler, observer, context);
}

}  // namespace quorate::services
