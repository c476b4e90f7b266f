#include "services/peer_transport.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <thread>
#include <utility>
#include <variant>

#include "base/check.h"
#include "services/open_calls.h"
#include "services/peer_codec.h"

namespace quorate::services {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Empty appends (heartbeats, commit news, probes) that may wait for one peer; the oldest goes.
constexpr size_t kUrgentMax = 8;
// Handed over by the node and not yet seen by the sender thread, which never blocks.
constexpr size_t kMailboxMax = 1u << 16;

size_t BytesOf(const raft::AppendEntries& message) {
  size_t bytes = 128;
  for (const raft::EntryPtr& entry : message.entries) bytes += entry->bytes();
  return bytes;
}

}  // namespace

// Shared with every open stream and call, which may outlive the PeerTransport's last reference but
// not its Stop.
class PeerTransport::Impl : public std::enable_shared_from_this<PeerTransport::Impl> {
 public:
  Impl(const PeerTransportOptions& options, PeerChannels* channels)
      : options_(options), channels_(channels) {}

  void Start(raft::Node* node);
  void Stop();
  void Send(std::vector<raft::Message> messages);

  uint64_t AddInbound(StoreId peer, WriteReply write);
  void RemoveInbound(StoreId peer, uint64_t id);
  uint64_t AddVote(AnswerVote answer);
  bool RemoveVote(uint64_t call_id);
  void OnSnapshotReply(SnapshotReplyHook hook) { on_snapshot_reply_ = std::move(hook); }
  uint64_t AddRead(AnswerRead answer);
  bool RemoveRead(uint64_t call_id);
  Counters counters() const;

 private:
  class Stream;
  struct Call;
  struct VoteCall;
  struct ReadCall;
  struct TimeoutNowCall;

  // What waits for one peer, and the stream that takes it.
  struct Peer {
    explicit Peer(StoreId s) : store(s) {}
    const StoreId store;
    std::mutex mutex;
    // Protected by mutex.
    std::deque<raft::AppendEntries> urgent;
    std::deque<raft::AppendEntries> data;
    size_t data_bytes = 0;
    Stream* stream = nullptr;  // until it has ended
    SteadyClock::time_point redial_at{};
    Duration backoff{};
    SteadyClock::time_point used_at{};
  };
  using PeerPtr = std::shared_ptr<Peer>;

  void Run();
  void Dispatch(raft::Message message);
  void SendAppend(StoreId to, raft::AppendEntries message);
  bool Enqueue(Peer* peer, raft::AppendEntries message);
  template <typename Use>
  static void WithStream(Peer* peer, Use use);
  void Dial(const PeerPtr& peer);
  void AskForVote(StoreId to, const raft::RequestVote& message);
  void AskToCampaign(StoreId to, const raft::TimeoutNow& message);
  void OnVote(StoreId from, const VoteCall& call, const grpc::Status& status);
  void AskForRead(StoreId to, const raft::ReadIndex& message);
  void OnRead(StoreId from, const ReadCall& call, const grpc::Status& status);
  // False: `to` cannot be asked now.
  bool BeginCall(StoreId to, const std::shared_ptr<Call>& call);
  bool IsFrom(StoreId from, const v1::PeerHeader& header) const;
  void WriteReplyTo(StoreId to, const raft::AppendEntriesReply& reply);
  void AnswerVoteCall(const raft::RequestVoteReply& reply);
  void AnswerReadCall(const raft::ReadIndexReply& reply);
  void EndIdleStreams();
  void Receive(StoreId from, raft::MessageBody body);
  // Counts one stream that Stop has to wait for; false: stopping, don't begin it.
  bool Begin();
  void End();

  const PeerTransportOptions options_;
  PeerChannels* const channels_;
  SnapshotReplyHook on_snapshot_reply_;  // constant once started
  std::thread sender_;
  std::map<StoreId, PeerPtr> peers_;  // the sender thread's, and Stop's after it has ended

