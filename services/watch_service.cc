#include "services/watch_service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <optional>
#include <utility>

#include "base/check.h"
#include "services/errors.h"
#include "services/read_gate.h"
#include "services/request_parser.h"
#include "services/validate.h"
#include "services/watch_reads.h"

namespace quorate::services {
namespace {

using ingress::WatchEnd;
using ingress::WatchEndKind;
using ingress::WatchHub;
using ingress::WatchId;
using ingress::WatchRead;

constexpr Duration kWatchRetryDelay = std::chrono::milliseconds(200);
// Of applied changes that wait for the hub's thread.
constexpr size_t kInboxBytesMax = 32u << 20;
// How often a start in the future looks whether a leader has been heard.
constexpr Duration kFreshInterval = std::chrono::milliseconds(20);
// The thread looks at the clock at least so often: it is the boot-time clock, which counts through
// suspend, and no condition variable waits by that.
constexpr Duration kSleepMax = std::chrono::seconds(1);

grpc::Status WatchesStop(uint64_t resume) {
  return MakeError(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN", "this node is stopping",
                   {{"resume_revision", std::to_string(resume)}}, kWatchRetryDelay);
}

}  // namespace

struct WatchService::Inbox {
  std::mutex mutex;  // protects what follows
  std::condition_variable changed;
  std::vector<Task> tasks;
  // What was applied and not yet told: sets, and how far they (or what is missing of them) go.
  std::vector<ChangeSetPtr> sets;
  size_t set_bytes = 0;
  Revision head;
  bool stop = false;

  // False: the thread has ended.
  bool Post(Task task) {
    {
      std::lock_guard lock(mutex);
      if (stop) return false;
      tasks.push_back(std::move(task));
    }
    changed.notify_one();
    return true;
  }
};

WatchService::WatchService(std::string node_id, ReadPool* pool, std::function<Instant()> now,
                           const ingress::WatchHubOptions& options)
    : node_id_(std::move(node_id)),
      pool_(pool),
      now_(std::move(now)),
      options_(options),
      inbox_(std::make_shared<Inbox>()) {}

WatchService::~WatchService() { Stop(); }

void WatchService::SetBackend(std::shared_ptr<const ConfigBackend> backend) {
  std::lock_guard lock(mutex_);
  CHECK(backend_ == nullptr);
  if (stopped_) return;
  backend_ = std::move(backend);
  hub_ = std::make_unique<WatchHub>(options_, backend_->state->Summary().revision);
  leader_known_ = static_cast<bool>(backend_->status()->leader);
  hub_->OnLeader(now_(), leader_known_);
  thread_ = std::thread([this] { Run(); });
}

// --- Streams ---

void WatchService::Open(WatchId id, const std::string& bytes, std::shared_ptr<WatchSink> sink) {
  v1::WatchRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return sink->End(std::move(status));
  std::shared_ptr<const ConfigBackend> backend;
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    backend = backend_;
    stopped = stopped_;
  }
  if (stopped) return sink->End(WatchesStop(request.start_revision()));
  if (backend == nullptr || !backend->caught_up_once()) {
    return sink->End(MakeError(grpc::StatusCode::UNAVAILABLE, "NOT_CAUGHT_UP",
                               "this node has not caught up with the cluster since its data "
                               "directory was made; ask another node or try again",
                               {}, kWatchRetryDelay));
  }
  ingress::WatchSpec spec;
  spec.filter.is_prefix = request.target_case() == v1::WatchRequest::kPrefix;
  spec.filter.text = spec.filter.is_prefix ? request.prefix() : request.key();
  spec.start_revision = request.start_revision();
  spec.with_initial_state = request.with_initial_state();
  spec.with_previous = request.with_previous();
  if (request.has_progress_interval()) {
    spec.progress_interval = std::chrono::seconds(request.progress_interval().seconds()) +
                             std::chrono::microseconds(request.progress_interval().nanos() / 1000);
  }
  // Read before the hub hears of the watch: what this node has shown until now is before it.
  const Revision shown = backend->state->Summary().revision;
  const bool posted = inbox_->Post([this, id, spec, shown, sink](Instant now) {
    sinks_.emplace(id, sink);
    hub_->Subscribe(now, id, spec, shown);
  });
  if (!posted) sink->End(WatchesStop(request.start_revision()));
}

