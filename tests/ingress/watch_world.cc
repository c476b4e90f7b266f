#include "tests/ingress/watch_world.h"

#include <algorithm>

#include "base/check.h"
#include "gtest/gtest.h"

namespace quorate::ingress::testing {
namespace {

std::string Short(const std::string& value) {
  if (value.size() > 20 && value.find_first_not_of('x') == std::string::npos) {
    return "*" + std::to_string(value.size());
  }
  return value;
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    const size_t first = part.find_first_not_of(' ');
    if (first == std::string::npos) continue;
    parts.push_back(part.substr(first, part.find_last_not_of(' ') - first + 1));
  }
  return parts;
}

std::vector<TwinStore::Write> ParseWrites(const std::string& text) {
  std::vector<TwinStore::Write> writes;
  for (const std::string& each : Split(text, ';')) {
    const std::vector<std::string> words = Split(each, ' ');
    if (words.at(0) == "put") {
      std::string value = words.at(2);
      if (value[0] == '*') value = std::string(std::stoul(value.substr(1)), 'x');
      writes.push_back({words.at(1), value});
    } else {
      EXPECT_EQ(words.at(0), "del") << text;
      writes.push_back({words.at(1), std::nullopt});
    }
  }
  return writes;
}

}  // namespace

// --- The store ---

ChangeSetPtr TwinStore::Apply(const std::vector<Write>& writes) {
  auto set = std::make_shared<ChangeSet>();
  set->revision = head() + 1;
  set->with_previous = true;
  std::map<std::string, Change> state = StateAt(head(), KeyFilter{});
  for (const Write& write : writes) {
    const auto there = state.find(write.key);
    if (!write.value && there == state.end()) continue;
    Change change;
    change.revision = set->revision;
    change.sub = set->changes.size();
    change.key = write.key;
    change.deleted = !write.value;
    if (there != state.end()) {
      const Change& before = there->second;
      change.previous = Change::Previous{before.is_text, before.value, before.create_revision,
                                         before.revision, before.version};
    }
    if (write.value) {
      change.is_text = true;
      change.value = *write.value;
      change.create_revision = there != state.end() ? there->second.create_revision : set->revision;
      change.version = there != state.end() ? there->second.version + 1 : 1;
      state[write.key] = change;
    } else {
      state.erase(there);
    }
    set->bytes += change.bytes();
    set->changes.push_back(std::move(change));
  }
  if (set->changes.empty()) return nullptr;
  history_.push_back(set);
  return set;
}

ChangeSetPtr TwinStore::WithoutPrevious(const ChangeSetPtr& set) {
  auto bare = std::make_shared<ChangeSet>(*set);
  bare->with_previous = false;
  for (Change& change : bare->changes) change.previous.reset();
  return bare;
}

std::map<std::string, Change> TwinStore::StateAt(Revision revision, const KeyFilter& filter) const {
  std::map<std::string, Change> state;
  for (const ChangeSetPtr& set : history_) {
    if (set->revision > revision) break;
    for (const Change& change : set->changes) {
      if (!filter.Matches(change.key)) continue;
      state.erase(change.key);
      if (!change.deleted) state.emplace(change.key, change);
    }
  }
  return state;
}

bool TwinStore::ReadChanges(const WatchRead& read, std::vector<Change>* changes,
                            ChangePosition* end) const {
  if (read.from.revision <= compacted_) return false;
  size_t rows = 0;
  size_t bytes = 0;
  for (const ChangeSetPtr& set : history_) {
    for (const Change& change : set->changes) {
      if (change.position() < read.from) continue;
      if (rows >= read.rows_max || bytes >= read.bytes_max) {
        *end = change.position();
        return true;
      }
      ++rows;
      if (!read.filter.Matches(change.key)) continue;
      changes->push_back(change);
      if (!read.with_previous) changes->back().previous.reset();
      bytes += changes->back().bytes();
    }
  }
  *end = {std::max(read.from.revision, head() + 1), 0};
  return true;
}

