#include "tests/sim/memory_state.h"

#include <xxhash.h>

#include <algorithm>

#include "base/check.h"

namespace quorate::sim {
namespace {

uint64_t Hash(uint64_t seed, std::string_view bytes) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

uint64_t Combine(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  return hash ^ (hash >> 32);
}

storage::Item ItemOf(const std::string& key, const StoreModel::Version& version) {
  storage::Item item;
  item.key = key;
  item.is_text = version.is_text;
  item.value = version.value;
  item.create_revision = Revision(version.create_revision);
  item.mod_revision = Revision(version.revision);
  item.version = version.version;
  item.ttl = version.ttl;
  return item;
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
  data.store.Advance(entry.log_time_ms);
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
    answer_.set_revision(data.store.revision());
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
  data.store.Execute(command_, {data.membership.cluster, entry.index}, nullptr, &answer_);
  outcome->answer = std::make_shared<const std::string>(answer_.SerializeAsString());
  data.sessions.Forget(position);
  data.sessions.Keep(outcome->session_store, {outcome->answer, {}});
}

// --- Views ---

storage::StateSummary MemoryState::Summary() const {
  storage::StateSummary summary;
  summary.applied = data_->applied;
  summary.applied_term = data_->applied_term;
  summary.revision = Revision(data_->store.revision());
  summary.compacted = Revision(data_->store.compacted());
  summary.log_time_ms = data_->store.log_time_ms();
  summary.request_ids = data_->store.request_ids();
  summary.ttls = data_->store.ttls().size();
  summary.ttl_keys = data_->store.ttl_keys();
  for (const auto& [id, ttl] : data_->store.ttls()) {
    uint64_t& next = summary.next_ttl_deadline_ms;
    if (next == 0 || ttl.deadline_ms < next) next = ttl.deadline_ms;
  }
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

absl::Status MemoryState::CheckPast(std::optional<Revision> at) const {
  const uint64_t head = data_->store.revision();
  if (!at || at->value() == head) return absl::OkStatus();
  if (at->value() > head) return absl::OutOfRangeError("it is ahead of this node");
  if (at->value() <= data_->store.compacted()) return absl::OutOfRangeError("it is compacted");
  return absl::OkStatus();
}

std::pair<absl::StatusOr<storage::Item>, Revision> MemoryState::Get(std::string_view key,
                                                                    std::optional<Revision> at,
                                                                    const storage::ReadLimits&) {
  const Revision head(data_->store.revision());
  if (absl::Status s = CheckPast(at); !s.ok()) return {s, head};
  const std::string name(key);
  const StoreModel::Version* const version = data_->store.At(name, at.value_or(head).value());
  if (version == nullptr) return {absl::NotFoundError(""), head};
  return {ItemOf(name, *version), head};
}

absl::StatusOr<storage::ListPage> MemoryState::List(const storage::ListQuery& query,
                                                    const storage::ReadLimits&) {
  if (absl::Status s = CheckPast(query.at); !s.ok()) return s;
  storage::ListPage page;
  page.revision = Revision(data_->store.revision());
  const uint64_t at = query.at.value_or(page.revision).value();
  const StoreModel::Items& items = data_->store.items();
  for (auto each = items.lower_bound(query.prefix); each != items.end(); ++each) {
    if (each->first.compare(0, query.prefix.size(), query.prefix) != 0) break;
    if (!query.after.empty() && each->first <= query.after) continue;
    const StoreModel::Version* const version = StoreModel::VersionAt(each->second, at);
    if (version == nullptr || version->deleted) continue;
    page.more = page.items.size() == query.items_max;
    if (page.more) break;
    page.items.push_back(ItemOf(each->first, *version));
  }
  return page;
}

absl::StatusOr<std::pair<uint64_t, Revision>> MemoryState::Count(
    std::string_view prefix, std::optional<Revision> at, const storage::ReadLimits& limits) {
  storage::ListQuery query;
  query.prefix = std::string(prefix);
  query.at = at;
  query.items_max = SIZE_MAX;
  const auto page = List(query, limits);
  if (!page.ok()) return page.status();
  return std::make_pair(uint64_t{page->items.size()}, page->revision);
}

absl::StatusOr<storage::HistoryPage> MemoryState::History(const storage::HistoryQuery& query,
                                                          const storage::ReadLimits&) {
  if (absl::Status s = CheckPast(query.at); !s.ok()) return s;
  storage::HistoryPage page;
  page.revision = Revision(data_->store.revision());
  const auto found = data_->store.items().find(query.key);
  if (found == data_->store.items().end()) return page;
  const StoreModel::Version* version =
      StoreModel::VersionAt(found->second, query.at.value_or(page.revision).value());
  for (; version != nullptr; version = version->previous.get()) {
    const bool last = version->revision <= data_->store.compacted();
    if (last && version->deleted) break;
    page.more = page.items.size() == query.items_max;
    if (page.more) break;
    storage::HistoryItem item;
    item.item = ItemOf(query.key, *version);
    item.deleted = version->deleted;
    item.author = version->author;
    item.note = version->note;
    page.items.push_back(std::move(item));
    if (last) break;
  }
  return page;
}

absl::StatusOr<std::vector<uint64_t>> MemoryState::DueTtls(uint64_t log_time_ms, size_t limit,
                                                           const storage::ReadLimits&) {
  std::vector<std::pair<uint64_t, uint64_t>> due;
  for (const auto& [id, ttl] : data_->store.ttls()) {
    if (ttl.deadline_ms < log_time_ms) due.emplace_back(ttl.deadline_ms, id);
  }
  std::sort(due.begin(), due.end());
  std::vector<uint64_t> ids;
  for (const auto& [deadline, id] : due) {
    if (ids.size() < limit) ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<storage::StateCopy> MemoryState::Copy(const std::string&, const std::atomic<bool>&) {
  return absl::UnimplementedError("Snapshot copies this one");
}
absl::StatusOr<storage::ChangesPage> MemoryState::Changes(const storage::ChangesQuery&) {
  return absl::UnimplementedError("Changes");
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
