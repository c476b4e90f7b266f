// quorate.v1.Config: from a request's bytes to its answer, however gRPC dispatches it.
//
// Reads: parsed and checked on the caller's thread, judged (services/read_gate.h), then read from
// SQLite on the read pool. A linearizable read first gets a read index, again and again while there
// is no leader. A read that has to wait is parked and judged again by Tick; it holds no thread.
// Writes: parsed, checked and handed to the ingress; the outcome comes back on whatever thread
// applied it.
//
// Errors: services/validate.h, services/request_parser.h and services/read_gate.h say theirs.
// Beside them: KEY_NOT_FOUND (NOT_FOUND), REVISION_COMPACTED (OUT_OF_RANGE), LEASES_OFF
// (FAILED_PRECONDITION), TOO_MANY_READS (RESOURCE_EXHAUSTED), NO_LEADER (linearizable reads),
// NOT_BORN, READERS_BUSY and SHUTTING_DOWN (UNAVAILABLE), READ_DEADLINE (DEADLINE_EXCEEDED),
// READ_FAILED (INTERNAL), and what the state machine answers to a write (REVISION_MISMATCH, ...).
//
// Every method may be called from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "ingress/ingress.h"
#include "quorate/v1/config.pb.h"
#include "raft/node.h"
#include "services/call_context.h"
#include "services/page_pins.h"
#include "services/read_gate.h"
#include "services/read_pool.h"
#include "services/ttl_keeper.h"
#include "storage/state.h"

namespace quorate::services {

// What Config works with once this store is born and its node runs. Everything in it outlives the
// service's Stop.
struct ConfigBackend {
  ClusterId cluster;
  storage::State* state = nullptr;
  // The latest; never null.
  std::function<std::shared_ptr<const raft::NodeStatus>()> status;
  // As Node::RequestRead.
  std::function<void(raft::ReadMode mode, raft::Node::ReadDone done)> read_index;
  // Durable: this store has caught up with a leader since it was made.
  std::function<bool()> caught_up_once;
  bool joined = false;  // let into the cluster, not born with it
  // As Forwarder::Write and Forwarder::Cancel.
  std::function<ingress::WriteId(v1::Command command, Instant deadline,
                                 std::map<std::string, std::string> metadata,
                                 std::function<void(const ingress::Outcome&)> done)>
      write;
  std::function<bool(ingress::WriteId)> cancel;
};

// Reads that wait for a leader or a revision, at most: each is judged again every few milliseconds.
inline constexpr size_t kParkedReadsMax = 10'000;

class ConfigService {
 public:
  // `node_id` is the configured name; `now` the boot-time clock. The pool outlives the service.
  ConfigService(std::string node_id, ReadPool* pool, std::function<Instant()> now);
  ~ConfigService();

  // Until this is called every call is answered UNAVAILABLE (NOT_BORN; reads NOT_CAUGHT_UP). Once.
  void SetBackend(std::shared_ptr<const ConfigBackend> backend);

  // `method` is the RPC's name without its service, such as `Get`; `Write` is one message of that
  // stream (services/write_stream.h), and so is `KeepAliveTtl`. What is declared and not built
  // yet answers UNIMPLEMENTED naming it. `done` runs exactly once.
  void Handle(std::string_view method, std::string request, CallPtr call, CallDone done);

  // Judges the parked reads again, and refuses those whose question for a read index has not been
  // answered in time. To be called every few milliseconds while has_waiting() or has_asked(), and
  // when the node's status has changed.
  void Tick();
  // `wake` is called when a read begins to wait, so that Tick comes soon: on any thread, without a
  // lock; must not block. Set before SetBackend.
  void OnWaiting(std::function<void()> wake) { wake_ = std::move(wake); }
  bool has_waiting() const { return waiting_count_.load() > 0; }
  // Reads whose question is under way.
  bool has_asked() const { return asked_count_.load() > 0; }

