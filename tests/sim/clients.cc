#include "tests/sim/clients.h"

#include <cstdlib>

#include "base/check.h"
#include "storage/answer.h"
#include "storage/state_requests.h"

namespace quorate::sim {
namespace {

using Kind = RegisterOperation::Kind;

v1::Command PutCommand(const std::string& key, const std::string& value, uint64_t operation) {
  v1::Command command;
  command.set_note(History::NoteOf(operation));
  v1::PutOperation* put = command.mutable_transaction()->add_then()->mutable_put();
  put->set_key(key);
  put->set_value(value);
  put->set_value_kind(v1::VALUE_KIND_TEXT);
  return command;
}

uint64_t NumberOf(const std::string& value) { return std::strtoull(value.c_str(), nullptr, 10); }

}  // namespace

Clients::Clients(Context* context) : context_(context), clients_(context->plan.clients) {}

std::string Clients::ValueOf(uint64_t operation) const {
  std::string value = std::to_string(operation) + ":";
  if (value.size() < context_->plan.value_bytes) value.resize(context_->plan.value_bytes, 'v');
  return value;
}

void Clients::Start() {
  for (size_t client = 0; client < clients_.size(); ++client) Think(client);
}

void Clients::Think(size_t client) {
  const Micros time = context_->random.Between(0, 2 * context_->plan.think);
  context_->events.After(time, [this, client] { Next(client); });
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
  const size_t key = context_->random.Below(context_->plan.keys);
  const uint64_t dice = context_->random.Below(1000);
  const Plan& plan = context_->plan;
  if (dice < plan.local_permille) {
    BeginRead(client, key, process, true);
  } else if (dice < plan.local_permille + plan.read_permille) {
    BeginRead(client, key, process, false);
  } else {
    BeginWrite(client, key, process);
  }
}

void Clients::End(size_t client) {
  clients_[client].operation = 0;
  Think(client);
}

// --- Reads ---

void Clients::BeginRead(size_t client, size_t key, Process* process, bool local) {
  const uint64_t operation = context_->history.Begin(Kind::kRead, key, context_->events.now(), 0);
  clients_[client].give_up_at = 0;
  clients_[client].operation = operation;
  const auto done = [this, client, key, operation, local](const Process::ReadOutcome& outcome) {
    if (!IsCurrent(client, operation)) return;
    if (!outcome.served) {
      context_->report.Count(Reached::kReadRefused);
      context_->history.Forget(operation);
      return End(client);
    }
    context_->report.Count(local              ? Reached::kLocalReadFresh
                           : outcome.by_lease ? Reached::kLeaseRead
                                              : Reached::kLinearizableRead);
    const uint64_t value = outcome.found ? NumberOf(outcome.value) : 0;
    clients_[client].seen[key] = value;
    clients_[client].revision = std::max(clients_[client].revision, outcome.revision.value());
    context_->trace.Note(kTraceOutcome, client, operation, value, outcome.revision.value());
    // What may be of any moment of a long time says little, and costs the checker much.
    if (context_->events.now() - outcome.not_before > 500 * kMillisecond) {
      context_->history.Forget(operation);
    } else {
      context_->history.EndRead(operation, context_->events.now(), outcome.not_before, value);
    }
    End(client);
  };
  if (local) {
    context_->report.Count(Reached::kLocalRead);
    return done(process->ReadLocal(KeyName(key)));
  }
  const bool by_lease = context_->plan.leases && context_->random.OneIn(2);
  context_->events.After(context_->plan.deadline, [this, client, operation] {
    if (!IsCurrent(client, operation)) return;
    context_->history.Forget(operation);
    End(client);
  });
  process->ReadLinearizable(KeyName(key), by_lease, done);
}

// --- Writes ---

void Clients::BeginWrite(size_t client, size_t key, Process* process) {
  Client& me = clients_[client];
  const uint64_t dice = context_->random.Below(10);
  const Kind kind = dice < 6 ? Kind::kWrite : dice < 7 ? Kind::kDelete : Kind::kSwap;
  const uint64_t expected = kind == Kind::kSwap ? me.seen[key] : 0;
  const uint64_t operation = context_->history.Begin(kind, key, context_->events.now(), expected);
  me.operation = operation;
  v1::Command command = PutCommand(KeyName(key), ValueOf(operation), operation);
  v1::Transaction* transaction = command.mutable_transaction();
  if (kind == Kind::kDelete) {
    transaction->mutable_then(0)->mutable_delete_()->set_key(KeyName(key));
  } else if (kind == Kind::kSwap) {
    v1::Compare* compare = transaction->add_compare();
    compare->set_key(KeyName(key));
    compare->set_result(v1::Compare::RESULT_EQUAL);
    if (expected == 0) {
      compare->set_version(0);
    } else {
      compare->set_value(ValueOf(expected));
    }
    transaction->set_abort_on_false(context_->random.OneIn(2));
  }
  context_->trace.Note(kTraceOperation, me.machine, operation, static_cast<uint64_t>(kind), key);
  me.key = key;
  me.value = kind == Kind::kDelete ? 0 : operation;
  me.may_be_in_a_log = false;
  me.give_up_at = context_->events.now();
  if (context_->plan.sqlite && !context_->random.OneIn(4)) {
    v1::ClientRequest* request = command.mutable_client_request();
    request->set_id(std::to_string(operation));
    request->set_revision(me.revision);
    std::string hash = std::to_string(operation);
    hash.resize(storage::kCommandHashBytes, 'h');
    request->set_command_hash(hash);
    me.give_up_at += 3 * context_->plan.deadline;
  }
  me.command = std::move(command);
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
      End(client);
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
      [this, client, key = me.key, operation = me.operation, value = me.value](
          const ingress::Outcome& outcome) { EndWrite(client, key, operation, value, outcome); });
}

