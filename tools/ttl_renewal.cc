#include "tools/ttl_renewal.h"

#include "google/rpc/status.pb.h"
#include "services/errors.h"

namespace quorate::tools {

grpc::Status RenewTtlsAt(Endpoint& endpoint, grpc::ClientContext* context,
                         const std::vector<std::string>& ids,
                         std::vector<v1::KeepAliveTtlResponse>* answers) {
  answers->clear();
  const auto stream = endpoint.config->KeepAliveTtl(context);
  for (const std::string& id : ids) {
    v1::KeepAliveTtlRequest request;
    request.set_ttl_id(id);
    if (!stream->Write(request)) break;
  }
  stream->WritesDone();
  v1::KeepAliveTtlResponse response;
  while (answers->size() < ids.size() && stream->Read(&response)) answers->push_back(response);
  grpc::Status status = stream->Finish();
  if (answers->size() == ids.size()) return grpc::Status::OK;
  return status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "not every renewal was answered")
                     : status;
}

grpc::Status StatusOf(const v1::KeepAliveTtlResponse& answer) {
  if (answer.code() == 0) return grpc::Status::OK;
  google::rpc::Status proto;
  if (proto.ParseFromString(answer.status())) return services::FromProto(proto);
  return grpc::Status(static_cast<grpc::StatusCode>(answer.code()), answer.message());
}

}  // namespace quorate::tools
