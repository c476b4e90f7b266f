#include "raft/birth.h"

#include <algorithm>

#include "base/check.h"

namespace quorate::raft {
namespace {

constexpr size_t kDoublesAskedMax = 8;  // addresses asked for a double at the same time
constexpr Duration kDoubleAskPause = std::chrono::seconds(1);

std::vector<std::string> Sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

bool ValidName(const std::string& name) { return !name.empty() && name.size() <= kNameBytesMax; }

// What a peer may say of itself; everything else is treated like no answer.
bool Valid(const IdentifyReply& reply) {
  return reply.store && reply.nonce != 0 && ValidName(reply.name) &&
         reply.address.size() <= kAddressBytesMax && reply.founders.size() <= kMembersMax &&
         std::all_of(reply.founders.begin(), reply.founders.end(), ValidName) &&
         reply.asker_also_at.size() <= ClaimTable::kClaimsMax &&
         (!reply.cluster || DecodeMembership(reply.membership).has_value());
}

// What a store that was let in knows of the members at first.
std::string NoMembers(ClusterId cluster) {
  Membership membership;
  membership.cluster = cluster;
  return EncodeMembership(membership);
}

bool NamesOf(const Proposal& proposal, const std::vector<std::string>& sorted) {
  return std::equal(proposal.founders.begin(), proposal.founders.end(), sorted.begin(),
                    sorted.end(),
                    [](const Founder& f, const std::string& name) { return f.name == name; });
}

}  // namespace

Birth::Birth(const BirthOptions& options, BirthRecord record, Instant now)
    : options_(options),
      founders_(Sorted(options.founders)),
      random_state_(options.seed ^ options.store.value() ^ (options.nonce << 1)),
      record_(std::move(record)),
      joined_at_(now),
      complete_(options.birth_complete),
      caught_up_(options.caught_up_once) {
  CHECK(options_.store && options_.nonce != 0, "a birth needs a store and a nonce");
  CHECK(ValidName(options_.name) && options_.address.size() <= kAddressBytesMax);
  CHECK(founders_.size() <= kMembersMax);
  CHECK(std::all_of(founders_.begin(), founders_.end(), ValidName));
  CHECK(std::adjacent_find(founders_.begin(), founders_.end()) == founders_.end());
  CHECK(!complete_ || record_.log_created, "complete without a log");
  if (record_.born) {
    membership_ = record_.joined ? NoMembers(record_.joined) : record_.payload;
    if (!record_.log_created) output_.create_log = LogToCreate();
  }
  Advance(now);
}

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
uint64_t Birth::Random() {
  uint64_t z = random_state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return z != 0 ? z : 1;
}

bool Birth::Founding() const {
  return std::binary_search(founders_.begin(), founders_.end(), options_.name);
}

bool Birth::Fresh(const Peer& peer, Instant now) const {
  return peer.answer && now - peer.answered_at <= options_.answer_lifetime;
}

// --- Asking ---

void Birth::Begin(Instant now) { began_ = now; }

void Birth::SetAddresses(std::vector<PeerAddress> addresses, Instant now, bool whole) {
  if (addresses.size() > kAddressesMax) addresses.resize(kAddressesMax);
  std::set<std::string> before;
  for (auto& [address, peer] : peers_) {
    if (std::exchange(peer.listed, false)) before.insert(address);
  }
  for (PeerAddress& listed : addresses) {
    if (listed.address.empty()) continue;
    Peer& peer = peers_[listed.address];
    if (!before.contains(listed.address)) peer.ask_at = std::min(peer.ask_at, now);
    peer.listed = true;
    peer.expected_name = std::move(listed.name);
  }
  // What an address that is gone once answered says nothing any more. A question that is open ends
  // by itself: it may be the one that finds a double, and may_run waits for it.
  std::erase_if(peers_,
                [](const auto& item) { return !item.second.listed && !item.second.asking; });
  for (auto& [address, peer] : peers_) {
    if (peer.listed) continue;
    peer.answer.reset();
    peer.error.clear();
    peer.refusal = Refusal::kNone;
  }
  addresses_known_ = true;
  addresses_whole_ = addresses_whole_ || whole;
  Tick(now);
}

void Birth::Call(const std::string& address, CallKind kind, StoreId to, BirthRequest request,
                 Instant now) {
  const uint64_t id = next_call_++;
  calls_[id] = OpenCall{kind, address, to, now + options_.call_timeout};
  output_.calls.push_back(BirthCall{id, address, std::move(request)});
}

void Birth::Ask(const std::string& address, Peer* peer, Instant now) {
  peer->asking = true;
  peer->asked_at = now;
  peer->ask_at = now + (complete_ ? options_.complete_ask_interval : options_.ask_interval);
  Call(address, CallKind::kIdentify, StoreId(),
       IdentifyRequest{options_.store, options_.nonce, options_.boot, options_.name,
                       options_.address},
       now);
}

void Birth::AskForDouble(const std::string& address, Instant now) {
  if (halted_ || address.empty() || address.size() > kAddressBytesMax) return;
  auto found = peers_.find(address);
  if (found == peers_.end()) {
    std::erase_if(peers_, [now](const auto& item) {
      const Peer& peer = item.second;
      return !peer.listed && !peer.asking && now - peer.asked_at >= kDoubleAskPause;
    });
    const auto others = std::count_if(peers_.begin(), peers_.end(),
                                      [](const auto& item) { return !item.second.listed; });
    if (static_cast<size_t>(others) >= kDoublesAskedMax) return;
    Ask(address, &peers_[address], now);
    return;
  }
  Peer& peer = found->second;
  const Duration pause = peer.listed ? options_.ask_interval : kDoubleAskPause;
  if (!peer.asking && now - peer.asked_at >= pause) Ask(address, &peer, now);
}

void Birth::Tick(Instant now) {
  std::vector<uint64_t> late;
  for (const auto& [id, call] : calls_) {
    if (call.deadline <= now) late.push_back(id);
  }
  for (uint64_t id : late) OnCallFailed(id, "no answer in time", now);
  if (halted_) {
    if (now >= exit_at_) output_.exit = true;
    return;
  }
  for (auto& [address, peer] : peers_) {
    if (peer.listed && !peer.asking && peer.ask_at <= now) Ask(address, &peer, now);
  }
  Advance(now);
}

Instant Birth::NextDeadline() const {
  if (halted_) return exit_at_;
  const bool waits = began_ && !asked_first_;
  Instant next = waits ? *began_ + options_.ask_first_max : Instant::max();
  for (const auto& [id, call] : calls_) next = std::min(next, call.deadline);
  for (const auto& [address, peer] : peers_) {
    if (peer.listed && !peer.asking) next = std::min(next, peer.ask_at);
  }
  return next;
}

// --- Being asked ---

IdentifyReply Birth::OnIdentify(const IdentifyRequest& request, Instant now) {
  IdentifyReply reply;
  reply.cluster = record_.cluster();
  reply.store = options_.store;
  reply.nonce = options_.nonce;
  reply.boot = options_.boot;
  reply.name = options_.name;
  reply.address = options_.address;
  reply.state = StateAt(now);
  reply.pledge = record_.reported();
  reply.founders = founders_;
  reply.membership = membership_;
  reply.never_caught_up = record_.born && !caught_up_;
  if (const IdentifyReply* cluster = record_.born ? nullptr : ExistingCluster(now)) {
    reply.finds_two_clusters = SecondCluster(now) != nullptr;
    if (!reply.finds_two_clusters) reply.waits_for = cluster->cluster;
  }
  if (request.nonce == options_.nonce || request.address.size() > kAddressBytesMax) return reply;
  reply.asker_also_at = claims_.Others(request.store, request.nonce, now);
  claims_.Note(request.store, request.nonce, request.address, now);
  // Somebody says that it is this store. That may be late news of a former self: ask there.
  if (request.store == options_.store) AskForDouble(request.address, now);
  return reply;
}

Refusal Birth::Judge(const Propose& request, Instant now) const {
  const Proposal& proposal = request.proposal;
  if (halted_) return Refusal::kHalted;
  if (!raft::Valid(proposal)) return Refusal::kMalformed;
  if (request.to != options_.store) return Refusal::kWrongStore;
  if (record_.born) {
    return record_.reported() == proposal.pledge() ? Refusal::kNone : Refusal::kBornElsewhere;
  }
  // With the same names in it, and in order, the proposer is the founder that sorts first here too.
  if (!Founding() || !NamesOf(proposal, founders_)) return Refusal::kFoundersDiffer;
  if (proposal.proposer == options_.store) return Refusal::kMalformed;
  for (const Founder& founder : proposal.founders) {
    if (founder.name == options_.name && founder.store != options_.store) {
      return Refusal::kWrongStore;
    }
  }
  if (record_.reported() == proposal.pledge()) {
    return *record_.pledge == proposal ? Refusal::kNone : Refusal::kMalformed;
  }
  if (ExistingCluster(now) != nullptr) return Refusal::kClusterExists;
  if (request.expected != record_.reported()) return Refusal::kPledgeMoved;
  if (proposal.pledge() < record_.reported()) return Refusal::kPledgeMoved;
  return Refusal::kNone;
}

PledgeReply Birth::OnPropose(const Propose& request, Instant now) {
  PledgeReply reply;
  reply.store = options_.store;
  reply.refusal = Judge(request, now);
  if (reply.refusal == Refusal::kNone && !record_.born &&
      record_.reported() != request.proposal.pledge()) {
    record_.pledge = request.proposal;
    output_.persist = record_;
  }
  reply.pledge = record_.reported();
  reply.cluster = record_.cluster();
  reply.founders = founders_;
  return reply;
}

BornReply Birth::OnBorn(const Born& request, Instant now) {
  BornReply reply;
  reply.store = options_.store;
  const std::optional<Membership> membership = DecodeMembership(request.payload);
  if (halted_) {
    reply.refusal = Refusal::kHalted;
  } else if (!request.cluster || !membership || membership->cluster != request.cluster) {
    reply.refusal = Refusal::kMalformed;
  } else if (request.to != options_.store) {
    reply.refusal = Refusal::kWrongStore;
  } else if (record_.born) {
    if (record_.cluster() != request.cluster) reply.refusal = Refusal::kBornElsewhere;
  } else if (!record_.pledge || record_.reported() != request.pledge) {
    reply.refusal = Refusal::kPledgeMoved;
  } else if (FoundingMembership(*record_.pledge) != *membership) {
    reply.refusal = Refusal::kMalformed;  // not what this store has pledged itself to
  } else {
    BecomeBorn(request.payload);
    TellAll(now);
  }
  reply.cluster = record_.cluster();
  reply.pledge = record_.reported();
  return reply;
}

Refusal Birth::OnInvited(const Invitation& invitation, Instant now) {
  if (halted_) return Refusal::kHalted;
  if (!invitation.cluster || !invitation.from || invitation.from == options_.store) {
    return Refusal::kMalformed;
  }
  if (record_.born) {
    return record_.cluster() == invitation.cluster ? Refusal::kNone : Refusal::kBornElsewhere;
  }
  // Whose proposer may count on it, or has: in that cluster's own birth Born comes.
  if (record_.pledge) return Refusal::kPledgeMoved;
  const IdentifyReply* known = ExistingCluster(now);
  if (known != nullptr && known->cluster != invitation.cluster) return Refusal::kClusterExists;
  if (SecondCluster(now) != nullptr) return Refusal::kClusterExists;
  Join(invitation.cluster, now);
  return Refusal::kNone;
}

// --- Answers ---

void Birth::OnReply(uint64_t id, const BirthReply& reply, Instant now) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return;  // too late
  const OpenCall call = found->second;
  const bool fits = call.kind == CallKind::kIdentify  ? std::holds_alternative<IdentifyReply>(reply)
                    : call.kind == CallKind::kPropose ? std::holds_alternative<PledgeReply>(reply)
                                                      : std::holds_alternative<BornReply>(reply);
  const IdentifyReply* identified = std::get_if<IdentifyReply>(&reply);
  if (!fits || (identified != nullptr && !Valid(*identified))) {
    OnCallFailed(id, "the answer is malformed", now);
    return;
  }
  calls_.erase(found);
  auto peer = peers_.find(call.address);
  if (peer != peers_.end()) peer->second.Ended(call.kind);
  if (identified != nullptr) {
    OnIdentified(call.address, *identified, now);
  } else if (const auto* pledged = std::get_if<PledgeReply>(&reply)) {
    if (peer != peers_.end()) peer->second.refusal = pledged->refusal;
    if (pledged->store == call.to) OnPledgeReported(pledged->store, pledged->pledge);
  } else if (const auto* born = std::get_if<BornReply>(&reply)) {
    if (peer != peers_.end()) peer->second.refusal = born->refusal;
    if (born->store == call.to && record_.born && born->cluster == record_.cluster()) {
      known_born_.insert(born->store);
    }
  }
  Advance(now);
}

