// write: many writes, pipelined on streams.
//
// What there is goes as a batch, on a stream of its own; what a broken stream, or a node that does
// not accept writes, has left is sent again, elsewhere, under the same names.
#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

#include "google/rpc/status.pb.h"
#include "services/errors.h"
#include "services/server.h"
#include "services/utf8.h"
#include "tools/cli.h"
#include "tools/documents.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

// On their way at a time; so many are sent again when a stream breaks.
constexpr size_t kBatchWritesMax = 256;
constexpr size_t kBatchBytesMax = 4u << 20;
// Read ahead of what is sent.
constexpr size_t kLinesAheadMax = 1024;
constexpr size_t kLineBytesAheadMax = 16u << 20;
// A request at its limit whose every byte is escaped.
constexpr size_t kLineBytesMax = 6 * static_cast<size_t>(services::kClientMessageBytesMax);
// What a name of ours adds to a request.
constexpr size_t kNameBytes = 64;
// How long a thread that reads may take to notice that nobody waits for it.
constexpr std::chrono::seconds kReaderEnd(1);

constexpr char kWriteForm[] =
    "Each line of FILE is a JSON form of WriteRequest:\n"
    "  {\"put\": {\"key\": \"a\", \"text\": \"new\"}}\n"
    "  {\"delete\": {\"key\": \"b\", \"expectedRevision\": \"7\"}}\n"
    "  {\"txn\": {\"then\": [{\"put\": {\"key\": \"a\", \"data\": \"AAE=\"}}]}}\n"
    "  {\"rollback\": {\"prefix\": \"c/\", \"toRevision\": \"5\"}}\n"
    "They are applied in this order, each by itself: one that is refused does not hold up the "
    "others.\n"
    "They go in batches of what is there, each pipelined on a stream. When a connection breaks, or "
    "a\n"
    "node does not accept writes, what has no answer is sent again to another, and done once.";

struct WriteOptions {
  std::string file = "-";
};

struct OneWrite {
  uint64_t line = 0;
  v1::WriteRequest request;
  size_t bytes = 0;
  bool too_large = false;  // to be sent; it is a batch of its own
};

// A batch on its way. In order: answered, then perhaps done, then the rest.
struct Batch {
  std::vector<OneWrite> writes;
  size_t done = 0;        // so many are answered
  size_t maybe_done = 0;  // those before it were on a stream that broke before their answers
  bool whole() const { return done == writes.size(); }
};

absl::Status ParseLine(const std::string& text, v1::WriteRequest* request) {
  if (services::FindInvalidUtf8(text) != std::string_view::npos) {
    return absl::InvalidArgumentError("is not UTF-8: write binary values in base64, as `data`");
  }
  const auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError("is not a JSON object: see `quorate write --help`");
  }
  if (absl::Status status = FromJson(json, request); !status.ok()) return status;
  if (request->write_case() == v1::WriteRequest::WRITE_NOT_SET) {
    return absl::InvalidArgumentError("write one of put, delete, txn and rollback");
  }
  return absl::OkStatus();
}

enum class LineRead { kLine, kEnd, kTooLong };

LineRead ReadLine(std::istream& in, std::string* line) {
  line->clear();
  std::array<char, 4096> part;
  while (true) {
    in.getline(part.data(), part.size());
    const auto count = static_cast<size_t>(in.gcount());
    if (in.bad()) return LineRead::kEnd;
    const bool newline = in.good();  // it counts, and is not stored
    line->append(part.data(), newline ? count - 1 : count);
    if (line->size() > kLineBytesMax) return LineRead::kTooLong;
    if (newline) return LineRead::kLine;
    if (in.eof()) return line->empty() ? LineRead::kEnd : LineRead::kLine;
    in.clear();  // the part was full
  }
}

// Reads lines on a thread of its own, so that those that are there go together, and one that comes
// alone is not kept waiting for another.
class WriteLines {
 public:
  explicit WriteLines(std::shared_ptr<std::istream> in) : shared_(std::make_shared<Shared>()) {
    shared_->in = std::move(in);
    thread_ = std::thread([shared = shared_] { shared->Read(); });
  }
  // Nobody can end a thread that waits for input which does not come; it has its own share of what
  // it uses.
  ~WriteLines() {
    std::unique_lock lock(shared_->mutex);
    shared_->given_up = true;
    shared_->changed.notify_all();
    const bool ended =
        shared_->changed.wait_for(lock, kReaderEnd, [this] { return shared_->ended; });
    lock.unlock();
    if (ended) {
      thread_.join();
    } else {
      thread_.detach();
    }
  }

