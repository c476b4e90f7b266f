// Random histories of small clusters, each from a seed: messages lost, doubled, late and out of
// order; slow disks, crashes in the middle of a write, state machines that fall back; partitions,
// pauses, clocks that have nothing in common. The oracle judges every step; in the end everything
// is healed and the cluster must take writes again, with one log and one state everywhere. In half
// of them members come and go, and leadership is handed over, all the while.
//
// A failure names its seed; QUORATE_RANDOM_SEED=N runs that one alone, and tells its story.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "raft/core/random.h"
#include "tests/raft/core_cluster.h"
#include "tests/sanitizer_share.h"

namespace quorate::raft::testing {
namespace {

using std::chrono::milliseconds;

struct Totals {
  uint64_t commits = 0;
  uint64_t terms = 0;
  uint64_t restarts = 0;
  uint64_t reads = 0;
  uint64_t cuts = 0;
  uint64_t compactions = 0;
  uint64_t installs = 0;
  TestNode::ReadTotals linearizable;
  uint64_t joint = 0;      // changes of the voters that a leader began
  uint64_t plain = 0;      // changes of learners
  uint64_t refused = 0;    // changes
  uint64_t transfers = 0;  // begun
  uint64_t ended = 0;      // joint phases that were committed and left
  uint64_t exchanged = 0;  // histories that end with other voters than they began with
};

class History {
 public:
  // `changes`: of members and leaders.
  History(uint64_t seed, bool changes) : random_(seed), changes_(changes), cluster_(MakeCluster()) {
    if (std::getenv("QUORATE_RANDOM_SEED") != nullptr) cluster_.set_trace(&std::cout);
    // Half of the clusters do not agree on how long they wait for a leader.
    mixed_timeouts_ = random_.Between(0, 1) == 0;
    for (TestNode* node : cluster_.nodes()) {
      node->set_clock_offset(milliseconds(random_.Between(0, 1000000)));
      node->set_recovered_window_bytes(random_.Between(0, 2000));
      if (mixed_timeouts_) DrawTimeouts(node);
    }
    if (random_.Between(0, 3) == 0) GiveAJointMembership();
    cluster_.StartAll();
    const bool leases = random_.Between(0, 1) == 0;
    for (TestNode* node : cluster_.nodes()) {
      SetSpeed(node);
      node->set_leases(leases);
    }
  }

  bool Run(int steps, Totals* totals) {
    for (int i = 0; i < steps && !cluster_.failed(); ++i) {
      Step(totals);
      if (i % 16 == 0) Judge();
    }
    Judge();
    if (!cluster_.failed()) Heal(totals);
    totals->commits += cluster_.oracle().committed().size();
    CountEndedChanges(totals);
    for (TestNode* node : cluster_.nodes()) {
      totals->cuts += node->cuts();
      totals->installs += node->installs();
      totals->linearizable.confirmed += node->read_totals().confirmed;
      totals->linearizable.by_lease += node->read_totals().by_lease;
      totals->linearizable.failed += node->read_totals().failed;
      if (node->up()) totals->terms = std::max(totals->terms, node->core().term().value());
    }
    return !cluster_.failed();
  }

 private:
  void DrawTimeouts(TestNode* node) {
    CoreOptions& options = node->options();
    options.election_timeout_min = milliseconds(random_.Between(60, 200));
    options.election_timeout_max =
        options.election_timeout_min + milliseconds(random_.Between(50, 200));
  }

  Cluster MakeCluster() {
    CoreOptions options;
    options.seed = random_.Next();
    options.append_bytes_max = random_.Between(64, 1000);
    options.window_bytes_max = random_.Between(100, 2000);
    options.inflight_bytes_max = random_.Between(100, 3000);
    options.inflight_messages_max = random_.Between(1, 8);
    options.uncommitted_bytes_max = random_.Between(300, 5000);
    options.apply_bytes_max = random_.Between(64, 1000);
    compacting_ = random_.Between(0, 2) > 0;
    options.reads_max = random_.Between(1, 20);
    options.read_rounds_max = random_.Between(1, 4);
    std::vector<std::string> voters{"a", "b", "c", "d", "e"};
    voters.resize(random_.Between(2, 5));
    std::vector<std::string> learners;
    if (random_.Between(0, 3) == 0) learners.push_back("l");
    std::vector<std::string> spares;
    if (changes_) {
      spares = {"s", "t"};
      // A disk that hangs is seldom noticed otherwise: these histories last a few seconds.
      options.flush_stall_max = milliseconds(random_.Between(20, 500));
      options.stall_transfer_interval = milliseconds(random_.Between(0, 1000));
    }
    return Cluster(voters, learners, options, spares);
  }

