// How many rows one command may look at (kRowsHardMax): what counts, and for which formats.
#include "storage/sqlite.h"
#include "storage/state_apply.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

class StateRows : public StateFixture {
 protected:
  // The least number of rows of which `times` ranges are too many.
  static constexpr uint64_t kTimes = 512;
  static constexpr uint64_t kFew = kRowsHardMax / kTimes;

  // SQL on the file while no State has it. The hash does not say so: nothing here asks for it.
  void Edit(const std::string& sql) {
    state.reset();
    {
      absl::StatusOr<Database> database =
          Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
      ASSERT_TRUE(database.ok()) << database.status();
      const absl::Status status = database->Execute(sql);
      ASSERT_TRUE(status.ok()) << status;
    }
    Reopen();
  }
  void PutMany(const std::string& prefix, uint64_t count) {
    for (uint64_t i = 0; i < count;) {
      v1::Command command;
      for (int n = 0; n < 500 && i < count; ++n, ++i)
        AddPut(command, prefix + std::to_string(i), "");
      script.Do(command);
    }
    ApplyAll();
  }
  static v1::Operation CountOf(const std::string& key, const std::string& end) {
    v1::Operation operation;
    operation.mutable_read()->set_key(key);
    operation.mutable_read()->set_range_end(end);
    operation.mutable_read()->set_count_only(true);
    return operation;
  }
  // Counts [k, l) so often, behind a put.
  v1::Answer CountKeys(uint32_t format, uint64_t times) {
    v1::Command command;
    command.set_format(format);
    AddPut(command, "other", "x");
    for (uint64_t i = 0; i < times; ++i) {
      *command.mutable_transaction()->add_then() = CountOf("k", "l");
    }
    return Run(command);
  }
  v1::Answer RollBack(uint32_t format, const std::string& key, const std::string& end,
                      uint64_t to) {
    v1::Command command;
    command.set_format(format);
    command.mutable_rollback()->set_key(key);
    command.mutable_rollback()->set_range_end(end);
    command.mutable_rollback()->set_to_revision(to);
    return Run(command);
  }
  void ExpectTooMany(const v1::Answer& answer) {
    EXPECT_EQ(answer.code(), 8) << answer.message();
    EXPECT_EQ(answer.reason(), "TOO_MANY_ROWS");
    EXPECT_EQ(answer.revision(), state->Summary().revision.value());
    EXPECT_EQ(answer.results_size(), 0);
  }
};

TEST_F(StateRows, RangesThatATransactionReadsAreCountedTogether) {
  Begin();
  PutMany("k", kFew);
  EXPECT_EQ(CountKeys(3, kTimes).code(), 0);
  const uint64_t revision = state->Summary().revision.value();
  ExpectTooMany(CountKeys(3, kTimes + 1));
  EXPECT_EQ(state->Summary().revision.value(), revision) << "the put before is not done either";
  // Rows of deleted keys are looked at, too.
  Delete("k", "l");
  EXPECT_EQ(CountKeys(3, kTimes).code(), 0);
  ExpectTooMany(CountKeys(3, kTimes + 1));
  ExpectHashAddsUp();
}

TEST_F(StateRows, WhatAnEarlierFormatMeantStays) {
  // All nodes of a cluster do the same, whichever build the ingress has.
  Begin();
  PutMany("k", kFew);
  const v1::Answer answer = CountKeys(2, kTimes + 1);
  EXPECT_EQ(answer.code(), 0) << answer.message();
  EXPECT_EQ(answer.results(static_cast<int>(kTimes)).count(), kFew);
}

TEST_F(StateRows, OnlyTheBranchThatRunsCounts) {
  Begin();
  PutMany("k", kFew);
  v1::Command command;
  command.set_format(3);
  AddCompare(command, "k0")->set_version(1);
  AddPut(command, "other", "x");
  for (uint64_t i = 0; i <= kTimes; ++i) {
    *command.mutable_transaction()->add_otherwise() = CountOf("k", "l");
  }
  EXPECT_EQ(Run(command).code(), 0);
  command.mutable_transaction()->mutable_compare(0)->set_version(2);
  ExpectTooMany(Run(command));
}

TEST_F(StateRows, DeletionsOfRangesCountToo) {
  Begin();
  PutMany("k", kFew);
  v1::Command command;
  command.set_format(3);
  // Of what is deleted already: the rows are there until they are compacted.
  Delete("k", "l");
  AddPut(command, "other", "x");
  for (uint64_t i = 0; i <= kTimes; ++i) AddDelete(command, "k", "l");
  ExpectTooMany(Run(command));
  EXPECT_EQ(Count(""), 0u);
  command.mutable_transaction()->mutable_then()->RemoveLast();
  EXPECT_EQ(Run(command).code(), 0);
  EXPECT_EQ(Count(""), 1u);
}

TEST_F(StateRows, ALongChainIsNotRolledBack) {
  Begin();
  Put("a", "1");
  Put("k", "1");  // revision 3
  // A million changes more, each of one revision.
  const std::string first = std::to_string(uint64_t{3} << 20);
  const std::string last = std::to_string(4 + kRowsHardMax);
  Edit("WITH RECURSIVE r(at) AS (SELECT 4 UNION ALL SELECT at + 1 FROM r WHERE at < " + last +
       ") INSERT INTO history SELECT at << 20, (at - 1) << 20, kind, create_revision, at - 2, ttl,"
       " wall_time_ms, log_time_ms, author, note, key, x'6e6577' FROM r, history WHERE row = " +
       first + "; UPDATE item SET row = " + last + " << 20, version = " + last +
       " - 2 WHERE key = CAST('k' AS BLOB); UPDATE store SET revision = " + last);
  EXPECT_EQ(Show("k"), "k=new@" + last + " v" + std::to_string(2 + kRowsHardMax));
  ExpectTooMany(RollBack(3, "k", "", 3));
  ExpectTooMany(RollBack(3, "a", "z", 3));
  EXPECT_EQ(Show("a"), "a=1@2 v1");
  // As far as the bound goes, and for an earlier format further.
  EXPECT_EQ(RollBack(3, "a", "b", 3).code(), 0) << "another key's chain does not matter";
  EXPECT_EQ(RollBack(3, "k", "", 3 + 100).code(), 0);
  EXPECT_EQ(RollBack(2, "k", "", 3).code(), 0);
  EXPECT_EQ(Show("k").substr(0, 4), "k=1@");
}

TEST_F(StateRows, ALargeRangeIsNotRolledBack) {
  Begin();
  Put("k", "1");
  Put("k", "2");
  // Keys that never change: rows all the same.
  Edit("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < " +
       std::to_string(kRowsHardMax) +
       ") INSERT INTO item SELECT CAST('m' || i AS BLOB), row, create_revision, 0 FROM r, item "
       "WHERE key = CAST('k' AS BLOB)");
  ExpectTooMany(RollBack(3, "k", "z", 2));
  EXPECT_EQ(RollBack(3, "k", "l", 2).code(), 0);
  EXPECT_EQ(Show("k").substr(0, 4), "k=1@");
}

}  // namespace
}  // namespace quorate::storage::testing
