// What Put and Get cost a server, taken by gRPC's callback API or by completion queues.
//
//   hot_calls_load [--nodes 1] [--milliseconds 1000] [--rounds 3] [--queues 0,1,2] [--connections
//   4]
//
// For each number of queues (0: the callback API) it starts a cluster of its own, in processes of
// their own on loopback, and then puts the same load on one after the other, in turns: so that
// whatever else the machine does is shared by all. Load goes to the first node only. Of each it
// prints calls a second and the processor time of all its nodes for each call, as medians of the
// rounds, and both as ratios to the first.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "grpcpp/channel.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "quorate/v1/config.grpc.pb.h"
#include "services/configuration.h"
#include "services/server.h"

namespace quorate::services {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  int nodes = 1;
  int milliseconds = 1000;
  int rounds = 3;
  int connections = 4;
  int first_port = 21500;
  std::vector<int> queues = {0, 1, 2};
  std::vector<int> in_flight = {1, 3, 32, 256};
  std::string call;  // empty: all
};

constexpr size_t kValueBytes = 256;
constexpr int kKeys = 10'000;

// --- The servers ---

std::string Address(int port) { return "127.0.0.1:" + std::to_string(port); }

// A node in a process of its own, which ends with this one.
pid_t StartNode(const Options& options, int first_port, int node, int queues,
                const std::string& directory) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::filesystem::create_directories(directory);
  std::filesystem::current_path(directory);
  CHECK(std::freopen("log.txt", "w", stderr) != nullptr);
  const auto port = [&](int n, int which) { return first_port + n * 3 + which; };
  std::string yaml = "mode: controlplane\ncontrolPlane:\n  address: \"" + Address(port(node, 0)) +
                     "\"\n  metricsAddress: \"" + Address(port(node, 1)) + "\"\n  storePath: \"" +
                     directory + "/data\"\n  raft:\n    nodeId: n" + std::to_string(node) +
                     "\n    bindAddress: \"" + Address(port(node, 2)) + "\"\n    peers:\n";
  for (int n = 0; n < options.nodes; ++n) {
    yaml += "      - \"n" + std::to_string(n) + "=" + Address(port(n, 2)) + "\"\n";
  }
  ServerOptions server_options;
  auto configuration = ParseConfiguration(yaml, "load", [](auto) { return std::nullopt; });
  CHECK(configuration.ok(), std::string(configuration.status().message()));
  server_options.configuration = *std::move(configuration);
  server_options.version = "load";
  server_options.call_queues = static_cast<size_t>(queues);
  auto server = Server::Start(server_options);
  CHECK(server.ok(), std::string(server.status().message()));
  while (true) pause();
}

double ProcessorSeconds(pid_t pid) {
  clockid_t clock = 0;
  CHECK(clock_getcpuclockid(pid, &clock) == 0);
  timespec time{};
  CHECK(clock_gettime(clock, &time) == 0);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Cluster {
  int queues = 0;
  std::vector<pid_t> processes;
  std::vector<std::shared_ptr<grpc::Channel>> channels;  // to the first node

  double ProcessorSeconds() const {
    double sum = 0;
    for (const pid_t pid : processes) sum += services::ProcessorSeconds(pid);
    return sum;
  }
};

Cluster StartCluster(const Options& options, size_t number, const std::string& directory) {
  Cluster cluster;
  cluster.queues = options.queues[number];
  const int first_port = options.first_port + static_cast<int>(number) * 3 * options.nodes;
  for (int node = 0; node < options.nodes; ++node) {
    cluster.processes.push_back(
        StartNode(options, first_port, node, cluster.queues,
                  directory + "/" + std::to_string(number) + "-" + std::to_string(node)));
  }
  return cluster;
}

void Connect(const Options& options, size_t number, Cluster* cluster) {
  for (int i = 0; i < options.connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    const int first_port = options.first_port + static_cast<int>(number) * 3 * options.nodes;
    cluster->channels.push_back(grpc::CreateCustomChannel(
        Address(first_port), grpc::InsecureChannelCredentials(), arguments));
  }
}

// --- The load ---

struct Load {
  std::string name;
  std::string method;
  int in_flight = 1;
  bool fails = false;  // every answer is an error
  std::function<std::string(int number)> request;
};

struct Measured {
  double per_second = 0;
  double processor_us = 0;
};

struct OneCall {
  grpc::GenericStub* stub = nullptr;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  grpc::ByteBuffer response;
  grpc::Status status;
};

Measured Run(const Load& load, const Cluster& cluster, std::chrono::milliseconds duration) {
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  for (const auto& channel : cluster.channels) {
    stubs.push_back(std::make_unique<grpc::GenericStub>(channel));
  }
  std::vector<OneCall> calls(static_cast<size_t>(load.in_flight));
  int number = 0;
  const auto begin = [&](OneCall* call) {
    const std::string bytes = load.request(number++);
    const grpc::Slice slice(bytes);
    call->context = std::make_unique<grpc::ClientContext>();
    call->context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    call->reader = call->stub->PrepareUnaryCall(call->context.get(), load.method,
                                                grpc::ByteBuffer(&slice, 1), &queue);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call);
  };
  const double processor = cluster.ProcessorSeconds();
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < calls.size(); ++i) {
    calls[i].stub = stubs[i % stubs.size()].get();
    begin(&calls[i]);
  }
  int ended = 0;
  size_t open = calls.size();
  void* tag = nullptr;
  bool ok = false;
  while (open > 0 && queue.Next(&tag, &ok)) {
    auto* call = static_cast<OneCall*>(tag);
    CHECK(call->status.ok() != load.fails,
          std::to_string(call->status.error_code()) + " " + call->status.error_message());
    ++ended;
    if (Clock::now() - start < duration) {
      begin(call);
    } else {
      --open;
    }
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  return {ended / elapsed, (cluster.ProcessorSeconds() - processor) / ended * 1e6};
}

