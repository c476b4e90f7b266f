#include "services/snapshot_receiver.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "raft/work_queue.h"
#include "services/errors.h"
#include "services/logging.h"
#include "services/peer_codec.h"
#include "services/snapshot_sender.h"
#include "storage/crc32c.h"
#include "storage/state_install.h"

namespace quorate::services {
namespace {

grpc::Status MalformedChunk(const std::string& what) {
  return MakeError(grpc::StatusCode::INVALID_ARGUMENT, "MALFORMED", what);
}

grpc::Status ReceiverStops() {
  return MakeError(grpc::StatusCode::UNAVAILABLE, "SHUTTING_DOWN", "this node is shutting down");
}

}  // namespace

// What one call and the worker share. The worker starts its operations, one at a time: the next
// read, or the end.
class SnapshotReceiver::Reactor final : public grpc::ServerReadReactor<v1::InstallSnapshotRequest> {
 public:
  Reactor(std::shared_ptr<Impl> impl, grpc::CallbackServerContext* context,
          v1::InstallSnapshotResponse* response)
      : impl_(std::move(impl)), context_(context), response_(response) {}

  void Begin(std::shared_ptr<Reactor> me) {
    me_ = std::move(me);
    StartRead(&request_);
  }
  void ReadNext() { StartRead(&request_); }
  void End(const grpc::Status& status) {
    CHECK(!std::exchange(ended_, true));
    Finish(status);
  }
  bool ended() const { return ended_; }
  // From another transfer's arrival; the read under way or the check of the file ends soon.
  void Cancel() {
    cancelled_ = true;
    std::lock_guard lock(mutex_);
    if (!done_) context_->TryCancel();
  }

  void OnReadDone(bool ok) override;
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    me_.reset();
  }

  const v1::InstallSnapshotRequest& request() const { return request_; }
  v1::InstallSnapshotResponse* response() { return response_; }
  const std::atomic<bool>& cancelled() const { return cancelled_; }

 private:
  const std::shared_ptr<Impl> impl_;
  grpc::CallbackServerContext* const context_;
  v1::InstallSnapshotResponse* const response_;
  v1::InstallSnapshotRequest request_;  // while a read is under way: gRPC's
  std::atomic<bool> cancelled_{false};
  bool ended_ = false;           // the worker's
  std::shared_ptr<Reactor> me_;  // until gRPC has done with it
  std::mutex mutex_;
  bool done_ = false;  // protected by mutex_; then the context is gone
};

class SnapshotReceiver::Impl {
 public:
  using ReactorPtr = std::shared_ptr<Reactor>;

  Impl(const SnapshotReceiverOptions& options, storage::Disk* disk, storage::State* state)
      : options_(options), disk_(disk), state_(state) {}

  void Start(raft::Node* node) {
    CHECK(node_ == nullptr, "a receiver is started once");
    node_ = node;
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "snapin");
      while (tasks_.Wait(std::nullopt)) {
        if (auto task = tasks_.TakeOne()) (*task)();
      }
    });
  }
  void Stop();
  // False: the worker has ended; nothing is left to be done but to end calls.
  bool Post(std::function<void()> task) {
    std::lock_guard lock(mutex_);
    if (worker_gone_) return false;
    tasks_.Push(std::move(task));
    return true;
  }

  // --- The worker's ---
  void OnRead(const ReactorPtr& reactor, bool ok);
  void OnReply(const raft::InstallSnapshotReply& reply);

  std::atomic<uint64_t> installed_{0}, failed_{0}, bytes_{0};

 private:
  struct Transfer {
    ReactorPtr reactor;
    StoreId from;
    raft::InstallSnapshot message;
    uint64_t total_bytes = 0;
    storage::StateHash hash{};
    std::unique_ptr<storage::IncomingState> incoming;
    uint32_t crc32c = 0;
    uint64_t call_id = 0;  // the question to the core that is open; 0: none
    bool placed = false;   // and the core has been told
  };

  void OnBegin(const ReactorPtr& reactor);
  grpc::Status ReadBegin(const v1::InstallSnapshotRequest& request, Transfer* transfer) const;
  void AnswerBusy(const ReactorPtr& reactor, const Transfer& transfer);
  void Ask();
  grpc::Status OnStep(const v1::InstallSnapshotRequest& request);
  grpc::Status OnChunk(const v1::SnapshotChunk& chunk);
  grpc::Status OnEnd(const v1::SnapshotEnd& end);
  void Fail(const grpc::Status& status);
  void Clean();
  void Respond(const ReactorPtr& reactor, const raft::InstallSnapshotReply& reply, StoreId to);

  const SnapshotReceiverOptions options_;
  storage::Disk* const disk_;
  storage::State* const state_;
  raft::Node* node_ = nullptr;  // constant once started
  raft::WorkQueue<std::function<void()>> tasks_;
  std::thread thread_;
  // The worker's.
  std::optional<Transfer> transfer_;
  uint64_t next_call_id_ = 1;

  std::mutex mutex_;
  // Protected by mutex_.
  bool stopping_ = false;
  bool worker_gone_ = false;
  std::weak_ptr<Reactor> current_;  // of transfer_
};

