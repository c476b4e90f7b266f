// The database as a file: how it is made, what is checked when it is opened, checkpoints and what
// they make durable, and every reason to refuse.
#include <sqlite3.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "storage/crc32c.h"
#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class StateFile : public StateFixture {
 protected:
  std::string Path(const char* suffix = "") { return StatePath(directory.path(), 1) + suffix; }
  uint64_t Size(const char* suffix) {
    struct stat status;
    return stat(Path(suffix).c_str(), &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
  }
  // SQL on the file while no State has it.
  void Edit(const std::string& sql) {
    state.reset();
    absl::StatusOr<Database> database = Database::Open(Path(), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok()) << database.status();
    absl::Status status = database->Execute(sql);
    ASSERT_TRUE(status.ok()) << status;
  }
  void ExpectRefused(absl::StatusCode code, std::string_view reason) {
    state.reset();
    absl::StatusOr<std::unique_ptr<State>> opened = State::Open(options);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.status().code(), code) << opened.status();
    EXPECT_THAT(std::string(opened.status().message()),
                AllOf(HasSubstr(reason), HasSubstr("state-1")));
  }
  absl::Status Apply(std::vector<raft::EntryPtr> entries) { return state->Apply(entries).status(); }
};

// A copy that comes from another node must have this build's tables, word for word (CheckSchema),
// and that node may run another build: so the words belong to the format. Who changes one, or a
// space, makes a new format.
TEST_F(StateFile, TheWordsOfItsFormatAreForEver) {
  Begin();
  absl::StatusOr<Database> reader = OpenStateReader(Path(), Database::Mode::kReadOnly);
  ASSERT_TRUE(reader.ok()) << reader.status();
  absl::StatusOr<Statement> select =
      reader->Prepare("SELECT ifnull(sql, name) FROM sqlite_schema ORDER BY type, name");
  ASSERT_TRUE(select.ok()) << select.status();
  std::string words;
  while (*select->Step()) words.append(select->Bytes(0)) += '\n';
  EXPECT_EQ(kStateFormat, 3);
  EXPECT_EQ(Crc32c(words), 1301283869u) << words;
}

TEST_F(StateFile, IsMadeAsTheDesignSays) {
  Begin();
  state.reset();
  absl::StatusOr<Database> writer = OpenStateWriter(options);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ(*writer->QueryInt("PRAGMA application_id"), kStateApplicationId);
  EXPECT_EQ(*writer->QueryInt("PRAGMA user_version"), kStateFormat);
  EXPECT_EQ(*writer->QueryInt("PRAGMA page_size"), static_cast<int64_t>(kStatePageBytes));
  EXPECT_EQ(*writer->QueryInt("PRAGMA auto_vacuum"), 2);  // incremental
  EXPECT_EQ(*writer->QueryInt("PRAGMA secure_delete"), 0);
  EXPECT_EQ(*writer->QueryInt("PRAGMA synchronous"), 1);  // NORMAL
  EXPECT_EQ(*writer->QueryInt("PRAGMA wal_autocheckpoint"), 0);
  int no_checkpoint = 0;
  sqlite3_db_config(writer->handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1, &no_checkpoint);
  EXPECT_EQ(no_checkpoint, 1);
  // Readers cannot write.
  absl::StatusOr<Database> reader = OpenStateReader(Path());
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader->Execute("DELETE FROM item").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StateFile, AnInterruptedCreationIsBegunAgain) {
  const std::string unfinished = directory.path() + "/state-1.new";
  std::filesystem::create_directory(unfinished);
  for (const char* name : {"state.db", "state.db-wal", "state.db-journal", "state.db-shm"}) {
    std::ofstream(unfinished + "/" + name) << "half of something";
  }
  Begin();
  Put("a", "1");
  EXPECT_FALSE(std::filesystem::exists(unfinished));
  ExpectHashAddsUp();
}

