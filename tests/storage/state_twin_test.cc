// A twin: random logs are applied to the database and to a naive model in memory, which are
// compared after each step; the model keeps every revision as a whole, so reads of the past are
// compared as well.
#include <map>
#include <set>

#include "tests/storage/state_fixture.h"
#include "tests/storage/state_workload.h"

namespace quorate::storage::testing {
namespace {

struct ModelItem {
  std::string value;
  bool is_text = false;
  uint64_t create = 0, mod = 0, version = 0, ttl = 0;
};
using ModelItems = std::map<std::string, ModelItem>;

struct ModelSession {
  uint64_t boot = 0, nonce = 0, last = 0, answered = 0;
  std::map<uint64_t, std::string> answers;  // as ModelAnswer's text
};

// What is expected of one command.
struct ModelOutcome {
  bool refused = false, duplicate = false;
  std::string answer;  // "" for none
};

class Model {
 public:
  Model() { revisions_.resize(2); }

  // The entry's expected outcome; nullopt when it is no command.
  std::optional<ModelOutcome> Apply(const raft::Entry& entry) {
    if (entry.type == raft::EntryType::kMembership) {
      members_.clear();
      const std::optional<raft::Membership> membership = raft::DecodeMembership(entry.payload);
      for (const raft::Member& m : membership->members) {
        members_.insert(m.store.value());
      }
      std::erase_if(sessions_, [&](auto& s) { return !members_.contains(s.first); });
    }
    index_ = entry.index;
    log_time_ms_ = std::max(log_time_ms_, entry.log_time_ms);
    if (entry.type != raft::EntryType::kCommand) return std::nullopt;
    v1::Command command;
    EXPECT_TRUE(command.ParseFromString(entry.payload));
    return command.has_open_session() ? Open(command.open_session()) : Run(command);
  }

  uint64_t revision() const { return revisions_.size() - 1; }
  size_t grants() const { return grants_.size(); }
  size_t ended() const { return ended_; }
  const ModelItems& at(uint64_t revision) const { return revisions_[revision]; }
  const std::map<uint64_t, ModelSession>& sessions() const { return sessions_; }

 private:
  ModelOutcome Open(const v1::OpenSession& open) {
    ModelOutcome outcome;
    outcome.answer = Text(v1::Answer(), revision());
    auto found = sessions_.find(open.store());
    const bool known = found != sessions_.end();
    if (known && found->second.boot == open.boot() && found->second.nonce == open.nonce()) {
      outcome.duplicate = true;
    } else if (!members_.contains(open.store()) || (known && open.boot() <= found->second.boot)) {
      return {true, false, ""};
    } else {
      sessions_[open.store()] = {open.boot(), open.nonce(), 0, 0, {}};
    }
    return outcome;
  }

  ModelOutcome Run(const v1::Command& command) {
    const v1::SessionPosition& position = command.session();
    auto found = sessions_.find(position.store());
    if (found == sessions_.end() || found->second.boot != position.boot() ||
        found->second.nonce != position.nonce() || position.sequence() > found->second.last + 1) {
      return {true, false, ""};
    }
    ModelSession& session = found->second;
    ModelOutcome outcome;
    outcome.duplicate = position.sequence() <= session.last;
    if (!outcome.duplicate) {
      session.answers[++session.last] = Execute(command);
    }
    if (session.answers.contains(position.sequence())) {
      outcome.answer = session.answers[position.sequence()];
    }
    session.answered =
        std::max(session.answered, std::min(position.answered_through(), position.sequence() - 1));
    std::erase_if(session.answers, [&](auto& a) { return a.first <= session.answered; });
    return outcome;
  }

  static std::string Text(const v1::Answer& answer, uint64_t revision) {
    std::string text =
        "code " + std::to_string(answer.code()) + " revision " + std::to_string(revision);
    return text;
  }

  bool Holds(const v1::Compare& compare, const ModelItems& items) {
    auto found = items.find(compare.key());
    int order = 0;
    if (compare.target_case() == v1::Compare::kValue) {
      if (found == items.end()) return false;
      order = found->second.value.compare(compare.value());
    } else {
      uint64_t version = found == items.end() ? 0 : found->second.version;
      order = version < compare.version() ? -1 : version > compare.version();
    }
    switch (compare.result()) {
      case v1::Compare::RESULT_EQUAL:
        return order == 0;
      case v1::Compare::RESULT_NOT_EQUAL:
        return order != 0;
      case v1::Compare::RESULT_GREATER:
        return order > 0;
      default:
        return order < 0;
    }
  }

  struct Grant {
    uint64_t ttl_ms = 0, deadline_ms = 0;
  };

