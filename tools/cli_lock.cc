// lock, elect.
//
// Who wants NAME puts a key of his own, `NAME/ID`, bound to a time-to-live whose id that is, and
// holds it when no key of NAME was created before his. Each waits for the one before him only, so
// one release wakes one waiter, in the order in which they came. Whoever ends, or is cut off, loses
// his key with his time-to-live. Only keys of this form count: what else is below NAME (another
// name's contenders, say) blocks nobody, nor does a key that is bound to nothing, because a
// rollback has brought it back, which would block for ever. The key's create revision grows from
// holder to holder: what the command writes elsewhere can carry it, and be refused behind a later
// one.
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/child.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/ttl_holder.h"
#include "tools/watcher.h"

namespace quorate::tools {
namespace {

using services::BootNow;
using std::chrono::milliseconds;

// How long a killed process takes to be gone.
constexpr Duration kKillTime = std::chrono::seconds(2);
constexpr milliseconds kPoll(20);
// What a life's end is early for us: a killed process takes a moment to be gone, and this machine's
// clock may run slower than the leader's, by a five-hundredth at most.
constexpr Duration kLossMarginMin = std::chrono::milliseconds(100);
constexpr int kClockRates = 500;
constexpr milliseconds kTtlMin(1000);
constexpr milliseconds kTtlMax(24LL * 3600 * 1000);
// Said again at most so often.
constexpr Duration kTroubleInterval = std::chrono::seconds(5);

struct LockOptions {
  std::string verb;  // lock or elect
  std::string name;
  std::string ttl = "10s";
  std::string wait;
  std::string value;
  bool listen = false;
  std::vector<std::string> command;
};

// Whether this key stands for somebody who wants `name`.
bool IsContender(const std::string& name, const v1::Item& item) {
  return !item.ttl_id().empty() && item.key() == name + "/" + item.ttl_id();
}

std::string DefaultValue() {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  return std::string(host) + "/" + std::to_string(getpid());
}

// One attempt to hold NAME, from the grant to the release.
class Contender {
 public:
  Contender(Invocation& invocation, Client& client, const LockOptions& options, milliseconds ttl,
            std::optional<Instant> give_up)
      : invocation_(invocation),
        client_(client),
        options_(options),
        margin_(std::max<Duration>(kLossMarginMin, ttl / kClockRates)),
        // The command is told to end while it still holds it, and made to when it may not.
        notice_(margin_ + std::min<Duration>(ttl / 4, std::chrono::seconds(2))),
        give_up_(give_up),
        holder_(client, ttl) {}

  int Run() {
    CallResult result = holder_.Grant();
    if (!result.ok()) return Report(invocation_.io.err, What(), result);
    const int exit = RunGranted();
    // Also when nothing is bound to it: it counts towards the store's bound until it expires.
    result = holder_.Revoke();
    const bool gone = services::DetailsOf(result.status).reason == "TTL_NOT_FOUND";
    if (!result.ok() && !gone) {
      Note("cannot be released now, and will be when its time-to-live is over: " +
           Describe(result));
    }
    return exit;
  }

 private:
  enum class Turn { kMine, kBehind, kStopped, kFailed };

  int RunGranted() {
    key_ = options_.name + "/" + holder_.id();
    v1::PutRequest put;
    put.set_key(key_);
    put.set_text(options_.value.empty() ? DefaultValue() : options_.value);
    put.set_expected_revision(0);
    put.set_ttl_id(holder_.id());
    put.set_note("quorate " + options_.verb);
    v1::PutResponse response;
    const CallResult result = client_.Write(&v1::Config::Stub::Put, put, &response);
    if (!result.ok()) return Report(invocation_.io.err, What(), result);
    revision_ = response.create_revision();
    holder_.Guard(key_, revision_);
    while (true) {
      v1::Item before;
      switch (FindTurn(&before)) {
        case Turn::kMine:
          return Hold(put.text());
        case Turn::kBehind:
          if (Stop()) return Stopped();
          if (!WaitFor(before)) return exit_;
          break;
        case Turn::kStopped:
          return Stopped();
        case Turn::kFailed:
          return exit_;
      }
    }
  }

