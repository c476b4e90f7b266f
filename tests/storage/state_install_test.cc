// A received state becomes this store's: step by step, and killed at each of them.
#include "storage/state_install.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "storage/directory.h"
#include "storage/log.h"
#include "storage/state_schema.h"
#include "tests/storage/noting_disk.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const StoreId kInstallStore(0xa2);

// A follower with a short log and an old state, and a leader's copy of a newer one.
class StateInstall : public StateFixture {
 protected:
  void SetUp() override {
    // The leader's: 200 keys.
    options.directory = leader.path();
    Begin();
    for (int i = 0; i < 200; ++i) script.Put("key" + std::to_string(i), std::string(300, 'n'));
    ApplyAll();
    absl::StatusOr<StateCopy> made = state->Copy(leader.path() + "/copy.db", never);
    ASSERT_TRUE(made.ok()) << made.status();
    copy = *made;
    std::ifstream file(copy.path, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(file), {});
    ASSERT_EQ(bytes.size(), copy.bytes);
    state.reset();

    // The follower's: a few entries of the same history.
    options.directory = directory.path();
    Create();
    Script early;
    early.Begin();
    early.Put("key0", "old");
    const std::vector<raft::EntryPtr> entries = early.Take();
    ASSERT_TRUE(state->Apply(entries).ok());
    fs::create_directory(LogDirectory(directory.path()));
    absl::StatusOr<std::unique_ptr<Log>> made_log = Log::Create(disk.get(), LogSettings());
    ASSERT_TRUE(made_log.ok()) << made_log.status();
    log = *std::move(made_log);
    raft::Persist persist;
    persist.hard_state = raft::HardState{raft::Term(1), StoreId()};
    persist.entries = entries;
    ASSERT_TRUE(log->Append(persist).ok() && log->Sync().ok());
  }

