#include "services/validate.h"

#include <xxhash.h>

#include <optional>
#include <utility>

#include "base/check.h"
#include "base/ids.h"
#include "services/errors.h"

namespace quorate::services {
namespace {

// The first refusal, if any, of several checks.
using Checked = std::optional<grpc::Status>;

grpc::Status TooLarge(std::string_view reason, std::string_view field, size_t size, size_t limit) {
  return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, reason,
                   std::string(field) + ": has " + std::to_string(size) + " bytes, at most " +
                       std::to_string(limit) + " are allowed",
                   {{"field", std::string(field)},
                    {"size", std::to_string(size)},
                    {"limit", std::to_string(limit)}});
}

Checked CheckKeyText(std::string_view field, std::string_view text) {
  if (text.size() > kKeyBytesMax) {
    return TooLarge("KEY_TOO_LARGE", field, text.size(), kKeyBytesMax);
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7F) {
      return MakeFieldError(
          "KEY_CONTROL_CHARACTER", field,
          "holds the control character " + std::to_string(c) + " (byte " + std::to_string(i) + ")");
    }
  }
  return std::nullopt;  // the parser has seen to UTF-8
}

Checked CheckKey(std::string_view field, std::string_view key) {
  if (key.empty()) {
    return MakeFieldError("KEY_EMPTY", field, "is empty; a key has 1 to 1024 bytes");
  }
  return CheckKeyText(field, key);
}

Checked CheckNote(const std::string& note) {
  if (note.size() <= kNoteBytesMax) return std::nullopt;
  return TooLarge("NOTE_TOO_LARGE", "note", note.size(), kNoteBytesMax);
}

Checked CheckRequestId(const std::string& id, uint64_t revision) {
  if (id.size() > kRequestIdBytesMax) {
    return TooLarge("REQUEST_ID_TOO_LARGE", "request_id", id.size(), kRequestIdBytesMax);
  }
  if (revision != 0 && id.empty()) {
    return MakeFieldError("INVALID_VALUE", "request_revision", "goes together with a request_id");
  }
  return std::nullopt;
}

Checked CheckTtlId(const std::string& id) {
  if (ParseHex(id).value_or(0) != 0) return std::nullopt;
  return MakeFieldError("INVALID_VALUE", "ttl_id",
                        "is not 16 hexadecimal digits as GrantTtl answers them");
}

Checked CheckRead(const v1::ReadOptions& read) {
  switch (read.consistency()) {
    case v1::CONSISTENCY_UNSPECIFIED:
    case v1::CONSISTENCY_LOCAL:
    case v1::CONSISTENCY_LEASE:
    case v1::CONSISTENCY_LINEARIZABLE:
      break;
    default:
      return MakeFieldError("INVALID_VALUE", "read.consistency",
                            "there is no consistency " + std::to_string(read.consistency()));
  }
  if (read.has_max_staleness()) {
    // As google.protobuf.Duration has it: 10,000 years at most, nanos below a second.
    const auto& limit = read.max_staleness();
    if (limit.seconds() < 0 || limit.nanos() < 0) {
      return MakeFieldError("INVALID_VALUE", "read.max_staleness", "is negative");
    }
    if (limit.seconds() > 315'576'000'000 || limit.nanos() > 999'999'999) {
      return MakeFieldError("INVALID_VALUE", "read.max_staleness", "is out of range");
    }
  }
  return std::nullopt;
}

template <typename Request>
Checked CheckPage(const Request& request) {
  if (request.page_token().size() > kPageTokenBytesMax) {
    return TooLarge("PAGE_TOKEN_TOO_LARGE", "page_token", request.page_token().size(),
                    kPageTokenBytesMax);
  }
  if (request.page_size() > kPageItemsMax) {
    return MakeFieldError("INVALID_VALUE", "page_size",
                          "is " + std::to_string(request.page_size()) + ", at most " +
                              std::to_string(kPageItemsMax) + " are allowed");
  }
  // A token pins its own revision.
  if (!request.page_token().empty() && request.read().at_revision() != 0) {
    return MakeFieldError("INVALID_VALUE", "read.at_revision",
                          "does not go together with page_token, which has a revision");
  }
  return std::nullopt;
}

// Of a write's oneof target: key or prefix.
template <typename Request>
Checked CheckTarget(const Request& request) {
  if (request.has_key()) return CheckKey("key", request.key());
  if (!request.has_prefix()) {
    return MakeFieldError("TARGET_MISSING", "target", "neither key nor prefix is set");
  }
  if (request.prefix().empty()) {
    return MakeFieldError("PREFIX_EMPTY", "prefix", "is empty; name what is meant");
  }
  return CheckKeyText("prefix", request.prefix());
}

template <typename... Checks>
grpc::Status FirstOf(Checks... checks) {
  Checked first;
  // Each check runs only when those before it found nothing.
  (void)((first = checks()) || ...);
  return first.value_or(grpc::Status::OK);
}

