// Config's writes: from a request's bytes to a command, and from its answer to the response. One
// form for unary calls and for the messages of a Write stream.
#include <type_traits>
#include <utility>

#include "services/config_service.h"
#include "services/errors.h"
#include "services/request_parser.h"
#include "services/txn.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

// Where a write's response is within a stream's.
v1::PutResponse* Slot(const v1::PutRequest*, v1::WriteResponse* out) { return out->mutable_put(); }
v1::DeleteResponse* Slot(const v1::DeleteRequest*, v1::WriteResponse* out) {
  return out->mutable_delete_();
}
v1::TxnResponse* Slot(const v1::TxnRequest*, v1::WriteResponse* out) { return out->mutable_txn(); }
v1::RollbackResponse* Slot(const v1::RollbackRequest*, v1::WriteResponse* out) {
  return out->mutable_rollback();
}

// Everything but the header. False when the answer is not one to such a request. The request is
// given where the answer does not say enough by itself.
bool Fill(const v1::PutRequest*, const v1::Answer& answer, v1::PutResponse* response) {
  if (answer.results_size() != 1) return false;
  response->set_create_revision(answer.results(0).create_revision());
  response->set_version(answer.results(0).version());
  return true;
}

bool Fill(const v1::DeleteRequest*, const v1::Answer& answer, v1::DeleteResponse* response) {
  if (answer.results_size() != 1) return false;
  response->set_deleted(answer.results(0).deleted());
  return true;
}

bool Fill(const v1::TxnRequest* request, const v1::Answer& answer, v1::TxnResponse* response) {
  return FillTxnResponse(*request, answer, response);
}

bool Fill(const v1::RollbackRequest*, const v1::Answer& answer, v1::RollbackResponse* response) {
  if (answer.results_size() != 1) return false;
  response->set_changed(answer.results(0).count());
  response->set_deleted(answer.results(0).deleted());
  return true;
}

}  // namespace

bool ConfigService::IsWrite(std::string_view method) {
  return method == "Put" || method == "Delete" || method == "Txn" || method == "Rollback" ||
         method == "Write";
}

void ConfigService::HandleWrite(std::string_view method, const std::string& bytes, CallPtr call,
                                CallDone done) {
  if (method == "Put") return ParseWrite<v1::PutRequest>(bytes, std::move(call), std::move(done));
  if (method == "Delete") {
    return ParseWrite<v1::DeleteRequest>(bytes, std::move(call), std::move(done));
  }
  if (method == "Txn") return ParseWrite<v1::TxnRequest>(bytes, std::move(call), std::move(done));
  if (method == "Rollback") {
    return ParseWrite<v1::RollbackRequest>(bytes, std::move(call), std::move(done));
  }
  HandleStreamed(bytes, std::move(call), std::move(done));
}

template <typename Request>
void ConfigService::ParseWrite(const std::string& bytes, CallPtr call, CallDone done) {
  auto request = std::make_shared<Request>();
  grpc::Status status = ParseRequest(bytes, request.get());
  if (!status.ok()) return done(std::move(status), "");
  StartWrite<Request>(std::move(request), false, std::move(call), std::move(done));
}

void ConfigService::HandleStreamed(const std::string& bytes, CallPtr call, CallDone done) {
  const auto all = std::make_shared<v1::WriteRequest>();
  grpc::Status status = ParseRequest(bytes, all.get());
  if (!status.ok()) return done(std::move(status), "");
  // Parts of one message: they share its life.
  const auto start = [&]<typename Request>(const Request& part) {
    StartWrite<Request>(std::shared_ptr<const Request>(all, &part), true, std::move(call),
                        std::move(done));
  };
  switch (all->write_case()) {
    case v1::WriteRequest::kPut:
      return start(all->put());
    case v1::WriteRequest::kDelete:
      return start(all->delete_());
    case v1::WriteRequest::kTxn:
      return start(all->txn());
    case v1::WriteRequest::kRollback:
      return start(all->rollback());
    case v1::WriteRequest::WRITE_NOT_SET:
      break;
  }
  done(MakeFieldError("OPERATION_MISSING", "write", "is none of put, delete, txn and rollback"),
       "");
}

template <typename Request>
void ConfigService::StartWrite(std::shared_ptr<const Request> request, bool streamed, CallPtr call,
                               CallDone done) {
  if (grpc::Status status = Validate(*request); !status.ok()) return done(std::move(status), "");
  v1::Command command = ToCommand(*request);
  // Values are not kept twice while the write is on its way.
  if (!std::is_same_v<Request, v1::TxnRequest>) request = nullptr;
  Write(std::move(command), std::move(call), std::move(done),
        [request = std::move(request), streamed](
            const v1::Answer& answer,
            const v1::ResponseHeader& header) -> std::optional<std::string> {
          v1::WriteResponse wrapped;
          auto* response = Slot(request.get(), &wrapped);
          *response->mutable_header() = header;
          if (!Fill(request.get(), answer, response)) return std::nullopt;
          return streamed ? wrapped.SerializeAsString() : response->SerializeAsString();
        });
}

}  // namespace quorate::services
