// ttl grant, keep-alive, revoke.
#include <algorithm>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include "services/errors.h"
#include "services/system_clock.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/text.h"
#include "tools/ttl_renewal.h"

namespace quorate::tools {
namespace {

using services::BootNow;
using std::chrono::milliseconds;

constexpr milliseconds kGrantMin(1000);
constexpr milliseconds kGrantMax(366LL * 24 * 3600 * 1000);
// A stream's renewals are all sent before the answers are read.
constexpr size_t kRenewedAtOnceMax = 1000;
// Of one attempt at one endpoint: several fit into what is left when a third of the time is over.
constexpr milliseconds kRenewalAttemptMin(200);
constexpr milliseconds kRenewalAttemptMax(2000);
// Of those at first, when it is not known how short the time is.
constexpr milliseconds kRenewalAttemptFirst(500);
// So often every endpoint is tried when none can be connected to.
constexpr size_t kRoundsUnreached = 3;
// When every endpoint has failed they are asked again so soon, and it is said so often.
constexpr milliseconds kRenewAgain(200);
constexpr Duration kRenewTroubleInterval = std::chrono::seconds(5);
constexpr milliseconds kInterruptPoll(20);

milliseconds MillisecondsOf(const google::protobuf::Duration& duration) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::seconds(duration.seconds()) +
                                                  std::chrono::nanoseconds(duration.nanos()));
}

// --- grant ---

struct GrantOptions {
  std::string ttl;
  WriteFlags write;
};

int GrantTtl(Invocation& invocation, const GrantOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::GrantTtlRequest request;
  const int64_t ms = ParseTime(options.ttl).value_or(kGrantMin).count();
  request.mutable_ttl()->set_seconds(ms / 1000);
  request.mutable_ttl()->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  options.write.Name(&request);
  v1::GrantTtlResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::GrantTtl, request, &response);
  if (!result.ok()) return Report(invocation.io.err, "ttl grant", result);
  if (invocation.structured()) {
    PrintStructured(invocation.io.out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kTable) {
    Table table({"TTL-ID", "TTL"});
    table.Add({Printable(response.ttl_id()), FormatDuration(MillisecondsOf(response.ttl()))});
    table.Print(invocation.io.out);
  } else {
    invocation.io.out << Printable(response.ttl_id()) << '\n';  // for $(...)
  }
  return kExitOk;
}

// --- revoke ---

struct RevokeOptions {
  std::string ttl_id;
  WriteFlags write;
};

int RevokeTtl(Invocation& invocation, const RevokeOptions& options) {
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  v1::RevokeTtlRequest request;
  request.set_ttl_id(options.ttl_id);
  options.write.Name(&request);
  v1::RevokeTtlResponse response;
  const CallResult result = client->Write(&v1::Config::Stub::RevokeTtl, request, &response);
  if (!result.ok()) {
    return Report(invocation.io.err, "ttl revoke " + Printable(options.ttl_id), result);
  }
  std::ostream& out = invocation.io.out;
  if (invocation.structured()) {
    PrintStructured(out, invocation.format, ToJson(response));
  } else if (invocation.format == OutputFormat::kRaw) {
    out << response.deleted() << '\n';
  } else if (!invocation.globals.quiet) {
    out << Printable(options.ttl_id) << ": revoked, deleted " << response.deleted() << ", revision "
        << response.header().revision() << '\n';
  }
  return kExitOk;
}

// --- keep-alive ---

struct KeepAliveOptions {
  std::vector<std::string> ids;
  bool once = false;
};

// Renews several until it is interrupted, or the cluster says that the last one has ended. Who
// fails to renew one, or takes too long, is not asked again before the other endpoints were.
class KeepAlive {
 public:
  KeepAlive(Invocation& invocation, Client& client, const KeepAliveOptions& options)
      : invocation_(invocation),
        client_(client),
        once_(options.once),
        // Nobody has renewed anything until then, or only once: it is not tried for ever.
        give_up_at_(BootNow() + client.options().timeout) {
    for (const std::string& id : options.ids) {
      const auto same = [&](const Kept& kept) { return kept.id == id; };
      if (std::any_of(kept_.begin(), kept_.end(), same)) continue;
      kept_.emplace_back();
      kept_.back().id = id;
    }
    several_ = kept_.size() > 1;
  }

  int Run() {
    bool interrupted = false;
    while (!interrupted && AnyLeft()) {
      const Instant next = NextDue();
      if (BootNow() < next) {
        std::this_thread::sleep_for(std::min<Duration>(next - BootNow(), kInterruptPoll));
      } else if (!RenewDue()) {
        break;
      }
      interrupted = Interrupted();
    }
    if (once_) {
      for (const Kept& kept : kept_) invocation_.io.out << kept.shown;
    }
    return interrupted ? kExitInterrupted : exit_;
  }