bool TwinStore::ReadState(const WatchRead& read, WatchStatePortion* portion) const {
  // The current state is never compacted.
  if (read.at && *read.at <= compacted_ && *read.at != head()) return false;
  portion->revision = head();
  size_t bytes = 0;
  for (const auto& [key, item] : StateAt(read.at.value_or(head()), read.filter)) {
    if (key <= read.after && !read.after.empty()) continue;
    if (bytes >= read.bytes_max) {
      portion->more = true;
      return true;
    }
    portion->items.push_back(item);
    portion->items.back().previous.reset();
    portion->items.back().sub = 0;
    bytes += item.bytes();
  }
  return true;
}

// --- The world ---

void WatchWorld::Make(const WatchHubOptions& options) {
  hub_ = std::make_unique<WatchHub>(options, store_.head());
  clients_.clear();
  reads_.clear();
}

void WatchWorld::Apply(const std::vector<TwinStore::Write>& writes, Heard heard) {
  const ChangeSetPtr set = store_.Apply(writes);
  if (set == nullptr) return;
  if (heard == Heard::kNothing) {
    unheard_.push_back(set);
    return;
  }
  if (heard == Heard::kAll) unheard_.push_back(set);
  if (heard == Heard::kWithoutPrevious) unheard_.push_back(TwinStore::WithoutPrevious(set));
  hub_->OnApplied(now_, store_.head(), std::exchange(unheard_, {}));
  Pump();
}

WatchWorld::Client& WatchWorld::Watch(const std::string& name, const WatchSpec& spec) {
  const uint64_t id = clients_.empty() ? 1 : clients_.rbegin()->first + 1;
  auto made = std::make_unique<Client>();
  made->name = name;
  made->spec = spec;
  Client& client = *(clients_[id] = std::move(made));
  hub_->Subscribe(now_, WatchId(id), spec, store_.head());
  Pump();
  return client;
}

WatchWorld::Client& WatchWorld::client(const std::string& name) {
  // The latest of this name: a client that comes again.
  for (auto it = clients_.rbegin(); it != clients_.rend(); ++it) {
    if (it->second->name == name) return *it->second;
  }
  CHECK(false, "no such client: " + name);
}

void WatchWorld::Take(Client& client) {
  if (!client.in_flight) return;
  client.in_flight = false;
  for (const auto& [id, each] : clients_) {
    if (each.get() == &client) hub_->OnSent(now_, WatchId(id));
  }
  Pump();
}

void WatchWorld::SetSlow(Client& client, bool slow) {
  client.slow = slow;
  if (!slow) Take(client);
}

void WatchWorld::Cancel(Client& client) {
  for (const auto& [id, each] : clients_) {
    if (each.get() == &client) hub_->Cancel(WatchId(id));
  }
  client.ended = true;
  Pump();
}

void WatchWorld::HoldReads(bool hold) {
  hold_reads_ = hold;
  Pump();
}

void WatchWorld::Serve() {
  if (reads_.empty()) {
    log_ << "no read is held\n";
    return;
  }
  ServeOldest();
  Pump();
}

void WatchWorld::ServeOldest() {
  CHECK(!reads_.empty());
  const WatchRead read = std::move(reads_.front());
  reads_.pop_front();
  if (next_failure) {
    hub_->OnReadFailed(now_, read.ticket, *std::exchange(next_failure, std::nullopt),
                       "the disk is gone");
    return;
  }
  if (read.state) {
    WatchStatePortion portion;
    if (store_.ReadState(read, &portion)) return hub_->OnState(now_, read.ticket, portion);
  } else {
    std::vector<Change> changes;
    ChangePosition end;
    if (store_.ReadChanges(read, &changes, &end)) {
      return hub_->OnChanges(now_, read.ticket, changes, end);
    }
  }
  hub_->OnReadFailed(now_, read.ticket, WatchHub::ReadFailure::kCompacted, "compacted");
}

void WatchWorld::Pass(Duration time) {
  const Instant until = now_ + time;
  while (hub_->NextDeadline() <= until) {
    now_ = std::max(now_, hub_->NextDeadline());
    hub_->Tick(now_);
    Pump();
  }
  now_ = until;
  hub_->Tick(now_);
  Pump();
}