  std::atomic<uint64_t> sent_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<uint64_t> dials_{0};
  std::atomic<uint64_t> streams_{0};

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  // Protected by mutex_.
  std::vector<raft::Message> mailbox_;
  raft::Node* node_ = nullptr;
  bool stopping_ = false;
  size_t open_ = 0;  // streams of ours
  struct Inbound {
    uint64_t id = 0;
    WriteReply write;
  };
  std::map<StoreId, Inbound> inbound_;
  std::map<uint64_t, AnswerVote> votes_;
  std::map<uint64_t, AnswerRead> reads_;
  uint64_t next_id_ = 1;

  OpenCalls<Call> calls_;  // has a lock of its own
};

// --- One outgoing stream ---

// Deletes itself when it has ended. gRPC's operations are never started under a lock of ours: they
// may run other reactions on the same thread.
class PeerTransport::Impl::Stream final
    : public grpc::ClientBidiReactor<v1::AppendEntriesRequest, v1::AppendEntriesResponse> {
 public:
  Stream(std::shared_ptr<Impl> transport, PeerPtr peer, PeerChannels::Stub stub)
      : transport_(std::move(transport)), peer_(std::move(peer)), stub_(std::move(stub)) {}

  void Begin() {
    stub_->async()->AppendEntries(&context_, this);
    // Two holds, before the call starts (later may be too late): the stream's own, because writes
    // are started from outside of reactions, and that of who dials.
    AddMultipleHolds(2);
    StartRead(&response_);
    StartCall();
  }

  // Writes the next message if there is one and nothing is being written.
  void Pump() {
    bool more = false;
    {
      std::lock_guard lock(peer_->mutex);
      if (writing_ || broken_) return;
      std::deque<raft::AppendEntries>& queue = peer_->urgent.empty() ? peer_->data : peer_->urgent;
      if (queue.empty()) return;
      request_.Clear();
      ToProto(queue.front(), &request_);
      if (&queue == &peer_->data) peer_->data_bytes -= BytesOf(queue.front());
      queue.pop_front();
      more = !peer_->urgent.empty() || !peer_->data.empty();
      writing_ = true;
    }
    *request_.mutable_header() =
        MakeHeader(transport_->options_.cluster, transport_->options_.self, peer_->store);
    transport_->sent_.fetch_add(1, std::memory_order_relaxed);
    // With more to come gRPC may put both into one packet.
    grpc::WriteOptions options;
    if (more) options.set_buffer_hint();
    StartWrite(&request_, options);
  }

  void Cancel() { context_.TryCancel(); }

  // With the peer's lock held: keeps the stream alive until RemoveHold; false: it is ending
  // already, and another hold would come too late.
  bool TryHold() {
    if (!held_) return false;
    AddHold();
    return true;
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Break();
    const v1::PeerHeader& header = response_.header();
    if (CheckHeader(header, {transport_->options_.cluster, transport_->options_.self}).ok() &&
        StoreId(header.from_store()) == peer_->store) {
      transport_->Receive(peer_->store, FromProto(response_));
      std::lock_guard lock(peer_->mutex);
      peer_->backoff = Duration::zero();
    } else {
      Cancel();  // whoever answers here is not the store that was dialled
    }
    response_.Clear();
    StartRead(&response_);
  }

  void OnWriteDone(bool ok) override {
    bool remove_hold = false;
    {
      std::lock_guard lock(peer_->mutex);
      writing_ = false;
      if (!ok) broken_ = true;
      remove_hold = broken_ && std::exchange(held_, false);
    }
    if (remove_hold) return RemoveHold();
    if (ok) Pump();
  }

  void OnDone(const grpc::Status&) override {
    {
      std::lock_guard lock(peer_->mutex);
      if (peer_->stream == this) peer_->stream = nullptr;
      // What was queued for it is old by the time that there is another stream.
      transport_->dropped_ += peer_->urgent.size() + peer_->data.size();
      peer_->urgent.clear();
      peer_->data.clear();
      peer_->data_bytes = 0;
      const PeerTransportOptions& options = transport_->options_;
      peer_->backoff = peer_->backoff == Duration::zero()
                           ? options.redial_min
                           : std::min(peer_->backoff * 2, options.redial_max);
      peer_->redial_at = SteadyClock::now() + peer_->backoff;
    }
    const std::shared_ptr<Impl> transport = transport_;
    transport->streams_.fetch_sub(1, std::memory_order_relaxed);
    delete this;
    transport->End();
  }

 private:
  void Break() {
    bool remove_hold = false;
    {
      std::lock_guard lock(peer_->mutex);
      broken_ = true;
      // A write that is under way still reports: then the hold goes.
      remove_hold = !writing_ && std::exchange(held_, false);
    }
    if (remove_hold) RemoveHold();
  }

  const std::shared_ptr<Impl> transport_;
  const PeerPtr peer_;
  const PeerChannels::Stub stub_;
  grpc::ClientContext context_;
  v1::AppendEntriesRequest request_;    // while writing_: gRPC's
  v1::AppendEntriesResponse response_;  // while a read is under way: gRPC's
  // Protected by peer_->mutex.
  bool writing_ = false;
  bool broken_ = false;
  bool held_ = true;
};

