// Verbs for tests of the state machine: a log that is written entry by entry, and a directory.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/state.h"

namespace quorate::storage::testing {

// A directory of its own, removed at the end.
class Directory {
 public:
  Directory() {
    std::string name = (std::filesystem::temp_directory_path() / "quorate-state-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline constexpr uint64_t kCluster = 0xc1c1c1c1c1c1c1c1;
inline constexpr uint64_t kIngress = 0xa1;  // the store whose session the verbs use
inline constexpr uint64_t kBoot = 7;
inline constexpr uint64_t kNonce = 0xdddddddddddddddd;

inline raft::Membership MembersOf(const std::vector<uint64_t>& stores,
                                  uint64_t cluster = kCluster) {
  raft::Membership membership;
  membership.cluster = ClusterId(cluster);
  for (uint64_t store : stores) {
    raft::Member member;
    member.store = StoreId(store);
    member.name = "node-" + std::to_string(store);
    member.address = "127.0.0.1:7000";
    member.voter = true;
    membership.members.push_back(member);
  }
  return membership;
}

inline v1::PutOperation* AddPut(v1::Command& command, std::string_view key, std::string_view value,
                                v1::ValueKind kind = v1::VALUE_KIND_TEXT) {
  v1::PutOperation* put = command.mutable_transaction()->add_then()->mutable_put();
  put->set_key(std::string(key));
  put->set_value(std::string(value));
  put->set_value_kind(kind);
  return put;
}

inline void AddDelete(v1::Command& command, std::string_view key, std::string_view end = {}) {
  v1::DeleteOperation* remove = command.mutable_transaction()->add_then()->mutable_delete_();
  remove->set_key(std::string(key));
  remove->set_range_end(std::string(end));
}

inline v1::Compare* AddCompare(v1::Command& command, std::string_view key,
                               v1::Compare::Result result = v1::Compare::RESULT_EQUAL) {
  v1::Compare* compare = command.mutable_transaction()->add_compare();
  compare->set_key(std::string(key));
  compare->set_result(result);
  return compare;
}

inline v1::Command PutCommand(std::string_view key, std::string_view value) {
  v1::Command command;
  AddPut(command, key, value);
  return command;
}

inline v1::Command DeleteCommand(std::string_view key, std::string_view end = {}) {
  v1::Command command;
  AddDelete(command, key, end);
  return command;
}

// Writes a log: each verb makes the next entry. Commands take the next sequence of the ingress's
// session unless they bring a position.
class Script {
 public:
  raft::EntryPtr Add(raft::EntryType type, std::string payload) {
    auto entry = std::make_shared<raft::Entry>();
    entry->index = ++index_;
    entry->term = term_;
    entry->type = type;
    entry->log_time_ms = index_.value() * 10 + passed_ms_;
    entry->wall_time_ms = 1'700'000'000'000 + static_cast<int64_t>(index_.value());
    entry->payload = std::move(payload);
    entries_.push_back(entry);
    return entry;
  }
  raft::EntryPtr Noop() { return Add(raft::EntryType::kNoop, ""); }
  raft::EntryPtr BirthComplete() { return Add(raft::EntryType::kBirthComplete, ""); }
  raft::EntryPtr Members(const raft::Membership& membership) {
    return Add(raft::EntryType::kMembership, raft::EncodeMembership(membership));
  }
  raft::EntryPtr Raw(v1::Command command) {
    if (command.format() == 0) command.set_format(1);
    return Add(raft::EntryType::kCommand, command.SerializeAsString());
  }
  raft::EntryPtr Open(uint64_t store = kIngress, uint64_t boot = kBoot, uint64_t nonce = kNonce) {
    v1::Command command;
    command.mutable_open_session()->set_store(store);
    command.mutable_open_session()->set_boot(boot);
    command.mutable_open_session()->set_nonce(nonce);
    return Raw(command);
  }
  raft::EntryPtr Do(v1::Command command) {
    ++sequence_;
    *command.mutable_session() = Position(sequence_, sequence_ > 8 ? sequence_ - 8 : 0);
    return Raw(std::move(command));
  }
  raft::EntryPtr Put(std::string_view key, std::string_view value) {
    return Do(PutCommand(key, value));
  }
  raft::EntryPtr Delete(std::string_view key, std::string_view end = {}) {
    return Do(DeleteCommand(key, end));
  }
  // What every script begins with: three founders, birth, a session.
  void Begin() {
    Members(MembersOf({kIngress, 0xa2, 0xa3}));
    BirthComplete();
    Open();
  }

  static v1::SessionPosition Position(uint64_t sequence, uint64_t answered_through,
                                      uint64_t store = kIngress, uint64_t boot = kBoot,
                                      uint64_t nonce = kNonce) {
    v1::SessionPosition position;
    position.set_store(store);
    position.set_boot(boot);
    position.set_nonce(nonce);
    position.set_sequence(sequence);
    position.set_answered_through(answered_through);
    return position;
  }

  void NextTerm() { ++term_; }
  // Log time goes on by this much more than entries make it.
  void Pass(uint64_t ms) { passed_ms_ += ms; }
  raft::Index index() const { return index_; }
  // The entries made since the last call.
  std::vector<raft::EntryPtr> Take() { return std::exchange(entries_, {}); }

 private:
  raft::Index index_;
  raft::Term term_{1};
  uint64_t sequence_ = 0;
  uint64_t passed_ms_ = 0;
  std::vector<raft::EntryPtr> entries_;
};

// Makes a database of this build one of format 1 or 2, as the builds of then made it.
inline std::string ToOlderFormat(int format) {
  std::string sql = "DROP TABLE setting;";
  if (format == 1) {
    sql +=
        "DROP TABLE request_ids; DROP TABLE request_id_bounds; DROP TABLE ttl; DROP TABLE ttl_key;";
  }
  return sql + "PRAGMA user_version = " + std::to_string(format) + ";";
}

inline v1::Answer Parse(const std::shared_ptr<const std::string>& bytes) {
  v1::Answer answer;
  EXPECT_TRUE(bytes != nullptr && answer.ParseFromString(*bytes));
  return answer;
}

// A state machine with a script to drive it.
class StateFixture : public ::testing::Test {
 protected:
  StateFixture() {
    options.directory = directory.path();
    options.cluster = ClusterId(kCluster);
  }

  void Create() {
    absl::StatusOr<std::unique_ptr<State>> created = State::Create(options);
    ASSERT_TRUE(created.ok()) << created.status();
    state = *std::move(created);
  }
  // A store that has a session.
  void Begin() {
    Create();
    script.Begin();
    ApplyAll();
  }
  void Reopen() {
    state.reset();
    absl::StatusOr<std::unique_ptr<State>> opened = State::Open(options);
    ASSERT_TRUE(opened.ok()) << opened.status();
    state = *std::move(opened);
  }

  // Applies what the script has; the outcomes of its commands.
  std::vector<Applied> ApplyAll() {
    absl::StatusOr<std::vector<Applied>> applied = state->Apply(script.Take());
    EXPECT_TRUE(applied.ok()) << applied.status();
    return applied.ok() ? *std::move(applied) : std::vector<Applied>();
  }
  // Applies one command and parses its answer.
  v1::Answer Run(v1::Command command) {
    script.Do(std::move(command));
    std::vector<Applied> outcomes = ApplyAll();
    EXPECT_EQ(outcomes.size(), 1u);
    return outcomes.empty() ? v1::Answer() : Parse(outcomes.back().answer);
  }
  v1::Answer Put(std::string_view key, std::string_view value) {
    return Run(PutCommand(key, value));
  }
  v1::Answer Delete(std::string_view key, std::string_view end = {}) {
    return Run(DeleteCommand(key, end));
  }

  // "key=value@mod_revision v2", or the error's code.
  std::string Show(std::string_view key, std::optional<uint64_t> at = std::nullopt) {
    std::optional<Revision> revision;
    if (at) revision = Revision(*at);
    absl::StatusOr<Item> item = state->Get(key, revision).first;
    if (!item.ok()) return absl::StatusCodeToString(item.status().code());
    return Text(*item);
  }
  static std::string Text(const Item& item) {
    return item.key + "=" + item.value + "@" + ToString(item.mod_revision) + " v" +
           std::to_string(item.version);
  }
  // All items below a prefix.
  std::vector<std::string> ShowAll(std::string prefix = "", std::optional<uint64_t> at = {}) {
    ListQuery query;
    query.prefix = std::move(prefix);
    if (at) query.at = Revision(*at);
    absl::StatusOr<ListPage> page = state->List(query);
    if (!page.ok()) return {absl::StatusCodeToString(page.status().code())};
    std::vector<std::string> texts;
    for (const Item& item : page->items) texts.push_back(Text(item));
    return texts;
  }
  uint64_t Count(std::string_view prefix, std::optional<uint64_t> at = {}) {
    std::optional<Revision> revision;
    if (at) revision = Revision(*at);
    auto counted = state->Count(prefix, revision);
    EXPECT_TRUE(counted.ok()) << counted.status();
    return counted.ok() ? counted->first : ~uint64_t{0};
  }
  void ExpectHashAddsUp() {
    absl::StatusOr<std::pair<raft::Index, StateHash>> hash = state->RecomputeHash();
    ASSERT_TRUE(hash.ok()) << hash.status();
    EXPECT_EQ(hash->first, state->Summary().applied);
    EXPECT_EQ(hash->second, state->Summary().hash);
  }

  Directory directory;
  StateOptions options;
  std::unique_ptr<State> state;
  Script script;
};

}  // namespace quorate::storage::testing