  // Answers what is parked, what waits for the pool or is being read, and every later read and
  // write UNAVAILABLE (SHUTTING_DOWN). Writes that the ingress has are answered by it.
  void Stop();

  // The oldest revision that a page token of this process shows; 0: none was given out lately.
  Revision pinned_revision() const { return pins_.Oldest(now_()); }

 private:
  // One read on its way: what it asked for, and what to do once it may.
  struct Read;
  using ReadPtr = std::shared_ptr<Read>;

  std::shared_ptr<const ConfigBackend> backend() const;

  void Get(const std::string& bytes, CallPtr call, CallDone done);
  void List(const std::string& bytes, CallPtr call, CallDone done);
  void History(const std::string& bytes, CallPtr call, CallDone done);
  // The writes (services/config_writes.cc). `Write` is one write of a stream: a WriteRequest.
  static bool IsWrite(std::string_view method);
  void HandleWrite(std::string_view method, const std::string& bytes, CallPtr call, CallDone done);
  void HandleStreamed(const std::string& bytes, CallPtr call, CallDone done);
  template <typename Request>
  void ParseWrite(const std::string& bytes, CallPtr call, CallDone done);
  template <typename Request>
  void StartWrite(std::shared_ptr<const Request> request, bool streamed, CallPtr call,
                  CallDone done);

  // Time-to-lives (services/config_ttl.cc).
  void GrantTtl(const std::string& bytes, CallPtr call, CallDone done);
  void RevokeTtl(const std::string& bytes, CallPtr call, CallDone done);
  void KeepAliveTtl(const std::string& bytes, CallPtr call, CallDone done);

  void StartRead(ReadPtr read, const v1::ReadOptions& options);
  // Asks for the read index that this read needs; parks or refuses when it may not yet.
  void AskIndex(const ReadPtr& read, bool wake);
  void TakeIndex(const ReadPtr& read, const raft::ReadResult& result);
  // Whose question is under way, by when it is refused for want of an answer. Who takes a read out
  // answers it.
  using AskedReads = std::multimap<Instant, ReadPtr>;
  void RefuseUnanswered();
  void Park(const ReadPtr& read, bool wake);
  // Serves, parks or refuses; `wake` unless Tick asks. REQUIRES: mutex_ is not held.
  void Judge(const ReadPtr& read, bool wake = true);
  // On the pool.
  void RunRead(const ReadPtr& read, std::optional<Instant> fresh_as_of);
  // Somebody still waits for its answer.
  bool Wanted(const Read& read) const;
  // What a read that is not wanted is answered.
  grpc::Status WhyNotWanted(const Read& read) const;
  // The serialized response of a write that was executed; nullopt when the answer (a peer's bytes)
  // is not one to it.
  using MakeResponse = std::function<std::optional<std::string>(const v1::Answer& answer,
                                                                const v1::ResponseHeader& header)>;
  void Write(v1::Command command, CallPtr call, CallDone done, MakeResponse make_response);

  const std::string node_id_;
  ReadPool* const pool_;
  const std::function<Instant()> now_;
  PagePins pins_;
  std::function<void()> wake_;  // set before the first call
  TtlKeeper ttl_keeper_;

  std::atomic<size_t> waiting_count_ = 0;
  std::atomic<size_t> asked_count_ = 0;
  // Set under mutex_, so that nothing is parked after Stop; read everywhere.
  std::atomic<bool> stopped_ = false;
  mutable std::mutex mutex_;  // protects what follows
  std::shared_ptr<const ConfigBackend> backend_;
  std::vector<ReadPtr> waiting_;
  AskedReads asked_;
};

// The header of an answer by `node_id` with this status. `revision` and `staleness` are the
// caller's.
v1::ResponseHeader MakeResponseHeader(const std::string& node_id, ClusterId cluster,
                                      const raft::NodeStatus& status);

}  // namespace quorate::services