// One question to a peer.
struct PeerTransport::Impl::Call {
  virtual ~Call() = default;
  grpc::ClientContext context;
  PeerChannels::Stub stub;
};

struct PeerTransport::Impl::ReadCall : Call {
  v1::ReadIndexRequest request;
  v1::ReadIndexResponse response;
};

struct PeerTransport::Impl::TimeoutNowCall : Call {
  v1::TimeoutNowRequest request;
  v1::TimeoutNowResponse response;
};

struct PeerTransport::Impl::VoteCall : Call {
  v1::RequestVoteRequest request;
  v1::RequestVoteResponse response;
  uint64_t call_id = 0;
};

// --- Life ---

void PeerTransport::Impl::Start(raft::Node* node) {
  std::lock_guard lock(mutex_);
  CHECK(node_ == nullptr && !stopping_, "a transport is started once");
  node_ = node;
  sender_ = std::thread([this] { Run(); });
}

void PeerTransport::Impl::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (sender_.joinable()) sender_.join();
  // Nothing begins any more.
  for (const auto& [store, peer] : peers_) {
    WithStream(peer.get(), [](Stream* stream) { stream->Cancel(); });
  }
  calls_.Stop();
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return open_ == 0; });
  node_ = nullptr;
}

bool PeerTransport::Impl::Begin() {
  std::lock_guard lock(mutex_);
  if (stopping_) return false;
  ++open_;
  return true;
}

void PeerTransport::Impl::End() {
  std::lock_guard lock(mutex_);
  if (--open_ == 0) ended_.notify_all();
}

// Runs only inside of a stream or call that Stop waits for, so the node is there.
void PeerTransport::Impl::Receive(StoreId from, raft::MessageBody body) {
  raft::Node* node = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    node = node_;
  }
  if (node != nullptr) node->Receive({from, options_.self, std::move(body)});
}

// --- Sending ---

void PeerTransport::Impl::Send(std::vector<raft::Message> messages) {
  if (messages.empty()) return;
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || node_ == nullptr) {
      dropped_ += messages.size();
      return;
    }
    const bool full = mailbox_.size() + messages.size() > kMailboxMax;
    for (raft::Message& message : messages) {
      // The answer to this node's own receiver, one at a time: it waits for it, and nobody repeats
      // it.
      if (full && !std::holds_alternative<raft::InstallSnapshotReply>(message.body)) {
        ++dropped_;
      } else {
        mailbox_.push_back(std::move(message));
      }
    }
  }
  wake_.notify_one();
}

