#include "services/write_stream.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "google/rpc/status.pb.h"
#include "quorate/v1/config.pb.h"
#include "services/errors.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

using grpc::ByteBuffer;

constexpr Duration kStreamRetryDelay = std::chrono::milliseconds(200);

template <typename Response>
Response ErrorResponse(const grpc::Status& status) {
  Response response;
  const google::rpc::Status proto = ToProto(status);
  response.set_code(status.error_code());
  response.set_message(proto.message());
  response.set_status(proto.SerializeAsString());
  return response;
}

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

bool Reads(const google::protobuf::RepeatedPtrField<v1::TxnOperation>& operations) {
  return std::any_of(operations.begin(), operations.end(), [](const v1::TxnOperation& each) {
    return each.has_get() || each.has_list();
  });
}

// What the answer to a serialized WriteRequest may hold beyond a few numbers. Only a transaction is
// parsed for it.
size_t AnswerRoom(const std::string& request) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(request.data()),
                      static_cast<int>(request.size()));
  while (const uint32_t tag = in.ReadTag()) {
    if (WireFormatLite::GetTagFieldNumber(tag) != v1::WriteRequest::kTxnFieldNumber) {
      if (!WireFormatLite::SkipField(&in, tag)) return 0;  // the handler refuses it
      continue;
    }
    v1::WriteRequest parsed;
    if (!parsed.ParseFromString(request)) return 0;
    return Reads(parsed.txn().then()) || Reads(parsed.txn().else_()) ? kStreamedAnswerRoom : 0;
  }
  return 0;
}

grpc::Status StreamEnd(const char* reason, const std::string& message) {
  return MakeError(grpc::StatusCode::UNAVAILABLE, reason,
                   message + "; what was not answered was not accepted", {}, kStreamRetryDelay);
}

}  // namespace

std::string WriteErrorResponse(const grpc::Status& status) {
  return ErrorResponse<v1::WriteResponse>(status).SerializeAsString();
}

std::string KeepAliveErrorResponse(const grpc::Status& status) {
  auto response = ErrorResponse<v1::KeepAliveTtlResponse>(status);
  const ErrorDetails details = DetailsOf(status);
  const auto id = details.metadata.find("ttl_id");
  if (id != details.metadata.end()) response.set_ttl_id(id->second);
  return response.SerializeAsString();
}

