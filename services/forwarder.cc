#include "services/forwarder.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/check.h"
#include "services/forward_streams.h"
#include "services/logging.h"
#include "services/write_intake.h"

namespace quorate::services {
namespace {

// Writes in the mailbox, beyond what the ingress itself may hold: refused without being looked at.
constexpr size_t kMailboxWritesMax = 65536;
constexpr Duration kSessionRetry = std::chrono::seconds(1);
constexpr Duration kWaitMax = std::chrono::hours(1);

// A stream of a node that does not take any: before Start, after Stop.
class RefusedStream final
    : public grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

class Forwarder::Impl : public std::enable_shared_from_this<Forwarder::Impl> {
 public:
  Impl(const ForwarderOptions& options, Ports ports)
      : options_(options),
        ports_(std::move(ports)),
        ingress_(options.ingress),
        intake_({options.intake_bytes_max, options.propose_bytes_max}, ports_.state) {}

  void Start(raft::Node* node);
  void Stop();
  ingress::WriteId Write(v1::Command command, Instant deadline,
                         std::map<std::string, std::string> metadata, WriteDone done);
  bool Cancel(ingress::WriteId id);
  void OnApplied(const std::vector<storage::Applied>& applied);
  void OnStatusChange(const raft::NodeStatus& status);
  grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* Serve();
  Counters counters() const;

 private:
  // The link to this node itself, when it leads: the intake's replies go straight to the ingress.
  class LocalSink final : public IntakeSink {
   public:
    LocalSink(Impl* impl, uint64_t link) : impl_(impl), link_(link) {}
    void Opened(const ingress::AppliedSession& session) override {
      impl_->OnOpened(link_, session);
    }
    void Answer(const ingress::SessionId& session, uint64_t sequence,
                std::shared_ptr<const std::string> answer) override {
      impl_->ingress_.OnAnswer(impl_->now_, session, sequence, std::move(answer));
    }
    void Refused(const ingress::SessionId&, uint64_t from_sequence) override {
      impl_->ingress_.OnRefused(impl_->now_, link_, from_sequence);
    }
    void SessionUnknown(const ingress::SessionId& session, const std::string& reason) override {
      impl_->ingress_.OnSessionUnknown(impl_->now_, link_, session, reason);
    }
    void NotLeader(StoreId) override { impl_->OnLinkBroken(link_); }

   private:
    Impl* const impl_;
    const uint64_t link_;
  };
  struct Link {
    uint64_t number = 0;  // 0: none
    StoreId leader;
    std::shared_ptr<LocalSink> local;       // one of the two
    ForwardClientStream* stream = nullptr;  // owns itself; gone only after `ended`
    bool opened = false;
  };

  void Post(std::function<void()> event);
  void Run();
  void Round();
  bool Step();
  void KeepLink();
  void DropLink(bool failed);
  void DialLeader();
  bool TakeAndSend();
  void SendLocal(ingress::Ingress::Output* out);
  void SendRemote(ingress::Ingress::Output* out);
  void RenewSession();
  void Finish(std::vector<std::pair<ingress::WriteId, ingress::Outcome>> finished);
  void OnOpened(uint64_t link, const ingress::AppliedSession& session);
  void OnLinkBroken(uint64_t link);
  void OnResponse(uint64_t link, v1::ForwardResponse response);
  ForwardServerStream::Reactor::Events EventsOf(uint64_t id);
  void AcceptStream(uint64_t id, ForwardServerStream::Reactor* reactor);
  static void EndStopping(ForwardServerStream* stream);
  template <typename Use>
  void WithServer(uint64_t id, Use use);
  Instant NextDeadline() const;
  void Publish();

  // Constant after construction (and Start).
  const ForwarderOptions options_;
  const Ports ports_;
  raft::Node* node_ = nullptr;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Protected by mutex_.
  std::vector<std::function<void()>> mailbox_;
  bool started_ = false;
  bool stopping_ = false;  // no new streams
  bool stopped_ = false;   // the thread has ended
  size_t mailbox_writes_ = 0;
  uint64_t next_id_ = 1;
  size_t reactors_ = 0;  // inbound streams that gRPC is not done with
  std::unordered_map<ingress::WriteId, WriteDone> waiting_;  // for an outcome
  Counters published_;

