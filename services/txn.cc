#include "services/txn.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/ids.h"
#include "services/errors.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

using Operations = google::protobuf::RepeatedPtrField<v1::TxnOperation>;

grpc::Status TooMany(const char* field, int size) {
  return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TXN_TOO_MANY_OPERATIONS",
                   std::string(field) + ": has " + std::to_string(size) + " entries, at most " +
                       std::to_string(kTxnOperationsMax) + " are allowed",
                   {{"field", field},
                    {"size", std::to_string(size)},
                    {"limit", std::to_string(kTxnOperationsMax)}});
}

grpc::Status NotWithin(const char* field, const char* why) {
  return MakeFieldError("INVALID_VALUE", field, why);
}

constexpr char kReadWithin[] = "a transaction reads the state that it is applied to";
constexpr char kPageWithin[] = "a listing in a transaction has no pages";
constexpr char kRequestWithin[] = "belongs to the transaction";
constexpr char kExpectedWithin[] = "has no place in a transaction: write a condition";

grpc::Status Check(const v1::GetRequest& get) {
  if (get.has_read()) return NotWithin("read", kReadWithin);
  return Validate(get);
}

grpc::Status Check(const v1::ListRequest& list) {
  if (list.has_read()) return NotWithin("read", kReadWithin);
  if (list.page_size() != 0) return NotWithin("page_size", kPageWithin);
  if (!list.page_token().empty()) return NotWithin("page_token", kPageWithin);
  return Validate(list);
}

template <typename Write>
grpc::Status Check(const Write& write) {
  if (write.has_expected_revision()) return NotWithin("expected_revision", kExpectedWithin);
  if (!write.request_id().empty()) return NotWithin("request_id", kRequestWithin);
  if (write.request_revision() != 0) return NotWithin("request_revision", kRequestWithin);
  if (!write.note().empty()) return NotWithin("note", kRequestWithin);
  return Validate(write);
}

grpc::Status Check(const v1::TxnOperation& operation) {
  switch (operation.operation_case()) {
    case v1::TxnOperation::kGet:
      return Within("get", Check(operation.get()));
    case v1::TxnOperation::kList:
      return Within("list", Check(operation.list()));
    case v1::TxnOperation::kPut:
      return Within("put", Check(operation.put()));
    case v1::TxnOperation::kDelete:
      return Within("delete", Check(operation.delete_()));
    case v1::TxnOperation::OPERATION_NOT_SET:
      break;
  }
  return MakeFieldError("OPERATION_MISSING", "operation", "is none of get, list, put and delete");
}

grpc::Status Check(const v1::Condition& condition) {
  v1::GetRequest key;  // a key is a key
  key.set_key(condition.key());
  if (grpc::Status status = Validate(key); !status.ok()) return status;
  if (condition.comparison() < v1::Condition::COMPARISON_EQUAL ||
      condition.comparison() > v1::Condition::COMPARISON_LESS) {
    return MakeFieldError("INVALID_VALUE", "comparison",
                          "is none of EQUAL, NOT_EQUAL, GREATER and LESS");
  }
  if (condition.target_case() == v1::Condition::TARGET_NOT_SET) {
    return MakeFieldError("TARGET_MISSING", "target",
                          "none of mod_revision, create_revision, version, text and data is set");
  }
  if (condition.target_case() == v1::Condition::kText ||
      condition.target_case() == v1::Condition::kData) {
    v1::PutRequest value;  // and a value a value
    value.set_key(condition.key());
    if (condition.target_case() == v1::Condition::kText) {
      value.set_text(condition.text());
    } else {
      value.set_data(condition.data());
    }
    return Validate(value);
  }
  return grpc::Status::OK;
}

std::string At(const char* list, int index) {
  return std::string(list) + "[" + std::to_string(index) + "]";
}

// What one operation writes.
struct Written {
  std::string_view text;
  bool is_prefix = false;
  int index = 0;
};

