// A random log from a seed: puts, deletions, ranges, transactions, retries, gaps, new sessions,
// memberships. The same seed gives the same entries.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/storage/state_fixture.h"

namespace quorate::storage::testing {

class Workload {
 public:
  explicit Workload(uint64_t seed) : random_(seed) {
    script_.Members(MembersOf({kIngress, 0xa2, 0xa3}));
    script_.BirthComplete();
    script_.Open();
  }

  // Makes `count` more entries.
  void Make(size_t count) {
    for (size_t i = 0; i < count; ++i) MakeOne();
  }
  std::vector<raft::EntryPtr> Take() { return script_.Take(); }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  std::string Key() { return "k" + std::to_string(Below(40)); }
  std::string Value() { return std::string(Below(60), static_cast<char>('a' + Below(26))); }

  v1::Command Command() {
    v1::Command command;
    if (Below(4) == 0) command.set_author("author" + std::to_string(Below(3)));
    if (Below(4) == 0) command.set_note(Value());
    v1::Transaction& transaction = *command.mutable_transaction();
    for (uint64_t i = Below(2); i > 0; --i) {
      v1::Compare* compare =
          AddCompare(command, Key(), static_cast<v1::Compare::Result>(1 + Below(4)));
      if (Below(2) == 0)
        compare->set_version(Below(4));
      else
        compare->set_value(Value());
    }
    transaction.set_abort_on_false(Below(2) == 0);
    for (uint64_t i = 1 + Below(3); i > 0; --i) {
      if (Below(5) == 0) {
        AddDelete(command, Key());
      } else if (Below(20) == 0) {
        AddDelete(command, Key(), Key());
      } else {
        AddPut(command, Key(), Value(), Below(2) == 0 ? v1::VALUE_KIND_TEXT : v1::VALUE_KIND_DATA);
      }
    }
    if (Below(3) == 0) transaction.mutable_otherwise()->CopyFrom(transaction.then());
    return command;
  }

  void MakeOne() {
    switch (Below(40)) {
      case 0:
        script_.NextTerm();
        script_.Noop();
        return;
      case 1:
        script_.Members(MembersOf(Below(2) == 0 ? std::vector<uint64_t>{kIngress, 0xa2, 0xa3}
                                                : std::vector<uint64_t>{kIngress, 0xa3}));
        return;
      case 2:
        script_.Open(0xa2, Below(5), Below(3));
        return;
      case 3:  // the next session of the ingress
        if (Below(5) == 0) {
          ++boot_;
          last_ = answered_ = 0;
        }
        script_.Open(kIngress, boot_, kNonce);
        return;
      case 4: {
        v1::Command skip;
        skip.mutable_skip();
        Send(skip, last_ + 1);
        return;
      }
      case 5:
      case 6:  // a retry
        Send(Command(), 1 + Below(last_ + 1));
        return;
      case 7:  // a gap
        Send(Command(), last_ + 2 + Below(3));
        return;
      case 8: {  // a session that is not there, or one of 0xa2's
        v1::Command command = Command();
        *command.mutable_session() =
            Script::Position(1 + Below(3), Below(3), 0xa2, Below(5), Below(3));
        script_.Raw(command);
        return;
      }
      default:
        Send(Command(), last_ + 1);
    }
  }

  void Send(v1::Command command, uint64_t sequence) {
    if (sequence == last_ + 1) ++last_;
    if (Below(3) == 0) answered_ += Below(last_ - answered_ + 1);
    *command.mutable_session() = Script::Position(sequence, answered_, kIngress, boot_, kNonce);
    script_.Raw(std::move(command));
  }

  std::mt19937_64 random_;
  Script script_;
  uint64_t boot_ = kBoot;
  uint64_t last_ = 0, answered_ = 0;
};

}  // namespace quorate::storage::testing
