// A random log from a seed: puts, deletions, ranges, transactions, retries, gaps, new sessions,
// memberships. The same seed gives the same entries.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "storage/state_ttl.h"
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

  // One of the latest grants, or of those that were refused.
  uint64_t Ttl() {
    if (grants_.empty() || Below(10) == 0) return 1 + Below(3);
    return grants_[grants_.size() - 1 - Below(std::min<size_t>(grants_.size(), 4))];
  }

  void MakeTtl() {
    v1::Command command;
    switch (Below(6)) {
      case 0:
      case 1:
        command.mutable_grant_ttl()->set_ttl_ms(1 + Below(300));
        grants_.push_back(TtlIdOf(ClusterId(kCluster), script_.index() + 1));
        break;
      case 2:
        for (uint64_t i = 1 + Below(3); i > 0; --i)
          command.mutable_keep_alive_ttl()->add_ttl_id(Ttl());
        break;
      case 3:
        command.mutable_revoke_ttl()->set_ttl_id(Ttl());
        break;
      default:
        command.mutable_expire_ttl();
        for (uint64_t i = Below(8); i > 0; --i) command.mutable_expire_ttl()->add_ttl_id(Ttl());
    }
    Send(command, last_ + 1);
  }

  void MakeOne() {
    switch (Below(46)) {
      case 40:
      case 41:
      case 42:
      case 43:
        return MakeTtl();
      case 44:
      case 45: {
        v1::Command command;
        AddPut(command, Key(), Value())->set_ttl_id(Ttl());
        if (Below(2) == 0) AddPut(command, Key(), Value())->set_ttl_id(Ttl());
        return Send(command, last_ + 1);
      }
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
  std::vector<uint64_t> grants_;
};

}  // namespace quorate::storage::testing
