// The ingress: takes this node's clients' writes and sees each through to its one outcome.
//
// Pure: no clock, no gRPC, no thread; time comes in, one Output comes out. What carries it (the
// forwarding stream, or this node itself when it leads) is services/forwarder. The simulator runs
// this same class. DESIGN.md, "Exactly once"; the protocol as prose is in docs/architecture.md.
//
// Not thread-safe: the caller holds one lock around inputs and TakeOutput.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "quorate/v1/command.pb.h"
#include "raft/core/types.h"

namespace quorate::ingress {

// The caller's name for one submitted write.
using WriteId = Strong<struct WriteIdTag>;

struct IngressOptions {
  StoreId store;
  uint64_t boot = 0;
  uint64_t nonce = 0;
  size_t unanswered_max = 4096;  // sent and without an answer (DESIGN.md)
  size_t waiting_max = 65536;    // submitted and not yet sent; beyond: RESOURCE_EXHAUSTED
  size_t waiting_bytes_max = 64u << 20;
  size_t batch_bytes_max = 4u << 20;  // per SendWrites
  // How long a write may wait while there is no leader before UNAVAILABLE (NO_LEADER), if its own
  // deadline does not end the wait sooner.
  Duration leader_wait = std::chrono::seconds(3);
  // A waiting write is given up this long before its caller's deadline, so that the answer
  // still arrives.
  Duration deadline_margin = std::chrono::milliseconds(20);
};

// How a write ended.
struct Outcome {
  enum class Kind : uint8_t {
    kAnswered,     // applied (or refused by the state machine): `answer`
    kNotAccepted,  // certainly in no log: UNAVAILABLE/RESOURCE_EXHAUSTED with `reason`, retry is
                   // safe
    kUnknown,      // may or may not be applied: DEADLINE_EXCEEDED
  };
  Kind kind = Kind::kUnknown;
  std::shared_ptr<const std::string> answer;  // serialized v1::Answer
  std::string reason;                         // ErrorInfo reason: NO_LEADER, QUEUE_FULL, ...
  std::string message;
};

struct OutgoingWrite {
  uint64_t sequence = 0;
  std::shared_ptr<const std::string> command;  // serialized v1::Command
  Instant deadline;
  std::shared_ptr<const std::map<std::string, std::string>> metadata;
};

class Ingress {
 public:
  explicit Ingress(const IngressOptions& options);
  ~Ingress();

  // --- Inputs ---

  // A write of a client; `command` without its session position. Its end comes as Output::finished.
  void Submit(Instant now, WriteId id, v1::Command command, Instant deadline,
              std::map<std::string, std::string> metadata);
  // The client went away: nobody waits for the outcome any more (a write already sent still runs or
  // is replaced by Skip).
  void Cancel(Instant now, WriteId id);

  // A link to a leader is up (a new stream, a new leader, or this node now leads); `link` is a
  // number of the caller's that increases with each. Everything unanswered is sent again first, in
  // order.
  void LinkUp(Instant now, uint64_t link);
  // It broke, or the other side does not lead.
  void LinkDown(Instant now, uint64_t link);
  // Answers from the link; those of an older link are ignored, except answers of applied writes,
  // which are true whoever brings them.
  void OnOpened(Instant now, uint64_t link, uint64_t last_sequence);
  void OnAnswer(Instant now, uint64_t sequence, std::shared_ptr<const std::string> answer);
  void OnRefused(Instant now, uint64_t link, uint64_t from_sequence);
  void OnSessionUnknown(Instant now, uint64_t link, const std::string& reason);

  void Tick(Instant now);
  Instant NextDeadline() const;

  // --- Output ---
  struct Output {
    uint64_t link = 0;
    bool open = false;                  // send OpenSession first
    std::vector<OutgoingWrite> writes;  // then these, in order
    std::vector<std::pair<WriteId, Outcome>> finished;
    bool session_lost = false;  // needs a new session: the process must make a new boot/nonce
    bool empty() const { return !open && writes.empty() && finished.empty() && !session_lost; }
  };
  Output TakeOutput();

  struct Counters {
    uint64_t submitted = 0, sent = 0, resent = 0, skips = 0, answered = 0, unknown = 0,
             not_accepted = 0;
  };
  const Counters& counters() const;
  size_t unanswered() const;
  size_t waiting() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quorate::ingress
