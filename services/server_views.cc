#include <algorithm>
#include <chrono>

#include "services/logging.h"
#include "services/server_impl.h"

namespace quorate::services {
namespace {

// A process whose housekeeping stands still for this long is not alive.
constexpr Duration kStuckAfter = std::chrono::seconds(15);

std::string WithLacks(std::string text, const raft::BirthStatus& birth) {
  for (const std::string& lack : birth.lacks) text += "\n" + lack;
  return text;
}

// Of a learner: the voter of its name, whose place it takes. nullptr: there is none.
const raft::Member* Predecessor(const raft::NodeStatus& status) {
  if (status.membership == nullptr) return nullptr;
  const raft::Member* const self = status.membership->Find(status.self);
  if (self == nullptr || !self->learner()) return nullptr;
  const auto& members = status.membership->members;
  const auto found = std::find_if(members.begin(), members.end(), [self](const raft::Member& each) {
    return each.name == self->name && !each.learner();
  });
  return found != members.end() ? &*found : nullptr;
}

}  // namespace

std::string Server::Impl::CannotServe() const {
  if (stopping_) return "stopping";
  if (draining_) return "drained: `quorate drain --undo` at this node puts it back into service";
  {
    std::lock_guard lock(mutex_);
    if (halted_) return *halted_;
  }
  Engine* engine = this->engine();
  if (engine == nullptr) {
    const raft::BirthStatus birth = BirthView();
    return WithLacks(std::string("not born: ") + raft::ToString(birth.state), birth);
  }
  const auto status = engine->node()->status();
  if (status->removed) {
    return "removed: the cluster's members no longer include this node's store. To bring it back "
           "run "
           "`quorate member add` with its peer address";
  }
  if (!caught_up_) {
    return status->fresh_as_of && CaughtUp::IsMember(*status)
               ? "has caught up with the cluster, and makes its state durable"
               : WithLacks("has not caught up with the cluster yet", BirthView());
  }
  if (!status->leader) return WithLacks("no leader is known", BirthView());
  if (!status->birth_complete) return WithLacks("birth is not complete", BirthView());
  if (!status->fresh_as_of) {
    return "has not caught up since it was started: at entry " +
           std::to_string(status->applied.value());
  }
  return "";
}

std::string Server::Impl::NotReady() const {
  std::string reason = CannotServe();
  Engine* const engine = this->engine();
  if (!reason.empty() || engine == nullptr) return reason;
  // It can serve. But whoever replaces one disk after the other waits for this, and until it votes
  // the cluster is as weak as without it.
  const auto status = engine->node()->status();
  if (const raft::Member* const voter = Predecessor(*status)) {
    return "takes the place of store " + ToHex(voter->store) +
           ", and does not vote yet: leave the other nodes as they are until it does";
  }
  return "";
}

std::string Server::Impl::NotLive() const {
  const Instant last = housekept_at_;
  const Duration still = BootNow() - last;
  if (last == Instant() || still < kStuckAfter) return "";
  return "housekeeping stands still for " +
         std::to_string(std::chrono::duration_cast<std::chrono::seconds>(still).count()) + " s";
}

ClusterView Server::Impl::View() const {
  ClusterView view;
  view.now = BootNow();
  view.node_id = node_id_;
  view.version = version_;
  view.store = identity_.store;
  view.boot = identity_.boot;
  view.birth = BirthView();
  view.cluster = view.birth.cluster;
  view.healthy = CannotServe().empty();
  view.draining = draining_;
  view.caught_up = caught_up_;
  view.log_bytes = log_bytes_;
  view.database_bytes = database_bytes_;
  if (configuration_.raft) view.own_address = configuration_.raft->advertise_address;
  for (auto& [store, address] : addresses_.All()) view.addresses.emplace(store, address);
  view.links = links_->All(view.now);
  {
    std::lock_guard lock(mutex_);
    view.warnings = one_way_links_;
    view.warnings.insert(view.warnings.end(), not_done_.begin(), not_done_.end());
  }
  if (Engine* engine = this->engine()) {
    view.node = engine->node()->status();
    view.state = engine->state()->Summary();
    view.generation = engine->generation();
    view.snapshot_index = engine->snapshot_index();
  }
  return view;
}

MetricsSample Server::Impl::Sample() const {
  MetricsSample sample;
  sample.boot = identity_.boot;
  sample.caught_up = caught_up_;
  sample.ready = NotReady().empty();
  sample.log_bytes = log_bytes_;
  sample.database_bytes = database_bytes_;
  sample.dropped_log_lines = LoggingDropped();
  Engine* engine = this->engine();
  if (engine == nullptr) return sample;
  const auto status = engine->node()->status();
  const storage::StateSummary state = engine->state()->Summary();
  const Forwarder::Counters writes = engine->forwarder()->counters();
  sample.running = true;
  sample.role = status->role;
  sample.term = status->term;
  sample.election_timeout = status->election_timeout;
  sample.commit = status->commit;
  sample.applied = state.applied;
  sample.has_leader = static_cast<bool>(status->leader);
  sample.log_first = status->first_index;
  sample.log_last = status->last_index;
  sample.revision = state.revision;
  if (status->membership != nullptr) {
    sample.members = status->membership->members.size();
    sample.voters = status->membership->Voters().size();
  }
  for (const raft::PeerView& peer : status->peers) {
    sample.peers_lost_data += peer.lost_data ? 1 : 0;
    sample.peers_need_snapshot += peer.needs_snapshot ? 1 : 0;
  }
  if (status->fresh_as_of) {
    sample.fresh = true;
    sample.staleness = std::max(BootNow() - *status->fresh_as_of, Duration::zero());
  }
  sample.leases = status->leases;
  sample.lease_answers = status->lease_answers;
  sample.dropped_messages = status->dropped_messages;
  sample.ignored_messages = status->ignored_messages;
  sample.writes_found_applied = writes.ingress.found_applied;
  sample.intake_duplicates = writes.duplicates_applied + writes.duplicates_pending;
  sample.apply_duplicates = state.duplicates;
  sample.ttls = state.ttls;
  sample.ttl_keys = state.ttl_keys;
  sample.expired_ttls = state.expired_ttls;
  sample.request_ids = state.request_ids;
  sample.request_ids_reach_ms = state.request_ids_reach_ms;
  sample.request_ids_expired_through = state.request_ids_expired_through;
  sample.writes_submitted = writes.ingress.submitted;
  sample.writes_sent = writes.ingress.sent;
  sample.writes_resent = writes.ingress.resent;
  sample.writes_skipped = writes.ingress.skips;
  sample.writes_answered = writes.ingress.answered;
  sample.writes_unknown = writes.ingress.unknown;
  sample.writes_not_accepted = writes.ingress.not_accepted;
  sample.writes_unanswered = writes.unanswered;
  sample.writes_waiting = writes.waiting;
  const SnapshotSender::Counters sent = engine->snapshot_sender()->counters();
  sample.snapshots_sent = sent.sent;
  sample.snapshots_not_sent = sent.failed;
  sample.snapshot_bytes_sent = sent.bytes;
  const SnapshotReceiver::Counters received = engine->snapshot_receiver()->counters();
  sample.snapshots_installed = received.installed;
  sample.snapshots_not_installed = received.failed;
  sample.snapshot_bytes_received = received.bytes;
  const WatchStats watches = watch_.stats();
  sample.watches = watches.watches;
  sample.watches_catching_up = watches.catching_up;
  sample.watch_queued_bytes = watches.queued_bytes;
  sample.watches_opened = watches.counters.opened;
  sample.watch_messages = watches.counters.messages;
  sample.watch_events = watches.counters.events;
  sample.watches_fell_behind = watches.counters.fell_behind;
  sample.watch_resets = watches.counters.resets;
  sample.watches_ended_slow = watches.counters.ended_slow;
  return sample;
}

}  // namespace quorate::services
