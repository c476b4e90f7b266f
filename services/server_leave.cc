// How this node leaves: for a while (drained), or for good.
//
// Whoever is told to end goes in steps, each of which leaves the others nothing to repair:
//   1. It is not ready: probes and balancers send nobody any more.
//   2. It hands leadership over, while it still answers and passes on: its own clients' writes wait
//      for the new leader, as everybody's do.
//   3. GOAWAY to clients: new calls go elsewhere, what is under way is answered. Streams end where
//      they can go on at another node.
//   4. Peers, the log, the state.
#include <algorithm>
#include <future>
#include <utility>

#include "services/logging.h"
#include "services/server_impl.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

// For handing over before the end. The core says within an election timeout whether it has worked:
// there is to be time for another try.
constexpr Duration kHandOverMin = std::chrono::seconds(3);
constexpr Duration kHandOverMax = std::chrono::seconds(10);
// How long clients' and peers' calls may go on once this node stops; and for how long those that
// are refused then may take to hear that.
constexpr std::chrono::milliseconds kClientGrace(2000);
constexpr std::chrono::milliseconds kRefusedGrace(200);
constexpr std::chrono::milliseconds kPeerGrace(200);
constexpr Duration kDrainWait = std::chrono::seconds(5);
constexpr Duration kDrainMargin = std::chrono::milliseconds(100);
constexpr size_t kDrainCallsMax = 64;

}  // namespace

bool Server::Impl::Halted() const {
  std::lock_guard lock(mutex_);
  return halted_.has_value();
}

bool Server::Impl::Leads() const {
  if (Halted()) return false;  // whatever its node said last
  Engine* const engine = this->engine();
  return engine != nullptr && engine->node()->status()->role == raft::Role::kLeader;
}

void Server::Impl::Drain(bool undo, Instant deadline, std::function<void(bool leads)> done) {
  const bool was = draining_.exchange(!undo);
  if (undo) {
    if (was) LogInfo("in service again");
    return done(Leads());
  }
  if (!was) {
    LogInfo("drained: not ready, streams end, leadership goes elsewhere");
    watch_.EndAll();
    write_streams_.EndAll();
  }
  leave_.Hasten();
  const bool leads = Leads() && !stopping_;
  bool waits = false;
  {
    std::lock_guard lock(mutex_);
    waits = leads && drain_calls_.size() < kDrainCallsMax;
    if (waits) {
      drain_calls_.push_back({std::min(deadline - kDrainMargin, BootNow() + kDrainWait), done});
    }
    status_changed_ = true;  // for housekeeping, which also says that this node is not ready
  }
  changed_.notify_all();
  if (!waits) done(Leads());
}

void Server::Impl::GiveUpLeadership(Instant now, const raft::NodeStatus* status) {
  if (status != nullptr && (draining_ || stopping_)) {
    leave_.Run(now, *status, [this](StoreId target, raft::Node::TransferDone done) {
      engine()->node()->TransferLeadership(target, std::move(done));
    });
  }
  const bool leads = Leads() && draining_;
  std::vector<DrainCall> ended;
  {
    std::lock_guard lock(mutex_);
    const bool all = !leads || stopping_ || leave_.nobody_else();
    std::erase_if(drain_calls_, [&](DrainCall& call) {
      if (!all && now < call.until) return false;
      ended.push_back(std::move(call));
      return true;
    });
  }
  for (const DrainCall& call : ended) call.done(leads);
}

void Server::Impl::HandOver() {
  if (!Leads()) return;
  const Instant began = BootNow();
  const Duration election_timeout = engine()->node()->status()->election_timeout;
  const Instant until =
      began + std::clamp<Duration>(2 * election_timeout, kHandOverMin, kHandOverMax);
  leave_.Hasten();
  while (Leads() && !leave_.nobody_else() && BootNow() < until) {
    std::unique_lock lock(mutex_);
    status_changed_ = true;  // for housekeeping, which does it
    changed_.notify_all();
    changed_.wait_for(lock, std::chrono::milliseconds(10));
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(BootNow() - began);
  if (leave_.handed_over()) {
    LogInfo("handed leadership over before its end", {{"took_ms", took.count()}});
  } else if (engine()->node()->status()->membership->Voters().size() > 1) {
    LogWarning("ends without having handed leadership over: no other voter could take it",
               {{"tried_ms", took.count()}});
  }
}

void Server::Impl::EndClients() {
  std::future<void> ended;
  if (client_server_ != nullptr) {
    ended = std::async(std::launch::async, [this] {
      client_server_->Shutdown(std::chrono::system_clock::now() + kClientGrace + kRefusedGrace);
    });
  }
  write_streams_.Stop();  // before the service, which would refuse their next lines one by one
  watch_.Stop();
  if (ended.valid()) ended.wait_for(kClientGrace);
  config_.Stop();
  changes_.BeginStop();
  if (ended.valid()) ended.get();
  call_queues_.Stop();
}

void Server::Impl::EndPeers() {
  // Birth's own calls, then theirs.
  if (discovery_ != nullptr) discovery_->Stop();
  if (birth_client_ != nullptr) birth_client_->Stop();
  if (birth_ != nullptr) birth_->Stop();
  if (raft_service_ != nullptr) raft_service_->StopServing();
  if (peer_server_ != nullptr) {
    peer_server_->Shutdown(std::chrono::system_clock::now() + kPeerGrace);
  }
  changes_.Stop();
  read_pool_.Stop();
}

void Server::Impl::Stop() {
  if (std::exchange(stopped_, true)) return;
  stopping_ = true;
  if (started_) LogInfo("stopping");
  if (health_ != nullptr) health_->Shutdown();
  if (started_) HandOver();
  EndClients();
  EndPeers();
  {
    std::lock_guard lock(mutex_);
    housekeeping_ends_ = true;
  }
  changed_.notify_all();
  if (housekeeping_.joinable()) housekeeping_.join();
  metrics_.SetSampler(nullptr);
  if (ops_server_ != nullptr) ops_server_->Stop();
  if (engine_ != nullptr) engine_->Stop();
  if (started_) LogInfo("stopped");
}

}  // namespace quorate::services
