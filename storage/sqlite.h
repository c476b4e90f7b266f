// SQLite with owners: a connection and its prepared statements, errors as absl::Status.
//
// Every connection is opened without SQLite's own mutex: one thread at a time uses a Database and
// the statements made from it (who shares one, as the reader pool does, hands it over under a lock
// of his own). A Statement must not outlive its Database.
//
// Error codes: kDataLoss for a file that is damaged, no database, or does not have the tables
// and rows that the SQL relies on, kResourceExhausted for a full
// disk, kUnavailable for one that another process holds, kFailedPrecondition for one that may not
// be opened or written, kInternal for everything else (I/O errors too). Messages name the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace quorate::storage {

class Statement {
 public:
  Statement() = default;
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  // Parameters are numbered from 1. Bytes and text are not copied: they must stay alive until the
  // statement is reset. An empty string is bound as such, not as NULL.
  void BindInt(int parameter, int64_t value);
  // The bits of an unsigned number; SQLite's integers are signed, so order is lost from 2^63 on.
  void BindUint(int parameter, uint64_t value) { BindInt(parameter, static_cast<int64_t>(value)); }
  void BindBytes(int parameter, std::string_view value);
  void BindText(int parameter, std::string_view value);

  // True: a row is there, and its columns may be read until the next Step or Reset. False: done,
  // and reset. An error resets too.
  absl::StatusOr<bool> Step();
  // For statements that return no rows.
  absl::Status Run();
  void Reset();

  // Columns of the current row, numbered from 0.
  int64_t Int(int column) const;
  uint64_t Uint(int column) const { return static_cast<uint64_t>(Int(column)); }
  std::string_view Bytes(int column) const;  // text too; NULL is empty

 private:
  friend class Database;
  Statement(sqlite3* connection, sqlite3_stmt* statement)
      : connection_(connection), statement_(statement) {}

  sqlite3* connection_ = nullptr;
  sqlite3_stmt* statement_ = nullptr;
  int bind_error_ = 0;  // the first failed bind (out of memory, too big), told by Step
};

// Resets a statement at the end of a block, so that it holds no read lock afterwards.
class ResetAtExit {
 public:
  explicit ResetAtExit(Statement& statement) : statement_(statement) {}
  ~ResetAtExit() { statement_.Reset(); }
  ResetAtExit(const ResetAtExit&) = delete;
  ResetAtExit& operator=(const ResetAtExit&) = delete;

 private:
  Statement& statement_;
};

class Database {
 public:
  // kImmutable: to read a file that nobody changes while it is open (a copy, not a live database);
  // nothing is locked, and nothing is made beside it. A write-ahead log beside it is not looked at.
  enum class Mode { kCreate, kReadWrite, kReadOnly, kImmutable };

  Database() = default;
  Database(Database&& other) noexcept;
  Database& operator=(Database&& other) noexcept;
  ~Database();

  // kCreate makes the file, and refuses one that is not empty only by what it later holds: look
  // first. SQLite reads the file with the first statement, not here.
  static absl::StatusOr<Database> Open(const std::string& path, Mode mode);

  // One or more statements without parameters, their rows ignored.
  absl::Status Execute(const std::string& sql);
  // Prepared to be kept and used again.
  absl::StatusOr<Statement> Prepare(std::string_view sql);
  // The first column of the first row of `sql`.
  absl::StatusOr<int64_t> QueryInt(std::string_view sql);

  sqlite3* handle() const { return connection_; }
  bool is_open() const { return connection_ != nullptr; }

 private:
  sqlite3* connection_ = nullptr;
};

// The status for the last error of a connection; `what` says what was being done.
absl::Status SqliteError(sqlite3* connection, std::string_view what);

}  // namespace quorate::storage
