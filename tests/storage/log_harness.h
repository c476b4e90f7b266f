// Fixture verbs for the log, and a model of what it must say.
//
// The model keeps the log's content after each logical record (a cut, a hard state, an entry).
// After any crash the log must be exactly one of these, not older than what was synced: so what was
// acknowledged is there, what was cut stays cut, and nothing is mixed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
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
  std::vector<raft::Entry> entries;  // from index 1
  friend bool operator==(const LogContent&, const LogContent&) = default;
};
std::ostream& operator<<(std::ostream& out, const LogContent& content);

// Everything that `log` and `recovered` say; fails the test where they contradict each other.
LogContent ReadAll(Log* log, const RecoveredLog& recovered);

// Opens the log on `disk` and reads all of it.
absl::StatusOr<LogContent> OpenAndReadAll(Disk* disk, const LogOptions& options,
                                          raft::Index applied = raft::Index());

// A writer with its model.
class LogWriter {
 public:
  explicit LogWriter(Disk* disk, LogOptions options = SmallLogOptions());

  // Each returns false once the disk has failed; then nothing more happens.
  bool Create();
  // Opens what an earlier life left and goes on; the model begins with what was found.
  bool Open();
  // Opens again and goes on; fails the test unless what was found is possible.
  bool Reopen();
  bool Entries(int count, size_t payload_bytes);  // at the end, of the current term
  bool Membership(uint64_t salt);
  bool Vote(uint64_t term, uint64_t for_store);
  bool Cut(uint64_t from);
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
  uint64_t term_ = 1;
};

}  // namespace quorate::storage