  LogOptions LogSettings() {
    LogOptions settings;
    settings.directory = LogDirectory(directory.path());
    settings.cluster = options.cluster;
    settings.store = kInstallStore;
    settings.segment_bytes = 64u << 10;
    return settings;
  }
  ExpectedState Expected() { return {copy.cluster, copy.index, copy.term, copy.hash}; }
  raft::Persist Record(uint64_t generation) {
    raft::Persist persist;
    persist.install.emplace();
    persist.install->generation = generation;
    persist.install->snapshot.index = copy.index;
    persist.install->snapshot.term = copy.term;
    persist.install->snapshot.membership = copy.membership;
    return persist;
  }
  // Receives all of the copy; not yet in its place.
  absl::StatusOr<std::unique_ptr<IncomingState>> Receive(uint64_t in_use = 1) {
    auto incoming = IncomingState::Begin(disk.get(), directory.path(), in_use, bytes.size());
    if (!incoming.ok()) return incoming;
    for (size_t at = 0; at < bytes.size(); at += 100'000) {
      absl::Status s = (*incoming)->Write(at, std::string_view(bytes).substr(at, 100'000));
      if (!s.ok()) return s;
    }
    return incoming;
  }
  // The whole way. Nothing of gtest: it runs in a process that is to be killed.
  absl::Status InstallAll(State* node, Log* node_log) {
    auto incoming = Receive(node->generation());
    if (!incoming.ok()) return incoming.status();
    if (auto placed = (*incoming)->Finish(Expected(), never); !placed.ok()) return placed.status();
    const uint64_t generation = (*incoming)->generation();
    if (absl::Status s = node_log->Append(Record(generation)); !s.ok()) return s;
    if (absl::Status s = node_log->Sync(); !s.ok()) return s;
    if (absl::Status s = node->Install(generation); !s.ok()) return s;
    return RemoveOtherGenerations(disk.get(), directory.path(), generation);
  }
  // A start of the node.
  absl::Status Recover() {
    state.reset();
    log.reset();
    auto opened =
        Log::Open(disk.get(), LogSettings(), [&](uint64_t named) -> absl::StatusOr<raft::Index> {
          auto found = OpenNamedState(options, named);
          if (!found.ok()) return found.status();
          state = *std::move(found);
          return state->Summary().applied;
        });
    if (!opened.ok()) return opened.status();
    log = std::move(opened->first);
    return RemoveOtherGenerations(disk.get(), directory.path(), state->generation());
  }
  std::vector<std::string> States() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory.path())) {
      const std::string name = entry.path().filename();
      if (name.starts_with("state-")) names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  // The follower as the leader's copy made it.
  void ExpectNew() {
    EXPECT_EQ(state->Summary().applied, copy.index);
    EXPECT_EQ(state->Summary().hash, copy.hash);
    EXPECT_EQ(Count(""), 200u);
    ExpectHashAddsUp();
    EXPECT_EQ(log->first_index(), copy.index + 1);
  }
  void ExpectOld() {
    EXPECT_EQ(state->Summary().applied, raft::Index(4));
    EXPECT_EQ(ShowAll(), std::vector<std::string>{"key0=old@2 v1"});
    ExpectHashAddsUp();
    EXPECT_EQ(log->first_index(), raft::Index(1));
  }

  Directory leader;
  StateCopy copy;
  std::string bytes;
  std::unique_ptr<Disk> disk = MakePosixDisk();
  std::unique_ptr<Log> log;
  const std::atomic<bool> never{false};
};

TEST_F(StateInstall, TakesThePlaceOfTheOldState) {
  ASSERT_EQ(*state->Checkpoint(), true);
  ASSERT_EQ(state->durable_applied(), raft::Index(4));
  ASSERT_TRUE(InstallAll(state.get(), log.get()).ok());
  EXPECT_THAT(States(), ElementsAre("state-2"));
  EXPECT_EQ(state->generation(), 2u);
  ExpectNew();
  // A file that was synced as a whole: the log need not keep what is in it.
  EXPECT_EQ(state->durable_applied(), copy.index);
  EXPECT_EQ(state->FindSession(StoreId(kIngress))->last_sequence, 200u);
  EXPECT_NE(state->KeptAnswer(StoreId(kIngress), 199), nullptr);
  EXPECT_EQ(state->Summary().membership, copy.membership);

  // It goes on, from the log and over a start.
  script.Put("after", "1");
  const std::vector<raft::EntryPtr> more = script.Take();
  raft::Persist persist;
  persist.entries = more;
  ASSERT_TRUE(log->Append(persist).ok() && log->Sync().ok());
  ASSERT_TRUE(state->Apply(more).ok());
  const StateHash hash = state->Summary().hash;
  ASSERT_TRUE(Recover().ok());
  EXPECT_EQ(state->Summary().hash, hash);
  EXPECT_EQ(Count(""), 201u);
  EXPECT_EQ(state->durable_applied(), raft::Index(0));
}

TEST_F(StateInstall, ReadersGoOnAndSeeEitherState) {
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      uint64_t least = 1;
      while (!stop) {
        auto [item, revision] = state->Get("key0", std::nullopt);
        ASSERT_TRUE(item.ok()) << item.status();
        ASSERT_EQ(item->value, revision.value() == 2 ? "old" : std::string(300, 'n'));
        const auto counted = state->Count("", std::nullopt);
        ASSERT_TRUE(counted.ok()) << counted.status();
        ASSERT_TRUE(counted->first == 1 || counted->first == 200) << counted->first;
        ASSERT_GE(counted->first, least) << "never back";
        least = counted->first;
        ++reads;
      }
    });
  }
  std::thread scrub([&] {
    while (!stop) {
      absl::StatusOr<HashCheck> check = state->CheckHash();
      ASSERT_TRUE(check.ok() || absl::IsAborted(check.status())) << check.status();
      if (check.ok()) {
        ASSERT_EQ(check->kept, check->recomputed);
      }
    }
  });
  while (reads < 50) std::this_thread::yield();
  const absl::Status installed = InstallAll(state.get(), log.get());
  EXPECT_TRUE(installed.ok()) << installed;
  for (int more = reads + 50; reads < more;) std::this_thread::yield();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  scrub.join();
  ExpectNew();
}