void SnapshotReceiver::Reactor::OnReadDone(bool ok) {
  if (impl_->Post([impl = impl_.get(), me = me_, ok] { impl->OnRead(me, ok); })) return;
  if (!ended_) End(ReceiverStops());
}

void SnapshotReceiver::Impl::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    if (const auto current = current_.lock()) current->Cancel();
  }
  Post([this] {
    if (transfer_) Fail(ReceiverStops());
  });
  tasks_.Close();
  if (thread_.joinable()) thread_.join();
  {
    std::lock_guard lock(mutex_);
    worker_gone_ = true;
  }
  while (auto task = tasks_.TakeOne()) (*task)();
}

// --- One call, step by step ---

void SnapshotReceiver::Impl::OnRead(const ReactorPtr& reactor, bool ok) {
  if (reactor->ended()) return;
  bool stopping;
  {
    std::lock_guard lock(mutex_);
    stopping = stopping_;
  }
  const bool mine = transfer_ && transfer_->reactor == reactor;
  if (stopping || !ok || reactor->cancelled()) {
    const grpc::Status status(grpc::StatusCode::CANCELLED, "the transfer ended early");
    return mine ? Fail(status) : reactor->End(status);
  }
  if (!mine) return OnBegin(reactor);
  const grpc::Status status = OnStep(reactor->request());
  if (!status.ok()) return Fail(status);
  // Nothing is read while the core is asked, or when that has failed already.
  if (transfer_ && transfer_->call_id == 0) reactor->ReadNext();
}

void SnapshotReceiver::Impl::OnBegin(const ReactorPtr& reactor) {
  Transfer transfer;
  transfer.reactor = reactor;
  const grpc::Status status = ReadBegin(reactor->request(), &transfer);
  if (!status.ok()) return reactor->End(status);
  if (transfer_) {
    // One leader after the other: the newer one comes again in a moment.
    if (transfer.message.term > transfer_->message.term) transfer_->reactor->Cancel();
    return AnswerBusy(reactor, transfer);
  }
  transfer_ = std::move(transfer);
  {
    std::lock_guard lock(mutex_);
    current_ = reactor;
  }
  Ask();
}

grpc::Status SnapshotReceiver::Impl::ReadBegin(const v1::InstallSnapshotRequest& request,
                                               Transfer* transfer) const {
  if (grpc::Status status = CheckHeader(request.header(), {options_.cluster, options_.self});
      !status.ok()) {
    return status;
  }
  if (!request.has_begin()) return MalformedChunk("a snapshot begins with `begin`");
  const v1::SnapshotBegin& begin = request.begin();
  auto message = FromProto(begin);
  if (!message || message->snapshot.membership.cluster != options_.cluster ||
      begin.total_bytes() == 0 || begin.state_hash().size() != transfer->hash.size()) {
    return MalformedChunk("`begin` is not one that a leader sends");
  }
  transfer->from = StoreId(request.header().from_store());
  transfer->message = *std::move(message);
  transfer->total_bytes = begin.total_bytes();
  std::copy(begin.state_hash().begin(), begin.state_hash().end(), transfer->hash.begin());
  return grpc::Status::OK;
}

