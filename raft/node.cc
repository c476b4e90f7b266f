#include "raft/node.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "raft/cutting.h"
#include "raft/inbox.h"
#include "raft/work_queue.h"

namespace quorate::raft {
namespace {

// A thread never sleeps longer than this, whatever a clock says.
constexpr Duration kSleepMax = std::chrono::seconds(10);

std::thread Named(const char* name, std::function<void()> run) {
  return std::thread([name, run = std::move(run)] {
    pthread_setname_np(pthread_self(), name);
    run();
  });
}

bool SameTrouble(const PeerView& a, const PeerView& b) {
  return a.store == b.store && a.lost_data == b.lost_data && a.needs_snapshot == b.needs_snapshot &&
         a.snapshot_sent == b.snapshot_sent;
}

bool SameForSubscribers(const NodeStatus& a, const NodeStatus& b) {
  return a.role == b.role && a.term == b.term && a.leader == b.leader &&
         a.leader_ready == b.leader_ready && a.birth_complete == b.birth_complete &&
         a.membership_index == b.membership_index && a.membership == b.membership &&
         a.removed == b.removed &&
         std::equal(a.peers.begin(), a.peers.end(), b.peers.begin(), b.peers.end(), SameTrouble);
}

}  // namespace

class Node::Impl {
 public:
  Impl(const NodeOptions& options, RecoveredState recovered, Ports ports)
      : options_(options),
        ports_(ports),
        inbox_(options.inbox_messages_max, options.inbox_proposals_max),
        now_(ports.clock->Now()),
        core_(options.core, std::move(recovered), now_),
        changes_max_(options.inbox_changes_max),
        leases_(options.leases),
        birth_complete_(options.birth_complete),
        next_cut_(now_),
        reads_max_(options.reads_max),
        log_idle_since_(now_) {
    CHECK(ports.log && ports.transport && ports.state_machine);
    core_.SetLeases(leases_);
    deadline_ = core_.NextDeadline().time_since_epoch().count();
    status_ = MakeStatus();
  }

  void Start();
  void Stop();
  bool Receive(Message message) {
    return inbox_.PutMessage(std::move(message)) == Inbox::Put::kTaken;
  }
  void SnapshotFailed(const SnapshotRequest& request) { inbox_.PutSnapshotFailed(request); }
  void Propose(Term term, std::vector<Core::Proposal> proposals, ProposeDone done);
  void Change(Inbox::Change change);
  void RequestRead(ReadMode mode, ReadDone done);
  void SetLeases(bool on) { leases_ = on; }
  void MakeDurable() {
    if (!making_durable_.exchange(true)) to_apply_.Push({std::nullopt, {}, true});
  }

  std::shared_ptr<const NodeStatus> status() const {
    std::lock_guard<std::mutex> lock(status_mutex_);
    return status_;
  }
  void OnStatusChange(std::function<void(const NodeStatus&)> callback) {
    on_status_change_ = std::move(callback);
  }
  Instant NextDeadline() const { return Instant(Duration(deadline_.load())); }

  bool RunOnce();
  bool BeginLog();
  bool EndLog();
  bool RunApplyOnce();
  bool RunLogReadOnce();

 private:
  struct HandOver {
    Persist persist;
    std::vector<Message> messages;  // to be sent once it is durable
    std::optional<Index> cut;       // afterwards: the log may lose what is up to here
  };
  struct ToApply {
    std::optional<InstallRecord> install;  // first
    std::vector<EntryPtr> entries;
    bool make_durable = false;  // alone
  };

  // The node's thread.
  void TakeProposals(Inbox::Proposals proposals);
  void TakeNotices(Inbox::Batch* batch);
  void TakeQuestions(std::vector<Inbox::Question> questions);
  void AnswerReads(const std::vector<ReadResult>& results);
  void MaybeCompleteBirth();
  void TakeChange(Inbox::Change change);
  void FinishChanges();
  static void Refuse(const Inbox::Change& change, Inbox::Put put);
  void MaybeCutLog();
  bool DispatchReady();
  void DispatchSnapshots(const std::vector<SnapshotRequest>& requests);
  std::shared_ptr<const NodeStatus> MakeStatus();
  void Publish();

  // The log's thread.
  bool MarkWhenIdle();
  std::optional<Duration> MarkDelay();

