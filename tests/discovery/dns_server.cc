#include "tests/discovery/dns_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "base/check.h"

namespace quorate::discovery {
namespace {

constexpr size_t kHeaderBytes = 12;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

void Put16(std::string* to, unsigned value) {
  to->push_back(static_cast<char>(value >> 8 & 0xff));
  to->push_back(static_cast<char>(value & 0xff));
}

void Put32(std::string* to, uint32_t value) {
  Put16(to, value >> 16);
  Put16(to, value & 0xffff);
}

// RFC 1035, 3.1: labels behind their lengths.
std::string EncodeName(const std::string& name) {
  std::string bytes;
  size_t begin = 0;
  while (begin < name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    bytes.push_back(static_cast<char>(end - begin));
    bytes.append(name, begin, end - begin);
    begin = end + 1;
  }
  bytes.push_back('\0');
  return bytes;
}

struct Question {
  std::string name;
  DnsType type;
  size_t end;  // in the message
};

std::optional<Question> Parse(const std::string& message) {
  Question question;
  size_t at = kHeaderBytes;
  while (at < message.size() && message[at] != '\0') {
    const auto bytes = static_cast<uint8_t>(message[at]);
    if (at + 1 + bytes > message.size()) return std::nullopt;
    if (!question.name.empty()) question.name.push_back('.');
    question.name.append(message, at + 1, bytes);
    at += 1 + bytes;
  }
  if (at + 5 > message.size()) return std::nullopt;
  question.type = static_cast<DnsType>(static_cast<uint8_t>(message[at + 1]) << 8 |
                                       static_cast<uint8_t>(message[at + 2]));
  question.end = at + 5;
  question.name = Lower(question.name);
  return question;
}

std::string RecordData(DnsType type, const std::string& text) {
  std::string data;
  if (type == DnsType::kSrv) {
    const size_t colon = text.rfind(':');
    Put16(&data, 0);   // priority
    Put16(&data, 10);  // weight
    Put16(&data, static_cast<unsigned>(std::stoul(text.substr(colon + 1))));
    return data + EncodeName(text.substr(0, colon));
  }
  std::array<char, sizeof(in6_addr)> address{};
  const int family = type == DnsType::kA ? AF_INET : AF_INET6;
  CHECK(inet_pton(family, text.c_str(), address.data()) == 1);
  return std::string(address.data(), type == DnsType::kA ? sizeof(in_addr) : sizeof(in6_addr));
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

DnsServer::DnsServer() {
  for (const DnsType type : {DnsType::kA, DnsType::kAaaa, DnsType::kSrv}) asked_[type] = 0;
  // TCP chooses the port; UDP has to get the same one.
  for (int attempt = 0;; ++attempt) {
    CHECK(attempt < 100);
    sockaddr_in address = Loopback(0);
    socklen_t bytes = sizeof(address);
    tcp_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(tcp_, reinterpret_cast<sockaddr*>(&address), bytes) == 0 && listen(tcp_, 8) == 0);
    CHECK(getsockname(tcp_, reinterpret_cast<sockaddr*>(&address), &bytes) == 0);
    udp_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    port_ = ntohs(address.sin_port);
    if (bind(udp_, reinterpret_cast<sockaddr*>(&address), bytes) == 0) break;
    close(tcp_);
    close(udp_);
  }
  wake_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Run(); });
}

DnsServer::~DnsServer() {
  const uint64_t one = 1;
  CHECK(write(wake_, &one, sizeof(one)) == sizeof(one));
  thread_.join();
  for (const int fd : {udp_, tcp_, wake_}) close(fd);
}

std::string DnsServer::address() const { return "127.0.0.1:" + std::to_string(port_); }

void DnsServer::Set(const std::string& name, DnsType type, DnsReply reply) {
  std::lock_guard lock(mutex_);
  replies_[{Lower(name), type}] = std::move(reply);
}

