// Settings of the cluster in the state machine, and databases of the formats before them.
#include <filesystem>

#include "storage/command_check.h"
#include "storage/sqlite.h"
#include "storage/state_schema.h"
#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

v1::Command LeasesCommand(std::optional<bool> on) {
  v1::Command command;
  command.set_format(3);
  command.mutable_set_settings();
  if (on) command.mutable_set_settings()->set_leases(*on);
  return command;
}

class StateSettings : public StateFixture {
 protected:
  // The answer: "on" or "off".
  std::string SetLeases(std::optional<bool> on) {
    const v1::Answer answer = Run(LeasesCommand(on));
    EXPECT_EQ(answer.code(), 0) << answer.message();
    EXPECT_EQ(answer.revision(), state->Summary().revision.value());
    const auto found = answer.metadata().find("leases");
    return found == answer.metadata().end() ? "" : found->second;
  }
  // SQL on the file while no State has it.
  void Edit(const std::string& sql) {
    state.reset();
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    ASSERT_TRUE(database.ok()) << database.status();
    const absl::Status status = database->Execute(sql);
    ASSERT_TRUE(status.ok()) << status;
  }
  // All that there is, as SQL.
  std::string Schema() {
    state.reset();
    absl::StatusOr<Database> database =
        Database::Open(StatePath(directory.path(), 1), Database::Mode::kReadWrite);
    EXPECT_TRUE(database.ok()) << database.status();
    absl::StatusOr<Statement> select =
        database->Prepare("SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY type, name");
    EXPECT_TRUE(select.ok()) << select.status();
    std::string schema;
    for (absl::StatusOr<bool> row = select->Step(); row.ok() && *row; row = select->Step()) {
      schema += std::string(select->Bytes(0)) + ";\n";
    }
    return schema + std::to_string(*database->QueryInt("PRAGMA user_version"));
  }
  void ExpectRefused(absl::StatusCode code, std::string_view reason) {
    state.reset();
    const absl::Status status = State::Open(options).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(std::string(reason)), HasSubstr("state-1")));
  }
};

TEST_F(StateSettings, LeasesAreOffUntilTheyAreSet) {
  Begin();
  EXPECT_FALSE(state->leases());
  const uint64_t revision = state->Summary().revision.value();
  EXPECT_EQ(SetLeases(true), "on");
  EXPECT_TRUE(state->leases());
  EXPECT_TRUE(state->Summary().leases);
  ExpectHashAddsUp();
  EXPECT_EQ(SetLeases(std::nullopt), "on") << "what is absent stays";
  EXPECT_EQ(SetLeases(false), "off");
  EXPECT_FALSE(state->leases());
  EXPECT_EQ(state->Summary().revision.value(), revision) << "no change of the store";
  ExpectHashAddsUp();
}

TEST_F(StateSettings, AreAppliedInTheOrderOfTheLog) {
  Begin();
  // In one batch, with a repeat of the first: what was executed once is not executed again.
  script.Do(LeasesCommand(true));
  script.Do(LeasesCommand(false));
  v1::Command repeat = LeasesCommand(true);
  *repeat.mutable_session() = Script::Position(1, 0);
  script.Raw(repeat);
  const std::vector<Applied> outcomes = ApplyAll();
  ASSERT_EQ(outcomes.size(), 3u);
  EXPECT_TRUE(outcomes[2].duplicate);
  EXPECT_EQ(Parse(outcomes[2].answer).metadata().at("leases"), "on") << "as it was then";
  EXPECT_FALSE(state->leases());
}

TEST_F(StateSettings, OutliveARestartAndGoWithACopy) {
  Begin();
  SetLeases(true);
  const StateHash hash = state->Summary().hash;
  Reopen();
  EXPECT_TRUE(state->leases());
  EXPECT_EQ(state->Summary().hash, hash);
  ExpectHashAddsUp();

  Directory other;
  const std::atomic<bool> never{false};
  const absl::StatusOr<StateCopy> copy = state->Copy(other.path() + "/copy", never);
  ASSERT_TRUE(copy.ok()) << copy.status();
  std::filesystem::create_directory(other.path() + "/state-1");
  std::filesystem::rename(copy->path, other.path() + "/state-1/state.db");
  options.directory = other.path();
  Reopen();
  EXPECT_TRUE(state->leases());
  EXPECT_EQ(SetLeases(false), "off");
  ExpectHashAddsUp();
}

