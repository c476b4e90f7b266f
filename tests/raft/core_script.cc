#include "tests/raft/core_script.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace quorate::raft::testing {
namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::string Join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : " ") + part;
  return out;
}

// The value of `key=value` among the words.
std::optional<std::string> Option(const std::vector<std::string>& words, const std::string& key) {
  for (const std::string& word : words) {
    if (word.rfind(key + "=", 0) == 0) return word.substr(key.size() + 1);
  }
  return std::nullopt;
}

uint64_t Number(const std::vector<std::string>& words, const std::string& key, uint64_t otherwise) {
  const auto value = Option(words, key);
  return value ? std::stoull(*value) : otherwise;
}

uint64_t CountAt(const std::vector<std::string>& words, size_t position) {
  return words.size() > position ? std::stoull(words[position]) : 1;
}

// "3@1" is index 3 and term 1.
std::pair<Index, Term> Position(const std::string& text) {
  const size_t at = text.find('@');
  return {Index(std::stoull(text.substr(0, at))), Term(std::stoull(text.substr(at + 1)))};
}

struct Route {
  std::string from, to;  // empty: anybody
};

Route ParseRoute(const std::vector<std::string>& words) {
  if (words.empty()) return {};
  const size_t arrow = words[0].find("->");
  return {words[0].substr(0, arrow), words[0].substr(arrow + 2)};
}

// Takes what goes that way out of the network.
std::vector<Message> Take(Cluster* cluster, const Route& route) {
  std::vector<Message> taken;
  std::deque<Message> rest;
  for (Message& message : cluster->network()) {
    const bool matches = (route.from.empty() || cluster->NameOf(message.from) == route.from) &&
                         (route.to.empty() || cluster->NameOf(message.to) == route.to);
    if (matches) {
      taken.push_back(std::move(message));
    } else {
      rest.push_back(std::move(message));
    }
  }
  cluster->network() = std::move(rest);
  return taken;
}

Membership ParseMembers(Cluster* cluster, const std::string& text) {
  Membership membership;
  membership.cluster = cluster->birth_membership().cluster;
  bool voter = true;
  for (char c : "+" + text) {
    if (c == '+' || c == '-') {
      voter = c == '+';
      continue;
    }
    const std::string name(1, c);
    membership.members.push_back(Member{cluster->node(name).id(), name, "", voter, false});
  }
  std::sort(membership.members.begin(), membership.members.end(),
            [](const Member& a, const Member& b) { return a.store < b.store; });
  return membership;
}

}  // namespace

std::string Script::Run(const std::string& text) {
  std::istringstream in(text);
  std::string result;
  std::vector<std::string> commands;
  bool in_output = false;
  for (std::string line; std::getline(in, line);) {
    if (in_output) {
      in_output = !line.empty();
      if (!in_output) result += "\n";
      continue;
    }
    result += line + "\n";
    if (line == "----") {
      out_.str("");
      for (const std::string& command : commands) Execute(command);
      commands.clear();
      result += out_.str();
      in_output = true;
    } else if (!line.empty() && line[0] != '#') {
      commands.push_back(line);
    }
  }
  EXPECT_TRUE(commands.empty()) << "commands without ---- after them";
  return result;
}

void Script::Execute(const std::string& line) {
  std::vector<std::string> words = Split(line, ' ');
  if (words.front() == "quietly") {
    cluster_->set_trace(nullptr);
    Execute(line.substr(line.find(' ') + 1));
    cluster_->set_trace(&out_);
    return;
  }
  const std::string command = words.front();
  words.erase(words.begin());
  if (command == "cluster") {
    MakeCluster(words);
  } else if (!cluster_) {
    ADD_FAILURE() << "a script begins with `cluster`, not: " << line;
  } else if (!Setup(command, words) && !Time(command, words) && !Network(command, words) &&
             !Local(command, words) && !Show(command, words)) {
    ADD_FAILURE() << "unknown command: " << line;
  }
}

void Script::MakeCluster(const std::vector<std::string>& words) {
  CoreOptions options;
  options.seed = Number(words, "seed", 1);
  options.append_bytes_max = Number(words, "append_bytes", options.append_bytes_max);
  options.window_bytes_max = Number(words, "window_bytes", options.window_bytes_max);
  options.inflight_bytes_max = Number(words, "inflight_bytes", options.inflight_bytes_max);
  options.inflight_messages_max = Number(words, "inflight_messages", options.inflight_messages_max);
  options.uncommitted_bytes_max = Number(words, "uncommitted_bytes", options.uncommitted_bytes_max);
  options.apply_bytes_max = Number(words, "apply_bytes", options.apply_bytes_max);
  options.reads_max = Number(words, "reads", options.reads_max);
  options.read_rounds_max = Number(words, "read_rounds", options.read_rounds_max);
  std::vector<std::string> voters;
  for (const std::string& word : words) {
    if (word.find('=') == std::string::npos) voters.push_back(word);
  }
  const auto names = [&](const char* key) { return Split(Option(words, key).value_or(""), ','); };
  cluster_ = std::make_unique<Cluster>(voters, names("learners"), options, names("spares"));
  began_ = cluster_->now();
  cluster_->set_trace(&out_);
}

