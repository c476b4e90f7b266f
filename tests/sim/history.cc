#include "tests/sim/history.h"

#include <xxhash.h>

#include <cstdlib>

#include "base/check.h"
#include "quorate/v1/command.pb.h"

namespace quorate::sim {

using HistoryKind = RegisterOperation::Kind;

namespace {

// Of what an answer means: the order of its metadata's bytes is nobody's business.
uint64_t HashOf(const std::string& bytes) {
  v1::Answer answer;
  CHECK(answer.ParseFromString(bytes));
  std::string facts = std::to_string(answer.code()) + answer.reason() + " " +
                      std::to_string(answer.revision()) + (answer.succeeded() ? "+" : "-");
  for (const v1::OperationResult& result : answer.results()) {
    for (uint64_t fact : {result.create_revision(), result.version(), result.deleted()}) {
      facts += " " + std::to_string(fact);
    }
  }
  return XXH3_64bits(facts.data(), facts.size());
}

}  // namespace

void History::Fail(uint64_t operation, const std::string& what) {
  failure_->Fail("operation " + std::to_string(operation) + " on key " +
                 std::to_string(operations_[operation - 1].key) + ": " + what);
}

uint64_t History::Begin(HistoryKind kind, size_t key, Micros now, uint64_t expected) {
  Operation operation;
  operation.key = key;
  operation.facts.kind = kind;
  operation.facts.called = now;
  operation.facts.expected = expected;
  const uint64_t number = operations_.size() + 1;
  if (kind == HistoryKind::kWrite || kind == HistoryKind::kSwap) operation.facts.value = number;
  operations_.push_back(operation);
  return number;
}

void History::EndRead(uint64_t operation, Micros now, Micros not_before, uint64_t value) {
  Operation& read = operations_[operation - 1];
  CHECK(read.end == End::kOpen && read.facts.kind == HistoryKind::kRead);
  read.end = End::kServed;
  read.facts.called = std::min(read.facts.called, not_before);
  read.facts.returned = now;
  read.facts.value = value;
  ++ended_;
}

void History::EndWrite(uint64_t operation, Micros now, bool succeeded) {
  Operation& write = operations_[operation - 1];
  if (write.end != End::kOpen) return Fail(operation, "it ends twice");
  write.end = End::kAnswered;
  write.facts.returned = now;
  write.facts.succeeded = succeeded;
  if (write.executed != 1) {
    Fail(operation, "it is answered and was executed " + std::to_string(write.executed) + " times");
  }
  ++ended_;
}

void History::EndNotAccepted(uint64_t operation) {
  Operation& write = operations_[operation - 1];
  if (write.end != End::kOpen) return Fail(operation, "it ends twice");
  write.end = End::kNotAccepted;
  ++ended_;
}

void History::Forget(uint64_t operation) {
  operations_[operation - 1].end = End::kForgotten;
  ++ended_;
}

void History::OnApplied(const std::vector<raft::EntryPtr>& entries,
                        const std::vector<storage::Applied>& outcomes) {
  if (entries.back()->index <= counted_) return;
  size_t next = 0;
  v1::Command command;
  for (const raft::EntryPtr& entry : entries) {
    if (entry->type != raft::EntryType::kCommand) continue;
    const storage::Applied& outcome = outcomes[next++];
    CHECK(outcome.index == entry->index);
    if (entry->index <= counted_ || outcome.refused || outcome.duplicate) continue;
    command.ParseFromString(entry->payload);
    if (command.note().empty()) continue;
    const uint64_t operation = std::strtoull(command.note().c_str(), nullptr, 10);
    CHECK(operation > 0 && operation <= operations_.size());
    // A repeat by its request id is answered as the first one was, and changes nothing: one that is
    // executed again makes another revision.
    Operation& executed = operations_[operation - 1];
    const uint64_t answer = HashOf(*outcome.answer);
    if (executed.executed > 0 && executed.answer == answer) {
      report_->Count(Reached::kRepeated);
      continue;
    }
    executed.answer = answer;
    if (++executed.executed > 1) Fail(operation, "it is executed twice");
    LearnChange(command, *outcome.answer);
  }
  counted_ = entries.back()->index;
}

// The clients write one key at a time, so an executed command is one change, or none.
void History::LearnChange(const v1::Command& command, const std::string& bytes) {
  v1::Answer answer;
  CHECK(answer.ParseFromString(bytes));
  if (answer.code() != 0 || !answer.succeeded() || answer.results_size() != 1) return;
  const v1::Operation& operation = command.transaction().then(0);
  if (operation.has_put()) {
    truth_.Add(answer.revision(), {operation.put().key(), operation.put().value()});
  } else if (answer.results(0).deleted() > 0) {
    truth_.Add(answer.revision(), {operation.delete_().key(), std::nullopt});
  }
}

void History::Finish() {
  std::map<size_t, std::vector<RegisterOperation>> keys;
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
        // No log has it: nothing can have come of it.
        if (operation.executed == 0) break;
        keys[operation.key].push_back(operation.facts);
        break;
      case End::kServed:
      case End::kAnswered:
        keys[operation.key].push_back(operation.facts);
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