TEST_F(StateSettings, AreInTheHash) {
  // Three stores that have applied as many entries: of no setting, off, and on.
  std::vector<StateHash> hashes;
  for (const std::optional<bool> leases : {std::optional<bool>(), {false}, {true}}) {
    Directory own;
    options.directory = own.path();
    script = Script();
    Begin();
    SetLeases(leases);
    // What the answers said is another's row of the hash: forgotten by now.
    for (int i = 0; i < 10; ++i) Put("k", "v");
    ExpectHashAddsUp();
    hashes.push_back(state->Summary().hash);
    state.reset();
  }
  EXPECT_NE(hashes[0], hashes[1]) << "that it was set once is a row";
  EXPECT_NE(hashes[1], hashes[2]);
  EXPECT_NE(hashes[0], hashes[2]);
}

// --- Databases of older builds ---

class OlderFormat : public StateSettings, public ::testing::WithParamInterface<int> {};

TEST_P(OlderFormat, IsBroughtToThisOne) {
  Begin();
  const std::string schema = Schema();
  Reopen();
  Put("a", "1");
  Put("b", "2");
  Delete("a");
  const StateHash hash = state->Summary().hash;
  Edit(ToOlderFormat(GetParam()));
  ASSERT_NE(Schema(), schema);
  Reopen();
  EXPECT_EQ(state->Summary().hash, hash) << "a node that was never of that format has it too";
  EXPECT_FALSE(state->leases());
  ExpectHashAddsUp();
  EXPECT_EQ(ShowAll(), std::vector<std::string>{"b=2@3 v1"});

  // Commands of all formats go on from there.
  v1::Command grant;
  grant.set_format(2);
  grant.mutable_grant_ttl()->set_ttl_ms(1000);
  EXPECT_EQ(Run(grant).results(0).ttl_ms(), 1000u);
  EXPECT_EQ(state->Summary().ttls, 1u);
  v1::Command named = PutCommand("c", "3");
  named.set_format(2);
  named.mutable_client_request()->set_id("r");
  named.mutable_client_request()->set_revision(1);
  named.mutable_client_request()->set_command_hash(std::string(16, 'h'));
  EXPECT_EQ(Run(named).code(), 0);
  EXPECT_EQ(state->Summary().request_ids, 1u);
  EXPECT_EQ(SetLeases(true), "on");
  ExpectHashAddsUp();
  EXPECT_EQ(Schema(), schema) << "nothing is missing, nothing is left over";
}

INSTANTIATE_TEST_SUITE_P(Format, OlderFormat, ::testing::Values(1, 2));

TEST_F(StateSettings, AnOlderDatabaseThatHasItsTableAlreadyIsNotGuessedAt) {
  Begin();
  Edit("PRAGMA user_version = 2");
  state.reset();
  EXPECT_FALSE(State::Open(options).ok());
}

// --- Errors ---

TEST_F(StateSettings, WhatNoEntryCanHaveWrittenIsALoss) {
  Begin();
  SetLeases(true);
  Edit("UPDATE setting SET value = 2");
  ExpectRefused(absl::StatusCode::kDataLoss, "setting");
  Edit("UPDATE setting SET value = 1, name = 'other'");
  ExpectRefused(absl::StatusCode::kDataLoss, "setting");
  Edit("DROP TABLE setting");
  ExpectRefused(absl::StatusCode::kDataLoss, "no such table");
}

TEST_F(StateSettings, AFlippedOneIsFoundByTheHash) {
  Begin();
  SetLeases(true);
  Edit("UPDATE setting SET value = 0");
  Reopen();
  absl::StatusOr<std::pair<raft::Index, StateHash>> hash = state->RecomputeHash();
  EXPECT_TRUE(!hash.ok() || hash->second != state->Summary().hash);
}

TEST_F(StateSettings, ASettingOfANewerBuildIsNotSkipped) {
  v1::Command command = LeasesCommand(true);
  EXPECT_TRUE(CheckCommand(command.SerializeAsString()).ok());
  command.mutable_set_settings()
      ->GetReflection()
      ->MutableUnknownFields(command.mutable_set_settings())
      ->AddVarint(99, 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckCommand(command.SerializeAsString())));
}

}  // namespace
}  // namespace quorate::storage::testing