void Script::SetLog(const std::vector<std::string>& words) {
  TestNode& node = cluster_->node(words.at(0));
  Disk& disk = node.disk();
  disk.log.resize(1);
  const std::vector<std::string> terms = Split(words.at(1), ',');
  for (size_t i = 1; i < terms.size(); ++i) {
    const Term term(std::stoull(terms[i]));
    disk.log.push_back(MakeEntry(Index(i + 1), term));
  }
  disk.hard_state.term = Term(Number(words, "term", disk.log.back()->term.value()));
  if (const auto vote = Option(words, "vote")) disk.hard_state.vote = cluster_->node(*vote).id();
}

void Script::SetJoint(const std::vector<std::string>& words) {
  const Route change = ParseRoute({words.at(1)});
  Membership membership;
  membership.cluster = cluster_->birth_membership().cluster;
  membership.joint = true;
  for (TestNode* node : cluster_->nodes()) {
    const bool outgoing = change.from.find(node->name()) != std::string::npos;
    const bool voter = change.to.find(node->name()) != std::string::npos;
    membership.members.push_back(Member{node->id(), node->name(), "", voter, outgoing});
  }
  Disk& disk = cluster_->node(words.at(0)).disk();
  const Index index(disk.log.size() + 1);
  disk.log.push_back(MakeMembershipEntry(index, disk.log.back()->term, membership));
}

bool Script::Setup(const std::string& command, const std::vector<std::string>& words) {
  if (command == "log") {
    SetLog(words);
  } else if (command == "truncate") {
    cluster_->node(words.at(0)).disk().log.resize(CountAt(words, 1));
  } else if (command == "timeouts") {
    const std::string& range = words.at(1);
    CoreOptions& options = cluster_->node(words.at(0)).options();
    options.election_timeout_min = std::chrono::milliseconds(std::stoll(range));
    options.election_timeout_max =
        std::chrono::milliseconds(std::stoll(range.substr(range.find('-') + 1)));
  } else if (command == "joint") {
    SetJoint(words);
  } else if (command == "applied") {
    cluster_->node(words.at(0)).disk().applied = Index(CountAt(words, 1));
  } else if (command == "start" && words.empty()) {
    cluster_->StartAll();
  } else if (command == "start" || command == "stop" || command == "restart") {
    for (const std::string& name : words) {
      TestNode& node = cluster_->node(name);
      if (command != "start") node.Stop();
      if (command != "stop") node.Start();
    }
  } else {
    return false;
  }
  return true;
}

bool Script::Time(const std::string& command, const std::vector<std::string>& words) {
  if (command == "campaign") {
    TestNode& node = cluster_->node(words.at(0));
    cluster_->SetNow(std::max(cluster_->now(), node.NextDeadline()));
    node.Tick();
  } else if (command == "advance") {
    const auto step = std::chrono::milliseconds(std::stoll(words.at(0)));
    cluster_->FireTimersUntil(cluster_->now() + step, false);
  } else if (command == "run") {
    cluster_->Run(std::chrono::milliseconds(std::stoll(words.at(0))));
  } else {
    return false;
  }
  return true;
}

bool Script::Network(const std::string& command, const std::vector<std::string>& words) {
  if (command == "deliver") {
    for (const Message& message : Take(cluster_.get(), ParseRoute(words))) {
      cluster_->Deliver(message);
    }
  } else if (command == "settle") {
    cluster_->Settle();
  } else if (command == "drop") {
    for (const Message& message : Take(cluster_.get(), ParseRoute(words))) {
      cluster_->Say("lost: " + Print(*cluster_, message));
    }
  } else if (command == "repeat") {
    for (const Message& message : Take(cluster_.get(), ParseRoute(words))) {
      cluster_->network().push_back(message);
      cluster_->network().push_back(message);
    }
  } else if (command == "partition") {
    std::vector<std::vector<std::string>> groups;
    for (const std::string& group : Split(Join(words), '|')) groups.push_back(Split(group, ' '));
    cluster_->Partition(std::move(groups));
  } else if (command == "heal") {
    cluster_->Partition({});
  } else if (command == "forge") {
    Forge(words);
  } else {
    return false;
  }
  return true;
}