// It lives until gRPC is done with it and nobody is within it any more.
class WriteStreams::Stream final : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>,
                                   public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::string method, const Handler& handler, const CallObserver& observer,
         grpc::CallbackServerContext* context, ErrorResponseMaker error_response, Instant ends,
         std::atomic<size_t>* alive)
      : ends_(ends),
        alive_(alive),
        error_response_(error_response),
        method_(std::move(method)),
        handler_(handler),
        observer_(observer),
        context_(MakeCallContext(*context, kUnlimited)) {
    alive_->fetch_add(1);
  }
  ~Stream() override { alive_->fetch_sub(1); }

  // Before gRPC has it.
  void Start() {
    self_ = shared_from_this();
    std::lock_guard lock(mutex_);
    reading_ = true;
    StartRead(&request_);
  }

  // No more messages are taken; when what was taken is answered the stream ends with `why`.
  void Retire(const grpc::Status& why) {
    std::lock_guard lock(mutex_);
    if (!retired_) retired_ = why;
    Settle();
  }

  Instant ends() const { return ends_; }

 private:
  // One write, from its message to its answer.
  struct Write {
    CallPtr call;
    Instant started;
    size_t bytes = 0;        // that it counts for: the request, and the answer
    size_t answer_room = 0;  // of them: for the answer, while it is not there
    bool ended = false;
    std::string response;
  };
  // A stream without a deadline has none; its writes have.
  static constexpr Duration kUnlimited = std::chrono::hours(24 * 365);

  void OnReadDone(bool ok) override {
    if (ok) Begin();
    std::lock_guard lock(mutex_);
    if (!ok) reads_done_ = true;
    reading_ = false;
    Settle();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    if (!ok) broken_ = true;
    writing_ = false;
    Settle();
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

  void OnDone() override { self_.reset(); }

  // Hands the message that was read to the handler. Runs within OnReadDone, so this lives.
  void Begin() {
    auto write = std::make_shared<Write>();
    write->started = BootNow();
    write->bytes = request_.Length();
    write->call = std::make_shared<CallContext>(
        std::min(context_->deadline(), write->started + kDefaultDeadline), context_->metadata());
    {
      std::lock_guard lock(mutex_);
      if (retired_) return;  // came too late: it is not accepted, and not answered
      bytes_ += write->bytes;
      writes_.push_back(write);
      if (broken_) write->call->Cancel();
    }
    std::string bytes;
    if (!ToBytes(request_, &bytes)) {
      return End(write,
                 MakeError(grpc::StatusCode::INTERNAL, "READ_FAILED", "the request cannot be read"),
                 "");
    }
    if (const size_t room = AnswerRoom(bytes); room != 0) {
      std::lock_guard lock(mutex_);
      write->answer_room = room;
      write->bytes += room;
      bytes_ += room;
    }
    handler_(method_.substr(method_.rfind('/') + 1), std::move(bytes), write->call,
             [this, write](grpc::Status status, std::string response) {
               End(write, status, std::move(response));
             });
  }

  // Any thread. The stream cannot have ended before: this write has not. It may end in here.
  void End(const std::shared_ptr<Write>& write, const grpc::Status& status, std::string response) {
    const std::shared_ptr<Stream> self = shared_from_this();
    observer_(method_, status.error_code(), BootNow() - write->started);
    if (!status.ok()) response = error_response_(status);
    std::lock_guard lock(mutex_);
    write->response = std::move(response);
    const size_t change = write->response.size() - write->answer_room;  // may wrap, and back
    write->bytes += change;
    bytes_ += change;
    write->ended = true;
    Settle();
  }

  // Does what there is to do next. REQUIRES: mutex_ is held, and something keeps this alive until
  // it is given up: an operation of gRPC's whose end is being told, or a reference.
  void Settle() {
    if (finished_) return;
    while (!writing_ && !writes_.empty() && writes_.front()->ended) {
      if (!broken_) {
        const grpc::Slice slice(writes_.front()->response);
        response_ = ByteBuffer(&slice, 1);
        writing_ = true;
        StartWrite(&response_);
      }
      bytes_ -= writes_.front()->bytes;
      writes_.pop_front();
    }
    const bool more = !reads_done_ && !retired_;
    if (more && !reading_ && writes_.size() < kStreamedWritesMax && bytes_ < kStreamedBytesMax) {
      reading_ = true;
      StartRead(&request_);
    }
    // A read that is pending when we end the stream is ended by that.
    if (more || writing_ || !writes_.empty() || (reading_ && !retired_)) return;
    finished_ = true;
    Finish(broken_    ? grpc::Status(grpc::StatusCode::CANCELLED, "the stream broke")
           : retired_ ? *retired_
                      : grpc::Status::OK);
  }

  const Instant ends_;
  std::atomic<size_t>* const alive_;
  const ErrorResponseMaker error_response_;
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
  std::optional<grpc::Status> retired_;  // ended by us, with this
  std::shared_ptr<Stream> self_;         // until gRPC is done
};

grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>* WriteStreams::New(
    std::string method, const Handler& handler, const CallObserver& observer,
    grpc::CallbackServerContext* context, ErrorResponseMaker error_response) {
  // Spread over the last tenth, in steps that have no common period.
  const Duration earlier = age_max_ / 10 * (made_.fetch_add(1) * 37 % 101) / 101;
  const auto stream =
      std::make_shared<Stream>(std::move(method), handler, observer, context, error_response,
                               BootNow() + age_max_ - earlier, &alive_);
  const bool too_many = alive_ > streams_max_;
  stream->Start();
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    stopped = stopped_;
    if (!stopped) streams_.push_back(stream);
  }
  if (stopped) {
    stream->Retire(StreamEnd("SHUTTING_DOWN", "this node is stopping"));
  } else if (too_many) {
    stream->Retire(TooManyCalls());
  }
  // Not before gRPC has it can it be done.
  return stream.get();
}

void WriteStreams::Tick(Instant now) {
  std::vector<std::shared_ptr<Stream>> old;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(streams_, [&](const std::weak_ptr<Stream>& each) {
      std::shared_ptr<Stream> stream = each.lock();
      if (stream == nullptr) return true;
      if (stream->ends() > now) return false;
      old.push_back(std::move(stream));
      return true;
    });
  }
  for (const auto& stream : old) {
    stream->Retire(StreamEnd("CONNECTION_AGE", "this stream is old; open another one and go on"));
  }
}

void WriteStreams::EndAll() {
  EndAll(StreamEnd("DRAINING", "this node is taken out of service: go on at another one"), false);
}

void WriteStreams::Stop() { EndAll(StreamEnd("SHUTTING_DOWN", "this node is stopping"), true); }

void WriteStreams::EndAll(const grpc::Status& why, bool for_good) {
  std::vector<std::weak_ptr<Stream>> streams;
  {
    std::lock_guard lock(mutex_);
    stopped_ = stopped_ || for_good;
    streams.swap(streams_);
  }
  for (const auto& each : streams) {
    if (const auto stream = each.lock()) stream->Retire(why);
  }
}

}  // namespace quorate::services
