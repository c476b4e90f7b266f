#include "tools/failure.h"

#include "services/errors.h"
#include "tools/text.h"

namespace quorate::tools {
namespace {

const char* NameOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return "OK";
    case grpc::StatusCode::CANCELLED:
      return "CANCELLED";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::NOT_FOUND:
      return "NOT_FOUND";
    case grpc::StatusCode::ALREADY_EXISTS:
      return "ALREADY_EXISTS";
    case grpc::StatusCode::PERMISSION_DENIED:
      return "PERMISSION_DENIED";
    case grpc::StatusCode::UNAUTHENTICATED:
      return "UNAUTHENTICATED";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case grpc::StatusCode::ABORTED:
      return "ABORTED";
    case grpc::StatusCode::OUT_OF_RANGE:
      return "OUT_OF_RANGE";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "UNIMPLEMENTED";
    case grpc::StatusCode::INTERNAL:
      return "INTERNAL";
    case grpc::StatusCode::UNAVAILABLE:
      return "UNAVAILABLE";
    case grpc::StatusCode::DATA_LOSS:
      return "DATA_LOSS";
    default:
      return "UNKNOWN";
  }
}

// What to do next; empty: the message says it all.
std::string AdviceFor(const CallResult& result, const services::ErrorDetails& details) {
  const grpc::StatusCode code = result.status.error_code();
  if (!result.reached) {
    return "no node answered: check that one runs there, or name others with --endpoints";
  }
  if (!result.outcome_known) {
    return "the write may or may not have been done: read the key before trying again";
  }
  if (details.reason == "NO_LEADER") {
    return "the nodes have no leader: see `quorate status`; a majority must be up";
  }
  if (details.reason == "REQUEST_ID_EXPIRED") {
    return "nothing was changed now: the node that took it is far behind (try another), or the "
           "request id is an old one and may have been used then (read first)";
  }
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
      return "nothing was changed: try again, or see `quorate status`";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "try again with a longer --timeout, or see `quorate status`";
    case grpc::StatusCode::ABORTED:
      return "somebody changed it: read it again, then write with --if-revision of what you saw";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "this server does not have it: compare `quorate version` with `quorate status`";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "see the limit that the message names";
    default:
      return "";
  }
}

}  // namespace

ExitCode ExitCodeOf(const CallResult& result) {
  switch (result.status.error_code()) {
    case grpc::StatusCode::OK:
      return kExitOk;
    case grpc::StatusCode::NOT_FOUND:
      return kExitNotFound;
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::ALREADY_EXISTS:
      return kExitConflict;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return kExitUnavailable;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return kExitNotAllowed;
    default:
      return kExitError;
  }
}

std::string Describe(const CallResult& result) {
  const services::ErrorDetails details = services::DetailsOf(result.status);
  std::string text = NameOf(result.status.error_code());
  if (!details.reason.empty()) text += " (" + Printable(details.reason) + ")";
  text += ": " + Printable(result.status.error_message());
  const auto current = details.metadata.find("current_revision");
  if (current != details.metadata.end() &&
      result.status.error_message().find(current->second) == std::string::npos) {
    text += " (current revision " + Printable(current->second) + ")";
  }
  return text + ", from " + result.address;
}

ExitCode Report(std::ostream& err, const std::string& what, const CallResult& result) {
  err << "quorate: " << what << ": " << Describe(result) << '\n';
  const std::string advice = AdviceFor(result, services::DetailsOf(result.status));
  if (!advice.empty()) err << "  " << advice << '\n';
  return ExitCodeOf(result);
}

}  // namespace quorate::tools