void PeerTransport::Impl::Run() {
  std::vector<raft::Message> messages;
  auto idle_check_at = SteadyClock::now() + options_.idle_max;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_until(lock, idle_check_at, [this] { return stopping_ || !mailbox_.empty(); });
      if (stopping_) return;
      messages.swap(mailbox_);
    }
    for (raft::Message& message : messages) Dispatch(std::move(message));
    messages.clear();
    if (SteadyClock::now() >= idle_check_at) {
      EndIdleStreams();
      idle_check_at = SteadyClock::now() + options_.idle_max;
    }
  }
}

void PeerTransport::Impl::Dispatch(raft::Message message) {
  const StoreId to = message.to;
  if (auto* append = std::get_if<raft::AppendEntries>(&message.body)) {
    SendAppend(to, std::move(*append));
  } else if (const auto* reply = std::get_if<raft::AppendEntriesReply>(&message.body)) {
    WriteReplyTo(to, *reply);
  } else if (const auto* vote = std::get_if<raft::RequestVote>(&message.body)) {
    AskForVote(to, *vote);
  } else if (const auto* timeout_now = std::get_if<raft::TimeoutNow>(&message.body)) {
    AskToCampaign(to, *timeout_now);
  } else if (const auto* answer = std::get_if<raft::RequestVoteReply>(&message.body)) {
    AnswerVoteCall(*answer);
  } else if (const auto* snapshot = std::get_if<raft::InstallSnapshotReply>(&message.body)) {
    if (on_snapshot_reply_) on_snapshot_reply_(*snapshot);
  } else if (const auto* read = std::get_if<raft::ReadIndex>(&message.body)) {
    AskForRead(to, *read);
  } else if (const auto* index = std::get_if<raft::ReadIndexReply>(&message.body)) {
    AnswerReadCall(*index);
  }
}

bool PeerTransport::Impl::Enqueue(Peer* peer, raft::AppendEntries message) {
  if (message.entries.empty()) {
    peer->urgent.push_back(std::move(message));
    if (peer->urgent.size() <= kUrgentMax) return true;
    peer->urgent.pop_front();
    return false;
  }
  const size_t bytes = BytesOf(message);
  if (peer->data.size() >= options_.queue_messages_max ||
      (!peer->data.empty() && peer->data_bytes + bytes > options_.queue_bytes_max)) {
    return false;
  }
  peer->data_bytes += bytes;
  peer->data.push_back(std::move(message));
  return true;
}

void PeerTransport::Impl::SendAppend(StoreId to, raft::AppendEntries message) {
  PeerPtr& peer = peers_[to];
  if (peer == nullptr) peer = std::make_shared<Peer>(to);
  bool dial = false;
  {
    std::lock_guard lock(peer->mutex);
    const auto now = SteadyClock::now();
    peer->used_at = now;
    if (peer->stream == nullptr && now < peer->redial_at) {
      ++dropped_;
      return;
    }
    dial = peer->stream == nullptr;
    if (!Enqueue(peer.get(), std::move(message))) ++dropped_;
  }
  // Only this thread makes streams. One that ended since is found ended by the next message.
  if (dial) {
    Dial(peer);
  } else {
    WithStream(peer.get(), [](Stream* stream) { stream->Pump(); });
  }
}

// Runs `use` outside of the peer's lock on its stream, if there is one that is not ending.
template <typename Use>
void PeerTransport::Impl::WithStream(Peer* peer, Use use) {
  Stream* stream = nullptr;
  {
    std::lock_guard lock(peer->mutex);
    if (peer->stream == nullptr || !peer->stream->TryHold()) return;
    stream = peer->stream;
  }
  use(stream);
  stream->RemoveHold();
}

void PeerTransport::Impl::Dial(const PeerPtr& peer) {
  PeerChannels::Stub stub = channels_->For(peer->store, PeerChannels::Kind::kReplication);
  if (stub == nullptr || !Begin()) {
    std::lock_guard lock(peer->mutex);
    dropped_ += peer->urgent.size() + peer->data.size();
    peer->urgent.clear();
    peer->data.clear();
    peer->data_bytes = 0;
    return;
  }
  ++dials_;
  ++streams_;
  auto* stream = new Stream(shared_from_this(), peer, std::move(stub));
  {
    std::lock_guard lock(peer->mutex);
    peer->stream = stream;
  }
  stream->Begin();
  stream->Pump();
  stream->RemoveHold();
}