void SnapshotReceiver::Impl::AnswerBusy(const ReactorPtr& reactor, const Transfer& transfer) {
  const raft::SnapshotMeta& snapshot = transfer.message.snapshot;
  // The core has not been asked, and may not know the leader's term yet. An answer of an earlier
  // term would be none: the leader would wait for another, and offer nothing more while it leads.
  const raft::Term term = std::max(node_->status()->term, transfer.message.term);
  Respond(reactor, {term, snapshot.index, snapshot.term, raft::SnapshotAnswer::kBusy, 0},
          transfer.from);
}

// The offer, or the news that all is in its place: the core answers with the call's id. It always
// does: what it would ignore has been refused before.
void SnapshotReceiver::Impl::Ask() {
  transfer_->call_id = next_call_id_++;
  transfer_->message.call_id = transfer_->call_id;
  if (node_->Receive({transfer_->from, options_.self, transfer_->message})) return;
  transfer_->call_id = 0;
  Fail(MakeError(grpc::StatusCode::UNAVAILABLE, "OVERLOADED", "this node is overloaded"));
}

void SnapshotReceiver::Impl::OnReply(const raft::InstallSnapshotReply& reply) {
  if (!transfer_ || transfer_->call_id != reply.call_id) return;
  transfer_->call_id = 0;
  if (reply.answer == raft::SnapshotAnswer::kSend) {
    if (transfer_->reactor->ended() || transfer_->reactor->cancelled()) {
      return Fail(grpc::Status(grpc::StatusCode::CANCELLED, "the transfer ended early"));
    }
    auto incoming = storage::IncomingState::Begin(disk_, options_.data_directory,
                                                  state_->generation(), transfer_->total_bytes);
    if (!incoming.ok()) {
      LogWarning("a snapshot cannot be received",
                 {{"error", std::string(incoming.status().message())}});
      return Fail(MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "DISK_FULL",
                            std::string(incoming.status().message())));
    }
    transfer_->incoming = *std::move(incoming);
    LogInfo("receives a snapshot", {{"from_store", transfer_->from},
                                    {"index", transfer_->message.snapshot.index},
                                    {"bytes", transfer_->total_bytes}});
    return transfer_->reactor->ReadNext();
  }
  if (transfer_->placed) {
    const bool installed = state_->generation() == transfer_->message.generation;
    ++(installed ? installed_ : failed_);
  }
  if (!transfer_->reactor->ended()) Respond(transfer_->reactor, reply, transfer_->from);
  Clean();
}

grpc::Status SnapshotReceiver::Impl::OnStep(const v1::InstallSnapshotRequest& request) {
  switch (request.step_case()) {
    case v1::InstallSnapshotRequest::kChunk:
      return OnChunk(request.chunk());
    case v1::InstallSnapshotRequest::kEnd:
      return OnEnd(request.end());
    default:
      return MalformedChunk("after `begin` come chunks, then `end`");
  }
}

grpc::Status SnapshotReceiver::Impl::OnChunk(const v1::SnapshotChunk& chunk) {
  const std::string& data = chunk.data();
  if (data.empty() || data.size() > kSnapshotChunkBytes) return MalformedChunk("a chunk's size");
  if (chunk.offset() != transfer_->incoming->written())
    return MalformedChunk("a gap between chunks");
  if (storage::Crc32c(data) != chunk.crc32c()) {
    return MakeError(grpc::StatusCode::DATA_LOSS, "SNAPSHOT_DAMAGED",
                     absl::StrCat("the chunk at ", chunk.offset(), " was damaged on its way"));
  }
  const absl::Status status = transfer_->incoming->Write(chunk.offset(), data);
  if (!status.ok()) {
    return MakeError(grpc::StatusCode::UNAVAILABLE, "SNAPSHOT_NOT_WRITTEN",
                     std::string(status.message()));
  }
  transfer_->crc32c = storage::Crc32c(data, transfer_->crc32c);
  bytes_ += data.size();
  return grpc::Status::OK;
}