  // The forward thread's.
  Instant now_{};
  ingress::Ingress ingress_;
  WriteIntake intake_;
  WriteIntake::Leadership leadership_;
  Link link_;
  uint64_t links_ = 0;
  Instant redial_at_ = Instant::min();
  Duration redial_backoff_{};
  bool session_wanted_ = false;
  Instant session_at_ = Instant::min();
  bool closing_ = false;
  std::map<uint64_t, ForwardClientStream*> clients_;  // by link; until they have ended
  std::map<uint64_t, std::shared_ptr<ForwardServerStream>> servers_;
};

// --- The mailbox; any thread ---

void Forwarder::Impl::Post(std::function<void()> event) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  mailbox_.push_back(std::move(event));
  // Under the lock: the event may be a stream's last, after which Stop lets this object go.
  if (mailbox_.size() == 1) wake_.notify_one();
}

void Forwarder::Impl::Start(raft::Node* node) {
  std::lock_guard lock(mutex_);
  CHECK(!started_ && !stopping_, "a forwarder is started once");
  started_ = true;
  node_ = node;
  // The node may answer a proposal when this has been stopped and is gone.
  intake_.Start(node, [weak = weak_from_this()](std::function<void()> event) {
    if (const auto impl = weak.lock()) impl->Post(std::move(event));
  });
  mailbox_.push_back([this, status = node->status()] {
    leadership_ = WriteIntake::LeadershipOf(*status);
    intake_.OnLeadership(leadership_);
  });
  thread_ = std::thread([this] { Run(); });
}

void Forwarder::Impl::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    if (!started_) stopped_ = true;
  }
  if (thread_.joinable()) {
    wake_.notify_all();
    thread_.join();
  }
  // Writes before Start, and those that came after the thread's last round.
  std::unordered_map<ingress::WriteId, WriteDone> left;
  {
    std::lock_guard lock(mutex_);
    left.swap(waiting_);
    mailbox_.clear();
  }
  for (const auto& [id, done] : left) {
    done({ingress::Outcome::Kind::kNotAccepted, nullptr, ingress::kReasonStopping,
          "this node is shutting down"});
  }
}

ingress::WriteId Forwarder::Impl::Write(v1::Command command, Instant deadline,
                                        std::map<std::string, std::string> metadata,
                                        WriteDone done) {
  std::unique_lock lock(mutex_);
  const ingress::WriteId id(next_id_++);
  if (stopped_) {
    lock.unlock();
    done({ingress::Outcome::Kind::kNotAccepted, nullptr, ingress::kReasonStopping,
          "this node is shutting down"});
    return id;
  }
  waiting_.emplace(id, std::move(done));
  const bool first = mailbox_.empty();
  if (mailbox_writes_ >= kMailboxWritesMax) {
    mailbox_.push_back([this, id] {
      Finish({{id,
               {ingress::Outcome::Kind::kNotAccepted, nullptr, ingress::kReasonQueueFull,
                "too many writes wait at this node"}}});
    });
  } else {
    ++mailbox_writes_;
    // std::function wants copies: what is large is moved into a shared place.
    auto write = std::make_shared<std::pair<v1::Command, std::map<std::string, std::string>>>(
        std::move(command), std::move(metadata));
    mailbox_.push_back([this, id, deadline, write] {
      {
        std::lock_guard again(mutex_);
        --mailbox_writes_;
        if (!waiting_.contains(id)) return;  // cancelled meanwhile
      }
      ingress_.Submit(now_, id, std::move(write->first), deadline, std::move(write->second));
    });
  }
  lock.unlock();
  if (first) wake_.notify_one();
  return id;
}

bool Forwarder::Impl::Cancel(ingress::WriteId id) {
  WriteDone done;  // destroyed outside of the lock: it may own the caller's call
  {
    std::lock_guard lock(mutex_);
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) return false;
    done = std::move(found->second);
    waiting_.erase(found);
  }
  Post([this, id] { ingress_.Cancel(now_, id); });
  return true;
}

