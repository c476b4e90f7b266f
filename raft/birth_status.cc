// What birth says of itself: the state, and in sentences what it waits for and what to do.
#include <algorithm>
#include <map>
#include <set>

#include "raft/birth.h"

namespace quorate::raft {
namespace {

std::string List(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "nobody" : text;
}

// Of two sorted lists: what only `a` has.
std::vector<std::string> Without(const std::vector<std::string>& a,
                                 const std::vector<std::string>& b) {
  std::vector<std::string> only;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only));
  return only;
}

// Followers have the entry that lets a store in a moment after the leader that sends it something.
constexpr Duration kJoinedGrace = std::chrono::seconds(1);

std::string Store(StoreId store) { return "store " + ToHex(store); }

}  // namespace

const char* ToString(BirthState state) {
  switch (state) {
    case BirthState::kSearching:
      return "searching";
    case BirthState::kFoundersDiffer:
      return "founders_differ";
    case BirthState::kProposing:
      return "proposing";
    case BirthState::kPledged:
      return "pledged";
    case BirthState::kWaitingToJoin:
      return "waiting_to_join";
    case BirthState::kBorn:
      return "born";
    case BirthState::kFounderLost:
      return "founder_lost";
    case BirthState::kComplete:
      return "complete";
    case BirthState::kHalted:
      return "halted";
  }
  return "unknown";
}

const char* ToString(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "none";
    case Refusal::kMalformed:
      return "malformed";
    case Refusal::kWrongStore:
      return "wrong_store";
    case Refusal::kFoundersDiffer:
      return "founders_differ";
    case Refusal::kPledgeMoved:
      return "pledge_moved";
    case Refusal::kBornElsewhere:
      return "born_elsewhere";
    case Refusal::kClusterExists:
      return "cluster_exists";
    case Refusal::kHalted:
      return "halted";
  }
  return "unknown";
}

BirthState Birth::StateAt(Instant now) const {
  if (halted_) return BirthState::kHalted;
  if (complete_) return BirthState::kComplete;
  if (record_.born) {
    return LostFounders(now).empty() ? BirthState::kBorn : BirthState::kFounderLost;
  }
  if (const IdentifyReply* cluster = ExistingCluster(now)) {
    const std::optional<Membership> membership = DecodeMembership(cluster->membership);
    // Known to it and not pledged: its leader is about to let this store in.
    if (membership->Find(options_.store) == nullptr || !record_.pledge) {
      return BirthState::kWaitingToJoin;
    }
  } else if (!Founding()) {
    return BirthState::kWaitingToJoin;
  }
  if (!DifferentFounders(now).empty()) return BirthState::kFoundersDiffer;
  if (!record_.pledge) return BirthState::kSearching;
  return record_.pledge->proposer == options_.store ? BirthState::kProposing : BirthState::kPledged;
}

BirthStatus Birth::Status(Instant now) const {
  BirthStatus status;
  status.state = StateAt(now);
  status.cluster = record_.cluster();
  status.joined = static_cast<bool>(record_.joined);
  switch (status.state) {
    case BirthState::kHalted:
      status.lacks = {*halted_};
      break;
    case BirthState::kComplete:
      // Also who was let in, and then not or no more, learns that birth is complete.
      if (!SayNoMember(now).empty()) {
        status.lacks = {record_.joined && !caught_up_ ? LacksJoined(now) : LacksRemoved(now)};
      }
      break;
    case BirthState::kBorn:
    case BirthState::kFounderLost:
      status.lacks = LacksBorn(now);
      break;
    default:
      status.lacks = LacksUnborn(now);
  }
  return status;
}

std::string Birth::Missing(const std::string& name, Instant now) const {
  std::string detail;
  for (const auto& [address, peer] : peers_) {
    if (!peer.listed || peer.expected_name != name) continue;
    if (Fresh(peer, now)) {
      return name + " is expected at " + address + ", where a node answers that calls itself " +
             peer.answer->name;
    }
    return name + " (" + address + ") does not answer" +
           (peer.error.empty() ? std::string() : ": " + peer.error);
  }
  return "no address answers as " + name;
}