std::string Key(int number) { return "load/" + std::to_string(number % kKeys); }

std::vector<Load> Loads(const Options& options) {
  const auto put = [](int number) {
    v1::PutRequest request;
    request.set_key(Key(number));
    request.set_text(std::string(kValueBytes, 'x'));
    return request.SerializeAsString();
  };
  const auto get = [](int number) {
    v1::GetRequest request;
    request.set_key(Key(number % 100));
    return request.SerializeAsString();
  };
  const auto nothing = [](int) { return std::string(); };
  const std::string service = "/quorate.v1.Config/";
  std::vector<Load> loads;
  for (const int in_flight : options.in_flight) {
    loads.push_back({"Put", service + "Put", in_flight, false, put});
    loads.push_back({"Get", service + "Get", in_flight, false, get});
    loads.push_back({"Get, refused", service + "Get", in_flight, true, nothing});
  }
  return loads;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void WaitUntilWritable(const Cluster& cluster) {
  const auto stub = v1::Config::NewStub(cluster.channels.front());
  for (int i = 0; i < 1000; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
    v1::PutRequest request;
    request.set_key(Key(0));
    request.set_text("first");
    v1::PutResponse response;
    if (stub->Put(&context, request, &response).ok()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(false, "a cluster did not come up: see its log.txt");
}

void Measure(const Options& options, const std::vector<Cluster>& clusters) {
  std::printf("%-14s %9s %7s %10s %8s %12s %8s\n", "call", "in flight", "queues", "calls/s",
              "ratio", "server us", "ratio");
  for (const Load& load : Loads(options)) {
    if (!options.call.empty() && load.name != options.call) continue;
    std::map<int, std::vector<double>> rates;
    std::map<int, std::vector<double>> costs;
    for (int round = 0; round < options.rounds; ++round) {
      for (const Cluster& cluster : clusters) {
        Run(load, cluster, std::chrono::milliseconds(200));  // warm
        const Measured measured =
            Run(load, cluster, std::chrono::milliseconds(options.milliseconds));
        rates[cluster.queues].push_back(measured.per_second);
        costs[cluster.queues].push_back(measured.processor_us);
      }
    }
    const int first = clusters.front().queues;
    for (const Cluster& cluster : clusters) {
      const double rate = Median(rates[cluster.queues]);
      const double cost = Median(costs[cluster.queues]);
      std::printf("%-14s %9d %7d %10.0f %8.2f %12.1f %8.2f\n", load.name.c_str(), load.in_flight,
                  cluster.queues, rate, rate / Median(rates[first]), cost,
                  cost / Median(costs[first]));
    }
    std::fflush(stdout);
  }
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    std::vector<int>* const list = name == "--queues"      ? &options.queues
                                   : name == "--in-flight" ? &options.in_flight
                                                           : nullptr;
    if (list != nullptr) {
      list->clear();
      for (const auto part : absl::StrSplit(argv[i + 1], ',')) {
        CHECK(absl::SimpleAtoi(part, &list->emplace_back()), name);
      }
      continue;
    }
    if (name == "--call") {
      options.call = argv[i + 1];
      continue;
    }
    int* const value = name == "--nodes"          ? &options.nodes
                       : name == "--milliseconds" ? &options.milliseconds
                       : name == "--rounds"       ? &options.rounds
                       : name == "--connections"  ? &options.connections
                       : name == "--port"         ? &options.first_port
                                                  : nullptr;
    CHECK(value != nullptr && absl::SimpleAtoi(argv[i + 1], value), "unknown: " + name);
  }
  return options;
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  std::string directory = std::filesystem::temp_directory_path() / "quorate-load-XXXXXX";
  CHECK(mkdtemp(directory.data()) != nullptr);
  // All processes first: gRPC does not survive a fork.
  std::vector<Cluster> clusters;
  for (size_t i = 0; i < options.queues.size(); ++i) {
    clusters.push_back(StartCluster(options, i, directory));
  }
  for (size_t i = 0; i < clusters.size(); ++i) {
    Connect(options, i, &clusters[i]);
    WaitUntilWritable(clusters[i]);
    // The keys that are read.
    Run(Loads(options).front(), clusters[i], std::chrono::seconds(1));
  }
  Measure(options, clusters);
  for (const Cluster& cluster : clusters) {
    for (const pid_t pid : cluster.processes) kill(pid, SIGKILL);
    for (const pid_t pid : cluster.processes) waitpid(pid, nullptr, 0);
  }
  std::filesystem::remove_all(directory);
  return 0;
}

}  // namespace
}  // namespace quorate::services

int main(int argc, char** argv) { return quorate::services::Main(argc, argv); }
