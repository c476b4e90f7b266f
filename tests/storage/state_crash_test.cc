// Killed at any instant, the database holds a prefix of the log, exactly.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

constexpr uint64_t kFirstCommand = 4;  // after the entries of Script::Begin
constexpr uint64_t kKeys = 97;

// The log that the children apply: entry `i` puts its own number under key i % 97 and, in the same
// transaction, into a witness.
std::vector<raft::EntryPtr> Batch(Script& script, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string number = std::to_string(script.index().value() + 1);
    v1::Command command;
    AddPut(command, "k" + std::to_string((script.index().value() + 1) % kKeys),
           number + std::string(200, '.'));
    AddPut(command, "witness", number);
    script.Do(command);
  }
  return script.Take();
}

class StateCrash : public StateFixture {
 protected:
  // Runs `child` in a process of its own; its exit code, or minus the signal that ended it.
  template <typename Child, typename Parent>
  int Fork(Child child, Parent parent) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
      close(ends[0]);
      _exit(child(ends[1]));
    }
    close(ends[1]);
    parent(pid, ends[0]);
    close(ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  // Applies until it is killed, telling the applied index after each batch.
  int ApplyForEver(int told, uint64_t batch) {
    absl::StatusOr<std::unique_ptr<State>> node = State::Open(options);
    if (!node.ok()) return 1;
    Script log;
    log.Begin();
    while (log.index() < (*node)->Summary().applied) Batch(log, 1);
    log.Take();
    while (true) {
      absl::StatusOr<std::vector<Applied>> outcomes = (*node)->Apply(Batch(log, batch));
      if (!outcomes.ok()) return 2;
      for (const Applied& outcome : *outcomes) {
        if (outcome.refused || outcome.duplicate) return 3;
      }
      const uint64_t applied = log.index().value();
      if (write(told, &applied, sizeof(applied)) != sizeof(applied)) return 4;
    }
  }

  // The database is the log up to its applied index, and nothing else.
  void ExpectPrefix() {
    const uint64_t applied = state->Summary().applied.value();
    ASSERT_GE(applied, kFirstCommand - 1);
    const uint64_t commands = applied - (kFirstCommand - 1);
    EXPECT_EQ(state->Summary().revision.value(), 1 + commands);
    std::optional<SessionView> session = state->FindSession(StoreId(kIngress));
    ASSERT_TRUE(session.has_value());
    EXPECT_EQ(session->last_sequence, commands);
    if (commands == 0) return;
    absl::StatusOr<Item> witness = state->Get("witness", std::nullopt).first;
    ASSERT_TRUE(witness.ok()) << witness.status();
    EXPECT_EQ(witness->value, std::to_string(applied));
    EXPECT_EQ(witness->version, commands);
    for (uint64_t key = 0; key < kKeys; ++key) {
      // The last entry at or below `applied` that wrote this key.
      uint64_t last = applied - (applied + kKeys - key) % kKeys;
      absl::StatusOr<Item> item = state->Get("k" + std::to_string(key), std::nullopt).first;
      if (last < kFirstCommand || last > applied) {
        EXPECT_EQ(item.status().code(), absl::StatusCode::kNotFound) << key;
        continue;
      }
      ASSERT_TRUE(item.ok()) << item.status() << " " << key;
      EXPECT_EQ(item->value.substr(0, item->value.find('.')), std::to_string(last));
      EXPECT_EQ(item->version, (last - kFirstCommand) / kKeys + 1);
    }
    ExpectHashAddsUp();
  }
};