void Birth::OnCallFailed(uint64_t id, const std::string& reason, Instant now) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return;
  const OpenCall call = found->second;
  calls_.erase(found);
  auto peer = peers_.find(call.address);
  if (peer == peers_.end()) return;
  peer->second.Ended(call.kind);
  peer->second.error = reason.substr(0, 200);
  Advance(now);
}

void Birth::OnIdentified(const std::string& address, IdentifyReply reply, Instant now) {
  if (reply.store == options_.store && reply.nonce != options_.nonce) {
    Halt(address, reply, now);
    return;
  }
  claims_.Note(reply.store, reply.nonce, reply.address, now);
  for (const std::string& also : reply.asker_also_at) AskForDouble(also, now);
  auto found = peers_.find(address);
  if (found == peers_.end() || !found->second.listed) return;
  Peer& peer = found->second;
  OnPledgeReported(reply.store, reply.pledge);
  if (record_.born && reply.cluster == record_.cluster()) known_born_.insert(reply.store);
  reply.founders = Sorted(std::move(reply.founders));
  peer.answer = std::move(reply);
  peer.answered_at = now;
  peer.error.clear();
  Tell(address, &peer, now);
}

// Reports of one store may arrive out of order; a store's pledge only moves forward.
void Birth::OnPledgeReported(StoreId store, const Pledge& pledge) {
  auto [found, inserted] = reported_.try_emplace(store, pledge);
  if (!inserted && pledge > found->second) found->second = pledge;
}

