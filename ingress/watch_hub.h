// The watch hub: tells each watch of this node every change that it asked for, once, in order.
//
// Pure: no clock, no gRPC, no thread, no SQLite; time comes in, one Output comes out. What carries
// it is services/watch_service. The simulator runs this same class. DESIGN.md, sections 3 and 4.
//
// The life of a watch:
//   1. Subscribe. A start that this node does not show yet waits until it does, until a leader has
//      been heard that does not have it either (REVISION_IN_FUTURE), or for ten seconds (BEHIND).
//   2. With an initial state, or when the history that it needs is compacted (`reset`): the state
//      at one revision is read in portions; then `synced`; its changes begin after that revision.
//   3. Catching up: it begins in the past, or fell behind. Its changes are read from history in
//      bounded portions, each when the one before has been taken, until it has met the head.
//   4. Live: OnApplied puts what it wants into its queue. Messages are encoded once for all watches
//      of the same shape (filter, with_previous). When the queue is full, or all queues together,
//      the watch goes back to 3: applying waits for nobody, and a client that never reads costs its
//      queue and one message.
// Positions are what keeps 2, 3 and 4 together: a watch has `next`, the first change that is not in
// its queue yet; history portions move it on, and OnApplied gives it only what is not below it.
//
// Bounds: watches, bytes and messages of one queue, bytes of all queues and of what is given out (a
// message that many share counts once), reads under way. Not thread-safe. `now` never goes back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/change.h"
#include "base/ids.h"
#include "base/strong.h"
#include "base/time.h"

namespace quorate::ingress {

// The caller's name for one watch: not zero, never used twice.
using WatchId = Strong<struct WatchIdTag>;

struct WatchHubOptions {
  size_t watches_max = 10'000;
  // Of one watch's queue, in which live changes wait for the client; one message may exceed it.
  size_t queue_bytes_max = 4u << 20;
  size_t queue_messages_max = 4096;
  // Of all queues. Above it the longest ones are dropped (those watches catch up later), and no
  // reads begin.
  size_t total_bytes_max = 256u << 20;
  // Of the messages that were given out and not taken yet. Above it no reads begin, either: each
  // watch of a fleet that begins again with its state holds a message of about 1 MiB for as long as
  // its client takes. Whoever takes nothing is ended after `stall_max`.
  size_t in_flight_bytes_max = 1u << 30;
  size_t message_bytes = 1u << 20;  // about: where a revision or a state is cut
  size_t reads_max = 4;             // under way at a time
  // What a portion that is read may have; one item or change may exceed it.
  size_t read_bytes_max = 1u << 20;
  size_t read_rows_max = 4096;  // looked at, wanted or not
  // A read that found the database busy is tried again after this.
  Duration busy_backoff = std::chrono::milliseconds(100);
  // How long a start that this node does not show yet may wait.
  Duration future_wait = std::chrono::seconds(10);
  // A client that has taken nothing for this long is ended.
  Duration stall_max = std::chrono::seconds(60);
  // A watch is ended at this age, or up to a tenth earlier, so that not all end at once. Longer
  // than it no connection has to be kept for a watch (services/listen.cc).
  Duration age_max = std::chrono::minutes(25);
};

struct WatchSpec {
  KeyFilter filter;
  bool with_previous = false;
  uint64_t start_revision = 0;  // 0: after what the node shows now
  bool with_initial_state = false;
  Duration progress_interval = std::chrono::seconds(10);
};

// Why a watch ends. The service makes the status of it.
enum class WatchEndKind : uint8_t {
  kTooMany,           // RESOURCE_EXHAUSTED, TOO_MANY_WATCHES
  kRevisionInFuture,  // OUT_OF_RANGE, REVISION_IN_FUTURE
  kBehind,            // UNAVAILABLE, BEHIND
  kTooSlow,           // RESOURCE_EXHAUSTED, WATCH_TOO_SLOW
  kAge,               // UNAVAILABLE, CONNECTION_AGE
  kStopping,          // UNAVAILABLE, SHUTTING_DOWN
  kDraining,          // UNAVAILABLE, DRAINING
  kReadFailed,        // INTERNAL, READ_FAILED
};

struct WatchEnd {
  WatchEndKind kind = WatchEndKind::kStopping;
  std::string message;  // one sentence for people
  // What goes on after everything that was given out; 0: begin with an initial state.
  Revision resume;
  Revision head;  // what this node shows
};

// One message for one watch: v1::WatchResponse without its header.
struct WatchMessage {
  WatchId watch;
  Revision revision;                        // of the header
  std::shared_ptr<const std::string> body;  // shared by all watches that get it
};

// Something to be read; answer each with one of OnChanges, OnState and OnReadFailed.
struct WatchRead {
  uint64_t ticket = 0;
  WatchId watch{};     // whose it is; when that has ended nobody wants it any more
  bool state = false;  // else history
  KeyFilter filter;
  size_t bytes_max = 0;
  // History: the changes from `from` on that match the filter, looking at no more than `rows_max`.
  ChangePosition from;
  bool with_previous = false;
  size_t rows_max = 0;
  // State: the items that match, with keys greater than `after`, at `at` (nullopt: now).
  std::optional<Revision> at;
  std::string after;
};

// What a state portion holds: items as changes (neither sub nor previous).
struct WatchStatePortion {
  Revision revision;  // the store's at which it was read
  std::vector<Change> items;
  bool more = false;
};

class WatchHub {
 public:
  // `head` is the revision that the node shows at the start.
  WatchHub(const WatchHubOptions& options, Revision head);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // --- Inputs: clients ---