TEST_F(StateFile, ClosingKeepsTheWriteAheadLogAndEverythingInIt) {
  Begin();
  Put("a", "1");
  const StateSummary before = state->Summary();
  Reopen();
  EXPECT_GT(Size("-wal"), 0u);
  EXPECT_EQ(Show("a"), "a=1@2 v1");
  StateSummary after = state->Summary();
  EXPECT_EQ(after.applied, before.applied);
  EXPECT_EQ(after.applied_term, before.applied_term);
  EXPECT_EQ(after.revision, before.revision);
  EXPECT_EQ(after.log_time_ms, before.log_time_ms);
  EXPECT_EQ(after.membership, before.membership);
  EXPECT_EQ(after.membership_index, before.membership_index);
  EXPECT_EQ(after.birth_complete, before.birth_complete);
  EXPECT_EQ(after.hash, before.hash);
}

TEST_F(StateFile, DurableAppliedFollowsCheckpointsOfThisProcessOnly) {
  Begin();
  EXPECT_EQ(state->durable_applied(), raft::Index(0));
  Put("a", "1");
  EXPECT_EQ(state->durable_applied(), raft::Index(0));
  ASSERT_EQ(*state->Checkpoint(), true);
  EXPECT_EQ(state->durable_applied(), script.index());
  EXPECT_EQ(Size("-wal"), 0u);
  const raft::Index then = script.index();
  Put("a", "2");
  EXPECT_EQ(state->durable_applied(), then);
  Reopen();
  EXPECT_EQ(state->durable_applied(), raft::Index(0));
  EXPECT_EQ(state->Summary().applied, script.index());
  ASSERT_EQ(*state->Checkpoint(), true);
  EXPECT_EQ(state->Summary().durable_applied, script.index());
}

TEST_F(StateFile, TheWriteAheadLogIsEmptiedAboveItsLimit) {
  options.wal_bytes_max = 256u << 10;
  Begin();
  uint64_t largest = 0;
  raft::Index durable;
  int advanced = 0;
  for (int batch = 0; batch < 100; ++batch) {
    for (int i = 0; i < 10; ++i) script.Put("k" + std::to_string(i), std::string(1000, 'x'));
    ApplyAll();
    largest = std::max(largest, Size("-wal"));
    if (state->durable_applied() > durable) ++advanced;
    durable = state->durable_applied();
  }
  EXPECT_LT(largest, (256u << 10) + (64u << 10));
  EXPECT_GT(largest, 128u << 10);
  EXPECT_GT(advanced, 3);
  ExpectHashAddsUp();
}

TEST_F(StateFile, ACheckpointThatAnotherProcessHoldsUpIsTriedAgain) {
  Begin();
  Put("a", "1");
  absl::StatusOr<Database> other = Database::Open(Path(), Database::Mode::kReadOnly);
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(other->Execute("BEGIN; SELECT * FROM store;").ok());
  Put("a", "2");
  EXPECT_EQ(*state->Checkpoint(), false);
  EXPECT_EQ(state->durable_applied(), raft::Index(0));
  Put("a", "3");
  EXPECT_EQ(Show("a"), "a=3@4 v3");
  ASSERT_TRUE(other->Execute("ROLLBACK").ok());
  EXPECT_EQ(*state->Checkpoint(), true);
  EXPECT_EQ(state->durable_applied(), script.index());
}

// --- Errors: what is refused at the start ---

TEST_F(StateFile, CreateRefusesToReplaceOne) {
  Begin();
  Put("a", "1");
  EXPECT_EQ(State::Create(options).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Show("a"), "a=1@2 v1");
}

TEST_F(StateFile, CreateSaysWhichDirectoryItCannotWrite) {
  options.directory = directory.path() + "/not/there";
  absl::Status status = State::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/not/there"));
}

TEST_F(StateFile, ADatabaseOfAnotherClusterIsRefused) {
  Begin();
  options.cluster = ClusterId(0x77);
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "c1c1c1c1c1c1c1c1");
}

TEST_F(StateFile, ANewerFormatIsRefused) {
  Begin();
  Edit("PRAGMA user_version = " + std::to_string(kStateFormat + 1));
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "newer version");
}