  // Who is before this one: what was created last before it. At a node that shows this one's key
  // nobody can come before it any more, so any node may be asked. One whose key is not there any
  // more (somebody deleted it, or rolled back) has no turn: others would take theirs beside it.
  Turn FindTurn(v1::Item* before) {
    v1::ListRequest request;
    request.set_prefix(options_.name + "/");
    request.mutable_read()->set_min_revision(revision_);
    before->Clear();
    bool there = false;
    while (true) {
      if (Interrupted() || Lost()) return Turn::kStopped;
      v1::ListResponse response;
      const CallResult result =
          client_.Run(CallKind::kRead, [&](Endpoint& endpoint, grpc::ClientContext* context) {
            return endpoint.config->List(context, request, &response);
          });
      if (!result.ok()) {
        exit_ = Report(invocation_.io.err, What(), result);
        return Turn::kFailed;
      }
      for (const v1::Item& item : response.items()) {
        if (!IsContender(options_.name, item)) continue;
        there = there || (item.key() == key_ && item.create_revision() == revision_);
        if (item.create_revision() >= revision_) continue;
        if (item.create_revision() > before->create_revision()) *before = item;
      }
      if (response.next_page_token().empty()) {
        seen_ = response.header().revision();
        gone_ = !there;
        if (gone_ || Interrupted() || Lost()) return Turn::kStopped;
        return before->key().empty() ? Turn::kMine : Turn::kBehind;
      }
      request.clear_read();
      request.set_page_token(response.next_page_token());
    }
  }

  // Until something happens to that key (or its history is gone), or it is time to stop. False: it
  // cannot be watched.
  bool WaitFor(const v1::Item& before) {
    if (!std::exchange(waiting_told_, true)) Note("waiting for " + Printable(before.key()));
    WatcherOptions watcher;
    watcher.request.set_key(before.key());
    watcher.request.set_start_revision(seen_ + 1);
    watcher.request.mutable_progress_interval()->set_seconds(5);
    watcher.stop = [this] { return Stop(); };
    const CallResult result = Watcher(
                                  client_, watcher,
                                  [](const v1::WatchResponse& message) {
                                    return !message.reset() && message.events().empty();
                                  },
                                  [](const CallResult&, uint64_t) {})
                                  .Run();
    if (result.ok() || Stop()) return true;
    exit_ = Report(invocation_.io.err, What(), result);
    return false;
  }

  bool Lost() const { return holder_.lost() != nullptr || holder_.time_left() <= margin_; }
  // Why not to go on waiting.
  bool Stop() const { return Interrupted() || Lost() || (give_up_ && BootNow() >= *give_up_); }
  int Stopped() {
    if (Interrupted()) return kExitInterrupted;
    if (Lost() || gone_) return FailLost();
    return invocation_.Fail(kExitUnavailable, What() + ": not obtained within " + options_.wait);
  }

  int FailLost() {
    const std::string trouble = holder_.trouble();
    const char* lost = holder_.lost();
    return invocation_.Fail(kExitUnavailable,
                            What() + ": lost: " +
                                (lost != nullptr ? lost
                                 : gone_         ? "its key is not there any more"
                                         : "it could not be kept alive, and may have ended") +
                                (trouble.empty() ? "" : ": " + trouble));
  }

  int Hold(const std::string& value) {
    // The listing may have taken its time.
    if (Interrupted() || Lost()) return Stopped();
    if (options_.command.empty()) return HoldAlone(value);
    absl::StatusOr<Child> child = Child::Start(
        options_.command,
        {{"QUORATE_LOCK_KEY", key_}, {"QUORATE_LOCK_TOKEN", std::to_string(revision_)}},
        !invocation_.io.in_is_terminal);
    if (!child.ok()) {
      return invocation_.Fail(absl::IsNotFound(child.status()) ? kExitNotFound : kExitError,
                              What() + ": " + std::string(child.status().message()));
    }
    bool told = false, killed = false, interrupted = false;
    while (true) {
      if (const std::optional<int> status = child->Ended()) {
        // Also when it was lost a moment ago, and the command has not been told yet.
        const bool lost = told || killed || Lost();
        if (lost || Interrupted()) AwaitRest(*child);
        if (lost) return FailLost();
        if (Interrupted()) return kExitInterrupted;
        if (*status != Child::kStatusUnknown) return *status;
        return invocation_.Fail(kExitError,
                                What() + ": the command has ended, and how cannot be known");
      }
      if (Interrupted() && !std::exchange(interrupted, true)) {
        // A terminal has sent Ctrl-C to both.
        const int signal = InterruptSignal();
        if (signal != SIGINT || !invocation_.io.in_is_terminal) End(*child, signal);
      }
      if (Lost() && !std::exchange(killed, true)) {
        End(*child, SIGKILL);
      } else if (!killed && holder_.time_left() <= notice_ && !std::exchange(told, true)) {
        Note("cannot be kept alive: the command is told to end: " + holder_.trouble());
        End(*child, SIGTERM);
      }
      SayTrouble();
      Pause();
    }
  }

