#include "services/forward_streams.h"

#include <chrono>

#include "base/check.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "services/errors.h"
#include "services/logging.h"
#include "services/system_clock.h"
#include "storage/command_check.h"

namespace quorate::services {

namespace {

constexpr Duration kRejectionLogInterval = std::chrono::seconds(10);

// Of the answers in one message; one answer may exceed it.
constexpr size_t kAnswerBytesMax = 4u << 20;

}  // namespace

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

bool HasPosition(const std::string& command, const ingress::SessionId& session, uint64_t sequence) {
  CodedInputStream in(reinterpret_cast<const uint8_t*>(command.data()),
                      static_cast<int>(command.size()));
  bool position = false;
  while (const uint32_t tag = in.ReadTag()) {
    const int field = WireFormatLite::GetTagFieldNumber(tag);
    if (field == v1::Command::kSessionFieldNumber) {
      uint32_t size = 0;
      if (position || !in.ReadVarint32(&size)) return false;  // twice would be merged by a parser
      std::string bytes;
      v1::SessionPosition found;
      if (!in.ReadString(&bytes, static_cast<int>(size)) || !found.ParseFromString(bytes)) {
        return false;
      }
      position = StoreId(found.store()) == session.store && found.boot() == session.boot &&
                 found.nonce() == session.nonce && found.sequence() == sequence &&
                 found.answered_through() < sequence;
      if (!position) return false;
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      return false;
    }
  }
  return position && in.ConsumedEntireMessage();
}

// --- To the leader ---

ForwardClientStream::ForwardClientStream(PeerSelf self, StoreId leader, PeerChannels::Stub stub,
                                         ForwardPost post, Events events)
    : self_(self),
      leader_(leader),
      stub_(std::move(stub)),
      post_(std::move(post)),
      events_(std::move(events)) {}

void ForwardClientStream::Begin() {
  stub_->async()->Forward(&context_, this);
  AddHold();  // writes are started from outside of reactions
  StartRead(&response_);
  StartCall();
}

void ForwardClientStream::Write(v1::ForwardRequest request) {
  CHECK(can_write(), "one write at a time, and none after the end");
  request_ = std::move(request);
  *request_.mutable_header() = MakeHeader(self_.cluster, self_.store, leader_);
  writing_ = true;
  StartWrite(&request_);
}

void ForwardClientStream::OnReadDone(bool ok) {
  // A pending read keeps this alive; what is posted last runs before `ended`, in order.
  if (!ok) {
    post_([this] { Break(); });
    return;
  }
  const v1::PeerHeader& header = response_.header();
  if (CheckHeader(header, self_).ok() && StoreId(header.from_store()) == leader_) {
    post_([this, message = std::make_shared<v1::ForwardResponse>(std::move(response_))] {
      events_.received(std::move(*message));
    });
  } else {
    Cancel();  // whoever answers here is not the leader that was dialled
  }
  response_ = v1::ForwardResponse();
  StartRead(&response_);
}

void ForwardClientStream::OnWriteDone(bool ok) {
  post_([this, ok] {
    writing_ = false;
    if (!ok) broken_ = true;
    if (broken_) return Break();
    events_.written();
  });
}

// May run twice: when reading ends, and when the last write does.
void ForwardClientStream::Break() {
  broken_ = true;
  events_.broken();
  if (!writing_ && std::exchange(held_, false)) RemoveHold();
}

void ForwardClientStream::OnDone(const grpc::Status&) {
  const ForwardPost post = post_;  // outlives this, which may be gone before post returns
  post([this] {
    const auto ended = events_.ended;
    delete this;
    ended();
  });
}

// --- From other nodes ---

void ForwardServerStream::Reactor::OnReadDone(bool ok) {
  if (!ok) return events_.closed();
  events_.received(std::exchange(request_, v1::ForwardRequest()));
}

void ForwardServerStream::Reactor::OnWriteDone(bool ok) { events_.written(ok); }

// A read is not always pending; then only this tells.
void ForwardServerStream::Reactor::OnCancel() { events_.closed(); }

void ForwardServerStream::Reactor::OnDone() {
  const auto ended = events_.ended;  // outlives this
  ended(this);
}

void ForwardServerStream::OnMessage(const std::shared_ptr<ForwardServerStream>& me,
                                    v1::ForwardRequest message, WriteIntake* intake) {
  if (ending_ != nullptr || reactor_ == nullptr) return;
  const grpc::Status header = CheckHeader(message.header(), self_);
  if (!header.ok()) return End(header);
  const StoreId from(message.header().from_store());
  if (!peer_) peer_ = from;
  const auto malformed = [this](const char* what) {
    End(MakeError(grpc::StatusCode::INVALID_ARGUMENT, "MALFORMED", what));
  };
  if (from != peer_) return malformed("the sender changed within the stream");
  if (message.has_open()) {
    const v1::OpenSession& open = message.open();
    if (StoreId(open.store()) != peer_ || open.boot() == 0) {
      return malformed("the session is not one of the sender's");
    }
    session_ = {peer_, open.boot(), open.nonce()};
    intake->Open(me, session_);
  }
  for (v1::ForwardedWrite& write : *message.mutable_writes()) {
    if (ending_ != nullptr) return;  // NotLeader, or worse
    if (!session_.store || write.sequence() == 0 ||
        !HasPosition(write.command(), session_, write.sequence())) {
      return malformed("a write does not carry its position in the session of this stream");
    }
    // Once committed it would end every node.
    if (absl::Status status = storage::CheckCommand(write.command()); !status.ok()) {
      Reject(write.sequence(), status);
      continue;
    }
    intake->Write(me, session_, write.sequence(), std::move(*write.mutable_command()));
  }
  if (ending_ == nullptr) reactor_->ReadNext();
}

void ForwardServerStream::Reject(uint64_t sequence, const absl::Status& why) {
  v1::WriteRejected* rejected = Add(session_)->mutable_rejected();
  rejected->set_sequence(sequence);
  rejected->set_newer(absl::IsFailedPrecondition(why));
  rejected->set_reason(std::string(why.message()));
  // During an upgrade it may be every write of that node.
  const Instant now = BootNow();
  if (rejection_logged_at_ && now - *rejection_logged_at_ < kRejectionLogInterval) {
    ++rejections_unlogged_;
    return;
  }
  rejection_logged_at_ = now;
  LogWarning("a forwarded write was refused: no node of this build could apply it",
             {{"from_store", peer_},
              {"sequence", sequence},
              {"reason", std::string(why.message())},
              {"unlogged_before", std::exchange(rejections_unlogged_, 0)}});
}

void ForwardServerStream::OnWritten(bool ok) {
  writing_ = false;
  if (!ok && ending_ == nullptr) ending_ = std::make_unique<grpc::Status>(grpc::Status::CANCELLED);
  if (!ok) out_.clear();
  Settle();
}

void ForwardServerStream::OnClosed(WriteIntake* intake) {
  intake->Closed(this);
  End(grpc::Status::OK);
}

void ForwardServerStream::End(const grpc::Status& status) {
  if (ending_ != nullptr || reactor_ == nullptr) return;
  ending_ = std::make_unique<grpc::Status>(status);
  if (!status.ok()) out_.clear();
  Settle();
}

void ForwardServerStream::Settle() {
  if (writing_ || reactor_ == nullptr) return;
  if (!out_.empty()) return WriteNext();
  if (ending_ != nullptr) std::exchange(reactor_, nullptr)->Finish(*ending_);
}

void ForwardServerStream::WriteNext() {
  reactor_->response_ = std::move(out_.front());
  out_.pop_front();
  writing_ = true;
  reactor_->StartWrite(&reactor_->response_);
}

v1::ForwardResponse* ForwardServerStream::Add(const ingress::SessionId& session) {
  v1::ForwardResponse& response = out_.emplace_back();
  *response.mutable_header() = MakeHeader(self_.cluster, self_.store, peer_);
  response.set_term(term_);
  response.set_boot(session.boot);
  response.set_nonce(session.nonce);
  return &response;
}

void ForwardServerStream::Opened(const ingress::AppliedSession& session) {
  if (ending_ != nullptr) return;
  v1::SessionOpened* const opened = Add(session.id)->mutable_opened();
  opened->set_last_sequence(session.last_sequence);
  opened->set_opened_at(session.opened_at);
}

// Answers that come while a message is being written share the next one. Never more of them than
// the ingress has unanswered.
void ForwardServerStream::Answer(const ingress::SessionId& session, uint64_t sequence,
                                 std::shared_ptr<const std::string> answer) {
  if (ending_ != nullptr) return;
  v1::ForwardResponse* response = out_.empty() ? nullptr : &out_.back();
  if (response == nullptr || !response->has_answers() || response->boot() != session.boot ||
      response->nonce() != session.nonce || answer_bytes_ + answer->size() > kAnswerBytesMax) {
    response = Add(session);
    answer_bytes_ = 0;
  }
  answer_bytes_ += answer->size();
  v1::ForwardedAnswer* added = response->mutable_answers()->add_answers();
  added->set_sequence(sequence);
  added->set_answer(*answer);
}

void ForwardServerStream::Refused(const ingress::SessionId& session, uint64_t from_sequence) {
  if (ending_ != nullptr) return;
  Add(session)->mutable_refused()->set_from_sequence(from_sequence);
}

void ForwardServerStream::SessionUnknown(const ingress::SessionId& session,
                                         const std::string& reason) {
  if (ending_ != nullptr) return;
  Add(session)->mutable_session_unknown()->set_reason(reason);
}

// Said, then ended: the other side dials the next leader at once.
void ForwardServerStream::NotLeader(StoreId leader) {
  if (ending_ != nullptr) return;
  Add({})->mutable_not_leader()->set_leader_store(leader.value());
  End(grpc::Status::OK);
}

}  // namespace quorate::services