void Forwarder::Impl::OnApplied(const std::vector<storage::Applied>& applied) {
  const auto is_session = [](const storage::Applied& each) { return bool(each.session_store); };
  if (std::none_of(applied.begin(), applied.end(), is_session)) return;
  Post([this, applied] {
    for (const storage::Applied& each : applied) {
      // What this node's own state machine says is true whoever leads.
      if (each.session_store != options_.ingress.store || each.refused ||
          each.session_sequence == 0 || each.answer == nullptr) {
        continue;
      }
      ingress_.OnAnswer(now_, {each.session_store, each.session_boot, each.session_nonce},
                        each.session_sequence, each.answer);
    }
    intake_.OnApplied(applied);
  });
}

void Forwarder::Impl::OnStatusChange(const raft::NodeStatus& status) {
  Post([this, leadership = WriteIntake::LeadershipOf(status)] {
    if (leadership.leader != leadership_.leader) {
      redial_at_ = Instant::min();  // a new leader is dialled at once
      redial_backoff_ = Duration::zero();
    }
    leadership_ = leadership;
    for (const auto& [id, stream] : servers_) stream->set_term(leadership.term.value());
    intake_.OnLeadership(leadership);
  });
}

Forwarder::Counters Forwarder::Impl::counters() const {
  std::lock_guard lock(mutex_);
  return published_;
}

// --- The forward thread ---

void Forwarder::Impl::Run() {
  for (;;) {
    std::vector<std::function<void()>> events;
    bool stop = false;
    {
      std::unique_lock lock(mutex_);
      const Instant now = ports_.clock->Now();
      const Instant next = NextDeadline();
      const auto ready = [this] { return !mailbox_.empty() || (stopping_ && !closing_); };
      if (next > now) wake_.wait_for(lock, std::min(next - now, kWaitMax), ready);
      events.swap(mailbox_);
      stop = stopping_;
    }
    now_ = ports_.clock->Now();
    for (const auto& event : events) event();
    if (stop && !std::exchange(closing_, true)) {
      ingress_.Close(now_);
      intake_.Stop();
      DropLink(false);
      for (const auto& [id, stream] : servers_) EndStopping(stream.get());
    }
    Round();
    if (closing_ && clients_.empty()) {
      std::lock_guard lock(mutex_);
      if (!mailbox_.empty() || reactors_ != 0) continue;
      stopped_ = true;
      return;
    }
  }
}

void Forwarder::Impl::Round() {
  ingress_.Tick(now_);
  // The intake's replies may give the local ingress more to send, and the other way round.
  while (Step()) {
  }
  for (const auto& [id, stream] : servers_) stream->Flush();
  Publish();
}

// True: something was done, so there may be more.
bool Forwarder::Impl::Step() {
  KeepLink();
  if (session_wanted_ && now_ >= session_at_) RenewSession();
  intake_.Pump();
  return TakeAndSend();
}

Instant Forwarder::Impl::NextDeadline() const {
  if (closing_) return Instant::max();  // only the streams' ends are waited for
  Instant next = ingress_.NextDeadline();
  if (link_.number == 0 && leadership_.leader) next = std::min(next, redial_at_);
  if (session_wanted_) next = std::min(next, session_at_);
  return next;
}

void Forwarder::Impl::Publish() {
  const WriteIntake::Counters& intake = intake_.counters();
  Counters counters;
  counters.ingress = ingress_.counters();
  counters.unanswered = ingress_.unanswered();
  counters.waiting = ingress_.waiting();
  counters.link_open = ingress_.link_open();
  counters.links = links_;
  counters.taken = intake.taken;
  counters.proposed = intake.proposed;
  counters.duplicates_applied = intake.duplicates_applied;
  counters.duplicates_pending = intake.duplicates_pending;
  counters.refused = intake.refused;
  counters.sessions_opened = intake.sessions_opened;
  std::lock_guard lock(mutex_);
  published_ = counters;
}

// --- The link ---

