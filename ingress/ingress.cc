#include "ingress/ingress.h"

#include <algorithm>
#include <list>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/check.h"

namespace quorate::ingress {
namespace {

// The bookkeeping of one write beside its bytes, for the byte bounds.
constexpr size_t kOverheadBytes = 256;

// What the answer to a transaction that reads may hold (storage/state_apply.h, kReadBytesMax).
// Every node keeps it until this ingress has it, so it counts as unanswered bytes.
constexpr size_t kReadAnswerBytes = 2u << 20;

struct Write {
  WriteId id;  // zero: nobody waits for the outcome
  uint64_t sequence = 0;
  v1::Command command;                         // until it is sent
  std::shared_ptr<const std::string> encoded;  // once it is sent
  std::shared_ptr<const std::map<std::string, std::string>> metadata;
  Instant submitted;
  Instant deadline;
  Instant timer;  // when Tick has to look at it: one entry of Impl::timers_
  size_t bytes = 0;
  size_t answer_bytes = 0;     // more that it holds while it is unanswered
  uint64_t first_link = 0;     // the link that it was sent on first
  uint64_t last_link = 0;      // and last
  bool given_up = false;       // to be sent as Skip if it has to be sent again
  bool is_skip = false;        // `encoded` is a Skip
  bool found_applied = false;  // counted as such
};

size_t MetadataBytes(const std::map<std::string, std::string>& metadata) {
  size_t bytes = 0;
  for (const auto& [key, value] : metadata) bytes += key.size() + value.size() + 64;
  return bytes;
}

size_t AnswerBytes(const v1::Command& command) {
  for (const auto* operations :
       {&command.transaction().then(), &command.transaction().otherwise()}) {
    for (const v1::Operation& operation : *operations) {
      if (operation.has_read()) return kReadAnswerBytes;
    }
  }
  return 0;
}

// Transactions were plainer in format 1: they neither read nor bound to time-to-lives. Since format
// 3 the rows of the ranges that one looks at are bounded (TOO_MANY_ROWS): for those that read a
// range, or delete more than one.
uint32_t FormatOfBranch(const google::protobuf::RepeatedPtrField<v1::Operation>& operations) {
  uint32_t format = 1;
  int deletions = 0;
  for (const v1::Operation& operation : operations) {
    if (operation.has_read() || operation.put().ttl_id() != 0) format = std::max(format, 2u);
    if (!operation.read().range_end().empty()) format = 3;
    if (!operation.delete_().range_end().empty() && ++deletions > 1) format = 3;
  }
  return format;
}

}  // namespace

uint32_t FormatOf(const v1::Command& command) {
  switch (command.body_case()) {
    case v1::Command::kOpenSession:
    case v1::Command::kSkip:
      return 1;
    case v1::Command::kTransaction:
      return std::max({command.has_client_request() ? 2u : 1u,
                       FormatOfBranch(command.transaction().then()),
                       FormatOfBranch(command.transaction().otherwise())});
    case v1::Command::kRollback:  // bounded, too
    case v1::Command::kSetSettings:
      return 3;
    default:
      return 2;
  }
}

class Ingress::Impl {
 public:
  explicit Impl(const IngressOptions& options)
      : options_(options), session_{options.store, options.boot, options.nonce} {
    CHECK(options_.store, "an ingress needs its store id");
    CHECK(options_.unanswered_max > 0 && options_.batch_bytes_max > 0);
  }

  void Submit(Instant now, WriteId id, v1::Command command, Instant deadline,
              std::map<std::string, std::string> metadata);
  void Cancel(WriteId id);
  void LinkUp(uint64_t link);
  void LinkDown(Instant now, uint64_t link);
  void OnOpened(Instant now, uint64_t link, const AppliedSession& session);
  void OnAnswer(const SessionId& session, uint64_t sequence,
                std::shared_ptr<const std::string> answer);
  void OnRefused(Instant now, uint64_t link, uint64_t from_sequence);
  void OnRejected(Instant now, uint64_t link, uint64_t sequence, bool newer,
                  const std::string& reason);
  void LoseSession(Instant now, const std::string& reason);
  void NewSession(Instant now, uint64_t boot, uint64_t nonce);
  void Close();
  void Tick(Instant now);
  Instant NextDeadline() const;
  Output TakeOutput(Instant now, bool may_send);