TEST_F(StateFile, WhatIsNoStateDatabaseIsRefused) {
  Begin();
  Edit("PRAGMA application_id = 5");
  ExpectRefused(absl::StatusCode::kDataLoss, "application id 5");
}

TEST_F(StateFile, AFormatOfZeroIsRefused) {
  Begin();
  Edit("PRAGMA user_version = 0");
  ExpectRefused(absl::StatusCode::kDataLoss, "format number is 0");
}

TEST_F(StateFile, AMissingGenerationIsNotFound) {
  ExpectRefused(absl::StatusCode::kNotFound, "there is no");
}

TEST_F(StateFile, AMissingFileInItsDirectoryIsALoss) {
  Begin();
  state.reset();
  std::filesystem::remove(Path());
  ExpectRefused(absl::StatusCode::kDataLoss, "missing");
}

TEST_F(StateFile, AnEmptyFileIsALoss) {
  Begin();
  state.reset();
  std::filesystem::remove(Path("-wal"));
  std::filesystem::resize_file(Path(), 0);
  ExpectRefused(absl::StatusCode::kDataLoss, "start it again");
}

TEST_F(StateFile, AStoreWithoutItsRowIsALoss) {
  Begin();
  Edit("DELETE FROM store");
  ExpectRefused(absl::StatusCode::kDataLoss, "`store` is empty");
}

TEST_F(StateFile, ARevisionOfZeroIsALoss) {
  Begin();
  Edit("UPDATE store SET revision = 0");
  ExpectRefused(absl::StatusCode::kDataLoss, "revision is 0");
}

TEST_F(StateFile, AHashOfTheWrongSizeIsALoss) {
  Begin();
  Edit("UPDATE store SET hash = x'00'");
  ExpectRefused(absl::StatusCode::kDataLoss, "16 bytes");
}

TEST_F(StateFile, AMissingTableIsALoss) {
  Begin();
  Edit("DROP TABLE history");
  ExpectRefused(absl::StatusCode::kDataLoss, "no such table");
}

TEST_F(StateFile, AMembershipThatNoEntrySaidIsALoss) {
  Begin();
  Edit("UPDATE membership SET bytes = x'0102'");
  ExpectRefused(absl::StatusCode::kDataLoss, "membership");
  Edit("UPDATE membership SET bytes = x'0402'");
  ExpectRefused(absl::StatusCode::kFailedPrecondition, "newer version");
}

TEST_F(StateFile, AnOverwrittenHeaderIsALoss) {
  Begin();
  ASSERT_EQ(*state->Checkpoint(), true);
  state.reset();
  std::filesystem::remove(Path("-wal"));
  std::fstream file(Path(), std::ios::in | std::ios::out | std::ios::binary);
  file << "this was a database once";
  file.close();
  ExpectRefused(absl::StatusCode::kDataLoss, "start it again");
}

TEST_F(StateFile, ATruncatedFileIsALoss) {
  Begin();
  for (int i = 0; i < 100; ++i) script.Put("k" + std::to_string(i), std::string(500, 'x'));
  ApplyAll();
  ASSERT_EQ(*state->Checkpoint(), true);
  state.reset();
  std::filesystem::remove(Path("-wal"));
  std::filesystem::resize_file(Path(), std::filesystem::file_size(Path()) / 2);
  ExpectRefused(absl::StatusCode::kDataLoss, "start it again");
}