void Forwarder::Impl::KeepLink() {
  if (closing_) return;
  // While no leader is known nothing more is sent to the old one: it may never come to anything,
  // and what is not sent is certainly not accepted. A link to another leader is of no use.
  if (link_.number != 0 && link_.leader != leadership_.leader) DropLink(false);
  if (link_.number != 0 || !leadership_.leader || now_ < redial_at_) return;
  if (leadership_.leader == options_.ingress.store) {
    CHECK(leadership_.leads, "who knows itself as the leader leads");
    const uint64_t number = ++links_;
    link_ = {number, leadership_.leader, std::make_shared<LocalSink>(this, number), nullptr, false};
    ingress_.LinkUp(now_, number);
  } else {
    DialLeader();
  }
}

void Forwarder::Impl::DialLeader() {
  const StoreId leader = leadership_.leader;
  PeerChannels::Stub stub = ports_.channels->For(leader, PeerChannels::Kind::kForward);
  if (stub == nullptr) {
    redial_at_ = now_ + options_.redial_max;  // until somebody has heard of its address
    return;
  }
  const uint64_t number = ++links_;
  auto* stream = new ForwardClientStream(
      {options_.cluster, options_.ingress.store}, leader, std::move(stub),
      [self = shared_from_this()](std::function<void()> event) { self->Post(std::move(event)); },
      {.received = [this, number](
                       v1::ForwardResponse response) { OnResponse(number, std::move(response)); },
       .written = [] {},  // the round that follows every event writes on
       .broken = [this, number] { OnLinkBroken(number); },
       .ended = [this, number] { clients_.erase(number); }});
  clients_[number] = stream;
  link_ = {number, leader, nullptr, stream, false};
  ingress_.LinkUp(now_, number);
  stream->Begin();
}

void Forwarder::Impl::DropLink(bool failed) {
  if (link_.number == 0) return;
  const Link link = std::exchange(link_, Link());
  ingress_.LinkDown(now_, link.number);
  if (link.local != nullptr) intake_.Closed(link.local.get());
  if (link.stream != nullptr) link.stream->Cancel();
  if (!failed) return;
  // One that worked has earned a quick second try.
  redial_backoff_ = link.opened || redial_backoff_ == Duration::zero()
                        ? options_.redial_min
                        : std::min(redial_backoff_ * 2, options_.redial_max);
  redial_at_ = now_ + redial_backoff_;
}

void Forwarder::Impl::OnLinkBroken(uint64_t link) {
  if (link_.number == link) DropLink(true);
}

void Forwarder::Impl::OnOpened(uint64_t link, const ingress::AppliedSession& session) {
  if (link_.number != link) return;
  link_.opened = true;
  redial_backoff_ = Duration::zero();
  ingress_.OnOpened(now_, link, session);
}

void Forwarder::Impl::OnResponse(uint64_t link, v1::ForwardResponse response) {
  const ingress::SessionId session{options_.ingress.store, response.boot(), response.nonce()};
  switch (response.kind_case()) {
    case v1::ForwardResponse::kOpened:
      return OnOpened(link,
                      {session, response.opened().last_sequence(), response.opened().opened_at()});
    case v1::ForwardResponse::kAnswers:
      for (v1::ForwardedAnswer& each : *response.mutable_answers()->mutable_answers()) {
        ingress_.OnAnswer(now_, session, each.sequence(),
                          std::make_shared<std::string>(std::move(*each.mutable_answer())));
      }
      return;
    case v1::ForwardResponse::kRefused:
      return ingress_.OnRefused(now_, link, response.refused().from_sequence());
    case v1::ForwardResponse::kRejected:
      if (session != ingress_.session()) return;
      return ingress_.OnRejected(now_, link, response.rejected().sequence(),
                                 response.rejected().newer(), response.rejected().reason());
    case v1::ForwardResponse::kSessionUnknown:
      return ingress_.OnSessionUnknown(now_, link, session, response.session_unknown().reason());
    case v1::ForwardResponse::kNotLeader:
    case v1::ForwardResponse::KIND_NOT_SET:
      return OnLinkBroken(link);
  }
}

// --- What the ingress wants ---

