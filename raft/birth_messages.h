// What processes say to each other before and during birth (DESIGN.md, "Identity, birth,
// membership"): plain structs; the transport maps them to the RPCs Identify and Found, both
// unary. A reply always belongs to the call that it answers: a reply to a call of a former
// process on this data directory must never be delivered.
//
// Everything here comes from the network: the receiver checks it (raft/birth.cc), nobody else has
// to. Names are 1 to 255 bytes, addresses at most 255, founders at most kMembersMax.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "raft/core/types.h"

namespace quorate::raft {

// Where a process stands in birth. Numbers are on the wire: never reuse one.
enum class BirthState : uint8_t {
  kSearching = 1,       // not born: asks the founders who they are
  kFoundersDiffer = 2,  // not born: another founder is configured with another set of names
  kProposing = 3,       // not born: has a durable proposal and collects pledges
  kPledged = 4,         // not born: has pledged a proposal and waits for Born
  kWaitingToJoin = 5,   // not born: a cluster exists that does not know this store
  kBorn = 6,            // born; not every founder is known to be, no client writes yet
  kFounderLost = 7,     // born, but a founder has another disk: birth cannot complete
  kComplete = 8,        // BirthComplete is applied: in service
  kHalted = 9,          // another live process has this store id: about to exit
};

// In lower case with underscores, without the k ("waiting_to_join").
const char* ToString(BirthState state);

struct Founder {
  std::string name;  // the configured node id
  StoreId store;
  std::string address;  // its advertised peer address when the proposal was made; a hint
  friend bool operator==(const Founder&, const Founder&) = default;
};

// What a store has pledged itself to, as it reports it. A store's pledge only moves upwards in this
// order, so that a compare-and-swap which was delayed or repeated never brings an old one back.
struct Pledge {
  uint64_t round = 0;  // 0: none
  StoreId proposer;
  friend auto operator<=>(const Pledge&, const Pledge&) = default;
};

// What the proposer makes durable before it sends. (round, proposer) names it and is never used
// twice: the round only grows in the proposer's durable record. Below 2^63.
struct Proposal {
  StoreId proposer;
  uint64_t round = 0;
  ClusterId cluster;
  std::vector<Founder> founders;  // in bytewise order of their names; the first is the proposer
  Pledge pledge() const { return {round, proposer}; }
  friend bool operator==(const Proposal&, const Proposal&) = default;
};

// "Who are you?" Always answered, by every process, in every state.
struct IdentifyRequest {
  StoreId store;       // the asker's
  uint64_t nonce = 0;  // random per process
  uint64_t boot = 0;   // how often a process has started on the asker's data directory
  std::string name;
  std::string address;  // the asker's advertised address
};

struct IdentifyReply {
  ClusterId cluster;  // 0: not born
  StoreId store;
  uint64_t nonce = 0;
  uint64_t boot = 0;
  std::string name;
  std::string address;  // advertised
  BirthState state = BirthState::kSearching;
  Pledge pledge;
  std::vector<std::string> founders;  // the names it is configured with, in order
  // Born: an encoded Membership, the latest it knows; without members as long as it has been let in
  // and knows none.
  std::string membership;
  ClusterId waits_for;              // not born: the cluster that it has heard of; 0: none
  bool finds_two_clusters = false;  // not born: it joins neither, and waits_for is 0
  // In a cluster, and it has never caught up with it as a member: if it is none it was let in by a
  // leader that fell before the others heard of that.
  bool never_caught_up = false;
  // Addresses at which other processes with the *asker's* store id were heard of lately, at most
  // four: the asker asks there itself, because only a direct answer proves a live double.
  std::vector<std::string> asker_also_at;
};

enum class Refusal : uint8_t {
  kNone = 0,
  kMalformed = 1,       // the request breaks the rules above
  kWrongStore = 2,      // the receiver is not the store that the request names
  kFoundersDiffer = 3,  // the receiver is configured with other founders
  kPledgeMoved = 4,     // the receiver's pledge is not the expected one, or is a later one
  kBornElsewhere = 5,   // the receiver is born in another cluster
  kClusterExists = 6,   // the receiver knows of a cluster that exists already
  kHalted = 7,          // the receiver is about to exit
};

// A leader has sent this store something to append: it is a member of that cluster, or will be if
// the leader's change comes true. Nothing else lets a store into a cluster that exists.
struct Invitation {
  ClusterId cluster;
  StoreId from;  // the leader's store
};

// Compare-and-swap on the receiver's pledge.
struct Propose {
  StoreId to;
  Pledge expected;  // as the receiver last reported it
  Proposal proposal;
};

struct PledgeReply {
  StoreId store;
  Refusal refusal = Refusal::kNone;  // kNone: the proposal is the receiver's durable pledge
  Pledge pledge;                     // the receiver's, after the call
  ClusterId cluster;                 // the receiver's; 0: not born
  std::vector<std::string> founders;
};

// Accepted only by a store with this pledge, or that is born in it already.
struct Born {
  StoreId to;
  Pledge pledge;
  ClusterId cluster;
  // The first log entry (index 1, term 1, kMembership, both times 0): its payload.
  std::string payload;
};

struct BornReply {
  StoreId store;
  Refusal refusal = Refusal::kNone;  // kNone: the receiver is durably born in this cluster
  ClusterId cluster;
  Pledge pledge;
};

const char* ToString(Refusal refusal);

using BirthRequest = std::variant<IdentifyRequest, Propose, Born>;
using BirthReply = std::variant<IdentifyReply, PledgeReply, BornReply>;

}  // namespace quorate::raft