  void End(const Child& child, int signal) const {
    if (child.Signal(signal)) return;
    invocation_.io.err
        << "quorate: " << What()
        << ": the command runs as somebody else and cannot be ended: end it by hand\n";
  }

  // Until the next look; not beyond the end.
  void Pause() const {
    std::this_thread::sleep_for(
        std::clamp<Duration>(holder_.time_left() - margin_, milliseconds(1), kPoll));
  }

  // What the command has started was told to end as well; it is waited for, because the next holder
  // comes when this one is gone.
  void AwaitRest(const Child& child) const {
    std::optional<Instant> killed_at;
    while (child.GroupRuns()) {
      if (!killed_at && Lost()) {
        End(child, SIGKILL);
        killed_at = BootNow();
      }
      // Only a process that nobody waits for is there so long after it was killed.
      if (killed_at && BootNow() - *killed_at > kKillTime) return;
      std::this_thread::sleep_for(kPoll);
    }
  }

  // Without a command: held until somebody interrupts it.
  int HoldAlone(const std::string& value) {
    std::ostream& out = invocation_.io.out;
    if (invocation_.structured()) {
      PrintStructured(
          out, invocation_.format,
          {{"key", key_}, {"value", value}, {"createRevision", std::to_string(revision_)}});
    } else {
      out << Printable(key_) << '\n';
    }
    out.flush();
    while (!Interrupted()) {
      if (Lost()) return FailLost();
      SayTrouble();
      Pause();
    }
    return kExitInterrupted;
  }

  void SayTrouble() {
    if (BootNow() - trouble_said_ < kTroubleInterval) return;
    const std::string trouble = holder_.trouble();
    if (trouble.empty()) return;
    trouble_said_ = BootNow();
    Note("a renewal failed, and is tried at other nodes: " + trouble);
  }

  std::string What() const { return options_.verb + " " + Printable(options_.name); }
  void Note(const std::string& text) const {
    if (!invocation_.globals.quiet) {
      invocation_.io.err << "quorate: " << What() << ": " << text << '\n';
    }
  }

  Invocation& invocation_;
  Client& client_;
  const LockOptions& options_;
  const Duration margin_;
  const Duration notice_;
  const std::optional<Instant> give_up_;
  TtlHolder holder_;
  std::string key_;
  uint64_t revision_ = 0;  // at which the key was created
  uint64_t seen_ = 0;      // what the last listing showed
  bool gone_ = false;      // the key is not there any more
  bool waiting_told_ = false;
  int exit_ = kExitOk;
  Instant trouble_said_;
};

// Says who is elected, each time that it is somebody else.
class Listener {
 public:
  Listener(Invocation& invocation, const LockOptions& options)
      : invocation_(invocation), options_(options) {}

  int Run(Client& client) {
    WatcherOptions watcher;
    watcher.request.set_prefix(options_.name + "/");
    watcher.request.set_with_initial_state(true);
    watcher.request.mutable_progress_interval()->set_seconds(5);
    watcher.timeout = invocation_.timeout;
    watcher.stop = [] { return Interrupted(); };
    const CallResult result =
        Watcher(
            client, watcher, [this](const v1::WatchResponse& message) { return Hear(message); },
            [](const CallResult&, uint64_t) {})
            .Run();
    if (Interrupted()) return kExitInterrupted;
    if (result.ok()) return kExitOk;
    return Report(invocation_.io.err, "elect " + Printable(options_.name), result);
  }