  void Send(std::vector<Message> messages) {
    if (!messages.empty() && !quiet_) ports_.transport->Send(std::move(messages));
  }
  void RunNode();
  void RunLog();
  void RunApply();
  void RunLogRead();

  // Constant after construction; thread-safe themselves.
  const NodeOptions options_;
  const Ports ports_;
  Inbox inbox_;
  WorkQueue<HandOver> to_log_;
  WorkQueue<ToApply> to_apply_;
  WorkQueue<LogRead> to_read_;
  std::atomic<bool> quiet_ = false;           // stopping: nothing more is sent
  std::atomic<Duration::rep> deadline_ = {};  // of RunOnce
  std::atomic<bool> making_durable_ = false;  // asked of the state machine and not done

  // Set before Start.
  std::function<void(const NodeStatus&)> on_status_change_;

  // Of the node's thread.
  Instant now_;
  Core core_;
  const size_t changes_max_;
  std::atomic<bool> leases_;  // any thread
  bool birth_complete_;
  Index birth_complete_index_;  // handed out for applying; 0: not yet
  Term birth_proposed_in_;      // the term in which this node proposed BirthComplete
  std::shared_ptr<const Membership> membership_;
  // What was begun as leader of a term and is not done; the core has at most one of each.
  struct Changing {
    ChangeResult result;
    ChangeDone done;
  };
  std::optional<Changing> changing_;
  struct Transferring {
    Term term;
    TransferDone done;
  };
  std::optional<Transferring> transferring_;
  Instant next_cut_;
  std::map<StoreId, Index> snapshots_from_;  // applied when each peer's snapshot was asked for

  // By the id that the core knows them by: one for each mode and step.
  std::map<uint64_t, std::vector<ReadDone>> questions_;
  uint64_t last_question_ = 0;

  const size_t reads_max_;
  std::atomic<size_t> reads_open_ = 0;  // in the inbox and in questions_

  // Of the log's thread.
  std::deque<HandOver> log_batch_;  // written, not yet flushed
  Instant log_idle_since_;

  mutable std::mutex status_mutex_;
  std::shared_ptr<const NodeStatus> status_;  // protected by status_mutex_

