// The same race in a handler that gRPC calls, on threads that gRPC made: tests/tsan.supp must
// not hide what stands above a frame of libgrpc. The sanitizer must name PlantedRace.
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "grpcpp/grpcpp.h"
#include "quorate/v1/config.grpc.pb.h"

namespace {

int counter = 0;

__attribute__((noinline)) void PlantedRace() {
  for (int i = 0; i < 10000; ++i) counter = counter + 1;
}

class RacingService final : public quorate::v1::Config::Service {
  grpc::Status Get(grpc::ServerContext*, const quorate::v1::GetRequest*,
                   quorate::v1::GetResponse*) override {
    // Both calls meet here, relaxed: an order that the sanitizer took for a lock would end it.
    arrived_.fetch_add(1, std::memory_order_relaxed);
    while (arrived_.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
    PlantedRace();
    return grpc::Status::OK;
  }

  std::atomic<int> arrived_{0};
};

void Call(int port) {
  const auto stub = quorate::v1::Config::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  quorate::v1::GetResponse response;
  const grpc::Status status = stub->Get(&context, {}, &response);
  std::printf("answered %d\n", static_cast<int>(status.error_code()));
}

}  // namespace

int main() {
  RacingService service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::thread other(Call, port);
  Call(port);
  other.join();
  std::printf("counted %d and nobody objected\n", counter);
  return 0;
}
