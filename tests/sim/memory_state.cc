#include "tests/sim/memory_state.h"

#include <xxhash.h>

#include <algorithm>

#include "base/check.h"
#include "storage/answer.h"

namespace quorate::sim {
namespace {

uint64_t Hash(uint64_t seed, std::string_view bytes) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

uint64_t Combine(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  return hash ^ (hash >> 32);
}

}  // namespace

// --- The vault ---

void StateVault::PutDurable(uint64_t generation, std::shared_ptr<const MemoryData> data) {
  Generation& fresh = generations_[generation];
  fresh.live = std::make_shared<MemoryData>(*data);
  fresh.moments = {std::move(data)};
}

void StateVault::MaySurvive(uint64_t generation, std::shared_ptr<const MemoryData> data) {
  auto& moments = generations_.at(generation).moments;
  if (moments.size() == kMomentsMax) moments.erase(moments.begin() + 1);
  moments.push_back(std::move(data));
}

void StateVault::RemoveOthers(uint64_t generation) {
  std::erase_if(generations_, [=](const auto& each) { return each.first != generation; });
}

void StateVault::PowerFailure(Random* random) {
  for (auto& [number, generation] : generations_) {
    auto& moments = generation.moments;
    // What is found now was read from the disk, but that proves nothing about the next failure:
    // only the first stays sure.
    const size_t found = random->Below(moments.size());
    generation.live = std::make_shared<MemoryData>(*moments[found]);
    moments.resize(found + 1);
  }
}

StateVault::Generation* StateVault::Find(uint64_t generation) {
  const auto found = generations_.find(generation);
  return found == generations_.end() ? nullptr : &found->second;
}

// --- The state machine ---

MemoryState::MemoryState(StateVault* vault, uint64_t generation, uint64_t keep_every)
    : vault_(vault), keep_every_(keep_every), generation_(generation) {
  Use(generation);
}

void MemoryState::Use(uint64_t generation) {
  StateVault::Generation* found = vault_->Find(generation);
  CHECK(found != nullptr);
  generation_ = generation;
  data_ = found->live;
  kept_at_ = data_->applied;
}

absl::StatusOr<std::vector<storage::Applied>> MemoryState::Apply(
    const std::vector<raft::EntryPtr>& entries) {
  std::vector<storage::Applied> outcomes;
  hashes_.clear();
  for (const raft::EntryPtr& entry : entries) {
    ApplyOne(*entry, &outcomes);
    hashes_.push_back(data_->hash);
  }
  if (data_->applied - kept_at_ >= keep_every_) {
    kept_at_ = data_->applied;
    vault_->MaySurvive(generation_, Snapshot());
  }
  return outcomes;
}

absl::StatusOr<bool> MemoryState::Checkpoint() {
  StateVault::Generation* generation = vault_->Find(generation_);
  generation->moments = {Snapshot()};
  durable_applied_ = data_->applied;
  return true;
}

absl::Status MemoryState::Install(uint64_t generation) {
  if (!vault_->Holds(generation)) return absl::DataLossError("no such generation");
  CHECK(generation > generation_);
  Use(generation);
  durable_applied_ = data_->applied;
  return absl::OkStatus();
}

std::shared_ptr<const MemoryData> MemoryState::Snapshot() const {
  return std::make_shared<const MemoryData>(*data_);
}

void MemoryState::ApplyOne(const raft::Entry& entry, std::vector<storage::Applied>* outcomes) {
  MemoryData& data = *data_;
  CHECK(entry.index == data.applied + 1, "entries are applied in order, without a gap");
  CHECK(entry.term >= data.applied_term, "terms do not go back");
  data.log_time_ms = std::max(data.log_time_ms, entry.log_time_ms);
  data.hash = Combine(Hash(data.hash, entry.payload), entry.term.value());
  data.hash = Combine(data.hash, entry.log_time_ms << 8 | static_cast<uint64_t>(entry.type));
  switch (entry.type) {
    case raft::EntryType::kNoop:
      break;
    case raft::EntryType::kBirthComplete:
      data.birth_complete = true;
      break;
    case raft::EntryType::kMembership:
      data.membership = *raft::DecodeMembership(entry.payload);
      data.membership_index = entry.index;
      data.sessions.RetainMembers(data.membership);
      break;
    case raft::EntryType::kCommand:
      outcomes->emplace_back();
      outcomes->back().index = entry.index;
      ApplyCommand(entry, &outcomes->back());
      if (outcomes->back().answer != nullptr) {
        data.hash = Hash(data.hash, *outcomes->back().answer);
      }
      data.hash = Combine(data.hash, static_cast<uint64_t>(outcomes->back().refusal));
      break;
  }
  data.sessions.ClearDirty();
  data.applied = entry.index;
  data.applied_term = entry.term;
}

void MemoryState::ApplyCommand(const raft::Entry& entry, storage::Applied* outcome) {
  CHECK(command_.ParseFromString(entry.payload), "a command that no client sent");
  MemoryData& data = *data_;
  const v1::SessionPosition& position = command_.session();
  outcome->session_store = StoreId(position.store());
  outcome->session_boot = position.boot();
  outcome->session_nonce = position.nonce();
  outcome->session_sequence = position.sequence();
  answer_.Clear();
  if (command_.has_open_session()) {
    const v1::OpenSession& open = command_.open_session();
    outcome->session_sequence = 0;
    outcome->refusal = data.sessions.Open({StoreId(open.store()), open.boot(), open.nonce(), 0, 0},
                                          entry.index, data.membership, &outcome->duplicate);
    outcome->refused = outcome->refusal != storage::Refusal::kNone;
    if (outcome->refused) return;
    answer_.set_revision(data.revision.value());
    outcome->answer = std::make_shared<const std::string>(answer_.SerializeAsString());
    return;
  }
  outcome->refusal = data.sessions.Check(position);
  outcome->refused = outcome->refusal != storage::Refusal::kNone;
  if (outcome->refused) return;
  outcome->duplicate = data.sessions.IsDuplicate(position);
  if (outcome->duplicate) {
    outcome->answer =
        storage::AnswerOf(data.sessions.sessions().at(outcome->session_store), position.sequence());
    data.sessions.Forget(position);
    return;
  }
  Execute();
  answer_.set_revision(data.revision.value());
  outcome->answer = std::make_shared<const std::string>(answer_.SerializeAsString());
  data.sessions.Forget(position);
  data.sessions.Keep(outcome->session_store, {outcome->answer, {}});
}

void MemoryState::Execute() {
  if (command_.has_skip()) {
    return storage::Refuse(answer_, storage::kCancelled, "SKIPPED", "given up");
  }
  CHECK(command_.has_transaction(), "a command that no client sent");
  ExecuteTransaction(command_.transaction());
}

bool MemoryState::Holds(const v1::Compare& compare) const {
  const auto found = data_->items.find(compare.key());
  const MemoryData::Value* value = found == data_->items.end() ? nullptr : found->second.get();
  int order = 0;  // what is there, against what is asked for
  const auto against = [&](uint64_t there, uint64_t wanted) {
    order = there < wanted ? -1 : there > wanted;
  };
  switch (compare.target_case()) {
    case v1::Compare::kModRevision:
      against(value ? value->mod_revision.value() : 0, compare.mod_revision());
      break;
    case v1::Compare::kCreateRevision:
      against(value ? value->create_revision.value() : 0, compare.create_revision());
      break;
    case v1::Compare::kVersion:
      against(value ? value->version : 0, compare.version());
      break;
    case v1::Compare::kValue:
      order = value == nullptr ? -1 : value->bytes.compare(compare.value());
      break;
    case v1::Compare::TARGET_NOT_SET:
      CHECK(false);
  }
  switch (compare.result()) {
    case v1::Compare::RESULT_EQUAL:
      return order == 0;
    case v1::Compare::RESULT_NOT_EQUAL:
      return order != 0;
    case v1::Compare::RESULT_GREATER:
      return order > 0;
    case v1::Compare::RESULT_LESS:
      return order < 0;
    default:
      CHECK(false);
  }
}

void MemoryState::ExecuteTransaction(const v1::Transaction& transaction) {
  MemoryData& data = *data_;
  const bool holds = std::all_of(transaction.compare().begin(), transaction.compare().end(),
                                 [this](const v1::Compare& each) { return Holds(each); });
  if (!holds && transaction.abort_on_false()) {
    return storage::Refuse(answer_, storage::kAborted, "REVISION_MISMATCH", "");
  }
  answer_.set_succeeded(holds);
  const Revision next = data.revision + 1;
  bool changed = false;
  for (const v1::Operation& operation : holds ? transaction.then() : transaction.otherwise()) {
    v1::OperationResult* result = answer_.add_results();
    if (operation.has_put()) {
      const v1::PutOperation& put = operation.put();
      std::shared_ptr<const MemoryData::Value>& place = data.items[put.key()];
      auto value = std::make_shared<MemoryData::Value>();
      value->bytes = put.value();
      value->is_text = put.value_kind() == v1::VALUE_KIND_TEXT;
      value->create_revision = place == nullptr ? next : place->create_revision;
      value->version = place == nullptr ? 1 : place->version + 1;
      value->mod_revision = next;
      result->set_create_revision(value->create_revision.value());
      result->set_version(value->version);
      place = std::move(value);
      changed = true;
    } else if (operation.has_delete_()) {
      CHECK(operation.delete_().range_end().empty());
      const size_t deleted = data.items.erase(operation.delete_().key());
      result->set_deleted(deleted);
      changed = changed || deleted > 0;
    } else {
      CHECK(operation.has_read() && operation.read().range_end().empty());
      const auto found = data.items.find(operation.read().key());
      result->set_count(found == data.items.end() ? 0 : 1);
      if (found == data.items.end()) continue;
      v1::ReadItem* item = result->add_items();
      item->set_key(found->first);
      item->set_value(found->second->bytes);
      item->set_mod_revision(found->second->mod_revision.value());
    }
  }
  if (changed) data.revision = next;
}

// --- Views ---

storage::StateSummary MemoryState::Summary() const {
  storage::StateSummary summary;
  summary.applied = data_->applied;
  summary.applied_term = data_->applied_term;
  summary.revision = data_->revision;
  summary.log_time_ms = data_->log_time_ms;
  summary.membership = data_->membership;
  summary.membership_index = data_->membership_index;
  summary.birth_complete = data_->birth_complete;
  for (size_t i = 0; i < 8; ++i) summary.hash[i] = static_cast<uint8_t>(data_->hash >> (8 * i));
  summary.durable_applied = durable_applied_;
  return summary;
}

std::optional<storage::SessionView> MemoryState::FindSession(StoreId store) const {
  const auto& sessions = data_->sessions.sessions();
  const auto found = sessions.find(store);
  if (found == sessions.end()) return std::nullopt;
  return found->second.view;
}

std::shared_ptr<const std::string> MemoryState::KeptAnswer(StoreId store, uint64_t sequence) const {
  const auto& sessions = data_->sessions.sessions();
  const auto found = sessions.find(store);
  return found == sessions.end() ? nullptr : storage::AnswerOf(found->second, sequence);
}

std::pair<absl::StatusOr<storage::Item>, Revision> MemoryState::Get(std::string_view key,
                                                                    std::optional<Revision> at,
                                                                    const storage::ReadLimits&) {
  CHECK(!at);
  const auto found = data_->items.find(std::string(key));
  if (found == data_->items.end()) return {absl::NotFoundError(""), data_->revision};
  storage::Item item;
  item.key = found->first;
  item.value = found->second->bytes;
  item.is_text = found->second->is_text;
  item.create_revision = found->second->create_revision;
  item.mod_revision = found->second->mod_revision;
  item.version = found->second->version;
  return {std::move(item), data_->revision};
}

absl::StatusOr<storage::StateCopy> MemoryState::Copy(const std::string&, const std::atomic<bool>&) {
  return absl::UnimplementedError("Snapshot copies this one");
}
absl::StatusOr<storage::ListPage> MemoryState::List(const storage::ListQuery&,
                                                    const storage::ReadLimits&) {
  return absl::UnimplementedError("List");
}
absl::StatusOr<std::pair<uint64_t, Revision>> MemoryState::Count(std::string_view,
                                                                 std::optional<Revision>,
                                                                 const storage::ReadLimits&) {
  return absl::UnimplementedError("Count");
}
absl::StatusOr<storage::ChangesPage> MemoryState::Changes(const storage::ChangesQuery&) {
  return absl::UnimplementedError("Changes");
}
absl::StatusOr<storage::HistoryPage> MemoryState::History(const storage::HistoryQuery&,
                                                          const storage::ReadLimits&) {
  return absl::UnimplementedError("History");
}
absl::StatusOr<std::pair<raft::Index, storage::StateHash>> MemoryState::RecomputeHash() {
  return std::make_pair(data_->applied, Summary().hash);
}
absl::StatusOr<storage::HashCheck> MemoryState::CheckHash() {
  return storage::HashCheck{data_->applied, Summary().hash, Summary().hash};
}
absl::StatusOr<std::vector<std::pair<raft::Index, storage::StateHash>>>
MemoryState::RecordedHashes() {
  return std::vector<std::pair<raft::Index, storage::StateHash>>();
}

}  // namespace quorate::sim