std::vector<std::string> Birth::DifferentFounders(Instant now) const {
  std::vector<std::string> lines;
  for (const auto& [address, peer] : peers_) {
    if (!peer.listed || !Fresh(peer, now) || !FoundersDiffer(*peer.answer)) continue;
    const std::vector<std::string>& theirs = peer.answer->founders;
    lines.push_back("the founders differ: " + peer.answer->name + " (" + address +
                    ") is configured with " + List(theirs) + ", this node with " + List(founders_) +
                    "; only there: " + List(Without(theirs, founders_)) + "; only here: " +
                    List(Without(founders_, theirs)) + ". Give every founder the same set");
  }
  return lines;
}

std::vector<std::string> Birth::LacksToJoin(const IdentifyReply& cluster, Instant now) const {
  if (const IdentifyReply* other = SecondCluster(now)) {
    return {"two clusters are found, " + ToHex(cluster.cluster) + " (" + cluster.name +
            " is in it) and " + ToHex(other->cluster) + " (" + other->name +
            " is in it): this node joins neither. Let discovery show one of them only"};
  }
  const std::string which =
      "cluster " + ToHex(cluster.cluster) + " exists (" + cluster.name + " is in it)";
  const std::optional<Membership> membership = DecodeMembership(cluster.membership);
  if (record_.pledge && membership->Find(options_.store) == nullptr) {
    return {which +
            " without this store, and this store has pledged itself to founding another one: it is "
            "not let in. Empty its data directory, start it again, then run `quorate member add " +
            options_.address + "` at a node of the cluster"};
  }
  if (membership->Find(options_.store) != nullptr) {
    if (!record_.pledge) {
      return {which + " and has this store as a member: waiting for its leader to reach this node"};
    }
    if (record_.pledge && record_.pledge->cluster == cluster.cluster) {
      return {which +
              " with this store as a founder: waiting for one of its founders to pass birth on"};
    }
    const std::string changed =
        which +
        " with this store as a founder, but this store has since pledged itself to another "
        "proposal: a founder's disk was wiped or replaced during birth. ";
    if (const IdentifyReply* complete = CompleteIn(cluster.cluster, now)) {
      return {changed + "Birth is complete, as " + complete->name +
              " says: empty no data directory but this node's, start it again, then run `quorate "
              "member add " +
              options_.address + "` at a node of the cluster"};
    }
    return {changed + StartAgain(now)};
  }
  for (const auto& [address, peer] : peers_) {
    if (!Fresh(peer, now) || peer.answer->name != options_.name ||
        peer.answer->store == options_.store) {
      continue;
    }
    return {which + ", and " + Store(peer.answer->store) + " at " + address + " calls itself " +
            options_.name +
            ", too: a name belongs to one store. This node "
            "neither votes nor serves. Stop one of the two, or give it another nodeId and an "
            "empty data directory"};
  }
  for (const Member& member : membership->members) {
    if (member.name != options_.name) continue;
    return {
        which + " and knows member " + member.name + " as " + Store(member.store) + ", this is " +
        Store(options_.store) + ": the disk of member " + member.name +
        " was wiped or replaced. This node neither votes nor serves. Put the old data directory "
        "back, or let this store take its place: the leader does so by itself where discovery.dns "
        "shows this node and the old store is silent; otherwise run `quorate member add " +
        options_.address + "` at a node of the cluster"};
  }
  return {
      which + " and has no member " + options_.name +
      ": this node was not a founder, or was removed and wiped. It neither votes nor serves. The "
      "leader lets it in by itself where discovery.dns shows this node; otherwise run `quorate "
      "member add " +
      options_.address + "` at a node of the cluster"};
}

