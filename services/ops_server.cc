#include "services/ops_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/status/status.h"

namespace quorate::services {
namespace {

constexpr size_t kThreads = 4;
constexpr const char* kText = "text/plain; charset=utf-8";
constexpr const char* kExposition = "text/plain; version=0.0.4; charset=utf-8";

void AnswerProbe(const std::string& wrong, httplib::Response* response) {
  response->status = wrong.empty() ? 200 : 503;
  response->set_content(wrong.empty() ? "ok\n" : wrong + "\n", kText);
}

}  // namespace

class OpsServer::Impl {
 public:
  explicit Impl(Handlers handlers) : handlers_(std::move(handlers)) {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_keep_alive_max_count(1);
    server_.set_read_timeout(std::chrono::seconds(2));
    server_.set_write_timeout(std::chrono::seconds(5));
    server_.set_payload_max_length(4096);
    // The library's own choice is SO_REUSEPORT, with which two processes could share the port and
    // neither would notice.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(handlers_.metrics(), kExposition);
    });
    server_.Get("/livez", [this](const httplib::Request&, httplib::Response& response) {
      AnswerProbe(handlers_.live(), &response);
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      AnswerProbe(handlers_.ready(), &response);
    });
    server_.set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (response.status == 404) {
        response.set_content("there are /metrics, /livez and /readyz\n", kText);
      }
    });
  }

  // The bound port, or 0 with errno.
  int Bind(const std::string& host, int port) {
    errno = 0;
    if (port == 0) {
      const int bound = server_.bind_to_any_port(host);
      return bound > 0 ? bound : 0;
    }
    return server_.bind_to_port(host, port) ? port : 0;
  }

  void Run(int port) {
    port_ = port;
    thread_ = std::thread([this] {
      server_.listen_after_bind();
      ended_ = true;
    });
    // stop() before the loop runs would be lost; the socket listens already, so this is short.
    while (!server_.is_running() && !ended_) std::this_thread::yield();
  }

  void Stop() {
    std::lock_guard lock(stop_mutex_);
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }

  int port() const { return port_; }

 private:
  const Handlers handlers_;
  httplib::Server server_;
  int port_ = 0;  // constant after Run
  std::atomic<bool> ended_ = false;
  std::mutex stop_mutex_;
  std::thread thread_;  // protected by stop_mutex_ after Run
};

absl::StatusOr<std::unique_ptr<OpsServer>> OpsServer::Start(const HostPort& address,
                                                            Handlers handlers) {
  auto impl = std::make_unique<Impl>(std::move(handlers));
  int port = 0;
  if (address.host.empty()) {
    // Both families where there are two, else the one there is.
    port = impl->Bind("::", address.port);
    if (port == 0 && errno != EADDRINUSE) port = impl->Bind("0.0.0.0", address.port);
  } else {
    port = impl->Bind(address.host, address.port);
  }
  if (port == 0) {
    const int error = errno;
    return absl::UnavailableError(
        "cannot listen on " + address.host + ":" + std::to_string(address.port) + " (operations)" +
        (error == 0 ? "" : std::string(": ") + std::strerror(error)) +
        (error == EADDRINUSE ? "; end the process that uses it, or set another "
                               "controlPlane.metricsAddress"
                             : "; check controlPlane.metricsAddress"));
  }
  impl->Run(port);
  return std::unique_ptr<OpsServer>(new OpsServer(std::move(impl)));
}

OpsServer::OpsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

OpsServer::~OpsServer() { Stop(); }

void OpsServer::Stop() { impl_->Stop(); }

int OpsServer::port() const { return impl_->port(); }

}  // namespace quorate::services