  bool IsCurrent(uint64_t link) const { return link_ == link && state_ != LinkState::kNone; }
  bool is_open() const { return state_ == LinkState::kOpen; }
  uint64_t answered_through() const {
    return unanswered_.empty() ? next_sequence_ - 1 : unanswered_.begin()->first - 1;
  }

  const IngressOptions options_;
  SessionId session_;
  Counters counters_;

  std::list<Write> waiting_;  // in the order of Submit
  std::map<uint64_t, Write> unanswered_;

 private:
  // What a link is good for. A new link starts at kMustOpen.
  enum class LinkState : uint8_t { kNone, kMustOpen, kOpening, kOpen };
  struct Place {
    bool sent = false;
    std::list<Write>::iterator waiting;  // valid while not sent
    uint64_t sequence = 0;               // valid once sent
  };

  void SetTimer(Write* write, Instant at);
  void ClearTimer(const Write& write);
  void Finish(Write* write, Outcome outcome);
  void EndNotAccepted(Write* write, const char* reason, std::string message);
  void EndUnknown(Write* write, std::string message);
  void ForgetWaiting(std::list<Write>::iterator place);
  void ForgetUnanswered(std::map<uint64_t, Write>::iterator place);
  void OnDeadline(WriteId id);
  void ExpireLeaderless(Instant now);
  void OnBehind(Instant now);
  void Pause(Instant now);
  void CountFoundApplied(Write* write);
  bool RoomToSend() const;
  void SendAgain(std::map<uint64_t, Write>::iterator place, std::vector<OutgoingWrite>* out);
  void SendFirst(std::vector<OutgoingWrite>* out);
  std::shared_ptr<const std::string> Encode(v1::Command* command, uint64_t sequence) const;

  uint64_t next_sequence_ = 1;
  size_t waiting_bytes_ = 0;
  size_t unanswered_bytes_ = 0;
  std::unordered_map<WriteId, Place> places_;      // of writes that somebody waits for
  std::set<std::pair<Instant, uint64_t>> timers_;  // (when, write id)

  uint64_t link_ = 0;  // the highest link so far
  LinkState state_ = LinkState::kNone;
  uint64_t opened_at_ = 0;  // of the session, once a leader has said it: AppliedSession::opened_at
  Instant leaderless_since_ = Instant::min();  // valid while not kOpen
  uint64_t cursor_ = 1;                        // kOpen: the next sequence to send on this link
  Instant paused_until_ = Instant::min();      // nothing is sent before (a refusal)
  Duration backoff_{};                         // of the last refusal; 0: none since the last answer
  // Since when each Opened on this link is behind what has been answered; none: the last was not.
  std::optional<Instant> behind_since_;