 private:
  struct Kept {
    std::string id;
    Instant due{};  // at once
    bool settled = false;
    std::optional<CallResult> refused;  // the latest answer, which was no renewal
    std::string shown;                  // with --once, to come in the order of the ids
  };

  bool AnyLeft() const {
    return std::any_of(kept_.begin(), kept_.end(), [](const Kept& kept) { return !kept.settled; });
  }

  Instant NextDue() const {
    Instant next = Instant::max();
    for (const Kept& kept : kept_) {
      if (!kept.settled) next = std::min(next, kept.due);
    }
    return next;
  }

  // Asks one endpoint to renew those whose time has come. False: it cannot go on.
  bool RenewDue() {
    const Instant sent = BootNow();
    std::vector<Kept*> asked;
    std::vector<std::string> ids;
    for (Kept& kept : kept_) {
      if (kept.settled || kept.due > sent + kInterruptPoll) continue;
      asked.push_back(&kept);
      ids.push_back(kept.id);
    }
    Endpoint& endpoint = *client_.endpoints()[at_];
    std::vector<v1::KeepAliveTtlResponse> answers;
    const CallResult result = client_.RunAt(
        endpoint,
        [&](Endpoint& at, grpc::ClientContext* context) {
          return RenewTtlsAt(at, context, ids, &answers);
        },
        Attempt());
    bool failed = !result.ok();
    std::string trouble = failed ? Describe(result) : "";
    // Those that were answered before a stream broke are renewed.
    for (size_t i = 0; i < answers.size(); ++i) {
      if (Take(asked[i], answers[i], sent, endpoint.address)) continue;
      failed = true;
      trouble = Printable(ids[i]) + ": " + Describe(*asked[i]->refused);
    }
    if (!once_) invocation_.io.out.flush();
    if (!invocation_.io.out) return false;
    reached_ = reached_ || result.reached;
    if (result.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) return GiveUp(result);
    if (!failed) {
      failures_ = 0;
      return true;
    }
    at_ = (at_ + 1) % client_.endpoints().size();
    if (++failures_ % client_.endpoints().size() != 0) return true;
    // All of them have failed.
    const bool nobody_there =
        !reached_ && failures_ >= kRoundsUnreached * client_.endpoints().size();
    if ((once_ || !renewed_) && (nobody_there || BootNow() >= give_up_at_)) return GiveUp(result);
    Trouble(trouble);
    for (Kept* kept : asked) {
      if (kept->due <= sent) kept->due = BootNow() + kRenewAgain;
    }
    return true;
  }

  // Longer when everybody has failed: perhaps they are only slow.
  milliseconds Attempt() const {
    const milliseconds first =
        shortest_ ? std::clamp(*shortest_ / 6, kRenewalAttemptMin, kRenewalAttemptMax)
                  : kRenewalAttemptFirst;
    const size_t rounds = failures_ / client_.endpoints().size();
    const milliseconds attempt =
        std::min(first * (1 << std::min<size_t>(rounds, 4)), kRenewalAttemptMax);
    if (!once_ && renewed_) return attempt;
    const auto left = std::chrono::duration_cast<milliseconds>(give_up_at_ - BootNow());
    return std::clamp(left, kRenewalAttemptMin, attempt);
  }

  // False: it is not renewed, and to be asked for again.
  bool Take(Kept* kept, const v1::KeepAliveTtlResponse& answer, Instant sent,
            const std::string& address) {
    CallResult result{StatusOf(answer), address};
    if (result.ok()) {
      const milliseconds remaining = MillisecondsOf(answer.remaining());
      renewed_ = true;
      shortest_ = std::min(shortest_.value_or(remaining), remaining);
      kept->due = sent + std::max(remaining / 3, kInterruptPoll);
      kept->refused.reset();
      kept->settled = once_;
      Show(kept, &answer);
      return true;
    }
    const bool ended = services::DetailsOf(result.status).reason == "TTL_NOT_FOUND" ||
                       result.status.error_code() == grpc::StatusCode::INVALID_ARGUMENT;
    kept->refused = std::move(result);
    if (ended) EndOne(kept);
    return ended;
  }

  void EndOne(Kept* kept) {
    kept->settled = true;
    Show(kept, nullptr);
    Keep(Report(invocation_.io.err, "ttl keep-alive " + Printable(kept->id), *kept->refused));
  }

  // Says what is not renewed, by its own answer or that of the call.
  bool GiveUp(const CallResult& result) {
    bool any_unanswered = false;
    for (Kept& kept : kept_) {
      if (kept.settled) continue;
      if (kept.refused) {
        EndOne(&kept);
      } else {
        any_unanswered = true;
        Show(&kept, nullptr);
      }
    }
    if (any_unanswered) Keep(Report(invocation_.io.err, "ttl keep-alive", result));
    return false;
  }

