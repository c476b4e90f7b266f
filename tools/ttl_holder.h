// Holds a time-to-live: grants it, keeps it alive from a thread of its own over every endpoint, and
// says how long it certainly lives on.
//
// What it says is on the safe side: a life is counted from before its renewal was sent, and the
// cluster counts from when it was applied. So when `time_left` is zero or less the cluster may
// have ended it, and never before.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "base/time.h"
#include "tools/client.h"

namespace quorate::tools {

class TtlHolder {
 public:
  // `client` outlives this.
  TtlHolder(Client& client, std::chrono::milliseconds ttl) : client_(client), ttl_(ttl) {}
  ~TtlHolder() { StopRenewing(); }
  TtlHolder(const TtlHolder&) = delete;
  TtlHolder& operator=(const TtlHolder&) = delete;

  // Asks for it, and renews it from now on. Once.
  CallResult Grant();
  const std::string& id() const { return id_; }
  // From now on it is lost as well when this key, bound to it and created at `revision`, is not
  // what it was: somebody has deleted it, or put it anew. Any node is asked, every second or every
  // third of the time, and must not be behind for longer than two seconds.
  void Guard(const std::string& key, uint64_t revision);

  // Any thread.
  Duration time_left() const;
  // Why it is certainly lost, for people; nullptr: it is not.
  const char* lost() const { return lost_; }
  // Why it is not what it should be, for people; empty: nothing has gone wrong lately.
  std::string trouble() const;

  // Ends it, and deletes what is bound to it. What is not reached expires by itself.
  CallResult Revoke();

 private:
  void StopRenewing();
  void Renew();
  // One attempt each, at the endpoint that is next. False: it is lost.
  bool RenewOnce();
  bool CheckKeyOnce();
  Duration CheckInterval() const;
  Duration Attempt() const;  // how long one may take
  grpc::Status RenewAt(Endpoint& endpoint) const;

  Client& client_;
  const std::chrono::milliseconds ttl_;
  std::string id_;  // constant after Grant
  std::atomic<const char*> lost_ = nullptr;

  mutable std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  bool stopped_ = false;
  Instant lives_until_;
  std::string key_;
  uint64_t key_revision_ = 0;
  std::string trouble_;
  std::thread thread_;

  // The thread's own.
  Instant renew_at_;
  Instant check_at_;
  size_t renew_endpoint_ = 0;
  size_t check_endpoint_ = 0;
  size_t failures_ = 0;  // renewals, in a row
};

}  // namespace quorate::tools
