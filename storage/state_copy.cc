#include "storage/state_copy.h"

#include <sqlite3.h>

#include <memory>
#include <utility>

#include "storage/disk.h"
#include "storage/sqlite.h"
#include "storage/state_read.h"
#include "storage/state_schema.h"

namespace quorate::storage {
namespace {

// Between two looks at CopyControl: a millisecond or so.
constexpr int kPagesAtOnce = 256;

// Ends the backup with the block: before the connections that it uses.
class Backup {
 public:
  Backup(Database& from, Database& to)
      : to_(to), backup_(sqlite3_backup_init(to.handle(), "main", from.handle(), "main")) {}
  ~Backup() { sqlite3_backup_finish(backup_); }
  Backup(const Backup&) = delete;
  Backup& operator=(const Backup&) = delete;

  // True: all is copied.
  absl::StatusOr<bool> Step() {
    if (backup_ == nullptr) return SqliteError(to_.handle(), "begin a copy");
    const int result = sqlite3_backup_step(backup_, kPagesAtOnce);
    if (result == SQLITE_DONE) return true;
    if (result == SQLITE_OK) return false;
    // The error is the target's only once the backup is finished.
    sqlite3_backup_finish(std::exchange(backup_, nullptr));
    return SqliteError(to_.handle(), "copy the state database");
  }

 private:
  Database& to_;
  sqlite3_backup* backup_;
};

StateCopy Describe(const std::string& path, const StateMeta& meta) {
  StateCopy copy;
  copy.path = path;
  copy.cluster = meta.cluster;
  copy.index = meta.applied;
  copy.term = meta.applied_term;
  copy.log_time_ms = meta.log_time_ms;
  copy.membership_index = meta.membership_index;
  copy.membership = meta.membership;
  copy.revision = meta.revision;
  copy.birth_complete = meta.birth_complete;
  copy.hash = meta.hash.bytes();
  return copy;
}

absl::StatusOr<StateCopy> CopyPages(Database& from, Database& to, const std::string& target,
                                    const CopyControl& control) {
  // The read transaction begins with the first row that is read; all steps are within it.
  if (absl::Status s = from.Execute("BEGIN"); !s.ok()) return s;
  absl::StatusOr<StateMeta> meta = LoadStateMeta(from);
  if (!meta.ok()) return meta.status();
  // Nobody needs a half-made copy: no journal, and one sync when it is whole.
  absl::Status status = to.Execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;");
  if (!status.ok()) return status;
  Backup backup(from, to);
  while (true) {
    if (control.cancel.load()) return absl::CancelledError("the copy was cancelled");
    if (control.abandon.load()) {
      return absl::AbortedError(
          "the copy of the state was given up: while it was read the write-ahead log has grown"
          " beyond 1 GiB and the database's own size; it is made again later");
    }
    absl::StatusOr<bool> done = backup.Step();
    if (!done.ok()) return done.status();
    if (*done) return Describe(target, *meta);
  }
}

absl::StatusOr<StateCopy> CopyAndSync(const std::string& source, const std::string& target,
                                      const CopyControl& control, Disk* disk) {
  absl::StatusOr<StateCopy> copy;
  {
    absl::StatusOr<Database> from = OpenStateReader(source);
    if (!from.ok()) return from.status();
    absl::StatusOr<Database> to = Database::Open(target, Database::Mode::kCreate);
    if (!to.ok()) return to.status();
    copy = CopyPages(*from, *to, target, control);
    if (!copy.ok()) return copy;
  }
  // Closed by SQLite: a plain file now.
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Open(target, Disk::Mode::kReadWrite);
  if (!file.ok()) return file.status();
  if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
  absl::StatusOr<uint64_t> bytes = (*file)->Size();
  if (!bytes.ok()) return bytes.status();
  copy->bytes = *bytes;
  return copy;
}

// SQLite's own checks pass over one number of the file's header (file format, 1.3.3): a write
// version that it does not know makes a database that can be read, and never written.
absl::Status CheckWritable(const std::string& path, Disk* disk) {
  constexpr uint64_t kWriteVersionAt = 18, kReadVersionAt = 19;
  absl::StatusOr<std::unique_ptr<DiskFile>> file = disk->Open(path, Disk::Mode::kRead);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::string> versions = (*file)->Read(kWriteVersionAt, 2);
  if (!versions.ok()) return versions.status();
  static_assert(kReadVersionAt == kWriteVersionAt + 1);
  if (versions->size() == 2 && (*versions)[0] == (*versions)[1]) return absl::OkStatus();
  return absl::DataLossError(path + ": its header asks for another version to write than to read");
}

// All of it, indexes against their tables, too: the hash is of rows only, and quick_check leaves a
// damaged index for a later write to find.
absl::Status CheckStructure(const std::string& path, const std::atomic<bool>& cancel) {
  absl::StatusOr<Database> database = OpenStateReader(path, Database::Mode::kImmutable);
  if (!database.ok()) return database.status();
  absl::StatusOr<int64_t> format = CheckStateFormat(*database, path);
  if (!format.ok()) return format.status();
  // Every so many steps of SQLite's machine: whether to go on.
  sqlite3_progress_handler(
      database->handle(), 10'000,
      [](void* asked) { return static_cast<const std::atomic<bool>*>(asked)->load() ? 1 : 0; },
      const_cast<std::atomic<bool>*>(&cancel));
  absl::StatusOr<Statement> check = database->Prepare("PRAGMA integrity_check(1)");
  if (!check.ok()) return check.status();
  absl::StatusOr<bool> row = check->Step();
  if (cancel.load()) return absl::CancelledError("the check of a copy was cancelled");
  if (!row.ok()) return row.status();
  if (!*row || check->Bytes(0) != "ok") {
    return absl::DataLossError(path + ": integrity_check says: " + std::string(check->Bytes(0)));
  }
  return absl::OkStatus();
}

std::string Hex(const StateHash& hash) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : hash) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}

