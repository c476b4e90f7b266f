#include "tests/sim/watches.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "services/watch_reads.h"
#include "tests/sim/operators.h"
#include "tests/sim/process.h"

namespace quorate::sim {
namespace {

using ingress::WatchHub;
using ingress::WatchId;
using ingress::WatchRead;

// Small, so that queues overflow and states come in portions.
ingress::WatchHubOptions DrawOptions(Random* random) {
  ingress::WatchHubOptions options;
  options.queue_bytes_max = static_cast<size_t>(random->Skewed(300, 100'000));
  options.queue_messages_max = static_cast<size_t>(random->Skewed(1, 200));
  options.total_bytes_max = options.queue_bytes_max * static_cast<size_t>(random->Between(1, 8));
  options.message_bytes = static_cast<size_t>(random->Skewed(200, 100'000));
  options.read_bytes_max = static_cast<size_t>(random->Skewed(200, 100'000));
  options.read_rows_max = static_cast<size_t>(random->Skewed(1, 500));
  options.reads_max = static_cast<size_t>(random->Between(1, 4));
  options.age_max = Duration(random->Skewed(2, 100) * kSecond);
  return options;
}

bool IsItem(const v1::Item& item, const StoreModel::Version& version) {
  const std::string& value = item.has_text() ? item.text() : item.data();
  return item.has_text() == version.is_text && value == version.value &&
         item.mod_revision() == version.revision &&
         item.create_revision() == version.create_revision && item.version() == version.version &&
         item.ttl_id() == (version.ttl == 0 ? "" : ToHex(version.ttl));
}

}  // namespace

// --- The hub of a process ---

WatchHost::WatchHost(Context* context, Process* process, storage::State* state,
                     std::function<void(Micros)> wake)
    : context_(context),
      process_(process),
      state_(state),
      wake_(std::move(wake)),
      now_(context->machines[process->machine()]->clock.Now()),
      hub_(DrawOptions(&context->random), state->Summary().revision),
      head_(state->Summary().revision),
      told_(head_) {
  hub_.OnLeader(now_, false);
}

void WatchHost::Post(std::function<void()> task) {
  tasks_.push_back(std::move(task));
  wake_(1);
}

void WatchHost::OnApplied(const std::vector<storage::Applied>& applied) {
  const Revision head = state_->Summary().revision;
  if (head <= head_) return;
  head_ = head;
  for (const storage::Applied& each : applied) {
    if (each.changes != nullptr) sets_.push_back(each.changes);
  }
  if (tell_at_ != kNever) return;  // with what the hub has not been told yet
  const Micros delay = context_->random.Between(1, 2 * kMillisecond);
  tell_at_ = context_->events.now() + delay;
  wake_(delay);
}

void WatchHost::OnInstalled() {
  const storage::StateSummary summary = state_->Summary();
  sets_.clear();
  tell_at_ = context_->events.now();
  head_ = summary.revision;
  Post([this, head = summary.revision, compacted = summary.compacted] {
    hub_.OnReset(now_, head, compacted);
  });
}

void WatchHost::OnStatus(const raft::NodeStatus& status) {
  const bool known = static_cast<bool>(status.leader);
  if (std::exchange(leader_known_, known) == known) return;
  Post([this] { hub_.OnLeader(now_, leader_known_); });
}

Micros WatchHost::Run() {
  MachineClock& clock = context_->machines[process_->machine()]->clock;
  now_ = std::max(now_, clock.Now());
  if (context_->events.now() >= tell_at_) {
    tell_at_ = kNever;
    const std::vector<ChangeSetPtr> sets = std::exchange(sets_, {});
    if (head_ > told_) hub_.OnApplied(now_, head_, sets);
    told_ = std::max(told_, head_);
  }
  for (const auto& task : std::exchange(tasks_, {})) task();
  if (hub_.wants_fresh()) {
    const auto fresh_as_of = process_->status()->fresh_as_of;
    if (fresh_as_of) hub_.OnFresh(now_, *fresh_as_of, state_->Summary().revision);
  }
  hub_.Tick(now_);
  while (true) {
    WatchHub::Output out = hub_.TakeOutput(now_);
    if (out.empty()) break;
    for (ingress::WatchMessage& message : out.messages) {
      sinks_.at(message.watch).deliver(message.revision, std::move(message.body));
    }
    for (const WatchRead& read : out.reads) Read(read);
    for (const auto& [id, end] : out.ends) {
      const auto sink = sinks_.extract(id);
      sink.mapped().ended(end);
    }
  }
  state_->CollectChanges(services::CollectFor(hub_.wants()));
  const Micros next = std::min(clock.WhenShows(hub_.NextDeadline()), tell_at_);
  return hub_.wants_fresh() ? std::min(next, context_->events.now() + 20 * kMillisecond) : next;
}

// A thread of a pool reads, some time later.
void WatchHost::Read(const WatchRead& read) {
  const size_t machine = process_->machine();
  const uint64_t life = process_->life();
  context_->events.After(context_->random.Between(10, 5 * kMillisecond),
                         [context = context_, machine, life, read] {
                           Process* const process = context->machines[machine]->process.get();
                           if (process == nullptr || process->life() != life || process->dead()) {
                             return;
                           }
                           process->watches()->Answer(read);
                         });
}

void WatchHost::Answer(const WatchRead& read) {
  Post([this, answer = services::ReadForWatch(state_, read)] { answer(&hub_, now_); });
}

WatchId WatchHost::Subscribe(const ingress::WatchSpec& spec, Deliver deliver, Ended ended) {
  const WatchId id(next_id_++);
  const Revision shown = state_->Summary().revision;
  sinks_[id] = {std::move(deliver), std::move(ended)};
  Post([this, id, spec, shown] { hub_.Subscribe(now_, id, spec, shown); });
  return id;
}

void WatchHost::OnSent(WatchId id) {
  Post([this, id] { hub_.OnSent(now_, id); });
}

void WatchHost::Cancel(WatchId id) {
  sinks_.erase(id);
  Post([this, id] { hub_.Cancel(id); });
}

// --- The watchers ---

Watchers::Watchers(Context* context) : context_(context) {
  if (!context->plan.sqlite) return;
  Random& random = context->random;
  watchers_.resize(random.Between(1, 6));
  for (Watcher& watcher : watchers_) {
    watcher.filter.is_prefix = !random.OneIn(3);
    watcher.filter.text = watcher.filter.is_prefix
                              ? (random.OneIn(2) ? "" : "k1")
                              : "k" + std::to_string(random.Below(context->plan.keys));
    watcher.with_previous = random.OneIn(2);
  }
}

void Watchers::Start() {
  for (size_t watcher = 0; watcher < watchers_.size(); ++watcher) Again(watcher);
}

void Watchers::Fail(const Watcher& watcher, const std::string& what) {
  context_->failure.Fail("a watch of \"" + watcher.filter.text + "\"" +
                         (watcher.filter.is_prefix ? "*" : "") + " at " +
                         context_->machines[watcher.machine]->name + ", next revision " +
                         std::to_string(watcher.next) + ": " + what);
}

void Watchers::Again(size_t number) {
  Watcher& watcher = watchers_[number];
  watcher.life = 0;
  ++watcher.attempt;
  const Micros pause = context_->random.Between(1, 500 * kMillisecond);
  context_->events.After(pause, [this, number, attempt = watcher.attempt] {
    if (watchers_[number].attempt == attempt) Connect(number);
  });
}

bool Watchers::Follows(size_t machine) const {
  if (!context_->calm) return true;
  if (context_->machines[machine]->powered_off_for_good) return false;
  Process* const leader = Operators::Leader(context_);
  return leader != nullptr &&
         leader->status()->membership->Find(context_->machines[machine]->store) != nullptr;
}

void Watchers::OnCalm() {
  for (size_t number = 0; number < watchers_.size(); ++number) {
    if (watchers_[number].life != 0) Leave(number);
  }
}

// The client goes away: its node hears of it.
void Watchers::Leave(size_t number) {
  const Watcher& watcher = watchers_[number];
  Process* const process = context_->machines[watcher.machine]->process.get();
  if (process != nullptr && process->life() == watcher.life) {
    process->watches()->Cancel(watcher.id);
  }
  Again(number);
}

void Watchers::Connect(size_t number) {
  Watcher& watcher = watchers_[number];
  const size_t machine = context_->random.Below(context_->machines.size());
  Process* const process = context_->machines[machine]->process.get();
  // A store that has never caught up refuses watches.
  if (process == nullptr || process->dead() || process->watches() == nullptr || !Follows(machine) ||
      !process->state()->Summary().membership_index) {
    return Again(number);
  }
  watcher.machine = machine;
  watcher.life = process->life();
  watcher.in_state = watcher.leaderless = false;
  watcher.state_from = 0;
  watcher.state.clear();
  watcher.partial_revision = 0;
  ingress::WatchSpec spec;
  spec.filter = watcher.filter;
  spec.with_previous = watcher.with_previous;
  spec.start_revision = watcher.next;
  spec.with_initial_state = watcher.next == 0;
  spec.progress_interval = Duration(context_->random.Between(100, 2000) * kMillisecond);
  const uint64_t attempt = watcher.attempt;
  watcher.id = process->watches()->Subscribe(
      spec,
      [this, number, attempt](Revision revision, std::shared_ptr<const std::string> body) {
        // A slow client takes its time.
        const Micros time = !context_->calm && context_->random.OneIn(40)
                                ? context_->random.Between(1, 500 * kMillisecond)
                                : context_->random.Between(1, 3 * kMillisecond);
        context_->events.After(time, [this, number, attempt, revision, body] {
          Arrive(number, attempt, revision, *body);
        });
      },
      [this, number, attempt](const ingress::WatchEnd& end) {
        Watcher& ended = watchers_[number];
        if (ended.attempt != attempt) return;
        context_->report.Count(Reached::kWatchEnded);
        // What it names goes on behind everything that was given out; this client may have taken
        // less, and goes on where it is.
        if (end.resume && ended.next > end.resume.value()) Fail(ended, "ends behind its client");
        Again(number);
      });
}

void Watchers::OnProcessGone(size_t machine) {
  for (size_t number = 0; number < watchers_.size(); ++number) {
    Watcher& watcher = watchers_[number];
    if (watcher.life != 0 && watcher.machine == machine) Again(number);
  }
}

void Watchers::Arrive(size_t number, uint64_t attempt, Revision revision, const std::string& body) {
  Watcher& watcher = watchers_[number];
  if (watcher.attempt != attempt || context_->failure.failed()) return;
  v1::WatchResponse message;
  CHECK(message.ParseFromString(body));
  Take(&watcher, revision, message);
  Process* const process = context_->machines[watcher.machine]->process.get();
  if (process == nullptr || process->life() != watcher.life) return;
  process->watches()->OnSent(watcher.id);
  // Now and then the client goes to another node by itself.
  if (context_->random.OneIn(300)) Leave(number);
}

// Nothing that it wants lies in [next, before).
void Watchers::MissesNothing(const Watcher& watcher, uint64_t before) {
  for (uint64_t revision = watcher.next; revision < before; ++revision) {
    const auto* changes = context_->history.store().ChangesOf(revision);
    if (changes == nullptr) return Fail(watcher, "is told of what nobody has applied");
    for (const StoreModel::Change& change : *changes) {
      if (!watcher.filter.Matches(change.key)) continue;
      return Fail(watcher, "revision " + std::to_string(revision) + " is missing before " +
                               std::to_string(before));
    }
  }
}

// Its node's history begins behind what it needs. What the client has not heard of yet the hub may
// have known to be nothing, never the other way round.
void Watchers::BeginReset(Watcher* watcher) {
  context_->report.Count(Reached::kWatchReset);
  Process* const process = context_->machines[watcher->machine]->process.get();
  if (watcher->next != 0 && process != nullptr && process->life() == watcher->life) {
    const uint64_t compacted = process->state()->Summary().compacted.value();
    if (watcher->next > compacted) {
      Fail(*watcher, "is reset, and its node has the history behind " + std::to_string(compacted));
    }
  }
  if (watcher->next != 0) watcher->state_from = watcher->next - 1;
  watcher->next = 0;
}

void Watchers::EndState(Watcher* watcher, uint64_t revision) {
  if (revision < watcher->state_from) {
    Fail(*watcher, "it is shown revision " + std::to_string(revision) + " after a reset behind " +
                       std::to_string(watcher->state_from));
  }
  if (context_->history.store().ChangesOf(revision) == nullptr) {
    return Fail(*watcher, "it is shown a state that nobody has applied");
  }
  auto wanted = context_->history.store().StateAt(watcher->filter.text, revision);
  std::erase_if(wanted, [&](const auto& each) { return !watcher->filter.Matches(each.first); });
  bool same = watcher->state.size() == wanted.size();
  for (const auto& [key, version] : wanted) {
    const auto shown = watcher->state.find(key);
    same = same && shown != watcher->state.end() && IsItem(shown->second, *version);
  }
  if (!same) {
    Fail(*watcher, "it is shown another state than that of revision " + std::to_string(revision));
  }
  watcher->in_state = false;
  watcher->next = revision + 1;
  context_->report.Count(Reached::kWatchState);
}

// In turns; a mark of progress says again how it is. AllKnow wants the last one to be of a leader.
void Watchers::TakeLeaderMark(Watcher* watcher, const v1::WatchResponse& message) {
  if (message.progress()) {
    if (message.leader_lost() != watcher->leaderless || message.leader_found()) {
      Fail(*watcher, "is told otherwise than before whether there is a leader");
    }
    return;
  }
  if (message.leader_lost() && (message.leader_found() || watcher->leaderless)) {
    return Fail(*watcher, "is told a second time that there is no leader");
  }
  if (message.leader_found() && !watcher->leaderless) {
    return Fail(*watcher, "is told of a leader again, and was told of no time without one");
  }
  watcher->leaderless = message.leader_lost();
  context_->report.Count(message.leader_lost() ? Reached::kWatchLeaderLost
                                               : Reached::kWatchLeaderFound);
}

void Watchers::Take(Watcher* watcher, Revision revision, const v1::WatchResponse& message) {
  if (message.leader_lost() || message.leader_found() || message.progress()) {
    TakeLeaderMark(watcher, message);
  }
  if (message.reset() || (message.started() && watcher->next == 0)) {
    if (message.reset()) BeginReset(watcher);
    watcher->in_state = true;
    watcher->state.clear();
    watcher->partial_revision = 0;
    if (!message.reset()) return;
  }
  if (watcher->in_state) {
    for (const v1::WatchEvent& event : message.events()) {
      if (!watcher->state.emplace(event.item().key(), event.item()).second) {
        Fail(*watcher, "a shown state has a key twice: " + event.item().key());
      }
    }
    if (message.synced()) EndState(watcher, revision.value());
    return;
  }
  // The end of a revision may come without an event of its own.
  const bool mark =
      message.started() || message.progress() || message.leader_lost() || message.leader_found();
  if (message.events_size() > 0 || message.partial() || (watcher->partial_revision != 0 && !mark)) {
    return TakeEvents(watcher, revision.value(), message);
  }
  if (message.progress()) {
    MissesNothing(*watcher, revision.value() + 1);
    watcher->next = std::max(watcher->next, revision.value() + 1);
    context_->report.Count(Reached::kWatchProgress);
  }
}

void Watchers::TakeEvents(Watcher* watcher, uint64_t revision, const v1::WatchResponse& message) {
  if (revision < watcher->next) {
    return Fail(*watcher, "revision " + std::to_string(revision) + " comes again, or late");
  }
  if (watcher->partial_revision == 0) {
    watcher->partial.clear();
  } else if (watcher->partial_revision != revision) {
    return Fail(*watcher, "revision " + std::to_string(revision) + " comes before the rest of " +
                              std::to_string(watcher->partial_revision));
  }
  MissesNothing(*watcher, revision);
  watcher->partial.insert(watcher->partial.end(), message.events().begin(), message.events().end());
  watcher->partial_revision = message.partial() ? revision : 0;
  const uint64_t resume = message.partial() ? revision : revision + 1;
  if (message.resume_revision() != resume) {
    return Fail(*watcher, "names the wrong revision to go on with: " +
                              std::to_string(message.resume_revision()));
  }
  if (message.partial()) return context_->report.Count(Reached::kWatchPartial);
  const auto* changes = context_->history.store().ChangesOf(revision);
  if (changes == nullptr) return Fail(*watcher, "is told of what nobody has applied");
  size_t next = 0;
  for (const StoreModel::Change& change : *changes) {
    if (!watcher->filter.Matches(change.key)) continue;
    const std::string wrong = next == watcher->partial.size()
                                  ? "there is no event of " + change.key
                                  : WrongEvent(*watcher, watcher->partial[next++], change);
    if (!wrong.empty()) {
      return Fail(*watcher, "of revision " + std::to_string(revision) + ": " + wrong);
    }
  }
  if (next != watcher->partial.size() || next == 0) {
    return Fail(*watcher,
                "there is more of revision " + std::to_string(revision) + " than was applied");
  }
  watcher->next = revision + 1;
  context_->report.Count(Reached::kWatchEvent, next);
}

std::string Watchers::WrongEvent(const Watcher& watcher, const v1::WatchEvent& event,
                                 const StoreModel::Change& change) {
  const StoreModel::Version& now = *change.now;
  if (event.item().key() != change.key) {
    return "an event of " + event.item().key() + ", not of " + change.key;
  }
  const bool deleted = event.type() == v1::WatchEvent::TYPE_DELETE;
  if (deleted != now.deleted || event.item().mod_revision() != now.revision) {
    return "the event of " + change.key + " is not what happened to it";
  }
  if (!deleted && (!IsItem(event.item(), now) || event.created() != (now.version == 1))) {
    return "the event of " + change.key + " has another item";
  }
  if (!watcher.with_previous) return "";
  const StoreModel::Version* const before = change.before();
  if (event.has_previous() != (before != nullptr) ||
      (before != nullptr && !IsItem(event.previous(), *before))) {
    return "the event of " + change.key + " says otherwise what was there before";
  }
  return "";
}

bool Watchers::AllKnow(Revision head) const {
  return std::all_of(watchers_.begin(), watchers_.end(), [&](const Watcher& watcher) {
    return watcher.next > head.value() && !watcher.leaderless;
  });
}

std::string Watchers::Text() const {
  std::string text;
  for (const Watcher& watcher : watchers_) {
    text += " a watch of \"" + watcher.filter.text + "\" at " +
            context_->machines[watcher.machine]->name +
            (watcher.life == 0 ? " (not connected)" : "") +
            (watcher.leaderless ? " (told of no leader)" : "") + ", next revision " +
            std::to_string(watcher.next) + ";";
  }
  return text;
}

}  // namespace quorate::sim
