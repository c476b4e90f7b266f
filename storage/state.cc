#include "storage/state.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <span>
#include <utility>

#include "base/check.h"
#include "storage/state_apply.h"
#include "storage/state_copy.h"
#include "storage/state_readers.h"
#include "storage/state_schema.h"
#include "storage/state_sessions.h"

namespace quorate::storage {
namespace {

// How long the apply thread waits for short reads to end before a checkpoint, and how much more
// write-ahead log there must be before it tries again. Far above the limit it waits for long.
constexpr std::chrono::milliseconds kGateWait{100};
constexpr std::chrono::milliseconds kGateWaitLong{10'000};
constexpr std::chrono::milliseconds kInstallWait{60'000};
constexpr uint64_t kRetryAfterBytes = 1u << 20;
constexpr uint64_t kPatienceFactor = 16;
// While the whole database is read the write-ahead log may grow to this, or to the database's size.
constexpr uint64_t kScrubWalBytes = uint64_t{1} << 30;

class SqliteState final : public State {
 public:
  SqliteState(StateOptions options, std::unique_ptr<Applier> applier,
              std::unique_ptr<ReaderPool> readers)
      : options_(std::move(options)),
        applier_(std::move(applier)),
        readers_(std::move(readers)),
        checkpoint_at_(options_.wal_bytes_max),
        generation_(options_.generation) {
    std::lock_guard lock(mutex_);
    sessions_ = applier_->sessions().sessions();
    PublishLocked();
  }

  absl::StatusOr<std::vector<Applied>> Apply(const std::vector<raft::EntryPtr>& entries) override {
    std::vector<Applied> outcomes;
    outcomes.reserve(entries.size());
    std::span<const raft::EntryPtr> rest(entries);
    applier_->Collect(collect_.load());
    while (!rest.empty()) {
      // One transaction, up to the next index at which the hash is recorded.
      const uint64_t first = rest.front()->index.value();
      const uint64_t until = (first + kHashInterval - 1) / kHashInterval * kHashInterval;
      const size_t count = std::min<size_t>(rest.size(), until - first + 1);
      absl::Status status = applier_->ApplyBatch(rest.first(count), outcomes);
      if (!status.ok()) return ExplainStateError(path(), status);
      rest = rest.subspan(count);
      Publish();
      if (applier_->wal_bytes() > checkpoint_at_) {
        absl::StatusOr<bool> done = Checkpoint();
        if (!done.ok()) return done.status();
      }
    }
    return outcomes;
  }

  absl::StatusOr<bool> Checkpoint() override {
    const uint64_t wal = applier_->wal_bytes();
    const bool patient = wal > kPatienceFactor * options_.wal_bytes_max;
    bool closed = readers_->CloseGate(patient ? kGateWaitLong : kGateWait, ScrubMustEnd(wal));
    absl::StatusOr<bool> done = false;
    if (closed) {
      done = applier_->Truncate();
      readers_->OpenGate();
    }
    if (!done.ok()) return ExplainStateError(path(), done.status());
    checkpoint_at_ =
        *done ? options_.wal_bytes_max : std::max(wal, options_.wal_bytes_max) + kRetryAfterBytes;
    if (*done) {
      std::lock_guard lock(mutex_);
      summary_.durable_applied = summary_.applied;
    }
    return done;
  }

  absl::Status Install(uint64_t generation) override;

  uint64_t generation() const override {
    std::lock_guard lock(mutex_);
    return generation_;
  }

  absl::StatusOr<StateCopy> Copy(const std::string& path,
                                 const std::atomic<bool>& cancel) override {
    absl::StatusOr<StateCopy> copy;
    {
      absl::StatusOr<ReaderPool::Scrub> scrub = readers_->AcquireScrub(cancel);
      if (!scrub.ok()) return scrub.status();
      const std::string source = this->path();
      copy = CopyStateFile(source, path, {cancel, scrub->abandon()}, disk());
      if (!copy.ok()) return ExplainStateError(source, copy.status());
    }
    // From here on only the copy is read, and checkpoints go on.
    copy =
        VerifyStateFile(path, {copy->cluster, copy->index, copy->term, copy->hash}, cancel, disk());
    if (copy.ok()) return copy;
    disk()->Remove(path).IgnoreError();
    if (!absl::IsDataLoss(copy.status())) return copy;
    return absl::DataLossError("a copy of " + this->path() +
                               " is not good: that is damaged, or the " +
                               "disk under the copy: " + std::string(copy.status().message()));
  }

  raft::Index durable_applied() const override {
    std::lock_guard lock(mutex_);
    return summary_.durable_applied;
  }

  StateSummary Summary() const override {
    std::lock_guard lock(mutex_);
    return summary_;
  }
  bool leases() const override {
    std::lock_guard lock(mutex_);
    return summary_.leases;
  }

  std::optional<SessionView> FindSession(StoreId store) const override {
    std::lock_guard lock(mutex_);
    auto found = sessions_.find(store);
    if (found == sessions_.end()) return std::nullopt;
    return found->second.view;
  }

  std::shared_ptr<const std::string> KeptAnswer(StoreId store, uint64_t sequence) const override {
    std::lock_guard lock(mutex_);
    auto found = sessions_.find(store);
    return found == sessions_.end() ? nullptr : AnswerOf(found->second, sequence);
  }

  std::pair<absl::StatusOr<Item>, Revision> Get(std::string_view key, std::optional<Revision> at,
                                                const ReadLimits& limits) override {
    absl::StatusOr<ReaderPool::Lease> reader = readers_->Acquire(limits.wait);
    if (!reader.ok()) return {reader.status(), Revision()};
    auto [item, revision] = (*reader)->Get(key, at, limits.abandon);
    if (!item.ok()) return {ExplainStateError(path(), item.status()), revision};
    return {std::move(item), revision};
  }

  absl::StatusOr<ListPage> List(const ListQuery& query, const ReadLimits& limits) override {
    return WithReader(limits,
                      [&](StateReader& reader) { return reader.List(query, limits.abandon); });
  }

  absl::StatusOr<std::pair<uint64_t, Revision>> Count(std::string_view prefix,
                                                      std::optional<Revision> at,
                                                      const ReadLimits& limits) override {
    return WithReader(
        limits, [&](StateReader& reader) { return reader.Count(prefix, at, limits.abandon); });
  }

  absl::StatusOr<ChangesPage> Changes(const ChangesQuery& query) override {
    return WithReader({}, [&](StateReader& reader) { return reader.Changes(query); });
  }

  absl::StatusOr<std::vector<uint64_t>> DueTtls(uint64_t log_time_ms, size_t limit,
                                                const ReadLimits& limits) override {
    return WithReader(limits,
                      [&](StateReader& reader) { return reader.DueTtls(log_time_ms, limit); });
  }

  void CollectChanges(storage::Collect what) override { collect_ = what; }

  absl::StatusOr<HistoryPage> History(const HistoryQuery& query,
                                      const ReadLimits& limits) override {
    return WithReader(limits,
                      [&](StateReader& reader) { return reader.History(query, limits.abandon); });
  }

  absl::StatusOr<std::pair<raft::Index, StateHash>> RecomputeHash() override {
    absl::StatusOr<HashCheck> check = CheckHash();
    if (!check.ok()) return check.status();
    return std::pair(check->applied, check->recomputed);
  }

  absl::StatusOr<HashCheck> CheckHash() override {
    ReaderPool::Scrub scrub = readers_->AcquireScrub();
    absl::StatusOr<HashCheck> check = scrub.CheckHash();
    if (!check.ok()) return ExplainStateError(path(), check.status());
    return check;
  }

  absl::StatusOr<std::vector<std::pair<raft::Index, StateHash>>> RecordedHashes() override {
    return WithReader({}, [](StateReader& reader) { return reader.RecordedHashes(); });
  }

 private:
  template <typename Read>
  auto WithReader(const ReadLimits& limits, Read read)
      -> decltype(read(std::declval<StateReader&>())) {
    absl::StatusOr<ReaderPool::Lease> reader = readers_->Acquire(limits.wait);
    if (!reader.ok()) return reader.status();
    auto result = read(**reader);
    if (!result.ok()) return ExplainStateError(path(), result.status());
    return result;
  }

  Disk* disk() const { return options_.disk == nullptr ? PosixDisk() : options_.disk; }
  std::string path() const { return StatePath(options_.directory, generation()); }

  bool ScrubMustEnd(uint64_t wal) const {
    const uint64_t size = disk()->SizeOf(path()).value_or(0);
    return wal > std::max(kScrubWalBytes, size);
  }

  void Publish() {
    std::lock_guard lock(mutex_);
    applier_->sessions().BringUpToDate(sessions_);
    applier_->sessions().ClearDirty();
    PublishLocked();
  }

  void PublishLocked() {
    const StateMeta& meta = applier_->meta();
    summary_.applied = meta.applied;
    summary_.applied_term = meta.applied_term;
    summary_.revision = meta.revision;
    summary_.compacted = meta.compacted;
    summary_.log_time_ms = meta.log_time_ms;
    if (summary_.membership_index != meta.membership_index) summary_.membership = meta.membership;
    summary_.membership_index = meta.membership_index;
    summary_.birth_complete = meta.birth_complete;
    summary_.leases = meta.settings.leases.value_or(false);
    summary_.hash = meta.hash.bytes();
    const RequestTable& requests = applier_->requests();
    summary_.request_ids = requests.size();
    summary_.request_ids_reach_ms =
        requests.size() == 0 ? 0 : meta.log_time_ms - requests.oldest_log_time_ms();
    summary_.request_ids_expired_through = requests.expired_through();
    summary_.ttls = applier_->ttls().ttls;
    summary_.ttl_keys = applier_->ttls().keys;
    summary_.next_ttl_deadline_ms = applier_->next_ttl_deadline_ms();
    summary_.expired_ttls = applier_->expired_ttls();
    summary_.duplicates = applier_->duplicates();
  }

  const StateOptions options_;  // but for its generation: that is where it began
  // The apply thread's. Made before the readers and ended after them: while its connection is open
  // the write-ahead log's index stays.
  std::unique_ptr<Applier> applier_;
  const std::unique_ptr<ReaderPool> readers_;
  uint64_t checkpoint_at_;
  std::atomic<storage::Collect> collect_ = storage::Collect::kNothing;

  mutable std::mutex mutex_;
  // Protected by mutex_: what committed batches have made.
  uint64_t generation_;
  StateSummary summary_;
  std::map<StoreId, Session> sessions_;
};

// Both ends of one database.
struct Connections {
  std::unique_ptr<Applier> applier;
  std::unique_ptr<ReaderPool> readers;
};

absl::StatusOr<Connections> Connect(const StateOptions& options) {
  const std::string path = StatePath(options.directory, options.generation);
  absl::StatusOr<Database> database = OpenStateWriter(options);
  if (!database.ok()) return database.status();
  absl::StatusOr<std::unique_ptr<Applier>> applier =
      Applier::Open(*std::move(database), options.request_limits);
  if (!applier.ok()) return ExplainStateError(path, applier.status());
  if ((*applier)->meta().cluster != options.cluster) {
    return absl::FailedPreconditionError(
        "the state database " + path + " belongs to cluster " + ToHex((*applier)->meta().cluster) +
        ", and this node to cluster " + ToHex(options.cluster) +
        ": it is another node's directory; start this one with its own");
  }
  absl::StatusOr<std::unique_ptr<ReaderPool>> readers = ReaderPool::Open(path, options.readers);
  if (!readers.ok()) return ExplainStateError(path, readers.status());
  return Connections{*std::move(applier), *std::move(readers)};
}

absl::Status SqliteState::Install(uint64_t generation) {
  CHECK(generation > this->generation(), "generations only grow");
  StateOptions options = options_;
  options.generation = generation;
  absl::StatusOr<Connections> connections = Connect(options);
  if (!connections.ok()) return connections.status();
  if (!readers_->CloseGate(kInstallWait, /*abandon_scrub=*/true)) {
    return absl::UnavailableError("generation " + std::to_string(generation) +
                                  " cannot be installed: a read of the old one does not end");
  }
  std::unique_ptr<Applier> old = std::exchange(applier_, std::move(connections->applier));
  readers_->Replace(std::move(connections->readers));
  checkpoint_at_ = options_.wal_bytes_max;
  {
    std::lock_guard lock(mutex_);
    generation_ = generation;
    sessions_ = applier_->sessions().sessions();
    summary_ = StateSummary();
    PublishLocked();
    summary_.durable_applied = summary_.applied;
  }
  readers_->OpenGate();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<State>> State::Create(const StateOptions& options) {
  absl::Status status = CreateStateDatabase(options);
  if (!status.ok()) return status;
  return Open(options);
}

absl::StatusOr<std::unique_ptr<State>> State::Open(const StateOptions& options) {
  absl::StatusOr<Connections> connections = Connect(options);
  if (!connections.ok()) return connections.status();
  return std::make_unique<SqliteState>(options, std::move(connections->applier),
                                       std::move(connections->readers));
}

}  // namespace quorate::storage
