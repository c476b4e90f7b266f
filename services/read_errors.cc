#include "services/read_errors.h"

#include <string>

#include "services/errors.h"

namespace quorate::services {
namespace {

constexpr Duration kReadRetryDelay = std::chrono::milliseconds(200);

grpc::Status UnavailableRead(const char* reason, const std::string& message,
                             const ErrorMetadata& metadata) {
  return MakeError(grpc::StatusCode::UNAVAILABLE, reason, message, metadata, kReadRetryDelay);
}

grpc::Status Behind(const char* field, const std::string& has, const std::string& wants) {
  return UnavailableRead("BEHIND",
                         std::string(field) + ": this node shows revision " + has +
                             ", the read needs " + wants + "; ask another node or try again",
                         {{"field", field}, {"revision", has}});
}

}  // namespace

grpc::Status MakeReadError(const ReadRefusal& refusal) {
  const std::string has = std::to_string(refusal.has);
  const std::string wants = std::to_string(refusal.wants);
  using Reason = ReadRefusal::Reason;
  switch (refusal.reason) {
    case Reason::kNone:
      return grpc::Status::OK;
    case Reason::kNotCaughtUp:
      return UnavailableRead(
          "NOT_CAUGHT_UP",
          "this node has not caught up with the cluster since its data directory was "
          "made; ask another node or try again",
          {});
    case Reason::kNotApplied:
      return UnavailableRead("BEHIND",
                             "this node has applied " + has + " entries and the read needs " +
                                 wants + "; ask another node or try again",
                             {});
    case Reason::kPageBehind:
      return Behind("page_token", has, wants);
    case Reason::kBehind:
      return Behind("read.min_revision", has, wants);
    case Reason::kAgeUnknown:
      return UnavailableRead(
          "TOO_STALE",
          "this node has not heard from a leader since it started: the age of its "
          "state is unknown",
          {});
    case Reason::kTooOld:
      return UnavailableRead(
          "TOO_STALE",
          "this node's state may be " + has + " ms old; read.max_staleness is " + wants + " ms",
          {{"age_ms", has}, {"max_staleness_ms", wants}});
  }
  return grpc::Status::OK;
}

}  // namespace quorate::services