  // What there is, at least one; empty: that was all.
  std::vector<OneWrite> Take() { return shared_->Take(); }
  // Why the reading ended before the end; empty: it did not. After the last Take.
  std::string error() const {
    const std::lock_guard lock(shared_->mutex);
    return shared_->error;
  }

 private:
  struct Shared {
    void Read() {
      std::string text;
      uint64_t number = 0;
      std::string wrong;
      for (LineRead read; wrong.empty();) {
        if (read = ReadLine(*in, &text); read == LineRead::kEnd) break;
        const std::string name = "line " + std::to_string(++number) + ": ";
        if (read == LineRead::kTooLong) {
          wrong = name + "is longer than " + std::to_string(kLineBytesMax >> 20) + " MiB";
          break;
        }
        if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
        OneWrite write;
        write.line = number;
        write.bytes = text.size();
        const absl::Status parsed = ParseLine(text, &write.request);
        if (!parsed.ok()) {
          wrong = name + std::string(parsed.message());
          break;
        }
        write.too_large = write.request.ByteSizeLong() + kNameBytes >
                          static_cast<size_t>(services::kClientMessageBytesMax);
        if (!Add(std::move(write))) break;
      }
      if (wrong.empty() && in->bad()) wrong = "the input cannot be read";
      const std::lock_guard lock(mutex);
      error = std::move(wrong);
      ended = true;
      changed.notify_all();
    }

    // False: nobody wants it any more.
    bool Add(OneWrite write) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] {
        return given_up || lines.empty() ||
               (lines.size() < kLinesAheadMax && bytes < kLineBytesAheadMax);
      });
      bytes += write.bytes;
      lines.push_back(std::move(write));
      changed.notify_all();
      return !given_up;
    }

    std::vector<OneWrite> Take() {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return ended || !lines.empty(); });
      std::vector<OneWrite> taken;
      size_t taken_bytes = 0;
      while (!lines.empty() && taken.size() < kBatchWritesMax &&
             (taken.empty() || taken_bytes + lines.front().bytes <= kBatchBytesMax)) {
        const bool alone = lines.front().too_large;
        if (alone && !taken.empty()) break;
        taken_bytes += lines.front().bytes;
        taken.push_back(std::move(lines.front()));
        lines.pop_front();
        if (alone) break;
      }
      bytes -= taken_bytes;
      changed.notify_all();
      return taken;
    }

    std::shared_ptr<std::istream> in;  // the thread's
    std::mutex mutex;                  // protects what follows
    std::condition_variable changed;
    std::deque<OneWrite> lines;
    size_t bytes = 0;
    bool ended = false;
    bool given_up = false;
    std::string error;
  };

  const std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

template <typename Request>
void NameOne(uint64_t revision, Request* request) {
  if (request->request_id().empty()) request->set_request_id(NewRequestId());
  if (request->request_revision() == 0) request->set_request_revision(revision);
}

void NameWrite(uint64_t revision, v1::WriteRequest* request) {
  switch (request->write_case()) {
    case v1::WriteRequest::kPut:
      return NameOne(revision, request->mutable_put());
    case v1::WriteRequest::kDelete:
      return NameOne(revision, request->mutable_delete_());
    case v1::WriteRequest::kTxn:
      return NameOne(revision, request->mutable_txn());
    case v1::WriteRequest::kRollback:
      return NameOne(revision, request->mutable_rollback());
    case v1::WriteRequest::WRITE_NOT_SET:
      break;
  }
}

grpc::Status StatusOf(const v1::WriteResponse& response) {
  google::rpc::Status proto;
  if (!response.status().empty() && proto.ParseFromString(response.status())) {
    return services::FromProto(proto);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(response.code()), response.message());
}

bool IsOurs(const grpc::Status& status) { return !services::DetailsOf(status).reason.empty(); }

// Not accepted, for certain: it may be sent again.
bool IsNotAccepted(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && IsOurs(status);
}