void DnsServer::Run() {
  for (;;) {
    std::array<pollfd, 3> waits = {{{udp_, POLLIN, 0}, {tcp_, POLLIN, 0}, {wake_, POLLIN, 0}}};
    if (poll(waits.data(), waits.size(), -1) < 0) continue;
    if (waits[2].revents != 0) return;
    if (waits[0].revents != 0) AnswerUdp();
    if (waits[1].revents != 0) AnswerTcp();
  }
}

void DnsServer::AnswerUdp() {
  std::array<char, 4096> bytes{};
  sockaddr_storage from{};
  socklen_t from_bytes = sizeof(from);
  const ssize_t got = recvfrom(udp_, bytes.data(), bytes.size(), 0,
                               reinterpret_cast<sockaddr*>(&from), &from_bytes);
  if (got <= 0) return;
  const std::string answer = Answer(std::string(bytes.data(), static_cast<size_t>(got)), false);
  if (answer.empty()) return;
  sendto(udp_, answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), from_bytes);
}

void DnsServer::AnswerTcp() {
  const int connection = accept(tcp_, nullptr, nullptr);
  if (connection < 0) return;
  const timeval most{2, 0};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
  std::array<unsigned char, 2> size{};
  if (recv(connection, size.data(), size.size(), MSG_WAITALL) == 2) {
    std::string question(static_cast<size_t>(size[0]) << 8 | size[1], '\0');
    if (recv(connection, question.data(), question.size(), MSG_WAITALL) ==
        static_cast<ssize_t>(question.size())) {
      const std::string answer = Answer(question, true);
      std::string framed;
      Put16(&framed, static_cast<unsigned>(answer.size()));
      framed += answer;
      if (!answer.empty()) send(connection, framed.data(), framed.size(), MSG_NOSIGNAL);
    }
  }
  close(connection);
}

std::string DnsServer::Answer(const std::string& question, bool tcp) {
  const std::optional<Question> parsed = Parse(question);
  if (!parsed) return "";
  if (const auto counter = asked_.find(parsed->type); counter != asked_.end()) ++counter->second;
  if (tcp) ++asked_by_tcp_;
  DnsReply reply{.kind = DnsReply::Kind::kNoName};
  {
    std::lock_guard lock(mutex_);
    bool exists = false;
    for (const auto& [key, known] : replies_) {
      if (key.first != parsed->name) continue;
      exists = true;
      if (key.second == parsed->type) reply = known;
    }
    if (exists && replies_.count({parsed->name, parsed->type}) == 0) reply = DnsReply{};
  }
  using Kind = DnsReply::Kind;
  if (reply.kind == Kind::kSilence) return "";
  if (reply.kind == Kind::kTruncatedAndSilent && tcp) return "";
  if (reply.kind == Kind::kNonsense) return question.substr(0, 2) + "\x81\x80 nonsense";
  const bool truncated =
      !tcp && (reply.kind == Kind::kTruncatedOverUdp || reply.kind == Kind::kTruncatedAndSilent);
  const bool with_records = reply.kind == Kind::kRecords || reply.kind == Kind::kTruncatedOverUdp;
  const size_t count = with_records && !truncated ? reply.records.size() : 0;
  unsigned flags = 0x8180;  // an answer, recursion wanted and available
  if (truncated) flags |= 0x0200;
  if (reply.kind == Kind::kNoName) flags |= 3;
  if (reply.kind == Kind::kServerFailure) flags |= 2;

  std::string answer = question.substr(0, 2);
  Put16(&answer, flags);
  Put16(&answer, 1);
  Put16(&answer, static_cast<unsigned>(count));
  Put32(&answer, 0);  // no authorities, nothing additional
  answer.append(question, kHeaderBytes, parsed->end - kHeaderBytes);
  for (size_t i = 0; i < count; ++i) {
    const std::string data = RecordData(parsed->type, reply.records[i]);
    Put16(&answer, 0xc000 | kHeaderBytes);  // the question's name
    Put16(&answer, static_cast<unsigned>(parsed->type));
    Put16(&answer, 1);
    Put32(&answer, reply.ttl_s);
    Put16(&answer, static_cast<unsigned>(data.size()));
    answer += data;
  }
  return answer;
}

}  // namespace quorate::discovery