void Birth::Halt(const std::string& address, const IdentifyReply& answer, Instant now) {
  if (halted_) return;
  halted_ = "another live process answers at " + address + " with this node's store id " +
            ToHex(options_.store) + " (its boot " + std::to_string(answer.boot) + ", here " +
            std::to_string(options_.boot) +
            "): the data directory was copied. Both stop. Remove one of the two directories, then "
            "start the other node again";
  exit_at_ = now + options_.halt_linger;
  output_.halt = halted_;
}

// --- Founding ---

const IdentifyReply* Birth::ExistingCluster(Instant now) const {
  const IdentifyReply* known = nullptr;
  for (const auto& [address, peer] : peers_) {
    if (!Fresh(peer, now) || !peer.answer->cluster) continue;
    if (record_.born && peer.answer->cluster == record_.cluster()) continue;
    const std::optional<Membership> membership = DecodeMembership(peer.answer->membership);
    // Who was let in and knows no member yet says least.
    if (membership->members.empty()) {
      if (known == nullptr) known = &*peer.answer;
      continue;
    }
    if (membership->Find(options_.store) == nullptr) return &*peer.answer;
    known = &*peer.answer;
  }
  return known;
}

const IdentifyReply* Birth::SecondCluster(Instant now) const {
  const IdentifyReply* first = ExistingCluster(now);
  for (const auto& [address, peer] : peers_) {
    if (first == nullptr || !Fresh(peer, now) || !peer.answer->cluster) continue;
    if (peer.answer->cluster != first->cluster) return &*peer.answer;
  }
  return nullptr;
}

