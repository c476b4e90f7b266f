// What records mean, and where entries are: the two in-memory halves of the log.
#include "storage/log_state.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "storage/log_index.h"
#include "tests/storage/log_harness.h"

namespace quorate::storage {
namespace {

class LogStateTest : public testing::Test {
 protected:
  void Append(uint64_t index, uint64_t term) {
    absl::Status status = state_.ApplyEntry(raft::Index(index), raft::Term(term),
                                            raft::EntryType::kCommand, "payload");
    ASSERT_TRUE(status.ok()) << status;
  }
  void AppendMembership(uint64_t index, uint64_t term, uint64_t salt) {
    absl::Status status =
        state_.ApplyEntry(raft::Index(index), raft::Term(term), raft::EntryType::kMembership,
                          raft::EncodeMembership(MakeMembership(salt)));
    ASSERT_TRUE(status.ok()) << status;
  }
  absl::Status Generation(uint64_t number, uint64_t index, uint64_t term, uint64_t salt) {
    return state_.ApplyGeneration({number, raft::Index(index), raft::Term(term),
                                   raft::EncodeMembership(MakeMembership(salt))});
  }
  uint64_t TermAt(uint64_t index) {
    return state_.TermAt(raft::Index(index)).value_or(raft::Term(999)).value();
  }

  LogState state_;
};

TEST_F(LogStateTest, KnowsTheTermOfEveryEntry) {
  Append(1, 1);
  Append(2, 1);
  Append(3, 4);
  Append(4, 4);
  EXPECT_EQ(TermAt(0), 0u);
  EXPECT_EQ(TermAt(2), 1u);
  EXPECT_EQ(TermAt(3), 4u);
  EXPECT_EQ(TermAt(5), 999u);
  ASSERT_TRUE(state_.ApplyCut(raft::Index(2)).ok());
  EXPECT_EQ(state_.last_index(), raft::Index(1));
  EXPECT_EQ(TermAt(2), 999u);
  EXPECT_EQ(state_.last_term(), raft::Term(1));
  ASSERT_TRUE(state_.ApplyCut(raft::Index(1)).ok());
  EXPECT_EQ(state_.last_term(), raft::Term(0));
  Append(1, 7);
  EXPECT_EQ(TermAt(1), 7u);
}

TEST_F(LogStateTest, SurvivesItsOwnHeader) {
  AppendMembership(1, 1, 5);
  Append(2, 3);
  ASSERT_TRUE(state_.ApplyHardState({raft::Term(4), StoreId(9)}).ok());
  SegmentHeader header;
  state_.ToHeader(&header);
  EXPECT_TRUE(state_.CheckHeader(header).ok());
  auto again = LogState::FromHeader(header);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->first_index(), raft::Index(3));
  EXPECT_EQ(again->last_index(), raft::Index(2));
  EXPECT_EQ(again->last_term(), raft::Term(3));
  EXPECT_EQ(again->hard_state(), state_.hard_state());
  ASSERT_EQ(again->memberships().size(), 1u);
  EXPECT_EQ(again->memberships()[0], std::make_pair(raft::Index(1), MakeMembership(5)));
  SegmentHeader rewritten;
  again->ToHeader(&rewritten);
  EXPECT_EQ(rewritten, header);

