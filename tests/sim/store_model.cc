#include "tests/sim/store_model.h"

#include <algorithm>
#include <cstdlib>

#include "base/check.h"
#include "storage/answer.h"
#include "storage/state_ttl.h"

namespace quorate::sim {
namespace {

// As many as one entry lets go (storage/state_requests.h).
constexpr int kForgottenPerEntry = 64;
// Of all reads of a transaction, each item counted with so much beside key and value
// (command.proto).
constexpr uint64_t kReadBytesMax = 2u << 20, kReadItemBytes = 64;

void Say(v1::Answer* answer, const char* name, std::string value) {
  (*answer->mutable_metadata())[name] = std::move(value);
}

void RefuseTtl(uint64_t id, v1::Answer* answer) {
  answer->Clear();
  storage::Refuse(*answer, storage::kNotFound, "TTL_NOT_FOUND", "");
  Say(answer, "ttl_id", ToHex(id));
}

template <typename T>
bool Fulfills(const T& there, v1::Compare::Result result, const T& wanted) {
  switch (result) {
    case v1::Compare::RESULT_EQUAL:
      return there == wanted;
    case v1::Compare::RESULT_NOT_EQUAL:
      return there != wanted;
    case v1::Compare::RESULT_GREATER:
      return there > wanted;
    case v1::Compare::RESULT_LESS:
      return there < wanted;
    default:
      CHECK(false, "a compare that no client sent");
  }
}

}  // namespace

// The chain of a key is as long as the run: not one call within another.
StoreModel::Version::~Version() {
  VersionPtr next = std::move(previous);
  while (next != nullptr && next.use_count() == 1) {
    VersionPtr after = std::move(next->previous);
    next = std::move(after);
  }
}

StoreModel::StoreModel(const StoreLimits& limits)
    : limits_(limits), requests_(std::make_shared<Requests>()) {}

// --- Request ids ---

StoreModel::Requests* StoreModel::OwnRequests() {
  if (requests_.use_count() > 1) requests_ = std::make_shared<Requests>(*requests_);
  return requests_.get();
}

void StoreModel::ForgetOldest() {
  Requests* const requests = OwnRequests();
  const RequestPtr oldest = requests->kept.front();
  requests->expired_through = std::max(requests->expired_through, oldest->head);
  requests->by_name.erase(oldest->name);
  requests->kept.pop_front();
}

void StoreModel::Advance(uint64_t log_time_ms) {
  log_time_ms_ = std::max(log_time_ms_, log_time_ms);
  for (int i = 0; i < kForgottenPerEntry && !requests_->kept.empty(); ++i) {
    const Request& oldest = *requests_->kept.front();
    if (oldest.log_time_ms + limits_.request_age_ms >= log_time_ms_) return;
    if (oldest.head >= revision_) return;
    ForgetOldest();
  }
}

bool StoreModel::Keep(const v1::Command& command, uint64_t before, const v1::Answer& answer) {
  while (!requests_->kept.empty() && requests_->kept.size() >= limits_.request_ids_max) {
    if (requests_->kept.front()->head >= revision_) return false;
    ForgetOldest();
  }
  auto request = std::make_shared<Request>();
  request->name = command.author() + '\n' + command.client_request().id();
  request->command_hash = command.client_request().command_hash();
  request->head = before;
  request->log_time_ms = log_time_ms_;
  request->answer = answer.SerializeAsString();
  Requests* const requests = OwnRequests();
  const RequestPtr kept = std::move(request);
  requests->kept.push_back(kept);
  CHECK(requests->by_name.emplace(kept->name, kept).second);
  return true;
}

StoreModel::Verdict StoreModel::ExecuteRequest(const v1::Command& command, const Where& where,
                                               v1::Answer* answer) {
  const v1::ClientRequest& request = command.client_request();
  const std::string name = command.author() + '\n' + request.id();
  if (const auto found = requests_->by_name.find(name); found != requests_->by_name.end()) {
    if (found->second->command_hash != request.command_hash()) {
      storage::Refuse(*answer, storage::kInvalidArgument, "REQUEST_ID_REUSED", "");
      return Verdict::kNotKept;
    }
    CHECK(answer->ParseFromString(found->second->answer));
    return Verdict::kRepeat;
  }
  if (request.revision() > revision_) {
    storage::Refuse(*answer, storage::kOutOfRange, "REVISION_IN_FUTURE", "");
    Say(answer, "current_revision", std::to_string(revision_));
    return Verdict::kNotKept;
  }
  if (request.revision() <= requests_->expired_through) {
    storage::Refuse(*answer, storage::kFailedPrecondition, "REQUEST_ID_EXPIRED", "");
    Say(answer, "expired_through", std::to_string(requests_->expired_through));
    return Verdict::kNotKept;
  }
  const uint64_t before = revision_;
  const std::map<uint64_t, Ttl> ttls_before =
      command.has_transaction() || command.has_rollback() ? std::map<uint64_t, Ttl>() : ttls_;
  Run(command, where, nullptr, answer);
  if (Keep(command, before, *answer)) return Verdict::kExecuted;
  // What has changed an item makes room by that.
  CHECK(changes_.empty());
  if (!command.has_transaction() && !command.has_rollback()) ttls_ = ttls_before;
  ended_ttls_.clear();
  answer->Clear();
  answer->set_revision(before);
  storage::Refuse(*answer, storage::kResourceExhausted, "REQUEST_IDS_FULL", "");
  return Verdict::kNotKept;
}

// --- Commands ---

StoreModel::Verdict StoreModel::Execute(const v1::Command& command, const Where& where,
                                        const v1::Answer* told, v1::Answer* answer) {
  changes_.clear();
  ended_ttls_.clear();
  author_ = command.author();
  note_ = command.note();
  answer->Clear();
  answer->set_revision(revision_);
  if (command.has_skip()) {
    storage::Refuse(*answer, storage::kCancelled, "SKIPPED", "");
    return Verdict::kNotKept;
  }
  if (command.has_client_request()) return ExecuteRequest(command, where, answer);
  Run(command, where, told, answer);
  return Verdict::kExecuted;
}

void StoreModel::Run(const v1::Command& command, const Where& where, const v1::Answer* told,
                     v1::Answer* answer) {
  switch (command.body_case()) {
    case v1::Command::kTransaction:
      return Transact(command.transaction(), answer);
    case v1::Command::kRollback:
      return Rollback(command.rollback(), answer);
    case v1::Command::kCompactHistory:
      return Compact(command.compact_history(), told, answer);
    case v1::Command::kGrantTtl:
      return Grant(command.grant_ttl(), where, answer);
    case v1::Command::kKeepAliveTtl:
      for (const uint64_t id : command.keep_alive_ttl().ttl_id()) {
        v1::OperationResult* const result = answer->add_results();
        result->set_ttl_id(id);
        const auto found = ttls_.find(id);
        if (found == ttls_.end()) continue;
        found->second.deadline_ms = log_time_ms_ + found->second.ttl_ms;
        result->set_ttl_ms(found->second.ttl_ms);
      }
      answer->set_succeeded(true);
      return;
    case v1::Command::kRevokeTtl:
      return Revoke(command.revoke_ttl(), answer);
    case v1::Command::kExpireTtl:
      return Expire(command.expire_ttl(), answer);
    default:
      CHECK(false, "a command that no client sent");
  }
}

void StoreModel::Finish(v1::Answer* answer) {
  if (!changes_.empty()) ++revision_;
  answer->set_revision(revision_);
}

void StoreModel::Write(const std::string& key, Draft draft) {
  VersionPtr& place = items_[key];
  const Version* const before = place == nullptr || place->deleted ? nullptr : place.get();
  const uint64_t bound = before == nullptr ? 0 : before->ttl;
  if (bound != draft.ttl) {
    if (bound != 0) ttls_.at(bound).keys.erase(key);
    if (draft.ttl != 0) ttls_.at(draft.ttl).keys.insert(key);
  }
  auto version = std::make_shared<Version>();
  version->revision = revision_ + 1;
  version->sub = static_cast<uint32_t>(changes_.size());
  version->deleted = draft.deleted;
  version->is_text = draft.is_text;
  version->value = std::move(draft.value);
  if (!draft.deleted) {
    version->create_revision = before == nullptr ? version->revision : before->create_revision;
    version->version = before == nullptr ? 1 : before->version + 1;
  }
  version->ttl = draft.ttl;
  version->author = author_;
  version->note = note_;
  version->previous = std::move(place);
  place = std::move(version);
  changes_.push_back({key, place});
}

// --- Transactions ---

bool StoreModel::Holds(const v1::Compare& compare, uint64_t* current) const {
  const Version* const there = Now(compare.key());
  *current = there == nullptr ? 0 : there->revision;
  switch (compare.target_case()) {
    case v1::Compare::kModRevision:
      return Fulfills<uint64_t>(*current, compare.result(), compare.mod_revision());
    case v1::Compare::kCreateRevision:
      return Fulfills<uint64_t>(there == nullptr ? 0 : there->create_revision, compare.result(),
                                compare.create_revision());
    case v1::Compare::kVersion:
      return Fulfills<uint64_t>(there == nullptr ? 0 : there->version, compare.result(),
                                compare.version());
    case v1::Compare::kValue:
      // What is not there is neither equal nor unequal to any value.
      return there != nullptr &&
             Fulfills<std::string>(there->value, compare.result(), compare.value());
    case v1::Compare::TARGET_NOT_SET:
      break;
  }
  CHECK(false, "a compare that no client sent");
}

void StoreModel::Transact(const v1::Transaction& transaction, v1::Answer* answer) {
  bool holds = true;
  for (const v1::Compare& compare : transaction.compare()) {
    uint64_t current = 0;
    if (Holds(compare, &current)) continue;
    holds = false;
    if (!transaction.abort_on_false()) break;
    storage::Refuse(*answer, storage::kAborted, "REVISION_MISMATCH", "");
    Say(answer, "current_revision", std::to_string(current));
    return;
  }
  const auto& operations = holds ? transaction.then() : transaction.otherwise();
  const bool may_fail = std::any_of(operations.begin(), operations.end(), [](const auto& each) {
    return each.has_read() || each.put().ttl_id() != 0;
  });
  const Items items = may_fail ? items_ : Items();
  const std::map<uint64_t, Ttl> ttls = may_fail ? ttls_ : std::map<uint64_t, Ttl>();
  answer->set_succeeded(holds);
  read_bytes_ = 0;
  for (const v1::Operation& operation : operations) {
    if (Operate(operation, answer)) continue;
    CHECK(may_fail);
    items_ = items;
    ttls_ = ttls;
    changes_.clear();
    break;
  }
  Finish(answer);
}

bool StoreModel::Operate(const v1::Operation& operation, v1::Answer* answer) {
  v1::OperationResult* const result = answer->add_results();
  if (operation.has_put()) {
    const v1::PutOperation& put = operation.put();
    if (put.ttl_id() != 0 && !ttls_.contains(put.ttl_id())) {
      RefuseTtl(put.ttl_id(), answer);
      return false;
    }
    Write(put.key(), {.deleted = false,
                      .is_text = put.value_kind() == v1::VALUE_KIND_TEXT,
                      .value = put.value(),
                      .ttl = put.ttl_id()});
    const Version& written = *items_.at(put.key());
    result->set_create_revision(written.create_revision);
    result->set_version(written.version);
    return true;
  }
  if (operation.has_read()) {
    if (Read(operation.read(), result)) return true;
    answer->Clear();
    storage::Refuse(*answer, storage::kResourceExhausted, "TXN_RESULT_TOO_LARGE", "");
    return false;
  }
  std::vector<std::string> keys;
  const v1::DeleteOperation& remove = operation.delete_();
  const auto [begin, end] = Range(remove.key(), remove.range_end());
  for (auto each = begin; each != end; ++each) {
    if (!each->second->deleted) keys.push_back(each->first);
  }
  for (const std::string& key : keys) Write(key, {.deleted = true, .value = {}});
  result->set_deleted(keys.size());
  return true;
}

bool StoreModel::Read(const v1::ReadOperation& read, v1::OperationResult* result) {
  const auto [begin, end] = Range(read.key(), read.range_end());
  for (auto each = begin; each != end; ++each) {
    const Version& version = *each->second;
    if (version.deleted) continue;
    result->set_count(result->count() + 1);
    if (read.count_only()) continue;
    v1::ReadItem* const item = result->add_items();
    item->set_key(each->first);
    item->set_create_revision(version.create_revision);
    item->set_mod_revision(version.revision);
    item->set_version(version.version);
    read_bytes_ += each->first.size() + kReadItemBytes;
    if (!read.keys_only()) {
      item->set_value_kind(version.is_text ? v1::VALUE_KIND_TEXT : v1::VALUE_KIND_DATA);
      item->set_value(version.value);
      item->set_ttl_id(version.ttl);
      read_bytes_ += version.value.size();
    }
    if (read_bytes_ > kReadBytesMax) return false;
  }
  return true;
}

// --- The past ---

void StoreModel::Rollback(const v1::Rollback& rollback, v1::Answer* answer) {
  const uint64_t to = rollback.to_revision();
  if (to > revision_) {
    storage::Refuse(*answer, storage::kOutOfRange, "REVISION_IN_FUTURE", "");
    Say(answer, "current_revision", std::to_string(revision_));
    return;
  }
  if (to <= compacted_ && to != revision_) {
    storage::Refuse(*answer, storage::kOutOfRange, "REVISION_COMPACTED", "");
    Say(answer, "compacted_revision", std::to_string(compacted_));
    return;
  }
  std::vector<std::string> keys;
  const auto [begin, end] = Range(rollback.key(), rollback.range_end());
  for (auto each = begin; each != end; ++each) {
    if (each->second->revision > to) keys.push_back(each->first);
  }
  answer->set_succeeded(true);
  v1::OperationResult* const result = answer->add_results();
  for (const std::string& key : keys) RollBackKey(key, to, result);
  Finish(answer);
}

// It lives as long as it did then. Where that time-to-live is over it stays bound to what it is
// bound to now, if it is there; else it comes back plain.
void StoreModel::RollBackKey(const std::string& key, uint64_t to, v1::OperationResult* result) {
  const Version* const then = At(key, to);
  const Version* const now = Now(key);
  if (then == nullptr) {
    if (now == nullptr) return;
    result->set_deleted(result->deleted() + 1);
    return Write(key, {.deleted = true, .value = {}});
  }
  uint64_t ttl = then->ttl;
  if (ttl != 0 && !ttls_.contains(ttl)) ttl = now == nullptr ? 0 : now->ttl;
  if (now != nullptr && now->is_text == then->is_text && now->value == then->value &&
      now->ttl == ttl) {
    return;
  }
  result->set_count(result->count() + 1);
  Write(key, {.deleted = false, .is_text = then->is_text, .value = then->value, .ttl = ttl});
}

void StoreModel::Compact(const v1::CompactHistory& compact, const v1::Answer* told,
                         v1::Answer* answer) {
  const uint64_t wanted = compact.revision();
  if (wanted > revision_) {
    storage::Refuse(*answer, storage::kOutOfRange, "REVISION_IN_FUTURE", "");
    Say(answer, "current_revision", std::to_string(revision_));
    return;
  }
  if (compacted_ < wanted) {
    uint64_t done = wanted;
    if (told != nullptr) {
      // In pieces of whole revisions, one at least.
      const auto said = told->metadata().find("compacted_revision");
      const uint64_t piece =
          said == told->metadata().end() ? 0 : std::strtoull(said->second.c_str(), nullptr, 10);
      if (piece > compacted_ && piece < wanted) done = piece;
    }
    compacted_ = done;
  }
  answer->set_succeeded(compacted_ >= wanted);
  Say(answer, "compacted_revision", std::to_string(compacted_));
}

// --- Time-to-lives ---

void StoreModel::Grant(const v1::GrantTtl& grant, const Where& where, v1::Answer* answer) {
  uint64_t id = 0;
  for (uint64_t attempt = 0; id == 0 || ttls_.contains(id); ++attempt) {
    id = storage::TtlIdOf(where.cluster, where.index, attempt);
  }
  ttls_[id] = {grant.ttl_ms(), log_time_ms_ + grant.ttl_ms(), {}};
  v1::OperationResult* const result = answer->add_results();
  result->set_ttl_id(id);
  result->set_ttl_ms(grant.ttl_ms());
  answer->set_succeeded(true);
}

uint64_t StoreModel::EndTtl(uint64_t id) {
  const std::set<std::string> keys = ttls_.at(id).keys;
  for (const std::string& key : keys) Write(key, {.deleted = true, .value = {}});
  ttls_.erase(id);
  ended_ttls_.push_back(id);
  return keys.size();
}

void StoreModel::Revoke(const v1::RevokeTtl& revoke, v1::Answer* answer) {
  if (!ttls_.contains(revoke.ttl_id())) {
    RefuseTtl(revoke.ttl_id(), answer);
    answer->set_revision(revision_);
    return;
  }
  if (note_.empty()) note_ = "time-to-live revoked";
  answer->set_succeeded(true);
  answer->add_results()->set_deleted(EndTtl(revoke.ttl_id()));
  Finish(answer);
}

void StoreModel::Expire(const v1::ExpireTtl& expire, v1::Answer* answer) {
  if (note_.empty()) note_ = "time-to-live expired";
  uint64_t ended = 0;
  for (const uint64_t id : expire.ttl_id()) {
    const auto found = ttls_.find(id);
    if (found == ttls_.end() || log_time_ms_ <= found->second.deadline_ms) continue;
    EndTtl(id);
    ++ended;
  }
  answer->set_succeeded(true);
  v1::OperationResult* const result = answer->add_results();
  result->set_deleted(changes_.size());
  result->set_count(ended);
  Finish(answer);
}

// --- Views ---

const StoreModel::Version* StoreModel::Now(const std::string& key) const {
  const auto found = items_.find(key);
  return found == items_.end() || found->second->deleted ? nullptr : found->second.get();
}

const StoreModel::Version* StoreModel::VersionAt(const VersionPtr& newest, uint64_t revision) {
  const Version* version = newest.get();
  while (version != nullptr && version->revision > revision) version = version->previous.get();
  return version;
}

const StoreModel::Version* StoreModel::At(const std::string& key, uint64_t revision) const {
  const auto found = items_.find(key);
  if (found == items_.end()) return nullptr;
  const Version* const version = VersionAt(found->second, revision);
  return version == nullptr || version->deleted ? nullptr : version;
}

std::pair<StoreModel::Items::const_iterator, StoreModel::Items::const_iterator> StoreModel::Range(
    const std::string& first, const std::string& end) const {
  if (end.empty()) {
    const auto found = items_.find(first);
    return {found, found == items_.end() ? found : std::next(found)};
  }
  const auto begin = items_.lower_bound(first);
  if (end == std::string(1, '\0')) return {begin, items_.end()};
  return {begin, first < end ? items_.lower_bound(end) : begin};
}

uint64_t StoreModel::ttl_keys() const {
  uint64_t keys = 0;
  for (const auto& [id, ttl] : ttls_) keys += ttl.keys.size();
  return keys;
}

}  // namespace quorate::sim