TEST_F(StateCrash, AKilledProcessLeavesAPrefix) {
  options.wal_bytes_max = 512u << 10;  // so that kills also hit checkpoints
  Begin();
  state.reset();
  std::mt19937_64 random(4711);
  uint64_t told = 0;
  for (int round = 0; round < 8; ++round) {
    const uint64_t batch = 1 + random() % 80;
    const uint64_t reports = 1 + random() % 60;
    int end = Fork([&](int out) { return ApplyForEver(out, batch); },
                   [&](pid_t pid, int in) {
                     for (uint64_t i = 0; i < reports; ++i) {
                       ASSERT_EQ(read(in, &told, sizeof(told)), ssize_t{sizeof(told)});
                     }
                     // Somewhere within the batch that follows.
                     usleep(static_cast<useconds_t>(random() % 2000));
                     kill(pid, SIGKILL);
                     uint64_t later;
                     while (read(in, &later, sizeof(later)) == ssize_t{sizeof(later)}) told = later;
                   });
    ASSERT_EQ(end, -SIGKILL);
    Reopen();
    // What was told is there (the page cache has outlived the process); one batch more may be.
    EXPECT_GE(state->Summary().applied.value(), told);
    EXPECT_LE(state->Summary().applied.value(), told + batch);
    EXPECT_EQ(state->durable_applied(), raft::Index(0));
    ASSERT_NO_FATAL_FAILURE(ExpectPrefix());
    state.reset();
  }
  EXPECT_GT(told, 200u);
}

TEST_F(StateCrash, LosingTheUnsyncedWriteAheadLogLeavesWhatWasDurable) {
  // A power failure at its worst: nothing of the write-ahead log since the last checkpoint.
  Begin();
  Script log;
  log.Begin();
  log.Take();
  ASSERT_TRUE(state->Apply(Batch(log, 500)).ok());
  ASSERT_EQ(*state->Checkpoint(), true);
  const raft::Index durable = state->durable_applied();
  ASSERT_TRUE(state->Apply(Batch(log, 500)).ok());
  EXPECT_EQ(state->durable_applied(), durable);
  state.reset();
  std::filesystem::resize_file(StatePath(directory.path(), 1) + "-wal", 0);
  Reopen();
  EXPECT_EQ(state->Summary().applied, durable);
  ExpectPrefix();
}

TEST_F(StateCrash, ATornWriteAheadLogLeavesAPrefix) {
  Begin();
  Script log;
  log.Begin();
  log.Take();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(state->Apply(Batch(log, 7)).ok());
  state.reset();
  const std::string wal = StatePath(directory.path(), 1) + "-wal";
  const uint64_t size = std::filesystem::file_size(wal);
  std::filesystem::resize_file(wal, size * 2 / 3 + 1);
  Reopen();
  EXPECT_GT(state->Summary().applied.value(), kFirstCommand);
  EXPECT_LT(state->Summary().applied, log.index());
  ExpectPrefix();
}

// --- Errors: the writer cannot write ---

TEST_F(StateCrash, AFullDiskEndsTheNodeAndLeavesAPrefix) {
  Begin();
  state.reset();
  uint64_t told = 0;
  // The child's files may not grow beyond 300 KiB, as if the disk were full.
  int end = Fork(
      [&](int out) {
        signal(SIGXFSZ, SIG_IGN);
        absl::StatusOr<std::unique_ptr<State>> node = State::Open(options);
        if (!node.ok()) return 1;
        rlimit limit{300u << 10, 300u << 10};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 2;
        Script log;
        log.Begin();
        log.Take();
        for (int i = 0; i < 10'000; ++i) {
          const StateSummary before = (*node)->Summary();
          if ((*node)->Apply(Batch(log, 5)).ok()) continue;
          // The error stays, nothing of the batch shows, and reads still work.
          if (!(before.hash == (*node)->Summary().hash)) return 3;
          if ((*node)->Apply(Batch(log, 5)).ok()) return 4;
          if ((*node)->Checkpoint().ok()) return 5;
          absl::StatusOr<Item> witness = (*node)->Get("witness", std::nullopt).first;
          if (!witness.ok() || witness->value != ToString(before.applied)) return 6;
          const uint64_t applied = before.applied.value();
          return write(out, &applied, sizeof(applied)) == sizeof(applied) ? 0 : 7;
        }
        return 8;
      },
      [&](pid_t, int in) { EXPECT_EQ(read(in, &told, sizeof(told)), ssize_t{sizeof(told)}); });
  ASSERT_EQ(end, 0);
  Reopen();
  EXPECT_EQ(state->Summary().applied.value(), told);
  ExpectPrefix();
}

}  // namespace
}  // namespace quorate::storage::testing
