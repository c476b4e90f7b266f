#include "services/cluster_service.h"

#include "services/errors.h"
#include "services/request_parser.h"

namespace quorate::services {

void ClusterService::Handle(std::string_view method, const std::string& request,
                            const CallPtr& call, const CallDone& done) {
  if (method == "Status") {
    v1::StatusRequest parsed;
    if (grpc::Status status = ParseRequest(request, &parsed); !status.ok()) {
      return done(std::move(status), "");
    }
    return done(grpc::Status::OK, MakeStatus(view_()).SerializeAsString());
  }
  if (method == "ListMembers") {
    v1::ListMembersRequest parsed;
    if (grpc::Status status = ParseRequest(request, &parsed); !status.ok()) {
      return done(std::move(status), "");
    }
    return done(grpc::Status::OK, MakeMembers(view_(), parsed.links()).SerializeAsString());
  }
  if (method == "GetSettings") {
    v1::GetSettingsRequest parsed;
    if (grpc::Status status = ParseRequest(request, &parsed); !status.ok()) {
      return done(std::move(status), "");
    }
    const ClusterView view = view_();
    if (grpc::Status unknown = CheckSettingsKnown(view); !unknown.ok()) {
      return done(std::move(unknown), "");
    }
    return done(grpc::Status::OK, MakeSettings(view).SerializeAsString());
  }
  if (method == "Drain" && drain_ != nullptr) {
    v1::DrainRequest parsed;
    if (grpc::Status status = ParseRequest(request, &parsed); !status.ok()) {
      return done(std::move(status), "");
    }
    return drain_(parsed.undo(), call->deadline(), [view = view_, done](bool leads) {
      v1::DrainResponse response;
      *response.mutable_header() = HeaderOf(view());
      response.set_leads(leads);
      done(grpc::Status::OK, response.SerializeAsString());
    });
  }
  if (changes_ != nullptr && ClusterChanges::Knows(method)) {
    return changes_->Handle(method, request, call, done);
  }
  done(MakeUnimplemented("quorate.v1.Cluster/" + std::string(method)), "");
}

}  // namespace quorate::services
