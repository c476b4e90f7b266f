// What an append and a flush cost on this machine's disk: 256 B entries, 1 and 64 in a flush.
#include <benchmark/benchmark.h>

#include <string>

#include "base/check.h"
#include "storage/log.h"
#include "tests/storage/temp_directory.h"

namespace quorate::storage {
namespace {

raft::Persist Batch(uint64_t* next, int64_t count) {
  raft::Persist persist;
  for (int64_t i = 0; i < count; ++i) {
    raft::Entry entry;
    entry.index = raft::Index((*next)++);
    entry.term = raft::Term(1);
    entry.type = raft::EntryType::kCommand;
    entry.payload.assign(256, 'x');
    persist.entries.push_back(std::make_shared<const raft::Entry>(std::move(entry)));
  }
  return persist;
}

LogOptions Options(const TempDirectory& temp) {
  LogOptions options;
  options.directory = temp.path();
  options.cluster = ClusterId(1);
  options.store = StoreId(1);
  return options;
}

void AppendAndSync(benchmark::State& state) {
  TempDirectory temp;
  auto disk = MakePosixDisk();
  auto log = Log::Create(disk.get(), Options(temp));
  CHECK(log.ok());
  uint64_t next = 1;
  for (auto _ : state) {
    state.PauseTiming();
    raft::Persist batch = Batch(&next, state.range(0));
    state.ResumeTiming();
    CHECK((*log)->Append(batch).ok() && (*log)->Sync().ok());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(AppendAndSync)->Arg(1)->Arg(64)->UseRealTime()->Unit(benchmark::kMicrosecond);

// Without the flush: what it costs of the processor.
void AppendOnly(benchmark::State& state) {
  TempDirectory temp;
  auto disk = MakePosixDisk();
  auto log = Log::Create(disk.get(), Options(temp));
  CHECK(log.ok());
  uint64_t next = 1;
  for (auto _ : state) {
    state.PauseTiming();
    raft::Persist batch = Batch(&next, state.range(0));
    state.ResumeTiming();
    CHECK((*log)->Append(batch).ok());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(AppendOnly)->Arg(64)->Iterations(2000)->Unit(benchmark::kMicrosecond);

// Opening a log of 100,000 entries.
void Recover(benchmark::State& state) {
  TempDirectory temp;
  auto disk = MakePosixDisk();
  {
    auto log = Log::Create(disk.get(), Options(temp));
    CHECK(log.ok());
    uint64_t next = 1;
    for (int i = 0; i < 100; ++i) CHECK((*log)->Append(Batch(&next, 1000)).ok());
    CHECK((*log)->Sync().ok());
  }
  for (auto _ : state) {
    auto opened = Log::Open(disk.get(), Options(temp), raft::Index(100000));
    CHECK(opened.ok() && opened->second.last_index == raft::Index(100000));
  }
}
BENCHMARK(Recover)->Iterations(5)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace quorate::storage
