// Where the peers may be: static `peers`, or a DNS name that is looked into again and again, behind
// one door. Says only where to ask; who is there, each address says itself (Raft.Identify).
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/time.h"
#include "discovery/peer_addresses.h"
#include "discovery/resolve.h"

namespace quorate::discovery {

// Where to ask, and who should be there: empty when only DNS says that somebody is.
struct PeerAddress {
  std::string address;
  std::string name;
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

class Discovery {
 public:
  struct Options {
    // With `dns` empty this is all that there is, and there is no thread.
    std::vector<PeerAddress> peers = {};
    std::string dns = {};  // a name for Resolve()
    ResolveOptions resolve = {};
    PeerAddresses::Options refresh = {};
  };
  struct Ports {
    std::function<Instant()> now;  // any thread
    // Where to ask, as a whole; for the first time once anything is known. From Start for static
    // peers, otherwise on the thread of this class, which must not be stopped from there.
    // `whole`: there has been an answer that lacked nothing (PeerAddresses::whole).
    std::function<void(std::vector<PeerAddress>, bool whole)> changed;
    // The latest look has failed (OK: it works again). The same thread; only when that changes.
    std::function<void(const absl::Status&)> failed;
  };

  Discovery(Options options, Ports ports);
  ~Discovery();  // Stop()s

  void Start();
  // Ends the thread within milliseconds, whatever DNS does. No port is used afterwards.
  void Stop();

  // --- Any thread, never blocks; nothing happens with static peers ---
  void SetEager(bool eager);
  void OnPeerLost();

 private:
  void Run();
  // One question. REQUIRES: `lock` is held; released meanwhile.
  void Ask(std::unique_lock<std::mutex>* lock);

  const Options options_;
  const Ports ports_;
  int wake_ = -1;  // an eventfd: ends an open question

  std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  PeerAddresses addresses_;
  bool stopped_ = false;

  absl::Status told_;  // the thread's own: what `failed` was told last
  std::thread thread_;
};

}  // namespace quorate::discovery
