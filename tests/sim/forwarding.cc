#include "tests/sim/forwarding.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

using ingress::SessionId;

// How a link that broke is tried again, as in services/forwarder.h.
constexpr Duration kRedialMin = std::chrono::milliseconds(20);
constexpr Duration kRedialMax = std::chrono::milliseconds(500);
// About as often as services/server keeps house.
constexpr Duration kExpireInterval = std::chrono::milliseconds(200);

ingress::IngressOptions IngressOptionsOf(const Machine& machine, StoreId store, uint64_t boot,
                                         uint64_t nonce) {
  ingress::IngressOptions options;
  options.store = store;
  options.boot = boot;
  options.nonce = nonce;
  options.leader_wait =
      std::max<Duration>(std::chrono::seconds(3), 4 * Duration(machine.election_max));
  return options;
}

Forwarding* ForwardingOf(Context* context, size_t machine, uint64_t life) {
  Process* const process = context->machines[machine]->process.get();
  if (process == nullptr || process->life() != life || process->dead()) return nullptr;
  return process->forwarding();
}

}  // namespace

// The link to this node itself, when it leads: the intake's replies go straight to the ingress.
class Forwarding::LocalSink final : public services::IntakeSink {
 public:
  LocalSink(Forwarding* forwarding, uint64_t link) : forwarding_(forwarding), link_(link) {}
  void Opened(const ingress::AppliedSession& session) override {
    forwarding_->OnOpened(link_, session);
  }
  void Answer(const SessionId& session, uint64_t sequence,
              std::shared_ptr<const std::string> answer) override {
    forwarding_->ingress_.OnAnswer(forwarding_->now_, session, sequence, std::move(answer));
  }
  void Refused(const SessionId&, uint64_t from_sequence) override {
    forwarding_->ingress_.OnRefused(forwarding_->now_, link_, from_sequence);
  }
  void SessionUnknown(const SessionId& session, const std::string& reason) override {
    forwarding_->ingress_.OnSessionUnknown(forwarding_->now_, link_, session, reason);
  }
  void NotLeader(StoreId) override { forwarding_->OnLinkBroken(link_); }

 private:
  Forwarding* const forwarding_;
  const uint64_t link_;
};

// The server's end of a stream: replies travel back to the ingress that opened it.
class Forwarding::RemoteSink final : public services::IntakeSink {
 public:
  RemoteSink(Forwarding* forwarding, StreamKey key) : forwarding_(forwarding), key_(key) {}
  void Opened(const ingress::AppliedSession& session) override {
    Reply([link = key_.number, session](Forwarding* to) { to->OnOpened(link, session); });
  }
  void Answer(const SessionId& session, uint64_t sequence,
              std::shared_ptr<const std::string> answer) override {
    Reply([session, sequence, answer = std::move(answer)](Forwarding* to) {
      to->ingress_.OnAnswer(to->now_, session, sequence, answer);
    });
  }
  void Refused(const SessionId&, uint64_t from_sequence) override {
    Reply([link = key_.number, from_sequence](Forwarding* to) {
      to->ingress_.OnRefused(to->now_, link, from_sequence);
    });
  }
  void SessionUnknown(const SessionId& session, const std::string& reason) override {
    Reply([link = key_.number, session, reason](Forwarding* to) {
      to->ingress_.OnSessionUnknown(to->now_, link, session, reason);
    });
  }
  void NotLeader(StoreId) override {
    Reply([link = key_.number](Forwarding* to) { to->OnLinkBroken(link); });
  }

 private:
  void Reply(std::function<void(Forwarding*)> action) {
    forwarding_->Carry(key_.machine, key_.life, 0, key_, std::move(action));
  }
  Forwarding* const forwarding_;
  const StreamKey key_;
};

Forwarding::Forwarding(Ports ports, StoreId store, uint64_t boot)
    : ports_(std::move(ports)),
      store_(store),
      now_(ports_.machine->clock.Now()),
      ingress_(IngressOptionsOf(*ports_.machine, store, boot, ports_.context->random.Next())),
      intake_({}, ports_.state),
      alive_(std::make_shared<Forwarding*>(this)) {}

Forwarding::~Forwarding() {
  *alive_ = nullptr;
  // Who waits for an answer on one of them would wait for ever.
  for (const auto& [stream, sink] : streams_) {
    ports_.context->BreakStream(stream, ports_.machine->number, ports_.process->life());
  }
}

void Forwarding::Start(raft::Node* node) {
  intake_.Start(node, [alive = alive_](std::function<void()> event) {
    if (*alive != nullptr) (*alive)->Post(std::move(event));
  });
  OnStatus(*node->status());
}

void Forwarding::Post(std::function<void()> event) {
  mailbox_.push_back(std::move(event));
  if (mailbox_.size() == 1) ports_.wake(1);
}

// --- Inputs ---

