#include "storage/state_schema.h"

#include <sqlite3.h>

#include <map>
#include <string>
#include <utility>

#include "storage/directory.h"

namespace quorate::storage {
namespace {

// Larger pages than SQLite's 4 KiB cost more in every commit than they save (storage/STATE.md,
// "Costs").
constexpr char kBeforeTables[] =
    "PRAGMA auto_vacuum = INCREMENTAL;"
    "PRAGMA secure_delete = OFF;"
    "PRAGMA synchronous = FULL;";

// The words of a format are for ever, spaces too: see CheckSchema.
constexpr char kTables[] = R"sql(
CREATE TABLE store (
  one             INTEGER PRIMARY KEY CHECK (one = 1),
  cluster         INTEGER NOT NULL,
  applied         INTEGER NOT NULL,
  applied_term    INTEGER NOT NULL,
  revision        INTEGER NOT NULL,
  compacted       INTEGER NOT NULL,
  log_time_ms     INTEGER NOT NULL,
  birth_complete  INTEGER NOT NULL,
  hash            BLOB    NOT NULL
) STRICT;
CREATE TABLE membership (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  at     INTEGER NOT NULL,
  bytes  BLOB    NOT NULL
) STRICT;
CREATE TABLE item (
  key              BLOB PRIMARY KEY,
  row              INTEGER NOT NULL,
  create_revision  INTEGER NOT NULL,
  version          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
  row              INTEGER PRIMARY KEY,
  previous         INTEGER NOT NULL,
  kind             INTEGER NOT NULL,
  create_revision  INTEGER NOT NULL,
  version          INTEGER NOT NULL,
  ttl              INTEGER NOT NULL,
  wall_time_ms     INTEGER NOT NULL,
  log_time_ms      INTEGER NOT NULL,
  author           TEXT    NOT NULL,
  note             TEXT    NOT NULL,
  key              BLOB    NOT NULL,
  value            BLOB    NOT NULL
) STRICT;
CREATE TABLE session (
  store             INTEGER PRIMARY KEY,
  boot              INTEGER NOT NULL,
  nonce             INTEGER NOT NULL,
  opened_at         INTEGER NOT NULL,
  last_sequence     INTEGER NOT NULL,
  answered_through  INTEGER NOT NULL
) STRICT;
CREATE TABLE session_answers (
  store           INTEGER NOT NULL,
  first_sequence  INTEGER NOT NULL,
  answers         BLOB    NOT NULL,
  PRIMARY KEY (store, first_sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE recorded_hash (
  at    INTEGER PRIMARY KEY,
  hash  BLOB NOT NULL
) STRICT;
)sql";

// What format 2 adds. Empty tables add nothing to the state hash, so it does not matter when a node
// gets them.
constexpr char kTablesOfFormat2[] = R"sql(
CREATE TABLE request_ids (
  first     INTEGER PRIMARY KEY,
  requests  BLOB NOT NULL
) STRICT;
CREATE TABLE request_id_bounds (
  one              INTEGER PRIMARY KEY CHECK (one = 1),
  forgotten        INTEGER NOT NULL,
  expired_through  INTEGER NOT NULL
) STRICT;
CREATE TABLE ttl (
  ttl          INTEGER PRIMARY KEY,
  ttl_ms       INTEGER NOT NULL,
  deadline_ms  INTEGER NOT NULL,
  keys         INTEGER NOT NULL,
  author       TEXT    NOT NULL
) STRICT;
CREATE INDEX ttl_deadline ON ttl (deadline_ms, ttl);
CREATE TABLE ttl_key (
  ttl  INTEGER NOT NULL,
  key  BLOB    NOT NULL,
  PRIMARY KEY (ttl, key)
) STRICT, WITHOUT ROWID;
)sql";

// And format 3.
constexpr char kTablesOfFormat3[] = R"sql(
CREATE TABLE setting (
  name   TEXT PRIMARY KEY,
  value  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql";

Disk* DiskOf(const StateOptions& options) {
  return options.disk == nullptr ? PosixDisk() : options.disk;
}

bool Exists(Disk* disk, const std::string& path) {
  return !absl::IsNotFound(disk->SizeOf(path).status());
}

absl::Status FillNewDatabase(Database& database, const StateOptions& options) {
  absl::Status status = database.Execute("PRAGMA page_size = " + std::to_string(kStatePageBytes) +
                                         ";" + kBeforeTables);
  if (!status.ok()) return status;
  status = database.Execute("PRAGMA application_id = " + std::to_string(kStateApplicationId) +
                            "; PRAGMA user_version = " + std::to_string(kStateFormat) + ";");
  if (!status.ok()) return status;
  status = database.Execute("PRAGMA journal_mode = WAL; BEGIN;");
  if (!status.ok()) return status;
  status = database.Execute(std::string(kTables) + kTablesOfFormat2 + kTablesOfFormat3);
  if (!status.ok()) return status;
  StateMeta meta;
  meta.cluster = options.cluster;
  RowHasher hasher;
  StateHash hash = HashOfStore(hasher, meta).bytes();
  absl::StatusOr<Statement> insert =
      database.Prepare("INSERT INTO store VALUES (1, ?1, 0, 0, 1, 0, 0, 0, ?2)");
  if (!insert.ok()) return insert.status();
  insert->BindUint(1, meta.cluster.value());
  insert->BindBytes(2, {reinterpret_cast<const char*>(hash.data()), hash.size()});
  status = insert->Run();
  if (!status.ok()) return status;
  return database.Execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE);");
}

// The tables and indexes by name, with their words: SQLite keeps them as they were given to it.
using Schema = std::map<std::string, std::string>;
absl::StatusOr<Schema> SchemaOf(Database& database) {
  // Statistics of an operator's ANALYZE decide nothing that is written.
  absl::StatusOr<Statement> select = database.Prepare(
      "SELECT name, type, tbl_name, ifnull(sql, '') FROM sqlite_schema"
      " WHERE ifnull(sql, '') NOT IN ('CREATE TABLE sqlite_stat1(tbl,idx,stat)',"
      " 'CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)')");
  if (!select.ok()) return select.status();
  Schema schema;
  while (true) {
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) return schema;
    std::string& words = schema[std::string(select->Bytes(0))];
    for (int column = 1; column < 4; ++column) words.append(select->Bytes(column)).push_back('\0');
  }
}

// A database of an older format becomes one of this. Killed in between: it is still the older one.
absl::Status Upgrade(Database& database) {
  absl::StatusOr<int64_t> format = database.QueryInt("PRAGMA user_version");
  if (!format.ok()) return format.status();
  if (*format == kStateFormat) return absl::OkStatus();
  return database.Execute(std::string("BEGIN IMMEDIATE;") + (*format < 2 ? kTablesOfFormat2 : "") +
                          kTablesOfFormat3 +
                          "PRAGMA user_version = " + std::to_string(kStateFormat) + "; COMMIT;");
}

// An immutable copy of an older format has no such table.
absl::Status LoadSettings(Database& database, const std::string& path, Settings& settings) {
  absl::StatusOr<int64_t> format = database.QueryInt("PRAGMA user_version");
  if (!format.ok()) return format.status();
  if (*format < 3) return absl::OkStatus();
  absl::StatusOr<Statement> select = database.Prepare("SELECT name, value FROM setting");
  if (!select.ok()) return select.status();
  while (true) {
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    if (select->Bytes(0) != kLeasesSetting || select->Uint(1) > 1) {
      return DamagedState(path, "it has a setting that no entry can have written");
    }
    settings.leases = select->Uint(1) == 1;
  }
}

absl::Status ConfigureWriter(Database& database) {
  sqlite3_busy_timeout(database.handle(), 1000);  // for an operator's sqlite3 shell, not for us
  sqlite3_db_config(database.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_db_config(database.handle(), SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(database.handle(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  absl::StatusOr<Statement> mode = database.Prepare("PRAGMA journal_mode");
  if (!mode.ok()) return mode.status();
  absl::StatusOr<bool> row = mode->Step();
  if (!row.ok()) return row.status();
  if (!*row || mode->Bytes(0) != "wal") {
    return absl::DataLossError("the database is not in WAL mode");
  }
  mode->Reset();
  return database.Execute(
      "PRAGMA synchronous = NORMAL;"
      "PRAGMA secure_delete = OFF;"
      "PRAGMA wal_autocheckpoint = 0;"
      "PRAGMA temp_store = MEMORY;"
      "PRAGMA cache_size = -65536;");
}

}  // namespace

HashSum HashOfStore(RowHasher& hasher, const StateMeta& meta) {
  return hasher.Begin(HashedTable::kStore)
      .Number(meta.cluster.value())
      .Number(meta.revision.value())
      .Number(meta.compacted.value())
      .Number(meta.log_time_ms)
      .Number(meta.birth_complete ? 1 : 0)
      .Finish();
}

HashSum HashOfMembership(RowHasher& hasher, const StateMeta& meta) {
  if (!meta.membership_index) return HashSum();
  return hasher.Begin(HashedTable::kMembership)
      .Number(meta.membership_index.value())
      .Bytes(meta.membership_bytes)
      .Finish();
}

HashSum HashOfSettings(RowHasher& hasher, const StateMeta& meta) {
  if (!meta.settings.leases) return HashSum();
  return hasher.Begin(HashedTable::kSetting)
      .Bytes(kLeasesSetting)
      .Number(*meta.settings.leases ? 1 : 0)
      .Finish();
}

HashSum HashOfItem(RowHasher& hasher, std::string_view key, const ItemRow& item) {
  return hasher.Begin(HashedTable::kItem)
      .Bytes(key)
      .Number(item.row.value())
      .Number(item.create_revision.value())
      .Number(item.version)
      .Finish();
}

HashSum HashOfHistory(RowHasher& hasher, const HistoryRow& row) {
  return hasher.Begin(HashedTable::kHistory)
      .Number(row.row.value())
      .Number(row.previous.value())
      .Number(static_cast<uint64_t>(row.kind))
      .Number(row.create_revision.value())
      .Number(row.version)
      .Number(row.ttl)
      .Number(static_cast<uint64_t>(row.wall_time_ms))
      .Number(row.log_time_ms)
      .Bytes(row.author)
      .Bytes(row.note)
      .Bytes(row.key)
      .Bytes(row.value)
      .Finish();
}

std::optional<std::string> PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<uint8_t>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::nullopt;
  end.back() = static_cast<char>(static_cast<uint8_t>(end.back()) + 1);
  return end;
}

std::string StatePath(const std::string& directory, uint64_t generation) {
  return StateDirectory(directory, generation) + "/state.db";
}

// A crash story: the database is made in `state-N.new/`, which nobody ever opens. (1) Killed
// before the rename: the next Create removes it and begins again. (2) Killed after it: the
// database is complete, because it was synced before; Create then says that it is there.
absl::Status CreateStateDatabase(const StateOptions& options) {
  const std::string final_directory = StateDirectory(options.directory, options.generation);
  const std::string directory = final_directory + ".new";
  Disk* const disk = DiskOf(options);
  if (const auto there = disk->SizeOf(final_directory); there.ok()) {
    return absl::AlreadyExistsError(final_directory + " is there already: open it instead");
  } else if (!absl::IsNotFound(there.status())) {
    return there.status();
  }
  const std::string path = directory + "/state.db";
  if (absl::Status s = RemoveDatabaseFiles(disk, path); !s.ok()) return s;
  if (absl::Status s = disk->MakeDirectory(directory); !s.ok()) {
    return absl::FailedPreconditionError(s.message());
  }
  {
    absl::StatusOr<Database> database = Database::Open(path, Database::Mode::kCreate);
    if (!database.ok()) return database.status();
    absl::Status status = FillNewDatabase(*database, options);
    if (!status.ok()) return ExplainStateError(path, status);
  }
  if (absl::Status s = disk->SyncDirectory(directory); !s.ok()) return s;
  if (absl::Status s = disk->Rename(directory, final_directory); !s.ok()) return s;
  return disk->SyncDirectory(options.directory);
}

absl::Status RemoveDatabaseFiles(Disk* disk, const std::string& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    absl::Status removed = disk->Remove(path + suffix);
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckStateFormat(Database& database, const std::string& path) {
  absl::StatusOr<int64_t> application = database.QueryInt("PRAGMA application_id");
  if (!application.ok()) return application.status();
  absl::StatusOr<int64_t> format = database.QueryInt("PRAGMA user_version");
  if (!format.ok()) return format.status();
  if (*application != kStateApplicationId) {
    return DamagedState(path, "it is not a state database of Quorate (application id " +
                                  std::to_string(*application) + ")");
  }
  if (*format > kStateFormat) {
    return absl::FailedPreconditionError(
        "the state database " + path + " has format " + std::to_string(*format) +
        ", and this build knows formats up to " + std::to_string(kStateFormat) +
        ": it was written by a newer version; start that version or newer");
  }
  if (*format < 1) return DamagedState(path, "its format number is " + std::to_string(*format));
  return *format;
}

absl::Status CheckSchema(Database& database, const std::string& path) {
  absl::StatusOr<Database> fresh = Database::Open(":memory:", Database::Mode::kCreate);
  if (!fresh.ok()) return fresh.status();
  absl::Status made = fresh->Execute(std::string(kTables) + kTablesOfFormat2 + kTablesOfFormat3);
  if (!made.ok()) return made;
  absl::StatusOr<Schema> wanted = SchemaOf(*fresh);
  if (!wanted.ok()) return wanted.status();
  absl::StatusOr<Schema> found = SchemaOf(database);
  if (!found.ok()) return found.status();
  for (const auto& [name, words] : *wanted) {
    if (const auto here = found->find(name); here == found->end() || here->second != words) {
      return absl::DataLossError(path + ": " + name + " is not as format " +
                                 std::to_string(kStateFormat) + " has it");
    }
  }
  for (const auto& [name, words] : *found) {
    if (wanted->contains(name)) continue;
    // No damage: somebody's own table or index.
    return absl::FailedPreconditionError(
        path + " has " + name + ", which Quorate does not make: drop it where it was made");
  }
  return absl::OkStatus();
}

absl::StatusOr<Database> OpenStateWriter(const StateOptions& options) {
  const std::string path = StatePath(options.directory, options.generation);
  Disk* const disk = DiskOf(options);
  if (!Exists(disk, path)) {
    const std::string directory = StateDirectory(options.directory, options.generation);
    if (!Exists(disk, directory)) return absl::NotFoundError("there is no " + directory);
    return DamagedState(path, "the file is missing");
  }
  return OpenStateWriterAt(path);
}

absl::StatusOr<Database> OpenStateWriterAt(const std::string& path) {
  absl::StatusOr<Database> database = Database::Open(path, Database::Mode::kReadWrite);
  if (!database.ok()) return ExplainStateError(path, database.status());
  absl::Status status = CheckStateFormat(*database, path).status();
  if (status.ok()) status = ConfigureWriter(*database);
  if (status.ok()) status = Upgrade(*database);
  if (!status.ok()) return ExplainStateError(path, status);
  return database;
}

absl::StatusOr<Database> OpenStateReader(const std::string& path, Database::Mode mode) {
  absl::StatusOr<Database> database = Database::Open(path, mode);
  if (!database.ok()) return database.status();
  sqlite3_busy_timeout(database->handle(), 1000);
  sqlite3_db_config(database->handle(), SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  absl::Status status = database->Execute(
      "PRAGMA temp_store = MEMORY;"
      "PRAGMA cache_size = -8192;");
  if (!status.ok()) return status;
  return database;
}

absl::StatusOr<StateMeta> LoadStateMeta(Database& database) {
  const std::string path = sqlite3_db_filename(database.handle(), "main");
  StateMeta meta;
  {
    absl::StatusOr<Statement> select = database.Prepare(
        "SELECT cluster, applied, applied_term, revision, compacted, log_time_ms, birth_complete,"
        " hash FROM store");
    if (!select.ok()) return select.status();
    absl::StatusOr<bool> row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) return DamagedState(path, "its table `store` is empty");
    meta.cluster = ClusterId(select->Uint(0));
    meta.applied = raft::Index(select->Uint(1));
    meta.applied_term = raft::Term(select->Uint(2));
    meta.revision = Revision(select->Uint(3));
    meta.compacted = Revision(select->Uint(4));
    meta.log_time_ms = select->Uint(5);
    meta.birth_complete = select->Int(6) != 0;
    StateHash hash;
    if (select->Bytes(7).size() != hash.size()) {
      return DamagedState(path, "its state hash does not have 16 bytes");
    }
    std::memcpy(hash.data(), select->Bytes(7).data(), hash.size());
    meta.hash = HashSum::Of(hash);
  }
  if (!meta.revision || meta.revision.value() > RowId::kRevisionMax) {
    return DamagedState(path, "its revision is " + ToString(meta.revision));
  }
  if (absl::Status status = LoadSettings(database, path, meta.settings); !status.ok()) {
    return status;
  }
  absl::StatusOr<Statement> select = database.Prepare("SELECT at, bytes FROM membership");
  if (!select.ok()) return select.status();
  absl::StatusOr<bool> row = select->Step();
  if (!row.ok()) return row.status();
  if (!*row) return meta;
  meta.membership_index = raft::Index(select->Uint(0));
  meta.membership_bytes = std::string(select->Bytes(1));
  std::optional<raft::Membership> membership = raft::DecodeMembership(meta.membership_bytes);
  if (raft::IsOfNewerVersion(meta.membership_bytes)) {
    return absl::FailedPreconditionError("the state database " + path +
                                         " names the members in a form that this build does not "
                                         "know: a newer version wrote it; start that version or "
                                         "newer");
  }
  if (!membership || membership->cluster != meta.cluster || !meta.membership_index ||
      meta.membership_index > meta.applied) {
    return DamagedState(path, "its membership cannot be what a log entry said");
  }
  meta.membership = *std::move(membership);
  return meta;
}

absl::Status DamagedState(const std::string& path, std::string_view reason) {
  return absl::DataLossError(
      "the state database " + path + " is damaged: " + std::string(reason) +
      ". While a majority of the other nodes is up, nothing is lost: stop this node, move its data"
      " directory away and start it again; it joins as a new store and gets everything from them");
}

absl::Status ExplainStateError(const std::string& path, const absl::Status& error) {
  const std::string message(error.message());
  switch (error.code()) {
    case absl::StatusCode::kDataLoss:
      // Said with its remedy already?
      if (message.find(" is damaged: ") != std::string::npos) return error;
      return DamagedState(path, message);
    case absl::StatusCode::kResourceExhausted:
      return absl::ResourceExhaustedError(message + ": make room on the file system of " + path);
    case absl::StatusCode::kUnavailable:
      return absl::UnavailableError(message + ": another process has " + path +
                                    " open; end it (a state database belongs to one node)");
    default:
      return error;
  }
}

}  // namespace quorate::storage