  // Some logs end with a joint membership that is not committed.
  void GiveAJointMembership() {
    Membership membership = cluster_.birth_membership();
    membership.joint = true;
    for (Member& member : membership.members) {
      member.outgoing_voter = member.voter;
      member.voter = random_.Between(0, 2) > 0;
    }
    membership.members[0].voter = true;
    const EntryPtr entry = MakeMembershipEntry(Index(2), Term(1), membership);
    for (TestNode* node : cluster_.nodes()) {
      if (node->disk().log.size() == 1 && random_.Between(0, 1) == 0) {
        node->disk().log.push_back(entry);
      }
    }
  }

  bool Chance(uint64_t percent) { return random_.Between(1, 100) <= percent; }
  TestNode* Pick() { return cluster_.nodes()[random_.Between(0, cluster_.nodes().size() - 1)]; }
  void SetSpeed(TestNode* node) {
    node->set_slow_disk(Chance(60));
    node->set_slow_apply(Chance(30));
    node->set_slow_reads(Chance(50));
    node->set_slow_snapshots(Chance(50));
  }

  void Judge() {
    cluster_.oracle().CheckLogMatching();
    for (TestNode* node : cluster_.nodes()) {
      if (node->up()) cluster_.oracle().CheckFreshness(*node);
    }
  }

  void DeliverSome() {
    auto& network = cluster_.network();
    if (network.empty()) return;
    const size_t at = Chance(70) ? 0 : random_.Between(0, network.size() - 1);
    const Message message = network[at];
    TestNode* to = cluster_.Find(message.to);
    if (to->up() && to->paused()) return;
    network.erase(network.begin() + static_cast<std::ptrdiff_t>(at));
    if (Chance(3)) return;
    if (Chance(4)) network.push_back(message);
    if (Chance(1)) network.push_front(message);
    cluster_.Deliver(message);
  }

  void Crash(TestNode* node) {
    // The state machine falls back to something between what it last made durable and what it
    // shows.
    const Index durable = node->disk().applied;
    node->disk().applied =
        Index(random_.Between(durable.value(), std::max(durable, node->state_index()).value()));
    const size_t hand_overs = random_.Between(0, node->pending_persists());
    std::optional<size_t> entries;
    if (Chance(50)) entries = random_.Between(0, 3);
    node->CrashAfterWriting(hand_overs, entries);
  }

  void Restart(TestNode* node, Totals* totals) {
    ++totals->restarts;
    node->set_recovered_window_bytes(random_.Between(0, 2000));
    // Its configuration may have changed: what its last process promised holds all the same.
    if (mixed_timeouts_ && Chance(50)) DrawTimeouts(node);
    node->Start();
    SetSpeed(node);
    if (node->core().persisted() < node->core().commit()) cluster_.Fail("starts in the future");
  }

  void Local(TestNode* node, Totals* totals) {
    if (!node->up() || node->paused()) return;
    switch (random_.Between(0, 7)) {
      case 6:
        node->SendSnapshot();
        break;
      case 7:
        if (Chance(5)) node->FailSnapshots();
        if (compacting_) CompactSome(node, totals);
        break;
      case 0:
      case 1:
      case 2:
        node->PersistNext(random_.Between(1, 3), Chance(80));
        break;
      case 3:
        node->ApplyNext();
        break;
      case 4:
        if (node->AnswerRead()) ++totals->reads;
        break;
      case 5:
        node->ReportTicket(Ticket(random_.Between(0, node->durable_ticket().value())));
        break;
    }
  }

