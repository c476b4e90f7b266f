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

#include <atomic>
#include <csignal>
#include <iostream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/child.h"
#include "tools/cli.h"
#include "tools/cli_lock_contender.h"
#include "tools/cli_lock_speaker.h"
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
// Between two looks at what a command has left behind: the longer it takes the longer.
constexpr milliseconds kRestPollMin(5);
constexpr milliseconds kRestPollMax(160);
// What a life's end is early for us: a killed process takes a moment to be gone, and this machine's
// clock may run slower than the leader's, by a five-hundredth at most.
constexpr Duration kLossMarginMin = std::chrono::milliseconds(100);
constexpr int kClockRates = 500;
constexpr char kTtlDefault[] = "10s";
constexpr milliseconds kTtlMin(1000);
constexpr milliseconds kTtlMax(24LL * 3600 * 1000);
// Said again at most so often.
constexpr Duration kTroubleInterval = std::chrono::seconds(5);

struct LockOptions {
  std::string verb;  // lock or elect
  std::string name;
  std::string ttl;  // kTtlDefault
  std::string wait;
  std::string value;
  bool listen = false;
  std::vector<std::string> command;
};

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
        holder_(client, ttl),
        speaker_(invocation.io.err) {}

  int Run() {
    CallResult result = holder_.Grant();
    if (!result.ok()) return Failed(result);
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
  // With their create revisions; a transaction makes several at one.
  using Keys = std::set<std::pair<uint64_t, std::string>>;

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
    if (!result.ok()) return Failed(result);
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
  // Whatever else is below NAME may be large, and is not read.
  Turn FindTurn(v1::Item* before) {
    Keys earlier;
    if (!ListEarlier(&earlier)) return Turn::kFailed;
    before->Clear();
    while (!earlier.empty() && before->key().empty() && !gone_ && !Interrupted() && !Lost()) {
      if (!GetEarlier(std::prev(earlier.end())->second, before)) return Turn::kFailed;
      earlier.erase(std::prev(earlier.end()));
    }
    // Those may have gone after the listing, and this one's key before them; or the node that
    // listed does not know yet that it was deleted.
    if (before->key().empty() && !gone_ && !Interrupted() && !Lost()) {
      if (!GetOwn()) return Turn::kFailed;
    }
    // All of that may have taken its time.
    if (gone_ || Interrupted() || Lost()) return Turn::kStopped;
    return before->key().empty() ? Turn::kMine : Turn::kBehind;
  }

  // The keys that may be before this one; what is not there any more is `gone_`. False: it failed.
  bool ListEarlier(Keys* earlier) {
    v1::ListRequest request;
    request.set_prefix(options_.name + "/");
    request.set_keys_only(true);
    request.mutable_read()->set_min_revision(revision_);
    bool there = false;
    while (!Interrupted() && !Lost()) {
      v1::ListResponse response;
      const CallResult result = client_.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
        return endpoint.config->List(context, request, &response);
      });
      if (!result.ok()) {
        exit_ = Failed(result);
        return false;
      }
      for (const v1::Item& item : response.items()) {
        there = there || (item.key() == key_ && item.create_revision() == revision_);
        if (item.create_revision() >= revision_ || !MayContend(options_.name, item.key())) continue;
        earlier->emplace(item.create_revision(), item.key());
      }
      if (response.next_page_token().empty()) {
        seen_ = response.header().revision();
        gone_ = !there;
        break;
      }
      request.clear_read();
      request.set_page_token(response.next_page_token());
    }
    return true;
  }

  // What that key is, if it is there and stands for somebody before this one. False: it failed.
  bool GetEarlier(const std::string& key, v1::Item* before) {
    v1::GetRequest request;
    request.set_key(key);
    request.mutable_read()->set_min_revision(seen_);
    v1::Item item;
    if (!Get(request, &item)) return false;
    if (IsContender(options_.name, item) && item.create_revision() < revision_) *before = item;
    return true;
  }

  // Whether this one's key is still there, as of now: `gone_`. False: it failed.
  bool GetOwn() {
    v1::GetRequest request;
    request.set_key(key_);
    request.mutable_read()->set_consistency(v1::CONSISTENCY_LINEARIZABLE);
    v1::Item item;
    if (!Get(request, &item)) return false;
    gone_ = item.create_revision() != revision_;
    return true;
  }

  // An empty item when there is none. False: it failed.
  bool Get(const v1::GetRequest& request, v1::Item* item) {
    v1::GetResponse response;
    const CallResult result = client_.Read([&](Endpoint& endpoint, grpc::ClientContext* context) {
      return endpoint.config->Get(context, request, &response);
    });
    const bool there = services::DetailsOf(result.status).reason != "KEY_NOT_FOUND";
    if (there && !result.ok()) {
      exit_ = Failed(result);
      return false;
    }
    item->Clear();
    if (there) *item = response.item();
    return true;
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
    exit_ = Failed(result);
    return false;
  }

  // Once so it stays so: a renewal that succeeds a moment later is too late for who has seen it.
  bool Lost() {
    if (holder_.lost() != nullptr || holder_.time_left() <= margin_) lost_ = true;
    return lost_;
  }
  // Why not to go on waiting.
  bool Stop() { return Interrupted() || Lost() || (give_up_ && BootNow() >= *give_up_); }
  int Stopped() {
    if (Interrupted()) return kExitInterrupted;
    if (Lost() || gone_) return FailLost();
    return Fail(kExitUnavailable, "not obtained within " + options_.wait);
  }

  int FailLost() {
    const std::string trouble = holder_.trouble();
    const char* lost = holder_.lost();
    return Fail(kExitUnavailable, std::string("lost: ") +
                                      (lost != nullptr ? lost
                                       : gone_         ? "its key is not there any more"
                                               : "it could not be kept alive, and may have ended") +
                                      (trouble.empty() ? "" : ": " + trouble));
  }

  int Hold(const std::string& value) {
    if (options_.command.empty()) return HoldAlone(value);
    // What our terminal sends reaches this process only, not a command with a group of its own.
    std::optional<UnstoppedByTerminal> unstopped;
    if (own_group()) unstopped.emplace();
    absl::StatusOr<Child> child = Child::Start(
        options_.command,
        {{"QUORATE_LOCK_KEY", key_}, {"QUORATE_LOCK_TOKEN", std::to_string(revision_)}},
        own_group());
    if (!child.ok()) {
      return Fail(absl::IsNotFound(child.status()) ? kExitNotFound : kExitError,
                  std::string(child.status().message()));
    }
    const int status = Watch(*child);
    if (told_ || killed_ || Lost() || Interrupted()) {
      // Also when it was lost a moment ago, and the command has not been told yet.
      const bool lost = told_ || killed_ || Lost();
      AwaitRest(*child);
      return lost || Lost() ? FailLost() : kExitInterrupted;
    }
    if (status != Child::kStatusUnknown) return status;
    return Fail(kExitError, "the command has ended, and how cannot be known");
  }

  // Until it has ended; how. Nothing here may wait for anything: it ends the command in time.
  int Watch(Child& child) {
    bool passed_on = false, stop_said = false;
    while (true) {
      if (const std::optional<int> status = child.Ended()) return *status;
      if (Lost() && !std::exchange(killed_, true)) End(child, SIGKILL);
      if (Interrupted() && !std::exchange(passed_on, true)) PassOn(child, InterruptSignal());
      if (!killed_ && holder_.time_left() <= notice_ && !std::exchange(told_, true)) {
        End(child, SIGTERM);
        Note("cannot be kept alive: the command is told to end: " + holder_.trouble());
      }
      if (own_group() && child.stopped() && !std::exchange(stop_said, true)) {
        Note("the command has stopped, and holds it on: does it read from the terminal?");
      }
      SayTrouble();
      Pause(kPoll);
    }
  }

  void PassOn(const Child& child, int signal) {
    // The terminal has sent these to both.
    if (!own_group() && (signal == SIGINT || signal == SIGQUIT)) return;
    // What SIGHUP means to a command is its own affair: many read their settings anew.
    End(child, signal == SIGINT ? SIGINT : SIGTERM);
  }

  void End(const Child& child, int signal) {
    if (!child.Signal(signal)) SayByHand();
  }

  void SayByHand() {
    if (std::exchange(by_hand_said_, true)) return;
    Say("the command, or what it has started, cannot be ended (does it run as somebody else?): end "
        "it by hand");
  }

  // Until the next look; not beyond the end.
  void Pause(milliseconds pause) const {
    std::this_thread::sleep_for(
        std::clamp<Duration>(holder_.time_left() - margin_, milliseconds(1), pause));
  }

  // What the command has started was told to end as well; it is waited for, because the next holder
  // comes when this one is gone.
  void AwaitRest(const Child& child) {
    std::optional<Instant> killed_at;
    milliseconds pause = kRestPollMin;
    while (child.GroupRuns()) {
      if (!child.Signal(0)) SayByHand();
      if (!killed_at && Lost()) {
        End(child, SIGKILL);
        killed_at = BootNow();
      }
      if (killed_at && BootNow() - *killed_at > kKillTime) return SayByHand();
      pause = std::min(2 * pause, kRestPollMax);
      killed_at ? std::this_thread::sleep_for(kPoll) : Pause(pause);
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
      Pause(kPoll);
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

  bool own_group() const { return !invocation_.io.in_is_terminal; }
  std::string What() const { return options_.verb + " " + Printable(options_.name); }
  void Say(const std::string& text) { speaker_.Say("quorate: " + What() + ": " + text + '\n'); }
  void Note(const std::string& text) {
    if (!invocation_.globals.quiet) Say(text);
  }
  int Fail(ExitCode code, const std::string& text) {
    Say(text);
    return code;
  }
  int Failed(const CallResult& result) {
    std::ostringstream text;
    const int exit = Report(text, What(), result);
    speaker_.Say(text.str());
    return exit;
  }

  Invocation& invocation_;
  Client& client_;
  const LockOptions& options_;
  const Duration margin_;
  const Duration notice_;
  const std::optional<Instant> give_up_;
  TtlHolder holder_;
  Speaker speaker_;
  std::string key_;
  uint64_t revision_ = 0;  // at which the key was created
  uint64_t seen_ = 0;      // what the last listing showed
  bool gone_ = false;      // the key is not there any more
  std::atomic<bool> lost_ = false;
  bool waiting_told_ = false;
  // The command: asked to end, because the time is nearly over; made to.
  bool told_ = false, killed_ = false;
  bool by_hand_said_ = false;
  int exit_ = kExitOk;
  Instant trouble_said_;
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
  if (options.listen && !(options.command.empty() && options.value.empty() && options.ttl.empty() &&
                          options.wait.empty())) {
    return fail("--listen only watches: no --value, --ttl, --wait and no command");
  }
  const milliseconds ttl =
      ParseTime(options.ttl.empty() ? kTtlDefault : options.ttl).value_or(kTtlMin);
  std::optional<Instant> give_up;
  if (!options.wait.empty()) give_up = BootNow() + ParseTime(options.wait).value_or(kTtlMin);
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  GracefulInterrupts graceful;
  const HangupInterrupts hangups;
  if (options.listen) return ListenToElection(invocation, *client, options.name);
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
      ->default_str(kTtlDefault);
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