  // Each difference is named.
  SegmentHeader wrong = header;
  wrong.hard_state.vote = StoreId(8);
  EXPECT_NE(state_.CheckHeader(wrong).message().find("vote"), absl::string_view::npos);
  wrong = header;
  wrong.prev_term = raft::Term(2);
  EXPECT_NE(state_.CheckHeader(wrong).message().find("before its first"), absl::string_view::npos);
  wrong = header;
  wrong.membership_index = raft::Index();
  EXPECT_NE(state_.CheckHeader(wrong).message().find("membership"), absl::string_view::npos);
  wrong = header;
  wrong.generation.generation = 1;
  EXPECT_NE(state_.CheckHeader(wrong).message().find("generation"), absl::string_view::npos);
  wrong = header;
  wrong.membership = "unreadable";
  EXPECT_FALSE(LogState::FromHeader(wrong).ok());
}

// A snapshot that the log reaches behind: what follows it is kept.
TEST_F(LogStateTest, AGenerationKeepsWhatFollowsItWhenTheTermsAgree) {
  AppendMembership(1, 1, 1);
  for (uint64_t i = 2; i <= 5; ++i) Append(i, 2);
  AppendMembership(6, 3, 6);
  Append(7, 3);
  ASSERT_TRUE(Generation(1, 4, 2, 1).ok());
  EXPECT_EQ(state_.first_index(), raft::Index(5));
  EXPECT_EQ(state_.last_index(), raft::Index(7));
  EXPECT_EQ(TermAt(3), 999u);
  EXPECT_EQ(TermAt(4), 2u);
  EXPECT_EQ(TermAt(5), 2u);
  EXPECT_EQ(TermAt(7), 3u);
  ASSERT_EQ(state_.memberships().size(), 2u);
  EXPECT_EQ(state_.memberships()[0].first, raft::Index(4));
  EXPECT_EQ(state_.memberships()[1].first, raft::Index(6));
  Append(8, 3);
  EXPECT_EQ(state_.generation().generation, 1u);

  ASSERT_TRUE(Generation(2, 8, 3, 2).ok()) << "exactly at the end";
  EXPECT_EQ(state_.first_index(), raft::Index(9));
  EXPECT_EQ(state_.last_index(), raft::Index(8));
  EXPECT_EQ(state_.last_term(), raft::Term(3));
  Append(9, 4);
}

TEST_F(LogStateTest, AGenerationCutsEverythingWhenTheyDoNot) {
  for (uint64_t i = 1; i <= 5; ++i) Append(i, 2);
  ASSERT_TRUE(Generation(1, 4, 3, 1).ok());
  EXPECT_EQ(state_.first_index(), raft::Index(5));
  EXPECT_EQ(state_.last_index(), raft::Index(4));
  EXPECT_EQ(state_.last_term(), raft::Term(3));
  ASSERT_TRUE(Generation(2, 100, 7, 2).ok()) << "far behind the end";
  EXPECT_EQ(state_.last_index(), raft::Index(100));
  Append(101, 7);
  EXPECT_EQ(state_.memberships().size(), 1u);
}

TEST_F(LogStateTest, AGenerationNeverGoesBack) {
  for (uint64_t i = 1; i <= 5; ++i) Append(i, 2);
  ASSERT_TRUE(Generation(3, 4, 2, 1).ok());
  EXPECT_FALSE(Generation(3, 5, 2, 1).ok());
  EXPECT_FALSE(Generation(4, 3, 2, 1).ok());
  EXPECT_FALSE(state_.ApplyGeneration({4, raft::Index(5), raft::Term(2), "unreadable"}).ok());
}

// --- The index, against a plain map ---

TEST(LogIndexTest, FindsWhatAMapWouldFind) {
  std::mt19937 random(7);
  LogIndex index;
  struct Place {
    uint64_t sequence;
    uint64_t offset;
  };
  std::map<uint64_t, Place> model;
  uint64_t sequence = 1;
  uint64_t offset = 4096;
  uint64_t last = 0;
  for (int step = 0; step < 20000; ++step) {
    const unsigned what = random() % 100;
    if (what < 2) {
      ++sequence;
      offset = 4096;
    } else if (what < 5 && last > 0) {
      const uint64_t from = last - std::min<uint64_t>(last - 1, random() % 300);
      index.Cut(raft::Index(from));
      model.erase(model.lower_bound(from), model.end());
      last = from - 1;
    } else {
      ++last;
      index.Append(raft::Index(last), sequence, offset);
      model[last] = {sequence, offset};
      offset += 100 + random() % 20000;
    }
    const uint64_t probe = 1 + random() % (last + 2);
    auto found = index.Find(raft::Index(probe));
    auto expected = model.find(probe);
    ASSERT_EQ(found.has_value(), expected != model.end()) << probe;
    if (!found) continue;
    EXPECT_EQ(found->sequence, expected->second.sequence);
    EXPECT_LE(found->offset, expected->second.offset);
    EXPECT_LT(expected->second.offset - found->offset, LogIndex::kPointBytes + 20100);
    EXPECT_LE(found->last.value(), last);
    // From there to the entry, and on to the run's end, there is only this segment, in order.
    for (uint64_t i = probe; i <= found->last.value(); ++i) {
      ASSERT_EQ(model.at(i).sequence, found->sequence);
      if (i > probe) {
        ASSERT_GT(model.at(i).offset, model.at(i - 1).offset);
      }
    }
  }
  EXPECT_LT(index.runs(), 600u) << "runs that were cut away are gone";
}

TEST(LogIndexTest, DropsInFront) {
  LogIndex index;
  for (uint64_t i = 1; i <= 10; ++i) index.Append(raft::Index(i), (i + 4) / 5, 4096 + i * 100);
  index.DropThrough(raft::Index(3));
  EXPECT_FALSE(index.Find(raft::Index(3)));
  EXPECT_TRUE(index.Find(raft::Index(4)));
  index.DropThrough(raft::Index(5));
  EXPECT_EQ(index.runs(), 1u);
  EXPECT_TRUE(index.Find(raft::Index(6)));
  index.DropThrough(raft::Index(10));
  EXPECT_FALSE(index.Find(raft::Index(10)));
  index.Append(raft::Index(11), 3, 4096);
  EXPECT_TRUE(index.Find(raft::Index(11)));
}

// --- A log with a generation record, as the next version of the writer leaves it ---

TEST(LogGeneration, IsReadInEitherPlace) {
  const LogOptions options = SmallLogOptions(64u << 10);
  for (bool kept : {true, false}) {
    SCOPED_TRACE(kept);
    SimDisk disk({kLogDirectory});
    LogWriter writer(&disk, options);
    ASSERT_TRUE(writer.Create() && writer.Membership(1) && writer.Entries(9, 200) && writer.Sync());
    const std::string path = "/log/0000000001.log";
    const std::string bytes = disk.Content(path);
    Record record;
    uint64_t end = 4096;
    while (ParseRecord(bytes, 0, {kLogStore, 1}, end, &record) == Parse::kRecord) end = record.end;
    RecordEncoder encoder({kLogStore, 1}, end, record.crc);
    encoder.AddGeneration(
        {2, raft::Index(6), raft::Term(kept ? 1 : 3), raft::EncodeMembership(MakeMembership(4))},
        4096);
    const uint64_t next = kept ? 11 : 7;
    encoder.AddEntry(*MakeEntry(next, 3, "after"), 4096);
    disk.Overwrite(path, end, encoder.Take());

    // First from a tail that recovery rewrites, then from the segments that it left.
    for (int start = 0; start < 3; ++start) {
      auto opened = Log::Open(&disk, options, raft::Index(6));
      ASSERT_TRUE(opened.ok()) << opened.status();
      const RecoveredLog& recovered = opened->second;
      EXPECT_EQ(recovered.generation, 2u);
      EXPECT_EQ(recovered.first_index, raft::Index(7));
      EXPECT_EQ(recovered.last_index, raft::Index(next));
      EXPECT_EQ(recovered.window_prev_index, raft::Index(6));
      EXPECT_EQ(recovered.window_prev_term, raft::Term(kept ? 1 : 3));
      EXPECT_EQ(recovered.window.size(), next - 6);
      ASSERT_EQ(recovered.memberships.size(), 1u);
      EXPECT_EQ(recovered.memberships[0], std::make_pair(raft::Index(6), MakeMembership(4)));
      EXPECT_TRUE(opened->first->Read(raft::Index(6), raft::Index(9), 1000)->empty());
      auto read = opened->first->Read(raft::Index(7), raft::Index(20), 1u << 20);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(read->size(), next - 6);
      EXPECT_EQ(read->back()->payload, "after");
    }
    // The database of an older generation does not reach the log's beginning.
    EXPECT_TRUE(absl::IsDataLoss(Log::Open(&disk, options, raft::Index(5)).status()));
  }
}

}  // namespace
}  // namespace quorate::storage
