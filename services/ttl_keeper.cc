#include "services/ttl_keeper.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <utility>

#include "base/ids.h"
#include "services/errors.h"
#include "services/validate.h"

namespace quorate::services {
namespace {

constexpr Duration kRenewalRetryDelay = std::chrono::milliseconds(200);

grpc::Status TtlNotFound(uint64_t ttl) {
  const std::string id = ToHex(ttl);
  return MakeError(
      grpc::StatusCode::NOT_FOUND, "TTL_NOT_FOUND",
      "ttl_id: there is no time-to-live " + id + ": it has expired, was revoked, or never was",
      {{"ttl_id", id}});
}

}  // namespace

// The write that carries renewals: its outcome, and how many still wait for it.
struct TtlKeeper::Batch {
  std::vector<RenewalPtr> renewals;
  CallPtr call;
  std::atomic<size_t> wanted = 0;
  // The write has been handed over, and it has ended: who comes second sends the next.
  std::atomic<int> steps = 0;
  bool Step() { return steps.fetch_add(1) == 1; }
  // Of the answer.
  std::map<uint64_t, uint64_t> lives_ms;  // by time-to-live
  v1::ResponseHeader header;
};

// The outcome and the caller's going away may come at the same time: the first one answers.
struct TtlKeeper::Renewal {
  uint64_t ttl = 0;
  CallPtr call;
  std::mutex mutex;
  CallDone done;                 // protected by mutex; empty once it has run
  std::weak_ptr<Batch> carrier;  // protected by mutex

  // True: this was the first one.
  bool End(const grpc::Status& status, std::string response) {
    CallDone mine;
    {
      std::lock_guard lock(mutex);
      mine.swap(done);
    }
    if (!mine) return false;
    call->Forget();  // it holds this
    mine(status, std::move(response));
    return true;
  }
};

void TtlKeeper::Renew(uint64_t ttl, const CallPtr& call, CallDone done) {
  auto renewal = std::make_shared<Renewal>();
  renewal->ttl = ttl;
  renewal->call = call;
  renewal->done = std::move(done);
  bool send = false;
  bool full = false;
  {
    std::lock_guard lock(mutex_);
    full = waiting_.size() >= kTtlRenewalsWaitingMax;
    if (!full) waiting_.push_back(renewal);
    send = !full && !std::exchange(sending_, true);
  }
  if (full) {
    renewal->End(
        MakeError(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL",
                  "this node has too many renewals waiting; try again", {}, kRenewalRetryDelay),
        "");
    return;
  }
  call->OnCancel([renewal] {
    if (!renewal->End(grpc::Status(grpc::StatusCode::CANCELLED, "the caller went away"), "")) {
      return;
    }
    std::shared_ptr<Batch> batch;
    {
      std::lock_guard lock(renewal->mutex);
      batch = renewal->carrier.lock();
    }
    // A write that nobody waits for any more is given up, so that the next one can go.
    if (batch != nullptr && batch->wanted.fetch_sub(1) == 1) batch->call->Cancel();
  });
  if (send) SendAll();
}

// A loop and no recursion: a write that is refused at once ends before it is handed over, and as
// long as others come meanwhile there is a next one.
void TtlKeeper::SendAll() {
  while (SendOne()) {
  }
}

bool TtlKeeper::SendOne() {
  auto batch = std::make_shared<Batch>();
  v1::Command command;
  {
    std::lock_guard lock(mutex_);
    Instant deadline;
    size_t taken = 0;
    for (const RenewalPtr& renewal : waiting_) {
      if (command.keep_alive_ttl().ttl_id_size() == kTtlRenewalsMax) break;
      ++taken;
      if (renewal->call->cancelled()) continue;  // it answers itself
      batch->renewals.push_back(renewal);
      deadline = std::max(deadline, renewal->call->deadline());
      // Once each: an answer is found by its id.
      if (batch->lives_ms.emplace(renewal->ttl, 0).second) {
        command.mutable_keep_alive_ttl()->add_ttl_id(renewal->ttl);
      }
    }
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
    sending_ = !batch->renewals.empty();
    if (!sending_) return false;
    batch->call = std::make_shared<CallContext>(deadline, std::map<std::string, std::string>());
    batch->wanted = batch->renewals.size();
  }
  // From here on a caller that goes away counts for itself; one that has gone is counted here.
  for (const RenewalPtr& renewal : batch->renewals) {
    std::unique_lock lock(renewal->mutex);
    const bool gone = !renewal->done;
    if (!gone) renewal->carrier = batch;
    lock.unlock();
    if (gone && batch->wanted.fetch_sub(1) == 1) batch->call->Cancel();
  }
  write_(
      std::move(command), batch->call,
      [this, batch](const grpc::Status& status, const std::string&) { Finish(batch, status); },
      [batch](const v1::Answer& answer,
              const v1::ResponseHeader& header) -> std::optional<std::string> {
        batch->header = header;
        if (static_cast<size_t>(answer.results_size()) != batch->lives_ms.size()) {
          return std::nullopt;
        }
        for (const v1::OperationResult& result : answer.results()) {
          batch->lives_ms[result.ttl_id()] = result.ttl_ms();
        }
        return std::string();
      });
  return batch->Step();
}

void TtlKeeper::Finish(const std::shared_ptr<Batch>& batch, const grpc::Status& status) {
  batch->call->Forget();  // by way of the write it holds the batch
  for (const RenewalPtr& renewal : batch->renewals) {
    const uint64_t lives_ms = batch->lives_ms[renewal->ttl];
    if (!status.ok()) {
      const bool ours = !DetailsOf(status).reason.empty();
      renewal->End(ours ? AddMetadata(status, {{"ttl_id", ToHex(renewal->ttl)}}) : status, "");
    } else if (lives_ms == 0) {
      renewal->End(TtlNotFound(renewal->ttl), "");
    } else {
      v1::KeepAliveTtlResponse response;
      *response.mutable_header() = batch->header;
      response.set_ttl_id(ToHex(renewal->ttl));
      *response.mutable_remaining() = DurationOfMs(lives_ms);
      renewal->End(grpc::Status::OK, response.SerializeAsString());
    }
  }
  if (batch->Step()) SendAll();
}

}  // namespace quorate::services
