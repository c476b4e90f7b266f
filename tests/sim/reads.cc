#include "tests/sim/reads.h"

#include <algorithm>
#include <utility>

#include "tests/sim/context.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

using Freshness = ReadQuestion::Freshness;
using services::ReadVerdict;

constexpr Micros kReadMax = 2 * kMillisecond;  // of the pool's thread, until the state is read

}  // namespace

Instant NodeReads::Now() const { return context_->machines[process_->machine()]->clock.Now(); }

void NodeReads::Ask(ReadQuestion question, Done done) {
  auto read = std::make_shared<Read>();
  read->by_lease = question.freshness == Freshness::kLease;
  read->asks_index = question.freshness != Freshness::kLocal;
  read->wish.max_staleness = question.max_staleness;
  read->wish.min_revision = question.min_revision;
  read->wish.arrived = Now();
  read->wish.deadline = question.deadline;
  read->question = std::move(question);
  read->done = std::move(done);
  Judge(read);
}

void NodeReads::AskIndex(const ReadPtr& read) {
  read->wish.index_asked = Now();
  read->index_asked = context_->events.now();
  const raft::Index committed = context_->raft_checker.committed();
  process_->node()->RequestRead(read->by_lease ? raft::ReadMode::kLease : raft::ReadMode::kRound,
                                [this, read, committed](const raft::ReadResult& result) {
                                  if (process_->dead()) return;
                                  if (result.outcome != raft::ReadOutcome::kConfirmed)
                                    return Answer(read, {});
                                  context_->raft_checker.OnReadConfirmed(process_->store(),
                                                                         result.index, committed);
                                  read->wish.index = result.index;
                                  read->lease_until = result.lease_until;
                                  read->asks_index = false;
                                  Judge(read);
                                });
  process_->Wake(Process::Job::kNode, 1);
}

void NodeReads::Judge(const ReadPtr& read) {
  services::ReadState state;
  state.caught_up_once = process_->caught_up_once();
  if (state.caught_up_once && read->asks_index) return AskIndex(read);
  state.fresh_as_of = process_->node()->status()->fresh_as_of;
  const storage::StateSummary summary = process_->state()->Summary();
  state.revision = summary.revision;
  state.applied = summary.applied;
  const ReadVerdict verdict = services::JudgeRead(state, read->wish, Now());
  switch (verdict.kind) {
    case ReadVerdict::Kind::kRefuse:
      if (read->wish.max_staleness) context_->report.Count(Reached::kTooStale);
      return Answer(read, {});
    case ReadVerdict::Kind::kWait:
      return Park(read, verdict.wait_until);
    case ReadVerdict::Kind::kServe:
      process_->After(context_->random.Between(0, kReadMax),
                      [this, read, fresh = verdict.fresh_as_of] { Run(read, fresh); });
      return;
  }
}

// It is looked at again when more is applied; and when its time is over.
void NodeReads::Park(const ReadPtr& read, Instant until) {
  waiting_.push_back(read);
  if (std::exchange(read->waited, true) && read->looked_at == until) return;
  read->looked_at = until;
  const Micros at = context_->machines[process_->machine()]->clock.WhenShows(until);
  if (at == kNever) return;
  process_->After(at - context_->events.now(), [this] { Serve(); });
}

void NodeReads::Serve() {
  for (const ReadPtr& read : std::exchange(waiting_, {})) Judge(read);
}

void NodeReads::Run(const ReadPtr& read, std::optional<Instant> fresh_as_of) {
  if (Now() >= read->wish.deadline) return Answer(read, {});
  ReadAnswer answer;
  if (!Execute(read->question, &answer)) answer = {};
  const Instant now = Now();
  if (read->lease_until && now >= *read->lease_until) {
    // As services/config_service: a round next.
    context_->report.Count(Reached::kLeaseOver);
    read->by_lease = false;
    read->asks_index = true;
    read->wish.index.reset();
    read->lease_until.reset();
    return Judge(read);
  }
  if (!services::CheckStaleness(fresh_as_of, read->wish.max_staleness, now).ok()) {
    context_->report.Count(Reached::kTooStale);
    return Answer(read, {});
  }
  if (read->wish.index && fresh_as_of == read->wish.index_asked) {
    answer.age = read->index_asked;
  } else if (fresh_as_of) {
    const MachineClock& clock = context_->machines[process_->machine()]->clock;
    answer.age = std::max<Micros>(0, clock.WhenShowed(*fresh_as_of));
  }
  Answer(read, std::move(answer));
}

void NodeReads::Answer(const ReadPtr& read, ReadAnswer answer) {
  answer.by_lease = read->lease_until.has_value();
  answer.waited = read->waited && read->question.min_revision;
  answer.machine = process_->machine();
  answer.life = process_->life();
  answer.store = process_->store();
  read->done(answer);
}

bool NodeReads::Execute(const ReadQuestion& question, ReadAnswer* answer) {
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