std::vector<Newcomer> Birth::Newcomers(Instant now) const {
  std::vector<Newcomer> newcomers;
  for (const auto& [address, peer] : peers_) {
    if (!record_.born || !peer.listed || !Fresh(peer, now)) continue;
    const IdentifyReply& answer = *peer.answer;
    const bool waits = answer.cluster ? answer.cluster == record_.cluster()
                                      : answer.state == BirthState::kWaitingToJoin &&
                                            answer.waits_for == record_.cluster();
    const bool was_member = answer.cluster && !answer.never_caught_up;
    const bool known = std::any_of(newcomers.begin(), newcomers.end(), [&](const Newcomer& other) {
      return other.store == answer.store;
    });
    if (waits && !known) newcomers.push_back({address, answer.store, answer.name, was_member});
  }
  return newcomers;
}

Birth::FoundByName Birth::Find(Instant now) const {
  FoundByName found;
  found[options_.name].push_back({options_.store, "", options_.address, record_.cluster()});
  for (const auto& [address, peer] : peers_) {
    if (!Fresh(peer, now)) continue;
    const IdentifyReply& answer = *peer.answer;
    std::vector<Found>& stores = found[answer.name];
    const bool known = std::any_of(stores.begin(), stores.end(),
                                   [&](const Found& f) { return f.store == answer.store; });
    if (known) continue;  // one process at two addresses
    stores.push_back(
        {answer.store, address, answer.address.empty() ? address : answer.address, answer.cluster});
  }
  return found;
}

