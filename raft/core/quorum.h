// Majorities, in one configuration or in both halves of a joint one (dissertation 4.3).
//
// A quorum of n voters is floor(n / 2) + 1, also for even n: with matched[n / 2] of an ascending
// list four nodes would commit on two (hashicorp/raft 163a55f).
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "raft/core/membership.h"
#include "raft/core/types.h"

namespace quorate::raft {

constexpr size_t QuorumSize(size_t voters) { return voters / 2 + 1; }

// How many of `voters` may fail with a quorum left.
constexpr size_t FaultTolerance(size_t voters) {
  return voters == 0 ? 0 : voters - QuorumSize(voters);
}

// The largest value that a quorum of the voters has reached; nullopt when there are no voters, for
// nobody can decide then. `values` holds one value per voter, in any order.
template <typename T>
std::optional<T> QuorumValue(std::vector<T> values) {
  if (values.empty()) return std::nullopt;
  const size_t position = QuorumSize(values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(position),
                   values.end(), std::greater<T>());
  return values[position];
}

// Who decides: the voters of a membership, made once when the membership changes.
class Quorum {
 public:
  Quorum() = default;
  explicit Quorum(const Membership& membership);

  // In either half.
  bool IsVoter(StoreId store) const;
  // True when `store` alone is a quorum (of both halves).
  bool IsSole(StoreId store) const;
  // Every voter of either half once, ascending.
  const std::vector<StoreId>& all_voters() const { return all_; }

  // A majority of each half says yes.
  bool Satisfied(const std::function<bool(StoreId)>& yes) const;

  // The largest value that a majority of each half has reached.
  template <typename T>
  std::optional<T> Value(const std::function<T(StoreId)>& value) const {
    std::optional<T> reached = HalfValue<T>(voters_, value);
    if (!joint_ || !reached) return reached;
    std::optional<T> old = HalfValue<T>(outgoing_, value);
    return old ? std::optional<T>(std::min(*reached, *old)) : std::nullopt;
  }

 private:
  template <typename T>
  static std::optional<T> HalfValue(const std::vector<StoreId>& voters,
                                    const std::function<T(StoreId)>& value) {
    std::vector<T> values;
    values.reserve(voters.size());
    for (StoreId store : voters) values.push_back(value(store));
    return QuorumValue(std::move(values));
  }

  bool joint_ = false;
  std::vector<StoreId> voters_;
  std::vector<StoreId> outgoing_;
  std::vector<StoreId> all_;
};

}  // namespace quorate::raft
