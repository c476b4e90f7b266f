#include "services/health.h"

#include "quorate/v1/config.grpc.pb.h"

namespace quorate::services {
namespace {

constexpr char kLeaderService[] = "quorate.leader";

}  // namespace

void Health::Enable() { grpc::EnableDefaultHealthCheckService(true); }

Health::Health(grpc::HealthCheckServiceInterface* service) : service_(service) {
  Set(false, false);
}

void Health::Set(bool ready, bool leader) {
  if (service_ == nullptr) return;
  if (ready_ != ready) {
    service_->SetServingStatus("", ready);
    service_->SetServingStatus(v1::Config::service_full_name(), ready);
    ready_ = ready;
  }
  if (leader_ != leader) {
    service_->SetServingStatus(kLeaderService, leader);
    leader_ = leader;
  }
}

void Health::Shutdown() {
  if (service_ != nullptr) service_->Shutdown();
}

}  // namespace quorate::services