void WatchService::OnSent(WatchId id) {
  (void)inbox_->Post([this, id](Instant now) { hub_->OnSent(now, id); });
}

void WatchService::OnGone(WatchId id) {
  (void)inbox_->Post([this, id](Instant) {
    hub_->Cancel(id);
    sinks_.erase(id);
    GiveUpRead(id);
  });
}

// --- The node ---

void WatchService::OnApplied(const std::vector<storage::Applied>& applied) {
  std::shared_ptr<const ConfigBackend> backend;
  {
    std::lock_guard lock(mutex_);
    backend = backend_;
  }
  if (backend == nullptr) return;
  const Revision head = backend->state->Summary().revision;
  {
    std::lock_guard lock(inbox_->mutex);
    if (inbox_->stop || head <= inbox_->head) return;
    inbox_->head = head;
    for (const storage::Applied& each : applied) {
      if (each.changes == nullptr) continue;
      // Too much: whoever is live reads it. What has been left before is as good as it was.
      if (inbox_->set_bytes + each.changes->bytes > kInboxBytesMax) break;
      inbox_->set_bytes += each.changes->bytes;
      inbox_->sets.push_back(each.changes);
    }
  }
  inbox_->changed.notify_one();
}

void WatchService::OnReset(Revision head, Revision compacted) {
  {
    std::lock_guard lock(inbox_->mutex);
    inbox_->sets.clear();  // of before it: in the history that goes on, or gone with it
    inbox_->set_bytes = 0;
    inbox_->head = head;
  }
  (void)inbox_->Post([this, head, compacted](Instant now) { hub_->OnReset(now, head, compacted); });
}

void WatchService::OnStatusChange(const raft::NodeStatus& status) {
  const bool known = static_cast<bool>(status.leader);
  if (leader_known_.exchange(known) == known) return;
  (void)inbox_->Post([this](Instant now) { hub_->OnLeader(now, leader_known_); });
}

// --- The hub's thread ---

void WatchService::Run() {
  std::unique_lock lock(inbox_->mutex);
  Revision told;
  while (true) {
    const auto has_work = [&] {
      return inbox_->stop || !inbox_->tasks.empty() || inbox_->head > told;
    };
    if (!has_work()) {
      const Instant deadline = hub_->NextDeadline();
      const Instant now = now_();
      Duration wait = hub_->wants_fresh() ? kFreshInterval : kSleepMax;
      if (deadline <= now + wait) wait = std::max(deadline - now, Duration::zero());
      inbox_->changed.wait_for(lock, wait, has_work);
    }
    const bool stop = inbox_->stop;
    std::vector<Task> tasks = std::exchange(inbox_->tasks, {});
    const std::vector<ChangeSetPtr> sets = std::exchange(inbox_->sets, {});
    inbox_->set_bytes = 0;
    const Revision head = inbox_->head;
    lock.unlock();

    const Instant now = now_();
    // Before the tasks: a reset among them is of after what was applied here, or has cleared it.
    if (head > told) hub_->OnApplied(now, head, sets);
    told = std::max(told, head);
    Work(std::move(tasks), now);
    if (stop) hub_->Close(now);
    Deliver(now);
    if (stop) return;
    lock.lock();
  }
}

void WatchService::Work(std::vector<Task> tasks, Instant now) {
  for (const Task& task : tasks) task(now);
  if (hub_->wants_fresh()) {
    // First how fresh, then what there is: never the other way round.
    const auto fresh_as_of = backend_->status()->fresh_as_of;
    const Revision revision = backend_->state->Summary().revision;
    if (fresh_as_of) hub_->OnFresh(now, *fresh_as_of, revision);
  }
  hub_->Tick(now);
}

