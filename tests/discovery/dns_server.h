// A DNS server on loopback that says what a test tells it, true or not: UDP and TCP on one port.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace quorate::discovery {

enum class DnsType : uint16_t { kA = 1, kAaaa = 28, kSrv = 33 };

struct DnsReply {
  enum class Kind : uint8_t {
    kRecords,  // of the type that was asked for; none: the name exists without any
    kNoName,
    kServerFailure,
    kSilence,
    kNonsense,           // bytes that are no DNS message
    kTruncatedOverUdp,   // the records come by TCP only
    kTruncatedAndSilent  // and TCP never answers
  };
  Kind kind = Kind::kRecords;
  // `10.0.0.1`, `fd00::1`, or for SRV `host:port`.
  std::vector<std::string> records = {};
  uint32_t ttl_s = 30;
};

class DnsServer {
 public:
  DnsServer();
  ~DnsServer();

  std::string address() const;  // 127.0.0.1:port

  // Names are compared without case; what was never set does not exist.
  void Set(const std::string& name, DnsType type, DnsReply reply);
  int asked(DnsType type) const { return asked_.at(type); }
  int asked_by_tcp() const { return asked_by_tcp_; }

 private:
  void Run();
  void AnswerUdp();
  void AnswerTcp();
  // Empty: silence.
  std::string Answer(const std::string& question, bool tcp);

  int udp_ = -1;
  int tcp_ = -1;
  int wake_ = -1;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;  // protects replies_
  std::map<std::pair<std::string, DnsType>, DnsReply> replies_;
  std::map<DnsType, std::atomic<int>> asked_;
  std::atomic<int> asked_by_tcp_ = 0;
  std::thread thread_;
};

}  // namespace quorate::discovery
