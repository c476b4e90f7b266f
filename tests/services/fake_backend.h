// What Config works with, by hand: a state in memory, a node's status, an ingress that keeps what
// it is given.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/config_service.h"
#include "storage/state.h"

namespace quorate::services {

// Items by key, all of one revision; a page may be asked for at that revision only.
class FakeState final : public storage::State {
 public:
  std::map<std::string, storage::Item> items;
  Revision revision{1};
  raft::Index applied{5};
  bool leases_on = false;
  absl::Status failure;  // not OK: every read answers it
  // Not empty: runs at the beginning of each read, with what it was given; may take its time.
  std::function<void(const storage::ReadLimits&)> on_read;

  void Put(const std::string& key, const std::string& value, bool is_text = true) {
    ++revision;
    items[key] = {.key = key,
                  .is_text = is_text,
                  .value = value,
                  .create_revision = revision,
                  .mod_revision = revision,
                  .version = 1};
  }

  absl::StatusOr<std::vector<storage::Applied>> Apply(const std::vector<raft::EntryPtr>&) override {
    return std::vector<storage::Applied>();
  }
  storage::StateSummary Summary() const override {
    storage::StateSummary summary;
    summary.revision = revision;
    summary.applied = applied;
    summary.ttls = ttl_deadlines.size();
    summary.log_time_ms = log_time_ms;
    for (const auto& [ttl, deadline] : ttl_deadlines) {
      uint64_t& next = summary.next_ttl_deadline_ms;
      if (next == 0 || deadline < next) next = deadline;
    }
    return summary;
  }
  bool leases() const override { return leases_on; }
  std::optional<storage::SessionView> FindSession(StoreId) const override { return std::nullopt; }
  std::shared_ptr<const std::string> KeptAnswer(StoreId, uint64_t) const override {
    return nullptr;
  }
  std::pair<absl::StatusOr<storage::Item>, Revision> Get(
      std::string_view key, std::optional<Revision>, const storage::ReadLimits& limits) override {
    if (absl::Status ended = Begin(limits); !ended.ok()) return {ended, revision};
    const auto it = items.find(std::string(key));
    if (it == items.end()) return {absl::NotFoundError("no such key"), revision};
    return {it->second, revision};
  }
  absl::StatusOr<storage::ListPage> List(const storage::ListQuery& query,
                                         const storage::ReadLimits& limits) override {
    if (absl::Status ended = Begin(limits); !ended.ok()) return ended;
    if (query.at && *query.at != revision) return absl::OutOfRangeError("revision compacted");
    storage::ListPage page;
    page.revision = revision;
    for (const auto& [key, item] : items) {
      if (key.rfind(query.prefix, 0) != 0 || key <= query.after) continue;
      if (page.items.size() == query.items_max) {
        page.more = true;
        break;
      }
      page.items.push_back(item);
      if (query.keys_only) page.items.back().value.clear();
    }
    return page;
  }
  absl::StatusOr<std::pair<uint64_t, Revision>> Count(std::string_view prefix,
                                                      std::optional<Revision>,
                                                      const storage::ReadLimits& limits) override {
    if (absl::Status ended = Begin(limits); !ended.ok()) return ended;
    uint64_t count = 0;
    for (const auto& [key, item] : items) count += key.rfind(prefix, 0) == 0 ? 1 : 0;
    return std::pair(count, revision);
  }
  absl::StatusOr<storage::ChangesPage> Changes(const storage::ChangesQuery& query) override {
    if (!failure.ok()) return failure;
    storage::ChangesPage page;
    page.revision = revision;
    page.end = std::max(query.from, ChangePosition{revision + 1, 0});
    return page;
  }
  void CollectChanges(storage::Collect) override {}
  // What is due, with its deadline; `log_time_ms` and the earliest deadline are the summary's.
  std::map<uint64_t, uint64_t> ttl_deadlines;
  uint64_t log_time_ms = 0;
  absl::StatusOr<std::vector<uint64_t>> DueTtls(uint64_t at, size_t limit,
                                                const storage::ReadLimits&) override {
    if (!failure.ok()) return failure;
    std::vector<uint64_t> due;
    for (const auto& [ttl, deadline] : ttl_deadlines) {
      if (deadline < at && due.size() < limit) due.push_back(ttl);
    }
    return due;
  }
  // Of each key what `history` has, newest first; places count from the newest.
  std::map<std::string, std::vector<storage::HistoryItem>> history;
  absl::StatusOr<storage::HistoryPage> History(const storage::HistoryQuery& query,
                                               const storage::ReadLimits&) override {
    if (!failure.ok()) return failure;
    storage::HistoryPage page;
    page.revision = revision;
    uint64_t place = 0;
    for (const storage::HistoryItem& each : history[query.key]) {
      if (++place <= query.before || (query.at && each.item.mod_revision > *query.at)) continue;
      if (page.items.size() == query.items_max) {
        page.more = true;
        break;
      }
      page.items.push_back(each);
      page.items.back().place = place;
    }
    return page;
  }
  absl::StatusOr<std::pair<raft::Index, storage::StateHash>> RecomputeHash() override {
    return std::pair(raft::Index(), storage::StateHash());
  }
  absl::StatusOr<storage::HashCheck> CheckHash() override { return storage::HashCheck(); }
  uint64_t generation() const override { return 1; }
  absl::StatusOr<storage::StateCopy> Copy(const std::string&, const std::atomic<bool>&) override {
    return absl::UnimplementedError("a state in memory is not copied");
  }
  absl::Status Install(uint64_t) override {
    return absl::UnimplementedError("a state in memory is not installed");
  }
  absl::StatusOr<std::vector<std::pair<raft::Index, storage::StateHash>>> RecordedHashes()
      override {
    return std::vector<std::pair<raft::Index, storage::StateHash>>();
  }
  absl::StatusOr<bool> Checkpoint() override { return true; }
  raft::Index durable_applied() const override { return raft::Index(); }