// What makes a repeat the same write: everything that the client asked for but the id and its
// revision. Hashed here and carried in the command, so that the state machine of every node
// compares the same bytes, whatever its build.
std::string HashOf(const v1::Command& command) {
  const std::string bytes = command.SerializeAsString();  // no maps: the fields in their order
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return {reinterpret_cast<const char*>(canonical.digest), sizeof canonical.digest};
}

template <typename Request>
v1::Command Named(const Request& request, v1::Command command) {
  NameCommand(request.request_id(), request.request_revision(), &command);
  return command;
}

v1::Command WriteCommand(const std::string& note) {
  v1::Command command;
  command.set_note(note);
  return command;
}

void ExpectRevision(const std::string& key, uint64_t revision, v1::Transaction* transaction) {
  v1::Compare* compare = transaction->add_compare();
  compare->set_key(key);
  compare->set_result(v1::Compare::RESULT_EQUAL);
  compare->set_mod_revision(revision);
  transaction->set_abort_on_false(true);
}

}  // namespace

grpc::Status Validate(const v1::GetRequest& request) {
  return FirstOf([&] { return CheckKey("key", request.key()); },
                 [&] { return CheckRead(request.read()); });
}

grpc::Status Validate(const v1::ListRequest& request) {
  return FirstOf(
      [&] { return CheckKeyText("prefix", request.prefix()); }, [&] { return CheckPage(request); },
      [&]() -> Checked {
        if (!request.count_only()) return std::nullopt;
        const char* other = request.page_size() != 0        ? "page_size"
                            : !request.page_token().empty() ? "page_token"
                            : request.keys_only()           ? "keys_only"
                                                            : nullptr;
        if (other == nullptr) return std::nullopt;
        return MakeFieldError("INVALID_VALUE", other, "does not go together with count_only");
      },
      [&] { return CheckRead(request.read()); });
}

grpc::Status Validate(const v1::PutRequest& request) {
  return FirstOf([&] { return CheckKey("key", request.key()); },
                 [&]() -> Checked {
                   if (request.value_case() == v1::PutRequest::VALUE_NOT_SET) {
                     return MakeFieldError("VALUE_MISSING", "value",
                                           "neither text nor data is set; an empty one is a value");
                   }
                   const bool text = request.value_case() == v1::PutRequest::kText;
                   const size_t size = text ? request.text().size() : request.data().size();
                   if (size <= kValueBytesMax) return std::nullopt;
                   return TooLarge("VALUE_TOO_LARGE", text ? "text" : "data", size, kValueBytesMax);
                 },
                 [&] { return CheckNote(request.note()); },
                 [&] { return CheckRequestId(request.request_id(), request.request_revision()); },
                 [&]() -> Checked {
                   if (request.ttl_id().empty()) return std::nullopt;
                   return CheckTtlId(request.ttl_id());
                 });
}

grpc::Status Validate(const v1::DeleteRequest& request) {
  return FirstOf([&] { return CheckTarget(request); },
                 [&]() -> Checked {
                   if (!request.has_prefix() || !request.has_expected_revision())
                     return std::nullopt;
                   return MakeFieldError("INVALID_VALUE", "expected_revision",
                                         "goes together with key only, not with prefix");
                 },
                 [&] { return CheckNote(request.note()); },
                 [&] { return CheckRequestId(request.request_id(), request.request_revision()); });
}

grpc::Status Validate(const v1::HistoryRequest& request) {
  return FirstOf([&] { return CheckKey("key", request.key()); }, [&] { return CheckPage(request); },
                 [&] { return CheckRead(request.read()); });
}

grpc::Status Validate(const v1::RollbackRequest& request) {
  return FirstOf([&] { return CheckTarget(request); },
                 [&]() -> Checked {
                   if (request.to_revision() != 0) return std::nullopt;
                   return MakeFieldError("INVALID_VALUE", "to_revision",
                                         "is missing; revisions begin at 1");
                 },
                 [&] { return CheckNote(request.note()); },
                 [&] { return CheckRequestId(request.request_id(), request.request_revision()); });
}

