// Who reaches whom among the members, and how fast: what the calls of Identify show, which every
// node makes to every member every two seconds anyway (raft::Birth looks for doubles so). Each call
// carries what its sender knows of its own links, and so does each answer: a node hears of another
// one as long as one of the two reaches the other.
//
// Reached means that a call was answered: a way for new TCP connections. A firewall that lets them
// through in one direction only shows as a one-way link; what drops packets one way breaks the
// connections of both directions, and shows as that.
//
// Any thread.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "raft/core/membership.h"

namespace quorate::services {

struct Link {
  StoreId to;
  bool reached = false;
  Duration round_trip{};  // of the latest answer; when reached
  friend bool operator==(const Link&, const Link&) = default;
};
// By the store that reports them; each list in the order of the stores.
using LinksByStore = std::map<StoreId, std::vector<Link>>;

class Links {
 public:
  explicit Links(StoreId self) : self_(self) {}

  // What is known of others than members is forgotten, and nothing of them is kept.
  void SetMembers(const raft::Membership& membership, Instant now);
  // `from` has answered this node, or asked it; with its own links.
  void OnAnswer(StoreId from, Duration round_trip, std::vector<Link> theirs, Instant now);
  void OnQuestion(StoreId from, std::vector<Link> theirs, Instant now);

  // This node's, to the other members; without those that have not had the time to answer yet.
  std::vector<Link> Own(Instant now) const;
  // This node's, and those of all of whom it has heard lately.
  LinksByStore All(Instant now) const;

  // Older news say nothing: more than two rounds of questions, and what a call takes at most.
  static constexpr Duration kFresh = std::chrono::seconds(6);

 private:
  struct Member {
    Instant since;
    Instant answered;  // never: the zero instant
    Duration round_trip{};
    Instant reported;
    std::vector<Link> theirs;
  };
  std::vector<Link> OwnLocked(Instant now) const;  // REQUIRES: mutex_ held
  void Report(Member* member, std::vector<Link> theirs, Instant now);

  const StoreId self_;
  mutable std::mutex mutex_;  // protects what follows
  std::map<StoreId, Member> members_;
};

// One sentence for each pair of members of which one reaches the other, and not the other way
// round; in the order of the stores.
std::vector<std::string> OneWayLinks(const LinksByStore& links, const raft::Membership& membership);

}  // namespace quorate::services