bool Birth::FoundersDiffer(const IdentifyReply& answer) const {
  if (answer.cluster || answer.founders == founders_) return false;
  // A stranger with another configuration founds another cluster, which is its own business.
  return std::binary_search(founders_.begin(), founders_.end(), answer.name) ||
         std::binary_search(answer.founders.begin(), answer.founders.end(), options_.name);
}

std::optional<std::vector<Founder>> Birth::Candidates(Instant now) const {
  if (!addresses_known_) return std::nullopt;
  // Somebody who was not shown may be in a cluster that this one would be a second of.
  if (founders_.size() == 1 && !addresses_whole_) return std::nullopt;
  for (const auto& [address, peer] : peers_) {
    if (!peer.listed) continue;
    // Everybody was asked, and has answered or not: a cluster that exists is heard of first.
    if (!Fresh(peer, now) && peer.error.empty()) return std::nullopt;
    if (Fresh(peer, now) && FoundersDiffer(*peer.answer)) return std::nullopt;
    // Born alone only where nobody else was shown: every address is this process.
    if (founders_.size() == 1 && address != options_.address &&
        !(Fresh(peer, now) && peer.answer->nonce == options_.nonce)) {
      return std::nullopt;
    }
  }
  const FoundByName found = Find(now);
  std::vector<Founder> founders;
  for (const std::string& name : founders_) {
    auto stores = found.find(name);
    if (stores == found.end() || stores->second.size() != 1) return std::nullopt;
    const Found& store = stores->second.front();
    if (store.cluster) return std::nullopt;
    founders.push_back({name, store.store, store.address});
  }
  return founders;
}

void Birth::StartRound(std::vector<Founder> founders) {
  Proposal proposal;
  proposal.proposer = options_.store;
  // Above what anybody has pledged itself to, or it would be refused.
  for (const Founder& founder : founders) {
    auto pledge = reported_.find(founder.store);
    if (pledge == reported_.end()) continue;
    record_.last_round = std::max(record_.last_round, pledge->second.round);
  }
  proposal.round = ++record_.last_round;
  proposal.cluster = ClusterId(Random());
  proposal.founders = std::move(founders);
  CHECK(raft::Valid(proposal));
  record_.pledge = std::move(proposal);
  output_.persist = record_;
}

