#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "services/errors.h"
#include "services/utf8.h"
#include "tools/failure.h"
#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/transfer.h"

namespace quorate::tools {
namespace {

// How often a file is compared again because somebody else writes the item meanwhile.
constexpr int kTriesMax = 3;

// The writers' common state. Each takes the next file until there is none.
class Importer {
 public:
  Importer(Client& client, const Tree& tree, const ImportOptions& options, Progress& progress)
      : client_(client), tree_(tree), options_(options), progress_(progress) {}

  ImportSummary Run() {
    const size_t writers = std::min<size_t>(static_cast<size_t>(std::max(options_.concurrency, 1)),
                                            std::max<size_t>(tree_.files.size(), 1));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < writers; ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    return summary_;
  }

 private:
  void Work() {
    for (;;) {
      const size_t at = next_.fetch_add(1);
      if (at >= tree_.files.size() || stop_) return;
      if (Interrupted()) {
        const std::lock_guard lock(mutex_);
        summary_.interrupted = true;
        return;
      }
      One(tree_.files[at]);
      progress_.Add();
    }
  }

  void One(const FileEntry& file) {
    const std::string key = JoinKey(options_.prefix, file.name);
    if (const size_t bad = services::FindInvalidUtf8(key); bad != std::string::npos) {
      Failed(key, kExitError, "the name is not UTF-8: rename the file");
      return;
    }
    const absl::StatusOr<std::string> bytes = ReadFile(file.path, kValueBytesMax);
    if (!bytes.ok()) {
      Failed(key, kExitError, std::string(bytes.status().message()));
      return;
    }
    v1::PutRequest request;
    request.set_key(key);
    if (services::FindInvalidUtf8(*bytes) == std::string_view::npos) {
      request.set_text(*bytes);
    } else {
      request.set_data(*bytes);
    }
    request.set_note(options_.note);
    if (options_.all) return Took(request, Put(request), bytes->size());
    v1::ReadOptions read = options_.read;
    CallResult result;
    for (int tries = 0; tries < kTriesMax; ++tries) {
      if (!Compare(read, &request)) return;
      result = Put(request);
      if (services::DetailsOf(result.status).reason != "REVISION_MISMATCH") break;
      // Somebody has changed it, and the node does not show it yet.
      read.set_consistency(v1::CONSISTENCY_LINEARIZABLE);
    }
    Took(request, result, bytes->size());
  }

  // Looks at what is there. True: the file is to be written, if that is there still.
  bool Compare(const v1::ReadOptions& read, v1::PutRequest* wanted) {
    v1::GetRequest request;
    request.set_key(wanted->key());
    *request.mutable_read() = read;
    v1::GetResponse response;
    const CallResult result = client_.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.config->Get(context, request, &response);
    });
    const v1::Item& item = response.item();
    if (services::DetailsOf(result.status).reason == "KEY_NOT_FOUND") {
      wanted->set_expected_revision(0);
      return true;
    }
    if (!result.ok()) {
      Failed(wanted->key(), ExitCodeOf(result), "cannot be compared: " + Describe(result));
      return false;
    }
    const bool same = wanted->has_data() ? item.has_data() && item.data() == wanted->data()
                                         : item.has_text() && item.text() == wanted->text();
    if (same) {
      const std::lock_guard lock(mutex_);
      ++summary_.unchanged;
      return false;
    }
    if (!item.ttl_id().empty()) {
      Failed(wanted->key(), kExitConflict,
             "is there with another value and bound to the time-to-live " +
                 Printable(item.ttl_id()) + ", and a file would stay: --all writes over it");
      return false;
    }
    wanted->set_expected_revision(item.mod_revision());
    return true;
  }

  CallResult Put(const v1::PutRequest& request) {
    v1::PutResponse response;
    CallResult result = client_.Write(&v1::Config::Stub::Put, request, &response);
    if (result.ok() && options_.verbose) {
      progress_.Line("put " + Printable(request.key()) + " revision " +
                     std::to_string(response.header().revision()));
    }
    return result;
  }

  void Took(const v1::PutRequest& request, const CallResult& result, size_t size) {
    if (!result.ok()) {
      Failed(request.key(), ExitCodeOf(result), Describe(result), !result.outcome_known);
      return;
    }
    const std::lock_guard lock(mutex_);
    ++summary_.written;
    summary_.bytes += size;
    failures_in_row_ = 0;
  }

  void Failed(const std::string& key, int exit, const std::string& why, bool unknown = false) {
    bool last = false;
    {
      const std::lock_guard lock(mutex_);
      ++(unknown ? summary_.unknown : summary_.failed);
      if (summary_.exit == 0) summary_.exit = exit;
      last = exit == kExitUnavailable && ++failures_in_row_ >= kFailuresInRowMax &&
             !stop_.exchange(true);
    }
    progress_.Line("quorate: " + std::string(unknown ? "outcome unknown: " : "not imported: ") +
                   Printable(key) + ": " + why);
    if (last) progress_.Line("quorate: the cluster does not take writes: giving up");
  }

  Client& client_;
  const Tree& tree_;
  const ImportOptions& options_;
  Progress& progress_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  ImportSummary summary_;         // protected by mutex_
  uint64_t failures_in_row_ = 0;  // protected by mutex_
};

}  // namespace

ImportSummary Import(Client& client, const Tree& tree, const ImportOptions& options,
                     Progress& progress) {
  return Importer(client, tree, options, progress).Run();
}

}  // namespace quorate::tools