void WatchWorld::Pump() {
  while (true) {
    WatchHub::Output out = hub_->TakeOutput(now_);
    for (WatchMessage& message : out.messages) {
      Client& client = *clients_.at(message.watch.value());
      EXPECT_FALSE(client.in_flight) << "two messages at a time";
      EXPECT_FALSE(client.ended) << "a message after the end";
      client.in_flight = true;
      v1::WatchResponse response;
      EXPECT_TRUE(response.ParseFromString(*message.body));
      response.mutable_header()->set_revision(message.revision.value());
      Print(client, response);
      client.got.push_back(std::move(response));
    }
    for (WatchRead& read : out.reads) {
      const std::string who = read.filter.text + (read.filter.is_prefix ? "*" : "");
      log_ << "read of " << who << ": ";
      if (read.state) {
        log_ << "state";
        if (read.at) log_ << " at " << read.at->value() << " after \"" << read.after << '"';
      } else {
        log_ << "history from " << read.from.revision.value();
        if (read.from.sub > 0) log_ << "+" << read.from.sub;
      }
      log_ << '\n';
      reads_.push_back(std::move(read));
    }
    for (auto& [id, end] : out.ends) {
      Client& client = *clients_.at(id.value());
      EXPECT_FALSE(client.ended);
      client.ended = true;
      log_ << client.name << " ended " << KindName(end.kind) << " resume=" << end.resume.value()
           << ": " << end.message << '\n';
      client.end = std::move(end);
    }
    bool more = !out.empty();
    for (auto& [id, client] : clients_) {
      if (client->slow || !client->in_flight) continue;
      client->in_flight = false;
      hub_->OnSent(now_, WatchId(id));
      more = true;
    }
    if (!hold_reads_ && !reads_.empty()) {
      ServeOldest();
      more = true;
    }
    if (!more) return;
  }
}

void WatchWorld::Print(const Client& client, const v1::WatchResponse& message) {
  log_ << client.name << " <-";
  if (message.started()) log_ << " started";
  if (message.reset()) log_ << " reset";
  if (message.synced()) log_ << " synced";
  if (message.progress()) log_ << " progress";
  if (message.leader_lost()) log_ << " leader lost";
  if (message.leader_found()) log_ << " leader found";
  if (message.partial()) log_ << " partial";
  log_ << " rev=" << message.header().revision() << " resume=" << message.resume_revision();
  const char* separator = ": ";
  for (const v1::WatchEvent& event : message.events()) {
    log_ << separator;
    separator = ", ";
    if (event.type() == v1::WatchEvent::TYPE_DELETE) {
      log_ << "delete " << event.item().key();
    } else {
      log_ << "put " << event.item().key() << "=" << Short(event.item().text());
      if (message.resume_revision() == 0) log_ << "@" << event.item().mod_revision();
    }
    if (event.created()) log_ << " (created)";
    if (event.has_previous()) {
      log_ << " (was " << Short(event.previous().text()) << "@" << event.previous().mod_revision()
           << ")";
    }
  }
  log_ << '\n';
}

std::string KindName(WatchEndKind kind) {
  switch (kind) {
    case WatchEndKind::kTooMany:
      return "TOO_MANY_WATCHES";
    case WatchEndKind::kRevisionInFuture:
      return "REVISION_IN_FUTURE";
    case WatchEndKind::kBehind:
      return "BEHIND";
    case WatchEndKind::kTooSlow:
      return "WATCH_TOO_SLOW";
    case WatchEndKind::kAge:
      return "CONNECTION_AGE";
    case WatchEndKind::kStopping:
      return "SHUTTING_DOWN";
    case WatchEndKind::kDraining:
      return "DRAINING";
    case WatchEndKind::kReadFailed:
      return "READ_FAILED";
  }
  return "?";
}

// --- The script ---

std::string WatchScript::Run(const std::string& text) {
  world_ = std::make_unique<WatchWorld>();
  std::string result;
  std::istringstream in(text);
  bool skipping = false;  // the output of an earlier run
  for (std::string line; std::getline(in, line);) {
    if (skipping) {
      if (!line.empty()) continue;
      skipping = false;
      result += "\n";
    } else if (line == "----") {
      result += "----\n" + out_.str();
      out_.str("");
      skipping = true;
    } else {
      result += line + "\n";
      if (!line.empty() && line[0] != '#') Execute(line);
    }
  }
  return result;
}

