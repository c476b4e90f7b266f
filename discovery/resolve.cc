#include "discovery/resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quorate::discovery {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr size_t kTargetsMax = 64;  // of SRV records
// From <arpa/nameser.h>, which c-ares does not bring under the same names everywhere.
constexpr int kClassIn = 1;
constexpr int kTypeSrv = 33;

// The library's own switch, for the process. gRPC does the same; it counts.
absl::Status InitializeLibrary() {
  static const int status = ares_library_init(ARES_LIB_INIT_ALL);
  if (status == ARES_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("c-ares: ", ares_strerror(status)));
}

absl::Status ErrorOf(int status, const std::string& name, std::string_view records) {
  const std::string text = absl::StrCat(name, ": ", ares_strerror(status));
  switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENONAME:
      return absl::NotFoundError(absl::StrCat(name, ": no such name in DNS"));
    case ARES_ENODATA:
      return absl::NotFoundError(
          absl::StrCat(name, ": in DNS without ", std::string(records), " records"));
    case ARES_ETIMEOUT:
      return absl::DeadlineExceededError(absl::StrCat(name, ": no DNS server answered in time"));
    case ARES_ECONNREFUSED:
      return absl::UnavailableError(absl::StrCat(name, ": no DNS server can be reached"));
    case ARES_EBADNAME:
      return absl::InvalidArgumentError(absl::StrCat(name, ": not a name that DNS can hold"));
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
      return absl::CancelledError(absl::StrCat(name, ": nobody waits for the answer any more"));
    default:
      return absl::UnavailableError(text);
  }
}

std::string AddressText(const sockaddr* address, uint16_t port) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    return absl::StrCat(text.data(), ":", port);
  }
  if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
    return absl::StrCat("[", text.data(), "]:", port);
  }
  return "";
}

// One call: a channel of its own, driven until all its questions have ended.
class Lookup {
 public:
  Lookup(const std::string& name, const ResolveOptions& options)
      : name_(name), options_(options), ends_(SteadyClock::now() + options.total_timeout) {}
  ~Lookup() {
    if (channel_ != nullptr) ares_destroy(channel_);  // ends what is open, by its callbacks
  }
  Lookup(const Lookup&) = delete;
  Lookup& operator=(const Lookup&) = delete;

  absl::StatusOr<Resolution> Run();

 private:
  struct HostQuestion {
    Lookup* lookup;
    std::string host;
    uint16_t port;
  };

  absl::Status Open();
  void AskServices();
  void AskHost(const std::string& host, uint16_t port);
  static void OnServices(void* self, int status, int timeouts, unsigned char* answer, int bytes);
  static void OnHost(void* question, int status, int timeouts, ares_addrinfo* answer);
  void TakeServices(const unsigned char* answer, int bytes);
  void TakeHost(const ares_addrinfo& answer, uint16_t port);
  void Failed(int status, const std::string& name, std::string_view records);
  void Drive();
  // Until a socket, the cancelling descriptor, or c-ares' own timer has something. Returns false
  // when nothing is open any more.
  bool Wait();

  const std::string name_;
  const ResolveOptions options_;
  SteadyClock::time_point ends_;
  ares_channel channel_ = nullptr;
  size_t open_ = 0;  // questions
  bool ended_early_ = false;
  std::set<std::string> addresses_;
  std::optional<Duration> ttl_;
  bool partial_ = false;
  absl::Status error_;  // the most telling so far
};

absl::Status Lookup::Open() {
  if (absl::Status status = InitializeLibrary(); !status.ok()) return status;
  ares_options settings{};
  settings.timeout =
      static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(options_.timeout).count());
  settings.tries = options_.tries;
  const int status = ares_init_options(&channel_, &settings, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  if (status != ARES_SUCCESS) {
    channel_ = nullptr;
    return absl::UnavailableError(
        absl::StrCat(name_, ": the system's DNS settings: ", ares_strerror(status)));
  }
  if (options_.servers.empty()) return absl::OkStatus();
  if (ares_set_servers_ports_csv(channel_, options_.servers.c_str()) == ARES_SUCCESS) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("`", options_.servers, "` is no list of DNS servers; write `host:port`"));
}

absl::StatusOr<Resolution> Lookup::Run() {
  if (absl::Status status = Open(); !status.ok()) return status;
  if (name_.front() == '_') {
    AskServices();
  } else {
    AskHost(name_, options_.port);
  }
  Drive();
  if (addresses_.empty()) {
    if (error_.ok()) return ErrorOf(ARES_ENODATA, name_, "A or AAAA");
    return error_;
  }
  Resolution resolution;
  resolution.partial = partial_ || addresses_.size() > Resolution::kAddressesMax;
  for (const std::string& address : addresses_) {
    if (resolution.addresses.size() == Resolution::kAddressesMax) break;
    resolution.addresses.push_back(address);
  }
  resolution.ttl = ttl_.value_or(Duration{});
  return resolution;
}

void Lookup::AskServices() {
  ++open_;
  ares_search(channel_, name_.c_str(), kClassIn, kTypeSrv, &Lookup::OnServices, this);
}

void Lookup::OnServices(void* self, int status, int /*timeouts*/, unsigned char* answer,
                        int bytes) {
  auto* const lookup = static_cast<Lookup*>(self);
  --lookup->open_;
  if (status != ARES_SUCCESS) return lookup->Failed(status, lookup->name_, "SRV");
  lookup->TakeServices(answer, bytes);
}