  std::string Execute(const v1::Command& command) {
    if (command.has_skip()) return "code 1 revision " + std::to_string(revision());
    if (command.has_transaction()) return Execute(command.transaction());
    std::string results;
    if (command.has_grant_ttl()) {
      const uint64_t ttl_ms = command.grant_ttl().ttl_ms();
      grants_[TtlIdOf(ClusterId(kCluster), index_)] = {ttl_ms, log_time_ms_ + ttl_ms};
      results = " t" + std::to_string(ttl_ms);
    } else if (command.has_keep_alive_ttl()) {
      for (uint64_t ttl : command.keep_alive_ttl().ttl_id()) {
        auto found = grants_.find(ttl);
        if (found != grants_.end()) found->second.deadline_ms = log_time_ms_ + found->second.ttl_ms;
        results += " t" + std::to_string(found == grants_.end() ? 0 : found->second.ttl_ms);
      }
    } else if (command.has_revoke_ttl()) {
      if (!grants_.contains(command.revoke_ttl().ttl_id())) {
        return "code 5 revision " + std::to_string(revision());
      }
      results = " d" + std::to_string(End({command.revoke_ttl().ttl_id()}));
    } else {
      std::set<uint64_t> over;
      for (uint64_t ttl : command.expire_ttl().ttl_id()) {
        auto found = grants_.find(ttl);
        if (found != grants_.end() && log_time_ms_ > found->second.deadline_ms) over.insert(ttl);
      }
      const uint64_t deleted = End(over);
      ended_ += over.size();
      results = " d" + std::to_string(deleted);
      if (!over.empty()) results += "n" + std::to_string(over.size());
    }
    return "code 0 revision " + std::to_string(revision()) + " then" + results;
  }

  uint64_t End(const std::set<uint64_t>& ttls) {
    ModelItems items = revisions_.back();
    const uint64_t deleted =
        std::erase_if(items, [&](auto& item) { return ttls.contains(item.second.ttl); });
    for (uint64_t ttl : ttls) grants_.erase(ttl);
    if (deleted > 0) revisions_.push_back(items);
    return deleted;
  }

  std::string Execute(const v1::Transaction& transaction) {
    ModelItems items = revisions_.back();
    bool holds = true;
    for (const v1::Compare& compare : transaction.compare()) holds &= Holds(compare, items);
    if (!holds && transaction.abort_on_false()) {
      return "code 10 revision " + std::to_string(revision());
    }
    const uint64_t next = revision() + 1;
    bool changed = false;
    std::string results;
    for (const v1::Operation& operation : holds ? transaction.then() : transaction.otherwise()) {
      if (operation.has_put()) {
        const uint64_t ttl = operation.put().ttl_id();
        if (ttl != 0 && !grants_.contains(ttl)) {
          return "code 5 revision " + std::to_string(revision());
        }
        ModelItem& item = items[operation.put().key()];
        if (item.version++ == 0) item.create = next;
        item.value = operation.put().value();
        item.is_text = operation.put().value_kind() == v1::VALUE_KIND_TEXT;
        item.mod = next;
        item.ttl = ttl;
        changed = true;
        results += " c" + std::to_string(item.create) + "v" + std::to_string(item.version);
      } else {
        const v1::DeleteOperation& remove = operation.delete_();
        size_t deleted = std::erase_if(items, [&](auto& item) {
          return remove.range_end().empty()
                     ? item.first == remove.key()
                     : item.first >= remove.key() && item.first < remove.range_end();
        });
        changed |= deleted > 0;
        results += " d" + std::to_string(deleted);
      }
    }
    if (changed) revisions_.push_back(items);
    return "code 0 revision " + std::to_string(revision()) + (holds ? " then" : " otherwise") +
           results;
  }

  std::vector<ModelItems> revisions_;  // [0] is unused
  raft::Index index_;
  uint64_t log_time_ms_ = 0;
  std::map<uint64_t, Grant> grants_;
  size_t ended_ = 0;
  std::set<uint64_t> members_;
  std::map<uint64_t, ModelSession> sessions_;
};

std::string AnswerText(const std::shared_ptr<const std::string>& bytes) {
  if (bytes == nullptr) return "";
  v1::Answer answer = Parse(bytes);
  std::string text =
      "code " + std::to_string(answer.code()) + " revision " + std::to_string(answer.revision());
  if (answer.results_size() == 0) return text;
  text += answer.succeeded() ? " then" : " otherwise";
  for (const v1::OperationResult& result : answer.results()) {
    if (result.ttl_id() != 0) {
      text += " t" + std::to_string(result.ttl_ms());
      continue;
    }
    text += result.version() != 0 ? " c" + std::to_string(result.create_revision()) + "v" +
                                        std::to_string(result.version())
                                  : " d" + std::to_string(result.deleted());
    if (result.count() != 0) text += "n" + std::to_string(result.count());
  }
  return text;
}

// The model writes "otherwise" also behind a branch without operations.
std::string Trim(std::string text) {
  for (const char* branch : {" then", " otherwise"}) {
    if (text.ends_with(branch)) text.resize(text.size() - std::string(branch).size());
  }
  return text;
}

class StateTwin : public StateFixture, public ::testing::WithParamInterface<uint64_t> {
 protected:
  void CompareItems(uint64_t revision, const ModelItems& expected) {
    ListQuery query;
    query.at = Revision(revision);
    query.items_max = 7;  // several pages
    std::vector<Item> items;
    while (true) {
      absl::StatusOr<ListPage> page = state->List(query);
      ASSERT_TRUE(page.ok()) << page.status();
      for (Item& item : page->items) items.push_back(std::move(item));
      if (!page->more) break;
      query.after = items.back().key;
    }
    ASSERT_EQ(items.size(), expected.size()) << "at " << revision;
    size_t i = 0;
    for (const auto& [key, item] : expected) {
      const Item& actual = items[i++];
      ASSERT_EQ(actual.key, key) << "at " << revision;
      ASSERT_EQ(actual.value, item.value) << key << " at " << revision;
      ASSERT_EQ(actual.is_text, item.is_text) << key;
      ASSERT_EQ(actual.create_revision, Revision(item.create)) << key;
      ASSERT_EQ(actual.mod_revision, Revision(item.mod)) << key;
      ASSERT_EQ(actual.version, item.version) << key;
      ASSERT_EQ(actual.ttl, item.ttl) << key;
    }
    ASSERT_EQ(Count("", revision), expected.size());
  }

