// Carries the core's messages to and from the other nodes (raft::Transport over gRPC).
//
// Out: one AppendEntries stream to each peer that this node leads, one RequestVote or ReadIndex
// call for each question. Snapshots have a transport of their own (services/snapshot_sender.h), but
// for this node's answers. In: RaftService hands what it received to the node, and registers here
// where the node's replies go: an AppendEntriesReply to the latest inbound stream of that peer, a
// RequestVoteReply to the call that asked.
//
// Everything may be lost: a message to a peer that is not connected, or whose queue is full, is
// dropped. Raft repeats what matters. Heartbeats have a place of their own beside the queue, in
// which the newest replaces the older ones, and leave before any data that still waits: so they are
// never starved by bulk, and a full queue never silences a leader.
//
// Any thread; Send never blocks on a network.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "raft/node.h"
#include "raft/ports.h"
#include "services/peer_channels.h"

namespace quorate::services {

struct PeerTransportOptions {
  ClusterId cluster;
  StoreId self;
  // A vote that has not been answered by then is worth nothing any more: about the largest election
  // timeout.
  Duration vote_timeout = std::chrono::milliseconds(300);
  // Per peer. The core's own in-flight bounds are lower, so that these hold only while a peer is
  // being dialled or cannot read.
  size_t queue_bytes_max = 16u << 20;
  size_t queue_messages_max = 1024;
  // A broken stream is dialled again after this, doubled up to the maximum while it fails.
  Duration redial_min = std::chrono::milliseconds(20);
  Duration redial_max = std::chrono::milliseconds(500);
  // A stream that carries nothing for this long is ended: this node no longer leads.
  Duration idle_max = std::chrono::seconds(10);
};

class PeerTransport final : public raft::Transport {
 public:
  // `channels` outlives this.
  PeerTransport(const PeerTransportOptions& options, PeerChannels* channels);
  ~PeerTransport() override;  // Stop()s

  // Where replies from peers go. Before the node's Start; until then they are dropped.
  void Start(raft::Node* node);
  // Ends all streams and calls and waits until none is left: nothing is given to the node
  // afterwards. Inbound streams are RaftService's and end with its server.
  void Stop();

  void Send(std::vector<raft::Message> messages) override;

  // --- For RaftService; any thread ---

  // The reply's way back to a peer's inbound AppendEntries stream. `write` must not block and may
  // be called until the same id is removed; a newer stream of the peer takes over.
  using WriteReply = std::function<void(const raft::AppendEntriesReply&)>;
  uint64_t AddInbound(StoreId peer, WriteReply write);
  void RemoveInbound(StoreId peer, uint64_t id);

  // A RequestVote came in: `answer` runs at most once, with the reply whose call_id is the one
  // returned here, unless RemoveVote returns true first. 0: too many calls are open.
  using AnswerVote = std::function<void(const raft::RequestVoteReply&)>;
  uint64_t AddVote(AnswerVote answer);
  bool RemoveVote(uint64_t call_id);

  // Where this node's answers to snapshots go. Set before Start; must not block.
  using SnapshotReplyHook = std::function<void(const raft::InstallSnapshotReply&)>;
  void OnSnapshotReply(SnapshotReplyHook hook);

  // As AddVote and RemoveVote, for a ReadIndex.
  using AnswerRead = std::function<void(const raft::ReadIndexReply&)>;
  uint64_t AddRead(AnswerRead answer);
  bool RemoveRead(uint64_t call_id);

  struct Counters {
    uint64_t sent = 0;     // messages given to gRPC
    uint64_t dropped = 0;  // not connected, or the queue was full
    uint64_t dials = 0;
    uint64_t streams = 0;  // outgoing, connected now
  };
  Counters counters() const;

  static constexpr size_t kVotesMax = 1024;
  static constexpr size_t kReadsMax = 1024;

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace quorate::services