  // A checkpoint made durable what is applied, and the log goes as far as that allows, or less.
  void CompactSome(TestNode* node, Totals* totals) {
    Disk& disk = node->disk();
    disk.applied = std::max(disk.applied, node->core().applied());
    const uint64_t lowest = Chance(70) ? disk.applied.value() : disk.first.value() - 1;
    const Index through(random_.Between(lowest, disk.applied.value()));
    if (through + 1 > disk.first) ++totals->compactions;
    node->Compact(through);
  }

  void ProposeSome() {
    for (TestNode* node : cluster_.nodes()) {
      if (!node->up() || node->paused() || node->core().role() != Role::kLeader) continue;
      std::vector<std::string> payloads;
      for (uint64_t i = random_.Between(1, 4); i > 0; --i) {
        payloads.push_back(std::to_string(next_payload_++) +
                           std::string(random_.Between(0, Chance(5) ? 1500 : 60), '.'));
      }
      node->Propose(std::move(payloads));
    }
  }

  void ReadSome() {
    for (TestNode* node : cluster_.nodes()) {
      if (!node->up() || node->paused() || Chance(50)) continue;
      if (!node->core().leader() && Chance(95)) continue;
      node->RequestRead(Chance(50) ? ReadMode::kRound : ReadMode::kLease);
    }
  }

  MemberStep RandomStep(const Membership& membership) {
    TestNode* node = Pick();
    const Member* member = membership.Find(node->id());
    MemberStep step;
    step.store = node->id();
    step.name = node->name();
    if (member == nullptr) {
      step.kind = MemberStep::Kind::kAddLearner;
    } else if (!member->voter && Chance(80)) {
      step.kind = MemberStep::Kind::kPromote;
    } else {
      step.kind = Chance(40) ? MemberStep::Kind::kDemote : MemberStep::Kind::kRemove;
    }
    return step;
  }

  void ChangeSome(Totals* totals) {
    for (TestNode* node : cluster_.nodes()) {
      if (!node->up() || node->paused() || node->core().role() != Role::kLeader) continue;
      if (Chance(25)) {
        const StoreId target = Chance(50) ? StoreId() : Pick()->id();
        if (node->HandOver(target) == TransferStatus::kStarted) ++totals->transfers;
        continue;
      }
      MembershipChange change;
      change.force = Chance(20);
      for (uint64_t i = Chance(60) ? 1 : random_.Between(2, 3); i > 0; --i) {
        change.steps.push_back(RandomStep(node->core().membership()));
      }
      if (node->Change(change).status != ChangeStatus::kAccepted) {
        ++totals->refused;
      } else if (node->up() && node->core().membership().joint) {
        ++totals->joint;
      } else {
        ++totals->plain;
      }
    }
  }

  void CountEndedChanges(Totals* totals) {
    bool joint = false;
    std::vector<StoreId> voters;
    for (const auto& [index, entry] : cluster_.oracle().committed()) {
      if (entry->type != EntryType::kMembership) continue;
      const Membership membership = *DecodeMembership(entry->payload);
      if (joint && !membership.joint) ++totals->ended;
      if (joint && membership.joint) cluster_.Fail("two joint memberships in a row");
      joint = membership.joint;
      voters = membership.Voters();
    }
    if (!voters.empty() && voters != cluster_.birth_membership().Voters()) ++totals->exchanged;
  }

  void Disturb(Totals* totals) {
    TestNode* node = Pick();
    switch (random_.Between(0, 5)) {
      case 0:
        if (node->up()) Crash(node);
        break;
      case 1:
      case 2:
        for (TestNode* any : cluster_.nodes()) {
          if (!any->up() && Chance(60)) Restart(any, totals);
        }
        break;
      case 3: {
        // A leader alone with its proposals leaves entries behind that must go.
        TestNode* leader = cluster_.Leader();
        if (leader != nullptr && Chance(70)) {
          std::vector<std::string> others;
          for (TestNode* any : cluster_.nodes()) {
            if (any != leader) others.push_back(any->name());
          }
          cluster_.Partition({{leader->name()}, others});
          ProposeSome();
          break;
        }
        std::vector<std::vector<std::string>> groups(2);
        for (TestNode* any : cluster_.nodes()) groups[random_.Between(0, 1)].push_back(any->name());
        cluster_.Partition(groups);
        break;
      }
      case 4:
        cluster_.Partition({});
        break;
      case 5:
        node->set_paused(!node->paused());
        SetSpeed(node);
        break;
    }
  }

