// Reads that are given up: while they wait for a connection, and while SQLite works.
#include <chrono>
#include <string>

#include "storage/state_readers.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using std::chrono::milliseconds;

class Limits : public StateFixture {
 protected:
  // Many keys, some changed since revision `early_`: a read of then walks their chains.
  void Fill(int keys) {
    Begin();
    for (int i = 0; i < keys; ++i) script.Put("k/" + std::to_string(10000 + i), "v");
    ApplyAll();
    early_ = state->Summary().revision;
    for (int i = 0; i < keys; i += 2) script.Put("k/" + std::to_string(10000 + i), "w");
    ApplyAll();
  }
  // Gives a read up at the `n`th question.
  ReadLimits AtQuestion(int n) {
    questions_ = 0;
    ReadLimits limits;
    limits.abandon = [this, n] { return ++questions_ >= n; };
    return limits;
  }

  Revision early_;
  int questions_ = 0;
};

TEST_F(Limits, ACountIsAskedOnItsWayAndEndsWhenItIsToldTo) {
  Fill(3000);
  const auto whole = state->Count("k/", std::nullopt, AtQuestion(1'000'000));
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->first, 3000u);
  EXPECT_GE(questions_, 3) << "a row is more than a step";
  for (const std::optional<Revision> at : {std::optional<Revision>(), std::optional(early_)}) {
    const auto ended = state->Count("k/", at, AtQuestion(2));
    EXPECT_EQ(ended.status().code(), absl::StatusCode::kAborted) << ended.status();
    EXPECT_EQ(questions_, 2) << "it goes on after it was told to end";
  }
  // The connections are as good as before.
  for (int i = 0; i < 8; ++i) EXPECT_EQ(state->Count("k/", early_)->first, 3000u);
}

TEST_F(Limits, AListAndAGetOfThePastEndToo) {
  Fill(3000);
  ListQuery query;
  query.prefix = "k/";
  query.at = early_;
  EXPECT_EQ(state->List(query, AtQuestion(2)).status().code(), absl::StatusCode::kAborted);
  // One key with a long chain.
  for (int i = 0; i < 2000; ++i) script.Put("k/10001", std::to_string(i));
  ApplyAll();
  const auto [item, revision] = state->Get("k/10001", early_, AtQuestion(2));
  EXPECT_EQ(item.status().code(), absl::StatusCode::kAborted) << item.status();
  EXPECT_EQ(state->Get("k/10001", early_).first->value, "v");
}

// SQLite counts its steps on from one run of a statement to the next, so the question may come at
// any time: the end of a transaction must not be ended.
TEST_F(Limits, WhatIsGivenUpAtAnyStepLeavesNoTransactionBehind) {
  Fill(20);
  size_t given_up = 0;
  for (int i = 0; i < 3000; ++i) {
    given_up += state->Count("k/", std::nullopt, AtQuestion(1)).ok() ? 0 : 1;
  }
  EXPECT_GT(given_up, 0u);
  EXPECT_LT(given_up, 3000u);
  EXPECT_TRUE(*state->Checkpoint()) << "a reader still holds the log";
}

// --- Errors ---

TEST_F(Limits, ABusyPoolIsSaidWithoutWaitingLongerThanAllowed) {
  Begin();
  auto opened = ReaderPool::Open(StatePath(directory.path(), 1), 1);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const std::unique_ptr<ReaderPool> pool = *std::move(opened);
  const auto lease = pool->Acquire(milliseconds(0));
  ASSERT_TRUE(lease.ok()) << "a free one needs no wait";
  EXPECT_EQ(pool->Acquire(milliseconds(0)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace quorate::storage::testing
