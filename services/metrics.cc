#include "services/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

namespace quorate::services {
namespace {

using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// 50 us (a flush of good storage) to 10 s (the default deadline).
const Histogram::BucketBoundaries kSecondsBuckets = {
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05,    0.1,    0.25,    0.5,    1,     2.5,    5,     10};

MetricFamily One(MetricType type, const char* name, const char* help, double value) {
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  ClientMetric metric;
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(std::move(metric));
  return family;
}

MetricFamily RaftState(const std::string& node, const MetricsSample& sample) {
  MetricFamily family;
  family.name = "raft_state";
  family.help = "1 for the state that this node is in, 0 for the others.";
  family.type = MetricType::Gauge;
  const bool leader = sample.running && sample.role == raft::Role::kLeader;
  const bool follower = sample.running && sample.role == raft::Role::kFollower;
  const std::pair<const char*, bool> states[] = {
      {"leader", leader},
      {"follower", follower},
      {"candidate", sample.running && !leader && !follower},
  };
  for (const auto& [state, is] : states) {
    ClientMetric metric;
    metric.label = {{"node", node}, {"state", state}};
    metric.gauge.value = is ? 1 : 0;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

void AddTtls(const MetricsSample& s, std::vector<MetricFamily>* families) {
  families->push_back(One(MetricType::Gauge, "quorate_ttl_grants", "Time-to-lives that live.",
                          static_cast<double>(s.ttls)));
  families->push_back(One(MetricType::Gauge, "quorate_ttl_keys",
                          "Keys that are bound to a time-to-live.",
                          static_cast<double>(s.ttl_keys)));
  families->push_back(One(MetricType::Counter, "quorate_ttl_expired_total",
                          "Time-to-lives that were over, since this process started.",
                          static_cast<double>(s.expired_ttls)));
}

void AddRequestIds(const MetricsSample& s, std::vector<MetricFamily>* families) {
  families->push_back(One(MetricType::Gauge, "quorate_request_ids",
                          "Client-given request ids that are remembered.",
                          static_cast<double>(s.request_ids)));
  families->push_back(One(MetricType::Gauge, "quorate_request_ids_reach_seconds",
                          "How long ago, in log time, the oldest of them was applied.",
                          static_cast<double>(s.request_ids_reach_ms) / 1000));
  families->push_back(One(MetricType::Gauge, "quorate_request_ids_expired_revision",
                          "A write with an unknown id that was first sent at this revision or "
                          "before is refused.",
                          static_cast<double>(s.request_ids_expired_through.value())));
}

std::vector<MetricFamily> Sampled(const std::string& node, const MetricsSample& s) {
  std::vector<MetricFamily> families;
  const auto gauge = [&](const char* name, const char* help, auto value) {
    families.push_back(One(MetricType::Gauge, name, help, static_cast<double>(value)));
  };
  const auto counter = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(One(MetricType::Counter, name, help, static_cast<double>(value)));
  };
  gauge("raft_current_term", "The term that this node is in.", s.term.value());
  families.push_back(RaftState(node, s));
  gauge("raft_election_timeout_seconds", "The election timeout that was drawn last.",
        Seconds(s.election_timeout));
  gauge("raft_commit_index", "The last log index known to be committed.", s.commit.value());
  gauge("raft_applied_index", "The last log index that the state machine holds.",
        s.applied.value());

  gauge("quorate_leader_known", "1 while this node knows who leads.", s.has_leader);
  gauge("quorate_caught_up", "1 once this store has caught up with a leader.", s.caught_up);
  gauge("quorate_ready", "1 while this node is ready, as /readyz says.", s.ready);
  gauge("quorate_staleness_known", "1 once the age of local reads is known.", s.fresh);
  gauge("quorate_staleness_seconds", "How old the state that local reads show may be.",
        Seconds(s.staleness));
  gauge("quorate_members", "Members of the cluster.", s.members);
  gauge("quorate_voters", "Members that vote.", s.voters);
  gauge("quorate_peers_lost_data",
        "On the leader: peers that lost entries which they had acknowledged in its term.",
        s.peers_lost_data);
  gauge("quorate_peers_need_snapshot",
        "On the leader: peers that lack entries which its log no longer holds.",
        s.peers_need_snapshot);
  gauge("quorate_boot",
        "The process's boot number: each start takes the next one, and each session begun anew.",
        s.boot);
  gauge("quorate_revision", "The store's revision as applied here.", s.revision.value());
  gauge("quorate_log_first_index", "The first index that the log holds.", s.log_first.value());
  gauge("quorate_log_last_index", "The last index that the log holds.", s.log_last.value());
  gauge("quorate_log_size_bytes", "Bytes of the log on disk.", s.log_bytes);
  gauge("quorate_database_size_bytes", "Bytes of the database and its WAL on disk.",
        s.database_bytes);
  gauge("quorate_leases", "1 while this node, when it leads, may answer reads by its lease.",
        s.leases);
  counter("quorate_lease_answers_total",
          "Read indexes that this leader gave by its lease; reads that share one count once.",
          s.lease_answers);
  counter("quorate_peer_messages_dropped_total", "Messages of peers dropped: inbox full.",
          s.dropped_messages);
  counter("quorate_peer_messages_ignored_total",
          "Messages that no peer of this build sends: a newer one does, or something is broken.",
          s.ignored_messages);
  counter("quorate_log_lines_dropped_total", "Log lines dropped: queue full.", s.dropped_log_lines);
  counter("quorate_writes_found_applied_total",
          "Writes of this node that a lost leader had got applied: answered with the kept answer.",
          s.writes_found_applied);
  counter("quorate_intake_duplicates_total",
          "Writes that came to this leader again, and were not proposed again.",
          s.intake_duplicates);
  counter("quorate_apply_duplicates_total",
          "Commands that were in the log twice, and were executed once.", s.apply_duplicates);
  counter("quorate_writes_submitted_total", "Writes that clients gave to this node.",
          s.writes_submitted);
  counter("quorate_writes_sent_total", "Writes sent to a leader, this node itself included.",
          s.writes_sent);
  counter("quorate_writes_resent_total", "Writes sent again on a new link or to a new leader.",
          s.writes_resent);
  counter("quorate_writes_skipped_total", "Writes given up and replaced by a skip.",
          s.writes_skipped);
  counter("quorate_writes_answered_total", "Writes whose applied outcome came back.",
          s.writes_answered);
  counter("quorate_writes_unknown_total", "Writes that ended with an unknown outcome.",
          s.writes_unknown);
  counter("quorate_writes_not_accepted_total", "Writes that certainly are in no log.",
          s.writes_not_accepted);
  gauge("quorate_writes_unanswered", "Writes sent and not answered yet.", s.writes_unanswered);
  gauge("quorate_writes_waiting", "Writes not sent yet.", s.writes_waiting);
  counter("quorate_snapshots_sent_total", "Snapshots that a peer has installed.", s.snapshots_sent);
  counter("quorate_snapshots_not_sent_total", "Snapshots for a peer that came to nothing.",
          s.snapshots_not_sent);
  counter("quorate_snapshot_sent_bytes_total", "Bytes of snapshots sent.", s.snapshot_bytes_sent);
  counter("quorate_snapshots_installed_total", "Snapshots that became this node's state.",
          s.snapshots_installed);
  counter("quorate_snapshots_not_installed_total",
          "Snapshots that this node began to receive and did not install.",
          s.snapshots_not_installed);
  counter("quorate_snapshot_received_bytes_total", "Bytes of snapshots received.",
          s.snapshot_bytes_received);
  gauge("quorate_watches", "Watches that are open.", s.watches);
  gauge("quorate_watches_catching_up", "Watches that read history or a state: not live.",
        s.watches_catching_up);
  gauge("quorate_watch_queued_bytes", "Messages that wait for watches, shared ones once.",
        s.watch_queued_bytes);
  counter("quorate_watches_opened_total", "Watches begun.", s.watches_opened);
  counter("quorate_watch_messages_total", "Messages given to watches.", s.watch_messages);
  counter("quorate_watch_events_total", "Changes told to watches.", s.watch_events);
  counter("quorate_watches_fell_behind_total",
          "Times that a watch had too much waiting and went to history.", s.watches_fell_behind);
  counter("quorate_watch_resets_total", "Times that a watch's history was compacted.",
          s.watch_resets);
  counter("quorate_watches_ended_slow_total", "Watches ended because nothing was read.",
          s.watches_ended_slow);
  AddTtls(s, &families);
  AddRequestIds(s, &families);
  return families;
}

const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const size_t i = static_cast<size_t>(code);
  return i < std::size(kNames) ? kNames[i] : "UNKNOWN";
}

}  // namespace

class Metrics::Impl {
 public:
  Impl(std::string node, const std::string& version)
      : node_(std::move(node)),
        requests_(prometheus::BuildCounter()
                      .Name("quorate_requests_total")
                      .Help("Finished calls of clients, by method and status code.")
                      .Register(registry_)),
        request_seconds_(prometheus::BuildHistogram()
                             .Name("quorate_request_duration_seconds")
                             .Help("How long calls of clients took, by method.")
                             .Register(registry_)),
        log_sync_seconds_(prometheus::BuildHistogram()
                              .Name("quorate_log_sync_duration_seconds")
                              .Help("How long flushes of the log took.")
                              .Register(registry_)
                              .Add({}, kSecondsBuckets)),
        log_written_bytes_(prometheus::BuildCounter()
                               .Name("quorate_log_entry_bytes_written_total")
                               .Help("Bytes of entries made durable in the log.")
                               .Register(registry_)
                               .Add({})),
        apply_seconds_(prometheus::BuildHistogram()
                           .Name("quorate_apply_duration_seconds")
                           .Help("How long batches of entries took to apply.")
                           .Register(registry_)
                           .Add({}, kSecondsBuckets)),
        applied_entries_(prometheus::BuildCounter()
                             .Name("quorate_applied_entries_total")
                             .Help("Entries applied since the process started.")
                             .Register(registry_)
                             .Add({})),
        term_changes_(prometheus::BuildCounter()
                          .Name("quorate_term_changes_total")
                          .Help("Changes of term seen by this process.")
                          .Register(registry_)
                          .Add({})),
        leader_changes_(prometheus::BuildCounter()
                            .Name("quorate_leader_changes_total")
                            .Help("Changes of leader, lost ones included, seen by this process.")
                            .Register(registry_)
                            .Add({})) {
    AddMemberChanges();
    prometheus::BuildGauge()
        .Name("quorate_build_info")
        .Help("Always 1; the labels say what is running.")
        .Register(registry_)
        .Add({{"version", version}})
        .Set(1);
  }

