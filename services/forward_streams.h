// The Forward RPC's two ends, as the forward thread sees them: plain objects whose events arrive as
// functions posted to that thread. Internal to services/forwarder.cc.
//
// All state of both belongs to the forward thread; gRPC's threads only parse, post, and read on.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/ids.h"
#include "base/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/server_callback.h"
#include "ingress/ingress.h"
#include "quorate/v1/raft.grpc.pb.h"
#include "services/peer_channels.h"
#include "services/peer_codec.h"
#include "services/write_intake.h"

namespace quorate::services {

// Runs a function on the forward thread, later; any thread. It outlives every stream.
using ForwardPost = std::function<void(std::function<void()>)>;

// True when `command` is a serialized v1::Command whose session position is exactly this. Reads
// only that field (payloads are large), whatever the format: storage::CheckCommand judges the rest.
bool HasPosition(const std::string& command, const ingress::SessionId& session, uint64_t sequence);

// This node's stream to the leader. Made, used and dropped on the forward thread; deletes itself
// after `ended` has been posted, which is its last event.
class ForwardClientStream final
    : public grpc::ClientBidiReactor<v1::ForwardRequest, v1::ForwardResponse> {
 public:
  struct Events {
    // Each runs on the forward thread.
    std::function<void(v1::ForwardResponse)> received;
    std::function<void()> written;  // the write is done: the next may be made
    std::function<void()> broken;   // nothing more will be received or written
    std::function<void()> ended;
  };
  ForwardClientStream(PeerSelf self, StoreId leader, PeerChannels::Stub stub, ForwardPost post,
                      Events events);

  void Begin();
  // One at a time: not before `written`, not after `broken`.
  void Write(v1::ForwardRequest request);
  bool can_write() const { return !writing_ && !broken_; }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void Break();

  const PeerSelf self_;
  const StoreId leader_;
  const PeerChannels::Stub stub_;
  const ForwardPost post_;
  const Events events_;
  grpc::ClientContext context_;
  v1::ForwardRequest request_;    // while writing_: gRPC's
  v1::ForwardResponse response_;  // the pending read's: gRPC's
  // The forward thread's.
  bool writing_ = false;
  bool broken_ = false;
  bool held_ = true;
};

// Another node's stream to this one, the leader (as far as that node knows). A sink of the intake.
// The reactor deletes itself when gRPC is done with it; this object lives in the forwarder's map
// until then.
class ForwardServerStream final : public IntakeSink {
 public:
  class Reactor;
  ForwardServerStream(PeerSelf self, Reactor* reactor) : self_(self), reactor_(reactor) {}

  // --- Events, on the forward thread ---
  void OnMessage(const std::shared_ptr<ForwardServerStream>& me, v1::ForwardRequest message,
                 WriteIntake* intake);
  void OnWritten(bool ok);
  void OnClosed(WriteIntake* intake);  // no more messages: cancelled, or the other side is done
  // Sends what the sink's calls below have left since: once a round, so that answers share
  // messages.
  void Flush() { Settle(); }
  // Ends it with a status; nothing is written afterwards. Repeats are ignored.
  void End(const grpc::Status& status);

  // --- IntakeSink ---
  void Opened(const ingress::AppliedSession& session) override;
  void Answer(const ingress::SessionId& session, uint64_t sequence,
              std::shared_ptr<const std::string> answer) override;
  void Refused(const ingress::SessionId& session, uint64_t from_sequence) override;
  void SessionUnknown(const ingress::SessionId& session, const std::string& reason) override;
  void NotLeader(StoreId leader) override;

  void set_term(uint64_t term) { term_ = term; }

 private:
  // Tells the other side that no node of this build could apply a command.
  void Reject(uint64_t sequence, const absl::Status& why);
  v1::ForwardResponse* Add(const ingress::SessionId& session);
  void WriteNext();
  void Settle();

  const PeerSelf self_;
  Reactor* reactor_;  // null once Finish was called
  StoreId peer_;      // who it is, by its first message
  uint64_t term_ = 0;
  ingress::SessionId session_;  // opened on this stream
  std::optional<Instant> rejection_logged_at_;
  uint64_t rejections_unlogged_ = 0;
  std::deque<v1::ForwardResponse> out_;
  size_t answer_bytes_ = 0;  // of the last message in out_
  bool writing_ = false;
  std::unique_ptr<grpc::Status> ending_;  // Finish with it when nothing is being written any more
};

// The gRPC side of a ForwardServerStream: posts what happens, as functions that find the stream by
// themselves.
class ForwardServerStream::Reactor final
    : public grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardResponse> {
 public:
  struct Events {
    // Called on gRPC's threads.
    std::function<void(v1::ForwardRequest)> received;
    std::function<void(bool)> written;
    std::function<void()> closed;
    // The last one: whoever gets it deletes the reactor, on the forward thread, which has seen
    // all of its other events.
    std::function<void(Reactor*)> ended;
  };
  // Nothing is read before ReadNext.
  explicit Reactor(Events events) : events_(std::move(events)) {}
  void ReadNext() { StartRead(&request_); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  friend class ForwardServerStream;

  const Events events_;
  v1::ForwardRequest request_;    // the pending read's
  v1::ForwardResponse response_;  // the pending write's; the forward thread fills it
};

}  // namespace quorate::services