bool Forwarder::Impl::TakeAndSend() {
  const bool may_send = link_.number != 0 && (link_.stream == nullptr || link_.stream->can_write());
  ingress::Ingress::Output out = ingress_.TakeOutput(now_, may_send);
  if (out.empty()) return false;
  if (out.session_lost) {
    session_wanted_ = true;
    session_at_ = now_;
  }
  if (out.open || !out.writes.empty()) {
    CHECK(out.link == link_.number, "the ingress writes to the current link only");
    if (link_.local != nullptr) {
      SendLocal(&out);
    } else {
      SendRemote(&out);
    }
  }
  Finish(std::move(out.finished));
  return true;
}

void Forwarder::Impl::SendLocal(ingress::Ingress::Output* out) {
  const std::shared_ptr<LocalSink> sink = link_.local;  // the intake may drop the link meanwhile
  if (out->open) intake_.Open(sink, ingress_.session());
  for (const ingress::OutgoingWrite& write : out->writes) {
    intake_.Write(sink, ingress_.session(), write.sequence, *write.command);
  }
}

void Forwarder::Impl::SendRemote(ingress::Ingress::Output* out) {
  v1::ForwardRequest request;
  if (out->open) {
    const ingress::SessionId& session = ingress_.session();
    request.mutable_open()->set_store(session.store.value());
    request.mutable_open()->set_boot(session.boot);
    request.mutable_open()->set_nonce(session.nonce);
  }
  for (const ingress::OutgoingWrite& write : out->writes) {
    v1::ForwardedWrite* forwarded = request.add_writes();
    forwarded->set_sequence(write.sequence);
    forwarded->set_command(*write.command);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(write.deadline - now_);
    forwarded->set_deadline_remaining_ms(std::max<int64_t>(left.count(), 0));
    if (write.metadata != nullptr) {
      forwarded->mutable_metadata()->insert(write.metadata->begin(), write.metadata->end());
    }
  }
  link_.stream->Write(std::move(request));
}

void Forwarder::Impl::RenewSession() {
  const absl::StatusOr<uint64_t> boot = ports_.next_boot();
  if (!boot.ok()) {
    LogError("no new session can begin, and without one this node takes no writes: tried again",
             {{"error", std::string(boot.status().message())}});
    session_at_ = now_ + kSessionRetry;
    return;
  }
  session_wanted_ = false;
  ingress_.NewSession(now_, *boot, ports_.random());
}

void Forwarder::Impl::Finish(std::vector<std::pair<ingress::WriteId, ingress::Outcome>> finished) {
  for (auto& [id, outcome] : finished) {
    WriteDone done;
    {
      std::lock_guard lock(mutex_);
      const auto found = waiting_.find(id);
      if (found == waiting_.end()) continue;  // cancelled
      done = std::move(found->second);
      waiting_.erase(found);
    }
    done(outcome);
  }
}

// --- Streams of other nodes ---

grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* Forwarder::Impl::Serve() {
  uint64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    if (started_ && !stopping_) id = next_id_++;
    if (id != 0) ++reactors_;  // the thread does not end before it has
  }
  if (id == 0) {
    return new RefusedStream(MakeError(grpc::StatusCode::UNAVAILABLE, ingress::kReasonStopping,
                                       "this node is shutting down"));
  }
  // Complete before gRPC knows it: it may be cancelled at once.
  auto* reactor = new ForwardServerStream::Reactor(EventsOf(id));
  Post([this, id, reactor] { AcceptStream(id, reactor); });
  return reactor;
}

ForwardServerStream::Reactor::Events Forwarder::Impl::EventsOf(uint64_t id) {
  // The events of a reactor keep this alive: its last one may still be on its way when Stop is
  // done.
  ForwardServerStream::Reactor::Events events;
  const std::shared_ptr<Impl> self = shared_from_this();
  events.received = [this, self, id](v1::ForwardRequest message) {
    auto shared = std::make_shared<v1::ForwardRequest>(std::move(message));
    Post([this, id, shared] {
      WithServer(
          id, [&](const auto& server) { server->OnMessage(server, std::move(*shared), &intake_); });
    });
  };
  events.written = [this, self, id](bool ok) {
    Post([this, id, ok] { WithServer(id, [&](const auto& server) { server->OnWritten(ok); }); });
  };
  events.closed = [this, self, id] {
    Post([this, id] { WithServer(id, [&](const auto& server) { server->OnClosed(&intake_); }); });
  };
  events.ended = [this, self, id](ForwardServerStream::Reactor* reactor) {
    Post([this, id, reactor] {
      delete reactor;
      WithServer(id, [&](const auto& server) { intake_.Closed(server.get()); });
      servers_.erase(id);
      std::lock_guard lock(mutex_);
      --reactors_;
    });
  };
  return events;
}

