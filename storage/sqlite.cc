#include "storage/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "base/check.h"

namespace quorate::storage {
namespace {

absl::StatusCode CodeOf(int result) {
  switch (result & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:       // our SQL is fixed: then the tables are not those that we made
    case SQLITE_CONSTRAINT:  // and then the rows contradict each other
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kUnavailable;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return absl::StatusCode::kFailedPrecondition;
    case SQLITE_INTERRUPT:
      return absl::StatusCode::kAborted;
    default:
      return absl::StatusCode::kInternal;
  }
}

// Data that a statement must not copy; SQLite takes a null pointer for NULL, so never give one.
const char* NotNull(std::string_view value) { return value.empty() ? "" : value.data(); }

// A path as a URI: what a URI would take for something else is escaped.
std::string ImmutableUri(std::string_view path) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string uri = "file:";
  for (char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      const auto byte = static_cast<uint8_t>(c);
      uri += {'%', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      uri += c;
    }
  }
  return uri + "?immutable=1";
}

}  // namespace

absl::Status SqliteError(sqlite3* connection, std::string_view what) {
  const char* name = sqlite3_db_filename(connection, "main");
  std::string message(what);
  message += ": ";
  message += sqlite3_errmsg(connection);
  message += " (SQLite error " + std::to_string(sqlite3_extended_errcode(connection)) + ")";
  if (name != nullptr && *name != '\0') message += std::string(" in ") + name;
  return absl::Status(CodeOf(sqlite3_errcode(connection)), message);
}

Statement::Statement(Statement&& other) noexcept { *this = std::move(other); }

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(connection_, other.connection_);
  std::swap(statement_, other.statement_);
  std::swap(bind_error_, other.bind_error_);
  return *this;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

void Statement::BindInt(int parameter, int64_t value) {
  int result = sqlite3_bind_int64(statement_, parameter, value);
  CHECK(result != SQLITE_RANGE && result != SQLITE_MISUSE, "a bind that the SQL does not have");
  if (result != SQLITE_OK && bind_error_ == SQLITE_OK) bind_error_ = result;
}

void Statement::BindBytes(int parameter, std::string_view value) {
  int result = sqlite3_bind_blob64(statement_, parameter, NotNull(value), value.size(), nullptr);
  CHECK(result != SQLITE_RANGE && result != SQLITE_MISUSE, "a bind that the SQL does not have");
  if (result != SQLITE_OK && bind_error_ == SQLITE_OK) bind_error_ = result;
}

void Statement::BindText(int parameter, std::string_view value) {
  int result = sqlite3_bind_text64(statement_, parameter, NotNull(value), value.size(), nullptr,
                                   SQLITE_UTF8);
  CHECK(result != SQLITE_RANGE && result != SQLITE_MISUSE, "a bind that the SQL does not have");
  if (result != SQLITE_OK && bind_error_ == SQLITE_OK) bind_error_ = result;
}

absl::StatusOr<bool> Statement::Step() {
  if (bind_error_ != SQLITE_OK) {
    Reset();
    return absl::InternalError("SQLite did not take a parameter: out of memory or too big");
  }
  int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) {
    Reset();
    return false;
  }
  CHECK(result != SQLITE_MISUSE, "a statement was used by two at once");
  absl::Status error = SqliteError(connection_, sqlite3_sql(statement_));
  Reset();
  return error;
}

absl::Status Statement::Run() {
  absl::StatusOr<bool> row = Step();
  if (!row.ok()) return row.status();
  CHECK(!*row, "a statement that returns rows was run as one that does not");
  return absl::OkStatus();
}

void Statement::Reset() {
  sqlite3_reset(statement_);
  bind_error_ = SQLITE_OK;
}

int64_t Statement::Int(int column) const { return sqlite3_column_int64(statement_, column); }

std::string_view Statement::Bytes(int column) const {
  // In this order: sqlite3_column_blob may convert, and then the size is that of the result.
  const void* data = sqlite3_column_blob(statement_, column);
  int size = sqlite3_column_bytes(statement_, column);
  if (data == nullptr || size <= 0) return {};
  return {static_cast<const char*>(data), static_cast<size_t>(size)};
}

Database::Database(Database&& other) noexcept { *this = std::move(other); }

Database& Database::operator=(Database&& other) noexcept {
  std::swap(connection_, other.connection_);
  return *this;
}

Database::~Database() {
  // Not close_v2: a statement that outlives its connection is a bug, not a zombie.
  int result = sqlite3_close(connection_);
  CHECK(result == SQLITE_OK, "a statement or a backup outlives its database connection");
}

absl::StatusOr<Database> Database::Open(const std::string& path, Mode mode) {
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  switch (mode) {
    case Mode::kCreate:
      flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
      break;
    case Mode::kReadWrite:
      flags |= SQLITE_OPEN_READWRITE;
      break;
    case Mode::kReadOnly:
      flags |= SQLITE_OPEN_READONLY;
      break;
    case Mode::kImmutable:
      flags |= SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
      break;
  }
  const std::string name = mode == Mode::kImmutable ? ImmutableUri(path) : path;
  Database database;
  int result = sqlite3_open_v2(name.c_str(), &database.connection_, flags, nullptr);
  if (database.connection_ == nullptr) {
    return absl::InternalError("cannot open " + path + ": out of memory");
  }
  if (result != SQLITE_OK) {
    return absl::Status(CodeOf(result),
                        "cannot open " + path + ": " + sqlite3_errmsg(database.connection_));
  }
  return database;
}

absl::Status Database::Execute(const std::string& sql) {
  int result = sqlite3_exec(connection_, sql.c_str(), nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) return SqliteError(connection_, sql.substr(0, 60));
  return absl::OkStatus();
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  int result = sqlite3_prepare_v3(connection_, sql.data(), static_cast<int>(sql.size()),
                                  SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (result != SQLITE_OK) return SqliteError(connection_, sql.substr(0, 60));
  return Statement(connection_, statement);
}

absl::StatusOr<int64_t> Database::QueryInt(std::string_view sql) {
  absl::StatusOr<Statement> statement = Prepare(sql);
  if (!statement.ok()) return statement.status();
  absl::StatusOr<bool> row = statement->Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError("no row: " + std::string(sql));
  return statement->Int(0);
}

}  // namespace quorate::storage
