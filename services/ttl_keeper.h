// Keeps time-to-lives alive for this node's clients: many renewals in one write.
//
// Each renewal goes through the log, because what ends a time-to-live must come before or behind it
// in one order. So that thousands of clients cost little, a node has one such write on its way;
// what comes meanwhile goes with the next one, in which each time-to-live is named once.
//
// The write carries no caller's identity: whoever is to be refused a renewal is refused before it
// comes here.
//
// Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "quorate/v1/command.pb.h"
#include "quorate/v1/config.pb.h"
#include "services/call_context.h"

namespace quorate::services {

// Renewals that wait for the next write. Beyond: RESOURCE_EXHAUSTED (QUEUE_FULL).
inline constexpr size_t kTtlRenewalsWaitingMax = 65536;
// Time-to-lives in one write: what the state machine takes at most.
inline constexpr int kTtlRenewalsMax = 4096;

class TtlKeeper {
 public:
  // What to do with an answer; its result is the call's, nullopt: it is no answer to this.
  using TakeAnswer = std::function<std::optional<std::string>(const v1::Answer& answer,
                                                              const v1::ResponseHeader& header)>;
  // As ConfigService::Write.
  using Write =
      std::function<void(v1::Command command, CallPtr call, CallDone done, TakeAnswer take)>;
  explicit TtlKeeper(Write write) : write_(std::move(write)) {}

  // Answers a serialized v1::KeepAliveTtlResponse; NOT_FOUND (TTL_NOT_FOUND); or what became of the
  // write that carried it. Every `done` runs once, as soon as its call is cancelled at the latest.
  void Renew(uint64_t ttl, const CallPtr& call, CallDone done);

 private:
  struct Renewal;
  using RenewalPtr = std::shared_ptr<Renewal>;
  struct Batch;

  void SendAll();
  // True: the write has ended already, so it is for the caller to send the next one.
  bool SendOne();
  void Finish(const std::shared_ptr<Batch>& batch, const grpc::Status& status);

  const Write write_;
  std::mutex mutex_;  // protects what follows
  std::vector<RenewalPtr> waiting_;
  bool sending_ = false;  // a write is on its way, or about to be
};

}  // namespace quorate::services
