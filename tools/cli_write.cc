// write: many writes on one stream.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

#include "google/rpc/status.pb.h"
#include "services/errors.h"
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
    "When a connection breaks, what has no answer is sent again, and done once.";

struct WriteOptions {
  std::string file = "-";
};

struct OneWrite {
  uint64_t line = 0;
  v1::WriteRequest request;
  size_t bytes = 0;
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
      while (wrong.empty() && std::getline(*in, text)) {
        ++number;
        if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
        OneWrite write;
        write.line = number;
        write.bytes = text.size();
        const absl::Status parsed = ParseLine(text, &write.request);
        if (!parsed.ok()) {
          wrong = "line " + std::to_string(number) + ": " + std::string(parsed.message());
        } else if (!Add(std::move(write))) {
          break;
        }
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
        taken_bytes += lines.front().bytes;
        taken.push_back(std::move(lines.front()));
        lines.pop_front();
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

// Sends the batch on one stream from `*done` on, and calls `take` with each answer, in order. OK:
// all are answered.
grpc::Status StreamWrites(Endpoint& endpoint, grpc::ClientContext* context,
                          const std::vector<OneWrite>& batch, size_t* done,
                          const std::function<void(const v1::WriteResponse&)>& take) {
  const auto stream = endpoint.config->Write(context);
  std::thread sender([&stream, &batch, from = *done] {
    for (size_t i = from; i < batch.size(); ++i) {
      if (!stream->Write(batch[i].request)) return;
    }
    stream->WritesDone();
  });
  v1::WriteResponse response;
  while (*done < batch.size() && stream->Read(&response)) {
    take(response);
    ++*done;
  }
  sender.join();  // when the stream has ended its writes fail
  grpc::Status status = stream->Finish();
  if (*done == batch.size()) return grpc::Status::OK;
  return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "not every write was answered")
                     : status;
}

class StreamWriter {
 public:
  StreamWriter(Invocation& invocation, Client& client) : invocation_(invocation), client_(client) {}

  int Run(WriteLines& lines) {
    while (true) {
      std::vector<OneWrite> batch = lines.Take();
      if (batch.empty()) break;
      if (!Send(&batch)) break;
      if (!invocation_.io.out) break;
    }
    return exit_;
  }

 private:
  // False: it makes no sense to go on.
  bool Send(std::vector<OneWrite>* batch) {
    uint64_t revision = 0;
    CallResult result = client_.SeenRevision(&revision);
    if (!result.ok()) {
      Keep(Report(invocation_.io.err, "write", result));
      return false;
    }
    for (OneWrite& write : *batch) NameWrite(revision, &write.request);
    size_t done = 0;
    result = client_.Run(CallKind::kNamedWrite, [&](Endpoint& endpoint,
                                                    grpc::ClientContext* context) {
      return StreamWrites(endpoint, context, *batch, &done, [&](const v1::WriteResponse& response) {
        Answered((*batch)[done], response, endpoint.address);
      });
    });
    invocation_.io.out.flush();
    if (done == batch->size()) return true;
    const std::string what = "write: line " + std::to_string((*batch)[done].line) + " and the " +
                             std::to_string(batch->size() - done - 1) + " behind it";
    Keep(Report(invocation_.io.err, what, result));
    return false;
  }

  void Answered(const OneWrite& write, const v1::WriteResponse& response,
                const std::string& address) {
    CallResult result;
    result.address = address;
    if (response.code() != 0) {
      google::rpc::Status proto;
      result.status =
          proto.ParseFromString(response.status())
              ? services::FromProto(proto)
              : grpc::Status(static_cast<grpc::StatusCode>(response.code()), response.message());
      const bool known = result.status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED;
      result.outcome_known = known && !services::DetailsOf(result.status).reason.empty();
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
  exit = StreamWriter(invocation, *client).Run(lines);
  const std::string error = lines.error();
  if (error.empty()) return exit;
  const int usage = invocation.Fail(kExitUsage, "write: " + error + "; what is before it was sent");
  return exit == kExitOk ? usage : exit;
}

}  // namespace

void AddWriteCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* write =
      app.add_subcommand("write", "many writes on one stream, each answered by itself, in order");
  auto options = std::make_shared<WriteOptions>();
  write->add_option("-f,--file", options->file, "a JSON object a line; - for stdin")
      ->capture_default_str();
  write->footer(kWriteForm);
  write->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return RunWrite(invocation, *options); };
  });
}

}  // namespace quorate::tools