// Sorted, whatever a prefix covers follows it: so two that overlap have two neighbours that do.
grpc::Status CheckDuplicates(const char* list, const Operations& operations) {
  std::vector<Written> written;
  for (int i = 0; i < operations.size(); ++i) {
    const v1::TxnOperation& operation = operations[i];
    if (operation.has_put()) written.push_back({operation.put().key(), false, i});
    if (!operation.has_delete_()) continue;
    const bool is_prefix = operation.delete_().has_prefix();
    written.push_back(
        {is_prefix ? operation.delete_().prefix() : operation.delete_().key(), is_prefix, i});
  }
  std::sort(written.begin(), written.end(), [](const Written& a, const Written& b) {
    if (a.text != b.text) return a.text < b.text;
    if (a.is_prefix != b.is_prefix) return a.is_prefix;
    return a.index < b.index;
  });
  for (size_t i = 1; i < written.size(); ++i) {
    const Written& before = written[i - 1];
    const Written& now = written[i];
    if (now.text != before.text && !(before.is_prefix && now.text.starts_with(before.text))) {
      continue;
    }
    const auto [first, second] = std::minmax(before.index, now.index);
    return MakeFieldError(
        "DUPLICATE_KEY", At(list, second),
        "writes what " + At(list, first) + " writes: a transaction changes each key once");
  }
  return grpc::Status::OK;
}

grpc::Status CheckBranch(const char* list, const Operations& operations) {
  if (operations.size() > kTxnOperationsMax) return TooMany(list, operations.size());
  for (int i = 0; i < operations.size(); ++i) {
    if (grpc::Status status = Check(operations[i]); !status.ok()) {
      return Within(At(list, i), status);
    }
  }
  return CheckDuplicates(list, operations);
}

v1::Operation ToOperation(const v1::TxnOperation& operation) {
  v1::Operation out;
  switch (operation.operation_case()) {
    case v1::TxnOperation::kGet:
      out.mutable_read()->set_key(operation.get().key());
      return out;
    case v1::TxnOperation::kList: {
      const v1::ListRequest& list = operation.list();
      v1::ReadOperation* read = out.mutable_read();
      read->set_key(list.prefix());
      read->set_range_end(list.prefix().empty() ? std::string(1, '\0') : PrefixEnd(list.prefix()));
      read->set_keys_only(list.keys_only());
      read->set_count_only(list.count_only());
      return out;
    }
    case v1::TxnOperation::kPut:
      return ToCommand(operation.put()).transaction().then(0);
    case v1::TxnOperation::kDelete:
      return ToCommand(operation.delete_()).transaction().then(0);
    case v1::TxnOperation::OPERATION_NOT_SET:
      break;
  }
  CHECK(false, "an operation that is none was not refused");
  return out;
}

void ToCompare(const v1::Condition& condition, v1::Compare* compare) {
  compare->set_key(condition.key());
  // The two enums have the same numbers.
  compare->set_result(static_cast<v1::Compare::Result>(condition.comparison()));
  switch (condition.target_case()) {
    case v1::Condition::kModRevision:
      return compare->set_mod_revision(condition.mod_revision());
    case v1::Condition::kCreateRevision:
      return compare->set_create_revision(condition.create_revision());
    case v1::Condition::kVersion:
      return compare->set_version(condition.version());
    case v1::Condition::kText:
      return compare->set_value(condition.text());
    case v1::Condition::kData:
      return compare->set_value(condition.data());
    case v1::Condition::TARGET_NOT_SET:
      break;
  }
  CHECK(false, "a condition without a target was not refused");
}
static_assert(static_cast<int>(v1::Condition::COMPARISON_EQUAL) == v1::Compare::RESULT_EQUAL);
static_assert(static_cast<int>(v1::Condition::COMPARISON_NOT_EQUAL) ==
              v1::Compare::RESULT_NOT_EQUAL);