// Sends what is left of the batch on one stream, and calls `take` with each answer, in order,
// before it counts. OK: all are answered.
//
// A write that this node did not accept is sent again, with all behind it, as long as none of those
// can have been done: it would come after them. When one can, it is refused for good.
grpc::Status StreamWrites(Endpoint& endpoint, grpc::ClientContext* context, Batch* batch,
                          const std::function<void(const v1::WriteResponse&)>& take) {
  const auto stream = endpoint.config->Write(context);
  const size_t size = batch->writes.size();
  std::atomic<size_t> sent = batch->done;
  std::thread sender([&] {
    while (sent < size) {
      if (!stream->Write(batch->writes[sent++].request)) return;
    }
    stream->WritesDone();
  });
  std::vector<v1::WriteResponse> not_accepted;
  const auto take_these = [&] {
    for (const v1::WriteResponse& each : not_accepted) {
      take(each);
      ++batch->done;
    }
    not_accepted.clear();
  };
  v1::WriteResponse response;
  while (batch->done + not_accepted.size() < size && stream->Read(&response)) {
    const bool again = IsNotAccepted(StatusOf(response));
    if (!again) take_these();
    not_accepted.push_back(response);
    if (!again) take_these();
  }
  sender.join();  // when the stream has ended its writes fail
  grpc::Status status = stream->Finish();
  if (batch->whole()) return grpc::Status::OK;
  const size_t answered = batch->done + not_accepted.size();
  if (status.ok() || answered == size) {
    status = answered == size
                 ? StatusOf(not_accepted.front())
                 : grpc::Status(grpc::StatusCode::UNAVAILABLE, "not every write was answered");
  }
  // A stream that its node has ended has answered what was accepted.
  if (answered < sent && !OutcomeIsKnown(status.error_code(), IsOurs(status))) {
    take_these();
    batch->maybe_done = std::max(batch->maybe_done, sent.load());
  }
  return not_accepted.empty() ? status : StatusOf(not_accepted.front());
}

class StreamWriter {
 public:
  StreamWriter(Invocation& invocation, Client& client) : invocation_(invocation), client_(client) {}

  int Run(WriteLines& lines) {
    while (true) {
      Batch batch{lines.Take()};
      if (batch.writes.empty()) break;
      sent_all_ = Send(&batch) && invocation_.io.out;
      if (!sent_all_) break;
    }
    return exit_;
  }
  // False: it has ended before what it was given.
  bool sent_all() const { return sent_all_; }

 private:
  // False: it makes no sense to go on.
  bool Send(Batch* batch) {
    if (batch->writes.front().too_large) {
      RefuseTooLarge(batch->writes.front());
      return true;
    }
    uint64_t revision = 0;
    CallResult result = client_.SeenRevision(&revision);
    if (result.ok()) {
      for (OneWrite& write : batch->writes) NameWrite(revision, &write.request);
      result = SendNamed(batch);
      invocation_.io.out.flush();
      if (batch->whole()) return true;
    }
    const uint64_t first = batch->writes[batch->done].line;
    const uint64_t last = batch->writes.back().line;
    std::string what = "write: line " + std::to_string(first);
    if (last != first)
      what = "write: lines " + std::to_string(first) + " to " + std::to_string(last);
    Keep(Report(invocation_.io.err, what, result));
    invocation_.io.err << "  nothing behind line " << last << " was sent\n";
    return false;
  }

  CallResult SendNamed(Batch* batch) {
    CallResult result =
        client_.Run(CallKind::kNamedWrite, [&](Endpoint& endpoint, grpc::ClientContext* context) {
          return StreamWrites(endpoint, context, batch, [&](const v1::WriteResponse& response) {
            Answered(batch->writes[batch->done], response, endpoint.address,
                     /*maybe_done=*/batch->done < batch->maybe_done);
          });
        });
    result.outcome_known = batch->maybe_done <= batch->done;
    return result;
  }

  // gRPC would refuse it at the node, and end the stream.
  void RefuseTooLarge(const OneWrite& write) {
    v1::WriteResponse response;
    response.set_code(grpc::StatusCode::INVALID_ARGUMENT);
    response.set_message("the request is larger than " +
                         std::to_string(services::kClientMessageBytesMax >> 20) +
                         " MiB, and was not sent");
    Answered(write, response, "this command", /*maybe_done=*/false);
  }