void WatchScript::Execute(const std::string& line) {
  WatchWorld& world = *world_;
  const std::vector<std::string> words = Split(line, ' ');
  const std::string& command = words[0];
  const std::string rest = line.substr(std::min(line.size(), command.size() + 1));
  std::map<std::string, std::string> options;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    options[word.substr(0, equals)] = equals == std::string::npos ? "" : word.substr(equals + 1);
  }
  const auto number = [&](const std::string& key) { return std::stoull(options.at(key)); };
  if (command == "hub") {
    WatchHubOptions hub;
    const auto set = [&](const char* key, size_t* value) {
      if (options.contains(key)) *value = number(key);
    };
    set("watches", &hub.watches_max);
    set("queue_bytes", &hub.queue_bytes_max);
    set("queue_messages", &hub.queue_messages_max);
    set("total_bytes", &hub.total_bytes_max);
    set("in_flight_bytes", &hub.in_flight_bytes_max);
    set("message_bytes", &hub.message_bytes);
    set("reads", &hub.reads_max);
    set("read_bytes", &hub.read_bytes_max);
    set("read_rows", &hub.read_rows_max);
    if (options.contains("age")) hub.age_max = std::chrono::milliseconds(number("age"));
    world.Make(hub);
  } else if (command == "apply") {
    world.Apply(ParseWrites(rest));
  } else if (command == "uncollected") {
    world.Apply(ParseWrites(rest), WatchWorld::Heard::kHeadOnly);
  } else if (command == "bare") {
    world.Apply(ParseWrites(rest), WatchWorld::Heard::kWithoutPrevious);
  } else if (command == "unheard") {
    world.Apply(ParseWrites(rest), WatchWorld::Heard::kNothing);
  } else if (command == "watch") {
    WatchSpec spec;
    spec.filter.is_prefix = !options.contains("key");
    spec.filter.text = options[spec.filter.is_prefix ? "prefix" : "key"];
    if (options.contains("from")) spec.start_revision = number("from");
    spec.with_initial_state = options.contains("initial");
    spec.with_previous = options.contains("previous");
    if (options.contains("progress")) {
      spec.progress_interval = std::chrono::milliseconds(number("progress"));
    }
    world.Watch(words.at(1), spec);
  } else if (command == "cancel") {
    world.Cancel(world.client(words.at(1)));
  } else if (command == "slow" || command == "fast") {
    for (size_t i = 1; i < words.size(); ++i) {
      world.SetSlow(world.client(words[i]), command == "slow");
    }
  } else if (command == "take") {
    world.Take(world.client(words.at(1)));
  } else if (command == "hold" || command == "release") {
    world.HoldReads(command == "hold");
  } else if (command == "serve") {
    world.Serve();
  } else if (command == "busy") {
    world.next_failure = WatchHub::ReadFailure::kBusy;
  } else if (command == "broken") {
    world.next_failure = WatchHub::ReadFailure::kFailed;
  } else if (command == "compact") {
    world.store().Compact(Revision(std::stoull(words.at(1))));
  } else if (command == "reset") {
    world.hub().OnReset(world.now(), Revision(number("head")), Revision(number("compacted")));
    world.Pump();
  } else if (command == "leader") {
    world.hub().OnLeader(world.now(), words.at(1) == "found");
    world.Pump();
  } else if (command == "fresh") {
    world.hub().OnFresh(world.now(), world.now(), world.store().head());
    world.Pump();
  } else if (command == "wait") {
    world.Pass(std::chrono::milliseconds(std::stoull(words.at(1))));
  } else if (command == "drain") {
    world.hub().EndAll(world.now());
  } else if (command == "close") {
    world.hub().Close(world.now());
    world.Pump();
  } else if (command == "status") {
    out_ << world.hub().watches() << " watches, " << world.hub().catching_up()
         << " catching up, head " << world.hub().head().value() << ", encoded "
         << world.hub().counters().encoded << ", reads " << world.hub().counters().reads << '\n';
  } else {
    ADD_FAILURE() << "unknown command: " << line;
  }
  out_ << world.TakeLog();
}

}  // namespace quorate::ingress::testing