TEST_F(StateInstall, WhatWasNotCommittedGoesAtTheNextStart) {
  {
    auto incoming = Receive();
    ASSERT_TRUE(incoming.ok()) << incoming.status();
    EXPECT_THAT(States(), ElementsAre("state-1", "state-2.new"));
    ASSERT_TRUE((*incoming)->Finish(Expected(), never).ok());
  }
  EXPECT_THAT(States(), ElementsAre("state-1", "state-2")) << "complete, and named by nobody";
  fs::create_directory(directory.path() + "/state-7.new");
  ASSERT_TRUE(Recover().ok());
  EXPECT_THAT(States(), ElementsAre("state-1"));
  ExpectOld();
  // Another attempt finds its place free, also without a start in between.
  ASSERT_TRUE((*Receive())->Finish(Expected(), never).ok());
  ASSERT_TRUE(InstallAll(state.get(), log.get()).ok());
  ExpectNew();
}

TEST_F(StateInstall, OneThatIsDroppedLeavesNothing) {
  ASSERT_TRUE(Receive().ok());
  EXPECT_THAT(States(), ElementsAre("state-1"));
}

// --- What is durable before what ---

// The record in the log is written next: whatever a power failure takes then, it must not be a part
// of the state that the record names (etcd #6368: a name that was not synced).
TEST_F(StateInstall, AllOfItIsDurableBeforeItsRecordIsWritten) {
  auto noting = std::make_unique<NotingDisk>(directory.path());
  NotingDisk* const told = noting.get();
  disk = std::move(noting);
  auto incoming = Receive();
  ASSERT_TRUE(incoming.ok()) << incoming.status();
  ASSERT_TRUE((*incoming)->Finish(Expected(), never).ok());
  EXPECT_THAT(told->notes, ElementsAre("make state-2.new", "write state-2.new/state.db",
                                       "sync state-2.new/state.db", "sync names in state-2.new",
                                       "rename state-2.new state-2", "sync names in ."));
  // And what goes, goes for good before the next one is received under its name.
  told->notes.clear();
  ASSERT_TRUE(RemoveOtherGenerations(disk.get(), directory.path(), 1).ok());
  EXPECT_THAT(told->notes, ElementsAre("sync names in ."));
}

// --- Killed at each step ---

// Whether a system call changes what is on the disk.
bool ChangesFiles(uint64_t number) {
  static const std::set<uint64_t> kChanging = {
#ifdef SYS_rename
      SYS_rename,
#endif
#ifdef SYS_mkdir
      SYS_mkdir,
#endif
#ifdef SYS_rmdir
      SYS_rmdir,
#endif
#ifdef SYS_unlink
      SYS_unlink,
#endif
      SYS_renameat,  SYS_renameat2, SYS_mkdirat,   SYS_unlinkat, SYS_fsync,
      SYS_fdatasync, SYS_ftruncate, SYS_fallocate, SYS_pwrite64, SYS_write,
  };
  return kChanging.contains(number);
}

// Runs `work` in a process that is killed before its `count`-th change of a file. False: it ended
// by itself, with the exit code *code.
template <typename Work>
bool KilledBefore(int count, Work work, int* code) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(99);
    raise(SIGSTOP);
    _exit(work());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  if (!WIFSTOPPED(status)) {
    *code = WEXITSTATUS(status);
    return false;
  }
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  while (true) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    if (waitpid(child, &status, 0) != child || WIFEXITED(status)) {
      *code = WEXITSTATUS(status);
      return false;
    }
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
    __ptrace_syscall_info info{};
    ptrace(static_cast<__ptrace_request>(PTRACE_GET_SYSCALL_INFO), child, sizeof(info), &info);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !ChangesFiles(info.entry.nr)) continue;
    if (count-- > 0) continue;
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return true;
  }
}

