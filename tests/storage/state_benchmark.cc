// What one put costs in CPU, for the chosen schema and for what was not chosen: the table in
// storage/STATE.md. Batches of 64 puts, values of 256 bytes, fixed pseudo-random keys among 10
// thousand to 1 million that are there already; user and system time of the process (getrusage),
// checkpoints above 16 MiB of write-ahead log included.
//
//   storage_benchmark --benchmark_filter=Put/
#include <benchmark/benchmark.h>
#include <sqlite3.h>
#include <sys/resource.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/membership.h"
#include "storage/sqlite.h"
#include "storage/state.h"
#include "tests/storage/temp_directory.h"

namespace quorate::storage {
namespace {

constexpr uint64_t kBatch = 64;
constexpr uint64_t kPuts = 64 * 1000;

// A permutation of the numbers below 2^64 (SplitMix64): the same keys in every run.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

std::string Key(uint64_t number) {
  char text[40];
  std::snprintf(text, sizeof(text), "services/%016lx/limits",
                static_cast<unsigned long>(Mix(number)));
  return text;
}

std::string Value(uint64_t number) {
  std::string value(256, '\0');
  for (size_t i = 0; i < value.size(); i += 8) {
    uint64_t word = Mix(number + i);
    value.replace(i, 8, reinterpret_cast<const char*>(&word), 8);
  }
  return value;
}

double CpuMicroseconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  auto of = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e6 + t.tv_usec; };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

void Must(const absl::Status& status) { CHECK(status.ok(), status.ToString()); }

// One way to store puts: Begin, Put ..., Commit.
class Schema {
 public:
  virtual ~Schema() = default;
  virtual void Put(const std::string& key, const std::string& value) = 0;
  virtual void Commit() = 0;
};

// Tables of plain SQL, set up as the state database is.
class SqlSchema : public Schema {
 protected:
  SqlSchema(const std::string& directory, int page_bytes, const std::string& tables) {
    auto database = Database::Open(directory + "/plain.db", Database::Mode::kCreate);
    Must(database.status());
    database_ = *std::move(database);
    sqlite3_db_config(database_.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    Must(database_.Execute("PRAGMA page_size = " + std::to_string(page_bytes) +
                           "; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA secure_delete = OFF;"
                           "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                           "PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -65536;"));
    Must(database_.Execute(tables));
    frame_bytes_ = static_cast<uint64_t>(page_bytes) + 24;
    sqlite3_wal_hook(
        database_.handle(),
        [](void* frames, sqlite3*, const char*, int pages) {
          *static_cast<uint64_t*>(frames) = static_cast<uint64_t>(pages);
          return SQLITE_OK;
        },
        &frames_);
    begin_ = Prepare("BEGIN IMMEDIATE");
    commit_ = Prepare("COMMIT");
    Must(begin_.Run());
  }
  Statement Prepare(const char* sql) {
    auto statement = database_.Prepare(sql);
    Must(statement.status());
    return *std::move(statement);
  }

  void Commit() override {
    Must(commit_.Run());
    if (frames_ * frame_bytes_ > (16u << 20)) {
      CHECK(sqlite3_wal_checkpoint_v2(database_.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE,
                                      nullptr, nullptr) == SQLITE_OK);
      frames_ = 0;
    }
    Must(begin_.Run());
  }

  Database database_;
  Statement begin_, commit_;
  uint64_t frames_ = 0, frame_bytes_ = 0;
  uint64_t revision_ = 1;
};

// The chosen schema's two tables, without sessions, hash and parsing.
class ValuesInHistory : public SqlSchema {
 public:
  ValuesInHistory(const std::string& directory, int page_bytes)
      : SqlSchema(directory, page_bytes,
                  "CREATE TABLE item (key BLOB PRIMARY KEY, row INTEGER, create_revision INTEGER,"
                  " version INTEGER) STRICT, WITHOUT ROWID;"
                  "CREATE TABLE history (row INTEGER PRIMARY KEY, previous INTEGER, kind INTEGER,"
                  " create_revision INTEGER, version INTEGER, ttl INTEGER, wall_time_ms INTEGER,"
                  " log_time_ms INTEGER, author TEXT, note TEXT, key BLOB, value BLOB) STRICT;"),
        find_(Prepare("SELECT row, create_revision, version FROM item WHERE key = ?1")),
        insert_(Prepare("INSERT INTO item VALUES (?1, ?2, ?3, ?4)")),
        update_(Prepare("UPDATE item SET row = ?2, create_revision = ?3, version = ?4"
                        " WHERE key = ?1")),
        history_(Prepare("INSERT INTO history VALUES (?1, ?2, 1, ?3, ?4, 0, ?5, ?6, '', '', ?7,"
                         " ?8)")) {}

  void Put(const std::string& key, const std::string& value) override {
    const uint64_t row = ++revision_ << 20;
    uint64_t previous = 0, create = revision_, version = 0;
    find_.BindBytes(1, key);
    if (*find_.Step()) {
      previous = find_.Uint(0);
      create = find_.Uint(1);
      version = find_.Uint(2);
    }
    find_.Reset();
    history_.BindUint(1, row);
    history_.BindUint(2, previous);
    history_.BindUint(3, create);
    history_.BindUint(4, version + 1);
    history_.BindInt(5, 1'700'000'000'000);
    history_.BindInt(6, static_cast<int64_t>(revision_));
    history_.BindBytes(7, key);
    history_.BindBytes(8, value);
    Must(history_.Run());
    Statement& item = previous != 0 ? update_ : insert_;
    item.BindBytes(1, key);
    item.BindUint(2, row);
    item.BindUint(3, create);
    item.BindUint(4, version + 1);
    Must(item.Run());
  }

 private:
  Statement find_, insert_, update_, history_;
};

// What comes to mind first: the value stored by key, and once more in history.
class ValueByKey : public SqlSchema {
 public:
  ValueByKey(const std::string& directory, int page_bytes)
      : SqlSchema(directory, page_bytes,
                  "CREATE TABLE item (key BLOB PRIMARY KEY, value BLOB, kind INTEGER,"
                  " create_revision INTEGER, mod_revision INTEGER, version INTEGER) STRICT,"
                  " WITHOUT ROWID;"
                  "CREATE TABLE history (revision INTEGER, sub INTEGER, key BLOB, value BLOB,"
                  " kind INTEGER, author TEXT, note TEXT, wall_time_ms INTEGER,"
                  " PRIMARY KEY (revision, sub)) STRICT, WITHOUT ROWID;"),
        find_(Prepare("SELECT create_revision, version FROM item WHERE key = ?1")),
        item_(Prepare("INSERT OR REPLACE INTO item VALUES (?1, ?2, 1, ?3, ?4, ?5)")),
        history_(Prepare("INSERT INTO history VALUES (?1, 0, ?2, ?3, 1, '', '', ?4)")) {}

  void Put(const std::string& key, const std::string& value) override {
    uint64_t create = ++revision_, version = 0;
    find_.BindBytes(1, key);
    if (*find_.Step()) {
      create = find_.Uint(0);
      version = find_.Uint(1);
    }
    find_.Reset();
    item_.BindBytes(1, key);
    item_.BindBytes(2, value);
    item_.BindUint(3, create);
    item_.BindUint(4, revision_);
    item_.BindUint(5, version + 1);
    Must(item_.Run());
    history_.BindUint(1, revision_);
    history_.BindBytes(2, key);
    history_.BindBytes(3, value);
    history_.BindInt(4, 1'700'000'000'000);
    Must(history_.Run());
  }

 private:
  Statement find_, item_, history_;
};

// The real thing: parsing, sessions with their answers, hash, all in State::Apply. The commands
// are made before the clock starts.
class WholeState : public Schema {
 public:
  WholeState(const std::string& directory, int) {
    StateOptions options;
    options.directory = directory;
    options.cluster = ClusterId(1);
    auto state = State::Create(options);
    Must(state.status());
    state_ = *std::move(state);
    raft::Membership membership;
    membership.cluster = options.cluster;
    raft::Member member;
    member.store = StoreId(1);
    member.name = "one";
    member.voter = true;
    membership.members.push_back(member);
    Add(raft::EntryType::kMembership, raft::EncodeMembership(membership));
    v1::Command command;
    command.set_format(1);
    command.mutable_open_session()->set_store(1);
    Add(raft::EntryType::kCommand, command.SerializeAsString());
    Commit();
  }

  void Put(const std::string& key, const std::string& value) override {
    v1::Command command;
    command.set_format(1);
    command.mutable_session()->set_store(1);
    command.mutable_session()->set_sequence(++sequence_);
    // Answers take some batches to arrive.
    if (sequence_ > 512) command.mutable_session()->set_answered_through(sequence_ - 512);
    v1::PutOperation* put = command.mutable_transaction()->add_then()->mutable_put();
    put->set_key(key);
    put->set_value(value);
    put->set_value_kind(v1::VALUE_KIND_DATA);
    Add(raft::EntryType::kCommand, command.SerializeAsString());
  }

  void Commit() override {
    auto applied = state_->Apply(batch_);
    Must(applied.status());
    batch_.clear();
  }

 private:
  void Add(raft::EntryType type, std::string payload) {
    auto entry = std::make_shared<raft::Entry>();
    entry->index = ++index_;
    entry->term = raft::Term(1);
    entry->type = type;
    entry->log_time_ms = index_.value();
    entry->wall_time_ms = 1'700'000'000'000;
    entry->payload = std::move(payload);
    batch_.push_back(entry);
  }

  std::unique_ptr<State> state_;
  std::vector<raft::EntryPtr> batch_;
  raft::Index index_;
  uint64_t sequence_ = 0;
};

template <typename S, int kPageBytes>
void Put(benchmark::State& run) {
  const auto keys = static_cast<uint64_t>(run.range(0));
  for (auto _ : run) {
    TempDirectory directory;
    S schema(directory.path(), kPageBytes);
    for (uint64_t i = 0; i < keys;) {
      for (uint64_t k = 0; k < kBatch && i < keys; ++k, ++i) schema.Put(Key(i), Value(i));
      static_cast<Schema&>(schema).Commit();
    }
    double spent = 0;
    uint64_t next = 1;
    for (uint64_t batch = 0; batch < kPuts / kBatch; ++batch) {
      std::vector<std::pair<std::string, std::string>> puts;
      for (uint64_t k = 0; k < kBatch; ++k, ++next)
        puts.emplace_back(Key(Mix(next) % keys), Value(next));
      // Making the commands is the ingress's work, not the state machine's.
      const bool collects = std::is_same_v<S, WholeState>;
      double before = CpuMicroseconds();
      for (const auto& [key, value] : puts) schema.Put(key, value);
      if (collects) before = CpuMicroseconds();
      static_cast<Schema&>(schema).Commit();
      spent += CpuMicroseconds() - before;
    }
    run.counters["cpu_us_per_put"] = spent / static_cast<double>(kPuts);
  }
}

#define SIZES Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Iterations(1)->Unit(benchmark::kSecond)
BENCHMARK(Put<ValuesInHistory, 2048>)->Name("Put/values_in_history/2KiB")->SIZES;
BENCHMARK(Put<ValuesInHistory, 4096>)->Name("Put/values_in_history/4KiB")->SIZES;
BENCHMARK(Put<ValuesInHistory, 8192>)->Name("Put/values_in_history/8KiB")->SIZES;
BENCHMARK(Put<ValuesInHistory, 16384>)->Name("Put/values_in_history/16KiB")->SIZES;
BENCHMARK(Put<ValueByKey, 4096>)->Name("Put/value_by_key_and_history/4KiB")->SIZES;
BENCHMARK(Put<WholeState, 0>)->Name("Put/whole_state")->SIZES;

}  // namespace
}  // namespace quorate::storage