 private:
  // As the real one: what is no longer wanted ends with kAborted.
  absl::Status Begin(const storage::ReadLimits& limits) {
    if (on_read) on_read(limits);
    if (limits.abandon && limits.abandon()) return absl::AbortedError("interrupted");
    return failure;
  }
};

// The backend's functions and what they are made of. Everything may be changed between calls;
// `mutex` guards what the read pool's threads see.
struct FakeNode {
  mutable std::mutex mutex;
  FakeState state;
  raft::NodeStatus status;
  bool caught_up_once = true;
  bool joined = false;  // when the backend is made
  struct Write {
    v1::Command command;
    Instant deadline;
    std::map<std::string, std::string> metadata;
    std::function<void(const ingress::Outcome&)> done;
  };
  std::vector<Write> writes;
  std::vector<ingress::WriteId> cancelled;
  // Questions for a read index are answered with this at once, or kept while it is absent.
  std::optional<raft::ReadResult> read_index =
      raft::ReadResult{0, raft::ReadOutcome::kConfirmed, raft::Index(5), std::nullopt};
  std::vector<std::pair<raft::ReadMode, raft::Node::ReadDone>> questions;

  // Answers the oldest question that was kept.
  void AnswerRead(const raft::ReadResult& result) {
    raft::Node::ReadDone done;
    {
      std::lock_guard lock(mutex);
      done = std::move(questions.front().second);
      questions.erase(questions.begin());
    }
    done(result);
  }

  std::shared_ptr<const ConfigBackend> Backend() {
    auto backend = std::make_shared<ConfigBackend>();
    backend->cluster = ClusterId(0xC1);
    backend->state = &state;
    backend->status = [this] {
      std::lock_guard lock(mutex);
      return std::make_shared<const raft::NodeStatus>(status);
    };
    backend->caught_up_once = [this] {
      std::lock_guard lock(mutex);
      return caught_up_once;
    };
    backend->joined = joined;
    backend->write = [this](v1::Command command, Instant deadline,
                            std::map<std::string, std::string> metadata,
                            std::function<void(const ingress::Outcome&)> done) {
      std::lock_guard lock(mutex);
      writes.push_back({std::move(command), deadline, std::move(metadata), std::move(done)});
      return ingress::WriteId(writes.size());
    };
    backend->read_index = [this](raft::ReadMode mode, raft::Node::ReadDone done) {
      raft::ReadResult result;
      {
        std::lock_guard lock(mutex);
        if (!read_index) {
          questions.emplace_back(mode, std::move(done));
          return;
        }
        result = *read_index;
      }
      done(result);
    };
    backend->cancel = [this](ingress::WriteId id) {
      std::lock_guard lock(mutex);
      cancelled.push_back(id);
      return true;
    };
    return backend;
  }
};

}  // namespace quorate::services
