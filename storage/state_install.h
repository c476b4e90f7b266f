// A received state becomes this store's: what lies in the data directory between the first byte and
// the record in the log that makes it the one (DESIGN.md, "The database is the snapshot";
// storage/LOG_FORMAT.md, "Types").
//
//   1. IncomingState: the bytes are written to state-<generation>.new/state.db. Nobody opens that.
//   2. Finish: all of it is checked; the file is synced, then its directory, then renamed to
//      state-<generation>/, then the data directory is synced.
//   3. The log's record (Log::Append with `install`, then Sync): the commit point.
//   4. State::Install: this process goes over to it. The node answers.
//   5. RemoveOtherGenerations.
//
// Killed before 3 is durable: the log names the older generation, and the next start removes what 1
// and 2 have left. Killed after it: the log names the new one, which is whole since 2, and the next
// start removes the older. At no time are there less than one whole generation and a log that names
// it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/disk.h"
#include "storage/state.h"

namespace quorate::storage {

// One state that is being received. One thread at a time; one at a time in a data directory.
class IncomingState {
 public:
  // Makes room for `bytes` of the generation after `in_use`; what an earlier attempt has left goes.
  // kResourceExhausted when the disk has not got the room.
  static absl::StatusOr<std::unique_ptr<IncomingState>> Begin(Disk* disk,
                                                              const std::string& data_directory,
                                                              uint64_t in_use, uint64_t bytes);
  // Removes what it has made, unless Finish was OK.
  ~IncomingState();
  IncomingState(const IncomingState&) = delete;
  IncomingState& operator=(const IncomingState&) = delete;

  uint64_t generation() const { return generation_; }
  uint64_t written() const { return written_; }

  // The next bytes. kInvalidArgument when `offset` is not written(), or beyond the end announced.
  absl::Status Write(uint64_t offset, std::string_view bytes);

  // Checks all of it and puts it in its place, durably. Takes as long as reading it twice. Errors:
  // kDataLoss (incomplete, damaged, or not what was announced: get it again), kFailedPrecondition
  // (of another cluster, or of a newer format), kCancelled. Then it is of no more use.
  absl::StatusOr<StateCopy> Finish(const ExpectedState& expected, const std::atomic<bool>& cancel);

 private:
  IncomingState(Disk* disk, std::string data_directory, uint64_t generation, uint64_t bytes)
      : disk_(disk),
        data_directory_(std::move(data_directory)),
        generation_(generation),
        bytes_(bytes) {}
  std::string directory() const;  // until it is in its place

  Disk* const disk_;
  const std::string data_directory_;
  const uint64_t generation_;
  const uint64_t bytes_;
  uint64_t written_ = 0;
  std::unique_ptr<DiskFile> file_;
  bool placed_ = false;
};

// Opens the state that a log names; 0, no record, is generation 1. One that is missing is
// kDataLoss, with what to do. `options.generation` is ignored.
absl::StatusOr<std::unique_ptr<State>> OpenNamedState(StateOptions options, uint64_t named);

// Removes every state-* but state-<keep>. REQUIRES: the log names `keep` durably, nobody has
// another one open, and none is being received.
absl::Status RemoveOtherGenerations(Disk* disk, const std::string& data_directory, uint64_t keep);

}  // namespace quorate::storage