std::vector<std::string> Birth::LacksUnborn(Instant now) const {
  if (const IdentifyReply* cluster = ExistingCluster(now)) return LacksToJoin(*cluster, now);
  std::vector<std::string> lacks;
  if (!Founding()) {
    lacks.push_back("this node, " + options_.name + ", is not among the founders (" +
                    List(founders_) +
                    "): it waits for their cluster to let it in. Once that is born its leader does "
                    "so by itself where discovery.dns shows this node; otherwise run `quorate "
                    "member add " +
                    options_.address + "` at one of its nodes");
    return lacks;
  }
  if (!addresses_known_) {
    lacks.push_back("no peer addresses yet: discovery has not answered");
  } else if (founders_.size() == 1 && !addresses_whole_) {
    lacks.push_back(
        "discovery has answered only in part: who founds a cluster alone has to know that nobody "
        "else is there");
  }
  for (std::string& line : DifferentFounders(now)) lacks.push_back(std::move(line));
  const FoundByName found = Find(now);
  for (const std::string& name : founders_) {
    auto stores = found.find(name);
    if (stores == found.end()) {
      lacks.push_back(Missing(name, now));
    } else if (stores->second.size() > 1) {
      std::string line = "several live nodes call themselves " + name + ":";
      for (const Found& f : stores->second) {
        line += " " + Store(f.store) + (f.asked.empty() ? " (this node)" : " at " + f.asked) + ";";
      }
      lacks.push_back(line + " node ids must be unique");
    }
  }
  if (founders_.size() == 1) {
    for (const auto& [address, peer] : peers_) {
      const bool self =
          address == options_.address || (Fresh(peer, now) && peer.answer->nonce == options_.nonce);
      if (!peer.listed || self) continue;
      lacks.push_back(
          "this node is the only founder, but " + address +
          " is listed as well: it is not born alone while it does not know who is there");
    }
  }
  if (!First()) {
    if (lacks.empty())
      lacks.push_back("waiting for " + founders_.front() + " (sorts first) to propose");
    return lacks;
  }
  if (!record_.pledge || record_.pledge->proposer != options_.store) return lacks;
  for (const Founder& founder : record_.pledge->founders) {
    auto pledge = reported_.find(founder.store);
    if (founder.store == options_.store ||
        (pledge != reported_.end() && pledge->second == record_.reported())) {
      continue;
    }
    std::string line = founder.name + " (" + founder.address + ") has not pledged itself yet";
    for (const auto& [address, peer] : peers_) {
      if (!peer.answer || peer.answer->store != founder.store) continue;
      if (peer.refusal != Refusal::kNone) line += std::string(": ") + ToString(peer.refusal);
    }
    lacks.push_back(line);
  }
  return lacks;
}

const IdentifyReply* Birth::CompleteIn(ClusterId cluster, Instant now) const {
  for (const auto& [address, peer] : peers_) {
    if (Fresh(peer, now) && peer.answer->cluster == cluster &&
        peer.answer->state == BirthState::kComplete) {
      return &*peer.answer;
    }
  }
  return nullptr;
}

// No process knows alone that nothing was written yet: another founder may have completed birth
// with the one that is lost, and one that has started again knows of it only when a leader has told
// it. So nobody is told to empty anything while a founder is silent, and otherwise to wait.
std::string Birth::StartAgain(Instant now) const {
  std::vector<std::string> silent;
  const FoundByName found = Find(now);
  for (const Founder& founder : record_.pledge->founders) {
    if (!found.contains(founder.name)) silent.push_back(founder.name);
  }
  if (!silent.empty()) {
    const bool one = silent.size() == 1;
    return "Empty no data directory yet: " + List(silent) + (one ? " does" : " do") +
           " not answer and may know that birth is complete. Start " + (one ? "it" : "them") +
           " first";
  }
  return "If every founder still answers in a minute and none says that birth is complete, no "
         "client write has been accepted, and it is safe to begin again: stop every founder, empty "
         "every founder's data directory, start them again";
}

std::vector<std::string> Birth::LostFounders(Instant now) const {
  std::vector<std::string> lines;
  if (!record_.born || record_.joined) return lines;
  // Then it will be known here in a moment, and who was lost since is a member like any other.
  if (CompleteIn(record_.cluster(), now) != nullptr) return lines;
  const FoundByName found = Find(now);
  for (const Founder& founder : record_.pledge->founders) {
    auto stores = found.find(founder.name);
    if (founder.store == options_.store || stores == found.end()) continue;
    const bool alive = std::any_of(stores->second.begin(), stores->second.end(),
                                   [&](const Found& f) { return f.store == founder.store; });
    if (alive) continue;
    const Found& other = stores->second.front();
    lines.push_back("founder " + founder.name + " (" + other.asked + ") answers as " +
                    Store(other.store) + ", the cluster was born with its " + Store(founder.store) +
                    ": its disk was wiped or replaced before birth was complete. Put its old data "
                    "directory back. If that is lost: " +
                    StartAgain(now));
  }
  return lines;
}