void PeerTransport::Impl::EndIdleStreams() {
  for (const auto& [store, peer] : peers_) {
    {
      std::lock_guard lock(peer->mutex);
      if (peer->used_at + options_.idle_max >= SteadyClock::now()) continue;
    }
    WithStream(peer.get(), [](Stream* stream) { stream->Cancel(); });
  }
}

// --- Votes and reads ---

bool PeerTransport::Impl::BeginCall(StoreId to, const std::shared_ptr<Call>& call) {
  call->stub = channels_->For(to, PeerChannels::Kind::kControl);
  // A read that is not answered within a maximum election timeout is given up by the core, too.
  call->context.set_deadline(std::chrono::system_clock::now() + options_.vote_timeout);
  if (call->stub == nullptr || !calls_.Add(call)) {
    ++dropped_;
    return false;
  }
  ++sent_;
  return true;
}

bool PeerTransport::Impl::IsFrom(StoreId from, const v1::PeerHeader& header) const {
  return CheckHeader(header, {options_.cluster, options_.self}).ok() &&
         StoreId(header.from_store()) == from;
}

void PeerTransport::Impl::AskForVote(StoreId to, const raft::RequestVote& message) {
  auto call = std::make_shared<VoteCall>();
  call->call_id = message.call_id;
  ToProto(message, &call->request);
  *call->request.mutable_header() = MakeHeader(options_.cluster, options_.self, to);
  if (!BeginCall(to, call)) return;
  call->stub->async()->RequestVote(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), call, to](grpc::Status status) mutable {
        self->OnVote(to, *call, status);
        self->calls_.End(std::move(call));
      });
}

// The answer says nothing: whether the peer campaigns is heard from its term.
void PeerTransport::Impl::AskToCampaign(StoreId to, const raft::TimeoutNow& message) {
  auto call = std::make_shared<TimeoutNowCall>();
  call->request.set_term(message.term.value());
  *call->request.mutable_header() = MakeHeader(options_.cluster, options_.self, to);
  if (!BeginCall(to, call)) return;
  call->stub->async()->TimeoutNow(&call->context, &call->request, &call->response,
                                  [self = shared_from_this(), call](const grpc::Status&) mutable {
                                    self->calls_.End(std::move(call));
                                  });
}

void PeerTransport::Impl::OnVote(StoreId from, const VoteCall& call, const grpc::Status& status) {
  if (!status.ok() || !IsFrom(from, call.response.header())) return;
  raft::RequestVoteReply reply = FromProto(call.response);
  reply.call_id = call.call_id;
  Receive(from, reply);
}

void PeerTransport::Impl::AskForRead(StoreId to, const raft::ReadIndex& message) {
  auto call = std::make_shared<ReadCall>();
  ToProto(message, &call->request);
  *call->request.mutable_header() = MakeHeader(options_.cluster, options_.self, to);
  if (!BeginCall(to, call)) return;
  call->stub->async()->ReadIndex(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), call, to](grpc::Status status) mutable {
        self->OnRead(to, *call, status);
        self->calls_.End(std::move(call));
      });
}

void PeerTransport::Impl::OnRead(StoreId from, const ReadCall& call, const grpc::Status& status) {
  if (!status.ok() || !IsFrom(from, call.response.header())) return;
  Receive(from, FromProto(call.response));
}

// --- Replies to what came in ---

uint64_t PeerTransport::Impl::AddInbound(StoreId peer, WriteReply write) {
  std::lock_guard lock(mutex_);
  const uint64_t id = next_id_++;
  inbound_[peer] = {id, std::move(write)};
  return id;
}