  // `shown` is a revision that this node has shown to somebody before the client came (its
  // state's): the hub may learn of it a little later, and the watch must not begin before it.
  void Subscribe(Instant now, WatchId id, const WatchSpec& spec, Revision shown);
  // The client went away: nothing more comes for this id, not even its end if that has not been
  // taken yet. Unknown ids (already ended) are ignored, here and in OnSent.
  void Cancel(WatchId id);
  // The message that was given out has been taken: the next one may go.
  void OnSent(Instant now, WatchId id);

  // --- Inputs: the state machine ---

  // The state now shows `head`. `sets` are the changes in between, in order; what is missing among
  // them (nobody collected it, or there was too much) is read from history by who needs it.
  void OnApplied(Instant now, Revision head, const std::vector<ChangeSetPtr>& sets);
  // Answers to a read. Tickets that the hub does not wait for any more are ignored.
  // `end`: every change that matches in [read.from, end) is in `changes`, in order; at the head it
  // is {head + 1, 0}.
  void OnChanges(Instant now, uint64_t ticket, const std::vector<Change>& changes,
                 ChangePosition end);
  void OnState(Instant now, uint64_t ticket, const WatchStatePortion& portion);
  enum class ReadFailure : uint8_t {
    kCompacted,  // the history, or the revision of the state, is not there any more
    kBusy,       // not now
    kFailed,     // the database cannot be read
  };
  void OnReadFailed(Instant now, uint64_t ticket, ReadFailure failure, const std::string& message);
  // The state was replaced by one that shows `head` and has history after `compacted` only (a
  // snapshot was installed, the store was restored): watches whose next change is there go on, the
  // others are reset. For a state whose past may differ: compacted = head.
  void OnReset(Instant now, Revision head, Revision compacted);

  // --- Inputs: the cluster ---

  void OnLeader(Instant now, bool known);
  // At `fresh_as_of` of this node's clock every acknowledged change was below or at `revision` of
  // this node's state. Only needed while wants_fresh().
  void OnFresh(Instant now, Instant fresh_as_of, Revision revision);

  // This node is drained: ends everything; later ones are taken.
  void EndAll(Instant now);
  // This node stops: ends everything; later ones end at once.
  void Close(Instant now);

  void Tick(Instant now);
  // When Tick next has something to do; Instant::max() when never.
  Instant NextDeadline() const;

  // --- Output ---
  struct Output {
    std::vector<WatchMessage> messages;  // at most one for each watch, until its OnSent
    std::vector<WatchRead> reads;
    std::vector<std::pair<WatchId, WatchEnd>> ends;  // forgotten: nothing more comes for these
    bool empty() const { return messages.empty() && reads.empty() && ends.empty(); }
  };
  // What there is to do. To be called after each round of inputs and after Tick.
  Output TakeOutput(Instant now);

  // --- Views ---
  enum class Wants : uint8_t { kNothing, kChanges, kPrevious };
  // What the state machine is to collect for OnApplied.
  Wants wants() const;
  // A start in the future waits: call OnFresh now and then.
  bool wants_fresh() const;
  struct Counters {
    uint64_t opened = 0;
    uint64_t messages = 0;
    uint64_t events = 0;   // of live changes and history, for each watch that they went to
    uint64_t encoded = 0;  // live messages: less than `messages` when they are shared
    uint64_t fell_behind = 0;
    uint64_t resets = 0;
    uint64_t reads = 0;
    uint64_t ended_slow = 0;
  };
  const Counters& counters() const;
  size_t watches() const;
  size_t catching_up() const;   // of them: not live
  size_t queued_bytes() const;  // of all queues, shared messages once
  Revision head() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::ingress