TEST_F(StateInstall, KilledAtEachStepItIsTheOldStateOrTheNewOne) {
  state.reset();
  log.reset();
  const fs::path before = leader.path() + "/before";
  fs::copy(directory.path(), before, fs::copy_options::recursive);
  const auto child = [&] {
    if (!Recover().ok()) return 1;
    return InstallAll(state.get(), log.get()).ok() ? 0 : 2;
  };
  int code = -1;
  bool is_new = false;
  int news = 0;
  int step = 0;
  for (; KilledBefore(step, child, &code); ++step) {
    SCOPED_TRACE(step);
    const absl::Status recovered = Recover();
    ASSERT_TRUE(recovered.ok()) << recovered;
    const bool was_new = std::exchange(is_new, state->generation() == 2);
    ASSERT_TRUE(is_new || !was_new) << "once committed, always";
    news += is_new ? 1 : 0;
    EXPECT_THAT(States(), ElementsAre(is_new ? "state-2" : "state-1"));
    is_new ? ExpectNew() : ExpectOld();
    if (HasFailure()) return;
    state.reset();
    log.reset();
    for (const auto& entry : fs::directory_iterator(directory.path())) fs::remove_all(entry);
    fs::copy(before, directory.path(),
             fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  ASSERT_EQ(code, 0) << "1: the start failed, 2: the installation, 99: no ptrace here";
  EXPECT_GT(step, 30);
  EXPECT_GT(news, 5);
  EXPECT_LT(news, step - 10);
  ASSERT_TRUE(Recover().ok());
  ExpectNew();
}

// --- Errors ---

TEST_F(StateInstall, BytesThatDoNotFollow) {
  auto incoming = IncomingState::Begin(disk.get(), directory.path(), 1, 1000);
  ASSERT_TRUE(incoming.ok()) << incoming.status();
  EXPECT_EQ((*incoming)->generation(), 2u);
  EXPECT_TRUE((*incoming)->Write(0, std::string(600, 'x')).ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*incoming)->Write(0, "again")));
  EXPECT_TRUE(absl::IsInvalidArgument((*incoming)->Write(700, "a gap")));
  EXPECT_TRUE(absl::IsInvalidArgument((*incoming)->Write(600, std::string(401, 'x'))));
  EXPECT_EQ((*incoming)->written(), 600u);
  absl::Status status = (*incoming)->Finish(Expected(), never).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("600 have come"));
}

TEST_F(StateInstall, WhatIsNotTheStateThatWasAnnouncedIsNotPlaced) {
  ExpectedState wrong = Expected();
  wrong.index = wrong.index + 1;
  {
    auto incoming = Receive();
    EXPECT_TRUE(absl::IsDataLoss((*incoming)->Finish(wrong, never).status()));
  }
  EXPECT_THAT(States(), ElementsAre("state-1"));
  const std::string good = bytes;
  bytes[good.size() / 2] = static_cast<char>(good[good.size() / 2] ^ 1);
  EXPECT_FALSE((*Receive())->Finish(Expected(), never).ok());
  bytes = std::string(good.size(), 'x');
  EXPECT_TRUE(absl::IsDataLoss((*Receive())->Finish(Expected(), never).status()));
  bytes = good;
  wrong = Expected();
  wrong.cluster = ClusterId(7);
  EXPECT_TRUE(absl::IsFailedPrecondition((*Receive())->Finish(wrong, never).status()));
  const std::atomic<bool> cancelled{true};
  EXPECT_TRUE(absl::IsCancelled((*Receive())->Finish(Expected(), cancelled).status()));
  EXPECT_THAT(States(), ElementsAre("state-1"));
  EXPECT_TRUE((*Receive())->Finish(Expected(), never).ok());
}

TEST_F(StateInstall, AStateThatTheLogNamesAndThatIsNotThere) {
  ASSERT_TRUE(InstallAll(state.get(), log.get()).ok());
  state.reset();
  log.reset();
  fs::remove_all(directory.path() + "/state-2");
  const absl::Status status = Recover();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the log says that it is this node's"));
}

// Somebody puts the old state back beside a log that has gone on.
TEST_F(StateInstall, AStateThatIsOlderThanTheLogsRecord) {
  const fs::path kept = leader.path() + "/kept";
  fs::copy(directory.path() + "/state-1", kept, fs::copy_options::recursive);
  ASSERT_TRUE(InstallAll(state.get(), log.get()).ok());
  state.reset();
  log.reset();
  fs::remove_all(directory.path() + "/state-2");
  fs::copy(kept, directory.path() + "/state-2", fs::copy_options::recursive);
  const absl::Status status = Recover();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the entries between are lost"));
}

TEST_F(StateInstall, AFailedInstallKeepsShowingTheOldState) {
  EXPECT_TRUE(absl::IsNotFound(state->Install(2)));
  ExpectOld();
  fs::create_directory(directory.path() + "/state-2");
  std::ofstream(StatePath(directory.path(), 2)) << std::string(50'000, 'x');
  EXPECT_TRUE(absl::IsDataLoss(state->Install(2)));
  ExpectOld();
  EXPECT_EQ(state->generation(), 1u);
}

}  // namespace
}  // namespace quorate::storage::testing
