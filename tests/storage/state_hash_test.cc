// The state hash: the same on every node at one index, however the entries came in, and another
// one when a row is not what it was.
#include "storage/state_hash.h"

#include <xxhash.h>

#include <map>

#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"
#include "tests/storage/state_workload.h"

namespace quorate::storage::testing {
namespace {

using ::testing::HasSubstr;

TEST(HashSum, AddsAndSubtractsModuloTwoToThe128) {
  const HashSum a(~uint64_t{0}, ~uint64_t{0}), b(5, 1);
  HashSum sum = a + b;
  EXPECT_EQ(sum, HashSum(4, 1));  // carried out of both halves
  sum -= b;
  EXPECT_EQ(sum, a);
  sum -= a;
  EXPECT_EQ(sum, HashSum());
  sum -= HashSum(1, 0);
  EXPECT_EQ(sum, a);
  StateHash bytes = HashSum(0x0102030405060708, 0xa0).bytes();
  EXPECT_EQ(bytes[0], 0x08);
  EXPECT_EQ(bytes[7], 0x01);
  EXPECT_EQ(bytes[8], 0xa0);
  EXPECT_EQ(HashSum::Of(bytes), HashSum(0x0102030405060708, 0xa0));
}

TEST(RowHasher, HashesTheCanonicalBytes) {
  RowHasher hasher;
  HashSum hash = hasher.Begin(HashedTable::kItem).Number(0x0102).Bytes("ab").Number(7).Finish();
  const char canonical[] =
      "\x03\x02\x01\0\0\0\0\0\0"
      "\x02\0\0\0\0\0\0\0"
      "ab"
      "\x07\0\0\0\0\0\0\0";
  XXH128_hash_t expected = XXH3_128bits(canonical, sizeof(canonical) - 1);
  EXPECT_EQ(hash, HashSum(expected.low64, expected.high64));
  // Lengths keep columns apart, and a buffer that was used before is clean.
  HashSum ab = hasher.Begin(HashedTable::kItem).Bytes("a").Bytes("b").Finish();
  EXPECT_NE(ab, hasher.Begin(HashedTable::kItem).Bytes("ab").Bytes("").Finish());
  EXPECT_NE(ab, hasher.Begin(HashedTable::kHistory).Bytes("a").Bytes("b").Finish());
  EXPECT_EQ(ab, hasher.Begin(HashedTable::kItem).Bytes("a").Bytes("b").Finish());
}

class StateHashes : public StateFixture {
 protected:
  using Recorded = std::vector<std::pair<raft::Index, StateHash>>;
  // Feeds entries in batches of `batch` to a new store of its own; the summary at the end.
  StateSummary Feed(const std::vector<raft::EntryPtr>& entries, size_t batch, bool reopen,
                    Recorded* recorded = nullptr) {
    Directory own;
    StateOptions own_options = options;
    own_options.directory = own.path();
    absl::StatusOr<std::unique_ptr<State>> node = State::Create(own_options);
    EXPECT_TRUE(node.ok()) << node.status();
    for (size_t i = 0; i < entries.size(); i += batch) {
      std::vector<raft::EntryPtr> some(
          entries.begin() + static_cast<ptrdiff_t>(i),
          entries.begin() + static_cast<ptrdiff_t>(std::min(i + batch, entries.size())));
      EXPECT_TRUE((*node)->Apply(some).ok());
      if (reopen) {
        node->reset();
        node = State::Open(own_options);
        EXPECT_TRUE(node.ok()) << node.status();
      }
    }
    absl::StatusOr<HashCheck> check = (*node)->CheckHash();
    EXPECT_TRUE(check.ok()) << check.status();
    EXPECT_EQ(check->kept, check->recomputed);
    EXPECT_EQ(check->kept, (*node)->Summary().hash);
    if (recorded != nullptr) *recorded = *(*node)->RecordedHashes();
    return (*node)->Summary();
  }
};

TEST_F(StateHashes, DoNotDependOnBatchesOrRestarts) {
  Workload workload(20261121);
  workload.Make(9000);
  const std::vector<raft::EntryPtr> entries = workload.Take();
  Recorded recorded[3];
  StateSummary all = Feed(entries, entries.size(), false, &recorded[0]);
  StateSummary some = Feed(entries, 61, false, &recorded[1]);
  StateSummary restarted = Feed(entries, 1500, true, &recorded[2]);
  EXPECT_EQ(all.applied, entries.back()->index);
  EXPECT_GT(all.revision.value(), 4000u);
  for (const StateSummary* other : {&some, &restarted}) {
    EXPECT_EQ(other->hash, all.hash);
    EXPECT_EQ(other->applied, all.applied);
    EXPECT_EQ(other->revision, all.revision);
    EXPECT_EQ(other->log_time_ms, all.log_time_ms);
    EXPECT_EQ(other->membership, all.membership);
  }
  ASSERT_EQ(recorded[0].size(), 2u);
  EXPECT_EQ(recorded[0][0].first, raft::Index(4096));
  EXPECT_EQ(recorded[0][1].first, raft::Index(8192));
  EXPECT_EQ(recorded[0], recorded[1]);
  EXPECT_EQ(recorded[0], recorded[2]);
}

TEST_F(StateHashes, OneEntryAtATimeGivesTheSame) {
  Workload workload(7);
  workload.Make(600);
  const std::vector<raft::EntryPtr> entries = workload.Take();
  EXPECT_EQ(Feed(entries, 1, false).hash, Feed(entries, 600, false).hash);
}

TEST_F(StateHashes, OnlyTheLatestAreRecorded) {
  Create();
  for (int i = 0; i < 20 * 4096; ++i) script.Noop();
  ApplyAll();
  absl::StatusOr<Recorded> recorded = state->RecordedHashes();
  ASSERT_TRUE(recorded.ok());
  ASSERT_EQ(recorded->size(), 16u);
  EXPECT_EQ(recorded->front().first, raft::Index(5 * 4096));
  EXPECT_EQ(recorded->back().first, raft::Index(20 * 4096));
  EXPECT_EQ(recorded->back().second, state->Summary().hash);
}

TEST_F(StateHashes, AnyDifferenceShows) {
  auto hash_of = [&](auto change) {
    Script one;
    one.Begin();
    v1::Command command = PutCommand("a", "1");
    command.set_author("alice");
    auto entry = std::make_shared<raft::Entry>(*one.Do(command));
    change(*entry, command);
    if (entry->payload.empty()) {
      *command.mutable_session() = Script::Position(1, 0);
      command.set_format(1);
      entry->payload = command.SerializeAsString();
    }
    std::vector<raft::EntryPtr> entries = one.Take();
    entries.back() = entry;
    return Feed(entries, 100, false).hash;
  };
  auto edit = [&](auto change) {
    return hash_of([&](raft::Entry& entry, v1::Command& command) {
      change(command);
      entry.payload.clear();
    });
  };
  std::map<StateHash, int> seen;
  seen[hash_of([](raft::Entry&, v1::Command&) {})]++;
  EXPECT_EQ(seen.count(edit([](v1::Command&) {})), 1u);  // the same once more
  seen[hash_of([](raft::Entry& e, v1::Command&) { e.wall_time_ms += 1; })]++;
  seen[hash_of([](raft::Entry& e, v1::Command&) { e.log_time_ms += 1; })]++;
  seen[edit([](v1::Command& c) { c.set_author("bob"); })]++;
  seen[edit([](v1::Command& c) { c.set_note("n"); })]++;
  auto put = [](v1::Command& c) { return c.mutable_transaction()->mutable_then(0)->mutable_put(); };
  seen[edit([&](v1::Command& c) { put(c)->set_key("b"); })]++;
  seen[edit([&](v1::Command& c) { put(c)->set_value("2"); })]++;
  seen[edit([&](v1::Command& c) { put(c)->set_value_kind(v1::VALUE_KIND_DATA); })]++;
  seen[edit([](v1::Command& c) { c.mutable_skip(); })]++;
  EXPECT_EQ(seen.size(), 9u);
}

// --- Errors: a row that has changed by itself ---

class FlippedRow : public StateHashes, public ::testing::WithParamInterface<const char*> {};

TEST_P(FlippedRow, IsFound) {
  Begin();
  for (int i = 0; i < 30; ++i) script.Put("k" + std::to_string(i), "value");
  script.Delete("k3");
  ApplyAll();
  state.reset();
  {
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok());
    absl::Status status = database->Execute(GetParam());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(*database->QueryInt("SELECT changes()"), 1);
  }
  Reopen();
  absl::StatusOr<HashCheck> check = state->CheckHash();
  ASSERT_TRUE(check.ok()) << check.status();
  EXPECT_EQ(check->applied, script.index());
  EXPECT_NE(check->kept, check->recomputed);
}

INSTANTIATE_TEST_SUITE_P(
    Statement, FlippedRow,
    ::testing::Values("UPDATE history SET value = x'76616c7566' WHERE row = (SELECT row FROM item"
                      " WHERE key = CAST('k7' AS BLOB))",
                      "UPDATE history SET note = 'x' WHERE row = 2 << 20",
                      "UPDATE history SET previous = 1 WHERE row = 2 << 20",
                      "UPDATE item SET version = 2 WHERE key = CAST('k9' AS BLOB)",
                      "UPDATE item SET version = 1 WHERE version = 0",
                      "DELETE FROM item WHERE version = 0", "DELETE FROM history WHERE kind = 3",
                      "UPDATE store SET log_time_ms = log_time_ms + 1",
                      "UPDATE store SET revision = revision + 1",
                      "UPDATE store SET hash = zeroblob(16)",
                      "UPDATE session SET nonce = nonce + 1", "UPDATE membership SET at = at + 1"));

}  // namespace
}  // namespace quorate::storage::testing
