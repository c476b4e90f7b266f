// The driver's ports: what `Node` needs from the world. Each has two real consumers, production
// and the deterministic simulator, and is owned by whoever composes the node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/time.h"
#include "raft/core/core.h"

namespace quorate::raft {

// The durable log. Append, Sync and Cut are called by one thread at a time (Node::RunLogOnce); Read
// and TailStart may be called from other threads at the same time.
//
// Failure is not an answer here: an implementation that cannot write, sync or read what it has
// acknowledged ends the process with the reason (production), or crashes the simulated node.
class LogStore {
 public:
  virtual ~LogStore() = default;
  // Writes cut, hard state, install and entries, in that order. Not durable before Sync.
  virtual void Append(const Persist& persist) = 0;
  // Makes everything appended durable. One flush.
  virtual void Sync() = 0;
  // Entries [from, last] up to `bytes` (at least one); empty when `from` is no longer on disk.
  virtual std::vector<EntryPtr> Read(Index from, Index last, size_t bytes) = 0;

  // Everything up to `through`, which is not needed any more, may go; the log may keep some of it.
  virtual void Cut(Index through) = 0;
  // From here on the log is about `bytes` long (at least; all of it when it is shorter).
  virtual Index TailStart(uint64_t bytes) = 0;

  // The mark: a record that vouches for what was synced before it, so that later damage to the
  // newest batch is told from a torn write (storage/LOG_FORMAT.md, "Marks"). Called where Append
  // and Sync are. WantsMark: something synced has no witness yet. When that is so and the log has
  // had no new work for kMarkDelay the driver calls WriteMark, which appends and syncs one.
  static constexpr Duration kMarkDelay = std::chrono::milliseconds(50);
  virtual bool WantsMark() = 0;
  virtual void WriteMark() = 0;
};

// Sends without ever blocking; may drop, delay, repeat. Any thread.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual void Send(std::vector<Message> messages) = 0;
};

// Applies committed entries in order, on one thread (Node::RunApplyOnce), which calls Install and
// MakeDurable too.
class StateMachine {
 public:
  virtual ~StateMachine() = default;
  // On return the entries are applied. Ends the process when it cannot.
  virtual void Apply(const std::vector<EntryPtr>& entries) = 0;
  // Becomes the received state that the record names, which is complete and durable, as is the
  // record. Returns whether birth is complete in it. Ends the process when it cannot.
  virtual bool Install(const InstallRecord& record) = 0;
  // Tries to make what is applied durable now (durable_applied), because the log waits for it.
  virtual void MakeDurable() = 0;
  // What a power failure would leave applied. Any thread.
  virtual Index durable_applied() = 0;
};

// Sends this node's state to a peer that the log cannot serve.
class SnapshotSender {
 public:
  virtual ~SnapshotSender() = default;
  // Takes the request and returns at once (the node's thread). Copying and sending take as long as
  // they take; then the peer's InstallSnapshotReply goes to Node::Receive, or Node::SnapshotFailed
  // is called, one of the two for each request.
  virtual void Send(const SnapshotRequest& request) = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() = 0;
  virtual WallMilliseconds WallNow() = 0;
};

}  // namespace quorate::raft
