#include "tests/sim/clients.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "storage/state_requests.h"

namespace quorate::sim {
namespace {

// A client renews the latest that it was granted; older ones it lets run out.
constexpr size_t kTtlsOfClient = 4;

}  // namespace

Clients::Clients(Context* context)
    : context_(context), mix_(context->plan, &context->random), clients_(context->plan.clients) {}

void Clients::Start() {
  stopped_ = false;
  for (size_t client = 0; client < clients_.size(); ++client) {
    if (clients_[client].operation == 0) Think(client);
  }
}

void Clients::Think(size_t client) {
  const Micros time = context_->random.Between(0, 2 * context_->plan.think);
  const uint64_t round = ++clients_[client].round;
  context_->events.After(time, [this, client, round] {
    if (clients_[client].round == round) Next(client);
  });
}

// Any node that is up: its load balancer's business. Null: nothing listens there.
Process* Clients::PickNode() {
  const size_t machine = context_->random.Below(context_->machines.size());
  Process* const process = context_->machines[machine]->process.get();
  return process != nullptr && !process->dead() && process->node() != nullptr ? process : nullptr;
}

void Clients::Next(size_t client) {
  if (stopped_) return;
  Process* const process = PickNode();
  if (process == nullptr) return Think(client);  // refused: it tries another one later
  Client& me = clients_[client];
  me.machine = process->machine();
  me.life = process->life();
  if (me.next_page) {
    ReadQuestion page = *std::exchange(me.next_page, std::nullopt);
    return BeginRead(client, std::move(page), true, process);
  }
  const Plan& plan = context_->plan;
  if (context_->random.Below(1000) < plan.local_permille + plan.read_permille) {
    BeginRead(client, mix_.DrawRead(me.view), false, process);
  } else {
    BeginWrite(client, process);
  }
}

void Clients::End(size_t client) {
  clients_[client].operation = 0;
  Think(client);
}

// Nobody will ever know what has become of it.
void Clients::GiveUp(size_t client) {
  const Client& me = clients_[client];
  if (me.reads) {
    context_->history.Forget(me.operation);
  } else {
    context_->history.EndUnknown(me.operation);
  }
  End(client);
}

// --- Reads ---

void Clients::BeginRead(size_t client, ReadQuestion question, bool page, Process* process) {
  Client& me = clients_[client];
  const uint64_t operation = context_->history.BeginRead();
  me.operation = operation;
  me.reads = true;
  me.give_up_at = 0;
  question.deadline =
      context_->machines[me.machine]->clock.Now() + Duration(context_->plan.deadline);
  if (question.freshness == ReadQuestion::Freshness::kLocal) {
    context_->report.Count(Reached::kLocalRead);
  }
  context_->events.After(context_->plan.deadline + kMillisecond, [this, client, operation] {
    if (IsCurrent(client, operation)) GiveUp(client);
  });
  process->reads()->Ask(question,
                        [this, client, operation, question, page](const ReadAnswer& answer) {
                          if (IsCurrent(client, operation)) EndRead(client, question, page, answer);
                        });
}

void Clients::EndRead(size_t client, const ReadQuestion& question, bool page,
                      const ReadAnswer& answer) {
  Client& me = clients_[client];
  CountRead(question, page, answer);
  context_->trace.Note(kTraceOutcome, client, me.operation, static_cast<uint64_t>(answer.status),
                       answer.revision.value());
  context_->history.EndRead(me.operation, question, answer);
  me.view.revision = std::max(me.view.revision, answer.revision.value());
  if (answer.status != ReadAnswer::Status::kServed) return End(client);
  if (question.kind == ReadQuestion::Kind::kGet && !question.at) {
    me.view.seen[History::NumberOf(question.key.substr(1))] =
        answer.items.empty() ? 0 : History::NumberOf(answer.items[0].value);
  }
  if (question.kind == ReadQuestion::Kind::kList && answer.more && !answer.items.empty()) {
    // Any node: what a page token says.
    ReadQuestion next;
    next.kind = question.kind;
    next.key = question.key;
    next.items_max = question.items_max;
    next.after = answer.items.back().key;
    next.at = question.at.value_or(answer.revision);
    next.min_revision = *next.at;
    me.next_page = std::move(next);
  }
  End(client);
}

void Clients::CountRead(const ReadQuestion& question, bool page, const ReadAnswer& answer) {
  Report& report = context_->report;
  switch (answer.status) {
    case ReadAnswer::Status::kUnavailable:
      return report.Count(Reached::kReadRefused);
    case ReadAnswer::Status::kCompacted:
      return report.Count(Reached::kPastCompacted);
    case ReadAnswer::Status::kInFuture:
      return report.Count(Reached::kFutureRefused);
    case ReadAnswer::Status::kServed:
      break;
  }
  if (question.freshness != ReadQuestion::Freshness::kLocal) {
    report.Count(answer.by_lease ? Reached::kLeaseRead : Reached::kLinearizableRead);
  } else {
    report.Count(answer.age ? Reached::kLocalReadFresh : Reached::kAgeUnknown);
  }
  if (answer.waited) report.Count(Reached::kWaitedForRevision);
  if (question.at) report.Count(Reached::kPastRead);
  if (question.kind == ReadQuestion::Kind::kList) {
    report.Count(page ? Reached::kListPage : Reached::kList);
  }
  if (question.kind == ReadQuestion::Kind::kCount) report.Count(Reached::kCountRead);
  if (question.kind == ReadQuestion::Kind::kHistory) report.Count(Reached::kHistoryRead);
}

// --- Writes ---

void Clients::BeginWrite(size_t client, Process* process) {
  Client& me = clients_[client];
  ClientMix::Write write = mix_.DrawWrite(me.view);
  const uint64_t operation =
      write.simple ? context_->history.BeginSimple(write.kind, write.key, write.expected)
                   : context_->history.BeginOther();
  mix_.Name(operation, &write.command);
  context_->trace.Note(kTraceOperation, me.machine, operation,
                       static_cast<uint64_t>(write.command.body_case()), write.key);
  me.operation = operation;
  me.reads = false;
  me.simple = write.simple;
  me.key = write.key;
  me.value = write.kind == RegisterOperation::Kind::kDelete ? 0 : operation;
  me.may_be_in_a_log = false;
  me.give_up_at = context_->events.now();
  if (!context_->random.OneIn(4)) {
    v1::ClientRequest* request = write.command.mutable_client_request();
    request->set_id(std::to_string(operation));
    request->set_revision(me.view.revision);
    std::string hash = std::to_string(operation);
    hash.resize(storage::kCommandHashBytes, 'h');
    request->set_command_hash(hash);
    me.give_up_at += 3 * context_->plan.deadline;
  }
  me.command = std::move(write.command);
  if (me.command.has_revoke_ttl()) std::erase(me.view.ttls, me.command.revoke_ttl().ttl_id());
  SendWrite(client, process);
  // Now and then a client does not wait for the end.
  if (context_->random.OneIn(50)) {
    const Micros patience = context_->random.Between(0, 20 * kMillisecond);
    context_->events.After(patience, [this, client, operation] {
      if (!IsCurrent(client, operation)) return;
      const Client& impatient = clients_[client];
      Process* const asked = context_->machines[impatient.machine]->process.get();
      if (asked != nullptr && asked->life() == impatient.life) {
        asked->forwarding()->Cancel(impatient.write);
      }
      GiveUp(client);
    });
  }
}

void Clients::SendWrite(size_t client, Process* process) {
  Client& me = clients_[client];
  me.machine = process->machine();
  me.life = process->life();
  const Instant deadline = context_->machines[me.machine]->clock.Now() +
                           Duration(context_->random.Between(1, context_->plan.deadline));
  me.write = process->forwarding()->Write(
      me.command, deadline,
      [this, client, operation = me.operation](const ingress::Outcome& outcome) {
        EndWrite(client, operation, outcome);
      });
}

// With a request id it may be sent again, to any node, whatever has become of it.
bool Clients::Retry(size_t client, uint64_t operation) {
  Client& me = clients_[client];
  if (stopped_ || me.reads || context_->events.now() >= me.give_up_at) return false;
  me.life = 0;  // nobody is asked for now
  const Micros pause = context_->random.Between(1, 200 * kMillisecond);
  context_->events.After(pause, [this, client, operation] {
    if (!IsCurrent(client, operation)) return;
    Process* const process = PickNode();
    if (process == nullptr) {
      if (!Retry(client, operation)) GiveUp(client);
      return;
    }
    context_->report.Count(Reached::kRetried);
    SendWrite(client, process);
  });
  return true;
}

void Clients::EndWrite(size_t client, uint64_t operation, const ingress::Outcome& outcome) {
  if (!IsCurrent(client, operation)) return;
  Client& me = clients_[client];
  context_->trace.Note(kTraceOutcome, client, operation, static_cast<uint64_t>(outcome.kind));
  switch (outcome.kind) {
    case ingress::Outcome::Kind::kUnknown:
      context_->report.Count(Reached::kUnknownOutcome);
      me.may_be_in_a_log = true;
      if (Retry(client, operation)) return;
      return GiveUp(client);
    case ingress::Outcome::Kind::kNotAccepted:
      context_->report.Count(Reached::kNotAccepted);
      if (Retry(client, operation)) return;
      if (me.may_be_in_a_log) return GiveUp(client);
      context_->history.EndNotAccepted(operation);
      return End(client);
    case ingress::Outcome::Kind::kAnswered: {
      v1::Answer answer;
      CHECK(answer.ParseFromString(*outcome.answer));
      me.view.revision = std::max(me.view.revision, answer.revision());
      if (answer.reason() == "SKIPPED") {
        context_->failure.Fail("operation " + std::to_string(operation) +
                               " is answered by the Skip that took its place");
      }
      // An earlier try may have been executed, or may be yet: nobody knows any more.
      if (answer.reason() == "REQUEST_ID_EXPIRED" || answer.reason() == "REQUEST_IDS_FULL") {
        return GiveUp(client);
      }
      TakeAnswer(&me, answer);
      return End(client);
    }
  }
}

void Clients::TakeAnswer(Client* me, const v1::Answer& answer) {
  bool succeeded = answer.code() == 0 && answer.succeeded();
  if (me->simple) {
    // A deletion always runs; it says how many it deleted.
    if (me->value == 0) succeeded = answer.results_size() == 1 && answer.results(0).deleted() == 1;
    if (succeeded) me->view.seen[me->key] = me->value;
  }
  context_->report.Count(succeeded ? Reached::kAnswered : Reached::kMismatch);
  context_->history.EndWrite(me->operation, answer, succeeded);
  std::vector<uint64_t>& ttls = me->view.ttls;
  if (me->command.has_grant_ttl() && answer.results_size() == 1) {
    ttls.push_back(answer.results(0).ttl_id());
    if (ttls.size() > kTtlsOfClient) ttls.erase(ttls.begin());
  }
  // Sometimes it does not believe that one is over.
  if (answer.reason() == "TTL_NOT_FOUND" && !context_->random.OneIn(3)) ttls.clear();
}

void Clients::OnProcessGone(size_t machine) {
  for (size_t client = 0; client < clients_.size(); ++client) {
    Client& me = clients_[client];
    if (me.operation == 0 || me.machine != machine || me.life == 0) continue;
    me.may_be_in_a_log = true;
    if (!Retry(client, me.operation)) GiveUp(client);
  }
}

void Clients::WriteOnce(size_t machine, std::function<void(bool)> done) {
  Process* const process = context_->machines[machine]->process.get();
  if (process == nullptr || process->node() == nullptr) return done(false);
  const uint64_t operation = context_->history.BeginSimple(RegisterOperation::Kind::kWrite, 0, 0);
  const Instant deadline = context_->machines[machine]->clock.Now() + std::chrono::seconds(2);
  v1::Command command;
  v1::PutOperation* const put = command.mutable_transaction()->add_then()->mutable_put();
  put->set_key(History::KeyName(0));
  put->set_value_kind(v1::VALUE_KIND_TEXT);
  mix_.Name(operation, &command);
  process->forwarding()->Write(
      std::move(command), deadline,
      [this, operation, done = std::move(done)](const ingress::Outcome& outcome) {
        if (outcome.kind == ingress::Outcome::Kind::kAnswered) {
          v1::Answer answer;
          CHECK(answer.ParseFromString(*outcome.answer));
          context_->history.EndWrite(operation, answer, true);
        } else if (outcome.kind == ingress::Outcome::Kind::kNotAccepted) {
          context_->history.EndNotAccepted(operation);
        }
        done(outcome.kind == ingress::Outcome::Kind::kAnswered);
      });
}

void Clients::ReadAllOnce(size_t machine, ReadQuestion::Freshness freshness, NodeReads::Done done) {
  const uint64_t operation = context_->history.BeginRead();
  ReadQuestion question;
  question.kind = ReadQuestion::Kind::kList;
  question.freshness = freshness;
  question.items_max = 100'000;
  question.deadline = context_->machines[machine]->clock.Now() + std::chrono::seconds(2);
  const auto answered = [this, operation, question,
                         done = std::move(done)](const ReadAnswer& answer) {
    context_->history.EndRead(operation, question, answer);
    CHECK(!answer.more, "a page of everything");
    done(answer);
  };
  context_->machines[machine]->process->reads()->Ask(question, answered);
}

}  // namespace quorate::sim