  void CompareSessions(const Model& model) {
    for (uint64_t store : {kIngress, uint64_t{0xa2}, uint64_t{0xa3}}) {
      std::optional<SessionView> actual = state->FindSession(StoreId(store));
      auto expected = model.sessions().find(store);
      ASSERT_EQ(actual.has_value(), expected != model.sessions().end()) << store;
      if (!actual) continue;
      ASSERT_EQ(actual->boot, expected->second.boot);
      ASSERT_EQ(actual->nonce, expected->second.nonce);
      ASSERT_EQ(actual->last_sequence, expected->second.last);
      ASSERT_EQ(actual->answered_through, expected->second.answered);
      for (uint64_t sequence = 0; sequence <= actual->last_sequence + 1; ++sequence) {
        auto kept = expected->second.answers.find(sequence);
        ASSERT_EQ(AnswerText(state->KeptAnswer(StoreId(store), sequence)),
                  kept == expected->second.answers.end() ? "" : Trim(kept->second));
      }
    }
  }
};

TEST_P(StateTwin, AgreesAfterEachStep) {
  Create();
  Model model;
  std::mt19937_64 random(GetParam() + 1);
  Workload workload(GetParam());
  uint64_t refused = 0, duplicates = 0;
  for (int step = 0; step < 60; ++step) {
    workload.Make(random() % 25);
    const std::vector<raft::EntryPtr> entries = workload.Take();
    std::vector<ModelOutcome> expected;
    for (const raft::EntryPtr& entry : entries) {
      if (std::optional<ModelOutcome> outcome = model.Apply(*entry)) expected.push_back(*outcome);
    }
    absl::StatusOr<std::vector<Applied>> outcomes = state->Apply(entries);
    ASSERT_TRUE(outcomes.ok()) << outcomes.status();
    ASSERT_EQ(outcomes->size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      const Applied& outcome = (*outcomes)[i];
      ASSERT_EQ(outcome.refused, expected[i].refused) << "entry " << ToString(outcome.index);
      ASSERT_EQ(outcome.duplicate, expected[i].duplicate) << "entry " << ToString(outcome.index);
      ASSERT_EQ(AnswerText(outcome.answer), Trim(expected[i].answer))
          << "entry " << ToString(outcome.index);
      refused += outcome.refused;
      duplicates += outcome.duplicate;
    }
    ASSERT_EQ(state->Summary().revision, Revision(model.revision()));
    ASSERT_EQ(state->Summary().ttls, model.grants());
    ASSERT_NO_FATAL_FAILURE(CompareItems(model.revision(), model.at(model.revision())));
    const uint64_t past = 1 + random() % model.revision();
    ASSERT_NO_FATAL_FAILURE(CompareItems(past, model.at(past)));
    ASSERT_NO_FATAL_FAILURE(CompareSessions(model));
    if (step % 20 == 19) Reopen();
  }
  for (uint64_t revision = 1; revision <= model.revision(); revision += 5) {
    ASSERT_NO_FATAL_FAILURE(CompareItems(revision, model.at(revision)));
  }
  ExpectHashAddsUp();
  // The log had what it was to test.
  EXPECT_GT(model.revision(), 100u);
  EXPECT_GT(refused, 5u);
  EXPECT_GT(duplicates, 5u);
  EXPECT_GT(model.ended(), 3u);
}

INSTANTIATE_TEST_SUITE_P(Seed, StateTwin, ::testing::Range<uint64_t>(1, 7));

}  // namespace
}  // namespace quorate::storage::testing