void Script::Forge(const std::vector<std::string>& words) {
  const Route route = ParseRoute(words);
  if (words.at(1) == "timeout-now") {
    const Message message{cluster_->node(route.from).id(), cluster_->node(route.to).id(),
                          TimeoutNow{Term(Number(words, "term", 1))}};
    cluster_->Say("forged: " + Print(*cluster_, message));
    return cluster_->Deliver(message);
  }
  AppendEntries append;
  append.term = Term(Number(words, "term", 1));
  std::tie(append.prev_index, append.prev_term) = Position(Option(words, "prev").value());
  append.commit = Index(Number(words, "commit", 0));
  append.sent_at = cluster_->now();
  Index index = append.prev_index;
  for (const std::string& text : Split(Option(words, "entries").value_or(""), ',')) {
    ++index;
    const Term term(std::stoull(text));
    const size_t colon = text.find(':');
    append.entries.push_back(
        colon == std::string::npos
            ? MakeEntry(index, term)
            : MakeMembershipEntry(index, term,
                                  ParseMembers(cluster_.get(), text.substr(colon + 1))));
  }
  const StoreId from = cluster_->node(route.from).id();
  const StoreId to = cluster_->node(route.to).id();
  const Message message{from, to, std::move(append)};
  cluster_->Say("forged: " + Print(*cluster_, message));
  cluster_->Deliver(message);
}

void Script::Propose(const std::vector<std::string>& words) {
  const uint64_t count = Number(words, "count", 1);
  const uint64_t bytes = Number(words, "bytes", 0);
  std::vector<std::string> payloads;
  for (uint64_t i = 0; i < count; ++i) {
    for (size_t k = 1; k < words.size(); ++k) {
      if (words[k].find('=') != std::string::npos) continue;
      std::string payload = words[k];
      payload.resize(std::max<size_t>(payload.size(), bytes), '.');
      payloads.push_back(std::move(payload));
    }
  }
  const size_t asked = payloads.size();
  const auto [accepted, status] = cluster_->node(words.at(0)).Propose(std::move(payloads));
  if (status == ProposeStatus::kAccepted) return;
  cluster_->Say(words.at(0) + ": accepts " + std::to_string(accepted) + " of " +
                std::to_string(asked) +
                (status == ProposeStatus::kNotLeader      ? ", not leader"
                 : status == ProposeStatus::kTransferring ? ", transferring"
                                                          : ", queue full"));
}

void Script::Change(const std::vector<std::string>& words) {
  MembershipChange change;
  change.force = std::find(words.begin(), words.end(), "force") != words.end();
  using Kind = MemberStep::Kind;
  const std::pair<const char*, Kind> kinds[] = {{"add", Kind::kAddLearner},
                                                {"promote", Kind::kPromote},
                                                {"demote", Kind::kDemote},
                                                {"remove", Kind::kRemove}};
  for (const auto& [key, kind] : kinds) {
    for (const std::string& name : Split(Option(words, key).value_or(""), ',')) {
      change.steps.push_back({kind, cluster_->node(name).id(), name, ""});
    }
  }
  const ChangeResult result = cluster_->node(words.at(0)).Change(change);
  const std::string about = PrintChange(*cluster_, result);
  if (!about.empty()) cluster_->Say(words.at(0) + ": refuses: " + about);
}

void Script::Transfer(const std::vector<std::string>& words) {
  const StoreId target = words.size() > 1 ? cluster_->node(words[1]).id() : StoreId();
  const char* refusal = nullptr;
  switch (cluster_->node(words.at(0)).HandOver(target)) {
    case TransferStatus::kStarted:
      return;
    case TransferStatus::kAlreadyLeads:
      refusal = "it leads already";
      break;
    case TransferStatus::kNotLeader:
      refusal = "not leader";
      break;
    case TransferStatus::kInProgress:
      refusal = "a transfer is under way";
      break;
    case TransferStatus::kNotVoter:
      refusal = "the target is no voter";
      break;
    case TransferStatus::kSilent:
      refusal = "the target does not answer";
      break;
    case TransferStatus::kDone:
    case TransferStatus::kFailed:
      refusal = "?";  // not from a core
      break;
  }
  cluster_->Say(words.at(0) + ": refuses: " + refusal);
}

