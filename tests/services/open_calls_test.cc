// Calls that end while somebody waits for them.
#include "services/open_calls.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

namespace quorate::services {
namespace {

// A call that takes its time to go, and says when it has gone.
struct LingeringCall {
  explicit LingeringCall(std::atomic<bool>* g) : gone(g) {}
  ~LingeringCall() {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    *gone = true;
  }
  struct Context {
    void TryCancel() { cancelled.set_value(); }
    std::promise<void> cancelled;
  } context;
  std::atomic<bool>* const gone;
};

TEST(OpenCallsTest, StoppingCancelsAndWaitsUntilTheCallIsGone) {
  OpenCalls<LingeringCall> calls;
  std::atomic<bool> gone = false;
  auto call = std::make_shared<LingeringCall>(&gone);
  std::future<void> cancelled = call->context.cancelled.get_future();
  ASSERT_TRUE(calls.Add(call));
  std::thread callback([&calls, &cancelled, call = std::move(call)]() mutable {
    cancelled.wait();
    calls.End(std::move(call));
  });
  calls.Stop();
  EXPECT_TRUE(gone) << "its channel would be let go of by gRPC's own thread";
  callback.join();
}

TEST(OpenCallsTest, WhatHasEndedIsNotCancelled) {
  OpenCalls<LingeringCall> calls;
  std::atomic<bool> first_gone = false, second_gone = false;
  auto first = std::make_shared<LingeringCall>(&first_gone);
  ASSERT_TRUE(calls.Add(first));
  calls.End(std::move(first));
  EXPECT_TRUE(first_gone);
  calls.Stop();
  auto second = std::make_shared<LingeringCall>(&second_gone);
  EXPECT_FALSE(calls.Add(second)) << "it has stopped";
}

}  // namespace
}  // namespace quorate::services
