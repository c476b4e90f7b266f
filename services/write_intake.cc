#include "services/write_intake.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "ingress/ingress.h"
#include "quorate/v1/command.pb.h"

namespace quorate::services {
namespace {

// The bookkeeping of one queued write beside its bytes.
constexpr size_t kItemBytes = 128;

std::string EncodeOpen(const ingress::SessionId& session) {
  v1::Command command;
  v1::SessionPosition* position = command.mutable_session();
  position->set_store(session.store.value());
  position->set_boot(session.boot);
  position->set_nonce(session.nonce);
  v1::OpenSession* open = command.mutable_open_session();
  open->set_store(session.store.value());
  open->set_boot(session.boot);
  open->set_nonce(session.nonce);
  command.set_format(ingress::FormatOf(command));
  return command.SerializeAsString();
}

ingress::SessionId SessionOf(const storage::Applied& applied) {
  return {applied.session_store, applied.session_boot, applied.session_nonce};
}

}  // namespace

WriteIntake::WriteIntake(const Options& options, storage::State* state)
    : options_(options), state_(state) {}

void WriteIntake::Start(raft::Node* node, Post post) {
  node_ = node;
  post_ = std::move(post);
}

void WriteIntake::Stop() {
  DropEverything(StoreId());
  node_ = nullptr;
}

WriteIntake::Leadership WriteIntake::LeadershipOf(const raft::NodeStatus& status) {
  Leadership leadership;
  leadership.term = status.term;
  leadership.leads = status.role == raft::Role::kLeader;
  leadership.ready = leadership.leads && status.leader_ready && status.birth_complete;
  leadership.leader = status.leader;
  return leadership;
}

void WriteIntake::OnLeadership(const Leadership& leadership) {
  const bool same_office =
      leadership.leads && leadership_.leads && leadership.term == leadership_.term;
  if (leadership_.leads && !same_office) DropEverything(leadership.leader);
  leadership_ = leadership;
  // A term's first moment of being ready: its no-op is applied, so what the state machine says of
  // each session is all that earlier terms left (ingress/leader_sessions.h).
  if (taking()) sessions_.BeginTerm(leadership.term);
}

// Everybody is told; what was accepted may still be applied, and will be found when it is sent
// again.
void WriteIntake::DropEverything(StoreId leader) {
  ++epoch_;
  queue_.clear();
  queue_bytes_ = 0;
  opening_.clear();
  for (auto& [store, route] : std::exchange(routes_, {})) route.sink->NotLeader(leader);
}

// --- What comes in ---

bool WriteIntake::IsCurrent(const SinkPtr& sink, StoreId store) const {
  const auto found = routes_.find(store);
  return found != routes_.end() && found->second.sink == sink;
}

void WriteIntake::Open(const SinkPtr& sink, const ingress::SessionId& session) {
  if (!leadership_.leads) return sink->NotLeader(leadership_.leader);
  Route& route = routes_[session.store];
  const Route replaced = route;
  route = {sink, session, 0};
  // What it has sent before it opens its session once more is as good as it was.
  if (replaced.sink == sink && replaced.session == session) route.opened_at = replaced.opened_at;
  if (replaced.sink != nullptr && replaced.sink != sink) replaced.sink->NotLeader(StoreId());
  sessions_.OnNewStream(session);
  queue_.push_back({sink, session, 0, {}});
  queue_bytes_ += kItemBytes;
}

void WriteIntake::Write(const SinkPtr& sink, const ingress::SessionId& session, uint64_t sequence,
                        std::string command) {
  if (!IsCurrent(sink, session.store)) return;  // it has been told NotLeader
  ++counters_.taken;
  const size_t bytes = command.size() + kItemBytes;
  if (!queue_.empty() && queue_bytes_ + bytes > options_.queue_bytes_max) {
    ++counters_.refused;
    return sink->Refused(session, sequence);
  }
  queue_bytes_ += bytes;
  queue_.push_back({sink, session, sequence, std::move(command)});
}

void WriteIntake::Closed(const IntakeSink* sink) {
  std::erase_if(routes_, [sink](const auto& each) { return each.second.sink.get() == sink; });
}

// --- Proposing ---

std::optional<ingress::AppliedSession> WriteIntake::FindSession(StoreId store) const {
  const std::optional<storage::SessionView> view = state_->FindSession(store);
  if (!view) return std::nullopt;
  return ingress::AppliedSession{
      {view->store, view->boot, view->nonce}, view->last_sequence, view->opened_at.value()};
}

const std::optional<ingress::AppliedSession>& WriteIntake::Look(View* view, StoreId store) const {
  const auto found = view->find(store);
  if (found != view->end()) return found->second;
  return view->emplace(store, FindSession(store)).first->second;
}

void WriteIntake::TellOpened(Route* route, const ingress::AppliedSession& session) {
  route->opened_at = session.opened_at;
  route->sink->Opened(session);
}

bool WriteIntake::AdmitOpen(Route* route, View* view) {
  const auto& applied = Look(view, route->session.store);
  if (applied && applied->id == route->session) {
    TellOpened(route, *applied);
    return false;
  }
  // One entry is enough for as many links as ask meanwhile: the route says whom to tell.
  return opening_.insert(route->session).second;
}

bool WriteIntake::Admit(Item* item, View* view) {
  if (!IsCurrent(item->sink, item->session.store)) return false;
  Route& route = routes_.at(item->session.store);
  if (route.session != item->session) return false;  // its sender has begun another one since
  if (item->sequence == 0) return AdmitOpen(&route, view);
  auto applied = Look(view, item->session.store);
  // It was sent to the session of which this link was told; one that was opened since, after the
  // store had left and come back, does not know what that one has executed. A second line of
  // defence: the ingress sends nothing of the former one.
  if (applied && applied->opened_at != route.opened_at) applied.reset();
  const auto result = sessions_.Check(item->session, item->sequence, applied);
  switch (result.verdict) {
    case ingress::LeaderSessions::Verdict::kAppend:
      return true;
    case ingress::LeaderSessions::Verdict::kPending:
      ++counters_.duplicates_pending;
      return false;
    case ingress::LeaderSessions::Verdict::kApplied: {
      ++counters_.duplicates_applied;
      auto answer = state_->KeptAnswer(item->session.store, item->sequence);
      // None is kept of what its ingress has confirmed: it does not wait for it.
      if (answer != nullptr) item->sink->Answer(item->session, item->sequence, std::move(answer));
      return false;
    }
    case ingress::LeaderSessions::Verdict::kRefuse:
      ++counters_.refused;
      item->sink->Refused(item->session, result.expected);
      return false;
    case ingress::LeaderSessions::Verdict::kIgnore:
      return false;
    case ingress::LeaderSessions::Verdict::kUnknown:
      item->sink->SessionUnknown(item->session, "the cluster does not have this session");
      return false;
  }
  return false;
}

void WriteIntake::Pump() {
  if (!taking() || proposing_ || queue_.empty()) return;
  std::vector<Proposed> proposed;
  std::vector<raft::Core::Proposal> proposals;
  View view;
  size_t bytes = 0;
  while (!queue_.empty()) {
    Item& front = queue_.front();
    const size_t size = front.command.size() + kItemBytes;
    if (!proposals.empty() && bytes + size > options_.propose_bytes_max) break;
    Item item = std::move(front);
    queue_.pop_front();
    queue_bytes_ -= size;
    if (!Admit(&item, &view)) continue;
    bytes += size;
    raft::Core::Proposal proposal;
    proposal.type = raft::EntryType::kCommand;
    proposal.payload = item.sequence == 0 ? EncodeOpen(item.session) : std::move(item.command);
    proposals.push_back(std::move(proposal));
    proposed.push_back({std::move(item.sink), item.session, item.sequence});
  }
  if (proposals.empty()) return;
  proposing_ = true;
  node_->Propose(leadership_.term, std::move(proposals),
                 [this, post = post_, epoch = epoch_, proposed = std::move(proposed)](
                     size_t accepted, raft::ProposeStatus status) mutable {
                   post([this, epoch, proposed = std::move(proposed), accepted, status] {
                     OnProposed(epoch, proposed, accepted, status);
                   });
                 });
}

void WriteIntake::OnProposed(uint64_t epoch, const std::vector<Proposed>& proposed, size_t accepted,
                             raft::ProposeStatus status) {
  proposing_ = false;
  CHECK(accepted <= proposed.size());
  counters_.proposed += accepted;
  if (epoch != epoch_ || accepted == proposed.size()) return;
  // The first refused one of each session: what follows it is refused with it.
  std::map<ingress::SessionId, const Proposed*> first;
  for (size_t i = accepted; i < proposed.size(); ++i) {
    const Proposed& each = proposed[i];
    if (each.sequence == 0) {
      opening_.erase(each.session);
      if (IsCurrent(each.sink, each.session.store)) each.sink->Refused(each.session, 0);
    } else if (first.emplace(each.session, &each).second) {
      sessions_.RollBack(each.session, each.sequence);
    }
    ++counters_.refused;
  }
  if (status == raft::ProposeStatus::kNotLeader) {
    // Its status change is on its way here; what came meanwhile is not kept for another term.
    DropEverything(StoreId());
    leadership_.ready = false;
    return;
  }
  for (const auto& [session, each] : first) {
    if (IsCurrent(each->sink, session.store)) each->sink->Refused(session, each->sequence);
  }
}

// --- What was applied ---

void WriteIntake::OnApplied(const std::vector<storage::Applied>& applied) {
  for (const storage::Applied& each : applied) {
    if (!each.session_store) continue;
    const ingress::SessionId session = SessionOf(each);
    if (each.session_sequence == 0) {
      opening_.erase(session);
      if (!each.refused && leadership_.leads) ++counters_.sessions_opened;
    }
    if (each.refused && each.session_sequence != 0) sessions_.OnRefusedByState(session);
    const auto found = routes_.find(each.session_store);
    if (found == routes_.end() || found->second.session != session) continue;
    if (each.session_sequence == 0) {
      OnOpenApplied(&found->second, each);
      continue;
    }
    const Route& route = found->second;
    if (each.refused) {
      OnRefusedByState(route, each);
    } else if (each.answer != nullptr) {
      route.sink->Answer(session, each.session_sequence, each.answer);
    }
  }
}

void WriteIntake::OnOpenApplied(Route* route, const storage::Applied& applied) {
  const auto now = FindSession(route->session.store);
  // Not ready: the answer would not cover what earlier terms left. The open is in the queue still.
  if (!taking()) return;
  if (now && now->id == route->session) {
    TellOpened(route, *now);
  } else {
    route->sink->SessionUnknown(route->session, applied.refused
                                                    ? "the cluster refused to open it"
                                                    : "a newer session of this store has begun");
  }
}

void WriteIntake::OnRefusedByState(const Route& route, const storage::Applied& applied) {
  ++counters_.refused;
  const auto now = FindSession(route.session.store);
  if (now && now->id == route.session) {
    route.sink->Refused(route.session, std::min(now->last_sequence + 1, applied.session_sequence));
  } else {
    route.sink->SessionUnknown(route.session, "the cluster does not have this session");
  }
}

}  // namespace quorate::services