  bool closed_ = false;
  bool lost_ = false;         // no session until NewSession
  bool report_lost_ = false;  // session_lost is still to be said
  Instant report_lost_at_ = Instant::min();
  std::vector<std::pair<WriteId, Outcome>> finished_;
};

// --- Bookkeeping ---

void Ingress::Impl::SetTimer(Write* write, Instant at) {
  ClearTimer(*write);
  write->timer = at;
  timers_.emplace(at, write->id.value());
}

void Ingress::Impl::ClearTimer(const Write& write) {
  if (write.id) timers_.erase({write.timer, write.id.value()});
}

// Reports the outcome; afterwards nobody waits for the write. It stays where it is.
void Ingress::Impl::Finish(Write* write, Outcome outcome) {
  if (!write->id) return;
  switch (outcome.kind) {
    case Outcome::Kind::kAnswered:
      ++counters_.answered;
      break;
    case Outcome::Kind::kNotAccepted:
      ++counters_.not_accepted;
      break;
    case Outcome::Kind::kUnknown:
      ++counters_.unknown;
      break;
  }
  ClearTimer(*write);
  places_.erase(write->id);
  finished_.emplace_back(write->id, std::move(outcome));
  write->id = WriteId();
}

void Ingress::Impl::EndNotAccepted(Write* write, const char* reason, std::string message) {
  CHECK(write->sequence == 0, "a write that was sent may be in a log");
  Finish(write, {Outcome::Kind::kNotAccepted, nullptr, reason, std::move(message)});
}

void Ingress::Impl::EndUnknown(Write* write, std::string message) {
  CHECK(write->sequence != 0, "a write that was not sent is in no log");
  write->given_up = true;
  Finish(write, {Outcome::Kind::kUnknown, nullptr, "", std::move(message)});
}

void Ingress::Impl::ForgetWaiting(std::list<Write>::iterator place) {
  waiting_bytes_ -= place->bytes;
  waiting_.erase(place);
}

void Ingress::Impl::ForgetUnanswered(std::map<uint64_t, Write>::iterator place) {
  unanswered_bytes_ -= place->second.bytes + place->second.answer_bytes;
  unanswered_.erase(place);
}

// --- Clients ---

void Ingress::Impl::Submit(Instant now, WriteId id, v1::Command command, Instant deadline,
                           std::map<std::string, std::string> metadata) {
  CHECK(id && !places_.contains(id), "a write id is used once");
  ++counters_.submitted;
  Write write;
  write.id = id;
  write.command = std::move(command);
  write.submitted = now;
  write.deadline = deadline;
  write.bytes = write.command.ByteSizeLong() + MetadataBytes(metadata) + kOverheadBytes;
  write.answer_bytes = AnswerBytes(write.command);
  if (!metadata.empty()) {
    write.metadata =
        std::make_shared<const std::map<std::string, std::string>>(std::move(metadata));
  }
  if (closed_) return EndNotAccepted(&write, kReasonStopping, "this node is shutting down");
  if (deadline <= now) {
    return EndNotAccepted(&write, kReasonDeadline,
                          "the deadline had passed before the write was sent");
  }
  if (waiting_.size() >= options_.waiting_max ||
      (!waiting_.empty() && waiting_bytes_ + write.bytes > options_.waiting_bytes_max)) {
    return EndNotAccepted(&write, kReasonQueueFull, "too many writes wait at this node");
  }
  waiting_bytes_ += write.bytes;
  waiting_.push_back(std::move(write));
  const auto place = std::prev(waiting_.end());
  places_[id] = {.sent = false, .waiting = place};
  const Duration margin = std::min(options_.deadline_margin, (deadline - now) / 4);
  SetTimer(&*place, deadline - margin);
}

void Ingress::Impl::Cancel(WriteId id) {
  const auto found = places_.find(id);
  if (found == places_.end()) return;
  const Place place = found->second;
  Write* write = place.sent ? &unanswered_.at(place.sequence) : &*place.waiting;
  ClearTimer(*write);
  places_.erase(found);
  write->id = WriteId();
  ++counters_.cancelled;
  if (place.sent) {
    write->given_up = true;
  } else {
    ForgetWaiting(place.waiting);
  }
}

void Ingress::Impl::Close() {
  closed_ = true;
  for (Write& write : waiting_)
    EndNotAccepted(&write, kReasonStopping, "this node is shutting down");
  waiting_.clear();
  waiting_bytes_ = 0;
  for (auto& [sequence, write] : unanswered_) {
    if (write.id) EndUnknown(&write, "this node is shutting down: the write may have been applied");
  }
  state_ = LinkState::kNone;
}

// --- The link ---

void Ingress::Impl::LinkUp(uint64_t link) {
  CHECK(link > link_, "link numbers increase");
  if (closed_) return;
  // leaderless_since_ stays: a link is no leader before it has opened the session.
  link_ = link;
  state_ = LinkState::kMustOpen;
  paused_until_ = Instant::min();
  backoff_ = Duration::zero();
  behind_since_.reset();
}

void Ingress::Impl::LinkDown(Instant now, uint64_t link) {
  if (!IsCurrent(link)) return;
  if (is_open()) leaderless_since_ = now;
  state_ = LinkState::kNone;
}

void Ingress::Impl::OnOpened(Instant now, uint64_t link, const AppliedSession& session) {
  if (session.id != session_ || !IsCurrent(link) || lost_) return;
  // Nothing unanswered goes to another session than it was sent to first, of which it may have been
  // executed (DESIGN.md, "Exactly once"): the new one knows of none. Also when this open was
  // answered before: one open may be answered twice.
  const bool known = opened_at_ != 0 && session.opened_at != 0;
  if (known && session.opened_at != opened_at_) {
    return LoseSession(now, "its store left the cluster and was let in again");
  }
  // What was sent while only older builds led, which do not say it, may have been sent to another.
  if (opened_at_ == 0 && session.opened_at != 0 && next_sequence_ > 1 &&
      session.last_sequence == 0) {
    return LoseSession(now, "it may be another one than an older build's leader had opened");
  }
  if (state_ != LinkState::kOpening) return;
  if (session.opened_at != 0) opened_at_ = session.opened_at;
  const uint64_t last_sequence = session.last_sequence;
  if (last_sequence >= next_sequence_) {
    return LoseSession(now, "the cluster has applied sequences that this node never sent");
  }
  if (last_sequence < answered_through()) return OnBehind(now);
  behind_since_.reset();
  for (auto& [sequence, write] : unanswered_) {
    if (sequence > last_sequence) break;
    CountFoundApplied(&write);
  }
  state_ = LinkState::kOpen;
  cursor_ = 1;  // everything unanswered
}

// The leader's apply thread may be behind this node's own, from which answers come too. To send
// now would leave a gap, and to give the session up would end calls that were executed.
void Ingress::Impl::OnBehind(Instant now) {
  if (!behind_since_) behind_since_ = now;
  if (now - *behind_since_ >= options_.behind_max) {
    return LoseSession(now, "the cluster has lost writes that it had answered");
  }
  state_ = LinkState::kMustOpen;
  Pause(now);
}

void Ingress::Impl::Pause(Instant now) {
  backoff_ = backoff_ == Duration::zero() ? options_.refused_backoff_min
                                          : std::min(backoff_ * 2, options_.refused_backoff_max);
  paused_until_ = now + backoff_;
}

// Sent on a link that is gone, and applied all the same.
void Ingress::Impl::CountFoundApplied(Write* write) {
  if (!write->found_applied) ++counters_.found_applied;
  write->found_applied = true;
}

void Ingress::Impl::OnAnswer(const SessionId& session, uint64_t sequence,
                             std::shared_ptr<const std::string> answer) {
  if (session != session_) return;
  const auto found = unanswered_.find(sequence);
  if (found == unanswered_.end()) return;
  Write& write = found->second;
  backoff_ = Duration::zero();
  if (!is_open() || write.last_link != link_) CountFoundApplied(&write);
  if (answer != nullptr) {
    Finish(&write, {Outcome::Kind::kAnswered, std::move(answer), "", ""});
  } else if (write.id) {
    EndUnknown(&write, "the write was applied and its answer is no longer kept");
  }
  ForgetUnanswered(found);
}

void Ingress::Impl::OnRefused(Instant now, uint64_t link, uint64_t from_sequence) {
  if (!IsCurrent(link) || lost_) return;
  if (from_sequence == 0) {
    if (is_open()) leaderless_since_ = now;
    state_ = LinkState::kMustOpen;
  } else if (is_open()) {
    if (from_sequence >= cursor_) return;  // of an earlier round: it will be sent anyway
    cursor_ = from_sequence;
  } else {
    return;
  }
  Pause(now);
}

void Ingress::Impl::OnRejected(Instant now, uint64_t link, uint64_t sequence, bool newer,
                               const std::string& reason) {
  if (!IsCurrent(link) || !is_open() || lost_) return;
  const auto found = unanswered_.find(sequence);
  if (found == unanswered_.end()) return;
  Write& write = found->second;
  // A Skip of ours that this leader does not know: the session stands until another one leads.
  if (write.is_skip) Pause(now);
  write.given_up = true;
  cursor_ = std::min(cursor_, sequence);
  if (!write.id) return;
  if (write.first_link != link) {
    // An earlier leader may have been of this node's build.
    return EndUnknown(&write, "the leader does not take the write (the command " + reason +
                                  "), but an earlier one may have: it may have been applied");
  }
  // It was sent, but to nobody else.
  Finish(&write,
         {Outcome::Kind::kNotAccepted, nullptr, newer ? kReasonNotUnderstood : kReasonMalformed,
          newer ? "the leader runs an older build, which cannot apply this write: the command " +
                      reason + "; finish the upgrade, then try again"
                : "the leader cannot read what this node sent: the command " + reason});
}

void Ingress::Impl::LoseSession(Instant now, const std::string& reason) {
  if (lost_) return;
  for (auto& [sequence, write] : unanswered_) {
    if (write.id)
      EndUnknown(&write, "the session of this node ended (" + reason +
                             "): the write may have been applied");
  }
  unanswered_.clear();
  unanswered_bytes_ = 0;
  if (is_open()) leaderless_since_ = now;
  if (state_ != LinkState::kNone) state_ = LinkState::kMustOpen;
  behind_since_.reset();
  lost_ = true;
  report_lost_ = true;
  ++counters_.sessions_lost;
}

void Ingress::Impl::NewSession(Instant now, uint64_t boot, uint64_t nonce) {
  CHECK(lost_, "a session ends before the next one begins");
  CHECK(boot > session_.boot, "boot numbers increase");
  session_.boot = boot;
  session_.nonce = nonce;
  opened_at_ = 0;
  next_sequence_ = 1;
  lost_ = false;
  report_lost_ = false;
  report_lost_at_ = now + options_.session_backoff;
}

// --- Time ---

void Ingress::Impl::OnDeadline(WriteId id) {
  const Place place = places_.at(id);
  if (place.sent) {
    EndUnknown(&unanswered_.at(place.sequence),
               "the deadline passed while the write was under way: it may have been applied");
    return;
  }
  if (is_open()) {
    EndNotAccepted(&*place.waiting, kReasonQueueFull,
                   "the deadline passed while the write waited behind others at this node");
  } else {
    EndNotAccepted(&*place.waiting, kReasonNoLeader,
                   "no leader took the write before its deadline");
  }
  ForgetWaiting(place.waiting);
}

// Ends the writes that have waited for a leader for long enough: the oldest come first.
void Ingress::Impl::ExpireLeaderless(Instant now) {
  while (!is_open() && !waiting_.empty()) {
    Write& oldest = waiting_.front();
    if (std::max(oldest.submitted, leaderless_since_) + options_.leader_wait > now) return;
    EndNotAccepted(&oldest, kReasonNoLeader, "no leader is known");
    ForgetWaiting(waiting_.begin());
  }
}

void Ingress::Impl::Tick(Instant now) {
  while (!timers_.empty() && timers_.begin()->first <= now) {
    OnDeadline(WriteId(timers_.begin()->second));
  }
  ExpireLeaderless(now);
  if (paused_until_ <= now) paused_until_ = Instant::min();
}

Instant Ingress::Impl::NextDeadline() const {
  Instant next = Instant::max();
  if (!timers_.empty()) next = timers_.begin()->first;
  if (!is_open() && !waiting_.empty()) {
    next = std::min(next,
                    std::max(waiting_.front().submitted, leaderless_since_) + options_.leader_wait);
  }
  if (report_lost_) next = std::min(next, report_lost_at_);
  // Something to send that waits for the end of a refusal's pause.
  const bool something = state_ == LinkState::kMustOpen ||
                         (is_open() && cursor_ < next_sequence_) ||
                         (is_open() && !waiting_.empty());
  if (something && !lost_ && paused_until_ != Instant::min()) next = std::min(next, paused_until_);
  return next;
}

// --- Output ---

std::shared_ptr<const std::string> Ingress::Impl::Encode(v1::Command* command,
                                                         uint64_t sequence) const {
  command->set_format(FormatOf(*command));
  v1::SessionPosition* position = command->mutable_session();
  position->set_store(session_.store.value());
  position->set_boot(session_.boot);
  position->set_nonce(session_.nonce);
  position->set_sequence(sequence);
  position->set_answered_through(answered_through());
  auto bytes = std::make_shared<std::string>();
  CHECK(command->SerializeToString(bytes.get()), "a command of ours serializes");
  return bytes;
}

void Ingress::Impl::SendAgain(std::map<uint64_t, Write>::iterator place,
                              std::vector<OutgoingWrite>* out) {
  Write& write = place->second;
  if (write.given_up && !write.is_skip) {
    v1::Command skip;
    skip.mutable_skip();
    write.encoded = Encode(&skip, place->first);
    write.metadata = nullptr;
    write.is_skip = true;
    const size_t bytes = write.encoded->size() + kOverheadBytes;
    // Not the answer's: the write itself may be applied all the same.
    unanswered_bytes_ = unanswered_bytes_ - write.bytes + bytes;
    write.bytes = bytes;
  }
  ++counters_.resent;
  if (write.is_skip) ++counters_.skips;
  write.last_link = link_;
  out->push_back({place->first, write.encoded, write.deadline, write.metadata});
}

void Ingress::Impl::SendFirst(std::vector<OutgoingWrite>* out) {
  Write write = std::move(waiting_.front());
  waiting_bytes_ -= write.bytes;
  waiting_.pop_front();
  // Encoded before the sequence counts as sent: its own answer is certainly not known yet.
  write.encoded = Encode(&write.command, next_sequence_);
  write.command.Clear();
  write.sequence = next_sequence_++;
  write.first_link = write.last_link = link_;
  ++counters_.sent;
  // From here on only an answer or the deadline ends it; its timer stays.
  places_[write.id] = {.sent = true, .waiting = {}, .sequence = write.sequence};
  out->push_back({write.sequence, write.encoded, write.deadline, write.metadata});
  unanswered_bytes_ += write.bytes + write.answer_bytes;
  const uint64_t sequence = write.sequence;
  unanswered_.emplace(sequence, std::move(write));
}

bool Ingress::Impl::RoomToSend() const {
  return unanswered_.empty() ||
         (next_sequence_ - 1 - answered_through() < options_.unanswered_max &&
          unanswered_bytes_ + waiting_.front().bytes + waiting_.front().answer_bytes <=
              options_.unanswered_bytes_max);
}

Ingress::Output Ingress::Impl::TakeOutput(Instant now, bool may_send) {
  Output out;
  out.finished.swap(finished_);
  out.link = link_;
  if (report_lost_ && now >= report_lost_at_) {
    report_lost_ = false;
    out.session_lost = true;
  }
  if (!may_send || lost_ || closed_ || now < paused_until_) return out;
  if (state_ == LinkState::kMustOpen) {
    out.open = true;
    state_ = LinkState::kOpening;
  }
  if (state_ != LinkState::kOpen) return out;
  size_t bytes = 0;
  auto again = unanswered_.lower_bound(cursor_);
  for (; again != unanswered_.end(); ++again) {
    const size_t size = again->second.bytes;
    if (!out.writes.empty() && bytes + size > options_.batch_bytes_max) {
      cursor_ = again->first;
      return out;
    }
    SendAgain(again, &out.writes);
    bytes += size;
  }
  while (!waiting_.empty() && RoomToSend()) {
    const size_t size = waiting_.front().bytes;
    if (!out.writes.empty() && bytes + size > options_.batch_bytes_max) break;
    SendFirst(&out.writes);
    bytes += size;
  }
  cursor_ = next_sequence_;
  return out;
}

// --- The public face ---

Ingress::Ingress(const IngressOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Ingress::~Ingress() = default;

void Ingress::Submit(Instant now, WriteId id, v1::Command command, Instant deadline,
                     std::map<std::string, std::string> metadata) {
  impl_->Submit(now, id, std::move(command), deadline, std::move(metadata));
}
void Ingress::Cancel(Instant, WriteId id) { impl_->Cancel(id); }
void Ingress::LinkUp(Instant, uint64_t link) { impl_->LinkUp(link); }
void Ingress::LinkDown(Instant now, uint64_t link) { impl_->LinkDown(now, link); }
void Ingress::OnOpened(Instant now, uint64_t link, const AppliedSession& session) {
  impl_->OnOpened(now, link, session);
}
void Ingress::OnAnswer(Instant, const SessionId& session, uint64_t sequence,
                       std::shared_ptr<const std::string> answer) {
  impl_->OnAnswer(session, sequence, std::move(answer));
}
void Ingress::OnRefused(Instant now, uint64_t link, uint64_t from_sequence) {
  impl_->OnRefused(now, link, from_sequence);
}
void Ingress::OnRejected(Instant now, uint64_t link, uint64_t sequence, bool newer,
                         const std::string& reason) {
  impl_->OnRejected(now, link, sequence, newer, reason);
}
void Ingress::OnSessionUnknown(Instant now, uint64_t link, const SessionId& session,
                               const std::string& reason) {
  if (session == impl_->session_ && impl_->IsCurrent(link)) impl_->LoseSession(now, reason);
}
void Ingress::NewSession(Instant now, uint64_t boot, uint64_t nonce) {
  impl_->NewSession(now, boot, nonce);
}
void Ingress::Close(Instant) { impl_->Close(); }
void Ingress::Tick(Instant now) { impl_->Tick(now); }
Instant Ingress::NextDeadline() const { return impl_->NextDeadline(); }
Ingress::Output Ingress::TakeOutput(Instant now, bool may_send) {
  return impl_->TakeOutput(now, may_send);
}
const Ingress::Counters& Ingress::counters() const { return impl_->counters_; }
const SessionId& Ingress::session() const { return impl_->session_; }
bool Ingress::link_open() const { return impl_->is_open(); }
size_t Ingress::unanswered() const { return impl_->unanswered_.size(); }
size_t Ingress::waiting() const { return impl_->waiting_.size(); }
uint64_t Ingress::answered_through() const { return impl_->answered_through(); }

}  // namespace quorate::ingress
