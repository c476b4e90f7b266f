// Keeps a copy of a prefix in a file and prints every change of it, once, over broken connections,
// lost nodes and its own restarts.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "client.h"
#include "google/protobuf/util/json_util.h"

namespace example {
namespace {

constexpr int kProgressSeconds = 5;
// A stream that says nothing for so long is dead: it would bring progress marks.
constexpr auto kSilence = std::chrono::seconds(15);

void Note(const std::string& text) { std::cerr << "watch: " << text << std::endl; }

// The items, and the revision that goes on after them. They are changed together and saved as one
// file, so that a crash leaves neither a gap nor a change to be told twice.
class Mirror {
 public:
  explicit Mirror(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_);
    if (!file) return;
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    v1::ListResponse saved;
    const auto status = google::protobuf::util::JsonStringToMessage(json, &saved);
    if (!status.ok()) throw std::runtime_error(path_ + ": " + status.ToString());
    cluster = saved.header().cluster_id();
    resume = saved.header().revision() + 1;
    for (const v1::Item& item : saved.items()) items[item.key()] = item;
  }

  void Save(const v1::WatchResponse& message) {
    cluster = message.header().cluster_id();
    resume = message.resume_revision();
    v1::ListResponse saved;
    saved.mutable_header()->set_cluster_id(cluster);
    saved.mutable_header()->set_revision(resume - 1);
    for (const auto& [key, item] : items) *saved.add_items() = item;
    std::string json;
    (void)google::protobuf::util::MessageToJsonString(saved, &json);
    std::ofstream file(path_ + ".new", std::ios::trunc);
    file << json;
    file.close();
    if (!file || std::rename((path_ + ".new").c_str(), path_.c_str()) != 0) {
      throw std::runtime_error("cannot write " + path_);
    }
  }

  void Apply(const std::vector<v1::WatchEvent>& events) {
    for (const v1::WatchEvent& event : events) {
      const v1::Item& item = event.item();
      const bool deleted = event.type() == v1::WatchEvent::TYPE_DELETE;
      std::cout << item.mod_revision()
                << (deleted           ? " delete "
                    : event.created() ? " create "
                                      : " put ")
                << item.key();
      if (deleted) {
        items.erase(item.key());
      } else {
        std::cout << ' ' << item.text();
        items[item.key()] = item;
      }
      std::cout << std::endl;
    }
  }

  std::string cluster;
  uint64_t resume = 0;  // 0: nothing is known, begin with the state
  std::map<std::string, v1::Item> items;

 private:
  const std::string path_;
};

// Cancels a call that says nothing for too long.
class Watchdog {
 public:
  explicit Watchdog(grpc::ClientContext* context)
      : thread_([this, context] {
          std::unique_lock lock(mutex_);
          do {
            heard_ = false;
            changed_.wait_for(lock, kSilence, [this] { return over_; });
          } while (heard_ && !over_);
          if (!over_) context->TryCancel();
        }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  void Heard() {
    const std::lock_guard lock(mutex_);
    heard_ = true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool heard_ = false, over_ = false;  // protected by mutex_
  std::thread thread_;                 // last: it uses the above
};

// What one stream says, put into the mirror. Acts on whole revisions only: when the stream breaks
// within one, the next stream brings all of it.
class Listener {
 public:
  Listener(Mirror& mirror, bool in_state) : mirror_(mirror), in_state_(in_state) {}

  // False: this stream is of no more use.
  bool Hear(const v1::WatchResponse& message) {
    const v1::ResponseHeader& header = message.header();
    if (!mirror_.cluster.empty() && header.cluster_id() != mirror_.cluster) {
      // Recovered from a lost quorum, or another one behind the same names.
      Note("this is another cluster, " + header.cluster_id() + ": beginning anew");
      mirror_.resume = 0;
      mirror_.cluster.clear();
      return false;
    }
    if (message.reset()) {
      Note("the history that was asked for is gone: the whole state follows");
      in_state_ = true;
      state_.clear();
    } else if (message.synced()) {
      in_state_ = false;
      mirror_.items.swap(state_);
      mirror_.Save(message);
      std::cout << "synced " << mirror_.items.size() << " items at revision " << header.revision()
                << std::endl;
    } else if (in_state_) {
      for (const v1::WatchEvent& event : message.events())
        state_[event.item().key()] = event.item();
    } else if (message.events_size() > 0 || !events_.empty()) {
      events_.insert(events_.end(), message.events().begin(), message.events().end());
      if (message.partial()) return true;
      mirror_.Apply(events_);
      mirror_.Save(message);
      events_.clear();
    } else if (message.leader_lost() && message.progress()) {
      Note(header.node_id() + " has had no leader for a while: asking another node");
      return false;
    } else if (message.leader_lost()) {
      Note(header.node_id() + " has lost its leader: changes may be late");
    } else if (message.leader_found()) {
      Note(header.node_id() + " has a leader again");
    } else if (message.progress()) {
      mirror_.Save(message);
    }
    return true;
  }

 private:
  Mirror& mirror_;
  bool in_state_;                          // a state is being told
  std::map<std::string, v1::Item> state_;  // of it
  std::vector<v1::WatchEvent> events_;     // of a revision that is being told
};

grpc::Status WatchOnce(Session& session, const std::string& prefix, Mirror& mirror) {
  v1::WatchRequest request;
  request.set_prefix(prefix);
  request.set_start_revision(mirror.resume);
  request.set_with_initial_state(mirror.resume == 0);
  request.mutable_progress_interval()->set_seconds(kProgressSeconds);
  Listener listener(mirror, request.with_initial_state());
  grpc::ClientContext context;
  const auto stream = session.config->Watch(&context, request);
  Watchdog watchdog(&context);
  v1::WatchResponse message;
  while (stream->Read(&message)) {
    watchdog.Heard();
    if (!listener.Hear(message)) {
      context.TryCancel();
      (void)stream->Finish();
      return grpc::Status::OK;
    }
  }
  return stream->Finish();
}

bool ForGood(grpc::StatusCode code) {
  return code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::OUT_OF_RANGE ||
         code == grpc::StatusCode::PERMISSION_DENIED || code == grpc::StatusCode::UNAUTHENTICATED ||
         code == grpc::StatusCode::UNIMPLEMENTED;
}

int Watch(char** arguments) {
  Session session(Connect(arguments[0]));
  Mirror mirror(arguments[2]);
  for (;;) {
    const grpc::Status status = WatchOnce(session, arguments[1], mirror);
    if (ForGood(status.error_code())) throw Failure(status);
    if (!status.ok()) {
      Note(Failure(status).what() + ("; going on at revision " + std::to_string(mirror.resume)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace
}  // namespace example

int main(int argc, char** argv) {
  return example::Run(argc, argv, 3, "example_watch TARGET PREFIX FILE", example::Watch);
}
