// The layout of an encoded membership; numbers are unsigned, little-endian, of fixed width:
//
//   version          1 byte    the lowest that can say it: 2 when two members share a name or a
//                              voter of the old half is demoted, 3 when a learner is, else 1
//   cluster          8 bytes
//   joint            1 byte    0 or 1; 1 exactly when some member is an outgoing voter
//   member count     2 bytes   at most kMembersMax
//   per member, in strictly ascending order of store:
//     store          8 bytes   not 0
//     flags          1 byte    bit 0 voter, bit 1 outgoing voter, bit 2 demoted (from version 2
//                              on with bit 1 alone, from version 3 on also alone); the others are 0
//     name length    2 bytes   at most 255, then the name
//     address length 2 bytes   at most 512 (a DNS name and a port need 259), then the address
//
// No checksum: the log's records and the transport's frames carry theirs.
#include "raft/core/membership.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace quorate::raft {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint8_t kVersionOfJointNames = 2;
constexpr uint8_t kVersionOfDemotedLearners = 3;
static_assert(kVersionOfDemotedLearners == kMembershipVersion);
constexpr uint8_t kVoterFlag = 1;
constexpr uint8_t kOutgoingFlag = 2;
constexpr uint8_t kDemotedFlag = 4;
constexpr size_t kNameBytesMax = 255;
constexpr size_t kAddressBytesMax = 512;

uint8_t FlagsOf(const Member& member) {
  return static_cast<uint8_t>((member.voter ? kVoterFlag : 0) |
                              (member.outgoing_voter ? kOutgoingFlag : 0) |
                              (member.demoted ? kDemotedFlag : 0));
}

void PutNumber(std::string* out, uint64_t value, int width) {
  for (int i = 0; i < width; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

// Takes pieces off the front of the bytes; after a failure everything else fails as well.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  uint64_t Number(int width) {
    const std::string_view piece = Bytes(static_cast<size_t>(width));
    uint64_t value = 0;
    for (size_t i = 0; i < piece.size(); ++i) {
      value |= static_cast<uint64_t>(static_cast<uint8_t>(piece[i])) << (8 * i);
    }
    return value;
  }

  std::string_view Bytes(size_t count) {
    if (!ok_ || rest_.size() < count) {
      ok_ = false;
      return {};
    }
    const std::string_view piece = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return piece;
  }

  bool ok() const { return ok_; }
  bool done() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::vector<StoreId> Select(const Membership& membership, bool Member::*flag) {
  std::vector<StoreId> stores;
  for (const Member& member : membership.members) {
    if (member.*flag) stores.push_back(member.store);
  }
  return stores;
}

}  // namespace

const char* BrokenRule(const Membership& membership) {
  if (membership.members.size() > kMembersMax) return "too many members";
  std::set<std::string_view> voters, outgoing_voters, learners;
  StoreId previous;
  bool outgoing = false;
  for (const Member& member : membership.members) {
    if (!(previous < member.store)) return "members are not in ascending order of store";
    if (member.name.size() > kNameBytesMax) return "a name is over 255 bytes";
    if (member.address.size() > kAddressBytesMax) return "an address is over 512 bytes";
    if (member.demoted && member.voter) return "a demoted member votes";
    const bool first =
        (!member.voter || voters.insert(member.name).second) &&
        (!member.outgoing_voter || outgoing_voters.insert(member.name).second) &&
        (!(member.learner() || member.demoted) || learners.insert(member.name).second);
    if (!first) return "two members have one name";
    previous = member.store;
    outgoing = outgoing || member.outgoing_voter;
  }
  if (outgoing != membership.joint) return "joint and outgoing voters do not agree";
  return nullptr;
}

const Member* Membership::Find(StoreId store) const {
  const auto it = std::find_if(members.begin(), members.end(),
                               [store](const Member& member) { return member.store == store; });
  return it == members.end() ? nullptr : &*it;
}

std::vector<StoreId> Membership::Voters() const { return Select(*this, &Member::voter); }

std::vector<StoreId> Membership::OutgoingVoters() const {
  return Select(*this, &Member::outgoing_voter);
}

// Version 1 knew neither demoted members nor one name for two of them, version 2 no demoted
// learners. What they can say is still written as it was, so that there is one encoding of each
// membership.
uint32_t VersionOf(const Membership& membership) {
  uint32_t version = kVersion;
  std::set<std::string_view> names;
  for (const Member& member : membership.members) {
    if (member.demoted && member.learner()) return kVersionOfDemotedLearners;
    if (member.demoted || !names.insert(member.name).second) version = kVersionOfJointNames;
  }
  return version;
}

bool IsOfNewerVersion(std::string_view bytes) {
  return !bytes.empty() && static_cast<uint8_t>(bytes[0]) > kMembershipVersion;
}

std::string EncodeMembership(const Membership& membership) {
  const char* const broken = BrokenRule(membership);
  CHECK(broken == nullptr, broken);
  std::string out;
  PutNumber(&out, VersionOf(membership), 1);
  PutNumber(&out, membership.cluster.value(), 8);
  PutNumber(&out, membership.joint ? 1 : 0, 1);
  PutNumber(&out, membership.members.size(), 2);
  for (const Member& member : membership.members) {
    PutNumber(&out, member.store.value(), 8);
    PutNumber(&out, FlagsOf(member), 1);
    PutNumber(&out, member.name.size(), 2);
    out += member.name;
    PutNumber(&out, member.address.size(), 2);
    out += member.address;
  }
  return out;
}

std::optional<Membership> DecodeMembership(std::string_view bytes) {
  Reader reader(bytes);
  const uint64_t version = reader.Number(1);
  if (version < kVersion || version > kVersionOfDemotedLearners) return std::nullopt;
  Membership membership;
  membership.cluster = ClusterId(reader.Number(8));
  const uint64_t joint = reader.Number(1);
  const uint64_t count = reader.Number(2);
  if (!reader.ok() || joint > 1 || count > kMembersMax) return std::nullopt;
  membership.joint = joint == 1;
  for (uint64_t i = 0; i < count; ++i) {
    Member member;
    member.store = StoreId(reader.Number(8));
    const uint64_t flags = reader.Number(1);
    if (flags > (kVoterFlag | kOutgoingFlag | kDemotedFlag)) return std::nullopt;
    member.voter = (flags & kVoterFlag) != 0;
    member.outgoing_voter = (flags & kOutgoingFlag) != 0;
    member.demoted = (flags & kDemotedFlag) != 0;
    member.name = reader.Bytes(reader.Number(2));
    member.address = reader.Bytes(reader.Number(2));
    if (!reader.ok()) return std::nullopt;
    membership.members.push_back(std::move(member));
  }
  if (!reader.done() || BrokenRule(membership) != nullptr) return std::nullopt;
  if (version != VersionOf(membership)) return std::nullopt;
  return membership;
}

}  // namespace quorate::raft