static_assert(static_cast<int>(v1::Condition::COMPARISON_GREATER) == v1::Compare::RESULT_GREATER);
static_assert(static_cast<int>(v1::Condition::COMPARISON_LESS) == v1::Compare::RESULT_LESS);

void FillReadItem(const v1::ReadItem& read, v1::Item* item) {
  item->set_key(read.key());
  if (read.value_kind() == v1::VALUE_KIND_TEXT) item->set_text(read.value());
  if (read.value_kind() == v1::VALUE_KIND_DATA) item->set_data(read.value());
  item->set_create_revision(read.create_revision());
  item->set_mod_revision(read.mod_revision());
  item->set_version(read.version());
  if (read.ttl_id() != 0) item->set_ttl_id(ToHex(read.ttl_id()));
}

void FillResult(const v1::TxnOperation& operation, const v1::OperationResult& result,
                v1::TxnOperationResult* out) {
  switch (operation.operation_case()) {
    case v1::TxnOperation::kGet:
      out->mutable_get();
      if (result.items_size() > 0)
        FillReadItem(result.items(0), out->mutable_get()->mutable_item());
      return;
    case v1::TxnOperation::kList:
      out->mutable_list();
      if (operation.list().count_only()) out->mutable_list()->set_count(result.count());
      for (const v1::ReadItem& item : result.items()) {
        FillReadItem(item, out->mutable_list()->add_items());
      }
      return;
    case v1::TxnOperation::kPut:
      out->mutable_put()->set_create_revision(result.create_revision());
      out->mutable_put()->set_version(result.version());
      return;
    default:
      out->mutable_delete_()->set_deleted(result.deleted());
  }
}

}  // namespace

grpc::Status Validate(const v1::TxnRequest& request) {
  if (request.conditions_size() > kTxnOperationsMax) {
    return TooMany("conditions", request.conditions_size());
  }
  // Before the parts: who sends that much is told the limit, not the first odd key in it.
  const size_t bytes = request.ByteSizeLong();
  if (bytes > kTxnBytesMax) {
    return MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TXN_TOO_LARGE",
                     "request: has " + std::to_string(bytes) + " bytes, at most " +
                         std::to_string(kTxnBytesMax) + " are allowed",
                     {{"field", "request"},
                      {"size", std::to_string(bytes)},
                      {"limit", std::to_string(kTxnBytesMax)}});
  }
  for (int i = 0; i < request.conditions_size(); ++i) {
    if (grpc::Status status = Check(request.conditions(i)); !status.ok()) {
      return Within(At("conditions", i), status);
    }
  }
  if (grpc::Status status = CheckBranch("then", request.then()); !status.ok()) return status;
  if (grpc::Status status = CheckBranch("else", request.else_()); !status.ok()) return status;
  return ValidateWrite(request.note(), request.request_id(), request.request_revision());
}

v1::Command ToCommand(const v1::TxnRequest& request) {
  v1::Command command;
  command.set_note(request.note());
  v1::Transaction* transaction = command.mutable_transaction();
  for (const v1::Condition& condition : request.conditions()) {
    ToCompare(condition, transaction->add_compare());
  }
  for (const v1::TxnOperation& operation : request.then()) {
    *transaction->add_then() = ToOperation(operation);
  }
  for (const v1::TxnOperation& operation : request.else_()) {
    *transaction->add_otherwise() = ToOperation(operation);
  }
  NameCommand(request.request_id(), request.request_revision(), &command);
  return command;
}

bool FillTxnResponse(const v1::TxnRequest& request, const v1::Answer& answer,
                     v1::TxnResponse* response) {
  const Operations& ran = answer.succeeded() ? request.then() : request.else_();
  if (answer.results_size() != ran.size()) return false;
  response->set_succeeded(answer.succeeded());
  for (int i = 0; i < ran.size(); ++i) {
    FillResult(ran[i], answer.results(i), response->add_results());
  }
  return true;
}

}  // namespace quorate::services
