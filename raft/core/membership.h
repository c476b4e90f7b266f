// Who takes part: the configuration that the log carries (dissertation 4.1 to 4.3).
//
// A membership is effective from the moment its entry is appended, not when it commits. While
// `joint`, elections and commits need a majority of the new voters *and* of the old ones.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "raft/core/types.h"

namespace quorate::raft {

struct Member {
  StoreId store;
  std::string name;             // the configured node id; unique among the members
  std::string address;          // last peer address known when the entry was made; only a hint
  bool voter = false;           // votes in the new (or only) configuration
  bool outgoing_voter = false;  // votes in the old half of a joint configuration
  // Of a voter of the old half alone: stays as a learner when the joint phase ends. Otherwise such
  // a member leaves then. Of a learner: somebody wanted it to be one, and it gets no vote by itself
  // (raft/autopilot.h).
  bool demoted = false;
  bool learner() const { return !voter && !outgoing_voter; }
  friend bool operator==(const Member&, const Member&) = default;
};

struct Membership {
  ClusterId cluster;
  bool joint = false;
  // Ordered by store id, no store twice. No name twice among the voters, among the voters of the
  // old half, or among the learners: so a store may learn under the name of the voter that it will
  // replace.
  std::vector<Member> members;

  const Member* Find(StoreId store) const;
  std::vector<StoreId> Voters() const;          // of the new configuration
  std::vector<StoreId> OutgoingVoters() const;  // of the old half; empty unless joint
  friend bool operator==(const Membership&, const Membership&) = default;
};

// The payload of an EntryType::kMembership entry, in a small format of its own, because the core
// includes no protobuf: a version byte, then fixed-width little-endian fields; the layout is
// described in membership.cc. Decode returns nullopt for anything that Encode cannot have made:
// wrong version, trailing bytes, members out of order or twice, names over 255 bytes, more than
// kMembersMax members.
inline constexpr size_t kMembersMax = 64;
// The rule that this membership breaks, in words; nullptr: none, Encode takes it.
const char* BrokenRule(const Membership& membership);
std::string EncodeMembership(const Membership& membership);
std::optional<Membership> DecodeMembership(std::string_view bytes);
// The version that Encode gives it, the lowest that can say it; and the highest that this build
// reads. A build before that reads an entry of a later one as damage, and takes nothing after it.
inline constexpr uint32_t kMembershipVersion = 3;
uint32_t VersionOf(const Membership& membership);
// Not decoded because a newer build wrote it.
bool IsOfNewerVersion(std::string_view bytes);

}  // namespace quorate::raft