  // All series from the start, so that the first one is an increase.
  void AddMemberChanges() {
    Family<Counter>& changes =
        prometheus::BuildCounter()
            .Name("quorate_member_changes_total")
            .Help("Changes of the members that this node has ended as the leader, by result.")
            .Register(registry_);
    Family<Counter>& transfers =
        prometheus::BuildCounter()
            .Name("quorate_leadership_transfers_total")
            .Help("Transfers of leadership that operators asked for, ended here as the leader.")
            .Register(registry_);
    for (const char* result : {"done", "refused", "unknown"}) {
      for (const char* kind : {"add", "remove", "promote", "demote"}) {
        member_changes_[{kind, result}] = &changes.Add({{"kind", kind}, {"result", result}});
      }
      member_changes_[{"transfer", result}] = &transfers.Add({{"result", result}});
    }
  }

  struct Method {
    Histogram* seconds = nullptr;
    std::map<grpc::StatusCode, Counter*> codes;
  };

  void RecordRequest(std::string_view name, grpc::StatusCode code, Duration elapsed) {
    Histogram* seconds = nullptr;
    Counter* count = nullptr;
    {
      std::lock_guard lock(methods_mutex_);
      auto it = methods_.find(name);
      if (it == methods_.end()) it = methods_.emplace(std::string(name), Method{}).first;
      Method& method = it->second;
      if (method.seconds == nullptr) {
        method.seconds = &request_seconds_.Add({{"method", it->first}}, kSecondsBuckets);
      }
      Counter*& counter = method.codes[code];
      if (counter == nullptr) {
        counter = &requests_.Add({{"method", it->first}, {"code", CodeName(code)}});
      }
      seconds = method.seconds;
      count = counter;
    }
    count->Increment();
    seconds->Observe(Seconds(elapsed));
  }