void PeerTransport::Impl::RemoveInbound(StoreId peer, uint64_t id) {
  std::lock_guard lock(mutex_);
  const auto found = inbound_.find(peer);
  if (found != inbound_.end() && found->second.id == id) inbound_.erase(found);
}

void PeerTransport::Impl::WriteReplyTo(StoreId to, const raft::AppendEntriesReply& reply) {
  WriteReply write;
  {
    std::lock_guard lock(mutex_);
    const auto found = inbound_.find(to);
    if (found != inbound_.end()) write = found->second.write;
  }
  if (write) {
    ++sent_;
    write(reply);
  } else {
    ++dropped_;
  }
}

uint64_t PeerTransport::Impl::AddVote(AnswerVote answer) {
  std::lock_guard lock(mutex_);
  if (stopping_ || votes_.size() >= kVotesMax) return 0;
  const uint64_t id = next_id_++;
  votes_[id] = std::move(answer);
  return id;
}

bool PeerTransport::Impl::RemoveVote(uint64_t call_id) {
  std::lock_guard lock(mutex_);
  return votes_.erase(call_id) > 0;
}

void PeerTransport::Impl::AnswerVoteCall(const raft::RequestVoteReply& reply) {
  AnswerVote answer;
  {
    std::lock_guard lock(mutex_);
    const auto found = votes_.find(reply.call_id);
    if (found == votes_.end()) {
      ++dropped_;  // the caller did not wait
      return;
    }
    answer = std::move(found->second);
    votes_.erase(found);
  }
  ++sent_;
  answer(reply);
}

uint64_t PeerTransport::Impl::AddRead(AnswerRead answer) {
  std::lock_guard lock(mutex_);
  if (stopping_ || reads_.size() >= kReadsMax) return 0;
  const uint64_t id = next_id_++;
  reads_[id] = std::move(answer);
  return id;
}

bool PeerTransport::Impl::RemoveRead(uint64_t call_id) {
  std::lock_guard lock(mutex_);
  return reads_.erase(call_id) > 0;
}

void PeerTransport::Impl::AnswerReadCall(const raft::ReadIndexReply& reply) {
  AnswerRead answer;
  {
    std::lock_guard lock(mutex_);
    const auto found = reads_.find(reply.call_id);
    if (found == reads_.end()) {
      ++dropped_;
      return;
    }
    answer = std::move(found->second);
    reads_.erase(found);
  }
  ++sent_;
  answer(reply);
}

PeerTransport::Counters PeerTransport::Impl::counters() const {
  return {sent_.load(), dropped_.load(), dials_.load(), streams_.load()};
}

// --- The public face ---

PeerTransport::PeerTransport(const PeerTransportOptions& options, PeerChannels* channels)
    : impl_(std::make_shared<Impl>(options, channels)) {}
PeerTransport::~PeerTransport() { Stop(); }

void PeerTransport::Start(raft::Node* node) { impl_->Start(node); }
void PeerTransport::Stop() { impl_->Stop(); }
void PeerTransport::Send(std::vector<raft::Message> messages) { impl_->Send(std::move(messages)); }
uint64_t PeerTransport::AddInbound(StoreId peer, WriteReply write) {
  return impl_->AddInbound(peer, std::move(write));
}
void PeerTransport::RemoveInbound(StoreId peer, uint64_t id) { impl_->RemoveInbound(peer, id); }
uint64_t PeerTransport::AddVote(AnswerVote answer) { return impl_->AddVote(std::move(answer)); }
bool PeerTransport::RemoveVote(uint64_t call_id) { return impl_->RemoveVote(call_id); }
void PeerTransport::OnSnapshotReply(SnapshotReplyHook hook) {
  impl_->OnSnapshotReply(std::move(hook));
}
uint64_t PeerTransport::AddRead(AnswerRead answer) { return impl_->AddRead(std::move(answer)); }
bool PeerTransport::RemoveRead(uint64_t call_id) { return impl_->RemoveRead(call_id); }
PeerTransport::Counters PeerTransport::counters() const { return impl_->counters(); }

}  // namespace quorate::services
