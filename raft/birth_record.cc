#include "raft/birth_record.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"

namespace quorate::raft {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kPayloadBytesMax = 64u << 10;  // 64 members with full names and addresses fit

template <typename T>
void Put(std::string* out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out->push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
  }
}

void PutText(std::string* out, const std::string& text) {
  Put<uint8_t>(out, static_cast<uint8_t>(text.size()));
  out->append(text);
}

// Reads front to back; after the first shortage everything reads as zero and `ok` is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  T Take() {
    std::string_view raw = Bytes(sizeof(T));
    uint64_t value = 0;
    for (size_t i = 0; i < raw.size(); ++i) {
      value |= static_cast<uint64_t>(static_cast<uint8_t>(raw[i])) << (8 * i);
    }
    return static_cast<T>(value);
  }
  std::string_view Bytes(size_t count) {
    if (rest_.size() < count) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string Text() { return std::string(Bytes(Take<uint8_t>())); }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

bool MembersMatch(const std::string& payload, const Proposal& proposal) {
  std::optional<Membership> membership = DecodeMembership(payload);
  return membership && *membership == FoundingMembership(proposal);
}

}  // namespace

bool Valid(const Proposal& proposal) {
  if (!proposal.proposer || !proposal.cluster) return false;
  if (proposal.round == 0 || proposal.round >> 63 != 0) return false;
  if (proposal.founders.empty() || proposal.founders.size() > kMembersMax) return false;
  std::set<StoreId> stores;
  const std::string* previous = nullptr;
  for (const Founder& founder : proposal.founders) {
    if (founder.name.empty() || founder.name.size() > kNameBytesMax) return false;
    if (founder.address.size() > kAddressBytesMax) return false;
    if (previous != nullptr && *previous >= founder.name) return false;
    if (!founder.store || !stores.insert(founder.store).second) return false;
    previous = &founder.name;
  }
  return proposal.founders.front().store == proposal.proposer;
}

Membership FoundingMembership(const Proposal& proposal) {
  Membership membership;
  membership.cluster = proposal.cluster;
  for (const Founder& founder : proposal.founders) {
    membership.members.push_back({.store = founder.store,
                                  .name = founder.name,
                                  .address = founder.address,
                                  .voter = true,
                                  .outgoing_voter = false});
  }
  std::sort(membership.members.begin(), membership.members.end(),
            [](const Member& a, const Member& b) { return a.store < b.store; });
  return membership;
}

EntryPtr FirstEntry(std::string payload) {
  auto entry = std::make_shared<Entry>();
  entry->index = Index(1);
  entry->term = Term(1);
  entry->type = EntryType::kMembership;
  entry->payload = std::move(payload);
  return entry;
}

std::string EncodeBirthRecord(const BirthRecord& record) {
  CHECK(!record.log_created || record.born);
  CHECK(!record.joined || (record.born && !record.pledge));
  const bool founded = record.born && !record.joined;
  CHECK(!founded || record.pledge.has_value());
  CHECK(founded == !record.payload.empty());
  CHECK(!record.pledge || Valid(*record.pledge));
  std::string out;
  Put<uint8_t>(&out, kVersion);
  const uint8_t phase = record.log_created ? 2 : record.born ? 1 : 0;
  Put<uint8_t>(&out, static_cast<uint8_t>(record.joined ? phase + 2 : phase));
  Put<uint64_t>(&out, record.last_round);
  Put<uint8_t>(&out, record.pledge ? 1 : 0);
  if (record.pledge) {
    Put<uint64_t>(&out, record.pledge->proposer.value());
    Put<uint64_t>(&out, record.pledge->round);
    Put<uint64_t>(&out, record.pledge->cluster.value());
    Put<uint8_t>(&out, static_cast<uint8_t>(record.pledge->founders.size()));
    for (const Founder& founder : record.pledge->founders) {
      PutText(&out, founder.name);
      Put<uint64_t>(&out, founder.store.value());
      PutText(&out, founder.address);
    }
  }
  Put<uint32_t>(&out, static_cast<uint32_t>(record.payload.size()));
  out.append(record.payload);
  if (record.joined) Put<uint64_t>(&out, record.joined.value());
  return out;
}

std::optional<BirthRecord> DecodeBirthRecord(std::string_view bytes) {
  Reader in(bytes);
  if (in.Take<uint8_t>() != kVersion) return std::nullopt;
  const uint8_t phase = in.Take<uint8_t>();
  if (phase > 4) return std::nullopt;
  const bool joined = phase >= 3;
  BirthRecord record;
  record.born = phase >= 1;
  record.log_created = phase == 2 || phase == 4;
  record.last_round = in.Take<uint64_t>();
  const uint8_t has_pledge = in.Take<uint8_t>();
  if (has_pledge > (joined ? 0 : 1) || !in.ok()) return std::nullopt;
  if (has_pledge == 1) {
    Proposal proposal;
    proposal.proposer = StoreId(in.Take<uint64_t>());
    proposal.round = in.Take<uint64_t>();
    proposal.cluster = ClusterId(in.Take<uint64_t>());
    const size_t count = in.Take<uint8_t>();
    for (size_t i = 0; i < count && in.ok(); ++i) {
      Founder founder;
      founder.name = in.Text();
      founder.store = StoreId(in.Take<uint64_t>());
      founder.address = in.Text();
      proposal.founders.push_back(std::move(founder));
    }
    if (!in.ok() || !Valid(proposal)) return std::nullopt;
    record.pledge = std::move(proposal);
  }
  const size_t payload_bytes = in.Take<uint32_t>();
  if (!in.ok() || payload_bytes > kPayloadBytesMax) return std::nullopt;
  record.payload = std::string(in.Bytes(payload_bytes));
  if (joined) {
    record.joined = ClusterId(in.Take<uint64_t>());
    if (!record.joined) return std::nullopt;
  }
  if (!in.AtEnd()) return std::nullopt;
  const bool founded = record.born && !joined;
  if (founded != !record.payload.empty()) return std::nullopt;
  if (founded && (!record.pledge || !MembersMatch(record.payload, *record.pledge))) {
    return std::nullopt;
  }
  return record;
}

}  // namespace quorate::raft