void WatchService::Deliver(Instant now) {
  v1::ResponseHeader base;
  bool made = false;
  while (true) {
    WatchHub::Output out = hub_->TakeOutput(now);
    if (out.empty()) break;
    if (!made && !out.messages.empty()) {
      const std::shared_ptr<const raft::NodeStatus> node = backend_->status();
      base = MakeResponseHeader(node_id_, backend_->cluster, *node);
      *base.mutable_staleness() = MeasuredStaleness(node->fresh_as_of, now);
      made = true;
    }
    for (ingress::WatchMessage& message : out.messages) {
      sinks_.at(message.watch)->Send(Header(base, message.revision), std::move(message.body));
    }
    for (WatchRead& read : out.reads) Read(std::move(read));
    for (const auto& [id, end] : out.ends) {
      const auto found = sinks_.find(id);
      CHECK(found != sinks_.end());
      found->second->End(StatusOf(end));
      sinks_.erase(found);
      GiveUpRead(id);
    }
  }
  if (const WatchHub::Wants wants = hub_->wants(); wants != collected_) {
    collected_ = wants;
    backend_->state->CollectChanges(CollectFor(wants));
  }
  std::lock_guard lock(mutex_);
  stats_ = {hub_->watches(), hub_->catching_up(), hub_->queued_bytes(), hub_->counters()};
}

void WatchService::GiveUpRead(WatchId id) {
  const auto found = reads_.find(id);
  if (found == reads_.end()) return;
  *found->second = true;
  reads_.erase(found);
}

void WatchService::Read(WatchRead read) {
  // One at a time of each watch, so the one before has ended.
  const auto given_up = std::make_shared<std::atomic<bool>>(false);
  reads_[read.watch] = given_up;
  const uint64_t ticket = read.ticket;
  // Holds nothing of this but what tasks use, which run only while its thread does.
  const bool submitted =
      pool_->Submit([this, backend = backend_, inbox = inbox_, read = std::move(read), given_up] {
        storage::ReadLimits limits;
        limits.abandon = [given_up] { return given_up->load(); };
        (void)inbox->Post([this, answer = ReadForWatch(backend->state, read, limits)](Instant now) {
          answer(hub_.get(), now);
        });
      });
  if (submitted) return;
  (void)inbox_->Post([this, ticket](Instant now) {
    hub_->OnReadFailed(now, ticket, WatchHub::ReadFailure::kBusy, "too many reads");
  });
}

std::string WatchService::Header(const v1::ResponseHeader& base, Revision revision) const {
  v1::WatchResponse response;
  *response.mutable_header() = base;
  response.mutable_header()->set_revision(revision.value());
  return response.SerializeAsString();
}

grpc::Status WatchService::StatusOf(const WatchEnd& end) const {
  grpc::StatusCode code = grpc::StatusCode::UNAVAILABLE;
  std::string_view reason;
  std::optional<Duration> delay = kWatchRetryDelay;
  switch (end.kind) {
    case WatchEndKind::kTooMany:
      code = grpc::StatusCode::RESOURCE_EXHAUSTED;
      reason = "TOO_MANY_WATCHES";
      break;
    case WatchEndKind::kRevisionInFuture:
      code = grpc::StatusCode::OUT_OF_RANGE;
      reason = "REVISION_IN_FUTURE";
      delay.reset();
      break;
    case WatchEndKind::kBehind:
      reason = "BEHIND";
      break;
    case WatchEndKind::kTooSlow:
      code = grpc::StatusCode::RESOURCE_EXHAUSTED;
      reason = "WATCH_TOO_SLOW";
      break;
    case WatchEndKind::kAge:
      reason = "CONNECTION_AGE";
      break;
    case WatchEndKind::kStopping:
      reason = "SHUTTING_DOWN";
      break;
    case WatchEndKind::kDraining:
      reason = "DRAINING";
      break;
    case WatchEndKind::kReadFailed:
      code = grpc::StatusCode::INTERNAL;
      reason = "READ_FAILED";
      delay.reset();
      break;
  }
  return MakeError(code, reason, end.message,
                   {{"resume_revision", ToString(end.resume)}, {"revision", ToString(end.head)}},
                   delay);
}

void WatchService::EndAll() {
  (void)inbox_->Post([this](Instant now) { hub_->EndAll(now); });
}

void WatchService::Stop() {
  std::thread thread;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    thread.swap(thread_);
  }
  {
    std::lock_guard lock(inbox_->mutex);
    inbox_->stop = true;
  }
  inbox_->changed.notify_one();
  if (thread.joinable()) thread.join();
}

WatchStats WatchService::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace quorate::services