  std::mutex threads_mutex_;
  // Protected by threads_mutex_.
  std::thread node_thread_, log_thread_, apply_thread_, log_read_thread_;
  bool started_ = false;
  bool stopped_ = false;
};

// --- The node's thread ---

bool Node::Impl::RunOnce() {
  // A clock that is read on several cores must not make the core's time go back.
  now_ = std::max(now_, ports_.clock->Now());
  const bool due = core_.NextDeadline() <= now_;
  Inbox::Batch batch = inbox_.Take();
  // Once more, because the thread may have been away between the lines above: whatever is in the
  // inbox came in before this. A leader judges its lease by a time after the question, and every
  // voter, whether leases are on here or not, counts its promise to that leader from a time after
  // the heartbeat was sent.
  now_ = std::max(now_, ports_.clock->Now());
  bool worked = due || !batch.empty();
  core_.SetLeases(leases_);
  // What peers have said comes before what the timers say: after a pause of this process the
  // leader's heartbeats are in the inbox, and there is no reason to campaign.
  for (const Message& message : batch.messages) core_.Step(message, now_);
  for (Inbox::Proposals& proposals : batch.proposals) TakeProposals(std::move(proposals));
  for (Inbox::Change& change : batch.changes) TakeChange(std::move(change));
  TakeNotices(&batch);
  TakeQuestions(std::move(batch.questions));
  core_.Tick(now_);
  MaybeCompleteBirth();
  FinishChanges();
  MaybeCutLog();
  worked = DispatchReady() || worked;
  deadline_ = core_.NextDeadline().time_since_epoch().count();
  if (worked) Publish();
  return worked;
}

void Node::Impl::TakeProposals(Inbox::Proposals proposals) {
  const WallMilliseconds wall = ports_.clock->WallNow();
  for (Core::Proposal& proposal : proposals.proposals) {
    if (proposal.wall_time_ms == 0) proposal.wall_time_ms = wall;
  }
  const auto [accepted, status] =
      core_.Propose(proposals.term, std::move(proposals.proposals), now_);
  if (proposals.done) proposals.done(accepted, status);
}

void Node::Impl::TakeQuestions(std::vector<Inbox::Question> questions) {
  for (ReadMode mode : {ReadMode::kRound, ReadMode::kLease}) {
    std::vector<ReadDone> askers;
    for (Inbox::Question& question : questions) {
      if (question.mode == mode) askers.push_back(std::move(question.done));
    }
    if (askers.empty()) continue;
    questions_[++last_question_] = std::move(askers);
    core_.RequestRead(last_question_, mode, now_);
  }
}

void Node::Impl::AnswerReads(const std::vector<ReadResult>& results) {
  for (const ReadResult& result : results) {
    auto asked = questions_.extract(result.id);
    CHECK(!asked.empty(), "the answer to a read that nobody asked for");
    reads_open_ -= asked.mapped().size();
    for (const ReadDone& done : asked.mapped()) done(result);
  }
}

void Node::Impl::TakeNotices(Inbox::Batch* batch) {
  if (batch->persisted) core_.OnPersisted(*batch->persisted);
  if (batch->birth_complete) birth_complete_ = true;
  if (batch->applied) {
    core_.OnApplied(*batch->applied);
    if (birth_complete_index_ && birth_complete_index_ <= *batch->applied) birth_complete_ = true;
  }
  for (const SnapshotRequest& failed : batch->failed_snapshots) {
    core_.OnSnapshotFailed(failed.peer, failed.term, now_);
  }
  for (Inbox::ReadDone& read : batch->reads) {
    core_.OnLogRead(read.peer, read.from, std::move(read.entries));
  }
}

// Once in a term is enough: an accepted proposal is lost only with the term. A second one in a
// later term finds birth complete already and changes nothing.
void Node::Impl::MaybeCompleteBirth() {
  if (birth_complete_ || !core_.leader_ready() || birth_proposed_in_ == core_.term()) return;
  const Index first(1);
  if (core_.persisted() < first) return;
  const std::vector<PeerView> peers = core_.peers();
  for (const Member& member : core_.membership().members) {
    if (member.store == core_.self()) continue;
    auto peer = std::find_if(peers.begin(), peers.end(),
                             [&](const PeerView& view) { return view.store == member.store; });
    if (peer == peers.end() || peer->match < first) return;
  }
  const auto [accepted, status] =
      core_.Propose(core_.term(), {{EntryType::kBirthComplete, "", ports_.clock->WallNow()}}, now_);
  if (accepted == 1) birth_proposed_in_ = core_.term();  // otherwise again later
}

// Asks the log how long it is: never a disk.
void Node::Impl::MaybeCutLog() {
  if (now_ < next_cut_ || core_.installing()) return;
  next_cut_ = now_ + options_.cut_interval;
  CutFacts facts;
  facts.applied = core_.applied();
  facts.durable_applied = ports_.state_machine->durable_applied();
  facts.tail_start = ports_.log->TailStart(options_.log_tail_bytes);
  facts.pinned_start = ports_.log->TailStart(options_.log_pinned_bytes_max);
  facts.peers = core_.peers();
  facts.snapshots = snapshots_from_;
  const Index through = CutThrough(facts);
  if (through >= core_.first_index()) {
    core_.Compact(through);
    to_log_.Push({{}, {}, through});
  }
  // Only what is not durable yet may hold it back: then it is made durable.
  facts.durable_applied = facts.applied;
  if (CutThrough(facts) > std::max(through, core_.first_index())) MakeDurable();
}

void Node::Impl::DispatchSnapshots(const std::vector<SnapshotRequest>& requests) {
  for (const SnapshotRequest& request : requests) {
    snapshots_from_[request.peer] = core_.applied();
    if (ports_.snapshots != nullptr) {
      ports_.snapshots->Send(request);
    } else {
      SnapshotFailed(request);
    }
  }
}

// --- Changes of the members and of the leader ---

void Node::Impl::TakeChange(Inbox::Change change) {
  FinishChanges();  // so that there is room for the next one
  if (change.members_done) {
    const ChangeResult result = core_.ProposeMembership(change.members, now_);
    if (result.status != ChangeStatus::kAccepted) return change.members_done(result);
    CHECK(!changing_, "two changes at a time");
    changing_ = Changing{result, std::move(change.members_done)};
  } else {
    const TransferStatus status = core_.TransferLeadership(change.target, now_);
    if (status != TransferStatus::kStarted) return change.transfer_done(status);
    CHECK(!transferring_, "two transfers at a time");
    transferring_ = Transferring{core_.term(), std::move(change.transfer_done)};
  }
}

// A change is done when it is committed without a joint phase, also if that made this node step
// down. Once another term has begun its entry may be gone, and another in its place.
void Node::Impl::FinishChanges() {
  if (changing_) {
    ChangeResult& result = changing_->result;
    const bool same_term = core_.term() == result.term;
    const bool committed = core_.membership_index() >= result.index &&
                           core_.membership_index() <= core_.commit() && !core_.membership().joint;
    if (!same_term || committed || core_.role() != Role::kLeader) {
      if (!same_term || !committed) result.status = ChangeStatus::kUnknown;
      const Changing finished = *std::exchange(changing_, std::nullopt);
      finished.done(finished.result);
    }
  }
  if (transferring_) {
    const bool leads = core_.role() == Role::kLeader && core_.term() == transferring_->term;
    if (leads && core_.transfer_target()) return;
    const Transferring finished = *std::exchange(transferring_, std::nullopt);
    finished.done(leads ? TransferStatus::kFailed : TransferStatus::kDone);
  }
}

void Node::Impl::Change(Inbox::Change change) {
  const Inbox::Put put = inbox_.PutChange(change, changes_max_);
  if (put != Inbox::Put::kTaken) Refuse(change, put);
}

void Node::Impl::Refuse(const Inbox::Change& change, Inbox::Put put) {
  const bool full = put == Inbox::Put::kFull;
  if (change.members_done) {
    ChangeResult result;
    result.status = full ? ChangeStatus::kInProgress : ChangeStatus::kNotLeader;
    change.members_done(result);
  } else {
    change.transfer_done(full ? TransferStatus::kInProgress : TransferStatus::kNotLeader);
  }
}

bool Node::Impl::DispatchReady() {
  bool any = false;
  while (core_.HasReady()) {
    any = true;
    Ready ready = core_.TakeReady();
    Send(std::move(ready.send_now));
    if (ready.persist.ticket) {
      to_log_.Push({std::move(ready.persist), std::move(ready.send_after_persist), std::nullopt});
    }
    DispatchSnapshots(ready.snapshot_requests);
    if (ready.install || !ready.committed.empty()) {
      for (const EntryPtr& entry : ready.committed) {
        if (entry->type == EntryType::kBirthComplete && !birth_complete_index_) {
          birth_complete_index_ = entry->index;
        }
      }
      to_apply_.Push({std::move(ready.install), std::move(ready.committed), false});
    }
    for (const LogRead& read : ready.log_reads) to_read_.Push(read);
    AnswerReads(ready.reads);
  }
  return any;
}

std::shared_ptr<const NodeStatus> Node::Impl::MakeStatus() {
  // One object as long as it is the same, so that readers need not compare. (An index alone says
  // too little: an entry that was cut may be followed by another one there.)
  if (membership_ == nullptr || *membership_ != core_.membership()) {
    membership_ = std::make_shared<const Membership>(core_.membership());
  }
  auto status = std::make_shared<NodeStatus>();
  status->self = core_.self();
  status->role = core_.role();
  status->term = core_.term();
  status->leader = core_.leader();
  status->leader_ready = core_.leader_ready();
  status->first_index = core_.first_index();
  status->last_index = core_.last_index();
  status->persisted = core_.persisted();
  status->commit = core_.commit();
  status->applied = core_.applied();
  status->membership_index = core_.membership_index();
  status->membership = membership_;
  status->peers = core_.peers();
  status->transfer_target = core_.transfer_target();
  status->removed = core_.removed();
  status->election_timeout = core_.election_timeout();
  status->fresh_as_of = core_.fresh_as_of(now_);
  status->birth_complete = birth_complete_;
  status->installing = core_.installing();
  status->dropped_messages = inbox_.dropped();
  status->ignored_messages = core_.ignored_messages();
  status->leases = core_.leases();
  status->lease_answers = core_.lease_answers();
  status->lease_until = core_.lease_until();
  return status;
}

void Node::Impl::Publish() {
  std::shared_ptr<const NodeStatus> status = MakeStatus();
  bool changed;
  {
    std::lock_guard<std::mutex> lock(status_mutex_);
    changed = !SameForSubscribers(*status_, *status);
    status_ = status;
  }
  if (changed && on_status_change_) on_status_change_(*status);
}

void Node::Impl::Propose(Term term, std::vector<Core::Proposal> proposals, ProposeDone done) {
  Inbox::Proposals item{term, std::move(proposals), std::move(done)};
  const Inbox::Put put = inbox_.PutProposals(item);
  if (put == Inbox::Put::kTaken || !item.done) return;
  item.done(0, put == Inbox::Put::kFull ? ProposeStatus::kQueueFull : ProposeStatus::kNotLeader);
}

void Node::Impl::RequestRead(ReadMode mode, ReadDone done) {
  Inbox::Question question{mode, std::move(done)};
  ReadResult refused;
  refused.outcome = ReadOutcome::kTooMany;
  if (reads_open_.fetch_add(1) < reads_max_) {
    if (inbox_.PutQuestion(question) == Inbox::Put::kTaken) return;
    refused.outcome = ReadOutcome::kNoLeader;
  }
  --reads_open_;
  question.done(refused);
}

// --- The other threads ---

bool Node::Impl::BeginLog() {
  CHECK(log_batch_.empty(), "a flush is under way");
  log_batch_ = to_log_.TakeAll();
  for (const HandOver& item : log_batch_) {
    if (!item.persist.empty()) ports_.log->Append(item.persist);
  }
  return !log_batch_.empty();
}

bool Node::Impl::EndLog() {
  std::deque<HandOver> batch = std::exchange(log_batch_, {});
  if (batch.empty()) return MarkWhenIdle();
  bool written = false;
  Index cut;
  Ticket last;
  for (const HandOver& item : batch) {
    cut = std::max(cut, item.cut.value_or(Index()));
    last = std::max(last, item.persist.ticket);
    written = written || !item.persist.empty();
  }
  if (written) ports_.log->Sync();
  log_idle_since_ = ports_.clock->Now();
  std::vector<Message> messages;
  for (HandOver& item : batch) {
    std::move(item.messages.begin(), item.messages.end(), std::back_inserter(messages));
  }
  Send(std::move(messages));
  if (last) inbox_.PutPersisted(last);
  if (cut) ports_.log->Cut(cut);
  return true;
}

// What is left until a mark is due; nullopt: none is wanted.
std::optional<Duration> Node::Impl::MarkDelay() {
  if (!ports_.log->WantsMark()) return std::nullopt;
  return log_idle_since_ + LogStore::kMarkDelay - ports_.clock->Now();
}

bool Node::Impl::MarkWhenIdle() {
  const std::optional<Duration> delay = MarkDelay();
  if (!delay || *delay > Duration::zero()) return false;
  ports_.log->WriteMark();
  log_idle_since_ = ports_.clock->Now();
  return true;
}

bool Node::Impl::RunApplyOnce() {
  const std::optional<ToApply> work = to_apply_.TakeOne();
  if (!work) return false;
  if (work->install) {
    const bool birth_complete = ports_.state_machine->Install(*work->install);
    inbox_.PutInstalled(work->install->snapshot.index, birth_complete);
  }
  if (!work->entries.empty()) {
    ports_.state_machine->Apply(work->entries);
    inbox_.PutApplied(work->entries.back()->index);
  }
  if (work->make_durable) {
    ports_.state_machine->MakeDurable();
    making_durable_ = false;
  }
  return true;
}

bool Node::Impl::RunLogReadOnce() {
  std::optional<LogRead> read = to_read_.TakeOne();
  if (!read) return false;
  inbox_.PutRead({read->peer, read->from, ports_.log->Read(read->from, read->last, read->bytes)});
  return true;
}

// --- Threads ---

void Node::Impl::RunNode() {
  do {
    RunOnce();
  } while (inbox_.Wait(std::clamp(NextDeadline() - ports_.clock->Now(), Duration(0), kSleepMax)));
}

void Node::Impl::RunLog() {
  std::optional<Duration> delay;
  do {
    do {
      BeginLog();
    } while (EndLog());
    delay = MarkDelay();
    if (delay) delay = std::clamp(*delay, Duration(0), kSleepMax);
  } while (to_log_.Wait(delay));
}

void Node::Impl::RunApply() {
  do {
    while (RunApplyOnce()) {
    }
  } while (to_apply_.Wait(std::nullopt));
}

void Node::Impl::RunLogRead() {
  do {
    while (!quiet_ && RunLogReadOnce()) {
    }
  } while (to_read_.Wait(std::nullopt) && !quiet_);
}

void Node::Impl::Start() {
  std::lock_guard<std::mutex> lock(threads_mutex_);
  CHECK(!started_ && !stopped_);
  started_ = true;
  log_thread_ = Named("log", [this] { RunLog(); });
  apply_thread_ = Named("apply", [this] { RunApply(); });
  log_read_thread_ = Named("logread", [this] { RunLogRead(); });
  node_thread_ = Named("raft", [this] { RunNode(); });
}

void Node::Impl::Stop() {
  std::lock_guard<std::mutex> lock(threads_mutex_);
  if (std::exchange(stopped_, true)) return;
  quiet_ = true;
  inbox_.Close();
  // The node's thread first: afterwards nothing more is handed out, and the others run dry.
  if (started_) {
    CHECK(node_thread_.get_id() != std::this_thread::get_id(), "Stop called by a callback");
    node_thread_.join();
  }
  to_log_.Close();
  to_apply_.Close();
  to_read_.Close();
  if (started_) {
    log_thread_.join();
    apply_thread_.join();
    log_read_thread_.join();
  }
  Inbox::Batch rest = inbox_.Take();
  for (Inbox::Proposals& proposals : rest.proposals) {
    if (proposals.done) proposals.done(0, ProposeStatus::kNotLeader);
  }
  for (const Inbox::Change& change : rest.changes) Refuse(change, Inbox::Put::kClosed);
  if (changing_) {
    changing_->result.status = ChangeStatus::kUnknown;
    changing_->done(changing_->result);
    changing_.reset();
  }
  if (transferring_) {
    transferring_->done(TransferStatus::kDone);
    transferring_.reset();
  }
  for (const Inbox::Question& question : rest.questions) question.done(ReadResult());
  for (const auto& [id, askers] : std::exchange(questions_, {})) {
    for (const ReadDone& done : askers) done(ReadResult());
  }
}

// --- Node: everything goes to the implementation ---

Node::Node(const NodeOptions& options, RecoveredState recovered, Ports ports)
    : impl_(std::make_unique<Impl>(options, std::move(recovered), ports)) {}
Node::~Node() { Stop(); }

void Node::Start() { impl_->Start(); }
void Node::Stop() { impl_->Stop(); }
bool Node::Receive(Message message) { return impl_->Receive(std::move(message)); }
void Node::SnapshotFailed(const SnapshotRequest& request) { impl_->SnapshotFailed(request); }
void Node::Propose(Term term, std::vector<Core::Proposal> proposals, ProposeDone done) {
  impl_->Propose(term, std::move(proposals), std::move(done));
}
void Node::ProposeMembership(MembershipChange change, ChangeDone done) {
  CHECK(done);
  impl_->Change({std::move(change), std::move(done), StoreId(), nullptr});
}
void Node::TransferLeadership(StoreId target, TransferDone done) {
  CHECK(done);
  impl_->Change({{}, nullptr, target, std::move(done)});
}
void Node::SetLeases(bool on) { impl_->SetLeases(on); }
void Node::MakeDurable() { impl_->MakeDurable(); }
void Node::RequestRead(ReadMode mode, ReadDone done) { impl_->RequestRead(mode, std::move(done)); }
std::shared_ptr<const NodeStatus> Node::status() const { return impl_->status(); }
void Node::OnStatusChange(std::function<void(const NodeStatus&)> callback) {
  impl_->OnStatusChange(std::move(callback));
}
bool Node::RunOnce() { return impl_->RunOnce(); }
bool Node::BeginLog() { return impl_->BeginLog(); }
bool Node::EndLog() { return impl_->EndLog(); }
bool Node::RunApplyOnce() { return impl_->RunApplyOnce(); }
bool Node::RunLogReadOnce() { return impl_->RunLogReadOnce(); }
Instant Node::NextDeadline() const { return impl_->NextDeadline(); }

}  // namespace quorate::raft
