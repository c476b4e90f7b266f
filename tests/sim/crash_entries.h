// A cluster's log of entries of every kind, in few of them, for the crash tests of a store
// (state_crash_test.cc): puts, deletions, of ranges, too, transactions, time-to-lives that are
// granted, bound, kept alive, over and revoked, request ids and a repeat, memberships, a session
// that ends with its member, compactions in pieces, a rollback, a setting.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"
#include "storage/state_ttl.h"
#include "tests/storage/state_fixture.h"

namespace quorate::sim {

class CrashEntries {
 public:
  CrashEntries() {
    First();
    received_from_ = script_.index();
    Second();
    received_through_ = script_.index();
    Third();
    all_ = script_.Take();
  }
  raft::EntryPtr at(raft::Index index) const { return all_.at(index.value() - 1); }
  raft::Index last() const { return raft::Index(all_.size()); }
  // The node gets entries up to here one by one, those up to there as a state.
  raft::Index received_from() const { return received_from_; }
  raft::Index received_through() const { return received_through_; }

 private:
  void Do(v1::Command command, uint32_t format = 2) {
    command.set_format(format);
    script_.Do(std::move(command));
  }
  void Compact(uint64_t revision, uint64_t rows) {
    v1::Command command;
    command.mutable_compact_history()->set_revision(revision);
    command.mutable_compact_history()->set_rows_max(rows);
    command.mutable_compact_history()->set_bytes_max(1u << 20);
    Do(command);
  }
  void Named(const std::string& id, const std::string& key) {
    v1::Command command;
    storage::testing::AddPut(command, key, id);
    command.mutable_client_request()->set_id(id);
    command.mutable_client_request()->set_revision(1);
    command.mutable_client_request()->set_command_hash(std::string(16, 'h'));
    Do(command);
  }
  uint64_t Grant(uint64_t ttl_ms) {
    v1::Command command;
    command.mutable_grant_ttl()->set_ttl_ms(ttl_ms);
    Do(command);
    return storage::TtlIdOf(ClusterId(storage::testing::kCluster), script_.index());
  }
  void Bind(uint64_t ttl, const std::string& prefix) {
    v1::Command command;
    storage::testing::AddPut(command, prefix + "1", "bound")->set_ttl_id(ttl);
    storage::testing::AddPut(command, prefix + "2", std::string(300, 'b'))->set_ttl_id(ttl);
    Do(command);
  }
  void End(uint64_t ttl, bool revoke) {
    v1::Command command;
    if (revoke) {
      command.mutable_revoke_ttl()->set_ttl_id(ttl);
    } else {
      command.mutable_expire_ttl()->add_ttl_id(ttl);
    }
    Do(command);
  }
  void Transfer(const std::string& from, const std::string& to) {
    v1::Command command;
    storage::testing::AddCompare(command, from, v1::Compare::RESULT_GREATER)->set_version(0);
    storage::testing::AddDelete(command, from);
    storage::testing::AddPut(command, to, "from " + from);
    command.mutable_transaction()->add_otherwise()->mutable_put()->set_key("none");
    command.mutable_transaction()->mutable_otherwise(0)->mutable_put()->set_value_kind(
        v1::VALUE_KIND_DATA);
    Do(command);
  }
  void Puts(const std::string& prefix, int count, size_t bytes) {
    for (int i = 0; i < count; ++i) {
      script_.Put(prefix + std::to_string(i), std::string(bytes * static_cast<size_t>(i + 1), 'v'));
    }
  }

  void First() {
    script_.Begin();
    script_.Open(0xa3, 1, 1);
    Puts("k", 4, 700);
    script_.Put("k1", "again");
    script_.Delete("k2");
    const uint64_t brief = Grant(50), revoked = Grant(60'000);
    kept_ = Grant(70'000);
    Bind(brief, "brief");
    Bind(revoked, "revoked");
    Bind(kept_, "kept");
    Named("r1", "named");
    Named("r1", "named");  // a repeat
    script_.Pass(1000);
    v1::Command alive;
    alive.mutable_keep_alive_ttl()->add_ttl_id(kept_);
    Do(alive);
    End(brief, /*revoke=*/false);
    End(revoked, /*revoke=*/true);
    Transfer("k1", "moved");
    script_.NextTerm();
    script_.Noop();
    script_.Members(storage::testing::MembersOf(
        {storage::testing::kIngress, 0xa2}));  // with 0xa3 its session goes
    Compact(5, 2);
    Compact(8, 1000);
    script_.Delete("k", "l");
  }
  void Second() {
    Puts("s", 4, 900);
    Named("r2", "second");
    left_ = Grant(100);
    Bind(left_, "left");
    Transfer("k1", "none");
    v1::Command settings;
    settings.mutable_set_settings()->set_leases(true);
    Do(settings, 3);
  }
  void Third() {
    Puts("t", 2, 500);
    script_.Pass(1000);
    End(left_, /*revoke=*/false);
    Named("r2", "second");  // known from the state that was received
    v1::Command rollback;
    rollback.mutable_rollback()->set_key("s");
    rollback.mutable_rollback()->set_range_end("t");
    rollback.mutable_rollback()->set_to_revision(18);
    Do(rollback, 3);
    Compact(12, 1000);
    End(kept_, /*revoke=*/true);
    script_.Delete("s0", "s2");
  }

  storage::testing::Script script_;
  uint64_t kept_ = 0, left_ = 0;
  raft::Index received_from_, received_through_;
  std::vector<raft::EntryPtr> all_;
};

}  // namespace quorate::sim
