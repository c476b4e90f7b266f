// What a leader knows of one peer, and how it sends to it.
//
//   kProbe      where the logs agree is not known yet: one append at a time, at `next`
//   kReplicate  agreed up to `match`: appends are pipelined, `next` runs ahead of the answers
//   kSnapshot   what the peer needs is no longer in the log on disk: heartbeats only, until a
//               snapshot is there
//
// Every change of state goes through one of the Become functions, which reset what belongs to the
// state: bytes in flight that outlive their state would stop replication for ever (etcd-raft
// e419ba5).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "raft/core/types.h"

namespace quorate::raft {

// Appends that are sent and not acknowledged, oldest first; `last` ascends.
class Inflights {
 public:
  struct Sent {
    Index last;  // the last entry of that append, and its term
    Term term;
    uint64_t bytes;
  };

  void Add(const Sent& sent) {
    bytes_ += sent.bytes;
    sent_.push_back(sent);
  }
  // Everything up to `match` has arrived; the term of the entry at `match` if an append ended
  // there.
  std::optional<Term> FreeTo(Index match) {
    std::optional<Term> term;
    while (!sent_.empty() && sent_.front().last <= match) {
      if (sent_.front().last == match) term = sent_.front().term;
      bytes_ -= sent_.front().bytes;
      sent_.pop_front();
    }
    return term;
  }
  void Reset() {
    sent_.clear();
    bytes_ = 0;
  }
  bool empty() const { return sent_.empty(); }
  // Also true when one append has gone over: the bound is exceeded by one append at most.
  bool Full(size_t messages_max, size_t bytes_max) const {
    return sent_.size() >= messages_max || bytes_ >= bytes_max;
  }
  uint64_t bytes() const { return bytes_; }
  size_t messages() const { return sent_.size(); }

 private:
  std::deque<Sent> sent_;
  uint64_t bytes_ = 0;
};

enum class PeerState : uint8_t { kProbe, kReplicate, kSnapshot };

struct Progress {
  // --- Where the peer's log is ---
  PeerState state = PeerState::kProbe;
  Index match;                              // durable there, in this term
  std::optional<Term> match_term = Term();  // absent when the entry has left the window
  Index next;                               // the next entry to send
  std::optional<Term> prev_term;            // of next - 1; always known in kReplicate
  Inflights inflight;                       // kReplicate only
  bool probe_sent = false;  // kProbe: the append with entries at `next` has been sent
  Index told_commit;        // what the peer knows to be committed if nothing was lost
  bool heartbeat_due = false;
  Instant progress_at{};  // the oldest append in flight was sent, or `match` moved, or the tail was
                          // asked

  // --- Snapshots ---
  // Asked of the driver, and neither answered nor failed. Outlives kSnapshot: what is under way
  // does not end because the peer no longer needs it.
  bool snapshot_asked = false;
  Instant snapshot_retry_at{};  // kSnapshot: not asked again before
  Duration snapshot_backoff{};  // the last wait; 0: the last one did not fail

  // --- What it said last ---
  Index last_index;                     // the end of its log
  std::optional<Instant> last_contact;  // our clock, any answer of this term
  std::optional<Instant>
      acked_sent_at;         // our clock: when we sent the newest request that it answered
  Instant receiver_clock{};  // its clock in that answer, to be echoed
  Instant match_acked_at{};  // our clock: when `match` was told
  uint64_t read_round = 0;   // the newest round of reads that it has answered
  // The smallest election timeout that it has stated in this term; absent: it has said nothing.
  std::optional<Duration> election_timeout_min;
  bool lost_data = false;  // its log ended below `match`: never counted again in this term

  // --- Rounds of catching up (dissertation 4.2.1) ---
  Index round_end;  // the log's end when the round began
  Instant round_began{};
  bool caught_up = false;  // the last round took no longer than an election timeout

  // --- It is no member any more, and is served until it knows ---
  struct Leaving {
    Index index;  // the membership without it
    Instant since;
    std::optional<Instant> told_at;  // when it was told that this is committed
  };
  std::optional<Leaving> leaving;

  void BecomeProbe(Index next_index, std::optional<Term> term_before) {
    state = PeerState::kProbe;
    next = next_index;
    prev_term = term_before;
    inflight.Reset();
    probe_sent = false;
  }
  void BecomeReplicate(Index next_index, std::optional<Term> term_before) {
    state = PeerState::kReplicate;
    next = next_index;
    prev_term = term_before;
    inflight.Reset();
    probe_sent = false;
  }
  void BecomeSnapshot() {
    state = PeerState::kSnapshot;
    inflight.Reset();
    probe_sent = false;
  }
};

}  // namespace quorate::raft