  void Step(Totals* totals) {
    const uint64_t what = random_.Between(1, 1000);
    if (changes_ && Chance(8)) ChangeSome(totals);
    if (what <= 500) {
      for (uint64_t i = random_.Between(1, 5); i > 0 && !cluster_.failed(); --i) DeliverSome();
    } else if (what <= 780) {
      Local(Pick(), totals);
    } else if (what <= 900) {
      const milliseconds step(random_.Between(0, Chance(10) ? 200 : 20));
      cluster_.FireTimersUntil(cluster_.now() + step, false);
    } else if (what <= 945) {
      ProposeSome();
    } else if (what <= 975) {
      ReadSome();
    } else if (what <= 978) {
      // A while without trouble, so that those who can hear each other leave the others behind.
      QuietWhile(totals);
    } else if (!changes_ || Chance(30)) {
      Disturb(totals);  // less often where leaders are to stay long enough to change something
    }
  }

  void QuietWhile(Totals* totals) {
    for (TestNode* node : cluster_.nodes()) {
      node->set_paused(false);
      while (node->up() && node->PersistNext()) {
      }
    }
    cluster_.Run(milliseconds(400));
    for (uint64_t i = random_.Between(0, 8); i > 0; --i) {
      ProposeSome();
      for (TestNode* node : cluster_.nodes()) {
        cluster_.Settle();
        while (node->up() && (node->PersistNext() || node->ApplyNext())) {
        }
      }
    }
    TestNode* const leader = cluster_.Leader();
    if (compacting_ && leader != nullptr) CompactSome(leader, totals);
  }

  // A store that was removed and does not know it may have a higher term, and keeps it for itself.
  TestNode* LeaderOfMembers() {
    TestNode* leader = nullptr;
    for (TestNode* node : cluster_.nodes()) {
      if (node->core().role() != Role::kLeader) continue;
      if (leader != nullptr) cluster_.Fail("two leaders in peace");
      leader = node;
    }
    return leader;
  }

  void Heal(Totals* totals) {
    cluster_.Partition({});
    for (TestNode* node : cluster_.nodes()) {
      node->set_paused(false);
      node->set_slow_disk(false);
      node->set_slow_apply(false);
      node->set_slow_reads(false);
      node->set_slow_snapshots(false);
      if (!node->up()) node->Start();
      while (node->PersistNext() || node->AnswerRead() || node->ApplyNext() ||
             node->SendSnapshot()) {
      }
      node->ReportTicket(node->durable_ticket());
      if (compacting_) CompactSome(node, totals);
    }
    cluster_.Run(milliseconds(3000));
    TestNode* leader = changes_ ? LeaderOfMembers() : cluster_.Leader();
    if (leader == nullptr) return cluster_.Fail("no leader after everything was healed");
    const auto [accepted, status] = leader->Propose({"the last one"});
    if (accepted != 1) return cluster_.Fail("the healed leader takes no proposal");
    cluster_.Run(milliseconds(400));
    const Index last = leader->core().last_index();
    if (leader->core().membership().joint) cluster_.Fail("a joint phase that nobody ends");
    for (TestNode* node : cluster_.nodes()) {
      if (leader->core().membership().Find(node->id()) == nullptr) continue;
      if (node->core().applied() != last) {
        cluster_.Fail(node->name() + " has applied " + ToString(node->core().applied()) + " of " +
                      ToString(last));
      }
      if (node->state() != leader->state()) cluster_.Fail("two states at one index");
      if (node->core().ignored_messages() != 0) cluster_.Fail("a message of ours was ignored");
    }
    for (TestNode* node : cluster_.nodes()) {
      if (leader->core().membership().Find(node->id()) == nullptr) continue;
      if (node->unanswered_reads() > 0) cluster_.Fail(node->name() + " has forgotten a read");
      const uint64_t before = node->read_totals().confirmed;
      node->RequestRead(ReadMode::kRound);
      cluster_.Settle();
      if (node->read_totals().confirmed != before + 1) {
        cluster_.Fail(node->name() + " cannot read after everything was healed");
      }
    }
    for (const PeerView& peer : leader->core().peers()) {
      if (peer.lost_data || !peer.active) cluster_.Fail("a false alarm about a peer");
      if (peer.match != last) cluster_.Fail("a peer has everything and the leader does not know");
    }
    Judge();
  }

