// What a store must remember of birth: part of its identity file, opaque to whoever writes it.
//
// Format, version 1. Numbers are little-endian and of fixed width; nothing is optional, nothing
// is padded, and nothing may follow.
//
//   u8  version (1)
//   u8  phase: 0 not born; 1 born, the log not yet known to be made; 2 born, log made;
//       3 let into a cluster that existed, the log not yet known to be made; 4 that, log made
//   u64 last_round       the highest round that this store has ever proposed
//   u8  has_pledge: 0 or 1 (0 in phases 3 and 4); 1 is followed by the pledged proposal:
//         u64 proposer, u64 round, u64 cluster, u8 founders (1 to 64), each
//           u8 name length (1 to 255), name, u64 store, u8 address length, address
//   u32 payload length   0 unless born by a pledge; then the first log entry's payload
//   u64 joined           phases 3 and 4 only: the cluster
// Builds that know phases 0 to 2 only refuse the others, and say so.
//
// The identity file's own checksum guards against damage; decoding guards against everything that
// encoding cannot have made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "raft/birth_messages.h"
#include "raft/core/membership.h"

namespace quorate::raft {

struct BirthRecord {
  bool born = false;  // in a cluster, by birth or because a leader let it in
  // The log exists; it holds entry 1, or nothing when it was let in.
  bool log_created = false;
  uint64_t last_round = 0;
  std::optional<Proposal> pledge;  // born and not let in: the one that it was born by
  std::string payload;             // that, too: of the first log entry
  ClusterId joined;                // the cluster that let it in; 0: none did

  // 0 unless born.
  ClusterId cluster() const { return joined ? joined : born ? pledge->cluster : ClusterId(); }
  Pledge reported() const { return pledge ? pledge->pledge() : Pledge(); }
  friend bool operator==(const BirthRecord&, const BirthRecord&) = default;
};

inline constexpr size_t kNameBytesMax = 255;
inline constexpr size_t kAddressBytesMax = 255;

// Ids and round not zero, round below 2^63, 1 to kMembersMax founders in strict bytewise order of
// their names, no store twice, lengths within bounds, and the first one is the proposer.
bool Valid(const Proposal& proposal);

// The membership that a proposal stands for: all founders as voters, by store id.
Membership FoundingMembership(const Proposal& proposal);
// Entry 1 of the log: index 1, term 1, the same bytes at every founder.
EntryPtr FirstEntry(std::string payload);

std::string EncodeBirthRecord(const BirthRecord& record);
// nullopt for anything that EncodeBirthRecord cannot have made.
std::optional<BirthRecord> DecodeBirthRecord(std::string_view bytes);

}  // namespace quorate::raft