 private:
  bool Hear(const v1::WatchResponse& message) {
    // A state from the beginning takes the place of what is known.
    if ((message.started() || message.reset()) && message.resume_revision() == 0) {
      keys_.clear();
      in_state_ = true;
    }
    if (message.synced()) in_state_ = false;
    for (const v1::WatchEvent& event : message.events()) {
      if (event.type() == v1::WatchEvent::TYPE_DELETE) {
        keys_.erase(event.item().key());
      } else {
        keys_[event.item().key()] = event.item();
      }
    }
    if (!in_state_ && !message.partial()) Show();
    return static_cast<bool>(invocation_.io.out);
  }

  void Show() {
    const v1::Item* leader = nullptr;
    for (const auto& [key, item] : keys_) {
      if (!IsContender(options_.name, item)) continue;
      if (leader == nullptr || item.create_revision() < leader->create_revision()) leader = &item;
    }
    const std::pair<std::string, uint64_t> now =
        leader == nullptr ? std::pair<std::string, uint64_t>("", 0)
                          : std::pair(leader->key(), leader->mod_revision());
    if (shown_ == now) return;
    shown_ = now;
    std::ostream& out = invocation_.io.out;
    if (invocation_.format == OutputFormat::kJson) {
      out << (leader == nullptr ? nlohmann::ordered_json() : ToJson(*leader)).dump() << '\n';
    } else if (leader == nullptr) {
      out << "-\n";
    } else {
      out << Printable(leader->key()) << ' ' << Printable(leader->text()) << '\n';
    }
    out.flush();
  }

  Invocation& invocation_;
  const LockOptions& options_;
  bool in_state_ = false;
  std::map<std::string, v1::Item> keys_;
  std::optional<std::pair<std::string, uint64_t>> shown_;
};

int RunLock(Invocation& invocation, const LockOptions& options) {
  const auto fail = [&](const std::string& message) {
    return invocation.Fail(kExitUsage, options.verb + ": " + message);
  };
  if (options.name.empty() || options.name.size() > 1000) {
    return fail("NAME has 1 to 1,000 bytes: keys are made of it");
  }
  if (options.verb == "lock" && options.command.empty()) {
    return fail("write the command to run: lock NAME -- CMD");
  }
  const milliseconds ttl = ParseTime(options.ttl).value_or(kTtlMin);
  std::optional<Instant> give_up;
  if (!options.wait.empty()) give_up = BootNow() + ParseTime(options.wait).value_or(kTtlMin);
  if (options.listen && (!options.command.empty() || !options.value.empty())) {
    return fail("--listen only watches: no --value and no command");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  GracefulInterrupts graceful;
  if (options.listen) return Listener(invocation, options).Run(*client);
  return Contender(invocation, *client, options, ttl, give_up).Run();
}

CLI::App* AddContest(CLI::App& app, Invocation& invocation, const std::string& verb,
                     const std::string& help, const std::shared_ptr<LockOptions>& options) {
  options->verb = verb;
  CLI::App* command = app.add_subcommand(verb, help);
  command->add_option("NAME", options->name, "its keys are NAME/..., one for each who wants it")
      ->required();
  command
      ->add_option("--ttl", options->ttl,
                   "how long it stays after its holder was cut off or killed, 1s to 24h")
      ->check(TimeWithin(kTtlMin, kTtlMax))
      ->capture_default_str();
  command
      ->add_option("--wait", options->wait,
                   "give up (exit 5) when it is not obtained within this; 0s: only if it is free; "
                   "default: never")
      ->check(TimeWithin(milliseconds(0), milliseconds(366LL * 24 * 3600 * 1000)));
  command->add_option("--value", options->value, "of the key (default: host/process)");
  command->add_option("CMD", options->command,
                      "what to run while it is held, with QUORATE_LOCK_KEY and QUORATE_LOCK_TOKEN "
                      "(grows from holder to holder) in its environment; its exit status is ours. "
                      "When it is lost the command is ended");
  command->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return RunLock(invocation, *options); };
  });
  return command;
}

}  // namespace

void AddLockCommands(CLI::App& app, Invocation& invocation) {
  AddContest(app, invocation, "lock", "run a command while holding a lock",
             std::make_shared<LockOptions>());
  auto options = std::make_shared<LockOptions>();
  CLI::App* elect =
      AddContest(app, invocation, "elect",
                 "be elected, and run a command or stay so until interrupted", options);
  elect->add_flag("--listen", options->listen, "say who is elected, each time that it changes");
}

}  // namespace quorate::tools
