// Writes many items as fast as the cluster takes them: one stream, many writes on their way, each
// with an answer of its own. When the stream breaks, what was not answered is sent again under the
// same names, and nothing is done twice.
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "client.h"

namespace example {
namespace {

constexpr size_t kWindow = 256;  // unanswered at a time; the server reads ahead up to 1,024
constexpr auto kStreamTime = std::chrono::seconds(60);

// Of one write: not accepted for now, or not known. Its name makes sending it again safe.
bool SendAgain(const v1::WriteResponse& answer) {
  if (answer.code() == grpc::StatusCode::UNAVAILABLE) return true;
  if (answer.code() == grpc::StatusCode::DEADLINE_EXCEEDED) return true;
  const std::string reason = ReasonIn(answer.status()).reason;
  return reason == "QUEUE_FULL" || reason == "REQUEST_IDS_FULL";
}

class Pipeline {
 public:
  Pipeline(Session& session, std::deque<v1::WriteRequest> writes)
      : session_(session), unanswered_(std::move(writes)) {}

  // Until every write has an answer.
  void Run() {
    while (!unanswered_.empty()) {
      ++streams_;
      const grpc::Status status = OneStream();
      if (status.ok()) continue;
      std::cerr << "pipeline: " << Failure(status).what() << "; " << unanswered_.size()
                << " to go\n";
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  int streams() const { return streams_; }
  int failed() const { return failed_; }
  uint64_t revision() const { return revision_; }

 private:
  grpc::Status OneStream() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kStreamTime);
    const auto stream = session_.config->Write(&context);
    std::mutex mutex;
    std::condition_variable changed;
    size_t on_their_way = 0;  // protected by mutex, as is over
    bool over = false;
    std::thread sender([&, writes = unanswered_] {
      for (const v1::WriteRequest& write : writes) {
        {
          std::unique_lock lock(mutex);
          changed.wait(lock, [&] { return on_their_way < kWindow || over; });
          if (over) return;
          ++on_their_way;
        }
        if (!stream->Write(write)) return;
      }
      stream->WritesDone();
    });
    std::deque<v1::WriteRequest> again;
    v1::WriteResponse answer;
    while (stream->Read(&answer)) {  // in the order of the writes
      {
        const std::lock_guard lock(mutex);
        --on_their_way;
      }
      changed.notify_one();
      v1::WriteRequest write = std::move(unanswered_.front());
      unanswered_.pop_front();
      if (answer.code() == 0) {
        revision_ = answer.put().header().revision();
        session_.Saw(revision_);
      } else if (SendAgain(answer)) {
        again.push_back(std::move(write));
      } else {
        ++failed_;
        std::cout << write.put().key() << ": " << answer.message() << '\n';
      }
    }
    {
      const std::lock_guard lock(mutex);
      over = true;
    }
    changed.notify_one();
    sender.join();
    unanswered_.insert(unanswered_.begin(), again.begin(), again.end());
    return stream->Finish();
  }

  Session& session_;
  std::deque<v1::WriteRequest> unanswered_;  // in order
  int streams_ = 0;
  int failed_ = 0;
  uint64_t revision_ = 0;
};

int WriteMany(char** arguments) {
  Session session(Connect(arguments[0]));
  const int count = std::stoi(arguments[2]);
  std::deque<v1::WriteRequest> writes;
  for (int i = 0; i < count; ++i) {
    char number[16];
    std::snprintf(number, sizeof number, "%06d", i);
    v1::PutRequest* put = writes.emplace_back().mutable_put();
    put->set_key(std::string(arguments[1]) + number);
    put->set_text("value " + std::to_string(i));
    session.Name(put);
  }
  Pipeline pipeline(session, std::move(writes));
  pipeline.Run();
  std::cout << "wrote " << count - pipeline.failed() << " items, the last at revision "
            << pipeline.revision() << ", over " << pipeline.streams() << " streams\n";
  return pipeline.failed() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace example

int main(int argc, char** argv) {
  return example::Run(argc, argv, 3, "example_pipeline TARGET PREFIX COUNT", example::WriteMany);
}
