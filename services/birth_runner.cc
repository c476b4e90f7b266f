#include "services/birth_runner.h"

#include <algorithm>
#include <utility>

#include "services/logging.h"
#include "services/system_clock.h"

namespace quorate::services {
namespace {

// What is lacking is said again when it changes, but not more often than this.
constexpr Duration kLackInterval = std::chrono::seconds(5);

std::string Join(const std::vector<std::string>& sentences) {
  std::string text;
  for (const std::string& sentence : sentences) text += (text.empty() ? "" : "; ") + sentence;
  return text;
}

}  // namespace

BirthRunner::BirthRunner(const raft::BirthOptions& options, const raft::BirthRecord& record,
                         Ports ports)
    : ports_(std::move(ports)),
      call_timeout_(options.call_timeout),
      birth_(options, record, BootNow()) {}

BirthRunner::~BirthRunner() { Stop(); }

void BirthRunner::Start() {
  {
    std::lock_guard lock(mutex_);
    birth_.Begin(BootNow());
    Process();  // what a crash left undone
  }
  thread_ = std::thread([this] { Run(); });
}

void BirthRunner::SetAddresses(std::vector<raft::PeerAddress> addresses, bool whole) {
  std::lock_guard lock(mutex_);
  birth_.SetAddresses(std::move(addresses), BootNow(), whole);
  Process();
}

void BirthRunner::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

raft::IdentifyReply BirthRunner::Identify(const raft::IdentifyRequest& request) {
  std::lock_guard lock(mutex_);
  raft::IdentifyReply reply = birth_.OnIdentify(request, BootNow());
  Process();
  return reply;
}

raft::PledgeReply BirthRunner::Propose(const raft::Propose& request) {
  std::lock_guard lock(mutex_);
  raft::PledgeReply reply = birth_.OnPropose(request, BootNow());
  Process();
  return reply;
}

raft::BornReply BirthRunner::Born(const raft::Born& request) {
  std::lock_guard lock(mutex_);
  raft::BornReply reply = birth_.OnBorn(request, BootNow());
  Process();
  return reply;
}

raft::Refusal BirthRunner::Invited(const raft::Invitation& invitation) {
  std::lock_guard lock(mutex_);
  const bool before = birth_.record().born;
  const raft::Refusal refusal = birth_.OnInvited(invitation, BootNow());
  Process();
  if (!before && birth_.record().born) {
    LogInfo("let into a cluster by its leader",
            {{"cluster", invitation.cluster}, {"leader_store", invitation.from}});
  }
  return refusal;
}

void BirthRunner::OnMembership(const raft::Membership& membership) {
  {
    std::lock_guard lock(mutex_);
    membership_ = membership;
  }
  changed_.notify_all();
}

void BirthRunner::OnCaughtUp() {
  std::lock_guard lock(mutex_);
  birth_.OnCaughtUp();
}

void BirthRunner::OnBirthComplete() {
  {
    std::lock_guard lock(mutex_);
    complete_ = true;
  }
  changed_.notify_all();
}

std::vector<raft::Newcomer> BirthRunner::Newcomers() const {
  std::lock_guard lock(mutex_);
  return birth_.Newcomers(BootNow());
}

raft::BirthStatus BirthRunner::Status() const {
  std::lock_guard lock(mutex_);
  return birth_.Status(BootNow());
}

void BirthRunner::Save(const raft::BirthRecord& record) {
  const std::string bytes = raft::EncodeBirthRecord(record);
  const bool newly_born = record.born && !ports_.identity->current().cluster;
  const absl::Status status = newly_born ? ports_.identity->SetBorn(record.cluster(), bytes)
                                         : ports_.identity->SetBirth(bytes);
  if (!status.ok()) {
    Fatal(
        "the identity file cannot be written: this process ends. Check the disk, then start it "
        "again",
        {{"error", std::string(status.message())}});
  }
}

void BirthRunner::Process() {
  raft::BirthOutput output = birth_.TakeOutput();
  if (output.persist) Save(*output.persist);
  std::move(output.calls.begin(), output.calls.end(), std::back_inserter(calls_));
  if (output.create_log) create_log_ = std::move(output.create_log);
  if (output.halt) halt_ = std::move(output.halt);
  exit_ = exit_ || output.exit;
  if (!calls_.empty() || create_log_ || halt_ || exit_ || RunWanted()) changed_.notify_all();
}

void BirthRunner::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    Act(&lock);
    if (stopped_) break;
    const Instant now = BootNow();
    const Instant deadline = birth_.NextDeadline();
    if (deadline <= now) {
      birth_.Tick(now);
      Process();
      continue;
    }
    // A new deadline may come with any input: none is later than a tenth of a second.
    changed_.wait_for(lock, std::min<Duration>(deadline - now, std::chrono::milliseconds(100)),
                      [this] {
                        return stopped_ || !calls_.empty() || create_log_ || halt_ || exit_ ||
                               membership_ || complete_ || RunWanted();
                      });
  }
}

