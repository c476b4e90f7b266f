// What waits for the node's thread. Any thread puts in, the node's thread takes everything at once.
//
// Bounds. Messages from peers: a count; the rest is dropped, as a network would. Proposals: a
// count; the rest is refused. Notices of the node's own threads (persisted, applied, log reads) are
// never dropped, or the core would wait for ever; they cannot pile up either: of the first two only
// the latest counts, and at most one log read for a peer is under way, and one snapshot.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/time.h"
#include "raft/core/core.h"
#include "raft/node.h"

namespace quorate::raft {

class Inbox {
 public:
  struct Proposals {
    Term term;
    std::vector<Core::Proposal> proposals;
    Node::ProposeDone done;
  };
  struct ReadDone {
    StoreId peer;
    Index from;
    std::vector<EntryPtr> entries;
  };
  // Of the members, or of the leader: exactly one `done` is set.
  struct Change {
    MembershipChange members;
    Node::ChangeDone members_done;
    StoreId target;
    Node::TransferDone transfer_done;
  };
  struct Question {
    ReadMode mode;
    Node::ReadDone done;
  };
  struct Batch {
    std::vector<Message> messages;
    std::vector<Question> questions;
    std::vector<Proposals> proposals;
    std::vector<Change> changes;
    std::optional<Ticket> persisted;
    std::optional<Index> applied;
    std::vector<ReadDone> reads;
    std::vector<SnapshotRequest> failed_snapshots;
    bool birth_complete = false;  // an installed snapshot says so; comes with `applied`
    bool empty() const {
      return messages.empty() && questions.empty() && proposals.empty() && changes.empty() &&
             !persisted && !applied && reads.empty() && failed_snapshots.empty();
    }
  };
  enum class Put { kTaken, kFull, kClosed };

  Inbox(size_t messages_max, size_t proposals_max)
      : messages_max_(messages_max), proposals_max_(proposals_max) {}

  Put PutMessage(Message message) {
    return Alter([&] {
      if (batch_.messages.size() >= messages_max_) {
        ++dropped_;
        return Put::kFull;
      }
      batch_.messages.push_back(std::move(message));
      return Put::kTaken;
    });
  }

  // Leaves `proposals` alone unless it is taken. A call is taken as a whole or not at all; one that
  // is larger than the bound is taken by an empty inbox.
  Put PutProposals(Proposals& proposals) {
    return Alter([&] {
      const size_t count = proposals.proposals.size();
      if (proposals_ > 0 && proposals_ + count > proposals_max_) return Put::kFull;
      proposals_ += count;
      batch_.proposals.push_back(std::move(proposals));
      return Put::kTaken;
    });
  }

  // Leaves `change` alone unless it is taken.
  Put PutChange(Change& change, size_t changes_max) {
    return Alter([&] {
      if (batch_.changes.size() >= changes_max) return Put::kFull;
      batch_.changes.push_back(std::move(change));
      return Put::kTaken;
    });
  }

  // Leaves `question` alone unless it is taken. Whoever calls bounds them.
  Put PutQuestion(Question& question) {
    return Alter([&] { return batch_.questions.push_back(std::move(question)), Put::kTaken; });
  }

  // After Close nobody wants to know any more.
  void PutPersisted(Ticket ticket) {
    Alter([&] { return batch_.persisted = ticket, Put::kTaken; });
  }
  void PutApplied(Index index) {
    Alter([&] { return batch_.applied = index, Put::kTaken; });
  }
  void PutInstalled(Index index, bool birth_complete) {
    Alter([&] {
      batch_.applied = index;
      batch_.birth_complete = batch_.birth_complete || birth_complete;
      return Put::kTaken;
    });
  }
  void PutSnapshotFailed(const SnapshotRequest& request) {
    Alter([&] { return batch_.failed_snapshots.push_back(request), Put::kTaken; });
  }
  void PutRead(ReadDone done) {
    Alter([&] { return batch_.reads.push_back(std::move(done)), Put::kTaken; });
  }

  Batch Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    proposals_ = 0;
    return std::exchange(batch_, {});
  }

  // Refuses messages and proposals from now on.
  void Close() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Until there is something, or Close, or for `time`. False: closed.
  bool Wait(Duration time) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, time, [this] { return closed_ || !batch_.empty(); });
    return !closed_;
  }

  uint64_t dropped() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return dropped_;
  }

 private:
  template <typename F>
  Put Alter(F change) {
    bool wake;
    Put put;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return Put::kClosed;
      wake = batch_.empty();  // otherwise the node's thread is awake, or has been woken
      put = change();
    }
    if (wake && put == Put::kTaken) changed_.notify_one();
    return put;
  }

  // Constant after construction.
  const size_t messages_max_;
  const size_t proposals_max_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Protected by mutex_.
  Batch batch_;
  size_t proposals_ = 0;
  uint64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace quorate::raft