// Who of its cluster says that this store is no member; empty unless they are a majority of the
// voters of a list that one of them gave, no member of that list says otherwise, and no majority of
// a list with this store in it. One alone may have been away when this store came; who says
// otherwise is ahead of the others, unless he was removed, too. Its own log does not count, neither
// for that nor against it: the entry that let it in may be there alone, and the one that removed it
// may not have come. (Its own address is asked, too, and answers.)
std::vector<std::string> Birth::SayNoMember(Instant now) const {
  std::map<StoreId, std::string> without;
  std::set<StoreId> with;
  std::vector<Membership> lists;  // of both
  for (const auto& [address, peer] : peers_) {
    const bool asked_since = Fresh(peer, now) && peer.answered_at >= joined_at_ + kJoinedGrace;
    if (!asked_since || peer.answer->cluster != record_.cluster()) continue;
    if (peer.answer->store == options_.store) continue;
    std::optional<Membership> membership = DecodeMembership(peer.answer->membership);
    if (membership->members.empty()) continue;
    if (membership->Find(options_.store) != nullptr) {
      with.insert(peer.answer->store);
    } else {
      without.emplace(peer.answer->store, peer.answer->name);
    }
    lists.push_back(*std::move(membership));
  }
  const auto majority = [](const Membership& list, const auto& among) {
    const std::vector<StoreId> voters = list.Voters();
    const auto count = std::count_if(voters.begin(), voters.end(),
                                     [&among](StoreId voter) { return among.contains(voter); });
    return 2 * static_cast<size_t>(count) > voters.size();
  };
  const auto listed = [&](const Membership& list) {
    return list.Find(options_.store) != nullptr && majority(list, with);
  };
  const auto removed = [&](const Membership& list) {
    return list.Find(options_.store) == nullptr && majority(list, without) &&
           std::none_of(with.begin(), with.end(),
                        [&list](StoreId store) { return list.Find(store) != nullptr; });
  };
  std::vector<std::string> names;
  if (std::any_of(lists.begin(), lists.end(), listed) ||
      std::none_of(lists.begin(), lists.end(), removed)) {
    return names;
  }
  for (const auto& [store, name] : without) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

// A leader lets a store in as soon as it has appended that; the entry may be lost with it, or the
// member removed before it has heard anything.
std::string Birth::LacksJoined(Instant now) const {
  const std::vector<std::string> without = SayNoMember(now);
  const std::string let_in = "let into cluster " + ToHex(record_.joined);
  if (without.empty()) return let_in + ": waiting for its leader to bring this node up to date";
  return let_in + ", whose members no longer include this store, or never did (" + List(without) +
         (without.size() == 1 ? " says" : " say") +
         " so): its leader was lost before it could commit that, or the member was removed. To be "
         "let in again where the leader does not do so by itself (discovery.dns) run `quorate "
         "member add " +
         options_.address + "` at a node of the cluster";
}

// A store that was removed, and has been started since, has nobody else to hear that from: no
// leader talks to it, and it asks nobody for a vote.
std::string Birth::LacksRemoved(Instant now) const {
  const std::vector<std::string> without = SayNoMember(now);
  return "the members of cluster " + ToHex(record_.cluster()) + " do not include this store (" +
         List(without) + (without.size() == 1 ? " says" : " say") +
         " so): it was removed. To bring it back run `quorate member add " + options_.address +
         "` at a node of the cluster; otherwise stop it";
}

std::vector<std::string> Birth::LacksBorn(Instant now) const {
  std::vector<std::string> lacks;
  if (!record_.log_created) lacks.push_back("the log is being made");
  if (record_.joined) {
    lacks.push_back(LacksJoined(now));
    return lacks;
  }
  if (const IdentifyReply* complete = CompleteIn(record_.cluster(), now)) {
    lacks.push_back("birth is complete, as " + complete->name +
                    " says: waiting for the leader to bring this node up to date");
    return lacks;
  }
  for (std::string& line : LostFounders(now)) lacks.push_back(std::move(line));
  const FoundByName found = Find(now);
  for (const Founder& founder : record_.pledge->founders) {
    if (founder.store == options_.store) continue;
    auto stores = found.find(founder.name);
    if (stores ==
        found.end()) {  // also one known as born: BirthComplete waits for its acknowledgement
      lacks.push_back(Missing(founder.name, now));
      continue;
    }
    if (known_born_.contains(founder.store)) continue;
    for (const Found& f : stores->second) {
      if (f.store != founder.store) continue;
      lacks.push_back(founder.name + " (" + f.asked + ") " +
                      (f.cluster ? "is in another cluster, " + ToHex(f.cluster)
                                 : std::string("has not recorded birth yet")));
    }
  }
  if (lacks.empty()) {
    lacks.push_back("every founder is born: waiting for a leader to commit BirthComplete");
  }
  return lacks;
}

}  // namespace quorate::raft
