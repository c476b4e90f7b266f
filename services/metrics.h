// What Prometheus scrapes: the seed's five raft_* metrics, everything else quorate_*, base units,
// Prometheus naming rules (`promtool check metrics` is clean).
//
// Two kinds. Events are recorded as they happen (Record*). State is sampled when somebody asks
// (SetSampler), so that it costs nothing in between and one page is one instant.
//
// Every method may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/time.h"
#include "grpcpp/support/status.h"
#include "raft/core/types.h"

namespace quorate::services {

// The state of this node at one instant.
struct MetricsSample {
  // False before the Raft node runs (not born): its five metrics then read 0.
  bool running = false;
  raft::Role role = raft::Role::kFollower;
  raft::Term term;
  Duration election_timeout{};
  raft::Index commit;
  raft::Index applied;
  bool has_leader = false;
  bool caught_up = false;  // may answer reads
  bool ready = false;      // as /readyz
  raft::Index log_first;
  raft::Index log_last;
  uint64_t log_bytes = 0;
  uint64_t database_bytes = 0;
  Revision revision;
  uint64_t members = 0;
  uint64_t voters = 0;
  uint64_t peers_lost_data = 0;      // on the leader; elsewhere 0
  uint64_t peers_need_snapshot = 0;  // the same
  uint64_t boot = 0;
  bool fresh = false;  // `staleness` is known
  Duration staleness{};
  bool leases = false;            // as raft::NodeStatus
  uint64_t lease_answers = 0;     // the same
  uint64_t dropped_messages = 0;  // from peers, inbox full
  uint64_t ignored_messages = 0;  // raft::Core::ignored_messages
  uint64_t dropped_log_lines = 0;
  // Exactly once, seen from three sides (ingress, leader, state machine).
  uint64_t writes_found_applied = 0;  // of this node, in a lost leader's log: found applied
  uint64_t intake_duplicates = 0;     // came to this leader again: not proposed again
  uint64_t apply_duplicates = 0;      // in the log twice: executed once
  // Time-to-lives: how many, what is bound to them, how many have expired here.
  uint64_t ttls = 0;
  uint64_t ttl_keys = 0;
  uint64_t expired_ttls = 0;
  // Client-given request ids (storage/state.h).
  uint64_t request_ids = 0;
  uint64_t request_ids_reach_ms = 0;
  Revision request_ids_expired_through;
  // The ingress (ingress/ingress.h).
  uint64_t writes_submitted = 0;
  uint64_t writes_sent = 0;
  uint64_t writes_resent = 0;
  uint64_t writes_skipped = 0;
  uint64_t writes_answered = 0;
  uint64_t writes_unknown = 0;
  uint64_t writes_not_accepted = 0;
  uint64_t writes_unanswered = 0;
  uint64_t writes_waiting = 0;
  uint64_t snapshots_sent = 0;
  uint64_t snapshots_not_sent = 0;
  uint64_t snapshot_bytes_sent = 0;
  uint64_t snapshots_installed = 0;
  uint64_t snapshots_not_installed = 0;
  uint64_t snapshot_bytes_received = 0;
  // Watches (ingress/watch_hub.h).
  uint64_t watches = 0;
  uint64_t watches_catching_up = 0;
  uint64_t watch_queued_bytes = 0;
  uint64_t watches_opened = 0;
  uint64_t watch_messages = 0;
  uint64_t watch_events = 0;
  uint64_t watches_fell_behind = 0;
  uint64_t watch_resets = 0;
  uint64_t watches_ended_slow = 0;
};

class Metrics {
 public:
  // `node` is the label of raft_state; `version` that of quorate_build_info.
  Metrics(const std::string& node, const std::string& version);
  ~Metrics();

  // One finished call of a client. `method` is `quorate.v1.Config/Get` and so on: ours, never the
  // caller's text, so that the number of series is bounded.
  void RecordRequest(std::string_view method, grpc::StatusCode code, Duration elapsed);
  // One flush of the log: how long, and the bytes of entries written since the one before.
  void RecordLogSync(Duration elapsed, uint64_t entry_bytes);
  // One batch applied.
  void RecordApply(Duration elapsed, uint64_t entries);
  // A change of term or leader, as seen by this node.
  void RecordTermChange();
  void RecordLeaderChange();
  // An operator's change that this node has ended as the leader. `kind`: add, remove, promote,
  // demote or transfer; `result`: done (also when it was so already), refused or unknown. Others
  // are ignored.
  void RecordMemberChange(std::string_view kind, std::string_view result);

  // `sampler` runs on the scraping thread; nullptr: no state any more (nothing runs in it once
  // this returns).
  void SetSampler(std::function<MetricsSample()> sampler);

  // Everything in the text exposition format, version 0.0.4.
  std::string Text() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::services