  // The first one counts.
  void Keep(int exit) {
    if (exit_ == kExitOk) exit_ = exit;
  }

  // Without an answer: it is not renewed.
  void Show(Kept* kept, const v1::KeepAliveTtlResponse* answer) {
    std::ostringstream text;
    if (invocation_.format == OutputFormat::kRaw) {
      if (several_) text << Printable(kept->id) << ' ';
      if (answer != nullptr) {
        text << MillisecondsOf(answer->remaining()).count() << '\n';
      } else {
        text << "-\n";
      }
    } else if (answer == nullptr) {
      return;  // the report says it
    } else if (invocation_.format == OutputFormat::kJson) {
      text << ToJson(*answer).dump() << '\n';  // one line an answer
    } else if (invocation_.format == OutputFormat::kYaml) {
      text << "---\n";
      PrintStructured(text, OutputFormat::kYaml, ToJson(*answer));
    } else if (!invocation_.globals.quiet) {
      text << Printable(answer->ttl_id()) << ": kept alive for "
           << FormatDuration(MillisecondsOf(answer->remaining())) << '\n';
    }
    if (once_) {
      kept->shown = text.str();
    } else {
      invocation_.io.out << text.str();
    }
  }

  void Trouble(const std::string& text) {
    const Instant now = BootNow();
    if (invocation_.globals.quiet || (troubled_ && now - *troubled_ < kRenewTroubleInterval)) {
      return;
    }
    troubled_ = now;
    invocation_.io.err << "quorate: ttl keep-alive: " << text << "; trying again\n";
  }

  Invocation& invocation_;
  Client& client_;
  const bool once_;
  const Instant give_up_at_;
  std::vector<Kept> kept_;
  bool several_ = false;
  size_t at_ = 0;                         // the endpoint to be asked
  size_t failures_ = 0;                   // of endpoints, one after the other
  bool reached_ = false;                  // one of them, ever
  bool renewed_ = false;                  // at least one, ever
  std::optional<milliseconds> shortest_;  // time-to-live that was seen
  std::optional<Instant> troubled_;
  int exit_ = kExitOk;
};

int KeepAliveTtls(Invocation& invocation, const KeepAliveOptions& options) {
  if (options.ids.size() > kRenewedAtOnceMax) {
    return invocation.Fail(kExitUsage, "ttl keep-alive: 1,000 at most; run it more than once");
  }
  int exit = kExitOk;
  Client* client = invocation.client(&exit);
  if (client == nullptr) return exit;
  const GracefulInterrupts graceful;
  return KeepAlive(invocation, *client, options).Run();
}

}  // namespace

void AddTtlCommands(CLI::App& app, Invocation& invocation) {
  CLI::App* ttl =
      app.add_subcommand("ttl", "time-to-lives: what is bound to one is deleted when it ends");
  ttl->require_subcommand(1);

  CLI::App* grant = ttl->add_subcommand(
      "grant", "make one and print its id; it ends when it is not kept alive for its time");
  auto grant_options = std::make_shared<GrantOptions>();
  grant->add_option("TTL", grant_options->ttl, "1s to 366d")
      ->required()
      ->check(TimeWithin(kGrantMin, kGrantMax));
  AddWriteFlags(grant, &grant_options->write, /*noted=*/false);
  grant->callback([&invocation, grant_options] {
    invocation.action = [&invocation, grant_options] {
      return GrantTtl(invocation, *grant_options);
    };
  });

  CLI::App* keep_alive = ttl->add_subcommand(
      "keep-alive", "renew it every third of its time, until interrupted or it has ended (exit 3)");
  auto keep_options = std::make_shared<KeepAliveOptions>();
  keep_alive->add_option("TTL-ID", keep_options->ids, "as grant printed it; may be several")
      ->required();
  keep_alive->add_flag("--once", keep_options->once, "renew it now, and end");
  keep_alive->footer(
      "With -o raw each renewal is a line: the milliseconds that are left, `-` when it has failed\n"
      "for good; of several time-to-lives each line begins with the id. --once prints in the "
      "order\n"
      "of the ids.");
  keep_alive->callback([&invocation, keep_options] {
    invocation.action = [&invocation, keep_options] {
      return KeepAliveTtls(invocation, *keep_options);
    };
  });

  CLI::App* revoke = ttl->add_subcommand("revoke", "end it now, and delete what is bound to it");
  auto revoke_options = std::make_shared<RevokeOptions>();
  revoke->add_option("TTL-ID", revoke_options->ttl_id, "as grant printed it")->required();
  AddWriteFlags(revoke, &revoke_options->write, /*noted=*/false);
  revoke->callback([&invocation, revoke_options] {
    invocation.action = [&invocation, revoke_options] {
      return RevokeTtl(invocation, *revoke_options);
    };
  });
}

}  // namespace quorate::tools
