#include "tests/sim/history.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/check.h"
#include "tests/sim/machine.h"

namespace quorate::sim {
namespace {

// A local read that may be of any moment of so long a time says little, and costs the register
// checker much.
constexpr Micros kRegisterAgeMax = 500 * kMillisecond;

size_t NumberOfKey(const std::string& key) { return std::strtoull(key.c_str() + 1, nullptr, 10); }

}  // namespace

uint64_t History::NumberOf(const std::string& value) {
  return std::strtoull(value.c_str(), nullptr, 10);
}

void History::Fail(uint64_t operation, const std::string& what) {
  failure_->Fail("operation " + std::to_string(operation) + ": " + what);
}

uint64_t History::Begin(Form form, RegisterOperation facts, size_t key) {
  Operation operation;
  operation.form = form;
  operation.key = key;
  operation.facts = facts;
  operation.facts.called = events_->now();
  operation.floor = store_.acknowledged();
  operation.begun_with = store_.applied();
  const uint64_t number = operations_.size() + 1;
  if (facts.kind == RegisterOperation::Kind::kWrite ||
      facts.kind == RegisterOperation::Kind::kSwap) {
    operation.facts.value = number;
  }
  operations_.push_back(operation);
  return number;
}

void History::EndRead(uint64_t operation, const ReadQuestion& question, const ReadAnswer& answer) {
  Operation& read = operations_[operation - 1];
  CHECK(read.end == End::kOpen && read.form == Form::kRead);
  if (answer.status == ReadAnswer::Status::kUnavailable) return Forget(operation);
  store_.JudgeRead(operation, question, answer, read.floor);
  store_.Acknowledge(answer.revision.value());
  ++ended_;
  const Micros now = events_->now();
  const bool for_register = answer.status == ReadAnswer::Status::kServed &&
                            question.kind == ReadQuestion::Kind::kGet && !question.at &&
                            answer.age &&
                            (question.freshness != ReadQuestion::Freshness::kLocal ||
                             now - *answer.age <= kRegisterAgeMax);
  read.end = for_register ? End::kServed : End::kForgotten;
  if (!for_register) return;
  read.key = NumberOfKey(question.key);
  read.facts.called = std::min(read.facts.called, *answer.age);
  read.facts.returned = now;
  read.facts.hint = answer.revision.value();
  read.facts.value = answer.items.empty() ? 0 : NumberOf(answer.items[0].value);
}

void History::EndWrite(uint64_t operation, const v1::Answer& answer, bool succeeded) {
  Operation& write = operations_[operation - 1];
  if (write.end != End::kOpen) return Fail(operation, "it ends twice");
  write.end = End::kAnswered;
  write.facts.returned = events_->now();
  write.facts.succeeded = succeeded;
  ++ended_;
  if (write.executed != 1) {
    Fail(operation, "it is answered and was executed " + std::to_string(write.executed) + " times");
  } else if (StoreChecker::FactsOf(answer) != write.answer) {
    Fail(operation, "its client is answered { " + answer.ShortDebugString() +
                        " }, which is not what was executed");
  } else if (answer.revision() < write.floor) {
    Fail(operation, "it is answered with revision " + std::to_string(answer.revision()) + ", and " +
                        std::to_string(write.floor) + " was acknowledged before it was asked for");
  }
  store_.Acknowledge(answer.revision());
}

void History::EndNotAccepted(uint64_t operation) {
  Operation& write = operations_[operation - 1];
  if (write.end != End::kOpen) return Fail(operation, "it ends twice");
  write.end = End::kNotAccepted;
  ++ended_;
}

void History::EndUnknown(uint64_t operation) {
  Operation& write = operations_[operation - 1];
  if (write.end != End::kOpen || std::exchange(write.unknown, true)) return;
  ++ended_;
}

void History::Forget(uint64_t operation) { operations_[operation - 1].end = End::kForgotten; }

// --- The log ---

void History::OnApplied(const std::vector<raft::EntryPtr>& entries,
                        const std::vector<storage::Applied>& outcomes) {
  if (entries.back()->index <= store_.applied()) return;
  size_t next = 0;
  for (const raft::EntryPtr& entry : entries) {
    const storage::Applied* outcome = nullptr;
    if (entry->type == raft::EntryType::kCommand) {
      outcome = &outcomes[next++];
      CHECK(outcome->index == entry->index);
    }
    if (entry->index <= store_.applied()) continue;
    if (store_.Replay(*entry, outcome)) Learn(*entry);
    if (failure_->failed()) return;
  }
}

void History::OnRecovered(const std::vector<raft::EntryPtr>& entries,
                          const std::vector<std::shared_ptr<const std::string>>& answers) {
  for (size_t i = 0; i < entries.size() && !failure_->failed(); ++i) {
    if (store_.Replay(*entries[i], nullptr, answers[i].get())) Learn(*entries[i]);
  }
}

void History::Learn(const raft::Entry& entry) {
  const v1::Command& command = store_.command();
  if (command.note().empty()) return LearnEffects(entry, nullptr);
  const uint64_t number = NumberOf(command.note());
  CHECK(number > 0 && number <= operations_.size());
  Operation& operation = operations_[number - 1];
  if (store_.verdict() == StoreModel::Verdict::kRepeat) {
    report_->Count(Reached::kRepeated);
    return;
  }
  if (++operation.executed > 1) return Fail(number, "it is executed twice");
  operation.answer = store_.facts();
  operation.applied = events_->now();
  operation.facts.hint = store_.model().revision();
  operation.changed = !store_.model().changes().empty();
  if (entry.index <= operation.begun_with) {
    Fail(number, "it is executed at " + ToString(entry.index) + ", before it was asked for");
  }
  if (operation.form == Form::kOther) LearnEffects(entry, &operation);
  if (store_.answer().code() != 0) return;
  if (!command.has_grant_ttl() && !command.has_keep_alive_ttl()) return;
  for (const v1::OperationResult& result : store_.answer().results()) {
    if (result.ttl_ms() == 0) continue;
    store_.OnRenewed(result.ttl_id(), result.ttl_ms(), operation.facts.called, entry.term);
  }
}

// A write of each key that it has changed, which took effect until now.
void History::LearnEffects(const raft::Entry& entry, const Operation* operation) {
  const Micros now = events_->now();
  std::map<std::string, uint64_t> changed;  // to the last value of each
  for (const StoreModel::Change& change : store_.model().changes()) {
    changed[change.key] = change.now->deleted ? 0 : NumberOf(change.now->value);
  }
  for (const auto& [key, value] : changed) {
    RegisterOperation write;
    write.kind = RegisterOperation::Kind::kWrite;
    write.called = operation != nullptr
                       ? operation->facts.called
                       : std::min(now, (entry.wall_time_ms - kWallTimeAtStart) * kMillisecond);
    write.returned = now;
    write.hint = store_.model().revision();
    write.value = value;
    effects_[NumberOfKey(key)].push_back(write);
  }
}

// --- The end ---

void History::Finish() {
  std::map<size_t, std::vector<RegisterOperation>> keys = std::move(effects_);
  for (size_t i = 0; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    switch (operation.end) {
      case End::kForgotten:
        break;
      case End::kNotAccepted:
        if (operation.executed != 0) Fail(i + 1, "it was not accepted, and is executed");
        break;
      case End::kOpen:
        report_->Count(Reached::kUnknownOperation);
        // No log has it, or it changed nothing: nothing can have come of it.
        if (!operation.changed || operation.form != Form::kSimple) break;
        keys[operation.key].push_back(operation.facts);
        keys[operation.key].back().succeeded = true;
        keys[operation.key].back().returned = operation.applied;
        break;
      case End::kServed:
        keys[operation.key].push_back(operation.facts);
        break;
      case End::kAnswered:
        if (operation.form != Form::kSimple) break;
        keys[operation.key].push_back(operation.facts);
        keys[operation.key].back().returned = std::min(operation.facts.returned, operation.applied);
        break;
    }
  }
  for (const auto& [key, history] : keys) CheckKey(key, history);
}

void History::CheckKey(size_t key, const std::vector<RegisterOperation>& history) {
  switch (CheckRegister(history)) {
    case Verdict::kLinearizable:
      return;
    case Verdict::kUndecided:
      ++report_->undecided;
      return;
    case Verdict::kNotLinearizable:
      return failure_->Fail("key " + std::to_string(key) + ": its " +
                            std::to_string(history.size()) + " operations are not linearizable");
  }
}

}  // namespace quorate::sim
