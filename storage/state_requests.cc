#include "storage/state_requests.h"

#include <sqlite3.h>
#include <xxhash.h>

#include <utility>

#include "base/check.h"
#include "google/protobuf/io/coded_stream.h"
#include "storage/state_schema.h"
#include "storage/state_sessions.h"

namespace quorate::storage {
namespace {

using google::protobuf::io::CodedOutputStream;

constexpr size_t kScopeLengthBytes = 2;

HashSum HashOfBounds(RowHasher& hasher, uint64_t forgotten, Revision expired_through) {
  if (forgotten == 0) return HashSum();  // no row yet
  return hasher.Begin(HashedTable::kRequestBounds)
      .Number(forgotten)
      .Number(expired_through.value())
      .Finish();
}

// What a kept write counts for: as AddAnswer hashes an answer, without its message.
uint64_t WeightOf(const std::string& name, const std::string& bytes, const v1::Answer& answer) {
  const size_t words = answer.message().size();
  constexpr size_t kTagBytes = 1;
  const size_t message =
      words == 0
          ? 0
          : kTagBytes + CodedOutputStream::VarintSize32(static_cast<uint32_t>(words)) + words;
  return name.size() + bytes.size() - message;
}

}  // namespace

size_t RequestTable::NameHash::operator()(std::string_view name) const {
  return XXH3_64bits(name.data(), name.size());
}

std::string RequestTable::NameOf(std::string_view scope, std::string_view id) {
  CHECK(scope.size() <= 0xffff);
  std::string name;
  name.reserve(kScopeLengthBytes + scope.size() + id.size());
  name.push_back(static_cast<char>(scope.size() >> 8));
  name.push_back(static_cast<char>(scope.size()));
  name.append(scope).append(id);
  return name;
}

std::pair<std::string_view, std::string_view> RequestTable::PartsOf(std::string_view name) {
  const size_t scope =
      static_cast<size_t>(static_cast<uint8_t>(name[0])) << 8 | static_cast<uint8_t>(name[1]);
  return {name.substr(kScopeLengthBytes, scope), name.substr(kScopeLengthBytes + scope)};
}

HashSum RequestTable::HashOf(uint64_t ordinal, const Kept& kept, const v1::Answer& answer) {
  const auto [scope, id] = PartsOf(kept.name);
  hasher_.Begin(HashedTable::kRequest)
      .Number(ordinal)
      .Bytes(scope)
      .Bytes(id)
      .Bytes(kept.command_hash)
      .Number(kept.head.value())
      .Number(kept.log_time_ms);
  return AddAnswer(hasher_, answer).Finish();
}

RequestTable::Found RequestTable::Find(std::string_view scope, const v1::ClientRequest& request,
                                       Revision head) const {
  if (request.id().empty() || request.id().size() > kRequestIdBytesMax || scope.size() > 0xffff ||
      request.revision() == 0 || request.command_hash().size() != kCommandHashBytes) {
    return {Verdict::kMalformed, nullptr};
  }
  const auto found = index_.find(NameOf(scope, request.id()));
  if (found != index_.end()) {
    const Kept& kept = kept_[found->second - forgotten_ - 1];
    if (kept.command_hash != request.command_hash()) return {Verdict::kOther, nullptr};
    return {Verdict::kRepeat, kept.answer};
  }
  if (request.revision() > head.value()) return {Verdict::kInFuture, nullptr};
  if (request.revision() <= expired_through_.value()) return {Verdict::kExpired, nullptr};
  return {Verdict::kNew, nullptr};
}

void RequestTable::Forget(uint64_t log_time_ms, Revision head) {
  for (uint64_t i = 0; i < limits_.forgotten_per_entry_max && !kept_.empty(); ++i) {
    const Kept& oldest = kept_.front();
    if (oldest.log_time_ms + limits_.age_max_ms >= log_time_ms || oldest.head >= head) return;
    PopFront();
  }
}

bool RequestTable::Keep(std::string_view scope, const v1::ClientRequest& request, Revision before,
                        Revision after, uint64_t log_time_ms,
                        std::shared_ptr<const std::string> answer, const v1::Answer& parsed) {
  Kept kept{NameOf(scope, request.id()),
            request.command_hash(),
            before,
            log_time_ms,
            std::move(answer),
            0,
            HashSum()};
  kept.bytes = WeightOf(kept.name, *kept.answer, parsed);
  // An answer that is over the bound by itself is kept all the same, alone.
  while (!kept_.empty() &&
         (kept_.size() >= limits_.ids_max || bytes_ + kept.bytes > limits_.bytes_max)) {
    if (kept_.front().head >= after) return false;  // all of them are at the latest revision
    PopFront();
  }
  kept.hash = HashOf(forgotten_ + kept_.size() + 1, kept, parsed);
  Add(std::move(kept));
  return true;
}

void RequestTable::Add(Kept kept) {
  bytes_ += kept.bytes;
  hash_ += kept.hash;
  kept_.push_back(std::move(kept));
  const bool is_new = index_.emplace(kept_.back().name, forgotten_ + kept_.size()).second;
  CHECK(is_new, "a request id is kept once");
}

void RequestTable::PopFront() {
  Kept& oldest = kept_.front();
  expired_through_ = std::max(expired_through_, oldest.head);
  bytes_ -= oldest.bytes;
  hash_ -= oldest.hash;
  index_.erase(oldest.name);
  kept_.pop_front();
  ++forgotten_;
}

absl::StatusOr<RequestStore> RequestStore::Prepare(Database& database) {
  RequestStore store;
  struct Sql {
    Statement* statement;
    std::string_view text;
  };
  const Sql all[] = {
      {&store.put_chunk_, "INSERT INTO request_ids VALUES (?1, ?2)"},
      {&store.delete_chunk_, "DELETE FROM request_ids WHERE first = ?1"},
      {&store.put_bounds_, "INSERT OR REPLACE INTO request_id_bounds VALUES (1, ?1, ?2)"},
  };
  for (const Sql& sql : all) {
    absl::StatusOr<Statement> statement = database.Prepare(sql.text);
    if (!statement.ok()) return statement.status();
    *sql.statement = *std::move(statement);
  }
  return store;
}

absl::Status RequestStore::Flush(RequestTable& table, HashSum& hash) {
  while (!table.chunks_.empty() && table.chunks_.front().last <= table.forgotten_) {
    delete_chunk_.BindUint(1, table.chunks_.front().first);
    absl::Status status = delete_chunk_.Run();
    if (!status.ok()) return status;
    table.chunks_.pop_front();
  }
  const uint64_t last = table.forgotten_ + table.kept_.size();
  // What came and went within this batch is never written.
  const uint64_t first = std::max(table.stored_through_, table.forgotten_) + 1;
  if (first <= last) {
    v1::KeptRequests chunk;
    for (uint64_t ordinal = first; ordinal <= last; ++ordinal) {
      const RequestTable::Kept& kept = table.kept_[ordinal - table.forgotten_ - 1];
      const auto [scope, id] = RequestTable::PartsOf(kept.name);
      v1::KeptRequest& request = *chunk.add_requests();
      request.set_scope(std::string(scope));
      request.set_id(std::string(id));
      request.set_command_hash(kept.command_hash);
      request.set_head(kept.head.value());
      request.set_log_time_ms(kept.log_time_ms);
      request.set_answer(*kept.answer);
    }
    const std::string bytes = chunk.SerializeAsString();
    put_chunk_.BindUint(1, first);
    put_chunk_.BindBytes(2, bytes);
    absl::Status status = put_chunk_.Run();
    if (!status.ok()) return status;
    table.chunks_.push_back({first, last});
  }
  table.stored_through_ = last;
  if (table.stored_forgotten_ != table.forgotten_) {
    put_bounds_.BindUint(1, table.forgotten_);
    put_bounds_.BindUint(2, table.expired_through_.value());
    absl::Status status = put_bounds_.Run();
    if (!status.ok()) return status;
    table.stored_forgotten_ = table.forgotten_;
  }
  const HashSum now =
      table.hash_ + HashOfBounds(table.hasher_, table.forgotten_, table.expired_through_);
  hash -= table.stored_hash_;
  hash += now;
  table.stored_hash_ = now;
  return absl::OkStatus();
}

absl::Status RequestStore::Load(Database& database, RequestTable& table) {
  CHECK(table.kept_.empty() && table.forgotten_ == 0, "request ids are loaded into an empty table");
  const std::string path = sqlite3_db_filename(database.handle(), "main");
  absl::StatusOr<Statement> select =
      database.Prepare("SELECT forgotten, expired_through FROM request_id_bounds");
  if (!select.ok()) return select.status();
  absl::StatusOr<bool> row = select->Step();
  if (!row.ok()) return row.status();
  if (*row) {
    table.forgotten_ = table.stored_forgotten_ = select->Uint(0);
    table.expired_through_ = Revision(select->Uint(1));
  }
  uint64_t next = table.forgotten_ + 1;
  select = database.Prepare("SELECT first, requests FROM request_ids ORDER BY first");
  if (!select.ok()) return select.status();
  v1::KeptRequests chunk;
  v1::Answer answer;
  while (true) {
    row = select->Step();
    if (!row.ok()) return row.status();
    if (!*row) break;
    const uint64_t first = select->Uint(0);
    const std::string_view bytes = select->Bytes(1);
    if (!chunk.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
        chunk.requests().empty()) {
      return DamagedState(path, "unreadable request ids");
    }
    uint64_t ordinal = first;
    for (const v1::KeptRequest& request : chunk.requests()) {
      if (ordinal++ <= table.forgotten_) continue;
      RequestTable::Kept kept{RequestTable::NameOf(request.scope(), request.id()),
                              request.command_hash(),
                              Revision(request.head()),
                              request.log_time_ms(),
                              std::make_shared<const std::string>(request.answer()),
                              0,
                              HashSum()};
      if (ordinal - 1 != next || table.index_.contains(kept.name) ||
          !answer.ParseFromString(request.answer())) {
        return DamagedState(path, "request ids with a hole, twice or unreadable");
      }
      kept.bytes = WeightOf(kept.name, *kept.answer, answer);
      kept.hash = table.HashOf(next++, kept, answer);
      table.Add(std::move(kept));
    }
    table.chunks_.push_back({first, ordinal - 1});
  }
  table.stored_through_ = table.forgotten_ + table.kept_.size();
  table.stored_hash_ =
      table.hash_ + HashOfBounds(table.hasher_, table.forgotten_, table.expired_through_);
  return absl::OkStatus();
}

}  // namespace quorate::storage