absl::Status CheckAnnounced(const std::string& path, const StateMeta& meta,
                            const ExpectedState& expected) {
  if (meta.cluster != expected.cluster) {
    return absl::FailedPreconditionError(path + " is of cluster " + ToHex(meta.cluster) +
                                         ", and this node of cluster " + ToHex(expected.cluster));
  }
  std::string wrong;
  if (meta.applied != expected.index || meta.applied_term != expected.term) {
    wrong = "it is the state at entry " + ToString(meta.applied) + " (term " +
            ToString(meta.applied_term) + "), announced was entry " + ToString(expected.index) +
            " (term " + ToString(expected.term) + ")";
  } else if (meta.hash.bytes() != expected.hash) {
    wrong = "it says that its hash is " + Hex(meta.hash.bytes()) + ", announced was " +
            Hex(expected.hash);
  } else if (!meta.membership_index) {
    wrong = "it holds no membership";
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::DataLossError(path + " is not the state that was announced: " + wrong);
}

// A database of an older format gets what this build's adds, in place.
absl::Status BringToThisFormat(const std::string& path, Disk* disk) {
  {
    absl::StatusOr<Database> reader = OpenStateReader(path, Database::Mode::kImmutable);
    if (!reader.ok()) return reader.status();
    absl::StatusOr<int64_t> format = CheckStateFormat(*reader, path);
    if (!format.ok()) return format.status();
    if (*format == kStateFormat) return absl::OkStatus();
  }
  {
    absl::StatusOr<Database> writer = OpenStateWriterAt(path);
    if (!writer.ok()) return writer.status();
    // Everything into the one file again.
    absl::Status status =
        writer->Execute("PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(TRUNCATE);");
    if (!status.ok()) return status;
  }
  for (const char* suffix : {"-wal", "-shm"}) {
    absl::Status removed = disk->Remove(path + suffix);
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StateCopy> CopyStateFile(const std::string& source, const std::string& target,
                                        const CopyControl& control, Disk* disk) {
  if (absl::Status s = RemoveDatabaseFiles(disk, target); !s.ok()) return s;
  absl::StatusOr<StateCopy> copy = CopyAndSync(source, target, control, disk);
  if (!copy.ok())
    RemoveDatabaseFiles(disk, target).IgnoreError();  // the first error is the one to tell
  return copy;
}

absl::StatusOr<StateCopy> VerifyStateFile(const std::string& path, const ExpectedState& expected,
                                          const std::atomic<bool>& cancel, Disk* disk) {
  // Structure first: what follows reads with SQL.
  if (absl::Status s = CheckStructure(path, cancel); !s.ok()) return s;
  if (absl::Status s = CheckWritable(path, disk); !s.ok()) return s;
  if (absl::Status s = BringToThisFormat(path, disk); !s.ok()) return s;
  {
    absl::StatusOr<Database> database = OpenStateReader(path, Database::Mode::kImmutable);
    if (!database.ok()) return database.status();
    if (absl::Status s = CheckSchema(*database, path); !s.ok()) return s;
  }
  absl::StatusOr<std::unique_ptr<StateReader>> reader =
      StateReader::Open(path, Database::Mode::kImmutable);
  if (!reader.ok()) return reader.status();
  absl::StatusOr<StateMeta> meta = (*reader)->Meta();
  if (!meta.ok()) return meta.status();
  if (absl::Status s = CheckAnnounced(path, *meta, expected); !s.ok()) return s;
  absl::StatusOr<HashCheck> check = (*reader)->CheckHash(cancel);
  if (cancel.load()) return absl::CancelledError("the check of a copy was cancelled");
  if (!check.ok()) return check.status();
  if (check->recomputed != expected.hash) {
    return absl::DataLossError(path +
                               " is not the state that was announced: its rows have the hash " +
                               Hex(check->recomputed) + ", announced was " + Hex(expected.hash));
  }
  StateCopy copy = Describe(path, *meta);
  const absl::StatusOr<uint64_t> bytes = disk->SizeOf(path);
  if (!bytes.ok()) return bytes.status();
  copy.bytes = *bytes;
  return copy;
}

}  // namespace quorate::storage
