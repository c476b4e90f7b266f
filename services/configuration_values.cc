#include "services/configuration_values.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "services/configuration.h"

namespace quorate::services {
namespace {

bool IsNameCharacter(unsigned char c) {
  return c < 0x80 && (std::isalnum(c) || c == '.' || c == '_' || c == '-');
}

}  // namespace

bool IsNodeName(std::string_view name) {
  return !name.empty() && name.size() <= 253 &&
         std::all_of(name.begin(), name.end(), IsNameCharacter);
}

bool IsHostName(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  const bool numeric = std::all_of(host.begin(), host.end(),
                                   [](unsigned char c) { return std::isdigit(c) || c == '.'; });
  if (numeric) {
    in_addr ignored;
    return inet_pton(AF_INET, std::string(host).c_str(), &ignored) == 1;
  }
  return std::all_of(host.begin(), host.end(), IsNameCharacter) && host.front() != '.' &&
         host.front() != '-';
}

std::string Show(Duration duration) {
  const int64_t us = duration.count();
  if (us % 1000 != 0) return std::to_string(us) + "us";
  if (us % 1'000'000 != 0) return std::to_string(us / 1000) + "ms";
  return std::to_string(us / 1'000'000) + "s";
}

std::optional<int> ParseInt(std::string_view text, int min, int max) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (number < min || number > max) return std::nullopt;
  return number;
}

std::optional<uint64_t> ParseBytes(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const int shift = unit == "KiB" ? 10 : unit == "MiB" ? 20 : unit == "GiB" ? 30 : 0;
  if (error != std::errc() || shift == 0 || number > (UINT64_MAX >> shift)) return std::nullopt;
  return number << shift;
}

std::string_view StemOf(std::string_view name) {
  const size_t dash = name.rfind('-');
  if (dash == std::string_view::npos || dash == 0 || dash + 1 == name.size()) return {};
  const std::string_view ordinal = name.substr(dash + 1);
  const bool digits =
      std::all_of(ordinal.begin(), ordinal.end(), [](unsigned char c) { return std::isdigit(c); });
  return digits ? name.substr(0, dash + 1) : std::string_view();
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view address) {
  const std::string quoted = "`" + std::string(address) + "`";
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError(quoted + " has no port");
  }
  HostPort parsed;
  const auto port = ParseInt(address.substr(colon + 1), 1, 65535);
  if (!port || !std::isdigit(static_cast<unsigned char>(address[colon + 1]))) {
    return absl::InvalidArgumentError(quoted + " has no port from 1 to 65535");
  }
  parsed.port = static_cast<uint16_t>(*port);
  const std::string_view host = address.substr(0, colon);
  if (host.empty()) return parsed;
  if (host.front() == '[') {
    parsed.host = std::string(host.substr(1, host.size() - (host.back() == ']' ? 2 : 1)));
    in6_addr ignored;
    if (host.back() != ']' || inet_pton(AF_INET6, parsed.host.c_str(), &ignored) != 1) {
      return absl::InvalidArgumentError(quoted + " is not an IPv6 address in brackets and a port");
    }
    return parsed;
  }
  if (host.find(':') != std::string_view::npos) {
    return absl::InvalidArgumentError(quoted + " has an IPv6 address without brackets");
  }
  if (!IsHostName(host)) {
    return absl::InvalidArgumentError(quoted + " has a host that is neither a name nor an address");
  }
  parsed.host = std::string(host);
  return parsed;
}

std::optional<Duration> ParseDuration(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || number > 3'600'000'000) return std::nullopt;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  std::optional<Duration> duration;
  if (unit == "us") duration = std::chrono::microseconds(number);
  if (unit == "ms") duration = std::chrono::milliseconds(number);
  if (unit == "s") duration = std::chrono::seconds(number);
  if (unit == "m") duration = std::chrono::minutes(number);
  if (duration && *duration > std::chrono::hours(1)) return std::nullopt;
  return duration;
}

bool NamesAHost(const HostPort& address) {
  in6_addr six;
  if (inet_pton(AF_INET6, address.host.c_str(), &six) == 1) return !IN6_IS_ADDR_UNSPECIFIED(&six);
  return !address.host.empty() && address.host != "0.0.0.0";
}

}  // namespace quorate::services