grpc::Status SnapshotReceiver::Impl::OnEnd(const v1::SnapshotEnd& end) {
  if (transfer_->incoming->written() != transfer_->total_bytes) {
    return MalformedChunk("`end` before the last chunk");
  }
  if (transfer_->crc32c != end.crc32c()) {
    return MakeError(grpc::StatusCode::DATA_LOSS, "SNAPSHOT_DAMAGED", "the file was damaged");
  }
  const raft::SnapshotMeta& snapshot = transfer_->message.snapshot;
  const storage::ExpectedState expected{options_.cluster, snapshot.index, snapshot.term,
                                        transfer_->hash};
  const uint64_t generation = transfer_->incoming->generation();
  const absl::StatusOr<storage::StateCopy> state =
      transfer_->incoming->Finish(expected, transfer_->reactor->cancelled());
  transfer_->placed = state.ok();
  if (state.ok() && (state->membership != snapshot.membership ||
                     state->membership_index != snapshot.membership_index)) {
    return MakeError(grpc::StatusCode::DATA_LOSS, "SNAPSHOT_DAMAGED",
                     "the state holds another membership than was announced");
  }
  if (!state.ok()) {
    return MakeError(grpc::StatusCode::DATA_LOSS, "SNAPSHOT_DAMAGED",
                     std::string(state.status().message()));
  }
  transfer_->message.generation = generation;
  Ask();
  return grpc::Status::OK;
}

// --- Its end ---

// While the core has still to answer for a state that is in its place only the sender is told.
void SnapshotReceiver::Impl::Fail(const grpc::Status& status) {
  if (!transfer_->reactor->ended()) {
    ++failed_;
    LogWarning("a snapshot was not received", {{"from_store", transfer_->from},
                                               {"index", transfer_->message.snapshot.index},
                                               {"error", status.error_message()}});
    transfer_->reactor->End(status);
  }
  if (transfer_->call_id == 0) Clean();
}

// Nothing of it may stay but what the log names.
void SnapshotReceiver::Impl::Clean() {
  const bool placed = transfer_->placed;
  transfer_.reset();
  if (!placed) return;
  const absl::Status status =
      storage::RemoveOtherGenerations(disk_, options_.data_directory, state_->generation());
  if (!status.ok()) {
    LogWarning("an old state could not be removed; the next start tries again",
               {{"error", std::string(status.message())}});
  }
}

void SnapshotReceiver::Impl::Respond(const ReactorPtr& reactor,
                                     const raft::InstallSnapshotReply& reply, StoreId to) {
  ToProto(reply, reactor->response());
  *reactor->response()->mutable_header() = MakeHeader(options_.cluster, options_.self, to);
  reactor->End(grpc::Status::OK);
}

// --- The public face ---

SnapshotReceiver::SnapshotReceiver(const SnapshotReceiverOptions& options, storage::Disk* disk,
                                   storage::State* state)
    : impl_(std::make_shared<Impl>(options, disk, state)) {}
SnapshotReceiver::~SnapshotReceiver() { Stop(); }

void SnapshotReceiver::Start(raft::Node* node) { impl_->Start(node); }
void SnapshotReceiver::Stop() { impl_->Stop(); }

grpc::ServerReadReactor<v1::InstallSnapshotRequest>* SnapshotReceiver::Serve(
    grpc::CallbackServerContext* context, v1::InstallSnapshotResponse* response) {
  const auto reactor = std::make_shared<Reactor>(impl_, context, response);
  reactor->Begin(reactor);
  return reactor.get();
}

void SnapshotReceiver::OnReply(const raft::InstallSnapshotReply& reply) {
  impl_->Post([impl = impl_.get(), reply] { impl->OnReply(reply); });
}

SnapshotReceiver::Counters SnapshotReceiver::counters() const {
  return {impl_->installed_.load(), impl_->failed_.load(), impl_->bytes_.load()};
}

}  // namespace quorate::services
