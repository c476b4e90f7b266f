// Replays the committed log with a model of the store and holds every answer against it.
//
//   The log       each command's outcome at the first node that applies it (executed, a repeat,
//                 refused by its session; the whole answer) is the model's. The nodes agree among
//                 themselves by the state hash (RaftChecker).
//   Reads         every answer names its revision: what it shows is the whole store's state there,
//                 of as many keys as it shows, so that nobody sees half of a transaction; a read of
//                 the past is the past, and is refused only where history is compacted.
//   Real time     a read shows everything that was acknowledged before it was asked (a local one:
//                 before the moment that it measured); no process goes back.
//   Time-to-lives none is over before its time has passed since the call that began it, or kept it
//                 alive, was made, by the fastest clock that the run allows; and in the end all
//                 are.
//
// Together with exactly-once (History) the first three make the store strictly serializable: one
// order, each answer the model's at its place in it, and no place before an earlier answer's.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "raft/core/membership.h"
#include "raft/core/types.h"
#include "storage/state.h"
#include "tests/sim/plan.h"
#include "tests/sim/reads.h"
#include "tests/sim/report.h"
#include "tests/sim/store_model.h"

namespace quorate::sim {

// Which entries a session's rule lets through: a picture of its own (DESIGN.md, "Exactly once").
class SessionModel {
 public:
  explicit SessionModel(Report* report) : report_(report) {}
  void OnMembership(const raft::Membership& membership);
  // What becomes of OpenSession, and whether it is a repeat.
  storage::Refusal Open(const v1::OpenSession& open, bool* again);
  storage::Refusal Check(const v1::SessionPosition& position) const;
  // REQUIRES: Check said kNone.
  bool IsRepeat(const v1::SessionPosition& position) const;
  // The kept answer's facts; nullopt: nothing is kept any more.
  std::optional<uint64_t> KeptAnswer(const v1::SessionPosition& position) const;
  // It was a repeat, or executed with this answer.
  void Take(const v1::SessionPosition& position, std::optional<uint64_t> answer);

 private:
  struct Session {
    uint64_t boot = 0, nonce = 0;
    uint64_t last = 0;
    uint64_t answered = 0;
    std::map<uint64_t, uint64_t> answers;  // by sequence
  };
  Report* report_;
  raft::Membership membership_;
  std::map<uint64_t, Session> sessions_;  // by store
};

class StoreChecker {
 public:
  StoreChecker(const Plan& plan, const EventQueue* events, Failure* failure, Report* report);

  // --- The log ---

  // An entry's turn, in order, each once. `outcome`: what the node that applies it says has become
  // of it; null: nobody has said (that node's process ended over it), but an answer may be `kept`.
  // True: it is a command that was executed now, or repeated by its request id.
  bool Replay(const raft::Entry& entry, const storage::Applied* outcome,
              const std::string* kept = nullptr);
  raft::Index applied() const { return applied_; }
  // The log begins again; nothing but births has been in it.
  void OnBegunAgain();
  // Of the last Replay that was true.
  const v1::Command& command() const { return command_; }
  const v1::Answer& answer() const { return answer_; }
  uint64_t facts() const { return facts_; }
  StoreModel::Verdict verdict() const { return verdict_; }

  const StoreModel& model() const { return model_; }
  // All changes of a revision, in order; null: nobody has applied it.
  const std::vector<StoreModel::Change>* ChangesOf(uint64_t revision) const {
    return revision < changes_.size() ? &changes_[revision] : nullptr;
  }
  // Of all keys that begin so; what is not there is left out.
  std::map<std::string, const StoreModel::Version*> StateAt(const std::string& prefix,
                                                            uint64_t revision) const;

  // --- Clients ---

  // An entry of this term began a time-to-live's time (again); its client asked for it at `called`.
  void OnRenewed(uint64_t ttl, uint64_t ttl_ms, Micros called, raft::Term term);
  // Somebody has been told that the store is at this revision.
  void Acknowledge(uint64_t revision);
  uint64_t acknowledged() const { return told_.empty() ? 1 : told_.back().second; }
  // What had been acknowledged before that moment.
  uint64_t AcknowledgedBefore(Micros at) const;
  // A store, from its first start on, shows nothing that is older than what had been acknowledged
  // then; or, where that was earlier, before the moment as of which it first caught up.
  void OnStoreSeen(StoreId store) { whole_.try_emplace(store, acknowledged()); }
  void OnCaughtUp(StoreId store, Micros as_of) {
    uint64_t& floor = whole_.at(store);
    floor = std::min(floor, AcknowledgedBefore(as_of));
  }
  // It says so for ever: what it shows is never again older than its first whole state, of `as_of`.
  void OnCaughtUpRecorded(StoreId store, Micros as_of) {
    uint64_t& floor = whole_.at(store);
    floor = std::max(floor, AcknowledgedBefore(as_of));
  }
  // Damage has taken a part of it away; with the log all comes again.
  void OnStateLost(StoreId store) { whole_[store] = 1; }
  // `floor`: what had been acknowledged when it was asked.
  void JudgeRead(uint64_t operation, const ReadQuestion& question, const ReadAnswer& answer,
                 uint64_t floor);

  // What its state machine remembers of request ids: the light one so little that a run reaches
  // what the production does after ten minutes or a million writes.
  static StoreLimits LimitsOf(const Plan& plan);
  // What an answer says, without its wording.
  static uint64_t FactsOf(const v1::Answer& answer);

 private:
  void Fail(const std::string& what) { failure_->Fail(what); }
  void FailAt(const raft::Entry& entry, const std::string& what);
  void Compare(const raft::Entry& entry, const storage::Applied* outcome, storage::Refusal refusal,
               bool repeat, std::optional<uint64_t> answer);
  void CountCommand();
  void JudgeEnds(const raft::Entry& entry);
  uint64_t WholeFrom(StoreId store) const {
    const auto found = whole_.find(store);
    return found == whole_.end() ? 1 : found->second;
  }
  // Empty: all is well.
  std::string WrongIn(const ReadQuestion& question, const ReadAnswer& answer) const;
  std::string WrongItems(const ReadQuestion& question, const ReadAnswer& answer, uint64_t at) const;
  std::string WrongHistory(const ReadQuestion& question, const ReadAnswer& answer,
                           uint64_t at) const;

  const Plan& plan_;
  const EventQueue* const events_;
  Failure* const failure_;
  Report* const report_;

  raft::Index applied_;
  ClusterId cluster_;
  SessionModel sessions_;
  StoreModel model_;
  std::deque<std::vector<StoreModel::Change>> changes_;  // by revision
  v1::Command command_;
  v1::Answer answer_, told_answer_;
  uint64_t facts_ = 0;
  StoreModel::Verdict verdict_ = StoreModel::Verdict::kNotKept;

  struct Life {
    uint64_t ttl_ms = 0;
    Micros since = 0;  // the latest call that began it again
    raft::Term term;   // of that entry
  };
  std::map<uint64_t, Life> lives_;
  std::vector<std::pair<Micros, uint64_t>> told_;  // when which revision became known to somebody
  struct Shown {
    uint64_t life = 0;
    uint64_t revision = 0;
  };
  std::map<size_t, Shown> shown_;      // by machine
  std::map<StoreId, uint64_t> whole_;  // what each shows at the least
};

}  // namespace quorate::sim