void Forwarder::Impl::AcceptStream(uint64_t id, ForwardServerStream::Reactor* reactor) {
  auto stream = std::make_shared<ForwardServerStream>(
      PeerSelf{options_.cluster, options_.ingress.store}, reactor);
  stream->set_term(leadership_.term.value());
  servers_[id] = stream;
  if (closing_) return EndStopping(stream.get());
  reactor->ReadNext();
}

void Forwarder::Impl::EndStopping(ForwardServerStream* stream) {
  stream->End(MakeError(grpc::StatusCode::UNAVAILABLE, ingress::kReasonStopping,
                        "this node is shutting down"));
}

template <typename Use>
void Forwarder::Impl::WithServer(uint64_t id, Use use) {
  const auto found = servers_.find(id);
  if (found == servers_.end()) return;
  const std::shared_ptr<ForwardServerStream> server = found->second;
  use(server);
}

// --- The public face ---

Forwarder::Forwarder(const ForwarderOptions& options, Ports ports)
    : impl_(std::make_shared<Impl>(options, std::move(ports))) {}
Forwarder::~Forwarder() { Stop(); }

void Forwarder::Start(raft::Node* node) { impl_->Start(node); }
void Forwarder::Stop() { impl_->Stop(); }
ingress::WriteId Forwarder::Write(v1::Command command, Instant deadline,
                                  std::map<std::string, std::string> metadata, WriteDone done) {
  return impl_->Write(std::move(command), deadline, std::move(metadata), std::move(done));
}
bool Forwarder::Cancel(ingress::WriteId id) { return impl_->Cancel(id); }
void Forwarder::OnApplied(const std::vector<storage::Applied>& applied) {
  impl_->OnApplied(applied);
}
void Forwarder::OnStatusChange(const raft::NodeStatus& status) { impl_->OnStatusChange(status); }
grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse>* Forwarder::Serve(
    grpc::CallbackServerContext*) {
  return impl_->Serve();
}
Forwarder::Counters Forwarder::counters() const { return impl_->counters(); }

// --- The client's answer ---

grpc::Status StatusOf(const ingress::Outcome& outcome, v1::Answer* answer) {
  answer->Clear();
  switch (outcome.kind) {
    case ingress::Outcome::Kind::kAnswered:
      break;
    case ingress::Outcome::Kind::kNotAccepted: {
      if (outcome.reason == ingress::kReasonNotUnderstood) {
        return MakeError(grpc::StatusCode::FAILED_PRECONDITION, outcome.reason, outcome.message);
      }
      if (outcome.reason == ingress::kReasonMalformed) {
        return MakeError(grpc::StatusCode::INTERNAL, outcome.reason, outcome.message);
      }
      const bool full = outcome.reason == ingress::kReasonQueueFull;
      return MakeError(full ? grpc::StatusCode::RESOURCE_EXHAUSTED : grpc::StatusCode::UNAVAILABLE,
                       outcome.reason, outcome.message, {}, std::chrono::milliseconds(250));
    }
    case ingress::Outcome::Kind::kUnknown:
      return MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", outcome.message);
  }
  if (outcome.answer == nullptr || !answer->ParseFromString(*outcome.answer)) {
    return MakeError(grpc::StatusCode::DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN",
                     "the write was applied and its answer cannot be read");
  }
  if (answer->code() == 0) return grpc::Status::OK;
  return MakeError(static_cast<grpc::StatusCode>(answer->code()), answer->reason(),
                   answer->message(),
                   ErrorMetadata(answer->metadata().begin(), answer->metadata().end()));
}

}  // namespace quorate::services