bool Script::Local(const std::string& command, const std::vector<std::string>& words) {
  if (command == "propose") {
    Propose(words);
  } else if (command == "change") {
    Change(words);
  } else if (command == "transfer") {
    Transfer(words);
  } else if (command == "slow" || command == "fast") {
    TestNode& node = cluster_->node(words.at(0));
    const auto named = [&](const char* what) {
      return command == "slow" && std::find(words.begin(), words.end(), what) != words.end();
    };
    node.set_slow_disk(named("disk"));
    node.set_slow_apply(named("apply"));
    node.set_slow_reads(named("reads"));
    node.set_slow_snapshots(named("snapshots"));
    while (command == "fast" &&
           (node.PersistNext() || node.AnswerRead() || node.ApplyNext() || node.SendSnapshot())) {
    }
  } else if (command == "persist") {
    for (uint64_t i = CountAt(words, 1); i > 0; --i) cluster_->node(words.at(0)).PersistNext();
  } else if (command == "apply") {
    for (uint64_t i = CountAt(words, 1); i > 0; --i) cluster_->node(words.at(0)).ApplyNext();
  } else if (command == "compact") {
    TestNode& node = cluster_->node(words.at(0));
    // A checkpoint has made durable what is applied.
    node.disk().applied = std::max(node.disk().applied, node.core().applied());
    node.Compact(Index(CountAt(words, 1)));
  } else if (command == "send") {
    cluster_->node(words.at(0)).SendSnapshot();
  } else if (command == "break") {
    cluster_->node(words.at(0)).FailSnapshots();
  } else if (command == "ask") {
    const bool lease = words.size() > 1 && words[1] == "lease";
    cluster_->node(words.at(0)).RequestRead(lease ? ReadMode::kLease : ReadMode::kRound);
  } else if (command == "leases") {
    for (TestNode* node : cluster_->nodes()) node->set_leases(words.at(0) == "on");
  } else if (command == "read") {
    for (uint64_t i = CountAt(words, 1); i > 0; --i) cluster_->node(words.at(0)).AnswerRead();
  } else {
    return false;
  }
  return true;
}

void Script::ShowNode(TestNode& node) {
  if (!node.up()) {
    cluster_->Say(node.name() + " down");
    return;
  }
  const Core& core = node.core();
  std::vector<EntryPtr> held;  // without what has been cut
  for (const EntryPtr& entry : node.log()) {
    if (entry->index >= core.first_index()) held.push_back(entry);
  }
  cluster_->Say(node.name() + " " + RoleName(core.role()) + " term=" + ToString(core.term()) +
                " leader=" + cluster_->NameOf(core.leader()) +
                " last=" + ToString(core.last_index()) +
                " persisted=" + ToString(core.persisted()) + " commit=" + ToString(core.commit()) +
                " applied=" + ToString(core.applied()) + " log=" + PrintEntries(held));
}

bool Script::Show(const std::string& command, const std::vector<std::string>& words) {
  const auto in_ms = [&](Duration d) {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(d).count()) + " ms";
  };
  if (command == "status") {
    for (TestNode* node : cluster_->nodes()) ShowNode(*node);
  } else if (command == "peers") {
    for (const PeerView& peer : cluster_->node(words.at(0)).core().peers()) {
      cluster_->Say(words.at(0) + " sees " + cluster_->NameOf(peer.store) +
                    ": match=" + ToString(peer.match) + " last=" + ToString(peer.last_index) +
                    (peer.active ? " active" : " silent") + (peer.lost_data ? " LOST DATA" : "") +
                    (peer.needs_snapshot ? " needs a snapshot" : "") +
                    (peer.snapshot_sent ? ", which is under way" : ""));
    }
  } else if (command == "fresh") {
    for (const std::string& name : words) {
      const auto fresh = cluster_->node(name).core().fresh_as_of(cluster_->now());
      cluster_->Say(
          name + ": " +
          (fresh ? "shows everything acknowledged up to " + in_ms(cluster_->now() - *fresh) + " ago"
                 : "cannot tell how fresh it is"));
    }
  } else if (command == "lease") {
    for (const std::string& name : words) {
      TestNode& node = cluster_->node(name);
      const auto until = node.core().lease_until();
      cluster_->Say(name + ": " +
                    (!until ? "has no lease"
                     : *until <= node.Now()
                         ? "its lease ended " + in_ms(node.Now() - *until) + " ago"
                         : "its lease ends in " + in_ms(*until - node.Now())));
    }
  } else if (command == "removed") {
    for (const std::string& name : words) {
      const bool removed = cluster_->node(name).core().removed();
      cluster_->Say(name + (removed ? " knows that it was removed" : " does not think so"));
    }
  } else if (command == "clock") {
    cluster_->Say("clock: " + in_ms(cluster_->now() - began_));
  } else if (command == "memberships") {
    for (TestNode* node : cluster_->nodes()) {
      if (!node->up()) continue;
      cluster_->Say(node->name() + ": " + PrintMembership(node->core().membership()));
    }
  } else {
    return false;
  }
  return true;
}

}  // namespace quorate::raft::testing