TEST_F(StateFile, ADamagedPageIsALossForWhoReadsIt) {
  Begin();
  for (int i = 0; i < 2000; ++i) script.Put("k" + std::to_string(i), std::string(100, 'x'));
  ApplyAll();
  ASSERT_EQ(*state->Checkpoint(), true);
  state.reset();
  std::filesystem::remove(Path("-wal"));
  // Everything but the first pages, which hold the schema and the store's own row.
  std::fstream file(Path(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(16 * 4096);
  const std::string noise(std::filesystem::file_size(Path()) - 16 * 4096, '\xa5');
  file << noise;
  file.close();
  Reopen();
  absl::StatusOr<ListPage> page = state->List({});
  EXPECT_EQ(page.status().code(), absl::StatusCode::kDataLoss) << page.status();
  EXPECT_EQ(state->CheckHash().status().code(), absl::StatusCode::kDataLoss);
  // The writer too: the caller ends the process, and the next call does not pretend.
  for (int i = 0; i < 200; ++i) script.Put("k" + std::to_string(i * 7), "y");
  absl::Status status = Apply(script.Take());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("start it again"));
  script.Noop();
  EXPECT_EQ(Apply(script.Take()).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(state->Checkpoint().status().code(), absl::StatusCode::kDataLoss);
}

// --- Errors: entries that this build does not understand end the node ---

class UnknownEntries : public StateFile {
 protected:
  // A good entry before and after: none of the batch is applied, and the State stays broken.
  void ExpectEnd(absl::StatusCode code, std::string_view reason) {
    script.Put("after", "x");
    const StateSummary before = state->Summary();
    absl::Status status = Apply(script.Take());
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
    EXPECT_THAT(std::string(status.message()), HasSubstr("log entry 5"));
    EXPECT_EQ(state->Summary().applied, before.applied);
    EXPECT_EQ(state->Summary().hash, before.hash);
    EXPECT_EQ(Show("before"), "NOT_FOUND");
    EXPECT_EQ(Show("after"), "NOT_FOUND");
    EXPECT_EQ(state->FindSession(StoreId(kIngress))->last_sequence, 0u);
    Script other;
    other.Noop();
    EXPECT_EQ(Apply(other.Take()).code(), code);
    Reopen();
    EXPECT_EQ(state->Summary().hash, before.hash);
    ExpectHashAddsUp();
  }
  void BeginBatch() {
    Begin();
    script.Put("before", "x");
  }
};

TEST_F(UnknownEntries, AHigherCommandFormat) {
  BeginBatch();
  v1::Command command = PutCommand("a", "1");
  command.set_format(kCommandFormat + 1);
  script.Raw(command);
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "has format 4");
}

TEST_F(UnknownEntries, ACommandWithoutFormat) {
  BeginBatch();
  v1::Command command = PutCommand("a", "1");
  script.Add(raft::EntryType::kCommand, command.SerializeAsString());
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "has format 0");
}

TEST_F(UnknownEntries, ACommandWithoutABodyThatWeKnow) {
  BeginBatch();
  v1::Command command;
  *command.mutable_session() = Script::Position(2, 0);
  script.Raw(command);
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "has a body");
}

TEST_F(UnknownEntries, AFieldThatWeDoNotKnow) {
  BeginBatch();
  v1::Command command = PutCommand("a", "1");
  command.set_format(1);
  // Field 6, a string: what a newer build may have put there.
  script.Add(raft::EntryType::kCommand, command.SerializeAsString() + "\x32\x01x");
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "has fields");
}

TEST_F(UnknownEntries, BytesThatAreNoCommand) {
  BeginBatch();
  script.Add(raft::EntryType::kCommand, "\xff\xff\xff");
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "cannot be parsed");
}

TEST_F(UnknownEntries, ATypeThatWeDoNotKnow) {
  BeginBatch();
  script.Add(static_cast<raft::EntryType>(9), "");
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "has type 9");
}

TEST_F(UnknownEntries, AMembershipThatCannotBeRead) {
  BeginBatch();
  script.Add(raft::EntryType::kMembership, "what?");
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "membership");
}

TEST_F(UnknownEntries, AMembershipOfAnotherCluster) {
  BeginBatch();
  script.Members(MembersOf({kIngress}, 0x1234));
  ExpectEnd(absl::StatusCode::kFailedPrecondition, "0000000000001234");
}

using StateFileDeathTest = StateFile;

TEST_F(StateFileDeathTest, AGapInTheEntriesIsABug) {
  Begin();
  script.Noop();
  script.Take();
  script.Noop();
  EXPECT_DEATH(Apply(script.Take()).IgnoreError(), "without a gap");
}

}  // namespace
}  // namespace quorate::storage::testing
