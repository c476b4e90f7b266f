#include "services/read_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace quorate::services {
namespace {

TEST(ReadPool, RunsWhatItTookBeforeItStops) {
  std::atomic<int> ran = 0;
  ReadPool pool(3, 1000);
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(pool.Submit([&ran] { ++ran; }));
  pool.Stop();
  EXPECT_EQ(ran, 500);
}

TEST(ReadPool, BlockedThreadsDoNotHoldUpTheOthers) {
  ReadPool pool(2, 10);
  std::promise<void> release;
  std::promise<void> ran;
  EXPECT_TRUE(pool.Submit([future = release.get_future().share()] { future.wait(); }));
  EXPECT_TRUE(pool.Submit([&ran] { ran.set_value(); }));
  ran.get_future().wait();
  release.set_value();
}

// --- Errors ---

TEST(ReadPool, RefusesWhatDoesNotFit) {
  ReadPool pool(1, 2);
  std::promise<void> started;
  std::promise<void> release;
  EXPECT_TRUE(pool.Submit([&started, future = release.get_future().share()] {
    started.set_value();
    future.wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(pool.Submit([] {}));
  EXPECT_TRUE(pool.Submit([] {}));
  EXPECT_FALSE(pool.Submit([] { FAIL() << "was refused"; }));
  release.set_value();
}

TEST(ReadPool, RefusesEverythingAfterStop) {
  ReadPool pool(1, 2);
  pool.Stop();
  EXPECT_FALSE(pool.Submit([] { FAIL() << "was refused"; }));
}

}  // namespace
}  // namespace quorate::services
