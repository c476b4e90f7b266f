// Config's time-to-lives: from a request's bytes to a command, and from its answer to the response.
#include <memory>
#include <optional>
#include <utility>

#include "base/ids.h"
#include "services/config_service.h"
#include "services/request_parser.h"
#include "services/validate.h"

namespace quorate::services {

void ConfigService::GrantTtl(const std::string& bytes, CallPtr call, CallDone done) {
  v1::GrantTtlRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");
  Write(
      ToCommand(request), std::move(call), std::move(done),
      [](const v1::Answer& answer, const v1::ResponseHeader& header) -> std::optional<std::string> {
        if (answer.results_size() != 1 || answer.results(0).ttl_id() == 0) return std::nullopt;
        v1::GrantTtlResponse response;
        *response.mutable_header() = header;
        response.set_ttl_id(ToHex(answer.results(0).ttl_id()));
        *response.mutable_ttl() = DurationOfMs(answer.results(0).ttl_ms());
        return response.SerializeAsString();
      });
}

void ConfigService::RevokeTtl(const std::string& bytes, CallPtr call, CallDone done) {
  v1::RevokeTtlRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");
  Write(
      ToCommand(request), std::move(call), std::move(done),
      [](const v1::Answer& answer, const v1::ResponseHeader& header) -> std::optional<std::string> {
        if (answer.results_size() != 1) return std::nullopt;
        v1::RevokeTtlResponse response;
        *response.mutable_header() = header;
        response.set_deleted(answer.results(0).deleted());
        return response.SerializeAsString();
      });
}

// One message of the stream (services/write_stream.h).
void ConfigService::KeepAliveTtl(const std::string& bytes, CallPtr call, CallDone done) {
  v1::KeepAliveTtlRequest request;
  grpc::Status status = ParseRequest(bytes, &request);
  if (status.ok()) status = Validate(request);
  if (!status.ok()) return done(std::move(status), "");
  ttl_keeper_.Renew(TtlOf(request.ttl_id()), call, std::move(done));
}

}  // namespace quorate::services
