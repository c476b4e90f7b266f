// Fixture verbs for the log, and a model of what it must say.
//
// The model keeps the log's content after each logical record (a cut, a hard state, an entry).
// After any crash the log must be exactly one of these, not older than what was synced: so what was
// acknowledged is there, what was cut stays cut, and nothing is mixed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "raft/core/membership.h"
#include "raft/core/ready.h"
#include "storage/log.h"
#include "tests/storage/sim_disk.h"

namespace quorate::storage {

inline constexpr char kLogDirectory[] = "/log";
inline const StoreId kLogStore(0x5707e1d0c0ffee01);
inline const ClusterId kLogCluster(0xc105e7e7c105e7e7);

LogOptions SmallLogOptions(size_t segment_bytes = 32u << 10);

// A membership of three voters; `salt` makes it differ from others.
raft::Membership MakeMembership(uint64_t salt = 0);
raft::EntryPtr MakeEntry(uint64_t index, uint64_t term, std::string payload);
raft::EntryPtr MakeMembershipEntry(uint64_t index, uint64_t term, uint64_t salt);

// What a log says, in full.
struct LogContent {
  raft::HardState hard_state;
  uint64_t generation = 0;
  // The entry before the first, and the membership in force there, if any is.
  uint64_t prev_index = 0;
  uint64_t prev_term = 0;
  std::optional<std::pair<raft::Index, raft::Membership>> prev_membership;
  std::vector<raft::Entry> entries;  // from prev_index + 1
  uint64_t last_index() const { return prev_index + entries.size(); }
  // Forgets what is at or before `index`; no effect when that is before the beginning.
  void DropThrough(uint64_t index);
  friend bool operator==(const LogContent&, const LogContent&) = default;
};
std::ostream& operator<<(std::ostream& out, const LogContent& content);

// Everything that `log` and `recovered` say; fails the test where they contradict each other.
LogContent ReadAll(Log* log, const RecoveredLog& recovered);

// Opens the log on `disk` and reads all of it.
absl::StatusOr<LogContent> OpenAndReadAll(Disk* disk, const LogOptions& options,
                                          raft::Index applied = raft::Index());
absl::StatusOr<LogContent> OpenAndReadAll(Disk* disk, const LogOptions& options,
                                          const Log::StateOpener& open_state);

// A writer with its model.
class LogWriter {
 public:
  explicit LogWriter(Disk* disk, LogOptions options = SmallLogOptions());

  // Each returns false once the disk has failed; then nothing more happens.
  bool Create();
  // Opens what an earlier life left and goes on; the model begins with what was found. `open_state`
  // is that life's.
  bool Open(const Log::StateOpener& open_state);
  // Opens again and goes on; fails the test unless what was found is possible.
  bool Reopen();
  bool Entries(int count, size_t payload_bytes);  // at the end, of the current term
  bool Membership(uint64_t salt);
  bool Vote(uint64_t term, uint64_t for_store);
  bool Cut(uint64_t from);
  bool CutPrefix(uint64_t through, uint64_t keep_bytes = 0);
  bool Install(uint64_t generation, uint64_t index, uint64_t term, uint64_t salt);
  // A new leader's hand-over: cut, hard state and entries in one Persist.
  bool Overrule(uint64_t from, uint64_t term, int count, size_t payload_bytes);
  bool Sync();
  bool Mark();

  Log* log() { return log_.get(); }
  absl::Status status() const { return status_; }
  const LogContent& content() const { return states_.back(); }
  // Fails the test unless `found` is one of the states that a crash now may leave.
  void ExpectPossible(const LogContent& found) const;
  bool created() const { return created_; }
  // The state of each generation holds what the log was cut through while it was the one.
  Log::StateOpener open_state() const;

 private:
  bool Apply(raft::Persist persist);
  bool Done(absl::Status status);

  Disk* const disk_;
  const LogOptions options_;
  std::unique_ptr<Log> log_;
  absl::Status status_;
  bool created_ = false;
  std::vector<LogContent> states_{1};  // after each logical record
  size_t synced_ = 0;                  // states_[synced_] is durable
  // The log may begin behind `prev_most_` at most, and must begin behind `prev_least_`.
  uint64_t prev_most_ = 0;
  uint64_t prev_least_ = 0;
  std::map<uint64_t, uint64_t> applied_;  // of each generation
  uint64_t term_ = 1;
};

}  // namespace quorate::storage