  void Answered(const OneWrite& write, const v1::WriteResponse& response,
                const std::string& address, bool maybe_done) {
    CallResult result{StatusOf(response), address};
    const grpc::StatusCode code = result.status.error_code();
    result.outcome_known = OutcomeIsKnown(code, IsOurs(result.status));
    // What is said of this attempt need not be true of the one before.
    if (maybe_done && !HoldsForEveryAttempt(code, services::DetailsOf(result.status).reason)) {
      result.outcome_known = false;
    }
    client_.Saw(HeaderOf(response).revision());
    Show(write, response);
    if (result.ok()) return;
    invocation_.io.out.flush();  // in the order of the answers
    Keep(Report(invocation_.io.err, "write: line " + std::to_string(write.line), result));
  }

  static const v1::ResponseHeader& HeaderOf(const v1::WriteResponse& response) {
    switch (response.result_case()) {
      case v1::WriteResponse::kPut:
        return response.put().header();
      case v1::WriteResponse::kDelete:
        return response.delete_().header();
      case v1::WriteResponse::kTxn:
        return response.txn().header();
      case v1::WriteResponse::kRollback:
        return response.rollback().header();
      case v1::WriteResponse::RESULT_NOT_SET:
        break;
    }
    return v1::ResponseHeader::default_instance();
  }

  void Show(const OneWrite& write, const v1::WriteResponse& response) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kJson) {
      out << ToJson(response).dump() << '\n';  // one line an answer
      return;
    }
    if (invocation_.format == OutputFormat::kYaml) {
      out << "---\n";
      PrintStructured(out, OutputFormat::kYaml, ToJson(response));
      return;
    }
    const std::string revision = std::to_string(HeaderOf(response).revision());
    if (invocation_.format == OutputFormat::kRaw) {
      out << (response.code() == 0 ? revision : "-") << '\n';
    } else if (response.code() == 0 && !invocation_.globals.quiet) {
      out << write.line << ": " << WhatWasDone(response) << ", revision " << revision << '\n';
    }
  }

  static std::string WhatWasDone(const v1::WriteResponse& response) {
    switch (response.result_case()) {
      case v1::WriteResponse::kPut:
        return "put, version " + std::to_string(response.put().version());
      case v1::WriteResponse::kDelete:
        return "deleted " + std::to_string(response.delete_().deleted());
      case v1::WriteResponse::kTxn:
        return std::string("succeeded: ") + (response.txn().succeeded() ? "true" : "false");
      case v1::WriteResponse::kRollback:
        return "changed " + std::to_string(response.rollback().changed()) + ", deleted " +
               std::to_string(response.rollback().deleted());
      case v1::WriteResponse::RESULT_NOT_SET:
        break;
    }
    return "done";
  }

  // The first one counts.
  void Keep(int exit) {
    if (exit_ == kExitOk) exit_ = exit;
  }

  Invocation& invocation_;
  Client& client_;
  int exit_ = kExitOk;
  bool sent_all_ = true;
};

int RunWrite(Invocation& invocation, const WriteOptions& options) {
  // Its own, or not ours to end.
  std::shared_ptr<std::istream> in(&invocation.io.in, [](std::istream*) {});
  if (options.file != "-") {
    auto file = std::make_shared<std::ifstream>(options.file, std::ios::binary);
    if (!file->is_open()) {
      return invocation.Fail(kExitError, "write: " + Printable(options.file) + " cannot be opened");
    }
    in = std::move(file);
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  WriteLines lines(std::move(in));
  StreamWriter writer(invocation, *client);
  exit = writer.Run(lines);
  // Lines behind those that it did not come to are not its matter.
  const std::string error = writer.sent_all() ? lines.error() : "";
  if (error.empty()) return exit;
  const int usage = invocation.Fail(kExitUsage, "write: " + error + "; what is before it was sent");
  return exit == kExitOk ? usage : exit;
}

}  // namespace

void AddWriteCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* write =
      app.add_subcommand("write", "many writes, pipelined, each answered by itself, in order");
  auto options = std::make_shared<WriteOptions>();
  write->add_option("-f,--file", options->file, "a JSON object a line; - for stdin")
      ->capture_default_str();
  write->footer(kWriteForm);
  write->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return RunWrite(invocation, *options); };
  });
}

}  // namespace quorate::tools
