// A consistent copy of a state database in one plain file, made beside the writer, and the proof
// that such a file is what it says (DESIGN.md, "The database is the snapshot").
//
// Copying the database's file is unsound: a commit that slips in leaves a mixture. SQLite's backup
// copies pages within one read transaction, so what it copies is one committed state.
//
// Any thread. Internal to storage/state*; users have State::Copy and storage/state_install.h.
#pragma once

#include <atomic>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/state.h"

namespace quorate::storage {

// Why a copy is given up before its end.
struct CopyControl {
  const std::atomic<bool>& cancel;   // the caller's wish: kCancelled
  const std::atomic<bool>& abandon;  // a checkpoint can wait no longer: kAborted
};

// Copies the live database `source` to `target`, whose directory is there; what stood there goes.
// Synced on return. Says what state it is, as the database says; checks nothing. After an error no
// file is left.
absl::StatusOr<StateCopy> CopyStateFile(const std::string& source, const std::string& target,
                                        const CopyControl& control, Disk* disk = PosixDisk());

// Reads all of a file that nobody changes, and checks it: SQLite's structure, format, cluster,
// index, term, the hash that it keeps, and the hash of its rows. kDataLoss: it is not that state;
// kFailedPrecondition: of another cluster or a newer format; kCancelled.
absl::StatusOr<StateCopy> VerifyStateFile(const std::string& path, const ExpectedState& expected,
                                          const std::atomic<bool>& cancel,
                                          Disk* disk = PosixDisk());

}  // namespace quorate::storage
