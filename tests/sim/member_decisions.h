// What the operators have decided of the members and nobody may undo by himself: whom they have
// demoted and not promoted since, whom they have taken out and not added since.
//
// An answer may come long after what it is about: a leader that stands still refuses, once it goes
// on, what others have decided anew in the meantime. So an answer says nothing of a store of which
// a later one has been heard.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "raft/core/membership_change.h"

namespace quorate::sim {

class MemberDecisions {
 public:
  struct Asked {
    std::vector<StoreId> all, adds, demotes, removes;
    std::vector<StoreId> pardons, returns;  // what was decided of them before
    uint64_t number = 0;
  };

  // An operator asks for it. `caught_up`: whoever asks that store hears that it has caught up once;
  // one that does not say so may be let in again.
  Asked Ask(const raft::MembershipChange& change, const std::function<bool(StoreId)>& caught_up);
  // The answer to it.
  void End(const Asked& asked, raft::ChangeStatus status);

  bool demoted(StoreId store) const { return demoted_.contains(store); }
  bool taken_out(StoreId store) const { return taken_out_.contains(store); }

 private:
  void Settle(const Asked& asked);

  std::set<StoreId> demoted_, taken_out_;
  std::map<StoreId, int> asked_;  // how many answers are to come
  // What a refusal brings back once none is: by the number of the request that was refused.
  std::map<StoreId, uint64_t> held_demoted_, held_out_;
  uint64_t answers_ = 0;
  std::map<StoreId, uint64_t> decided_;  // the latest answer by which something was done, perhaps
};

}  // namespace quorate::sim