void Lookup::TakeServices(const unsigned char* answer, int bytes) {
  ares_srv_reply* parsed = nullptr;
  if (const int status = ares_parse_srv_reply(answer, bytes, &parsed); status != ARES_SUCCESS) {
    return Failed(status, name_, "SRV");
  }
  std::set<std::pair<std::string, uint16_t>> targets;
  for (const ares_srv_reply* one = parsed; one != nullptr; one = one->next) {
    // The root: "there is no such service here" (RFC 2782).
    if (one->host == nullptr || *one->host == '\0' || one->port == 0) continue;
    if (targets.size() == kTargetsMax) {
      partial_ = true;
      break;
    }
    targets.emplace(one->host, one->port);
  }
  ares_free_data(parsed);
  if (targets.empty()) return Failed(ARES_ENODATA, name_, "SRV");
  // A channel that is being destroyed asks nothing any more.
  if (ended_early_) return;
  for (const auto& [host, port] : targets) AskHost(host, port);
}

void Lookup::AskHost(const std::string& host, uint16_t port) {
  for (const int family : {AF_INET, AF_INET6}) {
    ares_addrinfo_hints hints{};
    hints.ai_family = family;
    hints.ai_flags = ARES_AI_NOSORT;
    ++open_;
    // May answer before it returns (/etc/hosts, a numeric address).
    ares_getaddrinfo(channel_, host.c_str(), nullptr, &hints, &Lookup::OnHost,
                     new HostQuestion{this, host, port});
  }
}

void Lookup::OnHost(void* question, int status, int /*timeouts*/, ares_addrinfo* answer) {
  const std::unique_ptr<HostQuestion> asked(static_cast<HostQuestion*>(question));
  const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owned(answer,
                                                                           &ares_freeaddrinfo);
  Lookup* const lookup = asked->lookup;
  --lookup->open_;
  if (status != ARES_SUCCESS) return lookup->Failed(status, asked->host, "A or AAAA");
  lookup->TakeHost(*answer, asked->port);
}

void Lookup::TakeHost(const ares_addrinfo& answer, uint16_t port) {
  for (const ares_addrinfo_node* node = answer.nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_addr == nullptr) continue;
    const std::string address = AddressText(node->ai_addr, port);
    if (address.empty()) continue;
    addresses_.insert(address);
    const Duration ttl = std::chrono::seconds(std::max(0, node->ai_ttl));
    ttl_ = ttl_ ? std::min(*ttl_, ttl) : ttl;
  }
}

void Lookup::Failed(int status, const std::string& name, std::string_view records) {
  const absl::Status error = ErrorOf(status, name, records);
  // "There is none" is an answer; that of one family says nothing of the other.
  const bool answered = absl::IsNotFound(error);
  if (!answered) partial_ = true;
  if (error_.ok() || (absl::IsNotFound(error_) && !answered)) error_ = error;
}

void Lookup::Drive() {
  while (open_ > 0 && Wait()) {
  }
}

bool Lookup::Wait() {
  std::array<ares_socket_t, ARES_GETSOCK_MAXNUM> sockets{};
  const int wanted = ares_getsock(channel_, sockets.data(), ARES_GETSOCK_MAXNUM);
  std::array<pollfd, ARES_GETSOCK_MAXNUM + 1> waits{};
  size_t count = 0;
  for (size_t i = 0; i < sockets.size(); ++i) {
    short events = 0;
    if (ARES_GETSOCK_READABLE(static_cast<unsigned>(wanted), i)) events |= POLLIN;
    if (ARES_GETSOCK_WRITABLE(static_cast<unsigned>(wanted), i)) events |= POLLOUT;
    if (events != 0) waits[count++] = {sockets[i], events, 0};
  }
  const size_t asked = count;
  if (options_.cancel >= 0) waits[count++] = {options_.cancel, POLLIN, 0};

  const auto now = SteadyClock::now();
  if (!addresses_.empty()) ends_ = std::min(ends_, now + options_.rest);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(ends_ - now);
  if (left.count() <= 0) {
    ended_early_ = true;
    Failed(ARES_ETIMEOUT, name_, "");
    ares_cancel(channel_);
    return false;
  }
  timeval most{left.count() / 1000, left.count() % 1000 * 1000};
  timeval next{};
  const timeval* const timer = ares_timeout(channel_, &most, &next);
  const int milliseconds = static_cast<int>(timer->tv_sec * 1000 + (timer->tv_usec + 999) / 1000);
  poll(waits.data(), static_cast<nfds_t>(count), milliseconds);  // EINTR: looked at again
  if (count > asked && (waits[asked].revents & POLLIN) != 0) {
    ended_early_ = true;
    error_ = absl::CancelledError(absl::StrCat(name_, ": nobody waits for the answer any more"));
    ares_cancel(channel_);
    addresses_.clear();
    return false;
  }
  for (size_t i = 0; i < asked; ++i) {
    const short events = waits[i].revents;
    const bool reads = (events & (POLLIN | POLLERR | POLLHUP)) != 0;
    const bool writes = (events & (POLLOUT | POLLERR | POLLHUP)) != 0;
    if (reads || writes) {
      ares_process_fd(channel_, reads ? waits[i].fd : ARES_SOCKET_BAD,
                      writes ? waits[i].fd : ARES_SOCKET_BAD);
    }
  }
  ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // the timers
  return true;
}

}  // namespace

absl::StatusOr<Resolution> Resolve(const std::string& name, const ResolveOptions& options) {
  if (name.empty() || name.size() > 255 || name.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("`", name, "` is no DNS name of 1 to 255 bytes"));
  }
  return Lookup(name, options).Run();
}

}  // namespace quorate::discovery
