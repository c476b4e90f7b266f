#include "tests/sim/reads.h"

#include <algorithm>
#include <utility>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

using Freshness = ReadQuestion::Freshness;

// As services/read_gate.h: how long a read waits for the first leader after a restart.
constexpr Duration kFirstLeaderWait = std::chrono::seconds(1);

}  // namespace

void NodeReads::Ask(ReadQuestion question, Done done) {
  auto waiting = std::make_shared<Waiting>();
  waiting->question = std::move(question);
  waiting->done = std::move(done);
  waiting->asked = context_->events.now();
  waiting->arrived = context_->machines[process_->machine()]->clock.Now();
  if (waiting->question.freshness == Freshness::kLocal) return Wait(waiting);
  const bool by_lease = waiting->question.freshness == Freshness::kLease;
  const raft::Index committed = context_->raft_checker.committed();
  process_->node()->RequestRead(by_lease ? raft::ReadMode::kLease : raft::ReadMode::kRound,
                                [this, waiting, committed](const raft::ReadResult& result) {
                                  if (process_->dead()) return;
                                  if (result.outcome != raft::ReadOutcome::kConfirmed)
                                    return Answer(waiting.get(), {});
                                  context_->raft_checker.OnReadConfirmed(process_->store(),
                                                                         result.index, committed);
                                  waiting->index = result.index;
                                  waiting->lease_until = result.lease_until;
                                  Wait(waiting);
                                });
  process_->Wake(Process::Job::kNode, 1);
}

void NodeReads::Wait(const WaitingPtr& waiting) {
  waiting_.push_back(waiting);
  Serve();
  if (waiting_.empty() || waiting_.back() != waiting) return;
  // It is looked at again when more is applied; and when its time is over.
  waiting->waited = true;
  MachineClock& clock = context_->machines[process_->machine()]->clock;
  for (const Instant when : {waiting->arrived + kFirstLeaderWait, waiting->question.deadline}) {
    const Micros at = clock.WhenShows(when);
    if (at == kNever || at <= context_->events.now()) continue;
    context_->events.At(
        at, [context = context_, machine = process_->machine(), life = process_->life()] {
          Process* const process = context->machines[machine]->process.get();
          if (process == nullptr || process->life() != life || process->dead()) return;
          process->reads()->Serve();
        });
  }
}

void NodeReads::Serve() {
  std::vector<std::pair<WaitingPtr, ReadAnswer>> ready;
  for (auto each = waiting_.begin(); each != waiting_.end();) {
    ReadAnswer answer;
    const Verdict verdict = Judge(each->get(), &answer);
    if (verdict == Verdict::kWait) {
      ++each;
      continue;
    }
    if (verdict == Verdict::kServe && !Read((*each)->question, &answer)) answer = {};
    ready.emplace_back(*each, std::move(answer));
    each = waiting_.erase(each);
  }
  for (auto& [waiting, answer] : ready) Answer(waiting.get(), std::move(answer));
}

// The order is services/read_gate's.
NodeReads::Verdict NodeReads::Judge(Waiting* waiting, ReadAnswer* answer) {
  const ReadQuestion& question = waiting->question;
  MachineClock& clock = context_->machines[process_->machine()]->clock;
  const Instant now = clock.Now();
  const bool late = now >= question.deadline;
  if (waiting->index && *waiting->index > process_->state()->applied()) {
    return late ? Verdict::kRefuse : Verdict::kWait;
  }
  // A store that has never caught up answers nothing; here that is known by its membership.
  if (!caught_up_) caught_up_ = bool(process_->state()->Summary().membership_index);
  if (!caught_up_) return Verdict::kRefuse;
  if (question.min_revision && process_->state()->Summary().revision < question.min_revision) {
    return late ? Verdict::kRefuse : Verdict::kWait;
  }
  const std::optional<Instant> fresh = process_->node()->status()->fresh_as_of;
  if (waiting->index) {
    answer->age = waiting->asked;
  } else if (fresh) {
    answer->age = std::max<Micros>(0, clock.WhenShowed(*fresh));
  } else if (!question.max_staleness && !late && now < waiting->arrived + kFirstLeaderWait) {
    return Verdict::kWait;
  }
  if (question.max_staleness && !waiting->index &&
      (!fresh || now - *fresh > *question.max_staleness)) {
    context_->report.Count(Reached::kTooStale);
    return Verdict::kRefuse;
  }
  return Verdict::kServe;
}

void NodeReads::Answer(Waiting* waiting, ReadAnswer answer) {
  // A lease is judged after the read, as services/config_service does.
  if (waiting->lease_until) {
    if (context_->machines[process_->machine()]->clock.Now() >= *waiting->lease_until) answer = {};
    answer.by_lease = true;
  }
  answer.waited = waiting->waited && waiting->question.min_revision;
  answer.machine = process_->machine();
  answer.life = process_->life();
  waiting->done(answer);
}

bool NodeReads::Read(const ReadQuestion& question, ReadAnswer* answer) {
  storage::State* const state = process_->state()->state();
  absl::Status status;
  switch (question.kind) {
    case ReadQuestion::Kind::kGet: {
      auto [item, revision] = state->Get(question.key, question.at);
      answer->revision = revision;
      if (item.ok()) {
        answer->items.push_back(*std::move(item));
      } else if (!absl::IsNotFound(item.status())) {
        status = item.status();
      }
      break;
    }
    case ReadQuestion::Kind::kList: {
      storage::ListQuery query;
      query.prefix = question.key;
      query.after = question.after;
      query.at = question.at;
      query.items_max = question.items_max;
      query.bytes_max = SIZE_MAX;
      auto page = state->List(query);
      status = page.status();
      if (!page.ok()) break;
      answer->revision = page->revision;
      answer->items = std::move(page->items);
      answer->more = page->more;
      break;
    }
    case ReadQuestion::Kind::kCount: {
      const auto counted = state->Count(question.key, question.at);
      status = counted.status();
      if (!counted.ok()) break;
      answer->count = counted->first;
      answer->revision = counted->second;
      break;
    }
    case ReadQuestion::Kind::kHistory: {
      storage::HistoryQuery query;
      query.key = question.key;
      query.at = question.at;
      query.items_max = question.items_max;
      query.bytes_max = SIZE_MAX;
      auto page = state->History(query);
      status = page.status();
      if (!page.ok()) break;
      answer->revision = page->revision;
      answer->history = std::move(page->items);
      answer->more = page->more;
      break;
    }
  }
  if (context_->machines[process_->machine()]->disk.stopped()) return false;
  if (!status.ok() || question.at || question.kind == ReadQuestion::Kind::kHistory) {
    const storage::StateSummary summary = state->Summary();
    answer->revision = summary.revision;
    answer->compacted = summary.compacted;
  }
  answer->status = ReadAnswer::Status::kServed;
  if (status.ok()) return true;
  if (!absl::IsOutOfRange(status) || !question.at) return false;
  answer->status = *question.at > answer->revision ? ReadAnswer::Status::kInFuture
                                                   : ReadAnswer::Status::kCompacted;
  return true;
}

}  // namespace quorate::sim