// With a request id it may be sent again, to any node, whatever has become of it.
bool Clients::Retry(size_t client, uint64_t operation) {
  Client& me = clients_[client];
  if (stopped_ || context_->events.now() >= me.give_up_at) return false;
  me.life = 0;  // nobody is asked for now
  const Micros pause = context_->random.Between(1, 200 * kMillisecond);
  context_->events.After(pause, [this, client, operation] {
    if (!IsCurrent(client, operation)) return;
    Process* const process = PickNode();
    if (process == nullptr) {
      if (!Retry(client, operation)) End(client);
      return;
    }
    context_->report.Count(Reached::kRetried);
    SendWrite(client, process);
  });
  return true;
}

void Clients::EndWrite(size_t client, size_t key, uint64_t operation, uint64_t value,
                       const ingress::Outcome& outcome) {
  if (!IsCurrent(client, operation)) return;
  const Micros now = context_->events.now();
  context_->trace.Note(kTraceOutcome, client, operation, static_cast<uint64_t>(outcome.kind));
  switch (outcome.kind) {
    case ingress::Outcome::Kind::kUnknown:
      context_->report.Count(Reached::kUnknownOutcome);
      clients_[client].may_be_in_a_log = true;
      if (Retry(client, operation)) return;
      break;
    case ingress::Outcome::Kind::kNotAccepted:
      context_->report.Count(Reached::kNotAccepted);
      if (Retry(client, operation)) return;
      if (!clients_[client].may_be_in_a_log) context_->history.EndNotAccepted(operation);
      break;
    case ingress::Outcome::Kind::kAnswered: {
      v1::Answer answer;
      CHECK(answer.ParseFromString(*outcome.answer));
      if (answer.reason() == "SKIPPED") {
        context_->failure.Fail("operation " + std::to_string(operation) +
                               " is answered by the Skip that took its place");
        break;
      }
      // Its id was forgotten: nobody knows any more.
      if (answer.reason() == "REQUEST_ID_EXPIRED") break;
      clients_[client].revision = std::max(clients_[client].revision, answer.revision());
      bool succeeded = answer.succeeded();
      if (answer.code() != 0) succeeded = false;
      // A deletion always runs; it says how many it deleted.
      if (value == 0) succeeded = answer.results_size() == 1 && answer.results(0).deleted() == 1;
      context_->report.Count(succeeded ? Reached::kAnswered : Reached::kMismatch);
      if (succeeded) clients_[client].seen[key] = value;
      context_->history.EndWrite(operation, now, succeeded);
      break;
    }
  }
  End(client);
}

void Clients::OnProcessGone(size_t machine) {
  for (size_t client = 0; client < clients_.size(); ++client) {
    Client& me = clients_[client];
    if (me.operation == 0 || me.machine != machine || me.life == 0) continue;
    me.may_be_in_a_log = true;
    if (!Retry(client, me.operation)) End(client);
  }
}

void Clients::WriteOnce(size_t machine, std::function<void(bool)> done) {
  Process* const process = context_->machines[machine]->process.get();
  if (process == nullptr || process->node() == nullptr) return done(false);
  const uint64_t operation = context_->history.Begin(Kind::kWrite, 0, context_->events.now(), 0);
  const Instant deadline = context_->machines[machine]->clock.Now() + std::chrono::seconds(2);
  process->forwarding()->Write(
      PutCommand(KeyName(0), ValueOf(operation), operation), deadline,
      [this, operation, done = std::move(done)](const ingress::Outcome& outcome) {
        if (outcome.kind == ingress::Outcome::Kind::kAnswered) {
          context_->history.EndWrite(operation, context_->events.now(), true);
        } else if (outcome.kind == ingress::Outcome::Kind::kNotAccepted) {
          context_->history.EndNotAccepted(operation);
        }
        done(outcome.kind == ingress::Outcome::Kind::kAnswered);
      });
}

}  // namespace quorate::sim