ingress::WriteId Forwarding::Write(v1::Command command, Instant deadline, WriteDone done) {
  const ingress::WriteId id(next_id_++);
  waiting_.emplace(id, std::move(done));
  auto shared = std::make_shared<v1::Command>(std::move(command));
  Post([this, id, deadline, shared] {
    if (!waiting_.contains(id)) return;  // cancelled meanwhile
    ingress_.Submit(now_, id, std::move(*shared), deadline, {});
  });
  return id;
}

void Forwarding::Cancel(ingress::WriteId id) {
  if (waiting_.erase(id) == 0) return;
  Post([this, id] { ingress_.Cancel(now_, id); });
}

void Forwarding::OnApplied(const std::vector<storage::Applied>& applied) {
  if (std::none_of(applied.begin(), applied.end(),
                   [](const storage::Applied& each) { return bool(each.session_store); })) {
    return;
  }
  Post([this, applied] {
    for (const storage::Applied& each : applied) {
      if (each.session_store != store_ || each.refused || each.session_sequence == 0 ||
          each.answer == nullptr) {
        continue;
      }
      ingress_.OnAnswer(now_, {each.session_store, each.session_boot, each.session_nonce},
                        each.session_sequence, each.answer);
    }
    intake_.OnApplied(applied);
  });
}

void Forwarding::OnStatus(const raft::NodeStatus& status) {
  Post([this, leadership = services::WriteIntake::LeadershipOf(status)] {
    if (leadership.leader != leadership_.leader) {
      redial_at_ = Instant::min();  // a new leader is dialled at once
      redial_backoff_ = Duration::zero();
    }
    leadership_ = leadership;
    intake_.OnLeadership(leadership);
  });
}

// --- The forward thread ---

Micros Forwarding::Run() {
  now_ = std::max(now_, ports_.machine->clock.Now());
  for (const auto& event : std::exchange(mailbox_, {})) event();
  ingress_.Tick(now_);
  const Instant expire = Expire();
  while (Step()) {
  }
  Instant next = std::min(ingress_.NextDeadline(), expire);
  if (link_.number == 0 && leadership_.leader) next = std::min(next, redial_at_);
  return ports_.machine->clock.WhenShows(next);
}

Instant Forwarding::Expire() {
  // One that does not lead has nothing to end; it hears when it does.
  const bool leads = leadership_.leads && leadership_.ready;
  if (leads != led_ || (leads && now_ >= expire_at_)) {
    expirer_.Run(now_, leads, leadership_.term, ports_.state,
                 [this](v1::Command command, Instant deadline, WriteDone done) {
                   Write(std::move(command), deadline, std::move(done));
                 });
    led_ = leads;
    expire_at_ = now_ + kExpireInterval;
  }
  return leads ? expire_at_ : Instant::max();
}

bool Forwarding::Step() {
  KeepLink();
  if (session_wanted_) RenewSession();
  intake_.Pump();
  return TakeAndSend();
}

void Forwarding::KeepLink() {
  if (link_.number != 0 && link_.leader != leadership_.leader) DropLink(false);
  if (link_.number != 0 || !leadership_.leader || now_ < redial_at_) return;
  if (leadership_.leader == store_) {
    CHECK(leadership_.leads, "who knows itself as the leader leads");
    const uint64_t number = ++links_;
    link_ = {number, store_, 0, 0, std::make_shared<LocalSink>(this, number), false};
    ingress_.LinkUp(now_, number);
  } else {
    Dial();
  }
}

void Forwarding::Dial() {
  Machine* const leader = ports_.context->Reach(ports_.machine->number, leadership_.leader);
  if (leader == nullptr || leader->process == nullptr ||
      ports_.context->network.IsCut(ports_.machine->number, leader->number)) {
    redial_at_ = now_ + kRedialMax;
    return;
  }
  const uint64_t number = ++links_;
  link_ = {number, leadership_.leader, leader->number, leader->process->life(), nullptr, false};
  ingress_.LinkUp(now_, number);
}

void Forwarding::DropLink(bool failed) {
  if (link_.number == 0) return;
  const Link link = std::exchange(link_, Link());
  ingress_.LinkDown(now_, link.number);
  if (link.local != nullptr) {
    intake_.Closed(link.local.get());
  } else {
    ports_.context->BreakStream({ports_.machine->number, ports_.process->life(), link.number},
                                link.machine, link.leader_life);
  }
  if (!failed) return;
  redial_backoff_ = link.opened || redial_backoff_ == Duration::zero()
                        ? kRedialMin
                        : std::min(redial_backoff_ * 2, kRedialMax);
  redial_at_ = now_ + redial_backoff_;
}

void Forwarding::OnLinkBroken(uint64_t link) {
  if (link_.number == link) DropLink(true);
}

void Forwarding::OnOpened(uint64_t link, const ingress::AppliedSession& session) {
  if (link_.number != link) return;
  link_.opened = true;
  redial_backoff_ = Duration::zero();
  ports_.context->report.Count(Reached::kSessionOpened);
  ingress_.OnOpened(now_, link, session);
}