bool Birth::AllPledged() const {
  if (!record_.pledge || record_.pledge->proposer != options_.store) return false;
  for (const Founder& founder : record_.pledge->founders) {
    if (founder.store == options_.store) continue;
    auto pledge = reported_.find(founder.store);
    if (pledge == reported_.end() || pledge->second != record_.reported()) return false;
  }
  return true;
}

bool Birth::Overtaken() const {
  return std::any_of(record_.pledge->founders.begin(), record_.pledge->founders.end(),
                     [this](const Founder& founder) {
                       auto pledge = reported_.find(founder.store);
                       return pledge != reported_.end() && pledge->second > record_.reported();
                     });
}

bool Birth::EverybodyAsked() const {
  return addresses_whole_ && std::all_of(peers_.begin(), peers_.end(), [](const auto& item) {
           const Peer& peer = item.second;
           return peer.listed ? peer.asked : !peer.asking;
         });
}

void Birth::Advance(Instant now) {
  if (!began_) return;
  asked_first_ = asked_first_ || EverybodyAsked() || now - *began_ >= options_.ask_first_max;
  if (halted_ || record_.born || !First() || ExistingCluster(now) != nullptr) return;
  if (std::optional<std::vector<Founder>> founders = Candidates(now)) {
    const bool mine = record_.pledge && record_.pledge->proposer == options_.store;
    if (!mine || record_.pledge->founders != *founders || Overtaken()) {
      StartRound(std::move(*founders));
      TellAll(now);
    }
  }
  if (AllPledged() && NamesOf(*record_.pledge, founders_)) {
    BecomeBorn(EncodeMembership(FoundingMembership(*record_.pledge)));
    TellAll(now);
  }
}

void Birth::Tell(const std::string& address, Peer* peer, Instant now) {
  if (halted_ || peer->telling || !Fresh(*peer, now) || !record_.pledge || complete_) return;
  const StoreId to = peer->answer->store;
  const Proposal& proposal = *record_.pledge;
  const bool named = std::any_of(proposal.founders.begin(), proposal.founders.end(),
                                 [to](const Founder& f) { return f.store == to; });
  if (!named || to == options_.store || peer->answer->cluster) return;
  if (record_.born) {
    peer->telling = true;
    Call(address, CallKind::kBorn, to,
         Born{to, record_.reported(), proposal.cluster, record_.payload}, now);
    return;
  }
  const Pledge& pledge = reported_.at(to);
  if (proposal.proposer != options_.store || pledge == record_.reported()) return;
  peer->telling = true;
  Call(address, CallKind::kPropose, to, Propose{to, pledge, proposal}, now);
}

void Birth::TellAll(Instant now) {
  for (auto& [address, peer] : peers_) Tell(address, &peer, now);
}

void Birth::BecomeBorn(std::string payload) {
  CHECK(!record_.born && record_.pledge);
  record_.born = true;
  record_.payload = std::move(payload);
  membership_ = record_.payload;
  output_.persist = record_;
  output_.create_log = LogToCreate();
}

void Birth::Join(ClusterId cluster, Instant now) {
  CHECK(!record_.born && !record_.pledge && cluster);
  joined_at_ = now;
  record_.born = true;
  record_.joined = cluster;
  membership_ = NoMembers(cluster);
  output_.persist = record_;
  output_.create_log = LogToCreate();
}

BirthOutput::CreateLog Birth::LogToCreate() const {
  return {record_.cluster(), record_.joined ? nullptr : FirstEntry(record_.payload)};
}

void Birth::OnLogCreated(Instant now) {
  CHECK(record_.born);
  if (record_.log_created) return;
  record_.log_created = true;
  output_.persist = record_;
  Advance(now);
}

void Birth::OnMembership(const Membership& membership) {
  CHECK(record_.born && membership.cluster == record_.cluster());
  membership_ = EncodeMembership(membership);
}

void Birth::OnBirthComplete(Instant now) {
  CHECK(record_.log_created);
  complete_ = true;
  Advance(now);
}

}  // namespace quorate::raft
