// Runs raft::Birth: carries its calls over gRPC, keeps its record in the identity file, makes the
// log when it says so, and stops this node when another process has its store id.
//
// Threads: Identify, Propose, Born and Invited run on gRPC's threads and may write the identity
// file there (rare and small); everything else happens on a thread of its own. One lock around the
// state machine is held while its record is made durable: nothing is said before that.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "raft/birth.h"
#include "services/birth_client.h"
#include "storage/identity.h"

namespace quorate::services {

class BirthRunner {
 public:
  struct Ports {
    storage::IdentityFile* identity = nullptr;
    // Null without a peer port: then nobody is asked, and this node is born alone.
    BirthClient* client = nullptr;
    // Makes the log and the state, durably; called again after a crash in between. Birth thread. An
    // error ends the process.
    std::function<absl::Status(const raft::BirthOutput::CreateLog&)> create_log;
    // The store is born and has its log: it may be opened. Birth thread, at most once, and not when
    // it was so at the start already.
    std::function<void()> born;
    // No other process with this store id was found (raft::Birth::may_run): the node may take part
    // in Raft. Birth thread, after `born`, at most once, never after `halt`.
    std::function<void()> run;
    // Another live process has this store id: stop voting and serving, now. Birth thread, at most
    // once; on return that must be so.
    std::function<void(const std::string& reason)> halt;
    // An address that had answered does not: whoever was there may have moved. Any of gRPC's
    // threads; may be null.
    std::function<void()> peer_lost;
    // The last word after `halt`: end the process. Must not return.
    std::function<void(const std::string& reason)> exit;
  };

  BirthRunner(const raft::BirthOptions& options, const raft::BirthRecord& record, Ports ports);
  ~BirthRunner();  // Stop()s

  void Start();
  // Where to ask, as a whole: this node's own entry included or not. Any thread. Until the first
  // time nothing happens but answers to others (raft::Birth::SetAddresses).
  void SetAddresses(std::vector<raft::PeerAddress> addresses, bool whole);
  // Ends the thread. Stop the client first: its replies come here.
  void Stop();

  // --- RaftService's handlers; any thread ---
  raft::IdentifyReply Identify(const raft::IdentifyRequest& request);
  raft::PledgeReply Propose(const raft::Propose& request);
  raft::BornReply Born(const raft::Born& request);
  raft::Refusal Invited(const raft::Invitation& invitation);

  // --- From the node, never blocks ---
  void OnMembership(const raft::Membership& membership);
  void OnBirthComplete();
  void OnCaughtUp();

  raft::BirthStatus Status() const;
  std::vector<raft::Newcomer> Newcomers() const;

 private:
  // Makes the output's record durable, and gives the rest to the thread. REQUIRES: mutex_ held.
  void Process();
  void Run();
  // One round of what the thread does without the lock.
  void Act(std::unique_lock<std::mutex>* lock);
  // REQUIRES: mutex_ held.
  bool RunWanted() const { return !ran_ && birth_.may_run(); }
  void LogStatus();
  void NoteReachable(const std::string& address, bool reachable);
  void Save(const raft::BirthRecord& record);

  const Ports ports_;
  const Duration call_timeout_;

  mutable std::mutex mutex_;  // protects what follows
  std::condition_variable changed_;
  raft::Birth birth_;
  bool stopped_ = false;
  // Work for the thread.
  std::vector<raft::BirthCall> calls_;
  std::optional<raft::BirthOutput::CreateLog> create_log_;
  std::optional<std::string> halt_;
  bool exit_ = false;
  std::optional<raft::Membership> membership_;
  bool complete_ = false;
  bool ran_ = false;
  std::set<std::string> reachable_;  // addresses whose latest call was answered

  std::string halt_reason_;                 // birth thread
  std::optional<raft::BirthState> logged_;  // birth thread: what was said last
  std::vector<std::string> logged_lacks_;
  Instant logged_at_;
  std::thread thread_;
};

}  // namespace quorate::services