  std::string Text() const {
    std::vector<MetricFamily> families = registry_.Collect();
    {
      std::lock_guard lock(sampler_mutex_);
      if (sampler_) {
        for (MetricFamily& family : Sampled(node_, sampler_())) {
          families.push_back(std::move(family));
        }
      }
    }
    // A family without a series yet would be a header without a body.
    std::erase_if(families, [](const MetricFamily& family) { return family.metric.empty(); });
    std::sort(families.begin(), families.end(),
              [](const MetricFamily& a, const MetricFamily& b) { return a.name < b.name; });
    return prometheus::TextSerializer().Serialize(families);
  }

  // Constant after construction.
  const std::string node_;
  prometheus::Registry registry_;
  Family<Counter>& requests_;
  Family<Histogram>& request_seconds_;
  Histogram& log_sync_seconds_;
  Counter& log_written_bytes_;
  Histogram& apply_seconds_;
  Counter& applied_entries_;
  Counter& term_changes_;
  Counter& leader_changes_;
  std::map<std::pair<std::string, std::string>, Counter*> member_changes_;

  std::mutex methods_mutex_;
  std::map<std::string, Method, std::less<>> methods_;  // protected by methods_mutex_

  // Held while the sampler runs, so that SetSampler(nullptr) waits for it.
  mutable std::mutex sampler_mutex_;
  std::function<MetricsSample()> sampler_;  // protected by sampler_mutex_
};

Metrics::Metrics(const std::string& node, const std::string& version)
    : impl_(std::make_unique<Impl>(node, version)) {}

Metrics::~Metrics() = default;

void Metrics::RecordRequest(std::string_view method, grpc::StatusCode code, Duration elapsed) {
  impl_->RecordRequest(method, code, elapsed);
}

void Metrics::RecordLogSync(Duration elapsed, uint64_t entry_bytes) {
  impl_->log_sync_seconds_.Observe(Seconds(elapsed));
  impl_->log_written_bytes_.Increment(static_cast<double>(entry_bytes));
}

void Metrics::RecordApply(Duration elapsed, uint64_t entries) {
  impl_->apply_seconds_.Observe(Seconds(elapsed));
  impl_->applied_entries_.Increment(static_cast<double>(entries));
}

void Metrics::RecordTermChange() { impl_->term_changes_.Increment(); }

void Metrics::RecordLeaderChange() { impl_->leader_changes_.Increment(); }

void Metrics::RecordMemberChange(std::string_view kind, std::string_view result) {
  const auto found = impl_->member_changes_.find({std::string(kind), std::string(result)});
  if (found != impl_->member_changes_.end()) found->second->Increment();
}

void Metrics::SetSampler(std::function<MetricsSample()> sampler) {
  std::lock_guard lock(impl_->sampler_mutex_);
  impl_->sampler_ = std::move(sampler);
}

std::string Metrics::Text() const { return impl_->Text(); }

}  // namespace quorate::services
