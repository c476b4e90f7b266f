// Readers, the gate and checkpoints at the same time.
#include <atomic>
#include <chrono>
#include <thread>

#include "storage/state_readers.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using std::chrono::milliseconds;

class Gate : public StateFixture {
 protected:
  void Open(size_t readers) {
    Begin();
    absl::StatusOr<std::unique_ptr<ReaderPool>> opened =
        ReaderPool::Open(StatePath(directory.path(), 1), readers);
    ASSERT_TRUE(opened.ok()) << opened.status();
    pool = *std::move(opened);
  }
  void TearDown() override {
    pool.reset();
    state.reset();
  }
  std::unique_ptr<ReaderPool> pool;
};

TEST_F(Gate, HandsOutAsManyAsThereAre) {
  Open(2);
  absl::StatusOr<ReaderPool::Lease> one = pool->Acquire();
  ASSERT_TRUE(one.ok());
  {
    absl::StatusOr<ReaderPool::Lease> two = pool->Acquire();
    ASSERT_TRUE(two.ok());
    EXPECT_EQ(pool->Acquire(milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(pool->Acquire(milliseconds(1)).ok());
}

TEST_F(Gate, ClosesWhenNobodyReadsAndHoldsReadersOff) {
  Open(2);
  {
    absl::StatusOr<ReaderPool::Lease> reading = pool->Acquire();
    EXPECT_FALSE(pool->CloseGate(milliseconds(1), false));
    // It opened again: reads go on.
    EXPECT_TRUE(pool->Acquire(milliseconds(1)).ok());
  }
  ASSERT_TRUE(pool->CloseGate(milliseconds(1), false));
  EXPECT_EQ(pool->Acquire(milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
  std::atomic<bool> read = false;
  std::thread waiting([&] {
    absl::StatusOr<ReaderPool::Lease> reader = pool->Acquire();
    EXPECT_TRUE(reader.ok());
    read = true;
  });
  EXPECT_FALSE(read);
  pool->OpenGate();
  waiting.join();
  EXPECT_TRUE(read);
}

TEST_F(Gate, AReaderThatEndsLetsItClose) {
  Open(1);
  auto reading = std::make_unique<absl::StatusOr<ReaderPool::Lease>>(pool->Acquire());
  std::thread closing([&] {
    EXPECT_TRUE(pool->CloseGate(milliseconds(10'000), false));
    pool->OpenGate();
  });
  reading.reset();
  closing.join();
}

TEST_F(Gate, DoesNotWaitForAScrubUnlessItMust) {
  Open(1);
  {
    ReaderPool::Scrub scrub = pool->AcquireScrub();
    EXPECT_FALSE(pool->CloseGate(milliseconds(10'000), false));  // at once
    EXPECT_TRUE(scrub.CheckHash().ok());
    // Told to end; it has not yet, so the gate opens again.
    EXPECT_FALSE(pool->CloseGate(milliseconds(1), true));
    EXPECT_EQ(scrub.CheckHash().status().code(), absl::StatusCode::kAborted);
  }
  EXPECT_TRUE(pool->CloseGate(milliseconds(1), false));
  pool->OpenGate();
  EXPECT_TRUE(pool->AcquireScrub().CheckHash().ok());  // the next one is not told
}

class Concurrent : public StateFixture {};

TEST_F(Concurrent, ReadersSeeWholeTransactionsDuringWritesAndCheckpoints) {
  options.wal_bytes_max = 64u << 10;  // a checkpoint every few batches
  options.readers = 2;
  Begin();
  std::atomic<bool> done = false;
  std::atomic<uint64_t> reads = 0, scrubs = 0;
  std::vector<std::thread> threads;
  // Each transaction writes the same number under both keys.
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      Revision last;
      do {
        absl::StatusOr<ListPage> page = state->List({});
        ASSERT_TRUE(page.ok()) << page.status();
        ASSERT_GE(page->revision, last);
        last = page->revision;
        if (!page->items.empty()) {
          ASSERT_EQ(page->items.size(), 2u);
          ASSERT_EQ(page->items[0].value, page->items[1].value);
          ASSERT_EQ(page->items[0].mod_revision, page->revision);
          auto [then, revision] = state->Get("a", last);
          ASSERT_TRUE(then.ok()) << then.status();
          ASSERT_EQ(then->value, page->items[0].value);
        }
        StateSummary summary = state->Summary();
        ASSERT_GE(summary.applied, summary.durable_applied);
        ++reads;
      } while (!done);
    });
  }
  // A few scrubs and no more: a checkpoint does not wait for one that is under way, so scrubs
  // without a pause between them would keep it off until the write-ahead log's bound.
  threads.emplace_back([&] {
    while (scrubs < 3) {
      absl::StatusOr<HashCheck> check = state->CheckHash();
      ASSERT_TRUE(check.ok()) << check.status();
      ASSERT_EQ(check->kept, check->recomputed);
      ++scrubs;
    }
  });
  threads.emplace_back([&] {  // the leader's check of sessions
    do {
      std::optional<SessionView> session = state->FindSession(StoreId(kIngress));
      ASSERT_TRUE(session.has_value());
      ASSERT_LE(session->answered_through, session->last_sequence);
      auto answer = state->KeptAnswer(StoreId(kIngress), session->last_sequence);
      if (answer == nullptr) continue;
      ASSERT_EQ(Parse(answer).code(), 0);
    } while (!done);
  });
  // Until enough was written, and everybody else has had his turn.
  uint64_t number = 0;
  const auto enough = [&] {
    return number >= 2000 && reads >= 50 && scrubs >= 3 &&
           state->durable_applied() != raft::Index(0);
  };
  while (!enough() && number < 200'000) {
    for (int i = 0; i < 5; ++i) {
      v1::Command command;
      const std::string value = std::to_string(++number) + std::string(300, '.');
      AddPut(command, "a", value);
      AddPut(command, "b", value);
      script.Do(command);
    }
    ApplyAll();
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(reads, 50u);
  EXPECT_GE(scrubs, 3u);
  EXPECT_GT(state->durable_applied(), raft::Index(0));
  EXPECT_EQ(*state->Checkpoint(), true);
  EXPECT_EQ(state->durable_applied(), script.index());
  ExpectHashAddsUp();
}

TEST_F(Concurrent, OneConnectionServesManyCallersOneAfterTheOther) {
  options.readers = 1;
  Begin();
  Put("a", "1");
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k) {
        if (state->Get("a", std::nullopt).first.ok()) ++good;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 400);
}

}  // namespace
}  // namespace quorate::storage::testing