bool Forwarding::TakeAndSend() {
  ingress::Ingress::Output out = ingress_.TakeOutput(now_, link_.number != 0);
  if (out.empty()) return false;
  if (out.session_lost) session_wanted_ = true;
  if (out.open || !out.writes.empty()) {
    CHECK(out.link == link_.number, "the ingress writes to the current link only");
    if (link_.local != nullptr) {
      SendLocal(out);
    } else {
      SendRemote(out);
    }
  }
  for (auto& [id, outcome] : out.finished) {
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) continue;  // cancelled
    const WriteDone done = std::move(found->second);
    waiting_.erase(found);
    done(outcome);
  }
  return true;
}

void Forwarding::SendLocal(const ingress::Ingress::Output& out) {
  const std::shared_ptr<LocalSink> sink = link_.local;  // the intake may drop the link meanwhile
  if (out.open) intake_.Open(sink, ingress_.session());
  for (const ingress::OutgoingWrite& write : out.writes) {
    intake_.Write(sink, ingress_.session(), write.sequence, *write.command);
  }
}

void Forwarding::SendRemote(const ingress::Ingress::Output& out) {
  const StreamKey key{ports_.machine->number, ports_.process->life(), link_.number};
  Carry(link_.machine, link_.leader_life, link_.number, key,
        [key, open = out.open, session = ingress_.session(), writes = out.writes](
            Forwarding* leader) { leader->OnStreamMessage(key, open, session, writes); });
}

void Forwarding::RenewSession() {
  const std::optional<uint64_t> boot = ports_.next_boot();
  if (!boot) return;
  session_wanted_ = false;
  ports_.context->report.Count(Reached::kSessionLost);
  ingress_.NewSession(now_, *boot, ports_.context->random.Next());
}

// --- Streams ---

void Forwarding::Carry(size_t machine, uint64_t life, uint64_t link_of_mine, StreamKey stream,
                       std::function<void(Forwarding*)> action) {
  Context* const context = ports_.context;
  if (context->broken_streams.contains(stream)) return;
  const size_t server = link_of_mine != 0 ? machine : ports_.machine->number;
  const uint64_t server_life = link_of_mine != 0 ? life : ports_.process->life();
  const Micros at = context->network.StreamArrival(ports_.machine->number, machine);
  if (at == kNever) {
    context->report.Count(Reached::kStreamBroken);
    return context->BreakStream(stream, server, server_life);
  }
  context->events.At(
      at, [context, machine, life, stream, server, server_life, action = std::move(action)] {
        if (context->broken_streams.contains(stream)) return;
        Forwarding* const to = ForwardingOf(context, machine, life);
        if (to == nullptr) return context->BreakStream(stream, server, server_life);
        to->Post([to, action] { action(to); });
      });
}

void Context::BreakStream(const StreamKey& stream, size_t server, uint64_t server_life) {
  if (!broken_streams.insert(stream).second) return;
  // Each end finds out for itself: at once, or when its keepalive does.
  const auto delay = [this] {
    return random.OneIn(3) ? random.Between(1, 2 * kSecond) : random.Between(1, 5 * kMillisecond);
  };
  events.After(delay(), [this, stream] {
    Forwarding* const to = ForwardingOf(this, stream.machine, stream.life);
    if (to != nullptr) to->OnStreamEnded(stream);
  });
  events.After(delay(), [this, stream, server, server_life] {
    Forwarding* const to = ForwardingOf(this, server, server_life);
    if (to != nullptr) to->OnStreamEnded(stream);
  });
}

// Either end: the number says whose link it is.
void Forwarding::OnStreamEnded(const StreamKey& key) {
  Post([this, key] {
    if (key.machine == ports_.machine->number && key.life == ports_.process->life()) {
      return OnLinkBroken(key.number);
    }
    const auto found = streams_.find(key);
    if (found == streams_.end()) return;
    intake_.Closed(found->second.get());
    streams_.erase(found);
  });
}

void Forwarding::OnStreamMessage(const StreamKey& key, bool open, const SessionId& session,
                                 const std::vector<ingress::OutgoingWrite>& writes) {
  std::shared_ptr<RemoteSink>& sink = streams_[key];
  if (sink == nullptr) sink = std::make_shared<RemoteSink>(this, key);
  if (open) intake_.Open(sink, session);
  for (const ingress::OutgoingWrite& write : writes) {
    intake_.Write(sink, session, write.sequence, *write.command);
  }
}

void Forwarding::AddTo(Report* report) const {
  const ingress::Ingress::Counters& counters = ingress_.counters();
  report->Count(Reached::kWriteResent, counters.resent);
  report->Count(Reached::kSkip, counters.skips);
  report->Count(Reached::kFoundApplied, counters.found_applied);
  report->Count(Reached::kDuplicateApplied, intake_.counters().duplicates_applied);
  report->Count(Reached::kRefusedByOrder, intake_.counters().refused);
}

}  // namespace quorate::sim