  Random random_;
  const bool changes_;
  bool compacting_ = false;  // set by MakeCluster
  bool mixed_timeouts_ = false;
  Cluster cluster_;
  uint64_t next_payload_ = 0;
};

Totals RunHistories(bool changes, uint64_t count, int steps) {
  const char* only = std::getenv("QUORATE_RANDOM_SEED");
  const uint64_t first = only != nullptr ? std::stoull(only) : 1;
  const uint64_t last = only != nullptr ? first : count;
  Totals totals;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (!History(seed, changes).Run(steps, &totals)) {
      ADD_FAILURE() << "QUORATE_RANDOM_SEED=" << seed;
      break;
    }
  }
  std::cout << totals.commits << " commits, " << totals.restarts << " restarts, " << totals.reads
            << " reads, " << totals.cuts << " cuts, " << totals.compactions << " compactions, "
            << totals.installs << " snapshots installed, highest term " << totals.terms
            << "; linearizable reads: " << totals.linearizable.confirmed << " confirmed, "
            << totals.linearizable.by_lease << " of them by lease, " << totals.linearizable.failed
            << " failed\n";
  return totals;
}

TEST(RandomCluster, KeepsItsPromises) {
  constexpr uint64_t kHistories = SanitizerShare(250);
  const Totals totals = RunHistories(false, kHistories, 3000);
  if (std::getenv("QUORATE_RANDOM_SEED") != nullptr || ::testing::Test::HasFailure()) return;
  // The histories are eventful, or they would prove little.
  EXPECT_GT(totals.commits, 10 * kHistories);
  EXPECT_GT(totals.restarts, kHistories);
  EXPECT_GT(totals.reads, kHistories);
  EXPECT_GT(totals.cuts, kHistories / 4);
  EXPECT_GT(totals.compactions, 5 * kHistories);
  EXPECT_GT(totals.installs, kHistories / 2);
  EXPECT_GE(totals.terms, 10u);
  EXPECT_GT(totals.linearizable.confirmed, 4 * kHistories);
  EXPECT_GT(totals.linearizable.by_lease, kHistories / 8);
  EXPECT_GT(totals.linearizable.failed, kHistories);
}

TEST(RandomCluster, KeepsThemWhileMembersAndLeadersChange) {
  constexpr uint64_t kHistories = SanitizerShare(100);
  const Totals totals = RunHistories(true, kHistories, 6000);
  if (std::getenv("QUORATE_RANDOM_SEED") != nullptr || ::testing::Test::HasFailure()) return;
  std::cout << totals.joint << " joint and " << totals.plain << " plain changes, " << totals.refused
            << " refused, " << totals.ended << " joint phases ended, " << totals.exchanged
            << " histories end with other voters, " << totals.transfers << " transfers\n";
  EXPECT_GT(totals.commits, 10 * kHistories);
  EXPECT_GT(totals.restarts, kHistories);
  EXPECT_GT(totals.cuts, kHistories / 4);
  EXPECT_GT(totals.installs, kHistories / 2);
  EXPECT_GT(totals.linearizable.by_lease, kHistories / 8);
  EXPECT_GT(totals.joint, kHistories);
  EXPECT_GT(totals.plain, kHistories);
  EXPECT_GT(totals.ended, kHistories);
  EXPECT_GT(totals.refused, kHistories);
  EXPECT_GT(totals.exchanged, kHistories / 4);
  EXPECT_GT(totals.transfers, kHistories);
}

}  // namespace
}  // namespace quorate::raft::testing
