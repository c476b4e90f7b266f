// The end of the log in memory.
#include "raft/core/log_window.h"

#include <gtest/gtest.h>

#include "raft/core/progress.h"
#include "tests/raft/core_cluster.h"

namespace quorate::raft {
namespace {

using testing::MakeEntry;

// Entries after `prev`, 64 bytes each plus `payload`.
LogWindow Make(uint64_t prev, uint64_t prev_term, const std::vector<uint64_t>& terms,
               size_t payload = 0) {
  std::vector<EntryPtr> entries;
  for (size_t i = 0; i < terms.size(); ++i) {
    entries.push_back(MakeEntry(Index(prev + i + 1), Term(terms[i]), EntryType::kCommand,
                                std::string(payload, 'x')));
  }
  return LogWindow(Index(prev), Term(prev_term), 0, entries);
}

TEST(LogWindow, KnowsTermsFromThePreviousEntryToTheLast) {
  const LogWindow window = Make(4, 2, {2, 3, 3});
  EXPECT_EQ(window.last_index(), Index(7));
  EXPECT_EQ(window.last_term(), Term(3));
  EXPECT_EQ(window.TermAt(Index(3)), std::nullopt) << "absent, and never 0";
  EXPECT_EQ(window.TermAt(Index(4)), Term(2));
  EXPECT_EQ(window.TermAt(Index(6)), Term(3));
  EXPECT_EQ(window.TermAt(Index(8)), std::nullopt);
  EXPECT_EQ(Make(0, 0, {}).TermAt(Index(0)), Term(0));
}

TEST(LogWindow, SlicesHoldAtLeastOneEntryAndNeverSkipOne) {
  LogWindow window = Make(0, 0, {1, 1, 1, 1}, 36);
  EXPECT_EQ(window.Slice(Index(1), Index(4), 250).size(), 2u);
  EXPECT_EQ(window.Slice(Index(1), Index(4), 1).size(), 1u);
  EXPECT_EQ(window.Slice(Index(2), Index(3), 1000).size(), 2u);
  EXPECT_TRUE(window.Slice(Index(5), Index(9), 1000).empty());
  window.Append(MakeEntry(Index(5), Term(1), EntryType::kCommand, std::string(900, 'x')));
  window.Append(MakeEntry(Index(6), Term(1)));
  const auto slice = window.Slice(Index(4), Index(6), 300);
  ASSERT_EQ(slice.size(), 1u) << "the small one after the large one must wait";
}

TEST(LogWindow, BytesOfASuffixAreADifference) {
  LogWindow window = Make(0, 0, {1, 1, 1}, 36);
  EXPECT_EQ(window.bytes(), 300u);
  EXPECT_EQ(window.BytesAfter(Index(1)), 200u);
  EXPECT_EQ(window.BytesAfter(Index(3)), 0u);
  EXPECT_EQ(window.BytesAfter(Index(9)), 0u);
  window.CutFrom(Index(2));
  EXPECT_EQ(window.bytes(), 100u);
  window.Append(MakeEntry(Index(2), Term(2)));
  EXPECT_EQ(window.bytes(), 164u);
  window.Evict(0, Index(1));
  EXPECT_EQ(window.bytes(), 64u);
  EXPECT_EQ(window.BytesAfter(Index(0)), 64u);
  window.CutFrom(Index(2));
  EXPECT_EQ(window.bytes(), 0u);
  window.Append(MakeEntry(Index(2), Term(3)));
  EXPECT_EQ(window.bytes(), 64u);
  window.Reset(Index(9), Term(4), 0);
  window.Append(MakeEntry(Index(10), Term(4)));
  EXPECT_EQ(window.bytes(), 64u);
}

TEST(LogWindow, EvictsFromTheFrontUpToTheLimitAndKeepsTheLast) {
  LogWindow window = Make(0, 0, {1, 2, 3, 4}, 36);
  window.Evict(250, Index(1));
  EXPECT_EQ(window.prev_index(), Index(1)) << "no further than allowed";
  window.Evict(250, Index(4));
  EXPECT_EQ(window.prev_index(), Index(2)) << "no further than needed";
  window.Evict(0, Index(4));
  EXPECT_EQ(window.prev_index(), Index(3));
  EXPECT_EQ(window.TermAt(Index(3)), Term(3));
  EXPECT_EQ(window.last_term(), Term(4));
}

TEST(LogWindow, FindsTermsForTheBackOff) {
  const LogWindow window = Make(2, 1, {1, 3, 3, 3, 5, 5});
  EXPECT_EQ(window.FirstOfSameTerm(Index(6)), Index(4));
  EXPECT_EQ(window.FirstOfSameTerm(Index(3)), Index(3));
  EXPECT_EQ(window.LastWithTermAtMost(Index(8), Term(3)), Index(6));
  EXPECT_EQ(window.LastWithTermAtMost(Index(8), Term(4)), Index(6));
  EXPECT_EQ(window.LastWithTermAtMost(Index(5), Term(9)), Index(5)) << "not beyond the bound";
  EXPECT_EQ(window.LastWithTermAtMost(Index(8), Term(2)), Index(3));
  EXPECT_EQ(window.LastWithTermAtMost(Index(8), Term(0)), std::nullopt);
}

TEST(Inflights, AreBoundedByMessagesAndBytesAndResetAsAWhole) {
  Inflights inflight;
  EXPECT_FALSE(inflight.Full(2, 100));
  inflight.Add({Index(3), Term(1), 40});
  inflight.Add({Index(5), Term(2), 40});
  EXPECT_TRUE(inflight.Full(2, 100));
  EXPECT_TRUE(inflight.Full(9, 80));
  EXPECT_FALSE(inflight.Full(9, 81));
  EXPECT_EQ(inflight.FreeTo(Index(4)), std::nullopt) << "no append ended at 4";
  EXPECT_EQ(inflight.messages(), 1u);
  EXPECT_EQ(inflight.bytes(), 40u);
  EXPECT_EQ(inflight.FreeTo(Index(5)), Term(2));
  EXPECT_TRUE(inflight.empty());
  inflight.Add({Index(6), Term(2), 40});
  inflight.Reset();
  EXPECT_EQ(inflight.bytes(), 0u);
}

// --- Errors ---

TEST(LogWindowDeathTest, GapsAndDescendingTermsAreBugs) {
  LogWindow window = Make(4, 2, {2});
  EXPECT_DEATH(window.Append(MakeEntry(Index(7), Term(2))), "CHECK");
  EXPECT_DEATH(window.Append(MakeEntry(Index(6), Term(1))), "CHECK");
  EXPECT_DEATH(window.CutFrom(Index(4)), "CHECK");
  EXPECT_DEATH(window.At(Index(4)), "CHECK");
  EXPECT_DEATH(Make(1, 0, {1}), "CHECK");
}

}  // namespace
}  // namespace quorate::raft