void BirthRunner::Act(std::unique_lock<std::mutex>* lock) {
  if (membership_ && birth_.record().born) {
    birth_.OnMembership(*std::exchange(membership_, std::nullopt));
    Process();
  }
  if (std::exchange(complete_, false)) {
    birth_.OnBirthComplete(BootNow());
    Process();
  }
  const std::vector<raft::BirthCall> calls = std::exchange(calls_, {});
  const auto create_log = std::exchange(create_log_, std::nullopt);
  const auto halt = std::exchange(halt_, std::nullopt);
  const bool exit = exit_;
  // One who is halted may not run: with a double found in this round, too.
  const bool run = RunWanted();
  ran_ = ran_ || run;
  lock->unlock();

  LogStatus();
  if (halt) {
    halt_reason_ = *halt;
    ports_.halt(halt_reason_);
  }
  if (exit) ports_.exit(halt_reason_);
  if (run) ports_.run();
  for (const raft::BirthCall& call : calls) {
    if (ports_.client == nullptr) continue;
    ports_.client->Call(call, call_timeout_,
                        [this, id = call.id,
                         address = call.address](const absl::StatusOr<raft::BirthReply>& reply) {
                          NoteReachable(address, reply.ok());
                          std::lock_guard reply_lock(mutex_);
                          if (reply.ok()) {
                            birth_.OnReply(id, *reply, BootNow());
                          } else {
                            birth_.OnCallFailed(id, std::string(reply.status().message()),
                                                BootNow());
                          }
                          Process();
                        });
  }
  // A double was seen in the same round: nothing may be started after the halt.
  if (create_log && halt_reason_.empty()) {
    const absl::Status status = ports_.create_log(*create_log);
    if (!status.ok()) {
      Fatal(
          "the log cannot be made: this process ends. Check the disk, then "
          "start it again",
          {{"error", std::string(status.message())}});
    }
    {
      std::lock_guard created(mutex_);
      birth_.OnLogCreated(BootNow());
      Process();
    }
    LogInfo(create_log->first_entry != nullptr ? "born" : "joins",
            {{"cluster", create_log->cluster}});
    ports_.born();
  }
  lock->lock();
}

void BirthRunner::NoteReachable(const std::string& address, bool reachable) {
  bool lost = false;
  {
    std::lock_guard lock(mutex_);
    if (reachable) {
      if (reachable_.size() < raft::Birth::kAddressesMax * 2) reachable_.insert(address);
    } else {
      lost = reachable_.erase(address) > 0;
    }
  }
  if (lost && ports_.peer_lost != nullptr) ports_.peer_lost();
}

void BirthRunner::LogStatus() {
  const raft::BirthStatus status = Status();
  const Instant now = BootNow();
  const bool other_state = logged_ != status.state;
  if (!other_state && (logged_lacks_ == status.lacks || now - logged_at_ < kLackInterval)) return;
  logged_ = status.state;
  logged_lacks_ = status.lacks;
  logged_at_ = now;
  const LogField state("state", raft::ToString(status.state));
  if (status.lacks.empty()) {
    LogInfo("birth", {state, {"cluster", status.cluster}});
  } else {
    LogWarning("birth", {state, {"lacks", Join(status.lacks)}});
  }
}

}  // namespace quorate::services