grpc::Status Validate(const v1::WatchRequest& request) {
  return FirstOf(
      [&]() -> Checked {
        switch (request.target_case()) {
          case v1::WatchRequest::kKey:
            return CheckKey("key", request.key());
          case v1::WatchRequest::kPrefix:
            return CheckKeyText("prefix", request.prefix());
          case v1::WatchRequest::TARGET_NOT_SET:
            break;
        }
        return MakeFieldError("TARGET_MISSING", "target",
                              "neither key nor prefix is set; an empty prefix is every key");
      },
      [&]() -> Checked {
        if (!request.with_initial_state() || request.start_revision() == 0) return std::nullopt;
        return MakeFieldError("INVALID_VALUE", "with_initial_state",
                              "does not go together with start_revision");
      },
      [&]() -> Checked {
        if (!request.has_progress_interval()) return std::nullopt;
        const auto& interval = request.progress_interval();
        const bool sane = interval.seconds() >= 0 && interval.seconds() <= 10 &&
                          interval.nanos() >= 0 && interval.nanos() <= 999'999'999;
        const int64_t nanos = sane ? interval.seconds() * 1'000'000'000 + interval.nanos() : 0;
        if (nanos >= 100'000'000 && nanos <= 10'000'000'000) return std::nullopt;
        return MakeFieldError("INVALID_VALUE", "progress_interval", "must be 100 ms to 10 s");
      });
}

v1::Command ToCommand(const v1::PutRequest& request) {
  v1::Command command = WriteCommand(request.note());
  v1::Transaction* transaction = command.mutable_transaction();
  if (request.has_expected_revision()) {
    ExpectRevision(request.key(), request.expected_revision(), transaction);
  }
  v1::PutOperation* put = transaction->add_then()->mutable_put();
  put->set_key(request.key());
  if (request.value_case() == v1::PutRequest::kText) {
    put->set_value(request.text());
    put->set_value_kind(v1::VALUE_KIND_TEXT);
  } else {
    put->set_value(request.data());
    put->set_value_kind(v1::VALUE_KIND_DATA);
  }
  if (!request.ttl_id().empty()) put->set_ttl_id(TtlOf(request.ttl_id()));
  return Named(request, std::move(command));
}

v1::Command ToCommand(const v1::DeleteRequest& request) {
  v1::Command command = WriteCommand(request.note());
  v1::Transaction* transaction = command.mutable_transaction();
  v1::DeleteOperation* erase = transaction->add_then()->mutable_delete_();
  if (request.target_case() == v1::DeleteRequest::kPrefix) {
    erase->set_key(request.prefix());
    erase->set_range_end(PrefixEnd(request.prefix()));
  } else {
    if (request.has_expected_revision()) {
      ExpectRevision(request.key(), request.expected_revision(), transaction);
    }
    erase->set_key(request.key());
  }
  return Named(request, std::move(command));
}

v1::Command ToCommand(const v1::RollbackRequest& request) {
  v1::Command command = WriteCommand(request.note());
  v1::Rollback* rollback = command.mutable_rollback();
  if (request.has_prefix()) {
    rollback->set_key(request.prefix());
    rollback->set_range_end(PrefixEnd(request.prefix()));
  } else {
    rollback->set_key(request.key());
  }
  rollback->set_to_revision(request.to_revision());
  return Named(request, std::move(command));
}

grpc::Status Validate(const v1::GrantTtlRequest& request) {
  return FirstOf(
      [&]() -> Checked {
        const auto& ttl = request.ttl();
        const bool whole = ttl.nanos() >= 0 && ttl.nanos() <= 999'999'999;
        if (whole && ttl.seconds() >= kTtlSecondsMin &&
            (ttl.seconds() < kTtlSecondsMax ||
             (ttl.seconds() == kTtlSecondsMax && ttl.nanos() == 0))) {
          return std::nullopt;
        }
        return MakeFieldError("INVALID_VALUE", "ttl", "must be one second to 366 days");
      },
      [&] { return CheckRequestId(request.request_id(), request.request_revision()); });
}

grpc::Status Validate(const v1::KeepAliveTtlRequest& request) {
  return FirstOf([&] { return CheckTtlId(request.ttl_id()); });
}

grpc::Status Validate(const v1::RevokeTtlRequest& request) {
  return FirstOf([&] { return CheckTtlId(request.ttl_id()); },
                 [&] { return CheckRequestId(request.request_id(), request.request_revision()); });
}

v1::Command ToCommand(const v1::GrantTtlRequest& request) {
  v1::Command command;
  const auto ms = static_cast<uint64_t>(request.ttl().seconds()) * 1000 +
                  static_cast<uint64_t>(request.ttl().nanos() + 999'999) / 1'000'000;
  command.mutable_grant_ttl()->set_ttl_ms(ms);
  return Named(request, std::move(command));
}

v1::Command ToCommand(const v1::RevokeTtlRequest& request) {
  v1::Command command;
  command.mutable_revoke_ttl()->set_ttl_id(TtlOf(request.ttl_id()));
  return Named(request, std::move(command));
}

uint64_t TtlOf(const std::string& ttl_id) {
  const std::optional<uint64_t> ttl = ParseHex(ttl_id);
  CHECK(ttl && *ttl != 0, "a ttl_id that was not validated");
  return *ttl;
}

google::protobuf::Duration DurationOfMs(uint64_t ms) {
  google::protobuf::Duration duration;
  duration.set_seconds(static_cast<int64_t>(ms / 1000));
  duration.set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  return duration;
}

grpc::Status ValidateWrite(const std::string& note, const std::string& request_id,
                           uint64_t request_revision) {
  return FirstOf([&] { return CheckNote(note); },
                 [&] { return CheckRequestId(request_id, request_revision); });
}

void NameCommand(const std::string& request_id, uint64_t request_revision, v1::Command* command) {
  if (request_id.empty()) return;
  std::string hash = HashOf(*command);
  v1::ClientRequest* client = command->mutable_client_request();
  client->set_id(request_id);
  client->set_revision(request_revision);
  client->set_command_hash(std::move(hash));
}

std::string PrefixEnd(std::string_view prefix) {
  CHECK(!prefix.empty() && static_cast<unsigned char>(prefix.back()) < 0xFF);
  std::string end(prefix);
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace quorate::services
