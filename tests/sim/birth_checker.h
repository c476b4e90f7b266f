// Judges births, apart from the code that it judges: fed with what is durable in identity files,
// what is applied, and what processes say of themselves.
//
//   * a store's pledge only moves upwards; one round of one proposer means one thing everywhere
//   * a store is born, or let in, at most once, and neither is ever forgotten
//   * the disks that there are belong to one cluster at most; once its birth is complete, for ever
//   * it is born by its founders: each with the store that was in the machine of that name
//   * nobody is let in, and no client's write is applied, before birth is complete
//   * nobody says without "in a minute" that it is safe to begin again once a client's write was
//     applied
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "raft/birth.h"
#include "raft/birth_record.h"
#include "raft/core/ready.h"
#include "storage/identity.h"
#include "tests/sim/machine.h"
#include "tests/sim/report.h"

namespace quorate::sim {

class BirthChecker {
 public:
  explicit BirthChecker(Failure* failure) : failure_(failure) {}

  // The founders, as they ought to be configured.
  void SetFounders(std::vector<std::string> names);

  // The identity file is durable as it is: after each change, and as a start finds it.
  void OnRecorded(const Machine& machine, StoreId store, const storage::Identity& identity);
  void OnStatus(const Machine& machine, const raft::BirthStatus& status);
  void OnAppend(const raft::Persist& persist);
  void OnApplied(StoreId store, const std::vector<raft::EntryPtr>& entries);
  void OnWiped(StoreId store);
  // Every founder was emptied, because a lost one had stopped birth.
  void OnBegunAgain();

  // BirthComplete was applied somewhere.
  bool complete() const { return static_cast<bool>(complete_); }
  // On some disk that there is.
  bool AnybodyBorn() const;
  // Before that: whether this machine's disk may be lost, so that at worst birth has to begin
  // again.
  bool MayLose(const Machine& machine) const;

 private:
  struct Store {
    std::string name;
    bool gone = false;  // with its disk
    raft::Pledge pledge;
    ClusterId cluster;
    bool joined = false;
    std::string payload;  // of the first entry; empty when let in
  };

  void Fail(const std::string& name, const std::string& what);
  void JudgeRecord(const Store& store, const raft::BirthRecord& record);
  void JudgeBorn(const Store& store);
  void JudgeFounders(const Store& store);

  Failure* const failure_;
  std::vector<std::string> founders_;  // in order
  std::map<StoreId, Store> stores_;
  std::map<raft::Pledge, raft::Proposal> proposals_;
  ClusterId complete_;
  bool written_ = false;           // a client's write was applied
  bool completing_ = false;        // some log holds BirthComplete
  bool lost_since_birth_ = false;  // a founder was wiped after somebody was born
};

}  // namespace quorate::sim
